#include "frontends/machine/png.h"

#include <errno.h>
#include <png.h>
#include <stdlib.h>
#include <string.h>

/* libpng wants its setjmp() in a function without variables that change behind it. */
static bool write_image(png_structp png, png_infop info, FILE *out, const struct screen_picture *p, uint8_t *row)
{
    if (setjmp(png_jmpbuf(png)))
        return false;
    png_init_io(png, out);
    png_set_compression_level(png, 6);
    png_set_IHDR(png, info, p->width, p->height, 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(png, info);
    for (unsigned y = 0; y < p->height; y++) {
        const uint32_t *from = p->pixels + (size_t)y * p->width;
        for (unsigned x = 0; x < p->width; x++) {
            row[3 * x] = (uint8_t)(from[x] >> 16);
            row[3 * x + 1] = (uint8_t)(from[x] >> 8);
            row[3 * x + 2] = (uint8_t)from[x];
        }
        png_write_row(png, row);
    }
    png_write_end(png, NULL);
    return true;
}

static bool write_file(FILE *out, const struct screen_picture *p)
{
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    uint8_t *row = malloc((size_t)p->width * 3 + 1);
    bool ok = info && row && write_image(png, info, out, p, row);
    free(row);
    png_destroy_write_struct(&png, &info);
    return ok;
}

bool png_write(const struct screen_picture *p, const char *path, struct error *e)
{
    char part[4096];
    if ((size_t)snprintf(part, sizeof part, "%s.part", path) >= sizeof part)
        return error_set(e, "cannot write '%s': the name is too long", path);
    FILE *out = fopen(part, "wb");
    if (!out)
        return error_set(e, "cannot write '%s': %s", path, strerror(errno));
    bool ok = write_file(out, p);
    ok = !fclose(out) && ok;
    if (ok && !rename(part, path))
        return true;
    error_set(e, "cannot write '%s': %s", path, errno ? strerror(errno) : "libpng failed");
    remove(part);
    return false;
}
