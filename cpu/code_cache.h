/*
 * Decoded blocks, cached by guest-physical address and mode.
 *
 * A block is a run of instructions inside one page, up to one that ends it (INSN_ENDS), the page's end or
 * BLOCK_MAX_INSNS. An instruction that crosses into the next page is a block of its own, keyed by both pages. Blocks
 * belong to the code page of their first byte; the page is tracked (TRACK_CODE). A write, from whatever source, that
 * changes bytes of a block drops it, unless the instructions can be put right in place (code_patch.c); other blocks
 * stay. A page that is written all over is not tracked until code of it is wanted again (code_page.c). Host events
 * never drop code: only changed guest content does.
 *
 * Chains (block.next) exist only between blocks of one page and one mode, and are valid as long as the page's fetch
 * translation is (mmu_vcpu.fetch_epoch); those to a block that is dropped are undone. Blocks that cross a page are
 * never chained to.
 *
 * Compiled code is made of regions: a region's blocks lie in one page, and when one of them is dropped all of them lose
 * the code, and direct ways into it from other regions of the page are undone.
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
    uint32_t ran;               /* runs that heat does not count any more: before it was compiled, or since then */
    uint32_t profile;           /* the JIT's: what `native` counts, 0: nothing, it was compiled for good */
    uint32_t native_generation; /* of `native` */
    const void *native;         /* the JIT's: compiled code, or NULL */
    uint32_t regions;           /* of its page, whose compiled code is made of it too: bits */
    uint8_t idle;               /* how often it was patched without having been run in between, as far as is known */
    uint32_t heat_patched;      /* heat at the last patch */
    uint8_t cool;               /* so many powers of two more runs are wanted before it is compiled */
    bool dead;                  /* dropped */
    bool noted_often;           /* there are more entries than noted[] says */
    uint64_t *noted[2];         /* block_note() */
    uint8_t *code;              /* its bytes, behind insn[] */
    struct block *next[2];      /* chained successors: fall through, taken; NULL if not known yet */
    struct block *hash_next;    /* bucket */
    struct block *page_next;    /* of its code page, or of the graveyard */
    struct block *cross_next;   /* of the blocks that reach into the same second page */
    struct insn insn[];         /* n of them, then a sentinel whose handler leaves the block */
};

/* A way of compiled code to another block of its page: a slot that begins with this. */
struct block_link {
    const void *code;        /* where it leads: the block's compiled code, or `out` */
    const void *out;         /* leaves compiled code */
    struct block_link *next; /* of the page */
    bool listed;
};

/* Tables that lead from rip to a block: the run loop's, and the JIT's to its compiled code. */
enum block_table { BLOCK_TABLE_RUN, BLOCK_TABLE_NATIVE };

/* An entry leads to b now; `field` is what makes it valid. If b, or its compiled code, is dropped it becomes one that
 * no look-up wants: all ones (RUN), 0 (NATIVE). Of a block with several entries in a table the first alone is known:
 * the generation advances instead. The entry outlives the code cache's use. */
static inline void block_note(struct block *b, enum block_table table, uint64_t *field)
{
    b->noted_often |= b->noted[table] && b->noted[table] != field;
    b->noted[table] = field;
}

/* The sentinel's handler: leaves the block after the instructions before it. */
void op_block_end(struct vcpu *v, const struct insn *i);

/* The block at `gpa` (and page2) for mode, or NULL. */
struct block *code_cache_find(const struct code_cache *c, gpa_t gpa, gpa_t page2, uint32_t mode);
/* The block that starts at `gpa`, whatever its second page: if it has one, the caller must translate that and use
 * code_cache_find(). */
struct block *code_cache_find_any(const struct code_cache *c, gpa_t gpa, uint32_t mode);
/* A number that advances whenever blocks were dropped of which not every entry in a table is known (block_note()):
 * validity of block pointers kept elsewhere. */
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
/* A free region of the block's page, as a bit; one that others share if there are none. The JIT sets it in all blocks
 * that it compiles together. */
uint32_t code_cache_region(struct code_cache *c, const struct block *b);
/* l leads to compiled code of b from now on, until a region of the page is lost. Borrowed until then, or until
 * code_cache_forget_links(). */
void code_cache_link(struct code_cache *c, const struct block *b, struct block_link *l);
void code_cache_forget_links(struct code_cache *c);
/* b has new compiled code: who led to `old` is led to b->native, or does not know. */
void code_cache_renew(struct code_cache *c, struct block *b, const void *old);
/* A copy of a block's instructions is (not) about to run, which a patch of the block does not reach. */
void code_cache_run_copy(struct code_cache *c, bool running);
/* Frees dropped blocks; no block may be running. */
void code_cache_collect(struct code_cache *c);

#endif
