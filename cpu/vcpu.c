/*
 * A vCPU's life: creation, reset, pins, flags. Its saved and printed forms are in vcpu_state.c.
 */
#include "core/alloc.h"
#include "core/stats.h"
#include "cpu/code_cache.h"
#include "cpu/cpuid.h"
#include "cpu/kvm_pv.h"
#include "cpu/monitor.h"
#include "cpu/smm.h"
#include "cpu/system.h"

#include <stdio.h>
#include <stdlib.h>

/* One row a counter of struct vcpu_stats: field, unit. */
#define VCPU_STATS(X)                                                                                                  \
    X(blocks, "blocks")                                                                                                \
    X(block_stops, "blocks")                                                                                           \
    X(exceptions, "events")                                                                                            \
    X(interrupts, "events")                                                                                            \
    X(mem_slow, "accesses")                                                                                            \
    X(steps, "blocks")                                                                                                 \
    X(halts, "events")

enum vcpu_stat {
#define X(field, unit) STAT_##field,
    VCPU_STATS(X)
#undef X
        STAT_COUNT
};

/* What vcpu_create() allocates: the vCPU and the names of its counters, which carry its number. */
struct vcpu_box {
    struct vcpu v;
    char stat_name[STAT_COUNT][32];
};

/* The TLB-miss reports of the MMU ask where the access came from. The slow paths have set v->rip. */
static uint64_t rip_of(void *ctx)
{
    return ((const struct vcpu *)ctx)->rip;
}

struct vcpu *vcpu_create(const struct vcpu_config *cfg)
{
    struct vcpu_box *box = alloc_zeroed(1, sizeof *box);
    struct vcpu *v = &box->v;
    v->index = cfg->index;
    v->mv = cfg->mv;
    v->mem = cfg->mem;
    v->ports = cfg->ports;
    v->clock = cfg->clock;
    v->code = cfg->code;
    v->code_generation = cfg->code ? code_cache_generation(cfg->code) : NULL;
    v->jit = cfg->jit;
    v->log = cfg->log;
    v->trace = cfg->trace;
    v->model = cfg->model;
    code_cache_set_gates(v->code, v->model->gates);
    v->topology = cfg->topology.sockets ? cfg->topology : topology_flat(1);
    v->apic_id = topology_apic_id(&v->topology, v->index);
    v->debug_rep_lin = UINT64_MAX;
    v->rng_state = cfg->rng_seed;
    v->chain_epoch = CHAIN_CLOSED;
    v->a20_mask = ~0ull;
    v->pv = kvm_pv_create(v, cfg->wall_base);
    v->mv->rip = rip_of;
    v->mv->rip_ctx = v;
    vcpu_reset(v, false);
    return v;
}

void vcpu_destroy(struct vcpu *v)
{
    if (!v)
        return;
    v->mv->rip = NULL;
    kvm_pv_destroy(v->pv);
    monitor_fini(v);
    free(container_of(v, struct vcpu_box, v));
}

/* ---- reset: SDM volume 3, table 10-1 ---- */

static void reset_segments(struct vcpu *v)
{
    const uint16_t data = SEG_ATTR_P | ATTR_S | ATTR_RW | ATTR_ACCESSED;
    for (int s = SEG_ES; s <= SEG_GS; s++)
        vcpu_set_segment(v, s, 0, 0, 0xffff, data);
    vcpu_set_segment(v, SEG_CS, 0xf000, 0xffff0000, 0xffff, data);
    v->ldtr = (struct segment){.limit = 0xffff, .attr = SEG_ATTR_P | SYS_LDT};
    v->tr = (struct segment){.limit = 0xffff, .attr = SEG_ATTR_P | SYS_TSS_BUSY};
    v->gdtr = v->idtr = (struct desc_table){.limit = 0xffff};
}

/* RESET alone; INIT leaves these as they are. */
static void reset_fpu(struct vcpu *v)
{
    memset(&v->fpu, 0, sizeof v->fpu);
    memset(v->xmm, 0, sizeof v->xmm);
    v->fpu.fcw = 0x40;
    v->fpu.tag = 0xff; /* eight zeros, none empty */
    v->mxcsr = 0x1f80;
    v->xcr0 = 1;
}

static void reset_events(struct vcpu *v)
{
    v->int_shadow = v->shadow_is_movss = v->nmi_blocked = v->pending_single_step = false;
    v->nmi_pending = v->init_pending = v->smi_pending = v->sipi_pending = false;
    v->pending_dbg = 0;
    monitor_disarm(v);
    v->attn |= ATTN_BOUNDARY;
    v->activity = v->index == 0 ? VCPU_RUNNING : VCPU_WAIT_SIPI;
}

