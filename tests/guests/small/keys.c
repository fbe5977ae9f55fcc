// Prints what comes from the 8042 on COM1, keyboard and mouse apart: "key 1e", "mouse 08". Says "ready" on the screen and
// on COM1 when both are on.
#include "../lib/guest.h"

enum { DATA = 0x60, STATUS = 0x64, FULL = 1, BUSY = 2, AUX = 0x20 };

static void command(u8 value)
{
    while (inb(STATUS) & BUSY)
        ;
    outb(STATUS, value);
}

static u8 next(bool *mouse)
{
    u8 status;
    while (!((status = inb(STATUS)) & FULL))
        ;
    *mouse = status & AUX;
    return inb(DATA);
}

void guest_main(void);

void guest_main(void)
{
    static const char text[] = "Press keys, move the mouse: ready";
    volatile u16 *cells = gpa_pointer(0xb8000);
    bool mouse;
    console_init();
    for (unsigned k = 0; text[k]; k++)
        cells[80 * 12 + 20 + k] = (u16)((u8)text[k] | 0x2f00);
    command(0x60);
    outb(DATA, 0x44); // both ports on, translation, no interrupts
    command(0xd4);
    outb(DATA, 0xf4);
    while (next(&mouse) != 0xfa)
        ;
    print("ready\n");
    for (;;) {
        u8 byte = next(&mouse);
        print("%s %x\n", mouse ? "mouse" : "key", byte);
    }
}
