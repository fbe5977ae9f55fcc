// Segments and returns, gates and stacks of event delivery.
#include "testos.h"

// ---- segment loads ------------------------------------------------------------------------------------------------

enum {
    SEL_DATA = SPARE_SELECTOR,            // present, DPL 3, accessed bit clear
    SEL_NOT_PRESENT = SPARE_SELECTOR + 8, // data, DPL 3
    SEL_KERNEL = SPARE_SELECTOR + 16,     // data, DPL 0
    SEL_READ_ONLY = SPARE_SELECTOR + 24,  // data, DPL 3
    SEL_CODE = SPARE_SELECTOR + 32,       // 64-bit code, DPL 0, not present
    SEL_CODE_LD = SPARE_SELECTOR + 40,    // code with L and D both set
    SEL_BEYOND = GDT_ENTRIES * 8,
};

SNIPPET(seg_ds, "mov %ax, %ds");
SNIPPET(seg_es, "mov %ax, %es");
SNIPPET(seg_fs, "mov %ax, %fs");
SNIPPET(seg_gs, "mov %ax, %gs");
SNIPPET(seg_ss, "mov %ax, %ss");
SNIPPET(seg_lretq, "lretq");
SNIPPET(seg_iretq, "iretq");
SNIPPET(seg_ltr, "ltr %ax");
SNIPPET(seg_lldt, "lldt %ax");
SNIPPET(seg_verr, "verr %ax\n\tsetz %cl");
SNIPPET(seg_verw, "verw %ax\n\tsetz %cl");
SNIPPET(seg_lar, "lar %eax, %edx\n\tsetz %cl");
SNIPPET(seg_lsl, "lsl %eax, %edx\n\tsetz %cl");
SNIPPET(seg_reload, "mov %ax, %ds\n\tmov %ds, %ecx\n\txor %eax, %eax\n\tmov %ax, %ds\n\tmov %ds, %edx");

static void spare_descriptors(void)
{
    *gdt_entry(SEL_DATA) = 0x00cff2000000ffff;
    *gdt_entry(SEL_NOT_PRESENT) = 0x00cf72000000ffff;
    *gdt_entry(SEL_KERNEL) = 0x00cf92000000ffff;
    *gdt_entry(SEL_READ_ONLY) = 0x00cff0000000ffff;
    *gdt_entry(SEL_CODE) = 0x00af1a000000ffff;
    *gdt_entry(SEL_CODE_LD) = 0x00ef9a000000ffff;
}

struct seg_case {
    const char *name, *code;
    unsigned cpl;
    u64 selector;
    unsigned vector;
    u64 error;
};

