#include "frontends/debugger/debugger_internal.h"

#include "core/log.h"

#include <editline/readline.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- speaking ---- */

static void print_line(void *ctx, const char *text)
{
    printf("%s\n", text);
}

void say(const struct debugger *g, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vprintf(fmt, args);
    va_end(args);
    putchar('\n');
}

char *address_text(const struct debugger *g, uint64_t address, char *buf, size_t size)
{
    char name[160];
    symbols_name(&g->symbols, address, name, sizeof name);
    if (name[0])
        snprintf(buf, size, "0x%" PRIx64 " <%s>", address, name);
    else
        snprintf(buf, size, "0x%" PRIx64, address);
    return buf;
}

unsigned print_instruction(const struct debugger *g, uint64_t address, bool is_next)
{
    char where[256], text[160];
    unsigned len = machine_disassemble(g->m, g->cpu, address, text, sizeof text);
    say(g, "%s %s  %s", is_next ? "=>" : "  ", address_text(g, address, where, sizeof where), text);
    return len;
}

/* ---- commands ---- */

static const struct command own_commands[] = {
    {"help", "h", "[COMMAND]", "this list, or one command", 0, 2, command_help}, {.name = NULL}};

static const struct command *const tables[] = {own_commands, run_commands, look_commands, mmu_commands};

#define for_each_command(c)                                                                                            \
    for (size_t table_ = 0; table_ < sizeof tables / sizeof tables[0]; table_++)                                       \
        for (const struct command *c = tables[table_]; c->name; c++)

/* "x/4xg" is the command "x/" with its format attached. */
static bool word_matches(const char *name, const char *word)
{
    size_t n = strlen(name);
    return !strcmp(name, word) || (n && name[n - 1] == '/' && !strncmp(name, word, n));
}

static bool is_command(const struct command *c, char **argv, int argc, int *words)
{
    const char *space = strchr(c->name, ' ');
    *words = 1;
    if (c->alias && !strcmp(c->alias, argv[0]))
        return true;
    if (!space)
        return word_matches(c->name, argv[0]);
    *words = 2;
    size_t n = (size_t)(space - c->name);
    return argc >= 2 && !strncmp(c->name, argv[0], n) && !argv[0][n] && !strcmp(space + 1, argv[1]);
}

/* Two words win over one: "break mmu" over "break". */
const struct command *command_find(char **argv, int argc, int *words)
{
    const struct command *found = NULL;
    *words = 0;
    for_each_command(c)
    {
        int n;
        if (is_command(c, argv, argc, &n) && n > *words) {
            found = c;
            *words = n;
        }
    }
    return found;
}

static void print_command(const struct debugger *g, const struct command *c)
{
    char left[64];
    snprintf(left, sizeof left, "%s%s%s%s%s", c->name, c->args[0] ? " " : "", c->args, c->alias ? ", " : "",
             c->alias ? c->alias : "");
    say(g, "  %-36s %s", left, c->help);
}

static bool is_prefix_word(const char *name, const char *word)
{
    size_t n = strlen(word);
    return !strncmp(name, word, n) && name[n] == ' ';
}

bool command_help(struct debugger *g, int argc, char **argv, struct error *e)
{
    int words, shown = 0;
    const struct command *found = argc ? command_find(argv, argc, &words) : NULL;
    if (found)
        print_command(g, found);
    for_each_command(c)
    {
        if (argc && (found || argc > 1 || !is_prefix_word(c->name, argv[0])))
            continue;
        print_command(g, c);
        shown++;
    }
    return found || shown || error_set(e, "'%s': no such command ('help' lists them)", argv[0]);
}

/* Splits at spaces; "..." keeps them. False: too many words, or a quote is open. */
static bool split(char *line, char **argv, int *argc, struct error *e)
{
    char *p = line;
    *argc = 0;
    for (;;) {
        while (*p == ' ' || *p == '\t')
            p++;
        if (!*p || *p == '#')
            return true;
        if (*argc == ARGS_MAX)
            return error_set(e, "too many words");
        bool quoted = *p == '"';
        char *start = p += quoted;
        p += strcspn(p, quoted ? "\"" : " \t");
        if (quoted && !*p)
            return error_set(e, "a quotation mark is missing");
        argv[(*argc)++] = start;
        if (*p)
            *p++ = 0;
    }
}

