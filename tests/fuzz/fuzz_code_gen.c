/*
 * Instruction bytes: encodings that the decoder accepts, sequences that make something happen, and noise.
 */
#include "fuzz_code.h"

#include "cpu/optable.h"

#include <string.h>

struct emitter {
    struct world *w;
    struct rng *rng;
    uint8_t *out;
    size_t len, at;
    bool wide; /* 64-bit code */
    bool word; /* 16-bit code */
};

static void put(struct emitter *e, uint64_t v, unsigned bytes)
{
    for (unsigned k = 0; k < bytes && e->at < e->len; k++)
        e->out[e->at++] = (uint8_t)(v >> 8 * k);
}

#define PUT(e, ...)                                                                                                    \
    do {                                                                                                               \
        const uint8_t put_bytes[] = {__VA_ARGS__};                                                                     \
        for (size_t put_k = 0; put_k < sizeof put_bytes; put_k++)                                                      \
            put((e), put_bytes[put_k], 1);                                                                             \
    } while (0)

/* In 16-bit code a 66 makes the operand 32 bits wide. */
static void put_osz(struct emitter *e)
{
    if (e->word)
        put(e, 0x66, 1);
}

static void put_rex_w(struct emitter *e)
{
    if (e->wide)
        put(e, 0x48, 1);
    else
        put_osz(e);
}

static void mov_reg(struct emitter *e, unsigned reg, uint64_t v)
{
    put_rex_w(e);
    put(e, 0xb8 + reg, 1);
    put(e, v, e->wide ? 8 : 4);
}

/* ---- accepted encodings ---- */

static unsigned raw_bytes(struct emitter *e, uint8_t *b)
{
    static const uint8_t prefixes[] = {0x66, 0xf2, 0xf3, 0xf0, 0x67, 0x2e, 0x36, 0x3e, 0x26, 0x64, 0x65};
    unsigned n = 0;
    while (n < 3 && rng_one_in(e->rng, 4))
        b[n++] = RNG_PICK(e->rng, prefixes);
    if (e->wide && rng_one_in(e->rng, 2))
        b[n++] = (uint8_t)(0x40 | rng_below(e->rng, 16));
    switch (rng_below(e->rng, 8)) {
    case 0:
    case 1:
    case 2:
        b[n++] = 0x0f;
        break;
    case 3:
        b[n++] = 0x0f;
        b[n++] = rng_one_in(e->rng, 2) ? 0x38 : 0x3a;
        break;
    case 4:
        b[n++] = (uint8_t)(0xd8 + rng_below(e->rng, 8)); /* x87 */
        break;
    default:
        break;
    }
    rng_bytes(e->rng, b + n, 16 - n);
    if (rng_one_in(e->rng, 2)) /* a displacement or immediate that is small */
        memset(b + n + 3, rng_one_in(e->rng, 2) ? 0 : 0xff, 16 - n - 3);
    return n;
}

/* The prefix that selects the form: none, 66, F3, F2. */
static uint8_t form_prefix(const struct op_form *f)
{
    static const uint8_t byte[8] = {[PP_P66] = 0x66, [PP_PF3] = 0xf3, [PP_PF2] = 0xf2};
    return byte[f->prefix & PP_KIND];
}

static uint8_t form_modrm(struct emitter *e, const struct op_form *f)
{
    uint8_t any = (uint8_t)rng_next(e->rng);
    if (f->modrm >= 0xc0)
        return f->modrm;
    if (f->modrm >= RM_D(0))
        any = (uint8_t)((any & 0xc7) | (f->modrm & 7) << 3);
    if (f->modrm == RM_REG || (f->modrm >= RM_DR(0)))
        any |= 0xc0;
    return any;
}

static unsigned put_opcode(struct emitter *e, const struct op_form *f, uint8_t *b)
{
    static const uint8_t pp[8] = {[PP_P66] = 1, [PP_PF3] = 2, [PP_PF2] = 3};
    static const uint8_t escape[MAP_COUNT] = {[MAP_38] = 0x38, [MAP_3A] = 0x3a};
    unsigned map = f->key >> 8, n = 0;
    uint8_t any = (uint8_t)rng_next(e->rng), low = f->props & PROP_OPREG ? 7 : f->props & PROP_CC ? 15 : 0;
    uint8_t opcode = (uint8_t)((f->key & 0xff) | (any & low));
    if (map >= MAP_V0F) {
        b[n++] = 0xc4;
        b[n++] = (uint8_t)((any | (e->wide ? 0 : 0xe0)) & 0xe0) | (uint8_t)(map - MAP_V0F + 1);
        b[n++] = (uint8_t)((rng_next(e->rng) & 0xfc) | pp[f->prefix & PP_KIND]);
    } else {
        if (form_prefix(f))
            b[n++] = form_prefix(f);
        if (e->wide && rng_one_in(e->rng, 2))
            b[n++] = (uint8_t)(0x40 | (any >> 4));
        if (map != MAP_ONE)
            b[n++] = 0x0f;
        if (escape[map])
            b[n++] = escape[map];
    }
    b[n++] = opcode;
    return n;
}

