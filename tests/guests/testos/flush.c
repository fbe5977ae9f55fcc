// Changes of live mappings, each followed by the flush that the SDM (volume 3, 4.10.4) asks for, or by none where none
// is needed; and several address spaces.
#include "testos.h"

enum { BY_INVLPG, BY_CR3, FLUSH_KINDS };
static const char *const flush_names[FLUSH_KINDS] = {"INVLPG", "CR3 reload"};
static const char *const entry_names[5] = {"", "PTE", "PDE", "PDPTE", "PML4E"};

static void flush_by(unsigned how, u64 gva)
{
    if (how == BY_INVLPG)
        invlpg(gva);
    else
        flush_all();
}

static u64 mark_at(u64 gva)
{
    return load64(gva + ACCESS_OFFSET) - FRAME_MARK;
}

// Fills the soft and hard TLBs with every kind of translation of the path.
static void use_all(const struct path *path)
{
    for (unsigned i = 0; i < 2 * ACCESS_KINDS; i++) {
        mark_memory(gpa_pointer(path->frame), 1);
        struct access_result r;
        access_page(&r, i % ACCESS_KINDS, i < ACCESS_KINDS ? 0 : 3, path->gva, 0);
    }
    mark_memory(gpa_pointer(path->frame), 1);
}

static void check_remap(const struct path *path, unsigned level, unsigned how)
{
    u64 other_gva = path->gva ^ (1ull << 45);
    struct path other;
    path_make(&other, other_gva, 1, marked_frame(2));
    use_all(path);
    u64 before = mark_at(path->gva);
    pte_store(path->entry[level], other.good[level]);
    flush_by(how, path->gva);
    u64 after = mark_at(path->gva);
    check(before == 1 && after == 2, "%s replaced, %s: reads see the new frame (0x%lx, 0x%lx)", entry_names[level],
          flush_names[how], before, after);
    check_access(FETCH, 3, path->gva, -1, "%s replaced, %s", entry_names[level], flush_names[how]);
    store64(path->gva + 8, 0x5555 + level);
    check_equal(load64(other.frame + 8), 0x5555 + level, "%s replaced, %s: stores reach the new frame",
                entry_names[level], flush_names[how]);
    pte_store(path->entry[level], path->good[level]);
    flush_by(how, path->gva);
    check_equal(mark_at(path->gva), 1, "%s put back, %s", entry_names[level], flush_names[how]);
}

static void check_weakening(const struct path *path, unsigned level, unsigned how)
{
    static const struct {
        const char *name;
        u64 set, clear;
        enum access kind;
        int error;
    } cases[] = {
        {"made read-only", 0, PTE_W, WRITE, PF_P | PF_W | PF_U},
        {"made supervisor", 0, PTE_U, READ, PF_P | PF_U},
        {"made no-execute", PTE_NX, 0, FETCH, PF_P | PF_U | PF_ID},
        {"made not present", 0, PTE_P, READ, PF_U},
    };
    for (unsigned i = 0; i < 4; i++) {
        use_all(path);
        pte_store(path->entry[level], (path->good[level] | cases[i].set) & ~cases[i].clear);
        flush_by(how, path->gva);
        check_access(cases[i].kind, 3, path->gva, cases[i].error, "%s %s after use, %s", entry_names[level],
                     cases[i].name, flush_names[how]);
        pte_store(path->entry[level], path->good[level]);
        flush_by(how, path->gva);
    }
}

// Rights that grow need no flush; a processor may fault once on its old copy (4.10.4.3), a coherent one may not.
static void check_growing(const struct path *path, unsigned level)
{
    static const struct {
        const char *name;
        u64 set, clear;
        enum access kind;
    } cases[] = {
        {"not present to present", 0, PTE_P, READ},
        {"read-only to writable", 0, PTE_W, WRITE},
        {"supervisor to user", 0, PTE_U, READ},
        {"no-execute to executable", PTE_NX, 0, FETCH},
    };
    for (unsigned i = 0; i < 4; i++) {
        mark_memory(gpa_pointer(path->frame), 1);
        path_set(path, level, (path->good[level] | cases[i].set) & ~cases[i].clear);
        struct access_result r;
        access_page(&r, cases[i].kind, 3, path->gva, 0);
        bool faulted = r.faulted;
        pte_store(path->entry[level], path->good[level]);
        access_page(&r, cases[i].kind, 3, path->gva, 0);
        bool spurious = r.faulted;
        if (spurious && i)
            access_page(&r, cases[i].kind, 3, path->gva, 0);
        check(faulted && !r.faulted && !(settings.coherent && spurious), "%s %s, no flush: access succeeds",
              entry_names[level], cases[i].name);
        path_restore(path);
    }
}

