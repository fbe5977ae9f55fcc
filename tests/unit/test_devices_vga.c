/* The display adapter: its data path by planes, its registers, and the pictures of its modes. */
#include "devices_rig.h"

#include "devices/vga/vga_draw.h"

#include <stdlib.h>

struct rig {
    struct vclock clock;
    uint8_t *memory;
    unsigned mappings; /* changes that the adapter told of */
    struct vga vga;
    struct vga_view view;
};

static enum mem_result memory_access(void *ctx, unsigned as, gpa_t at, void *buf, size_t len, enum mem_kind kind,
                                     bool write)
{
    struct rig *g = ctx;
    ck_assert(at <= VGA_VRAM_BYTES && len <= VGA_VRAM_BYTES - at);
    if (write)
        memcpy(g->memory + at, buf, len);
    else
        memcpy(buf, g->memory + at, len);
    return MEM_OK;
}

static void mapping_changed(void *ctx)
{
    ((struct rig *)ctx)->mappings++;
}

static struct rig *rig_new(void)
{
    struct rig *g = calloc(1, sizeof(*g));
    ck_assert_ptr_nonnull(g);
    g->memory = calloc(1, VGA_VRAM_BYTES);
    ck_assert_ptr_nonnull(g->memory);
    clock_init(&g->clock);
    vga_init(&g->vga, &(struct vga_config){.clock = &g->clock,
                                           .vram = {.ctx = g, .access = memory_access},
                                           .mapping_changed = mapping_changed,
                                           .ctx = g});
    return g;
}

static void rig_free(struct rig *g)
{
    vga_fini(&g->vga);
    free(g->memory);
    free(g);
}

static void out8(struct rig *g, unsigned port, uint8_t v)
{
    reg_write(&vga_ports_bus_ops, &g->vga, port - 0x3c0, 1, v);
}

static uint8_t in8(struct rig *g, unsigned port)
{
    return (uint8_t)reg_read(&vga_ports_bus_ops, &g->vga, port - 0x3c0, 1);
}

/* An indexed register: the index port's next is the data. */
static void set(struct rig *g, unsigned port, uint8_t n, uint8_t v)
{
    reg_write(&vga_ports_bus_ops, &g->vga, port - 0x3c0, 2, n | v << 8);
}

static void set_attr(struct rig *g, uint8_t n, uint8_t v)
{
    in8(g, 0x3da);
    out8(g, 0x3c0, n);
    out8(g, 0x3c0, v);
    out8(g, 0x3c0, 0x20);
}

static void dispi(struct rig *g, uint16_t n, uint16_t v)
{
    reg_write(&vga_dispi_bus_ops, &g->vga, 0, 2, n);
    reg_write(&vga_dispi_bus_ops, &g->vga, 1, 2, v);
}

static uint16_t dispi_get(struct rig *g, uint16_t n)
{
    reg_write(&vga_dispi_bus_ops, &g->vga, 0, 2, n);
    return (uint16_t)reg_read(&vga_dispi_bus_ops, &g->vga, 1, 2);
}

static void poke(struct rig *g, uint32_t gpa, uint8_t v)
{
    reg_write(&vga_window_bus_ops, &g->vga, gpa - 0xa0000, 1, v);
}

static uint8_t peek(struct rig *g, uint32_t gpa)
{
    return (uint8_t)reg_read(&vga_window_bus_ops, &g->vga, gpa - 0xa0000, 1);
}

/* A mode as a BIOS sets it. */
struct mode {
    uint8_t misc, seq[5], crtc[25], gr[9];
};

static const struct mode mode12 = {0xe3,
                                   {0x03, 0x01, 0x0f, 0x00, 0x06},
                                   {0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0x0b, 0x3e, 0x00, 0x40, 0x00, 0x00, 0x00,
                                    0x00, 0x00, 0x00, 0xea, 0x8c, 0xdf, 0x28, 0x00, 0xe7, 0x04, 0xe3, 0xff},
                                   {0, 0, 0, 0, 0, 0, 0x05, 0x0f, 0xff}};
