/*
 * fw_cfg: selector and data ports, the file directory, DMA in all its forms, and descriptors that mean harm.
 */
#include "devices_rig.h"

#include "devices/fw_cfg.h"

#define RAM (64u * 4096)

struct rig {
    struct vclock clock;
    struct fw_cfg fw;
    uint8_t *ram;
    unsigned accesses;
    size_t longest;
};

/* RAM at 0, nothing above it. */
static enum mem_result rig_access(void *ctx, unsigned as, gpa_t gpa, void *buf, size_t len, enum mem_kind kind,
                                  bool write)
{
    struct rig *g = ctx;
    ck_assert_int_eq(kind, MEM_DMA);
    g->accesses++;
    g->longest = len > g->longest ? len : g->longest;
    if (gpa >= RAM || len > RAM - gpa)
        return MEM_DEVICE;
    if (write)
        memcpy(g->ram + gpa, buf, len);
    else
        memcpy(buf, g->ram + gpa, len);
    return MEM_OK;
}

static void rig_init(struct rig *g)
{
    memset(g, 0, sizeof(*g));
    clock_init(&g->clock);
    g->ram = malloc(RAM);
    memset(g->ram, 0xaa, RAM);
    ck_assert(fw_cfg_init(&g->fw, &(struct fw_cfg_config){.memory = {.ctx = g, .access = rig_access},
                                                          .ram_size = 512ull << 20,
                                                          .cpu_count = 2,
                                                          .max_cpus = 4}));
}

static void rig_fini(struct rig *g)
{
    fw_cfg_fini(&g->fw);
    free(g->ram);
}

static void select_key(struct rig *g, uint16_t key)
{
    reg_write(&fw_cfg_bus_ops, &g->fw, 0, 2, key);
}

static uint64_t data(struct rig *g, unsigned bytes)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < bytes; i++)
        v |= reg_read(&fw_cfg_bus_ops, &g->fw, 1, 1) << (8 * i);
    return v;
}

static void put_be(uint8_t *p, unsigned size, uint64_t v)
{
    for (unsigned i = 0; i < size; i++)
        p[i] = (uint8_t)(v >> (8 * (size - 1 - i)));
}

static void start(struct rig *g, uint64_t at)
{
    reg_write(&fw_cfg_dma_bus_ops, &g->fw, 0, 4, __builtin_bswap32((uint32_t)(at >> 32)));
    reg_write(&fw_cfg_dma_bus_ops, &g->fw, 4, 4, __builtin_bswap32((uint32_t)at));
}

/* Runs a request whose descriptor is at 0x100; returns the control field afterwards. */
static uint32_t dma(struct rig *g, uint32_t control, uint32_t length, uint64_t address)
{
    put_be(g->ram + 0x100, 4, control);
    put_be(g->ram + 0x104, 4, length);
    put_be(g->ram + 0x108, 8, address);
    start(g, 0x100);
    return (uint32_t)g->ram[0x100] << 24 | g->ram[0x101] << 16 | g->ram[0x102] << 8 | g->ram[0x103];
}

START_TEST(standard_keys_answer)
{
    struct rig g;
    rig_init(&g);
    ck_assert_uint_eq(data(&g, 4), 0x554d4551); /* selected at reset */
    select_key(&g, FW_CFG_SIGNATURE);
    ck_assert_uint_eq(data(&g, 4), 0x554d4551); /* "QEMU" */
    ck_assert_uint_eq(data(&g, 1), 0);          /* beyond the end */
    select_key(&g, FW_CFG_ID);
    ck_assert_uint_eq(data(&g, 4), 3);
    select_key(&g, FW_CFG_RAM_SIZE);
    ck_assert_uint_eq(data(&g, 8), 512ull << 20);
    select_key(&g, FW_CFG_NB_CPUS);
    ck_assert_uint_eq(data(&g, 2), 2);
    select_key(&g, FW_CFG_MAX_CPUS);
    ck_assert_uint_eq(data(&g, 2), 4);
    select_key(&g, 0x7777);
    ck_assert_uint_eq(data(&g, 4), 0);
    rig_fini(&g);
}
END_TEST

START_TEST(dma_port_shows_its_signature)
{
    struct rig g;
    rig_init(&g);
    ck_assert_uint_eq(reg_read(&fw_cfg_dma_bus_ops, &g.fw, 0, 4), __builtin_bswap32(0x51454d55));
    ck_assert_uint_eq(reg_read(&fw_cfg_dma_bus_ops, &g.fw, 4, 4), __builtin_bswap32(0x20434647));
    ck_assert_uint_eq(reg_read(&fw_cfg_dma_bus_ops, &g.fw, 1, 1), 'E');
    rig_fini(&g);
}
END_TEST

