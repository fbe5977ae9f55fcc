/*
 * Registers, interrupts, state.
 */
#include "devices/net/e1000_internal.h"

#include "core/alloc.h"
#include "core/snapshot.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BAR_REGISTERS 0
#define BAR_IO        1
#define IO_PORTS      64
#define IO_ADDRESS    0
#define IO_DATA       4

/* ---- what the other files use ---- */

bool e1000_dma(struct e1000 *n, gpa_t gpa, void *buf, size_t len, bool write)
{
    if (guest_mem_dma(&n->cfg.memory, gpa, buf, len, write))
        return true;
    device_log(n->cfg.log, LOG_GUEST_ERROR, "e1000: no memory to %s at 0x%llx", write ? "write" : "read",
               (unsigned long long)gpa);
    return false;
}

static void update_interrupt(struct e1000 *n)
{
    pci_device_set_intx(&n->pci, *e1000_reg(n, E_ICR) & *e1000_reg(n, E_IMS));
}

void e1000_cause(struct e1000 *n, uint32_t bits)
{
    uint32_t *icr = e1000_reg(n, E_ICR), fresh = bits & ~*icr & *e1000_reg(n, E_IMS);
    *icr |= bits & INT_ALL;
    if (pci_msi_is_on(&n->pci)) {
        if (fresh)
            pci_msi_send(&n->pci, 0);
    } else {
        update_interrupt(n);
    }
}

void e1000_kick(struct e1000 *n)
{
    if (!timer_is_armed(&n->timer))
        timer_arm(n->cfg.clock, &n->timer, clock_now(n->cfg.clock) + E1000_LATENCY);
}

static void serve(void *opaque)
{
    struct e1000 *n = opaque;
    if (!(pci_device_read16(&n->pci, PCI_COMMAND) & PCI_COMMAND_MASTER))
        return;
    e1000_transmit(n);
    e1000_deliver(n);
}

void e1000_count(struct e1000 *n, unsigned at, uint32_t by)
{
    uint32_t *c = e1000_reg(n, at);
    *c = *c > UINT32_MAX - by ? UINT32_MAX : *c + by;
}

void e1000_count64(struct e1000 *n, unsigned at, uint32_t by)
{
    uint32_t *c = e1000_reg(n, at);
    uint64_t sum = (c[0] | (uint64_t)c[1] << 32) + by;
    c[0] = (uint32_t)sum;
    c[1] = (uint32_t)(sum >> 32);
}

/* ---- registers ---- */

/* Back to what a reset of the chip leaves; the address comes from the EEPROM, the link is there. */
static void chip_reset(struct e1000 *n)
{
    const uint8_t *mac = n->cfg.mac;
    timer_cancel(n->cfg.clock, &n->timer);
    memset(n->reg, 0, sizeof n->reg);
    *e1000_reg(n, E_CTRL) = 0x00000a09; /* full duplex, 1000 Mb/s */
    *e1000_reg(n, E_STATUS) = STATUS_FD | STATUS_LU | STATUS_SPEED_1G;
    *e1000_reg(n, E_LEDCTL) = 0x07068302;
    *e1000_reg(n, E_PBA) = 0x00100030;
    *e1000_reg(n, E_VET) = 0x8100;
    *e1000_reg(n, E_RA) = (uint32_t)e1000_le(mac, 4);
    *e1000_reg(n, E_RA + 4) = (uint32_t)e1000_le(mac + 4, 2) | RA_VALID;
    n->eeprom.pins = n->eeprom.shift = n->eeprom.out = 0;
    n->eeprom.bits = n->eeprom.left = 0;
    n->len = 0;
    n->packet_open = n->segments = false;
    n->options = 0;
    memset(&n->context, 0, sizeof n->context);
    memset(&n->offload, 0, sizeof n->offload);
    nic_fifo_clear(&n->fifo);
    e1000_phy_reset(n);
    update_interrupt(n);
}

static bool is_stats(unsigned at)
{
    return at >= E_STATS && at < E_STATS_END;
}

