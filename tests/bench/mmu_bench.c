/*
 * What the operations of the shadow MMU cost, in nanoseconds of host time. Built always, run by hand:
 *
 *   mmu_bench [runs]
 *
 * Each row is the median of `runs` (default 9) runs, each the mean of many repetitions; beside it the smallest run.
 */
#include "core/bus.h"
#include "core/host/host_ops.h"
#include "core/host/swap.h"
#include "mmu/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PTE_ALL    7ull
#define PTE_AD     0x60ull
#define RAM        (64ull << 20)
#define FAR        (1ull << 32) /* a slot of 1 GiB */
#define FAR_SIZE   (1ull << 30)
#define PML4       0x1000ull
#define TABLE_0    0x100000ull /* page tables: gva 2 MiB * i */
#define TABLES     64
#define DATA       0x800000ull
#define DATA_PAGES 8192u
#define MAX_RUNS   99

struct bench {
    struct frame_pool *pool;
    struct host_mm *mm;
    struct bus bus;
    struct mem *mem;
    struct mmu *mmu;
    struct mmu_vcpu *v;
    struct paging_regs regs;
    hva_t hva, far_hva;
    unsigned runs;
};

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void put(struct bench *b, gpa_t gpa, uint64_t value)
{
    mem_access(b->mem, 0, gpa, &value, 8, MEM_GUEST, true, 0);
}

static void touch(struct bench *b, gva_t gva, unsigned access)
{
    struct xlate x;
    if (mmu_translate(b->v, gva, access, &x) != XLATE_OK) {
        fprintf(stderr, "mmu_bench: unexpected page fault at 0x%llx\n", (unsigned long long)gva);
        exit(1);
    }
}

/* gva 2 MiB * t + 4 KiB * i maps page (t * 512 + i) of the data, modulo its size. */
static void build_tables(struct bench *b)
{
    put(b, PML4, 0x2000 | PTE_ALL | PTE_AD);
    put(b, 0x2000, 0x3000 | PTE_ALL | PTE_AD);
    for (unsigned t = 0; t < TABLES; t++) {
        put(b, 0x3000 + t * 8, (TABLE_0 + t * 4096) | PTE_ALL | PTE_AD);
        for (unsigned i = 0; i < 512; i++)
            put(b, TABLE_0 + t * 4096 + i * 8,
                (DATA + (uint64_t)((t * 512 + i) % DATA_PAGES) * 4096) | PTE_ALL | PTE_AD);
    }
}

static void open_bench(struct bench *b)
{
    char err[200] = "";
    b->pool = frame_pool_create(1u << 17, err, sizeof err);
    if (!b->pool) {
        fprintf(stderr, "mmu_bench: %s\n", err);
        exit(1);
    }
    b->mm = host_mm_create(b->pool);
    b->hva = host_mm_mmap_anon(b->mm, RAM, HOST_READ | HOST_WRITE);
    b->far_hva = host_mm_mmap_anon(b->mm, FAR_SIZE, HOST_READ | HOST_WRITE);
    struct swap_store *store = swap_store_create(&(struct swap_config){.memory_bytes = 16u << 20}, err, sizeof err);
    if (!store || host_mm_set_swap(b->mm, store) != HOST_OK) {
        fprintf(stderr, "mmu_bench: no swap store: %s\n", err);
        exit(1);
    }
    swap_store_put(store); /* the mm has it now */
    bus_init(&b->bus, "mmio", 0, NULL);
    b->mem = mem_create(&(struct mem_config){.mm = b->mm, .mmio = &b->bus});
    mem_slot_add(b->mem, 0, 0, RAM, b->hva, MEMSLOT_RAM);
    mem_slot_add(b->mem, 0, FAR, FAR_SIZE, b->far_hva, MEMSLOT_RAM);
    b->mmu = mmu_create(&(struct mmu_config){.kind = MMU_SHADOW, .mem = b->mem, .vcpus = 1});
    b->v = mmu_vcpu_get(b->mmu, 0);
    build_tables(b);
    b->regs = (struct paging_regs){.cr0 = CR0_PE | CR0_PG | CR0_WP,
                                   .cr3 = PML4,
                                   .cr4 = CR4_PAE,
                                   .efer = EFER_LME | EFER_LMA | EFER_NXE,
                                   .a20_mask = ~0ull,
                                   .maxphyaddr = 40,
                                   .features = PAGING_HAS_1G};
    mmu_vcpu_load(b->v, &b->regs);
}

static void close_bench(struct bench *b)
{
    mmu_destroy(b->mmu);
    mem_destroy(b->mem);
    bus_fini(&b->bus);
    host_mm_destroy(b->mm);
    frame_pool_destroy(b->pool);
}

