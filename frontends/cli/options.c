#include "frontends/cli/options.h"

#include "core/log.h"
#include "core/trace.h"
#include "frontends/cli/chardev.h"
#include "frontends/cli/device_options.h"
#include "frontends/cli/drive_options.h"
#include "frontends/cli/identity_options.h"
#include "frontends/cli/option_row.h"
#include "frontends/cli/properties.h"
#include "frontends/cli/smp.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- options ---- */

static bool opt_kernel(struct options *o, const char *name, const char *arg, struct error *e)
{
    o->machine.kernel = arg;
    return true;
}

static bool opt_bios(struct options *o, const char *name, const char *arg, struct error *e)
{
    o->machine.bios = arg;
    return true;
}

static bool opt_initrd(struct options *o, const char *name, const char *arg, struct error *e)
{
    o->machine.initrd = arg;
    return true;
}

static bool opt_append(struct options *o, const char *name, const char *arg, struct error *e)
{
    o->machine.append = arg;
    return true;
}

static bool opt_memory(struct options *o, const char *name, const char *arg, struct error *e)
{
    if (!strncmp(arg, "size=", 5))
        arg += 5;
    if (!option_size(arg, &o->machine.ram_bytes))
        return option_bad_value(name, arg, "a size such as 512M or 2G", e);
    if (o->machine.ram_bytes & ((1 << 20) - 1) || o->machine.ram_bytes < 2 << 20 || o->machine.ram_bytes > 64ull << 30)
        return option_bad_value(name, arg, "whole megabytes, from 2M to 64G", e);
    return true;
}

static bool opt_serial(struct options *o, const char *name, const char *arg, struct error *e)
{
    static const char *const labels[SERIALS_MAX] = {"serial0", "serial1", "serial2", "serial3"};
    if (o->serials == SERIALS_MAX)
        return error_set(e, "-serial %s: there are %d serial ports, and all are assigned", arg, SERIALS_MAX);
    const char **id = &o->serial[o->serials];
    return chardev_place_parse(o, name, labels[o->serials++], (char *)(uintptr_t)arg, id, e);
}

static bool opt_debugcon(struct options *o, const char *name, const char *arg, struct error *e)
{
    o->machine.debug_console = true;
    return chardev_place_parse(o, name, "debugcon", (char *)(uintptr_t)arg, &o->debugcon, e);
}

static bool opt_nographic(struct options *o, const char *name, const char *arg, struct error *e)
{
    o->nographic = true;
    o->machine.serial_console = true;
    return true;
}

/* isa-debug-exit,iobase=0xf4,iosize=4 */
static bool debug_exit_parse(struct options *o, char *props, struct error *e)
{
    char *save = NULL;
    o->machine.debug_exit = true;
    for (char *p = strtok_r(props, ",", &save); p; p = strtok_r(NULL, ",", &save)) {
        uint64_t n = 0;
        char *value = strchr(p, '=');
        if (!value || !option_number(value + 1, &n))
            return error_set(e, "-device isa-debug-exit: '%s': expected iobase=PORT or iosize=BYTES", p);
        if (!strncmp(p, "iobase=", 7) && n <= 0xfffc)
            o->machine.debug_exit_base = (uint16_t)n;
        else if (!strncmp(p, "iosize=", 7) && n >= 1 && n <= 4)
            o->machine.debug_exit_size = (unsigned)n;
        else
            return error_set(e, "-device isa-debug-exit: '%s' is unknown or out of range", p);
    }
    return true;
}

/* isa-debugcon,iobase=0x402,chardev=ID */
static bool debugcon_parse(struct options *o, char *text, struct error *e)
{
    const char *id = NULL;
    uint64_t n = 0xe9;
    property_next(&text);
    for (char *p; (p = property_next(&text));) {
        char *value = property_value(p);
        if (value && !strcmp(p, "chardev"))
            id = value;
        else if (!value || strcmp(p, "iobase") != 0 || !option_number(value, &n) || !n || n > 0xffff)
            return error_set(e, "-device isa-debugcon: '%s': expected iobase=PORT or chardev=ID", p);
    }
    if (!id)
        return error_set(e, "-device isa-debugcon: chardev=ID is missing");
    o->machine.debug_console = true;
    o->machine.debug_console_port = (uint16_t)n;
    o->debugcon = id;
    return true;
}

