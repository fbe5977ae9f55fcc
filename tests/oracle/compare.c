/*
 * Results against each other: everything that the manual defines must be equal bit by bit. Flags that it leaves
 * undefined are counted apart.
 */
#include "tests/oracle/oracle.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char *const gpr_names[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                          "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};

/* ---- undefined flags: Umbra leaves them as AMD's processors do, so sequences may use them ---- */

static unsigned shift_count(const struct insn *i, const struct oracle_case *c)
{
    unsigned n = i->enc == ENC_M1                        ? 1
                 : i->enc == ENC_MC || i->enc == ENC_MRC ? (unsigned)c->in.gpr[REG_RCX]
                                                         : (unsigned)i->imm;
    return n & (i->opsize == 8 ? 63 : 31);
}

static uint64_t undefined_after_shift(const struct insn *i, unsigned count)
{
    bool rotate = i->op == OP_ROL || i->op == OP_ROR || i->op == OP_RCL || i->op == OP_RCR;
    if (count == 0)
        return 0;
    return (rotate ? 0 : FLAG_AF) | (count != 1 ? FLAG_OF : 0) | (!rotate && count >= 8u * i->opsize ? FLAG_CF : 0);
}

static uint64_t undefined_flags(const struct insn *i, const struct oracle_case *c)
{
    switch (i->op) {
    case OP_AND:
    case OP_OR:
    case OP_XOR:
    case OP_TEST:
        return FLAG_AF;
    case OP_MUL:
    case OP_IMUL:
        return FLAG_SF | FLAG_ZF | FLAG_AF | FLAG_PF;
    case OP_DIV:
    case OP_IDIV:
        return FLAGS_ARITH;
    case OP_ROL:
    case OP_ROR:
    case OP_RCL:
    case OP_RCR:
    case OP_SHL:
    case OP_SHR:
    case OP_SAR:
    case OP_SHLD:
    case OP_SHRD:
        return undefined_after_shift(i, shift_count(i, c));
    case OP_BT:
    case OP_BTS:
    case OP_BTR:
    case OP_BTC:
        return FLAG_OF | FLAG_SF | FLAG_AF | FLAG_PF;
    case OP_BSF:
    case OP_BSR:
        return FLAG_CF | FLAG_OF | FLAG_SF | FLAG_AF | FLAG_PF;
    case OP_TZCNT:
    case OP_LZCNT:
        return FLAG_OF | FLAG_SF | FLAG_AF | FLAG_PF;
    case OP_BEXTR:
        return FLAG_AF | FLAG_SF | FLAG_PF;
    case OP_ANDN:
    case OP_BLSR:
    case OP_BLSI:
    case OP_BLSMSK:
    case OP_BZHI:
        return FLAG_AF | FLAG_PF;
    case OP_AAA:
    case OP_AAS:
        return FLAG_OF | FLAG_SF | FLAG_ZF | FLAG_PF;
    case OP_AAM:
    case OP_AAD:
        return FLAG_OF | FLAG_AF | FLAG_CF;
    case OP_DAA:
    case OP_DAS:
        return FLAG_OF;
    default:
        return 0;
    }
}

/* ---- differences ---- */

struct report {
    bool print, bad;
};

static void differ(struct report *p, const char *what, unsigned n, uint64_t host, uint64_t ours)
{
    if (host == ours)
        return;
    p->bad = true;
    if (p->print)
        printf("  %s %u: host %#" PRIx64 ", ours %#" PRIx64 "\n", what, n, host, ours);
}

static void differ_bytes(struct report *p, const char *what, unsigned n, const uint8_t *host, const uint8_t *ours,
                         size_t len)
{
    if (memcmp(host, ours, len) == 0)
        return;
    p->bad = true;
    if (!p->print)
        return;
    printf("  %s %u:\n    host", what, n);
    for (size_t k = 0; k < len; k++)
        printf(" %02x", host[k]);
    printf("\n    ours");
    for (size_t k = 0; k < len; k++)
        printf(" %02x", ours[k]);
    printf("\n");
}

