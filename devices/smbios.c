#include "devices/smbios.h"

#include "core/bytes.h"

#include <stdio.h>
#include <string.h>

#define VERSION_MAJOR 2
#define VERSION_MINOR 8

#define NO_HANDLE  0xfffe /* of an error structure that is not there */
#define NO_CACHE   0xffff
#define STATE_SAFE 3
#define DIMM_BYTES (16ull << 30)
#define KIB_LIMIT  0x80000000ull /* from here on a size in KiB is in the extended field */
#define MIB_LIMIT  0x7fffull     /* and one in MiB */

#define BIOS_NO_CHARACTERISTICS (1u << 3)
#define BIOS_TARGETED_CONTENT   (1u << 2)
#define BIOS_UEFI               (1u << 3)
#define BIOS_VIRTUAL            (1u << 4)

#define HANDLE_BIOS    0x000
#define HANDLE_SYSTEM  0x100
#define HANDLE_BOARD   0x200
#define HANDLE_CHASSIS 0x300
#define HANDLE_CPU     0x400
#define HANDLE_OEM     0xb00
#define HANDLE_ARRAY   0x1000
#define HANDLE_DIMM    0x1100
#define HANDLE_MAPPED  0x1300
#define HANDLE_BOOT    0x2000
#define HANDLE_END     0x7f00

static const struct {
    uint8_t type;
    const char *name, *text;
} texts[SMBIOS_TEXT_COUNT] = {
#define X(id, type, name, text) [SMBIOS_##id] = {type, name, text},
    SMBIOS_TEXTS(X)
#undef X
};

int smbios_text_find(unsigned type, const char *name, unsigned nth)
{
    for (int k = 0; k < SMBIOS_TEXT_COUNT; k++)
        if (texts[k].type == type && !strcmp(texts[k].name, name) && nth-- == 0)
            return k;
    return -1;
}

/* ---- structures: a formatted area, then its strings, then a zero ---- */

struct builder {
    const struct smbios_config *cfg;
    struct smbios_image *image;
    size_t start;    /* of the structure that is being made */
    uint8_t strings; /* of it */
    unsigned count;  /* structures */
    size_t max;      /* length of the longest */
    bool overflow;
};

static void put(struct builder *b, uint64_t v, unsigned size)
{
    if (b->image->len + size > SMBIOS_TABLES_MAX) {
        b->overflow = true;
        return;
    }
    for (unsigned i = 0; i < size; i++)
        b->image->tables[b->image->len++] = (uint8_t)(v >> (8 * i));
}

static void begin(struct builder *b, uint8_t type, uint16_t handle)
{
    b->start = b->image->len;
    b->strings = 0;
    put(b, type, 1);
    put(b, 0, 1); /* length */
    put(b, handle, 2);
}

/* The formatted area is complete. */
static void end_format(struct builder *b)
{
    if (!b->overflow)
        b->image->tables[b->start + 1] = (uint8_t)(b->image->len - b->start);
}

static void put_string(struct builder *b, const char *s)
{
    for (; s && *s; s++)
        put(b, (uint8_t)*s, 1);
    put(b, 0, 1);
}

static void end(struct builder *b)
{
    put(b, 0, b->strings ? 1 : 2);
    b->count++;
    if (b->image->len - b->start > b->max)
        b->max = b->image->len - b->start;
}

/* What the field of a text holds: the number of the string, or 0. */
static uint8_t number(struct builder *b, const char *s)
{
    return s && *s ? ++b->strings : 0;
}

static const char *text_of(const struct builder *b, enum smbios_text id)
{
    return b->cfg->user->text[id] ? b->cfg->user->text[id] : texts[id].text;
}

static void put_text(struct builder *b, enum smbios_text id)
{
    put(b, number(b, text_of(b, id)), 1);
}

