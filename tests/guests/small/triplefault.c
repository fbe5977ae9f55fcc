// Jumps to an address that nothing maps, with an IDT of limit 0: #PF, then #DF, then a triple fault.
#include "../lib/guest.h"

#define VOID 0x00000deadbeef000ul

void guest_main(void);

void guest_main(void)
{
    console_init();
    print("triplefault: jumping to 0x%lx with an empty IDT\n", VOID);
    traps_init();
    idt_set_limit(0);
    __asm__ volatile("mov $0x5a5a5a5a, %%rbx\n\tjmp *%%rax" : : "a"(VOID) : "rbx");
    guest_exit(EXIT_FAIL); // not reached: the machine resets or stops
}