static const struct seg_case seg_cases[] = {
    {"ds: null", seg_ds, 3, 0, VECTOR_DONE, 0},
    {"es: null with RPL 3", seg_es, 3, 3, VECTOR_DONE, 0},
    {"ds: data", seg_ds, 3, SEL_DATA | 3, VECTOR_DONE, 0},
    {"ds: beyond the GDT", seg_ds, 3, SEL_BEYOND | 3, VEC_GP, SEL_BEYOND},
    {"fs: far beyond the GDT", seg_fs, 0, 0xfff8, VEC_GP, 0xfff8},
    {"ds: in an LDT that is not there", seg_ds, 3, 0x0f, VEC_GP, 0x0c},
    {"ds: not present", seg_ds, 3, SEL_NOT_PRESENT | 3, VEC_NP, SEL_NOT_PRESENT},
    {"gs: not present, CPL 0", seg_gs, 0, SEL_NOT_PRESENT, VEC_NP, SEL_NOT_PRESENT},
    {"ds: kernel data in user mode", seg_ds, 3, SEL_KERNEL | 3, VEC_GP, SEL_KERNEL},
    {"ds: kernel data, CPL 0, RPL 3", seg_ds, 0, SEL_KERNEL | 3, VEC_GP, SEL_KERNEL},
    {"ds: a TSS", seg_ds, 0, TSS_SELECTOR, VEC_GP, TSS_SELECTOR},
    {"es: read-only data", seg_es, 3, SEL_READ_ONLY | 3, VECTOR_DONE, 0},
    {"es: readable code", seg_es, 3, USER_CS, VECTOR_DONE, 0},
    {"ss: null in user mode", seg_ss, 3, 0, VEC_GP, 0},
    {"ss: null with RPL 3 in user mode", seg_ss, 3, 3, VEC_GP, 0},
    {"ss: null at CPL 0", seg_ss, 0, 0, VECTOR_DONE, 0},
    {"ss: not present", seg_ss, 3, SEL_NOT_PRESENT | 3, VEC_SS, SEL_NOT_PRESENT},
    {"ss: read-only", seg_ss, 3, SEL_READ_ONLY | 3, VEC_GP, SEL_READ_ONLY},
    {"ss: kernel data in user mode", seg_ss, 3, SEL_KERNEL | 3, VEC_GP, SEL_KERNEL},
    {"ss: user data at CPL 0", seg_ss, 0, SEL_DATA | 3, VEC_GP, SEL_DATA},
    {"ss: RPL other than CPL", seg_ss, 3, SEL_DATA, VEC_GP, SEL_DATA},
    {"ss: code", seg_ss, 3, USER_CS, VEC_GP, USER_CS & ~3u},
    {"ltr: null", seg_ltr, 0, 0, VEC_GP, 0},
    {"ltr: data", seg_ltr, 0, SEL_KERNEL, VEC_GP, SEL_KERNEL},
    {"ltr: busy TSS", seg_ltr, 0, TSS_SELECTOR, VEC_GP, TSS_SELECTOR},
    {"lldt: null", seg_lldt, 0, 0, VECTOR_DONE, 0},
    {"lldt: data", seg_lldt, 0, SEL_KERNEL, VEC_GP, SEL_KERNEL},
};

static void check_verify(void)
{
    static const struct {
        const char *name, *code;
        u64 selector;
        bool zf;
    } verify[] = {
        {"verr of user data", seg_verr, SEL_DATA | 3, true},
        {"verr of kernel data", seg_verr, SEL_KERNEL | 3, false},
        {"verr of null", seg_verr, 0, false},
        {"verw of read-only data", seg_verw, SEL_READ_ONLY | 3, false},
        {"verw of user data", seg_verw, SEL_DATA | 3, true},
        {"lar of user code", seg_lar, USER_CS, true},
        {"lar beyond the GDT", seg_lar, SEL_BEYOND, false},
        {"lsl of user data", seg_lsl, SEL_DATA | 3, true},
        {"lsl of kernel data", seg_lsl, SEL_KERNEL | 3, false},
    };
    for (unsigned i = 0; i < sizeof verify / sizeof verify[0]; i++) {
        struct probe p;
        probe_init(&p, verify[i].code, 3);
        p.in.rax = verify[i].selector;
        probe_run(&p);
        check(p.out.vector == VECTOR_DONE && (p.out.rcx & 1) == verify[i].zf, "%s %s ZF", verify[i].name,
              verify[i].zf ? "sets" : "clears");
    }
}

static void check_far_returns(void)
{
    static const struct {
        const char *name;
        u64 cs;
        unsigned vector;
        u64 error;
    } returns[] = {
        {"to null", 0, VEC_GP, 0},
        {"to data", SEL_KERNEL, VEC_GP, SEL_KERNEL},
        {"to code that is not present", SEL_CODE, VEC_NP, SEL_CODE},
        {"beyond the GDT", SEL_BEYOND, VEC_GP, SEL_BEYOND},
        {"to code with RPL below CPL", KERNEL_CS, VEC_GP, KERNEL_CS},
        {"to code with L and D set", SEL_CODE_LD, VEC_GP, SEL_CODE_LD},
    };
    for (unsigned i = 0; i < sizeof returns / sizeof returns[0]; i++)
        for (unsigned iret = 0; iret < 2; iret++) {
            unsigned cpl = returns[i].cs == KERNEL_CS ? 3 : 0;
            if (returns[i].cs == SEL_CODE_LD && !settings.strict)
                continue;
            struct probe p;
            probe_init(&p, iret ? seg_iretq : seg_lretq, cpl);
            p.in.rsp -= 40;
            u64 *stack = (u64 *)p.in.rsp;
            stack[0] = probe_address(access_read, cpl);
            stack[1] = returns[i].cs;
            stack[2] = 2;
            stack[3] = p.in.rsp;
            stack[4] = p.in.ss;
            check_probe(&p, exception(returns[i].vector, returns[i].error), "%s %s, CPL %u", iret ? "iretq" : "lretq",
                        returns[i].name, cpl);
        }
}

