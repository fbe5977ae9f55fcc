/*
 * The decoder: bytes to struct insn, by the rows of cpu/optable.def.
 *
 * The order is the hardware's: prefixes, opcode, ModRM with SIB and displacement, immediate. Reading past the bytes at
 * hand, or past the 15th byte, is remembered and reported at the end; until then such reads give 0. A form is chosen
 * from the rows of the opcode once the ModRM byte is known; what no row fits is an undefined opcode. Sources: SDM
 * volume 2, chapter 2 (formats) and section 3.1.1 (notation).
 */
#include "cpu/optable.h"

#include <string.h>

#define INSN_MAX_LEN 15

struct decoder {
    const uint8_t *bytes;
    size_t avail;
    unsigned pos;
    enum decode_result status;
    bool code64, code16;
    unsigned mode; /* enum cpu_mode_bits */
    uint8_t md;    /* the same as one of MD_64, MD_PROT, MD_REAL */
    /* Prefixes. */
    bool osz, asz, lock, vex, vex_l;
    uint8_t rep; /* last of F2, F3, or 0 */
    uint8_t rex; /* byte, or 0 */
    uint8_t seg; /* override that counts in this mode, or SEG_NONE */
    uint8_t w, r, x, b;
    uint8_t kind; /* prefix that selects forms: PP_NP, PP_P66, PP_PF3, PP_PF2 */
    uint8_t map, opcode, modrm;
    uint64_t gates;                     /* forms that exist: bits by enum op_gate */
    const struct op_form *form, *gated; /* chosen; what would be but for its gate */
};

/* ---- bytes ---- */

static uint64_t next_bytes(struct decoder *d, unsigned n)
{
    uint64_t x = 0;
    for (unsigned k = 0; k < n; k++) {
        if (d->status != DECODE_OK)
            return 0;
        if (d->pos == INSN_MAX_LEN)
            d->status = DECODE_TOO_LONG;
        else if (d->pos >= d->avail)
            d->status = DECODE_MORE;
        else
            x |= (uint64_t)d->bytes[d->pos++] << 8 * k;
    }
    return d->status == DECODE_OK ? x : 0;
}

static uint8_t next8(struct decoder *d)
{
    return (uint8_t)next_bytes(d, 1);
}

/* Sign-extended. */
static int64_t next_signed(struct decoder *d, unsigned n)
{
    unsigned shift = 64 - 8 * n;
    return (int64_t)(next_bytes(d, n) << shift) >> shift;
}

/* The byte after the next one read would be at pos + 1; gives the byte at pos without consuming it. */
static uint8_t peek8(struct decoder *d)
{
    unsigned pos = d->pos;
    uint8_t x = next8(d);
    d->pos = pos;
    return x;
}

/* ---- prefixes and opcode ---- */

static void set_override(struct decoder *d, unsigned seg)
{
    if (!d->code64 || seg >= SEG_FS)
        d->seg = (uint8_t)seg;
}

/* Takes `byte` if it is a legacy prefix. */
static bool take_prefix(struct decoder *d, uint8_t byte)
{
    switch (byte) {
    case 0x26:
    case 0x2e:
    case 0x36:
    case 0x3e:
        set_override(d, byte >> 3 & 3);
        return true;
    case 0x64:
    case 0x65:
        set_override(d, byte & 7);
        return true;
    case 0x66:
        d->osz = true;
        return true;
    case 0x67:
        d->asz = true;
        return true;
    case 0xf0:
        d->lock = true;
        return true;
    case 0xf2:
    case 0xf3:
        d->rep = byte;
        return true;
    default:
        return false;
    }
}

/* Reads prefixes; gives the first byte that is none. A REX prefix counts only right before the opcode. */
static uint8_t read_prefixes(struct decoder *d)
{
    for (;;) {
        uint8_t byte = next8(d);
        if (d->status != DECODE_OK)
            return 0;
        if (take_prefix(d, byte))
            d->rex = 0;
        else if (d->code64 && (byte & 0xf0) == 0x40)
            d->rex = byte;
        else
            return byte;
    }
}

static uint8_t prefix_kind(const struct decoder *d)
{
    return d->rep == 0xf3 ? PP_PF3 : d->rep == 0xf2 ? PP_PF2 : d->osz ? PP_P66 : PP_NP;
}

