#include "devices/irq/pic8259.h"

#include "core/snapshot.h"

#include <string.h>

#define CASCADE 2
#define NONE    (-1)

static const uint8_t elcr_mask[2] = {0xf8, 0xde};

static bool is_master(const struct pic8259_chip *c)
{
    return c == &c->pair->chip[0];
}

/* Distance of the highest-priority bit of `mask` from the top of the rotation, or 8. */
static unsigned priority_of(const struct pic8259_chip *c, uint8_t mask)
{
    for (unsigned p = 0; p < 8; p++)
        if (mask & (1u << ((c->top + p) & 7)))
            return p;
    return 8;
}

/* The input that the chip would present now, or NONE. */
static int requested_input(const struct pic8259_chip *c)
{
    unsigned request = priority_of(c, c->irr & (uint8_t)~c->imr);
    uint8_t in_service = c->isr;
    if (c->special_mask)
        in_service &= (uint8_t)~c->imr;
    if (c->special_fully_nested && is_master(c))
        in_service &= (uint8_t) ~(1u << CASCADE);
    if (request == 8 || request >= priority_of(c, in_service))
        return NONE;
    return (int)((request + c->top) & 7);
}

static void chip_set_line(struct pic8259_chip *c, unsigned n, bool level)
{
    uint8_t mask = (uint8_t)(1u << n);
    bool was = c->lines & mask;
    if (!level) {
        c->lines &= (uint8_t)~mask;
        c->irr &= (uint8_t)~mask;
        return;
    }
    c->lines |= mask;
    if ((c->elcr & mask) || !was)
        c->irr |= mask;
}

/* Carries the slave's INT to the master and the master's to the processor. */
static void pair_update(struct pic8259 *p)
{
    chip_set_line(&p->chip[0], CASCADE, requested_input(&p->chip[1]) != NONE);
    bool level = requested_input(&p->chip[0]) != NONE;
    if (level != p->intr_level) {
        p->intr_level = level;
        irq_set(&p->cfg.intr, level);
    }
}

static void chip_accept(struct pic8259_chip *c, unsigned n)
{
    uint8_t mask = (uint8_t)(1u << n);
    if (!(c->elcr & mask))
        c->irr &= (uint8_t)~mask;
    if (!c->auto_eoi)
        c->isr |= mask;
    else if (c->rotate_on_auto_eoi)
        c->top = (uint8_t)((n + 1) & 7);
}

/* One chip's part of an acknowledge: its input, or 7 without ISR when there is no request any more. */
static unsigned chip_ack(struct pic8259_chip *c)
{
    int n = requested_input(c);
    if (n == NONE)
        return 7;
    chip_accept(c, (unsigned)n);
    return (unsigned)n;
}

int pic8259_ack(void *ctx)
{
    struct pic8259 *p = ctx;
    struct pic8259_chip *master = &p->chip[0], *slave = &p->chip[1];
    bool cascaded = requested_input(master) == CASCADE;
    unsigned n = chip_ack(master);
    int vector = master->vector_base + (int)n;
    if (cascaded) {
        vector = slave->vector_base + (int)chip_ack(slave);
        /* The slave's INT drops during INTA, so a further request of its own makes a new edge. */
        chip_set_line(master, CASCADE, false);
    }
    pair_update(p);
    return vector;
}

void pic8259_set_irq(void *ctx, unsigned irq, bool level)
{
    struct pic8259 *p = ctx;
    if (irq > 15 || irq == CASCADE)
        return;
    chip_set_line(&p->chip[irq >> 3], irq & 7, level);
    pair_update(p);
}

static void write_icw1(struct pic8259_chip *c, uint8_t v)
{
    c->irr = c->lines & c->elcr; /* edge detection starts anew */
    c->imr = c->isr = 0;
    c->top = 0;
    c->read_isr = c->special_mask = c->poll = false;
    c->auto_eoi = c->rotate_on_auto_eoi = c->special_fully_nested = false;
    c->icw4_needed = v & 1;
    c->single = v & 2;
    c->icw_step = 1;
}

static void write_ocw2(struct pic8259_chip *c, uint8_t v)
{
    unsigned n = v & 7, command = v >> 5;
    if (command == 1 || command == 5) { /* non-specific: the highest in service that special mask mode lets it see */
        unsigned p = priority_of(c, c->special_mask ? c->isr & (uint8_t)~c->imr : c->isr);
        if (p == 8)
            return;
        n = (p + c->top) & 7;
    }
    switch (command) {
    case 0:
    case 4:
        c->rotate_on_auto_eoi = command == 4;
        break;
    case 6:
        c->top = (uint8_t)((n + 1) & 7);
        break;
    case 5:
    case 7:
        c->top = (uint8_t)((n + 1) & 7);
        /* fall through */
    case 1:
    case 3:
        c->isr &= (uint8_t) ~(1u << n);
        break;
    default:
        break;
    }
}

static void write_ocw3(struct pic8259_chip *c, uint8_t v)
{
    if (v & 0x04)
        c->poll = true;
    if (v & 0x02)
        c->read_isr = v & 1;
    if (v & 0x40)
        c->special_mask = v & 0x20;
}

