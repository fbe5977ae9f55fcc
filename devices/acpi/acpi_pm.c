#include "devices/acpi/acpi_pm.h"

#include "core/snapshot.h"

#include <string.h>

#define STATUS_TIMER  0x0001
#define STATUS_BUTTON 0x0100
#define STATUS_CLEARS 0x8d31 /* bits that a write of 1 clears */
#define ENABLE_BITS   0x0521

#define CONTROL_SCI_EN  0x0001
#define GLBCTL_SMI_EN   0x01
#define CONTROL_KEPT    0x1c03 /* SCI_EN, BM_RLD, SLP_TYP */
#define CONTROL_SLP_EN  0x2000
#define CONTROL_TYPE(c) (((c) >> 10) & 7)

#define TIMER_BITS 24
#define CARRY_BIT  23 /* each change of the timer's top bit sets the status */

static uint64_t timer_ticks(const struct acpi_pm *p, uint64_t at)
{
    return device_ticks(at, ACPI_PM_TIMER_HZ);
}

static void pm_drive(struct acpi_pm *p)
{
    bool level = (p->control & CONTROL_SCI_EN) && ((p->status & p->enable) || (p->gpe_status & p->gpe_enable));
    if (level == p->sci_level)
        return;
    p->sci_level = level;
    irq_set(&p->cfg.sci, level);
}

static void pm_sync(struct acpi_pm *p)
{
    uint64_t now = clock_now(p->cfg.clock);
    if (timer_ticks(p, now) >> CARRY_BIT != timer_ticks(p, p->synced) >> CARRY_BIT)
        p->status |= STATUS_TIMER;
    p->synced = now;
}

static void pm_update(struct acpi_pm *p)
{
    pm_drive(p);
    if (!(p->enable & STATUS_TIMER) || (p->status & STATUS_TIMER)) {
        timer_cancel(p->cfg.clock, &p->timer);
        return;
    }
    uint64_t carry = ((timer_ticks(p, p->synced) >> CARRY_BIT) + 1) << CARRY_BIT;
    timer_arm(p->cfg.clock, &p->timer, device_tick_time(carry, ACPI_PM_TIMER_HZ));
}

static void pm_expired(void *opaque)
{
    struct acpi_pm *p = opaque;
    pm_sync(p);
    pm_update(p);
}

void acpi_pm_press_power_button(struct acpi_pm *p)
{
    p->status |= STATUS_BUTTON;
    pm_drive(p);
}

static void enter_sleep(struct acpi_pm *p)
{
    unsigned type = CONTROL_TYPE(p->control);
    if (type == ACPI_PM_S5_TYPE)
        device_signal_raise(&p->cfg.power_off);
    else
        device_log(p->cfg.log, LOG_UNIMP, "acpi_pm: sleep type %u (only S5, type %u, exists)", type, ACPI_PM_S5_TYPE);
}

/* SCI_EN belongs to the APM command port; a guest's write leaves it. */
static void write_control(struct acpi_pm *p, unsigned shift, uint8_t v)
{
    uint16_t mask = (uint16_t)(0xff << shift), value = (uint16_t)(v << shift);
    uint16_t kept = mask & CONTROL_KEPT & (uint16_t)~CONTROL_SCI_EN;
    p->control = (p->control & (uint16_t)~kept) | (value & kept);
    if (value & CONTROL_SLP_EN)
        enter_sleep(p);
}

static uint8_t byte_of(uint32_t v, uint64_t offset, unsigned base)
{
    return (uint8_t)(v >> (8 * (offset - base)));
}

static uint8_t pm_read8(void *dev, uint64_t offset)
{
    struct acpi_pm *p = dev;
    pm_sync(p);
    pm_update(p);
    if (offset < 2)
        return byte_of(p->status, offset, 0);
    if (offset < 4)
        return byte_of(p->enable, offset, 2);
    if (offset < 6)
        return byte_of(p->control, offset, 4);
    if (offset >= ACPI_PM_TIMER && offset < ACPI_PM_TIMER + 4)
        return byte_of((uint32_t)timer_ticks(p, clock_now(p->cfg.clock)) & ((1u << TIMER_BITS) - 1), offset,
                       ACPI_PM_TIMER);
    if (offset == ACPI_PM_GLBCTL)
        return p->smi_enabled;
    if (offset >= ACPI_PM_GPE0 && offset < ACPI_PM_GPE0 + 2)
        return byte_of(p->gpe_status, offset, ACPI_PM_GPE0);
    if (offset >= ACPI_PM_GPE0 + 2 && offset < ACPI_PM_GPE0 + 4)
        return byte_of(p->gpe_enable, offset, ACPI_PM_GPE0 + 2);
    return 0;
}

