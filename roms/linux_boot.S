/*
 * Option ROM that boots Linux by its 16-bit entry (Documentation/arch/x86/boot.rst): firmware finds it as file genroms/umbra-linux.bin
 * of fw_cfg, copies it below 1 MiB and, when its turn in the boot order comes, calls the boot entry vector of its PnP
 * header (BIOS Boot Specification 1.01, section 3.3).
 *
 * It fetches setup code, kernel, command line and initrd by fw_cfg's DMA interface, and jumps to the setup code in real
 * mode. The machine has filled in `params` (frontends/machine/boot_bios.c) and all of the header but the initrd's
 * address, which depends on what memory the BIOS leaves free. The ROM is read-only here: all that changes is on the
 * stack, which is the setup code's own.
 *
 * All of it is one object in the program's read-only data; addresses in it are relative to its first byte, where CS
 * and DS point.
 */
#define ROM_SIZE 1024

#define FW_CFG_DMA      0x514
#define FW_CFG_SELECT   0x08
#define FW_CFG_READ     0x02
#define FW_CFG_ERROR_BE 0x01000000
#define KEY_KERNEL      0x11
#define KEY_INITRD      0x12
#define KEY_CMDLINE     0x15
#define KEY_SETUP       0x18

#define HDR_RAMDISK_IMAGE 0x218

#define SMAP     0x534d4150
#define E820_RAM 1

#define AT(label) (label - linux_rom_start)

    .code16
    .section .rodata.linux_rom, "a", @progbits
    .balign 16
    .globl linux_rom_start, linux_rom_params, linux_rom_end
    .hidden linux_rom_start, linux_rom_params, linux_rom_end

linux_rom_start:
    .byte   0x55, 0xaa, ROM_SIZE / 512
    jmp     init
    .org    linux_rom_start + 0x06 /* the checksum, which the machine sets */
    .byte   0
    .org    linux_rom_start + 0x1a
    .word   AT(pnp)
    .balign 16
pnp:
    .ascii  "$PnP"
    .byte   1, 2        /* revision; length in units of 16 bytes */
    .word   0           /* no other header */
    .byte   0, 0        /* reserved; checksum, which the machine sets */
    .long   0           /* device */
    .word   AT(maker), AT(product)
    .byte   2, 0x80, 0  /* a storage controller of no particular kind */
    .byte   0x14        /* may be an initial program load device, needs its ROM copied */
    .word   0, 0        /* no boot connection vector, no disconnect vector */
    .word   AT(boot)    /* boot entry vector */
    .word   0, 0

linux_rom_params:
setup_segment:  .word 0
setup_stack:    .word 0 /* SP that the setup code starts with */
setup_size:     .long 0
kernel_address: .long 0
kernel_size:    .long 0
cmdline_address: .long 0
cmdline_size:   .long 0
initrd_size:    .long 0
initrd_floor:   .long 0 /* the initrd lies from here on, */
initrd_limit:   .long 0 /* and ends at or below this */

maker:   .asciz "Umbra"
product: .asciz "Linux by -kernel"

init:
    xorw    %ax, %ax
    lretw

boot:
    cld
    movw    %cs, %ax
    movw    %ax, %ds
    movw    AT(setup_segment), %ax
    movw    %ax, %ss
    movw    AT(setup_stack), %sp
    movzwl  %ax, %edi
    shll    $4, %edi
    movl    AT(setup_size), %ecx
    movw    $KEY_SETUP, %ax
    call    fetch
    movl    AT(kernel_address), %edi
    movl    AT(kernel_size), %ecx
    movw    $KEY_KERNEL, %ax
    call    fetch
    movl    AT(cmdline_address), %edi
    movl    AT(cmdline_size), %ecx
    movw    $KEY_CMDLINE, %ax
    call    fetch
    movl    AT(initrd_size), %ecx
    testl   %ecx, %ecx
    jz      enter
    call    initrd_find
    movl    %edi, %ss:HDR_RAMDISK_IMAGE
    movl    AT(initrd_size), %ecx
    movw    $KEY_INITRD, %ax
    call    fetch

