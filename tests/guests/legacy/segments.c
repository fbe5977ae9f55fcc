// Segments in protected mode: loads of every descriptor type at every privilege, LAR, LSL, VERR, VERW, ARPL, limits of
// segments that expand up and down, types, null selectors, stack sizes.
#include "../lib32/guest32.h"

enum { SEL_T = SPARE, SEL_U = SPARE + 8, BASE = 0x200000 };

static struct probe p;

SNIPPET(load_ds, 32, "mov %ax, %ds\n int $0x80");
SNIPPET(load_ss, 32, "mov %ss, %cx\n mov %ax, %ss\n mov %cx, %ss\n int $0x80");
SNIPPET(do_lar, 32, "lar %eax, %ebx\n int $0x80");
SNIPPET(do_lsl, 32, "lsl %eax, %ebx\n int $0x80");
SNIPPET(do_verr, 32, "verr %ax\n int $0x80");
SNIPPET(do_verw, 32, "verw %ax\n int $0x80");

static void run_selector(const void *code, unsigned cpl, unsigned sel)
{
    probe_init(&p, code, cpl);
    p.in.eax = sel;
    p.in.ebx = 0xdeadbeef;
    probe_run(&p);
}

static bool is_code(unsigned attr)
{
    return (attr & 0x18) == 0x18;
}
static bool is_data(unsigned attr)
{
    return (attr & 0x18) == 0x10;
}
static unsigned max(unsigned a, unsigned b)
{
    return a > b ? a : b;
}

// Vector of MOV DS, or VECTOR_DONE.
static unsigned ds_model(unsigned attr, unsigned cpl, unsigned rpl)
{
    unsigned dpl = attr >> 5 & 3;
    bool readable = is_data(attr) || (is_code(attr) && (attr & 2)), conforming = is_code(attr) && (attr & 4);
    if (!readable || (!conforming && max(cpl, rpl) > dpl))
        return V_GP;
    return attr & 0x80 ? VECTOR_DONE : V_NP;
}

static unsigned ss_model(unsigned attr, unsigned cpl, unsigned rpl)
{
    if (rpl != cpl || !is_data(attr) || !(attr & 2) || (attr >> 5 & 3u) != cpl)
        return V_GP;
    return attr & 0x80 ? VECTOR_DONE : V_SS;
}

static bool visible(unsigned attr, unsigned cpl, unsigned rpl)
{
    return (is_code(attr) && (attr & 4)) || max(cpl, rpl) <= (attr >> 5 & 3);
}

// The instructions that look at a descriptor: ZF, as the manual's tables have it.
static bool lar_model(unsigned attr, unsigned cpl, unsigned rpl)
{
    static const unsigned system = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 9 | 1 << 11 | 1 << 12;
    return ((attr & 0x10) || (system >> (attr & 15) & 1)) && visible(attr, cpl, rpl);
}
static bool lsl_model(unsigned attr, unsigned cpl, unsigned rpl)
{
    static const unsigned system = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 9 | 1 << 11;
    return ((attr & 0x10) || (system >> (attr & 15) & 1)) && visible(attr, cpl, rpl);
}
static bool verr_model(unsigned attr, unsigned cpl, unsigned rpl)
{
    return (is_data(attr) || (is_code(attr) && (attr & 2))) && visible(attr, cpl, rpl);
}
static bool verw_model(unsigned attr, unsigned cpl, unsigned rpl)
{
    return is_data(attr) && (attr & 2) && visible(attr, cpl, rpl);
}