static bool opt_device(struct options *o, const char *name, const char *arg, struct error *e)
{
    static const char exit_name[] = "isa-debug-exit";
    char copy[256];
    snprintf(copy, sizeof copy, "%s", arg);
    size_t n = strcspn(copy, ",");
    if (n == sizeof exit_name - 1 && !strncmp(copy, exit_name, n))
        return debug_exit_parse(o, copy + n + (copy[n] == ','), e);
    if (!strncmp(arg, "isa-debugcon,", 13))
        return debugcon_parse(o, (char *)(uintptr_t)arg, e);
    if (!strcmp(arg, "pc-testdev"))
        return o->machine.testdev = true;
    if (!strcmp(arg, "vmcoreinfo"))
        return o->machine.vmcoreinfo = true;
    return device_option_parse(&o->machine, (char *)(uintptr_t)arg, e);
}

static bool opt_smbios(struct options *o, const char *name, const char *arg, struct error *e)
{
    return smbios_option_parse(&o->machine, (char *)(uintptr_t)arg, e);
}

static bool opt_uuid(struct options *o, const char *name, const char *arg, struct error *e)
{
    return uuid_option_parse(&o->machine, arg, e);
}

static bool opt_chardev(struct options *o, const char *name, const char *arg, struct error *e)
{
    return chardev_option_parse(o, (char *)(uintptr_t)arg, e);
}

static bool opt_netdev(struct options *o, const char *name, const char *arg, struct error *e)
{
    return netdev_option_parse(&o->machine, (char *)(uintptr_t)arg, e);
}

static bool opt_nic(struct options *o, const char *name, const char *arg, struct error *e)
{
    return nic_option_parse(&o->machine, (char *)(uintptr_t)arg, e);
}

/* What is parsed in place is an argument of the process: it may be changed, and it stays. */
static bool opt_drive(struct options *o, const char *name, const char *arg, struct error *e)
{
    return drive_option_parse(&o->machine, (char *)(uintptr_t)arg, e);
}

static bool opt_drive_short(struct options *o, const char *name, const char *arg, struct error *e)
{
    return drive_option_short(&o->machine, name, arg, e);
}

static bool opt_boot(struct options *o, const char *name, const char *arg, struct error *e)
{
    return boot_option_parse(&o->machine, (char *)(uintptr_t)arg, e);
}

static bool opt_snapshot(struct options *o, const char *name, const char *arg, struct error *e)
{
    o->snapshot = true;
    return true;
}

static bool opt_no_reboot(struct options *o, const char *name, const char *arg, struct error *e)
{
    o->machine.no_reboot = true;
    return true;
}

static bool opt_no_shutdown(struct options *o, const char *name, const char *arg, struct error *e)
{
    o->no_shutdown = true;
    return true;
}

static bool opt_pid_file(struct options *o, const char *name, const char *arg, struct error *e)
{
    o->pid_file = arg;
    return true;
}

/* [guest=]NAME[,debug-threads=on] */
static bool opt_name(struct options *o, const char *name, const char *arg, struct error *e)
{
    char *text = (char *)(uintptr_t)arg, *first = property_next(&text), *value = first ? property_value(first) : NULL;
    o->machine.name = value && !strcmp(first, "guest") ? value : first;
    return o->machine.name && *o->machine.name ? true : option_bad_value(name, arg, "a name", e);
}

static bool opt_fw_cfg(struct options *o, const char *name, const char *arg, struct error *e)
{
    return fw_cfg_option_parse(&o->machine, (char *)(uintptr_t)arg, e);
}

static bool opt_log(struct options *o, const char *name, const char *arg, struct error *e)
{
    o->machine.log_list = arg;
    return true;
}

static bool opt_log_path(struct options *o, const char *name, const char *arg, struct error *e)
{
    o->log_path = arg;
    return true;
}

static bool opt_trace(struct options *o, const char *name, const char *arg, struct error *e)
{
    o->machine.trace_list = arg;
    return true;
}

static bool opt_cpu(struct options *o, const char *name, const char *arg, struct error *e)
{
    o->machine.cpu = arg;
    return true;
}

static bool opt_smp(struct options *o, const char *name, const char *arg, struct error *e)
{
    return smp_parse(arg, &o->machine.smp, e);
}

