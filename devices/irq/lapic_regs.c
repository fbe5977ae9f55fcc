/*
 * The local APIC's register files: xAPIC MMIO (one 32-bit register in each 16 bytes) and the x2APIC MSRs (SDM 11.12),
 * which share register numbers: register n is at offset 16 * n and at MSR 0x800 + n.
 */
#include "devices/irq/lapic_internal.h"

enum {
    REG_ID = 0x02,
    REG_VERSION = 0x03,
    REG_TPR = 0x08,
    REG_APR = 0x09,
    REG_PPR = 0x0a,
    REG_EOI = 0x0b,
    REG_LDR = 0x0d,
    REG_DFR = 0x0e,
    REG_SVR = 0x0f,
    REG_ISR = 0x10,
    REG_TMR = 0x18,
    REG_IRR = 0x20,
    REG_ESR = 0x28,
    REG_ICR_LOW = 0x30,
    REG_ICR_HIGH = 0x31,
    REG_LVT = 0x32, /* six of them, in the order of enum lapic_lvt */
    REG_TIMER_INITIAL = 0x38,
    REG_TIMER_CURRENT = 0x39,
    REG_TIMER_DIVIDE = 0x3e,
    REG_SELF_IPI = 0x3f
};

#define VERSION_VALUE ((LAPIC_LVT_COUNT - 1) << 16 | 0x14)
#define ICR_WRITABLE  0x000ccfffu /* without the delivery status, bit 12 */

static bool in_range(uint32_t reg, uint32_t first, uint32_t count)
{
    return reg >= first && reg < first + count;
}

/* Registers that both files have. False: no such readable register. */
static bool read_common(const struct lapic *a, uint32_t reg, uint32_t *v)
{
    if (in_range(reg, REG_ISR, 8))
        *v = a->isr[reg - REG_ISR];
    else if (in_range(reg, REG_TMR, 8))
        *v = a->tmr[reg - REG_TMR];
    else if (in_range(reg, REG_IRR, 8))
        *v = a->irr[reg - REG_IRR];
    else if (in_range(reg, REG_LVT, LAPIC_LVT_COUNT))
        *v = a->lvt[reg - REG_LVT];
    else {
        switch (reg) {
        case REG_VERSION:
            *v = VERSION_VALUE;
            break;
        case REG_TPR:
            *v = a->tpr;
            break;
        case REG_PPR:
            *v = lapic_ppr(a);
            break;
        case REG_SVR:
            *v = a->svr;
            break;
        case REG_ESR:
            *v = a->esr;
            break;
        case REG_TIMER_INITIAL:
            *v = a->timer_initial;
            break;
        case REG_TIMER_CURRENT:
            *v = lapic_timer_current(a);
            break;
        case REG_TIMER_DIVIDE:
            *v = a->timer_divide;
            break;
        default:
            return false;
        }
    }
    return true;
}

/* False: no such writable register. */
static bool write_common(struct lapic *a, uint32_t reg, uint32_t v)
{
    if (in_range(reg, REG_LVT, LAPIC_LVT_COUNT)) {
        lapic_write_lvt(a, (enum lapic_lvt)(reg - REG_LVT), v);
        return true;
    }
    switch (reg) {
    case REG_TPR:
        a->tpr = v & 0xff;
        lapic_update_intr(a);
        return true;
    case REG_EOI:
        lapic_eoi(a);
        return true;
    case REG_SVR:
        lapic_write_svr(a, v);
        return true;
    case REG_ESR: /* a write of any value shows the errors since the last one */
        a->esr = a->esr_pending;
        a->esr_pending = 0;
        return true;
    case REG_TIMER_INITIAL:
        lapic_timer_write_initial(a, v);
        return true;
    case REG_TIMER_DIVIDE:
        lapic_timer_write_divide(a, v);
        return true;
    default:
        return false;
    }
}

/* ---- xAPIC ---- */

