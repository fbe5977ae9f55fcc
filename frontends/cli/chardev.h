/*
 * Character devices: where bytes of serial ports, virtual consoles and port 0xe9 come from and go to.
 *
 *   stdio   null   file,path=F[,append=on]   pipe,path=P   pty   ringbuf[,size=N]   msmouse
 *   socket,path=P or socket,host=H,port=N, each with [,server=on[,wait=off]]
 *
 * One device that reads from it has a chardev; with mux=on (and on the terminal always) several share it: all that they
 * say comes out, what is typed goes to one of them, and Ctrl-A c changes over. A socket has one client at a time. What
 * the guest says while there is none is lost, and so is what a client, a pipe or a pty leaves unread beyond
 * CHARDEV_BACKLOG bytes; standard output and files lose nothing (outlet.h). Input is not read before the machine has
 * room for it, so a long file can be piped in.
 */
#ifndef FRONTENDS_CLI_CHARDEV_H
#define FRONTENDS_CLI_CHARDEV_H

#include "frontends/cli/console.h"
#include "frontends/cli/outlet.h"

#define CHARDEV_BACKLOG (1u << 20)
#define CHARDEV_USERS   8
#define CHARDEV_TYPED   (1u << 20) /* that may wait for a device to have room, of a terminal; more is dropped */
#define CHARDEV_LINE    1024       /* of a monitor */

enum chardev_user_kind { CHARDEV_SERIAL, CHARDEV_CONSOLE, CHARDEV_MONITOR };

/* Who reads from it. */
struct chardev_user {
    enum chardev_user_kind kind;
    unsigned port;    /* CHARDEV_SERIAL */
    uint8_t *pending; /* owned; read, and no room for it yet. A monitor's: the line so far */
    size_t count, room;
};

struct chardev {
    const struct chardev_spec *spec;
    struct chardevs *all;
    struct chardev_user user[CHARDEV_USERS];
    unsigned users, focus;
    bool escapes, escape; /* the escape key means something; it was the last byte */
    uint8_t escape_key;   /* Ctrl-A unless the user wants another */
    bool edits;           /* the other end is a terminal in raw mode: lines for a monitor are edited here */
    struct outlet out;    /* of stdio and files */
    struct listener listener;
    int fd;           /* of sockets, pipes and ptys, or -1 */
    int write_fd;     /* of a pipe with two ends, or that of fd */
    int slave;        /* of a pty, kept open so that it is never hung up */
    bool waits;       /* the machine stands still until a client has come */
    bool lossy;       /* bytes of this client were lost, which was said */
    uint8_t *backlog; /* owned; what has not been taken yet; of a ring: all of it */
    size_t backlog_len, ring_first;
    char name[LISTENER_PLACE_MAX]; /* for people: "pty:/dev/pts/3" */
};

/* A monitor that is on the terminal: functions may be NULL. */
struct chardev_monitor {
    void *ctx;
    void (*typed)(void *ctx, const void *bytes, size_t len);
    void (*focus)(void *ctx); /* what is typed is for it from now on */
};

struct chardevs {
    struct chardev dev[CHARDEVS_MAX];
    unsigned count;
    struct chardev *terminal, *serial[SERIALS_MAX], *debugcon; /* of dev, or NULL */
    struct console *console;                                   /* whose machine is fed */
    struct chardev_monitor monitor;                            /* on the terminal, if there is one */
};

/* ---- chardev_options.c ---- */

/* -chardev KIND,...; cuts `text` into pieces that the options keep. */
bool chardev_option_parse(struct options *o, char *text, struct error *e);
/* -serial, -debugcon: makes a chardev of a place in short form (stdio, file:F, unix:P,server, chardev:ID...), or finds
 * it; *id is its ID, NULL: nowhere. `name`: of the option; `label`: the ID of what is made. */
bool chardev_place_parse(struct options *o, const char *name, const char *label, char *text, const char **id,
                         struct error *e);
/* -mon [chardev=]ID[,mode=readline|control] */
bool chardev_mon_parse(struct options *o, char *text, struct error *e);
/* After all options: every name is known, and what shares a chardev may. */
bool chardev_check(struct options *o, struct error *e);
const struct chardev_spec *chardev_find_spec(const struct options *o, const char *id);

/* ---- chardev.c ---- */

/* Opens them all; sockets listen or connect. Before the console's machine runs. */
bool chardevs_open(struct chardevs *c, const struct options *o, struct console *console, struct error *e);
void chardevs_set_monitor(struct chardevs *c, const struct chardev_monitor *monitor);
/* False: output could not be written. */
bool chardevs_close(struct chardevs *c);
/* Bytes of the guest's; NULL: nowhere. */
void chardev_put(struct chardev *d, const uint8_t *bytes, size_t len);
/* The virtual console of that chardev has sent this. */
void chardevs_write(struct chardevs *c, const char *id, const uint8_t *bytes, size_t len);
/* Bytes that the other end has sent. */
void chardev_take(struct chardev *d, const uint8_t *bytes, size_t len);
/* How many bytes are taken now; 0: do not read. */
size_t chardev_room(const struct chardev *d);
/* Something can still come in. */
bool chardevs_are_live(const struct chardevs *c);
/* What waits goes out, as far as it is taken. */
void chardevs_flush(struct chardevs *c);
struct chardev *chardevs_find(struct chardevs *c, const char *id);

/* ---- chardev_ends.c: sockets, pipes, ptys and rings ---- */

bool chardev_end_open(struct chardev *d, struct error *e);
void chardev_end_close(struct chardev *d);
/* Takes a client, sends what waits, reads what has come. */
void chardev_end_serve(struct chardev *d);
unsigned chardev_end_fds(const struct chardev *d, struct pollfd *p, unsigned room);
void chardev_end_flush(struct chardev *d);
void chardev_end_send(struct chardev *d, const uint8_t *bytes, size_t len);
/* What the guest has put into a ring, at most `len` bytes, taken out. */
size_t chardev_ring_read(struct chardev *d, uint8_t *bytes, size_t len);

#endif
