/*
 * SMBIOS: the entry point's sums, every structure's frame, and what the tables say of processors and memory; and
 * vmcoreinfo, which the guest fills.
 */
#include "devices_rig.h"

#include "devices/smbios.h"
#include "devices/vmcoreinfo.h"

#define GIB (1ull << 30)

static const struct smbios_user nobody;

static struct smbios_config config(void)
{
    return (struct smbios_config){.user = &nobody,
                                  .topology = {2, 3, 2},
                                  .signature = 0x000306c3,
                                  .features = 0x0f8bfbff,
                                  .cpu_vendor = "GenuineUmbra",
                                  .cpu_version = "a processor",
                                  .low_ram = 3 * GIB,
                                  .high_ram = 30 * GIB};
}

static struct smbios_image *build(const struct smbios_config *cfg, uint32_t base)
{
    struct smbios_image *m = malloc(sizeof *m);
    ck_assert(smbios_build(cfg, base, m));
    return m;
}

static uint8_t sum(const uint8_t *p, size_t n)
{
    uint8_t s = 0;
    for (size_t i = 0; i < n; i++)
        s = (uint8_t)(s + p[i]);
    return s;
}

static uint64_t le(const uint8_t *p, unsigned size)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < size; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

/* The structure behind `s`, whose strings end with two zeros. */
static const uint8_t *next(const uint8_t *s)
{
    for (s += s[1]; s[0] || s[1]; s++)
        ;
    return s + 2;
}

/* The nth structure of a type, or NULL. */
static const uint8_t *find(const struct smbios_image *m, uint8_t type, unsigned nth)
{
    for (const uint8_t *s = m->tables; s < m->tables + m->len; s = next(s))
        if (s[0] == type && nth-- == 0)
            return s;
    return NULL;
}

/* The string whose number is at `field`. */
static const char *string(const uint8_t *s, unsigned field)
{
    const char *p = (const char *)s + s[1];
    if (!s[field])
        return "";
    for (unsigned n = 1; n < s[field]; n++)
        p += strlen(p) + 1;
    return p;
}

START_TEST(entry_point_has_both_sums_and_counts_what_is_there)
{
    struct smbios_config c = config();
    struct smbios_image *m = build(&c, 0xf0020);
    const uint8_t *a = m->anchor;
    ck_assert_mem_eq(a, "_SM_", 4);
    ck_assert_mem_eq(a + 16, "_DMI_", 5);
    ck_assert_uint_eq(a[5], SMBIOS_ANCHOR_LEN);
    ck_assert_uint_eq(sum(a, SMBIOS_ANCHOR_LEN), 0);
    ck_assert_uint_eq(sum(a + 16, 15), 0);
    ck_assert_uint_eq(le(a + 22, 2), m->len);
    ck_assert_uint_eq(le(a + 24, 4), 0xf0020);
    unsigned count = 0, longest = 0, handles[64] = {0};
    const uint8_t *s = m->tables, *end = m->tables + m->len;
    for (; s < end; s = next(s)) {
        unsigned len = (unsigned)(next(s) - s);
        longest = len > longest ? len : longest;
        for (unsigned k = 0; k < count; k++)
            ck_assert_uint_ne(handles[k], le(s + 2, 2));
        handles[count++] = (unsigned)le(s + 2, 2);
    }
    ck_assert_ptr_eq(s, end);
    ck_assert_uint_eq(le(a + 28, 2), count);
    ck_assert_uint_eq(le(a + 8, 2), longest);
    free(m);
}
END_TEST

