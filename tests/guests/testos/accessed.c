// Accessed and dirty bits: SDM volume 3, 4.8.
#include "testos.h"

SNIPPET(ad_cmpxchg, "lock cmpxchg %rcx, (%rdi)");
SNIPPET(ad_xchg, "xchg %rax, (%rdi)");
SNIPPET(ad_bts, "lock btsq $1, (%rdi)");
SNIPPET(ad_push, "push %rax");
SNIPPET(ad_pop, "pop %rax");
SNIPPET(ad_stos, "rep stosq");
SNIPPET(ad_lods, "rep lodsq");
SNIPPET(ad_cmp, "cmpq $0, (%rdi)");
SNIPPET(ad_inc, "incq (%rdi)");
SNIPPET(ad_setc, "setc (%rdi)");
SNIPPET(ad_prefetch, "lea (%rdi), %rbx\n\tnopl (%rdi)\n\tinvlpg (%rdi)");
SNIPPET(ad_ud2, "ud2");
SNIPPET(ad_cmov, "test %edi, %edi\n\tcmovzq (%rdi), %rax");

static u64 ad_bits(const u64 *entry)
{
    return pte_load(entry) & (PTE_A | PTE_D);
}

static const char *ad_name(u64 bits)
{
    static const char *const names[] = {"none", "A", "D", "A and D"};
    return names[bits >> 5 & 3];
}

static void check_bits(const u64 *entry, u64 wanted, const char *what, const char *where)
{
    u64 got = ad_bits(entry);
    check(got == wanted, "%s: %s has %s%s%s", what, where, ad_name(wanted), got == wanted ? "" : ": got ",
          got == wanted ? "" : ad_name(got));
}

static const char *const entry_names[5] = {"", "PTE", "PDE", "PDPTE", "PML4E"};

// Every level after one access from clean entries.
static void check_access_bits(const struct path *path, enum access kind, unsigned cpl, const char *what)
{
    path_restore(path);
    mark_memory(gpa_pointer(path->frame), 1);
    struct access_result r;
    access_page(&r, kind, cpl, path->gva, 0);
    for (unsigned level = 4; level >= path->leaf_level; level--) {
        u64 wanted = PTE_A | (level == path->leaf_level && kind == WRITE ? PTE_D : 0);
        u64 got = ad_bits(path->entry[level]);
        check(got == wanted && !r.faulted, "%s %s at CPL %u: %s has %s%s%s", what, access_names[kind], cpl,
              entry_names[level], ad_name(wanted), got == wanted ? "" : ": got ", got == wanted ? "" : ad_name(got));
    }
}

static void check_faults_leave_leaf(const struct path *path)
{
    static const struct {
        const char *name;
        u64 set, clear;
        enum access kind;
        unsigned cpl;
    } cases[] = {
        {"user read of a supervisor page", 0, PTE_U, READ, 3},
        {"user write to a read-only page", 0, PTE_W, WRITE, 3},
        {"supervisor write to a read-only page", 0, PTE_W, WRITE, 0},
        {"fetch from a no-execute page", PTE_NX, 0, FETCH, 3},
        {"read through a PTE that is not present", 0, PTE_P, READ, 0},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        path_restore(path);
        path_set(path, 1, (path->good[1] | cases[i].set) & ~cases[i].clear);
        struct access_result r;
        access_page(&r, cases[i].kind, cases[i].cpl, path->gva, 0);
        check(r.faulted && !ad_bits(path->entry[1]), "%s faults and leaves A and D of the PTE clear", cases[i].name);
    }
    path_restore(path);
    path_set(path, 2, path->good[2] & ~PTE_U);
    struct access_result r;
    access_page(&r, WRITE, 3, path->gva, 0);
    check(r.faulted && !ad_bits(path->entry[1]), "write denied by the PDE leaves A and D of the PTE clear");
    path_restore(path);
}

static void check_setting_again(const struct path *path)
{
    store64(path->gva + ACCESS_OFFSET, 1);
    path_restore(path);
    (void)load64(path->gva + ACCESS_OFFSET);
    check_bits(path->entry[1], PTE_A, "A cleared, INVLPG, read", "PTE");
    store64(path->gva + ACCESS_OFFSET, 2);
    check_bits(path->entry[1], PTE_A | PTE_D, "write after a read, no flush between", "PTE");
    path_set(path, 1, path->good[1] | PTE_A);
    store64(path->gva + ACCESS_OFFSET, 3);
    check_bits(path->entry[1], PTE_A | PTE_D, "D cleared, INVLPG, write", "PTE");
    path_set(path, 1, path->good[1] | PTE_D);
    (void)load64(path->gva + ACCESS_OFFSET);
    check_bits(path->entry[1], PTE_A | PTE_D, "A cleared with D set, INVLPG, read", "PTE");
    pte_store(path->entry[1], path->good[1]);
    pte_store(path->entry[3], path->good[3]);
    flush_all();
    (void)load64(path->gva + ACCESS_OFFSET);
    check_bits(path->entry[3], PTE_A, "A cleared, CR3 reload, read", "PDPTE");
    path_restore(path);
    (void)load64(path->gva);
    (void)load64(path->gva + 0xff8);
    check_bits(path->entry[1], PTE_A, "two reads", "PTE");
}

