/*
 * What the MMU suites set a machine's memory up with: a frame pool, a host_mm, guest RAM and one engine, without any
 * CPU.
 */
#ifndef TESTS_UNIT_MMU_RIG_H
#define TESTS_UNIT_MMU_RIG_H

#include "check_main.h"
#include "core/bus.h"
#include "core/host/host_mm.h"
#include "core/trace.h"
#include "mmu/engine.h"

#include <stdio.h>
#include <string.h>

#define PTE_P   1ull
#define PTE_W   2ull
#define PTE_U   4ull
#define PTE_A   0x20ull
#define PTE_D   0x40ull
#define PTE_PS  0x80ull
#define PTE_NX  (1ull << 63)
#define PTE_ALL (PTE_P | PTE_W | PTE_U)

struct rig {
    struct frame_pool *pool;
    struct host_mm *mm;
    struct bus bus;
    struct mem *mem;
    struct mmu *mmu;
    struct mmu_vcpu *v; /* vCPU 0 */
    struct paging_regs regs;
    hva_t hva;        /* of gpa 0 */
    char report[512]; /* first line of the last audit */
    unsigned lines;
};

struct rig_config {
    enum mmu_kind kind;
    uint64_t ram; /* bytes at gpa 0, backed by hvas from rig.hva; the hva range has twice that */
    unsigned vcpus;
    uint64_t max_shadow_pages;
    bool unsync;
    uint64_t frames; /* of the pool; 0: 65536 */
};

static inline void rig_report(void *ctx, const char *line)
{
    struct rig *r = ctx;
    if (!r->lines++)
        snprintf(r->report, sizeof r->report, "%s", line);
    if (getenv("UMBRA_TEST_VERBOSE"))
        fprintf(stderr, "%s\n", line);
}

static inline unsigned rig_audit(struct rig *r, bool full)
{
    r->lines = 0;
    r->report[0] = 0;
    return mmu_audit(r->mmu, full, rig_report, r);
}

static inline void rig_open(struct rig *r, const struct rig_config *c)
{
    char err[200] = "";
    memset(r, 0, sizeof *r);
    r->pool = frame_pool_create(c->frames ? c->frames : 65536, err, sizeof err);
    ck_assert_msg(r->pool != NULL, "%s", err);
    r->mm = host_mm_create(r->pool);
    r->hva = host_mm_mmap_anon(r->mm, 2 * c->ram, HOST_READ | HOST_WRITE);
    bus_init(&r->bus, "mmio", 0, NULL);
    r->mem = mem_create(&(struct mem_config){.mm = r->mm, .mmio = &r->bus});
    if (c->ram)
        ck_assert_int_eq(mem_slot_add(r->mem, 0, 0, c->ram, r->hva, MEMSLOT_RAM), 0);
    r->mmu = mmu_create(&(struct mmu_config){.kind = c->kind,
                                             .mem = r->mem,
                                             .vcpus = c->vcpus ? c->vcpus : 1,
                                             .max_shadow_pages = c->max_shadow_pages,
                                             .unsync = c->unsync});
    ck_assert_ptr_nonnull(r->mmu);
    r->v = mmu_vcpu_get(r->mmu, 0);
    r->regs = (struct paging_regs){
        .cr0 = CR0_PE, .a20_mask = ~0ull, .maxphyaddr = 40, .features = PAGING_HAS_1G | PAGING_HAS_PSE36};
}

static inline void rig_close(struct rig *r)
{
    mmu_destroy(r->mmu);
    mem_destroy(r->mem);
    bus_fini(&r->bus);
    host_mm_destroy(r->mm);
    frame_pool_destroy(r->pool);
}

static inline void rig_load(struct rig *r)
{
    mmu_vcpu_load(r->v, &r->regs);
}

static inline void rig_long_mode(struct rig *r, uint64_t cr3)
{
    r->regs.cr0 = CR0_PE | CR0_PG | CR0_WP;
    r->regs.cr4 = CR4_PAE;
    r->regs.efer = EFER_LME | EFER_LMA | EFER_NXE;
    r->regs.cr3 = cr3;
    rig_load(r);
}

