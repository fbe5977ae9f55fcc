#include "devices/irq/lapic_internal.h"

#include "core/snapshot.h"

#include <stdlib.h>
#include <string.h>

/* ---- Vector bitmaps ---- */

static int highest_vector(const uint32_t map[8])
{
    for (int word = 7; word >= 0; word--)
        if (map[word])
            return word * 32 + 31 - __builtin_clz(map[word]);
    return -1;
}

static void vector_set(uint32_t map[8], uint8_t v)
{
    map[v >> 5] |= 1u << (v & 31);
}

static void vector_clear(uint32_t map[8], uint8_t v)
{
    map[v >> 5] &= ~(1u << (v & 31));
}

static bool vector_test(const uint32_t map[8], uint8_t v)
{
    return map[v >> 5] >> (v & 31) & 1;
}

/* ---- What the CPU sees ---- */

/* Processor priority (SDM 11.8.3.1). */
uint8_t lapic_ppr(const struct lapic *a)
{
    int in_service = highest_vector(a->isr);
    uint8_t service_class = in_service < 0 ? 0 : (uint8_t)(in_service & 0xf0);
    return (a->tpr & 0xf0) >= service_class ? (uint8_t)a->tpr : service_class;
}

static int deliverable_vector(const struct lapic *a)
{
    int v = highest_vector(a->irr);
    return v >= 0 && (v & 0xf0) > (lapic_ppr(a) & 0xf0) ? v : -1;
}

/* An 8259 interrupt reaches the CPU through LINT0, or directly when the local APIC is disabled, or was sent as a
 * message. */
static bool has_extint(const struct lapic *a)
{
    if (!lapic_is_enabled(a))
        return a->lint[0];
    uint32_t lvt = a->lvt[LAPIC_LVT_LINT0];
    return a->extint_latched || (a->lint[0] && !(lvt & LVT_MASKED) && LVT_MODE(lvt) == APIC_EXTINT);
}

static void drive_pin(struct lapic *a, enum cpu_pin pin, bool level)
{
    struct irq_line l = a->pins;
    l.n = pin;
    irq_set(&l, level);
}

static void pulse_pin(struct lapic *a, enum cpu_pin pin)
{
    drive_pin(a, pin, true);
    drive_pin(a, pin, false);
}

static bool wants_intr(const struct lapic *a)
{
    return has_extint(a) || (lapic_is_enabled(a) && deliverable_vector(a) >= 0);
}

void lapic_update_intr(struct lapic *a)
{
    bool level = wants_intr(a);
    if (level == a->intr_level)
        return;
    a->intr_level = level;
    drive_pin(a, CPU_PIN_INTR, level);
}

static int ack_extint(struct lapic *a)
{
    const struct lapic_set_config *cfg = &a->set->cfg;
    a->extint_latched = false;
    int v = cfg->extint_ack ? cfg->extint_ack(cfg->extint_ctx) : -1;
    lapic_update_intr(a);
    return v;
}

/* A request that only the task priority holds back at INTA time yields the spurious vector (SDM 11.9). */
static bool is_blocked_by_tpr(const struct lapic *a)
{
    int pending = highest_vector(a->irr), in_service = highest_vector(a->isr);
    return pending >= 0 && (in_service < 0 || (pending & 0xf0) > (in_service & 0xf0));
}

static int lapic_ack(void *ctx)
{
    struct lapic *a = ctx;
    if (has_extint(a)) {
        a->set->delivered++;
        return ack_extint(a);
    }
    if (!lapic_is_enabled(a))
        return -1;
    int v = deliverable_vector(a);
    if (v < 0)
        return is_blocked_by_tpr(a) ? (int)(a->svr & 0xff) : -1;
    vector_clear(a->irr, (uint8_t)v);
    vector_set(a->isr, (uint8_t)v);
    a->set->delivered++;
    lapic_update_intr(a);
    return v;
}

static uint8_t lapic_get_cr8(void *ctx)
{
    const struct lapic *a = ctx;
    return (uint8_t)(a->tpr >> 4);
}

static void lapic_set_cr8(void *ctx, uint8_t value)
{
    struct lapic *a = ctx;
    a->tpr = (uint32_t)(value & 15) << 4;
    lapic_update_intr(a);
}

