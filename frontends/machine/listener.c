#define _GNU_SOURCE 1 /* accept4 */

#include "frontends/machine/listener.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define CLOSED ((struct listener){.fd = -1})

/* ---- what the user says ---- */

bool listener_split(const char *text, char place[LISTENER_PLACE_MAX], bool *waits)
{
    char *save = NULL, *at;
    bool server = false, decided = false;
    *waits = false;
    if ((size_t)snprintf(place, LISTENER_PLACE_MAX, "%s", text) >= LISTENER_PLACE_MAX)
        return false;
    at = strchr(place, ',');
    if (!at)
        return true;
    *at++ = 0;
    for (char *p = strtok_r(at, ",", &save); p; p = strtok_r(NULL, ",", &save)) {
        bool wait = !strcmp(p, "wait=on"), no_wait = !strcmp(p, "nowait") || !strcmp(p, "wait=off");
        if (!strcmp(p, "server") || !strcmp(p, "server=on"))
            server = true;
        else if (wait || no_wait)
            *waits = wait;
        else
            return false;
        decided |= wait || no_wait;
    }
    if (!decided)
        *waits = server;
    return server || !*waits;
}

/* What is behind "tcp:", or "telnet:", which is the same to who needs no negotiation; or NULL. */
static const char *tcp_part(const char *text)
{
    return !strncmp(text, "tcp:", 4) ? text + 4 : !strncmp(text, "telnet:", 7) ? text + 7 : NULL;
}

bool listener_knows(const char *text)
{
    return !strncmp(text, "unix:", 5) || tcp_part(text);
}

static bool address_parse(const char *text, struct sockaddr_in *at)
{
    char host[64];
    const char *colon = strrchr(text, ':');
    size_t n = colon ? (size_t)(colon - text) : sizeof host;
    char *end = NULL;
    unsigned long port = n < sizeof host && isdigit((unsigned char)colon[1]) ? strtoul(colon + 1, &end, 10) : 65536;
    if (port > 65535 || *end)
        return false;
    memcpy(host, text, n);
    host[n] = 0;
    *at = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    at->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return !n || !strcmp(host, "localhost") || inet_pton(AF_INET, host, &at->sin_addr) == 1;
}

/* ---- sockets ---- */

/* The socket of a run before goes; what is no socket is somebody's file. */
static bool unix_clear(const char *path)
{
    struct stat st;
    if (lstat(path, &st))
        return errno == ENOENT || errno == ENOTDIR;
    if (S_ISSOCK(st.st_mode))
        return unlink(path) == 0;
    errno = EEXIST;
    return false;
}

static bool unix_listen(struct listener *l, const char *path)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    memcpy(at.sun_path, path, strlen(path));
    if (!unix_clear(path))
        return false;
    l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (l->fd < 0 || bind(l->fd, (struct sockaddr *)&at, sizeof at))
        return false;
    l->path = strdup(path);
    return l->path && !listen(l->fd, 1);
}

static bool tcp_listen(struct listener *l, const struct sockaddr_in *wanted)
{
    struct sockaddr_in at = *wanted;
    socklen_t len = sizeof at;
    char host[INET_ADDRSTRLEN] = "";
    int on = 1;
    l->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (l->fd >= 0)
        setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (l->fd < 0 || bind(l->fd, (struct sockaddr *)&at, sizeof at) || listen(l->fd, 1) ||
        getsockname(l->fd, (struct sockaddr *)&at, &len))
        return false;
    inet_ntop(AF_INET, &at.sin_addr, host, sizeof host);
    snprintf(l->name, sizeof l->name, "%s:%u", host, ntohs(at.sin_port));
    return true;
}

bool listener_open(struct listener *l, const char *option, const char *place, struct error *e)
{
    struct sockaddr_in at;
    size_t room = sizeof((struct sockaddr_un *)0)->sun_path;
    bool ok = false;
    *l = CLOSED;
    if (!strncmp(place, "unix:", 5)) {
        if (!place[5] || strlen(place + 5) >= room)
            return error_set(e, "%s %s: a path of at most %zu bytes is expected", option, place, room - 1);
        ok = unix_listen(l, place + 5);
    } else {
        const char *address = tcp_part(place);
        if (!address || !address_parse(address, &at))
            return error_set(e, "%s %s: expected unix:PATH or tcp:[IPv4 ADDRESS]:PORT", option, place);
        ok = tcp_listen(l, &at);
    }
    if (ok)
        return true;
    error_set(e, "%s %s: cannot listen there: %s", option, place,
              errno == EEXIST ? "it is a file, not a socket" : strerror(errno));
    listener_close(l);
    return false;
}

void listener_announce(const struct listener *l, const char *option, const char *place)
{
    const char *colon = strrchr(place, ':');
    if (l->name[0] && colon && strtoul(colon + 1, NULL, 10) == 0)
        fprintf(stderr, "umbra: %s listens on %s\n", option, l->name);
}

int listener_accept(const struct listener *l)
{
    return l->fd < 0 ? -1 : accept4(l->fd, NULL, NULL, SOCK_CLOEXEC);
}

void listener_close(struct listener *l)
{
    if (l->fd >= 0)
        close(l->fd);
    if (l->path)
        unlink(l->path);
    free(l->path);
    *l = CLOSED;
}
