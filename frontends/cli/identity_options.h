/*
 * The options that say who the machine is, in QEMU's spelling: -smbios, -uuid, -fw_cfg.
 */
#ifndef FRONTENDS_CLI_IDENTITY_OPTIONS_H
#define FRONTENDS_CLI_IDENTITY_OPTIONS_H

#include "frontends/machine/umbra.h"

/* type=N,KEY=VALUE...; `text` is cut into pieces that the configuration keeps. */
bool smbios_option_parse(struct machine_config *m, char *text, struct error *e);
/* xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx */
bool uuid_option_parse(struct machine_config *m, const char *text, struct error *e);
/* [name=]NAME,file=PATH or [name=]NAME,string=TEXT; cut likewise. */
bool fw_cfg_option_parse(struct machine_config *m, char *text, struct error *e);

#endif
