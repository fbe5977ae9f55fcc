/*
 * The common part of the engines: life, the registers and TLB sets of a vCPU, translation's first look, and the
 * subscription to the invalidation bus.
 */
#include "core/alloc.h"
#include "core/host/lock_order.h"
#include "core/stats.h"
#include "mmu/mem.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- locking and the retry protocol ---- */

void mmu_lock(struct mmu *mmu)
{
    lock_check_take(host_mm_pool(mmu->mm), LOCK_RANK_MMU, &mmu->lock);
    pthread_mutex_lock(&mmu->lock);
}

void mmu_unlock(struct mmu *mmu)
{
    pthread_mutex_unlock(&mmu->lock);
    lock_check_drop(host_mm_pool(mmu->mm), &mmu->lock);
}

/* Built with UMBRA_NO_RETRY the check is gone: a test shows then that it finds what the check prevents. */
bool mmu_notifier_retry(const struct mmu *mmu, uint64_t seq, hva_t hva)
{
#ifdef UMBRA_NO_RETRY
    return false;
#endif
    if (unlikely(mmu->invalidate_in_progress) && hva >= mmu->invalidate_start && hva < mmu->invalidate_end)
        return true;
    return mmu->invalidate_seq != seq;
}

static void seq_advance(struct mmu *mmu)
{
    __atomic_store_n(&mmu->invalidate_seq, mmu->invalidate_seq + 1, __ATOMIC_RELEASE);
}

struct zap_ctx {
    struct mmu *mmu;
    bool zapped;
};

static void zap_slot_part(void *ctx, struct memslot *slot, gfn_t gfn, uint64_t pages)
{
    struct zap_ctx *z = ctx;
    z->zapped |= z->mmu->ops->zap_gfns(z->mmu, slot->as, gfn, pages);
}

static bool zap_hva(struct mmu *mmu, hva_t start, hva_t end)
{
    struct zap_ctx z = {.mmu = mmu};
    memslot_for_each_hva(mmu->mem, start, end, zap_slot_part, &z);
    return z.zapped;
}

/* Linux: kvm_mmu_notifier_invalidate_range_start, kvm_inc_notifier_count. */
static int on_range_start(struct notifier *n, const struct notify_range *range)
{
    struct mmu *mmu = container_of(n, struct mmu, notifier);
    mmu_lock(mmu);
    if (!mmu->invalidate_in_progress++) {
        mmu->invalidate_start = range->start;
        mmu->invalidate_end = range->end;
    } else { /* ranges that overlap in time are kept as one that holds all */
        if (range->start < mmu->invalidate_start)
            mmu->invalidate_start = range->start;
        if (range->end > mmu->invalidate_end)
            mmu->invalidate_end = range->end;
    }
    zap_hva(mmu, range->start, range->end);
    trace_point(mmu->trace, TRACE_NOTIFIER_START, range->start, range->end, range->event, mmu->invalidate_seq);
    mmu_unlock(mmu);
    return 0;
}

/* Linux: kvm_mmu_notifier_invalidate_range_end, kvm_dec_notifier_count: the sequence moves before the count falls. */
static void on_range_end(struct notifier *n, const struct notify_range *range)
{
    struct mmu *mmu = container_of(n, struct mmu, notifier);
    mmu_lock(mmu);
    seq_advance(mmu);
    mmu->invalidate_in_progress--;
    trace_point(mmu->trace, TRACE_NOTIFIER_END, range->start, range->end, range->event, mmu->invalidate_seq);
    mmu_unlock(mmu);
}

struct age_ctx {
    struct mmu *mmu;
    enum mmu_age how;
    bool young;
};

static void age_slot_part(void *ctx, struct memslot *slot, gfn_t gfn, uint64_t pages)
{
    struct age_ctx *c = ctx;
    c->young |= c->mmu->ops->age_gfns(c->mmu, slot->as, gfn, pages, c->how);
}

/* Linux: kvm_age_hva, kvm_test_age_hva. Without accessed bits of the engine's own, young is what was mapped
 * (kvm_age_rmapp on EPT without A bits), and asking without clearing finds nothing. */
