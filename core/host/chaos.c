#include "core/host/chaos.h"

#include "core/alloc.h"
#include "core/host/host_mm_internal.h"
#include "core/host/host_ops.h"
#include "core/host/ksm.h"
#include "core/stats.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BURST         8  /* pages of one swap or migrate event, at most */
#define SPAN          16 /* pages of one mprotect or dontneed event, at most */
#define COW_PAGES     64 /* of a partial fork: what its child can hold back at most */
#define COW_WHOLE     64 /* one cow event in so many forks all */
#define SCAN_PAGES    64 /* of one ksm or age event */
#define REJOIN_ONE_IN 2  /* huge events of an mm with gigantic pages */
#define NS_A_SECOND   1000000000ull

struct host_chaos {
    struct host_mm *mm;
    struct ksm *ksm;
    bool own_ksm;
    struct host_chaos_config cfg;
    enum host_chaos_op ops[CHAOS_OP_COUNT]; /* those of the mask */
    unsigned op_count;
    uint64_t rng, next;
    struct host_mm *child; /* of the last cow event; shares pages until the next one */
    hva_t *balloon;        /* pages, in the order given */
    size_t ballooned;
    uint64_t events, effects[CHAOS_OP_COUNT];
};

/* ---- configuration ---- */

static const char *const op_names[] = {
#define X(id, name, text) name,
    HOST_CHAOS_OPS(X)
#undef X
};

static const char *const effect_names[] = {
#define X(id, name, text) "chaos." name,
    HOST_CHAOS_OPS(X)
#undef X
};

const char *host_chaos_op_name(enum host_chaos_op op)
{
    return op_names[op];
}

struct word {
    const char *at;
    size_t len;
};

static bool word_is(struct word w, const char *s)
{
    return w.len == strlen(s) && !memcmp(w.at, s, w.len);
}

/* Cuts the text before the first `sep` off. */
static struct word next_word(const char **text, char sep)
{
    struct word w = {*text, strcspn(*text, (char[]){sep, 0})};
    *text += w.len + ((*text)[w.len] == sep);
    return w;
}

static bool parse_number(struct word w, uint64_t *out)
{
    char digits[32], *end;
    if (!w.len || w.len >= sizeof digits || w.at[0] < '0' || w.at[0] > '9')
        return false;
    memcpy(digits, w.at, w.len);
    digits[w.len] = 0;
    errno = 0;
    *out = strtoull(digits, &end, 0);
    return !*end && !errno;
}

static void list_ops(char *err, size_t err_len, struct word w)
{
    int n = snprintf(err, err_len, "unknown host event \"%.*s\": known are all", (int)w.len, w.at);
    for (unsigned op = 0; op < CHAOS_OP_COUNT && n > 0 && (size_t)n < err_len; op++)
        n += snprintf(err + n, err_len - (size_t)n, ", %s", op_names[op]);
}

static bool parse_ops(struct word list, unsigned *out, char *err, size_t err_len)
{
    const char *end = list.at + list.len;
    *out = 0;
    for (const char *at = list.at; at <= end;) {
        struct word w = {at, 0};
        while (w.at + w.len < end && w.at[w.len] != '+')
            w.len++;
        unsigned mask = word_is(w, "all") ? CHAOS_ALL : 0;
        for (unsigned op = 0; op < CHAOS_OP_COUNT; op++)
            if (word_is(w, op_names[op]))
                mask = 1u << op;
        if (!mask) {
            list_ops(err, err_len, w);
            return false;
        }
        *out |= mask;
        at = w.at + w.len + 1;
    }
    return true;
}