// ---- global pages -------------------------------------------------------------------------------------------------

static void check_global(const struct path *path, u64 second)
{
    u64 cr4 = read_cr4();
    write_cr4(cr4 | CR4_PGE);
    path_set(path, 1, path->good[1] | PTE_G);
    check_equal(mark_at(path->gva), 1, "global page is mapped");
    flush_all();
    check_equal(mark_at(path->gva), 1, "global page after a CR3 reload");
    pte_store(path->entry[1], second | PTE_RWU | PTE_G);
    invlpg(path->gva);
    check_equal(mark_at(path->gva), 2, "global page remapped, INVLPG");
    pte_store(path->entry[1], path->good[1] | PTE_G);
    write_cr4(cr4);
    check_equal(mark_at(path->gva), 1, "global page remapped, CR4.PGE cleared");
    pte_store(path->entry[1], second | PTE_RWU | PTE_G);
    write_cr4(cr4 | CR4_PGE);
    check_equal(mark_at(path->gva), 2, "global page remapped, CR4.PGE set");
    pte_store(path->entry[1], (path->good[1] | PTE_G) & ~PTE_U);
    invlpg(path->gva);
    check_access(READ, 3, path->gva, PF_P | PF_U, "global page made supervisor, INVLPG");
    check_access(READ, 0, path->gva, -1, "global page made supervisor, INVLPG");
    path_restore(path);
    pte_store(path->entry[1], second | PTE_RWU);
    flush_all();
    check_equal(mark_at(path->gva), 2, "page no longer global remapped, CR3 reload");
    write_cr4(cr4);
    path_restore(path);
}

// ---- large pages and many pages -----------------------------------------------------------------------------------

static void check_large_changes(void)
{
    struct path path;
    u64 gva = GVA(36, 2, 3, 7), base = GVA(36, 2, 3, 0);
    path_make(&path, gva, 2, LARGE_FRAME_A);
    mark_memory(gpa_pointer(LARGE_FRAME_A + 0x7000), 1);
    mark_memory(gpa_pointer(LARGE_FRAME_A), 3);
    mark_memory(gpa_pointer(LARGE_FRAME_B + 0x7000), 2);
    mark_memory(gpa_pointer(LARGE_FRAME_B), 4);
    check(mark_at(gva) == 1 && mark_at(base) == 3, "2 MiB page is mapped");
    pte_store(path.entry[2], LARGE_FRAME_B | PTE_RWU | PTE_PS);
    invlpg(base + 0x100000);
    check(mark_at(gva) == 2 && mark_at(base) == 4, "2 MiB page remapped, INVLPG elsewhere in it flushes all of it");
    u64 table = frame_alloc();
    for (unsigned i = 0; i < 512; i++)
        pte_store((u64 *)gpa_pointer(table) + i, (LARGE_FRAME_A + i * 4096ull) | PTE_RWU);
    for (unsigned how = 0; how < FLUSH_KINDS; how++) {
        pte_store(path.entry[2], table | PTE_RWU);
        invlpg(base);
        flush_by(how, gva);
        check(mark_at(gva) == 1 && mark_at(base) == 3, "2 MiB page replaced by a table, %s", flush_names[how]);
        pte_store((u64 *)gpa_pointer(table) + 7, (LARGE_FRAME_A + 0x7000) | PTE_P | PTE_U);
        flush_by(how, gva);
        check_access(WRITE, 3, gva, PF_P | PF_W | PF_U, "one page of the split made read-only, %s", flush_names[how]);
        check_access(WRITE, 3, base + 0x1000, -1, "its neighbour stays writable");
        pte_store((u64 *)gpa_pointer(table) + 7, (LARGE_FRAME_A + 0x7000) | PTE_RWU);
        pte_store(path.entry[2], LARGE_FRAME_B | PTE_RWU | PTE_PS);
        invlpg(base);
        invlpg(base + 0x1000);
        flush_by(how, gva);
        check(mark_at(gva) == 2 && mark_at(base) == 4, "table replaced by a 2 MiB page, %s", flush_names[how]);
        check_access(WRITE, 3, gva, -1, "table replaced by a 2 MiB page, %s", flush_names[how]);
        mark_memory(gpa_pointer(LARGE_FRAME_B + 0x7000), 2);
    }
}

