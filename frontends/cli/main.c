/*
 * umbra: the command line front end.
 */
#include "core/log.h"
#include "frontends/cli/console.h"
#include "frontends/cli/options.h"
#include "frontends/machine/umbra.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define UMBRA_VERSION "0.1"

static void print_end(const struct machine *m, const struct options *o, const struct console *c, enum machine_exit why)
{
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
    if (o->digest)
        fprintf(stderr, "digest %016" PRIx64 " icount %" PRIu64 "\n", machine_digest(m), machine_icount(m));
}

static int exit_status(const struct machine *m, const struct console *c, enum machine_exit why)
{
    if (why == MACHINE_STOPPED && c->timed_out)
        return EXIT_WALL_TIMEOUT;
    return machine_exit_code(m, why);
}

static int run(struct options *o, struct console *c, struct error *e)
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
    enum machine_exit why = machine_run(m);
    fflush(stdout);
    print_end(m, o, c, why);
    int status = exit_status(m, c, why);
    machine_destroy(m);
    return status;
}

static bool log_open(struct options *o, struct error *e)
{
    o->machine.log_out = stderr;
    if (!o->log_path)
        return true;
    o->machine.log_out = fopen(o->log_path, "w");
    return o->machine.log_out || error_set(e, "cannot write '%s': %s", o->log_path, strerror(errno));
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
    if (!options_parse(&o, argc, argv, &e) || !log_open(&o, &e)) {
        log_error("%s", e.text);
        return EXIT_BAD_INPUT;
    }
    if (o.help)
        options_print_help(stdout);
    else if (o.version)
        printf("umbra %s\n", UMBRA_VERSION);
    if (o.help || o.version)
        return 0;
    if (!console_open(&c, &o, &e)) {
        log_error("%s", e.text);
        return EXIT_BAD_INPUT;
    }
    int status = run(&o, &c, &e);
    if (!console_close(&c)) {
        log_error("output could not be written: %s", strerror(errno));
        status = EXIT_INTERNAL;
    }
    if (o.log_path)
        fclose(o.machine.log_out);
    signal_pass_on(&c);
    return status;
}
