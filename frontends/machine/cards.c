#include "frontends/machine/cards.h"

#include "core/snapshot.h"
#include "devices/ahci/ahci.h"
#include "devices/net/e1000.h"
#include "devices/virtio/virtio_blk.h"
#include "devices/virtio/virtio_console.h"
#include "devices/virtio/virtio_net.h"
#include "devices/virtio/virtio_rng.h"

#include <stdlib.h>
#include <string.h>

#define SLOTS        32
#define FIRST_SERIAL 4 /* number of the first drive behind the IDE drives */

_Static_assert(DRIVE_SATA_PORTS == AHCI_PORTS, "places of drives are ports");

/* ---- what each kind of card is made of ---- */

/* What making a card needs. */
struct making {
    struct cards *cards;
    const struct device_config *cfg;
    struct card *card;
    unsigned port; /* the card's number */
    struct virtio_config virtio;
    struct drive *drive;
    struct nic_wire wire;
    uint8_t mac[NIC_MAC];
};

static void *card_alloc(struct making *k, size_t size, const struct card_ops *ops)
{
    k->card->dev = calloc(1, size);
    k->card->ops = ops;
    return k->card->dev;
}

#define VIRTIO_CARD_OPS(kind, fini_fn, receive_fn)                                                                     \
    static void kind##_card_reset(void *card)                                                                          \
    {                                                                                                                  \
        virtio_pci_reset(&((struct kind *)card)->pci);                                                                 \
    }                                                                                                                  \
    static void kind##_card_save(const void *card, struct snap_writer *w)                                              \
    {                                                                                                                  \
        virtio_pci_save(&((const struct kind *)card)->pci, w);                                                         \
    }                                                                                                                  \
    static void kind##_card_load(void *card, struct snap_reader *r)                                                    \
    {                                                                                                                  \
        virtio_pci_load(&((struct kind *)card)->pci, r);                                                               \
    }                                                                                                                  \
    static const struct card_ops kind##_card_ops = {kind##_card_reset, kind##_card_save, kind##_card_load, fini_fn,    \
                                                    receive_fn}

static void blk_fini(void *card)
{
    virtio_blk_fini(card);
}

static void net_fini(void *card)
{
    virtio_net_fini(card);
}

static void net_receive(void *card, const uint8_t *frame, size_t len)
{
    virtio_net_receive(card, frame, len);
}

static void console_receive(void *card, const uint8_t *bytes, size_t len)
{
    virtio_console_receive(card, bytes, len);
}

VIRTIO_CARD_OPS(virtio_console, NULL, console_receive);
VIRTIO_CARD_OPS(virtio_blk, blk_fini, NULL);
VIRTIO_CARD_OPS(virtio_net, net_fini, net_receive);
VIRTIO_CARD_OPS(virtio_rng, NULL, NULL);

static bool make_blk(struct making *k)
{
    struct virtio_blk *b = card_alloc(k, sizeof *b, &virtio_blk_card_ops);
    if (!b)
        return false;
    const char *serial = k->cfg->serial ? k->cfg->serial : k->drive->cfg.serial;
    virtio_blk_init(b, &k->virtio, k->drive->block, serial, k->cfg->modern_only);
    k->card->pci = &b->pci.pci;
    return true;
}

static bool make_net(struct making *k)
{
    struct virtio_net *n = card_alloc(k, sizeof *n, &virtio_net_card_ops);
    if (!n)
        return false;
    virtio_net_init(n, &k->virtio, &k->wire, k->mac, k->cfg->modern_only);
    k->card->pci = &n->pci.pci;
    return true;
}

static bool make_rng(struct making *k)
{
    struct virtio_rng *g = card_alloc(k, sizeof *g, &virtio_rng_card_ops);
    if (!g)
        return false;
    virtio_rng_init(g, &k->virtio, k->cards->cfg.seed + k->port, k->cfg->modern_only);
    k->card->pci = &g->pci.pci;
    return true;
}

static void console_tx(void *ctx, const uint8_t *bytes, size_t len)
{
    const struct card *card = ctx;
    const struct cards_config *c = &card->cards->cfg;
    if (card->chardev && c->console)
        c->console(c->console_ctx, card->chardev, bytes, len);
}

static bool make_console(struct making *k)
{
    struct virtio_console *c = card_alloc(k, sizeof *c, &virtio_console_card_ops);
    if (!c)
        return false;
    virtio_console_init(c, &k->virtio, &(struct virtio_console_sink){console_tx, k->card}, k->cfg->modern_only);
    k->card->pci = &c->pci.pci;
    return true;
}

static void e1000_card_reset(void *card)
{
    e1000_reset(card);
}

static void e1000_card_save(const void *card, struct snap_writer *w)
{
    e1000_save(card, w);
}

static void e1000_card_load(void *card, struct snap_reader *r)
{
    e1000_load(card, r);
}

