/*
 * What the files of the JIT share: the frame that compiled code works in, the records that it refers to, the
 * translator's state.
 *
 * Register convention of compiled code. Guest RAX RCX RDX RBX RBP RSI RDI R8..R12 are in the host register of the same
 * name, guest RSP in R13; guest R13..R15 are in the frame. R14 and R15 are scratch: R14 holds the address of a memory
 * operand, first the guest's, after the TLB check the host's. RSP points to the frame. Guest XMM registers are in the
 * host's of the same number while frame.vec is set, and MXCSR is the guest's then (only if it masks everything); YMM
 * registers only when it says so, else their upper halves are in the vCPU and the host's are clear. Likewise the x87
 * state while frame.x87 is set, but for the pointers to instruction and operand, which are always kept in software.
 *
 * Flags. Compiled code leaves the host's flags where the guest's instruction put them only as long as nothing else
 * needs the host's. To be exact at every place where someone can look it keeps, instead of the flags, a recipe: which
 * operation set them and where its operands still are. A recipe is evaluated in C, by the interpreter's own flag
 * functions, and only when someone looks. It is known at compile time (then a slow path's record names it) or it is
 * committed: operands and number of the recipe are stored into the frame.
 */
#ifndef CPU_JIT_INTERNAL_H
#define CPU_JIT_INTERNAL_H

#include "cpu/interp/interp.h"
#include "cpu/jit/emit.h"
#include "cpu/jit/jit.h"
#include "cpu/optable.h"

/* What of the vectors is in host registers. */
enum vec_level { VEC_NONE, VEC_XMM, VEC_YMM };

/* ---- the frame: at host RSP while compiled code runs ---- */

#define NEAR_SLOTS 4

/* Stream slots (stream.c), those of odd numbers for writing. From STREAM_GIVEN on they are given to the streams of
 * regions, one after the other. */
#define JIT_STREAMS 16
#define STREAM_SIZE 8 /* bytes of an access that a slot's room allows */
enum { STREAM_NONE = -1, STREAM_STACK_READ, STREAM_STACK_WRITE, STREAM_GIVEN };
#define STREAMS_GIVEN ((JIT_STREAMS - STREAM_GIVEN) / 2) /* for reading, and as many for writing */

struct jit_frame {
    int64_t budget;      /* units left after the running block */
    uint64_t page;       /* guest address of the page of code that is running: rip less its offset in the page */
    uint64_t tlb;        /* mmu_vcpu.cur_data */
    uint32_t flags;      /* image, while recipe is 0: byte 0 is OF, byte 1 is LAHF's */
    uint32_t vec;        /* guest vectors are in host registers: enum vec_level */
    uint64_t gpr[3];     /* guest R13, R14, R15 */
    uint32_t recipe;     /* committed: name of a struct jit_recipe, or 0; FRAME_PIECE: CF is as in m4 */
    uint32_t overlay;    /* INC or DEC on top of that, or 0; FRAME_PIECE: OF is as in m4, whatever that says */
    uint64_t m1, m2, m3; /* operands of recipe (m1, m2) and overlay (m3) */
    uint64_t tmp, tmp2;
    uint64_t jumps; /* jump table */
    uint64_t stamp; /* names what makes an entry of it valid */
    struct vcpu *v;
    /* Beyond the reach of a short displacement: what compiled code seldom needs. */
    uint64_t end;  /* clock_now() at which the run must end */
    uint64_t bias; /* taken from the budget so that the next block's head leaves */
    uint64_t exit_rip, exit_link;
    uint64_t exit_kind;      /* enum jit_exit */
    struct jit_frame *owner; /* C's copy, written back when compiled code is left */
    /* x87 pointers that compiled code has set: fip if fop is not 0 (0x10000 and the opcode), fdp if fds is not 0 (1 and
     * the number of the segment register). */
    uint64_t fip, fdp;
    uint32_t fop, fds;
    uint32_t x87; /* guest x87 state is in the host's unit */
    uint32_t m4;  /* of a partial recipe and of the pieces: byte 0 is CF, byte 1 OF */
    /* From here on the owner's alone, but for `jit`. */
    struct jit *jit;
    uint64_t data_epoch;       /* mmu_vcpu's, when near and stream slots were empty */
    uint64_t near[NEAR_SLOTS]; /* host address of the beginning of a range that was checked, or 0 (near.c) */
    /* A page each: as tlb_entry has it, and the first offset at which no STREAM_SIZE bytes are left, or 0: empty. */
    uint64_t stream_room[JIT_STREAMS], stream_ntag[JIT_STREAMS], stream_host[JIT_STREAMS];
    uint8_t image[120]; /* as FNSAVE stores it: where x87 state is while C looks and x87 is set */
};
#define FRAME(field) ((int)offsetof(struct jit_frame, field))

/* Recipes have names of three bytes in the frame: their offset, which is aligned, shifted. The byte above is 1 or 0. To
 * store a recipe clears the overlay and both pieces (64 bits), to store an overlay the piece that it sets (32 bits). */
#define RECIPE_ALIGN       32u
#define FRAME_PIECE        (1u << 24)
#define FRAME_PIECE_BYTE   3
#define FRAME_NAME(offset) ((offset) / RECIPE_ALIGN)

