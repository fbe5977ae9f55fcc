/*
 * The decoder against capstone: strings made from the instruction table, mutated strings and random bytes, in 64-bit,
 * 32-bit and 16-bit mode. Validity, length and mnemonic must agree, or the difference must be explained by an entry of
 * `differences`, each of which gives the manual's reason and checks that it applies.
 *
 * Most differences are prefixes that capstone 4.0.2 mishandles. Those are explained by an equivalent string that the
 * manual gives the same meaning, on which both must agree again; so nothing is excused by a prefix alone.
 *
 * UMBRA_CAPSTONE_STRINGS sets the number of strings a mode (200,000; 10 million in all with UMBRA_LONG=1);
 * UMBRA_CAPSTONE_SEED another sequence; UMBRA_CAPSTONE_VERBOSE=1 prints how often each difference was met.
 */
#include "cpu/optable.h"
#include "tests/unit/check_main.h"

#include <capstone/capstone.h>
#include <stdio.h>
#include <string.h>

#define STRING_LEN 16

struct verdict {
    bool ok;
    unsigned len;
    char name[48];
};

struct sample {
    unsigned bits, mode;
    csh handle, handle32;
    uint8_t bytes[STRING_LEN];
    struct insn insn;
    const struct op_form *form; /* of the instruction, or of what it is without the prefixes that forbid it */
    struct verdict ours, theirs;
    /* Prefixes of the string, by a scan of the test's own. */
    unsigned prefix_len;
    uint8_t seg, rep, rex;
    bool osz, asz, lock;
};

/* ---- names ---- */

/* Capstone's names for what the table calls otherwise. */
static const char *const aliases[][2] = {
    {"movabs", "mov"},
    {"sal", "shl"},
    {"feni8087_nop", "fneni"},
    {"fdisi8087_nop", "fndisi"},
    {"fsetpm", "fnsetpm"},
    {"ud2b", "ud1"},
    {"ljmp", "jmp far"},
    {"lcall", "call far"},
    {"retfq", "retf"},
    {"fstpnce", "fstp"},
    {"endbr32", "endbr64"},
    {"pushal", "pushad"},
    {"pushaw", "pusha"},
    {"popal", "popad"},
    {"popaw", "popa"},
    {"prefetcht0", "prefetch"},
    {"prefetcht1", "prefetch"},
    {"prefetcht2", "prefetch"},
    {"prefetchnta", "prefetch"},
    {"prefetchw", "prefetch"},
    {"prefetchwt1", "prefetch"},
    {"sysretq", "sysret"},
    {"sysexitq", "sysexit"},
    {"fxsave64", "fxsave"},
    {"fxrstor64", "fxrstor"},
    {"xsave64", "xsave"},
    {"xsavec64", "xsavec"},
    {"xsaves64", "xsaves"},
    {"xsaveopt64", "xsaveopt"},
    {"xrstor64", "xrstor"},
    {"xrstors64", "xrstors"},
    {"fcompi", "fcomip"},
    {"vcvtpd2dqx", "vcvtpd2dq"},
    {"vcvttpd2dqx", "vcvttpd2dq"},
    {"vcvtpd2psx", "vcvtpd2ps"},
    {"vcvtpd2dqy", "vcvtpd2dq"},
    {"vcvttpd2dqy", "vcvttpd2dq"},
    {"vcvtpd2psy", "vcvtpd2ps"},
};

/* cmpltps, vcmpeq_uqsd and so on: capstone folds the predicate into the name. */
static bool fold_predicate(char *name)
{
    static const char *const suffixes[] = {"ps", "pd", "ss", "sd"};
    char *start = name[0] == 'v' ? name + 1 : name;
    size_t n = strlen(name);
    if (strncmp(start, "cmp", 3) || n < 6 || !strncmp(start, "cmpxchg", 7))
        return false;
    for (size_t k = 0; k < 4; k++) {
        if (strcmp(name + n - 2, suffixes[k]))
            continue;
        memmove(start + 3, suffixes[k], 3);
        return true;
    }
    return false;
}

