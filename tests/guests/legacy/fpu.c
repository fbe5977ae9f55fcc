// x87 exceptions: masked and unmasked, #MF and IRQ 13 (CR0.NE clear), FWAIT, who waits and who does not, #NM and #UD by
// CR0.EM, MP and TS, status, control and tag words, images of the environment in 16- and 32-bit, real and virtual-8086
// mode.
#include "../lib32/guest32.h"

enum { IE = 1, DE = 2, ZE = 4, OE = 8, UE = 16, PE = 32, SF = 64, ES = 128, C1 = 512, BUSY = 0x8000 };
enum { CR0_MP = 2, CR0_EM = 4, CR0_TS = 8, CR0_NE = 32 };

static struct probe p;
static u8 image[128] __attribute__((aligned(16)));
static struct {
    float one, zero, big, tiny, negative;
    u32 denormal, snan, pad;
    double large, small;
    u32 integer;
} numbers __attribute__((aligned(16))) = {1, 0, 3e38f, 1e-38f, -4, 1, 0x7f800001, 0, 1e300, 1e-300, 12345};

// TCG implements little of this: nothing is asserted there, its departures are printed.
#define equal(got, wanted, ...)    equal_at((u32)(got), (u32)(wanted), __VA_ARGS__)
#define equal_at(got, wanted, ...) check_not_tcg((got) == (wanted), __VA_ARGS__)

// What CPUID says about the pointers: FDP is stored for unmasked exceptions only; FCS and FDS are not stored.
static bool is_fdp_rare, is_selector_gone;

static u16 fsw(void)
{
    u16 value;
    __asm__ volatile("fnstsw %0" : "=m"(value));
    return value;
}
static void fninit(void)
{
    __asm__ volatile("fninit");
}
static void fldcw(u16 fcw)
{
    __asm__ volatile("fldcw %0" : : "m"(fcw));
}
static u16 word_at(unsigned at)
{
    return *(u16 *)(image + at);
}
static u32 long_at(unsigned at)
{
    return *(u32 *)(image + at);
}

// ESI: the numbers, EBX: the image.
static void run(const void *code, u16 fcw)
{
    fninit();
    fldcw(fcw);
    probe_init(&p, code, 0);
    p.in.esi = (u32)&numbers;
    p.in.ebx = (u32)image;
    probe_run(&p);
}

#define N_ONE      "0(%esi)"
#define N_ZERO     "4(%esi)"
#define N_BIG      "8(%esi)"
#define N_TINY     "12(%esi)"
#define N_NEGATIVE "16(%esi)"
#define N_DENORMAL "20(%esi)"
#define N_SNAN     "24(%esi)"
#define N_LARGE    "32(%esi)"
#define N_SMALL    "40(%esi)"
#define N_INTEGER  "48(%esi)"

// ---- each exception: what the masked response is, and that the next waiting instruction faults if it is not masked
// ----

SNIPPET(do_ie, 32, "flds " N_NEGATIVE "\n fsqrt\n 1: fwait\n int $0x80");
SNIPPET(do_snan, 32, "flds " N_SNAN "\n fwait\n int $0x80");
SNIPPET(do_ze, 32, "flds " N_ONE "\n fdivs " N_ZERO "\n fwait\n int $0x80");
SNIPPET(do_de, 32, "flds " N_DENORMAL "\n fwait\n int $0x80");
SNIPPET(do_oe, 32, "fldl " N_LARGE "\n fstps (%ebx)\n fwait\n int $0x80");
SNIPPET(do_ue, 32, "fldl " N_SMALL "\n fstps (%ebx)\n fwait\n int $0x80");
SNIPPET(do_pe, 32,
        "flds " N_ONE "\n fld %st\n fadd %st, %st\n fadd %st(1), %st\n fdivrp %st, %st(1)\n fwait\n int $0x80");
