#include "frontends/machine/inspect.h"

#include "cpu/insn.h"
#include "frontends/machine/machine.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#define EXCEPTIONS_SHOWN 3

/* Flags that a debugger may set: those that user code may, and TF, IF, RF. */
#define FLAGS_SETTABLE (FLAGS_ARITH | FLAG_TF | FLAG_IF | FLAG_DF | FLAG_NT | FLAG_RF | FLAG_AC | FLAG_ID)

void inspect_say(const struct inspect_out *out, const char *fmt, ...)
{
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    out->line(out->ctx, text);
}

/* ---- processors ---- */

unsigned machine_cpu_count(const struct machine *m)
{
    return m->cpu_count;
}

unsigned machine_current_cpu(const struct machine *m)
{
    return m->turn;
}

/* The tag word as FSTENV stores it has two bits a register; 3 is empty. */
static uint16_t full_tag(const struct x87 *f)
{
    uint16_t tag = 0;
    for (unsigned n = 0; n < 8; n++) {
        unsigned exp = f->st[n].exp & 0x7fff;
        uint64_t mant = f->st[n].mant;
        unsigned t = exp == 0x7fff || (exp && !(mant >> 63)) || (!exp && mant) ? 2 : exp ? 0 : 1;
        tag |= (uint16_t)((f->tag >> n & 1 ? t : 3) << (2 * n));
    }
    return tag;
}

static void get_fpu(const struct vcpu *v, struct inspect_regs *r)
{
    for (unsigned n = 0; n < 8; n++) {
        unsigned phys = (v->fpu.top + n) & 7;
        memcpy(r->st[n], &v->fpu.st[phys].mant, 8);
        memcpy(r->st[n] + 8, &v->fpu.st[phys].exp, 2);
    }
    r->fcw = v->fpu.fcw;
    r->fsw = (uint16_t)((v->fpu.fsw & ~0x3800u) | (v->fpu.top & 7u) << 11);
    r->ftw = full_tag(&v->fpu);
    r->fop = v->fpu.fop;
    r->fip = v->fpu.fip;
    r->fdp = v->fpu.fdp;
    for (unsigned n = 0; n < 16; n++)
        memcpy(r->xmm[n], v->xmm[n].b, 16);
    r->mxcsr = v->mxcsr;
}

void machine_get_regs(const struct machine *m, unsigned cpu, struct inspect_regs *r)
{
    const struct vcpu *v = m->cpu[cpu];
    memset(r, 0, sizeof *r);
    memcpy(r->gpr, v->gpr, sizeof r->gpr);
    r->rip = v->rip;
    r->rflags = vcpu_rflags(v);
    for (unsigned n = 0; n < INSPECT_SEGS; n++) {
        r->sel[n] = v->seg[n].sel;
        r->base[n] = v->seg[n].base;
    }
    r->kernel_gs_base = v->msr.kernel_gs_base;
    r->cr0 = v->cr0;
    r->cr2 = v->cr2;
    r->cr3 = v->cr3;
    r->cr4 = v->cr4;
    r->cr8 = v->intc ? v->intc->get_cr8(v->intc->ctx) : 0;
    r->efer = v->efer;
    get_fpu(v, r);
    r->cpl = v->cpl;
    r->long_mode = v->mode & MODE_LONG;
    r->halted = v->activity != VCPU_RUNNING;
}

/* Which register would have to change that may not? NULL: none. */
static const char *fixed_difference(const struct inspect_regs *old, const struct inspect_regs *new)
{
    if (memcmp(old->sel, new->sel, sizeof old->sel))
        return "a segment register";
    if (memcmp(old->base, new->base, sizeof old->base) || old->kernel_gs_base != new->kernel_gs_base)
        return "a segment base";
    if (old->cr0 != new->cr0 || old->cr2 != new->cr2 || old->cr3 != new->cr3 || old->cr4 != new->cr4 ||
        old->cr8 != new->cr8 || old->efer != new->efer)
        return "a control register";
    if (memcmp(old->st, new->st, sizeof old->st) || old->fcw != new->fcw || old->fsw != new->fsw ||
        old->ftw != new->ftw || old->fop != new->fop || old->fip != new->fip || old->fdp != new->fdp ||
        old->mxcsr != new->mxcsr)
        return "a floating-point register";
    if ((old->rflags ^ new->rflags) & ~FLAGS_SETTABLE)
        return "a privileged flag";
    return NULL;
}

bool machine_set_regs(struct machine *m, unsigned cpu, const struct inspect_regs *r, struct error *e)
{
    struct vcpu *v = m->cpu[cpu];
    struct inspect_regs old;
    machine_get_regs(m, cpu, &old);
    const char *bad = fixed_difference(&old, r);
    if (bad)
        return error_set(e, "%s cannot be set", bad);
    memcpy(v->gpr, r->gpr, sizeof r->gpr);
    v->rip = r->rip;
    for (unsigned n = 0; n < 16; n++)
        memcpy(v->xmm[n].b, r->xmm[n], 16);
    if (old.rflags != r->rflags) {
        vcpu_set_rflags(v, r->rflags);
        vcpu_refresh(v);
    }
    return true;
}

static void print_exceptions(const struct vcpu *v, const struct inspect_out *out)
{
    uint64_t n = v->history_count < EXCEPTIONS_SHOWN ? v->history_count : EXCEPTIONS_SHOWN;
    for (uint64_t k = v->history_count - n; k < v->history_count; k++) {
        const struct exc_record *r = &v->history[k % EXC_HISTORY];
        inspect_say(out, "exception %u error 0x%x at rip 0x%" PRIx64 " cr2 0x%" PRIx64 " (instruction %" PRIu64 ")",
                    r->vector, r->error, r->rip, r->cr2, r->icount);
    }
}

