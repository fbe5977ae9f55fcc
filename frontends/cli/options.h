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

enum chardev_kind {
    CHARDEV_NULL,
    CHARDEV_STDIO,
    CHARDEV_FILE,
    CHARDEV_PIPE,
    CHARDEV_SOCKET,
    CHARDEV_PTY,
    CHARDEV_RINGBUF,
    CHARDEV_MOUSE
};

/* Where bytes lead; strings are borrowed. */
struct chardev_spec {
    const char *id, *path;
    const char *host, *port; /* of a TCP socket; host may be NULL */
    enum chardev_kind kind;
    bool server, no_wait;
    bool append;   /* to a file */
    bool mux;      /* several may share it: Ctrl-A c changes over */
    bool signals;  /* the terminal's keys for signals stay what they are */
    uint64_t size; /* of a ring, bytes */
};

#define CHARDEVS_MAX 16

struct options {
    struct machine_config machine;
    struct chardev_spec chardev[CHARDEVS_MAX];
    unsigned chardevs;
    const char *serial[SERIALS_MAX], *debugcon; /* chardevs by their IDs, or NULL: nowhere */
    unsigned serials;                           /* -serial options */
    bool snapshot, nographic;
    bool monitor_given;
    bool no_shutdown; /* a machine that ends stands still instead, if there is a monitor */
    const char *pid_file;
    const char *net_nic, *net_user;    /* -net, until both are there */
    char net_text[256];                /* and then as -nic has it */
    char place[CONTROL_CHANNELS][320]; /* control_spec.where of -mon */
    uint8_t escape_key;                /* -echr: of the terminal; 0: Ctrl-A */
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

#endif
