#include "devices/uart16550.h"

#include "core/snapshot.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REG_DATA, REG_IER, REG_IIR_FCR, REG_LCR, REG_MCR, REG_LSR, REG_MSR, REG_SCRATCH };

#define IER_RDA  0x01
#define IER_THRE 0x02
#define IER_LINE 0x04
#define IER_MSR  0x08

#define IIR_NONE    0x01
#define IIR_MSR     0x00
#define IIR_THRE    0x02
#define IIR_RDA     0x04
#define IIR_LINE    0x06
#define IIR_TIMEOUT 0x0c
#define IIR_FIFOS   0xc0

#define FCR_ENABLE   0x01
#define FCR_CLEAR_RX 0x02
#define FCR_CLEAR_TX 0x04
#define FCR_KEPT     0xc9

#define LCR_DLAB 0x80

#define MCR_DTR  0x01
#define MCR_RTS  0x02
#define MCR_OUT2 0x08
#define MCR_LOOP 0x10

#define LSR_DR      0x01
#define LSR_OVERRUN 0x02
#define LSR_THRE    0x20
#define LSR_TEMT    0x40

#define MSR_DELTAS   0x0f
#define MSR_TERI     0x04
#define MSR_CTS      0x10
#define MSR_DSR      0x20
#define MSR_RI       0x40
#define MSR_DCD      0x80
#define MSR_ATTACHED (MSR_CTS | MSR_DSR | MSR_DCD)

#define BAUD_CLOCK    115200ull /* 1.8432 MHz / 16 */
#define CHAR_TIME_MAX (12 * 0xffff * CLOCK_HZ / BAUD_CLOCK)

/* ---- FIFOs and time ---- */

static void fifo_put(struct uart16550_fifo *f, uint8_t byte)
{
    f->byte[(f->head + f->count) % UART16550_FIFO] = byte;
    f->count++;
}

static uint8_t fifo_get(struct uart16550_fifo *f)
{
    uint8_t byte = f->byte[f->head];
    f->head = (uint8_t)((f->head + 1) % UART16550_FIFO);
    f->count--;
    return byte;
}

static bool fifos_on(const struct uart16550 *u)
{
    return u->fcr & FCR_ENABLE;
}

static unsigned fifo_depth(const struct uart16550 *u)
{
    return fifos_on(u) ? UART16550_FIFO : 1;
}

/* Start bit, data bits, parity, stop bits, at the programmed rate. */
static uint64_t line_char_time(const struct uart16550 *u)
{
    unsigned bits = 1 + 5 + (u->lcr & 3) + (u->lcr >> 3 & 1) + 1 + (u->lcr >> 2 & 1);
    uint64_t divisor = u->divisor ? u->divisor : 1;
    return bits * divisor * CLOCK_HZ / BAUD_CLOCK;
}

static uint64_t tx_char_time(const struct uart16550 *u)
{
    return u->cfg.tx_char_time ? u->cfg.tx_char_time : line_char_time(u);
}

static uint64_t rx_char_time(const struct uart16550 *u)
{
    return u->cfg.rx_char_time ? u->cfg.rx_char_time : line_char_time(u);
}

static void arm_after(struct uart16550 *u, struct timer *t, uint64_t units)
{
    timer_arm(u->cfg.clock, t, clock_now(u->cfg.clock) + units);
}

/* ---- Interrupts ---- */

static unsigned rx_trigger(const struct uart16550 *u)
{
    static const uint8_t levels[4] = {1, 4, 8, 14};
    return fifos_on(u) ? levels[u->fcr >> 6] : 1;
}

/* The highest-priority pending source, as IIR shows it. */
static uint8_t pending_source(const struct uart16550 *u)
{
    if ((u->ier & IER_LINE) && u->lsr_errors)
        return IIR_LINE;
    if ((u->ier & IER_RDA) && u->rx.count >= rx_trigger(u))
        return IIR_RDA;
    if ((u->ier & IER_RDA) && u->rx_timeout)
        return IIR_TIMEOUT;
    if ((u->ier & IER_THRE) && u->thre_pending)
        return IIR_THRE;
    if ((u->ier & IER_MSR) && (u->msr & MSR_DELTAS))
        return IIR_MSR;
    return IIR_NONE;
}

static void uart_update(struct uart16550 *u)
{
    /* OUT2 is a modem output, forced inactive by loopback. */
    bool gate = (u->mcr & MCR_OUT2) && !(u->mcr & MCR_LOOP);
    bool level = gate && pending_source(u) != IIR_NONE;
    if (level == u->irq_level)
        return;
    u->irq_level = level;
    irq_set(&u->cfg.irq, level);
}