static void normalise(char *name)
{
    static const char *const prefixes[] = {"lock ",  "rep ", "repe ",     "repne ",    "repz ",
                                           "repnz ", "bnd ", "xacquire ", "xrelease ", "notrack "};
    for (size_t k = 0; k < ARRAY_LEN(prefixes); k++) {
        size_t n = strlen(prefixes[k]);
        while (!strncmp(name, prefixes[k], n))
            memmove(name, name + n, strlen(name + n) + 1);
    }
    for (size_t k = 0; k < ARRAY_LEN(aliases); k++)
        if (!strcmp(name, aliases[k][0]))
            strcpy(name, aliases[k][1]);
    if (strcmp(name, "cmpsd"))
        fold_predicate(name);
}

static struct verdict ask_ours(const uint8_t *bytes, unsigned mode, struct insn *insn)
{
    struct verdict v = {0};
    enum decode_result r = insn_decode(insn, bytes, STRING_LEN, mode, 0);
    v.ok = r == DECODE_OK || (r == DECODE_UD && insn->form != 0 && insn_form(insn)->props & PROP_UD);
    v.len = insn->len;
    snprintf(v.name, sizeof v.name, "%s", v.ok ? insn_mnemonic(insn) : "-");
    return v;
}

static struct verdict ask_capstone(csh handle, const uint8_t *bytes)
{
    struct verdict v = {.name = "-"};
    cs_insn *insn;
    /* 15 bytes: capstone has no limit of its own. */
    size_t n = cs_disasm(handle, bytes, STRING_LEN - 1, 0, 1, &insn);
    if (n) {
        v.ok = true;
        v.len = insn->size;
        snprintf(v.name, sizeof v.name, "%s", insn->mnemonic);
        normalise(v.name);
        cs_free(insn, n);
    }
    return v;
}

static bool same_name(const struct verdict *ours, const struct verdict *theirs, const struct insn *i)
{
    if ((i->op == OP_MOVD || i->op == OP_VMOVD) && strstr(theirs->name, "mov"))
        return !strcmp(theirs->name + strlen(theirs->name) - 4, "movd") ||
               !strcmp(theirs->name + strlen(theirs->name) - 4, "movq");
    return !strcmp(ours->name, theirs->name);
}

static bool agree(const struct verdict *ours, const struct verdict *theirs, const struct insn *i)
{
    if (!ours->ok || !theirs->ok)
        return ours->ok == theirs->ok;
    return ours->len == theirs->len && same_name(ours, theirs, i);
}

/* ---- strings that mean the same ---- */

static void scan_prefixes(struct sample *s)
{
    unsigned n = 0;
    s->seg = s->rep = s->rex = 0;
    s->osz = s->asz = s->lock = false;
    for (; n < STRING_LEN - 1; n++) {
        uint8_t b = s->bytes[n];
        if (s->bits == 64 && (b & 0xf0) == 0x40) {
            s->rex = b;
            continue;
        }
        if (b == 0x66)
            s->osz = true;
        else if (b == 0x67)
            s->asz = true;
        else if (b == 0xf0)
            s->lock = true;
        else if (b == 0xf2 || b == 0xf3)
            s->rep = b;
        else if (b == 0x64 || b == 0x65 || b == 0x26 || b == 0x2e || b == 0x36 || b == 0x3e)
            s->seg = b;
        else
            break;
        s->rex = 0;
    }
    s->prefix_len = n;
}

enum {
    KEEP_OSZ = 1,
    OSZ_FIRST = 2,
    KEEP_REP = 4,
    KEEP_SEG = 8,
    KEEP_W = 16,
    TOGGLE_ASZ = 32,
    KEEP_RXB = 64,
    ALL_KEPT = 93
};

/* Writes the sample's opcode and what follows behind a chosen set of prefixes, at most one of each group. Gives the
 * length of the prefixes. */
