/*
 * What the fuzz drivers share: a seeded generator of numbers, the command line, a watchdog, files in memory, and
 * machines made from a kernel of one instruction.
 *
 * A driver is a number of sessions. Session k of seed s does the same thing on every host, whatever came before it: a
 * failure is repeated by `-seed s -session k`. How many sessions run is a count (-count) or a time (-seconds).
 */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include "frontends/machine/drives.h"
#include "frontends/machine/machine.h"

struct rng {
    uint64_t state;
    const uint8_t *bytes, *end; /* where a coverage-guided fuzzer chooses: what is drawn comes from here first */
    bool chosen;
};

uint64_t rng_next(struct rng *r);
/* A coverage-guided fuzzer's bytes are used up: the session may end. */
bool rng_is_over(const struct rng *r);
/* 0 .. n - 1; n > 0. */
uint64_t rng_below(struct rng *r, uint64_t n);
/* True once in n times. */
bool rng_one_in(struct rng *r, unsigned n);
/* A number of any magnitude: small, near a power of two, all ones, noise. */
uint64_t rng_number(struct rng *r);
void rng_bytes(struct rng *r, void *p, size_t n);

/* Numbers of a session that no other has. */
struct rng fuzz_session_rng(uint64_t seed, uint64_t session);

#define RNG_PICK(r, array) ((array)[rng_below((r), ARRAY_LEN(array))])

struct fuzz {
    const char *name;
    uint64_t seed, session;
    uint64_t position;                     /* -position: the session ends at this instruction count; 0: it does not */
    struct rng rng;                        /* of the session */
    char dir[64];                          /* a directory for the run's files, removed at its end */
    uint64_t work;                         /* what the driver counts: instructions, accesses, files */
    uint64_t accepted;                     /* files that were not refused */
    uint64_t met[2];                       /* what the driver wants to have met after many sessions of a run */
    unsigned round;                        /* of the session, for messages */
    struct drive_config drive[DRIVES_MAX]; /* of the machines that are made; with their places */
    unsigned drive_count;
    struct device_config device[DEVICES_MAX];
    unsigned device_count;
    const char *bios; /* of the machines that are made, instead of the image; or NULL */
    FILE *log;        /* of the machines that are made; NULL: standard error */
    bool verbose;
};

/* One session; ends in fuzz_fail() if something is wrong. */
typedef void fuzz_session_fn(struct fuzz *f);

/* -seed N, -count N, -seconds N, -session N, -position N, -v. UMBRA_LONG=1 in the environment takes `long_seconds`, and
 * at least `long_least` sessions, however long they take. A session that takes longer than a minute (of processor time)
 * is a hang. Returns the exit status. */
int fuzz_main_least(const char *name, fuzz_session_fn *fn, unsigned long_seconds, unsigned long_least, int argc,
                    char **argv);
/* One session that draws its numbers from these bytes: for libFuzzer. */
int fuzz_one(const char *name, fuzz_session_fn *fn, const uint8_t *bytes, size_t len);
/* The driver's entry point: a program of its own, or a target of libFuzzer (UMBRA_LIBFUZZER). */
#ifdef UMBRA_LIBFUZZER
#define FUZZ_DRIVER(name, fn, long_seconds, long_least)                                                                \
    int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);                                                      \
    int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)                                                       \
    {                                                                                                                  \
        return fuzz_one(name, fn, bytes, len);                                                                         \
    }
#else
#define FUZZ_DRIVER(name, fn, long_seconds, long_least)                                                                \
    int main(int argc, char **argv)                                                                                    \
    {                                                                                                                  \
        return fuzz_main_least(name, fn, long_seconds, long_least, argc, argv);                                        \
    }
#endif
/* Says which session it was, and ends the process. */
void fuzz_fail(const struct fuzz *f, const char *fmt, ...) __attribute__((format(printf, 2, 3), noreturn));

/* A file that lives in memory. */
struct mem_file {
    int fd;
    char path[40];
};
struct mem_file mem_file_make(const struct fuzz *f, const void *bytes, size_t len);
void mem_file_close(struct mem_file *m);

/* Smallest Multiboot image: HLT at 1 MiB. Writes it to out (at least 64 bytes) and returns its length. */
size_t fuzz_image(uint8_t *out, const void *code, size_t len);
/* A machine of `ram_mib` with the image of `code`, silent. */
struct machine *fuzz_machine(const struct fuzz *f, enum machine_mmu mmu, unsigned ram_mib, const void *code,
                             size_t len);
/* The same, every block compiled before its first run, into little memory. */
struct machine *fuzz_machine_jit(const struct fuzz *f, enum machine_mmu mmu, unsigned ram_mib, const void *code,
                                 size_t len);
/* Runs the boot vCPU, timers included, up to the position `target` or as far as this guest can get (halted for good,
 * shut down). With chunk, in pieces of random size. No progress is a failure. */
void fuzz_run(const struct fuzz *f, struct machine *m, uint64_t target, struct rng *chunk);
void fuzz_audit(const struct fuzz *f, struct machine *m);
/* Two machines that did the same must be equal: else a failure, which names the sections of their state that differ.
 * `when` is for the message. */
void fuzz_same_state(const struct fuzz *f, const struct machine *a, const struct machine *b, const char *when);

#endif