enum jit_exit {
    JIT_EXIT_EDGE,   /* at the head of the block at exit_rip; exit_link: slot that may be pointed to its code */
    JIT_EXIT_INTERP, /* as EDGE, but the block cannot run compiled now */
    JIT_EXIT_DONE    /* a handler ended the block: v is exact */
};

/* ---- records, in the data arena, named by their offset ---- */

enum recipe_kind {
    RECIPE_NONE,
    RECIPE_SUB,   /* a - b */
    RECIPE_SUBR,  /* a is the result of a subtraction of b */
    RECIPE_ADD,   /* a + b */
    RECIPE_ADDR,  /* a is the result of an addition of b */
    RECIPE_LOGIC, /* a is the result */
    RECIPE_AND,   /* a & b */
    RECIPE_NEGR,  /* a is the result of NEG */
    RECIPE_EXEC,  /* what insn does to a (rm or reg, whichever it writes) and b */
    RECIPE_INCR,  /* overlays: a is the result */
    RECIPE_DECR,
    RECIPE_INC, /* a is the operand */
    RECIPE_DEC
};

/* What an instruction sets that leaves the others as they were, on top of recipe and overlay: a slow record names it,
 * or it is in the frame as pieces. Division's is never there: the end of the block puts an image into the frame. */
enum partial_kind {
    PARTIAL_NONE,
    PARTIAL_CF,   /* CF as in m4 */
    PARTIAL_CFOF, /* CF and OF as in m4 */
    PARTIAL_DIV   /* all but CF and OF, as the interpreter has them after a division */
};

/* Where an operand is: a guest register number, or one of these. */
enum { SRC_IMM = 0x40, SRC_M1, SRC_M2, SRC_M3, SRC_NONE };

struct jit_recipe {
    const struct insn *insn; /* RECIPE_EXEC */
    uint64_t imm;
    const uint8_t *code; /* of its evaluation (image.c), in a record */
    uint8_t kind, size, a, b;
};

/* An instruction that may be, or is, done by the interpreter's handler. */
struct jit_slow {
    const struct block *block;
    const struct insn *insn;
    const void *resume;       /* host address where compiled code goes on, or NULL if the instruction ends the block */
    uint8_t partial;          /* enum partial_kind */
    bool flags_only;          /* nothing is executed: the flags become an image */
    uint32_t recipe, overlay; /* flags before the instruction, 0: the frame's */
    uint32_t after;    /* the recipe of its own, if compiled code has left an operand of that in the frame, or 0 */
    bool recipe_fresh; /* recipe hides the frame's overlay */
    const struct insn *note; /* the last x87 instruction of the block before it that has pointers to note, or NULL */
    bool by_handler;         /* compiled code never does it */
    bool at_end;             /* resume is behind the block: a repeated string instruction's */
    uint16_t before;         /* instructions of the trace before the block */
    uint32_t trace;          /* data offset of the number of the trace's instructions (32 bits) */
};

/* Where a direct jump inside a page leads: out, until the block there is compiled. */
struct jit_slot {
    struct block_link link;
    gfn_t page;
    uint32_t mode;
};

/*
 * Code is compiled twice: first as it gets hot, when little is known of its ways, then, once it has run for a while,
 * with what the first code has counted: how often the head of each trace ran, and how often each block of it was where
 * the trace was left.
 */
struct jit_left {
    uint32_t offset; /* of the block from the page */
    uint32_t times;
};
struct jit_profile {
    int32_t more;        /* runs of the trace's head until the second time */
    uint32_t n, left;    /* blocks of the trace, in order; data offset of as many struct jit_left */
    uint32_t head, mode; /* offset from the page; of its blocks */
    gpa_t page;
};
#define JIT_PROFILE_HEATS 25 /* so many times the heat */
#define JIT_PROFILE_LINK  1  /* in exit_link: it is a profile, no slot */

/* The entry for who comes from another page, with rip in r14, is this many bytes before a block's code. */
#define JIT_FAR_LEN 12

struct jit_jump {
    uint64_t rip, stamp;
    const void *code;
    uint64_t key; /* names page and mode of the block, see jit.c; 0: of another kind */
};
#define JIT_JUMP_BITS 15
#define JIT_JUMP_MIX  0x9e3779b1u /* spreads all bits over the highest: functions are aligned */

static inline unsigned jit_jump_index(uint64_t rip)
{
    return (uint32_t)rip * JIT_JUMP_MIX >> (32 - JIT_JUMP_BITS);
}

/* ---- memory (arena.c) ---- */

struct jit_arena {
    uint8_t *code;       /* executable, never writable */
    uint8_t *code_write; /* the same memory, writable, never executable */
    size_t code_size, code_used;
    uint8_t *data; /* records and slots, within reach of the code */
    size_t data_size, data_used;
    int fd;
};

#define JIT_REGION_MAX (256u << 10)

