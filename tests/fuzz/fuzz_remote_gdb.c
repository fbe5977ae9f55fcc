/*
 * A client of the gdb stub: packets that are nearly right, with and without their framing.
 */
#include "fuzz_remote.h"

#include "frontends/gdbstub/gdbstub_internal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define STEPS     300
#define RUN_STEPS 40

struct rig {
    struct fuzz *f;
    struct rng *rng;
    struct gdbstub *stub;
    int fd; /* the client's end */
};

static bool always(void *ctx)
{
    return true;
}

static uint64_t some_address(struct rig *b)
{
    return rng_one_in(b->rng, 3) ? rng_number(b->rng) : 0x100000 + rng_below(b->rng, 0x40);
}

static void add_hex(struct rig *b, struct text *t, size_t len)
{
    for (size_t k = 0; k < len; k++)
        text_add(t, "%02x", (unsigned)rng_below(b->rng, 256));
}

static void binary_write(struct rig *b, struct text *t)
{
    size_t len = rng_below(b->rng, 40);
    text_add(t, "X%llx,%zx:", (unsigned long long)some_address(b), len);
    for (size_t k = 0; k < len; k++) {
        uint8_t v = (uint8_t)rng_below(b->rng, 256);
        text_add_bytes(t, &v, 1);
    }
}

static void packet(struct rig *b, struct text *t)
{
    static const char *const plain[] = {"?",
                                        "g",
                                        "qSupported:swbreak+;hwbreak+;xmlRegisters=i386",
                                        "qXfer:features:read:target.xml:0,ffb",
                                        "qXfer:features:read:target.xml:fff0,ffffffffffffffff",
                                        "qC",
                                        "qfThreadInfo",
                                        "qsThreadInfo",
                                        "qThreadExtraInfo,1",
                                        "qAttached",
                                        "qSymbol::",
                                        "vCont?",
                                        "vCont;c",
                                        "vCont;s:1;c",
                                        "vCont;s:-1",
                                        "vMustReplyEmpty",
                                        "QStartNoAckMode",
                                        "Hg0",
                                        "Hc-1",
                                        "Hg1",
                                        "T1",
                                        "s",
                                        "c",
                                        "S05",
                                        "C05;100000",
                                        "qRcmd,68656c70",
                                        "qRcmd,696e666f20706369",
                                        "qRcmd,6"};
    unsigned long long at = some_address(b), number = rng_number(b->rng), small = rng_below(b->rng, 80);
    switch (rng_below(b->rng, 9)) {
    case 0:
        text_add(t, "m%llx,%llx", at, rng_one_in(b->rng, 4) ? number : small);
        break;
    case 1:
        text_add(t, "M%llx,%llx:", at, small);
        add_hex(b, t, small);
        break;
    case 2:
        binary_write(b, t);
        break;
    case 3:
        text_add(t, "%c%llu,%llx,%llx", "Zz"[rng_below(b->rng, 2)], number % 6, at, small % 12);
        break;
    case 4:
        text_add(t, "p%llx", rng_one_in(b->rng, 4) ? number : small);
        break;
    case 5:
        text_add(t, "P%llx=", small);
        add_hex(b, t, rng_below(b->rng, 18));
        break;
    case 6:
        if (rng_one_in(b->rng, 4)) {
            text_add(t, "G");
            add_hex(b, t, rng_below(b->rng, 600));
        }
        break;
    default:
        text_add(t, "%s", RNG_PICK(b->rng, plain));
    }
}

/* Each answer is a packet with its sum, or an acknowledgement. */
static void take_replies(struct rig *b)
{
    static const char no_answer[] = "an answer is no packet: %.*s";
    char got[0x20000];
    ssize_t n = recv(b->fd, got, sizeof got, MSG_DONTWAIT);
    for (ssize_t k = 0; k < n; k++) {
        if (got[k] == '+' || got[k] == '-')
            continue;
        char *end = got[k] == '$' ? memchr(got + k, '#', (size_t)(n - k)) : NULL;
        uint8_t sum = 0;
        for (char *p = got + k + 1; end && p < end; p++)
            sum = (uint8_t)(sum + (uint8_t)*p);
        if (!end || got + n - end < 3 || hex_digit(end[1]) * 16 + hex_digit(end[2]) != sum)
            fuzz_fail(b->f, no_answer, (int)(n - k < 80 ? n - k : 80), got + k);
        k = end + 2 - got;
    }
}

static void frame(struct rig *b, const struct text *in, struct text *out)
{
    uint8_t sum = 0;
    text_add(out, "%s$", rng_one_in(b->rng, 4) ? "+++-" : "");
    for (size_t k = 0; k < in->len; k++) {
        char raw[2] = {'}', (char)(in->bytes[k] ^ 0x20)};
        bool escape = memchr("$#}*", in->bytes[k], 4) != NULL;
        const char *from = escape ? raw : &in->bytes[k];
        for (unsigned n = 0; n < 1u + escape; n++)
            sum = (uint8_t)(sum + (uint8_t)from[n]);
        text_add_bytes(out, from, 1u + escape);
    }
    text_add(out, "#%02x", rng_one_in(b->rng, 10) ? 0u : sum);
}

static void act(struct rig *b, enum gdb_next next)
{
    struct gdbstub *s = b->stub;
    if (next == GDB_STEP)
        debug_step_cpu(s->debug, s->step_cpu, &s->last);
    else if (next == GDB_RESUME)
        debug_run(s->debug, RUN_STEPS, 0, &s->last);
    if (next == GDB_STEP || next == GDB_RESUME) {
        s->step_cpu = s->last.cpu;
        gdb_send_stop(s);
    }
}

static void step(struct rig *b)
{
    struct text in = {.len = 0}, out = {.len = 0};
    uint8_t got[PACKET_MAX];
    size_t len;
    packet(b, &in);
    text_mutate(b->rng, &in);
    if (rng_one_in(b->rng, 2)) {
        len = in.len < sizeof got ? in.len : sizeof got - 1;
        memcpy(got, in.bytes, len);
        got[len] = 0;
        act(b, gdb_packet(b->stub, got, len));
    } else {
        frame(b, &in, &out);
        text_mutate(b->rng, &out);
        if (send(b->fd, out.bytes, out.len, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
            fuzz_fail(b->f, "the stub does not read");
        connection_fill(&b->stub->c, 0);
        while (connection_packet(b->stub, got, sizeof got, &len) == PACKET_OK) {
            act(b, gdb_packet(b->stub, got, len));
            take_replies(b);
        }
    }
    take_replies(b);
}

void remote_gdb_session(struct fuzz *f)
{
    int pair[2];
    struct rig b = {.f = f, .rng = &f->rng, .stub = calloc(1, sizeof *b.stub)};
    struct machine *m = remote_machine(f);
    if (!b.stub || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
        fuzz_fail(f, "no sockets");
    b.fd = pair[1];
    *b.stub =
        (struct gdbstub){.m = m, .quit = always, .debug = debug_attach(m), .c = {.listener.fd = -1, .fd = pair[0]}};
    for (unsigned k = 0; k < STEPS && !rng_is_over(b.rng) && b.stub->c.fd >= 0 && b.stub->last.why != DEBUG_ENDED;
         k++, f->round++, f->work++)
        step(&b);
    gdb_points_clear(b.stub);
    debug_detach(b.stub->debug);
    connection_drop(&b.stub->c);
    close(b.fd);
    free(b.stub);
    machine_destroy(m);
}
