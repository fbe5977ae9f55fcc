/*
 * Inspectors: a second address space that mirrors a machine's RAM, with memslots and an MMU of its own.
 *
 *   the machine's host_mm --bus--> the mirror VMAs of the inspector's host_mm --bus--> the inspector's MMU
 *   the machine's tracking --------------------------------------------------------> the inspector's tracking
 *
 * The slots are ROM: reads are direct, and a write goes to the inspector's bus, where the device `owner` hands it to
 * the machine's memory hook.
 */
#include "core/memory.h"
#include "frontends/machine/inspect.h"
#include "frontends/machine/machine.h"
#include "mmu/ept/ept.h"
#include "mmu/mem_mirror.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Places that inspector_compare() looks at: of memory at random, and as much again where the guest works. */
#define LOOKS 16

struct owner_window {
    struct inspector *in;
    gpa_t base;
};

struct inspector {
    struct machine *machine;
    struct host_mm *mm;
    struct bus bus;
    struct mem *mem;
    struct mmu *mmu;
    struct guest_memory owner; /* the machine's hook */
    struct owner_window window[4];
    unsigned windows;
    struct notifier counter; /* counts what comes down */
    struct inspector_counters counters;
};

/* ---- the chain ---- */

static int on_range_start(struct notifier *n, const struct notify_range *range)
{
    container_of(n, struct inspector, counter)->counters.invalidations++;
    return 0;
}

static void on_change_pte(struct notifier *n, hva_t hva, struct hpte_view hpte)
{
    container_of(n, struct inspector, counter)->counters.invalidations++;
}

static const struct notifier_ops counter_ops = {.invalidate_range_start = on_range_start, .change_pte = on_change_pte};

static uint64_t owner_read(void *dev, const struct bus_txn *t)
{
    const struct owner_window *w = dev;
    uint64_t value = 0;
    guest_mem_read(&w->in->owner, w->base + t->offset, &value, t->size, MEM_DMA);
    return value;
}

static void owner_write(void *dev, const struct bus_txn *t, uint64_t value)
{
    const struct owner_window *w = dev;
    guest_mem_write(&w->in->owner, w->base + t->offset, &value, t->size, MEM_DMA);
}

static const struct bus_ops owner_ops = {owner_read, owner_write};

/* ---- life ---- */

/* A part of the machine's memory, mirrored. */
static bool add_part(struct inspector *in, gpa_t gpa, uint64_t len, hva_t source, struct error *e)
{
    hva_t hva = host_mm_mmap_mirror(in->mm, in->machine->mm, source, len);
    struct owner_window *w = &in->window[in->windows++];
    *w = (struct owner_window){in, gpa};
    return (hva && !mem_slot_add(in->mem, 0, gpa, len, hva, MEMSLOT_ROM) &&
            bus_add(&in->bus, gpa, len, &owner_ops, w, "the mirrored machine") == BUS_OK) ||
           error_set(e, "cannot mirror memory at 0x%" PRIx64, gpa);
}

/* RAM without the hole below 1 MiB, as in memory.c. */
static bool add_parts(struct inspector *in, struct error *e)
{
    const struct machine *m = in->machine;
    const uint64_t hole = 0xa0000, high = 0x100000;
    return add_part(in, 0, hole, m->low_hva, e) && add_part(in, high, m->low_ram - high, m->low_hva + high, e) &&
           (!m->high_ram || add_part(in, 1ull << 32, m->high_ram, m->high_hva, e));
}

static bool build(struct inspector *in, enum machine_mmu mmu, struct error *e)
{
    static const enum mmu_kind kinds[] = {
        [MACHINE_MMU_SHADOW] = MMU_SHADOW, [MACHINE_MMU_WALK] = MMU_WALK, [MACHINE_MMU_EPT] = MMU_EPT};
    bus_init(&in->bus, "mirror", 0, NULL);
    in->mm = host_mm_create(in->machine->pool);
    in->mem =
        in->mm ? mem_create(&(struct mem_config){.mm = in->mm, .mmio = &in->bus, .log = &in->machine->log}) : NULL;
    if (!in->mem)
        return error_set(e, "out of memory");
    mem_mirror_link(in->mem, in->machine->mem);
    in->mmu = mmu_create(&(struct mmu_config){.kind = kinds[mmu], .mem = in->mem, .vcpus = 1});
    if (mmu == MACHINE_MMU_EPT) /* without A and D a walk writes nothing, and the tables may lie in memory that cannot
                                   be written */
        ept_configure(in->mmu, &(struct ept_config){.levels = 4, .x_only = true});
    mem_hook(in->machine->mem, &in->owner);
    return add_parts(in, e) && (!notifier_register(&in->counter, in->mm, &counter_ops) || error_set(e, "no memory"));
}