static void iret_frame(struct probe *p, u64 rip, u64 cs, u64 rsp, u64 ss)
{
    probe_init(p, seg_iretq, 0);
    p->in.rsp -= 40;
    u64 *stack = (u64 *)p->in.rsp;
    stack[0] = rip;
    stack[1] = cs;
    stack[2] = 2 | 1;
    stack[3] = rsp;
    stack[4] = ss;
}

static void check_iret(void)
{
    struct probe p;
    u64 target = probe_address(seg_reload, 3);
    iret_frame(&p, target, USER_CS, USER_STACK_TOP - 0x40, USER_DS);
    p.in.rax = SEL_DATA | 3;
    probe_run(&p);
    check(p.out.vector == VECTOR_DONE && p.out.cs == USER_CS && p.out.ss == USER_DS &&
              p.out.rsp == USER_STACK_TOP - 0x40 && p.out.rcx == (SEL_DATA | 3) && p.out.rdx == 0,
          "iretq to user mode and back by int 0x80: CS, SS, RSP and DS as they should be");
    iret_frame(&p, target, USER_CS, USER_STACK_TOP - 0x40, 0);
    check_probe(&p, exception(VEC_GP, 0), "iretq to user mode with a null SS");
    iret_frame(&p, target, USER_CS, USER_STACK_TOP - 0x40, KERNEL_DS);
    check_probe(&p, exception(VEC_GP, KERNEL_DS), "iretq to user mode with a kernel SS");
    iret_frame(&p, target, USER_CS, USER_STACK_TOP - 0x40, SEL_NOT_PRESENT | 3);
    probe_run(&p); // the SDM's pseudocode says #SS, some processors raise #NP
    check((p.out.vector == VEC_SS || p.out.vector == VEC_NP) && p.out.error == SEL_NOT_PRESENT &&
              p.out.rip == p.in.rip && p.out.rsp == p.in.rsp,
          "iretq to user mode with an SS that is not present faults with its selector");
    if (settings.strict) {
        iret_frame(&p, 1ull << 47, USER_CS, USER_STACK_TOP - 0x40, USER_DS);
        probe_run(&p);
        check(p.out.vector == VEC_GP && !p.out.error, "iretq to a non-canonical address");
    }
    iret_frame(&p, probe_address(access_read, 0), KERNEL_CS, 0x123456789, KERNEL_DS);
    p.in.rdi = p.in.rsp;
    probe_run(&p);
    check(p.out.vector == VECTOR_DONE && p.out.rsp == 0x123456789 && (p.out.rflags & 1),
          "iretq at CPL 0 loads RSP as well, and the flags");
    probe_init(&p, seg_lretq, 0);
    p.in.rsp -= 32;
    u64 *stack = (u64 *)p.in.rsp;
    stack[0] = target;
    stack[1] = USER_CS;
    stack[2] = USER_STACK_TOP - 0x80;
    stack[3] = USER_DS;
    p.in.rax = SEL_DATA | 3;
    probe_run(&p);
    check(p.out.vector == VECTOR_DONE && p.out.cs == USER_CS && p.out.rsp == USER_STACK_TOP - 0x80,
          "lretq to user mode");
}

