/*
 * SYSCALL and SYSRET in compiled code against the interpreter: a user's loop that calls a kernel, with all that they
 * change, and whatever can come in between at any instruction.
 */
#include "jit_pair.h"

enum {
    KERNEL = RIG_CODE + 0x6000,
    KERNEL2 = KERNEL + 0x1000,  /* another one */
    FUNCTION = KERNEL + 0x2000, /* one for each side: the jump table has an address once */
    FUNCTION2 = FUNCTION + 0x100,
    COPY = 0x60000,             /* of the user's page, or of the kernel's, not quite the same */
    SECRET = RIG_DATA + 0x1000, /* the kernel's data */
    PML4_2 = 0x62000,           /* of another address space, where the user's page may be another */
    TURNS = 200
};
#define PTE(gva) ((uint64_t)RIG_PT + 8 * ((gva) >> 12))

struct program {
    struct text before, middle;       /* in front of SYSCALL, of SYSRET */
    bool plain;                       /* the kernel does nothing but `middle` */
    uint64_t flags, fmask, cr4, flip; /* flags: to begin with; flip: what the kernel changes in r11 */
    uint64_t rbx, r13, r14, rdx;      /* for `middle` */
};

/* 1: before; syscall; pushfq; pop rax; add rdi, rax; add rsi, r11; dec r15; jnz 1b; hlt */
static void add_user(struct text *t, const struct program *g)
{
    add_bytes(t, g->before.bytes, g->before.len);
    add_bytes(t, "\x0f\x05\x9c\x58\x48\x01\xc7\x4c\x01\xde\x49\xff\xcf\x0f\x85", 15);
    add32(t, -(t->len + 4));
    add_bytes(t, "\xf4", 1);
}

/* add r8, r11; pushfq; pop rax; add r9, rax; add r10, rcx; mov rax, [rdx]; add r8, rax; middle; xor r11, r12; sysretq
 */
static void add_kernel(struct text *t, const struct program *g)
{
    if (!g->plain)
        add_bytes(t, "\x4d\x01\xd8\x9c\x58\x49\x01\xc1\x49\x01\xca\x48\x8b\x02\x49\x01\xc0", 17);
    add_bytes(t, g->middle.bytes, g->middle.len);
    add_bytes(t, "\x4d\x31\xe3\x48\x0f\x07", 6);
}

/* In the other kernel and in the copies there is one INC of the sums more. */
static void put_program(struct pair *p, const struct program *g)
{
    struct text user = {.len = 0}, copy = {.len = 0}, kernel = {.len = 0}, kernel2 = {.len = 0};
    add_user(&user, g);
    add_bytes(&copy, user.bytes, user.len);
    copy.bytes[g->before.len + 2 + 2 + 2] = (char)0xc6; /* add rsi, rax */
    add_kernel(&kernel, g);
    add_bytes(&kernel2, "\x49\xff\xc0", 3); /* inc r8 */
    add_kernel(&kernel2, g);
    put_code(p, RIG_CODE, user.bytes, user.len);
    put_code(p, COPY, copy.bytes, copy.len);
    put_code(p, KERNEL, kernel.bytes, kernel.len);
    put_code(p, KERNEL2, kernel2.bytes, kernel2.len);
    PUT_CODE(p, FUNCTION, "\x48\xff\xc0\xc3"); /* inc rax; ret */
    PUT_CODE(p, FUNCTION2, "\x48\xff\xc0\xc3");
    PUT_CODE(p, SECRET, "\x12\x34\x56\x78\x9a\xbc\xde\xf0");
}

