/*
 * Code that changes: which blocks and which compiled code a write takes away, which stay, and what is put right in
 * place. Each program runs by the interpreter and compiled; what it leaves must be what a processor without caches
 * leaves.
 */
#include "core/stats.h"
#include "cpu/code_cache.h"
#include "cpu/jit/jit.h"

#include "cpu_rig.h"

#include <inttypes.h>

static struct cpu_rig rig, *r = &rig;
static struct jit *jit;

static void open_rig(bool compiled)
{
    rig_open(r);
    rig_long(r);
    jit = compiled ? jit_create(&(struct jit_config){.log = &r->log, .heat = 2}) : NULL;
    r->v->jit = jit;
}

static void close_rig(void)
{
    rig_close(r);
    jit_destroy(jit);
}

static void put(gpa_t at, const void *code, size_t len)
{
    uint8_t bytes[PAGE_SIZE];
    memcpy(bytes, code, len);
    mem_access(r->mem, 0, at, bytes, len, MEM_HOST_POKE, true, BUS_NO_CPU);
}
#define PUT(at, ...) put((at), (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

/* Runs from `rip` to a HLT with RAX 0 and `turns` in R15. Returns RAX. */
static uint64_t run(uint64_t rip, uint64_t turns)
{
    r->v->rip = rip;
    r->v->activity = VCPU_RUNNING;
    r->v->gpr[REG_RAX] = 0;
    r->v->rflags = 2;
    r->v->gpr[15] = turns;
    while (r->v->activity == VCPU_RUNNING)
        vcpu_run(r->v, 1000);
    return r->v->gpr[REG_RAX];
}

/* The loop's closing jump lies across two pages: what is compiled of the first page leads to it. */
START_TEST(second_page_of_a_jump_that_closes_a_loop_is_changed)
{
    enum { L = RIG_CODE + 0xf80, JUMP = RIG_CODE + 0xffd, OTHER = L - 0x100 };
    open_rig(_i);
    PUT(L, 0x48, 0xff, 0xc0, 0x49, 0xff, 0xcf, 0xeb, JUMP - L - 8); /* inc rax; dec r15; jmp JUMP */
    PUT(JUMP, 0x0f, 0x85, 0x7d, 0xff, 0xff, 0xff, 0xf4);            /* jnz L; hlt */
    PUT(OTHER, 0x48, 0x05, 0x00, 0x10, 0x00, 0x00, 0xf4);           /* add rax, 0x1000; hlt */
    ck_assert_uint_eq(run(JUMP, 100), 100);                         /* the jump is hot before what it leads to */
    PUT(JUMP + 3, 0xfe);
    ck_assert_uint_eq(run(L, 100), 0x1001);
    close_rig();
}
END_TEST

/* Two neighbouring pages have one frame, so one page of code follows itself, and then another does. */
START_TEST(page_that_follows_itself_goes_on_where_it_is)
{
    static const struct {
        uint8_t bytes[5], n;
    } ends[] = {{{0x48, 0xff, 0xc0}, 3},              /* inc rax */
                {{0x48, 0xff, 0xc0, 0xeb, 0}, 5},     /* inc rax; jmp */
                {{0x48, 0xff, 0xc0, 0x75, 0}, 5},     /* inc rax; jnz */
                {{0x48, 0xff, 0xc0, 0x0f, 0xa2}, 5}}; /* inc rax; cpuid */
    enum { FIRST = 0x22000, AFTER = FIRST + 0x2000 };
    for (unsigned k = 0; k < ARRAY_LEN(ends); k++) {
        uint64_t end = PAGE_SIZE - ends[k].n;
        open_rig(_i);
        rig_poke(r, RIG_PT + 8 * (FIRST >> 12), RIG_CODE | 7, 8);
        rig_poke(r, RIG_PT + 8 * ((FIRST >> 12) + 1), RIG_CODE | 7, 8);
        PUT(RIG_CODE, 0x48, 0x83, 0xc3, 0x05, 0x49, 0xff, 0xcf, 0x74, 5, 0xe9, (uint8_t)(end - 14),
            (uint8_t)((end - 14) >> 8), 0, 0, 0xf4); /* add rbx, 5; dec r15; jz hlt; jmp end; hlt */
        PUT(AFTER, 0x48, 0x83, 0xc3, 0x01, 0xf4);    /* add rbx, 1; hlt */
        put(RIG_CODE + end, ends[k].bytes, ends[k].n);
        for (unsigned turn = 0; turn < 20; turn++) {
            r->v->gpr[REG_RBX] = 0;
            run(FIRST + end, 10);
            ck_assert_uint_eq(r->v->rip, AFTER + 5);
            ck_assert_uint_eq(r->v->gpr[15], 9);
            if (ends[k].bytes[3] != 0x0f)
                ck_assert_uint_eq(r->v->gpr[REG_RBX], 6);
        }
        close_rig();
    }
}
END_TEST

