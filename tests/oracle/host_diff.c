/*
 * The host's processor as the oracle for integer instructions.
 *
 * Each case is one random 64-bit instruction with random operands. Its bytes run natively, between a trampoline that
 * loads all registers and flags and one that stores them; then they are decoded and run by the interpreter from the
 * same state at the same addresses, on the same memory put back as it was. Registers, memory, the address reached, #DE,
 * and the flags that the manual defines must agree.
 *
 *   host_diff [cases [seed]]      20,000 cases by default; HOST_DIFF_CASES and HOST_DIFF_SEED do the same
 *
 * No MMU is involved: the soft TLB holds identity entries for the buffer.
 */
#include "tests/oracle/host_diff.h"

#include <cpuid.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

/* ---- native execution ---- */

/* The trampoline has no register left that could point to its state, and the signal handler needs it too: so it is in
 * one place. */
struct native {
    uint64_t gpr[16], flags;
    uint64_t entry, own_rsp, taken;
    volatile sig_atomic_t running;
    sigjmp_buf fault;
};
struct native host_diff_native __attribute__((visibility("hidden"), used));
void host_diff_enter(void);
extern const char host_diff_leave[], host_diff_leave_taken[];

#define FOR_GPRS(X)                                                                                                    \
    X("rax", 0)                                                                                                        \
    X("rcx", 8)                                                                                                        \
    X("rdx", 16)                                                                                                       \
    X("rbx", 24)                                                                                                       \
    X("rbp", 40)                                                                                                       \
    X("rsi", 48)                                                                                                       \
    X("rdi", 56) X("r8", 64) X("r9", 72) X("r10", 80) X("r11", 88) X("r12", 96) X("r13", 104) X("r14", 112)            \
        X("r15", 120) X("rsp", 32)
#define LOAD(name, off) "mov host_diff_native+" #off "(%rip), %" name "\n"
#define SAVE(name, off) "mov %" name ", host_diff_native+" #off "(%rip)\n"
__asm__(".text\n"
        "host_diff_enter:\n"
        "push %rbx\n push %rbp\n push %r12\n push %r13\n push %r14\n push %r15\n pushfq\n"
        "mov %rsp, host_diff_native+144(%rip)\n"
        "push host_diff_native+128(%rip)\n popfq\n" FOR_GPRS(
            LOAD) "jmp *host_diff_native+136(%rip)\n"
                  "host_diff_leave_taken:\n"
                  "movq $1, host_diff_native+152(%rip)\n"
                  "host_diff_leave:\n" FOR_GPRS(
                      SAVE) "mov host_diff_native+144(%rip), %rsp\n"
                            "pushfq\n pop host_diff_native+128(%rip)\n"
                            "popfq\n pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbp\n pop %rbx\n ret\n");

static void on_fault(int sig)
{
    if (host_diff_native.running)
        siglongjmp(host_diff_native.fault, sig);
    signal(sig, SIG_DFL); /* not the oracle's: crash at the same place */
}

static void catch_faults(struct bed *b)
{
    static const int signals[] = {SIGFPE, SIGSEGV, SIGBUS, SIGILL, SIGTRAP};
    stack_t stack = {.ss_sp = b->signal_stack, .ss_size = sizeof b->signal_stack};
    struct sigaction act = {.sa_handler = on_fault, .sa_flags = SA_ONSTACK};
    sigaltstack(&stack, NULL);
    for (unsigned k = 0; k < ARRAY_LEN(signals); k++)
        sigaction(signals[k], &act, NULL);
}

/* jmp *0(%rip) to `to` */
static void put_jump(uint8_t *at, const char *to)
{
    static const uint8_t op[] = {0xff, 0x25, 0, 0, 0, 0};
    memcpy(at, op, sizeof op);
    memcpy(at + sizeof op, &to, 8);
}

/* Runs the case natively: 0, or the signal that it raised. Results are in host_diff_native. */
static int run_native(struct bed *b, const struct test_case *t, uint64_t flags)
{
    memcpy(b->code, t->bytes, t->len);
    put_jump(b->code + t->len, host_diff_leave);
    put_jump(b->code + t->len + BRANCH_DISTANCE, host_diff_leave_taken);
    memcpy(host_diff_native.gpr, t->gpr, sizeof t->gpr);
    host_diff_native.flags = flags | FLAG_IF | 2;
    host_diff_native.entry = (uintptr_t)b->code;
    host_diff_native.taken = 0;
    int sig = sigsetjmp(host_diff_native.fault, 1);
    host_diff_native.running = sig == 0;
    if (sig == 0)
        host_diff_enter();
    host_diff_native.running = 0;
    return sig;
}

/* ---- the interpreter ---- */

