/*
 * Into the kernel and back: SYSCALL and SYSRET of 64-bit code.
 *
 * Two thunks do all of it, without C: what the handlers would do to registers, flags, segments, CPL and mode, what
 * mode_update() and mmu_vcpu_set_mode() would do behind them, and the way on by the jump table. For that the name of
 * the circumstances on the other side must be among the last ones that C gave there (vcpu.jit_known). Whatever else
 * there is (a target that is not in the table, flags that ask for a look at events or for alignment checks, SYSRET to
 * 32-bit code, all faults) the handlers do: until all conditions are known to hold, nothing is changed.
 */
#include "cpu/interp/syscall.h"
#include "cpu/jit/integer.h"

#define V(field)  ((int)offsetof(struct vcpu, field))
#define MV(field) ((int)offsetof(struct mmu_vcpu, field))

_Static_assert(offsetof(struct segment, attr) == offsetof(struct segment, sel) + 2 &&
                   offsetof(struct segment, sel) % 4 == 0,
               "selector and attributes are stored together");

enum { KERNEL, USER }; /* as in vcpu.jit_known, and as TLB modes of fetches the other way round */

#define KNOWN_SHIFT 5
_Static_assert(sizeof(struct jit_known) == 1u << KNOWN_SHIFT, "shifted by that");
#define KNOWN(field) ((int)offsetof(struct jit_known, field))

static unsigned fetch_mode(unsigned side)
{
    return side == USER ? TLB_USER : TLB_SUPER;
}

/* op dword [base + disp], imm32 with the opcode's digit. */
static void op32_imm(struct emit *e, unsigned op, unsigned digit, unsigned base, int disp, uint32_t imm)
{
    emit_maddr(e, 4, op, digit, maddr_at(base, disp));
    e32(e, imm);
}

/* op reg, imm32, of 32 bits. */
static void reg_imm(struct emit *e, unsigned digit, unsigned reg, uint32_t imm)
{
    emit_rm(e, (struct how){.size = 4}, OPC(0x81), digit, op_reg(reg));
    e32(e, imm);
}

static void shift(struct emit *e, unsigned digit, unsigned reg, unsigned by)
{
    emit_rm(e, (struct how){.size = 4}, OPC(0xc1), digit, op_reg(reg));
    e8(e, by);
}

static void op32(struct emit *e, unsigned op, unsigned reg, unsigned with)
{
    emit_rm(e, (struct how){.size = 4}, OPC((uint8_t)op), reg, op_reg(with));
}

enum { ADD = 0, OR = 1, AND = 4, XOR = 6, CMP = 7 }; /* digits of 81 */
enum { SHL = 4, SHR = 5 };                           /* of c1 */
enum { LOAD = 0x8b, OR_REG = 0x0b, AND_REG = 0x23 };

/* Ways to the handler. */
struct ways {
    uint8_t *at[16];
    unsigned n;
    uint8_t *stale; /* the entry has another name: renewed if that works */
    const uint8_t *renewed;
};

static void leave_if(struct emit *e, struct ways *w, unsigned cc)
{
    w->at[w->n++] = emit_jcc(e, cc);
}

/* ---- before anything is changed ---- */

/* r14: the vCPU. What the other side is called is known: to frame.tmp2. r14 is lost. */
static void need_known(struct emit *e, struct ways *w, unsigned side)
{
    emit_load_from(e, H_R15, H_R14, V(mv));
    emit_maddr(e, 4, 0x80, CMP, maddr_at(H_R15, MV(data_bypass))); /* cmp byte */
    e8(e, 0);
    leave_if(e, w, CC_NZ);
    emit_load_from(e, H_R15, H_R15, MV(epoch_of) + 8 * (int)fetch_mode(side));
    emit_load_from(e, H_R15, H_R15, 0);
    emit_store(e, H_R15, FRAME(tmp2));
    reg_imm(e, AND, H_R15, JIT_KNOWN - 1);
    shift(e, SHL, H_R15, KNOWN_SHIFT);
    emit_lea(e, 8, H_R15,
             (struct maddr){H_R15, H_R14, 0, V(jit_known) + (int)side * (int)sizeof(((struct vcpu *)0)->jit_known[0])});
    emit_load(e, H_R14, FRAME(tmp2));
    emit_maddr(e, 8, 0x39, H_R14, maddr_at(H_R15, KNOWN(epoch)));
    leave_if(e, w, CC_NZ);
    emit_load(e, H_R14, FRAME(v));
    emit_load_from(e, H_R14, H_R14, V(code_generation));
    emit_load_from(e, H_R14, H_R14, 0);
    emit_maddr(e, 8, 0x39, H_R14, maddr_at(H_R15, KNOWN(generation)));
    leave_if(e, w, CC_NZ);
    emit_load(e, H_R14, FRAME(v));
    emit_maddr(e, 4, 0x8b, H_R14, maddr_at(H_R14, V(mode)));
    reg_imm(e, XOR, H_R14, MODE_USER);
    emit_maddr(e, 4, 0x39, H_R14, maddr_at(H_R15, KNOWN(mode)));
    leave_if(e, w, CC_NZ);
    emit_load(e, H_R14, FRAME(v));
    emit_load_from(e, H_R14, H_R14, V(mv));
    emit_maddr(e, 4, 0x8b, H_R14, maddr_at(H_R14, MV(regs.as))); /* a byte */
    reg_imm(e, AND, H_R14, 0xff);
    emit_maddr(e, 4, 0x39, H_R14, maddr_at(H_R15, KNOWN(as)));
    leave_if(e, w, CC_NZ);
    emit_load_from(e, H_R15, H_R15, KNOWN(stamp));
    emit_store(e, H_R15, FRAME(tmp2));
}

