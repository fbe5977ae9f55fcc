/*
 * Wild addresses in compiled code: whatever an access meets (nothing, a device, a tracked page, the running code, a
 * page that may not be written, the end of a page, an address that is none), it ends as in the interpreter.
 */
#include "core/stats.h"
#include "cpu/jit/jit.h"
#include "tests/unit/cpu_rig.h"

#include <inttypes.h>

#define RIG_BYTES  0x50000u /* all that the rig uses */
#define READ_ONLY  0x2a000u
#define SUPERVISOR 0x2b000u
#define ABSENT     0x2c000u

/* One instruction (or what sets its stack up, and it), with the address in RBX. */
static const struct attempt {
    const char *name, *bytes;
    unsigned len;
} attempts[] = {
#define A(name, bytes)                                                                                                 \
    {                                                                                                                  \
        name, bytes, sizeof bytes - 1                                                                                  \
    }
    A("load", "\x48\x8b\x03"),
    A("load of a byte", "\x8a\x03"),
    A("load and multiply", "\x48\x0f\xaf\x03"),
    A("store", "\x48\x89\x03"),
    A("store of a word", "\x66\x89\x03"),
    A("store of a number", "\xc7\x03\x21\x43\x65\x87"),
    A("read, modify, write", "\x48\x01\x03"),
    A("increment", "\xff\x03"),
    A("CMPXCHG", "\x48\x0f\xb1\x0b"),
    A("XCHG", "\x48\x87\x03"),
    A("16 bytes loaded", "\x0f\x10\x0b"),
    A("16 bytes stored", "\x0f\x11\x0b"),
    A("PUSH from memory", "\xff\x33"),
    A("PUSH", "\x48\x89\xdc\x50"),
    A("POP", "\x48\x89\xdc\x58"),
    A("RET", "\x48\x89\xdc\xc3"),
    A("CALL", "\x48\x89\xdc\xe8\x10\x00\x00\x00"),
    A("LEAVE", "\x48\x89\xdd\xc9"),
    A("JMP through memory", "\xff\x23"),
    A("CALL through memory", "\xff\x13"),
    A("JMP", "\xff\xe3"),
    A("REP MOVSB", "\x48\x89\xdf\xf3\xa4"),
    A("LEA of what is beyond 2 GiB, and a load", "\x48\x8d\x0d\xfe\xff\xff\x7f\x48\x8b\x03"),
};

/* The same in 32-bit code, with the address in EBX. */
static const struct attempt attempts32[] = {
    A("load", "\x8b\x03"),
    A("load of a byte", "\x8a\x03"),
    A("load by a 16-bit address", "\x89\xde\x67\x8b\x04"),
    A("store", "\x89\x03"),
    A("store of a word", "\x66\x89\x03"),
    A("store of a number", "\xc7\x03\x21\x43\x65\x87"),
    A("read, modify, write", "\x01\x03"),
    A("rotation", "\xd1\x13"),
    A("CMPXCHG", "\x0f\xb1\x0b"),
    A("CMPXCHG8B", "\x0f\xc7\x0b"),
    A("XCHG", "\x87\x03"),
    A("16 bytes loaded", "\x0f\x10\x0b"),
    A("16 bytes stored", "\x0f\x11\x0b"),
    A("8 bytes of MMX", "\x0f\x6f\x0b"),
    A("PUSH from memory", "\xff\x33"),
    A("PUSH", "\x89\xdc\x50"),
    A("PUSH of a word", "\x89\xdc\x66\x50"),
    A("PUSHA", "\x89\xdc\x60"),
    A("POPA", "\x89\xdc\x61"),
    A("POP", "\x89\xdc\x58"),
    A("RET", "\x89\xdc\xc3"),
    A("CALL", "\x89\xdc\xe8\x10\x00\x00\x00"),
    A("LEAVE", "\x89\xdd\xc9"),
    A("JMP through memory", "\xff\x23"),
    A("CALL through memory", "\xff\x13"),
    A("JMP", "\xff\xe3"),
    A("LODSD", "\x89\xde\xad"),
    A("SCASD", "\x89\xdf\xaf"),
    A("MOVSB", "\x89\xdf\xa4"),
    A("XLAT", "\xd7"),
    A("REP MOVSB", "\x89\xdf\xf3\xa4"),
#undef A
};

static const uint64_t wild[] = {0x0000800000000000,
                                0x8000000000000000,
                                0xffff7fffffffffff,
                                0x00007ffffffffffc, /* crosses into what is not canonical */
                                0xfffffffffffffffc, /* wraps */
                                0x700000,           /* nothing is mapped */
                                0x5ffffc,           /* device, then nothing */
                                RIG_MMIO,
                                RIG_MMIO - 3,
                                RIG_DATA + 0xffd, /* crosses into a page of its own */
                                READ_ONLY,
                                READ_ONLY - 2,
                                SUPERVISOR,
                                SUPERVISOR - 1,
                                ABSENT,
                                ABSENT - 7,
                                RIG_PT, /* tracked: a table that translations came from */
                                RIG_PT + 8 * (RIG_CODE >> 12),
                                RIG_CODE, /* the running code: before, at, and behind */
                                RIG_CODE + 2,
                                RIG_CODE + 6,
                                RIG_CODE + 0x800,
                                RIG_GDT,
                                RIG_IDT + 16 * 14,
                                RIG_RAM - 1,
                                0};

