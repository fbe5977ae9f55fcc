/*
 * MOVS, STOS, LODS, SCAS, CMPS, alone and repeated.
 *
 * A REP instruction counts each iteration as a unit of time (a count of zero: one), runs at most v->rep_budget of them
 * a visit, and stops after one that asks for attention; rip then stays at the instruction. Registers, flags and the
 * clock are brought up to date after each iteration (or run of iterations), so that a fault finds those before it
 * committed. Flags of a repeated SCAS or CMPS that faults are those of the last iteration done (the manual has them
 * restored, which no program can rely on: an interrupt in the same place would leave them so).
 *
 * Between two iterations RF is set: an event that is taken there pushes it so (SDM volume 3, 18.3.1.1), and a
 * breakpoint at the instruction is met once, not before each iteration.
 *
 * The runs: while both operands lie in pages that the TLB knows, in 64-bit or flat code with DF clear, iterations are
 * made up to the end of the nearer page at once, on host memory. Everything else goes one iteration at a time.
 */
#include "cpu/interp/integer.h"

/* ---- operands ---- */

static inline uint64_t source_offset(const struct vcpu *v, const struct insn *i)
{
    return wrap_offset(v->gpr[REG_RSI], i->adsize);
}

static inline uint64_t dest_offset(const struct vcpu *v, const struct insn *i)
{
    return wrap_offset(v->gpr[REG_RDI], i->adsize);
}

static inline uint64_t flat_linear(const struct vcpu *v, uint64_t base, uint64_t off)
{
    return v->mode & MODE_CODE64 ? base + off : (uint32_t)(base + off);
}

static uint64_t source_linear(struct vcpu *v, const struct insn *i)
{
    return linear_of(v, i, i->seg, source_offset(v, i), i->opsize, 0);
}

/* ES:rDI; no prefix changes that. */
static uint64_t dest_linear(struct vcpu *v, const struct insn *i, unsigned write)
{
    uint64_t off = dest_offset(v, i);
    if (v->mode & MODE_CODE64)
        return off;
    if (v->mode & MODE_FLAT)
        return (uint32_t)off;
    return seg_linear_checked(v, i, SEG_ES, off, i->opsize, write);
}

/* Moves rSI or rDI by n elements. */
static inline void advance(struct vcpu *v, const struct insn *i, unsigned reg, uint64_t n)
{
    uint64_t bytes = n * i->opsize;
    reg_set(v, reg, i->adsize, v->gpr[reg] + (v->rflags & FLAG_DF ? -bytes : bytes));
}

/* ---- one iteration ---- */

static void movs_step(struct vcpu *v, const struct insn *i)
{
    uint64_t x = lin_load(v, i, source_linear(v, i), i->opsize);
    lin_store(v, i, dest_linear(v, i, 1), x, i->opsize);
    advance(v, i, REG_RSI, 1);
    advance(v, i, REG_RDI, 1);
}

static void stos_step(struct vcpu *v, const struct insn *i)
{
    lin_store(v, i, dest_linear(v, i, 1), reg_get(v, REG_RAX, i->opsize), i->opsize);
    advance(v, i, REG_RDI, 1);
}

static void lods_step(struct vcpu *v, const struct insn *i)
{
    reg_set(v, REG_RAX, i->opsize, lin_load(v, i, source_linear(v, i), i->opsize));
    advance(v, i, REG_RSI, 1);
}

static void compare(struct vcpu *v, const struct insn *i, uint64_t a, uint64_t b)
{
    flags_set_sub(v, a, b, a - b, i->opsize);
}

static void scas_step(struct vcpu *v, const struct insn *i)
{
    uint64_t b = lin_load(v, i, dest_linear(v, i, 0), i->opsize);
    compare(v, i, reg_get(v, REG_RAX, i->opsize), b);
    advance(v, i, REG_RDI, 1);
}

static void cmps_step(struct vcpu *v, const struct insn *i)
{
    uint64_t a = lin_load(v, i, source_linear(v, i), i->opsize);
    uint64_t b = lin_load(v, i, dest_linear(v, i, 0), i->opsize);
    compare(v, i, a, b);
    advance(v, i, REG_RSI, 1);
    advance(v, i, REG_RDI, 1);
}

/* ---- runs of iterations ---- */

/* Elements from offset off (at linear address lin) to the end of the page or of the address space, at most n. */
static uint64_t elements_to_edge(const struct insn *i, uint64_t off, uint64_t lin, uint64_t n)
{
    uint64_t bytes = PAGE_SIZE - (lin & PAGE_MASK);
    if (i->adsize == 2 && bytes > 0x10000 - off)
        bytes = 0x10000 - off;
    if (i->adsize == 4 && bytes > 0x100000000 - off)
        bytes = 0x100000000 - off;
    bytes /= i->opsize;
    return bytes < n ? bytes : n;
}

