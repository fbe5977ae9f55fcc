/*
 * The virtio device model, whatever bus it is on: status, features, split virtqueues with indirect descriptors and
 * event indices. Source: Virtual I/O Device (VIRTIO) Version 1.1, sections 2 and 5; legacy interfaces included.
 *
 * A kind of device (virtio_blk.h, ...) fills a struct virtio_class and embeds a struct virtio; the transport
 * (virtio_pci.h) drives both. A notification is served a fixed virtual latency later, between two instructions, by the
 * class's process(), and so are all that came meanwhile: requests complete at positions that depend on the guest alone.
 *
 * The rings are the guest's, and hostile. What is read of them is checked before it is used; whatever cannot be right
 * (loops, indices that jump, addresses where there is no memory) ends in virtio_fail(): a line in the log,
 * DEVICE_NEEDS_RESET in the status, and no more service until the driver resets the device.
 *
 * All memory accesses are a device's (MEM_DMA), to memory alone: a ring cannot reach registers of devices.
 */
#ifndef DEVICES_VIRTIO_VIRTIO_H
#define DEVICES_VIRTIO_VIRTIO_H

#include "core/memory.h"
#include "devices/device.h"

struct snap_writer;
struct snap_reader;

#define VIRTIO_QUEUES       8    /* of one device */
#define VIRTIO_QUEUE_SIZE   1024 /* entries of one queue, at most */
#define VIRTIO_CONFIG_MAX   256  /* bytes of device configuration */
#define VIRTIO_NO_VECTOR    0xffff
#define VIRTIO_LATENCY      5000 /* units, unless the kind of device takes another */
#define VIRTIO_SECTION_SIZE 32

#define VIRTIO_STATUS_ACKNOWLEDGE 0x01
#define VIRTIO_STATUS_DRIVER      0x02
#define VIRTIO_STATUS_DRIVER_OK   0x04
#define VIRTIO_STATUS_FEATURES_OK 0x08
#define VIRTIO_STATUS_NEEDS_RESET 0x40
#define VIRTIO_STATUS_FAILED      0x80

#define VIRTIO_F_ANY_LAYOUT (1ull << 27)
#define VIRTIO_F_INDIRECT   (1ull << 28)
#define VIRTIO_F_EVENT_IDX  (1ull << 29)
#define VIRTIO_F_VERSION_1  (1ull << 32)
#define VIRTIO_F_TRANSPORT  (VIRTIO_F_ANY_LAYOUT | VIRTIO_F_INDIRECT | VIRTIO_F_EVENT_IDX | VIRTIO_F_VERSION_1)

#define VIRTIO_ISR_QUEUE  1
#define VIRTIO_ISR_CONFIG 2

struct virtio_class {
    const char *name;   /* as -device has it, without "-pci"; at most 16 characters */
    uint16_t type;      /* virtio device ID */
    uint32_t pci_class; /* base class << 16 | subclass << 8 */
    uint64_t latency;   /* from a notification to its service, in units; 0: VIRTIO_LATENCY */
    /* Serves the queues in the mask (bit n: queue n). */
    void (*process)(void *ctx, uint32_t queues);
    /* One byte of device configuration; offset < config_bytes. config_write may be NULL: read-only. */
    uint8_t (*config_read)(void *ctx, unsigned offset);
    void (*config_write)(void *ctx, unsigned offset, uint8_t value);
    unsigned config_bytes;
    /* The driver reset the device; its own state goes back, too. May be NULL. */
    void (*reset)(void *ctx);
    /* What the device has beside the common state; put into, got from an open section. May be NULL. */
    void (*save)(const void *ctx, struct snap_writer *w);
    void (*load)(void *ctx, struct snap_reader *r);
};

struct virtio_queue {
    uint16_t max;  /* entries that are offered; 0: there is no such queue */
    uint16_t size; /* entries that the driver uses: a power of two */
    bool enabled;
    uint16_t vector;               /* MSI-X message, or VIRTIO_NO_VECTOR */
    uint64_t desc, driver, device; /* gpa of descriptors, available ring, used ring */
    uint16_t next_avail;           /* entries taken */
    uint16_t next_used;            /* entries given back; the guest sees them after virtio_queue_flush() */
    uint16_t signalled;            /* next_used when the driver was last interrupted */
};

