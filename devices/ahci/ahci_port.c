/*
 * A port: its registers, the link to the drive, resets, and the frames that it receives.
 */
#include "core/bytes.h"
#include "devices/ahci/ahci_internal.h"

#include <stdio.h>

#define SPEED_MAX  3u /* 6 Gb/s */
#define SSTS_POWER 0x100u

#define CMD_ALWAYS (CMD_SUD | CMD_POD)
#define CMD_WRITES (CMD_ST | CMD_FRE | CMD_ATAPI | CMD_DLAE)

static bool has_drive(const struct ahci_port *p)
{
    return p->link.drive[0].kind != ATA_NONE;
}

/* ---- interrupts ---- */

uint32_t ahci_port_status(const struct ahci_port *p)
{
    uint32_t is = p->is;
    is |= p->serr & SERR_DIAG_X ? IS_PCS : 0;
    is |= p->serr & SERR_DIAG_N ? IS_PRCS : 0;
    return is;
}

void ahci_port_raise(struct ahci_port *p, uint32_t bits)
{
    p->is |= bits;
    ahci_update(p->hba, bits & p->ie);
}

void ahci_port_lost(struct ahci_port *p)
{
    p->halted = true;
    ata_cancel(&p->link);
    ahci_port_forget(p);
    ahci_port_raise(p, IS_HBFS);
}

/* ---- frames from the drive ---- */

void ahci_port_receive(struct ahci_port *p, unsigned offset, const uint8_t *fis, size_t len)
{
    if (p->cmd & CMD_FRE && !ahci_dma(p->hba, p->received + offset, (void *)(uintptr_t)fis, len, true))
        ahci_port_lost(p);
}

void ahci_port_receive_registers(struct ahci_port *p, bool interrupt)
{
    const struct ata_drive *d = ata_selected(&p->link);
    uint8_t fis[20] = {FIS_TO_HOST, interrupt ? FIS_INTERRUPT : 0, d->status, d->error};
    for (unsigned i = 0; i < 3; i++) {
        fis[4 + i] = d->reg.lba[i];
        fis[8 + i] = d->previous.lba[i];
    }
    fis[7] = d->select;
    fis[12] = d->reg.count;
    fis[13] = d->previous.count;
    p->tfd = d->status | (uint32_t)d->error << 8;
    ahci_port_receive(p, RECEIVED_TO_HOST, fis, sizeof fis);
}

/* Without FIS Receive Enable the frame waits at the link, and the registers show no drive yet. */
void ahci_port_receive_signature(struct ahci_port *p)
{
    const struct ata_registers *r = &p->link.drive[0].reg;
    p->signature_waits = !(p->cmd & CMD_FRE);
    if (p->signature_waits)
        return;
    p->sig = (uint32_t)r->lba[2] << 24 | (uint32_t)r->lba[1] << 16 | (uint32_t)r->lba[0] << 8 | r->count;
    ahci_port_receive_registers(p, false);
}

/* ---- the link ---- */

static void link_down(struct ahci_port *p, unsigned det)
{
    ata_cancel(&p->link);
    ahci_port_forget(p);
    p->ssts = det;
    p->tfd = TFD_NONE;
    p->sig = UINT32_MAX;
    p->signature_waits = p->in_reset = false;
}

/* The drive answers a COMRESET: connection and PHY have changed, and it says what it is. */
static void link_up(struct ahci_port *p)
{
    unsigned limit = p->sctl >> 4 & 15;
    link_down(p, DET_NONE);
    if (!has_drive(p))
        return;
    p->ssts = DET_UP | (limit && limit < SPEED_MAX ? limit : SPEED_MAX) << 4 | SSTS_POWER;
    p->serr |= SERR_DIAG_X | SERR_DIAG_N;
    ata_soft_reset(&p->link);
    ahci_port_receive_signature(p);
}

static void write_sctl(struct ahci_port *p, uint32_t value)
{
    unsigned old = p->sctl & 15, det = value & 15;
    p->sctl = value & 0xfff;
    if (det == DET_RESET || det == DET_OFFLINE)
        link_down(p, det == DET_OFFLINE ? DET_OFFLINE : DET_NONE);
    else if (old == DET_RESET || old == DET_OFFLINE)
        link_up(p);
    ahci_update(p->hba, true);
    ahci_port_fetch(p);
}

/* ---- registers ---- */

