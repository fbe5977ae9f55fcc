/*
 * Between the files of the 82540EM: registers and their bits, and what one file does for the others.
 */
#ifndef DEVICES_NET_E1000_INTERNAL_H
#define DEVICES_NET_E1000_INTERNAL_H

#include "devices/net/e1000.h"

/* Offsets of registers. */
enum {
    E_CTRL = 0x0000,
    E_STATUS = 0x0008,
    E_EECD = 0x0010,
    E_EERD = 0x0014,
    E_MDIC = 0x0020,
    E_VET = 0x0038,
    E_ICR = 0x00c0,
    E_ITR = 0x00c4,
    E_ICS = 0x00c8,
    E_IMS = 0x00d0,
    E_IMC = 0x00d8,
    E_RCTL = 0x0100,
    E_TCTL = 0x0400,
    E_LEDCTL = 0x0e00,
    E_PBA = 0x1000,
    E_RDBAL = 0x2800,
    E_RDBAH = 0x2804,
    E_RDLEN = 0x2808,
    E_RDH = 0x2810,
    E_RDT = 0x2818,
    E_TDBAL = 0x3800,
    E_TDBAH = 0x3804,
    E_TDLEN = 0x3808,
    E_TDH = 0x3810,
    E_TDT = 0x3818,
    E_STATS = 0x4000,
    E_MPC = 0x4010,
    E_GPRC = 0x4074,
    E_BPRC = 0x4078,
    E_MPRC = 0x407c,
    E_GPTC = 0x4080,
    E_GORCL = 0x4088,
    E_GORCH = 0x408c,
    E_GOTCL = 0x4090,
    E_GOTCH = 0x4094,
    E_TPR = 0x40d0,
    E_TPT = 0x40d4,
    E_STATS_END = 0x4100,
    E_MTA = 0x5200, /* 128 words */
    E_RA = 0x5400,  /* 16 pairs */
    E_VFTA = 0x5600,
    E_END = 0x8000 /* of those that are stored */
};

#define CTRL_SLU     0x00000040u
#define CTRL_RST     0x04000000u
#define CTRL_PHY_RST 0x80000000u

#define STATUS_FD       0x00000001u
#define STATUS_LU       0x00000002u
#define STATUS_SPEED_1G 0x00000080u

#define INT_TXDW   0x00000001u
#define INT_TXQE   0x00000002u
#define INT_LSC    0x00000004u
#define INT_RXO    0x00000040u
#define INT_RXT0   0x00000080u
#define INT_MDAC   0x00000200u
#define INT_ALL    0x0001ffffu
#define INT_ASSERT 0x80000000u

#define RCTL_EN    0x00000002u
#define RCTL_UPE   0x00000008u
#define RCTL_MPE   0x00000010u
#define RCTL_MO    12 /* shift of the two bits that choose the multicast hash */
#define RCTL_BAM   0x00008000u
#define RCTL_BSIZE 16 /* shift */
#define RCTL_BSEX  0x02000000u
#define RCTL_SECRC 0x04000000u

#define TCTL_EN  0x00000002u
#define TCTL_PSP 0x00000008u

#define RA_VALID 0x80000000u

#define DESC_BYTES 16
#define RING_MAX   0x100000u /* bytes of a ring, RDLEN and TDLEN */

static inline uint32_t *e1000_reg(struct e1000 *n, unsigned at)
{
    return &n->reg[at / 4];
}

static inline uint64_t e1000_le(const uint8_t *p, unsigned size)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < size; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

/* DMA from and to memory alone. False, and a line in the log: there is none. */
bool e1000_dma(struct e1000 *n, gpa_t gpa, void *buf, size_t len, bool write);
/* Causes an interrupt for these bits of ICR. */
void e1000_cause(struct e1000 *n, uint32_t bits);
/* Services the rings after the latency. */
void e1000_kick(struct e1000 *n);
/* A counter that sticks at its end; and one of 64 bits. */
void e1000_count(struct e1000 *n, unsigned at, uint32_t by);
void e1000_count64(struct e1000 *n, unsigned at, uint32_t by);

/* e1000_tx.c: descriptors from head to tail. */
void e1000_transmit(struct e1000 *n);
/* e1000_rx.c: frames that wait, as long as there are descriptors. */
void e1000_deliver(struct e1000 *n);
/* e1000_eeprom.c */
void e1000_eeprom_init(struct e1000 *n);
void e1000_phy_reset(struct e1000 *n);
uint32_t e1000_eecd_read(struct e1000 *n);
void e1000_eecd_write(struct e1000 *n, uint32_t value);
void e1000_eerd_write(struct e1000 *n, uint32_t value);
void e1000_mdic_write(struct e1000 *n, uint32_t value);

#endif
