#include "frontends/machine/board.h"

#include "core/bus.h"
#include "devices/layout.h"
#include "devices/mp_tables.h"
#include "devices/vmcoreinfo.h"
#include "frontends/machine/umbra.h"

#include <string.h>

/* The guest's console is not slowed down: a character leaves after 1 us of virtual time. Typed ones come at the line's
 * rate. */
#define SERIAL_TX_UNITS 1000
#define MP_TABLE_MAX    4096

/* ---- callbacks from devices ---- */

static void serial_tx(void *ctx, uint8_t byte)
{
    struct board_serial *s = ctx;
    s->board->cfg.serial_tx(s->board->cfg.ctx, s->port, byte);
}

static void debug_tx(void *ctx, uint8_t byte)
{
    struct board *b = ctx;
    b->cfg.debug_tx(b->cfg.ctx, byte);
}

static void on_debug_exit(void *ctx, int code)
{
    struct board *b = ctx;
    b->cfg.debug_exit_fn(b->cfg.ctx, (uint8_t)code);
}

static void on_a20(void *ctx, bool open)
{
    struct board *b = ctx;
    b->cfg.set_a20(b->cfg.ctx, open);
}

static void on_smi(void *ctx)
{
    struct board *b = ctx;
    const struct irq_line smi = vcpu_pin(b->cfg.cpus[0], CPU_PIN_SMI);
    irq_pulse(&smi);
}

static void on_ignne(void *ctx)
{
    struct board *b = ctx;
    for (unsigned k = 0; k < b->cfg.cpu_count; k++)
        vcpu_ignore_x87(b->cfg.cpus[k]);
}

static void on_ipi_sent(void *ctx, unsigned cpu)
{
    struct board *b = ctx;
    vcpu_end_turn(b->cfg.cpus[cpu]);
}

/* A device's message: to the local APICs where they listen, else a write like any other. */
static void on_msi(void *ctx, uint64_t address, uint32_t data)
{
    struct board *b = ctx;
    if (address >> 20 == LAYOUT_LAPIC >> 20)
        lapic_set_msi(&b->lapics, address, data);
    else
        guest_mem_write(&b->cfg.memory, address, &data, sizeof data, MEM_DMA);
}

/* ---- wiring ---- */

static bool init_interrupts(struct board *b)
{
    const struct board_config *c = &b->cfg;
    uint32_t id[4], widths[4], last[4];
    vcpu_cpuid(c->cpus[0], 1, 0, id);
    vcpu_cpuid(c->cpus[0], 0x80000000, 0, last);
    vcpu_cpuid(c->cpus[0], 0x80000008, 0, widths);
    struct lapic_set_config lapics = {.cpu_count = c->cpu_count,
                                      .topology = c->topology,
                                      .clock = c->clock,
                                      .log = c->log,
                                      .absent = !(id[3] >> 9 & 1),
                                      .x2apic = id[2] >> 21 & 1,
                                      .maxphyaddr = last[0] >= 0x80000008 ? widths[0] & 0xff : 36,
                                      .extint_ack = pic8259_ack,
                                      .extint_ctx = &b->pic,
                                      .eoi = ioapic_eoi,
                                      .eoi_ctx = &b->ioapic,
                                      .ipi_sent = on_ipi_sent,
                                      .ipi_ctx = b};
    if (!lapic_set_init(&b->lapics, &lapics))
        return false;
    struct pic8259_config pic = {.intr = lapic_set_lint_line(&b->lapics, 0), .log = c->log};
    struct ioapic_config ioapic = {
        .deliver = lapic_set_deliver, .deliver_ctx = &b->lapics, .id = LAYOUT_IOAPIC_ID, .log = c->log};
    pic8259_init(&b->pic, &pic);
    ioapic_init(&b->ioapic, &ioapic);
    struct irq_line to_pic = {pic8259_set_irq, &b->pic, 0}, to_ioapic = {ioapic_set_pin, &b->ioapic, 0};
    isa_irq_init(&b->isa, &to_pic, &to_ioapic);
    for (unsigned k = 0; k < c->cpu_count; k++) {
        struct irq_line pins = vcpu_pin(c->cpus[k], CPU_PIN_INTR);
        vcpu_set_intc(c->cpus[k], lapic_set_connect(&b->lapics, k, &pins));
    }
    return true;
}

