/*
 * umbra: the command line front end.
 */
#include "core/log.h"
#include "frontends/cli/chardev.h"
#include "frontends/cli/console.h"
#include "frontends/cli/forks.h"
#include "frontends/cli/options.h"
#include "frontends/debugger/debugger.h"
#include "frontends/display/display.h"
#include "frontends/gdbstub/gdbstub.h"
#include "frontends/machine/screen.h"
#include "frontends/machine/symbols.h"
#include "frontends/machine/umbra.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void print_end(const struct machine *m, const struct options *o, const struct console *c, enum machine_exit why)
{
    struct error e;
    if (why == MACHINE_STOPPED && c->timed_out)
        log_error("stopped: wall-clock timeout of %g s", o->timeout);
    else if (why == MACHINE_STOPPED && c->caught_signal)
        log_error("stopped by signal %d", c->caught_signal);
    else if (why != MACHINE_POWER_OFF && why != MACHINE_DEBUG_EXIT && why != MACHINE_STOPPED)
        log_error("%s", machine_exit_text(why));
    if (why == MACHINE_HALTED || why == MACHINE_ICOUNT_LIMIT || why == MACHINE_VTIME_LIMIT ||
        (why == MACHINE_STOPPED && (c->timed_out || c->caught_signal)))
        machine_print_report(m, stderr);
    if (o->machine.trace_list)
        machine_print_trace(m, o->machine.log_out);
    if (o->stats)
        machine_print_stats(m, stderr);
    if (o->screendump && !machine_screendump(m, o->screendump, &e))
        log_error("%s", e.text);
    if (o->screentext && !machine_screentext_write(m, o->screentext, &e))
        log_error("%s", e.text);
    if (o->digest)
        fprintf(stderr, "digest %016" PRIx64 " icount %" PRIu64 "\n", machine_digest(m), machine_icount(m));
}

static int exit_status(const struct machine *m, const struct console *c, enum machine_exit why)
{
    if (why == MACHINE_STOPPED && c->timed_out)
        return EXIT_WALL_TIMEOUT;
    return machine_exit_code(m, why);
}

/* ---- under a debugger ---- */

static enum debugger_signal take_signal(void *ctx)
{
    struct console *c = ctx;
    bool interrupt = console_take_interrupt(c);
    if (c->caught_signal || c->timed_out)
        return DEBUGGER_QUIT;
    return interrupt ? DEBUGGER_INTERRUPT : DEBUGGER_NOTHING;
}

/* umbra debug. The status is 2 if a script's command was refused, else that of the machine. */
static int run_debugger(struct machine *m, const struct options *o, struct console *c, struct error *e)
{
    struct debugger_config cfg = {
        .machine = m, .script = o->debug_script, .symbols = o->symbols, .ctx = c, .take_signal = take_signal};
    struct debugger_result r;
    if (!debugger_run(&cfg, &r, e)) {
        log_error("%s", e->text);
        return EXIT_BAD_INPUT;
    }
    fflush(stdout);
    print_end(m, o, c, r.ended ? r.why : MACHINE_STOPPED);
    if (r.failed)
        return EXIT_BAD_INPUT;
    return exit_status(m, c, r.ended ? r.why : MACHINE_STOPPED);
}

static bool poll_stub(void *ctx)
{
    return gdbstub_poll(ctx);
}

static struct gdbstub *open_stub(const struct options *o, struct console *c, struct error *e)
{
    struct gdbstub *s = gdbstub_open(o->gdb, e);
    c->poll_also = s ? poll_stub : NULL;
    c->poll_ctx = s;
    return s;
}

/* ---- monitors ---- */

static void part_serve(void *ctx)
{
    control_serve(ctx);
}

static bool part_holds(void *ctx)
{
    return control_holds(ctx);
}

static bool part_wants_end(void *ctx)
{
    return control_wants_end(ctx);
}

static unsigned part_fds(void *ctx, struct pollfd *fds, unsigned room)
{
    return control_fds(ctx, fds, room);
}

