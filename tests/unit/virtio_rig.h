/*
 * A virtio driver for tests: flat guest memory, a PCI bus with one function, rings that a test fills as it likes.
 */
#ifndef TESTS_UNIT_VIRTIO_RIG_H
#define TESTS_UNIT_VIRTIO_RIG_H

#include "devices_rig.h"

#include "devices/virtio/virtio_pci.h"

#define VRIG_MEMORY 0x100000
#define VRIG_DEVFN  0x18
#define VRIG_BAR    0xe0000000ull /* BAR 4 */
#define VRIG_PORT   0xc000        /* BAR 0 */
#define VRIG_COMMON (VRIG_BAR + 0x0000)
#define VRIG_ISR    (VRIG_BAR + 0x1000)
#define VRIG_CONFIG (VRIG_BAR + 0x2000)
#define VRIG_NOTIFY (VRIG_BAR + 0x3000)

/* Where the rings of queue n are. */
#define VRIG_DESC(n)  (0x10000u + (n)*0x4000u)
#define VRIG_AVAIL(n) (VRIG_DESC(n) + 0x2000u)
#define VRIG_USED(n)  (VRIG_DESC(n) + 0x3000u)

struct vrig {
    struct vclock clock;
    struct bus io, mmio;
    struct pci_bus pci;
    struct virtio_pci *function;
    struct wire wires[4];
    uint8_t memory[VRIG_MEMORY];
    unsigned messages;
    uint32_t last_message;
    uint16_t avail[VIRTIO_QUEUES];
};

static inline enum mem_result vrig_access(void *ctx, unsigned as, gpa_t gpa, void *buf, size_t len, enum mem_kind kind,
                                          bool write)
{
    struct vrig *g = ctx;
    if (gpa >= VRIG_MEMORY || len > VRIG_MEMORY - gpa)
        return MEM_DEVICE;
    ck_assert_int_eq(kind, MEM_DMA);
    if (write)
        memcpy(g->memory + gpa, buf, len);
    else
        memcpy(buf, g->memory + gpa, len);
    return MEM_OK;
}

static inline void vrig_msi(void *ctx, uint64_t address, uint32_t data)
{
    struct vrig *g = ctx;
    g->messages++;
    g->last_message = data;
}

static inline struct virtio_config vrig_init(struct vrig *g)
{
    struct irq_line lines[4];
    memset(g, 0, sizeof *g);
    clock_init(&g->clock);
    bus_init(&g->io, "port", 0x10000, NULL);
    bus_init(&g->mmio, "mmio", 0, NULL);
    for (unsigned i = 0; i < 4; i++)
        lines[i] = wire_line(g->wires, i);
    pci_bus_init(&g->pci, &g->io, &g->mmio, lines, NULL);
    pci_bus_set_msi(&g->pci, vrig_msi, g);
    return (struct virtio_config){.memory = {.ctx = g, .access = vrig_access}, .clock = &g->clock};
}

static inline void vrig_attach(struct vrig *g, struct virtio_pci *function)
{
    g->function = function;
    ck_assert(pci_bus_attach(&g->pci, VRIG_DEVFN, &function->pci));
    pci_bus_config_write(&g->pci, VRIG_DEVFN, PCI_BAR0, 4, VRIG_PORT);
    pci_bus_config_write(&g->pci, VRIG_DEVFN, PCI_BAR0 + 16, 4, VRIG_BAR);
    pci_bus_config_write(&g->pci, VRIG_DEVFN, PCI_COMMAND, 2, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

static inline void vrig_fini(struct vrig *g)
{
    pci_bus_detach(&g->function->pci);
    bus_fini(&g->io);
    bus_fini(&g->mmio);
}

static inline uint64_t vrig_rd(struct vrig *g, uint64_t at, unsigned size)
{
    return bus_read(&g->mmio, at, size, 0);
}

static inline void vrig_wr(struct vrig *g, uint64_t at, unsigned size, uint64_t v)
{
    bus_write(&g->mmio, at, size, v, 0);
}

static inline void vrig_put(struct vrig *g, uint64_t at, unsigned size, uint64_t v)
{
    for (unsigned i = 0; i < size; i++)
        g->memory[at + i] = (uint8_t)(v >> (8 * i));
}

static inline uint64_t vrig_get(const struct vrig *g, uint64_t at, unsigned size)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < size; i++)
        v |= (uint64_t)g->memory[at + i] << (8 * i);
    return v;
}

