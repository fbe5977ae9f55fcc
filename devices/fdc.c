#include "devices/fdc.h"

#include "core/snapshot.h"
#include "devices/dma8237.h"

#include <string.h>

#define DOR_SELECT   0x03
#define DOR_NO_RESET 0x04
#define DOR_IRQ      0x08

#define MSR_READY     0x80
#define MSR_TO_HOST   0x40
#define MSR_EXECUTION 0x20
#define MSR_BUSY      0x10

#define ST0_ABNORMAL 0x40
#define ST0_INVALID  0x80
#define ST0_POLLING  0xc0
#define ST0_SEEK_END 0x20
#define ST0_CHECK    0x10

#define ST1_NO_ADDRESS 0x01
#define ST1_PROTECTED  0x02
#define ST1_NO_DATA    0x04
#define ST1_DATA_ERROR 0x20
#define ST1_END        0x80

#define ST3_TWO_SIDES 0x08
#define ST3_TRACK_0   0x10
#define ST3_READY     0x20
#define ST3_PROTECTED 0x40

#define MULTI_TRACK  0x80
#define IMPLIED_SEEK 0x40 /* in CONFIGURE's second byte */
#define SIZE_512     2

#define CHANGED   0x80
#define NOT_READY 0x7f

/* ---- media ---- */

static const struct fdc_geometry geometries[] = {
    {320, 40, 1, 8, 2, 1},   {360, 40, 1, 9, 2, 1},   {640, 40, 2, 8, 2, 1},   {720, 40, 2, 9, 2, 1},
    {1440, 80, 2, 9, 2, 3},  {2400, 80, 2, 15, 0, 2}, {2880, 80, 2, 18, 0, 4}, {3360, 80, 2, 21, 0, 4},
    {3444, 82, 2, 21, 0, 4}, {5760, 80, 2, 36, 3, 5},
};

/* The smallest that holds the image: one that is cut short has zeros behind its end. */
static const struct fdc_geometry *geometry_of(const struct block_device *b)
{
    for (size_t k = 0; b && k < ARRAY_LEN(geometries); k++)
        if (b->size / BLOCK_SECTOR <= geometries[k].sectors)
            return &geometries[k];
    return b ? &geometries[ARRAY_LEN(geometries) - 1] : NULL;
}

uint8_t fdc_drive_type(const struct fdc *f, unsigned n)
{
    const struct fdc_drive *d = &f->drive[n];
    return !d->present ? 0 : d->geometry ? d->geometry->drive_type : 4;
}

static struct fdc_drive *drive_of(struct fdc *f, uint8_t n)
{
    return (n & 3) < FDC_DRIVES ? &f->drive[n & 3] : NULL;
}

static bool is_usable(const struct fdc *f, const struct fdc_drive *d)
{
    return d && d->present && d->geometry && d->geometry->rate == f->rate;
}

/* ---- interrupt, phases ---- */

static void drive_irq(struct fdc *f)
{
    irq_set(&f->cfg.irq, f->irq_level && f->dor & DOR_IRQ);
}

static void irq_put(struct fdc *f, bool level)
{
    f->irq_level = level;
    drive_irq(f);
}

static void go_idle(struct fdc *f)
{
    f->phase = FDC_PHASE_COMMAND;
    f->have = f->want = f->results = f->taken = 0;
}

static void give_results(struct fdc *f, uint8_t n)
{
    f->phase = FDC_PHASE_RESULT;
    f->results = n;
    f->taken = 0;
}

static void invalid(struct fdc *f)
{
    device_log(f->cfg.log, LOG_UNIMP, "fdc: command 0x%02x", f->byte[0]);
    f->result[0] = ST0_INVALID;
    give_results(f, 1);
}

/* ---- transfers ---- */

static void finish_transfer(struct fdc *f, uint8_t st0, uint8_t st1, uint8_t st2)
{
    uint8_t r[] = {(uint8_t)(st0 | (f->byte[1] & 3) | f->h << 2), st1, st2, f->c, f->h, f->r, SIZE_512};
    memcpy(f->result, r, sizeof r);
    f->holds_sector = false;
    give_results(f, sizeof r);
    irq_put(f, true);
}

