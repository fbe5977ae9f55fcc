/*
 * Control flow in compiled code against the interpreter: what ends a block there but not here, and what compiled code
 * remembers of where it went and of what CPUID said.
 */
#include "cpu/code_cache.h"
#include "cpu/cpuid.h"

#include "jit_pair.h"

/* ---- CPUID, RDTSCP ---- */

static void compatibility_mode(struct cpu_rig *r)
{
    rig_long(r);
    rig_set_cpl(r, SEL_CODE32_0, SEL_DATA0, 0);
}

static const uint32_t leaves[][2] = {{0, 0},          {0, 7},    {1, 0},          {2, 0},          {4, 0},
                                     {4, 3},          {6, 0},    {7, 0},          {7, 1},          {0xb, 0},
                                     {0xb, 1},        {0xd, 0},  {0xd, 1},        {0xd, 2},        {0xd, 9},
                                     {0x15, 0},       {0x16, 0}, {0x40000000, 0}, {0x80000000, 0}, {0x80000001, 0},
                                     {0x80000002, 0}, {16, 0},   {17, 0},         {0, 16},         {0xffffffff, 1}};

/* Those that show registers; no two share a place among the answers. */
static const uint32_t changing[][2] = {{1, 0}, {7, 0}, {0xd, 0}, {0xd, 1}};

static void ask(struct pair *p, const uint32_t *leaf, uint64_t units)
{
    uint32_t out[4];
    vcpu_cpuid(p->b.v, leaf[0], leaf[1], out);
    for (unsigned n = 0; n < 2; n++) {
        uint64_t *gpr = rig_of(p, n)->v->gpr;
        gpr[REG_RAX] = leaf[0] | 0xabcd00000000;
        gpr[REG_RCX] = leaf[1] | 0x123400000000;
    }
    run_all(p, RIG_CODE, units, "cpuid");
    const uint64_t *gpr = p->b.v->gpr;
    uint32_t got[] = {(uint32_t)gpr[REG_RSI], (uint32_t)gpr[REG_RBX], (uint32_t)gpr[REG_RCX], (uint32_t)gpr[REG_RDX]};
    ck_assert_msg(memcmp(got, out, sizeof out) == 0, "leaf %x, %x: %x %x %x %x", leaf[0], leaf[1], got[0], got[1],
                  got[2], got[3]);
}

static void ask_in_all_circumstances(struct pair *p)
{
    PUT_CODE(p, RIG_CODE, "\x90\xf9\x0f\xa2\x89\xc6\xf4"); /* nop; stc; cpuid; mov esi, eax; hlt */
    for (unsigned number = 0; number < 32; number++) {
        unsigned k = number ^ number >> 1; /* one thing changes at a time */
        for (unsigned n = 0; n < 2; n++) {
            struct vcpu *v = rig_of(p, n)->v;
            v->cr4 = (v->cr4 & ~(uint64_t)(CR4_OSXSAVE | CR4_PKE)) | (k & 1 ? CR4_OSXSAVE : 0) | (k & 2 ? CR4_PKE : 0);
            v->xcr0 = k & 4 ? 7 : 1;
            v->msr.xss = k & 8 ? XSTATE_PKRU : 0;
        }
        for (unsigned n = 0; n < ARRAY_LEN(leaves) && number % 8 == 3; n++)
            ask(p, leaves[n], 1 + 20 * (n % 7));
        for (unsigned n = 0; n < 2 * ARRAY_LEN(changing); n++)
            ask(p, changing[n % ARRAY_LEN(changing)], 1000);
    }
}

START_TEST(cpuid_answers_as_the_registers_are_now)
{
    struct pair p;
    pair_open(&p, "max", rig_long, 1);
    ask_in_all_circumstances(&p);
    for (unsigned n = 0; n < 2; n++)
        rig_set_cpl(rig_of(&p, n), SEL_CODE32_0, SEL_DATA0, 0);
    ask_in_all_circumstances(&p); /* SYSCALL is not shown there */
    for (unsigned n = 0; n < 2; n++)
        rig_user(rig_of(&p, n));
    ask_in_all_circumstances(&p);
    pair_close(&p);
    pair_open(&p, "base", compatibility_mode, 1);
    ask_in_all_circumstances(&p);
    pair_close(&p);
}
END_TEST

