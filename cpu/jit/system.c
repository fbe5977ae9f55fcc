/*
 * What kernels do all the time: STI, CLI, PUSHF, SWAPGS, STAC, CLAC, RDTSC, CPUID, PAUSE. The common case is done as it
 * stands; whatever asks for a look at events, changes more, or faults, the handler does.
 */
#include "core/clock.h"
#include "cpu/cpuid.h"
#include "cpu/jit/integer.h"

#define V(field)   ((int)offsetof(struct vcpu, field))
#define MV(field)  ((int)offsetof(struct mmu_vcpu, field))
#define GS_BASE    ((int)(offsetof(struct vcpu, seg_base) + 8 * (size_t)SEG_GS))
#define GS_HIDDEN  ((int)(offsetof(struct vcpu, seg) + SEG_GS * sizeof(struct segment) + offsetof(struct segment, base)))
#define DATA(mode) (MV(data) + 8 * (int)(mode))

/* Pins and requests are looked at together. */
_Static_assert(sizeof(bool) == 1 && offsetof(struct vcpu, nmi_pending) == offsetof(struct vcpu, intr_pin) + 1 &&
                   offsetof(struct vcpu, sipi_pending) == offsetof(struct vcpu, intr_pin) + 3,
               "one doubleword");

/* op dword [r14 + disp], imm32 with the opcode's digit. */
static void op32_imm(struct tr *t, unsigned op, unsigned digit, int disp, uint32_t imm)
{
    emit_maddr(&t->e, 4, op, digit, maddr_at(H_R14, disp));
    e32(&t->e, imm);
}

static void slow_if(struct tr *t, unsigned cc, uint32_t rec)
{
    tr_jump_cold(t, emit_jcc(&t->e, cc), COLD_SLOW, rec, 0);
}

/* r14 = the vCPU, if it is at CPL 0; else the handler. */
static void need_cpl0(struct tr *t, uint32_t rec)
{
    emit_load(&t->e, H_R14, FRAME(v));
    if (!(t->mode & MODE_USER)) { /* it may be 1 or 2 */
        op32_imm(t, 0x81, 7, V(cpl), 0);
        slow_if(t, CC_NZ, rec);
    }
    tr_clobber(t);
}

/* More than any block that may follow has: the units do not end right behind the instruction. */
#define SHADOW_UNITS 256

/* No one sees the shadow: nothing waits for its end, and the run goes on behind the next instruction. */
static bool sti(struct tr *t, const struct insn *i)
{
    if (t->mode & MODE_USER)
        return false;
    uint32_t rec = tr_slow(t, i);
    emit_load(&t->e, H_R14, FRAME(budget));
    emit_op64(&t->e, 0x81, 5, op_reg(H_R14)); /* sub */
    e32(&t->e, SHADOW_UNITS);
    slow_if(t, CC_S, rec);
    need_cpl0(t, rec);
    op32_imm(t, 0x81, 7, V(intr_pin), 0); /* cmp: nothing waits for the window that opens */
    slow_if(t, CC_NZ, rec);
    op32_imm(t, 0x81, 1, V(rflags), FLAG_IF); /* or */
    return true;
}

static bool cli(struct tr *t, const struct insn *i)
{
    if (t->mode & MODE_USER)
        return false;
    uint32_t rec = tr_slow(t, i);
    need_cpl0(t, rec);
    op32_imm(t, 0x81, 4, V(rflags), ~(uint32_t)FLAG_IF); /* and */
    tr_resume(t, rec);
    return true;
}

static bool swapgs(struct tr *t, const struct insn *i)
{
    struct emit *e = &t->e;
    if (!t->wide || t->mode & MODE_USER)
        return false;
    uint32_t rec = tr_slow(t, i);
    need_cpl0(t, rec);
    emit_maddr(e, 8, 0x8b, H_R15, maddr_at(H_R14, V(msr.kernel_gs_base)));
    emit_store(e, H_R15, FRAME(tmp));
    emit_maddr(e, 8, 0x8b, H_R15, maddr_at(H_R14, GS_HIDDEN));
    emit_maddr(e, 8, 0x89, H_R15, maddr_at(H_R14, V(msr.kernel_gs_base)));
    emit_load(e, H_R15, FRAME(tmp));
    emit_maddr(e, 8, 0x89, H_R15, maddr_at(H_R14, GS_HIDDEN));
    emit_maddr(e, 8, 0x89, H_R15, maddr_at(H_R14, GS_BASE));
    tr_resume(t, rec);
    return true;
}