START_TEST(every_type_is_there_and_as_long_as_version_2_8_has_it)
{
    static const struct {
        uint8_t type, len;
    } wanted[] = {{0, 0x18},  {1, 0x1b},  {3, 0x16},  {4, 0x2a},  {16, 0x17},
                  {17, 0x28}, {19, 0x1f}, {32, 0x0b}, {127, 0x04}};
    struct smbios_config c = config();
    struct smbios_image *m = build(&c, 0);
    for (size_t k = 0; k < ARRAY_LEN(wanted); k++) {
        const uint8_t *s = find(m, wanted[k].type, 0);
        ck_assert_msg(s && s[1] == wanted[k].len, "type %u has length %u", wanted[k].type, s ? s[1] : 0);
    }
    ck_assert_ptr_null(find(m, 2, 0));
    ck_assert_ptr_null(find(m, 11, 0));
    ck_assert_str_eq(string(find(m, 0, 0), 4), "Umbra");
    ck_assert_str_eq(string(find(m, 1, 0), 5), "Umbra PC (i440FX + PIIX3)");
    ck_assert_str_eq(string(find(m, 1, 0), 7), "");
    free(m);
}
END_TEST

START_TEST(each_socket_has_a_processor_with_its_cores_and_threads)
{
    struct smbios_config c = config();
    struct smbios_image *m = build(&c, 0);
    for (unsigned k = 0; k < 2; k++) {
        const uint8_t *s = find(m, 4, k);
        ck_assert_ptr_nonnull(s);
        ck_assert_uint_eq(le(s + 8, 4), 0x000306c3);
        ck_assert_uint_eq(le(s + 12, 4), 0x0f8bfbff);
        ck_assert_str_eq(string(s, 4), k ? "CPU 1" : "CPU 0");
        ck_assert_str_eq(string(s, 7), "GenuineUmbra");
        ck_assert_str_eq(string(s, 16), "a processor");
        ck_assert_uint_eq(s[35], 3);
        ck_assert_uint_eq(s[36], 3);
        ck_assert_uint_eq(s[37], 6);
    }
    ck_assert_ptr_null(find(m, 4, 2));
    free(m);
}
END_TEST

START_TEST(memory_devices_and_mapped_ranges_add_up_to_the_memory)
{
    struct smbios_config c = config();
    struct smbios_image *m = build(&c, 0);
    ck_assert_uint_eq(le(find(m, 16, 0) + 7, 4), 33 << 20); /* KiB */
    ck_assert_uint_eq(le(find(m, 16, 0) + 13, 2), 3);
    uint64_t mib = 0;
    for (unsigned k = 0; k < 3; k++)
        mib += le(find(m, 17, k) + 12, 2);
    ck_assert_uint_eq(mib, 33 << 10);
    ck_assert_ptr_null(find(m, 17, 3));
    ck_assert_uint_eq(le(find(m, 19, 0) + 4, 4), 0);
    ck_assert_uint_eq(le(find(m, 19, 0) + 8, 4), (3u << 20) - 1);
    ck_assert_uint_eq(le(find(m, 19, 1) + 4, 4), 4u << 20);
    ck_assert_uint_eq(le(find(m, 19, 1) + 8, 4), (34u << 20) - 1);
    free(m);
    c.low_ram = 2ull << 20;
    c.high_ram = 0;
    m = build(&c, 0);
    ck_assert_uint_eq(le(find(m, 17, 0) + 12, 2), 2);
    ck_assert_ptr_null(find(m, 19, 1));
    free(m);
}
END_TEST

START_TEST(the_user_s_texts_replace_the_defaults)
{
    struct smbios_user u = {.uuid = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}};
    struct smbios_config c = config();
    c.user = &u;
    u.text[smbios_text_find(1, "serial", 0)] = "4711";
    u.text[smbios_text_find(1, "manufacturer", 0)] = "";
    u.text[smbios_text_find(2, "asset", 0)] = "tag";
    u.text[smbios_text_find(11, "value", 0)] = "one";
    u.text[smbios_text_find(11, "value", 1)] = "two";
    ck_assert_int_eq(smbios_text_find(11, "value", 4), -1);
    ck_assert_int_eq(smbios_text_find(1, "colour", 0), -1);
    struct smbios_image *m = build(&c, 0);
    const uint8_t *s = find(m, 1, 0);
    ck_assert_uint_eq(s[4], 0); /* no string */
    ck_assert_str_eq(string(s, 7), "4711");
    ck_assert_mem_eq(s + 8, "\3\2\1\0\5\4\7\6\10\11\12\13\14\15\16\17", 16);
    ck_assert_str_eq(string(find(m, 2, 0), 8), "tag");
    ck_assert_uint_eq(find(m, 11, 0)[4], 2);
    ck_assert_str_eq((const char *)find(m, 11, 0) + 5 + 4, "two");
    free(m);
}
END_TEST

