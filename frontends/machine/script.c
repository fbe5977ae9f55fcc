#include "frontends/machine/script.h"

#include "core/keys.h"
#include "core/snapshot.h"
#include "frontends/machine/file.h"
#include "frontends/machine/text_match.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum script_verb {
    SCRIPT_WAIT,
    SCRIPT_SEND,
    SCRIPT_DELAY,
    SCRIPT_SAVEVM,
    SCRIPT_QUIT,
    SCRIPT_SENDKEY,
    SCRIPT_TYPE,
    SCRIPT_WAITSCREEN,
    SCRIPT_SCREENDUMP,
    SCRIPT_SCREENTEXT
};

static const struct {
    const char *name;
    bool text; /* takes a quoted argument */
    bool number;
} verbs[] = {
    [SCRIPT_WAIT] = {"wait", true, false},
    [SCRIPT_SEND] = {"send", true, false},
    [SCRIPT_DELAY] = {"delay", false, true},
    [SCRIPT_SAVEVM] = {"savevm", true, false},
    [SCRIPT_QUIT] = {"quit", false, false},
    [SCRIPT_SENDKEY] = {"sendkey", true, false},
    [SCRIPT_TYPE] = {"type", true, false},
    [SCRIPT_WAITSCREEN] = {"waitscreen", true, false},
    [SCRIPT_SCREENDUMP] = {"screendump", true, false},
    [SCRIPT_SCREENTEXT] = {"screentext", true, false},
};

struct script_line {
    enum script_verb verb;
    char *text; /* owned; len bytes and a zero */
    size_t len;
    uint64_t number;
};

struct script {
    struct script_line *lines;
    size_t count, at;
    size_t matched; /* bytes of the current wait's text that the latest output ends with */
    struct vclock *clock;
    struct input_queue *queue;
    struct script_ops ops;
    struct timer timer;
};

/* ---- reading ---- */

#define SCREEN_NS 20000000ull               /* between looks at the screen */
#define DELAY_MAX (CLOCK_HORIZON / 1000000) /* milliseconds */

static int hex_digit(char c)
{
    return isdigit((unsigned char)c) ? c - '0' : isxdigit((unsigned char)c) ? tolower((unsigned char)c) - 'a' + 10 : -1;
}

/* Decodes the escape after a backslash at *p; returns the byte or -1. */
static int escape_read(const char **p)
{
    static const char from[] = "nrte\\\"0", to[] = "\n\r\t\033\\\"\0";
    char c = *(*p)++;
    const char *k = c ? strchr(from, c) : NULL;
    if (k)
        return (unsigned char)to[k - from];
    if (c != 'x' || hex_digit((*p)[0]) < 0 || hex_digit((*p)[1]) < 0)
        return -1;
    int v = hex_digit((*p)[0]) * 16 + hex_digit((*p)[1]);
    *p += 2;
    return v;
}

/* A word without quotes. */
static bool word_read(struct script_line *l, const char **p)
{
    l->len = strcspn(*p, " \t\r");
    memcpy(l->text, *p, l->len);
    *p += l->len;
    return l->len > 0;
}

static bool keys_are_known(const struct script_line *l)
{
    uint8_t events[KEY_CHORD_BYTES];
    const char *bad;
    size_t bad_len;
    return l->verb != SCRIPT_SENDKEY || key_chord_events(l->text, 0, events, &bad, &bad_len);
}

static bool text_read(struct script_line *l, const char **p)
{
    l->text = calloc(1, strlen(*p) + 1);
    if (!l->text)
        return false;
    if (**p != '"')
        return l->verb == SCRIPT_SENDKEY && word_read(l, p);
    for ((*p)++; **p && **p != '"';) {
        int c = (unsigned char)*(*p)++;
        if (c == '\\')
            c = escape_read(p);
        if (c < 0)
            return false;
        l->text[l->len++] = (char)c;
    }
    return *(*p)++ == '"' && l->len;
}

static const char *blanks_skip(const char *p)
{
    while (*p == ' ' || *p == '\t' || *p == '\r')
        p++;
    return p;
}

static bool line_parse(struct script_line *l, const char *p)
{
    size_t k, n = strcspn(p, " \t\r");
    for (k = 0; k < ARRAY_LEN(verbs); k++)
        if (strlen(verbs[k].name) == n && !strncmp(p, verbs[k].name, n))
            break;
    if (k == ARRAY_LEN(verbs))
        return false;
    l->verb = (enum script_verb)k;
    p = blanks_skip(p + n);
    if (verbs[k].text && !text_read(l, &p))
        return false;
    if (verbs[k].number) {
        char *end;
        if (!isdigit((unsigned char)*p))
            return false;
        l->number = strtoull(p, &end, 10);
        p = end;
        if (l->number > DELAY_MAX)
            return false;
    }
    p = blanks_skip(p);
    return (!*p || *p == '#') && keys_are_known(l);
}