/* With an HPET the lines of the 8254 and the RTC run through it. */
static void init_timers(struct board *b)
{
    const struct board_config *c = &b->cfg;
    struct hpet_config hpet = {.clock = c->clock,
                               .irq0 = isa_irq_line(&b->isa, LAYOUT_IRQ_PIT, 0),
                               .irq8 = isa_irq_line(&b->isa, LAYOUT_IRQ_RTC, 0),
                               .ioapic = {ioapic_set_pin, &b->ioapic, 0},
                               .log = c->log};
    struct pit8254_config pit = {.clock = c->clock, .irq0 = hpet.irq0, .log = c->log};
    struct rtc_cmos_config rtc = {.clock = c->clock, .irq = hpet.irq8, .base = c->rtc_base, .log = c->log};
    if (c->hpet) {
        hpet_init(&b->hpet, &hpet);
        pit.irq0 = hpet_pit_line(&b->hpet);
        rtc.irq = hpet_rtc_line(&b->hpet);
    }
    pit8254_init(&b->pit, &pit);
    rtc_cmos_init(&b->rtc, &rtc);
}

static const struct {
    uint16_t port;
    uint8_t irq, source;
    enum input_source input;
    const char *name;
} serial_places[SERIALS_MAX] = {{LAYOUT_COM1_PORT, LAYOUT_IRQ_COM1, 0, INPUT_SERIAL0, "COM1"},
                                {LAYOUT_COM2_PORT, LAYOUT_IRQ_COM2, 0, INPUT_SERIAL1, "COM2"},
                                {LAYOUT_COM3_PORT, LAYOUT_IRQ_COM1, 1, INPUT_SERIAL2, "COM3"},
                                {LAYOUT_COM4_PORT, LAYOUT_IRQ_COM2, 1, INPUT_SERIAL3, "COM4"}};

/* A mouse sends whether or not someone listens, and does not hear. */
static void init_serial(struct board *b)
{
    const struct board_config *c = &b->cfg;
    for (unsigned n = 0; n < c->serials; n++) {
        struct board_serial *s = &b->com[n];
        bool mouse = c->mouse_port == n + 1;
        struct uart16550_config uart = {.instance = n,
                                        .clock = c->clock,
                                        .irq = isa_irq_line(&b->isa, serial_places[n].irq, serial_places[n].source),
                                        .tx_char_time = SERIAL_TX_UNITS,
                                        .patient_sender = !mouse,
                                        .log = c->log};
        *s = (struct board_serial){.board = b, .port = n};
        if (mouse) {
            serial_mouse_init(&b->serial_mouse, &(struct serial_mouse_config){c->clock, &s->uart});
            uart.peer = (struct uart16550_peer){serial_mouse_lines, serial_mouse_idle, &b->serial_mouse};
        } else {
            uart.sink = (struct device_sink){serial_tx, s};
            input_set_sink(c->input, serial_places[n].input, uart16550_receive, &s->uart);
        }
        uart16550_init(&s->uart, &uart);
    }
}

/* The mouse that the guest has turned on: one on a serial port lives off its lines. */
static void mouse_input(void *ctx, const uint8_t *bytes, size_t len)
{
    struct board *b = ctx;
    if (b->cfg.mouse_port && b->serial_mouse.powered)
        serial_mouse_input(&b->serial_mouse, bytes, len);
    else
        ps2_mouse_input(&b->mouse, bytes, len);
}