START_TEST(files_are_listed_and_read)
{
    struct rig g;
    rig_init(&g);
    ck_assert(fw_cfg_add_file(&g.fw, "etc/first", "abc", 3, false));
    ck_assert(fw_cfg_add_file(&g.fw, "opt/second", "defgh", 5, false));
    ck_assert(!fw_cfg_add_file(&g.fw, "opt/a name that is far too long for the 56 bytes of an entry", "", 0, false));
    ck_assert_uint_eq(dma(&g, FW_CFG_FILE_DIR << 16 | 0x0a, 4 + 2 * 64, 0x2000), 0);
    const uint8_t *dir = g.ram + 0x2000;
    ck_assert_mem_eq(dir, "\0\0\0\2\0\0\0\3\0\x20\0\0etc/first", 22);
    ck_assert_mem_eq(dir + 4 + 64, "\0\0\0\5\0\x21\0\0opt/second", 19);
    select_key(&g, 0x21);
    ck_assert_uint_eq(data(&g, 5), 0x6867666564);
    rig_fini(&g);
}
END_TEST

START_TEST(dma_read_crosses_pages_and_moves_on)
{
    struct rig g;
    uint8_t blob[10000];
    for (unsigned i = 0; i < sizeof(blob); i++)
        blob[i] = (uint8_t)(i * 31 + 7);
    rig_init(&g);
    ck_assert(fw_cfg_add_ref(&g.fw, FW_CFG_KERNEL_DATA, blob, sizeof(blob)));
    ck_assert_uint_eq(dma(&g, FW_CFG_KERNEL_DATA << 16 | 0x0a, 6000, 0x3ffd), 0);
    ck_assert_mem_eq(g.ram + 0x3ffd, blob, 6000);
    ck_assert_uint_eq(g.ram[0x3ffc], 0xaa);
    ck_assert_uint_le(g.longest, 4096);
    ck_assert_uint_eq(dma(&g, 0x04, 1000, 0), 0); /* skip */
    ck_assert_uint_eq(dma(&g, 0x02, 3100, 0x8000), 0);
    ck_assert_mem_eq(g.ram + 0x8000, blob + 7000, 3000);
    for (unsigned i = 3000; i < 3100; i++)
        ck_assert_uint_eq(g.ram[0x8000 + i], 0); /* zeros behind the end */
    ck_assert_uint_eq(g.ram[0x8000 + 3100], 0xaa);
    rig_fini(&g);
}
END_TEST

START_TEST(select_alone_and_ports_share_the_position)
{
    struct rig g;
    rig_init(&g);
    ck_assert_uint_eq(dma(&g, FW_CFG_RAM_SIZE << 16 | 0x08, 0, 0), 0);
    ck_assert_uint_eq(data(&g, 3), 0);
    ck_assert_uint_eq(dma(&g, 0x02, 1, 0x2000), 0);
    ck_assert_uint_eq(g.ram[0x2000], 0x20);
    rig_fini(&g);
}
END_TEST

START_TEST(writable_file_takes_dma_writes_within_its_size)
{
    struct rig g;
    rig_init(&g);
    ck_assert(fw_cfg_add_file(&g.fw, "rw", "........", 8, true));
    ck_assert(fw_cfg_add_file(&g.fw, "ro", "........", 8, false));
    memcpy(g.ram + 0x2000, "hello world", 11);
    ck_assert_uint_eq(dma(&g, 0x20 << 16 | 0x18, 5, 0x2000), 0);
    ck_assert_uint_eq(dma(&g, 0x10, 4, 0x2000), 1); /* four more do not fit */
    ck_assert_uint_eq(dma(&g, 0x10, 3, 0x2008), 0);
    ck_assert_mem_eq(fw_cfg_find(&g.fw, 0x20)->data, "hellorld", 8);
    ck_assert_uint_eq(dma(&g, 0x21 << 16 | 0x18, 4, 0x2000), 1);
    ck_assert_mem_eq(fw_cfg_find(&g.fw, 0x21)->data, "........", 8);
    rig_fini(&g);
}
END_TEST

START_TEST(gigantic_lengths_end_at_once_with_the_error_bit)
{
    struct rig g;
    rig_init(&g);
    g.accesses = 0;
    ck_assert_uint_eq(dma(&g, FW_CFG_ID << 16 | 0x0a, 0xffffffff, 0), 1);
    ck_assert_uint_eq(dma(&g, FW_CFG_ID << 16 | 0x18, 0xffffffff, 0), 1);
    ck_assert_uint_eq(dma(&g, 0x4444u << 16 | 0x0a, 0xffffffff, 0x1000), 1);
    ck_assert_uint_eq(dma(&g, 0x04, 0xffffffff, 0), 0); /* skipping far is harmless */
    ck_assert_uint_eq(data(&g, 1), 0);
    ck_assert_uint_lt(g.accesses, 20);
    ck_assert_uint_eq(g.ram[0], 0xaa);
    rig_fini(&g);
}
END_TEST