static bool parse_value(struct word key, struct word value, struct host_chaos_config *c, char *err, size_t err_len)
{
    if (word_is(key, "seed")) {
        if (parse_number(value, &c->seed))
            return true;
        snprintf(err, err_len, "seed=%.*s is not a number", (int)value.len, value.at);
    } else if (word_is(key, "rate")) {
        if (parse_number(value, &c->rate) && c->rate && c->rate <= CHAOS_RATE_MAX)
            return true;
        snprintf(err, err_len, "rate=%.*s is not a number from 1 to %d (events a second of virtual time)",
                 (int)value.len, value.at, CHAOS_RATE_MAX);
    } else if (word_is(key, "ops")) {
        return parse_ops(value, &c->ops, err, err_len);
    } else if (word_is(key, "async")) {
        c->async = word_is(value, "on");
        if (c->async || word_is(value, "off"))
            return true;
        snprintf(err, err_len, "async=%.*s is neither on nor off", (int)value.len, value.at);
    } else {
        snprintf(err, err_len, "unknown word \"%.*s\": known are seed=, rate=, ops= and async=", (int)key.len, key.at);
    }
    return false;
}

static int key_index(struct word key)
{
    static const char *const keys[] = {"seed", "rate", "ops", "async"};
    for (unsigned i = 0; i < ARRAY_LEN(keys); i++)
        if (word_is(key, keys[i]))
            return (int)i;
    return -1;
}

bool host_chaos_parse(const char *text, struct host_chaos_config *out, char *err, size_t err_len)
{
    struct host_chaos_config c = {.seed = 1, .rate = 1000, .ops = CHAOS_ALL};
    unsigned given = 0;
    while (*text) {
        struct word w = next_word(&text, ',');
        size_t eq = 0;
        while (eq < w.len && w.at[eq] != '=')
            eq++;
        struct word key = {w.at, eq}, value = {w.at + eq + (eq < w.len), w.len - eq - (eq < w.len)};
        int i = key_index(key);
        if (i >= 0 && given >> i & 1) {
            snprintf(err, err_len, "%.*s= is given twice", (int)key.len, key.at);
            return false;
        }
        if (!parse_value(key, value, &c, err, err_len))
            return false;
        given |= 1u << i;
    }
    *out = c;
    return true;
}

/* ---- life ---- */

