// System management RAM and mode on a PC: the host bridge's SMRAM register, SMI by the APM command port, relocation of
// SMBASE into SMRAM, D_LCK. It runs without firmware (SMBASE 0x30000 at first) and behind one that has moved SMBASE.
#include "../lib32/guest32.h"

enum { G_SMRAME = 8, D_LCK = 0x10, D_OPEN = 0x40, RESULTS = 0x50000, SMRAM = 0xa0000, APM = 0xb2, SMI_EN = 0x28 };
enum { BRIDGE = 0x80000000, PM = 0x80000b00 };
#define APMC_EN 0x02000000u

// In system management mode, CS based at SMBASE: notes what it sees at RESULTS, and moves SMBASE to 0xa0000.
#define HANDLER(name, mark)                                                                                            \
    SNIPPET(name, 16,                                                                                                  \
            "xor %ax, %ax\n mov %ax, %ds\n mov $0x50000, %ebx\n addr32 incl (%ebx)\n"                                  \
            "addr32 movl $" #mark ", 4(%ebx)\n mov %cs:0xfefc, %eax\n addr32 mov %eax, 8(%ebx)\n"                      \
            "mov $0xa8000, %ecx\n addr32 mov (%ecx), %edx\n addr32 mov %edx, 12(%ebx)\n"                               \
            "mov %cr0, %edx\n addr32 mov %edx, 16(%ebx)\n mov %cs, %dx\n addr32 mov %dx, 20(%ebx)\n"                   \
            "mov %cs:0xff5c, %edx\n addr32 mov %edx, 24(%ebx)\n"                                                       \
            "cmp $0x20064, %eax\n je 1f\n movl $0xa0000, %cs:0xfef8\n jmp 2f\n"                                        \
            "1: movl $0xa0000, %cs:0xff00\n 2: addr32 testl $1, 28(%ebx)\n jz 3f\n"                                    \
            "mov $0x3f8, %dx\n mov $46, %al\n out %al, %dx\n 3: rsm")
HANDLER(low_handler, 1);
HANDLER(smram_handler, 2);

static volatile u32 *const results = (volatile u32 *)RESULTS;
static volatile u32 *const window = (volatile u32 *)SMRAM;

static u32 pci_read(u32 function, unsigned reg)
{
    u32 value;
    __asm__ volatile("outl %0, %1" : : "a"(function | (reg & ~3u)), "d"((u16)0xcf8));
    __asm__ volatile("inl %1, %0" : "=a"(value) : "d"((u16)0xcfc));
    return value;
}
static void pci_write(u32 function, unsigned reg, u32 value)
{
    __asm__ volatile("outl %0, %1" : : "a"(function | (reg & ~3u)), "d"((u16)0xcf8));
    __asm__ volatile("outl %0, %1" : : "a"(value), "d"((u16)0xcfc));
}
static u8 smram_get(void)
{
    return (u8)(pci_read(BRIDGE, 0x70) >> 16);
}
static void smram_set(u8 value)
{
    pci_write(BRIDGE, 0x70, (pci_read(BRIDGE, 0x70) & 0xff00ffff) | (u32)value << 16);
}

static u32 smi(void)
{
    u32 before = results[0];
    outb(APM, 0x55);
    __asm__ volatile("nop" : : : "memory");
    return results[0] - before;
}

static void window_opens(void)
{
    smram_set(2 | G_SMRAME);
    u32 outside = window[4];
    smram_set(2 | G_SMRAME | D_OPEN);
    window[4] = ~outside;
    check_equal(window[4], ~outside, "D_OPEN: the window is memory");
    window[0x1ffff / 4] = 0x12345678;
    check_equal(window[0x1ffff / 4], 0x12345678, "up to its end");
    smram_set(2 | G_SMRAME);
    check(window[4] != ~outside, "closed: it is not");
    window[4] = 0x77777777;
    smram_set(2 | G_SMRAME | D_OPEN);
    check_equal(window[4], ~outside, "a write while it was closed did not reach it");
    smram_set(2 | D_OPEN);
    check(window[4] != ~outside, "without G_SMRAME D_OPEN opens nothing");
    smram_set(2 | G_SMRAME | D_OPEN);
    check_equal(window[4], ~outside, "nothing is lost meanwhile");
    check_equal(smram_get() & 0x78, G_SMRAME | D_OPEN, "the register reads as written");
}

static void handlers_install(void)
{
    memcpy((void *)0x38000, low_handler, (u32)(low_handler_end - low_handler));
    memcpy((void *)(SMRAM + 0x8000), smram_handler, (u32)(smram_handler_end - smram_handler));
    smram_set(2 | G_SMRAME);
}

static void requests(u16 pm)
{
    u32 device = pci_read(PM, 0x58);
    pci_write(PM, 0x58, device & ~APMC_EN);
    check_equal(smi(), 0, "no SMI while DEVACTB.APMC_EN is clear");
    pci_write(PM, 0x58, device | APMC_EN);
    outb(pm + SMI_EN, 1);
    check_equal(inb(pm + SMI_EN) & 1, 1, "GLBCTL.SMI_EN can be set");
    check_equal(inb(APM), 0x55, "the command can be read");
    u32 esp, esp_after, cr0 = read_cr0();
    __asm__ volatile("mov %%esp, %0" : "=r"(esp));
    check_equal(smi(), 1, "a write to the APM command port is one SMI");
    __asm__ volatile("mov %%esp, %0" : "=r"(esp_after));
    check_equal(esp_after, esp, "RSM brings registers back");
    check_equal(read_cr0(), cr0, "and CR0");
    check(results[2] == 0x20064 || results[2] == 0x20000, "the save area has a revision (%x)", results[2]);
    check_equal(results[4] & 0x80000001, 0, "no protection, no paging in the mode");
    u32 first = results[1];
    check_equal(smi(), 1, "another");
    check(results[1] == 2, "SMBASE moved to 0xa0000: the handler there (first %u, then %u)", first, results[1]);
    check_equal(results[5] & 0xffff, 0xa000, "its CS");
    check_equal(results[3], *(u32 *)smram_handler, "the mode sees SMRAM though it is closed");
    check(window[0x8000 / 4] != *(u32 *)smram_handler, "afterwards nobody else does");
    check_equal(results[0], 2, "two in all");
}

static void locked(void)
{
    smram_set(2 | G_SMRAME | D_OPEN | D_LCK);
    check_equal(smram_get() & 0x78, G_SMRAME | D_LCK, "D_LCK clears D_OPEN");
    smram_set(2 | G_SMRAME | D_OPEN);
    check_equal(smram_get() & 0x78, G_SMRAME | D_LCK, "then nothing changes the register");
    check(window[0x8000 / 4] != *(u32 *)smram_handler, "and SMRAM is out of reach");
    window[0x8000 / 4] = 0;
    check_equal(smi(), 1, "an SMI still runs");
    check_equal(results[1], 2, "what was there");
    check_equal(results[3], *(u32 *)smram_handler, "untouched");
}

void guest_main(void)
{
    u16 pm = pci_read(PM, 0x40) & 0xffc0;
    memset((void *)RESULTS, 0, 64);
    check_equal(smram_get() & 0x77, 2, "SMRAM's place is fixed, nothing is open");
    window_opens();
    handlers_install();
    requests(pm);
    results[7] = 1; // the handler prints a dot
    for (unsigned n = 0; n < 100; n++)
        smi();
    results[7] = 0;
    print("\n");
    check_equal(results[0], 102, "a hundred more");
    locked();
    finish("smram");
}
