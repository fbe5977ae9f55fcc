/*
 * Commands that run the machine, and those that say where it stops.
 */
#include "frontends/debugger/debugger_internal.h"

#include <inttypes.h>
#include <string.h>

/* ---- running ---- */

static bool check_alive(const struct debugger *g, struct error *e)
{
    return !g->result->ended || error_set(e, "the machine has ended: %s", machine_exit_text(g->result->why));
}

static void print_next(const struct debugger *g)
{
    print_instruction(g, machine_code_address(g->m, g->cpu), true);
}

static void print_events_first(struct debugger *g)
{
    const struct debug_event *ev = debug_event_take(g->debug);
    if (ev)
        debug_print_event(g->debug, ev, &g->out);
}

static void print_stop(struct debugger *g, const struct debug_stop *stop)
{
    char text[256];
    switch (stop->why) {
    case DEBUG_STEPPED:
        break;
    case DEBUG_AT_BREAK:
        say(g, "breakpoint %d, instruction %" PRIu64, stop->point, machine_icount(g->m));
        break;
    case DEBUG_AT_WATCH:
        say(g, "watchpoint %d: %s of %s, instruction %" PRIu64, stop->point, stop->write ? "write" : "read",
            address_text(g, stop->gva, text, sizeof text), machine_icount(g->m));
        break;
    case DEBUG_AT_EVENT:
        if (stop->point)
            say(g, "event point %d, instruction %" PRIu64, stop->point, machine_icount(g->m));
        print_events_first(g);
        break;
    case DEBUG_INTERRUPTED:
        say(g, "interrupted, instruction %" PRIu64, machine_icount(g->m));
        break;
    case DEBUG_ENDED:
        say(g, "%s, instruction %" PRIu64, machine_exit_text(stop->end), machine_icount(g->m));
        return;
    }
    print_next(g);
}

static void run_machine(struct debugger *g, uint64_t steps, uint64_t events, struct debug_stop *stop)
{
    g->cfg->take_signal(g->cfg->ctx); /* an old Ctrl-C */
    fflush(stdout);
    debug_run(g->debug, steps, events, stop);
    g->cpu = stop->cpu;
    if (stop->why == DEBUG_ENDED) {
        g->result->ended = true;
        g->result->why = stop->end;
    }
    if (stop->why == DEBUG_INTERRUPTED && g->cfg->take_signal(g->cfg->ctx) == DEBUGGER_QUIT)
        g->quit = true;
}

/* Runs and says where it came to a stop. */
static void go(struct debugger *g, uint64_t steps, uint64_t events)
{
    struct debug_stop stop;
    run_machine(g, steps, events, &stop);
    print_stop(g, &stop);
}

static bool command_continue(struct debugger *g, int argc, char **argv, struct error *e)
{
    if (!check_alive(g, e))
        return false;
    go(g, 0, 0);
    return true;
}

static bool command_step(struct debugger *g, int argc, char **argv, struct error *e)
{
    uint64_t n = 1;
    if (!check_alive(g, e) || (argc && !argument_number(argv[0], UINT64_MAX, &n, e)))
        return false;
    if (!n)
        return error_set(e, "step 0: expected at least 1");
    go(g, n, 0);
    return true;
}

/* Over a call or a repeated string instruction: to the address behind it. */
static bool command_next(struct debugger *g, int argc, char **argv, struct error *e)
{
    char text[160];
    unsigned cpu = g->cpu;
    uint64_t at = machine_code_address(g->m, cpu);
    if (!check_alive(g, e))
        return false;
    unsigned len = machine_disassemble(g->m, cpu, at, text, sizeof text);
    if (!len || (strncmp(text, "call", 4) && strncmp(text, "rep", 3))) {
        go(g, 1, 0);
        return true;
    }
    int id = debug_add_break(g->debug, at + len, e);
    if (!id)
        return false;
    struct debug_stop stop;
    run_machine(g, 0, 0, &stop);
    if (stop.why == DEBUG_AT_BREAK && stop.point == id)
        stop.why = DEBUG_STEPPED;
    debug_remove(g->debug, id);
    print_stop(g, &stop);
    return true;
}

