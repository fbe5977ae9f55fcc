/*
 * A server of disk images that is not to be trusted: both handshakes, with sizes and block sizes of any kind, then
 * answers to requests that fail, lie or end early.
 */
#include "fuzz_remote.h"

#include "core/block/block.h"

#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define ROUNDS        6
#define REQUESTS      20
#define OLD_MAGIC     0x00420281861253ull
#define OPTION_MAGIC  0x49484156454f5054ull
#define REPLY_MAGIC   0x0003e889045565a9ull
#define SIMPLE_MAGIC  0x67446698u
#define OPTION_GO     7
#define REPLY_ACK     1u
#define REPLY_INFO    3u
#define REPLY_REFUSED 0x80000001u

struct server {
    struct rng rng;
    int listener, fd;
    uint64_t size;
};

static void put_be(struct text *t, uint64_t v, unsigned size)
{
    for (unsigned k = size; k; k--) {
        uint8_t byte = (uint8_t)(v >> 8 * (k - 1));
        text_add_bytes(t, &byte, 1);
    }
}

static uint64_t get_be(const uint8_t *p, unsigned size)
{
    uint64_t v = 0;
    for (unsigned k = 0; k < size; k++)
        v = v << 8 | p[k];
    return v;
}

/* The value, or now and then another. */
static uint64_t maybe(struct server *s, uint64_t v)
{
    return rng_one_in(&s->rng, 25) ? rng_number(&s->rng) : v;
}

static bool say(struct server *s, const struct text *t)
{
    return send(s->fd, t->bytes, t->len, MSG_NOSIGNAL) == (ssize_t)t->len;
}

static bool hear(struct server *s, uint8_t *p, size_t len)
{
    while (len) {
        ssize_t n = recv(s->fd, p, len, 0);
        if (n <= 0)
            return false;
        p += n;
        len -= (size_t)n;
    }
    return true;
}

static void put_reply(struct server *s, struct text *t, uint32_t option, uint32_t kind, const struct text *data)
{
    put_be(t, maybe(s, REPLY_MAGIC), 8);
    put_be(t, maybe(s, option), 4);
    put_be(t, maybe(s, kind), 4);
    put_be(t, maybe(s, data->len), 4);
    text_add_bytes(t, data->bytes, data->len);
}

/* Answers options until the client has what it wants. */
static bool negotiate(struct server *s)
{
    uint8_t head[16], data[256];
    while (hear(s, head, sizeof head)) {
        uint32_t option = (uint32_t)get_be(head + 8, 4), len = (uint32_t)get_be(head + 12, 4);
        struct text out = {.len = 0}, export = {.len = 0}, sizes = {.len = 0};
        if (len > sizeof data || !hear(s, data, len))
            return false;
        if (option != OPTION_GO) {
            put_reply(s, &out, option, REPLY_REFUSED, &export);
            if (!say(s, &out))
                return false;
            continue;
        }
        put_be(&export, 0, 2);
        put_be(&export, maybe(s, s->size), 8);
        put_be(&export, maybe(s, 0x6d), 2); /* flush, trim, zeroes, not read-only */
        put_be(&sizes, 3, 2);
        put_be(&sizes, maybe(s, 1), 4);
        put_be(&sizes, maybe(s, 4096), 4);
        put_be(&sizes, maybe(s, 1 << 16), 4);
        put_reply(s, &out, option, REPLY_INFO, &export);
        if (rng_one_in(&s->rng, 2))
            put_reply(s, &out, option, REPLY_INFO, &sizes);
        put_reply(s, &out, option, REPLY_ACK, &(struct text){.len = 0});
        return say(s, &out);
    }
    return false;
}

static bool greet(struct server *s)
{
    struct text t = {.len = 0};
    uint8_t flags[4];
    bool old = rng_one_in(&s->rng, 3);
    text_add(&t, "NBDMAGIC");
    put_be(&t, maybe(s, old ? OLD_MAGIC : OPTION_MAGIC), 8);
    if (old) {
        put_be(&t, maybe(s, s->size), 8);
        put_be(&t, maybe(s, 1), 4);
        for (unsigned k = 0; k < 124; k++)
            put_be(&t, 0, 1);
        return say(s, &t);
    }
    put_be(&t, maybe(s, 3), 2);
    return say(s, &t) && hear(s, flags, sizeof flags) && negotiate(s);
}

