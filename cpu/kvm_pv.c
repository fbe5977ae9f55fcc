#include "cpu/kvm_pv.h"
#include "core/alloc.h"
#include "core/snapshot.h"
#include "cpu/cpuid.h"
#include "cpu/system.h"

#include <stdio.h>
#include <stdlib.h>

enum { MSR_WALL_CLOCK_NEW = 0x4b564d00, MSR_SYSTEM_TIME_NEW = 0x4b564d01, MSR_STEAL_TIME = 0x4b564d03 };

#define ENABLED        1ull
#define STEAL_RESERVED 0x3eull /* bits 5:1 of the steal time MSR; the structure is aligned to 64 bytes */
#define NEVER          UINT64_MAX

/* Linux: struct pvclock_vcpu_time_info. */
struct time_info {
    uint32_t version; /* odd while it is written */
    uint32_t pad;
    uint64_t tsc_timestamp, system_time;
    uint32_t tsc_to_system_mul;
    int8_t tsc_shift;
    uint8_t flags;
    uint8_t pad2[2];
};
_Static_assert(sizeof(struct time_info) == 32, "as the guest knows it");

/* ns = (ticks << 1) * 2^31 >> 32: a tick is a nanosecond. */
#define TSC_SHIFT   1
#define TSC_MUL     0x80000000u
#define TIME_STABLE 1 /* PVCLOCK_TSC_STABLE_BIT: the same for all vCPUs */

/* Linux: struct pvclock_wall_clock, the wall-clock time at which system time was 0. */
struct wall_clock {
    uint32_t version, sec, nsec;
};

/* Linux: struct kvm_steal_time, its first 64 bytes being all of it. */
struct steal_time {
    uint64_t steal;
    uint32_t version, flags;
    uint8_t preempted; /* KVM_VCPU_PREEMPTED while it does not run */
    uint8_t pad[47];
};
_Static_assert(sizeof(struct steal_time) == 64, "as the guest knows it");

struct kvm_pv {
    int64_t wall_base;
    uint64_t wall_clock, system_time, steal_time; /* the MSRs */
    struct gfn_cache time_cache, steal_cache;
    bool running;         /* between enter and leave */
    uint64_t ready_since; /* clock time since which it could run and does not, or NEVER */
};

/* ---- life ---- */

struct kvm_pv *kvm_pv_create(struct vcpu *v, int64_t wall_base)
{
    if (!v->model->word[CPUID_KVM_EAX])
        return NULL;
    struct kvm_pv *pv = alloc_zeroed(1, sizeof *pv);
    pv->wall_base = wall_base;
    pv->ready_since = NEVER;
    gfn_cache_init(&pv->time_cache, v->mem);
    gfn_cache_init(&pv->steal_cache, v->mem);
    return pv;
}

void kvm_pv_destroy(struct kvm_pv *pv)
{
    if (!pv)
        return;
    gfn_cache_fini(&pv->time_cache);
    gfn_cache_fini(&pv->steal_cache);
    free(pv);
}

void kvm_pv_reset(struct vcpu *v)
{
    struct kvm_pv *pv = v->pv;
    if (!pv)
        return;
    gfn_cache_deactivate(&pv->time_cache);
    gfn_cache_deactivate(&pv->steal_cache);
    pv->wall_clock = pv->system_time = pv->steal_time = 0;
    pv->ready_since = NEVER;
}

bool kvm_pv_cpuid(const struct vcpu *v, uint32_t leaf, uint32_t out[4])
{
    uint32_t features = v->model->word[CPUID_KVM_EAX];
    if (!features || leaf < 0x40000000 || leaf > 0x40000001)
        return false;
    if (leaf == 0x40000000) {
        out[0] = 0x40000001;
        memcpy(&out[1], "KVMKVMKVM\0\0\0", 12);
    } else {
        out[0] = features;
    }
    return true;
}

/* ---- writing to the guest ---- */

static void put(struct vcpu *v, gpa_t gpa, void *bytes, size_t len)
{
    unsigned as = v->mv->regs.as;
    if (mem_is_device(v->mem, as, gpa, true) || mem_is_device(v->mem, as, gpa + len - 1, true)) {
        log_emit(v->log, LOG_GUEST_ERROR, "cpu%u: KVM structure at gpa 0x%llx, which is no RAM: not written", v->index,
                 (unsigned long long)gpa);
        return;
    }
    mem_access(v->mem, as, gpa, bytes, len, MEM_DMA, true, (int)v->index);
}

