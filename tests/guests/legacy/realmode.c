// Real mode: interrupts, limits, wrap-around of offsets and of addresses (A20), "unreal" segments, what exists there at
// all, far transfers, string instructions at the end of a segment.
#include "../lib32/guest32.h"

static struct probe p;

#define LOW16(off) (*(volatile u16 *)(LOW_DATA + (off)))
#define STACK16(n) (((volatile u16 *)(LOW_STACK + LOW_SP))[n])

static void run(const void *code, u32 len)
{
    low_copy_bytes(code, len);
    real_run(&p);
}
#define RUN16(name) (real_init(&p), run(name, (u32)(name##_end - name)))

SNIPPET(end, 16, "int $0x80");
SNIPPET(flags, 16, "pushfw\n popw %ax\n int $0x80");
SNIPPET(div0, 16, "nop\n div %cl");
SNIPPET(bound, 16, "bound %ax, 0");
SNIPPET(into, 16, "mov $0x7fff, %ax\n inc %ax\n into");
SNIPPET(int3, 16, "nop\n int3");
SNIPPET(ud, 16, "nop\n ud2");
SNIPPET(int1, 16, "nop\n .byte 0xf1");

static void vectors(void)
{
    real_init(&p);
    p.in.eax = 0x11112222, p.in.ecx = 0x33334444, p.in.edx = 0x55556666, p.in.ebx = 0x77778888, p.in.ebp = 0x9999aaaa;
    p.in.esi = 0xbbbbcccc, p.in.edi = 0xddddeeee, p.in.es = 0x1111, p.in.fs = 0x2222, p.in.gs = 0x3333;
    p.in.eflags = F_IF | F_CF | 2;
    run(end, (u32)(end_end - end));
    check_equal(p.vector, 0x80, "INT 80H");
    check(p.out.eip == 2 && p.out.cs == LOW_SEG, "CS:IP behind it");
    check_equal(p.out.eflags, F_IF | F_CF | 2, "FLAGS pushed");
    check_equal(p.handler_flags & (F_IF | F_TF), 0, "IF and TF are clear in the handler");
    check(p.out.eax == 0x11112222 && p.out.edi == 0xddddeeee && p.out.ebp == 0x9999aaaa, "32-bit registers");
    check(p.out.es == 0x1111 && p.out.fs == 0x2222 && p.out.gs == 0x3333 && p.out.ds == LOW_DS, "segment registers");
    check(p.out.esp == LOW_SP && p.out.ss == LOW_SS, "SS:SP");
    RUN16(div0);
    check(p.vector == V_DE && p.out.eip == 1, "DIV by 0: IP of the instruction");
    real_init(&p);
    p.in.eax = 5;
    LOW16(0) = 1, LOW16(2) = 4;
    run(bound, (u32)(bound_end - bound));
    check(p.vector == V_BR && p.out.eip == 0, "BOUND");
    RUN16(into);
    check(p.vector == V_OF && p.out.eip == 5, "INTO: IP behind it");
    RUN16(int3);
    check(p.vector == V_BP && p.out.eip == 2, "INT3");
    RUN16(ud);
    check(p.vector == V_UD && p.out.eip == 1, "UD2");
    RUN16(int1);
    check_not_tcg(p.vector == V_DB && p.out.eip == 2, "INT1");
    real_init(&p);
    p.in.eflags |= F_TF;
    low_copy_bytes("\x90\x90\xcd\x80", 4);
    real_run(&p);
    check(p.vector == V_DB && p.out.eip == 1 && (p.out.eflags & F_TF), "single step");
    real_init(&p);
    p.in.eflags |= F_IOPL | F_NT;
    run(flags, (u32)(flags_end - flags));
    check_equal(p.out.eax & 0xffff, F_IOPL | F_NT | 2, "IOPL and NT are ordinary bits");
}