static void init_input(struct board *b)
{
    const struct device_signal ready = {kbc8042_ready, &b->kbc};
    const struct ps2_keyboard_config keyboard = {.clock = b->cfg.clock, .ready = ready, .log = b->cfg.log};
    const struct ps2_mouse_config mouse = {.ready = ready, .log = b->cfg.log};
    ps2_keyboard_init(&b->keyboard, &keyboard);
    ps2_mouse_init(&b->mouse, &mouse);
    input_set_sink(b->cfg.input, INPUT_KEYBOARD, ps2_keyboard_input, &b->keyboard);
    input_set_sink(b->cfg.input, INPUT_MOUSE, mouse_input, b);
}

static void init_system(struct board *b)
{
    const struct board_config *c = &b->cfg;
    const struct device_signal reset = {c->reset, c->ctx}, power_off = {c->power_off, c->ctx};
    a20_gate_init(&b->a20, on_a20, b);
    struct kbc8042_config kbc = {.irq = isa_irq_line(&b->isa, LAYOUT_IRQ_KEYBOARD, 0),
                                 .aux_irq = isa_irq_line(&b->isa, LAYOUT_IRQ_MOUSE, 0),
                                 .clock = c->clock,
                                 .keyboard = &b->keyboard,
                                 .mouse = &b->mouse,
                                 .a20 = &b->a20,
                                 .reset = reset,
                                 .log = c->log};
    init_input(b);
    struct port92_config port92 = {.a20 = &b->a20, .reset = reset};
    struct acpi_pm_config pm = {.clock = c->clock,
                                .sci = isa_irq_line(&b->isa, LAYOUT_IRQ_SCI, 0),
                                .power_off = power_off,
                                .smi = {on_smi, b},
                                .enable_command = LAYOUT_ACPI_ENABLE,
                                .disable_command = LAYOUT_ACPI_DISABLE,
                                .log = c->log};
    kbc8042_init(&b->kbc, &kbc);
    port92_init(&b->port92, &port92);
    reset_cf9_init(&b->cf9, &reset);
    acpi_pm_init(&b->pm, &pm);
    struct pci_host_config pci = {.io = c->ports,
                                  .mmio = c->mmio,
                                  .isa = &b->isa,
                                  .pm_ops = &acpi_pm_bus_ops,
                                  .pm = &b->pm,
                                  .apmc_enable = acpi_pm_enable_apmc,
                                  .reset_ops = &reset_cf9_bus_ops,
                                  .reset = &b->cf9,
                                  .pam_changed = c->pam_changed,
                                  .pam_ctx = c->pam_ctx,
                                  .log = c->log};
    pci_host_init(&b->pci, &pci);
    pci_bus_set_msi(&b->pci.bus, on_msi, b);
    const struct fpu_error_config fpu = {.irq = isa_irq_line(&b->isa, LAYOUT_IRQ_FPU, 0), .ignored = {on_ignne, b}};
    fpu_error_init(&b->fpu_error, &fpu);
    for (unsigned k = 0; k < c->cpu_count; k++)
        c->cpus[k]->ferr = fpu_error_ferr(&b->fpu_error);
    const struct device_sink sink = {debug_tx, b};
    debug_console_init(&b->debug_console, &sink);
    debug_exit_init(&b->debug_exit, on_debug_exit, b);
    firmware_log_init(&b->firmware_log, c->log);
}

static bool init_vga(struct board *b, struct error *e)
{
    const struct board_config *c = &b->cfg;
    if (!c->vga)
        return true;
    const struct vga_config cfg = {.clock = c->clock,
                                   .vram = c->vram,
                                   .mapping_changed = c->vram_changed,
                                   .ctx = c->ctx,
                                   .rom = c->vga_rom,
                                   .rom_len = c->vga_rom_len,
                                   .no_mmio = c->vga_no_mmio,
                                   .log = c->log};
    vga_init(&b->vga, &cfg);
    return pci_bus_attach(&b->pci.bus, LAYOUT_PCI_VGA_DEVFN, &b->vga.pci) ||
           error_set(e, "PCI slot 2, the display adapter's, is taken");
}

static bool init_fw_cfg(struct board *b)
{
    const struct board_config *c = &b->cfg;
    struct fw_cfg_config cfg = {.memory = c->memory,
                                .ram_size = c->low_ram + c->high_ram,
                                .cpu_count = (uint16_t)c->cpu_count,
                                .max_cpus = (uint16_t)c->cpu_count,
                                .log = c->log};
    return fw_cfg_init(&b->fw_cfg, &cfg);
}

