/*
 * The command line, in QEMU's spelling where QEMU has the thing.
 *
 * Adding an option: a row in options.c's table and a field here.
 */
#ifndef FRONTENDS_CLI_OPTIONS_H
#define FRONTENDS_CLI_OPTIONS_H

#include "frontends/control/control.h"
#include "frontends/machine/listener.h"
#include "frontends/machine/umbra.h"

enum sink_kind { SINK_NULL, SINK_STDIO, SINK_FILE, SINK_CHARDEV, SINK_MOUSE /* of -serial alone */ };

struct sink_spec {
    enum sink_kind kind;
    const char *path; /* SINK_FILE; SINK_CHARDEV: the id */
};

enum chardev_kind { CHARDEV_NULL, CHARDEV_STDIO, CHARDEV_FILE, CHARDEV_SOCKET };

struct chardev_spec {
    const char *id, *path, *host, *port; /* path: of files and unix sockets; host, port: of TCP */
    enum chardev_kind kind;
    bool server, no_wait;
    bool taken, handed_over;             /* somebody names it; and opens the file, the terminal or the socket */
    unsigned serial;                     /* what comes in is for this serial port, from 1; 0: for none */
    char place[LISTENER_PLACE_MAX + 16]; /* CHARDEV_SOCKET; for a monitor with its options */
};

#define CHARDEVS_MAX  8
#define CHARDEV_WHERE "chardev:" /* control_spec.where of -mon, until chardevs_resolve() */

struct options {
    struct machine_config machine;
    struct chardev_spec chardev[CHARDEVS_MAX];
    unsigned chardevs;
    struct sink_spec serial[SERIALS_MAX], debugcon;
    unsigned serials; /* -serial options */
    bool snapshot;
    bool monitor_given, terminal_monitor; /* -monitor; a serial port and a monitor share the terminal without it */
    bool no_shutdown;                     /* a machine that ends stands still instead, if there is a monitor */
    const char *pid_file;
    const char *net_nic, *net_user; /* -net, until both are there */
    char net_text[256];             /* and then as -nic has it */
    char mon[CONTROL_CHANNELS][80]; /* control_spec.where of -mon */
    uint8_t escape_key;             /* -echr: of the terminal; 0: Ctrl-A */
    bool stats, digest, help, version, perf_map;
    bool answered;                                 /* "help" was asked of an option, and given */
    struct control_spec control[CONTROL_CHANNELS]; /* -monitor, -qmp */
    unsigned controls;
    const char *display;                 /* -display, or NULL: none */
    char vnc[80];                        /* of -vnc */
    const char *log_path;                /* -D */
    const char *screendump, *screentext; /* files for the screen at the end, or NULL */
    const char *loadvm, *pause_save;
    double timeout;                     /* wall seconds; 0: none */
    bool debug;                         /* umbra debug ... */
    const char *debug_script, *symbols; /* -x, -symbols */
    const char *gdb;                    /* where the gdb stub listens, or NULL */
    uint64_t lockstep, lockstep_from;   /* instructions between comparisons, 0: no twin; and the first to look at */
    bool stopped;                       /* -S */
    const char *fork_at, *fork_run;     /* the text to fork at, and the file of lines; both or none */
    const char *fork_out;               /* directory of the children's files */
    unsigned fork_jobs;                 /* children that exist at a time; 0: the default */
};

/* Fills *o (strings point into argv). False with an error that names the argument. */
bool options_parse(struct options *o, int argc, char **argv, struct error *e);
void options_print_help(FILE *out);
/* The serial port that the terminal belongs to, from 1; or 0. */
unsigned options_terminal_port(const struct options *o);

#endif
