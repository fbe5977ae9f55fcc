/*
 * Streams in compiled code against the interpreter: what a slot of the frame has of a page is never more than the page
 * allows to who runs now. Rights, modes and roots change while loops have their pages in the slots, and addresses go
 * wild.
 */
#include "stream_rig.h"

/* ---- reading and writing are apart ---- */

static void protect_and_run(struct pair *p, unsigned cpl, const char *what)
{
    for (unsigned k = 0; k < WARM_RUNS; k++) {
        start(p, cpl, 0, WARM);
        set(p, 11, PAGE_A + 0x100);
        set(p, 14, k % 2 ? 3 : 1);
        set(p, REG_RSP, PAGE_A + 0x200);
        run(p, 1000, what);
    }
    uint64_t streamed = stat(p, "jit.streamed");
    poke(p, PTE(PAGE_A), PAGE_A | 5);
    start(p, cpl, 0, 20);
    set(p, 11, PAGE_A + 0x100);
    set(p, 14, 10);
    set(p, REG_RSP, PAGE_A + 0x200);
    run(p, 1000, what);
    ck_assert_uint_gt(stat(p, "jit.streamed"), streamed);
}

START_TEST(page_that_is_read_in_a_stream_and_may_not_be_written_faults_at_the_write)
{
    struct text t = {.len = 0};
    struct pair p;
    add_seven(&t, READ);
    unsigned then = add_if_turn(&t);
    add_access(&t, WRITE, 11);
    end_if(&t, then);
    add_turn(&t, 15, 0);
    ADD(&t, "\xf4");
    open_kind(&p, kinds[_i / 2]);
    put_text(&p, RIG_CODE, &t);
    protect_and_run(&p, _i % 2 ? 3 : 0, "read, then written");
    expect(&p, EXC_PF, PAGE_A + 0x100, "read, then written");
    pair_close(&p);
}
END_TEST

START_TEST(page_that_is_read_in_a_region_faults_at_the_write_in_another)
{
    struct text t = {.len = 0}, t2 = {.len = 0};
    struct pair p;
    add_loop(&t, READ, 15);
    add_jump(&t, RIG_CODE, CODE2);
    add_loop(&t2, WRITE, 14);
    ADD(&t2, "\xf4");
    open_kind(&p, kinds[_i]);
    put_text(&p, RIG_CODE, &t);
    put_text(&p, CODE2, &t2);
    protect_and_run(&p, 0, "read, then written elsewhere");
    expect(&p, EXC_PF, PAGE_A, "read, then written elsewhere");
    pair_close(&p);
}
END_TEST

START_TEST(stack_that_is_popped_and_may_not_be_written_faults_at_the_push)
{
    struct text t = {.len = 0};
    struct pair p;
    ADD(&t, "\x58\x48\x83\xec\x08"); /* pop rax; sub rsp, 8 */
    unsigned then = add_if_turn(&t);
    ADD(&t, "\x48\x83\xc4\x08\x50"); /* add rsp, 8; push rax */
    end_if(&t, then);
    add_turn(&t, 15, 0);
    ADD(&t, "\xf4");
    open_kind(&p, kinds[_i]);
    put_text(&p, RIG_CODE, &t);
    protect_and_run(&p, 0, "popped, then pushed");
    expect(&p, EXC_PF, PAGE_A + 0x200, "popped, then pushed");
    pair_close(&p);
}
END_TEST

/* ---- wild addresses ---- */