/* Flat segments and no paging; or segments of 1 KiB. */
static const uint64_t wild32[] = {0xfffffffc, /* ends at 4 GiB; the next ones wrap there */
                                  0xfffffffd,
                                  0xffffffff,
                                  0xffffffe4,
                                  0xfffff000,
                                  0x80000000,
                                  0x7ffffffe,
                                  0x700000, /* nothing is there */
                                  0x5ffffc, /* device, then nothing */
                                  RIG_MMIO,
                                  RIG_MMIO - 3,
                                  RIG_DATA + 0xffd,
                                  RIG_CODE,
                                  RIG_CODE + 2,
                                  RIG_CODE + 6,
                                  RIG_GDT,
                                  RIG_IDT + 8 * 14,
                                  RIG_RAM - 1,
                                  RIG_RAM - 4,
                                  0x10000,
                                  0xfffe,
                                  0x3f0, /* 16 bytes are left in the small ones */
                                  0x3f1,
                                  0x3fc,
                                  0x3fd,
                                  0x3ff,
                                  0x400,
                                  0};

static void put_code(struct cpu_rig *r, const struct attempt *a, bool wide)
{
    uint8_t code[32] = {0x48, 0x01, 0xca}; /* add rdx, rcx: flags that nobody has looked at yet */
    unsigned n = wide ? 3 : 2;
    if (!wide)
        memmove(code, code + 1, n);
    memcpy(code + n, a->bytes, a->len);
    memset(code + n + a->len, 0xf4, sizeof code - n - a->len);
    mem_access(r->mem, 0, RIG_CODE, code, sizeof code, MEM_HOST_POKE, true, BUS_NO_CPU);
}

static void memory32(struct cpu_rig *r, const struct attempt *a, bool small)
{
    rig_protected(r);
    r->v->cr4 |= CR4_OSFXSR | CR4_OSXMMEXCPT;
    for (int s = SEG_ES; small && s <= SEG_GS; s++)
        if (s != SEG_CS)
            vcpu_set_segment(r->v, s, SEL_DATA0, RIG_DATA, 0x3ff, 0x4093);
    vcpu_refresh(r->v);
    put_code(r, a, false);
}

static void memory(struct cpu_rig *r, const struct attempt *a)
{
    rig_long(r);
    r->v->cr4 |= CR4_OSFXSR | CR4_OSXMMEXCPT;
    rig_poke(r, RIG_PT + 8 * (READ_ONLY >> 12), READ_ONLY | 5, 8);
    rig_poke(r, RIG_PT + 8 * (SUPERVISOR >> 12), SUPERVISOR | 3, 8);
    rig_poke(r, RIG_PT + 8 * (ABSENT >> 12), ABSENT | 6, 8);
    put_code(r, a, true);
}

static void general_registers(struct cpu_rig *r, uint64_t address)
{
    struct vcpu *v = r->v;
    for (unsigned n = 0; n < 16; n++)
        v->gpr[n] = n == REG_RSP ? RIG_STACK : 0x0101010101010101ull * n;
    v->gpr[REG_RCX] = 9;
    v->gpr[REG_RSI] = RIG_DATA + 0x40;
    v->gpr[REG_RBX] = address;
    vcpu_set_rflags(v, 2);
    v->cr2 = 0;
    v->activity = VCPU_RUNNING;
}

static void registers(struct cpu_rig *r, bool user, uint64_t address)
{
    if (user)
        rig_user(r);
    else
        rig_set_cpl(r, SEL_CODE0, SEL_DATA0, 0);
    general_registers(r, address);
}

static void registers32(struct cpu_rig *r, bool small, uint64_t address)
{
    general_registers(r, address);
    for (unsigned n = 0; n < 8; n++)
        r->v->gpr[n] = (uint32_t)r->v->gpr[n];
    if (small) {
        r->v->gpr[REG_RSP] = 0x300;
        r->v->gpr[REG_RSI] = 0x40;
    }
    r->v->rip = RIG_CODE;
}

static void run(struct cpu_rig *r)
{
    uint64_t end = clock_now(&r->clock) + 20000;
    while (clock_now(&r->clock) < end && r->v->activity == VCPU_RUNNING)
        vcpu_run(r->v, end - clock_now(&r->clock) < 500 ? end - clock_now(&r->clock) : 500);
}