static bool read_xapic(const struct lapic *a, uint32_t reg, uint32_t *v)
{
    switch (reg) {
    case REG_ID:
        *v = a->id << 24;
        return true;
    case REG_APR:
        *v = lapic_ppr(a);
        return true;
    case REG_EOI:
        *v = 0;
        return true;
    case REG_LDR:
        *v = a->ldr;
        return true;
    case REG_DFR:
        *v = a->dfr;
        return true;
    case REG_ICR_LOW:
        *v = (uint32_t)a->icr;
        return true;
    case REG_ICR_HIGH:
        *v = (uint32_t)(a->icr >> 32);
        return true;
    default:
        return read_common(a, reg, v);
    }
}

static bool write_xapic(struct lapic *a, uint32_t reg, uint32_t v)
{
    switch (reg) {
    case REG_ID: /* read-only here: IDs are wired */
        return true;
    case REG_LDR:
        a->ldr = v & 0xff000000;
        return true;
    case REG_DFR:
        a->dfr = v | 0x0fffffff;
        return true;
    case REG_ICR_LOW:
        a->icr = (a->icr & ~0xffffffffull) | (v & ICR_WRITABLE);
        lapic_send_ipi(a);
        return true;
    case REG_ICR_HIGH:
        a->icr = (a->icr & 0xffffffffull) | (uint64_t)(v & 0xff000000) << 32;
        return true;
    default:
        return write_common(a, reg, v);
    }
}

/* NULL: no APIC answers (disabled, in x2APIC mode, or the initiator is no CPU). */
static struct lapic *answering(struct lapic_set *s, const struct bus_txn *t)
{
    if (t->cpu < 0 || (unsigned)t->cpu >= s->cfg.cpu_count)
        return NULL;
    struct lapic *a = &s->apic[t->cpu];
    return lapic_is_enabled(a) && !lapic_is_x2apic(a) ? a : NULL;
}

static uint64_t lapic_mmio_read(void *dev, const struct bus_txn *t)
{
    struct lapic_set *s = dev;
    struct lapic *a = answering(s, t);
    uint32_t v;
    if (!a)
        return ~0ull;
    if ((t->offset & 15) > 3)
        return 0; /* the 12 bytes behind a register are reserved */
    if (!read_xapic(a, (uint32_t)(t->offset >> 4), &v)) {
        device_log(s->cfg.log, LOG_GUEST_ERROR, "lapic %u: read of reserved offset 0x%llx", a->index,
                   (unsigned long long)t->offset);
        lapic_raise_error(a, ESR_REGISTER);
        return 0;
    }
    return v >> (8 * (t->offset & 3));
}

static void lapic_mmio_write(void *dev, const struct bus_txn *t, uint64_t value)
{
    struct lapic_set *s = dev;
    if (t->cpu == BUS_NO_CPU) {
        lapic_set_msi(s, LAPIC_DEFAULT_BASE + t->offset, (uint32_t)value);
        return;
    }
    struct lapic *a = answering(s, t);
    if (!a)
        return;
    if ((t->offset & 15) || t->size < 4) {
        device_log(s->cfg.log, LOG_GUEST_ERROR,
                   "lapic %u: write of %u bytes at offset 0x%llx ignored: registers are 32 bits wide", a->index,
                   t->size, (unsigned long long)t->offset);
        return;
    }
    if (!write_xapic(a, (uint32_t)(t->offset >> 4), (uint32_t)value)) {
        device_log(s->cfg.log, LOG_GUEST_ERROR, "lapic %u: write of reserved offset 0x%llx", a->index,
                   (unsigned long long)t->offset);
        lapic_raise_error(a, ESR_REGISTER);
    }
}

const struct bus_ops lapic_bus_ops = {lapic_mmio_read, lapic_mmio_write};

/* ---- x2APIC ---- */

static bool read_x2apic(const struct lapic *a, uint32_t reg, uint64_t *value)
{
    uint32_t v;
    switch (reg) {
    case REG_ID:
        *value = a->id;
        return true;
    case REG_LDR:
        *value = lapic_x2apic_ldr(a);
        return true;
    case REG_ICR_LOW:
        *value = a->icr;
        return true;
    default:
        if (!read_common(a, reg, &v))
            return false;
        *value = v;
        return true;
    }
}

