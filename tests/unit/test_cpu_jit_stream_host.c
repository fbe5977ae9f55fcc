/*
 * Streams in compiled code against the interpreter: what a slot of the frame has of a page is what is there now. Host
 * and guest move pages, take them away and change the tables that lead to them while loops have them in the slots.
 */
#include "core/host/host_ops.h"
#include "core/host/ksm.h"
#include "core/host/swap.h"

#include "stream_rig.h"

/* ---- what the host does meanwhile ---- */

enum event { MIGRATE, SWAP_OUT, DONT_NEED, MERGE, ROM, OTHER_FRAME, EVENTS };

/* A device; with every third access to it something happens to the memory of PAGE_A. */
struct host {
    struct cpu_rig *r;
    struct swap_store *swap;
    struct ksm *ksm;
    enum event event;
    unsigned accesses, done;
};

static void merge(struct host *h)
{
    struct cpu_rig *r = h->r;
    uint8_t bytes[PAGE_SIZE];
    mem_access(r->mem, 0, PAGE_A, bytes, sizeof bytes, MEM_PEEK, false, BUS_NO_CPU);
    mem_access(r->mem, 0, COPY, bytes, sizeof bytes, MEM_HOST_POKE, true, BUS_NO_CPU);
    h->done += ksm_merge(h->ksm, r->mm, r->hva + PAGE_A, r->mm, r->hva + COPY) == HOST_OK;
}

static void happen(struct host *h)
{
    struct cpu_rig *r = h->r;
    hva_t hva = r->hva + PAGE_A;
    switch (h->event) {
    case MIGRATE:
        h->done += host_mm_migrate(r->mm, hva) == HOST_OK;
        break;
    case SWAP_OUT:
        h->done += host_mm_swap_out(r->mm, hva) == HOST_OK;
        break;
    case DONT_NEED:
        h->done += host_mm_dontneed(r->mm, hva, PAGE_SIZE) == HOST_OK;
        break;
    case MERGE:
        merge(h);
        break;
    case ROM: /* and back */
        h->done += mem_slot_set_kind(r->mem, 0, 0, h->accesses % 2 ? MEMSLOT_ROM : MEMSLOT_RAM) == 0;
        break;
    default:
        rig_poke(r, PTE(PAGE_A), rig_peek(r, PTE(PAGE_A), 8) ^ PAGE_A ^ PAGE_B, 8);
        h->done++;
        break;
    }
}

static uint64_t host_read(void *dev, const struct bus_txn *t)
{
    struct host *h = dev;
    if (++h->accesses % 3 == 0)
        happen(h);
    return h->accesses;
}

static const struct bus_ops host_ops = {.read = host_read};

static void open_hosts(struct pair *p, struct host h[2], enum event event)
{
    char err[200];
    for (unsigned n = 0; n < 2; n++) {
        struct cpu_rig *r = rig_of(p, n);
        h[n] = (struct host){.r = r, .event = event};
        h[n].swap = swap_store_create(&(struct swap_config){.memory_bytes = 1 << 20}, err, sizeof err);
        h[n].ksm = ksm_create(r->pool);
        ck_assert_int_eq(host_mm_set_swap(r->mm, h[n].swap), HOST_OK);
        ck_assert(ksm_add(h[n].ksm, r->mm));
        ck_assert_int_eq(host_mm_set_mergeable(r->mm, r->hva, RIG_RAM, true), HOST_OK);
        bus_add(&r->mmio, HOST, 0x1000, &host_ops, &h[n], "host");
        rig_poke(r, RIG_PD + 8 * (FAR >> 21), PT_FAR | 7, 8);
        rig_poke(r, PT_FAR + 8 * (PAGE_A >> 12), PAGE_B | 7, 8);
        rig_poke(r, PTE(ALIAS), PAGE_A | 7, 8);
    }
}

static void close_hosts(struct pair *p, struct host h[2])
{
    ck_assert_uint_gt(h[1].done, 10);
    ck_assert_uint_eq(h[0].done, h[1].done);
    pair_close(p);
    for (unsigned n = 0; n < 2; n++) {
        ksm_destroy(h[n].ksm);
        swap_store_put(h[n].swap);
    }
}

#define READ_HOST "\x8b\x14\x25\x00\x10\x50\x00" /* mov edx, [HOST] */

