/*
 * QMP's commands.
 */
#include "core/keys.h"
#include "frontends/control/control_internal.h"
#include "frontends/machine/screen.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

typedef json_t *qmp_fn(struct control *c, json_t *arguments, struct qmp_error *e);

json_t *qmp_fail(struct qmp_error *e, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(e->text, sizeof e->text, fmt, args);
    va_end(args);
    return NULL;
}

const char *qmp_string(json_t *arguments, const char *name, struct qmp_error *e)
{
    json_t *v = json_object_get(arguments, name);
    if (!v)
        qmp_fail(e, "Parameter '%s' is missing", name);
    else if (!json_is_string(v))
        qmp_fail(e, "Invalid parameter type for '%s', expected: string", name);
    return json_string_value(v);
}

static json_t *qmp_query_version(struct control *c, json_t *arguments, struct qmp_error *e)
{
    return json_pack("{s{sisisi}ss}", "qemu", "micro", 0, "minor", UMBRA_VERSION_MINOR, "major", UMBRA_VERSION_MAJOR,
                     "package", "umbra " UMBRA_VERSION);
}

static json_t *qmp_query_status(struct control *c, json_t *arguments, struct qmp_error *e)
{
    return json_pack("{sbsbss}", "running", !control_holds(c), "singlestep", 0, "status", control_status(c));
}

static json_t *qmp_query_name(struct control *c, json_t *arguments, struct qmp_error *e)
{
    const char *name = machine_name(c->m);
    return name ? json_pack("{ss}", "name", name) : json_object();
}

static json_t *qmp_query_kvm(struct control *c, json_t *arguments, struct qmp_error *e)
{
    return json_pack("{sbsb}", "enabled", 0, "present", 0);
}

static json_t *qmp_query_cpus(struct control *c, json_t *arguments, struct qmp_error *e)
{
    json_t *list = json_array();
    for (unsigned k = 0; k < machine_cpu_count(c->m); k++)
        json_array_append_new(list, json_pack("{sisssssi}", "cpu-index", (int)k, "qom-path", "/machine", "target",
                                              "x86_64", "thread-id", 0));
    return list;
}

static json_t *qmp_stop(struct control *c, json_t *arguments, struct qmp_error *e)
{
    control_stop(c, true);
    return json_object();
}

static json_t *qmp_cont(struct control *c, json_t *arguments, struct qmp_error *e)
{
    control_stop(c, false);
    return json_object();
}

static json_t *qmp_quit(struct control *c, json_t *arguments, struct qmp_error *e)
{
    control_quit(c);
    return json_object();
}

static json_t *qmp_reset(struct control *c, json_t *arguments, struct qmp_error *e)
{
    machine_button(c->m, MACHINE_BUTTON_RESET);
    return json_object();
}

static json_t *qmp_powerdown(struct control *c, json_t *arguments, struct qmp_error *e)
{
    control_powerdown(c);
    return json_object();
}

static json_t *qmp_screendump(struct control *c, json_t *arguments, struct qmp_error *e)
{
    struct error bad;
    const char *file = qmp_string(arguments, "filename", e),
               *format = json_string_value(json_object_get(arguments, "format"));
    if (!file)
        return NULL;
    if (format && strcmp(format, "png"))
        return qmp_fail(e, "the format is png, not '%s'", format);
    return machine_screendump(c->m, file, &bad) ? json_object() : qmp_fail(e, "%s", bad.text);
}

/* {"type": "qcode", "data": "a"} or {"type": "number", "data": 30} */
static enum key key_value(json_t *v, struct qmp_error *e)
{
    const char *type = json_string_value(json_object_get(v, "type"));
    json_t *data = json_object_get(v, "data");
    const char *name = json_string_value(data);
    enum key key = KEY_COUNT;
    if (type && name && !strcmp(type, "qcode")) {
        key = key_find(name, strlen(name));
        if (key == KEY_COUNT)
            qmp_fail(e, "Invalid parameter '%.80s': there is no key of that name", name);
    } else if (type && json_is_integer(data) && !strcmp(type, "number")) {
        key = key_of_number((uint64_t)json_integer_value(data));
        if (key == KEY_COUNT)
            qmp_fail(e, "Invalid parameter '%" JSON_INTEGER_FORMAT "': there is no key of that number",
                     json_integer_value(data));
    } else {
        qmp_fail(e, "a key is {\"type\": \"qcode\", \"data\": NAME} or {\"type\": \"number\", \"data\": CODE}");
    }
    return key;
}

/* The optional "hold-time". */
static bool hold_time(json_t *arguments, unsigned *ms, struct qmp_error *e)
{
    json_t *v = json_object_get(arguments, "hold-time");
    json_int_t hold = v ? json_integer_value(v) : CONTROL_KEY_HOLD;
    *ms = (unsigned)hold;
    if (!v || (json_is_integer(v) && hold >= 0 && hold <= KEY_HOLD_MAX))
        return true;
    qmp_fail(e, "Parameter 'hold-time' is a number of milliseconds from 0 to %d", KEY_HOLD_MAX);
    return false;
}

