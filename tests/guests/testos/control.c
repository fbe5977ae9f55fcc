// Control register and EFER bits that change what a page permits: WP, SMEP, SMAP, NXE, PKE.
#include "testos.h"

// ---- CR0.WP -------------------------------------------------------------------------------------------------------

static void check_wp(struct path *path)
{
    u64 cr0 = read_cr0();
    static const char *const names[] = {"read-only user page", "read-only supervisor page", "read-only PDE",
                                        "read-only PML4E"};
    static const unsigned levels[] = {1, 1, 2, 4};
    for (unsigned i = 0; i < 4; i++) {
        path_set(path, levels[i], path->good[levels[i]] & ~(PTE_W | (i == 1 ? PTE_U : 0)));
        write_cr0(cr0 & ~CR0_WP);
        check_access(WRITE, 0, path->gva, -1, "WP=0, %s", names[i]);
        check(pte_load(path->entry[1]) & PTE_D, "WP=0, %s: the write set D", names[i]);
        check_access(WRITE, 3, path->gva, PF_P | PF_W | PF_U, "WP=0, %s", names[i]);
        write_cr0(cr0);
        check_access(WRITE, 0, path->gva, PF_P | PF_W, "WP=1 again, %s", names[i]);
        mark_memory(gpa_pointer(path->frame), 1);
        check_access(READ, 0, path->gva, -1, "WP=1, %s", names[i]);
        path_restore(path);
    }
}

// ---- SMEP and SMAP ------------------------------------------------------------------------------------------------

static void check_smep(struct path *path)
{
    u64 cr4 = read_cr4();
    check_access(FETCH, 0, path->gva, -1, "SMEP=0, user page");
    write_cr4(cr4 | CR4_SMEP);
    check_access(FETCH, 0, path->gva, PF_P | PF_ID, "SMEP=1, user page");
    check_access(FETCH, 3, path->gva, -1, "SMEP=1, user page");
    check_access(READ, 0, path->gva, -1, "SMEP=1, user page");
    path_set(path, 1, path->good[1] & ~PTE_U);
    check_access(FETCH, 0, path->gva, -1, "SMEP=1, supervisor PTE");
    path_restore(path);
    path_set(path, 3, path->good[3] & ~PTE_U);
    check_access(FETCH, 0, path->gva, -1, "SMEP=1, supervisor PDPTE above a user PTE");
    path_restore(path);
    write_cr4(cr4);
    check_access(FETCH, 0, path->gva, -1, "SMEP=0 again, user page");
}

SNIPPET(control_stac, "stac\n\tmov (%rdi), %rax\n\tclac\n" MARK("control_clac_read") "mov (%rdi), %rax");
extern const char control_clac_read[];
SNIPPET(control_push, "push %rax");

static void check_smap_access(struct path *path, enum access kind, u64 flags, int error, const char *what)
{
    const char *mismatch = access_mismatch(kind, 0, path->gva, flags, error);
    check(!mismatch, "SMAP=1, AC=%d, %s: supervisor %s %s%s%s", flags == FLAG_AC, what, access_names[kind],
          error < 0 ? "succeeds" : "faults", mismatch ? ": wrong " : "", mismatch ? mismatch : "");
    mark_memory(gpa_pointer(path->frame), 1);
}

