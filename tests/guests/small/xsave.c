// The XSAVE family in long mode: XCR0, images of XSAVE, XSAVEOPT, XSAVEC and XSAVES, headers that XRSTOR refuses, the
// init optimisation, XINUSE by XGETBV, PKRU. What CPUID does not report is left out.
#include "verdict.h"

enum { V_UD = 6, V_NM = 7, V_GP = 13, V_PF = 14 };
enum { X87 = 1, SSE = 2, AVX = 4, PKRU = 512 };
#define CR4_OSXSAVE (1ull << 18)
#define CR4_OSFXSR  (1ull << 9)
#define CR0_TS      8ull
#define COMPACTED   (1ull << 63)

static struct verdict verdict = {.guest = "xsave"};
static struct probe p;
static u8 area[4096] __attribute__((aligned(64)));
static u64 all; // components that CPUID reports, of those that are tested here

SNIPPET(x_xgetbv, "xgetbv");
SNIPPET(x_xsetbv, "xsetbv");
SNIPPET(x_xsave, "xsave (%rbx)");
SNIPPET(x_xsave64, "xsave64 (%rbx)");
SNIPPET(x_xsaveopt, "xsaveopt (%rbx)");
SNIPPET(x_xsavec, "xsavec (%rbx)");
SNIPPET(x_xsaves, "xsaves (%rbx)");
SNIPPET(x_xrstor, "xrstor (%rbx)");
SNIPPET(x_xrstors, "xrstors (%rbx)");
SNIPPET(x_lock, ".byte 0xf0, 0x0f, 0xae, 0x23");
SNIPPET(x_avx, "vaddps %ymm0, %ymm0, %ymm0");
SNIPPET(x_rdpkru, "rdpkru");

static void run(const void *code, u64 mask, u64 at, u64 rcx, unsigned cpl)
{
    probe_init(&p, code, cpl);
    p.in.rax = (u32)mask;
    p.in.rdx = mask >> 32;
    p.in.rbx = at;
    p.in.rcx = rcx;
    probe_run(&p);
}

static void expect(u64 vector, const char *what)
{
    bool ok = p.out.vector == vector && (vector != V_GP || p.out.error == 0);
    verdict_check(&verdict, ok, what);
    if (!ok)
        print("# vector %lu error 0x%lx\n", p.out.vector, p.out.error);
}
static void equal(u64 got, u64 wanted, const char *what)
{
    verdict_equal(&verdict, got, wanted, what);
}

static u64 at64(unsigned offset)
{
    return *(volatile u64 *)(area + offset);
}
static void put64(unsigned offset, u64 value)
{
    *(volatile u64 *)(area + offset) = value;
}
static void fill(u8 byte)
{
    memset(area, byte, sizeof area);
    barrier();
}
static void xsetbv(u64 value)
{
    __asm__ volatile("xsetbv" : : "a"((u32)value), "d"((u32)(value >> 32)), "c"(0));
}
static u64 xinuse(void)
{
    run(x_xgetbv, 0, 0, 1, 0);
    return (p.out.rax & 0xffffffff) | p.out.rdx << 32;
}
static void restore(u64 mask)
{
    __asm__ volatile("xrstor (%0)" : : "r"(area), "a"((u32)mask), "d"(0) : "memory");
}
static void init_state(u64 mask) // by an image that says so
{
    memset(area, 0, 1024);
    *(u32 *)(area + 24) = 0x1f80;
    barrier();
    restore(mask);
}
static void mark_registers(void) // x87 1.0 in ST(0), XMM1 and YMM1's upper half
{
    static const u64 marks[4] __attribute__((aligned(32))) = {0x1111, 0x2222, 0x3333, 0x4444};
    __asm__ volatile("fninit\n\tfld1");
    if (all & AVX)
        __asm__ volatile("vmovdqa %0, %%ymm1" : : "m"(*(const u64(*)[4])marks));
    else
        __asm__ volatile("movdqa %0, %%xmm1" : : "m"(*(const u64(*)[4])marks));
}

// ---- who may ----

