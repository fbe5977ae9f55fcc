/*
 * Cases on the host's processor: a child process runs a batch of them between two trampolines, and leaves the results
 * in memory that it shares with its parent. A signal handler turns faults into results. If the child dies (it ran what
 * nobody had foreseen), the parent names the case and starts another child behind it.
 *
 * While a case runs no register is left that could point to anything, so everything the trampolines need is at fixed
 * addresses below 2 GiB: CONTROL_PAGE.
 */
#include "tests/oracle/oracle.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include <asm/prctl.h>

/* The control page. Offsets are the assembly's too. */
struct control {
    uint64_t gpr[16];              /* 0 */
    uint64_t flags;                /* 128 */
    uint64_t entry;                /* 136: address of the code, or of the far pointer */
    uint64_t own_rsp;              /* 144 */
    uint64_t exit;                 /* 152: enum of oracle.h */
    uint64_t leave;                /* 160: address of oracle_leave */
    uint64_t running;              /* 168 */
    uint32_t far_offset;           /* 176: to 32-bit code */
    uint16_t far_selector;         /* 180 */
    uint16_t pad;                  /* 182 */
    uint64_t mask;                 /* 184: XSAVE components */
    _Alignas(64) uint8_t own[832]; /* 192: the C side's x87 and SSE state */
    _Alignas(64) uint8_t in[832];  /* 1024 */
    _Alignas(64) uint8_t out[832]; /* 1856 */
    uint8_t ends[2][32];           /* 2688, 2720: where cases go when they are through */
};
_Static_assert(offsetof(struct control, own) == 192 && offsetof(struct control, in) == 1024 &&
                   offsetof(struct control, out) == 1856 && offsetof(struct control, ends) == 2688,
               "the assembly's offsets");

void oracle_enter(void);
extern const char oracle_enter_far[], oracle_leave[], oracle_leave_fault[];

/* clang-format off */
#define C(off) "0x35a00000+" #off
#define FOR_GPRS(X)                                                                                                    \
    X(rcx, 8) X(rdx, 16) X(rbx, 24) X(rbp, 40) X(rsi, 48) X(rdi, 56) X(r8, 64) X(r9, 72) X(r10, 80) X(r11, 88)         \
    X(r12, 96) X(r13, 104) X(r14, 112) X(r15, 120) X(rsp, 32) X(rax, 0)
#define LOAD(name, off) "movq " C(off) ", %" #name "\n"
#define SAVE(name, off) "movq %" #name ", " C(off) "\n"
__asm__(
    ".text\n"
    "oracle_enter:\n"
    "push %rbx\n push %rbp\n push %r12\n push %r13\n push %r14\n push %r15\n pushfq\n"
    "movq %rsp, " C(144) "\n"
    "movq " C(184) ", %rax\n xor %edx, %edx\n"
    "xsave " C(192) "\n"
    "xrstor " C(1024) "\n"
    "movl $0x2b, %eax\n movl %eax, %ds\n movl %eax, %es\n"
    "pushq " C(128) "\n popfq\n"
    FOR_GPRS(LOAD)
    "jmp *" C(136) "\n"
    "oracle_enter_far:\n"
    "ljmp *" C(176) "\n"
    "oracle_leave:\n"
    FOR_GPRS(SAVE)
    "movq " C(144) ", %rsp\n"
    "pushfq\n popq " C(128) "\n"
    "popfq\n pushfq\n" /* the C side's flags: AC and DF clear */
    "movq " C(184) ", %rax\n xor %edx, %edx\n"
    "xsave " C(1856) "\n"
    "oracle_leave_fault:\n" /* here rsp is own_rsp */
    "movq " C(184) ", %rax\n xor %edx, %edx\n"
    "xrstor " C(192) "\n"
    "xor %eax, %eax\n movl %eax, %ds\n movl %eax, %es\n"
    "popfq\n pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbp\n pop %rbx\n ret\n");
/* clang-format on */

#define OWN_RANGES  256
#define STACK_GROWS (64ull << 20) /* below the stack, an access makes it longer */

struct shared {
    volatile uint32_t done; /* cases that the child is through with */
};

struct native {
    struct control *ctl;
    struct shared *shared;
    struct oracle_case *cases;
    struct oracle_result *results;
    uint8_t *background;
    uint8_t *code; /* CODE_PAGE once more, writable */
    unsigned batch, ranges;
    struct {
        uint64_t start, end;
    } own[OWN_RANGES];
    uint8_t signal_stack[65536];
};

/* ---- memory ---- */

static void *map_at(uint32_t at, size_t len, int prot, int flags)
{
    void *p = mmap((void *)(uintptr_t)at, len, prot, MAP_ANONYMOUS | MAP_POPULATE | flags, -1, 0);
    if (p == MAP_FAILED || (at && p != (void *)(uintptr_t)at)) {
        perror("host_diff: mmap");
        exit(2);
    }
    return p;
}