/* r14: where to go; r15: its entry in the jump table, which has it by the name in frame.tmp2. That is the frame's now:
 * the last condition. */
static void need_entry(struct emit *e, struct ways *w)
{
    jit_emit_jump_entry(e);
    emit_maddr(e, 8, 0x39, H_R14, maddr_at(H_R15, offsetof(struct jit_jump, rip)));
    leave_if(e, w, CC_NZ);
    emit_load(e, H_R14, FRAME(tmp2));
    emit_maddr(e, 8, 0x39, H_R14, maddr_at(H_R15, offsetof(struct jit_jump, stamp)));
    w->stale = emit_jcc(e, CC_NZ);
    w->renewed = e->p;
    emit_store(e, H_R14, FRAME(stamp));
}

/* ---- what changes; r14: the vCPU ---- */

/* r15: RFLAGS. r14 is lost. */
static void set_flags(struct emit *e)
{
    emit_maddr(e, 4, 0x89, H_R15, maddr_at(H_R14, V(rflags)));
    op32_imm(e, 0x81, AND, H_R14, V(rflags), (uint32_t)FLAGS_KEPT);
    op32_imm(e, 0x81, OR, H_R14, V(rflags), 2);
    op32(e, LOAD, H_R14, H_R15); /* the frame's image: byte 0 is OF, byte 1 LAHF's */
    shift(e, SHR, H_R15, 11);
    reg_imm(e, AND, H_R15, 1);
    shift(e, SHL, H_R14, 8);
    reg_imm(e, AND, H_R14, (uint32_t)(FLAGS_ARITH & 0xff) << 8);
    reg_imm(e, OR, H_R14, 2 << 8);
    op32(e, OR_REG, H_R15, H_R14);
    emit_rm(e, (struct how){.size = 4}, OPC(0x89), H_R15, op_frame(FRAME(flags)));
    emit_store_imm(e, FRAME(recipe), 0);
}

/* segment_set_flat() with the selector `plus` behind the one at star_byte of IA32_STAR. r15 is lost. */
static void set_segment(struct emit *e, int seg, int star_byte, uint32_t plus, unsigned attr, unsigned cpl)
{
    int to = V(seg) + seg * (int)sizeof(struct segment);
    emit_maddr(e, 4, 0x8b, H_R15, maddr_at(H_R14, V(msr.star) + 4));
    if (star_byte == 6)
        shift(e, SHR, H_R15, 16);
    if (plus)
        reg_imm(e, ADD, H_R15, plus);
    reg_imm(e, AND, H_R15, 0xfffc);
    reg_imm(e, OR, H_R15, cpl | (attr | FLAT_DPL(cpl)) << 16);
    emit_maddr(e, 4, 0x89, H_R15, maddr_at(H_R14, to + (int)offsetof(struct segment, sel)));
    emit_maddr(e, 8, 0xc7, 0, maddr_at(H_R14, to + (int)offsetof(struct segment, base)));
    e32(e, 0);
    op32_imm(e, 0xc7, 0, H_R14, to + (int)offsetof(struct segment, limit), 0xffffffff);
    emit_maddr(e, 4, 0xc6, 0, maddr_at(H_R14, to + (int)offsetof(struct segment, unusable))); /* mov byte */
    e8(e, 0);
}

