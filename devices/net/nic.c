#include "devices/net/nic.h"

#include "core/alloc.h"
#include "core/snapshot.h"

#include <stdlib.h>
#include <string.h>

#define HEADER 14 /* addresses and type: nothing shorter is a frame */

void nic_fifo_init(struct nic_fifo *f)
{
    *f = (struct nic_fifo){.slot = alloc_zeroed(NIC_FIFO_SLOTS, sizeof *f->slot)};
}

void nic_fifo_fini(struct nic_fifo *f)
{
    free(f->slot);
    f->slot = NULL;
}

void nic_fifo_clear(struct nic_fifo *f)
{
    f->first = f->count = 0;
}

bool nic_fifo_push(struct nic_fifo *f, const uint8_t *frame, size_t len)
{
    if (f->count == NIC_FIFO_SLOTS || len < HEADER || len > NIC_FRAME_MAX) {
        f->dropped++;
        return false;
    }
    struct nic_frame *slot = &f->slot[(f->first + f->count++) % NIC_FIFO_SLOTS];
    slot->len = (uint16_t)len;
    memcpy(slot->bytes, frame, len);
    return true;
}

const struct nic_frame *nic_fifo_peek(const struct nic_fifo *f)
{
    return f->count ? &f->slot[f->first] : NULL;
}

void nic_fifo_drop(struct nic_fifo *f)
{
    if (!f->count)
        return;
    f->first = (f->first + 1) % NIC_FIFO_SLOTS;
    f->count--;
}

void nic_fifo_save(const struct nic_fifo *f, struct snap_writer *w)
{
    snap_put_u32(w, f->count);
    for (unsigned i = 0; i < f->count; i++) {
        const struct nic_frame *slot = &f->slot[(f->first + i) % NIC_FIFO_SLOTS];
        snap_put_u16(w, slot->len);
        snap_put_bytes(w, slot->bytes, slot->len);
    }
}

void nic_fifo_load(struct nic_fifo *f, struct snap_reader *r)
{
    uint8_t frame[NIC_FRAME_MAX];
    uint32_t count = snap_get_u32(r);
    nic_fifo_clear(f);
    if (count > NIC_FIFO_SLOTS) {
        snap_fail(r, "%u frames that wait", count);
        return;
    }
    for (uint32_t i = 0; i < count && !snap_reader_error(r); i++) {
        uint16_t len = snap_get_u16(r);
        if (len < HEADER || len > NIC_FRAME_MAX) {
            snap_fail(r, "a frame of %u bytes", len);
            return;
        }
        snap_get_bytes(r, frame, len);
        nic_fifo_push(f, frame, len);
    }
}
