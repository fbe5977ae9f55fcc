#include "core/library.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

bool library_load(const char *file, const struct library_call *calls, size_t count, void *table, char *why,
                  size_t why_len)
{
    void *library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        snprintf(why, why_len, "%s", dlerror());
        return false;
    }
    for (size_t k = 0; k < count; k++) {
        void *function = dlsym(library, calls[k].name);
        if (!function) {
            snprintf(why, why_len, "%s has no %s", file, calls[k].name);
            return false;
        }
        memcpy((char *)table + calls[k].offset, &function, sizeof function);
    }
    return true;
}