/* 32-bit code has the lower halves of eight registers; what leaves it may lose the rest. */
static void compare_registers(struct report *p, const struct oracle_case *c, const struct oracle_result *h,
                              const struct oracle_result *o)
{
    uint64_t mask = c->code32 ? 0xffffffff : ~0ull;
    for (unsigned k = 0; k < (c->code32 ? 8 : 16); k++)
        differ(p, gpr_names[k], k, h->out.gpr[k] & mask, o->out.gpr[k] & mask);
    differ(p, "rip", 0, h->out.rip, o->out.rip);
}

/* The instruction and data pointers are not asked: processors differ in when they keep them. */
static void compare_vectors(struct report *p, const uint8_t *h, const uint8_t *o)
{
    uint16_t hw[2], ow[2];
    uint32_t hm, om;
    memcpy(hw, h, 4);
    memcpy(ow, o, 4);
    differ(p, "x87 control", 0, hw[0], ow[0]);
    differ(p, "x87 status", 0, hw[1], ow[1]);
    differ(p, "x87 tags", 0, h[4], o[4]);
    memcpy(&hm, h + 24, 4);
    memcpy(&om, o + 24, 4);
    differ(p, "mxcsr", 0, hm, om);
    for (unsigned k = 0; k < 8; k++)
        differ_bytes(p, "st", k, h + 32 + 16 * k, o + 32 + 16 * k, 10);
    for (unsigned k = 0; k < 16; k++) {
        differ_bytes(p, "xmm", k, h + 160 + 16 * k, o + 160 + 16 * k, 16);
        differ_bytes(p, "ymm high", k, h + 576 + 16 * k, o + 576 + 16 * k, 16);
    }
}

static void compare_memory(struct report *p, const struct oracle_result *h, const struct oracle_result *o)
{
    unsigned len = h->mem_end - h->mem_first;
    differ(p, "memory from", 0, h->mem_first, o->mem_first);
    differ(p, "memory to", 0, h->mem_end, o->mem_end);
    if (h->mem_first == o->mem_first && h->mem_end == o->mem_end)
        differ_bytes(p, "memory at offset", h->mem_first, h->mem, o->mem, len < CHANGES_MAX ? len : CHANGES_MAX);
    differ(p, "memory hash", 0, h->mem_hash, o->mem_hash);
}

static void compare_fault(struct report *p, const struct oracle_result *h, const struct oracle_result *o)
{
    differ(p, "exit", 0, h->exit, o->exit);
    differ(p, "vector", 0, h->vector, o->vector);
    if (h->exit != EXIT_FAULT || o->exit != EXIT_FAULT || h->vector != o->vector)
        return;
    /* Linux shows a page beyond user space as present whether it is or not. */
    uint32_t hidden = h->vector == EXC_PF && h->cr2 >= 0x7ffffffff000 ? 1 : 0;
    differ(p, "error code", 0, h->error & ~hidden, o->error & ~hidden);
    if (h->vector == EXC_PF)
        differ(p, "cr2", 0, h->cr2, o->cr2);
    differ(p, "RF", 0, h->out.flags & FLAG_RF, o->out.flags & FLAG_RF);
}

static void compare_all(struct report *p, const struct oracle_case *c, const struct oracle_result *h,
                        const struct oracle_result *o, uint64_t undefined)
{
    const uint64_t defined = (FLAGS_ARITH | FLAG_DF | FLAG_ID | FLAG_AC | FLAG_NT) & ~undefined;
    compare_fault(p, h, o);
    compare_registers(p, c, h, o);
    differ(p, "flags", 0, h->out.flags & defined, o->out.flags & defined);
    compare_vectors(p, h->out.xsave, o->out.xsave);
    compare_memory(p, h, o);
}

/* ---- the list ---- */

/* Decodes the instruction at c->code + at. */
static void decode_at(const struct oracle_case *c, unsigned at, struct insn *i)
{
    unsigned mode = c->code32 ? MODE_PE | MODE_LONG | MODE_CODE32 | MODE_FLAT | MODE_SS32 | MODE_USER
                              : MODE_CODE64 | MODE_PE | MODE_LONG | MODE_FLAT | MODE_SS32 | MODE_USER;
    uint8_t bytes[15] = {0};
    memcpy(bytes, c->code + at, c->len - at < 15u ? c->len - at : 15u);
    insn_decode(i, bytes, sizeof bytes, mode, 0);
}