/* Bytes of a row of the table, more or less. */
static void row_bytes(struct emitter *e, uint8_t *b)
{
    static const uint8_t prefixes[] = {0x66, 0xf2, 0xf3, 0xf0, 0x67, 0x64};
    const struct op_form *f = &optable_forms[rng_below(e->rng, optable_form_count)];
    unsigned n = 0;
    if (f->key >> 8 >= MAP_V0F && !rng_one_in(e->rng, 2))
        f = &optable_forms[rng_below(e->rng, optable_form_count)];
    if (rng_one_in(e->rng, 6))
        b[n++] = RNG_PICK(e->rng, prefixes);
    n += put_opcode(e, f, b + n);
    rng_bytes(e->rng, b + n, 16 - n);
    if (f->modrm != RM_0)
        b[n++] = form_modrm(e, f);
    if (rng_one_in(e->rng, 2)) /* a displacement or immediate that is small */
        memset(b + n + 1, rng_one_in(e->rng, 2) ? 0 : 0xff, 16 - n - 1);
}

static void put_accepted(struct emitter *e)
{
    struct insn insn;
    uint8_t b[16];
    for (unsigned tries = 0; tries < 20; tries++) {
        if (rng_one_in(e->rng, 3))
            raw_bytes(e, b);
        else
            row_bytes(e, b);
        if (insn_decode(&insn, b, 15, e->w->decode_mode, 0) != DECODE_OK)
            continue;
        for (unsigned k = 0; k < insn.len; k++)
            put(e, b[k], 1);
        return;
    }
}

static void put_noise(struct emitter *e)
{
    for (uint64_t n = 1 + rng_below(e->rng, 8); n; n--)
        put(e, rng_next(e->rng), 1);
}

/* ---- sequences ---- */

static void put_msr(struct emitter *e)
{
    static const uint32_t msrs[] = {
        0x10,       0x1b,       0x3a,       0x3b,       0x48,       0x79,       0x8b,       0xe7,       0xe8,
        0xfe,       0x174,      0x175,      0x176,      0x17a,      0x1a0,      0x1d9,      0x200,      0x201,
        0x20f,      0x250,      0x258,      0x26f,      0x277,      0x2ff,      0x6e0,      0x802,      0x808,
        0x80b,      0x80d,      0x80f,      0x820,      0x830,      0x832,      0x838,      0x83e,      0x83f,
        0xda0,      0xc0000080, 0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0xc0000100, 0xc0000101, 0xc0000102,
        0xc0000103, 0xc0000104, 0xe1,       0x1d,       0x40000000};
    mov_reg(e, REG_RCX, RNG_PICK(e->rng, msrs) + (rng_one_in(e->rng, 16) ? rng_below(e->rng, 64) : 0));
    if (rng_one_in(e->rng, 3)) {
        PUT(e, 0x0f, 0x32);
        put_osz(e);
        PUT(e, 0x0f, 0xba, 0xf8, (uint8_t)rng_below(e->rng, 32)); /* btc eax, n */
    } else {
        uint64_t v = scene_value(e->w);
        mov_reg(e, REG_RAX, v & 0xffffffff);
        mov_reg(e, REG_RDX, rng_one_in(e->rng, 3) ? v >> 32 : 0);
    }
    PUT(e, 0x0f, 0x30);
}

