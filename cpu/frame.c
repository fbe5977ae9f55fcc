/*
 * Frames on stacks: what events, gates and far calls push, and what returns pop. A frame is checked whole before its
 * first byte is written.
 */
#include "cpu/system.h"

#define FRAME_MAX 36 /* a call gate with 31 parameters is the largest */

static uint64_t stack_mask(const struct frame_stack *s)
{
    if (s->long_addr)
        return ~0ull;
    return s->ss.attr & SEG_ATTR_DB ? 0xffffffffu : 0xffffu;
}

void frame_stack_current(const struct vcpu *v, struct frame_stack *s)
{
    s->ss = v->seg[SEG_SS];
    s->rsp = v->gpr[REG_RSP];
    s->long_addr = mode_is_code64(v);
    s->cpl = v->cpl;
    s->err_sel = 0;
}

/* Does [off, off + len) lie inside the stack segment? */
static bool is_inside(const struct frame_stack *s, uint64_t off, unsigned len)
{
    uint64_t last = off + len - 1;
    if (attr_is_data(s->ss.attr) && (s->ss.attr & ATTR_DOWN))
        return off > s->ss.limit && last <= (s->ss.attr & SEG_ATTR_DB ? 0xffffffffu : 0xffffu);
    return last <= s->ss.limit;
}

static uint64_t frame_linear(struct vcpu *v, const struct insn *i, const struct frame_stack *s, uint64_t off,
                             unsigned len)
{
    if (s->long_addr) {
        if (!addr_is_canonical(v, off) || !addr_is_canonical(v, off + len - 1))
            vcpu_raise_error(v, i, EXC_SS, s->err_sel & 0xfffcu);
        return off;
    }
    if (s->ss.unusable || !is_inside(s, off, len))
        vcpu_raise_error(v, i, EXC_SS, s->err_sel & 0xfffcu);
    return (uint32_t)(s->ss.base + off);
}

/* A frame that wraps around the end of its segment: slot by slot, after all of it was probed. */
static void push_wrapping(struct vcpu *v, const struct insn *i, const struct frame_stack *s, const uint64_t *val,
                          unsigned n, unsigned size, uint64_t mask)
{
    for (unsigned k = 0; k < n; k++)
        lin_probe_write(v, i, frame_linear(v, i, s, (s->rsp - (k + 1) * size) & mask, size), size);
    for (unsigned k = 0; k < n; k++)
        lin_write_bytes(v, i, frame_linear(v, i, s, (s->rsp - (k + 1) * size) & mask, size), &val[k], size);
}

void frame_push(struct vcpu *v, const struct insn *i, struct frame_stack *s, const uint64_t *val, unsigned n,
                unsigned size)
{
    uint8_t bytes[FRAME_MAX * 8];
    uint64_t mask = stack_mask(s), top = (s->rsp - n * size) & mask;
    if (s->cpl != v->cpl)
        mmu_vcpu_set_mode(v->mv, s->cpl, v->rflags & FLAG_AC);
    if (top + n * size > mask && !s->long_addr && top + n * size != mask + 1) {
        push_wrapping(v, i, s, val, n, size, mask);
    } else {
        for (unsigned k = 0; k < n; k++)
            memcpy(bytes + (n - 1 - k) * size, &val[k], size);
        lin_write_bytes(v, i, frame_linear(v, i, s, top, n * size), bytes, n * size);
    }
    if (s->cpl != v->cpl)
        mmu_vcpu_set_mode(v->mv, v->cpl, v->rflags & FLAG_AC);
    s->rsp = mask == 0xffff ? (s->rsp & ~mask) | top : top;
}

uint64_t frame_peek(struct vcpu *v, const struct insn *i, unsigned offset, unsigned size)
{
    struct frame_stack s;
    frame_stack_current(v, &s);
    return lin_load(v, i, frame_linear(v, i, &s, (s.rsp + offset) & stack_mask(&s), size), size);
}

void frame_set_rsp(struct vcpu *v, uint64_t rsp)
{
    if (mode_is_code64(v))
        v->gpr[REG_RSP] = rsp;
    else if (v->seg[SEG_SS].attr & SEG_ATTR_DB)
        v->gpr[REG_RSP] = (uint32_t)rsp;
    else
        reg_set16(v, REG_RSP, (uint16_t)rsp);
}

/* A field of the TSS; outside its limit #TS(TR). */
static uint64_t tss_field(struct vcpu *v, const struct insn *i, unsigned offset, unsigned size)
{
    if (v->tr.unusable || offset + size - 1 > v->tr.limit)
        vcpu_raise_error(v, i, EXC_TS, v->tr.sel & 0xfffcu);
    uint64_t lin = v->tr.base + offset;
    return lin_load_sys(v, i, mode_is_long(v) ? lin : (uint32_t)lin, size);
}

void frame_tss_stack(struct vcpu *v, const struct insn *i, unsigned cpl, uint16_t *ss, uint64_t *rsp)
{
    if (mode_is_long(v)) {
        *rsp = tss_field(v, i, 4 + 8 * cpl, 8);
        *ss = 0;
    } else if (v->tr.attr & 8) { /* 32-bit TSS */
        *rsp = tss_field(v, i, 4 + 8 * cpl, 4);
        *ss = (uint16_t)tss_field(v, i, 8 + 8 * cpl, 2);
    } else {
        *rsp = tss_field(v, i, 2 + 4 * cpl, 2);
        *ss = (uint16_t)tss_field(v, i, 4 + 4 * cpl, 2);
    }
}

uint64_t frame_tss_ist(struct vcpu *v, const struct insn *i, unsigned ist)
{
    return tss_field(v, i, 0x1c + 8 * ist, 8);
}
