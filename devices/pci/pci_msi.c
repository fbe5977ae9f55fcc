#include "devices/pci/pci_msi.h"

#include "core/snapshot.h"

#include <string.h>

#define MSI_BYTES       14
#define MSI_CONTROL     2 /* offsets in the capability */
#define MSI_ADDRESS     4
#define MSI_ADDRESS_TOP 8
#define MSI_DATA        12
#define MSI_ON          0x0001
#define MSI_64          0x0080

#define MSIX_BYTES      12
#define MSIX_CONTROL    2
#define MSIX_ON         0x8000
#define MSIX_MASKED     0x4000
#define MSIX_ENTRY_DATA 8
#define MSIX_ENTRY_MASK 12

static void message_out(struct pci_device *d, uint64_t address, uint32_t data)
{
    struct pci_bus *b = d->bus;
    if (b && b->msi && pci_device_read16(d, PCI_COMMAND) & PCI_COMMAND_MASTER)
        b->msi(b->msi_ctx, address, data);
}

/* ---- MSI ---- */

void pci_msi_add(struct pci_device *d, unsigned messages)
{
    unsigned log = 0;
    while (1u << log < messages && log < 5)
        log++;
    d->msi = pci_device_add_capability(d, PCI_CAP_MSI, MSI_BYTES);
    pci_device_preset(d, d->msi + MSI_CONTROL, 2, MSI_64 | log << 1, 0x0070 | MSI_ON);
    pci_device_preset(d, d->msi + MSI_ADDRESS, 4, 0, 0xfffffffc);
    pci_device_preset(d, d->msi + MSI_ADDRESS_TOP, 4, 0, 0xffffffff);
    pci_device_preset(d, d->msi + MSI_DATA, 2, 0, 0xffff);
}

bool pci_msi_is_on(const struct pci_device *d)
{
    return d->msi && pci_device_read16(d, d->msi + MSI_CONTROL) & MSI_ON;
}

void pci_msi_send(struct pci_device *d, unsigned n)
{
    if (!pci_msi_is_on(d))
        return;
    uint16_t control = pci_device_read16(d, d->msi + MSI_CONTROL);
    unsigned offered = control >> 1 & 7, wanted = control >> 4 & 7, log = wanted < offered ? wanted : offered;
    unsigned last = (1u << log) - 1;
    uint16_t data = pci_device_read16(d, d->msi + MSI_DATA);
    uint64_t address = pci_device_read32(d, d->msi + MSI_ADDRESS);
    address |= (uint64_t)pci_device_read32(d, d->msi + MSI_ADDRESS_TOP) << 32;
    message_out(d, address, (data & ~last) | (n < last ? n : last));
}

/* ---- MSI-X ---- */

static uint32_t entry32(const struct pci_msix *x, unsigned n, unsigned offset)
{
    const uint8_t *p = x->table + n * PCI_MSIX_ENTRY + offset;
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

bool pci_msix_is_on(const struct pci_msix *x)
{
    return x->count && pci_device_read16(x->pci, x->cap + MSIX_CONTROL) & MSIX_ON;
}

static bool is_masked(const struct pci_msix *x, unsigned n)
{
    return pci_device_read16(x->pci, x->cap + MSIX_CONTROL) & MSIX_MASKED || entry32(x, n, MSIX_ENTRY_MASK) & 1;
}

void pci_msix_send(struct pci_msix *x, unsigned n)
{
    if (n >= x->count || !pci_msix_is_on(x))
        return;
    if (is_masked(x, n)) {
        x->pending |= 1ull << n;
        return;
    }
    x->pending &= ~(1ull << n);
    message_out(x->pci, entry32(x, n, 0) | (uint64_t)entry32(x, n, 4) << 32, entry32(x, n, MSIX_ENTRY_DATA));
}

static void send_unmasked(struct pci_msix *x)
{
    if (!pci_msix_is_on(x))
        return;
    for (unsigned n = 0; x->pending >> n && n < x->count; n++)
        if (x->pending >> n & 1 && !is_masked(x, n))
            pci_msix_send(x, n);
}

void pci_msix_config_written(struct pci_msix *x)
{
    send_unmasked(x);
}

static uint8_t msix_read8(void *dev, uint64_t offset)
{
    const struct pci_msix *x = dev;
    if (offset < x->count * PCI_MSIX_ENTRY)
        return x->table[offset];
    if (offset >= PCI_MSIX_PBA && offset < PCI_MSIX_PBA + 8)
        return (uint8_t)(x->pending >> (8 * (offset - PCI_MSIX_PBA)));
    return 0;
}

/* Of the vector control only the mask is there, of the address only whole dwords. */
static void put_entry8(struct pci_msix *x, uint64_t offset, uint8_t v)
{
    unsigned in = offset % PCI_MSIX_ENTRY;
    if (in == 0)
        v &= 0xfc;
    else if (in >= MSIX_ENTRY_MASK)
        v &= in == MSIX_ENTRY_MASK;
    x->table[offset] = v;
}

static uint64_t msix_read(void *dev, const struct bus_txn *t)
{
    return device_read_bytes(msix_read8, dev, t);
}

static void msix_write(void *dev, const struct bus_txn *t, uint64_t value)
{
    struct pci_msix *x = dev;
    for (unsigned i = 0; i < t->size; i++)
        if (t->offset + i < x->count * PCI_MSIX_ENTRY)
            put_entry8(x, t->offset + i, (uint8_t)(value >> (8 * i)));
    send_unmasked(x);
}

static const struct bus_ops msix_bus_ops = {msix_read, msix_write};

void pci_msix_init(struct pci_msix *x, struct pci_device *d, unsigned bar, unsigned count)
{
    memset(x, 0, sizeof(*x));
    x->pci = d;
    x->count = count < PCI_MSIX_MAX ? count : PCI_MSIX_MAX;
    x->cap = pci_device_add_capability(d, PCI_CAP_MSIX, MSIX_BYTES);
    d->msix = x;
    pci_device_preset(d, x->cap + MSIX_CONTROL, 2, x->count - 1, MSIX_ON | MSIX_MASKED);
    pci_device_preset(d, x->cap + 4, 4, bar, 0);
    pci_device_preset(d, x->cap + 8, 4, PCI_MSIX_PBA | bar, 0);
    pci_device_add_bar(d, bar, PCI_BAR_MEM32, PCI_MSIX_BAR, &msix_bus_ops, x);
    pci_msix_reset(x);
}

void pci_msix_reset(struct pci_msix *x)
{
    memset(x->table, 0, sizeof(x->table));
    for (unsigned n = 0; n < x->count; n++)
        x->table[n * PCI_MSIX_ENTRY + MSIX_ENTRY_MASK] = 1;
    x->pending = 0;
}

void pci_msix_save(const struct pci_msix *x, struct snap_writer *w)
{
    snap_put_bytes(w, x->table, x->count * PCI_MSIX_ENTRY);
    snap_put_u64(w, x->pending);
}

void pci_msix_load(struct pci_msix *x, struct snap_reader *r)
{
    uint8_t table[sizeof(x->table)];
    snap_get_bytes(r, table, x->count * PCI_MSIX_ENTRY);
    for (unsigned i = 0; i < x->count * PCI_MSIX_ENTRY; i++)
        put_entry8(x, i, table[i]);
    x->pending = snap_get_u64(r) & (x->count < 64 ? (1ull << x->count) - 1 : UINT64_MAX);
}