/* 0, or -1 with errno. */
int jit_arena_init(struct jit_arena *a, size_t code_size, size_t data_size);
void jit_arena_fini(struct jit_arena *a);
/* Offset of `size` zeroed bytes, aligned to 8; 0: full. */
uint32_t jit_data_alloc(struct jit_arena *a, size_t size);
/* The same, aligned to `align`, a power of two. */
uint32_t jit_data_alloc_aligned(struct jit_arena *a, size_t size, size_t align);
/* Is the room left less than the largest region may need? */
static inline bool jit_arena_is_full(const struct jit_arena *a)
{
    return a->code_size - a->code_used < JIT_REGION_MAX || a->data_size - a->data_used < JIT_REGION_MAX;
}
static inline void *jit_data(const struct jit_arena *a, uint32_t offset)
{
    return a->data + offset;
}

/* ---- the JIT of a machine ---- */

#define JIT_STAMPS 16

/* What a stamp stands for. */
struct jit_context {
    uint64_t epoch, generation, base, stamp;
    const void *fetches; /* the table of fetches that epoch names */
    uint64_t left;       /* when others were there last: a count */
    uint32_t mode, limit;
    unsigned index;
};

/* Where compiled code was entered. */
struct jit_entered {
    uint64_t rip;
    gpa_t gpa;
    uint32_t mode;
};
#define JIT_LAST 8

struct tr;
struct jit {
    const struct log *log;
    unsigned heat;
    FILE *perf_map; /* and who knows names, or NULL */
    void (*symbol)(void *ctx, uint64_t rip, char *buf, size_t size);
    void *symbol_ctx;
    struct jit_arena arena;
    size_t thunks_end; /* code and data after reset */
    size_t data_start;
    void (*enter)(struct vcpu *v, struct jit_frame *f, const void *code);
    struct tr *tr;                                                     /* the translator's state while it translates */
    const uint8_t *thunk_exit, *thunk_interp, *thunk_slow, *thunk_vec; /* where they run */
    const uint8_t *thunk_ymm, *thunk_x87, *thunk_find, *thunk_image, *thunk_forget, *thunk_syscall, *thunk_sysret;
    const uint8_t *thunk_stream[JIT_STREAMS]; /* by call */
    unsigned streams_given;
    const uint8_t *recipe_code[RECIPE_NEGR][4][3], *recipe_by_c; /* image.c */
    bool has_rorx;
    uint64_t host_gates; /* bits of enum op_gate: what the host's processor has of SSE and beyond */
    uint32_t generation; /* of compiled code: a block's is valid only if it has this one */
    uint64_t last_stamp;
    uint64_t first_stamp,
        first_generation; /* stamps from first_stamp on were made since the code cache's generation is what it is */
    struct jit_context context[JIT_STAMPS];
    unsigned context_now;
    uint64_t contexts_left;
    struct jit_entered last[JIT_LAST];
    struct jit_jump jumps[1u << JIT_JUMP_BITS];
    struct {
        uint64_t rip, generation;
        struct jit_slot *slot; /* NULL: none pending */
    } link;
    struct {
        uint64_t regions, again, blocks, bytes, entries, continued, found, renewed, links, slow, slow_tlb, slow_handler,
            slow_jump, handled, resets, refused, collapsed, streamed;
    } stats;
    struct jit_form_count *forms; /* by row of the table */
};

/* ---- count.c ---- */

void jit_counts_init(struct jit *j);
void jit_counts_fini(struct jit *j);
void jit_count_slow(struct jit *j, const struct jit_slow *s);

/* Is there compiled code of the block, made since the last reset? */
static inline bool jit_has_code(const struct jit *j, const struct block *b)
{
    return b->native && b->native_generation == j->generation;
}

/* Emits the thunks (glue.c). False: no room. */
bool jit_make_thunks(struct jit *j);
/* Emits what makes the host's flags those of the frame's image. Uses r15. */
void jit_emit_image_flags(struct emit *e);
/* And back: the frame's image is made of the host's flags. Uses r15. (flags.c) */
void jit_emit_flags_image(struct emit *e);
/* The thunk of images, and its part that calls C. */
void jit_make_image_thunk(struct jit *j, struct emit *e);
void jit_emit_image_by_c(const struct jit *j, struct emit *e);
/* What evaluates a recipe, of the record at r14: comes back to frame.exit_link with r14 from frame.exit_rip. */
const uint8_t *jit_recipe_code(const struct jit *j, const struct jit_recipe *r);
/* r15 = entry of the jump table for the address in r14. Clobbers flags (control.c). */
void jit_emit_jump_entry(struct emit *e);
/* r15: entry of the jump table for the right address under an older stamp. If no code was dropped
 * since, and the address (of 64-bit code) leads to the same code again, as jump_renew() says, it gets the new stamp,
 * which is in r14 then. Else jumps no[], with guest RCX in the frame's `keep`. */
