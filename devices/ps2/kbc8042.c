#include "devices/ps2/kbc8042.h"

#include "core/snapshot.h"

#include <string.h>

#define STATUS_FULL    0x01
#define STATUS_SYSTEM  0x04
#define STATUS_COMMAND 0x08
#define STATUS_UNLOCK  0x10 /* keyboard lock switch open */
#define STATUS_AUX     0x20

#define BYTE_IRQ      0x01
#define BYTE_AUX_IRQ  0x02
#define BYTE_SYSTEM   0x04
#define BYTE_DISABLED 0x10
#define BYTE_AUX_OFF  0x20
#define BYTE_XLATE    0x40

#define OUT_NORESET  0x01
#define OUT_A20      0x02
#define OUT_FULL     0x10
#define OUT_AUX_FULL 0x20
#define OUT_ONES     0xcc

#define CMD_READ_RAM   0x20 /* ..0x3f */
#define CMD_WRITE_RAM  0x60 /* ..0x7f */
#define CMD_PASSWORD   0xa4 /* is there one? */
#define CMD_LOAD_PASS  0xa5
#define CMD_LOCK       0xa6
#define CMD_AUX_OFF    0xa7
#define CMD_AUX_ON     0xa8
#define CMD_AUX_TEST   0xa9
#define CMD_SELF_TEST  0xaa
#define CMD_KBD_TEST   0xab
#define CMD_KBD_OFF    0xad
#define CMD_KBD_ON     0xae
#define CMD_READ_INPUT 0xc0
#define CMD_POLL_LOW   0xc1
#define CMD_POLL_HIGH  0xc2
#define CMD_READ_OUT   0xd0
#define CMD_WRITE_OUT  0xd1
#define CMD_WRITE_KBD  0xd2
#define CMD_LOOP_AUX   0xd3
#define CMD_WRITE_AUX  0xd4
#define CMD_A20_OFF    0xdd
#define CMD_A20_ON     0xdf
#define CMD_TEST_LINES 0xe0
#define CMD_PULSE      0xf0 /* ..0xff: low nibble names the lines not pulsed */

/* Bytes of the RAM that belong to the password: sent when it is turned on and when it was typed (0: nothing), codes
 * that are not a part of it. */
#define RAM_LOCKED   0x13
#define RAM_UNLOCKED 0x14
#define RAM_IGNORED  0x16 /* and 17H */

#define INPUT_PORT 0x80 /* keyboard not locked */

#define ANSWER_AUX 0x100
#define BREAK      0xf0

/* What the controller's firmware makes of the codes of set 2. */
static const uint8_t set1_of_set2[0x80] = {
    0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29, 0x59, 0x65, 0x38, 0x2a,
    0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03, 0x5b, 0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05,
    0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14, 0x13, 0x06, 0x5d, 0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a,
    0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5f, 0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35, 0x26,
    0x27, 0x19, 0x0c, 0x61, 0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36, 0x1c, 0x1b, 0x75, 0x2b, 0x63,
    0x76, 0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c, 0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f, 0x52, 0x53,
    0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, 0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54};

/* ---- the output buffer ---- */

static void drive(struct irq_line *line, bool *was, bool level)
{
    if (*was == level)
        return;
    *was = level;
    irq_set(line, level);
}

static void kbc_update(struct kbc8042 *k)
{
    bool full = k->status & STATUS_FULL, aux = k->status & STATUS_AUX;
    drive(&k->cfg.irq, &k->irq_level, full && !aux && k->ram[0] & BYTE_IRQ);
    drive(&k->cfg.aux_irq, &k->aux_level, full && aux && k->ram[0] & BYTE_AUX_IRQ);
}

static void show(struct kbc8042 *k, uint8_t byte, bool aux)
{
    k->output = byte;
    k->status = (k->status & (uint8_t)~STATUS_AUX) | STATUS_FULL | (aux ? STATUS_AUX : 0);
    kbc_update(k);
}

/* A byte of the keyboard as the system sees it. False: it is a prefix, and will be part of the next. */
static bool translate(struct kbc8042 *k, uint8_t *byte)
{
    if (!(k->ram[0] & BYTE_XLATE))
        return true;
    if (*byte == BREAK) {
        k->breaks = true;
        return false;
    }
    uint8_t code = *byte < 0x80 ? set1_of_set2[*byte] : *byte == 0x83 ? 0x41 : *byte == 0x84 ? 0x54 : *byte;
    *byte = k->breaks ? code | 0x80 : code;
    k->breaks = false;
    return true;
}