START_TEST(cpuid_and_rdtscp_stay_in_compiled_code)
{
    struct pair p;
    pair_open(&p, "max", rig_long, 1);
    /* 1: mov eax, 1; xor ecx, ecx; cpuid; add esi, edx; rdtscp; add rsi, rax; add rsi, rcx; dec edi; jnz 1b; hlt */
    PUT_CODE(&p, RIG_CODE,
             "\xb8\x01\0\0\0\x31\xc9\x0f\xa2\x01\xd6\x0f\x01\xf9\x48\x01\xc6\x48\x01\xce\xff\xcf\x75\xe8\xf4");
    uint64_t slow = 0;
    for (unsigned k = 0; k < 40; k++) {
        for (unsigned n = 0; n < 2; n++) {
            struct vcpu *v = rig_of(&p, n)->v;
            v->gpr[REG_RDI] = 50;
            v->gpr[REG_RSI] = 0;
            v->msr.tsc_aux = k / 3;
        }
        if (k == 39)
            slow = stat(&p, "jit.slow");
        run_all(&p, RIG_CODE, k == 39 ? 1000000 : 1 + 37 * k, "cpuid and rdtscp");
    }
    ck_assert_uint_le(stat(&p, "jit.slow") - slow, 1); /* HLT */
    pair_close(&p);
}
END_TEST

/* ---- flags from block to block ---- */

#define FUNCTIONS      (RIG_CODE + 0x1800u) /* in another page than the loop: 16 of 64 bytes each */
#define NEAR_FUNCTIONS (RIG_CODE + 0x800u)
#define TABLE          (RIG_DATA + 0x100u)

/* What sets, keeps or looks at flags: all of them, some, one. RBP points to the table, R15 counts the turns. */
static void add_insn(struct text *t, uint64_t *rng)
{
    static const struct {
        uint8_t len;
        const char *bytes;
    } insns[] = {
        {3, "\x48\x01\xc8"},                 /* add rax, rcx */
        {3, "\x48\x29\xd6"},                 /* sub rsi, rdx */
        {3, "\x48\x11\xf8"},                 /* adc rax, rdi */
        {3, "\x48\x19\xc1"},                 /* sbb rcx, rax */
        {2, "\x39\xd1"},                     /* cmp ecx, edx */
        {2, "\x85\xf6"},                     /* test esi, esi */
        {3, "\x48\xff\xc0"},                 /* inc rax */
        {2, "\xff\xc9"},                     /* dec ecx */
        {3, "\xff\x45\x40"},                 /* inc dword [rbp + 64] */
        {4, "\x48\x0f\xaf\xc1"},             /* imul rax, rcx */
        {4, "\x0f\xaf\x75\x48"},             /* imul esi, [rbp + 72] */
        {2, "\xf7\xe1"},                     /* mul ecx */
        {4, "\x48\x0f\xa3\xd0"},             /* bt rax, rdx */
        {4, "\x0f\xba\xe9\x05"},             /* bts ecx, 5 */
        {3, "\x48\xd1\xc7"},                 /* rol rdi, 1 */
        {3, "\xc1\xc8\x07"},                 /* ror eax, 7 */
        {2, "\xd3\xc6"},                     /* rol esi, cl */
        {3, "\x48\xd1\xd2"},                 /* rcl rdx, 1 */
        {1, "\xf9"},                         /* stc */
        {1, "\xf5"},                         /* cmc */
        {3, "\x48\xd3\xe2"},                 /* shl rdx, cl */
        {3, "\xc1\xff\x03"},                 /* sar edi, 3 */
        {3, "\x48\xf7\xd8"},                 /* neg rax */
        {3, "\x0f\x92\xc2"},                 /* setc dl */
        {3, "\x0f\x9f\xc3"},                 /* setg bl */
        {4, "\x48\x0f\x4c\xf0"},             /* cmovl rsi, rax */
        {3, "\x0f\x4a\xcf"},                 /* cmovp ecx, edi */
        {1, "\x9f"},                         /* lahf */
        {2, "\x9c\x5b"},                     /* pushf; pop rbx */
        {7, "\x8b\x1c\x25\0\0\x50\0"},       /* mov ebx, [RIG_MMIO] */
        {3, "\x48\x89\xc7"},                 /* mov rdi, rax */
        {4, "\x66\x0f\x6e\xd8"},             /* movd xmm3, eax */
        {4, "\x66\x0f\xfe\xdc"},             /* paddd xmm3, xmm4 */
        {4, "\x66\x0f\x7e\xdf"},             /* movd edi, xmm3 */
        {4, "\x66\x0f\x6e\xe1"},             /* movd xmm4, ecx */
        {4, "\x44\x0f\xaf\xe8"},             /* imul r13d, eax */
        {3, "\x45\x39\xeb"},                 /* cmp r11d, r13d */
        {2, "\x31\xd2"},                     /* xor edx, edx */
        {7, "\x31\xd2\x83\xc9\x01\xf7\xf1"}, /* xor edx, edx; or ecx, 1; div ecx */
    };
    unsigned n = below(rng, ARRAY_LEN(insns));
    add_bytes(t, insns[n].bytes, insns[n].len);
}