// 32-bit user code by way of a compatibility segment: mov $USER_DS, %eax; mov %eax, %ds; mov (%edi), %eax;
// add $1, %edi; dec %ecx (0x49 is REX in 64-bit mode); int $0x80. The stack and the code must be below 4 GiB.
static void check_compatibility(void)
{
    static const u8 code[] = {0xb8, USER_DS, 0, 0, 0, 0x8e, 0xd8, 0x8b, 0x07, 0x83, 0xc7, 0x01, 0x49, 0xcd, 0x80};
    u64 gva = 0x80000000, table_slot = 2, directory = frame_alloc();
    u64 *pdpt = gpa_pointer(boot_pml4[0] & PTE_ADDRESS), saved = boot_pml4[0], page = frame_alloc();
    memcpy(gpa_pointer(page), code, sizeof code);
    store64(page + 0x100, 0x1122334455667788);
    boot_pml4[0] = saved | PTE_U;
    pdpt[table_slot] = directory | PTE_RWU;
    flush_all();
    map_page(gva, page | PTE_RWU);
    struct probe p;
    probe_init(&p, access_read, 3);
    p.in.rip = gva;
    p.in.cs = USER_CS32;
    p.in.rdi = 0xffffffff80000100;
    p.in.rcx = 0x500000000;
    p.in.rsp = gva + 0x800;
    probe_run(&p);
    check(p.out.vector == VECTOR_DONE && p.out.cs == USER_CS32 && p.out.rip == gva + sizeof code,
          "32-bit user code runs in compatibility mode");
    check(p.out.rax == 0x55667788 && p.out.rdi == 0x80000101 && p.out.rcx == 0xffffffff,
          "with 32-bit addresses and operands, upper halves clear");
    if (settings.strict) {
        p.in.rip = gva + 7;
        check_probe(&p, exception(VEC_GP, 0),
                    "a load through the null DS that iretq left faults in compatibility mode");
        p.in.rip = gva;
    }
    map_page(gva, page | PTE_P | PTE_U | PTE_NX);
    probe_run(&p);
    check(p.out.vector == VEC_PF && p.out.error == (PF_P | PF_U | PF_ID) && p.cr2 == gva,
          "a no-execute page faults in compatibility mode");
    pdpt[table_slot] = 0;
    boot_pml4[0] = saved;
    flush_all();
}

void group_segments(void)
{
    spare_descriptors();
    struct probe p;
    for (unsigned i = 0; i < sizeof seg_cases / sizeof seg_cases[0]; i++) {
        if (seg_cases[i].code == seg_ltr && !seg_cases[i].selector && !settings.strict)
            continue;
        probe_init(&p, seg_cases[i].code, seg_cases[i].cpl);
        p.in.rax = seg_cases[i].selector;
        struct expect wanted = exception(seg_cases[i].vector, seg_cases[i].error);
        wanted.partial = seg_cases[i].vector == VECTOR_DONE;
        check_probe(&p, wanted, "%s", seg_cases[i].name);
    }
    check_equal(*gdt_entry(SEL_DATA) >> 40 & 1, 1, "a segment load sets the accessed bit of the descriptor");
    check_equal(*gdt_entry(SEL_NOT_PRESENT) >> 40 & 1, 0, "a load that faults does not");
    check_verify();
    check_far_returns();
    check_iret();
    check_compatibility();
}

// ---- delivery -----------------------------------------------------------------------------------------------------

SNIPPET(del_ud2, "ud2");
SNIPPET(del_int81, "int $0x81");
SNIPPET(del_int3, "int3");
SNIPPET(del_div, "div %rcx");
SNIPPET(del_read, "mov (%rdi), %rax");

// Entered through a gate: reads through RDI, which is not mapped. The first frame is then at the second one's RSP.
SNIPPET(del_faulty_handler, "mov (%rdi), %rax\n\tud2");