static void fail_transfer(struct fdc *f, uint8_t st1, uint8_t st2)
{
    finish_transfer(f, ST0_ABNORMAL, st1, st2);
}

/* The sector behind the present one. False: it was the last of what the command covers. */
static bool advance(struct fdc *f)
{
    bool both = f->byte[0] & MULTI_TRACK;
    if (f->r != f->byte[6]) {
        f->r++;
        return true;
    }
    f->r = 1;
    if (both && f->h == 0 && f->drive[f->byte[1] & 1].geometry->heads == 2) {
        f->h = 1;
        return true;
    }
    f->h = both ? 0 : f->h;
    f->c++;
    return false;
}

static uint64_t sector_offset(const struct fdc *f, const struct fdc_geometry *g)
{
    return (((uint64_t)f->c * g->heads + f->h) * g->track + f->r - 1) * BLOCK_SECTOR;
}

static enum block_result read_sector(struct fdc *f, struct fdc_drive *d)
{
    uint64_t at = sector_offset(f, d->geometry);
    if (at < d->block->size)
        return block_read(d->block, at, f->buf, BLOCK_SECTOR);
    memset(f->buf, 0, BLOCK_SECTOR);
    return BLOCK_OK;
}

static uint32_t move_sector(struct fdc *f, bool to_memory)
{
    bool end;
    uint32_t n = dma8237_move(f->cfg.dma, FDC_DMA_CHANNEL, f->buf, BLOCK_SECTOR, to_memory, &end);
    f->at_end = end || n < BLOCK_SECTOR;
    f->bytes += n;
    return n;
}

/* Moves a sector to the host. */
static bool step_read(struct fdc *f, struct fdc_drive *d)
{
    if (read_sector(f, d)) {
        fail_transfer(f, ST1_DATA_ERROR, ST1_DATA_ERROR);
        return false;
    }
    move_sector(f, true);
    return true;
}

/* From the host; what does not come is zeros. */
static bool step_write(struct fdc *f, struct fdc_drive *d, bool format)
{
    if (format) {
        memset(f->buf, f->byte[5], BLOCK_SECTOR);
    } else if (!f->holds_sector) {
        uint32_t n = move_sector(f, false);
        memset(f->buf + n, 0, BLOCK_SECTOR - n);
        f->holds_sector = true;
    }
    uint64_t at = sector_offset(f, d->geometry);
    enum block_result r = at < d->block->size ? block_write(d->block, at, f->buf, BLOCK_SECTOR) : BLOCK_ERROR;
    if (r == BLOCK_FULL) {
        timer_arm(f->cfg.clock, &f->timer, clock_now(f->cfg.clock));
        return false;
    }
    f->holds_sector = false;
    if (r)
        fail_transfer(f, ST1_DATA_ERROR, ST1_DATA_ERROR);
    return r == BLOCK_OK;
}

static bool is_write(uint8_t command)
{
    return command == 0x05 || command == 0x09;
}

static bool is_on_medium(const struct fdc *f, const struct fdc_geometry *g)
{
    return f->c < g->cylinders && f->h < g->heads && f->r && f->r <= g->track;
}

/* What the address field must match. */
static bool check_address(struct fdc *f, struct fdc_drive *d)
{
    if (f->byte[5] != SIZE_512 || f->c != d->cylinder || !is_on_medium(f, d->geometry)) {
        fail_transfer(f, ST1_NO_DATA, f->c != d->cylinder ? 0x10 : 0);
        return false;
    }
    return true;
}