static void part_typed(void *ctx, const void *bytes, size_t len)
{
    control_typed(ctx, bytes, len);
}

static void part_focus(void *ctx)
{
    control_focus(ctx);
}

/* One that is on the terminal alone is live as long as the terminal is. */
static bool part_is_live(void *ctx)
{
    return control_has_sockets(ctx);
}

static void hook_put(void *ctx, const void *bytes, size_t len)
{
    struct chardevs *c = ctx;
    chardev_put(c->terminal, bytes, len);
    chardevs_flush(c);
}

static void hook_each_chardev(void *ctx, void (*fn)(void *out, const char *id, const char *where, bool open), void *out)
{
    const struct chardevs *c = ctx;
    for (unsigned k = 0; k < c->count; k++)
        fn(out, c->dev[k].spec->id, c->dev[k].name, c->dev[k].listener.fd < 0 || c->dev[k].fd >= 0);
}

static struct chardev *find_ring(struct chardevs *c, const char *id)
{
    struct chardev *d = chardevs_find(c, id);
    return d && d->spec->kind == CHARDEV_RINGBUF ? d : NULL;
}

static bool hook_ring_read(void *ctx, const char *id, void *bytes, size_t *len)
{
    struct chardev *d = find_ring(ctx, id);
    *len = d ? chardev_ring_read(d, bytes, *len) : 0;
    return d != NULL;
}

static bool hook_ring_write(void *ctx, const char *id, const void *bytes, size_t len)
{
    struct chardev *d = find_ring(ctx, id);
    if (d)
        chardev_take(d, bytes, len);
    return d != NULL;
}

/* *out stays NULL if there are none. */
static bool open_control(const struct options *o, struct console *c, struct control **out, struct error *e)
{
    *out = NULL;
    if (!o->controls)
        return true;
    *out = control_open(o->control, o->controls, o->stopped && !o->gdb, e);
    if (!*out)
        return false;
    const struct console_part part = {.ctx = *out,
                                      .serve = part_serve,
                                      .holds = part_holds,
                                      .wants_end = part_wants_end,
                                      .fds = part_fds,
                                      .is_live = part_is_live};
    const struct control_hooks hooks = {.ctx = c->chardevs,
                                        .put = c->chardevs->terminal ? hook_put : NULL,
                                        .each_chardev = hook_each_chardev,
                                        .ring_read = hook_ring_read,
                                        .ring_write = hook_ring_write};
    control_attach(*out, c->machine);
    control_set_hooks(*out, &hooks);
    console_add_part(c, &part);
    chardevs_set_monitor(c->chardevs, &(struct chardev_monitor){*out, part_typed, part_focus});
    return true;
}

/* ---- the screen ---- */

static bool control_stopped(void *ctx)
{
    return control_is_stopped(ctx);
}

static void control_stop_it(void *ctx, bool stopped)
{
    control_set_stopped(ctx, stopped);
}

/* With a monitor it is the monitor that stops the machine, so that both know. *out stays NULL without -display. */
static bool open_display(const struct options *o, struct console *c, struct control *control, struct display **out,
                         struct error *e)
{
    const struct display_hooks hooks = {control, control_stopped, control_stop_it};
    *out = NULL;
    if (!o->display)
        return true;
    *out = display_open(o->display, c->machine, control ? &hooks : NULL, e);
    if (!*out)
        return false;
    const struct console_part part = {.ctx = *out,
                                      .serve = display_serve,
                                      .holds = display_holds,
                                      .wants_end = display_wants_end,
                                      .fds = display_fds,
                                      .tick_ms = DISPLAY_TICK_MS};
    console_add_part(c, &part);
    return true;
}

/* ---- running ---- */

static bool save_paused(struct machine *m, const struct options *o)
{
    struct error e;
    if (!o->pause_save || machine_save(m, o->pause_save, &e))
        return true;
    log_error("%s", e.text);
    return false;
}

