#include "frontends/cli/forks.h"

#include "core/alloc.h"
#include "core/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Polls of a child before the next one has its round: about 40 ms of virtual time. */
#define ROUND_POLLS 10

struct child {
    struct machine *machine;
    const char *line;
    size_t number; /* from 1 */
    struct console *console;
    FILE *serial, *debugcon, *log;
    unsigned polls;  /* left in this round */
    bool round_over; /* why poll() stopped the run */
    bool ended;
    enum machine_exit why;
    int status;
    uint64_t icount, digest;
    struct machine_frames frames;
};

struct batch {
    struct machine *parent;
    const struct options *o;
    const struct fork_list *list;
    struct console *console;
    struct child *children; /* of the whole list */
    struct machine_frames at_fork, at_end;
    bool failed; /* an output could not be written */
};

/* ---- a child's host ---- */

static void child_tx(FILE *out, uint8_t byte)
{
    if (out)
        putc(byte, out);
}

/* Of the serial ports COM1 alone has a file. */
static void child_serial(void *ctx, unsigned port, uint8_t byte)
{
    child_tx(port ? NULL : ((struct child *)ctx)->serial, byte);
}

static void child_debugcon(void *ctx, uint8_t byte)
{
    child_tx(((struct child *)ctx)->debugcon, byte);
}

static bool child_poll(void *ctx)
{
    struct child *k = ctx;
    k->round_over = --k->polls == 0;
    return console_wants_end(k->console) || k->round_over;
}

/* ---- files ---- */

static void child_path(char *out, size_t len, const struct options *o, size_t number, const char *what)
{
    snprintf(out, len, "%s/child-%zu.%s", o->fork_out, number, what);
}

static FILE *child_open(const struct options *o, size_t number, const char *what, struct error *e)
{
    char path[4096];
    child_path(path, sizeof path, o, number, what);
    FILE *f = fopen(path, "wb");
    if (!f)
        error_set(e, "cannot write '%s': %s", path, strerror(errno));
    return f;
}

static bool child_open_if(bool wanted, FILE **f, const struct child *k, const struct options *o, const char *what,
                          struct error *e)
{
    *f = wanted ? child_open(o, k->number, what, e) : NULL;
    return *f || !wanted;
}

static bool child_open_all(struct child *k, const struct options *o, struct error *e)
{
    return child_open_if(true, &k->serial, k, o, "serial", e) &&
           child_open_if(o->machine.debug_console, &k->debugcon, k, o, "debugcon", e) &&
           child_open_if(o->machine.log_list != NULL, &k->log, k, o, "log", e);
}

static void child_close(struct batch *b, FILE **f)
{
    if (!*f)
        return;
    bool bad = ferror(*f);
    if (fclose(*f) || bad)
        b->failed = true;
    *f = NULL;
}

/* ---- making one ---- */

/* One input with its newline, as a script's send would be. */
static void type_line(struct child *k)
{
    size_t len = strlen(k->line);
    char *text = alloc_zeroed(1, len + 1);
    memcpy(text, k->line, len);
    text[len] = '\n';
    machine_serial_input(k->machine, 0, text, len + 1);
    free(text);
}

static bool child_start(struct batch *b, struct child *k, struct error *e)
{
    k->console = b->console;
    if (!child_open_all(k, b->o, e))
        return false;
    const struct machine_fork_config cfg = {
        .host = {.ctx = k, .serial_tx = child_serial, .debug_tx = child_debugcon, .poll = child_poll},
        .log_out = k->log ? k->log : stderr};
    k->machine = machine_fork(b->parent, &cfg, e);
    if (!k->machine)
        return false;
    type_line(k);
    return true;
}

/* ---- running ---- */

