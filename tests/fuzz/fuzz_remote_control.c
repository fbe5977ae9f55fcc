/*
 * Clients of the control sockets: JSON that is nearly QMP, and lines for the monitor.
 */
#include "fuzz_remote.h"

#include "frontends/control/control.h"

#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define STEPS   120
#define CLIENTS 2 /* QMP, monitor */
#define REPLIES 0x100000u

struct client {
    char path[100];
    int fd;
    char got[REPLIES]; /* QMP: of a line that is not complete */
    size_t len;
};

struct rig {
    struct fuzz *f;
    struct rng *rng;
    struct machine *m;
    struct control *control;
    struct client client[CLIENTS];
};

/* ---- what is sent ---- */

static void json_text(struct rig *b, struct text *t, unsigned depth)
{
    static const char *const strings[] = {"a",       "qcode", "\\u0041", "\\ud83d\\ude00", "\\u0000", "\\",  "\xc3\xa4",
                                          "\xff",    "x",     "left",    "ctrl",           "rel",     "btn", "key",
                                          "gone\\n", "",      "png",     "info pci",       "x/4i 0"};
    static const char *const others[] = {"0", "-1", "1e99", "1e999", "true", "null", "9223372036854775807", "tru", ""};
    unsigned n = (unsigned)rng_below(b->rng, 4);
    switch (rng_below(b->rng, depth ? 5 : 3)) {
    case 0:
    case 1:
        text_add(t, "\"%s\"", RNG_PICK(b->rng, strings));
        break;
    case 2:
        text_add(t, "%s", RNG_PICK(b->rng, others));
        break;
    case 3:
        text_add(t, "[");
        for (unsigned k = 0; k < n; k++, text_add(t, k < n ? "," : ""))
            json_text(b, t, depth - 1);
        text_add(t, "]");
        break;
    default:
        text_add(t, "{");
        for (unsigned k = 0; k < n; k++, text_add(t, k < n ? "," : "")) {
            text_add(t, "\"%s\":", RNG_PICK(b->rng, strings));
            json_text(b, t, depth - 1);
        }
        text_add(t, "}");
    }
}

static const char *const monitor_lines[] = {"info status",
                                            "info registers -a",
                                            "info pci",
                                            "info block",
                                            "info mtree",
                                            "info mmu 0x%llx",
                                            "info stats mm",
                                            "info",
                                            "help",
                                            "? x",
                                            "s",
                                            "c",
                                            "cpu %llu",
                                            "x/%llux 0x100000",
                                            "x/4i 0x%llx",
                                            "xp/8xg 0x%llx",
                                            "xp/3uh %llu",
                                            "xp/c",
                                            "system_reset",
                                            "system_powerdown",
                                            "sendkey ctrl-alt-delete",
                                            "sendkey a %llu",
                                            "sendkey a-b-c-d-e-f-g-h-i-j-k-l-m-n-o-p-q-r-s",
                                            "mouse_move %llu -5 1",
                                            "mouse_button %llu",
                                            "screentext",
                                            "\"quoted words\" \"",
                                            "savevm s",
                                            "loadvm s",
                                            "loadvm gone",
                                            "screendump \"\"",
                                            ""};

/* True: it writes a file, and must stay as it is. */
static bool monitor_line(struct rig *b, struct text *t)
{
    const char *line = RNG_PICK(b->rng, monitor_lines), *number = strstr(line, "%ll");
    if (!number)
        text_add(t, "%s", line);
    else
        text_add(t, "%.*s%llu%s", (int)(number - line), line, (unsigned long long)rng_number(b->rng), number + 4);
    return strstr(line, "vm s") != NULL;
}

static bool qmp_message(struct rig *b, struct text *t)
{
    static const char *const names[] = {"qmp_capabilities", "query-version", "query-commands", "query-status",
                                        "query-name",       "query-kvm",     "query-pci",      "query-block",
                                        "query-cpus-fast",  "stop",          "cont",           "system_reset",
                                        "system_powerdown", "gone"};
    bool writes = false;
    switch (rng_below(b->rng, 6)) {
    case 0:
        json_text(b, t, 6);
        break;
    case 1:
        text_add(t, "{\"execute\":\"send-key\",\"arguments\":{\"keys\":[{\"type\":\"qcode\",\"data\":\"a\"},");
        json_text(b, t, 2);
        text_add(t, "]}}");
        break;
    case 2:
        text_add(t, "{\"execute\":\"input-send-event\",\"arguments\":{\"events\":[{\"type\":\"rel\",\"data\":{\"axis\":"
                    "\"x\",\"value\":");
        json_text(b, t, 1);
        text_add(t, "}},{\"type\":\"btn\",\"data\":{\"down\":true,\"button\":\"wheel-up\"}}]}}");
        break;
    case 3:
        text_add(t, "{\"execute\":\"human-monitor-command\",\"arguments\":{\"command-line\":\"");
        writes = monitor_line(b, t);
        text_add(t, "\"},\"id\":");
        json_text(b, t, 4);
        text_add(t, "}");
        break;
    default:
        text_add(t, "{\"execute\":\"%s\",\"id\":", RNG_PICK(b->rng, names));
        json_text(b, t, 3);
        text_add(t, "}");
    }
    return writes;
}

