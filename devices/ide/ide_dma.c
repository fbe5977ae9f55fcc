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
    if (c->prd_last || guest_mem_read(&c->cfg.memory, c->prd_next, entry, sizeof entry, MEM_DMA) != MEM_OK)
        return false;
    uint32_t count = (uint32_t)load_le(entry + 4, 4);
    c->prd_next += sizeof entry;
    c->prd_address = (uint32_t)load_le(entry, 4) & ~1u;
    c->prd_left = count & 0xfffe ? count & 0xfffe : 0x10000;
    c->prd_last = count & PRD_LAST;
    return true;
}

bool ide_dma_move(struct ide_channel *c, uint8_t *buf, uint32_t len, bool to_memory)
{
    const struct guest_memory *m = &c->cfg.memory;
    c->counters.dma_bytes += len;
    while (len) {
        if (!c->prd_left && !next_region(c))
            return false;
        uint32_t n = len < c->prd_left ? len : c->prd_left;
        enum mem_result r = to_memory ? guest_mem_write(m, c->prd_address, buf, n, MEM_DMA)
                                      : guest_mem_read(m, c->prd_address, buf, n, MEM_DMA);
        if (r != MEM_OK)
            return false;
        c->prd_address += n;
        c->prd_left -= n;
        buf += n;
        len -= n;
    }
    return true;
}

/* The transfer begins when the command and the start bit are both there. */
static void try_start(struct ide_channel *c)
{
    if (c->phase == IDE_PHASE_DMA && c->job == IDE_JOB_NONE && c->bm_command & BM_START)
        ide_start(c, IDE_JOB_DMA, BLOCK_LATENCY);
}

void ide_dma_want(struct ide_channel *c)
{
    c->phase = IDE_PHASE_DMA;
    ide_selected(c)->status = STATUS_DRDY | STATUS_DRQ;
    try_start(c);
}

/* Active stays on if the table goes on behind the data. */
void ide_dma_done(struct ide_channel *c)
{
    if (c->prd_last && !c->prd_left)
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
        c->prd_next = c->bm_table;
        c->prd_left = 0;
        c->prd_last = false;
        c->bm_status |= BM_ACTIVE;
        try_start(c);
    } else if (!(v & BM_START) && old & BM_START) {
        c->bm_status &= (uint8_t)~BM_ACTIVE;
        if (c->job == IDE_JOB_DMA) { /* the host gave up: the drive still wants its transfer */
            timer_cancel(c->cfg.clock, &c->timer);
            c->job = IDE_JOB_NONE;
            ide_selected(c)->status = STATUS_DRDY | STATUS_DRQ;
        }
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