static void run_with_host(struct pair *p, const char *what)
{
    uint64_t streamed = stat(p, "jit.streamed");
    for (unsigned k = 0; k < WARM_RUNS; k++) {
        start(p, 0, 0, 50);
        set(p, 11, PAGE_A + FAR);
        run(p, k % 2 ? 100000 : 97, what);
    }
    ck_assert_uint_gt(stat(p, "jit.streamed"), streamed + WARM_RUNS);
}

START_TEST(what_the_host_does_to_a_page_in_a_stream_is_seen_by_the_next_access)
{
    static const char *const names[EVENTS] = {"migration", "swapping out", "DONTNEED", "merging", "ROM", "PTE by DMA"};
    enum event event = (enum event)(_i % EVENTS);
    struct text t = {.len = 0};
    struct host h[2];
    struct pair p;
    ADD(&t, READ_HOST);
    add_seven(&t, READ);
    if (_i / EVENTS % 2)
        ADD(&t, READ_HOST);
    add_seven(&t, WRITE);
    add_turn(&t, 15, 0);
    ADD(&t, "\xf4");
    open_kind(&p, kinds[_i / (2 * EVENTS)]);
    open_hosts(&p, h, event);
    put_text(&p, RIG_CODE, &t);
    run_with_host(&p, names[event]);
    close_hosts(&p, h);
}
END_TEST

/* The page in the stream has no entry in the TLB any more: another one has taken it. */
START_TEST(page_in_a_stream_whose_entry_was_replaced_is_dropped_nevertheless)
{
    static const enum event events[] = {MIGRATE, DONT_NEED, OTHER_FRAME};
    struct text t = {.len = 0};
    struct host h[2];
    struct pair p;
    add_seven(&t, READ);
    add_access(&t, READ, 11);
    ADD(&t, READ_HOST);
    add_turn(&t, 15, 0);
    ADD(&t, "\xf4");
    ck_assert_uint_eq(tlb_index(PAGE_A), tlb_index(PAGE_A + FAR));
    open_kind(&p, kinds[_i / 3]);
    open_hosts(&p, h, events[_i % 3]);
    put_text(&p, RIG_CODE, &t);
    run_with_host(&p, "replaced entry");
    close_hosts(&p, h);
}
END_TEST

/* ---- what the guest does to its tables ---- */

static const struct change {
    const char *name;
    uint64_t at, value, flip; /* of the entry */
    unsigned cpl;
} changes[] = {
    {"another page", PTE(PAGE_A), PAGE_A | 7, PAGE_A ^ PAGE_B, 0},
    {"another table", RIG_PD, RIG_PT | 7, RIG_PT ^ PT_2, 0},
    {"not present", PTE(PAGE_A), PAGE_A | 6, 1, 0},
    {"read-only", PTE(PAGE_A), PAGE_A | 5, 2, 0},
    {"read-only table", RIG_PD, RIG_PT | 5, 2, 0},
    {"supervisors' alone", PTE(PAGE_A), PAGE_A | 3, 4, 3},
    {"clean", PTE(PAGE_A), PAGE_A | 7, 0, 0},
};

/* mov [at], r12; xor r12, r13 */
static void add_change(struct text *t, const struct change *c)
{
    ADD(t, "\x4c\x89\x24\x25");
    add32(t, (uint32_t)c->at);
    ADD(t, "\x4d\x31\xec");
}

static void run_change(struct pair *p, const struct change *c, bool flushes)
{
    for (unsigned k = 0; k < WARM_RUNS + 4; k++) {
        bool warm = k < WARM_RUNS;
        poke(p, PTE(PAGE_A), PAGE_A | 7);
        poke(p, RIG_PD, RIG_PT | 7);
        start(p, flushes ? 0 : c->cpl, 0, warm ? 50 : 20);
        set(p, 12, warm ? rig_peek(&p->b, c->at, 8) : c->value ^ (k % 2 ? c->flip : 0));
        set(p, 13, warm ? 0 : c->flip);
        run(p, k % 4 > 1 ? 100000 : 61, c->name);
    }
}

START_TEST(change_of_a_table_is_seen_by_what_streams_through_its_page)
{
    const struct change *c = &changes[_i % ARRAY_LEN(changes)];
    struct text t = {.len = 0};
    struct pair p;
    add_seven(&t, READ);
    add_change(&t, c);
    add_seven(&t, _i / ARRAY_LEN(changes) % 2 ? WRITE : READ);
    add_turn(&t, 15, 0);
    ADD(&t, "\xf4");
    open_kind(&p, kinds[_i / (2 * ARRAY_LEN(changes))]);
    make_root_2(&p, 7);
    put_text(&p, RIG_CODE, &t);
    run_change(&p, c, false);
    pair_close(&p);
}
END_TEST