// Whether one attribute byte behaves as the models say for both CPLs and all RPLs.
static void loads_of(unsigned attr)
{
    unsigned bad_ds = 0, bad_ss = 0, bad_accessed = 0;
    for (unsigned n = 0; n < 8; n++) {
        unsigned cpl = n & 4 ? 3 : 0, rpl = n & 3, wanted = ds_model(attr, cpl, rpl);
        gdt_set(SEL_T, descriptor(0, 0xfffff, attr, FLAT));
        run_selector(load_ds, cpl, SEL_T | rpl);
        bad_ds += p.vector != wanted || (wanted != VECTOR_DONE && p.error != SEL_T);
        unsigned now = (unsigned)(gdt[SEL_T / 8] >> 40) & 0xff;
        bad_accessed += now != (wanted == VECTOR_DONE ? attr | 1 : attr);
        gdt_set(SEL_T, descriptor(0, 0xfffff, attr, FLAT));
        run_selector(load_ss, cpl, SEL_T | rpl);
        wanted = ss_model(attr, cpl, rpl);
        bad_ss += p.vector != wanted || (wanted != VECTOR_DONE && p.error != SEL_T);
    }
    check(!bad_ds, "MOV DS of attribute 0x%x: %u cases differ", attr, bad_ds);
    check(!bad_accessed, "its accessed bit: %u cases differ", bad_accessed);
    check(!bad_ss, "MOV SS of attribute 0x%x: %u cases differ", attr, bad_ss);
}

static void looks_at(unsigned attr)
{
    const struct {
        const char *name;
        const void *code;
        bool (*model)(unsigned attr, unsigned cpl, unsigned rpl);
        u32 value;
    } all[] = {{"LAR", do_lar, lar_model, attr << 8 | 0xc00000 | 0xf0000},
               {"LSL", do_lsl, lsl_model, 0xffffffff},
               {"VERR", do_verr, verr_model, 0xdeadbeef},
               {"VERW", do_verw, verw_model, 0xdeadbeef}};
    for (unsigned k = 0; k < 4; k++) {
        unsigned bad = 0;
        for (unsigned n = 0; n < 8; n++) {
            unsigned cpl = n & 4 ? 3 : 0, rpl = n & 3;
            gdt_set(SEL_T, descriptor(0, 0xfffff, attr, FLAT));
            run_selector(all[k].code, cpl, SEL_T | rpl);
            bool zf = p.out.eflags & 0x40, wanted = all[k].model(attr, cpl, rpl);
            // LAR: the limit's bits 19:16 are not defined
            u32 value = k == 0 && wanted ? p.out.ebx | 0xf0000 : p.out.ebx;
            bad += p.vector != VECTOR_DONE || zf != wanted || value != (wanted ? all[k].value : 0xdeadbeef);
        }
        check(!bad, "%s of attribute 0x%x: %u cases differ", all[k].name, attr, bad);
    }
}

static void selectors(void)
{
    static const struct {
        unsigned sel, vector, error;
        const char *name;
    } all[] = {{0, VECTOR_DONE, 0, "null"},
               {3, VECTOR_DONE, 0, "null with RPL 3"},
               {0x200, V_GP, 0x200, "beyond the GDT"},
               {0x44, V_GP, 0x44, "in an LDT that is null"},
               {0xffff, V_GP, 0xfffc, "FFFF"}};
    for (unsigned k = 0; k < sizeof all / sizeof all[0]; k++) {
        run_selector(load_ds, 0, all[k].sel);
        check(p.vector == all[k].vector && (!p.is_error || p.error == all[k].error), "MOV DS, %s", all[k].name);
        run_selector(load_ss, 0, all[k].sel);
        unsigned error = all[k].error;
        check(p.vector == V_GP && p.error == error, "MOV SS, %s", all[k].name);
        run_selector(do_lar, 0, all[k].sel);
        check(p.vector == VECTOR_DONE && !(p.out.eflags & 0x40), "LAR of %s", all[k].name);
    }
}

// ---- limits ----

