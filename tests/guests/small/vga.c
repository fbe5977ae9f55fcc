// The display adapter: text, mode 13h, a mode X, 12h and linear modes, each drawn in another way and left standing for
// some milliseconds after "shown NAME"; what was drawn is read back by another way where there is one. Command line:
// "loop" draws the linear mode again and again, "hold-NAME" ends with that mode's picture.
#include "verdict.h"

enum { SEQ = 0x3c4, GRAPHICS = 0x3ce, CRTC = 0x3d4, ATTR = 0x3c0, MISC = 0x3c2, STATUS = 0x3da, DISPI = 0x1ce };
enum { XRES = 1, YRES, BPP, ENABLE, BANK, ON = 1, LINEAR = 0x40 };

struct mode {
    u8 misc, seq[5], crtc[25], graphics[9];
};

static const struct mode mode13 = {0x63,
                                   {0x03, 0x01, 0x0f, 0x00, 0x0e},
                                   {0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0xbf, 0x1f, 0x00, 0x41, 0x00, 0x00, 0x00,
                                    0x00, 0x00, 0x00, 0x9c, 0x8e, 0x8f, 0x28, 0x40, 0x96, 0xb9, 0xa3, 0xff},
                                   {0, 0, 0, 0, 0, 0x40, 0x05, 0x0f, 0xff}};
static const struct mode mode_x = {0xe3,
                                   {0x03, 0x01, 0x0f, 0x00, 0x06},
                                   {0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0x0d, 0x3e, 0x00, 0x41, 0x00, 0x00, 0x00,
                                    0x00, 0x00, 0x00, 0xea, 0xac, 0xdf, 0x28, 0x00, 0xe7, 0x06, 0xe3, 0xff},
                                   {0, 0, 0, 0, 0, 0x40, 0x05, 0x0f, 0xff}};
static const struct mode mode12 = {0xe3,
                                   {0x03, 0x01, 0x0f, 0x00, 0x06},
                                   {0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0x0b, 0x3e, 0x00, 0x40, 0x00, 0x00, 0x00,
                                    0x00, 0x00, 0x00, 0xea, 0x8c, 0xdf, 0x28, 0x00, 0xe7, 0x04, 0xe3, 0xff},
                                   {0, 0, 0, 0, 0, 0, 0x05, 0x0f, 0xff}};

static struct verdict verdict = {.guest = "vga"};
static volatile u8 *window; // 0xa0000

static u32 inl(u16 port)
{
    u32 value;
    __asm__ volatile("inl %1, %0" : "=a"(value) : "d"(port));
    return value;
}

static void set(u16 port, u8 n, u8 value)
{
    outw(port, (u16)(n | value << 8));
}

static void set_attr(u8 n, u8 value)
{
    inb(STATUS);
    outb(ATTR, n);
    outb(ATTR, value);
    outb(ATTR, 0x20);
}

static void set_mode(const struct mode *m)
{
    outb(MISC, m->misc);
    for (u8 k = 0; k < 5; k++)
        set(SEQ, k, m->seq[k]);
    set(CRTC, 0x11, 0);
    for (u8 k = 0; k < 25; k++)
        set(CRTC, k, m->crtc[k]);
    for (u8 k = 0; k < 9; k++)
        set(GRAPHICS, k, m->graphics[k]);
    for (u8 k = 0; k < 16; k++)
        set_attr(k, k);
    set_attr(0x10, 0x41);
    set_attr(0x12, 0x0f);
    set_attr(0x13, 0);
}

// Red by the low four bits, green by the high ones, blue by both.
static void set_palette(void)
{
    outb(0x3c8, 0);
    for (unsigned k = 0; k < 256; k++) {
        outb(0x3c9, (u8)((k & 15) * 4));
        outb(0x3c9, (u8)((k >> 4) * 4));
        outb(0x3c9, (u8)(((k ^ k >> 4) & 15) * 4));
    }
}

static void dispi(u16 n, u16 value)
{
    outw(DISPI, n);
    outw(DISPI + 1, value);
}

static void shown(const char *name)
{
    char hold[24] = "hold-";
    for (unsigned k = 0; name[k]; k++)
        hold[5 + k] = name[k];
    print("shown %s\n", name);
    for (unsigned k = 0; k < 3000 || option_word(hold); k++)
        inb(STATUS);
}

static void show_text(void)
{
    static const char text[] = "Umbra \x80\xb1\xc9\xcd\xbb";
    volatile u16 *cells = gpa_pointer(0xb8000);
    for (unsigned k = 0; text[k]; k++)
        cells[80 * 2 + 4 + k] = (u16)((u8)text[k] | 0x1e00);
    for (unsigned k = 0; k < 256; k++)
        cells[80 * 8 + k % 32 + k / 32 * 80] = (u16)(k | k << 8);
    verdict_equal(&verdict, cells[80 * 2 + 4], 0x1e00 | 'U', "a cell reads as it was written");
    shown("text");
}

