/*
 * Transmitting: descriptors, checksums, cutting a TCP packet into segments.
 */
#include "devices/net/e1000_internal.h"

#include <string.h>

/* Upper half of a descriptor. */
#define TX_LENGTH 0x000fffffu /* of a data descriptor; 16 bits in a legacy one */
#define TX_EOP    0x01000000u
#define TX_IC     0x04000000u /* legacy: insert a checksum */
#define TX_TSE    0x04000000u /* data: segment */
#define TX_RS     0x08000000u
#define TX_DEXT   0x20000000u
#define TX_TYPE   0x00f00000u
#define TYPE_DATA 0x00100000u
#define TX_DD     0x01

#define CONTEXT_TCP 0x01 /* bits of its command byte */
#define CONTEXT_IP4 0x02

#define OPTION_IXSM 1
#define OPTION_TXSM 2

/* A ring of packets, each cut into tiny segments, would keep the machine for minutes: the rest waits for another round.
 */
#define BURST       2048
#define SEGMENT_MIN 32

#define TCP_FIN_PSH 0x09
#define UDP_LENGTH  4

/* ---- checksums ---- */

static void put_be16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static uint16_t get_be16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

/* Puts the checksum of [start, end) at `at`; end 0 means all. What stands at `at` (a pseudo-header's sum) counts. */
static void insert_sum(uint8_t *data, uint32_t len, uint32_t start, uint32_t at, uint32_t end)
{
    uint32_t sum = 0;
    end = end && end < len ? end + 1 : len;
    if (start >= end || at + 2 > len)
        return;
    for (uint32_t i = start; i < end; i++)
        sum += (i - start) & 1 ? data[i] : (uint32_t)data[i] << 8;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    put_be16(data + at, (uint16_t)~sum);
}

static void finish_sums(uint8_t *data, uint32_t len, const struct e1000_context *c, uint8_t options)
{
    if (options & OPTION_TXSM)
        insert_sum(data, len, c->tcp_start, c->tcp_offset, c->tcp_end);
    if (options & OPTION_IXSM)
        insert_sum(data, len, c->ip_start, c->ip_offset, c->ip_end);
}

/* ---- frames ---- */

static void frame_out(struct e1000 *n, uint8_t *data, uint32_t len)
{
    if (len > NIC_FRAME_MAX || len < 14) {
        device_log(n->cfg.log, LOG_GUEST_ERROR, "e1000: a frame of %u bytes is dropped", len);
        return;
    }
    n->burst++;
    e1000_count(n, E_TPT, 1);
    e1000_count(n, E_GPTC, 1);
    e1000_count64(n, E_GOTCL, len + 4);
    if (n->cfg.wire.send)
        n->cfg.wire.send(n->cfg.wire.ctx, data, len);
}

/* The headers of segment number `k`, whose payload is `part` bytes at `done`. */
static void fix_headers(uint8_t *frame, const struct e1000_context *c, uint32_t len, unsigned k, uint32_t done,
                        bool last)
{
    uint8_t *ip = frame + c->ip_start, *tcp = frame + c->tcp_start;
    if (c->command & CONTEXT_IP4) {
        put_be16(ip + 2, (uint16_t)(len - c->ip_start));
        put_be16(ip + 4, (uint16_t)(get_be16(ip + 4) + k));
    } else {
        put_be16(ip + 4, (uint16_t)(len - c->ip_start - 40)); /* IPv6: the payload's length */
    }
    if (c->command & CONTEXT_TCP) {
        uint32_t seq = ((uint32_t)get_be16(tcp + 4) << 16 | get_be16(tcp + 6)) + done;
        put_be16(tcp + 4, (uint16_t)(seq >> 16));
        put_be16(tcp + 6, (uint16_t)seq);
        if (!last)
            tcp[13] &= (uint8_t)~TCP_FIN_PSH;
    } else {
        put_be16(tcp + UDP_LENGTH, (uint16_t)(len - c->tcp_start));
    }
    /* The pseudo-header's sum that the driver left lacks the length. */
    uint32_t sum = get_be16(frame + c->tcp_offset) + (len - c->tcp_start);
    put_be16(frame + c->tcp_offset, (uint16_t)((sum & 0xffff) + (sum >> 16)));
}

static bool context_fits(const struct e1000_context *c)
{
    unsigned ip = c->ip_start + (c->command & CONTEXT_IP4 ? 20u : 40u);
    return c->header >= c->tcp_start + (c->command & CONTEXT_TCP ? 20u : 8u) && ip <= c->header &&
           c->segment >= SEGMENT_MIN && c->ip_offset + 2u <= c->header && c->tcp_offset + 2u <= c->header &&
           c->header + c->segment <= NIC_FRAME_MAX;
}