static enum machine_exit run_lockstep(struct machine *m, const struct options *o, struct error *e)
{
    struct lockstep_config cfg = {
        .every = o->lockstep, .from = o->lockstep_from, .loadvm = o->loadvm, .out = o->machine.log_out};
    struct lockstep *l = lockstep_open(m, &cfg, e);
    if (!l) {
        log_error("%s", e->text);
        return MACHINE_DIFFERS;
    }
    enum machine_exit why = lockstep_run(l);
    struct lockstep_counters n = lockstep_counters(l);
    lockstep_close(l);
    fprintf(o->machine.log_out, "lockstep: %" PRIu64 " comparisons, %" PRIu64 " pages\n", n.comparisons, n.pages);
    return why;
}

/* -no-shutdown */
static bool stands_still(const struct options *o, enum machine_exit why)
{
    return o->no_shutdown && (why == MACHINE_POWER_OFF || why == MACHINE_RESET || why == MACHINE_TRIPLE_FAULT);
}

/* Somebody could still give a monitor a command. */
static bool is_reachable(const struct control *control, const struct console *c)
{
    return control && (c->reads_stdin || control_has_sockets(control));
}

/* With a monitor a machine that waits for the host stands still until its user says that it may go on. */
static enum machine_exit run_and_hold(struct machine *m, const struct options *o, struct console *c,
                                      struct control *control)
{
    enum machine_exit why;
    while ((why = machine_run(m)) == MACHINE_PAUSED && is_reachable(control, c) && !o->pause_save) {
        control_pause(control);
        if (console_hold(c))
            return MACHINE_STOPPED;
    }
    if (is_reachable(control, c) && stands_still(o, why)) {
        control_hold_end(control);
        console_hold(c);
    }
    return why;
}

static int run_machine(struct machine *m, const struct options *o, struct console *c, struct gdbstub *stub,
                       struct control *control, struct display *display)
{
    struct error e;
    enum machine_exit why = stub          ? gdbstub_run(stub, m, o->stopped, console_wants_end, c)
                            : o->lockstep ? run_lockstep(m, o, &e)
                                          : run_and_hold(m, o, c, control);
    fflush(stdout);
    control_close(control, why, true);
    display_close(display);
    print_end(m, o, c, why);
    return why == MACHINE_PAUSED && !save_paused(m, o) ? EXIT_BAD_INPUT : exit_status(m, c, why);
}

/* Reads the list, and makes room for what it asks for. True: there is nothing to fork, or all is well. */
static bool prepare_forks(struct options *o, struct fork_list *l, struct error *e)
{
    *l = (struct fork_list){0};
    if (o->debug)
        o->machine.max_forks = 1; /* "host fork" */
    if (!o->fork_at)
        return true;
    if (!fork_list_read(l, o->fork_run, e) || !forks_prepare(o, e))
        return false;
    o->machine.stop_text = o->fork_at;
    o->machine.max_forks = forks_batch(o, l);
    return true;
}

static void name_code(void *ctx, uint64_t rip, char *buf, size_t size)
{
    symbols_name(ctx, rip, buf, size);
}

static int run(struct options *o, const struct fork_list *forks, struct console *c, struct error *e)
{
    console_host(c, &o->machine.host);
    struct machine *m = machine_create(&o->machine, e);
    if (!m) {
        log_error("%s", e->text);
        return EXIT_BAD_INPUT;
    }
    c->machine = m;
    if (o->loadvm && !machine_load(m, o->loadvm, e)) {
        log_error("%s", e->text);
        machine_destroy(m);
        return EXIT_BAD_INPUT;
    }
    struct chardevs chardevs;
    if (!chardevs_open(&chardevs, o, c, e)) {
        log_error("%s", e->text);
        chardevs_close(&chardevs);
        machine_destroy(m);
        return EXIT_BAD_INPUT;
    }
    struct gdbstub *stub = o->gdb ? open_stub(o, c, e) : NULL;
    struct control *control = NULL;
    int status = EXIT_BAD_INPUT;
    struct display *display = NULL;
    if ((o->gdb && !stub) || !open_control(o, c, &control, e) || !open_display(o, c, control, &display, e)) {
        control_close(control, MACHINE_STOPPED, false);
        log_error("%s", e->text);
    } else
        status = o->debug     ? run_debugger(m, o, c, e)
                 : o->fork_at ? forks_run(m, o, forks, c)
                              : run_machine(m, o, c, stub, control, display);
    gdbstub_close(stub);
    machine_destroy(m);
    if (!chardevs_close(&chardevs)) {
        status = EXIT_INTERNAL;
    }
    return status;
}

