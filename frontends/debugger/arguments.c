#include "frontends/debugger/debugger_internal.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TERM_MAX 128

static bool register_value(const struct debugger *g, const char *name, uint64_t *out)
{
    static const char *const gprs[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                         "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
    struct inspect_regs r;
    machine_get_regs(g->m, g->cpu, &r);
    for (unsigned n = 0; n < 16; n++) {
        if (!strcmp(name, gprs[n])) {
            *out = r.gpr[n];
            return true;
        }
    }
    const struct {
        const char *name;
        uint64_t value;
    } others[] = {{"rip", r.rip},
                  {"pc", machine_code_address(g->m, g->cpu)},
                  {"cr0", r.cr0},
                  {"cr2", r.cr2},
                  {"cr3", r.cr3},
                  {"cr4", r.cr4},
                  {"fs_base", r.base[INSPECT_FS]},
                  {"gs_base", r.base[INSPECT_GS]}};
    for (size_t k = 0; k < sizeof others / sizeof others[0]; k++) {
        if (!strcmp(name, others[k].name)) {
            *out = others[k].value;
            return true;
        }
    }
    return false;
}

static bool number(const char *text, uint64_t *out)
{
    char *end;
    if (!isdigit((unsigned char)text[0]))
        return false;
    errno = 0;
    *out = strtoull(text, &end, 0);
    return !*end && !errno;
}

static bool term(const struct debugger *g, const char *text, uint64_t *out, struct error *e)
{
    const struct symbol *s;
    if (text[0] == '$')
        return register_value(g, text + 1, out) || error_set(e, "'%s': no such register", text);
    if (isdigit((unsigned char)text[0]))
        return number(text, out) || error_set(e, "'%s' is not a number", text);
    s = symbols_find(&g->symbols, text);
    if (!s)
        return error_set(e, "'%s': no such symbol%s", text, g->symbols.count ? "" : " (-symbols ELF names addresses)");
    *out = s->address;
    return true;
}

bool argument_address(const struct debugger *g, const char *text, uint64_t *out, struct error *e)
{
    bool minus = false;
    const char *p = text;
    *out = 0;
    for (;;) {
        char one[TERM_MAX];
        uint64_t value = 0;
        size_t n = strcspn(p, "+-");
        if (!n || n >= sizeof one)
            return error_set(e, "'%s' is not an address: expected NUMBER, SYMBOL or $REGISTER, with + or -", text);
        memcpy(one, p, n);
        one[n] = 0;
        if (!term(g, one, &value, e))
            return false;
        *out += minus ? -value : value;
        if (!p[n])
            return true;
        minus = p[n] == '-';
        p += n + 1;
    }
}

bool argument_number(const char *text, uint64_t max, uint64_t *out, struct error *e)
{
    if (!number(text, out))
        return error_set(e, "'%s' is not a number", text);
    return *out <= max || error_set(e, "%s is too large (at most %llu)", text, (unsigned long long)max);
}

bool argument_named(const struct debugger *g, const char *text, const char *name, uint64_t *out, bool *found,
                    struct error *e)
{
    size_t n = strlen(name);
    *found = !strncmp(text, name, n) && text[n] == '=';
    return !*found || argument_address(g, text + n + 1, out, e);
}
