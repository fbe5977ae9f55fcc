/*
 * Every address and interrupt number of the PC, in one place. The machine builder places devices by it and the ACPI
 * tables describe it; devices themselves never include it.
 */
#ifndef DEVICES_LAYOUT_H
#define DEVICES_LAYOUT_H

/* ---- Ports: base and length ---- */
#define LAYOUT_PIC_MASTER_PORT    0x20 /* pic8259_bus_ops, &pic->chip[0] */
#define LAYOUT_PIC_SLAVE_PORT     0xa0 /* pic8259_bus_ops, &pic->chip[1] */
#define LAYOUT_PIC_PORTS          2
#define LAYOUT_ELCR_PORT          0x4d0 /* pic8259_elcr_bus_ops, pic */
#define LAYOUT_ELCR_PORTS         2
#define LAYOUT_PIT_PORT           0x40 /* pit8254_bus_ops */
#define LAYOUT_PIT_PORTS          4
#define LAYOUT_SPEAKER_PORT       0x61 /* pit8254_speaker_bus_ops, the same pit */
#define LAYOUT_SPEAKER_PORTS      1
#define LAYOUT_KBC_DATA_PORT      0x60 /* kbc8042_data_bus_ops */
#define LAYOUT_KBC_COMMAND_PORT   0x64 /* kbc8042_command_bus_ops */
#define LAYOUT_KBC_PORTS          1
#define LAYOUT_RTC_PORT           0x70 /* rtc_cmos_bus_ops */
#define LAYOUT_RTC_PORTS          2
#define LAYOUT_PORT92_PORT        0x92 /* port92_bus_ops */
#define LAYOUT_PORT92_PORTS       1
#define LAYOUT_FPU_PORT           0xf0 /* fpu_error_bus_ops */
#define LAYOUT_SMI_PORT           0xb2 /* acpi_pm_smi_bus_ops */
#define LAYOUT_SMI_PORTS          2
#define LAYOUT_DEBUG_CONSOLE_PORT 0xe9 /* debug_console_bus_ops */
#define LAYOUT_DEBUG_EXIT_PORT    0xf4 /* debug_exit_bus_ops; the usual iobase */
#define LAYOUT_DEBUG_EXIT_PORTS   4
#define LAYOUT_COM1_PORT          0x3f8 /* uart16550_bus_ops */
#define LAYOUT_COM2_PORT          0x2f8
#define LAYOUT_COM3_PORT          0x3e8
#define LAYOUT_COM4_PORT          0x2e8
#define LAYOUT_COM_PORTS          8
#define LAYOUT_IDE0_PORT          0x1f0 /* ide_command_bus_ops */
#define LAYOUT_IDE0_CONTROL       0x3f6 /* ide_control_bus_ops */
#define LAYOUT_IDE1_PORT          0x170
#define LAYOUT_IDE1_CONTROL       0x376
#define LAYOUT_IDE_PORTS          8
#define LAYOUT_FDC_PORT           0x3f0 /* fdc_bus_ops */
#define LAYOUT_FDC_PORTS          6
#define LAYOUT_FDC_DIR_PORT       0x3f7 /* fdc_dir_bus_ops */
#define LAYOUT_DMA_LOW_PORT       0x00  /* dma8237_low_bus_ops */
#define LAYOUT_DMA_LOW_PORTS      16
#define LAYOUT_DMA_HIGH_PORT      0xc0 /* dma8237_high_bus_ops */
#define LAYOUT_DMA_HIGH_PORTS     32
#define LAYOUT_DMA_PAGE_PORT      0x80 /* dma8237_page_bus_ops */
#define LAYOUT_DMA_PAGE_PORTS     16
#define LAYOUT_FIRMWARE_LOG_PORT  0x402 /* firmware_log_bus_ops */
#define LAYOUT_FW_CFG_PORT        0x510 /* fw_cfg_bus_ops */
#define LAYOUT_FW_CFG_PORTS       2
#define LAYOUT_FW_CFG_DMA_PORT    0x514 /* fw_cfg_dma_bus_ops */
#define LAYOUT_FW_CFG_DMA_PORTS   8
#define LAYOUT_ACPI_PM_PORT       0x600  /* placed by the PIIX4 PM function: pci_host_set_pm_base() */
#define LAYOUT_ACPI_PM_PORT_OVMF  0xb000 /* where OVMF places it instead (OvmfPkg: PIIX4_PMBA_VALUE) */
#define LAYOUT_ACPI_PM_PORTS      64
#define LAYOUT_PCI_CONFIG_PORT    0xcf8 /* pci_host_bus_ops; a byte access at 0xcf9 is passed on to reset_cf9 */
#define LAYOUT_PCI_CONFIG_PORTS   8
#define LAYOUT_VGA_MONO_PORT      0x3b0  /* vga_mono_bus_ops */
#define LAYOUT_VGA_PORT           0x3c0  /* vga_ports_bus_ops */
#define LAYOUT_VGA_DISPI_PORT     0x1ce  /* vga_dispi_bus_ops */
#define LAYOUT_TESTDEV_WORD_PORT  0xe0   /* testdev_word_bus_ops */
#define LAYOUT_TESTDEV_FLUSH_PORT 0xe4   /* testdev_flush_bus_ops */
#define LAYOUT_TESTDEV_BYTE_PORT  0xe8   /* testdev_byte_bus_ops */
#define LAYOUT_TESTDEV_IRQ_PORT   0x2000 /* testdev_irq_bus_ops */
#define LAYOUT_PCI_IO             0xc000 /* where BARs of ports begin */