static void answer_as(struct kbc8042 *k, uint16_t a);

/* With the password on: is the byte a part of it? Only make codes count. */
static void take_password(struct kbc8042 *k, uint8_t code)
{
    if (code & 0x80 || code == k->ram[RAM_IGNORED] || code == k->ram[RAM_IGNORED + 1])
        return;
    if (code != k->password[k->matched])
        k->matched = code == k->password[0];
    else
        k->matched++;
    if (k->matched < k->password_len)
        return;
    k->locked = false;
    k->matched = 0;
    if (k->ram[RAM_UNLOCKED])
        answer_as(k, k->ram[RAM_UNLOCKED]);
}

static bool keyboard_sends(const struct kbc8042 *k)
{
    return k->cfg.keyboard && k->cfg.keyboard->out.count && !(k->ram[0] & BYTE_DISABLED);
}

static bool mouse_sends(const struct kbc8042 *k)
{
    return k->cfg.mouse && k->cfg.mouse->out.count && !(k->ram[0] & BYTE_AUX_OFF);
}

static void send_byte(struct kbc8042 *k)
{
    bool sent = false;
    while (!sent && keyboard_sends(k)) {
        uint8_t byte = ps2_queue_take(&k->cfg.keyboard->out);
        bool whole = translate(k, &byte);
        sent = whole && !k->locked;
        if (sent)
            show(k, byte, false);
        else if (whole)
            take_password(k, byte);
        ps2_keyboard_taken(k->cfg.keyboard);
        if (k->status & STATUS_FULL)
            return;
    }
    if (!sent && mouse_sends(k)) {
        show(k, ps2_queue_take(&k->cfg.mouse->out), true);
        ps2_mouse_taken(k->cfg.mouse);
    }
}

/* Fills the output buffer if it is empty and there is something for it. */
static void pump(struct kbc8042 *k)
{
    if (k->status & STATUS_FULL)
        return;
    if (k->answers) {
        uint16_t a = k->answer[0];
        memmove(k->answer, k->answer + 1, --k->answers * sizeof k->answer[0]);
        show(k, (uint8_t)a, a & ANSWER_AUX);
        return;
    }
    if (!keyboard_sends(k) && !mouse_sends(k))
        return;
    uint64_t now = clock_now(k->cfg.clock);
    if (now < k->next_byte) {
        timer_arm(k->cfg.clock, &k->timer, k->next_byte);
        return;
    }
    k->next_byte = now + KBC_BYTE_TIME;
    send_byte(k);
}

static void timer_due(void *opaque)
{
    pump(opaque);
}

void kbc8042_ready(void *kbc)
{
    struct kbc8042 *k = kbc;
    if (k->status & STATUS_FULL || k->answers)
        return;
    if (k->next_byte < clock_now(k->cfg.clock) + KBC_BYTE_TIME) /* a wire takes its time */
        k->next_byte = clock_now(k->cfg.clock) + KBC_BYTE_TIME;
    timer_arm(k->cfg.clock, &k->timer, k->next_byte);
}

static void answer_as(struct kbc8042 *k, uint16_t a)
{
    if (k->answers < KBC_ANSWERS)
        k->answer[k->answers++] = a;
    pump(k);
}

static void kbc_answer(struct kbc8042 *k, uint8_t v)
{
    answer_as(k, v);
}

/* ---- commands ---- */

static uint8_t output_port(const struct kbc8042 *k)
{
    uint8_t full = !(k->status & STATUS_FULL) ? 0 : k->status & STATUS_AUX ? OUT_AUX_FULL : OUT_FULL;
    return OUT_ONES | OUT_NORESET | (k->cfg.a20->open ? OUT_A20 : 0) | full;
}

static void write_output_port(struct kbc8042 *k, uint8_t v)
{
    a20_gate_set(k->cfg.a20, v & OUT_A20);
    if (!(v & OUT_NORESET))
        device_signal_raise(&k->cfg.reset);
}

/* Bits of the command byte that turn the ports off. Without a mouse its port stays off. */
static void set_command_byte(struct kbc8042 *k, uint8_t v)
{
    k->ram[0] = k->cfg.mouse ? v : v | BYTE_AUX_OFF;
    kbc_update(k);
    pump(k);
}

static void lock(struct kbc8042 *k)
{
    if (!k->password_len)
        return;
    k->locked = true;
    k->matched = 0;
    if (k->ram[RAM_LOCKED])
        kbc_answer(k, k->ram[RAM_LOCKED]);
}

