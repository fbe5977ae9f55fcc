/*
 * Names for addresses, from the symbol table of an ELF image (32 or 64 bits, little endian).
 */
#ifndef FRONTENDS_MACHINE_SYMBOLS_H
#define FRONTENDS_MACHINE_SYMBOLS_H

#include "frontends/machine/error.h"
#include "frontends/machine/file.h"

struct symbol {
    uint64_t address, size;
    const char *name; /* points into the file */
};

struct symbols {
    struct file file;
    struct symbol *list; /* sorted by address */
    size_t count;
};

/* False for a file that is no ELF image, or has no symbols; nothing in it can crash the reader. */
bool symbols_load(struct symbols *s, const char *path, struct error *e);
void symbols_free(struct symbols *s);
/* The symbol with this name, or NULL. */
const struct symbol *symbols_find(const struct symbols *s, const char *name);
/* "name", "name+0x12", or "" if no symbol is near. Returns buf. */
char *symbols_name(const struct symbols *s, uint64_t address, char *buf, size_t size);

#endif