static unsigned rewrite(const struct sample *s, unsigned how, bool osz, uint8_t out[STRING_LEN])
{
    unsigned n = 0;
    uint8_t rex = s->rex;
    if (!(how & KEEP_W))
        rex &= 0xf7;
    if (!(how & KEEP_RXB) && rex)
        rex &= 0xf8;
    memset(out, 0x90, STRING_LEN);
    if (s->seg && how & KEEP_SEG)
        out[n++] = s->seg;
    if (s->asz != !!(how & TOGGLE_ASZ))
        out[n++] = 0x67;
    if (osz && how & OSZ_FIRST)
        out[n++] = 0x66;
    if (s->rep && how & KEEP_REP)
        out[n++] = s->rep;
    if (osz && !(how & OSZ_FIRST))
        out[n++] = 0x66;
    if (rex)
        out[n++] = rex;
    for (unsigned k = s->prefix_len, at = n; k < STRING_LEN && at < STRING_LEN;)
        out[at++] = s->bytes[k++];
    return n;
}

static bool is_string(unsigned op)
{
    return op == OP_MOVS || op == OP_STOS || op == OP_LODS || op == OP_SCAS || op == OP_CMPS || op == OP_INS ||
           op == OP_OUTS;
}

static bool size_depends_on_osz(unsigned rule)
{
    return rule == SZ_V || rule == SZ_Z || rule == SZ_D64 || rule == SZ_F64 || rule == SZ_DT || rule == SZ_VW ||
           rule == SZ_ENV || rule == SZ_ST;
}

/* Does the 66 prefix mean anything to this form? */
static bool osz_matters(const struct sample *s)
{
    const struct op_form *f = s->form;
    if ((f->prefix & PP_KIND) == PP_P66)
        return true;
    return size_depends_on_osz(f->size) || size_depends_on_osz(f->src);
}

static bool rep_matters(const struct sample *s)
{
    unsigned kind = s->form->prefix & PP_KIND;
    return kind == PP_PF2 || kind == PP_PF3 || is_string(s->form->op);
}

/* Do both agree on the string rewritten, with the length that differs only by the prefixes? */
static bool agree_rewritten(const struct sample *s, unsigned how)
{
    uint8_t bytes[STRING_LEN];
    struct insn i;
    bool osz = s->osz && how & KEEP_OSZ;
    unsigned prefixes = rewrite(s, how, osz, bytes);
    struct verdict ours = ask_ours(bytes, s->mode, &i), theirs = ask_capstone(s->handle, bytes);
    if (!ours.ok || i.form != s->insn.form || i.len - prefixes != s->insn.len - s->prefix_len)
        return false;
    return agree(&ours, &theirs, &i);
}

/* ---- the differences ---- */

static int explain(struct sample *s);

/* Every prefix that the form ignores taken away, the others once and in an order that capstone understands. */
static bool by_prefix_order(const struct sample *s)
{
    unsigned keep = KEEP_W | KEEP_RXB;
    if (!s->ours.ok || s->lock)
        return false;
    if (osz_matters(s))
        keep |= KEEP_OSZ;
    if (rep_matters(s))
        keep |= KEEP_REP;
    return agree_rewritten(s, keep) || agree_rewritten(s, keep | OSZ_FIRST);
}

/* The same with LOCK where it is legal. */
static bool by_lock_order(const struct sample *s)
{
    struct sample t = *s;
    if (!s->ours.ok || !s->lock || !(s->form->props & PROP_LOCK))
        return false;
    t.lock = false;
    return by_prefix_order(&t);
}

/* LOCK in front of what cannot be locked: without it, both agree, or disagree for another reason. */
static bool by_illegal_lock(const struct sample *s)
{
    uint8_t bytes[STRING_LEN] = {0};
    unsigned n = 0;
    struct sample t = *s;
    if (s->ours.ok || !s->lock)
        return false;
    for (unsigned k = 0; k < STRING_LEN; k++)
        if (k >= s->prefix_len || s->bytes[k] != 0xf0)
            bytes[n++] = s->bytes[k];
    memcpy(t.bytes, bytes, sizeof bytes);
    t.lock = false;
    t.prefix_len = s->prefix_len - (STRING_LEN - n);
    t.ours = ask_ours(bytes, s->mode, &t.insn);
    t.theirs = ask_capstone(s->handle, bytes);
    t.form = insn_form(&t.insn);
    if (t.ours.ok && t.form->props & PROP_LOCK && !(t.insn.flags & INSN_RM_REG))
        return false; /* should have been accepted */
    return agree(&t.ours, &t.theirs, &t.insn) || explain(&t) >= 0;
}