/* ---- Receiver ---- */

/* Four character times without traffic while something waits make the timeout interrupt. */
static void restart_timeout(struct uart16550 *u)
{
    u->rx_timeout = false;
    if (fifos_on(u) && u->rx.count)
        arm_after(u, &u->timeout_timer, 4 * rx_char_time(u));
    else
        timer_cancel(u->cfg.clock, &u->timeout_timer);
}

static void timeout_expired(void *opaque)
{
    struct uart16550 *u = opaque;
    u->rx_timeout = u->rx.count != 0;
    uart_update(u);
}

static void rx_accept(struct uart16550 *u, uint8_t byte)
{
    if (u->rx.count < fifo_depth(u)) {
        fifo_put(&u->rx, byte);
    } else {
        u->lsr_errors |= LSR_OVERRUN;
        if (!fifos_on(u)) /* without FIFO the newer byte replaces the older one */
            u->rx.byte[u->rx.head] = byte;
    }
    restart_timeout(u);
    uart_update(u);
}

/* A guest that polls for input reads LSR over and over without sending, in a loop or (as firmware does) at every tick
 * of a clock; one that prints reads it a few times a character. */
#define POLLS_TO_LISTEN      64
#define SLOW_POLLS_TO_LISTEN 8
#define SLOW_POLLS_TIME                                                                                                \
    200000000ull /* ns, at least, from the first of them; then it listens until it sets the                            \
                    port up anew */

/* A slow listener has little room for what it reads: it gets a few characters for each poll that found nothing. */
#define SLOW_BURST 4

static bool is_listening(const struct uart16550 *u)
{
    return !u->cfg.patient_sender || (u->ier & IER_RDA) || (u->slow_listener ? u->burst : u->polls >= POLLS_TO_LISTEN);
}

static bool rx_wanted(const struct uart16550 *u)
{
    return u->backlog_count && u->rx.count < fifo_depth(u) && !(u->mcr & MCR_LOOP) && is_listening(u);
}

/* The next character of the backlog is on the line if there is room for it. */
static void rx_start(struct uart16550 *u)
{
    if (rx_wanted(u) && !timer_is_armed(&u->rx_timer))
        arm_after(u, &u->rx_timer, rx_char_time(u));
}

static void rx_expired(void *opaque)
{
    struct uart16550 *u = opaque;
    u->burst -= u->burst != 0;
    if (rx_wanted(u)) {
        uint8_t byte = u->backlog[u->backlog_head];
        u->backlog_head = (u->backlog_head + 1) % u->backlog_capacity;
        u->backlog_count--;
        rx_accept(u, byte);
        if (!u->backlog_count && u->cfg.peer.idle)
            u->cfg.peer.idle(u->cfg.peer.ctx);
    }
    rx_start(u);
}

static uint8_t read_rbr(struct uart16550 *u)
{
    if (!u->rx.count)
        return 0;
    uint8_t byte = fifo_get(&u->rx);
    restart_timeout(u);
    rx_start(u);
    uart_update(u);
    return byte;
}

/* Doubles the backlog's ring until `count` bytes fit. False when memory is short. */
static bool backlog_grow(struct uart16550 *u, size_t count)
{
    size_t capacity = u->backlog_capacity ? u->backlog_capacity : 256;
    while (capacity < count)
        capacity *= 2;
    if (capacity == u->backlog_capacity)
        return true;
    uint8_t *ring = malloc(capacity);
    if (!ring)
        return false;
    for (size_t i = 0; i < u->backlog_count; i++)
        ring[i] = u->backlog[(u->backlog_head + i) % u->backlog_capacity];
    free(u->backlog);
    u->backlog = ring;
    u->backlog_head = 0;
    u->backlog_capacity = capacity;
    return true;
}

void uart16550_receive(void *opaque, const uint8_t *bytes, size_t len)
{
    struct uart16550 *u = opaque;
    size_t room = UART16550_BACKLOG_MAX - u->backlog_count;
    size_t n = len < room ? len : room;
    if (n && !backlog_grow(u, u->backlog_count + n))
        n = 0;
    for (size_t i = 0; i < n; i++)
        u->backlog[(u->backlog_head + u->backlog_count++) % u->backlog_capacity] = bytes[i];
    u->refused += len - n;
    if (n < len)
        device_log(u->cfg.log, LOG_GUEST_ERROR, "uart %u: %zu input bytes refused: the guest does not read",
                   u->cfg.instance, len - n);
    rx_start(u);
}