/* Cases cannot write to their own page of code: what one left there would be the next one's. */
static uint8_t *map_code(void)
{
    int fd = (int)syscall(SYS_memfd_create, "code", 0); /* _GNU_SOURCE would give REG_RAX another meaning */
    void *at = (void *)(uintptr_t)CODE_PAGE, *code, *alias = MAP_FAILED;
    if (fd < 0 || ftruncate(fd, 4096) < 0)
        at = NULL;
    code = mmap(at, 4096, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_POPULATE | MAP_FIXED_NOREPLACE, fd, 0);
    if (at && code == at)
        alias = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (alias == MAP_FAILED) {
        perror("host_diff: code");
        exit(2);
    }
    close(fd);
    return alias;
}

static uint8_t *data(void)
{
    return (uint8_t *)(uintptr_t)DATA_AT;
}

/* jmp *[leave], behind a store of which exit it is that leaves flags and registers alone. */
static void put_end(struct control *ctl, unsigned exit)
{
    const uint32_t exit_at = CONTROL_PAGE + (uint32_t)offsetof(struct control, exit);
    const uint32_t leave_at = CONTROL_PAGE + (uint32_t)offsetof(struct control, leave);
    const uint32_t value = exit;
    uint8_t *p = ctl->ends[exit];
    static const uint8_t store[] = {0x48, 0xc7, 0x04, 0x25}, jump[] = {0xff, 0x24, 0x25};
    memcpy(p, store, 4);
    memcpy(p + 4, &exit_at, 4);
    memcpy(p + 8, &value, 4);
    memcpy(p + 12, jump, 3);
    memcpy(p + 15, &leave_at, 4);
}

/* A jump to an end, in the case's mode. */
static void put_exit(const struct native *n, uint32_t at, unsigned exit, bool code32)
{
    uint8_t *p = n->code + (at - CODE_PAGE);
    uint64_t to = (uintptr_t)n->ctl->ends[exit];
    if (code32) {
        const uint16_t sel = 0x33;
        p[0] = 0xea;
        memcpy(p + 1, &to, 4);
        memcpy(p + 5, &sel, 2);
    } else {
        int32_t distance = (int32_t)(to - (at + 5)); /* no load: AC may be set */
        p[0] = 0xe9;
        memcpy(p + 1, &distance, 4);
    }
}

struct native *native_create(unsigned batch, bool has_avx)
{
    struct native *n = calloc(1, sizeof *n);
    if (!n)
        exit(2);
    n->batch = batch;
    n->ctl = map_at(CONTROL_PAGE, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_FIXED_NOREPLACE);
    n->code = map_code();
    map_at(DATA_AT, DATA_SIZE + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED_NOREPLACE);
    n->shared = map_at(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED);
    n->cases = map_at(0, batch * sizeof *n->cases, PROT_READ | PROT_WRITE, MAP_SHARED);
    n->results = map_at(0, batch * sizeof *n->results, PROT_READ | PROT_WRITE, MAP_SHARED);
    n->background = map_at(0, DATA_SIZE + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE);
    n->ctl->mask = has_avx ? 7 : 3;
    n->ctl->leave = (uintptr_t)oracle_leave;
    n->ctl->far_offset = CODE_AT;
    n->ctl->far_selector = 0x23;
    put_end(n->ctl, EXIT_FALL);
    put_end(n->ctl, EXIT_TAKEN);
    oracle_fill_background(n->background, DATA_SIZE + 4096);
    return n;
}

void native_destroy(struct native *n)
{
    munmap(n->ctl, 4096);
    munmap((void *)(uintptr_t)CODE_PAGE, 4096);
    munmap(n->code, 4096);
    munmap(data(), DATA_SIZE + 4096);
    munmap(n->shared, 4096);
    munmap(n->cases, n->batch * sizeof *n->cases);
    munmap(n->results, n->batch * sizeof *n->results);
    munmap(n->background, DATA_SIZE + 4096);
    free(n);
}

struct oracle_case *native_cases(struct native *n)
{
    return n->cases;
}

struct oracle_result *native_results(struct native *n)
{
    return n->results;
}

/* ---- what it has mapped ---- */

static bool is_the_case_s(uint64_t start)
{
    return start == CODE_PAGE || (start >= DATA_AT && start <= RO_AT);
}

bool native_owns(const struct native *n, uint64_t at)
{
    for (unsigned k = 0; k < n->ranges; k++)
        if (at >= n->own[k].start && at < n->own[k].end)
            return true;
    return false;
}

void native_look(struct native *n)
{
    char line[512];
    FILE *f = fopen("/proc/self/maps", "r");
    n->ranges = 0;
    while (f && fgets(line, sizeof line, f)) {
        uint64_t start, end;
        if (sscanf(line, "%" SCNx64 "-%" SCNx64, &start, &end) != 2 || is_the_case_s(start))
            continue;
        if (n->ranges == OWN_RANGES) {
            printf("host_diff: more than %d ranges of memory\n", OWN_RANGES);
            exit(2);
        }
        n->own[n->ranges].start = start - (strstr(line, "[stack]") ? STACK_GROWS : 0);
        n->own[n->ranges++].end = end;
    }
    if (!f || !native_owns(n, CONTROL_PAGE) || native_owns(n, CODE_AT) || native_owns(n, DATA_AT) ||
        native_owns(n, RO_AT)) {
        perror("host_diff: /proc/self/maps");
        exit(2);
    }
    fclose(f);
}