/* Accesses by RBX, or by RSP. */
static const struct attempt {
    const char *name, *bytes;
    uint8_t len, size;
    bool stack;
} attempts[] = {
#define A(name, size, bytes)                                                                                           \
    {                                                                                                                  \
        name, bytes, sizeof(bytes) - 1, size, false                                                                    \
    }
#define S(name, bytes)                                                                                                 \
    {                                                                                                                  \
        name, bytes, sizeof(bytes) - 1, 8, true                                                                        \
    }
    A("load of 1", 1, "\x8a\x03"),
    A("load of 2", 2, "\x66\x8b\x03"),
    A("load of 4", 4, "\x8b\x03"),
    A("load of 8", 8, "\x48\x8b\x03"),
    A("x87 load", 8, "\xdd\x03\xdd\xd8"),
    A("load of 16", 16, "\x0f\x10\x03"),
    A("load of 32", 32, "\xc5\xfc\x10\x03"),
    A("two loads", 24, "\x48\x8b\x03\x48\x8b\x4b\x10"),
    A("store of 1", 1, "\x88\x03"),
    A("store of 2", 2, "\x66\x89\x03"),
    A("store of 4", 4, "\x89\x03"),
    A("store of 8", 8, "\x48\x89\x03"),
    A("x87 store", 8, "\xd9\xe8\xdd\x1b"),
    A("store of 16", 16, "\x0f\x11\x03"),
    A("store of 32", 32, "\xc5\xfc\x11\x03"),
    A("two stores", 24, "\x48\x89\x03\x48\x89\x4b\x10"),
    A("read, modify, write", 8, "\x48\x01\x03"),
    A("increment of 1", 1, "\xfe\x03"),
    A("load by FS", 8, "\x64\x48\x8b\x03"),
    A("load by an index", 8, "\x48\x8b\x04\x0b"),
    S("PUSH", "\x50"),
    S("POP", "\x58"),
    S("two PUSHes", "\x50\x51"),
    S("load by RSP", "\x48\x8b\x44\x24\x08"),
#undef A
#undef S
};

static const uint64_t wild[] = {0,
                                -1ull,
                                -8ull,
                                -32ull,
                                0x7ffffffffff8,
                                0x7ffffffffffe,
                                0x7fffffffffff,
                                0x800000000000,
                                0x7fffffffffffffff,
                                0x8000000000000000,
                                0xffff800000000000 - 8,
                                0xffff800000000000,
                                PAGE_A + (1ull << 32),
                                PAGE_A + (1ull << 48),
                                PAGE_A ^ 1ull << 63,
                                PAGE_A + FAR,
                                PAGE_A - 1,
                                PAGE_B,
                                ABSENT,
                                ABSENT - 7,
                                ABSENT + 0x1000 - 3,
                                READ_ONLY,
                                READ_ONLY - 5,
                                SECRET,
                                SECRET - 1,
                                RIG_MMIO,
                                RIG_MMIO - 3,
                                RIG_MMIO + 8};

static void make_wild(struct text *t, const struct attempt *a)
{
    t->len = 0;
    add_bytes(t, a->bytes, a->len);
    if (a->stack)
        ADD(t, "\x4c\x89\xe4"); /* mov rsp, r12 */
    else
        ADD(t, "\x4c\x89\xe3"); /* mov rbx, r12 */
    add_turn(t, 15, 0);
    ADD(t, "\xf4");
}

/* From `first` to r12 = `then`, in a loop that streams off what is copied from r12. */
static void run_wild(struct pair *p, const struct attempt *a, unsigned cpl, uint64_t first, uint64_t then,
                     uint64_t turns)
{
    char what[100];
    snprintf(what, sizeof what, "%s from %llx to %llx at CPL %u", a->name, (unsigned long long)first,
             (unsigned long long)then, cpl);
    start(p, cpl, 0, turns);
    set(p, a->stack ? REG_RSP : REG_RBX, first);
    set(p, 12, then);
    for (unsigned n = 0; n < 2; n++) {
        struct vcpu *v = rig_of(p, n)->v;
        v->seg_base[SEG_FS] = v->seg[SEG_FS].base = 0x10;
        rig_of(p, n)->device_value = rig_of(p, n)->device_accesses = 0;
    }
    run(p, 1000, what);
}

