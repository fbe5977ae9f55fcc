/*
 * SSE: the same instruction on the host's registers. The host's MXCSR is the guest's, all exceptions masked.
 */
#include "cpu/jit/internal.h"

#include <cpuid.h>

/* ---- what the host has ---- */

static uint64_t gate_if(bool has, unsigned gate)
{
    return has ? 1ull << gate : 0;
}

/* Does the host's system keep YMM registers? */
static bool host_keeps_ymm(unsigned ecx1)
{
    unsigned low, high;
    if (!(ecx1 & 1u << 27))
        return false;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & 6) == 6;
}

uint64_t jit_host_gates(void)
{
    unsigned eax, ebx, ecx = 0, edx, ebx7 = 0, ecx7 = 0, edx7;
    uint64_t gates = 1ull << GATE_SSE | 1ull << GATE_SSE2;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx))
        return gates;
    __get_cpuid_count(7, 0, &eax, &ebx7, &ecx7, &edx7);
    gates |= gate_if(ecx & 1, GATE_SSE3) | gate_if(ecx >> 1 & 1, GATE_PCLMUL) | gate_if(ecx >> 9 & 1, GATE_SSSE3) |
             gate_if(ecx >> 19 & 1, GATE_SSE41) | gate_if(ecx >> 20 & 1, GATE_SSE42) |
             gate_if(ecx >> 25 & 1, GATE_AES) | gate_if(ecx >> 22 & 1, GATE_MOVBE) | gate_if(ebx7 >> 3 & 1, GATE_BMI1) |
             gate_if(ebx7 >> 8 & 1, GATE_BMI2) | gate_if(ebx7 >> 29 & 1, GATE_SHA) | gate_if(ecx7 >> 8 & 1, GATE_GFNI);
    if (ecx >> 28 & 1 && host_keeps_ymm(ecx))
        gates |= 1ull << GATE_AVX | gate_if(ecx >> 12 & 1, GATE_FMA) | gate_if(ecx >> 29 & 1, GATE_F16C) |
                 gate_if(ebx7 >> 5 & 1, GATE_AVX2);
    return gates;
}

bool tr_host_has(const struct tr *t, unsigned gate)
{
    return t->j->host_gates >> gate & 1;
}

/* ---- which instructions ---- */

static bool is_string(unsigned op)
{
    return op == OP_PCMPESTRI || op == OP_PCMPESTRM || op == OP_PCMPISTRI || op == OP_PCMPISTRM ||
           op == OP_VPCMPESTRI || op == OP_VPCMPESTRM || op == OP_VPCMPISTRI || op == OP_VPCMPISTRM;
}

bool tr_vector_sets_flags(const struct insn *i)
{
    return insn_form(i)->write & FLAGS_ARITH || is_string(i->op);
}

uint32_t tr_vector_implied_writes(const struct insn *i)
{
    bool index = i->op == OP_PCMPESTRI || i->op == OP_PCMPISTRI || i->op == OP_VPCMPESTRI || i->op == OP_VPCMPISTRI;
    return index ? tr_bit(REG_RCX) : 0;
}

/* Memory operands of 16 bytes that need not be aligned. */
static bool may_be_unaligned(unsigned op)
{
    return op == OP_MOVUPS || op == OP_MOVUPD || op == OP_MOVDQU || op == OP_LDDQU || is_string(op);
}

static bool is_general(unsigned kind)
{
    return kind == KIND_G || kind == KIND_G32;
}

static bool is_moved_general(const struct op_form *f)
{
    return is_general(f->reg_kind) || is_general(f->rm_kind);
}

static bool is_legacy_sse(const struct tr *t, const struct op_form *f)
{
    unsigned map = f->key >> 8;
    if (map != MAP_0F && map != MAP_38 && map != MAP_3A)
        return false;
    return f->gate >= GATE_SSE && f->gate <= GATE_GFNI && tr_host_has(t, f->gate) &&
           (f->reg_kind == KIND_X || f->rm_kind == KIND_X);
}

static bool has_shape(const struct insn *i)
{
    return i->enc == ENC_RM || i->enc == ENC_MR || i->enc == ENC_RMI || i->enc == ENC_MI || i->enc == ENC_MRI;
}