SNIPPET(do_under, 32, "fadd %st(1), %st\n fwait\n int $0x80");
SNIPPET(do_over, 32, "fld1\n fld1\n fld1\n fld1\n fld1\n fld1\n fld1\n fld1\n fld1\n fwait\n int $0x80");

static const struct {
    const char *name, *code, *end;
    u16 mask, flags, flags_unmasked;
} kinds[] = {
    {"invalid operation", do_ie, do_ie_end, IE, IE, IE},
    {"a signalling NaN", do_snan, do_snan_end, IE, IE, IE},
    {"division by zero", do_ze, do_ze_end, ZE, ZE, ZE},
    {"a denormal operand", do_de, do_de_end, DE, DE, DE},
    {"overflow", do_oe, do_oe_end, OE, OE | PE, OE},
    {"underflow", do_ue, do_ue_end, UE, UE | PE, UE},
    {"an inexact result", do_pe, do_pe_end, PE, PE, PE},
    {"stack underflow", do_under, do_under_end, IE, IE | SF, IE | SF},
    {"stack overflow", do_over, do_over_end, IE, IE | SF, IE | SF},
};

static void each_exception(void)
{
    for (unsigned k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        run(kinds[k].code, 0x37f);
        equal(p.vector, VECTOR_DONE, "%s, masked: no fault", kinds[k].name);
        equal(fsw() & 0xff, kinds[k].flags, "%s, masked: flags", kinds[k].name);
        run(kinds[k].code, 0x37f & ~kinds[k].mask);
        check_not_tcg(p.vector == V_MF && p.out.eip == (u32)kinds[k].end - 3, "%s: #MF at FWAIT (vector %u at -%u)",
                      kinds[k].name, p.vector, (u32)kinds[k].end - p.out.eip);
        equal(fsw() & (0xff | BUSY) & ~(kinds[k].mask == OE || kinds[k].mask == UE ? (u32)PE : 0),
              kinds[k].flags_unmasked | ES | BUSY, "%s: flags, ES and B", kinds[k].name);
    }
    fninit();
}

static u16 c1_after(const void *code)
{
    run(code, 0x37f);
    return fsw() & C1;
}

static void stack_faults(void)
{
    equal(c1_after(do_under), 0, "stack underflow: C1 clear");
    equal(c1_after(do_over), C1, "stack overflow: C1 set");
    fninit();
}

// ---- unmasked exceptions leave operands alone ----

SNIPPET(keep_ze, 32, "flds " N_ONE "\n fdivs " N_ZERO "\n fnop\n int $0x80");
SNIPPET(keep_store, 32, "fldl " N_LARGE "\n fstps (%ebx)\n fnop\n int $0x80");
SNIPPET(keep_int, 32, "fldl " N_LARGE "\n fistpl (%ebx)\n fnop\n int $0x80");

static unsigned top(void)
{
    return fsw() >> 11 & 7;
}

static void operands_stay(void)
{
    run(keep_ze, 0x37b);
    check_not_tcg(p.vector == V_MF && p.out.eip == (u32)keep_ze_end - 4, "an instruction after the exception faults");
    __asm__ volatile("fnsave %0" : "=m"(image));
    check_not_tcg(long_at(28) == 0 && long_at(32) == 0x80000000 && word_at(36) == 0x3fff, "the dividend is as it was");
    *(u32 *)image = 0x55555555;
    run(keep_store, 0x377);
    check_not_tcg(p.vector == V_MF && long_at(0) == 0x55555555, "unmasked overflow stores nothing");
    equal(top(), 7, "and does not pop");
    run(keep_int, 0x37e);
    check_not_tcg(p.vector == V_MF && long_at(0) == 0x55555555, "nor does an invalid conversion to an integer");
    run(keep_int, 0x37f);
    equal(long_at(0), 0x80000000, "masked: the integer indefinite");
    equal(top(), 0, "and pops");
    fninit();
}

// ---- who waits ----