static uint8_t lapic_sipi_vector(void *ctx)
{
    const struct lapic *a = ctx;
    return a->sipi_vector;
}

/* ---- Accepting interrupts ---- */

void lapic_raise_error(struct lapic *a, uint32_t bits)
{
    bool fresh = (a->esr_pending & bits) != bits;
    a->esr_pending |= bits;
    if (fresh)
        lapic_deliver_lvt(a, LAPIC_LVT_ERROR);
}

static bool accept_fixed(struct lapic *a, uint8_t vector, bool level)
{
    if (!lapic_is_software_enabled(a))
        return false;
    if (vector < 16) {
        lapic_raise_error(a, ESR_RECEIVE_VECTOR);
        return false;
    }
    vector_set(a->irr, vector);
    if (level)
        vector_set(a->tmr, vector);
    else
        vector_clear(a->tmr, vector);
    lapic_update_intr(a);
    return true;
}

static bool accept_init(struct lapic *a)
{
    lapic_reset_registers(a);
    lapic_update_intr(a);
    pulse_pin(a, CPU_PIN_INIT);
    return true;
}

static bool accept(struct lapic *a, uint8_t mode, uint8_t vector, bool level)
{
    switch (mode) {
    case APIC_FIXED:
    case APIC_LOWEST:
        return accept_fixed(a, vector, level);
    case APIC_SMI:
        pulse_pin(a, CPU_PIN_SMI);
        return true;
    case APIC_NMI:
        pulse_pin(a, CPU_PIN_NMI);
        return true;
    case APIC_INIT:
        return accept_init(a);
    case APIC_SIPI:
        a->sipi_vector = vector;
        pulse_pin(a, CPU_PIN_SIPI);
        return true;
    case APIC_EXTINT:
        a->extint_latched = true;
        lapic_update_intr(a);
        return true;
    default:
        device_log(a->set->cfg.log, LOG_GUEST_ERROR, "lapic: message with reserved delivery mode %u", mode);
        return false;
    }
}

void lapic_deliver_lvt(struct lapic *a, enum lapic_lvt which)
{
    uint32_t lvt = a->lvt[which];
    if (!lapic_is_enabled(a) || (lvt & LVT_MASKED))
        return;
    if (which == LAPIC_LVT_TIMER || which == LAPIC_LVT_ERROR) {
        accept_fixed(a, (uint8_t)lvt, false);
        return;
    }
    accept(a, LVT_MODE(lvt), (uint8_t)lvt, false);
}

/* A level-triggered fixed LINT0 is the one LVT entry with a remote IRR: delivered once for each EOI while the line is
 * high. */
static void deliver_level_lint0(struct lapic *a)
{
    uint32_t *lvt = &a->lvt[LAPIC_LVT_LINT0];
    if (!lapic_is_enabled(a) || !a->lint[0] || (*lvt & (LVT_MASKED | LVT_REMOTE_IRR)))
        return;
    if (accept_fixed(a, (uint8_t)*lvt, true))
        *lvt |= LVT_REMOTE_IRR;
}

static bool is_level_lint0(const struct lapic *a)
{
    uint32_t lvt = a->lvt[LAPIC_LVT_LINT0];
    return (lvt & LVT_LEVEL) && LVT_MODE(lvt) == APIC_FIXED;
}

static void set_lint(struct lapic *a, unsigned n, bool level)
{
    bool rising = level && !a->lint[n];
    a->lint[n] = level;
    if (!lapic_is_enabled(a)) { /* the pins are plain INTR and NMI then */
        if (n == 1 && rising)
            pulse_pin(a, CPU_PIN_NMI);
    } else if (n == 0 && is_level_lint0(a)) {
        deliver_level_lint0(a);
    } else if (rising && LVT_MODE(a->lvt[LAPIC_LVT_LINT0 + n]) != APIC_EXTINT) {
        lapic_deliver_lvt(a, LAPIC_LVT_LINT0 + n);
    }
    lapic_update_intr(a);
}

static void lint_set(void *ctx, unsigned n, bool level)
{
    struct lapic_set *s = ctx;
    for (unsigned i = 0; i < s->cfg.cpu_count; i++)
        set_lint(&s->apic[i], n & 1, level);
}

