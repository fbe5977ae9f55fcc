#include "devices/pci/pci_host.h"

#include "core/snapshot.h"

#include <string.h>

#define DEVFN_BRIDGE 0x00
#define DEVFN_ISA    0x08
#define DEVFN_PM     0x0b

#define BRIDGE_PAM0    0x59
#define BRIDGE_SMRAM   0x72
#define SMRAM_DEFAULT  0x02
#define SMRAM_WRITABLE 0x78 /* G_SMRAME, D_LCK, D_CLS, D_OPEN */
#define SMRAM_D_LCK    0x10
#define SMRAM_D_OPEN   0x40

#define ISA_PIRQ     0x60
#define PIRQ_DISABLE 0x80
#define PIRQ_ALLOWED 0xdef8u /* 8259 inputs that the bridge can route to: 3-7, 9-12, 14, 15 */

#define PM_BASE    0x40
#define PM_MISC    0x80
#define PM_ENABLE  0x01
#define PM_DEVACTB 0x58
#define PM_APMC_EN 0x02000000u /* in DEVACTB: a write to the APM command port asks for an SMI */
#define PM_PORTS   64
#define PM_PLACE   0 /* in the function's list of BARs: it has none */

/* ---- Configuration mechanism 1 ---- */

/* Where CONFIG_DATA leads: false when the address register is off or names another bus. */
static bool config_target(const struct pci_host *h, const struct bus_txn *t, uint8_t *devfn, unsigned *offset)
{
    if (!(h->address & 0x80000000u) || (h->address >> 16 & 0xff) != 0)
        return false;
    *devfn = (uint8_t)(h->address >> 8);
    *offset = (h->address & 0xfc) + (unsigned)(t->offset & 3);
    return true;
}

static bool is_reset_port(const struct bus_txn *t)
{
    return t->offset == 1 && t->size == 1;
}

static uint64_t host_read(void *dev, const struct bus_txn *t)
{
    struct pci_host *h = dev;
    uint8_t devfn;
    unsigned offset;
    if (is_reset_port(t) && h->cfg.reset_ops)
        return h->cfg.reset_ops->read(h->cfg.reset, &(struct bus_txn){.size = 1, .cpu = t->cpu});
    if (t->offset == 0 && t->size == 4)
        return h->address;
    if (t->offset < 4 || t->size > 4 || !config_target(h, t, &devfn, &offset))
        return ~0ull;
    return pci_bus_config_read(&h->bus, devfn, offset, t->size);
}

static void host_write(void *dev, const struct bus_txn *t, uint64_t value)
{
    struct pci_host *h = dev;
    uint8_t devfn;
    unsigned offset;
    if (is_reset_port(t) && h->cfg.reset_ops)
        h->cfg.reset_ops->write(h->cfg.reset, &(struct bus_txn){.size = 1, .cpu = t->cpu}, value);
    else if (t->offset == 0 && t->size == 4)
        h->address = (uint32_t)value & 0x80fffffc;
    else if (t->offset >= 4 && t->size <= 4 && config_target(h, t, &devfn, &offset))
        pci_bus_config_write(&h->bus, devfn, offset, t->size, (uint32_t)value);
}

const struct bus_ops pci_host_bus_ops = {host_read, host_write};

/* ---- Registers of the three functions that do something ---- */

static bool covers(unsigned offset, unsigned size, unsigned first, unsigned last)
{
    return offset <= last && offset + size > first;
}

/* D_LCK closes D_OPEN and holds the register until a reset. */
static void smram_lock(struct pci_device *d)
{
    bool locked = d->config[BRIDGE_SMRAM] & SMRAM_D_LCK;
    if (locked)
        d->config[BRIDGE_SMRAM] &= (uint8_t)~SMRAM_D_OPEN;
    d->writable[BRIDGE_SMRAM] = locked ? 0 : SMRAM_WRITABLE;
}

