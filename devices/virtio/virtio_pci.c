#include "devices/virtio/virtio_pci.h"

#include "core/bytes.h"
#include "core/snapshot.h"

#include <stdio.h>
#include <string.h>

/* ---- layout ---- */

#define BAR_LEGACY   0
#define BAR_MSIX     1
#define BAR_MODERN   4
#define LEGACY_PORTS 64 /* what is not there reads as zero; the largest device configuration is cut */
#define MODERN_BYTES 0x4000

#define AREA_COMMON 0x0000
#define AREA_ISR    0x1000
#define AREA_DEVICE 0x2000
#define AREA_NOTIFY 0x3000
#define AREA_BYTES  0x1000

#define CAP_COMMON 1
#define CAP_NOTIFY 2
#define CAP_ISR    3
#define CAP_DEVICE 4
#define CAP_WINDOW 5

#define NOTIFY_MULTIPLIER 4

/* Registers of the common configuration. */
enum {
    COMMON_DEVICE_SELECT = 0,
    COMMON_DEVICE_FEATURES = 4,
    COMMON_DRIVER_SELECT = 8,
    COMMON_DRIVER_FEATURES = 12,
    COMMON_CONFIG_VECTOR = 16,
    COMMON_QUEUES = 18,
    COMMON_STATUS = 20,
    COMMON_GENERATION = 21,
    COMMON_QUEUE_SELECT = 22,
    COMMON_QUEUE_SIZE = 24,
    COMMON_QUEUE_VECTOR = 26,
    COMMON_QUEUE_ENABLE = 28,
    COMMON_QUEUE_NOTIFY = 30,
    COMMON_QUEUE_DESC = 32,
    COMMON_QUEUE_DRIVER = 40,
    COMMON_QUEUE_DEVICE = 48,
    COMMON_BYTES = 56
};

/* Legacy ports; the device configuration is behind them. */
enum {
    LEGACY_DEVICE_FEATURES = 0,
    LEGACY_DRIVER_FEATURES = 4,
    LEGACY_QUEUE_PFN = 8,
    LEGACY_QUEUE_SIZE = 12,
    LEGACY_QUEUE_SELECT = 14,
    LEGACY_NOTIFY = 16,
    LEGACY_STATUS = 18,
    LEGACY_ISR = 19,
    LEGACY_CONFIG_VECTOR = 20, /* these two only while MSI-X is on */
    LEGACY_QUEUE_VECTOR = 22
};

static unsigned queue_count(const struct virtio *v)
{
    unsigned n = 0;
    while (n < VIRTIO_QUEUES && v->queue[n].max)
        n++;
    return n;
}

/* The queue that is selected, or NULL. */
static struct virtio_queue *selected(const struct virtio_pci *p)
{
    return p->queue_select < queue_count(p->virtio) ? &p->virtio->queue[p->queue_select] : NULL;
}

/* ---- interrupts ---- */

static void interrupt(void *transport, uint16_t vector, uint8_t isr)
{
    struct virtio_pci *p = transport;
    bool messages = pci_msix_is_on(&p->msix);
    if (messages && isr)
        pci_msix_send(&p->msix, vector);
    pci_device_set_intx(&p->pci, !messages && p->virtio->isr);
}

/* A vector that is not in the table cannot be taken: it reads back as none. */
static uint16_t vector_taken(const struct virtio_pci *p, uint16_t vector)
{
    return vector < p->msix.count ? vector : VIRTIO_NO_VECTOR;
}

/* ---- device configuration ---- */

static uint8_t device_read(const struct virtio_pci *p, uint64_t offset)
{
    const struct virtio *v = p->virtio;
    return offset < v->cls->config_bytes ? v->cls->config_read(v->ctx, (unsigned)offset) : 0;
}

static void device_write(struct virtio_pci *p, uint64_t offset, uint8_t value)
{
    const struct virtio *v = p->virtio;
    if (offset < v->cls->config_bytes && v->cls->config_write)
        v->cls->config_write(v->ctx, (unsigned)offset, value);
}

/* ---- common configuration ---- */

