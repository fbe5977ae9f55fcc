// Accesses and instructions that cross from one page to the next, and instructions that fault half way.
#include "testos.h"

// Two adjacent pages whose frames are not adjacent; page(0) is the lower.
struct pair {
    u64 gva, frame[2];
    u64 *entry[2];
    u64 good[2];
};

static void pair_make(struct pair *pair, u64 gva)
{
    u64 frames = frames_alloc(3, 1);
    pair->gva = gva;
    for (unsigned i = 0; i < 2; i++) {
        pair->frame[i] = frames + (i ? 0 : 0x2000);
        pair->entry[i] = pt_entry(read_cr3(), gva + i * 4096ull, 1);
        pair->good[i] = pair->frame[i] | PTE_RWU;
        map_page(gva + i * 4096ull, pair->good[i]);
    }
}

static void pair_set(const struct pair *pair, unsigned i, u64 value)
{
    pte_store(pair->entry[i], value);
    invlpg(pair->gva + i * 4096ull);
}

static void pair_restore(const struct pair *pair)
{
    pair_set(pair, 0, pair->good[0]);
    pair_set(pair, 1, pair->good[1]);
}

static void copy_code(void *to, const char *start, const char *end)
{
    memcpy(to, start, (size_t)(end - start));
}

SNIPPET(cross_load4, "mov (%rdi), %eax");
SNIPPET(cross_load2, "movzwl (%rdi), %eax");
SNIPPET(cross_store4, "mov %eax, (%rdi)");
SNIPPET(cross_store2, "mov %ax, (%rdi)");
SNIPPET(cross_xchg, "xchg %rax, (%rdi)");
SNIPPET(cross_lock_add, "lock addq %rax, (%rdi)");
SNIPPET(cross_push, "push %rax");
SNIPPET(cross_pop, "pop %rax");
SNIPPET(cross_cmp16b, "lock cmpxchg16b (%rdi)");

struct crossing {
    const char *name, *code;
    unsigned size;
    bool load, store, on_stack;
};

static const struct crossing crossings[] = {
    {"8-byte load", access_read, 8, true, false, false},
    {"4-byte load", cross_load4, 4, true, false, false},
    {"2-byte load", cross_load2, 2, true, false, false},
    {"8-byte store", access_write, 8, false, true, false},
    {"4-byte store", cross_store4, 4, false, true, false},
    {"2-byte store", cross_store2, 2, false, true, false},
    {"add to memory", access_add, 8, true, true, false},
    {"xchg", cross_xchg, 8, true, true, false},
    {"lock add", cross_lock_add, 8, true, true, false},
    {"push", cross_push, 8, false, true, true},
    {"pop", cross_pop, 8, true, false, true},
};
enum { CROSSINGS = sizeof crossings / sizeof crossings[0] };

#define LOW_BYTES  0x1716151413121110ull
#define HIGH_BYTES 0x2726252423222120ull

static void pair_fill(const struct pair *pair)
{
    store64(pair->frame[0] + 0xff8, LOW_BYTES);
    store64(pair->frame[1], HIGH_BYTES);
}

// `before` bytes of the access lie in the lower page.
static void crossing_probe(struct probe *p, const struct pair *pair, const struct crossing *c, unsigned before,
                           unsigned cpl)
{
    probe_init(p, c->code, cpl);
    u64 address = pair->gva + 0x1000 - before;
    p->in.rax = 0x8877665544332211;
    p->in.rdi = address;
    if (c->on_stack)
        p->in.rsp = address + (c->store ? 8 : 0);
}

