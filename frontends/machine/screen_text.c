/* The text on the machine's screen. */
#include "devices/vga/vga_draw.h"
#include "frontends/machine/machine.h"
#include "frontends/machine/screen.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Code page 437; what are control characters elsewhere are the pictures that a VGA shows. */
static const uint16_t cp437_low[32] = {0x0020, 0x263a, 0x263b, 0x2665, 0x2666, 0x2663, 0x2660, 0x2022,
                                       0x25d8, 0x25cb, 0x25d9, 0x2642, 0x2640, 0x266a, 0x266b, 0x263c,
                                       0x25ba, 0x25c4, 0x2195, 0x203c, 0x00b6, 0x00a7, 0x25ac, 0x21a8,
                                       0x2191, 0x2193, 0x2192, 0x2190, 0x221f, 0x2194, 0x25b2, 0x25bc};
static const uint16_t cp437_high[129] = {
    0x2302, 0x00c7, 0x00fc, 0x00e9, 0x00e2, 0x00e4, 0x00e0, 0x00e5, 0x00e7, 0x00ea, 0x00eb, 0x00e8, 0x00ef,
    0x00ee, 0x00ec, 0x00c4, 0x00c5, 0x00c9, 0x00e6, 0x00c6, 0x00f4, 0x00f6, 0x00f2, 0x00fb, 0x00f9, 0x00ff,
    0x00d6, 0x00dc, 0x00a2, 0x00a3, 0x00a5, 0x20a7, 0x0192, 0x00e1, 0x00ed, 0x00f3, 0x00fa, 0x00f1, 0x00d1,
    0x00aa, 0x00ba, 0x00bf, 0x2310, 0x00ac, 0x00bd, 0x00bc, 0x00a1, 0x00ab, 0x00bb, 0x2591, 0x2592, 0x2593,
    0x2502, 0x2524, 0x2561, 0x2562, 0x2556, 0x2555, 0x2563, 0x2551, 0x2557, 0x255d, 0x255c, 0x255b, 0x2510,
    0x2514, 0x2534, 0x252c, 0x251c, 0x2500, 0x253c, 0x255e, 0x255f, 0x255a, 0x2554, 0x2569, 0x2566, 0x2560,
    0x2550, 0x256c, 0x2567, 0x2568, 0x2564, 0x2565, 0x2559, 0x2558, 0x2552, 0x2553, 0x256b, 0x256a, 0x2518,
    0x250c, 0x2588, 0x2584, 0x258c, 0x2590, 0x2580, 0x03b1, 0x00df, 0x0393, 0x03c0, 0x03a3, 0x03c3, 0x00b5,
    0x03c4, 0x03a6, 0x0398, 0x03a9, 0x03b4, 0x221e, 0x03c6, 0x03b5, 0x2229, 0x2261, 0x00b1, 0x2265, 0x2264,
    0x2320, 0x2321, 0x00f7, 0x2248, 0x00b0, 0x2219, 0x00b7, 0x221a, 0x207f, 0x00b2, 0x25a0, 0x00a0};

static uint16_t unicode_of(uint8_t c)
{
    return c < 32 ? cp437_low[c] : c < 127 ? c : c == 0xff ? ' ' : cp437_high[c - 127];
}

/* ---- lines of text ---- */

struct lines {
    char *text;
    size_t len, room;
    size_t keep; /* up to the last line that is not empty, its newline included */
    bool failed;
};

static void put(struct lines *l, const char *bytes, size_t n)
{
    if (l->len + n + 1 > l->room) {
        size_t room = (l->len + n + 1) * 2;
        char *grown = realloc(l->text, room);
        l->failed |= !grown;
        if (!grown)
            return;
        l->text = grown;
        l->room = room;
    }
    memcpy(l->text + l->len, bytes, n);
    l->len += n;
}

static void put_unicode(struct lines *l, uint16_t u)
{
    char b[3] = {(char)(0xe0 | u >> 12), (char)(0x80 | (u >> 6 & 63)), (char)(0x80 | (u & 63))};
    if (u < 0x80) {
        b[0] = (char)u;
        put(l, b, 1);
    } else if (u < 0x800) {
        b[1] = (char)(0xc0 | u >> 6);
        put(l, b + 1, 2);
    } else {
        put(l, b, 3);
    }
}

