/*
 * What all devices share: callbacks towards the machine, byte-wide register files, and rates derived from virtual time.
 *
 * Every device has the same shape: `struct <dev>_config` (borrowed pointers and callbacks, copied at init), <dev>_init,
 * <dev>_reset, <dev>_save, <dev>_load, <dev>_fini where memory is owned, and one `const struct bus_ops` for each
 * register window. A device is a value that must not move after init (timers and irq_lines point into it). It never
 * knows its address (devices/layout.h is for the machine), never looks at host time, and survives any value that a
 * guest writes.
 *
 * Loading restores a device's own state only: the inputs of interrupt controllers are saved by the controllers, so a
 * load does not drive lines (the local APIC's INTR output, a level, is the one that is driven again).
 */
#ifndef DEVICES_DEVICE_H
#define DEVICES_DEVICE_H

#include "core/bus.h"
#include "core/clock.h"
#include "core/log.h"
#include "core/types.h"

/* An event that a device reports to the machine: reset wanted, power off. It comes in the middle of a guest's register
 * access: the machine notes it and acts at the next instruction boundary. */
struct device_signal {
    void (*fn)(void *ctx);
    void *ctx;
};

static inline void device_signal_raise(const struct device_signal *s)
{
    if (s->fn)
        s->fn(s->ctx);
}

/* Where a device's output bytes go. */
struct device_sink {
    void (*tx)(void *ctx, uint8_t byte);
    void *ctx;
};

static inline void device_sink_put(const struct device_sink *s, uint8_t byte)
{
    if (s->tx)
        s->tx(s->ctx, byte);
}

/* Logs when there is a log and the channel is on; the arguments are not evaluated otherwise. */
#define device_log(log, ch, ...)                                                                                       \
    do {                                                                                                               \
        if ((log) && log_is_on((log), (ch)))                                                                           \
            log_emit((log), (ch), __VA_ARGS__);                                                                        \
    } while (0)

/* Wider accesses to a byte-wide register file are a sequence of byte accesses, lowest offset first, as on the ISA bus.
 */
static inline uint64_t device_read_bytes(uint8_t (*read8)(void *, uint64_t), void *dev, const struct bus_txn *t)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < t->size; i++)
        v |= (uint64_t)read8(dev, t->offset + i) << (8 * i);
    return v;
}

static inline void device_write_bytes(void (*write8)(void *, uint64_t, uint8_t), void *dev, const struct bus_txn *t,
                                      uint64_t value)
{
    for (unsigned i = 0; i < t->size; i++)
        write8(dev, t->offset + i, (uint8_t)(value >> (8 * i)));
}

/* Defines the exported bus_ops `ops` of a byte-wide register file. */
#define DEVICE_BYTE_BUS_OPS(ops, read8, write8)                                                                        \
    static uint64_t ops##_read(void *dev, const struct bus_txn *t)                                                     \
    {                                                                                                                  \
        return device_read_bytes(read8, dev, t);                                                                       \
    }                                                                                                                  \
    static void ops##_write(void *dev, const struct bus_txn *t, uint64_t value)                                        \
    {                                                                                                                  \
        device_write_bytes(write8, dev, t, value);                                                                     \
    }                                                                                                                  \
    const struct bus_ops ops = {ops##_read, ops##_write}

/* Ticks of a `hz` oscillator that ran since power-on, at clock time `now`. */
static inline uint64_t device_ticks(uint64_t now, uint64_t hz)
{
    return (uint64_t)((unsigned __int128)now * hz / CLOCK_HZ);
}

/* The first clock time at which device_ticks() is at least `ticks`; CLOCK_NEVER if that is out of range. */
static inline uint64_t device_tick_time(uint64_t ticks, uint64_t hz)
{
    unsigned __int128 t = ((unsigned __int128)ticks * CLOCK_HZ + hz - 1) / hz;
    return t >= CLOCK_NEVER ? CLOCK_NEVER : (uint64_t)t;
}

#endif