static void access(void)
{
    write_cr4(read_cr4() & ~CR4_OSXSAVE);
    run(x_xsave, 7, (u64)area, 0, 0);
    expect(V_UD, "without CR4.OSXSAVE XSAVE is undefined");
    run(x_xgetbv, 0, 0, 0, 0);
    expect(V_UD, "and XGETBV");
    run(x_xsetbv, 7, 0, 0, 0);
    expect(V_UD, "and XSETBV");
    equal(cpuid_get(1, 0).ecx >> 27 & 1, 0, "CPUID.OSXSAVE is clear");
    write_cr4(read_cr4() | CR4_OSXSAVE | CR4_OSFXSR | 0x400);
    equal(cpuid_get(1, 0).ecx >> 27 & 1, 1, "CPUID.OSXSAVE follows");
    run(x_xgetbv, 0, 0, 0, 0);
    equal(p.out.rax, X87, "XCR0 has x87 after reset");
    run(x_xsetbv, 0, 0, 0, 0);
    expect(V_GP, "XCR0 without x87");
    run(x_xsetbv, X87 | AVX, 0, 0, 0);
    expect(V_GP, "AVX without SSE");
    run(x_xsetbv, COMPACTED | 7, 0, 0, 0);
    expect(V_GP, "a bit that does not exist");
    run(x_xsetbv, X87 | 0x20, 0, 0, 0);
    expect(V_GP, "a part of AVX-512 alone");
    run(x_xsetbv, X87, 0, 1, 0);
    expect(V_GP, "XCR1 cannot be written");
    run(x_xgetbv, 0, 0, 2, 0);
    expect(V_GP, "XCR2 cannot be read");
    run(x_xsetbv, X87 | SSE, 0, 0, 3);
    expect(V_GP, "XSETBV at CPL 3");
    if (cpuid_get(0xd, 0).eax & AVX) {
        run(x_avx, 0, 0, 0, 0);
        expect(V_UD, "AVX instructions while XCR0.AVX is clear");
    }
    xsetbv(all & 7);
    run(x_avx, 0, 0, 0, 0);
    expect(all & AVX ? VECTOR_DONE : V_UD, "and while it is set");
    xsetbv(all);
    run(x_xgetbv, 0, 0, 0, 3);
    equal(p.out.rax, all, "XGETBV at CPL 3");
    run(x_lock, 7, (u64)area, 0, 0);
    expect(V_UD, "LOCK XSAVE");
    run(x_xsave, 7, (u64)area + 32, 0, 0);
    expect(V_GP, "XSAVE to an address that is not a multiple of 64");
    run(x_xrstor, 7, (u64)area + 8, 0, 0);
    expect(V_GP, "XRSTOR likewise");
    run(x_xsave, 7, 1ull << 62, 0, 0);
    expect(V_GP, "an address that is not canonical");
    write_cr0(read_cr0() | CR0_TS);
    run(x_xsave, 7, (u64)area, 0, 0);
    expect(V_NM, "XSAVE with CR0.TS");
    run(x_xrstor, 7, (u64)area, 0, 0);
    expect(V_NM, "XRSTOR with CR0.TS");
    run(x_xgetbv, 0, 0, 0, 0);
    expect(VECTOR_DONE, "XGETBV does not look at CR0.TS");
    __asm__ volatile("clts");
}

// ---- the standard format ----

static void standard(void)
{
    struct cpuid leaf = cpuid_get(0xd, 0);
    equal(leaf.ebx, all & PKRU ? cpuid_get(0xd, 9).ebx + 8 : all & AVX ? 832 : 576, "CPUID: size for XCR0");
    equal(cpuid_get(0xd, 2).ebx, all & AVX ? 576 : 0, "CPUID: AVX lies behind the header");
    mark_registers();
    fill(0xcc);
    put64(512, 0xf0);
    put64(520, 0);
    run(x_xsave, ~0ull, (u64)area, 0, 0);
    expect(VECTOR_DONE, "XSAVE");
    equal(at64(512) & 7, all & 7, "XSTATE_BV has what was asked for and is in use");
    equal(at64(512) & 0xf0, 0xf0, "other bits stay");
    equal(at64(32), 1ull << 63, "ST(0)");
    equal(at64(40) & 0xffff, 0x3fff, "its exponent");
    equal(at64(160 + 16), 0x1111, "XMM1");
    if (all & AVX)
        equal(at64(576 + 16), 0x3333, "upper half of YMM1");
    equal(area[464], 0xcc, "bytes 464 to 511 are software's");
    equal(at64(528), 0xcccccccccccccccc, "nor is the header's rest written");
    equal(area[4], 0x80, "abridged tags: R7 alone");
    fill(0xcc);
    put64(512, 0);
    run(x_xsave, X87, (u64)area, 0, 0);
    equal(at64(512), X87, "x87 alone: XSTATE_BV");
    equal(at64(24), 0xcccccccccccccccc, "MXCSR is not written");
    equal(at64(160), 0xcccccccccccccccc, "nor XMM");
    fill(0xcc);
    put64(512, 0);
    run(x_xsave, SSE, (u64)area, 0, 0);
    equal(at64(24) & 0xffffffff, 0x1f80, "SSE: MXCSR");
    equal(at64(0), 0xcccccccccccccccc, "no control word");
    fill(0xcc);
    put64(512, 0);
    if (all & AVX) {
        run(x_xsave, AVX, (u64)area, 0, 0);
        equal(at64(24) & 0xffffffff, 0x1f80, "AVX alone writes MXCSR too");
    }
    run(x_xsave64, X87, (u64)area, 0, 0);
    expect(VECTOR_DONE, "XSAVE64");
}