/* -perfmap: the place is perf's. */
static bool perf_map_open(struct options *o, struct symbols *s, struct error *e)
{
    char name[64];
    if (!o->perf_map)
        return true;
    snprintf(name, sizeof name, "/tmp/perf-%ld.map", (long)getpid());
    o->machine.jit_perf_map = fopen(name, "w");
    if (!o->machine.jit_perf_map)
        return error_set(e, "cannot write '%s': %s", name, strerror(errno));
    if (!o->symbols)
        return true;
    o->machine.jit_symbol = name_code;
    o->machine.jit_symbol_ctx = s;
    return symbols_load(s, o->symbols, e);
}

static void perf_map_close(struct options *o, struct symbols *s)
{
    if (o->machine.jit_perf_map)
        fclose(o->machine.jit_perf_map);
    if (o->machine.jit_symbol)
        symbols_free(s);
}

static bool log_open(struct options *o, struct error *e)
{
    o->machine.log_out = stderr;
    if (!o->log_path)
        return true;
    o->machine.log_out = fopen(o->log_path, "w");
    return o->machine.log_out || error_set(e, "cannot write '%s': %s", o->log_path, strerror(errno));
}

static bool log_close(const struct options *o)
{
    if (!o->log_path)
        return true;
    bool bad = ferror(o->machine.log_out);
    return !(fclose(o->machine.log_out) || bad);
}

static bool pid_write(const struct options *o, struct error *e)
{
    FILE *f = o->pid_file ? fopen(o->pid_file, "w") : NULL;
    if (!o->pid_file)
        return true;
    bool ok = f && fprintf(f, "%ld\n", (long)getpid()) > 0;
    return ((!f || !fclose(f)) && ok) || error_set(e, "cannot write '%s': %s", o->pid_file, strerror(errno));
}

/* Dies of the signal that stopped the run, so that the caller sees it. */
static void signal_pass_on(const struct console *c)
{
    if (!c->caught_signal)
        return;
    signal(c->caught_signal, SIG_DFL);
    raise(c->caught_signal);
}

int main(int argc, char **argv)
{
    struct options o;
    struct console c;
    struct error e = {""};
    struct fork_list forks = {0};
    struct symbols symbols = {0};
    if (!options_parse(&o, argc, argv, &e) || !log_open(&o, &e)) {
        log_error("%s", e.text);
        return EXIT_BAD_INPUT;
    }
    if (o.help)
        options_print_help(stdout);
    else if (o.version)
        printf("umbra %s\n", UMBRA_VERSION);
    if (o.help || o.version || o.answered)
        return 0;
    if (!pid_write(&o, &e) || !perf_map_open(&o, &symbols, &e) || !prepare_forks(&o, &forks, &e)) {
        log_error("%s", e.text);
        fork_list_free(&forks);
        return EXIT_BAD_INPUT;
    }
    console_open(&c, &o);
    int status = run(&o, &forks, &c, &e);
    fork_list_free(&forks);
    perf_map_close(&o, &symbols);
    if (o.pid_file)
        unlink(o.pid_file);
    console_close(&c);
    if (!log_close(&o)) {
        log_error("'%s' could not be written", o.log_path);
        status = EXIT_INTERNAL;
    }
    signal_pass_on(&c);
    return status;
}