static const struct mode mode13 = {0x63,
                                   {0x03, 0x01, 0x0f, 0x00, 0x0e},
                                   {0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0xbf, 0x1f, 0x00, 0x41, 0x00, 0x00, 0x00,
                                    0x00, 0x00, 0x00, 0x9c, 0x8e, 0x8f, 0x28, 0x40, 0x96, 0xb9, 0xa3, 0xff},
                                   {0, 0, 0, 0, 0, 0x40, 0x05, 0x0f, 0xff}};
static const struct mode mode4 = {0x63,
                                  {0x03, 0x09, 0x03, 0x00, 0x02},
                                  {0x2d, 0x27, 0x28, 0x90, 0x2b, 0x80, 0xbf, 0x1f, 0x00, 0xc1, 0x00, 0x00, 0x00,
                                   0x00, 0x00, 0x00, 0x9c, 0x8e, 0x8f, 0x14, 0x00, 0x96, 0xb9, 0xa2, 0xff},
                                  {0, 0, 0, 0, 0, 0x30, 0x0f, 0x0f, 0xff}};
static const struct mode mode6 = {0x63,
                                  {0x03, 0x01, 0x01, 0x00, 0x06},
                                  {0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0xbf, 0x1f, 0x00, 0xc1, 0x00, 0x00, 0x00,
                                   0x00, 0x00, 0x00, 0x9c, 0x8e, 0x8f, 0x28, 0x00, 0x96, 0xb9, 0xc2, 0xff},
                                  {0, 0, 0, 0, 0, 0x00, 0x0d, 0x0f, 0xff}};

static void set_mode(struct rig *g, const struct mode *m)
{
    out8(g, 0x3c2, m->misc);
    for (uint8_t k = 0; k < 5; k++)
        set(g, 0x3c4, k, m->seq[k]);
    set(g, 0x3d4, 0x11, 0);
    for (uint8_t k = 0; k < 25; k++)
        set(g, 0x3d4, k, m->crtc[k]);
    for (uint8_t k = 0; k < 9; k++)
        set(g, 0x3ce, k, m->gr[k]);
    for (uint8_t k = 0; k < 16; k++)
        set_attr(g, k, k);
    set_attr(g, 0x10, 1);
    set_attr(g, 0x12, 0x0f);
    set_attr(g, 0x13, 0);
}

/* DAC register n: red n, green 2n, blue 3n, all in six bits. */
static void ramp(struct rig *g)
{
    out8(g, 0x3c8, 0);
    for (unsigned n = 0; n < 256; n++) {
        out8(g, 0x3c9, n & 63);
        out8(g, 0x3c9, n * 2 & 63);
        out8(g, 0x3c9, n * 3 & 63);
    }
}

static uint32_t ramp_colour(unsigned n)
{
    uint32_t c = 0;
    for (unsigned k = 1; k <= 3; k++) {
        unsigned x = n * k & 63;
        c = c << 8 | (x << 2 | x >> 4);
    }
    return c;
}

static uint32_t pixel(struct rig *g, unsigned x, unsigned y)
{
    static const unsigned room = VGA_WIDTH_MAX;
    uint32_t *row = calloc(room, sizeof *row);
    vga_view_take(&g->vga, &g->view);
    ck_assert_uint_lt(x, g->view.width);
    ck_assert_uint_lt(y, g->view.height);
    vga_view_draw(&g->view, y, 1, row);
    uint32_t c = row[x];
    free(row);
    return c;
}

static void expect_size(struct rig *g, enum vga_kind kind, unsigned width, unsigned height)
{
    vga_view_take(&g->vga, &g->view);
    ck_assert_int_eq(g->view.kind, kind);
    ck_assert_uint_eq(g->view.width, width);
    ck_assert_uint_eq(g->view.height, height);
}

/* ---- planes ---- */