static void check_many_pages(void)
{
    enum { COUNT = 512 };
    u64 frames = frames_alloc(COUNT, 1), gva = GVA(37, 0, 0, 0);
    u64 *entries = pt_entry(read_cr3(), gva, 1);
    for (unsigned i = 0; i < COUNT; i++)
        mark_memory(gpa_pointer(frames + i * 4096ull), i);
    bool ok = true;
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < COUNT; i++)
            pte_store(&entries[i], (frames + (i * (2 * round + 1) + round) % COUNT * 4096ull) | PTE_RWU);
        flush_all();
        for (unsigned i = 0; i < COUNT; i++)
            ok = ok && mark_at(gva + i * 4096ull) == (i * (2 * round + 1) + round) % COUNT;
    }
    check(ok, "512 pages permuted three times, CR3 reload");
    pte_store(&entries[100], (frames + 7 * 4096ull) | PTE_RWU);
    invlpg(gva + 100 * 4096ull);
    check_equal(mark_at(gva + 100 * 4096ull), 7, "one of 512 remapped, INVLPG");
    check_equal(mark_at(gva + 101 * 4096ull), (101 * 5 + 2) % COUNT, "its neighbour is as it was");
    ok = true;
    for (unsigned i = 0; i < 200; i++) {
        pte_store(&entries[5], (frames + 9 * 4096ull) | PTE_P | PTE_U | (i & 1 ? PTE_W : 0));
        invlpg(gva + 5 * 4096ull);
        mark_memory(gpa_pointer(frames + 9 * 4096ull), 9);
        ok = ok && !access_mismatch(WRITE, 3, gva + 5 * 4096ull, 0, i & 1 ? -1 : PF_P | PF_W | PF_U);
    }
    check(ok, "one page turned read-only and back 100 times, INVLPG each time");
}

SNIPPET(flush_invlpg, "invlpg (%rdi)\n\tmov (%rsi), %rax");

void group_flush(void)
{
    struct path path;
    path_make(&path, TEST_GVA, 1, marked_frame(1));
    for (unsigned how = 0; how < FLUSH_KINDS; how++)
        for (unsigned level = 1; level <= 4; level++) {
            check_remap(&path, level, how);
            check_weakening(&path, level, how);
        }
    for (unsigned level = 1; level <= 4; level++)
        check_growing(&path, level);
    mark_memory(gpa_pointer(path.frame), 1);
    check_global(&path, marked_frame(2));
    check_large_changes();
    check_many_pages();
    struct probe p;
    static const u64 addresses[] = {0x8000000000000000, 0x0000800000000000, 0, 0x00007ffffffff000};
    for (unsigned i = 0; i < 4; i++) {
        probe_init(&p, flush_invlpg, 0);
        p.in.rdi = addresses[i];
        p.in.rsi = path.gva + ACCESS_OFFSET;
        check_probe(&p, done(), "INVLPG of 0x%lx does nothing and does not fault", addresses[i]);
    }
}

// ---- several roots ------------------------------------------------------------------------------------------------

// A root that shares everything with boot_pml4 but the slots of the tests.
static u64 root_make(void)
{
    u64 root = frame_alloc(), *table = gpa_pointer(root);
    for (unsigned slot = 0; slot < 32; slot++)
        table[slot] = boot_pml4[slot];
    return root;
}

static void root_map(u64 root, u64 gva, u64 entry)
{
    pte_store(pt_entry(root, gva, 1), entry);
}

static void check_two_roots(u64 first, u64 second)
{
    u64 gva = TEST_GVA, a = marked_frame(1), b = marked_frame(2), c = marked_frame(3);
    root_map(first, gva, a | PTE_RWU);
    root_map(second, gva, b | PTE_P | PTE_U);
    write_cr3(first);
    check_equal(mark_at(gva), 1, "first root maps its frame");
    write_cr3(second);
    check_equal(mark_at(gva), 2, "second root maps another frame at the same gva");
    check_access(WRITE, 3, gva, PF_P | PF_W | PF_U, "second root maps it read-only");
    write_cr3(first);
    check_access(WRITE, 3, gva, -1, "first root maps it writable");
    mark_memory(gpa_pointer(a), 1);
    root_map(second, gva, c | PTE_RWU);
    write_cr3(second);
    check_equal(mark_at(gva), 3, "PTE of the second root changed while the first was active");
    check_access(WRITE, 3, gva, -1, "and its rights");
    pte_store(pt_entry(first, gva, 1), b | PTE_P);
    write_cr3(first);
    check_equal(mark_at(gva), 2, "PTE of the first root changed while the second was active");
    check_access(READ, 3, gva, PF_P | PF_U, "and its rights");
    u64 *top = pt_entry(second, gva, 4), saved = pte_load(top);
    pte_store(top, 0);
    write_cr3(second);
    check_access(READ, 0, gva, 0, "PML4E of the second root cleared while the first was active");
    pte_store(top, saved);
    mark_memory(gpa_pointer(c), 3);
    check_equal(mark_at(gva), 3, "PML4E put back, no flush");
    write_cr3(first);
    pte_store(pt_entry(second, gva, 1), c | PTE_RWU);
    write_cr3(second | PTE_PWT | PTE_PCD);
    check_equal(mark_at(gva), 3, "CR3 with PWT and PCD set");
    check_equal(read_cr3(), second | PTE_PWT | PTE_PCD, "CR3 reads back with PWT and PCD");
    check(pte_load(pt_entry(second, gva, 1)) & PTE_A, "A cleared while the root was not active is set again");
}

