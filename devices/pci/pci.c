#include "devices/pci/pci.h"

#include "core/bytes.h"
#include "core/snapshot.h"
#include "devices/pci/pci_msi.h"

#include <stdio.h>
#include <string.h>

#define ROM_ENABLE 1u
#define ROM_MIN    0x800u
#define ROM_MAX    (16u << 20)

/* ---- Little-endian fields of config space ---- */

uint16_t pci_device_read16(const struct pci_device *d, unsigned offset)
{
    return (uint16_t)load_le(d->config + offset, 2);
}

uint32_t pci_device_read32(const struct pci_device *d, unsigned offset)
{
    return load_le(d->config + offset, 4);
}

/* ---- INTx ---- */

/* INTx rotates with the slot, so that slot 1's INTA is PIRQA. */
static unsigned pirq_of(const struct pci_device *d)
{
    return ((d->devfn >> 3) - 1u + d->config[PCI_INTERRUPT_PIN] - 1u) & 3;
}

static bool drives_intx(const struct pci_device *d)
{
    return d->intx && d->config[PCI_INTERRUPT_PIN] && !(pci_device_read16(d, PCI_COMMAND) & PCI_COMMAND_NO_INTX);
}

static void drive_pirq(struct pci_bus *b, unsigned pirq)
{
    bool level = false;
    for (unsigned i = 0; i < ARRAY_LEN(b->device); i++)
        if (b->device[i] && drives_intx(b->device[i]) && pirq_of(b->device[i]) == pirq)
            level = true;
    irq_set(&b->pirq[pirq], level);
}

static void update_intx(struct pci_device *d)
{
    if (!d->config[PCI_INTERRUPT_PIN])
        return;
    d->config[PCI_STATUS] = (d->config[PCI_STATUS] & (uint8_t)~PCI_STATUS_INTX) | (d->intx ? PCI_STATUS_INTX : 0);
    if (d->bus)
        drive_pirq(d->bus, pirq_of(d));
}

void pci_device_set_intx(struct pci_device *d, bool level)
{
    if (d->intx == level)
        return;
    d->intx = level;
    update_intx(d);
}

/* ---- BARs ---- */

static struct bus *bus_of(const struct pci_device *d, const struct pci_bar *bar)
{
    return bar->kind == PCI_BAR_IO || bar->kind == PCI_BAR_OWN ? d->bus->io : d->bus->mmio;
}

static unsigned bar_register(unsigned n)
{
    return n == PCI_ROM ? PCI_ROM_BAR : PCI_BAR0 + 4 * n;
}

/* Where the guest wants the BAR now, or PCI_UNMAPPED. */
static uint64_t wanted_address(const struct pci_device *d, unsigned n)
{
    const struct pci_bar *bar = &d->bar[n];
    if (bar->kind == PCI_BAR_OWN)
        return bar->own;
    uint16_t need = bar->kind == PCI_BAR_IO ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY;
    if (bar->kind == PCI_BAR_NONE || !(pci_device_read16(d, PCI_COMMAND) & need))
        return PCI_UNMAPPED;
    uint64_t base = pci_device_read32(d, bar_register(n)), limit = bar->kind == PCI_BAR_IO ? 0x10000 : 1ull << 32;
    if (bar->kind == PCI_BAR_ROM && !(base & ROM_ENABLE))
        return PCI_UNMAPPED;
    if (bar->kind == PCI_BAR_MEM64) {
        base |= (uint64_t)pci_device_read32(d, PCI_BAR0 + 4 * n + 4) << 32;
        limit = 1ull << 52;
    }
    base &= ~(bar->size - 1);
    /* Zero is "not assigned"; the top is where sizing with all ones leads. */
    return base == 0 || base >= limit || base + bar->size >= limit ? PCI_UNMAPPED : base;
}

static void unmap_bar(struct pci_device *d, struct pci_bar *bar)
{
    if (bar->mapped == PCI_UNMAPPED)
        return;
    bus_remove(bus_of(d, bar), bar->mapped, bar->dev);
    bar->mapped = PCI_UNMAPPED;
}

static void map_bar(struct pci_device *d, unsigned n, uint64_t address)
{
    struct pci_bar *bar = &d->bar[n];
    enum bus_error e = bus_add(bus_of(d, bar), address, bar->size, bar->ops, bar->dev, d->name);
    if (e == BUS_OK)
        bar->mapped = address;
    else if (bar->refused != address)
        device_log(d->bus->log, LOG_GUEST_ERROR, "%s: BAR %u at 0x%llx is not mapped: %s", d->name, n,
                   (unsigned long long)address, bus_error_text(e));
    bar->refused = e == BUS_OK ? PCI_UNMAPPED : address;
}