/* Is there an instruction `op` with this last opcode byte, with a register operand? */
static bool has_insn(const struct oracle_case *c, unsigned op, uint8_t opcode)
{
    struct insn i;
    for (unsigned at = 0; at < c->len; at += i.len) {
        decode_at(c, at, &i);
        if (i.op == op && i.opcode == opcode && i.flags & INSN_RM_REG)
            return true;
    }
    return false;
}

static bool has_mmx_memory(const struct oracle_case *c)
{
    struct insn i;
    for (unsigned at = 0; at < c->len; at += i.len) {
        decode_at(c, at, &i);
        if (i.op == OP_CVTPI2PS && !(i.flags & INSN_RM_REG))
            return true;
    }
    return false;
}

static bool has_op(const struct oracle_case *c, unsigned op)
{
    struct insn i;
    for (unsigned at = 0; at < c->len; at += i.len) {
        decode_at(c, at, &i);
        if (i.op == op)
            return true;
    }
    return false;
}

static bool has_short_double_shift(const struct oracle_case *c)
{
    struct insn i;
    for (unsigned at = 0; at < c->len; at += i.len) {
        decode_at(c, at, &i);
        if ((i.op == OP_SHLD || i.op == OP_SHRD) && i.opsize == 2)
            return true;
    }
    return false;
}

static bool has_fcomi(const struct oracle_case *c)
{
    return has_op(c, OP_FCOMI) || has_op(c, OP_FCOMIP) || has_op(c, OP_FUCOMI) || has_op(c, OP_FUCOMIP);
}

/* C1 of the status word is all that differs. */
static bool only_c1_differs(const struct oracle_result *host, const struct oracle_result *ours)
{
    struct oracle_result r = *ours;
    r.out.xsave[3] = (uint8_t)((ours->out.xsave[3] & ~2) | (host->out.xsave[3] & 2));
    return memcmp(r.out.xsave, host->out.xsave, 6) == 0 && memcmp(r.out.xsave + 32, host->out.xsave + 32, 128) == 0;
}

static bool is_masked_access(const struct insn *i)
{
    bool masked = i->op == OP_VMASKMOVPS || i->op == OP_VMASKMOVPD || i->op == OP_VPMASKMOVD || i->op == OP_VPMASKMOVQ;
    return masked || insn_form(i)->props & PROP_VSIB;
}

static bool is_sha(const struct insn *i)
{
    return insn_form(i)->gate == GATE_SHA && !(i->flags & INSN_RM_REG);
}

/* The instruction that the host stopped at. */
static void decode_faulting(const struct oracle_case *c, const struct oracle_result *host, struct insn *i)
{
    uint64_t at = host->out.rip - CODE_AT;
    decode_at(c, at < c->len ? (unsigned)at : 0, i);
}

/* 32-bit code: does the memory operand of the instruction that the host stopped at begin below 4 GiB and end above? */
static bool operand_wraps(const struct oracle_case *c, const struct oracle_result *host)
{
    struct insn i;
    decode_faulting(c, host, &i);
    if (i.flags & INSN_RM_REG || i.adsize != 4 || !insn_form(&i)->modrm || insn_form(&i)->props & PROP_VSIB)
        return false;
    uint64_t off = (uint32_t)i.disp;
    off += i.base < 8 ? host->out.gpr[i.base] : 0;
    off += i.index < 8 ? host->out.gpr[i.index] << i.scale : 0;
    unsigned size = i.opsize > i.srcsize ? i.opsize : i.srcsize;
    return (uint64_t)(uint32_t)off + size > 0x100000000;
}

