/* The Bochs display interface: linear modes of 8 to 32 bits (and 4, planar), by ports and in BAR2. */
#include "devices/vga/vga.h"

#define ID_FIRST 0xb0c0
#define ID_LAST  0xb0c5

#define MMIO_PORTS         0x400 /* 0x3c0 to 0x3df */
#define MMIO_DISPI         0x500
#define MMIO_QEMU          0x600
#define QEMU_LENGTH        8
#define LITTLE_ENDIAN_MARK 0x1e1e1e1eu

static unsigned bits_of(uint16_t bpp)
{
    return bpp == 15 ? 16 : bpp;
}

static bool is_bpp(uint16_t bpp)
{
    return bpp == 4 || bpp == 8 || bpp == 15 || bpp == 16 || bpp == 24 || bpp == 32;
}

/* Bytes of a line of `pixels`; of four planes together. */
static uint32_t line_bytes(const struct vga *v, uint32_t pixels)
{
    return (uint32_t)((uint64_t)pixels * bits_of(v->dispi[VGA_DISPI_BPP]) / 8);
}

/* The virtual screen fits the memory, and the visible part the virtual screen. */
static void fit(struct vga *v)
{
    uint16_t *d = v->dispi;
    if (d[VGA_DISPI_XRES] < 8)
        d[VGA_DISPI_XRES] = 8;
    if (d[VGA_DISPI_YRES] < 1)
        d[VGA_DISPI_YRES] = 1;
    if (d[VGA_DISPI_VIRT_WIDTH] < d[VGA_DISPI_XRES])
        d[VGA_DISPI_VIRT_WIDTH] = d[VGA_DISPI_XRES];
    uint32_t lines = VGA_VRAM_BYTES / line_bytes(v, d[VGA_DISPI_VIRT_WIDTH]);
    if (lines < d[VGA_DISPI_YRES]) { /* a wider virtual screen than there is memory for */
        d[VGA_DISPI_VIRT_WIDTH] = d[VGA_DISPI_XRES];
        lines = VGA_VRAM_BYTES / line_bytes(v, d[VGA_DISPI_VIRT_WIDTH]);
    }
    if (lines < d[VGA_DISPI_YRES])
        d[VGA_DISPI_YRES] = (uint16_t)lines;
    d[VGA_DISPI_VIRT_HEIGHT] = (uint16_t)(lines < 0xffff ? lines : 0xffff);
}

/* Programs that look at VGA registers find a graphics mode. */
static void set_vga_registers(struct vga *v)
{
    v->gr[6] = (v->gr[6] & (uint8_t)~0x0c) | 0x05;
    v->crtc[0x17] |= 3;
    v->crtc[0x09] &= (uint8_t)~0x9f;
    v->crtc[0x11] &= (uint8_t)~0x80;
    if (v->dispi[VGA_DISPI_BPP] != 4) {
        v->seq[4] |= 0x0e;
        v->seq[2] |= 0x0f;
        v->gr[5] = (v->gr[5] & (uint8_t)~0x60) | 0x40;
    } else {
        v->gr[5] &= (uint8_t)~0x60;
    }
}

static void enable_write(struct vga *v, uint16_t value)
{
    uint16_t *d = v->dispi, before = d[VGA_DISPI_ENABLE];
    d[VGA_DISPI_ENABLE] =
        value & (VGA_DISPI_ENABLED | VGA_DISPI_GETCAPS | VGA_DISPI_8BIT_DAC | VGA_DISPI_LFB | VGA_DISPI_NO_CLEAR);
    if (value & VGA_DISPI_ENABLED && !(before & VGA_DISPI_ENABLED)) {
        if (!is_bpp(d[VGA_DISPI_BPP]))
            d[VGA_DISPI_BPP] = 8;
        d[VGA_DISPI_VIRT_WIDTH] = d[VGA_DISPI_XRES];
        d[VGA_DISPI_X_OFFSET] = d[VGA_DISPI_Y_OFFSET] = 0;
        fit(v);
        set_vga_registers(v);
        if (!(value & VGA_DISPI_NO_CLEAR))
            vga_memory_clear(v, 0, line_bytes(v, d[VGA_DISPI_XRES]) * d[VGA_DISPI_YRES]);
    }
    d[VGA_DISPI_BANK] = 0;
}

void vga_dispi_check(struct vga *v)
{
    if (!is_bpp(v->dispi[VGA_DISPI_BPP]))
        v->dispi[VGA_DISPI_BPP] = 8;
    if (v->dispi[VGA_DISPI_XRES] > VGA_WIDTH_MAX)
        v->dispi[VGA_DISPI_XRES] = VGA_WIDTH_MAX;
    if (v->dispi[VGA_DISPI_YRES] > VGA_HEIGHT_MAX)
        v->dispi[VGA_DISPI_YRES] = VGA_HEIGHT_MAX;
    if (vga_dispi_is_on(v))
        fit(v);
    v->dispi[VGA_DISPI_BANK] %= VGA_VRAM_BYTES >> 16;
    v->dispi[VGA_DISPI_MEMORY] = VGA_VRAM_BYTES >> 16;
}

