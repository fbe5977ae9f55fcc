#include "devices/acpi/aml.h"

#include <string.h>

#define OP_NAME       0x08
#define OP_BYTE       0x0a
#define OP_WORD       0x0b
#define OP_DWORD      0x0c
#define OP_STRING     0x0d
#define OP_SCOPE      0x10
#define OP_BUFFER     0x11
#define OP_PACKAGE    0x12
#define OP_METHOD     0x14
#define OP_DUAL_NAME  0x2e
#define OP_EXTENDED   0x5b
#define OP_EXT_DEVICE 0x82
#define OP_ARG0       0x68
#define OP_STORE      0x70
#define OP_IF         0xa0
#define OP_RETURN     0xa4

#define LENGTH_BYTES 4 /* package lengths always take the longest form: they are filled in at the end of a block */

#define RES_IRQ       0x22
#define RES_IO        0x47
#define RES_END       0x79
#define RES_MEMORY    0x86
#define RES_DWORD     0x87
#define RES_WORD      0x88
#define WINDOW_MEMORY 0
#define WINDOW_IO     1
#define WINDOW_BUS    2
#define WINDOW_FIXED  0x0c /* minimum and maximum are fixed, the bridge decodes positively */

void aml_byte(struct aml *a, uint8_t v)
{
    if (a->len >= a->cap) {
        a->overflow = true;
        return;
    }
    a->buf[a->len++] = v;
}

void aml_raw(struct aml *a, uint64_t v, unsigned size)
{
    for (unsigned i = 0; i < size; i++)
        aml_byte(a, (uint8_t)(v >> (8 * i)));
}

static void segment(struct aml *a, const char *s, size_t len)
{
    for (size_t i = 0; i < 4; i++)
        aml_byte(a, (uint8_t)(i < len ? s[i] : '_'));
}

void aml_name(struct aml *a, const char *path)
{
    if (*path == '\\')
        aml_byte(a, (uint8_t)*path++);
    const char *dot = strchr(path, '.');
    if (!dot) {
        segment(a, path, strlen(path));
        return;
    }
    aml_byte(a, OP_DUAL_NAME);
    segment(a, path, (size_t)(dot - path));
    segment(a, dot + 1, strlen(dot + 1));
}

void aml_integer(struct aml *a, uint32_t v)
{
    if (v <= 1) {
        aml_byte(a, (uint8_t)v); /* ZeroOp, OneOp */
        return;
    }
    unsigned size = v <= 0xff ? 1 : v <= 0xffff ? 2 : 4;
    aml_byte(a, size == 1 ? OP_BYTE : size == 2 ? OP_WORD : OP_DWORD);
    aml_raw(a, v, size);
}

static unsigned hex_digit(char c)
{
    return (unsigned)(c <= '9' ? c - '0' : c - 'A' + 10);
}

/* Three letters of five bits, four hexadecimal digits, in big-endian order. */
void aml_eisa_id(struct aml *a, const char *id)
{
    uint32_t v = (uint32_t)(id[0] - '@') << 26 | (uint32_t)(id[1] - '@') << 21 | (uint32_t)(id[2] - '@') << 16;
    for (unsigned i = 0; i < 4; i++)
        v |= hex_digit(id[3 + i]) << (12 - 4 * i);
    aml_byte(a, OP_DWORD);
    aml_raw(a, __builtin_bswap32(v), 4);
}

/* Reserves a package length; the mark is its position. */
static size_t open_block(struct aml *a)
{
    size_t mark = a->len;
    aml_raw(a, 0, LENGTH_BYTES);
    return mark;
}

void aml_end(struct aml *a, size_t mark)
{
    if (a->overflow)
        return;
    size_t n = a->len - mark; /* the length counts itself */
    a->buf[mark] = (uint8_t)((LENGTH_BYTES - 1) << 6 | (n & 15));
    for (unsigned i = 1; i < LENGTH_BYTES; i++)
        a->buf[mark + i] = (uint8_t)(n >> (8 * i - 4));
}

size_t aml_scope(struct aml *a, const char *path)
{
    aml_byte(a, OP_SCOPE);
    size_t mark = open_block(a);
    aml_name(a, path);
    return mark;
}

size_t aml_device(struct aml *a, const char *name)
{
    aml_byte(a, OP_EXTENDED);
    aml_byte(a, OP_EXT_DEVICE);
    size_t mark = open_block(a);
    aml_name(a, name);
    return mark;
}

