/*
 * Character devices for QMP and the monitor: what there is, and rings.
 */
#include "frontends/control/control_internal.h"

#include <stdlib.h>
#include <string.h>

static void add_one(void *list, const char *id, const char *where, bool open)
{
    json_array_append_new(list, json_pack("{sssssb}", "label", id, "filename", where, "frontend-open", open));
}

json_t *qmp_query_chardev(struct control *c, json_t *arguments, struct qmp_error *e)
{
    json_t *list = json_array();
    if (c->hooks.each_chardev)
        c->hooks.each_chardev(c->hooks.ctx, add_one, list);
    return list;
}

/* ---- rings: text, or base 64 ---- */

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* Owned by the caller; NULL without memory. */
static char *base64_encode(const uint8_t *bytes, size_t len)
{
    char *text = malloc((len + 2) / 3 * 4 + 1), *out = text;
    for (size_t k = 0; text && k < len; k += 3) {
        uint32_t v =
            (uint32_t)bytes[k] << 16 | (k + 1 < len ? bytes[k + 1] << 8 : 0) | (k + 2 < len ? bytes[k + 2] : 0);
        for (unsigned n = 0; n < 4; n++)
            *out++ = k + n > len ? '=' : digits[v >> (18 - 6 * n) & 63];
    }
    if (text)
        *out = 0;
    return text;
}

/* In place. False: it is not base 64. */
static bool base64_decode(char *text, size_t *len)
{
    size_t n = strlen(text), at = 0;
    uint32_t v = 0;
    unsigned pads = n % 4 || !n ? 0 : text[n - 2] == '=' ? 2 : text[n - 1] == '=';
    for (size_t k = 0; k < n; k++) {
        const char *d = k >= n - pads ? digits : strchr(digits, text[k]);
        if (!d)
            return false;
        v = v << 6 | (uint32_t)(d - digits);
        if (k % 4 == 3) {
            text[at++] = (char)(v >> 16);
            text[at++] = (char)(v >> 8);
            text[at++] = (char)v;
        }
    }
    *len = at - pads;
    return !(n % 4);
}

static bool is_base64(json_t *arguments, bool *base64, struct qmp_error *e)
{
    const char *format = json_string_value(json_object_get(arguments, "format"));
    *base64 = format && !strcmp(format, "base64");
    if (!format || *base64 || !strcmp(format, "utf8"))
        return true;
    qmp_fail(e, "the format is utf8 or base64, not '%.40s'", format);
    return false;
}

json_t *qmp_ringbuf_read(struct control *c, json_t *arguments, struct qmp_error *e)
{
    const char *id = qmp_string(arguments, "device", e);
    json_int_t size = json_integer_value(json_object_get(arguments, "size"));
    bool base64;
    if (!id || !is_base64(arguments, &base64, e))
        return NULL;
    if (size <= 0 || size > RING_PIECE)
        return qmp_fail(e, "Parameter 'size' is a number from 1 to %d", RING_PIECE);
    size_t len = (size_t)size;
    uint8_t *bytes = malloc(len);
    if (!bytes || !c->hooks.ring_read || !c->hooks.ring_read(c->hooks.ctx, id, bytes, &len)) {
        free(bytes);
        return qmp_fail(e, "there is no ringbuf chardev '%.80s'", id);
    }
    for (size_t k = 0; !base64 && k < len; k++)
        if (bytes[k] & 0x80 || !bytes[k])
            bytes[k] = '?';
    char *encoded = base64 ? base64_encode(bytes, len) : NULL;
    json_t *text = base64 ? json_string(encoded ? encoded : "") : json_stringn((const char *)bytes, len);
    free(encoded);
    free(bytes);
    return text;
}

json_t *qmp_ringbuf_write(struct control *c, json_t *arguments, struct qmp_error *e)
{
    const char *id = qmp_string(arguments, "device", e), *data = id ? qmp_string(arguments, "data", e) : NULL;
    bool base64;
    if (!data || !is_base64(arguments, &base64, e))
        return NULL;
    char *copy = strdup(data);
    size_t len = copy ? strlen(copy) : 0;
    bool valid = copy && (!base64 || base64_decode(copy, &len));
    bool there = valid && c->hooks.ring_write && c->hooks.ring_write(c->hooks.ctx, id, copy, len);
    free(copy);
    if (!valid)
        return qmp_fail(e, "'data' is not base 64");
    return there ? json_object() : qmp_fail(e, "there is no ringbuf chardev '%.80s'", id);
}
