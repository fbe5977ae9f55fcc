/*
 * A port's state in a snapshot.
 */
#include "core/snapshot.h"
#include "devices/ahci/ahci_internal.h"

static void command_save(const struct ahci_command *c, struct snap_writer *w)
{
    snap_put_u8(w, c->slot);
    snap_put_u16(w, c->regions);
    snap_put_u64(w, c->header);
    snap_put_u64(w, c->table);
}

static void command_load(struct ahci_command *c, struct snap_reader *r)
{
    c->slot = snap_get_u8(r) % AHCI_SLOTS;
    c->regions = snap_get_u16(r);
    c->header = snap_get_u64(r);
    c->table = snap_get_u64(r);
}

static void queued_save(const struct ahci_queued *q, struct snap_writer *w)
{
    const struct ata_queued *c = &q->command;
    const uint8_t bytes[] = {c->tag, c->is_write, c->fua};
    command_save(&q->at, w);
    snap_put_bytes(w, bytes, sizeof bytes);
    snap_put_u64(w, c->sector);
    snap_put_u32(w, c->count);
    snap_put_u64(w, q->due);
}

/* A range beyond the disk's end is the block layer's to refuse. */
static void queued_load(struct ahci_queued *q, struct snap_reader *r)
{
    uint8_t b[3];
    command_load(&q->at, r);
    snap_get_bytes(r, b, sizeof b);
    q->command = (struct ata_queued){.tag = b[0] % ATA_TAGS, .is_write = b[1], .fua = b[2]};
    q->command.sector = snap_get_u64(r);
    q->command.count = snap_get_u32(r);
    q->due = snap_get_u64(r);
}

void ahci_port_save(const struct ahci_port *p, struct snap_writer *w)
{
    const uint32_t registers[] = {p->is, p->ie, p->cmd, p->tfd, p->sig, p->ssts, p->sctl, p->serr, p->sact, p->ci};
    const uint8_t flags[] = {p->signature_waits, p->in_reset, p->running, p->halted};
    snap_put_u64(w, p->list);
    snap_put_u64(w, p->received);
    for (unsigned i = 0; i < ARRAY_LEN(registers); i++)
        snap_put_u32(w, registers[i]);
    snap_put_bytes(w, flags, sizeof flags);
    command_save(&p->current, w);
    snap_put_u32(w, p->place.entry);
    snap_put_u32(w, p->place.used);
    snap_put_u32(w, p->moved);
    snap_put_u32(w, p->queued);
    for (unsigned i = 0; i < p->queued; i++)
        queued_save(&p->queue[i], w);
    timer_save(p->hba->cfg.clock, &p->timer, w);
    ata_link_save(&p->link, w);
}

void ahci_port_load(struct ahci_port *p, struct snap_reader *r)
{
    uint32_t *registers[] = {&p->is, &p->ie, &p->cmd, &p->tfd, &p->sig, &p->ssts, &p->sctl, &p->serr, &p->sact, &p->ci};
    uint8_t flags[4];
    p->list = snap_get_u64(r);
    p->received = snap_get_u64(r);
    for (unsigned i = 0; i < ARRAY_LEN(registers); i++)
        *registers[i] = snap_get_u32(r);
    snap_get_bytes(r, flags, sizeof flags);
    p->signature_waits = flags[0];
    p->in_reset = flags[1];
    p->running = flags[2];
    p->halted = flags[3];
    p->fetching = p->lost = false;
    command_load(&p->current, r);
    p->place.entry = snap_get_u32(r);
    p->place.used = snap_get_u32(r);
    p->moved = snap_get_u32(r);
    p->queued = snap_get_u32(r);
    if (p->queued > (p->link.drive[0].kind == ATA_DISK ? AHCI_SLOTS : 0)) {
        snap_fail(r, "an AHCI port's queue is out of range");
        p->queued = 0;
    }
    for (unsigned i = 0; i < p->queued; i++)
        queued_load(&p->queue[i], r);
    timer_load(p->hba->cfg.clock, &p->timer, r);
    ata_link_load(&p->link, r);
}