/* As mmu_vcpu_set_mode() would: at CPL 0 AC decides which data table is the current one, if SMAP is on. */
static bool set_ac(struct tr *t, const struct insn *i)
{
    struct emit *e = &t->e;
    bool ac = i->op == OP_STAC;
    if (t->mode & MODE_USER || !cpu_has(t->v, CPU_FEATURE_SMAP))
        return false;
    uint32_t rec = tr_slow(t, i);
    need_cpl0(t, rec);
    emit_maddr(e, 8, 0x8b, H_R15, maddr_at(H_R14, V(mv)));
    emit_maddr(e, 4, 0x80, 7, maddr_at(H_R15, MV(data_bypass))); /* cmp byte */
    e8(e, 0);
    slow_if(t, CC_NZ, rec);
    op32_imm(t, 0x81, ac ? 1 : 4, V(rflags), ac ? FLAG_AC : ~(uint32_t)FLAG_AC);
    emit_maddr(e, 4, 0xc6, 0, maddr_at(H_R15, MV(regs.ac))); /* mov byte */
    e8(e, ac);
    emit_maddr(e, 8, 0x8b, H_R14, maddr_at(H_R15, DATA(TLB_SUPER)));
    if (ac) {
        emit_maddr(e, 4, 0xf7, 0, maddr_at(H_R15, MV(regs.cr4))); /* test */
        e32(e, CR4_SMAP);
        emit_maddr(e, 8, 0x8b, H_R14, maddr_at(H_R15, DATA(TLB_SUPER_AC)));
        uint8_t *on = emit_jcc(e, CC_NZ);
        emit_maddr(e, 8, 0x8b, H_R14, maddr_at(H_R15, DATA(TLB_SUPER)));
        patch_jump(e, on, e->p);
    }
    emit_maddr(e, 8, 0x89, H_R14, maddr_at(H_R15, MV(cur_data)));
    emit_store(e, H_R14, FRAME(tlb));
    if (!ac)
        tr_forget_streams(t);
    return true;
}

/* The image of RFLAGS that PUSHF pushes, to frame.tmp; arithmetic flags are an image in the frame. */
static void flags_image_to_tmp(struct tr *t)
{
    struct emit *e = &t->e;
    struct how w = {.size = 4};
    emit_rm(e, w, OPC(0x8b), H_R15, op_frame(FRAME(flags)));
    emit_mov(e, H_R14, H_R15);
    emit_rm(e, w, OPC(0xc1), 5, op_reg(H_R15)); /* shr: LAHF's byte */
    e8(e, 8);
    emit_rm(e, w, OPC(0x81), 4, op_reg(H_R15));
    e32(e, FLAGS_ARITH & 0xff);
    emit_rm(e, w, OPC(0x81), 4, op_reg(H_R14)); /* OF is bit 0 */
    e32(e, 1);
    emit_rm(e, w, OPC(0xc1), 4, op_reg(H_R14));
    e8(e, 11);
    emit_rm(e, w, OPC(0x0b), H_R15, op_reg(H_R14));
    emit_load(e, H_R14, FRAME(v));
    emit_maddr(e, 4, 0x8b, H_R14, maddr_at(H_R14, V(rflags)));
    emit_rm(e, w, OPC(0x81), 4, op_reg(H_R14));
    e32(e, ~(uint32_t)(FLAG_VM | FLAG_RF));
    emit_rm(e, w, OPC(0x0b), H_R15, op_reg(H_R14));
    emit_store(e, H_R15, FRAME(tmp));
}

static bool pushf(struct tr *t, const struct insn *i)
{
    struct emit *e = &t->e;
    if (!t->wide || i->opsize != 8)
        return false;
    if (t->flags == BASE_RECIPE && !tr_can_have_host(t, FLAGS_ARITH)) /* the host's are in part others: once more */
        tr_clobber(t);
    if (tr_can_have_host(t, FLAGS_ARITH)) {
        tr_need_host(t, FLAGS_ARITH);
        tr_set_flags_image(t);
    } else if (t->flags == BASE_DEAD || !tr_can_restore(t)) {
        return false;
    }
    uint32_t rec = tr_slow(t, i);
    tr_make_image(t);
    flags_image_to_tmp(t);
    tr_clobber(t);
    tr_stack_check(t, -8, 8, true, rec);
    emit_load(e, H_R15, FRAME(tmp));
    emit_op64(e, 0x89, H_R15, op_r14());
    tr_stack_adjust(t, -8);
    tr_resume(t, rec);
    return true;
}

#define X(id, units) UNITS_##id = units,
enum { CLOCK_SURCHARGES(X) };
#undef X

/* With the surcharge there must be something left. */
static void need_units(struct tr *t, unsigned units, uint32_t rec)
{
    emit_op64(&t->e, 0x83, 7, op_frame(FRAME(budget))); /* cmp */
    e8(&t->e, units);
    slow_if(t, CC_LE, rec);
}

