/*
 * Random programs that rewrite themselves, in two pages that are mapped twice: immediates, whole instructions,
 * stretches of a page, through either mapping, by their own stores and string instructions and by a device. Three
 * machines run them, in each kind of MMU, cut at random positions: one that forgets all code before each instruction,
 * an interpreter and a JIT.
 */
#include "core/stats.h"
#include "cpu/code_cache_internal.h"
#include "cpu/jit/jit.h"

#include "cpu_rig.h"

#define MACHINES 3
#define CUTS     12
#define CODE_MAX 0x400

enum { FORGETFUL, INTERPRETER, COMPILED };
enum {
    PAGES = RIG_CODE,           /* two, where the code is */
    ALIAS = RIG_CODE + 0x4000,  /* the same two once more */
    PRISTINE = RIG_DATA + 0x100 /* the program as it was */
};

struct trio {
    struct cpu_rig m[MACHINES];
    struct jit *jit;
    uint64_t rng;
    uint8_t code[CODE_MAX];
    unsigned len, start; /* start: offset in PAGES */
    unsigned at[128];    /* of instructions */
    unsigned insns;
};

static uint64_t random64(struct trio *p)
{
    p->rng ^= p->rng << 13;
    p->rng ^= p->rng >> 7;
    p->rng ^= p->rng << 17;
    return p->rng * 0x2545f4914f6cdd1dull >> 8;
}

static unsigned below(struct trio *p, unsigned n)
{
    return (unsigned)(random64(p) % n);
}

static void put(struct trio *p, unsigned byte)
{
    p->code[p->len++] = (uint8_t)byte;
}

static void put32(struct trio *p, uint32_t x)
{
    memcpy(p->code + p->len, &x, 4);
    p->len += 4;
}

/* Data: all but RSP, RSI, RDI, RCX (strings) and R15, which counts the turns. */
static unsigned pick_reg(struct trio *p)
{
    static const uint8_t regs[] = {0, 2, 3, 5, 8, 9, 10, 11, 12, 13, 14};
    return regs[below(p, sizeof regs)];
}

/* ---- what is rewritten: one of a few forms of two lengths, so that one may take another's place ---- */

static void put_alu_imm8(struct trio *p, unsigned digit, unsigned rm, unsigned imm)
{
    put(p, 0x48 | rm >> 3);
    put(p, 0x83);
    put(p, 0xc0 | digit << 3 | (rm & 7));
    put(p, imm);
}

static void put_alu_imm32(struct trio *p, unsigned digit, unsigned rm, uint32_t imm)
{
    put(p, 0x48 | rm >> 3);
    put(p, 0x81);
    put(p, 0xc0 | digit << 3 | (rm & 7));
    put32(p, imm);
}

static void put_subject(struct trio *p)
{
    unsigned rm = pick_reg(p);
    switch (below(p, 7)) {
    case 0:
    case 1:
        put_alu_imm8(p, below(p, 8), rm, below(p, 256));
        break;
    case 2:
    case 3:
        put_alu_imm32(p, below(p, 8), rm, (uint32_t)random64(p));
        break;
    case 4: /* mov rm, imm32 */
        put(p, 0x48 | rm >> 3);
        put(p, 0xc7);
        put(p, 0xc0 | (rm & 7));
        put32(p, (uint32_t)random64(p));
        break;
    case 5: /* mov rm, imm64 or imm32 */
        put(p, 0x40 | rm >> 3 | below(p, 2) << 3);
        put(p, 0xb8 | (rm & 7));
        put32(p, (uint32_t)random64(p));
        if (p->code[p->len - 6] & 8)
            put32(p, (uint32_t)random64(p));
        break;
    default: /* test rm, imm32 */
        put(p, 0x48 | rm >> 3);
        put(p, 0xf7);
        put(p, 0xc0 | (rm & 7));
        put32(p, (uint32_t)random64(p));
        break;
    }
}

/* ---- who looks at flags ---- */

