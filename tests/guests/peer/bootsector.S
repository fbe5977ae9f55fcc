// Boot sector that starts a Multiboot image from a hard disk, for processors' simulators that have no loader of their own.
// peer/bochs.py puts it in front of the image and fills in the three values at `parameters`.
//
// The image is read piece by piece below 1 MiB and copied up in protected mode; then it is entered as a Multiboot loader
// would, with a command line.

        .code16
        .globl _start
_start:
        cli
        cld
        xor %ax, %ax
        mov %ax, %ds
        mov %ax, %es
        mov %ax, %ss
        mov $0x7c00, %sp
        in $0x92, %al                   // A20
        or $2, %al
        out %al, $0x92
next:
        mov $packet, %si
        mov $0x42, %ah
        mov $0x80, %dl
        int $0x13
        jc stop
        cli
        lgdt table
        mov %cr0, %eax
        or $1, %al
        mov %eax, %cr0
        ljmp $8, $copy
        .code32
copy:
        mov $16, %ax
        mov %ax, %ds
        mov %ax, %es
        mov $0x10000, %esi
        mov target, %edi
        mov $(64 * 512 / 4), %ecx
        rep movsl
        mov %edi, target
        addl $64, packet + 8
        decl pieces
        jz go
        ljmp $24, $back
        .code16
back:
        mov %cr0, %eax
        and $0xfe, %al
        mov %eax, %cr0
        ljmp $0, $real
real:
        xor %ax, %ax
        mov %ax, %ds
        mov %ax, %es
        sti
        jmp next
stop:   hlt
        jmp stop
        .code32
go:
        mov %ax, %ss
        mov %ax, %fs
        mov %ax, %gs
        mov $0x2badb002, %eax
        mov $information, %ebx
        mov entry, %ecx
        jmp *%ecx

        .balign 4
packet: .byte 16, 0
        .word 64, 0, 0x1000             // 64 sectors to 1000:0
        .quad 2                         // the first block after the command line's
        .balign 8
gdt:    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00009b000000ffff
table:  .word . - gdt - 1
        .long gdt
        .balign 4
target: .long 0x100000
information: .long 4, 0, 0, 0, command
        .org 0x150
        .globl parameters
parameters:
entry:  .long 0
pieces: .long 0
command: .skip 0xa0
        .org 0x1fe
        .word 0xaa55
