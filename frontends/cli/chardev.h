/*
 * Character devices of -chardev, QEMU's spelling: where a virtconsole's bytes come from and go to.
 *
 *   stdio,id=ID   file,id=ID,path=F   null,id=ID   socket,id=ID,path=P,server=on[,wait=off]
 *
 * A socket is a unix socket that one client at a time may have. What the guest says while there is none is lost, and so
 * is what a client leaves unread beyond CHARDEV_BACKLOG bytes.
 */
#ifndef FRONTENDS_CLI_CHARDEV_H
#define FRONTENDS_CLI_CHARDEV_H

#include "frontends/cli/console.h"

#define CHARDEV_BACKLOG (1u << 20)

struct chardev {
    const struct chardev_spec *spec;
    FILE *out;        /* of stdio and files, or NULL */
    int listener, fd; /* of a socket, or -1 */
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
/* After all options: every virtconsole has its device, and the terminal one user. */
bool chardev_check(const struct options *o, struct error *e);
/* Opens them all; sockets listen. Before the console's machine runs. */
bool chardevs_open(struct chardevs *c, const struct options *o, struct console *console, struct error *e);
/* False: output could not be written. */
bool chardevs_close(struct chardevs *c);
/* Bytes from the guest; fits machine_host.console_tx with the chardevs as ctx. */
void chardevs_write(struct chardevs *c, const char *id, const uint8_t *bytes, size_t len);

#endif