static void read_legacy_opcode(struct decoder *d, uint8_t byte)
{
    d->w = d->rex >> 3 & 1;
    d->r = d->rex >> 2 & 1;
    d->x = d->rex >> 1 & 1;
    d->b = d->rex & 1;
    d->kind = prefix_kind(d);
    d->map = MAP_ONE;
    d->opcode = byte;
    if (byte != 0x0f)
        return;
    d->map = MAP_0F;
    d->opcode = next8(d);
    if (d->opcode != 0x38 && d->opcode != 0x3a)
        return;
    d->map = d->opcode == 0x38 ? MAP_38 : MAP_3A;
    d->opcode = next8(d);
}

/* C4 and C5 are LES and LDS outside 64-bit mode unless a register operand follows, which those cannot have. */
static bool is_vex(struct decoder *d, uint8_t byte)
{
    if ((byte & 0xfe) != 0xc4 || d->md == MD_REAL)
        return false;
    return d->code64 || peek8(d) >= 0xc0;
}

/* After C4 or C5. False if the prefix itself is illegal (SDM volume 2, section 2.3). */
static bool read_vex_opcode(struct decoder *d, struct insn *out, uint8_t byte)
{
    static const uint8_t kinds[4] = {PP_NP, PP_P66, PP_PF3, PP_PF2};
    bool legal = !d->rex && !d->osz && !d->rep && !d->lock;
    unsigned first = next8(d), last = first, map = 1;
    d->r = !(first >> 7);
    if (byte == 0xc4) {
        d->x = !(first >> 6 & 1);
        d->b = d->code64 && !(first >> 5 & 1);
        map = first & 0x1f;
        last = next8(d);
        d->w = last >> 7;
    }
    d->vex = true;
    d->vex_l = last >> 2 & 1;
    d->kind = kinds[last & 3];
    out->vvvv = (uint8_t)(~(last >> 3) & (d->code64 ? 15 : 7));
    d->opcode = next8(d);
    if (map < 1 || map > 3)
        return false;
    d->map = (uint8_t)(MAP_V0F + map - 1);
    return legal;
}

/* ---- the form ---- */

static bool prefix_fits(const struct decoder *d, unsigned prefix)
{
    unsigned kind = prefix & PP_KIND;
    if (kind == PP_N66 ? d->kind == PP_PF2 || d->kind == PP_PF3 : kind != PP_ANY && kind != d->kind)
        return false;
    return !((prefix & PP_NOB && d->b) || (prefix & PP_W0 && d->w) || (prefix & PP_W1 && !d->w) ||
             (prefix & PP_L0 && d->vex_l) || (prefix & PP_L1 && !d->vex_l));
}

static bool modrm_fits(const struct decoder *d, unsigned want)
{
    bool reg = d->modrm >= 0xc0;
    unsigned digit = d->modrm >> 3 & 7;
    if (want >= 0xc0)
        return d->modrm == want;
    switch (want >> 3) {
    case 0:
        return want != RM_MEM && want != RM_REG ? true : reg == (want == RM_REG);
    case 1:
        return (want & 7) == digit;
    default:
        return (want & 7) == digit && reg == (want >> 3 == 3);
    }
}

/* Chooses the row, reading the ModRM byte if the opcode has one. NULL: undefined. */
static const struct op_form *find_form(struct decoder *d)
{
    unsigned key = d->map << 8 | d->opcode;
    const struct op_form *f = &optable_forms[optable_last_form(d->map, d->opcode)], *found = NULL;
    if (f->op == OP_UD)
        return NULL;
    if (f->modrm)
        d->modrm = next8(d);
    for (; f->key == key; f--) {
        if (!(f->modes & d->md) || !prefix_fits(d, f->prefix) || !modrm_fits(d, f->modrm))
            continue;
        if (d->gates >> f->gate & 1)
            found = f;
        else
            d->gated = f;
    }
    return found;
}

/* ---- sizes ---- */

