/* Looking at buses, PCI functions and drives. */
#include "devices/vmcoreinfo.h"
#include "frontends/machine/inspect.h"
#include "frontends/machine/machine.h"

#include <inttypes.h>
#include <stdio.h>

static void print_bus(const struct bus *b, const char *what, int digits, const struct inspect_out *out)
{
    inspect_say(out, "%s:", what);
    for (size_t k = 0; k < b->count; k++)
        inspect_say(out, "  0x%0*" PRIx64 " - 0x%0*" PRIx64 "  %s", digits, b->ranges[k].base, digits,
                    b->ranges[k].base + b->ranges[k].len - 1, b->ranges[k].name);
}

void machine_print_buses(const struct machine *m, const struct inspect_out *out)
{
    print_bus(&m->mmio, "device memory", 9, out);
    print_bus(&m->ports, "ports", 4, out);
}

bool machine_vmcoreinfo(const struct machine *m, uint64_t *gpa, uint32_t *bytes)
{
    struct vmcoreinfo v;
    bool there = vmcoreinfo_get(&m->board.fw_cfg, &v);
    *gpa = there ? v.gpa : 0;
    *bytes = there ? v.size : 0;
    return there;
}

static struct inspect_pci describe(const struct pci_device *d)
{
    struct inspect_pci f = {.slot = d->devfn >> 3,
                            .function = d->devfn & 7u,
                            .vendor = pci_device_read16(d, 0),
                            .device = pci_device_read16(d, 2),
                            .class_code = pci_device_read32(d, 8) >> 8,
                            .name = d->name,
                            .interrupt_pin = d->config[PCI_INTERRUPT_PIN],
                            .interrupt_line = d->config[PCI_INTERRUPT_LINE]};
    for (unsigned n = 0; n <= PCI_ROM; n++) {
        const struct pci_bar *bar = &d->bar[n];
        if (bar->kind == PCI_BAR_NONE || bar->kind == PCI_BAR_OWN)
            continue;
        bool mapped = bar->mapped != PCI_UNMAPPED;
        f.bar[f.bars].index = n;
        f.bar[f.bars].io = bar->kind == PCI_BAR_IO;
        f.bar[f.bars].mapped = mapped;
        f.bar[f.bars].address = mapped ? bar->mapped : 0;
        f.bar[f.bars++].size = bar->size;
    }
    return f;
}

void machine_each_pci(const struct machine *m, void (*fn)(void *ctx, const struct inspect_pci *f), void *ctx)
{
    const struct pci_bus *b = &m->board.pci.bus;
    for (unsigned k = 0; k < ARRAY_LEN(b->device); k++)
        if (b->device[k]) {
            struct inspect_pci f = describe(b->device[k]);
            fn(ctx, &f);
        }
}

static void print_function(void *ctx, const struct inspect_pci *f)
{
    const struct inspect_out *out = ctx;
    inspect_say(out, "%02x.%u %04x:%04x class %06x %s", f->slot, f->function, f->vendor, f->device, f->class_code,
                f->name);
    if (f->interrupt_pin)
        inspect_say(out, "      INT%c, line %u", 'A' + (int)f->interrupt_pin - 1, f->interrupt_line);
    for (unsigned k = 0; k < f->bars; k++) {
        const char *kind = f->bar[k].index == PCI_ROM ? "ROM" : f->bar[k].io ? "ports" : "memory";
        if (f->bar[k].mapped)
            inspect_say(out, "      BAR%u: %s at 0x%" PRIx64 ", 0x%" PRIx64 " bytes", f->bar[k].index, kind,
                        f->bar[k].address, f->bar[k].size);
        else
            inspect_say(out, "      BAR%u: %s, 0x%" PRIx64 " bytes, not mapped", f->bar[k].index, kind, f->bar[k].size);
    }
}

void machine_print_pci(const struct machine *m, const struct inspect_out *out)
{
    machine_each_pci(m, print_function, (void *)(uintptr_t)out);
}

/* ---- drives ---- */

void machine_each_drive(const struct machine *m, void (*fn)(void *ctx, const struct inspect_drive *d), void *ctx)
{
    for (unsigned k = 0; k < m->drives.count; k++) {
        const struct drive *d = &m->drives.drive[k];
        struct inspect_drive out = {.interface = drive_interface_name(d->cfg.interface),
                                    .is_cdrom = d->cfg.is_cdrom,
                                    .removable = d->cfg.is_cdrom || d->cfg.interface == DRIVE_FLOPPY};
        drives_name(&d->cfg, out.name);
        if (d->block) {
            out.file = d->cfg.file;
            out.read_only = d->block->read_only;
            out.snapshot = d->cfg.snapshot;
            out.size = d->block->size;
        }
        fn(ctx, &out);
    }
}

static void print_drive(void *ctx, const struct inspect_drive *d)
{
    if (d->file)
        inspect_say(ctx, "%s: %s (%s%s%s), %" PRIu64 " bytes", d->name, d->file, d->interface,
                    d->read_only ? ", read-only" : "", d->snapshot ? ", snapshot" : "", d->size);
    else
        inspect_say(ctx, "%s: no medium", d->name);
}

void machine_print_drives(const struct machine *m, const struct inspect_out *out)
{
    machine_each_drive(m, print_drive, (void *)(uintptr_t)out);
}

void machine_print_keyboard(const struct machine *m, const struct inspect_out *out)
{
    const struct ps2_keyboard *k = &m->board.keyboard;
    uint64_t delay, period;
    ps2_keyboard_repetition(k, &delay, &period);
    inspect_say(out, "LEDs:%s%s%s%s; scan code set %u%s; repeats after %u ms, every %u ms; %u events wait",
                k->leds & PS2_LED_SCROLL ? " scroll" : "", k->leds & PS2_LED_NUM ? " num" : "",
                k->leds & PS2_LED_CAPS ? " caps" : "", k->leds ? "" : " none", k->set,
                k->scanning ? "" : " (turned off)", (unsigned)(delay / 1000000), (unsigned)(period / 1000000),
                k->count);
}

void machine_each_mouse(const struct machine *m, void (*fn)(void *ctx, const struct inspect_mouse *mouse), void *ctx)
{
    const struct board *b = &m->board;
    bool serial = b->cfg.mouse_port && b->serial_mouse.powered;
    char name[32];
    fn(ctx, &(struct inspect_mouse){"PS/2 mouse", 1, !serial});
    snprintf(name, sizeof name, "serial mouse on COM%u", b->cfg.mouse_port);
    if (b->cfg.mouse_port)
        fn(ctx, &(struct inspect_mouse){name, 2, serial});
}
