/*
 * EEPROM (a 64-word Microwire part behind EECD, or EERD) and PHY (behind MDIC).
 */
#include "devices/net/e1000_internal.h"

#include <string.h>

/* ---- EEPROM ---- */

#define EECD_SK  0x01u
#define EECD_CS  0x02u
#define EECD_DI  0x04u
#define EECD_DO  0x08u
#define EECD_REQ 0x40u
#define EECD_GNT 0x80u
#define EECD_PRE 0x100u /* there is one, of 64 words */

#define EEPROM_SUM     0xbaba
#define EEPROM_SUM_AT  63
#define MICROWIRE_READ 6 /* start bit and opcode */
#define COMMAND_BITS   9 /* and six bits of address */

#define OUT_BITS 17

#define EERD_START 0x01u
#define EERD_DONE  0x10u

void e1000_eeprom_init(struct e1000 *n)
{
    static const uint16_t fixed[] = {
        [0x0a] = 0x6408, [0x0b] = 0x001e, [0x0c] = 0x8086, [0x0d] = 0x100e, [0x0e] = 0x8086, [0x0f] = 0x3040};
    uint16_t *w = n->eeprom.word, sum = 0;
    memset(&n->eeprom, 0, sizeof n->eeprom);
    memcpy(w, fixed, sizeof fixed);
    for (unsigned i = 0; i < 3; i++)
        w[i] = (uint16_t)(n->cfg.mac[2 * i] | n->cfg.mac[2 * i + 1] << 8);
    for (unsigned i = 0; i < EEPROM_SUM_AT; i++)
        sum = (uint16_t)(sum + w[i]);
    w[EEPROM_SUM_AT] = (uint16_t)(EEPROM_SUM - sum);
}

uint32_t e1000_eecd_read(struct e1000 *n)
{
    struct e1000_eeprom *e = &n->eeprom;
    bool out = e->left ? e->out >> (OUT_BITS - 1) & 1 : true; /* an idle part pulls the pin up */
    return e->pins | EECD_PRE | (e->pins & EECD_REQ ? EECD_GNT : 0) | (out ? EECD_DO : 0);
}

/* A rising clock: a bit of the command in, or the next bit of the word out. */
static void eeprom_clock(struct e1000_eeprom *e)
{
    if (e->left) {
        e->out <<= 1;
        e->left--;
        return;
    }
    e->shift = e->shift << 1 | !!(e->pins & EECD_DI);
    if (!e->bits && !(e->shift & 1)) /* a start bit begins it */
        return;
    if (++e->bits < COMMAND_BITS)
        return;
    if ((e->shift >> 6 & 7) == MICROWIRE_READ) {
        e->out = e->word[e->shift & 63]; /* bit 16, a zero, goes before the word */
        e->left = OUT_BITS;
    }
    e->bits = 0;
    e->shift = 0;
}

void e1000_eecd_write(struct e1000 *n, uint32_t value)
{
    struct e1000_eeprom *e = &n->eeprom;
    uint32_t old = e->pins;
    e->pins = value & (EECD_SK | EECD_CS | EECD_DI | EECD_REQ);
    if (!(e->pins & EECD_CS)) {
        e->bits = e->left = 0;
        e->shift = 0;
    } else if (e->pins & ~old & EECD_SK) {
        eeprom_clock(e);
    }
}

void e1000_eerd_write(struct e1000 *n, uint32_t value)
{
    uint32_t at = value >> 8 & 0xff;
    if (!(value & EERD_START))
        return;
    *e1000_reg(n, E_EERD) =
        EERD_DONE | at << 8 | (at < E1000_EEPROM_WORDS ? (uint32_t)n->eeprom.word[at] << 16 : 0xffff0000u);
}

/* ---- PHY ---- */

#define MDIC_DATA  0x0000ffffu
#define MDIC_READ  0x08000000u
#define MDIC_WRITE 0x04000000u
#define MDIC_READY 0x10000000u
#define MDIC_IE    0x20000000u
#define MDIC_ERROR 0x40000000u
#define PHY_SELF   1

#define PHY_CONTROL    0
#define PHY_RESET      0x8000
#define PHY_RESTART_AN 0x0200

void e1000_phy_reset(struct e1000 *n)
{
    static const uint16_t start[E1000_PHY_REGISTERS] = {
        [0] = 0x1140,               /* control: 1000 Mb/s, full duplex, auto-negotiation */
        [1] = 0x796d,               /* status: negotiated, link up */
        [2] = 0x0141,               /* Marvell */
        [3] = 0x0c20,               /* 88E1011 as in the 82540EM */
        [4] = 0x0de1, [5] = 0xcde1, /* what both sides can do */
        [9] = 0x0e00, [10] = 0x3c00, [16] = 0x0360, [17] = 0xac08, /* 1000 Mb/s, full, resolved, link */
        [20] = 0x0d60};
    memcpy(n->phy, start, sizeof start);
}

static bool is_writable(unsigned reg)
{
    return reg == 0 || reg == 4 || reg == 9 || (reg >= 16 && reg != 17);
}

static void phy_write(struct e1000 *n, unsigned reg, uint16_t value)
{
    if (reg == PHY_CONTROL && value & PHY_RESET)
        e1000_phy_reset(n);
    else if (is_writable(reg))
        n->phy[reg] = reg == PHY_CONTROL ? value & (uint16_t)~PHY_RESTART_AN : value;
    if (reg == PHY_CONTROL && value & (PHY_RESTART_AN | PHY_RESET))
        e1000_cause(n, INT_LSC); /* the link is there at once */
}

void e1000_mdic_write(struct e1000 *n, uint32_t value)
{
    unsigned reg = value >> 16 & 31, phy = value >> 21 & 31;
    uint32_t done = (value & ~(MDIC_ERROR | MDIC_READY)) | MDIC_READY;
    if (phy != PHY_SELF)
        done |= MDIC_ERROR;
    else if (value & MDIC_READ)
        done = (done & ~MDIC_DATA) | n->phy[reg];
    else if (value & MDIC_WRITE)
        phy_write(n, reg, (uint16_t)value);
    *e1000_reg(n, E_MDIC) = done;
    if (value & MDIC_IE)
        e1000_cause(n, INT_MDAC);
}