static unsigned size_of(const struct decoder *d, unsigned rule)
{
    static const uint8_t fixed[] = {[SZ_B] = 1, [SZ_W] = 2, [SZ_D] = 4, [SZ_Q] = 8, [SZ_T] = 10, [SZ_X] = 16};
    unsigned z = d->osz != d->code16 ? 2 : 4;
    bool memory = d->modrm < 0xc0;
    switch (rule) {
    case SZ_V:
        return d->w ? 8 : z;
    case SZ_Z:
        return z;
    case SZ_Y:
        return d->w && d->code64 ? 8 : 4;
    case SZ_D64:
        return !d->code64 ? z : d->w || !d->osz ? 8 : 2;
    case SZ_F64:
    case SZ_DT:
        return d->code64 ? 8 : z;
    case SZ_N:
        return d->code64 ? 8 : 4;
    case SZ_VW:
        return memory ? 2 : d->w ? 8 : z;
    case SZ_ENV:
        return z == 2 && !d->w ? 14 : 28;
    case SZ_ST:
        return z == 2 && !d->w ? 94 : 108;
    case SZ_L:
    case SZ_LH:
    case SZ_LQ:
    case SZ_LE:
        return (d->vex_l ? 32u : 16u) >> (rule - SZ_L);
    default:
        return fixed[rule];
    }
}

/* ---- operands ---- */

static uint8_t reg_number(const struct decoder *d, unsigned kind, unsigned n, unsigned size)
{
    if (kind == KIND_M || kind == KIND_F || kind == KIND_S)
        return n & 7;
    if (kind == KIND_G && size == 1 && !d->rex && n >= 4)
        return (uint8_t)(n | BYTE_HIGH);
    return (uint8_t)n;
}

/* The operand's segment, `def` unless overridden, and what has to be checked about it. */
static void set_segment(const struct decoder *d, struct insn *out, unsigned def)
{
    unsigned seg = d->seg != SEG_NONE ? d->seg : def;
    if (seg == SEG_SS)
        out->flags |= INSN_STACKSEG;
    if (d->code64) {
        out->seg = d->seg;
        return;
    }
    out->seg = (uint8_t)seg;
    /* FLAT says nothing of FS and GS, and code segments are never writable. */
    if (!(d->mode & MODE_FLAT) || seg == SEG_CS || seg >= SEG_FS)
        out->flags |= INSN_SEGCHK;
}

static void memory_operand16(struct decoder *d, struct insn *out)
{
    static const uint8_t base[8] = {REG_RBX, REG_RBX, REG_RBP, REG_RBP, REG_RSI, REG_RDI, REG_RBP, REG_RBX};
    static const uint8_t index[8] = {REG_RSI, REG_RDI, REG_RSI, REG_RDI, REG_ZERO, REG_ZERO, REG_ZERO, REG_ZERO};
    unsigned mod = d->modrm >> 6, rm = d->modrm & 7;
    bool absolute = mod == 0 && rm == 6;
    out->base = absolute ? REG_ZERO : base[rm];
    out->index = index[rm];
    if (mod == 2 || absolute)
        out->disp = (int32_t)next_signed(d, 2);
    else if (mod == 1)
        out->disp = (int32_t)next_signed(d, 1);
    set_segment(d, out, out->base == REG_RBP ? SEG_SS : SEG_DS);
}

static void memory_operand(struct decoder *d, struct insn *out)
{
    unsigned mod = d->modrm >> 6, rm = d->modrm & 7;
    unsigned disp_size = mod == 1 ? 1 : mod == 2 ? 4 : 0;
    bool vsib = d->form->props & PROP_VSIB;
    out->base = (uint8_t)(rm | d->b << 3);
    if (rm == 4) {
        uint8_t sib = next8(d);
        out->scale = sib >> 6;
        out->index = (uint8_t)((sib >> 3 & 7) | d->x << 3);
        if (out->index == REG_RSP && !vsib) {
            out->index = REG_ZERO;
            out->scale = 0;
        }
        out->base = (uint8_t)((sib & 7) | d->b << 3);
        if (mod == 0 && (sib & 7) == 5) {
            out->base = REG_ZERO;
            disp_size = 4;
        }
    } else if (mod == 0 && rm == 5) {
        out->base = d->code64 ? REG_IP : REG_ZERO;
        disp_size = 4;
    }
    if (disp_size)
        out->disp = (int32_t)next_signed(d, disp_size);
    set_segment(d, out, out->base == REG_RSP || out->base == REG_RBP ? SEG_SS : SEG_DS);
}

