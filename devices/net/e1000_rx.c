/*
 * Receiving: filters, and frames into the guest's buffers by legacy descriptors.
 */
#include "devices/net/e1000_internal.h"

#include <string.h>
#include <zlib.h>

#define RX_DD   0x01
#define RX_EOP  0x02
#define RX_IXSM 0x04 /* checksums are the driver's */
#define CRC     4

/* ---- filters ---- */

static bool matches_exactly(struct e1000 *n, const uint8_t *frame)
{
    uint32_t low = (uint32_t)e1000_le(frame, 4), high = (uint32_t)e1000_le(frame + 4, 2);
    for (unsigned i = 0; i < 16; i++) {
        const uint32_t *ra = e1000_reg(n, E_RA + 8 * i);
        if (ra[1] & RA_VALID && ra[0] == low && (ra[1] & 0xffff) == high)
            return true;
    }
    return false;
}

static bool matches_hash(struct e1000 *n, const uint8_t *frame)
{
    static const uint8_t shift[4] = {4, 3, 2, 0};
    uint32_t offset = shift[*e1000_reg(n, E_RCTL) >> RCTL_MO & 3];
    uint32_t hash = ((uint32_t)frame[5] << 8 | frame[4]) >> offset & 0xfff;
    return *e1000_reg(n, E_MTA + 4 * (hash >> 5)) >> (hash & 31) & 1;
}

static bool is_wanted(struct e1000 *n, const uint8_t *frame)
{
    uint32_t rctl = *e1000_reg(n, E_RCTL);
    if (nic_is_broadcast(frame))
        return rctl & (RCTL_BAM | RCTL_UPE);
    if (matches_exactly(n, frame))
        return true;
    if (nic_is_multicast(frame))
        return rctl & RCTL_MPE || matches_hash(n, frame);
    return rctl & RCTL_UPE;
}

/* ---- the ring ---- */

static uint32_t buffer_bytes(struct e1000 *n)
{
    uint32_t rctl = *e1000_reg(n, E_RCTL), code = rctl >> RCTL_BSIZE & 3;
    if (rctl & RCTL_BSEX && code)
        return 32768u >> code;
    return 2048u >> code;
}

static uint32_t ring_count(struct e1000 *n)
{
    return *e1000_reg(n, E_RDLEN) / DESC_BYTES;
}

/* Descriptors that are the card's. */
static uint32_t ring_room(struct e1000 *n)
{
    uint32_t count = ring_count(n), head = *e1000_reg(n, E_RDH), tail = *e1000_reg(n, E_RDT);
    if (!count || head >= count || tail >= count)
        return 0;
    return tail >= head ? tail - head : count - head + tail;
}

/* One descriptor takes its part of the frame. */
static bool fill(struct e1000 *n, const uint8_t *bytes, uint32_t len, bool last)
{
    uint32_t head = *e1000_reg(n, E_RDH);
    gpa_t at = (*e1000_reg(n, E_RDBAL) | (uint64_t)*e1000_reg(n, E_RDBAH) << 32) + (uint64_t)head * DESC_BYTES;
    uint8_t d[DESC_BYTES];
    if (!e1000_dma(n, at, d, sizeof d, false))
        return false;
    gpa_t buffer = e1000_le(d, 8);
    if (buffer && !e1000_dma(n, buffer, (void *)(uintptr_t)bytes, len, true))
        return false;
    d[8] = (uint8_t)len;
    d[9] = (uint8_t)(len >> 8);
    d[10] = d[11] = d[13] = d[14] = d[15] = 0;
    d[12] = RX_DD | RX_IXSM | (last ? RX_EOP : 0);
    if (!e1000_dma(n, at, d, sizeof d, true))
        return false;
    *e1000_reg(n, E_RDH) = head + 1 < ring_count(n) ? head + 1 : 0;
    return true;
}

static void count_frame(struct e1000 *n, const uint8_t *frame, uint32_t len)
{
    e1000_count(n, E_TPR, 1);
    e1000_count(n, E_GPRC, 1);
    e1000_count64(n, E_GORCL, len);
    if (nic_is_broadcast(frame))
        e1000_count(n, E_BPRC, 1);
    else if (nic_is_multicast(frame))
        e1000_count(n, E_MPRC, 1);
}

/* False: the descriptors do not suffice. */
static bool deliver(struct e1000 *n, const struct nic_frame *f)
{
    uint8_t bytes[NIC_FRAME_MAX + CRC] = {0};
    uint32_t len = f->len < NIC_FRAME_MIN ? NIC_FRAME_MIN : f->len, part = buffer_bytes(n);
    memcpy(bytes, f->bytes, f->len);
    if (!(*e1000_reg(n, E_RCTL) & RCTL_SECRC)) {
        uint32_t crc = (uint32_t)crc32(0, bytes, len);
        for (unsigned i = 0; i < CRC; i++)
            bytes[len + i] = (uint8_t)(crc >> (8 * i));
        len += CRC;
    }
    if ((len + part - 1) / part > ring_room(n))
        return false;
    for (uint32_t done = 0; done < len; done += part)
        if (!fill(n, bytes + done, len - done < part ? len - done : part, len - done <= part))
            break;
    count_frame(n, f->bytes, len);
    return true;
}

void e1000_deliver(struct e1000 *n)
{
    const struct nic_frame *f;
    bool any = false;
    while ((f = nic_fifo_peek(&n->fifo))) {
        if (!(*e1000_reg(n, E_RCTL) & RCTL_EN))
            break;
        if (is_wanted(n, f->bytes)) {
            if (!deliver(n, f))
                break;
            any = true;
        }
        nic_fifo_drop(&n->fifo);
    }
    if (any)
        e1000_cause(n, INT_RXT0);
}

void e1000_receive(struct e1000 *n, const uint8_t *frame, size_t len)
{
    if (!(*e1000_reg(n, E_RCTL) & RCTL_EN))
        return;
    if (nic_fifo_push(&n->fifo, frame, len)) {
        e1000_kick(n);
        return;
    }
    e1000_count(n, E_MPC, 1);
    e1000_cause(n, INT_RXO);
}
