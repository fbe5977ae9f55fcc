#include "frontends/machine/vga_rom.h"

#include "core/types.h"

#include <string.h>

#define GLYPHS 256

bool vga_rom_find(struct file *f)
{
    static const char *const places[] = {"/usr/share/seabios/vgabios-stdvga.bin", "/usr/share/qemu/vgabios-stdvga.bin",
                                         "/usr/share/qemu/firmware/vgabios-stdvga.bin"};
    struct error e;
    for (size_t k = 0; k < ARRAY_LEN(places); k++)
        if (file_read(f, places[k], &e))
            return true;
    *f = (struct file){0};
    return false;
}

/* Character 0 is blank, character 1 the outlined smiling face, character 2 the filled one. */
static bool looks_like_font(const uint8_t *p, unsigned height)
{
    static const uint8_t face[] = {0x7e, 0x81, 0xa5, 0x81};
    unsigned top = height == 8 ? 0 : height == 14 ? 2 : 2;
    for (unsigned k = 0; k < height; k++)
        if (p[k])
            return false;
    return !memcmp(p + height + top, face, sizeof face) && p[2 * height + top] == 0x7e &&
           p[2 * height + top + 1] == 0xff;
}

const uint8_t *vga_rom_font(const struct file *f, unsigned height)
{
    size_t len = (size_t)GLYPHS * height;
    for (size_t at = 0; at + len <= f->len; at++)
        if (looks_like_font(f->data + at, height))
            return f->data + at;
    return NULL;
}
