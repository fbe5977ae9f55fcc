/* What the kernel is asked for: system calls, processes, mappings, faults, pipes; and instructions that it might trap.
 */
#include "guest.h"

#include <cpuid.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <x86intrin.h>

uint64_t row_getppid(uint64_t n)
{
    long parent = syscall(SYS_getppid);
    uint64_t same = 0;
    for (uint64_t k = 0; k < n; k++)
        same += syscall(SYS_getppid) == parent;
    return same;
}

static uint64_t reap(pid_t child)
{
    int status;
    if (child < 0 || waitpid(child, &status, 0) != child)
        give_up("fork");
    return WIFEXITED(status) ? (uint64_t)WEXITSTATUS(status) : 1000;
}

/* n children that write to some memory of their own and exit. */
uint64_t row_fork(uint64_t n)
{
    enum { LEN = 1 << 20 };
    uint8_t *p = pages_get(LEN, false);
    uint64_t sum = 0;
    for (uint64_t k = 0; k < n; k++) {
        pid_t child = fork();
        if (!child) {
            for (unsigned i = 0; i < 16; i++)
                p[i * 65536] = (uint8_t)(k + i);
            _exit(p[65536] & 0x7f);
        }
        sum = mix64(sum, reap(child));
    }
    pages_put(p, LEN);
    return sum;
}

uint64_t row_fork_exec(uint64_t n)
{
    uint64_t sum = 0;
    for (uint64_t k = 0; k < n; k++) {
        pid_t child = fork();
        if (!child) {
            char code[16];
            snprintf(code, sizeof code, "%u", (unsigned)(k & 63));
            execl("/proc/self/exe", "bench_guest", "exit", code, (char *)NULL);
            _exit(99);
        }
        sum = mix64(sum, reap(child));
    }
    return sum;
}

/* n times: map 64 pages, touch them, unmap. */
uint64_t row_mmap_churn(uint64_t n)
{
    enum { LEN = 64 * 4096 };
    uint64_t sum = 0;
    for (uint64_t k = 0; k < n; k++) {
        uint8_t *p = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED)
            give_up("mmap");
        for (unsigned i = 0; i < LEN; i += 4096)
            p[i] = (uint8_t)(p[i] + k + i / 4096);
        sum = mix64(sum, p[(k & 63) * 4096]);
        munmap(p, LEN);
    }
    return sum;
}

static uint8_t *fault_page;
static volatile uint64_t faults;

static void on_fault(int sig, siginfo_t *info, void *context)
{
    (void)sig;
    (void)context;
    if (info->si_addr != fault_page + 16)
        _exit(98);
    faults++;
    mprotect(fault_page, 4096, PROT_READ | PROT_WRITE);
}

/* n times: protect a page, write to it, have the signal handler allow it. */
uint64_t row_mprotect_segv(uint64_t n)
{
    struct sigaction sa, old;
    memset(&sa, 0, sizeof sa);
    sa.sa_sigaction = on_fault;
    sa.sa_flags = SA_SIGINFO;
    fault_page = pages_get(4096, false);
    faults = 0;
    sigaction(SIGSEGV, &sa, &old);
    for (uint64_t k = 0; k < n; k++) {
        mprotect(fault_page, 4096, PROT_READ);
        ((volatile uint8_t *)fault_page)[16] = (uint8_t)k;
    }
    sigaction(SIGSEGV, &old, NULL);
    uint64_t sum = mix64(faults, fault_page[16]);
    pages_put(fault_page, 4096);
    return sum;
}

static void move_word(int from, int to, uint64_t *x)
{
    if (read(from, x, sizeof *x) != sizeof *x)
        _exit(97);
    *x = *x * 3 + 1;
    if (write(to, x, sizeof *x) != sizeof *x)
        _exit(97);
}

/* n round trips of a word between two processes. */
uint64_t row_pipe_ping_pong(uint64_t n)
{
    int there[2], back[2];
    uint64_t x = 1;
    if (pipe(there) || pipe(back))
        give_up("pipe");
    pid_t child = fork();
    if (!child) {
        for (uint64_t k = 0; k < n; k++)
            move_word(there[0], back[1], &x);
        _exit(5);
    }
    if (write(there[1], &x, sizeof x) != sizeof x)
        give_up("write");
    for (uint64_t k = 1; k < n; k++)
        move_word(back[0], there[1], &x);
    if (read(back[0], &x, sizeof x) != sizeof x)
        give_up("read");
    uint64_t status = reap(child);
    close(there[0]);
    close(there[1]);
    close(back[0]);
    close(back[1]);
    return mix64(x, status);
}

uint64_t row_rdtsc(uint64_t n)
{
    uint64_t last = __rdtsc(), forward = 0;
    for (uint64_t k = 0; k < n; k++) {
        uint64_t now = __rdtsc();
        forward += now >= last;
        last = now;
    }
    return forward;
}

uint64_t row_cpuid(uint64_t n)
{
    unsigned a, b, c, d, first, same = 0;
    __cpuid(0, first, b, c, d);
    for (uint64_t k = 0; k < n; k++) {
        __cpuid(0, a, b, c, d);
        same += a == first;
    }
    return same;
}