// ---- XINUSE, the init optimisation ----

static void initial(void)
{
    init_state(all & 7);
    if (cpuid_get(0xd, 1).eax & 4) {
        equal(xinuse() & AVX, 0, "XGETBV 1: AVX in its initial configuration");
        mark_registers();
        equal(xinuse() & 7, all & 7, "XGETBV 1: all in use");
        init_state(all & 7);
    }
    if (!(cpuid_get(0xd, 1).eax & 1))
        return;
    fill(0xcc);
    put64(512, 0xff);
    run(x_xsaveopt, all & (SSE | AVX), (u64)area, 0, 0);
    equal(at64(512) & AVX, 0, "XSAVEOPT: AVX is in its initial configuration");
    equal(at64(576), 0xcccccccccccccccc, "and not written");
    equal(at64(512) & X87, X87, "what was not asked for stays");
    mark_registers();
    fill(0xcc);
    put64(512, 0);
    run(x_xsaveopt, all & 7, (u64)area, 0, 0);
    equal(at64(512), all & 7, "XSAVEOPT: all in use");
    equal(at64(160 + 16), 0x1111, "and written");
}

// ---- XRSTOR ----

static u64 header_vector(u64 bv, u64 comp, unsigned dirty, const void *code)
{
    memset(area, 0, 1024);
    *(u32 *)(area + 24) = 0x1f80;
    put64(512, bv);
    put64(520, comp);
    if (dirty)
        area[dirty] = 1;
    barrier();
    run(code, all & 7, (u64)area, 0, 0);
    return p.out.vector;
}

static void headers(void)
{
    equal(header_vector(0, 0, 0, x_xrstor), VECTOR_DONE, "XRSTOR of an image without components");
    equal(header_vector(1ull << 62, 0, 0, x_xrstor), V_GP, "XSTATE_BV with what XCR0 has not");
    equal(header_vector(0, 1, 0, x_xrstor), V_GP, "XCOMP_BV without bit 63");
    equal(header_vector(0, 0, 528, x_xrstor), V_GP, "bytes 16 to 23 of the header");
    equal(header_vector(0, 0, 535, x_xrstor), V_GP, "up to the last");
    equal(header_vector(0, 0, 536, x_xrstor), VECTOR_DONE, "the standard format does not look at bytes 24 to 63");
    equal(header_vector(0, 0, 26, x_xrstor), V_GP, "reserved bits of MXCSR");
    if (!(cpuid_get(0xd, 1).eax & 2))
        return;
    equal(header_vector(SSE, COMPACTED | 3, 0, x_xrstor), VECTOR_DONE, "the compacted format");
    equal(header_vector(SSE, COMPACTED | 1, 0, x_xrstor), V_GP, "XSTATE_BV with what XCOMP_BV has not");
    equal(header_vector(0, COMPACTED | 1ull << 62, 0, x_xrstor), V_GP, "XCOMP_BV with what XCR0 has not");
    equal(header_vector(0, COMPACTED | 3, 536, x_xrstor), V_GP, "the compacted format looks at bytes 24 to 63");
    equal(header_vector(0, COMPACTED | 3, 575, x_xrstor), V_GP, "up to the last");
    equal(header_vector(X87, COMPACTED | 3, 26, x_xrstor), VECTOR_DONE, "MXCSR counts there with SSE alone");
    equal(header_vector(SSE, COMPACTED | 3, 26, x_xrstor), V_GP, "and then it does");
}

static void restored(void)
{
    mark_registers();
    fill(0);
    run(x_xsave, all & 7, (u64)area, 0, 0);
    put64(160 + 16, 0xabcd);
    put64(512, SSE);
    barrier();
    restore(all & 7);
    fill(0xcc);
    put64(512, 0);
    run(x_xsave, all & 7, (u64)area, 0, 0);
    equal(at64(160 + 16), 0xabcd, "XRSTOR takes what XSTATE_BV has");
    equal(at64(0) & 0xffff, 0x37f, "and initialises the rest: control word");
    equal(area[4], 0, "tags");
    if (all & AVX)
        equal(at64(576 + 16), 0, "upper halves");
    mark_registers();
    init_state(SSE);
    run(x_xsave, all & 7, (u64)area, 0, 0);
    equal(area[4], 0x80, "what is not asked for stays");
}