static void bridge_written(void *ctx, unsigned offset, unsigned size)
{
    struct pci_host *h = ctx;
    const uint8_t *c = h->bridge.config;
    if (covers(offset, size, BRIDGE_SMRAM, BRIDGE_SMRAM))
        smram_lock(&h->bridge);
    bool pam = covers(offset, size, BRIDGE_PAM0, BRIDGE_PAM0 + PCI_HOST_PAMS - 1);
    if (h->cfg.pam_changed && (pam || covers(offset, size, BRIDGE_SMRAM, BRIDGE_SMRAM)))
        h->cfg.pam_changed(h->cfg.pam_ctx, c + BRIDGE_PAM0, c[BRIDGE_SMRAM]);
}

static void isa_written(void *ctx, unsigned offset, unsigned size)
{
    struct pci_host *h = ctx;
    if (!covers(offset, size, ISA_PIRQ, ISA_PIRQ + 3))
        return;
    for (unsigned i = 0; i < ISA_IRQ_PIRQS; i++) {
        uint8_t v = h->isa.config[ISA_PIRQ + i], irq = v & 0x0f;
        bool routed = !(v & PIRQ_DISABLE) && (PIRQ_ALLOWED >> irq & 1);
        isa_irq_route_pirq(h->cfg.isa, i, routed ? irq : ISA_IRQ_UNROUTED);
    }
}

static void pm_written(void *ctx, unsigned offset, unsigned size)
{
    struct pci_host *h = ctx;
    bool base = covers(offset, size, PM_BASE, PM_BASE + 3);
    if (covers(offset, size, PM_DEVACTB, PM_DEVACTB + 3) && h->cfg.apmc_enable)
        h->cfg.apmc_enable(h->cfg.pm, pci_device_read32(&h->pm, PM_DEVACTB) & PM_APMC_EN);
    if (!h->cfg.pm_ops || !(base || covers(offset, size, PM_MISC, PM_MISC)))
        return;
    uint64_t wanted = pci_device_read32(&h->pm, PM_BASE) & 0xffc0;
    pci_device_place(&h->pm, PM_PLACE, h->pm.config[PM_MISC] & PM_ENABLE && wanted ? wanted : PCI_UNMAPPED);
}

void pci_host_set_pm_base(struct pci_host *h, uint16_t port)
{
    pci_bus_config_write(&h->bus, DEVFN_PM, PM_BASE, 4, port);
    pci_bus_config_write(&h->bus, DEVFN_PM, PM_MISC, 1, PM_ENABLE);
    pci_bus_config_write(&h->bus, DEVFN_PM, PCI_INTERRUPT_LINE, 1, 9);
}

void pci_host_set_pirq(struct pci_host *h, const uint8_t irq[ISA_IRQ_PIRQS])
{
    for (unsigned i = 0; i < ISA_IRQ_PIRQS; i++)
        pci_bus_config_write(&h->bus, DEVFN_ISA, ISA_PIRQ + i, 1, irq[i]);
}

/* ---- Life ---- */

static void make_bridge(struct pci_host *h)
{
    struct pci_device *d = &h->bridge;
    pci_device_init(d, "i440fx",
                    &(struct pci_identity){.vendor = 0x8086,
                                           .device = 0x1237,
                                           .subsystem_vendor = 0x1af4, /* by which firmware knows the virtual board */
                                           .subsystem = 0x1100,
                                           .class_code = 0x060000,
                                           .revision = 2});
    pci_device_preset(d, PCI_COMMAND, 2, 0x0006, 0x0140); /* memory and bus mastering are fixed */
    pci_device_preset(d, BRIDGE_PAM0, 1, 0, 0xf0);
    for (unsigned i = 1; i < PCI_HOST_PAMS; i++)
        pci_device_preset(d, BRIDGE_PAM0 + i, 1, 0, 0xff);
    pci_device_preset(d, BRIDGE_SMRAM, 1, SMRAM_DEFAULT, SMRAM_WRITABLE);
    d->config_written = bridge_written;
    d->ctx = h;
    pci_bus_attach(&h->bus, DEVFN_BRIDGE, d);
}

