// Page tables in uncommon arrangements: shared, recursive, used at several levels, re-used, on large pages.
#include "testos.h"

static u64 mark_at(u64 gva)
{
    return load64(gva + ACCESS_OFFSET) - FRAME_MARK;
}
static u64 table_of(const u64 *entry)
{
    return pte_load(entry) & PTE_ADDRESS;
}

// ---- one table below two entries ----------------------------------------------------------------------------------

static void check_shared_rights(unsigned level)
{
    static const struct {
        const char *name;
        u64 set, clear;
        enum access kind;
        int error;
    } cases[] = {
        {"read-only", 0, PTE_W, WRITE, PF_P | PF_W | PF_U},
        {"supervisor", 0, PTE_U, READ, PF_P | PF_U},
        {"no-execute", PTE_NX, 0, FETCH, PF_P | PF_U | PF_ID},
    };
    struct path open, closed;
    u64 frame = marked_frame(1), other = marked_frame(2);
    path_make(&open, GVA(50, 1, 2, 3), 1, frame);
    u64 gva = level == 4 ? GVA(51, 1, 2, 3) : level == 3 ? GVA(50, 9, 2, 3) : GVA(50, 1, 9, 3);
    u64 *second = pt_entry(read_cr3(), gva, level);
    for (unsigned i = 0; i < 3; i++) {
        pte_store(second, (open.good[level] | cases[i].set) & ~cases[i].clear);
        invlpg(gva);
        check_access(cases[i].kind, 3, open.gva, -1, "table shared at level %u, open entry", level);
        mark_memory(gpa_pointer(frame), 1);
        check_access(cases[i].kind, 3, gva, cases[i].error, "table shared at level %u, %s entry", level, cases[i].name);
        check_equal(mark_at(gva), 1, "table shared at level %u, %s entry: the same frame", level, cases[i].name);
        pte_store(open.entry[1], other | PTE_RWU);
        invlpg(open.gva);
        invlpg(gva);
        check(mark_at(gva) == 2 && mark_at(open.gva) == 2, "table shared at level %u: both see the PTE change", level);
        check_access(cases[i].kind, 3, gva, cases[i].error, "table shared at level %u, %s entry, after it", level,
                     cases[i].name);
        check_access(cases[i].kind, 3, open.gva, -1, "table shared at level %u, open entry, after it", level);
        mark_memory(gpa_pointer(other), 2);
        path_restore(&open);
        invlpg(gva);
    }
    pte_store(second, open.good[level]);
    invlpg(gva);
    path_restore(&open);
    store64(gva + 8, 1);
    check(pte_load(open.entry[1]) & PTE_D, "table shared at level %u: a write through one entry sets D for both",
          level);
    pte_store(second, 0);
    invlpg(gva);
    closed = open;
    closed.gva = gva;
    check_access(READ, 0, closed.gva, 0, "table shared at level %u: one entry cleared", level);
    check_access(READ, 0, open.gva, -1, "table shared at level %u: the other still maps", level);
}

// ---- recursive ----------------------------------------------------------------------------------------------------

enum { SELF = 250 };

static u64 recursive_pte(u64 gva)
{
    return GVA(SELF, 0, 0, 0) | (gva >> 9 & 0x7ffffffff8);
}
static u64 recursive_pde(u64 gva)
{
    return recursive_pte(recursive_pte(gva));
}