/* The registers differ as they do if one side has entered MMX state, and nothing else does. */
static bool only_x87_differs(const struct oracle_result *host, const struct oracle_result *ours)
{
    return memcmp(host->out.gpr, ours->out.gpr, sizeof host->out.gpr) == 0 && host->mem_hash == ours->mem_hash &&
           memcmp(host->out.xsave + 24, ours->out.xsave + 24, 4) == 0 &&
           memcmp(host->out.xsave + 160, ours->out.xsave + 160, 256) == 0 &&
           memcmp(host->out.xsave + 576, ours->out.xsave + 576, 256) == 0;
}

/* 64-bit code: the linear address of the memory operand of the instruction that the host stopped at. */
static uint64_t operand_linear(const struct oracle_case *c, const struct oracle_result *host)
{
    struct insn i;
    decode_faulting(c, host, &i);
    uint64_t off = (uint64_t)(int64_t)i.disp;
    off += i.base < 16 ? host->out.gpr[i.base] : i.base == REG_IP ? host->out.rip : 0;
    off += i.index < 16 ? host->out.gpr[i.index] << i.scale : 0;
    return (i.adsize == 4 ? (uint32_t)off : off) + (i.seg == SEG_GS ? GS_BASE : 0);
}

/* Would four bytes at `at` fault as the host did where two do not? */
static bool upper_half_faults(const struct oracle_result *host, uint64_t at)
{
    const uint64_t canonical_end = 0x800000000000;
    switch (host->vector) {
    case EXC_AC:
        return (at & 3) == 2;
    case EXC_PF:
        return (host->cr2 & 4095) == 0 && (host->cr2 == at + 2 || host->cr2 == at + 3);
    default:
        return at + 1 < canonical_end && at + 3 >= canonical_end;
    }
}

static const char *const known_names[] = {
#define KNOWN(name, condition, reason) #name,
#include "tests/oracle/known.def"
#undef KNOWN
    "",
};

static int find_known(const struct insn *i, const struct oracle_case *c, const struct oracle_result *host,
                      const struct oracle_result *ours)
{
    int n = 0;
    (void)i, (void)c, (void)host, (void)ours, (void)n;
#define KNOWN(name, condition, reason)                                                                                 \
    if (condition)                                                                                                     \
        return n;                                                                                                      \
    n++;
#include "tests/oracle/known.def"
#undef KNOWN
    return -1;
}

/* ---- cases ---- */

void oracle_print_case(const struct oracle_case *c)
{
    for (unsigned at = 0; at < c->len;) {
        struct insn i;
        char text[96];
        decode_at(c, at, &i);
        printf("  %s  [", insn_print(&i, CODE_AT + at, text, sizeof text));
        for (unsigned k = 0; k < i.len; k++)
            printf("%s%02x", k ? " " : "", c->code[at + k]);
        printf("] %s-bit\n", c->code32 ? "32" : "64");
        at += i.len ? i.len : 1;
    }
    printf("  flags %#" PRIx64 ", fcw %02x%02x, fsw %02x%02x, tags %02x, mxcsr %02x%02x\n", c->in.flags, c->in.xsave[1],
           c->in.xsave[0], c->in.xsave[3], c->in.xsave[2], c->in.xsave[4], c->in.xsave[25], c->in.xsave[24]);
    for (unsigned r = 0; r < 16; r++)
        printf("  %-3s %016" PRIx64 "%s", gpr_names[r], c->in.gpr[r], r % 4 == 3 ? "\n" : "");
    for (unsigned k = 0; k < WINDOWS; k++) {
        if (!c->window[k].len)
            continue;
        printf("  at %#x:", c->window[k].at);
        for (unsigned n = 0; n < c->window[k].len && n < 48; n++)
            printf(" %02x", c->window[k].bytes[n]);
        printf("\n");
    }
}

static void print_vectors(const struct oracle_case *c)
{
    for (unsigned k = 0; k < 8; k++) {
        printf("  st%u ", k);
        for (int n = 9; n >= 0; n--)
            printf("%02x", c->in.xsave[32 + 16 * k + (unsigned)n]);
        printf("%s", k % 4 == 3 ? "\n" : "");
    }
    for (unsigned k = 0; k < 16; k++) {
        printf("  ymm%-2u ", k);
        for (int n = 15; n >= 0; n--)
            printf("%02x", c->in.xsave[576 + 16 * k + (unsigned)n]);
        printf("_");
        for (int n = 15; n >= 0; n--)
            printf("%02x", c->in.xsave[160 + 16 * k + (unsigned)n]);
        printf("%s", k % 2 ? "\n" : "");
    }
}

