/*
 * Arithmetic, logic and plain moves of one operand size: compiled once for each of
 *   ALU_NAME  suffix of the names
 *   ALU_BITS  8, 16, 32, 64
 *   ALU_HIGH  1: byte registers may be AH..BH
 */
#define ALU_CAT2(a, b) a##b
#define ALU_CAT(a, b)  ALU_CAT2(a, b)
#define UT             ALU_CAT(ALU_CAT(uint, ALU_BITS), _t)
#define SIZE           (ALU_BITS / 8)

always_inline UT get_reg(const struct vcpu *v, unsigned r)
{
#if ALU_HIGH
    return reg_get8(v, r);
#else
    return (UT)v->gpr[r];
#endif
}

always_inline void set_reg(struct vcpu *v, unsigned r, UT x)
{
#if ALU_HIGH
    reg_set8(v, r, x);
#elif ALU_BITS >= 32
    v->gpr[r] = x;
#else
    v->gpr[r] = (v->gpr[r] & ~(uint64_t)(UT)-1) | x;
#endif
}

/* ---- semantics: result from operands, flags set ---- */

always_inline UT do_add(struct vcpu *v, UT a, UT b)
{
    UT r = (UT)(a + b);
    flags_set_add(v, a, b, r, SIZE);
    return r;
}
always_inline UT do_adc(struct vcpu *v, UT a, UT b)
{
    UT r = (UT)(a + b + (v->f_cy >> 63));
    flags_set_add(v, a, b, r, SIZE);
    return r;
}
always_inline UT do_sub(struct vcpu *v, UT a, UT b)
{
    UT r = (UT)(a - b);
    flags_set_sub(v, a, b, r, SIZE);
    return r;
}
always_inline UT do_sbb(struct vcpu *v, UT a, UT b)
{
    UT r = (UT)(a - b - (v->f_cy >> 63));
    flags_set_sub(v, a, b, r, SIZE);
    return r;
}
always_inline UT do_and(struct vcpu *v, UT a, UT b)
{
    UT r = a & b;
    flags_set_logic(v, r, SIZE);
    return r;
}
always_inline UT do_or(struct vcpu *v, UT a, UT b)
{
    UT r = a | b;
    flags_set_logic(v, r, SIZE);
    return r;
}
always_inline UT do_xor(struct vcpu *v, UT a, UT b)
{
    UT r = a ^ b;
    flags_set_logic(v, r, SIZE);
    return r;
}
/* INC and DEC keep CF: bit 62 of f_cy moves so that OF comes out right. */
always_inline void keep_carry(struct vcpu *v, uint64_t cf, bool of)
{
    v->f_cy = cf << 63 | (cf ^ of) << 62;
}
always_inline UT do_inc(struct vcpu *v, UT a)
{
    UT r = (UT)(a + 1);
    v->f_res = flags_sext(r, SIZE);
    keep_carry(v, v->f_cy >> 63, r == (UT)((UT)1 << (ALU_BITS - 1)));
    v->f_adj = (uint64_t)(a ^ r) & 0x10;
    return r;
}
always_inline UT do_dec(struct vcpu *v, UT a)
{
    UT r = (UT)(a - 1);
    v->f_res = flags_sext(r, SIZE);
    keep_carry(v, v->f_cy >> 63, a == (UT)((UT)1 << (ALU_BITS - 1)));
    v->f_adj = (uint64_t)(a ^ r) & 0x10;
    return r;
}
always_inline UT do_neg(struct vcpu *v, UT a)
{
    return do_sub(v, 0, a);
}
always_inline UT do_not(struct vcpu *v, UT a)
{
    (void)v;
    return (UT)~a;
}

#define REG(field) get_reg(v, i->field)
#define IMM        ((UT)i->imm)