/* A way from one block to the next: by falling through, jumps, calls and returns, direct and not, near and far. */
static void add_step(struct text *t, uint64_t *rng, unsigned depth)
{
    static const char fetch[] = "\x41\x83\xe4\x0f\x42\xff\x54\xe5\x80"; /* and r12d, 15; call [rbp + r12 * 8 - 128] */
    unsigned function = below(rng, 16);
    uint32_t to = (below(rng, 2) ? FUNCTIONS : NEAR_FUNCTIONS) + 64 * function;
    switch (below(rng, depth ? 3 : 7)) {
    case 0:
        add_bytes(t, "\xeb\0", 2); /* jmp to the next */
        break;
    case 1: { /* jcc over an instruction */
        uint8_t cc = (uint8_t)(0x70 | below(rng, 16));
        unsigned at = t->len;
        add_bytes(t, "\0\0", 2);
        add_insn(t, rng);
        t->bytes[at] = (char)cc;
        t->bytes[at + 1] = (char)(t->len - at - 2);
        break;
    }
    case 2:
        break;
    case 3: /* call */
        add_bytes(t, "\xe8", 1);
        add32(t, to - (RIG_CODE + t->len + 4));
        break;
    case 4:                              /* another function each time */
        add_bytes(t, "\x41\xff\xc4", 3); /* inc r12d */
        add_bytes(t, fetch, sizeof fetch - 1);
        break;
    case 5:                                              /* the same one mostly */
        add_bytes(t, "\x4d\x89\xfc\x49\xc1\xec\x03", 7); /* mov r12, r15; shr r12, 3 */
        add_bytes(t, fetch, sizeof fetch - 1);
        break;
    default: /* by a jump through a register: lea r14, [rip + 3]; jmp r14 */
        add_bytes(t, "\x4c\x8d\x35\x03\0\0\0\x41\xff\xe6", 10);
        break;
    }
}

static void put_program(struct pair *p, uint64_t *rng)
{
    struct text t = {.len = 0};
    for (unsigned k = 0; k < 6; k++) {
        for (unsigned n = 1 + below(rng, 3); n > 0; n--)
            add_insn(&t, rng);
        add_step(&t, rng, 0);
    }
    add_insn(&t, rng);
    add_bytes(&t, "\x49\xff\xcf\x0f\x85", 5); /* dec r15; jnz */
    add32(&t, -(t.len + 4));
    add_bytes(&t, "\xf4", 1);
    put_code(p, RIG_CODE, t.bytes, t.len);
    for (unsigned k = 0; k < 32; k++) {
        uint64_t at = (k & 1 ? FUNCTIONS : NEAR_FUNCTIONS) + 64 * (k / 2);
        t.len = 0;
        for (unsigned n = below(rng, 3); n > 0; n--)
            add_insn(&t, rng);
        add_step(&t, rng, 1);
        add_insn(&t, rng);
        add_bytes(&t, "\xc3", 1);
        put_code(p, at, t.bytes, t.len);
        put_code(p, TABLE - 128 + 8 * (k / 2), (const char *)&at, below(rng, 2) || !(k & 1) ? 8 : 0);
    }
}

