/*
 * The monitor's looks at the machine: info, x, xp.
 */
#include "frontends/control/control_internal.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define COUNT_MAX 4096u

bool monitor_number(const char *text, uint64_t *value)
{
    char *end;
    *value = strtoull(text, &end, 0);
    return isdigit((unsigned char)*text) && !*end;
}

/* ---- info ---- */

typedef void info_fn(struct control *c, int argc, char **argv, const struct inspect_out *out);

static void info_status(struct control *c, int argc, char **argv, const struct inspect_out *out)
{
    inspect_say(out, "VM status: %s%s", control_holds(c) ? "paused" : "running", c->io_error ? " (io-error)" : "");
    inspect_say(out, "instructions %" PRIu64 ", time %" PRIu64 " ns", machine_icount(c->m), machine_vtime(c->m));
}

static void info_version(struct control *c, int argc, char **argv, const struct inspect_out *out)
{
    inspect_say(out, "umbra %s", UMBRA_VERSION);
}

static void info_registers(struct control *c, int argc, char **argv, const struct inspect_out *out)
{
    bool all = argc > 2 && !strcmp(argv[2], "-a");
    for (unsigned k = 0; k < machine_cpu_count(c->m); k++)
        if (all || k == c->cpu)
            machine_print_regs(c->m, k, out);
}

static void info_cpus(struct control *c, int argc, char **argv, const struct inspect_out *out)
{
    for (unsigned k = 0; k < machine_cpu_count(c->m); k++) {
        struct inspect_regs r;
        machine_get_regs(c->m, k, &r);
        inspect_say(out, "%c CPU #%u: rip 0x%016" PRIx64 "%s", k == c->cpu ? '*' : ' ', k, r.rip,
                    r.halted ? " (halted)" : "");
    }
}

static void info_mtree(struct control *c, int argc, char **argv, const struct inspect_out *out)
{
    machine_print_mmu_slots(c->m, out);
    machine_print_buses(c->m, out);
}

static void info_pci(struct control *c, int argc, char **argv, const struct inspect_out *out)
{
    machine_print_pci(c->m, out);
}

/* Without an address: roots and counters. */
static void info_block(struct control *c, int argc, char **argv, const struct inspect_out *out)
{
    machine_print_drives(c->m, out);
}

static void say_chardev(void *out, const char *id, const char *where, bool open)
{
    inspect_say(out, "%s: filename=%s%s", id, where, open ? "" : " (nobody is connected)");
}

static void info_chardev(struct control *c, int argc, char **argv, const struct inspect_out *out)
{
    if (c->hooks.each_chardev)
        c->hooks.each_chardev(c->hooks.ctx, say_chardev, (void *)(uintptr_t)out);
}

static void info_keyboard(struct control *c, int argc, char **argv, const struct inspect_out *out)
{
    machine_print_keyboard(c->m, out);
}

static void say_mouse(void *ctx, const struct inspect_mouse *mouse)
{
    inspect_say(ctx, "%c Mouse #%u: %s", mouse->current ? '*' : ' ', mouse->index, mouse->name);
}

static void info_mice(struct control *c, int argc, char **argv, const struct inspect_out *out)
{
    machine_each_mouse(c->m, say_mouse, (void *)(uintptr_t)out);
}

static void info_mmu(struct control *c, int argc, char **argv, const struct inspect_out *out)
{
    uint64_t gva;
    if (argc > 2) {
        if (monitor_number(argv[2], &gva))
            machine_print_mmu_walk(c->m, c->cpu, gva, out);
        else
            inspect_say(out, "error: '%s' is not an address", argv[2]);
        return;
    }
    machine_print_mmu_roots(c->m, out);
    machine_print_counters(c->m, "mmu.", out);
}

static void info_mem(struct control *c, int argc, char **argv, const struct inspect_out *out)
{
    uint64_t from = 0;
    if (argc > 2 && !monitor_number(argv[2], &from))
        inspect_say(out, "error: '%s' is not an address", argv[2]);
    else
        machine_print_mappings(c->m, c->cpu, from, out);
}

static void info_stats(struct control *c, int argc, char **argv, const struct inspect_out *out)
{
    machine_print_counters(c->m, argc > 2 ? argv[2] : "", out);
}

static void info_vmcoreinfo(struct control *c, int argc, char **argv, const struct inspect_out *out)
{
    uint64_t gpa;
    uint32_t bytes;
    if (machine_vmcoreinfo(c->m, &gpa, &bytes))
        inspect_say(out, "ELF note of %u bytes at 0x%" PRIx64, bytes, gpa);
    else
        inspect_say(out, "the guest has left none (-device vmcoreinfo, and the guest's driver)");
}