struct irq_line lapic_set_lint_line(struct lapic_set *s, unsigned n)
{
    return (struct irq_line){lint_set, s, n};
}

void lapic_eoi(struct lapic *a)
{
    int v = highest_vector(a->isr);
    if (v < 0)
        return;
    vector_clear(a->isr, (uint8_t)v);
    if (vector_test(a->tmr, (uint8_t)v)) {
        uint32_t *lvt = &a->lvt[LAPIC_LVT_LINT0];
        if (a->set->cfg.eoi)
            a->set->cfg.eoi(a->set->cfg.eoi_ctx, (uint8_t)v);
        if ((*lvt & LVT_REMOTE_IRR) && (*lvt & 0xff) == (uint32_t)v) {
            *lvt &= ~LVT_REMOTE_IRR;
            deliver_level_lint0(a);
        }
    }
    lapic_update_intr(a);
}

/* ---- Registers with consequences ---- */

void lapic_write_lvt(struct lapic *a, enum lapic_lvt which, uint32_t v)
{
    static const uint32_t writable[LAPIC_LVT_COUNT] = {0x700ff, 0x107ff, 0x107ff, 0x1a7ff, 0x1a7ff, 0x100ff};
    uint32_t old = a->lvt[which];
    v = (v & writable[which]) | (old & LVT_REMOTE_IRR);
    if (!(a->svr & SVR_ENABLE))
        v |= LVT_MASKED;
    if (which == LAPIC_LVT_TIMER && (v & LVT_DEADLINE))
        v &= ~LVT_PERIODIC; /* the reserved combination of both acts as TSC-deadline */
    if (!(v & LVT_LEVEL))
        v &= ~LVT_REMOTE_IRR;
    a->lvt[which] = v;
    if (which == LAPIC_LVT_TIMER)
        lapic_timer_lvt_changed(a, old);
    if (which == LAPIC_LVT_LINT0 && is_level_lint0(a))
        deliver_level_lint0(a);
    lapic_update_intr(a);
}

void lapic_write_svr(struct lapic *a, uint32_t v)
{
    a->svr = v & 0x3ff;
    if (!(v & SVR_ENABLE)) { /* software-disabling masks every LVT entry (SDM 11.4.7.2) */
        for (unsigned i = 0; i < LAPIC_LVT_COUNT; i++)
            lapic_write_lvt(a, i, a->lvt[i] | LVT_MASKED);
    }
    lapic_update_intr(a);
}

uint32_t lapic_x2apic_ldr(const struct lapic *a)
{
    return (a->id >> 4) << 16 | 1u << (a->id & 15);
}

void lapic_reset_registers(struct lapic *a)
{
    a->tpr = a->ldr = a->esr = a->esr_pending = 0;
    a->dfr = 0xffffffff;
    a->svr = 0xff;
    a->icr = 0;
    memset(a->isr, 0, sizeof(a->isr));
    memset(a->tmr, 0, sizeof(a->tmr));
    memset(a->irr, 0, sizeof(a->irr));
    for (unsigned i = 0; i < LAPIC_LVT_COUNT; i++)
        a->lvt[i] = LVT_MASKED;
    a->timer_initial = a->timer_divide = 0;
    a->timer_start = a->tsc_deadline = 0;
    a->extint_latched = false;
    timer_cancel(a->set->cfg.clock, &a->timer);
}

/* ---- Messages: who is meant ---- */

static bool matches_logical(const struct lapic *a, const struct apic_msg *m)
{
    if (lapic_is_x2apic(a)) {
        uint32_t ldr = lapic_x2apic_ldr(a);
        return (ldr >> 16) == (m->dest >> 16) && (ldr & m->dest & 0xffff);
    }
    uint32_t dest = m->dest & 0xff, ldr = a->ldr >> 24;
    if (a->dfr >> 28 == 0xf)
        return dest & ldr;
    return (dest >> 4) == (ldr >> 4) && (dest & ldr & 0xf);
}