static void log_reset(const struct vcpu *v, bool init)
{
    log_emit(v->log, LOG_RESET, "cpu%u: %s at rip 0x%llx, cr0 0x%llx, cr3 0x%llx, icount %llu", v->index,
             init ? "INIT" : "reset", (unsigned long long)v->rip, (unsigned long long)v->cr0,
             (unsigned long long)v->cr3, (unsigned long long)v->clock->icount);
}

void vcpu_reset(struct vcpu *v, bool init)
{
    log_reset(v, init);
    memset(v->gpr, 0, sizeof v->gpr);
    cpuid_forget(v);
    v->gpr[REG_2G] = 1u << 31;
    v->gpr[REG_RDX] = cpu_signature(v->model);
    v->rip = 0xfff0;
    v->exit_slot = 2;
    v->synced = 0;
    reset_segments(v);
    v->cr0 = CR0_ET | (init ? v->cr0 & (CR0_CD | CR0_NW) : CR0_CD | CR0_NW);
    v->cr2 = v->cr3 = v->cr4 = v->efer = 0;
    memset(v->pdpte, 0, sizeof v->pdpte);
    memset(v->dr, 0, sizeof v->dr);
    v->dr[6] = 0xffff0ff0;
    v->dr[7] = 0x400;
    v->pkru = v->pkrs = 0;
    if (!init) {
        v->in_smm = v->smm_kept_nmi_blocked = false;
        v->smbase = SMM_RESET_BASE;
        reset_fpu(v);
        msr_reset(v);
    }
    kvm_pv_reset(v);
    reset_events(v);
    v->rflags = 2;
    vcpu_set_rflags(v, 2);
    vcpu_refresh(v);
}

/* ---- pins ---- */

void vcpu_set_intc(struct vcpu *v, const struct cpu_intc *intc)
{
    v->intc = intc;
}

/* Ignored by a processor that does not wait, nor will at the next boundary; the first of several is the one that
 * counts.
 */
static void sipi_set(struct vcpu *v)
{
    if (v->sipi_pending || (!v->init_pending && v->activity != VCPU_WAIT_SIPI))
        return;
    v->sipi_pending = true;
    v->sipi_vector = v->intc->sipi_vector(v->intc->ctx);
}

static void pin_set(void *ctx, unsigned n, bool level)
{
    struct vcpu *v = ctx;
    if (n == CPU_PIN_INTR)
        v->intr_pin = level;
    if (level) {
        v->attn |= ATTN_BOUNDARY;
        switch (n) {
        case CPU_PIN_NMI:
            v->nmi_pending = true;
            break;
        case CPU_PIN_SMI:
            v->smi_pending = true;
            break;
        case CPU_PIN_INIT:
            v->init_pending = true;
            v->sipi_pending = false;
            break;
        case CPU_PIN_SIPI:
            sipi_set(v);
            break;
        default:
            break;
        }
    }
    if (level)
        kvm_pv_pin(v);
}

struct irq_line vcpu_pin(struct vcpu *v, enum cpu_pin pin)
{
    return (struct irq_line){.set = pin_set, .ctx = v, .n = pin};
}

void vcpu_set_a20(struct vcpu *v, bool enabled)
{
    v->a20_mask = enabled ? ~0ull : ~(1ull << 20);
    v->attn |= ATTN_BOUNDARY;
    mode_load_mmu(v);
}

/* ---- flags ---- */

uint64_t vcpu_rflags(const struct vcpu *v)
{
    return v->rflags | flags_image(v);
}

void vcpu_set_rflags(struct vcpu *v, uint64_t value)
{
    uint64_t changed = v->rflags ^ value;
    flags_set_image(v, value);
    v->rflags = (value & FLAGS_KEPT) | 2;
    if (changed & FLAG_AC)
        mmu_vcpu_set_mode(v->mv, v->cpl, value & FLAG_AC);
}

void vcpu_load_flags(struct vcpu *v, uint64_t value, uint64_t mask)
{
    vcpu_set_rflags(v, (vcpu_rflags(v) & ~mask) | (value & mask));
}

/* ---- the rest ---- */

/* splitmix64: every state has its successor, so any seed will do. */
uint64_t vcpu_random(struct vcpu *v)
{
    uint64_t z = v->rng_state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

void vcpu_register_stats(struct vcpu *v, struct stats *s)
{
    struct vcpu_box *box = container_of(v, struct vcpu_box, v);
    static const char *const field[] = {
#define X(field, unit) #field,
        VCPU_STATS(X)
#undef X
    };
    for (unsigned k = 0; k < STAT_COUNT; k++)
        snprintf(box->stat_name[k], sizeof box->stat_name[k], "cpu%u.%s", v->index, field[k]);
#define X(field, unit) stats_add(s, box->stat_name[STAT_##field], unit, &v->stats.field);
    VCPU_STATS(X)
#undef X
}
