/*
 * Between the files of the AHCI controller: registers, frames, and what ports, commands and the adapter ask of each
 * other. Numbers in brackets are sections of AHCI 1.3.1.
 */
#ifndef DEVICES_AHCI_AHCI_INTERNAL_H
#define DEVICES_AHCI_AHCI_INTERNAL_H

#include "devices/ahci/ahci.h"

/* Registers of a port [3.3]. */
enum {
    PX_CLB = 0x00,
    PX_CLBU = 0x04,
    PX_FB = 0x08,
    PX_FBU = 0x0c,
    PX_IS = 0x10,
    PX_IE = 0x14,
    PX_CMD = 0x18,
    PX_TFD = 0x20,
    PX_SIG = 0x24,
    PX_SSTS = 0x28,
    PX_SCTL = 0x2c,
    PX_SERR = 0x30,
    PX_SACT = 0x34,
    PX_CI = 0x38
};

/* PxIS, PxIE */
#define IS_DHRS 0x00000001u /* a frame with registers */
#define IS_PSS  0x00000002u /* a PIO setup frame */
#define IS_SDBS 0x00000008u /* a frame that ends queued commands */
#define IS_DPS  0x00000020u /* a table's entry with an interrupt is done */
#define IS_PCS  0x00000040u /* PxSERR.DIAG.X */
#define IS_PRCS 0x00400000u /* PxSERR.DIAG.N */
#define IS_OFS  0x01000000u /* more data than the table has room for */
#define IS_IFS  0x08000000u /* the drive takes no such frame */
#define IS_HBFS 0x20000000u /* a pointer led nowhere */
#define IS_TFES 0x40000000u /* the drive reported an error */

#define IS_CLEARS 0xfd8000afu
#define IE_ALL    0xfdc000ffu

/* PxCMD */
#define CMD_ST        0x00000001u
#define CMD_SUD       0x00000002u
#define CMD_POD       0x00000004u
#define CMD_CLO       0x00000008u
#define CMD_FRE       0x00000010u
#define CMD_CCS_SHIFT 8
#define CMD_CCS       0x00001f00u
#define CMD_FR        0x00004000u
#define CMD_CR        0x00008000u
#define CMD_ATAPI     0x01000000u
#define CMD_DLAE      0x02000000u

#define TFD_NONE 0x7fu /* no drive has said anything */

#define SERR_DIAG_N 0x00010000u
#define SERR_DIAG_X 0x04000000u

#define DET_NONE    0
#define DET_RESET   1
#define DET_UP      3
#define DET_OFFLINE 4

/* Frames, and where those that are received go [4.2.1]. */
#define FIS_TO_DEVICE 0x27
#define FIS_TO_HOST   0x34
#define FIS_DMA_SETUP 0x41
#define FIS_PIO_SETUP 0x5f
#define FIS_DEV_BITS  0xa1

#define RECEIVED_DMA_SETUP 0x00
#define RECEIVED_PIO_SETUP 0x20
#define RECEIVED_TO_HOST   0x40
#define RECEIVED_DEV_BITS  0x58

#define FIS_INTERRUPT 0x40 /* byte 1 */
#define FIS_INWARDS   0x20

/* Between memory and buf; false: there is none, or the function may not master the bus. */
bool ahci_dma(struct ahci *a, gpa_t gpa, void *buf, size_t len, bool write);
/* Interrupts as the ports' registers have them now. `event`: something happened that another message is due for. */
void ahci_update(struct ahci *a, bool event);

/* devices/ahci/ahci_port.c */
void ahci_port_init(struct ahci_port *p, struct ahci *a, unsigned number);
/* As after power-on, or GHC.HR; the pointers to memory stay. */
void ahci_port_reset(struct ahci_port *p);
uint32_t ahci_port_read(const struct ahci_port *p, unsigned reg);
void ahci_port_write(struct ahci_port *p, unsigned reg, uint32_t value);
/* PxIS with the bits that follow PxSERR. */
uint32_t ahci_port_status(const struct ahci_port *p);
/* Sets bits of PxIS. */
void ahci_port_raise(struct ahci_port *p, uint32_t bits);
/* A pointer led nowhere: the port stands still. */
void ahci_port_lost(struct ahci_port *p);
/* A frame for the area of received frames. */
void ahci_port_receive(struct ahci_port *p, unsigned offset, const uint8_t *fis, size_t len);
/* The drive's registers as a frame, and in PxTFD. */
void ahci_port_receive_registers(struct ahci_port *p, bool interrupt);
/* The frame that a drive sends after a reset: PxSIG. */
void ahci_port_receive_signature(struct ahci_port *p);

/* devices/ahci/ahci_command.c */
extern const struct ata_host_ops ahci_host_ops;
/* Fetches commands, as long as the drive takes any. */
void ahci_port_fetch(struct ahci_port *p);
/* Forgets those that were fetched. */
void ahci_port_forget(struct ahci_port *p);
/* Of the timer. */
void ahci_queue_serve(void *port);

/* devices/ahci/ahci_state.c */
void ahci_port_save(const struct ahci_port *p, struct snap_writer *w);
void ahci_port_load(struct ahci_port *p, struct snap_reader *r);

#endif