/* heat=RUNS or cache=SIZE */
static bool jit_property(struct options *o, const char *p)
{
    uint64_t n;
    if (!strncmp(p, "heat=", 5) && option_number(p + 5, &n) && n >= 1 && n <= 1u << 30) {
        o->machine.jit_heat = (unsigned)n;
        return true;
    }
    return !strncmp(p, "cache=", 6) && option_size(p + 6, &o->machine.jit_cache) &&
           !(o->machine.jit_cache & PAGE_MASK) && o->machine.jit_cache >= MACHINE_JIT_CACHE_MIN &&
           o->machine.jit_cache <= MACHINE_JIT_CACHE_MAX;
}

static bool opt_accel(struct options *o, const char *name, const char *arg, struct error *e)
{
    char copy[64], *save = NULL;
    snprintf(copy, sizeof copy, "%s", arg);
    const char *engine = strtok_r(copy, ",", &save);
    if (qemu_accel_is_known(arg)) {
        log_warn("-accel %s has no effect here (there are jit and interp)", arg);
        return true;
    }
    o->machine.jit = engine && !strcmp(engine, "jit");
    o->machine.jit_if_it_can = false;
    if (!engine || (!o->machine.jit && strcmp(engine, "interp")))
        return option_bad_value(name, arg, "interp or jit", e);
    for (const char *p = strtok_r(NULL, ",", &save); p; p = strtok_r(NULL, ",", &save))
        if (!o->machine.jit || !jit_property(o, p))
            return option_bad_value(name, arg, "jit with heat=RUNS (from 1) or cache=SIZE (from 256K to 512M)", e);
    return true;
}

static bool opt_display(struct options *o, const char *name, const char *arg, struct error *e)
{
    o->display = strcmp(arg, "none") ? arg : NULL;
    return true;
}

static bool opt_curses(struct options *o, const char *name, const char *arg, struct error *e)
{
    o->display = name;
    return true;
}

/* -vnc :1 is -display vnc=:1. */
static bool opt_vnc(struct options *o, const char *name, const char *arg, struct error *e)
{
    if ((size_t)snprintf(o->vnc, sizeof o->vnc, "vnc=%s", arg) >= sizeof o->vnc)
        return option_bad_value(name, arg, "[HOST]:NUMBER", e);
    o->display = strcmp(arg, "none") ? o->vnc : NULL;
    return true;
}

static bool add_control(struct options *o, enum control_kind kind, const char *name, const char *arg, struct error *e)
{
    if (o->controls == CONTROL_CHANNELS)
        return error_set(e, "-%s %s: there are %d monitors already", name, arg, CONTROL_CHANNELS);
    o->control[o->controls++] = (struct control_spec){kind, arg};
    return true;
}

static bool opt_monitor(struct options *o, const char *name, const char *arg, struct error *e)
{
    o->monitor_given = true;
    if (!strcmp(arg, "none") || !strcmp(arg, "null"))
        return true;
    return add_control(o, CONTROL_MONITOR, name, arg, e);
}

static bool opt_qmp(struct options *o, const char *name, const char *arg, struct error *e)
{
    return add_control(o, CONTROL_QMP, name, arg, e);
}

static bool opt_mon(struct options *o, const char *name, const char *arg, struct error *e)
{
    return chardev_mon_parse(o, (char *)(uintptr_t)arg, e);
}

/* -rtc base=2020-01-01[T00:00:00] or seconds since 1970 */
static bool opt_rtc(struct options *o, const char *name, const char *arg, struct error *e)
{
    struct tm tm = {.tm_mday = 1};
    uint64_t seconds;
    int used = 0;
    const char *v = arg + 5;
    if (!strcmp(arg, "clock=vm"))
        return true;
    if (strncmp(arg, "base=", 5))
        return option_bad_value(name, arg, "base=YYYY-MM-DD[THH:MM:SS] or base=SECONDS; its clock is the virtual one",
                                e);
    if (option_number(v, &seconds) && seconds < 1ull << 40) {
        o->machine.rtc_base = (int64_t)seconds;
        return true;
    }
    int n = sscanf(v, "%4d-%2d-%2d%n", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &used);
    if (n == 3 && v[used] == 'T') {
        const char *t = v + used;
        int more = 0;
        n += sscanf(t, "T%2d:%2d:%2d%n", &tm.tm_hour, &tm.tm_min, &tm.tm_sec, &more);
        used += more;
    }
    if ((n != 3 && n != 6) || v[used] || tm.tm_mon < 1 || tm.tm_mon > 12 || tm.tm_year < 1970 || tm.tm_mday < 1 ||
        tm.tm_mday > 31)
        return option_bad_value(
            name, arg, "base=YYYY-MM-DD[THH:MM:SS] or base=SECONDS (a clock of the host would break repeatability)", e);
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    o->machine.rtc_base = (int64_t)timegm(&tm);
    return true;
}

