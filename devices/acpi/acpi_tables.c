#include "devices/acpi/acpi_tables.h"

#include "devices/acpi/acpi_pm.h"
#include "devices/hpet.h"
#include "devices/layout.h"

#include <stdlib.h>
#include <string.h>

#define HEADER_LEN 36
#define FADT_LEN   244 /* revision 3 */
#define FACS_LEN   64
#define HPET_LEN   56
#define RSDP_LEN   ACPI_RSDP_LEN
#define IMAGE_CAP  LAYOUT_ACPI_TABLES_SIZE

/* The image while it grows. Tables are appended; addresses are base plus offset. */
struct builder {
    const struct acpi_tables_config *cfg;
    uint8_t *buf;
    size_t len;
    bool overflow;
    struct acpi_image *image; /* where pointers and checksums are noted */
};

static void put(uint8_t *p, uint64_t v, unsigned size)
{
    for (unsigned i = 0; i < size; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

/* Room for `n` zero bytes at the next multiple of `align`; the offset, or 0 with overflow set (offset 0 is the RSDP's).
 */
static size_t reserve(struct builder *b, size_t n, size_t align)
{
    size_t at = (b->len + align - 1) & ~(align - 1);
    if (at + n > IMAGE_CAP) {
        b->overflow = true;
        return 0;
    }
    b->len = at + n;
    return at;
}

static uint32_t address(const struct builder *b, size_t offset)
{
    return (uint32_t)(b->cfg->base + offset);
}

/* Writes the address of `offset` at `at`. */
static void put_address(struct builder *b, size_t at, size_t offset, uint8_t size)
{
    struct acpi_image *m = b->image;
    put(b->buf + at, address(b, offset), size);
    if (m->pointers < ACPI_POINTERS_MAX)
        m->pointer[m->pointers++] = (struct acpi_pointer){(uint32_t)at, size};
    else
        b->overflow = true;
}

static void note_sum(struct builder *b, size_t at, size_t start, size_t len)
{
    struct acpi_image *m = b->image;
    if (m->sums < ACPI_SUMS_MAX)
        m->sum[m->sums++] = (struct acpi_sum){(uint32_t)at, (uint32_t)start, (uint32_t)len};
    else
        b->overflow = true;
}

static uint8_t checksum(const uint8_t *p, size_t n)
{
    uint8_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum = (uint8_t)(sum + p[i]);
    return (uint8_t)-sum;
}

/* Header and checksum of the finished table at `at`. */
static void seal(struct builder *b, size_t at, size_t len, const char *signature, uint8_t revision)
{
    uint8_t *t = b->buf + at;
    memcpy(t, signature, 4);
    put(t + 4, len, 4);
    t[8] = revision;
    memcpy(t + 10, "UMBRA ", 6);
    memcpy(t + 16, "UMBRAPC ", 8);
    put(t + 24, 1, 4);
    memcpy(t + 28, "UMBR", 4);
    put(t + 32, 1, 4);
    t[9] = 0;
    t[9] = checksum(t, len);
    note_sum(b, at + 9, at, len);
}

/* A generic address structure for a port range of `bytes`. */
static void put_port(uint8_t *p, uint16_t port, unsigned bytes, uint8_t access)
{
    p[0] = 1; /* system I/O */
    p[1] = (uint8_t)(8 * bytes);
    p[2] = 0;
    p[3] = access;
    put(p + 4, port, 8);
}

static size_t build_facs(struct builder *b)
{
    size_t at = reserve(b, FACS_LEN, 64);
    if (b->overflow)
        return 0;
    memcpy(b->buf + at, "FACS", 4);
    put(b->buf + at + 4, FACS_LEN, 4);
    b->buf[at + 32] = 1; /* version */
    return at;
}

static size_t build_dsdt(struct builder *b)
{
    size_t at = reserve(b, HEADER_LEN, 16);
    if (b->overflow)
        return 0;
    size_t body = acpi_dsdt_build(b->cfg, b->buf + b->len, IMAGE_CAP - b->len);
    b->overflow |= body == 0;
    b->len += body;
    seal(b, at, HEADER_LEN + body, "DSDT", 2);
    return at;
}

/* The fixed hardware at its 32-bit fields and, from revision 3 on, as generic addresses. */
static void put_fixed_hardware(const struct acpi_tables_config *cfg, uint8_t *t)
{
    static const struct {
        uint8_t field, len_field, extended, offset, len, access;
    } block[] = {
        {56, 88, 148, ACPI_PM_EVENT, 4, 2},
        {64, 89, 172, ACPI_PM_CONTROL, 2, 2},
        {76, 91, 208, ACPI_PM_TIMER, 4, 3},
        {80, 92, 220, ACPI_PM_GPE0, 4, 1},
    };
    uint16_t base = cfg->pm_port ? cfg->pm_port : LAYOUT_ACPI_PM_PORT;
    for (unsigned i = 0; i < ARRAY_LEN(block); i++) {
        uint16_t port = (uint16_t)(base + block[i].offset);
        put(t + block[i].field, port, 4);
        t[block[i].len_field] = block[i].len;
        put_port(t + block[i].extended, port, block[i].len, block[i].access);
    }
}

#define BOOT_LEGACY 0x01 /* user-visible ISA devices */
#define BOOT_8042   0x02
#define BOOT_NO_VGA 0x04

#define FLAG_WBINVD          (1u << 0)
#define FLAG_C1              (1u << 2)
#define FLAG_NO_SLEEP_BUTTON (1u << 5)
#define FLAG_NO_FIXED_RTC    (1u << 6)
#define FLAG_RESET_REGISTER  (1u << 10)

static size_t build_fadt(struct builder *b, size_t facs, size_t dsdt)
{
    size_t at = reserve(b, FADT_LEN, 16);
    if (b->overflow)
        return 0;
    uint8_t *t = b->buf + at;
    uint16_t boot = BOOT_LEGACY | (b->cfg->keyboard ? BOOT_8042 : 0) | (b->cfg->vga ? 0 : BOOT_NO_VGA);
    put_address(b, at + 36, facs, 4);
    put_address(b, at + 40, dsdt, 4);
    t[45] = 1; /* desktop */
    put(t + 46, LAYOUT_IRQ_SCI, 2);
    put(t + 48, LAYOUT_SMI_PORT, 4);
    t[52] = LAYOUT_ACPI_ENABLE;
    t[53] = LAYOUT_ACPI_DISABLE;
    put_fixed_hardware(b->cfg, t);
    put(t + 96, 0x0fff, 2); /* C2 and C3 latencies that say: not supported */
    put(t + 98, 0x0fff, 2);
    t[108] = LAYOUT_CMOS_CENTURY;
    put(t + 109, boot, 2);
    put(t + 112, FLAG_WBINVD | FLAG_C1 | FLAG_NO_SLEEP_BUTTON | FLAG_NO_FIXED_RTC | FLAG_RESET_REGISTER, 4);
    put_port(t + 116, LAYOUT_RESET_PORT, 1, 1);
    t[128] = LAYOUT_RESET_VALUE;
    put_address(b, at + 140, dsdt, 8);
    seal(b, at, FADT_LEN, "FACP", 3);
    return at;
}

static uint8_t *madt_entry(struct builder *b, uint8_t type, uint8_t len)
{
    size_t at = reserve(b, len, 1);
    uint8_t *e = b->buf + at;
    if (b->overflow)
        return NULL;
    e[0] = type;
    e[1] = len;
    return e;
}

uint32_t acpi_apic_id(const struct acpi_tables_config *cfg, unsigned cpu)
{
    return cfg->topology.sockets ? topology_apic_id(&cfg->topology, cpu) : cpu;
}

static void madt_cpu(struct builder *b, unsigned cpu)
{
    uint8_t *e = madt_entry(b, 0, 8);
    if (!e)
        return;
    e[2] = (uint8_t)cpu;
    e[3] = (uint8_t)acpi_apic_id(b->cfg, cpu);
    put(e + 4, 1, 4); /* enabled */
}

static void madt_ioapic(struct builder *b)
{
    uint8_t *e = madt_entry(b, 1, 12);
    if (!e)
        return;
    e[2] = LAYOUT_IOAPIC_ID;
    put(e + 4, LAYOUT_IOAPIC, 4);
    put(e + 8, 0, 4); /* first GSI */
}

static void madt_override(struct builder *b, uint8_t irq, uint32_t gsi, uint16_t flags)
{
    uint8_t *e = madt_entry(b, 2, 10);
    if (!e)
        return;
    e[3] = irq;
    put(e + 4, gsi, 4);
    put(e + 8, flags, 2);
}

/* LINT1 of every local APIC is NMI. */
static void madt_nmi(struct builder *b)
{
    uint8_t *e = madt_entry(b, 4, 6);
    if (!e)
        return;
    e[2] = 0xff;
    e[5] = 1;
}

#define ACTIVE_HIGH_LEVEL 0x000d

static size_t build_madt(struct builder *b)
{
    size_t at = reserve(b, HEADER_LEN + 8, 16);
    if (b->overflow)
        return 0;
    put(b->buf + at + 36, LAYOUT_LAPIC, 4);
    put(b->buf + at + 40, 1, 4); /* there is an 8259 pair too */
    for (unsigned cpu = 0; cpu < b->cfg->cpu_count; cpu++)
        madt_cpu(b, cpu);
    madt_ioapic(b);
    madt_override(b, LAYOUT_IRQ_PIT, LAYOUT_GSI_PIT, 0);
    madt_override(b, LAYOUT_IRQ_SCI, LAYOUT_IRQ_SCI, ACTIVE_HIGH_LEVEL);
    madt_nmi(b);
    seal(b, at, b->len - at, "APIC", 3);
    return at;
}

/* IA-PC HPET Specification 1.0a, 3.2.4. */
static size_t build_hpet(struct builder *b)
{
    size_t at = reserve(b, HPET_LEN, 16);
    if (b->overflow)
        return 0;
    uint8_t *t = b->buf + at;
    put(t + 36, HPET_BLOCK_ID, 4);
    put(t + 44, LAYOUT_HPET, 8); /* a generic address: system memory */
    put(t + 53, HPET_PERIOD_MIN, 2);
    seal(b, at, HPET_LEN, "HPET", 1);
    return at;
}

/* RSDT (entries of 4 bytes) or XSDT (8). */
static size_t build_root(struct builder *b, const size_t *table, unsigned count, unsigned entry)
{
    size_t len = HEADER_LEN + (size_t)count * entry, at = reserve(b, len, 16);
    if (b->overflow)
        return 0;
    for (unsigned i = 0; i < count; i++)
        put_address(b, at + HEADER_LEN + (size_t)i * entry, table[i], (uint8_t)entry);
    seal(b, at, len, entry == 4 ? "RSDT" : "XSDT", 1);
    return at;
}

static void fill_rsdp(struct builder *b, size_t rsdt, size_t xsdt)
{
    uint8_t *p = b->buf;
    memcpy(p, "RSD PTR ", 8);
    memcpy(p + 9, "UMBRA ", 6);
    p[15] = 2;
    put_address(b, 16, rsdt, 4);
    put(p + 20, RSDP_LEN, 4);
    put_address(b, 24, xsdt, 8);
    p[8] = checksum(p, 20);
    p[32] = checksum(p, RSDP_LEN);
    note_sum(b, 8, 0, 20);
    note_sum(b, 32, 0, RSDP_LEN);
}

bool acpi_tables_build(const struct acpi_tables_config *cfg, struct acpi_image *image)
{
    struct builder b = {.cfg = cfg, .buf = calloc(1, IMAGE_CAP), .image = image};
    size_t table[3];
    unsigned count = 0;
    *image = (struct acpi_image){0};
    if (!b.buf)
        return false;
    reserve(&b, RSDP_LEN, 16);
    size_t facs = build_facs(&b), dsdt = build_dsdt(&b);
    table[count++] = build_fadt(&b, facs, dsdt);
    table[count++] = build_madt(&b);
    if (cfg->hpet)
        table[count++] = build_hpet(&b);
    size_t rsdt = build_root(&b, table, count, 4), xsdt = build_root(&b, table, count, 8);
    if (b.overflow) {
        free(b.buf);
        return false;
    }
    fill_rsdp(&b, rsdt, xsdt);
    image->bytes = b.buf;
    image->len = b.len;
    return true;
}

void acpi_image_fini(struct acpi_image *image)
{
    free(image->bytes);
    *image = (struct acpi_image){0};
}
