/*
 * A 16550A serial port.
 *
 * Source: National Semiconductor PC16550D data sheet. Sixteen-byte FIFOs with trigger levels, all five interrupt
 * sources with their priorities, loopback, modem status. OUT2 gates the interrupt, as on a PC.
 *
 * Time: the transmitter needs tx_char_time per character (0: what the divisor says) until it is empty again, and the
 * receiver gets a character each rx_char_time. A byte goes to the sink in the moment that the guest writes it, so
 * nothing is lost when a run ends. Input waits in a backlog (UART16550_BACKLOG_MAX bytes; more is refused and counted)
 * and enters the FIFO only when there is room: no overrun. A patient sender also waits until someone listens, so that
 * what was typed (or piped in) before the guest's driver clears its FIFO is not lost.
 */
#ifndef DEVICES_UART16550_H
#define DEVICES_UART16550_H

#include "core/irq.h"
#include "devices/device.h"

struct snap_writer;
struct snap_reader;

#define UART16550_FIFO            16
#define UART16550_BACKLOG_MAX     (1u << 20)
#define UART16550_TX_TIME_DEFAULT 1000 /* units a character: fast enough that polling kernels are not slowed */

/* A device at the other end that looks at the lines. */
struct uart16550_peer {
    void (*lines)(void *ctx, bool dtr, bool rts); /* what the guest drives has changed; loopback drives nothing */
    void (*idle)(void *ctx);                      /* the last byte that waited has arrived */
    void *ctx;
};

struct uart16550_config {
    unsigned instance; /* 0 for COM1: names the snapshot section */
    struct vclock *clock;
    struct irq_line irq;
    struct device_sink sink;             /* what the guest transmits */
    uint64_t tx_char_time, rx_char_time; /* units; 0: from the divisor and the line format */
    bool patient_sender; /* the other end waits until the guest listens: its receive interrupt is on, or it polls */
    struct uart16550_peer peer; /* each function may be NULL */
    const struct log *log;
};

struct uart16550_fifo {
    uint8_t byte[UART16550_FIFO];
    uint8_t head, count;
};

struct uart16550 {
    struct uart16550_config cfg;
    uint8_t ier, fcr, lcr, mcr, msr, scratch;
    uint8_t lsr_errors; /* sticky LSR bits 1..4 */
    uint16_t divisor;
    struct uart16550_fifo rx, tx;
    bool thre_pending; /* THR-empty interrupt condition, cleared by reading IIR */
    bool rx_timeout;
    bool irq_level;
    struct timer tx_timer, rx_timer, timeout_timer;
    uint8_t *backlog; /* owned */
    size_t backlog_head, backlog_count, backlog_capacity;
    uint32_t polls;      /* reads of LSR that found nothing, since the last character was sent; saturates */
    uint64_t first_poll; /* clock time of the first of them */
    uint8_t burst;       /* characters that a slow listener gets before its next poll that finds nothing */
    bool slow_listener;  /* reads LSR now and then, as firmware does at each tick */
    uint64_t refused;    /* input bytes beyond the backlog's limit */
};

extern const struct bus_ops uart16550_bus_ops; /* 8 ports */

void uart16550_init(struct uart16550 *u, const struct uart16550_config *cfg);
void uart16550_fini(struct uart16550 *u);
/* Registers and FIFOs; input that has arrived and not been read yet stays. */
void uart16550_reset(struct uart16550 *u);
/* Bytes arrive on the line, now. Fits input_fn: opaque is the uart. */
void uart16550_receive(void *opaque, const uint8_t *bytes, size_t len);
/* Bytes that were given to uart16550_receive() and have not reached the FIFO. */
size_t uart16550_waiting(const struct uart16550 *u);
/* The other end is gone, and those bytes with it. */
void uart16550_hang_up(struct uart16550 *u);
/* Are there bytes that have not left yet? */
bool uart16550_is_sending(const struct uart16550 *u);
void uart16550_save(const struct uart16550 *u, struct snap_writer *w);
void uart16550_load(struct uart16550 *u, struct snap_reader *r);

#endif
