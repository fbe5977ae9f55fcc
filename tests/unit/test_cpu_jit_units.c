/*
 * Floating point and vectors in compiled code against the interpreter: short random programs of x87, SSE and AVX
 * instructions run in two machines from the same random state, until the one with the JIT has compiled them, and
 * beyond. Both must end in the same state, pointers of the x87 unit, contents of empty registers and faults included.
 */
#include "cpu/jit/jit.h"

#include "fpu_oracle.h"

#define PROGRAM_INSNS 6
#define RUNS          16
#define MEM_SIZE      96
#define MEM_HOLE      0x1000 /* behind the data */

struct pair {
    struct oracle a, b; /* interpreter, JIT */
    struct jit *jit;
    uint8_t program[PROGRAM_INSNS * 15 + 1];
    unsigned len;
};

static bool is_unit_gate(unsigned gate)
{
    return gate == GATE_X87 || gate == GATE_CMOV || gate == GATE_MMX ||
           (gate >= GATE_SSE && gate <= GATE_GFNI && gate != GATE_FXSR) || (gate >= GATE_AVX && gate <= GATE_F16C);
}

static bool is_wanted(const struct op_form *f)
{
    bool unit = f->reg_kind == KIND_X || f->rm_kind == KIND_X || f->reg_kind == KIND_F || f->reg_kind == KIND_M ||
                f->rm_kind == KIND_M || f->op == OP_CRC32 || f->op == OP_MOVNTI || f->op == OP_FWAIT;
    return unit && is_unit_gate(f->gate) && !(f->props & (PROP_VSIB | PROP_ENDS | PROP_UD));
}

/* A general register that the program must keep, as an operand of the form. */
static bool keeps(const struct op_form *f, const struct insn *i)
{
    bool reg = f->reg_kind <= KIND_G32, rm = f->rm_kind <= KIND_G32 && i->flags & INSN_RM_REG;
    return (reg && (i->reg & 15) >= 4 && (i->reg & 15) <= 7) || (rm && (i->rm & 15) >= 4 && (i->rm & 15) <= 7);
}

/* One encoding of the row with random operands; memory operands are at [rsi + disp8]. 0: not this time. */
static unsigned make_insn(struct oracle *o, const struct op_form *f, uint8_t *p)
{
    static const uint8_t legacy[] = {0, 0x66, 0xf3, 0xf2};
    unsigned map = f->key >> 8, n = 0, r = (unsigned)oracle_random(o), pp = f->prefix & PP_KIND;
    unsigned kind = pp == PP_P66 ? 1 : pp == PP_PF3 ? 2 : pp == PP_PF2 ? 3 : 0;
    struct insn i;
    memset(p, 0, 15);
    if (map >= MAP_V0F) {
        p[n++] = 0xc4;
        p[n++] = (uint8_t)((r & 0x80) | 0x60 | (map - MAP_V0F + 1));
        p[n++] = (uint8_t)((r >> 8 & 0xfc) | kind);
    } else {
        if (f->op == OP_CRC32 && r & 0x80)
            p[n++] = 0x66;
        if (legacy[kind])
            p[n++] = legacy[kind];
        if (r & 1)
            p[n++] = (uint8_t)(0x40 | (r >> 1 & 0xc));
        if (map != MAP_ONE)
            p[n++] = 0x0f;
        if (map == MAP_38 || map == MAP_3A)
            p[n++] = map == MAP_38 ? 0x38 : 0x3a;
    }
    p[n++] = (uint8_t)f->key;
    unsigned modrm = f->modrm >= 0xc0 ? f->modrm : r >> 16 & 0xff, reg = modrm >> 3 & 7;
    if (f->modrm >= 0x08 && f->modrm < 0x20)
        reg = f->modrm & 7;
    if (modrm < 0xc0 || f->modrm == RM_MEM || (f->modrm >= RM_DM(0) && f->modrm < RM_DM(8)))
        modrm = 0x46;
    p[n++] = (uint8_t)((modrm & 0xc7) | reg << 3);
    p[n] = (uint8_t)(r >> 24 & 1 ? 0 : oracle_below(o, 3) ? 16 : oracle_below(o, 32)); /* displacement or immediate */
    p[n + 1] = (uint8_t)oracle_random(o);
    if (insn_decode(&i, p, 15, MODE_CODE64 | MODE_LONG | MODE_PE, 0) != DECODE_OK || insn_form(&i) != f || keeps(f, &i))
        return 0;
    return i.len;
}