SNIPPET(read1, 32, "mov %ax, %ds\n mov (%ebx), %cl\n int $0x80");
SNIPPET(read2, 32, "mov %ax, %ds\n mov (%ebx), %cx\n int $0x80");
SNIPPET(read4, 32, "mov %ax, %ds\n mov (%ebx), %ecx\n int $0x80");
SNIPPET(write1, 32, "mov %ax, %ds\n mov %cl, (%ebx)\n int $0x80");
SNIPPET(write2, 32, "mov %ax, %ds\n mov %cx, (%ebx)\n int $0x80");
SNIPPET(write4, 32, "mov %ax, %ds\n mov %ecx, (%ebx)\n int $0x80");
SNIPPET(rmw4, 32, "mov %ax, %ds\n incl (%ebx)\n int $0x80");
SNIPPET(fs_read4, 32, "mov %ax, %fs\n mov %fs:(%ebx), %ecx\n int $0x80");

static const char *const access_code[] = {read1, read2, read4, write1, write2, write4, rmw4, fs_read4};
static const u8 access_size[] = {1, 2, 4, 1, 2, 4, 4, 4};

static bool limit_allows(unsigned attr, unsigned flags, u32 limit, u32 off, unsigned size)
{
    u64 end = flags & 8 ? ((u64)limit << 12 | 0xfff) : limit, last = (u64)off + size - 1;
    if (is_data(attr) && (attr & 4))
        return off > end && last <= (flags & SIZE32 ? 0xffffffff : 0xffff);
    return last <= end;
}

static void limits_of(const char *name, unsigned attr, unsigned flags, u32 limit)
{
    u32 edge = flags & 8 ? limit << 12 | 0xfff : limit;
    const u32 offs[] = {0,        1,        edge - 4, edge - 3, edge - 2, edge - 1, edge,
                        edge + 1, edge + 2, 0xfffc,   0xfffd,   0xffff,   0x10000};
    unsigned bad = 0;
    for (unsigned k = 0; k < sizeof access_size; k++) {
        for (unsigned n = 0; n < sizeof offs / sizeof offs[0]; n++) {
            gdt_set(SEL_T, descriptor(BASE, limit, attr, flags));
            probe_init(&p, access_code[k], 0);
            p.in.eax = SEL_T;
            p.in.ebx = offs[n];
            probe_run(&p);
            bool ok = limit_allows(attr, flags, limit, offs[n], access_size[k]);
            bool wrong = p.vector != (ok ? (unsigned)VECTOR_DONE : V_GP) || (!ok && p.error != 0);
            if (wrong)
                print("# %s offset 0x%x size %u: vector %u\n", name, offs[n], access_size[k], p.vector);
            bad += wrong;
        }
    }
    check_not_tcg(!bad, "%s: %u accesses differ", name, bad);
}

static void limits(void)
{
    limits_of("data up, bytes", 0x93, SIZE32, 0x1234);
    limits_of("data up, one byte", 0x93, SIZE32, 0);
    limits_of("data up, pages", 0x93, FLAT, 0x12);
    limits_of("data up, 16-bit", 0x93, SIZE16, 0xffff);
    limits_of("data down, 32-bit", 0x97, SIZE32, 0x1234);
    limits_of("data down, 16-bit", 0x97, SIZE16, 0x1234);
    limits_of("data down, 16-bit, all", 0x97, SIZE16, 0);
    limits_of("data down, pages", 0x97, FLAT, 0x12);
    limits_of("data down, nothing", 0x97, SIZE16, 0xffff);
}

static void types(void)
{
    static const struct {
        unsigned attr;
        bool read, write;
        const char *name;
    } all[] = {{0x91, true, false, "read-only data"},
               {0x93, true, true, "data"},
               {0x9b, true, false, "readable code"},
               {0x9f, true, false, "readable conforming code"}};
    for (unsigned k = 0; k < 4; k++) {
        gdt_set(SEL_T, descriptor(BASE, 0xffff, all[k].attr, SIZE32));
        for (unsigned n = 0; n < 7; n++) {
            probe_init(&p, access_code[n], 0);
            p.in.eax = SEL_T;
            probe_run(&p);
            bool ok = n < 3 ? all[k].read : all[k].write;
            check_not_tcg(p.vector == (ok ? (unsigned)VECTOR_DONE : V_GP) && (ok || p.error == 0), "%s, access %u",
                          all[k].name, n);
        }
    }
    for (unsigned n = 0; n < 8; n++) {
        probe_init(&p, access_code[n], 0);
        probe_run(&p); // EAX is 0
        check_not_tcg(p.vector == V_GP && p.error == 0, "null segment, access %u", n);
    }
}

