/*
 * The command line, in QEMU's spelling where QEMU has the thing.
 *
 * Adding an option: a row in options.c's table and a field here.
 */
#ifndef FRONTENDS_CLI_OPTIONS_H
#define FRONTENDS_CLI_OPTIONS_H

#include "frontends/control/control.h"
#include "frontends/machine/umbra.h"

enum sink_kind { SINK_NULL, SINK_STDIO, SINK_FILE, SINK_MOUSE /* of -serial alone */ };

struct sink_spec {
    enum sink_kind kind;
    const char *path; /* SINK_FILE */
};

enum chardev_kind { CHARDEV_NULL, CHARDEV_STDIO, CHARDEV_FILE, CHARDEV_SOCKET };

struct chardev_spec {
    const char *id, *path;
    enum chardev_kind kind;
    bool server, no_wait;
};

#define CHARDEVS_MAX 4

struct options {
    struct machine_config machine;
    struct chardev_spec chardev[CHARDEVS_MAX];
    unsigned chardevs;
    struct sink_spec serial[SERIALS_MAX], debugcon;
    unsigned serials; /* -serial options */
    bool snapshot;
    bool stats, digest, help, version, perf_map;
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