/* 66, F2 or F3 before a form that does not take them. */
static bool by_forbidden_prefix(const struct sample *s)
{
    static const struct {
        bool osz;
        uint8_t rep;
    } tries[] = {{false, 0}, {true, 0}, {false, 0xf3}, {false, 0xf2}};
    if (s->ours.ok || s->lock || (!s->osz && !s->rep))
        return false;
    for (size_t k = 0; k < ARRAY_LEN(tries); k++) {
        struct sample t = *s;
        struct insn i;
        uint8_t bytes[STRING_LEN];
        t.rep = tries[k].rep;
        rewrite(&t, ALL_KEPT, tries[k].osz, bytes);
        struct verdict ours = ask_ours(bytes, s->mode, &i);
        unsigned kind = insn_form(&i)->prefix & PP_KIND;
        if (ours.ok && kind != PP_ANY && same_name(&ours, &s->theirs, &i))
            return true;
    }
    return false;
}

/* 66 before a near branch in 64-bit mode: ignored. AMD's processors, and capstone, take it. */
static bool by_near_branch(const struct sample *s)
{
    return s->bits == 64 && s->osz && s->ours.ok && s->form->size == SZ_F64 &&
           (agree_rewritten(s, KEEP_W | KEEP_RXB) || agree_rewritten(s, 0));
}

static bool is_listed(const char *name, const char *const *list, size_t n)
{
    for (size_t k = 0; k < n; k++) {
        size_t len = strlen(list[k]);
        if (list[k][len - 1] == '*' ? !strncmp(name, list[k], len - 1) : !strcmp(name, list[k]))
            return true;
    }
    return false;
}

static bool by_absent_extension(const struct sample *s)
{
    static const char *const names[] = {/* AMD */ "femms",
                                        "pi2f*",
                                        "pf*",
                                        "pswapd",
                                        "pavgusb",
                                        "pmulhrw",
                                        "extrq",
                                        "insertq",
                                        "movntss",
                                        "movntsd",
                                        "vmrun",
                                        "vmmcall",
                                        "vmload",
                                        "vmsave",
                                        "stgi",
                                        "clgi",
                                        "skinit",
                                        "invlpga",
                                        "monitorx",
                                        "mwaitx",
                                        "clzero",
                                        /* Intel */ "xbegin",
                                        "xend",
                                        "xabort",
                                        "xtest",
                                        "encls",
                                        "enclu",
                                        "getsec",
                                        "pcommit",
                                        "bnd*",
                                        "k*",
                                        /* VIA */ "montmul",
                                        "xsha1",
                                        "xsha256",
                                        "xcrypt*",
                                        "xstore*"};
    return !s->ours.ok && !s->lock && s->insn.form == 0 && is_listed(s->theirs.name, names, ARRAY_LEN(names));
}

/* EVEX, XOP, FMA4 and the AVX-512 opcodes of the VEX maps. */
static bool by_absent_space(const struct sample *s)
{
    const uint8_t *b = s->bytes + s->prefix_len;
    if (s->ours.ok || s->lock || s->insn.form)
        return false;
    if (b[0] == 0x62 || b[0] == 0x8f)
        return true;
    if (b[0] != 0xc4 || (b[1] & 0x1f) != 3)
        return false;
    return (b[3] & 0xfe) == 0x48 || (b[3] & 0xfc) == 0x5c || (b[3] >= 0x68 && b[3] < 0x80 && (b[3] & 8));
}

static bool is_vex(const struct sample *s)
{
    uint8_t b = s->bytes[s->prefix_len];
    return b == 0xc4 || b == 0xc5;
}

static bool by_prefix_before_vex(const struct sample *s)
{
    return is_vex(s) && !s->ours.ok && (s->osz || s->rep || s->lock || s->rex);
}

/* Two of destination, index and mask the same, no SIB byte, 16-bit addresses. */
static bool by_illegal_gather(const struct sample *s)
{
    return is_vex(s) && !s->ours.ok && s->insn.form && s->form->props & PROP_VSIB;
}

