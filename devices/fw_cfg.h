/*
 * fw_cfg: named data from the machine to firmware and kernels, by a selector and data port and by DMA.
 *
 * Source: QEMU's published interface description (docs/specs/fw_cfg). Ports: 16-bit selector at 0, byte data at 1; a
 * second window holds the 64-bit big-endian DMA address. Items do not change while the guest runs, except files that
 * were added writable (written by DMA).
 *
 * A DMA request is done at once, page by page. Beyond the end of an item a read gives zeros, but only up to
 * FW_CFG_SLACK bytes: a longer request gets the error bit and moves nothing, so no length makes the machine hang.
 */
#ifndef DEVICES_FW_CFG_H
#define DEVICES_FW_CFG_H

#include "core/dma_map.h"
#include "devices/device.h"

struct snap_writer;
struct snap_reader;

enum fw_cfg_key {
    FW_CFG_SIGNATURE = 0x00,
    FW_CFG_ID = 0x01,
    FW_CFG_UUID = 0x02,
    FW_CFG_RAM_SIZE = 0x03,
    FW_CFG_NOGRAPHIC = 0x04,
    FW_CFG_NB_CPUS = 0x05,
    FW_CFG_KERNEL_ADDR = 0x07,
    FW_CFG_KERNEL_SIZE = 0x08,
    FW_CFG_INITRD_ADDR = 0x0a,
    FW_CFG_INITRD_SIZE = 0x0b,
    FW_CFG_BOOT_DEVICE = 0x0c,
    FW_CFG_BOOT_MENU = 0x0e,
    FW_CFG_MAX_CPUS = 0x0f,
    FW_CFG_KERNEL_DATA = 0x11,
    FW_CFG_INITRD_DATA = 0x12,
    FW_CFG_CMDLINE_ADDR = 0x13,
    FW_CFG_CMDLINE_SIZE = 0x14,
    FW_CFG_CMDLINE_DATA = 0x15,
    FW_CFG_SETUP_ADDR = 0x16,
    FW_CFG_SETUP_SIZE = 0x17,
    FW_CFG_SETUP_DATA = 0x18,
    FW_CFG_FILE_DIR = 0x19,
    FW_CFG_FILE_FIRST = 0x20
};

#define FW_CFG_NAME_MAX 55
#define FW_CFG_SLACK    0x10000u

struct fw_cfg_config {
    struct guest_memory memory;
    uint64_t ram_size; /* bytes, key 0x03 */
    uint16_t cpu_count, max_cpus;
    const struct log *log;
};

struct fw_cfg_item {
    uint16_t key;
    bool writable, owned;
    size_t len;
    uint8_t *data;
};

struct fw_cfg {
    struct fw_cfg_config cfg;
    struct fw_cfg_item *item; /* owned */
    size_t item_count, item_capacity;
    uint16_t next_file_key;
    uint16_t selected;
    uint32_t position; /* in the selected item */
    uint64_t dma_address;
    struct dma_map descriptor; /* of the last request: a driver uses the same one again and again */
};

extern const struct bus_ops fw_cfg_bus_ops;     /* 2 ports */
extern const struct bus_ops fw_cfg_dma_bus_ops; /* 8 ports */

/* Adds the standard keys (signature, ID, RAM size, CPU counts, file directory). False when memory is short. */
bool fw_cfg_init(struct fw_cfg *f, const struct fw_cfg_config *cfg);
void fw_cfg_fini(struct fw_cfg *f);
void fw_cfg_reset(struct fw_cfg *f);
/* Add (or replace) an item. The bytes are copied; _ref borrows them instead, for as long as f lives. Items are at most
 * 4 GiB - 1. False when memory is short. */
bool fw_cfg_add(struct fw_cfg *f, uint16_t key, const void *data, size_t len);
bool fw_cfg_add_ref(struct fw_cfg *f, uint16_t key, const void *data, size_t len);
/* Little-endian numbers. */
bool fw_cfg_add_u16(struct fw_cfg *f, uint16_t key, uint16_t v);
bool fw_cfg_add_u32(struct fw_cfg *f, uint16_t key, uint32_t v);
bool fw_cfg_add_u64(struct fw_cfg *f, uint16_t key, uint64_t v);
/* Adds a named file (name at most FW_CFG_NAME_MAX bytes) to the directory; the bytes are copied. A guest may overwrite
 * a writable file by DMA, within its size. */
bool fw_cfg_add_file(struct fw_cfg *f, const char *name, const void *data, size_t len, bool writable);
/* The item's bytes now, or NULL. */
const struct fw_cfg_item *fw_cfg_find(const struct fw_cfg *f, uint16_t key);
/* A named file, or NULL. */
struct fw_cfg_item *fw_cfg_find_file(const struct fw_cfg *f, const char *name);
void fw_cfg_save(const struct fw_cfg *f, struct snap_writer *w);
void fw_cfg_load(struct fw_cfg *f, struct snap_reader *r);

#endif