static void same(struct cpu_rig *a, struct cpu_rig *b, const char *what, uint64_t address)
{
    static uint8_t one[RIG_BYTES], other[RIG_BYTES];
    const struct vcpu *v = a->v, *w = b->v;
    for (unsigned n = 0; n < 16; n++)
        ck_assert_msg(v->gpr[n] == w->gpr[n], "%s at %#" PRIx64 ": register %u: %#" PRIx64 ", compiled %#" PRIx64, what,
                      address, n, v->gpr[n], w->gpr[n]);
    ck_assert_msg(v->rip == w->rip && vcpu_rflags(v) == vcpu_rflags(w) && v->cr2 == w->cr2 &&
                      v->activity == w->activity && !memcmp(v->xmm, w->xmm, sizeof v->xmm),
                  "%s at %#" PRIx64 ": rip %#" PRIx64 " %#" PRIx64 ", flags %#" PRIx64 " %#" PRIx64 ", cr2 %#" PRIx64
                  " %#" PRIx64,
                  what, address, v->rip, w->rip, vcpu_rflags(v), vcpu_rflags(w), v->cr2, w->cr2);
    ck_assert_msg(a->clock.icount == b->clock.icount && clock_now(&a->clock) == clock_now(&b->clock),
                  "%s at %#" PRIx64 ": position", what, address);
    ck_assert_msg(a->device_accesses == b->device_accesses && a->device_value == b->device_value &&
                      a->device_time == b->device_time && a->device_offset == b->device_offset,
                  "%s at %#" PRIx64 ": the device saw another access", what, address);
    mem_access(a->mem, 0, 0, one, sizeof one, MEM_PEEK, false, BUS_NO_CPU);
    mem_access(b->mem, 0, 0, other, sizeof other, MEM_PEEK, false, BUS_NO_CPU);
    ck_assert_msg(!memcmp(one, other, sizeof one), "%s at %#" PRIx64 ": memory", what, address);
}

/* A good address first, until the code is compiled and its pages are in the TLB; then the wild one in the same code. */
START_TEST(a_wild_address_ends_as_in_the_interpreter)
{
    struct log log;
    struct stats stats;
    bool found;
    log_init(&log, stderr);
    struct jit *j = jit_create(&(struct jit_config){.log = &log, .heat = 1, .cache_bytes = 1 << 20});
    ck_assert_ptr_nonnull(j);
    stats_init(&stats);
    jit_register_stats(j, &stats);
    for (unsigned n = 0; n < ARRAY_LEN(attempts); n++) {
        struct cpu_rig a, b;
        rig_open(&a);
        rig_open(&b);
        b.v->jit = j;
        uint64_t entered = stats_get(&stats, "jit.entries", &found);
        for (unsigned k = 0; k < ARRAY_LEN(wild) + 1; k++)
            for (unsigned second = 0; second < 2; second++) {
                uint64_t address = k && !second ? RIG_DATA + 0x100 : k ? wild[k - 1] : RIG_DATA + 0x200;
                if (!second) {
                    memory(&a, &attempts[n]);
                    memory(&b, &attempts[n]);
                }
                registers(&a, _i, address);
                registers(&b, _i, address);
                run(&a);
                run(&b);
                same(&a, &b, attempts[n].name, address);
            }
        ck_assert_uint_gt(stats_get(&stats, "jit.entries", &found), entered + ARRAY_LEN(wild));
        rig_close(&a);
        rig_close(&b);
    }
    stats_fini(&stats);
    jit_destroy(j);
}
END_TEST

static void try_32(struct cpu_rig *a, struct cpu_rig *b, const struct attempt *attempt, bool small)
{
    uint64_t good = small ? 0x100 : RIG_DATA + 0x100;
    for (unsigned k = 0; k < ARRAY_LEN(wild32); k++)
        for (unsigned second = 0; second < 2; second++) {
            uint64_t address = second ? wild32[k] : good;
            if (!second || a->v->activity == VCPU_SHUTDOWN) {
                memory32(a, attempt, small);
                memory32(b, attempt, small);
            }
            registers32(a, small, address);
            registers32(b, small, address);
            run(a);
            run(b);
            same(a, b, attempt->name, address);
        }
}

START_TEST(a_wild_address_in_32_bit_code_ends_as_in_the_interpreter)
{
    struct log log;
    struct stats stats;
    bool found;
    log_init(&log, stderr);
    struct jit *j = jit_create(&(struct jit_config){.log = &log, .heat = 1, .cache_bytes = 1 << 20});
    ck_assert_ptr_nonnull(j);
    stats_init(&stats);
    jit_register_stats(j, &stats);
    for (unsigned n = 0; n < ARRAY_LEN(attempts32); n++) {
        struct cpu_rig a, b;
        rig_open_model(&a, "max");
        rig_open_model(&b, "max");
        b.v->jit = j;
        uint64_t entered = stats_get(&stats, "jit.entries", &found);
        try_32(&a, &b, &attempts32[n], _i);
        ck_assert_uint_gt(stats_get(&stats, "jit.entries", &found), entered + ARRAY_LEN(wild32));
        rig_close(&a);
        rig_close(&b);
    }
    stats_fini(&stats);
    jit_destroy(j);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("cpu jit wild addresses");
    TCase *c = tcase_create("wild");
    tcase_set_timeout(c, 250);
    tcase_add_loop_test(c, a_wild_address_ends_as_in_the_interpreter, 0, 2);
    tcase_add_loop_test(c, a_wild_address_in_32_bit_code_ends_as_in_the_interpreter, 0, 2);
    suite_add_tcase(s, c);
    return s;
}

CHECK_MAIN(suite)
