/*
 * Where the distribution's firmware lies: Debian's packages seabios and ovmf, installed, or unpacked in the cache that
 * scripts/fetch-guests fills ($UMBRA_CACHE, else umbra in the user's cache directory).
 */
#ifndef FRONTENDS_MACHINE_FIRMWARE_FIND_H
#define FRONTENDS_MACHINE_FIRMWARE_FIND_H

#include "frontends/machine/error.h"

#include <stddef.h>

#define FIRMWARE_SEABIOS "bios-256k.bin"

/* The path of a file of those packages, by its name without a directory (bios-256k.bin, vgabios-stdvga.bin,
 * OVMF_CODE_4M.fd). False with an error that says what to install. */
bool firmware_find(const char *name, char *path, size_t size, struct error *e);

#endif
