#include "devices/acpi/acpi_loader.h"

#include "devices/fw_cfg.h"

#include <stdlib.h>
#include <string.h>

#define ENTRY     128
#define NAME      56
#define ENTRY_MAX (2 + ACPI_POINTERS_MAX + ACPI_SUMS_MAX)

enum command { ALLOCATE = 1, ADD_POINTER = 2, ADD_CHECKSUM = 3 };
enum zone { ZONE_HIGH = 1, ZONE_FSEG = 2 };

struct script {
    uint8_t bytes[ENTRY_MAX * ENTRY];
    size_t len;
};

static void put32(uint8_t *p, uint32_t v)
{
    for (unsigned i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

/* A new entry with its first file name. */
static uint8_t *entry(struct script *s, enum command c, const char *file)
{
    uint8_t *e = s->bytes + s->len;
    s->len += ENTRY;
    put32(e, c);
    memcpy(e + 4, file, strlen(file));
    return e + 4 + NAME;
}

static void allocate(struct script *s, const char *file, uint32_t align, enum zone zone)
{
    uint8_t *e = entry(s, ALLOCATE, file);
    put32(e, align);
    e[4] = zone;
}

/* The RSDP is a file of its own: the first bytes of the image. */
static const char *file_of(uint32_t offset)
{
    return offset < ACPI_RSDP_LEN ? ACPI_LOADER_RSDP : ACPI_LOADER_TABLES;
}

static void write_script(const struct acpi_image *image, struct script *s)
{
    allocate(s, ACPI_LOADER_RSDP, 16, ZONE_FSEG);
    allocate(s, ACPI_LOADER_TABLES, 64, ZONE_HIGH);
    for (unsigned k = 0; k < image->pointers; k++) {
        const struct acpi_pointer *p = &image->pointer[k];
        uint8_t *e = entry(s, ADD_POINTER, file_of(p->offset));
        memcpy(e, ACPI_LOADER_TABLES, sizeof ACPI_LOADER_TABLES);
        put32(e + NAME, p->offset);
        e[NAME + 4] = p->size;
    }
    for (unsigned k = 0; k < image->sums; k++) {
        const struct acpi_sum *c = &image->sum[k];
        uint8_t *e = entry(s, ADD_CHECKSUM, file_of(c->offset));
        put32(e, c->offset);
        put32(e + 4, c->start);
        put32(e + 8, c->len);
    }
}

bool acpi_loader_add(const struct acpi_tables_config *cfg, struct fw_cfg *f)
{
    struct acpi_tables_config at_zero = *cfg;
    struct acpi_image image;
    at_zero.base = 0; /* so that every pointer is an offset, to which the loader adds */
    struct script *s = calloc(1, sizeof *s);
    if (!s || !acpi_tables_build(&at_zero, &image)) {
        free(s);
        return false;
    }
    write_script(&image, s);
    for (unsigned k = 0; k < image.sums; k++)
        image.bytes[image.sum[k].offset] = 0;
    bool ok = fw_cfg_add_file(f, ACPI_LOADER_RSDP, image.bytes, ACPI_RSDP_LEN, false) &&
              fw_cfg_add_file(f, ACPI_LOADER_SCRIPT, s->bytes, s->len, false);
    memset(image.bytes, 0, ACPI_RSDP_LEN);
    ok = ok && fw_cfg_add_file(f, ACPI_LOADER_TABLES, image.bytes, image.len, false);
    acpi_image_fini(&image);
    free(s);
    return ok;
}