static bool age_hva(struct notifier *n, hva_t start, hva_t end, enum mmu_age how)
{
    struct age_ctx c = {.mmu = container_of(n, struct mmu, notifier), .how = how};
    mmu_lock(c.mmu);
    if (c.mmu->ops->age_gfns) {
        memslot_for_each_hva(c.mmu->mem, start, end, age_slot_part, &c);
    } else if (how != MMU_AGE_TEST) {
        c.young = zap_hva(c.mmu, start, end);
        seq_advance(c.mmu);
    }
    mmu_unlock(c.mmu);
    return c.young;
}

static bool on_clear_flush_young(struct notifier *n, hva_t start, hva_t end)
{
    return age_hva(n, start, end, MMU_AGE_CLEAR_FLUSH);
}

static bool on_clear_young(struct notifier *n, hva_t start, hva_t end)
{
    return age_hva(n, start, end, MMU_AGE_CLEAR);
}

static bool on_test_young(struct notifier *n, hva_t hva)
{
    return age_hva(n, hva, hva + PAGE_SIZE, MMU_AGE_TEST);
}

struct change_ctx {
    struct mmu *mmu;
    struct hpte_view hpte;
};

static void change_slot_part(void *ctx, struct memslot *slot, gfn_t gfn, uint64_t pages)
{
    struct change_ctx *c = ctx;
    c->mmu->ops->change_pte(c->mmu, slot->as, gfn, c->hpte);
}

static void on_change_pte(struct notifier *n, hva_t hva, struct hpte_view hpte)
{
    struct mmu *mmu = container_of(n, struct mmu, notifier);
    struct change_ctx c = {.mmu = mmu, .hpte = hpte};
    mmu_lock(mmu);
    seq_advance(mmu);
    if (mmu->ops->change_pte)
        memslot_for_each_hva(mmu->mem, hva, hva + PAGE_SIZE, change_slot_part, &c);
    else
        zap_hva(mmu, hva, hva + PAGE_SIZE);
    mmu_unlock(mmu);
}

static void on_invalidate_range(struct notifier *n, hva_t start, hva_t end)
{
    struct mmu *mmu = container_of(n, struct mmu, notifier);
    if (!mmu->ops->invalidate_range)
        return;
    mmu_lock(mmu);
    mmu->ops->invalidate_range(mmu, start, end);
    mmu_unlock(mmu);
}

static void on_release(struct notifier *n)
{
    struct mmu *mmu = container_of(n, struct mmu, notifier);
    mmu_lock(mmu);
    mmu->released = true;
    mmu_zap_all(mmu);
    mmu_unlock(mmu);
}

static const struct notifier_ops mmu_notifier_ops = {
    .invalidate_range_start = on_range_start,
    .invalidate_range_end = on_range_end,
    .invalidate_range = on_invalidate_range,
    .clear_flush_young = on_clear_flush_young,
    .clear_young = on_clear_young,
    .test_young = on_test_young,
    .change_pte = on_change_pte,
    .release = on_release,
};

/* ---- events ---- */

static void event_happened(struct mmu *mmu)
{
    if (unlikely(mmu->event_hook != NULL))
        mmu->event_hook(mmu->event_ctx);
}

void mmu_set_event_hook(struct mmu *mmu, mmu_event_fn *fn, void *ctx)
{
    mmu->event_hook = fn;
    mmu->event_ctx = ctx;
}

/* ---- tracked writes ---- */

static bool on_pt_write(struct track_listener *l, unsigned as, gpa_t gpa, const void *bytes, size_t len)
{
    struct mmu *mmu = container_of(l, struct mmu, pt_listener);
    mmu_lock(mmu);
    mmu->stats.tracked_writes++;
    mmu->ops->pt_write(mmu, as, gpa, bytes, len);
    mmu_unlock(mmu);
    event_happened(mmu);
    return true;
}

/* ---- life ---- */

static void lock_init(struct mmu *mmu)
{
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&mmu->lock, &attr);
    pthread_mutexattr_destroy(&attr);
}

