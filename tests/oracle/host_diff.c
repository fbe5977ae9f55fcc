/*
 * The host's processor as the oracle: random instructions and short sequences from optable.def, run natively and by an
 * engine of Umbra's from the same state; registers, flags, memory, x87, SSE and AVX state and faults must agree.
 *
 *   host_diff [cases [seed [instruction]]]     20,000 cases by default, 20 million with UMBRA_LONG=1; HOST_DIFF_CASES
 *                                              and HOST_DIFF_SEED do the same
 *   HOST_DIFF_AT=N                             from case N on
 *   HOST_DIFF_JIT=1                            the JIT instead of the interpreter
 *   HOST_DIFF_BRIEF=1                          a line a difference, and go on
 *
 * Exit status: 0 all cases agree, 1 some do not or the host did not survive them, 2 the command line is wrong.
 *
 * See oracle.h. What the host lacks is named and left out; what it is not asked is in exclude.c; differences that are
 * right as they are, in known.def.
 */
#include "tests/oracle/oracle.h"

#include <cpuid.h>
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH 1024u

static _Noreturn void usage(const char *what, const char *text)
{
    printf(
        "host_diff: %s '%s'\nusage: host_diff [cases [seed [instruction]]], numbers from 0 on and at least one case\n",
        what, text);
    exit(2);
}

static uint64_t number(const char *what, const char *text)
{
    char *end;
    errno = 0;
    uint64_t n = strtoull(text, &end, 0);
    if (!isdigit((unsigned char)*text) || *end || errno)
        usage(what, text);
    return n;
}

static uint64_t setting(int argc, char **argv, int arg, const char *env, uint64_t otherwise)
{
    if (argc > arg)
        return number(env, argv[arg]);
    return getenv(env) ? number(env, getenv(env)) : otherwise;
}

/* ---- what the host has ---- */

static uint32_t host_word(enum cpuid_word w)
{
    static const struct {
        uint32_t leaf, subleaf;
        unsigned reg; /* EAX, EBX, ECX, EDX */
    } where[CPUID_WORDS] = {
        [CPUID_1_EDX] = {1, 0, 3},           [CPUID_1_ECX] = {1, 0, 2},  [CPUID_7_EBX] = {7, 0, 1},
        [CPUID_7_ECX] = {7, 0, 2},           [CPUID_7_EDX] = {7, 0, 3},  [CPUID_81_EDX] = {0x80000001, 0, 3},
        [CPUID_81_ECX] = {0x80000001, 0, 2}, [CPUID_D1_EAX] = {13, 1, 0}};
    uint32_t r[4] = {0};
    return __get_cpuid_count(where[w].leaf, where[w].subleaf, &r[0], &r[1], &r[2], &r[3]) ? r[where[w].reg] : 0;
}

static bool host_has(enum cpu_feature f)
{
    static const struct {
        uint8_t word, bit;
    } bits[] = {
#define F(id, name, word, bit, offered, base, since, needs) {word, bit},
#include "cpu/features.def"
#undef F
    };
    return host_word(bits[f].word) >> bits[f].bit & 1;
}

static uint64_t host_gates(const struct cpu_model *model)
{
    uint64_t gates = 0;
    for (unsigned g = 0; g < GATE_COUNT; g++) {
        enum cpu_feature f = cpu_gate_feature(g);
        bool on = f == CPU_FEATURE_NONE || host_has(f);
        gates |= (uint64_t)on << g;
        if (!on && model->gates >> g & 1)
            printf("host_diff: the host lacks %s: its forms are left out\n", cpu_feature_name(f));
        if (f != CPU_FEATURE_NONE && on && !(model->gates >> g & 1))
            printf("host_diff: %s is not offered yet: its forms are left out\n", cpu_feature_name(f));
    }
    return gates;
}

/* ---- running ---- */

struct run {
    const struct oracle_engine *engine;
    void *e;
    struct generator *g;
    struct native *host;
    struct oracle_tally tally;
    uint64_t seed;
    struct oracle_result ours[BATCH];
};

/* Umbra's side, first: a case that reaches for memory of the host's own side is not one that the host can be asked. */
static void run_ours(struct run *r, const struct oracle_case *c, unsigned count, bool *ask)
{
    native_look(r->host);
    for (unsigned k = 0; k < count; k++) {
        r->engine->run(r->e, &c[k], &r->ours[k]);
        ask[k] = r->ours[k].vector != EXC_PF || !native_owns(r->host, r->ours[k].cr2);
    }
}

static void run_batch(struct run *r, uint64_t from, unsigned count)
{
    struct oracle_case *c = native_cases(r->host);
    bool ask[BATCH], ran[BATCH];
    for (unsigned k = 0; k < count; k++)
        generator_make(r->g, r->seed, from + k, &c[k]);
    run_ours(r, c, count, ask);
    memcpy(ran, ask, count * sizeof ran[0]);
    native_run(r->host, count, ran);
    for (unsigned k = 0; k < count && (r->tally.differences < 20 || r->tally.brief); k++) {
        if (!ran[k]) {
            r->tally.host_died += ask[k];
            r->tally.not_asked += !ask[k];
            continue;
        }
        if (!oracle_compare(&c[k], &native_results(r->host)[k], &r->ours[k], &r->tally))
            printf("  case %" PRIu64 " of seed %" PRIu64 "\n%s", from + k, r->seed, r->tally.brief ? "" : "\n");
    }
}

static struct run *run_create(const char *only)
{
    struct run *r = calloc(1, sizeof *r);
    if (!r)
        exit(2);
    r->engine = getenv("HOST_DIFF_JIT") ? &oracle_jit : &oracle_interp;
    r->e = r->engine->create("max");
    r->tally.brief = getenv("HOST_DIFF_BRIEF") != NULL;
    r->host = native_create(BATCH, host_has(CPU_FEATURE_AVX));
    r->g = generator_create(r->engine->model(r->e), host_gates(r->engine->model(r->e)), only);
    return r;
}

static void run_destroy(struct run *r)
{
    native_destroy(r->host);
    generator_destroy(r->g);
    r->engine->destroy(r->e);
    free(r);
}

int main(int argc, char **argv)
{
    const char *is_long = getenv("UMBRA_LONG"), *only = argc > 3 ? argv[3] : NULL;
    uint64_t usual = is_long && *is_long == '1' ? 20000000 : 20000;
    uint64_t cases = setting(argc, argv, 1, "HOST_DIFF_CASES", usual), at = setting(0, argv, 1, "HOST_DIFF_AT", 0);
    uint64_t seed = setting(argc, argv, 2, "HOST_DIFF_SEED", 1);
    if (argc > 4)
        usage("one argument too many:", argv[4]);
    if (!cases || cases > UINT64_MAX - at)
        usage("cases:", cases ? "too many" : "0");
    struct run *r = run_create(only);
    r->seed = seed;
    printf("host_diff: %u of %u forms\n", generator_forms(r->g), optable_form_count - 1);
    if (!generator_forms(r->g))
        usage("no form that host and model have is called", only ? only : "");
    for (uint64_t end = at + cases; at < end && (r->tally.differences < 20 || r->tally.brief); at += BATCH)
        run_batch(r, at, end - at < BATCH ? (unsigned)(end - at) : BATCH);
    oracle_print_tally(&r->tally);
    uint64_t failures = r->tally.differences + r->tally.host_died;
    printf("host_diff: %s, %" PRIu64 " cases, %" PRIu64 " failures\n", r->engine->name, r->tally.cases, failures);
    bool passed = failures == 0 && r->tally.cases > 0;
    run_destroy(r);
    return !passed;
}
