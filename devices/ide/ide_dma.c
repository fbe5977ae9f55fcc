/*
 * The bus master of a channel: its registers, and the table of physical regions that a transfer follows.
 */
#include "devices/ide/ide_internal.h"

#include "core/bytes.h"

#include <string.h>

#define PRD_LAST 0x80000000u

static bool next_region(struct ide_channel *c)
{
    uint8_t entry[8];
    if (c->place.last || guest_mem_read(&c->cfg.memory, c->place.next, entry, sizeof entry, MEM_DMA) != MEM_OK)
        return false;
    uint32_t count = (uint32_t)load_le(entry + 4, 4);
    c->place.next += sizeof entry;
    c->place.address = (uint32_t)load_le(entry, 4) & ~1u;
    c->place.left = count & 0xfffe ? count & 0xfffe : 0x10000;
    c->place.last = count & PRD_LAST;
    return true;
}

static bool move(struct ide_channel *c, uint8_t *buf, uint32_t len, bool to_memory)
{
    const struct guest_memory *m = &c->cfg.memory;
    while (len) {
        if (!c->place.left && !next_region(c))
            return false;
        uint32_t n = len < c->place.left ? len : c->place.left;
        enum mem_result r = to_memory ? guest_mem_write(m, c->place.address, buf, n, MEM_DMA)
                                      : guest_mem_read(m, c->place.address, buf, n, MEM_DMA);
        if (r != MEM_OK)
            return false;
        c->place.address += n;
        c->place.left -= n;
        buf += n;
        len -= n;
    }
    return true;
}

enum ata_moved ide_dma_move(void *host, uint8_t *buf, uint32_t len, bool to_memory)
{
    struct ide_channel *c = host;
    if (move(c, buf, len, to_memory))
        return ATA_MOVED;
    device_log(c->cfg.log, LOG_GUEST_ERROR, "ide%u: DMA table ends before the data, or names no memory",
               c->cfg.instance);
    c->bm_status |= BM_ERROR;
    return ATA_NOWHERE;
}

void ide_dma_mark(void *host)
{
    struct ide_channel *c = host;
    c->mark = c->place;
}

void ide_dma_rewind(void *host)
{
    struct ide_channel *c = host;
    c->place = c->mark;
}

/* The transfer begins when the command and the start bit are both there. */
void ide_dma_wanted(void *host)
{
    struct ide_channel *c = host;
    if (c->bm_command & BM_START)
        ata_dma_start(&c->link);
}

/* Active stays on if the table goes on behind the data. */
void ide_dma_ended(void *host, bool complete)
{
    struct ide_channel *c = host;
    if (!complete || (c->place.last && !c->place.left))
        c->bm_status &= (uint8_t)~BM_ACTIVE;
}

uint8_t ide_bm_read(const struct ide_channel *c, unsigned offset)
{
    if (offset == 0)
        return c->bm_command;
    if (offset == 2)
        return c->bm_status;
    return offset >= 4 && offset < 8 ? (uint8_t)(c->bm_table >> (8 * (offset - 4))) : 0;
}

static void write_bm_command(struct ide_channel *c, uint8_t v, bool may_start)
{
    uint8_t old = c->bm_command;
    if (v & BM_START && !may_start)
        v &= (uint8_t)~BM_START;
    c->bm_command = v & (BM_START | BM_READ);
    if (v & BM_START && !(old & BM_START)) {
        c->place.next = c->bm_table;
        c->place.left = 0;
        c->place.last = false;
        c->bm_status |= BM_ACTIVE;
        ata_dma_start(&c->link);
    } else if (!(v & BM_START) && old & BM_START) {
        c->bm_status &= (uint8_t)~BM_ACTIVE;
        ata_dma_stop(&c->link);
    }
}

void ide_bm_write(struct ide_channel *c, unsigned offset, uint8_t value, bool may_start)
{
    if (offset == 0) {
        write_bm_command(c, value, may_start);
    } else if (offset == 2) {
        c->bm_status &= (uint8_t) ~(value & (BM_ERROR | BM_INTERRUPT));
        c->bm_status = (c->bm_status & 0x07) | (value & 0x60); /* what drivers say of the drives */
    } else if (offset >= 4 && offset < 8) {
        unsigned shift = 8 * (offset - 4);
        c->bm_table = ((c->bm_table & ~(0xffu << shift)) | (uint32_t)value << shift) & ~3u;
    }
}
