/*
 * Between C and compiled code: the thunks that every compiled block uses.
 */
#include "cpu/jit/internal.h"

_Static_assert(offsetof(struct jit_frame, v) == 120, "short displacements");
_Static_assert(offsetof(struct jit_frame, jit) % 16 == 0, "what is copied");
_Static_assert(sizeof(struct jit_frame) % 16 == 8, "with the return address and six pushes: aligned to 16");

#define V_GPR(g) ((int)(offsetof(struct vcpu, gpr) + 8 * (size_t)(g)))
#define V_XMM(n) ((int)(offsetof(struct vcpu, xmm) + sizeof(union vec) * (size_t)(n)))
#define V(field) ((int)offsetof(struct vcpu, field))

/* MOVUPS between xmm and [base + disp]. */
static void move_vec(struct emit *e, bool store, unsigned xmm, unsigned base, int disp)
{
    unsigned rex = (xmm & 8 ? 4 : 0) | (base & 8 ? 1 : 0);
    if (rex)
        e8(e, 0x40 | rex);
    e8(e, 0x0f);
    e8(e, store ? 0x11 : 0x10);
    e8(e, 0x80 | (xmm & 7) << 3 | (base & 7));
    if ((base & 7) == H_RSP)
        e8(e, 0x24);
    e32(e, (uint32_t)disp);
}

/* LDMXCSR (2) or STMXCSR (3). */
static void move_mxcsr(struct emit *e, unsigned digit, unsigned base, int disp)
{
    if (base & 8)
        e8(e, 0x41);
    e8(e, 0x0f);
    e8(e, 0xae);
    e8(e, 0x80 | digit << 3 | (base & 7));
    if ((base & 7) == H_RSP)
        e8(e, 0x24);
    e32(e, (uint32_t)disp);
}

static void copy_frame(struct emit *e, unsigned to, unsigned from)
{
    for (int k = 0; k < FRAME(jit) / 16; k++) {
        move_vec(e, false, 0, from, 16 * k);
        move_vec(e, true, 0, to, 16 * k);
    }
}

static void push(struct emit *e, unsigned reg, bool pop)
{
    if (reg & 8)
        e8(e, 0x41);
    e8(e, (pop ? 0x58 : 0x50) | (reg & 7));
}

static const uint8_t saved[] = {H_RBX, H_RBP, H_R12, H_R13, H_R14, H_R15};

static void adjust_rsp(struct emit *e, unsigned digit)
{
    emit_op64(e, 0x81, digit, op_reg(H_RSP));
    e32(e, sizeof(struct jit_frame));
}

/* Guest registers from v (in `base`, loaded last if it is one of them) to their places; r15 is scratch. */
static void load_guest(struct emit *e, unsigned base)
{
    for (unsigned g = 13; g < 16; g++) {
        emit_load_from(e, H_R15, base, V_GPR(g));
        emit_store(e, H_R15, FRAME(gpr) + 8 * (int)(g - 13));
    }
    for (unsigned g = 0; g < 13; g++)
        if ((unsigned)jit_host_of[g] != base)
            emit_load_from(e, (unsigned)jit_host_of[g], base, V_GPR(g));
    if (base < 13)
        emit_load_from(e, base, base, V_GPR(base));
}

/* And back; v in r14. */
static void store_guest(struct emit *e)
{
    for (unsigned g = 0; g < 13; g++)
        emit_store_to(e, (unsigned)jit_host_of[g], H_R14, V_GPR(g));
    for (unsigned g = 13; g < 16; g++) {
        emit_load(e, H_R15, FRAME(gpr) + 8 * (int)(g - 13));
        emit_store_to(e, H_R15, H_R14, V_GPR(g));
    }
}

/* cmp dword [frame + disp], level: below, if less is in host registers. */
static void test_frame(struct emit *e, int disp, unsigned level)
{
    emit_rm(e, (struct how){.size = 4}, OPC(0x83), 7, op_frame(disp));
    e8(e, level);
}

/* A VEX form of map 0F without prefix: op reg, first, [r14 + disp]. */
static void vex_r14(struct emit *e, bool wide, unsigned op, unsigned reg, unsigned first, int disp)
{
    e8(e, 0xc4);
    e8(e, (reg & 8 ? 0 : 0x80) | 0x41);
    e8(e, (~first & 15) << 3 | (wide ? 4 : 0));
    e8(e, op);
    e8(e, 0x80 | (reg & 7) << 3 | (H_R14 & 7));
    e32(e, (uint32_t)disp);
}