/* A cache for the structure that the MSR names; none if it is no RAM or crosses a page. */
static void place(struct vcpu *v, struct gfn_cache *c, gpa_t gpa, size_t len)
{
    enum gfn_cache_error error = gfn_cache_activate(c, v->mv->regs.as, gpa, len);
    if (error && error != GFN_CACHE_NO_FRAME)
        log_emit(v->log, LOG_GUEST_ERROR, "cpu%u: KVM structure at gpa 0x%llx is not inside a page of RAM: ignored",
                 v->index, (unsigned long long)gpa);
}

/* Linux: kvm_setup_guest_pvclock. Nobody can look in between (vCPUs take turns on one thread, so the compiler alone
 * must keep the order); the protocol is kept for those who look by tracking. */
static void write_time(struct vcpu *v)
{
    struct kvm_pv *pv = v->pv;
    if (!(pv->system_time & ENABLED))
        return;
    struct time_info *t = gfn_cache_begin(&pv->time_cache, sizeof *t);
    if (!t)
        return; /* no RAM there; or the host is out of frames, which ends the run anyway */
    t->version = (t->version + 1) | 1;
    __atomic_signal_fence(__ATOMIC_RELEASE);
    t->tsc_timestamp = tsc_read(v);
    t->system_time = clock_now(v->clock);
    t->tsc_to_system_mul = TSC_MUL;
    t->tsc_shift = TSC_SHIFT;
    t->flags = cpu_has(v, CPU_FEATURE_KVMCLOCK_STABLE) ? TIME_STABLE : 0;
    __atomic_signal_fence(__ATOMIC_RELEASE);
    t->version++;
    gfn_cache_end(&pv->time_cache, 0, sizeof *t);
}

/* Linux: record_steal_time. */
static void write_steal(struct vcpu *v, uint64_t stolen)
{
    struct kvm_pv *pv = v->pv;
    if (!(pv->steal_time & ENABLED))
        return;
    struct steal_time *s = gfn_cache_begin(&pv->steal_cache, sizeof *s);
    if (!s)
        return;
    s->preempted = 0;
    s->version = (s->version + 1) | 1;
    __atomic_signal_fence(__ATOMIC_RELEASE);
    s->steal += stolen;
    __atomic_signal_fence(__ATOMIC_RELEASE);
    s->version++;
    gfn_cache_end(&pv->steal_cache, 0, sizeof *s);
}

/* Linux: kvm_steal_time_set_preempted, which may not sleep: if the page is not at hand the guest is not told. Here it
 * is told in any case, since what it sees must not depend on the host. */
static void write_preempted(struct vcpu *v)
{
    struct kvm_pv *pv = v->pv;
    uint8_t preempted = 1;
    if (!(pv->steal_time & ENABLED) || !pv->steal_cache.active)
        return;
    struct steal_time *s = gfn_cache_begin_atomic(&pv->steal_cache, sizeof *s);
    if (!s) {
        put(v, (pv->steal_time & ~63ull) + offsetof(struct steal_time, preempted), &preempted, 1);
        return;
    }
    s->preempted = preempted;
    gfn_cache_end(&pv->steal_cache, offsetof(struct steal_time, preempted), 1);
}

static void write_wall_clock(struct vcpu *v, gpa_t gpa)
{
    struct wall_clock w = {.version = 1, .sec = (uint32_t)v->pv->wall_base};
    put(v, gpa, &w, sizeof w);
    w.version = 2;
    put(v, gpa, &w.version, sizeof w.version);
}

/* ---- MSRs ---- */

bool kvm_pv_msr_read(const struct vcpu *v, uint32_t index, uint64_t *value)
{
    const struct kvm_pv *pv = v->pv;
    bool clock = pv && cpu_has(v, CPU_FEATURE_KVMCLOCK), steal = pv && cpu_has(v, CPU_FEATURE_KVM_STEAL_TIME);
    if (index == MSR_WALL_CLOCK_NEW && clock)
        *value = pv->wall_clock;
    else if (index == MSR_SYSTEM_TIME_NEW && clock)
        *value = pv->system_time;
    else if (index == MSR_STEAL_TIME && steal)
        *value = pv->steal_time;
    else
        return false;
    return true;
}

static void set_system_time(struct vcpu *v, uint64_t value)
{
    v->pv->system_time = value;
    if (value & ENABLED)
        place(v, &v->pv->time_cache, value & ~ENABLED, sizeof(struct time_info));
    else
        gfn_cache_deactivate(&v->pv->time_cache);
    write_time(v);
}

