/* The port and MMIO bus: routing, overlap, splitting, removal, the log of unclaimed accesses. */
#include "core/bus.h"
#include "core/log.h"
#include "tests/unit/check_main.h"

#include <string.h>

struct ram {
    uint8_t bytes[64];
    unsigned reads, writes, last_size;
    int last_cpu;
    struct bus *remove_from; /* a write takes the device off this bus */
    uint64_t base;
};

static uint64_t ram_read(void *dev, const struct bus_txn *t)
{
    struct ram *r = dev;
    uint64_t v = 0xdead000000000000ull; /* bits beyond the size must not get through */
    memcpy(&v, r->bytes + t->offset, t->size);
    r->reads++;
    r->last_size = t->size;
    r->last_cpu = t->cpu;
    return v;
}

static void ram_write(void *dev, const struct bus_txn *t, uint64_t value)
{
    struct ram *r = dev;
    memcpy(r->bytes + t->offset, &value, t->size);
    r->writes++;
    r->last_size = t->size;
    if (r->remove_from)
        ck_assert_int_eq(bus_remove(r->remove_from, r->base, r), BUS_OK);
}

static const struct bus_ops ram_ops = {.read = ram_read, .write = ram_write};
static const struct bus_ops write_only_ops = {.write = ram_write};

static struct bus bus;
static struct ram a, b;

static void setup(void)
{
    bus_init(&bus, "port", 0x10000, NULL);
    memset(&a, 0, sizeof a);
    memset(&b, 0, sizeof b);
    for (unsigned i = 0; i < 64; i++) {
        a.bytes[i] = (uint8_t)(0x10 + i);
        b.bytes[i] = (uint8_t)(0x80 + i);
    }
}

static void teardown(void)
{
    bus_fini(&bus);
}

static enum bus_error add(struct ram *r, uint64_t base, uint64_t len)
{
    r->base = base;
    return bus_add(&bus, base, len, &ram_ops, r, "ram");
}

START_TEST(device_sees_offset_size_and_initiator)
{
    ck_assert_int_eq(add(&a, 0x60, 8), BUS_OK);
    ck_assert_uint_eq(bus_read(&bus, 0x62, 2, 3), 0x1312);
    ck_assert_uint_eq(a.last_size, 2);
    ck_assert_int_eq(a.last_cpu, 3);
    bus_write(&bus, 0x64, 4, 0x1122334455667788ull, 0);
    ck_assert_uint_eq(bus_read(&bus, 0x60, 8, 0), 0x5566778813121110ull);
    ck_assert_uint_eq(a.writes, 1);
}
END_TEST

START_TEST(overlap_is_refused_wherever_it_lies)
{
    ck_assert_int_eq(add(&a, 0x100, 0x10), BUS_OK);
    ck_assert_int_eq(add(&b, 0x100, 0x10), BUS_ERR_OVERLAP);
    ck_assert_int_eq(add(&b, 0xf8, 9), BUS_ERR_OVERLAP);
    ck_assert_int_eq(add(&b, 0x10f, 1), BUS_ERR_OVERLAP);
    ck_assert_int_eq(add(&b, 0x104, 2), BUS_ERR_OVERLAP);
    ck_assert_int_eq(add(&b, 0x80, 0x200), BUS_ERR_OVERLAP);
    ck_assert_int_eq(add(&b, 0xf8, 8), BUS_OK);
    ck_assert_uint_eq(bus.count, 2);
}
END_TEST

START_TEST(ranges_that_do_not_fit_are_refused)
{
    ck_assert_int_eq(add(&a, 0x100, 0), BUS_ERR_EMPTY);
    ck_assert_int_eq(add(&a, 0xffff, 2), BUS_ERR_RANGE);
    ck_assert_int_eq(add(&a, 0xffff, 1), BUS_OK);
    struct bus mmio;
    bus_init(&mmio, "mmio", 0, NULL);
    ck_assert_int_eq(bus_add(&mmio, UINT64_MAX, 2, &ram_ops, &a, "a"), BUS_ERR_RANGE);
    ck_assert_int_eq(bus_add(&mmio, UINT64_MAX, 1, &ram_ops, &a, "a"), BUS_OK);
    ck_assert_uint_eq(bus_read(&mmio, UINT64_MAX, 4, 0), 0xffffff10u);
    bus_fini(&mmio);
}
END_TEST

START_TEST(access_across_two_ranges_is_split_bytewise)
{
    ck_assert_int_eq(add(&a, 0x60, 4), BUS_OK);
    ck_assert_int_eq(add(&b, 0x64, 4), BUS_OK);
    ck_assert_uint_eq(bus_read(&bus, 0x62, 4, 0), 0x81801312u);
    ck_assert_uint_eq(a.reads, 2);
    ck_assert_uint_eq(b.reads, 2);
    ck_assert_uint_eq(b.last_size, 1);
    bus_write(&bus, 0x62, 4, 0x44332211, 0);
    ck_assert_uint_eq(bus_read(&bus, 0x60, 4, 0), 0x22111110u);
    ck_assert_uint_eq(bus_read(&bus, 0x64, 2, 0), 0x4433u);
}
END_TEST

