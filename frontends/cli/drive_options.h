/*
 * The options that describe drives, in QEMU's spelling: -drive, -hda to -hdd, -cdrom, -fda, -fdb, -snapshot, -boot.
 */
#ifndef FRONTENDS_CLI_DRIVE_OPTIONS_H
#define FRONTENDS_CLI_DRIVE_OPTIONS_H

#include "frontends/machine/umbra.h"

/* `text` (file=,format=,if=,media=,index=,snapshot=,readonly=,id=,serial=,bootindex=) is cut into pieces that the drive
 * keeps: commas inside a value are written twice. */
bool drive_option_parse(struct machine_config *m, char *text, struct error *e);
/* -hda FILE and its like; `name` without the dash. */
bool drive_option_short(struct machine_config *m, const char *name, const char *file, struct error *e);
/* order=, once=, menu=on|off, strict=on|off, splash-time=, reboot-timeout=; or the letters alone. `text` is kept. */
bool boot_option_parse(struct machine_config *m, char *text, struct error *e);
/* After all options: -device ide-hd and its like take their drives, -snapshot takes effect, every drive gets its place.
 */
bool drive_options_finish(struct machine_config *m, bool snapshot, struct error *e);

#endif