/* Do both agree on the string with some bits of the VEX prefix's last byte set or cleared? */
static bool agree_with_payload(const struct sample *s, uint8_t set, uint8_t clear)
{
    struct sample t = *s;
    uint8_t *payload = t.bytes + t.prefix_len + (t.bytes[t.prefix_len] == 0xc4 ? 2 : 1), old = *payload;
    *payload = (uint8_t)((old | set) & ~clear);
    t.ours = ask_ours(t.bytes, t.mode, &t.insn);
    t.theirs = ask_capstone(t.handle, t.bytes);
    return *payload != old && t.ours.ok && agree(&t.ours, &t.theirs, &t.insn);
}

static bool by_vex_w0(const struct sample *s)
{
    return is_vex(s) && !s->ours.ok && s->theirs.ok && s->bytes[s->prefix_len] == 0xc4 &&
           agree_with_payload(s, 0, 0x80);
}

static bool by_vex_w_outside_64bit(const struct sample *s)
{
    return is_vex(s) && s->bits != 64 && s->ours.ok && (s->form->op == OP_VPINSRD || s->form->op == OP_VPEXTRD) &&
           s->theirs.len == s->ours.len;
}

static bool by_unknown_to_capstone(const struct sample *s)
{
    switch (s->form->op) {
    case OP_NOP:
    case OP_PREFETCH:
    case OP_ENDBR:
    case OP_UD0:
    case OP_UD1:
    case OP_RDPKRU:
    case OP_WRPKRU:
    case OP_SERIALIZE:
    case OP_RDPID:
    case OP_GF2P8MULB:
    case OP_GF2P8AFFINEQB:
    case OP_GF2P8AFFINEINVQB:
    case OP_VBROADCASTI128:
    case OP_VGF2P8MULB:
    case OP_VGF2P8AFFINEQB:
    case OP_VGF2P8AFFINEINVQB:
        return s->ours.ok;
    case OP_LFENCE:
    case OP_MFENCE:
    case OP_SFENCE:
        return s->ours.ok && s->insn.modrm & 7;
    default:
        return false;
    }
}

/* MOV to and from CS, CR1, CR5..7, CR9 up, DR8 up, and segment registers 6 and 7. */
static bool by_reserved_register(const struct sample *s)
{
    unsigned kind = s->form->reg_kind;
    return !s->ours.ok && s->insn.form && (kind == KIND_S || kind == KIND_C || kind == KIND_DR) &&
           !strcmp(s->theirs.name, "mov");
}

static bool by_rex_r_on_segment(const struct sample *s)
{
    return s->ours.ok && s->form->reg_kind == KIND_S && s->rex & 4;
}

/* Capstone lets REX.W undo the address-size prefix and 66 before REX.W. */
static bool by_rex_w(const struct sample *s)
{
    if (!s->ours.ok || !(s->rex & 8) || s->lock)
        return false;
    unsigned keep = (osz_matters(s) && s->insn.opsize == 2 ? KEEP_OSZ : 0) | (rep_matters(s) ? KEEP_REP : 0) | KEEP_RXB;
    bool ignored = s->form->size != SZ_V && s->form->size != SZ_Y && s->form->src != SZ_V && s->form->src != SZ_Y;
    return ignored && agree_rewritten(s, keep);
}

/* Capstone takes 67 with REX.W for 66: it has a form where there is none, or CLWB's prefix is lost to REX.W. */
static bool by_rex_w_and_66(const struct sample *s)
{
    uint8_t bytes[STRING_LEN];
    if (!(s->rex & 8) || s->lock)
        return false;
    if (s->ours.ok)
        return s->form->op == OP_CLWB && !strcmp(s->theirs.name, "xsaveopt");
    rewrite(s, ALL_KEPT & ~KEEP_W, s->osz, bytes);
    return s->asz && !ask_capstone(s->handle, bytes).ok;
}

/* JCXZ or JECXZ is the choice of the address size; 66 truncates the target. */
static bool by_jcxz_with_66(const struct sample *s)
{
    return s->ours.ok && s->form->op == OP_JCXZ && s->osz && s->asz && agree_rewritten(s, 0);
}

