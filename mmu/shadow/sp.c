/* Shadow pages: arena, hash, active list; see sp.h. */
#include "mmu/shadow/sp.h"

#include <stdlib.h>
#include <sys/mman.h>

#define SP_LIMIT_DEFAULT 16384
#define SP_LIMIT_MIN     16 /* one fault needs 8 */
#define SP_LIMIT_MAX     (1u << 24)

static void *arena_map(size_t len)
{
    void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static void arena_unmap(void *p, size_t len)
{
    if (p)
        munmap(p, len);
}

static size_t table_bytes(const struct shadow *sh)
{
    return (size_t)sh->limit * SP_ENTRIES * sizeof(uint64_t);
}

int sp_arena_init(struct shadow *sh, uint64_t limit)
{
    if (!limit)
        limit = SP_LIMIT_DEFAULT;
    if (limit < SP_LIMIT_MIN)
        limit = SP_LIMIT_MIN;
    if (limit > SP_LIMIT_MAX)
        limit = SP_LIMIT_MAX;
    sh->limit = (uint32_t)limit + 1;
    uint32_t buckets = 1024;
    while (buckets < limit)
        buckets *= 2;
    sh->hash_mask = buckets - 1;
    sh->hash = calloc(buckets, sizeof *sh->hash);
    sh->spts = arena_map(table_bytes(sh));
    sh->gptes = arena_map(table_bytes(sh));
    sh->pages = arena_map(sh->limit * sizeof *sh->pages);
    if (!sh->hash || !sh->spts || !sh->gptes || !sh->pages) {
        sp_arena_fini(sh);
        return -1;
    }
    account_add(&sh->mmu->bytes.tables, buckets * sizeof *sh->hash);
    sh->fresh = 1;
    sh->free_count = sh->limit - 1;
    return 0;
}

void sp_arena_fini(struct shadow *sh)
{
    free(sh->hash);
    arena_unmap(sh->spts, table_bytes(sh));
    arena_unmap(sh->gptes, table_bytes(sh));
    arena_unmap(sh->pages, sh->limit * sizeof *sh->pages);
    spte_desc_fini(&sh->descs);
}

void sp_touch(struct shadow *sh, struct sp *sp)
{
    if (sp->touched)
        return;
    sp->touched = true;
    sp->touched_next = sh->touched;
    sh->touched = sp->index;
}

/* ---- hash ---- */

static uint32_t *hash_bucket(const struct shadow *sh, gfn_t gfn)
{
    return &sh->hash[(uint32_t)((gfn * 0x9e3779b97f4a7c15ull) >> 40) & sh->hash_mask];
}

uint32_t sp_hash_first(const struct shadow *sh, gfn_t gfn)
{
    return *hash_bucket(sh, gfn);
}

struct sp *sp_next_of_gfn(const struct shadow *sh, uint32_t from, gfn_t gfn)
{
    while (from && sh->pages[from].gfn != gfn)
        from = sh->pages[from].hash_next;
    return from ? &sh->pages[from] : NULL;
}

static void hash_insert(struct shadow *sh, struct sp *sp)
{
    uint32_t *bucket = hash_bucket(sh, sp->gfn);
    sp->hash_next = *bucket;
    *bucket = sp->index;
}

static void hash_remove(struct shadow *sh, struct sp *sp)
{
    uint32_t *p = hash_bucket(sh, sp->gfn);
    while (*p != sp->index)
        p = &sh->pages[*p].hash_next;
    *p = sp->hash_next;
}

/* ---- active list, oldest first ---- */

static void active_append(struct shadow *sh, struct sp *sp)
{
    sp->active_next = 0;
    sp->active_prev = sh->active_last;
    if (sh->active_last)
        sh->pages[sh->active_last].active_next = sp->index;
    else
        sh->active_first = sp->index;
    sh->active_last = sp->index;
    sh->active_count++;
}

static void active_remove(struct shadow *sh, struct sp *sp)
{
    if (sp->active_prev)
        sh->pages[sp->active_prev].active_next = sp->active_next;
    else
        sh->active_first = sp->active_next;
    if (sp->active_next)
        sh->pages[sp->active_next].active_prev = sp->active_prev;
    else
        sh->active_last = sp->active_prev;
    sh->active_count--;
}

/* ---- making and releasing ---- */

static void count_indirect(struct shadow *sh, union sp_role role, uint32_t n)
{
    if (role.direct)
        return;
    if (role.format == PAGING_32)
        sh->indirect_of_4 += n;
    else
        sh->indirect_of_8 += n;
}

/* One that was used before, or the next of the arena, which so never holds more memory than it once needed. */
static struct sp *take_free(struct shadow *sh)
{
    struct sp *sp = &sh->pages[sh->free_head ? sh->free_head : sh->fresh];
    sh->free_count--;
    if (sh->free_head) {
        sh->free_head = sp->hash_next;
        return sp;
    }
    sp->index = sh->fresh++;
    account_add(&sh->mmu->bytes.tables, 2 * SP_ENTRIES * sizeof(uint64_t) + sizeof *sp);
    return sp;
}

static struct sp *sp_new(struct shadow *sh, gfn_t gfn, union sp_role role, const uint8_t *table)
{
    struct sp *sp = take_free(sh);
    sp->gfn = gfn;
    sp->role = role;
    sp->table = table;
    sp->generation = sh->valid_generation;
    sp->used = 0;
    sp->write_flood = 0;
    sp->tlb_ways = 0;
    sp->unsync = false;
    sp->root_count = 0;
    sp->parents.val = 0;
    sp->live = true;
    hash_insert(sh, sp);
    active_append(sh, sp);
    sp_touch(sh, sp);
    sh->stats.pages++;
    sh->mmu->stats.sp_created++;
    trace_point(sh->mmu->trace, TRACE_MMU_SP_NEW, gfn, role.word, sh->active_count, 0);
    count_indirect(sh, role, 1);
    if (!role.direct)
        track_add(sh->mmu->mem, role_as(role), gfn, TRACK_PT);
    return sp;
}

struct sp *sp_get(struct shadow *sh, gfn_t gfn, union sp_role role, const uint8_t *table, bool *created)
{
    *created = false;
    sp_for_each_of_gfn(sh, gfn, sp)
    {
        if (sp->role.word == role.word && !sp_is_obsolete(sh, sp)) {
            sp->write_flood = 0;
            return sp;
        }
    }
    *created = true;
    return sp_new(sh, gfn, role, table);
}

void sp_release(struct shadow *sh, struct sp *sp)
{
    hash_remove(sh, sp);
    active_remove(sh, sp);
    count_indirect(sh, sp->role, (uint32_t)-1);
    sp->live = false;
    sp->hash_next = sh->free_head;
    sh->free_head = sp->index;
    sh->free_count++;
    sh->stats.pages--;
    sh->mmu->stats.sp_zapped++;
    trace_point(sh->mmu->trace, TRACE_MMU_SP_FREE, sp->gfn, sp->role.word, sh->active_count, 0);
}