size_t uart16550_waiting(const struct uart16550 *u)
{
    return u->backlog_count;
}

void uart16550_hang_up(struct uart16550 *u)
{
    u->backlog_count = 0;
}

/* ---- Transmitter ---- */

/* A character leaves the FIFO when its last bit is out. So the empty indication comes a character time after the write,
 * which the data sheet asks for after single bytes, and a burst of writes makes one interrupt. */
static void tx_expired(void *opaque)
{
    struct uart16550 *u = opaque;
    uint8_t byte = fifo_get(&u->tx);
    if (u->tx.count)
        arm_after(u, &u->tx_timer, tx_char_time(u));
    else
        u->thre_pending = true;
    if (u->mcr & MCR_LOOP)
        rx_accept(u, byte);
    uart_update(u);
}

static void write_thr(struct uart16550 *u, uint8_t byte)
{
    if (!(u->mcr & MCR_LOOP))
        device_sink_put(&u->cfg.sink, byte);
    u->thre_pending = false;
    u->polls = 0;
    if (u->tx.count < fifo_depth(u))
        fifo_put(&u->tx, byte);
    if (!timer_is_armed(&u->tx_timer))
        arm_after(u, &u->tx_timer, tx_char_time(u));
    uart_update(u);
}

/* ---- Registers ---- */

static uint8_t modem_inputs(const struct uart16550 *u)
{
    if (!(u->mcr & MCR_LOOP))
        return MSR_ATTACHED;
    /* Loopback: RTS to CTS, DTR to DSR, OUT1 to RI, OUT2 to DCD. */
    return (uint8_t)((u->mcr & 0x02) << 3 | (u->mcr & 0x01) << 5 | (u->mcr & 0x0c) << 4);
}

static void update_modem(struct uart16550 *u)
{
    uint8_t now = modem_inputs(u), changed = (u->msr ^ now) & 0xf0;
    uint8_t deltas = (changed >> 4) & (uint8_t)~MSR_TERI;
    if ((changed & MSR_RI) && !(now & MSR_RI)) /* trailing edge of RI */
        deltas |= MSR_TERI;
    u->msr = now | (u->msr & MSR_DELTAS) | deltas;
}

/* The modem outputs, as the line shows them. */
static uint8_t line_outputs(const struct uart16550 *u)
{
    return u->mcr & MCR_LOOP ? 0 : u->mcr & (MCR_DTR | MCR_RTS);
}

static void set_mcr(struct uart16550 *u, uint8_t v)
{
    uint8_t before = line_outputs(u);
    u->mcr = v;
    uint8_t now = line_outputs(u);
    if (now != before && u->cfg.peer.lines)
        u->cfg.peer.lines(u->cfg.peer.ctx, now & MCR_DTR, now & MCR_RTS);
}

static void write_mcr(struct uart16550 *u, uint8_t v)
{
    set_mcr(u, v & 0x1f);
    update_modem(u);
    rx_start(u);
}

static void clear_rx(struct uart16550 *u)
{
    u->rx.count = 0;
    restart_timeout(u);
    rx_start(u);
}

static void clear_tx(struct uart16550 *u)
{
    if (u->tx.count)
        u->thre_pending = true;
    u->tx.count = 0;
    timer_cancel(u->cfg.clock, &u->tx_timer);
}

static void write_fcr(struct uart16550 *u, uint8_t v)
{
    bool toggled = (u->fcr ^ v) & FCR_ENABLE; /* switching the FIFOs on or off clears them */
    u->fcr = v & FCR_ENABLE ? v & FCR_KEPT : 0;
    if (toggled || (v & FCR_CLEAR_RX))
        clear_rx(u);
    if (toggled || (v & FCR_CLEAR_TX))
        clear_tx(u);
}

static void write_ier(struct uart16550 *u, uint8_t v)
{
    bool enables_thre = (v & IER_THRE) && !(u->ier & IER_THRE);
    u->ier = v & 0x0f;
    if (enables_thre && !u->tx.count)
        u->thre_pending = true;
    rx_start(u);
}

