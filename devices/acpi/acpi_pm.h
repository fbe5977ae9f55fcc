/*
 * The ACPI fixed hardware of the PIIX4: PM1 event and control, PM timer, one GPE block; and the APM command port
 * through which an operating system turns ACPI on.
 *
 * Source: Intel 82371AB data sheet (power management registers), ACPI 6.4 section 4.8. The block is 64 ports: PM1
 * status 0, enable 2, control 4, PM timer 8 (24 bits, 3.579545 MHz of virtual time), GPE0 status 12, enable 14;
 * GLBCTL 0x28, of which SMI_EN exists. SLP_EN with SLP_TYP 0 is S5, power off.
 */
#ifndef DEVICES_ACPI_ACPI_PM_H
#define DEVICES_ACPI_ACPI_PM_H

#include "core/irq.h"
#include "devices/device.h"

struct snap_writer;
struct snap_reader;

#define ACPI_PM_TIMER_HZ 3579545ull
#define ACPI_PM_S5_TYPE  0

/* Offsets in the block, for the FADT. */
#define ACPI_PM_EVENT   0x00
#define ACPI_PM_CONTROL 0x04
#define ACPI_PM_TIMER   0x08
#define ACPI_PM_GPE0    0x0c
#define ACPI_PM_GLBCTL  0x28

struct acpi_pm_config {
    struct vclock *clock;
    struct irq_line sci;
    struct device_signal power_off;
    struct device_signal smi; /* SMI#: the command port was written, and DEVACTB and GLBCTL let it through */
    uint8_t enable_command, disable_command; /* values at the SMI command port that set and clear SCI_EN */
    const struct log *log;
};

struct acpi_pm {
    struct acpi_pm_config cfg;
    uint16_t status, enable, control;
    uint16_t gpe_status, gpe_enable;
    uint8_t apm_command, apm_status;
    bool apmc_enabled, smi_enabled; /* DEVACTB.APMC_EN (the PCI function's), GLBCTL.SMI_EN */
    uint64_t synced;                /* clock time up to which the timer's status bit is computed */
    bool sci_level;
    struct timer timer; /* the PM timer's next carry, when its interrupt is on */
};

extern const struct bus_ops acpi_pm_bus_ops;     /* 64 ports */
extern const struct bus_ops acpi_pm_smi_bus_ops; /* 2 ports: APM command and status */

void acpi_pm_init(struct acpi_pm *p, const struct acpi_pm_config *cfg);
void acpi_pm_reset(struct acpi_pm *p);
/* Fits pci_host_config.apmc_enable. */
void acpi_pm_enable_apmc(void *pm, bool on);
/* The user pressed the power button. */
void acpi_pm_press_power_button(struct acpi_pm *p);
void acpi_pm_save(const struct acpi_pm *p, struct snap_writer *w);
void acpi_pm_load(struct acpi_pm *p, struct snap_reader *r);

#endif
