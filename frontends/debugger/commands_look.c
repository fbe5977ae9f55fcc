/*
 * Commands that look at registers, memory and code.
 */
#include "frontends/debugger/debugger_internal.h"

#include <ctype.h>
#include <inttypes.h>
#include <string.h>

#define COUNT_MAX  4096
#define FRAMES_MAX 64
#define STRING_MAX 200

static bool command_regs(struct debugger *g, int argc, char **argv, struct error *e)
{
    machine_print_regs(g->m, g->cpu, &g->out);
    return true;
}

/* ---- memory ---- */

struct format {
    uint64_t count;
    char letter; /* x d u c s i */
    unsigned size;
    bool physical;
};

/* "/16xb": count, letter and size in any order after the count, each optional. */
static bool format_parse(const char *text, struct format *f, struct error *e)
{
    const char *p = text;
    f->count = 0;
    for (; isdigit((unsigned char)*p); p++)
        if ((f->count = f->count * 10 + (uint64_t)(*p - '0')) > COUNT_MAX)
            return error_set(e, "x/%s: at most %d at a time", text, COUNT_MAX);
    if (p == text)
        f->count = 1;
    for (; *p; p++) {
        const char *sizes = "bhwg", *size = strchr(sizes, *p);
        if (size)
            f->size = 1u << (size - sizes);
        else if (strchr("xduc", *p) || ((*p == 's' || *p == 'i') && !f->physical))
            f->letter = *p;
        else
            return error_set(e, "x/%s: '%c' is not one of x d u c%s, b h w g", text, *p, f->physical ? "" : " s i");
    }
    if (!f->count)
        return error_set(e, "x/%s: a count of 0", text);
    if (f->letter == 'c' && !strpbrk(text, "bhwg"))
        f->size = 1;
    return true;
}

static size_t peek(const struct debugger *g, bool physical, uint64_t at, void *buf, size_t len)
{
    return physical ? machine_peek_gpa(g->m, at, buf, len) : machine_peek_gva(g->m, g->cpu, at, buf, len);
}

static int value_text(const struct format *f, uint64_t value, char *text, size_t size)
{
    int64_t wide = (int64_t)(value << (64 - 8 * f->size)) >> (64 - 8 * f->size);
    switch (f->letter) {
    case 'd':
        return snprintf(text, size, " %" PRId64, wide);
    case 'u':
        return snprintf(text, size, " %" PRIu64, value);
    case 'c':
        return snprintf(text, size, " %c", value >= ' ' && value < 127 ? (int)value : '.');
    default:
        return snprintf(text, size, " 0x%0*" PRIx64, (int)f->size * 2, value);
    }
}

static bool dump_words(const struct debugger *g, const struct format *f, uint64_t at, struct error *e)
{
    unsigned per_line = 16 / f->size;
    char text[256], where[160];
    for (uint64_t n = 0; n < f->count;) {
        uint64_t here = at + n * f->size;
        int used = snprintf(text, sizeof text, "%s:",
                            f->physical ? (snprintf(where, sizeof where, "gpa 0x%" PRIx64, here), where)
                                        : address_text(g, here, where, sizeof where));
        for (unsigned k = 0; k < per_line && n < f->count; k++, n++) {
            uint64_t value = 0;
            if (peek(g, f->physical, at + n * f->size, &value, f->size) < f->size) {
                if (k)
                    say(g, "%s", text);
                return error_set(e, "0x%" PRIx64 " is not readable", at + n * f->size);
            }
            used += value_text(f, value, text + used, sizeof text - (size_t)used);
        }
        say(g, "%s", text);
    }
    return true;
}

static bool dump_strings(const struct debugger *g, const struct format *f, uint64_t at, struct error *e)
{
    char text[STRING_MAX + 1], where[160];
    for (uint64_t n = 0; n < f->count; n++) {
        size_t len = peek(g, false, at, text, STRING_MAX);
        if (!len)
            return error_set(e, "0x%" PRIx64 " is not readable", at);
        text[len] = 0;
        len = strlen(text);
        for (size_t k = 0; k < len; k++)
            if (text[k] < ' ' || text[k] > 126)
                text[k] = '.';
        say(g, "%s: \"%s\"", address_text(g, at, where, sizeof where), text);
        at += len + 1;
    }
    return true;
}

static bool dump_code(const struct debugger *g, uint64_t count, uint64_t at, struct error *e)
{
    uint64_t now = machine_code_address(g->m, g->cpu);
    for (uint64_t n = 0; n < count; n++) {
        unsigned len = print_instruction(g, at, at == now);
        if (!len)
            return error_set(e, "0x%" PRIx64 " is not readable", at);
        at += len;
    }
    return true;
}

static bool examine(struct debugger *g, bool physical, int argc, char **argv, struct error *e)
{
    struct format f = {.count = 1, .letter = 'x', .size = 8, .physical = physical};
    const char *slash = strchr(argv[0], '/');
    uint64_t at;
    if ((slash && !format_parse(slash + 1, &f, e)) || !argument_address(g, argv[1], &at, e))
        return false;
    if (f.letter == 's')
        return dump_strings(g, &f, at, e);
    return f.letter == 'i' ? dump_code(g, f.count, at, e) : dump_words(g, &f, at, e);
}

