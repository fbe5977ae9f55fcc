/*
 * Commands: fetching them, handing them to the drive, moving their data by their tables, and their ends.
 */
#include "core/bytes.h"
#include "devices/ahci/ahci_internal.h"

#include <string.h>

#define HEADER_BYTES 32u /* an entry of the command list [4.2.2] */
#define HEADER_FIS   0x1fu
#define HEADER_CLEAR 0x0400u /* clear BSY when the frame has arrived */
#define HEADER_COUNT 4u      /* offset of the bytes that were moved */

#define TABLE_FIS     0x00u /* parts of a command table [4.2.3] */
#define TABLE_PACKET  0x40u
#define TABLE_REGIONS 0x80u
#define REGION_BYTES  16u

#define FIS_DWORDS_MIN 5u
#define FIS_DWORDS_MAX 16u
#define FIS_COMMAND    0x80 /* byte 1: a command, not device control */
#define CONTROL_SRST   0x04

/* ---- data ---- */

struct region {
    gpa_t gpa;
    uint32_t len;
    bool interrupt;
};

static bool region_get(struct ahci_port *p, struct region *r)
{
    uint8_t b[REGION_BYTES];
    gpa_t at = p->current.table + TABLE_REGIONS + (gpa_t)REGION_BYTES * p->place.entry;
    if (!ahci_dma(p->hba, at, b, sizeof b, false))
        return false;
    uint32_t last = (uint32_t)load_le(b + 12, 4);
    *r = (struct region){.gpa = load_le(b, 8) & ~1ull, .len = (last & 0x3fffff) + 1, .interrupt = last >> 31};
    return true;
}

static void region_pass(struct ahci_port *p, const struct region *r)
{
    p->place = (struct ahci_place){.entry = p->place.entry + 1};
    if (r->interrupt)
        ahci_port_raise(p, IS_DPS);
}

static enum ata_moved dma_move(void *host, uint8_t *buf, uint32_t len, bool to_memory)
{
    struct ahci_port *p = host;
    while (len) {
        struct region r;
        if (p->place.entry >= p->current.regions) {
            device_log(p->hba->cfg.log, LOG_GUEST_ERROR, "%s: the table of slot %u ends before the data", p->name,
                       p->current.slot);
            ahci_port_raise(p, IS_OFS);
            return ATA_SHORT;
        }
        p->lost = !region_get(p, &r);
        uint32_t room = p->lost || p->place.used >= r.len ? 0 : r.len - p->place.used, n = len < room ? len : room;
        p->lost = p->lost || (n && !ahci_dma(p->hba, r.gpa + p->place.used, buf, n, to_memory));
        if (p->lost)
            return ATA_NOWHERE;
        p->place.used += n;
        p->moved += n;
        buf += n;
        len -= n;
        if (n == room)
            region_pass(p, &r);
    }
    return ATA_MOVED;
}

static void dma_mark(void *host)
{
    struct ahci_port *p = host;
    p->mark = p->place;
}

static void dma_rewind(void *host)
{
    struct ahci_port *p = host;
    p->place = p->mark;
}

/* A port is always ready. */
static void dma_wanted(void *host)
{
    struct ahci_port *p = host;
    ata_dma_start(&p->link);
}

static void dma_ended(void *host, bool complete)
{
}

/* ---- the end of a command ---- */

/* Says how many bytes were moved, and frees the slot. */
static void complete(struct ahci_port *p)
{
    uint8_t moved[4];
    p->running = false;
    p->ci &= ~(1u << p->current.slot);
    store_le(moved, p->moved, sizeof moved);
    if (!ahci_dma(p->hba, p->current.header + HEADER_COUNT, moved, sizeof moved, true))
        ahci_port_lost(p);
}

/* What failed keeps its bit in PxCI until software has seen it [6.2.2.1]. */
static void fail(struct ahci_port *p)
{
    ahci_port_forget(p);
    p->halted = true;
}