START_TEST(write_modes_and_latches_work_on_four_planes)
{
    struct rig *g = rig_new();
    set_mode(g, &mode12);
    set(g, 0x3c4, 2, 0x5);
    poke(g, 0xa0010, 0x3c); /* planes 0 and 2 */
    ck_assert_mem_eq(g->memory + 0x40, "\x3c\x00\x3c\x00", 4);
    set(g, 0x3c4, 2, 0xf);
    set(g, 0x3ce, 5, 1); /* mode 1 copies latches */
    peek(g, 0xa0010);
    poke(g, 0xa0011, 0xff);
    ck_assert_mem_eq(g->memory + 0x44, "\x3c\x00\x3c\x00", 4);
    set(g, 0x3ce, 5, 2); /* mode 2: a colour under the bit mask */
    set(g, 0x3ce, 8, 0x0f);
    peek(g, 0xa0010);
    poke(g, 0xa0010, 0x9);
    ck_assert_mem_eq(g->memory + 0x40, "\x3f\x00\x30\x0f", 4);
    set(g, 0x3ce, 5, 3); /* mode 3: set/reset where data and mask are set */
    set(g, 0x3ce, 8, 0xff);
    set(g, 0x3ce, 0, 0x6);
    peek(g, 0xa0020);
    poke(g, 0xa0020, 0x81);
    ck_assert_mem_eq(g->memory + 0x80, "\x00\x81\x81\x00", 4);
    rig_free(g);
}
END_TEST

START_TEST(rotation_logic_and_set_reset_of_write_mode_0)
{
    struct rig *g = rig_new();
    set_mode(g, &mode12);
    memcpy(g->memory, "\xf0\xf0\xf0\xf0", 4);
    set(g, 0x3ce, 3, 0x18 | 4); /* XOR, rotate right by 4 */
    peek(g, 0xa0000);
    poke(g, 0xa0000, 0x12);
    ck_assert_mem_eq(g->memory, "\xd1\xd1\xd1\xd1", 4);
    set(g, 0x3ce, 3, 0);
    set(g, 0x3ce, 0, 0x3);
    set(g, 0x3ce, 1, 0x5); /* planes 0 and 2 from set/reset: ones and zeros */
    poke(g, 0xa0000, 0xaa);
    ck_assert_mem_eq(g->memory, "\xff\xaa\x00\xaa", 4);
    rig_free(g);
}
END_TEST

START_TEST(read_modes_select_a_plane_or_compare_colours)
{
    struct rig *g = rig_new();
    set_mode(g, &mode12);
    memcpy(g->memory, "\x81\x42\x24\x18", 4);
    for (uint8_t p = 0; p < 4; p++) {
        set(g, 0x3ce, 4, p);
        ck_assert_uint_eq(peek(g, 0xa0000), g->memory[p]);
    }
    set(g, 0x3ce, 5, 8);
    set(g, 0x3ce, 2, 0x1);
    set(g, 0x3ce, 7, 0xf);
    ck_assert_uint_eq(peek(g, 0xa0000), 0x81);
    set(g, 0x3ce, 7, 0x0); /* no plane counts: every pixel matches */
    ck_assert_uint_eq(peek(g, 0xa0000), 0xff);
    rig_free(g);
}
END_TEST

START_TEST(odd_even_and_chain_4_addressing)
{
    struct rig *g = rig_new();
    vga_set_text_mode(&g->vga, NULL);
    poke(g, 0xb8002, 'A');
    poke(g, 0xb8003, 0x1e);
    ck_assert_mem_eq(g->memory + 4, "A\x1e", 2);
    ck_assert_uint_eq(peek(g, 0xb8002), 'A');
    ck_assert_uint_eq(peek(g, 0xb8003), 0x1e);
    ck_assert_uint_eq(peek(g, 0xa0000), 0xff); /* not decoded in this mode */
    poke(g, 0xa0000, 0);
    set_mode(g, &mode13);
    poke(g, 0xa1235, 0x77);
    ck_assert_uint_eq(g->memory[0x1235], 0x77);
    ck_assert_uint_eq(peek(g, 0xa1235), 0x77);
    rig_free(g);
}
END_TEST