/* A guest's store and load by physical address. */
static inline void rig_poke(struct rig *r, gpa_t gpa, uint64_t value, size_t size)
{
    mem_access(r->mem, 0, gpa, &value, size, MEM_GUEST, true, 0);
}

static inline void rig_put(struct rig *r, gpa_t gpa, uint64_t value)
{
    rig_poke(r, gpa, value, 8);
}

static inline uint64_t rig_get(struct rig *r, gpa_t gpa)
{
    uint64_t value = 0;
    mem_access(r->mem, 0, gpa, &value, 8, MEM_PEEK, false, 0);
    return value;
}

/* Maps gva to gpa with 4 KiB pages in 4-level tables: the PML4 at 0x1000, PDPT 0x2000, PD 0x3000, PT 0x4000. */
static inline void rig_map(struct rig *r, gva_t gva, gpa_t gpa, uint64_t bits)
{
    rig_put(r, 0x1000 + ((gva >> 39) & 511) * 8, 0x2000 | PTE_ALL);
    rig_put(r, 0x2000 + ((gva >> 30) & 511) * 8, 0x3000 | PTE_ALL);
    rig_put(r, 0x3000 + ((gva >> 21) & 511) * 8, 0x4000 | PTE_ALL);
    rig_put(r, 0x4000 + ((gva >> 12) & 511) * 8, gpa | bits);
}

static inline enum xlate_result rig_translate(struct rig *r, gva_t gva, unsigned access, struct xlate *x)
{
    memset(x, 0, sizeof *x);
    return mmu_translate(r->v, gva, access, x);
}

/* Expects the access to be permitted and to reach gpa. */
/* Reads or writes 8 bytes as a CPU does: by the TLB, else by a translation to the gpa that it must have. */
static inline uint64_t rig_access8(struct rig *r, gva_t gva, gpa_t gpa, bool write, uint64_t value)
{
    struct xlate x = {.gpa = gpa};
    void *host = write ? tlb_lookup_write(r->v, gva, 8) : tlb_lookup_read(r->v, gva, 8);
    if (!host) {
        ck_assert_int_eq(rig_translate(r, gva, write ? ACCESS_WRITE : ACCESS_READ, &x), XLATE_OK);
        ck_assert_uint_eq(x.gpa, gpa);
        host = x.host;
    }
    if (!host)
        mem_access(r->mem, 0, x.gpa, &value, 8, MEM_GUEST, write, 0);
    else
        memcpy(write ? host : &value, write ? &value : host, 8);
    return value;
}

/* Every invariant of the audit holds. */
static inline void rig_expect_sound(struct rig *r)
{
    ck_assert_msg(rig_audit(r, true) == 0, "%s", r->report);
}

static inline void rig_expect(struct rig *r, gva_t gva, unsigned access, gpa_t gpa)
{
    struct xlate x;
    ck_assert_int_eq(rig_translate(r, gva, access, &x), XLATE_OK);
    ck_assert_uint_eq(x.gpa, gpa);
}

static inline void rig_expect_fault(struct rig *r, gva_t gva, unsigned access, uint32_t error)
{
    struct xlate x;
    ck_assert_int_eq(rig_translate(r, gva, access, &x), XLATE_FAULT);
    ck_assert_uint_eq(x.error, error);
}

/* The narrowest place: gup has its frame, the MMU lock is not taken yet, and the host takes the frame back; as often as
 * `left` says. */
struct rig_taker {
    struct rig *r;
    struct trace trace;
    unsigned left;
};

static inline void rig_take_back(void *ctx, enum trace_id id, const uint64_t arg[4])
{
    struct rig_taker *t = ctx;
    if (t->left && t->left--)
        host_mm_dontneed(t->r->mm, arg[0], PAGE_SIZE);
}

static inline void rig_taker_begin(struct rig_taker *t, struct rig *r, unsigned times)
{
    *t = (struct rig_taker){.r = r, .left = times};
    trace_init(&t->trace, NULL);
    trace_listen(&t->trace, 1ull << TRACE_HOST_GUP, rig_take_back, t);
    host_mm_set_trace(r->mm, &t->trace);
}

static inline void rig_taker_end(struct rig_taker *t)
{
    host_mm_set_trace(t->r->mm, NULL);
    trace_fini(&t->trace);
}

#endif