static void put_byte(uint16_t *reg, unsigned shift, uint8_t v, uint16_t mask)
{
    uint16_t lane = (uint16_t)(0xff << shift) & mask;
    *reg = (*reg & (uint16_t)~lane) | ((uint16_t)(v << shift) & lane);
}

static void pm_write8(void *dev, uint64_t offset, uint8_t v)
{
    struct acpi_pm *p = dev;
    unsigned shift = offset & 1 ? 8 : 0;
    pm_sync(p);
    switch (offset & ~1ull) {
    case 0:
        p->status &= (uint16_t) ~((v << shift) & STATUS_CLEARS);
        break;
    case 2:
        put_byte(&p->enable, shift, v, ENABLE_BITS);
        break;
    case ACPI_PM_CONTROL:
        write_control(p, shift, v);
        break;
    case ACPI_PM_GPE0:
        p->gpe_status &= (uint16_t) ~(v << shift);
        break;
    case ACPI_PM_GPE0 + 2:
        put_byte(&p->gpe_enable, shift, v, 0xffff);
        break;
    case ACPI_PM_GLBCTL:
        if (!shift)
            p->smi_enabled = v & GLBCTL_SMI_EN;
        break;
    default:
        break;
    }
    pm_update(p);
}

DEVICE_BYTE_BUS_OPS(acpi_pm_bus_ops, pm_read8, pm_write8);

static uint8_t smi_read8(void *dev, uint64_t offset)
{
    struct acpi_pm *p = dev;
    return offset & 1 ? p->apm_status : p->apm_command;
}

static bool is_smi_open(const struct acpi_pm *p)
{
    return p->apmc_enabled && p->smi_enabled;
}

void acpi_pm_enable_apmc(void *pm, bool on)
{
    struct acpi_pm *p = pm;
    p->apmc_enabled = on;
}

static void smi_write8(void *dev, uint64_t offset, uint8_t v)
{
    struct acpi_pm *p = dev;
    if (offset & 1) {
        p->apm_status = v;
        return;
    }
    p->apm_command = v;
    if (v == p->cfg.enable_command)
        p->control |= CONTROL_SCI_EN;
    else if (v == p->cfg.disable_command)
        p->control &= (uint16_t)~CONTROL_SCI_EN;
    else if (!is_smi_open(p))
        device_log(p->cfg.log, LOG_UNIMP, "acpi_pm: SMI command 0x%02x", v);
    pm_drive(p);
    if (is_smi_open(p))
        device_signal_raise(&p->cfg.smi);
}

DEVICE_BYTE_BUS_OPS(acpi_pm_smi_bus_ops, smi_read8, smi_write8);

void acpi_pm_init(struct acpi_pm *p, const struct acpi_pm_config *cfg)
{
    memset(p, 0, sizeof(*p));
    p->cfg = *cfg;
    timer_init(&p->timer, pm_expired, p);
    acpi_pm_reset(p);
}

void acpi_pm_reset(struct acpi_pm *p)
{
    p->status = p->enable = p->control = p->gpe_status = p->gpe_enable = 0;
    p->apm_command = p->apm_status = 0;
    p->smi_enabled = false;
    p->synced = clock_now(p->cfg.clock);
    pm_update(p);
}

void acpi_pm_save(const struct acpi_pm *p, struct snap_writer *w)
{
    const uint16_t regs[] = {p->status, p->enable, p->control, p->gpe_status, p->gpe_enable};
    snap_begin(w, "acpi_pm", 2);
    for (unsigned i = 0; i < ARRAY_LEN(regs); i++)
        snap_put_u16(w, regs[i]);
    snap_put_u8(w, p->apm_command);
    snap_put_u8(w, p->apm_status);
    snap_put_u8(w, p->smi_enabled);
    snap_put_u64(w, p->synced);
    snap_put_u8(w, p->sci_level);
    timer_save(p->cfg.clock, &p->timer, w);
    snap_end(w);
}

void acpi_pm_load(struct acpi_pm *p, struct snap_reader *r)
{
    uint16_t *regs[] = {&p->status, &p->enable, &p->control, &p->gpe_status, &p->gpe_enable};
    if (!snap_expect(r, "acpi_pm", 2))
        return;
    for (unsigned i = 0; i < ARRAY_LEN(regs); i++)
        *regs[i] = snap_get_u16(r);
    p->apm_command = snap_get_u8(r);
    p->apm_status = snap_get_u8(r);
    p->smi_enabled = snap_get_u8(r) != 0;
    p->synced = snap_get_u64(r);
    p->sci_level = snap_get_u8(r) != 0;
    timer_load(p->cfg.clock, &p->timer, r);
}
