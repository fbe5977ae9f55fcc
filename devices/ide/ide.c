/*
 * The IDE channel's registers, its interrupt, resets, and its state.
 */
#include "devices/ide/ide.h"

#include "core/snapshot.h"
#include "devices/ide/ide_internal.h"

#include <stdio.h>
#include <string.h>

/* ---- interrupt ---- */

static void drive_irq(struct ide_channel *c)
{
    irq_set(&c->cfg.irq, c->irq_level && !(c->control & CONTROL_NIEN));
}

void ide_raise(struct ide_channel *c)
{
    c->irq_level = true;
    c->bm_status |= BM_INTERRUPT;
    c->counters.interrupts++;
    drive_irq(c);
}

static void irq_clear(struct ide_channel *c)
{
    c->irq_level = false;
    drive_irq(c);
}

/* ---- what commands share ---- */

void ide_start(struct ide_channel *c, enum ide_job job, uint64_t latency)
{
    ide_selected(c)->status = STATUS_BSY;
    c->job = job;
    timer_arm(c->cfg.clock, &c->timer, clock_now(c->cfg.clock) + latency);
}

void ide_finish(struct ide_channel *c, uint8_t error)
{
    struct ide_drive *d = ide_selected(c);
    c->phase = IDE_PHASE_NONE;
    c->job = IDE_JOB_NONE;
    c->left = c->pos = c->len = c->filled = 0;
    d->error = error;
    d->status = STATUS_DRDY | STATUS_DSC | (error ? STATUS_ERR : 0);
    ide_raise(c);
}

void ide_offer(struct ide_channel *c, enum ide_phase phase, uint32_t from, uint32_t to, bool interrupt)
{
    struct ide_drive *d = ide_selected(c);
    c->phase = phase;
    c->pos = from;
    c->len = to;
    d->error = 0;
    d->status = STATUS_DRDY | STATUS_DSC | STATUS_DRQ;
    if (interrupt)
        ide_raise(c);
}

bool ide_try_again(struct ide_channel *c, enum block_result r)
{
    if (r != BLOCK_FULL)
        return false;
    timer_arm(c->cfg.clock, &c->timer, clock_now(c->cfg.clock));
    return true;
}

void ide_set_signature(struct ide_drive *d)
{
    d->reg.count = d->reg.lba[0] = 1;
    d->reg.lba[1] = d->kind == IDE_CDROM ? 0x14 : 0;
    d->reg.lba[2] = d->kind == IDE_CDROM ? 0xeb : 0;
}

static void fire(void *opaque)
{
    struct ide_channel *c = opaque;
    if (ide_selected(c)->kind == IDE_CDROM)
        ide_cdrom_job(c);
    else
        ide_disk_job(c);
}

/* ---- resets ---- */

static void drive_reset(struct ide_drive *d)
{
    d->previous = (struct ide_registers){0};
    d->error = 1; /* diagnostics passed */
    d->select = 0;
    d->multiple = 0;
    d->status = d->kind == IDE_DISK ? STATUS_DRDY | STATUS_DSC : 0;
    d->locked = false;
    ide_set_signature(d);
}

static void cancel(struct ide_channel *c)
{
    timer_cancel(c->cfg.clock, &c->timer);
    c->job = IDE_JOB_NONE;
    c->phase = IDE_PHASE_NONE;
    c->left = c->pos = c->len = c->filled = 0;
    c->bm_status &= (uint8_t)~BM_ACTIVE;
    irq_clear(c);
}

static void soft_reset(struct ide_channel *c)
{
    cancel(c);
    drive_reset(&c->drive[0]);
    drive_reset(&c->drive[1]);
}

static void diagnose(struct ide_channel *c)
{
    soft_reset(c);
    ide_raise(c);
}

/* ---- registers ---- */

static void write_control(struct ide_channel *c, uint8_t v)
{
    uint8_t old = c->control;
    c->control = v;
    if (v & CONTROL_SRST && !(old & CONTROL_SRST)) {
        cancel(c);
        c->drive[0].status = c->drive[1].status = STATUS_BSY;
    } else if (!(v & CONTROL_SRST) && old & CONTROL_SRST) {
        soft_reset(c);
    }
    drive_irq(c);
}

