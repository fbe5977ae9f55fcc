/*
 * The oracle: cases, and what ran them made of them.
 *
 * A case is a few instructions of user code with all of a processor's user-visible state: registers, flags, x87,
 * vectors, memory. It runs natively in a child process (native.c), and on an engine of Umbra's (struct oracle_engine:
 * the interpreter in engine_interp.c; a JIT plugs in there), at the same addresses; the results are compared bit by bit
 * (compare.c).
 *
 * Addresses are the same on both sides. DATA is writable, RO and the page of code are not, and what is around them is
 * not mapped. Code begins at CODE_AT and goes on, when it is through, at the byte after it (EXIT_FALL) or at
 * BRANCH_TARGET (EXIT_TAKEN); anything else ends in a fault.
 */
#ifndef TESTS_ORACLE_ORACLE_H
#define TESTS_ORACLE_ORACLE_H

#include "core/types.h"
#include "cpu/cpuid.h"
#include "cpu/optable.h"

#define CONTROL_PAGE  0x35a00000u /* native.c's own */
#define CODE_PAGE     0x2a510000u
#define CODE_AT       (CODE_PAGE + 0x100u)
#define BRANCH_TARGET (CODE_AT + 0x60u)
#define DATA_AT       0x2a520000u
#define DATA_PAGES    4u
#define DATA_SIZE     (DATA_PAGES * 4096u)
#define RO_AT         (DATA_AT + DATA_SIZE) /* one page */
#define GS_BASE       (DATA_AT + 0x340u)    /* in 64-bit code */
#define CODE_MAX      80u
#define WINDOWS       4u
#define WINDOW_MAX    128u
#define CHANGES_MAX   128u
#define NO_VECTOR     0xff

/* XSAVE's standard format, as far as the upper halves of YMM. */
#define XSAVE_BYTES 832
struct oracle_state {
    uint64_t gpr[16], rip, flags;
    _Alignas(64) uint8_t xsave[XSAVE_BYTES];
};

/* Bytes put into DATA (or RO) before the run; where windows overlap the later one counts. */
struct oracle_window {
    uint32_t at, len;
    uint8_t bytes[WINDOW_MAX];
};

enum { EXIT_FALL, EXIT_TAKEN, EXIT_FAULT };

struct oracle_case {
    struct oracle_state in;
    uint8_t code[CODE_MAX];
    uint8_t len, insns;
    bool code32;   /* compatibility mode, else 64-bit mode */
    uint16_t form; /* row of the first (for most cases: the only) instruction */
    struct oracle_window window[WINDOWS];
};

struct oracle_result {
    struct oracle_state out;
    uint8_t exit, vector;
    uint32_t error;
    uint64_t cr2;
    /* Changed bytes of DATA: the first and the end, their values from the first on, and a hash of all between. */
    uint32_t mem_first, mem_end;
    uint64_t mem_hash;
    uint8_t mem[CHANGES_MAX];
};

/* What both sides begin every case with in DATA and RO. */
void oracle_fill_background(uint8_t *data, size_t len);
/* Finds what changed against `before`, puts it back, and fills the memory part of r. */
void oracle_take_changes(uint8_t *data, const uint8_t *before, struct oracle_result *r);
/* Offsets of windows that lie in DATA or RO (or across both) are put there. */
void oracle_put_windows(uint8_t *data, const struct oracle_case *c);
/* Components of the image that XSTATE_BV calls initial get their initial values. */
void oracle_normalise(uint8_t *xsave);

/* ---- the host (native.c) ---- */

struct native;
struct native *native_create(unsigned batch, bool has_avx);
void native_destroy(struct native *n);
struct oracle_case *native_cases(struct native *n);
struct oracle_result *native_results(struct native *n);
/* Does the native side have something of its own at this address (its control page, program, libraries, stack), where
 * an engine has nothing? As of the last native_look(). */
bool native_owns(const struct native *n, uint64_t at);
void native_look(struct native *n);
/* Runs those of cases 0..count-1 whose run[k] is set; it is cleared for those that the host did not survive (a report
 * is on stdout). */
void native_run(struct native *n, unsigned count, bool *run);

/* ---- engines ---- */

struct oracle_engine {
    const char *name;
    void *(*create)(const char *model);
    void (*destroy)(void *engine);
    const struct cpu_model *(*model)(void *engine);
    void (*run)(void *engine, const struct oracle_case *c, struct oracle_result *r);
};
extern const struct oracle_engine oracle_interp, oracle_jit;

/* ---- making cases (generate.c, values.c) ---- */

struct oracle_rng {
    uint64_t s;
};
uint64_t rng64(struct oracle_rng *r);
unsigned rng_below(struct oracle_rng *r, unsigned n);
static inline bool rng_one_in(struct oracle_rng *r, unsigned n)
{
    return rng_below(r, n) == 0;
}

enum value_kind { VALUE_BITS, VALUE_INT, VALUE_F32, VALUE_F64, VALUE_F80, VALUE_BCD, VALUE_SMALL, VALUE_KINDS };
/* Bytes of one kind: edges and random ones. */
void values_fill(struct oracle_rng *r, void *buf, size_t len, enum value_kind kind);
uint64_t value_int(struct oracle_rng *r);
/* x87, SSE and AVX registers and control words. */
void values_vector_state(struct oracle_rng *r, uint8_t *xsave, enum value_kind kind);

struct generator;
/* Forms that the model and the host (bits by enum op_gate) both have. */
struct generator *generator_create(const struct cpu_model *model, uint64_t host_gates, const char *only);
void generator_destroy(struct generator *g);
unsigned generator_forms(const struct generator *g);
/* Case number n of seed: a function of both. */
void generator_make(const struct generator *g, uint64_t seed, uint64_t n, struct oracle_case *c);

/* ---- comparing (compare.c) ---- */

struct oracle_tally {
    bool brief; /* a line a difference, and go on */
    uint64_t cases, not_asked, faults, differences, undefined_flags, host_died;
    uint64_t undefined_by_op[OP_COUNT], known[64], faults_by_vector[32];
};
/* True if the results agree or the difference is on the list (known.def); counts. Otherwise prints the case. */
bool oracle_compare(const struct oracle_case *c, const struct oracle_result *host, const struct oracle_result *ours,
                    struct oracle_tally *t);
void oracle_print_case(const struct oracle_case *c);
void oracle_print_tally(const struct oracle_tally *t);

#endif