/* The strings of consecutive texts, as put_text() has numbered them. */
static void put_strings(struct builder *b, enum smbios_text first, enum smbios_text last)
{
    for (unsigned k = first; k <= last; k++)
        if (text_of(b, k) && *text_of(b, k))
            put_string(b, text_of(b, k));
}

/* ---- the tables ---- */

static void build_bios(struct builder *b)
{
    begin(b, 0, HANDLE_BIOS);
    put_text(b, SMBIOS_BIOS_VENDOR);
    put_text(b, SMBIOS_BIOS_VERSION);
    put(b, 0xe800, 2); /* segment */
    put_text(b, SMBIOS_BIOS_DATE);
    put(b, 0, 1); /* 64 KiB */
    put(b, BIOS_NO_CHARACTERISTICS, 8);
    put(b, 0, 1);
    put(b, BIOS_TARGETED_CONTENT | BIOS_VIRTUAL | (b->cfg->uefi ? BIOS_UEFI : 0), 1);
    put(b, 0, 2);      /* its release */
    put(b, 0xffff, 2); /* there is no embedded controller */
    end_format(b);
    put_strings(b, SMBIOS_BIOS_VENDOR, SMBIOS_BIOS_DATE);
    end(b);
}

/* From version 2.6 on the first three fields of a UUID are little-endian (7.2.1). */
static void put_uuid(struct builder *b, const uint8_t uuid[SMBIOS_UUID])
{
    static const uint8_t order[SMBIOS_UUID] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};
    for (unsigned i = 0; i < SMBIOS_UUID; i++)
        put(b, uuid[order[i]], 1);
}

static void build_system(struct builder *b)
{
    begin(b, 1, HANDLE_SYSTEM);
    put_text(b, SMBIOS_SYSTEM_MAKER);
    put_text(b, SMBIOS_SYSTEM_PRODUCT);
    put_text(b, SMBIOS_SYSTEM_VERSION);
    put_text(b, SMBIOS_SYSTEM_SERIAL);
    put_uuid(b, b->cfg->user->uuid);
    put(b, 6, 1); /* woken by the power switch */
    put_text(b, SMBIOS_SYSTEM_SKU);
    put_text(b, SMBIOS_SYSTEM_FAMILY);
    end_format(b);
    put_strings(b, SMBIOS_SYSTEM_MAKER, SMBIOS_SYSTEM_FAMILY);
    end(b);
}

static bool has_any(const struct builder *b, enum smbios_text first, enum smbios_text last)
{
    for (unsigned k = first; k <= last; k++)
        if (text_of(b, k) && *text_of(b, k))
            return true;
    return false;
}

static void build_board(struct builder *b)
{
    if (!has_any(b, SMBIOS_BOARD_MAKER, SMBIOS_BOARD_ASSET))
        return;
    begin(b, 2, HANDLE_BOARD);
    for (unsigned k = SMBIOS_BOARD_MAKER; k <= SMBIOS_BOARD_ASSET; k++)
        put_text(b, k);
    put(b, 1, 1); /* it hosts the others */
    put(b, 0, 1); /* where in the chassis */
    put(b, HANDLE_CHASSIS, 2);
    put(b, 0x0a, 1); /* motherboard */
    put(b, 0, 1);
    end_format(b);
    put_strings(b, SMBIOS_BOARD_MAKER, SMBIOS_BOARD_ASSET);
    end(b);
}

static void build_chassis(struct builder *b)
{
    begin(b, 3, HANDLE_CHASSIS);
    put_text(b, SMBIOS_CHASSIS_MAKER);
    put(b, 1, 1); /* other */
    put_text(b, SMBIOS_CHASSIS_VERSION);
    put_text(b, SMBIOS_CHASSIS_SERIAL);
    put_text(b, SMBIOS_CHASSIS_ASSET);
    put(b, STATE_SAFE, 1); /* at boot; power supply; temperature */
    put(b, STATE_SAFE, 1);
    put(b, STATE_SAFE, 1);
    put(b, 2, 1); /* security: unknown */
    put(b, 0, 4);
    put(b, 0, 2); /* height, power cords */
    put(b, 0, 2); /* contained elements */
    put_text(b, SMBIOS_CHASSIS_SKU);
    end_format(b);
    put_strings(b, SMBIOS_CHASSIS_MAKER, SMBIOS_CHASSIS_SKU);
    end(b);
}