static void vcpus_init(struct mmu *mmu)
{
    mmu->vcpus = alloc_zeroed(mmu->vcpu_count, sizeof(*mmu->vcpus));
    for (unsigned i = 0; i < mmu->vcpu_count; i++)
        mmu->vcpus[i] = (struct mmu_vcpu){.mmu = mmu, .mem = mmu->mem, .index = i};
}

struct mmu *mmu_create(const struct mmu_config *cfg)
{
    static const struct mmu_ops *const ops[] = {
        [MMU_SHADOW] = &mmu_shadow_ops, [MMU_WALK] = &mmu_walk_ops, [MMU_EPT] = &mmu_ept_ops};
    struct mmu *mmu = alloc_zeroed(1, sizeof(*mmu));
    mmu->ops = ops[cfg->kind];
    mmu->mem = cfg->mem;
    mmu->mm = cfg->mem->cfg.mm;
    mmu->log = cfg->log;
    mmu->trace = cfg->trace ? cfg->trace : &cfg->mem->no_trace;
    mmu->vcpu_count = cfg->vcpus ? cfg->vcpus : 1;
    mmu->max_shadow_pages = cfg->max_shadow_pages;
    mmu->unsync = cfg->unsync && cfg->kind == MMU_SHADOW;
    lock_init(mmu);
    vcpus_init(mmu);
    if (cfg->staletlb)
        mmu->stale = stale_create(mmu->vcpu_count);
    if (tlb_init(mmu) || mmu->ops->init(mmu)) {
        log_error("out of memory for the MMU");
        abort();
    }
    mmu->pt_listener = (struct track_listener){.write = on_pt_write, .kind = TRACK_PT};
    track_register(mmu->mem, &mmu->pt_listener);
    mem_set_mmu(mmu->mem, mmu);
    notifier_register(&mmu->notifier, mmu->mm, &mmu_notifier_ops);
    return mmu;
}

/* No set holds a root or an entry afterwards. */
static void sets_drop(struct mmu *mmu)
{
    for (unsigned i = 0; i < mmu->vcpu_count * TLB_ALL_SETS; i++) {
        struct tlb_set *set = &mmu->sets[i];
        if (!set->valid)
            continue;
        struct mmu_vcpu *mv = tlb_set_vcpu(mmu, set);
        tlb_set_clear(mv, set);
        mmu->ops->root_put(mv, set);
        set->valid = false;
    }
}

void mmu_destroy(struct mmu *mmu)
{
    if (!mmu)
        return;
    notifier_unregister(&mmu->notifier);
    mmu_lock(mmu);
    sets_drop(mmu);
    mmu->ops->fini(mmu);
    mmu_unlock(mmu);
    track_unregister(mmu->mem, &mmu->pt_listener);
    mem_set_mmu(mmu->mem, NULL);
    tlb_fini(mmu);
    stale_destroy(mmu->stale);
    free(mmu->vcpus);
    pthread_mutex_destroy(&mmu->lock);
    free(mmu);
}

void mmu_zap_all(struct mmu *mmu)
{
    mmu_lock(mmu);
    sets_drop(mmu);
    mmu->ops->zap_all(mmu);
    mmu->stats.tlb_flushes++;
    for (unsigned i = 0; i < mmu->vcpu_count; i++) {
        struct mmu_vcpu *mv = &mmu->vcpus[i];
        if (!mv->set)
            continue;
        mv->set->valid = true; /* its key stays */
        mmu->ops->root_get(mv, mv->set);
    }
    mmu_unlock(mmu);
}

uint64_t mmu_shrink(struct mmu *mmu, uint64_t pages)
{
    if (!mmu->ops->shrink)
        return 0;
    mmu_lock(mmu);
    uint64_t n = mmu->ops->shrink(mmu, pages);
    mmu_unlock(mmu);
    return n;
}

unsigned mmu_audit(struct mmu *mmu, bool full, void (*report)(void *ctx, const char *line), void *ctx)
{
    host_mm_lock(mmu->mm); /* the order of locks: the audit looks at host entries */
    mmu_lock(mmu);
    unsigned n = mmu->ops->audit(mmu, full, report, ctx);
    mmu_unlock(mmu);
    host_mm_unlock(mmu->mm);
    return n;
}