static void check_recursive(void)
{
    u64 gva = TEST_GVA, a = marked_frame(1), b = marked_frame(2);
    map_page(gva, a | PTE_RWU);
    boot_pml4[SELF] = (u64)boot_pml4 | PTE_P | PTE_W;
    check_equal(load64(GVA(SELF, SELF, SELF, SELF) + SELF * 8) & ~(PTE_A | PTE_D), (u64)boot_pml4 | PTE_P | PTE_W,
                "recursive slot: the root maps itself");
    check_equal(load64(recursive_pte(gva)) & PTE_ADDRESS, a, "recursive slot: the PTE is read through the tables");
    check_equal(load64(recursive_pde(gva)) & PTE_ADDRESS, table_of(pt_entry(read_cr3(), gva, 2)),
                "recursive slot: the PDE is read through the tables");
    check_equal(mark_at(gva), 1, "recursive slot: the page before the change");
    store64(recursive_pte(gva), b | PTE_RWU);
    invlpg(gva);
    check_equal(mark_at(gva), 2, "PTE written through the recursive slot, INVLPG");
    store64(recursive_pte(gva), b | PTE_P | PTE_U);
    invlpg(gva);
    check_access(WRITE, 3, gva, PF_P | PF_W | PF_U, "PTE made read-only through the recursive slot");
    store64(recursive_pte(gva), 0);
    invlpg(gva);
    check_access(READ, 0, gva, 0, "PTE cleared through the recursive slot");
    check_access(READ, 3, recursive_pte(gva) & ~0xfffull, PF_P | PF_U, "the recursive slot is closed to user mode");

    u64 fresh = GVA(60, 7, 8, 9), table = frame_alloc(), directory = frame_alloc(), pointers = frame_alloc();
    store64(GVA(SELF, SELF, SELF, SELF) + 60 * 8, pointers | PTE_RWU);
    store64(recursive_pte(recursive_pde(fresh)), directory | PTE_RWU);
    store64(recursive_pde(fresh), table | PTE_RWU);
    store64(recursive_pte(fresh), a | PTE_RWU);
    check_equal(mark_at(fresh), 1, "a new path built from the top through the recursive slot");
    check_access(WRITE, 3, fresh, -1, "a new path built through the recursive slot");
    mark_memory(gpa_pointer(a), 1);
    check_equal(load64(recursive_pte(fresh)) & (PTE_A | PTE_D), PTE_A | PTE_D, "its A and D read through the slot");
    store64(recursive_pde(fresh), LARGE_FRAME_A | PTE_RWU | PTE_PS);
    invlpg(fresh);
    invlpg(recursive_pte(fresh));
    mark_memory(gpa_pointer(LARGE_FRAME_A + 0x9000), 5);
    check_equal(mark_at(fresh), 5, "PDE turned into a 2 MiB page through the slot");
    check_equal(load64(recursive_pte(fresh & ~0x1fffffull) + ACCESS_OFFSET), load64(LARGE_FRAME_A + ACCESS_OFFSET),
                "the large page's first frame now shows where its table was");
    boot_pml4[SELF] = 0;
    flush_all();
    check_access(READ, 0, GVA(SELF, SELF, SELF, SELF), 0, "recursive slot removed");
}

// One frame as the table of levels 3, 2 and 1 at once: entry 5 is itself, entry 6 a page.
static void check_own_parent(void)
{
    u64 table = frame_alloc(), a = marked_frame(1), b = marked_frame(2), *entries = gpa_pointer(table);
    entries[5] = table | PTE_RWU;
    entries[6] = a | PTE_RWU;
    pte_store(&boot_pml4[61], table | PTE_RWU);
    u64 itself = GVA(61, 5, 5, 5), page = GVA(61, 5, 5, 6);
    check_equal(load64(itself + 5 * 8) & PTE_ADDRESS, table, "table that is its own parent maps itself");
    check_equal(mark_at(page), 1, "table that is its own parent maps a page");
    store64(itself + 6 * 8, b | PTE_RWU);
    invlpg(page);
    check_equal(mark_at(page), 2, "PTE written through the table's mapping of itself");
    store64(itself + 7 * 8, a | PTE_P | PTE_U);
    check_equal(mark_at(GVA(61, 5, 5, 7)), 1, "PTE added through the table's mapping of itself, no flush");
    check_access(WRITE, 3, GVA(61, 5, 5, 7), PF_P | PF_W | PF_U, "and its rights");
    check(load64(itself + 5 * 8) & PTE_D, "the entry that maps itself has D set by those writes");
    store64(itself + 5 * 8, table | PTE_P | PTE_U);
    flush_all();
    check_access(WRITE, 0, itself, PF_P | PF_W, "a table that made its own mapping read-only");
    check_access(WRITE, 3, page, PF_P | PF_W | PF_U, "and with it all below");
    check_equal(mark_at(page), 2, "reads go on");
    entries[5] = 0;
    flush_all();
    check_access(READ, 0, page, 0, "a table that cut itself off");
}

// ---- re-use -------------------------------------------------------------------------------------------------------

static void check_reuse(void)
{
    u64 gva = GVA(62, 1, 1, 1), view = GVA(63, 1, 1, 1), a = marked_frame(1), b = marked_frame(2);
    map_page(gva, a | PTE_RWU);
    check_equal(mark_at(gva), 1, "a page before its table is re-used");
    u64 *pde = pt_entry(read_cr3(), gva, 2), table = table_of(pde);
    map_page(view, table | PTE_RWU);
    pte_store(pde, 0);
    invlpg(gva);
    for (unsigned i = 0; i < 512; i++)
        store64(view + i * 8ull, 0x1111111111111111ull * (i & 7));
    bool ok = true;
    for (unsigned i = 0; i < 512; i++)
        ok = ok && load64(table + i * 8ull) == 0x1111111111111111ull * (i & 7);
    check(ok, "a freed table holds data");
    check_access(READ, 0, gva, 0, "the page of the freed table is gone");
    memset(gpa_pointer(table), 0, 4096);
    store64(view + 8, b | PTE_RWU);
    pte_store(pde, table | PTE_RWU);
    check_equal(mark_at(gva), 2, "the data page is a table again, no flush");
    store64(view + 8, a | PTE_RWU);
    invlpg(gva);
    check_equal(mark_at(gva), 1, "and changed through the mapping it had as data");
    u64 directory = table_of(pt_entry(read_cr3(), gva, 3));
    pte_store(pde, directory | PTE_RWU);
    invlpg(gva);
    u64 *entry = gpa_pointer(directory);
    check_equal(pte_load(entry + 1) & PTE_ADDRESS, directory, "a directory used as its own page table");
    check_equal(load64(gva + 8) & PTE_ADDRESS, directory, "maps itself where the page was");
    pte_store(pde, 0);
    flush_all();
}