static bool command_x(struct debugger *g, int argc, char **argv, struct error *e)
{
    return examine(g, false, argc, argv, e);
}

static bool command_xp(struct debugger *g, int argc, char **argv, struct error *e)
{
    return examine(g, true, argc, argv, e);
}

static bool command_x_plain(struct debugger *g, int argc, char **argv, struct error *e)
{
    char name[] = "x/";
    return examine(g, false, 2, (char *[]){name, argv[0]}, e);
}

static bool command_xp_plain(struct debugger *g, int argc, char **argv, struct error *e)
{
    char name[] = "xp/";
    return examine(g, true, 2, (char *[]){name, argv[0]}, e);
}

/* ---- code ---- */

static bool command_disassemble(struct debugger *g, int argc, char **argv, struct error *e)
{
    uint64_t n = 8, at = machine_code_address(g->m, g->cpu);
    if (argc > 0 && !argument_number(argv[0], COUNT_MAX, &n, e))
        return false;
    if (argc > 1 && !argument_address(g, argv[1], &at, e))
        return false;
    return dump_code(g, n, at, e);
}

/* Frames linked through rbp: the caller's rbp, and above it the return address. */
static bool command_backtrace(struct debugger *g, int argc, char **argv, struct error *e)
{
    struct inspect_regs r;
    char text[256];
    uint64_t frame[2];
    unsigned cpu = g->cpu;
    machine_get_regs(g->m, cpu, &r);
    if (!r.long_mode)
        return error_set(e, "backtrace needs long mode");
    uint64_t rbp = r.gpr[5];
    say(g, "#0  %s", address_text(g, machine_code_address(g->m, cpu), text, sizeof text));
    for (int n = 1; n < FRAMES_MAX; n++) {
        if (machine_peek_gva(g->m, cpu, rbp, frame, sizeof frame) < sizeof frame || !frame[1])
            break;
        say(g, "#%-2d %s", n, address_text(g, frame[1], text, sizeof text));
        if (frame[0] <= rbp)
            break;
        rbp = frame[0];
    }
    return true;
}

static bool command_symbol(struct debugger *g, int argc, char **argv, struct error *e)
{
    uint64_t at;
    char text[256];
    if (!argument_address(g, argv[0], &at, e))
        return false;
    say(g, "%s", address_text(g, at, text, sizeof text));
    return true;
}

/* ---- the machine as a whole ---- */

static bool command_digest(struct debugger *g, int argc, char **argv, struct error *e)
{
    say(g, "digest %016" PRIx64 " icount %" PRIu64, machine_digest(g->m), machine_icount(g->m));
    return true;
}

static bool command_save(struct debugger *g, int argc, char **argv, struct error *e)
{
    return machine_save(g->m, argv[0], e);
}

/* \n and \r are the keys that a guest waits for. */
static bool command_send(struct debugger *g, int argc, char **argv, struct error *e)
{
    char *to = argv[0];
    for (const char *from = argv[0]; *from; from++) {
        if (from[0] == '\\' && (from[1] == 'n' || from[1] == 'r'))
            *to++ = *++from == 'n' ? '\n' : '\r';
        else
            *to++ = *from;
    }
    machine_serial_input(g->m, 0, argv[0], (size_t)(to - argv[0]));
    return true;
}

static bool command_stats(struct debugger *g, int argc, char **argv, struct error *e)
{
    machine_print_counters(g->m, argc ? argv[0] : "", &g->out);
    return true;
}

static bool command_echo(struct debugger *g, int argc, char **argv, struct error *e)
{
    say(g, "%s", argc ? argv[0] : "");
    return true;
}

const struct command look_commands[] = {
    {"regs", NULL, "", "registers of the processor, and its last exceptions", 0, 0, command_regs},
    {"x/", NULL, "[N][xducsi][bhwg] ADDR", "memory by gva: x/4xg $rsp, x/s name, x/5i $pc", 1, 1, command_x},
    {"xp/", NULL, "[N][xduc][bhwg] GPA", "memory by gpa", 1, 1, command_xp},
    {"x", NULL, "ADDR", "one word of memory by gva", 1, 1, command_x_plain},
    {"xp", NULL, "GPA", "one word of memory by gpa", 1, 1, command_xp_plain},
    {"disassemble", "dis", "[N] [ADDR]", "N instructions (8) from ADDR or the next one on", 0, 2, command_disassemble},
    {"backtrace", "bt", "", "the frames linked through rbp", 0, 0, command_backtrace},
    {"symbol", NULL, "ADDR", "the name of an address, the address of a name", 1, 1, command_symbol},
    {"digest", NULL, "", "digest of the machine's state at this position", 0, 0, command_digest},
    {"savevm", NULL, "FILE", "save the machine", 1, 1, command_save},
    {"send", NULL, "\"TEXT\"", "type into the serial port (\\n, \\r)", 1, 1, command_send},
    {"echo", NULL, "[\"TEXT\"]", "print a line, for who reads the output of a script", 0, 1, command_echo},
    {"stats", NULL, "[PREFIX]", "counters", 0, 1, command_stats},
    {.name = NULL}};