static bool is_addressed(const struct lapic *a, const struct apic_msg *m)
{
    if (!lapic_is_enabled(a))
        return false;
    if (m->dest == (m->wide ? 0xffffffffu : 0xffu))
        return true;
    if (m->wide && !lapic_is_x2apic(a) && m->dest > 0xff)
        return false;
    return m->logical ? matches_logical(a, m) : m->dest == a->id;
}

/* Lowest priority: of two candidates the enabled one with the lower processor priority; among equals the first, for
 * repeatability. */
static struct lapic *lower_priority(struct lapic *best, struct lapic *a)
{
    return lapic_is_software_enabled(a) && (!best || lapic_ppr(a) < lapic_ppr(best)) ? a : best;
}

static struct lapic *pick_lowest(struct lapic_set *s, const struct apic_msg *m)
{
    struct lapic *best = NULL;
    for (unsigned i = 0; i < s->cfg.cpu_count; i++)
        if (is_addressed(&s->apic[i], m))
            best = lower_priority(best, &s->apic[i]);
    return best;
}

bool lapic_set_deliver(void *ctx, const struct apic_msg *m)
{
    struct lapic_set *s = ctx;
    if (m->mode == APIC_LOWEST) {
        struct lapic *a = pick_lowest(s, m);
        return a && accept(a, m->mode, m->vector, m->level);
    }
    bool taken = false;
    for (unsigned i = 0; i < s->cfg.cpu_count; i++)
        if (is_addressed(&s->apic[i], m))
            taken |= accept(&s->apic[i], m->mode, m->vector, m->level);
    return taken;
}

bool lapic_set_msi(struct lapic_set *s, uint64_t addr, uint32_t data)
{
    struct apic_msg m = {.dest = (addr >> 12) & 0xff,
                         .logical = addr & 4,
                         .level = data & 0x8000,
                         .mode = (data >> 8) & 7,
                         .vector = (uint8_t)data};
    return lapic_set_deliver(s, &m);
}

void lapic_self_ipi(struct lapic *a, uint8_t vector)
{
    if (vector < 16)
        lapic_raise_error(a, ESR_SEND_VECTOR);
    else
        accept_fixed(a, vector, false);
}

#define SHORTHAND_SELF   1
#define SHORTHAND_ALL    2
#define SHORTHAND_OTHERS 3

/* A shorthand names its targets without regard to the destination field. */
static bool is_meant(const struct lapic *a, unsigned shorthand, const struct lapic *to)
{
    bool meant = shorthand == SHORTHAND_SELF ? to == a : shorthand == SHORTHAND_ALL || to != a;
    return meant && lapic_is_enabled(to);
}

static void send_shorthand(struct lapic *a, unsigned shorthand, uint8_t mode, uint8_t vector)
{
    struct lapic_set *s = a->set;
    struct lapic *best = NULL;
    for (unsigned i = 0; i < s->cfg.cpu_count; i++) {
        struct lapic *to = &s->apic[i];
        if (!is_meant(a, shorthand, to))
            continue;
        if (mode == APIC_LOWEST)
            best = lower_priority(best, to);
        else
            accept(to, mode, vector, false);
    }
    if (best)
        accept(best, mode, vector, false);
}

/* SDM volume 3, table 10-3: with "self" and "all including self" fixed interrupts only. The others are sent all the
 * same, as processors happen to do. */
static void check_shorthand(const struct lapic *a, unsigned shorthand, uint8_t mode)
{
    if ((shorthand == SHORTHAND_SELF || shorthand == SHORTHAND_ALL) && mode != APIC_FIXED)
        device_log(a->set->cfg.log, LOG_GUEST_ERROR,
                   "lapic %u: IPI with delivery mode %u and a shorthand that includes the sender: not architectural",
                   a->index, mode);
}

static void note_sent(const struct lapic *a)
{
    const struct lapic_set_config *cfg = &a->set->cfg;
    if (cfg->ipi_sent)
        cfg->ipi_sent(cfg->ipi_ctx, a->index);
}