static void check_coherent_clearing(const struct path *path)
{
    store64(path->gva + ACCESS_OFFSET, 1);
    for (unsigned level = 4; level >= 1; level--)
        pte_store(path->entry[level], path->good[level]);
    (void)load64(path->gva + ACCESS_OFFSET);
    bool all = true;
    for (unsigned level = 4; level >= 1; level--)
        all = all && ad_bits(path->entry[level]) == PTE_A;
    check(all, "coherent: A and D cleared without INVLPG, read: A at all levels, D at none");
    store64(path->gva + ACCESS_OFFSET, 2);
    check_bits(path->entry[1], PTE_A | PTE_D, "coherent: then a write", "PTE");
    pte_store(path->entry[1], path->good[1] | PTE_A);
    store64(path->gva + ACCESS_OFFSET, 3);
    check_bits(path->entry[1], PTE_A | PTE_D, "coherent: D cleared without INVLPG, write", "PTE");
    pte_store(path->entry[1], path->good[1] | PTE_D);
    (void)load64(path->gva + ACCESS_OFFSET);
    check_bits(path->entry[1], PTE_A | PTE_D, "coherent: A cleared without INVLPG, read", "PTE");
    path_restore(path);
}

struct instruction {
    const char *name, *code;
    u64 wanted, rcx;
    bool on_stack;
};

static void check_instructions(const struct path *path)
{
    static const struct instruction cases[] = {
        {"lock cmpxchg that succeeds", ad_cmpxchg, PTE_A | PTE_D, 0, false},
        {"xchg", ad_xchg, PTE_A | PTE_D, 0, false},
        {"lock bts", ad_bts, PTE_A | PTE_D, 0, false},
        {"inc", ad_inc, PTE_A | PTE_D, 0, false},
        {"add", access_add, PTE_A | PTE_D, 0, false},
        {"setc", ad_setc, PTE_A | PTE_D, 0, false},
        {"cmp with memory", ad_cmp, PTE_A, 0, false},
        {"push", ad_push, PTE_A | PTE_D, 0, true},
        {"pop", ad_pop, PTE_A, 0, true},
        {"rep stosq of 2", ad_stos, PTE_A | PTE_D, 2, false},
        {"rep lodsq of 2", ad_lods, PTE_A, 2, false},
        {"rep stosq of 0", ad_stos, 0, 0, false},
        {"rep lodsq of 0", ad_lods, 0, 0, false},
        {"lea, nop and invlpg of an address", ad_prefetch, 0, 0, false},
        {"cmov whose condition is false", ad_cmov, PTE_A, 0, false},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct probe p;
        store64(path->frame + ACCESS_OFFSET, 0);
        path_restore(path);
        probe_init(&p, cases[i].code, 0);
        p.in.rdi = p.in.rsi = path->gva + ACCESS_OFFSET;
        p.in.rcx = cases[i].rcx;
        if (cases[i].on_stack)
            p.in.rsp = path->gva + ACCESS_OFFSET;
        probe_run(&p);
        u64 got = ad_bits(path->entry[1]);
        check(got == cases[i].wanted && p.out.vector == VECTOR_DONE, "%s: PTE has %s%s%s", cases[i].name,
              ad_name(cases[i].wanted), got == cases[i].wanted ? "" : ": got ",
              got == cases[i].wanted ? "" : ad_name(got));
    }
    path_restore(path);
}

// The processor's own accesses: the frame of an exception, and the tables themselves through another mapping.
static void check_implicit(const struct path *path)
{
    struct probe p;
    path_restore(path);
    path_set(path, 1, path->good[1] & ~PTE_U);
    tss_set_rsp0(path->gva + 0x1000);
    gate_set_ist(VEC_UD, IST_NONE);
    probe_init(&p, ad_ud2, 3);
    probe_run(&p);
    gate_reset(VEC_UD);
    tss_set_rsp0(0);
    check(p.out.vector == VEC_UD && ad_bits(path->entry[1]) == (PTE_A | PTE_D),
          "an exception frame pushed from CPL 3 sets A and D of the stack's PTE");
    path_restore(path);

    struct path table_view;
    path_make(&table_view, GVA(35, 0, 0, 9), 1, (u64)path->entry[1] & PTE_ADDRESS);
    struct access_result r;
    access_page(&r, WRITE, 3, path->gva, 0);
    check(!r.faulted && !ad_bits(table_view.entry[1]),
          "A and D of a PTE are set by physical address: a mapping of the table gets neither");
    u64 offset = (u64)path->entry[1] & 0xfff;
    check_equal(load64(table_view.gva + offset) & (PTE_A | PTE_D), PTE_A | PTE_D,
                "A and D are seen through a second mapping of the table");
    check_bits(table_view.entry[1], PTE_A, "reading a table through a mapping", "the mapping's PTE");
    path_restore(path);
}

void group_accessed(void)
{
    struct path path;
    path_make(&path, TEST_GVA, 1, marked_frame(1));
    for (enum access kind = READ; kind < ACCESS_KINDS; kind++) {
        check_access_bits(&path, kind, 3, "4 KiB page,");
        check_access_bits(&path, kind, 0, "4 KiB page,");
    }
    check_faults_leave_leaf(&path);
    check_setting_again(&path);
    check_instructions(&path);
    check_implicit(&path);
    if (settings.coherent)
        check_coherent_clearing(&path);
    path_make(&path, GVA(33, 2, 3, 4), 2, LARGE_FRAME_A);
    for (enum access kind = READ; kind < ACCESS_KINDS; kind++)
        check_access_bits(&path, kind, 3, "2 MiB page,");
    if (settings.has_1g) {
        path_make(&path, GVA(34, 3, 0, 0) + LARGE_FRAME_A, 3, 0);
        for (enum access kind = READ; kind < ACCESS_KINDS; kind++)
            check_access_bits(&path, kind, 3, "1 GiB page,");
    }
}
