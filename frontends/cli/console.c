#define _GNU_SOURCE 1 /* ppoll */

#include "frontends/cli/console.h"

#include "frontends/cli/chardev.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define WAIT_FDS 256
#define WAIT_NS  100000000ull /* a wait is never longer: signals and the time-out are looked at */

/* A signal handler has no other way to speak: the one piece of file-scope state, written by it alone. */
static volatile sig_atomic_t signal_seen;

static void on_signal(int sig)
{
    signal_seen = sig;
}

static double monotonic_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- output ---- */

static void serial_tx(void *ctx, unsigned port, uint8_t byte)
{
    const struct console *c = ctx;
    if (c->chardevs)
        chardev_put(c->chardevs->serial[port], &byte, 1);
}

static void debug_tx(void *ctx, uint8_t byte)
{
    const struct console *c = ctx;
    if (c->chardevs)
        chardev_put(c->chardevs->debugcon, &byte, 1);
}

static void console_tx(void *ctx, const char *chardev, const uint8_t *bytes, size_t len)
{
    struct console *c = ctx;
    if (c->chardevs)
        chardevs_write(c->chardevs, chardev, bytes, len);
}

/* ---- input ---- */

static bool stdin_ready(int timeout_ms)
{
    struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
    return poll(&p, 1, timeout_ms) > 0 && p.revents;
}

static void stdin_pump(struct console *c)
{
    uint8_t bytes[4096];
    size_t room;
    while (c->reads_stdin && (room = c->typed_room(c->typed_ctx)) && stdin_ready(0)) {
        ssize_t n = read(STDIN_FILENO, bytes, room < sizeof bytes ? room : sizeof bytes);
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            return;
        if (n <= 0) {
            c->reads_stdin = false;
            return;
        }
        c->typed(c->typed_ctx, bytes, (size_t)n);
    }
}

/* ---- the machine's callbacks ---- */

bool console_wants_end(void *console)
{
    struct console *c = console;
    if (signal_seen)
        c->caught_signal = signal_seen;
    if (c->deadline > 0 && monotonic_seconds() >= c->deadline)
        c->timed_out = true;
    stdin_pump(c);
    return c->caught_signal || c->timed_out || c->quit;
}

bool console_take_interrupt(struct console *c)
{
    bool seen = signal_seen == SIGINT || c->caught_signal == SIGINT;
    if (seen)
        signal_seen = c->caught_signal = 0;
    return seen;
}

/* ---- parts ---- */

void console_add_part(struct console *c, const struct console_part *part)
{
    c->part[c->parts++] = *part;
}

static bool parts_ask(struct console *c, bool holds)
{
    bool yes = false;
    for (unsigned k = 0; k < c->parts; k++) {
        bool (*ask)(void *ctx) = holds ? c->part[k].holds : c->part[k].wants_end;
        yes |= ask && ask(c->part[k].ctx);
    }
    return yes;
}

static void parts_serve(struct console *c)
{
    for (unsigned k = 0; k < c->parts; k++)
        if (c->part[k].serve)
            c->part[k].serve(c->part[k].ctx);
}

/* Sleeps until something comes, a part wants its tick, or `ns` (and WAIT_NS) have passed. */
static void wait_for_input(struct console *c, uint64_t ns)
{
    bool reads = c->reads_stdin && c->typed_room(c->typed_ctx);
    struct pollfd fds[WAIT_FDS] = {{.fd = reads ? STDIN_FILENO : -1, .events = POLLIN}};
    unsigned n = 1;
    fflush(stdout);
    if (c->chardevs)
        chardevs_flush(c->chardevs); /* what is not a whole line yet */
    for (unsigned k = 0; k < c->parts; k++) {
        const struct console_part *p = &c->part[k];
        if (p->fds)
            n += p->fds(p->ctx, fds + n, WAIT_FDS - n);
        if (p->tick_ms && (uint64_t)p->tick_ms * 1000000 < ns)
            ns = (uint64_t)p->tick_ms * 1000000;
    }
    n += machine_pollfds(c->machine, fds + n, WAIT_FDS - n, &ns);
    ns = ns < WAIT_NS ? ns : WAIT_NS;
    const struct timespec limit = {.tv_nsec = (long)ns};
    ppoll(fds, n, &limit, NULL);
}

/* While a part holds the machine, this does not return. */
static bool host_poll(void *ctx)
{
    struct console *c = ctx;
    for (;;) {
        parts_serve(c);
        bool also = c->poll_also && c->poll_also(c->poll_ctx);
        if (console_wants_end(c) || also || parts_ask(c, false))
            return true;
        if (!parts_ask(c, true))
            return false;
        wait_for_input(c, WAIT_NS);
    }
}

bool console_hold(struct console *c)
{
    return host_poll(c);
}

static bool host_is_live(void *ctx)
{
    struct console *c = ctx;
    stdin_pump(c);
    for (unsigned k = 0; k < c->parts; k++)
        if (!c->part[k].is_live || c->part[k].is_live(c->part[k].ctx))
            return true;
    return c->reads_stdin;
}

static uint64_t host_wait(void *ctx, uint64_t ns)
{
    double start = monotonic_seconds();
    wait_for_input(ctx, ns);
    return (uint64_t)((monotonic_seconds() - start) * 1e9);
}

void console_host(struct console *c, struct machine_host *host)
{
    *host = (struct machine_host){.ctx = c,
                                  .serial_tx = serial_tx,
                                  .debug_tx = debug_tx,
                                  .console_tx = console_tx,
                                  .poll = host_poll,
                                  .is_live = host_is_live,
                                  .wait = host_wait};
}

/* ---- opening and closing ---- */

/* `signals`: Ctrl-C ends the run, as with QEMU's plain -serial stdio; else the guest gets it. */
static void terminal_raw(struct console *c, bool signals)
{
    struct termios raw;
    if (!isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, &c->saved))
        return;
    raw = c->saved;
    raw.c_iflag &= ~(tcflag_t)(ICRNL | IXON | ISTRIP | INLCR | IGNCR);
    raw.c_lflag &= ~(tcflag_t)(ECHO | ICANON | IEXTEN | (signals ? 0 : ISIG));
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    c->is_raw = tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
    /* What else ends a process from outside must not leave the terminal as it is now. */
    signal(SIGHUP, on_signal);
    signal(SIGQUIT, on_signal);
}

void console_open(struct console *c, const struct options *o)
{
    *c = (struct console){.may_read = !o->machine.input_script && !o->debug};
    if (o->timeout > 0)
        c->deadline = monotonic_seconds() + o->timeout;
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    signal(SIGXFSZ, SIG_IGN); /* a limit of file sizes is an error of the write that meets it, */
    signal(SIGPIPE, SIG_IGN); /* and so is a reader that has gone */
}

void console_read_for(struct console *c, void (*typed)(void *ctx, const void *bytes, size_t len),
                      size_t (*room)(void *ctx), void *ctx, bool signals)
{
    c->reads_stdin = true;
    c->typed = typed;
    c->typed_room = room;
    c->typed_ctx = ctx;
    terminal_raw(c, signals);
}

bool console_gives_up(void *console)
{
    const struct console *c = console;
    return signal_seen || (c->deadline > 0 && monotonic_seconds() >= c->deadline);
}

void console_close(struct console *c)
{
    if (c->is_raw)
        tcsetattr(STDIN_FILENO, TCSANOW, &c->saved);
}