/* ---- placing ---- */

bool board_place(const struct placement *p, struct error *e)
{
    enum bus_error bad = bus_add(p->bus, p->base, p->len, p->ops, p->dev, p->name);
    return bad == BUS_OK || error_set(e, "%s at 0x%llx: %s", p->name, (unsigned long long)p->base, bus_error_text(bad));
}

static bool place_all(struct board *b, struct error *e)
{
    struct bus *io = b->cfg.ports, *mm = b->cfg.mmio;
    const struct placement all[] = {
        {io, LAYOUT_PIC_MASTER_PORT, LAYOUT_PIC_PORTS, &pic8259_bus_ops, &b->pic.chip[0], "8259 master"},
        {io, LAYOUT_PIC_SLAVE_PORT, LAYOUT_PIC_PORTS, &pic8259_bus_ops, &b->pic.chip[1], "8259 slave"},
        {io, LAYOUT_ELCR_PORT, LAYOUT_ELCR_PORTS, &pic8259_elcr_bus_ops, &b->pic, "ELCR"},
        {io, LAYOUT_PIT_PORT, LAYOUT_PIT_PORTS, &pit8254_bus_ops, &b->pit, "8254"},
        {io, LAYOUT_SPEAKER_PORT, LAYOUT_SPEAKER_PORTS, &pit8254_speaker_bus_ops, &b->pit, "speaker port"},
        {io, LAYOUT_KBC_DATA_PORT, LAYOUT_KBC_PORTS, &kbc8042_data_bus_ops, &b->kbc, "8042 data"},
        {io, LAYOUT_KBC_COMMAND_PORT, LAYOUT_KBC_PORTS, &kbc8042_command_bus_ops, &b->kbc, "8042 command"},
        {io, LAYOUT_RTC_PORT, LAYOUT_RTC_PORTS, &rtc_cmos_bus_ops, &b->rtc, "RTC"},
        {io, LAYOUT_PORT92_PORT, LAYOUT_PORT92_PORTS, &port92_bus_ops, &b->port92, "port 92"},
        {io, LAYOUT_FPU_PORT, 1, &fpu_error_bus_ops, &b->fpu_error, "x87 error"},
        {io, LAYOUT_SMI_PORT, LAYOUT_SMI_PORTS, &acpi_pm_smi_bus_ops, &b->pm, "APM"},
        {io, LAYOUT_FW_CFG_PORT, LAYOUT_FW_CFG_PORTS, &fw_cfg_bus_ops, &b->fw_cfg, "fw_cfg"},
        {io, LAYOUT_FW_CFG_DMA_PORT, LAYOUT_FW_CFG_DMA_PORTS, &fw_cfg_dma_bus_ops, &b->fw_cfg, "fw_cfg DMA"},
        {io, LAYOUT_PCI_CONFIG_PORT, LAYOUT_PCI_CONFIG_PORTS, &pci_host_bus_ops, &b->pci, "PCI configuration"},
        {mm, LAYOUT_IOAPIC, LAYOUT_IOAPIC_SIZE, &ioapic_bus_ops, &b->ioapic, "IOAPIC"},
        {mm, LAYOUT_LAPIC, LAYOUT_LAPIC_SIZE, &lapic_bus_ops, &b->lapics, "local APIC"},
    };
    for (size_t k = 0; k < ARRAY_LEN(all); k++)
        if (!board_place(&all[k], e))
            return false;
    return true;
}

static bool place_serial(struct board *b, struct error *e)
{
    for (unsigned n = 0; n < b->cfg.serials; n++) {
        const struct placement p = {b->cfg.ports,       serial_places[n].port, LAYOUT_COM_PORTS,
                                    &uart16550_bus_ops, &b->com[n].uart,       serial_places[n].name};
        if (!board_place(&p, e))
            return false;
    }
    return true;
}

