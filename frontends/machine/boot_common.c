#include "frontends/machine/boot_common.h"

#include <elf.h>
#include <string.h>

/* ---- ELF ---- */

/* A program header of either class. */
struct elf_part {
    uint32_t type;
    uint64_t offset, vaddr, paddr, filesz, memsz;
};

struct elf {
    const struct file *file;
    bool is64;
    uint64_t entry, phoff;
    unsigned count;
};

bool boot_is_elf(const struct file *f)
{
    return f->len >= sizeof(Elf64_Ehdr) && !memcmp(f->data, ELFMAG, SELFMAG);
}

static bool elf_open(const struct file *f, struct elf *x)
{
    Elf32_Ehdr eh32;
    Elf64_Ehdr eh64;
    if (!boot_is_elf(f) || f->data[EI_DATA] != ELFDATA2LSB)
        return false;
    memcpy(&eh32, f->data, sizeof eh32);
    memcpy(&eh64, f->data, sizeof eh64);
    x->file = f;
    x->is64 = f->data[EI_CLASS] == ELFCLASS64;
    unsigned size = x->is64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);
    x->entry = x->is64 ? eh64.e_entry : eh32.e_entry;
    x->phoff = x->is64 ? eh64.e_phoff : eh32.e_phoff;
    x->count = x->is64 ? eh64.e_phnum : eh32.e_phnum;
    return (x->is64 ? eh64.e_machine == EM_X86_64 && eh64.e_phentsize == size
                    : eh32.e_machine == EM_386 && eh32.e_phentsize == size) &&
           x->phoff <= f->len && (uint64_t)x->count * size <= f->len - x->phoff;
}

static struct elf_part elf_segment(const struct elf *x, unsigned k)
{
    if (x->is64) {
        Elf64_Phdr p;
        memcpy(&p, x->file->data + x->phoff + k * sizeof p, sizeof p);
        return (struct elf_part){p.p_type, p.p_offset, p.p_vaddr, p.p_paddr, p.p_filesz, p.p_memsz};
    }
    Elf32_Phdr p;
    memcpy(&p, x->file->data + x->phoff + k * sizeof p, sizeof p);
    return (struct elf_part){p.p_type, p.p_offset, p.p_vaddr, p.p_paddr, p.p_filesz, p.p_memsz};
}

static bool is_in_file(const struct elf *x, const struct elf_part *s)
{
    return s->offset <= x->file->len && s->filesz <= x->file->len - s->offset;
}

bool boot_segment_place(const struct boot_env *env, const char *kind, uint64_t gpa, const uint8_t *data,
                        uint64_t filesz, uint64_t memsz, struct error *e)
{
    static const uint8_t zeros[PAGE_SIZE];
    if (gpa < BOOT_INFO_GPA + BOOT_INFO_SIZE && gpa + memsz > BOOT_INFO_GPA)
        return error_set(e, "%s image '%s' wants memory at 0x%llx, where the boot information lies", kind,
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

bool boot_elf_load(const struct boot_env *env, const char *kind, uint64_t *entry, struct error *e)
{
    struct elf x;
    uint64_t total = 0; /* each byte is placed once: many large segments take no longer than one */
    if (!elf_open(env->kernel, &x))
        return error_set(e, "%s image '%s' is no complete x86 ELF file", kind, env->kernel->path);
    *entry = x.entry;
    for (unsigned k = 0; k < x.count; k++) {
        struct elf_part s = elf_segment(&x, k);
        if (s.type != PT_LOAD || !s.memsz)
            continue;
        if (!is_in_file(&x, &s) || s.filesz > s.memsz)
            return error_set(e, "%s image '%s' is truncated: segment %u lies outside the file", kind, env->kernel->path,
                             k);
        if (s.memsz > env->low_ram_end || (total += s.memsz) > env->low_ram_end)
            return error_set(e, "%s image '%s' does not fit: its segments need more than %lluM; use a larger -m", kind,
                             env->kernel->path, (unsigned long long)(env->low_ram_end >> 20));
        if (x.entry - s.vaddr < s.memsz)
            *entry = x.entry - s.vaddr + s.paddr;
        if (!boot_segment_place(env, kind, s.paddr, x.file->data + s.offset, s.filesz, s.memsz, e))
            return false;
    }
    return true;
}

static uint32_t le32(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static bool note_in_segment(const uint8_t *p, uint64_t len, const char *owner, uint32_t type, uint64_t *value)
{
    while (len >= 12) {
        uint64_t name = le32(p), desc = le32(p + 4), name_room = (name + 3) & ~3ull, desc_room = (desc + 3) & ~3ull;
        if (name_room + desc_room > len - 12)
            return false;
        if (le32(p + 8) == type && name == strlen(owner) + 1 && !memcmp(p + 12, owner, name) && desc >= 4) {
            *value = le32(p + 12 + name_room);
            if (desc >= 8)
                *value |= (uint64_t)le32(p + 12 + name_room + 4) << 32;
            return true;
        }
        p += 12 + name_room + desc_room;
        len -= 12 + name_room + desc_room;
    }
    return false;
}

bool boot_elf_note(const struct file *f, const char *owner, uint32_t type, uint64_t *value)
{
    struct elf x;
    if (!elf_open(f, &x))
        return false;
    for (unsigned k = 0; k < x.count; k++) {
        struct elf_part s = elf_segment(&x, k);
        if (s.type == PT_NOTE && is_in_file(&x, &s) &&
            note_in_segment(f->data + s.offset, s.filesz, owner, type, value))
            return true;
    }
    return false;
}

/* ---- modules ---- */

bool boot_modules_place(const struct boot_env *env, struct boot_placed placed[BOOT_MODULES_MAX], struct error *e)
{
    uint64_t end = env->low_ram_end;
    for (unsigned k = 0; k < env->module_count; k++) {
        const struct file *f = &env->module[k].file;
        uint64_t at = f->len < end ? (end - f->len) & ~PAGE_MASK : 0;
        if (at < 0x200000)
            return error_set(e, "module '%s' (%zu bytes) does not fit into memory; use a larger -m", f->path, f->len);
        if (!boot_poke(env, at, f->data, f->len, "module", e))
            return false;
        placed[k] = (struct boot_placed){at, at + f->len};
        end = at;
    }
    return true;
}

/* ---- the processor ---- */

bool boot_enter_flat32(const struct boot_env *env, uint32_t entry, uint32_t eax, uint32_t ebx, struct error *e)
{
    struct vcpu *v = env->cpu;
    const uint64_t gdt[5] = {0, 0, 0x00cf9b000000ffffull, 0x00cf93000000ffffull, 0x00008b0000000067ull};
    if (!boot_poke(env, BOOT_GDT_GPA, gdt, sizeof gdt, "boot information", e))
        return false;
    v->gdtr = (struct desc_table){BOOT_GDT_GPA, sizeof gdt - 1};
    v->cr0 = CR0_PE | CR0_ET;
    v->cr4 = 0;
    v->efer = 0;
    vcpu_set_segment(v, SEG_CS, 0x10, 0, 0xffffffff, 0xc09b);
    for (int s = SEG_ES; s <= SEG_GS; s++)
        if (s != SEG_CS)
            vcpu_set_segment(v, s, 0x18, 0, 0xffffffff, 0xc093);
    v->tr = (struct segment){.sel = 0x20, .limit = 0x67, .attr = 0x8b};
    v->gpr[REG_RAX] = eax;
    v->gpr[REG_RBX] = ebx;
    v->rip = entry;
    vcpu_set_rflags(v, 2);
    vcpu_refresh(v);
    return true;
}
