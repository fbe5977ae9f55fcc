/*
 * Segments: descriptors, loads with their checks, limits (SDM volume 3, chapters 3.4 and 5).
 */
#include "cpu/cpuid.h"
#include "cpu/system.h"

bool base_is_canonical(const struct vcpu *v, uint64_t a)
{
    unsigned shift = cpu_has(v, CPU_FEATURE_LA57) ? 7 : 16;
    return (uint64_t)((int64_t)(a << shift) >> shift) == a;
}

/* ---- descriptor tables ---- */

static bool table_of(const struct vcpu *v, uint16_t sel, uint64_t *base, uint32_t *limit)
{
    if (sel & 4) {
        *base = v->ldtr.base;
        *limit = v->ldtr.limit;
        return !v->ldtr.unusable && (v->ldtr.attr & SEG_ATTR_P);
    }
    *base = v->gdtr.base;
    *limit = v->gdtr.limit;
    return true;
}

bool desc_try_read(struct vcpu *v, const struct insn *i, uint16_t sel, struct descriptor *d)
{
    uint64_t base;
    uint32_t limit;
    if (!table_of(v, sel, &base, &limit) || (sel | 7u) > limit)
        return false;
    d->linear = base + (sel & 0xfff8u);
    if (!mode_is_long(v))
        d->linear = (uint32_t)d->linear;
    d->raw = lin_load_sys(v, i, d->linear, 8);
    return true;
}

void desc_read(struct vcpu *v, const struct insn *i, uint16_t sel, enum exception vector, struct descriptor *d)
{
    if (!desc_try_read(v, i, sel, d))
        vcpu_raise_error(v, i, vector, sel & 0xfffcu);
}

uint64_t desc_read_high(struct vcpu *v, const struct insn *i, uint16_t sel, enum exception vector)
{
    uint64_t base;
    uint32_t limit;
    if (!table_of(v, sel, &base, &limit) || (sel | 7u) + 8 > limit)
        vcpu_raise_error(v, i, vector, sel & 0xfffcu);
    uint64_t high = lin_load_sys(v, i, base + (sel & 0xfff8u) + 8, 8);
    if (high >> 32 & 0x1f00) /* the type field of the upper half must be zero */
        vcpu_raise_error(v, i, vector, sel & 0xfffcu);
    return high;
}

void desc_set_accessed(struct vcpu *v, const struct insn *i, struct descriptor *d)
{
    if (d->raw >> 40 & ATTR_ACCESSED)
        return;
    d->raw |= (uint64_t)ATTR_ACCESSED << 40;
    lin_store_sys(v, i, d->linear + 5, d->raw >> 40 & 0xff, 1);
}

/* ---- hidden parts ---- */

static void set_hidden(struct segment *s, uint16_t sel, uint64_t raw)
{
    s->sel = sel;
    s->base = desc_base(raw);
    s->limit = desc_limit(raw);
    s->attr = (uint16_t)desc_attr(raw);
    s->unusable = false;
}

void segment_set(struct vcpu *v, int seg, uint16_t sel, uint64_t raw)
{
    set_hidden(&v->seg[seg], sel, raw);
}

void segment_set_null(struct vcpu *v, int seg, uint16_t sel)
{
    /* SS keeps a DPL, which is CPL even when SS is null. */
    v->seg[seg] = (struct segment){.sel = sel, .unusable = true, .attr = (uint16_t)(seg == SEG_SS ? v->cpl << 5 : 0)};
}

void segment_set_flat(struct vcpu *v, int seg, uint16_t sel, unsigned attr)
{
    v->seg[seg] = (struct segment){.sel = sel, .limit = 0xffffffff, .attr = (uint16_t)attr};
}

void vcpu_set_segment(struct vcpu *v, int seg, uint16_t sel, uint64_t base, uint32_t limit, uint16_t attr)
{
    v->seg[seg] = (struct segment){.sel = sel, .base = base, .limit = limit, .attr = attr, .unusable = false};
}

/* ---- loads ---- */

/* Real and virtual-8086 mode: base follows the selector. Real mode keeps limit and size ("unreal" mode). */
static void load_real(struct vcpu *v, int seg, uint16_t sel)
{
    struct segment *s = &v->seg[seg];
    s->sel = sel;
    s->base = (uint64_t)sel << 4;
    s->unusable = false;
    s->attr = (uint16_t)((s->attr & (ATTR_G | SEG_ATTR_DB)) | SEG_ATTR_P | ATTR_S | ATTR_RW | ATTR_ACCESSED);
    if (v->rflags & FLAG_VM) {
        s->limit = 0xffff;
        s->attr = SEG_ATTR_P | 3u << 5 | ATTR_S | ATTR_RW | ATTR_ACCESSED;
    }
}

