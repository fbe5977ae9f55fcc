/*
 * Single bits and bit counts: BT family, BSF, BSR, TZCNT, LZCNT, POPCNT, CRC32, BMI.
 *
 * Flags that the manual leaves undefined are as AMD's processors leave them: the BT family keeps all but CF; BSF and
 * BSR set PF by the result and clear SF, CF, OF, AF; a source of 0 leaves their destination untouched; TZCNT and LZCNT
 * keep OF and clear SF, PF, AF; BEXTR sets AF and clears SF; the others set SF and PF by the result and clear AF.
 */
#include "cpu/interp/integer.h"

/* ---- BT, BTS, BTR, BTC ---- */

always_inline uint64_t bit_change(unsigned op, uint64_t a, uint64_t bit)
{
    switch (op) {
    case OP_BTS:
        return a | bit;
    case OP_BTR:
        return a & ~bit;
    case OP_BTC:
        return a ^ bit;
    default:
        return a;
    }
}

/* `n` is the bit number, `bits` the operand's width. */
always_inline uint64_t do_bit(struct vcpu *v, unsigned op, uint64_t a, uint64_t n, unsigned bits)
{
    n &= bits - 1;
    flags_set_cf(v, a >> n & 1);
    return bit_change(op, a, 1ull << n);
}

/* Memory operand of the form with a register: the bit number selects the unit, too, as a signed offset. */
static uint64_t bit_linear(struct vcpu *v, const struct insn *i, unsigned write)
{
    unsigned size = i->opsize, shift = size == 2 ? 4 : size == 4 ? 5 : 6;
    if (i->enc != ENC_MR)
        return insn_linear(v, i, size, write);
    int64_t n = (int64_t)flags_sext(reg_get(v, i->reg, size), size);
    uint64_t off = insn_offset(v, i) + (uint64_t)(n >> shift) * size;
    return linear_of(v, i, i->seg, wrap_offset(off, i->adsize), size, write);
}