/* ---- what is measured: each returns the nanoseconds of one operation ---- */

#define PAGES 2048u /* of gva, in which most rows work */

static void touch_pages(struct bench *b, unsigned access)
{
    for (unsigned i = 0; i < PAGES; i++)
        touch(b, (gva_t)i * 4096, access);
}

static double tlb_refill(struct bench *b)
{
    touch_pages(b, ACCESS_WRITE);
    tlb_flush_all(b->mmu);
    double t = now_ns();
    touch_pages(b, ACCESS_WRITE);
    return (now_ns() - t) / PAGES;
}

static double shadow_fault(struct bench *b)
{
    touch_pages(b, ACCESS_WRITE);
    mmu_zap_all(b->mmu);
    double t = now_ns();
    touch_pages(b, ACCESS_WRITE);
    return (now_ns() - t) / PAGES;
}

/* The guest changes an entry in use: write, the spte and its TLB entry go, and (in the next row) it is used again. */
static double tracked_write(struct bench *b)
{
    double sum = 0;
    for (unsigned k = 0; k < 64; k++) {
        for (unsigned i = 0; i < 4; i++)
            touch(b, i * 4096, ACCESS_WRITE);
        double t = now_ns();
        for (unsigned i = 0; i < 4; i++)
            put(b, TABLE_0 + i * 8, (DATA + (k + i) % 64 * 4096) | PTE_ALL | PTE_AD);
        sum += now_ns() - t;
    }
    return sum / 256;
}

static double tracked_write_and_fault(struct bench *b)
{
    double t = now_ns();
    for (unsigned k = 0; k < 256; k++) {
        put(b, TABLE_0, (DATA + k % 64 * 4096) | PTE_ALL | PTE_AD);
        touch(b, 0, ACCESS_WRITE);
    }
    return (now_ns() - t) / 256;
}

static void load_cr3(struct bench *b, uint64_t cr3)
{
    b->regs.cr3 = cr3;
    mmu_vcpu_load(b->v, &b->regs);
}

static double cr3_cached(struct bench *b)
{
    put(b, 0x8000, 0x2000 | PTE_ALL | PTE_AD);
    double t = now_ns();
    for (unsigned k = 0; k < 4096; k++)
        load_cr3(b, k & 1 ? 0x8000 : PML4);
    t = (now_ns() - t) / 4096;
    load_cr3(b, PML4);
    return t;
}

/* A root that was never seen, with its first access. */
static double cr3_new(struct bench *b)
{
    for (unsigned k = 0; k < 16; k++)
        put(b, 0x10000 + k * 4096, 0x2000 | PTE_ALL | PTE_AD);
    load_cr3(b, PML4);
    mmu_zap_all(b->mmu);
    touch(b, 0, ACCESS_READ);
    double t = now_ns();
    for (unsigned k = 0; k < 16; k++) {
        load_cr3(b, 0x10000 + k * 4096);
        touch(b, 0, ACCESS_READ);
    }
    t = (now_ns() - t) / 16;
    load_cr3(b, PML4);
    return t;
}

static double invlpg(struct bench *b)
{
    touch_pages(b, ACCESS_WRITE);
    double t = now_ns();
    for (unsigned i = 0; i < PAGES; i++)
        mmu_guest_flush(b->v, GUEST_FLUSH_PAGE, (gva_t)i * 4096);
    return (now_ns() - t) / PAGES;
}

/* n mappings, zapped by one invalidation of just their range. */
static double zap(struct bench *b, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        touch(b, (gva_t)i * 4096, ACCESS_READ);
    uint64_t len = (uint64_t)(n < DATA_PAGES ? n : DATA_PAGES) * 4096;
    struct notify_range range = {
        .mm = b->mm, .start = b->hva + DATA, .end = b->hva + DATA + len, .flags = NOTIFY_BLOCKABLE};
    double t = now_ns();
    notify_invalidate_range_start(&range);
    notify_invalidate_range_end(&range);
    return now_ns() - t;
}

static double zap_1(struct bench *b)
{
    return zap(b, 1);
}

static double zap_100(struct bench *b)
{
    return zap(b, 100);
}

static double zap_10(struct bench *b)
{
    return zap(b, 10);
}

static double zap_10000(struct bench *b)
{
    return zap(b, 10000);
}

