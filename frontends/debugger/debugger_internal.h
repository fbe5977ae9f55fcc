/*
 * What the files of the debugger share: its state, the table of commands, and how arguments are read.
 */
#ifndef FRONTENDS_DEBUGGER_DEBUGGER_INTERNAL_H
#define FRONTENDS_DEBUGGER_DEBUGGER_INTERNAL_H

#include "frontends/debugger/debugger.h"
#include "frontends/machine/debug.h"
#include "frontends/machine/symbols.h"

struct debugger {
    const struct debugger_config *cfg;
    struct machine *m;
    struct debug *debug;
    struct symbols symbols;
    struct debugger_result *result;
    unsigned cpu;           /* the processor that commands are about: where the machine stopped, or chosen */
    struct inspect_out out; /* standard output */
    bool quit;
};

#define ARGS_MAX 16

/* A command gets what follows its name; argc is what the table allows. False with an error: refused, nothing done. */
typedef bool command_fn(struct debugger *g, int argc, char **argv, struct error *e);

struct command {
    const char *name;  /* one word, or two: "mmu walk" */
    const char *alias; /* or NULL */
    const char *args, *help;
    int min, max; /* arguments */
    command_fn *fn;
};

extern const struct command run_commands[], look_commands[], mmu_commands[]; /* each ends with a NULL name */

/* ---- arguments (arguments.c) ---- */

/* NUMBER, SYMBOL or $REGISTER, and sums and differences of them: main+0x10, $rsp-8. */
bool argument_address(const struct debugger *g, const char *text, uint64_t *out, struct error *e);
/* A plain number, at most max. */
bool argument_number(const char *text, uint64_t max, uint64_t *out, struct error *e);
/* "gfn=0x10": is this the argument, and what is its value? */
bool argument_named(const struct debugger *g, const char *text, const char *name, uint64_t *out, bool *found,
                    struct error *e);

/* ---- speaking (debugger.c) ---- */

void say(const struct debugger *g, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* "0x1234 <name+4>" */
char *address_text(const struct debugger *g, uint64_t address, char *buf, size_t size);
/* The instruction at an address, a line. Returns its length, 0 if it is not readable. */
unsigned print_instruction(const struct debugger *g, uint64_t address, bool is_next);
/* "help" and "help COMMAND". */
bool command_help(struct debugger *g, int argc, char **argv, struct error *e);
const struct command *command_find(char **argv, int argc, int *words);

#endif