SNIPPET(w_fnop, 32, "fnop\n int $0x80");
SNIPPET(w_fld, 32, "flds " N_ONE "\n int $0x80");
SNIPPET(w_fldcw, 32, "fldcw 60(%ebx)\n int $0x80");
SNIPPET(w_fldenv, 32, "fldenv 64(%ebx)\n int $0x80");
SNIPPET(w_emms, 32, "emms\n int $0x80");
SNIPPET(w_paddb, 32, "paddb %mm0, %mm0\n int $0x80");
SNIPPET(w_fxch, 32, "fxch\n int $0x80");
SNIPPET(w_fincstp, 32, "fincstp\n int $0x80");
SNIPPET(n_fnstsw, 32, "fnstsw %ax\n int $0x80");
SNIPPET(n_fnstcw, 32, "fnstcw (%ebx)\n int $0x80");
SNIPPET(n_fnclex, 32, "fnclex\n int $0x80");
SNIPPET(n_fninit, 32, "fninit\n int $0x80");
SNIPPET(n_fnstenv, 32, "fnstenv (%ebx)\n int $0x80");
SNIPPET(n_fnsave, 32, "fnsave (%ebx)\n int $0x80");
SNIPPET(n_fxsave, 32, "int $0x80\n");
SNIPPET(n_feni, 32, ".byte 0xdb, 0xe0 /* fneni */\n .byte 0xdb, 0xe1 /* fndisi */\n int $0x80");
SNIPPET(n_nop, 32, "nop\n addps %xmm0, %xmm0\n int $0x80");

static void pend(void)
{
    fninit();
    fldcw(0x37b);
    __asm__ volatile("fld1\n\tfldz\n\tfdivrp %st, %st(1)");
}

static void run_pending(const void *code)
{
    pend();
    probe_init(&p, code, 0);
    p.in.esi = (u32)&numbers;
    p.in.ebx = (u32)image;
    probe_run(&p);
}

static void who_waits(void)
{
    static const struct {
        const char *name, *code;
        bool waits;
    } all[] = {{"FNOP", w_fnop, true},        {"FLD", w_fld, true},         {"FLDCW", w_fldcw, true},
               {"FLDENV", w_fldenv, true},    {"EMMS", w_emms, true},       {"an MMX instruction", w_paddb, true},
               {"FXCH", w_fxch, true},        {"FINCSTP", w_fincstp, true}, {"FNSTSW", n_fnstsw, false},
               {"FNSTCW", n_fnstcw, false},   {"FNCLEX", n_fnclex, false},  {"FNINIT", n_fninit, false},
               {"FNSTENV", n_fnstenv, false}, {"FNSAVE", n_fnsave, false},  {"FNENI and FNDISI", n_feni, false}};
    for (unsigned k = 0; k < sizeof all / sizeof *all; k++) {
        run_pending(all[k].code);
        check_not_tcg(p.vector == (all[k].waits ? (u32)V_MF : VECTOR_DONE) && (!all[k].waits || p.out.eip == p.in.eip),
                      "%s %s: vector %u", all[k].name, all[k].waits ? "waits" : "does not wait", p.vector);
    }
    write_cr4(read_cr4() | 0x600);
    run_pending(n_nop);
    equal(p.vector, VECTOR_DONE, "SSE instructions do not wait");
    run_pending(n_fnclex);
    equal(fsw() & (0xff | BUSY), 0, "FNCLEX clears flags, ES and B");
    run_pending(n_fnstenv);
    equal(word_at(0), 0x37b, "FNSTENV stores the control word as it was");
    u16 fcw;
    __asm__ volatile("fnstcw %0" : "=m"(fcw));
    equal(fcw, 0x37f, "then masks all exceptions");
    equal(fsw() & (0xff | BUSY), ZE, "so that nothing is pending");
    fninit();
}