static bool command_mmu_step(struct debugger *g, int argc, char **argv, struct error *e)
{
    const struct debug_event *ev = debug_event_take(g->debug);
    if (ev) {
        debug_print_event(g->debug, ev, &g->out);
        return true;
    }
    if (!check_alive(g, e))
        return false;
    go(g, 0, debug_events_mmu());
    return true;
}

/* ---- points ---- */

static bool command_break(struct debugger *g, int argc, char **argv, struct error *e)
{
    uint64_t gva;
    char text[256];
    int id = argument_address(g, argv[0], &gva, e) ? debug_add_break(g->debug, gva, e) : 0;
    if (id)
        say(g, "breakpoint %d at %s", id, address_text(g, gva, text, sizeof text));
    return id != 0;
}

static bool watch(struct debugger *g, enum debug_kind kind, int argc, char **argv, struct error *e)
{
    uint64_t gva, len = 8;
    char text[256];
    if (!argument_address(g, argv[0], &gva, e) || (argc > 1 && !argument_number(argv[1], DEBUG_WATCH_MAX, &len, e)))
        return false;
    int id = debug_add_watch(g->debug, kind, gva, len, e);
    if (id)
        say(g, "watchpoint %d: %" PRIu64 " bytes at %s", id, len, address_text(g, gva, text, sizeof text));
    return id != 0;
}

static bool command_watch(struct debugger *g, int argc, char **argv, struct error *e)
{
    return watch(g, DEBUG_WATCH_WRITE, argc, argv, e);
}

static bool command_rwatch(struct debugger *g, int argc, char **argv, struct error *e)
{
    return watch(g, DEBUG_WATCH_READ, argc, argv, e);
}

static bool command_awatch(struct debugger *g, int argc, char **argv, struct error *e)
{
    return watch(g, DEBUG_WATCH_ACCESS, argc, argv, e);
}

static bool unknown_event(const char *name, struct error *e)
{
    char list[200] = "";
    size_t n = 0;
    for (const char *const *k = debug_event_names(); *k && n < sizeof list; k++)
        if (debug_events_of(*k))
            n += (size_t)snprintf(list + n, sizeof list - n, " %s", *k);
    return error_set(e, "'%s': no such event; events:%s, or a tracepoint such as mmu.sp_new", name, list);
}

static bool event_filter(const struct debugger *g, const char *text, struct debug_point *p, struct error *e)
{
    bool gfn, gva;
    if (!argument_named(g, text, "gfn", &p->gfn, &gfn, e) || !argument_named(g, text, "gva", &p->gva, &gva, e))
        return false;
    if (!gfn && !gva)
        return error_set(e, "'%s': expected gfn=GFN or gva=GVA", text);
    p->has_gfn |= gfn;
    p->has_gva |= gva;
    if (gva && !debug_events_have_gva(p->events))
        return error_set(e, "this event has no gva to choose by");
    return !gfn || debug_events_have_gfn(p->events) || error_set(e, "this event has no gfn to choose by");
}

static bool command_break_mmu(struct debugger *g, int argc, char **argv, struct error *e)
{
    struct debug_point p = {.events = debug_events_of(argv[0])};
    if (!p.events)
        return unknown_event(argv[0], e);
    for (int k = 1; k < argc; k++)
        if (!event_filter(g, argv[k], &p, e))
            return false;
    int id = debug_add_event(g->debug, &p, e);
    if (id)
        say(g, "event point %d: %s", id, argv[0]);
    return id != 0;
}

static bool command_delete(struct debugger *g, int argc, char **argv, struct error *e)
{
    uint64_t id;
    if (!strcmp(argv[0], "all")) {
        while (debug_point_count(g->debug))
            debug_remove(g->debug, debug_point_at(g->debug, 0)->id);
        return true;
    }
    if (!argument_number(argv[0], INT32_MAX, &id, e))
        return false;
    return debug_remove(g->debug, (int)id) || error_set(e, "there is no point %s ('info' lists them)", argv[0]);
}

