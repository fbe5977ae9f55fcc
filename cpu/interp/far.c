/*
 * Far jumps, calls and returns, with call gates; to tasks they go through cpu/task.c (SDM volume 2: JMP, CALL, RET;
 * volume 3, 5.8).
 */
#include "cpu/optable.h"
#include "cpu/system.h"
#include "cpu/task.h"

/* ---- code segments ---- */

static void check_rip(struct vcpu *v, const struct insn *i, uint64_t raw, uint64_t rip)
{
    bool wide = mode_is_long(v) && (desc_attr(raw) & SEG_ATTR_L);
    if (wide ? !addr_is_canonical(v, rip) : rip > desc_limit(raw))
        vcpu_raise_error(v, i, EXC_GP, 0);
}

static bool has_bad_size_bits(const struct vcpu *v, unsigned attr)
{
    return mode_is_long(v) && (attr & SEG_ATTR_L) && (attr & SEG_ATTR_DB);
}

/* A code segment reached without a gate stays at CPL. */
static void check_direct(struct vcpu *v, const struct insn *i, uint16_t sel, uint64_t raw)
{
    unsigned attr = desc_attr(raw), dpl = ATTR_DPL(attr);
    bool ok = attr & ATTR_CONFORMING ? dpl <= v->cpl : (sel & 3u) <= v->cpl && dpl == v->cpl;
    if (!attr_is_code(attr) || !ok || has_bad_size_bits(v, attr))
        vcpu_raise_error(v, i, EXC_GP, sel & 0xfffcu);
    if (!(attr & SEG_ATTR_P))
        vcpu_raise_error(v, i, EXC_NP, sel & 0xfffcu);
}

static void enter_code(struct vcpu *v, uint16_t sel, uint64_t raw, unsigned cpl)
{
    segment_set(v, SEG_CS, (uint16_t)((sel & ~3u) | cpl), raw);
    mode_set_cpl(v, cpl);
}

/* ---- operands ---- */

struct far_pointer {
    uint16_t sel;
    uint64_t off;
};

static struct far_pointer far_operand(struct vcpu *v, const struct insn *i)
{
    struct far_pointer p;
    if (i->enc == ENC_II) {
        p.sel = i->imm2;
        p.off = i->opsize == 2 ? (uint16_t)i->imm : (uint32_t)i->imm;
        return p;
    }
    uint64_t lin = insn_linear(v, i, i->opsize + 2u, 0);
    p.off = lin_load(v, i, lin, i->opsize);
    p.sel = lin_load16(v, i, mode_is_code64(v) ? lin + i->opsize : (uint32_t)(lin + i->opsize));
    return p;
}

/* ---- real mode ---- */

static void enter_real(struct vcpu *v, const struct insn *i, struct far_pointer p)
{
    v->seg[SEG_CS].sel = p.sel;
    v->seg[SEG_CS].base = (uint64_t)p.sel << 4;
    mode_update(v);
    block_end(v, i, p.off, 2);
}

static void check_real(struct vcpu *v, const struct insn *i, uint64_t off)
{
    if (off > v->seg[SEG_CS].limit)
        vcpu_raise_error(v, i, EXC_GP, 0);
}

/* ---- call gates ---- */

struct call_gate {
    uint16_t sel;
    unsigned type, count; /* parameters to copy */
    uint64_t off;
    struct descriptor cs;
};

static bool leads_to_task(const struct vcpu *v, uint64_t raw)
{
    unsigned type = desc_attr(raw) & ATTR_TYPE;
    return !mode_is_long(v) && (type == SYS_TASK_GATE || type == SYS_TSS || type == SYS_TSS16);
}