// ---- compaction ----

static void compacted(void)
{
    u32 sub = cpuid_get(0xd, 1).eax;
    if (!(sub & 2))
        return;
    mark_registers();
    fill(0xcc);
    run(x_xsavec, X87 | SSE, (u64)area, 0, 0);
    equal(at64(520), COMPACTED | 3, "XSAVEC: XCOMP_BV");
    equal(at64(512), 3, "XSTATE_BV is written whole");
    fill(0xcc);
    if (all & AVX) {
        run(x_xsavec, AVX, (u64)area, 0, 0);
        equal(at64(576 + 16), 0x3333, "XSAVEC: AVX behind the header");
        equal(at64(0), 0xcccccccccccccccc, "nothing else");
        equal(at64(24), 0xcccccccccccccccc, "not even MXCSR");
    }
    init_state(all & 7);
    fill(0xcc);
    run(x_xsavec, all & 7, (u64)area, 0, 0);
    equal(at64(512) & AVX, 0, "XSAVEC: the init optimisation");
    equal(at64(520), COMPACTED | (all & 7), "XCOMP_BV has it nevertheless");
    if (!(sub & 8))
        return;
    run(x_xsaves, 7, (u64)area, 0, 3);
    expect(V_GP, "XSAVES at CPL 3");
    run(x_xrstors, 7, (u64)area, 0, 3);
    expect(V_GP, "XRSTORS at CPL 3");
    mark_registers();
    fill(0);
    run(x_xsaves, all & 7, (u64)area, 0, 0);
    equal(at64(520), COMPACTED | (all & 7), "XSAVES: compacted");
    init_state(all & 7);
    fill(0);
    put64(520, 0);
    run(x_xrstors, all & 7, (u64)area, 0, 0);
    expect(V_GP, "XRSTORS refuses the standard format");
    run(x_xsaves, 0, (u64)area, 0, 0);
    equal(at64(520), COMPACTED, "XSAVES of nothing: a header");
    equal(header_vector(SSE, COMPACTED | 7, 0, x_xrstors), VECTOR_DONE, "XRSTORS");
    equal(header_vector(0, COMPACTED | 1ull << 62, 0, x_xrstors), V_GP, "XRSTORS: a component that nobody has");
}

// ---- PKRU ----

static void protection_keys(void)
{
    if (!(all & PKRU))
        return;
    unsigned at = cpuid_get(0xd, 9).ebx;
    write_cr4(read_cr4() | CR4_PKE);
    fill(0);
    *(u32 *)(area + 24) = 0x1f80;
    put64(512, PKRU);
    put64(at, 0x55555550);
    barrier();
    restore(PKRU);
    run(x_rdpkru, 0, 0, 0, 0);
    equal(p.out.rax, 0x55555550, "XRSTOR loads PKRU");
    equal(xinuse() & PKRU, PKRU, "it is in use");
    fill(0xcc);
    put64(512, 0);
    run(x_xsave, PKRU, (u64)area, 0, 0);
    equal(*(u32 *)(area + at), 0x55555550, "XSAVE stores it");
    equal(at64(512), PKRU, "XSTATE_BV");
    fill(0xcc);
    run(x_xsavec, PKRU, (u64)area, 0, 0);
    equal(*(u32 *)(area + 576), 0x55555550, "XSAVEC: behind the header");
    fill(0);
    *(u32 *)(area + 24) = 0x1f80;
    barrier();
    restore(PKRU);
    run(x_rdpkru, 0, 0, 0, 0);
    equal(p.out.rax, 0, "initialised");
    write_cr4(read_cr4() & ~CR4_PKE);
}

void guest_main(void)
{
    console_init();
    traps_init();
    paging_init();
    if (!(cpuid_get(1, 0).ecx >> 26 & 1)) {
        print("# no XSAVE\n");
        verdict_check(&verdict, true, "nothing to test");
        verdict_exit(&verdict);
    }
    all = cpuid_get(0xd, 0).eax & (X87 | SSE | AVX | PKRU);
    access();
    standard();
    initial();
    headers();
    restored();
    compacted();
    protection_keys();
    verdict_exit(&verdict);
}