START_TEST(texts_that_do_not_fit_are_refused)
{
    char *huge = calloc(1, SMBIOS_TABLES_MAX + 1);
    struct smbios_user u = {0};
    struct smbios_config c = config();
    struct smbios_image *m = malloc(sizeof *m);
    memset(huge, 'x', SMBIOS_TABLES_MAX);
    u.text[SMBIOS_SYSTEM_SERIAL] = huge;
    c.user = &u;
    ck_assert(!smbios_build(&c, 0, m));
    ck_assert_uint_le(m->len, SMBIOS_TABLES_MAX);
    free(m);
    free(huge);
}
END_TEST

/* ---- vmcoreinfo ---- */

static enum mem_result descriptor_memory(void *ctx, unsigned as, gpa_t gpa, void *buf, size_t len, enum mem_kind kind,
                                         bool write)
{
    uint8_t *ram = ctx;
    if (gpa + len > 4096)
        return MEM_DEVICE;
    if (write)
        memcpy(ram + gpa, buf, len);
    else
        memcpy(buf, ram + gpa, len);
    return MEM_OK;
}

START_TEST(vmcoreinfo_is_what_the_guest_wrote_until_a_reset)
{
    uint8_t ram[4096] = {0};
    struct fw_cfg f;
    struct vmcoreinfo v;
    ck_assert(fw_cfg_init(&f, &(struct fw_cfg_config){.memory = {.ctx = ram, .access = descriptor_memory}}));
    ck_assert(!vmcoreinfo_get(&f, &v));
    vmcoreinfo_reset(&f); /* nothing there: nothing happens */
    ck_assert(vmcoreinfo_init(&f) && !vmcoreinfo_get(&f, &v));
    /* What Linux's driver does: a DMA write of the whole structure. */
    static const uint8_t note[16] = {1, 0, 1, 0, 0x24, 0x10, 0, 0, 0x78, 0x56, 0x34, 0x12};
    memcpy(ram + 0x200, note, sizeof note);
    memcpy(ram + 0x100, "\0\x20\0\x18\0\0\0\x10\0\0\0\0\0\0\2\0", 16); /* key 0x20, select and write, 16 bytes, 0x200 */
    reg_write(&fw_cfg_dma_bus_ops, &f, 4, 4, __builtin_bswap32(0x100));
    ck_assert(vmcoreinfo_get(&f, &v));
    ck_assert_uint_eq(v.size, 0x1024);
    ck_assert_uint_eq(v.gpa, 0x12345678);
    vmcoreinfo_reset(&f);
    ck_assert(!vmcoreinfo_get(&f, &v));
    fw_cfg_fini(&f);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("smbios");
    TCase *t = tcase_create("smbios");
    tcase_add_test(t, entry_point_has_both_sums_and_counts_what_is_there);
    tcase_add_test(t, every_type_is_there_and_as_long_as_version_2_8_has_it);
    tcase_add_test(t, each_socket_has_a_processor_with_its_cores_and_threads);
    tcase_add_test(t, memory_devices_and_mapped_ranges_add_up_to_the_memory);
    tcase_add_test(t, the_user_s_texts_replace_the_defaults);
    tcase_add_test(t, texts_that_do_not_fit_are_refused);
    tcase_add_test(t, vmcoreinfo_is_what_the_guest_wrote_until_a_reset);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
