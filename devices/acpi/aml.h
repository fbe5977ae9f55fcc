/*
 * An assembler for ACPI machine language and resource descriptors (ACPI 6.4, chapters 20 and 6.4).
 *
 * It appends to a caller's buffer; blocks are opened and closed in pairs, and the package length is filled in at the
 * close. Running out of room is sticky and seen at the end.
 */
#ifndef DEVICES_ACPI_AML_H
#define DEVICES_ACPI_AML_H

#include "core/types.h"

struct aml {
    uint8_t *buf; /* borrowed */
    size_t cap, len;
    bool overflow;
};

void aml_byte(struct aml *a, uint8_t v);
/* `size` bytes, little-endian. */
void aml_raw(struct aml *a, uint64_t v, unsigned size);
/* A name: one segment of up to four characters, or a path of two joined by '.', each with an optional leading '\'. */
void aml_name(struct aml *a, const char *path);
/* The shortest constant for v. */
void aml_integer(struct aml *a, uint32_t v);
/* An EISA ID such as "PNP0A03". */
void aml_eisa_id(struct aml *a, const char *id);

/* Block openers return a mark for aml_end(). */
size_t aml_scope(struct aml *a, const char *path);
size_t aml_device(struct aml *a, const char *name);
size_t aml_method(struct aml *a, const char *path, unsigned args);
size_t aml_package(struct aml *a, unsigned elements);
size_t aml_if_name(struct aml *a, const char *name); /* If (name) */
void aml_end(struct aml *a, size_t mark);

/* Name (name, ...): the value follows. */
void aml_define(struct aml *a, const char *name);
void aml_define_integer(struct aml *a, const char *name, uint32_t v);
void aml_define_string(struct aml *a, const char *name, const char *text);
void aml_define_eisa_id(struct aml *a, const char *name, const char *id);
void aml_return_name(struct aml *a, const char *name);
/* Store (Arg0, name) */
void aml_store_arg0(struct aml *a, const char *name);

/* Name (name, ResourceTemplate () { ... }) */
struct aml_resources {
    size_t package, size_at, start;
};
struct aml_resources aml_resources_begin(struct aml *a, const char *name);
void aml_resources_end(struct aml *a, const struct aml_resources *r);
void aml_res_io(struct aml *a, uint16_t base, uint8_t len);
void aml_res_irq(struct aml *a, unsigned irq);
/* A fixed range of memory. */
void aml_res_memory(struct aml *a, uint32_t base, uint32_t len);
void aml_res_bus_range(struct aml *a, uint16_t first, uint16_t last);
void aml_res_io_window(struct aml *a, uint16_t first, uint16_t last);
void aml_res_memory_window(struct aml *a, uint32_t first, uint32_t last);

#endif
