/*
 * Images of formats that are not read here, told by their first bytes, so that they are not taken for raw disks.
 */
#include "core/block/block_internal.h"

#include <string.h>

struct magic {
    const char *name;
    unsigned offset, len;
    const char *bytes;
};

static const struct magic magics[] = {
    {"qcow2", 0, 4, "QFI\xfb"},
    {"VMDK", 0, 4, "KDMV"},
    {"VMDK", 0, 21, "# Disk DescriptorFile"},
    {"VDI", 0x40, 4, "\x7f\x10\xda\xbe"},
    {"VHDX", 0, 8, "vhdxfile"},
    {"VHD", 0, 8, "conectix"},
    {"QED", 0, 4, "QED\0"},
    {"xz-compressed", 0, 6,
     "\xfd"
     "7zXZ\0"},
    {"zstd-compressed", 0, 4, "\x28\xb5\x2f\xfd"},
};

const char *block_foreign_format(const uint8_t *head, size_t len)
{
    for (size_t k = 0; k < ARRAY_LEN(magics); k++) {
        const struct magic *m = &magics[k];
        if (len >= m->offset + m->len && !memcmp(head + m->offset, m->bytes, m->len))
            return m->name;
    }
    return NULL;
}