/* CPL, mode, and as mmu_vcpu_set_mode() would with AC clear. r15 has the MMU's part then, r14 is lost. */
static void set_mode(struct emit *e, unsigned side)
{
    unsigned cpl = side == USER ? 3 : 0, fetch = fetch_mode(side);
    op32_imm(e, 0xc7, 0, H_R14, V(cpl), cpl);
    op32_imm(e, 0x81, side == USER ? OR : AND, H_R14, V(mode), side == USER ? MODE_USER : ~(uint32_t)MODE_USER);
    emit_load_from(e, H_R15, H_R14, V(mv));
    emit_maddr(e, 4, 0xc6, 0, maddr_at(H_R15, MV(regs.cpl))); /* mov byte */
    e8(e, cpl);
    emit_maddr(e, 4, 0xc6, 0, maddr_at(H_R15, MV(regs.ac)));
    e8(e, 0);
    emit_load_from(e, H_R14, H_R15, MV(fetch) + 8 * (int)fetch);
    emit_store_to(e, H_R14, H_R15, MV(cur_fetch));
    emit_load_from(e, H_R14, H_R15, MV(epoch_of) + 8 * (int)fetch);
    emit_load_from(e, H_R14, H_R14, 0);
    emit_store_to(e, H_R14, H_R15, MV(fetch_epoch));
    emit_load_from(e, H_R14, H_R15, MV(data) + 8 * (side == USER ? TLB_USER : TLB_SUPER));
    emit_store_to(e, H_R14, H_R15, MV(cur_data));
    emit_store(e, H_R14, FRAME(tlb));
    jit_emit_forget_streams(e, H_R14, 0);
}

/* r15: entry. */
static void go_there(struct emit *e)
{
    emit_load_from(e, H_R14, H_R15, offsetof(struct jit_jump, rip));
    e8(e, 0x41); /* jmp [r15 + 16] */
    e8(e, 0xff);
    e8(e, 0x67);
    e8(e, offsetof(struct jit_jump, code));
}

/* What leaves goes to the handler of the record in frame.tmp. */
static void emit_ways(const struct jit *j, struct emit *e, const struct ways *w, unsigned side)
{
    const struct jit_renew renew = {.fetch = MV(fetch) + 8 * (int)fetch_mode(side),
                                    .flip = MODE_USER,
                                    .stamp = FRAME(tmp2),
                                    .keep = FRAME(exit_link)};
    uint8_t *no[5];
    patch_jump(e, w->stale, e->p);
    jit_emit_renew(e, &renew, no);
    emit_jmp_to(e, w->renewed);
    for (unsigned k = 0; k < ARRAY_LEN(no); k++)
        patch_jump(e, no[k], e->p);
    emit_load(e, H_RCX, renew.keep);
    for (unsigned k = 0; k < w->n; k++)
        patch_jump(e, w->at[k], e->p);
    emit_rm(e, (struct how){.size = 4}, OPC(0x8b), H_R15, op_frame(FRAME(tmp)));
    emit_jmp_to(e, j->thunk_slow - e->exec);
}

/* ---- the thunks ---- */

/* Flags are an image: to r11, as SYSCALL leaves them there; r15 is lost. */
static void flags_to_r11(struct emit *e)
{
    emit_rm(e, (struct how){.size = 4}, OPC(0x8b), H_R15, op_frame(FRAME(flags)));
    op32(e, LOAD, H_R11, H_R15);
    shift(e, SHR, H_R11, 8);
    reg_imm(e, AND, H_R11, FLAGS_ARITH & 0xff);
    reg_imm(e, AND, H_R15, 1);
    shift(e, SHL, H_R15, 11);
    op32(e, OR_REG, H_R11, H_R15);
    emit_maddr(e, 4, 0x8b, H_R15, maddr_at(H_R14, V(rflags)));
    reg_imm(e, AND, H_R15, ~(uint32_t)FLAG_RF);
    op32(e, OR_REG, H_R11, H_R15);
}