/* r14 = clock_now() at this instruction; its surcharge is added. */
static void read_clock(struct tr *t, const struct insn *i, uint32_t rec)
{
    struct emit *e = &t->e;
    need_units(t, UNITS_RDTSC, rec);
    emit_load(e, H_R14, FRAME(v));
    emit_maddr(e, 8, 0x8b, H_R15, maddr_at(H_R14, V(clock)));
    emit_maddr(e, 8, 0x83, 0, maddr_at(H_R15, (int)offsetof(struct vclock, extra))); /* add */
    e8(e, UNITS_RDTSC);
    emit_maddr(e, 8, 0x8b, H_R15, maddr_at(H_R14, V(msr.tsc_adjust)));
    emit_load(e, H_R14, FRAME(end));
    emit_op64(e, 0x2b, H_R14, op_frame(FRAME(budget))); /* a positive budget is not biased */
    emit_op64(e, 0x83, 5, op_frame(FRAME(budget)));
    e8(e, UNITS_RDTSC);
    emit_op64(e, 0x03, H_R14, op_reg(H_R15));
    tr_add_position(t, i);
    tr_clobber(t);
}

static bool rdtsc(struct tr *t, const struct insn *i)
{
    struct emit *e = &t->e;
    bool aux = i->op == OP_RDTSCP;
    if (!(t->mode & MODE_PE) || t->mode & MODE_VM || (aux && !cpu_has(t->v, CPU_FEATURE_RDTSCP)))
        return false;
    tr_begin(t, tr_bit(REG_RAX) | tr_bit(REG_RDX) | (aux ? tr_bit(REG_RCX) : 0), false);
    uint32_t rec = tr_slow(t, i);
    if (t->mode & MODE_USER) {
        emit_load(e, H_R14, FRAME(v));
        op32_imm(t, 0xf7, 0, V(cr4), CR4_TSD); /* test */
        slow_if(t, CC_NZ, rec);
    } else {
        need_cpl0(t, rec);
    }
    read_clock(t, i, rec);
    emit_rm(e, (struct how){.size = 4}, OPC(0x8b), H_RAX, op_reg(H_R14));
    emit_mov(e, H_RDX, H_R14);
    emit_op64(e, 0xc1, 5, op_reg(H_RDX)); /* shr */
    e8(e, 32);
    if (aux) {
        emit_load(e, H_R14, FRAME(v));
        emit_maddr(e, 4, 0x8b, H_RCX, maddr_at(H_R14, V(msr.tsc_aux)));
    }
    return true;
}

/* To the handler unless the vCPU's register is what it was when answers were remembered; r14 = the vCPU. */
static void need_same(struct tr *t, int disp, int then, uint32_t rec)
{
    emit_maddr(&t->e, 8, 0x8b, H_R15, maddr_at(H_R14, disp));
    emit_maddr(&t->e, 8, 0x3b, H_R15, maddr_at(H_R14, then));
    slow_if(t, CC_NZ, rec);
}

#define ANSWER_SHIFT 5
_Static_assert(sizeof(struct cpuid_answer) == 1u << ANSWER_SHIFT, "shifted by that");

/* An answer that the handler has remembered. */
static bool cpuid(struct tr *t, const struct insn *i)
{
    struct emit *e = &t->e;
    int answers = V(cpuid.answer) + (t->wide ? (int)sizeof(((struct cpuid_answers *)0)->answer[0]) : 0);
    static const uint8_t guest[] = {H_RAX, H_RBX, H_RCX, H_RDX};
    tr_begin(t, tr_bit(REG_RAX) | tr_bit(REG_RBX) | tr_bit(REG_RCX) | tr_bit(REG_RDX), false);
    uint32_t rec = tr_slow(t, i);
    need_units(t, UNITS_CPUID, rec);
    emit_load(e, H_R14, FRAME(v));
    need_same(t, V(cr4), V(cpuid.cr4), rec);
    need_same(t, V(xcr0), V(cpuid.xcr0), rec);
    need_same(t, V(msr.xss), V(cpuid.xss), rec);
    emit_lea(e, 4, H_R15, (struct maddr){H_RAX, H_RCX, 0, 0}); /* cpuid_answer_index() */
    emit_rm(e, (struct how){.size = 4}, OPC(0x83), 4, op_reg(H_R15));
    e8(e, CPUID_ANSWERS - 1);
    emit_rm(e, (struct how){.size = 4}, OPC(0xc1), 4, op_reg(H_R15)); /* shl */
    e8(e, ANSWER_SHIFT);
    emit_lea(e, 8, H_R15, (struct maddr){H_R15, H_R14, 0, answers});
    emit_maddr(e, 4, 0x39, H_RAX, maddr_at(H_R15, (int)offsetof(struct cpuid_answer, leaf)));
    slow_if(t, CC_NZ, rec);
    emit_maddr(e, 4, 0x39, H_RCX, maddr_at(H_R15, (int)offsetof(struct cpuid_answer, subleaf)));
    slow_if(t, CC_NZ, rec);
    emit_maddr(e, 8, 0x8b, H_R14, maddr_at(H_R14, V(clock)));
    emit_maddr(e, 8, 0x83, 0, maddr_at(H_R14, (int)offsetof(struct vclock, extra))); /* add */
    e8(e, UNITS_CPUID);
    emit_op64(e, 0x83, 5, op_frame(FRAME(budget))); /* sub */
    e8(e, UNITS_CPUID);
    for (unsigned k = 0; k < sizeof guest; k++)
        emit_maddr(e, 4, 0x8b, guest[k], maddr_at(H_R15, (int)offsetof(struct cpuid_answer, out) + 4 * (int)k));
    tr_clobber(t);
    return true;
}

