#include "frontends/machine/net.h"

#ifdef UMBRA_SLIRP

#include "core/alloc.h"
#include "core/clock.h"
#include "core/library.h"
#include "core/log.h"

#include <libslirp.h>
#include <stdlib.h>
#include <string.h>

#define SOCKETS_MAX 512
#define NS_PER_MS   1000000ull

#define SLIRP_LIBRARY "libslirp.so.0"
/* clang-format off */
#define SLIRP_CALLS(X) \
    X(slirp_add_hostfwd) X(slirp_cleanup) X(slirp_input) X(slirp_new) X(slirp_pollfds_fill) \
    X(slirp_pollfds_poll)
/* clang-format on */

struct slirp_calls {
    SLIRP_CALLS(LIBRARY_POINTER)
};

#define SLIRP_CALL(f) LIBRARY_CALL(struct slirp_calls, f)
static const struct library_call slirp_calls[] = {SLIRP_CALLS(SLIRP_CALL)};

/* A timer of libslirp: due when virtual time reaches it. */
struct net_timer {
    struct net_timer *next;
    SlirpTimerCb fn;
    void *opaque;
    int64_t expires; /* ms; -1: not armed */
};

struct net_link {
    struct net *net;
    const struct netdev_config *cfg;
    Slirp *slirp;
    bool connected;
    uint8_t port; /* of the card, if connected */
    struct net_timer *timers;
};

struct net {
    struct slirp_calls call;
    struct net_config cfg;
    struct net_link link[NETDEVS_MAX];
    unsigned links;
    struct pollfd fds[SOCKETS_MAX]; /* while sockets are looked at */
    unsigned count;
};

/* ---- what libslirp calls ---- */

static ssize_t send_packet(const void *buf, size_t len, void *opaque)
{
    struct net_link *l = opaque;
    uint8_t bytes[1 + NIC_FRAME_MAX];
    if (!l->connected || len > NIC_FRAME_MAX)
        return (ssize_t)len;
    bytes[0] = l->port;
    memcpy(bytes + 1, buf, len);
    l->net->cfg.input(l->net->cfg.ctx, bytes, len + 1);
    return (ssize_t)len;
}

static void guest_error(const char *msg, void *opaque)
{
    struct net_link *l = opaque;
    if (log_is_on(l->net->cfg.log, LOG_GUEST_ERROR))
        log_emit(l->net->cfg.log, LOG_GUEST_ERROR, "netdev %s: %s", l->cfg->id, msg);
}

static int64_t clock_get_ns(void *opaque)
{
    struct net_link *l = opaque;
    return (int64_t)clock_now(l->net->cfg.clock);
}

static void *timer_new(SlirpTimerCb fn, void *fn_opaque, void *opaque)
{
    struct net_link *l = opaque;
    struct net_timer *t = alloc_zeroed(1, sizeof *t);
    *t = (struct net_timer){.next = l->timers, .fn = fn, .opaque = fn_opaque, .expires = -1};
    l->timers = t;
    return t;
}

static void timer_free(void *timer, void *opaque)
{
    struct net_link *l = opaque;
    struct net_timer **at = &l->timers;
    while (*at && *at != timer)
        at = &(*at)->next;
    if (*at)
        *at = (*at)->next;
    free(timer);
}

static void timer_mod(void *timer, int64_t expires, void *opaque)
{
    ((struct net_timer *)timer)->expires = expires;
}

static void poll_fd_ignore(int fd, void *opaque)
{
}

static void notify_ignore(void *opaque)
{
}

static const SlirpCb callbacks = {.send_packet = send_packet,
                                  .guest_error = guest_error,
                                  .clock_get_ns = clock_get_ns,
                                  .timer_new = timer_new,
                                  .timer_free = timer_free,
                                  .timer_mod = timer_mod,
                                  .register_poll_fd = poll_fd_ignore,
                                  .unregister_poll_fd = poll_fd_ignore,
                                  .notify = notify_ignore};

/* ---- opening ---- */

static struct in_addr address(uint32_t given, uint32_t otherwise)
{
    return (struct in_addr){htonl(given ? given : otherwise)};
}

