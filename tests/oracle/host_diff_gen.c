/*
 * Random integer instructions of 64-bit code, with operands at which carries and signs change.
 *
 * No access crosses a page unless it is a string's: the test bed has a TLB and no MMU.
 */
#include "tests/oracle/host_diff.h"

/* clang-format off */
#define ALU(op)                                                                                                        \
    {GEN_MAP_1, (op) + 0, -1, GEN_IMM_NONE, 0, F_MODRM | F_BYTE | F_LOCK}, {GEN_MAP_1, (op) + 1, -1, GEN_IMM_NONE, 0, F_MODRM | F_LOCK}, \
        {GEN_MAP_1, (op) + 2, -1, GEN_IMM_NONE, 0, F_MODRM | F_BYTE}, {GEN_MAP_1, (op) + 3, -1, GEN_IMM_NONE, 0, F_MODRM},              \
        {GEN_MAP_1, (op) + 4, -1, GEN_IMM_B, 0, F_BYTE}, {GEN_MAP_1, (op) + 5, -1, GEN_IMM_Z, 0, 0},
#define COMPARE(op)                                                                                                    \
    {GEN_MAP_1, (op) + 0, -1, GEN_IMM_NONE, 0, F_MODRM | F_BYTE}, {GEN_MAP_1, (op) + 1, -1, GEN_IMM_NONE, 0, F_MODRM}, \
        {GEN_MAP_1, (op) + 2, -1, GEN_IMM_NONE, 0, F_MODRM | F_BYTE}, {GEN_MAP_1, (op) + 3, -1, GEN_IMM_NONE, 0, F_MODRM}, \
        {GEN_MAP_1, (op) + 4, -1, GEN_IMM_B, 0, F_BYTE}, {GEN_MAP_1, (op) + 5, -1, GEN_IMM_Z, 0, 0},
#define GROUP1(n)                                                                                                      \
    {GEN_MAP_1, 0x80, n, GEN_IMM_B, 0, F_MODRM | F_BYTE | F_LOCK}, {GEN_MAP_1, 0x81, n, GEN_IMM_Z, 0, F_MODRM | F_LOCK},               \
        {GEN_MAP_1, 0x83, n, GEN_IMM_B, 0, F_MODRM | F_LOCK},
#define SHIFT(n)                                                                                                       \
    {GEN_MAP_1, 0xc0, n, GEN_IMM_B, 0, F_MODRM | F_BYTE}, {GEN_MAP_1, 0xc1, n, GEN_IMM_B, 0, F_MODRM},                                 \
        {GEN_MAP_1, 0xd0, n, GEN_IMM_NONE, 0, F_MODRM | F_BYTE}, {GEN_MAP_1, 0xd1, n, GEN_IMM_NONE, 0, F_MODRM},                       \
        {GEN_MAP_1, 0xd2, n, GEN_IMM_NONE, 0, F_MODRM | F_BYTE | F_CL}, {GEN_MAP_1, 0xd3, n, GEN_IMM_NONE, 0, F_MODRM | F_CL},
#define GROUP3(n, fl)                                                                                                  \
    {GEN_MAP_1, 0xf6, n, GEN_IMM_NONE, 0, F_MODRM | F_BYTE | (fl)}, {GEN_MAP_1, 0xf7, n, GEN_IMM_NONE, 0, F_MODRM | (fl)},
#define CC(cc)                                                                                                         \
    {GEN_MAP_1, 0x70 + (cc), -1, GEN_IMM_NONE, 0, F_BRANCH | F_NO16}, {GEN_MAP_0F, 0x40 + (cc), -1, GEN_IMM_NONE, 0, F_MODRM},         \
        {GEN_MAP_0F, 0x90 + (cc), -1, GEN_IMM_NONE, 0, F_MODRM | F_BYTE},
#define BITS(op, n)                                                                                                    \
    {GEN_MAP_0F, op, -1, GEN_IMM_NONE, 0, F_MODRM | F_BITS}, {GEN_MAP_0F, 0xba, n, GEN_IMM_B, 0, F_MODRM},