#define PLACES (PCI_ROM + 1)

static bool maps_are_right(const struct pci_bus *b)
{
    for (unsigned i = 0; i < ARRAY_LEN(b->device); i++)
        for (unsigned n = 0; b->device[i] && n < PLACES; n++)
            if (b->device[i]->bar[n].mapped != wanted_address(b->device[i], n))
                return false;
    return true;
}

/* Makes all maps anew, in order. */
static void remake_maps(struct pci_bus *b)
{
    for (unsigned pass = 0; pass < 2; pass++)
        for (unsigned i = 0; i < ARRAY_LEN(b->device) * PLACES; i++) {
            struct pci_device *d = b->device[i / PLACES];
            unsigned n = i % PLACES;
            uint64_t address = d ? wanted_address(d, n) : PCI_UNMAPPED;
            if (!d)
                continue;
            if (pass == 0) {
                d->bar[n].before = d->bar[n].mapped;
                unmap_bar(d, &d->bar[n]);
            } else if (address != PCI_UNMAPPED) {
                map_bar(d, n, address);
            } else {
                d->bar[n].refused = PCI_UNMAPPED;
            }
        }
}

static void update_maps(struct pci_bus *b)
{
    if (maps_are_right(b))
        return;
    remake_maps(b);
    for (unsigned i = 0; i < ARRAY_LEN(b->device); i++) {
        struct pci_device *d = b->device[i];
        bool moved = false;
        for (unsigned n = 0; d && n < PLACES; n++)
            moved |= d->bar[n].mapped != d->bar[n].before;
        if (moved && d->moved)
            d->moved(d->ctx);
    }
}

void pci_device_place(struct pci_device *d, unsigned n, uint64_t address)
{
    d->bar[n].own = address;
    update_maps(d->bus);
}

/* ---- What firmware would do ---- */

/* Gives BAR n its place, from *io up or from *end down. False: it has one, or there is no room. */
static bool assign_bar(struct pci_device *d, unsigned n, uint32_t *io, uint64_t *end)
{
    const struct pci_bar *bar = &d->bar[n];
    unsigned at = PCI_BAR0 + 4 * n;
    if (bar->kind == PCI_BAR_NONE || bar->kind == PCI_BAR_OWN || pci_device_read32(d, at) & ~0xfu)
        return false;
    uint64_t base;
    if (bar->kind == PCI_BAR_IO) {
        base = (*io + bar->size - 1) & ~(bar->size - 1);
        if (base + bar->size > 0xff00)
            return false;
        *io = (uint32_t)(base + bar->size);
    } else {
        if (bar->size > *end / 2)
            return false;
        base = *end = (*end - bar->size) & ~(bar->size - 1);
    }
    pci_bus_config_write(d->bus, d->devfn, at, 4, (uint32_t)base);
    return true;
}

/* Controllers of disks are left as firmware leaves them that has looked for something to boot: masters of the bus. */
static uint16_t assigned_command(const struct pci_device *d)
{
    uint16_t on = PCI_COMMAND_IO | PCI_COMMAND_MEMORY;
    return d->config[PCI_BASE_CLASS] == PCI_CLASS_STORAGE ? on | PCI_COMMAND_MASTER : on;
}

void pci_bus_assign(struct pci_bus *b, uint16_t io, uint32_t memory_end, const uint8_t irq[4])
{
    uint32_t next_io = io;
    uint64_t end = memory_end;
    for (unsigned i = 0; i < ARRAY_LEN(b->device); i++) {
        struct pci_device *d = b->device[i];
        bool any = false;
        if (!d)
            continue;
        for (unsigned n = 0; n < PCI_BARS; n++)
            any |= assign_bar(d, n, &next_io, &end);
        if (any)
            pci_bus_config_write(b, d->devfn, PCI_COMMAND, 2, pci_device_read16(d, PCI_COMMAND) | assigned_command(d));
        if (d->config[PCI_INTERRUPT_PIN] && !d->config[PCI_INTERRUPT_LINE])
            pci_bus_config_write(b, d->devfn, PCI_INTERRUPT_LINE, 1, irq[pirq_of(d)]);
    }
}

/* ---- Configuration accesses ---- */

uint32_t pci_bus_config_read(struct pci_bus *b, uint8_t devfn, unsigned offset, unsigned size)
{
    struct pci_device *d = b->device[devfn];
    if (!d || offset + size > PCI_CONFIG_BYTES)
        return size == 4 ? 0xffffffff : (1u << (8 * size)) - 1;
    if (d->config_read)
        d->config_read(d->ctx, offset, size);
    return load_le(d->config + offset, size);
}