static void run_program(struct pair *p, uint64_t *rng)
{
    uint64_t gpr[16];
    for (unsigned n = 0; n < 16; n++)
        gpr[n] = below(rng, 3) ? next_random(rng) << below(rng, 40) : below(rng, 3);
    gpr[REG_RBP] = TABLE;
    gpr[REG_RSP] = RIG_STACK;
    gpr[15] = 4 + below(rng, 60);
    for (unsigned n = 0; n < 2; n++)
        memcpy(rig_of(p, n)->v->gpr, gpr, sizeof gpr);
    go_to(p, RIG_CODE);
    while (p->a.v->activity == VCPU_RUNNING) {
        run_until(p, clock_now(&p->a.clock) + 1 + below(rng, below(rng, 2) ? 40 : 3000));
        check_same(p, "program");
    }
}

START_TEST(flags_go_from_block_to_block_as_in_the_interpreter)
{
    const char *more = getenv("UMBRA_PROGRAMS"), *seed = getenv("UMBRA_SEED");
    uint64_t rng = (seed ? strtoull(seed, NULL, 0) : 1) * 0x9e3779b97f4a7c15ull | 1;
    struct pair p;
    pair_open(&p, "max", rig_long, 3);
    p.a.v->cr4 |= CR4_OSFXSR;
    p.b.v->cr4 |= CR4_OSFXSR;
    for (unsigned n = more ? (unsigned)atoi(more) : 1500; n > 0; n--) {
        put_program(&p, &rng);
        for (unsigned k = 0; k < 3; k++)
            run_program(&p, &rng);
    }
    ck_assert_uint_gt(stat(&p, "jit.entries"), 1500);
    ck_assert_uint_gt(stat(&p, "jit.again"), 50);
    pair_close(&p);
}
END_TEST

/* ---- flags of an operation that another block asks for ---- */

enum { ALU_TEST = 8, ALU_NEG };
enum { ALU_REGISTERS, ALU_SAME, ALU_IMM, ALU_FORMS };

/* The operation `op` (an ALU's number, or one of the above) of RAX and of RCX, of RAX, or of an immediate. */
static void add_alu(struct text *t, unsigned op, unsigned size, unsigned form)
{
    static const uint8_t imm[] = {0x80, 0xff, 0xff, 0xff};
    bool wide = size != 1;
    uint8_t modrm = form == ALU_SAME ? 0xc0 : 0xc8;
    uint8_t opcode = (uint8_t)((op == ALU_TEST ? 0x84 : op << 3) | wide);
    if (size == 2)
        add_bytes(t, "\x66", 1);
    if (size == 8)
        add_bytes(t, "\x48", 1);
    if (op == ALU_NEG || form == ALU_IMM) {
        opcode = (uint8_t)((op >= ALU_TEST ? 0xf6 : 0x80) | wide);
        modrm = (uint8_t)(0xc0 | (op == ALU_NEG ? 3 : op == ALU_TEST ? 0 : op) << 3);
    }
    add_bytes(t, (const char *)&opcode, 1);
    add_bytes(t, (const char *)&modrm, 1);
    if (op != ALU_NEG && form == ALU_IMM)
        add_bytes(t, (const char *)imm, size == 8 ? 4 : size);
}

/* 1: rol rdi, 7; add rdi, r12; mov rax, rdi; mov rcx, rdi; bswap rcx; op; call; add rsi, rbx; dec r15; jnz 1b; hlt.
 * What is called: pushfq; pop rbx; ret. */
static void put_operation(struct pair *p, unsigned op, unsigned size, unsigned form)
{
    struct text t = {.len = 0};
    add_bytes(&t, "\x48\xc1\xc7\x07\x4c\x01\xe7\x48\x89\xf8\x48\x89\xf9\x48\x0f\xc9", 16);
    add_alu(&t, op, size, form);
    add_bytes(&t, "\xe8", 1);
    add32(&t, FUNCTIONS - (RIG_CODE + t.len + 4));
    add_bytes(&t, "\x48\x01\xde\x49\xff\xcf\x0f\x85", 8);
    add32(&t, -(t.len + 4));
    add_bytes(&t, "\xf4", 1);
    put_code(p, RIG_CODE, t.bytes, t.len);
    PUT_CODE(p, FUNCTIONS, "\x9c\x5b\xc3");
}