static void check_stacks(void)
{
    struct probe p;
    gate_set_ist(VEC_UD, IST_NONE);
    bool aligned = true, exact = true, adjacent = true;
    for (unsigned i = 0; i < 32; i++) {
        probe_init(&p, del_ud2, 0);
        p.in.rsp -= i;
        probe_run(&p);
        aligned = aligned && (p.frame_at + 40) % 16 == 0;
        exact = exact && p.out.rsp == p.in.rsp;
        adjacent = adjacent && p.frame_at + 40 == (p.in.rsp & ~15ull);
    }
    check(aligned, "delivery at CPL 0 aligns the stack to 16 bytes");
    check(exact, "and saves RSP as it was");
    check(adjacent, "and pushes right below it");
    probe_init(&p, del_ud2, 3);
    check_probe(&p, exception(VEC_UD, 0), "#UD in user mode without IST");
    check_equal(p.frame_at + 40, tss_rsp0(), "its frame is at the top of the RSP0 stack");
    check(p.out.ss == USER_DS && p.out.cs == USER_CS && p.out.rsp == p.in.rsp, "with the user's CS, SS and RSP");
    u64 frame = frame_alloc();
    tss_set_rsp0(frame + 0xff8);
    probe_init(&p, del_ud2, 3);
    probe_run(&p);
    check_equal(p.frame_at + 40, frame + 0xff0, "an RSP0 that is not aligned is aligned down");
    tss_set_rsp0(0);
    gate_set_ist(VEC_UD, IST_DONE);
    for (unsigned cpl = 0; cpl <= 3; cpl += 3) {
        probe_init(&p, del_ud2, cpl);
        probe_run(&p);
        check(p.out.vector == VEC_UD && p.frame_at + 40 == ist_top(IST_DONE), "IST stack is used from CPL %u", cpl);
    }
    gate_reset(VEC_UD);
    probe_init(&p, del_read, 0);
    p.in.rdi = TEST_GVA;
    probe_run(&p);
    check(p.out.vector == VEC_PF && p.frame_at + 40 == ist_top(IST_TRAP), "a fault with error code on an IST stack");
}

// Error code of a fault through an IDT entry of a software interrupt. TCG multiplies by 16 in long mode.
static u64 idt_error(u64 vector)
{
    return vector * (settings.strict ? 8 : 16) + 2;
}

static void check_gates(void)
{
    struct probe p;
    probe_init(&p, del_int81, 3);
    check_probe(&p, exception(VEC_GP, idt_error(0x81)), "int 0x81 in user mode, gate DPL 0");
    probe_init(&p, del_int81, 0);
    struct expect after = exception(0x81, 0);
    after.rip = p.in.rip + 2;
    check_probe(&p, after, "int 0x81 at CPL 0, gate DPL 0");
    gate_set_dpl(0x81, 3);
    probe_init(&p, del_int81, 3);
    after.rip = p.in.rip + 2;
    after.partial = true;
    check_probe(&p, after, "int 0x81 in user mode, gate DPL 3");
    gate_set_present(0x81, false);
    probe_init(&p, del_int81, 3);
    check_probe(&p, exception(VEC_NP, idt_error(0x81)), "int 0x81, gate not present");
    gate_set_dpl(0x81, 0);
    probe_init(&p, del_int81, 3);
    check_probe(&p, exception(VEC_GP, idt_error(0x81)), "int 0x81 in user mode, gate DPL 0 and not present");
    gate_reset(0x81);
    idt_set_limit(0x81 * 16 - 1);
    probe_init(&p, del_int81, 0);
    check_probe(&p, exception(VEC_GP, idt_error(0x81)), "int 0x81 beyond the IDT limit");
    idt_load_default();
    gate_set_type(0x81, 5);
    probe_init(&p, del_int81, 0);
    check_probe(&p, exception(VEC_GP, idt_error(0x81)), "int 0x81 through a descriptor that is no gate");
    gate_reset(0x81);
    gate_set_dpl(VEC_BP, 0);
    probe_init(&p, del_int3, 3);
    check_probe(&p, exception(VEC_GP, idt_error(VEC_BP)), "int3 in user mode, gate DPL 0");
    gate_reset(VEC_BP);
    for (unsigned type = 14; type <= 15; type++) {
        gate_set_type(0x81, type);
        probe_init(&p, del_int81, 0);
        p.in.rflags |= FLAG_IF | FLAG_NT;
        probe_run(&p);
        check((p.handler_flags & FLAG_IF) == (type == 15 ? FLAG_IF : 0), "%s gate %s IF",
              type == 15 ? "trap" : "interrupt", type == 15 ? "keeps" : "clears");
        check(!(p.handler_flags & FLAG_NT) && (p.out.rflags & (FLAG_NT | FLAG_IF)) == (FLAG_NT | FLAG_IF),
              "the handler has NT clear, the frame has NT and IF");
    }
    gate_reset(0x81);
}

