/*
 * Code that is compiled a second time, by what it has counted: random loops beside the interpreter, whose ways change
 * while they run, which lie across the end of a page, and whose pages are at two addresses.
 */
#include "jit_pair.h"

enum {
    FRAME = 0x64000, /* two frames of code */
    ALIAS = 0x74000, /* where they are as well */
    AT = 0xf40       /* of the code in the first */
};

/* RBX points to data, RDI to data, to such that [rdi + 8] crosses a page, or to a device; R14 is random, R15 counts the
 * turns, RCX those of a loop inside. */
static void add_insn(struct text *t, uint64_t *rng)
{
    static const struct {
        uint8_t len;
        const char *bytes;
    } insns[] = {
        {3, "\x48\x01\xd0"},             /* add rax, rdx */
        {3, "\x48\x29\xd6"},             /* sub rsi, rdx */
        {3, "\x44\x01\xe8"},             /* add eax, r13d */
        {3, "\x44\x29\xea"},             /* sub edx, r13d */
        {3, "\x4d\x29\xf5"},             /* sub r13, r14 */
        {3, "\x41\x01\xc5"},             /* add r13d, eax */
        {3, "\x45\x31\xf5"},             /* xor r13d, r14d */
        {3, "\x45\x89\xf5"},             /* mov r13d, r14d */
        {3, "\x41\x89\xd5"},             /* mov r13d, edx */
        {3, "\x44\x89\xee"},             /* mov esi, r13d */
        {3, "\x4c\x89\xe8"},             /* mov rax, r13 */
        {6, "\x41\xbd\x12\x34\x56\x78"}, /* mov r13d, 0x78563412 */
        {6, "\x41\xbd\x12\x34\x56\x98"}, /* mov r13d, 0x98563412 */
        {4, "\x41\xc1\xe5\x03"},         /* shl r13d, 3 */
        {4, "\x41\xc1\xcd\x05"},         /* ror r13d, 5 */
        {3, "\x41\xd1\xfd"},             /* sar r13d, 1 */
        {3, "\x41\xff\xc5"},             /* inc r13d */
        {3, "\x41\xf7\xdd"},             /* neg r13d */
        {3, "\x41\xf7\xd5"},             /* not r13d */
        {3, "\x41\x0f\xcd"},             /* bswap r13d */
        {3, "\x49\x0f\xcd"},             /* bswap r13 */
        {4, "\x41\x83\xed\x07"},         /* sub r13d, 7 */
        {4, "\x66\x41\x01\xc5"},         /* add r13w, ax */
        {3, "\x41\x28\xc5"},             /* sub r13b, al */
        {5, "\x47\x8d\x6c\x2e\x09"},     /* lea r13d, [r14 + r13 + 9] */
        {4, "\x4e\x8d\x2c\xe8"},         /* lea r13, [rax + r13 * 8] */
        {3, "\x8d\x42\x7f"},             /* lea eax, [rdx + 127] */
        {5, "\x67\x48\x8d\x44\x10"},     /* lea rax, [eax + edx + ...]: with the byte behind */
        {4, "\x66\x8d\x50\x21"},         /* lea dx, [rax + 33] */
        {3, "\x3b\x47\x08"},             /* cmp eax, [rdi + 8] */
        {3, "\x39\x57\x08"},             /* cmp [rdi + 8], edx */
        {4, "\x4c\x39\x6f\x08"},         /* cmp [rdi + 8], r13 */
        {4, "\x4c\x3b\x6f\x08"},         /* cmp r13, [rdi + 8] */
        {4, "\x80\x7f\x08\x85"},         /* cmp byte [rdi + 8], 0x85 */
        {3, "\x3a\x47\x08"},             /* cmp al, [rdi + 8] */
        {3, "\x85\x47\x08"},             /* test [rdi + 8], eax */
        {4, "\xf6\x47\x08\x5a"},         /* test byte [rdi + 8], 0x5a */
        {4, "\x48\x03\x47\x08"},         /* add rax, [rdi + 8] */
        {3, "\x2b\x57\x08"},             /* sub edx, [rdi + 8] */
        {4, "\x44\x2a\x6f\x08"},         /* sub r13b, [rdi + 8] */
        {4, "\x66\x33\x77\x08"},         /* xor si, [rdi + 8] */
        {4, "\x4c\x23\x6f\x08"},         /* and r13, [rdi + 8] */
        {3, "\x01\x47\x08"},             /* add [rdi + 8], eax */
        {4, "\x4c\x29\x6f\x08"},         /* sub [rdi + 8], r13 */
        {4, "\x83\x6f\x08\x11"},         /* sub dword [rdi + 8], 17 */
        {3, "\x31\x57\x08"},             /* xor [rdi + 8], edx */
        {3, "\xf7\x5f\x08"},             /* neg dword [rdi + 8] */
        {3, "\xff\x4f\x08"},             /* dec dword [rdi + 8] */
        {4, "\xc1\x67\x08\x03"},         /* shl dword [rdi + 8], 3 */
        {4, "\x0f\xb6\x73\x09"},         /* movzx esi, byte [rbx + 9] */
        {4, "\x89\x43\x10\x90"},         /* mov [rbx + 16], eax; nop */
        {2, "\x11\xf0"},                 /* adc eax, esi */
        {3, "\x48\x19\xd2"},             /* sbb rdx, rdx */
        {3, "\x0f\x92\xc2"},             /* setc dl */
        {4, "\x41\x0f\x9f\xc5"},         /* setg r13b */
        {4, "\x41\x0f\x4c\xc5"},         /* cmovl eax, r13d */
        {4, "\x44\x0f\x4a\xee"},         /* cmovp r13d, esi */
        {1, "\x9f"},                     /* lahf */
        {2, "\x9c\x5e"},                 /* pushf; pop rsi */
        {4, "\x52\x41\x5d\x90"},         /* push rdx; pop r13; nop */
        {3, "\xff\xc0\x90"},             /* inc eax; nop */
    };
    unsigned n = (unsigned)(next_random(rng) >> 33) % ARRAY_LEN(insns);
    add_bytes(t, insns[n].bytes, insns[n].len);
    if (insns[n].bytes[0] == '\x67')
        add_bytes(t, "\x33", 1);
}

