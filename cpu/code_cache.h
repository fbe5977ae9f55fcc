/*
 * Decoded blocks, cached by guest-physical address and mode.
 *
 * A block is a run of instructions inside one page, up to one that ends it (INSN_ENDS), the page's end or
 * BLOCK_MAX_INSNS. An instruction that crosses into the next page is a block of its own, keyed by both pages. Blocks
 * belong to the code page of their first byte; the page is tracked (TRACK_CODE), and a write that touches a decoded
 * byte of it, from whatever source, drops all of the page's blocks. Host events never drop code: only changed guest
 * content does.
 *
 * Chains (block.next) exist only between blocks of one page and one mode, so they die together with both ends, and are
 * valid as long as the page's fetch translation is (mmu_vcpu.fetch_epoch). Blocks that cross a page are never chained
 * to.
 *
 * A dropped block may still be running: it is freed by code_cache_collect(), which the run loop calls between blocks.
 */
#ifndef CPU_CODE_CACHE_H
#define CPU_CODE_CACHE_H

#include "cpu/cpu.h"

#define BLOCK_MAX_INSNS 48
#define BLOCK_NO_PAGE   UINT64_MAX

struct block {
    gpa_t gpa;                  /* of the first byte */
    gpa_t page2;                /* gpa of the second page, or BLOCK_NO_PAGE */
    uint32_t mode;              /* enum cpu_mode_bits | as << 16 */
    uint16_t n;                 /* instructions */
    uint16_t bytes;             /* from the first byte to the end of the last instruction */
    uint32_t heat;              /* runs since it was decoded, until it is compiled */
    uint32_t native_generation; /* of `native` */
    const void *native;         /* the JIT's: compiled code, or NULL */
    struct block *next[2];      /* chained successors: fall through, taken; NULL if not known yet */
    struct block *hash_next;    /* bucket */
    struct block *page_next;    /* of its code page, or of the graveyard */
    struct block *cross_next;   /* of the blocks that reach into the same second page */
    struct insn insn[];         /* n of them, then a sentinel whose handler leaves the block */
};

/* The sentinel's handler: leaves the block after the instructions before it. */
void op_block_end(struct vcpu *v, const struct insn *i);

/* The block at `gpa` (and page2) for mode, or NULL. */
struct block *code_cache_find(const struct code_cache *c, gpa_t gpa, gpa_t page2, uint32_t mode);
/* The block that starts at `gpa`, whatever its second page: if it has one, the caller must translate that and use
 * code_cache_find(). */
struct block *code_cache_find_any(const struct code_cache *c, gpa_t gpa, uint32_t mode);
/* A number that advances whenever blocks were dropped: validity of block pointers kept elsewhere. */
const uint64_t *code_cache_generation(const struct code_cache *c);
/* Which forms are offered (struct cpu_model.gates); any other is #UD. All, until this is called. */
void code_cache_set_gates(struct code_cache *c, uint64_t gates);
/* Decodes and inserts. `bytes` are the page's from gpa on (avail up to the page's end); for a crossing instruction
 * `bytes2` is the second page's beginning, else NULL. Returns NULL if the first instruction needs the second page and
 * it was not given. */
struct block *code_cache_make(struct code_cache *c, gpa_t gpa, uint32_t mode, const uint8_t *bytes, size_t avail,
                              gpa_t page2, const uint8_t *bytes2);
/* A block outside the cache of the single instruction in `bytes` (code in device memory); free with block_free(). NULL:
 * needs more. */
struct block *block_decode_single(const struct code_cache *c, const uint8_t *bytes, size_t avail, uint32_t mode);
void block_free(struct block *b);
/* Frees dropped blocks; no block may be running. */
void code_cache_collect(struct code_cache *c);

#endif