/* 90 with REX: XCHG with r8 under REX.B, else NOP or PAUSE. */
static bool by_nop_or_xchg(const struct sample *s)
{
    return s->ours.ok && s->insn.opcode == 0x90 && s->rex && (s->rex & 1) == (s->form->op == OP_XCHG);
}

static bool by_64bit_only(const struct sample *s)
{
    static const char *const names[] = {"syscall", "sysret", "swapgs"};
    return !s->ours.ok && s->bits != 64 && is_listed(s->theirs.name, names, ARRAY_LEN(names));
}

/* Capstone's 16-bit mode knows no forms with a mandatory 66 prefix and more: asks its 32-bit mode about the same
 * instruction with the size prefixes the other way round. */
static bool by_16bit(const struct sample *s)
{
    uint8_t bytes[STRING_LEN];
    if (s->bits != 16 || !s->ours.ok || s->lock)
        return false;
    unsigned kind = s->form->prefix & PP_KIND;
    bool osz = s->osz;
    if (osz_matters(s) && kind != PP_P66)
        osz = !osz;
    else if (kind != PP_P66)
        osz = false;
    for (unsigned order = 0; order <= OSZ_FIRST; order += OSZ_FIRST) {
        struct insn i;
        rewrite(s, (rep_matters(s) ? KEEP_REP : 0) | TOGGLE_ASZ | order, osz, bytes);
        struct verdict ours = ask_ours(bytes, MODE_PE | MODE_CODE32, &i), theirs = ask_capstone(s->handle32, bytes);
        if (i.form == s->insn.form && !strcmp(ours.name, s->ours.name) && agree(&ours, &theirs, &i))
            return true;
    }
    return false;
}

/* 0F AE F8 with an address-size prefix and REX. */
static bool by_pcommit(const struct sample *s)
{
    return s->insn.op == OP_SFENCE && s->ours.ok && s->asz && !s->osz && !strcmp(s->theirs.name, "pcommit");
}

static const struct difference {
    const char *name, *reason;
    bool (*explains)(const struct sample *s);
} differences[] = {
    {"prefix order", "Vol. 2, 2.1.1: prefixes in any order; F2 and F3 select before 66 does", by_prefix_order},
    {"prefix order with LOCK", "as above", by_lock_order},
    {"illegal LOCK", "Vol. 2, LOCK: #UD unless a listed instruction writes memory", by_illegal_lock},
    {"forbidden prefix", "Vol. 2, 3.1.1.1: NP forms #UD with 66, F2, F3; others need theirs", by_forbidden_prefix},
    {"near branch with 66", "Vol. 2, 2.2.1.7 and Jcc: operand size of near branches is 64", by_near_branch},
    {"absent extension", "no CPU model offers it: undefined opcode", by_absent_extension},
    {"absent encoding space", "EVEX, XOP, FMA4: no CPU model offers them", by_absent_space},
    {"prefix before VEX", "Vol. 2, 2.3.2 and 2.3.3: 66, F2, F3, LOCK, REX before VEX #UD", by_prefix_before_vex},
    {"illegal gather", "Vol. 2, VGATHER: #UD unless all registers differ; SIB is needed", by_illegal_gather},
    {"VEX.W1 for W0", "Vol. 2, 3.1.1.2: #UD where the page says W0", by_vex_w0},
    {"VEX.W outside 64-bit mode", "Vol. 2, PINSRD, PEXTRD: VEX.W1 is ignored", by_vex_w_outside_64bit},
    {"unknown to capstone", "hint NOPs, fences with any rm, newer instructions", by_unknown_to_capstone},
    {"SFENCE that capstone calls PCOMMIT", "Vol. 2, SFENCE: 0F AE F8 without 66; capstone errs with 67 before it",
     by_pcommit},
    {"reserved register", "Vol. 2, MOV: reserved control, debug, segment registers #UD", by_reserved_register},
    {"REX.R on a segment register", "Vol. 2, 2.2.1.2: segment registers have no extension", by_rex_r_on_segment},
    {"REX.W", "Vol. 2, 2.2.1.2: REX.W sets the operand size only", by_rex_w},
    {"REX.W taken for 66", "Vol. 2, CLWB and 2.2.1.2: REX.W means nothing to forms without operand size",
     by_rex_w_and_66},
    {"JCXZ with 66", "Vol. 2, Jcc: the address size chooses CX, ECX or RCX", by_jcxz_with_66},
    {"NOP or XCHG", "Vol. 2, XCHG and NOP: 90 is XCHG only with REX.B", by_nop_or_xchg},
    {"64-bit only", "Vol. 2, SYSCALL, SYSRET, SWAPGS: invalid outside 64-bit mode", by_64bit_only},
    {"16-bit mode", "capstone lacks it there: compared in 32-bit mode", by_16bit},
};

