/* The display adapter's ports, and its life. */
#include "devices/vga/vga.h"

#include "core/snapshot.h"

#include <string.h>

#define MISC_COLOR 0x01 /* CRTC at 0x3d4, not 0x3b4 */
#define CRTC_LOCK  0x80 /* of CR11: CR0 to CR7 are read-only */
#define CRTC_COUNT 25
#define ATTR_COUNT 21
#define ATTR_INDEX 0x3f

#define STATUS_BLANK   0x01
#define STATUS_RETRACE 0x08
#define SENSE          0x10 /* input status 0: a monitor answers */

static const uint8_t seq_mask[8] = {0x03, 0x3d, 0x0f, 0x3f, 0x0e, 0x00, 0x00, 0xff};
static const uint8_t gr_mask[16] = {0x0f, 0x0f, 0x0f, 0x1f, 0x03, 0x7b, 0x0f, 0x0f, 0xff};

/* ---- the beam ---- */

/* Nanoseconds of `chars` character clocks. */
static uint64_t char_time(const struct vga *v, unsigned chars)
{
    uint64_t hz = (v->misc >> 2 & 3) == 1 ? 28322000 : 25175000;
    unsigned dots = v->seq[1] & 1 ? 8 : 9;
    if (v->seq[1] & 8)
        dots *= 2;
    return (uint64_t)chars * dots * 1000000000u / hz;
}

/* Input status 1: where the beam is at this moment of virtual time. */
static uint8_t beam_status(const struct vga *v)
{
    const uint8_t *c = v->crtc;
    unsigned total = (c[6] | (c[7] & 1u) << 8 | (c[7] & 0x20u) << 4) + 2;
    unsigned shown = (c[0x12] | (c[7] & 2u) << 7 | (c[7] & 0x40u) << 3) + 1;
    unsigned start = c[0x10] | (c[7] & 4u) << 6 | (c[7] & 0x80u) << 2;
    uint64_t line_ns = char_time(v, c[0] + 5u), now = clock_now(v->cfg.clock) % (line_ns * total);
    unsigned line = (unsigned)(now / line_ns);
    bool retrace = line >= start && line - start < ((c[0x11] - start) & 15u);
    bool blank = line >= shown || now % line_ns >= char_time(v, c[1] + 1u);
    return (retrace ? STATUS_RETRACE : 0) | (blank || retrace ? STATUS_BLANK : 0);
}

/* ---- the DAC ---- */

static uint8_t dac_read(struct vga *v)
{
    uint8_t value = v->palette[v->dac_read * 3 + v->dac_sub];
    if (++v->dac_sub == 3) {
        v->dac_sub = 0;
        v->dac_read++;
    }
    return value;
}

/* A colour changes when its third byte is there. */
static void dac_write(struct vga *v, uint8_t value)
{
    if (!(v->dispi[VGA_DISPI_ENABLE] & VGA_DISPI_8BIT_DAC))
        value &= 0x3f;
    if (v->dac_sub < 2) {
        v->dac_latch[v->dac_sub++] = value;
        return;
    }
    uint8_t *colour = &v->palette[v->dac_write * 3];
    memcpy(colour, v->dac_latch, 2);
    colour[2] = value;
    v->dac_sub = 0;
    v->dac_write++;
    v->redraw = true;
}

/* ---- indexed registers ---- */

static void seq_write(struct vga *v, uint8_t value)
{
    unsigned n = v->seq_index;
    v->seq[n] = value & seq_mask[n];
    v->redraw |= n == 1 || n == 3;
    vga_update_mapping(v);
}

static void gr_write(struct vga *v, uint8_t value)
{
    v->gr[v->gr_index] = value & gr_mask[v->gr_index];
    v->redraw |= v->gr_index == 5 || v->gr_index == 6;
    vga_update_mapping(v);
}

static void crtc_write(struct vga *v, uint8_t value)
{
    unsigned n = v->crtc_index;
    if (n >= CRTC_COUNT)
        return;
    if (n < 8 && v->crtc[0x11] & CRTC_LOCK) {
        if (n != 7)
            return;
        value = (v->crtc[7] & (uint8_t)~0x10) | (value & 0x10); /* the line compare bit is never locked */
    }
    v->redraw |= v->crtc[n] != value;
    v->crtc[n] = value;
}

