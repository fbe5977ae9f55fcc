// Paging outside long mode: 32-bit tables with and without 4 MiB pages (PSE, PSE-36), PAE with 2 MiB pages, NX and
// PDPTE registers: rights of both levels, CR0.WP, error codes, accessed and dirty bits, reserved bits, CR3 of a task.
#include "../lib32/guest32.h"

enum {
    P = 1,
    RW = 2,
    US = 4,
    A = 0x20,
    D = 0x40,
    PS = 0x80,
    ALL = P | RW | US,
    GVA = 0x800000, // what the tests look at
    GPA = 0x600000,
    CR4_PSE = 0x10,
    CR4_PAE = 0x20,
    CR0_WP = 0x10000
};
#define CR0_PG 0x80000000u
#define NX     (1ull << 63)

static u32 pd[1024] __attribute__((aligned(4096))), pt[1024] __attribute__((aligned(4096)));
static u64 pdpt[4] __attribute__((aligned(32))), pae_pd[512] __attribute__((aligned(4096))),
    pae_pt[512] __attribute__((aligned(4096)));
static struct probe p;
static bool pae;

SNIPPET(do_read, 32, "mov (%ebx), %eax\n int $0x80");
SNIPPET(do_write, 32, "mov %eax, (%ebx)\n int $0x80");
SNIPPET(do_rmw, 32, "incl (%ebx)\n int $0x80");
SNIPPET(do_jump, 32, "jmp *%ebx");

enum access { READ, WRITE, RMW, FETCH };
static const char *const access_name[] = {"read", "write", "read-modify-write", "fetch"};

static void set_nxe(bool on)
{
    u32 low, high;
    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(0xc0000080));
    __asm__ volatile("wrmsr" : : "c"(0xc0000080), "a"(on ? low | 0x800 : low & ~0x800u), "d"(high));
}

static void flush(void)
{
    write_cr3(read_cr3());
}

static void paging_off(void)
{
    write_cr0(read_cr0() & ~CR0_PG);
    write_cr4(read_cr4() & ~(u32)(CR4_PSE | CR4_PAE));
}

// The first 8 MiB one to one with large pages for everyone; GVA through one 4 KiB page.
static void tables(bool with_pae)
{
    paging_off();
    pae = with_pae;
    memset(pd, 0, sizeof pd);
    memset(pt, 0, sizeof pt);
    memset(pae_pd, 0, sizeof pae_pd);
    memset(pae_pt, 0, sizeof pae_pt);
    memset(pdpt, 0, sizeof pdpt);
    pd[0] = 0 | PS | ALL;
    pd[1] = 0x400000 | PS | ALL;
    pd[2] = (u32)pt | ALL;
    pt[0] = GPA | ALL;
    pdpt[0] = (u32)pae_pd | P;
    for (unsigned n = 0; n < 4; n++)
        pae_pd[n] = n << 21 | PS | ALL;
    pae_pd[4] = (u32)pae_pt | ALL;
    pae_pt[0] = GPA | ALL;
    write_cr4((read_cr4() & ~(u32)(CR4_PSE | CR4_PAE)) | CR4_PSE | (pae ? CR4_PAE : 0));
    write_cr3(pae ? (u32)pdpt : (u32)pd);
    write_cr0(read_cr0() | CR0_PG | CR0_WP);
}

static void set_entries(u64 upper, u64 leaf)
{
    if (pae) {
        pae_pd[4] = (u32)pae_pt | upper;
        pae_pt[0] = GPA | leaf;
    } else {
        pd[2] = (u32)pt | (u32)upper;
        pt[0] = GPA | (u32)leaf;
    }
    flush();
}

static u32 leaf_now(void)
{
    return pae ? (u32)pae_pt[0] : pt[0];
}
static u32 upper_now(void)
{
    return pae ? (u32)pae_pd[4] : pd[2];
}

static void access(enum access kind, unsigned cpl)
{
    static const void *const code[] = {do_read, do_write, do_rmw, do_jump};
    *(volatile u32 *)GPA = 0x80cd; // INT 80H, for fetches
    probe_init(&p, code[kind], cpl);
    p.in.ebx = GVA;
    p.in.eax = 0x80cd;
    probe_run(&p);
}