static json_t *qmp_send_key(struct control *c, json_t *arguments, struct qmp_error *e)
{
    json_t *keys = json_object_get(arguments, "keys");
    uint8_t events[KEY_CHORD_BYTES];
    enum key list[KEY_CHORD_MAX];
    size_t n = json_array_size(keys);
    unsigned hold;
    if (!n || n > KEY_CHORD_MAX)
        return qmp_fail(e, "Parameter 'keys' is an array of 1 to %d keys", KEY_CHORD_MAX);
    if (!hold_time(arguments, &hold, e))
        return NULL;
    for (size_t k = 0; k < n; k++)
        if ((list[k] = key_value(json_array_get(keys, k), e)) == KEY_COUNT)
            return NULL;
    if (!control_press(c, events, key_list_events(list, (unsigned)n, hold, events)))
        return qmp_fail(e, CONTROL_KEYS_WAIT);
    return json_object();
}

/* What a client's events add up to, sent at the end. */
struct gathered {
    int dx, dy, dz;
    unsigned buttons;
    bool mouse;
};

static bool gather_button(struct gathered *g, json_t *data, bool down)
{
    static const struct {
        const char *name;
        unsigned bit;
        int wheel;
    } buttons[] = {{"left", MOUSE_LEFT, 0}, {"right", MOUSE_RIGHT, 0}, {"middle", MOUSE_MIDDLE, 0},
                   {"side", MOUSE_SIDE, 0}, {"extra", MOUSE_EXTRA, 0}, {"wheel-up", 0, -1},
                   {"wheel-down", 0, 1}};
    const char *name = json_string_value(json_object_get(data, "button"));
    for (size_t k = 0; name && k < ARRAY_LEN(buttons); k++) {
        if (strcmp(name, buttons[k].name))
            continue;
        g->buttons = down ? g->buttons | buttons[k].bit : g->buttons & ~buttons[k].bit;
        g->dz += down ? buttons[k].wheel : 0;
        g->mouse = true;
        return true;
    }
    return false;
}

static bool gather_axis(struct gathered *g, json_t *data)
{
    const char *axis = json_string_value(json_object_get(data, "axis"));
    json_int_t value = json_integer_value(json_object_get(data, "value"));
    if (!axis || !json_is_integer(json_object_get(data, "value")) || value < -32768 || value > 32767 ||
        (strcmp(axis, "x") && strcmp(axis, "y")))
        return false;
    *(axis[0] == 'x' ? &g->dx : &g->dy) += (int)value;
    g->mouse = true;
    return true;
}

static bool input_event(struct control *c, struct gathered *g, json_t *event, struct qmp_error *e)
{
    const char *type = json_string_value(json_object_get(event, "type"));
    json_t *data = json_object_get(event, "data");
    bool down = json_is_true(json_object_get(data, "down"));
    if (type && !strcmp(type, "key")) {
        enum key key = key_value(json_object_get(data, "key"), e);
        const uint8_t bytes[2] = {(uint8_t)key, down};
        if (key == KEY_COUNT)
            return false;
        machine_key_input(c->m, bytes, 2);
        return true;
    }
    if (type &&
        ((!strcmp(type, "rel") && gather_axis(g, data)) || (!strcmp(type, "btn") && gather_button(g, data, down))))
        return true;
    qmp_fail(e, "an event is of type key, rel (axis x or y) or btn (left, middle, right, side, extra, wheel-up, "
                "wheel-down)");
    return false;
}

static json_t *qmp_input_send_event(struct control *c, json_t *arguments, struct qmp_error *e)
{
    json_t *events = json_object_get(arguments, "events");
    struct gathered g = {.buttons = c->buttons};
    if (!json_is_array(events))
        return qmp_fail(e, "Parameter 'events' is missing");
    for (size_t k = 0; k < json_array_size(events); k++)
        if (!input_event(c, &g, json_array_get(events, k), e))
            return NULL;
    c->buttons = g.buttons;
    if (g.mouse)
        machine_mouse_input(c->m, g.dx, g.dy, g.dz, g.buttons);
    return json_object();
}

static void keep_line(void *ctx, const char *text)
{
    bytes_add(ctx, text, strlen(text));
    bytes_add(ctx, "\r\n", 2);
}

static json_t *qmp_human(struct control *c, json_t *arguments, struct qmp_error *e)
{
    const char *line = qmp_string(arguments, "command-line", e);
    char *copy = line ? strdup(line) : NULL;
    struct bytes text = {0};
    const struct inspect_out out = {keep_line, &text};
    if (!copy)
        return NULL;
    monitor_command(c, copy, &out);
    json_t *value = text.data ? json_stringn(text.data, text.len) : json_string("");
    free(text.data);
    free(copy);
    return value ? value : qmp_fail(e, "the answer is not text");
}