static void write_command(struct ide_channel *c, uint8_t command)
{
    struct ide_drive *d = ide_selected(c);
    if (c->control & CONTROL_SRST)
        return;
    if (command == 0x90) {
        diagnose(c);
        return;
    }
    /* A drive that is busy takes no command but DEVICE RESET, and one that is not there takes none. */
    if (d->kind == IDE_NONE || (d->status & (STATUS_BSY | STATUS_DRQ) && !(d->kind == IDE_CDROM && command == 0x08))) {
        device_log(c->cfg.log, LOG_GUEST_ERROR, "ide%u: command 0x%02x for a drive that is %s", c->cfg.instance,
                   command, d->kind == IDE_NONE ? "not there" : "busy");
        return;
    }
    cancel(c);
    c->command = command;
    c->counters.commands++;
    d->error = 0;
    if (d->kind == IDE_CDROM)
        ide_cdrom_command(c, command);
    else
        ide_disk_command(c, command);
}

static void write_select(struct ide_channel *c, uint8_t v)
{
    c->drive[0].select = c->drive[1].select = v | 0xa0;
}

/* Both drives see what is written; each register keeps what it held before, for 48-bit commands. */
static void write_register(struct ide_drive *d, unsigned offset, uint8_t v)
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
    } else if (ide_selected(c)->status & STATUS_BSY && !(c->control & CONTROL_SRST)) {
        device_log(c->cfg.log, LOG_GUEST_ERROR, "ide%u: register %u is written while the drive is busy",
                   c->cfg.instance, offset);
    } else if (offset == 6) {
        write_select(c, v);
    } else if (offset) {
        write_register(&c->drive[0], offset, v);
        write_register(&c->drive[1], offset, v);
    }
}

static uint8_t status_of(struct ide_channel *c)
{
    struct ide_drive *d = ide_selected(c);
    return d->kind == IDE_NONE ? 0 : d->status;
}