/* One bit of a control register, or another table. */
static void put_control(struct emitter *e)
{
    static const uint8_t cr0_bits[] = {0, 1, 2, 3, 16, 18, 29, 30, 31};
    static const uint8_t cr4_bits[] = {0, 1, 2, 3, 4, 5, 7, 9, 10, 11, 16, 17, 18, 20, 21, 22};
    static const uint32_t roots[] = {SCENE_TABLES, SCENE_TABLES + 0x8000, SCENE_TABLES + 0xc000, SCENE_TABLES + 0x1000};
    bool four = rng_one_in(e->rng, 2);
    uint8_t modrm = four ? 0xe0 : 0xc0;
    if (rng_one_in(e->rng, 3)) {
        mov_reg(e, REG_RAX, RNG_PICK(e->rng, roots) | rng_below(e->rng, 2) << rng_below(e->rng, 12));
        PUT(e, 0x0f, 0x22, 0xd8);
        return;
    }
    PUT(e, 0x0f, 0x20, modrm);
    put_rex_w(e);
    PUT(e, 0x0f, 0xba, 0xf8, four ? RNG_PICK(e->rng, cr4_bits) : RNG_PICK(e->rng, cr0_bits));
    PUT(e, 0x0f, 0x22, modrm);
}

static void put_port(struct emitter *e)
{
    static const uint16_t ports[] = {0x20,  0x21,  0xa0,  0xa1,  0x40,  0x41,  0x42,  0x43,  0x61,  0x60,  0x64,  0x70,
                                     0x71,  0x92,  0xb2,  0xb3,  0xe9,  0xf4,  0x3f8, 0x3f9, 0x3fa, 0x3fb, 0x3fc, 0x3fd,
                                     0x4d0, 0x510, 0x511, 0x514, 0x518, 0x600, 0x604, 0x608, 0xcf8, 0xcf9, 0xcfc, 0x80};
    static const uint8_t ops[] = {0xec, 0xed, 0xee, 0xef, 0xee, 0xef, 0x6c, 0x6d, 0x6e, 0x6f};
    mov_reg(e, REG_RDX, RNG_PICK(e->rng, ports));
    mov_reg(e, REG_RAX, scene_value(e->w));
    if (rng_one_in(e->rng, 3))
        put(e, rng_one_in(e->rng, 2) ? 0xf3 : 0x66, 1);
    put(e, RNG_PICK(e->rng, ops), 1);
}

static void put_string(struct emitter *e)
{
    static const uint8_t ops[] = {0xa4, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf};
    if (rng_one_in(e->rng, 2))
        mov_reg(e, REG_RDI, scene_address(e->w));
    if (rng_one_in(e->rng, 2))
        mov_reg(e, REG_RSI, scene_address(e->w));
    if (rng_one_in(e->rng, 2))
        mov_reg(e, REG_RCX, rng_one_in(e->rng, 2) ? rng_below(e->rng, 300) : rng_number(e->rng));
    if (rng_one_in(e->rng, 8))
        put(e, rng_one_in(e->rng, 2) ? 0xfd : 0xfc, 1);
    if (rng_one_in(e->rng, 8))
        put(e, 0x67, 1);
    put(e, rng_one_in(e->rng, 4) ? 0xf2 : 0xf3, 1);
    if (rng_one_in(e->rng, 4))
        put(e, e->wide ? 0x48 : 0x66, 1);
    put(e, RNG_PICK(e->rng, ops), 1);
}

/* A store into the code that is running, or into other code. */
static void put_self_modifying(struct emitter *e)
{
    uint64_t near = rng_below(e->rng, 64);
    if (e->wide && rng_one_in(e->rng, 2)) {
        PUT(e, 0xc6, 0x05); /* mov byte [rip + near], imm8 */
        put(e, near, 4);
        put(e, rng_next(e->rng), 1);
        return;
    }
    mov_reg(e, REG_RDI, (e->word ? 0 : SCENE_CODE) + rng_below(e->rng, 0x3000));
    mov_reg(e, REG_RAX, rng_next(e->rng));
    put(e, 0xab, 1);
}

/* A store into page tables, by one of several instructions. */
static void put_table_store(struct emitter *e)
{
    static const uint16_t pages[] = {0, 1, 2, 3, 3, 3, 4, 6, 8, 9, 0xc, 0xd};
    uint64_t slot = rng_one_in(e->rng, 2) ? rng_below(e->rng, 0x50) : rng_below(e->rng, 512);
    mov_reg(e, REG_RDI, SCENE_TABLES + ((uint64_t)RNG_PICK(e->rng, pages) << PAGE_SHIFT) + 8 * slot);
    mov_reg(e, REG_RAX, scene_value(e->w));
    put_rex_w(e);
    switch (rng_below(e->rng, 5)) {
    case 0:
        PUT(e, 0x0f, 0xba, 0x3f, (uint8_t)rng_below(e->rng, 13)); /* btc [rdi], n */
        break;
    case 1:
        PUT(e, 0x87, 0x07); /* xchg [rdi], rax */
        break;
    case 2:
        PUT(e, 0x0f, 0xb1, 0x07); /* cmpxchg [rdi], rax */
        break;
    case 3:
        PUT(e, 0x89, 0x47, 0xfd); /* mov [rdi - 3], rax */
        break;
    default:
        PUT(e, 0x89, 0x07);
    }
    if (rng_one_in(e->rng, 3))
        PUT(e, 0x0f, 0x01, 0x38 | (uint8_t)rng_below(e->rng, 8)); /* invlpg */
}

