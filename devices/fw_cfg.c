#include "devices/fw_cfg.h"

#include "core/snapshot.h"

#include <stdlib.h>
#include <string.h>

#define ID_TRADITIONAL 0x01
#define ID_DMA         0x02

#define KEY_FLAGS 0xc000u /* architecture-local, write channel: part of the key here */
#define KEY_NONE  0xffffu

#define DMA_ERROR     0x01
#define DMA_READ      0x02
#define DMA_SKIP      0x04
#define DMA_SELECT    0x08
#define DMA_WRITE     0x10
#define DMA_SIGNATURE 0x51454d5520434647ull /* "QEMU CFG" */

#define DIR_ENTRY 64

static uint64_t get_be(const uint8_t *p, unsigned size)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < size; i++)
        v = v << 8 | p[i];
    return v;
}

static void put_be(uint8_t *p, unsigned size, uint64_t v)
{
    for (unsigned i = 0; i < size; i++)
        p[i] = (uint8_t)(v >> (8 * (size - 1 - i)));
}

/* ---- Items ---- */

static struct fw_cfg_item *find(const struct fw_cfg *f, uint16_t key)
{
    for (size_t i = 0; i < f->item_count; i++)
        if (f->item[i].key == key)
            return &f->item[i];
    return NULL;
}

const struct fw_cfg_item *fw_cfg_find(const struct fw_cfg *f, uint16_t key)
{
    return find(f, key);
}

static struct fw_cfg_item *find_or_make(struct fw_cfg *f, uint16_t key)
{
    struct fw_cfg_item *it = find(f, key);
    if (it) {
        if (it->owned)
            free(it->data);
        *it = (struct fw_cfg_item){.key = key};
        return it;
    }
    if (f->item_count == f->item_capacity) {
        size_t capacity = f->item_capacity ? 2 * f->item_capacity : 32;
        struct fw_cfg_item *grown = realloc(f->item, capacity * sizeof(*grown));
        if (!grown)
            return NULL;
        f->item = grown;
        f->item_capacity = capacity;
    }
    it = &f->item[f->item_count++];
    *it = (struct fw_cfg_item){.key = key};
    return it;
}

/* Gives the item `data`, which it owns from here on (freed on failure). */
static bool add_owned(struct fw_cfg *f, uint16_t key, uint8_t *data, size_t len)
{
    struct fw_cfg_item *it = data && len <= UINT32_MAX ? find_or_make(f, key) : NULL;
    if (!it) {
        free(data);
        return false;
    }
    it->data = data;
    it->len = len;
    it->owned = true;
    return true;
}

bool fw_cfg_add(struct fw_cfg *f, uint16_t key, const void *data, size_t len)
{
    uint8_t *copy = malloc(len ? len : 1);
    if (copy && len)
        memcpy(copy, data, len);
    return add_owned(f, key, copy, len);
}

bool fw_cfg_add_ref(struct fw_cfg *f, uint16_t key, const void *data, size_t len)
{
    struct fw_cfg_item *it = len <= UINT32_MAX ? find_or_make(f, key) : NULL;
    if (!it)
        return false;
    it->data = (uint8_t *)(uintptr_t)data; /* never written: not writable */
    it->len = len;
    return true;
}

static bool add_number(struct fw_cfg *f, uint16_t key, uint64_t v, unsigned size)
{
    uint8_t bytes[8];
    for (unsigned i = 0; i < size; i++)
        bytes[i] = (uint8_t)(v >> (8 * i));
    return fw_cfg_add(f, key, bytes, size);
}

bool fw_cfg_add_u16(struct fw_cfg *f, uint16_t key, uint16_t v)
{
    return add_number(f, key, v, 2);
}

bool fw_cfg_add_u32(struct fw_cfg *f, uint16_t key, uint32_t v)
{
    return add_number(f, key, v, 4);
}

bool fw_cfg_add_u64(struct fw_cfg *f, uint16_t key, uint64_t v)
{
    return add_number(f, key, v, 8);
}

/* The directory is a big-endian count and 64-byte entries: size, key, reserved, name. */
static bool add_to_directory(struct fw_cfg *f, uint16_t key, const char *name, size_t len)
{
    const struct fw_cfg_item *old = find(f, FW_CFG_FILE_DIR);
    uint32_t count = (uint32_t)get_be(old->data, 4);
    size_t size = 4 + (size_t)(count + 1) * DIR_ENTRY;
    uint8_t *dir = calloc(1, size);
    if (!dir)
        return false;
    memcpy(dir, old->data, old->len);
    put_be(dir, 4, count + 1);
    uint8_t *entry = dir + 4 + (size_t)count * DIR_ENTRY;
    put_be(entry, 4, len);
    put_be(entry + 4, 2, key);
    memcpy(entry + 8, name, strlen(name));
    return add_owned(f, FW_CFG_FILE_DIR, dir, size);
}