struct jit_renew {
    int fetch;       /* offset in mmu_vcpu of the fetch table */
    uint32_t flip;   /* bits in which the mode is not vcpu.mode */
    int stamp, keep; /* frame slots: of the new stamp, and a free one */
};
void jit_emit_renew(struct emit *e, const struct jit_renew *r, uint8_t *no[5]);
/* The thunks of SYSCALL and SYSRET, when the others are there (crossing.c). */
void jit_make_crossings(struct jit *j, struct emit *e);
/* Called by compiled code: does rec's instruction. Returns where to go on, or NULL to leave. */
const void *jit_slow_path(struct vcpu *v, struct jit_frame *f, uint32_t rec);
/* Called by compiled code: the block at frame.exit_rip is not in the jump table. True: it is now. */
bool jit_find(struct vcpu *v, struct jit_frame *f);
/* Called by compiled code: the frame's recipe becomes an image. v has the general registers. */
void jit_make_image(struct vcpu *v, struct jit_frame *f);
/* Sets v's flags from the frame, or from recipe and overlay where they are not 0. */
void jit_flags_to_vcpu(struct vcpu *v, struct jit_frame *f, uint32_t recipe, uint32_t overlay, bool fresh);
/* A handler has done what the recipe says: the operand that compiled code would have left in the frame, or one with the
 * same flags. before: the register of the recipe's first operand before it. */
void jit_operand_after(const struct vcpu *v, struct jit_frame *f, const struct jit_recipe *r, uint64_t before);
void jit_flags_partial(struct vcpu *v, const struct jit_frame *f, unsigned partial);
void jit_flags_from_vcpu(const struct vcpu *v, struct jit_frame *f);
uint64_t jit_stamp(struct jit *j, struct vcpu *v);
/* x87 state from the owner's image to v, and back. */
void jit_x87_to_vcpu(struct vcpu *v, struct jit_frame *f);
void jit_x87_from_vcpu(const struct vcpu *v, struct jit_frame *f);
/* May x87 instructions run as they are? */
bool jit_x87_usable(const struct vcpu *v);
/* Called by compiled code: x87 state is wanted in the host's unit. Returns where to go on. */
const void *jit_x87_load(struct vcpu *v, struct jit_frame *f);
/* Pointers that were noted, to v. s: at its instruction, of the running block; NULL: between blocks. */
void jit_x87_notes(struct vcpu *v, struct jit_frame *f, const struct jit_slow *s);

/* C has run: what the frame has of the data table, and whether what was copied from it is still good. */
void jit_frame_data(struct vcpu *v, struct jit_frame *f);

/* ---- the translator ---- */

#define REGION_BLOCKS  24
#define REGION_INSNS   256
#define REGION_EMITTED (2 * REGION_INSNS) /* instructions: those that are in several traces are there several times */
#define REGION_COLD    2048

enum flag_base {
    BASE_FRAME,  /* committed, or never changed */
    BASE_RECIPE, /* tr.base */
    BASE_DEAD    /* nobody will look before they are set again */
};

struct tr_block {
    struct block *b;
    uint8_t *entry, *vectors,
        *body;   /* written addresses: of the head, behind its check of vectors, behind all checks; NULL: it has none */
    bool wanted; /* something jumps to its head */
    bool in_trace;    /* in the one that is being emitted */
    uint8_t units;    /* instructions of the trace that begins with it */
    uint32_t profile; /* of that */
    uint32_t steady;  /* general registers, as bits, that its accesses may stream off (stream.c) */
};

/* A trace is a block that can be entered, and the blocks that follow it on the likely way: their code stands behind
 * its. Its head takes the units of them all; who leaves it on the way gives back those of the rest. */
#define TRACE_UNITS  100
#define UNROLL_UNITS 40 /* a loop that is a trace is in it several times, up to so many */
struct tr_trace {
    const uint8_t *from, *to; /* written addresses */
    unsigned block, mark;     /* the first ones of its */
};

/* The code of an instruction. */
struct tr_mark {
    const uint8_t *from, *to; /* written addresses */
    uint16_t block, insn;
};

/* An access of a group (near.c). */
struct tr_near {
    uint8_t slot;   /* 0: it is in none */
    bool leads;     /* it is the group's first */
    bool write;     /* one of the group writes */
    uint8_t size;   /* of this access, at most */
    int16_t within; /* its distance from the beginning of the group's range */
    uint16_t span;  /* of the range */
    int64_t disp;   /* from the register as it is at the access */
};

/* A place whose distance from the page that runs is known; cut: to 16 bits. */
struct tr_target {
    int32_t offset;
    bool cut;
};

/* What accesses of a stream have in common. */
struct tr_stream {
    uint8_t base, index;
    int seg;      /* FS, GS or SEG_NONE */
    int32_t page; /* of the displacement */
    unsigned slot;
};

struct tr_cold {
    uint8_t *at, *also_at; /* the jumps that lead here, or NULL */
    enum {
        COLD_SLOW,
        COLD_FIND,
        COLD_OTHER_ENTRY,
        COLD_BUDGET,
        COLD_HOT,
        COLD_NOVEC,
        COLD_NOX87,
        COLD_UNLINKED,
        COLD_PARTIAL,
        COLD_IMAGE,
        COLD_MAKE_IMAGE,
        COLD_NEAR,
        COLD_STREAM
    } kind;
    uint32_t n; /* slow record, block number, or slot */
    int32_t target;
    uint8_t *back;       /* COLD_FIND, COLD_PARTIAL, COLD_IMAGE, COLD_MAKE_IMAGE, COLD_NEAR */
    uint8_t *fetched;    /* COLD_STREAM, COLD_NEAR: where the stream's slot has the page */
    int stream;          /* COLD_STREAM, COLD_NEAR: STREAM_NONE if it is none */
    unsigned size;       /* COLD_STREAM: of the access, in bytes */
    struct tr_near near; /* COLD_NEAR: the access, its size now, and whether it writes */
    uint8_t near_base, near_size;
    bool near_write;
    struct tr_target to;       /* COLD_OTHER_ENTRY */
    struct jit_recipe overlay; /* COLD_IMAGE: on top of the image, if the frame has one */
};

