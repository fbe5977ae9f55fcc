/*
 * The registers that gdb is shown, in its order: one row each, from which the target description is made too.
 */
#include "frontends/gdbstub/gdbstub_internal.h"

#include <stddef.h>
#include <string.h>

enum feature { CORE, SSE, SEGMENTS, SYSTEM, FEATURES };

static const char *const feature_names[FEATURES] = {"org.gnu.gdb.i386.core", "org.gnu.gdb.i386.sse",
                                                    "org.gnu.gdb.i386.segments", "org.umbra.system"};

struct row {
    const char *name, *type;
    uint8_t size;    /* bytes on the wire */
    uint8_t feature; /* enum feature */
    uint8_t has;     /* bytes in struct inspect_regs; 0: reads as zero */
    size_t offset;
};

#define FIELD(f) sizeof(((struct inspect_regs *)0)->f), offsetof(struct inspect_regs, f)
#define GPR(name, n, type)                                                                                             \
    {                                                                                                                  \
        name, type, 8, CORE, FIELD(gpr[n])                                                                             \
    }
#define SEG(name, n)                                                                                                   \
    {                                                                                                                  \
        name, "int32", 4, CORE, FIELD(sel[n])                                                                          \
    }
#define ST(n)                                                                                                          \
    {                                                                                                                  \
        "st" #n, "i387_ext", 10, CORE, FIELD(st[n])                                                                    \
    }
#define FPU(name, f)                                                                                                   \
    {                                                                                                                  \
        name, "int", 4, CORE, FIELD(f)                                                                                 \
    }
#define XMM(n)                                                                                                         \
    {                                                                                                                  \
        "xmm" #n, "vec128", 16, SSE, FIELD(xmm[n])                                                                     \
    }
#define WIDE(name, feat, f)                                                                                            \
    {                                                                                                                  \
        name, "int64", 8, feat, FIELD(f)                                                                               \
    }

static const struct row rows[] = {GPR("rax", 0, "int64"),
                                  GPR("rbx", 3, "int64"),
                                  GPR("rcx", 1, "int64"),
                                  GPR("rdx", 2, "int64"),
                                  GPR("rsi", 6, "int64"),
                                  GPR("rdi", 7, "int64"),
                                  GPR("rbp", 5, "data_ptr"),
                                  GPR("rsp", 4, "data_ptr"),
                                  GPR("r8", 8, "int64"),
                                  GPR("r9", 9, "int64"),
                                  GPR("r10", 10, "int64"),
                                  GPR("r11", 11, "int64"),
                                  GPR("r12", 12, "int64"),
                                  GPR("r13", 13, "int64"),
                                  GPR("r14", 14, "int64"),
                                  GPR("r15", 15, "int64"),
                                  {"rip", "code_ptr", 8, CORE, FIELD(rip)},
                                  {"eflags", "i386_eflags", 4, CORE, FIELD(rflags)},
                                  SEG("cs", INSPECT_CS),
                                  SEG("ss", INSPECT_SS),
                                  SEG("ds", INSPECT_DS),
                                  SEG("es", INSPECT_ES),
                                  SEG("fs", INSPECT_FS),
                                  SEG("gs", INSPECT_GS),
                                  ST(0),
                                  ST(1),
                                  ST(2),
                                  ST(3),
                                  ST(4),
                                  ST(5),
                                  ST(6),
                                  ST(7),
                                  FPU("fctrl", fcw),
                                  FPU("fstat", fsw),
                                  FPU("ftag", ftw),
                                  {"fiseg", "int", 4, CORE, 0, 0},
                                  FPU("fioff", fip),
                                  {"foseg", "int", 4, CORE, 0, 0},
                                  FPU("fooff", fdp),
                                  FPU("fop", fop),
                                  XMM(0),
                                  XMM(1),
                                  XMM(2),
                                  XMM(3),
                                  XMM(4),
                                  XMM(5),
                                  XMM(6),
                                  XMM(7),
                                  XMM(8),
                                  XMM(9),
                                  XMM(10),
                                  XMM(11),
                                  XMM(12),
                                  XMM(13),
                                  XMM(14),
                                  XMM(15),
                                  {"mxcsr", "int", 4, SSE, FIELD(mxcsr)},
                                  WIDE("fs_base", SEGMENTS, base[INSPECT_FS]),
                                  WIDE("gs_base", SEGMENTS, base[INSPECT_GS]),
                                  WIDE("k_gs_base", SYSTEM, kernel_gs_base),
                                  WIDE("cr0", SYSTEM, cr0),
                                  WIDE("cr2", SYSTEM, cr2),
                                  WIDE("cr3", SYSTEM, cr3),
                                  WIDE("cr4", SYSTEM, cr4),
                                  WIDE("cr8", SYSTEM, cr8),
                                  WIDE("efer", SYSTEM, efer)};

#define ROWS (sizeof rows / sizeof rows[0])
#define WIRE 16 /* bytes of the widest register */

unsigned gdb_register_count(void)
{
    return ROWS;
}

/* ---- values (both sides are little endian) ---- */

