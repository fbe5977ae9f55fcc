/*
 * The IDE channel's registers, its interrupt, resets, and its state.
 */
#include "devices/ide/ide.h"

#include "core/snapshot.h"
#include "devices/ide/ide_internal.h"

#include <stdio.h>
#include <string.h>

#define SECTION_VERSION 2

/* ---- interrupt ---- */

static void drive_irq(struct ide_channel *c)
{
    irq_set(&c->cfg.irq, c->irq_level && !(c->control & CONTROL_NIEN));
}

static void irq_raise(struct ide_channel *c)
{
    c->irq_level = true;
    c->bm_status |= BM_INTERRUPT;
    c->interrupts++;
    drive_irq(c);
}

static void irq_clear(struct ide_channel *c)
{
    c->irq_level = false;
    drive_irq(c);
}

/* ---- what the drives have to say ---- */

static void offered(void *host, bool interrupt)
{
    if (interrupt)
        irq_raise(host);
}

static void ended(void *host)
{
    irq_raise(host);
}

static const struct ata_host_ops host_ops = {.offered = offered,
                                             .ended = ended,
                                             .dma_wanted = ide_dma_wanted,
                                             .dma_move = ide_dma_move,
                                             .dma_mark = ide_dma_mark,
                                             .dma_rewind = ide_dma_rewind,
                                             .dma_ended = ide_dma_ended};

/* ---- resets ---- */

static void cancel(struct ide_channel *c)
{
    ata_cancel(&c->link);
    c->bm_status &= (uint8_t)~BM_ACTIVE;
    irq_clear(c);
}

static void soft_reset(struct ide_channel *c)
{
    cancel(c);
    ata_soft_reset(&c->link);
}

/* ---- registers ---- */

static void write_control(struct ide_channel *c, uint8_t v)
{
    uint8_t old = c->control;
    c->control = v;
    if (v & CONTROL_SRST && !(old & CONTROL_SRST)) {
        cancel(c);
        c->link.drive[0].status = c->link.drive[1].status = ATA_STATUS_BSY;
    } else if (!(v & CONTROL_SRST) && old & CONTROL_SRST) {
        soft_reset(c);
    }
    drive_irq(c);
}

static void write_command(struct ide_channel *c, uint8_t command)
{
    if (c->control & CONTROL_SRST)
        return;
    if (!ata_takes_command(&c->link, command)) {
        device_log(c->cfg.log, LOG_GUEST_ERROR, "ide%u: command 0x%02x for a drive that is %s", c->cfg.instance,
                   command, ata_selected(&c->link)->kind == ATA_NONE ? "not there" : "busy");
        return;
    }
    cancel(c);
    ata_command(&c->link, command);
}

static void write_select(struct ide_channel *c, uint8_t v)
{
    c->link.drive[0].select = c->link.drive[1].select = v | 0xa0;
}

/* Both drives see what is written; each register keeps what it held before, for 48-bit commands. */
static void write_register(struct ata_drive *d, unsigned offset, uint8_t v)
{
    uint8_t *now[] = {NULL, &d->reg.feature, &d->reg.count, &d->reg.lba[0], &d->reg.lba[1], &d->reg.lba[2]};
    uint8_t *before[] = {
        NULL, &d->previous.feature, &d->previous.count, &d->previous.lba[0], &d->previous.lba[1], &d->previous.lba[2]};
    *before[offset] = *now[offset];
    *now[offset] = v;
}

static void command_write8(struct ide_channel *c, unsigned offset, uint8_t v)
{
    c->control &= (uint8_t)~CONTROL_HOB;
    if (offset == 7) {
        write_command(c, v);
    } else if (ata_selected(&c->link)->status & ATA_STATUS_BSY && !(c->control & CONTROL_SRST)) {
        device_log(c->cfg.log, LOG_GUEST_ERROR, "ide%u: register %u is written while the drive is busy",
                   c->cfg.instance, offset);
    } else if (offset == 6) {
        write_select(c, v);
    } else if (offset) {
        write_register(&c->link.drive[0], offset, v);
        write_register(&c->link.drive[1], offset, v);
    }
}

static uint8_t status_of(struct ide_channel *c)
{
    struct ata_drive *d = ata_selected(&c->link);
    return d->kind == ATA_NONE ? 0 : d->status;
}

static uint8_t command_read8(struct ide_channel *c, unsigned offset)
{
    struct ata_drive *d = ata_selected(&c->link);
    const struct ata_registers *r = c->control & CONTROL_HOB ? &d->previous : &d->reg;
    if (d->kind == ATA_NONE)
        return 0;
    switch (offset) {
    case 1:
        return d->error;
    case 2:
        return r->count;
    case 6:
        return d->select;
    case 7:
        irq_clear(c);
        return d->status;
    default:
        return r->lba[offset - 3];
    }
}