static void put_consumer(struct trio *p)
{
    unsigned rm = pick_reg(p), reg = pick_reg(p);
    switch (below(p, 4)) {
    case 0: /* setcc */
        put(p, 0x40 | rm >> 3);
        put(p, 0x0f);
        put(p, 0x90 | below(p, 16));
        put(p, 0xc0 | (rm & 7));
        break;
    case 1: /* adc, sbb */
        put(p, 0x48 | reg >> 3 << 2 | rm >> 3);
        put(p, below(p, 2) ? 0x11 : 0x19);
        put(p, 0xc0 | (reg & 7) << 3 | (rm & 7));
        break;
    case 2: /* pushfq; pop */
        put(p, 0x9c);
        put(p, 0x40 | rm >> 3);
        put(p, 0x58 | (rm & 7));
        break;
    default: /* jcc over a subject */
        put(p, 0x70 | below(p, 16));
        put(p, 0);
        {
            unsigned from = p->len;
            put_subject(p);
            p->code[from - 1] = (uint8_t)(p->len - from);
        }
        break;
    }
}

/* ---- who writes ---- */

/* Offset of a byte in or near the program: mostly within an instruction's last bytes. */
static unsigned pick_target(struct trio *p)
{
    unsigned k = below(p, p->insns + 1), at = k < p->insns ? p->at[k] : p->len;
    switch (below(p, 8)) {
    case 0:
        return at + below(p, 8);
    case 1: /* beside */
        return 0x300 + below(p, 0x80);
    case 2:
    case 3:
        return at + 2;
    default:
        return at + 3;
    }
}

/* mov [rip + target], reg: 1, 2, 4 or 8 bytes */
static void put_store(struct trio *p)
{
    unsigned reg = pick_reg(p), size = below(p, 6), to = pick_target(p) + (below(p, 2) ? 0x4000 : 0);
    if (size == 1)
        put(p, 0x66);
    put(p, 0x40 | (size == 2) << 3 | reg >> 3 << 2);
    put(p, size == 0 || size >= 4 ? 0x88 : 0x89);
    put(p, 0x05 | (reg & 7) << 3);
    put32(p, to - (p->len + 4));
}

/* lea reg, [rip + to] */
static void put_lea(struct trio *p, unsigned reg, unsigned to)
{
    put(p, 0x48);
    put(p, 0x8d);
    put(p, 0x05 | reg << 3);
    put32(p, to - (p->len + 4));
}

/* Bytes of the program are put back, by a string instruction. */
static void put_restore(struct trio *p)
{
    unsigned at = pick_target(p) & 0xff, wide = below(p, 2);
    put_lea(p, 6, PRISTINE + at - PAGES - p->start);
    put_lea(p, 7, at + (below(p, 2) ? 0x4000 : 0));
    put(p, 0xb9);
    put32(p, below(p, wide ? 6 : 40));
    put(p, 0xf3);
    if (wide)
        put(p, 0x48);
    put(p, 0xa4 | wide);
}

/* Stores in a row, as of who fills a page: the bytes that are there, or others. */
static void put_filler(struct trio *p)
{
    unsigned at = below(p, 4) ? 0x280 + below(p, 0x80) : pick_target(p);
    put_lea(p, 6, below(p, 2) ? at + 0x4000 : PRISTINE + at - PAGES - p->start);
    put_lea(p, 7, at);
    put(p, 0xb9);
    put32(p, 8 + below(p, 8));
    unsigned back = p->len; /* mov al, [rsi]; mov [rdi], al; inc rsi; inc rdi; dec ecx; jnz back */
    static const uint8_t loop[] = {0x8a, 0x06, 0x88, 0x07, 0x48, 0xff, 0xc6, 0x48, 0xff, 0xc7, 0xff, 0xc9, 0x75};
    memcpy(p->code + p->len, loop, sizeof loop);
    p->len += sizeof loop;
    put(p, back - p->len - 1);
}

/* An instruction is copied onto another one. */
static void put_copy(struct trio *p)
{
    if (!p->insns)
        return;
    unsigned from = p->at[below(p, p->insns)], to = p->at[below(p, p->insns)];
    put(p, 0x8b); /* mov ecx, [rip + from]; mov [rip + to], ecx */
    put(p, 0x0d);
    put32(p, from - (p->len + 4));
    put(p, 0x89);
    put(p, 0x0d);
    put32(p, to + (below(p, 2) ? 0x4000 : 0) - (p->len + 4));
}

static void put_insn(struct trio *p)
{
    p->at[p->insns++] = p->len;
    switch (below(p, 20)) {
    case 0:
    case 1:
    case 2:
    case 3:
        put_store(p);
        break;
    case 4:
        put_restore(p);
        break;
    case 5:
        put_filler(p);
        break;
    case 6:
        put_copy(p);
        break;
    case 7:
    case 8:
    case 9:
    case 10:
        put_consumer(p);
        break;
    default:
        put_subject(p);
        break;
    }
}

