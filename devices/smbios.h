/*
 * SMBIOS tables: what the machine says of itself to who asks (Linux: /sys/class/dmi/id, dmidecode).
 *
 * Source: DMTF DSP0134, version 2.8, with the 32-bit entry point: types 0 (firmware), 1 (system), 3 (chassis), 4 (a
 * processor for each socket), 16 (memory array), 17 (memory devices of at most 16 GiB), 19 (where they are mapped), 32
 * (boot status), 127 (end); 2 (board) and 11 (OEM strings) where a text is given for them. They depend on the
 * configuration alone. Firmware gets them as two files of fw_cfg and puts them where it likes; without firmware the
 * machine does.
 */
#ifndef DEVICES_SMBIOS_H
#define DEVICES_SMBIOS_H

#include "core/topology.h"
#include "core/types.h"

/* Texts that the user may set: type, name as of QEMU's -smbios, default. */
#define SMBIOS_TEXTS(X)                                                                                                \
    X(BIOS_VENDOR, 0, "vendor", "Umbra")                                                                               \
    X(BIOS_VERSION, 0, "version", "1")                                                                                 \
    X(BIOS_DATE, 0, "date", "01/01/2020")                                                                              \
    X(SYSTEM_MAKER, 1, "manufacturer", "Umbra")                                                                        \
    X(SYSTEM_PRODUCT, 1, "product", "Umbra PC (i440FX + PIIX3)")                                                       \
    X(SYSTEM_VERSION, 1, "version", "pc")                                                                              \
    X(SYSTEM_SERIAL, 1, "serial", NULL)                                                                                \
    X(SYSTEM_SKU, 1, "sku", NULL)                                                                                      \
    X(SYSTEM_FAMILY, 1, "family", NULL)                                                                                \
    X(BOARD_MAKER, 2, "manufacturer", NULL)                                                                            \
    X(BOARD_PRODUCT, 2, "product", NULL)                                                                               \
    X(BOARD_VERSION, 2, "version", NULL)                                                                               \
    X(BOARD_SERIAL, 2, "serial", NULL)                                                                                 \
    X(BOARD_ASSET, 2, "asset", NULL)                                                                                   \
    X(CHASSIS_MAKER, 3, "manufacturer", "Umbra")                                                                       \
    X(CHASSIS_VERSION, 3, "version", "pc")                                                                             \
    X(CHASSIS_SERIAL, 3, "serial", NULL)                                                                               \
    X(CHASSIS_ASSET, 3, "asset", NULL)                                                                                 \
    X(CHASSIS_SKU, 3, "sku", NULL)                                                                                     \
    X(CPU_MAKER, 4, "manufacturer", NULL)                                                                              \
    X(CPU_VERSION, 4, "version", NULL)                                                                                 \
    X(OEM_1, 11, "value", NULL)                                                                                        \
    X(OEM_2, 11, "value", NULL)                                                                                        \
    X(OEM_3, 11, "value", NULL)                                                                                        \
    X(OEM_4, 11, "value", NULL)

enum smbios_text {
#define X(id, type, name, text) SMBIOS_##id,
    SMBIOS_TEXTS(X)
#undef X
        SMBIOS_TEXT_COUNT
};

#define SMBIOS_UUID 16

/* What -smbios and -uuid say. All zero: defaults. */
struct smbios_user {
    const char *text[SMBIOS_TEXT_COUNT]; /* NULL: the default; borrowed */
    uint8_t uuid[SMBIOS_UUID];           /* in the order of its text; all zero: none */
};

struct smbios_config {
    const struct smbios_user *user; /* borrowed for the call */
    struct cpu_topology topology;
    uint32_t signature, features;         /* EAX and EDX of CPUID leaf 1 */
    const char *cpu_vendor, *cpu_version; /* where the user gives none */
    uint64_t low_ram, high_ram;           /* bytes from 0, and from 4 GiB on */
    bool uefi;
};

#define SMBIOS_ANCHOR_LEN 31
#define SMBIOS_TABLES_MAX 8192

#define SMBIOS_FILE_ANCHOR "etc/smbios/smbios-anchor"
#define SMBIOS_FILE_TABLES "etc/smbios/smbios-tables"

struct smbios_image {
    uint8_t anchor[SMBIOS_ANCHOR_LEN]; /* for tables at `base` */
    uint8_t tables[SMBIOS_TABLES_MAX];
    size_t len; /* of the tables */
};

/* False: the user's texts do not fit. `base`: where the tables will be (0: who puts them there says so). */
bool smbios_build(const struct smbios_config *cfg, uint32_t base, struct smbios_image *image);
/* The text that `name` of `type` sets, or -1. Several have one name where a text may be given several times: `nth`. */
int smbios_text_find(unsigned type, const char *name, unsigned nth);

#endif
