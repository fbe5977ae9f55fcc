/*
 * Memory, strings and flags in compiled code against the interpreter: short random loops whose accesses share bases, go
 * over the edges of pages, into absent and read-only ones, into a device and into the loop's own code, run in two
 * machines and are cut at random positions. Registers, flags, memory, position and faults must be equal at each cut.
 */
#include "cpu/code_cache.h"
#include "cpu/jit/jit.h"

#include "cpu_rig.h"

#define LOOP_INSNS 14
#define CUTS       10

enum {
    PAGE_A = RIG_DATA,             /* two pages in a row */
    PAGE_HOLE = RIG_DATA + 0x2000, /* absent */
    PAGE_RO = RIG_DATA + 0x3000,
    PAGE_LAST = RIG_DATA + 0x4000 /* and what is behind it */
};

struct pair {
    struct cpu_rig a, b; /* interpreter, JIT */
    struct jit *jit;
    uint64_t rng;
    uint8_t code[256];
    unsigned len;
};

static uint64_t random64(struct pair *p)
{
    p->rng ^= p->rng << 13;
    p->rng ^= p->rng >> 7;
    p->rng ^= p->rng << 17;
    return p->rng * 0x2545f4914f6cdd1dull >> 8;
}

static unsigned below(struct pair *p, unsigned n)
{
    return (unsigned)(random64(p) % n);
}

static void put(struct pair *p, unsigned byte)
{
    p->code[p->len++] = (uint8_t)byte;
}

static void put32(struct pair *p, uint32_t x)
{
    memcpy(p->code + p->len, &x, 4);
    p->len += 4;
}

/* Registers that the loop uses as bases: RBX RBP RSI RDI R8 R13; all but R15, which counts the turns, as data. */
static unsigned pick_base(struct pair *p)
{
    static const uint8_t bases[] = {3, 3, 3, 5, 6, 7, 8, 13};
    return bases[below(p, sizeof bases)];
}

static unsigned pick_data(struct pair *p)
{
    static const uint8_t data[] = {0, 1, 2, 9, 10, 11, 12, 14};
    return data[below(p, sizeof data)];
}

/* REX, opcode, ModRM with [base + disp8] (sometimes with an index); W: 64-bit; reg: number or digit. */
static void put_mem(struct pair *p, bool wide, bool two, unsigned op, unsigned reg)
{
    unsigned base = pick_base(p), index = below(p, 6) ? 4 : 9, disp = below(p, 4) ? 8 * below(p, 12) : below(p, 256);
    put(p, 0x40 | wide << 3 | reg >> 3 << 2 | index >> 3 << 1 | base >> 3);
    if (two)
        put(p, 0x0f);
    put(p, op);
    put(p, 0x44 | (reg & 7) << 3);
    put(p, (index & 7) << 3 | (base & 7));
    put(p, disp);
}

static void put_reg(struct pair *p, bool wide, unsigned op, unsigned reg, unsigned rm)
{
    put(p, 0x40 | wide << 3 | reg >> 3 << 2 | rm >> 3);
    put(p, op);
    put(p, 0xc0 | (reg & 7) << 3 | (rm & 7));
}

static void put_string(struct pair *p)
{
    static const uint8_t ops[] = {0xa4, 0xa5, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf, 0xa6, 0xa7};
    bool repeated = below(p, 3);
    if (repeated) { /* mov ecx, count */
        put(p, 0xb9);
        put32(p, below(p, 4) ? below(p, 40) : below(p, 3000));
        put(p, below(p, 2) ? 0xf2 : 0xf3);
    }
    if (!below(p, 12))
        put(p, 0x67);
    if (below(p, 2))
        put(p, 0x48);
    else if (!below(p, 4))
        put(p, 0x66);
    put(p, ops[below(p, sizeof ops)]);
}