// A mask that goes makes an old flag pending.
SNIPPET(unmask, 32, "fldcw 60(%ebx)\n fnop\n int $0x80");
static void masks(void)
{
    run(do_ze, 0x37f);
    *(u16 *)(image + 60) = 0x37b;
    probe_init(&p, unmask, 0);
    p.in.ebx = (u32)image;
    probe_run(&p);
    check_not_tcg(p.vector == V_MF && p.out.eip == (u32)unmask_end - 4, "FLDCW that unmasks a flag: the next waits");
    equal(fsw() & (ES | BUSY), ES | BUSY, "ES and B came with it");
    __asm__ volatile("fnclex");
    fldcw(0xffff);
    u16 fcw;
    __asm__ volatile("fnstcw %0" : "=m"(fcw));
    equal(fcw & 0xe0c0, 0x40, "control word: reserved bits are not kept, bit 6 reads 1");
    fninit();
}

// ---- CR0.EM, MP, TS ----

SNIPPET(t_fwait, 32, "fwait\n int $0x80");
SNIPPET(t_movaps, 32, "movaps %xmm0, %xmm0\n int $0x80");

static unsigned with_cr0(u32 bits, const void *code)
{
    u32 old = read_cr0();
    probe_init(&p, code, 0);
    p.in.esi = (u32)&numbers;
    p.in.ebx = (u32)image;
    write_cr0((old & ~(CR0_EM | CR0_MP | CR0_TS)) | bits);
    probe_run(&p);
    write_cr0(old);
    return p.vector;
}

static void control_bits(void)
{
    fninit();
    for (unsigned bits = 0; bits < 16; bits += 2) {
        bool em = bits & CR0_EM, ts = bits & CR0_TS, mp = bits & CR0_MP;
        equal(with_cr0(bits, w_fnop), em || ts ? (u32)V_NM : VECTOR_DONE, "x87 with CR0 bits %x", bits);
        equal(with_cr0(bits, t_fwait), mp && ts ? (u32)V_NM : VECTOR_DONE, "FWAIT with CR0 bits %x", bits);
        equal(with_cr0(bits, w_emms), em ? (u32)V_UD : ts ? (u32)V_NM : VECTOR_DONE, "MMX with CR0 bits %x", bits);
        equal(with_cr0(bits, t_movaps), em ? (u32)V_UD : ts ? (u32)V_NM : VECTOR_DONE, "SSE with CR0 bits %x", bits);
    }
    pend();
    equal(with_cr0(CR0_TS, w_fnop), V_NM, "#NM before #MF: x87");
    equal(with_cr0(CR0_TS | CR0_MP, t_fwait), V_NM, "#NM before #MF: FWAIT");
    equal(with_cr0(CR0_TS, w_paddb), V_NM, "#NM before #MF: MMX");
    equal(with_cr0(CR0_EM, w_paddb), V_UD, "#UD before #MF: MMX");
    equal(with_cr0(CR0_TS, n_fninit), V_NM, "instructions that do not wait have #NM too");
    fninit();
}

// ---- tags and environment images ----

SNIPPET(tags, 32, "fld1\n fldz\n flds " N_SNAN "\n flds " N_DENORMAL "\n fnstenv (%ebx)\n int $0x80");
SNIPPET(env32, 32, "flds " N_ONE "\n fadds " N_ONE "\n fnstenv (%ebx)\n int $0x80");
SNIPPET(env16, 32, "flds " N_ONE "\n fadds " N_ONE "\n .byte 0x66\n fnstenv (%ebx)\n int $0x80");
SNIPPET(low32, 16, "flds 0x100\n fadds 0x100\n .byte 0x66\n fnstenv 0x200\n int $0x80");
SNIPPET(low16, 16, "flds 0x100\n fadds 0x100\n fnstenv 0x200\n int $0x80");
SNIPPET(save16, 16, "fld1\n fnsave 0x200\n frstor 0x200\n fnsave 0x280\n int $0x80");
SNIPPET(reload, 32, "fldenv (%ebx)\n fnstenv 64(%ebx)\n int $0x80");

