/*
 * The floppy controller (82077AA) with two drives; data goes through channel 2 of the DMA controller.
 *
 * Source: Intel 82077AA data sheet. A drive's geometry follows from the size of its medium. A command's work is done a
 * fixed virtual time after its last parameter byte; seeks take the same. Transfers without DMA (the ND bit of SPECIFY)
 * and sectors of other than 512 bytes do not exist here.
 */
#ifndef DEVICES_FDC_H
#define DEVICES_FDC_H

#include "core/block/block.h"
#include "core/irq.h"
#include "devices/device.h"

struct dma8237;
struct snap_writer;
struct snap_reader;

#define FDC_DRIVES      2
#define FDC_PARAMETERS  9
#define FDC_RESULTS     10
#define FDC_DMA_CHANNEL 2

struct fdc_drive_config {
    bool present;
    struct block_device *block; /* borrowed; NULL: no medium */
};

struct fdc_config {
    struct vclock *clock;
    struct irq_line irq; /* 6 */
    struct dma8237 *dma;
    struct fdc_drive_config drive[FDC_DRIVES];
    const struct log *log;
};

struct fdc_geometry {
    uint32_t sectors; /* in all */
    uint8_t cylinders, heads, track, rate;
    uint8_t drive_type; /* as CMOS has it: 1 360K, 2 1.2M, 3 720K, 4 1.44M, 5 2.88M */
};

struct fdc_drive {
    bool present;
    struct block_device *block;
    const struct fdc_geometry *geometry; /* NULL without a medium */
    uint8_t cylinder;                    /* where the head is */
    bool changed;                        /* since the last step with a medium in */
};

enum fdc_phase { FDC_PHASE_COMMAND, FDC_PHASE_EXECUTION, FDC_PHASE_RESULT, FDC_PHASES };

struct fdc {
    struct fdc_config cfg;
    struct fdc_drive drive[FDC_DRIVES];
    struct timer timer;
    enum fdc_phase phase;
    uint8_t dor, rate, specify[2], configure[3], perpendicular;
    uint8_t locked, irq_level;                    /* 0 or 1, as the next ones */
    uint8_t byte[FDC_PARAMETERS + 1], have, want; /* the command */
    uint8_t result[FDC_RESULTS], results, taken;
    uint8_t seeking;       /* drives whose seek has ended, or is under way: bits */
    uint8_t after_reset;   /* SENSE INTERRUPT answers that a reset still owes */
    uint8_t seek_st0;      /* of the last seek */
    uint8_t seek_done;     /* and no one has asked yet */
    uint8_t reset_pending; /* the timer ends a reset */
    uint8_t holds_sector;  /* buf came by DMA and waits to be written */
    uint8_t c, h, r;       /* of the transfer */
    uint8_t at_end;        /* the DMA controller's count ran out */
    uint64_t commands, bytes;
    uint8_t buf[BLOCK_SECTOR];
};

extern const struct bus_ops fdc_bus_ops;     /* 6 ports at 0x3f0 */
extern const struct bus_ops fdc_dir_bus_ops; /* 1 port at 0x3f7 */

void fdc_init(struct fdc *f, const struct fdc_config *cfg);
void fdc_reset(struct fdc *f);
/* The type that CMOS RAM should give for drive n, 0: there is none. */
uint8_t fdc_drive_type(const struct fdc *f, unsigned n);
/* Puts a medium into drive n, or takes it out (NULL). */
void fdc_set_medium(struct fdc *f, unsigned n, struct block_device *block);
void fdc_save(const struct fdc *f, struct snap_writer *w);
void fdc_load(struct fdc *f, struct snap_reader *r);

#endif