/* ---- the connection ---- */

static void client_connect(struct rig *b, struct client *c)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    strcpy(at.sun_path, c->path);
    c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    c->len = 0;
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&at, sizeof at))
        fuzz_fail(b->f, "nobody listens at %s", c->path);
}

/* Each line is a greeting, an answer or an event. */
static void check_replies(struct rig *b, struct client *c)
{
    char *end;
    while ((end = memchr(c->got, '\n', c->len))) {
        size_t len = (size_t)(end - c->got) + 1;
        json_error_t bad;
        json_t *v = json_loadb(c->got, len, JSON_REJECT_DUPLICATES, &bad);
        if (!v)
            fuzz_fail(b->f, "an answer is no JSON: %.*s", (int)len, c->got);
        if (!json_object_get(v, "QMP") && !json_object_get(v, "return") && !json_object_get(v, "error") &&
            !json_object_get(v, "event"))
            fuzz_fail(b->f, "an answer of no kind: %.*s", (int)len, c->got);
        json_decref(v);
        memmove(c->got, c->got + len, c->len -= len);
    }
    if (c->len == sizeof c->got)
        fuzz_fail(b->f, "an answer without an end");
}

static void take_replies(struct rig *b)
{
    for (unsigned k = 0; k < CLIENTS; k++) {
        struct client *c = &b->client[k];
        ssize_t n;
        while (c->fd >= 0 && (n = recv(c->fd, c->got + c->len, sizeof c->got - c->len, MSG_DONTWAIT)) > 0) {
            c->len += (size_t)n;
            if (k == 0)
                check_replies(b, c);
            else
                c->len = 0;
        }
    }
}

static void client_send(struct rig *b, struct client *c, const struct text *t)
{
    for (size_t at = 0; at < t->len;) {
        size_t n = rng_one_in(b->rng, 3) ? 1 + rng_below(b->rng, t->len - at) : t->len - at;
        ssize_t sent = send(c->fd, t->bytes + at, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        at += sent > 0 ? (size_t)sent : t->len;
        control_serve(b->control);
        take_replies(b);
    }
}

static void step(struct rig *b)
{
    unsigned k = (unsigned)rng_below(b->rng, CLIENTS);
    struct client *c = &b->client[k];
    struct text t = {.len = 0};
    bool keep = k ? monitor_line(b, &t) : qmp_message(b, &t);
    if (!keep)
        text_mutate(b->rng, &t);
    if (k || rng_one_in(b->rng, 3))
        text_add(&t, "\n");
    if (c->fd >= 0 && rng_one_in(b->rng, 30)) {
        close(c->fd);
        c->fd = -1;
        control_serve(b->control);
    }
    if (c->fd < 0) {
        client_connect(b, c);
        control_serve(b->control);
        if (!k && !rng_one_in(b->rng, 4))
            client_send(b, c, &(struct text){.bytes = "{\"execute\":\"qmp_capabilities\"}", .len = 30});
    }
    client_send(b, c, &t);
    if (!control_holds(b->control))
        fuzz_run(b->f, b->m, b->m->clock.icount + rng_below(b->rng, 200), NULL);
}

void remote_control_session(struct fuzz *f)
{
    static const char *const names[CLIENTS] = {"q", "m"};
    struct rig *b = calloc(1, sizeof *b);
    struct control_spec spec[CLIENTS];
    char where[CLIENTS][128];
    struct error e = {""};
    int home = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (!b || home < 0 || chdir(f->dir)) /* files that commands name are made there */
        fuzz_fail(f, "no room");
    b->f = f;
    b->rng = &f->rng;
    b->m = remote_machine(f);
    for (unsigned k = 0; k < CLIENTS; k++) {
        snprintf(b->client[k].path, sizeof b->client[k].path, "%s/%s", f->dir, names[k]);
        snprintf(where[k], sizeof where[k], "unix:%s,server,nowait", b->client[k].path);
        spec[k] = (struct control_spec){k ? CONTROL_MONITOR : CONTROL_QMP, where[k]};
        b->client[k].fd = -1;
    }
    b->control = control_open(spec, CLIENTS, false, &e);
    if (!b->control)
        fuzz_fail(f, "%s", e.text);
    control_attach(b->control, b->m);
    for (unsigned k = 0; k < STEPS && !rng_is_over(b->rng); k++, f->round++, f->work++)
        step(b);
    control_close(b->control, MACHINE_STOPPED, true);
    take_replies(b);
    for (unsigned k = 0; k < CLIENTS; k++)
        if (b->client[k].fd >= 0)
            close(b->client[k].fd);
    machine_destroy(b->m);
    unlink("s");
    if (fchdir(home))
        fuzz_fail(f, "the directory is gone");
    close(home);
    free(b);
}
