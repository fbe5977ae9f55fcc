/* The display adapter's memory as the processor sees it: the window with its planes, BAR0, and the bank. */
#include "devices/vga/vga.h"

#define SEQ_MAP_MASK   2
#define SEQ_MEMORY     4
#define SEQ_SEQUENTIAL 0x04 /* not odd/even */
#define SEQ_CHAIN4     0x08
#define GR_SET_RESET   0
#define GR_ENABLE      1
#define GR_COMPARE     2
#define GR_ROTATE      3
#define GR_READ_MAP    4
#define GR_MODE        5
#define GR_MISC        6
#define GR_DONT_CARE   7
#define GR_BIT_MASK    8
#define MODE_ODD_EVEN  0x10
#define MODE_READ_1    0x08
#define MISC_RAM       0x02

/* ---- four planes at a time ---- */

/* Plane p's byte is all ones where bit p is set. */
static uint32_t expand(unsigned bits)
{
    return (bits & 1 ? 0xffu : 0) | (bits & 2 ? 0xff00u : 0) | (bits & 4 ? 0xff0000u : 0) |
           (bits & 8 ? 0xff000000u : 0);
}

static uint32_t replicate(uint8_t b)
{
    return b * 0x01010101u;
}

static uint32_t get32(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void put32(uint8_t *p, uint32_t x)
{
    for (unsigned k = 0; k < 4; k++)
        p[k] = (uint8_t)(x >> 8 * k);
}

static uint32_t load_planes(struct vga *v, uint32_t a)
{
    uint8_t bytes[4] = {0};
    const uint8_t *p = dma_map_begin(&v->map, (uint64_t)a * 4, 4);
    if (!p) {
        guest_mem_read(&v->cfg.vram, (uint64_t)a * 4, bytes, 4, MEM_DMA);
        return get32(bytes);
    }
    uint32_t x = get32(p);
    dma_map_end(&v->map, (uint64_t)a * 4, 0);
    return x;
}

static void mark(struct vga *v, uint32_t offset)
{
    uint32_t page = offset >> PAGE_SHIFT;
    v->dirty[page / 64] |= 1ull << page % 64;
}

void vga_memory_store(struct vga *v, uint32_t a, uint32_t planes)
{
    uint8_t bytes[4];
    uint8_t *p = dma_map_begin(&v->map, (uint64_t)a * 4, 4);
    mark(v, a * 4);
    if (p) {
        put32(p, planes);
        dma_map_end(&v->map, (uint64_t)a * 4, 4);
        return;
    }
    put32(bytes, planes);
    guest_mem_write(&v->cfg.vram, (uint64_t)a * 4, bytes, 4, MEM_DMA);
}

void vga_memory_clear(struct vga *v, uint32_t offset, uint32_t len)
{
    static const uint8_t zeros[PAGE_SIZE];
    while (len && offset < VGA_VRAM_BYTES) {
        uint32_t part = PAGE_SIZE - (offset & PAGE_MASK);
        part = part < len ? part : len;
        guest_mem_write(&v->cfg.vram, offset, zeros, part, MEM_DMA);
        mark(v, offset);
        offset += part;
        len -= part;
    }
}

/* ---- the window ---- */

/* Where an access to the window leads. */
struct place {
    uint32_t a;      /* plane address */
    unsigned planes; /* that a write reaches, map mask apart */
    unsigned plane;  /* that a read returns */
};

static uint32_t bank_base(const struct vga *v)
{
    return vga_dispi_is_on(v) ? (uint32_t)v->dispi[VGA_DISPI_BANK] << 16 : 0;
}

/* False: nothing answers there. */
static bool window_decode(const struct vga *v, uint64_t offset, uint32_t *at)
{
    static const struct {
        uint32_t base, len;
    } part[4] = {{0, 0x20000}, {0, 0x10000}, {0x10000, 0x8000}, {0x18000, 0x8000}};
    unsigned k = v->gr[GR_MISC] >> 2 & 3;
    if (!(v->misc & MISC_RAM) || offset < part[k].base || offset - part[k].base >= part[k].len)
        return false;
    *at = (uint32_t)offset - part[k].base;
    return true;
}

static bool place_find(const struct vga *v, uint64_t offset, bool write, struct place *p)
{
    uint32_t at;
    if (!window_decode(v, offset, &at))
        return false;
    bool odd_even = write ? !(v->seq[SEQ_MEMORY] & SEQ_SEQUENTIAL) : v->gr[GR_MODE] & MODE_ODD_EVEN;
    if (v->seq[SEQ_MEMORY] & SEQ_CHAIN4)
        *p = (struct place){(bank_base(v) + at) >> 2, 1u << (at & 3), at & 3};
    else if (odd_even)
        *p = (struct place){(bank_base(v) + at) >> 1, at & 1 ? 0xa : 0x5, (v->gr[GR_READ_MAP] & 2u) | (at & 1)};
    else
        *p = (struct place){bank_base(v) + at, 0xf, v->gr[GR_READ_MAP]};
    return p->a < VGA_VRAM_BYTES / 4;
}

static uint8_t window_read8(void *dev, uint64_t offset)
{
    struct vga *v = dev;
    struct place p;
    if (!place_find(v, offset, false, &p))
        return 0xff;
    uint32_t x = load_planes(v, p.a);
    put32(v->latch, x);
    if (!(v->gr[GR_MODE] & MODE_READ_1) || v->seq[SEQ_MEMORY] & SEQ_CHAIN4)
        return v->latch[p.plane];
    uint32_t differs = (x ^ expand(v->gr[GR_COMPARE])) & expand(v->gr[GR_DONT_CARE]);
    differs |= differs >> 16;
    return (uint8_t) ~(differs | differs >> 8);
}

static uint32_t combine(const struct vga *v, uint32_t x, uint32_t latch)
{
    switch (v->gr[GR_ROTATE] >> 3) {
    case 1:
        return x & latch;
    case 2:
        return x | latch;
    case 3:
        return x ^ latch;
    default:
        return x;
    }
}

static uint8_t rotated(const struct vga *v, uint8_t value)
{
    unsigned n = v->gr[GR_ROTATE] & 7;
    return (uint8_t)(value >> n | value << (8 - n));
}

/* What the write modes make of a byte for all four planes. */
static uint32_t write_data(const struct vga *v, uint8_t value)
{
    uint32_t latch = get32(v->latch), set = expand(v->gr[GR_SET_RESET]), on = expand(v->gr[GR_ENABLE]);
    uint32_t bits = replicate(v->gr[GR_BIT_MASK]), x;
    switch (v->gr[GR_MODE] & 3) {
    case 0:
        x = combine(v, (replicate(rotated(v, value)) & ~on) | (set & on), latch);
        break;
    case 1:
        return latch;
    case 2:
        x = combine(v, expand(value & 15), latch);
        break;
    default:
        x = combine(v, set, latch);
        bits &= replicate(rotated(v, value));
        break;
    }
    return (x & bits) | (latch & ~bits);
}

static void window_write8(void *dev, uint64_t offset, uint8_t value)
{
    struct vga *v = dev;
    struct place p;
    if (!place_find(v, offset, true, &p))
        return;
    uint32_t planes = expand(p.planes & v->seq[SEQ_MAP_MASK]);
    if (!planes)
        return;
    uint32_t x = write_data(v, value);
    if (planes != UINT32_MAX)
        x = (x & planes) | (load_planes(v, p.a) & ~planes);
    vga_memory_store(v, p.a, x);
}

DEVICE_BYTE_BUS_OPS(vga_window_bus_ops, window_read8, window_write8);

/* Chain-4, all planes, and the data path passes bytes through. While firmware or a driver uses the linear memory of a
 * VBE mode, that is what is mapped. */
uint32_t vga_plain_window(const struct vga *v)
{
    const uint8_t *g = v->gr;
    bool linear = vga_dispi_is_on(v) && v->dispi[VGA_DISPI_ENABLE] & VGA_DISPI_LFB;
    bool through = !(g[GR_MODE] & (3 | MODE_READ_1)) && !g[GR_ROTATE] && !g[GR_ENABLE] && g[GR_BIT_MASK] == 0xff;
    bool chained = v->seq[SEQ_MEMORY] & SEQ_CHAIN4 && v->seq[SEQ_MAP_MASK] == 0xf;
    bool at_start = v->misc & MISC_RAM && (g[GR_MISC] >> 2 & 3) <= 1;
    uint32_t base = bank_base(v);
    if (linear || !through || !chained || !at_start || base > VGA_VRAM_BYTES - VGA_CHAIN4_BYTES)
        return VGA_NO_WINDOW;
    return base;
}

/* ---- BAR0, where the machine does not map it ---- */

static uint64_t memory_read(void *dev, const struct bus_txn *t)
{
    struct vga *v = dev;
    uint8_t bytes[8] = {0};
    uint64_t value = 0;
    guest_mem_read(&v->cfg.vram, t->offset, bytes, t->size, MEM_DMA);
    for (unsigned k = 0; k < t->size; k++)
        value |= (uint64_t)bytes[k] << 8 * k;
    return value;
}

static void memory_write(void *dev, const struct bus_txn *t, uint64_t value)
{
    struct vga *v = dev;
    uint8_t bytes[8];
    for (unsigned k = 0; k < t->size; k++)
        bytes[k] = (uint8_t)(value >> 8 * k);
    guest_mem_write(&v->cfg.vram, t->offset, bytes, t->size, MEM_DMA);
    mark(v, (uint32_t)t->offset);
    mark(v, (uint32_t)t->offset + t->size - 1);
}

const struct bus_ops vga_memory_bus_ops = {memory_read, memory_write};