static void check_shared_subtree(u64 first, u64 second)
{
    u64 gva = GVA(40, 3, 3, 3), a = marked_frame(4), b = marked_frame(5);
    root_map(first, gva, a | PTE_RWU);
    *pt_entry(second, gva, 4) = pte_load(pt_entry(first, gva, 4)) & ~PTE_W;
    write_cr3(first);
    check_access(WRITE, 3, gva, -1, "subtree shared by two roots, writable in the first");
    mark_memory(gpa_pointer(a), 4);
    write_cr3(second);
    check_equal(mark_at(gva), 4, "subtree shared by two roots, seen in the second");
    check_access(WRITE, 3, gva, PF_P | PF_W | PF_U, "subtree shared by two roots, read-only in the second");
    pte_store(pt_entry(first, gva, 1), b | PTE_RWU);
    invlpg(gva);
    check_equal(mark_at(gva), 5, "PTE in the shared subtree changed, INVLPG");
    write_cr3(first);
    check_equal(mark_at(gva), 5, "and seen in the first root");
}

static void check_many_roots(void)
{
    enum { ROOTS = 20 };
    u64 roots[ROOTS], gva = GVA(41, 1, 1, 1), home = read_cr3();
    bool ok = true;
    for (unsigned i = 0; i < ROOTS; i++) {
        roots[i] = root_make();
        root_map(roots[i], gva, marked_frame(100 + i) | PTE_RWU);
    }
    for (unsigned i = 0; i < 3 * ROOTS; i++) {
        write_cr3(roots[i * 7 % ROOTS]);
        ok = ok && mark_at(gva) == 100 + i * 7 % ROOTS;
    }
    check(ok, "20 roots in turn, three rounds, each sees its own frame");
    ok = true;
    for (unsigned i = 0; i < ROOTS; i++)
        root_map(roots[i], gva, (pte_load(pt_entry(roots[(i + 1) % ROOTS], gva, 1)) & PTE_ADDRESS) | PTE_P);
    u64 first = pte_load(pt_entry(roots[0], gva, 1)) & PTE_ADDRESS;
    for (unsigned i = 0; i < ROOTS; i++) {
        write_cr3(roots[i]);
        ok = ok && mark_at(gva) == (i == ROOTS - 1 ? load64(first + ACCESS_OFFSET) - FRAME_MARK : 101 + i);
        ok = ok && !access_mismatch(READ, 3, gva, 0, PF_P | PF_U);
    }
    check(ok, "all 20 roots changed while inactive");
    write_cr3(home);
    for (unsigned i = 0; i < ROOTS; i++)
        memset(gpa_pointer(roots[i]), 0xff, 4096);
    u64 last = roots[3], *table = gpa_pointer(last);
    check_equal(table[511], ~0ull, "a table that was a root is plain memory again");
    memset(table, 0, 4096);
    for (unsigned slot = 0; slot < 32; slot++)
        table[slot] = boot_pml4[slot];
    root_map(last, gva, marked_frame(200) | PTE_RWU);
    write_cr3(last);
    check_equal(mark_at(gva), 200, "and a root once more");
    write_cr3(home);
}

void group_roots(void)
{
    u64 home = read_cr3(), first = root_make(), second = root_make();
    check_two_roots(first, second);
    check_shared_subtree(first, second);
    write_cr3(home);
    check_many_roots();
    struct probe p;
    probe_init(&p, access_read, 0);
    p.in.rdi = TEST_GVA;
    check_probe(&p, page_fault(0, TEST_GVA), "the first root maps nothing at the test gva any more");
    for (unsigned i = 0; i < 100; i++) {
        write_cr3(i & 1 ? first : second);
        barrier();
    }
    write_cr3(first);
    check_equal(mark_at(GVA(40, 3, 3, 3)), 5, "100 switches later the first root still maps its frame");
    write_cr3(home);
}
