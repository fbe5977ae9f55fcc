/*
 * The argument of -smp, as QEMU spells it.
 */
#ifndef FRONTENDS_CLI_SMP_H
#define FRONTENDS_CLI_SMP_H

#include "core/topology.h"
#include "frontends/machine/error.h"

/* "4", "4,sockets=2", "sockets=2,cores=2,threads=2", "cpus=8,threads=2", ... What is not given follows as in QEMU 6.2
 * and later: cores before sockets, threads last. False with an error if it does not work out, or there are more
 * processors than a machine may have. */
bool smp_parse(const char *arg, struct cpu_topology *out, struct error *e);

#endif
