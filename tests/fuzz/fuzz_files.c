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

static void options_session(struct fuzz *f)
{
    int was = stdout_hide();
    for (unsigned k = 0; k < LINES && !rng_is_over(&f->rng); k++, f->round++, f->work++) {
        char word[12][64], *argv[14] = {"umbra"};
        int argc = 1 + (int)rng_below(&f->rng, ARRAY_LEN(word));
        struct options o;
        struct error e = {""};
        memset(&o, 0, sizeof o);
        for (int a = 1; a < argc; a++) {
            snprintf(word[a], sizeof word[a], "%s", RNG_PICK(&f->rng, option_words));
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