static void add_function(void *ctx, const struct inspect_pci *f)
{
    json_t *regions = json_array();
    for (unsigned k = 0; k < f->bars; k++)
        json_array_append_new(regions, json_pack("{sisssIsI}", "bar", (int)f->bar[k].index, "type",
                                                 f->bar[k].io ? "io" : "memory", "address",
                                                 (json_int_t)f->bar[k].address, "size", (json_int_t)f->bar[k].size));
    json_array_append_new(ctx, json_pack("{sisisisss{siss}s{sisi}sisiso}", "bus", 0, "slot", (int)f->slot, "function",
                                         (int)f->function, "qdev_id", "", "class_info", "class",
                                         (int)(f->class_code >> 8), "desc", f->name, "id", "vendor", (int)f->vendor,
                                         "device", (int)f->device, "irq_pin", (int)f->interrupt_pin, "irq",
                                         (int)f->interrupt_line, "regions", regions));
}

static json_t *qmp_query_pci(struct control *c, json_t *arguments, struct qmp_error *e)
{
    json_t *devices = json_array();
    machine_each_pci(c->m, add_function, devices);
    return json_pack("[{siso}]", "bus", 0, "devices", devices);
}

/* A file's name is bytes, JSON's text is Unicode: what is not UTF-8 shows as question marks. */
static json_t *name_text(const char *name)
{
    json_t *text = json_string(name);
    char *plain = text ? NULL : strdup(name);
    for (char *p = plain; p && *p; p++)
        if (*p & 0x80)
            *p = '?';
    if (plain)
        text = json_string(plain);
    free(plain);
    return text;
}

static void add_drive(void *ctx, const struct inspect_drive *d)
{
    json_t *drive = json_pack("{sosssbsb}", "device", name_text(d->name), "type", "unknown", "removable", d->removable,
                              "locked", 0);
    if (drive && d->file)
        json_object_set_new(drive, "inserted",
                            json_pack("{sosbsss{sosssI}}", "file", name_text(d->file), "ro", d->read_only, "drv", "raw",
                                      "image", "filename", name_text(d->file), "format", "raw", "virtual-size",
                                      (json_int_t)d->size));
    json_array_append_new(ctx, drive);
}

static void add_mouse(void *ctx, const struct inspect_mouse *mouse)
{
    json_array_append_new(ctx, json_pack("{sssisbsb}", "name", mouse->name, "index", (int)mouse->index, "current",
                                         mouse->current, "absolute", 0));
}

static json_t *qmp_query_mice(struct control *c, json_t *arguments, struct qmp_error *e)
{
    json_t *mice = json_array();
    machine_each_mouse(c->m, add_mouse, mice);
    return mice;
}

static json_t *qmp_query_block(struct control *c, json_t *arguments, struct qmp_error *e)
{
    json_t *drives = json_array();
    machine_each_drive(c->m, add_drive, drives);
    return drives;
}

static json_t *qmp_query_commands(struct control *c, json_t *arguments, struct qmp_error *e);

static const struct {
    const char *name;
    qmp_fn *fn;
} commands[] = {
    {"query-version", qmp_query_version},
    {"query-commands", qmp_query_commands},
    {"query-status", qmp_query_status},
    {"query-name", qmp_query_name},
    {"query-kvm", qmp_query_kvm},
    {"query-cpus-fast", qmp_query_cpus},
    {"query-pci", qmp_query_pci},
    {"query-block", qmp_query_block},
    {"query-mice", qmp_query_mice},
    {"query-chardev", qmp_query_chardev},
    {"ringbuf-read", qmp_ringbuf_read},
    {"ringbuf-write", qmp_ringbuf_write},
    {"stop", qmp_stop},
    {"cont", qmp_cont},
    {"quit", qmp_quit},
    {"system_reset", qmp_reset},
    {"system_powerdown", qmp_powerdown},
    {"screendump", qmp_screendump},
    {"send-key", qmp_send_key},
    {"input-send-event", qmp_input_send_event},
    {"human-monitor-command", qmp_human},
};

static json_t *qmp_query_commands(struct control *c, json_t *arguments, struct qmp_error *e)
{
    json_t *list = json_pack("[{ss}]", "name", "qmp_capabilities");
    for (size_t k = 0; k < ARRAY_LEN(commands); k++)
        json_array_append_new(list, json_pack("{ss}", "name", commands[k].name));
    return list;
}

json_t *qmp_run(struct control *c, const char *name, json_t *arguments, struct qmp_error *e)
{
    for (size_t k = 0; k < ARRAY_LEN(commands); k++)
        if (!strcmp(commands[k].name, name))
            return commands[k].fn(c, arguments, e);
    e->name = "CommandNotFound";
    return qmp_fail(e, "The command %.80s has not been found", name);
}
