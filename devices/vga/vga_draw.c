/* Taking a view of the display adapter, and drawing its graphics modes. */
#include "devices/vga/vga_draw.h"

#include <string.h>

#define PAS          0x20 /* attribute index: the screen is on */
#define BLANK_WIDTH  640u
#define BLANK_HEIGHT 400u
#define PLANES_END   0xffffu /* plane addresses of a VGA */

/* ---- colours ---- */

static uint32_t dac_colour(const struct vga *v, unsigned n)
{
    const uint8_t *c = &v->palette[3 * (n & v->dac_mask)];
    uint32_t rgb = 0;
    for (unsigned k = 0; k < 3; k++) {
        unsigned x = c[k];
        if (!(v->dispi[VGA_DISPI_ENABLE] & VGA_DISPI_8BIT_DAC))
            x = (x & 0x3f) << 2 | (x & 0x3f) >> 4;
        rgb = rgb << 8 | x;
    }
    return rgb;
}

static void take_colours(const struct vga *v, struct vga_view *w)
{
    for (unsigned n = 0; n < 256; n++)
        w->palette[n] = dac_colour(v, n);
    for (unsigned n = 0; n < 16; n++) {
        unsigned low = v->attr[n] & 0x3f, select = v->attr[0x14];
        low = v->attr[0x10] & 0x80 ? (low & 15) | (select & 15) << 4 : low | (select & 0x0c) << 4;
        w->colour[n] = w->palette[low & 0xff];
    }
}

/* ---- geometry ---- */

static unsigned scan_lines(const struct vga *v)
{
    const uint8_t *c = v->crtc;
    unsigned lines = (c[0x12] | (c[7] & 2u) << 7 | (c[7] & 0x40u) << 3) + 1;
    return c[0x17] & 4 ? lines * 2 : lines;
}

static void take_crtc(const struct vga *v, struct vga_view *w)
{
    const uint8_t *c = v->crtc;
    w->wrap = PLANES_END;
    w->start = (c[0x0c] << 8 | c[0x0d]) + (c[8] >> 5 & 3);
    w->pitch = c[0x13] * 2u;
    w->double_scan = c[9] & 0x80 ? 2 : 1;
    w->row_scans = (c[9] & 0x1f) + 1;
    w->preset = c[8] & 0x1f;
    w->line_compare = c[0x18] | (c[7] & 0x10u) << 4 | (c[9] & 0x40u) << 3;
    w->pan_stops = v->attr[0x10] & 0x20;
    w->planes = v->attr[0x12] & 15;
    w->repeat = 1;
}

/* CGA and Hercules modes take address bits from the row scan counter. In word mode plane addresses are halved. */
static void take_row_bits(const struct vga *v, struct vga_view *w)
{
    unsigned bit = v->crtc[0x17] & 0x40 ? 13 : 12;
    w->row_bit[0] = v->crtc[0x17] & 1 ? 0 : 1u << bit;
    w->row_bit[1] = v->crtc[0x17] & 2 ? 0 : 2u << bit;
}

static void take_graphics(const struct vga *v, struct vga_view *w)
{
    unsigned shift = v->gr[5] >> 5 & 3, pan = v->attr[0x13] & 7;
    w->kind = shift >= 2 ? VGA_PACKED : shift ? VGA_CGA : VGA_PLANAR;
    w->width = (v->crtc[1] + 1u) * (w->kind == VGA_PACKED ? 4 : 8);
    w->pan = w->kind == VGA_PACKED ? pan / 2 : pan;
    take_row_bits(v, w);
    w->repeat = w->double_scan * (w->row_bit[0] || w->row_bit[1] ? 1 : w->row_scans);
    unsigned lines = scan_lines(v) / w->repeat;
    w->height = lines ? lines : 1;
}

static void take_dispi(const struct vga *v, struct vga_view *w)
{
    const uint16_t *d = v->dispi;
    uint32_t x = d[VGA_DISPI_X_OFFSET], y = d[VGA_DISPI_Y_OFFSET], wide = d[VGA_DISPI_VIRT_WIDTH];
    w->width = d[VGA_DISPI_XRES];
    w->height = d[VGA_DISPI_YRES];
    w->bpp = d[VGA_DISPI_BPP];
    w->row_scans = w->double_scan = w->repeat = 1;
    w->line_compare = UINT32_MAX;
    w->planes = 15;
    if (w->bpp == 4) {
        w->kind = VGA_PLANAR;
        w->wrap = VGA_VRAM_BYTES / 4 - 1;
        w->pitch = wide / 8;
        w->start = y * w->pitch + x / 8;
        w->pan = x % 8;
        return;
    }
    unsigned bytes = (w->bpp + 7) / 8;
    w->kind = VGA_LINEAR;
    w->pitch = wide * bytes;
    w->start =
        y * w->pitch + x * bytes; /* at most 2^16 lines of 2^18 bytes: may wrap, and is then a place like any other */
}