enum { VEX_MOVUPS_LOAD = 0x10, VEX_MOVUPS_STORE, VEX_ORPS = 0x56 };

static void store_xmm(struct emit *e)
{
    for (unsigned n = 0; n < 16; n++)
        move_vec(e, true, n, H_R14, V_XMM(n));
}

/* C wants clear upper halves. */
static void store_ymm(struct emit *e)
{
    for (unsigned n = 0; n < 16; n++)
        vex_r14(e, true, VEX_MOVUPS_STORE, n, 0, V_XMM(n));
    e8(e, 0xc5); /* vzeroupper */
    e8(e, 0xf8);
    e8(e, 0x77);
}

/* If guest vectors are in host registers: to v (in r14), and C's MXCSR. */
static void save_vec(struct emit *e, bool has_ymm)
{
    uint8_t *wide = NULL, *saved_all;
    test_frame(e, FRAME(vec), VEC_XMM);
    uint8_t *none = emit_jcc(e, CC_C);
    if (has_ymm)
        wide = emit_jcc(e, CC_NZ);
    store_xmm(e);
    if (has_ymm) {
        saved_all = emit_jmp(e);
        patch_jump(e, wide, e->p);
        store_ymm(e);
        patch_jump(e, saved_all, e->p);
    }
    move_mxcsr(e, 3, H_R14, V(mxcsr));
    emit_store_imm(e, FRAME(tmp2), 0x1f80);
    move_mxcsr(e, 2, H_RSP, FRAME(tmp2));
    patch_jump(e, none, e->p);
}

static void load_xmm(struct emit *e)
{
    for (unsigned n = 0; n < 16; n++)
        move_vec(e, false, n, H_R14, V_XMM(n));
}

/*
 * While all upper halves are zero they are not loaded as such: processors keep account of registers whose upper half
 * was never written, and legacy SSE instructions are slow on the others.
 */
static void load_ymm(struct emit *e)
{
    vex_r14(e, false, VEX_MOVUPS_LOAD, 0, 0, V_XMM(0) + 16);
    for (unsigned n = 1; n < 16; n++)
        vex_r14(e, false, VEX_ORPS, 0, 0, V_XMM(n) + 16);
    static const uint8_t vptest[] = {0xc4, 0xe2, 0x79, 0x17, 0xc0}; /* vptest xmm0, xmm0 */
    for (unsigned k = 0; k < sizeof vptest; k++)
        e8(e, vptest[k]);
    uint8_t *clear = emit_jcc(e, CC_Z);
    for (unsigned n = 0; n < 16; n++)
        vex_r14(e, true, VEX_MOVUPS_LOAD, n, 0, V_XMM(n));
    uint8_t *done = emit_jmp(e);
    patch_jump(e, clear, e->p);
    for (unsigned n = 0; n < 16; n++)
        vex_r14(e, false, VEX_MOVUPS_LOAD, n, 0, V_XMM(n));
    patch_jump(e, done, e->p);
}

/* After C: as frame.vec says. */
static void restore_vec(struct emit *e, bool has_ymm)
{
    uint8_t *wide = NULL, *loaded;
    test_frame(e, FRAME(vec), VEC_XMM);
    uint8_t *none = emit_jcc(e, CC_C);
    if (has_ymm)
        wide = emit_jcc(e, CC_NZ);
    load_xmm(e);
    if (has_ymm) {
        loaded = emit_jmp(e);
        patch_jump(e, wide, e->p);
        load_ymm(e);
        patch_jump(e, loaded, e->p);
    }
    move_mxcsr(e, 2, H_R14, V(mxcsr));
    patch_jump(e, none, e->p);
}

enum { X87_FRSTOR = 4, X87_FNSAVE = 6 };

/* If guest x87 state is in the host's unit: between it and the owner's image. FNSAVE leaves what C expects. */
static void move_x87(struct emit *e, unsigned digit)
{
    test_frame(e, FRAME(x87), 1);
    uint8_t *none = emit_jcc(e, CC_C);
    emit_load(e, H_R15, FRAME(owner));
    emit_maddr(e, 4, 0xdd, digit, maddr_at(H_R15, FRAME(image)));
    patch_jump(e, none, e->p);
}