/* All its registers, as they read. */
static void common_image(const struct virtio_pci *p, uint8_t image[COMMON_BYTES])
{
    const struct virtio *v = p->virtio;
    const struct virtio_queue *q = selected(p);
    memset(image, 0, COMMON_BYTES);
    store_le(image + COMMON_DEVICE_SELECT, p->device_feature_select, 4);
    if (p->device_feature_select < 2)
        store_le(image + COMMON_DEVICE_FEATURES, v->offered >> (32 * p->device_feature_select), 4);
    store_le(image + COMMON_DRIVER_SELECT, p->driver_feature_select, 4);
    if (p->driver_feature_select < 2)
        store_le(image + COMMON_DRIVER_FEATURES, v->driver >> (32 * p->driver_feature_select), 4);
    store_le(image + COMMON_CONFIG_VECTOR, v->config_vector, 2);
    store_le(image + COMMON_QUEUES, queue_count(v), 2);
    image[COMMON_STATUS] = v->status;
    image[COMMON_GENERATION] = v->generation;
    store_le(image + COMMON_QUEUE_SELECT, p->queue_select, 2);
    if (!q)
        return;
    store_le(image + COMMON_QUEUE_SIZE, q->size, 2);
    store_le(image + COMMON_QUEUE_VECTOR, q->vector, 2);
    store_le(image + COMMON_QUEUE_ENABLE, q->enabled, 2);
    store_le(image + COMMON_QUEUE_NOTIFY, p->queue_select, 2);
    store_le(image + COMMON_QUEUE_DESC, q->desc, 8);
    store_le(image + COMMON_QUEUE_DRIVER, q->driver, 8);
    store_le(image + COMMON_QUEUE_DEVICE, q->device, 8);
}

static void set_driver_features(struct virtio_pci *p, uint32_t value)
{
    unsigned shift = 32 * p->driver_feature_select;
    if (p->driver_feature_select < 2)
        virtio_set_features(p->virtio, (p->virtio->driver & ~(0xffffffffull << shift)) | (uint64_t)value << shift);
}

static void set_queue_size(struct virtio_pci *p, struct virtio_queue *q, uint16_t size)
{
    if (size && size <= q->max && !(size & (size - 1)))
        q->size = size;
    else
        device_log(p->virtio->cfg.log, LOG_GUEST_ERROR, "%s: queue size %u of %u", p->pci.name, size, q->max);
}

/* A queue that is on stays as it is until the device is reset. */
static void write_queue(struct virtio_pci *p, struct virtio_queue *q, unsigned reg, const uint8_t *image)
{
    if (reg == COMMON_QUEUE_VECTOR)
        q->vector = vector_taken(p, (uint16_t)load_le(image + reg, 2));
    if (q->enabled)
        return;
    switch (reg) {
    case COMMON_QUEUE_SIZE:
        set_queue_size(p, q, (uint16_t)load_le(image + reg, 2));
        break;
    case COMMON_QUEUE_ENABLE:
        q->enabled = load_le(image + reg, 2) == 1;
        break;
    case COMMON_QUEUE_DESC:
        q->desc = load_le(image + reg, 8) & ~15ull;
        break;
    case COMMON_QUEUE_DRIVER:
        q->driver = load_le(image + reg, 8) & ~1ull;
        break;
    case COMMON_QUEUE_DEVICE:
        q->device = load_le(image + reg, 8) & ~3ull;
        break;
    }
}

static void write_register(struct virtio_pci *p, unsigned reg, const uint8_t *image)
{
    struct virtio_queue *q = selected(p);
    switch (reg) {
    case COMMON_DEVICE_SELECT:
        p->device_feature_select = (uint32_t)load_le(image + reg, 4);
        break;
    case COMMON_DRIVER_SELECT:
        p->driver_feature_select = (uint32_t)load_le(image + reg, 4);
        break;
    case COMMON_DRIVER_FEATURES:
        set_driver_features(p, (uint32_t)load_le(image + reg, 4));
        break;
    case COMMON_CONFIG_VECTOR:
        p->virtio->config_vector = vector_taken(p, (uint16_t)load_le(image + reg, 2));
        break;
    case COMMON_STATUS:
        virtio_set_status(p->virtio, image[reg]);
        break;
    case COMMON_QUEUE_SELECT:
        p->queue_select = (uint16_t)load_le(image + reg, 2);
        break;
    default:
        if (q)
            write_queue(p, q, reg, image);
    }
}

