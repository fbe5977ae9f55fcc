/*
 * The stub's loop: the machine runs until something stops it, then the client's packets are served until it resumes.
 */
#include "frontends/gdbstub/gdbstub_internal.h"

#include "core/log.h"

#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#define INTERRUPT 3

struct gdbstub *gdbstub_open(const char *spec, struct error *e)
{
    struct gdbstub *s = calloc(1, sizeof *s);
    if (!s) {
        error_set(e, "out of memory");
        return NULL;
    }
    if (connection_listen(&s->c, spec, e))
        return s;
    free(s);
    return NULL;
}

void gdbstub_close(struct gdbstub *s)
{
    if (!s)
        return;
    connection_drop(&s->c);
    listener_close(&s->c.listener);
    free(s);
}

/* The client is gone: nothing of it stays. */
static void session_end(struct gdbstub *s)
{
    connection_drop(&s->c);
    gdb_points_clear(s);
    s->swbreak = s->hwbreak = false;
}

bool gdbstub_poll(struct gdbstub *s)
{
    if (s->c.fd < 0) {
        s->connected_now = connection_accept(&s->c);
        return s->connected_now;
    }
    if (!connection_fill(&s->c, 0)) {
        session_end(s);
        return false;
    }
    for (int b; (b = connection_byte(&s->c)) >= 0;) {
        if (b == INTERRUPT) {
            s->interrupted = true;
            return true;
        }
    }
    return false;
}

/* Stands still until there is a client. False: quit. */
static bool wait_for_client(struct gdbstub *s)
{
    while (!connection_accept(&s->c)) {
        struct pollfd p = {.fd = s->c.listener.fd, .events = POLLIN};
        if (s->quit(s->quit_ctx))
            return false;
        poll(&p, 1, 100);
    }
    return true;
}

/* Serves packets until the machine goes on (GDB_RESUME, GDB_STEP, GDB_DETACH) or ends (GDB_KILL). */
static enum gdb_next serve(struct gdbstub *s)
{
    uint8_t packet[PACKET_MAX];
    size_t len;
    while (s->c.fd >= 0) {
        switch (connection_packet(s, packet, sizeof packet, &len)) {
        case PACKET_QUIT:
            return GDB_KILL;
        case PACKET_CLOSED:
            session_end(s);
            return GDB_DETACH;
        case PACKET_INTERRUPT: /* it stands already */
            s->last.why = DEBUG_INTERRUPTED;
            gdb_send_stop(s);
            continue;
        case PACKET_OK:
            break;
        }
        enum gdb_next next = gdb_packet(s, packet, len);
        if (next == GDB_STAY)
            continue;
        if (next == GDB_DETACH || next == GDB_KILL)
            session_end(s);
        return next;
    }
    session_end(s); /* it could not be answered */
    return GDB_DETACH;
}

static bool is_clean_end(enum machine_exit why)
{
    return why == MACHINE_POWER_OFF || why == MACHINE_DEBUG_EXIT || why == MACHINE_RESET;
}

/* The machine has ended. A client gets to look at one that did not end by itself; its next step or continue is answered
 * with the exit status. */
static void report_end(struct gdbstub *s)
{
    char text[200];
    if (s->c.fd < 0)
        return;
    snprintf(text, sizeof text, "umbra: %s\n", machine_exit_text(s->last.end));
    gdb_send_console(s, text);
    if (!is_clean_end(s->last.end)) {
        s->over = true;
        gdb_send_stop(s);
        enum gdb_next next = serve(s);
        if (next != GDB_RESUME && next != GDB_STEP)
            return;
    }
    gdb_send_exit(s);
    connection_finish(&s->c);
    session_end(s);
}

/* One stretch of running. False: the run is over, s->last.end says how. */
static bool run(struct gdbstub *s, enum gdb_next how)
{
    s->connected_now = s->interrupted = false;
    if (how == GDB_STEP)
        debug_step_cpu(s->debug, s->step_cpu, &s->last);
    else
        debug_run(s->debug, 0, 0, &s->last);
    s->step_cpu = s->last.cpu;
    if (s->last.why == DEBUG_ENDED) {
        report_end(s);
        return false;
    }
    bool ours = s->last.why != DEBUG_INTERRUPTED || s->interrupted || s->connected_now;
    if (!ours)
        s->last.end = MACHINE_STOPPED; /* a signal, a timeout, the script's quit */
    return ours;
}

static enum machine_exit run_all(struct gdbstub *s, bool stopped)
{
    enum gdb_next next = GDB_RESUME;
    if (stopped) {
        if (!wait_for_client(s))
            return MACHINE_STOPPED;
        next = serve(s);
    }
    while (next != GDB_KILL) {
        if (!run(s, next))
            return s->last.end;
        if (s->c.fd < 0) { /* it left while the machine ran */
            next = GDB_RESUME;
            continue;
        }
        if (!s->connected_now)
            gdb_send_stop(s);
        next = serve(s);
    }
    return MACHINE_STOPPED;
}

enum machine_exit gdbstub_run(struct gdbstub *s, struct machine *m, bool stopped, bool (*quit)(void *ctx), void *ctx)
{
    s->m = m;
    s->quit = quit;
    s->quit_ctx = ctx;
    s->last = (struct debug_stop){.why = DEBUG_STEPPED, .end = MACHINE_STOPPED};
    s->debug = debug_attach(m);
    if (!s->debug) {
        log_error("out of memory");
        return MACHINE_STOPPED;
    }
    enum machine_exit why = run_all(s, stopped);
    session_end(s);
    debug_detach(s->debug);
    s->debug = NULL;
    return why;
}