static bool touches(unsigned offset, unsigned size, unsigned from, unsigned len)
{
    return offset < from + len && from < offset + size;
}

static void config_changed(struct pci_device *d, unsigned offset, unsigned size)
{
    if (touches(offset, size, PCI_COMMAND, 2) || touches(offset, size, PCI_BAR0, 4 * PCI_BARS) ||
        touches(offset, size, PCI_ROM_BAR, 4)) {
        update_maps(d->bus);
        update_intx(d);
    }
    if (d->msix)
        pci_msix_config_written(d->msix);
    if (d->config_written)
        d->config_written(d->ctx, offset, size);
}

void pci_bus_config_write(struct pci_bus *b, uint8_t devfn, unsigned offset, unsigned size, uint32_t value)
{
    struct pci_device *d = b->device[devfn];
    if (!d || offset + size > PCI_CONFIG_BYTES)
        return;
    for (unsigned i = 0; i < size; i++) {
        uint8_t v = (uint8_t)(value >> (8 * i)), w = d->writable[offset + i];
        uint8_t *byte = &d->config[offset + i];
        *byte = (*byte & (uint8_t)~w) | (v & w);
        *byte &= (uint8_t) ~(v & d->clears[offset + i]);
    }
    config_changed(d, offset, size);
}

/* ---- Life ---- */

void pci_bus_init(struct pci_bus *b, struct bus *io, struct bus *mmio, const struct irq_line pirq[4],
                  const struct log *log)
{
    memset(b, 0, sizeof(*b));
    b->io = io;
    b->mmio = mmio;
    b->log = log;
    memcpy(b->pirq, pirq, sizeof(b->pirq));
}

void pci_bus_set_msi(struct pci_bus *b, void (*msi)(void *ctx, uint64_t address, uint32_t data), void *ctx)
{
    b->msi = msi;
    b->msi_ctx = ctx;
}

void pci_device_preset(struct pci_device *d, unsigned offset, unsigned size, uint32_t value, uint32_t writable)
{
    store_le(d->config + offset, value, size);
    store_le(d->initial + offset, value, size);
    store_le(d->writable + offset, writable, size);
}

void pci_device_init(struct pci_device *d, const char *name, const struct pci_identity *id)
{
    memset(d, 0, sizeof(*d));
    d->name = name;
    pci_device_preset(d, 0x00, 2, id->vendor, 0);
    pci_device_preset(d, 0x02, 2, id->device, 0);
    pci_device_preset(d, PCI_COMMAND, 2, 0, 0x0547);
    pci_device_preset(d, 0x08, 4, id->class_code << 8 | id->revision, 0);
    pci_device_preset(d, 0x0c, 1, 0, 0xff); /* cache line size */
    pci_device_preset(d, 0x0e, 1, id->multifunction ? 0x80 : 0, 0);
    pci_device_preset(d, 0x2c, 2, id->subsystem_vendor, 0);
    pci_device_preset(d, 0x2e, 2, id->subsystem, 0);
    pci_device_preset(d, PCI_INTERRUPT_PIN, 1, id->interrupt_pin, 0);
    if (id->interrupt_pin)
        pci_device_preset(d, PCI_INTERRUPT_LINE, 1, 0, 0xff);
    d->clears[PCI_STATUS + 1] = 0xf9;
    for (unsigned n = 0; n <= PCI_ROM; n++)
        d->bar[n].mapped = d->bar[n].own = d->bar[n].refused = PCI_UNMAPPED;
}

static struct pci_bar make_bar(enum pci_bar_kind kind, uint64_t size, const struct bus_ops *ops, void *dev)
{
    return (struct pci_bar){.kind = kind,
                            .size = size,
                            .ops = ops,
                            .dev = dev,
                            .mapped = PCI_UNMAPPED,
                            .own = PCI_UNMAPPED,
                            .refused = PCI_UNMAPPED};
}

void pci_device_add_bar(struct pci_device *d, unsigned n, enum pci_bar_kind kind, uint64_t size,
                        const struct bus_ops *ops, void *dev)
{
    d->bar[n] = make_bar(kind, size, ops, dev);
    if (kind == PCI_BAR_OWN)
        return;
    uint64_t mask = ~(size - 1);
    uint32_t fixed = kind == PCI_BAR_IO ? 1 : kind == PCI_BAR_MEM64 ? 4 : 0;
    pci_device_preset(d, PCI_BAR0 + 4 * n, 4, fixed, (uint32_t)mask);
    if (kind == PCI_BAR_MEM64)
        pci_device_preset(d, PCI_BAR0 + 4 * n + 4, 4, 0, (uint32_t)(mask >> 32));
}