static void uart_write8(void *dev, uint64_t offset, uint8_t v)
{
    struct uart16550 *u = dev;
    bool dlab = u->lcr & LCR_DLAB;
    if ((offset & 7) >= REG_IER && (offset & 7) <= REG_LCR)
        u->slow_listener = false;
    switch (offset & 7) {
    case REG_DATA:
        if (dlab)
            u->divisor = (u->divisor & 0xff00) | v;
        else
            write_thr(u, v);
        break;
    case REG_IER:
        if (dlab)
            u->divisor = (uint16_t)((u->divisor & 0x00ff) | v << 8);
        else
            write_ier(u, v);
        break;
    case REG_IIR_FCR:
        write_fcr(u, v);
        break;
    case REG_LCR:
        u->lcr = v;
        break;
    case REG_MCR:
        write_mcr(u, v);
        break;
    case REG_SCRATCH:
        u->scratch = v;
        break;
    default: /* LSR and MSR are read-only */
        break;
    }
    uart_update(u);
}

static uint8_t read_iir(struct uart16550 *u)
{
    uint8_t source = pending_source(u);
    if (source == IIR_THRE)
        u->thre_pending = false;
    uart_update(u);
    return source | (fifos_on(u) ? IIR_FIFOS : 0);
}

/* A read of LSR found nothing. */
static void count_poll(struct uart16550 *u)
{
    uint64_t now = clock_now(u->cfg.clock);
    bool before = is_listening(u);
    u->burst = SLOW_BURST;
    if (u->polls < POLLS_TO_LISTEN && !u->polls++)
        u->first_poll = now;
    u->slow_listener |= u->polls >= SLOW_POLLS_TO_LISTEN && now - u->first_poll >= SLOW_POLLS_TIME;
    if (!before && is_listening(u))
        rx_start(u);
}

static uint8_t read_lsr(struct uart16550 *u)
{
    uint8_t v = u->lsr_errors;
    if (u->rx.count)
        v |= LSR_DR;
    if (!u->tx.count)
        v |= LSR_THRE | LSR_TEMT;
    u->lsr_errors = 0;
    if (!u->rx.count)
        count_poll(u);
    uart_update(u);
    return v;
}

static uint8_t read_msr(struct uart16550 *u)
{
    uint8_t v = u->msr;
    u->msr &= (uint8_t)~MSR_DELTAS;
    uart_update(u);
    return v;
}

static uint8_t uart_read8(void *dev, uint64_t offset)
{
    struct uart16550 *u = dev;
    bool dlab = u->lcr & LCR_DLAB;
    switch (offset & 7) {
    case REG_DATA:
        return dlab ? (uint8_t)u->divisor : read_rbr(u);
    case REG_IER:
        return dlab ? (uint8_t)(u->divisor >> 8) : u->ier;
    case REG_IIR_FCR:
        return read_iir(u);
    case REG_LCR:
        return u->lcr;
    case REG_MCR:
        return u->mcr;
    case REG_LSR:
        return read_lsr(u);
    case REG_MSR:
        return read_msr(u);
    default:
        return u->scratch;
    }
}

DEVICE_BYTE_BUS_OPS(uart16550_bus_ops, uart_read8, uart_write8);

/* ---- Life ---- */

void uart16550_init(struct uart16550 *u, const struct uart16550_config *cfg)
{
    memset(u, 0, sizeof(*u));
    u->cfg = *cfg;
    timer_init_work(&u->tx_timer, tx_expired, u);
    timer_init_work(&u->rx_timer, rx_expired, u);
    timer_init(&u->timeout_timer, timeout_expired, u);
    uart16550_reset(u);
}

static void cancel_timers(struct uart16550 *u)
{
    timer_cancel(u->cfg.clock, &u->tx_timer);
    timer_cancel(u->cfg.clock, &u->rx_timer);
    timer_cancel(u->cfg.clock, &u->timeout_timer);
}

void uart16550_fini(struct uart16550 *u)
{
    cancel_timers(u);
    free(u->backlog);
    u->backlog = NULL;
    u->backlog_count = u->backlog_capacity = 0;
}

void uart16550_reset(struct uart16550 *u)
{
    cancel_timers(u);
    set_mcr(u, 0);
    u->ier = u->fcr = u->lcr = u->scratch = u->lsr_errors = 0;
    u->msr = MSR_ATTACHED;
    u->divisor = 12; /* 9600 baud, as firmware leaves it */
    u->rx = u->tx = (struct uart16550_fifo){.count = 0};
    u->thre_pending = u->rx_timeout = false;
    u->polls = 0;
    u->slow_listener = false;
    uart_update(u);
    rx_start(u);
}

static void section_name(const struct uart16550 *u, char name[SNAP_NAME_MAX + 1])
{
    snprintf(name, SNAP_NAME_MAX + 1, "uart16550.%u", u->cfg.instance);
}

