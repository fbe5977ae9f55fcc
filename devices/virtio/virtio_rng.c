#include "devices/virtio/virtio_rng.h"

#include "core/snapshot.h"

#define CHUNK       256
#define REQUEST_MAX 65536u /* bytes of one request that are filled; the driver asks again */

/* SplitMix64: a counter, stirred. */
static uint64_t next_word(struct virtio_rng *g)
{
    uint64_t z = g->seed + ++g->counter * 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

static uint32_t fill(struct virtio_rng *g, const struct virtio_request *r)
{
    uint32_t want = r->in_bytes < REQUEST_MAX ? (uint32_t)r->in_bytes : REQUEST_MAX, done = 0;
    while (done < want) {
        uint8_t bytes[CHUNK];
        uint32_t part = want - done < CHUNK ? want - done : CHUNK;
        for (unsigned i = 0; i < CHUNK; i += 8) {
            uint64_t word = next_word(g);
            for (unsigned k = 0; k < 8; k++)
                bytes[i + k] = (uint8_t)(word >> (8 * k));
        }
        if (!virtio_write(&g->virtio, r, done, bytes, part))
            break;
        done += part;
    }
    return done;
}

static void process(void *ctx, uint32_t queues)
{
    struct virtio_rng *g = ctx;
    for (struct virtio_request *r; (r = virtio_queue_pop(&g->virtio, 0));)
        virtio_queue_push(&g->virtio, 0, r->head, fill(g, r));
    virtio_queue_flush(&g->virtio, 0);
}

static void save(const void *ctx, struct snap_writer *w)
{
    const struct virtio_rng *g = ctx;
    snap_put_u64(w, g->seed);
    snap_put_u64(w, g->counter);
}

static void load(void *ctx, struct snap_reader *r)
{
    struct virtio_rng *g = ctx;
    g->seed = snap_get_u64(r);
    g->counter = snap_get_u64(r);
}

static const struct virtio_class rng_class = {
    .name = "virtio-rng", .type = 4, .pci_class = 0x00ff00, .process = process, .save = save, .load = load};

void virtio_rng_init(struct virtio_rng *g, const struct virtio_config *cfg, uint64_t seed, bool modern_only)
{
    static const uint16_t sizes[] = {8};
    g->seed = seed;
    g->counter = 0;
    virtio_init(&g->virtio, &rng_class, g, cfg, 0, sizes, ARRAY_LEN(sizes));
    virtio_pci_init(&g->pci, &g->virtio, modern_only);
}
