/*
 * Instructions as text, in Intel syntax, for logs and the debugger.
 */
#include "cpu/optable.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- mnemonics ---- */

/* Mnemonics that stand for several, by log2 of opsize, or of adsize where `by_address`. */
static const struct {
    uint16_t op;
    bool by_address;
    const char *name[4];
} by_size[] = {
    {OP_MOVS, false, {"movsb", "movsw", "movsd", "movsq"}}, {OP_STOS, false, {"stosb", "stosw", "stosd", "stosq"}},
    {OP_LODS, false, {"lodsb", "lodsw", "lodsd", "lodsq"}}, {OP_SCAS, false, {"scasb", "scasw", "scasd", "scasq"}},
    {OP_CMPS, false, {"cmpsb", "cmpsw", "cmpsd", "cmpsq"}}, {OP_INS, false, {"insb", "insw", "insd", "insd"}},
    {OP_OUTS, false, {"outsb", "outsw", "outsd", "outsd"}}, {OP_CBW, false, {"cbw", "cbw", "cwde", "cdqe"}},
    {OP_CWD, false, {"cwd", "cwd", "cdq", "cqo"}},          {OP_PUSHA, false, {"pusha", "pusha", "pushad", "pushad"}},
    {OP_POPA, false, {"popa", "popa", "popad", "popad"}},   {OP_PUSHF, false, {"pushf", "pushf", "pushfd", "pushfq"}},
    {OP_POPF, false, {"popf", "popf", "popfd", "popfq"}},   {OP_IRET, false, {"iret", "iret", "iretd", "iretq"}},
    {OP_JCXZ, true, {"jcxz", "jcxz", "jecxz", "jrcxz"}},
};

static const char *const jcc[16] = {"jo", "jno", "jb", "jae", "je", "jne", "jbe", "ja",
                                    "js", "jns", "jp", "jnp", "jl", "jge", "jle", "jg"};
static const char *const setcc[16] = {"seto", "setno", "setb", "setae", "sete", "setne", "setbe", "seta",
                                      "sets", "setns", "setp", "setnp", "setl", "setge", "setle", "setg"};
static const char *const cmovcc[16] = {"cmovo", "cmovno", "cmovb", "cmovae", "cmove", "cmovne", "cmovbe", "cmova",
                                       "cmovs", "cmovns", "cmovp", "cmovnp", "cmovl", "cmovge", "cmovle", "cmovg"};

static unsigned log2_size(unsigned size)
{
    return size >= 8 ? 3 : size >= 4 ? 2 : size >> 1;
}

const char *insn_mnemonic(const struct insn *i)
{
    switch (i->op) {
    case OP_JCC:
        return jcc[i->cc & 15];
    case OP_SETCC:
        return setcc[i->cc & 15];
    case OP_CMOVCC:
        return cmovcc[i->cc & 15];
    case OP_MOVD:
        return i->srcsize == 8 ? "movq" : "movd";
    case OP_VMOVD:
        return i->srcsize == 8 ? "vmovq" : "vmovd";
    case OP_UD:
        return optable_op_names[insn_form(i)->props & PROP_UD ? insn_form(i)->op : OP_UD];
    default:
        break;
    }
    for (size_t k = 0; k < ARRAY_LEN(by_size); k++)
        if (by_size[k].op == i->op)
            return by_size[k].name[log2_size(by_size[k].by_address ? i->adsize : i->opsize)];
    return i->op < OP_COUNT ? optable_op_names[i->op] : "(none)";
}

/* ---- text ---- */

struct text {
    char *buf;
    size_t size, used;
    unsigned operands;
};

__attribute__((format(printf, 2, 3))) static void put(struct text *t, const char *format, ...)
{
    if (t->used + 1 >= t->size)
        return;
    va_list args;
    va_start(args, format);
    int n = vsnprintf(t->buf + t->used, t->size - t->used, format, args);
    va_end(args);
    if (n > 0)
        t->used += (size_t)n < t->size - t->used ? (size_t)n : t->size - t->used - 1;
}

static void next_operand(struct text *t)
{
    put(t, t->operands++ ? ", " : " ");
}

static void put_hex(struct text *t, uint64_t x)
{
    put(t, x < 10 ? "%" PRIu64 : "0x%" PRIx64, x);
}

/* ---- registers ---- */