static void ended(void *host)
{
    struct ahci_port *p = host;
    if (p->lost) {
        p->lost = false;
        ahci_port_lost(p);
        return;
    }
    bool failed = ata_selected(&p->link)->status & ATA_STATUS_ERR;
    if (failed)
        fail(p);
    else
        complete(p);
    ahci_port_receive_registers(p, true);
    ahci_port_raise(p, failed ? IS_DHRS | IS_TFES : IS_DHRS);
    ahci_port_fetch(p);
}

/* ---- PIO: a frame says that a block comes, and what the status is behind it ---- */

static void receive_pio_setup(struct ahci_port *p, bool inwards, bool interrupt, uint8_t before, uint32_t len)
{
    const struct ata_drive *d = ata_selected(&p->link);
    uint8_t fis[20] = {FIS_PIO_SETUP, (inwards ? FIS_INWARDS : 0) | (interrupt ? FIS_INTERRUPT : 0), before, d->error};
    for (unsigned i = 0; i < 3; i++) {
        fis[4 + i] = d->reg.lba[i];
        fis[8 + i] = d->previous.lba[i];
    }
    fis[7] = d->select;
    fis[12] = d->reg.count;
    fis[13] = d->previous.count;
    fis[15] = d->status;
    store_le(fis + 16, len, 2);
    p->tfd = d->status | (uint32_t)d->error << 8;
    ahci_port_receive(p, RECEIVED_PIO_SETUP, fis, sizeof fis);
}

/* Fills or empties the block; false: the command is over. */
static bool move_block(struct ahci_port *p, uint32_t len)
{
    struct ata_link *link = &p->link;
    uint8_t *block = link->buf + link->pos;
    link->counters.pio_bytes += len;
    if (link->phase == ATA_PHASE_PACKET) {
        if (ahci_dma(p->hba, p->current.table + TABLE_PACKET, block, len, false))
            return true;
        ahci_port_lost(p);
        return false;
    }
    bool inwards = link->phase == ATA_PHASE_IN;
    enum ata_moved moved = dma_move(p, block, len, inwards);
    if (moved == ATA_MOVED || (moved == ATA_SHORT && inwards))
        return true;
    ata_abort(link);
    return false;
}

static void offered(void *host, bool interrupt)
{
    struct ahci_port *p = host;
    struct ata_link *link = &p->link;
    bool inwards = link->phase == ATA_PHASE_IN;
    uint8_t before = ata_selected(link)->status;
    uint32_t len = link->len - link->pos;
    if (!move_block(p, len))
        return;
    link->pos = link->len;
    ata_block_done(link);
    receive_pio_setup(p, inwards, interrupt, before, len);
    if (p->running && ata_is_idle(link)) /* a block to the host is the command's end */
        complete(p);
    if (interrupt)
        ahci_port_raise(p, IS_PSS);
    ahci_port_fetch(p);
}

const struct ata_host_ops ahci_host_ops = {.offered = offered,
                                           .ended = ended,
                                           .dma_wanted = dma_wanted,
                                           .dma_move = dma_move,
                                           .dma_mark = dma_mark,
                                           .dma_rewind = dma_rewind,
                                           .dma_ended = dma_ended};

/* ---- queued commands ---- */

static void receive_dma_setup(struct ahci_port *p, const struct ata_queued *q)
{
    uint8_t fis[28] = {FIS_DMA_SETUP, q->is_write ? 0 : FIS_INWARDS};
    fis[4] = q->tag;
    store_le(fis + 16, (uint64_t)q->count * BLOCK_SECTOR, 4);
    ahci_port_receive(p, RECEIVED_DMA_SETUP, fis, sizeof fis);
}

/* The frame that ends queued commands: those of `tags`, or all, by an error. */
static void receive_device_bits(struct ahci_port *p, uint32_t tags)
{
    const struct ata_drive *d = ata_selected(&p->link);
    const uint32_t keeps = ATA_STATUS_BSY | ATA_STATUS_DRQ;
    uint8_t fis[8] = {FIS_DEV_BITS, FIS_INTERRUPT, d->status & 0x77, d->error};
    store_le(fis + 4, tags, 4);
    p->sact &= ~tags;
    p->tfd = (p->tfd & keeps) | (d->status & ~keeps) | (uint32_t)d->error << 8;
    ahci_port_receive(p, RECEIVED_DEV_BITS, fis, sizeof fis);
}