static void add_insns(struct text *t, uint64_t *rng, unsigned most)
{
    for (unsigned n = below(rng, most + 1); n > 0; n--)
        add_insn(t, rng);
}

/* Over a few instructions, sometimes: by a condition, by R14's bits, or mostly once the turns are half over. */
static void add_branch(struct text *t, uint64_t *rng)
{
    struct text over = {.len = 0};
    add_insns(&over, rng, 4);
    switch (below(rng, 4)) {
    case 0:
        add_bytes(t, "\x41\xf6\xc6", 3); /* test r14b, ... */
        add_bytes(t, (const char[]){(char)(1 << below(rng, 8))}, 1);
        break;
    case 1:
        add_bytes(t, "\x41\x83\xff\x30", 4); /* cmp r15d, 48 */
        break;
    default:
        break;
    }
    add_bytes(t, (const char[]){(char)(0x70 | below(rng, 16)), (char)over.len}, 2);
    add_bytes(t, (const char *)over.bytes, over.len);
}

/* 1: mov cl, ...; 2: some; dec ecx; jnz 2b; */
static void add_loop(struct text *t, uint64_t *rng)
{
    add_bytes(t, "\xb9", 1);
    add32(t, 1 + below(rng, 12));
    uint32_t from = t->len;
    add_insns(t, rng, 3);
    if (below(rng, 2))
        add_branch(t, rng);
    add_bytes(t, "\xff\xc9\x0f\x85", 4);
    add32(t, from - (t->len + 4));
}

static void put_program(struct pair *p, uint64_t *rng)
{
    struct text t = {.len = 0};
    for (unsigned n = 2 + below(rng, 5); n > 0; n--) {
        add_insns(&t, rng, 3);
        add_bytes(&t, "\x4d\x69\xf6\x2d\x4a\x9d\x65\x49\xc1\xce\x07", 11); /* imul r14, r14, ...; ror r14, 7 */
        if (below(rng, 4))
            add_branch(&t, rng);
        else
            add_loop(&t, rng);
    }
    add_bytes(&t, "\x41\xff\xcf\x0f\x85", 5); /* dec r15d; jnz */
    add32(&t, -(t.len + 4));
    add_bytes(&t, "\xf4", 1);
    put_code(p, FRAME + AT, (const char *)t.bytes, t.len);
}