/* 1 GiB of gfns of which 10 are mapped. */
static double zap_sparse(struct bench *b)
{
    gpa_t table = TABLE_0 + (TABLES - 1) * 4096;
    gva_t gva = (gva_t)(TABLES - 1) << 21;
    for (unsigned i = 0; i < 10; i++) {
        put(b, table + i * 8, (FAR + i * (FAR_SIZE / 10 & ~4095ull)) | PTE_ALL | PTE_AD);
        touch(b, gva + i * 4096, ACCESS_WRITE);
    }
    struct notify_range range = {
        .mm = b->mm, .start = b->far_hva, .end = b->far_hva + FAR_SIZE, .flags = NOTIFY_BLOCKABLE};
    double t = now_ns();
    notify_invalidate_range_start(&range);
    notify_invalidate_range_end(&range);
    return now_ns() - t;
}

static double gup(struct bench *b)
{
    struct gup_result g;
    double t = now_ns();
    for (unsigned i = 0; i < PAGES; i++)
        host_mm_gup(b->mm, b->hva + DATA + (uint64_t)i * 4096, true, &g);
    return (now_ns() - t) / PAGES;
}

/* Pages of the data beyond those that most rows map: bytes that compress about as program data does. */
#define COLD       (DATA + (uint64_t)PAGES * 4096)
#define COLD_PAGES 256u

static void cold_fill(struct bench *b)
{
    for (unsigned i = 0; i < COLD_PAGES; i++)
        for (unsigned k = 0; k < 512; k++)
            put(b, COLD + i * 4096 + k * 8, (uint64_t)(i * 7 + k) * 0x9e3779b97f4a7c15ull >> 44);
}

/* gup, for writing, of pages that are in the compressed store. */
static double swap_in(struct bench *b)
{
    struct gup_result g;
    cold_fill(b);
    for (unsigned i = 0; i < COLD_PAGES; i++)
        if (host_mm_swap_out(b->mm, b->hva + COLD + i * 4096) != HOST_OK) {
            fprintf(stderr, "mmu_bench: a page cannot be swapped out\n");
            exit(1);
        }
    double t = now_ns();
    for (unsigned i = 0; i < COLD_PAGES; i++)
        host_mm_gup(b->mm, b->hva + COLD + i * 4096, true, &g);
    return (now_ns() - t) / COLD_PAGES;
}

/* gup, for writing, of pages that a child shares since a fork: a copy, with its invalidation. */
static double cow_break(struct bench *b)
{
    struct gup_result g;
    cold_fill(b);
    struct host_mm *child = host_mm_fork(b->mm);
    if (!child) {
        fprintf(stderr, "mmu_bench: no memory for a fork\n");
        exit(1);
    }
    double t = now_ns();
    for (unsigned i = 0; i < COLD_PAGES; i++)
        host_mm_gup(b->mm, b->hva + COLD + i * 4096, true, &g);
    t = (now_ns() - t) / COLD_PAGES;
    host_mm_destroy(child);
    return t;
}

static double zap_all(struct bench *b)
{
    touch_pages(b, ACCESS_WRITE);
    double t = now_ns();
    mmu_zap_all(b->mmu);
    return now_ns() - t;
}

/* ---- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void row(struct bench *b, const char *name, double (*fn)(struct bench *b))
{
    double ns[MAX_RUNS];
    fn(b); /* the first one warms up */
    for (unsigned i = 0; i < b->runs; i++)
        ns[i] = fn(b);
    qsort(ns, b->runs, sizeof ns[0], by_value);
    printf("%-52s %12.1f ns  (best %.1f)\n", name, ns[b->runs / 2], ns[0]);
}

int main(int argc, char **argv)
{
    struct bench b = {.runs = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 0) : 9};
    if (!b.runs || b.runs > MAX_RUNS) {
        fprintf(stderr, "usage: mmu_bench [runs, 1 to %d]\n", MAX_RUNS);
        return 2;
    }
    open_bench(&b);
    row(&b, "TLB refill from the shadow", tlb_refill);
    row(&b, "shadow fault (all dropped before)", shadow_fault);
    row(&b, "tracked write that drops an spte", tracked_write);
    row(&b, "tracked write, then the fault that follows", tracked_write_and_fault);
    row(&b, "CR3 switch to a cached root", cr3_cached);
    row(&b, "CR3 switch to a new root, and one access", cr3_new);
    row(&b, "INVLPG", invlpg);
    row(&b, "invalidation of a range with 1 mapping", zap_1);
    row(&b, "invalidation of a range with 10 mappings", zap_10);
    row(&b, "invalidation of a range with 100 mappings", zap_100);
    row(&b, "invalidation of a range with 10,000 mappings", zap_10000);
    row(&b, "invalidation of 1 GiB with 10 mappings", zap_sparse);
    row(&b, "gup of a present page", gup);
    row(&b, "swap-in of a page (compressed store)", swap_in);
    row(&b, "copy-on-write break of a page", cow_break);
    row(&b, "dropping everything (2,048 mappings)", zap_all);
    close_bench(&b);
    return 0;
}
