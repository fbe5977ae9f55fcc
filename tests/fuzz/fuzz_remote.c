/*
 * Strangers on sockets: QMP and monitor clients, gdb, and a server of disk images. What they send is nearly right,
 * wrong, cut off, or comes in pieces; each answer is well-formed, and nothing crashes, hangs or grows.
 */
#include "fuzz_remote.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void text_add_bytes(struct text *t, const void *bytes, size_t len)
{
    if (len > sizeof t->bytes - t->len)
        len = sizeof t->bytes - t->len;
    memcpy(t->bytes + t->len, bytes, len);
    t->len += len;
}

void text_add(struct text *t, const char *fmt, ...)
{
    char line[512];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    text_add_bytes(t, line, (size_t)n < sizeof line ? (size_t)n : sizeof line - 1);
}

void text_mutate(struct rng *r, struct text *t)
{
    if (!t->len)
        return;
    switch (rng_below(r, 12)) {
    case 0:
        t->len = rng_below(r, t->len);
        break;
    case 1: {
        size_t from = rng_below(r, t->len);
        text_add_bytes(t, t->bytes + from, t->len - from);
        break;
    }
    case 2:
    case 3:
        for (uint64_t n = 1 + rng_below(r, 4); n; n--)
            t->bytes[rng_below(r, t->len)] = (char)rng_below(r, 256);
        break;
    case 4:
        t->bytes[rng_below(r, t->len)] ^= (char)(1u << rng_below(r, 8));
        break;
    default:
        break;
    }
}

struct machine *remote_machine(const struct fuzz *f)
{
    /* inc eax; mov [0x200000], eax; out 0xe9, al; push eax; pop ebx; jmp */
    static const uint8_t code[] = {0x40, 0xa3, 0x00, 0x00, 0x20, 0x00, 0xe6, 0xe9, 0xbc,
                                   0x00, 0x00, 0x30, 0x00, 0x50, 0x5b, 0xeb, 0xef};
    return fuzz_machine(f, MACHINE_MMU_SHADOW, 8, code, sizeof code);
}

static void session(struct fuzz *f)
{
    f->log = fopen("/dev/null", "w"); /* machines that fall over say so at length */
    if (!f->log)
        fuzz_fail(f, "no /dev/null");
    switch (f->session % 4) {
    case 0:
    case 1:
        remote_control_session(f);
        break;
    case 2:
        remote_gdb_session(f);
        break;
    default:
        remote_nbd_session(f);
    }
    fclose(f->log);
}

FUZZ_DRIVER("fuzz_remote", session, 600, 0)