/* dec r15; jnz back; hlt */
static void make_program(struct trio *p)
{
    static const unsigned starts[] = {0, 0x80, 0xe00, 0xf00, 0xf80, 0xfc0, 0xff0};
    unsigned n = 4 + below(p, 24);
    p->len = p->insns = 0;
    p->start = starts[below(p, ARRAY_LEN(starts))] + below(p, 16);
    while (p->insns < n)
        put_insn(p);
    p->at[p->insns++] = p->len;
    put(p, 0x49);
    put(p, 0xff);
    put(p, 0xcf);
    put(p, 0x0f);
    put(p, 0x85);
    put32(p, (uint32_t) - (int32_t)(p->len + 4));
    put(p, 0xf4);
}

/* ---- running ---- */

static void write_all(struct trio *p, gpa_t gpa, const void *bytes, size_t len, enum mem_kind kind)
{
    for (unsigned k = 0; k < MACHINES; k++)
        mem_access(p->m[k].mem, 0, gpa, (void *)(uintptr_t)bytes, len, kind, true, BUS_NO_CPU);
}

static void start(struct trio *p)
{
    static uint8_t nops[2 * PAGE_SIZE];
    uint64_t gpr[16], turns = 3 + below(p, 60);
    memset(nops, 0x90, sizeof nops);
    nops[sizeof nops - 1] = 0xf4;
    if (below(p, 2))
        write_all(p, PAGES, nops, sizeof nops, MEM_HOST_POKE);
    write_all(p, PAGES + p->start, p->code, p->len, MEM_HOST_POKE);
    write_all(p, PRISTINE, p->code, CODE_MAX, MEM_HOST_POKE);
    for (unsigned n = 0; n < 16; n++)
        gpr[n] = random64(p) << below(p, 16);
    gpr[15] = turns;
    gpr[REG_RSP] = RIG_STACK;
    for (unsigned k = 0; k < MACHINES; k++) {
        struct vcpu *v = p->m[k].v;
        memcpy(v->gpr, gpr, sizeof gpr);
        rig_set_cpl(&p->m[k], SEL_CODE0, SEL_DATA0, 0);
        v->rip = PAGES + p->start;
        v->rflags = 2;
        v->activity = VCPU_RUNNING;
        v->cr2 = 0;
    }
}

/* From outside, between two runs. */
static void device_writes(struct trio *p)
{
    unsigned at = p->start + (pick_target(p) & 0x3ff), len = 1 + below(p, 8);
    uint64_t value = random64(p);
    if (below(p, 4))
        write_all(p, PAGES + at, &value, len, MEM_DMA);
    else
        write_all(p, PAGES + p->start, p->code, p->len, MEM_DMA);
}

static void forget_code(struct cpu_rig *r)
{
    for (unsigned k = 0; k < RIG_RAM >> PAGE_SHIFT; k++) {
        struct code_page *c = code_page_find(r->code, 0, k);
        if (c)
            code_page_drop(r->code, c);
    }
}

static void run_to(struct trio *p, unsigned which, uint64_t until)
{
    struct cpu_rig *r = &p->m[which];
    while (clock_now(&r->clock) < until && r->v->activity == VCPU_RUNNING) {
        if (which == FORGETFUL)
            forget_code(r);
        vcpu_run(r->v, which == FORGETFUL ? 1 : until - clock_now(&r->clock));
    }
}

static void print_program(const struct trio *p)
{
    char text[100];
    for (unsigned n = 0; n < p->len;) {
        struct insn i;
        insn_decode(&i, p->code + n, 15, p->m[0].v->mode, 0);
        fprintf(stderr, "  +%02x %s\n", n, insn_print(&i, PAGES + p->start + n, text, sizeof text));
        n += i.len;
    }
}

