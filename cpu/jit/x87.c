/*
 * x87: the same instruction on the host's unit, which holds the guest's stack, status and control word meanwhile. Only
 * while the guest masks all exceptions and has none pending: then no instruction can fault but by its memory operand.
 *
 * Instruction and data pointers are not the host's affair. Compiled code stores the data pointer after each access;
 * which instruction was last is known where code is compiled, and is stored when the block is left.
 */
#include "cpu/interp/x87.h"

#include "cpu/jit/internal.h"

/* ---- between the vCPU and an image of FNSAVE (32-bit protected mode, SDM volume 1, figure 8-9) ---- */

enum { IMAGE_FCW = 0, IMAGE_FSW = 4, IMAGE_TAGS = 8, IMAGE_ENV = 28, IMAGE_REG = 10 };

static uint16_t get16(const uint8_t *p)
{
    uint16_t x;
    memcpy(&x, p, sizeof x);
    return x;
}

static void put16(uint8_t *p, unsigned x)
{
    uint16_t y = (uint16_t)x;
    memcpy(p, &y, sizeof y);
}

void jit_x87_to_vcpu(struct vcpu *v, struct jit_frame *f)
{
    const uint8_t *image = f->owner->image;
    struct x87 *x = &v->fpu;
    x87_set_control(x, get16(image + IMAGE_FCW));
    x87_set_status(x, get16(image + IMAGE_FSW));
    x87_update_summary(x);
    x->tag = x87_abridge_tags(get16(image + IMAGE_TAGS));
    for (unsigned n = 0; n < 8; n++) {
        const uint8_t *from = image + IMAGE_ENV + (size_t)IMAGE_REG * n;
        unsigned r = x87_reg(x, n);
        memcpy(&x->st[r].mant, from, 8);
        memcpy(&x->st[r].exp, from + 8, 2);
    }
}

void jit_x87_from_vcpu(const struct vcpu *v, struct jit_frame *f)
{
    uint8_t *image = f->owner->image;
    const struct x87 *x = &v->fpu;
    unsigned tags = 0;
    memset(image, 0, IMAGE_ENV);
    for (unsigned n = 0; n < 8; n++) {
        uint8_t *to = image + IMAGE_ENV + (size_t)IMAGE_REG * n;
        unsigned r = x87_reg(x, n);
        tags |= x->tag >> n & 1 ? 0 : 3u << 2 * n;
        memcpy(to, &x->st[r].mant, 8);
        memcpy(to + 8, &x->st[r].exp, 2);
    }
    put16(image + IMAGE_FCW, x->fcw);
    put16(image + IMAGE_FSW, x87_status(x));
    put16(image + IMAGE_TAGS, tags);
}

bool jit_x87_usable(const struct vcpu *v)
{
    return !(v->cr0 & (CR0_TS | CR0_EM)) && !(~v->fpu.fcw & FSW_EXC) && !(v->fpu.fsw & FSW_ES);
}

const void *jit_x87_load(struct vcpu *v, struct jit_frame *f)
{
    if (!jit_x87_usable(v))
        return (const void *)(uintptr_t)f->exit_link;
    jit_x87_from_vcpu(v, f);
    f->x87 = 1;
    return (const void *)(uintptr_t)f->exit_rip;
}

/* ---- pointers ---- */

static unsigned opcode_word(const struct insn *i)
{
    return (i->opcode & 7u) << 8 | i->modrm;
}

void jit_x87_notes(struct vcpu *v, struct jit_frame *f, const struct jit_slow *s)
{
    struct x87 *x = &v->fpu;
    uint64_t mask = v->mode & MODE_CODE64 ? UINT64_MAX : UINT32_MAX;
    if (f->fds) {
        x->fdp = f->fdp;
        x->fds = v->seg[f->fds - 1].sel;
        f->fds = 0;
    }
    if (s && s->note) {
        x->fop = (uint16_t)opcode_word(s->note);
        x->fip = (f->page + (s->block->gpa & PAGE_MASK) + s->note->off) & mask;
        x->fcs = v->seg[SEG_CS].sel;
    } else if (f->fop) {
        x->fop = (uint16_t)f->fop;
        x->fip = f->fip & mask;
        x->fcs = v->seg[SEG_CS].sel;
    }
    f->fop = 0;
}

void tr_x87_commit(struct tr *t)
{
    struct emit *e = &t->e;
    if (!t->note)
        return;
    emit_load(e, H_R14, FRAME(page));
    emit_lea(e, 8, H_R14, (struct maddr){H_R14, -1, 0, (int32_t)(t->b->gpa & PAGE_MASK) + t->note->off});
    emit_store(e, H_R14, FRAME(fip));
    emit_rm(e, (struct how){.size = 4}, OPC(0xc7), 0, op_frame(FRAME(fop)));
    e32(e, 0x10000 | opcode_word(t->note));
    t->note = NULL;
}