START_TEST(the_window_is_plain_memory_exactly_while_bytes_pass_through)
{
    struct rig *g = rig_new();
    set_mode(g, &mode12);
    ck_assert_uint_eq(vga_plain_window(&g->vga), VGA_NO_WINDOW);
    unsigned before = g->mappings;
    set_mode(g, &mode13);
    ck_assert_uint_eq(vga_plain_window(&g->vga), 0);
    ck_assert_uint_gt(g->mappings, before);
    static const struct {
        uint16_t port;
        uint8_t n, v, back;
    } ends[] = {{0x3c4, 2, 0x7, 0xf},   {0x3c4, 4, 0x6, 0xe},   {0x3ce, 3, 1, 0},
                {0x3ce, 5, 0x41, 0x40}, {0x3ce, 8, 0xfe, 0xff}, {0x3ce, 1, 1, 0}};
    for (unsigned k = 0; k < ARRAY_LEN(ends); k++) {
        set(g, ends[k].port, ends[k].n, ends[k].v);
        ck_assert_msg(vga_plain_window(&g->vga) == VGA_NO_WINDOW, "register %u of 0x%x", ends[k].n, ends[k].port);
        set(g, ends[k].port, ends[k].n, ends[k].back);
        ck_assert_uint_eq(vga_plain_window(&g->vga), 0);
    }
    dispi(g, VGA_DISPI_XRES, 640);
    dispi(g, VGA_DISPI_YRES, 480);
    dispi(g, VGA_DISPI_ENABLE, VGA_DISPI_ENABLED);
    dispi(g, VGA_DISPI_BANK, 3);
    ck_assert_uint_eq(vga_plain_window(&g->vga), 0x30000);
    poke(g, 0xa0004, 9);
    ck_assert_uint_eq(g->memory[0x30004], 9);
    dispi(g, VGA_DISPI_ENABLE, VGA_DISPI_ENABLED | VGA_DISPI_LFB);
    ck_assert_uint_eq(vga_plain_window(&g->vga), VGA_NO_WINDOW);
    rig_free(g);
}
END_TEST

/* ---- pictures ---- */

START_TEST(mode_12h_has_sixteen_colours_and_hides_planes)
{
    struct rig *g = rig_new();
    set_mode(g, &mode12);
    ramp(g);
    expect_size(g, VGA_PLANAR, 640, 480);
    memcpy(g->memory + (80 * 7 + 2) * 4, "\x80\x40\xc0\x80", 4);
    ck_assert_uint_eq(pixel(g, 16, 7), ramp_colour(13));
    ck_assert_uint_eq(pixel(g, 17, 7), ramp_colour(6));
    ck_assert_uint_eq(pixel(g, 18, 7), ramp_colour(0));
    set_attr(g, 0x12, 0x07);
    ck_assert_uint_eq(pixel(g, 16, 7), ramp_colour(5));
    set(g, 0x3d4, 0x0d, 80); /* start a row later, pan by one */
    set_attr(g, 0x13, 1);
    ck_assert_uint_eq(pixel(g, 15, 6), ramp_colour(5));
    rig_free(g);
}
END_TEST

START_TEST(the_line_compare_splits_the_screen)
{
    struct rig *g = rig_new();
    set_mode(g, &mode12);
    ramp(g);
    set(g, 0x3d4, 0x0c, 0x40); /* page at 0x4000 above, page 0 below row 100 */
    set(g, 0x3d4, 7, mode12.crtc[7] & ~0x10);
    set(g, 0x3d4, 9, 0);
    set(g, 0x3d4, 0x18, 99);
    memset(g->memory + 0x4000 * 4, 0xff, 4);
    memcpy(g->memory, "\xff\x00\x00\x00", 4);
    ck_assert_uint_eq(pixel(g, 0, 0), ramp_colour(15));
    ck_assert_uint_eq(pixel(g, 0, 99), ramp_colour(0));
    ck_assert_uint_eq(pixel(g, 0, 100), ramp_colour(1));
    rig_free(g);
}
END_TEST