/* A code of the new password; 0 ends it. */
static void load_password(struct kbc8042 *k, uint8_t code)
{
    if (!code)
        return;
    if (k->password_len < KBC_PASSWORD)
        k->password[k->password_len++] = code;
    else
        device_log(k->cfg.log, LOG_GUEST_ERROR, "kbc8042: a password of more than %u codes", KBC_PASSWORD);
    k->pending = CMD_LOAD_PASS;
}

static void simple_command(struct kbc8042 *k, uint8_t command)
{
    switch (command) {
    case CMD_PASSWORD:
        kbc_answer(k, k->password_len ? 0xfa : 0xf1);
        break;
    case CMD_LOCK:
        lock(k);
        break;
    case CMD_AUX_OFF:
    case CMD_AUX_ON:
        set_command_byte(k, (uint8_t)(command == CMD_AUX_ON ? k->ram[0] & ~BYTE_AUX_OFF : k->ram[0] | BYTE_AUX_OFF));
        break;
    case CMD_AUX_TEST:
        kbc_answer(k, k->cfg.mouse ? 0x00 : 0x01); /* clock line stuck low */
        break;
    case CMD_SELF_TEST:
        k->status |= STATUS_SYSTEM;
        kbc_answer(k, 0x55);
        break;
    case CMD_KBD_TEST:
        kbc_answer(k, 0x00);
        break;
    case CMD_KBD_OFF:
    case CMD_KBD_ON:
        set_command_byte(k, (uint8_t)(command == CMD_KBD_ON ? k->ram[0] & ~BYTE_DISABLED : k->ram[0] | BYTE_DISABLED));
        break;
    case CMD_READ_INPUT:
        kbc_answer(k, INPUT_PORT);
        break;
    case CMD_POLL_LOW:
    case CMD_POLL_HIGH:
        k->polled = command == CMD_POLL_LOW ? 1 : 2;
        break;
    case CMD_READ_OUT:
        kbc_answer(k, output_port(k));
        break;
    case CMD_A20_OFF:
    case CMD_A20_ON:
        a20_gate_set(k->cfg.a20, command == CMD_A20_ON);
        break;
    case CMD_TEST_LINES:
        kbc_answer(k, 0x00);
        break;
    default:
        device_log(k->cfg.log, LOG_UNIMP, "kbc8042: command 0x%02x", command);
        break;
    }
}

static bool takes_parameter(uint8_t command)
{
    return (command >= CMD_WRITE_RAM && command < CMD_WRITE_RAM + 32) ||
           (command >= CMD_WRITE_OUT && command <= CMD_WRITE_AUX) || command == CMD_LOAD_PASS;
}

static void command_write8(void *dev, uint64_t offset, uint8_t v)
{
    struct kbc8042 *k = dev;
    k->status |= STATUS_COMMAND;
    k->pending = k->polled = 0;
    if (v == CMD_LOAD_PASS) {
        k->password_len = 0;
        k->locked = false;
    }
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
    if (k->polled)
        return (k->status & 0x0f) | (k->polled == 1 ? (uint8_t)(INPUT_PORT << 4) : INPUT_PORT & 0xf0);
    return k->status | STATUS_UNLOCK;
}

static void write_ram(struct kbc8042 *k, unsigned n, uint8_t v)
{
    if (n) {
        k->ram[n] = v;
        return;
    }
    k->status = (k->status & (uint8_t)~STATUS_SYSTEM) | (v & BYTE_SYSTEM);
    set_command_byte(k, v);
}

/* A byte without a command before it goes to the keyboard, and turns its port on. */
static void keyboard_write(struct kbc8042 *k, uint8_t v)
{
    if (!k->cfg.keyboard)
        return;
    k->ram[0] &= (uint8_t)~BYTE_DISABLED;
    k->breaks = false;
    ps2_keyboard_command(k->cfg.keyboard, v);
}

static void data_write8(void *dev, uint64_t offset, uint8_t v)
{
    struct kbc8042 *k = dev;
    uint8_t command = k->pending;
    k->status &= (uint8_t)~STATUS_COMMAND;
    k->pending = k->polled = 0;
    if (!command)
        keyboard_write(k, v);
    else if (command == CMD_LOAD_PASS)
        load_password(k, v);
    else if (command == CMD_WRITE_OUT)
        write_output_port(k, v);
    else if (command == CMD_WRITE_KBD) /* as if the keyboard had sent it */
        kbc_answer(k, v);
    else if (command == CMD_LOOP_AUX && k->cfg.mouse)
        answer_as(k, v | ANSWER_AUX);
    else if (command == CMD_WRITE_AUX && k->cfg.mouse)
        ps2_mouse_command(k->cfg.mouse, v);
    else if (command < CMD_WRITE_RAM + 32)
        write_ram(k, command & 31, v);
}