SNIPPET(load_w, 16, "mov (%bx), %ax\n int $0x80");
SNIPPET(load_d, 16, "mov (%bx), %eax\n int $0x80");
SNIPPET(load_b, 16, "mov (%bx), %al\n int $0x80");
SNIPPET(load_32, 16, "mov (%ebx), %al\n int $0x80");
SNIPPET(load_ss, 16, "mov %ss:(%bx), %ax\n int $0x80");
SNIPPET(store_w, 16, "mov %ax, (%bx)\n int $0x80");
SNIPPET(load_cs, 16, "mov %cs:(%bx), %ax\n int $0x80");
SNIPPET(store_cs, 16, "mov %ax, %cs:0x1000\n int $0x80");
SNIPPET(fs_based, 16, "mov %fs:2(%bx,%si), %ax\n int $0x80");

static void limit(const void *code, u32 len, u32 ebx, unsigned vector, const char *what)
{
    real_init(&p);
    p.in.ebx = ebx;
    run(code, len);
    check_not_tcg(p.vector == vector && (vector == 0x80 || p.out.eip == 0), "%s: vector %u", what, p.vector);
}
#define LIMIT(code, ebx, vector, what) limit(code, (u32)(code##_end - code), ebx, vector, what)

static void limits(void)
{
    LIMIT(load_b, 0xffff, 0x80, "byte at FFFF");
    LIMIT(load_w, 0xfffe, 0x80, "word at FFFE");
    LIMIT(load_w, 0xffff, V_GP, "word at FFFF");
    LIMIT(load_d, 0xfffc, 0x80, "doubleword at FFFC");
    LIMIT(load_d, 0xfffd, V_GP, "doubleword at FFFD");
    LIMIT(store_w, 0xffff, V_GP, "store of a word at FFFF");
    LIMIT(load_ss, 0xffff, V_SS, "word at SS:FFFF");
    LIMIT(load_cs, 0xffff, V_GP, "word at CS:FFFF");
    LIMIT(store_cs, 0, 0x80, "CS may be written");
    LIMIT(load_32, 0xffff, 0x80, "32-bit address FFFF");
    LIMIT(load_32, 0x10000, V_GP, "32-bit address 10000");
    LIMIT(load_32, 0xffffffff, V_GP, "32-bit address FFFFFFFF");
    real_init(&p);
    *(volatile u16 *)0x12352 = 0xfeed;
    p.in.fs = 0x1234;
    p.in.ebx = 0xfff0, p.in.esi = 0x20;
    run(fs_based, (u32)(fs_based_end - fs_based));
    check_equal(p.out.eax & 0xffff, 0xfeed, "a 16-bit address wraps in its segment");
}

SNIPPET(jump_32, 16, ".byte 0x66, 0xe9\n .long 0x10000\n int $0x80");

static void instruction_pointer(void)
{
    LIMIT(jump_32, 0, V_GP, "32-bit jump beyond FFFF");
    if (on_tcg()) // it never returns from beyond the segment
        return;
    // NOP at FFFF: the next instruction would be at 10000.
    low_copy(end);
    memset((void *)(LOW_CODE + 0xfff0), 0x90, 16);
    *(volatile u16 *)(LOW_CODE + 0x10000) = 0x80cd;
    real_init(&p);
    p.in.eip = 0xffff;
    real_run(&p);
    check_not_tcg(p.vector == V_GP, "running off the end of the segment: vector %u", p.vector);
    // An instruction of two bytes that begins at FFFF.
    *(volatile u8 *)(LOW_CODE + 0xffff) = 0xcd;
    real_run(&p);
    check_not_tcg(p.vector == V_GP && p.out.eip == 0xffff, "an instruction that crosses the end: vector %u", p.vector);
    low_copy_bytes("\xcd\x80", 2);
    memcpy((void *)(LOW_CODE + 0xfffd), "\xe9\x00\x00", 3); // JMP to 10000, cut to 0
    real_init(&p);
    p.in.eip = 0xfffd;
    real_run(&p);
    check(p.vector == 0x80 && p.out.eip == 2, "a 16-bit jump wraps");
    low_copy_bytes("\x90\x90\xeb\xfe", 4);
    memcpy((void *)LOW_CODE, "\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x90", 16);
    real_init(&p);
    real_run(&p);
    check(p.vector == V_GP && p.out.eip == 0, "an instruction of 16 bytes");
    low_copy_bytes("\xf0\x90", 2);
    real_run(&p);
    check(p.vector == V_UD && p.out.eip == 0, "LOCK NOP");
    low_copy_bytes("\x8e\xc8", 2);
    real_run(&p);
    check(p.vector == V_UD && p.out.eip == 0, "MOV CS, AX");
}

