#include "frontends/machine/file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define FILE_MAX ((size_t)2 << 30)

static bool read_all(struct file *f, FILE *in, struct error *e)
{
    struct stat st;
    if (fstat(fileno(in), &st) || !S_ISREG(st.st_mode))
        return error_set(e, "cannot read '%s': not a regular file", f->path);
    if ((uint64_t)st.st_size > FILE_MAX)
        return error_set(e, "cannot read '%s': larger than 2 GiB", f->path);
    f->len = (size_t)st.st_size;
    f->data = calloc(1, f->len + 1);
    if (!f->data)
        return error_set(e, "cannot read '%s': out of memory", f->path);
    if (fread(f->data, 1, f->len, in) != f->len)
        return error_set(e, "cannot read '%s': %s", f->path,
                         ferror(in) ? strerror(errno) : "it shrank while it was read");
    return true;
}

bool file_read(struct file *f, const char *path, struct error *e)
{
    *f = (struct file){.path = path};
    FILE *in = fopen(path, "rb");
    if (!in)
        return error_set(e, "cannot open '%s': %s", path, strerror(errno));
    bool ok = read_all(f, in, e);
    fclose(in);
    if (!ok)
        file_free(f);
    return ok;
}

void file_free(struct file *f)
{
    free(f->data);
    f->data = NULL;
    f->len = 0;
}