static void job_transfer(struct fdc *f, struct fdc_drive *d)
{
    uint8_t command = f->byte[0] & 0x1f;
    if (f->configure[1] & IMPLIED_SEEK && !f->holds_sector)
        d->cylinder = f->c;
    for (;;) {
        if (!check_address(f, d))
            return;
        if (!(is_write(command) ? step_write(f, d, false) : step_read(f, d)))
            return;
        bool more = advance(f);
        if (f->at_end)
            break;
        if (!more) {
            fail_transfer(f, ST1_END, 0);
            return;
        }
    }
    finish_transfer(f, 0, 0, 0);
}

/* The host gives four bytes (C, H, R, N) for each sector of the track. */
static void job_format(struct fdc *f, struct fdc_drive *d)
{
    uint8_t id[4];
    bool end;
    for (; f->have; f->have--) {
        if (!f->holds_sector) {
            if (dma8237_move(f->cfg.dma, FDC_DMA_CHANNEL, id, sizeof id, false, &end) < sizeof id)
                break;
            f->c = id[0];
            f->h = id[1];
            f->r = id[2];
            if (id[3] != SIZE_512 || !is_on_medium(f, d->geometry)) {
                fail_transfer(f, ST1_NO_DATA, 0);
                return;
            }
            f->holds_sector = true;
        }
        if (!step_write(f, d, true))
            return;
    }
    finish_transfer(f, 0, 0, 0);
}

static void start_transfer(struct fdc *f)
{
    f->c = f->byte[2];
    f->h = f->byte[3];
    f->r = f->byte[4];
    f->at_end = f->holds_sector = false;
    f->phase = FDC_PHASE_EXECUTION;
    timer_arm(f->cfg.clock, &f->timer, clock_now(f->cfg.clock) + BLOCK_LATENCY);
}

static void job_read_id(struct fdc *f, struct fdc_drive *d)
{
    f->c = d->cylinder;
    f->h = f->byte[1] >> 2 & 1;
    f->r = 1;
    if (f->h >= d->geometry->heads)
        fail_transfer(f, ST1_NO_ADDRESS, 0);
    else
        finish_transfer(f, 0, 0, 0);
}

static void job(struct fdc *f)
{
    struct fdc_drive *d = drive_of(f, f->byte[1]);
    uint8_t command = f->byte[0] & 0x1f;
    if (!is_usable(f, d)) {
        fail_transfer(f, ST1_NO_ADDRESS, 0);
        return;
    }
    if ((is_write(command) || command == 0x0d) && d->block->read_only) {
        fail_transfer(f, ST1_PROTECTED, 0);
        return;
    }
    if (f->specify[1] & 1 && command != 0x0a) {
        device_log(f->cfg.log, LOG_UNIMP, "fdc: transfer without DMA (command 0x%02x)", f->byte[0]);
        fail_transfer(f, ST1_NO_DATA, 0);
        return;
    }
    if (command == 0x0a)
        job_read_id(f, d);
    else if (command == 0x0d)
        job_format(f, d);
    else
        job_transfer(f, d);
}

/* ---- seeks, resets ---- */

static void seek_ended(struct fdc *f)
{
    f->seek_done = true;
    f->seeking = 0;
    irq_put(f, true);
}

static void start_seek(struct fdc *f, uint8_t n, uint8_t cylinder)
{
    struct fdc_drive *d = drive_of(f, n);
    f->seek_st0 = (uint8_t)(ST0_SEEK_END | (n & 7));
    if (!d || !d->present)
        f->seek_st0 |= ST0_ABNORMAL | ST0_CHECK;
    else
        d->cylinder = cylinder < 83 ? cylinder : 83;
    if (d && d->block)
        d->changed = false;
    f->seeking = (uint8_t)(1u << (n & 3));
    go_idle(f);
    timer_arm(f->cfg.clock, &f->timer, clock_now(f->cfg.clock) + BLOCK_LATENCY);
}

static void stop(struct fdc *f)
{
    timer_cancel(f->cfg.clock, &f->timer);
    go_idle(f);
    f->seeking = f->after_reset = 0;
    f->seek_done = f->reset_pending = f->holds_sector = 0;
    irq_put(f, false);
    if (!f->locked)
        f->configure[0] = f->configure[1] = f->configure[2] = 0;
}