static uint64_t counter(const char *name)
{
    struct stats s;
    bool found;
    stats_init(&s);
    code_cache_register_stats(r->code, &s);
    uint64_t value = stats_get(&s, name, &found);
    ck_assert_msg(found, "%s", name);
    stats_fini(&s);
    return value;
}

static const void *native_at(gpa_t gpa)
{
    const struct block *b = code_cache_find(r->code, gpa, BLOCK_NO_PAGE, r->v->mode);
    return b ? b->native : NULL;
}

/* A function of the kind "add rax, imm32; dec r15; jnz; hlt". */
static void put_loop(gpa_t at, uint8_t imm)
{
    PUT(at, 0x48, 0x05, imm, 0, 0, 0, 0x49, 0xff, 0xcf, 0x75, 0xf5, 0xf4);
}

START_TEST(write_takes_away_the_code_that_it_changes_and_no_other)
{
    open_rig(_i);
    put_loop(RIG_CODE, 1);
    put_loop(RIG_CODE + 0x200, 2);
    ck_assert_uint_eq(run(RIG_CODE, 100), 100);
    ck_assert_uint_eq(run(RIG_CODE + 0x200, 100), 200);
    uint64_t decoded = counter("code.blocks_decoded");
    const void *native = native_at(RIG_CODE + 0x200);
    ck_assert(!_i || native);
    PUT(RIG_CODE + 1, 0x2d); /* sub rax, imm32 */
    ck_assert_int_eq((int64_t)run(RIG_CODE, 100), -100);
    ck_assert_uint_eq(run(RIG_CODE + 0x200, 100), 200);
    ck_assert_ptr_eq(native_at(RIG_CODE + 0x200), native);
    ck_assert_uint_le(counter("code.blocks_decoded"), decoded + 2);
    close_rig();
}
END_TEST

/* Two regions of a page, of which one leads into the other without a look-up. */
START_TEST(way_into_code_that_is_gone_is_gone_too)
{
    enum { A = RIG_CODE, B = RIG_CODE + 0x40 };
    open_rig(_i);
    PUT(A, 0x48, 0xff, 0xc0, 0xeb, B - A - 5);               /* inc rax; jmp B */
    PUT(B, 0x49, 0xff, 0xcf, 0x75, 0x100 + A - B - 5, 0xf4); /* dec r15; jnz A; hlt */
    ck_assert_uint_eq(run(B, 3), 2);                         /* each is hot when its time comes */
    ck_assert_uint_eq(run(A, 100), 100);
    ck_assert_uint_eq(run(A, 100), 100);
    PUT(B, 0x48, 0xff, 0xc8, 0xf4); /* dec rax; hlt */
    ck_assert_uint_eq(run(A, 100), 0);
    close_rig();
}
END_TEST

/* The entry of the jump table that led to it is void, though nothing else of the table is. */
START_TEST(function_of_another_page_that_is_changed_is_called_anew)
{
    enum { F = RIG_CODE + 0x3000 };
    open_rig(_i);
    PUT(RIG_CODE, 0xe8, 0xfb, 0x2f, 0, 0, 0x49, 0xff, 0xcf, 0x75, 0xf6, 0xf4); /* call F; dec r15; jnz; hlt */
    PUT(F, 0x48, 0xff, 0xc0, 0xc3);                                            /* inc rax; ret */
    r->v->gpr[REG_RSP] = RIG_STACK;
    ck_assert_uint_eq(run(RIG_CODE, 100), 100);
    uint64_t generation = *code_cache_generation(r->code);
    PUT(F + 1, 0x83);
    PUT(F + 3, 0x02, 0xc3); /* add rax, 2; ret */
    ck_assert_uint_eq(run(RIG_CODE, 100), 200);
    PUT(F + 3, 0x03);
    ck_assert_uint_eq(run(RIG_CODE, 100), 300);
    ck_assert_uint_eq(*code_cache_generation(r->code), generation);
    close_rig();
}
END_TEST

