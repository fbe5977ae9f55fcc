/*
 * Hostile drivers of the AHCI controller: command lists, tables and frames that are nearly right.
 */
#include "fuzz_cards.h"

#include "core/bytes.h"

#define BAR         5
#define TABLES      0x1000u /* behind a port's command list and received frames */
#define TABLE_BYTES 0x180u
#define REGIONS     16

#define GHC     0x04
#define GHC_ON  0x80000002u /* AHCI, interrupts */
#define PX(p)   (0x100u + 0x80u * (p))
#define PX_CLB  0x00
#define PX_FB   0x08
#define PX_IS   0x10
#define PX_IE   0x14
#define PX_CMD  0x18
#define PX_SCTL 0x2c
#define PX_SERR 0x30
#define PX_SACT 0x34
#define PX_CI   0x38

#define CMD_POWER 0x06u
#define CMD_FRE   0x10u
#define CMD_CLO   0x08u
#define CMD_ST    0x01u
#define CMD_CR    0x8000u

#define HEADER_WRITE 0x40u
#define HEADER_ATAPI 0x20u
#define PACKET       0xa0

/* The value, or now and then another. */
static uint64_t maybe(struct bench *b, uint64_t v)
{
    return rng_one_in(b->rng, 24) ? rng_number(b->rng) : v;
}

static void write_port(struct bench *b, unsigned port, unsigned reg, uint32_t v)
{
    cards_write_mmio(b, cards_bar(b, CARD_AHCI, BAR) + PX(port) + reg, 4, v);
}

static uint32_t read_port(struct bench *b, unsigned port, unsigned reg)
{
    return (uint32_t)bus_read(&b->m[0]->mmio, cards_bar(b, CARD_AHCI, BAR) + PX(port) + reg, 4, 0);
}

static void start_port(struct bench *b, unsigned port)
{
    uint64_t list = cards_ring(CARD_AHCI, port);
    cards_write_mmio(b, cards_bar(b, CARD_AHCI, BAR) + GHC, 4, maybe(b, GHC_ON));
    write_port(b, port, PX_CMD, CMD_POWER);
    if (rng_one_in(b->rng, 4))
        write_port(b, port, PX_SCTL, rng_one_in(b->rng, 2) ? 0x301 : 0x300);
    write_port(b, port, PX_SERR, 0xffffffff);
    write_port(b, port, PX_IS, 0xffffffff);
    write_port(b, port, PX_IE, (uint32_t)maybe(b, 0xffffffff));
    write_port(b, port, PX_CLB, (uint32_t)maybe(b, list));
    write_port(b, port, PX_CLB + 4, rng_one_in(b->rng, 40) ? 1 : 0);
    write_port(b, port, PX_FB, (uint32_t)maybe(b, list + 0x800));
    write_port(b, port, PX_FB + 4, 0);
    write_port(b, port, PX_CMD, CMD_POWER | CMD_FRE | CMD_CLO);
    write_port(b, port, PX_CMD, CMD_POWER | CMD_FRE | CMD_ST);
}

static bool is_queued(uint8_t command)
{
    return command == 0x60 || command == 0x61;
}

/* A register frame for the drive: near the disk's beginning, or anywhere. */
static void put_frame(struct bench *b, uint64_t table, unsigned slot, uint8_t command)
{
    uint8_t fis[64] = {0x27, 0x80, command};
    unsigned count = (unsigned)rng_below(b->rng, 20);
    fis[3] = is_queued(command) ? (uint8_t)count : (uint8_t)rng_below(b->rng, 4);
    fis[4] = (uint8_t)rng_below(b->rng, 80);
    fis[7] = 0x40;
    fis[12] = is_queued(command) ? (uint8_t)(slot << 3) : (uint8_t)count;
    if (command == 0x2f) {
        fis[4] = rng_one_in(b->rng, 2) ? 0x10 : 0;
        fis[12] = 1;
    }
    for (uint64_t n = rng_one_in(b->rng, 8) ? rng_below(b->rng, 4) : 0; n; n--)
        fis[rng_below(b->rng, 20)] = (uint8_t)rng_below(b->rng, 256);
    cards_poke(b, table, fis, sizeof fis);
}