static void attr_write(struct vga *v, uint8_t value)
{
    v->attr_is_data = !v->attr_is_data;
    if (v->attr_is_data) {
        v->redraw |= (v->attr_index ^ value) & 0x20;
        v->attr_index = value & ATTR_INDEX;
        return;
    }
    unsigned n = v->attr_index & 0x1f;
    if (n >= ATTR_COUNT)
        return;
    v->attr[n] = n < 16 ? value & 0x3f : value;
    v->redraw = true;
}

/* ---- ports ---- */

static bool is_other_crtc(const struct vga *v, unsigned port)
{
    return port < 0x3c0 ? v->misc & MISC_COLOR : port >= 0x3d0 && !(v->misc & MISC_COLOR);
}

uint8_t vga_port_read(struct vga *v, unsigned port)
{
    if (is_other_crtc(v, port))
        return 0xff;
    switch (port < 0x3c0 ? port + 0x20 : port) {
    case 0x3c0:
        return v->attr_index;
    case 0x3c1:
        return (v->attr_index & 0x1f) < ATTR_COUNT ? v->attr[v->attr_index & 0x1f] : 0;
    case 0x3c2:
        return SENSE;
    case 0x3c3:
        return v->enable;
    case 0x3c4:
        return v->seq_index;
    case 0x3c5:
        return v->seq[v->seq_index];
    case 0x3c6:
        return v->dac_mask;
    case 0x3c7:
        return v->dac_reading ? 3 : 0;
    case 0x3c8:
        return v->dac_write;
    case 0x3c9:
        return dac_read(v);
    case 0x3ca:
        return v->feature;
    case 0x3cc:
        return v->misc;
    case 0x3ce:
        return v->gr_index;
    case 0x3cf:
        return v->gr[v->gr_index];
    case 0x3d4:
        return v->crtc_index;
    case 0x3d5:
        return v->crtc_index < CRTC_COUNT ? v->crtc[v->crtc_index] : 0;
    case 0x3da:
        v->attr_is_data = false;
        return beam_status(v);
    default:
        return 0xff;
    }
}

void vga_port_write(struct vga *v, unsigned port, uint8_t value)
{
    if (is_other_crtc(v, port))
        return;
    switch (port < 0x3c0 ? port + 0x20 : port) {
    case 0x3c0:
        attr_write(v, value);
        break;
    case 0x3c2:
        v->misc = value;
        v->redraw = true;
        vga_update_mapping(v);
        break;
    case 0x3c3:
        v->enable = value & 1;
        break;
    case 0x3c4:
        v->seq_index = value & 7;
        break;
    case 0x3c5:
        seq_write(v, value);
        break;
    case 0x3c6:
        v->dac_mask = value;
        v->redraw = true;
        break;
    case 0x3c7:
        v->dac_read = value;
        v->dac_sub = 0;
        v->dac_reading = true;
        break;
    case 0x3c8:
        v->dac_write = value;
        v->dac_sub = 0;
        v->dac_reading = false;
        break;
    case 0x3c9:
        dac_write(v, value);
        break;
    case 0x3ce:
        v->gr_index = value & 15;
        break;
    case 0x3cf:
        gr_write(v, value);
        break;
    case 0x3d4:
        v->crtc_index = value & 0x1f;
        break;
    case 0x3d5:
        crtc_write(v, value);
        break;
    case 0x3da:
        v->feature = value & 0x0b;
        break;
    default:
        break;
    }
}

static uint8_t ports_read8(void *dev, uint64_t offset)
{
    return vga_port_read(dev, 0x3c0 + (unsigned)offset);
}

static void ports_write8(void *dev, uint64_t offset, uint8_t value)
{
    vga_port_write(dev, 0x3c0 + (unsigned)offset, value);
}

static uint8_t mono_read8(void *dev, uint64_t offset)
{
    return vga_port_read(dev, 0x3b0 + (unsigned)offset);
}

