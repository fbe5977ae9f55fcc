#include "devices/irq/isa_irq.h"

#include "core/snapshot.h"

#include <string.h>

#define IRQ_CASCADE 2
#define GSI_OF_IRQ0 2
#define GSI_OF_PIRQ 16

static void drive(const struct irq_line *to, unsigned n, bool level)
{
    struct irq_line l = *to;
    l.n = n;
    irq_set(&l, level);
}

static void set_bit(struct isa_irq *r, unsigned irq, unsigned bit, bool level)
{
    uint8_t mask = (uint8_t)(1u << bit);
    r->level[irq] = level ? r->level[irq] | mask : r->level[irq] & (uint8_t)~mask;
    drive(&r->pic, irq, r->level[irq] != 0);
}

static void isa_set(void *ctx, unsigned n, bool level)
{
    struct isa_irq *r = ctx;
    unsigned irq = n & 0xf, source = n >> 8;
    if (irq == IRQ_CASCADE)
        return;
    set_bit(r, irq, source, level);
    drive(&r->ioapic, irq == 0 ? GSI_OF_IRQ0 : irq, (r->level[irq] & 0x0f) != 0);
}

static void pirq_set(void *ctx, unsigned pirq, bool level)
{
    struct isa_irq *r = ctx;
    r->pirq_level[pirq] = level;
    if (r->pirq_route[pirq] != ISA_IRQ_UNROUTED)
        set_bit(r, r->pirq_route[pirq], 4 + pirq, level);
    drive(&r->ioapic, GSI_OF_PIRQ + pirq, level);
}

void isa_irq_init(struct isa_irq *r, const struct irq_line *pic, const struct irq_line *ioapic)
{
    memset(r, 0, sizeof(*r));
    r->pic = *pic;
    r->ioapic = *ioapic;
    isa_irq_reset(r);
}

void isa_irq_reset(struct isa_irq *r)
{
    memset(r->level, 0, sizeof(r->level));
    memset(r->pirq_level, 0, sizeof(r->pirq_level));
    memset(r->pirq_route, ISA_IRQ_UNROUTED, sizeof(r->pirq_route));
}

struct irq_line isa_irq_line(struct isa_irq *r, unsigned irq, unsigned source)
{
    return (struct irq_line){isa_set, r, (irq & 0xf) | (source & (ISA_IRQ_SOURCES - 1)) << 8};
}

struct irq_line isa_irq_pirq_line(struct isa_irq *r, unsigned pirq)
{
    return (struct irq_line){pirq_set, r, pirq & 3};
}

void isa_irq_route_pirq(struct isa_irq *r, unsigned pirq, uint8_t irq)
{
    uint8_t old = r->pirq_route[pirq];
    if (old == irq)
        return;
    if (old != ISA_IRQ_UNROUTED)
        set_bit(r, old, 4 + pirq, false);
    r->pirq_route[pirq] = irq;
    if (irq != ISA_IRQ_UNROUTED)
        set_bit(r, irq, 4 + pirq, r->pirq_level[pirq]);
}

void isa_irq_save(const struct isa_irq *r, struct snap_writer *w)
{
    snap_begin(w, "isa_irq", 1);
    snap_put_bytes(w, r->level, sizeof(r->level));
    snap_put_bytes(w, r->pirq_route, sizeof(r->pirq_route));
    for (unsigned i = 0; i < ISA_IRQ_PIRQS; i++)
        snap_put_u8(w, r->pirq_level[i]);
    snap_end(w);
}

void isa_irq_load(struct isa_irq *r, struct snap_reader *rd)
{
    if (!snap_expect(rd, "isa_irq", 1))
        return;
    snap_get_bytes(rd, r->level, sizeof(r->level));
    snap_get_bytes(rd, r->pirq_route, sizeof(r->pirq_route));
    for (unsigned i = 0; i < ISA_IRQ_PIRQS; i++) {
        r->pirq_level[i] = snap_get_u8(rd) != 0;
        if (r->pirq_route[i] >= ISA_IRQ_COUNT && r->pirq_route[i] != ISA_IRQ_UNROUTED) {
            snap_fail(rd, "isa_irq: PIRQ %u is routed to %u", i, r->pirq_route[i]);
            r->pirq_route[i] = ISA_IRQ_UNROUTED;
        }
    }
}