static bool forward(struct net_link *l, const struct netdev_forward *f, uint32_t first_guest, struct error *e)
{
    if (!l->net->call.slirp_add_hostfwd(l->slirp, f->udp, address(f->host_address, INADDR_ANY), f->host_port,
                                        address(f->guest_address, first_guest), f->guest_port))
        return true;
    return error_set(e, "-netdev user,id=%s: port %u of the host cannot be forwarded (in use?)", l->cfg->id,
                     f->host_port);
}

static bool link_open(struct net_link *l, struct error *e)
{
    const struct netdev_config *c = l->cfg;
    uint32_t mask = c->mask ? c->mask : 0xffffff00, net = (c->net ? c->net : 0x0a000200) & mask;
    uint32_t guest = c->dhcp_start ? c->dhcp_start : net | 15;
    SlirpConfig cfg = {.version = 1,
                       .restricted = c->restricted,
                       .in_enabled = true,
                       .vnetwork = address(net, 0),
                       .vnetmask = address(mask, 0),
                       .vhost = address(c->host, net | 2),
                       .in6_enabled = !c->no_ipv6,
                       .vprefix_len = 64,
                       .vhostname = c->hostname,
                       .tftp_path = c->tftp,
                       .bootfile = c->bootfile,
                       .vdhcp_start = address(guest, 0),
                       .vnameserver = address(c->dns, net | 3),
                       .vdomainname = c->domain};
    inet_pton(AF_INET6, "fec0::", &cfg.vprefix_addr6);
    inet_pton(AF_INET6, "fec0::2", &cfg.vhost6);
    inet_pton(AF_INET6, "fec0::3", &cfg.vnameserver6);
    l->slirp = l->net->call.slirp_new(&cfg, &callbacks, l);
    if (!l->slirp)
        return error_set(e, "-netdev user,id=%s: libslirp refuses the network", c->id);
    for (unsigned i = 0; i < c->forwards; i++)
        if (!forward(l, &c->forward[i], guest, e))
            return false;
    return true;
}

struct net *net_open(const struct net_config *cfg, struct error *e)
{
    struct net *n = alloc_zeroed(1, sizeof *n);
    char why[256];
    n->cfg = *cfg;
    if (cfg->count && !library_load(SLIRP_LIBRARY, slirp_calls, ARRAY_LEN(slirp_calls), &n->call, why, sizeof why)) {
        error_set(e, "-netdev user: %s", why);
        free(n);
        return NULL;
    }
    for (; n->links < cfg->count; n->links++) {
        struct net_link *l = &n->link[n->links];
        *l = (struct net_link){.net = n, .cfg = &cfg->netdev[n->links]};
        if (!link_open(l, e)) {
            n->links++;
            net_close(n);
            return NULL;
        }
    }
    return n;
}

static void link_close(struct net_link *l)
{
    bool connected = l->connected;
    l->connected = false; /* nothing of what it still says reaches the guest */
    if (l->slirp)
        l->net->call.slirp_cleanup(l->slirp);
    l->slirp = NULL;
    while (l->timers)
        timer_free(l->timers, l);
    l->connected = connected;
}

void net_close(struct net *n)
{
    if (!n)
        return;
    for (unsigned i = 0; i < n->links; i++)
        link_close(&n->link[i]);
    free(n);
}

void net_restart(struct net *n)
{
    struct error e;
    for (unsigned i = 0; n && i < n->links; i++) {
        link_close(&n->link[i]);
        if (!link_open(&n->link[i], &e))
            log_error("%s", e.text);
    }
}

/* ---- the guest's side ---- */

static void wire_send(void *ctx, const uint8_t *frame, size_t len)
{
    struct net_link *l = ctx;
    if (!l->slirp)
        return;
    l->net->call.slirp_input(l->slirp, frame, (int)len);
    if (l->net->cfg.sent)
        l->net->cfg.sent(l->net->cfg.ctx);
}