static uint8_t command_read8(struct ide_channel *c, unsigned offset)
{
    struct ide_drive *d = ide_selected(c);
    const struct ide_registers *r = c->control & CONTROL_HOB ? &d->previous : &d->reg;
    if (d->kind == IDE_NONE)
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

static void block_done(struct ide_channel *c)
{
    if (ide_selected(c)->kind == IDE_CDROM)
        ide_cdrom_block_done(c);
    else
        ide_disk_block_done(c);
}

static uint64_t data_read(struct ide_channel *c, unsigned size)
{
    uint64_t v = 0;
    if (c->phase != IDE_PHASE_IN)
        return 0;
    for (unsigned i = 0; i < size && c->pos < c->len; i++)
        v |= (uint64_t)c->buf[c->pos++] << (8 * i);
    c->counters.pio_bytes += size;
    if (c->pos == c->len)
        block_done(c);
    return v;
}

static void data_write(struct ide_channel *c, unsigned size, uint64_t v)
{
    if (c->phase != IDE_PHASE_OUT && c->phase != IDE_PHASE_PACKET)
        return;
    for (unsigned i = 0; i < size && c->pos < c->len; i++)
        c->buf[c->pos++] = (uint8_t)(v >> (8 * i));
    c->counters.pio_bytes += size;
    if (c->pos == c->len)
        block_done(c);
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
    c->control = c->command = 0;
    c->bm_command = c->bm_status = 0;
    c->bm_table = c->prd_next = c->prd_address = c->prd_left = 0;
    c->prd_last = c->is_write = c->packet_dma = false;
    c->sector = c->block = c->byte_limit = 0;
    soft_reset(c);
    for (unsigned n = 0; n < 2; n++) {
        struct ide_drive *d = &c->drive[n];
        d->reg.feature = 0;
        d->heads = 16;
        d->track = 63;
        d->transfer_mode = 0;
        d->write_cache = true;
        d->sense = d->asc = d->ascq = 0;
        d->changed = d->open = false;
    }
}

void ide_channel_init(struct ide_channel *c, const struct ide_channel_config *cfg)
{
    memset(c, 0, sizeof *c);
    c->cfg = *cfg;
    timer_init_work(&c->timer, fire, c);
    for (unsigned n = 0; n < 2; n++) {
        const struct ide_drive_config *from = &cfg->drive[n];
        c->drive[n] = (struct ide_drive){
            .kind = from->kind, .block = from->block, .serial = from->serial, .number = from->number};
    }
    ide_channel_reset(c);
}

void ide_set_medium(struct ide_channel *c, unsigned n, struct block_device *block)
{
    struct ide_drive *d = &c->drive[n];
    d->block = block;
    d->changed = true;
    d->open = false;
}

/* ---- snapshots ---- */

static void registers_save(const struct ide_registers *r, struct snap_writer *w)
{
    snap_put_u8(w, r->feature);
    snap_put_u8(w, r->count);
    snap_put_bytes(w, r->lba, sizeof r->lba);
}

static void registers_load(struct ide_registers *r, struct snap_reader *rd)
{
    r->feature = snap_get_u8(rd);
    r->count = snap_get_u8(rd);
    snap_get_bytes(rd, r->lba, sizeof r->lba);
}

static void drive_save(const struct ide_drive *d, struct snap_writer *w)
{
    const uint8_t bytes[] = {(uint8_t)d->kind, d->select,   d->status,        d->error,       d->heads,
                             d->track,         d->multiple, d->transfer_mode, d->write_cache, d->sense,
                             d->asc,           d->ascq,     d->changed,       d->locked,      d->open};
    registers_save(&d->reg, w);
    registers_save(&d->previous, w);
    snap_put_bytes(w, bytes, sizeof bytes);
}

static void drive_load(struct ide_drive *d, struct snap_reader *r)
{
    uint8_t b[15];
    registers_load(&d->reg, r);
    registers_load(&d->previous, r);
    snap_get_bytes(r, b, sizeof b);
    if (b[0] != d->kind)
        snap_fail(r, "an IDE drive is of another kind than when it was made");
    d->select = b[1];
    d->status = b[2];
    d->error = b[3];
    d->heads = b[4];
    d->track = b[5];
    d->multiple = b[6] <= 16 ? b[6] : 0;
    d->transfer_mode = b[7];
    d->write_cache = b[8];
    d->sense = b[9];
    d->asc = b[10];
    d->ascq = b[11];
    d->changed = b[12];
    d->locked = b[13];
    d->open = b[14];
}

static void section_name(const struct ide_channel *c, char name[16])
{
    snprintf(name, 16, "ide.%u", c->cfg.instance & 1);
}

/* Bytes of buf that mean something. */
static uint32_t in_buf(const struct ide_channel *c)
{
    return c->len > c->filled ? c->len : c->filled;
}

void ide_channel_save(const struct ide_channel *c, struct snap_writer *w)
{
    char name[16];
    section_name(c, name);
    snap_begin(w, name, 1);
    drive_save(&c->drive[0], w);
    drive_save(&c->drive[1], w);
    const uint8_t bytes[] = {c->control,  c->irq_level,  (uint8_t)c->job, (uint8_t)c->phase, c->command,
                             c->is_write, c->packet_dma, c->bm_command,   c->bm_status,      c->prd_last};
    const uint32_t words[] = {c->left,   c->block,    c->pos,      c->len,         c->byte_limit,
                              c->filled, c->bm_table, c->prd_next, c->prd_address, c->prd_left};
    snap_put_bytes(w, bytes, sizeof bytes);
    for (unsigned i = 0; i < ARRAY_LEN(words); i++)
        snap_put_u32(w, words[i]);
    snap_put_u64(w, c->sector);
    snap_put_bytes(w, c->packet, sizeof c->packet);
    timer_save(c->cfg.clock, &c->timer, w);
    snap_put_bytes(w, c->buf, in_buf(c));
    snap_end(w);
}

static void transfer_load(struct ide_channel *c, struct snap_reader *r)
{
    uint8_t b[10];
    uint32_t *words[] = {&c->left,   &c->block,    &c->pos,      &c->len,         &c->byte_limit,
                         &c->filled, &c->bm_table, &c->prd_next, &c->prd_address, &c->prd_left};
    snap_get_bytes(r, b, sizeof b);
    for (unsigned i = 0; i < ARRAY_LEN(words); i++)
        *words[i] = snap_get_u32(r);
    c->sector = snap_get_u64(r);
    c->control = b[0];
    c->irq_level = b[1];
    c->job = (enum ide_job)b[2];
    c->phase = (enum ide_phase)b[3];
    c->command = b[4];
    c->is_write = b[5];
    c->packet_dma = b[6];
    c->bm_command = b[7];
    c->bm_status = b[8];
    c->prd_last = b[9];
    if (b[2] >= IDE_JOB_JOBS || b[3] >= IDE_PHASES || c->len > IDE_BUFFER || c->filled > IDE_BUFFER ||
        c->pos > in_buf(c) || c->block > 16) {
        snap_fail(r, "ide: a transfer is out of range");
        c->job = IDE_JOB_NONE;
        c->phase = IDE_PHASE_NONE;
        c->pos = c->len = c->filled = c->block = 0;
    }
}

void ide_channel_load(struct ide_channel *c, struct snap_reader *r)
{
    char name[16];
    section_name(c, name);
    if (!snap_expect(r, name, 1))
        return;
    drive_load(&c->drive[0], r);
    drive_load(&c->drive[1], r);
    transfer_load(c, r);
    snap_get_bytes(r, c->packet, sizeof c->packet);
    timer_load(c->cfg.clock, &c->timer, r);
    snap_get_bytes(r, c->buf, in_buf(c));
    c->drive[1].select = c->drive[0].select;
}