static uint8_t data_read8(void *dev, uint64_t offset)
{
    struct kbc8042 *k = dev;
    uint8_t byte = k->output;
    k->status &= (uint8_t) ~(STATUS_FULL | STATUS_AUX);
    kbc_update(k);
    pump(k);
    return byte;
}

DEVICE_BYTE_BUS_OPS(kbc8042_data_bus_ops, data_read8, data_write8);
DEVICE_BYTE_BUS_OPS(kbc8042_command_bus_ops, command_read8, command_write8);

/* ---- life ---- */

void kbc8042_init(struct kbc8042 *k, const struct kbc8042_config *cfg)
{
    memset(k, 0, sizeof(*k));
    k->cfg = *cfg;
    timer_init(&k->timer, timer_due, k);
    kbc8042_reset(k);
}

void kbc8042_reset(struct kbc8042 *k)
{
    memset(k->ram, 0, sizeof(k->ram));
    k->ram[0] = BYTE_SYSTEM | BYTE_AUX_OFF | BYTE_XLATE | BYTE_IRQ; /* as firmware leaves it */
    k->status = STATUS_SYSTEM;
    k->output = k->pending = k->answers = k->polled = 0;
    k->breaks = k->locked = false;
    k->password_len = k->matched = 0;
    k->next_byte = 0;
    if (k->cfg.clock)
        timer_cancel(k->cfg.clock, &k->timer);
    kbc_update(k);
}

void kbc8042_save(const struct kbc8042 *k, struct snap_writer *w)
{
    snap_begin(w, "kbc8042", 3);
    snap_put_bytes(w, k->ram, sizeof(k->ram));
    snap_put_u8(w, k->status);
    snap_put_u8(w, k->output);
    snap_put_u8(w, k->pending);
    snap_put_u8(w, k->breaks);
    snap_put_u8(w, k->polled);
    snap_put_u8(w, k->password_len);
    snap_put_bytes(w, k->password, k->password_len);
    snap_put_u8(w, k->matched);
    snap_put_u8(w, k->locked);
    snap_put_u8(w, k->irq_level);
    snap_put_u8(w, k->aux_level);
    snap_put_u8(w, k->answers);
    for (unsigned n = 0; n < KBC_ANSWERS; n++)
        snap_put_u16(w, n < k->answers ? k->answer[n] : 0);
    snap_put_u64(w, k->next_byte);
    if (k->cfg.clock)
        timer_save(k->cfg.clock, &k->timer, w);
    snap_end(w);
}

static void load_password_state(struct kbc8042 *k, struct snap_reader *r)
{
    k->password_len = snap_get_u8(r);
    if (k->password_len > KBC_PASSWORD) {
        k->password_len = 0;
        snap_fail(r, "kbc8042: a password of more than %u codes", KBC_PASSWORD);
    }
    snap_get_bytes(r, k->password, k->password_len);
    k->matched = snap_get_u8(r);
    k->locked = snap_get_u8(r) != 0 && k->password_len;
    if (k->matched >= k->password_len)
        k->matched = 0;
}

void kbc8042_load(struct kbc8042 *k, struct snap_reader *r)
{
    if (!snap_expect(r, "kbc8042", 3))
        return;
    snap_get_bytes(r, k->ram, sizeof(k->ram));
    if (!k->cfg.mouse)
        k->ram[0] |= BYTE_AUX_OFF;
    k->status = snap_get_u8(r) & (STATUS_FULL | STATUS_SYSTEM | STATUS_COMMAND | STATUS_AUX);
    k->output = snap_get_u8(r);
    k->pending = snap_get_u8(r);
    k->breaks = snap_get_u8(r) != 0;
    k->polled = snap_get_u8(r) % 3;
    load_password_state(k, r);
    k->irq_level = snap_get_u8(r) != 0;
    k->aux_level = snap_get_u8(r) != 0;
    k->answers = snap_get_u8(r);
    if (k->answers > KBC_ANSWERS)
        k->answers = 0;
    for (unsigned n = 0; n < KBC_ANSWERS; n++)
        k->answer[n] = snap_get_u16(r) & 0x1ff;
    k->next_byte = snap_get_u64(r);
    if (k->cfg.clock)
        timer_load(k->cfg.clock, &k->timer, r);
}
