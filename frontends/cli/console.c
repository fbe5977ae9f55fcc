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

#define CTRL_A      1
#define CTRL_U      21
#define STDIN_PIECE 256
#define WAIT_FDS    256
#define WAIT_NS     100000000ull /* a wait is never longer: signals and the time-out are looked at */

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

static void put(FILE *out, uint8_t byte)
{
    if (!out)
        return;
    putc(byte, out);
    if (byte == '\n') /* whoever follows the file sees whole lines */
        fflush(out);
}

static void send(struct console *c, FILE *out, const char *chardev, uint8_t byte)
{
    if (chardev && c->chardevs)
        chardevs_write(c->chardevs, chardev, &byte, 1);
    else
        put(out, byte);
}

static void serial_tx(void *ctx, unsigned port, uint8_t byte)
{
    struct console *c = ctx;
    send(c, c->serial[port], c->serial_id[port], byte);
}

static void debug_tx(void *ctx, uint8_t byte)
{
    struct console *c = ctx;
    send(c, c->debugcon, c->debugcon_id, byte);
}

static void console_tx(void *ctx, const char *chardev, const uint8_t *bytes, size_t len)
{
    struct console *c = ctx;
    if (c->chardevs)
        chardevs_write(c->chardevs, chardev, bytes, len);
}

/* ---- input ---- */

static void escapes_help(const struct console *c)
{
    char key[8];
    snprintf(key, sizeof key, "Ctrl-%c", c->escape_key + '@');
    fprintf(stderr, "\r\n%s x: leave the emulator, %s %s: send %s%s%s%s\r\n", key, key, key, key, c->typed ? ", " : "",
            c->typed ? key : "", c->typed ? " c: monitor or serial port" : "");
}

/* A terminal in raw mode leaves a monitor's lines to us: echo, the end of a line, taking back. */
static void line_type(struct console *c, uint8_t byte)
{
    if (byte == '\r' || byte == '\n') {
        fputs("\r\n", stdout);
        c->line[c->line_len++] = '\n';
        c->typed(c->typed_ctx, c->line, c->line_len);
        c->line_len = 0;
    } else if ((byte == 8 || byte == 127) && c->line_len) {
        c->line_len--;
        fputs("\b \b", stdout);
    } else if (byte == CTRL_U) {
        for (; c->line_len; c->line_len--)
            fputs("\b \b", stdout);
    } else if (byte >= ' ' && byte != 127 && c->line_len < sizeof c->line - 1) {
        c->line[c->line_len++] = (char)byte;
        putchar(byte);
    }
    fflush(stdout);
}

static void deliver(struct console *c, const uint8_t *bytes, size_t len)
{
    if (!len)
        return;
    if (!c->typed || c->to_serial)
        machine_serial_input(c->machine, c->typed_port, bytes, len);
    else if (!c->by_lines || !c->is_raw)
        c->typed(c->typed_ctx, bytes, len);
    else
        for (size_t k = 0; k < len; k++)
            line_type(c, bytes[k]);
}

/* An empty line makes the monitor show its prompt. */
static void change_over(struct console *c)
{
    c->to_serial = !c->to_serial;
    if (c->by_lines && !c->to_serial)
        line_type(c, '\n');
}

static void escape_take(struct console *c, uint8_t byte)
{
    c->escape = false;
    if (byte == 'x')
        c->quit = true;
    else if (byte == 'c' && c->typed)
        change_over(c);
    else if (byte == c->escape_key)
        deliver(c, &byte, 1);
    else
        escapes_help(c);
}

/* What was typed at a raw terminal: the escape key and what follows it is for us. */
static void escapes_filter(struct console *c, const uint8_t *bytes, size_t len)
{
    size_t from = 0;
    for (size_t k = 0; k < len; k++) {
        bool escaped = c->escape;
        if (!escaped && bytes[k] != c->escape_key)
            continue;
        deliver(c, bytes + from, k - from);
        from = k + 1;
        if (escaped)
            escape_take(c, bytes[k]);
        else
            c->escape = true;
    }
    deliver(c, bytes + from, len - from);
}

static bool stdin_ready(int timeout_ms)
{
    struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
    return poll(&p, 1, timeout_ms) > 0 && p.revents;
}

