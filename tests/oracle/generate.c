/*
 * Cases from the rows of optable.def: for a row an encoding (prefixes, opcode, ModRM, SIB, displacement, immediate),
 * and for the encoding registers and memory that make it meet its operands. What a row decodes to is left to the
 * decoder under test; a case whose bytes do not decode to the row is thrown away, except that now and then raw bytes
 * are used as they are.
 */
#include "tests/oracle/generate.h"

#include <stdlib.h>
#include <string.h>

struct generator {
    const struct cpu_model *model;
    unsigned count;
    uint16_t row[4096];
};

#define MODE64 (MODE_CODE64 | MODE_PE | MODE_LONG | MODE_FLAT | MODE_SS32 | MODE_USER)
#define MODE32 (MODE_PE | MODE_LONG | MODE_CODE32 | MODE_FLAT | MODE_SS32 | MODE_USER)

/* ---- choosing rows ---- */

struct generator *generator_create(const struct cpu_model *model, uint64_t host_gates, const char *only)
{
    struct generator *g = calloc(1, sizeof *g);
    if (!g)
        exit(2);
    g->model = model;
    for (unsigned n = 1; n < optable_form_count && g->count < ARRAY_LEN(g->row); n++) {
        const struct op_form *f = &optable_forms[n];
        if (oracle_exclusion(f) || !(f->modes & MD_PM))
            continue;
        if (!(model->gates >> f->gate & 1) || !(host_gates >> f->gate & 1))
            continue;
        if (!only || strcmp(only, optable_op_names[f->op]) == 0)
            g->row[g->count++] = (uint16_t)n;
    }
    return g;
}

void generator_destroy(struct generator *g)
{
    free(g);
}

unsigned generator_forms(const struct generator *g)
{
    return g->count;
}

/* ---- bytes ---- */

static void put(struct encoding *e, uint64_t x, unsigned n)
{
    for (unsigned k = 0; k < n && e->len < sizeof e->bytes; k++)
        e->bytes[e->len++] = (uint8_t)(x >> 8 * k);
}

static bool is_branch(const struct op_form *f)
{
    return f->imm == IMM_JB || f->imm == IMM_JZ || f->op == OP_CALL || f->op == OP_JMP || f->op == OP_RET;
}

/* AMD's processors let 66 shorten near branches in 64-bit mode, Intel's ignore it: not asked for. */
static void put_legacy_prefixes(struct encoding *e, const struct op_form *f, bool code32, bool plain)
{
    static const uint8_t overrides64[] = {0x65, 0x65, 0x2e, 0x36, 0x3e, 0x26};
    static const uint8_t overrides32[] = {0x2e, 0x36, 0x3e, 0x26};
    static const uint8_t mandatory[8] = {[PP_P66] = 0x66, [PP_PF3] = 0xf3, [PP_PF2] = 0xf2};
    struct oracle_rng *r = e->rng;
    unsigned kind = f->prefix & PP_KIND;
    bool vex = f->key >> 8 >= MAP_V0F;
    if (!plain && rng_one_in(r, 10))
        put(e, code32 ? overrides32[rng_below(r, 4)] : overrides64[rng_below(r, 6)], 1);
    if (!plain && rng_one_in(r, 12))
        put(e, 0x67, 1);
    if (f->props & PROP_LOCK && rng_one_in(r, 6))
        put(e, 0xf0, 1);
    else if (!plain && rng_one_in(r, 200))
        put(e, 0xf0, 1);
    if (vex)
        return;
    if ((kind == PP_ANY || kind == PP_N66) && !(is_branch(f) && !code32) && rng_one_in(r, 4))
        put(e, 0x66, 1);
    if (kind == PP_ANY && rng_one_in(r, f->props & PROP_ENDS_REP ? 2 : 24))
        put(e, rng_one_in(r, 2) ? 0xf2 : 0xf3, 1);
    if ((kind == PP_PF2 || kind == PP_PF3) && rng_one_in(r, 16))
        put(e, 0x66, 1);
    if (mandatory[kind])
        put(e, mandatory[kind], 1);
}

static unsigned want_w(struct oracle_rng *r, const struct op_form *f)
{
    return f->prefix & PP_W1 ? 1 : f->prefix & PP_W0 ? 0 : rng_one_in(r, 2);
}