/* A processor that is alone has no turn to give up: only its time goes on. */
static bool pause_alone(struct tr *t, const struct insn *i)
{
    struct emit *e = &t->e;
    if (topology_count(&t->v->topology) > 1)
        return false;
    uint32_t rec = tr_slow(t, i);
    emit_op64(e, 0x83, 7, op_frame(FRAME(budget))); /* cmp */
    e8(e, UNITS_PAUSE);
    slow_if(t, CC_LE, rec);
    emit_load(e, H_R14, FRAME(v));
    emit_maddr(e, 8, 0x8b, H_R14, maddr_at(H_R14, V(clock)));
    emit_maddr(e, 8, 0x83, 0, maddr_at(H_R14, (int)offsetof(struct vclock, extra))); /* add */
    e8(e, UNITS_PAUSE);
    emit_op64(e, 0x83, 5, op_frame(FRAME(budget))); /* sub */
    e8(e, UNITS_PAUSE);
    tr_clobber(t);
    return true;
}

/* The direction is what it is to be: most often it is up, and CLD says so again. */
static bool direction(struct tr *t, const struct insn *i)
{
    bool down = i->op == OP_STD;
    emit_load(&t->e, H_R14, FRAME(v));
    op32_imm(t, 0x81, down ? 1 : 4, V(rflags), down ? FLAG_DF : ~(uint32_t)FLAG_DF);
    tr_clobber(t);
    return true;
}

static bool rdpkru(struct tr *t, const struct insn *i)
{
    struct emit *e = &t->e;
    tr_begin(t, tr_bit(REG_RAX) | tr_bit(REG_RDX), false);
    uint32_t rec = tr_slow(t, i);
    emit_load(e, H_R14, FRAME(v));
    op32_imm(t, 0xf7, 0, V(cr4), CR4_PKE); /* test */
    slow_if(t, CC_Z, rec);
    emit_rm(e, (struct how){.size = 4}, OPC(0x85), H_RCX, op_reg(H_RCX)); /* test */
    slow_if(t, CC_NZ, rec);
    emit_maddr(e, 4, 0x8b, H_RAX, maddr_at(H_R14, V(pkru)));
    emit_imm(e, H_RDX, 0);
    tr_clobber(t);
    tr_resume(t, rec);
    return true;
}

bool tr_system_falls_through(const struct insn *i)
{
    return i->op == OP_STI || i->op == OP_STAC || i->op == OP_CLAC || i->op == OP_RDTSC || i->op == OP_RDTSCP ||
           i->op == OP_CPUID || i->op == OP_PAUSE;
}

static bool emit_system(struct tr *t, const struct insn *i)
{
    switch (i->op) {
    case OP_STI:
        return sti(t, i);
    case OP_CLI:
        return cli(t, i);
    case OP_SWAPGS:
        return swapgs(t, i);
    case OP_STAC:
    case OP_CLAC:
        return set_ac(t, i);
    case OP_PUSHF:
        return pushf(t, i);
    case OP_RDTSC:
    case OP_RDTSCP:
        return rdtsc(t, i);
    case OP_CPUID:
        return cpuid(t, i);
    case OP_PAUSE:
        return pause_alone(t, i);
    case OP_CLD:
    case OP_STD:
        return direction(t, i);
    case OP_RDPKRU:
        return rdpkru(t, i);
    default:
        return false;
    }
}

bool tr_system(struct tr *t, const struct insn *i)
{
    if (!emit_system(t, i))
        return false;
    if (i->flags & INSN_ENDS)
        tr_go_behind(t, i);
    return true;
}