static void modrm_operands(struct decoder *d, struct insn *out)
{
    const struct op_form *f = d->form;
    out->modrm = d->modrm;
    out->reg = reg_number(d, f->reg_kind, (d->modrm >> 3 & 7) | d->r << 3, out->opsize);
    if (d->modrm >= 0xc0 || f->props & PROP_MODREG) {
        out->rm = reg_number(d, f->rm_kind, (d->modrm & 7) | d->b << 3, out->srcsize);
        out->flags |= INSN_RM_REG;
    } else if (out->adsize == 2) {
        memory_operand16(d, out);
    } else {
        memory_operand(d, out);
    }
}

/* Operands that come with the opcode. */
static void implied_operands(struct decoder *d, struct insn *out)
{
    const struct op_form *f = d->form;
    if (f->props & PROP_OPREG) {
        out->rm = reg_number(d, KIND_G, (d->opcode & 7) | d->b << 3, out->opsize);
        out->flags |= INSN_RM_REG;
    } else if (f->imm == IMM_OFF) {
        out->flags |= INSN_DISP64;
        set_segment(d, out, SEG_DS);
    } else if (f->props & PROP_ACC) {
        out->flags |= INSN_RM_REG;
    }
    if (f->props & PROP_SI)
        set_segment(d, out, SEG_DS);
    if (f->props & PROP_ES && !d->code64 && !(d->mode & MODE_FLAT))
        out->flags |= INSN_SEGCHK;
    if (f->props & PROP_CC)
        out->cc = d->opcode & 15;
    if (f->op == OP_PUSH_SREG || f->op == OP_POP_SREG)
        out->reg = d->opcode >> 3 & 7;
}

static void read_immediate(struct decoder *d, struct insn *out)
{
    unsigned z = out->opsize == 2 ? 2 : 4;
    switch (d->form->imm) {
    case IMM_IB:
    case IMM_JB:
        out->imm = (uint64_t)next_signed(d, 1);
        break;
    case IMM_UB:
        out->imm = next8(d);
        break;
    case IMM_UW:
        out->imm = next_bytes(d, 2);
        break;
    case IMM_IZ:
    case IMM_JZ:
        out->imm = (uint64_t)next_signed(d, z);
        break;
    case IMM_IV:
        out->imm = next_bytes(d, out->opsize);
        break;
    case IMM_OFF:
        out->imm = next_bytes(d, out->adsize);
        break;
    case IMM_FAR:
        out->imm = next_bytes(d, z);
        out->imm2 = (uint16_t)next_bytes(d, 2);
        break;
    case IMM_WB:
        out->imm = next_bytes(d, 2);
        out->imm2 = next8(d);
        break;
    default:
        break;
    }
}

/* ---- putting it together ---- */

static void set_flags(const struct decoder *d, struct insn *out)
{
    unsigned kind = d->form->prefix & PP_KIND;
    bool repeated = d->rep && kind != PP_PF2 && kind != PP_PF3;
    if (repeated)
        out->flags |= d->rep == 0xf3 ? INSN_REP : INSN_REPNE;
    if (d->lock)
        out->flags |= INSN_LOCK;
    if (d->rex)
        out->flags |= INSN_REX;
    if (d->osz)
        out->flags |= INSN_OSZ;
    if (d->vex)
        out->flags |= INSN_VEX;
    if (d->vex_l)
        out->flags |= INSN_VEX_L;
    if (d->w)
        out->flags |= INSN_W;
    if (d->form->props & PROP_ENDS || (d->form->props & PROP_ENDS_REP && repeated))
        out->flags |= INSN_ENDS;
}

static bool uses_vvvv(unsigned enc)
{
    return enc == ENC_RVM || enc == ENC_RMV || enc == ENC_VM || enc == ENC_RVMI || enc == ENC_VMI || enc == ENC_MVR;
}

/* What makes an encoding that has a row illegal all the same. */
static bool is_legal(const struct decoder *d, const struct insn *out)
{
    const struct op_form *f = d->form;
    if (f->props & PROP_UD)
        return false;
    if (d->lock && (!(f->props & PROP_LOCK) || out->flags & INSN_RM_REG))
        return false;
    if (d->vex && !uses_vvvv(f->enc) && out->vvvv)
        return false;
    if (f->props & PROP_VSIB && ((d->modrm & 7) != 4 || out->adsize == 2 || out->index == out->reg ||
                                 out->index == out->vvvv || out->reg == out->vvvv))
        return false;
    switch (f->reg_kind) {
    case KIND_S:
        return out->reg <= SEG_GS && !(f->op == OP_MOV_TO_SREG && out->reg == SEG_CS);
    case KIND_C:
        return out->reg < 9 && 1 << out->reg & 0x11d; /* CR0, CR2, CR3, CR4, CR8 */
    case KIND_DR:
        return out->reg < 8;
    default:
        return true;
    }
}

