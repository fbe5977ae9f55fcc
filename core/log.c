#include "core/log.h"

#include <stdarg.h>
#include <string.h>

static const char *const channel_names[LOG_CHANNEL_COUNT] = {
#define X(id, name, text) [LOG_##id] = name,
    LOG_CHANNELS(X)
#undef X
};

void log_init(struct log *log, FILE *out)
{
    log->out = out ? out : stderr;
    log->mask = 0;
}

static int channel_by_name(const char *name, size_t len)
{
    for (int i = 0; i < LOG_CHANNEL_COUNT; i++)
        if (strlen(channel_names[i]) == len && memcmp(channel_names[i], name, len) == 0)
            return i;
    return -1;
}

const char *log_enable_list(struct log *log, const char *list, size_t *len)
{
    for (const char *p = list; *p;) {
        size_t n = strcspn(p, ",");
        int ch = n ? channel_by_name(p, n) : -1;
        if (n && ch < 0) {
            *len = n;
            return p;
        }
        if (n)
            log->mask |= 1u << ch;
        p += n + (p[n] == ',');
    }
    return NULL;
}

/* One line, whole: lines of several threads never mix. */
static void print_line(FILE *out, const char *prefix, const char *fmt, va_list ap)
{
    flockfile(out);
    fputs(prefix, out);
    vfprintf(out, fmt, ap);
    putc('\n', out);
    funlockfile(out);
}

void log_emit(const struct log *log, enum log_channel ch, const char *fmt, ...)
{
    if (!log_is_on(log, ch))
        return;
    char prefix[32];
    snprintf(prefix, sizeof prefix, "%s: ", channel_names[ch]);
    va_list ap;
    va_start(ap, fmt);
    print_line(log->out, prefix, fmt, ap);
    va_end(ap);
}

void log_warn(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    print_line(stderr, "umbra: warning: ", fmt, ap);
    va_end(ap);
}

void log_error(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    print_line(stderr, "umbra: ", fmt, ap);
    va_end(ap);
}
