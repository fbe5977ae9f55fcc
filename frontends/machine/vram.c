#include "frontends/machine/vram.h"

#include "core/digest.h"
#include "devices/layout.h"
#include "frontends/machine/machine.h"
#include "mmu/mem.h"

#include <string.h>

#define SECTION         "vram"
#define SECTION_VERSION 2
#define SECTION_END     UINT32_MAX

/* ---- the memory as the adapter sees it ---- */

/* The part of one page, or NULL: the host has none (reading by PEEK: it is all zeros). */
static uint8_t *page_bytes(struct machine *m, uint64_t offset, enum mem_kind kind, bool write)
{
    struct gup_result g;
    hva_t hva = m->vram.hva + (offset & ~PAGE_MASK);
    if (kind == MEM_PEEK)
        return (uint8_t *)(uintptr_t)host_mm_peek_content(m->mm, hva);
    return host_mm_gup(m->mm, hva, write, &g) ? NULL : g.ptr;
}

static void written(void *ctx, unsigned as, gpa_t offset, size_t len)
{
    struct machine *m = ctx;
    const struct vram *v = &m->vram;
    if (!v->shown || offset < v->offset || offset - v->offset >= v->len)
        return;
    uint64_t left = v->len - (offset - v->offset);
    mem_written(m->mem, as, v->gpa + (offset - v->offset), len < left ? len : left);
}

static enum mem_result access(void *ctx, unsigned as, gpa_t offset, void *buf, size_t len, enum mem_kind kind,
                              bool write)
{
    struct machine *m = ctx;
    uint8_t *at = buf;
    if (offset > VGA_VRAM_BYTES || len > VGA_VRAM_BYTES - offset)
        return MEM_DEVICE;
    for (uint64_t from = offset, left = len; left;) {
        size_t part = PAGE_SIZE - (from & PAGE_MASK);
        part = part < left ? part : left;
        uint8_t *page = page_bytes(m, from, kind, write);
        if (!page && kind != MEM_PEEK) {
            log_error("no host memory for the display adapter");
            return MEM_ABSENT;
        }
        if (write)
            memcpy(page + (from & PAGE_MASK), at, part);
        else if (page)
            memcpy(at, page + (from & PAGE_MASK), part);
        else
            memset(at, 0, part);
        at += part;
        from += part;
        left -= part;
    }
    if (write)
        written(m, as, offset, len);
    return MEM_OK;
}

static bool locate(void *ctx, unsigned as, gpa_t offset, uint64_t len, bool write, struct guest_place *out)
{
    struct machine *m = ctx;
    (void)as;
    (void)write;
    *out = (struct guest_place){m->mm, m->vram.hva + offset};
    return offset <= VGA_VRAM_BYTES && len <= VGA_VRAM_BYTES - offset;
}

static uint64_t generation(void *ctx)
{
    (void)ctx;
    return 0;
}

void vram_hook(struct machine *m, struct guest_memory *out)
{
    *out = (struct guest_memory){
        .ctx = m, .access = access, .locate = locate, .generation = generation, .written = written};
}

/* ---- the slot ---- */

static struct vram wanted(const struct machine *m)
{
    const struct vga *v = &m->board.vga;
    uint32_t window = vga_plain_window(v);
    uint64_t bar = v->pci.bar[VGA_BAR_MEMORY].mapped;
    struct vram w = m->vram;
    w.shown = true;
    if (window != VGA_NO_WINDOW && !m->smram.shown) {
        w.gpa = LAYOUT_VGA_WINDOW;
        w.offset = window;
        w.len = VGA_CHAIN4_BYTES;
    } else if (bar != PCI_UNMAPPED) {
        w.gpa = bar;
        w.offset = 0;
        w.len = VGA_VRAM_BYTES;
    } else {
        w.shown = false;
    }
    return w;
}

void vram_update(void *machine)
{
    struct machine *m = machine;
    struct vram *v = &m->vram, w = wanted(m);
    if (w.shown == v->shown && (!w.shown || (w.gpa == v->gpa && w.offset == v->offset)))
        return;
    if (v->shown)
        mem_slot_delete(m->mem, 0, v->gpa);
    w.changes++;
    *v = w;
    int bad = v->shown ? mem_slot_add(m->mem, 0, v->gpa, v->len, v->hva + v->offset, MEMSLOT_RAM) : MEMSLOT_OK;
    if (!bad)
        return;
    v->shown = false;
    log_emit(&m->log, LOG_GUEST_ERROR, "vga: memory at 0x%llx: %s", (unsigned long long)v->gpa,
             mem_slot_error_text(bad));
}

/* ---- snapshots: pages { u32 index, bytes } that are not all zeros, and that no slot shows ---- */

static bool is_hidden(const struct vram *v, uint32_t offset)
{
    return !v->shown || offset < v->offset || offset - v->offset >= v->len;
}

static const void *page_peek(const struct machine *m, uint32_t offset)
{
    const void *page = is_hidden(&m->vram, offset) ? host_mm_peek_content(m->mm, m->vram.hva + offset) : NULL;
    return page && !digest_page_is_zero(page) ? page : NULL;
}

void vram_save(const struct machine *m, struct snap_writer *w)
{
    snap_begin(w, SECTION, SECTION_VERSION);
    for (uint32_t offset = 0; offset < VGA_VRAM_BYTES; offset += PAGE_SIZE) {
        const void *page = page_peek(m, offset);
        if (!page)
            continue;
        snap_put_u32(w, offset >> PAGE_SHIFT);
        snap_put_packed(w, page, PAGE_SIZE);
    }
    snap_put_u32(w, SECTION_END);
    snap_end(w);
}

static void page_load(struct machine *m, uint32_t offset, const void *bytes, struct snap_reader *r)
{
    if (access(m, 0, offset, (void *)(uintptr_t)bytes, PAGE_SIZE, MEM_HOST_POKE, true) != MEM_OK)
        snap_fail(r, "no host memory");
}

void vram_load(struct machine *m, struct snap_reader *r)
{
    static const uint8_t zeros[PAGE_SIZE];
    uint8_t page[PAGE_SIZE];
    if (!snap_expect(r, SECTION, SECTION_VERSION))
        return;
    for (uint32_t offset = 0; offset < VGA_VRAM_BYTES; offset += PAGE_SIZE)
        if (page_peek(m, offset))
            page_load(m, offset, zeros, r);
    m->board.vga.redraw = true;
    for (;;) {
        uint32_t index = snap_get_u32(r);
        if (index == SECTION_END || snap_reader_error(r))
            return;
        snap_get_packed(r, page, sizeof page);
        if (index >= VGA_VRAM_PAGES || !is_hidden(&m->vram, index << PAGE_SHIFT)) {
            snap_fail(r, "display memory page %u is not hidden here", index);
            return;
        }
        page_load(m, index << PAGE_SHIFT, page, r);
    }
}
