// Constants shared by the assembly and the C of the test guests: selectors, vectors, sizes.
#ifndef GUEST_LAYOUT_H
#define GUEST_LAYOUT_H

#define COMMAND_LINE_MAX 512

// Selectors. The order user code32, user data, user code64 is what SYSRET wants (STAR[63:48] = USER_CS32).
#define KERNEL_CS      0x08
#define KERNEL_DS      0x10
#define USER_CS32      0x1b
#define USER_DS        0x23
#define USER_CS        0x2b
#define TSS_SELECTOR   0x30
#define SPARE_SELECTOR 0x40 // first of the descriptors that tests fill in
#define GDT_ENTRIES    24

#define VECTOR_DONE 0x80 // `int $0x80`: a probe ran to its end

// Offsets in struct trap_frame.
#define FRAME_RIP    136
#define FRAME_CS     144
#define FRAME_RFLAGS 152
#define FRAME_RSP    160
#define FRAME_SS     168

#endif