unsigned tr_is_vector(const struct tr *t, const struct insn *i)
{
    const struct op_form *f = insn_form(i);
    if (i->flags & INSN_VEX)
        return tr_is_avx(t, i) ? VEC_YMM : VEC_NONE;
    if (!is_legacy_sse(t, f) || f->reg_kind == KIND_M || f->rm_kind == KIND_M || i->op == OP_MASKMOVDQU)
        return VEC_NONE;
    if (!has_shape(i) || (!(i->flags & INSN_RM_REG) && !tr_has_ea(t, i)))
        return VEC_NONE;
    return VEC_XMM;
}

/* MMX on the host's registers, which are those of its x87 unit. What has to do with XMM registers, too, and MASKMOVQ
 * are the handlers'. */
bool tr_is_mmx(const struct tr *t, const struct insn *i)
{
    const struct op_form *f = insn_form(i);
    unsigned map = f->key >> 8;
    bool vector = f->reg_kind == KIND_X || f->rm_kind == KIND_X;
    if (i->op == OP_EMMS)
        return true;
    if ((f->reg_kind != KIND_M && f->rm_kind != KIND_M) || vector || i->op == OP_MASKMOVQ || !has_shape(i))
        return false;
    if ((map != MAP_0F && map != MAP_38 && map != MAP_3A) || (f->gate != GATE_MMX && !tr_host_has(t, f->gate)))
        return false;
    return i->flags & INSN_RM_REG || tr_has_ea(t, i);
}

static unsigned mem_size(const struct insn *i)
{
    bool store = i->enc == ENC_MR || i->enc == ENC_MRI;
    return store && !is_moved_general(insn_form(i)) ? i->opsize : i->srcsize;
}

static struct opcode opcode_of(const struct op_form *f)
{
    static const uint8_t prefix[] = {
        [PP_ANY] = 0, [PP_NP] = 0, [PP_N66] = 0, [PP_P66] = 0x66, [PP_PF3] = 0xf3, [PP_PF2] = 0xf2};
    unsigned map = f->key >> 8;
    return (struct opcode){prefix[f->prefix & PP_KIND],
                           map == MAP_0F   ? 0x0f
                           : map == MAP_38 ? 0x38
                                           : 0x3a,
                           (uint8_t)f->key};
}

void tr_check_aligned(struct tr *t, unsigned size, uint32_t rec)
{
    if ((unsigned)t->e.r14_disp & (size - 1)) {
        emit_lea(&t->e, 8, H_R14, (struct maddr){H_R14, -1, 0, t->e.r14_disp});
        t->e.r14_disp = 0;
    }
    emit_rm(&t->e, (struct how){.size = 1, .rm_byte = true}, OPC(0xf6), 0, op_reg(H_R14)); /* test r14b, size - 1 */
    e8(&t->e, size - 1);
    tr_jump_cold(t, emit_jcc(&t->e, CC_NZ), COLD_SLOW, rec, 0);
}

/* ---- operands in general registers ---- */

struct vector_operands tr_vector_operands(struct tr *t, const struct insn *i)
{
    const struct op_form *f = insn_form(i);
    bool mem = insn_has_mem(i), to_rm = i->enc == ENC_MR || i->enc == ENC_MRI;
    struct vector_operands o = {.reg = i->reg, .rm = mem ? op_r14() : op_reg(i->rm), .guest = -1};
    unsigned digit = f->modrm >= RM_D(0) && f->modrm < RM_DR(0) + 8 ? f->modrm & 7u : 0;
    if (i->enc == ENC_MI || i->enc == ENC_VMI)
        o.reg = digit;
    if (is_general(f->reg_kind)) {
        o.reg = jit_host_of[i->reg] >= 0 ? (unsigned)jit_host_of[i->reg] : H_R15;
        o.guest = i->reg;
        o.host = o.reg;
    } else if (is_general(f->rm_kind) && !mem) {
        o.rm = tr_gpr(i->rm);
        if (to_rm) {
            o.host = jit_host_of[i->rm] >= 0 ? (unsigned)jit_host_of[i->rm] : H_R15;
            o.rm = op_reg(o.host);
            o.guest = i->rm;
        }
    }
    return o;
}

void tr_vector_finish(struct tr *t, const struct vector_operands *o, bool sets_flags, bool mem)
{
    if (o->guest >= 0)
        tr_reg_out(t, (unsigned)o->guest, o->host);
    if (!sets_flags)
        return;
    if (mem || tr_flags_live(t))
        tr_set_flags_image(t);
    else
        tr_set_flags_dead(t, 0);
}

