#include "frontends/cli/smp.h"

#include "frontends/machine/umbra.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum smp_key { SMP_CPUS, SMP_MAXCPUS, SMP_SOCKETS, SMP_CORES, SMP_THREADS, SMP_DIES, SMP_CLUSTERS, SMP_KEYS };

static const char *const key_names[SMP_KEYS] = {
    [SMP_CPUS] = "cpus",       [SMP_MAXCPUS] = "maxcpus", [SMP_SOCKETS] = "sockets",   [SMP_CORES] = "cores",
    [SMP_THREADS] = "threads", [SMP_DIES] = "dies",       [SMP_CLUSTERS] = "clusters",
};

/* One "KEY=NUMBER" of len characters; the first may be a bare number. */
static bool item_parse(const char *item, size_t len, bool first, unsigned given[SMP_KEYS])
{
    const char *digits = item;
    unsigned key = SMP_CPUS;
    if (!first || !isdigit((unsigned char)*item)) {
        for (key = 0; key < SMP_KEYS; key++) {
            size_t n = strlen(key_names[key]);
            if (len > n && !memcmp(item, key_names[key], n) && item[n] == '=')
                break;
        }
        if (key == SMP_KEYS)
            return false;
        digits += strlen(key_names[key]) + 1;
    }
    char *end;
    unsigned long n = isdigit((unsigned char)*digits) ? strtoul(digits, &end, 10) : 0;
    if (!n || n > 4096 || end != item + len || given[key])
        return false;
    given[key] = (unsigned)n;
    return true;
}

static unsigned or_one(unsigned n)
{
    return n ? n : 1;
}

static struct cpu_topology complete(const unsigned given[SMP_KEYS], unsigned cpus)
{
    struct cpu_topology t = {given[SMP_SOCKETS], given[SMP_CORES], given[SMP_THREADS]};
    if (!t.cores) {
        t.sockets = or_one(t.sockets);
        t.threads = or_one(t.threads);
        t.cores = cpus / (t.sockets * t.threads);
    } else if (!t.sockets) {
        t.threads = or_one(t.threads);
        t.sockets = cpus / (t.cores * t.threads);
    } else if (!t.threads) {
        t.threads = cpus / (t.sockets * t.cores);
    }
    return t;
}

bool smp_parse(const char *arg, struct cpu_topology *out, struct error *e)
{
    unsigned given[SMP_KEYS] = {0};
    size_t len;
    for (const char *p = arg;; p += len + 1) {
        len = strcspn(p, ",");
        if (!item_parse(p, len, p == arg, given))
            return error_set(e, "-smp %s: '%.*s': expected N, or cpus=N, sockets=N, cores=N, threads=N, each once", arg,
                             (int)len, p);
        if (!p[len])
            break;
    }
    unsigned cpus = given[SMP_CPUS] ? given[SMP_CPUS] : given[SMP_MAXCPUS];
    if (!cpus)
        cpus = or_one(given[SMP_SOCKETS]) * or_one(given[SMP_CORES]) * or_one(given[SMP_THREADS]);
    if (given[SMP_DIES] > 1 || given[SMP_CLUSTERS] > 1)
        return error_set(e, "-smp %s: there is one die in a socket and one cluster in a die", arg);
    if (given[SMP_MAXCPUS] && given[SMP_MAXCPUS] != cpus)
        return error_set(e, "-smp %s: processors cannot be added later: maxcpus must be the number of processors", arg);
    if (cpus > MACHINE_CPUS_MAX)
        return error_set(e, "-smp %s: a machine has at most %d processors", arg, MACHINE_CPUS_MAX);
    *out = complete(given, cpus);
    if (out->sockets * out->cores * out->threads != cpus)
        return error_set(e, "-smp %s: %u sockets of %u cores of %u threads do not make %u processors", arg,
                         out->sockets, out->cores, out->threads, cpus);
    return true;
}