static void print_extras(struct batch *b, struct child *k)
{
    static const struct {
        const char *what;
        void (*print)(const struct machine *m, FILE *out);
    } extras[] = {{"stats", machine_print_stats}, {"trace", machine_print_trace}};
    const bool wanted[ARRAY_LEN(extras)] = {b->o->stats, b->o->machine.trace_list != NULL};
    struct error e;
    for (size_t i = 0; i < ARRAY_LEN(extras); i++) {
        FILE *f = wanted[i] ? child_open(b->o, k->number, extras[i].what, &e) : NULL;
        if (f)
            extras[i].print(k->machine, f);
        else
            b->failed |= wanted[i];
        child_close(b, &f);
    }
}

static void save_paused(struct batch *b, struct child *k)
{
    char path[4096];
    struct error e;
    if (k->why != MACHINE_PAUSED || !b->o->pause_save)
        return;
    child_path(path, sizeof path, b->o, k->number, "snap");
    if (!machine_save(k->machine, path, &e)) {
        log_error("%s", e.text);
        b->failed = true;
    }
}

static void child_end(struct batch *b, struct child *k, enum machine_exit why)
{
    k->ended = true;
    k->why = why;
    k->icount = machine_icount(k->machine);
    k->status =
        why == MACHINE_STOPPED && b->console->timed_out ? EXIT_WALL_TIMEOUT : machine_exit_code(k->machine, why);
    if (why != MACHINE_POWER_OFF && why != MACHINE_DEBUG_EXIT && why != MACHINE_STOPPED)
        log_error("child %zu: %s", k->number, machine_exit_text(why));
    print_extras(b, k);
    save_paused(b, k);
    k->digest = b->o->digest ? machine_digest(k->machine) : 0;
}

/* A round of one child. */
static void child_run(struct batch *b, struct child *k)
{
    k->polls = ROUND_POLLS;
    k->round_over = false;
    enum machine_exit why = machine_run(k->machine);
    bool stopped = b->console->caught_signal || b->console->timed_out;
    if (why != MACHINE_STOPPED || !k->round_over || stopped)
        child_end(b, k, why);
}

static bool run_round(struct batch *b, size_t from, size_t to)
{
    bool any = false;
    for (size_t i = from; i < to; i++) {
        struct child *k = &b->children[i];
        if (k->ended)
            continue;
        any = true;
        child_run(b, k);
    }
    return any;
}

/* Sharing is counted while all of them are there. */
static void count_frames(struct batch *b, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++)
        b->children[i].frames = machine_frames(b->children[i].machine);
    b->at_end = machine_frames(b->parent);
}

static void children_free(struct batch *b, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++) {
        struct child *k = &b->children[i];
        machine_destroy(k->machine);
        k->machine = NULL;
        child_close(b, &k->serial);
        child_close(b, &k->debugcon);
        child_close(b, &k->log);
    }
}

static bool run_batch(struct batch *b, size_t from, size_t to, struct error *e)
{
    bool ok = true;
    for (size_t i = from; i < to && ok; i++) {
        b->children[i] = (struct child){.line = b->list->lines[i], .number = i + 1};
        ok = child_start(b, &b->children[i], e);
    }
    while (ok && run_round(b, from, to))
        ;
    if (ok)
        count_frames(b, from, to);
    children_free(b, from, to);
    return ok;
}

unsigned forks_batch(const struct options *o, const struct fork_list *l)
{
    unsigned jobs = o->fork_jobs ? o->fork_jobs : FORK_JOBS_DEFAULT;
    return l->count < jobs ? (unsigned)l->count : jobs;
}

static bool run_all(struct batch *b, struct error *e)
{
    size_t jobs = forks_batch(b->o, b->list);
    for (size_t from = 0; from < b->list->count; from += jobs) {
        size_t to = from + jobs < b->list->count ? from + jobs : b->list->count;
        if (!run_batch(b, from, to, e))
            return false;
    }
    return true;
}

/* ---- the end ---- */

