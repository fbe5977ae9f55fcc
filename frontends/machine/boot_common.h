/*
 * What the loaders of ELF kernels share: segments, notes, modules, and the flat 32-bit processor that Multiboot and PVH
 * start with. Boot information lies at BOOT_INFO_GPA; an image that wants that memory is refused.
 */
#ifndef FRONTENDS_MACHINE_BOOT_COMMON_H
#define FRONTENDS_MACHINE_BOOT_COMMON_H

#include "frontends/machine/boot.h"

#define BOOT_INFO_GPA  0x9000
#define BOOT_INFO_SIZE 0x3000
#define BOOT_GDT_GPA   (BOOT_INFO_GPA + BOOT_INFO_SIZE - 64)

bool boot_is_elf(const struct file *f);
/* Loads every PT_LOAD segment of a 32-bit or x86-64 ELF file at its physical address; *entry is the entry's physical
 * address. `kind` is for messages ("Multiboot"). */
bool boot_elf_load(const struct boot_env *env, const char *kind, uint64_t *entry, struct error *e);
/* The value (4 or 8 bytes) of the ELF note of that owner and type. False: there is none. */
bool boot_elf_note(const struct file *f, const char *owner, uint32_t type, uint64_t *value);
/* Copies `filesz` bytes to gpa and clears up to `memsz`. */
bool boot_segment_place(const struct boot_env *env, const char *kind, uint64_t gpa, const uint8_t *data,
                        uint64_t filesz, uint64_t memsz, struct error *e);

struct boot_placed {
    uint64_t start, end;
};
/* Copies the modules to the end of memory below 4 GiB, page by page down: where each is. */
bool boot_modules_place(const struct boot_env *env, struct boot_placed placed[BOOT_MODULES_MAX], struct error *e);

/* Protected mode without paging, flat segments (code 10H, data 18H), a TSS (20H), interrupts off. Writes the GDT. */
bool boot_enter_flat32(const struct boot_env *env, uint32_t entry, uint32_t eax, uint32_t ebx, struct error *e);

#endif
