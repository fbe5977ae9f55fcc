// Constants shared by the assembly and the C of the 32-bit guests: selectors, vectors, places in low memory.
#ifndef LAYOUT32_H
#define LAYOUT32_H

// Selectors. From SPARE on they are the tests' own.
#define KCS     0x08
#define KDS     0x10
#define UCS     0x1b
#define UDS     0x23
#define TSS_SEL 0x28
#define REAL_CS 0x30 // 16-bit code at REAL_BASE
#define REAL_DS 0x38 // 16-bit data at 0
#define SPARE   0x40
#define GDT_N   64

#define VECTOR_DONE 0x80 // `int $0x80`: a probe ran to its end

// Low memory. The trampoline between real and protected mode, then what tests of 16-bit code use.
#define REAL_BASE 0x8000
#define REAL_SEG  0x0800
#define LOW_CODE  0x20000 // copied there by low_copy(); segment 0x2000
#define LOW_SEG   0x2000
#define LOW_STACK 0x30000 // segment 0x3000, top at offset 0x8000
#define LOW_SS    0x3000
#define LOW_SP    0x8000
#define LOW_DATA  0x40000
#define LOW_DS    0x4000

// Offsets in struct regs.
#define R_EDI    0
#define R_ESI    4
#define R_EBP    8
#define R_ESP    12
#define R_EBX    16
#define R_EDX    20
#define R_ECX    24
#define R_EAX    28
#define R_DS     32
#define R_ES     36
#define R_FS     40
#define R_GS     44
#define R_EIP    48
#define R_CS     52
#define R_EFLAGS 56
#define R_SS     60
#define R_SIZE   64

#endif