struct inspector *inspector_open(struct machine *m, enum machine_mmu mmu, struct error *e)
{
    struct inspector *in = calloc(1, sizeof *in);
    if (!in) {
        error_set(e, "out of memory");
        return NULL;
    }
    in->machine = m;
    if (build(in, mmu, e))
        return in;
    inspector_close(in);
    return NULL;
}

void inspector_close(struct inspector *in)
{
    if (!in)
        return;
    notifier_unregister(&in->counter);
    mmu_destroy(in->mmu);
    mem_destroy(in->mem);
    if (in->mm)
        host_mm_destroy(in->mm);
    bus_fini(&in->bus);
    free(in);
}

/* ---- looking ---- */

size_t inspector_read_gpa(struct inspector *in, uint64_t gpa, void *buf, size_t len)
{
    for (size_t done = 0, part; done < len; done += part) {
        part = PAGE_SIZE - ((gpa + done) & PAGE_MASK);
        part = part < len - done ? part : len - done;
        if (mem_is_device(in->mem, 0, gpa + done, false) ||
            mem_access(in->mem, 0, gpa + done, (uint8_t *)buf + done, part, MEM_DMA, false, BUS_NO_CPU))
            return done;
    }
    return len;
}

/* The machine's registers are the inspector's, but for the privilege; its tables are in ROM, so A and D stay as the
 * guest knows them. */
static struct mmu_vcpu *load(struct inspector *in, unsigned cpu)
{
    struct mmu_vcpu *mv = mmu_vcpu_get(in->mmu, 0);
    struct paging_regs regs = in->machine->cpu[cpu]->mv->regs;
    regs.cpl = 0;
    regs.ac = false;
    mmu_vcpu_load(mv, &regs);
    return mv;
}

static bool is_address(const struct vcpu *v, uint64_t gva)
{
    unsigned shift = v->mv->regs.cr4 & CR4_LA57 ? 7 : 16;
    return v->efer & EFER_LMA ? (uint64_t)((int64_t)(gva << shift) >> shift) == gva : !(gva >> 32);
}

bool inspector_gva_to_gpa(struct inspector *in, unsigned cpu, uint64_t gva, uint64_t *gpa)
{
    struct xlate x;
    if (!is_address(in->machine->cpu[cpu], gva) || mmu_translate(load(in, cpu), gva, ACCESS_READ, &x) != XLATE_OK)
        return false;
    *gpa = x.gpa;
    return true;
}

/* By the TLB, or else by the pointer that the MMU gives, as a vCPU would. Within a page. */
static bool read_part(struct inspector *in, unsigned cpu, uint64_t gva, void *buf, unsigned len)
{
    struct mmu_vcpu *mv = load(in, cpu);
    const void *host = tlb_lookup_read(mv, gva, len);
    struct xlate x;
    if (!host && mmu_translate(mv, gva, ACCESS_READ, &x) != XLATE_OK)
        return false;
    host = host ? host : x.host;
    if (!host)
        return inspector_read_gpa(in, x.gpa, buf, len) == len;
    memcpy(buf, host, len);
    return true;
}

size_t inspector_read_gva(struct inspector *in, unsigned cpu, uint64_t gva, void *buf, size_t len)
{
    for (size_t done = 0, part; done < len; done += part) {
        part = PAGE_SIZE - ((gva + done) & PAGE_MASK);
        part = part < len - done ? part : len - done;
        if (!is_address(in->machine->cpu[cpu], gva + done) ||
            !read_part(in, cpu, gva + done, (uint8_t *)buf + done, (unsigned)part))
            return done;
    }
    return len;
}