static void begin_reset(struct fdc *f)
{
    stop(f);
    f->reset_pending = true;
    timer_arm(f->cfg.clock, &f->timer, clock_now(f->cfg.clock) + BLOCK_LATENCY);
}

static void fire(void *opaque)
{
    struct fdc *f = opaque;
    if (f->reset_pending) {
        f->reset_pending = false;
        f->after_reset = 4;
        irq_put(f, true);
    } else if (f->phase == FDC_PHASE_EXECUTION) {
        job(f);
    } else if (f->seeking) {
        seek_ended(f);
    }
}

/* ---- commands ---- */

static void sense_interrupt(struct fdc *f)
{
    uint8_t owed = f->after_reset;
    irq_put(f, false);
    if (owed) {
        f->result[0] = (uint8_t)(ST0_POLLING | (4 - owed));
        f->after_reset--;
    } else if (f->seek_done) {
        f->result[0] = f->seek_st0;
        f->seek_done = false;
    } else {
        f->result[0] = ST0_INVALID;
        give_results(f, 1);
        return;
    }
    const struct fdc_drive *d = drive_of(f, f->result[0]);
    f->result[1] = d ? d->cylinder : 0;
    give_results(f, 2);
}

static void sense_drive(struct fdc *f)
{
    const struct fdc_drive *d = drive_of(f, f->byte[1]);
    uint8_t v = (f->byte[1] & 7) | ST3_READY | ST3_TWO_SIDES;
    if (d && d->present && !d->cylinder)
        v |= ST3_TRACK_0;
    if (d && d->block && d->block->read_only)
        v |= ST3_PROTECTED;
    f->result[0] = v;
    give_results(f, 1);
}

static void dump_registers(struct fdc *f)
{
    uint8_t r[FDC_RESULTS] = {
        f->drive[0].cylinder, f->drive[1].cylinder, 0,          0,
        f->specify[0],        f->specify[1],        f->byte[6], (uint8_t)(f->locked << 7 | f->perpendicular),
        f->configure[1],      f->configure[2]};
    memcpy(f->result, r, sizeof r);
    give_results(f, sizeof r);
}

static void give_one(struct fdc *f, uint8_t v)
{
    f->result[0] = v;
    give_results(f, 1);
}

static void keep(struct fdc *f, uint8_t *to, unsigned n)
{
    memcpy(to, f->byte + 1, n);
    go_idle(f);
}

static void execute(struct fdc *f)
{
    f->commands++;
    switch (f->byte[0] & 0x1f) {
    case 0x03:
        keep(f, f->specify, 2);
        break;
    case 0x04:
        sense_drive(f);
        break;
    case 0x05: /* WRITE, READ, of deleted data too */
    case 0x06:
    case 0x09:
    case 0x0c:
        start_transfer(f);
        break;
    case 0x07:
        start_seek(f, f->byte[1] & 3, 0);
        break;
    case 0x08:
        sense_interrupt(f);
        break;
    case 0x0a:
        start_transfer(f);
        break;
    case 0x0d:
        f->have = f->byte[3]; /* sectors of the track */
        start_transfer(f);
        break;
    case 0x0e:
        dump_registers(f);
        break;
    case 0x0f:
        start_seek(f, f->byte[1] & 7, f->byte[2]);
        break;
    case 0x10:
        give_one(f, 0x90); /* an enhanced controller */
        break;
    case 0x12:
        keep(f, &f->perpendicular, 1);
        break;
    case 0x13:
        keep(f, f->configure, 3);
        break;
    case 0x14:
        f->locked = f->byte[0] >> 7;
        give_one(f, (uint8_t)(f->locked << 4));
        break;
    case 0x18:
        give_one(f, 0x41); /* PART ID */
        break;
    default:
        invalid(f);
    }
}