static void note(struct tr *t, const struct insn *i)
{
    struct emit *e = &t->e;
    t->note = i;
    if (!insn_has_mem(i))
        return;
    unsigned seg = i->seg != SEG_NONE ? i->seg : i->flags & INSN_STACKSEG ? SEG_SS : SEG_DS;
    tr_offset(t, i);
    emit_store(e, H_R14, FRAME(fdp));
    emit_rm(e, (struct how){.size = 4}, OPC(0xc7), 0, op_frame(FRAME(fds)));
    e32(e, 1 + seg);
}

/* ---- which instructions ---- */

static bool is_special(unsigned op)
{
    switch (op) {
    case OP_FLDENV:
    case OP_FNSTENV:
    case OP_FRSTOR:
    case OP_FNSAVE:
    case OP_FNINIT:
    case OP_FNENI:
    case OP_FNDISI:
    case OP_FNSETPM:
        return true;
    default:
        return false;
    }
}

static bool is_control(unsigned op)
{
    switch (op) {
    case OP_FNCLEX:
    case OP_FLDCW:
    case OP_FNSTCW:
    case OP_FNSTSW:
    case OP_FWAIT:
        return true;
    default:
        return false;
    }
}

static bool is_store(unsigned op)
{
    switch (op) {
    case OP_FST:
    case OP_FSTP:
    case OP_FIST:
    case OP_FISTP:
    case OP_FISTTP:
    case OP_FBSTP:
    case OP_FNSTCW:
    case OP_FNSTSW:
        return true;
    default:
        return false;
    }
}

bool tr_is_x87(const struct tr *t, const struct insn *i)
{
    const struct op_form *f = insn_form(i);
    if (i->op == OP_FWAIT || tr_is_mmx(t, i))
        return true;
    if (f->reg_kind != KIND_F || is_special(i->op) || (f->gate == GATE_SSE3 && !tr_host_has(t, GATE_SSE3)))
        return false;
    return !insn_has_mem(i) || tr_has_ea(t, i);
}

/* ---- instructions ---- */

/* A control word that unmasks is the handler's. */
static void check_control(struct tr *t, uint32_t rec)
{
    struct emit *e = &t->e;
    emit_rm(e, (struct how){.size = 4}, OPC_0F(0xb7), H_R15, op_r14()); /* movzx r15d, word [r14] */
    emit_rm(e, (struct how){.size = 4}, OPC(0xf7), 2, op_reg(H_R15));   /* not */
    emit_rm(e, (struct how){.size = 4}, OPC(0xf7), 0, op_reg(H_R15));   /* test r15d, imm */
    e32(e, FSW_EXC);
    tr_jump_cold(t, emit_jcc(e, CC_NZ), COLD_SLOW, rec, 0);
}

static void memory_form(struct tr *t, const struct insn *i)
{
    uint32_t rec = tr_slow(t, i);
    tr_ea(t, i);
    tr_check(t, i->opsize, is_store(i->op), rec);
    if (i->op == OP_FLDCW)
        check_control(t, rec);
    emit_rm(&t->e, (struct how){.size = 4}, OPC(i->opcode), i->modrm >> 3 & 7, op_r14());
    if (!is_control(i->op))
        note(t, i);
    tr_resume(t, rec);
}

static void register_form(struct tr *t, const struct insn *i)
{
    if (insn_form(i)->write & FLAGS_ARITH) { /* FCOMI clears C1, but not on every processor: FINCSTP, FDECSTP */
        e8(&t->e, 0xd9);
        e8(&t->e, 0xf7);
        e8(&t->e, 0xd9);
        e8(&t->e, 0xf6);
    }
    if (i->op != OP_FWAIT) {
        e8(&t->e, i->opcode);
        e8(&t->e, i->modrm);
    }
    if (!is_control(i->op))
        note(t, i);
}

bool tr_x87(struct tr *t, const struct insn *i)
{
    const struct op_form *f = insn_form(i);
    unsigned reads = f->read & FLAGS_ARITH;
    bool compares = f->write & FLAGS_ARITH;
    if (!tr_is_x87(t, i) || (reads && !tr_can_have_host(t, reads)))
        return false;
    if (reads)
        tr_need_host(t, reads);
    tr_begin(t, i->op == OP_FNSTSW && !insn_has_mem(i) ? tr_bit(REG_RAX) : 0, compares);
    if (insn_has_mem(i))
        memory_form(t, i);
    else
        register_form(t, i);
    if (compares && tr_flags_live(t))
        tr_set_flags_image(t);
    else if (compares)
        tr_set_flags_dead(t, 0);
    return true;
}