static enum decode_result undefined(const struct decoder *d, struct insn *out, unsigned off)
{
    const struct op_form *form = d->form ? d->form : d->gated;
    *out = (struct insn){.op = OP_UD,
                         .form = (uint16_t)(form && !d->lock ? form - optable_forms : 0),
                         .flags = INSN_ENDS,
                         .off = (uint16_t)off,
                         .len = (uint8_t)d->pos,
                         .base = REG_ZERO,
                         .index = REG_ZERO,
                         .seg = SEG_NONE,
                         .opsize = 4,
                         .srcsize = 4,
                         .adsize = 4,
                         .opcode = d->opcode};
    return DECODE_UD;
}

static enum decode_result too_long(const struct decoder *d, struct insn *out, unsigned off)
{
    undefined(d, out, off);
    out->op = OP_GP0;
    out->form = 0;
    return DECODE_TOO_LONG;
}

/* A displacement from the end of the instruction becomes one from the block's first byte, which may take 33 bits. */
static void count_from_block(struct insn *out)
{
    int64_t disp = (int64_t)out->disp + out->off + out->len;
    if (disp > INT32_MAX) {
        out->index = REG_2G;
        disp -= 1ll << 31;
    }
    out->disp = (int32_t)disp;
}

static void decode_form(struct decoder *d, struct insn *out, unsigned off)
{
    const struct op_form *f = d->form;
    out->op = f->op;
    out->form = (uint16_t)(f - optable_forms);
    out->enc = f->enc;
    out->off = (uint16_t)off;
    out->opcode = d->opcode;
    out->base = out->index = REG_ZERO;
    out->seg = SEG_NONE;
    out->adsize = d->code64 ? (d->asz ? 4 : 8) : d->asz != d->code16 ? 2 : 4;
    out->opsize = (uint8_t)size_of(d, f->size);
    out->srcsize = f->src == SZ_SAME ? out->opsize : (uint8_t)size_of(d, f->src);
    if (f->modrm)
        modrm_operands(d, out);
    implied_operands(d, out);
    read_immediate(d, out);
    if (f->props & PROP_IS4)
        out->imm2 = (uint16_t)(out->imm >> 4 & (d->code64 ? 15 : 7));
    set_flags(d, out);
    out->len = (uint8_t)d->pos;
    if (out->base == REG_IP)
        count_from_block(out);
}

enum decode_result insn_decode_gated(struct insn *out, const uint8_t *bytes, size_t avail, unsigned mode, unsigned off,
                                     uint64_t gates)
{
    bool code64 = mode & MODE_CODE64, real = !(mode & MODE_PE) || mode & MODE_VM;
    struct decoder d = {.bytes = bytes,
                        .avail = avail,
                        .mode = mode,
                        .gates = gates,
                        .code64 = code64,
                        .code16 = !code64 && !(mode & MODE_CODE32),
                        .md = code64 ? MD_64
                              : real ? MD_REAL
                                     : MD_PROT,
                        .seg = SEG_NONE};
    *out = (struct insn){0};
    uint8_t byte = read_prefixes(&d);
    bool legal = true;
    if (is_vex(&d, byte))
        legal = read_vex_opcode(&d, out, byte);
    else
        read_legacy_opcode(&d, byte);
    if (legal && d.status == DECODE_OK)
        d.form = find_form(&d);
    if (d.form && d.status == DECODE_OK)
        decode_form(&d, out, off);
    if (d.status == DECODE_MORE)
        return DECODE_MORE;
    if (d.status == DECODE_TOO_LONG)
        return too_long(&d, out, off);
    if (!d.form || !is_legal(&d, out))
        return undefined(&d, out, off);
    return DECODE_OK;
}

enum decode_result insn_decode(struct insn *out, const uint8_t *bytes, size_t avail, unsigned mode, unsigned off)
{
    return insn_decode_gated(out, bytes, avail, mode, off, ~0ull);
}