/* Writes the beginning of an unknown command so that it cannot mess the terminal up. */
static bool unknown(const char *word, struct error *e)
{
    char clean[64];
    size_t n = 0;
    for (; word[n] && n < sizeof clean - 1; n++)
        clean[n] = word[n] >= ' ' && word[n] < 127 ? word[n] : '?';
    clean[n] = 0;
    for_each_command(c)
    {
        if (is_prefix_word(c->name, word))
            return error_set(e, "'%s' needs a second word ('help %s' lists them)", clean, clean);
    }
    return error_set(e, "'%s': no such command ('help' lists them)", clean);
}

static bool execute(struct debugger *g, char *line, struct error *e)
{
    char *argv[ARGS_MAX + 1] = {NULL};
    int argc, words;
    line[strcspn(line, "\r\n")] = 0;
    if (!split(line, argv, &argc, e))
        return false;
    if (!argc)
        return true;
    const struct command *c = command_find(argv, argc, &words);
    if (!c)
        return unknown(argv[0], e);
    /* A format that is part of the first word goes along. */
    bool attached = c->name[strlen(c->name) - 1] == '/';
    if (attached)
        words = 0;
    argc -= words;
    if (argc - attached < c->min || argc - attached > c->max)
        return error_set(e, "usage: %s%s%s", c->name, c->args[0] ? " " : "", c->args);
    return c->fn(g, argc, argv + words, e);
}

/* ---- where commands come from ---- */

static bool run_script(struct debugger *g, const char *path, struct error *e)
{
    struct file f;
    struct error why = {""};
    unsigned number = 0;
    if (!file_read(&f, path, e))
        return false;
    for (char *line = (char *)f.data, *end = line + f.len; line < end && !g->quit;) {
        char *stop = memchr(line, '\n', (size_t)(end - line));
        if (stop)
            *stop = 0;
        char *next = stop ? stop + 1 : end;
        number++;
        if (!execute(g, line, &why)) {
            fflush(stdout);
            log_error("%s:%u: %s", path, number, why.text);
            g->result->failed = true;
            g->quit = true;
        }
        line = next;
    }
    fflush(stdout);
    file_free(&f);
    return true;
}

static void refuse(struct debugger *g, const struct error *e, bool interactive)
{
    fflush(stdout);
    log_error("%s", e->text);
    g->result->failed |= !interactive;
}

static void read_terminal(struct debugger *g)
{
    char *line, *last = NULL;
    while (!g->quit && (line = readline("(umbra) "))) {
        struct error e = {""};
        if (line[0]) {
            add_history(line);
            free(last);
            last = strdup(line);
        } else if (last) { /* an empty line does it again */
            free(line);
            line = strdup(last);
        }
        if (line && !execute(g, line, &e))
            refuse(g, &e, true);
        fflush(stdout);
        free(line);
    }
    free(last);
}

static void read_stream(struct debugger *g)
{
    char *line = NULL;
    size_t size = 0;
    while (!g->quit && getline(&line, &size, stdin) >= 0) {
        struct error e = {""};
        if (!execute(g, line, &e))
            refuse(g, &e, false);
        fflush(stdout);
    }
    free(line);
}

bool debugger_run(const struct debugger_config *cfg, struct debugger_result *result, struct error *e)
{
    struct debugger g = {.cfg = cfg, .m = cfg->machine, .result = result, .out = {print_line, NULL}};
    *result = (struct debugger_result){0};
    if (cfg->symbols && !symbols_load(&g.symbols, cfg->symbols, e))
        return false;
    g.debug = debug_attach(g.m);
    bool ok = g.debug || error_set(e, "out of memory");
    if (ok && cfg->script)
        ok = run_script(&g, cfg->script, e);
    if (ok && !g.quit && isatty(STDIN_FILENO))
        read_terminal(&g);
    else if (ok && !g.quit)
        read_stream(&g);
    debug_detach(g.debug);
    symbols_free(&g.symbols);
    return ok;
}
