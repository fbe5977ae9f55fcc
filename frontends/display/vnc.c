/*
 * The VNC server (libvncserver). Listens on the loopback interface unless the user names an address; there is no
 * password.
 */
#include "frontends/display/display_internal.h"

#include "core/library.h"

#include <rfb/rfb.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_PORT 5900

#define RFB_LIBRARY "libvncserver.so.1"
/* clang-format off */
#define RFB_CALLS(X) \
    X(rfbGetScreen) X(rfbInitServer) X(rfbLogEnable) X(rfbMarkRectAsModified) X(rfbNewFramebuffer) \
    X(rfbProcessEvents) X(rfbScreenCleanup) X(rfbShutdownServer) X(rfbStringToAddr)
/* clang-format on */

struct rfb_calls {
    RFB_CALLS(LIBRARY_POINTER)
};

#define RFB_CALL(f) LIBRARY_CALL(struct rfb_calls, f)
static const struct library_call rfb_calls[] = {RFB_CALLS(RFB_CALL)};

struct vnc {
    struct display *d;
    struct rfb_calls rfb;
    rfbScreenInfoPtr server;
    uint32_t *pixels; /* the server's; width x height */
    unsigned width, height;
    int x, y;
    unsigned buttons;
};

static void on_key(rfbBool down, rfbKeySym keysym, rfbClientPtr client)
{
    struct vnc *v = client->screen->screenData;
    display_key(v->d, display_key_of_keysym(keysym), down);
}

/* Where the pointer is, as a movement from where it was; bits 3 and 4 are the wheel. */
static void on_pointer(int mask, int x, int y, rfbClientPtr client)
{
    struct vnc *v = client->screen->screenData;
    unsigned buttons = (mask & 1 ? MOUSE_LEFT : 0) | (mask & 2 ? MOUSE_MIDDLE : 0) | (mask & 4 ? MOUSE_RIGHT : 0);
    int wheel = mask & 8 ? -1 : mask & 16 ? 1 : 0;
    if (x != v->x || y != v->y || buttons != v->buttons || wheel)
        machine_mouse_input(v->d->m, x - v->x, y - v->y, wheel, buttons);
    v->x = x;
    v->y = y;
    v->buttons = buttons;
}

static bool place_parse(struct vnc *v, const char *options, int *port, in_addr_t *host, struct error *e)
{
    char name[64] = "";
    const char *colon = *options == '=' ? strrchr(options, ':') : NULL;
    char *end = NULL;
    unsigned long n = colon && colon[1] ? strtoul(colon + 1, &end, 10) : 1000;
    (void)v;
    if (!colon || *end || n > 99 || (size_t)(colon - options) > sizeof name)
        return error_set(e, "-display vnc%s: expected vnc=[HOST]:NUMBER; port %d and NUMBER are added", options,
                         FIRST_PORT);
    memcpy(name, options + 1, (size_t)(colon - options - 1));
    *port = FIRST_PORT + (int)n;
    *host = htonl(INADDR_LOOPBACK);
    return !*name || !strcmp(name, "localhost") || v->rfb.rfbStringToAddr(name, host) ||
           error_set(e, "-display vnc%s: '%s' is not an address", options, name);
}

static bool set_size(struct vnc *v, unsigned width, unsigned height)
{
    uint32_t *pixels = calloc((size_t)width * height, sizeof *pixels);
    if (!pixels)
        return false;
    if (v->server->frameBuffer)
        v->rfb.rfbNewFramebuffer(v->server, (char *)pixels, (int)width, (int)height, 8, 3, 4);
    v->server->frameBuffer = (char *)pixels;
    v->server->serverFormat.redShift = 16;
    v->server->serverFormat.greenShift = 8;
    v->server->serverFormat.blueShift = 0;
    free(v->pixels);
    v->pixels = pixels;
    v->width = width;
    v->height = height;
    return true;
}

static bool server_library(struct vnc *v, struct error *e)
{
    char why[256];
    if (!library_load(RFB_LIBRARY, rfb_calls, ARRAY_LEN(rfb_calls), &v->rfb, why, sizeof why))
        return error_set(e, "-display vnc: %s", why);
    v->rfb.rfbLogEnable(0);
    return true;
}

static void *vnc_open(struct display *d, const char *options, struct error *e)
{
    struct vnc *v = calloc(1, sizeof *v);
    int port = 0, argc = 0;
    in_addr_t host = 0;
    if (!v || !server_library(v, e) || !place_parse(v, options, &port, &host, e) ||
        !(v->server = v->rfb.rfbGetScreen(&argc, NULL, 640, 400, 8, 3, 4))) {
        free(v);
        return NULL;
    }
    v->d = d;
    v->server->screenData = v;
    v->server->desktopName = "Umbra";
    v->server->port = port;
    v->server->ipv6port = -1;
    v->server->listenInterface = host;
    v->server->alwaysShared = TRUE;
    v->server->cursor = NULL; /* the guest draws its own */
    v->server->kbdAddEvent = on_key;
    v->server->ptrAddEvent = on_pointer;
    if (set_size(v, 640, 400)) {
        v->rfb.rfbInitServer(v->server);
        if (v->server->listenSock >= 0)
            return v;
    }
    error_set(e, "-display vnc%s: port %d cannot be had", options, port);
    v->rfb.rfbScreenCleanup(v->server);
    free(v->pixels);
    free(v);
    return NULL;
}

static void vnc_close(void *state)
{
    struct vnc *v = state;
    v->rfb.rfbShutdownServer(v->server, TRUE);
    v->rfb.rfbScreenCleanup(v->server);
    free(v->pixels);
    free(v);
}

static void vnc_events(void *state)
{
    struct vnc *v = state;
    v->rfb.rfbProcessEvents(v->server, 0);
}

static void vnc_draw(void *state, const struct screen_picture *p, const struct screen_change *c)
{
    struct vnc *v = state;
    struct screen_change all = *c;
    if (p->width != v->width || p->height != v->height) {
        if (!set_size(v, p->width, p->height))
            return;
        all = (struct screen_change){.first = 0, .count = p->height};
    }
    if (!all.count)
        return;
    size_t from = (size_t)all.first * p->width;
    memcpy(v->pixels + from, p->pixels + from, (size_t)all.count * p->width * sizeof *p->pixels);
    v->rfb.rfbMarkRectAsModified(v->server, 0, (int)all.first, (int)p->width, (int)(all.first + all.count));
}

static unsigned vnc_fds(void *state, struct pollfd *fds, unsigned room)
{
    const struct vnc *v = state;
    unsigned n = 0;
    for (int fd = 0; fd <= v->server->maxFd && n < room; fd++)
        if (FD_ISSET(fd, &v->server->allFds))
            fds[n++] = (struct pollfd){.fd = fd, .events = POLLIN};
    return n;
}

const struct display_backend display_vnc = {"vnc",     "libvncserver", true,     vnc_open,
                                            vnc_close, vnc_events,     vnc_draw, vnc_fds};
