/*
 * What a person is told about a machine: how it ended, where it stands, what it counted.
 */
#include "cpu/jit/jit.h"
#include "frontends/machine/machine.h"

#include <inttypes.h>

#define REPORT_EXCEPTIONS 5

const char *machine_exit_text(enum machine_exit why)
{
    switch (why) {
    case MACHINE_POWER_OFF:
        return "the guest powered the machine off";
    case MACHINE_DEBUG_EXIT:
        return "the guest left through the debug exit port";
    case MACHINE_RESET:
        return "the guest reset the machine (-no-reboot)";
    case MACHINE_TRIPLE_FAULT:
        return "triple fault";
    case MACHINE_ICOUNT_LIMIT:
        return "stopped at the instruction limit (-icount-limit)";
    case MACHINE_VTIME_LIMIT:
        return "stopped at the limit of virtual time (-vtimeout)";
    case MACHINE_HALTED:
        return "halted for ever: every processor waits for an interrupt that nothing can raise";
    case MACHINE_STOPPED:
        return "stopped";
    case MACHINE_AUDIT_FAILED:
        return "the MMU audit found a broken invariant";
    case MACHINE_SCRIPT_FAILED:
        return "the input script could not go on";
    case MACHINE_RESET_FAILED:
        return "the machine cannot be reset";
    case MACHINE_PAUSED:
        return "the guest is paused: the host has no room to go on";
    case MACHINE_HOST_FAILED:
        return "the host lost a page of the guest's memory";
    case MACHINE_MARKER:
        return "the serial port has sent the text that was waited for";
    case MACHINE_POSITION:
        return "the position is reached";
    case MACHINE_DIFFERS:
        return "the JIT and the interpreter differ (-lockstep)";
    }
    return "";
}

int machine_exit_code(const struct machine *m, enum machine_exit why)
{
    switch (why) {
    case MACHINE_POWER_OFF:
    case MACHINE_RESET:
    case MACHINE_STOPPED:
    case MACHINE_MARKER:
    case MACHINE_POSITION:
        return EXIT_POWER_OFF;
    case MACHINE_DEBUG_EXIT:
        return m->exit_code;
    case MACHINE_TRIPLE_FAULT:
        return EXIT_TRIPLE_FAULT;
    case MACHINE_ICOUNT_LIMIT:
    case MACHINE_VTIME_LIMIT:
        return EXIT_LIMIT;
    case MACHINE_HALTED:
        return EXIT_HALTED;
    case MACHINE_SCRIPT_FAILED:
    case MACHINE_RESET_FAILED:
        return EXIT_BAD_INPUT;
    case MACHINE_PAUSED:
        return EXIT_PAUSED;
    case MACHINE_DIFFERS:
    case MACHINE_AUDIT_FAILED:
    case MACHINE_HOST_FAILED:
        break;
    }
    return EXIT_INTERNAL;
}

static void print_line(void *ctx, const char *text)
{
    fprintf(ctx, "  %s\n", text);
}

static void print_exception(const struct exc_record *r, FILE *out)
{
    fprintf(out, "  vector %2u", r->vector);
    if (r->has_error)
        fprintf(out, " error 0x%04x", r->error);
    fprintf(out, " at rip 0x%016" PRIx64, r->rip);
    if (r->vector == EXC_PF)
        fprintf(out, " cr2 0x%016" PRIx64, r->cr2);
    fprintf(out, " (instruction %" PRIu64 ")\n", r->icount);
}

static void print_history(const struct vcpu *v, FILE *out)
{
    uint64_t n = v->history_count < REPORT_EXCEPTIONS ? v->history_count : REPORT_EXCEPTIONS;
    fprintf(out, "last exceptions, oldest first:%s\n", n ? "" : " none");
    for (uint64_t k = v->history_count - n; k < v->history_count; k++)
        print_exception(&v->history[k % EXC_HISTORY], out);
}

static void print_walk(struct vcpu *v, const char *what, gva_t gva, FILE *out)
{
    fprintf(out, "page walk of %s 0x%016" PRIx64 ":\n", what, gva);
    mmu_print_walk(v->mv, gva, print_line, out);
}

static gva_t failing_address(const struct vcpu *v, const char **what)
{
    for (uint64_t k = v->history_count; k > 0 && v->history_count - k < EXC_HISTORY; k--) {
        const struct exc_record *r = &v->history[(k - 1) % EXC_HISTORY];
        if (r->vector != EXC_PF)
            continue;
        *what = "the failing address";
        return r->cr2;
    }
    *what = "rip";
    return v->rip;
}

void machine_print_report(const struct machine *m, FILE *out)
{
    for (unsigned k = 0; k < m->cpu_count; k++) {
        struct vcpu *v = m->cpu[k];
        const char *what;
        bool triple = v->activity == VCPU_SHUTDOWN;
        if (v->activity == VCPU_WAIT_SIPI) {
            fprintf(out, "umbra: processor %u waits to be started\n", k);
            continue;
        }
        gva_t gva = failing_address(v, &what);
        fprintf(out, "umbra: %s, processor %u, instruction %" PRIu64 ", %" PRIu64 " ns\n",
                triple ? "triple fault" : "state", k, m->clock.icount, clock_now(&m->clock));
        vcpu_print(v, print_line, out);
        print_history(v, out);
        if (triple) {
            fprintf(out, "could not deliver:\n");
            print_exception(&v->triple, out);
        }
        print_walk(v, what, gva, out);
        if (gva != v->rip)
            print_walk(v, "rip", v->rip, out);
    }
}

void machine_print_stats(const struct machine *m, FILE *out)
{
    stats_print(&m->stats, out);
    jit_print_forms(m->jit, out);
}

void machine_print_trace(const struct machine *m, FILE *out)
{
    trace_dump(&m->trace, out);
}

const char *machine_name(const struct machine *m)
{
    return m->cfg.name;
}

void machine_print_models(FILE *out)
{
    const char *name;
    unsigned column;
    fputs("  models:", out);
    for (unsigned n = 0; (name = cpu_model_name(n)); n++)
        fprintf(out, " %s", name);
    column = (unsigned)fprintf(out, "\n  features:") - 1;
    for (unsigned n = 0; (name = cpu_feature_offered(n)); n++) {
        if (column + strlen(name) > 110)
            column = (unsigned)fprintf(out, "\n   ") - 1;
        column += (unsigned)fprintf(out, " %s", name);
    }
    fputc('\n', out);
}

uint64_t machine_icount(const struct machine *m)
{
    return m->clock.icount;
}

uint64_t machine_mmu_events(const struct machine *m)
{
    static const char *const names[] = {"mmu.shadow_faults", "mmu.faults_injected", "mmu.fills", "mmu.zaps",
                                        "mmu.tracked_writes"};
    uint64_t sum = 0;
    bool found;
    for (size_t k = 0; k < ARRAY_LEN(names); k++)
        sum += stats_get(&m->stats, names[k], &found);
    return sum;
}

uint64_t machine_resets(const struct machine *m)
{
    return m->resets;
}

uint64_t machine_vtime(const struct machine *m)
{
    return clock_now(&m->clock);
}
