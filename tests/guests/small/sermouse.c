// Turns on a mouse on COM2 as Microsoft's protocol has it, and prints on COM1 what it says: "identity M3(...", "ready",
// then its packets: "packet 40 5 3", and behind it "fourth 20" where the middle button is in it.
#include "../lib/guest.h"

enum { MOUSE = 0x2f8, LSR = MOUSE + 5, READY = 1, SYNC = 0x40, LETTERS = 64 };

static u8 next(void)
{
    while (!(inb(LSR) & READY))
        ;
    return inb(MOUSE);
}

static void print_identity(void)
{
    char text[LETTERS];
    unsigned n = 0;
    u8 c = next();
    text[n++] = (char)c;
    text[n++] = (char)next();
    while (n < LETTERS - 1 && (c = next()) != ')' - 0x20)
        text[n++] = (char)(c + 0x20);
    text[n] = 0;
    print("identity %s\n", text);
}

void guest_main(void);

void guest_main(void)
{
    u8 packet[4];
    unsigned n = 0;
    console_init();
    outb(MOUSE + 1, 0);
    outb(MOUSE + 3, 0x82); // 1200 baud, 7N1
    outb(MOUSE, 96);
    outb(MOUSE + 1, 0);
    outb(MOUSE + 3, 0x02);
    outb(MOUSE + 4, 0);
    outb(MOUSE + 2, 0x07);
    outb(MOUSE + 4, 0x03);
    print_identity();
    print("ready\n");
    for (;;) {
        u8 byte = next();
        if (byte & SYNC)
            n = 0;
        packet[n++ & 3] = byte;
        if (n == 3)
            print("packet %x %x %x\n", packet[0], packet[1], packet[2]);
        else if (n == 4)
            print("fourth %x\n", byte);
    }
}