static void check_crossing_works(const struct pair *pair, const struct crossing *c, unsigned cpl)
{
    bool ok = true;
    for (unsigned before = 1; before < c->size; before++) {
        struct probe p;
        pair_fill(pair);
        crossing_probe(&p, pair, c, before, cpl);
        probe_run(&p);
        u8 bytes[16];
        memcpy(bytes, gpa_pointer(pair->frame[0] + 0xff8), 8);
        memcpy(bytes + 8, gpa_pointer(pair->frame[1]), 8);
        u64 expected_load = 0, sum = 0, stored = 0, mask = c->size == 8 ? ~0ull : (1ull << 8 * c->size) - 1;
        for (unsigned i = 0; i < c->size; i++) {
            unsigned at = 8 - before + i;
            expected_load |= (u64)(at < 8 ? 0x10 + at : 0x20 + at - 8) << 8 * i;
            stored |= (u64)bytes[at] << 8 * i;
        }
        sum = expected_load + p.in.rax;
        ok = ok && p.out.vector == VECTOR_DONE;
        if (c->load && !c->store)
            ok = ok && p.out.rax == expected_load && stored == expected_load;
        else if (!c->load)
            ok = ok && stored == (p.in.rax & mask);
        else if (c->code == cross_xchg)
            ok = ok && stored == p.in.rax && p.out.rax == expected_load;
        else
            ok = ok && stored == sum;
    }
    check(ok, "%s across two pages at CPL %u: all splits", c->name, cpl);
}

static void check_crossing_fault(const struct pair *pair, const struct crossing *c, unsigned faulty, unsigned cpl,
                                 bool protection)
{
    unsigned before = c->size / 2;
    struct probe p;
    pair_fill(pair);
    pair_set(pair, faulty, protection ? pair->good[faulty] & ~PTE_W : 0);
    crossing_probe(&p, pair, c, before, cpl);
    u64 cr2 = faulty ? pair->gva + 0x1000 : pair->gva + 0x1000 - before;
    u64 write = !c->store ? 0 : c->load && !protection ? PF_MODIFY : PF_W;
    u64 error = (protection ? PF_P : 0) | write | (cpl == 3 ? PF_U : 0);
    check_probe(&p, page_fault(error, cr2), "%s at CPL %u, %s page %s", c->name, cpl, faulty ? "second" : "first",
                protection ? "read-only" : "not present");
    check(load64(pair->frame[0] + 0xff8) == LOW_BYTES && load64(pair->frame[1]) == HIGH_BYTES,
          "and neither page was written");
    pair_restore(pair);
}

static void check_data_crossings(const struct pair *pair)
{
    for (unsigned i = 0; i < CROSSINGS; i++) {
        const struct crossing *c = &crossings[i];
        check_crossing_works(pair, c, 3);
        for (unsigned faulty = 0; faulty < 2; faulty++) {
            check_crossing_fault(pair, c, faulty, 3, false);
            check_crossing_fault(pair, c, faulty, 0, false);
            if (c->store)
                check_crossing_fault(pair, c, faulty, 3, true);
        }
    }
}

// ---- code ---------------------------------------------------------------------------------------------------------

// Ten bytes: mov $imm64, %rax.
SNIPPET(cross_code, "movabs $0x1122334455667788, %rax");

static void check_code_crossings(const struct pair *pair, unsigned cpl)
{
    struct probe p;
    bool ok = true;
    u8 both[0x40];
    for (unsigned before = 1; before < 10; before++) {
        memset(both, 0x90, sizeof both);
        copy_code(both + 0x20 - before, cross_code, cross_code_end);
        memcpy(gpa_pointer(pair->frame[0] + 0xfe0), both, 0x20);
        memcpy(gpa_pointer(pair->frame[1]), both + 0x20, 0x20);
        probe_init(&p, cross_code, cpl);
        p.in.rip = pair->gva + 0x1000 - before;
        probe_run(&p);
        ok = ok && p.out.vector == VECTOR_DONE && p.out.rax == 0x1122334455667788 && p.out.rip == p.in.rip + 12;
        u64 error = cpl == 3 ? PF_U | PF_ID : PF_ID;
        pair_set(pair, 1, 0);
        check_probe(&p, page_fault(error, pair->gva + 0x1000), "instruction with %u of 10 bytes before a hole, CPL %u",
                    before, cpl);
        pair_set(pair, 1, pair->good[1] | PTE_NX);
        probe_run(&p);
        ok = ok && !expect_mismatch(&p, page_fault(error | PF_P, pair->gva + 0x1000));
        pair_restore(pair);
        probe_run(&p);
        ok = ok && p.out.vector == VECTOR_DONE && p.out.rax == 0x1122334455667788;
    }
    check(ok, "the same instructions run when the second page is there, and fault when it is no-execute, CPL %u", cpl);
    memset(gpa_pointer(pair->frame[0] + 0xff0), 0x90, 0x10);
    pair_set(pair, 1, 0);
    probe_init(&p, cross_code, cpl);
    p.in.rip = pair->gva + 0xff6;
    struct expect wanted = page_fault(cpl == 3 ? PF_U | PF_ID : PF_ID, pair->gva + 0x1000);
    wanted.rip = pair->gva + 0x1000;
    check_probe(&p, wanted, "running off the end of a page faults at the next page's start, CPL %u", cpl);
    pair_restore(pair);
}

