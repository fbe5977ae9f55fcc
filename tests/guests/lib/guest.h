// Runtime of the freestanding test guests: console, exit, traps, probes, page tables, interrupt controllers.
//
// The centre of it is the probe: a set of registers (RIP, CPL and flags among them) that is entered with IRETQ and runs
// until the next exception or software interrupt, whose complete frame comes back. A test is then "set registers, run,
// compare what came back", for any instruction at any privilege level.
//
// The guest needs 16 MiB: image from 1 MiB, frame pool 4..12 MiB, two 2 MiB frames at 12 and 14 MiB. All of it is
// mapped one to one (supervisor, 2 MiB pages), so that a gpa below 16 MiB is a pointer.
#ifndef GUEST_H
#define GUEST_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "layout.h"

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

// ---- instructions -------------------------------------------------------------------------------------------------

static inline void outb(u16 port, u8 value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}
static inline void outw(u16 port, u16 value)
{
    __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port));
}
static inline void outl(u16 port, u32 value)
{
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

static inline u8 inb(u16 port)
{
    u8 value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

#define DEFINE_CR(n)                                                                                                   \
    static inline u64 read_cr##n(void)                                                                                 \
    {                                                                                                                  \
        u64 value;                                                                                                     \
        __asm__ volatile("mov %%cr" #n ", %0" : "=r"(value) : : "memory");                                             \
        return value;                                                                                                  \
    }                                                                                                                  \
    static inline void write_cr##n(u64 value)                                                                          \
    {                                                                                                                  \
        __asm__ volatile("mov %0, %%cr" #n : : "r"(value) : "memory");                                                 \
    }
DEFINE_CR(0)
DEFINE_CR(2)
DEFINE_CR(3)
DEFINE_CR(4)

#define DEFINE_DR(n)                                                                                                   \
    static inline u64 read_dr##n(void)                                                                                 \
    {                                                                                                                  \
        u64 value;                                                                                                     \
        __asm__ volatile("mov %%dr" #n ", %0" : "=r"(value));                                                          \
        return value;                                                                                                  \
    }                                                                                                                  \
    static inline void write_dr##n(u64 value)                                                                          \
    {                                                                                                                  \
        __asm__ volatile("mov %0, %%dr" #n : : "r"(value));                                                            \
    }
DEFINE_DR(0)
DEFINE_DR(1)
DEFINE_DR(6)
DEFINE_DR(7)

static inline u64 read_msr(u32 msr)
{
    u32 low, high;
    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
    return low | (u64)high << 32;
}

static inline void write_msr(u32 msr, u64 value)
{
    __asm__ volatile("wrmsr" : : "c"(msr), "a"((u32)value), "d"((u32)(value >> 32)) : "memory");
}

static inline u64 read_tsc(void)
{
    u32 low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return low | (u64)high << 32;
}

static inline u64 read_flags(void)
{
    u64 flags;
    __asm__ volatile("pushfq\n\tpopq %0" : "=r"(flags));
    return flags;
}

static inline void invlpg(u64 gva)
{
    __asm__ volatile("invlpg (%0)" : : "r"(gva) : "memory");
}
static inline void flush_all(void)
{
    write_cr3(read_cr3());
}
static inline void barrier(void)
{
    __asm__ volatile("" : : : "memory");
}

struct cpuid {
    u32 eax, ebx, ecx, edx;
};
struct cpuid cpuid_get(u32 leaf, u32 subleaf); // all zero when the leaf is above the highest

#define MSR_EFER 0xc0000080u
#define EFER_SCE 1ull
#define EFER_NXE (1ull << 11)
#define CR0_AM   (1ull << 18)
#define CR0_WP   (1ull << 16)
#define CR4_TSD  (1ull << 2)
#define CR4_PGE  (1ull << 7)
#define CR4_SMEP (1ull << 20)
#define CR4_SMAP (1ull << 21)
#define CR4_PKE  (1ull << 22)
#define FLAG_TF  (1ull << 8)
#define FLAG_IF  (1ull << 9)
#define FLAG_DF  (1ull << 10)
#define FLAG_NT  (1ull << 14)
#define FLAG_RF  (1ull << 16)
#define FLAG_AC  (1ull << 18)

// ---- console, command line, leaving -------------------------------------------------------------------------------

// Takes the command line and sets up COM1 (115200 8N1, polled). Must be called before the functions below.
void console_init(void);
void put_string(const char *text);
// %s %c %d %u %x %%, with l for 64 bits and 0N for zero padding.
void print(const char *format, ...) __attribute__((format(printf, 1, 2)));
void print_args(const char *format, va_list args);
// True when the command line holds the word exactly.
bool option_word(const char *word);
// The text after `name=` up to the next blank in buf; false when there is no such word.
bool option_value(const char *name, char *buf, size_t size);
// Leaves through isa-debug-exit: the process status is 2 * code + 1.
void guest_exit(u32 code) __attribute__((noreturn));
#define EXIT_PASS 0x10
#define EXIT_FAIL 0x11

void *memset(void *to, int value, size_t count);
void *memcpy(void *to, const void *from, size_t count);
bool text_equal(const char *a, const char *b);

// ---- traps and probes ---------------------------------------------------------------------------------------------

struct trap_frame {
    u64 r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rdx, rcx, rbx, rax;
    u64 vector, error;
    u64 rip, cs, rflags, rsp, ss;
};
_Static_assert(offsetof(struct trap_frame, rip) == FRAME_RIP, "trap.S knows the layout");
_Static_assert(offsetof(struct trap_frame, ss) == FRAME_SS, "trap.S knows the layout");

struct probe {
    struct trap_frame in;  // registers to start with
    struct trap_frame out; // registers at the trap that ended it
    u64 cr2;               // CR2 at that trap
    u64 frame_at;          // where the processor pushed that frame (address of the saved RIP)
    u64 handler_flags;     // RFLAGS inside the handler (DF aside)
};

enum { IST_NONE, IST_TRAP, IST_DOUBLE_FAULT, IST_DONE };

// GDT, TSS, IDT with all 256 gates. Exceptions run on IST_TRAP, so that a probe may have any RSP; #DF on its own stack;
// VECTOR_DONE (DPL 3) on its own; everything else on the interrupted or the RSP0 stack.
void traps_init(void);
void gate_set_ist(unsigned vector, unsigned ist);
void gate_set_dpl(unsigned vector, unsigned dpl);
void gate_set_present(unsigned vector, bool present);
void gate_set_type(unsigned vector, unsigned type); // 14 interrupt gate, 15 trap gate
void gate_set_handler(unsigned vector, const void *handler);
void gate_reset(unsigned vector);
u64 *gdt_entry(unsigned selector);
u64 ist_top(unsigned ist);
void tss_set_rsp0(u64 rsp); // 0: the default stack
u64 tss_rsp0(void);
void tss_allow_port(unsigned port, bool allow); // port below 256
void idt_set_limit(u16 limit);
void idt_load_default(void);

// A clean probe at `code` (a snippet, see below) with the default stack of that privilege level and IF clear.
void probe_init(struct probe *p, const void *code, unsigned cpl);
void probe_run(struct probe *p);
u64 probe_address(const void *code, unsigned cpl); // where a snippet is at that CPL

// Code for probes: position independent, at its link address for CPL 0 and at an alias for CPL 3.
#define SNIPPET(name, text)                                                                                            \
    __asm__(".pushsection .probe, \"ax\"\n.globl " #name "\n" #name ":\n" text "\n\tint $0x80\n" #name                 \
            "_end:\n.globl " #name "_end\n.popsection\n");                                                             \
    extern const char name[], name##_end[]
// An address inside a snippet, made with MARK("name") in its text.
#define MARK(name) ".globl " name "\n" name ":\n"
extern const char probe_code_start[], probe_code_end[];
extern const char probe_iretq[];

extern volatile u64 irq_count[16];
extern volatile u64 vector_count[256];
extern volatile bool irq_ends_probe; // an IRQ is then reported to the running probe
extern volatile bool irq_leave_eoi;  // the handler sends no EOI

// ---- page tables --------------------------------------------------------------------------------------------------

#define PTE_P       1ull
#define PTE_W       2ull
#define PTE_U       4ull
#define PTE_PWT     8ull
#define PTE_PCD     16ull
#define PTE_A       32ull
#define PTE_D       64ull
#define PTE_PS      128ull
#define PTE_G       256ull
#define PTE_NX      (1ull << 63)
#define PTE_RWU     (PTE_P | PTE_W | PTE_U)
#define PTE_ADDRESS 0x000ffffffffff000ull

#define GVA(l4, l3, l2, l1)                                                                                            \
    ((u64)(l4) << 39 | (u64)(l3) << 30 | (u64)(l2) << 21 | (u64)(l1) << 12 | ((l4) >= 256 ? 0xffffull << 48 : 0))
#define USER_CODE      GVA(2, 0, 0, 0)
#define USER_STACK_TOP (GVA(2, 0, 1, 0) + 0x1000)
#define LARGE_FRAME_A  0xc00000ull
#define LARGE_FRAME_B  0xe00000ull

extern u64 boot_pml4[512];

void paging_init(void);                           // the CPL 3 windows of the snippets and the user stack
u64 frame_alloc(void);                            // a zeroed 4 KiB frame of the pool: its gpa
u64 frames_alloc(unsigned count, unsigned align); // count frames in a row, aligned to `align` frames
u64 frame_mark(void);
void frame_release(u64 mark); // all frames allocated since the mark
// The entry that maps gva at `level` (4..1) under the table at gpa `root`; tables above are made as needed (P, W, U).
u64 *pt_entry(u64 root, u64 gva, unsigned level);
// Sets the leaf entry of gva in the current root and flushes it.
void map_page(u64 gva, u64 entry);
void map_large(u64 gva, u64 entry);
static inline void pte_store(u64 *entry, u64 value)
{
    *(volatile u64 *)entry = value;
}
static inline u64 pte_load(const u64 *entry)
{
    return *(const volatile u64 *)entry;
}
static inline void *gpa_pointer(u64 gpa)
{
    return (void *)gpa;
}
static inline u64 load64(u64 gva)
{
    return *(volatile u64 *)gva;
}
static inline void store64(u64 gva, u64 value)
{
    *(volatile u64 *)gva = value;
}

// ---- interrupt controllers and timers -----------------------------------------------------------------------------

#define PIT_HZ   1193182u
#define IRQ_BASE 0x20

void pic_init(void); // 8259 pair at vectors 0x20..0x2f, all masked; local APIC in virtual wire mode
void pic_mask(unsigned irq, bool masked);
bool pic_pending(unsigned irq); // bit of the request register, IRQ 0..7
void pic_eoi(unsigned irq);
void pit_oneshot(u16 count);  // channel 0, mode 0
void pit_periodic(u16 count); // channel 0, mode 2
void pit_stop(void);
u32 apic_read(u32 reg);
void apic_write(u32 reg, u32 value);

#endif
