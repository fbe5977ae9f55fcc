/*
 * The monitor: commands for people, one a line.
 */
#include "core/keys.h"
#include "frontends/control/control_internal.h"
#include "frontends/machine/screen.h"

#include <stdlib.h>
#include <string.h>

#define ARGS   8
#define PROMPT "(umbra) "

typedef void monitor_fn(struct control *c, int argc, char **argv, const struct inspect_out *out);

struct monitor_row {
    const char *name, *alias, *args, *help;
    int min, max; /* arguments */
    monitor_fn *fn;
};

static void say_error(const struct inspect_out *out, const struct error *e)
{
    inspect_say(out, "error: %s", e->text);
}

static void run_stop(struct control *c, int argc, char **argv, const struct inspect_out *out)
{
    control_stop(c, true);
}

static void run_cont(struct control *c, int argc, char **argv, const struct inspect_out *out)
{
    if (c->ended)
        inspect_say(out, "error: the machine has ended; it can be looked at");
    control_stop(c, false);
}

static void run_quit(struct control *c, int argc, char **argv, const struct inspect_out *out)
{
    control_quit(c);
}

static void run_reset(struct control *c, int argc, char **argv, const struct inspect_out *out)
{
    machine_button(c->m, MACHINE_BUTTON_RESET);
}

static void run_powerdown(struct control *c, int argc, char **argv, const struct inspect_out *out)
{
    control_powerdown(c);
}

static void run_screendump(struct control *c, int argc, char **argv, const struct inspect_out *out)
{
    struct error e;
    if (!machine_screendump(c->m, argv[1], &e))
        say_error(out, &e);
}

static void run_screentext(struct control *c, int argc, char **argv, const struct inspect_out *out)
{
    struct error e;
    char *save = NULL;
    if (argc > 1) {
        if (!machine_screentext_write(c->m, argv[1], &e))
            say_error(out, &e);
        return;
    }
    char *text = machine_screentext(c->m);
    for (char *line = text ? strtok_r(text, "\n", &save) : NULL; line; line = strtok_r(NULL, "\n", &save))
        out->line(out->ctx, line);
    free(text);
}

static void run_sendkey(struct control *c, int argc, char **argv, const struct inspect_out *out)
{
    uint8_t events[KEY_CHORD_BYTES];
    uint64_t hold = CONTROL_KEY_HOLD;
    const char *bad;
    size_t bad_len;
    if (argc > 2 && (!monitor_number(argv[2], &hold) || hold > KEY_HOLD_MAX)) {
        inspect_say(out, "error: '%s': keys are held for 0 to %d ms", argv[2], KEY_HOLD_MAX);
        return;
    }
    size_t n = key_chord_events(argv[1], (unsigned)hold, events, &bad, &bad_len);
    if (n && control_press(c, events, n))
        return;
    if (n)
        inspect_say(out, "error: %s", CONTROL_KEYS_WAIT);
    else if (bad)
        inspect_say(out, "error: '%.*s' is not the name of a key", (int)bad_len, bad);
    else
        inspect_say(out, "error: more than %d keys", KEY_CHORD_MAX);
}

/* A movement, -32768 to 32767. */
static bool way_parse(const char *text, int *way, const struct inspect_out *out)
{
    char *end;
    long n = strtol(text, &end, 0);
    *way = (int)n;
    if (*text && !*end && n >= INT16_MIN && n <= INT16_MAX)
        return true;
    inspect_say(out, "error: '%s' is not a number from %d to %d", text, INT16_MIN, INT16_MAX);
    return false;
}

static void run_mouse_move(struct control *c, int argc, char **argv, const struct inspect_out *out)
{
    int dx, dy, dz = 0;
    if (way_parse(argv[1], &dx, out) && way_parse(argv[2], &dy, out) && (argc < 4 || way_parse(argv[3], &dz, out)))
        machine_mouse_input(c->m, dx, dy, dz, c->buttons);
}