static void check_smap(struct path *path)
{
    u64 cr4 = read_cr4(), cr0 = read_cr0();
    write_cr4(cr4 | CR4_SMAP);
    check_smap_access(path, READ, 0, PF_P, "user page");
    check_smap_access(path, WRITE, 0, PF_P | PF_W, "user page");
    check_smap_access(path, FETCH, 0, -1, "user page");
    check_smap_access(path, READ, FLAG_AC, -1, "user page");
    check_smap_access(path, WRITE, FLAG_AC, -1, "user page");
    check_access(READ, 3, path->gva, -1, "SMAP=1, user page");
    check_access(WRITE, 3, path->gva, -1, "SMAP=1, user page");
    mark_memory(gpa_pointer(path->frame), 1);
    path_set(path, 2, path->good[2] & ~PTE_U);
    check_smap_access(path, READ, 0, -1, "supervisor PDE above a user PTE");
    path_restore(path);
    path_set(path, 1, path->good[1] & ~PTE_W);
    check_smap_access(path, WRITE, FLAG_AC, PF_P | PF_W, "read-only user page");
    write_cr0(cr0 & ~CR0_WP);
    check_smap_access(path, WRITE, 0, PF_P | PF_W, "read-only user page with WP=0");
    check_smap_access(path, WRITE, FLAG_AC, -1, "read-only user page with WP=0");
    write_cr0(cr0);
    path_restore(path);
    struct probe p;
    probe_init(&p, control_stac, 0);
    p.in.rdi = path->gva + ACCESS_OFFSET;
    struct expect wanted = page_fault(PF_P, p.in.rdi);
    wanted.rip = (u64)control_clac_read;
    check_probe(&p, wanted, "STAC opens user pages, CLAC closes them");
    probe_init(&p, control_push, 0);
    p.in.rsp = path->gva + 0x208;
    check_probe(&p, page_fault(PF_P | PF_W, path->gva + 0x200), "SMAP=1: push to a stack in a user page");
    write_cr4(cr4);
    check_access(READ, 0, path->gva, -1, "SMAP=0 again, user page");
}

// ---- NXE ----------------------------------------------------------------------------------------------------------

// Pages of the CPL 3 stack carry NX; with NXE clear they cannot be used, so only CPL 0 is probed here.
static void check_nxe(struct path *path)
{
    u64 efer = read_msr(MSR_EFER), cr4 = read_cr4();
    path_set(path, 1, path->good[1] | PTE_NX);
    check_access(FETCH, 0, path->gva, PF_P | PF_ID, "NXE=1, NX page");
    check_access(READ, 0, path->gva, -1, "NXE=1, NX page");
    write_msr(MSR_EFER, efer & ~EFER_NXE);
    flush_all();
    check_access(READ, 0, path->gva, PF_RESERVED, "NXE=0, bit 63 set in the PTE");
    check_access(FETCH, 0, path->gva, PF_RESERVED, "NXE=0, bit 63 set in the PTE");
    path_restore(path);
    path_set(path, 4, path->good[4] | PTE_NX);
    check_access(WRITE, 0, path->gva, PF_RESERVED | PF_W, "NXE=0, bit 63 set in the PML4E");
    path_restore(path);
    check_access(FETCH, 0, path->gva, -1, "NXE=0, ordinary page");
    path_set(path, 1, path->good[1] & ~PTE_P);
    check_access(FETCH, 0, path->gva, 0, "NXE=0, page not present: no I/D bit");
    if (settings.has_smep) {
        write_cr4(cr4 | CR4_SMEP);
        check_access(FETCH, 0, path->gva, PF_ID, "NXE=0, SMEP=1, page not present: I/D bit");
        write_cr4(cr4);
    }
    write_msr(MSR_EFER, efer);
    flush_all();
    path_restore(path);
    check_access(FETCH, 0, path->gva, -1, "NXE=1 again, ordinary page");
}

void group_control(void)
{
    struct path path;
    path_make(&path, TEST_GVA, 1, marked_frame(1));
    check_wp(&path);
    if (settings.has_smep)
        check_smep(&path);
    if (settings.has_smap)
        check_smap(&path);
    check_nxe(&path);
    path_make(&path, GVA(33, 2, 3, 4), 2, LARGE_FRAME_A);
    mark_memory(gpa_pointer(path.frame), 1);
    path_set(&path, 2, path.good[2] & ~PTE_W);
    check_access(WRITE, 0, path.gva, PF_P | PF_W, "WP=1, read-only 2 MiB page");
    write_cr0(read_cr0() & ~CR0_WP);
    check_access(WRITE, 0, path.gva, -1, "WP=0, read-only 2 MiB page");
    write_cr0(read_cr0() | CR0_WP);
    check_access(WRITE, 0, path.gva, PF_P | PF_W, "WP=1 again, read-only 2 MiB page");
}

// ---- protection keys ----------------------------------------------------------------------------------------------

static void write_pkru(u32 value)
{
    __asm__ volatile("wrpkru" : : "a"(value), "c"(0), "d"(0) : "memory");
}

static u32 read_pkru(void)
{
    u32 value, zero;
    __asm__ volatile("rdpkru" : "=a"(value), "=d"(zero) : "c"(0));
    return value;
}