#define BIT_HANDLERS(name, op)                                                                                         \
    HANDLER_REG(name##_rr_32,                                                                                          \
                reg_set32(v, i->rm, (uint32_t)do_bit(v, op, (uint32_t)v->gpr[i->rm], v->gpr[i->reg], 32)))             \
    HANDLER_REG(name##_ri_32, reg_set32(v, i->rm, (uint32_t)do_bit(v, op, (uint32_t)v->gpr[i->rm], i->imm, 32)))       \
    HANDLER_REG(name##_rr_64, v->gpr[i->rm] = do_bit(v, op, v->gpr[i->rm], v->gpr[i->reg], 64))                        \
    HANDLER_REG(name##_ri_64, v->gpr[i->rm] = do_bit(v, op, v->gpr[i->rm], i->imm, 64))                                \
    HANDLER_REG(name##_r_16, uint64_t n = i->enc == ENC_MR ? v->gpr[i->reg] : i->imm;                                  \
                reg_set16(v, i->rm, (uint16_t)do_bit(v, op, (uint16_t)v->gpr[i->rm], n, 16)))
BIT_HANDLERS(bts, OP_BTS)
BIT_HANDLERS(btr, OP_BTR)
BIT_HANDLERS(btc, OP_BTC)

/* BT writes nothing, not even the zeroes above a 32-bit register. */
HANDLER_REG(bt_rr_64, do_bit(v, OP_BT, v->gpr[i->rm], v->gpr[i->reg], 64))
HANDLER_REG(bt_ri_64, do_bit(v, OP_BT, v->gpr[i->rm], i->imm, 64))
HANDLER_REG(bt_rr_32, do_bit(v, OP_BT, v->gpr[i->rm], v->gpr[i->reg], 32))
HANDLER_REG(bt_ri_32, do_bit(v, OP_BT, v->gpr[i->rm], i->imm, 32))
HANDLER_REG(bt_r_16, do_bit(v, OP_BT, v->gpr[i->rm], i->enc == ENC_MR ? v->gpr[i->reg] : i->imm, 16))

static void bt_mem(struct vcpu *v, const struct insn *i)
{
    uint64_t lin = bit_linear(v, i, 0);
    uint64_t n = i->enc == ENC_MR ? v->gpr[i->reg] : i->imm;
    do_bit(v, OP_BT, lin_load(v, i, lin, i->opsize), n, 8u * i->opsize);
    NEXT_MEM(v, i);
}

static void bit_mem(struct vcpu *v, const struct insn *i)
{
    uint64_t lin = bit_linear(v, i, 1);
    uint64_t n = i->enc == ENC_MR ? v->gpr[i->reg] : i->imm;
    uint64_t m = lin_rmw_load(v, i, lin, i->opsize);
    lin_store(v, i, lin, do_bit(v, i->op, m, n, 8u * i->opsize), i->opsize);
    NEXT_MEM(v, i);
}

static op_fn *bind_bit_test(const struct insn *i)
{
#define ROW(n)                                                                                                         \
    {                                                                                                                  \
        n##_r_16, n##_rr_32, n##_ri_32, n##_rr_64, n##_ri_64                                                           \
    }
    static op_fn *const table[4][5] = {ROW(bt), ROW(bts), ROW(btr), ROW(btc)};
#undef ROW
    op_fn *const *row = table[i->op == OP_BT ? 0 : i->op == OP_BTS ? 1 : i->op == OP_BTR ? 2 : 3];
    if (!(i->flags & INSN_RM_REG))
        return i->op == OP_BT ? bt_mem : bit_mem;
    return i->opsize == 2 ? row[0] : row[(i->opsize == 4 ? 1 : 3) + (i->enc != ENC_MR)];
}

/* ---- scans and counts: (old destination, source) to result ---- */

#define SCAN_OPS(X, bits)                                                                                              \
    X(bsf, bits)                                                                                                       \
    X(bsr, bits)                                                                                                       \
    X(tzcnt, bits)                                                                                                     \
    X(lzcnt, bits)                                                                                                     \
    X(popcnt, bits)

/* ZF by the source, PF by the bit's number. */
always_inline void scan_flags(struct vcpu *v, uint64_t x, unsigned n)
{
    v->f_res = x != 0;
    v->f_cy = 0;
    v->f_adj = (uint64_t)((x != 0) ^ n) << 8; /* so that the parity is n's */
}
/* CF: the source was 0; ZF: the result is; OF stays. */
always_inline void count_flags(struct vcpu *v, uint64_t x, uint64_t r)
{
    flags_set_cf(v, x == 0);
    v->f_res = r != 0;
    v->f_adj = r ? 0 : 1 << 8; /* PF is clear in any case */
}
always_inline void do_bsf(struct vcpu *v, const struct insn *i, uint64_t x, unsigned bits)
{
    scan_flags(v, x, x ? (unsigned)__builtin_ctzll(x) : 0);
    if (x)
        reg_set(v, i->reg, bits / 8, (unsigned)__builtin_ctzll(x));
}
always_inline void do_bsr(struct vcpu *v, const struct insn *i, uint64_t x, unsigned bits)
{
    scan_flags(v, x, x ? 63 - (unsigned)__builtin_clzll(x) : 0);
    if (x)
        reg_set(v, i->reg, bits / 8, 63 - (unsigned)__builtin_clzll(x));
}
always_inline void do_tzcnt(struct vcpu *v, const struct insn *i, uint64_t x, unsigned bits)
{
    uint64_t r = x ? (unsigned)__builtin_ctzll(x) : bits;
    reg_set(v, i->reg, bits / 8, r);
    count_flags(v, x, r);
}
always_inline void do_lzcnt(struct vcpu *v, const struct insn *i, uint64_t x, unsigned bits)
{
    uint64_t r = x ? (unsigned)__builtin_clzll(x) - (64 - bits) : bits;
    reg_set(v, i->reg, bits / 8, r);
    count_flags(v, x, r);
}
/* All flags but ZF are cleared: PF as well, whatever the result's parity. */
always_inline void do_popcnt(struct vcpu *v, const struct insn *i, uint64_t x, unsigned bits)
{
    reg_set(v, i->reg, bits / 8, (unsigned)__builtin_popcountll(x));
    v->f_res = x != 0;
    v->f_cy = 0;
    v->f_adj = x ? 0 : 1 << 8;
}

#define SCAN(name, bits)                                                                                               \
    HANDLER_REG(name##_r_##bits, do_##name(v, i, (uint##bits##_t)v->gpr[i->rm], bits))                                 \
    static void name##_m_##bits(struct vcpu *v, const struct insn *i)                                                  \
    {                                                                                                                  \
        do_##name(v, i, lin_load##bits(v, i, insn_linear(v, i, bits / 8, 0)), bits);                                   \
        NEXT_MEM(v, i);                                                                                                \
    }
SCAN_OPS(SCAN, 16)
SCAN_OPS(SCAN, 32)
SCAN_OPS(SCAN, 64)

static op_fn *bind_scan(const struct insn *i, unsigned row)
{
#define X(name, bits) {name##_r_##bits, name##_m_##bits},
    static op_fn *const table[3][5][2] = {{SCAN_OPS(X, 16)}, {SCAN_OPS(X, 32)}, {SCAN_OPS(X, 64)}};
#undef X
    return table[i->opsize == 2 ? 0 : i->opsize == 4 ? 1 : 2][row][!(i->flags & INSN_RM_REG)];
}

/* ---- CRC32: Castagnoli polynomial 11EDC6F41h, bits reflected ---- */

static uint32_t crc32c_update(uint32_t crc, uint64_t data, unsigned bytes)
{
    static const uint32_t nibble[16] = {0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3,
                                        0x61c69362, 0x7198540d, 0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
                                        0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75};
    for (unsigned k = 0; k < 2 * bytes; k++)
        crc = crc >> 4 ^ nibble[(crc ^ data >> 4 * k) & 15];
    return crc;
}

/* The destination is 32 bits wide and zero-extended, also with REX.W. */
static void crc32(struct vcpu *v, const struct insn *i)
{
    uint64_t x = insn_source(v, i, i->srcsize);
    reg_set32(v, i->reg, crc32c_update((uint32_t)v->gpr[i->reg], x, i->srcsize));
    NEXT_MEM(v, i);
}

/* ---- ADCX, ADOX: additions that touch one flag ---- */

static void adcx_adox(struct vcpu *v, const struct insn *i)
{
    unsigned bits = 8u * i->opsize;
    bool x = i->op == OP_ADCX, cf = flag_cf(v), of = flag_of(v);
    unsigned __int128 sum =
        (unsigned __int128)insn_source(v, i, i->opsize) + reg_get(v, i->reg, i->opsize) + (x ? cf : of);
    bool carry = sum >> bits & 1;
    reg_set(v, i->reg, i->opsize, (uint64_t)sum);
    flags_set_cf_of(v, x ? carry : cf, x ? of : carry);
    NEXT_MEM(v, i);
}

/* ---- BMI1 and BMI2 without shifts ---- */

static uint64_t bits_below(uint64_t n)
{
    return n >= 64 ? ~0ull : (1ull << n) - 1;
}

static uint64_t do_pext(uint64_t x, uint64_t mask)
{
    uint64_t r = 0;
    for (unsigned k = 0; mask; k++, mask &= mask - 1)
        r |= (uint64_t)((x & mask & -mask) != 0) << k;
    return r;
}

static uint64_t do_pdep(uint64_t x, uint64_t mask)
{
    uint64_t r = 0;
    for (; mask; x >>= 1, mask &= mask - 1)
        r |= x & 1 ? mask & -mask : 0;
    return r;
}

static uint64_t do_bextr(uint64_t x, uint64_t control)
{
    unsigned start = control & 0xff, len = control >> 8 & 0xff;
    return start >= 64 ? 0 : (x >> start) & bits_below(len);
}

/* Result with the logic flags and this CF. */
static void bmi_result(struct vcpu *v, const struct insn *i, unsigned reg, uint64_t r, bool cf)
{
    reg_set(v, reg, i->opsize, r);
    flags_set_logic(v, r, i->opsize);
    v->f_cy = cf ? 3ull << 62 : 0;
}

static void bmi_any(struct vcpu *v, const struct insn *i)
{
    unsigned bits = 8u * i->opsize;
    uint64_t x = insn_source(v, i, i->opsize), w = reg_get(v, i->vvvv, i->opsize);
    switch (i->op) {
    case OP_ANDN:
        bmi_result(v, i, i->reg, ~w & x, false);
        break;
    case OP_BLSR:
        bmi_result(v, i, i->vvvv, x & (x - 1), x == 0);
        break;
    case OP_BLSMSK:
        bmi_result(v, i, i->vvvv, x ^ (x - 1), x == 0);
        break;
    case OP_BLSI:
        bmi_result(v, i, i->vvvv, x & -x, x != 0);
        break;
    case OP_BEXTR:
        bmi_result(v, i, i->reg, do_bextr(x, w), false);
        v->f_adj = FLAG_AF | (v->f_res & 1ull << 63);
        break;
    case OP_BZHI:
        bmi_result(v, i, i->reg, x & bits_below(w & 0xff), (w & 0xff) >= bits);
        break;
    case OP_PEXT:
        reg_set(v, i->reg, i->opsize, do_pext(w, x));
        break;
    default: /* PDEP */
        reg_set(v, i->reg, i->opsize, do_pdep(w, x));
        break;
    }
    NEXT_MEM(v, i);
}

op_fn *bind_bits(const struct insn *i)
{
    switch (i->op) {
    case OP_BT:
    case OP_BTS:
    case OP_BTR:
    case OP_BTC:
        return bind_bit_test(i);
    case OP_BSF:
        return bind_scan(i, 0);
    case OP_BSR:
        return bind_scan(i, 1);
    case OP_TZCNT:
        return bind_scan(i, 2);
    case OP_LZCNT:
        return bind_scan(i, 3);
    case OP_POPCNT:
        return bind_scan(i, 4);
    case OP_CRC32:
        return crc32;
    case OP_ADCX:
    case OP_ADOX:
        return adcx_adox;
    case OP_ANDN:
    case OP_BLSR:
    case OP_BLSMSK:
    case OP_BLSI:
    case OP_BEXTR:
    case OP_BZHI:
    case OP_PEXT:
    case OP_PDEP:
        return bmi_any;
    default:
        return NULL;
    }
}