// Reads FFFF:0010 with A20 on, off, and on again; nothing but low memory is touched while it is off.
SNIPPET(a20, 16,
        "mov $0xffff, %ax\n mov %ax, %ds\n mov 0x510, %bx\n in $0x92, %al\n and $0xfd, %al\n out %al, $0x92\n"
        "mov 0x510, %cx\n in $0x92, %al\n or $2, %al\n out %al, $0x92\n mov 0x510, %dx\n int $0x80");

static void a20_line(void)
{
    volatile u16 *low = (volatile u16 *)0x500, *high = (volatile u16 *)0x100500;
    u16 kept = *high;
    *low = 0x1111;
    *high = 0x2222;
    RUN16(a20);
    check_equal(p.out.ebx & 0xffff, 0x2222, "FFFF:0510 with A20 is above 1 MiB");
    check_equal(p.out.ecx & 0xffff, 0x1111, "without A20 it is at 500");
    check_equal(p.out.edx & 0xffff, 0x2222, "and above again with it");
    *high = kept;
}

// DS gets a limit of 4 GiB in protected mode and keeps it.
SNIPPET(unreal, 16,
        "mov %cr0, %eax\n or $1, %al\n mov %eax, %cr0\n jmp 1f\n 1: mov $0x10, %cx\n mov %cx, %ds\n and $0xfe, %al\n"
        "mov %eax, %cr0\n jmp 1f\n 1: mov (%ebx), %esi\n mov $0x4000, %ax\n mov %ax, %ds\n mov $0x100000, %ebp\n mov "
        "%ds:(%ebp), %edi\n int $0x80");

static volatile u32 high_word = 0xabcd1234;

static void unreal_mode(void)
{
    real_init(&p);
    p.in.ebx = (u32)&high_word;
    *(volatile u32 *)(LOW_DATA + 0x100000) = 0x5678;
    u32 kept = *(volatile u32 *)(LOW_DATA + 0x100000);
    run(unreal, (u32)(unreal_end - unreal));
    check_equal(p.vector, 0x80, "big real mode");
    check_equal(p.out.esi, 0xabcd1234, "a segment keeps its limit of 4 GiB");
    check_equal(p.out.edi, kept, "also when its selector is loaded in real mode");
}

SNIPPET(r_lldt, 16, "lldt %ax");
SNIPPET(r_ltr, 16, "ltr %ax");
SNIPPET(r_sldt, 16, "sldt %ax");
SNIPPET(r_str, 16, "str %ax");
SNIPPET(r_lar, 16, "lar %ax, %ax");
SNIPPET(r_lsl, 16, "lsl %ax, %ax");
SNIPPET(r_verr, 16, "verr %ax");
SNIPPET(r_verw, 16, "verw %ax");
SNIPPET(r_arpl, 16, ".byte 0x63, 0xc0");
SNIPPET(r_cli, 16, "cli\n int $0x80");
SNIPPET(r_smsw, 16, "smsw %ax\n int $0x80");
SNIPPET(r_clts, 16, "clts\n int $0x80");
SNIPPET(r_sgdt, 16, "sgdt 0x100\n int $0x80");
SNIPPET(r_cr, 16, "mov %cr0, %eax\n int $0x80");
SNIPPET(r_dr, 16, "mov %dr7, %eax\n int $0x80");
SNIPPET(r_iret, 16, "pushl %ecx\n push %cs\n push $1f - r_iret\n iretw\n 1: int $0x80");