// ---- CS ----

SNIPPET(read_cs, 32, "mov %cs:(%ebx), %ecx\n int $0x80");
SNIPPET(write_cs, 32, "mov %ecx, %cs:(%ebx)\n int $0x80");
SNIPPET(jump_far, 32, "ljmp *(%ebx)\n int $0x80");

static void code_segment(void)
{
    struct {
        u32 off;
        u16 sel;
    } __attribute__((packed)) target = {0, SEL_T};
    gdt_set(SEL_T, descriptor((u32)read_cs, 0xffff, 0x99, SIZE32)); // execute-only
    probe_init(&p, 0, 0);
    p.in.cs = SEL_T;
    probe_run(&p);
    check_not_tcg(p.vector == V_GP && p.error == 0, "read through CS that is execute-only");
    gdt_set(SEL_T, descriptor((u32)read_cs, 0xffff, 0x9b, SIZE32));
    probe_run(&p);
    check_equal(p.vector, VECTOR_DONE, "read through CS that is readable");
    gdt_set(SEL_T, descriptor((u32)write_cs, 0xffff, 0x9b, SIZE32));
    probe_run(&p);
    check(p.vector == V_GP && p.error == 0, "write through CS");
    for (unsigned attr = 0x80; attr < 0xa0; attr++) {
        bool system = !(attr & 0x10), ok = is_code(attr);
        if (system &&
            ((attr & 15) == 1 || (attr & 15) == 4 || (attr & 15) == 5 || (attr & 15) == 9 || (attr & 15) == 12))
            continue; // tasks and gates: the other guests
        gdt_set(SEL_T, descriptor((u32)jump_far + 2, 0xffff, attr, SIZE32));
        probe_init(&p, jump_far, 0);
        p.in.ebx = (u32)&target;
        probe_run(&p);
        check(p.vector == (ok ? (unsigned)VECTOR_DONE : V_GP) && (ok || p.error == SEL_T), "far jump to attribute 0x%x",
              attr);
    }
    static const struct {
        unsigned attr, rpl, cpl, vector;
        const char *name;
    } jumps[] = {{0x9b, 3, 0, V_GP, "RPL above CPL"},
                 {0xfb, 0, 0, V_GP, "code of DPL 3 from CPL 0"},
                 {0x9b, 0, 3, V_GP, "code of DPL 0 from CPL 3"},
                 {0x9f, 3, 3, VECTOR_DONE, "conforming code of DPL 0 from CPL 3"},
                 {0x9f, 3, 0, VECTOR_DONE, "conforming code with RPL 3 from CPL 0"},
                 {0xff, 0, 0, V_GP, "conforming code of DPL 3 from CPL 0"},
                 {0x1b, 0, 0, V_NP, "code that is not present"}};
    for (unsigned k = 0; k < sizeof jumps / sizeof jumps[0]; k++) {
        gdt_set(SEL_T, descriptor((u32)jump_far + 2, 0xffff, jumps[k].attr, SIZE32));
        target.sel = (u16)(SEL_T | jumps[k].rpl);
        probe_init(&p, jump_far, jumps[k].cpl);
        p.in.ebx = (u32)&target;
        probe_run(&p);
        check(p.vector == jumps[k].vector && (!p.is_error || p.error == SEL_T), "far jump to %s: vector %u",
              jumps[k].name, p.vector);
        if (jumps[k].vector == VECTOR_DONE)
            check_equal(p.out.cs, SEL_T | jumps[k].cpl, "its CS keeps CPL");
    }
    gdt_set(SEL_T, descriptor((u32)jump_far + 2, 0, 0x9b, SIZE32));
    target.sel = SEL_T;
    target.off = 1;
    probe_init(&p, jump_far, 0);
    p.in.ebx = (u32)&target;
    probe_run(&p);
    check(p.vector == V_GP && p.error == 0 && p.out.cs == KCS, "far jump beyond the limit");
    target.off = 0;
    probe_run(&p);
    check_not_tcg(p.vector == V_GP && p.error == 0 && p.out.cs == SEL_T, "an instruction that crosses the limit");
}