/* Bytes of a command, its first included. */
static uint8_t command_length(uint8_t first)
{
    static const uint8_t length[32] = {
        [0x03] = 3, [0x04] = 2, [0x05] = 9, [0x06] = 9, [0x07] = 2, [0x08] = 1, [0x09] = 9, [0x0a] = 2, [0x0c] = 9,
        [0x0d] = 6, [0x0e] = 1, [0x0f] = 3, [0x10] = 1, [0x12] = 2, [0x13] = 4, [0x14] = 1, [0x18] = 1};
    return length[first & 0x1f] ? length[first & 0x1f] : 1;
}

/* ---- registers ---- */

static void write_fifo(struct fdc *f, uint8_t v)
{
    if (!(f->dor & DOR_NO_RESET) || f->phase != FDC_PHASE_COMMAND || f->reset_pending)
        return;
    if (!f->have) {
        memset(f->byte, 0, sizeof f->byte);
        f->want = command_length(v);
    }
    f->byte[f->have++] = v;
    if (f->have == f->want)
        execute(f);
}

static uint8_t read_fifo(struct fdc *f)
{
    if (f->phase != FDC_PHASE_RESULT)
        return 0;
    uint8_t v = f->result[f->taken++];
    if (f->taken == 1 && f->results == 7)
        irq_put(f, false);
    if (f->taken == f->results)
        go_idle(f);
    return v;
}

static uint8_t main_status(const struct fdc *f)
{
    if (!(f->dor & DOR_NO_RESET) || f->reset_pending)
        return 0;
    switch (f->phase) {
    case FDC_PHASE_RESULT:
        return MSR_READY | MSR_TO_HOST | MSR_BUSY;
    case FDC_PHASE_EXECUTION:
        return MSR_BUSY;
    default:
        return (uint8_t)(MSR_READY | (f->have ? MSR_BUSY : 0) | f->seeking);
    }
}

static void write_dor(struct fdc *f, uint8_t v)
{
    uint8_t old = f->dor;
    f->dor = v;
    if (!(v & DOR_NO_RESET))
        stop(f);
    else if (!(old & DOR_NO_RESET))
        begin_reset(f);
    drive_irq(f);
}

static uint8_t fdc_read8(void *dev, uint64_t offset)
{
    struct fdc *f = dev;
    switch (offset) {
    case 0:
        return f->irq_level ? 0x80 : 0;
    case 2:
        return f->dor;
    case 4:
        return main_status(f);
    case 5:
        return read_fifo(f);
    default:
        return 0;
    }
}

static void fdc_write8(void *dev, uint64_t offset, uint8_t v)
{
    struct fdc *f = dev;
    if (offset == 2) {
        write_dor(f, v);
    } else if (offset == 4) {
        f->rate = v & 3;
        if (v & 0x80 && f->dor & DOR_NO_RESET)
            begin_reset(f);
    } else if (offset == 5) {
        write_fifo(f, v);
    }
}

DEVICE_BYTE_BUS_OPS(fdc_bus_ops, fdc_read8, fdc_write8);

static uint8_t dir_read8(void *dev, uint64_t offset)
{
    struct fdc *f = dev;
    unsigned n = f->dor & DOR_SELECT;
    const struct fdc_drive *d = drive_of(f, (uint8_t)n);
    return d && d->present && f->dor >> (4 + n) & 1 && (d->changed || !d->block) ? CHANGED : 0;
}

static void dir_write8(void *dev, uint64_t offset, uint8_t v)
{
    ((struct fdc *)dev)->rate = v & 3;
}

DEVICE_BYTE_BUS_OPS(fdc_dir_bus_ops, dir_read8, dir_write8);

/* ---- life ---- */

void fdc_set_medium(struct fdc *f, unsigned n, struct block_device *block)
{
    struct fdc_drive *d = &f->drive[n];
    d->block = block;
    d->geometry = geometry_of(block);
    d->changed = true;
}

void fdc_reset(struct fdc *f)
{
    f->dor = 0;
    f->rate = 2;
    f->locked = false;
    f->perpendicular = 0;
    memset(f->specify, 0, sizeof f->specify);
    memset(f->byte, 0, sizeof f->byte);
    f->c = f->h = f->r = f->seek_st0 = 0;
    f->at_end = false;
    stop(f);
    for (unsigned n = 0; n < FDC_DRIVES; n++) {
        f->drive[n].cylinder = 0;
        f->drive[n].changed = true;
    }
}