static void check_same(struct trio *p, unsigned which, unsigned program)
{
    const struct cpu_rig *a = &p->m[FORGETFUL], *b = &p->m[which];
    uint8_t ma[PAGE_SIZE], mb[sizeof ma];
    static const uint32_t pages[] = {PAGES, PAGES + 0x1000, RIG_DATA, RIG_STACK, RIG_STACK - 0x1000};
    unsigned bad = 0;
    for (unsigned k = 0; k < ARRAY_LEN(pages); k++) {
        mem_access(a->mem, 0, pages[k], ma, sizeof ma, MEM_PEEK, false, BUS_NO_CPU);
        mem_access(b->mem, 0, pages[k], mb, sizeof mb, MEM_PEEK, false, BUS_NO_CPU);
        bad |= (memcmp(ma, mb, sizeof ma) != 0) << (16 + k);
    }
    bad |= a->v->rip != b->v->rip;
    bad |= (memcmp(a->v->gpr, b->v->gpr, 16 * sizeof a->v->gpr[0]) != 0) << 1;
    bad |= (vcpu_rflags(a->v) != vcpu_rflags(b->v)) << 2;
    bad |= (clock_now(&a->clock) != clock_now(&b->clock)) << 3;
    bad |= (a->v->cr2 != b->v->cr2) << 4;
    bad |= (a->v->activity != b->v->activity) << 5;
    if (bad)
        print_program(p);
    for (unsigned n = 0; bad && n < 16; n++)
        if (a->v->gpr[n] != b->v->gpr[n])
            fprintf(stderr, "  r%u %llx, %llx\n", n, (unsigned long long)a->v->gpr[n],
                    (unsigned long long)b->v->gpr[n]);
    ck_assert_msg(!bad, "program %u, machine %u differs (%#x): rip %llx, %llx; rflags %llx, %llx; position %llu, %llu",
                  program, which, bad, (unsigned long long)a->v->rip, (unsigned long long)b->v->rip,
                  (unsigned long long)vcpu_rflags(a->v), (unsigned long long)vcpu_rflags(b->v),
                  (unsigned long long)clock_now(&a->clock), (unsigned long long)clock_now(&b->clock));
}

static void run_program(struct trio *p, unsigned program)
{
    make_program(p);
    for (unsigned k = 0; k < 2; k++) {
        start(p);
        for (unsigned cut = 0; cut < CUTS && p->m[0].v->activity == VCPU_RUNNING; cut++) {
            uint64_t until = clock_now(&p->m[0].clock) + 1 + below(p, below(p, 2) ? 20 : 300);
            for (unsigned n = 0; n < MACHINES; n++)
                run_to(p, n, until);
            check_same(p, INTERPRETER, program);
            check_same(p, COMPILED, program);
            if (!below(p, 3))
                device_writes(p);
        }
    }
}

static void trio_open(struct trio *p, uint64_t seed, enum mmu_kind kind)
{
    memset(p, 0, sizeof *p);
    for (unsigned n = 0; n < MACHINES; n++) {
        struct cpu_rig *r = &p->m[n];
        rig_open_kind(r, "base", n ? kind : MMU_WALK);
        rig_long(r);
        for (unsigned k = 0; k < 2; k++)
            rig_poke(r, RIG_PT + 8 * ((ALIAS >> PAGE_SHIFT) + k), (PAGES + k * PAGE_SIZE) | 7, 8);
        vcpu_refresh(r->v);
    }
    p->jit = jit_create(&(struct jit_config){.log = &p->m[COMPILED].log, .heat = 2});
    ck_assert_ptr_nonnull(p->jit);
    p->m[COMPILED].v->jit = p->jit;
    p->rng = seed * 0x9e3779b97f4a7c15ull | 1;
}

static void trio_close(struct trio *p)
{
    for (unsigned n = 0; n < MACHINES; n++)
        rig_close(&p->m[n]);
    jit_destroy(p->jit);
}

START_TEST(programs_that_rewrite_themselves_run_as_without_any_cache)
{
    const char *more = getenv("UMBRA_PROGRAMS"), *seed = getenv("UMBRA_SEED");
    static const enum mmu_kind kinds[] = {MMU_WALK, MMU_SHADOW, MMU_EPT};
    unsigned programs = more ? (unsigned)atoi(more) : 300;
    struct trio p;
    trio_open(&p, seed ? (uint64_t)atoll(seed) : 1, kinds[_i]);
    for (unsigned n = 0; n < programs; n++)
        run_program(&p, n);
    if (getenv("UMBRA_TEST_STATS")) {
        struct stats s;
        stats_init(&s);
        code_cache_register_stats(p.m[COMPILED].code, &s);
        stats_print(&s, stderr);
        stats_fini(&s);
    }
    trio_close(&p);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("cpu: code that rewrites itself");
    TCase *t = tcase_create("programs");
    tcase_set_timeout(t, 600);
    tcase_add_loop_test(t, programs_that_rewrite_themselves_run_as_without_any_cache, 0, 3);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
