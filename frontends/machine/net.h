/*
 * The machine's networks: user-mode ones by libslirp, each behind one network card.
 *
 * What the guest sends goes to libslirp at once; what libslirp sends enters the guest through the input queue
 * (core/replay.h, INPUT_NET), with the position at which it came, so the guest's side of a run is repeatable. libslirp
 * lives by virtual time. Host sockets are looked at by net_service(), which the run loop calls at its polls and after
 * each wait. Connections are not part of a snapshot: loading one ends them (what a guest still sends on one is
 * answered by a reset, new ones are made as ever), saving one disturbs none. DHCP, ARP and DNS go on.
 */
#ifndef FRONTENDS_MACHINE_NET_H
#define FRONTENDS_MACHINE_NET_H

#include "devices/net/nic.h"
#include "frontends/machine/device_config.h"
#include "frontends/machine/error.h"

#include <poll.h>

struct net;
struct vclock;
struct log;

struct net_config {
    const struct netdev_config *netdev; /* borrowed */
    unsigned count;
    const struct vclock *clock;
    const struct log *log;
    /* A frame for card `port`, for the input queue. */
    void (*input)(void *ctx, const uint8_t *bytes, size_t len); /* bytes[0] is the port */
    /* The guest has sent: sockets should be looked at soon. May be NULL. */
    void (*sent)(void *ctx);
    void *ctx;
};

/* NULL with an error; also where the build has no libslirp. */
struct net *net_open(const struct net_config *cfg, struct error *e);
void net_close(struct net *n);
/* Fits cards_config.connect; ctx is the net. */
bool net_connect(void *net, const char *netdev, unsigned port, struct nic_wire *wire);
/* After a snapshot was loaded: libslirp begins anew, connections and listeners of the host's side included. What cannot
 * be opened again is said in the log. NULL is allowed. */
void net_restart(struct net *n);
/* Does what sockets and timers have for it now. */
void net_service(struct net *n);
/* The sockets to wait for, at most `max`; lowers *ns to the time of the next timer. */
unsigned net_pollfds(struct net *n, struct pollfd *fds, unsigned max, uint64_t *ns);

#endif
