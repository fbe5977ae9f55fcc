#include "devices/dma8237.h"

#include "core/snapshot.h"

#include <string.h>

#define COMMAND_DISABLE 0x04

#define MODE_TYPE      0x0c
#define MODE_TO_MEMORY 0x04
#define MODE_TO_DEVICE 0x08
#define MODE_AUTO      0x10
#define MODE_DOWN      0x20

#define PAGE_NONE 0xff

/* Which channel a page register (0x80 + n) belongs to. */
static const uint8_t page_channel[16] = {PAGE_NONE, 2, 3, 1, PAGE_NONE, PAGE_NONE, PAGE_NONE, 0,
                                         PAGE_NONE, 6, 7, 5, PAGE_NONE, PAGE_NONE, PAGE_NONE, 4};

/* ---- registers of one chip ---- */

/* 16-bit registers are read and written in two halves, low one first. */
static void put_half(uint16_t *reg, bool high, uint8_t v)
{
    *reg = high ? (uint16_t)((*reg & 0x00ff) | v << 8) : (uint16_t)((*reg & 0xff00) | v);
}

static uint8_t take_half(struct dma8237_chip *c, uint16_t v)
{
    bool high = c->flip_flop;
    c->flip_flop = !high;
    return (uint8_t)(high ? v >> 8 : v);
}

static void write_channel(struct dma8237_chip *c, unsigned reg, uint8_t v)
{
    struct dma8237_channel *ch = &c->dma->channel[c->first + reg / 2];
    bool high = c->flip_flop;
    c->flip_flop = !high;
    put_half(reg & 1 ? &ch->base_count : &ch->base_address, high, v);
    put_half(reg & 1 ? &ch->count : &ch->address, high, v);
}

static uint8_t read_channel(struct dma8237_chip *c, unsigned reg)
{
    const struct dma8237_channel *ch = &c->dma->channel[c->first + reg / 2];
    return take_half(c, reg & 1 ? ch->count : ch->address);
}

static void chip_reset(struct dma8237_chip *c)
{
    c->flip_flop = false;
    c->command = c->status = c->request = 0;
    c->mask = 0x0f;
}

static void chip_write(struct dma8237_chip *c, unsigned reg, uint8_t v)
{
    uint8_t bit = (uint8_t)(1u << (v & 3));
    switch (reg) {
    case 8:
        c->command = v;
        break;
    case 9:
        c->request = v & 4 ? c->request | bit : c->request & (uint8_t)~bit;
        if (v & 4)
            device_log(c->dma->log, LOG_UNIMP, "dma8237: transfer of channel %u by request register",
                       c->first + (v & 3u));
        break;
    case 10:
        c->mask = v & 4 ? c->mask | bit : c->mask & (uint8_t)~bit;
        break;
    case 11:
        c->dma->channel[c->first + (v & 3)].mode = v;
        break;
    case 12:
        c->flip_flop = false;
        break;
    case 13:
        chip_reset(c);
        break;
    case 14:
        c->mask = 0;
        break;
    case 15:
        c->mask = v & 0x0f;
        break;
    default:
        write_channel(c, reg, v);
    }
}

static uint8_t chip_read(struct dma8237_chip *c, unsigned reg)
{
    uint8_t v = 0;
    if (reg < 8)
        return read_channel(c, reg);
    if (reg == 8) {
        v = c->status;
        c->status &= 0xf0;
    } else if (reg == 15) {
        v = c->mask;
    }
    return v;
}

static uint8_t low_read8(void *dev, uint64_t offset)
{
    return chip_read(dev, (unsigned)offset & 15);
}

static void low_write8(void *dev, uint64_t offset, uint8_t v)
{
    chip_write(dev, (unsigned)offset & 15, v);
}

DEVICE_BYTE_BUS_OPS(dma8237_low_bus_ops, low_read8, low_write8);

/* The second chip's registers are two ports apart. */
static uint8_t high_read8(void *dev, uint64_t offset)
{
    return offset & 1 ? 0xff : chip_read(dev, (unsigned)offset >> 1 & 15);
}

static void high_write8(void *dev, uint64_t offset, uint8_t v)
{
    if (!(offset & 1))
        chip_write(dev, (unsigned)offset >> 1 & 15, v);
}

DEVICE_BYTE_BUS_OPS(dma8237_high_bus_ops, high_read8, high_write8);

static uint8_t page_read8(void *dev, uint64_t offset)
{
    return ((struct dma8237 *)dev)->page[offset & 15];
}

static void page_write8(void *dev, uint64_t offset, uint8_t v)
{
    struct dma8237 *d = dev;
    d->page[offset & 15] = v;
    if (page_channel[offset & 15] != PAGE_NONE)
        d->channel[page_channel[offset & 15]].page = v;
}

DEVICE_BYTE_BUS_OPS(dma8237_page_bus_ops, page_read8, page_write8);

/* ---- transfers ---- */

