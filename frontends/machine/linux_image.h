/*
 * The header of a Linux bzImage or zImage (Documentation/arch/x86/boot.rst), read and checked against the file's
 * length: what the loaders for its 64-bit and 32-bit entries (boot_linux.c) and for its 16-bit one (boot_bios.c) share.
 */
#ifndef FRONTENDS_MACHINE_LINUX_IMAGE_H
#define FRONTENDS_MACHINE_LINUX_IMAGE_H

#include "frontends/machine/file.h"

#include <stddef.h>

/* Offsets in boot_params / the setup header. */
#define HDR_CMDLINE_MAGIC  0x020
#define HDR_CMDLINE_OFFSET 0x022
#define HDR_SETUP_SECTS    0x1f1
#define HDR_SYSSIZE        0x1f4
#define HDR_VID_MODE       0x1fa
#define HDR_BOOT_FLAG      0x1fe
#define HDR_JUMP           0x200
#define HDR_MAGIC          0x202
#define HDR_VERSION        0x206
#define HDR_TYPE_OF_LOADER 0x210
#define HDR_LOADFLAGS      0x211
#define HDR_MOVE_SIZE      0x212
#define HDR_CODE32_START   0x214
#define HDR_RAMDISK_IMAGE  0x218
#define HDR_RAMDISK_SIZE   0x21c
#define HDR_HEAP_END       0x224
#define HDR_CMDLINE_PTR    0x228
#define HDR_INITRD_MAX     0x22c
#define HDR_ALIGNMENT      0x230
#define HDR_RELOCATABLE    0x234
#define HDR_XLOADFLAGS     0x236
#define HDR_CMDLINE_SIZE   0x238
#define HDR_SETUP_DATA     0x250
#define HDR_PREF_ADDRESS   0x258
#define HDR_INIT_SIZE      0x260
#define HDR_END            0x268

#define LINUX_LOADED_HIGH  1
#define LINUX_CAN_USE_HEAP 0x80
#define LINUX_LOADER       0xff /* none that has a number */

struct linux_image {
    const uint8_t *setup; /* the file's start */
    size_t setup_len;
    const uint8_t *payload;
    size_t payload_len;
    unsigned version;
    bool loaded_high;
    uint64_t load, init_size; /* where it unpacks itself to, and how much memory that takes (0: not told) */
    uint64_t initrd_max;      /* last byte of an initrd */
    size_t cmdline_size;      /* without its zero byte */
    bool entry64;
};

/* Borrows the file, which boot_detect() has found to be Linux's. False with an error: it is shorter than it says. */
bool linux_image_read(struct linux_image *img, const struct file *k, struct error *e);

/* Little-endian numbers anywhere. */
uint16_t linux_get16(const uint8_t *p);
uint32_t linux_get32(const uint8_t *p);
uint64_t linux_get64(const uint8_t *p);
void linux_put16(uint8_t *p, uint16_t x);
void linux_put32(uint8_t *p, uint32_t x);
void linux_put64(uint8_t *p, uint64_t x);

#endif
