/*
 * Files that nobody should write: kernels, input scripts, snapshots whose checksums are right, command lines. Each is
 * taken or refused with a message; nothing crashes, leaks, or takes long.
 */
#include "fuzz_files.h"

#include "frontends/cli/options.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SCRIPTS 60
#define LINES   200

void files_mutate(struct rng *r, uint8_t *bytes, size_t len)
{
    for (uint64_t n = rng_below(r, 8); n && len; n--) {
        size_t at = rng_below(r, len), size = 1u << rng_below(r, 4);
        uint64_t v = rng_number(r);
        if (size > len - at)
            size = len - at;
        if (rng_one_in(r, 2))
            bytes[at] ^= (uint8_t)(1u << rng_below(r, 8));
        else
            memcpy(bytes + at, &v, size);
    }
}

void files_expect_message(struct fuzz *f, bool ok, const struct error *e)
{
    f->accepted += ok;
    if (f->verbose)
        fprintf(stderr, "  %s\n", ok ? "accepted" : e->text);
    if (!ok && !e->text[0])
        fuzz_fail(f, "refused without a message");
    if (!ok && strchr(e->text, '\n'))
        fuzz_fail(f, "a message of several lines: %s", e->text);
}

/* ---- input scripts ---- */

struct script_rig {
    struct vclock clock;
    struct input_queue queue;
    unsigned saves, quits;
};

static void on_save(void *ctx, const char *path)
{
    ((struct script_rig *)ctx)->saves++;
}

static void on_shot(void *ctx, const char *path, bool as_text)
{
    ((struct script_rig *)ctx)->saves++;
}

/* Every other time there is something on it. */
static char *screen_now(void *ctx)
{
    return ((struct script_rig *)ctx)->saves++ % 2 ? strdup("login: x") : NULL;
}

static void on_quit(void *ctx)
{
    ((struct script_rig *)ctx)->quits++;
}

static size_t script_text(struct rng *r, char *out, size_t size)
{
    static const char *const words[] = {"wait \"ab\"\n",
                                        "wait \"aaab\"\n",
                                        "send \"ls\\n\"\n",
                                        "delay 1\n",
                                        "delay 18446744073709551615\n",
                                        "savevm \"x\"\n",
                                        "sendkey ctrl-alt-f1\n",
                                        "type \"Ls | wc\n\"\n",
                                        "waitscreen \"login:\"\n",
                                        "screendump \"x.png\"\n",
                                        "quit\n",
                                        "# note\n",
                                        "\n",
                                        "send \"\\x41\\e\\\"\\\\\"",
                                        "\"",
                                        "\\",
                                        "\\x",
                                        "wait ",
                                        "send",
                                        " ",
                                        "\t\r\n",
                                        "delay -1\n",
                                        "wait \"\"\n",
                                        "wait \"a\" b\n"};
    size_t at = 0;
    bool valid = rng_one_in(r, 2);
    for (uint64_t n = rng_below(r, 30); n; n--) {
        const char *w = words[rng_below(r, valid ? 13 : ARRAY_LEN(words))];
        size_t len = strlen(w);
        if (at + len > size)
            break;
        memcpy(out + at, w, len);
        at += len;
    }
    if (!valid || rng_one_in(r, 4))
        files_mutate(r, (uint8_t *)out, at);
    return at;
}

static void script_run(struct fuzz *f, struct script *s, struct script_rig *rig)
{
    script_start(s);
    for (unsigned k = 0; k < LINES; k++) {
        script_output(s, rng_one_in(&f->rng, 3) ? (uint8_t)rng_next(&f->rng) : (uint8_t) "aab"[k % 3]);
        if (rng_one_in(&f->rng, 16)) {
            clock_skip_to(&rig->clock, clock_next_deadline(&rig->clock));
            clock_run_due(&rig->clock);
        }
    }
}