static inline uint8_t vrig_status(struct vrig *g)
{
    return (uint8_t)vrig_rd(g, VRIG_COMMON + 20, 1);
}

static inline void vrig_set_queue(struct vrig *g, unsigned n, unsigned size)
{
    vrig_wr(g, VRIG_COMMON + 22, 2, n);
    vrig_wr(g, VRIG_COMMON + 24, 2, size);
    vrig_wr(g, VRIG_COMMON + 32, 4, VRIG_DESC(n));
    vrig_wr(g, VRIG_COMMON + 36, 4, 0);
    vrig_wr(g, VRIG_COMMON + 40, 8, VRIG_AVAIL(n));
    vrig_wr(g, VRIG_COMMON + 48, 8, VRIG_USED(n));
    vrig_wr(g, VRIG_COMMON + 28, 2, 1);
    g->avail[n] = 0;
}

/* Resets the device and drives it up to DRIVER_OK with these features and `queues` queues of 8 entries. */
static inline void vrig_start(struct vrig *g, uint64_t features, unsigned queues)
{
    memset(g->memory + VRIG_DESC(0), 0, 0x20000);
    vrig_wr(g, VRIG_COMMON + 20, 1, 0);
    vrig_wr(g, VRIG_COMMON + 20, 1, 1);
    vrig_wr(g, VRIG_COMMON + 20, 1, 3);
    for (unsigned i = 0; i < 2; i++) {
        vrig_wr(g, VRIG_COMMON + 8, 4, i);
        vrig_wr(g, VRIG_COMMON + 12, 4, features >> (32 * i));
    }
    vrig_wr(g, VRIG_COMMON + 20, 1, 11);
    for (unsigned n = 0; n < queues; n++)
        vrig_set_queue(g, n, 8);
    vrig_wr(g, VRIG_COMMON + 20, 1, 15);
}

#define VRIG_NEXT     1
#define VRIG_WRITE    2
#define VRIG_INDIRECT 4

static inline void vrig_desc_at(struct vrig *g, uint64_t table, unsigned i, uint64_t gpa, uint32_t len, unsigned flags,
                                unsigned next)
{
    vrig_put(g, table + 16ull * i, 8, gpa);
    vrig_put(g, table + 16ull * i + 8, 4, len);
    vrig_put(g, table + 16ull * i + 12, 2, flags);
    vrig_put(g, table + 16ull * i + 14, 2, next);
}

static inline void vrig_desc(struct vrig *g, unsigned q, unsigned i, uint64_t gpa, uint32_t len, unsigned flags,
                             unsigned next)
{
    vrig_desc_at(g, VRIG_DESC(q), i, gpa, len, flags, next);
}

/* Makes a chain available, without a notification. */
static inline void vrig_offer(struct vrig *g, unsigned q, unsigned head)
{
    vrig_put(g, VRIG_AVAIL(q) + 4 + 2 * (g->avail[q] & 7), 2, head);
    vrig_put(g, VRIG_AVAIL(q) + 2, 2, ++g->avail[q]);
}

static inline void vrig_notify(struct vrig *g, unsigned q)
{
    vrig_wr(g, VRIG_NOTIFY + 4 * q, 2, q);
}

static inline unsigned vrig_used(const struct vrig *g, unsigned q)
{
    return (unsigned)vrig_get(g, VRIG_USED(q) + 2, 2);
}

static inline uint32_t vrig_used_len(const struct vrig *g, unsigned q, unsigned i)
{
    return (uint32_t)vrig_get(g, VRIG_USED(q) + 4 + 8 * (i & 7) + 4, 4);
}

#endif
