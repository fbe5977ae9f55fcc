#include "devices/mp_tables.h"

#include "devices/layout.h"

#include <string.h>

#define HEADER_LEN 44
#define SPEC_REV   4 /* 1.4 */

#define BUS_PCI 0
#define BUS_ISA 1

#define ISA_IRQS  16
#define PCI_SLOTS 32
#define PCI_PINS  4

enum entry { ENTRY_CPU, ENTRY_BUS, ENTRY_IOAPIC, ENTRY_IO_INT, ENTRY_LOCAL_INT };
enum int_type { INT_VECTORED = 0, INT_NMI = 1, INT_EXTINT = 3 };

#define FLAGS_ACTIVE_HIGH_LEVEL 0x000d

#define LAPIC_VERSION  0x14
#define IOAPIC_VERSION 0x20
#define CPU_ENABLED    1
#define CPU_BOOTSTRAP  2
#define ALL_LAPICS     0xff

struct builder {
    uint8_t *buf;
    size_t cap, len;
    unsigned entries;
    bool overflow;
};

static void put(uint8_t *p, uint32_t v, unsigned size)
{
    for (unsigned k = 0; k < size; k++)
        p[k] = (uint8_t)(v >> (8 * k));
}

static uint8_t checksum(const uint8_t *p, size_t n)
{
    uint8_t sum = 0;
    for (size_t k = 0; k < n; k++)
        sum = (uint8_t)(sum + p[k]);
    return (uint8_t)-sum;
}

/* NULL once there is no room. */
static uint8_t *entry_add(struct builder *b, enum entry type)
{
    size_t size = type == ENTRY_CPU ? 20 : 8;
    if (b->overflow || b->len + size > b->cap) {
        b->overflow = true;
        return NULL;
    }
    uint8_t *e = b->buf + b->len;
    memset(e, 0, size);
    e[0] = (uint8_t)type;
    b->len += size;
    b->entries++;
    return e;
}

static void add_cpu(struct builder *b, const struct mp_tables_config *cfg, unsigned cpu)
{
    uint8_t *e = entry_add(b, ENTRY_CPU);
    if (!e)
        return;
    e[1] = (uint8_t)topology_apic_id(&cfg->topology, cpu);
    e[2] = LAPIC_VERSION;
    e[3] = CPU_ENABLED | (cpu == 0 ? CPU_BOOTSTRAP : 0);
    put(e + 4, cfg->signature, 4);
    put(e + 8, cfg->features, 4);
}

static void add_bus(struct builder *b, uint8_t id, const char name[6])
{
    uint8_t *e = entry_add(b, ENTRY_BUS);
    if (!e)
        return;
    e[1] = id;
    memcpy(e + 2, name, 6);
}

static void add_ioapic(struct builder *b)
{
    uint8_t *e = entry_add(b, ENTRY_IOAPIC);
    if (!e)
        return;
    e[1] = LAYOUT_IOAPIC_ID;
    e[2] = IOAPIC_VERSION;
    e[3] = 1; /* usable */
    put(e + 4, LAYOUT_IOAPIC, 4);
}

struct wire {
    enum entry where;
    enum int_type type;
    unsigned flags;
    uint8_t bus, source, to, pin;
};

static void add_wire(struct builder *b, const struct wire *w)
{
    uint8_t *e = entry_add(b, w->where);
    if (!e)
        return;
    e[1] = (uint8_t)w->type;
    put(e + 2, w->flags, 2);
    e[4] = w->bus;
    e[5] = w->source;
    e[6] = w->to;
    e[7] = w->pin;
}

static void add_isa_wires(struct builder *b)
{
    for (unsigned irq = 0; irq < ISA_IRQS; irq++) {
        struct wire w = {ENTRY_IO_INT, INT_VECTORED,     irq == LAYOUT_IRQ_SCI ? FLAGS_ACTIVE_HIGH_LEVEL : 0,  BUS_ISA,
                         (uint8_t)irq, LAYOUT_IOAPIC_ID, irq == LAYOUT_IRQ_PIT ? LAYOUT_GSI_PIT : (uint8_t)irq};
        if (irq != LAYOUT_IRQ_CASCADE)
            add_wire(b, &w);
    }
}

/* INTA of slot 1 is PIRQA, and so on round, as the DSDT has it. */
static void add_pci_wires(struct builder *b)
{
    for (unsigned slot = 0; slot < PCI_SLOTS; slot++)
        for (unsigned pin = 0; pin < PCI_PINS; pin++)
            add_wire(b, &(struct wire){ENTRY_IO_INT, INT_VECTORED, 0, BUS_PCI, (uint8_t)(slot << 2 | pin),
                                       LAYOUT_IOAPIC_ID, (uint8_t)(LAYOUT_GSI_PIRQ + ((slot - 1 + pin) & 3))});
}

size_t mp_table_build(const struct mp_tables_config *cfg, uint8_t *buf, size_t cap)
{
    struct builder b = {.buf = buf, .cap = cap, .len = HEADER_LEN, .overflow = cap < HEADER_LEN};
    for (unsigned cpu = 0; cpu < cfg->cpu_count; cpu++)
        add_cpu(&b, cfg, cpu);
    add_bus(&b, BUS_PCI, "PCI   ");
    add_bus(&b, BUS_ISA, "ISA   ");
    add_ioapic(&b);
    add_isa_wires(&b);
    add_pci_wires(&b);
    add_wire(&b, &(struct wire){ENTRY_LOCAL_INT, INT_EXTINT, 0, BUS_ISA, 0, ALL_LAPICS, 0});
    add_wire(&b, &(struct wire){ENTRY_LOCAL_INT, INT_NMI, 0, BUS_ISA, 0, ALL_LAPICS, 1});
    if (b.overflow)
        return 0;
    memset(buf, 0, HEADER_LEN);
    memcpy(buf, "PCMP", 4);
    put(buf + 4, (uint32_t)b.len, 2);
    buf[6] = SPEC_REV;
    memcpy(buf + 8, "UMBRA   UMBRAPC     ", 20);
    put(buf + 34, b.entries, 2);
    put(buf + 36, LAYOUT_LAPIC, 4);
    buf[7] = checksum(buf, b.len);
    return b.len;
}

void mp_pointer_build(uint32_t table, uint8_t out[MP_POINTER_LEN])
{
    memset(out, 0, MP_POINTER_LEN);
    memcpy(out, "_MP_", 4);
    put(out + 4, table, 4);
    out[8] = 1; /* paragraph */
    out[9] = SPEC_REV;
    out[10] = checksum(out, MP_POINTER_LEN);
}
