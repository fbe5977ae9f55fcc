#include "devices/kbc8042.h"

#include "core/snapshot.h"

#include <string.h>

#define STATUS_FULL    0x01
#define STATUS_SYSTEM  0x04
#define STATUS_COMMAND 0x08
#define STATUS_UNLOCK  0x10 /* keyboard lock switch open */

#define BYTE_IRQ      0x01
#define BYTE_SYSTEM   0x04
#define BYTE_DISABLED 0x10
#define BYTE_AUX_OFF  0x20
#define BYTE_XLATE    0x40

#define OUT_NORESET 0x01
#define OUT_A20     0x02
#define OUT_FULL    0x10
#define OUT_ONES    0xcc

#define CMD_READ_RAM   0x20 /* ..0x3f */
#define CMD_WRITE_RAM  0x60 /* ..0x7f */
#define CMD_AUX_OFF    0xa7
#define CMD_AUX_ON     0xa8
#define CMD_AUX_TEST   0xa9
#define CMD_SELF_TEST  0xaa
#define CMD_KBD_TEST   0xab
#define CMD_KBD_OFF    0xad
#define CMD_KBD_ON     0xae
#define CMD_READ_INPUT 0xc0
#define CMD_READ_OUT   0xd0
#define CMD_WRITE_OUT  0xd1
#define CMD_WRITE_KBD  0xd2
#define CMD_LOOP_AUX   0xd3
#define CMD_WRITE_AUX  0xd4
#define CMD_A20_OFF    0xdd
#define CMD_A20_ON     0xdf
#define CMD_PULSE      0xf0 /* ..0xff: low nibble names the lines not pulsed */

static void kbc_update(struct kbc8042 *k)
{
    bool level = (k->status & STATUS_FULL) && (k->ram[0] & BYTE_IRQ);
    if (level == k->irq_level)
        return;
    k->irq_level = level;
    irq_set(&k->cfg.irq, level);
}

static void kbc_answer(struct kbc8042 *k, uint8_t v)
{
    k->output = v;
    k->status |= STATUS_FULL;
    kbc_update(k);
}

static uint8_t output_port(const struct kbc8042 *k)
{
    return OUT_ONES | OUT_NORESET | (k->cfg.a20->open ? OUT_A20 : 0) | (k->status & STATUS_FULL ? OUT_FULL : 0);
}

static void write_output_port(struct kbc8042 *k, uint8_t v)
{
    a20_gate_set(k->cfg.a20, v & OUT_A20);
    if (!(v & OUT_NORESET))
        device_signal_raise(&k->cfg.reset);
}

static void simple_command(struct kbc8042 *k, uint8_t command)
{
    switch (command) {
    case CMD_AUX_OFF: /* no auxiliary port: its bit of the command byte stays "disabled" */
    case CMD_AUX_ON:
        break;
    case CMD_AUX_TEST:
        kbc_answer(k, 0x01); /* clock line stuck low */
        break;
    case CMD_SELF_TEST:
        k->status |= STATUS_SYSTEM;
        kbc_answer(k, 0x55);
        break;
    case CMD_KBD_TEST:
        kbc_answer(k, 0x00);
        break;
    case CMD_KBD_OFF:
        k->ram[0] |= BYTE_DISABLED;
        break;
    case CMD_KBD_ON:
        k->ram[0] &= (uint8_t)~BYTE_DISABLED;
        break;
    case CMD_READ_INPUT:
        kbc_answer(k, 0x80); /* keyboard not locked */
        break;
    case CMD_READ_OUT:
        kbc_answer(k, output_port(k));
        break;
    case CMD_A20_OFF:
    case CMD_A20_ON:
        a20_gate_set(k->cfg.a20, command == CMD_A20_ON);
        break;
    default:
        device_log(k->cfg.log, LOG_UNIMP, "kbc8042: command 0x%02x", command);
        break;
    }
}

static bool takes_parameter(uint8_t command)
{
    return (command >= CMD_WRITE_RAM && command < CMD_WRITE_RAM + 32) ||
           (command >= CMD_WRITE_OUT && command <= CMD_WRITE_AUX);
}

static void command_write8(void *dev, uint64_t offset, uint8_t v)
{
    struct kbc8042 *k = dev;
    k->status |= STATUS_COMMAND;
    k->pending = 0;
    if (takes_parameter(v))
        k->pending = v;
    else if (v >= CMD_READ_RAM && v < CMD_READ_RAM + 32)
        kbc_answer(k, k->ram[v & 31]);
    else if (v >= CMD_PULSE) {
        if (!(v & OUT_NORESET))
            device_signal_raise(&k->cfg.reset);
    } else
        simple_command(k, v);
}

static uint8_t command_read8(void *dev, uint64_t offset)
{
    struct kbc8042 *k = dev;
    return k->status | STATUS_UNLOCK;
}

static void data_write8(void *dev, uint64_t offset, uint8_t v)
{
    struct kbc8042 *k = dev;
    uint8_t command = k->pending;
    k->status &= (uint8_t)~STATUS_COMMAND;
    k->pending = 0;
    if (command == CMD_WRITE_OUT) {
        write_output_port(k, v);
    } else if (command == CMD_WRITE_KBD) {
        kbc_answer(k, v); /* as if the keyboard had sent it */
    } else if (command >= CMD_WRITE_RAM && command < CMD_WRITE_RAM + 32) {
        k->ram[command & 31] = command == CMD_WRITE_RAM ? v | BYTE_AUX_OFF : v;
        k->status = (k->status & (uint8_t)~STATUS_SYSTEM) | (k->ram[0] & BYTE_SYSTEM);
        kbc_update(k);
    }
    /* Bytes for the keyboard and for the auxiliary port find nobody. */
}

static uint8_t data_read8(void *dev, uint64_t offset)
{
    struct kbc8042 *k = dev;
    k->status &= (uint8_t)~STATUS_FULL;
    kbc_update(k);
    return k->output;
}

DEVICE_BYTE_BUS_OPS(kbc8042_data_bus_ops, data_read8, data_write8);
DEVICE_BYTE_BUS_OPS(kbc8042_command_bus_ops, command_read8, command_write8);

void kbc8042_init(struct kbc8042 *k, const struct kbc8042_config *cfg)
{
    memset(k, 0, sizeof(*k));
    k->cfg = *cfg;
    kbc8042_reset(k);
}

void kbc8042_reset(struct kbc8042 *k)
{
    memset(k->ram, 0, sizeof(k->ram));
    k->ram[0] = BYTE_SYSTEM | BYTE_AUX_OFF | BYTE_XLATE | BYTE_IRQ; /* as firmware leaves it */
    k->status = STATUS_SYSTEM;
    k->output = k->pending = 0;
    kbc_update(k);
}

void kbc8042_save(const struct kbc8042 *k, struct snap_writer *w)
{
    snap_begin(w, "kbc8042", 1);
    snap_put_bytes(w, k->ram, sizeof(k->ram));
    snap_put_u8(w, k->status);
    snap_put_u8(w, k->output);
    snap_put_u8(w, k->pending);
    snap_put_u8(w, k->irq_level);
    snap_end(w);
}

void kbc8042_load(struct kbc8042 *k, struct snap_reader *r)
{
    if (!snap_expect(r, "kbc8042", 1))
        return;
    snap_get_bytes(r, k->ram, sizeof(k->ram));
    k->status = snap_get_u8(r);
    k->output = snap_get_u8(r);
    k->pending = snap_get_u8(r);
    k->irq_level = snap_get_u8(r) != 0;
}