void vga_dispi_write(struct vga *v, uint16_t value)
{
    uint16_t *d = v->dispi;
    bool on = vga_dispi_is_on(v);
    switch (v->dispi_index) {
    case VGA_DISPI_ID:
        if (value >= ID_FIRST && value <= ID_LAST)
            d[VGA_DISPI_ID] = value;
        break;
    case VGA_DISPI_XRES:
        if (!on && value <= VGA_WIDTH_MAX)
            d[VGA_DISPI_XRES] = value & (uint16_t)~7;
        break;
    case VGA_DISPI_YRES:
        if (!on && value <= VGA_HEIGHT_MAX)
            d[VGA_DISPI_YRES] = value;
        break;
    case VGA_DISPI_BPP:
        if (!on && (!value || is_bpp(value)))
            d[VGA_DISPI_BPP] = value ? value : 8;
        break;
    case VGA_DISPI_ENABLE:
        enable_write(v, value);
        break;
    case VGA_DISPI_BANK:
        d[VGA_DISPI_BANK] = value % (VGA_VRAM_BYTES >> 16);
        break;
    case VGA_DISPI_VIRT_WIDTH:
        d[VGA_DISPI_VIRT_WIDTH] = value & (uint16_t)~7;
        if (on)
            fit(v);
        break;
    case VGA_DISPI_X_OFFSET:
    case VGA_DISPI_Y_OFFSET:
        d[v->dispi_index] = value;
        break;
    default:
        device_log(v->cfg.log, LOG_GUEST_ERROR, "vga: write of 0x%04x to display register %u", value, v->dispi_index);
        return;
    }
    v->redraw = true;
    vga_update_mapping(v);
}

uint16_t vga_dispi_read(const struct vga *v)
{
    if (v->dispi_index >= VGA_DISPI_REGS)
        return 0;
    if (v->dispi[VGA_DISPI_ENABLE] & VGA_DISPI_GETCAPS)
        switch (v->dispi_index) {
        case VGA_DISPI_XRES:
            return VGA_WIDTH_MAX;
        case VGA_DISPI_YRES:
            return VGA_HEIGHT_MAX;
        case VGA_DISPI_BPP:
            return 32;
        default:
            break;
        }
    return v->dispi[v->dispi_index];
}

/* ---- ports: index at 0, data at 1 and at 2 ---- */

static uint64_t dispi_port_read(void *dev, const struct bus_txn *t)
{
    const struct vga *v = dev;
    return t->offset ? vga_dispi_read(v) : v->dispi_index;
}

static void dispi_port_write(void *dev, const struct bus_txn *t, uint64_t value)
{
    struct vga *v = dev;
    if (!t->offset)
        v->dispi_index = (uint16_t)value;
    else
        vga_dispi_write(v, (uint16_t)value);
}

const struct bus_ops vga_dispi_bus_ops = {dispi_port_read, dispi_port_write};

/* ---- BAR2 ---- */

static bool is_dispi(const struct bus_txn *t)
{
    return t->offset >= MMIO_DISPI && t->offset < MMIO_DISPI + 2 * VGA_DISPI_REGS;
}

static uint64_t mmio_read(void *dev, const struct bus_txn *t)
{
    struct vga *v = dev;
    uint64_t value = 0;
    if (t->offset >= MMIO_PORTS && t->offset + t->size <= MMIO_PORTS + VGA_PORTS) {
        for (unsigned k = 0; k < t->size; k++)
            value |= (uint64_t)vga_port_read(v, 0x3c0 + (unsigned)(t->offset - MMIO_PORTS) + k) << 8 * k;
        return value;
    }
    if (is_dispi(t)) {
        uint16_t index = v->dispi_index;
        v->dispi_index = (uint16_t)((t->offset - MMIO_DISPI) / 2);
        value = vga_dispi_read(v) >> (t->offset & 1 ? 8 : 0);
        v->dispi_index = index;
        return value;
    }
    if (t->offset == MMIO_QEMU)
        return QEMU_LENGTH;
    return t->offset == MMIO_QEMU + 4 ? LITTLE_ENDIAN_MARK : 0;
}

static void mmio_write(void *dev, const struct bus_txn *t, uint64_t value)
{
    struct vga *v = dev;
    if (t->offset >= MMIO_PORTS && t->offset + t->size <= MMIO_PORTS + VGA_PORTS) {
        for (unsigned k = 0; k < t->size; k++)
            vga_port_write(v, 0x3c0 + (unsigned)(t->offset - MMIO_PORTS) + k, (uint8_t)(value >> 8 * k));
    } else if (is_dispi(t)) {
        uint16_t index = v->dispi_index;
        v->dispi_index = (uint16_t)((t->offset - MMIO_DISPI) / 2);
        vga_dispi_write(v, (uint16_t)value);
        v->dispi_index = index;
    } else if (t->offset == MMIO_QEMU + 4 && value != LITTLE_ENDIAN_MARK) {
        device_log(v->cfg.log, LOG_UNIMP, "vga: byte order 0x%08x of the frame buffer", (unsigned)value);
    }
}

const struct bus_ops vga_mmio_bus_ops = {mmio_read, mmio_write};