/* Sends what the ICR says. IPIs are edge-triggered whatever the trigger bit says (SDM 11.6.1). */
void lapic_send_ipi(struct lapic *a)
{
    uint32_t low = (uint32_t)a->icr;
    uint8_t mode = (low >> 8) & 7, vector = (uint8_t)low;
    unsigned shorthand = (low >> 18) & 3;
    if (mode == APIC_INIT && (low & ICR_LEVEL) && !(low & ICR_ASSERT))
        return; /* INIT level de-assert: only resets arbitration IDs, on processors that have them */
    if ((mode == APIC_FIXED || mode == APIC_LOWEST) && vector < 16) {
        lapic_raise_error(a, ESR_SEND_VECTOR);
        return;
    }
    if (mode == 3 || mode == APIC_EXTINT) {
        device_log(a->set->cfg.log, LOG_GUEST_ERROR, "lapic %u: IPI with reserved delivery mode %u", a->index, mode);
        return;
    }
    if (shorthand != SHORTHAND_SELF)
        note_sent(a);
    if (shorthand) {
        check_shorthand(a, shorthand, mode);
        send_shorthand(a, shorthand, mode, vector);
        return;
    }
    bool wide = lapic_is_x2apic(a);
    struct apic_msg m = {.dest = (uint32_t)(wide ? a->icr >> 32 : a->icr >> 56),
                         .wide = wide,
                         .logical = low & ICR_LOGICAL,
                         .mode = mode,
                         .vector = vector};
    lapic_set_deliver(a->set, &m);
}

/* ---- The set ---- */

bool lapic_set_init(struct lapic_set *s, const struct lapic_set_config *cfg)
{
    memset(s, 0, sizeof(*s));
    s->cfg = *cfg;
    if (!s->cfg.maxphyaddr)
        s->cfg.maxphyaddr = 40;
    if (!s->cfg.topology.sockets)
        s->cfg.topology = topology_flat(cfg->cpu_count);
    s->apic = calloc(cfg->cpu_count, sizeof(*s->apic));
    if (!s->apic)
        return false;
    for (unsigned i = 0; i < cfg->cpu_count; i++) {
        struct lapic *a = &s->apic[i];
        a->set = s;
        a->index = i;
        a->id = topology_apic_id(&s->cfg.topology, i);
        timer_init(&a->timer, lapic_timer_expired, a);
    }
    lapic_set_reset(s);
    return true;
}

void lapic_set_fini(struct lapic_set *s)
{
    for (unsigned i = 0; s->apic && i < s->cfg.cpu_count; i++)
        timer_cancel(s->cfg.clock, &s->apic[i].timer);
    free(s->apic);
    s->apic = NULL;
}

void lapic_set_reset(struct lapic_set *s)
{
    for (unsigned i = 0; i < s->cfg.cpu_count; i++) {
        struct lapic *a = &s->apic[i];
        a->base_msr = s->cfg.absent ? 0 : LAPIC_DEFAULT_BASE | APIC_BASE_ENABLE | (i == 0 ? APIC_BASE_BSP : 0);
        a->sipi_vector = 0;
        lapic_reset_registers(a);
        lapic_update_intr(a);
    }
}

void lapic_set_virtual_wire(struct lapic_set *s)
{
    struct lapic *a = &s->apic[0];
    if (s->cfg.absent)
        return;
    lapic_write_svr(a, SVR_ENABLE | 0xff);
    lapic_write_lvt(a, LAPIC_LVT_LINT0, APIC_EXTINT << 8);
    lapic_write_lvt(a, LAPIC_LVT_LINT1, APIC_NMI << 8);
}

const struct cpu_intc *lapic_set_connect(struct lapic_set *s, unsigned cpu, const struct irq_line *pins)
{
    struct lapic *a = &s->apic[cpu];
    a->pins = *pins;
    a->intc = (struct cpu_intc){.ctx = a,
                                .ack = lapic_ack,
                                .get_cr8 = lapic_get_cr8,
                                .set_cr8 = lapic_set_cr8,
                                .msr_read = lapic_msr_read,
                                .msr_write = lapic_msr_write,
                                .sipi_vector = lapic_sipi_vector};
    drive_pin(a, CPU_PIN_INTR, a->intr_level);
    return &a->intc;
}

void lapic_set_tsc_changed(struct lapic_set *s, unsigned cpu)
{
    if (s->apic[cpu].lvt[LAPIC_LVT_TIMER] & LVT_DEADLINE)
        lapic_timer_rearm(&s->apic[cpu]);
}