// The error code that rights of both levels together give, or -1.
static int model(u64 upper, u64 leaf, enum access kind, unsigned cpl, bool wp, bool nxe)
{
    bool writes = kind == WRITE || kind == RMW, user = cpl == 3;
    int error = (writes ? 2 : 0) | (user ? 4 : 0) | (kind == FETCH && pae && nxe ? 16 : 0);
    u64 both = upper & leaf;
    if (!(upper & P) || !(leaf & P))
        return error;
    if (user && !(both & US))
        return error | 1;
    if (writes && !(both & RW) && (user || wp))
        return error | 1;
    if (kind == FETCH && nxe && ((upper | leaf) & NX))
        return error | 1;
    return -1;
}

static bool one_case(u64 upper, u64 leaf, enum access kind, unsigned cpl, bool wp, bool nxe)
{
    int wanted = model(upper, leaf, kind, cpl, wp, nxe);
    set_entries(upper, leaf);
    access(kind, cpl);
    bool ok = wanted < 0 ? p.vector == 0x80 : p.vector == V_PF && p.error == (u32)wanted && p.cr2 == GVA;
    if (!ok && kind == RMW && on_tcg() && p.vector == V_PF) // it reports the read
        return true;
    if (wanted < 0) {
        bool dirty = kind == WRITE || kind == RMW;
        ok = ok && (leaf_now() & A) && (upper_now() & A) && !!(leaf_now() & D) == dirty;
    }
    return ok;
}

static void rights(bool nxe)
{
    set_nxe(nxe);
    for (unsigned wp = 0; wp < 2; wp++) {
        write_cr0((read_cr0() & ~(u32)CR0_WP) | (wp ? CR0_WP : 0));
        for (unsigned cpl = 0; cpl < 4; cpl += 3) {
            for (enum access kind = READ; kind <= FETCH; kind++) {
                unsigned bad = 0, cases = nxe ? 256 : 64;
                for (unsigned n = 0; n < cases; n++) {
                    u64 upper = (n & 7) | (n & 64 ? NX : 0), leaf = (n >> 3 & 7) | (n & 128 ? NX : 0);
                    bad += !one_case(upper, leaf, kind, cpl, wp, nxe);
                }
                check(!bad, "%s%s, WP %u, CPL %u, %s: %u of %u cases differ", pae ? "PAE" : "32-bit",
                      nxe ? " with NX" : "", wp, cpl, access_name[kind], bad, cases);
            }
        }
    }
    write_cr0(read_cr0() | CR0_WP);
    set_nxe(false);
}

static void expect_fault(u32 error, const char *what)
{
    check(p.vector == V_PF && p.error == error && p.cr2 == GVA, "%s: vector %u error 0x%x", what, p.vector, p.error);
}

// ---- large pages ----

static void large_32(void)
{
    *(volatile u32 *)(0x400000 + (GVA & 0x3fffff)) = 0x1234;
    pd[2] = 0x400000 | PS | ALL;
    flush();
    access(READ, 3);
    check(p.vector == 0x80 && p.out.eax == 0x1234, "4 MiB page");
    check_equal(pd[2] & (A | D), A, "its accessed bit");
    access(WRITE, 3);
    check_equal(pd[2] & (A | D), A | D, "its dirty bit");
    for (unsigned bit = 13; bit < 22; bit++) {
        u32 r[4];
        cpuid(0x80000008, 0, r);
        unsigned width = r[0] & 0xff;
        bool reserved = bit == 21 || bit - 13 + 32 >= width;
        pd[2] = 0x400000 | PS | ALL | 1u << bit;
        flush();
        access(READ, 0);
        if (reserved)
            check_not_tcg(p.vector == V_PF && p.error == 9, "bit %u of a 4 MiB page is reserved", bit);
        else
            check(p.vector == 0x80, "bit %u of a 4 MiB page is bit %u of its address (PSE-36)", bit, bit + 19);
    }
}

static void without_pse(void)
{
    // Everything by 4 KiB pages, with PS set and ignored in the directory.
    static u32 low[2][1024] __attribute__((aligned(4096)));
    for (unsigned n = 0; n < 2048; n++)
        low[n / 1024][n % 1024] = n << 12 | ALL;
    tables(false);
    paging_off();
    pd[0] = (u32)low[0] | PS | ALL;
    pd[1] = (u32)low[1] | ALL;
    pd[2] = (u32)pt | PS | ALL;
    write_cr0(read_cr0() | CR0_PG);
    pt[0] = GPA | ALL;
    flush();
    access(READ, 3);
    check(p.vector == 0x80, "without CR4.PSE bit 7 of a directory entry is ignored");
    paging_off();
}