static void run_low(bool real)
{
    fninit();
    *(float *)(LOW_DATA + 0x100) = 1;
    memset((void *)(LOW_DATA + 0x200), 0, 256);
    if (real) {
        real_init(&p);
        real_run(&p);
    } else {
        v86_init(&p, F_IOPL);
        probe_run(&p);
    }
    memcpy(image, (void *)(LOW_DATA + 0x200), 128);
    equal(p.vector, VECTOR_DONE, "16-bit code in %s mode runs", real ? "real" : "virtual-8086");
}

static void low_images(bool real)
{
    const char *name = real ? "real mode" : "virtual-8086 mode";
    low_copy(low32);
    run_low(real);
    check_not_tcg(word_at(0) == 0x37f && word_at(4) == 0x3800 && word_at(8) == 0x3fff, "%s, 32 bits: words", name);
    equal(word_at(12), ((LOW_CODE & 0xffff) + 4) & 0xffff, "%s, 32 bits: lower half of the instruction's address",
          name);
    if (!is_selector_gone)
        equal(long_at(16) & 0x0ffff000, LOW_CODE >> 16 << 12, "%s, 32 bits: upper half", name);
    if (!is_fdp_rare)
        equal(word_at(20), 0x100, "%s, 32 bits: lower half of the operand's address", name);
    if (!is_fdp_rare && !is_selector_gone)
        equal(long_at(24) & 0x0ffff000, LOW_DATA >> 16 << 12, "%s, 32 bits: upper half", name);
    low_copy(low16);
    run_low(real);
    check_not_tcg(word_at(0) == 0x37f && word_at(2) == 0x3800 && word_at(4) == 0x3fff, "%s, 16 bits: words", name);
    equal(word_at(6), (LOW_CODE & 0xffff) + 4, "%s, 16 bits: lower 16 bits of the instruction's address", name);
    if (!is_selector_gone)
        equal(word_at(8) & 0xf000, LOW_CODE >> 16 << 12, "%s, 16 bits: bits 16 to 19", name);
    if (!is_fdp_rare)
        equal(word_at(10), 0x100, "%s, 16 bits: lower 16 bits of the operand's address", name);
    if (!is_fdp_rare && !is_selector_gone)
        equal(word_at(12), LOW_DATA >> 16 << 12, "%s, 16 bits: bits 16 to 19", name);
    equal(word_at(14), 0, "%s, 16 bits: 14 bytes", name);
    low_copy(save16);
    run_low(real);
    equal(word_at(14 + 8), 0x3fff, "%s: FNSAVE of 94 bytes has ST(0) at 14", name);
    check_not_tcg(word_at(0x80 - 0x80) == 0x37f && *(u16 *)(LOW_DATA + 0x280 + 14 + 8) == 0x3fff,
                  "%s: FRSTOR brings it back", name);
}

static void images(void)
{
    memset(image, 0, sizeof image);
    run(tags, 0x37f);
    equal(long_at(8), 0xffff18ff, "tags: valid 0, zero 1, special 2, empty 3");
    run(env32, 0x37f);
    equal(long_at(0), 0xffff037f, "32 bits: control word");
    equal(long_at(4), 0xffff3800, "32 bits: status word");
    equal(long_at(8), 0xffff3fff, "32 bits: tag word");
    check_not_tcg(long_at(12) == (u32)env32 + 2, "32 bits: instruction offset");
    check_not_tcg(word_at(16) == (is_selector_gone ? 0 : KCS), "32 bits: instruction selector %x", word_at(16));
    if (!is_fdp_rare)
        check_not_tcg(long_at(20) == (u32)&numbers, "32 bits: operand offset");
    check_not_tcg(word_at(24) == (is_selector_gone ? 0 : KDS), "32 bits: operand selector %x", word_at(24));
    memset(image, 0, sizeof image);
    run(env16, 0x37f);
    check_not_tcg(word_at(0) == 0x37f && word_at(2) == 0x3800 && word_at(4) == 0x3fff, "16 bits: words");
    check_not_tcg(word_at(6) == (u16)((u32)env16 + 2), "16 bits: instruction offset");
    if (!is_fdp_rare)
        check_not_tcg(word_at(10) == (u16)(u32)&numbers, "16 bits: operand offset");
    equal(word_at(14), 0, "16 bits: 14 bytes");
    memset(image, 0, sizeof image);
    *(u32 *)image = 0x037b;
    *(u32 *)(image + 4) = ZE | 0x2800;
    *(u32 *)(image + 8) = 0x5555;
    run(reload, 0x37f);
    equal(word_at(64 + 4), ZE | ES | BUSY | 0x2800, "FLDENV of an unmasked flag: ES and B follow");
    check_not_tcg(!(word_at(64 + 8) & word_at(64 + 8) >> 1 & 0x5555), "FLDENV: no register is empty (tags %x)",
                  word_at(64 + 8));
    *(u32 *)(image + 8) = 0xffff;
    run(reload, 0x37f);
    equal(word_at(64 + 8), 0xffff, "FLDENV: all are empty");
    fninit();
    low_images(true);
    low_images(false);
}

