#include "fuzz.h"

#include "core/bytes.h"
#include "core/snapshot_format.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SESSION_CPU_SECONDS 60
#define IDLE_SKIPS          20
#define STALL_CALLS         100000

/* ---- numbers ---- */

/* Takes up to `size` chosen bytes. False: there are none left. */
static bool rng_take(struct rng *r, unsigned size, uint64_t *v)
{
    if (r->bytes == r->end)
        return false;
    for (*v = 0; size && r->bytes < r->end; size--)
        *v = *v << 8 | *r->bytes++;
    return true;
}

bool rng_is_over(const struct rng *r)
{
    return r->chosen && r->bytes == r->end;
}

uint64_t rng_next(struct rng *r)
{
    uint64_t chosen;
    if (rng_take(r, 8, &chosen))
        return chosen;
    uint64_t z = r->state += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

uint64_t rng_below(struct rng *r, uint64_t n)
{
    uint64_t chosen;
    if (n <= 0x10000 && rng_take(r, n <= 0x100 ? 1 : 2, &chosen))
        return chosen % n;
    return rng_next(r) % n;
}

bool rng_one_in(struct rng *r, unsigned n)
{
    return rng_below(r, n) == 0;
}

uint64_t rng_number(struct rng *r)
{
    uint64_t bits = rng_next(r), one = 1ull << rng_below(r, 64);
    switch (rng_below(r, 7)) {
    case 0:
        return rng_below(r, 16);
    case 1:
        return one;
    case 2:
        return one - 1;
    case 3:
        return 0 - one;
    case 4:
        return bits & (one - 1);
    case 5:
        return one + rng_below(r, 16);
    default:
        return bits;
    }
}

void rng_bytes(struct rng *r, void *p, size_t n)
{
    uint8_t *out = p;
    struct rng noise = {.state = 0};
    if (r->chosen) { /* eight chosen bytes stand for all of them */
        noise.state = rng_next(r);
        r = &noise;
    }
    for (size_t k = 0; k < n; k++)
        out[k] = (uint8_t)rng_next(r);
}

/* ---- failing ---- */

void fuzz_fail(const struct fuzz *f, const char *fmt, ...)
{
    va_list ap;
    fprintf(stderr, "%s: seed %llu, session %llu, round %u: ", f->name, (unsigned long long)f->seed,
            (unsigned long long)f->session, f->round);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    abort();
}

/* The generator counts in equal steps, so where a session begins is drawn: sessions that were a step apart would be one
 * stream of numbers, shifted. */
struct rng fuzz_session_rng(uint64_t seed, uint64_t session)
{
    struct rng seeds = {.state = seed}, sessions = {.state = rng_next(&seeds) + session};
    return (struct rng){.state = rng_next(&sessions)};
}

static void session_begin(struct fuzz *f, uint64_t session)
{
    struct itimerval limit = {.it_value.tv_sec = SESSION_CPU_SECONDS};
    f->session = session;
    f->round = 0;
    f->rng = fuzz_session_rng(f->seed, session);
    setitimer(ITIMER_PROF, &limit, NULL); /* SIGPROF's default ends the process: the message below names the session */
    if (f->verbose)
        fprintf(stderr, "session %llu\n", (unsigned long long)session);
}

static void on_hang(int sig)
{
    static const char text[] = "fuzz: the session hangs; run with -v to see which\n";
    (void)!write(2, text, sizeof text - 1);
    abort();
}

/* ---- files ---- */

struct mem_file mem_file_make(const struct fuzz *f, const void *bytes, size_t len)
{
    struct mem_file m = {.fd = (int)syscall(SYS_memfd_create, "fuzz", 1u /* MFD_CLOEXEC */)};
    const uint8_t *p = bytes;
    if (m.fd < 0)
        fuzz_fail(f, "memfd_create: %s", strerror(errno));
    for (size_t done = 0; done < len;) {
        ssize_t n = write(m.fd, p + done, len - done);
        if (n <= 0)
            fuzz_fail(f, "write: %s", strerror(errno));
        done += (size_t)n;
    }
    snprintf(m.path, sizeof m.path, "/proc/self/fd/%d", m.fd);
    return m;
}

void mem_file_close(struct mem_file *m)
{
    close(m->fd);
}

static void dir_make(struct fuzz *f)
{
    const char *tmp = getenv("TMPDIR");
    if (!tmp || strlen(tmp) > sizeof f->dir - 20)
        tmp = "/tmp";
    snprintf(f->dir, sizeof f->dir, "%s/umbra-fuzz-XXXXXX", tmp);
    if (!mkdtemp(f->dir))
        fuzz_fail(f, "no directory for files: %s", strerror(errno));
}

/* ---- machines ---- */

static void put32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, sizeof v);
}