/* An access of any size: the registers that it touches are written with what it leaves of the others' bytes. */
static void common_write(struct virtio_pci *p, uint64_t offset, unsigned size, uint64_t value)
{
    static const uint8_t start[] = {
        COMMON_DEVICE_SELECT, COMMON_DEVICE_FEATURES, COMMON_DRIVER_SELECT, COMMON_DRIVER_FEATURES,
        COMMON_CONFIG_VECTOR, COMMON_QUEUES,          COMMON_STATUS,        COMMON_GENERATION,
        COMMON_QUEUE_SELECT,  COMMON_QUEUE_SIZE,      COMMON_QUEUE_VECTOR,  COMMON_QUEUE_ENABLE,
        COMMON_QUEUE_NOTIFY,  COMMON_QUEUE_DESC,      COMMON_QUEUE_DRIVER,  COMMON_QUEUE_DEVICE,
        COMMON_BYTES};
    uint8_t image[COMMON_BYTES];
    common_image(p, image);
    for (unsigned i = 0; i < size && offset + i < COMMON_BYTES; i++)
        image[offset + i] = (uint8_t)(value >> (8 * i));
    for (unsigned k = 0; k + 1 < ARRAY_LEN(start); k++)
        if (offset < start[k + 1] && start[k] < offset + size)
            write_register(p, start[k], image);
}

/* ---- the modern BAR ---- */

static uint64_t modern_read(void *dev, const struct bus_txn *t)
{
    struct virtio_pci *p = dev;
    uint64_t offset = t->offset % AREA_BYTES, value = 0;
    uint8_t image[COMMON_BYTES];
    switch (t->offset - offset) {
    case AREA_COMMON:
        common_image(p, image);
        for (unsigned i = 0; i < t->size && offset + i < COMMON_BYTES; i++)
            value |= (uint64_t)image[offset + i] << (8 * i);
        return value;
    case AREA_ISR:
        return offset ? 0 : virtio_isr_take(p->virtio);
    case AREA_DEVICE:
        for (unsigned i = 0; i < t->size; i++)
            value |= (uint64_t)device_read(p, offset + i) << (8 * i);
        return value;
    }
    return 0;
}

static void modern_write(void *dev, const struct bus_txn *t, uint64_t value)
{
    struct virtio_pci *p = dev;
    uint64_t offset = t->offset % AREA_BYTES;
    switch (t->offset - offset) {
    case AREA_COMMON:
        common_write(p, offset, t->size, value);
        break;
    case AREA_DEVICE:
        for (unsigned i = 0; i < t->size; i++)
            device_write(p, offset + i, (uint8_t)(value >> (8 * i)));
        break;
    case AREA_NOTIFY:
        virtio_kick(p->virtio, (unsigned)(offset / NOTIFY_MULTIPLIER));
        break;
    }
}

static const struct bus_ops modern_bus_ops = {modern_read, modern_write};

/* ---- the legacy BAR ---- */

static unsigned legacy_config_at(const struct virtio_pci *p)
{
    return pci_msix_is_on(&p->msix) ? 24 : 20;
}

static void legacy_image(const struct virtio_pci *p, uint8_t image[LEGACY_PORTS])
{
    const struct virtio *v = p->virtio;
    const struct virtio_queue *q = selected(p);
    unsigned config = legacy_config_at(p);
    memset(image, 0, LEGACY_PORTS);
    store_le(image + LEGACY_DEVICE_FEATURES, v->offered, 4);
    store_le(image + LEGACY_DRIVER_FEATURES, v->driver, 4);
    store_le(image + LEGACY_QUEUE_PFN, q && q->enabled ? q->desc >> PAGE_SHIFT : 0, 4);
    store_le(image + LEGACY_QUEUE_SIZE, q ? q->max : 0, 2);
    store_le(image + LEGACY_QUEUE_SELECT, p->queue_select, 2);
    image[LEGACY_STATUS] = v->status;
    image[LEGACY_ISR] = v->isr;
    if (config == 24) {
        store_le(image + LEGACY_CONFIG_VECTOR, v->config_vector, 2);
        store_le(image + LEGACY_QUEUE_VECTOR, q ? q->vector : VIRTIO_NO_VECTOR, 2);
    }
    for (unsigned i = config; i < LEGACY_PORTS; i++)
        image[i] = device_read(p, i - config);
}

static uint64_t legacy_read(void *dev, const struct bus_txn *t)
{
    struct virtio_pci *p = dev;
    uint8_t image[LEGACY_PORTS];
    uint64_t value = 0;
    legacy_image(p, image);
    for (unsigned i = 0; i < t->size && t->offset + i < LEGACY_PORTS; i++)
        value |= (uint64_t)image[t->offset + i] << (8 * i);
    if (t->offset <= LEGACY_ISR && t->offset + t->size > LEGACY_ISR)
        virtio_isr_take(p->virtio);
    return value;
}