static void print_point(const struct debugger *g, const struct debug_point *p)
{
    static const char *const kinds[] = {"break", "watch", "rwatch", "awatch", "event"};
    char text[256], filter[80] = "";
    if (p->kind != DEBUG_EVENT) {
        say(g, "  %d %-6s %s%s%" PRIu64 " hits", p->id, kinds[p->kind], address_text(g, p->gva, text, sizeof text),
            ", ", p->hits);
        return;
    }
    if (p->has_gfn)
        snprintf(filter, sizeof filter, " gfn=0x%" PRIx64, p->gfn);
    if (p->has_gva)
        snprintf(filter + strlen(filter), sizeof filter - strlen(filter), " gva=0x%" PRIx64, p->gva);
    say(g, "  %d event  tracepoints 0x%" PRIx64 "%s, %" PRIu64 " hits", p->id, p->events, filter, p->hits);
}

static bool command_info(struct debugger *g, int argc, char **argv, struct error *e)
{
    unsigned cpu = g->cpu;
    struct inspect_regs r;
    machine_get_regs(g->m, cpu, &r);
    say(g, "instruction %" PRIu64 ", %" PRIu64 " ns of virtual time, processor %u of %u, CPL %u%s%s",
        machine_icount(g->m), machine_vtime(g->m), cpu, machine_cpu_count(g->m), r.cpl,
        r.long_mode ? ", long mode" : "", r.halted ? ", halted" : "");
    if (g->result->ended)
        say(g, "the machine has ended: %s", machine_exit_text(g->result->why));
    print_next(g);
    for (size_t k = 0; k < debug_point_count(g->debug); k++)
        print_point(g, debug_point_at(g->debug, k));
    return true;
}

static bool command_cpu(struct debugger *g, int argc, char **argv, struct error *e)
{
    uint64_t n;
    if (argc) {
        if (!argument_number(argv[0], machine_cpu_count(g->m) - 1, &n, e))
            return false;
        g->cpu = (unsigned)n;
        return true;
    }
    for (unsigned k = 0; k < machine_cpu_count(g->m); k++) {
        struct inspect_regs r;
        char text[256];
        machine_get_regs(g->m, k, &r);
        say(g, "%s %u  %s%s%s", k == g->cpu ? "*" : " ", k,
            address_text(g, machine_code_address(g->m, k), text, sizeof text), r.halted ? ", halted" : "",
            k == machine_current_cpu(g->m) ? ", its turn" : "");
    }
    return true;
}

static bool command_quit(struct debugger *g, int argc, char **argv, struct error *e)
{
    g->quit = true;
    return true;
}

const struct command run_commands[] = {
    {"continue", "c", "", "run until something stops the machine", 0, 0, command_continue},
    {"run", "r", "", "the same", 0, 0, command_continue},
    {"step", "s", "[N]", "one boundary on (or N): an instruction, a REP iteration, an event delivery", 0, 1,
     command_step},
    {"next", "n", "", "one instruction on, over calls and repeated strings", 0, 0, command_next},
    {"break", "b", "ADDR", "stop before the instruction at ADDR", 1, 1, command_break},
    {"watch", NULL, "GVA [LEN]", "stop after a write to LEN bytes (8) of memory, by whomever", 1, 2, command_watch},
    {"rwatch", NULL, "GVA [LEN]", "stop after a read by the processor", 1, 2, command_rwatch},
    {"awatch", NULL, "GVA [LEN]", "stop after a read or write by the processor", 1, 2, command_awatch},
    {"break mmu", NULL, "EVENT [gfn=N] [gva=A]", "stop after an event of the MMU", 1, 3, command_break_mmu},
    {"delete", "d", "ID|all", "remove a point", 1, 1, command_delete},
    {"info", "i", "", "where the machine stands, and all points", 0, 0, command_info},
    {"cpu", NULL, "[N]", "list the processors, or choose the one that commands are about", 0, 1, command_cpu},
    {"mmu step", NULL, "", "run to the next event of the MMU; shows one at a time", 0, 0, command_mmu_step},
    {"quit", "q", "", "leave", 0, 0, command_quit},
    {.name = NULL}};