static void start(struct pair *p, const struct program *g, unsigned cpl)
{
    static const gpa_t kernels[] = {RIG_GDT, RIG_IDT, RIG_TSS, RIG_RSP0 - 0x1000, RIG_IST1 - 0x1000};
    for (unsigned n = 0; n < 2; n++) {
        struct cpu_rig *r = rig_of(p, n);
        struct vcpu *v = r->v;
        rig_poke(r, PTE(RIG_CODE), RIG_CODE | 7, 8);
        rig_poke(r, PTE(KERNEL), KERNEL | 7, 8);
        rig_poke(r, PTE(SECRET), SECRET | 3, 8);
        for (unsigned k = 0; k < ARRAY_LEN(kernels); k++) /* with SMAP they must be */
            rig_poke(r, PTE(kernels[k]), kernels[k] | 3, 8);
        rig_gate64(r, EXC_PF, 0x8e, 1);
        for (unsigned k = 0; k < 16; k++)
            v->gpr[k] = 0;
        v->gpr[REG_RBX] = g->rbx;
        v->gpr[REG_RDX] = g->rdx ? g->rdx : SECRET;
        v->gpr[REG_RBP] = RIG_DATA;
        v->gpr[12] = g->flip;
        v->gpr[13] = g->r13;
        v->gpr[14] = g->r14;
        v->gpr[15] = TURNS;
        v->msr.star = (uint64_t)(SEL_CODE3 - 16) << 48 | (uint64_t)SEL_CODE0 << 32;
        v->msr.lstar = KERNEL;
        v->msr.fmask = g->fmask;
        v->efer |= EFER_SCE;
        v->cr3 = RIG_PML4;
        v->cr4 = CR4_PAE | g->cr4;
        v->dr[7] = 0x400;
        v->pending_dbg = 0;
        vcpu_set_rflags(v, 2 | g->flags);
        if (cpl == 3)
            rig_user(r);
        else
            rig_set_cpl(r, SEL_CODE0, SEL_DATA0, 0);
    }
}

static void check_crossed(struct pair *p, const char *what)
{
    const struct vcpu *a = p->a.v, *b = p->b.v;
    check_same(p, what);
    ck_assert_msg(a->cpl == b->cpl && a->mode == b->mode, "%s: CPL %u, JIT %u, mode %x, JIT %x", what, a->cpl, b->cpl,
                  a->mode, b->mode);
    for (int s = SEG_ES; s <= SEG_GS; s++) {
        const struct segment *x = &a->seg[s], *y = &b->seg[s];
        ck_assert_msg(x->base == y->base && x->limit == y->limit && x->sel == y->sel && x->attr == y->attr &&
                          x->unusable == y->unusable && a->seg_base[s] == b->seg_base[s],
                      "%s: segment %d is %x %x, JIT %x %x", what, s, x->sel, x->attr, y->sel, y->attr);
    }
    ck_assert_uint_eq(a->rflags, b->rflags);
    ck_assert_uint_eq(b->mv->regs.cpl, b->cpl);
    ck_assert_int_eq(b->mv->regs.ac, (b->rflags & FLAG_AC) != 0);
    ck_assert_ptr_eq(b->mv->cur_fetch, b->mv->fetch[b->cpl == 3 ? TLB_USER : TLB_SUPER]);
    ck_assert_uint_eq(b->mv->fetch_epoch, *b->mv->epoch_of[b->cpl == 3 ? TLB_USER : TLB_SUPER]);
}

/* As run_all(), from where it is, with random lengths up to `units`. */
static void run_on(struct pair *p, uint64_t *rng, unsigned units, const char *what)
{
    for (unsigned n = 0; p->a.v->activity == VCPU_RUNNING; n++) {
        ck_assert_msg(n < 100000, "%s: no end", what);
        run_until(p, clock_now(&p->a.clock) + 1 + below(rng, units));
        check_crossed(p, what);
    }
}

static void run_program(struct pair *p, const struct program *g, uint64_t *rng, unsigned units, const char *what)
{
    start(p, g, 3);
    go_to(p, RIG_CODE);
    run_on(p, rng, units, what);
}

/* ---- what is done in compiled code ---- */