static void put_insn(struct pair *p)
{
    static const uint8_t alu[] = {0x01, 0x03, 0x29, 0x2b, 0x31, 0x33, 0x39, 0x3b, 0x09, 0x23, 0x11, 0x13, 0x1b, 0x85};
    bool wide = below(p, 2);
    switch (below(p, 16)) {
    case 0:
    case 1:
    case 2:
        put_mem(p, wide, false, 0x8b, pick_data(p));
        break;
    case 3:
    case 4:
        put_mem(p, wide, false, below(p, 3) ? 0x89 : 0x88, pick_data(p));
        break;
    case 5:
    case 6:
        put_mem(p, wide, false, alu[below(p, sizeof alu)], pick_data(p));
        break;
    case 7:
        put_reg(p, wide, alu[below(p, sizeof alu)], pick_data(p), pick_data(p));
        break;
    case 8: /* inc, dec, in memory or not */
        if (below(p, 2))
            put_mem(p, wide, false, 0xff, below(p, 2));
        else
            put_reg(p, wide, 0xff, below(p, 2), pick_data(p));
        break;
    case 9: /* movzx, movsx, cmov, setcc */
        put_mem(p, wide, true,
                below(p, 2)   ? 0xb6 | below(p, 2) << 3
                : below(p, 2) ? 0x40 | below(p, 16)
                              : 0x90 | below(p, 16),
                pick_data(p));
        break;
    case 10: /* a base moves: add base, imm8; lea base, [base + disp8] */
        if (below(p, 2)) {
            put_reg(p, true, 0x83, below(p, 2) ? 0 : 5, pick_base(p));
            put(p, below(p, 5) ? 8 : below(p, 256));
        } else {
            unsigned base = pick_base(p);
            put_mem(p, true, false, 0x8d, base);
        }
        break;
    case 11: /* push, pop */
        put(p, 0x41);
        put(p, (below(p, 2) ? 0x50 : 0x58) | (9 + below(p, 3)) % 8);
        break;
    case 12:
        put_string(p);
        break;
    case 13: /* shifts and rotates, of memory or not */
        if (below(p, 2))
            put_mem(p, wide, false, 0xc1, (const uint8_t[]){0, 1, 4, 5, 7}[below(p, 5)]);
        else
            put_reg(p, wide, 0xc1, (const uint8_t[]){0, 1, 4, 5, 7}[below(p, 5)], pick_data(p));
        put(p, below(p, 40));
        break;
    case 14: { /* jcc over one instruction */
        unsigned at = p->len;
        put(p, 0x70 | below(p, 16));
        put(p, 0);
        put_mem(p, wide, false, below(p, 2) ? 0x8b : 0x89, pick_data(p));
        p->code[at + 1] = (uint8_t)(p->len - at - 2);
        break;
    }
    default: /* SSE: movups, movsd, to and from memory */
        if (below(p, 2))
            put(p, 0xf2);
        put_mem(p, false, true, 0x10 | below(p, 2), below(p, 8));
        break;
    }
}

/* LOOP_INSNS random instructions; dec r15; jnz back; hlt */
static void make_loop(struct pair *p)
{
    p->len = 0;
    for (unsigned k = 0; k < LOOP_INSNS; k++)
        put_insn(p);
    put_reg(p, true, 0xff, 1, 15);
    put(p, 0x0f);
    put(p, 0x85);
    put32(p, (uint32_t) - (int32_t)(p->len + 4));
    put(p, 0xf4);
}

static uint64_t make_address(struct pair *p)
{
    static const uint32_t pages[] = {PAGE_A, PAGE_A, PAGE_A, PAGE_A, PAGE_A + 0x1000, PAGE_LAST, PAGE_RO, RIG_STACK};
    unsigned what = below(p, 64);
    if (what == 0)
        return random64(p) << below(p, 20);
    if (what == 1)
        return RIG_CODE + below(p, 64);
    if (what == 2)
        return RIG_MMIO + below(p, 64);
    uint64_t page = pages[below(p, ARRAY_LEN(pages))];
    return page + (below(p, 3) ? below(p, 0xf00) & ~7u : 0xfff - below(p, 64));
}

static void start(struct pair *p)
{
    uint64_t gpr[16], turns = 4 + below(p, 40);
    bool down = !below(p, 16);
    uint8_t data[0x1000];
    for (unsigned n = 0; n < 16; n++)
        gpr[n] = below(p, 2) ? random64(p) << below(p, 16) : random64(p) & 0xff;
    for (unsigned n = 0; n < 16; n++)
        if (n == 3 || (n >= 5 && n <= 8) || n == 13)
            gpr[n] = make_address(p);
    gpr[9] = 8 * below(p, 4);
    gpr[15] = turns;
    gpr[REG_RSP] = RIG_STACK + 8 * below(p, 8);
    for (unsigned n = 0; n < sizeof data; n++)
        data[n] = (uint8_t)(random64(p) & random64(p) & random64(p));
    for (unsigned n = 0; n < 2; n++) {
        struct cpu_rig *r = n ? &p->b : &p->a;
        mem_access(r->mem, 0, RIG_CODE, p->code, p->len, MEM_HOST_POKE, true, BUS_NO_CPU);
        for (unsigned k = 0; k < 5; k++)
            mem_access(r->mem, 0, PAGE_A + k * PAGE_SIZE, data, sizeof data, MEM_HOST_POKE, true, BUS_NO_CPU);
        memcpy(r->v->gpr, gpr, sizeof gpr);
        r->v->rip = RIG_CODE;
        r->v->rflags = 2 | (down ? FLAG_DF : 0);
        r->v->activity = VCPU_RUNNING;
        r->v->cr2 = 0;
        memset(r->v->xmm, 0, sizeof r->v->xmm);
        r->device_value = r->device_accesses = 0;
    }
}

