// Multiboot 1 entry of every guest: from 32-bit protected mode to guest_main() in long mode.
//
// Page tables made here: gpa 0..16 MiB mapped one to one with 2 MiB pages (supervisor, writable, executable), and the
// 2 MiB pages of the I/O and local APIC uncached. The Multiboot command line is copied before anything else is touched,
// so that the guest need not care where the loader put it.

#include "layout.h"

        .section .multiboot, "a"
        .balign 4
        .long 0x1badb002, 3, -(0x1badb002 + 3)

        .section .text
        .code32
        .globl _start
_start:
        cli
        cld
        mov $boot_stack_top, %esp
        movb $0, boot_command_line
        cmp $0x2badb002, %eax
        jne 2f
        testl $4, (%ebx)                // flag 2: cmdline is valid
        jz 2f
        mov 16(%ebx), %esi
        mov $boot_command_line, %edi
        mov $(COMMAND_LINE_MAX - 1), %ecx
1:      lodsb
        stosb
        test %al, %al
        jz 2f
        dec %ecx
        jnz 1b
        movb $0, (%edi)
2:
        movl $(boot_pdpt + 3), boot_pml4
        movl $(boot_pd + 3), boot_pdpt
        movl $(boot_pd_mmio + 3), boot_pdpt + 3 * 8
        mov $boot_pd, %edi
        mov $0x83, %eax
        mov $8, %ecx
3:      mov %eax, (%edi)
        add $0x200000, %eax
        add $8, %edi
        dec %ecx
        jnz 3b
        movl $(0xfec00000 + 0x9b), boot_pd_mmio + 0x1f6 * 8
        movl $(0xfee00000 + 0x9b), boot_pd_mmio + 0x1f7 * 8

        mov %cr4, %eax
        or $0x20, %eax                  // PAE
        mov %eax, %cr4
        mov $boot_pml4, %eax
        mov %eax, %cr3
        mov $0xc0000080, %ecx           // EFER: LME, NXE
        rdmsr
        or $0x900, %eax
        wrmsr
        mov %cr0, %eax
        and $0x9fffffff, %eax           // CD, NW off
        or $0x80010001, %eax            // PG, WP, PE
        mov %eax, %cr0
        lgdt boot_gdt_pointer
        ljmp $KERNEL_CS, $entry64

        .code64
entry64:
        mov $KERNEL_DS, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        xor %eax, %eax
        mov %eax, %fs
        mov %eax, %gs
        mov $boot_stack_top, %rsp
        xor %ebp, %ebp
        call guest_main
1:      cli
        hlt
        jmp 1b

        .section .rodata
        .balign 8
boot_gdt:
        .quad 0
        .quad 0x00af9b000000ffff
        .quad 0x00cf93000000ffff
boot_gdt_pointer:
        .word . - boot_gdt - 1
        .quad boot_gdt

        .bss
        .balign 4096
        .globl boot_pml4, boot_command_line
boot_pml4:      .skip 4096
boot_pdpt:      .skip 4096
boot_pd:        .skip 4096
boot_pd_mmio:   .skip 4096
boot_stack:     .skip 16384
boot_stack_top:
boot_command_line: .skip COMMAND_LINE_MAX

        .section .note.GNU-stack, "", @progbits