/* Stopping forgets all that was issued. The drive is not told: what it was doing is over with a reset alone. */
static void stop(struct ahci_port *p)
{
    p->ci = p->sact = 0;
    p->halted = false;
    p->cmd &= ~(CMD_CR | CMD_CCS);
    if (p->running)
        ata_cancel(&p->link);
    ahci_port_forget(p);
}

static void write_cmd(struct ahci_port *p, uint32_t value)
{
    uint32_t old = p->cmd;
    p->cmd = (old & (CMD_CR | CMD_CCS)) | CMD_ALWAYS | (value & CMD_WRITES) | (value & CMD_FRE ? CMD_FR : 0);
    if (!(value & CMD_ST) && old & CMD_ST)
        stop(p);
    if (value & CMD_CLO && !(p->cmd & CMD_ST))
        p->tfd &= ~(uint32_t)(ATA_STATUS_BSY | ATA_STATUS_DRQ);
    if (p->cmd & CMD_ST)
        p->cmd |= CMD_CR;
    if (p->signature_waits && p->cmd & CMD_FRE)
        ahci_port_receive_signature(p);
    ahci_port_fetch(p);
}

static void put_half(uint64_t *at, bool high, uint32_t value)
{
    *at = high ? (*at & UINT32_MAX) | (uint64_t)value << 32 : (*at & ~(uint64_t)UINT32_MAX) | value;
}

uint32_t ahci_port_read(const struct ahci_port *p, unsigned reg)
{
    switch (reg) {
    case PX_CLB:
        return (uint32_t)p->list;
    case PX_CLBU:
        return (uint32_t)(p->list >> 32);
    case PX_FB:
        return (uint32_t)p->received;
    case PX_FBU:
        return (uint32_t)(p->received >> 32);
    case PX_IS:
        return ahci_port_status(p);
    case PX_IE:
        return p->ie;
    case PX_CMD:
        return p->cmd;
    case PX_TFD:
        return p->tfd;
    case PX_SIG:
        return p->sig;
    case PX_SSTS:
        return p->ssts;
    case PX_SCTL:
        return p->sctl;
    case PX_SERR:
        return p->serr;
    case PX_SACT:
        return p->sact;
    case PX_CI:
        return p->ci;
    default:
        return 0;
    }
}

void ahci_port_write(struct ahci_port *p, unsigned reg, uint32_t value)
{
    switch (reg) {
    case PX_CLB:
        put_half(&p->list, false, value & ~0x3ffu);
        break;
    case PX_FB:
        put_half(&p->received, false, value & ~0xffu);
        break;
    case PX_CLBU:
    case PX_FBU:
        put_half(reg == PX_CLBU ? &p->list : &p->received, true, value);
        break;
    case PX_IS:
        p->is &= ~(value & IS_CLEARS);
        ahci_update(p->hba, false);
        break;
    case PX_IE:
        p->ie = value & IE_ALL;
        ahci_update(p->hba, true);
        break;
    case PX_CMD:
        write_cmd(p, value);
        break;
    case PX_SCTL:
        write_sctl(p, value);
        break;
    case PX_SERR:
        p->serr &= ~value;
        ahci_update(p->hba, false);
        break;
    case PX_SACT:
        p->sact |= p->cmd & CMD_ST ? value : 0;
        break;
    case PX_CI:
        p->ci |= p->cmd & CMD_ST ? value : 0;
        ahci_port_fetch(p);
        break;
    default:
        break;
    }
}

/* ---- life ---- */

void ahci_port_init(struct ahci_port *p, struct ahci *a, unsigned number)
{
    p->hba = a;
    p->number = number;
    snprintf(p->name, sizeof p->name, "ahci port %u", number);
    timer_init_work(&p->timer, ahci_queue_serve, p);
    ata_link_init(&p->link, &(struct ata_link_config){.name = p->name,
                                                      .clock = a->cfg.clock,
                                                      .is_serial = true,
                                                      .drive = {a->cfg.drive[number]},
                                                      .ops = &ahci_host_ops,
                                                      .host = p,
                                                      .log = a->cfg.log});
}

void ahci_port_reset(struct ahci_port *p)
{
    ahci_port_forget(p);
    ata_link_reset(&p->link);
    p->is = p->ie = p->sctl = p->serr = p->sact = p->ci = 0;
    p->cmd = CMD_ALWAYS;
    p->halted = false;
    link_up(p);
}