static const struct {
    const char *name, *help;
    info_fn *fn;
} infos[] = {
    {"status", "running or paused, position and time", info_status},
    {"version", "of the program", info_version},
    {"registers", "of the processor; -a: of all", info_registers},
    {"cpus", "processors, and where they are", info_cpus},
    {"mtree", "memory slots; ports and devices' memory", info_mtree},
    {"pci", "functions of the PCI bus with their BARs", info_pci},
    {"block", "drives and their images", info_block},
    {"chardev", "character devices, and where they lead", info_chardev},
    {"keyboard", "its LEDs, scan codes, repetition", info_keyboard},
    {"mice", "and which one moves", info_mice},
    {"mmu", "roots and counters; with an ADDRESS: its walks", info_mmu},
    {"mem", "what the guest's tables map (from an ADDRESS on), with rights", info_mem},
    {"vmcoreinfo", "where the kernel's VMCOREINFO note is", info_vmcoreinfo},
    {"stats", "counters that begin with a PREFIX, or all", info_stats},
};

void monitor_info(struct control *c, int argc, char **argv, const struct inspect_out *out)
{
    for (size_t k = 0; k < ARRAY_LEN(infos); k++) {
        if (argc < 2)
            inspect_say(out, "info %s -- %s", infos[k].name, infos[k].help);
        else if (!strcmp(argv[1], infos[k].name)) {
            infos[k].fn(c, argc, argv, out);
            return;
        }
    }
    if (argc > 1)
        inspect_say(out, "error: there is no 'info %s'", argv[1]);
}

/* ---- x, xp ---- */

struct format {
    unsigned count, size;
    char how;
};

/* "/4xw": false if it is no format. */
static bool format_parse(const char *p, struct format *f)
{
    *f = (struct format){1, 4, 'x'};
    if (!*p)
        return true;
    if (*p++ != '/')
        return false;
    if (isdigit((unsigned char)*p)) {
        unsigned long n = strtoul(p, (char **)&p, 10);
        f->count = n < COUNT_MAX ? (unsigned)n : COUNT_MAX;
    }
    for (; *p; p++) {
        const char *sizes = "bhwg", *s = strchr(sizes, *p);
        if (s)
            f->size = 1u << (s - sizes);
        else if (strchr("xduoci", *p))
            f->how = *p;
        else
            return false;
    }
    return true;
}

static size_t read_at(const struct control *c, bool physical, uint64_t at, void *buf, size_t len)
{
    return physical ? machine_peek_gpa(c->m, at, buf, len) : machine_peek_gva(c->m, c->cpu, at, buf, len);
}

static void print_value(char *text, size_t size, const struct format *f, uint64_t v)
{
    int64_t sign = (int64_t)(v << (64 - 8 * f->size)) >> (64 - 8 * f->size);
    switch (f->how) {
    case 'd':
        snprintf(text, size, " %" PRId64, sign);
        break;
    case 'u':
        snprintf(text, size, " %" PRIu64, v);
        break;
    case 'o':
        snprintf(text, size, " %" PRIo64, v);
        break;
    case 'c':
        snprintf(text, size, isprint((int)(v & 0xff)) ? " '%c'" : " '\\x%02x'", (int)(v & 0xff));
        break;
    default:
        snprintf(text, size, " 0x%0*" PRIx64, (int)(2 * f->size), v);
        break;
    }
}

static void print_memory(struct control *c, bool physical, const struct format *f, uint64_t at,
                         const struct inspect_out *out)
{
    unsigned on_line = f->how == 'c' ? 8 : 16 / f->size;
    for (unsigned k = 0; k < f->count;) {
        char line[512], *end = line + sizeof line, *p = line;
        p += snprintf(p, (size_t)(end - p), "%016" PRIx64 ":", at);
        for (unsigned n = 0; n < on_line && k < f->count; n++, k++, at += f->size) {
            uint64_t v = 0;
            if (read_at(c, physical, at, &v, f->size) != f->size) {
                out->line(out->ctx, line);
                inspect_say(out, "cannot access memory at 0x%" PRIx64, at);
                return;
            }
            print_value(p, (size_t)(end - p), f, v);
            p += strlen(p);
        }
        out->line(out->ctx, line);
    }
}

static void print_code(const struct control *c, const struct format *f, uint64_t at, const struct inspect_out *out)
{
    for (unsigned k = 0; k < f->count; k++) {
        char text[128];
        unsigned len = machine_disassemble(c->m, c->cpu, at, text, sizeof text);
        if (!len) {
            inspect_say(out, "cannot access memory at 0x%" PRIx64, at);
            return;
        }
        inspect_say(out, "0x%016" PRIx64 ": %s", at, text);
        at += len;
    }
}

void monitor_examine(struct control *c, bool physical, int argc, char **argv, const struct inspect_out *out)
{
    const char *slash = strchr(argv[0], '/'), *format = slash ? slash : argc > 2 ? argv[1] : "";
    struct format f;
    uint64_t at;
    if ((slash && argc > 2) || !format_parse(format, &f) || !monitor_number(argv[argc - 1], &at)) {
        inspect_say(out, "usage: x/FMT ADDRESS, such as x/8xw 0x7c00");
        return;
    }
    if (f.how == 'i' && physical)
        inspect_say(out, "error: code is shown by virtual addresses: x/i");
    else if (f.how == 'i')
        print_code(c, &f, at, out);
    else
        print_memory(c, physical, &f, at, out);
}