static void queue_arm(struct ahci_port *p)
{
    if (p->queued)
        timer_arm(p->hba->cfg.clock, &p->timer, p->queue[0].due);
}

static void queue_pop(struct ahci_port *p)
{
    p->queued--;
    memmove(p->queue, p->queue + 1, p->queued * sizeof p->queue[0]);
}

void ahci_queue_serve(void *port)
{
    struct ahci_port *p = port;
    if (!p->queued)
        return;
    const struct ahci_queued q = p->queue[0];
    p->current = q.at;
    p->place = (struct ahci_place){0};
    receive_dma_setup(p, &q.command);
    enum ata_outcome outcome = p->halted ? ATA_FAILED : ata_queued_run(&p->link, &q.command);
    if (outcome == ATA_AGAIN) {
        timer_arm(p->hba->cfg.clock, &p->timer, clock_now(p->hba->cfg.clock));
        return;
    }
    if (p->lost)
        ahci_port_lost(p);
    if (p->lost || p->halted) {
        p->lost = false;
        return;
    }
    queue_pop(p);
    if (outcome == ATA_FAILED)
        fail(p);
    receive_device_bits(p, outcome == ATA_FAILED ? 0 : 1u << q.command.tag);
    queue_arm(p);
    ahci_port_raise(p, outcome == ATA_FAILED ? IS_SDBS | IS_TFES : IS_SDBS);
}

static uint32_t queue_tags(const struct ahci_port *p)
{
    uint32_t tags = 0;
    for (unsigned i = 0; i < p->queued; i++)
        tags |= 1u << p->queue[i].command.tag;
    return tags;
}

static void refuse(struct ahci_port *p)
{
    fail(p);
    ahci_port_receive_registers(p, true);
    ahci_port_raise(p, IS_DHRS | IS_TFES);
}

/* The drive takes it by a frame without an interrupt, which frees the slot; it ends later. */
static void enqueue(struct ahci_port *p, const struct ahci_command *c, uint8_t command)
{
    struct ahci_queued q = {.at = *c, .due = clock_now(p->hba->cfg.clock) + BLOCK_LATENCY};
    if (!ata_queued_take(&p->link, command, queue_tags(p), &q.command)) {
        refuse(p);
        return;
    }
    p->queue[p->queued++] = q;
    if (p->queued == 1)
        queue_arm(p);
    p->ci &= ~(1u << c->slot);
    ahci_port_receive_registers(p, false);
}

/* ---- fetching ---- */

static void set_task_file(struct ata_drive *d, const uint8_t *fis)
{
    d->select = fis[7] & (uint8_t)~ATA_SELECT_DRIVE;
    d->reg.feature = fis[3];
    d->previous.feature = fis[11];
    d->reg.count = fis[12];
    d->previous.count = fis[13];
    memcpy(d->reg.lba, fis + 4, 3);
    memcpy(d->previous.lba, fis + 8, 3);
}

static void start_command(struct ahci_port *p, const struct ahci_command *c, const uint8_t *fis)
{
    struct ata_link *link = &p->link;
    uint8_t command = fis[2];
    bool is_queued = command == ATA_CMD_READ_QUEUED || command == ATA_CMD_WRITE_QUEUED;
    if (!ata_takes_command(link, command)) { /* it never answers: a reset is due */
        device_log(p->hba->cfg.log, LOG_GUEST_ERROR, "%s: command 0x%02x for a drive that is busy", p->name, command);
        return;
    }
    set_task_file(&link->drive[0], fis);
    if (is_queued && link->drive[0].kind == ATA_DISK) {
        enqueue(p, c, command);
    } else if (p->queued) {
        device_log(p->hba->cfg.log, LOG_GUEST_ERROR, "%s: command 0x%02x among queued ones", p->name, command);
        ata_queued_disturbed(link);
        refuse(p);
    } else {
        p->current = *c;
        p->place = (struct ahci_place){0};
        p->moved = 0;
        p->running = true;
        ata_command(link, command);
    }
}