/* ---- making strings ---- */

struct random {
    uint64_t state;
};

static uint64_t next_random(struct random *r)
{
    r->state ^= r->state << 13;
    r->state ^= r->state >> 7;
    r->state ^= r->state << 17;
    return r->state * 0x2545f4914f6cdd1dull >> 16;
}

static unsigned put_random_prefixes(struct random *r, uint8_t *b, bool code64)
{
    static const uint8_t prefixes[] = {0x66, 0x66, 0xf2, 0xf3, 0xf0, 0x67, 0x2e, 0x36, 0x26,
                                       0x3e, 0x64, 0x65, 0x48, 0x41, 0x44, 0x42, 0x40, 0x4f};
    unsigned n = 0, count = next_random(r) % 4;
    if (count == 3)
        count = next_random(r) % 4;
    for (; n < count; n++)
        b[n] = prefixes[next_random(r) % (code64 ? sizeof prefixes : 12)];
    return n;
}

static unsigned put_vex_opcode(struct random *r, uint8_t *b, const struct op_form *f, bool code64)
{
    static const uint8_t pp[8] = {[PP_P66] = 1, [PP_PF3] = 2, [PP_PF2] = 3};
    unsigned map = (f->key >> 8) - MAP_V0F + 1;
    b[0] = 0xc4;
    b[1] = (uint8_t)((b[1] & 0xe0) | map | (code64 ? 0 : 0xc0));
    b[2] = (uint8_t)((b[2] & 0x7c) | pp[f->prefix & PP_KIND] | (f->prefix & PP_W1 ? 0x80 : 0));
    if (next_random(r) & 1)
        b[2] |= 0x78;
    b[3] = (uint8_t)f->key;
    return 4;
}

static unsigned put_legacy_opcode(struct random *r, uint8_t *b, const struct op_form *f, bool code64)
{
    static const uint8_t prefix[8] = {[PP_P66] = 0x66, [PP_PF3] = 0xf3, [PP_PF2] = 0xf2};
    unsigned n = 0, map = f->key >> 8;
    if (prefix[f->prefix & PP_KIND] && next_random(r) % 8)
        b[n++] = prefix[f->prefix & PP_KIND];
    if (code64 && next_random(r) % 3 == 0)
        b[n++] = 0x40 | (next_random(r) & 15);
    if (map >= MAP_0F)
        b[n++] = 0x0f;
    if (map >= MAP_38)
        b[n++] = map == MAP_38 ? 0x38 : 0x3a;
    b[n++] = (uint8_t)f->key;
    return n;
}

static void make_string(struct random *r, uint8_t b[STRING_LEN], bool code64)
{
    unsigned how = next_random(r) % 8;
    if (how == 0) { /* the last string, one byte changed */
        b[next_random(r) % 6] = (uint8_t)next_random(r);
        return;
    }
    for (unsigned k = 0; k < STRING_LEN; k++)
        b[k] = (uint8_t)next_random(r);
    if (how == 1)
        return;
    const struct op_form *f = &optable_forms[1 + next_random(r) % (optable_form_count - 1)];
    bool vex = f->key >> 8 >= MAP_V0F;
    unsigned n = vex && next_random(r) % 8 ? 0 : put_random_prefixes(r, b, code64);
    n += vex ? put_vex_opcode(r, b + n, f, code64) : put_legacy_opcode(r, b + n, f, code64);
    if (f->modrm >= 0xc0)
        b[n] = f->modrm;
    else if (f->modrm >= RM_D(0) && next_random(r) % 4)
        b[n] = (uint8_t)((b[n] & 0xc7) | (f->modrm & 7) << 3);
}

