/*
 * Character devices of -chardev, QEMU's spelling: where the bytes of a virtconsole, of COM1 (-serial chardev:ID), of
 * the debug console and of a monitor (-mon) come from and go to.
 *
 *   stdio,id=ID   file,id=ID,path=F   null,id=ID   socket,id=ID,path=P|host=H,port=N,server=on[,wait=off]
 *
 * A socket is one that others connect to, one client at a time. What the guest says while there is none is lost, and so
 * is what a client leaves unread beyond CHARDEV_BACKLOG bytes.
 */
#ifndef FRONTENDS_CLI_CHARDEV_H
#define FRONTENDS_CLI_CHARDEV_H

#include "frontends/cli/console.h"

#define CHARDEV_BACKLOG (1u << 20)

struct chardev {
    const struct chardev_spec *spec;
    FILE *out; /* of stdio and files, or NULL */
    struct listener listener;
    int fd;           /* of a socket's client, or -1 */
    bool waits;       /* the machine stands still until a client has come */
    uint8_t *backlog; /* owned; what the client has not taken yet */
    size_t backlog_len;
};

struct chardevs {
    struct chardev dev[CHARDEVS_MAX];
    unsigned count;
    struct console *console; /* whose machine is fed */
};

/* Cuts `text` into pieces that the options keep. */
bool chardev_option_parse(struct options *o, char *text, struct error *e);
/* -serial unix:PATH,server or tcp:[HOST]:PORT,server, and perhaps ,nowait; port: from 0. */
bool chardev_of_serial(struct options *o, unsigned port, const char *where, struct error *e);
/* After all options: who names a chardev gets it. Files and the terminal become a serial port's own, sockets a
 * monitor's. */
bool chardevs_resolve(struct options *o, struct error *e);
/* Then: the terminal has one user. */
bool chardev_check(const struct options *o, struct error *e);
/* A virtconsole is on the terminal. */
bool chardev_has_terminal(const struct options *o);
/* Opens those that are nobody else's; sockets listen. Before the console's machine runs. */
bool chardevs_open(struct chardevs *c, const struct options *o, struct console *console, struct error *e);
/* False: output could not be written. */
bool chardevs_close(struct chardevs *c);
/* Bytes from the guest; fits machine_host.console_tx with the chardevs as ctx. */
void chardevs_write(struct chardevs *c, const char *id, const uint8_t *bytes, size_t len);

#endif