static uint16_t some_selector(struct emitter *e)
{
    uint16_t sel = (uint16_t)(8 * rng_below(e->rng, 64));
    if (rng_one_in(e->rng, 2))
        sel = (uint16_t)(8 * (1 + rng_below(e->rng, SEL_RANDOM / 8)));
    return (uint16_t)(sel | (rng_one_in(e->rng, 8) ? 4 : 0) | (e->w->user ? 3 : rng_one_in(e->rng, 8) ? 3 : 0));
}

static void put_segment_load(struct emitter *e)
{
    mov_reg(e, REG_RAX, some_selector(e));
    switch (rng_below(e->rng, 4)) {
    case 0:
        PUT(e, 0x0f, 0x00, 0xd0 | (uint8_t)(rng_below(e->rng, 4) << 3)); /* lldt, ltr, verr, verw */
        break;
    case 1:
        PUT(e, 0x0f, 0x02 + (uint8_t)rng_below(e->rng, 2), 0xc8); /* lar, lsl */
        break;
    default:
        PUT(e, 0x8e, 0xc0 | (uint8_t)(rng_below(e->rng, 6) << 3));
    }
}

static void put_far(struct emitter *e)
{
    uint64_t at = SCENE_CODE + 0x1000 + rng_below(e->rng, 0x1000);
    if (!e->wide && rng_one_in(e->rng, 2)) {
        put(e, rng_one_in(e->rng, 2) ? 0xea : 0x9a, 1);
        put(e, at, e->word ? 2 : 4);
        put(e, some_selector(e), 2);
        return;
    }
    mov_reg(e, REG_RAX, some_selector(e));
    put(e, 0x50, 1);
    mov_reg(e, REG_RAX, at);
    put(e, 0x50, 1);
    put_rex_w(e);
    if (rng_one_in(e->rng, 3))
        PUT(e, 0xff, rng_one_in(e->rng, 2) ? 0x2c : 0x1c, 0x24); /* jmp or call far [rsp] */
    else
        put(e, 0xcb, 1);
}

/* A frame, and IRET to it. */
static void put_iret(struct emitter *e)
{
    uint64_t frame[5] = {SCENE_CODE + 0x1000 + rng_below(e->rng, 0x1000), some_selector(e),
                         2 | (rng_next(e->rng) & 0x4d5) | (rng_one_in(e->rng, 6) ? rng_next(e->rng) & 0x3f7fd7 : 0),
                         SCENE_STACKS + 8 * rng_below(e->rng, 0x1000), some_selector(e)};
    for (int k = 4; k >= 0; k--) {
        mov_reg(e, REG_RAX, frame[k]);
        put_osz(e);
        put(e, 0x50, 1);
    }
    put_rex_w(e);
    put(e, 0xcf, 1);
}

static void put_flags(struct emitter *e)
{
    PUT(e, 0x68); /* push imm; popf */
    put(e, rng_next(e->rng), e->word ? 2 : 4);
    put(e, 0x9d, 1);
}

static void put_debug(struct emitter *e)
{
    uint8_t reg = (uint8_t)rng_below(e->rng, 8);
    mov_reg(e, REG_RAX, reg == 7 ? rng_next(e->rng) & 0xffff27ff : scene_address(e->w));
    PUT(e, 0x0f, 0x23, 0xc0 | (uint8_t)(reg << 3));
}

/* Descriptor-table registers, from the scene's memory or from somewhere. */
static void put_table_register(struct emitter *e)
{
    PUT(e, 0x0f, 0x01, (uint8_t)(rng_below(e->rng, 4) << 3 | rng_below(e->rng, 8)));
}

