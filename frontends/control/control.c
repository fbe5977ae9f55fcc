#include "frontends/control/control_internal.h"

#include <stdlib.h>
#include <string.h>

struct control *control_open(const struct control_spec *specs, unsigned count, bool stopped, struct error *e)
{
    struct control *c = calloc(1, sizeof *c);
    if (!c) {
        error_set(e, "out of memory");
        return NULL;
    }
    c->stopped = stopped;
    for (unsigned k = 0; k < count; k++) {
        struct channel *ch = &c->channel[c->count++];
        ch->control = c;
        if (!channel_open(ch, &specs[k], e)) {
            control_close(c, MACHINE_STOPPED, false);
            return NULL;
        }
    }
    return c;
}

void control_attach(struct control *c, struct machine *m)
{
    c->m = m;
    c->resets = machine_resets(m);
}

void control_set_hooks(struct control *c, const struct control_hooks *hooks)
{
    c->hooks = *hooks;
}

void control_focus(struct control *c)
{
    for (unsigned k = 0; k < c->count; k++) {
        struct channel *ch = &c->channel[k];
        if (!ch->is_stdio)
            continue;
        if (ch->kind == CONTROL_QMP && !ch->greeted)
            qmp_greet(ch);
        else if (ch->kind == CONTROL_MONITOR && !ch->greeted)
            monitor_greet(ch);
        else if (ch->kind == CONTROL_MONITOR)
            monitor_prompt(ch);
        ch->greeted = true;
    }
}

bool control_has_sockets(const struct control *c)
{
    for (unsigned k = 0; k < c->count; k++)
        if (!c->channel[k].is_stdio)
            return true;
    return false;
}

static const char *shutdown_reason(const struct control *c, enum machine_exit why)
{
    if (c->quit)
        return "host-qmp-quit";
    return why == MACHINE_POWER_OFF      ? "guest-shutdown"
           : why == MACHINE_RESET        ? "guest-reset"
           : why == MACHINE_TRIPLE_FAULT ? "guest-panic"
                                         : "host-signal";
}

void control_close(struct control *c, enum machine_exit why, bool ended)
{
    if (!c)
        return;
    bool by_guest = !c->quit && (why == MACHINE_POWER_OFF || why == MACHINE_RESET || why == MACHINE_TRIPLE_FAULT ||
                                 why == MACHINE_DEBUG_EXIT);
    if (ended)
        qmp_event(c, "SHUTDOWN", json_pack("{sbss}", "guest", by_guest, "reason", shutdown_reason(c, why)));
    for (unsigned k = 0; k < c->count; k++)
        channel_close(&c->channel[k]);
    free(c);
}

void control_stop(struct control *c, bool stopped)
{
    if (c->stopped == stopped || c->ended)
        return;
    c->stopped = stopped;
    c->io_error = false;
    qmp_event(c, stopped ? "STOP" : "RESUME", NULL);
}

const char *control_status(const struct control *c)
{
    return c->ended ? "shutdown" : !control_holds(c) ? "running" : c->io_error ? "io-error" : "paused";
}

void control_pause(struct control *c)
{
    struct machine_io_error e;
    bool io_error = machine_io_error(c->m, &e);
    if (io_error)
        qmp_event(c, "BLOCK_IO_ERROR",
                  json_pack("{sssssssbss}", "device", e.drive, "operation", e.is_write ? "write" : "read", "action",
                            "stop", "nospace", e.no_space, "reason",
                            e.no_space ? "No space left on device" : "Input/output error"));
    control_stop(c, true);
    c->io_error = io_error;
}

void control_hold_end(struct control *c)
{
    control_stop(c, true);
    c->ended = true;
}

void control_powerdown(struct control *c)
{
    machine_button(c->m, MACHINE_BUTTON_POWER);
    c->powered_down = true;
}

bool control_press(struct control *c, const uint8_t *events, size_t len)
{
    if (machine_key_room(c->m) < len / 2)
        return false;
    machine_key_input(c->m, events, len);
    return true;
}

void control_quit(struct control *c)
{
    c->quit = true;
}

void control_serve(struct control *c)
{
    if (machine_resets(c->m) != c->resets) {
        c->resets = machine_resets(c->m);
        qmp_event(c, "RESET", json_pack("{sbss}", "guest", 1, "reason", "guest-reset"));
    }
    for (unsigned k = 0; k < c->count; k++)
        channel_serve(&c->channel[k]);
    if (c->powered_down)
        qmp_event(c, "POWERDOWN", NULL); /* behind the answer */
    c->powered_down = false;
}

bool control_holds(const struct control *c)
{
    for (unsigned k = 0; k < c->count; k++)
        if (c->channel[k].waits)
            return true;
    return c->stopped;
}

bool control_wants_end(const struct control *c)
{
    return c->quit;
}

unsigned control_fds(const struct control *c, struct pollfd *fds, unsigned room)
{
    unsigned n = 0;
    for (unsigned k = 0; k < c->count && n < room; k++) {
        const struct channel *ch = &c->channel[k];
        if (ch->fd >= 0)
            fds[n++] = (struct pollfd){.fd = ch->fd, .events = (short)(POLLIN | (ch->out.len ? POLLOUT : 0))};
        else if (ch->listener.fd >= 0)
            fds[n++] = (struct pollfd){.fd = ch->listener.fd, .events = POLLIN};
    }
    return n;
}

bool control_has_stdio(const struct control *c)
{
    for (unsigned k = 0; k < c->count; k++)
        if (c->channel[k].is_stdio)
            return true;
    return false;
}

void control_typed(struct control *c, const void *bytes, size_t len)
{
    for (unsigned k = 0; k < c->count; k++) {
        struct channel *ch = &c->channel[k];
        if (!ch->is_stdio)
            continue;
        if (ch->in.len + len > INPUT_MAX || !bytes_add(&ch->in, bytes, len))
            ch->in.len = ch->begin = ch->scanned = 0;
    }
}

void control_set_stopped(struct control *c, bool stopped)
{
    control_stop(c, stopped);
}

bool control_is_stopped(const struct control *c)
{
    return c->stopped;
}
