#include "frontends/machine/symbols.h"

#include <elf.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NEAR 0x100000 /* a symbol without a size names addresses up to here */

/* A table inside the file, or NULL if it does not lie there. */
static const void *part(const struct symbols *s, uint64_t offset, uint64_t len)
{
    return offset <= s->file.len && len <= s->file.len - offset ? s->file.data + offset : NULL;
}

/* What is needed of a section, in one form for both classes. */
struct section {
    uint32_t type, link;
    uint64_t offset, size, entry;
};

static bool section_get(const struct symbols *s, uint64_t n, struct section *out)
{
    bool wide = s->file.data[EI_CLASS] == ELFCLASS64;
    if (wide) {
        Elf64_Ehdr h;
        Elf64_Shdr sh;
        memcpy(&h, s->file.data, sizeof h);
        const void *p = n < h.e_shnum && h.e_shentsize >= sizeof sh && h.e_shoff <= s->file.len
                            ? part(s, h.e_shoff + n * h.e_shentsize, sizeof sh)
                            : NULL;
        if (!p)
            return false;
        memcpy(&sh, p, sizeof sh);
        *out = (struct section){sh.sh_type, sh.sh_link, sh.sh_offset, sh.sh_size, sizeof(Elf64_Sym)};
        return true;
    }
    Elf32_Ehdr h;
    Elf32_Shdr sh;
    memcpy(&h, s->file.data, sizeof h);
    const void *p =
        n < h.e_shnum && h.e_shentsize >= sizeof sh ? part(s, h.e_shoff + n * h.e_shentsize, sizeof sh) : NULL;
    if (!p)
        return false;
    memcpy(&sh, p, sizeof sh);
    *out = (struct section){sh.sh_type, sh.sh_link, sh.sh_offset, sh.sh_size, sizeof(Elf32_Sym)};
    return true;
}

static Elf64_Sym sym_get(const struct symbols *s, const uint8_t *table, uint64_t n)
{
    Elf64_Sym sym;
    Elf32_Sym narrow;
    if (s->file.data[EI_CLASS] == ELFCLASS64) {
        memcpy(&sym, table + n * sizeof sym, sizeof sym);
        return sym;
    }
    memcpy(&narrow, table + n * sizeof narrow, sizeof narrow);
    return (Elf64_Sym){.st_name = narrow.st_name,
                       .st_info = narrow.st_info,
                       .st_shndx = narrow.st_shndx,
                       .st_value = narrow.st_value,
                       .st_size = narrow.st_size};
}

/* Functions, objects and labels with a name that ends inside the string table. */
static bool is_wanted(const Elf64_Sym *sym, const struct section *strings, const char *names)
{
    unsigned type = ELF64_ST_TYPE(sym->st_info);
    if (type != STT_FUNC && type != STT_OBJECT && type != STT_NOTYPE)
        return false;
    return sym->st_shndx != SHN_UNDEF && sym->st_name && sym->st_name < strings->size &&
           memchr(names + sym->st_name, 0, strings->size - sym->st_name) && names[sym->st_name];
}

static void table_add(struct symbols *s, const struct section *table, const struct section *strings)
{
    const uint8_t *syms = part(s, table->offset, table->size);
    const char *names = part(s, strings->offset, strings->size);
    uint64_t n = table->size / table->entry;
    struct symbol *list = syms && names && n ? realloc(s->list, (s->count + n) * sizeof *list) : NULL;
    if (!list)
        return;
    s->list = list;
    for (uint64_t k = 0; k < n; k++) {
        Elf64_Sym sym = sym_get(s, syms, k);
        if (is_wanted(&sym, strings, names))
            s->list[s->count++] = (struct symbol){sym.st_value, sym.st_size, names + sym.st_name};
    }
}

static int by_address(const void *a, const void *b)
{
    const struct symbol *x = a, *y = b;
    if (x->address != y->address)
        return x->address < y->address ? -1 : 1;
    return x->size != y->size ? (x->size < y->size ? -1 : 1) : strcmp(x->name, y->name);
}

static bool is_elf(const struct file *f)
{
    return f->len >= sizeof(Elf64_Ehdr) && !memcmp(f->data, ELFMAG, SELFMAG) && f->data[EI_DATA] == ELFDATA2LSB &&
           (f->data[EI_CLASS] == ELFCLASS64 || f->data[EI_CLASS] == ELFCLASS32);
}

bool symbols_load(struct symbols *s, const char *path, struct error *e)
{
    struct section table, strings;
    *s = (struct symbols){0};
    if (!file_read(&s->file, path, e))
        return false;
    if (!is_elf(&s->file)) {
        symbols_free(s);
        return error_set(e, "-symbols %s: not an ELF image", path);
    }
    for (uint64_t n = 0; section_get(s, n, &table); n++)
        if (table.type == SHT_SYMTAB && section_get(s, table.link, &strings))
            table_add(s, &table, &strings);
    if (!s->count) {
        symbols_free(s);
        return error_set(e, "-symbols %s: no symbols in it", path);
    }
    qsort(s->list, s->count, sizeof *s->list, by_address);
    return true;
}

void symbols_free(struct symbols *s)
{
    free(s->list);
    file_free(&s->file);
    *s = (struct symbols){0};
}

const struct symbol *symbols_find(const struct symbols *s, const char *name)
{
    for (size_t k = 0; k < s->count; k++)
        if (!strcmp(s->list[k].name, name))
            return &s->list[k];
    return NULL;
}

/* Index of the last symbol at or below the address, or count. */
static size_t last_below(const struct symbols *s, uint64_t address)
{
    size_t low = 0, high = s->count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (s->list[mid].address <= address)
            low = mid + 1;
        else
            high = mid;
    }
    return low ? low - 1 : s->count;
}

char *symbols_name(const struct symbols *s, uint64_t address, char *buf, size_t size)
{
    size_t k = last_below(s, address);
    buf[0] = 0;
    if (k == s->count)
        return buf;
    uint64_t offset = address - s->list[k].address;
    if (offset >= (s->list[k].size ? s->list[k].size : NEAR))
        return buf;
    if (offset)
        snprintf(buf, size, "%s+0x%" PRIx64, s->list[k].name, offset);
    else
        snprintf(buf, size, "%s", s->list[k].name);
    return buf;
}