static void register_bytes(struct mmu *mmu, struct stats *s)
{
    const struct mem_bytes *m = &mmu->mem->bytes;
    const struct mmu_bytes *b = &mmu->bytes;
    const struct stats_row rows[] = {
        {"bytes.tables", "bytes", &b->tables.now},     {"bytes.tables.peak", "bytes", &b->tables.peak},
        {"bytes.tracking", "bytes", &m->tracking.now}, {"bytes.tracking.peak", "bytes", &m->tracking.peak},
        {"bytes.tlb", "bytes", &b->tlb.now},           {"bytes.tlb.peak", "bytes", &b->tlb.peak},
        {"bytes.tlb_deps", "bytes", &b->deps.now},     {"bytes.tlb_deps.peak", "bytes", &b->deps.peak},
        {"bytes.pointers", "bytes", &m->pointers.now}, {"bytes.pointers.peak", "bytes", &m->pointers.peak},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        stats_add(s, rows[i].name, rows[i].unit, rows[i].value);
}

void mmu_register_stats(struct mmu *mmu, struct stats *s)
{
    const struct mmu_stats *c = &mmu->stats;
    const struct stats_row rows[] = {
        {"mmu.tlb_misses", "misses", &c->tlb_misses},
        {"mmu.faults_injected", "faults", &c->faults_injected},
        {"mmu.guest_walks", "walks", &c->guest_walks},
        {"mmu.shadow_faults", "faults", &c->shadow_faults},
        {"mmu.fills", "fills", &c->fills},
        {"mmu.large_fills", "fills", &c->large_fills},
        {"mmu.gigantic_fills", "fills", &c->gigantic_fills},
        {"mmu.zaps", "sptes", &c->zaps},
        {"mmu.tracked_writes", "writes", &c->tracked_writes},
        {"mmu.write_protects", "gfns", &c->write_protects},
        {"mmu.root_switches", "switches", &c->root_switches},
        {"mmu.root_misses", "misses", &c->root_misses},
        {"mmu.tlb_flushes", "flushes", &c->tlb_flushes},
        {"mmu.tlb_drops", "entries", &c->tlb_drops},
        {"mmu.sp_created", "pages", &c->sp_created},
        {"mmu.sp_zapped", "pages", &c->sp_zapped},
        {"mmu.mmio_faults", "faults", &c->mmio_faults},
        {"mmu.retries", "retries", &c->retries},
        {"mmu.stale_reports", "reports", &c->stale_reports},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        stats_add(s, rows[i].name, rows[i].unit, rows[i].value);
    gfn_caches_add_stats(mmu->mem, s);
    if (mmu->ops->register_stats)
        mmu->ops->register_stats(mmu, s);
    register_bytes(mmu, s);
}

/* ---- registers, roots, sets ---- */

struct mmu_vcpu *mmu_vcpu_get(struct mmu *mmu, unsigned index)
{
    return index < mmu->vcpu_count ? &mmu->vcpus[index] : NULL;
}

/* What of the registers selects a translation: all else zero, padding included, so that keys compare by memcmp. */
static void key_of(const struct paging_regs *r, struct tlb_set *out)
{
    struct paging_regs *k = &out->key;
    enum paging_format format = paging_format_of(r);
    memset(k, 0, sizeof(*k));
    k->a20_mask = r->a20_mask;
    k->maxphyaddr = r->maxphyaddr;
    k->as = r->as;
    k->eptp = r->eptp;
    k->vpid = r->eptp ? r->vpid : 0;
    if (format == PAGING_NONE)
        return;
    k->cr0 = r->cr0 & (CR0_PE | CR0_PG | CR0_WP);
    k->cr4 = r->cr4 & (CR4_PAE | CR4_SMEP | CR4_SMAP);
    k->features = r->features;
    if (format == PAGING_32) {
        k->cr4 |= r->cr4 & CR4_PSE;
        k->cr3 = r->cr3 & 0xfffff000u;
        return;
    }
    k->efer = r->efer & (EFER_NXE | EFER_LMA);
    if (format == PAGING_PAE) {
        memcpy(k->pdpte, r->pdpte, sizeof(k->pdpte));
        k->cr3 = r->cr3 & 0xffffffe0u;
        return;
    }
    k->cr4 |= r->cr4 & (CR4_LA57 | CR4_PKE | CR4_PKS);
    k->cr3 = r->cr3 & 0x000ffffffffff000ull;
    if (r->cr4 & CR4_PKE)
        k->pkru = r->pkru;
    if (r->cr4 & CR4_PKS)
        k->pkrs = r->pkrs;
}

/* The set with this key, or the one to make it of: an unused one, else the least recently used. */
static struct tlb_set *set_choose(struct mmu_vcpu *mv, const struct paging_regs *key, bool *found)
{
    struct tlb_set *sets = &mv->mmu->sets[mv->index * TLB_ALL_SETS], *victim = sets;
    for (unsigned i = 0; i < TLB_SETS; i++) {
        struct tlb_set *s = &sets[i];
        if (s->valid && !memcmp(&s->key, key, sizeof(*key))) {
            *found = true;
            return s;
        }
        if (victim->valid && (!s->valid || s->used < victim->used))
            victim = s;
    }
    *found = false;
    return victim;
}

static void set_enter(struct mmu_vcpu *mv, const struct paging_regs *key)
{
    struct mmu *mmu = mv->mmu;
    bool found;
    struct tlb_set *set = set_choose(mv, key, &found);
    if (!found) {
        if (set->valid) {
            tlb_set_clear(mv, set);
            mmu->ops->root_put(mv, set);
        }
        memcpy(&set->key, key, sizeof(*key));
        set->valid = true;
        mmu->stats.root_misses++;
    }
    set->used = ++mmu->set_clock;
    mv->set = set;
    if (!found)
        mmu->ops->root_get(mv, set);
    mmu->stats.root_switches++;
    trace_point(mmu->trace, TRACE_MMU_ROOT, key->cr3, paging_format_of(key), found, 0);
}

static void clear_sets(struct mmu_vcpu *mv)
{
    for (unsigned i = 0; i < TLB_ALL_SETS; i++)
        tlb_set_clear(mv, &mv->mmu->sets[mv->index * TLB_ALL_SETS + i]);
}

void mmu_vcpu_load(struct mmu_vcpu *mv, const struct paging_regs *regs)
{
    struct tlb_set wanted;
    mv->regs = *regs;
    key_of(regs, &wanted);
    if (!mv->set || !mv->set->valid || memcmp(&mv->set->key, &wanted.key, sizeof(wanted.key))) {
        mmu_lock(mv->mmu);
        set_enter(mv, &wanted.key);
        mmu_unlock(mv->mmu);
    }
    tlb_vcpu_switch(mv);
    if (unlikely(mv->mmu->stale) && stale_set_pcid(mv)) /* a use under another PCID is to be noted anew */
        clear_sets(mv);
}

void mmu_vcpu_set_data_bypass(struct mmu_vcpu *mv, bool bypass)
{
    mv->data_bypass = bypass;
    tlb_select_data(mv);
}

void mmu_vcpu_set_mode(struct mmu_vcpu *mv, unsigned cpl, bool ac)
{
    mv->regs.cpl = (uint8_t)cpl;
    mv->regs.ac = ac;
    tlb_select_data(mv);
    tlb_select_fetch(mv);
}

/* SDM volume 3, 4.4.1: bits 2:1, 8:5 and those from MAXPHYADDR up are reserved in a present PDPTE. */
bool mmu_load_pdptes(struct mmu_vcpu *mv, uint64_t cr3, uint64_t out[4])
{
    const struct paging_regs *r = &mv->regs;
    uint64_t reserved = 0x1e6 | ~((1ull << r->maxphyaddr) - 1);
    gpa_t gpa = cr3 & 0xffffffe0u & r->a20_mask;
    size_t len = 4 * sizeof(*out);
    enum mem_result result = mv->mmu->ops->read_phys
                                 ? mv->mmu->ops->read_phys(mv, gpa, out, len)
                                 : mem_access(mv->mem, r->as, gpa, out, len, MEM_WALK, false, (int)mv->index);
    if (result != MEM_OK)
        memset(out, 0xff, len);
    for (int i = 0; i < 4; i++)
        if ((out[i] & 1) && (out[i] & reserved))
            return false;
    return true;
}

/* ---- translation ---- */

/*
 * What the TLB already answers: a write that must go through mem_access() (the frequent write to a guest page table),
 * and the parts of an access that missed only because it crosses a page.
 */
static bool translate_from_tlb(struct mmu_vcpu *mv, gva_t gva, unsigned access, struct xlate *out)
{
    enum tlb_mode mode = tlb_mode_of(&mv->regs, access);
    if (access & ACCESS_FETCH)
        return false;
    const struct tlb_entry *e = &mv->data[mode][tlb_index(gva)];
    if (gva + e->ntag_r >= PAGE_SIZE)
        return false;
    out->gpa = (e->gpa & ~PAGE_MASK) | (gva & PAGE_MASK);
    out->host = (void *)(uintptr_t)(e->host + (gva & PAGE_MASK));
    if (!(access & ACCESS_WRITE) || gva + e->ntag_w < PAGE_SIZE)
        return true;
    out->host = NULL;
    return e->gpa & TLB_GPA_WRITE_EMUL;
}

enum xlate_result mmu_translate(struct mmu_vcpu *mv, gva_t gva, unsigned access, struct xlate *out)
{
    if (translate_from_tlb(mv, gva, access, out))
        return XLATE_OK;
    mv->mmu->stats.tlb_misses++;
    enum xlate_result result = mv->mmu->ops->translate(mv, gva, access, out);
    mv->mmu->stats.faults_injected += result == XLATE_FAULT;
    event_happened(mv->mmu);
    return result;
}

static bool is_canonical(const struct paging_regs *r, gva_t gva)
{
    unsigned spare = paging_format_of(r) == PAGING_5LEVEL ? 7 : 16;
    return (uint64_t)((int64_t)(gva << spare) >> spare) == gva;
}

const struct tlb_fetch_entry *mmu_known_fetch(struct mmu_vcpu *mv, gva_t gva)
{
    struct mmu *mmu = mv->mmu;
    const struct tlb_fetch_entry *e = tlb_lookup_fetch(mv, gva);
    if (e || !mmu->ops->known || !is_canonical(&mv->regs, gva))
        return e;
    if (unlikely(mmu->stale)) /* the detector is to see the guest's tables at each fill */
        return NULL;
    mmu_lock(mmu);
    bool filled = mmu->ops->known(mv, gva, ACCESS_FETCH);
    mmu_unlock(mmu);
    if (!filled)
        return NULL;
    mmu->stats.tlb_misses++;
    event_happened(mmu);
    return tlb_lookup_fetch(mv, gva);
}

enum xlate_result mmu_peek_translate(struct mmu_vcpu *mv, gva_t gva, unsigned access, struct xlate *out)
{
    struct gwalk w;
    gwalk(mv->mem, &mv->regs, gva, access | GWALK_PEEK, &w);
    *out = (struct xlate){.gpa = w.gpa, .error = w.error};
    return w.result == GWALK_OK ? XLATE_OK : XLATE_FAULT;
}

void mmu_guest_flush(struct mmu_vcpu *mv, enum guest_flush what, gva_t gva)
{
    mmu_guest_flush_pcid(mv, what, 0, gva);
}

/* Tables of another PCID are brought up to date with all others. */
static enum guest_flush engine_flush(enum guest_flush what)
{
    return what <= GUEST_FLUSH_ALL ? what : GUEST_FLUSH_ALL;
}

void mmu_guest_flush_pcid(struct mmu_vcpu *mv, enum guest_flush what, unsigned pcid, gva_t gva)
{
    bool page = what == GUEST_FLUSH_PAGE || what == GUEST_FLUSH_PCID_PAGE;
    trace_point(mv->mmu->trace, TRACE_MMU_FLUSH, gva, what, 0, 0);
    if (unlikely(mv->mmu->unsync) && mv->set) {
        mmu_lock(mv->mmu);
        mv->mmu->ops->guest_flush(mv, engine_flush(what), gva);
        mmu_unlock(mv->mmu);
    }
    if (likely(!mv->mmu->stale))
        return;
    /* The detector hears of uses by TLB fills: what the guest flushed must be filled again, so that its next use is
     * noted. */
    if (!stale_note_flush(mv, what, pcid, gva) && page)
        tlb_vcpu_drop_page(mv, gva);
    else
        clear_sets(mv);
}

/* ---- printing ---- */

static const char *const level_names[] = {"", "PTE", "PDE", "PDPTE", "PML4E", "PML5E"};

static void print_entry(const struct gwalk *w, const struct gwalk_level *at, char *text, size_t size)
{
    static const struct {
        uint64_t bit;
        char letter;
    } bits[] = {{1, 'P'},  {2, 'W'},  {4, 'U'},   {8, 'T'},   {16, 'C'},
                {32, 'A'}, {64, 'D'}, {128, 'S'}, {256, 'G'}, {1ull << 63, 'X'}};
    char flags[ARRAY_LEN(bits) + 1];
    for (size_t i = 0; i < ARRAY_LEN(bits); i++)
        flags[i] = (at->gpte & bits[i].bit) ? bits[i].letter : '-';
    flags[ARRAY_LEN(bits)] = 0;
    if (at->gpte_gpa == ~(gpa_t)0)
        snprintf(text, size, "  %-5s register    = %016" PRIx64 " %s", level_names[at->level], at->gpte, flags);
    else
        snprintf(text, size, "  %-5s at %09" PRIx64 " = %0*" PRIx64 " %s", level_names[at->level], at->gpte_gpa,
                 w->format == PAGING_32 ? 8 : 16, at->gpte, flags);
}

static const char *walk_verdict(const struct gwalk *w)
{
    if (w->result == GWALK_NOMEM)
        return "no memory at the table's address";
    if (w->result == GWALK_FAULT)
        return (w->error & PF_RSVD) ? "reserved bit set" : (w->error & PF_PRESENT) ? "not permitted" : "not present";
    return "";
}

void mmu_print_walk(struct mmu_vcpu *mv, gva_t gva, void (*line)(void *ctx, const char *text), void *ctx)
{
    static const char *const formats[] = {"paging off", "32-bit", "PAE", "4-level", "5-level", "EPT"};
    char text[160];
    struct gwalk w;
    gwalk(mv->mem, &mv->regs, gva, ACCESS_READ | ACCESS_IMPLICIT | GWALK_PEEK, &w);
    snprintf(text, sizeof(text), "walk of 0x%" PRIx64 " (%s, cr3 0x%" PRIx64 ")", gva, formats[w.format], mv->regs.cr3);
    line(ctx, text);
    for (int i = 0; i < w.depth; i++) {
        if (mv->mmu->ops->print_stage2 && w.at[i].gpte_gpa != ~(gpa_t)0)
            mv->mmu->ops->print_stage2(mv, w.at[i].gpte_gpa, line, ctx);
        print_entry(&w, &w.at[i], text, sizeof(text));
        line(ctx, text);
    }
    if (w.result == GWALK_OK || w.leaf_level)
        snprintf(text, sizeof(text), "  -> gpa 0x%" PRIx64 " level %d %s%s%s%s", w.gpa, w.leaf_level,
                 w.writable ? "writable " : "read-only ", w.user ? "user " : "supervisor ",
                 w.nx ? "no-execute" : "executable", w.global ? " global" : "");
    else
        snprintf(text, sizeof(text), "  -> no translation: %s", walk_verdict(&w));
    line(ctx, text);
    if (mv->mmu->ops->print_stage2 && w.result == GWALK_OK)
        mv->mmu->ops->print_stage2(mv, w.gpa, line, ctx);
}