static bool lines_parse(struct script *s, struct file *f, struct error *e)
{
    unsigned number = 0;
    if (memchr(f->data, 0, f->len))
        return error_set(e, "input script '%s' is not a text file: it contains a zero byte", f->path);
    for (char *p = (char *)f->data, *end; *p; p = end) {
        number++;
        end = p + strcspn(p, "\n");
        if (*end)
            *end++ = 0;
        const char *text = blanks_skip(p);
        if (!*text || *text == '#')
            continue;
        struct script_line *grown = realloc(s->lines, (s->count + 1) * sizeof *grown);
        if (!grown)
            return error_set(e, "input script '%s': out of memory", f->path);
        s->lines = grown;
        s->lines[s->count] = (struct script_line){0};
        if (!line_parse(&s->lines[s->count++], text))
            return error_set(e,
                             "input script '%s', line %u: expected wait \"TEXT\", send \"TEXT\", delay MS, sendkey "
                             "KEYS, type \"TEXT\", "
                             "waitscreen \"TEXT\", screendump \"FILE\", screentext \"FILE\", savevm \"FILE\" or quit",
                             f->path, number);
    }
    return true;
}

/* ---- running ---- */

static void script_advance(struct script *s);

/* Does the screen show what is waited for? */
static bool screen_shows(const struct script *s)
{
    char *text = s->ops.screentext(s->ops.ctx);
    bool found = text && strstr(text, s->lines[s->at].text);
    free(text);
    return found;
}

static void look_later(struct script *s)
{
    timer_arm(s->clock, &s->timer, clock_now(s->clock) + SCREEN_NS);
}

static void time_over(void *opaque)
{
    struct script *s = opaque;
    if (s->at >= s->count) /* a damaged snapshot's */
        return;
    if (s->lines[s->at].verb == SCRIPT_WAITSCREEN && !screen_shows(s)) {
        look_later(s);
        return;
    }
    s->at++;
    script_advance(s);
}

static void press(struct script *s, const char *keys)
{
    uint8_t events[KEY_CHORD_BYTES];
    const char *bad;
    size_t bad_len, n = key_chord_events(keys, 0, events, &bad, &bad_len);
    input_post(s->queue, INPUT_KEYBOARD, s->clock->icount, events, n);
}

static void type(struct script *s, const char *text)
{
    uint8_t events[KEY_CHORD_BYTES];
    for (; *text; text++)
        input_post(s->queue, INPUT_KEYBOARD, s->clock->icount, events, key_char_events(*text, events));
}

/* Executes the current line. True: go on with the next; false: it waits, or was the last. */
static bool line_run(struct script *s)
{
    const struct script_line *l = &s->lines[s->at];
    switch (l->verb) {
    case SCRIPT_WAIT:
        s->matched = 0;
        return false;
    case SCRIPT_DELAY:
        timer_arm(s->clock, &s->timer, clock_now(s->clock) + l->number * 1000000);
        return false;
    case SCRIPT_WAITSCREEN:
        look_later(s);
        return false;
    case SCRIPT_SENDKEY:
        press(s, l->text);
        break;
    case SCRIPT_TYPE:
        type(s, l->text);
        break;
    case SCRIPT_SCREENDUMP:
    case SCRIPT_SCREENTEXT:
        s->ops.screen(s->ops.ctx, l->text, l->verb == SCRIPT_SCREENTEXT);
        break;
    case SCRIPT_SEND:
        input_post(s->queue, INPUT_SERIAL0, s->clock->icount, l->text, l->len);
        break;
    case SCRIPT_SAVEVM:
        s->ops.savevm(s->ops.ctx, l->text);
        break;
    case SCRIPT_QUIT:
        s->ops.quit(s->ops.ctx);
        break;
    }
    s->at++;
    return true;
}

static void script_advance(struct script *s)
{
    while (s->at < s->count && line_run(s))
        ;
}

void script_start(struct script *s)
{
    script_advance(s);
}

void script_output(struct script *s, uint8_t byte)
{
    if (s->at >= s->count || s->lines[s->at].verb != SCRIPT_WAIT)
        return;
    const struct script_line *l = &s->lines[s->at];
    s->matched = text_match_step(l->text, l->len, s->matched, byte);
    if (s->matched < l->len)
        return;
    s->matched = 0;
    s->at++;
    script_advance(s);
}

/* ---- life ---- */

struct script *script_load(const char *path, struct vclock *clock, struct input_queue *queue,
                           const struct script_ops *ops, struct error *e)
{
    struct file f;
    if (!file_read(&f, path, e))
        return NULL;
    struct script *s = calloc(1, sizeof *s);
    bool ok = s && lines_parse(s, &f, e);
    file_free(&f);
    if (!ok) {
        script_free(s);
        return NULL;
    }
    s->clock = clock;
    s->queue = queue;
    s->ops = *ops;
    timer_init(&s->timer, time_over, s);
    return s;
}

void script_free(struct script *s)
{
    if (!s)
        return;
    for (size_t k = 0; k < s->count; k++)
        free(s->lines[k].text);
    free(s->lines);
    free(s);
}

bool script_is_delayed(const struct script *s)
{
    return timer_is_armed(&s->timer);
}

void script_save(const struct script *s, struct snap_writer *w)
{
    snap_put_u64(w, s->at);
    snap_put_u64(w, s->matched);
    timer_save(s->clock, &s->timer, w);
}

void script_restore(struct script *s, struct snap_reader *r)
{
    s->at = snap_get_u64(r);
    s->matched = snap_get_u64(r);
    timer_load(s->clock, &s->timer, r);
    if (s->at > s->count || (s->at < s->count && s->matched > s->lines[s->at].len))
        snap_fail(r, "the input script is not the one that the snapshot was made with");
}