static void put_packet(struct bench *b, uint64_t table)
{
    static const uint8_t opcodes[] = {0x00, 0x03, 0x12, 0x1a, 0x1b, 0x1e, 0x25, 0x28, 0x42,
                                      0x43, 0x46, 0x4a, 0x51, 0x5a, 0xa8, 0xbb, 0xbd, 0xbe};
    uint8_t p[16] = {RNG_PICK(b->rng, opcodes)};
    p[4] = p[8] = (uint8_t)rng_below(b->rng, 64);
    p[5] = (uint8_t)rng_below(b->rng, 20);
    if (rng_one_in(b->rng, 4))
        p[rng_below(b->rng, 12)] = (uint8_t)rng_below(b->rng, 256);
    cards_poke(b, table + 0x40, p, sizeof p);
}

static unsigned put_regions(struct bench *b, uint64_t table)
{
    unsigned n = (unsigned)rng_below(b->rng, REGIONS + 1);
    for (unsigned k = 0; k < n; k++) {
        uint64_t at = table + 0x80 + 16 * k;
        uint32_t len = rng_one_in(b->rng, 8) ? cards_any_length(b) : 512u << rng_below(b->rng, 4);
        cards_poke_le(b, at, 8, rng_one_in(b->rng, 8) ? cards_any_address(b, CARD_AHCI) : BUFFERS + 0x1000 * k);
        cards_poke_le(b, at + 12, 4, ((len - 1) & 0x3fffff) | (rng_one_in(b->rng, 4) ? 0x80000000u : 0));
    }
    return rng_one_in(b->rng, 30) ? (unsigned)rng_below(b->rng, 0x10000) : n;
}

/* A slot's header, table, frame and regions. True: the command is a queued one. */
static bool put_command(struct bench *b, unsigned port, unsigned slot)
{
    static const uint8_t disk[] = {0x20, 0x25, 0x29, 0x30, 0x34, 0x35, 0x39, 0xc8, 0xca, 0x3d, 0xce, 0x06, 0x60, 0x60,
                                   0x61, 0x61, 0x2f, 0xec, 0xef, 0xe7, 0xea, 0x40, 0xf8, 0x90, 0xc6, 0xa1, 0xe0};
    static const uint8_t cd[] = {PACKET, PACKET, PACKET, 0xa1, 0xec, 0xef, 0x08, 0x2f};
    uint64_t list = cards_ring(CARD_AHCI, port), table = list + TABLES + TABLE_BYTES * slot;
    uint8_t command = port == 1 ? RNG_PICK(b->rng, cd) : RNG_PICK(b->rng, disk);
    bool write = command == 0x30 || command == 0x34 || command == 0x35 || command == 0xca || command == 0x61;
    uint32_t flags = 5 | (write ? HEADER_WRITE : 0) | (command == PACKET ? HEADER_ATAPI : 0);
    put_frame(b, table, slot, command);
    put_packet(b, table);
    flags = (uint32_t)maybe(b, flags) & 0xffff;
    cards_poke_le(b, list + 32 * slot, 4, flags | put_regions(b, table) << 16);
    cards_poke_le(b, list + 32 * slot + 4, 4, 0);
    cards_poke_le(b, list + 32 * slot + 8, 8, maybe(b, table));
    return is_queued(command);
}

void cards_drive_ahci(struct bench *b)
{
    unsigned port = (unsigned)(rng_one_in(b->rng, 12) ? rng_below(b->rng, 7) : rng_below(b->rng, 2));
    uint32_t slots = 0, queued = 0;
    if (port > 2) {
        write_port(b, port, (unsigned)rng_below(b->rng, 32) * 4, (uint32_t)rng_number(b->rng));
        return;
    }
    if (!(read_port(b, port, PX_CMD) & CMD_CR) || rng_one_in(b->rng, 4))
        start_port(b, port);
    for (uint64_t n = 1 + rng_below(b->rng, 4); n; n--) {
        unsigned slot = (unsigned)rng_below(b->rng, 32);
        slots |= 1u << slot;
        if (put_command(b, port, slot))
            queued |= 1u << slot;
    }
    if (queued && !rng_one_in(b->rng, 6)) /* of one kind, as drivers do */
        slots = queued;
    write_port(b, port, PX_SACT, (uint32_t)maybe(b, queued));
    write_port(b, port, PX_CI, (uint32_t)maybe(b, slots));
    if (rng_one_in(b->rng, 3))
        write_port(b, port, PX_IS, 0xffffffff);
}