void vga_view_take(const struct vga *v, struct vga_view *w)
{
    memset(w, 0, sizeof(*w));
    w->vram = &v->cfg.vram;
    take_colours(v, w);
    if (vga_dispi_is_on(v)) {
        take_dispi(v, w);
    } else {
        take_crtc(v, w);
        if (v->gr[6] & 1)
            take_graphics(v, w);
        else
            vga_text_take(v, w);
    }
    if (!(v->attr_index & PAS) || (!vga_dispi_is_on(v) && v->seq[1] & 0x20))
        w->kind = VGA_BLANK;
    if (w->kind == VGA_BLANK && (w->width < 160 || w->height < 100)) {
        w->width = BLANK_WIDTH;
        w->height = BLANK_HEIGHT;
    }
    if (w->width > VGA_WIDTH_MAX)
        w->width = VGA_WIDTH_MAX;
    if (w->height > VGA_HEIGHT_MAX)
        w->height = VGA_HEIGHT_MAX;
}

/* ---- memory ---- */

static void fetch_bytes(const struct vga_view *w, uint64_t offset, size_t len, uint8_t *out)
{
    size_t there = offset >= VGA_VRAM_BYTES ? 0 : VGA_VRAM_BYTES - offset;
    if (there > len)
        there = len;
    memset(out + there, 0, len - there);
    if (there && guest_mem_read(w->vram, offset, out, there, MEM_PEEK) != MEM_OK)
        memset(out, 0, there);
}

void vga_view_fetch(const struct vga_view *w, uint32_t a, unsigned count, uint8_t *out)
{
    while (count) {
        a &= w->wrap;
        unsigned part = w->wrap + 1 - a < count ? w->wrap + 1 - a : count;
        fetch_bytes(w, (uint64_t)a * 4, (size_t)part * 4, out);
        out += (size_t)part * 4;
        a += part;
        count -= part;
    }
}

struct vga_line vga_view_line(const struct vga_view *w, unsigned row)
{
    unsigned scan = row * w->repeat;
    struct vga_line l = {.at = w->start, .pan = w->pan};
    unsigned rel = scan / w->double_scan + w->preset;
    if (scan > w->line_compare) {
        l.at = 0;
        l.pan = w->pan_stops ? 0 : w->pan;
        rel = (scan - w->line_compare - 1) / w->double_scan;
    }
    l.at += rel / w->row_scans * w->pitch;
    l.scan = rel % w->row_scans;
    for (unsigned k = 0; k < 2; k++)
        if (w->row_bit[k])
            l.at = (l.at & ~w->row_bit[k]) | (l.scan >> k & 1 ? w->row_bit[k] : 0);
    return l;
}

/* ---- rows of graphics ---- */

#define ROW_BYTES (VGA_WIDTH_MAX * 4 + 64)

static void draw_planar(const struct vga_view *w, unsigned row, uint32_t *out)
{
    uint8_t bytes[ROW_BYTES];
    struct vga_line l = vga_view_line(w, row);
    unsigned count = (w->width + l.pan + 7) / 8;
    vga_view_fetch(w, l.at, count, bytes);
    for (unsigned x = 0; x < w->width; x++) {
        const uint8_t *p = &bytes[(x + l.pan) / 8 * 4];
        unsigned bit = 7 - (x + l.pan) % 8;
        unsigned c = (p[0] >> bit & 1) | (p[1] >> bit & 1) << 1 | (p[2] >> bit & 1) << 2 | (p[3] >> bit & 1) << 3;
        out[x] = w->colour[c & w->planes];
    }
}

/* Four pixels of a byte from plane 0, then four from plane 1; planes 2 and 3 give the upper two bits. */
static void draw_cga(const struct vga_view *w, unsigned row, uint32_t *out)
{
    uint8_t bytes[ROW_BYTES];
    struct vga_line l = vga_view_line(w, row);
    unsigned count = (w->width + l.pan + 7) / 8;
    vga_view_fetch(w, l.at, count, bytes);
    for (unsigned x = 0; x < w->width; x++) {
        unsigned at = x + l.pan, odd = at / 4 & 1, shift = 6 - at % 4 * 2;
        const uint8_t *p = &bytes[at / 8 * 4];
        unsigned c = (p[odd] >> shift & 3) | (p[2 + odd] >> shift & 3) << 2;
        out[x] = w->colour[c & w->planes];
    }
}