/* A row of character codes. */
static void put_row(struct lines *l, const uint8_t *codes, unsigned n)
{
    while (n && (codes[n - 1] == ' ' || !codes[n - 1] || codes[n - 1] == 0xff))
        n--;
    for (unsigned k = 0; k < n; k++)
        put_unicode(l, unicode_of(codes[k]));
    put(l, "\n", 1);
    if (n)
        l->keep = l->len;
}

static char *lines_finish(struct lines *l)
{
    if (l->failed || (!l->text && !(l->text = malloc(1)))) {
        free(l->text);
        return NULL;
    }
    l->text[l->keep] = 0;
    return l->text;
}

/* ---- text modes ---- */

static void read_cells(const struct vga_view *w, struct lines *l)
{
    uint8_t codes[256];
    for (unsigned row = 0; row < w->rows; row++) {
        for (unsigned k = 0; k < w->columns; k++)
            codes[k] = (uint8_t)vga_view_cell(w, row, k);
        put_row(l, codes, w->columns);
    }
}

/* ---- graphics modes: glyphs on their grid ---- */

struct glyphs {
    unsigned height;
    uint8_t bits[256][16];
    uint16_t next[256]; /* of the same hash: index + 1 */
    uint16_t first[256];
};

static unsigned glyph_hash(const uint8_t *bits, unsigned height)
{
    unsigned h = 0;
    for (unsigned k = 0; k < height; k++)
        h = h * 31 + bits[k];
    return (h ^ h >> 8) & 0xff;
}

static void glyphs_add(struct glyphs *g, unsigned code)
{
    unsigned h = glyph_hash(g->bits[code], g->height);
    g->next[code] = g->first[h];
    g->first[h] = (uint16_t)(code + 1);
}

static bool glyphs_take(struct glyphs *g, const struct file *rom, unsigned height)
{
    const uint8_t *font = vga_rom_font(rom, height);
    memset(g, 0, sizeof *g);
    g->height = height;
    for (unsigned k = 0; font && k < 256; k++)
        memcpy(g->bits[k], font + k * height, height);
    for (unsigned k = 255; font && k > 32; k--) /* printable ones are found first */
        glyphs_add(g, k);
    return font != NULL;
}

/* The character whose glyph is `bits`, or 0. */
static uint8_t glyph_find(const struct glyphs *g, const uint8_t *bits)
{
    for (unsigned k = g->first[glyph_hash(bits, g->height)]; k; k = g->next[k - 1])
        if (!memcmp(g->bits[k - 1], bits, g->height))
            return (uint8_t)(k - 1);
    return 0;
}

/* The cell as dots that differ from its top left pixel; false: more than two colours. */
static bool cell_bits(const struct screen_picture *p, unsigned x, unsigned y, unsigned height, uint8_t *bits)
{
    uint32_t ground = p->pixels[(size_t)y * p->width + x], ink = ground;
    for (unsigned k = 0; k < height; k++) {
        const uint32_t *row = p->pixels + (size_t)(y + k) * p->width + x;
        bits[k] = 0;
        for (unsigned b = 0; b < 8; b++) {
            if (row[b] == ground)
                continue;
            if (ink == ground)
                ink = row[b];
            if (row[b] != ink)
                return false;
            bits[k] |= (uint8_t)(0x80 >> b);
        }
    }
    return true;
}

static uint8_t cell_read(const struct screen_picture *p, const struct glyphs *g, unsigned x, unsigned y)
{
    static const uint8_t blank[16] = {0};
    uint8_t bits[16];
    if (!cell_bits(p, x, y, g->height, bits) || !memcmp(bits, blank, g->height))
        return ' ';
    uint8_t c = glyph_find(g, bits);
    for (unsigned k = 0; !c && k < g->height; k++) /* the corner may be ink */
        bits[k] = (uint8_t)~bits[k];
    return c ? c : (c = glyph_find(g, bits)) ? c : ' ';
}