bool fw_cfg_add_file(struct fw_cfg *f, const char *name, const void *data, size_t len, bool writable)
{
    uint16_t key = f->next_file_key;
    if (strlen(name) > FW_CFG_NAME_MAX || (key & KEY_FLAGS) || !fw_cfg_add(f, key, data, len))
        return false;
    if (!add_to_directory(f, key, name, len))
        return false;
    find(f, key)->writable = writable;
    f->next_file_key++;
    return true;
}

struct fw_cfg_item *fw_cfg_find_file(const struct fw_cfg *f, const char *name)
{
    const struct fw_cfg_item *dir = find(f, FW_CFG_FILE_DIR);
    for (const uint8_t *entry = dir->data + 4; entry < dir->data + dir->len; entry += DIR_ENTRY)
        if (!strcmp((const char *)entry + 8, name))
            return find(f, (uint16_t)get_be(entry + 4, 2));
    return NULL;
}

/* ---- Selector and data ports ---- */

static void select_key(struct fw_cfg *f, uint16_t key)
{
    f->selected = key;
    f->position = 0;
    if (!find(f, key))
        device_log(f->cfg.log, LOG_GUEST_ERROR, "fw_cfg: key 0x%04x does not exist", key);
}

static uint32_t remaining(const struct fw_cfg *f, const struct fw_cfg_item *it)
{
    return it && f->position < it->len ? (uint32_t)it->len - f->position : 0;
}

static uint8_t next_byte(struct fw_cfg *f)
{
    const struct fw_cfg_item *it = find(f, f->selected);
    return remaining(f, it) ? it->data[f->position++] : 0;
}

static uint64_t ports_read(void *dev, const struct bus_txn *t)
{
    struct fw_cfg *f = dev;
    if (t->offset == 1 && t->size == 1)
        return next_byte(f);
    return 0; /* the selector cannot be read */
}

static void ports_write(void *dev, const struct bus_txn *t, uint64_t value)
{
    struct fw_cfg *f = dev;
    if (t->offset == 0 && t->size == 2)
        select_key(f, (uint16_t)value);
    else
        device_log(f->cfg.log, LOG_GUEST_ERROR, "fw_cfg: write of %u bytes at port offset %u", t->size,
                   (unsigned)t->offset);
}

const struct bus_ops fw_cfg_bus_ops = {ports_read, ports_write};

/* ---- DMA ---- */

struct request {
    uint32_t control, length;
    uint64_t address;
};

/* Bytes from `gpa` to the end of its page, at most `left`. */
static uint32_t page_chunk(uint64_t gpa, uint32_t left)
{
    uint64_t to_end = PAGE_SIZE - (gpa & PAGE_MASK);
    return left < to_end ? left : (uint32_t)to_end;
}

/* Item to guest memory; zeros behind the item's end. False on a memory error. */
static bool dma_read(struct fw_cfg *f, const struct fw_cfg_item *it, const struct request *q)
{
    static const uint8_t zeros[PAGE_SIZE];
    uint64_t gpa = q->address;
    for (uint32_t left = q->length, n; left; left -= n, gpa += n) {
        uint32_t have = remaining(f, it);
        const uint8_t *from = have ? it->data + f->position : zeros;
        n = page_chunk(gpa, left);
        if (have && have < n)
            n = have;
        if (guest_mem_write(&f->cfg.memory, gpa, from, n, MEM_DMA) != MEM_OK)
            return false;
        f->position += have ? n : 0;
    }
    return true;
}

static bool dma_write(struct fw_cfg *f, const struct fw_cfg_item *it, const struct request *q)
{
    uint64_t gpa = q->address;
    if (!it || !it->writable || q->length > remaining(f, it))
        return false;
    for (uint32_t left = q->length, n; left; left -= n, gpa += n) {
        n = page_chunk(gpa, left);
        if (guest_mem_read(&f->cfg.memory, gpa, it->data + f->position, n, MEM_DMA) != MEM_OK)
            return false;
        f->position += n;
    }
    return true;
}

static bool dma_transfer(struct fw_cfg *f, const struct request *q)
{
    if (q->control & DMA_SELECT)
        select_key(f, (uint16_t)(q->control >> 16));
    const struct fw_cfg_item *it = find(f, f->selected);
    uint32_t have = remaining(f, it);
    bool moves = q->control & (DMA_READ | DMA_WRITE);
    if (moves && q->address + q->length < q->address)
        return false;
    if (q->control & DMA_READ)
        return q->length <= (uint64_t)have + FW_CFG_SLACK && dma_read(f, it, q);
    if (q->control & DMA_WRITE)
        return dma_write(f, it, q);
    if (q->control & DMA_SKIP)
        f->position += q->length < have ? q->length : have;
    return true;
}