/*
 * A place in the guest's code, and the flags there: what is kept, and put back when the code for another way out of it
 * is emitted later.
 *   b, k       the block that is being translated, and its instruction
 *   before     instructions of the trace before b
 *   note       as jit_slow.note, not yet committed
 *   host       the host's flags are the guest's (those of undefined are not, where the processor differs)
 *   undefined  bits of the host's flags that are not the guest's though host is set
 *   base       if BASE_RECIPE
 *   overlay    kind RECIPE_NONE if there is none pending
 *   base_rec, overlay_rec  their offsets once they have one
 *   partial    on top of them
 *   image      if BASE_FRAME: the frame has an image, no recipe
 *   known      if BASE_FRAME: it has known_base and known_overlay, whose operands are in it, or an image
 */
#define TR_PLACE                                                                                                       \
    struct block *b;                                                                                                   \
    unsigned k;                                                                                                        \
    unsigned before;                                                                                                   \
    const struct insn *note;                                                                                           \
    bool host;                                                                                                         \
    unsigned undefined;                                                                                                \
    enum flag_base flags;                                                                                              \
    struct jit_recipe base, overlay;                                                                                   \
    uint32_t base_rec, overlay_rec;                                                                                    \
    enum partial_kind partial;                                                                                         \
    bool image, known;                                                                                                 \
    struct jit_recipe known_base, known_overlay;

struct tr_place {
    TR_PLACE
};

/* A way out of a trace before its end. */
struct tr_side {
    uint8_t *at;               /* the jump */
    const struct insn *branch; /* the one that is taken, or NULL */
    int64_t target;            /* offset from the page */
    struct tr_place place;
};

struct tr {
    struct emit e;
    struct jit *j;
    struct vcpu *v;
    unsigned mode;
    bool wide;         /* 64-bit code */
    int segment;       /* r14 is an offset in this one, of which the next check must see; SEG_NONE: it is linear */
    unsigned uses_vec; /* enum vec_level */
    bool uses_x87;
    struct tr_block blocks[REGION_BLOCKS];
    unsigned nblocks;
    unsigned ncold;
    unsigned nfix;
    unsigned nmarks;
    uint8_t *cold_start;
    struct tr_trace traces[REGION_BLOCKS];
    unsigned ntraces;
    unsigned nside;
    uint8_t *clock[TRACE_UNITS]; /* behind 32-bit numbers, the trace's units are still to be subtracted */
    unsigned nclock;
    bool final;                           /* the second time: nothing is counted */
    uint32_t profile;                     /* data offset of the trace's counts, 0: none */
    unsigned turns;                       /* of the loop that the trace is, but for the one that is being emitted */
    uint32_t trace;                       /* as jit_slow.trace */
    struct block *follow;                 /* the trace goes on there behind the current instruction, or NULL */
    struct tr_near near[BLOCK_MAX_INSNS]; /* of the block */
    bool is_near;                         /* the address asked for has not been emitted: its check is the group's */
    uint32_t steady;                      /* of the block */
    const struct insn *operand;           /* r14 is this one's memory operand, for the next check; or NULL */
    bool on_stack;                        /* r14 is off the stack pointer, for the next check */
    struct tr_stream streams[2][STREAMS_GIVEN]; /* [1]: for writing */
    unsigned nstreams[2];
    uint32_t near_set; /* slots that the code of the block has set so far, as bits */
    union {
        struct tr_place place;
        struct {
            TR_PLACE
        };
    };
    /* From here on nothing is cleared when a region is begun. */
    struct tr_cold cold[REGION_COLD];
    struct tr_mark marks[REGION_EMITTED];
    struct tr_side side[TRACE_UNITS]; /* of the trace that is being emitted */
    uint32_t path[TRACE_UNITS];       /* its blocks, as offsets from the page */
    struct {
        uint8_t *at;
        unsigned block;
    } fix[2 * REGION_EMITTED]; /* jumps inside the region */
};

/* Host register of a guest one, or -1: in the frame. */
extern const int8_t jit_host_of[16];

/* Free with free(). */
struct tr *jit_translator_create(void);
/* Compiles b and what it leads to in its page; final: for good, by what was counted. False: no room. */
bool jit_translate(struct jit *j, struct vcpu *v, struct block *b, bool final);

/* ---- profile.c ---- */

/* What the code of the region's blocks has counted so far becomes their runs. */
void tr_profile_apply(struct tr *t);
/* A profile of the trace that begins with t->b; its blocks, one after the other. */
void tr_profile_begin(struct tr *t);
void tr_profile_block(struct tr *t);
void tr_profile_end(struct tr *t);
/* Emits: the head is run (clobbers flags; jumps away if that was often enough); the trace is left in t->b. */
void tr_profile_count_head(struct tr *t, unsigned number);
void tr_profile_count_side(struct tr *t);

