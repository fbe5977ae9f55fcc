/*
 * The gdb stub (-s, -gdb): gdb's remote serial protocol over TCP, for x86-64.
 *
 * Reads by PEEK, writes by HOST_POKE; breakpoints and watchpoints never touch guest memory. Listens on the loopback
 * interface unless the user names another address. One client at a time; what it sends is not trusted.
 */
#ifndef FRONTENDS_GDBSTUB_GDBSTUB_H
#define FRONTENDS_GDBSTUB_GDBSTUB_H

#include "frontends/machine/umbra.h"

struct gdbstub;

/* Listens where `spec` says: tcp::PORT, or tcp:ADDRESS:PORT; port 0 takes a free one. Says where on stderr. */
struct gdbstub *gdbstub_open(const char *spec, struct error *e);
void gdbstub_close(struct gdbstub *s);
/* For the machine's poll: takes connections and interrupts. True: the run must stop, gdbstub_run() knows why. */
bool gdbstub_poll(struct gdbstub *s);
/* In place of machine_run(). `stopped`: waits for a client first (-S). `quit` is asked about ten times a second while
 * the machine stands still: true ends the run, as MACHINE_STOPPED. */
enum machine_exit gdbstub_run(struct gdbstub *s, struct machine *m, bool stopped, bool (*quit)(void *ctx), void *ctx);

#endif