static void e1000_card_fini(void *card)
{
    e1000_fini(card);
}

static void e1000_card_receive(void *card, const uint8_t *frame, size_t len)
{
    e1000_receive(card, frame, len);
}

static const struct card_ops e1000_card_ops = {e1000_card_reset, e1000_card_save, e1000_card_load, e1000_card_fini,
                                               e1000_card_receive};

static bool make_e1000(struct making *k)
{
    struct e1000 *n = card_alloc(k, sizeof *n, &e1000_card_ops);
    struct e1000_config cfg = {
        .memory = k->virtio.memory, .clock = k->virtio.clock, .log = k->virtio.log, .wire = k->wire};
    if (!n)
        return false;
    memcpy(cfg.mac, k->mac, NIC_MAC);
    e1000_init(n, &cfg);
    k->card->pci = &n->pci;
    return true;
}

static void ahci_card_reset(void *card)
{
    ahci_reset(card);
}

static void ahci_card_save(const void *card, struct snap_writer *w)
{
    ahci_save(card, w);
}

static void ahci_card_load(void *card, struct snap_reader *r)
{
    ahci_load(card, r);
}

static const struct card_ops ahci_card_ops = {ahci_card_reset, ahci_card_save, ahci_card_load, NULL, NULL};

/* Drives are numbered through all controllers, in the order of the command line. */
static bool make_ahci(struct making *k)
{
    struct ahci *a = card_alloc(k, sizeof *a, &ahci_card_ops);
    struct ahci_config cfg = {.memory = k->virtio.memory, .clock = k->virtio.clock, .log = k->virtio.log};
    if (!a)
        return false;
    for (const struct device_config *d = k->cards->cfg.device; d < k->cfg; d++)
        k->card->first_drive += d->kind == DEVICE_AHCI ? DRIVE_SATA_PORTS : 0;
    for (unsigned n = 0; n < AHCI_PORTS && k->cards->cfg.drives; n++) {
        const struct drive *d = drives_find(k->cards->cfg.drives, DRIVE_SATA, k->card->first_drive + n);
        if (d)
            cfg.drive[n] = (struct ata_drive_config){.kind = d->cfg.is_cdrom ? ATA_CDROM : ATA_DISK,
                                                     .block = d->block,
                                                     .serial = d->cfg.serial,
                                                     .number = FIRST_SERIAL + k->card->first_drive + n};
    }
    ahci_init(a, &cfg);
    k->card->pci = &a->pci;
    return true;
}

static const struct {
    const char *name;
    bool (*make)(struct making *k);
    bool wants_drive, wants_wire;
} kinds[] = {
    [DEVICE_VIRTIO_BLK] = {"virtio-blk-pci", make_blk, true, false},
    [DEVICE_VIRTIO_NET] = {"virtio-net-pci", make_net, false, true},
    [DEVICE_E1000] = {"e1000", make_e1000, false, true},
    [DEVICE_AHCI] = {"ich9-ahci", make_ahci, false, false},
    [DEVICE_VIRTIO_RNG] = {"virtio-rng-pci", make_rng, false, false},
    [DEVICE_VIRTIO_SERIAL] = {"virtio-serial-pci", make_console, false, false},
};

/* ---- what a card is connected to ---- */

static bool take_drive(struct making *k, struct error *e)
{
    const char *name = k->cfg->drive;
    if (!k->drive && !name)
        return error_set(e, "-device %s: drive=ID is missing", k->card->name);
    if (!k->drive)
        k->drive = drives_by_id(k->cards->cfg.drives, name);
    if (!k->drive || !k->drive->block)
        return error_set(e, "-device %s: there is no -drive with a medium and id=%s", k->card->name, name);
    if (k->drive->taken || (name && k->drive->cfg.interface != DRIVE_NONE))
        return error_set(e, "-device %s: drive %s belongs to another device (a drive for -device has if=none)",
                         k->card->name, name ? name : "");
    k->drive->taken = true;
    return true;
}

static bool take_wire(struct making *k, struct error *e)
{
    static const uint8_t first_mac[NIC_MAC] = {0x52, 0x54, 0x00, 0x12, 0x34, 0x56};
    const struct cards_config *c = &k->cards->cfg;
    memcpy(k->mac, k->cfg->has_mac ? k->cfg->mac : first_mac, NIC_MAC);
    if (!k->cfg->has_mac)
        k->mac[NIC_MAC - 1] = (uint8_t)(k->mac[NIC_MAC - 1] + k->port);
    if (!k->cfg->netdev || !c->connect)
        return true;
    return c->connect(c->connect_ctx, k->cfg->netdev, k->port, &k->wire) ||
           error_set(e, "-device %s: there is no free -netdev with id=%s", k->card->name, k->cfg->netdev);
}