static void existence(void)
{
    const struct {
        const char *name, *code, *end;
        unsigned vector;
    } all[] = {
#define X(name, vector) {#name, r_##name, r_##name##_end, vector}
        X(lldt, V_UD), X(ltr, V_UD),  X(sldt, V_UD), X(str, V_UD),  X(lar, V_UD),
        X(lsl, V_UD),  X(verr, V_UD), X(verw, V_UD), X(arpl, V_UD), X(cli, 0x80),
        X(smsw, 0x80), X(clts, 0x80), X(sgdt, 0x80), X(cr, 0x80),   X(dr, 0x80),
#undef X
    };
    for (unsigned k = 0; k < sizeof all / sizeof all[0]; k++) {
        real_init(&p);
        run(all[k].code, (u32)(all[k].end - all[k].code));
        check(p.vector == all[k].vector, "%s: vector %u", all[k].name, p.vector);
    }
    check_equal(*(volatile u32 *)(LOW_DATA + 0x102), (u32)gdt & 0xffffff, "SGDT stores a base in real mode");
}

SNIPPET(far_call, 16, "lcall $0x2100, $4\n int $0x80");
SNIPPET(far_ret, 16, "lret $6");
SNIPPET(lods_wrap, 16, "mov $0xffff, %si\n mov $3, %cx\n rep lodsb\n int $0x80");
SNIPPET(movs_edge, 16, "mov $0xfffe, %si\n mov $0, %di\n mov $2, %cx\n rep movsw\n int $0x80");
SNIPPET(stos_fault, 16, "mov $0xfffd, %di\n mov $3, %cx\n rep stosw\n int $0x80");
SNIPPET(loop_16, 16, "mov $0x10002, %ecx\n xor %ax, %ax\n 1: inc %ax\n loop 1b\n int $0x80");
SNIPPET(loop_32, 16, "mov $3, %ecx\n xor %ax, %ax\n 1: inc %ax\n addr32 loop 1b\n int $0x80");
SNIPPET(push_sp, 16, "push %sp\n pop %ax\n pushal\n popal\n int $0x80");
SNIPPET(enter, 16, "mov %sp, %bp\n enter $4, $1\n mov %sp, %ax\n leave\n int $0x80");

static void others(void)
{
    memcpy((void *)0x21004, far_ret, 4);
    STACK16(0) = 0;
    RUN16(far_call);
    check(p.vector == 0x80 && p.out.cs == LOW_SEG && p.out.eip == 7, "far call and RETF n");
    check_equal(p.out.esp, LOW_SP + 6, "RETF n drops n bytes more");
    real_init(&p);
    p.in.ecx = F_CF | F_IOPL | F_NT | 2;
    run(r_iret, (u32)(r_iret_end - r_iret));
    check_equal(p.vector, 0x80, "IRET");
    check_equal(p.out.eflags, F_CF | F_IOPL | F_NT | 2, "IRET loads IOPL and NT");
    *(volatile u8 *)(LOW_DATA + 0) = 0x77;
    *(volatile u8 *)(LOW_DATA + 1) = 0x78;
    RUN16(lods_wrap);
    check(p.vector == 0x80 && (p.out.eax & 0xff) == 0x78 && (p.out.esi & 0xffff) == 2, "REP LODSB wraps SI");
    RUN16(movs_edge);
    check(p.vector == 0x80 && (p.out.esi & 0xffff) == 2, "REP MOVSW up to the last word");
    RUN16(stos_fault);
    check_not_tcg(p.vector == V_GP && (p.out.ecx & 0xffff) == 2 && (p.out.edi & 0xffff) == 0xffff,
                  "REP STOSW stops where it faults: CX %u", p.out.ecx & 0xffff);
    RUN16(loop_16);
    check(p.vector == 0x80 && (p.out.eax & 0xffff) == 2 && p.out.ecx == 0x10000, "LOOP counts CX");
    RUN16(loop_32);
    check(p.vector == 0x80 && (p.out.eax & 0xffff) == 3 && p.out.ecx == 0,
          "LOOP with a 32-bit address size counts ECX");
    RUN16(push_sp);
    check_equal(p.out.eax & 0xffff, LOW_SP, "PUSH SP pushes SP as it was");
    RUN16(enter);
    check_equal(p.out.eax & 0xffff, LOW_SP - 8, "ENTER");
    check_equal(p.out.esp, LOW_SP, "LEAVE");
}

void guest_main(void)
{
    vectors();
    limits();
    instruction_pointer();
    a20_line();
    unreal_mode();
    existence();
    others();
    finish("realmode");
}