/* Registers at the addresses that the 82542 had for them, which drivers of it use still. */
static unsigned alias(unsigned at)
{
    static const uint16_t pairs[][2] = {{0x0110, E_RDBAL}, {0x0114, E_RDBAH}, {0x0118, E_RDLEN}, {0x0120, E_RDH},
                                        {0x0128, E_RDT},   {0x0420, E_TDBAL}, {0x0424, E_TDBAH}, {0x0428, E_TDLEN},
                                        {0x0430, E_TDH},   {0x0438, E_TDT}};
    if (at >= 0x0040 && at < 0x00c0)
        return E_RA + (at - 0x0040);
    if (at >= 0x0200 && at < 0x0400)
        return E_MTA + (at - 0x0200);
    if (at >= 0x0600 && at < 0x0800)
        return E_VFTA + (at - 0x0600);
    for (size_t i = 0; i < ARRAY_LEN(pairs); i++)
        if (pairs[i][0] == at)
            return pairs[i][1];
    return at;
}

static uint32_t read32(struct e1000 *n, unsigned at)
{
    at = alias(at);
    if (at >= E_END)
        return 0;
    uint32_t value = *e1000_reg(n, at);
    switch (at) {
    case E_EECD:
        return e1000_eecd_read(n);
    case E_ICR:
        value |= value & *e1000_reg(n, E_IMS) ? INT_ASSERT : 0;
        *e1000_reg(n, E_ICR) = 0;
        update_interrupt(n);
        return value;
    case E_ICS:
    case E_IMC:
        return 0;
    default:
        if (is_stats(at)) /* counters are read once */
            *e1000_reg(n, at) = 0;
        return value;
    }
}

static void write_ctrl(struct e1000 *n, uint32_t value)
{
    if (value & CTRL_RST) {
        chip_reset(n);
        return;
    }
    if (value & CTRL_PHY_RST)
        e1000_phy_reset(n);
    *e1000_reg(n, E_CTRL) = value & ~(CTRL_RST | CTRL_PHY_RST);
}

static void write_masks(struct e1000 *n, unsigned at, uint32_t value)
{
    uint32_t *ims = e1000_reg(n, E_IMS), old = *ims;
    *ims = at == E_IMS ? old | (value & INT_ALL) : old & ~value;
    if (pci_msi_is_on(&n->pci) && *e1000_reg(n, E_ICR) & *ims & ~old)
        pci_msi_send(&n->pci, 0);
    else if (!pci_msi_is_on(&n->pci))
        update_interrupt(n);
}

static void write_ring(struct e1000 *n, unsigned at, uint32_t value)
{
    static const uint32_t length_mask = (RING_MAX - 1) & ~0x7fu;
    bool is_base = at == E_RDBAL || at == E_TDBAL, is_length = at == E_RDLEN || at == E_TDLEN;
    *e1000_reg(n, at) = is_base ? value & ~15u : is_length ? value & length_mask : value & 0xffff;
    if (at == E_TDT || at == E_RDT)
        e1000_kick(n);
}

static void write32(struct e1000 *n, unsigned at, uint32_t value)
{
    at = alias(at);
    if (at >= E_END)
        return;
    switch (at) {
    case E_CTRL:
        write_ctrl(n, value);
        break;
    case E_STATUS:
        break;
    case E_EECD:
        e1000_eecd_write(n, value);
        break;
    case E_EERD:
        e1000_eerd_write(n, value);
        break;
    case E_MDIC:
        e1000_mdic_write(n, value);
        break;
    case E_ICR:
        *e1000_reg(n, E_ICR) &= ~value;
        update_interrupt(n);
        break;
    case E_ICS:
        e1000_cause(n, value);
        break;
    case E_IMS:
    case E_IMC:
        write_masks(n, at, value);
        break;
    case E_RDBAL:
    case E_RDLEN:
    case E_RDH:
    case E_RDT:
    case E_TDBAL:
    case E_TDLEN:
    case E_TDH:
    case E_TDT:
        write_ring(n, at, value);
        break;
    case E_RCTL:
        *e1000_reg(n, at) = value;
        e1000_kick(n);
        break;
    default:
        if (!is_stats(at))
            *e1000_reg(n, at) = value;
    }
}