static void put_single(struct emitter *e)
{
    static const char *const bytes[] = {"\x0f\x05",
                                        "\x0f\x07",
                                        "\x0f\x34",
                                        "\x0f\x35",
                                        "\x0f\xa2",
                                        "\x0f\x31",
                                        "\x0f\x01\xf9",
                                        "\x0f\x01\xd1",
                                        "\x0f\x01\xd0",
                                        "\x0f\x01\xc8",
                                        "\x0f\x01\xc9",
                                        "\x0f\x06",
                                        "\x0f\x09",
                                        "\x0f\x01\xf8",
                                        "\x0f\x01\xca",
                                        "\x0f\x01\xcb",
                                        "\xf3\x0f\xc7\xf8",
                                        "\x0f\xc7\xf0",
                                        "\xcc",
                                        "\xf1",
                                        "\xce",
                                        "\xf4",
                                        "\xfa",
                                        "\xfb",
                                        "\xf3\x90",
                                        "\x9d",
                                        "\x9c",
                                        "\xcf",
                                        "\xc3",
                                        "\xcb",
                                        "\xc9",
                                        "\x0f\xaa",
                                        "\x0f\x01\xee",
                                        "\x0f\x01\xef",
                                        "\xdb\xe3",
                                        "\x0f\xae\x00",
                                        "\x0f\xae\x08",
                                        "\x0f\xae\x10",
                                        "\x0f\xae\x18",
                                        "\x0f\xae\x20",
                                        "\x0f\xae\x28",
                                        "\x0f\xae\x38",
                                        "\x0f\xc7\x20",
                                        "\x0f\xc7\x18",
                                        "\x0f\xc7\x0f",
                                        "\xdd\x20",
                                        "\xdd\x30",
                                        "\xd9\x20",
                                        "\xd9\x30",
                                        "\x9b",
                                        "\xd7",
                                        "\x0f\x0b",
                                        "\x0f\xff",
                                        "\x16\x17",
                                        "\x06\x07",
                                        "\x0f\xa0\x0f\xa1",
                                        "\x0f\xb2\x20",
                                        "\xc4\x00",
                                        "\xc5\x00",
                                        "\xc8\x20\x05\x1f",
                                        "\x61",
                                        "\x60",
                                        "\x62\x00",
                                        "\x63\xc0"};
    const char *s = RNG_PICK(e->rng, bytes);
    size_t n = strlen(s);
    if (e->wide && rng_one_in(e->rng, 4))
        put(e, 0x48, 1);
    for (size_t k = 0; k < n; k++)
        put(e, (uint8_t)s[k], 1);
    if (n > 2 && s[n - 1] == 0) /* a literal that ended at its zero ModRM */
        put(e, 0, 1);
}

/* INT n, a jump back or forth, a call. */
static void put_transfer(struct emitter *e)
{
    switch (rng_below(e->rng, 4)) {
    case 0:
        PUT(e, 0xcd, (uint8_t)rng_next(e->rng));
        break;
    case 1:
        PUT(e, 0xeb, (uint8_t)(rng_below(e->rng, 64) - 32));
        break;
    case 2:
        PUT(e, (uint8_t)(0xe0 + rng_below(e->rng, 4)), (uint8_t)(0 - rng_below(e->rng, 40)));
        break;
    default:
        put(e, 0xe8, 1);
        put(e, rng_below(e->rng, 0x200), e->word ? 2 : 4);
    }
}

static void put_something(struct emitter *e)
{
    typedef void put_fn(struct emitter *);
    static put_fn *const special[] = {
        put_msr,         put_control,        put_port,         put_string, put_string,  put_self_modifying,
        put_table_store, put_table_store,    put_segment_load, put_far,    put_iret,    put_flags,
        put_debug,       put_table_register, put_single,       put_single, put_transfer};
    switch (rng_below(e->rng, 16)) {
    case 0:
        put_noise(e);
        break;
    case 1:
    case 2:
    case 3:
    case 4:
        RNG_PICK(e->rng, special)(e);
        break;
    case 5: /* a register becomes an address again */
        mov_reg(e, (unsigned)rng_below(e->rng, 8), scene_value(e->w));
        break;
    default:
        put_accepted(e);
    }
}

void gen_code(struct world *w, uint8_t *out, size_t len)
{
    struct emitter e = {.w = w,
                        .rng = w->rng,
                        .out = out,
                        .len = len,
                        .wide = w->decode_mode & MODE_CODE64,
                        .word = !(w->decode_mode & (MODE_CODE64 | MODE_CODE32))};
    if (rng_one_in(w->rng, 16)) {
        rng_bytes(w->rng, out, len);
        return;
    }
    while (e.at < len)
        put_something(&e);
    for (uint64_t n = rng_below(w->rng, 20); n; n--) /* mutations */
        out[rng_below(w->rng, len)] ^= (uint8_t)(1u << rng_below(w->rng, 8));
}