static void add_flag_insns(struct text *t, uint64_t *rng)
{
    static const struct {
        uint8_t len;
        const char *bytes;
    } insns[] = {{3, "\x48\x01\xc8"}, {3, "\x48\x29\xc6"}, {3, "\x48\x11\xf8"}, {2, "\x39\xc1"},
                 {2, "\x85\xf6"},     {3, "\x48\xff\xc0"}, {2, "\xff\xc8"},     {1, "\xf9"},
                 {1, "\xf5"},         {1, "\xfd"},         {3, "\xc1\xe0\x03"}, {2, "\xd1\xc8"},
                 {2, "\xf7\xd8"},     {3, "\x0f\xba\xe0"}, {3, "\x84\xc0\x90"}};
    unsigned k = below(rng, ARRAY_LEN(insns));
    add_bytes(t, insns[k].bytes, insns[k].len);
    if (insns[k].len == 3 && insns[k].bytes[1] == '\xba')
        add_bytes(t, "\x05", 1); /* bt eax, 5 */
}

static void add_call(struct text *t, uint32_t to)
{
    add_bytes(t, "\xb8", 1); /* mov eax, to; call rax */
    add32(t, to);
    add_bytes(t, "\xff\xd0", 2);
}

static const uint64_t fmasks[] = {0, 0x47700, ~0ull, FLAGS_ARITH, FLAG_DF | FLAG_CF, FLAG_IF | FLAG_OF};

/* The kernel changes flags in r11: arithmetic ones, DF, IF, IOPL, ID. */
static const uint64_t flips[] = {0, FLAG_CF | FLAG_OF, FLAGS_ARITH, FLAG_DF | FLAG_ZF, FLAG_IF | FLAG_IOPL | FLAG_ID};

START_TEST(a_user_calls_the_kernel_in_compiled_code)
{
    static const enum mmu_kind kinds[] = {MMU_WALK, MMU_SHADOW, MMU_EPT};
    uint64_t rng = 41 + (unsigned)_i;
    struct pair p;
    for (unsigned n = 0; n < 40; n++) {
        struct program g = {.fmask = fmasks[below(&rng, ARRAY_LEN(fmasks))],
                            .flip = flips[below(&rng, ARRAY_LEN(flips))]};
        add_call(&g.before, FUNCTION);
        add_call(&g.middle, FUNCTION2);
        for (unsigned k = below(&rng, 4); k > 0; k--)
            add_flag_insns(&g.before, &rng);
        for (unsigned k = below(&rng, 3); k > 0; k--)
            add_flag_insns(&g.middle, &rng);
        pair_open_kind(&p, "max", kinds[_i], rig_long, 2);
        put_program(&p, &g);
        run_program(&p, &g, &rng, 1000, "warm");
        run_program(&p, &g, &rng, 1 + below(&rng, 40), "cut");
        uint64_t by_c = stat(&p, "jit.slow") + stat(&p, "jit.found") + stat(&p, "jit.renewed");
        run_program(&p, &g, &rng, 1000000, "whole");
        ck_assert_uint_le(stat(&p, "jit.slow") + stat(&p, "jit.found") + stat(&p, "jit.renewed") - by_c, 12);
        pair_close(&p);
    }
}
END_TEST

START_TEST(vectors_stay_in_registers_on_the_way)
{
    uint64_t rng = 5;
    struct pair p;
    struct program g = {.fmask = 0x47700, .cr4 = CR4_OSFXSR};
    add_bytes(&g.before, "\x66\x0f\xd4\xc1\x66\x0f\xef\xc8", 8); /* paddq xmm0, xmm1; pxor xmm1, xmm0 */
    add_bytes(&g.middle, "\x66\x0f\xd4\xca", 4);                 /* paddq xmm1, xmm2 */
    pair_open(&p, "max", rig_long, 2);
    for (unsigned n = 0; n < 2; n++)
        for (unsigned k = 0; k < 3; k++)
            memset(&rig_of(&p, n)->v->xmm[k], 0x11 + (int)k, 16);
    put_program(&p, &g);
    for (unsigned units = 1; units < 100; units += 7)
        run_program(&p, &g, &rng, units, "vectors");
    uint64_t slow = stat(&p, "jit.slow");
    run_program(&p, &g, &rng, 1000000, "vectors, whole");
    ck_assert_uint_le(stat(&p, "jit.slow") - slow, 10);
    pair_close(&p);
}
END_TEST