unsigned pci_device_add_capability(struct pci_device *d, uint8_t id, unsigned len)
{
    unsigned at = d->cap_end ? d->cap_end : PCI_CAP_FIRST;
    pci_device_preset(d, at, 2, id | (uint32_t)d->config[PCI_CAPABILITIES] << 8, 0);
    pci_device_preset(d, PCI_CAPABILITIES, 1, at, 0);
    d->config[PCI_STATUS] |= PCI_STATUS_CAPS;
    d->initial[PCI_STATUS] |= PCI_STATUS_CAPS;
    d->cap_end = (at + len + 3) & ~3u;
    return at;
}

static uint64_t rom_read(void *dev, const struct bus_txn *t)
{
    const struct pci_rom *rom = dev;
    uint64_t v = 0;
    for (unsigned i = 0; i < t->size; i++) {
        uint64_t at = t->offset + i;
        v |= (uint64_t)(at < rom->len ? rom->bytes[at] : 0xff) << (8 * i);
    }
    return v;
}

static void rom_write(void *dev, const struct bus_txn *t, uint64_t value)
{
}

static const struct bus_ops rom_bus_ops = {rom_read, rom_write};

void pci_device_add_rom(struct pci_device *d, const void *bytes, size_t len)
{
    uint32_t size = ROM_MIN;
    while (size < len && size < ROM_MAX)
        size *= 2;
    d->rom = (struct pci_rom){bytes, len < size ? len : size};
    d->bar[PCI_ROM] = make_bar(PCI_BAR_ROM, size, &rom_bus_ops, &d->rom);
    pci_device_preset(d, PCI_ROM_BAR, 4, 0, ~(size - 1) | ROM_ENABLE);
}

bool pci_bus_attach(struct pci_bus *b, uint8_t devfn, struct pci_device *d)
{
    if (b->device[devfn])
        return false;
    b->device[devfn] = d;
    d->bus = b;
    d->devfn = devfn;
    return true;
}

void pci_bus_detach(struct pci_device *d)
{
    pci_device_set_intx(d, false);
    for (unsigned n = 0; n <= PCI_ROM; n++)
        unmap_bar(d, &d->bar[n]);
    d->bus->device[d->devfn] = NULL;
    d->bus = NULL;
}

void pci_device_reset(struct pci_device *d)
{
    pci_device_set_intx(d, false);
    memcpy(d->config, d->initial, sizeof(d->config));
    config_changed(d, 0, PCI_CONFIG_BYTES);
}

static void section_name(const struct pci_device *d, char name[SNAP_NAME_MAX + 1])
{
    snprintf(name, SNAP_NAME_MAX + 1, "pci.%02x.%u", d->devfn >> 3, d->devfn & 7u);
}

void pci_device_save(const struct pci_device *d, struct snap_writer *w)
{
    char name[SNAP_NAME_MAX + 1];
    section_name(d, name);
    snap_begin(w, name, 1);
    snap_put_bytes(w, d->config, sizeof(d->config));
    snap_put_u8(w, d->intx);
    snap_end(w);
}

/* Bits that a guest cannot change come from this build: a snapshot of another device cannot turn one into it. */
void pci_device_load(struct pci_device *d, struct snap_reader *r)
{
    char name[SNAP_NAME_MAX + 1];
    uint8_t saved[PCI_CONFIG_BYTES];
    section_name(d, name);
    if (!snap_expect(r, name, 1))
        return;
    snap_get_bytes(r, saved, sizeof(saved));
    if (memcmp(saved, d->initial, 4) != 0) {
        snap_fail(r, "%s: the saved device %02x%02x:%02x%02x is another one", name, saved[1], saved[0], saved[3],
                  saved[2]);
        return;
    }
    for (unsigned i = 0; i < PCI_CONFIG_BYTES; i++) {
        uint8_t alive = d->writable[i] | d->clears[i] | (i == PCI_STATUS ? PCI_STATUS_INTX : 0);
        d->config[i] = (d->initial[i] & (uint8_t)~alive) | (saved[i] & alive);
    }
    d->intx = snap_get_u8(r) != 0;
    update_maps(d->bus);
    if (d->config_written)
        d->config_written(d->ctx, 0, PCI_CONFIG_BYTES);
}