/* All data segments on the setup code, interrupts off, CS 20H paragraphs further on. */
enter:
    cli
    movw    %ss, %ax
    movw    %ax, %bx
    addw    $0x20, %bx
    pushw   %bx
    pushw   $0
    movw    %ax, %ds
    movw    %ax, %es
    movw    %ax, %fs
    movw    %ax, %gs
    lretw

/*
 * ECX bytes of the item with key AX to address EDI. The request lies on the stack; all its numbers are big-endian:
 * control word, length, address of 64 bits. Changes EAX, EDX, BP.
 */
fetch:
    movl    %edi, %edx
    bswapl  %edx
    pushl   %edx
    pushl   $0
    movl    %ecx, %edx
    bswapl  %edx
    pushl   %edx
    shll    $16, %eax
    movb    $(FW_CFG_SELECT | FW_CFG_READ), %al
    bswapl  %eax
    pushl   %eax
    xorl    %eax, %eax
    movw    $FW_CFG_DMA, %dx
    outl    %eax, %dx           /* upper half of the request's address */
    movw    %sp, %bp
    movw    %ss, %ax
    shll    $4, %eax
    movzwl  %sp, %edx
    addl    %edx, %eax
    bswapl  %eax
    movw    $(FW_CFG_DMA + 4), %dx
    outl    %eax, %dx           /* lower half, which starts it */
1:  movl    (%bp), %eax         /* 0: done */
    testl   $FW_CFG_ERROR_BE, %eax
    jnz     no_data
    testl   %eax, %eax
    jnz     1b
    addw    $16, %sp
    ret

/*
 * The highest page below initrd_limit, in RAM by the BIOS's memory map, from which the initrd has room: in EDI. Changes
 * all other registers.
 */
initrd_find:
    movw    %sp, %bp
    subw    $20, %sp            /* an entry: base and length of 64 bits, kind */
    pushw   %ss
    popw    %es
    xorl    %esi, %esi          /* the best so far */
    xorl    %ebx, %ebx
1:  movl    $0xe820, %eax
    movl    $SMAP, %edx
    movl    $20, %ecx
    leaw    -20(%bp), %di
    int     $0x15
    jc      4f
    cmpl    $SMAP, %eax
    jne     4f
    cmpl    $E820_RAM, -4(%bp)
    jne     3f
    cmpl    $0, -16(%bp)        /* begins at 4 GiB or later */
    jne     3f
    movl    -20(%bp), %edx
    movl    %edx, %eax
    addl    -12(%bp), %eax
    movl    -8(%bp), %ecx
    adcl    $0, %ecx
    jnz     2f                  /* goes on beyond 4 GiB */
    cmpl    AT(initrd_limit), %eax
    jbe     5f
2:  movl    AT(initrd_limit), %eax
5:  subl    AT(initrd_size), %eax
    jc      3f
    andl    $0xfffff000, %eax
    cmpl    %edx, %eax
    jb      3f
    cmpl    AT(initrd_floor), %eax
    jb      3f
    cmpl    %esi, %eax
    jbe     3f
    movl    %eax, %esi
3:  testl   %ebx, %ebx
    jnz     1b
4:  movw    %bp, %sp
    movl    %esi, %edi
    testl   %edi, %edi
    jz      no_room
    ret

no_data:
    movw    $AT(no_data_text), %si
    jmp     fail
no_room:
    movw    $AT(no_room_text), %si
fail:
    lodsb
    testb   %al, %al
    jz      1f
    movb    $0x0e, %ah
    movw    $7, %bx
    int     $0x10
    jmp     fail
1:  cli
    hlt
    jmp     1b

no_data_text: .asciz "umbra-linux: fw_cfg does not deliver\r\n"
no_room_text: .asciz "umbra-linux: no room for the initrd; use a larger -m\r\n"

    .org    linux_rom_start + ROM_SIZE
linux_rom_end:

    .section .note.GNU-stack, "", @progbits
