// Where an application processor starts: real mode at the page that the start-up IPI names, from there to long mode with
// the bootstrap processor's page tables. The code is copied below 1 MiB and runs at any page.

#include "smp_layout.h"

        .section .rodata
        .globl ap_start, ap_end
        .code16
ap_start:
        cli
        cld
        mov %cs, %cx                    // kept for the report of the start state
        mov %cr0, %esi
        mov %cx, %ds
        movl %esi, AP_CR0
        movl %edx, AP_EDX
        movw %cx, AP_CS
        xor %eax, %eax
        mov %cx, %ax
        shl $4, %eax
        mov %eax, %ebp                  // linear address of this page
        mov %cx, %ss
        mov $AP_STACK16, %sp
        pushfl
        popl AP_FLAGS
        lea (gdt - ap_start)(%ebp), %eax
        movl %eax, (gdt_pointer - ap_start + 2)
        lea (far32 - ap_start)(%ebp), %eax
        movl %eax, (jump32 - ap_start)
        lgdtl (gdt_pointer - ap_start)
        mov %cr0, %eax
        and $0x9fffffff, %eax
        or $1, %eax
        mov %eax, %cr0
        ljmpl *(jump32 - ap_start)

        .code32
far32:
        mov $0x10, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        mov %cr4, %eax
        or $0x20, %eax
        mov %eax, %cr4
        mov AP_CR3(%ebp), %eax
        mov %eax, %cr3
        mov $0xc0000080, %ecx
        rdmsr
        or $0x900, %eax
        wrmsr
        mov %cr0, %eax
        or $0x80010000, %eax
        mov %eax, %cr0
        ljmp $0x08, $ap_entry64         // the image lies below 4 GiB, mapped one to one

        .balign 4
jump32: .long 0
        .word 0x18                      // 32-bit code
        .balign 8
gdt:    .quad 0
        .quad 0x00af9b000000ffff
        .quad 0x00cf93000000ffff
        .quad 0x00cf9b000000ffff
gdt_pointer:
        .word 31
        .long 0
        .balign 4
ap_end:

        .section .text
        .code64
        .globl ap_entry64
ap_entry64:
        mov %ebp, %edi
        mov AP_STACK(%rdi), %rsp
        xor %ebp, %ebp
        call ap_main
1:      cli
        hlt
        jmp 1b

        .section .note.GNU-stack, "", @progbits