// A frame goes round: data, PTE, PDE, PDPTE table, PML4 subtree, data; each time through the same mapping.
static void check_rotation(void)
{
    u64 table = frame_alloc(), page = marked_frame(9), *entries = gpa_pointer(table);
    bool ok = true;
    for (unsigned round = 0; round < 12; round++) {
        unsigned level = 2 + round % 3;
        u64 gva = GVA(64, 3, 3, 3);
        memset(entries, 0, 4096);
        u64 *parent = pt_entry(read_cr3(), gva, level), saved = pte_load(parent);
        pte_store(parent, table | PTE_RWU);
        flush_all();
        pte_store(pt_entry(read_cr3(), gva, 1), page | PTE_RWU);
        ok = ok && mark_at(gva) == 9;
        pte_store(parent, saved);
        flush_all();
        memset(entries, 0xa5, 4096);
        ok = ok && entries[511] == 0xa5a5a5a5a5a5a5a5ull;
    }
    check(ok, "one frame as PT, PD, PDPT and data by turns, 12 rounds");
}

// ---- tables that are mapped for others ----------------------------------------------------------------------------

SNIPPET(tables_user_edit, "mov (%rdi), %rbx\n\tmov %rax, (%rdi)\n\tmov (%rsi), %rdx");

static void check_user_edits(void)
{
    u64 gva = GVA(65, 1, 1, 1), view = GVA(66, 1, 1, 1), a = marked_frame(1);
    struct probe p;
    map_page(gva, 0);
    u64 table = table_of(pt_entry(read_cr3(), gva, 2));
    map_page(view, table | PTE_RWU);
    probe_init(&p, tables_user_edit, 3);
    p.in.rdi = view + 8;
    p.in.rsi = gva + ACCESS_OFFSET;
    p.in.rax = a | PTE_RWU;
    check_probe(&p, done(), "user mode writes its own PTE and uses the page at once");
    check_equal(p.out.rdx, FRAME_MARK + 1, "and reads the frame");
    pte_store(pt_entry(read_cr3(), gva, 1), a | PTE_P | PTE_U);
    invlpg(gva);
    map_page(view, table | PTE_P | PTE_U);
    probe_init(&p, tables_user_edit, 3);
    p.in.rdi = view + 8;
    p.in.rsi = gva + ACCESS_OFFSET;
    struct expect wanted = page_fault(PF_P | PF_W | PF_U, view + 8);
    wanted.rip = p.in.rip + 3;
    check_probe(&p, wanted, "a table mapped read-only for user mode cannot be written there");
    check_equal(pte_load(pt_entry(read_cr3(), gva, 1)) & PTE_ADDRESS, a, "and is as it was");
}

static void check_large_view(void)
{
    u64 gva = GVA(67, 1, 1, 1), view = GVA(68, 1, 1, 0), a = marked_frame(1), b = marked_frame(2);
    u64 table = LARGE_FRAME_B + 0x30000;
    memset(gpa_pointer(table), 0, 4096);
    pte_store(pt_entry(read_cr3(), gva, 2), table | PTE_RWU);
    map_large(view, LARGE_FRAME_B | PTE_RWU);
    store64(view + 0x30000 + 8, a | PTE_RWU);
    check_equal(mark_at(gva), 1, "PTE made through a 2 MiB page that holds the table");
    store64(view + 0x31000, 77);
    store64(view + 0x30000 + 8, b | PTE_RWU);
    invlpg(gva);
    check_equal(mark_at(gva), 2, "PTE changed through the 2 MiB page");
    struct probe p;
    probe_init(&p, access_write, 3);
    p.in.rdi = view + 0x30000 + 8;
    p.in.rax = a | PTE_P | PTE_U;
    check_probe(&p, done(), "user mode changes the PTE through the 2 MiB page");
    invlpg(gva);
    check_equal(mark_at(gva), 1, "and the new frame shows");
    check_access(WRITE, 3, gva, PF_P | PF_W | PF_U, "with the new rights");
    check_equal(load64(LARGE_FRAME_B + 0x31000), 77, "a neighbour frame in the 2 MiB page took its store");
    pte_store(pt_entry(read_cr3(), gva, 2), 0);
    flush_all();
}

void group_tables(void)
{
    for (unsigned level = 2; level <= 4; level++)
        check_shared_rights(level);
    check_recursive();
    check_own_parent();
    check_reuse();
    check_rotation();
    check_user_edits();
    check_large_view();
}