size_t fuzz_image(uint8_t *out, const void *code, size_t len)
{
    const uint32_t magic = 0x1badb002, flags = 1u << 16, base = 0x100000;
    put32(out, magic);
    put32(out + 4, flags);
    put32(out + 8, 0 - magic - flags);
    put32(out + 12, base);
    put32(out + 16, base);
    put32(out + 20, base + 32 + (uint32_t)len);
    put32(out + 24, 0);
    put32(out + 28, base + 32);
    memcpy(out + 32, code, len);
    return 32 + len;
}

static struct machine *make_machine(const struct fuzz *f, enum machine_mmu mmu, bool jit, unsigned ram_mib,
                                    const void *code, size_t len)
{
    uint8_t image[4096];
    struct error e = {""};
    struct mem_file file = mem_file_make(f, image, fuzz_image(image, code, len));
    struct machine_config cfg = {.ram_bytes = (uint64_t)ram_mib << 20,
                                 .mmu = mmu,
                                 .kernel = f->bios ? NULL : file.path,
                                 .bios = f->bios,
                                 .testdev = true,
                                 .vmcoreinfo = true,
                                 .cpu = "max",
                                 .rtc_base = MACHINE_RTC_DEFAULT,
                                 .debug_exit = true,
                                 .debug_exit_base = 0xf4,
                                 .debug_exit_size = 4,
                                 .debug_console = true,
                                 .serials = SERIALS_MAX,
                                 .mouse_port = 2,
                                 .jit = jit,
                                 .jit_heat = 1,
                                 .jit_cache = 1 << 20,
                                 .log_out = f->log ? f->log : stderr};
    memcpy(cfg.drive, f->drive, sizeof cfg.drive);
    cfg.drive_count = f->drive_count;
    memcpy(cfg.device, f->device, sizeof cfg.device);
    cfg.device_count = f->device_count;
    struct machine *m = machine_create(&cfg, &e);
    mem_file_close(&file);
    if (!m)
        fuzz_fail(f, "no machine: %s", e.text);
    return m;
}

struct machine *fuzz_machine(const struct fuzz *f, enum machine_mmu mmu, unsigned ram_mib, const void *code, size_t len)
{
    return make_machine(f, mmu, false, ram_mib, code, len);
}

struct machine *fuzz_machine_jit(const struct fuzz *f, enum machine_mmu mmu, unsigned ram_mib, const void *code,
                                 size_t len)
{
    return make_machine(f, mmu, true, ram_mib, code, len);
}

/* ---- running ---- */

/* Idle: time moves to the next deadline. False: there is none. */
static bool skip_idle(struct machine *m)
{
    uint64_t when = clock_next_deadline(&m->clock);
    if (when == CLOCK_NEVER)
        return false;
    clock_skip_to(&m->clock, when);
    return true;
}

static uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

void fuzz_run(const struct fuzz *f, struct machine *m, uint64_t target, struct rng *chunk)
{
    struct vcpu *v = m->cpu[0];
    unsigned skips = 0, calls = 0;
    while (m->clock.icount < target && v->activity != VCPU_SHUTDOWN) {
        if (++calls > STALL_CALLS)
            fuzz_fail(f, "no progress at position %llu", (unsigned long long)m->clock.icount);
        clock_run_due(&m->clock);
        if (v->activity != VCPU_RUNNING && !vcpu_has_wakeup(v)) {
            if (++skips > IDLE_SKIPS || !skip_idle(m))
                return;
            continue;
        }
        uint64_t units = min_u64(target - m->clock.icount, clock_next_deadline(&m->clock) - clock_now(&m->clock));
        if (chunk)
            units = min_u64(units, 1 + (rng_one_in(chunk, 4) ? rng_below(chunk, 4) : rng_below(chunk, 400)));
        vcpu_run(v, units);
    }
}

static void audit_line(void *ctx, const char *line)
{
    fprintf(stderr, "audit: %s\n", line);
}

void fuzz_audit(const struct fuzz *f, struct machine *m)
{
    if (mmu_audit(m->mmu, true, audit_line, NULL))
        fuzz_fail(f, "the audit of MMU %u found violations", (unsigned)m->cfg.mmu);
}

/* ---- comparing ---- */

static struct file state_of(const struct fuzz *f, const struct machine *m, const char *name)
{
    char path[128];
    struct file state;
    struct error e = {""};
    snprintf(path, sizeof path, "%s/%s", f->dir, name);
    if (!machine_save((struct machine *)(uintptr_t)m, path, &e) || !file_read(&state, path, &e))
        fuzz_fail(f, "%s", e.text);
    unlink(path);
    return state;
}

