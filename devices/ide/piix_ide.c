#include "devices/ide/piix_ide.h"

#include "core/stats.h"

#define PCI_COMMAND_MASTER 0x0004
#define IDETIM             0x40

static uint64_t bm_read(void *dev, const struct bus_txn *t)
{
    struct piix_ide *p = dev;
    uint64_t v = 0;
    for (unsigned i = 0; i < t->size; i++) {
        unsigned at = (unsigned)t->offset + i;
        v |= (uint64_t)ide_bm_read(&p->channel[at >> 3 & 1], at & 7) << (8 * i);
    }
    return v;
}

static void bm_write(void *dev, const struct bus_txn *t, uint64_t value)
{
    struct piix_ide *p = dev;
    bool may_start = pci_device_read16(&p->pci, PCI_COMMAND) & PCI_COMMAND_MASTER;
    for (unsigned i = 0; i < t->size; i++) {
        unsigned at = (unsigned)t->offset + i;
        ide_bm_write(&p->channel[at >> 3 & 1], at & 7, (uint8_t)(value >> (8 * i)), may_start);
    }
}

static const struct bus_ops bm_ops = {bm_read, bm_write};

void piix_ide_init(struct piix_ide *p, const struct piix_ide_config *cfg)
{
    struct pci_device *d = &p->pci;
    pci_device_init(d, "piix3_ide", &(struct pci_identity){.vendor = 0x8086, .device = 0x7010, .class_code = 0x010180});
    pci_device_preset(d, PCI_COMMAND, 2, 0, 0x0005);
    pci_device_preset(d, PCI_STATUS, 2, 0x0280, 0);
    pci_device_preset(d, IDETIM, 4, 0x80008000, 0xffffffff);
    pci_device_preset(d, IDETIM + 4, 1, 0, 0xff);
    pci_device_add_bar(d, 4, PCI_BAR_IO, 16, &bm_ops, p);
    pci_bus_attach(cfg->bus, cfg->devfn, d);
    for (unsigned k = 0; k < PIIX_IDE_CHANNELS; k++) {
        struct ide_channel_config channel = {.instance = k,
                                             .clock = cfg->clock,
                                             .irq = cfg->irq[k],
                                             .memory = cfg->memory,
                                             .drive = {cfg->drive[2 * k], cfg->drive[2 * k + 1]},
                                             .log = cfg->log};
        ide_channel_init(&p->channel[k], &channel);
    }
}

void piix_ide_fini(struct piix_ide *p)
{
    if (p->pci.bus)
        pci_bus_detach(&p->pci);
}

void piix_ide_reset(struct piix_ide *p)
{
    pci_device_reset(&p->pci);
    for (unsigned k = 0; k < PIIX_IDE_CHANNELS; k++)
        ide_channel_reset(&p->channel[k]);
}

void piix_ide_add_stats(struct piix_ide *p, struct stats *s)
{
    static const char *const names[PIIX_IDE_CHANNELS][5] = {
        {"ide0.commands", "ide0.interrupts", "ide0.dma", "ide0.pio", "ide0.packets"},
        {"ide1.commands", "ide1.interrupts", "ide1.dma", "ide1.pio", "ide1.packets"}};
    for (unsigned k = 0; k < PIIX_IDE_CHANNELS; k++) {
        const struct ata_counters *c = &p->channel[k].link.counters;
        stats_add(s, names[k][0], "commands", &c->commands);
        stats_add(s, names[k][1], "interrupts", &p->channel[k].interrupts);
        stats_add(s, names[k][2], "bytes", &c->dma_bytes);
        stats_add(s, names[k][3], "bytes", &c->pio_bytes);
        stats_add(s, names[k][4], "packets", &c->packets);
    }
}

void piix_ide_save(const struct piix_ide *p, struct snap_writer *w)
{
    pci_device_save(&p->pci, w);
    for (unsigned k = 0; k < PIIX_IDE_CHANNELS; k++)
        ide_channel_save(&p->channel[k], w);
}

void piix_ide_load(struct piix_ide *p, struct snap_reader *r)
{
    pci_device_load(&p->pci, r);
    for (unsigned k = 0; k < PIIX_IDE_CHANNELS; k++)
        ide_channel_load(&p->channel[k], r);
}
