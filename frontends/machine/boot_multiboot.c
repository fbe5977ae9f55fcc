/*
 * Multiboot 1: 32-bit protected mode, paging off, EBX points to the information structure.
 *
 * The structure, the memory map, the module list and the strings are put at 0x9000 and up; an image that wants that
 * memory is refused.
 */
#include "frontends/machine/boot.h"

#include <elf.h>
#include <string.h>

#define INFO_GPA    0x9000
#define INFO_SIZE   0x2000
#define MMAP_OFF    0x100
#define MODS_OFF    0x400
#define NAME_OFF    0x420
#define CMDLINE_OFF 0x440
#define GDT_OFF     0x1fc0

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

/* Copies file bytes to [gpa, gpa+filesz) and clears up to memsz. */
static bool segment_place(const struct boot_env *env, uint64_t gpa, const uint8_t *data, uint64_t filesz,
                          uint64_t memsz, struct error *e)
{
    static const uint8_t zeros[PAGE_SIZE];
    if (gpa < INFO_GPA + INFO_SIZE && gpa + memsz > INFO_GPA)
        return error_set(e, "Multiboot image '%s' wants memory at 0x%llx, where the boot information lies",
                         env->kernel->path, (unsigned long long)gpa);
    if (filesz && !boot_poke(env, gpa, data, filesz, env->kernel->path, e))
        return false;
    for (uint64_t at = filesz; at < memsz;) {
        uint64_t n = memsz - at < PAGE_SIZE ? memsz - at : PAGE_SIZE;
        if (!boot_poke(env, gpa + at, zeros, n, env->kernel->path, e))
            return false;
        at += n;
    }
    return true;
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
    return segment_place(env, h->load_addr, f->data + start, len, memsz > len ? memsz : len, e);
}

static bool elf_check(const struct file *f, const Elf32_Ehdr *eh, struct error *e)
{
    if (f->len < sizeof *eh || memcmp(eh->e_ident, ELFMAG, SELFMAG))
        return error_set(e, "Multiboot image '%s' is no ELF file and has no address fields", f->path);
    if (eh->e_ident[EI_CLASS] != ELFCLASS32 || eh->e_machine != EM_386)
        return error_set(
            e, "Multiboot image '%s' is not a 32-bit x86 ELF file; give a 32-bit one (objcopy -O elf32-i386)", f->path);
    if (eh->e_phentsize != sizeof(Elf32_Phdr) ||
        (uint64_t)eh->e_phoff + (uint64_t)eh->e_phnum * sizeof(Elf32_Phdr) > f->len)
        return error_set(e, "Multiboot image '%s' is truncated: its program headers lie outside the file", f->path);
    return true;
}

static bool load_elf(const struct boot_env *env, uint32_t *entry, struct error *e)
{
    const struct file *f = env->kernel;
    Elf32_Ehdr eh = {0};
    memcpy(&eh, f->data, f->len < sizeof eh ? f->len : sizeof eh);
    if (!elf_check(f, &eh, e))
        return false;
    *entry = eh.e_entry;
    uint64_t total =
        0; /* each byte is placed once: a header of 65,535 large segments takes no longer than a small one */
    for (unsigned k = 0; k < eh.e_phnum; k++) {
        Elf32_Phdr ph;
        memcpy(&ph, f->data + eh.e_phoff + k * sizeof ph, sizeof ph);
        if (ph.p_type != PT_LOAD || !ph.p_memsz)
            continue;
        if ((uint64_t)ph.p_offset + ph.p_filesz > f->len || ph.p_filesz > ph.p_memsz)
            return error_set(e, "Multiboot image '%s' is truncated: segment %u lies outside the file", f->path, k);
        total += ph.p_memsz;
        if (total > env->low_ram_end)
            return error_set(e, "Multiboot image '%s' does not fit: its segments need %lluM together; use a larger -m",
                             f->path, (unsigned long long)((total + 0xfffff) >> 20));
        if (*entry - ph.p_vaddr < ph.p_memsz && ph.p_vaddr != ph.p_paddr)
            *entry = eh.e_entry - ph.p_vaddr + ph.p_paddr;
        if (!segment_place(env, ph.p_paddr, f->data + ph.p_offset, ph.p_filesz, ph.p_memsz, e))
            return false;
    }
    return true;
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

static bool module_place(const struct boot_env *env, uint8_t *info, struct error *e)
{
    if (!env->initrd)
        return true;
    uint64_t at = (env->low_ram_end - env->initrd->len) & ~PAGE_MASK;
    if (env->initrd->len >= env->low_ram_end || at < 0x200000)
        return error_set(e, "initrd '%s' (%zu bytes) does not fit into memory; use a larger -m", env->initrd->path,
                         env->initrd->len);
    put32(info, le32(info) | 1u << 3);
    put32(info + 20, 1);
    put32(info + 24, INFO_GPA + MODS_OFF);
    put32(info + MODS_OFF, (uint32_t)at);
    put32(info + MODS_OFF + 4, (uint32_t)(at + env->initrd->len));
    put32(info + MODS_OFF + 8, INFO_GPA + NAME_OFF);
    return boot_poke(env, at, env->initrd->data, env->initrd->len, "module", e);
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
    uint8_t info[INFO_SIZE] = {0};
    size_t len = strlen(env->cmdline);
    if (len >= GDT_OFF - CMDLINE_OFF)
        return error_set(e, "the command line has %zu characters, at most %d fit", len, GDT_OFF - CMDLINE_OFF - 1);
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
    const uint64_t gdt[4] = {0, 0, 0x00cf9b000000ffffull, 0x00cf93000000ffffull};
    memcpy(info + GDT_OFF, gdt, sizeof gdt);
    return module_place(env, info, e) && boot_poke(env, INFO_GPA, info, sizeof info, "boot information", e);
}

static void cpu_enter(const struct boot_env *env, uint32_t entry)
{
    struct vcpu *v = env->cpu;
    v->gdtr = (struct desc_table){INFO_GPA + GDT_OFF, 31};
    v->cr0 = CR0_PE | CR0_ET;
    v->cr4 = 0;
    v->efer = 0;
    vcpu_set_segment(v, SEG_CS, 0x10, 0, 0xffffffff, 0xc09b);
    for (int s = SEG_ES; s <= SEG_GS; s++)
        if (s != SEG_CS)
            vcpu_set_segment(v, s, 0x18, 0, 0xffffffff, 0xc093);
    v->gpr[REG_RAX] = 0x2badb002;
    v->gpr[REG_RBX] = INFO_GPA;
    v->rip = entry;
    vcpu_set_rflags(v, 2);
    vcpu_refresh(v);
}

bool boot_multiboot(const struct boot_env *env, struct error *e)
{
    struct mb_header h = {0};
    uint32_t entry = 0;
    if (!header_find(env->kernel, &h, e))
        return false;
    if (!(h.flags & MB_ADDRESS_FIELDS ? load_fields(env, &h, &entry, e) : load_elf(env, &entry, e)))
        return false;
    if (!info_place(env, e))
        return false;
    cpu_enter(env, entry);
    return true;
}