/* The system descriptor behind `sel` must be a call gate; reads it and the code segment behind it. */
static void call_gate_read(struct vcpu *v, const struct insn *i, uint16_t sel, uint64_t raw, struct call_gate *g)
{
    unsigned attr = desc_attr(raw), type = attr & ATTR_TYPE, dpl = ATTR_DPL(attr);
    bool legacy = !mode_is_long(v);
    if (type != SYS_CALL && !(legacy && type == SYS_CALL16))
        vcpu_raise_error(v, i, EXC_GP, sel & 0xfffcu);
    if (dpl < v->cpl || dpl < (sel & 3u))
        vcpu_raise_error(v, i, EXC_GP, sel & 0xfffcu);
    uint64_t high = legacy ? 0 : desc_read_high(v, i, sel, EXC_GP);
    if (!(attr & SEG_ATTR_P))
        vcpu_raise_error(v, i, EXC_NP, sel & 0xfffcu);
    g->sel = (uint16_t)(raw >> 16);
    g->type = type;
    g->count = legacy ? raw >> 32 & 31 : 0;
    g->off = (raw & 0xffff) | (type == SYS_CALL ? raw >> 32 & 0xffff0000 : 0) | high << 32;
    if (sel_is_null(g->sel))
        vcpu_raise_error(v, i, EXC_GP, 0);
    desc_read(v, i, g->sel, EXC_GP, &g->cs);
    attr = desc_attr(g->cs.raw);
    if (!attr_is_code(attr) || ATTR_DPL(attr) > v->cpl || (!legacy && (!(attr & SEG_ATTR_L) || (attr & SEG_ATTR_DB))))
        vcpu_raise_error(v, i, EXC_GP, g->sel & 0xfffcu);
    if (!(attr & SEG_ATTR_P))
        vcpu_raise_error(v, i, EXC_NP, g->sel & 0xfffcu);
}

static bool gate_goes_inward(const struct vcpu *v, const struct call_gate *g)
{
    unsigned attr = desc_attr(g->cs.raw);
    return !(attr & ATTR_CONFORMING) && ATTR_DPL(attr) < v->cpl;
}

static void gate_jump(struct vcpu *v, const struct insn *i, const struct far_pointer *p, uint64_t raw)
{
    struct call_gate g;
    if (leads_to_task(v, raw))
        return task_transfer(v, i, TASK_JMP, p->sel, raw);
    call_gate_read(v, i, p->sel, raw, &g);
    if (gate_goes_inward(v, &g)) /* a jump cannot change CPL */
        vcpu_raise_error(v, i, EXC_GP, g.sel & 0xfffcu);
    check_rip(v, i, g.cs.raw, g.off);
    desc_set_accessed(v, i, &g.cs);
    enter_code(v, g.sel, g.cs.raw, v->cpl);
    block_end(v, i, g.off, 2);
}

/* To an inner level: a stack from the TSS; old SS:RSP, parameters and return address are pushed on it. */
static void gate_call_inward(struct vcpu *v, const struct insn *i, const struct call_gate *g)
{
    unsigned cpl = ATTR_DPL(desc_attr(g->cs.raw)), n = 0, size = mode_is_long(v) ? 8 : g->type == SYS_CALL ? 4 : 2;
    struct frame_stack s = {.long_addr = mode_is_long(v), .cpl = cpl};
    struct descriptor ssd = {0, 0};
    uint64_t frame[36];
    uint16_t ss;
    frame_tss_stack(v, i, cpl, &ss, &s.rsp);
    if (!s.long_addr) {
        stack_segment_check(v, i, ss, cpl, EXC_TS, &ssd);
        s.ss = (struct segment){
            .base = desc_base(ssd.raw), .limit = desc_limit(ssd.raw), .attr = (uint16_t)desc_attr(ssd.raw)};
        s.err_sel = ss;
    }
    frame[n++] = v->seg[SEG_SS].sel;
    frame[n++] = v->gpr[REG_RSP];
    for (unsigned k = g->count; k-- > 0;)
        frame[n++] = frame_peek(v, i, k * size, size);
    frame[n++] = v->seg[SEG_CS].sel;
    frame[n++] = insn_next_rip(v, i);
    frame_push(v, i, &s, frame, n, size);
    v->cpl = cpl;
    if (s.long_addr)
        segment_set_null(v, SEG_SS, (uint16_t)cpl);
    else
        segment_set(v, SEG_SS, ss, ssd.raw);
    enter_code(v, g->sel, g->cs.raw, cpl);
    frame_set_rsp(v, s.rsp);
}

