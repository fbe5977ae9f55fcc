#include "frontends/machine/firmware_find.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The folder of each package; the cache has both as packages hold them. */
static const struct {
    const char *package, *folder;
} places[] = {{"seabios", "usr/share/seabios"}, {"ovmf", "usr/share/OVMF"}, {"ovmf", "usr/share/qemu"}};

static bool cache_folder(char *out, size_t size)
{
    const char *own = getenv("UMBRA_CACHE"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (own && *own)
        snprintf(out, size, "%s", own);
    else if (xdg && *xdg)
        snprintf(out, size, "%s/umbra", xdg);
    else if (home && *home)
        snprintf(out, size, "%s/.cache/umbra", home);
    else
        return false;
    return true;
}

bool firmware_find(const char *name, char *path, size_t size, struct error *e)
{
    char cache[256];
    bool cached = cache_folder(cache, sizeof cache);
    for (size_t k = 0; k < sizeof places / sizeof *places; k++) {
        snprintf(path, size, "/%s/%s", places[k].folder, name);
        if (!access(path, R_OK))
            return true;
        snprintf(path, size, "%s/unpacked/%s/%s/%s", cache, places[k].package, places[k].folder, name);
        if (cached && !access(path, R_OK))
            return true;
    }
    const char *package = strncmp(name, "OVMF", 4) ? "seabios" : "ovmf";
    return error_set(e,
                     "firmware '%s' is not here: install Debian's package %s (it is looked for in /usr/share, and in "
                     "%s/unpacked/%s)",
                     name, package, cached ? cache : "the cache", package);
}