/* The section at `at`: its end, checksum included. */
static size_t section_end(const struct file *s, size_t at, size_t *payload)
{
    *payload = at + s->data[at] + SNAP_HEADER_MIN;
    return *payload + load_le(s->data + *payload - 8, 8) + 4;
}

static void sections_compare(const struct file *a, const struct file *b)
{
    size_t i = SNAP_FILE_HEAD, k = SNAP_FILE_HEAD, from, other;
    while (i < a->len && k < b->len) {
        size_t i_end = section_end(a, i, &from), k_end = section_end(b, k, &other), at = 0;
        while (from + at < i_end && other + at < k_end && a->data[from + at] == b->data[other + at])
            at++;
        if (from + at < i_end || other + at < k_end)
            fprintf(stderr, "section %.*s differs at byte %zu of %zu and %zu\n", a->data[i], a->data + i + 1, at,
                    i_end - from - 4, k_end - other - 4);
        i = i_end;
        k = k_end;
    }
}

void fuzz_same_state(const struct fuzz *f, const struct machine *a, const struct machine *b, const char *when)
{
    if (machine_digest(a) == machine_digest(b))
        return;
    struct file first = state_of(f, a, "a"), second = state_of(f, b, "b");
    sections_compare(&first, &second);
    file_free(&first);
    file_free(&second);
    fuzz_fail(f, "the digests differ %s", when);
}

/* ---- the command line ---- */

struct run_limits {
    uint64_t count, seconds, least, only;
    bool one;
};

static double now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static bool argument_read(struct fuzz *f, struct run_limits *l, const char *name, const char *value)
{
    uint64_t n = value ? strtoull(value, NULL, 0) : 0;
    if (!value)
        return false;
    if (!strcmp(name, "-seed"))
        f->seed = n;
    else if (!strcmp(name, "-count"))
        l->count = n;
    else if (!strcmp(name, "-seconds"))
        l->seconds = n;
    else if (!strcmp(name, "-position"))
        f->position = n;
    else if (!strcmp(name, "-session"))
        l->only = n, l->one = true;
    else
        return false;
    return true;
}

static bool arguments_read(struct fuzz *f, struct run_limits *l, int argc, char **argv)
{
    for (int k = 1; k < argc; k++) {
        if (!strcmp(argv[k], "-v"))
            f->verbose = true;
        else if (!argument_read(f, l, argv[k], argv[k + 1]) || ++k >= argc)
            return false;
    }
    return true;
}

static uint64_t run_sessions(struct fuzz *f, const struct run_limits *l, fuzz_session_fn *fn)
{
    double end = now_seconds() + (double)l->seconds;
    uint64_t k = 0;
    if (l->one) {
        session_begin(f, l->only);
        fn(f);
        return 1;
    }
    for (; l->seconds ? now_seconds() < end || k < l->least : k < l->count; k++) {
        session_begin(f, k);
        fn(f);
    }
    return k;
}

int fuzz_one(const char *name, fuzz_session_fn *fn, const uint8_t *bytes, size_t len)
{
    struct fuzz f = {.name = name};
    if (!len)
        return -1;
    f.session = bytes[0]; /* drivers of several parts choose one by it */
    f.rng = (struct rng){.bytes = bytes + 1, .end = bytes + len, .chosen = true};
    dir_make(&f);
    fn(&f);
    rmdir(f.dir);
    return 0;
}

int fuzz_main_least(const char *name, fuzz_session_fn *fn, unsigned long_seconds, unsigned long_least, int argc,
                    char **argv)
{
    struct fuzz f = {.name = name, .seed = 1};
    struct run_limits l = {.count = 10};
    if (!arguments_read(&f, &l, argc, argv)) {
        fprintf(stderr, "usage: %s [-seed N] [-count N | -seconds N | -session N [-position N]] [-v]\n", name);
        return 2;
    }
    const char *is_long = getenv("UMBRA_LONG");
    if (is_long && !strcmp(is_long, "1") && !l.one) {
        l.seconds = long_seconds;
        l.least = long_least;
    }
    signal(SIGPROF, on_hang);
    dir_make(&f);
    uint64_t done = run_sessions(&f, &l, fn);
    rmdir(f.dir);
    printf("%s: seed %llu: %llu sessions, %llu units of work", name, (unsigned long long)f.seed,
           (unsigned long long)done, (unsigned long long)f.work);
    if (f.accepted)
        printf(" (%llu accepted)", (unsigned long long)f.accepted);
    printf(", no failure\n");
    return 0;
}