/* ---- Guest-physical memory ---- */
#define LAYOUT_BDA_EBDA         0x0000040eu /* BIOS data area: segment of the extended one */
#define LAYOUT_BDA_BASE_MEMORY  0x00000413u /* KiB below it */
#define LAYOUT_EBDA             0x0009fc00u /* one KiB; the MP floating pointer is in it */
#define LAYOUT_MP_POINTER       0x0009fc10u
#define LAYOUT_BDA_VIDEO_MODE   0x00000449u /* then columns, as a word */
#define LAYOUT_BDA_CRTC_PORT    0x00000463u
#define LAYOUT_BDA_ROWS         0x00000484u /* less one; then a character's height, as a word */
#define LAYOUT_VGA_WINDOW       0x000a0000u /* vga_window_bus_ops */
#define LAYOUT_ACPI_TABLES      0x000e0000u /* RSDP first, the MP table last; reserved in the memory map */
#define LAYOUT_ACPI_TABLES_SIZE 0x00010000u
#define LAYOUT_SMBIOS           0x000f0000u /* without firmware: entry point first; reserved as well */
#define LAYOUT_SMBIOS_SIZE      0x00010000u
#define LAYOUT_LOW_RAM_MAX      0xc0000000u /* RAM beyond this goes above 4 GiB */
#define LAYOUT_PCI_MMIO         0xc0000000u /* window for BARs */
#define LAYOUT_PCI_MMIO_LOW     0x80000000u /* where it begins with firmware, if RAM ends there or below */
#define LAYOUT_PCI_MMIO_END     0xfebfffffu /* last byte of it */
#define LAYOUT_IOAPIC           0xfec00000u /* ioapic_bus_ops */
#define LAYOUT_TESTDEV_MEMORY   0xff000000u /* testdev_memory_bus_ops */
#define LAYOUT_IOAPIC_SIZE      0x1000u
#define LAYOUT_HPET             0xfed00000u /* hpet_bus_ops */
#define LAYOUT_LAPIC            0xfee00000u /* lapic_bus_ops, the lapic_set */
#define LAYOUT_LAPIC_SIZE       0x1000u

/* ---- ISA interrupts (isa_irq_line), and the GSIs that differ from them ---- */
#define LAYOUT_IRQ_PIT      0
#define LAYOUT_IRQ_KEYBOARD 1
#define LAYOUT_IRQ_CASCADE  2
#define LAYOUT_IRQ_COM2     3 /* COM4 too */
#define LAYOUT_IRQ_COM1     4 /* COM3 too */
#define LAYOUT_IRQ_FLOPPY   6
#define LAYOUT_IRQ_RTC      8
#define LAYOUT_IRQ_SCI      9 /* level, active high */
#define LAYOUT_IRQ_MOUSE    12
#define LAYOUT_IRQ_FPU      13
#define LAYOUT_IRQ_IDE0     14
#define LAYOUT_IRQ_IDE1     15
#define LAYOUT_IRQ_PIRQ_A   10 /* where firmware (SeaBIOS and OVMF too) routes PIRQA and PIRQB on the 8259 */
#define LAYOUT_IRQ_PIRQ_C   11 /* PIRQC and PIRQD */
#define LAYOUT_GSI_PIT      2
#define LAYOUT_GSI_PIRQ     16      /* PIRQA..PIRQD are IOAPIC pins 16..19 */
#define LAYOUT_ELCR_BOOT    0x0e00u /* IRQ 9, 10 and 11 level-triggered, as firmware leaves ELCR */

/* ---- PCI functions, as device << 3 | function ---- */
#define LAYOUT_PCI_HOST_DEVFN 0x00
#define LAYOUT_PCI_ISA_DEVFN  0x08
#define LAYOUT_PCI_IDE_DEVFN  0x09
#define LAYOUT_PCI_PM_DEVFN   0x0b
#define LAYOUT_PCI_VGA_DEVFN  0x10

/* ---- ACPI fixed values ---- */
#define LAYOUT_ACPI_ENABLE  0xf1
#define LAYOUT_ACPI_DISABLE 0xf0
#define LAYOUT_CMOS_CENTURY 0x32
#define LAYOUT_RESET_PORT   0xcf9
#define LAYOUT_RESET_VALUE  0x06

#define LAYOUT_IOAPIC_ID 0

/* 2020-01-01 00:00:00 UTC: the RTC at power-on unless -rtc base= says otherwise. */
#define LAYOUT_RTC_BASE 1577836800ll

#endif