static bool is_ready(const struct dma8237 *d, unsigned channel, bool to_memory)
{
    const struct dma8237_chip *c = &d->chip[channel / 4];
    uint8_t type = d->channel[channel].mode & MODE_TYPE;
    return !(c->command & COMMAND_DISABLE) && !(c->mask >> (channel & 3) & 1) &&
           type == (to_memory ? MODE_TO_MEMORY : MODE_TO_DEVICE);
}

static gpa_t place_of(const struct dma8237_channel *ch, bool wide)
{
    if (wide)
        return (gpa_t)(ch->page & 0xfe) << 16 | (gpa_t)ch->address << 1;
    return (gpa_t)ch->page << 16 | ch->address;
}

static void reached_end(struct dma8237 *d, unsigned channel)
{
    struct dma8237_channel *ch = &d->channel[channel];
    struct dma8237_chip *c = &d->chip[channel / 4];
    c->status |= (uint8_t)(1u << (channel & 3));
    if (ch->mode & MODE_AUTO) {
        ch->address = ch->base_address;
        ch->count = ch->base_count;
    } else {
        c->mask |= (uint8_t)(1u << (channel & 3));
    }
}

/* One byte or word: false when memory is not there. */
static bool move_unit(struct dma8237 *d, struct dma8237_channel *ch, uint8_t *buf, unsigned unit, bool to_memory)
{
    gpa_t at = place_of(ch, unit == 2);
    enum mem_result r = to_memory ? guest_mem_write(&d->memory, at, buf, unit, MEM_DMA)
                                  : guest_mem_read(&d->memory, at, buf, unit, MEM_DMA);
    ch->address = (uint16_t)(ch->mode & MODE_DOWN ? ch->address - 1 : ch->address + 1);
    ch->count--;
    return r == MEM_OK;
}

uint32_t dma8237_move(struct dma8237 *d, unsigned channel, uint8_t *buf, uint32_t len, bool to_memory, bool *end)
{
    struct dma8237_channel *ch = &d->channel[channel];
    unsigned unit = channel < 4 ? 1 : 2;
    uint32_t moved = 0;
    *end = false;
    while (!*end && moved + unit <= len && is_ready(d, channel, to_memory)) {
        if (!move_unit(d, ch, buf + moved, unit, to_memory))
            device_log(d->log, LOG_GUEST_ERROR, "dma8237: channel %u: no memory at 0x%llx", channel,
                       (unsigned long long)place_of(ch, unit == 2));
        moved += unit;
        *end = ch->count == 0xffff;
        if (*end)
            reached_end(d, channel);
    }
    return moved;
}

/* ---- life ---- */

void dma8237_init(struct dma8237 *d, const struct guest_memory *memory, const struct log *log)
{
    memset(d, 0, sizeof *d);
    d->memory = *memory;
    d->log = log;
    for (unsigned k = 0; k < 2; k++)
        d->chip[k] = (struct dma8237_chip){.dma = d, .first = 4 * k};
    dma8237_reset(d);
}

void dma8237_reset(struct dma8237 *d)
{
    memset(d->channel, 0, sizeof d->channel);
    memset(d->page, 0, sizeof d->page);
    chip_reset(&d->chip[0]);
    chip_reset(&d->chip[1]);
}

void dma8237_save(const struct dma8237 *d, struct snap_writer *w)
{
    snap_begin(w, "dma8237", 1);
    for (unsigned k = 0; k < DMA8237_CHANNELS; k++) {
        const struct dma8237_channel *c = &d->channel[k];
        const uint16_t words[] = {c->base_address, c->base_count, c->address, c->count};
        for (unsigned i = 0; i < ARRAY_LEN(words); i++)
            snap_put_u16(w, words[i]);
        snap_put_u8(w, c->page);
        snap_put_u8(w, c->mode);
    }
    for (unsigned k = 0; k < 2; k++) {
        const struct dma8237_chip *c = &d->chip[k];
        const uint8_t bytes[] = {c->flip_flop, c->command, c->mask, c->status, c->request};
        snap_put_bytes(w, bytes, sizeof bytes);
    }
    snap_put_bytes(w, d->page, sizeof d->page);
    snap_end(w);
}

void dma8237_load(struct dma8237 *d, struct snap_reader *r)
{
    if (!snap_expect(r, "dma8237", 1))
        return;
    for (unsigned k = 0; k < DMA8237_CHANNELS; k++) {
        struct dma8237_channel *c = &d->channel[k];
        uint16_t *words[] = {&c->base_address, &c->base_count, &c->address, &c->count};
        for (unsigned i = 0; i < ARRAY_LEN(words); i++)
            *words[i] = snap_get_u16(r);
        c->page = snap_get_u8(r);
        c->mode = snap_get_u8(r);
    }
    for (unsigned k = 0; k < 2; k++) {
        struct dma8237_chip *c = &d->chip[k];
        uint8_t b[5];
        snap_get_bytes(r, b, sizeof b);
        c->flip_flop = b[0] != 0;
        c->command = b[1];
        c->mask = b[2];
        c->status = b[3];
        c->request = b[4];
    }
    snap_get_bytes(r, d->page, sizeof d->page);
}
