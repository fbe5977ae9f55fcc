/*
 * A vCPU's saved form (every architectural field, pending events included; caches and history are not), and its
 * printed form.
 */
#include "core/snapshot.h"
#include "cpu/cpuid.h"
#include "cpu/kvm_pv.h"
#include "cpu/monitor.h"
#include "cpu/system.h"

#include <stdarg.h>
#include <stdio.h>

#define CPU_SECTION_VERSION 4

/* ---- the saved form: one list of fields, walked by both directions ---- */

struct state_io {
    struct snap_writer *w; /* saving, if set */
    struct snap_reader *r;
};

static void io_bytes(const struct state_io *io, void *p, unsigned size)
{
    uint64_t x = 0;
    if (io->w) {
        memcpy(&x, p, size);
        if (size == 1)
            snap_put_u8(io->w, (uint8_t)x);
        else if (size == 2)
            snap_put_u16(io->w, (uint16_t)x);
        else if (size == 4)
            snap_put_u32(io->w, (uint32_t)x);
        else
            snap_put_u64(io->w, x);
        return;
    }
    x = size == 1   ? snap_get_u8(io->r)
        : size == 2 ? snap_get_u16(io->r)
        : size == 4 ? snap_get_u32(io->r)
                    : snap_get_u64(io->r);
    memcpy(p, &x, size);
}

#define IO(field)                                                                                                      \
    do {                                                                                                               \
        _Static_assert(sizeof(field) <= 8, "a scalar");                                                                \
        io_bytes(io, &(field), sizeof(field));                                                                         \
    } while (0)
#define IO_ARRAY(array)                                                                                                \
    do {                                                                                                               \
        for (unsigned k_ = 0; k_ < ARRAY_LEN(array); k_++)                                                             \
            IO((array)[k_]);                                                                                           \
    } while (0)

/* A bool must be 0 or 1, whatever the file says. */
static void io_bool(const struct state_io *io, bool *b)
{
    uint8_t x = *b;
    io_bytes(io, &x, 1);
    *b = x != 0;
}

static void io_segment(const struct state_io *io, struct segment *s)
{
    IO(s->base);
    IO(s->limit);
    IO(s->sel);
    IO(s->attr);
    io_bool(io, &s->unusable);
}

static void io_system(const struct state_io *io, struct vcpu *v)
{
    for (unsigned s = 0; s < ARRAY_LEN(v->seg); s++)
        io_segment(io, &v->seg[s]);
    io_segment(io, &v->ldtr);
    io_segment(io, &v->tr);
    IO(v->gdtr.base);
    IO(v->gdtr.limit);
    IO(v->idtr.base);
    IO(v->idtr.limit);
    IO(v->cr0);
    IO(v->cr2);
    IO(v->cr3);
    IO(v->cr4);
    IO(v->efer);
    IO(v->xcr0);
    IO_ARRAY(v->dr);
    IO_ARRAY(v->pdpte);
    IO(v->pkru);
    IO(v->pkrs);
    IO(v->a20_mask);
    IO(v->cpl);
}

static void io_msrs(const struct state_io *io, struct msrs *m)
{
    uint64_t *const scalar[] = {
        &m->star,           &m->lstar,        &m->cstar,        &m->fmask,      &m->kernel_gs_base,  &m->sysenter_cs,
        &m->sysenter_esp,   &m->sysenter_eip, &m->pat,          &m->tsc_aux,    &m->tsc_adjust,      &m->misc_enable,
        &m->spec_ctrl,      &m->debugctl,     &m->xss,          &m->mcg_status, &m->feature_control, &m->smi_count,
        &m->pkg_cst_config, &m->power_ctl,    &m->mtrr_def_type};
    _Static_assert(sizeof(struct msrs) == 8 * (ARRAY_LEN(scalar) + 11 + 2 * MTRR_VARIABLE), "every field is saved");
    for (unsigned k = 0; k < ARRAY_LEN(scalar); k++)
        IO(*scalar[k]);
    IO_ARRAY(m->mtrr_fixed);
    IO_ARRAY(m->mtrr_base);
    IO_ARRAY(m->mtrr_mask);
}

