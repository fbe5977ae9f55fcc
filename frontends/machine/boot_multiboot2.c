/*
 * Multiboot 2 (specification 2.0, i386 architecture): ELF or address tags, 32-bit entry, EBX points to a list of tags.
 */
#include "frontends/machine/boot_common.h"

#include "core/bytes.h"

#include <string.h>

#define MB2_SEARCH 32768
#define MB2_MAGIC  0xe85250d6u
#define MB2_LOADED 0x36d76289u
#define MB2_HEADER 16
#define OPTIONAL   1

/* Tags of the image's header. */
enum {
    WANT_END,
    WANT_INFO,
    WANT_ADDRESS,
    WANT_ENTRY,
    WANT_CONSOLE,
    WANT_FRAMEBUFFER,
    WANT_ALIGN,
    WANT_EFI_BS,
    WANT_EFI32,
    WANT_EFI64,
    WANT_RELOCATE
};
/* Tags that the image is given. */
enum {
    GIVE_END,
    GIVE_CMDLINE,
    GIVE_LOADER,
    GIVE_MODULE,
    GIVE_MEMORY,
    GIVE_BOOTDEV,
    GIVE_MMAP,
    GIVE_VBE,
    GIVE_FRAMEBUFFER,
    GIVE_RSDP = 14,
    GIVE_RSDP2 = 15
};

struct mb2 {
    size_t offset; /* of the header in the file */
    uint32_t length;
    bool has_address, has_entry;
    uint32_t header_addr, load_addr, load_end, bss_end, entry;
};