/* ---- the comparison ---- */

static unsigned environment(const char *name, unsigned otherwise)
{
    const char *text = getenv(name);
    return text ? (unsigned)strtoul(text, NULL, 0) : otherwise;
}

/* Index of the difference that explains the sample, or -1. */
static int explain(struct sample *s)
{
    s->form = insn_form(&s->insn);
    for (size_t k = 0; k < ARRAY_LEN(differences); k++)
        if (differences[k].explains(s))
            return (int)k;
    return -1;
}

static void print_sample(const struct sample *s)
{
    char text[128];
    fprintf(stderr, "%u-bit:", s->bits);
    for (unsigned k = 0; k < STRING_LEN; k++)
        fprintf(stderr, " %02x", s->bytes[k]);
    fprintf(stderr, "\n    ours %s length %u (%s), capstone %s length %u\n", s->ours.name, s->ours.len,
            insn_print(&s->insn, 0, text, sizeof text), s->theirs.name, s->theirs.len);
}

/* Gives the number of unexplained differences. */
static unsigned compare_mode(unsigned bits)
{
    bool is_long = environment("UMBRA_LONG", 0) == 1;
    unsigned strings = environment("UMBRA_CAPSTONE_STRINGS", is_long ? 3400000 : 200000), unexplained = 0, both = 0;
    struct random r = {0x9e3779b97f4a7c15ull * (environment("UMBRA_CAPSTONE_SEED", 1) + bits)};
    unsigned counts[ARRAY_LEN(differences)] = {0};
    struct sample s = {.bits = bits};
    s.mode = bits == 64 ? MODE_PE | MODE_LONG | MODE_CODE64 : bits == 32 ? MODE_PE | MODE_CODE32 : MODE_PE;
    ck_assert_int_eq(cs_open(CS_ARCH_X86,
                             bits == 64   ? CS_MODE_64
                             : bits == 32 ? CS_MODE_32
                                          : CS_MODE_16,
                             &s.handle),
                     CS_ERR_OK);
    ck_assert_int_eq(cs_open(CS_ARCH_X86, CS_MODE_32, &s.handle32), CS_ERR_OK);
    for (unsigned k = 0; k < strings; k++) {
        make_string(&r, s.bytes, bits == 64);
        scan_prefixes(&s);
        s.ours = ask_ours(s.bytes, s.mode, &s.insn);
        s.theirs = ask_capstone(s.handle, s.bytes);
        both += s.ours.ok && s.theirs.ok;
        if (agree(&s.ours, &s.theirs, &s.insn))
            continue;
        int why = explain(&s);
        if (why >= 0)
            counts[why]++;
        else if (unexplained++ < environment("UMBRA_CAPSTONE_SHOW", 20))
            print_sample(&s);
    }
    cs_close(&s.handle);
    cs_close(&s.handle32);
    if (environment("UMBRA_CAPSTONE_VERBOSE", 0)) {
        fprintf(stderr, "%u-bit: %u strings, %u decoded by both\n", bits, strings, both);
        for (size_t k = 0; k < ARRAY_LEN(differences); k++)
            fprintf(stderr, "  %-28s %8u  %s\n", differences[k].name, counts[k], differences[k].reason);
    }
    ck_assert_uint_gt(both, strings / 3);
    return unexplained;
}

START_TEST(decoding_64bit_code_agrees_with_capstone)
{
    ck_assert_uint_eq(compare_mode(64), 0);
}
END_TEST

START_TEST(decoding_32bit_code_agrees_with_capstone)
{
    ck_assert_uint_eq(compare_mode(32), 0);
}
END_TEST

START_TEST(decoding_16bit_code_agrees_with_capstone)
{
    ck_assert_uint_eq(compare_mode(16), 0);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("decoder against capstone");
    TCase *t = tcase_create("modes");
    tcase_set_timeout(t, 0);
    tcase_add_test(t, decoding_64bit_code_agrees_with_capstone);
    tcase_add_test(t, decoding_32bit_code_agrees_with_capstone);
    tcase_add_test(t, decoding_16bit_code_agrees_with_capstone);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