void stack_segment_check(struct vcpu *v, const struct insn *i, uint16_t sel, unsigned cpl, enum exception vector,
                         struct descriptor *d)
{
    uint32_t err = sel & 0xfffcu;
    if (sel_is_null(sel))
        vcpu_raise_error(v, i, vector, 0);
    desc_read(v, i, sel, vector, d);
    unsigned attr = desc_attr(d->raw);
    if ((sel & 3u) != cpl || !attr_is_data(attr) || !(attr & ATTR_RW) || ATTR_DPL(attr) != cpl)
        vcpu_raise_error(v, i, vector, err);
    if (!(attr & SEG_ATTR_P))
        vcpu_raise_error(v, i, EXC_SS, err);
    desc_set_accessed(v, i, d);
}

static void load_ss(struct vcpu *v, const struct insn *i, uint16_t sel)
{
    struct descriptor d;
    if (sel_is_null(sel) && mode_is_code64(v) && v->cpl < 3 && (sel & 3u) == v->cpl) {
        segment_set_null(v, SEG_SS, sel);
        return;
    }
    stack_segment_check(v, i, sel, v->cpl, EXC_GP, &d);
    segment_set(v, SEG_SS, sel, d.raw);
}

static void load_data(struct vcpu *v, const struct insn *i, int seg, uint16_t sel)
{
    struct descriptor d;
    uint32_t err = sel & 0xfffcu;
    if (sel_is_null(sel)) {
        segment_set_null(v, seg, sel);
        return;
    }
    desc_read(v, i, sel, EXC_GP, &d);
    unsigned attr = desc_attr(d.raw), dpl = ATTR_DPL(attr);
    bool readable = attr_is_data(attr) || (attr_is_code(attr) && (attr & ATTR_RW));
    bool conforming = attr_is_code(attr) && (attr & ATTR_CONFORMING);
    if (!readable || (!conforming && ((sel & 3u) > dpl || v->cpl > dpl)))
        vcpu_raise_error(v, i, EXC_GP, err);
    if (!(attr & SEG_ATTR_P))
        vcpu_raise_error(v, i, EXC_NP, err);
    desc_set_accessed(v, i, &d);
    segment_set(v, seg, sel, d.raw);
}

void segment_load(struct vcpu *v, const struct insn *i, int seg, uint16_t sel)
{
    if (!mode_is_protected(v))
        load_real(v, seg, sel);
    else if (seg == SEG_SS)
        load_ss(v, i, sel);
    else
        load_data(v, i, seg, sel);
    if (mode_is_code64(v) && seg != SEG_SS)
        v->seg_base[seg] = seg == SEG_FS || seg == SEG_GS ? v->seg[seg].base : 0;
    else
        mode_update(v);
}

void segment_lldt(struct vcpu *v, const struct insn *i, uint16_t sel)
{
    struct descriptor d;
    uint32_t err = sel & 0xfffcu;
    if (sel_is_null(sel)) {
        v->ldtr = (struct segment){.sel = sel, .unusable = true};
        return;
    }
    if (sel & 4)
        vcpu_raise_error(v, i, EXC_GP, err);
    desc_read(v, i, sel, EXC_GP, &d);
    unsigned attr = desc_attr(d.raw);
    if ((attr & (ATTR_S | ATTR_TYPE)) != SYS_LDT)
        vcpu_raise_error(v, i, EXC_GP, err);
    uint64_t high = mode_is_long(v) ? desc_read_high(v, i, sel, EXC_GP) : 0;
    if (!(attr & SEG_ATTR_P))
        vcpu_raise_error(v, i, EXC_NP, err);
    uint64_t base = desc_base(d.raw) | high << 32;
    if (!base_is_canonical(v, base))
        vcpu_raise_error(v, i, EXC_GP, err);
    set_hidden(&v->ldtr, sel, d.raw);
    v->ldtr.base = base;
}

void segment_ltr(struct vcpu *v, const struct insn *i, uint16_t sel)
{
    struct descriptor d;
    uint32_t err = sel & 0xfffcu;
    if (sel_is_null(sel))
        vcpu_raise_error(v, i, EXC_GP, 0);
    if (sel & 4)
        vcpu_raise_error(v, i, EXC_GP, err);
    desc_read(v, i, sel, EXC_GP, &d);
    unsigned attr = desc_attr(d.raw), type = attr & (ATTR_S | ATTR_TYPE);
    if (type != SYS_TSS && (type != SYS_TSS16 || mode_is_long(v)))
        vcpu_raise_error(v, i, EXC_GP, err);
    uint64_t high = mode_is_long(v) ? desc_read_high(v, i, sel, EXC_GP) : 0;
    if (!(attr & SEG_ATTR_P))
        vcpu_raise_error(v, i, EXC_NP, err);
    uint64_t base = desc_base(d.raw) | high << 32;
    if (!base_is_canonical(v, base))
        vcpu_raise_error(v, i, EXC_GP, err);
    d.raw |= 2ull << 40; /* busy */
    lin_store_sys(v, i, d.linear + 5, d.raw >> 40 & 0xff, 1);
    set_hidden(&v->tr, sel, d.raw);
    v->tr.base = base;
}

