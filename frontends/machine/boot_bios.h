/*
 * A Linux kernel for firmware to start (-bios with -kernel): BIOS by the kernel's 16-bit entry, UEFI as an EFI program.
 *
 * Both find setup code, kernel, initrd and command line as items of fw_cfg, under the keys that QEMU gives them. A BIOS
 * knows nothing of that: for it there is an option ROM (roms/linux_boot.S), also in fw_cfg, whose boot entry vector is
 * the first thing in the boot order. It runs after each reset, so the kernel is there as often as it is wanted.
 *
 * Where things go (Documentation/arch/x86/boot.rst): setup code at 0x10000 with its stack behind it, the command line
 * at 0x20000, the kernel at 1 MiB, the initrd as high as the kernel and the BIOS's memory map allow. Kernels of boot
 * protocols before 2.02 and zImages want their setup code at 0x90000 and the command line behind its heap; a zImage's
 * kernel lies at 0x10000.
 */
#ifndef FRONTENDS_MACHINE_BOOT_BIOS_H
#define FRONTENDS_MACHINE_BOOT_BIOS_H

#include "devices/fw_cfg.h"
#include "frontends/machine/file.h"

#define BOOT_BIOS_ROM "genroms/umbra-linux.bin" /* file of fw_cfg; firmware looks for ROMs below genroms/ */

struct boot_bios {
    const struct file *kernel, *initrd; /* borrowed for fw_cfg's life; initrd may be NULL */
    const char *cmdline;                /* never NULL */
    uint64_t low_ram;                   /* end of the RAM below 4 GiB */
};

/* Offers all of it. False with an error: the image is none of Linux's, damaged, or does not fit into memory. */
bool boot_bios_offer(const struct boot_bios *b, struct fw_cfg *f, struct error *e);

#endif