/* ---- two operands, the first written ---- */
#define ALU_WRITING(op)                                                                                                \
    HANDLER_REG(op##_rr_rm, set_reg(v, i->reg, do_##op(v, REG(reg), REG(rm))))                                         \
    HANDLER_REG(op##_rr_mr, set_reg(v, i->rm, do_##op(v, REG(rm), REG(reg))))                                          \
    HANDLER_REG(op##_ri, set_reg(v, i->rm, do_##op(v, REG(rm), IMM)))                                                  \
    HANDLERS_LOAD(op##_load, UT, set_reg(v, i->reg, do_##op(v, REG(reg), m)))                                          \
    HANDLERS_RMW(op##_rmw_r, UT, m = do_##op(v, m, REG(reg)))                                                          \
    HANDLERS_RMW(op##_rmw_i, UT, m = do_##op(v, m, IMM))

ALU_WRITING(add)
ALU_WRITING(or)
ALU_WRITING(adc)
ALU_WRITING(sbb)
ALU_WRITING(and)
ALU_WRITING(sub)
ALU_WRITING(xor)

/* ---- two operands, only flags ---- */
#define ALU_COMPARING(op, does)                                                                                        \
    HANDLER_REG(op##_rr_rm, does(v, REG(reg), REG(rm)))                                                                \
    HANDLER_REG(op##_rr_mr, does(v, REG(rm), REG(reg)))                                                                \
    HANDLER_REG(op##_ri, does(v, REG(rm), IMM))                                                                        \
    HANDLERS_LOAD(op##_load, UT, does(v, REG(reg), m))                                                                 \
    HANDLERS_LOAD(op##_rmw_r, UT, does(v, m, REG(reg)))                                                                \
    HANDLERS_LOAD(op##_rmw_i, UT, does(v, m, IMM))

ALU_COMPARING(cmp, do_sub)
ALU_COMPARING(test, do_and)

/* XOR of a register with itself and TEST of one with itself are what compilers write for zero and for a look at a
 * value. */
HANDLER_REG(zero, set_reg(v, i->rm, 0); flags_set_logic(v, 0, SIZE))
HANDLER_REG(test_self, flags_set_logic(v, REG(rm), SIZE))

/* ---- one operand ---- */
#define ALU_UNARY(op)                                                                                                  \
    HANDLER_REG(op##_r, set_reg(v, i->rm, do_##op(v, REG(rm))))                                                        \
    HANDLERS_RMW(op##_rmw, UT, m = do_##op(v, m))

ALU_UNARY(inc)
ALU_UNARY(dec)
ALU_UNARY(neg)
ALU_UNARY(not )

/* ---- MOV ---- */
HANDLER_REG(mov_rr_rm, set_reg(v, i->reg, REG(rm)))
HANDLER_REG(mov_rr_mr, set_reg(v, i->rm, REG(reg)))
HANDLER_REG(mov_ri, set_reg(v, i->rm, IMM))
HANDLERS_LOAD(mov_load, UT, set_reg(v, i->reg, m))
HANDLERS_STORE(mov_store_r, UT, REG(reg))
HANDLERS_STORE(mov_store_i, UT, IMM)

struct alu_row {
    op_fn *rr_rm, *rr_mr, *ri;
    op_fn *load[EA_KINDS], *rmw_r[EA_KINDS], *rmw_i[EA_KINDS];
};
#define ALU_ROW(op)                                                                                                    \
    {                                                                                                                  \
        op##_rr_rm, op##_rr_mr, op##_ri, EA_TABLE(op##_load), EA_TABLE(op##_rmw_r), EA_TABLE(op##_rmw_i)               \
    }
static const struct alu_row add_row = ALU_ROW(add), or_row = ALU_ROW(or), adc_row = ALU_ROW(adc),
                            sbb_row = ALU_ROW(sbb), and_row = ALU_ROW(and), sub_row = ALU_ROW(sub),
                            xor_row = ALU_ROW(xor), cmp_row = ALU_ROW(cmp), test_row = ALU_ROW(test);
static const struct alu_row mov_row = {
    mov_rr_rm, mov_rr_mr, mov_ri, EA_TABLE(mov_load), EA_TABLE(mov_store_r), EA_TABLE(mov_store_i)};

static const struct alu_row *alu_row_of(unsigned op)
{
    switch (op) {
    case OP_ADD:
        return &add_row;
    case OP_OR:
        return &or_row;
    case OP_ADC:
        return &adc_row;
    case OP_SBB:
        return &sbb_row;
    case OP_AND:
        return &and_row;
    case OP_SUB:
        return &sub_row;
    case OP_XOR:
        return &xor_row;
    case OP_CMP:
        return &cmp_row;
    case OP_TEST:
        return &test_row;
    case OP_MOV:
        return &mov_row;
    default:
        return NULL;
    }
}

static op_fn *bind_unary(const struct insn *i, enum ea_kind k)
{
    static op_fn *const inc_m[] = EA_TABLE(inc_rmw), *const dec_m[] = EA_TABLE(dec_rmw),
                        *const neg_m[] = EA_TABLE(neg_rmw), *const not_m[] = EA_TABLE(not_rmw);
    bool r = i->flags & INSN_RM_REG;
    switch (i->op) {
    case OP_INC:
        return r ? inc_r : inc_m[k];
    case OP_DEC:
        return r ? dec_r : dec_m[k];
    case OP_NEG:
        return r ? neg_r : neg_m[k];
    case OP_NOT:
        return r ? not_r : not_m[k];
    default:
        return NULL;
    }
}

op_fn *ALU_CAT(bind_alu, ALU_NAME)(const struct insn *i, enum ea_kind k)
{
    const struct alu_row *row = alu_row_of(i->op);
    bool r = i->flags & INSN_RM_REG;
    if (!row)
        return bind_unary(i, k);
    if (r && i->reg == i->rm && i->enc != ENC_MI && i->op == OP_XOR)
        return zero;
    if (r && i->reg == i->rm && i->enc != ENC_MI && i->op == OP_TEST)
        return test_self;
    switch (i->enc) {
    case ENC_MR:
        return r ? row->rr_mr : row->rmw_r[k];
    case ENC_RM:
        return r ? row->rr_rm : row->load[k];
    case ENC_MI:
        return r ? row->ri : row->rmw_i[k];
    default:
        return NULL;
    }
}
