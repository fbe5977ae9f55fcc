#include "frontends/machine/hostside.h"

#include "core/host/chaos.h"
#include "core/host/host_ops.h"
#include "core/host/ksm.h"
#include "core/host/postcopy.h"
#include "core/host/swap.h"
#include "frontends/machine/machine.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

/* Between two looks at the gate of the async thread. */
#define GATE_UNITS  20000ull
/* What swapped pages may hold in memory when there is a file for them. */
#define SWAP_MEMORY (4ull << 20)

/* Where a thread that makes host events waits until the vCPUs are at a safe point. */
struct gate {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool running; /* the thread exists */
    bool wanted;  /* atomic: it waits for a safe point, or uses it */
    bool open;    /* the vCPUs wait at a safe point */
    bool stop;
};

struct hostside {
    const struct vclock *clock;
    struct host_mm *mm;
    struct swap_store *swap; /* counted; NULL: none */
    struct ksm *ksm;         /* NULL: off */
    bool owns_ksm;           /* not that of a forked machine's parent */
    uint64_t next_scan;
    uint64_t next_fetch;
    bool fetches_ahead;       /* pages of a snapshot may be awaited */
    struct host_chaos *chaos; /* NULL: none */
    struct host_chaos_config chaos_cfg;
    struct gate gate;
    bool said_paused;
};

/* ---- events from another thread ---- */