static void make_program(struct pair *p)
{
    struct oracle *o = &p->a;
    bool x87 = oracle_below(o, 2);
    p->len = 0;
    for (unsigned k = 0; k < PROGRAM_INSNS;) {
        const struct op_form *f = &optable_forms[1 + oracle_below(o, optable_form_count - 1)];
        if (!is_wanted(f) || (f->reg_kind == KIND_F) != (x87 || !oracle_below(o, 8)))
            continue;
        unsigned len = make_insn(o, f, p->program + p->len);
        p->len += len;
        k += len != 0;
    }
    p->program[p->len++] = 0xf4; /* hlt */
}

/* Most of the time as programs have it: everything masked. */
static void make_state(struct pair *p, struct oracle_state *s)
{
    struct oracle *o = &p->a;
    oracle_randomize(o, s);
    if (!oracle_below(o, 8))
        return;
    s->fx[0] |= 0x3f;
    s->fx[2] &= 0x7f;
    s->fx[3] &= 0x7f;
    s->fx[24] |= 0x80;
    s->fx[25] |= 0x1f;
    if (oracle_below(o, 2))
        s->fx[4] = oracle_below(o, 2) ? 0xff : 0xe7;
    if (oracle_below(o, 2))
        memset(s->high, 0, sizeof s->high);
}

static void start(struct oracle *o, const struct oracle_state *s, uint64_t salt)
{
    struct vcpu *v = o->rig.v;
    uint8_t more[MEM_SIZE];
    oracle_load(o, s);
    memcpy(more, s->fx + 160, sizeof more);
    mem_access(o->rig.mem, 0, RIG_DATA + ORACLE_MEM, more, sizeof more, MEM_HOST_POKE, true, BUS_NO_CPU);
    for (unsigned n = 8; n < 16; n++)
        v->gpr[n] = salt * n;
    v->gpr[REG_RDI] = RIG_DATA + 64;
    if (salt >> 60 == 0) /* into a page that is not there */
        v->gpr[REG_RSI] = RIG_DATA + MEM_HOLE - 24;
    v->gpr[REG_RSP] = RIG_STACK;
    v->rip = RIG_CODE;
    v->activity = VCPU_RUNNING;
    v->fpu.fip = salt;
    v->fpu.fdp = ~salt;
    v->fpu.fop = (uint16_t)(salt & 0x7ff);
    v->fpu.fcs = v->fpu.fds = 8;
}