/* Runs the request whose descriptor lies at dma_address, and writes its outcome into the control field. */
static void dma_run(struct fw_cfg *f)
{
    uint8_t descriptor[16], outcome[4];
    uint64_t at = f->dma_address;
    f->dma_address = 0;
    dma_map_set(&f->descriptor, 0, at, sizeof(descriptor), true);
    if (dma_map_read(&f->descriptor, 0, descriptor, sizeof(descriptor)) != MEM_OK) {
        device_log(f->cfg.log, LOG_GUEST_ERROR, "fw_cfg: no memory at DMA descriptor 0x%llx", (unsigned long long)at);
        return;
    }
    struct request q = {(uint32_t)get_be(descriptor, 4), (uint32_t)get_be(descriptor + 4, 4),
                        get_be(descriptor + 8, 8)};
    bool ok = dma_transfer(f, &q);
    if (!ok)
        device_log(f->cfg.log, LOG_GUEST_ERROR, "fw_cfg: bad DMA request: control 0x%08x, length 0x%x, address 0x%llx",
                   q.control, q.length, (unsigned long long)q.address);
    put_be(outcome, 4, ok ? 0 : DMA_ERROR);
    dma_map_write(&f->descriptor, 0, outcome, sizeof(outcome));
}

static uint64_t swap(uint64_t v, unsigned size)
{
    return __builtin_bswap64(v) >> (64 - 8 * size);
}

static uint64_t dma_port_read(void *dev, const struct bus_txn *t)
{
    if (t->offset + t->size > 8)
        return 0;
    uint64_t v = DMA_SIGNATURE >> (8 * (8 - t->offset - t->size));
    return swap(v, t->size);
}

static void dma_port_write(void *dev, const struct bus_txn *t, uint64_t value)
{
    struct fw_cfg *f = dev;
    uint64_t v = swap(value, t->size);
    if (t->offset == 0 && t->size == 4) {
        f->dma_address = v << 32;
    } else if (t->offset == 4 && t->size == 4) {
        f->dma_address |= v;
        dma_run(f);
    } else if (t->offset == 0 && t->size == 8) {
        f->dma_address = v;
        dma_run(f);
    } else {
        device_log(f->cfg.log, LOG_GUEST_ERROR, "fw_cfg: write of %u bytes at DMA offset %u", t->size,
                   (unsigned)t->offset);
    }
}

const struct bus_ops fw_cfg_dma_bus_ops = {dma_port_read, dma_port_write};

/* ---- Life ---- */

bool fw_cfg_init(struct fw_cfg *f, const struct fw_cfg_config *cfg)
{
    static const uint8_t empty_directory[4];
    memset(f, 0, sizeof(*f));
    f->cfg = *cfg;
    dma_map_init(&f->descriptor, &f->cfg.memory);
    f->next_file_key = FW_CFG_FILE_FIRST;
    bool ok = fw_cfg_add(f, FW_CFG_SIGNATURE, "QEMU", 4) && fw_cfg_add_u32(f, FW_CFG_ID, ID_TRADITIONAL | ID_DMA) &&
              fw_cfg_add_u64(f, FW_CFG_RAM_SIZE, cfg->ram_size) && fw_cfg_add_u16(f, FW_CFG_NB_CPUS, cfg->cpu_count) &&
              fw_cfg_add_u16(f, FW_CFG_MAX_CPUS, cfg->max_cpus) &&
              fw_cfg_add(f, FW_CFG_FILE_DIR, empty_directory, sizeof(empty_directory));
    fw_cfg_reset(f);
    return ok;
}

void fw_cfg_fini(struct fw_cfg *f)
{
    dma_map_fini(&f->descriptor);
    for (size_t i = 0; i < f->item_count; i++)
        if (f->item[i].owned)
            free(f->item[i].data);
    free(f->item);
    f->item = NULL;
    f->item_count = f->item_capacity = 0;
}

void fw_cfg_reset(struct fw_cfg *f)
{
    f->selected = FW_CFG_SIGNATURE;
    f->position = 0;
    f->dma_address = 0;
}

void fw_cfg_save(const struct fw_cfg *f, struct snap_writer *w)
{
    snap_begin(w, "fw_cfg", 1);
    snap_put_u16(w, f->selected);
    snap_put_u32(w, f->position);
    snap_put_u64(w, f->dma_address);
    for (size_t i = 0; i < f->item_count; i++) {
        if (!f->item[i].writable)
            continue;
        snap_put_u16(w, f->item[i].key);
        snap_put_u32(w, (uint32_t)f->item[i].len);
        snap_put_bytes(w, f->item[i].data, f->item[i].len);
    }
    snap_put_u16(w, KEY_NONE);
    snap_end(w);
}

void fw_cfg_load(struct fw_cfg *f, struct snap_reader *r)
{
    if (!snap_expect(r, "fw_cfg", 1))
        return;
    f->selected = snap_get_u16(r);
    f->position = snap_get_u32(r);
    f->dma_address = snap_get_u64(r);
    while (snap_left(r) >= 6) {
        uint16_t key = snap_get_u16(r);
        uint32_t len = snap_get_u32(r);
        struct fw_cfg_item *it = find(f, key);
        if (!it || !it->writable || it->len != len) {
            snap_fail(r, "fw_cfg: writable item 0x%04x of %u bytes does not exist here", key, len);
            return;
        }
        snap_get_bytes(r, it->data, len);
    }
}