bool inspector_write_gpa(struct inspector *in, uint64_t gpa, const void *buf, size_t len)
{
    for (gpa_t at = gpa & ~PAGE_MASK; at < gpa + len; at += PAGE_SIZE)
        if (mem_is_device(in->machine->mem, 0, at, true) || mem_is_device(in->mem, 0, at, false))
            return false;
    return gpa + len >= gpa &&
           mem_access(in->mem, 0, gpa, (void *)(uintptr_t)buf, len, MEM_DMA, true, BUS_NO_CPU) == MEM_OK;
}

static void audit_line(void *ctx, const char *line)
{
    fprintf(ctx, "audit: mirror: %s\n", line);
}

unsigned inspector_audit(struct inspector *in, FILE *out)
{
    return mmu_audit(in->mmu, true, out ? audit_line : NULL, out);
}

struct inspector_counters inspector_counters(const struct inspector *in)
{
    struct inspector_counters c = in->counters;
    c.fills = host_mm_counters(in->mm)->mirror_fills;
    c.writes = mem_mirror_writes(in->mem);
    return c;
}

/* ---- -audit-mirror ---- */

static uint64_t next_random(uint64_t *s)
{
    uint64_t z = *s += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    return z ^ z >> 27;
}

static uint64_t random_gpa(const struct inspector *in, uint64_t *seed)
{
    uint64_t ram = in->machine->low_ram, at = next_random(seed);
    return at % (at & 3 ? ram : 1 << 20) & ~7ull;
}

static unsigned differs(struct inspector *in, const char *what, uint64_t at, bool same, FILE *out)
{
    in->counters.looks++;
    if (!same && out)
        fprintf(out, "audit: mirror: %s 0x%" PRIx64 " is not what the memory holds, icount %" PRIu64 "\n", what, at,
                in->machine->clock.icount);
    return !same;
}

static unsigned compare_gpa(struct inspector *in, uint64_t gpa, FILE *out)
{
    uint64_t mine = 0, its = 0;
    size_t got = inspector_read_gpa(in, gpa, &mine, 8), there = machine_peek_gpa(in->machine, gpa, &its, 8);
    bool apart = mem_is_device(in->mem, 0, gpa, false); /* what lies between 640 KiB and 1 MiB is not mirrored */
    return differs(in, "gpa", gpa, apart || (got == there && mine == its), out);
}

static unsigned compare_gva(struct inspector *in, unsigned cpu, uint64_t gva, FILE *out)
{
    uint64_t my_gpa = 0, its_gpa = 0, mine = 0, its = 0;
    gva &= ~7ull;
    bool mapped = inspector_gva_to_gpa(in, cpu, gva, &my_gpa);
    bool same = mapped == machine_gva_to_gpa(in->machine, cpu, gva, &its_gpa) && my_gpa == its_gpa;
    in->counters.faults += !mapped;
    if (same && mapped && !mem_is_device(in->mem, 0, its_gpa, false))
        same = inspector_read_gva(in, cpu, gva, &mine, 8) == machine_peek_gva(in->machine, cpu, gva, &its, 8) &&
               mine == its;
    return differs(in, "gva", gva, same, out);
}

unsigned inspector_compare(struct inspector *in, uint64_t seed, FILE *out)
{
    const uint64_t linux_map = 0xffff888000000000; /* where Linux maps all memory */
    unsigned bad = 0, cpu = machine_current_cpu(in->machine);
    const struct vcpu *v = in->machine->cpu[cpu];
    if (v->mv->regs.as) /* in system management mode: an address space that is not mirrored */
        return 0;
    for (unsigned k = 0; k < LOOKS; k++) {
        uint64_t gpa = random_gpa(in, &seed);
        bad += compare_gpa(in, gpa, out);
        bad += compare_gva(in, cpu, k & 1 ? gpa : linux_map + gpa, out);
        bad += compare_gva(in, cpu, v->gpr[k], out);
    }
    bad += compare_gva(in, cpu, v->rip, out);
    return bad + inspector_audit(in, out);
}

void inspector_add_stats(struct inspector *in, struct stats *stats)
{
    stats_add(stats, "mirror.looks", "reads", &in->counters.looks);
    stats_add(stats, "mirror.faults", "reads", &in->counters.faults);
    stats_add(stats, "mirror.invalidations", "ranges", &in->counters.invalidations);
    stats_add(stats, "mirror.fills", "pages", &host_mm_counters(in->mm)->mirror_fills);
}