static void get(const struct inspect_regs *r, const struct row *row, uint8_t wire[WIRE])
{
    size_t n = row->has < row->size ? row->has : row->size;
    memset(wire, 0, WIRE);
    memcpy(wire, (const uint8_t *)r + row->offset, n);
}

static void set(struct inspect_regs *r, const struct row *row, const uint8_t wire[WIRE])
{
    size_t n = row->has < row->size ? row->has : row->size;
    memcpy((uint8_t *)r + row->offset, wire, n);
}

bool gdb_register_read(const struct inspect_regs *r, uint64_t n, char *hex, size_t size)
{
    uint8_t wire[WIRE];
    if (n >= ROWS)
        return false;
    get(r, &rows[n], wire);
    hex_encode(wire, rows[n].size, hex, size);
    return true;
}

bool gdb_register_write(struct inspect_regs *r, uint64_t n, const char *hex)
{
    uint8_t wire[WIRE];
    if (n >= ROWS || strlen(hex) != 2u * rows[n].size || hex_decode(hex, wire, rows[n].size) != rows[n].size)
        return false;
    set(r, &rows[n], wire);
    return true;
}

void gdb_registers_read(const struct inspect_regs *r, char *hex, size_t size)
{
    hex[0] = 0;
    for (unsigned n = 0; n < ROWS; n++) {
        size_t used = strlen(hex);
        gdb_register_read(r, n, hex + used, size - used);
    }
}

bool gdb_registers_write(struct inspect_regs *r, const char *hex)
{
    for (unsigned n = 0; n < ROWS && *hex; n++) {
        uint8_t wire[WIRE];
        if (hex_decode(hex, wire, rows[n].size) != rows[n].size)
            return false;
        set(r, &rows[n], wire);
        hex += 2 * rows[n].size;
    }
    return !*hex;
}

/* ---- the target description ---- */

static const char types_core[] =
    "<flags id=\"i386_eflags\" size=\"4\">"
    "<field name=\"\" start=\"22\" end=\"31\"/><field name=\"ID\" start=\"21\" end=\"21\"/>"
    "<field name=\"VIP\" start=\"20\" end=\"20\"/><field name=\"VIF\" start=\"19\" end=\"19\"/>"
    "<field name=\"AC\" start=\"18\" end=\"18\"/><field name=\"VM\" start=\"17\" end=\"17\"/>"
    "<field name=\"RF\" start=\"16\" end=\"16\"/><field name=\"NT\" start=\"14\" end=\"14\"/>"
    "<field name=\"OF\" start=\"11\" end=\"11\"/><field name=\"DF\" start=\"10\" end=\"10\"/>"
    "<field name=\"IF\" start=\"9\" end=\"9\"/><field name=\"TF\" start=\"8\" end=\"8\"/>"
    "<field name=\"SF\" start=\"7\" end=\"7\"/><field name=\"ZF\" start=\"6\" end=\"6\"/>"
    "<field name=\"AF\" start=\"4\" end=\"4\"/><field name=\"PF\" start=\"2\" end=\"2\"/>"
    "<field name=\"\" start=\"1\" end=\"1\"/><field name=\"CF\" start=\"0\" end=\"0\"/></flags>";

static const char types_sse[] =
    "<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/><vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/>"
    "<vector id=\"v16i8\" type=\"int8\" count=\"16\"/><vector id=\"v4i32\" type=\"int32\" count=\"4\"/>"
    "<vector id=\"v2i64\" type=\"int64\" count=\"2\"/>"
    "<union id=\"vec128\"><field name=\"v4_float\" type=\"v4f\"/><field name=\"v2_double\" type=\"v2d\"/>"
    "<field name=\"v16_int8\" type=\"v16i8\"/><field name=\"v4_int32\" type=\"v4i32\"/>"
    "<field name=\"v2_int64\" type=\"v2i64\"/><field name=\"uint128\" type=\"uint128\"/></union>";

static size_t append(char *text, size_t size, size_t used, const char *more)
{
    int n = snprintf(text + used, size - used, "%s", more);
    return used + (size_t)n < size ? used + (size_t)n : size - 1;
}

static size_t append_feature(char *text, size_t size, size_t used, unsigned feature)
{
    char line[160];
    snprintf(line, sizeof line, "<feature name=\"%s\">", feature_names[feature]);
    used = append(text, size, used, line);
    used = append(text, size, used, feature == CORE ? types_core : feature == SSE ? types_sse : "");
    for (unsigned n = 0; n < ROWS; n++) {
        if (rows[n].feature != feature)
            continue;
        snprintf(line, sizeof line, "<reg name=\"%s\" bitsize=\"%u\" type=\"%s\"/>", rows[n].name, 8u * rows[n].size,
                 rows[n].type);
        used = append(text, size, used, line);
    }
    return append(text, size, used, "</feature>");
}

void gdb_target_xml(char *text, size_t size)
{
    size_t used = append(text, size, 0,
                         "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\"><target version=\"1.0\">"
                         "<architecture>i386:x86-64</architecture>");
    for (unsigned f = 0; f < FEATURES; f++)
        used = append_feature(text, size, used, f);
    append(text, size, used, "</target>");
}