static bool opt_input_script(struct options *o, const char *name, const char *arg, struct error *e)
{
    o->machine.input_script = arg;
    return true;
}

static bool opt_loadvm(struct options *o, const char *name, const char *arg, struct error *e)
{
    o->loadvm = arg;
    return true;
}

static bool opt_timeout(struct options *o, const char *name, const char *arg, struct error *e)
{
    return option_seconds(arg, &o->timeout) || option_bad_value(name, arg, "seconds", e);
}

static bool opt_vtimeout(struct options *o, const char *name, const char *arg, struct error *e)
{
    double s;
    if (!option_seconds(arg, &s))
        return option_bad_value(name, arg, "seconds of virtual time", e);
    o->machine.vtime_limit = (uint64_t)(s * 1e9);
    return true;
}

static bool opt_icount_limit(struct options *o, const char *name, const char *arg, struct error *e)
{
    if (!option_number(arg, &o->machine.icount_limit) || !o->machine.icount_limit)
        return option_bad_value(name, arg, "a number of instructions", e);
    return true;
}

static bool opt_audit(struct options *o, const char *name, const char *arg, struct error *e)
{
    if (!strcmp(arg, "events")) {
        o->machine.audit_events = true;
        return true;
    }
    if (!option_number(arg, &o->machine.audit_every) || !o->machine.audit_every)
        return option_bad_value(name, arg, "events, or a number of instructions", e);
    return true;
}

/* N[,from=POSITION] */
static bool opt_lockstep(struct options *o, const char *name, const char *arg, struct error *e)
{
    char *end;
    if (!isdigit((unsigned char)*arg))
        return option_bad_value(name, arg, "a number of instructions, and perhaps ,from=POSITION", e);
    o->lockstep = strtoull(arg, &end, 0);
    bool ok = o->lockstep && (!*end || (!strncmp(end, ",from=", 6) && option_number(end + 6, &o->lockstep_from)));
    return ok || option_bad_value(name, arg, "a number of instructions, and perhaps ,from=POSITION", e);
}

static bool opt_audit_mirror(struct options *o, const char *name, const char *arg, struct error *e)
{
    if (!option_number(arg, &o->machine.mirror_every) || !o->machine.mirror_every)
        return option_bad_value(name, arg, "a number of instructions", e);
    return true;
}

static bool opt_gdb(struct options *o, const char *name, const char *arg, struct error *e)
{
    o->gdb = arg;
    return true;
}

static bool opt_gdb_default(struct options *o, const char *name, const char *arg, struct error *e)
{
    o->gdb = "tcp::1234";
    return true;
}

static bool opt_stopped(struct options *o, const char *name, const char *arg, struct error *e)
{
    o->stopped = true;
    return true;
}

static bool opt_debug_script(struct options *o, const char *name, const char *arg, struct error *e)
{
    o->debug_script = arg;
    return true;
}

static bool opt_symbols(struct options *o, const char *name, const char *arg, struct error *e)
{
    o->symbols = arg;
    return true;
}

static bool opt_stats(struct options *o, const char *name, const char *arg, struct error *e)
{
    o->stats = true;
    return true;
}

static bool opt_perf_map(struct options *o, const char *name, const char *arg, struct error *e)
{
    o->perf_map = true;
    return true;
}

static bool opt_digest(struct options *o, const char *name, const char *arg, struct error *e)
{
    o->digest = true;
    return true;
}

static bool opt_help(struct options *o, const char *name, const char *arg, struct error *e)
{
    o->help = true;
    return true;
}

static bool opt_version(struct options *o, const char *name, const char *arg, struct error *e)
{
    o->version = true;
    return true;
}

static bool opt_vga(struct options *o, const char *name, const char *arg, struct error *e)
{
    o->machine.no_vga = !strcmp(arg, "none");
    return o->machine.no_vga || !strcmp(arg, "std") || option_bad_value(name, arg, "std or none", e);
}

