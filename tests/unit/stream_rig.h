/*
 * What the suites of streams run: loops that stream off as many registers as there are slots, in two rigs, one for the
 * interpreter and one for the JIT, after they have run so often that all of them is compiled and linked.
 */
#ifndef TESTS_UNIT_STREAM_RIG_H
#define TESTS_UNIT_STREAM_RIG_H

#include "mmu/tlb.h"

#include "jit_pair.h"

enum {
    PAGE_A = 0x50000,
    PAGE_B = 0x52000,
    ABSENT = 0x54000,
    READ_ONLY = 0x56000,
    SECRET = 0x58000,
    CODE2 = RIG_CODE + 0x2000,
    CODE3 = RIG_CODE + 0x3000,
    KERNEL = RIG_CODE + 0x4000,
    PML4_2 = 0x60000, /* tables of another root, which has PAGE_A elsewhere */
    PDPT_2 = 0x61000,
    PD_2 = 0x62000,
    PT_2 = 0x63000,
    PT_FAR = 0x64000,
    COPY = 0x66000,
    ALIAS = 0x68000, /* of PAGE_A */
    TABLE = 0x6a000, /* of TABLE_GVA */
    TABLE_GVA = 0x1200000,
    HOST = RIG_MMIO + 0x1000,     /* a device whose host does something whenever it is read */
    FAR = TLB_SIZE << PAGE_SHIFT, /* the next page that has a page's entry of the TLB */
    WARM = 100,                   /* turns, and how often: then all of it is compiled, compiled again, and linked */
    WARM_RUNS = 60
};
#define PTE(gva) ((uint64_t)RIG_PT + 8 * ((gva) >> 12))

/* As many as there are slots for reading, and for writing, that regions are given: who streams off all of them leaves
 * no slot as it was. */
static const uint8_t bases[] = {REG_RBX, REG_RBP, REG_RSI, REG_RDI, 8, 9, 10};

/* ---- programs ---- */

static inline void add_access(struct text *t, unsigned op, unsigned base)
{
    const char bytes[] = {(char)(0x48 | base >> 3), (char)op, (char)(0x40 | (base & 7)), 0};
    add_bytes(t, bytes, sizeof bytes);
}

enum { READ = 0x03, WRITE = 0x89 }; /* add rax, [base]; mov [base], rax */

static inline void add_seven(struct text *t, unsigned op)
{
    for (unsigned k = 0; k < ARRAY_LEN(bases); k++)
        add_access(t, op, bases[k]);
}

/* dec reg (R8 to R15); jnz to */
static inline void add_turn(struct text *t, unsigned reg, unsigned to)
{
    const char dec[] = {0x49, (char)0xff, (char)(0xc8 | (reg & 7)), 0x0f, (char)0x85};
    add_bytes(t, dec, sizeof dec);
    add32(t, to - (t->len + 4));
}

static inline void add_loop(struct text *t, unsigned op, unsigned count)
{
    unsigned from = t->len;
    add_seven(t, op);
    add_turn(t, count, from);
}

#define ADD(t, bytes) add_bytes((t), (bytes), sizeof(bytes) - 1)

/* jmp from the end of t, which is at `at`. */
static inline void add_jump(struct text *t, uint64_t at, uint64_t to)
{
    ADD(t, "\xe9");
    add32(t, (uint32_t)(to - (at + t->len + 4)));
}

/* call from the end of t, which is at RIG_CODE. */
static inline void add_call(struct text *t, uint64_t to)
{
    ADD(t, "\xe8");
    add32(t, (uint32_t)(to - (RIG_CODE + t->len + 4)));
}

/* What begins at the returned offset is jumped over unless R15 is R14. */
static inline unsigned add_if_turn(struct text *t)
{
    ADD(t, "\x4d\x39\xf7\x75\x00"); /* cmp r15, r14; jne */
    return t->len;
}

static inline void end_if(struct text *t, unsigned from)
{
    t->bytes[from - 1] = (char)(t->len - from);
}

static inline void put_text(struct pair *p, gpa_t at, const struct text *t)
{
    put_code(p, at, t->bytes, t->len);
}

/* ---- the pair ---- */

static inline void poke(struct pair *p, gpa_t at, uint64_t value)
{
    for (unsigned n = 0; n < 2; n++)
        rig_poke(rig_of(p, n), at, value, 8);
}

static inline void set(struct pair *p, unsigned reg, uint64_t value)
{
    for (unsigned n = 0; n < 2; n++)
        rig_of(p, n)->v->gpr[reg] = value;
}

static inline void point(struct pair *p, uint64_t gva)
{
    for (unsigned k = 0; k < ARRAY_LEN(bases); k++)
        set(p, bases[k], gva + 16 * k);
}