/* ---- what changes the way ---- */

static void scene(const char *what, const struct program *g, bool by_handler)
{
    uint64_t rng = 77;
    struct pair p;
    pair_open(&p, "max", rig_long, 2);
    put_program(&p, g);
    for (unsigned units = 1000; units > 0; units /= 3)
        run_program(&p, g, &rng, units, what);
    uint64_t slow = stat(&p, "jit.slow");
    run_program(&p, g, &rng, 1000000, what);
    ck_assert_msg(p.a.v->rip == RIG_HANDLERS + 16 * EXC_GP + 1, "%s ends at %llx", what,
                  (unsigned long long)p.a.v->rip);
    ck_assert_msg(!by_handler || stat(&p, "jit.slow") - slow >= TURNS, "%s: %llu by handlers", what,
                  (unsigned long long)(stat(&p, "jit.slow") - slow));
    pair_close(&p);
}

START_TEST(the_way_leads_to_what_is_there_now)
{
    /* mov [rbx], r13; xchg r13, r14 */
    struct program user = {.rbx = PTE(RIG_CODE), .r13 = COPY | 7, .r14 = RIG_CODE | 7};
    struct program kernel = {.rbx = PTE(KERNEL), .r13 = KERNEL2 | 7, .r14 = KERNEL | 7};
    add_bytes(&user.middle, "\x4c\x89\x2b\x4d\x87\xee", 6);
    scene("the user's page", &user, false);
    add_bytes(&kernel.before, "\x90", 1);
    add_bytes(&kernel.middle, "\x90", 1);
    scene("nothing", &kernel, false);
    /* push rcx; push rdx; mov ecx, IA32_LSTAR; mov eax, r13d; xor edx, edx; wrmsr; pop rdx; pop rcx; xchg r13, r14 */
    struct program lstar = {.r13 = KERNEL2, .r14 = KERNEL};
    add_bytes(&lstar.middle, "\x51\x52\xb9\x82\0\0\xc0\x44\x89\xe8\x31\xd2\x0f\x30\x5a\x59\x4d\x87\xee", 19);
    scene("LSTAR", &lstar, true);
    /* mov [rbx], r13b; xchg r13, r14: the last byte of ADD RSI, R11 or ADD RDI, R11 */
    struct program written = {.rbx = RIG_CODE + 9, .r13 = 0xdf, .r14 = 0xde};
    add_bytes(&written.middle, "\x44\x88\x2b\x4d\x87\xee", 6);
    scene("code written", &written, false);
}
END_TEST

/* The same tables but for the user's page, if that is another one there. */
static void put_second_space(struct pair *p, gpa_t user)
{
    for (unsigned n = 0; n < 2; n++) {
        struct cpu_rig *r = rig_of(p, n);
        rig_poke(r, PML4_2, (PML4_2 + 0x1000) | 7, 8);
        rig_poke(r, PML4_2 + 0x1000, (PML4_2 + 0x2000) | 7, 8);
        rig_poke(r, PML4_2 + 0x2000, (PML4_2 + 0x3000) | 7, 8);
        for (uint64_t k = 0; k < 512; k++)
            rig_poke(r, PML4_2 + 0x3000 + 8 * k, (k == RIG_CODE >> 12 ? user : k << 12) | 7, 8);
    }
}