// ---- stacks ----

SNIPPET(push16, 32,
        "mov %ax, %ss\n mov $0x12340000, %esp\n push %ecx\n mov %esp, %edx\n mov $0x10, %ax\n mov %ax, %ss\n mov "
        "%ebp, %esp\n int $0x80");
SNIPPET(push_edge, 32,
        "mov %ax, %ss\n mov %edx, %esp\n push %ecx\n mov $0x10, %ax\n mov %ax, %ss\n mov %ebp, %esp\n int $0x80");
SNIPPET(ebp_read, 32, "mov %ax, %ss\n mov (%ebp), %ecx\n mov $0x10, %ax\n mov %ax, %ss\n int $0x80");

SNIPPET(do_arpl, 32, "arpl %cx, %ax\n int $0x80");

static void stacks(void)
{
    gdt_set(SEL_T, descriptor(LOW_STACK, 0xffff, A_DATA, SIZE16));
    probe_init(&p, push16, 0);
    p.in.eax = SEL_T;
    p.in.ecx = 0xcafe1234;
    p.in.ebp = p.in.esp;
    probe_run(&p);
    check_equal(p.out.edx, 0x1234fffc, "a 16-bit stack uses SP, and leaves the rest of ESP");
    check_equal(*(volatile u32 *)(LOW_STACK + 0xfffc), 0xcafe1234, "PUSH went to the top of it");
    // Faults with a bad stack end in the task of a gate here: none is made; offsets that are allowed only.
    gdt_set(SEL_T, descriptor(LOW_STACK, 0x7fff, A_DATA | 4, SIZE32)); // down, above 7FFF
    probe_init(&p, push_edge, 0);
    p.in.eax = SEL_T;
    p.in.edx = 0x8004;
    p.in.ebp = p.in.esp;
    p.in.ecx = 0x77;
    probe_run(&p);
    check_equal(*(volatile u32 *)(LOW_STACK + 0x8000), 0x77, "PUSH to the lowest place of a stack that expands down");
    gdt_set(SEL_T, descriptor(LOW_STACK, 0xfff, A_DATA | A_DPL3, SIZE32));
    probe_init(&p, ebp_read, 3);
    p.in.eax = SEL_T | 3;
    p.in.ebp = 0xffd;
    probe_run(&p);
    check_not_tcg(p.vector == V_SS && p.error == 0, "access through EBP beyond the stack segment is #SS(0)");
    for (unsigned n = 0; n < 16; n++) {
        probe_init(&p, do_arpl, n & 1 ? 3 : 0);
        p.in.eax = 0x100 | (n & 3);
        p.in.ecx = n >> 2;
        probe_run(&p);
        bool raised = (n & 3) < n >> 2;
        check((p.out.eax & 3) == (raised ? n >> 2 : (n & 3)) && !!(p.out.eflags & 0x40) == raised, "ARPL of %u with %u",
              n & 3, n >> 2);
    }
}

void guest_main(void)
{
    static const u8 dpl[] = {0, 0x60};
    for (unsigned type = 0; type < 32; type++)
        for (unsigned n = 0; n < 2; n++)
            loads_of(type | 0x80 | dpl[n]);
    for (unsigned type = 0; type < 32; type += 3)
        loads_of(type);
    for (unsigned type = 0; type < 32; type++)
        looks_at(type | 0x80 | dpl[type & 1]);
    selectors();
    limits();
    types();
    code_segment();
    stacks();
    finish("segments");
}