#define STRINGS(op, fl) {GEN_MAP_1, op, -1, GEN_IMM_NONE, 0, F_STRING | F_BYTE | (fl)}, {GEN_MAP_1, (op) + 1, -1, GEN_IMM_NONE, 0, F_STRING | (fl)},
#define R8(op, imm, fl) {GEN_MAP_1, op, -1, imm, 0, F_OPREG | (fl)}, {GEN_MAP_1, (op) + 3, -1, imm, 0, F_OPREG | (fl)}, \
        {GEN_MAP_1, (op) + 5, -1, imm, 0, F_OPREG | (fl)}, {GEN_MAP_1, (op) + 6, -1, imm, 0, F_OPREG | (fl)},

static const struct form forms[] = {
    ALU(0x00) ALU(0x08) ALU(0x10) ALU(0x18) ALU(0x20) ALU(0x28) ALU(0x30)
    GROUP1(0) GROUP1(1) GROUP1(2) GROUP1(3) GROUP1(4) GROUP1(5) GROUP1(6)
    {GEN_MAP_1, 0x80, 7, GEN_IMM_B, 0, F_MODRM | F_BYTE}, {GEN_MAP_1, 0x81, 7, GEN_IMM_Z, 0, F_MODRM}, {GEN_MAP_1, 0x83, 7, GEN_IMM_B, 0, F_MODRM},
    COMPARE(0x38)
    SHIFT(0) SHIFT(1) SHIFT(2) SHIFT(3) SHIFT(4) SHIFT(5) SHIFT(6) SHIFT(7)
    GROUP3(2, F_LOCK) GROUP3(3, F_LOCK) GROUP3(4, 0) GROUP3(5, 0) GROUP3(6, F_DIV) GROUP3(7, F_DIV)
    {GEN_MAP_1, 0xf6, 0, GEN_IMM_B, 0, F_MODRM | F_BYTE}, {GEN_MAP_1, 0xf7, 0, GEN_IMM_Z, 0, F_MODRM},
    {GEN_MAP_1, 0xfe, 0, GEN_IMM_NONE, 0, F_MODRM | F_BYTE | F_LOCK}, {GEN_MAP_1, 0xfe, 1, GEN_IMM_NONE, 0, F_MODRM | F_BYTE | F_LOCK},
    {GEN_MAP_1, 0xff, 0, GEN_IMM_NONE, 0, F_MODRM | F_LOCK}, {GEN_MAP_1, 0xff, 1, GEN_IMM_NONE, 0, F_MODRM | F_LOCK},
    {GEN_MAP_1, 0x84, -1, GEN_IMM_NONE, 0, F_MODRM | F_BYTE}, {GEN_MAP_1, 0x85, -1, GEN_IMM_NONE, 0, F_MODRM},
    {GEN_MAP_1, 0xa8, -1, GEN_IMM_B, 0, F_BYTE}, {GEN_MAP_1, 0xa9, -1, GEN_IMM_Z, 0, 0},
    {GEN_MAP_1, 0x86, -1, GEN_IMM_NONE, 0, F_MODRM | F_BYTE | F_LOCK | F_ALIGN}, {GEN_MAP_1, 0x87, -1, GEN_IMM_NONE, 0, F_MODRM | F_LOCK | F_ALIGN},
    R8(0x90, GEN_IMM_NONE, 0) R8(0xb0, GEN_IMM_B, F_BYTE) R8(0xb8, GEN_IMM_V, 0)
    {GEN_MAP_1, 0x88, -1, GEN_IMM_NONE, 0, F_MODRM | F_BYTE}, {GEN_MAP_1, 0x89, -1, GEN_IMM_NONE, 0, F_MODRM},
    {GEN_MAP_1, 0x8a, -1, GEN_IMM_NONE, 0, F_MODRM | F_BYTE}, {GEN_MAP_1, 0x8b, -1, GEN_IMM_NONE, 0, F_MODRM},
    {GEN_MAP_1, 0xc6, 0, GEN_IMM_B, 0, F_MODRM | F_BYTE}, {GEN_MAP_1, 0xc7, 0, GEN_IMM_Z, 0, F_MODRM},
    {GEN_MAP_1, 0xa0, -1, GEN_IMM_NONE, 0, F_MOFFS | F_BYTE}, {GEN_MAP_1, 0xa1, -1, GEN_IMM_NONE, 0, F_MOFFS},
    {GEN_MAP_1, 0xa2, -1, GEN_IMM_NONE, 0, F_MOFFS | F_BYTE}, {GEN_MAP_1, 0xa3, -1, GEN_IMM_NONE, 0, F_MOFFS},
    {GEN_MAP_1, 0x8d, -1, GEN_IMM_NONE, 0, F_MODRM | F_MEM}, {GEN_MAP_1, 0x63, -1, GEN_IMM_NONE, 0, F_MODRM},
    {GEN_MAP_0F, 0xb6, -1, GEN_IMM_NONE, 0, F_MODRM}, {GEN_MAP_0F, 0xb7, -1, GEN_IMM_NONE, 0, F_MODRM},
    {GEN_MAP_0F, 0xbe, -1, GEN_IMM_NONE, 0, F_MODRM}, {GEN_MAP_0F, 0xbf, -1, GEN_IMM_NONE, 0, F_MODRM},
    {GEN_MAP_1, 0x98, -1, GEN_IMM_NONE, 0, 0}, {GEN_MAP_1, 0x99, -1, GEN_IMM_NONE, 0, 0},
    {GEN_MAP_1, 0x69, -1, GEN_IMM_Z, 0, F_MODRM}, {GEN_MAP_1, 0x6b, -1, GEN_IMM_B, 0, F_MODRM}, {GEN_MAP_0F, 0xaf, -1, GEN_IMM_NONE, 0, F_MODRM},
    CC(0) CC(1) CC(2) CC(3) CC(4) CC(5) CC(6) CC(7) CC(8) CC(9) CC(10) CC(11) CC(12) CC(13) CC(14) CC(15)
    BITS(0xa3, 4) BITS(0xab, 5) BITS(0xb3, 6) BITS(0xbb, 7)
    {GEN_MAP_0F, 0xa4, -1, GEN_IMM_B, 0, F_MODRM}, {GEN_MAP_0F, 0xac, -1, GEN_IMM_B, 0, F_MODRM},
    {GEN_MAP_0F, 0xa5, -1, GEN_IMM_NONE, 0, F_MODRM | F_CL}, {GEN_MAP_0F, 0xad, -1, GEN_IMM_NONE, 0, F_MODRM | F_CL},
    {GEN_MAP_0F, 0xbc, -1, GEN_IMM_NONE, 0, F_MODRM}, {GEN_MAP_0F, 0xbd, -1, GEN_IMM_NONE, 0, F_MODRM},
    {GEN_MAP_0F, 0xbc, -1, GEN_IMM_NONE, 0xf3, F_MODRM}, {GEN_MAP_0F, 0xbd, -1, GEN_IMM_NONE, 0xf3, F_MODRM},
    {GEN_MAP_0F, 0xb8, -1, GEN_IMM_NONE, 0xf3, F_MODRM},
    {GEN_MAP_0F, 0xc0, -1, GEN_IMM_NONE, 0, F_MODRM | F_BYTE | F_LOCK}, {GEN_MAP_0F, 0xc1, -1, GEN_IMM_NONE, 0, F_MODRM | F_LOCK},
    {GEN_MAP_0F, 0xb0, -1, GEN_IMM_NONE, 0, F_MODRM | F_BYTE | F_LOCK | F_ACC}, {GEN_MAP_0F, 0xb1, -1, GEN_IMM_NONE, 0, F_MODRM | F_LOCK | F_ACC},
    {GEN_MAP_0F, 0xc7, 1, GEN_IMM_NONE, 0, F_MODRM | F_MEM | F_NO16 | F_LOCK | F_PAIR | F_ALIGN},
    {GEN_MAP_0F, 0xc8, -1, GEN_IMM_NONE, 0, F_OPREG | F_NO16}, {GEN_MAP_0F, 0xcb, -1, GEN_IMM_NONE, 0, F_OPREG | F_NO16},
    {GEN_MAP_0F, 0xce, -1, GEN_IMM_NONE, 0, F_OPREG | F_NO16},
    {GEN_MAP_38, 0xf0, -1, GEN_IMM_NONE, 0, F_MODRM | F_MEM}, {GEN_MAP_38, 0xf1, -1, GEN_IMM_NONE, 0, F_MODRM | F_MEM},
    {GEN_MAP_38, 0xf0, -1, GEN_IMM_NONE, 0xf2, F_MODRM | F_BYTE}, {GEN_MAP_38, 0xf1, -1, GEN_IMM_NONE, 0xf2, F_MODRM},
    {GEN_MAP_38, 0xf6, -1, GEN_IMM_NONE, 0x66, F_MODRM | F_NO16}, {GEN_MAP_38, 0xf6, -1, GEN_IMM_NONE, 0xf3, F_MODRM | F_NO16},
    {GEN_MAP_0F, 0xc3, -1, GEN_IMM_NONE, 0, F_MODRM | F_MEM | F_NO16},
    {GEN_MAP_1, 0xd7, -1, GEN_IMM_NONE, 0, F_BX | F_BYTE},
    {GEN_MAP_1, 0xf5, -1, GEN_IMM_NONE, 0, 0}, {GEN_MAP_1, 0xf8, -1, GEN_IMM_NONE, 0, 0}, {GEN_MAP_1, 0xf9, -1, GEN_IMM_NONE, 0, 0},
    {GEN_MAP_1, 0xfc, -1, GEN_IMM_NONE, 0, 0}, {GEN_MAP_1, 0xfd, -1, GEN_IMM_NONE, 0, 0}, {GEN_MAP_1, 0x9e, -1, GEN_IMM_NONE, 0, 0}, {GEN_MAP_1, 0x9f, -1, GEN_IMM_NONE, 0, 0},
    {GEN_MAP_0F, 0x1f, 0, GEN_IMM_NONE, 0, F_MODRM},
    STRINGS(0xa4, 0) STRINGS(0xa6, F_REP) STRINGS(0xaa, 0) STRINGS(0xac, 0) STRINGS(0xae, F_REP)
    STRINGS(0xa4, 0) STRINGS(0xa6, F_REP) STRINGS(0xaa, 0) STRINGS(0xac, 0) STRINGS(0xae, F_REP)
    {GEN_MAP_1, 0x50, -1, GEN_IMM_NONE, 0, F_OPREG | F_STACK}, {GEN_MAP_1, 0x54, -1, GEN_IMM_NONE, 0, F_OPREG | F_STACK},
    {GEN_MAP_1, 0x58, -1, GEN_IMM_NONE, 0, F_OPREG | F_STACK}, {GEN_MAP_1, 0x5c, -1, GEN_IMM_NONE, 0, F_OPREG | F_STACK},
    {GEN_MAP_1, 0x68, -1, GEN_IMM_Z, 0, F_STACK}, {GEN_MAP_1, 0x6a, -1, GEN_IMM_B, 0, F_STACK},
    {GEN_MAP_1, 0xff, 6, GEN_IMM_NONE, 0, F_MODRM | F_STACK}, {GEN_MAP_1, 0x8f, 0, GEN_IMM_NONE, 0, F_MODRM | F_STACK},
    {GEN_MAP_1, 0x9c, -1, GEN_IMM_NONE, 0, F_STACK}, {GEN_MAP_1, 0x9d, -1, GEN_IMM_NONE, 0, F_STACK | F_POPF},
    {GEN_MAP_1, 0xc8, -1, GEN_IMM_WB, 0, F_STACK}, {GEN_MAP_1, 0xc9, -1, GEN_IMM_NONE, 0, F_STACK},
    {GEN_MAP_1, 0xe0, -1, GEN_IMM_NONE, 0, F_BRANCH | F_NO16 | F_COUNT}, {GEN_MAP_1, 0xe1, -1, GEN_IMM_NONE, 0, F_BRANCH | F_NO16 | F_COUNT},
    {GEN_MAP_1, 0xe2, -1, GEN_IMM_NONE, 0, F_BRANCH | F_NO16 | F_COUNT}, {GEN_MAP_1, 0xe3, -1, GEN_IMM_NONE, 0, F_BRANCH | F_NO16 | F_COUNT},
    {GEN_MAP_1, 0xeb, -1, GEN_IMM_NONE, 0, F_BRANCH | F_NO16},
    {GEN_MAP_38, 0xf2, -1, GEN_IMM_NONE, 0, F_MODRM | F_VEX}, {GEN_MAP_38, 0xf3, 1, GEN_IMM_NONE, 0, F_MODRM | F_VEX},
    {GEN_MAP_38, 0xf3, 2, GEN_IMM_NONE, 0, F_MODRM | F_VEX}, {GEN_MAP_38, 0xf3, 3, GEN_IMM_NONE, 0, F_MODRM | F_VEX},
    {GEN_MAP_38, 0xf5, -1, GEN_IMM_NONE, 0, F_MODRM | F_VEX}, {GEN_MAP_38, 0xf5, -1, GEN_IMM_NONE, 0xf2, F_MODRM | F_VEX},
    {GEN_MAP_38, 0xf5, -1, GEN_IMM_NONE, 0xf3, F_MODRM | F_VEX}, {GEN_MAP_38, 0xf6, -1, GEN_IMM_NONE, 0xf2, F_MODRM | F_VEX},
    {GEN_MAP_38, 0xf7, -1, GEN_IMM_NONE, 0, F_MODRM | F_VEX}, {GEN_MAP_38, 0xf7, -1, GEN_IMM_NONE, 0x66, F_MODRM | F_VEX},
    {GEN_MAP_38, 0xf7, -1, GEN_IMM_NONE, 0xf2, F_MODRM | F_VEX}, {GEN_MAP_38, 0xf7, -1, GEN_IMM_NONE, 0xf3, F_MODRM | F_VEX},
    {GEN_MAP_3A, 0xf0, -1, GEN_IMM_B, 0xf2, F_MODRM | F_VEX},
};
/* clang-format on */

