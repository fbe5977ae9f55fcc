/*
 * The code fuzzer's parts: scenes (memory, descriptor tables, page tables, registers) and instruction bytes.
 *
 * Everything is made for several machines at once, one for each MMU and two with the JIT, which must stay equal.
 */
#ifndef TESTS_FUZZ_FUZZ_CODE_H
#define TESTS_FUZZ_FUZZ_CODE_H

#include "fuzz.h"

/* Guest-physical places of a scene, all below 16 MiB. */
#define SCENE_GDT      0x1000u
#define SCENE_LDT      0x1800u
#define SCENE_IDT      0x2000u
#define SCENE_TSS64    0x3000u
#define SCENE_TSS32    0x3800u /* the I/O bitmap reaches into the next page */
#define SCENE_TSS16    0x3400u
#define SCENE_STACKS   0x6000u /* to 0x10000 */
#define SCENE_CODE     0x10000u
#define SCENE_CODE_END 0x20000u
#define SCENE_DATA     0x20000u
#define SCENE_DATA_END 0x30000u
#define SCENE_TABLES   0x30000u /* page tables, to 0x50000 */

/* Selectors of the scene's GDT. */
enum scene_selector {
    SEL_CODE64 = 0x08,
    SEL_DATA = 0x10,
    SEL_USER_CODE32 = 0x18,
    SEL_USER_DATA = 0x20,
    SEL_USER_CODE64 = 0x28,
    SEL_CODE32 = 0x30,
    SEL_CODE16 = 0x38,
    SEL_DATA16 = 0x40,
    SEL_TSS64 = 0x48,
    SEL_TSS32 = 0x58,
    SEL_LDT = 0x60,
    SEL_RANDOM = 0x70 /* and up: gates, odd segments, noise; the GDT has 64 entries */
};

enum scene_mode {
    SCENE_REAL,
    SCENE_V86,
    SCENE_PROT16,
    SCENE_PROT32,
    SCENE_PROT32_PAGED,
    SCENE_PROT32_PAE,
    SCENE_COMPAT,
    SCENE_LONG,
    SCENE_MODES
};

#define MACHINES 5

struct world {
    struct fuzz *f;
    struct rng *rng;
    struct machine *m[MACHINES];
    enum scene_mode mode;
    bool user;
    unsigned decode_mode; /* enum cpu_mode_bits of the scene, for the generator */
};

/* Writes guest memory of all machines. */
void world_poke(struct world *w, uint64_t gpa, const void *bytes, size_t len);
/* A whole new scene: mode, memory, tables, registers. */
void scene_build(struct world *w);
/* New code and general registers, the rest goes on as it is. */
void scene_continue(struct world *w);
const char *scene_mode_name(enum scene_mode mode);

/* An address that is interesting in the scene; a number that might be one. */
uint64_t scene_address(struct world *w);
uint64_t scene_value(struct world *w);

/* Fills out[0..len) with instructions, templates and noise. */
void gen_code(struct world *w, uint8_t *out, size_t len);

#endif
