// Spins for ever: one jump to itself after one line of output.
#include "../lib/guest.h"

void guest_main(void);

void guest_main(void)
{
    console_init();
    put_string("spin: spinning\n");
    __asm__ volatile("1: jmp 1b");
}