/* Pieces (integer.c, memory.c, control.c, vector.c): true if they emitted i; false, before emitting anything, if the
 * handler must do it. */
bool tr_integer(struct tr *t, const struct insn *i);
bool tr_string(struct tr *t, const struct insn *i);
bool tr_control(struct tr *t, const struct insn *i);
bool tr_vector(struct tr *t, const struct insn *i);
unsigned tr_is_vector(const struct tr *t, const struct insn *i); /* enum vec_level: what it needs */

/* Goes on at an offset of the running page (translate.c). Flags are committed. */
void tr_edge(struct tr *t, int32_t offset);
/* Offsets in the page of where b goes on: [0] behind it, [1] its direct target; -1: none, or in another page
 * (translate.c). */
void tr_successors(const struct block *b, int32_t next[2]);
/* r14 = guest address; r15 = its entry in the jump table. If it is not there and cannot be put there, rec's handler
 * runs; if rec is 0, compiled code is left for there. Flags are committed. (control.c) */
void tr_look_up(struct tr *t, uint32_t rec);
/* r15: entry; goes there. */
void tr_jump_entry(struct tr *t);
/* The same for a known target: r15 is then only good for tr_jump_known() with the same one. */
void tr_look_up_known(struct tr *t, const struct tr_target *to, uint32_t rec);
void tr_jump_known(struct tr *t, const struct tr_target *to);
void tr_cold_other_entry(struct tr *t, const struct tr_cold *c);
/* Goes on behind i, the last instruction of the block. Commits flags. */
void tr_go_behind(struct tr *t, const struct insn *i);
/* It ends a block, but mostly goes on behind itself: a repeated string instruction (string.c). */
bool tr_goes_on_behind(const struct insn *i);
/* r14 = guest address at an offset from the running page. */
void tr_rip_at(struct tr *t, int32_t offset);
/* jcc there, if it is a block of the region. */
bool tr_edge_if(struct tr *t, unsigned cc, int32_t offset);
/* Lets the trace go on at an offset from the running page, if it can: then nothing is to be emitted and flags need not
 * be committed. */
bool tr_follow(struct tr *t, int64_t offset);
/* As tr_follow() behind a conditional jump. *taken: it goes on with the target, else behind the jump. */
bool tr_follow_branch(struct tr *t, int64_t next, int64_t target, bool *taken);
/* `at`, a jump, leaves the trace for an offset from the running page with the flags as they are now. branch: the jump
 * if it is taken then, else NULL. */
void tr_leave_trace(struct tr *t, uint8_t *at, const struct insn *branch, int64_t target);
/* Goes on at an offset from the running page, in the page or not, and gives units back. branch: as above. Flags are
 * committed. (control.c) */
void tr_go(struct tr *t, const struct insn *branch, int64_t target, unsigned units);
/* r14 += instructions of the trace before the current one, less all of the trace. */
void tr_add_position(struct tr *t, const struct insn *i);
/* A direct branch whose target is within the page is where the page's offsets say. */
static inline bool tr_branch_is_native(unsigned mode, const struct insn *i)
{
    return i->opsize != 2 || !(mode & (MODE_CODE64 | MODE_CODE32));
}
/* What tr_commit_edge() wants to know for an edge to an offset of the running page, or anywhere else. */
uint32_t tr_edge_lost(const struct tr *t, int64_t offset);

/* ---- listing.c: -d jit and perf's map, if they are asked for ---- */

void jit_list_region(const struct tr *t);
void jit_perf_map_region(const struct tr *t);
void jit_perf_map_thunks(const struct jit *j);

/* ---- flags.c ---- */

/* i is about to be emitted. writes: guest registers that it writes (bits); kills: it sets all flags without looking,
 * and cannot fault. Operands of what is pending that would be lost move to the frame: before anything of the
 * instruction that can go to its handler, which comes back behind it. */
void tr_begin(struct tr *t, uint32_t writes, bool kills);
/* Commits flags to the frame if they are not there. */
void tr_commit(struct tr *t);
/* The host's flags were clobbered. */
static inline void tr_clobber(struct tr *t)
{
    t->host = false;
}
/* Makes the host's flags the guest's, if `mask` of them can be had; uses scratch registers. False: by the handler only.
 */
bool tr_need_host(struct tr *t, unsigned mask);
bool tr_can_have_host(const struct tr *t, unsigned mask);
/* Will someone look at the flags that the current instruction sets, before they are set again? */
bool tr_flags_live(const struct tr *t);
/* The instruction just emitted set the flags; `r` says how (its operands are where it says). */
void tr_set_flags(struct tr *t, struct jit_recipe r);
/* As tr_set_flags for an instruction with a memory operand, which is in m1 or m2, or its result in m1: rec is its slow
 * record. */
void tr_set_flags_memory(struct tr *t, struct jit_recipe r, uint32_t rec);
/* As tr_set_flags where a handler cannot tell what compiled code has left in the frame: committed at once. */
void tr_set_flags_committed(struct tr *t, struct jit_recipe r);
/* They are in the host's registers and as defined as the guest's: commits an image. */
void tr_set_flags_image(struct tr *t);
/* The frame's image is the flags, and so are the host's. */
void tr_have_image(struct tr *t);
void tr_set_flags_dead(struct tr *t, unsigned undefined);
uint32_t tr_recipe(struct tr *t, struct jit_recipe r);
/* Before an instruction that sets flags by tr_set_partial(), or by an overlay (PARTIAL_NONE): what is pending and would
 * be lost moves to the frame; after a division it becomes an image, and the host's flags are clobbered. */
