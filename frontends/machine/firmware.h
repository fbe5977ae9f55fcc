/*
 * A machine that starts with firmware (-bios): a raw ROM image whose last byte is the last below 4 GiB, its last 128
 * KiB aliased below 1 MiB, and the host bridge's PAM registers, which put RAM in the place of ROM between 768 KiB and 1
 * MiB.
 *
 * Source: Intel 82441FX data sheet, PAM registers. A segment is 16 KiB (64 KiB from 0xf0000 on) in one of four states:
 * reads and writes go to ROM (or nowhere), or reads go to RAM, or writes, or both. RAM that is behind ROM keeps its
 * content; it is saved in a section of its own. Memslots follow the registers, so that code and data in ROM or shadowed
 * ROM run as fast as any; only writes to RAM behind ROM go through the bus.
 */
#ifndef FRONTENDS_MACHINE_FIRMWARE_H
#define FRONTENDS_MACHINE_FIRMWARE_H

#include "frontends/machine/drives.h"
#include "frontends/machine/error.h"
#include "frontends/machine/file.h"
#include "mmu/mmu.h"

#define FIRMWARE_UNIT 0x10000u /* an image is a multiple of this */
#define FIRMWARE_MAX  (16u << 20)
#define PAM_SEGMENTS  13

struct machine;
struct snap_writer;
struct snap_reader;

struct firmware {
    struct machine *m;
    struct file image;
    char path[512];
    hva_t hva;                   /* of the ROM's memory, in the machine's host_mm */
    uint8_t state[PAM_SEGMENTS]; /* PAM_READ and PAM_WRITE of each segment */
};

/* Reads and checks the image; `path` is NULL for SeaBIOS, and may be the name of firmware that the distribution has. */
bool firmware_open(struct firmware *f, const char *path, struct error *e);
/* The same from the first flash chip, which is then read-only: firmware writes to the second one (devices/pflash.h). */
bool firmware_open_flash(struct firmware *f, const struct drive *flash, struct error *e);
void firmware_close(struct firmware *f);
/* The machine has its mem and its RAM: makes the ROM's slots and those of the segments. */
bool firmware_map(struct firmware *f, struct machine *m, struct error *e);
/* A forked machine's: the parent's slots have been taken over. */
void firmware_fork(struct firmware *f, struct machine *m, const struct firmware *parent);
/* Puts the bus behind the segments. */
bool firmware_build(struct firmware *f, struct error *e);
/* The host bridge's PAM registers, PAM0 first, were written, reset or loaded. */
void firmware_pam_changed(struct firmware *f, const uint8_t *pam);
/* RAM that no slot shows at present. Loading comes after the host bridge's. */
void firmware_save(const struct firmware *f, struct snap_writer *w);
void firmware_load(struct firmware *f, struct snap_reader *r);

#endif