static void warm_wild(struct pair *p, const struct attempt *a, unsigned cpl)
{
    for (unsigned k = 0; k < WARM_RUNS; k++)
        run_wild(p, a, cpl, PAGE_A + 0x800, PAGE_A + 0x800, WARM);
}

START_TEST(wild_address_in_a_stream_ends_as_in_the_interpreter)
{
    const struct attempt *a = &attempts[_i];
    struct text t;
    struct pair p;
    open_kind(&p, MMU_WALK);
    make_wild(&t, a);
    put_text(&p, RIG_CODE, &t);
    for (unsigned cpl = 0; cpl <= 3; cpl += 3) {
        warm_wild(&p, a, cpl);
        uint64_t streamed = stat(&p, "jit.streamed");
        for (unsigned k = 0; k < ARRAY_LEN(wild); k++) {
            run_wild(&p, a, cpl, PAGE_A + 0x800, wild[k], 20);
            run_wild(&p, a, cpl, wild[k], PAGE_A + 0x800, 20);
        }
        ck_assert_uint_ge(stat(&p, "jit.streamed") - streamed, ARRAY_LEN(wild));
    }
    pair_close(&p);
}
END_TEST

START_TEST(stream_ends_where_its_page_ends)
{
    static const uint64_t ends[] = {PAGE_A + 0x2000, PAGE_A + 0x1000, READ_ONLY, ABSENT, SECRET, RIG_MMIO};
    const struct attempt *a = &attempts[_i];
    struct text t;
    struct pair p;
    open_kind(&p, MMU_WALK);
    make_wild(&t, a);
    put_text(&p, RIG_CODE, &t);
    warm_wild(&p, a, 3);
    for (unsigned k = 0; k < ARRAY_LEN(ends); k++)
        for (unsigned before = 1; before <= a->size + 34u; before++)
            run_wild(&p, a, 3, (ends[k] - 0x800) & ~7ull, ends[k] - before, 4);
    pair_close(&p);
}
END_TEST

/* ---- modes ---- */

/* Supervisors' rights to what they had as who may read users' pages. */
START_TEST(page_of_users_is_out_of_reach_behind_clac)
{
    struct text t = {.len = 0};
    struct pair p;
    ADD(&t, "\x0f\x01\xcb"); /* stac */
    add_loop(&t, _i % 2 ? WRITE : READ, 15);
    ADD(&t, "\x0f\x01\xca"); /* clac */
    add_loop(&t, _i % 2 ? WRITE : READ, 14);
    ADD(&t, "\xf4");
    open_kind(&p, kinds[_i / 2]);
    put_text(&p, RIG_CODE, &t);
    for (unsigned k = 0; k < WARM_RUNS; k++) {
        start(&p, 0, 0, WARM);
        run(&p, 1000, "CLAC, without SMAP");
        expect_end(&p, RIG_CODE + t.len, "CLAC, without SMAP");
    }
    for (unsigned k = 0; k < 4; k++) {
        uint64_t slow = stat(&p, "jit.slow");
        start(&p, 0, CR4_SMAP, 20);
        run(&p, k % 2 ? 1000 : 40, "CLAC");
        expect(&p, EXC_PF, PAGE_A, "CLAC");
        ck_assert_uint_le(stat(&p, "jit.slow") - slow, 10);
        start(&p, 0, CR4_SMAP, 20);
        point(&p, SECRET);
        run(&p, 1000, "CLAC, its own page");
        expect_end(&p, RIG_CODE + t.len, "CLAC, its own page");
    }
    pair_close(&p);
}
END_TEST

static void point_bases_at_r12(struct text *t)
{
    for (unsigned k = 0; k < ARRAY_LEN(bases); k++) { /* mov base, r12 */
        const char mov[] = {(char)(0x4c | bases[k] >> 3), (char)0x89, (char)(0xe0 | (bases[k] & 7))};
        add_bytes(t, mov, sizeof mov);
    }
}