static bool set_steal_time(struct vcpu *v, uint64_t value)
{
    if (value & STEAL_RESERVED)
        return false;
    v->pv->steal_time = value;
    if (value & ENABLED)
        place(v, &v->pv->steal_cache, value & ~63ull, sizeof(struct steal_time));
    else
        gfn_cache_deactivate(&v->pv->steal_cache);
    write_steal(v, 0);
    return true;
}

bool kvm_pv_msr_write(struct vcpu *v, uint32_t index, uint64_t value)
{
    struct kvm_pv *pv = v->pv;
    bool clock = pv && cpu_has(v, CPU_FEATURE_KVMCLOCK), steal = pv && cpu_has(v, CPU_FEATURE_KVM_STEAL_TIME);
    if (index == MSR_WALL_CLOCK_NEW && clock) {
        pv->wall_clock = value;
        write_wall_clock(v, value);
    } else if (index == MSR_SYSTEM_TIME_NEW && clock) {
        set_system_time(v, value);
    } else {
        return index == MSR_STEAL_TIME && steal && set_steal_time(v, value);
    }
    return true;
}

void kvm_pv_tsc_changed(struct vcpu *v)
{
    if (v->pv)
        write_time(v);
}

/* ---- running and not ---- */

void kvm_pv_enter(struct vcpu *v)
{
    struct kvm_pv *pv = v->pv;
    if (likely(!pv) || likely(pv->running))
        return;
    uint64_t now = clock_now(v->clock), stolen = pv->ready_since < now ? now - pv->ready_since : 0;
    pv->running = true;
    pv->ready_since = NEVER;
    write_steal(v, stolen);
    write_time(v);
}

void kvm_pv_leave(struct vcpu *v)
{
    struct kvm_pv *pv = v->pv;
    if (likely(!pv) || !pv->running)
        return;
    pv->running = false;
    uint64_t now = clock_now(v->clock);
    if (v->activity == VCPU_RUNNING)
        pv->ready_since = now;
    else
        pv->ready_since = vcpu_has_wakeup(v) ? now + 1 : NEVER; /* HLT has yet to retire */
    write_preempted(v);
}

void kvm_pv_pin(struct vcpu *v)
{
    struct kvm_pv *pv = v->pv;
    if (pv && !pv->running && pv->ready_since == NEVER && vcpu_has_wakeup(v))
        pv->ready_since = clock_now(v->clock);
}

/* ---- snapshots ---- */

static void section_name(const struct vcpu *v, char *name, size_t size)
{
    snprintf(name, size, "kvm%u", v->index);
}

void kvm_pv_save(const struct vcpu *v, struct snap_writer *w)
{
    const struct kvm_pv *pv = v->pv;
    char name[SNAP_NAME_MAX];
    if (!pv)
        return;
    section_name(v, name, sizeof name);
    snap_begin(w, name, 1);
    snap_put_u64(w, pv->wall_clock);
    snap_put_u64(w, pv->system_time);
    snap_put_u64(w, pv->steal_time);
    snap_put_u8(w, pv->running);
    snap_put_u64(w, pv->ready_since);
    snap_end(w);
}

/* Guest memory is loaded as it was: the structures are found again and nothing is written. */
void kvm_pv_load(struct vcpu *v, struct snap_reader *r)
{
    struct kvm_pv *pv = v->pv;
    char name[SNAP_NAME_MAX];
    section_name(v, name, sizeof name);
    if (!pv || !snap_expect(r, name, 1))
        return;
    kvm_pv_reset(v);
    pv->wall_clock = snap_get_u64(r);
    pv->system_time = snap_get_u64(r);
    pv->steal_time = snap_get_u64(r);
    pv->running = snap_get_u8(r) != 0;
    pv->ready_since = snap_get_u64(r);
    if (pv->ready_since != NEVER && pv->ready_since > clock_now(v->clock) + 1)
        snap_fail(r, "cpu%u: ready to run since a time to come", v->index);
    if (snap_reader_error(r)) {
        kvm_pv_reset(v);
        return;
    }
    if (pv->system_time & ENABLED)
        place(v, &pv->time_cache, pv->system_time & ~ENABLED, sizeof(struct time_info));
    if (pv->steal_time & ENABLED)
        place(v, &pv->steal_cache, pv->steal_time & ~63ull, sizeof(struct steal_time));
}
