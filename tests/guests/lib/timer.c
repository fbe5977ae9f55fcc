// 8259 pair, 8254 channel 0, local APIC registers.
#include "guest.h"

enum { PIC1 = 0x20, PIC2 = 0xa0, PIT_CHANNEL0 = 0x40, PIT_MODE = 0x43 };
enum { APIC_BASE = 0xfee00000, APIC_SVR = 0xf0, APIC_TPR = 0x80, APIC_LVT_LINT0 = 0x350 };

u32 apic_read(u32 reg)
{
    return *(volatile u32 *)(u64)(APIC_BASE + (u64)reg);
}
void apic_write(u32 reg, u32 value)
{
    *(volatile u32 *)(u64)(APIC_BASE + (u64)reg) = value;
}

static void pic_program(u16 port, u8 base, u8 cascade)
{
    outb(port, 0x11);
    outb(port + 1, base);
    outb(port + 1, cascade);
    outb(port + 1, 1);
    outb(port + 1, 0xff);
}

void pic_init(void)
{
    pic_program(PIC1, IRQ_BASE, 4);
    pic_program(PIC2, IRQ_BASE + 8, 2);
    if (cpuid_get(1, 0).edx & 1u << 9) {
        apic_write(APIC_TPR, 0);
        apic_write(APIC_SVR, 0x1ff);
        apic_write(APIC_LVT_LINT0, 0x700); // ExtINT
    }
}

void pic_mask(unsigned irq, bool masked)
{
    u16 port = irq < 8 ? PIC1 + 1 : PIC2 + 1;
    u8 bit = (u8)(1u << irq % 8), old = inb(port);
    outb(port, masked ? old | bit : old & (u8)~bit);
}

bool pic_pending(unsigned irq)
{
    outb(PIC1, 0x0a);
    return inb(PIC1) >> irq & 1;
}

void pic_eoi(unsigned irq)
{
    if (irq >= 8)
        outb(PIC2, 0x20);
    outb(PIC1, 0x20);
}

static void pit_program(u8 mode, u16 count)
{
    outb(PIT_MODE, (u8)(0x30 | mode << 1));
    outb(PIT_CHANNEL0, (u8)count);
    outb(PIT_CHANNEL0, (u8)(count >> 8));
}

void pit_oneshot(u16 count)
{
    pit_program(0, count);
}
void pit_periodic(u16 count)
{
    pit_program(2, count);
}
void pit_stop(void)
{
    outb(PIT_MODE, 0x30);
} // mode 0 without a count: the output stays low