static void scripts_session(struct fuzz *f)
{
    char text[1024];
    for (unsigned k = 0; k < SCRIPTS && !rng_is_over(&f->rng); k++, f->round++, f->work++) {
        struct script_rig rig = {.saves = 0};
        struct error e = {""};
        struct mem_file file = mem_file_make(f, text, script_text(&f->rng, text, sizeof text));
        const struct script_ops ops = {&rig, on_save, on_shot, screen_now, on_quit};
        clock_init(&rig.clock);
        input_init(&rig.queue);
        struct script *s = script_load(file.path, &rig.clock, &rig.queue, &ops, &e);
        files_expect_message(f, s != NULL, &e);
        if (s)
            script_run(f, s, &rig);
        script_free(s);
        input_fini(&rig.queue);
        mem_file_close(&file);
    }
}

/* ---- command lines ---- */

static const char *const option_words[] = {"-kernel",
                                           "-initrd",
                                           "-append",
                                           "-m",
                                           "-cpu",
                                           "-smp",
                                           "-mmu",
                                           "-serial",
                                           "-debugcon",
                                           "-device",
                                           "-rtc",
                                           "-accel",
                                           "-timeout",
                                           "-vtimeout",
                                           "-audit",
                                           "-d",
                                           "-D",
                                           "-trace",
                                           "-loadvm",
                                           "-nographic",
                                           "-no-reboot",
                                           "-display",
                                           "-monitor",
                                           "-icount-limit",
                                           "-input-script",
                                           "-stats",
                                           "-digest",
                                           "--m",
                                           "-",
                                           "--",
                                           "-shadow-pages",
                                           "-x",
                                           "-help",
                                           "-version",
                                           "k",
                                           "isa-debug-exit",
                                           "isa-debug-exit,iobase=0xf4,iosize=4",
                                           "base=2020-02-30T25:61:61",
                                           "base=1e9",
                                           "shadow",
                                           "walk",
                                           "ept",
                                           "64G",
                                           "1M",
                                           "18446744073709551615G",
                                           "3X",
                                           "size=",
                                           "1e400",
                                           "0.0000001",
                                           "nan",
                                           "file:",
                                           "stdio",
                                           "0",
                                           "-1",
                                           "events",
                                           "all",
                                           "base,+x",
                                           "mmu.,,",
                                           "",
                                           "tcp::0",
                                           "99999999999999999999",
                                           "0x",
                                           "-gdb",
                                           "-drive",
                                           "file=d,if=virtio,format=raw,index=3",
                                           "file=,,x,if=floppy",
                                           "if=pflash",
                                           "if=ide,index=4",
                                           "media=cdrom,snapshot=maybe",
                                           "-hda",
                                           "-hdd",
                                           "-cdrom",
                                           "-fda",
                                           "-fdb",
                                           "-snapshot",
                                           "-boot",
                                           "order=acdn,once=c,menu=on",
                                           "order=z",
                                           "-bios",
                                           "-netdev",
                                           "user,id=n,hostfwd=tcp::8080-:80",
                                           "user,hostfwd=udp:1.2.3.4:0-[::]:99999",
                                           "-nic",
                                           "user,model=e1000",
                                           "none",
                                           "-net",
                                           "virtio-net-pci,netdev=n,mac=52:54:00:12:34:56",
                                           "e1000,mac=1:2:3",
                                           "virtio-blk-pci,drive=d,addr=1f",
                                           "virtio-rng-pci,addr=0x",
                                           "pc-testdev",
                                           "help",
                                           "-qmp",
                                           "-qmp-pretty",
                                           "unix:s,server,nowait",
                                           "-vga",
                                           "std",
                                           "-vnc",
                                           ":1",
                                           "vnc=:100",
                                           "sdl",
                                           "curses",
                                           "-memlimit",
                                           "-ksm",
                                           "-host-chaos",
                                           "seed=5,rate=2000,ops=swap+ksm",
                                           "rate=0",
                                           "-lockstep",
                                           "-fork-at",
                                           "-screendump",
                                           "-screentext",
                                           "-input-script",
                                           "jit,heat=2,cache=1M",
                                           "jit,heat=0",
                                           "tcg",
                                           "shadow,unsync=on",
                                           "max,-sse,+avx2",
                                           "qemu64,model=999",
                                           "4,sockets=2,cores=2,threads=1",
                                           "0",
                                           "256",
                                           "-global",
                                           "-machine",
                                           "pc,accel=tcg",
                                           "q35",
                                           "-smbios",
                                           "type=1,serial=x",
                                           "-uuid",
                                           "-no-shutdown",
                                           "-serial",
                                           "unix:s,server",
                                           "tcp::0,server,nowait",
                                           "telnet:x",
                                           "mon:stdio",
                                           "chardev:c",
                                           "msmouse",
                                           "-chardev",
                                           "socket,id=c,path=s,server=on",
                                           "socket,id=c,host=h,port=0,server=on,wait=off",
                                           "file,id=c,path=f",
                                           "stdio,id=c,mux=on",
                                           "-mon",
                                           "chardev=c,mode=control",
                                           "c",
                                           "-fw_cfg",
                                           "name=opt/x,string=y",
                                           "opt/x,file=f",
                                           "-name",
                                           "guest=a,debug-threads=on",
                                           "-icount",
                                           "shift=0",
                                           "-echr",
                                           "2",
                                           "-action",
                                           "reboot=shutdown,shutdown=pause",
                                           "-object",
                                           "rng-random,id=r",
                                           "user",
                                           "user,hostfwd=tcp::1-:2",
                                           "nic,model=e1000,macaddr=52:54:00:12:34:56",
                                           "isa-debugcon,iobase=0x402,chardev=c",
                                           "isa-debugcon.iobase=0x402",
                                           "pc-i440fx-7.2,accel=kvm:tcg",
                                           "-pidfile",
                                           "-usb",
                                           "-parallel",
                                           "kvm:tcg",
                                           "host,check,enforce",
                                           "image.img",
                                           "-s",
                                           "-S"};