// ---- FERR#, IRQ 13, IGNNE# ----

SNIPPET(ferr_wait, 32, "sti\n nop\n fwait\n int $0x80");
SNIPPET(ferr_ignored, 32, "fwait\n fld1\n fnop\n int $0x80");

enum { IRQ13_VECTOR = 0x7d };

static void pic_open(void)
{
    static const u8 words[][2] = {{0x20, 0x11}, {0xa0, 0x11}, {0x21, 0x70}, {0xa1, 0x78}, {0x21, 4},
                                  {0xa1, 2},    {0x21, 1},    {0xa1, 1},    {0x21, 0xfb}, {0xa1, 0xdf}};
    for (unsigned k = 0; k < sizeof words / 2; k++)
        outb(words[k][0], words[k][1]);
}

static void irq13(void)
{
    u32 cr0 = read_cr0();
    if (on_tcg()) { // FERR# makes QEMU 7.2 abort
        print("# departs: IRQ 13\n");
        return;
    }
    fninit();
    pic_open();
    write_cr0(cr0 & ~CR0_NE);
    pend();
    probe_init(&p, ferr_wait, 0);
    probe_run(&p);
    check_not_tcg(p.vector == IRQ13_VECTOR, "CR0.NE clear: IRQ 13 (vector %x)", p.vector);
    equal(p.out.eip, (u32)ferr_wait + 2, "in front of the instruction that waits");
    equal(fsw() & (ES | ZE), ES | ZE, "the exception is still there");
    outb(0xf0, 0);
    probe_init(&p, ferr_ignored, 0);
    probe_run(&p);
    equal(p.vector, VECTOR_DONE, "after a write to port 0xf0 instructions run in spite of it");
    outb(0x20, 0x20);
    outb(0xa0, 0x20);
    __asm__ volatile("fnclex");
    probe_init(&p, ferr_wait, 0);
    probe_run(&p);
    equal(p.vector, VECTOR_DONE, "FNCLEX ends it: no further request");
    pend();
    probe_init(&p, ferr_wait, 0);
    probe_run(&p);
    equal(p.vector, IRQ13_VECTOR, "the next exception asks again");
    outb(0xf0, 0);
    outb(0x20, 0x20);
    outb(0xa0, 0x20);
    write_cr0(cr0 | CR0_NE);
    probe_init(&p, t_fwait, 0);
    probe_run(&p);
    equal(p.vector, V_MF, "with CR0.NE port 0xf0 changes nothing: #MF");
    __asm__ volatile("fnclex");
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
}

void guest_main(void)
{
    u32 r[4];
    cpuid(7, 0, r);
    is_fdp_rare = r[1] >> 6 & 1;
    is_selector_gone = r[1] >> 13 & 1;
    each_exception();
    stack_faults();
    operands_stay();
    who_waits();
    masks();
    control_bits();
    images();
    irq13();
    finish("fpu");
}
