/*
 * Multiboot 1: 32-bit protected mode, paging off, EBX points to the information structure.
 *
 * The structure, the memory map, the module list and the strings are put at 0x9000 and up.
 */
#include "frontends/machine/boot_common.h"

#include <elf.h>
#include <string.h>

#define INFO_GPA    BOOT_INFO_GPA
#define INFO_SIZE   0x2000
#define MODTEXT_OFF 0x2000 /* behind it, below the GDT */
#define MODTEXT_END (BOOT_INFO_SIZE - 64)
#define MMAP_OFF    0x100
#define MODS_OFF    0x400
#define NAME_OFF    0x520
#define CMDLINE_OFF 0x540
#define CMDLINE_END 0x1fc0

#define MB_LOADED         0x2badb002u
#define MB_SEARCH         8192
#define MB_MAGIC          0x1badb002u
#define MB_ADDRESS_FIELDS (1u << 16)
#define MB_UNSUPPORTED                                                                                                 \
    0xfffcu /* required features beyond page alignment and memory information, bit 2 (video) apart                     \
             */

struct mb_header {
    size_t offset;
    uint32_t flags, header_addr, load_addr, load_end, bss_end, entry;
};

static uint32_t le32(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void put32(uint8_t *p, uint32_t x)
{
    for (int k = 0; k < 4; k++)
        p[k] = (uint8_t)(x >> 8 * k);
}

static bool header_find(const struct file *f, struct mb_header *h, struct error *e)
{
    for (size_t k = 0; k + 12 <= f->len && k < MB_SEARCH; k += 4) {
        const uint8_t *p = f->data + k;
        if (le32(p) != MB_MAGIC || le32(p) + le32(p + 4) + le32(p + 8) != 0)
            continue;
        h->offset = k;
        h->flags = le32(p + 4);
        if (h->flags & MB_UNSUPPORTED)
            return error_set(e, "Multiboot image '%s' requires features that are not offered (flags 0x%x)", f->path,
                             h->flags);
        if (!(h->flags & MB_ADDRESS_FIELDS))
            return true;
        if (k + 32 > f->len)
            return error_set(e, "Multiboot image '%s' is truncated in its header", f->path);
        h->header_addr = le32(p + 12);
        h->load_addr = le32(p + 16);
        h->load_end = le32(p + 20);
        h->bss_end = le32(p + 24);
        h->entry = le32(p + 28);
        return true;
    }
    return error_set(e, "'%s' has no Multiboot header", f->path);
}

static bool load_fields(const struct boot_env *env, const struct mb_header *h, uint32_t *entry, struct error *e)
{
    const struct file *f = env->kernel;
    uint32_t before = h->header_addr - h->load_addr;
    if (h->load_addr > h->header_addr || before > h->offset)
        return error_set(e, "Multiboot image '%s': load address 0x%x does not lie in the file", f->path, h->load_addr);
    size_t start = h->offset - before;
    uint64_t len = h->load_end ? (uint64_t)h->load_end - h->load_addr : f->len - start;
    if ((h->load_end && h->load_end < h->load_addr) || len > f->len - start)
        return error_set(e, "Multiboot image '%s' is truncated: %llu bytes announced, %zu in the file", f->path,
                         (unsigned long long)len, f->len - start);
    uint64_t memsz = h->bss_end > h->load_addr ? h->bss_end - h->load_addr : 0;
    *entry = h->entry;
    return boot_segment_place(env, "Multiboot", h->load_addr, f->data + start, len, memsz > len ? memsz : len, e);
}

static bool load_elf(const struct boot_env *env, uint32_t *entry, struct error *e)
{
    const struct file *f = env->kernel;
    uint64_t at = 0;
    if (!boot_is_elf(f))
        return error_set(e, "Multiboot image '%s' is no ELF file and has no address fields", f->path);
    if (f->data[EI_CLASS] != ELFCLASS32)
        return error_set(
            e, "Multiboot image '%s' is not a 32-bit x86 ELF file; give a 32-bit one (objcopy -O elf32-i386)", f->path);
    bool ok = boot_elf_load(env, "Multiboot", &at, e);
    *entry = (uint32_t)at;
    return ok;
}

static unsigned mmap_fill(const struct boot_env *env, uint8_t *info)
{
    unsigned at = MMAP_OFF;
    for (unsigned k = 0; k < env->e820_count; k++, at += 24) {
        put32(info + at, 20);
        put32(info + at + 4, (uint32_t)env->e820[k].base);
        put32(info + at + 8, (uint32_t)(env->e820[k].base >> 32));
        put32(info + at + 12, (uint32_t)env->e820[k].len);
        put32(info + at + 16, (uint32_t)(env->e820[k].len >> 32));
        put32(info + at + 20, env->e820[k].type == E820_RAM ? 1 : env->e820[k].type);
    }
    return at - MMAP_OFF;
}

/* The list, and each module's text behind the others'. */
static bool modules_place(const struct boot_env *env, uint8_t *info, struct error *e)
{
    struct boot_placed placed[BOOT_MODULES_MAX];
    unsigned text = MODTEXT_OFF;
    if (!env->module_count)
        return true;
    if (!boot_modules_place(env, placed, e))
        return false;
    put32(info, le32(info) | 1u << 3);
    put32(info + 20, env->module_count);
    put32(info + 24, INFO_GPA + MODS_OFF);
    for (unsigned k = 0; k < env->module_count; k++) {
        uint8_t *m = info + MODS_OFF + 16 * k;
        size_t len = strlen(env->module[k].text) + 1;
        if (text + len > MODTEXT_END)
            return error_set(e, "the modules' arguments are too long for the boot information");
        put32(m, (uint32_t)placed[k].start);
        put32(m + 4, (uint32_t)placed[k].end);
        put32(m + 8, INFO_GPA + text);
        memcpy(info + text, env->module[k].text, len);
        text += (unsigned)len;
    }
    return true;
}

/* Text: 80x25 cells of two bytes. */
static void framebuffer_fill(uint8_t *info)
{
    put32(info, le32(info) | 1u << 12);
    put32(info + 88, 0xb8000);
    put32(info + 96, 160);
    put32(info + 100, 80);
    put32(info + 104, 25);
    info[108] = 16;
    info[109] = 2;
}

static bool info_place(const struct boot_env *env, struct error *e)
{
    uint8_t info[BOOT_INFO_SIZE - 64] = {0};
    size_t len = strlen(env->cmdline);
    if (len >= CMDLINE_END - CMDLINE_OFF)
        return error_set(e, "the command line has %zu characters, at most %d fit", len, CMDLINE_END - CMDLINE_OFF - 1);
    put32(info, 1u << 0 | 1u << 2 | 1u << 6 | 1u << 9);
    put32(info + 4, 639);
    put32(info + 8, (uint32_t)((env->low_ram_end - 0x100000) >> 10));
    put32(info + 16, INFO_GPA + CMDLINE_OFF);
    put32(info + 44, mmap_fill(env, info));
    put32(info + 48, INFO_GPA + MMAP_OFF);
    put32(info + 64, INFO_GPA + NAME_OFF);
    if (env->vga)
        framebuffer_fill(info);
    memcpy(info + NAME_OFF, "umbra", 6);
    memcpy(info + CMDLINE_OFF, env->cmdline, len + 1);
    return modules_place(env, info, e) && boot_poke(env, INFO_GPA, info, sizeof info, "boot information", e);
}

bool boot_multiboot(const struct boot_env *env, struct error *e)
{
    struct mb_header h = {0};
    uint32_t entry = 0;
    if (!header_find(env->kernel, &h, e))
        return false;
    if (!(h.flags & MB_ADDRESS_FIELDS ? load_fields(env, &h, &entry, e) : load_elf(env, &entry, e)))
        return false;
    return info_place(env, e) && boot_enter_flat32(env, entry, MB_LOADED, INFO_GPA, e);
}