static void legacy_write_config(struct virtio_pci *p, const struct bus_txn *t, uint64_t value)
{
    unsigned config = legacy_config_at(p);
    for (unsigned i = 0; i < t->size; i++)
        if (t->offset + i >= config)
            device_write(p, t->offset + i - config, (uint8_t)(value >> (8 * i)));
}

static void legacy_write_vector(struct virtio_pci *p, uint64_t offset, uint16_t vector)
{
    struct virtio_queue *q = selected(p);
    if (offset == LEGACY_CONFIG_VECTOR)
        p->virtio->config_vector = vector_taken(p, vector);
    else if (q)
        q->vector = vector_taken(p, vector);
}

static void legacy_write(void *dev, const struct bus_txn *t, uint64_t value)
{
    struct virtio_pci *p = dev;
    switch (t->offset) {
    case LEGACY_DRIVER_FEATURES:
        /* Bits beyond 31 do not exist for a legacy driver; the rest it takes without asking. */
        virtio_set_features(p->virtio, value & p->virtio->offered & 0xffffffff);
        break;
    case LEGACY_QUEUE_PFN:
        if (!value)
            virtio_reset(p->virtio);
        else if (selected(p))
            virtio_queue_set_legacy(p->virtio, p->queue_select, (value & 0xffffffff) << PAGE_SHIFT);
        break;
    case LEGACY_QUEUE_SELECT:
        p->queue_select = (uint16_t)value;
        break;
    case LEGACY_NOTIFY:
        virtio_kick(p->virtio, (uint16_t)value);
        break;
    case LEGACY_STATUS:
        virtio_set_status(p->virtio, (uint8_t)value);
        break;
    default:
        if (t->offset >= legacy_config_at(p))
            legacy_write_config(p, t, value);
        else if (t->offset == LEGACY_CONFIG_VECTOR || t->offset == LEGACY_QUEUE_VECTOR)
            legacy_write_vector(p, t->offset, (uint16_t)value);
    }
}

static const struct bus_ops legacy_bus_ops = {legacy_read, legacy_write};

/* ---- the window in configuration space ---- */

/* Where it is open to. False: nowhere. */
static bool window_target(const struct virtio_pci *p, struct bus_txn *t)
{
    uint32_t offset = pci_device_read32(&p->pci, p->window + 8), length = pci_device_read32(&p->pci, p->window + 12);
    *t = (struct bus_txn){.offset = offset, .size = length, .cpu = BUS_NO_CPU};
    return p->pci.config[p->window + 4] == BAR_MODERN && (length == 1 || length == 2 || length == 4) &&
           offset <= MODERN_BYTES - length;
}

static bool touches_window(const struct virtio_pci *p, unsigned offset, unsigned size)
{
    return size < PCI_CONFIG_BYTES && offset < p->window + 20 && offset + size > p->window + 16;
}

static void config_read(void *ctx, unsigned offset, unsigned size)
{
    struct virtio_pci *p = ctx;
    struct bus_txn t;
    if (touches_window(p, offset, size) && window_target(p, &t))
        store_le(p->pci.config + p->window + 16, modern_read(p, &t), t.size);
}

static void config_written(void *ctx, unsigned offset, unsigned size)
{
    struct virtio_pci *p = ctx;
    struct bus_txn t;
    if (touches_window(p, offset, size) && window_target(p, &t))
        modern_write(p, &t, load_le(p->pci.config + p->window + 16, t.size));
    else if (size < PCI_CONFIG_BYTES) /* MSI-X may have been turned on */
        interrupt(p, VIRTIO_NO_VECTOR, 0);
}

/* ---- life ---- */

static unsigned add_area(struct virtio_pci *p, uint8_t type, uint32_t offset, unsigned extra)
{
    struct pci_device *d = &p->pci;
    unsigned at = pci_device_add_capability(d, PCI_CAP_VENDOR, 16 + extra);
    pci_device_preset(d, at + 2, 1, 16 + extra, 0);
    pci_device_preset(d, at + 3, 1, type, 0);
    pci_device_preset(d, at + 4, 1, BAR_MODERN, 0);
    pci_device_preset(d, at + 8, 4, offset, 0);
    pci_device_preset(d, at + 12, 4, AREA_BYTES, 0);
    return at;
}