static void make_isa(struct pci_host *h)
{
    struct pci_device *d = &h->isa;
    pci_device_init(
        d, "piix3",
        &(struct pci_identity){.vendor = 0x8086, .device = 0x7000, .class_code = 0x060100, .multifunction = true});
    pci_device_preset(d, PCI_COMMAND, 2, 0x0007, 0x0108); /* positive decode of I/O and memory is fixed */
    pci_device_preset(d, 0x4c, 1, 0x4d, 0xff);            /* I/O recovery */
    pci_device_preset(d, 0x4e, 2, 0x0003, 0xffff);        /* X-bus chip select */
    pci_device_preset(d, 0x69, 1, 0x02, 0xfe);            /* top of memory */
    for (unsigned i = 0; i < ISA_IRQ_PIRQS; i++)
        pci_device_preset(d, ISA_PIRQ + i, 1, PIRQ_DISABLE, 0x8f);
    d->config_written = isa_written;
    d->ctx = h;
    pci_bus_attach(&h->bus, DEVFN_ISA, d);
}

static void make_pm(struct pci_host *h)
{
    struct pci_device *d = &h->pm;
    pci_device_init(d, "piix4_pm",
                    &(struct pci_identity){
                        .vendor = 0x8086, .device = 0x7113, .class_code = 0x068000, .revision = 3, .interrupt_pin = 1});
    pci_device_preset(d, PCI_STATUS, 2, 0x0280, 0);
    pci_device_preset(d, PM_BASE, 4, 0x00000001, 0x0000ffc0);
    pci_device_preset(d, PM_DEVACTB, 4, 0, PM_APMC_EN);
    pci_device_preset(d, PM_MISC, 1, 0, PM_ENABLE);
    if (h->cfg.pm_ops)
        pci_device_add_bar(d, PM_PLACE, PCI_BAR_OWN, PM_PORTS, h->cfg.pm_ops, h->cfg.pm);
    d->config_written = pm_written;
    d->ctx = h;
    pci_bus_attach(&h->bus, DEVFN_PM, d);
}

void pci_host_init(struct pci_host *h, const struct pci_host_config *cfg)
{
    struct irq_line pirq[ISA_IRQ_PIRQS];
    memset(h, 0, sizeof(*h));
    h->cfg = *cfg;
    for (unsigned i = 0; i < ISA_IRQ_PIRQS; i++)
        pirq[i] = isa_irq_pirq_line(cfg->isa, i);
    pci_bus_init(&h->bus, cfg->io, cfg->mmio, pirq, cfg->log);
    make_bridge(h);
    make_isa(h);
    make_pm(h);
}

void pci_host_fini(struct pci_host *h)
{
    pci_device_place(&h->pm, PM_PLACE, PCI_UNMAPPED);
}

void pci_host_reset(struct pci_host *h)
{
    h->address = 0;
    pci_device_reset(&h->bridge);
    pci_device_reset(&h->isa);
    pci_device_reset(&h->pm);
}

void pci_host_save(const struct pci_host *h, struct snap_writer *w)
{
    snap_begin(w, "pci_host", 1);
    snap_put_u32(w, h->address);
    snap_end(w);
    pci_device_save(&h->bridge, w);
    pci_device_save(&h->isa, w);
    pci_device_save(&h->pm, w);
}

void pci_host_load(struct pci_host *h, struct snap_reader *r)
{
    if (!snap_expect(r, "pci_host", 1))
        return;
    h->address = snap_get_u32(r) & 0x80fffffc;
    pci_device_load(&h->bridge, r);
    pci_device_load(&h->isa, r);
    pci_device_load(&h->pm, r);
}
