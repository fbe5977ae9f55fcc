/*
 * The host side of a machine: how much of the guest's memory may be resident, where the rest goes, merging, and host
 * events on demand. The guest cannot tell any of it.
 *
 * Everything happens at safe points: between two calls of vcpu_run(). What comes when is a function of virtual time and
 * of the configuration (async host events apart).
 */
#ifndef FRONTENDS_MACHINE_HOSTSIDE_H
#define FRONTENDS_MACHINE_HOSTSIDE_H

#include "frontends/machine/umbra.h"

struct hostside;
struct stats;

/* KSM looks at so many pages, so often in virtual time. */
#define KSM_SCAN_PAGES 100
#define KSM_SCAN_UNITS 1000000ull

/* Awaited pages that are fetched before they are touched, so often in virtual time. */
#define FETCH_AHEAD_PAGES 16
#define FETCH_AHEAD_UNITS 200000ull

/* Once the guest's memory is reserved, and before anything is put into it. Sets m->hostside, also where nothing is
 * asked for. */
bool hostside_build(struct machine *m, struct error *e);
/* For a machine whose m->mm was forked from that of `parent`, which outlives it: it has the parent's swap store, KSM
 * and limit. */
bool hostside_build_child(struct machine *m, const struct machine *parent, struct error *e);
/* Once the child's clock is the parent's: what is due by time is counted from now on. */
void hostside_start_child(struct hostside *h);
/* Pages of the machine's memory are awaited from now on. */
void hostside_start_postcopy(struct hostside *h);
/* Before the host_mm and after all who use it. NULL is allowed. */
void hostside_free(struct hostside *h);
void hostside_add_stats(const struct hostside *h, struct stats *stats);
/* A safe point: does what is due. False: the run cannot go on, *why is set. */
bool hostside_step(struct machine *m, enum machine_exit *why);
/* Units of virtual time until something is due; at least 1. */
uint64_t hostside_units_left(const struct hostside *h);

#endif