/* ---- the child ---- */

/* The signal handler has nothing else to find its result by. */
static struct oracle_result *handler_result;

static void on_fault(int sig, siginfo_t *info, void *context)
{
    struct control *ctl = (struct control *)(uintptr_t)CONTROL_PAGE;
    /* The case's AC flag is still set. */
    __asm__ volatile("pushfq\n andl $~0x40000, (%%rsp)\n popfq\n" ::: "cc", "memory");
    struct sigcontext *s = (struct sigcontext *)&((ucontext_t *)context)->uc_mcontext; /* the kernel's own layout */
    const uint64_t gpr[16] = {s->rax, s->rcx, s->rdx, s->rbx, s->rsp, s->rbp, s->rsi, s->rdi,
                              s->r8,  s->r9,  s->r10, s->r11, s->r12, s->r13, s->r14, s->r15};
    struct oracle_result *r = handler_result;
    if (!ctl->running)
        _exit(100 + sig); /* not the case's */
    memcpy(r->out.gpr, gpr, sizeof gpr);
    r->out.rip = s->rip;
    r->out.flags = s->eflags;
    r->exit = EXIT_FAULT;
    r->vector = (uint8_t)s->trapno;
    r->error = (uint32_t)s->err;
    r->cr2 = s->cr2;
    memcpy(ctl->out, s->fpstate, sizeof ctl->out);
    ctl->running = 0;
    s->rip = (uintptr_t)oracle_leave_fault;
    s->rsp = ctl->own_rsp;
    s->eflags = 0x202;
    s->cs = 0x33;
    s->__pad0 = 0x2b; /* SS */
}

static void catch_faults(struct native *n)
{
    static const int signals[] = {SIGFPE, SIGSEGV, SIGBUS, SIGILL, SIGTRAP};
    stack_t stack = {.ss_sp = n->signal_stack, .ss_size = sizeof n->signal_stack};
    struct sigaction act = {.sa_sigaction = on_fault, .sa_flags = SA_ONSTACK | SA_SIGINFO | SA_NODEFER};
    sigaltstack(&stack, NULL);
    for (unsigned k = 0; k < ARRAY_LEN(signals); k++)
        sigaction(signals[k], &act, NULL);
}

static void run_case(struct native *n, const struct oracle_case *c, struct oracle_result *r)
{
    struct control *ctl = n->ctl;
    oracle_put_windows(data(), c);
    memcpy(n->code + (CODE_AT - CODE_PAGE), c->code, c->len);
    put_exit(n, CODE_AT + c->len, EXIT_FALL, c->code32);
    put_exit(n, BRANCH_TARGET, EXIT_TAKEN, c->code32);
    memcpy(ctl->gpr, c->in.gpr, sizeof ctl->gpr);
    memcpy(ctl->in, c->in.xsave, sizeof ctl->in);
    ctl->flags = c->in.flags | 0x202;
    ctl->entry = c->code32 ? (uintptr_t)oracle_enter_far : CODE_AT;
    memset(r, 0, sizeof *r);
    r->vector = NO_VECTOR;
    handler_result = r;
    ctl->running = 1;
    oracle_enter();
    if (ctl->running) {
        memcpy(r->out.gpr, ctl->gpr, sizeof ctl->gpr);
        r->out.flags = ctl->flags;
        r->exit = (uint8_t)ctl->exit;
        r->out.rip = r->exit == EXIT_TAKEN ? BRANCH_TARGET : CODE_AT + c->len;
    }
    ctl->running = 0;
    memcpy(r->out.xsave, ctl->out, sizeof ctl->out);
    oracle_normalise(r->out.xsave);
    oracle_take_changes(data(), n->background, r);
}

static _Noreturn void child(struct native *n, unsigned from, unsigned count, const bool *run)
{
    catch_faults(n);
    memcpy(data(), n->background, DATA_SIZE + 4096);
    mprotect((void *)(uintptr_t)RO_AT, 4096, PROT_READ);
    syscall(SYS_arch_prctl, ARCH_SET_GS, (unsigned long)GS_BASE);
    alarm(60);
    for (unsigned k = from; k < count; k++) {
        n->shared->done = k;
        if (run[k])
            run_case(n, &n->cases[k], &n->results[k]);
    }
    n->shared->done = count;
    _exit(0);
}

void native_run(struct native *n, unsigned count, bool *run)
{
    unsigned from = 0;
    while (from < count) {
        int status = 0;
        fflush(stdout);
        pid_t pid = fork();
        if (pid == 0)
            child(n, from, count, run);
        if (pid < 0 || (waitpid(pid, &status, 0) < 0 && errno != EINTR)) {
            perror("host_diff: fork");
            exit(2);
        }
        from = n->shared->done;
        if (from >= count)
            return;
        printf("the host's child ended with status %#x in this case, which is left out:\n", (unsigned)status);
        oracle_print_case(&n->cases[from]);
        run[from++] = false;
    }
}
