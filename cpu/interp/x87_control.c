/*
 * x87 control: control and status words, environment and state images, pending exceptions (SDM volume 1, chapter 8).
 *
 * The instruction and data pointers are kept in software: every instruction that is not a control instruction stores
 * its own (x87_note()), and they are only seen through the images here and in xsave.c.
 */
#include "cpu/interp/x87.h"
#include "cpu/system.h"

/* ---- pending exceptions ---- */

/*
 * Without CR0.NE the processor asserts FERR#, which a PC turns into IRQ 13, and stops in front of the instruction until
 * an interrupt comes (SDM volume 1, 8.7.2 and appendix D). Its handler writes port 0xf0, which asserts IGNNE#: waiting
 * instructions then run in spite of the exception, until there is none any more.
 */
void x87_pending(struct vcpu *v, const struct insn *i)
{
    if (v->cr0 & CR0_NE)
        vcpu_raise(v, i, EXC_MF);
    if (v->fpu.ignored)
        return;
    irq_set(&v->ferr, true);
    vcpu_freeze(v, i);
}

void vcpu_ignore_x87(struct vcpu *v)
{
    v->fpu.ignored = v->fpu.fsw & FSW_ES;
}

static void fwait(struct vcpu *v, const struct insn *i)
{
    if ((v->cr0 & (CR0_MP | CR0_TS)) == (CR0_MP | CR0_TS))
        vcpu_raise(v, i, EXC_NM);
    if (v->fpu.fsw & FSW_ES)
        x87_pending(v, i);
    NEXT(v, i);
}

/* ---- pointers ---- */

void x87_note(struct vcpu *v, const struct insn *i)
{
    struct x87 *f = &v->fpu;
    bool code64 = v->mode & MODE_CODE64;
    f->fop = (uint16_t)((i->opcode & 7) << 8 | i->modrm);
    f->fip = code64 ? insn_rip(v, i) : (uint32_t)insn_rip(v, i);
    f->fcs = v->seg[SEG_CS].sel;
    if (i->flags & INSN_RM_REG || i->enc != ENC_M)
        return;
    f->fdp = insn_offset(v, i);
    f->fds = v->seg[i->seg == SEG_NONE ? (i->flags & INSN_STACKSEG ? SEG_SS : SEG_DS) : i->seg].sel;
}

/* ---- words ---- */

void x87_init(struct x87 *f)
{
    f->fcw = FCW_INIT;
    f->fsw = 0;
    f->top = 0;
    f->tag = 0;
    f->fop = 0;
    f->fcs = f->fds = 0;
    f->fip = f->fdp = 0;
    f->ignored = false;
}

static void fninit(struct vcpu *v, const struct insn *i)
{
    x87_need(v, i);
    x87_init(&v->fpu);
    NEXT(v, i);
}

static void fnclex(struct vcpu *v, const struct insn *i)
{
    x87_need(v, i);
    v->fpu.fsw &= FSW_CC;
    v->fpu.ignored = false;
    NEXT(v, i);
}

/* FNENI, FNDISI, FNSETPM: of the 8087 and 80287; nothing since. */
static void fn_nothing(struct vcpu *v, const struct insn *i)
{
    x87_need(v, i);
    NEXT(v, i);
}

/* Not a control instruction: it moves the instruction pointer (SDM volume 1, 8.1.8). */
static void fnop(struct vcpu *v, const struct insn *i)
{
    x87_wait(v, i);
    x87_note(v, i);
    NEXT(v, i);
}

static void fldcw(struct vcpu *v, const struct insn *i)
{
    x87_wait(v, i);
    x87_set_control(&v->fpu, lin_load16(v, i, insn_linear(v, i, 2, 0)));
    x87_update_summary(&v->fpu);
    NEXT_MEM(v, i);
}

static void fnstcw(struct vcpu *v, const struct insn *i)
{
    x87_need(v, i);
    lin_store16(v, i, insn_linear(v, i, 2, 1), v->fpu.fcw);
    NEXT_MEM(v, i);
}

static void fnstsw_m(struct vcpu *v, const struct insn *i)
{
    x87_need(v, i);
    lin_store16(v, i, insn_linear(v, i, 2, 1), x87_status(&v->fpu));
    NEXT_MEM(v, i);
}

static void fnstsw_ax(struct vcpu *v, const struct insn *i)
{
    x87_need(v, i);
    reg_set16(v, REG_RAX, x87_status(&v->fpu));
    NEXT(v, i);
}

/* ---- tags ---- */

enum { TAG_VALID, TAG_ZERO, TAG_SPECIAL, TAG_EMPTY };

