/*
 * Boot protocols: what a loader puts into memory and registers before the first instruction.
 *
 * Each loader checks its image completely, writes through the memory hook (MEM_HOST_POKE), then sets the boot vCPU. A
 * refused image leaves the machine unusable, but never crashes it.
 */
#ifndef FRONTENDS_MACHINE_BOOT_H
#define FRONTENDS_MACHINE_BOOT_H

#include "cpu/cpu.h"
#include "frontends/machine/file.h"
#include "mmu/mmu.h"

#define E820_RAM      1
#define E820_RESERVED 2
#define E820_ACPI     3
#define E820_MAX      16

struct e820_entry {
    uint64_t base, len;
    uint32_t type;
};

#define BOOT_MODULES_MAX 16

/* A file beside the kernel, and the text that goes with it ("initrd"'s own name, or what -initrd says behind it). */
struct boot_module {
    struct file file;
    const char *text;
};

struct boot_env {
    struct mem *mem;
    struct vcpu *cpu;
    const struct file *kernel, *initrd; /* initrd may be NULL: Linux's */
    const struct boot_module *module;   /* all others' */
    unsigned module_count;
    const char *cmdline; /* never NULL */
    const struct e820_entry *e820;
    unsigned e820_count;
    uint64_t low_ram_end; /* end of the RAM below 4 GiB that loaders may use (ACPI tables begin there) */
    bool vga;             /* there is a display adapter, in text mode 3 */
    uint64_t rsdp;        /* gpa of the ACPI RSDP */
    uint8_t rng_seed[32]; /* handed to Linux; fixed by default */
};

enum boot_format { BOOT_UNKNOWN, BOOT_LINUX, BOOT_MULTIBOOT, BOOT_MULTIBOOT2, BOOT_PVH };

enum boot_format boot_detect(const struct file *kernel);
/* Linux/x86 boot protocol, 64-bit entry where image and processor have one, else 32-bit
 * (Documentation/arch/x86/boot.rst).
 */
bool boot_linux(const struct boot_env *env, struct error *e);
/* Multiboot 1 (specification 0.6.96): ELF32 or address fields, with modules. */
bool boot_multiboot(const struct boot_env *env, struct error *e);
bool boot_is_multiboot2(const struct file *kernel);
bool boot_multiboot2(const struct boot_env *env, struct error *e);
bool boot_is_pvh(const struct file *kernel);
bool boot_pvh(const struct boot_env *env, struct error *e);
/* The loader that fits the kernel. */
bool boot_load(const struct boot_env *env, struct error *e);

/* Shared by loaders: copies into RAM or says that it does not fit. */
bool boot_poke(const struct boot_env *env, uint64_t gpa, const void *data, size_t len, const char *what,
               struct error *e);

#endif