static uint8_t byte_count(unsigned n)
{
    return (uint8_t)(n < 255 ? n : 255);
}

static void build_cpu(struct builder *b, unsigned socket)
{
    const struct smbios_config *c = b->cfg;
    const char *maker = text_of(b, SMBIOS_CPU_MAKER), *version = text_of(b, SMBIOS_CPU_VERSION);
    char name[16];
    maker = maker ? maker : c->cpu_vendor;
    version = version ? version : c->cpu_version;
    snprintf(name, sizeof name, "CPU %u", socket);
    begin(b, 4, (uint16_t)(HANDLE_CPU + socket));
    put(b, number(b, name), 1);
    put(b, 3, 1); /* a central processor */
    put(b, 1, 1); /* family: other */
    put(b, number(b, maker), 1);
    put(b, c->signature, 4);
    put(b, c->features, 4);
    put(b, number(b, version), 1);
    put(b, 0, 1);    /* voltage */
    put(b, 0, 2);    /* external clock */
    put(b, 1000, 2); /* MHz, at most and now: the TSC's */
    put(b, 1000, 2);
    put(b, 0x41, 1); /* socket populated, processor enabled */
    put(b, 1, 1);    /* upgrade: other */
    for (unsigned level = 1; level <= 3; level++)
        put(b, NO_CACHE, 2);
    put(b, 0, 3); /* serial number, asset tag, part number */
    put(b, byte_count(c->topology.cores), 1);
    put(b, byte_count(c->topology.cores), 1);
    put(b, byte_count(c->topology.cores * c->topology.threads), 1);
    put(b, 2, 2); /* characteristics: unknown */
    put(b, 1, 2);
    end_format(b);
    put_string(b, name);
    if (maker && *maker)
        put_string(b, maker);
    if (version && *version)
        put_string(b, version);
    end(b);
}

static void build_oem(struct builder *b)
{
    if (!has_any(b, SMBIOS_OEM_1, SMBIOS_OEM_4))
        return;
    begin(b, 11, HANDLE_OEM);
    for (unsigned k = SMBIOS_OEM_1; k <= SMBIOS_OEM_4; k++)
        number(b, text_of(b, k));
    put(b, b->strings, 1);
    end_format(b);
    put_strings(b, SMBIOS_OEM_1, SMBIOS_OEM_4);
    end(b);
}

static uint64_t ram_bytes(const struct builder *b)
{
    return b->cfg->low_ram + b->cfg->high_ram;
}

static unsigned dimm_count(const struct builder *b)
{
    return (unsigned)((ram_bytes(b) + DIMM_BYTES - 1) / DIMM_BYTES);
}

static void build_array(struct builder *b)
{
    uint64_t kib = ram_bytes(b) >> 10;
    begin(b, 16, HANDLE_ARRAY);
    put(b, 1, 1); /* location: other */
    put(b, 3, 1); /* system memory */
    put(b, 6, 1); /* ECC over several bits */
    put(b, kib < KIB_LIMIT ? kib : KIB_LIMIT, 4);
    put(b, NO_HANDLE, 2);
    put(b, dimm_count(b), 2);
    put(b, kib < KIB_LIMIT ? 0 : ram_bytes(b), 8);
    end_format(b);
    end(b);
}

