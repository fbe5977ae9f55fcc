/*
 * What the files of the gdb stub share: the connection, and the session of one machine.
 */
#ifndef FRONTENDS_GDBSTUB_GDBSTUB_INTERNAL_H
#define FRONTENDS_GDBSTUB_GDBSTUB_INTERNAL_H

#include "frontends/gdbstub/gdbstub.h"
#include "frontends/machine/debug.h"
#include "frontends/machine/listener.h"

#define PACKET_MAX 0x4000
#define POINTS_MAX DEBUG_POINTS_MAX

struct connection {
    struct listener listener;
    int fd; /* -1: nobody is connected */
    uint8_t in[4096];
    size_t in_len, in_next;
    bool no_ack;
};

struct gdb_point {
    char type; /* '0' to '4' */
    uint64_t address, kind;
    int id;
};

struct gdbstub {
    struct connection c;
    struct machine *m;
    struct debug *debug;
    bool (*quit)(void *ctx);
    void *quit_ctx;
    /* Why the poll stopped the run. */
    bool connected_now, interrupted;
    /* The session. */
    bool swbreak, hwbreak; /* features of the client */
    unsigned cpu;          /* chosen with Hg */
    unsigned step_cpu;     /* whom the next step is for: Hc, vCont */
    struct gdb_point points[POINTS_MAX];
    size_t point_count;
    struct debug_stop last;
    bool over; /* the machine has ended; its status was not reported yet */
    char reply[2 * PACKET_MAX];
    char xml[8192];
};

/* What the run loop does after a packet. */
enum gdb_next { GDB_STAY, GDB_RESUME, GDB_STEP, GDB_DETACH, GDB_KILL };

/* ---- connection.c ---- */

bool connection_listen(struct connection *c, const char *spec, struct error *e);
/* Takes a waiting client, if there is one. */
bool connection_accept(struct connection *c);
void connection_drop(struct connection *c);
/* Drops it so that what was sent last arrives: closing a socket that holds unread bytes would take it back. */
void connection_finish(struct connection *c);
/* Reads what has come, waiting at most `ms`. False: the client is gone. */
bool connection_fill(struct connection *c, int ms);
/* The next byte that has come, or -1. */
int connection_byte(struct connection *c);
/* The next packet's payload, unescaped, in buf (a zero byte follows); *len its length. */
enum packet_result { PACKET_OK, PACKET_INTERRUPT, PACKET_CLOSED, PACKET_QUIT };
enum packet_result connection_packet(struct gdbstub *s, uint8_t *buf, size_t size, size_t *len);
void connection_send(struct connection *c, const char *payload);

/* ---- registers.c ---- */

unsigned gdb_register_count(void);
/* All registers as hex, in the order of the target description. */
void gdb_registers_read(const struct inspect_regs *r, char *hex, size_t size);
/* From hex; what is missing at the end stays. False: not hex. */
bool gdb_registers_write(struct inspect_regs *r, const char *hex);
bool gdb_register_read(const struct inspect_regs *r, uint64_t n, char *hex, size_t size);
bool gdb_register_write(struct inspect_regs *r, uint64_t n, const char *hex);
/* The target description. */
void gdb_target_xml(char *text, size_t size);

/* ---- packets.c ---- */

/* Acts on one packet and answers it, unless it resumes the machine. */
enum gdb_next gdb_packet(struct gdbstub *s, uint8_t *data, size_t len);
void gdb_send_stop(struct gdbstub *s);
void gdb_send_exit(struct gdbstub *s);
/* A line on gdb's console; only while the machine runs for it. */
void gdb_send_console(struct gdbstub *s, const char *text);
void gdb_points_clear(struct gdbstub *s);

int hex_digit(int c);
void hex_encode(const void *bytes, size_t len, char *out, size_t size);
/* Up to len bytes; returns how many there were, or SIZE_MAX if a digit is missing or none. */
size_t hex_decode(const char *hex, uint8_t *out, size_t len);

#endif