static void pae_special(void)
{
    *(volatile u32 *)(0x400000) = 0x4321;
    pae_pd[4] = 0x400000 | PS | ALL;
    flush();
    access(READ, 3);
    check(p.vector == 0x80 && p.out.eax == 0x4321, "PAE: 2 MiB page");
    for (unsigned bit = 13; bit < 21; bit++) {
        pae_pd[4] = 0x400000 | PS | ALL | 1u << bit;
        flush();
        access(READ, 0);
        check_not_tcg(p.vector == V_PF && p.error == 9, "PAE: bit %u of a 2 MiB page is reserved", bit);
    }
    set_entries(ALL, ALL | NX);
    access(READ, 0);
    check_not_tcg(p.vector == V_PF && p.error == 9, "PAE: NX without NXE is reserved");
    set_entries(ALL, ALL | 1ull << 52);
    access(READ, 0);
    check_not_tcg(p.vector == V_PF && p.error == 9, "PAE: bit 52 is reserved");
    set_entries(ALL, ALL);
    // PDPTEs are registers: a change in memory is not seen before MOV CR3.
    pdpt[2] = (u32)pae_pd | P;
    *(volatile u32 *)(GVA + 0) = 0x5555;
    probe_init(&p, do_read, 0);
    p.in.ebx = 0x80000000u + GVA;
    probe_run(&p);
    check_not_tcg(p.vector == V_PF && p.error == 0, "PAE: a PDPTE is used from MOV CR3 on");
    flush();
    probe_run(&p);
    check(p.vector == 0x80 && p.out.eax == 0x5555, "PAE: then it is");
    pdpt[2] = 0;
    flush();
}

SNIPPET(load_cr3, 32, "mov %eax, %cr3\n int $0x80");

static void bad_pdptes(void)
{
    static u64 other[4] __attribute__((aligned(32)));
    static const u8 bits[] = {1, 2, 5, 6, 7, 8};
    for (unsigned k = 0; k < sizeof bits; k++) {
        memcpy(other, pdpt, sizeof other);
        other[3] = (u32)pae_pd | P | 1u << bits[k];
        probe_init(&p, load_cr3, 0);
        p.in.eax = (u32)other;
        probe_run(&p);
        check_not_tcg(p.vector == V_GP && p.error == 0, "PDPTE with bit %u: MOV CR3 is #GP", bits[k]);
        other[3] &= ~1ull;
        probe_run(&p);
        check_equal(p.vector, 0x80, "not present: it does not matter");
        flush();
        write_cr3((u32)pdpt);
    }
}

// ---- a task with its own CR3 ----

static struct tss32 task __attribute__((aligned(4096)));
static u32 other_pd[1024] __attribute__((aligned(4096)));
static u8 task_stack[1024] __attribute__((aligned(16)));
SNIPPET(task_code, 32, "mov (%ebx), %eax\n mov %cr3, %ecx\n int $0x80");
SNIPPET(task_jump, 32, "ljmp $0x40, $0");

static void task_cr3(void)
{
    memcpy(other_pd, pd, sizeof other_pd);
    other_pd[2] = 0x400000 | PS | ALL;
    *(volatile u32 *)0x400000 = 0x99887766;
    memset(&task, 0, sizeof task);
    task.esp0 = (u32)trap_stack_top;
    task.ss0 = KDS;
    task.cr3 = (u32)other_pd;
    task.eip = (u32)task_code;
    task.eflags = 2;
    task.ebx = GVA;
    task.esp = (u32)task_stack + sizeof task_stack;
    task.cs = KCS;
    task.ss = task.ds = task.es = KDS;
    gdt_set(SPARE, descriptor((u32)&task, 0x67, A_TSS32, 0));
    RUN(&p, task_jump, 0);
    check(p.vector == 0x80 && p.out.eax == 0x99887766, "a task switch loads CR3");
    check_equal(p.out.ecx, (u32)other_pd, "as MOV from CR3 shows");
    write_cr3((u32)pd);
}

void guest_main(void)
{
    tables(false);
    rights(false);
    set_entries(ALL, ALL);
    access(READ, 3);
    set_entries(ALL, 0);
    access(WRITE, 3);
    expect_fault(6, "a user's write to a page that is not present");
    large_32();
    tables(false);
    task_cr3();
    paging_off();
    without_pse();
    tables(true);
    rights(false);
    rights(true);
    pae_special();
    bad_pdptes();
    paging_off();
    finish("paging32");
}