START_TEST(mode_13h_and_x_modes_have_256_colours)
{
    struct rig *g = rig_new();
    set_mode(g, &mode13);
    ramp(g);
    expect_size(g, VGA_PACKED, 320, 200);
    for (unsigned x = 0; x < 256; x++)
        g->memory[320 * 5 + x] = (uint8_t)x;
    for (unsigned x = 0; x < 256; x += 51)
        ck_assert_uint_eq(pixel(g, x, 5), ramp_colour(x));
    out8(g, 0x3c6, 0x0f);
    ck_assert_uint_eq(pixel(g, 0xf3, 5), ramp_colour(3));
    out8(g, 0x3c6, 0xff);
    set(g, 0x3c4, 4, 0x06); /* unchained, bytes, 400 lines */
    set(g, 0x3d4, 0x14, 0);
    set(g, 0x3d4, 0x17, 0xe3);
    set(g, 0x3d4, 9, 0x40);
    expect_size(g, VGA_PACKED, 320, 400);
    set(g, 0x3c4, 2, 0x4);
    poke(g, 0xa0000 + 80 * 300 + 10, 77);
    ck_assert_uint_eq(pixel(g, 42, 300), ramp_colour(77));
    rig_free(g);
}
END_TEST

START_TEST(cga_modes_interleave_their_rows)
{
    struct rig *g = rig_new();
    set_mode(g, &mode4);
    ramp(g);
    expect_size(g, VGA_CGA, 320, 200);
    poke(g, 0xb8000, 0x1b);               /* row 0: colours 0 1 2 3 */
    poke(g, 0xb8000 + 0x2000 + 80, 0xe4); /* row 3: 3 2 1 0 */
    for (unsigned x = 0; x < 4; x++) {
        ck_assert_uint_eq(pixel(g, x, 0), ramp_colour(x));
        ck_assert_uint_eq(pixel(g, x, 3), ramp_colour(3 - x));
    }
    memset(g->memory, 0, 0x40000);
    set_mode(g, &mode6);
    ramp(g);
    set_attr(g, 0x12, 1);
    expect_size(g, VGA_PLANAR, 640, 200);
    poke(g, 0xb8000 + 0x2000 + 1, 0x80);
    ck_assert_uint_eq(pixel(g, 8, 1), ramp_colour(1));
    ck_assert_uint_eq(pixel(g, 9, 1), ramp_colour(0));
    rig_free(g);
}
END_TEST

static uint8_t *font_with(uint8_t c, uint8_t row)
{
    uint8_t *font = calloc(256, 16);
    memset(font + c * 16, row, 16);
    return font;
}

START_TEST(text_has_colours_nine_dots_blinking_and_a_cursor)
{
    struct rig *g = rig_new();
    uint8_t *font = font_with(0xc4, 0x01);
    memset(font + 'H' * 16, 0x80, 16);
    vga_set_text_mode(&g->vga, font);
    out8(g, 0x3c8, 0);
    ramp(g);
    expect_size(g, VGA_TEXT, 720, 400);
    poke(g, 0xb8000, 'H');
    poke(g, 0xb8001, 0x1f);
    poke(g, 0xb8002, 0xc4);
    poke(g, 0xb8003, 0x1f);
    ck_assert_uint_eq(pixel(g, 0, 0), ramp_colour(0x3f));
    ck_assert_uint_eq(pixel(g, 1, 0), ramp_colour(1));
    ck_assert_uint_eq(pixel(g, 8, 0), ramp_colour(1));     /* no ninth dot */
    ck_assert_uint_eq(pixel(g, 17, 0), ramp_colour(0x3f)); /* line graphics repeat the eighth */
    ck_assert_uint_eq(pixel(g, 0, 13), ramp_colour(0x3f)); /* the cursor is at cell 0, lines 13 and 14 */
    ck_assert_uint_eq(pixel(g, 5, 13), ramp_colour(0x3f));
    ck_assert_uint_eq(pixel(g, 5, 12), ramp_colour(1));
    poke(g, 0xb8001, 0x9f);
    run_for(&g->clock, 16 * 14268000ull); /* half a period of text, a whole one of the cursor */
    ck_assert_uint_eq(pixel(g, 0, 0), ramp_colour(1));
    set_attr(g, 0x10, 0x04); /* bit 7 is a background colour now */
    ck_assert_uint_eq(pixel(g, 1, 0), ramp_colour(0x39));
    ck_assert_uint_eq(vga_view_cell(&g->view, 0, 0), 0x9f00 | 'H');
    free(font);
    rig_free(g);
}
END_TEST