uint64_t random64(struct bed *b)
{
    uint64_t z = (b->rng += 0x9e3779b97f4a7c15ull);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

unsigned random_below(struct bed *b, unsigned n)
{
    return (unsigned)(random64(b) % n);
}

static bool one_in(struct bed *b, unsigned n)
{
    return random_below(b, n) == 0;
}

static uint64_t random_value(struct bed *b)
{
    static const uint64_t edge[] = {0,          1,           2,         0x7f,       0x80,       0xff,
                                    0x100,      0x7fff,      0x8000,    0xffff,     0x7fffffff, 0x80000000,
                                    0xffffffff, 0x100000000, INT64_MAX, 1ull << 63, ~1ull,      ~0ull};
    switch (random_below(b, 4)) {
    case 0:
        return edge[random_below(b, ARRAY_LEN(edge))];
    case 1:
        return edge[random_below(b, ARRAY_LEN(edge))] + random_below(b, 5) - 2;
    case 2:
        return random64(b) >> random_below(b, 64);
    default:
        return random64(b);
    }
}

static bool is_form_native(const struct bed *b, const struct form *f)
{
    if (f->flags & F_VEX)
        return b->has_bmi;
    return f->map != GEN_MAP_38 || f->opcode != 0xf6 || b->has_adx;
}

/* ---- operands ---- */

/* The middle of a page: room for frames and bit offsets on both sides. */
static uint64_t random_middle(struct bed *b)
{
    return (uintptr_t)b->data + random_below(b, DATA_PAGES) * PAGE_SIZE + 0x600 + random_below(b, 0x400);
}

static uint64_t random_target(struct bed *b, bool aligned)
{
    uint64_t off = random_below(b, DATA_PAGES) * PAGE_SIZE + random_below(b, PAGE_SIZE - 16);
    return (uintptr_t)b->data + (aligned ? off & ~15ull : off);
}

static void choose_sizes(struct bed *b, struct test_case *t, bool osz, unsigned rex)
{
    uint32_t fl = t->form->flags;
    t->opsize = fl & F_BYTE ? 1 : rex & 8 ? 8 : osz ? 2 : 4;
    if (fl & F_STACK && !osz)
        t->opsize = 8;
    t->adsize = !(fl & F_STACK) && one_in(b, 8) ? 4 : 8;
}

/* ModRM's and SIB's parts other than ModRM.reg. */
static void choose_address(struct bed *b, struct test_case *t, unsigned rex)
{
    unsigned rm = random_below(b, 8);
    t->mod = random_below(b, 3);
    t->disp = t->mod == 1 ? (int8_t)random64(b) : t->mod == 2 ? (int32_t)random64(b) : 0;
    t->has_sib = rm == 4;
    if (t->has_sib) {
        t->shift = random_below(b, 4);
        rm = random_below(b, 8);
        t->index = (int)(random_below(b, 8) | (rex & 2) << 2);
    }
    if (t->mod == 0 && rm == 5 && t->has_sib)
        rm = 3; /* no base: the address would have to be in the displacement */
    t->base = t->mod == 0 && rm == 5 ? -1 : (int)(rm | (rex & 1) << 3);
    if (t->index == t->base)
        t->index ^= 1;
    if (t->index == 4)
        t->index = -1;
    if (t->form->flags & F_STACK && t->base == REG_RSP)
        t->disp = (int8_t)t->disp;
}

static unsigned choose_reg(struct bed *b, const struct test_case *t, unsigned rex)
{
    unsigned reg;
    if (t->form->digit >= 0)
        return (unsigned)t->form->digit;
    do
        reg = random_below(b, 8);
    while (t->form->flags & F_BITS && t->memory &&
           ((int)(reg | (rex & 4) << 1) == t->base || (int)(reg | (rex & 4) << 1) == t->index));
    return reg;
}

/* Gives base and index values that lead to the target. */
static void aim(struct bed *b, struct test_case *t)
{
    /* RSP stays near the target if it is needed as the stack pointer, too */
    uint64_t index_mask = t->form->flags & F_STACK && t->base == REG_RSP ? 7 : ~0ull;
    if (t->base < 0)
        return;
    t->gpr[t->base] = t->target - (uint64_t)(int64_t)t->disp;
    if (t->index >= 0)
        t->gpr[t->base] -= (t->gpr[t->index] &= index_mask) << t->shift;
    if (t->adsize == 4)
        t->gpr[t->base] = (uint32_t)t->gpr[t->base] | random64(b) << 32;
}

/* ---- bytes ---- */

static void put(struct test_case *t, uint64_t x, unsigned bytes)
{
    memcpy(t->bytes + t->len, &x, bytes);
    t->len += bytes;
}

static void put_prefixes(struct bed *b, struct test_case *t, bool osz)
{
    const struct form *f = t->form;
    if (osz)
        put(t, 0x66, 1);
    if (t->adsize == 4)
        put(t, 0x67, 1);
    if (t->locked)
        put(t, 0xf0, 1);
    if (f->prefix && !(f->flags & F_VEX))
        put(t, f->prefix, 1);
    if (f->flags & F_STRING && !one_in(b, 4))
        put(t, f->flags & F_REP && one_in(b, 2) ? 0xf2 : 0xf3, 1);
}

static void put_vex(struct bed *b, struct test_case *t, unsigned rex)
{
    const struct form *f = t->form;
    unsigned pp = f->prefix == 0x66 ? 1 : f->prefix == 0xf3 ? 2 : f->prefix == 0xf2 ? 3 : 0;
    unsigned vvvv = f->map == GEN_MAP_3A ? 15 : random_below(b, 16);
    put(t, 0xc4, 1);
    put(t, ((rex & 7) ^ 7) << 5 | (f->map == GEN_MAP_38 ? 2 : 3), 1);
    put(t, (rex & 8) << 4 | vvvv << 3 | pp, 1);
    put(t, f->opcode, 1);
}

static void put_opcode(struct bed *b, struct test_case *t, unsigned rex)
{
    const struct form *f = t->form;
    if (f->flags & F_VEX) {
        put_vex(b, t, rex);
        return;
    }
    if (rex)
        put(t, rex, 1);
    if (f->map != GEN_MAP_1)
        put(t, 0x0f, 1);
    if (f->map >= GEN_MAP_38)
        put(t, f->map == GEN_MAP_38 ? 0x38 : 0x3a, 1);
    put(t, f->opcode, 1);
}

/* Returns where a RIP-relative displacement is, or 0. */
static unsigned put_modrm(struct bed *b, struct test_case *t, unsigned reg)
{
    unsigned at = t->len + 1;
    if (!t->memory) {
        put(t, 0xc0 | reg << 3 | random_below(b, 8), 1);
        return 0;
    }
    if (t->base < 0) {
        put(t, reg << 3 | 5, 1);
        put(t, 0, 4);
        return at;
    }
    put(t, t->mod << 6 | reg << 3 | (t->has_sib ? 4 : (unsigned)t->base & 7), 1);
    if (t->has_sib)
        put(t, t->shift << 6 | (t->index < 0 ? 4u : (unsigned)t->index & 7) << 3 | ((unsigned)t->base & 7), 1);
    if (t->mod)
        put(t, (uint64_t)(int64_t)t->disp, t->mod == 1 ? 1 : 4);
    return 0;
}

static void put_immediate(struct bed *b, struct test_case *t)
{
    switch (t->form->imm) {
    case GEN_IMM_B:
        put(t, random_value(b), 1);
        break;
    case GEN_IMM_Z:
        put(t, random_value(b), t->opsize == 8 ? 4 : t->opsize);
        break;
    case GEN_IMM_V:
        put(t, random_value(b), t->opsize);
        break;
    case GEN_IMM_WB:
        put(t, random_below(b, 64), 2);
        put(t, one_in(b, 4) ? 0x20 : random_below(b, 6), 1);
        break;
    default:
        break;
    }
    if (t->form->flags & F_MOFFS)
        put(t, t->target, t->adsize);
    if (t->form->flags & F_BRANCH)
        put(t, BRANCH_DISTANCE, 1);
}

/* ---- registers and memory that the form asks for ---- */

static void prepare_stack(struct bed *b, struct test_case *t)
{
    uint64_t image = random64(b) & (FLAGS_ARITH | FLAG_DF | FLAG_ID);
    if (t->base != REG_RSP)
        t->gpr[REG_RSP] = random_middle(b);
    if (t->base != REG_RBP && t->index != REG_RBP)
        t->gpr[REG_RBP] = random_middle(b);
    if (t->form->flags & F_POPF)
        memcpy((void *)(uintptr_t)t->gpr[REG_RSP], &image, 8);
}

#define MAX_ELEMENTS 600u

static uint64_t random_string(struct bed *b, const struct test_case *t)
{
    unsigned span = DATA_SIZE / 2 - MAX_ELEMENTS * 8 - 512;
    uint64_t at = (uintptr_t)b->data + DATA_SIZE / 2 + random_below(b, 2 * span) - span;
    return at & ~(uint64_t)(t->opsize - 1);
}

static void prepare_string(struct bed *b, struct test_case *t)
{
    t->gpr[REG_RSI] = random_string(b, t);
    t->gpr[REG_RDI] = one_in(b, 3) ? random_string(b, t)
                                   : t->gpr[REG_RSI] + (uint64_t)t->opsize * random_below(b, 64) - 32u * t->opsize;
    t->gpr[REG_RCX] = one_in(b, 2) ? random_below(b, 12) : random_below(b, MAX_ELEMENTS);
    if (t->adsize == 4) {
        t->gpr[REG_RSI] |= random64(b) << 32;
        t->gpr[REG_RDI] |= random64(b) << 32;
        t->gpr[REG_RCX] |= random64(b) << 32;
    }
    if (one_in(b, 2)) { /* long equal stretches, so that comparisons get somewhere */
        unsigned from = random_below(b, DATA_SIZE / 2);
        memset(b->data + from, (int)(t->gpr[REG_RAX] & 0xff), random_below(b, DATA_SIZE - from));
        t->gpr[REG_RAX] = (t->gpr[REG_RAX] & 0xff) * 0x0101010101010101ull;
    }
}

static bool is_free(const struct test_case *t, int reg)
{
    return t->base != reg && t->index != reg;
}

static void prepare(struct bed *b, struct test_case *t, unsigned reg, unsigned rex)
{
    uint32_t fl = t->form->flags;
    uint64_t operand[2];
    memcpy(operand, (const void *)(uintptr_t)t->target, sizeof operand);
    if (fl & F_BITS && t->memory)
        t->gpr[reg | (rex & 4) << 1] = (uint64_t)random_below(b, 1600) - 800;
    if (fl & F_STACK)
        prepare_stack(b, t);
    if (fl & F_STRING)
        prepare_string(b, t);
    if (fl & F_BX)
        t->gpr[REG_RBX] = t->target - (uint8_t)t->gpr[REG_RAX];
    if (fl & F_CL && is_free(t, REG_RCX) && one_in(b, 2))
        t->gpr[REG_RCX] = random_below(b, 70);
    if (fl & F_COUNT && one_in(b, 2))
        t->gpr[REG_RCX] = random_below(b, 2);
    if (fl & (F_ACC | F_PAIR) && is_free(t, REG_RAX) && is_free(t, REG_RDX) && one_in(b, 2)) {
        t->gpr[REG_RAX] = t->memory ? operand[0] : t->gpr[t->bytes[t->len - 1] & 7];
        if (fl & F_PAIR)
            t->gpr[REG_RDX] = t->opsize == 8 ? operand[1] : operand[0] >> 32;
    }
    if (fl & F_DIV && is_free(t, REG_RDX) && one_in(b, 2))
        t->gpr[REG_RDX] = one_in(b, 2) ? random_below(b, 3) : -(uint64_t)random_below(b, 3);
}

static uint64_t choose_target(struct bed *b, const struct test_case *t)
{
    if (t->form->flags & F_BITS || (t->form->flags & F_STACK && t->base == REG_RSP))
        return random_middle(b);
    return random_target(b, t->locked || t->form->flags & F_ALIGN);
}

void case_generate(struct bed *b, struct test_case *t)
{
    const struct form *f;
    do
        f = &forms[random_below(b, ARRAY_LEN(forms))];
    while (!is_form_native(b, f));
    bool osz = !(f->flags & (F_BYTE | F_NO16 | F_VEX)) && one_in(b, 4);
    unsigned rex = f->flags & F_VEX || one_in(b, 2) ? 0x40 | random_below(b, 16) : 0, rip_at = 0;
    if (f->flags & F_BYTE || osz)
        rex &= ~8u;
    memset(t, 0, sizeof *t);
    t->form = f;
    t->base = t->index = -1;
    for (unsigned r = 0; r < 16; r++)
        t->gpr[r] = random_value(b);
    for (unsigned k = 0; k < DATA_SIZE; k += 8)
        *(uint64_t *)(void *)(b->data + k) = k & 64 ? random64(b) : random_value(b);
    choose_sizes(b, t, osz, rex);
    t->memory = f->flags & F_MODRM && (f->flags & F_MEM || one_in(b, 2));
    t->locked = t->memory && f->flags & F_LOCK && one_in(b, 4);
    if (t->memory)
        choose_address(b, t, rex);
    t->target = choose_target(b, t);
    unsigned reg = choose_reg(b, t, rex);
    put_prefixes(b, t, osz);
    put_opcode(b, t, rex);
    if (f->flags & F_MODRM)
        rip_at = put_modrm(b, t, reg);
    aim(b, t);
    prepare(b, t, reg, rex);
    put_immediate(b, t);
    if (rip_at) {
        uint32_t disp = (uint32_t)(t->target - (uintptr_t)b->code - t->len);
        memcpy(t->bytes + rip_at, &disp, 4);
    }
}