static uint32_t le32(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static bool header_find(const struct file *f, struct mb2 *h)
{
    for (size_t k = 0; k + MB2_HEADER <= f->len && k < MB2_SEARCH; k += 8) {
        const uint8_t *p = f->data + k;
        if (le32(p) != MB2_MAGIC || le32(p + 4) || le32(p) + le32(p + 4) + le32(p + 8) + le32(p + 12) != 0)
            continue;
        *h = (struct mb2){.offset = k, .length = le32(p + 8)};
        return h->length >= MB2_HEADER && h->length <= f->len - k;
    }
    return false;
}

bool boot_is_multiboot2(const struct file *kernel)
{
    struct mb2 h;
    return header_find(kernel, &h);
}

/* ---- what the image wants ---- */

static bool info_is_given(uint32_t type)
{
    return (type >= GIVE_CMDLINE && type <= GIVE_MEMORY) || type == GIVE_MMAP || type == GIVE_FRAMEBUFFER ||
           type == GIVE_RSDP || type == GIVE_RSDP2;
}

static bool take_request(const struct file *f, const uint8_t *tag, uint32_t size, struct error *e)
{
    for (uint32_t at = 8; at + 4 <= size; at += 4)
        if (!info_is_given(le32(tag + at)))
            return error_set(e, "Multiboot 2 image '%s' requires information of type %u, which is not offered", f->path,
                             le32(tag + at));
    return true;
}

static bool take_tag(const struct file *f, struct mb2 *h, const uint8_t *tag, uint32_t size, struct error *e)
{
    bool optional = tag[2] & OPTIONAL;
    unsigned type = tag[0] | tag[1] << 8;
    switch (type) {
    case WANT_INFO:
        return optional || take_request(f, tag, size, e);
    case WANT_ADDRESS:
        if (size < 24)
            return error_set(e, "Multiboot 2 image '%s': an address tag of %u bytes", f->path, size);
        h->has_address = true;
        h->header_addr = le32(tag + 8);
        h->load_addr = le32(tag + 12);
        h->load_end = le32(tag + 16);
        h->bss_end = le32(tag + 20);
        return true;
    case WANT_ENTRY:
        if (size < 12)
            return error_set(e, "Multiboot 2 image '%s': an entry tag of %u bytes", f->path, size);
        h->has_entry = true;
        h->entry = le32(tag + 8);
        return true;
    case WANT_CONSOLE:
    case WANT_FRAMEBUFFER: /* there is text mode; an image asks for a mode, it does not insist */
    case WANT_ALIGN:
    case WANT_EFI_BS:
    case WANT_EFI32:
    case WANT_EFI64:
    case WANT_RELOCATE: /* it is loaded where it was linked */
        return true;
    default:
        return optional || error_set(e, "Multiboot 2 image '%s' requires tag %u, which is unknown", f->path, type);
    }
}

static bool header_parse(const struct file *f, struct mb2 *h, struct error *e)
{
    const uint8_t *p = f->data + h->offset;
    for (uint32_t at = MB2_HEADER; at + 8 <= h->length;) {
        uint32_t size = le32(p + at + 4);
        if (size < 8 || size > h->length - at)
            return error_set(e, "Multiboot 2 image '%s': a header tag of %u bytes", f->path, size);
        if (!p[at] && !p[at + 1])
            return true;
        if (!take_tag(f, h, p + at, size, e))
            return false;
        at += (size + 7) & ~7u;
    }
    return true;
}

static bool load_address(const struct boot_env *env, const struct mb2 *h, struct error *e)
{
    const struct file *f = env->kernel;
    uint64_t before = (uint64_t)h->header_addr - h->load_addr;
    bool whole = h->load_addr == UINT32_MAX; /* from the file's first byte on */
    uint32_t base = whole ? h->header_addr - (uint32_t)h->offset : h->load_addr;
    if (whole)
        before = h->offset;
    if (before > h->offset || (h->load_end && h->load_end < base))
        return error_set(e, "Multiboot 2 image '%s': load address 0x%x does not lie in the file", f->path, base);
    size_t start = h->offset - (size_t)before;
    uint64_t len = h->load_end ? (uint64_t)h->load_end - base : f->len - start;
    if (len > f->len - start)
        return error_set(e, "Multiboot 2 image '%s' is truncated: %llu bytes announced, %zu in the file", f->path,
                         (unsigned long long)len, f->len - start);
    uint64_t memsz = h->bss_end > base ? h->bss_end - base : 0;
    return boot_segment_place(env, "Multiboot 2", base, f->data + start, len, memsz > len ? memsz : len, e);
}

/* ---- what it is given ---- */

struct list {
    uint8_t bytes[BOOT_INFO_SIZE - 64];
    size_t len;
    bool overflow;
};

/* Room for a tag of `size` bytes, its header filled; a place to scribble on if there is none. */
static uint8_t *give(struct list *l, uint32_t type, size_t size)
{
    size_t at = (l->len + 7) & ~(size_t)7;
    if (size > sizeof l->bytes - at - 8 || at + 8 > sizeof l->bytes) {
        l->overflow = true;
        return NULL;
    }
    store_le(l->bytes + at, type, 4);
    store_le(l->bytes + at + 4, size, 4);
    l->len = at + size;
    return l->bytes + at;
}

static void give_string(struct list *l, uint32_t type, const char *text)
{
    size_t len = strlen(text) + 1;
    uint8_t *p = give(l, type, 8 + len);
    if (p)
        memcpy(p + 8, text, len);
}

static void give_modules(const struct boot_env *env, struct list *l, const struct boot_placed *placed)
{
    for (unsigned k = 0; k < env->module_count; k++) {
        size_t len = strlen(env->module[k].text) + 1;
        uint8_t *p = give(l, GIVE_MODULE, 16 + len);
        if (!p)
            return;
        store_le(p + 8, placed[k].start, 4);
        store_le(p + 12, placed[k].end, 4);
        memcpy(p + 16, env->module[k].text, len);
    }
}

static void give_memory(const struct boot_env *env, struct list *l)
{
    uint8_t *p = give(l, GIVE_MEMORY, 16);
    if (p) {
        store_le(p + 8, 639, 4);
        store_le(p + 12, (env->low_ram_end - 0x100000) >> 10, 4);
    }
    p = give(l, GIVE_MMAP, 16 + 24 * (size_t)env->e820_count);
    if (!p)
        return;
    store_le(p + 8, 24, 4);
    for (unsigned k = 0; k < env->e820_count; k++) {
        store_le(p + 16 + 24 * k, env->e820[k].base, 8);
        store_le(p + 24 + 24 * k, env->e820[k].len, 8);
        store_le(p + 32 + 24 * k, env->e820[k].type, 4);
    }
}

/* Text: 80x25 cells of two bytes. */
static void give_framebuffer(struct list *l)
{
    uint8_t *p = give(l, GIVE_FRAMEBUFFER, 32);
    if (!p)
        return;
    store_le(p + 8, 0xb8000, 8);
    store_le(p + 16, 160, 4);
    store_le(p + 20, 80, 4);
    store_le(p + 24, 25, 4);
    p[28] = 16;
    p[29] = 2;
}

static void give_rsdp(const struct boot_env *env, struct list *l)
{
    uint8_t rsdp[36];
    if (mem_access(env->mem, 0, env->rsdp, rsdp, sizeof rsdp, MEM_PEEK, false, -1) != MEM_OK)
        return;
    uint8_t *p = give(l, GIVE_RSDP, 8 + 20);
    if (p)
        memcpy(p + 8, rsdp, 20);
    p = rsdp[15] >= 2 ? give(l, GIVE_RSDP2, 8 + sizeof rsdp) : NULL;
    if (p)
        memcpy(p + 8, rsdp, sizeof rsdp);
}

static bool info_place(const struct boot_env *env, struct error *e)
{
    struct list l = {.len = 8};
    struct boot_placed placed[BOOT_MODULES_MAX];
    if (!boot_modules_place(env, placed, e))
        return false;
    give_string(&l, GIVE_CMDLINE, env->cmdline);
    give_string(&l, GIVE_LOADER, "umbra");
    give_modules(env, &l, placed);
    give_memory(env, &l);
    if (env->vga)
        give_framebuffer(&l);
    give_rsdp(env, &l);
    give(&l, GIVE_END, 8);
    if (l.overflow)
        return error_set(e, "the command line and the modules' arguments are too long for the boot information");
    store_le(l.bytes, l.len, 4);
    return boot_poke(env, BOOT_INFO_GPA, l.bytes, l.len, "boot information", e);
}

bool boot_multiboot2(const struct boot_env *env, struct error *e)
{
    struct mb2 h;
    uint64_t entry = 0;
    if (!header_find(env->kernel, &h))
        return error_set(e, "'%s' has no Multiboot 2 header", env->kernel->path);
    if (!header_parse(env->kernel, &h, e) ||
        !(h.has_address ? load_address(env, &h, e) : boot_elf_load(env, "Multiboot 2", &entry, e)))
        return false;
    if (h.has_address && !h.has_entry)
        return error_set(e, "Multiboot 2 image '%s' has addresses but no entry", env->kernel->path);
    return info_place(env, e) &&
           boot_enter_flat32(env, h.has_entry ? h.entry : (uint32_t)entry, MB2_LOADED, BOOT_INFO_GPA, e);
}