static bool place_hpet(struct board *b, struct error *e)
{
    const struct placement p = {b->cfg.mmio, LAYOUT_HPET, HPET_BYTES, &hpet_bus_ops, &b->hpet, "HPET"};
    return !b->cfg.hpet || board_place(&p, e);
}

static bool place_vga(struct board *b, struct error *e)
{
    struct bus *io = b->cfg.ports;
    const struct placement all[] = {
        {io, LAYOUT_VGA_MONO_PORT, VGA_MONO_PORTS, &vga_mono_bus_ops, &b->vga, "VGA"},
        {io, LAYOUT_VGA_PORT, VGA_PORTS, &vga_ports_bus_ops, &b->vga, "VGA"},
        {io, LAYOUT_VGA_DISPI_PORT, VGA_DISPI_PORTS, &vga_dispi_bus_ops, &b->vga, "VBE"},
        {b->cfg.mmio, LAYOUT_VGA_WINDOW, VGA_WINDOW_BYTES, &vga_window_bus_ops, &b->vga, "VGA window"},
    };
    for (size_t k = 0; b->cfg.vga && k < ARRAY_LEN(all); k++)
        if (!board_place(&all[k], e))
            return false;
    return true;
}

static bool place_debug(struct board *b, struct error *e)
{
    const struct board_config *c = &b->cfg;
    const struct placement console = {c->ports,          c->debug_console_port, 1, &debug_console_bus_ops,
                                      &b->debug_console, "debug console"};
    const struct placement leave = {c->ports,       c->debug_exit_base, c->debug_exit_size, &debug_exit_bus_ops,
                                    &b->debug_exit, "isa-debug-exit"};
    const struct placement log = {c->ports,         LAYOUT_FIRMWARE_LOG_PORT, 1, &firmware_log_bus_ops,
                                  &b->firmware_log, "firmware's log"};
    return (!c->debug_console || board_place(&console, e)) && (!c->debug_exit || board_place(&leave, e)) &&
           (!c->firmware || (c->debug_console && c->debug_console_port == LAYOUT_FIRMWARE_LOG_PORT) ||
            board_place(&log, e));
}

static bool place_testdev(struct board *b, struct error *e)
{
    struct bus *io = b->cfg.ports;
    struct testdev *d = &b->testdev;
    static const char name[] = "pc-testdev";
    const struct placement all[] = {
        {io, LAYOUT_TESTDEV_WORD_PORT, sizeof d->word, &testdev_word_bus_ops, d, name},
        {io, LAYOUT_TESTDEV_FLUSH_PORT, 4, &testdev_flush_bus_ops, d, name},
        {io, LAYOUT_TESTDEV_IRQ_PORT, TESTDEV_LINES, &testdev_irq_bus_ops, d, name},
        {b->cfg.mmio, LAYOUT_TESTDEV_MEMORY, TESTDEV_MEMORY, &testdev_memory_bus_ops, d, name},
    };
    for (size_t k = 0; b->cfg.testdev && k < ARRAY_LEN(all); k++)
        if (!board_place(&all[k], e))
            return false;
    for (unsigned k = 0; b->cfg.testdev && k < sizeof d->bytes; k++) {
        const struct placement p = {io, LAYOUT_TESTDEV_BYTE_PORT + k, 1, &testdev_byte_bus_ops, &d->bytes[k], name};
        if (!(b->cfg.debug_console && p.base == b->cfg.debug_console_port) && !board_place(&p, e))
            return false;
    }
    return true;
}

static void init_testdev(struct board *b)
{
    struct irq_line line[TESTDEV_LINES];
    for (unsigned n = 0; n < TESTDEV_LINES; n++)
        line[n] = n < ISA_IRQ_COUNT ? isa_irq_line(&b->isa, n, ISA_IRQ_SOURCES - 1)
                                    : (struct irq_line){ioapic_set_pin, &b->ioapic, n};
    testdev_init(&b->testdev, line);
}

/* ---- life ---- */