/* Bits of a register that may be written as ones; a write of others is a #GP. */
static uint64_t writable_bits(uint32_t reg)
{
    static const uint32_t lvt[LAPIC_LVT_COUNT] = {0x710ff, 0x117ff, 0x117ff, 0x1f7ff, 0x1f7ff, 0x110ff};
    if (in_range(reg, REG_LVT, LAPIC_LVT_COUNT))
        return lvt[reg - REG_LVT];
    switch (reg) {
    case REG_TPR:
    case REG_SELF_IPI:
        return 0xff;
    case REG_SVR:
        return 0x3ff;
    case REG_ICR_LOW:
        return 0xffffffff00000000ull | ICR_WRITABLE;
    case REG_TIMER_INITIAL:
        return 0xffffffff;
    case REG_TIMER_DIVIDE:
        return 0xb;
    default: /* EOI and ESR take zero only */
        return 0;
    }
}

static bool write_x2apic(struct lapic *a, uint32_t reg, uint64_t value)
{
    if (value & ~writable_bits(reg))
        return false;
    switch (reg) {
    case REG_ICR_LOW:
        a->icr = value;
        lapic_send_ipi(a);
        return true;
    case REG_SELF_IPI:
        lapic_self_ipi(a, (uint8_t)value);
        return true;
    default:
        return write_common(a, reg, (uint32_t)value);
    }
}

/* ---- IA32_APIC_BASE (SDM 11.4.4 and the state diagram of 11.12.5) ---- */

static bool base_transition_is_legal(uint64_t old, uint64_t new)
{
    bool was_on = old & APIC_BASE_ENABLE, was_x2 = old & APIC_BASE_X2APIC;
    bool on = new &APIC_BASE_ENABLE, x2 = new &APIC_BASE_X2APIC;
    if (x2 && !on)
        return false;
    if (was_x2 && on && !x2)
        return false; /* x2APIC is left through the disabled state */
    return !(x2 && !was_on);
}

static bool write_base(struct lapic *a, uint64_t value)
{
    const struct lapic_set_config *cfg = &a->set->cfg;
    uint64_t address = ((1ull << cfg->maxphyaddr) - 1) & ~0xfffull;
    uint64_t allowed = address | APIC_BASE_BSP | APIC_BASE_ENABLE | (cfg->x2apic ? APIC_BASE_X2APIC : 0);
    if ((value & ~allowed) || !base_transition_is_legal(a->base_msr, value))
        return false;
    if ((value & address) != LAPIC_DEFAULT_BASE)
        device_log(cfg->log, LOG_UNIMP, "lapic %u: IA32_APIC_BASE moved to 0x%llx; registers stay at 0x%llx", a->index,
                   (unsigned long long)(value & address), LAPIC_DEFAULT_BASE);
    if ((a->base_msr & APIC_BASE_ENABLE) && !(value & APIC_BASE_ENABLE))
        lapic_reset_registers(a);
    if ((value & APIC_BASE_X2APIC) && !(a->base_msr & APIC_BASE_X2APIC))
        a->icr &= 0xffffffff;
    a->base_msr = value;
    lapic_update_intr(a);
    return true;
}

bool lapic_msr_read(void *ctx, uint32_t index, uint64_t *value)
{
    struct lapic *a = ctx;
    if (index == MSR_APIC_BASE) {
        *value = a->base_msr;
        return true;
    }
    if (index == MSR_TSC_DEADLINE) {
        *value = a->tsc_deadline;
        return true;
    }
    return in_range(index, MSR_X2APIC, 0x100) && lapic_is_x2apic(a) && read_x2apic(a, index - MSR_X2APIC, value);
}

bool lapic_msr_write(void *ctx, uint32_t index, uint64_t value)
{
    struct lapic *a = ctx;
    if (index == MSR_APIC_BASE)
        return write_base(a, value);
    if (index == MSR_TSC_DEADLINE) {
        lapic_timer_write_deadline(a, value);
        return true;
    }
    return in_range(index, MSR_X2APIC, 0x100) && lapic_is_x2apic(a) && write_x2apic(a, index - MSR_X2APIC, value);
}