static const char *exit_word(enum machine_exit why)
{
    static const char *const words[] = {[MACHINE_POWER_OFF] = "power-off",
                                        [MACHINE_DEBUG_EXIT] = "debug-exit",
                                        [MACHINE_RESET] = "reset",
                                        [MACHINE_TRIPLE_FAULT] = "triple-fault",
                                        [MACHINE_ICOUNT_LIMIT] = "icount-limit",
                                        [MACHINE_VTIME_LIMIT] = "vtimeout",
                                        [MACHINE_HALTED] = "halted",
                                        [MACHINE_STOPPED] = "stopped",
                                        [MACHINE_AUDIT_FAILED] = "audit-failed",
                                        [MACHINE_SCRIPT_FAILED] = "script-failed",
                                        [MACHINE_RESET_FAILED] = "reset-failed",
                                        [MACHINE_PAUSED] = "paused",
                                        [MACHINE_HOST_FAILED] = "host-failed",
                                        [MACHINE_MARKER] = "marker"};
    return words[why];
}

static void print_table(const struct batch *b)
{
    printf("\n%5s %6s  %-13s %14s %8s %8s  %s\n", "child", "status", "end", "icount", "own", "shared", "line");
    for (size_t i = 0; i < b->list->count; i++) {
        const struct child *k = &b->children[i];
        printf("%5zu %6d  %-13s %14" PRIu64 " %8" PRIu64 " %8" PRIu64 "  %s\n", k->number, k->status, exit_word(k->why),
               k->icount, k->frames.own, k->frames.shared, k->line);
    }
    printf("frames: %" PRIu64 " at the fork, %" PRIu64 " at the most, %" PRIu64 " at the end\n", b->at_fork.used,
           b->at_end.peak, b->at_end.used);
    fflush(stdout);
    for (size_t i = 0; i < b->list->count && b->o->digest; i++)
        fprintf(stderr, "child %zu digest %016" PRIx64 " icount %" PRIu64 "\n", b->children[i].number,
                b->children[i].digest, b->children[i].icount);
}

static int common_status(const struct batch *b)
{
    for (size_t i = 1; i < b->list->count; i++)
        if (b->children[i].status != b->children[0].status)
            return EXIT_MIXED;
    return b->children[0].status;
}

static int overall_status(const struct batch *b)
{
    if (b->console->timed_out)
        return EXIT_WALL_TIMEOUT;
    return b->failed ? EXIT_INTERNAL : common_status(b);
}

/* ---- the first machine ---- */

/* It ended without the text. */
static int never_forked(const struct machine *m, const struct options *o, const struct console *c,
                        enum machine_exit why)
{
    log_error("-fork-at: the serial port never sent '%s': %s", o->fork_at,
              c->timed_out ? "stopped by the wall-clock timeout" : machine_exit_text(why));
    if (c->timed_out)
        return EXIT_WALL_TIMEOUT;
    int status = machine_exit_code(m, why);
    return status ? status : EXIT_BAD_INPUT;
}

bool forks_prepare(const struct options *o, struct error *e)
{
    struct stat st;
    if (mkdir(o->fork_out, 0777) && errno != EEXIST)
        return error_set(e, "-fork-out: cannot make '%s': %s", o->fork_out, strerror(errno));
    if (!stat(o->fork_out, &st) && S_ISDIR(st.st_mode))
        return true;
    return error_set(e, "-fork-out: '%s' is not a directory", o->fork_out);
}

static int run_children(struct batch *b)
{
    struct error e;
    b->console->reads_stdin = false; /* nobody listens there any more */
    b->at_fork = machine_frames(b->parent);
    b->children = alloc_zeroed(b->list->count, sizeof *b->children);
    bool ok = run_all(b, &e);
    if (ok)
        print_table(b);
    else
        log_error("%s", e.text);
    int status = ok ? overall_status(b) : EXIT_BAD_INPUT;
    free(b->children);
    return status;
}

int forks_run(struct machine *m, const struct options *o, const struct fork_list *l, struct console *c)
{
    struct batch b = {.parent = m, .o = o, .list = l, .console = c};
    enum machine_exit why = machine_run(m);
    fflush(stdout);
    return why == MACHINE_MARKER ? run_children(&b) : never_forked(m, o, c, why);
}