static void gate_call(struct vcpu *v, const struct insn *i, const struct far_pointer *p, uint64_t raw)
{
    struct call_gate g;
    if (leads_to_task(v, raw))
        return task_transfer(v, i, TASK_CALL, p->sel, raw);
    call_gate_read(v, i, p->sel, raw, &g);
    check_rip(v, i, g.cs.raw, g.off);
    desc_set_accessed(v, i, &g.cs);
    if (gate_goes_inward(v, &g)) {
        gate_call_inward(v, i, &g);
    } else {
        struct frame_stack s;
        uint64_t frame[2] = {v->seg[SEG_CS].sel, insn_next_rip(v, i)};
        frame_stack_current(v, &s);
        s.long_addr = mode_is_long(v);
        frame_push(v, i, &s, frame, 2, mode_is_long(v) ? 8 : g.type == SYS_CALL ? 4 : 2);
        enter_code(v, g.sel, g.cs.raw, v->cpl);
        frame_set_rsp(v, s.rsp);
    }
    block_end(v, i, g.off, 2);
}

/* ---- JMP and CALL ---- */

static void op_jmp_far(struct vcpu *v, const struct insn *i)
{
    struct far_pointer p = far_operand(v, i);
    struct descriptor d;
    if (!mode_is_protected(v)) {
        check_real(v, i, p.off);
        return enter_real(v, i, p);
    }
    if (sel_is_null(p.sel))
        vcpu_raise_error(v, i, EXC_GP, 0);
    desc_read(v, i, p.sel, EXC_GP, &d);
    if (!(desc_attr(d.raw) & ATTR_S))
        return gate_jump(v, i, &p, d.raw);
    check_direct(v, i, p.sel, d.raw);
    check_rip(v, i, d.raw, p.off);
    desc_set_accessed(v, i, &d);
    enter_code(v, p.sel, d.raw, v->cpl);
    block_end(v, i, p.off, 2);
}

static void push_return(struct vcpu *v, const struct insn *i)
{
    struct frame_stack s;
    uint64_t frame[2] = {v->seg[SEG_CS].sel, insn_next_rip(v, i)};
    frame_stack_current(v, &s);
    frame_push(v, i, &s, frame, 2, i->opsize);
    frame_set_rsp(v, s.rsp);
}

static void op_call_far(struct vcpu *v, const struct insn *i)
{
    struct far_pointer p = far_operand(v, i);
    struct descriptor d;
    if (!mode_is_protected(v)) {
        check_real(v, i, p.off);
        push_return(v, i);
        return enter_real(v, i, p);
    }
    if (sel_is_null(p.sel))
        vcpu_raise_error(v, i, EXC_GP, 0);
    desc_read(v, i, p.sel, EXC_GP, &d);
    if (!(desc_attr(d.raw) & ATTR_S))
        return gate_call(v, i, &p, d.raw);
    check_direct(v, i, p.sel, d.raw);
    check_rip(v, i, d.raw, p.off);
    desc_set_accessed(v, i, &d);
    push_return(v, i);
    enter_code(v, p.sel, d.raw, v->cpl);
    block_end(v, i, p.off, 2);
}

/* ---- returns ---- */