bool net_connect(void *net, const char *netdev, unsigned port, struct nic_wire *wire)
{
    struct net *n = net;
    for (unsigned i = 0; n && i < n->links; i++) {
        struct net_link *l = &n->link[i];
        if (strcmp(l->cfg->id, netdev) != 0 || l->connected)
            continue;
        l->connected = true;
        l->port = (uint8_t)port;
        *wire = (struct nic_wire){wire_send, l};
        return true;
    }
    return false;
}

/* ---- the host's side ---- */

static int add_poll(int fd, int events, void *opaque)
{
    struct net *n = opaque;
    if (n->count == SOCKETS_MAX)
        return -1;
    short wanted = (short)((events & SLIRP_POLL_IN ? POLLIN : 0) | (events & SLIRP_POLL_OUT ? POLLOUT : 0) |
                           (events & SLIRP_POLL_PRI ? POLLPRI : 0));
    n->fds[n->count] = (struct pollfd){.fd = fd, .events = wanted};
    return (int)n->count++;
}

static int get_revents(int idx, void *opaque)
{
    struct net *n = opaque;
    short seen = idx < 0 ? 0 : n->fds[idx].revents;
    return (seen & POLLIN ? SLIRP_POLL_IN : 0) | (seen & POLLOUT ? SLIRP_POLL_OUT : 0) |
           (seen & POLLPRI ? SLIRP_POLL_PRI : 0) | (seen & POLLERR ? SLIRP_POLL_ERR : 0) |
           (seen & POLLHUP ? SLIRP_POLL_HUP : 0);
}

static void fire_timers(struct net_link *l)
{
    int64_t now = (int64_t)(clock_now(l->net->cfg.clock) / NS_PER_MS);
    for (struct net_timer *t = l->timers; t; t = t->next) {
        if (t->expires < 0 || t->expires > now)
            continue;
        t->expires = -1;
        t->fn(t->opaque);
    }
}

void net_service(struct net *n)
{
    for (unsigned i = 0; n && i < n->links; i++) {
        struct net_link *l = &n->link[i];
        uint32_t timeout = 0;
        if (!l->slirp)
            continue;
        n->count = 0;
        n->call.slirp_pollfds_fill(l->slirp, &timeout, add_poll, n);
        int failed = poll(n->fds, n->count, 0) < 0;
        n->call.slirp_pollfds_poll(l->slirp, failed, get_revents, n);
        fire_timers(l);
    }
}

static void earlier(uint64_t *ns, uint64_t ms)
{
    if (ms < *ns / NS_PER_MS)
        *ns = ms * NS_PER_MS;
}

unsigned net_pollfds(struct net *n, struct pollfd *fds, unsigned max, uint64_t *ns)
{
    if (!n)
        return 0;
    n->count = 0;
    for (unsigned i = 0; i < n->links; i++) {
        struct net_link *l = &n->link[i];
        uint32_t timeout = UINT32_MAX;
        if (!l->slirp)
            continue;
        n->call.slirp_pollfds_fill(l->slirp, &timeout, add_poll, n);
        if (timeout != UINT32_MAX)
            earlier(ns, timeout);
        uint64_t now = clock_now(n->cfg.clock) / NS_PER_MS;
        for (const struct net_timer *t = l->timers; t; t = t->next)
            if (t->expires >= 0)
                earlier(ns, (uint64_t)t->expires > now ? (uint64_t)t->expires - now : 0);
    }
    unsigned count = n->count < max ? n->count : max;
    memcpy(fds, n->fds, count * sizeof *fds);
    return count;
}

#else

struct net *net_open(const struct net_config *cfg, struct error *e)
{
    error_set(e, "-netdev user: this program was built without libslirp (package libslirp-dev)");
    return NULL;
}

void net_close(struct net *n)
{
}

bool net_connect(void *net, const char *netdev, unsigned port, struct nic_wire *wire)
{
    return false;
}

void net_restart(struct net *n)
{
}

void net_service(struct net *n)
{
}

unsigned net_pollfds(struct net *n, struct pollfd *fds, unsigned max, uint64_t *ns)
{
    return 0;
}

#endif
