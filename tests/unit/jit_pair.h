/*
 * Two rigs with the same code and state, one for the interpreter and one for the JIT, that run to the same positions.
 */
#ifndef TESTS_UNIT_JIT_PAIR_H
#define TESTS_UNIT_JIT_PAIR_H

#include "core/stats.h"
#include "cpu/jit/jit.h"

#include "cpu_rig.h"

struct pair {
    struct cpu_rig a, b; /* interpreter, JIT */
    struct jit *jit;
    struct stats stats;
};

static inline void pair_open_kind(struct pair *p, const char *model, enum mmu_kind kind,
                                  void (*mode)(struct cpu_rig *r), unsigned heat)
{
    memset(p, 0, sizeof *p);
    rig_open_kind(&p->a, model, kind);
    rig_open_kind(&p->b, model, kind);
    p->jit = jit_create(&(struct jit_config){.log = &p->b.log, .heat = heat, .cache_bytes = 1 << 20});
    ck_assert_ptr_nonnull(p->jit);
    stats_init(&p->stats);
    jit_register_stats(p->jit, &p->stats);
    p->b.v->jit = p->jit;
    mode(&p->a);
    mode(&p->b);
}

static inline void pair_open(struct pair *p, const char *model, void (*mode)(struct cpu_rig *r), unsigned heat)
{
    pair_open_kind(p, model, MMU_WALK, mode, heat);
}

static inline void pair_close(struct pair *p)
{
    rig_close(&p->a);
    rig_close(&p->b);
    stats_fini(&p->stats);
    jit_destroy(p->jit);
}

static inline uint64_t stat(struct pair *p, const char *name)
{
    bool found;
    uint64_t value = stats_get(&p->stats, name, &found);
    ck_assert(found);
    return value;
}

static inline struct cpu_rig *rig_of(struct pair *p, unsigned n)
{
    return n ? &p->b : &p->a;
}

static inline void put_code(struct pair *p, gpa_t gpa, const char *code, size_t len)
{
    for (unsigned n = 0; n < 2; n++)
        mem_access(rig_of(p, n)->mem, 0, gpa, (void *)(uintptr_t)code, len, MEM_HOST_POKE, true, BUS_NO_CPU);
}
#define PUT_CODE(p, gpa, code) put_code((p), (gpa), (code), sizeof(code) - 1)

static inline void go_to(struct pair *p, uint64_t rip)
{
    for (unsigned n = 0; n < 2; n++) {
        struct vcpu *v = rig_of(p, n)->v;
        v->rip = rip;
        v->activity = VCPU_RUNNING;
    }
}

/* Both up to the same position, or HLT. */
static inline void run_until(struct pair *p, uint64_t until)
{
    for (unsigned n = 0; n < 2; n++) {
        struct cpu_rig *r = rig_of(p, n);
        while (clock_now(&r->clock) < until && r->v->activity == VCPU_RUNNING)
            vcpu_run(r->v, until - clock_now(&r->clock));
    }
}

static inline void check_same(struct pair *p, const char *what)
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
    ck_assert_msg(memcmp(a->xmm, b->xmm, sizeof a->xmm) == 0, "%s: vectors", what);
}

/* From rip to HLT, cut every `units`. */
static inline void run_all(struct pair *p, uint64_t rip, uint64_t units, const char *what)
{
    go_to(p, rip);
    while (p->a.v->activity == VCPU_RUNNING) {
        run_until(p, clock_now(&p->a.clock) + units);
        check_same(p, what);
    }
}

/* ---- programs ---- */

static inline uint64_t next_random(uint64_t *rng)
{
    *rng ^= *rng << 13;
    *rng ^= *rng >> 7;
    *rng ^= *rng << 17;
    return *rng * 0x2545f4914f6cdd1dull >> 8;
}

static inline unsigned below(uint64_t *rng, unsigned n)
{
    return (unsigned)(next_random(rng) % n);
}

struct text {
    char bytes[1024];
    unsigned len;
};

static inline void add_bytes(struct text *t, const char *bytes, size_t len)
{
    memcpy(t->bytes + t->len, bytes, len);
    t->len += (unsigned)len;
}

static inline void add32(struct text *t, uint32_t x)
{
    add_bytes(t, (const char *)&x, 4);
}

#endif
