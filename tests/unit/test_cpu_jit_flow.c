/*
 * Control flow in compiled code against the interpreter: what ends a block there but not here, and what compiled code
 * remembers of where it went and of what CPUID said.
 */
#include "core/stats.h"
#include "cpu/code_cache.h"
#include "cpu/cpuid.h"
#include "cpu/jit/jit.h"

#include "cpu_rig.h"

struct pair {
    struct cpu_rig a, b; /* interpreter, JIT */
    struct jit *jit;
    struct stats stats;
};

static void pair_open(struct pair *p, const char *model, void (*mode)(struct cpu_rig *r))
{
    memset(p, 0, sizeof *p);
    rig_open_model(&p->a, model);
    rig_open_model(&p->b, model);
    p->jit = jit_create(&(struct jit_config){.log = &p->b.log, .heat = 1, .cache_bytes = 1 << 20});
    ck_assert_ptr_nonnull(p->jit);
    stats_init(&p->stats);
    jit_register_stats(p->jit, &p->stats);
    p->b.v->jit = p->jit;
    mode(&p->a);
    mode(&p->b);
}

static void pair_close(struct pair *p)
{
    rig_close(&p->a);
    rig_close(&p->b);
    stats_fini(&p->stats);
    jit_destroy(p->jit);
}

static uint64_t stat(struct pair *p, const char *name)
{
    bool found;
    uint64_t value = stats_get(&p->stats, name, &found);
    ck_assert(found);
    return value;
}

static struct cpu_rig *rig_of(struct pair *p, unsigned n)
{
    return n ? &p->b : &p->a;
}

static void put_code(struct pair *p, gpa_t gpa, const char *code, size_t len)
{
    for (unsigned n = 0; n < 2; n++)
        mem_access(rig_of(p, n)->mem, 0, gpa, (void *)(uintptr_t)code, len, MEM_HOST_POKE, true, BUS_NO_CPU);
}
#define PUT_CODE(p, gpa, code) put_code((p), (gpa), (code), sizeof(code) - 1)

static void go_to(struct pair *p, uint64_t rip)
{
    for (unsigned n = 0; n < 2; n++) {
        struct vcpu *v = rig_of(p, n)->v;
        v->rip = rip;
        v->activity = VCPU_RUNNING;
    }
}

/* Both up to the same position, or HLT. */
static void run_until(struct pair *p, uint64_t until)
{
    for (unsigned n = 0; n < 2; n++) {
        struct cpu_rig *r = rig_of(p, n);
        while (clock_now(&r->clock) < until && r->v->activity == VCPU_RUNNING)
            vcpu_run(r->v, until - clock_now(&r->clock));
    }
}

static void check_same(struct pair *p, const char *what)
{
    const struct vcpu *a = p->a.v, *b = p->b.v;
    ck_assert_msg(a->rip == b->rip, "%s: rip %llx, JIT %llx", what, (unsigned long long)a->rip,
                  (unsigned long long)b->rip);
    for (unsigned n = 0; n < 16; n++)
        ck_assert_msg(a->gpr[n] == b->gpr[n], "%s: register %u is %llx, JIT %llx", what, n,
                      (unsigned long long)a->gpr[n], (unsigned long long)b->gpr[n]);
    ck_assert_msg(vcpu_rflags(a) == vcpu_rflags(b), "%s: flags %llx, JIT %llx", what,
                  (unsigned long long)vcpu_rflags(a), (unsigned long long)vcpu_rflags(b));
    ck_assert_msg(clock_now(&p->a.clock) == clock_now(&p->b.clock) && p->a.clock.icount == p->b.clock.icount,
                  "%s: position %llu, JIT %llu", what, (unsigned long long)clock_now(&p->a.clock),
                  (unsigned long long)clock_now(&p->b.clock));
    ck_assert_int_eq(a->activity, b->activity);
}

/* From rip to HLT, cut every `units`. */
static void run_all(struct pair *p, uint64_t rip, uint64_t units, const char *what)
{
    go_to(p, rip);
    while (p->a.v->activity == VCPU_RUNNING) {
        run_until(p, clock_now(&p->a.clock) + units);
        check_same(p, what);
    }
}

/* ---- CPUID, RDTSCP ---- */

static void compatibility_mode(struct cpu_rig *r)
{
    rig_long(r);
    rig_set_cpl(r, SEL_CODE32_0, SEL_DATA0, 0);
}

static const uint32_t leaves[][2] = {{0, 0},          {0, 7},    {1, 0},          {2, 0},          {4, 0},
                                     {4, 3},          {6, 0},    {7, 0},          {7, 1},          {0xb, 0},
                                     {0xb, 1},        {0xd, 0},  {0xd, 1},        {0xd, 2},        {0xd, 9},
                                     {0x15, 0},       {0x16, 0}, {0x40000000, 0}, {0x80000000, 0}, {0x80000001, 0},
                                     {0x80000002, 0}, {16, 0},   {17, 0},         {0, 16},         {0xffffffff, 1}};

