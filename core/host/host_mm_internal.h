/*
 * The inside of a host_mm, shared by the files of core/host only.
 */
#ifndef CORE_HOST_HOST_MM_INTERNAL_H
#define CORE_HOST_HOST_MM_INTERNAL_H

#include "core/host/host_mm.h"
#include "core/host/hpte.h"
#include "core/host/vma.h"

#include <pthread.h>

struct trace;

struct host_mm {
    pthread_mutex_t lock; /* recursive; guards all below except `bus`, which is set once */
    struct frame_pool *pool;
    struct vma_set vmas;
    struct hpte_table hptes;
    struct notifier_bus *bus;
    struct trace *trace;
    struct host_mm_counters counters;
};

/* Counts and traces an invalidation as it starts and ends. */
void host_mm_note_range(const struct notify_range *range, bool starts);

#endif
