// Halts with interrupts off: nothing but a reset or an NMI can wake it.
#include "../lib/guest.h"

void guest_main(void);

void guest_main(void)
{
    console_init();
    put_string("hltforever: halting with IF clear\n");
    for (;;)
        __asm__ volatile("cli\n\thlt");
}