void far_check_return(struct vcpu *v, const struct insn *i, struct far_return *r)
{
    unsigned rpl = r->cs & 3u;
    uint32_t err = r->cs & 0xfffcu;
    if (sel_is_null(r->cs))
        vcpu_raise_error(v, i, EXC_GP, 0);
    desc_read(v, i, r->cs, EXC_GP, &r->csd);
    unsigned attr = desc_attr(r->csd.raw), dpl = ATTR_DPL(attr);
    if (!attr_is_code(attr) || rpl < v->cpl || (attr & ATTR_CONFORMING ? dpl > rpl : dpl != rpl) ||
        has_bad_size_bits(v, attr))
        vcpu_raise_error(v, i, EXC_GP, err);
    if (!(attr & SEG_ATTR_P))
        vcpu_raise_error(v, i, EXC_NP, err);
    check_rip(v, i, r->csd.raw, r->rip);
    desc_set_accessed(v, i, &r->csd);
}

void far_check_return_stack(struct vcpu *v, const struct insn *i, struct far_return *r)
{
    unsigned rpl = r->cs & 3u;
    bool to_code64 = mode_is_long(v) && (desc_attr(r->csd.raw) & SEG_ATTR_L);
    r->ssd.raw = 0;
    if (sel_is_null(r->ss) && to_code64 && rpl != 3 && (r->ss & 3u) == rpl)
        return;
    stack_segment_check(v, i, r->ss, rpl, EXC_GP, &r->ssd);
}

/* ES, FS, GS, DS that are more privileged than the new CPL become null. */
static void drop_inner_segments(struct vcpu *v)
{
    static const int segs[] = {SEG_ES, SEG_FS, SEG_GS, SEG_DS};
    for (unsigned k = 0; k < ARRAY_LEN(segs); k++) {
        const struct segment *s = &v->seg[segs[k]];
        bool bound = attr_is_data(s->attr) || !(s->attr & ATTR_CONFORMING);
        if (!s->unusable && bound && ATTR_DPL(s->attr) < v->cpl)
            segment_set_null(v, segs[k], 0);
    }
}

void far_commit_return(struct vcpu *v, const struct far_return *r)
{
    unsigned rpl = r->cs & 3u;
    bool outer = rpl != v->cpl;
    v->cpl = rpl;
    segment_set(v, SEG_CS, r->cs, r->csd.raw);
    if (r->pops_stack) {
        if (r->ssd.raw)
            segment_set(v, SEG_SS, r->ss, r->ssd.raw);
        else
            segment_set_null(v, SEG_SS, r->ss);
    }
    if (outer)
        drop_inner_segments(v);
    mode_update(v);
    if (r->pops_stack)
        frame_set_rsp(v, r->rsp);
}

static void op_ret_far(struct vcpu *v, const struct insn *i)
{
    unsigned size = i->opsize, extra = i->enc == ENC_I ? (uint16_t)i->imm : 0;
    struct far_return r = {.rip = frame_peek(v, i, 0, size), .cs = (uint16_t)frame_peek(v, i, size, size)};
    if (!mode_is_protected(v)) {
        check_real(v, i, r.rip);
        frame_set_rsp(v, v->gpr[REG_RSP] + 2 * size + extra);
        return enter_real(v, i, (struct far_pointer){r.cs, r.rip});
    }
    far_check_return(v, i, &r);
    if ((r.cs & 3u) != v->cpl) {
        r.pops_stack = true;
        r.rsp = frame_peek(v, i, 2 * size + extra, size) + extra;
        r.ss = (uint16_t)frame_peek(v, i, 3 * size + extra, size);
        far_check_return_stack(v, i, &r);
    } else {
        frame_set_rsp(v, v->gpr[REG_RSP] + 2 * size + extra);
    }
    far_commit_return(v, &r);
    block_end(v, i, r.rip, 2);
}

op_fn *bind_far(const struct insn *i, unsigned mode)
{
    switch (i->op) {
    case OP_JMPF:
        return op_jmp_far;
    case OP_CALLF:
        return op_call_far;
    case OP_RETF:
        return op_ret_far;
    default: {
        op_fn *fn = bind_iret_and_int(i);
        return fn ? fn : bind_syscall(i);
    }
    }
}
