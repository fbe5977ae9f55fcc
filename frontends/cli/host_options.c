/*
 * Options of the guest's memory and of the host behind it: engines, limits, swapping, sharing, forking.
 */
#include "frontends/cli/option_row.h"

#include <string.h>

static bool opt_mmu(struct options *o, const char *name, const char *arg, struct error *e)
{
    o->machine.mmu_unsync = !strcmp(arg, "shadow,unsync=on");
    if (!strcmp(arg, "shadow") || !strcmp(arg, "shadow,unsync=off") || o->machine.mmu_unsync)
        o->machine.mmu = MACHINE_MMU_SHADOW;
    else if (!strcmp(arg, "walk"))
        o->machine.mmu = MACHINE_MMU_WALK;
    else if (!strcmp(arg, "ept"))
        o->machine.mmu = MACHINE_MMU_EPT;
    else
        return option_bad_value(name, arg, "shadow, shadow,unsync=on, ept or walk", e);
    return true;
}

static bool opt_shadow_pages(struct options *o, const char *name, const char *arg, struct error *e)
{
    if (!option_number(arg, &o->machine.max_shadow_pages) || o->machine.max_shadow_pages < 64)
        return option_bad_value(name, arg, "a number of shadow pages, at least 64", e);
    return true;
}

/* Whole pages that the host may be asked for. */
static bool host_size(const char *name, const char *arg, uint64_t least, uint64_t *out, struct error *e)
{
    char want[96];
    snprintf(want, sizeof want, "a size such as 96M, of whole pages, at least %lluK", (unsigned long long)least >> 10);
    if (!option_size(arg, out) || *out & PAGE_MASK || *out < least || *out > 1ull << 40)
        return option_bad_value(name, arg, want, e);
    return true;
}

static bool opt_memlimit(struct options *o, const char *name, const char *arg, struct error *e)
{
    return host_size(name, arg, MACHINE_LIMIT_MIN, &o->machine.mem_limit, e);
}

static bool opt_swapsize(struct options *o, const char *name, const char *arg, struct error *e)
{
    return host_size(name, arg, MACHINE_SWAP_MIN, &o->machine.swap_bytes, e);
}

static bool opt_swapfile(struct options *o, const char *name, const char *arg, struct error *e)
{
    o->machine.swap_file = arg;
    return true;
}

static bool opt_pause_save(struct options *o, const char *name, const char *arg, struct error *e)
{
    o->pause_save = arg;
    return true;
}

static bool opt_hugepages(struct options *o, const char *name, const char *arg, struct error *e)
{
    static const char *const sizes[] = {"", "off", "2M", "1G"};
    for (int level = 1; level < (int)ARRAY_LEN(sizes); level++) {
        if (!strcmp(arg, sizes[level])) {
            o->machine.host_pages = level;
            return true;
        }
    }
    return option_bad_value(name, arg, "off, 2M or 1G", e);
}

static bool opt_ksm(struct options *o, const char *name, const char *arg, struct error *e)
{
    o->machine.ksm = !strcmp(arg, "on");
    return o->machine.ksm || !strcmp(arg, "off") || option_bad_value(name, arg, "on or off", e);
}

static bool opt_postcopy(struct options *o, const char *name, const char *arg, struct error *e)
{
    o->machine.postcopy = !strcmp(arg, "on");
    return o->machine.postcopy || !strcmp(arg, "off") || option_bad_value(name, arg, "on or off", e);
}

static bool opt_host_chaos(struct options *o, const char *name, const char *arg, struct error *e)
{
    o->machine.host_chaos = arg;
    return true;
}

static bool opt_fork_at(struct options *o, const char *name, const char *arg, struct error *e)
{
    o->fork_at = arg;
    return *arg || option_bad_value(name, arg, "a text that the serial port will send", e);
}

static bool opt_fork_run(struct options *o, const char *name, const char *arg, struct error *e)
{
    o->fork_run = arg;
    return true;
}

static bool opt_fork_out(struct options *o, const char *name, const char *arg, struct error *e)
{
    o->fork_out = arg;
    return true;
}

static bool opt_fork_jobs(struct options *o, const char *name, const char *arg, struct error *e)
{
    uint64_t n;
    if (!option_number(arg, &n) || n < 1 || n > MACHINE_FORKS_MAX)
        return option_bad_value(name, arg, "a number of machines, from 1 to 1024", e);
    o->fork_jobs = (unsigned)n;
    return true;
}

static const struct option_row rows[] = {
    {"mmu", "shadow[,unsync=on]|ept|walk", opt_mmu,
     "shadow paging (default; unsync: leaf tables as old as the last flush), EPT, or walks (the reference)"},
    {"shadow-pages", "N", opt_shadow_pages, "limit of shadow pages"},
    {"memlimit", "SIZE", opt_memlimit, "guest memory that may be resident at a time; the rest is swapped out"},
    {"swapfile", "FILE", opt_swapfile, "where swapped memory goes (default: compressed, in memory)"},
    {"swapsize", "SIZE", opt_swapsize, "room for swapped memory (default: enough)"},
    {"pause-save", "FILE", opt_pause_save, "save the machine there when it pauses for lack of host memory"},
    {"ksm", "on|off", opt_ksm, "let pages with equal content share a frame (default off)"},
    {"hugepages", "off|2M|1G", opt_hugepages, "largest host pages that guest memory is made of (default off: 4 KiB)"},
    {"host-chaos", "seed=S,rate=R,ops=LIST", opt_host_chaos,
     "host events from a seed: all, or swap+ksm+cow+migrate+mprotect+huge+age+dontneed"},
    {"fork-at", "TEXT", opt_fork_at, "when COM1 has sent TEXT, fork a machine for each line of -fork-run"},
    {"fork-run", "FILE", opt_fork_run, "the lines: each is typed into a forked machine of its own"},
    {"fork-out", "DIR", opt_fork_out, "where the forked machines' output goes: child-1.serial, ..."},
    {"fork-jobs", "N", opt_fork_jobs, "forked machines that exist at a time (default all, at most 64)"},
    {"postcopy", "on|off", opt_postcopy, "leave memory in the -loadvm file until it is touched (default off)"},
};

const struct option_row *host_option_row(size_t n)
{
    return n < ARRAY_LEN(rows) ? &rows[n] : NULL;
}