static void mono_write8(void *dev, uint64_t offset, uint8_t value)
{
    vga_port_write(dev, 0x3b0 + (unsigned)offset, value);
}

DEVICE_BYTE_BUS_OPS(vga_ports_bus_ops, ports_read8, ports_write8);
DEVICE_BYTE_BUS_OPS(vga_mono_bus_ops, mono_read8, mono_write8);

/* ---- life ---- */

static void memory_moved(void *ctx)
{
    struct vga *v = ctx;
    if (v->cfg.mapping_changed)
        v->cfg.mapping_changed(v->cfg.ctx);
}

void vga_update_mapping(struct vga *v)
{
    uint32_t window = vga_plain_window(v);
    if (window == v->window)
        return;
    v->window = window;
    if (v->cfg.mapping_changed)
        v->cfg.mapping_changed(v->cfg.ctx);
}

static void make_function(struct vga *v)
{
    pci_device_init(&v->pci, "vga",
                    &(struct pci_identity){.vendor = 0x1234,
                                           .device = 0x1111,
                                           .subsystem_vendor = 0x1af4,
                                           .subsystem = 0x1100,
                                           .class_code = 0x030000,
                                           .revision = v->cfg.no_mmio ? 0 : 2});
    pci_device_add_bar(&v->pci, VGA_BAR_MEMORY, PCI_BAR_MEM32, VGA_VRAM_BYTES, &vga_memory_bus_ops, v);
    if (!v->cfg.no_mmio)
        pci_device_add_bar(&v->pci, VGA_BAR_MMIO, PCI_BAR_MEM32, VGA_MMIO_BYTES, &vga_mmio_bus_ops, v);
    if (v->cfg.rom)
        pci_device_add_rom(&v->pci, v->cfg.rom, v->cfg.rom_len);
    v->pci.moved = memory_moved;
    v->pci.ctx = v;
}

void vga_init(struct vga *v, const struct vga_config *cfg)
{
    memset(v, 0, sizeof(*v));
    v->cfg = *cfg;
    v->window = VGA_NO_WINDOW;
    dma_map_init(&v->map, &v->cfg.vram);
    dma_map_set(&v->map, 0, 0, VGA_VRAM_BYTES, true);
    make_function(v);
    vga_reset(v);
}

void vga_fini(struct vga *v)
{
    dma_map_fini(&v->map);
}

void vga_reset(struct vga *v)
{
    v->misc = MISC_COLOR;
    v->feature = 0;
    v->enable = 1;
    v->seq_index = v->crtc_index = v->gr_index = v->attr_index = 0;
    memset(v->seq, 0, sizeof(v->seq));
    memset(v->crtc, 0, sizeof(v->crtc));
    memset(v->gr, 0, sizeof(v->gr));
    memset(v->attr, 0, sizeof(v->attr));
    v->attr_is_data = v->dac_reading = false;
    v->dac_mask = 0xff;
    v->dac_read = v->dac_write = v->dac_sub = 0;
    memset(v->dac_latch, 0, sizeof(v->dac_latch));
    memset(v->palette, 0, sizeof(v->palette));
    memset(v->latch, 0, sizeof(v->latch));
    memset(v->dispi, 0, sizeof(v->dispi));
    v->dispi_index = 0;
    v->dispi[VGA_DISPI_ID] = 0xb0c5;
    v->dispi[VGA_DISPI_BPP] = 8;
    v->dispi[VGA_DISPI_MEMORY] = VGA_VRAM_BYTES >> 16;
    v->redraw = true;
    vga_update_mapping(v);
}

/* The 64 colours of an EGA: two bits each of red, green and blue. */
static void ega_palette(struct vga *v)
{
    for (unsigned k = 0; k < 64; k++)
        for (unsigned c = 0; c < 3; c++)
            v->palette[3 * k + c] = (uint8_t)((k >> (2 - c) & 1) * 0x2a + (k >> (5 - c) & 1) * 0x15);
}

