/*
 * What the files of the control front end share: channels, and the state that their clients act on.
 */
#ifndef FRONTENDS_CONTROL_CONTROL_INTERNAL_H
#define FRONTENDS_CONTROL_CONTROL_INTERNAL_H

#include "frontends/control/control.h"
#include "frontends/machine/inspect.h"
#include "frontends/machine/listener.h"

#include <jansson.h>

#define INPUT_MAX  (1u << 20) /* of one line or message */
#define OUTPUT_MAX (8u << 20) /* that may wait for a client */

#define CONTROL_KEY_HOLD  100 /* ms of virtual time that keys are held, unless told otherwise */
#define CONTROL_KEYS_WAIT "the guest has not read the keys before these yet"

/* Bytes that grow. */
struct bytes {
    char *data;
    size_t len, room;
};

struct channel {
    struct control *control;
    enum control_kind kind;
    bool is_stdio, waits; /* waits: the machine does not start before somebody is connected */
    struct listener listener;
    int fd; /* -1: none */
    struct bytes in, out;
    size_t begin;   /* of `in`: what is before it was served; taken off once, not message by message */
    size_t scanned; /* QMP: of `in`, what the search for a message's end has seen */
    unsigned depth;
    bool in_string, escaped;
    bool negotiated; /* QMP: qmp_capabilities was sent */
    bool greeted;    /* standard output's */
    bool closing;    /* drop it when what waits is sent */
};

struct control {
    struct machine *m;
    struct control_hooks hooks;
    struct channel channel[CONTROL_CHANNELS];
    unsigned count;
    bool stopped, quit, powered_down;
    bool io_error;    /* stopped by a drive that waits for the host */
    bool ended;       /* the machine came to its end, and stands still to be looked at */
    unsigned cpu;     /* the monitor's */
    unsigned buttons; /* of the mouse, as clients hold them */
    uint64_t resets;  /* that clients were told of */
};

/* ---- channel.c ---- */

bool channel_open(struct channel *ch, const struct control_spec *spec, struct error *e);
void channel_close(struct channel *ch);
bool channel_is_connected(const struct channel *ch);
/* Takes a client, reads what has come (into ch->in), sends what waits. */
void channel_serve(struct channel *ch);
void channel_send(struct channel *ch, const char *text, size_t len);
void channel_drop(struct channel *ch);
/* False: out of memory. */
bool bytes_add(struct bytes *b, const void *data, size_t len);
void bytes_skip(struct bytes *b, size_t len);
/* Takes off what was served. */
void channel_forget(struct channel *ch);

/* ---- control.c ---- */

void control_stop(struct control *c, bool stopped);
/* "running", "paused", "io-error", "shutdown": QEMU's names. */
const char *control_status(const struct control *c);
void control_quit(struct control *c);
/* Presses the power button; QMP clients hear of it behind the answer. */
void control_powerdown(struct control *c);

/* Gives the keyboard events (core/keys.h). False: it has no room for them all, and gets none. */
bool control_press(struct control *c, const uint8_t *events, size_t len);

/* ---- monitor.c ---- */

void monitor_greet(struct channel *ch);
void monitor_prompt(struct channel *ch);
/* Serves the whole lines of ch->in. */
void monitor_serve(struct channel *ch);
/* Runs one command; its output goes to `out`. */
void monitor_command(struct control *c, char *line, const struct inspect_out *out);

/* ---- monitor_info.c ---- */

/* "info" and what follows it. */
void monitor_info(struct control *c, int argc, char **argv, const struct inspect_out *out);
/* x and xp: argv[0] is the command with its format, "x/4xw". */
void monitor_examine(struct control *c, bool physical, int argc, char **argv, const struct inspect_out *out);
bool monitor_number(const char *text, uint64_t *value);

/* ---- qmp.c ---- */

void qmp_greet(struct channel *ch);
void qmp_serve(struct channel *ch);
/* An event for all QMP clients; takes `data` over, which may be NULL. */
void qmp_event(struct control *c, const char *name, json_t *data);

/* ---- qmp_commands.c ---- */

/* The answer, or NULL with the error's class and text. */
struct qmp_error {
    const char *name;
    char text[256];
};
/* Formats the error; NULL, always. */
json_t *qmp_fail(struct qmp_error *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A string among the arguments, or NULL with the error. */
const char *qmp_string(json_t *arguments, const char *name, struct qmp_error *e);
json_t *qmp_run(struct control *c, const char *name, json_t *arguments, struct qmp_error *e);

/* ---- qmp_chardev.c ---- */

#define RING_PIECE 1048576 /* bytes that are read from a ring at a time, at most */

json_t *qmp_query_chardev(struct control *c, json_t *arguments, struct qmp_error *e);
json_t *qmp_ringbuf_read(struct control *c, json_t *arguments, struct qmp_error *e);
json_t *qmp_ringbuf_write(struct control *c, json_t *arguments, struct qmp_error *e);

#endif