/* Memory sizes in CMOS; and, unless there is firmware to do it, what it would leave behind: virtual wire interrupts,
 * PCI interrupt routing. inherits: memory is a running machine's already. */
static void firmware_state(struct board *b, bool inherits)
{
    static const uint8_t pirq[ISA_IRQ_PIRQS] = {LAYOUT_IRQ_PIRQ_A, LAYOUT_IRQ_PIRQ_A, LAYOUT_IRQ_PIRQ_C,
                                                LAYOUT_IRQ_PIRQ_C};
    rtc_cmos_set_memory(&b->rtc, b->cfg.low_ram, b->cfg.high_ram);
    if (b->cfg.firmware)
        return;
    if (b->cfg.vga && !inherits)
        vga_set_text_mode(&b->vga, b->cfg.vga_font);
    for (unsigned k = 0; k < b->cfg.cpu_count; k++)
        vcpu_firmware_mtrrs(b->cfg.cpus[k], LAYOUT_PCI_MMIO);
    lapic_set_virtual_wire(&b->lapics);
    pic8259_set_elcr(&b->pic, LAYOUT_ELCR_BOOT);
    pci_host_set_pm_base(&b->pci, LAYOUT_ACPI_PM_PORT);
    pci_host_set_pirq(&b->pci, pirq);
    pci_bus_assign(&b->pci.bus, LAYOUT_PCI_IO, LAYOUT_PCI_MMIO_END + 1, pirq);
}

static bool init_cards(struct board *b, struct error *e)
{
    const struct board_config *c = &b->cfg;
    const struct cards_config cfg = {.bus = &b->pci.bus,
                                     .memory = c->memory,
                                     .clock = c->clock,
                                     .log = c->log,
                                     .device = c->device,
                                     .count = c->device_count,
                                     .drives = c->drives,
                                     .seed = c->seed,
                                     .connect = c->net_connect,
                                     .connect_ctx = c->net_ctx,
                                     .console = c->console_tx,
                                     .console_ctx = c->ctx};
    input_set_sink(c->input, INPUT_NET, cards_receive, &b->cards);
    return cards_init(&b->cards, &cfg, e);
}

bool board_init(struct board *b, const struct board_config *cfg, struct error *e)
{
    b->cfg = *cfg;
    if (!init_interrupts(b))
        return error_set(e, "out of memory");
    b->built = true;
    init_timers(b);
    init_serial(b);
    init_system(b);
    init_testdev(b);
    if (!board_storage_init(b, e))
        return false;
    if (!init_fw_cfg(b))
        return error_set(e, "out of memory");
    if (!init_vga(b, e) || !place_all(b, e) || !place_serial(b, e) || !place_hpet(b, e) || !place_vga(b, e) ||
        !place_debug(b, e) || !board_storage_place(b, e) || !place_testdev(b, e) || !init_cards(b, e))
        return false;
    if (cfg->vmcoreinfo && !vmcoreinfo_init(&b->fw_cfg))
        return error_set(e, "out of memory");
    if (!board_offer_firmware(b, e) || !board_offer_items(b, e))
        return false;
    if (cfg->firmware)
        board_fill_cmos(b);
    firmware_state(b, b->cfg.forked);
    return true;
}

void board_fini(struct board *b)
{
    if (!b->built)
        return;
    cards_fini(&b->cards);
    for (unsigned n = 0; n < b->cfg.serials; n++)
        uart16550_fini(&b->com[n].uart);
    if (b->cfg.vga)
        vga_fini(&b->vga);
    fw_cfg_fini(&b->fw_cfg);
    board_storage_fini(b);
    pci_host_fini(&b->pci);
    lapic_set_fini(&b->lapics);
}

static void serial_reset(struct board *b)
{
    for (unsigned n = 0; n < b->cfg.serials; n++)
        uart16550_reset(&b->com[n].uart);
    if (b->cfg.mouse_port)
        serial_mouse_reset(&b->serial_mouse);
}