static void emit_leave(struct emit *e)
{
    emit_load(e, H_R15, FRAME(owner));
    copy_frame(e, H_R15, H_RSP);
    adjust_rsp(e, 0);
    for (unsigned k = sizeof saved; k-- > 0;)
        push(e, saved[k], true);
    e8(e, 0xc3);
}

static void emit_enter(struct emit *e)
{
    for (unsigned k = 0; k < sizeof saved; k++)
        push(e, saved[k], false);
    adjust_rsp(e, 5);
    copy_frame(e, H_RSP, H_RSI);
    emit_load_from(e, H_R15, H_RSI, FRAME(jit));
    emit_store(e, H_R15, FRAME(jit));
    emit_load_from(e, H_R15, H_RSI, FRAME(data_epoch));
    emit_store(e, H_R15, FRAME(data_epoch));
    jit_emit_forget_streams(e, H_R15, 0);
    emit_mov(e, H_R14, H_RDX);
    load_guest(e, H_RDI);
    e8(e, 0x41); /* jmp r14 */
    e8(e, 0xff);
    e8(e, 0xe6);
}

/* r14: rip; r15: link. */
static void emit_exit(struct emit *e, enum jit_exit kind, bool has_ymm)
{
    emit_store(e, H_R14, FRAME(exit_rip));
    emit_store(e, H_R15, FRAME(exit_link));
    emit_store_imm(e, FRAME(exit_kind), kind);
    emit_load(e, H_R14, FRAME(v));
    store_guest(e);
    save_vec(e, has_ymm);
    move_x87(e, X87_FNSAVE);
    emit_leave(e);
}

void jit_emit_image_flags(struct emit *e)
{
    emit_mov(e, H_R15, H_RAX);
    emit_rm(e, (struct how){.size = 4}, OPC(0x8b), H_RAX, op_frame(FRAME(flags)));
    e8(e, 0x04); /* add al, 127: OF is what byte 0 says */
    e8(e, 0x7f);
    e8(e, 0x9e); /* sahf */
    emit_mov(e, H_RAX, H_R15);
}

/* Calls `function` with v, the frame and the number in edx. */
static void call_c(struct emit *e, const void *function, bool has_ymm)
{
    emit_load(e, H_R14, FRAME(v));
    store_guest(e);
    save_vec(e, has_ymm);
    move_x87(e, X87_FNSAVE);
    emit_mov(e, H_RDI, H_R14);
    emit_mov(e, H_RSI, H_RSP);
    emit_rm(e, (struct how){.size = 4}, OPC(0x8b), H_RDX, op_frame(FRAME(tmp)));
    emit_imm(e, H_RAX, (uint64_t)(uintptr_t)function);
    e8(e, 0xff); /* call rax */
    e8(e, 0xd0);
}

/* Goes on at the address in rax. */
static void go_on(struct emit *e, bool has_ymm)
{
    emit_store(e, H_RAX, FRAME(tmp));
    emit_load(e, H_R14, FRAME(v));
    restore_vec(e, has_ymm);
    move_x87(e, X87_FRSTOR);
    load_guest(e, H_R14);
    jit_emit_image_flags(e);
    emit_rm(e, (struct how){0}, OPC(0xff), 4, op_frame(FRAME(tmp))); /* jmp [tmp] */
}

/* r15d: record. */
static void emit_slow(struct emit *e, bool has_ymm)
{
    emit_store(e, H_R15, FRAME(tmp));
    call_c(e, (const void *)(uintptr_t)jit_slow_path, has_ymm);
    emit_op64(e, 0x85, H_RAX, op_reg(H_RAX)); /* test */
    uint8_t *gone = emit_jcc(e, CC_Z);
    go_on(e, has_ymm);
    patch_jump(e, gone, e->p);
    emit_leave(e);
}

/* Guest x87 state into the host's unit; r14 and r15 as for emit_vec(). */
static void emit_x87(struct emit *e, bool has_ymm)
{
    emit_store(e, H_R15, FRAME(exit_rip));
    emit_store(e, H_R14, FRAME(exit_link));
    call_c(e, (const void *)(uintptr_t)jit_x87_load, has_ymm);
    go_on(e, has_ymm);
}

/* Guest registers whose host registers a C function may change. */
static const uint8_t volatile_gpr[] = {REG_RAX, REG_RCX, REG_RDX, REG_RSI, REG_RDI, 8, 9, 10, 11};

