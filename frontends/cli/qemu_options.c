/*
 * Options of QEMU that stand in people's Makefiles and scripts, and that have no thing of their own here. What changes
 * nothing is accepted with a note; what would change something is refused with a reason.
 */
#include "frontends/cli/option_row.h"

#include "core/log.h"
#include "frontends/cli/device_options.h"
#include "frontends/cli/properties.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

static void note(const char *name, const char *arg, const char *why)
{
    log_warn("-%s%s%s %s", name, arg ? " " : "", arg ? arg : "", why);
}

static bool opt_ignored(struct options *o, const char *name, const char *arg, struct error *e)
{
    note(name, arg, "has no effect here");
    return true;
}

static bool refuse(const char *name, const char *arg, const char *why, struct error *e)
{
    return error_set(e, "-%s%s%s is not supported: %s", name, arg ? " " : "", arg ? arg : "", why);
}

/* `text` is `word`, or begins with it and `after`. */
static bool begins(const char *text, const char *word, char after)
{
    size_t n = strlen(word);
    return !strncmp(text, word, n) && (!text[n] || text[n] == after);
}

/* ---- -machine, -accel ---- */

bool qemu_accel_is_known(const char *text)
{
    static const char *const engines[] = {"tcg", "kvm", "hvf", "whpx", "nvmm", "hax"};
    for (size_t k = 0; k < ARRAY_LEN(engines); k++)
        if (begins(text, engines[k], ',') || begins(text, engines[k], ':'))
            return true;
    return false;
}

/* Properties of the PC that say what it is here in any case. */
static bool machine_property_is_harmless(const char *key, const char *value)
{
    static const struct {
        const char *key, *value; /* value NULL: any */
    } known[] = {{"usb", "off"},          {"vmport", NULL},         {"kernel_irqchip", NULL},  {"kernel-irqchip", NULL},
                 {"mem-merge", NULL},     {"graphics", "on"},       {"dump-guest-core", NULL}, {"smm", "on"},
                 {"smm", "auto"},         {"acpi", "on"},           {"nvdimm", "off"},         {"i8042", "on"},
                 {"igd-passthru", "off"}, {"suppress-vmdesc", NULL}};
    for (size_t k = 0; k < ARRAY_LEN(known); k++)
        if (!strcmp(key, known[k].key) && (!known[k].value || !strcmp(value, known[k].value)))
            return true;
    return false;
}

static bool machine_type(const char *name, const char *type, struct error *e)
{
    return !strcmp(type, "pc") || !strncmp(type, "pc-i440fx-", 10) ||
           refuse(name, type, "the machine is a 'pc' (i440FX and PIIX3)", e);
}

static bool machine_property(struct options *o, const char *name, const char *key, const char *value, struct error *e)
{
    if (!strcmp(key, "type"))
        return machine_type(name, value, e);
    if (!strcmp(key, "hpet") && (!strcmp(value, "on") || !strcmp(value, "off"))) {
        o->machine.no_hpet = value[1] == 'f';
        return true;
    }
    if ((!strcmp(key, "accel") && qemu_accel_is_known(value)) || machine_property_is_harmless(key, value))
        return true;
    return error_set(e, "-%s %s=%s is not supported: the machine is a 'pc', with hpet=on or off", name, key, value);
}

static bool opt_machine(struct options *o, const char *name, const char *arg, struct error *e)
{
    char *text = (char *)(uintptr_t)arg; /* an argument of the process: it may be cut */
    bool first = true;
    for (char *p; (p = property_next(&text)); first = false) {
        char *value = property_value(p);
        if (value ? !machine_property(o, name, p, value, e) : first && !machine_type(name, p, e))
            return false;
        if (!value && !first)
            return error_set(e, "-%s: '%s': expected KEY=VALUE", name, p);
    }
    return true;
}

static bool opt_no_hpet(struct options *o, const char *name, const char *arg, struct error *e)
{
    o->machine.no_hpet = true;
    return true;
}

/* ---- the old way to a network ---- */

static bool opt_net(struct options *o, const char *name, const char *arg, struct error *e)
{
    if (!strcmp(arg, "none"))
        return opt_ignored(o, name, arg, e);
    const char **half = begins(arg, "nic", ',') ? &o->net_nic : begins(arg, "user", ',') ? &o->net_user : NULL;
    if (!half)
        return refuse(name, arg, "there are -net nic, -net user and -net none (better: -nic user)", e);
    if (*half)
        return refuse(name, arg, "one network at most in this old spelling; give -nic user,... for each", e);
    *half = arg;
    return true;
}