static void print_loop(const struct pair *p)
{
    char text[100];
    for (unsigned n = 0; n < p->len;) {
        struct insn i;
        insn_decode(&i, p->code + n, 15, p->a.v->mode, 0);
        fprintf(stderr, "  +%02x %s\n", n, insn_print(&i, RIG_CODE + n, text, sizeof text));
        n += i.len;
    }
}

static void check_same(struct pair *p, unsigned program)
{
    const struct vcpu *a = p->a.v, *b = p->b.v;
    uint8_t ma[0x1000], mb[sizeof ma];
    static const uint32_t pages[] = {
        PAGE_A, PAGE_A + 0x1000, PAGE_RO, PAGE_LAST, RIG_STACK, RIG_STACK - 0x1000, PAGE_LAST + 0x1000, RIG_CODE};
    unsigned bad = 0;
    for (unsigned k = 0; k < ARRAY_LEN(pages); k++) {
        mem_access(p->a.mem, 0, pages[k], ma, sizeof ma, MEM_PEEK, false, BUS_NO_CPU);
        mem_access(p->b.mem, 0, pages[k], mb, sizeof mb, MEM_PEEK, false, BUS_NO_CPU);
        bad |= (memcmp(ma, mb, sizeof ma) != 0) << (16 + k);
    }
    bad |= a->rip != b->rip;
    for (unsigned n = 0; n < 16; n++)
        bad |= (a->gpr[n] != b->gpr[n]) << 1;
    bad |= (vcpu_rflags(a) != vcpu_rflags(b)) << 2;
    bad |= (memcmp(a->xmm, b->xmm, sizeof a->xmm) != 0) << 3;
    bad |= (clock_now(&p->a.clock) != clock_now(&p->b.clock)) << 4;
    bad |= (a->cr2 != b->cr2) << 5;
    bad |= (a->activity != b->activity) << 6;
    bad |= (p->a.device_value != p->b.device_value || p->a.device_accesses != p->b.device_accesses) << 7;
    if (bad)
        print_loop(p);
    for (unsigned n = 0; bad & 2 && n < 16; n++)
        if (a->gpr[n] != b->gpr[n])
            fprintf(stderr, "  r%u %llx, JIT %llx\n", n, (unsigned long long)a->gpr[n], (unsigned long long)b->gpr[n]);
    ck_assert_msg(!bad, "loop %u differs (%#x): rip %llx, JIT %llx; rflags %llx %llx; position %llu %llu", program, bad,
                  (unsigned long long)a->rip, (unsigned long long)b->rip, (unsigned long long)vcpu_rflags(a),
                  (unsigned long long)vcpu_rflags(b), (unsigned long long)clock_now(&p->a.clock),
                  (unsigned long long)clock_now(&p->b.clock));
}

static void run_loop(struct pair *p, unsigned program)
{
    make_loop(p);
    for (unsigned k = 0; k < 3; k++) {
        start(p);
        for (unsigned cut = 0; cut < CUTS && p->a.v->activity == VCPU_RUNNING; cut++) {
            uint64_t until = clock_now(&p->a.clock) + 1 + below(p, below(p, 2) ? 40 : 2000);
            /* A run may end early at a boundary with events; the position is what counts. */
            for (unsigned n = 0; n < 2; n++) {
                struct cpu_rig *r = n ? &p->b : &p->a;
                while (clock_now(&r->clock) < until && r->v->activity == VCPU_RUNNING)
                    vcpu_run(r->v, until - clock_now(&r->clock));
            }
            check_same(p, program);
        }
    }
}

static void pair_open(struct pair *p, uint64_t seed)
{
    memset(p, 0, sizeof *p);
    for (unsigned n = 0; n < 2; n++) {
        struct cpu_rig *r = n ? &p->b : &p->a;
        rig_open(r);
        rig_long(r);
        r->v->cr4 |= CR4_OSFXSR;
        rig_poke(r, RIG_PT + 8 * (PAGE_HOLE >> 12), 0, 8);
        rig_poke(r, RIG_PT + 8 * (PAGE_RO >> 12), PAGE_RO | 5, 8);
        rig_poke(r, RIG_PD + 16, 0x400087 | 0x18, 8);
        vcpu_refresh(r->v);
    }
    p->jit = jit_create(&(struct jit_config){.log = &p->b.log, .heat = 2});
    ck_assert_ptr_nonnull(p->jit);
    p->b.v->jit = p->jit;
    p->rng = seed * 0x9e3779b97f4a7c15ull | 1;
}

static void pair_close(struct pair *p)
{
    rig_close(&p->a);
    rig_close(&p->b);
    jit_destroy(p->jit);
}