/* Device control: a software reset is the rise and fall of SRST, in two frames [10.4.1]. */
static void control(struct ahci_port *p, const struct ahci_command *c, uint8_t value, bool clears_busy)
{
    struct ata_link *link = &p->link;
    bool srst = value & CONTROL_SRST, answers = !srst && p->in_reset;
    if (srst) {
        ahci_port_forget(p);
        ata_cancel(link);
        link->drive[0].status = ATA_STATUS_BSY;
    }
    p->in_reset = srst;
    if (clears_busy)
        p->tfd &= ~(uint32_t)ATA_STATUS_BSY;
    if (clears_busy || answers)
        p->ci &= ~(1u << c->slot);
    if (answers) {
        ata_soft_reset(link);
        ahci_port_receive_signature(p);
    }
}

static bool command_get(struct ahci_port *p, unsigned slot, struct ahci_command *c, uint8_t *header, uint8_t *fis)
{
    *c = (struct ahci_command){.slot = (uint8_t)slot, .header = p->list + (gpa_t)HEADER_BYTES * slot};
    if (!ahci_dma(p->hba, c->header, header, HEADER_BYTES, false))
        return false;
    c->regions = (uint16_t)load_le(header + 2, 2);
    c->table = load_le(header + 8, 8) & ~0x7full;
    return ahci_dma(p->hba, c->table + TABLE_FIS, fis, 4 * FIS_DWORDS_MIN, false);
}

static void issue(struct ahci_port *p, unsigned slot)
{
    uint8_t header[HEADER_BYTES], fis[4 * FIS_DWORDS_MIN];
    struct ahci_command c;
    p->cmd = (p->cmd & ~CMD_CCS) | slot << CMD_CCS_SHIFT;
    if (!command_get(p, slot, &c, header, fis)) {
        ahci_port_lost(p);
        return;
    }
    unsigned dwords = header[0] & HEADER_FIS;
    if (fis[0] != FIS_TO_DEVICE || dwords < FIS_DWORDS_MIN || dwords > FIS_DWORDS_MAX) {
        device_log(p->hba->cfg.log, LOG_GUEST_ERROR, "%s: slot %u holds a frame of type 0x%02x and %u dwords", p->name,
                   slot, fis[0], dwords);
        fail(p);
        ahci_port_raise(p, IS_IFS);
        return;
    }
    p->tfd |= ATA_STATUS_BSY;
    if ((p->ssts & 15) != DET_UP) /* nobody is there to answer */
        return;
    if (fis[1] & FIS_COMMAND)
        start_command(p, &c, fis);
    else
        control(p, &c, fis[15], load_le(header, 2) & HEADER_CLEAR);
}

/* The next slot behind the last one that has a command. */
static unsigned next_slot(const struct ahci_port *p)
{
    unsigned slot = (p->cmd & CMD_CCS) >> CMD_CCS_SHIFT;
    do
        slot = (slot + 1) % AHCI_SLOTS;
    while (!(p->ci & 1u << slot));
    return slot;
}

static bool may_fetch(const struct ahci_port *p)
{
    return p->cmd & CMD_ST && p->ci && !p->halted && !p->running && !(p->tfd & (ATA_STATUS_BSY | ATA_STATUS_DRQ));
}

/* Each turn ends a slot's bit in PxCI, or makes the port busy or halt. */
void ahci_port_fetch(struct ahci_port *p)
{
    if (p->fetching)
        return;
    p->fetching = true;
    while (may_fetch(p))
        issue(p, next_slot(p));
    p->fetching = false;
}

void ahci_port_forget(struct ahci_port *p)
{
    p->running = false;
    p->queued = 0;
    timer_cancel(p->hba->cfg.clock, &p->timer);
}