static void show_13h(void)
{
    set_mode(&mode13);
    set_palette();
    for (unsigned y = 0; y < 200; y++)
        for (unsigned x = 0; x < 320; x += 4)
            *(volatile u32 *)(window + y * 320 + x) = ((x ^ y) & 255) * 0x01010101u;
    set(SEQ, 2, 2); // one pixel of four: no plain memory any more
    for (unsigned x = 0; x < 320; x += 4)
        *(volatile u32 *)(window + 100 * 320 + x) = 0xffffffff;
    verdict_equal(&verdict, *(volatile u32 *)(window + 100 * 320), 0x6464ff64, "the map mask holds three planes back");
    set(SEQ, 2, 15);
    verdict_equal(&verdict, *(volatile u32 *)(window + 100 * 320), 0x6464ff64,
                  "plain memory shows what the planes hold");
    shown("13h");
}

static void show_x(void)
{
    set_mode(&mode_x);
    for (u8 p = 0; p < 4; p++) {
        set(SEQ, 2, (u8)(1 << p));
        for (unsigned y = 0; y < 240; y++)
            for (unsigned x = p; x < 320; x += 4)
                window[y * 80 + x / 4] = (u8)((x / 20) | (y / 15) << 4);
    }
    set(SEQ, 2, 15);
    set(GRAPHICS, 4, 3);
    verdict_equal(&verdict, window[239 * 80 + 79], 0xff, "the last pixel of plane 3");
    shown("x");
}

static void show_12h(void)
{
    set_mode(&mode12);
    for (unsigned k = 0; k < 0x9600; k++)
        window[k] = 0;
    set(GRAPHICS, 1, 15);
    for (unsigned bar = 0; bar < 16; bar++) {
        set(GRAPHICS, 0, (u8)bar);
        for (unsigned y = bar * 30; y < bar * 30 + 25; y++)
            for (unsigned x = bar; x < 80; x++)
                window[y * 80 + x] = 0;
    }
    set(GRAPHICS, 1, 0);
    set(GRAPHICS, 5, 8);
    set(GRAPHICS, 2, 9);
    verdict_equal(&verdict, window[9 * 30 * 80 + 40], 0xff, "colour compare finds the ninth bar");
    set(GRAPHICS, 5, 0);
    shown("12h");
}

static void set_linear(u16 width, u16 height, u16 bpp)
{
    dispi(ENABLE, 0);
    dispi(XRES, width);
    dispi(YRES, height);
    dispi(BPP, bpp);
    dispi(ENABLE, ON | LINEAR);
    outb(ATTR, 0x20);
}

static volatile u32 *linear_memory(void)
{
    outl(0xcf8, 0x80001010);
    u64 gpa = inl(0xcfc) & ~15u;
    map_large(gpa, gpa | PTE_RWU | PTE_PS); // 2 MiB: more than any of the modes shows
    return gpa_pointer(gpa);
}

static void draw_linear(volatile u32 *memory, u32 blue)
{
    for (unsigned y = 0; y < 600; y++)
        for (unsigned x = 0; x < 800; x++)
            memory[y * 800 + x] = (x * 255 / 799) << 16 | (y * 255 / 599) << 8 | blue;
}

static void show_linear(void)
{
    volatile u32 *memory = linear_memory();
    set_linear(800, 600, 32);
    draw_linear(memory, 0x40);
    for (u32 blue = 0; option_word("loop"); blue++) // all of the screen, for ever
        draw_linear(memory, blue & 255);
    shown("800x600x32");
    dispi(ENABLE, ON | 0x80);
    dispi(BANK, 7);
    verdict_equal(&verdict, *(volatile u32 *)(window + 0x1234), memory[0x71234 / 4], "a bank shows the linear memory");
    *(volatile u32 *)(window + 0x1234) = 0x12345678;
    dispi(ENABLE, ON | LINEAR | 0x80);
    verdict_equal(&verdict, memory[0x71234 / 4], 0x12345678, "the linear memory shows the bank");
}

// Code in the linear memory that is changed through the window, which the adapter answers then.
static void run_from_memory(void)
{
    static const u8 code[] = {0xb8, 0x11, 0x00, 0x00, 0x00, 0xc3};
    volatile u8 *memory = (volatile u8 *)linear_memory();
    unsigned (*run)(void) = (unsigned (*)(void))(u64)memory;
    set_linear(640, 480, 8);
    for (unsigned k = 0; k < sizeof(code); k++)
        memory[k] = code[k];
    unsigned sum = 0;
    for (unsigned k = 0; k < 200; k++) {
        sum += run();
        window[1] = (u8)(k + 1);
    }
    verdict_equal(&verdict, sum, 0x11 + 199 * 200 / 2, "code that the adapter changes is run as changed");
    dispi(ENABLE, 0);
}

void guest_main(void);

void guest_main(void)
{
    console_init();
    window = gpa_pointer(0xa0000);
    show_text();
    show_13h();
    show_x();
    show_12h();
    show_linear();
    run_from_memory();
    verdict_exit(&verdict);
}