static void fifo_save(const struct uart16550_fifo *f, struct snap_writer *w)
{
    snap_put_u8(w, f->count);
    for (unsigned i = 0; i < f->count; i++)
        snap_put_u8(w, f->byte[(f->head + i) % UART16550_FIFO]);
}

static void fifo_load(struct uart16550_fifo *f, struct snap_reader *r)
{
    unsigned count = snap_get_u8(r);
    *f = (struct uart16550_fifo){.count = 0};
    if (count > UART16550_FIFO) {
        snap_fail(r, "uart16550: %u bytes in a FIFO", count);
        return;
    }
    for (unsigned i = 0; i < count; i++)
        fifo_put(f, snap_get_u8(r));
}

bool uart16550_is_sending(const struct uart16550 *u)
{
    return u->tx.count != 0;
}

void uart16550_save(const struct uart16550 *u, struct snap_writer *w)
{
    char name[SNAP_NAME_MAX + 1];
    const uint8_t bytes[] = {u->ier,     u->fcr,        u->lcr,          u->mcr,        u->msr,
                             u->scratch, u->lsr_errors, u->thre_pending, u->rx_timeout, u->irq_level};
    section_name(u, name);
    snap_begin(w, name, 2);
    snap_put_bytes(w, bytes, sizeof(bytes));
    snap_put_u16(w, u->divisor);
    snap_put_u32(w, u->polls);
    snap_put_u64(w, u->first_poll);
    snap_put_u8(w, u->slow_listener);
    snap_put_u8(w, u->burst);
    fifo_save(&u->rx, w);
    fifo_save(&u->tx, w);
    timer_save(u->cfg.clock, &u->tx_timer, w);
    timer_save(u->cfg.clock, &u->rx_timer, w);
    timer_save(u->cfg.clock, &u->timeout_timer, w);
    snap_put_u32(w, (uint32_t)u->backlog_count);
    for (size_t i = 0; i < u->backlog_count; i++)
        snap_put_u8(w, u->backlog[(u->backlog_head + i) % u->backlog_capacity]);
    snap_end(w);
}

static void backlog_load(struct uart16550 *u, struct snap_reader *r)
{
    uint32_t count = snap_get_u32(r);
    u->backlog_head = u->backlog_count = 0;
    if (count > UART16550_BACKLOG_MAX || count > snap_left(r) || !backlog_grow(u, count)) {
        snap_fail(r, "uart16550: a backlog of %u bytes", count);
        return;
    }
    snap_get_bytes(r, u->backlog, count);
    u->backlog_count = count;
}

/* At the end of time, which idle machines reach, a character stays in the FIFO for ever: its timer cannot be armed. */
static bool tx_agrees(const struct uart16550 *u)
{
    bool sends = u->tx.count != 0, armed = timer_is_armed(&u->tx_timer);
    return sends == armed || (sends && clock_now(u->cfg.clock) > CLOCK_HORIZON - CHAR_TIME_MAX);
}

void uart16550_load(struct uart16550 *u, struct snap_reader *r)
{
    char name[SNAP_NAME_MAX + 1];
    uint8_t *bytes[] = {&u->ier, &u->fcr, &u->lcr, &u->mcr, &u->msr, &u->scratch, &u->lsr_errors};
    section_name(u, name);
    if (!snap_expect(r, name, 2))
        return;
    for (unsigned i = 0; i < ARRAY_LEN(bytes); i++)
        *bytes[i] = snap_get_u8(r);
    u->thre_pending = snap_get_u8(r) != 0;
    u->rx_timeout = snap_get_u8(r) != 0;
    u->irq_level = snap_get_u8(r) != 0;
    u->divisor = snap_get_u16(r);
    u->polls = snap_get_u32(r);
    u->first_poll = snap_get_u64(r);
    u->slow_listener = snap_get_u8(r) != 0;
    u->burst = snap_get_u8(r);
    fifo_load(&u->rx, r);
    fifo_load(&u->tx, r);
    timer_load(u->cfg.clock, &u->tx_timer, r);
    if (!tx_agrees(u)) {
        snap_fail(r, "uart16550: transmitter state contradicts its FIFO");
        timer_cancel(u->cfg.clock, &u->tx_timer);
        u->tx.count = 0;
    }
    timer_load(u->cfg.clock, &u->rx_timer, r);
    timer_load(u->cfg.clock, &u->timeout_timer, r);
    backlog_load(u, r);
}