static void check_same(struct pair *p, unsigned run)
{
    const struct vcpu *a = p->a.rig.v, *b = p->b.rig.v;
    uint8_t ma[MEM_HOLE], mb[sizeof ma];
    char text[PROGRAM_INSNS * 100], *at = text;
    mem_access(p->a.rig.mem, 0, RIG_DATA, ma, sizeof ma, MEM_PEEK, false, BUS_NO_CPU);
    mem_access(p->b.rig.mem, 0, RIG_DATA, mb, sizeof mb, MEM_PEEK, false, BUS_NO_CPU);
    text[0] = 0;
    for (unsigned n = 0; n < p->len;) {
        struct insn i;
        insn_decode(&i, p->program + n, 15, a->mode, 0);
        insn_print(&i, 0, at, 90);
        at += strlen(at);
        *at++ = ';';
        *at = 0;
        n += i.len;
    }
    unsigned bad = 0;
    bad |= a->rip != b->rip;
    bad |= (memcmp(a->gpr, b->gpr, 16 * 8) != 0) << 1;
    bad |= (vcpu_rflags(a) != vcpu_rflags(b)) << 2;
    bad |= (a->mxcsr != b->mxcsr) << 3;
    bad |= (memcmp(a->xmm, b->xmm, sizeof a->xmm) != 0) << 4;
    bad |= (memcmp(ma, mb, sizeof ma) != 0) << 5;
    bad |= (a->fpu.fsw != b->fpu.fsw || a->fpu.top != b->fpu.top || a->fpu.tag != b->fpu.tag) << 6;
    bad |= (a->fpu.fcw != b->fpu.fcw) << 7;
    bad |= (a->fpu.fip != b->fpu.fip || a->fpu.fop != b->fpu.fop || a->fpu.fcs != b->fpu.fcs) << 8;
    bad |= (a->fpu.fdp != b->fpu.fdp || a->fpu.fds != b->fpu.fds) << 9;
    for (unsigned r = 0; r < 8; r++)
        bad |= (a->fpu.st[r].mant != b->fpu.st[r].mant || a->fpu.st[r].exp != b->fpu.st[r].exp) << 10;
    bad |= (clock_now(&p->a.rig.clock) != clock_now(&p->b.rig.clock)) << 11;
    ck_assert_msg(
        !bad,
        "run %u differs (%#x): fsw %04x top %u tag %02x, JIT fsw %04x top %u tag %02x; fop %x %x fdp %llx %llx: %s",
        run, bad, a->fpu.fsw, a->fpu.top, a->fpu.tag, b->fpu.fsw, b->fpu.top, b->fpu.tag, a->fpu.fop, b->fpu.fop,
        (unsigned long long)a->fpu.fdp, (unsigned long long)b->fpu.fdp, text);
}

static void run_program(struct pair *p)
{
    make_program(p);
    for (unsigned n = 0; n < 2; n++)
        mem_access((n ? &p->b : &p->a)->rig.mem, 0, RIG_CODE, p->program, p->len, MEM_HOST_POKE, true, BUS_NO_CPU);
    for (unsigned k = 0; k < RUNS; k++) {
        struct oracle_state s;
        make_state(p, &s);
        memcpy(p->b.mem, p->a.mem, ORACLE_MEM);
        uint64_t salt = oracle_random(&p->a);
        start(&p->a, &s, salt);
        start(&p->b, &s, salt);
        vcpu_run(p->a.rig.v, 1000);
        vcpu_run(p->b.rig.v, 1000);
        check_same(p, k);
    }
}

static void pair_open(struct pair *p, uint64_t seed)
{
    memset(p, 0, sizeof *p);
    oracle_open(&p->a);
    oracle_open(&p->b);
    p->jit = jit_create(&(struct jit_config){.log = &p->b.rig.log, .heat = 2});
    ck_assert_ptr_nonnull(p->jit);
    p->b.rig.v->jit = p->jit;
    p->a.rng = seed;
    rig_poke(&p->a.rig, RIG_PT + 8 * ((RIG_DATA + MEM_HOLE) >> 12), 0, 8);
    rig_poke(&p->b.rig, RIG_PT + 8 * ((RIG_DATA + MEM_HOLE) >> 12), 0, 8);
}

static void pair_close(struct pair *p)
{
    oracle_close(&p->a);
    oracle_close(&p->b);
    jit_destroy(p->jit);
}

START_TEST(compiled_programs_end_as_interpreted_ones)
{
    const char *more = getenv("UMBRA_PROGRAMS"), *seed = getenv("UMBRA_SEED");
    unsigned programs = more ? (unsigned)atoi(more) : 6000;
    struct pair p;
    pair_open(&p, seed ? (uint64_t)atoll(seed) : 1);
    for (unsigned n = 0; n < programs; n++)
        run_program(&p);
    pair_close(&p);
}
END_TEST

static Suite *suite(void)
{
    const TTest *const tests[] = {compiled_programs_end_as_interpreted_ones};
    return rig_suite("cpu: floating point and vectors in compiled code", tests, ARRAY_LEN(tests));
}

CHECK_MAIN(suite)