static bool plug(struct cards *c, const struct card *card, unsigned slot, struct error *e)
{
    for (unsigned s = slot ? slot : CARDS_FIRST_SLOT; s < SLOTS; s++) {
        if (pci_bus_attach(c->cfg.bus, (uint8_t)(s << 3), card->pci))
            return true;
        if (slot)
            return error_set(e, "-device %s: slot %u is taken", card->name, slot);
    }
    return error_set(e, "-device %s: no free PCI slot", card->name);
}

static void card_fini(struct card *card)
{
    if (card->pci && card->pci->bus)
        pci_bus_detach(card->pci);
    if (card->ops && card->ops->fini && card->pci)
        card->ops->fini(card->dev);
    free(card->dev);
    *card = (struct card){0};
}

/* `drive`: of a disk that no -device names, else NULL. */
static bool add(struct cards *c, const struct device_config *cfg, struct drive *drive, struct error *e)
{
    if (c->count == CARDS_MAX)
        return error_set(e, "more than %d PCI cards", CARDS_MAX);
    struct card *card = &c->card[c->count];
    *card = (struct card){.name = kinds[cfg->kind].name,
                          .kind = cfg->kind,
                          .chardev = cfg->port,
                          .cards = c,
                          .bootindex = drive ? drive->cfg.bootindex : cfg->bootindex};
    struct making k = {.cards = c,
                       .cfg = cfg,
                       .card = card,
                       .port = c->count,
                       .virtio = {.memory = c->cfg.memory, .clock = c->cfg.clock, .log = c->cfg.log},
                       .drive = drive};
    if ((kinds[cfg->kind].wants_drive && !take_drive(&k, e)) || (kinds[cfg->kind].wants_wire && !take_wire(&k, e)))
        return false;
    if (!kinds[cfg->kind].make(&k)) {
        card_fini(card);
        return error_set(e, "out of memory");
    }
    if (!plug(c, card, cfg->slot, e)) {
        card_fini(card);
        return false;
    }
    c->count++;
    return true;
}

/* ---- life ---- */

static bool add_all(struct cards *c, struct error *e)
{
    static const struct device_config disk = {.kind = DEVICE_VIRTIO_BLK};
    /* Those with a slot of their own first, so that no other takes it. */
    for (unsigned pass = 0; pass < 2; pass++)
        for (unsigned i = 0; i < c->cfg.count; i++)
            if ((c->cfg.device[i].slot != SLOT_ANY) == (pass == 0) && !add(c, &c->cfg.device[i], NULL, e))
                return false;
    for (unsigned i = 0; i < DRIVES_MAX; i++) {
        struct drive *d = c->cfg.drives ? drives_find(c->cfg.drives, DRIVE_VIRTIO, i) : NULL;
        if (d && d->block && !add(c, &disk, d, e))
            return false;
    }
    return true;
}

bool cards_init(struct cards *c, const struct cards_config *cfg, struct error *e)
{
    *c = (struct cards){.cfg = *cfg};
    if (add_all(c, e))
        return true;
    cards_fini(c);
    return false;
}

void cards_fini(struct cards *c)
{
    while (c->count)
        card_fini(&c->card[--c->count]);
}

void cards_reset(struct cards *c)
{
    for (unsigned i = 0; i < c->count; i++)
        c->card[i].ops->reset(c->card[i].dev);
}

void cards_save(const struct cards *c, struct snap_writer *w)
{
    for (unsigned i = 0; i < c->count; i++)
        c->card[i].ops->save(c->card[i].dev, w);
}

void cards_load(struct cards *c, struct snap_reader *r)
{
    for (unsigned i = 0; i < c->count; i++)
        c->card[i].ops->load(c->card[i].dev, r);
}

void cards_receive(void *cards, const uint8_t *bytes, size_t len)
{
    struct cards *c = cards;
    if (!len || bytes[0] >= c->count || !c->card[bytes[0]].ops->receive)
        return;
    c->card[bytes[0]].ops->receive(c->card[bytes[0]].dev, bytes + 1, len - 1);
}

int cards_find_console(const struct cards *c, const char *chardev)
{
    for (unsigned i = 0; i < c->count; i++)
        if (c->card[i].chardev && !strcmp(c->card[i].chardev, chardev))
            return (int)i;
    return -1;
}

size_t cards_console_room(const struct cards *c, const char *chardev)
{
    int k = cards_find_console(c, chardev);
    return k < 0 ? 0 : virtio_console_room(c->card[k].dev);
}

uint64_t cards_digest(const struct cards *c)
{
    struct snap_writer *w = snap_writer_digest();
    if (!w)
        return 0;
    snap_begin(w, "cards", 1);
    for (unsigned i = 0; i < c->count; i++) {
        snap_put_u8(w, c->card[i].pci->devfn);
        snap_put_bytes(w, c->card[i].name, strlen(c->card[i].name));
    }
    snap_end(w);
    return snap_writer_digest_close(w);
}
