/*
 * Commands about the MMU and the host below it.
 */
#include "frontends/debugger/debugger_internal.h"

#include <string.h>

#define GFN_MAX ((1ull << 40) - 1)

static bool command_walk(struct debugger *g, int argc, char **argv, struct error *e)
{
    uint64_t gva;
    if (!argument_address(g, argv[0], &gva, e))
        return false;
    machine_print_mmu_walk(g->m, g->cpu, gva, &g->out);
    return true;
}

static bool command_map(struct debugger *g, int argc, char **argv, struct error *e)
{
    uint64_t from = 0;
    if (argc && !argument_address(g, argv[0], &from, e))
        return false;
    machine_print_mappings(g->m, g->cpu, from, &g->out);
    return true;
}

static bool gfn_argument(const struct debugger *g, const char *text, uint64_t *gfn, struct error *e)
{
    if (!argument_address(g, text, gfn, e))
        return false;
    return *gfn <= GFN_MAX || error_set(e, "%s is not a gfn (a gpa shifted right by 12)", text);
}

static bool command_rmap(struct debugger *g, int argc, char **argv, struct error *e)
{
    uint64_t gfn;
    if (!gfn_argument(g, argv[0], &gfn, e))
        return false;
    machine_print_mmu_rmap(g->m, gfn, &g->out);
    return true;
}

static bool command_tracked(struct debugger *g, int argc, char **argv, struct error *e)
{
    machine_print_mmu_tracked(g->m, &g->out);
    return true;
}

static bool command_slots(struct debugger *g, int argc, char **argv, struct error *e)
{
    machine_print_mmu_slots(g->m, &g->out);
    return true;
}

static bool command_roots(struct debugger *g, int argc, char **argv, struct error *e)
{
    machine_print_mmu_roots(g->m, &g->out);
    return true;
}

static bool command_mmu_stats(struct debugger *g, int argc, char **argv, struct error *e)
{
    machine_print_counters(g->m, "mmu.", &g->out);
    machine_print_counters(g->m, "host.", &g->out);
    return true;
}

static bool command_audit(struct debugger *g, int argc, char **argv, struct error *e)
{
    unsigned n = machine_print_mmu_audit(g->m, &g->out);
    if (n)
        say(g, "%u violations", n);
    else
        say(g, "every invariant holds");
    return true;
}

static const struct host_verb *verb_find(const char *name)
{
    size_t n;
    const struct host_verb *verbs = host_verbs(&n);
    for (size_t k = 0; k < n; k++)
        if (!strcmp(verbs[k].name, name))
            return &verbs[k];
    return NULL;
}

static bool verb_unknown(const char *name, struct error *e)
{
    char list[160] = "";
    size_t n, used = 0;
    const struct host_verb *verbs = host_verbs(&n);
    for (size_t k = 0; k < n && used < sizeof list; k++)
        used += (size_t)snprintf(list + used, sizeof list - used, " %s", verbs[k].name);
    return error_set(e, "host %s: no such operation; there is:%s", name, list);
}

static void print_events(struct debugger *g)
{
    const struct debug_event *ev;
    while ((ev = debug_event_take(g->debug)))
        debug_print_event(g->debug, ev, &g->out);
}

static bool command_host(struct debugger *g, int argc, char **argv, struct error *e)
{
    uint64_t gfn[2] = {0, 0};
    const struct host_verb *v = verb_find(argv[0]);
    if (!v)
        return verb_unknown(argv[0], e);
    if (argc - 1 != (int)v->gfns + v->takes_mode)
        return error_set(e, "usage: host %s %s", v->name, v->args);
    for (unsigned k = 0; k < v->gfns; k++)
        if (!gfn_argument(g, argv[1 + k], &gfn[k], e))
            return false;
    debug_listen(g->debug, debug_events_mmu());
    bool ok = v->run(g->m, gfn, v->takes_mode ? argv[1 + v->gfns] : NULL, &g->out, e);
    print_events(g);
    debug_listen(g->debug, 0);
    return ok;
}

static bool command_host_list(struct debugger *g, int argc, char **argv, struct error *e)
{
    size_t n;
    const struct host_verb *verbs = host_verbs(&n);
    if (argc)
        return command_host(g, argc, argv, e);
    for (size_t k = 0; k < n; k++)
        say(g, "  host %s %-16s %s", verbs[k].name, verbs[k].args, verbs[k].help);
    return true;
}

const struct command mmu_commands[] = {
    {"mmu walk", NULL, "GVA", "guest walk, shadow walk, memslot, tracking, host entry, frame, TLB", 1, 1, command_walk},
    {"mmu map", NULL, "[GVA]", "what the guest's tables map, from GVA on, with the rights of all levels", 0, 1,
     command_map},
    {"mmu rmap", NULL, "GFN", "the sptes that map a guest page, and its shadow pages", 1, 1, command_rmap},
    {"mmu tracked", NULL, "", "guest pages whose writes someone must see", 0, 0, command_tracked},
    {"mmu slots", NULL, "", "memslots", 0, 0, command_slots},
    {"mmu roots", NULL, "", "cached roots and their top shadow pages", 0, 0, command_roots},
    {"mmu stats", NULL, "", "counters of the MMU and the host side", 0, 0, command_mmu_stats},
    {"mmu audit", NULL, "", "check every invariant of the MMU", 0, 0, command_audit},
    {"host", NULL, "[OPERATION ...]", "an operation of the host on guest memory; alone: the list", 0, 4,
     command_host_list},
    {.name = NULL}};
