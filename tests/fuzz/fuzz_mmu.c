/* The sessions of the MMU fuzzer; see fuzz_mmu.h. */
#include "fuzz_mmu.h"
#include "core/host/chaos.h"
#include "core/host/swap.h"
#include "core/stats.h"
#include "mmu/dirty.h"
#include "mmu/ept/ept.h"
#include "mmu/ept/ept_entry.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define STEPS        2000 /* a session */
#define LONG_SECONDS 600
#ifdef __SANITIZE_ADDRESS__
#define LONG_SESSIONS 0 /* by time alone */
#else
#define LONG_SESSIONS 5000 /* 10 million steps */
#endif
#define POOL_FRAMES 16384

unsigned below(struct pair *p, unsigned n)
{
    return (unsigned)rng_below(p->rng, n);
}

bool chance(struct pair *p, unsigned percent)
{
    return below(p, 100) < percent;
}

void note(const struct pair *p, const char *fmt, ...)
{
    if (!p->f->verbose)
        return;
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "%lu: ", p->step);
    vfprintf(stderr, fmt, ap);
    fprintf(stderr, "\n");
    va_end(ap);
}

void store_both(struct pair *p, unsigned as, gpa_t gpa, const void *bytes, size_t len, enum mem_kind kind)
{
    uint8_t copy[64];
    memcpy(copy, bytes, len);
    mem_access(p->tested.mem, as, gpa, copy, len, kind, true, 0);
    mem_access(p->walk.mem, as, gpa, copy, len, kind, true, 0);
}

uint64_t page_hash(const struct side *s, gfn_t gfn)
{
    uint64_t words[512], hash = 0;
    mem_access(s->mem, 0, (gfn << PAGE_SHIFT), words, sizeof words, MEM_PEEK, false, 0);
    for (unsigned i = 0; i < ARRAY_LEN(words); i++)
        hash = (hash ^ words[i]) * 0x9e3779b97f4a7c15ull + (hash >> 29);
    return hash;
}

/* ---- machines ---- */

static hva_t map(struct side *s, uint64_t pages)
{
    return host_mm_mmap_anon(s->mm, pages * 4096, HOST_READ | HOST_WRITE);
}

static void side_open(struct pair *p, struct side *s, enum mmu_kind kind, uint64_t max_pages, bool unsync)
{
    char err[200] = "";
    s->pool = frame_pool_create(POOL_FRAMES, err, sizeof err);
    if (!s->pool)
        fuzz_fail(p->f, "%s", err);
    s->mm = host_mm_create(s->pool);
    s->ram = map(s, 512);
    s->rom = map(s, ROM_PAGES);
    s->extra = map(s, EXTRA_PAGES);
    s->big = map(s, BIG_PAGES);
    s->smm = map(s, RAM_PAGES);
    bus_init(&s->bus, "mmio", 0, NULL);
    s->mem = mem_create(&(struct mem_config){.mm = s->mm, .mmio = &s->bus});
    int error = mem_slot_add(s->mem, 0, 0, RAM_PAGES * 4096, s->ram, MEMSLOT_RAM) |
                mem_slot_add(s->mem, 0, ROM_FIRST * 4096, ROM_PAGES * 4096, s->rom, MEMSLOT_ROM) |
                mem_slot_add(s->mem, 0, BIG_FIRST * 4096, BIG_PAGES * 4096, s->big, MEMSLOT_RAM) |
                mem_slot_add(s->mem, SMM, 0, RAM_PAGES * 4096, s->smm, MEMSLOT_RAM);
    if (error)
        fuzz_fail(p->f, "memslots: %s", memslot_error_text(error));
    s->mmu = mmu_create(&(struct mmu_config){
        .kind = kind, .mem = s->mem, .vcpus = VCPUS, .max_shadow_pages = max_pages, .unsync = unsync});
    for (unsigned i = 0; i < VCPUS; i++)
        s->v[i] = mmu_vcpu_get(s->mmu, i);
}