void group_cross(void)
{
    struct pair pair;
    pair_make(&pair, GVA(80, 1, 1, 10));
    check_data_crossings(&pair);
    check_code_crossings(&pair, 3);
    check_code_crossings(&pair, 0);
    pair_make(&pair, GVA(80, 1, 1, 511)); // the pages have different tables
    for (unsigned i = 0; i < 4; i++)
        check_crossing_works(&pair, &crossings[i], 0);
    check_crossing_fault(&pair, &crossings[0], 1, 3, false);
    pair_make(&pair, GVA(81, 511, 511, 511)); // and different entries at every level
    check_crossing_works(&pair, &crossings[0], 3);
    check_crossing_works(&pair, &crossings[3], 3);
    check_crossing_fault(&pair, &crossings[3], 1, 3, false);
    struct probe p;
    probe_init(&p, cross_cmp16b, 0);
    p.in.rdi = pair.gva + 0xff8;
    check_probe(&p, exception(VEC_GP, 0), "cmpxchg16b that is not aligned");
}

// ---- string and stack instructions --------------------------------------------------------------------------------

SNIPPET(string_movsb, "rep movsb");
SNIPPET(string_movsq, "rep movsq");
SNIPPET(string_movsb_down, "std\n" MARK("string_movsb_down_rep") "rep movsb");
SNIPPET(string_stosb, "rep stosb");
SNIPPET(string_stosq, "rep stosq");
SNIPPET(string_lodsq, "rep lodsq");
SNIPPET(string_scasb, "repne scasb");
SNIPPET(string_cmpsb, "repe cmpsb");
SNIPPET(string_movsl, "movsl");
extern const char string_movsb_down_rep[];

struct string_case {
    const char *name, *code, *at; // at: the instruction, when it is not the first
    u64 rdi, rsi, rcx;            // offsets into the destination and the source pair
    unsigned hole;                // bit 0: destination's second page, 1: source's second, 2: destination's first
    u64 done;                     // iterations that complete
    int step;
    bool uses_rdi, uses_rsi, write;
};

static const struct string_case string_cases[] = {
    {"rep movsb into a hole", string_movsb, NULL, 0xff0, 0, 64, 1, 16, 1, true, true, true},
    {"rep movsb from a hole", string_movsb, NULL, 0, 0xff9, 64, 2, 7, 1, true, true, false},
    {"rep movsq into a hole", string_movsq, NULL, 0xff0, 0, 8, 1, 2, 8, true, true, true},
    {"rep movsq into a hole, element across", string_movsq, NULL, 0xff4, 0, 8, 1, 1, 8, true, true, true},
    {"rep movsq from a hole, element across", string_movsq, NULL, 0, 0xfec, 8, 2, 2, 8, true, true, false},
    {"rep movsb downwards into a hole", string_movsb_down, string_movsb_down_rep, 0x1007, 0x100, 32, 4, 8, -1, true,
     true, true},
    {"rep stosb into a hole", string_stosb, NULL, 0xfff, 0, 9, 1, 1, 1, true, false, true},
    {"rep stosq into a hole", string_stosq, NULL, 0xe00, 0, 512, 1, 64, 8, true, false, true},
    {"rep stosq into a hole, element across", string_stosq, NULL, 0xffd, 0, 2, 1, 0, 8, true, false, true},
    {"rep lodsq from a hole", string_lodsq, NULL, 0, 0xfe0, 512, 2, 4, 8, false, true, false},
    {"repne scasb into a hole", string_scasb, NULL, 0xff8, 0, 512, 1, 8, 1, true, false, false},
    {"repe cmpsb, destination in a hole", string_cmpsb, NULL, 0xffc, 0x800, 512, 1, 4, 1, true, true, false},
    {"repe cmpsb, source in a hole", string_cmpsb, NULL, 0x800, 0xffb, 512, 2, 5, 1, true, true, false},
    {"movsl into a hole", string_movsl, NULL, 0x1000, 0, 5, 1, 0, 4, true, true, true},
};