static void serial_save(const struct board *b, struct snap_writer *w)
{
    for (unsigned n = 0; n < b->cfg.serials; n++)
        uart16550_save(&b->com[n].uart, w);
    if (b->cfg.mouse_port)
        serial_mouse_save(&b->serial_mouse, w);
}

static void serial_load(struct board *b, struct snap_reader *r)
{
    for (unsigned n = 0; n < b->cfg.serials; n++)
        uart16550_load(&b->com[n].uart, r);
    if (b->cfg.mouse_port)
        serial_mouse_load(&b->serial_mouse, r);
}

static bool serial_is_sending(const struct board *b)
{
    for (unsigned n = 0; n < b->cfg.serials; n++)
        if (uart16550_is_sending(&b->com[n].uart))
            return true;
    return false;
}

void board_reset(struct board *b)
{
    lapic_set_reset(&b->lapics);
    pic8259_reset(&b->pic);
    ioapic_reset(&b->ioapic);
    isa_irq_reset(&b->isa);
    if (b->cfg.hpet)
        hpet_reset(&b->hpet);
    pit8254_reset(&b->pit);
    rtc_cmos_reset(&b->rtc);
    serial_reset(b);
    a20_gate_reset(&b->a20);
    kbc8042_reset(&b->kbc);
    ps2_keyboard_reset(&b->keyboard);
    ps2_mouse_reset(&b->mouse);
    port92_reset(&b->port92);
    reset_cf9_reset(&b->cf9);
    acpi_pm_reset(&b->pm);
    pci_host_reset(&b->pci);
    fpu_error_reset(&b->fpu_error);
    fw_cfg_reset(&b->fw_cfg);
    vmcoreinfo_reset(&b->fw_cfg);
    board_storage_reset(b);
    if (b->cfg.firmware)
        board_set_boot_order(b, b->cfg.boot_order); /* once is over */
    if (b->cfg.vga) {
        vga_reset(&b->vga);
        pci_device_reset(&b->vga.pci);
    }
    cards_reset(&b->cards);
    if (b->cfg.testdev)
        testdev_reset(&b->testdev);
    firmware_state(b, false);
}

static bool poke(const struct board *b, gpa_t gpa, const void *bytes, size_t len)
{
    return guest_mem_write(&b->cfg.memory, gpa, bytes, len, MEM_HOST_POKE) == MEM_OK;
}

/* The MP table lies behind the ACPI tables, which end at `at`. */
static bool install_mp_tables(const struct board *b, gpa_t at)
{
    const struct board_config *c = &b->cfg;
    uint32_t cpuid[4];
    vcpu_cpuid(c->cpus[0], 1, 0, cpuid);
    struct mp_tables_config cfg = {
        .cpu_count = c->cpu_count, .topology = c->topology, .signature = cpuid[0], .features = cpuid[3]};
    uint8_t table[MP_TABLE_MAX], pointer[MP_POINTER_LEN];
    at = (at + 15) & ~15ull;
    size_t len = mp_table_build(&cfg, table, sizeof table);
    mp_pointer_build((uint32_t)at, pointer);
    return len && at + len <= LAYOUT_ACPI_TABLES + LAYOUT_ACPI_TABLES_SIZE && poke(b, at, table, len) &&
           poke(b, LAYOUT_MP_POINTER, pointer, sizeof pointer);
}

/* Mode 3: 80 columns and 25 rows of characters of 16 lines. */
static bool install_video_data(const struct board *b)
{
    static const uint8_t mode[3] = {3, 80, 0}, crtc[2] = {0xd4, 0x03}, rows[3] = {24, 16, 0};
    return poke(b, LAYOUT_BDA_VIDEO_MODE, mode, sizeof mode) && poke(b, LAYOUT_BDA_CRTC_PORT, crtc, sizeof crtc) &&
           poke(b, LAYOUT_BDA_ROWS, rows, sizeof rows);
}