/* QEMU's numbers: 1 left, 2 middle, 4 right. */
static void run_mouse_button(struct control *c, int argc, char **argv, const struct inspect_out *out)
{
    uint64_t b;
    if (!monitor_number(argv[1], &b) || b > 7) {
        inspect_say(out, "error: '%s': buttons are 1 (left), 2 (middle), 4 (right) and their sums", argv[1]);
        return;
    }
    c->buttons = (b & 1 ? MOUSE_LEFT : 0) | (b & 2 ? MOUSE_MIDDLE : 0) | (b & 4 ? MOUSE_RIGHT : 0);
    machine_mouse_input(c->m, 0, 0, 0, c->buttons);
}

/* A ring's text, as far as it is text. */
static void run_ring_read(struct control *c, int argc, char **argv, const struct inspect_out *out)
{
    struct qmp_error e;
    uint64_t size;
    json_t *text = NULL, *arguments = NULL;
    if (!monitor_number(argv[2], &size) || size > RING_PIECE)
        inspect_say(out, "error: '%s' is not a number up to %d", argv[2], RING_PIECE);
    else if ((arguments = json_pack("{sssI}", "device", argv[1], "size", (json_int_t)size)))
        text = qmp_ringbuf_read(c, arguments, &e);
    if (text)
        out->line(out->ctx, json_string_value(text));
    else if (arguments)
        inspect_say(out, "error: %s", e.text);
    json_decref(text);
    json_decref(arguments);
}

static void run_ring_write(struct control *c, int argc, char **argv, const struct inspect_out *out)
{
    if (!c->hooks.ring_write || !c->hooks.ring_write(c->hooks.ctx, argv[1], argv[2], strlen(argv[2])))
        inspect_say(out, "error: there is no ringbuf chardev '%s'", argv[1]);
}

static void run_savevm(struct control *c, int argc, char **argv, const struct inspect_out *out)
{
    struct error e;
    if (!machine_save(c->m, argv[1], &e))
        say_error(out, &e);
}

/* A file that is refused half way leaves a machine that cannot go on. */
static void run_loadvm(struct control *c, int argc, char **argv, const struct inspect_out *out)
{
    struct error e;
    if (machine_load(c->m, argv[1], &e))
        return;
    say_error(out, &e);
    control_stop(c, true);
}

static void run_cpu(struct control *c, int argc, char **argv, const struct inspect_out *out)
{
    uint64_t n;
    if (!monitor_number(argv[1], &n) || n >= machine_cpu_count(c->m))
        inspect_say(out, "error: there are processors 0 to %u", machine_cpu_count(c->m) - 1);
    else
        c->cpu = (unsigned)n;
}

static void run_x(struct control *c, int argc, char **argv, const struct inspect_out *out)
{
    monitor_examine(c, false, argc, argv, out);
}

static void run_xp(struct control *c, int argc, char **argv, const struct inspect_out *out)
{
    monitor_examine(c, true, argc, argv, out);
}

static void run_help(struct control *c, int argc, char **argv, const struct inspect_out *out);

static const struct monitor_row rows[] = {
    {"help", "?", "[COMMAND]", "this list", 0, 1, run_help},
    {"info", NULL, "[WHAT]", "show something of the machine; alone: what there is", 0, 3, monitor_info},
    {"stop", "s", "", "stop the machine", 0, 0, run_stop},
    {"cont", "c", "", "let it go on", 0, 0, run_cont},
    {"quit", "q", "", "end the run", 0, 0, run_quit},
    {"system_reset", NULL, "", "press the reset button", 0, 0, run_reset},
    {"system_powerdown", NULL, "", "press the power button (ACPI)", 0, 0, run_powerdown},
    {"screendump", NULL, "FILE", "write the screen as a PNG file", 1, 1, run_screendump},
    {"screentext", NULL, "[FILE]", "show, or write, the text on the screen", 0, 1, run_screentext},
    {"sendkey", NULL, "KEY[-KEY]... [MS]", "press keys together, such as ctrl-alt-delete; held for 100 ms, or MS", 1, 2,
     run_sendkey},
    {"mouse_move", NULL, "DX DY [DZ]", "move the mouse", 2, 3, run_mouse_move},
    {"mouse_button", NULL, "STATE", "buttons that are down: 1 left, 2 middle, 4 right, added", 1, 1, run_mouse_button},
    {"cpu", NULL, "N", "the processor that the following is about", 1, 1, run_cpu},
    {"x", NULL, "/FMT ADDRESS", "memory at a virtual address: count, then x d u o c i, then b h w g", 1, 2, run_x},
    {"xp", NULL, "/FMT ADDRESS", "memory at a physical address", 1, 2, run_xp},
    {"ringbuf_read", NULL, "CHARDEV SIZE", "take what the guest has put into a ring", 2, 2, run_ring_read},
    {"ringbuf_write", NULL, "CHARDEV TEXT", "give text to the guest behind a ring", 2, 2, run_ring_write},
    {"savevm", NULL, "FILE", "save the machine", 1, 1, run_savevm},
    {"loadvm", NULL, "FILE", "load a machine", 1, 1, run_loadvm},
};