bool qemu_net_finish(struct options *o, struct error *e)
{
    static const char mac[] = "macaddr=";
    if (!o->net_nic != !o->net_user)
        return error_set(e, "-net %s: -net nic and -net user go together (better: -nic user)",
                         o->net_nic ? o->net_nic : o->net_user);
    if (!o->net_nic)
        return true;
    char *nic = (char *)(uintptr_t)o->net_nic;
    size_t used = (size_t)snprintf(o->net_text, sizeof o->net_text, "%s", o->net_user);
    for (char *p = property_next(&nic); (p = property_next(&nic)) && used < sizeof o->net_text;) {
        if (begins(p, "netdev", '=') || begins(p, "name", '=') || begins(p, "vlan", '='))
            continue;
        bool is_mac = !strncmp(p, mac, sizeof mac - 1);
        used += (size_t)snprintf(o->net_text + used, sizeof o->net_text - used, ",%s%s", is_mac ? "mac=" : "",
                                 is_mac ? p + sizeof mac - 1 : p);
    }
    if (used >= sizeof o->net_text)
        return error_set(e, "-net user: too long; give -nic user,...");
    return nic_option_parse(&o->machine, o->net_text, e);
}

/* ---- options of which one form is what happens in any case ---- */

/* One unit of virtual time an instruction, whatever QEMU would guess. */
static bool opt_icount(struct options *o, const char *name, const char *arg, struct error *e)
{
    const char *shift = !strncmp(arg, "shift=", 6) ? arg + 6 : arg;
    if (!begins(shift, "0", ',') && !begins(shift, "auto", ',') && !begins(arg, "sleep=off", ','))
        return refuse(name, arg, "time is counted in instructions always, 1 ns each (shift=0)", e);
    if (strstr(arg, "rr="))
        return refuse(name, arg, "a run repeats without a recording; see -input-script", e);
    note(name, arg, "has no effect here: time is counted in instructions always, 1 ns each");
    return true;
}

static bool opt_none_only(struct options *o, const char *name, const char *arg, struct error *e)
{
    return begins(arg, "none", ',') || begins(arg, "driver=none", ',') || !strcmp(arg, "null")
               ? opt_ignored(o, name, arg, e)
               : refuse(name, arg, "there is no such device (none is accepted)", e);
}

static bool opt_object(struct options *o, const char *name, const char *arg, struct error *e)
{
    if (strncmp(arg, "rng-", 4) != 0)
        return refuse(name, arg, "of QEMU's objects only rng-* is known", e);
    note(name, arg, "has no effect here: random numbers come from a fixed seed, so that runs repeat");
    return true;
}

static bool opt_global(struct options *o, const char *name, const char *arg, struct error *e)
{
    static const char port[] = "isa-debugcon.iobase=";
    const char *value = strchr(arg, '=');
    uint64_t n;
    if (!strncmp(arg, port, sizeof port - 1)) {
        if (!option_number(arg + sizeof port - 1, &n) || !n || n > 0xffff)
            return option_bad_value(name, arg, "isa-debugcon.iobase=PORT", e);
        o->machine.debug_console_port = (uint16_t)n;
        return true;
    }
    if ((strstr(arg, ".disable_s3=") || strstr(arg, ".disable_s4=")) && !strcmp(value, "=1"))
        return opt_ignored(o, name, arg, e);
    return refuse(name, arg, "of QEMU's properties isa-debugcon.iobase=PORT is known here", e);
}

static bool action_property(struct options *o, const char *key, const char *value)
{
    if (!strcmp(key, "reboot") && !strcmp(value, "shutdown"))
        return o->machine.no_reboot = true;
    if (!strcmp(key, "shutdown") && !strcmp(value, "pause"))
        return o->no_shutdown = true;
    return (!strcmp(key, "reboot") && !strcmp(value, "reset")) ||
           (!strcmp(key, "shutdown") && !strcmp(value, "poweroff")) || !strcmp(key, "panic") ||
           !strcmp(key, "watchdog");
}

static bool opt_action(struct options *o, const char *name, const char *arg, struct error *e)
{
    char *text = (char *)(uintptr_t)arg;
    for (char *p; (p = property_next(&text));) {
        char *value = property_value(p);
        if (!value || !action_property(o, p, value))
            return option_bad_value(name, p, "reboot=reset|shutdown, shutdown=poweroff|pause", e);
    }
    return true;
}

static bool opt_echr(struct options *o, const char *name, const char *arg, struct error *e)
{
    uint64_t n;
    if (!option_number(arg, &n) || n < 1 || n > 26)
        return option_bad_value(name, arg, "the number of a control character, 1 (Ctrl-A) to 26", e);
    o->escape_key = (uint8_t)n;
    return true;
}

/* ---- the table ---- */

static bool opt_refused(struct options *o, const char *name, const char *arg, struct error *e);