/* Memory of the mode: what exceptions use is the kernel's alone, on a stack of its own. */
static inline void long_mode(struct cpu_rig *r)
{
    static const gpa_t kernels[] = {RIG_GDT, RIG_IDT, RIG_TSS, RIG_RSP0 - 0x1000, RIG_IST1 - 0x1000, SECRET};
    static const unsigned vectors[] = {EXC_DF, EXC_SS, EXC_GP, EXC_PF};
    rig_long(r);
    for (unsigned k = 0; k < ARRAY_LEN(kernels); k++)
        rig_poke(r, PTE(kernels[k]), kernels[k] | 3, 8);
    for (unsigned k = 0; k < ARRAY_LEN(vectors); k++)
        rig_gate64(r, vectors[k], 0x8e, 1);
    rig_poke(r, PTE(ABSENT), 0, 8);
    rig_poke(r, PTE(READ_ONLY), READ_ONLY | 5, 8);
    for (unsigned k = 0; k < 0x200; k++) {
        rig_poke(r, PAGE_A + 8 * k, 0x1111 * k + 1, 8);
        rig_poke(r, PAGE_B + 8 * k, 0x2323 * k + 7, 8);
    }
    r->v->xcr0 = 7;
}

static inline void open_kind(struct pair *p, enum mmu_kind kind)
{
    pair_open_kind(p, "max", kind, long_mode, 2);
}

static const enum mmu_kind kinds[] = {MMU_WALK, MMU_SHADOW, MMU_EPT};

/* General registers, flags and mode as at first; counts of turns; bases at PAGE_A. */
static inline void start(struct pair *p, unsigned cpl, uint64_t cr4, uint64_t turns)
{
    for (unsigned n = 0; n < 2; n++) {
        struct cpu_rig *r = rig_of(p, n);
        struct vcpu *v = r->v;
        memset(v->gpr, 0, sizeof v->gpr);
        v->gpr[13] = v->gpr[14] = v->gpr[15] = turns;
        v->cr0 &= ~CR0_AM;
        v->fpu.fcw = 0x37f;
        v->cr2 = 0;
        v->cr3 = RIG_PML4;
        v->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXSAVE | cr4;
        vcpu_set_rflags(v, 2);
        if (cpl == 3)
            rig_user(r);
        else
            rig_set_cpl(r, SEL_CODE0, SEL_DATA0, 0);
    }
    point(p, PAGE_A);
}

static inline void check_all(struct pair *p, const char *what)
{
    static const gpa_t pages[] = {PAGE_A, PAGE_A + 0x1000, PAGE_B, READ_ONLY, SECRET, RIG_STACK - 0x1000, RIG_PT};
    uint8_t a[PAGE_SIZE], b[PAGE_SIZE];
    check_same(p, what);
    ck_assert_msg(p->a.v->cr2 == p->b.v->cr2, "%s: CR2 %llx, JIT %llx", what, (unsigned long long)p->a.v->cr2,
                  (unsigned long long)p->b.v->cr2);
    ck_assert_msg(p->a.v->cpl == p->b.v->cpl, "%s: CPL", what);
    ck_assert_msg(p->a.device_accesses == p->b.device_accesses && p->a.device_value == p->b.device_value &&
                      p->a.device_time == p->b.device_time && p->a.device_offset == p->b.device_offset,
                  "%s: the device saw another access", what);
    for (unsigned k = 0; k < ARRAY_LEN(pages); k++) {
        mem_access(p->a.mem, 0, pages[k], a, sizeof a, MEM_PEEK, false, BUS_NO_CPU);
        mem_access(p->b.mem, 0, pages[k], b, sizeof b, MEM_PEEK, false, BUS_NO_CPU);
        ck_assert_msg(!memcmp(a, b, sizeof a), "%s: memory at %llx", what, (unsigned long long)pages[k]);
    }
}

static inline void run(struct pair *p, uint64_t units, const char *what)
{
    run_all(p, RIG_CODE, units, what);
    check_all(p, what);
}

/* It ended in the handler of `vector`. */
static inline void expect(struct pair *p, unsigned vector, uint64_t cr2, const char *what)
{
    ck_assert_msg(p->b.v->rip == RIG_HANDLERS + 16 * (uint64_t)vector + 1, "%s ends at %llx", what,
                  (unsigned long long)p->b.v->rip);
    if (vector == EXC_PF)
        ck_assert_msg(p->b.v->cr2 == cr2, "%s: CR2 %llx", what, (unsigned long long)p->b.v->cr2);
}

static inline void expect_end(struct pair *p, uint64_t rip, const char *what)
{
    ck_assert_msg(p->b.v->rip == rip, "%s ends at %llx", what, (unsigned long long)p->b.v->rip);
}

/* Root 2 is root 1 but for PAGE_A, which is PAGE_B there, with `attr`. */
static inline void make_root_2(struct pair *p, uint64_t attr)
{
    poke(p, PML4_2, PDPT_2 | 7);
    poke(p, PDPT_2, PD_2 | 7);
    for (unsigned n = 0; n < 2; n++) {
        struct cpu_rig *r = rig_of(p, n);
        for (unsigned k = 0; k < 4; k++)
            rig_poke(r, PD_2 + 8 * k, rig_peek(r, RIG_PD + 8 * k, 8), 8);
        for (unsigned k = 0; k < 512; k++)
            rig_poke(r, PT_2 + 8 * k, rig_peek(r, RIG_PT + 8 * k, 8) & ~0x60ull, 8);
    }
    poke(p, PD_2, PT_2 | 7);
    poke(p, PT_2 + 8 * (PAGE_A >> 12), PAGE_B | attr);
}

#endif
