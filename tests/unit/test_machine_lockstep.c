/*
 * Lockstep: equal runs end as one alone does, and whatever differs is found and named.
 */
#include "check_main.h"

#include "frontends/machine/machine.h"

#include <string.h>
#include <unistd.h>

#define END 50001

static char path[64];

static void image_write(const void *code, size_t len)
{
    const uint32_t flags = 1u << 16, base = 0x100000;
    uint32_t header[8] = {0x1badb002, flags,    0 - 0x1badb002u - flags, base, base, base + 32 + (uint32_t)len,
                          0,          base + 32};
    strcpy(path, "/tmp/umbra-lockstep-XXXXXX");
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, header, sizeof header), sizeof header);
    ck_assert_int_eq(write(fd, code, len), (ssize_t)len);
    close(fd);
}

/* Adds COM1's input and a count to a word in each page from 0x110000 to 0x1f0000, again and again. */
static const uint8_t code[] = {0xba, 0xf8, 0x03, 0x00, 0x00, 0xbf, 0x00, 0x00, 0x11, 0x00, 0xec,
                               0x01, 0xc1, 0x01, 0x0f, 0x81, 0xc7, 0x00, 0x10, 0x00, 0x00, 0x81,
                               0xff, 0x00, 0x00, 0x1f, 0x00, 0x72, 0xf0, 0x41, 0xeb, 0xe5};

/* A front end that types a byte at each poll, until it has typed enough. */
struct typist {
    struct machine *m;
    unsigned left;
};

static bool type(void *ctx)
{
    struct typist *t = ctx;
    if (t->left)
        machine_serial_input(t->m, 0, &"typed"[t->left-- % 5], 1);
    return false;
}

struct pair {
    struct machine *m;
    struct lockstep *l;
    struct typist typist;
    char text[8192];
    FILE *out;
};

static void pair_open(struct pair *p, enum machine_mmu mmu, uint64_t end)
{
    struct error e = {""};
    p->typist.left = 5;
    struct machine_config cfg = {.ram_bytes = 2 << 20,
                                 .mmu = mmu,
                                 .kernel = path,
                                 .rtc_base = MACHINE_RTC_DEFAULT,
                                 .jit = true,
                                 .jit_heat = 2,
                                 .vtime_limit = end,
                                 .host = {.ctx = &p->typist, .poll = type}};
    image_write(code, sizeof code);
    p->m = p->typist.m = machine_create(&cfg, &e);
    ck_assert_msg(p->m != NULL, "%s", e.text);
    memset(p->text, 0, sizeof p->text);
    p->out = fmemopen(p->text, sizeof p->text - 1, "w");
    struct lockstep_config lockstep = {.every = 1000, .out = p->out};
    p->l = lockstep_open(p->m, &lockstep, &e);
    unlink(path);
    ck_assert_msg(p->l != NULL, "%s", e.text);
}

static void pair_close(struct pair *p)
{
    lockstep_close(p->l);
    machine_destroy(p->m);
    fclose(p->out);
}

static void expect(struct pair *p, const char *word)
{
    ck_assert_int_eq(lockstep_run(p->l), MACHINE_DIFFERS);
    ck_assert_int_eq(machine_exit_code(p->m, MACHINE_DIFFERS), EXIT_INTERNAL);
    fflush(p->out);
    ck_assert_msg(strstr(p->text, word) != NULL, "no '%s' in: %s", word, p->text);
    pair_close(p);
}

START_TEST(a_run_in_lockstep_ends_as_one_alone_with_the_same_input)
{
    uint64_t digest[2];
    for (unsigned alone = 0; alone < 2; alone++) {
        struct pair p;
        pair_open(&p, (enum machine_mmu)_i, 25000000);
        if (alone) {
            lockstep_close(p.l);
            p.l = NULL;
            ck_assert_int_eq(machine_run(p.m), MACHINE_VTIME_LIMIT);
        } else {
            ck_assert_int_eq(lockstep_run(p.l), MACHINE_VTIME_LIMIT);
            ck_assert_uint_eq(machine_digest(p.m), machine_digest(lockstep_twin(p.l)));
            ck_assert_uint_gt(lockstep_counters(p.l).comparisons, 100);
        }
        ck_assert_uint_eq(p.typist.left, 0);
        digest[alone] = machine_digest(p.m);
        pair_close(&p);
    }
    ck_assert_uint_eq(digest[0], digest[1]);
}
END_TEST

START_TEST(a_byte_of_memory_that_differs_is_named_once_its_page_is_written)
{
    struct pair p;
    uint8_t byte = 0x5a;
    pair_open(&p, (enum machine_mmu)_i, 25000000);
    machine_run_to(p.m, END);
    machine_run_to(lockstep_twin(p.l), END);
    mem_access(lockstep_twin(p.l)->mem, 0, 0x123456, &byte, 1, MEM_HOST_POKE, true, BUS_NO_CPU);
    expect(&p, "page 0x123000, byte 0x456: JIT 00, interpreter 5a (1 bytes)");
}
END_TEST

START_TEST(a_register_that_differs_is_named_with_the_code_that_ran)
{
    struct pair p;
    pair_open(&p, (enum machine_mmu)_i, 25000000);
    machine_run_to(p.m, END);
    machine_run_to(lockstep_twin(p.l), END);
    lockstep_twin(p.l)->cpu[0]->gpr[REG_RSI] ^= 0x10;
    expect(&p, "lockstep:   rsi: JIT ");
#ifndef UMBRA_NO_JIT
    pair_open(&p, (enum machine_mmu)_i, 25000000);
    machine_run_to(p.m, END);
    machine_run_to(lockstep_twin(p.l), END);
    lockstep_twin(p.l)->cpu[0]->xmm[7].q[1] = 3;
    expect(&p, "ymm7[1]: JIT 0, interpreter 0x3");
#endif
}
END_TEST

START_TEST(a_run_that_ends_elsewhere_is_a_difference)
{
    struct pair p;
    pair_open(&p, (enum machine_mmu)_i, 25000000);
    lockstep_twin(p.l)->cfg.vtime_limit = 5000000;
    expect(&p, "the JIT's run ends: the position is reached; the interpreter's: stopped at the limit of virtual time");
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("machine lockstep");
    TCase *c = tcase_create("lockstep");
    tcase_set_timeout(c, 120);
    tcase_add_loop_test(c, a_run_in_lockstep_ends_as_one_alone_with_the_same_input, 0, 3);
    tcase_add_loop_test(c, a_byte_of_memory_that_differs_is_named_once_its_page_is_written, 0, 3);
    tcase_add_loop_test(c, a_register_that_differs_is_named_with_the_code_that_ran, 0, 3);
    tcase_add_test(c, a_run_that_ends_elsewhere_is_a_difference);
    suite_add_tcase(s, c);
    return s;
}

CHECK_MAIN(suite)
