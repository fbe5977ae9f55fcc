// Multiboot entry of the 32-bit guests, trap stubs, and the ways into and out of probes.

#include "layout32.h"

        .section .multiboot, "a"
        .balign 4
        .long 0x1badb002, 3, -(0x1badb002 + 3)

        .text
        .code32
        .globl _start
_start:
        cli
        cld
        mov $boot_stack_top, %esp
        call runtime_start
1:      cli
        hlt
        jmp 1b

// ---- traps: 16 bytes a vector ----

        .globl trap_stubs
        .balign 16
trap_stubs:
        vector = 0
        .rept 256
        .balign 16
        .if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21
        nop
        .else
        push $0
        .endif
        push $vector
        jmp trap_common
        vector = vector + 1
        .endr

// EDI .. EAX, DS, ES, FS, GS, vector, error code, then what the processor pushed.
trap_common:
        push %gs
        push %fs
        push %es
        push %ds
        pushal
        mov $KDS, %eax
        mov %eax, %ds
        mov %eax, %es
        cld
        mov %esp, %eax
        mov saved_esp, %ecx
        mov %ss, %edx
        lar %edx, %ebx                  // on a 16-bit stack the upper half of ESP means nothing
        test $0x400000, %ebx
        jnz 1f
        movzwl %ax, %eax
1:
        mov $KDS, %ebx
        mov %ebx, %ss
        mov %ecx, %esp
        push %edx
        push %eax
        call trap_record
        add $8, %esp
        jmp probe_leave

// ---- probes in protected and virtual-8086 mode: probe_in holds the registers ----

        .globl probe_enter
probe_enter:
        pushal
        pushfl
        mov %esp, saved_esp
        testl $0x20000, probe_in + R_EFLAGS
        jnz 3f
        testb $3, probe_in + R_CS
        jz 2f
        push probe_in + R_SS
        push probe_in + R_ESP
1:      push probe_in + R_EFLAGS
        push probe_in + R_CS
        push probe_in + R_EIP
        jmp 4f
2:      mov probe_in + R_ESP, %esp      // the same level: the frame lies on the probe's stack
        jmp 1b
3:      push probe_in + R_GS
        push probe_in + R_FS
        push probe_in + R_DS
        push probe_in + R_ES
        push probe_in + R_SS
        push probe_in + R_ESP
        push probe_in + R_EFLAGS
        push probe_in + R_CS
        push probe_in + R_EIP
        jmp 5f
4:      mov probe_in + R_ES, %es
        mov probe_in + R_FS, %fs
        mov probe_in + R_GS, %gs
        mov probe_in + R_DS, %ds
5:      mov %cs:probe_in + R_EDI, %edi
        mov %cs:probe_in + R_ESI, %esi
        mov %cs:probe_in + R_EBP, %ebp
        mov %cs:probe_in + R_EBX, %ebx
        mov %cs:probe_in + R_EDX, %edx
        mov %cs:probe_in + R_ECX, %ecx
        mov %cs:probe_in + R_EAX, %eax
        iretl

        .globl probe_leave
probe_leave:
        mov $KDS, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %fs
        mov %eax, %gs
        mov %eax, %ss
        mov saved_esp, %esp
        popfl
        popal
        ret

// ---- probes in real mode. The part below is copied to REAL_BASE. ----

        .globl real_enter
real_enter:
        pushal
        pushfl
        mov %esp, saved_esp
        lidt real_idt
        ljmp $REAL_CS, $(real_down - real_start)

back32: mov $KDS, %eax
        mov %eax, %ds
        lidt kernel_idt
        jmp probe_leave

#define AT(label) (label - real_start)
        .globl real_start, real_end, real_regs, real_stub0
        .balign 16
        .code16
real_start:
real_down:
        mov $REAL_DS, %ax
        mov %ax, %ds
        mov %ax, %es
        mov %ax, %fs
        mov %ax, %gs
        mov %ax, %ss
        mov %cr0, %eax
        and $0x7ffffffe, %eax
        mov %eax, %cr0
        ljmp $REAL_SEG, $AT(real_go)
real_go:
        mov %cs:AT(real_regs) + R_SS, %ss
        mov %cs:AT(real_regs) + R_ESP, %esp
        pushl %cs:AT(real_regs) + R_EFLAGS
        pushl %cs:AT(real_regs) + R_CS
        pushl %cs:AT(real_regs) + R_EIP
        mov %cs:AT(real_regs) + R_ES, %es
        mov %cs:AT(real_regs) + R_FS, %fs
        mov %cs:AT(real_regs) + R_GS, %gs
        mov %cs:AT(real_regs) + R_DS, %ds
        mov %cs:AT(real_regs) + R_EDI, %edi
        mov %cs:AT(real_regs) + R_ESI, %esi
        mov %cs:AT(real_regs) + R_EBP, %ebp
        mov %cs:AT(real_regs) + R_EBX, %ebx
        mov %cs:AT(real_regs) + R_EDX, %edx
        mov %cs:AT(real_regs) + R_ECX, %ecx
        mov %cs:AT(real_regs) + R_EAX, %eax
        iretl

// Eight bytes a vector.
        .balign 8
real_stub0:
        vector = 0
        .rept 256
        push $vector - 128
        jmp real_common
        .balign 8
        vector = vector + 1
        .endr

real_common:
        popw %cs:AT(real_vector)
        popw %cs:AT(real_regs) + R_EIP
        popw %cs:AT(real_regs) + R_CS
        popw %cs:AT(real_regs) + R_EFLAGS
        mov %esp, %cs:AT(real_regs) + R_ESP
        mov %ss, %cs:AT(real_regs) + R_SS
        mov %edi, %cs:AT(real_regs) + R_EDI
        mov %esi, %cs:AT(real_regs) + R_ESI
        mov %ebp, %cs:AT(real_regs) + R_EBP
        mov %ebx, %cs:AT(real_regs) + R_EBX
        mov %edx, %cs:AT(real_regs) + R_EDX
        mov %ecx, %cs:AT(real_regs) + R_ECX
        mov %eax, %cs:AT(real_regs) + R_EAX
        mov %ds, %cs:AT(real_regs) + R_DS
        mov %es, %cs:AT(real_regs) + R_ES
        mov %fs, %cs:AT(real_regs) + R_FS
        mov %gs, %cs:AT(real_regs) + R_GS
        pushfw
        popw %cs:AT(real_handler_flags)
        mov %cr0, %eax
        or $1, %eax
        mov %eax, %cr0
        ljmpl $KCS, $back32
        .balign 4
real_regs:      .skip R_SIZE
        .globl real_vector, real_handler_flags
real_vector:    .word 0
real_handler_flags: .word 0
real_end:
        .code32

        .data
        .balign 8
real_idt:
        .word 0x3ff
        .long 0
        .globl kernel_idt
        .balign 8
kernel_idt:
        .word 256 * 8 - 1
        .long idt

        .bss
        .balign 4096
        .globl probe_in, trap_stack_top, probe_stack_top
boot_stack:     .skip 16384
boot_stack_top:
        .skip 8192
trap_stack_top:
        .skip 8192
probe_stack_top:
        .skip 64
probe_in:       .skip R_SIZE
saved_esp:      .skip 4

        .section .note.GNU-stack, "", @progbits