static void answer_requests(struct server *s)
{
    uint8_t head[28], data[0x8000];
    while (hear(s, head, sizeof head)) {
        uint16_t type = (uint16_t)get_be(head + 6, 2);
        uint32_t len = (uint32_t)get_be(head + 24, 4),
                 error = rng_one_in(&s->rng, 6) ? (uint32_t)rng_below(&s->rng, 40) : 0;
        struct text t = {.len = 0};
        if (type == 2 || rng_one_in(&s->rng, 40) || len > sizeof data || (type == 1 && !hear(s, data, len)))
            return;
        put_be(&t, maybe(s, SIMPLE_MAGIC), 4);
        put_be(&t, error, 4);
        put_be(&t, maybe(s, get_be(head + 8, 8)), 8);
        if (type == 0 && !error) {
            memset(data, 0x5a, len);
            text_add_bytes(&t, data, len);
        }
        if (!say(s, &t))
            return;
    }
}

static void *serve(void *server)
{
    /* A client that was promised more bytes than come waits for them: then the server hangs up. */
    const struct timeval patience = {.tv_usec = 100000};
    struct server *s = server;
    s->fd = accept(s->listener, NULL, NULL);
    if (s->fd >= 0)
        setsockopt(s->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (s->fd >= 0 && greet(s))
        answer_requests(s);
    if (s->fd >= 0)
        close(s->fd);
    return NULL;
}

static void use(struct fuzz *f, struct block_device *d)
{
    uint8_t buf[0x4000];
    if (d->size % BLOCK_SECTOR || d->size > BLOCK_SIZE_MAX)
        fuzz_fail(f, "a size that cannot be: %llu", (unsigned long long)d->size);
    for (unsigned k = 0; k < REQUESTS; k++, f->work++) {
        size_t len = BLOCK_SECTOR * (1 + rng_below(&f->rng, sizeof buf / BLOCK_SECTOR));
        uint64_t at = BLOCK_SECTOR * (d->size < BLOCK_SECTOR ? 0 : rng_below(&f->rng, d->size / BLOCK_SECTOR + 2));
        enum block_result r;
        memset(buf, 0, sizeof buf);
        switch (rng_below(&f->rng, 4)) {
        case 0:
            r = block_write(d, at, buf, len);
            break;
        case 1:
            r = block_discard(d, at, len);
            break;
        case 2:
            r = block_flush(d);
            at = 0;
            len = 0;
            break;
        default:
            r = block_read(d, at, buf, len);
        }
        if (r == BLOCK_OK && at + len > d->size)
            fuzz_fail(f, "a request beyond the end went well");
    }
}

void remote_nbd_session(struct fuzz *f)
{
    for (; f->round < ROUNDS && !rng_is_over(&f->rng); f->round++) {
        struct server s = {.rng = {.state = rng_next(&f->rng)}, .size = BLOCK_SECTOR * rng_below(&f->rng, 4096)};
        struct sockaddr_un at = {.sun_family = AF_UNIX};
        char file[160], err[300] = "";
        pthread_t thread;
        snprintf(at.sun_path, sizeof at.sun_path, "%s/n", f->dir);
        snprintf(file, sizeof file, "nbd:unix:%s", at.sun_path);
        s.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (s.listener < 0 || bind(s.listener, (struct sockaddr *)&at, sizeof at) || listen(s.listener, 1) ||
            pthread_create(&thread, NULL, serve, &s))
            fuzz_fail(f, "no server");
        const struct block_open_config cfg = {.file = file, .read_only = rng_one_in(&f->rng, 3)};
        struct block_device *d = block_open(&cfg, err, sizeof err);
        f->accepted += d != NULL;
        if (!d && !*err)
            fuzz_fail(f, "refused without a message");
        if (d)
            use(f, d);
        block_close(d);
        pthread_join(thread, NULL);
        close(s.listener);
        unlink(at.sun_path);
    }
}
