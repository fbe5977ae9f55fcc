// Trap entry stubs of all 256 vectors, and the way into and out of a probe (see guest.h).

#include "layout.h"

        .text
        .balign 16
        .globl trap_stubs
trap_stubs:
        .set vector, 0
        .rept 256
        .balign 16
        .if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30
        .else
        pushq $0
        .endif
        pushq $vector
        jmp trap_common
        .set vector, vector + 1
        .endr

trap_common:
        push %rax
        push %rbx
        push %rcx
        push %rdx
        push %rbp
        push %rsi
        push %rdi
        push %r8
        push %r9
        push %r10
        push %r11
        push %r12
        push %r13
        push %r14
        push %r15
        cld
        mov %rsp, %rdi
        call trap_dispatch
        test %eax, %eax
        jnz probe_leave
        pop %r15
        pop %r14
        pop %r13
        pop %r12
        pop %r11
        pop %r10
        pop %r9
        pop %r8
        pop %rdi
        pop %rsi
        pop %rbp
        pop %rdx
        pop %rcx
        pop %rbx
        pop %rax
        add $16, %rsp
        iretq

// void probe_enter(const struct trap_frame *in): loads every register of `in` and runs from there. Comes back when the
// next trap is dispatched to the probe.
        .globl probe_enter
probe_enter:
        pushfq
        push %rbp
        push %rbx
        push %r12
        push %r13
        push %r14
        push %r15
        mov %rsp, probe_return_rsp(%rip)
        pushq FRAME_SS(%rdi)
        pushq FRAME_RSP(%rdi)
        pushq FRAME_RFLAGS(%rdi)
        pushq FRAME_CS(%rdi)
        pushq FRAME_RIP(%rdi)
        mov 0(%rdi), %r15
        mov 8(%rdi), %r14
        mov 16(%rdi), %r13
        mov 24(%rdi), %r12
        mov 32(%rdi), %r11
        mov 40(%rdi), %r10
        mov 48(%rdi), %r9
        mov 56(%rdi), %r8
        mov 72(%rdi), %rsi
        mov 80(%rdi), %rbp
        mov 88(%rdi), %rdx
        mov 96(%rdi), %rcx
        mov 104(%rdi), %rbx
        mov 112(%rdi), %rax
        mov 64(%rdi), %rdi
        .globl probe_iretq
probe_iretq:
        iretq

probe_leave:
        mov $KERNEL_DS, %eax
        mov %eax, %ss
        mov probe_return_rsp(%rip), %rsp
        mov %eax, %ds
        mov %eax, %es
        xor %eax, %eax
        mov %eax, %fs
        mov %eax, %gs
        pop %r15
        pop %r14
        pop %r13
        pop %r12
        pop %rbx
        pop %rbp
        popfq
        ret

        .bss
        .balign 8
probe_return_rsp: .skip 8

        .section .note.GNU-stack, "", @progbits
