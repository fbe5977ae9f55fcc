/*
 * The options that plug cards in and connect them, in QEMU's spelling: -device, -netdev, -nic.
 */
#ifndef FRONTENDS_CLI_DEVICE_OPTIONS_H
#define FRONTENDS_CLI_DEVICE_OPTIONS_H

#include "frontends/machine/umbra.h"

/* Each cuts its text into pieces that the configuration keeps. */
/* KIND[,KEY=VALUE]...: a PCI card. */
bool device_option_parse(struct machine_config *m, char *text, struct error *e);
/* Is `text` the description of a card that device_option_parse() knows? */
bool device_option_knows(const char *text);
/* "virtio-blk-pci, ..." */
const char *device_option_list(void);
/* user,id=ID[,hostfwd=...]... */
bool netdev_option_parse(struct machine_config *m, char *text, struct error *e);
/* none, or user[,model=KIND][,mac=M] and what -netdev user has. */
bool nic_option_parse(struct machine_config *m, char *text, struct error *e);

#endif