static void io_fpu(const struct state_io *io, struct vcpu *v)
{
    for (unsigned k = 0; k < 8; k++) {
        IO(v->fpu.st[k].mant);
        IO(v->fpu.st[k].exp);
    }
    IO(v->fpu.fcw);
    IO(v->fpu.fsw);
    IO(v->fpu.top);
    IO(v->fpu.tag);
    IO(v->fpu.fop);
    IO(v->fpu.fcs);
    IO(v->fpu.fds);
    IO(v->fpu.fip);
    IO(v->fpu.fdp);
    io_bool(io, &v->fpu.ignored);
    for (unsigned k = 0; k < 16; k++)
        IO_ARRAY(v->xmm[k].q);
    IO(v->mxcsr);
}

static void io_events(const struct state_io *io, struct vcpu *v)
{
    uint8_t activity = (uint8_t)v->activity;
    IO(activity);
    v->activity = activity;
    bool *const flag[] = {&v->int_shadow,   &v->shadow_is_movss, &v->nmi_blocked,
                          &v->intr_pin,     &v->nmi_pending,     &v->init_pending,
                          &v->sipi_pending, &v->smi_pending,     &v->pending_single_step};
    for (unsigned k = 0; k < ARRAY_LEN(flag); k++)
        io_bool(io, flag[k]);
    IO(v->sipi_vector);
    IO(v->pending_dbg);
    IO(v->monitor.line);
    IO(v->monitor.as);
    io_bool(io, &v->monitor.armed);
    io_bool(io, &v->monitor.written);
    io_bool(io, &v->monitor.waiting);
    io_bool(io, &v->monitor.breaks);
    io_bool(io, &v->in_smm);
    io_bool(io, &v->smm_kept_nmi_blocked);
    IO(v->smbase);
    IO(v->rng_state);
}

static void io_triple(const struct state_io *io, struct exc_record *t)
{
    IO(t->icount);
    IO(t->rip);
    IO(t->cr2);
    IO(t->error);
    IO(t->vector);
    io_bool(io, &t->has_error);
}

static void io_all(const struct state_io *io, struct vcpu *v)
{
    uint64_t flags = vcpu_rflags(v);
    for (unsigned k = 0; k < 16; k++)
        IO(v->gpr[k]);
    IO(v->rip);
    IO(flags);
    io_system(io, v);
    io_msrs(io, &v->msr);
    io_fpu(io, v);
    io_events(io, v);
    io_triple(io, &v->triple);
    if (io->r)
        vcpu_set_rflags(v, flags);
}

static void section_name(const struct vcpu *v, char *name, size_t size)
{
    snprintf(name, size, "cpu%u", v->index);
}

void vcpu_save(const struct vcpu *v, struct snap_writer *w)
{
    struct state_io io = {.w = w};
    char name[SNAP_NAME_MAX];
    section_name(v, name, sizeof name);
    snap_begin(w, name, CPU_SECTION_VERSION);
    io_all(&io, (struct vcpu *)(uintptr_t)v); /* reads only, with io.w set */
    snap_end(w);
    kvm_pv_save(v, w);
}

/* A file may say anything; what would break an assumption of the code is refused. */
static void check_loaded(struct vcpu *v, struct snap_reader *r)
{
    if (v->fpu.top > 7 || v->activity > VCPU_SHUTDOWN || v->cpl > 3)
        snap_fail(r, "cpu%u: top %u, activity %u or cpl %u out of range", v->index, v->fpu.top, (unsigned)v->activity,
                  v->cpl);
    if (v->activity != VCPU_RUNNING && (v->int_shadow || v->shadow_is_movss))
        snap_fail(r, "cpu%u: halted in an interrupt shadow", v->index);
    if (v->monitor.as > 1 || (v->monitor.waiting && (v->activity != VCPU_HALTED || !v->monitor.armed)))
        snap_fail(r, "cpu%u: waits for nothing", v->index);
    if (v->a20_mask != ~0ull && v->a20_mask != ~(1ull << 20))
        snap_fail(r, "cpu%u: A20 mask out of range", v->index);
    if (v->xcr0 & ~(v->model->xcr0 | XSTATE_X87) || !(v->xcr0 & XSTATE_X87) ||
        (v->xcr0 & XSTATE_AVX && !(v->xcr0 & XSTATE_SSE)))
        snap_fail(r, "cpu%u: XCR0 out of range", v->index);
    if (!!(v->efer & EFER_LMA) != ((v->efer & EFER_LME) && (v->cr0 & CR0_PG)) ||
        ((v->cr0 & CR0_PG) && !(v->cr0 & CR0_PE)) || (v->efer & EFER_LMA && !(v->cr4 & CR4_PAE)))
        snap_fail(r, "cpu%u: control registers contradict each other", v->index);
    if (v->rflags & FLAG_VM && (!(v->cr0 & CR0_PE) || v->efer & EFER_LMA || v->cpl != 3))
        snap_fail(r, "cpu%u: virtual-8086 mode where there can be none", v->index);
}