static void run_operation(struct pair *p, uint64_t rdi, uint64_t r12, uint64_t units, const char *what)
{
    for (unsigned n = 0; n < 2; n++) {
        uint64_t *gpr = rig_of(p, n)->v->gpr;
        gpr[REG_RSI] = 0;
        gpr[REG_RDI] = rdi;
        gpr[12] = r12;
        gpr[15] = 30;
    }
    run_all(p, RIG_CODE, units, what);
}

START_TEST(flags_of_another_block_are_evaluated_without_c)
{
    static const uint64_t values[][2] = {
        {0, 0}, {~0ull, 0}, {0x8000000080008080, 0}, {1, 0}, {0x123456789abcdef, 0xfedcba987654321}, {0x7f, 1}};
    static const uint8_t ops[] = {0, 1, 4, 5, 6, 7, ALU_TEST, ALU_NEG};
    struct pair p;
    for (unsigned n = 0; n < ARRAY_LEN(ops) * 4 * ALU_FORMS; n++) {
        unsigned op = ops[n / 4 / ALU_FORMS], size = 1u << n % 4, form = n / 4 % ALU_FORMS;
        char what[40];
        snprintf(what, sizeof what, "operation %u of %u bytes, form %u", op, size, form);
        pair_open(&p, "max", rig_long, 2);
        put_operation(&p, op, size, form);
        for (unsigned k = 0; k < ARRAY_LEN(values); k++)
            run_operation(&p, values[k][0], values[k][1], k % 2 ? 1000 : 13, what);
        uint64_t by_c = stat(&p, "jit.collapsed");
        run_operation(&p, 0xabcdef0123456789, 0x1111111111111111, 10000, what);
        ck_assert_msg(stat(&p, "jit.collapsed") - by_c <= 2, "%s: %u by C", what,
                      (unsigned)(stat(&p, "jit.collapsed") - by_c));
        pair_close(&p);
    }
}
END_TEST

/* ---- where a call leads changes ---- */

enum {
    TARGET = RIG_CODE + 0x6000, /* the address that is called */
    FRAME_X = 0x60000,          /* what is there: mov eax, 1; ret */
    FRAME_Y = 0x61000,          /* or: mov eax, 2; ret */
    TARGET_PTE = RIG_PT + 8 * (TARGET >> 12),
    SECOND_PML4 = 0x62000 /* tables of their own for an address space in which it is FRAME_Y */
};

static void put_functions(struct pair *p)
{
    PUT_CODE(p, FRAME_X, "\xb8\x01\0\0\0\xc3");
    PUT_CODE(p, FRAME_Y, "\xb8\x02\0\0\0\xc3");
    for (unsigned n = 0; n < 2; n++)
        rig_poke(rig_of(p, n), TARGET_PTE, FRAME_X | 7, 8);
}

/* 1: call; add rsi, rax; what changes it; xchg rdi, r8; dec r15; jnz 1b; hlt. r9 is the target. */
static void put_calls(struct pair *p, bool direct, const char *change, size_t len)
{
    struct text t = {.len = 0};
    if (direct) {
        add_bytes(&t, "\xe8", 1);
        add32(&t, TARGET - (RIG_CODE + 5));
    } else {
        add_bytes(&t, "\x41\xff\xd1", 3);
    }
    add_bytes(&t, "\x48\x01\xc6", 3);
    add_bytes(&t, change, len);
    add_bytes(&t, "\x4c\x87\xc7\x49\xff\xcf\x0f\x85", 8);
    add32(&t, -(t.len + 4));
    add_bytes(&t, "\xf4", 1);
    put_code(p, RIG_CODE, t.bytes, t.len);
}