void tr_begin_partial(struct tr *t, enum partial_kind kind);
/* The instruction just emitted set the flags of `mask` in the host's, and of the others left those of `kept`; rec: its
 * slow record, whose handler's flags are taken over, too, or 0. */
void tr_set_partial(struct tr *t, enum partial_kind kind, unsigned mask, unsigned kept, uint32_t rec);
/* As its second half: the frame's m4 has them already. */
void tr_have_partial(struct tr *t, enum partial_kind kind, uint32_t rec);
/* The flags become an image in the frame, whatever they are: a call into C. */
void tr_collapse(struct tr *t);
/* Host flags are the guest's, at least those of `mask`, from where they are kept. Uses r15. False: nothing was emitted.
 */
bool tr_restore(struct tr *t, unsigned mask);
void tr_store_partial(struct tr *t, enum partial_kind kind);
/* The host's flags from the frame's image and, if the frame has one, the overlay, whose operand is in it. */
void tr_cold_image(struct tr *t, const struct jit_recipe *overlay);
/* The frame has an image from here on, if t->flags is BASE_FRAME and nothing is pending; else it is made of what the
 * frame has, by a call into C. Clobbers the host's flags and r15. */
void tr_make_image(struct tr *t);
/* Can the flags be had, by tr_restore(), once the host's are clobbered? */
bool tr_can_restore(const struct tr *t);
/* Registers written in b before all flags are set, if moves alone come before that; else all. */
uint32_t tr_lost_before_set(const struct block *b);
/* As tr_commit(), at the end of a block of whose successors tr_lost_before_set() has said `lost`: the other registers
 * are still there whenever the recipe is evaluated. */
void tr_commit_edge(struct tr *t, uint32_t lost);
/* Recipe and overlay into the frame, if not there; a partial one stays. */
void tr_commit_sources(struct tr *t);

/* ---- memory.c ---- */

/* Can r14 be the address of the memory operand? */
bool tr_has_ea(const struct tr *t, const struct insn *i);
/* The memory operand's address but for its segment, where i has no INSN_DISP64; r14 and r15 are registers of it that
 * the host has none for. Addresses of 16 and 32 bits are still to be cut. */
struct maddr tr_maddr(struct tr *t, const struct insn *i);
/* r14 = offset part of the memory operand's address. */
void tr_offset(struct tr *t, const struct insn *i);
/* r14 = address of the memory operand: linear, or where its segment must be looked at an offset in it, which
 * tr_check() makes linear. */
void tr_ea(struct tr *t, const struct insn *i);
/* Its second half: r14 is the offset. */
void tr_linear(struct tr *t, const struct insn *i);
/* reg = its lower 16 bits. */
void tr_cut16(struct tr *t, unsigned reg);
/* r14: linear to host address for an access of `size` bytes; a miss goes to the slow record rec. Clobbers flags, r15.
 */
void tr_check(struct tr *t, unsigned size, bool write, uint32_t rec);
/* Its first part: r15 is the TLB's entry; above: a miss. */
void tr_check_entry(struct tr *t, unsigned size, bool write);
/* The first part of that: r15 is the entry for the address in r14, to which its tag is added. shift: to be added to the
 * frame's offsets. */
void jit_emit_tlb_look(struct emit *e, bool has_rorx, int shift, bool write);
/* reg = an address of the host's, which stands in a record beside the code: never in the code, whose listing is the
 * same in every run. */
void tr_load_address(struct tr *t, unsigned reg, const void *address);
/* A slow record for i with the flags as they are now. */
uint32_t tr_slow(struct tr *t, const struct insn *i);
void tr_slow_now(struct tr *t, uint32_t rec);
/* Compiled code goes on here after rec's handler. */
void tr_resume(struct tr *t, uint32_t rec);
/* i by its handler. */
void tr_handler(struct tr *t, const struct insn *i);
void tr_jump_cold(struct tr *t, uint8_t *at, int kind, uint32_t n, int32_t target);

/* ---- stack.c ---- */

bool tr_stack(struct tr *t, const struct insn *i);
/* As tr_check() for `size` bytes at an offset from the stack pointer, in its width and segment. */
void tr_stack_check(struct tr *t, int32_t disp, unsigned size, bool write, uint32_t rec);
/* The stack pointer moves; r14 is lost. */
void tr_stack_adjust(struct tr *t, int32_t bytes);

/* ---- effect.c ---- */

enum effect {
    EFFECT_UNKNOWN,
    EFFECT_READ,   /* reads rm, writes reg */
    EFFECT_WRITE,  /* reads reg, writes rm */
    EFFECT_CHANGE, /* reads and writes rm */
    EFFECT_LOOK    /* reads both */
};
enum effect tr_effect(const struct insn *i);
/* Bits of the general registers that i may write; all of them, if that is not known. */
uint32_t tr_written(const struct tr *t, const struct insn *i);
/* PUSH or POP of 8 bytes, and POP not of RSP. */
bool tr_is_stack_step(const struct insn *i);
/* True if i moves one register by a known distance. */
bool tr_is_step(const struct insn *i, unsigned *reg, int64_t *by);