static void build_dimm(struct builder *b, unsigned n)
{
    uint64_t left = ram_bytes(b) - n * DIMM_BYTES, mib = (left < DIMM_BYTES ? left : DIMM_BYTES) >> 20;
    char name[16];
    snprintf(name, sizeof name, "DIMM %u", n);
    begin(b, 17, (uint16_t)(HANDLE_DIMM + n));
    put(b, HANDLE_ARRAY, 2);
    put(b, NO_HANDLE, 2);
    put(b, 0xffff, 2); /* widths: unknown */
    put(b, 0xffff, 2);
    put(b, mib < MIB_LIMIT ? mib : MIB_LIMIT, 2);
    put(b, 9, 1); /* a DIMM */
    put(b, 0, 1); /* of no set */
    put(b, number(b, name), 1);
    put(b, 0, 1); /* bank */
    put(b, 7, 1); /* RAM */
    put(b, 2, 2); /* other */
    put(b, 0, 2); /* speed */
    put(b, number(b, "Umbra"), 1);
    put(b, 0, 3); /* serial number, asset tag, part number */
    put(b, 0, 1); /* rank */
    put(b, mib < MIB_LIMIT ? 0 : mib, 4);
    put(b, 0, 2); /* configured speed */
    put(b, 0, 6); /* voltages */
    end_format(b);
    put_string(b, name);
    put_string(b, "Umbra");
    end(b);
}

static void build_mapped(struct builder *b, unsigned n, uint64_t start, uint64_t len)
{
    uint64_t last = start + len - 1;
    bool wide = last >> 10 >= 0xffffffffull;
    begin(b, 19, (uint16_t)(HANDLE_MAPPED + n));
    put(b, wide ? 0xffffffffu : start >> 10, 4);
    put(b, wide ? 0xffffffffu : last >> 10, 4);
    put(b, HANDLE_ARRAY, 2);
    put(b, 1, 1); /* devices in a row */
    put(b, wide ? start : 0, 8);
    put(b, wide ? last : 0, 8);
    end_format(b);
    end(b);
}

static void build_boot(struct builder *b)
{
    begin(b, 32, HANDLE_BOOT);
    put(b, 0, 6);
    put(b, 0, 1); /* no errors */
    end_format(b);
    end(b);
}

static void build_end(struct builder *b)
{
    begin(b, 127, HANDLE_END);
    end_format(b);
    end(b);
}

/* ---- the entry point ---- */

static uint8_t checksum(const uint8_t *p, size_t n)
{
    uint8_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum = (uint8_t)(sum + p[i]);
    return (uint8_t)-sum;
}

static void build_anchor(struct builder *b, uint32_t base)
{
    uint8_t *a = b->image->anchor;
    memset(a, 0, SMBIOS_ANCHOR_LEN);
    memcpy(a, "_SM_", 4);
    a[5] = SMBIOS_ANCHOR_LEN;
    a[6] = VERSION_MAJOR;
    a[7] = VERSION_MINOR;
    store_le(a + 8, b->max, 2);
    memcpy(a + 16, "_DMI_", 5);
    store_le(a + 22, b->image->len, 2);
    store_le(a + 24, base, 4);
    store_le(a + 28, b->count, 2);
    a[30] = VERSION_MAJOR << 4 | VERSION_MINOR;
    a[21] = checksum(a + 16, SMBIOS_ANCHOR_LEN - 16);
    a[4] = checksum(a, SMBIOS_ANCHOR_LEN);
}

bool smbios_build(const struct smbios_config *cfg, uint32_t base, struct smbios_image *image)
{
    struct builder b = {.cfg = cfg, .image = image};
    image->len = 0;
    build_bios(&b);
    build_system(&b);
    build_board(&b);
    build_chassis(&b);
    for (unsigned socket = 0; socket < cfg->topology.sockets; socket++)
        build_cpu(&b, socket);
    build_oem(&b);
    build_array(&b);
    for (unsigned n = 0; n < dimm_count(&b); n++)
        build_dimm(&b, n);
    build_mapped(&b, 0, 0, cfg->low_ram);
    if (cfg->high_ram)
        build_mapped(&b, 1, 1ull << 32, cfg->high_ram);
    build_boot(&b);
    build_end(&b);
    build_anchor(&b, base);
    return !b.overflow;
}