/* Registers are dwords; a smaller read is a part of one, a smaller write is not defined. */
static uint64_t registers_read(void *dev, const struct bus_txn *t)
{
    struct e1000 *n = dev;
    unsigned at = (unsigned)t->offset & ~3u;
    uint64_t value = read32(n, at);
    if (t->size == 8 || (t->offset & 3) + t->size > 4)
        value |= (uint64_t)read32(n, at + 4) << 32;
    return value >> (8 * (t->offset & 3));
}

static void registers_write(void *dev, const struct bus_txn *t, uint64_t value)
{
    struct e1000 *n = dev;
    if (t->offset & 3 || t->size < 4) {
        device_log(n->cfg.log, LOG_GUEST_ERROR, "e1000: a write of %u bytes at 0x%llx", t->size,
                   (unsigned long long)t->offset);
        return;
    }
    write32(n, (unsigned)t->offset, (uint32_t)value);
    if (t->size == 8)
        write32(n, (unsigned)t->offset + 4, (uint32_t)(value >> 32));
}

static const struct bus_ops registers_bus_ops = {registers_read, registers_write};

/* IOADDR and IODATA: the registers for those who have ports only. */
static uint64_t io_read(void *dev, const struct bus_txn *t)
{
    struct e1000 *n = dev;
    if (t->offset == IO_ADDRESS && t->size == 4)
        return n->io_address;
    return t->offset == IO_DATA && t->size == 4 ? read32(n, n->io_address & ~3u) : 0;
}

static void io_write(void *dev, const struct bus_txn *t, uint64_t value)
{
    struct e1000 *n = dev;
    if (t->size != 4)
        return;
    if (t->offset == IO_ADDRESS)
        n->io_address = (uint32_t)value & (E1000_REGISTER_BYTES - 1);
    else if (t->offset == IO_DATA)
        write32(n, n->io_address & ~3u, (uint32_t)value);
}

static const struct bus_ops io_bus_ops = {io_read, io_write};

/* ---- life ---- */

void e1000_init(struct e1000 *n, const struct e1000_config *cfg)
{
    memset(n, 0, sizeof *n);
    n->cfg = *cfg;
    n->data = alloc_zeroed(1, E1000_FRAME_MAX);
    nic_fifo_init(&n->fifo);
    timer_init_work(&n->timer, serve, n);
    pci_device_init(&n->pci, "e1000",
                    &(struct pci_identity){.vendor = 0x8086,
                                           .device = 0x100e,
                                           .subsystem_vendor = 0x8086,
                                           .subsystem = 0x001e,
                                           .class_code = 0x020000,
                                           .revision = 2,
                                           .interrupt_pin = 1});
    pci_device_add_bar(&n->pci, BAR_REGISTERS, PCI_BAR_MEM32, E1000_REGISTER_BYTES, &registers_bus_ops, n);
    pci_device_add_bar(&n->pci, BAR_IO, PCI_BAR_IO, IO_PORTS, &io_bus_ops, n);
    pci_msi_add(&n->pci, 1);
    e1000_eeprom_init(n);
    chip_reset(n);
}

void e1000_fini(struct e1000 *n)
{
    nic_fifo_fini(&n->fifo);
    free(n->data);
    n->data = NULL;
}

void e1000_reset(struct e1000 *n)
{
    chip_reset(n);
    n->io_address = 0;
    pci_device_reset(&n->pci);
}

/* ---- state ---- */

static void section_name(const struct e1000 *n, char name[SNAP_NAME_MAX + 1])
{
    snprintf(name, SNAP_NAME_MAX + 1, "e1000.%02x.%u", n->pci.devfn >> 3, n->pci.devfn & 7u);
}

static void context_save(const struct e1000_context *c, struct snap_writer *w)
{
    const uint8_t bytes[] = {c->ip_start, c->ip_offset, c->tcp_start, c->tcp_offset, c->command, c->header};
    snap_put_bytes(w, bytes, sizeof bytes);
    snap_put_u16(w, c->ip_end);
    snap_put_u16(w, c->tcp_end);
    snap_put_u32(w, c->payload);
    snap_put_u16(w, c->segment);
}