static bool opt_screendump(struct options *o, const char *name, const char *arg, struct error *e)
{
    o->screendump = arg;
    return true;
}

static bool opt_screentext(struct options *o, const char *name, const char *arg, struct error *e)
{
    o->screentext = arg;
    return true;
}

static const struct option_row rows[] = {
    {"kernel", "FILE", opt_kernel, "boot a Linux bzImage, or a Multiboot 1 or 2 or PVH image"},
    {"bios", "FILE", opt_bios,
     "start from a raw ROM image at the top of 4 GiB; with -kernel, that BIOS starts the kernel"},
    {"drive", "file=F[,if=T][,media=M][,...]", opt_drive,
     "a drive: if=ide|virtio|floppy|pflash|none, media=disk|cdrom, format=raw|gzip, index=, snapshot=on, readonly=on, "
     "id=, bootindex=, werror=, rerror="},
    {"hda", "FILE", opt_drive_short, "first IDE disk (-hdb, -hdc, -hdd: the others)"},
    {"hdb", "FILE", opt_drive_short, NULL},
    {"hdc", "FILE", opt_drive_short, NULL},
    {"hdd", "FILE", opt_drive_short, NULL},
    {"cdrom", "FILE", opt_drive_short, "CD in the IDE drive of index 2"},
    {"fda", "FILE", opt_drive_short, "first floppy (-fdb: the second)"},
    {"fdb", "FILE", opt_drive_short, NULL},
    {"boot", "order=L[,once=L][,menu=on][,...]", opt_boot,
     "what firmware boots: a floppy, c disk, d CD, n network; splash-time=MS, strict=on, reboot-timeout=MS; or give "
     "devices and drives bootindex=N"},
    {"smbios", "type=N,KEY=VALUE...", opt_smbios, "texts of the SMBIOS tables 0, 1, 2, 3, 4 and 11"},
    {"uuid", "UUID", opt_uuid, "the machine's own"},
    {"name", "NAME", opt_name, "of the machine: in the window's title, and for monitors"},
    {"fw_cfg", "name=N,file=F|string=TEXT", opt_fw_cfg,
     "an item of fw_cfg for firmware and kernels (names begin with opt/)"},
    {"pidfile", "FILE", opt_pid_file, "holds the process's number while it runs"},
    {"snapshot", NULL, opt_snapshot, "drives write to temporary overlays, images stay as they are"},
    {"initrd", "FILE", opt_initrd, "initial RAM disk; or modules: FILE ARGS,FILE ARGS"},
    {"append", "TEXT", opt_append, "kernel command line"},
    {"m", "SIZE", opt_memory, "guest RAM: 512, 512M, 2G (default 128M)"},
    {"cpu", "MODEL[,+F][,-F]", opt_cpu, "processor model and feature switches (default base)"},
    {"smp", "N[,sockets=S][,cores=C][,threads=T]", opt_smp, "processors (default 1, at most 16)"},
    {"accel", "interp|jit[,heat=N][,cache=SIZE]", opt_accel,
     "execution engine; the JIT compiles what has run N times (40) into SIZE of memory (32M)"},
    {"serial", "stdio|mon:stdio|file:F|unix:P|pty|null|...", opt_serial,
     "where COM1 goes; given again: COM2 to COM4. Also tcp:[HOST]:PORT, pipe:PATH, ringbuf, chardev:ID, msmouse; "
     "sockets "
     "connect, or with ,server[,nowait] are connected to; mon: a monitor is there, too (Ctrl-A c)"},
    {"debugcon", "stdio|file:F|chardev:ID|...", opt_debugcon,
     "where port 0xe9 goes (-global isa-debugcon.iobase=: another port)"},
    {"nographic", NULL, opt_nographic, "no screen; COM1 on the terminal (Ctrl-A x leaves, Ctrl-A c: monitor)"},
    {"display", "none|sdl|curses|vnc=[HOST]:N", opt_display,
     "a window, text in the terminal, VNC on port 5900 + N (default none)"},
    {"vnc", "[HOST]:N", opt_vnc, "-display vnc=[HOST]:N"},
    {"curses", NULL, opt_curses, "-display curses"},
    {"vga", "std|none", opt_vga, "display adapter (default std: VGA and VBE, 16 MiB)"},
    {"screendump", "FILE", opt_screendump, "write the screen as a PNG file at the end"},
    {"screentext", "FILE", opt_screentext, "write the text on the screen at the end"},
    {"monitor", "stdio|unix:PATH|tcp:[HOST]:PORT", opt_monitor, "commands for people (help lists them); none"},
    {"mon", "chardev=ID[,mode=control]", opt_mon, "a monitor, or QMP, at a -chardev (a socket, or the terminal)"},
    {"qmp", "unix:PATH,server[,nowait]", opt_qmp, "JSON control as of QEMU's protocol; also stdio, tcp:[HOST]:PORT"},
    {"device", "KIND[,KEY=VALUE]...", opt_device,
     "isa-debug-exit,iobase=P,iosize=N (exit port: status (2 * value + 1) & 255), isa-debugcon,iobase=P,chardev=ID, "
     "pc-testdev (of KVM's unit tests), "
     "vmcoreinfo, ide-hd|ide-cd|floppy,drive=ID[,bus=B][,unit=U], or a PCI card: "
     "virtio-blk-pci,drive=ID; virtio-net-pci,netdev=ID; e1000,netdev=ID; ahci,id=ID (then B above is ID.0 to ID.5); "
     "virtio-rng-pci; virtio-serial-pci and behind it virtconsole,chardev=ID"},
    {"chardev", "KIND,id=ID[,...]", opt_chardev,
     "for -serial chardev:ID, virtconsole, isa-debugcon, -mon: stdio; file,path=F; pipe,path=P; socket,path=P or "
     "host=,port= (a client, or server=on[,wait=off]); pty; ringbuf[,size=N]; msmouse; null; mux=on shares it"},
    {"netdev", "user,id=ID[,hostfwd=F][,...]", opt_netdev,
     "a user-mode network; hostfwd=tcp:[ADDR]:PORT-[ADDR]:PORT, net=, host=, dns=, dhcpstart=, restrict=on, tftp=, "
     "bootfile="},
    {"nic", "none|user[,model=KIND][,mac=M][,...]", opt_nic, "a network card with a network of its own (default none)"},
    {"no-reboot", NULL, opt_no_reboot, "exit instead of resetting"},
    {"no-shutdown", NULL, opt_no_shutdown,
     "with a monitor: a machine that ends stands still, to be looked at, until quit"},
    {"rtc", "base=T", opt_rtc, "clock at power-on (default 2020-01-01)"},
    {"input-script", "FILE", opt_input_script,
     "type by script: wait \"TEXT\", send \"TEXT\", delay MS, sendkey KEYS, type \"TEXT\", waitscreen \"TEXT\", "
     "screendump "
     "\"FILE\", screentext \"FILE\", savevm \"FILE\", quit"},
    {"loadvm", "FILE", opt_loadvm, "go on from a saved machine"},
    {"timeout", "S", opt_timeout, "stop after S seconds of real time (exit code 6)"},
    {"vtimeout", "S", opt_vtimeout, "stop after S seconds of virtual time (exit code 8)"},
    {"icount-limit", "N", opt_icount_limit, "stop after N instructions (exit code 8)"},
    {"stats", NULL, opt_stats, "print counters at the end"},
    {"perfmap", NULL, opt_perf_map,
     "write /tmp/perf-PID.map, so that perf names guest code that the JIT compiled (with -symbols by function)"},
    {"digest", NULL, opt_digest, "print a digest of the final state"},
    {"lockstep", "N[,from=POSITION]", opt_lockstep,
     "run the interpreter beside, and compare every N instructions (10000 is a good number); exit code 12"},
    {"audit-mirror", "N", opt_audit_mirror,
     "mirror the guest's memory into a second address space, and compare the two every N instructions"},
    {"audit", "events|N", opt_audit, "check the MMU's invariants after every MMU event, or every N instructions"},
    {"s", NULL, opt_gdb_default, "gdb stub on port 1234 of the loopback interface"},
    {"gdb", "tcp:[ADDRESS]:PORT|unix:PATH", opt_gdb, "gdb stub there (port 0: a free one)"},
    {"S", NULL, opt_stopped, "do not run before gdb says so"},
    {"x", "FILE", opt_debug_script, "umbra debug: commands to run first"},
    {"symbols", "ELF", opt_symbols, "umbra debug, -perfmap: names for addresses"},
    {"d", "LIST", opt_log, "log channels (-d help lists them)"},
    {"D", "FILE", opt_log_path, "where -d goes (default stderr)"},
    {"trace", "LIST", opt_trace, "tracepoints to record, printed at the end (all, mmu., notifier., ...)"},
    {"help", NULL, opt_help, "this text"},
    {"version", NULL, opt_version, "version"},
    {"h", NULL, opt_help, NULL},
};