static unsigned tag_of(const struct x87 *f, unsigned r)
{
    unsigned exp = f->st[r].exp & 0x7fff;
    uint64_t mant = f->st[r].mant;
    if (!(f->tag >> r & 1))
        return TAG_EMPTY;
    if (exp == 0 && mant == 0)
        return TAG_ZERO;
    return exp == 0 || exp == 0x7fff || !(mant >> 63) ? TAG_SPECIAL : TAG_VALID;
}

uint16_t x87_full_tags(const struct x87 *f)
{
    unsigned tags = 0;
    for (unsigned r = 0; r < 8; r++)
        tags |= tag_of(f, r) << 2 * r;
    return (uint16_t)tags;
}

uint8_t x87_abridge_tags(uint16_t tags)
{
    unsigned abridged = 0;
    for (unsigned r = 0; r < 8; r++)
        abridged |= (tags >> 2 * r & 3) != TAG_EMPTY ? 1u << r : 0;
    return (uint8_t)abridged;
}

/* ---- environment: SDM volume 1, figures 8-9 to 8-12 ---- */

#define ENV_MAX   28
#define REG_BYTES 10

static bool env_is_real(const struct vcpu *v)
{
    return !(v->cr0 & CR0_PE) || (v->rflags & FLAG_VM);
}

static void put16(uint8_t *p, uint64_t x)
{
    uint16_t y = (uint16_t)x;
    memcpy(p, &y, 2);
}
static void put32(uint8_t *p, uint64_t x)
{
    uint32_t y = (uint32_t)x;
    memcpy(p, &y, 4);
}
static uint16_t get16(const uint8_t *p)
{
    uint16_t x;
    memcpy(&x, p, 2);
    return x;
}
static uint32_t get32(const uint8_t *p)
{
    uint32_t x;
    memcpy(&x, p, 4);
    return x;
}

/* In real mode the pointers are linear addresses, and the selectors' place is taken by their upper bits and the opcode.
 */
static void env_build32(const struct vcpu *v, uint8_t *p)
{
    const struct x87 *f = &v->fpu;
    const uint32_t high = 0xffff0000;
    put32(p, high | f->fcw);
    put32(p + 4, high | x87_status(f));
    put32(p + 8, high | x87_full_tags(f));
    if (env_is_real(v)) {
        uint32_t fip = (uint32_t)f->fip + ((uint32_t)f->fcs << 4), fdp = (uint32_t)f->fdp + ((uint32_t)f->fds << 4);
        put32(p + 12, high | (fip & 0xffff));
        put32(p + 16, (fip >> 16) << 12 | f->fop);
        put32(p + 20, high | (fdp & 0xffff));
        put32(p + 24, (fdp >> 16) << 12);
    } else {
        put32(p + 12, f->fip);
        put32(p + 16, (uint32_t)f->fop << 16 | f->fcs);
        put32(p + 20, f->fdp);
        put32(p + 24, high | f->fds);
    }
}

static void env_build16(const struct vcpu *v, uint8_t *p)
{
    const struct x87 *f = &v->fpu;
    put16(p, f->fcw);
    put16(p + 2, x87_status(f));
    put16(p + 4, x87_full_tags(f));
    if (env_is_real(v)) {
        uint32_t fip = (uint32_t)f->fip + ((uint32_t)f->fcs << 4), fdp = (uint32_t)f->fdp + ((uint32_t)f->fds << 4);
        put16(p + 6, fip);
        put16(p + 8, (fip >> 16 & 15) << 12 | f->fop);
        put16(p + 10, fdp);
        put16(p + 12, (fdp >> 16 & 15) << 12);
    } else {
        put16(p + 6, f->fip);
        put16(p + 8, f->fcs);
        put16(p + 10, f->fdp);
        put16(p + 12, f->fds);
    }
}

static void env_build(const struct vcpu *v, uint8_t *p, unsigned size)
{
    if (size == 28)
        env_build32(v, p);
    else
        env_build16(v, p);
}

static void env_take_pointers(struct vcpu *v, const uint8_t *p, unsigned size)
{
    struct x87 *f = &v->fpu;
    bool wide = size == 28;
    const uint8_t *ip = p + (wide ? 12 : 6), *cs = p + (wide ? 16 : 8), *dp = p + (wide ? 20 : 10),
                  *ds = p + (wide ? 24 : 12);
    if (env_is_real(v)) {
        uint32_t cs_word = wide ? get32(cs) : get16(cs), ds_word = wide ? get32(ds) : get16(ds);
        f->fip = get16(ip) | (uint64_t)(cs_word >> 12 & 0xffff) << 16;
        f->fdp = get16(dp) | (uint64_t)(ds_word >> 12 & 0xffff) << 16;
        f->fcs = f->fds = 0;
        f->fop = cs_word & 0x7ff;
        return;
    }
    f->fip = wide ? get32(ip) : get16(ip);
    f->fdp = wide ? get32(dp) : get16(dp);
    f->fcs = get16(cs);
    f->fds = get16(ds);
    f->fop = wide ? get16(cs + 2) & 0x7ff : 0;
}