/* r14: rip behind the instruction; r15d: its record. The frame's flags are what is committed. */
static void emit_syscall(struct jit *j, struct emit *e)
{
    struct ways w = {.n = 0};
    emit_store(e, H_R15, FRAME(tmp));
    emit_op64(e, 0x83, CMP, op_frame(FRAME(recipe))); /* recipe and overlay */
    e8(e, 0);
    uint8_t *image = emit_jcc(e, CC_Z);
    e8(e, 0x4c); /* lea r15, [rip + 5]: behind the jump */
    e8(e, 0x8d);
    e8(e, 0x3d);
    e32(e, 5);
    emit_jmp_to(e, j->thunk_image - e->exec);
    patch_jump(e, image, e->p);
    emit_store(e, H_R14, FRAME(exit_rip));
    emit_load(e, H_R14, FRAME(v));
    op32_imm(e, 0xf7, 0, H_R14, V(efer), EFER_SCE); /* test */
    leave_if(e, &w, CC_Z);
    op32_imm(e, 0xf7, 0, H_R14, V(rflags), FLAG_AC);
    leave_if(e, &w, CC_NZ);
    need_known(e, &w, KERNEL);
    emit_load(e, H_R14, FRAME(v));
    emit_load_from(e, H_R14, H_R14, V(msr.lstar));
    need_entry(e, &w);
    emit_mov(e, H_RCX, H_R15);
    emit_load(e, H_R14, FRAME(v));
    flags_to_r11(e);
    emit_maddr(e, 4, 0x8b, H_R15, maddr_at(H_R14, V(msr.fmask)));
    emit_rm(e, (struct how){.size = 4}, OPC(0xf7), 2, op_reg(H_R15)); /* not */
    op32(e, AND_REG, H_R15, H_R11);
    set_flags(e);
    emit_load(e, H_R14, FRAME(v));
    set_segment(e, SEG_CS, 4, 0, FLAT_CODE64, 0);
    set_segment(e, SEG_SS, 4, 8, FLAT_DATA, 0);
    set_mode(e, KERNEL);
    emit_mov(e, H_R15, H_RCX);
    emit_load(e, H_RCX, FRAME(exit_rip));
    go_there(e);
    emit_ways(j, e, &w, KERNEL);
}

/* r15d: record. RF and TF are looked at by the run loop, AC with CR0.AM by each access; what was pinned to wait for IF
 * may be taken now. */
static void emit_sysret(struct jit *j, struct emit *e)
{
    struct ways w = {.n = 0};
    emit_store(e, H_R15, FRAME(tmp));
    emit_load(e, H_R14, FRAME(v));
    op32_imm(e, 0xf7, 0, H_R14, V(efer), EFER_SCE); /* test */
    leave_if(e, &w, CC_Z);
    op32_imm(e, 0x81, CMP, H_R14, V(cpl), 0);
    leave_if(e, &w, CC_NZ);
    op32_imm(e, 0x81, CMP, H_R14, V(intr_pin), 0); /* and the others: system.c */
    leave_if(e, &w, CC_NZ);
    emit_rm(e, (struct how){.size = 4}, OPC(0xf7), 0, op_reg(H_R11)); /* test */
    e32(e, FLAG_TF | FLAG_AC);
    leave_if(e, &w, CC_NZ);
    need_known(e, &w, USER);
    emit_mov(e, H_R14, H_RCX);
    need_entry(e, &w); /* an address that is not canonical has none */
    emit_store(e, H_R15, FRAME(tmp));
    emit_load(e, H_R14, FRAME(v));
    op32(e, LOAD, H_R15, H_R11);
    reg_imm(e, AND, H_R15, SYSRET_FLAGS);
    set_flags(e);
    emit_load(e, H_R14, FRAME(v));
    set_segment(e, SEG_CS, 6, 16, FLAT_CODE64, 3);
    set_segment(e, SEG_SS, 6, 8, FLAT_DATA, 3);
    set_mode(e, USER);
    emit_load(e, H_R15, FRAME(tmp));
    go_there(e);
    emit_ways(j, e, &w, USER);
}

void jit_make_crossings(struct jit *j, struct emit *e)
{
    j->thunk_syscall = e->p + e->exec;
    emit_syscall(j, e);
    j->thunk_sysret = e->p + e->exec;
    emit_sysret(j, e);
}

/* ---- the instructions ---- */

static void cross(struct tr *t, uint32_t rec, const uint8_t *thunk)
{
    e8(&t->e, 0x41); /* mov r15d, rec */
    e8(&t->e, 0xbf);
    e32(&t->e, rec);
    emit_jmp_to(&t->e, thunk - t->e.exec);
}

bool tr_syscall(struct tr *t, const struct insn *i)
{
    if (!t->wide || !(t->mode & MODE_USER) || t->flags == BASE_DEAD)
        return false;
    if (tr_can_have_host(t, FLAGS_ARITH)) {
        tr_need_host(t, FLAGS_ARITH);
        tr_set_flags_image(t);
    } else {
        tr_commit(t);
    }
    uint32_t rec = tr_slow(t, i);
    tr_rip_at(t, (int32_t)(t->b->gpa & PAGE_MASK) + i->off + i->len);
    cross(t, rec, t->j->thunk_syscall);
    return true;
}

/* Flags are what R11 has, or, if the handler finds a fault, what the record says. */
bool tr_sysret(struct tr *t, const struct insn *i)
{
    if (!t->wide || t->mode & MODE_USER || i->opsize != 8 || t->flags == BASE_DEAD)
        return false;
    cross(t, tr_slow(t, i), t->j->thunk_sysret);
    return true;
}
