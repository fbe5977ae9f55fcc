// Console, verdict, descriptors, probes of the 32-bit guests.
#include "guest32.h"

enum { COM1 = 0x3f8, DEBUG_EXIT = 0xf4 };

extern const u8 trap_stubs[];
extern u8 real_start[], real_end[], real_regs[], real_stub0[], real_vector[], real_handler_flags[];
extern struct regs probe_in;
extern struct {
    u16 limit;
    u32 base;
} __attribute__((packed)) kernel_idt;
void probe_enter(void);
void real_enter(void);
void runtime_start(void);
void trap_record(u32 *at, u32 ss);

u64 gdt[GDT_N] __attribute__((aligned(16)));
u64 idt[256] __attribute__((aligned(16)));
struct tss32 tss __attribute__((aligned(4096)));
static struct probe *running;
static unsigned passed, failed;

// ---- library ----

void *memset(void *to, int value, size_t count)
{
    void *start = to;
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(value) : "memory");
    return start;
}

void *memcpy(void *to, const void *from, size_t count)
{
    void *start = to;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
    return start;
}

// ---- console ----

static void put_char(char c)
{
    if (c == '\n')
        put_char('\r');
    while (!(inb(COM1 + 5) & 0x20))
        ;
    outb(COM1, (u8)c);
}

static void put_number(u32 value, unsigned base)
{
    char digits[12];
    unsigned n = 0;
    do {
        digits[n++] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value);
    while (n)
        put_char(digits[--n]);
}

static void print_args(const char *format, va_list args)
{
    for (; *format; format++) {
        if (*format != '%') {
            put_char(*format);
            continue;
        }
        switch (*++format) {
        case 's':
            for (const char *s = va_arg(args, const char *); *s; s++)
                put_char(*s);
            break;
        case 'u':
            put_number(va_arg(args, u32), 10);
            break;
        case 'x':
            put_number(va_arg(args, u32), 16);
            break;
        default:
            put_char(*format);
            break;
        }
    }
}

void print(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print_args(format, args);
    va_end(args);
}

static void console_init(void) // 115,200 baud, eight bits
{
    outb(COM1 + 3, 0x83);
    outb(COM1, 1);
    outb(COM1 + 1, 0);
    outb(COM1 + 3, 3);
    outb(COM1 + 1, 0);
}

// ---- verdict ----

bool on_tcg(void)
{
    u32 r[4];
    cpuid(0x40000000, 0, r);
    return r[1] == 0x54474354; // "TCGT"
}

static void verdict(bool ok, const char *format, va_list args)
{
    print("%s %u - ", ok ? "ok" : "not ok", passed + failed + 1);
    print_args(format, args);
    if (ok)
        passed++;
    else
        failed++;
}

void check(bool ok, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    verdict(ok, format, args);
    va_end(args);
    print("\n");
}

void check_not_tcg(bool ok, const char *format, ...)
{
    va_list args;
    if (!ok && on_tcg()) {
        print("# departs: ");
        va_start(args, format);
        print_args(format, args);
        va_end(args);
        print("\n");
        return;
    }
    va_start(args, format);
    verdict(ok, format, args);
    va_end(args);
    print("\n");
}

void check_equal(u32 got, u32 wanted, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    verdict(got == wanted, format, args);
    va_end(args);
    if (got != wanted)
        print(": got 0x%x, wanted 0x%x", got, wanted);
    print("\n");
}

void finish(const char *guest)
{
    print("%s: %u passed, %u failed\n", guest, passed, failed);
    while (!(inb(COM1 + 5) & 0x40))
        ;
    outb(DEBUG_EXIT, failed || !passed ? 0x11 : 0x10);
    for (;;)
        __asm__ volatile("cli; hlt");
}

// ---- descriptors ----

u64 descriptor(u32 base, u32 limit, unsigned attr, unsigned flags)
{
    return (limit & 0xffff) | (u64)(base & 0xffffff) << 16 | (u64)attr << 40 | (u64)(limit >> 16 & 15) << 48 |
           (u64)flags << 52 | (u64)(base >> 24) << 56;
}

u64 gate(u16 sel, u32 offset, unsigned attr, unsigned count)
{
    return (offset & 0xffff) | (u64)sel << 16 | (u64)count << 32 | (u64)attr << 40 | (u64)(offset >> 16) << 48;
}

void gdt_set(unsigned sel, u64 raw)
{
    *(volatile u64 *)&gdt[sel / 8] = raw;
}

u32 stub_address(unsigned vector)
{
    return (u32)trap_stubs + 16 * vector;
}

void gate_default(unsigned vector)
{
    unsigned dpl = vector == V_BP || vector == V_OF || vector == VECTOR_DONE ? 0x60 : 0;
    *(volatile u64 *)&idt[vector] = gate(KCS, stub_address(vector), 0x8e | dpl, 0);
}

void idt_set_limit(u16 limit)
{
    kernel_idt.limit = limit;
    __asm__ volatile("lidt %0" : : "m"(kernel_idt));
}

static void task_reset(void)
{
    gdt_set(TSS_SEL, descriptor((u32)&tss, sizeof tss - 1, A_TSS32, 0));
    __asm__ volatile("ltr %w0" : : "r"(TSS_SEL));
    __asm__ volatile("clts");
}