static void after_insn(struct vcpu *v, const struct insn *i)
{
    v->rip = v->gpr[REG_IP] + i->off;
}

/* As the decoder and the run loop have it: the instruction, then a sentinel. */
static void run_interpreter(struct bed *b, const struct insn *decoded)
{
    struct insn i[2] = {*decoded, {.fn = after_insn, .off = decoded->len, .idx = 1}};
    struct vcpu *v = b->v;
    i[0].fn = interp_bind(&i[0], v->mode);
    do {
        v->gpr[REG_IP] = v->rip = (uintptr_t)b->code;
        v->synced = 0;
        v->attn = 0;
        v->rep_budget = 1 + random_below(b, 200);
        i[0].fn(v, &i[0]);
    } while (v->rip == (uintptr_t)b->code); /* a REP instruction that has used up its budget */
}

/* Flags in a lazy form that no single instruction need have left. Returns their image. */
static uint64_t set_random_flags(struct bed *b)
{
    struct vcpu *v = b->v;
    v->f_res = random_below(b, 3) ? random64(b) : 0;
    v->f_cy = random64(b);
    v->f_adj = random64(b) & 0x800000000000ff10;
    v->rflags = FLAG_IF | 2 | (random_below(b, 4) ? 0 : FLAG_DF);
    return flags_image(v) | (v->rflags & FLAG_DF);
}

/* ---- what the manual leaves open ---- */

static unsigned shift_count(const struct insn *i, const struct test_case *t)
{
    unsigned c = i->enc == ENC_M1                        ? 1
                 : i->enc == ENC_MC || i->enc == ENC_MRC ? (unsigned)t->gpr[REG_RCX]
                                                         : (unsigned)i->imm;
    return c & (i->opsize == 8 ? 63 : 31);
}

static uint64_t undefined_after_shift(const struct insn *i, unsigned count)
{
    bool rotate = i->op == OP_ROL || i->op == OP_ROR || i->op == OP_RCL || i->op == OP_RCR;
    if (count == 0)
        return 0;
    return (rotate ? 0 : FLAG_AF) | (count != 1 ? FLAG_OF : 0) | (!rotate && count >= 8u * i->opsize ? FLAG_CF : 0);
}

static uint64_t undefined_flags(const struct insn *i, const struct test_case *t)
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
        return undefined_after_shift(i, shift_count(i, t));
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
    default:
        return 0;
    }
}

/* Nothing is promised: 16-bit SHLD, SHRD by more than the operand has bits. */
static bool is_result_undefined(const struct insn *i, const struct test_case *t)
{
    return (i->op == OP_SHLD || i->op == OP_SHRD) && shift_count(i, t) > 8u * i->opsize;
}

/* ---- comparing ---- */