/* Those that show registers; no two share a place among the answers. */
static const uint32_t changing[][2] = {{1, 0}, {7, 0}, {0xd, 0}, {0xd, 1}};

static void ask(struct pair *p, const uint32_t *leaf, uint64_t units)
{
    uint32_t out[4];
    vcpu_cpuid(p->b.v, leaf[0], leaf[1], out);
    for (unsigned n = 0; n < 2; n++) {
        uint64_t *gpr = rig_of(p, n)->v->gpr;
        gpr[REG_RAX] = leaf[0] | 0xabcd00000000;
        gpr[REG_RCX] = leaf[1] | 0x123400000000;
    }
    run_all(p, RIG_CODE, units, "cpuid");
    const uint64_t *gpr = p->b.v->gpr;
    uint32_t got[] = {(uint32_t)gpr[REG_RSI], (uint32_t)gpr[REG_RBX], (uint32_t)gpr[REG_RCX], (uint32_t)gpr[REG_RDX]};
    ck_assert_msg(memcmp(got, out, sizeof out) == 0, "leaf %x, %x: %x %x %x %x", leaf[0], leaf[1], got[0], got[1],
                  got[2], got[3]);
}

static void ask_in_all_circumstances(struct pair *p)
{
    PUT_CODE(p, RIG_CODE, "\x90\xf9\x0f\xa2\x89\xc6\xf4"); /* nop; stc; cpuid; mov esi, eax; hlt */
    for (unsigned number = 0; number < 32; number++) {
        unsigned k = number ^ number >> 1; /* one thing changes at a time */
        for (unsigned n = 0; n < 2; n++) {
            struct vcpu *v = rig_of(p, n)->v;
            v->cr4 = (v->cr4 & ~(uint64_t)(CR4_OSXSAVE | CR4_PKE)) | (k & 1 ? CR4_OSXSAVE : 0) | (k & 2 ? CR4_PKE : 0);
            v->xcr0 = k & 4 ? 7 : 1;
            v->msr.xss = k & 8 ? XSTATE_PKRU : 0;
        }
        for (unsigned n = 0; n < ARRAY_LEN(leaves) && number % 8 == 3; n++)
            ask(p, leaves[n], 1 + 20 * (n % 7));
        for (unsigned n = 0; n < 2 * ARRAY_LEN(changing); n++)
            ask(p, changing[n % ARRAY_LEN(changing)], 1000);
    }
}

START_TEST(cpuid_answers_as_the_registers_are_now)
{
    struct pair p;
    pair_open(&p, "max", rig_long);
    ask_in_all_circumstances(&p);
    for (unsigned n = 0; n < 2; n++)
        rig_set_cpl(rig_of(&p, n), SEL_CODE32_0, SEL_DATA0, 0);
    ask_in_all_circumstances(&p); /* SYSCALL is not shown there */
    for (unsigned n = 0; n < 2; n++)
        rig_user(rig_of(&p, n));
    ask_in_all_circumstances(&p);
    pair_close(&p);
    pair_open(&p, "base", compatibility_mode);
    ask_in_all_circumstances(&p);
    pair_close(&p);
}
END_TEST

START_TEST(cpuid_and_rdtscp_stay_in_compiled_code)
{
    struct pair p;
    pair_open(&p, "max", rig_long);
    /* 1: mov eax, 1; xor ecx, ecx; cpuid; add esi, edx; rdtscp; add rsi, rax; add rsi, rcx; dec edi; jnz 1b; hlt */
    PUT_CODE(&p, RIG_CODE,
             "\xb8\x01\0\0\0\x31\xc9\x0f\xa2\x01\xd6\x0f\x01\xf9\x48\x01\xc6\x48\x01\xce\xff\xcf\x75\xe8\xf4");
    uint64_t slow = 0;
    for (unsigned k = 0; k < 40; k++) {
        for (unsigned n = 0; n < 2; n++) {
            struct vcpu *v = rig_of(&p, n)->v;
            v->gpr[REG_RDI] = 50;
            v->gpr[REG_RSI] = 0;
            v->msr.tsc_aux = k / 3;
        }
        if (k == 39)
            slow = stat(&p, "jit.slow");
        run_all(&p, RIG_CODE, k == 39 ? 1000000 : 1 + 37 * k, "cpuid and rdtscp");
    }
    ck_assert_uint_le(stat(&p, "jit.slow") - slow, 1); /* HLT */
    pair_close(&p);
}
END_TEST

static Suite *suite(void)
{
    const TTest *const tests[] = {cpuid_answers_as_the_registers_are_now, cpuid_and_rdtscp_stay_in_compiled_code};
    return rig_suite("cpu: control flow in compiled code", tests, ARRAY_LEN(tests));
}

CHECK_MAIN(suite)