/* splitmix64. */
static uint64_t draw(struct host_chaos *c)
{
    uint64_t x = c->rng += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

static uint64_t draw_below(struct host_chaos *c, uint64_t n)
{
    return draw(c) % n;
}

/* Uniform around the mean: irregular enough to meet every phase of a guest. */
static void arm(struct host_chaos *c)
{
    uint64_t mean = NS_A_SECOND / c->cfg.rate;
    c->next += 1 + draw_below(c, 2 * mean);
}

static void set_all_mergeable(struct host_mm *mm, bool on)
{
    host_mm_lock(mm);
    for (size_t i = 0; i < mm->vmas.count; i++) {
        const struct vma *v = &mm->vmas.list[i];
        if (v->kind == VMA_ANON && v->mergeable != on) {
            host_mm_set_mergeable(mm, v->start, v->end - v->start, on);
            i = (size_t)-1; /* neighbours may have been joined */
        }
    }
    host_mm_unlock(mm);
}

struct host_chaos *host_chaos_create(struct host_mm *mm, struct ksm *ksm, const struct host_chaos_config *cfg)
{
    struct host_chaos *c = alloc_zeroed(1, sizeof *c);
    c->mm = mm;
    c->cfg = *cfg;
    c->rng = cfg->seed;
    for (unsigned op = 0; op < CHAOS_OP_COUNT; op++)
        if (cfg->ops >> op & 1)
            c->ops[c->op_count++] = (enum host_chaos_op)op;
    if (cfg->ops >> CHAOS_KSM & 1) {
        c->own_ksm = !ksm && !mm->ksm;
        c->ksm = ksm ? ksm : mm->ksm ? mm->ksm : ksm_create(host_mm_pool(mm));
        ksm_add(c->ksm, mm);
        set_all_mergeable(mm, true);
    }
    arm(c);
    return c;
}

void host_chaos_destroy(struct host_chaos *c)
{
    if (!c)
        return;
    host_mm_destroy(c->child);
    if (c->own_ksm)
        ksm_destroy(c->ksm);
    free(c->balloon);
    free(c);
}

uint64_t host_chaos_events(const struct host_chaos *c)
{
    return c->events;
}

uint64_t host_chaos_effects(const struct host_chaos *c, enum host_chaos_op op)
{
    return c->effects[op];
}

void host_chaos_add_stats(const struct host_chaos *c, struct stats *stats)
{
    stats_add(stats, "chaos.events", "", &c->events);
    for (unsigned op = 0; op < CHAOS_OP_COUNT; op++)
        stats_add(stats, effect_names[op], "", &c->effects[op]);
}

/* ---- targets ---- */

/* A page with a frame, and what its VMA says. */
struct target {
    hva_t hva;
    uint64_t pages; /* from there to the VMA's end */
    unsigned prot;
};

/* A place in the mapped space, every page as likely as any other; 0: nothing is mapped. */
static hva_t draw_hva(struct host_chaos *c, const struct vma_set *s)
{
    uint64_t pages = 0;
    for (size_t i = 0; i < s->count; i++)
        pages += (s->list[i].end - s->list[i].start) >> PAGE_SHIFT;
    if (!pages)
        return 0;
    uint64_t n = draw_below(c, pages) << PAGE_SHIFT;
    size_t i = 0;
    for (; n >= s->list[i].end - s->list[i].start; i++)
        n -= s->list[i].end - s->list[i].start;
    return s->list[i].start + n;
}

/* The first page with a frame from `hva` on, round and round; there is one. */
static hva_t next_resident(const struct host_mm *mm, hva_t hva)
{
    for (;; hva += PAGE_SIZE) {
        hva = hpte_next(&mm->hptes, hva, HVA_END);
        if (hva >= HVA_END)
            hva = hpte_next(&mm->hptes, 0, HVA_END);
        if (hpte_is_resident(*hpte_lookup(&mm->hptes, hva)))
            return hva;
    }
}

/* False: no page has a frame. The host_mm lock is held while looking only: KSM's comes before it. What goes away
 * between picking and acting is a missed chance, no more. */
static bool pick(struct host_chaos *c, struct target *out)
{
    struct host_mm *mm = c->mm;
    host_mm_lock(mm);
    bool found = mm->hptes.present && mm->vmas.count;
    if (found) {
        hva_t hva = next_resident(mm, draw_hva(c, &mm->vmas));
        const struct vma *v = vma_find(&mm->vmas, hva);
        *out = (struct target){hva, (v->end - hva) >> PAGE_SHIFT, v->prot};
    }
    host_mm_unlock(mm);
    return found;
}

static uint64_t at_most(uint64_t n, uint64_t max)
{
    return n < max ? n : max;
}

/* ---- the operations: true if something changed ---- */

static bool do_each(struct host_chaos *c, int (*op)(struct host_mm *mm, hva_t hva))
{
    bool changed = false;
    struct target t;
    for (uint64_t n = 1 + draw_below(c, BURST); n && pick(c, &t); n--)
        changed |= op(c->mm, t.hva) == HOST_OK;
    return changed;
}

static bool do_swap(struct host_chaos *c)
{
    return do_each(c, host_mm_swap_out);
}

static bool do_migrate(struct host_chaos *c)
{
    return do_each(c, host_mm_migrate);
}

static bool do_ksm(struct host_chaos *c)
{
    struct target t;
    bool changed = ksm_scan(c->ksm, SCAN_PAGES) > 0;
    if (pick(c, &t) && t.pages >= 2)
        changed |= ksm_merge(c->ksm, c->mm, t.hva, c->mm, t.hva + PAGE_SIZE) == HOST_OK;
    return changed;
}

static bool do_cow(struct host_chaos *c)
{
    struct target t;
    host_mm_destroy(c->child);
    c->child = NULL;
    if (draw_below(c, COW_WHOLE) == 0) {
        struct host_mm *all = host_mm_fork(c->mm);
        host_mm_destroy(all);
        return all != NULL;
    }
    if (!pick(c, &t))
        return false;
    c->child = host_mm_fork_range(c->mm, t.hva, at_most(t.pages, COW_PAGES) << PAGE_SHIFT);
    return c->child != NULL;
}

static bool do_mprotect(struct host_chaos *c)
{
    const unsigned rw = HOST_READ | HOST_WRITE;
    struct target t;
    if (!pick(c, &t) || t.prot != rw)
        return false;
    uint64_t len = at_most(t.pages, 1 + draw_below(c, SPAN)) << PAGE_SHIFT;
    /* Nobody faults in between: it would be refused what its VMA permits. */
    host_mm_lock(c->mm);
    bool changed = !host_mm_mprotect(c->mm, t.hva, len, HOST_READ) && !host_mm_mprotect(c->mm, t.hva, len, rw);
    host_mm_unlock(c->mm);
    return changed;
}

static bool do_huge(struct host_chaos *c)
{
    struct target t;
    if (!pick(c, &t))
        return false;
    /* What a split of a gigantic page has left is put together again, sometimes: nothing need be copied for that. */
    if (c->mm->fault_level == HPTE_LEVEL_MAX && draw_below(c, REJOIN_ONE_IN) == 0 && host_mm_rejoin(c->mm, t.hva))
        return true;
    return host_mm_split(c->mm, t.hva) == HOST_OK || host_mm_collapse(c->mm, t.hva) == HOST_OK;
}

static bool do_age(struct host_chaos *c)
{
    uint64_t before = c->mm->counters.aged;
    host_mm_age(c->mm, SCAN_PAGES);
    return c->mm->counters.aged > before;
}

static bool do_dontneed(struct host_chaos *c)
{
    bool changed = false;
    for (uint64_t n = 1 + draw_below(c, SPAN); n && c->ballooned; n--)
        changed |= host_mm_dontneed(c->mm, c->balloon[draw_below(c, c->ballooned)], PAGE_SIZE) == 0;
    return changed;
}

typedef bool operation_fn(struct host_chaos *c);

static operation_fn *const operations[] = {
    [CHAOS_SWAP] = do_swap,         [CHAOS_KSM] = do_ksm,   [CHAOS_COW] = do_cow, [CHAOS_MIGRATE] = do_migrate,
    [CHAOS_MPROTECT] = do_mprotect, [CHAOS_HUGE] = do_huge, [CHAOS_AGE] = do_age, [CHAOS_DONTNEED] = do_dontneed,
};

/* ---- events ---- */

enum host_chaos_op host_chaos_run_one(struct host_chaos *c)
{
    enum host_chaos_op op = c->ops[draw_below(c, c->op_count)];
    c->events++;
    c->effects[op] += operations[op](c);
    return op;
}

uint64_t host_chaos_next(const struct host_chaos *c)
{
    return c->next;
}

void host_chaos_start_at(struct host_chaos *c, uint64_t now)
{
    c->next = now;
    arm(c);
}

uint64_t host_chaos_run_until(struct host_chaos *c, uint64_t now)
{
    uint64_t fired = 0;
    for (; c->next <= now; fired++) {
        host_chaos_run_one(c);
        arm(c);
    }
    return fired;
}

static void balloon_forget(struct host_chaos *c, hva_t start, hva_t end)
{
    size_t kept = 0;
    for (size_t i = 0; i < c->ballooned; i++)
        if (c->balloon[i] < start || c->balloon[i] >= end)
            c->balloon[kept++] = c->balloon[i];
    c->ballooned = kept;
}

void host_chaos_balloon(struct host_chaos *c, hva_t hva, uint64_t len, bool given)
{
    balloon_forget(c, hva, hva + len);
    if (!given)
        return;
    if (!c->balloon)
        c->balloon = alloc_zeroed(CHAOS_BALLOON_MAX, sizeof *c->balloon);
    for (hva_t at = hva & ~PAGE_MASK; at < hva + len && c->ballooned < CHAOS_BALLOON_MAX; at += PAGE_SIZE)
        c->balloon[c->ballooned++] = at;
}
