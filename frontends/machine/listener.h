/*
 * Listening sockets of the front ends: where monitors, serial ports and debuggers are connected to.
 *
 * A place is "unix:PATH" or "tcp:[HOST]:PORT": the loopback interface unless an IPv4 address is given, port 0 takes a
 * free one; "telnet:" is another name for "tcp:". A socket of an earlier run at PATH is replaced; anything else there
 * is left alone and refused.
 */
#ifndef FRONTENDS_MACHINE_LISTENER_H
#define FRONTENDS_MACHINE_LISTENER_H

#include "frontends/machine/error.h"

#include <stdbool.h>

#define LISTENER_PLACE_MAX 256

struct listener {
    int fd;        /* non-blocking; -1: none */
    char *path;    /* owned; of a unix socket, removed at the end */
    char name[32]; /* of a TCP socket: "127.0.0.1:1234"; else empty */
};

/* "PLACE[,server[=on]][,nowait|,wait=on|off]" in QEMU's spelling: the place is copied to *place, *waits is whether a
 * client is to be waited for, as for a server it is unless said otherwise. False: not of that form, or too long. */
bool listener_split(const char *text, char place[LISTENER_PLACE_MAX], bool *waits);
/* Is it a place at all? */
bool listener_knows(const char *text);
/* False, with *l as closed: the error begins with `option`, the name that the user knows the place by. */
bool listener_open(struct listener *l, const char *option, const char *place, struct error *e);
/* Says on stderr which port 0 has become. */
void listener_announce(const struct listener *l, const char *option, const char *place);
/* A client that has come, or -1. */
int listener_accept(const struct listener *l);
/* Also without effect on what is closed. */
void listener_close(struct listener *l);

#endif