START_TEST(two_fonts_are_chosen_by_attribute_bit_3)
{
    struct rig *g = rig_new();
    vga_set_text_mode(&g->vga, NULL);
    ramp(g);
    set(g, 0x3c4, 3, 0x04); /* font A: 1, font B: 0 */
    g->memory[4 * (0x4000 + 'x' * 32) + 2] = 0xff;
    poke(g, 0xb8000, 'x');
    poke(g, 0xb8001, 0x0f);
    poke(g, 0xb8002, 'x');
    poke(g, 0xb8003, 0x07);
    ck_assert_uint_eq(pixel(g, 0, 0), ramp_colour(0x3f));
    ck_assert_uint_eq(pixel(g, 9, 0), ramp_colour(0));
    rig_free(g);
}
END_TEST

START_TEST(linear_modes_of_every_depth)
{
    static const struct {
        uint16_t bpp;
        uint8_t bytes[4];
        uint32_t rgb;
    } depth[] = {{8, {5}, 0},
                 {15, {0x1f, 0x7c}, 0xff00ff},
                 {16, {0xe0, 0x07}, 0x00ff00},
                 {24, {1, 2, 3}, 0x030201},
                 {32, {1, 2, 3, 9}, 0x030201}};
    for (unsigned k = 0; k < ARRAY_LEN(depth); k++) {
        struct rig *g = rig_new();
        ramp(g);
        in8(g, 0x3da);
        out8(g, 0x3c0, 0x20);
        dispi(g, VGA_DISPI_XRES, 800);
        dispi(g, VGA_DISPI_YRES, 600);
        dispi(g, VGA_DISPI_BPP, depth[k].bpp);
        dispi(g, VGA_DISPI_ENABLE, VGA_DISPI_ENABLED | VGA_DISPI_LFB);
        expect_size(g, VGA_LINEAR, 800, 600);
        unsigned bytes = (depth[k].bpp + 7u) / 8;
        uint64_t at = (800ull * 599 + 799) * bytes;
        for (unsigned b = 0; b < bytes; b++)
            reg_write(&vga_memory_bus_ops, &g->vga, at + b, 1, depth[k].bytes[b]);
        ck_assert_uint_eq(pixel(g, 799, 599), depth[k].bpp == 8 ? ramp_colour(5) : depth[k].rgb);
        dispi(g, VGA_DISPI_Y_OFFSET, 1);
        ck_assert_uint_eq(pixel(g, 799, 598), depth[k].bpp == 8 ? ramp_colour(5) : depth[k].rgb);
        rig_free(g);
    }
}
END_TEST