static void put_vex(struct encoding *e, const struct op_form *f, bool code32)
{
    static const uint8_t pp[8] = {[PP_P66] = 1, [PP_PF3] = 2, [PP_PF2] = 3};
    struct oracle_rng *r = e->rng;
    bool wants_v = f->enc == ENC_RVM || f->enc == ENC_RMV || f->enc == ENC_VM || f->enc == ENC_RVMI ||
                   f->enc == ENC_VMI || f->enc == ENC_MVR;
    unsigned w = want_w(r, f), l = f->prefix & PP_L1 ? 1 : f->prefix & PP_L0 ? 0 : rng_one_in(r, 2);
    unsigned v = wants_v ? rng_below(r, 16) | (code32 ? 8 : 0) : 15, rxb = code32 ? 7 : rng_below(r, 8);
    uint8_t last = (uint8_t)(v << 3 | l << 2 | pp[f->prefix & PP_KIND]);
    unsigned map = (f->key >> 8) - MAP_V0F + 1;
    if (map == 1 && (rxb & 3) == 3 && !w && rng_one_in(r, 2)) {
        put(e, 0xc5, 1);
        put(e, (uint8_t)((rxb & 4) << 5 | last), 1);
    } else {
        put(e, 0xc4, 1);
        put(e, (uint8_t)(rxb << 5 | map), 1);
        put(e, (uint8_t)(w << 7 | last), 1);
    }
}

static void put_opcode(struct encoding *e, const struct op_form *f, bool code32)
{
    unsigned map = f->key >> 8;
    if (map >= MAP_V0F) {
        put_vex(e, f, code32);
    } else {
        unsigned w = want_w(e->rng, f);
        if (!code32 && (w || f->prefix & PP_W1 || rng_one_in(e->rng, 3)))
            put(e, 0x40 | w << 3 | (f->prefix & PP_NOB ? rng_below(e->rng, 8) & 6 : rng_below(e->rng, 8)), 1);
        if (map != MAP_ONE)
            put(e, 0x0f, 1);
        if (map == MAP_38 || map == MAP_3A)
            put(e, map == MAP_38 ? 0x38 : 0x3a, 1);
    }
    put(e, f->key & 0xff, 1);
}

/* Sequences have memory operands without registers (e->absolute): they are where they were made for whatever came
 * before. */
static void put_modrm(struct encoding *e, const struct op_form *f, bool code32)
{
    struct oracle_rng *r = e->rng;
    unsigned any = rng_below(r, 256);
    if (f->modrm >= 0xc0) {
        put(e, f->modrm, 1);
        return;
    }
    if (f->modrm >= RM_D(0))
        any = (any & 0xc7) | (f->modrm & 7u) << 3;
    bool must_mem = f->modrm == RM_MEM || (f->modrm >= RM_DM(0) && f->modrm < RM_DR(0));
    bool must_reg = f->modrm == RM_REG || f->modrm >= RM_DR(0);
    if (must_reg || (!must_mem && rng_one_in(r, 3)))
        any |= 0xc0;
    else if (any >= 0xc0)
        any = (any & 0x3f) | rng_below(r, 3) << 6;
    if (f->props & PROP_VSIB && any < 0xc0)
        any = (any & 0xf8) | 4;
    else if (e->absolute && any < 0xc0)
        any = (any & 0x38) | 5;
    put(e, any, 1);
    if (any < 0xc0 && (any & 7) == 4) /* SIB, or 16-bit [SI] */
        put(e, rng_below(r, 256), 1);
}

/* Displacement, immediate and more: what is not wanted the decoder leaves. */
static void put_tail(struct encoding *e)
{
    uint8_t tail[12];
    values_fill(e->rng, tail, sizeof tail, rng_one_in(e->rng, 2) ? VALUE_INT : VALUE_BITS);
    for (unsigned k = 0; k < sizeof tail; k++)
        put(e, tail[k], 1);
}

/* An encoding of row `form`: false if this try gave none. */
bool oracle_encode(struct encoding *e, const struct op_form *f, bool code32)
{
    e->len = 0;
    put_legacy_prefixes(e, f, code32, e->absolute);
    put_opcode(e, f, code32);
    if (f->modrm)
        put_modrm(e, f, code32);
    put_tail(e);
    enum decode_result result = insn_decode(&e->insn, e->bytes, e->len < 15 ? e->len : 15, code32 ? MODE32 : MODE64, 0);
    bool undefined = result == DECODE_UD && (f->props & PROP_UD || rng_one_in(e->rng, 40));
    if (result != DECODE_OK && !undefined)
        return false;
    if (result == DECODE_OK && insn_form(&e->insn) != f && !rng_one_in(e->rng, 20))
        return false;
    if (result == DECODE_OK && oracle_exclusion(insn_form(&e->insn)))
        return false;
    if (result == DECODE_OK && e->insn.op == OP_INT && e->insn.imm == 0x80)
        return false; /* a system call */
    if (result == DECODE_OK && e->insn.seg == SEG_FS && !code32)
        return false; /* the C library's */
    e->len = e->insn.len;
    return true;
}

/* ---- a case ---- */

static uint64_t random_flags(struct oracle_rng *r)
{
    uint64_t flags = rng64(r) & (FLAGS_ARITH | FLAG_ID);
    flags |= rng_one_in(r, 5) ? FLAG_DF : 0;
    return flags | (rng_one_in(r, 16) ? FLAG_AC : 0);
}

