/*
 * The order in which firmware is to try devices, as the file `bootorder` of fw_cfg has it: a line for each, the
 * device's OpenFirmware path.
 *
 * First comes the ROM that starts the kernel of -kernel, then the devices with a bootindex=, by its value; then, if the
 * user gave `-boot order=` and no once=, those that its letters stand for (a floppies, c disks, d CDs, n network
 * cards), in the order of their places. The paths are those that SeaBIOS (src/boot.c) and OVMF (QemuBootOrderLib) look
 * for.
 */
#ifndef FRONTENDS_MACHINE_BOOT_ORDER_H
#define FRONTENDS_MACHINE_BOOT_ORDER_H

#include "frontends/machine/board.h"

/* The file's text, to be freed; empty if nothing is to be said. NULL with an error: two devices have one bootindex, or
 * memory is short. */
char *boot_order_text(const struct board *b, struct error *e);

#endif