struct virtio_segment {
    gpa_t gpa;
    uint32_t len;
};

/* A chain of descriptors: `out` segments that the device reads, then `in` ones that it writes. */
struct virtio_request {
    uint16_t head;
    unsigned out, in;
    uint64_t out_bytes, in_bytes;
    struct virtio_segment segment[2 * VIRTIO_QUEUE_SIZE]; /* a chain, and an indirect table at its end */
};

struct virtio_config {
    struct guest_memory memory;
    struct vclock *clock;
    const struct log *log;
};

struct virtio {
    struct virtio_config cfg;
    const struct virtio_class *cls;
    void *ctx;        /* of the class */
    uint64_t offered; /* features */
    uint64_t driver;  /* features that the driver took */
    uint8_t status, isr;
    uint8_t generation; /* of the device configuration */
    uint16_t config_vector;
    uint32_t kicked; /* queues to be served when the timer fires */
    struct timer timer;
    unsigned budget; /* chains that may still be taken in this round; not state */
    struct virtio_queue queue[VIRTIO_QUEUES];
    /* The transport's: raises the interrupt for `isr`, as message `vector` where messages are on; isr 0: the level may
     * have gone. */
    void (*interrupt)(void *transport, uint16_t vector, uint8_t isr);
    void *transport;
    struct virtio_request request; /* that virtio_queue_pop() filled last; not state */
};

/* ---- for kinds of devices ---- */

/* A device of that class with queues of the sizes given (powers of two; 0 ends the list); `features`: its own. Must not
 * move afterwards. */
void virtio_init(struct virtio *v, const struct virtio_class *cls, void *ctx, const struct virtio_config *cfg,
                 uint64_t features, const uint16_t *sizes, unsigned queues);
static inline bool virtio_has(const struct virtio *v, uint64_t feature)
{
    return (v->driver & feature) != 0;
}
/* The next chain that the driver offers, or NULL: there is none, or the queue cannot be used, or this round of service
 * took so many that the rest has to wait for the next (a guest whose buffers lie in its rings could feed it for ever).
 * Good until the next call for the same device. */
struct virtio_request *virtio_queue_pop(struct virtio *v, unsigned queue);
/* Is there one? */
bool virtio_queue_has_more(struct virtio *v, unsigned queue);
/* Takes back the last pop: the same chain comes again. */
void virtio_queue_unpop(struct virtio *v, unsigned queue);
/* The same, and it comes at once: the next round of service is at this same virtual time. */
void virtio_queue_retry(struct virtio *v, unsigned queue);
/* Gives the chain back; the device wrote `written` bytes of its segments. */
void virtio_queue_push(struct virtio *v, unsigned queue, uint16_t head, uint32_t written);
/* Shows the driver what was pushed, and interrupts it if it wants to know. */
void virtio_queue_flush(struct virtio *v, unsigned queue);
/* Copies `len` bytes from `offset` of what the device may read (write) on. False if not all of it is there, or not in
 * memory (that is a failure of the device, then). */
bool virtio_read(struct virtio *v, const struct virtio_request *r, uint64_t offset, void *buf, size_t len);
bool virtio_write(struct virtio *v, const struct virtio_request *r, uint64_t offset, const void *buf, size_t len);
/* Serves queue n after the latency, as a notification would. */
void virtio_kick(struct virtio *v, unsigned queue);
/* The device configuration changed. */
void virtio_config_changed(struct virtio *v);
/* The driver broke the rules: see above. */
void virtio_fail(struct virtio *v, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* May the device use its queues now? */
bool virtio_is_live(const struct virtio *v);

/* ---- for transports ---- */

void virtio_reset(struct virtio *v);
/* A write of the status register: 0 resets. */
void virtio_set_status(struct virtio *v, uint8_t status);
void virtio_set_features(struct virtio *v, uint64_t features);
/* The legacy layout: descriptors at gpa, the rings behind them. gpa 0: the queue is off. */
void virtio_queue_set_legacy(struct virtio *v, unsigned queue, gpa_t gpa);
uint8_t virtio_isr_take(struct virtio *v);
/* A section named after the class and `place`. */
void virtio_save(const struct virtio *v, const char *place, struct snap_writer *w);
void virtio_load(struct virtio *v, const char *place, struct snap_reader *r);

#endif