static void start_user(struct pair *p, uint64_t cr4, uint64_t turns)
{
    start(p, 3, cr4, turns);
    set(p, 12, SECRET);
    set(p, REG_RSP, 0);
    for (unsigned n = 0; n < 2; n++) {
        struct vcpu *v = rig_of(p, n)->v;
        v->msr.star = (uint64_t)(SEL_CODE3 - 16) << 48 | (uint64_t)SEL_CODE0 << 32;
        v->msr.lstar = KERNEL;
        v->msr.fmask = 0x47700;
    }
}

/* The user's loop, the kernel's, and the user's again, of the same page. */
static void put_crossing(struct pair *p, unsigned op, bool secret, bool stac)
{
    struct text user = {.len = 0}, kernel = {.len = 0};
    add_loop(&user, op, 15);
    ADD(&user, "\x0f\x05"); /* syscall */
    add_loop(&user, op, 13);
    ADD(&user, "\xf4");
    if (secret)
        point_bases_at_r12(&kernel);
    add_loop(&kernel, op, 14);
    if (stac)
        ADD(&kernel, "\x0f\x01\xcb");
    ADD(&kernel, "\x48\x0f\x07"); /* sysret */
    put_text(p, RIG_CODE, &user);
    put_text(p, KERNEL, &kernel);
}

START_TEST(user_does_not_reach_what_the_kernel_streamed_before_sysret)
{
    struct pair p;
    open_kind(&p, kinds[_i / 2]);
    put_crossing(&p, _i % 2 ? WRITE : READ, true, false);
    poke(&p, PTE(SECRET), SECRET | 7);
    for (unsigned k = 0; k < WARM_RUNS; k++) {
        start_user(&p, 0, WARM);
        run(&p, 1000, "SYSRET, everyone's page");
        expect(&p, EXC_GP, 0, "SYSRET, everyone's page"); /* HLT */
    }
    poke(&p, PTE(SECRET), SECRET | 3);
    for (unsigned k = 0; k < 4; k++) {
        uint64_t slow = stat(&p, "jit.slow");
        start_user(&p, 0, 20);
        run(&p, k % 2 ? 1000 : 40, "SYSRET");
        expect(&p, EXC_PF, SECRET, "SYSRET");
        ck_assert_uint_le(stat(&p, "jit.slow") - slow, 8); /* SYSCALL and SYSRET are not among them */
    }
    pair_close(&p);
}
END_TEST

START_TEST(kernel_under_smap_does_not_reach_what_the_user_streamed_before_syscall)
{
    struct pair p;
    open_kind(&p, kinds[_i / 2]);
    put_crossing(&p, _i % 2 ? WRITE : READ, false, false);
    for (unsigned k = 0; k < WARM_RUNS; k++) {
        start_user(&p, 0, WARM);
        run(&p, 1000, "SYSCALL, without SMAP");
        expect(&p, EXC_GP, 0, "SYSCALL, without SMAP");
    }
    for (unsigned k = 0; k < 4; k++) {
        start_user(&p, CR4_SMAP, 20);
        run(&p, k % 2 ? 1000 : 40, "SYSCALL");
        expect(&p, EXC_PF, PAGE_A, "SYSCALL");
    }
    pair_close(&p);
}
END_TEST

static void check_alignment(struct pair *p)
{
    for (unsigned n = 0; n < 2; n++) {
        struct vcpu *v = rig_of(p, n)->v;
        v->cr0 |= CR0_AM;
        vcpu_set_rflags(v, 2 | FLAG_AC);
        vcpu_refresh(v);
    }
}

/*
 * The kernel has had no access under AC, and a user whose accesses are checked for alignment has none that the TLB
 * answers: both have the table that is always empty. It does not tell them apart, and what the slots have is the
 * kernel's.
 */