static void write_data(struct pic8259_chip *c, uint8_t v)
{
    switch (c->icw_step) {
    case 0:
        c->imr = v;
        break;
    case 1:
        c->vector_base = v & 0xf8;
        c->icw_step = !c->single ? 2 : c->icw4_needed ? 3 : 0;
        break;
    case 2: /* ICW3 describes wiring that is fixed on a PC */
        c->icw_step = c->icw4_needed ? 3 : 0;
        break;
    default:
        c->auto_eoi = v & 0x02;
        c->special_fully_nested = v & 0x10;
        c->icw_step = 0;
        break;
    }
}

static void chip_write8(void *dev, uint64_t offset, uint8_t v)
{
    struct pic8259_chip *c = dev;
    if (offset & 1)
        write_data(c, v);
    else if (v & 0x10)
        write_icw1(c, v);
    else if (v & 0x08)
        write_ocw3(c, v);
    else
        write_ocw2(c, v);
    pair_update(c->pair);
}

/* A poll acknowledges like INTA, on this chip alone. */
static uint8_t read_poll(struct pic8259_chip *c)
{
    c->poll = false;
    int n = requested_input(c);
    if (n == NONE)
        return 0;
    chip_accept(c, (unsigned)n);
    if (!is_master(c))
        chip_set_line(&c->pair->chip[0], CASCADE, false);
    pair_update(c->pair);
    return (uint8_t)(0x80 | n);
}

static uint8_t chip_read8(void *dev, uint64_t offset)
{
    struct pic8259_chip *c = dev;
    if (c->poll)
        return read_poll(c);
    if (offset & 1)
        return c->imr;
    return c->read_isr ? c->isr : c->irr;
}

DEVICE_BYTE_BUS_OPS(pic8259_bus_ops, chip_read8, chip_write8);

static void chip_set_elcr(struct pic8259_chip *c, uint8_t v)
{
    uint8_t old = c->elcr;
    c->elcr = v & elcr_mask[is_master(c) ? 0 : 1];
    uint8_t now_level = c->elcr & (uint8_t)~old;
    c->irr = (c->irr & (uint8_t)~now_level) | (c->lines & now_level);
}

void pic8259_set_elcr(struct pic8259 *p, uint16_t level_mask)
{
    chip_set_elcr(&p->chip[0], (uint8_t)level_mask);
    chip_set_elcr(&p->chip[1], (uint8_t)(level_mask >> 8));
    pair_update(p);
}

static uint8_t elcr_read8(void *dev, uint64_t offset)
{
    struct pic8259 *p = dev;
    return p->chip[offset & 1].elcr;
}

static void elcr_write8(void *dev, uint64_t offset, uint8_t v)
{
    struct pic8259 *p = dev;
    chip_set_elcr(&p->chip[offset & 1], v);
    pair_update(p);
}

DEVICE_BYTE_BUS_OPS(pic8259_elcr_bus_ops, elcr_read8, elcr_write8);

void pic8259_init(struct pic8259 *p, const struct pic8259_config *cfg)
{
    memset(p, 0, sizeof(*p));
    p->cfg = *cfg;
    p->chip[0].pair = p->chip[1].pair = p;
}

void pic8259_reset(struct pic8259 *p)
{
    for (unsigned i = 0; i < 2; i++) {
        struct pic8259_chip *c = &p->chip[i];
        uint8_t lines = c->lines;
        memset(c, 0, sizeof(*c));
        c->pair = p;
        c->lines = lines;
    }
    pair_update(p);
}

static void chip_save(const struct pic8259_chip *c, struct snap_writer *w)
{
    const uint8_t bytes[] = {c->lines, c->irr, c->imr, c->isr, c->elcr, c->vector_base, c->top, c->icw_step};
    const bool flags[] = {c->single,       c->icw4_needed,          c->auto_eoi, c->rotate_on_auto_eoi,
                          c->special_mask, c->special_fully_nested, c->poll,     c->read_isr};
    snap_put_bytes(w, bytes, sizeof(bytes));
    for (unsigned i = 0; i < ARRAY_LEN(flags); i++)
        snap_put_u8(w, flags[i]);
}

static void chip_load(struct pic8259_chip *c, struct snap_reader *r)
{
    uint8_t *bytes[] = {&c->lines, &c->irr, &c->imr, &c->isr, &c->elcr, &c->vector_base, &c->top, &c->icw_step};
    bool *flags[] = {&c->single,       &c->icw4_needed,          &c->auto_eoi, &c->rotate_on_auto_eoi,
                     &c->special_mask, &c->special_fully_nested, &c->poll,     &c->read_isr};
    for (unsigned i = 0; i < ARRAY_LEN(bytes); i++)
        *bytes[i] = snap_get_u8(r);
    for (unsigned i = 0; i < ARRAY_LEN(flags); i++)
        *flags[i] = snap_get_u8(r) != 0;
    c->top &= 7;
    c->icw_step &= 3;
}

void pic8259_save(const struct pic8259 *p, struct snap_writer *w)
{
    snap_begin(w, "pic8259", 1);
    chip_save(&p->chip[0], w);
    chip_save(&p->chip[1], w);
    snap_put_u8(w, p->intr_level);
    snap_end(w);
}

void pic8259_load(struct pic8259 *p, struct snap_reader *r)
{
    if (!snap_expect(r, "pic8259", 1))
        return;
    chip_load(&p->chip[0], r);
    chip_load(&p->chip[1], r);
    p->intr_level = snap_get_u8(r) != 0;
}