START_TEST(compiled_loops_end_as_interpreted_ones_wherever_they_are_cut)
{
    const char *more = getenv("UMBRA_PROGRAMS"), *seed = getenv("UMBRA_SEED");
    unsigned programs = more ? (unsigned)atoi(more) : 12000;
    struct pair p;
    pair_open(&p, seed ? (uint64_t)atoll(seed) : 1);
    for (unsigned n = 0; n < programs; n++)
        run_loop(&p, n);
    pair_close(&p);
}
END_TEST

/* ---- code that changes ---- */

/* xor eax, eax; 1: mov [rip + to], r15d; 2: add rax, imm32; rol rax, 3; dec r15; jnz 1b; hlt. */
static void make_patching_loop(struct pair *p, uint32_t to)
{
    static const uint8_t code[] = {0x31, 0xc0, 0x44, 0x89, 0x3d, 0,    0,    0,    0,    0x48, 0x05, 0,   0,
                                   0,    0,    0x48, 0xc1, 0xc0, 0x03, 0x49, 0xff, 0xcf, 0x75, 0xea, 0xf4};
    memcpy(p->code, code, sizeof code);
    memcpy(p->code + 5, &to, sizeof to);
    p->len = sizeof code;
}

static uint64_t run_both(struct pair *p, uint64_t turns)
{
    start(p);
    for (unsigned n = 0; n < 2; n++) {
        struct cpu_rig *r = n ? &p->b : &p->a;
        r->v->gpr[15] = turns;
        while (r->v->activity == VCPU_RUNNING)
            vcpu_run(r->v, 1000);
    }
    check_same(p, 0);
    return p->b.v->gpr[REG_RAX];
}

START_TEST(store_into_the_running_trace_is_seen_by_its_next_instruction)
{
    struct pair p;
    uint64_t expect = 0;
    pair_open(&p, 1);
    make_patching_loop(&p, 2);
    for (uint64_t n = 300; n > 0; n--) {
        expect += n;
        expect = expect << 3 | expect >> 61;
    }
    ck_assert_uint_eq(run_both(&p, 300), expect);
    pair_close(&p);
}
END_TEST

START_TEST(store_beside_the_code_of_its_page_drops_nothing)
{
    struct pair p;
    pair_open(&p, 1);
    make_patching_loop(&p, 0x800);
    run_both(&p, 300);
    uint64_t before = *code_cache_generation(p.b.code);
    p.b.v->gpr[15] = 300;
    p.b.v->rip = RIG_CODE;
    p.b.v->activity = VCPU_RUNNING;
    while (p.b.v->activity == VCPU_RUNNING)
        vcpu_run(p.b.v, 1000);
    ck_assert_uint_eq(*code_cache_generation(p.b.code), before);
    pair_close(&p);
}
END_TEST

/* Of accesses that share a check, one comes right behind the store that takes their page's right to be written away. */
START_TEST(store_that_takes_the_right_to_write_away_counts_for_the_next_one)
{
    /* mov [rbx], eax; mov [rbx + 8], eax; mov [rsi], rdi; mov [rbx + 16], eax; dec r15; jnz; hlt: rsi is the page table
     * entry of rbx's page, rdi the same without the right */
    static const uint8_t code[] = {0x89, 0x03, 0x89, 0x43, 0x08, 0x48, 0x89, 0x3e, 0x89,
                                   0x43, 0x10, 0x49, 0xff, 0xcf, 0x75, 0xf0, 0xf4};
    struct pair p;
    pair_open(&p, 1);
    memcpy(p.code, code, sizeof code);
    p.len = sizeof code;
    start(&p);
    for (unsigned k = 0; k < 2; k++) /* first as it is, so that it is compiled */
        for (unsigned n = 0; n < 2; n++) {
            struct cpu_rig *r = n ? &p.b : &p.a;
            r->v->rip = RIG_CODE;
            r->v->activity = VCPU_RUNNING;
            r->v->gpr[REG_RBX] = PAGE_A;
            r->v->gpr[REG_RSI] = RIG_PT + 8 * (PAGE_A >> 12);
            r->v->gpr[REG_RDI] = PAGE_A | (k ? 0x65 : 0x67);
            r->v->gpr[15] = 100;
            while (r->v->activity == VCPU_RUNNING)
                vcpu_run(r->v, 1000);
        }
    ck_assert_uint_eq(p.b.v->cr2, PAGE_A + 16);
    check_same(&p, 0);
    pair_close(&p);
}
END_TEST

static Suite *suite(void)
{
    const TTest *const tests[] = {compiled_loops_end_as_interpreted_ones_wherever_they_are_cut,
                                  store_into_the_running_trace_is_seen_by_its_next_instruction,
                                  store_beside_the_code_of_its_page_drops_nothing,
                                  store_that_takes_the_right_to_write_away_counts_for_the_next_one};
    return rig_suite("cpu: memory, strings and flags in compiled code", tests, ARRAY_LEN(tests));
}

CHECK_MAIN(suite)
