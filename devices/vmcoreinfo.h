/*
 * vmcoreinfo: a writable file of fw_cfg in which a kernel leaves the address of its VMCOREINFO note, so that whoever
 * dumps the guest's memory can make sense of it.
 *
 * Source: QEMU's docs/specs/vmcoreinfo: 16 bytes, little-endian: format that the host takes, format that the guest left
 * (both 1: an ELF note), size, gpa. State is the file's, which fw_cfg saves. A reset takes the guest's part back.
 */
#ifndef DEVICES_VMCOREINFO_H
#define DEVICES_VMCOREINFO_H

#include "devices/fw_cfg.h"

#define VMCOREINFO_FILE "etc/vmcoreinfo"

struct vmcoreinfo {
    uint32_t size; /* bytes */
    gpa_t gpa;
};

/* Adds the file. False when memory is short. */
bool vmcoreinfo_init(struct fw_cfg *f);
void vmcoreinfo_reset(struct fw_cfg *f);
/* False: there is no such file, or the guest has left nothing that is understood. */
bool vmcoreinfo_get(const struct fw_cfg *f, struct vmcoreinfo *out);

#endif