void vcpu_load(struct vcpu *v, struct snap_reader *r)
{
    struct state_io io = {.r = r};
    char name[SNAP_NAME_MAX];
    section_name(v, name, sizeof name);
    if (!snap_expect(r, name, CPU_SECTION_VERSION))
        return;
    monitor_disarm(v);
    io_all(&io, v);
    check_loaded(v, r);
    kvm_pv_load(v, r);
    if (snap_reader_error(r)) {
        v->monitor.armed = false; /* as read, but not watched yet */
        vcpu_reset(v, false);
        return;
    }
    cpuid_forget(v);
    v->exit_slot = 2;
    v->synced = 0;
    v->attn = ATTN_BOUNDARY;
    v->history_count = 0;
    monitor_restore(v);
    vcpu_mode_changed(v);
}

/* ---- the printed form ---- */

struct printer {
    void (*line)(void *ctx, const char *text);
    void *ctx;
};

static __attribute__((format(printf, 2, 3))) void print(const struct printer *p, const char *fmt, ...)
{
    char text[200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    p->line(p->ctx, text);
}

#define LL(x) ((unsigned long long)(x))

static void print_gprs(const struct printer *p, const struct vcpu *v)
{
    static const char *const name[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                       "r8 ", "r9 ", "r10", "r11", "r12", "r13", "r14", "r15"};
    for (unsigned k = 0; k < 16; k += 4)
        print(p, "%s %016llx  %s %016llx  %s %016llx  %s %016llx", name[k], LL(v->gpr[k]), name[k + 1],
              LL(v->gpr[k + 1]), name[k + 2], LL(v->gpr[k + 2]), name[k + 3], LL(v->gpr[k + 3]));
}

static void print_segment(const struct printer *p, const char *name, const struct segment *s)
{
    print(p, "%-4s %04x  base %016llx  limit %08x  attr %04x%s", name, s->sel, LL(s->base), s->limit, s->attr,
          s->unusable ? "  null" : "");
}

void vcpu_print(const struct vcpu *v, void (*line)(void *ctx, const char *text), void *ctx)
{
    static const char *const activity[] = {"running", "halted", "waiting for SIPI", "shut down"};
    static const char *const seg[] = {"es", "cs", "ss", "ds", "fs", "gs"};
    const struct printer p = {line, ctx};
    print(&p, "cpu%u  rip %016llx  rflags %08llx  cpl %u  mode %03x  %s", v->index, LL(v->rip), LL(vcpu_rflags(v)),
          v->cpl, v->mode, activity[v->activity]);
    print_gprs(&p, v);
    print(&p, "cr0 %08llx  cr2 %016llx  cr3 %016llx  cr4 %08llx  efer %04llx", LL(v->cr0), LL(v->cr2), LL(v->cr3),
          LL(v->cr4), LL(v->efer));
    for (unsigned s = 0; s < 6; s++)
        print_segment(&p, seg[s], &v->seg[s]);
    print_segment(&p, "ldtr", &v->ldtr);
    print_segment(&p, "tr", &v->tr);
    print(&p, "gdtr base %016llx limit %04x  idtr base %016llx limit %04x", LL(v->gdtr.base), v->gdtr.limit,
          LL(v->idtr.base), v->idtr.limit);
}
