// Runtime of the 32-bit guests: console, verdict, descriptors, probes in protected, virtual-8086 and real mode.
//
// The guests run in 32-bit protected mode without paging, so that linear addresses are physical ones. A probe is a set
// of registers, EIP, CS and EFLAGS among them, that is entered by IRETD (by a far jump through real mode for
// real_run()) and runs until the next exception or software interrupt. What the processor pushed comes back as it was
// pushed.
#ifndef GUEST32_H
#define GUEST32_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "layout32.h"

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

enum {
    F_CF = 1,
    F_TF = 0x100,
    F_IF = 0x200,
    F_DF = 0x400,
    F_IOPL = 0x3000,
    F_NT = 0x4000,
    F_RF = 0x10000,
    F_VM = 0x20000,
    F_AC = 0x40000,
    F_VIF = 0x80000,
    F_VIP = 0x100000
};
enum { V_DE, V_DB, V_NMI, V_BP, V_OF, V_BR, V_UD, V_NM, V_DF, V_TS = 10, V_NP, V_SS, V_GP, V_PF, V_MF = 16, V_AC };

struct regs {
    u32 edi, esi, ebp, esp, ebx, edx, ecx, eax, ds, es, fs, gs, eip, cs, eflags, ss;
};

struct probe {
    struct regs in, out; // out.esp and out.ss: of the interrupted code if they were pushed
    u32 vector, error, cr2;
    u32 frame_at;  // ESP in the handler, after the error code was taken off
    u32 frame[10]; // what was pushed: EIP, CS, EFLAGS, ESP, SS, ES, DS, FS, GS
    u32 handler_ss, handler_flags;
    u16 handler_tr;
    bool is_error; // the vector has an error code
};

struct tss32 {
    u32 link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags;
    u32 eax, ecx, edx, ebx, esp, ebp, esi, edi, es, cs, ss, ds, fs, gs, ldt;
    u16 trap, io_map;
    u8 redirection[32], map[0x2001]; // the I/O permission bitmap ends with a byte of ones
} __attribute__((packed));

// ---- instructions ----

static inline void outb(u16 port, u8 value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}
static inline u8 inb(u16 port)
{
    u8 value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}
#define DEFINE_REG(kind, n)                                                                                            \
    static inline u32 read_##kind##n(void)                                                                             \
    {                                                                                                                  \
        u32 value;                                                                                                     \
        __asm__ volatile("mov %%" #kind #n ", %0" : "=r"(value) : : "memory");                                         \
        return value;                                                                                                  \
    }                                                                                                                  \
    static inline void write_##kind##n(u32 value)                                                                      \
    {                                                                                                                  \
        __asm__ volatile("mov %0, %%" #kind #n : : "r"(value) : "memory");                                             \
    }
DEFINE_REG(cr, 0)
DEFINE_REG(cr, 2)
DEFINE_REG(cr, 3)
DEFINE_REG(cr, 4)
DEFINE_REG(dr, 0)
DEFINE_REG(dr, 1)
DEFINE_REG(dr, 6)
DEFINE_REG(dr, 7)

static inline void cpuid(u32 leaf, u32 subleaf, u32 out[4])
{
    __asm__ volatile("cpuid" : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3]) : "a"(leaf), "c"(subleaf));
}

void *memset(void *to, int value, size_t count);
void *memcpy(void *to, const void *from, size_t count);

// ---- console and verdict ----

void print(const char *format, ...) __attribute__((format(printf, 1, 2)));
bool on_tcg(void); // QEMU's software processor, by its CPUID signature
void check(bool ok, const char *format, ...) __attribute__((format(printf, 2, 3)));
// As check(), with both values in the message.
void check_equal(u32 got, u32 wanted, const char *format, ...) __attribute__((format(printf, 3, 4)));
// Not asserted under QEMU's TCG, which departs from the manual here (README.md says how).
void check_not_tcg(bool ok, const char *format, ...) __attribute__((format(printf, 2, 3)));
__attribute__((noreturn)) void finish(const char *guest);
void guest_main(void);

// ---- descriptors ----

extern u64 gdt[GDT_N];
extern u64 idt[256];
extern struct tss32 tss;
extern u8 trap_stack_top[], probe_stack_top[];

// attr: as in bits 8..15 of the high doubleword; flags: G 8, D/B 4, L 2, AVL 1.
u64 descriptor(u32 base, u32 limit, unsigned attr, unsigned flags);
u64 gate(u16 sel, u32 offset, unsigned attr, unsigned count);
void gdt_set(unsigned sel, u64 raw);
void gate_default(unsigned vector); // 32-bit interrupt gate of DPL 0 (3 for #BP and VECTOR_DONE)
u32 stub_address(unsigned vector);  // the 32-bit handler behind it
void idt_set_limit(u16 limit);

enum {
    A_CODE = 0x9b,
    A_DATA = 0x93,
    A_DPL3 = 0x60,
    A_DPL1 = 0x20,
    A_DPL2 = 0x40,
    A_P = 0x80,
    A_TSS32 = 0x89,
    A_TSS16 = 0x81
};
enum { FLAT = 0xc, SIZE32 = 4, SIZE16 = 0 };

// ---- probes ----

// Code of a probe; where it ends is NAME_end. BITS is 16 or 32.
#define SNIPPET(name, bits, text)                                                                                      \
    __asm__(".pushsection .probe, \"ax\"\n.code" #bits "\n" #name ":\n" text "\n" #name                                \
            "_end:\n.code32\n.popsection");                                                                            \
    extern char name[], name##_end[]

void probe_init(struct probe *p, const void *code, unsigned cpl); // flat segments, its own stack, EFLAGS 2
void probe_run(struct probe *p);
// 16-bit code, copied to LOW_CODE, in virtual-8086 or real mode.
#define low_copy(name) low_copy_bytes(name, (u32)(name##_end - name))
void low_copy_bytes(const void *code, u32 len);
void v86_init(struct probe *p, u32 flags);
void real_init(struct probe *p);
void real_run(struct probe *p);
#define RUN(p, code, cpl) (probe_init(p, code, cpl), probe_run(p))

#endif
