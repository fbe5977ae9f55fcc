/*
 * The VGA BIOS of the distribution (Debian: package seabios), and the fonts in it.
 */
#ifndef FRONTENDS_MACHINE_VGA_ROM_H
#define FRONTENDS_MACHINE_VGA_ROM_H

#include "frontends/machine/file.h"

/* Reads it from where distributions put it. False: it is nowhere; *f is empty. */
bool vga_rom_find(struct file *f);
/* The font of 256 glyphs of `height` bytes (8, 14 or 16) in a ROM, found by the looks of its first characters; NULL:
 * none. */
const uint8_t *vga_rom_font(const struct file *f, unsigned height);

#endif