static void context_load(struct e1000_context *c, struct snap_reader *r)
{
    uint8_t b[6];
    snap_get_bytes(r, b, sizeof b);
    *c = (struct e1000_context){
        .ip_start = b[0], .ip_offset = b[1], .tcp_start = b[2], .tcp_offset = b[3], .command = b[4], .header = b[5]};
    c->ip_end = snap_get_u16(r);
    c->tcp_end = snap_get_u16(r);
    c->payload = snap_get_u32(r);
    c->segment = snap_get_u16(r);
}

/* Registers are mostly zero: index and value of those that are not. */
static void registers_save(const struct e1000 *n, struct snap_writer *w)
{
    for (uint32_t i = 0; i < ARRAY_LEN(n->reg); i++)
        if (n->reg[i]) {
            snap_put_u32(w, i);
            snap_put_u32(w, n->reg[i]);
        }
    snap_put_u32(w, ARRAY_LEN(n->reg));
}

static void registers_load(struct e1000 *n, struct snap_reader *r)
{
    memset(n->reg, 0, sizeof n->reg);
    while (!snap_reader_error(r)) {
        uint32_t i = snap_get_u32(r);
        if (i >= ARRAY_LEN(n->reg))
            break;
        n->reg[i] = snap_get_u32(r);
    }
}

void e1000_save(const struct e1000 *n, struct snap_writer *w)
{
    char name[SNAP_NAME_MAX + 1];
    section_name(n, name);
    pci_device_save(&n->pci, w);
    snap_begin(w, name, 1);
    registers_save(n, w);
    for (unsigned i = 0; i < E1000_PHY_REGISTERS; i++)
        snap_put_u16(w, n->phy[i]);
    snap_put_u32(w, n->eeprom.pins);
    snap_put_u32(w, n->eeprom.shift);
    snap_put_u8(w, n->eeprom.bits);
    snap_put_u8(w, n->eeprom.left);
    snap_put_u32(w, n->eeprom.out);
    context_save(&n->context, w);
    context_save(&n->offload, w);
    snap_put_u32(w, n->io_address);
    snap_put_u8(w, n->packet_open);
    snap_put_u8(w, n->segments);
    snap_put_u8(w, n->options);
    snap_put_u32(w, n->len);
    snap_put_bytes(w, n->data, n->len);
    timer_save(n->cfg.clock, &n->timer, w);
    nic_fifo_save(&n->fifo, w);
    snap_end(w);
}

void e1000_load(struct e1000 *n, struct snap_reader *r)
{
    char name[SNAP_NAME_MAX + 1];
    section_name(n, name);
    pci_device_load(&n->pci, r);
    if (!snap_expect(r, name, 1))
        return;
    registers_load(n, r);
    for (unsigned i = 0; i < E1000_PHY_REGISTERS; i++)
        n->phy[i] = snap_get_u16(r);
    n->eeprom.pins = snap_get_u32(r);
    n->eeprom.shift = snap_get_u32(r);
    n->eeprom.bits = snap_get_u8(r);
    n->eeprom.left = snap_get_u8(r);
    n->eeprom.out = snap_get_u32(r);
    context_load(&n->context, r);
    context_load(&n->offload, r);
    n->io_address = snap_get_u32(r) & (E1000_REGISTER_BYTES - 1);
    n->packet_open = snap_get_u8(r) != 0;
    n->segments = snap_get_u8(r) != 0;
    n->options = snap_get_u8(r);
    n->len = snap_get_u32(r);
    if (n->len > E1000_FRAME_MAX) {
        snap_fail(r, "%s: a packet of %u bytes", name, n->len);
        n->len = 0;
        return;
    }
    snap_get_bytes(r, n->data, n->len);
    timer_load(n->cfg.clock, &n->timer, r);
    nic_fifo_load(&n->fifo, r);
}