static void check_nested(void)
{
    struct probe p;
    gate_set_handler(0x81, del_faulty_handler);
    gate_set_dpl(0x81, 3);
    probe_init(&p, del_int81, 3);
    p.in.rdi = TEST_GVA;
    probe_run(&p);
    check(p.out.vector == VEC_PF && p.out.error == 0 && p.cr2 == TEST_GVA && p.out.cs == KERNEL_CS &&
              p.out.rip == (u64)del_faulty_handler,
          "a page fault inside an interrupt handler is a supervisor fault of the handler");
    const u64 *outer = (const u64 *)p.out.rsp;
    check(p.out.rsp == tss_rsp0() - 40 && outer[0] == p.in.rip + 2 && outer[1] == USER_CS && outer[3] == p.in.rsp &&
              outer[4] == USER_DS,
          "the interrupted frame of user mode is whole below it");
    gate_reset(0x81);
}

static void check_double_faults(void)
{
    struct probe p;
    static const struct {
        const char *name, *code;
        unsigned vector;
    } cases[] = {{"#PF", del_read, VEC_PF}, {"#GP", del_read, VEC_GP}};
    for (unsigned i = 0; i < 2; i++)
        for (unsigned cpl = 0; cpl <= 3; cpl += 3) {
            gate_set_present(cases[i].vector, false);
            probe_init(&p, cases[i].code, cpl);
            p.in.rdi = cases[i].vector == VEC_PF ? TEST_GVA : 1ull << 62;
            probe_run(&p);
            check(p.out.vector == VEC_DF && p.out.error == 0 && p.frame_at + 40 == ist_top(IST_DOUBLE_FAULT),
                  "%s without a gate, CPL %u: #DF with error 0 on its own stack", cases[i].name, cpl);
            gate_reset(cases[i].vector);
        }
    gate_set_ist(VEC_GP, IST_NONE);
    tss_set_rsp0(TEST_GVA + 0x800);
    probe_init(&p, del_read, 3);
    p.in.rdi = 1ull << 62;
    probe_run(&p);
    check(p.out.vector == VEC_PF && p.out.error == PF_W && p.cr2 >= TEST_GVA + 0x7c0 && p.cr2 < TEST_GVA + 0x800 &&
              p.out.rip == p.in.rip,
          "#GP whose stack is not mapped: #PF of a supervisor write to the stack, at the same instruction");
    gate_reset(VEC_GP);
    gate_set_ist(VEC_PF, IST_NONE);
    probe_init(&p, del_read, 3);
    p.in.rdi = TEST_GVA + 0x10000;
    probe_run(&p);
    check(p.out.vector == VEC_DF && p.out.error == 0, "#PF whose stack is not mapped: #DF");
    gate_reset(VEC_PF);
    tss_set_rsp0(0);
    if (!settings.strict)
        return;
    gate_set_present(VEC_UD, false);
    probe_init(&p, del_ud2, 3);
    check_probe(&p, exception(VEC_NP, idt_error(VEC_UD) + 1), "#UD without a gate: #NP with EXT and IDT");
    gate_reset(VEC_UD);
    gate_set_present(VEC_DE, false);
    probe_init(&p, del_div, 3);
    probe_run(&p);
    check(p.out.vector == VEC_DF, "#DE without a gate: #DF");
    gate_reset(VEC_DE);
}

void group_delivery(void)
{
    check_stacks();
    check_gates();
    check_nested();
    check_double_faults();
}