static void put_gpr(struct text *t, unsigned n, unsigned size)
{
    static const char *const names[4][8] = {{"al", "cl", "dl", "bl", "spl", "bpl", "sil", "dil"},
                                            {"ax", "cx", "dx", "bx", "sp", "bp", "si", "di"},
                                            {"eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"},
                                            {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"}};
    static const char *const high[4] = {"ah", "ch", "dh", "bh"};
    static const char suffix[4] = {'b', 'w', 'd', 0};
    unsigned k = log2_size(size);
    if (n & BYTE_HIGH)
        put(t, "%s", high[n & 3]);
    else if (n < 8)
        put(t, "%s", names[k][n]);
    else if (n == REG_IP)
        put(t, size == 8 ? "rip" : "eip");
    else
        put(t, k == 3 ? "r%u" : "r%u%c", n, suffix[k]);
}

static const char *const segment_names[SEG_SLOTS] = {"es", "cs", "ss", "ds", "fs", "gs", ""};

static void put_register(struct text *t, unsigned kind, unsigned n, unsigned size)
{
    switch (kind) {
    case KIND_G:
        put_gpr(t, n, size);
        break;
    case KIND_G32:
        put_gpr(t, n, 4);
        break;
    case KIND_X:
        put(t, "%cmm%u", size == 32 ? 'y' : 'x', n);
        break;
    case KIND_M:
        put(t, "mm%u", n);
        break;
    case KIND_S:
        put(t, "%s", n < SEG_NONE ? segment_names[n] : "?");
        break;
    case KIND_C:
        put(t, "cr%u", n);
        break;
    case KIND_DR:
        put(t, "dr%u", n);
        break;
    default:
        put(t, "st(%u)", n);
        break;
    }
}

/* ---- operands ---- */

static void put_memory_size(struct text *t, unsigned size)
{
    const char *name = size == 1    ? "byte"
                       : size == 2  ? "word"
                       : size == 4  ? "dword"
                       : size == 8  ? "qword"
                       : size == 10 ? "tbyte"
                       : size == 16 ? "xmmword"
                       : size == 32 ? "ymmword"
                                    : NULL;
    if (name)
        put(t, "%s ptr ", name);
}

static void put_displacement(struct text *t, int64_t disp, bool first, unsigned adsize)
{
    if (first)
        put_hex(t, adsize == 8 ? (uint64_t)disp : adsize == 4 ? (uint32_t)disp : (uint16_t)disp);
    else if (disp) {
        put(t, disp < 0 ? " - " : " + ");
        put_hex(t, disp < 0 ? -(uint64_t)disp : (uint64_t)disp);
    }
}

/* Instructions whose memory operand is an address, or has a layout of its own. */
static bool has_sized_memory(unsigned op)
{
    switch (op) {
    case OP_LEA:
    case OP_INVLPG:
    case OP_NOP:
    case OP_BOUND:
    case OP_LDS:
    case OP_LES:
    case OP_LSS:
    case OP_LFS:
    case OP_LGS:
    case OP_SGDT:
    case OP_SIDT:
    case OP_LGDT:
    case OP_LIDT:
    case OP_FXSAVE:
    case OP_FXRSTOR:
    case OP_XSAVE:
    case OP_XSAVEC:
    case OP_XSAVEOPT:
    case OP_XSAVES:
    case OP_XRSTOR:
    case OP_XRSTORS:
        return false;
    default:
        return true;
    }
}

static void put_memory(struct text *t, const struct insn *i, unsigned size)
{
    const struct op_form *f = insn_form(i);
    if (has_sized_memory(i->op))
        put_memory_size(t, size);
    if (i->seg != SEG_NONE && i->seg != (i->base == REG_RSP || i->base == REG_RBP ? SEG_SS : SEG_DS))
        put(t, "%s:", segment_names[i->seg]);
    put(t, "[");
    if (i->flags & INSN_DISP64) {
        put_hex(t, i->imm);
        put(t, "]");
        return;
    }
    bool beyond = i->index == REG_2G;
    int64_t disp = i->base == REG_IP ? (int64_t)i->disp - i->off - i->len : i->disp;
    bool first = i->base == REG_ZERO;
    if (!first)
        put_gpr(t, i->base, i->adsize);
    if (i->index != REG_ZERO && !beyond) {
        put(t, first ? "" : " + ");
        first = false;
        if (f->props & PROP_VSIB)
            put_register(t, KIND_X, i->index, i->flags & INSN_VEX_L ? 32 : 16);
        else
            put_gpr(t, i->index, i->adsize);
        if (i->scale)
            put(t, "*%u", 1u << i->scale);
    }
    put_displacement(t, beyond ? disp + (1ll << 31) : disp, first, i->adsize);
    put(t, "]");
}

/* Size of a vector register that is named where an operand has `size` bytes. */
static unsigned register_size(unsigned kind, unsigned size)
{
    if (kind == KIND_X)
        return size == 32 ? 32 : 16;
    return size;
}

static void put_rm(struct text *t, const struct insn *i)
{
    unsigned kind = insn_form(i)->rm_kind;
    next_operand(t);
    if (i->flags & INSN_RM_REG)
        put_register(t, kind, i->rm, register_size(kind, i->srcsize));
    else
        put_memory(t, i, i->srcsize);
}

static void put_reg(struct text *t, const struct insn *i)
{
    unsigned kind = insn_form(i)->reg_kind;
    next_operand(t);
    put_register(t, kind, kind == KIND_F ? 0 : i->reg, register_size(kind, i->opsize));
}

static void put_vvvv(struct text *t, const struct insn *i)
{
    unsigned kind = insn_form(i)->reg_kind == KIND_G ? KIND_G : KIND_X;
    next_operand(t);
    put_register(t, kind, i->vvvv, register_size(kind, i->opsize));
}

static void put_immediate(struct text *t, const struct insn *i)
{
    unsigned size = i->op == OP_RET || i->op == OP_RETF ? 2 : i->op == OP_INT || i->op == OP_ENTER ? 4 : i->opsize;
    next_operand(t);
    if (insn_form(i)->props & PROP_IS4)
        put_register(t, KIND_X, i->imm2, register_size(KIND_X, i->opsize));
    else
        put_hex(t, size >= 8 ? i->imm : i->imm & ((1ull << 8 * size) - 1));
}

static void put_target(struct text *t, const struct insn *i, uint64_t rip)
{
    uint64_t target = rip + i->len + i->imm;
    next_operand(t);
    put(t, "0x%" PRIx64, i->opsize == 8 ? target : i->opsize == 4 ? (uint32_t)target : (uint16_t)target);
}

static void put_two(struct text *t, const struct insn *i)
{
    next_operand(t);
    if (insn_form(i)->imm == IMM_FAR) {
        put_hex(t, i->imm2);
        put(t, ":0x%" PRIx64, i->imm);
        return;
    }
    put_hex(t, i->imm);
    next_operand(t);
    put_hex(t, i->imm2);
}

/* Operands in order, one letter each: m rm, r reg, v vvvv, i imm, c CL, 1 one, t branch target, f two immediates. */
static const char *const operand_order[] = {
    [ENC_ZO] = "",     [ENC_MR] = "mr",     [ENC_RM] = "rm",   [ENC_MI] = "mi",   [ENC_M] = "m",
    [ENC_M1] = "m1",   [ENC_MC] = "mc",     [ENC_I] = "i",     [ENC_D] = "t",     [ENC_RMI] = "rmi",
    [ENC_MRI] = "mri", [ENC_MRC] = "mrc",   [ENC_II] = "f",    [ENC_RVM] = "rvm", [ENC_RMV] = "rmv",
    [ENC_VM] = "vm",   [ENC_RVMI] = "rvmi", [ENC_VMI] = "vmi", [ENC_MVR] = "mvr"};

static void put_operands(struct text *t, const struct insn *i, uint64_t rip)
{
    for (const char *p = operand_order[i->enc]; *p; p++) {
        switch (*p) {
        case 'm':
            put_rm(t, i);
            break;
        case 'r':
            put_reg(t, i);
            break;
        case 'v':
            put_vvvv(t, i);
            break;
        case 'i':
            put_immediate(t, i);
            break;
        case 't':
            put_target(t, i, rip);
            break;
        case 'f':
            put_two(t, i);
            break;
        default:
            put(t, *p == 'c' ? ", cl" : ", 1");
            break;
        }
    }
}

/* Operands that ENC_ZO leaves to the mnemonic but a reader wants to see. */
static void put_implied(struct text *t, const struct insn *i)
{
    if (i->op == OP_PUSH_SREG || i->op == OP_POP_SREG) {
        put(t, " %s", segment_names[i->reg]);
    } else if (i->op == OP_IN) {
        put(t, " ");
        put_gpr(t, REG_RAX, i->opsize);
        put(t, i->enc == ENC_ZO ? ", dx" : ",");
        t->operands = 0;
    } else if (i->op == OP_OUT && i->enc == ENC_ZO) {
        put(t, " dx, ");
        put_gpr(t, REG_RAX, i->opsize);
    }
}

static void put_prefixes(struct text *t, const struct insn *i)
{
    bool compares = i->op == OP_CMPS || i->op == OP_SCAS;
    bool string =
        compares || i->op == OP_MOVS || i->op == OP_STOS || i->op == OP_LODS || i->op == OP_INS || i->op == OP_OUTS;
    if (i->flags & INSN_LOCK)
        put(t, "lock ");
    if (string && i->flags & INSN_REP)
        put(t, compares ? "repe " : "rep ");
    if (string && i->flags & INSN_REPNE)
        put(t, "repne ");
    if (string && i->seg != SEG_NONE && i->seg != SEG_DS)
        put(t, "%s ", segment_names[i->seg]);
}

char *insn_print(const struct insn *i, uint64_t rip, char *buf, size_t size)
{
    struct text t = {.buf = buf, .size = size};
    if (!size)
        return buf;
    buf[0] = 0;
    put_prefixes(&t, i);
    put(&t, "%s", insn_mnemonic(i));
    put_implied(&t, i);
    put_operands(&t, i, rip);
    if (i->op == OP_OUT && i->enc == ENC_I) {
        put(&t, ", ");
        put_gpr(&t, REG_RAX, i->opsize);
    }
    return buf;
}