/* ---- LAR, LSL, VERR, VERW ---- */

/* Is the descriptor visible at max(CPL, RPL)? Conforming code is at every level. */
static bool is_visible(const struct vcpu *v, uint16_t sel, unsigned attr)
{
    if (attr_is_code(attr) && (attr & ATTR_CONFORMING))
        return true;
    return v->cpl <= ATTR_DPL(attr) && (sel & 3u) <= ATTR_DPL(attr);
}

/* System types that LAR (and LSL, without gates) accepts: SDM volume 2, tables of LAR and LSL. */
static bool is_system_type(const struct vcpu *v, unsigned type, bool gates)
{
    static const uint16_t legacy =
                              1 << SYS_TSS16 | 1 << SYS_LDT | 1 << SYS_TSS16_BUSY | 1 << SYS_TSS | 1 << SYS_TSS_BUSY,
                          legacy_gates = 1 << SYS_CALL16 | 1 << SYS_TASK_GATE | 1 << SYS_CALL,
                          wide = 1 << SYS_LDT | 1 << SYS_TSS | 1 << SYS_TSS_BUSY, wide_gates = 1 << SYS_CALL;
    unsigned set = mode_is_long(v) ? wide : legacy;
    if (gates)
        set |= mode_is_long(v) ? wide_gates : legacy_gates;
    return set >> type & 1;
}

static bool find_visible(struct vcpu *v, const struct insn *i, uint16_t sel, bool gates, struct descriptor *d)
{
    if (sel_is_null(sel) || !desc_try_read(v, i, sel, d))
        return false;
    unsigned attr = desc_attr(d->raw);
    if (!(attr & ATTR_S) && !is_system_type(v, attr & ATTR_TYPE, gates))
        return false;
    return is_visible(v, sel, attr);
}

bool segment_lar(struct vcpu *v, const struct insn *i, uint16_t sel, uint32_t *out)
{
    struct descriptor d;
    if (!find_visible(v, i, sel, true, &d))
        return false;
    *out = (uint32_t)(d.raw >> 32) & 0x00f0ff00u;
    return true;
}

bool segment_lsl(struct vcpu *v, const struct insn *i, uint16_t sel, uint32_t *out)
{
    struct descriptor d;
    if (!find_visible(v, i, sel, false, &d))
        return false;
    *out = desc_limit(d.raw);
    return true;
}

bool segment_verify(struct vcpu *v, const struct insn *i, uint16_t sel, bool write)
{
    struct descriptor d;
    if (sel_is_null(sel) || !desc_try_read(v, i, sel, &d))
        return false;
    unsigned attr = desc_attr(d.raw);
    if (!(attr & ATTR_S) || !is_visible(v, sel, attr))
        return false;
    if (write)
        return attr_is_data(attr) && (attr & ATTR_RW);
    return attr_is_data(attr) || (attr & ATTR_RW);
}

/* ---- limits ---- */

static bool type_allows(const struct vcpu *v, const struct segment *s, bool write)
{
    if (!mode_is_protected(v))
        return true; /* real mode looks at the limit alone */
    if (s->unusable || !(s->attr & SEG_ATTR_P))
        return false;
    if (attr_is_code(s->attr))
        return !write && (s->attr & ATTR_RW);
    return !write || (s->attr & ATTR_RW);
}

bool segment_allows(const struct vcpu *v, int seg, uint64_t off, unsigned size, bool write)
{
    const struct segment *s = &v->seg[seg];
    uint64_t last = off + size - 1;
    if (!type_allows(v, s, write))
        return false;
    if (attr_is_data(s->attr) && (s->attr & ATTR_DOWN) && mode_is_protected(v))
        return off > s->limit && last <= (s->attr & SEG_ATTR_DB ? 0xffffffffu : 0xffffu);
    return last <= s->limit;
}

uint64_t seg_linear_checked(struct vcpu *v, const struct insn *i, unsigned seg, uint64_t off, unsigned size,
                            unsigned write)
{
    if (mode_is_code64(v))
        return off + v->seg_base[seg];
    if (!segment_allows(v, (int)seg, off, size, write))
        vcpu_raise_error(v, i, seg == SEG_SS ? EXC_SS : EXC_GP, 0);
    return (uint32_t)(off + v->seg[seg].base);
}