static void random_registers(struct oracle_rng *r, struct oracle_case *c)
{
    for (unsigned k = 0; k < 16; k++)
        c->in.gpr[k] = value_int(r);
    if (c->code32)
        for (unsigned k = 0; k < 8; k++)
            c->in.gpr[k] = (uint32_t)c->in.gpr[k];
    c->in.gpr[REG_RSP] = DATA_AT + 0x2800 + 8 * rng_below(r, 64) + (rng_one_in(r, 8) ? rng_below(r, 8) : 0);
    c->in.gpr[REG_RBP] = rng_one_in(r, 2) ? DATA_AT + 0x2c00 + 8 * rng_below(r, 32) : c->in.gpr[REG_RBP];
}

static enum value_kind kind_for(struct oracle_rng *r, const struct op_form *f)
{
    static const enum value_kind floats[] = {VALUE_F32, VALUE_F64, VALUE_F32, VALUE_F64, VALUE_INT};
    static const enum value_kind x87[] = {VALUE_F80, VALUE_F32, VALUE_F64, VALUE_INT, VALUE_BITS};
    switch (f->fault) {
    case FC_T2:
    case FC_T3:
    case FC_T11:
        return floats[rng_below(r, ARRAY_LEN(floats))];
    case FC_FPU:
        if (f->op == OP_FBLD || f->op == OP_FBSTP)
            return VALUE_BCD;
        if ((f->size == SZ_D || f->size == SZ_Q) && rng_one_in(r, 2))
            return f->size == SZ_D ? VALUE_F32 : VALUE_F64;
        return x87[rng_below(r, ARRAY_LEN(x87))];
    case FC_T12:
        return VALUE_SMALL;
    default:
        return rng_one_in(r, 2) ? VALUE_INT : (enum value_kind)rng_below(r, VALUE_KINDS);
    }
}

static const struct op_form *random_form(const struct generator *g, struct oracle_rng *r)
{
    return &optable_forms[g->row[rng_below(r, g->count)]];
}

static bool fits_mode(const struct op_form *f, bool code32)
{
    return f->modes & (code32 ? MD_PROT : MD_64);
}

static void make_single(const struct generator *g, struct oracle_rng *r, struct oracle_case *c)
{
    for (;;) {
        const struct op_form *f = random_form(g, r);
        struct encoding e = {.rng = r};
        c->code32 = rng_one_in(r, 4) || !(f->modes & MD_64);
        if (!fits_mode(f, c->code32) || !oracle_encode(&e, f, c->code32))
            continue;
        enum value_kind kind = kind_for(r, f);
        c->form = (uint16_t)(f - optable_forms);
        c->insns = 1;
        random_registers(r, c);
        values_vector_state(r, c->in.xsave, kind);
        oracle_meet_operands(r, c, &e, kind);
        memcpy(c->code, e.bytes, e.len);
        c->len = (uint8_t)e.len;
        return;
    }
}

/* Two to five instructions that fall through, the last of any kind; memory by address alone. */
static void make_sequence(const struct generator *g, struct oracle_rng *r, struct oracle_case *c)
{
    unsigned want = 2 + rng_below(r, 4);
    c->code32 = rng_one_in(r, 4);
    random_registers(r, c);
    enum value_kind kind = (enum value_kind)rng_below(r, VALUE_KINDS);
    values_vector_state(r, c->in.xsave, kind);
    c->in.flags &= ~(uint64_t)FLAG_AC;
    for (unsigned tries = 0; c->insns < want && tries < 400; tries++) {
        const struct op_form *f = random_form(g, r);
        struct encoding e = {.rng = r, .absolute = true, .at = c->len};
        if (!fits_mode(f, c->code32) || f->props & (PROP_ENDS | PROP_ENDS_REP | PROP_SI | PROP_ES | PROP_VSIB) ||
            f->enc == ENC_II || !oracle_encode(&e, f, c->code32))
            continue;
        if (!(e.insn.flags & INSN_RM_REG) && f->modrm && (e.insn.adsize == 2 || oracle_uses_bit_offset(&e.insn)))
            continue;
        if (c->insns == 0)
            c->form = (uint16_t)(f - optable_forms);
        oracle_meet_absolute(r, c, &e, kind);
        memcpy(c->code + c->len, e.bytes, e.len);
        c->len = (uint8_t)(c->len + e.len);
        c->insns++;
    }
}

void generator_make(const struct generator *g, uint64_t seed, uint64_t n, struct oracle_case *c)
{
    struct oracle_rng r = {seed * 0x9e3779b97f4a7c15 + n * 0xd1342543de82ef95};
    rng64(&r);
    memset(c, 0, sizeof *c);
    c->in.flags = random_flags(&r);
    if (g->count > 40 && rng_one_in(&r, 6))
        make_sequence(g, &r, c);
    if (!c->insns) {
        c->len = 0;
        make_single(g, &r, c);
    }
}