static void env_take(struct vcpu *v, const uint8_t *p, unsigned size)
{
    unsigned step = size == 28 ? 4 : 2;
    x87_set_control(&v->fpu, get16(p));
    x87_set_status(&v->fpu, get16(p + step));
    v->fpu.tag = x87_abridge_tags(get16(p + 2 * step));
    env_take_pointers(v, p, size);
    x87_update_summary(&v->fpu);
}

static void fnstenv(struct vcpu *v, const struct insn *i)
{
    uint8_t image[ENV_MAX];
    x87_need(v, i);
    env_build(v, image, i->opsize);
    lin_write_bytes(v, i, insn_linear(v, i, i->opsize, 1), image, i->opsize);
    v->fpu.fcw |= FSW_EXC;
    x87_update_summary(&v->fpu);
    NEXT_MEM(v, i);
}

static void fldenv(struct vcpu *v, const struct insn *i)
{
    uint8_t image[ENV_MAX];
    x87_wait(v, i);
    lin_read_bytes(v, i, insn_linear(v, i, i->opsize, 0), image, i->opsize);
    env_take(v, image, i->opsize);
    NEXT_MEM(v, i);
}

static void fnsave(struct vcpu *v, const struct insn *i)
{
    uint8_t image[ENV_MAX + 8 * REG_BYTES];
    unsigned env = i->opsize - 8 * REG_BYTES;
    x87_need(v, i);
    env_build(v, image, env);
    for (unsigned n = 0; n < 8; n++) {
        unsigned r = (v->fpu.top + n) & 7;
        memcpy(image + env + n * REG_BYTES, &v->fpu.st[r].mant, 8);
        memcpy(image + env + n * REG_BYTES + 8, &v->fpu.st[r].exp, 2);
    }
    lin_write_bytes(v, i, insn_linear(v, i, i->opsize, 1), image, i->opsize);
    x87_init(&v->fpu);
    NEXT_MEM(v, i);
}

static void frstor(struct vcpu *v, const struct insn *i)
{
    uint8_t image[ENV_MAX + 8 * REG_BYTES];
    unsigned env = i->opsize - 8 * REG_BYTES;
    x87_wait(v, i);
    lin_read_bytes(v, i, insn_linear(v, i, i->opsize, 0), image, i->opsize);
    env_take(v, image, env);
    for (unsigned n = 0; n < 8; n++) {
        unsigned r = (v->fpu.top + n) & 7;
        memcpy(&v->fpu.st[r].mant, image + env + n * REG_BYTES, 8);
        memcpy(&v->fpu.st[r].exp, image + env + n * REG_BYTES + 8, 2);
    }
    NEXT_MEM(v, i);
}

static void emms(struct vcpu *v, const struct insn *i)
{
    mmx_need(v, i);
    v->fpu.tag = 0;
    v->fpu.top = 0;
    NEXT(v, i);
}

op_fn *bind_x87_control(const struct insn *i)
{
    switch (i->op) {
    case OP_FWAIT:
        return fwait;
    case OP_FNINIT:
        return fninit;
    case OP_FNCLEX:
        return fnclex;
    case OP_FNENI:
    case OP_FNDISI:
    case OP_FNSETPM:
        return fn_nothing;
    case OP_FNOP:
        return fnop;
    case OP_FLDCW:
        return fldcw;
    case OP_FNSTCW:
        return fnstcw;
    case OP_FNSTSW:
        return i->flags & INSN_RM_REG ? fnstsw_ax : fnstsw_m;
    case OP_FNSTENV:
        return fnstenv;
    case OP_FLDENV:
        return fldenv;
    case OP_FNSAVE:
        return fnsave;
    case OP_FRSTOR:
        return frstor;
    case OP_EMMS:
        return emms;
    default:
        return NULL;
    }
}

op_fn *bind_x87(const struct insn *i, unsigned mode)
{
    op_fn *fn;
    if ((fn = bind_x87_move(i)) || (fn = bind_x87_arith(i)) || (fn = bind_x87_compare(i)) ||
        (fn = bind_x87_function(i)))
        return fn;
    return bind_x87_control(i);
}
