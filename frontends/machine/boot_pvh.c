/*
 * PVH: an ELF kernel with Xen's PHYS32_ENTRY note, started in flat 32-bit mode with EBX on a struct hvm_start_info
 * (Xen: public/arch-x86/hvm/start_info.h).
 */
#include "frontends/machine/boot_common.h"

#include "core/bytes.h"

#include <string.h>

#define PVH_NOTE    18
#define START_MAGIC 0x336ec578u
#define START_BYTES 56
#define MMAP_OFF    0x100
#define MODULES_OFF 0x600
#define TEXT_OFF    0x900

bool boot_is_pvh(const struct file *kernel)
{
    uint64_t entry;
    return boot_elf_note(kernel, "Xen", PVH_NOTE, &entry);
}

/* A string behind those that are there: its gpa, or 0 if there is no room. */
static uint64_t put_text(uint8_t *info, size_t room, size_t *at, const char *text)
{
    size_t len = strlen(text) + 1;
    if (len > room - *at)
        return 0;
    memcpy(info + *at, text, len);
    *at += len;
    return BOOT_INFO_GPA + *at - len;
}

static bool put_strings(const struct boot_env *env, uint8_t *info, size_t room, const struct boot_placed *placed)
{
    size_t at = TEXT_OFF;
    uint64_t text = put_text(info, room, &at, env->cmdline);
    store_le(info + 24, text, 8);
    for (unsigned k = 0; text && k < env->module_count; k++) {
        uint8_t *m = info + MODULES_OFF + 32 * k;
        text = put_text(info, room, &at, env->module[k].text);
        store_le(m, placed[k].start, 8);
        store_le(m + 8, placed[k].end - placed[k].start, 8);
        store_le(m + 16, text, 8);
    }
    return text != 0;
}

static bool info_place(const struct boot_env *env, struct error *e)
{
    uint8_t info[BOOT_INFO_SIZE - 64] = {0};
    struct boot_placed placed[BOOT_MODULES_MAX];
    if (!boot_modules_place(env, placed, e))
        return false;
    store_le(info, START_MAGIC, 4);
    store_le(info + 4, 1, 4); /* version */
    store_le(info + 12, env->module_count, 4);
    store_le(info + 16, env->module_count ? BOOT_INFO_GPA + MODULES_OFF : 0, 8);
    store_le(info + 32, env->rsdp, 8);
    store_le(info + 40, BOOT_INFO_GPA + MMAP_OFF, 8);
    store_le(info + 48, env->e820_count, 4);
    for (unsigned k = 0; k < env->e820_count; k++) {
        store_le(info + MMAP_OFF + 24 * k, env->e820[k].base, 8);
        store_le(info + MMAP_OFF + 24 * k + 8, env->e820[k].len, 8);
        store_le(info + MMAP_OFF + 24 * k + 16, env->e820[k].type, 4);
    }
    if (!put_strings(env, info, sizeof info, placed))
        return error_set(e, "the command line and the modules' arguments are too long for the boot information");
    return boot_poke(env, BOOT_INFO_GPA, info, sizeof info, "boot information", e);
}

bool boot_pvh(const struct boot_env *env, struct error *e)
{
    uint64_t entry, elf_entry;
    if (!boot_elf_note(env->kernel, "Xen", PVH_NOTE, &entry) || entry > UINT32_MAX)
        return error_set(e, "'%s' has no PVH entry below 4 GiB", env->kernel->path);
    return boot_elf_load(env, "PVH", &elf_entry, e) && info_place(env, e) &&
           boot_enter_flat32(env, (uint32_t)entry, 0, BOOT_INFO_GPA, e);
}