static void segments_out(struct e1000 *n)
{
    const struct e1000_context *c = &n->context;
    uint8_t frame[NIC_FRAME_MAX];
    if (!context_fits(c) || n->len <= c->header) {
        device_log(n->cfg.log, LOG_GUEST_ERROR, "e1000: a packet of %u bytes cannot be cut into segments of %u", n->len,
                   c->segment);
        return;
    }
    uint32_t payload = n->len - c->header;
    unsigned k = 0;
    for (uint32_t done = 0; done < payload; done += c->segment, k++) {
        uint32_t part = payload - done < c->segment ? payload - done : c->segment;
        memcpy(frame, n->data, c->header);
        memcpy(frame + c->header, n->data + c->header + done, part);
        fix_headers(frame, c, c->header + part, k, done, done + part == payload);
        finish_sums(frame, c->header + part, c, n->options);
        frame_out(n, frame, c->header + part);
    }
}

static void packet_out(struct e1000 *n)
{
    if (n->segments) {
        segments_out(n);
    } else {
        finish_sums(n->data, n->len, &n->offload, n->options);
        frame_out(n, n->data, n->len);
    }
    n->len = 0;
    n->packet_open = n->segments = false;
    n->options = 0;
}

/* ---- descriptors ---- */

static void load_context(struct e1000 *n, const uint8_t *d)
{
    struct e1000_context c = {.ip_start = d[0],
                              .ip_offset = d[1],
                              .ip_end = (uint16_t)e1000_le(d + 2, 2),
                              .tcp_start = d[4],
                              .tcp_offset = d[5],
                              .tcp_end = (uint16_t)e1000_le(d + 6, 2),
                              .payload = (uint32_t)e1000_le(d + 8, 4) & TX_LENGTH,
                              .command = d[11],
                              .header = d[13],
                              .segment = (uint16_t)e1000_le(d + 14, 2)};
    *(e1000_le(d + 8, 4) & TX_TSE ? &n->context : &n->offload) = c;
}

static void append(struct e1000 *n, gpa_t gpa, uint32_t len)
{
    if (len > E1000_FRAME_MAX - n->len) {
        device_log(n->cfg.log, LOG_GUEST_ERROR, "e1000: a packet of more than %u bytes", E1000_FRAME_MAX);
        len = E1000_FRAME_MAX - n->len;
    }
    if (len && e1000_dma(n, gpa, n->data + n->len, len, false))
        n->len += len;
}

static void legacy_checksum(struct e1000 *n, const uint8_t *d, uint32_t upper)
{
    if (!(upper & TX_IC))
        return;
    n->offload = (struct e1000_context){.tcp_start = d[13], .tcp_offset = d[10]};
    n->options = OPTION_TXSM;
}

/* One descriptor with data. The first one of a packet says what becomes of it. */
static void take_data(struct e1000 *n, const uint8_t *d, uint32_t upper)
{
    bool extended = upper & TX_DEXT;
    if (!n->packet_open && extended) {
        n->segments = upper & TX_TSE;
        n->options = d[13];
    }
    n->packet_open = true;
    append(n, e1000_le(d, 8), upper & (extended ? TX_LENGTH : 0xffff));
    if (!(upper & TX_EOP))
        return;
    if (!extended)
        legacy_checksum(n, d, upper);
    packet_out(n);
}

/* False: the ring cannot be read. */
static bool take_descriptor(struct e1000 *n, uint32_t head, uint32_t *cause)
{
    gpa_t at = (*e1000_reg(n, E_TDBAL) | (uint64_t)*e1000_reg(n, E_TDBAH) << 32) + (uint64_t)head * DESC_BYTES;
    uint8_t d[DESC_BYTES];
    if (!e1000_dma(n, at, d, sizeof d, false))
        return false;
    uint32_t upper = (uint32_t)e1000_le(d + 8, 4);
    if (upper & TX_DEXT && (upper & TX_TYPE) != TYPE_DATA)
        load_context(n, d);
    else
        take_data(n, d, upper);
    if (!(upper & TX_RS))
        return true;
    d[12] |= TX_DD;
    *cause |= INT_TXDW;
    return e1000_dma(n, at + 12, d + 12, 1, true);
}

void e1000_transmit(struct e1000 *n)
{
    uint32_t count = *e1000_reg(n, E_TDLEN) / DESC_BYTES, cause = INT_TXQE;
    uint32_t head = *e1000_reg(n, E_TDH), tail = *e1000_reg(n, E_TDT);
    if (!(*e1000_reg(n, E_TCTL) & TCTL_EN) || head == tail)
        return;
    if (head >= count || tail >= count) {
        device_log(n->cfg.log, LOG_GUEST_ERROR, "e1000: transmit ring of %u: head %u, tail %u", count, head, tail);
        return;
    }
    for (n->burst = 0; head != tail && n->burst < BURST && take_descriptor(n, head, &cause); n->burst++)
        head = head + 1 < count ? head + 1 : 0;
    *e1000_reg(n, E_TDH) = head;
    if (n->burst >= BURST)
        e1000_kick(n);
    e1000_cause(n, cause);
}