static const char *const gpr_names[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                        "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};

static bool differs(const char *what, uint64_t host, uint64_t ours)
{
    if (host == ours)
        return false;
    printf("  %s: host %#" PRIx64 ", interpreter %#" PRIx64 "\n", what, host, ours);
    return true;
}

static bool compare_state(struct bed *b, const struct test_case *t, const struct insn *i)
{
    const struct vcpu *v = b->v;
    uint64_t mask = (FLAGS_ARITH | FLAG_DF | FLAG_ID) & ~undefined_flags(i, t);
    uint64_t end = (uintptr_t)b->code + t->len;
    bool bad = false;
    for (unsigned r = 0; r < 16; r++)
        bad |= differs(gpr_names[r], host_diff_native.gpr[r], v->gpr[r]);
    bad |= differs("flags", host_diff_native.flags & mask, (flags_image(v) | v->rflags) & mask);
    bad |= differs("rip", host_diff_native.taken ? end + BRANCH_DISTANCE : end, v->rip);
    for (unsigned k = 0; k < DATA_SIZE; k++)
        if (differs("memory", b->after[k], b->data[k])) {
            printf("  at %#" PRIxPTR "\n", (uintptr_t)b->data + k);
            return true;
        }
    return bad;
}

/* The host raised #DE: so must the interpreter, with nothing changed. */
static bool compare_fault(struct bed *b, const struct test_case *t)
{
    bool bad = differs("vector", EXC_DE, b->v->fault.vector);
    for (unsigned r = 0; r < 16; r++)
        bad |= differs(gpr_names[r], t->gpr[r], b->v->gpr[r]);
    if (memcmp(b->before, b->data, DATA_SIZE) != 0) {
        printf("  memory changed before the fault\n");
        bad = true;
    }
    return bad;
}

static void print_case(const struct test_case *t, const struct insn *i, uint64_t rip, uint64_t flags)
{
    char text[96];
    printf("%s\n  bytes", insn_print(i, rip, text, sizeof text));
    for (unsigned k = 0; k < t->len; k++)
        printf(" %02x", t->bytes[k]);
    printf("\n  flags %#" PRIx64 ", memory operand %#" PRIx64 "\n", flags, t->target);
    for (unsigned r = 0; r < 16; r++)
        printf("  %-3s %016" PRIx64 "%s", gpr_names[r], t->gpr[r], r % 4 == 3 ? "\n" : "");
}

/* ---- one case ---- */

static bool run_decoded(struct bed *b, const struct test_case *t, const struct insn *i, uint64_t flags)
{
    struct vcpu *v = b->v;
    memcpy(b->before, b->data, DATA_SIZE);
    int sig = run_native(b, t, flags);
    memcpy(b->after, b->data, DATA_SIZE);
    memcpy(b->data, b->before, DATA_SIZE);
    memcpy(v->gpr, t->gpr, sizeof t->gpr);
    if (is_result_undefined(i, t))
        return false;
    if (sig && sig != SIGFPE) {
        printf("  signal %d\n", sig);
        return true;
    }
    if (setjmp(v->fault_jmp))
        return sig == SIGFPE ? compare_fault(b, t) : differs("exception", ~0ull, v->fault.vector);
    run_interpreter(b, i);
    return sig == SIGFPE ? differs("exception", EXC_DE, ~0ull) : compare_state(b, t, i);
}

/* True if the case failed. */
static bool run_case(struct bed *b)
{
    struct test_case t;
    struct insn i;
    case_generate(b, &t);
    uint64_t flags = set_random_flags(b);
    enum decode_result r = insn_decode(&i, t.bytes, t.len, b->v->mode, 0);
    bool bad = r != DECODE_OK || i.len != t.len;
    if (bad)
        printf("  decoder: result %d, %u bytes of %u\n", (int)r, i.len, t.len);
    else
        bad = run_decoded(b, &t, &i, flags);
    if (bad)
        print_case(&t, &i, (uintptr_t)b->code, flags);
    return bad;
}

/* ---- the bed ---- */

static void set_tlb(struct bed *b)
{
    for (unsigned k = 0; k < TLB_SIZE; k++)
        b->tlb[k].ntag_r = b->tlb[k].ntag_w = tlb_empty_tag(k);
    for (unsigned p = 0; p < DATA_PAGES; p++) {
        uint64_t gva = (uintptr_t)b->data + p * PAGE_SIZE;
        struct tlb_entry *e = &b->tlb[tlb_index(gva)];
        e->ntag_r = e->ntag_w = -gva;
        e->host = gva;
    }
    b->mv.cur_data = b->tlb;
}

static struct bed *make_bed(uint64_t seed)
{
    unsigned eax, ebx, ecx, edx;
    struct bed *b = calloc(1, sizeof *b);
    struct vcpu *v = calloc(1, sizeof *v);
    if (!b || !v)
        exit(2);
    b->code = mmap(NULL, PAGE_SIZE + DATA_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    if (b->code == MAP_FAILED) {
        perror("host_diff: executable memory");
        exit(2);
    }
    b->data = b->code + PAGE_SIZE;
    b->rng = seed;
    if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) {
        b->has_bmi = (ebx >> 3 & 1) && (ebx >> 8 & 1);
        b->has_adx = ebx >> 19 & 1;
    }
    set_tlb(b);
    b->mv.regs.cpl = 3;
    clock_init(&b->clock);
    v->mv = &b->mv;
    v->chain_epoch = CHAIN_CLOSED;
    v->clock = &b->clock;
    v->mode = MODE_CODE64 | MODE_SS32 | MODE_PE | MODE_LONG | MODE_FLAT | MODE_USER;
    v->cpl = 3;
    b->v = v;
    return b;
}

static void destroy_bed(struct bed *b)
{
    sigaltstack(&(stack_t){.ss_flags = SS_DISABLE}, NULL);
    munmap(b->code, PAGE_SIZE + DATA_SIZE);
    free(b->v);
    free(b);
}

static uint64_t setting(int argc, char **argv, int arg, const char *env, uint64_t otherwise)
{
    const char *text = argc > arg ? argv[arg] : getenv(env);
    return text ? strtoull(text, NULL, 0) : otherwise;
}

int main(int argc, char **argv)
{
    uint64_t cases = setting(argc, argv, 1, "HOST_DIFF_CASES", 20000), failures = 0;
    struct bed *b = make_bed(setting(argc, argv, 2, "HOST_DIFF_SEED", 1));
    catch_faults(b);
    for (uint64_t n = 0; n < cases && failures < 20; n++)
        if (run_case(b)) {
            printf("  case %" PRIu64 " failed\n\n", n);
            failures++;
        }
    destroy_bed(b);
    printf("host_diff: %" PRIu64 " cases, %" PRIu64 " failures\n", cases, failures);
    return failures != 0;
}