/* ---- stream.c ---- */

/* Finds out what the region's accesses may stream off. */
void tr_streams_plan(struct tr *t);
/* The slot of a memory operand's stream, or of the stack's, or STREAM_NONE. */
int tr_stream_of(struct tr *t, const struct insn *i, bool write);
int tr_stream_of_stack(const struct tr *t, bool write);
/* r14: address to offset in the slot's page, if it is that and `size` bytes are there; else the jumps at[] (the second
 * may be NULL). Clobbers flags. */
void tr_check_stream(struct tr *t, int s, unsigned size, uint8_t *at[2]);
/* Its second half: r14 is the host address. */
void tr_add_stream_host(struct tr *t, int s);
/* Where the first half's jumps lead: fetches the page into the slot. Jumps miss[] if the TLB does not allow `size`
 * bytes there (r14 is lost; the second may be NULL); else it can go on behind the first half. Clobbers r15. */
void tr_cold_stream(struct tr *t, int s, unsigned size, uint8_t *miss[2]);
void jit_make_stream_thunks(struct jit *j, struct emit *e);
/* All slots become empty, by way of a register. shift: to be added to the frame's offsets. */
void jit_emit_forget_streams(struct emit *e, unsigned scratch, int shift);
/* The same by a call; r15 is lost. */
void tr_forget_streams(struct tr *t);

/* ---- near.c ---- */

/* Finds the groups of the block. */
void tr_near_plan(struct tr *t);
/* The current instruction is about to be emitted. */
void tr_near_begin(struct tr *t);
/* Is i, the current instruction, an access of a group whose first has been emitted, or is it the first? */
bool tr_is_near(const struct tr *t, const struct insn *i);
/* Address and check of the current instruction's access: [r14 + r14_disp] is its operand from then on. */
void tr_check_near(struct tr *t, unsigned size, bool write, uint32_t rec);
void tr_cold_near(struct tr *t, const struct tr_cold *c);

/* ---- vector.c, avx.c ---- */

uint64_t jit_host_gates(void);
bool tr_host_has(const struct tr *t, unsigned gate);
/* MMX: wants what x87 instructions want. */
bool tr_is_mmx(const struct tr *t, const struct insn *i);
bool tr_is_avx(const struct tr *t, const struct insn *i);
void tr_avx(struct tr *t, const struct insn *i);
/* Operands as ModRM has them. guest: the general register that is written, -1: none; host: where. */
struct vector_operands {
    unsigned reg, host;
    struct opnd rm;
    int guest;
};
struct vector_operands tr_vector_operands(struct tr *t, const struct insn *i);
void tr_vector_finish(struct tr *t, const struct vector_operands *o, bool sets_flags, bool mem);
bool tr_vector_sets_flags(const struct insn *i);
uint32_t tr_vector_implied_writes(const struct insn *i);
/* r14 (host address) must be aligned to `size` bytes. */
void tr_check_aligned(struct tr *t, unsigned size, uint32_t rec);

/* ---- system.c ---- */

bool tr_system(struct tr *t, const struct insn *i);
/* Does i end its block though execution goes on behind it? */
bool tr_system_falls_through(const struct insn *i);

/* ---- crossing.c ---- */

bool tr_syscall(struct tr *t, const struct insn *i);
bool tr_sysret(struct tr *t, const struct insn *i);

/* ---- x87.c ---- */

bool tr_is_x87(const struct tr *t, const struct insn *i);
bool tr_x87(struct tr *t, const struct insn *i);
/* The block is about to be left. */
void tr_x87_commit(struct tr *t);

/* ---- registers ---- */

static inline struct opnd tr_gpr(unsigned g)
{
    if (g & BYTE_HIGH)
        return op_reg(H_HIGH | (g & 3));
    return jit_host_of[g] >= 0 ? op_reg((unsigned)jit_host_of[g]) : op_frame(FRAME(gpr) + 8 * ((int)g - 13));
}
static inline uint32_t tr_bit(unsigned g)
{
    return 1u << (g & BYTE_HIGH ? g & 3 : g);
}
/* The guest register in a host one, r15 if it has none. */
unsigned tr_reg_in(struct tr *t, unsigned g);
void tr_reg_out(struct tr *t, unsigned g, unsigned h);
/* A register as an operand that is read and written: r15, if that is better. Flags stay. */
struct opnd tr_gpr_change(struct tr *t, unsigned g, unsigned size);
/* The operand was written. */
void tr_gpr_changed(struct tr *t, unsigned g, unsigned size);
/* After a 4-byte write to a guest register by its operand: the upper half is cleared. */
void tr_zero_upper(struct tr *t, unsigned g, unsigned size);

static inline bool insn_has_mem(const struct insn *i)
{
    return !(i->flags & INSN_RM_REG) && i->enc != ENC_ZO && i->enc != ENC_I && i->enc != ENC_D && i->enc != ENC_II;
}

#endif
