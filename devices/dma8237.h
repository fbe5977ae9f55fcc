/*
 * The two 8237 DMA controllers of a PC and their page registers: channels 0 to 3 move bytes, 4 to 7 words (4 is the
 * cascade). Devices that were programmed for one pull their data through it.
 *
 * Source: Intel 8237A data sheet; page registers as in the 82371SB's. A transfer is made at once, when the device asks:
 * block, demand and single mode look alike from outside. Memory-to-memory transfers do not exist on a PC.
 */
#ifndef DEVICES_DMA8237_H
#define DEVICES_DMA8237_H

#include "core/memory.h"
#include "devices/device.h"

struct snap_writer;
struct snap_reader;

#define DMA8237_CHANNELS 8

struct dma8237_channel {
    uint16_t base_address, base_count, address, count;
    uint8_t page, mode;
};

struct dma8237_chip {
    struct dma8237 *dma;
    unsigned first; /* channel */
    bool flip_flop;
    uint8_t command, mask, status, request;
};

struct dma8237 {
    struct guest_memory memory;
    const struct log *log;
    struct dma8237_channel channel[DMA8237_CHANNELS];
    struct dma8237_chip chip[2];
    uint8_t page[16]; /* as written; those without a channel are plain registers */
};

extern const struct bus_ops dma8237_low_bus_ops;  /* 16 ports at 0x00, &dma->chip[0] */
extern const struct bus_ops dma8237_high_bus_ops; /* 32 ports at 0xc0, &dma->chip[1] */
extern const struct bus_ops dma8237_page_bus_ops; /* 16 ports at 0x80, dma */

void dma8237_init(struct dma8237 *d, const struct guest_memory *memory, const struct log *log);
void dma8237_reset(struct dma8237 *d);
/* A device moves `len` bytes through a channel: the number that went, which is less where the channel is masked or
 * programmed for the other direction (0), or its count ran out. *end: it ran out (terminal count) with the last byte.
 */
uint32_t dma8237_move(struct dma8237 *d, unsigned channel, uint8_t *buf, uint32_t len, bool to_memory, bool *end);
void dma8237_save(const struct dma8237 *d, struct snap_writer *w);
void dma8237_load(struct dma8237 *d, struct snap_reader *r);

#endif