static u64 string_cr2(const struct string_case *c, u64 rdi, u64 rsi, const struct pair *to, const struct pair *from)
{
    if (c->hole == 4)
        return rdi;
    u64 page = c->hole == 1 ? to->gva + 0x1000 : from->gva + 0x1000, at = c->hole == 1 ? rdi : rsi;
    return at < page ? page : at;
}

static void check_string(const struct string_case *c, const struct pair *to, const struct pair *from, unsigned cpl)
{
    struct probe p;
    for (unsigned i = 0; i < 2; i++) {
        memset(gpa_pointer(to->frame[i]), 0, 4096);
        memset(gpa_pointer(from->frame[i]), 0, 4096);
    }
    if (c->hole == 4)
        pair_set(to, 0, 0);
    else
        pair_set(c->hole == 1 ? to : from, 1, 0);
    probe_init(&p, c->code, cpl);
    p.in.rdi = to->gva + c->rdi;
    p.in.rsi = from->gva + c->rsi;
    p.in.rcx = c->rcx;
    p.in.rax = 0x3333333333333333;
    u64 moved = (u64)((long)c->done * c->step);
    u64 rdi = p.in.rdi + (c->uses_rdi ? moved : 0), rsi = p.in.rsi + (c->uses_rsi ? moved : 0);
    u64 error = (c->write ? PF_W : 0) | (cpl == 3 ? PF_U : 0);
    struct expect wanted = page_fault(error, string_cr2(c, rdi, rsi, to, from));
    wanted.partial = true;
    if (c->at)
        wanted.rip = probe_address(c->at, cpl);
    check_probe(&p, wanted, "%s, CPL %u", c->name, cpl);
    check(p.out.rdi == rdi && p.out.rsi == rsi && p.out.rcx == c->rcx - c->done,
          "%s, CPL %u: RCX, RSI and RDI are those of iteration %lu", c->name, cpl, c->done);
    pair_restore(to);
    pair_restore(from);
    p.in = p.out;
    p.in.vector = p.in.error = 0;
    if (c->code == string_scasb)
        return;
    probe_run(&p);
    u64 all = c->rcx * (u64)(long)c->step;
    bool single = c->code == string_movsl;
    check(p.out.vector == VECTOR_DONE && p.out.rcx == (single ? c->rcx : 0) &&
              p.out.rdi == to->gva + c->rdi +
                               (single        ? 4
                                : c->uses_rdi ? all
                                              : 0),
          "%s, CPL %u: goes on to its end when restarted", c->name, cpl);
}

SNIPPET(stack_call, "call .");
SNIPPET(stack_call_indirect, "call *%rax");
SNIPPET(stack_ret, "ret");
SNIPPET(stack_ret_imm, "ret $16");
SNIPPET(stack_leave, "leave");
SNIPPET(stack_enter, "enter $16, $0");
SNIPPET(stack_pop_memory, "popq (%rdi)");
SNIPPET(stack_push_memory, "pushq (%rdi)");
SNIPPET(stack_pushf, "pushfq");
SNIPPET(stack_popf, "popfq");
SNIPPET(stack_cmpxchg, "lock cmpxchg %rcx, (%rdi)");
SNIPPET(stack_cmov, "test %rdi, %rdi\n" MARK("stack_cmov_itself") "cmovz (%rdi), %rax");
SNIPPET(stack_bts, "btsq %rcx, (%rdi)");
SNIPPET(stack_div, "divq (%rdi)");
SNIPPET(stack_imul, "imul (%rdi), %rax");
SNIPPET(stack_jmp, "jmp *(%rdi)");
extern const char stack_cmov_itself[];

struct stack_case {
    const char *name, *code, *at;
    bool bad_stack; // RSP in the hole, else RDI
    int below;      // the faulting address relative to RSP or RDI
    bool write, read_only;
    u64 rcx;
    bool modify; // the write is half of a read-modify-write
};

