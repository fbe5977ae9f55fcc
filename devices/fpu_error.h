/*
 * What a PC puts between the processor's FERR# and IGNNE# pins: the latch of IRQ 13 and port 0xf0.
 *
 * A processor whose CR0.NE is clear reports an x87 exception by FERR#. The board latches it as IRQ 13; any write to
 * port 0xf0 takes the request back and asserts IGNNE#, so that the handler can use x87 instructions. The processor
 * itself drops IGNNE#'s effect when no exception is left. Source: SDM volume 1, appendix D.
 */
#ifndef DEVICES_FPU_ERROR_H
#define DEVICES_FPU_ERROR_H

#include "core/irq.h"
#include "devices/device.h"

struct snap_writer;
struct snap_reader;

struct fpu_error_config {
    struct irq_line irq;          /* ISA IRQ 13 */
    struct device_signal ignored; /* port 0xf0 was written: IGNNE# */
};

struct fpu_error {
    struct fpu_error_config cfg;
    bool latched;
};

extern const struct bus_ops fpu_error_bus_ops; /* 1 port */

void fpu_error_init(struct fpu_error *f, const struct fpu_error_config *cfg);
void fpu_error_reset(struct fpu_error *f);
/* The processor's FERR#: a rising edge latches the request. */
struct irq_line fpu_error_ferr(struct fpu_error *f);
void fpu_error_save(const struct fpu_error *f, struct snap_writer *w);
void fpu_error_load(struct fpu_error *f, struct snap_reader *r);

#endif