/* For sorting: what differs, in which instruction. */
static void print_brief(const struct oracle_case *c, const struct insn *i, const struct oracle_result *h,
                        const struct oracle_result *o, uint64_t undefined)
{
    struct report p[5] = {{0}};
    compare_fault(&p[0], h, o);
    compare_registers(&p[1], c, h, o);
    compare_vectors(&p[2], h->out.xsave, o->out.xsave);
    compare_memory(&p[3], h, o);
    p[4].bad = (h->out.flags ^ o->out.flags) & FLAGS_ARITH & ~undefined;
    printf("%s%s%s:%s%s%s%s%s vector %x/%x\n", c->insns > 1 ? "..." : "", c->code32 ? "32 " : "", insn_mnemonic(i),
           p[0].bad ? " fault" : "", p[1].bad ? " registers" : "", p[2].bad ? " vectors" : "",
           p[3].bad ? " memory" : "", p[4].bad ? " flags" : "", h->vector, o->vector);
}

bool oracle_compare(const struct oracle_case *c, const struct oracle_result *host, const struct oracle_result *ours,
                    struct oracle_tally *t)
{
    struct insn i;
    struct report p = {0};
    decode_at(c, 0, &i);
    uint64_t undefined = c->insns > 1 || host->exit == EXIT_FAULT ? 0 : undefined_flags(&i, c);
    t->cases++;
    if (host->exit == EXIT_FAULT) {
        t->faults++;
        t->faults_by_vector[host->vector & 31]++;
    }
    compare_all(&p, c, host, ours, undefined);
    if (!p.bad) {
        if ((host->out.flags ^ ours->out.flags) & undefined) {
            t->undefined_flags++;
            t->undefined_by_op[i.op]++;
        }
        return true;
    }
    int known = find_known(&i, c, host, ours);
    if (known >= 0) {
        t->known[known]++;
        return true;
    }
    t->differences++;
    if (t->brief) {
        print_brief(c, &i, host, ours, undefined);
        return false;
    }
    p.print = true;
    compare_all(&p, c, host, ours, undefined);
    oracle_print_case(c);
    if (insn_form(&i)->reg_kind != KIND_G || insn_form(&i)->rm_kind != KIND_G || c->insns > 1)
        print_vectors(c);
    return false;
}

void oracle_print_tally(const struct oracle_tally *t)
{
    static const char *const faults[32] = {
        [EXC_DE] = "#DE", [EXC_DB] = "#DB", [EXC_BP] = "#BP", [EXC_OF] = "#OF", [EXC_BR] = "#BR", [EXC_UD] = "#UD",
        [EXC_SS] = "#SS", [EXC_GP] = "#GP", [EXC_PF] = "#PF", [EXC_MF] = "#MF", [EXC_AC] = "#AC", [EXC_XM] = "#XM"};
    printf("faults: %" PRIu64 " (", t->faults);
    for (unsigned k = 0; k < 32; k++)
        if (t->faults_by_vector[k])
            printf(" %s %" PRIu64, faults[k] ? faults[k] : "?", t->faults_by_vector[k]);
    printf(" )\n");
    for (unsigned k = 0; k + 1 < ARRAY_LEN(known_names); k++)
        printf("known difference %s: %" PRIu64 "\n", known_names[k], t->known[k]);
    if (t->not_asked)
        printf("not asked, as they reach for memory of the host's own side: %" PRIu64 "\n", t->not_asked);
    printf("undefined flags that differ: %" PRIu64, t->undefined_flags);
    for (unsigned k = 0; k < OP_COUNT; k++)
        if (t->undefined_by_op[k])
            printf(" %s %" PRIu64, optable_op_names[k], t->undefined_by_op[k]);
    printf("\n");
}