static void tables_init(void)
{
    struct {
        u16 limit;
        u32 base;
    } __attribute__((packed)) table = {sizeof gdt - 1, (u32)gdt};
    gdt_set(KCS, descriptor(0, 0xfffff, A_CODE, FLAT));
    gdt_set(KDS, descriptor(0, 0xfffff, A_DATA, FLAT));
    gdt_set(UCS & ~7u, descriptor(0, 0xfffff, A_CODE | A_DPL3, FLAT));
    gdt_set(UDS & ~7u, descriptor(0, 0xfffff, A_DATA | A_DPL3, FLAT));
    gdt_set(REAL_CS, descriptor(REAL_BASE, 0xffff, A_CODE, SIZE16));
    gdt_set(REAL_DS, descriptor(0, 0xffff, A_DATA, SIZE16));
    __asm__ volatile("lgdt %0\n\tljmp %1, $1f\n1:\tmov %w2, %%ds\n\tmov %w2, %%es\n\tmov %w2, %%fs\n\tmov %w2, "
                     "%%gs\n\tmov %w2, %%ss\n\txor %%eax, %%eax\n\tlldt %%ax"
                     :
                     : "m"(table), "i"(KCS), "r"(KDS)
                     : "eax", "memory");
    for (unsigned vector = 0; vector < 256; vector++)
        gate_default(vector);
    idt_set_limit(sizeof idt - 1);
    tss.esp0 = (u32)trap_stack_top;
    tss.ss0 = KDS;
    tss.io_map = offsetof(struct tss32, map);
    memset(tss.redirection, 0xff, sizeof tss.redirection + sizeof tss.map);
    task_reset();
}

static void real_mode_init(void)
{
    memcpy((void *)REAL_BASE, real_start, (u32)(real_end - real_start));
    for (unsigned vector = 0; vector < 256; vector++)
        *(volatile u32 *)(vector * 4) = (u32)REAL_SEG << 16 | (u32)(real_stub0 - real_start + 8 * vector);
}

void runtime_start(void)
{
    write_cr0((read_cr0() & ~0x60000000u) | 0x20); // caches on, NE
    console_init();
    outb(0x21, 0xff); // no interrupts but those that a test makes
    outb(0xa1, 0xff);
    tables_init();
    real_mode_init();
    guest_main();
}

// ---- probes ----

static bool has_error_code(unsigned vector)
{
    return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21;
}

// `at`: EDI..EAX, DS, ES, FS, GS, vector, error code, frame. PUSHAL's ESP is that before it.
void trap_record(u32 *at, u32 ss)
{
    struct probe *p = running;
    const u32 *frame = at + 14;
    u16 tr;
    if (!p) {
        print("unexpected trap: vector %u error 0x%x eip 0x%x cs 0x%x\n", at[12], at[13], frame[0], frame[1]);
        outb(DEBUG_EXIT, 0x11);
    }
    memcpy(&p->out, at, 12 * 4);
    p->out.ds &= 0xffff; // a processor may leave the upper half of a pushed selector as memory was
    p->out.es &= 0xffff;
    p->out.fs &= 0xffff;
    p->out.gs &= 0xffff;
    p->vector = at[12] & 0xff;
    p->is_error = has_error_code(p->vector);
    p->error = at[13];
    p->cr2 = read_cr2();
    p->frame_at = (u32)frame;
    memcpy(p->frame, frame, sizeof p->frame);
    p->out.eip = frame[0];
    p->out.cs = frame[1];
    p->out.eflags = frame[2];
    p->out.esp = frame[3];
    p->out.ss = frame[4];
    p->handler_ss = ss;
    __asm__ volatile("pushfl; popl %0" : "=m"(p->handler_flags));
    __asm__ volatile("str %w0" : "=r"(tr));
    p->handler_tr = tr;
    running = NULL;
}

void probe_init(struct probe *p, const void *code, unsigned cpl)
{
    memset(p, 0, sizeof *p);
    p->in.eip = (u32)code;
    p->in.cs = cpl ? UCS : KCS;
    p->in.ss = p->in.ds = p->in.es = p->in.fs = p->in.gs = cpl ? UDS : KDS;
    p->in.esp = (u32)probe_stack_top - 0x100;
    p->in.eflags = 2;
}

void probe_run(struct probe *p)
{
    probe_in = p->in;
    running = p;
    __asm__ volatile("" : : : "memory");
    probe_enter();
    __asm__ volatile("" : : : "memory");
    task_reset();
}

void low_copy_bytes(const void *code, u32 len)
{
    memset((void *)LOW_CODE, 0x90, 64);
    memcpy((void *)LOW_CODE, code, len);
}

void v86_init(struct probe *p, u32 flags)
{
    memset(p, 0, sizeof *p);
    p->in.cs = LOW_SEG;
    p->in.ss = LOW_SS;
    p->in.esp = LOW_SP;
    p->in.ds = p->in.es = p->in.fs = p->in.gs = LOW_DS;
    p->in.eflags = flags | F_VM | 2;
}

void real_init(struct probe *p)
{
    v86_init(p, 0);
    p->in.eflags = 2;
}

void real_run(struct probe *p)
{
    u8 *copy = (u8 *)REAL_BASE;
    struct regs *regs = (struct regs *)(copy + (real_regs - real_start));
    *regs = p->in;
    running = NULL;
    __asm__ volatile("" : : : "memory");
    real_enter();
    __asm__ volatile("" : : : "memory");
    p->out = *regs;
    p->out.eip &= 0xffff;
    p->out.eflags &= 0xffff;
    p->out.cs &= 0xffff;
    p->vector = (u8)(*(u16 *)(copy + (real_vector - real_start)) + 128);
    p->handler_flags = *(u16 *)(copy + (real_handler_flags - real_start));
}