START_TEST(store_beside_code_neither_drops_it_nor_ends_the_block)
{
    open_rig(_i);
    /* 1: mov [rip + 0x400], r15; inc rax; dec r15; jnz 1b; hlt */
    PUT(RIG_CODE, 0x4c, 0x89, 0x3d, 0, 4, 0, 0, 0x48, 0xff, 0xc0, 0x49, 0xff, 0xcf, 0x75, 0xf1, 0xf4);
    ck_assert_uint_eq(run(RIG_CODE, 10), 10);
    uint64_t heard = track_write_count(r->mem), beside = counter("code.writes_beside");
    uint64_t generation = *code_cache_generation(r->code);
    ck_assert_uint_eq(run(RIG_CODE, 1000), 1000);
    ck_assert_uint_eq(track_write_count(r->mem), heard);
    ck_assert_uint_eq(counter("code.writes_beside"), beside + 1000);
    ck_assert_uint_eq(*code_cache_generation(r->code), generation);
    close_rig();
}
END_TEST

/* xor eax, eax; 1: mov [rip + ..], r15d; 2: OP with imm32, where r15d is stored; rol rax, 3; dec r15; jnz 1b; hlt. */
static uint64_t run_patching(const uint8_t *op, unsigned at, unsigned len, uint64_t turns)
{
    uint8_t code[40] = {0x31, 0xc0, 0x44, 0x89, 0x3d, (uint8_t)at};
    unsigned n = 9;
    memcpy(code + n, op, len);
    memcpy(code + n + len, "\x48\xc1\xc0\x03\x49\xff\xcf\x75", 8);
    n += len + 8;
    code[n] = (uint8_t)(2 - (n + 1));
    code[n + 1] = 0xf4;
    put(RIG_CODE, code, n + 2);
    return run(RIG_CODE, turns);
}

static const struct {
    const char *name, *op;
    unsigned at, len;
} patched_ops[] = {
    {"add", "\x48\x05\0\0\0\0", 2, 6},
    {"sub ecx", "\x81\xe9\0\0\0\0\x01\xc8", 2, 8},
    {"xor", "\x48\x35\0\0\0\0", 2, 6},
    {"mov edx", "\xba\0\0\0\0\x48\x01\xd0", 1, 8},
    {"adc", "\x48\x15\0\0\0\0", 2, 6},
    {"mov r14", "\x49\xc7\xc6\0\0\0\0\x4c\x01\xf0", 3, 10},
    {"cmp; sbb", "\x3d\0\0\0\0\x19\xc9\x01\xc8", 1, 9},
    {"test; setnz", "\xa9\0\0\0\0\x0f\x95\xc0", 1, 8},
    {"add r14d; adc", "\x41\x81\xc6\0\0\0\0\x48\x11\xc8", 3, 10},
};

START_TEST(immediate_that_changes_in_every_turn_is_put_right_in_place)
{
    uint64_t rax[2], dropped = 0;
    for (unsigned k = 0; k < 2; k++) {
        open_rig(k);
        r->v->gpr[REG_RCX] = 5;
        r->v->gpr[14] = 7;
        rax[k] = run_patching((const uint8_t *)patched_ops[_i].op, patched_ops[_i].at, patched_ops[_i].len, 1000);
        dropped = counter("code.writes_dropping");
        ck_assert_uint_gt(counter("code.blocks_patched"), 900);
        close_rig();
    }
    ck_assert_msg(rax[0] == rax[1], "%s: %#" PRIx64 ", compiled %#" PRIx64, patched_ops[_i].name, rax[0], rax[1]);
    ck_assert_uint_lt(dropped, 10);
    if (_i == 0) {
        uint64_t x = 0;
        for (uint64_t n = 1000; n; n--)
            x = (x + n) << 3 | (x + n) >> 61;
        ck_assert_uint_eq(rax[0], x);
    }
}
END_TEST

/* Its immediate has changed before, and then another instruction of its length stands there, which has none. */
START_TEST(instruction_that_takes_the_place_of_a_patched_one_has_its_own_operands)
{
    for (unsigned writes = 1; writes < 10; writes++) {
        open_rig(_i);
        PUT(RIG_CODE, 0x83, 0xc0, 1, 0x49, 0xff, 0xcf, 0x75, 0xf8, 0xf4); /* add eax, imm8; dec r15; jnz; hlt */
        for (unsigned n = 1; n <= writes; n++) {
            PUT(RIG_CODE + 2, (uint8_t)n);
            ck_assert_uint_eq(run(RIG_CODE, 1), n);
        }
        r->v->gpr[REG_RCX] = 5;
        PUT(RIG_CODE, 0x48, 0x01, 0xc8); /* add rax, rcx */
        ck_assert_uint_eq(run(RIG_CODE, 100), 500);
        close_rig();
    }
}
END_TEST