START_TEST(user_under_alignment_checks_does_not_reach_what_the_kernel_streamed_before_stac)
{
    struct pair p;
    open_kind(&p, kinds[_i / 2]);
    put_crossing(&p, _i % 2 ? WRITE : READ, true, true);
    poke(&p, PTE(SECRET), SECRET | 7);
    for (unsigned k = 0; k < WARM_RUNS; k++) {
        start_user(&p, 0, WARM);
        check_alignment(&p);
        run(&p, 100000, "STAC and SYSRET, everyone's page");
        expect(&p, EXC_GP, 0, "STAC and SYSRET, everyone's page");
    }
    poke(&p, PTE(SECRET), SECRET | 3);
    uint64_t continued = stat(&p, "jit.continued");
    start_user(&p, CR4_SMAP, 20);
    check_alignment(&p);
    run(&p, 100000, "STAC and SYSRET");
    expect(&p, EXC_PF, SECRET, "STAC and SYSRET");
    ck_assert_uint_gt(stat(&p, "jit.continued"), continued);
    pair_close(&p);
}
END_TEST

/*
 * Neither root has had an access under AC, so both have the table for it that is always empty: it does not tell them
 * apart, and what the slots have is the first root's.
 */
START_TEST(other_root_behind_stac_has_its_own_pages)
{
    struct text t = {.len = 0};
    struct pair p;
    add_loop(&t, READ, 15);
    ADD(&t, "\x0f\x01\xcb\x41\x0f\x22\xdc"); /* stac; mov cr3, r12 */
    add_loop(&t, READ, 14);
    ADD(&t, "\xf4");
    open_kind(&p, kinds[_i]);
    put_text(&p, RIG_CODE, &t);
    poke(&p, PTE(PAGE_A), PAGE_A | 3);
    poke(&p, PTE(PAGE_B), PAGE_B | 3);
    make_root_2(&p, 3);
    for (unsigned k = 0; k < WARM_RUNS; k++) { /* without SMAP AC means nothing */
        start(&p, 0, 0, WARM);
        set(&p, 12, PML4_2);
        run(&p, 100000, "MOV CR3, without SMAP");
    }
    start(&p, 0, CR4_SMAP, 20); /* the code is known under both roots */
    set(&p, 12, PML4_2);
    for (unsigned n = 0; n < 2; n++) {
        rig_of(&p, n)->v->cr3 = PML4_2;
        vcpu_refresh(rig_of(&p, n)->v);
    }
    go_to(&p, RIG_CODE);
    run_until(&p, clock_now(&p.a.clock) + 50);
    start(&p, 0, CR4_SMAP, 20);
    set(&p, 12, PML4_2);
    uint64_t continued = stat(&p, "jit.continued");
    run(&p, 100000, "MOV CR3");
    ck_assert_uint_gt(stat(&p, "jit.continued"), continued);
    pair_close(&p);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("cpu: streams in compiled code");
    TCase *t = tcase_create("streams");
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, page_that_is_read_in_a_stream_and_may_not_be_written_faults_at_the_write, 0, 6);
    tcase_add_loop_test(t, page_that_is_read_in_a_region_faults_at_the_write_in_another, 0, 3);
    tcase_add_loop_test(t, stack_that_is_popped_and_may_not_be_written_faults_at_the_push, 0, 3);
    tcase_add_loop_test(t, wild_address_in_a_stream_ends_as_in_the_interpreter, 0, ARRAY_LEN(attempts));
    tcase_add_loop_test(t, stream_ends_where_its_page_ends, 0, ARRAY_LEN(attempts));
    tcase_add_loop_test(t, page_of_users_is_out_of_reach_behind_clac, 0, 6);
    tcase_add_loop_test(t, user_does_not_reach_what_the_kernel_streamed_before_sysret, 0, 6);
    tcase_add_loop_test(t, kernel_under_smap_does_not_reach_what_the_user_streamed_before_syscall, 0, 6);
    tcase_add_loop_test(t, user_under_alignment_checks_does_not_reach_what_the_kernel_streamed_before_stac, 0, 6);
    tcase_add_loop_test(t, other_root_behind_stac_has_its_own_pages, 0, 3);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