#define ACCEPT(name, arg)                                                                                              \
    {                                                                                                                  \
        name, arg, opt_ignored, NULL                                                                                   \
    }
#define ONLY(name, arg, fn)                                                                                            \
    {                                                                                                                  \
        name, arg, fn, NULL                                                                                            \
    }
#define REFUSE(name, arg, why)                                                                                         \
    {                                                                                                                  \
        name, arg, opt_refused, why                                                                                    \
    } /* in the place of a help */

static const struct option_row rows[] = {
    ONLY("machine", "pc[,hpet=on|off]", opt_machine),
    ONLY("M", "TYPE", opt_machine),
    ONLY("no-hpet", NULL, opt_no_hpet),
    ONLY("net", "nic|user|none", opt_net),
    ONLY("icount", "shift=0", opt_icount),
    ONLY("parallel", "none", opt_none_only),
    ONLY("audio", "none", opt_none_only),
    ONLY("audiodev", "none,id=ID", opt_none_only),
    ONLY("object", "rng-random,id=ID", opt_object),
    ONLY("global", "isa-debugcon.iobase=PORT", opt_global),
    ONLY("action", "reboot=shutdown", opt_action),
    ONLY("echr", "NUMBER", opt_echr),
    ACCEPT("enable-kvm", NULL),
    ACCEPT("no-kvm", NULL),
    ACCEPT("nodefaults", NULL),
    ACCEPT("no-user-config", NULL),
    ACCEPT("k", "LANGUAGE"),
    ACCEPT("msg", "timestamp=on"),
    ACCEPT("sandbox", "on"),
    ACCEPT("overcommit", "mem-lock=off"),
    ACCEPT("mem-prealloc", NULL),
    ACCEPT("no-fd-bootchk", NULL),
    ACCEPT("only-migratable", NULL),
    ACCEPT("compat", "POLICY"),
    ACCEPT("singlestep", NULL),
    ACCEPT("one-insn-per-tb", NULL),
    REFUSE("usb", NULL, "there is no USB"),
    REFUSE("usbdevice", "DEVICE", "there is no USB; keyboard and mouse are PS/2"),
    REFUSE("soundhw", "CARD", "there is no sound"),
    REFUSE("daemonize", NULL,
           "start it in the background (a shell's &) with -monitor unix:PATH or -qmp unix:PATH,server"),
    REFUSE("virtfs", "TEXT", "there is no 9p; give files as a disk or in the initrd"),
    REFUSE("fsdev", "TEXT", "there is no 9p; give files as a disk or in the initrd"),
    REFUSE("numa", "TEXT", "memory is one node"),
    REFUSE("incoming", "TEXT", "there is no migration between hosts; -loadvm FILE goes on from a snapshot"),
    REFUSE("tpmdev", "TEXT", "there is no TPM"),
    REFUSE("spice", "TEXT", "there is VNC (-display vnc=:N)"),
    REFUSE("watchdog", "MODEL", "there is no watchdog; -vtimeout S ends a run"),
    REFUSE("option-rom", "FILE", "option ROMs come with their devices"),
    REFUSE("acpitable", "TEXT", "the ACPI tables describe the machine as it is"),
    REFUSE("no-acpi", NULL, "the machine has ACPI; acpi=off is Linux's own switch"),
    REFUSE("readconfig", "FILE", "give the options themselves"),
    REFUSE("writeconfig", "FILE", "give the options themselves"),
    REFUSE("mem-path", "PATH", "-hugepages 2M makes guest memory of large pages"),
    REFUSE("plugin", "TEXT", "-trace, -d in_asm and umbra debug show what the guest does"),
    REFUSE("dfilter", "RANGE", "-d has no filter by address"),
    REFUSE("semihosting", NULL, "it is not for x86; -device isa-debug-exit ends a run"),
    REFUSE("L", "PATH", "-bios takes a path"),
};

static bool opt_refused(struct options *o, const char *name, const char *arg, struct error *e)
{
    return refuse(name, arg, qemu_option_find(name)->help, e);
}

const struct option_row *qemu_option_find(const char *name)
{
    for (size_t k = 0; k < ARRAY_LEN(rows); k++)
        if (!strcmp(rows[k].name, name))
            return &rows[k];
    return NULL;
}

void qemu_options_print_help(FILE *out)
{
    unsigned column = (unsigned)fprintf(out, "\nalso accepted, as of QEMU:");
    for (size_t k = 0; k < ARRAY_LEN(rows); k++) {
        if (rows[k].fn == opt_refused)
            continue;
        if (column + strlen(rows[k].name) > 110)
            column = (unsigned)fprintf(out, "\n ") - 1;
        column += (unsigned)fprintf(out, " -%s", rows[k].name);
    }
    fputc('\n', out);
}