/* The same with INVLPG behind it, between loops: it is a handler's. */
START_TEST(change_of_a_table_with_invlpg_is_seen_by_the_next_loop)
{
    const struct change *c = &changes[_i % ARRAY_LEN(changes)];
    struct text t = {.len = 0};
    struct pair p;
    for (unsigned k = 0; k < 3; k++) {
        add_loop(&t, _i / ARRAY_LEN(changes) % 2 ? WRITE : READ, 15);
        add_change(&t, c);
        ADD(&t, "\x0f\x01\x3b\x41\xbf\x05\x00\x00\x00"); /* invlpg [rbx]; mov r15d, 5 */
    }
    ADD(&t, "\xf4");
    open_kind(&p, kinds[_i / (2 * ARRAY_LEN(changes))]);
    make_root_2(&p, 7);
    put_text(&p, RIG_CODE, &t);
    run_change(&p, c, true);
    pair_close(&p);
}
END_TEST

/* ---- between the look-up of a call's target and its push ---- */

/* The MMU's event hook moves the stack's frame whenever the page that is called has got its fetch entry. */
struct mover {
    struct cpu_rig *r;
    bool known;
    unsigned moved;
};

static void move_stack(void *ctx)
{
    struct mover *m = ctx;
    bool known = tlb_lookup_fetch(m->r->v->mv, CODE2) != NULL;
    if (known && !m->known)
        m->moved += host_mm_migrate(m->r->mm, m->r->hva + RIG_STACK - PAGE_SIZE) == HOST_OK;
    m->known = known;
}

/* The pushes and the call share a check, and in between the call's target is looked up. */
START_TEST(call_pushes_onto_the_frame_that_the_stack_has_when_its_target_is_found)
{
    struct text t = {.len = 0};
    struct pair p;
    ADD(&t, "\x48\xc7\x44\x24\xe8\x00\x00\x00\x00"); /* mov qword [rsp - 24], 0: where the second call pushes */
    add_call(&t, CODE2 + FAR);
    ADD(&t, "\x50\x51"); /* push rax; push rcx */
    add_call(&t, CODE2);
    ADD(&t, "\x59\x58"); /* pop rcx; pop rax */
    add_turn(&t, 15, 0);
    ADD(&t, "\xf4");
    open_kind(&p, MMU_SHADOW);
    poke(&p, RIG_PD + 8 * (FAR >> 21), PT_FAR | 7);
    poke(&p, PT_FAR + 8 * (CODE2 >> 12), CODE3 | 7);
    put_text(&p, RIG_CODE, &t);
    PUT_CODE(&p, CODE2, "\x48\xff\xc6\xc3"); /* inc rsi; ret */
    PUT_CODE(&p, CODE3, "\x48\xff\xc7\xc3"); /* inc rdi; ret */
    struct mover m = {.r = &p.b};
    for (unsigned k = 0; k < 4; k++) {
        start(&p, 0, 0, WARM);
        run(&p, 1000, "calls");
        mmu_set_event_hook(p.b.mmu, move_stack, &m);
    }
    expect_end(&p, RIG_CODE + t.len, "calls");
    ck_assert_uint_gt(m.moved, WARM);
    ck_assert_uint_ge(stat(&p, "jit.renewed"), WARM);
    pair_close(&p);
}
END_TEST

/* ---- what is changed by an access, and compiled code goes on behind it ---- */

/* A page that was only read has a frame for reading; the write gives it another one. */
START_TEST(write_that_gives_a_page_another_frame_is_seen_by_streams_that_read_it)
{
    struct text t = {.len = 0};
    struct host h[2];
    struct pair p;
    add_seven(&t, READ);
    unsigned then = add_if_turn(&t);
    add_access(&t, WRITE, 11);
    end_if(&t, then);
    add_turn(&t, 15, 0);
    ADD(&t, "\xf4");
    open_kind(&p, kinds[_i / 2]);
    open_hosts(&p, h, DONT_NEED);
    put_text(&p, RIG_CODE, &t);
    for (unsigned k = 0; k < WARM_RUNS; k++) {
        for (unsigned n = 0; n < 2; n++)
            happen(&h[n]);
        start(&p, 0, 0, 50);
        set(&p, REG_RAX, 1);
        set(&p, 11, _i % 2 ? ALIAS : PAGE_A);
        set(&p, 14, 10 + k % 20);
        run(&p, 100000, "first write");
        ck_assert_uint_gt(p.b.v->gpr[REG_RAX], 9);
    }
    close_hosts(&p, h);
}
END_TEST