START_TEST(display_interface_answers_and_keeps_to_the_memory)
{
    struct rig *g = rig_new();
    ck_assert_uint_eq(dispi_get(g, VGA_DISPI_ID), 0xb0c5);
    dispi(g, VGA_DISPI_ID, 0xb0c2);
    ck_assert_uint_eq(dispi_get(g, VGA_DISPI_ID), 0xb0c2);
    ck_assert_uint_eq(dispi_get(g, VGA_DISPI_MEMORY), 256);
    dispi(g, VGA_DISPI_ENABLE, VGA_DISPI_GETCAPS);
    ck_assert_uint_eq(dispi_get(g, VGA_DISPI_XRES), VGA_WIDTH_MAX);
    ck_assert_uint_eq(dispi_get(g, VGA_DISPI_BPP), 32);
    dispi(g, VGA_DISPI_ENABLE, 0);
    dispi(g, VGA_DISPI_XRES, VGA_WIDTH_MAX);
    dispi(g, VGA_DISPI_YRES, VGA_HEIGHT_MAX);
    dispi(g, VGA_DISPI_BPP, 32);
    dispi(g, VGA_DISPI_ENABLE, VGA_DISPI_ENABLED);
    ck_assert_uint_eq(dispi_get(g, VGA_DISPI_YRES), 1024); /* what fits */
    dispi(g, VGA_DISPI_X_OFFSET, 0xffff);
    dispi(g, VGA_DISPI_Y_OFFSET, 0xffff);
    in8(g, 0x3da);
    out8(g, 0x3c0, 0x20);
    pixel(g, 4095, 1023); /* reads nothing outside */
    ck_assert_uint_eq(reg_read(&vga_mmio_bus_ops, &g->vga, 0x502, 2), VGA_WIDTH_MAX);
    reg_write(&vga_mmio_bus_ops, &g->vga, 0x500 + 2 * VGA_DISPI_ENABLE, 2, 0);
    ck_assert_uint_eq(dispi_get(g, VGA_DISPI_ENABLE), 0);
    ck_assert_uint_eq(reg_read(&vga_mmio_bus_ops, &g->vga, 0x400 + 0xc, 1), in8(g, 0x3cc));
    rig_free(g);
}
END_TEST

START_TEST(dirty_pages_make_their_rows_dirty_and_no_others)
{
    struct rig *g = rig_new();
    in8(g, 0x3da);
    out8(g, 0x3c0, 0x20);
    dispi(g, VGA_DISPI_XRES, 1024);
    dispi(g, VGA_DISPI_YRES, 768);
    dispi(g, VGA_DISPI_BPP, 32);
    dispi(g, VGA_DISPI_ENABLE, VGA_DISPI_ENABLED | VGA_DISPI_LFB | VGA_DISPI_NO_CLEAR);
    memset(g->vga.dirty, 0, sizeof(g->vga.dirty));
    reg_write(&vga_memory_bus_ops, &g->vga, 4096 * 100 + 8, 4, 1);
    vga_view_take(&g->vga, &g->view);
    for (unsigned y = 0; y < 768; y++)
        ck_assert_int_eq(vga_view_row_is_dirty(&g->view, y, g->vga.dirty), y == 100);
    rig_free(g);
}
END_TEST

START_TEST(retrace_comes_seventy_times_a_second_of_virtual_time)
{
    struct rig *g = rig_new();
    vga_set_text_mode(&g->vga, NULL);
    unsigned rises = 0;
    bool was = false;
    for (unsigned k = 0; k < 100000; k++) {
        bool now = in8(g, 0x3da) & 8;
        rises += now && !was;
        was = now;
        run_for(&g->clock, 10000);
    }
    ck_assert_msg(rises >= 69 && rises <= 71, "%u", rises);
    rig_free(g);
}
END_TEST