/* ---- instructions ---- */

static bool crc32(struct tr *t, const struct insn *i)
{
    struct emit *e = &t->e;
    bool mem = insn_has_mem(i);
    if (!tr_host_has(t, GATE_SSE42) || (mem && !tr_has_ea(t, i)))
        return false;
    bool byte = i->srcsize == 1;
    struct how w = {.size = i->srcsize == 8 ? 8 : i->srcsize == 2 ? 2 : 4, .rm_byte = byte};
    struct opnd rm = mem ? op_r14() : tr_gpr(i->rm);
    unsigned reg = jit_host_of[i->reg] >= 0 ? (unsigned)jit_host_of[i->reg] : H_R14;
    if (reg == H_R14 && (mem || !can_encode(w, reg, rm)))
        return false;
    if (!can_encode(w, reg, rm))
        return false;
    uint32_t rec = 0;
    tr_begin(t, tr_bit(i->reg), false);
    if (mem) {
        rec = tr_slow(t, i);
        tr_ea(t, i);
        tr_check(t, i->srcsize, false, rec);
    }
    if (reg == H_R14)
        emit_load(e, H_R14, FRAME(gpr) + 8 * ((int)i->reg - 13));
    emit_rm(e, w, (struct opcode){0xf2, 0x38, byte ? 0xf0 : 0xf1}, reg, rm);
    tr_reg_out(t, i->reg, reg);
    if (mem)
        tr_resume(t, rec);
    return true;
}

/* The hint is not worth a line of the host's cache: a plain store. */
static bool movnti(struct tr *t, const struct insn *i)
{
    if (!tr_has_ea(t, i))
        return false;
    tr_begin(t, 0, false);
    uint32_t rec = tr_slow(t, i);
    tr_ea(t, i);
    tr_check(t, i->opsize, true, rec);
    emit_rm(&t->e, (struct how){.size = i->opsize}, OPC(0x89), tr_reg_in(t, i->reg), op_r14());
    tr_resume(t, rec);
    return true;
}

static unsigned legacy_width(const struct insn *i)
{
    const struct op_form *f = insn_form(i);
    if (is_string(i->op))
        return i->flags & INSN_W ? 8 : 0;
    if (is_general(f->reg_kind))
        return i->opsize == 8 ? 8 : 0;
    return is_general(f->rm_kind) && i->srcsize == 8 ? 8 : 0;
}

static void legacy(struct tr *t, const struct insn *i)
{
    const struct op_form *f = insn_form(i);
    bool mem = insn_has_mem(i), store = i->enc == ENC_MR || i->enc == ENC_MRI;
    bool compares = tr_vector_sets_flags(i);
    struct vector_operands o = tr_vector_operands(t, i);
    uint32_t rec = 0, writes = tr_vector_implied_writes(i) | (o.guest >= 0 ? tr_bit((unsigned)o.guest) : 0);
    if (compares && mem)
        tr_commit(t);
    tr_begin(t, writes, compares && !mem);
    if (mem) {
        unsigned size = mem_size(i);
        rec = tr_slow(t, i);
        tr_ea(t, i);
        tr_check(t, size, store, rec);
        if (size == 16 && !may_be_unaligned(i->op))
            tr_check_aligned(t, size, rec);
    }
    emit_rm(&t->e, (struct how){.size = legacy_width(i)}, opcode_of(f), o.reg, o.rm);
    if (i->enc == ENC_RMI || i->enc == ENC_MI || i->enc == ENC_MRI)
        e8(&t->e, (unsigned)i->imm & 0xff);
    tr_vector_finish(t, &o, compares, mem);
    if (mem)
        tr_resume(t, rec);
}

bool tr_vector(struct tr *t, const struct insn *i)
{
    if (i->op == OP_CRC32)
        return crc32(t, i);
    if (i->op == OP_MOVNTI)
        return movnti(t, i);
    if (i->op == OP_EMMS) {
        e8(&t->e, 0x0f);
        e8(&t->e, 0x77);
        return true;
    }
    if (tr_is_mmx(t, i)) {
        legacy(t, i);
        return true;
    }
    switch (tr_is_vector(t, i)) {
    case VEC_XMM:
        legacy(t, i);
        return true;
    case VEC_YMM:
        tr_avx(t, i);
        return true;
    default:
        return false;
    }
}