/* Its entry may have to be renewed only; frame.bias: compiled code is about to be left. */
static void find_stale(struct emit *e)
{
    const struct jit_renew renew = {
        .fetch = (int)offsetof(struct mmu_vcpu, cur_fetch), .stamp = FRAME(stamp), .keep = FRAME(tmp2)};
    uint8_t *other[2], *no[5];
    emit_op64(e, 0x83, 7, op_frame(FRAME(bias))); /* cmp */
    e8(e, 0);
    other[0] = emit_jcc(e, CC_NZ);
    jit_emit_jump_entry(e);
    emit_maddr(e, 8, 0x39, H_R14, maddr_at(H_R15, offsetof(struct jit_jump, rip)));
    other[1] = emit_jcc(e, CC_NZ);
    jit_emit_renew(e, &renew, no);
    emit_load(e, H_R14, FRAME(exit_rip));
    emit_rm(e, (struct how){0}, OPC(0xff), 4, op_frame(FRAME(exit_link)));
    for (unsigned k = 0; k < ARRAY_LEN(no); k++)
        patch_jump(e, no[k], e->p);
    emit_load(e, H_RCX, renew.keep);
    patch_jump(e, other[0], e->p);
    patch_jump(e, other[1], e->p);
}

/* r14: guest address that is not in the jump table; frame.exit_link: where the look-up is done again once it is; r15d:
 * record of the instruction whose handler does it otherwise, or 0 to leave. x87 state stays in the host's unit, which
 * jit_find() does not use. */
static void emit_find(struct emit *e, bool has_ymm)
{
    emit_store(e, H_R14, FRAME(exit_rip));
    emit_store(e, H_R15, FRAME(tmp));
    find_stale(e);
    emit_load(e, H_R14, FRAME(v));
    for (unsigned k = 0; k < sizeof volatile_gpr; k++)
        emit_store_to(e, (unsigned)jit_host_of[volatile_gpr[k]], H_R14, V_GPR(volatile_gpr[k]));
    save_vec(e, has_ymm);
    emit_mov(e, H_RDI, H_R14);
    emit_mov(e, H_RSI, H_RSP);
    emit_imm(e, H_RAX, (uint64_t)(uintptr_t)jit_find);
    e8(e, 0xff); /* call rax */
    e8(e, 0xd0);
    emit_rm(e, (struct how){.size = 4, .reg_byte = true, .rm_byte = true}, OPC_0F(0xb6), H_R15, op_reg(H_RAX));
    emit_load(e, H_R14, FRAME(v));
    restore_vec(e, has_ymm);
    for (unsigned k = 0; k < sizeof volatile_gpr; k++)
        emit_load_from(e, (unsigned)jit_host_of[volatile_gpr[k]], H_R14, V_GPR(volatile_gpr[k]));
    emit_load(e, H_R14, FRAME(exit_rip));
    emit_op64(e, 0x85, H_R15, op_reg(H_R15));
    uint8_t *lost = emit_jcc(e, CC_Z);
    emit_rm(e, (struct how){0}, OPC(0xff), 4, op_frame(FRAME(exit_link)));
    patch_jump(e, lost, e->p);
    emit_load(e, H_R15, FRAME(tmp));
    emit_op64(e, 0x85, H_R15, op_reg(H_R15));
}

/* Goes on at frame.exit_link with r14 from frame.exit_rip. The frame's flags become an image. x87 state stays in the
 * host's unit. */
void jit_emit_image_by_c(const struct jit *j, struct emit *e)
{
    bool has_ymm = j->host_gates >> GATE_AVX & 1;
    emit_load(e, H_R14, FRAME(v));
    store_guest(e);
    save_vec(e, has_ymm);
    emit_mov(e, H_RDI, H_R14);
    emit_mov(e, H_RSI, H_RSP);
    emit_imm(e, H_RAX, (uint64_t)(uintptr_t)jit_make_image);
    e8(e, 0xff); /* call rax */
    e8(e, 0xd0);
    emit_load(e, H_R14, FRAME(v));
    restore_vec(e, has_ymm);
    for (unsigned k = 0; k < sizeof volatile_gpr; k++)
        emit_load_from(e, (unsigned)jit_host_of[volatile_gpr[k]], H_R14, V_GPR(volatile_gpr[k]));
    emit_load(e, H_R14, FRAME(exit_rip));
    emit_rm(e, (struct how){0}, OPC(0xff), 4, op_frame(FRAME(exit_link)));
}