/* A terminal is always read, for the sake of the escape key; a file or a pipe waits for the guest. */
static bool stdin_wanted(const struct console *c)
{
    bool for_serial = !c->typed || c->to_serial;
    return c->reads_stdin &&
           (c->is_raw || !for_serial || machine_serial_room(c->machine, c->typed_port) >= STDIN_PIECE);
}

static void stdin_pump(struct console *c)
{
    uint8_t bytes[STDIN_PIECE];
    while (stdin_wanted(c) && stdin_ready(0)) {
        ssize_t n = read(STDIN_FILENO, bytes, sizeof bytes);
        if (n < 0 && errno == EINTR)
            return;
        if (n <= 0) {
            c->reads_stdin = false;
            return;
        }
        if (c->is_raw)
            escapes_filter(c, bytes, (size_t)n);
        else
            deliver(c, bytes, (size_t)n);
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
    if (c->is_raw)
        fflush(stdout);
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
    struct pollfd fds[WAIT_FDS] = {{.fd = stdin_wanted(c) ? STDIN_FILENO : -1, .events = POLLIN}};
    unsigned n = 1;
    fflush(stdout);
    for (unsigned k = 0; k < SERIALS_MAX; k++)
        if (c->serial[k]) /* what is not a whole line yet */
            fflush(c->serial[k]);
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
    return c->reads_stdin || c->parts;
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

static bool sink_open(const struct sink_spec *s, FILE **out, bool *owns, struct error *e)
{
    *out = s->kind == SINK_STDIO ? stdout : NULL;
    if (s->kind != SINK_FILE)
        return true;
    *out = fopen(s->path, "wb");
    *owns = *out != NULL;
    return *out || error_set(e, "cannot write '%s': %s", s->path, strerror(errno));
}

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
    signal(SIGPIPE, on_signal);
}

bool console_open(struct console *c, const struct options *o, struct error *e)
{
    *c = (struct console){.escape_key = o->escape_key ? o->escape_key : CTRL_A};
    c->debugcon_id = o->debugcon.kind == SINK_CHARDEV ? o->debugcon.path : NULL;
    if (!sink_open(&o->debugcon, &c->debugcon, &c->owns_debugcon, e))
        return false;
    bool typed_at = chardev_has_terminal(o);
    for (unsigned k = 0; k < SERIALS_MAX; k++) {
        c->serial_id[k] = o->serial[k].kind == SINK_CHARDEV ? o->serial[k].path : NULL;
        if (!sink_open(&o->serial[k], &c->serial[k], &c->owns_serial[k], e))
            return false;
    }
    if (options_terminal_port(o)) {
        c->typed_port = options_terminal_port(o) - 1;
        typed_at = true;
    }
    c->reads_stdin = typed_at && !o->machine.input_script && !o->debug;
    if (o->timeout > 0)
        c->deadline = monotonic_seconds() + o->timeout;
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    signal(SIGXFSZ, SIG_IGN); /* a limit of file sizes is an error of the write that meets it */
    if (c->reads_stdin)
        terminal_raw(c, !o->terminal_monitor && !chardev_has_terminal(o));
    return true;
}

void console_read_for(struct console *c, void (*typed)(void *ctx, const void *bytes, size_t len), void *ctx,
                      bool by_lines)
{
    c->to_serial = c->reads_stdin;
    c->reads_stdin = true;
    c->typed = typed;
    c->typed_ctx = ctx;
    c->by_lines = by_lines;
}

bool console_is_shared(const struct console *c)
{
    return c->is_raw && c->serial[c->typed_port] == stdout;
}

static bool stream_close(FILE *f, bool owns)
{
    if (!f)
        return true;
    bool bad = ferror(f) || fflush(f);
    return !(owns ? fclose(f) || bad : bad);
}

bool console_close(struct console *c)
{
    if (c->is_raw)
        tcsetattr(STDIN_FILENO, TCSANOW, &c->saved);
    bool ok = stream_close(c->debugcon, c->owns_debugcon);
    for (unsigned k = 0; k < SERIALS_MAX; k++)
        ok &= stream_close(c->serial[k], c->owns_serial[k]);
    return ok;
}