size_t aml_method(struct aml *a, const char *path, unsigned args)
{
    aml_byte(a, OP_METHOD);
    size_t mark = open_block(a);
    aml_name(a, path);
    aml_byte(a, (uint8_t)args);
    return mark;
}

size_t aml_package(struct aml *a, unsigned elements)
{
    aml_byte(a, OP_PACKAGE);
    size_t mark = open_block(a);
    aml_byte(a, (uint8_t)elements);
    return mark;
}

size_t aml_if_name(struct aml *a, const char *name)
{
    aml_byte(a, OP_IF);
    size_t mark = open_block(a);
    aml_name(a, name);
    return mark;
}

void aml_define(struct aml *a, const char *name)
{
    aml_byte(a, OP_NAME);
    aml_name(a, name);
}

void aml_define_integer(struct aml *a, const char *name, uint32_t v)
{
    aml_define(a, name);
    aml_integer(a, v);
}

void aml_define_string(struct aml *a, const char *name, const char *text)
{
    aml_define(a, name);
    aml_byte(a, OP_STRING);
    for (; *text; text++)
        aml_byte(a, (uint8_t)*text);
    aml_byte(a, 0);
}

void aml_define_eisa_id(struct aml *a, const char *name, const char *id)
{
    aml_define(a, name);
    aml_eisa_id(a, id);
}

void aml_return_name(struct aml *a, const char *name)
{
    aml_byte(a, OP_RETURN);
    aml_name(a, name);
}

void aml_store_arg0(struct aml *a, const char *name)
{
    aml_byte(a, OP_STORE);
    aml_byte(a, OP_ARG0);
    aml_name(a, name);
}

/* ---- Resources ---- */

struct aml_resources aml_resources_begin(struct aml *a, const char *name)
{
    struct aml_resources r;
    aml_define(a, name);
    aml_byte(a, OP_BUFFER);
    r.package = open_block(a);
    aml_byte(a, OP_WORD);
    r.size_at = a->len;
    aml_raw(a, 0, 2);
    r.start = a->len;
    return r;
}

void aml_resources_end(struct aml *a, const struct aml_resources *r)
{
    aml_byte(a, RES_END);
    aml_byte(a, 0); /* no checksum */
    if (a->overflow)
        return;
    size_t size = a->len - r->start;
    a->buf[r->size_at] = (uint8_t)size;
    a->buf[r->size_at + 1] = (uint8_t)(size >> 8);
    aml_end(a, r->package);
}

void aml_res_io(struct aml *a, uint16_t base, uint8_t len)
{
    aml_byte(a, RES_IO);
    aml_byte(a, 1); /* decodes 16 bits */
    aml_raw(a, base, 2);
    aml_raw(a, base, 2);
    aml_byte(a, 1);
    aml_byte(a, len);
}

void aml_res_memory(struct aml *a, uint32_t base, uint32_t len)
{
    aml_byte(a, RES_MEMORY);
    aml_raw(a, 9, 2);
    aml_byte(a, 1); /* writable */
    aml_raw(a, base, 4);
    aml_raw(a, len, 4);
}

void aml_res_irq(struct aml *a, unsigned irq)
{
    aml_byte(a, RES_IRQ);
    aml_raw(a, 1u << irq, 2);
}

/* Granularity, minimum, maximum, translation, length: five numbers of `size` bytes. */
static void window(struct aml *a, uint8_t tag, uint8_t type, uint8_t flags, uint32_t first, uint32_t last)
{
    unsigned size = tag == RES_WORD ? 2 : 4;
    aml_byte(a, tag);
    aml_raw(a, 3 + 5 * size, 2);
    aml_byte(a, type);
    aml_byte(a, WINDOW_FIXED);
    aml_byte(a, flags);
    aml_raw(a, 0, size);
    aml_raw(a, first, size);
    aml_raw(a, last, size);
    aml_raw(a, 0, size);
    aml_raw(a, (uint64_t)last - first + 1, size);
}

void aml_res_bus_range(struct aml *a, uint16_t first, uint16_t last)
{
    window(a, RES_WORD, WINDOW_BUS, 0, first, last);
}

void aml_res_io_window(struct aml *a, uint16_t first, uint16_t last)
{
    window(a, RES_WORD, WINDOW_IO, 3 /* ISA and other ports */, first, last);
}

void aml_res_memory_window(struct aml *a, uint32_t first, uint32_t last)
{
    window(a, RES_DWORD, WINDOW_MEMORY, 1 /* writable, not cacheable */, first, last);
}