static void test_bits(struct emit *e, int disp, uint32_t bits)
{
    emit_maddr(e, 4, 0xf7, 0, maddr_at(H_R14, disp)); /* test dword [r14 + disp], bits */
    e32(e, bits);
}

/* Jumps if not all of `bits` are set in [r14 + disp]; r15 is lost. */
static uint8_t *need_bits(struct emit *e, int disp, uint32_t bits)
{
    emit_maddr(e, 4, 0x8b, H_R15, maddr_at(H_R14, disp));
    emit_rm(e, (struct how){.size = 4}, OPC(0xf7), 2, op_reg(H_R15)); /* not */
    emit_rm(e, (struct how){.size = 4}, OPC(0xf7), 0, op_reg(H_R15)); /* test r15d, bits */
    e32(e, bits);
    return emit_jcc(e, CC_NZ);
}

/* XMM registers may be in host registers already. */
static void widen(struct emit *e)
{
    test_frame(e, FRAME(vec), VEC_XMM);
    uint8_t *none = emit_jcc(e, CC_C);
    store_xmm(e);
    move_mxcsr(e, 3, H_R14, V(mxcsr));
    patch_jump(e, none, e->p);
    load_ymm(e);
}

/* Guest vectors into host registers, if instructions may use them as they are: r15 is where to go on, r14 where if not.
 */
static void emit_vec(struct emit *e, enum vec_level level)
{
    uint8_t *no[4];
    unsigned n = 0;
    emit_store(e, H_R15, FRAME(tmp));
    emit_store(e, H_R14, FRAME(tmp2));
    emit_load(e, H_R14, FRAME(v));
    test_bits(e, V(cr0), CR0_TS | CR0_EM);
    no[n++] = emit_jcc(e, CC_NZ);
    no[n++] = need_bits(e, V(cr4), CR4_OSFXSR | (level == VEC_YMM ? CR4_OSXSAVE : 0));
    no[n++] = need_bits(e, V(mxcsr), 0x1f80);
    if (level == VEC_YMM) {
        no[n++] = need_bits(e, V(xcr0), 6);
        widen(e);
    } else {
        load_xmm(e);
    }
    move_mxcsr(e, 2, H_R14, V(mxcsr));
    emit_rm(e, (struct how){.size = 4}, OPC(0xc7), 0, op_frame(FRAME(vec)));
    e32(e, level);
    emit_rm(e, (struct how){0}, OPC(0xff), 4, op_frame(FRAME(tmp)));
    while (n--)
        patch_jump(e, no[n], e->p);
    emit_rm(e, (struct how){0}, OPC(0xff), 4, op_frame(FRAME(tmp2)));
}

bool jit_make_thunks(struct jit *j)
{
    struct jit_arena *a = &j->arena;
    bool ymm = j->host_gates >> GATE_AVX & 1;
    struct emit e = {.start = a->code_write,
                     .p = a->code_write,
                     .limit = a->code_write + a->code_size,
                     .exec = a->code - a->code_write};
    j->enter = (void (*)(struct vcpu *, struct jit_frame *, const void *))(uintptr_t)(e.p + e.exec);
    emit_enter(&e);
    j->thunk_exit = e.p + e.exec;
    emit_exit(&e, JIT_EXIT_EDGE, ymm);
    j->thunk_interp = e.p + e.exec;
    emit_exit(&e, JIT_EXIT_INTERP, ymm);
    j->thunk_slow = e.p + e.exec;
    emit_slow(&e, ymm);
    j->thunk_vec = e.p + e.exec;
    emit_vec(&e, VEC_XMM);
    j->thunk_ymm = e.p + e.exec;
    if (ymm)
        emit_vec(&e, VEC_YMM);
    j->thunk_x87 = e.p + e.exec;
    emit_x87(&e, ymm);
    jit_make_image_thunk(j, &e);
    jit_make_stream_thunks(j, &e);
    j->thunk_find = e.p + e.exec;
    emit_find(&e, ymm);
    uint8_t *slow = emit_jcc(&e, CC_NZ);
    patch_jump(&e, slow, j->thunk_slow - e.exec);
    emit_jmp_to(&e, j->thunk_exit - e.exec);
    jit_make_crossings(j, &e);
    a->code_used = (size_t)(e.p - e.start);
    j->thunks_end = a->code_used;
    j->data_start = a->data_used;
    return !e.full;
}