/* The kernel changes address spaces in every turn, as between processes with the same program, or with another. */
START_TEST(a_user_of_another_space_is_another)
{
    static const gpa_t users[] = {RIG_CODE, COPY};
    uint64_t rng = 17;
    struct pair p;
    struct program g = {.r13 = PML4_2, .r14 = RIG_PML4};
    add_bytes(&g.middle, "\x41\x0f\x22\xdd\x4d\x87\xee", 7); /* mov cr3, r13; xchg r13, r14 */
    pair_open_kind(&p, "max", _i % 2 ? MMU_SHADOW : MMU_WALK, rig_long, 2);
    put_program(&p, &g);
    put_second_space(&p, users[_i / 2]);
    for (unsigned units = 1000; units > 0; units /= 3)
        run_program(&p, &g, &rng, units, "spaces");
    uint64_t slow = stat(&p, "jit.slow"), found = stat(&p, "jit.found");
    run_program(&p, &g, &rng, 1000000, "spaces");
    if (users[_i / 2] == RIG_CODE) { /* C does MOV CR3, and no more */
        ck_assert_uint_le(stat(&p, "jit.slow") - slow, TURNS + 12);
        ck_assert_uint_le(stat(&p, "jit.found") - found, 12);
    }
    pair_close(&p);
}
END_TEST

START_TEST(what_asks_for_more_goes_to_the_handlers)
{
    struct program ac = {.flip = FLAG_AC};
    scene("AC from R11", &ac, true);
    struct program masked = {.flip = FLAG_AC, .fmask = FLAG_AC};
    scene("AC, masked", &masked, true);
}
END_TEST

static void run_to_vector(struct pair *p, const struct program *g, unsigned vector)
{
    uint64_t rng = 8;
    for (unsigned units = 1000; units > 0; units /= 7) {
        run_program(p, g, &rng, units, "SMAP");
        ck_assert_uint_eq(p->b.v->rip, RIG_HANDLERS + 16 * (uint64_t)vector + 1);
    }
}

/* The kernel reads its own data, or a user's, which it may with AC only. */
START_TEST(the_kernel_has_its_own_rights_to_data)
{
    struct program own = {.cr4 = CR4_SMAP, .plain = true}, users, with_ac;
    struct pair p;
    add_bytes(&own.middle, "\x48\x8b\x02\x49\x01\xc0", 6); /* mov rax, [rdx]; add r8, rax */
    users = with_ac = own;
    users.rdx = with_ac.rdx = RIG_DATA;
    with_ac.flags = FLAG_AC;
    pair_open(&p, "max", rig_long, 2);
    put_program(&p, &own);
    for (unsigned n = 0; n < 4; n++) {
        run_to_vector(&p, &own, EXC_GP);
        run_to_vector(&p, &users, EXC_PF);
        run_to_vector(&p, &with_ac, EXC_GP);
    }
    pair_close(&p);
}
END_TEST

/* ---- at any instruction ---- */

enum change {
    NO_SCE,
    WATCHED, /* a data breakpoint */
    STEPPED, /* TF */
    ALIGNED, /* AC */
    ALIGNED_AM,
    PINNED,    /* an interrupt waits, IF or not */
    ELSEWHERE, /* RCX is not canonical: SYSRET's, if it is the kernel's turn */
    OUTER,     /* CPL 1, if it is the kernel's turn */
    READS_SECRET,
    NEW_STAR,
    NEW_MASK,
    SETS_TF, /* in R11 */
    SETS_AC,
    CHANGES
};

static int ack(void *ctx)
{
    return 0x40;
}

static void set_pin(struct vcpu *v, bool level)
{
    struct irq_line pin = vcpu_pin(v, CPU_PIN_INTR);
    irq_set(&pin, level);
}