START_TEST(access_that_runs_out_of_or_into_a_range_keeps_the_claimed_bytes)
{
    ck_assert_int_eq(add(&a, 0x60, 4), BUS_OK);
    ck_assert_uint_eq(bus_read(&bus, 0x62, 4, 0), 0xffff1312u);
    ck_assert_uint_eq(bus_read(&bus, 0x5e, 4, 0), 0x1110ffffu);
    bus_write(&bus, 0x5e, 4, 0xaabbccdd, 0);
    ck_assert_uint_eq(a.bytes[0], 0xbb);
    ck_assert_uint_eq(a.bytes[1], 0xaa);
}
END_TEST

START_TEST(unclaimed_reads_are_all_ones_and_named_in_the_log)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    struct log log;
    log_init(&log, out);
    size_t bad;
    ck_assert_ptr_null(log_enable_list(&log, "ioport", &bad));
    bus.log = &log;
    ck_assert_uint_eq(bus_read(&bus, 0x2f8, 1, 0), 0xff);
    ck_assert_uint_eq(bus_read(&bus, 0x2f8, 4, 0), 0xffffffffu);
    ck_assert_uint_eq(bus_read(&bus, 0x2f8, 8, 0), UINT64_MAX);
    bus_write(&bus, 0x4d0, 2, 0x12345, 0);
    fclose(out);
    ck_assert_ptr_nonnull(strstr(text, "ioport: port read 0x2f8 size 4"));
    ck_assert_ptr_nonnull(strstr(text, "ioport: port write 0x4d0 size 2 value 0x2345"));
    free(text);
}
END_TEST

START_TEST(removed_range_answers_no_more_and_its_place_is_free)
{
    ck_assert_int_eq(add(&a, 0x60, 4), BUS_OK);
    ck_assert_int_eq(add(&b, 0x70, 4), BUS_OK);
    ck_assert_uint_eq(bus_read(&bus, 0x60, 1, 0), 0x10);
    ck_assert_int_eq(bus_remove(&bus, 0x60, &b), BUS_ERR_ABSENT);
    ck_assert_int_eq(bus_remove(&bus, 0x61, &a), BUS_ERR_ABSENT);
    ck_assert_int_eq(bus_remove(&bus, 0x60, &a), BUS_OK);
    ck_assert_uint_eq(bus_read(&bus, 0x60, 1, 0), 0xff);
    ck_assert_uint_eq(bus_read(&bus, 0x70, 1, 0), 0x80);
    ck_assert_int_eq(add(&b, 0x5e, 4), BUS_OK);
}
END_TEST

START_TEST(a_device_may_leave_the_bus_inside_its_own_write)
{
    ck_assert_int_eq(add(&a, 0x60, 4), BUS_OK);
    ck_assert_int_eq(add(&b, 0x64, 4), BUS_OK);
    a.remove_from = &bus;
    bus_write(&bus, 0x63, 2, 0x2211, 0);
    ck_assert_uint_eq(a.bytes[3], 0x11);
    ck_assert_uint_eq(b.bytes[0], 0x22);
    ck_assert_ptr_null(bus_find(&bus, 0x60));
}
END_TEST

START_TEST(a_device_without_read_reads_as_all_ones)
{
    ck_assert_int_eq(bus_add(&bus, 0xe9, 1, &write_only_ops, &a, "debugcon"), BUS_OK);
    ck_assert_uint_eq(bus_read(&bus, 0xe9, 1, 0), 0xff);
}
END_TEST

START_TEST(order_of_registration_does_not_matter)
{
    static struct ram many[40];
    for (unsigned i = 0; i < 40; i++) {
        unsigned k = i * 17 % 40;
        many[k].bytes[0] = (uint8_t)k;
        ck_assert_int_eq(bus_add(&bus, 0x100 + k * 4, 4, &ram_ops, &many[k], "m"), BUS_OK);
    }
    for (unsigned k = 0; k < 40; k++)
        ck_assert_uint_eq(bus_read(&bus, 0x100 + k * 4, 1, 0), k);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("core/bus");
    TCase *t = tcase_create("bus");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, device_sees_offset_size_and_initiator);
    tcase_add_test(t, overlap_is_refused_wherever_it_lies);
    tcase_add_test(t, ranges_that_do_not_fit_are_refused);
    tcase_add_test(t, access_across_two_ranges_is_split_bytewise);
    tcase_add_test(t, access_that_runs_out_of_or_into_a_range_keeps_the_claimed_bytes);
    tcase_add_test(t, unclaimed_reads_are_all_ones_and_named_in_the_log);
    tcase_add_test(t, removed_range_answers_no_more_and_its_place_is_free);
    tcase_add_test(t, a_device_may_leave_the_bus_inside_its_own_write);
    tcase_add_test(t, a_device_without_read_reads_as_all_ones);
    tcase_add_test(t, order_of_registration_does_not_matter);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