/* ---- Snapshots: one section for the set ---- */

static void lapic_save(const struct lapic *a, struct snap_writer *w)
{
    const uint32_t regs[] = {a->tpr, a->ldr, a->dfr, a->svr, a->esr, a->esr_pending, a->timer_initial, a->timer_divide};
    snap_put_u64(w, a->base_msr);
    for (unsigned i = 0; i < ARRAY_LEN(regs); i++)
        snap_put_u32(w, regs[i]);
    snap_put_u64(w, a->icr);
    for (unsigned i = 0; i < 8; i++) {
        snap_put_u32(w, a->isr[i]);
        snap_put_u32(w, a->tmr[i]);
        snap_put_u32(w, a->irr[i]);
    }
    for (unsigned i = 0; i < LAPIC_LVT_COUNT; i++)
        snap_put_u32(w, a->lvt[i]);
    snap_put_u64(w, a->timer_start);
    snap_put_u64(w, a->tsc_deadline);
    const bool flags[] = {a->lint[0], a->lint[1], a->extint_latched, a->intr_level};
    for (unsigned i = 0; i < ARRAY_LEN(flags); i++)
        snap_put_u8(w, flags[i]);
    snap_put_u8(w, a->sipi_vector);
    timer_save(a->set->cfg.clock, &a->timer, w);
}

static void lapic_load(struct lapic *a, struct snap_reader *r)
{
    uint32_t *regs[] = {&a->tpr, &a->ldr,         &a->dfr,           &a->svr,
                        &a->esr, &a->esr_pending, &a->timer_initial, &a->timer_divide};
    a->base_msr = snap_get_u64(r);
    if (a->set->cfg.absent && a->base_msr)
        snap_fail(r, "lapic: enabled, and this processor has none");
    for (unsigned i = 0; i < ARRAY_LEN(regs); i++)
        *regs[i] = snap_get_u32(r);
    a->icr = snap_get_u64(r);
    for (unsigned i = 0; i < 8; i++) {
        a->isr[i] = snap_get_u32(r);
        a->tmr[i] = snap_get_u32(r);
        a->irr[i] = snap_get_u32(r);
    }
    for (unsigned i = 0; i < LAPIC_LVT_COUNT; i++)
        a->lvt[i] = snap_get_u32(r);
    a->timer_start = snap_get_u64(r);
    a->tsc_deadline = snap_get_u64(r);
    bool *flags[] = {&a->lint[0], &a->lint[1], &a->extint_latched, &a->intr_level};
    for (unsigned i = 0; i < ARRAY_LEN(flags); i++)
        *flags[i] = snap_get_u8(r) != 0;
    a->sipi_vector = snap_get_u8(r);
    timer_load(a->set->cfg.clock, &a->timer, r);
    a->intr_level = wants_intr(a); /* whatever the file says: a pin without a vector would keep waking a halted CPU */
    drive_pin(a, CPU_PIN_INTR, a->intr_level);
}

bool lapic_set_passes_nonmaskable(const struct lapic_set *s)
{
    for (unsigned i = 0; i < s->cfg.cpu_count; i++) {
        uint32_t lvt = s->apic[i].lvt[LAPIC_LVT_LINT0];
        if (!(lvt & LVT_MASKED) && apic_mode_is_nonmaskable(LVT_MODE(lvt)))
            return true;
    }
    return false;
}

void lapic_set_save(const struct lapic_set *s, struct snap_writer *w)
{
    snap_begin(w, "lapic", 1);
    snap_put_u32(w, s->cfg.cpu_count);
    for (unsigned i = 0; i < s->cfg.cpu_count; i++)
        lapic_save(&s->apic[i], w);
    snap_end(w);
}

void lapic_set_load(struct lapic_set *s, struct snap_reader *r)
{
    if (!snap_expect(r, "lapic", 1))
        return;
    uint32_t count = snap_get_u32(r);
    if (count != s->cfg.cpu_count) {
        snap_fail(r, "lapic: saved with %u processors, this machine has %u", count, s->cfg.cpu_count);
        return;
    }
    for (unsigned i = 0; i < count; i++)
        lapic_load(&s->apic[i], r);
}
