/*
 * The JIT: x86-64 guest code as x86-64 host code (docs/architecture.md, "The JIT").
 *
 * It stands beside the interpreter and shares everything with it: decoded blocks, the soft TLB, the handlers. A block
 * that has run often enough is compiled together with the blocks of its page that it leads to; what the translator does
 * not know natively, and every access that misses the TLB, is done by the interpreter's handler, called from compiled
 * code. So exactness has one home: registers, flags, memory, faults and position are the interpreter's to the
 * instruction.
 *
 * Contract: compiled code of a block is entered only while the block is in the code cache; blocks of a page are dropped
 * together, and compiled code jumps directly only inside a page. Nothing of it is saved in snapshots.
 */
#ifndef CPU_JIT_JIT_H
#define CPU_JIT_JIT_H

#include "cpu/code_cache.h"
#include "cpu/cpu.h"

struct jit;

#define JIT_HEAT_DEFAULT  40u
#define JIT_CACHE_DEFAULT (32ull << 20)
#define JIT_CACHE_MIN     (256ull << 10) /* a region fits, whatever is in it */
#define JIT_CACHE_MAX     (512ull << 20) /* code and records reach each other */

struct jit_config {
    const struct log *log; /* borrowed */
    unsigned heat;         /* runs of a block before it is compiled, at least 1; 0: JIT_HEAT_DEFAULT */
    FILE *perf_map;        /* where perf finds names for compiled code, or NULL; borrowed */
    /* Puts the name of a guest address into buf, if it has one. May be NULL. */
    void (*symbol)(void *ctx, uint64_t rip, char *buf, size_t size);
    void *symbol_ctx;
    size_t cache_bytes; /* for code, and as much again for records; whole pages; 0: JIT_CACHE_DEFAULT */
};

#ifdef UMBRA_NO_JIT

static inline struct jit *jit_create(const struct jit_config *cfg)
{
    (void)cfg;
    return NULL;
}
static inline void jit_destroy(struct jit *j)
{
    (void)j;
}
static inline void jit_register_stats(struct jit *j, struct stats *s)
{
    (void)j, (void)s;
}
static inline bool jit_warm(struct jit *j, struct vcpu *v, struct block *b)
{
    (void)j, (void)v, (void)b;
    return false;
}
static inline void jit_print_last(const struct jit *j, const struct code_cache *c, FILE *out)
{
    (void)j, (void)c, (void)out;
}
static inline void jit_print_forms(const struct jit *j, FILE *out)
{
    (void)j, (void)out;
}
static inline bool jit_run(struct jit *j, struct vcpu *v, struct block *b, uint64_t end)
{
    (void)j, (void)v, (void)b, (void)end;
    return false;
}

#else

/* NULL: this host cannot (not x86-64, built without it, no memory for code); the reason is logged. Shared by the
 * vCPUs of a machine, which take turns. */
struct jit *jit_create(const struct jit_config *cfg);
void jit_destroy(struct jit *j);
void jit_register_stats(struct jit *j, struct stats *s);

/* Called for a block that is about to run by the interpreter: counts, and compiles it when it is hot. True: it was
 * compiled now. */
bool jit_warm(struct jit *j, struct vcpu *v, struct block *b);

/* Runs the compiled code of b, which begins at v->rip, and what it leads to, at most until `end` (clock_now()). On
 * return v is exact at a boundary. False: nothing was run, the interpreter must run the block. May leave by
 * longjmp to v->fault_jmp like a handler. */
bool jit_run(struct jit *j, struct vcpu *v, struct block *b, uint64_t end);

/* Which instruction forms the handlers did for compiled code most often, a line each. j may be NULL. */
void jit_print_forms(const struct jit *j, FILE *out);

/* The blocks at which compiled code was entered last, with their guest code as far as it is still in the cache. j may
 * be NULL. */
void jit_print_last(const struct jit *j, const struct code_cache *c, FILE *out);

#endif
#endif
