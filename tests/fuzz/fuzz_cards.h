/*
 * The parts of the fuzzer of PCI cards: machines that all have the same done to them, and their rings.
 */
#ifndef TESTS_FUZZ_FUZZ_CARDS_H
#define TESTS_FUZZ_FUZZ_CARDS_H

#include "fuzz.h"

#define RAM_MIB  4
#define MACHINES 2
#define RINGS    0x200000u /* of card c, queue q: + c * 0x10000 + q * 0x4000 */
#define BUFFERS  0x300000u
#define DISKS    3 /* virtio, SATA disk, SATA CD: one image */

enum { CARD_BLK, CARD_NET, CARD_RNG, CARD_E1000, CARD_CONSOLE, CARD_AHCI, CARDS };

struct bench {
    struct fuzz *f;
    struct rng *rng;
    struct machine *m[MACHINES];
    unsigned count;
    struct mem_file disk;
};

/* Into the memory, and to the registers, of each machine. */
void cards_poke(struct bench *b, uint64_t gpa, const void *bytes, size_t len);
void cards_poke_le(struct bench *b, uint64_t gpa, unsigned size, uint64_t v);
void cards_write_mmio(struct bench *b, uint64_t at, unsigned size, uint64_t v);
/* Where BAR n of the card is mapped, or an address that nobody has. */
uint64_t cards_bar(struct bench *b, unsigned card, unsigned n);
uint64_t cards_ring(unsigned card, unsigned queue);
uint64_t cards_any_address(struct bench *b, unsigned card);
uint32_t cards_any_length(struct bench *b);

void cards_drive_ahci(struct bench *b); /* fuzz_cards_ahci.c */

#endif