static void draw_packed(const struct vga_view *w, unsigned row, uint32_t *out)
{
    uint8_t bytes[ROW_BYTES];
    struct vga_line l = vga_view_line(w, row);
    vga_view_fetch(w, l.at, (w->width + l.pan + 3) / 4, bytes);
    for (unsigned x = 0; x < w->width; x++)
        out[x] = w->palette[bytes[x + l.pan]];
}

static uint32_t widen(unsigned x, unsigned bits)
{
    return (x << (8 - bits) | x >> (2 * bits - 8)) & 0xff;
}

static uint32_t rgb555(unsigned x)
{
    return widen(x >> 10 & 31, 5) << 16 | widen(x >> 5 & 31, 5) << 8 | widen(x & 31, 5);
}

static uint32_t rgb565(unsigned x)
{
    return widen(x >> 11 & 31, 5) << 16 | widen(x >> 5 & 63, 6) << 8 | widen(x & 31, 5);
}

static void draw_linear(const struct vga_view *w, unsigned row, uint32_t *out)
{
    uint8_t bytes[ROW_BYTES];
    unsigned size = (w->bpp + 7) / 8;
    fetch_bytes(w, (uint64_t)w->start + (uint64_t)row * w->pitch, (size_t)w->width * size, bytes);
    const uint8_t *p = bytes;
    switch (w->bpp) {
    case 8:
        for (unsigned x = 0; x < w->width; x++)
            out[x] = w->palette[p[x]];
        break;
    case 15:
        for (unsigned x = 0; x < w->width; x++, p += 2)
            out[x] = rgb555(p[0] | p[1] << 8);
        break;
    case 16:
        for (unsigned x = 0; x < w->width; x++, p += 2)
            out[x] = rgb565(p[0] | p[1] << 8);
        break;
    default:
        for (unsigned x = 0; x < w->width; x++, p += size)
            out[x] = p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16;
        break;
    }
}

static void draw_row(const struct vga_view *w, unsigned row, uint32_t *out)
{
    switch (w->kind) {
    case VGA_BLANK:
        memset(out, 0, w->width * sizeof *out);
        break;
    case VGA_TEXT:
        vga_text_draw_row(w, row, out);
        break;
    case VGA_PLANAR:
        draw_planar(w, row, out);
        break;
    case VGA_CGA:
        draw_cga(w, row, out);
        break;
    case VGA_PACKED:
        draw_packed(w, row, out);
        break;
    case VGA_LINEAR:
        draw_linear(w, row, out);
        break;
    }
}

void vga_view_draw(const struct vga_view *w, unsigned first, unsigned count, uint32_t *pixels)
{
    for (unsigned k = 0; k < count; k++)
        draw_row(w, first + k, pixels + (size_t)k * w->width);
}

/* ---- what has to be drawn again ---- */

static bool any_dirty(const uint64_t *dirty, uint64_t from, uint64_t to)
{
    for (uint64_t page = from >> PAGE_SHIFT; page <= to >> PAGE_SHIFT && page < VGA_VRAM_PAGES; page++)
        if (dirty[page / 64] >> page % 64 & 1)
            return true;
    return false;
}

bool vga_view_row_is_dirty(const struct vga_view *w, unsigned row, const uint64_t dirty[VGA_VRAM_PAGES / 64])
{
    if (w->kind == VGA_BLANK)
        return false;
    if (w->kind == VGA_LINEAR) {
        uint64_t at = (uint64_t)w->start + (uint64_t)row * w->pitch;
        return any_dirty(dirty, at, at + (uint64_t)w->width * ((w->bpp + 7) / 8) - 1);
    }
    if (w->kind == VGA_TEXT) /* characters, and fonts */
        return any_dirty(dirty, 0, (uint64_t)w->wrap * 4 + 3);
    uint64_t at = (uint64_t)(vga_view_line(w, row).at & w->wrap) * 4,
             len = w->kind == VGA_PACKED ? w->width + 4 : w->width / 2 + 4;
    bool wraps = at + len > (uint64_t)w->wrap * 4;
    return any_dirty(dirty, at, at + len - 1) || (wraps && any_dirty(dirty, 0, len));
}