static const struct option_row *row_find(const char *name)
{
    const struct option_row *r;
    for (size_t k = 0; k < ARRAY_LEN(rows); k++)
        if (!strcmp(rows[k].name, name))
            return &rows[k];
    for (size_t k = 0; (r = host_option_row(k)); k++)
        if (!strcmp(r->name, name))
            return r;
    return qemu_option_find(name);
}

/* ---- help ---- */

static void row_print(FILE *out, const struct option_row *r)
{
    char left[64];
    if (!r->help)
        return;
    snprintf(left, sizeof left, "-%s %s", r->name, r->arg ? r->arg : "");
    fprintf(out, "  %-38s %s\n", left, r->help);
}

void options_print_help(FILE *out)
{
    const struct option_row *r;
    fprintf(out, "usage: umbra [options] [disk image]\n       umbra debug [options]\n\n");
    for (size_t k = 0; k < ARRAY_LEN(rows); k++)
        row_print(out, &rows[k]);
    for (size_t k = 0; (r = host_option_row(k)); k++)
        row_print(out, r);
    qemu_options_print_help(out);
    fprintf(
        out,
        "\nexit codes: 0 power-off, 2 bad input, 4 triple fault, 6 wall-clock timeout, 8 instruction or virtual-time\n"
        "limit, 10 halted for ever, 12 internal error, 14 paused for lack of host memory or disk, 16 forked machines "
        "ended\n"
        "differently; odd codes come from isa-debug-exit\n");
}