/* True if runs may be made at all: no element needs a segment check and addresses go up. */
static inline bool is_run_possible(const struct vcpu *v, const struct insn *i)
{
    return !(v->rflags & FLAG_DF) && v->mode & (MODE_CODE64 | MODE_FLAT) && !(i->flags & INSN_SEGCHK);
}

/* Host address of up to *n source (ES: destination) elements; cuts *n to what it covers. NULL if there are none. */
static const char *source_run(const struct vcpu *v, const struct insn *i, uint64_t *n)
{
    uint64_t off = source_offset(v, i), lin = flat_linear(v, v->seg_base[i->seg], off);
    *n = elements_to_edge(i, off, lin, *n);
    return *n ? tlb_lookup_read(v->mv, lin, (unsigned)*n * i->opsize) : NULL;
}

static char *dest_run(const struct vcpu *v, const struct insn *i, uint64_t *n, bool write)
{
    uint64_t off = dest_offset(v, i), lin = flat_linear(v, 0, off);
    *n = elements_to_edge(i, off, lin, *n);
    if (!*n)
        return NULL;
    unsigned bytes = (unsigned)*n * i->opsize;
    return write ? tlb_lookup_write(v->mv, lin, bytes) : tlb_lookup_read(v->mv, lin, bytes);
}

static inline uint64_t load_element(const char *p, unsigned size)
{
    uint64_t x = 0;
    switch (size) {
    case 1:
        return *(const uint8_t *)p;
    case 2:
        memcpy(&x, p, 2);
        return x;
    case 4:
        memcpy(&x, p, 4);
        return x;
    default:
        memcpy(&x, p, 8);
        return x;
    }
}

static inline void store_element(char *p, uint64_t x, unsigned size)
{
    if (size == 1)
        *p = (char)x;
    else if (size == 2)
        memcpy(p, &x, 2);
    else if (size == 4)
        memcpy(p, &x, 4);
    else
        memcpy(p, &x, 8);
}

/* A destination that begins inside the source sees its own bytes again: such moves go element by element. */
static uint64_t movs_run(struct vcpu *v, const struct insn *i, uint64_t n)
{
    const char *src = source_run(v, i, &n);
    char *dst = src ? dest_run(v, i, &n, true) : NULL;
    size_t bytes = n * i->opsize;
    if (!dst)
        return 0;
    if ((uintptr_t)dst - (uintptr_t)src - 1 >= bytes - 1)
        memmove(dst, src, bytes);
    else
        for (size_t k = 0; k < bytes; k += i->opsize)
            store_element(dst + k, load_element(src + k, i->opsize), i->opsize);
    advance(v, i, REG_RSI, n);
    advance(v, i, REG_RDI, n);
    return n;
}

/* x in each of the elements of eight bytes. */
static inline uint64_t repeat_element(uint64_t x, unsigned size)
{
    return size == 1 ? x * 0x0101010101010101ull : size == 2 ? x * 0x0001000100010001ull : size == 4 ? x << 32 | x : x;
}

static uint64_t stos_run(struct vcpu *v, const struct insn *i, uint64_t n)
{
    char *dst = dest_run(v, i, &n, true);
    uint64_t x = reg_get(v, REG_RAX, i->opsize);
    if (!dst)
        return 0;
    size_t bytes = n * i->opsize, wide = bytes & ~(size_t)7;
    if (i->opsize == 1 || x == 0) {
        memset(dst, (int)(uint8_t)x, bytes);
    } else {
        for (size_t k = 0; k < wide; k += 8)
            store_element(dst + k, repeat_element(x, i->opsize), 8);
        for (size_t k = wide; k < bytes; k += i->opsize)
            store_element(dst + k, x, i->opsize);
    }
    advance(v, i, REG_RDI, n);
    return n;
}

static uint64_t lods_run(struct vcpu *v, const struct insn *i, uint64_t n)
{
    const char *src = source_run(v, i, &n);
    if (!src)
        return 0;
    reg_set(v, REG_RAX, i->opsize, load_element(src + (n - 1) * i->opsize, i->opsize));
    advance(v, i, REG_RSI, n);
    return n;
}

static inline bool is_repeated_while_equal(const struct insn *i)
{
    return i->flags & INSN_REP;
}

/* Elements at p that certainly do not end a scan for a, less than n. */
static uint64_t scas_skip(const char *p, uint64_t a, unsigned size, uint64_t n, bool while_equal)
{
    uint64_t k = 0, many = repeat_element(a, size);
    unsigned step = 8 / size;
    if (while_equal) {
        while (k + step < n && load_element(p + k * size, 8) == many)
            k += step;
    } else if (size == 1) {
        const char *found = memchr(p, (int)a, n - 1);
        k = found ? (uint64_t)(found - p) : n - 1;
    }
    return k;
}

