/*
 * How the processors of a machine are arranged, and the APIC IDs that follow from it.
 *
 * An APIC ID has a field each for thread, core and socket, as wide as the number of them asks (SDM volume 3, 9.9.1):
 * with three cores a socket the IDs have gaps. The processor with index k is the k-th in the order of its fields.
 */
#ifndef CORE_TOPOLOGY_H
#define CORE_TOPOLOGY_H

#include "core/types.h"

struct cpu_topology {
    unsigned sockets, cores, threads; /* cores of a socket, threads of a core; none is 0 */
};

static inline struct cpu_topology topology_flat(unsigned cpus)
{
    return (struct cpu_topology){1, cpus ? cpus : 1, 1};
}

static inline unsigned topology_count(const struct cpu_topology *t)
{
    return t->sockets * t->cores * t->threads;
}

/* Width of a field that holds 0..n-1. */
static inline unsigned topology_field_bits(unsigned n)
{
    unsigned bits = 0;
    while (1u << bits < n)
        bits++;
    return bits;
}

static inline unsigned topology_thread_bits(const struct cpu_topology *t)
{
    return topology_field_bits(t->threads);
}

/* Bits of an APIC ID below the socket's. */
static inline unsigned topology_socket_shift(const struct cpu_topology *t)
{
    return topology_thread_bits(t) + topology_field_bits(t->cores);
}

static inline uint32_t topology_apic_id(const struct cpu_topology *t, unsigned index)
{
    unsigned thread = index % t->threads, core = index / t->threads % t->cores, socket = index / t->threads / t->cores;
    return socket << topology_socket_shift(t) | core << topology_thread_bits(t) | thread;
}

#endif
