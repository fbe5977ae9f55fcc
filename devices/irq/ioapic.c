#include "devices/irq/ioapic.h"

#include "core/snapshot.h"

#include <string.h>

#define REG_SELECT 0x00
#define REG_WINDOW 0x10
#define REG_EOI    0x40

#define INDEX_ID      0x00
#define INDEX_VERSION 0x01
#define INDEX_ARB     0x02
#define INDEX_ENTRY   0x10

#define ENTRY_LOGICAL    (1u << 11)
#define ENTRY_REMOTE_IRR (1u << 14)
#define ENTRY_LEVEL      (1u << 15)
#define ENTRY_MASKED     (1u << 16)
#define ENTRY_WRITABLE   0xff0000000001afffull

static bool send(struct ioapic *io, unsigned pin)
{
    uint64_t e = io->entry[pin];
    struct apic_msg m = {.dest = (uint32_t)(e >> 56),
                         .logical = e & ENTRY_LOGICAL,
                         .level = e & ENTRY_LEVEL,
                         .mode = (e >> 8) & 7,
                         .vector = (uint8_t)e};
    return io->cfg.deliver(io->cfg.deliver_ctx, &m);
}

/* A level-triggered pin sends once, and again only after the EOI if its line is still high. */
static void service_level(struct ioapic *io, unsigned pin)
{
    uint64_t e = io->entry[pin];
    if ((e & (ENTRY_LEVEL | ENTRY_MASKED | ENTRY_REMOTE_IRR)) != ENTRY_LEVEL || !(io->lines >> pin & 1))
        return;
    /* Set before sending: an EOI that the delivery itself causes must find it. */
    io->entry[pin] |= ENTRY_REMOTE_IRR;
    if (!send(io, pin))
        io->entry[pin] &= ~(uint64_t)ENTRY_REMOTE_IRR;
}

void ioapic_set_pin(void *ctx, unsigned pin, bool level)
{
    struct ioapic *io = ctx;
    if (pin >= IOAPIC_PINS)
        return;
    bool rising = level && !(io->lines >> pin & 1);
    io->lines = level ? io->lines | 1u << pin : io->lines & ~(1u << pin);
    if (io->entry[pin] & ENTRY_LEVEL)
        service_level(io, pin);
    else if (rising && !(io->entry[pin] & ENTRY_MASKED))
        send(io, pin);
}

void ioapic_eoi(void *ctx, uint8_t vector)
{
    struct ioapic *io = ctx;
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        if ((uint8_t)io->entry[pin] != vector || !(io->entry[pin] & ENTRY_REMOTE_IRR))
            continue;
        io->entry[pin] &= ~(uint64_t)ENTRY_REMOTE_IRR;
        service_level(io, pin);
    }
}

static void write_entry(struct ioapic *io, unsigned index, uint32_t v)
{
    unsigned pin = index >> 1, shift = (index & 1) * 32;
    uint64_t writable = ENTRY_WRITABLE & 0xffffffffull << shift;
    uint64_t e = (io->entry[pin] & ~writable) | ((uint64_t)v << shift & writable);
    if (!(e & ENTRY_LEVEL))
        e &= ~(uint64_t)ENTRY_REMOTE_IRR; /* operating systems rely on this to clear a stuck one */
    io->entry[pin] = e;
    service_level(io, pin);
}

static uint32_t read_index(const struct ioapic *io)
{
    switch (io->select) {
    case INDEX_ID:
    case INDEX_ARB:
        return (uint32_t)io->id << 24;
    case INDEX_VERSION:
        return (IOAPIC_PINS - 1) << 16 | 0x20;
    default:
        break;
    }
    unsigned index = io->select - INDEX_ENTRY;
    if (io->select < INDEX_ENTRY || index >= 2 * IOAPIC_PINS)
        return 0;
    return (uint32_t)(io->entry[index >> 1] >> ((index & 1) * 32));
}

static void write_index(struct ioapic *io, uint32_t v)
{
    unsigned index = io->select - INDEX_ENTRY;
    if (io->select == INDEX_ID)
        io->id = (v >> 24) & 0x0f;
    else if (io->select >= INDEX_ENTRY && index < 2 * IOAPIC_PINS)
        write_entry(io, index, v);
    else
        device_log(io->cfg.log, LOG_GUEST_ERROR, "ioapic: write of read-only or reserved register 0x%x", io->select);
}

static uint64_t ioapic_read(void *dev, const struct bus_txn *t)
{
    struct ioapic *io = dev;
    switch (t->offset) {
    case REG_SELECT:
        return io->select;
    case REG_WINDOW:
        return read_index(io);
    default:
        return 0;
    }
}

static void ioapic_write(void *dev, const struct bus_txn *t, uint64_t value)
{
    struct ioapic *io = dev;
    switch (t->offset) {
    case REG_SELECT:
        io->select = (uint8_t)value;
        break;
    case REG_WINDOW:
        write_index(io, (uint32_t)value);
        break;
    case REG_EOI:
        ioapic_eoi(io, (uint8_t)value);
        break;
    default:
        device_log(io->cfg.log, LOG_GUEST_ERROR, "ioapic: write at reserved offset 0x%llx",
                   (unsigned long long)t->offset);
        break;
    }
}

const struct bus_ops ioapic_bus_ops = {ioapic_read, ioapic_write};

void ioapic_init(struct ioapic *io, const struct ioapic_config *cfg)
{
    memset(io, 0, sizeof(*io));
    io->cfg = *cfg;
    ioapic_reset(io);
}

void ioapic_reset(struct ioapic *io)
{
    io->select = 0;
    io->id = io->cfg.id & 0x0f;
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        io->entry[pin] = ENTRY_MASKED;
}

bool ioapic_passes_nonmaskable(const struct ioapic *io)
{
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        if (!(io->entry[pin] & ENTRY_MASKED) && apic_mode_is_nonmaskable((io->entry[pin] >> 8) & 7))
            return true;
    return false;
}

void ioapic_save(const struct ioapic *io, struct snap_writer *w)
{
    snap_begin(w, "ioapic", 1);
    snap_put_u8(w, io->select);
    snap_put_u8(w, io->id);
    snap_put_u32(w, io->lines);
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        snap_put_u64(w, io->entry[pin]);
    snap_end(w);
}

void ioapic_load(struct ioapic *io, struct snap_reader *r)
{
    if (!snap_expect(r, "ioapic", 1))
        return;
    io->select = snap_get_u8(r);
    io->id = snap_get_u8(r) & 0x0f;
    io->lines = snap_get_u32(r);
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        io->entry[pin] = snap_get_u64(r);
}