static void run_help(struct control *c, int argc, char **argv, const struct inspect_out *out)
{
    for (size_t k = 0; k < ARRAY_LEN(rows); k++) {
        const struct monitor_row *r = &rows[k];
        if (argc < 2 || !strcmp(argv[1], r->name))
            inspect_say(out, "%s%s%s %s -- %s", r->name, r->alias ? "|" : "", r->alias ? r->alias : "", r->args,
                        r->help);
    }
}

/* The command's name ends at a slash as well: "x/4x". */
static const struct monitor_row *row_find(const char *word)
{
    size_t n = strcspn(word, "/");
    for (size_t k = 0; k < ARRAY_LEN(rows); k++)
        if ((strlen(rows[k].name) == n && !strncmp(rows[k].name, word, n)) ||
            (rows[k].alias && !strcmp(rows[k].alias, word)))
            return &rows[k];
    return NULL;
}

/* Words apart, quotes around words with blanks. */
static int split(char *line, char **argv)
{
    int n = 0;
    for (char *p = line; n < ARGS;) {
        p += strspn(p, " \t\r");
        if (!*p)
            break;
        char end = *p == '"' ? '"' : ' ';
        p += *p == '"';
        argv[n++] = p;
        p += end == '"' ? strcspn(p, "\"") : strcspn(p, " \t\r");
        if (*p)
            *p++ = 0;
    }
    return n;
}

void monitor_command(struct control *c, char *line, const struct inspect_out *out)
{
    char *argv[ARGS];
    int argc = split(line, argv);
    if (!argc)
        return;
    const struct monitor_row *r = row_find(argv[0]);
    if (!r)
        inspect_say(out, "unknown command: '%s' (help lists them)", argv[0]);
    else if (argc - 1 < r->min || argc - 1 > r->max)
        inspect_say(out, "usage: %s %s", r->name, r->args);
    else
        r->fn(c, argc, argv, out);
}

/* ---- lines of a channel ---- */

static void send_line(void *ctx, const char *text)
{
    struct channel *ch = ctx;
    channel_send(ch, text, strlen(text));
    channel_send(ch, ch->is_stdio ? "\n" : "\r\n", ch->is_stdio ? 1 : 2);
}

void monitor_greet(struct channel *ch)
{
    send_line(ch, "Umbra monitor; help lists the commands");
    monitor_prompt(ch);
}

void monitor_prompt(struct channel *ch)
{
    channel_send(ch, PROMPT, strlen(PROMPT));
}

void monitor_serve(struct channel *ch)
{
    const struct inspect_out out = {send_line, ch};
    char *end;
    while (channel_is_connected(ch) && ch->begin < ch->in.len &&
           (end = memchr(ch->in.data + ch->begin, '\n', ch->in.len - ch->begin))) {
        size_t len = (size_t)(end - ch->in.data) - ch->begin;
        char *line = strndup(ch->in.data + ch->begin, len);
        ch->begin += len + 1;
        if (line)
            monitor_command(ch->control, line, &out);
        free(line);
        channel_send(ch, PROMPT, strlen(PROMPT));
    }
    channel_forget(ch);
}