START_TEST(addresses_without_memory_give_the_error_bit_or_silence)
{
    struct rig g;
    rig_init(&g);
    ck_assert_uint_eq(dma(&g, FW_CFG_ID << 16 | 0x0a, 4, RAM), 1);
    ck_assert_uint_eq(dma(&g, FW_CFG_ID << 16 | 0x0a, 4, RAM - 2), 1);
    ck_assert_uint_eq(dma(&g, FW_CFG_ID << 16 | 0x0a, 8, UINT64_MAX - 3), 1); /* wraps */
    start(&g, UINT64_MAX - 4);                                                /* the descriptor itself lies nowhere */
    start(&g, RAM - 8);
    start(&g, 0xfffffffffff0);
    select_key(&g, FW_CFG_ID);
    ck_assert_uint_eq(data(&g, 4), 3);
    rig_fini(&g);
}
END_TEST

START_TEST(read_may_overwrite_its_own_descriptor)
{
    struct rig g;
    uint8_t blob[4096];
    memset(blob, 0x5c, sizeof(blob));
    rig_init(&g);
    ck_assert(fw_cfg_add(&g.fw, 0x9000, blob, sizeof(blob)));
    ck_assert_uint_eq(dma(&g, 0x9000u << 16 | 0x0a, sizeof(blob), 0x0), 0);
    ck_assert_uint_eq(g.ram[0x104], 0x5c);
    rig_fini(&g);
}
END_TEST

START_TEST(odd_port_accesses_do_nothing)
{
    struct rig g;
    rig_init(&g);
    for (unsigned offset = 0; offset < 8; offset++)
        for (unsigned size = 1; size <= 8; size *= 2) {
            if (!(offset == 4 && size == 4) && !(offset == 0 && size == 8))
                reg_write(&fw_cfg_dma_bus_ops, &g.fw, offset, size, ~0ull);
            reg_read(&fw_cfg_dma_bus_ops, &g.fw, offset, size);
        }
    reg_write(&fw_cfg_bus_ops, &g.fw, 1, 1, 0xff);
    reg_write(&fw_cfg_bus_ops, &g.fw, 0, 1, 0xff);
    ck_assert_uint_eq(data(&g, 4), 0x554d4551);
    ck_assert_uint_eq(g.accesses, 0);
    rig_fini(&g);
}
END_TEST

START_TEST(loaded_device_reads_on_at_the_saved_position)
{
    struct rig a, b;
    rig_init(&a);
    rig_init(&b);
    struct rig *both[2] = {&a, &b};
    for (unsigned i = 0; i < 2; i++)
        ck_assert(fw_cfg_add_file(&both[i]->fw, "rw", "........", 8, true));
    memcpy(a.ram + 0x2000, "changed!", 8);
    dma(&a, 0x20 << 16 | 0x18, 8, 0x2000);
    select_key(&a, 0x20);
    data(&a, 3);
    reg_write(&fw_cfg_dma_bus_ops, &a.fw, 0, 4, 0x01000000); /* high half of an address is latched */
    ROUND_TRIP(&a.clock, &b.clock, fw_cfg_save(&a.fw, w), fw_cfg_load(&b.fw, r));
    ck_assert_uint_eq(b.fw.dma_address, a.fw.dma_address);
    ck_assert_uint_eq(data(&b, 5), data(&a, 5));
    ck_assert_mem_eq(fw_cfg_find(&b.fw, 0x20)->data, "changed!", 8);
    rig_fini(&a);
    rig_fini(&b);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("fw_cfg");
    TCase *t = tcase_create("fw_cfg");
    tcase_add_test(t, standard_keys_answer);
    tcase_add_test(t, dma_port_shows_its_signature);
    tcase_add_test(t, files_are_listed_and_read);
    tcase_add_test(t, dma_read_crosses_pages_and_moves_on);
    tcase_add_test(t, select_alone_and_ports_share_the_position);
    tcase_add_test(t, writable_file_takes_dma_writes_within_its_size);
    tcase_add_test(t, gigantic_lengths_end_at_once_with_the_error_bit);
    tcase_add_test(t, addresses_without_memory_give_the_error_bit_or_silence);
    tcase_add_test(t, read_may_overwrite_its_own_descriptor);
    tcase_add_test(t, odd_port_accesses_do_nothing);
    tcase_add_test(t, loaded_device_reads_on_at_the_saved_position);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