/* A page is written as any other until something is translated by it: from then on writes to it must be heard. */
START_TEST(table_that_streams_write_is_tracked_when_it_is_walked)
{
    struct text t = {.len = 0};
    struct pair p;
    ADD(&t, "\x4c\x31\xe8"); /* xor rax, r13 */
    add_seven(&t, WRITE);
    ADD(&t, "\x4d\x39\xf7\x77\x04\x49\x03\x53\x00"); /* cmp r15, r14; ja over it; add rdx, [r11] */
    add_turn(&t, 15, 0);
    ADD(&t, "\xf4");
    for (unsigned swaps = 0; swaps < 4; swaps++) {
        open_kind(&p, kinds[_i]);
        put_text(&p, RIG_CODE, &t);
        poke(&p, RIG_PD + 8 * (TABLE_GVA >> 21), TABLE | 7);
        for (unsigned k = 0; k <= WARM_RUNS; k++) {
            start(&p, 0, 0, 50);
            point(&p, TABLE);
            set(&p, REG_RAX, PAGE_A | 7);
            set(&p, 11, k < WARM_RUNS ? PAGE_B : TABLE_GVA);
            set(&p, 13, PAGE_A ^ PAGE_B);
            set(&p, 14, 30 + swaps);
            run(&p, 100000, "table");
        }
        pair_close(&p);
    }
}
END_TEST

/* The MMU's event hook moves PAGE_A whenever PAGE_A + FAR has got its entry of the TLB. */
static void move_page(void *ctx)
{
    struct mover *m = ctx;
    bool known = tlb_lookup_read(m->r->v->mv, PAGE_A + FAR, 1) != NULL;
    if (known && !m->known)
        m->moved += host_mm_migrate(m->r->mm, m->r->hva + PAGE_A) == HOST_OK;
    m->known = known;
}

START_TEST(page_in_a_stream_moves_while_another_one_gets_its_entry)
{
    struct text t = {.len = 0};
    struct host h[2];
    struct pair p;
    add_seven(&t, _i % 2 ? WRITE : READ);
    add_access(&t, READ, 11);
    add_turn(&t, 15, 0);
    ADD(&t, "\xf4");
    open_kind(&p, kinds[_i / 2]);
    open_hosts(&p, h, MIGRATE);
    put_text(&p, RIG_CODE, &t);
    struct mover m = {.r = &p.b};
    for (unsigned k = 0; k < WARM_RUNS; k++) {
        start(&p, 0, 0, 50);
        set(&p, 11, PAGE_A + FAR);
        run(&p, k % 2 ? 100000 : 97, "moved page");
        mmu_set_event_hook(p.b.mmu, move_page, &m);
    }
    ck_assert_uint_gt(m.moved, WARM_RUNS);
    h[0].done = h[1].done = m.moved;
    close_hosts(&p, h);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("cpu: streams in compiled code while memory changes");
    TCase *t = tcase_create("streams");
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, what_the_host_does_to_a_page_in_a_stream_is_seen_by_the_next_access, 0, 6 * EVENTS);
    tcase_add_loop_test(t, page_in_a_stream_whose_entry_was_replaced_is_dropped_nevertheless, 0, 9);
    tcase_add_loop_test(t, change_of_a_table_is_seen_by_what_streams_through_its_page, 0, 6 * ARRAY_LEN(changes));
    tcase_add_loop_test(t, change_of_a_table_with_invlpg_is_seen_by_the_next_loop, 0, 6 * ARRAY_LEN(changes));
    tcase_add_test(t, call_pushes_onto_the_frame_that_the_stack_has_when_its_target_is_found);
    tcase_add_loop_test(t, write_that_gives_a_page_another_frame_is_seen_by_streams_that_read_it, 0, 6);
    tcase_add_loop_test(t, table_that_streams_write_is_tracked_when_it_is_walked, 0, 3);
    tcase_add_loop_test(t, page_in_a_stream_moves_while_another_one_gets_its_entry, 0, 6);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