START_TEST(registers_survive_save_and_load_and_damaged_ones_are_put_right)
{
    struct rig *a = rig_new(), *b = rig_new();
    set_mode(a, &mode13);
    ramp(a);
    dispi(a, VGA_DISPI_XRES, 320);
    a->vga.dispi[VGA_DISPI_BPP] = 7; /* as no guest can set it */
    a->vga.dispi[VGA_DISPI_ENABLE] = 1;
    struct bus io, mmio;
    struct pci_bus bus;
    const struct irq_line none[4] = {0};
    bus_init(&io, "port", 0x10000, NULL);
    bus_init(&mmio, "mmio", 0, NULL);
    pci_bus_init(&bus, &io, &mmio, none, NULL);
    ck_assert(pci_bus_attach(&bus, 0x10, &a->vga.pci));
    char path[SNAP_PATH_LEN];
    struct snap_writer *w = open_writer(path);
    vga_save(&a->vga, w);
    pci_bus_detach(&a->vga.pci);
    ck_assert(pci_bus_attach(&bus, 0x10, &b->vga.pci));
    struct snap_reader *r = reopen(w, path);
    vga_load(&b->vga, r);
    close_reader(r, path);
    ck_assert_mem_eq(a->vga.palette, b->vga.palette, sizeof(a->vga.palette));
    ck_assert_mem_eq(a->vga.crtc, b->vga.crtc, sizeof(a->vga.crtc));
    ck_assert_uint_eq(b->vga.dispi[VGA_DISPI_BPP], 8);
    vga_view_take(&b->vga, &b->view);
    ck_assert_uint_eq(b->view.width, 320);
    pci_bus_detach(&b->vga.pci);
    bus_fini(&io);
    bus_fini(&mmio);
    rig_free(a);
    rig_free(b);
}
END_TEST

START_TEST(any_registers_make_a_picture_that_can_be_drawn)
{
    struct rig *g = rig_new();
    uint32_t *row = calloc(VGA_WIDTH_MAX, sizeof *row);
    uint32_t x = 12345;
    for (unsigned k = 0; k < 3000; k++) {
        for (unsigned n = 0; n < 6; n++) {
            x = x * 1664525u + 1013904223u;
            unsigned port = 0x3c0 + (x >> 24) % 0x20;
            reg_write(&vga_ports_bus_ops, &g->vga, port - 0x3c0, 2, x >> 8 & 0xffff);
        }
        dispi(g, x >> 28, (uint16_t)(k % 3 ? 0 : x >> 4));
        vga_view_take(&g->vga, &g->view);
        ck_assert_uint_ge(g->view.width, 1);
        ck_assert_uint_ge(g->view.height, 1);
        vga_view_draw(&g->view, g->view.height - 1, 1, row);
        vga_view_draw(&g->view, g->view.height / 2, 1, row);
        peek(g, 0xa0000 + (x & 0x1ffff));
        poke(g, 0xa0000 + (x >> 3 & 0x1ffff), (uint8_t)x);
        in8(g, 0x3da);
    }
    free(row);
    rig_free(g);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("vga");
    TCase *t = tcase_create("vga");
    tcase_add_test(t, write_modes_and_latches_work_on_four_planes);
    tcase_add_test(t, rotation_logic_and_set_reset_of_write_mode_0);
    tcase_add_test(t, read_modes_select_a_plane_or_compare_colours);
    tcase_add_test(t, odd_even_and_chain_4_addressing);
    tcase_add_test(t, the_window_is_plain_memory_exactly_while_bytes_pass_through);
    tcase_add_test(t, mode_12h_has_sixteen_colours_and_hides_planes);
    tcase_add_test(t, the_line_compare_splits_the_screen);
    tcase_add_test(t, mode_13h_and_x_modes_have_256_colours);
    tcase_add_test(t, cga_modes_interleave_their_rows);
    tcase_add_test(t, text_has_colours_nine_dots_blinking_and_a_cursor);
    tcase_add_test(t, two_fonts_are_chosen_by_attribute_bit_3);
    tcase_add_test(t, linear_modes_of_every_depth);
    tcase_add_test(t, display_interface_answers_and_keeps_to_the_memory);
    tcase_add_test(t, dirty_pages_make_their_rows_dirty_and_no_others);
    tcase_add_test(t, retrace_comes_seventy_times_a_second_of_virtual_time);
    tcase_add_test(t, registers_survive_save_and_load_and_damaged_ones_are_put_right);
    tcase_add_test(t, any_registers_make_a_picture_that_can_be_drawn);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
