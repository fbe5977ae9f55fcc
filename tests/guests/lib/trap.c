// Descriptor tables, trap dispatch and probes.
#include "guest.h"

struct gate {
    u16 offset_low, selector;
    u8 ist, type;
    u16 offset_middle;
    u32 offset_high, zero;
};

struct __attribute__((packed)) tss {
    u32 zero0;
    u64 rsp[3];
    u64 zero1;
    u64 ist[7];
    u64 zero2;
    u16 zero3, io_map_base;
    u8 io_map[32];
    u8 io_map_end;
};

struct __attribute__((packed)) table_pointer {
    u16 limit;
    u64 base;
};

enum { STACK_SIZE = 8192, TYPE_PRESENT = 0x80, TYPE_INTERRUPT = 14 };

extern const char trap_stubs[];
void probe_enter(const struct trap_frame *in);
int trap_dispatch(struct trap_frame *frame);

static u64 gdt[GDT_ENTRIES] __attribute__((aligned(16)));
static struct gate idt[256] __attribute__((aligned(16)));
static struct tss tss;
static u8 stacks[5][STACK_SIZE] __attribute__((aligned(4096)));
static struct probe *active_probe;

volatile u64 irq_count[16];
volatile u64 vector_count[256];
volatile bool irq_ends_probe;
volatile bool irq_leave_eoi;

static u64 stack_top(unsigned n)
{
    return (u64)stacks[n] + STACK_SIZE;
}

u64 ist_top(unsigned ist)
{
    return tss.ist[ist - 1];
}
u64 *gdt_entry(unsigned selector)
{
    return &gdt[selector / 8];
}
u64 tss_rsp0(void)
{
    return tss.rsp[0];
}
void tss_set_rsp0(u64 rsp)
{
    tss.rsp[0] = rsp ? rsp : stack_top(0);
}

void tss_allow_port(unsigned port, bool allow)
{
    if (allow)
        tss.io_map[port / 8] &= (u8) ~(1u << port % 8);
    else
        tss.io_map[port / 8] |= (u8)(1u << port % 8);
}

void gate_set_ist(unsigned vector, unsigned ist)
{
    idt[vector].ist = (u8)ist;
}
void gate_set_type(unsigned vector, unsigned type)
{
    idt[vector].type = (u8)((idt[vector].type & 0xf0) | type);
}
void gate_set_dpl(unsigned vector, unsigned dpl)
{
    idt[vector].type = (u8)((idt[vector].type & 0x9f) | dpl << 5);
}

void gate_set_present(unsigned vector, bool present)
{
    idt[vector].type = (u8)((idt[vector].type & 0x7f) | (present ? TYPE_PRESENT : 0));
}

void gate_set_handler(unsigned vector, const void *handler)
{
    u64 offset = (u64)handler;
    idt[vector].offset_low = (u16)offset;
    idt[vector].offset_middle = (u16)(offset >> 16);
    idt[vector].offset_high = (u32)(offset >> 32);
}

void gate_reset(unsigned vector)
{
    idt[vector] = (struct gate){.selector = KERNEL_CS, .type = TYPE_PRESENT | TYPE_INTERRUPT};
    gate_set_handler(vector, trap_stubs + 16 * vector);
    if (vector < 32)
        idt[vector].ist = IST_TRAP;
    if (vector == 8)
        idt[vector].ist = IST_DOUBLE_FAULT;
    if (vector == 3)
        gate_set_dpl(vector, 3);
    if (vector == VECTOR_DONE) {
        idt[vector].ist = IST_DONE;
        gate_set_dpl(vector, 3);
    }
}

void idt_set_limit(u16 limit)
{
    struct table_pointer pointer = {limit, (u64)idt};
    __asm__ volatile("lidt %0" : : "m"(pointer));
}

void idt_load_default(void)
{
    idt_set_limit(sizeof idt - 1);
}

