#include "devices/fpu_error.h"

#include "core/snapshot.h"

static uint8_t fpu_error_read8(void *dev, uint64_t offset)
{
    (void)dev;
    (void)offset;
    return 0xff;
}

static void fpu_error_write8(void *dev, uint64_t offset, uint8_t value)
{
    struct fpu_error *f = dev;
    (void)offset;
    (void)value;
    f->latched = false;
    irq_set(&f->cfg.irq, false);
    device_signal_raise(&f->cfg.ignored);
}

DEVICE_BYTE_BUS_OPS(fpu_error_bus_ops, fpu_error_read8, fpu_error_write8);

static void ferr_set(void *ctx, unsigned n, bool level)
{
    struct fpu_error *f = ctx;
    (void)n;
    if (!level || f->latched)
        return;
    f->latched = true;
    irq_set(&f->cfg.irq, true);
}

struct irq_line fpu_error_ferr(struct fpu_error *f)
{
    return (struct irq_line){.set = ferr_set, .ctx = f};
}

void fpu_error_init(struct fpu_error *f, const struct fpu_error_config *cfg)
{
    *f = (struct fpu_error){.cfg = *cfg};
}

void fpu_error_reset(struct fpu_error *f)
{
    f->latched = false;
}

void fpu_error_save(const struct fpu_error *f, struct snap_writer *w)
{
    snap_begin(w, "fpu_error", 1);
    snap_put_u8(w, f->latched);
    snap_end(w);
}

void fpu_error_load(struct fpu_error *f, struct snap_reader *r)
{
    if (snap_expect(r, "fpu_error", 1))
        f->latched = snap_get_u8(r) != 0;
}
