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
 * See oracle.h. What the host lacks is named and left out; what it is not asked is in exclude.c; differences that are
 * right as they are, in known.def.
 */
#include "tests/oracle/oracle.h"

#include <cpuid.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define BATCH 1024u

static uint64_t setting(int argc, char **argv, int arg, const char *env, uint64_t otherwise)
{
    const char *text = argc > arg ? argv[arg] : getenv(env);
    return text ? strtoull(text, NULL, 0) : otherwise;
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
};

static void run_batch(struct run *r, uint64_t from, unsigned count)
{
    struct oracle_case *c = native_cases(r->host);
    bool ran[BATCH];
    for (unsigned k = 0; k < count; k++)
        generator_make(r->g, r->seed, from + k, &c[k]);
    native_run(r->host, count, ran);
    for (unsigned k = 0; k < count && (r->tally.differences < 20 || r->tally.brief); k++) {
        struct oracle_result ours;
        if (!ran[k]) {
            r->tally.host_died++;
            continue;
        }
        r->engine->run(r->e, &c[k], &ours);
        if (!oracle_compare(&c[k], &native_results(r->host)[k], &ours, &r->tally))
            printf("  case %" PRIu64 " of seed %" PRIu64 "\n%s", from + k, r->seed, r->tally.brief ? "" : "\n");
    }
}

int main(int argc, char **argv)
{
    const char *is_long = getenv("UMBRA_LONG");
    uint64_t usual = is_long && *is_long == '1' ? 20000000 : 20000;
    uint64_t cases = setting(argc, argv, 1, "HOST_DIFF_CASES", usual), at = setting(0, argv, 1, "HOST_DIFF_AT", 0);
    struct run r = {.engine = getenv("HOST_DIFF_JIT") ? &oracle_jit : &oracle_interp,
                    .seed = setting(argc, argv, 2, "HOST_DIFF_SEED", 1)};
    r.e = r.engine->create("max");
    r.tally.brief = getenv("HOST_DIFF_BRIEF") != NULL;
    r.host = native_create(BATCH, host_has(CPU_FEATURE_AVX));
    r.g = generator_create(r.engine->model(r.e), host_gates(r.engine->model(r.e)), argc > 3 ? argv[3] : NULL);
    printf("host_diff: %u of %u forms\n", generator_forms(r.g), optable_form_count - 1);
    if (!generator_forms(r.g))
        return 2;
    for (uint64_t end = at + cases; at < end && (r.tally.differences < 20 || r.tally.brief); at += BATCH)
        run_batch(&r, at, end - at < BATCH ? (unsigned)(end - at) : BATCH);
    oracle_print_tally(&r.tally);
    printf("host_diff: %s, %" PRIu64 " cases, %" PRIu64 " failures\n", r.engine->name, r.tally.cases,
           r.tally.differences + r.tally.host_died);
    native_destroy(r.host);
    generator_destroy(r.g);
    r.engine->destroy(r.e);
    return r.tally.differences + r.tally.host_died != 0;
}