static void tss_init(void)
{
    u64 base = (u64)&tss, limit = sizeof tss - 1;
    tss.rsp[0] = stack_top(0);
    tss.ist[IST_TRAP - 1] = stack_top(1);
    tss.ist[IST_DOUBLE_FAULT - 1] = stack_top(2);
    tss.ist[IST_DONE - 1] = stack_top(3);
    tss.io_map_base = offsetof(struct tss, io_map);
    memset(tss.io_map, 0xff, sizeof tss.io_map + 1);
    gdt[TSS_SELECTOR / 8] =
        (limit & 0xffff) | (base & 0xffffff) << 16 | 0x89ull << 40 | (limit >> 16) << 48 | (base >> 24 & 0xff) << 56;
    gdt[TSS_SELECTOR / 8 + 1] = base >> 32;
    __asm__ volatile("lldt %w0" : : "r"(0)); // reset leaves an LDT at 0
    __asm__ volatile("ltr %w0" : : "r"(TSS_SELECTOR));
}

void traps_init(void)
{
    gdt[KERNEL_CS / 8] = 0x00af9b000000ffff;
    gdt[KERNEL_DS / 8] = 0x00cf93000000ffff;
    gdt[USER_CS32 / 8] = 0x00cffb000000ffff;
    gdt[USER_DS / 8] = 0x00cff3000000ffff;
    gdt[USER_CS / 8] = 0x00affb000000ffff;
    struct table_pointer pointer = {sizeof gdt - 1, (u64)gdt};
    __asm__ volatile("lgdt %0" : : "m"(pointer));
    __asm__ volatile("mov %w0, %%ds\n\tmov %w0, %%es\n\tmov %w0, %%ss\n\t"
                     "push %q1\n\tlea 1f(%%rip), %%rax\n\tpush %%rax\n\tlretq\n1:"
                     :
                     : "r"(KERNEL_DS), "i"(KERNEL_CS)
                     : "rax", "memory");
    tss_init();
    for (unsigned vector = 0; vector < 256; vector++)
        gate_reset(vector);
    idt_load_default();
}

static bool handle_irq(const struct trap_frame *frame)
{
    vector_count[frame->vector]++;
    if (frame->vector < IRQ_BASE || frame->vector >= IRQ_BASE + 16)
        return frame->vector > VECTOR_DONE + 0x10 && !irq_ends_probe; // local APIC and IOAPIC vectors: counted only
    unsigned irq = (unsigned)frame->vector - IRQ_BASE;
    irq_count[irq]++;
    if (!irq_leave_eoi)
        pic_eoi(irq);
    return !irq_ends_probe;
}

static void report_unexpected(const struct trap_frame *f)
{
    print("unexpected trap: vector %lu error 0x%lx cr2 0x%lx rip 0x%lx cs 0x%lx rflags 0x%lx rsp 0x%lx\n", f->vector,
          f->error, read_cr2(), f->rip, f->cs, f->rflags, f->rsp);
    guest_exit(EXIT_FAIL);
}

// Returns non-zero when the running probe ends here.
int trap_dispatch(struct trap_frame *frame)
{
    if (frame->vector >= IRQ_BASE && frame->vector != VECTOR_DONE && handle_irq(frame))
        return 0;
    if (!active_probe)
        report_unexpected(frame);
    memcpy(&active_probe->out, frame, sizeof *frame);
    active_probe->cr2 = read_cr2();
    active_probe->frame_at = (u64)&frame->rip;
    active_probe->handler_flags = read_flags();
    active_probe = NULL;
    return 1;
}

u64 probe_address(const void *code, unsigned cpl)
{
    return cpl == 3 ? USER_CODE + ((u64)code - (u64)probe_code_start) : (u64)code;
}

void probe_init(struct probe *p, const void *code, unsigned cpl)
{
    memset(p, 0, sizeof *p);
    p->in.rip = probe_address(code, cpl);
    p->in.cs = cpl == 3 ? USER_CS : KERNEL_CS;
    p->in.ss = cpl == 3 ? USER_DS : KERNEL_DS;
    p->in.rsp = cpl == 3 ? USER_STACK_TOP - 0x100 : stack_top(4) - 0x100;
    p->in.rflags = 2;
}

void probe_run(struct probe *p)
{
    active_probe = p;
    barrier();
    probe_enter(&p->in);
    barrier();
}