/* The page is written from one end to the other, and what was compiled of it meanwhile is what is there now. */
START_TEST(page_that_is_written_all_over_is_open_until_its_code_is_wanted)
{
    uint8_t bytes[0x800];
    open_rig(_i);
    for (unsigned k = 0; k < 4; k++) {
        put_loop(RIG_CODE + 0x400 * k, (uint8_t)(k + 1));
        ck_assert_uint_eq(run(RIG_CODE + 0x400 * k, 100), 100 * (k + 1));
    }
    mem_access(r->mem, 0, RIG_CODE + 0x200, bytes, sizeof bytes, MEM_PEEK, false, BUS_NO_CPU);
    for (unsigned k = 0; k < sizeof bytes; k += 8)
        put(RIG_CODE + 0x200 + k, bytes + k, 8); /* the same again: two of the loops lie there */
    ck_assert(!track_is_tracked(r->mem, 0, RIG_CODE >> PAGE_SHIFT));
    PUT(RIG_CODE + 0x402, 9);
    uint64_t decoded = counter("code.blocks_decoded");
    ck_assert_uint_eq(run(RIG_CODE + 0x800, 100), 300);
    ck_assert(track_is_tracked(r->mem, 0, RIG_CODE >> PAGE_SHIFT));
    ck_assert_uint_eq(counter("code.blocks_decoded"), decoded);
    ck_assert_uint_eq(run(RIG_CODE, 100), 100);
    ck_assert_uint_eq(run(RIG_CODE + 0xc00, 100), 400);
    ck_assert_uint_eq(counter("code.blocks_decoded"), decoded);
    ck_assert_uint_eq(run(RIG_CODE + 0x400, 100), 900);
    ck_assert_uint_gt(counter("code.blocks_decoded"), decoded);
    close_rig();
}
END_TEST

/* The running code itself opens its page, and goes on to what it has just written. */
START_TEST(code_that_fills_its_own_page_runs_what_it_wrote)
{
    open_rig(_i);
    /* lea rdi, [rip + 0x100]; mov eax, 0x90909090; mov ecx, 32; 1: mov [rdi], eax; add rdi, 4; dec ecx; jnz 1b;
     * mov dword [rdi], 0xf4c0ff48 (inc rax; hlt); xor eax, eax; jmp behind the lea + 0x100 */
    PUT(RIG_CODE, 0x48, 0x8d, 0x3d, 0, 1, 0, 0, 0xb8, 0x90, 0x90, 0x90, 0x90, 0xb9, 32, 0, 0, 0, 0x89, 0x07, 0x48, 0x83,
        0xc7, 0x04, 0xff, 0xc9, 0x75, 0xf6, 0xc7, 0x07, 0x48, 0xff, 0xc0, 0xf4, 0x31, 0xc0, 0xe9, 0xdf, 0, 0, 0);
    for (unsigned k = 0; k < 5; k++)
        ck_assert_uint_eq(run(RIG_CODE, 1), 1);
    close_rig();
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("cpu: code that changes");
    TCase *t = tcase_create("changes");
    tcase_add_loop_test(t, second_page_of_a_jump_that_closes_a_loop_is_changed, 0, 2);
    tcase_add_loop_test(t, page_that_follows_itself_goes_on_where_it_is, 0, 2);
    tcase_add_loop_test(t, write_takes_away_the_code_that_it_changes_and_no_other, 0, 2);
    tcase_add_loop_test(t, way_into_code_that_is_gone_is_gone_too, 0, 2);
    tcase_add_loop_test(t, function_of_another_page_that_is_changed_is_called_anew, 0, 2);
    tcase_add_loop_test(t, store_beside_code_neither_drops_it_nor_ends_the_block, 0, 2);
    tcase_add_loop_test(t, immediate_that_changes_in_every_turn_is_put_right_in_place, 0, ARRAY_LEN(patched_ops));
    tcase_add_loop_test(t, instruction_that_takes_the_place_of_a_patched_one_has_its_own_operands, 0, 2);
    tcase_add_loop_test(t, page_that_is_written_all_over_is_open_until_its_code_is_wanted, 0, 2);
    tcase_add_loop_test(t, code_that_fills_its_own_page_runs_what_it_wrote, 0, 2);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
