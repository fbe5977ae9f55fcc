/*
 * QMP: messages on a channel, the greeting, answers and events.
 *
 * A message is a JSON object; where it ends is found by its braces, so that each byte is looked at once. Before
 * qmp_capabilities only that command is taken.
 */
#include "frontends/control/control_internal.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define DEPTH_MAX 512

static void send_json(struct channel *ch, json_t *message)
{
    char *text = message ? json_dumps(message, JSON_COMPACT | JSON_PRESERVE_ORDER) : NULL;
    if (text) {
        channel_send(ch, text, strlen(text));
        channel_send(ch, "\r\n", 2);
    }
    free(text);
    json_decref(message);
}

void qmp_greet(struct channel *ch)
{
    send_json(ch,
              json_pack("{s{s{s{sisisi}ss}s[]}}", "QMP", "version", "qemu", "micro", 0, "minor", UMBRA_VERSION_MINOR,
                        "major", UMBRA_VERSION_MAJOR, "package", "umbra " UMBRA_VERSION, "capabilities"));
}

void qmp_event(struct control *c, const char *name, json_t *data)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    for (unsigned k = 0; k < c->count; k++) {
        struct channel *ch = &c->channel[k];
        if (ch->kind != CONTROL_QMP || !ch->negotiated)
            continue;
        json_t *message = json_pack("{s{sIsI}ss}", "timestamp", "seconds", (json_int_t)now.tv_sec, "microseconds",
                                    (json_int_t)(now.tv_nsec / 1000), "event", name);
        if (data)
            json_object_set(message, "data", data);
        send_json(ch, message);
    }
    json_decref(data);
}

/* ---- answers ---- */

static void send_error(struct channel *ch, const char *name, const char *text, json_t *id)
{
    json_t *message = json_pack("{s{ssss}}", "error", "class", name, "desc", text);
    if (message && id)
        json_object_set(message, "id", id);
    send_json(ch, message);
}

static void send_return(struct channel *ch, json_t *value, json_t *id)
{
    json_t *message = json_pack("{so}", "return", value);
    if (message && id)
        json_object_set(message, "id", id);
    send_json(ch, message);
}

static const char *object_problem(json_t *message)
{
    const char *key;
    json_t *value;
    if (!json_is_object(message))
        return "QMP input must be a JSON object";
    json_object_foreach(
        message, key,
        value) if (strcmp(key, "execute") && strcmp(key, "arguments") &&
                   strcmp(key, "id")) return "QMP input has a member that is not execute, arguments or id";
    if (!json_is_string(json_object_get(message, "execute")))
        return "QMP input lacks member 'execute'";
    value = json_object_get(message, "arguments");
    return value && !json_is_object(value) ? "QMP input member 'arguments' must be an object" : NULL;
}

static void negotiate(struct channel *ch, const char *name, json_t *arguments, json_t *id)
{
    bool asks = !strcmp(name, "qmp_capabilities");
    json_t *enable = json_object_get(arguments, "enable");
    if (ch->negotiated && asks)
        send_error(ch, "CommandNotFound", "Capabilities negotiation is already complete, command ignored", id);
    else if (!asks)
        send_error(ch, "CommandNotFound", "Expecting capabilities negotiation with 'qmp_capabilities'", id);
    else if (enable && json_array_size(enable))
        send_error(ch, "GenericError", "no capability is offered", id);
    else {
        ch->negotiated = true;
        send_return(ch, json_object(), id);
    }
}

static void dispatch(struct channel *ch, json_t *message)
{
    json_t *id = json_is_object(message) ? json_object_get(message, "id") : NULL;
    const char *problem = object_problem(message);
    struct qmp_error e = {"GenericError", ""};
    if (problem) {
        send_error(ch, "GenericError", problem, id);
        return;
    }
    const char *name = json_string_value(json_object_get(message, "execute"));
    json_t *arguments = json_object_get(message, "arguments");
    if (!ch->negotiated || !strcmp(name, "qmp_capabilities")) {
        negotiate(ch, name, arguments, id);
        return;
    }
    json_t *value = qmp_run(ch->control, name, arguments, &e);
    if (value)
        send_return(ch, value, id);
    else
        send_error(ch, e.name, e.text, id);
}

/* ---- messages ---- */

/* From ch->begin to what was scanned. */
static void parse_and_run(struct channel *ch)
{
    json_error_t bad;
    json_t *message =
        json_loadb(ch->in.data + ch->begin, ch->scanned - ch->begin, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &bad);
    ch->begin = ch->scanned;
    if (message)
        dispatch(ch, message);
    else
        send_error(ch, "GenericError", "JSON parse error", NULL);
    json_decref(message);
}

/* One byte of the search. True: a message, or what cannot become one, ends here. */
static bool scan(struct channel *ch, char b)
{
    if (ch->in_string) {
        if (!ch->escaped && b == '"')
            ch->in_string = false;
        ch->escaped = !ch->escaped && b == '\\';
        return false;
    }
    if (b == '"')
        ch->in_string = true;
    else if (b == '{' || b == '[')
        ch->depth++;
    else if ((b == '}' || b == ']') && ch->depth)
        return --ch->depth == 0;
    return ch->depth > DEPTH_MAX || (!ch->depth && b == '\n');
}

static bool is_blank(char b)
{
    return b == ' ' || b == '\t' || b == '\r' || b == '\n';
}

void qmp_serve(struct channel *ch)
{
    while (channel_is_connected(ch) && ch->scanned < ch->in.len) {
        char b = ch->in.data[ch->scanned++];
        if (ch->begin + 1 == ch->scanned && is_blank(b)) {
            ch->begin++;
        } else if (scan(ch, b)) {
            ch->depth = 0;
            ch->in_string = ch->escaped = false;
            parse_and_run(ch);
        }
    }
    channel_forget(ch);
}