/* ---- the data register ---- */

static uint64_t data_read(struct ide_channel *c, unsigned size)
{
    struct ata_link *link = &c->link;
    uint64_t v = 0;
    if (link->phase != ATA_PHASE_IN || ata_selected(link) != ata_busy(link))
        return 0;
    for (unsigned i = 0; i < size && link->pos < link->len; i++)
        v |= (uint64_t)link->buf[link->pos++] << (8 * i);
    link->counters.pio_bytes += size;
    if (link->pos == link->len)
        ata_block_done(link);
    return v;
}

static void data_write(struct ide_channel *c, unsigned size, uint64_t v)
{
    struct ata_link *link = &c->link;
    if ((link->phase != ATA_PHASE_OUT && link->phase != ATA_PHASE_PACKET) || ata_selected(link) != ata_busy(link))
        return;
    for (unsigned i = 0; i < size && link->pos < link->len; i++)
        link->buf[link->pos++] = (uint8_t)(v >> (8 * i));
    link->counters.pio_bytes += size;
    if (link->pos == link->len)
        ata_block_done(link);
}

static uint64_t command_read(void *dev, const struct bus_txn *t)
{
    struct ide_channel *c = dev;
    uint64_t v = 0;
    if (t->offset == 0)
        return data_read(c, t->size);
    for (unsigned i = 0; i < t->size; i++)
        v |= (uint64_t)command_read8(c, (unsigned)t->offset + i) << (8 * i);
    return v;
}

static void command_write(void *dev, const struct bus_txn *t, uint64_t value)
{
    struct ide_channel *c = dev;
    if (t->offset == 0) {
        data_write(c, t->size, value);
        return;
    }
    for (unsigned i = 0; i < t->size; i++)
        command_write8(c, (unsigned)t->offset + i, (uint8_t)(value >> (8 * i)));
}

const struct bus_ops ide_command_bus_ops = {command_read, command_write};

static uint64_t control_read(void *dev, const struct bus_txn *t)
{
    return status_of(dev);
}

static void control_write(void *dev, const struct bus_txn *t, uint64_t value)
{
    write_control(dev, (uint8_t)value);
}

const struct bus_ops ide_control_bus_ops = {control_read, control_write};

/* ---- life ---- */

void ide_channel_reset(struct ide_channel *c)
{
    c->control = 0;
    c->bm_command = c->bm_status = 0;
    c->bm_table = 0;
    c->place = (struct ide_table_place){0};
    cancel(c);
    ata_link_reset(&c->link);
}

void ide_channel_init(struct ide_channel *c, const struct ide_channel_config *cfg)
{
    memset(c, 0, sizeof *c);
    c->cfg = *cfg;
    ata_link_init(&c->link, &(struct ata_link_config){.name = cfg->instance ? "ide1" : "ide0",
                                                      .clock = cfg->clock,
                                                      .drive = {cfg->drive[0], cfg->drive[1]},
                                                      .ops = &host_ops,
                                                      .host = c,
                                                      .log = cfg->log});
    ide_channel_reset(c);
}

/* ---- snapshots ---- */

static void section_name(const struct ide_channel *c, char name[16])
{
    snprintf(name, 16, "ide.%u", c->cfg.instance & 1);
}

void ide_channel_save(const struct ide_channel *c, struct snap_writer *w)
{
    const struct ide_table_place *p = &c->place;
    const uint8_t bytes[] = {c->control, c->irq_level, c->bm_command, c->bm_status, p->last};
    const uint32_t words[] = {c->bm_table, p->next, p->address, p->left};
    char name[16];
    section_name(c, name);
    snap_begin(w, name, SECTION_VERSION);
    ata_link_save(&c->link, w);
    snap_put_bytes(w, bytes, sizeof bytes);
    for (unsigned i = 0; i < ARRAY_LEN(words); i++)
        snap_put_u32(w, words[i]);
    snap_end(w);
}

void ide_channel_load(struct ide_channel *c, struct snap_reader *r)
{
    struct ide_table_place *p = &c->place;
    uint32_t *words[] = {&c->bm_table, &p->next, &p->address, &p->left};
    uint8_t b[5];
    char name[16];
    section_name(c, name);
    if (!snap_expect(r, name, SECTION_VERSION))
        return;
    ata_link_load(&c->link, r);
    snap_get_bytes(r, b, sizeof b);
    for (unsigned i = 0; i < ARRAY_LEN(words); i++)
        *words[i] = snap_get_u32(r);
    c->control = b[0];
    c->irq_level = b[1];
    c->bm_command = b[2];
    c->bm_status = b[3];
    p->last = b[4];
}