SNIPPET(pkeys_write_pkru, "wrpkru\n\tmov (%rdi), %rax");

struct pkey_case {
    const char *name;
    u32 pkru; // of key 5: bit 0 AD, bit 1 WD
    bool user_page, wp;
    int error[2][ACCESS_KINDS]; // [CPL 0, CPL 3]
};

static void check_pkeys(struct path *path, const char *what)
{
    enum { RP = PF_P | PF_PK, WP_ = PF_P | PF_W | PF_PK };
    static const struct pkey_case cases[] = {
        {"PKRU 0", 0, true, true, {{-1, -1, -1}, {-1, -1, -1}}},
        {"AD", 1, true, true, {{RP, WP_, -1}, {RP | PF_U, WP_ | PF_U, -1}}},
        {"WD", 2, true, true, {{-1, WP_, -1}, {-1, WP_ | PF_U, -1}}},
        {"AD and WD", 3, true, true, {{RP, WP_, -1}, {RP | PF_U, WP_ | PF_U, -1}}},
        {"WD with CR0.WP=0", 2, true, false, {{-1, -1, -1}, {-1, WP_ | PF_U, -1}}},
        {"AD with CR0.WP=0", 1, true, false, {{RP, WP_, -1}, {RP | PF_U, WP_ | PF_U, -1}}},
        {"AD and WD, supervisor page", 3, false, true, {{-1, -1, -1}, {5, 7, 0x15}}},
    };
    u64 leaf = path->good[path->leaf_level] | 5ull << 59, cr0 = read_cr0();
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        path_set(path, path->leaf_level, leaf & ~(cases[i].user_page ? 0 : PTE_U));
        write_pkru(cases[i].pkru << 10);
        if (!cases[i].wp)
            write_cr0(cr0 & ~CR0_WP);
        for (unsigned n = 0; n < 2 * ACCESS_KINDS; n++) {
            mark_memory(gpa_pointer(path->frame), 1);
            check_access(n % ACCESS_KINDS, n < ACCESS_KINDS ? 0 : 3, path->gva,
                         cases[i].error[n / ACCESS_KINDS][n % ACCESS_KINDS], "%s, key 5 %s", what, cases[i].name);
        }
        write_cr0(cr0);
    }
    write_pkru(0);
    path_restore(path);
}

void group_pkeys(void)
{
    if (!settings.has_pku) {
        note("no protection keys");
        return;
    }
    u64 cr4 = read_cr4();
    write_cr4(cr4 | CR4_PKE);
    struct path path;
    path_make(&path, TEST_GVA, 1, marked_frame(1));
    check_pkeys(&path, "4 KiB page");
    write_pkru(0xfffff3ff);
    check_equal(read_pkru(), 0xfffff3ff, "RDPKRU returns what WRPKRU wrote");
    path_set(&path, 1, path.good[1] | 5ull << 59);
    check_access(READ, 0, path.gva, -1, "all keys but 5 denied, key 5");
    path_set(&path, 1, path.good[1] | 6ull << 59);
    check_access(READ, 0, path.gva, PF_P | PF_PK, "all keys but 5 denied, key 6");
    write_pkru(0);
    path_set(&path, 1, (path.good[1] | 5ull << 59) & ~PTE_W);
    write_pkru(2u << 10);
    check_access(WRITE, 3, path.gva, PF_P | PF_W | PF_U | PF_PK, "read-only page and WD");
    write_pkru(0);
    path_restore(&path);
    path_set(&path, 1, path.good[1] | 5ull << 59);
    struct probe p;
    probe_init(&p, pkeys_write_pkru, 0);
    p.in.rdi = path.gva + ACCESS_OFFSET;
    p.in.rax = 1u << 10;
    struct expect wanted = page_fault(PF_P | PF_PK, p.in.rdi);
    wanted.rip = p.in.rip + 3;
    check_probe(&p, wanted, "the instruction after WRPKRU sees the new rights");
    write_cr4(cr4);
    check_access(READ, 3, path.gva, -1, "PKE=0, AD set in PKRU");
    write_cr4(cr4 | CR4_PKE);
    write_pkru(0);
    path_make(&path, GVA(33, 2, 3, 4), 2, LARGE_FRAME_A);
    check_pkeys(&path, "2 MiB page");
    write_cr4(cr4);
}
