/*
 * Messages to the person who runs the emulator: errors, warnings, and the channels of `-d LIST`.
 *
 * A struct log is owned by its machine (or by a test). Channels that are off cost one load and a branch.
 * Nothing that is logged may reach the guest.
 */
#ifndef CORE_LOG_H
#define CORE_LOG_H

#include "core/types.h"

#include <stdio.h>

/* One row a channel: identifier, name in `-d`, what it prints. */
#define LOG_CHANNELS(X)                                                                                                \
    X(UNIMP, "unimp", "guest reached something Umbra does not implement")                                              \
    X(GUEST_ERROR, "guest_errors", "guest used a device or register against its specification")                        \
    X(INT, "int", "exceptions and interrupts as they are delivered")                                                   \
    X(STALETLB, "staletlb", "uses of a translation that a real TLB could still hold in its old form")                  \
    X(IN_ASM, "in_asm", "guest code as it is decoded")                                                                 \
    X(JIT, "jit", "guest code as it is compiled")                                                                      \
    X(IOPORT, "ioport", "accesses to ports and MMIO that no device claims")                                            \
    X(FIRMWARE, "firmware", "what firmware says at port 0x402")                                                        \
    X(RESET, "cpu_reset", "processor state before a reset")

enum log_channel {
#define X(id, name, text) LOG_##id,
    LOG_CHANNELS(X)
#undef X
        LOG_CHANNEL_COUNT
};

struct log {
    FILE *out;     /* where channels print; never NULL after log_init; not owned */
    uint32_t mask; /* bit per channel */
};

/* Starts with every channel off, printing to `out` (borrowed). */
void log_init(struct log *log, FILE *out);
/* Turns on the comma-separated channels of `list`. Returns NULL, or the first unknown name (points into a static
 * copy-free position of `list`); `*len` then holds its length. "help" is not handled here. */
const char *log_enable_list(struct log *log, const char *list, size_t *len);

static inline bool log_is_on(const struct log *log, enum log_channel ch)
{
    return (log->mask >> ch) & 1;
}

/* Prints one line (a newline is added) on the channel if it is on. */
void log_emit(const struct log *log, enum log_channel ch, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Prints "umbra: warning: ..." on stderr. */
void log_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Prints "umbra: ..." on stderr. */
void log_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