static void add_capabilities(struct virtio_pci *p)
{
    add_area(p, CAP_COMMON, AREA_COMMON, 0);
    add_area(p, CAP_ISR, AREA_ISR, 0);
    add_area(p, CAP_DEVICE, AREA_DEVICE, 0);
    unsigned notify = add_area(p, CAP_NOTIFY, AREA_NOTIFY, 4);
    pci_device_preset(&p->pci, notify + 16, 4, NOTIFY_MULTIPLIER, 0);
    p->window = add_area(p, CAP_WINDOW, 0, 4);
    pci_device_preset(&p->pci, p->window + 4, 1, 0, 0xff);
    pci_device_preset(&p->pci, p->window + 8, 4, 0, 0xffffffff);
    pci_device_preset(&p->pci, p->window + 12, 4, 0, 0xffffffff);
    pci_device_preset(&p->pci, p->window + 16, 4, 0, 0xffffffff);
}

/* Transitional IDs, in the order in which they were given out, differ from virtio's device IDs. */
static uint16_t device_id(const struct virtio *v, bool modern_only)
{
    static const uint16_t transitional[] = {[1] = 0x1000, [2] = 0x1001, [3] = 0x1003, [4] = 0x1005};
    bool known = v->cls->type < ARRAY_LEN(transitional) && transitional[v->cls->type];
    return known && !modern_only ? transitional[v->cls->type] : (uint16_t)(0x1040 + v->cls->type);
}

void virtio_pci_init(struct virtio_pci *p, struct virtio *v, bool modern_only)
{
    memset(p, 0, sizeof *p);
    p->virtio = v;
    p->modern_only = modern_only;
    v->interrupt = interrupt;
    v->transport = p;
    pci_device_init(&p->pci, v->cls->name,
                    &(struct pci_identity){.vendor = VIRTIO_PCI_VENDOR,
                                           .device = device_id(v, modern_only),
                                           .subsystem_vendor = VIRTIO_PCI_VENDOR,
                                           .subsystem = modern_only ? 0x1100 : v->cls->type,
                                           .class_code = v->cls->pci_class,
                                           .revision = modern_only,
                                           .interrupt_pin = 1});
    if (!modern_only)
        pci_device_add_bar(&p->pci, BAR_LEGACY, PCI_BAR_IO, LEGACY_PORTS, &legacy_bus_ops, p);
    pci_msix_init(&p->msix, &p->pci, BAR_MSIX, queue_count(v) + 1);
    pci_device_add_bar(&p->pci, BAR_MODERN, PCI_BAR_MEM64, MODERN_BYTES, &modern_bus_ops, p);
    add_capabilities(p);
    p->pci.config_written = config_written;
    p->pci.config_read = config_read;
    p->pci.ctx = p;
}

void virtio_pci_reset(struct virtio_pci *p)
{
    p->device_feature_select = p->driver_feature_select = 0;
    p->queue_select = 0;
    pci_msix_reset(&p->msix);
    virtio_reset(p->virtio);
    pci_device_reset(&p->pci);
}

static void place_name(const struct virtio_pci *p, char name[8])
{
    snprintf(name, 8, "%02x.%u", p->pci.devfn >> 3, p->pci.devfn & 7u);
}

void virtio_pci_save(const struct virtio_pci *p, struct snap_writer *w)
{
    char place[8], name[SNAP_NAME_MAX + 1];
    place_name(p, place);
    snprintf(name, sizeof name, "virtio-pci.%s", place);
    pci_device_save(&p->pci, w);
    snap_begin(w, name, 1);
    pci_msix_save(&p->msix, w);
    snap_put_u32(w, p->device_feature_select);
    snap_put_u32(w, p->driver_feature_select);
    snap_put_u16(w, p->queue_select);
    snap_end(w);
    virtio_save(p->virtio, place, w);
}

void virtio_pci_load(struct virtio_pci *p, struct snap_reader *r)
{
    char place[8], name[SNAP_NAME_MAX + 1];
    place_name(p, place);
    snprintf(name, sizeof name, "virtio-pci.%s", place);
    pci_device_load(&p->pci, r);
    if (!snap_expect(r, name, 1))
        return;
    pci_msix_load(&p->msix, r);
    p->device_feature_select = snap_get_u32(r);
    p->driver_feature_select = snap_get_u32(r);
    p->queue_select = snap_get_u16(r);
    virtio_load(p->virtio, place, r);
}