/* The picture on a grid of this font that begins `shift` rows down; how many glyphs were found. */
static unsigned read_grid(const struct screen_picture *p, const struct glyphs *g, unsigned shift, struct lines *l)
{
    uint8_t codes[VGA_WIDTH_MAX / 8];
    unsigned found = 0, columns = p->width / 8;
    for (unsigned y = shift; y + g->height <= p->height; y += g->height) {
        for (unsigned k = 0; k < columns; k++) {
            codes[k] = cell_read(p, g, 8 * k, y);
            found += codes[k] != ' ';
        }
        if (l)
            put_row(l, codes, columns);
    }
    return found;
}

/* Of the ROM's fonts and their offsets that which explains most of the picture. */
static void read_picture(const struct machine *m, struct lines *l)
{
    static const unsigned heights[] = {16, 14, 8};
    struct screen_picture p;
    struct glyphs g;
    unsigned best = 0, best_height = 0, best_shift = 0;
    if (!machine_picture(m, &p)) {
        l->failed = true;
        return;
    }
    for (unsigned k = 0; k < ARRAY_LEN(heights); k++) {
        if (!glyphs_take(&g, &m->vga_rom, heights[k]))
            continue;
        for (unsigned shift = 0; shift < heights[k]; shift++) {
            unsigned n = read_grid(&p, &g, shift, NULL) * heights[k];
            if (n > best) {
                best = n;
                best_height = heights[k];
                best_shift = shift;
            }
        }
    }
    if (best && glyphs_take(&g, &m->vga_rom, best_height))
        read_grid(&p, &g, best_shift, l);
    screen_picture_free(&p);
}

char *machine_screentext(const struct machine *m)
{
    struct lines l = {0};
    struct vga_view *w = m->cfg.no_vga ? NULL : malloc(sizeof *w);
    if (w) {
        vga_view_take(&m->board.vga, w);
        if (w->kind == VGA_TEXT)
            read_cells(w, &l);
        else if (w->kind != VGA_BLANK)
            read_picture(m, &l);
    }
    free(w);
    return lines_finish(&l);
}

bool machine_screentext_write(const struct machine *m, const char *path, struct error *e)
{
    char *text = machine_screentext(m);
    FILE *out = text ? fopen(path, "w") : NULL;
    if (!text)
        return error_set(e, "out of memory");
    bool ok = out && fputs(text, out) >= 0;
    if (out && fclose(out))
        ok = false;
    free(text);
    return ok || error_set(e, "cannot write '%s': %s", path, strerror(errno));
}

/* ---- cells, for a terminal ---- */

static void cursor_find(const struct vga_view *w, struct screen_text *t)
{
    for (unsigned row = 0; row < w->rows; row++) {
        uint32_t from = vga_view_line(w, row * w->cell_height).at;
        if (w->cursor == VGA_NO_CURSOR || w->cursor < from || w->cursor - from >= w->columns)
            continue;
        t->cursor = true;
        t->cursor_row = row;
        t->cursor_column = w->cursor - from;
    }
}

bool machine_text_cells(const struct machine *m, struct screen_text *out)
{
    *out = (struct screen_text){0};
    struct vga_view *w = m->cfg.no_vga ? NULL : malloc(sizeof *w);
    if (!w)
        return m->cfg.no_vga;
    vga_view_take(&m->board.vga, w);
    out->is_text = w->kind == VGA_TEXT;
    out->columns = w->columns;
    out->rows = w->rows;
    out->cells = out->is_text ? calloc((size_t)w->columns * w->rows + 1, sizeof *out->cells) : NULL;
    for (unsigned k = 0; out->cells && k < w->columns * w->rows; k++) {
        uint16_t c = vga_view_cell(w, k / w->columns, k % w->columns);
        out->cells[k] = (struct screen_cell){unicode_of((uint8_t)c), (uint8_t)(c >> 8)};
    }
    if (out->cells)
        cursor_find(w, out);
    bool ok = !out->is_text || out->cells;
    free(w);
    return ok;
}

void screen_text_free(struct screen_text *t)
{
    free(t->cells);
    t->cells = NULL;
}