static void change_rig(struct cpu_rig *r, enum change c, const struct cpu_intc *intc)
{
    struct vcpu *v = r->v;
    bool kernel = v->cpl == 0;
    switch (c) {
    case NO_SCE:
        v->efer &= ~EFER_SCE;
        break;
    case WATCHED:
        v->dr[0] = SECRET;
        v->dr[7] = 0xf0403; /* 8 bytes would be 10b: 4, reads and writes */
        break;
    case STEPPED:
        vcpu_set_rflags(v, vcpu_rflags(v) | FLAG_TF);
        break;
    case ALIGNED_AM:
        v->cr0 |= CR0_AM;
        v->gpr[REG_RBP]++;
        /* fall through */
    case ALIGNED:
        vcpu_set_rflags(v, vcpu_rflags(v) | FLAG_AC);
        break;
    case PINNED:
        vcpu_set_intc(v, intc);
        vcpu_set_rflags(v, vcpu_rflags(v) & ~FLAG_IF);
        set_pin(v, true);
        v->gpr[12] = FLAG_IF;
        break;
    case ELSEWHERE:
        if (kernel)
            v->gpr[REG_RCX] = 1ull << 47;
        break;
    case OUTER:
        if (kernel) {
            v->seg[SEG_SS].attr |= 1u << 5;
            v->seg[SEG_CS].sel |= 1;
        }
        break;
    case READS_SECRET:
        v->gpr[REG_RBP] = SECRET;
        break;
    case NEW_STAR:
        v->msr.star = (uint64_t)0xfff3 << 48 | (uint64_t)0xfffb << 32;
        break;
    case NEW_MASK:
        v->msr.fmask ^= FLAGS_ARITH | FLAG_DF;
        break;
    case SETS_TF:
        v->gpr[12] ^= FLAG_TF;
        break;
    default:
        v->gpr[12] ^= FLAG_AC;
        break;
    }
    vcpu_refresh(v);
}

static void undo(struct cpu_rig *r)
{
    r->v->cr0 &= ~CR0_AM;
    set_pin(r->v, false);
}

START_TEST(whatever_comes_in_between_counts_at_once)
{
    static const char *const names[] = {"no SCE",    "watched",   "stepped",  "AC",         "AC and AM",
                                        "interrupt", "RCX",       "CPL 1",    "the secret", "new STAR",
                                        "new FMASK", "TF by R11", "AC by R11"};
    static const struct cpu_intc intc = {.ack = ack};
    _Static_assert(ARRAY_LEN(names) == CHANGES, "a name each");
    uint64_t rng = 99 + (unsigned)_i;
    struct program g = {.fmask = FLAG_IF | FLAG_ZF};
    struct pair p;
    add_bytes(&g.before, "\x48\x8b\x45\x00\x48\x01\xc6", 7); /* mov rax, [rbp]; add rsi, rax */
    pair_open_kind(&p, "max", _i % 2 ? MMU_SHADOW : MMU_WALK, rig_long, 2);
    put_program(&p, &g);
    run_program(&p, &g, &rng, 1000, "warm");
    for (unsigned n = 0; n < 50; n++) {
        start(&p, &g, 3);
        go_to(&p, RIG_CODE);
        run_until(&p, clock_now(&p.a.clock) + 500 + below(&rng, 1500));
        check_crossed(&p, names[_i]);
        change_rig(&p.a, (enum change)_i, &intc);
        change_rig(&p.b, (enum change)_i, &intc);
        uint64_t at = clock_now(&p.a.clock);
        run_on(&p, &rng, n % 2 ? 10000 : 30, names[_i]);
        if (_i == NO_SCE || _i == WATCHED || _i == STEPPED || _i == PINNED || _i == READS_SECRET || _i == SETS_TF)
            ck_assert_uint_lt(clock_now(&p.a.clock) - at, 200); /* it has ended the loop */
        undo(&p.a);
        undo(&p.b);
    }
    pair_close(&p);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("cpu: SYSCALL and SYSRET in compiled code");
    TCase *t = tcase_create("all");
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, a_user_calls_the_kernel_in_compiled_code, 0, 3);
    tcase_add_test(t, vectors_stay_in_registers_on_the_way);
    tcase_add_test(t, the_way_leads_to_what_is_there_now);
    tcase_add_loop_test(t, a_user_of_another_space_is_another, 0, 4);
    tcase_add_test(t, what_asks_for_more_goes_to_the_handlers);
    tcase_add_test(t, the_kernel_has_its_own_rights_to_data);
    tcase_add_loop_test(t, whatever_comes_in_between_counts_at_once, 0, CHANGES);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