void machine_print_regs(const struct machine *m, unsigned cpu, const struct inspect_out *out)
{
    vcpu_print(m->cpu[cpu], out->line, out->ctx);
    print_exceptions(m->cpu[cpu], out);
}

uint64_t machine_code_address(const struct machine *m, unsigned cpu)
{
    const struct vcpu *v = m->cpu[cpu];
    uint64_t lin = v->seg_base[SEG_CS] + v->rip;
    return v->mode & MODE_CODE64 ? lin : (uint32_t)lin;
}

unsigned machine_disassemble(const struct machine *m, unsigned cpu, uint64_t gva, char *text, size_t size)
{
    const struct vcpu *v = m->cpu[cpu];
    uint8_t bytes[15];
    struct insn i;
    size_t n = machine_peek_gva(m, cpu, gva, bytes, sizeof bytes);
    snprintf(text, size, "(not readable)");
    if (!n)
        return 0;
    memset(&i, 0, sizeof i);
    enum decode_result result = insn_decode(&i, bytes, n, v->mode, 0);
    if (result == DECODE_MORE)
        return 0;
    if (result != DECODE_OK) {
        snprintf(text, size, "(bad)");
        return 1;
    }
    insn_print(&i, gva - v->seg_base[SEG_CS], text, size);
    return i.len;
}

/* ---- memory ---- */

static unsigned space_of(const struct machine *m, unsigned cpu)
{
    return m->cpu[cpu]->mv->regs.as;
}

bool machine_gva_to_gpa(const struct machine *m, unsigned cpu, uint64_t gva, uint64_t *gpa)
{
    struct xlate x;
    const struct vcpu *v = m->cpu[cpu];
    unsigned shift = v->mv->regs.cr4 & CR4_LA57 ? 7 : 16;
    if (v->mode & MODE_LONG && (uint64_t)((int64_t)(gva << shift) >> shift) != gva)
        return false;
    if (!(v->mode & MODE_LONG) && gva >> 32)
        return false;
    if (mmu_peek_translate(v->mv, gva, ACCESS_READ | ACCESS_IMPLICIT, &x) != XLATE_OK)
        return false;
    *gpa = x.gpa;
    return true;
}

static size_t peek_page(const struct machine *m, unsigned as, uint64_t gpa, uint8_t *buf, size_t len)
{
    return mem_access(m->mem, as, gpa, buf, len, MEM_PEEK, false, BUS_NO_CPU) == MEM_OK ? len : 0;
}

static size_t in_page(uint64_t address, size_t len)
{
    size_t room = PAGE_SIZE - (address & PAGE_MASK);
    return len < room ? len : room;
}

size_t machine_peek_gva(const struct machine *m, unsigned cpu, uint64_t gva, void *buf, size_t len)
{
    size_t done = 0;
    while (done < len) {
        uint64_t gpa;
        size_t part = in_page(gva + done, len - done);
        if (!machine_gva_to_gpa(m, cpu, gva + done, &gpa) ||
            !peek_page(m, space_of(m, cpu), gpa, (uint8_t *)buf + done, part))
            break;
        done += part;
    }
    return done;
}

size_t machine_peek_gpa(const struct machine *m, uint64_t gpa, void *buf, size_t len)
{
    size_t done = 0;
    while (done < len && gpa + done >= gpa && (gpa + done) >> 52 == 0) {
        size_t part = in_page(gpa + done, len - done);
        if (!peek_page(m, 0, gpa + done, (uint8_t *)buf + done, part))
            break;
        done += part;
    }
    return done;
}

/* Can all of it be written? */
static bool poke_check(const struct machine *m, unsigned cpu, uint64_t gva, size_t len, struct error *e)
{
    for (size_t done = 0; done < len;) {
        uint64_t gpa;
        if (!machine_gva_to_gpa(m, cpu, gva + done, &gpa))
            return error_set(e, "0x%" PRIx64 " is not mapped", gva + done);
        if (mem_is_device(m->mem, space_of(m, cpu), gpa, false))
            return error_set(e, "0x%" PRIx64 " is not memory", gva + done);
        done += in_page(gva + done, len - done);
    }
    return true;
}

bool machine_poke_gva(struct machine *m, unsigned cpu, uint64_t gva, const void *buf, size_t len, struct error *e)
{
    if (!poke_check(m, cpu, gva, len, e))
        return false;
    for (size_t done = 0; done < len;) {
        uint64_t gpa;
        size_t part = in_page(gva + done, len - done);
        /* An earlier part may have changed the tables. */
        if (!machine_gva_to_gpa(m, cpu, gva + done, &gpa))
            return error_set(e, "0x%" PRIx64 " is not mapped any more", gva + done);
        mem_access(m->mem, space_of(m, cpu), gpa, (uint8_t *)(uintptr_t)buf + done, part, MEM_HOST_POKE, true,
                   BUS_NO_CPU);
        done += part;
    }
    return true;
}

void machine_print_counters(const struct machine *m, const char *prefix, const struct inspect_out *out)
{
    for (size_t k = 0; k < m->stats.count; k++) {
        const struct stats_row *row = &m->stats.rows[k];
        if (!strncmp(row->name, prefix, strlen(prefix)))
            inspect_say(out, "%-24s %12" PRIu64 " %s", row->name, *row->value, row->unit);
    }
}