void vga_set_text_mode(struct vga *v, const uint8_t *font)
{
    static const uint8_t seq[] = {0x03, 0x00, 0x03, 0x00, 0x02};
    static const uint8_t crtc[CRTC_COUNT] = {0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0x00,
                                             0x4f, 0x0d, 0x0e, 0x00, 0x00, 0x00, 0x00, 0x9c, 0x8e,
                                             0x8f, 0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff};
    static const uint8_t gr[] = {0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x0e, 0x0f, 0xff};
    static const uint8_t attr[ATTR_COUNT] = {0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07, 0x38, 0x39, 0x3a,
                                             0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x0c, 0x00, 0x0f, 0x08, 0x00};
    v->misc = 0x67;
    memcpy(v->seq, seq, sizeof(seq));
    memcpy(v->crtc, crtc, sizeof(crtc));
    memcpy(v->gr, gr, sizeof(gr));
    memcpy(v->attr, attr, sizeof(attr));
    v->attr_index = 0x20;
    ega_palette(v);
    for (uint32_t a = 0; a < 0x4000; a++)
        vga_memory_store(v, a,
                         0x0720u | (font && a < 0x2000 && (a & 31) < 16 ? font[(a >> 5) * 16 + (a & 15)] : 0u) << 16);
    v->redraw = true;
    vga_update_mapping(v);
}

void vga_save(const struct vga *v, struct snap_writer *w)
{
    const uint8_t bytes[] = {v->misc,      v->feature,    v->enable,       v->seq_index, v->crtc_index,
                             v->gr_index,  v->attr_index, v->attr_is_data, v->dac_mask,  v->dac_read,
                             v->dac_write, v->dac_sub,    v->dac_reading};
    snap_begin(w, "vga", 1);
    snap_put_bytes(w, bytes, sizeof(bytes));
    snap_put_bytes(w, v->seq, sizeof(v->seq));
    snap_put_bytes(w, v->crtc, sizeof(v->crtc));
    snap_put_bytes(w, v->gr, sizeof(v->gr));
    snap_put_bytes(w, v->attr, sizeof(v->attr));
    snap_put_bytes(w, v->dac_latch, sizeof(v->dac_latch));
    snap_put_bytes(w, v->palette, sizeof(v->palette));
    snap_put_bytes(w, v->latch, sizeof(v->latch));
    snap_put_u16(w, v->dispi_index);
    for (unsigned k = 0; k < VGA_DISPI_REGS; k++)
        snap_put_u16(w, v->dispi[k]);
    snap_end(w);
    pci_device_save(&v->pci, w);
}

static void load_bytes(struct vga *v, struct snap_reader *r)
{
    v->misc = snap_get_u8(r);
    v->feature = snap_get_u8(r);
    v->enable = snap_get_u8(r) & 1;
    v->seq_index = snap_get_u8(r) & 7;
    v->crtc_index = snap_get_u8(r) & 0x1f;
    v->gr_index = snap_get_u8(r) & 15;
    v->attr_index = snap_get_u8(r) & ATTR_INDEX;
    v->attr_is_data = snap_get_u8(r) != 0;
    v->dac_mask = snap_get_u8(r);
    v->dac_read = snap_get_u8(r);
    v->dac_write = snap_get_u8(r);
    v->dac_sub = snap_get_u8(r) % 3;
    v->dac_reading = snap_get_u8(r) != 0;
}

void vga_load(struct vga *v, struct snap_reader *r)
{
    if (!snap_expect(r, "vga", 1))
        return;
    load_bytes(v, r);
    snap_get_bytes(r, v->seq, sizeof(v->seq));
    snap_get_bytes(r, v->crtc, sizeof(v->crtc));
    snap_get_bytes(r, v->gr, sizeof(v->gr));
    snap_get_bytes(r, v->attr, sizeof(v->attr));
    snap_get_bytes(r, v->dac_latch, sizeof(v->dac_latch));
    snap_get_bytes(r, v->palette, sizeof(v->palette));
    snap_get_bytes(r, v->latch, sizeof(v->latch));
    v->dispi_index = snap_get_u16(r);
    for (unsigned k = 0; k < VGA_DISPI_REGS; k++)
        v->dispi[k] = snap_get_u16(r);
    vga_dispi_check(v);
    v->redraw = true;
    pci_device_load(&v->pci, r);
    vga_update_mapping(v);
}