/* What lists of devices, models and switches would print goes nowhere. Returns what stdout was. */
static int stdout_hide(void)
{
    fflush(stdout);
    int was = dup(STDOUT_FILENO), null = open("/dev/null", O_WRONLY);
    dup2(null, STDOUT_FILENO);
    close(null);
    return was;
}

static void stdout_show(int was)
{
    fflush(stdout);
    dup2(was, STDOUT_FILENO);
    close(was);
}

/* Options with lists of properties, as users write them. */
static const struct {
    const char *option, *first;
    const char *properties; /* separated by blanks */
} lists[] = {
    {"-drive", "file=d",
     "if=ide if=virtio if=floppy if=none if=pflash format=raw format=gzip format=qcow2 media=cdrom media=disk index=1 "
     "bus=0 unit=1 "
     "id=d serial=s snapshot=on readonly=on read-only=off cache=none aio=threads discard=unmap werror=stop "
     "werror=enospc rerror=report "
     "rerror=ignore bootindex=2 index=-1 bootindex=x"},
    {"-device", "virtio-blk-pci",
     "drive=d addr=3 addr=3.0 addr=zz serial=s bootindex=1 disable-legacy=on romfile= id=a vectors=2"},
    {"-device", "e1000", "netdev=n mac=52:54:00:12:34:56 mac=1:2 addr=1f bootindex=0 id=e"},
    {"-device", "virtio-net-pci", "netdev=n netdev=m mac=52:54:00:12:34:57 disable-legacy=off"},
    {"-device", "ide-hd", "drive=d bus=ide.0 bus=ide.1 bus=ahci.3 unit=0 unit=9 bootindex=3"},
    {"-device", "ide-cd", "drive=d bus=ide.1 bus=a.0 unit=1"},
    {"-device", "floppy", "drive=d unit=1"},
    {"-device", "ahci", "id=ahci id=a addr=5"},
    {"-device", "virtio-serial-pci", "id=s max_ports=1"},
    {"-device", "virtconsole", "chardev=c id=x name=y bus=s.0 nr=1"},
    {"-device", "isa-debug-exit", "iobase=0x501 iosize=2 iosize=9 iobase=zz"},
    {"-chardev", "socket", "id=c path=s server=on wait=off server=maybe"},
    {"-chardev", "file", "id=c path=f id="},
    {"-chardev", "stdio", "id=c id=d"},
    {"-netdev", "user",
     "id=n id=m hostfwd=tcp::8080-:80 hostfwd=udp:127.0.0.1:53-10.0.2.15:53 hostfwd=x net=10.0.2.0/24 net=10/33 "
     "host=10.0.2.2 "
     "dns=10.0.2.3 dhcpstart=10.0.2.9 restrict=on ipv4=on ipv6=off hostname=h tftp=/t bootfile=b domainname=d"},
    {"-nic", "user", "model=e1000 model=virtio-net-pci model=x mac=52:54:00:12:34:56 id=n hostfwd=tcp::1-:2 addr=4"},
    {"-boot", "order=cd", "once=a menu=on menu=x splash-time=100 strict=on reboot-timeout=-1 reboot-timeout=5"},
    {"-smbios", "type=1",
     "serial=x uuid=00112233-4455-6677-8899-aabbccddeeff uuid=1 manufacturer=m product=p version=v family=f"},
    {"-smbios", "type=11", "value=a value=b path=x"},
    {"-smp", "4", "sockets=2 cores=2 threads=1 maxcpus=4 cores=0 sockets=99 cpus=4"},
    {"-accel", "jit", "heat=2 cache=1M heat=0 cache=1 x=y"},
    {"-host-chaos", "seed=1", "rate=100 ops=swap+ksm+cow ops=x rate=0"},
    {"-cpu", "max", "-sse +avx2 -x family=6 model=158 stepping=3 phys-bits=40 hypervisor=off"},
    {"-rtc", "base=utc", "clock=vm clock=host driftfix=slew"},
    {"-fw_cfg", "name=opt/x", "string=y file=z string="},
    {"-mon", "chardev=c", "mode=readline mode=control mode=x"},
};