static void side_close(struct side *s)
{
    mmu_destroy(s->mmu);
    mem_destroy(s->mem);
    bus_fini(&s->bus);
    host_mm_destroy(s->mm);
    frame_pool_destroy(s->pool);
}

static void ept_setup(struct pair *p)
{
    struct mmu *mmu = p->tested.mmu;
    ept_configure(mmu, &(struct ept_config){.levels = chance(p, 50) ? 5 : 4, .ad = chance(p, 60), .x_only = true});
    p->pml = chance(p, 50) && ept_dirty_log_start(mmu);
    if (chance(p, 50))
        return;
    ept_restrict(mmu, 0, 3, 1, EPT_R);
    ept_restrict(mmu, 0, 7, 1, EPT_R | EPT_X);
    ept_restrict(mmu, 0, 12, 1, EPT_X);
    ept_restrict(mmu, 0, 20, 1, EPT_R | EPT_W);
    ept_restrict(mmu, 0, 21, 1, 0);
}

/* Everything that a host can do: from swap to a limit that does not let half of it be resident. */
static void host_setup(struct pair *p)
{
    char err[200] = "";
    struct host_chaos_config c = {.seed = rng_next(p->rng), .rate = 1000, .ops = CHAOS_ALL};
    p->swap = swap_store_create(&(struct swap_config){.memory_bytes = 32u << 20}, err, sizeof err);
    if (!p->swap || host_mm_set_swap(p->tested.mm, p->swap))
        fuzz_fail(p->f, "no swap store: %s", err);
    p->chaos = host_chaos_create(p->tested.mm, NULL, &c);
    if (chance(p, 40) && host_mm_set_limit(p->tested.mm, 64 + below(p, 64)))
        fuzz_fail(p->f, "no limit");
}

static void tables_fill(struct pair *p)
{
    for (unsigned i = 0; i < TABLES * 512; i++) {
        uint64_t e = random_entry(p, 8);
        store_both(p, i % 8 ? 0 : SMM, 4096 + i * 8, &e, 8, MEM_GUEST);
    }
}

static void pair_open(struct pair *p)
{
    uint64_t max_pages = chance(p, 30) ? 16 : 32 + below(p, 64);
    p->mix = (enum mix)(p->f->session / 3 % MIXES);
    p->kind = p->f->session % 3 == 2 ? MMU_EPT : MMU_SHADOW;
    p->unsync = p->f->session % 3 == 1;
    p->extra_at = EXTRA_FIRST * 4096;
    p->big_present = true;
    side_open(p, &p->tested, p->kind, p->kind == MMU_EPT ? max_pages + 48 : max_pages, p->unsync);
    side_open(p, &p->walk, MMU_WALK, 0, false);
    host_setup(p);
    if (p->kind == MMU_EPT)
        ept_setup(p);
    p->rings = chance(p, 30) && mem_dirty_rings_create(p->tested.mem, VCPUS, 64);
    tables_fill(p);
    for (unsigned i = 0; i < VCPUS; i++) {
        p->regs[i] = (struct paging_regs){.cr0 = CR0_PE,
                                          .cr3 = 4096,
                                          .a20_mask = ~0ull,
                                          .maxphyaddr = 40,
                                          .features = PAGING_HAS_1G | PAGING_HAS_PSE36};
        guest_choose_format(p, i);
        guest_load(p, i);
    }
}

static void pair_close(struct pair *p)
{
    host_chaos_destroy(p->chaos);
    side_close(&p->tested);
    side_close(&p->walk);
    swap_store_put(p->swap);
}

/* ---- checking ---- */