static void run_program(struct pair *p, uint64_t *rng)
{
    uint64_t gpr[16];
    for (unsigned n = 0; n < 16; n++)
        gpr[n] = next_random(rng) << below(rng, 40);
    gpr[REG_RBX] = RIG_DATA;
    gpr[REG_RDI] = (const uint64_t[]){RIG_DATA + 0x40, RIG_DATA + 0xff7, RIG_MMIO}[below(rng, 3)];
    gpr[REG_RSP] = RIG_STACK;
    gpr[14] |= 1;
    gpr[15] = 1 + below(rng, 120);
    for (unsigned n = 0; n < 2; n++)
        memcpy(rig_of(p, n)->v->gpr, gpr, sizeof gpr);
    go_to(p, (below(rng, 2) ? FRAME : ALIAS) + AT);
    unsigned most = below(rng, 2) ? 60 : 5000;
    while (p->a.v->activity == VCPU_RUNNING) {
        run_until(p, clock_now(&p->a.clock) + 1 + below(rng, most));
        check_same(p, "program");
    }
    ck_assert_uint_eq(p->a.device_value, p->b.device_value);
    ck_assert_uint_eq(p->a.device_accesses, p->b.device_accesses);
}

START_TEST(loops_that_are_compiled_again_do_what_the_interpreter_does)
{
    const char *more = getenv("UMBRA_PROGRAMS"), *seed = getenv("UMBRA_SEED");
    uint64_t rng = (seed ? strtoull(seed, NULL, 0) : 1) * 0x9e3779b97f4a7c15ull | 1;
    unsigned programs = more ? (unsigned)atoi(more) : 250;
    struct pair p;
    pair_open(&p, "max", rig_long, 2);
    for (unsigned n = 0; n < 2; n++)
        for (unsigned page = 0; page < 2; page++)
            rig_poke(rig_of(&p, n), RIG_PT + 8 * ((ALIAS >> 12) + page), (FRAME + (page << 12)) | 7, 8);
    for (unsigned n = programs; n > 0; n--) {
        put_program(&p, &rng);
        for (unsigned k = 0; k < 5; k++)
            run_program(&p, &rng);
    }
    ck_assert_uint_gt(stat(&p, "jit.again"), programs);
    pair_close(&p);
}
END_TEST

/* 1: add eax, [rbx]; dec r15d; jnz 1b; hlt */
START_TEST(a_short_loop_takes_its_units_once_for_several_turns)
{
    struct pair p;
    pair_open(&p, "max", rig_long, 2);
    PUT_CODE(&p, RIG_CODE, "\x03\x03\x41\xff\xcf\x75\xf9\xf4");
    for (unsigned turns = 1; turns < 400; turns += 7) {
        for (unsigned n = 0; n < 2; n++) {
            struct vcpu *v = rig_of(&p, n)->v;
            rig_poke(rig_of(&p, n), RIG_DATA, turns, 4);
            v->gpr[REG_RAX] = 0;
            v->gpr[REG_RBX] = RIG_DATA;
            v->gpr[15] = turns;
        }
        run_all(&p, RIG_CODE, 1 + turns % 97, "loop");
        ck_assert_uint_eq(p.b.v->gpr[REG_RAX], turns * turns);
    }
    ck_assert_uint_gt(stat(&p, "jit.again"), 0);
    pair_close(&p);
}
END_TEST

static Suite *suite(void)
{
    const TTest *const tests[] = {loops_that_are_compiled_again_do_what_the_interpreter_does,
                                  a_short_loop_takes_its_units_once_for_several_turns};
    return rig_suite("cpu: code that is compiled again", tests, ARRAY_LEN(tests));
}

CHECK_MAIN(suite)
