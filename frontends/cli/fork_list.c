#include "frontends/cli/fork_list.h"

#include "core/alloc.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_blank(const char *line)
{
    return !line[strspn(line, " \t")];
}

static void add_line(struct fork_list *l, const char *line, size_t len)
{
    l->lines = alloc_resize(l->lines, l->count + 1, sizeof *l->lines);
    char *copy = alloc_zeroed(1, len + 1);
    memcpy(copy, line, len);
    l->lines[l->count++] = copy;
}

static bool add_all(struct fork_list *l, FILE *f, const char *path, struct error *e)
{
    char *line = NULL;
    size_t room = 0;
    ssize_t n;
    bool ok = true;
    while (ok && (n = getline(&line, &room, f)) >= 0) {
        size_t len = (size_t)n;
        ok = !memchr(line, 0, len) || error_set(e, "'%s' is not a text file: it contains a zero byte", path);
        while (len && (line[len - 1] == '\n' || line[len - 1] == '\r'))
            line[--len] = 0;
        if (ok && !is_blank(line))
            add_line(l, line, len);
    }
    free(line);
    if (ok && ferror(f))
        ok = error_set(e, "cannot read '%s': %s", path, strerror(errno));
    return ok;
}

bool fork_list_read(struct fork_list *l, const char *path, struct error *e)
{
    *l = (struct fork_list){0};
    FILE *f = fopen(path, "r");
    if (!f)
        return error_set(e, "cannot read '%s': %s", path, strerror(errno));
    bool ok = add_all(l, f, path, e);
    fclose(f);
    if (ok && !l->count)
        ok = error_set(e, "-fork-run %s: there is no line in it: each one makes a forked machine", path);
    if (!ok)
        fork_list_free(l);
    return ok;
}

void fork_list_free(struct fork_list *l)
{
    while (l->count)
        free(l->lines[--l->count]);
    free(l->lines);
    *l = (struct fork_list){0};
}