/* Turns alternate between the two values that rdi and r8 have. Both engines must have called what was there. */
static void call_while_changing(const char *what, const char *change, size_t len, uint64_t rdi, uint64_t r8,
                                uint64_t expect)
{
    for (unsigned direct = 0; direct < 2; direct++) {
        struct pair p;
        pair_open(&p, "max", rig_long, 3);
        put_functions(&p);
        for (unsigned n = 0; n < 2; n++) { /* the second address space, with a table of the last level of its own */
            struct cpu_rig *r = rig_of(&p, n);
            rig_poke(r, SECOND_PML4, (SECOND_PML4 + 0x1000) | 7, 8);
            rig_poke(r, SECOND_PML4 + 0x1000, (SECOND_PML4 + 0x2000) | 7, 8);
            rig_poke(r, SECOND_PML4 + 0x2000, (SECOND_PML4 + 0x3000) | 7, 8);
            for (unsigned k = 0; k < 512; k++)
                rig_poke(r, SECOND_PML4 + 0x3000 + 8 * k, (k == TARGET >> 12 ? FRAME_Y : k << 12) | 7, 8);
            uint64_t *gpr = r->v->gpr;
            gpr[REG_RBX] = TARGET_PTE;
            gpr[REG_RSI] = 0;
            gpr[REG_RDI] = rdi;
            gpr[8] = r8;
            gpr[9] = TARGET;
            gpr[15] = 400;
        }
        put_calls(&p, direct, change, len);
        run_all(&p, RIG_CODE, 777, what);
        ck_assert_msg(p.b.v->gpr[REG_RSI] == expect, "%s: %llu", what, (unsigned long long)p.b.v->gpr[REG_RSI]);
        ck_assert_uint_gt(stat(&p, "jit.regions"), 0);
        pair_close(&p);
    }
}

START_TEST(a_call_leads_to_what_its_target_is_now)
{
    /* mov [rbx], rdi: the entry of the target's page */
    call_while_changing("remapped", "\x48\x89\x3b", 3, FRAME_Y | 7, FRAME_X | 7, 600);
    /* mov cr3, rdi */
    call_while_changing("address spaces", "\x0f\x22\xdf", 3, SECOND_PML4, RIG_PML4, 600);
    /* mov [r9 + 1], dil: the function's own bytes */
    call_while_changing("code written", "\x41\x88\x79\x01", 4, 2, 1, 600);
    /* the same once in a hundred turns: test r15b, 63; jnz +4 */
    call_while_changing("seldom", "\x41\xf6\xc7\x3f\x75\x04\x41\x88\x79\x01", 10, 2, 2, 17 + 2 * 383);
}
END_TEST

/* The same addresses as 64-bit and as 32-bit code, in turn; and as a user's who may not go there. */
START_TEST(a_call_leads_to_code_of_the_mode_it_is_made_in)
{
    struct pair p;
    pair_open(&p, "max", rig_long, 2);
    /* 1: call TARGET; dec ecx; jnz 1b; hlt. There: inc rax, or dec eax, inc eax; add eax, 2; ret */
    PUT_CODE(&p, RIG_CODE, "\xe8\xfb\x5f\0\0\xff\xc9\x75\xf7\xf4");
    PUT_CODE(&p, TARGET, "\x48\xff\xc0\x83\xc0\x02\xc3");
    for (unsigned turn = 0; turn < 12; turn++) {
        bool wide = turn % 2, user = turn % 3 == 2, absent = turn >= 6 && turn % 4 == 1;
        for (unsigned n = 0; n < 2; n++) {
            struct cpu_rig *r = rig_of(&p, n);
            rig_poke(r, TARGET_PTE, TARGET | (absent ? 6 : 7), 8);
            rig_set_cpl(r,
                        user   ? (wide ? SEL_CODE3 : SEL_CODE32_3)
                        : wide ? SEL_CODE0
                               : SEL_CODE32_0,
                        user ? SEL_DATA3 : SEL_DATA0, user ? 3 : 0);
            r->v->gpr[REG_RAX] = 0;
            r->v->gpr[REG_RCX] = 50;
        }
        run_all(&p, RIG_CODE, 1000, "modes");
        ck_assert_uint_eq(p.b.v->gpr[REG_RAX], absent ? 0 : wide ? 150 : 100);
        rig_set_cpl(&p.a, SEL_CODE0, SEL_DATA0, 0);
        rig_set_cpl(&p.b, SEL_CODE0, SEL_DATA0, 0);
    }
    pair_close(&p);
}
END_TEST

static Suite *suite(void)
{
    const TTest *const tests[] = {cpuid_answers_as_the_registers_are_now,
                                  cpuid_and_rdtscp_stay_in_compiled_code,
                                  flags_go_from_block_to_block_as_in_the_interpreter,
                                  flags_of_another_block_are_evaluated_without_c,
                                  a_call_leads_to_what_its_target_is_now,
                                  a_call_leads_to_code_of_the_mode_it_is_made_in};
    return rig_suite("cpu: control flow in compiled code", tests, ARRAY_LEN(tests));
}

CHECK_MAIN(suite)
