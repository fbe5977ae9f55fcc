// Shared by ap.S and the C of the smp guest: what lies in the start-up page, behind the code.
#ifndef SMP_LAYOUT_H
#define SMP_LAYOUT_H

#define AP_CR0     0x800 // found at the start
#define AP_EDX     0x804
#define AP_CS      0x808
#define AP_FLAGS   0x80c
#define AP_CR3     0x810 // to be loaded
#define AP_STACK   0x818
#define AP_STACK16 0x1000

#endif