void fdc_init(struct fdc *f, const struct fdc_config *cfg)
{
    memset(f, 0, sizeof *f);
    f->cfg = *cfg;
    timer_init_work(&f->timer, fire, f);
    for (unsigned n = 0; n < FDC_DRIVES; n++) {
        f->drive[n].present = cfg->drive[n].present;
        fdc_set_medium(f, n, cfg->drive[n].block);
    }
    fdc_reset(f);
}

/* The bytes that a snapshot has, in its order. */
#define FDC_BYTES 25

static void list_bytes(struct fdc *f, uint8_t *p[FDC_BYTES])
{
    uint8_t *all[FDC_BYTES] = {&f->dor,
                               &f->rate,
                               &f->specify[0],
                               &f->specify[1],
                               &f->configure[0],
                               &f->configure[1],
                               &f->configure[2],
                               &f->perpendicular,
                               &f->locked,
                               &f->irq_level,
                               &f->have,
                               &f->want,
                               &f->results,
                               &f->taken,
                               &f->seeking,
                               &f->after_reset,
                               &f->seek_st0,
                               &f->seek_done,
                               &f->reset_pending,
                               &f->holds_sector,
                               &f->c,
                               &f->h,
                               &f->r,
                               &f->at_end,
                               &f->drive[0].cylinder};
    memcpy(p, all, sizeof all);
}

void fdc_save(const struct fdc *f, struct snap_writer *w)
{
    uint8_t *p[FDC_BYTES];
    list_bytes((struct fdc *)(uintptr_t)f, p); /* only read */
    snap_begin(w, "fdc", 1);
    for (unsigned i = 0; i < FDC_BYTES; i++)
        snap_put_u8(w, *p[i]);
    snap_put_u8(w, f->drive[1].cylinder);
    snap_put_u8(w, f->drive[0].changed);
    snap_put_u8(w, f->drive[1].changed);
    snap_put_u8(w, (uint8_t)f->phase);
    snap_put_bytes(w, f->byte, sizeof f->byte);
    snap_put_bytes(w, f->result, sizeof f->result);
    timer_save(f->cfg.clock, &f->timer, w);
    snap_put_bytes(w, f->buf, sizeof f->buf);
    snap_end(w);
}

static void check_loaded(struct fdc *f, struct snap_reader *r, uint8_t phase)
{
    bool in_command = phase == FDC_PHASE_COMMAND;
    if (phase < FDC_PHASES && f->results <= FDC_RESULTS && f->taken <= f->results && f->want <= FDC_PARAMETERS &&
        (!in_command || !f->have || f->have < f->want) && f->after_reset <= 4 &&
        (phase != FDC_PHASE_RESULT || f->taken < f->results)) {
        f->phase = (enum fdc_phase)phase;
        return;
    }
    snap_fail(r, "fdc: a command is out of range");
    go_idle(f);
}

void fdc_load(struct fdc *f, struct snap_reader *r)
{
    uint8_t *p[FDC_BYTES];
    if (!snap_expect(r, "fdc", 1))
        return;
    list_bytes(f, p);
    for (unsigned i = 0; i < FDC_BYTES; i++)
        *p[i] = snap_get_u8(r);
    f->drive[1].cylinder = snap_get_u8(r);
    f->drive[0].changed = snap_get_u8(r) != 0;
    f->drive[1].changed = snap_get_u8(r) != 0;
    uint8_t phase = snap_get_u8(r);
    snap_get_bytes(r, f->byte, sizeof f->byte);
    snap_get_bytes(r, f->result, sizeof f->result);
    timer_load(f->cfg.clock, &f->timer, r);
    snap_get_bytes(r, f->buf, sizeof f->buf);
    check_loaded(f, r, phase);
}