static void compare_pages(struct pair *p, gfn_t first, unsigned pages)
{
    uint64_t a[512], b[512];
    for (gfn_t gfn = first; gfn < first + pages; gfn++) {
        mem_access(p->tested.mem, 0, (gfn << PAGE_SHIFT), a, sizeof a, MEM_PEEK, false, 0);
        mem_access(p->walk.mem, 0, (gfn << PAGE_SHIFT), b, sizeof b, MEM_PEEK, false, 0);
        for (unsigned k = 0; k < 512 && memcmp(a, b, sizeof a) != 0; k++) {
            if (a[k] != b[k])
                fuzz_fail(p->f, "step %lu: memory at %llx: tested %llx, walk %llx", p->step,
                          (unsigned long long)((gfn << PAGE_SHIFT) + k * 8), (unsigned long long)a[k],
                          (unsigned long long)b[k]);
        }
    }
}

static void audit_line(void *ctx, const char *line)
{
    fprintf(stderr, "audit: %s\n", line);
}

static void audit(struct pair *p, const struct side *s, bool full)
{
    if (mmu_audit(s->mmu, full, audit_line, NULL))
        fuzz_fail(p->f, "step %lu: the audit of the %s side finds violations", p->step,
                  s == &p->walk ? "walking" : "tested");
}

static void check(struct pair *p)
{
    bool full = p->step % 64 == 0;
    audit(p, &p->tested, full);
    if (full)
        audit(p, &p->walk, true);
    compare_pages(p, 1, TABLES);
    if (full)
        compare_pages(p, 0, EXTRA_FIRST + EXTRA_PAGES + 8);
}

/* ---- sessions ---- */

#define MANY_SESSIONS 60

/* With `unsync=on` tables must go out of sync, without it roots must have their upper halves in common, or the sessions
 * that are for it try nothing. */
static void count_met(struct pair *p)
{
    bool found, many = p->f->work / STEPS >= MANY_SESSIONS;
    struct stats stats;
    stats_init(&stats);
    mmu_register_stats(p->tested.mmu, &stats);
    p->f->met[0] += stats_get(&stats, "shadow.unsyncs", &found);
    p->f->met[1] += stats_get(&stats, "shadow.commons", &found);
    stats_fini(&stats);
    if (many && p->f->met[0] < MANY_SESSIONS)
        fuzz_fail(p->f, "hardly a table went out of sync");
    if (many && p->f->met[1] < MANY_SESSIONS / 6) /* about one session in six can have such roots */
        fuzz_fail(p->f, "roots had their upper halves in common only %lu times", (unsigned long)p->f->met[1]);
}

/* `accesses`: how many steps of a hundred are accesses; most of the others edit tables. */
static void step_any(struct pair *p, unsigned accesses)
{
    unsigned k = below(p, 100);
    if (below(p, 100) < accesses)
        step_access(p);
    else if (k < 30)
        step_edit_table(p);
    else if (k < 65)
        step_tweak_entry(p);
    else if (k < 68)
        step_odd_store(p);
    else if (k < 72)
        step_fork(p);
    else if (k < 82)
        step_registers(p);
    else
        step_host(p);
    if (host_mm_wants_safe_point(p->tested.mm) && host_mm_safe_point(p->tested.mm) != HOST_OK)
        fuzz_fail(p->f, "step %lu: no room in the swap store", p->step);
}

static void session(struct fuzz *f)
{
    struct pair *p = calloc(1, sizeof *p);
    if (!p)
        fuzz_fail(f, "out of memory");
    p->f = f;
    p->rng = &f->rng;
    pair_open(p);
    unsigned accesses = chance(p, 30) ? 40 : 70 + below(p, 20);
    for (p->step = 0; p->step < STEPS; p->step++) {
        step_any(p, accesses);
        check(p);
    }
    dirty_log_check(p);
    pml_check(p);
    count_met(p);
    compare_pages(p, BIG_FIRST, BIG_PAGES);
    pair_close(p);
    free(p);
    f->work += STEPS;
}

FUZZ_DRIVER("fuzz_mmu", session, LONG_SECONDS, LONG_SESSIONS)