static void list_channels(FILE *out)
{
#define X(id, name, text) fprintf(out, "  %-14s %s\n", name, text);
    LOG_CHANNELS(X)
#undef X
}

static void list_tracepoints(FILE *out)
{
    for (enum trace_id id = 0; id < TRACE_COUNT; id++)
        fprintf(out, "  %s\n", trace_name(id));
}

static void list_devices(FILE *out)
{
    fprintf(out, "  isa-debug-exit, isa-debugcon, pc-testdev, vmcoreinfo, %s\n", device_option_list());
}

static void list_machines(FILE *out)
{
    fprintf(out, "  pc    i440FX and PIIX3, as QEMU's; hpet=on|off\n");
}

/* What "-NAME help" asks for; without a list of its own it is answered by the option's line of -help. */
static const struct {
    const char *name;
    void (*list)(FILE *out);
} lists[] = {{"d", list_channels},
             {"trace", list_tracepoints},
             {"device", list_devices},
             {"cpu", machine_print_models},
             {"machine", list_machines},
             {"M", list_machines},
             {"accel", NULL},
             {"display", NULL},
             {"vga", NULL},
             {"netdev", NULL},
             {"nic", NULL},
             {"chardev", NULL},
             {"mmu", NULL},
             {"smp", NULL},
             {"boot", NULL},
             {"drive", NULL},
             {"rtc", NULL},
             {"smbios", NULL},
             {"host-chaos", NULL},
             {"serial", NULL},
             {"monitor", NULL}};

/* True: it was a question, and is answered. */
static bool list_answer(const struct option_row *r, const char *arg)
{
    if (!arg || (strcmp(arg, "help") != 0 && strcmp(arg, "?") != 0))
        return false;
    for (size_t k = 0; k < ARRAY_LEN(lists); k++) {
        if (strcmp(lists[k].name, r->name) != 0)
            continue;
        if (lists[k].list)
            lists[k].list(stdout);
        else
            row_print(stdout, r);
        return true;
    }
    return false;
}

/* ---- all together ---- */

static bool display_check(const struct options *o, struct error *e)
{
    bool curses = o->display && !strncmp(o->display, "curses", 6);
    if (o->display && (o->debug || o->gdb || o->fork_at))
        return error_set(e, "-display %s: not with a debugger or -fork-at", o->display);
    for (unsigned k = 0; k < o->chardevs; k++)
        if (curses && o->chardev[k].kind == CHARDEV_STDIO)
            return error_set(e, "-display curses: the terminal is taken (-serial, -monitor or -chardev stdio)");
    return true;
}