static void check_stack_case(const struct stack_case *c, const struct pair *pair, unsigned cpl)
{
    struct probe p;
    u64 at = pair->gva + 0x1000 + 0x800;
    pair_set(pair, 1, c->read_only ? pair->good[1] & ~PTE_W : 0);
    store64(pair->frame[1] + 0x800, 0x1234);
    probe_init(&p, c->code, cpl);
    p.in.rdi = c->bad_stack ? pair->gva + 0x800 : at;
    p.in.rbp = at;
    p.in.rcx = c->rcx;
    p.in.rax = 5;
    if (c->bad_stack)
        p.in.rsp = at;
    else
        p.in.rsp = pair->gva + 0x400;
    u64 write = !c->write ? 0 : c->modify && !c->read_only ? PF_MODIFY : PF_W;
    struct expect wanted =
        page_fault(write | (cpl == 3 ? PF_U : 0) | (c->read_only ? PF_P : 0), at + (u64)(long)c->below);
    if (c->at) {
        wanted.rip = probe_address(c->at, cpl);
        wanted.partial = true;
    }
    check_probe(&p, wanted, "%s, CPL %u: fault leaves every register as it was", c->name, cpl);
    if (c->read_only)
        check_equal(load64(pair->frame[1] + 0x800), 0x1234, "%s, CPL %u: and the memory", c->name, cpl);
    pair_restore(pair);
}

static const struct stack_case stack_cases[] = {
    {"push", cross_push, NULL, true, -8, true, false, 0, false},
    {"pop", cross_pop, NULL, true, 0, false, false, 0, false},
    {"call", stack_call, NULL, true, -8, true, false, 0, false},
    {"call through a register", stack_call_indirect, NULL, true, -8, true, false, 0, false},
    {"ret", stack_ret, NULL, true, 0, false, false, 0, false},
    {"ret 16", stack_ret_imm, NULL, true, 0, false, false, 0, false},
    {"leave", stack_leave, NULL, true, 0, false, false, 0, false},
    {"enter", stack_enter, NULL, true, -8, true, false, 0, false},
    {"pushf", stack_pushf, NULL, true, -8, true, false, 0, false},
    {"popf", stack_popf, NULL, true, 0, false, false, 0, false},
    {"pop to memory, memory missing", stack_pop_memory, NULL, false, 0, true, false, 0, false},
    {"pop to memory, stack missing", stack_pop_memory, NULL, true, 0, false, false, 0, false},
    {"push of memory, memory missing", stack_push_memory, NULL, false, 0, false, false, 0, false},
    {"push of memory, stack missing", stack_push_memory, NULL, true, -8, true, false, 0, false},
    {"lock cmpxchg that would fail, read-only page", stack_cmpxchg, NULL, false, 0, true, true, 1, true},
    {"lock cmpxchg, page missing", stack_cmpxchg, NULL, false, 0, true, false, 1, true},
    {"add to a read-only page", access_add, NULL, false, 0, true, true, 0, true},
    {"xchg with a read-only page", cross_xchg, NULL, false, 0, true, true, 0, true},
    {"cmov whose condition is false", stack_cmov, stack_cmov_itself, false, 0, false, false, 0, false},
    {"bts with a far bit offset", stack_bts, NULL, false, 64, true, false, 512, true},
    {"bts with a negative bit offset", stack_bts, NULL, false, -8, true, false, (u64)-1, true},
    {"div by memory", stack_div, NULL, false, 0, false, false, 0, false},
    {"imul by memory", stack_imul, NULL, false, 0, false, false, 0, false},
    {"jmp through memory", stack_jmp, NULL, false, 0, false, false, 0, false},
};

void group_strings(void)
{
    struct pair to, from;
    pair_make(&to, GVA(82, 1, 1, 10));
    pair_make(&from, GVA(82, 1, 1, 100));
    for (unsigned i = 0; i < sizeof string_cases / sizeof string_cases[0]; i++) {
        check_string(&string_cases[i], &to, &from, 3);
        check_string(&string_cases[i], &to, &from, 0);
    }
    for (unsigned i = 0; i < sizeof stack_cases / sizeof stack_cases[0]; i++) {
        check_stack_case(&stack_cases[i], &to, 3);
        check_stack_case(&stack_cases[i], &to, 0);
    }
}