/* Both stop after the first element that ends the repetition, which is then the one whose flags count. */
static uint64_t scas_run(struct vcpu *v, const struct insn *i, uint64_t n)
{
    const char *p = dest_run(v, i, &n, false);
    uint64_t a = reg_get(v, REG_RAX, i->opsize), k, b;
    bool while_equal = is_repeated_while_equal(i);
    if (!p)
        return 0;
    k = scas_skip(p, a, i->opsize, n, while_equal);
    do {
        b = load_element(p + k * i->opsize, i->opsize);
        k++;
    } while (k < n && (a == b) == while_equal);
    compare(v, i, a, b);
    advance(v, i, REG_RDI, k);
    return k;
}

static uint64_t cmps_run(struct vcpu *v, const struct insn *i, uint64_t n)
{
    const char *p = source_run(v, i, &n), *q = p ? dest_run(v, i, &n, false) : NULL;
    uint64_t k = 0, a, b;
    bool while_equal = is_repeated_while_equal(i);
    if (!q)
        return 0;
    if (while_equal) /* eight equal bytes at a time, but not the last element */
        while ((k + 8u / i->opsize) < n && load_element(p + k * i->opsize, 8) == load_element(q + k * i->opsize, 8))
            k += 8u / i->opsize;
    do {
        a = load_element(p + k * i->opsize, i->opsize);
        b = load_element(q + k * i->opsize, i->opsize);
        k++;
    } while (k < n && (a == b) == while_equal);
    compare(v, i, a, b);
    advance(v, i, REG_RSI, k);
    advance(v, i, REG_RDI, k);
    return k;
}

/* ---- repetition ---- */

struct string_op {
    void (*step)(struct vcpu *v, const struct insn *i);
    uint64_t (*run)(struct vcpu *v, const struct insn *i, uint64_t n); /* iterations done, 0 if it cannot */
    bool compares;
};

static uint64_t rep_count(const struct vcpu *v, const struct insn *i)
{
    return wrap_offset(v->gpr[REG_RCX], i->adsize);
}

/* Makes 1 to n iterations, counts them in rCX and on the clock. */
static uint64_t rep_some(struct vcpu *v, const struct insn *i, const struct string_op *op, uint64_t n)
{
    uint64_t done = is_run_possible(v, i) ? op->run(v, i, n) : 0;
    if (done == 0) {
        op->step(v, i);
        done = 1;
    }
    reg_set(v, REG_RCX, i->adsize, v->gpr[REG_RCX] - done);
    clock_retire(v->clock, done);
    return done;
}

static bool is_rep_over(const struct vcpu *v, const struct insn *i, const struct string_op *op)
{
    return rep_count(v, i) == 0 || (op->compares && flag_zf(v) != is_repeated_while_equal(i));
}

static uint64_t next_rip(const struct vcpu *v, const struct insn *i)
{
    uint64_t rip = insn_next_rip(v, i);
    return v->mode & MODE_CODE64 ? rip : (uint32_t)rip;
}

always_inline void rep_string(struct vcpu *v, const struct insn *i, const struct string_op *op)
{
    uint64_t left = v->rep_budget;
    v->rflags &= ~FLAG_RF;
    if (rep_count(v, i) == 0)
        return block_end_counted(v, i, next_rip(v, i), 1);
    do {
        uint64_t count = rep_count(v, i);
        left -= rep_some(v, i, op, count < left ? count : left);
        if (is_rep_over(v, i, op))
            return block_end_counted(v, i, next_rip(v, i), 0);
    } while (left && !v->attn);
    v->rflags |= FLAG_RF;
    block_end_counted(v, i, insn_rip(v, i), 0);
}

#define STRING_HANDLERS(name, compares)                                                                                \
    static void name##_once(struct vcpu *v, const struct insn *i)                                                      \
    {                                                                                                                  \
        name##_step(v, i);                                                                                             \
        NEXT_MEM(v, i);                                                                                                \
    }                                                                                                                  \
    static void name##_rep(struct vcpu *v, const struct insn *i)                                                       \
    {                                                                                                                  \
        static const struct string_op op = {name##_step, name##_run, compares};                                        \
        rep_string(v, i, &op);                                                                                         \
    }
STRING_HANDLERS(movs, false)
STRING_HANDLERS(stos, false)
STRING_HANDLERS(lods, false)
STRING_HANDLERS(scas, true)
STRING_HANDLERS(cmps, true)

op_fn *bind_string(const struct insn *i, unsigned mode)
{
    bool rep = i->flags & (INSN_REP | INSN_REPNE);
    (void)mode;
    switch (i->op) {
    case OP_MOVS:
        return rep ? movs_rep : movs_once;
    case OP_STOS:
        return rep ? stos_rep : stos_once;
    case OP_LODS:
        return rep ? lods_rep : lods_once;
    case OP_SCAS:
        return rep ? scas_rep : scas_once;
    case OP_CMPS:
        return rep ? cmps_rep : cmps_once;
    default:
        return NULL;
    }
}