/* One of them, with some of its properties. */
static void option_list(struct fuzz *f, char *text, size_t size, const char **option)
{
    unsigned k = (unsigned)rng_below(&f->rng, ARRAY_LEN(lists));
    size_t at = (size_t)snprintf(text, size, "%s", lists[k].first);
    *option = lists[k].option;
    for (const char *p = lists[k].properties; *p && at + 64 < size;) {
        size_t len = strcspn(p, " ");
        if (rng_one_in(&f->rng, 4))
            at += (size_t)snprintf(text + at, size - at, ",%.*s", (int)len, p);
        p += len + (p[len] == ' ');
    }
}

static void options_session(struct fuzz *f)
{
    int was = stdout_hide();
    for (unsigned k = 0; k < LINES && !rng_is_over(&f->rng); k++, f->round++, f->work++) {
        char word[12][256], *argv[14] = {"umbra"};
        int argc = 1 + (int)rng_below(&f->rng, ARRAY_LEN(word));
        struct options o;
        struct error e = {""};
        memset(&o, 0, sizeof o);
        for (int a = 1; a < argc; a++) {
            const char *option = NULL;
            if (a + 1 < argc && rng_one_in(&f->rng, 2))
                option_list(f, word[a + 1], sizeof word[a], &option);
            snprintf(word[a], sizeof word[a], "%s", option ? option : RNG_PICK(&f->rng, option_words));
            argv[a] = word[a];
            if (option)
                a++;
            if (rng_one_in(&f->rng, 8))
                files_mutate(&f->rng, (uint8_t *)word[a], strlen(word[a]));
            argv[a] = word[a];
        }
        if (!options_parse(&o, argc, argv, &e) && !e.text[0])
            fuzz_fail(f, "a command line refused without a message");
    }
    stdout_show(was);
}

/* ---- sessions ---- */

static void session(struct fuzz *f)
{
    switch (f->session % 4) {
    case 0:
        images_session(f);
        break;
    case 1:
        snapshots_session(f);
        break;
    case 2:
        scripts_session(f);
        break;
    default:
        options_session(f);
    }
}

FUZZ_DRIVER("fuzz_files", session, 600, 0)