/* What a BIOS would have left of itself: base memory ends at the extended BIOS data area, which has one KiB. */
static bool install_bios_data(const struct board *b)
{
    const uint8_t ebda[2] = {(uint8_t)(LAYOUT_EBDA >> 4), LAYOUT_EBDA >> 12};
    const uint8_t base[2] = {(uint8_t)(LAYOUT_EBDA >> 10), LAYOUT_EBDA >> 18}, kib = 1;
    if (b->cfg.vga && !install_video_data(b))
        return false;
    return poke(b, LAYOUT_BDA_EBDA, ebda, 2) && poke(b, LAYOUT_BDA_BASE_MEMORY, base, 2) &&
           poke(b, LAYOUT_EBDA, &kib, 1);
}

bool board_install_tables(struct board *b, uint64_t *rsdp)
{
    const struct board_config *c = &b->cfg;
    struct acpi_tables_config cfg = {.base = LAYOUT_ACPI_TABLES,
                                     .cpu_count = c->cpu_count,
                                     .topology = c->topology,
                                     .pci_window = LAYOUT_PCI_MMIO,
                                     .com_ports = c->serials,
                                     .keyboard = true,
                                     .hpet = c->hpet,
                                     .vga = c->vga};
    struct acpi_image image;
    if (!acpi_tables_build(&cfg, &image))
        return false;
    bool ok = image.len <= LAYOUT_ACPI_TABLES_SIZE && poke(b, LAYOUT_ACPI_TABLES, image.bytes, image.len) &&
              install_mp_tables(b, LAYOUT_ACPI_TABLES + image.len) && board_install_smbios(b) && install_bios_data(b);
    acpi_image_fini(&image);
    *rsdp = LAYOUT_ACPI_TABLES;
    return ok;
}

bool board_may_act(const struct board *b)
{
    return serial_is_sending(b) || lapic_set_passes_nonmaskable(&b->lapics) || ioapic_passes_nonmaskable(&b->ioapic);
}

void board_save(const struct board *b, struct snap_writer *w)
{
    lapic_set_save(&b->lapics, w);
    pic8259_save(&b->pic, w);
    ioapic_save(&b->ioapic, w);
    isa_irq_save(&b->isa, w);
    if (b->cfg.hpet)
        hpet_save(&b->hpet, w);
    pit8254_save(&b->pit, w);
    rtc_cmos_save(&b->rtc, w);
    serial_save(b, w);
    a20_gate_save(&b->a20, w);
    kbc8042_save(&b->kbc, w);
    ps2_keyboard_save(&b->keyboard, w);
    ps2_mouse_save(&b->mouse, w);
    port92_save(&b->port92, w);
    reset_cf9_save(&b->cf9, w);
    acpi_pm_save(&b->pm, w);
    pci_host_save(&b->pci, w);
    fpu_error_save(&b->fpu_error, w);
    fw_cfg_save(&b->fw_cfg, w);
    if (b->cfg.vga)
        vga_save(&b->vga, w);
    cards_save(&b->cards, w);
    if (b->cfg.testdev)
        testdev_save(&b->testdev, w);
    board_storage_save(b, w);
}

void board_load(struct board *b, struct snap_reader *r)
{
    lapic_set_load(&b->lapics, r);
    pic8259_load(&b->pic, r);
    ioapic_load(&b->ioapic, r);
    isa_irq_load(&b->isa, r);
    if (b->cfg.hpet)
        hpet_load(&b->hpet, r);
    pit8254_load(&b->pit, r);
    rtc_cmos_load(&b->rtc, r);
    serial_load(b, r);
    a20_gate_load(&b->a20, r);
    kbc8042_load(&b->kbc, r);
    ps2_keyboard_load(&b->keyboard, r);
    ps2_mouse_load(&b->mouse, r);
    port92_load(&b->port92, r);
    reset_cf9_load(&b->cf9, r);
    acpi_pm_load(&b->pm, r);
    pci_host_load(&b->pci, r);
    fpu_error_load(&b->fpu_error, r);
    fw_cfg_load(&b->fw_cfg, r);
    if (b->cfg.vga)
        vga_load(&b->vga, r);
    cards_load(&b->cards, r);
    if (b->cfg.testdev)
        testdev_load(&b->testdev, r);
    board_storage_load(b, r);
}