static bool debug_check(const struct options *o, struct error *e)
{
    if (o->debug && (o->gdb || o->stopped))
        return error_set(e, "%s: 'umbra debug' has a prompt of its own; without 'debug' gdb can be used",
                         o->gdb ? "-s, -gdb" : "-S");
    if (!o->debug && (o->debug_script || (o->symbols && !o->perf_map)))
        return error_set(e, "%s: only for 'umbra debug' (-symbols: and -perfmap)", o->debug_script ? "-x" : "-symbols");
    return !o->stopped || o->gdb || o->controls ||
           error_set(e, "-S: nothing could start the machine: give -s, -gdb, -monitor or -qmp as well");
}

/* What goes together with forking, and what does not. */
static bool fork_check(const struct options *o, struct error *e)
{
    bool given = o->fork_at || o->fork_run || o->fork_out || o->fork_jobs;
    if (!given)
        return true;
    if (!o->fork_at || !o->fork_run || !o->fork_out)
        return error_set(e, "-fork-at TEXT, -fork-run FILE and -fork-out DIR go together: %s is missing",
                         !o->fork_at    ? "-fork-at"
                         : !o->fork_run ? "-fork-run"
                                        : "-fork-out");
    return (!o->debug && !o->gdb) || error_set(e, "-fork-at: forked machines cannot be debugged");
}

static bool options_check(struct options *o, struct error *e)
{
    if (!display_check(o, e) || !debug_check(o, e) || !fork_check(o, e))
        return false;
    if (o->lockstep && (o->debug || o->gdb || o->fork_at))
        return error_set(e, "-lockstep: not with a debugger or -fork-at");
    if (o->machine.bios && !o->machine.kernel && (o->machine.initrd || o->machine.append))
        return error_set(e, "-bios %s: -initrd and -append go with -kernel", o->machine.bios);
    if ((o->lockstep || o->fork_at) && drives_write_through(o->machine.drive, o->machine.drive_count))
        return error_set(e, "%s: two machines would write to one disk: give -snapshot",
                         o->lockstep ? "-lockstep" : "-fork-at");
    if (o->no_shutdown && !o->controls)
        log_warn("-no-shutdown has no effect here: there is no -monitor or -qmp to look at the machine with");
    for (unsigned k = 0; k < o->machine.drive_count; k++)
        if (o->machine.drive[k].interface == DRIVE_PFLASH && o->machine.bios)
            return error_set(e, "-drive if=pflash: firmware in flash does not go with -bios");
    if (!o->machine.kernel && !o->machine.bios && !o->machine.drive_count)
        return error_set(e,
                         "nothing to boot: give -kernel FILE, -bios FILE, or a drive such as -hda IMAGE or -cdrom ISO "
                         "(-help lists the options)");
    return true;
}

/* argv[*k], and what it takes. */
static bool option_take(struct options *o, int argc, char **argv, int *k, struct error *e)
{
    const char *text = argv[*k], *arg = NULL;
    if (*text != '-')
        return drive_option_short(&o->machine, "hda", text, e);
    const struct option_row *r = row_find(text + 1 + (text[1] == '-'));
    if (!r)
        return error_set(e, "unknown option '%s' (-help lists the options)", text);
    if (r->arg && *k + 1 >= argc)
        return error_set(e, "option '%s' needs an argument: %s", text, r->arg);
    if (r->arg)
        arg = argv[++*k];
    o->answered = list_answer(r, arg);
    return o->answered || r->fn(o, r->name, arg, e);
}

bool options_parse(struct options *o, int argc, char **argv, struct error *e)
{
    *o = (struct options){0};
    o->machine.jit = o->machine.jit_if_it_can = true;
    o->machine.ram_bytes = 128ull << 20;
    o->machine.rtc_base = MACHINE_RTC_DEFAULT;
    o->machine.debug_exit_base = 0x501;
    o->machine.debug_exit_size = 2;
    o->debug = argc > 1 && !strcmp(argv[1], "debug");
    for (int k = 1 + o->debug; k < argc && !o->answered; k++)
        if (!option_take(o, argc, argv, &k, e))
            return false;
    if (o->help || o->version || o->answered)
        return true;
    if (!qemu_net_finish(o, e) || !drive_options_finish(&o->machine, o->snapshot, e) || !chardev_check(o, e))
        return false;
    return options_check(o, e);
}