static void nap(uint64_t ns)
{
    struct timespec t = {.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
    nanosleep(&t, NULL);
}

/* Waits for a safe point, makes one event there, lets the vCPUs go on. False: no more. */
static bool async_event(struct hostside *h)
{
    struct gate *g = &h->gate;
    pthread_mutex_lock(&g->lock);
    __atomic_store_n(&g->wanted, true, __ATOMIC_RELEASE);
    while (!g->open && !g->stop)
        pthread_cond_wait(&g->changed, &g->lock);
    bool go = !g->stop;
    if (go)
        host_chaos_run_one(h->chaos);
    __atomic_store_n(&g->wanted, false, __ATOMIC_RELEASE);
    pthread_cond_broadcast(&g->changed);
    pthread_mutex_unlock(&g->lock);
    return go;
}

static void *async_main(void *arg)
{
    struct hostside *h = arg;
    do
        nap(1000000000 / h->chaos_cfg.rate);
    while (async_event(h));
    return NULL;
}

/* The vCPUs' side: stands still while the other thread works. */
static bool gate_pass(struct gate *g)
{
    if (!__atomic_load_n(&g->wanted, __ATOMIC_ACQUIRE))
        return false;
    pthread_mutex_lock(&g->lock);
    g->open = true;
    pthread_cond_broadcast(&g->changed);
    while (g->wanted)
        pthread_cond_wait(&g->changed, &g->lock);
    g->open = false;
    pthread_mutex_unlock(&g->lock);
    return true;
}

static bool async_start(struct hostside *h, struct error *e)
{
    pthread_mutex_init(&h->gate.lock, NULL);
    pthread_cond_init(&h->gate.changed, NULL);
    h->gate.running = pthread_create(&h->gate.thread, NULL, async_main, h) == 0;
    return h->gate.running || error_set(e, "-host-chaos: no thread for async=on");
}

static void async_stop(struct hostside *h)
{
    if (!h->gate.running)
        return;
    pthread_mutex_lock(&h->gate.lock);
    h->gate.stop = true;
    pthread_cond_broadcast(&h->gate.changed);
    pthread_mutex_unlock(&h->gate.lock);
    pthread_join(h->gate.thread, NULL);
    pthread_cond_destroy(&h->gate.changed);
    pthread_mutex_destroy(&h->gate.lock);
}

/* ---- building ---- */

static bool build_swap(struct hostside *h, const struct machine_config *c, struct error *e)
{
    char why[256] = "";
    /* Every page of guest memory, even if none can be compressed, with the store's own rounding. */
    uint64_t room = c->ram_bytes + c->ram_bytes / 4 + (1 << 20);
    room = c->swap_bytes ? c->swap_bytes : room * (1 + c->max_forks);
    struct swap_config cfg = {.memory_bytes = room};
    if (c->swap_file)
        cfg = (struct swap_config){
            .memory_bytes = room / 4 < SWAP_MEMORY ? 0 : SWAP_MEMORY, .file = c->swap_file, .file_bytes = room};
    h->swap = swap_store_create(&cfg, why, sizeof why);
    if (!h->swap)
        return error_set(e, "no swap store: %s", why);
    return host_mm_set_swap(h->mm, h->swap) == HOST_OK || error_set(e, "no swap store");
}

static void build_ksm(struct hostside *h, const struct machine *m)
{
    h->ksm = ksm_create(m->pool);
    h->owns_ksm = true;
    ksm_add(h->ksm, h->mm);
    host_mm_set_mergeable(h->mm, m->low_hva, m->low_ram, true);
    if (m->high_ram)
        host_mm_set_mergeable(h->mm, m->high_hva, m->high_ram, true);
    h->next_scan = KSM_SCAN_UNITS;
}

static bool build_chaos(struct hostside *h, const char *text, struct error *e)
{
    char why[256] = "";
    if (!host_chaos_parse(text, &h->chaos_cfg, why, sizeof why))
        return error_set(e, "-host-chaos %s: %s", text, why);
    h->chaos = host_chaos_create(h->mm, h->ksm, &h->chaos_cfg);
    return !h->chaos_cfg.async || async_start(h, e);
}

/* Inside a gup, so inside an instruction: the block ends after it. */
static void on_reclaim_wanted(void *ctx)
{
    struct machine *m = ctx;
    if (m->cpu && m->cpu[m->turn])
        machine_attention(m);
}

static bool set_limit(struct machine *m, struct error *e)
{
    if (!m->cfg.mem_limit)
        return true;
    host_mm_set_reclaim_hook(m->mm, on_reclaim_wanted, m);
    return host_mm_set_limit(m->mm, m->cfg.mem_limit >> PAGE_SHIFT) == HOST_OK ||
           error_set(e, "-memlimit: less than %llu KiB cannot hold what one instruction touches",
                     MACHINE_LIMIT_MIN >> 10);
}

static struct hostside *hostside_new(struct machine *m, struct error *e)
{
    struct hostside *h = calloc(1, sizeof *h);
    if (!h) {
        error_set(e, "out of memory");
        return NULL;
    }
    h->clock = &m->clock;
    h->mm = m->mm;
    m->hostside = h;
    host_mm_set_trace(m->mm, &m->trace);
    return h;
}

bool hostside_build(struct machine *m, struct error *e)
{
    struct hostside *h = hostside_new(m, e);
    const struct machine_config *c = &m->cfg;
    if (!h)
        return false;
    if ((c->mem_limit || c->host_chaos || c->swap_file) && !build_swap(h, c, e))
        return false;
    if (c->ksm)
        build_ksm(h, m);
    host_mm_set_huge_faults(h->mm, c->host_pages);
    return set_limit(m, e) && (!c->host_chaos || build_chaos(h, c->host_chaos, e));
}

bool hostside_build_child(struct machine *m, const struct machine *parent, struct error *e)
{
    struct hostside *h = hostside_new(m, e);
    if (!h)
        return false;
    h->swap = parent->hostside->swap;
    if (h->swap)
        swap_store_get(h->swap);
    h->ksm = parent->hostside->ksm; /* host_mm_fork() has added the memory to it */
    return set_limit(m, e) && (!m->cfg.host_chaos || build_chaos(h, m->cfg.host_chaos, e));
}

void hostside_start_child(struct hostside *h)
{
    h->next_scan = clock_now(h->clock) + KSM_SCAN_UNITS;
    if (host_mm_awaited(h->mm))
        hostside_start_postcopy(h);
    if (h->chaos)
        host_chaos_start_at(h->chaos, clock_now(h->clock));
}

void hostside_start_postcopy(struct hostside *h)
{
    h->fetches_ahead = true;
    h->next_fetch = clock_now(h->clock) + FETCH_AHEAD_UNITS;
}

void hostside_free(struct hostside *h)
{
    if (!h)
        return;
    async_stop(h);
    host_chaos_destroy(h->chaos);
    if (h->owns_ksm)
        ksm_destroy(h->ksm);
    swap_store_put(h->swap);
    host_mm_set_reclaim_hook(h->mm, NULL, NULL);
    free(h);
}

void hostside_add_stats(const struct hostside *h, struct stats *stats)
{
    if (h->swap)
        swap_store_add_stats(h->swap, stats);
    if (h->ksm)
        ksm_add_stats(h->ksm, stats);
    if (h->chaos)
        host_chaos_add_stats(h->chaos, stats);
}

/* ---- safe points ---- */

static bool pause_run(struct hostside *h, int status, enum machine_exit *why)
{
    if (!h->said_paused)
        log_error("the guest needs more memory than -memlimit gives, and %s: it stands still, and nothing is lost",
                  host_status_text(status));
    h->said_paused = true;
    *why = MACHINE_PAUSED;
    return false;
}

static bool check_limit(struct hostside *h, enum machine_exit *why)
{
    if (likely(!host_mm_wants_safe_point(h->mm)))
        return true;
    int status = host_mm_safe_point(h->mm);
    if (status != HOST_OK)
        return pause_run(h, status, why);
    h->said_paused = false;
    return true;
}

static void run_ksm(struct hostside *h, uint64_t now)
{
    if (!h->ksm || now < h->next_scan)
        return;
    ksm_scan(h->ksm, KSM_SCAN_PAGES);
    h->next_scan = now + KSM_SCAN_UNITS; /* time that idling has skipped is not made up for */
}

/* In post-copy. A page that cannot be fetched ends the run when it is touched, and not before. */
static void run_fetch_ahead(struct hostside *h, uint64_t now)
{
    if (likely(!h->fetches_ahead) || now < h->next_fetch)
        return;
    if (host_mm_fetch_ahead(h->mm, FETCH_AHEAD_PAGES) || !host_mm_awaited(h->mm))
        h->fetches_ahead = false;
    h->next_fetch = now + FETCH_AHEAD_UNITS;
}

static void run_chaos(struct machine *m, struct hostside *h, uint64_t now)
{
    if (!h->chaos)
        return;
    bool any = h->chaos_cfg.async ? gate_pass(&h->gate) : host_chaos_run_until(h->chaos, now) > 0;
    if (any && m->cfg.audit_events)
        machine_audit_event(m);
}

bool hostside_step(struct machine *m, enum machine_exit *why)
{
    struct hostside *h = m->hostside;
    if (unlikely(mem_has_failed(m->mem))) {
        *why = MACHINE_HOST_FAILED;
        return false;
    }
    uint64_t now = clock_now(h->clock);
    run_ksm(h, now);
    run_fetch_ahead(h, now);
    run_chaos(m, h, now);
    return check_limit(h, why);
}

static uint64_t until(uint64_t when, uint64_t now)
{
    return when > now ? when - now : 1;
}

uint64_t hostside_units_left(const struct hostside *h)
{
    uint64_t now = clock_now(h->clock), units = UINT64_MAX;
    if (h->ksm)
        units = until(h->next_scan, now);
    if (h->fetches_ahead && until(h->next_fetch, now) < units)
        units = until(h->next_fetch, now);
    if (!h->chaos)
        return units;
    uint64_t next = h->chaos_cfg.async ? GATE_UNITS : until(host_chaos_next(h->chaos), now);
    return next < units ? next : units;
}
