/*
 * PNG files of pictures (libpng).
 */
#ifndef FRONTENDS_MACHINE_PNG_H
#define FRONTENDS_MACHINE_PNG_H

#include "frontends/machine/screen.h"

/* Written beside and renamed: what is at `path` is a whole picture or what was there before. */
bool png_write(const struct screen_picture *p, const char *path, struct error *e);

#endif
