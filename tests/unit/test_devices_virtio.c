/*
 * virtio: the transport's registers, split rings with everything that a hostile driver may put into them, state.
 */
#include "virtio_rig.h"

#include "devices/virtio/virtio_rng.h"

#define F_V1       VIRTIO_F_VERSION_1
#define BUFFER     0x40000u
#define TABLE      0x50000u
#define MSIX_TABLE 0xd0000000ull

struct rig {
    struct vrig v;
    struct virtio_rng rng;
};

static void rig_init(struct rig *g)
{
    struct virtio_config cfg = vrig_init(&g->v);
    virtio_rng_init(&g->rng, &cfg, 42, false);
    vrig_attach(&g->v, &g->rng.pci);
}

static bool is_filled(const struct rig *g, uint64_t at, unsigned len)
{
    unsigned zeros = 0;
    for (unsigned i = 0; i < len; i++)
        zeros += !g->v.memory[at + i];
    return zeros < len / 8 + 2;
}

START_TEST(capabilities_lead_to_every_area_of_the_modern_interface)
{
    struct rig g;
    rig_init(&g);
    unsigned seen = 0, at = pci_bus_config_read(&g.v.pci, VRIG_DEVFN, PCI_CAPABILITIES, 1);
    for (; at; at = pci_bus_config_read(&g.v.pci, VRIG_DEVFN, at + 1, 1))
        if (pci_bus_config_read(&g.v.pci, VRIG_DEVFN, at, 1) == PCI_CAP_VENDOR)
            seen |= 1u << pci_bus_config_read(&g.v.pci, VRIG_DEVFN, at + 3, 1);
    ck_assert_uint_eq(seen, 0x3e);
    ck_assert_uint_eq(pci_bus_config_read(&g.v.pci, VRIG_DEVFN, 0, 4), 0x10051af4);
    ck_assert_uint_eq(pci_bus_config_read(&g.v.pci, VRIG_DEVFN, 0x2e, 2), 4);
    ck_assert_uint_eq(vrig_rd(&g.v, VRIG_COMMON + 18, 2), 1);
    vrig_fini(&g.v);
}
END_TEST

START_TEST(window_in_configuration_space_reaches_the_registers)
{
    struct rig g;
    rig_init(&g);
    unsigned w = g.rng.pci.window;
    pci_bus_config_write(&g.v.pci, VRIG_DEVFN, w + 4, 1, 4);
    pci_bus_config_write(&g.v.pci, VRIG_DEVFN, w + 8, 4, 20);
    pci_bus_config_write(&g.v.pci, VRIG_DEVFN, w + 12, 4, 1);
    pci_bus_config_write(&g.v.pci, VRIG_DEVFN, w + 16, 4, 3);
    ck_assert_uint_eq(vrig_status(&g.v), 3);
    vrig_wr(&g.v, VRIG_COMMON + 20, 1, 1);
    ck_assert_uint_eq(pci_bus_config_read(&g.v.pci, VRIG_DEVFN, w + 16, 1), 1);
    pci_bus_config_write(&g.v.pci, VRIG_DEVFN, w + 8, 4, 0xffffffff); /* nowhere */
    pci_bus_config_write(&g.v.pci, VRIG_DEVFN, w + 16, 4, 0);
    ck_assert_uint_eq(vrig_status(&g.v), 1);
    vrig_fini(&g.v);
}
END_TEST

START_TEST(features_that_were_not_offered_are_refused)
{
    struct rig g;
    rig_init(&g);
    vrig_start(&g.v, F_V1 | 1ull << 40, 1);
    ck_assert(!(vrig_status(&g.v) & VIRTIO_STATUS_FEATURES_OK));
    vrig_start(&g.v, 0, 1); /* modern without VERSION_1 */
    ck_assert(!(vrig_status(&g.v) & VIRTIO_STATUS_FEATURES_OK));
    vrig_start(&g.v, F_V1, 1);
    ck_assert_uint_eq(vrig_status(&g.v), 15);
    vrig_fini(&g.v);
}
END_TEST

START_TEST(request_completes_a_fixed_time_after_its_notification)
{
    struct rig g;
    rig_init(&g);
    vrig_start(&g.v, F_V1, 1);
    vrig_desc(&g.v, 0, 0, BUFFER, 64, VRIG_WRITE, 0);
    vrig_offer(&g.v, 0, 0);
    run_for(&g.v.clock, 100000);
    ck_assert_uint_eq(vrig_used(&g.v, 0), 0); /* nobody said so */
    vrig_notify(&g.v, 0);
    run_for(&g.v.clock, VIRTIO_LATENCY - 1);
    ck_assert_uint_eq(vrig_used(&g.v, 0), 0);
    run_for(&g.v.clock, 1);
    ck_assert_uint_eq(vrig_used(&g.v, 0), 1);
    ck_assert_uint_eq(vrig_used_len(&g.v, 0, 0), 64);
    ck_assert(is_filled(&g, BUFFER, 64));
    ck_assert_uint_eq(g.v.memory[BUFFER + 64], 0);
    ck_assert(g.v.wires[2].level); /* slot 3's INTA */
    ck_assert_uint_eq(vrig_rd(&g.v, VRIG_ISR, 1), 1);
    ck_assert(!g.v.wires[2].level);
    vrig_fini(&g.v);
}
END_TEST

START_TEST(indirect_table_is_followed_behind_a_chain)
{
    struct rig g;
    rig_init(&g);
    vrig_start(&g.v, F_V1 | VIRTIO_F_INDIRECT, 1);
    vrig_desc(&g.v, 0, 3, BUFFER, 16, VRIG_WRITE | VRIG_NEXT, 5);
    vrig_desc(&g.v, 0, 5, TABLE, 32, VRIG_INDIRECT, 0);
    vrig_desc_at(&g.v, TABLE, 0, BUFFER + 0x100, 16, VRIG_WRITE | VRIG_NEXT, 1);
    vrig_desc_at(&g.v, TABLE, 1, BUFFER + 0x200, 16, VRIG_WRITE, 0);
    vrig_offer(&g.v, 0, 3);
    vrig_notify(&g.v, 0);
    run_for(&g.v.clock, VIRTIO_LATENCY);
    ck_assert_uint_eq(vrig_used(&g.v, 0), 1);
    ck_assert_uint_eq(vrig_used_len(&g.v, 0, 0), 48);
    ck_assert_uint_eq(vrig_get(&g.v, VRIG_USED(0) + 4, 4), 3);
    ck_assert(is_filled(&g, BUFFER, 16) && is_filled(&g, BUFFER + 0x100, 16) && is_filled(&g, BUFFER + 0x200, 16));
    vrig_fini(&g.v);
}
END_TEST

static void one_more(struct rig *g)
{
    vrig_desc(&g->v, 0, 0, BUFFER, 8, VRIG_WRITE, 0);
    vrig_offer(&g->v, 0, 0);
    vrig_notify(&g->v, 0);
    run_for(&g->v.clock, VIRTIO_LATENCY);
}

START_TEST(event_index_says_when_to_interrupt_and_when_to_notify)
{
    struct rig g;
    rig_init(&g);
    vrig_start(&g.v, F_V1 | VIRTIO_F_EVENT_IDX, 1);
    vrig_put(&g.v, VRIG_AVAIL(0) + 4 + 16, 2, 1); /* used_event: after the second */
    one_more(&g);
    ck_assert_uint_eq(g.v.wires[2].rises, 0);
    ck_assert_uint_eq(vrig_get(&g.v, VRIG_USED(0) + 4 + 64, 2), 1); /* avail_event: notify for the next */
    one_more(&g);
    ck_assert_uint_eq(g.v.wires[2].rises, 1);
    vrig_rd(&g.v, VRIG_ISR, 1);
    one_more(&g);
    ck_assert_uint_eq(g.v.wires[2].rises, 1);
    vrig_fini(&g.v);
}
END_TEST

START_TEST(driver_that_wants_no_interrupts_gets_none)
{
    struct rig g;
    rig_init(&g);
    vrig_start(&g.v, F_V1, 1);
    vrig_put(&g.v, VRIG_AVAIL(0), 2, 1);
    one_more(&g);
    ck_assert_uint_eq(vrig_used(&g.v, 0), 1);
    ck_assert_uint_eq(g.v.wires[2].rises, 0);
    vrig_fini(&g.v);
}
END_TEST

START_TEST(queue_interrupts_by_its_own_message)
{
    struct rig g;
    rig_init(&g);
    pci_bus_config_write(&g.v.pci, VRIG_DEVFN, PCI_BAR0 + 4, 4, MSIX_TABLE);
    pci_bus_config_write(&g.v.pci, VRIG_DEVFN, g.rng.pci.msix.cap + 2, 2, 0x8000);
    for (unsigned n = 0; n < 2; n++) {
        vrig_wr(&g.v, MSIX_TABLE + 16 * n, 4, 0xfee00000);
        vrig_wr(&g.v, MSIX_TABLE + 16 * n + 8, 4, 0x40 + n);
        vrig_wr(&g.v, MSIX_TABLE + 16 * n + 12, 4, 0);
    }
    vrig_start(&g.v, F_V1, 1);
    vrig_wr(&g.v, VRIG_COMMON + 26, 2, 7); /* not in the table */
    ck_assert_uint_eq(vrig_rd(&g.v, VRIG_COMMON + 26, 2), VIRTIO_NO_VECTOR);
    vrig_wr(&g.v, VRIG_COMMON + 26, 2, 1);
    one_more(&g);
    ck_assert_uint_eq(g.v.messages, 1);
    ck_assert_uint_eq(g.v.last_message, 0x41);
    ck_assert_uint_eq(g.v.wires[2].rises, 0);
    vrig_fini(&g.v);
}
END_TEST

START_TEST(legacy_ports_drive_the_same_device)
{
    struct rig g;
    rig_init(&g);
    struct bus *io = &g.v.io;
    ck_assert_uint_eq(bus_read(io, VRIG_PORT + 12, 2, 0), 8);
    bus_write(io, VRIG_PORT + 18, 1, 3, 0);
    bus_write(io, VRIG_PORT + 4, 4, 0, 0);
    bus_write(io, VRIG_PORT + 14, 2, 0, 0);
    bus_write(io, VRIG_PORT + 8, 4, 0x20, 0);
    bus_write(io, VRIG_PORT + 18, 1, 7, 0);
    ck_assert_uint_eq(bus_read(io, VRIG_PORT + 8, 4, 0), 0x20);
    vrig_desc_at(&g.v, 0x20000, 2, BUFFER, 32, VRIG_WRITE, 0);
    vrig_put(&g.v, 0x20080 + 4, 2, 2);
    vrig_put(&g.v, 0x20080 + 2, 2, 1);
    bus_write(io, VRIG_PORT + 16, 2, 0, 0);
    run_for(&g.v.clock, VIRTIO_LATENCY);
    ck_assert_uint_eq(vrig_get(&g.v, 0x21002, 2), 1);
    ck_assert(is_filled(&g, BUFFER, 32));
    ck_assert_uint_eq(bus_read(io, VRIG_PORT + 19, 1, 0), 1);
    ck_assert_uint_eq(bus_read(io, VRIG_PORT + 19, 1, 0), 0);
    bus_write(io, VRIG_PORT + 18, 1, 0, 0);
    ck_assert_uint_eq(bus_read(io, VRIG_PORT + 8, 4, 0), 0);
    vrig_fini(&g.v);
}
END_TEST

/* ---- hostile drivers ---- */

struct attack {
    const char *what;
    void (*prepare)(struct rig *g);
};

static void loop(struct rig *g)
{
    vrig_desc(&g->v, 0, 0, BUFFER, 8, VRIG_WRITE | VRIG_NEXT, 1);
    vrig_desc(&g->v, 0, 1, BUFFER, 8, VRIG_WRITE | VRIG_NEXT, 0);
    vrig_offer(&g->v, 0, 0);
}

static void next_beyond(struct rig *g)
{
    vrig_desc(&g->v, 0, 0, BUFFER, 8, VRIG_WRITE | VRIG_NEXT, 8);
    vrig_offer(&g->v, 0, 0);
}

static void head_beyond(struct rig *g)
{
    vrig_offer(&g->v, 0, 0xffff);
}

static void index_jumps(struct rig *g)
{
    vrig_put(&g->v, VRIG_AVAIL(0) + 2, 2, 9);
}

static void no_memory(struct rig *g)
{
    vrig_desc(&g->v, 0, 0, VRIG_MEMORY, 8, VRIG_WRITE, 0);
    vrig_offer(&g->v, 0, 0);
}

static void huge(struct rig *g)
{
    vrig_desc(&g->v, 0, 0, VRIG_MEMORY - 16, 0xffffffff, VRIG_WRITE, 0);
    vrig_offer(&g->v, 0, 0);
}

static void wraps(struct rig *g)
{
    vrig_desc(&g->v, 0, 0, UINT64_MAX - 4, 16, VRIG_WRITE, 0);
    vrig_offer(&g->v, 0, 0);
}

static void read_behind_write(struct rig *g)
{
    vrig_desc(&g->v, 0, 0, BUFFER, 8, VRIG_WRITE | VRIG_NEXT, 1);
    vrig_desc(&g->v, 0, 1, BUFFER, 8, 0, 0);
    vrig_offer(&g->v, 0, 0);
}

static void nested_table(struct rig *g)
{
    vrig_desc(&g->v, 0, 0, TABLE, 16, VRIG_INDIRECT, 0);
    vrig_desc_at(&g->v, TABLE, 0, TABLE, 16, VRIG_INDIRECT, 0);
    vrig_offer(&g->v, 0, 0);
}

static void crooked_table(struct rig *g)
{
    vrig_desc(&g->v, 0, 0, TABLE, 15, VRIG_INDIRECT, 0);
    vrig_offer(&g->v, 0, 0);
}

static void endless_table(struct rig *g)
{
    vrig_desc(&g->v, 0, 0, TABLE, 0xfffffff0, VRIG_INDIRECT, 0);
    vrig_offer(&g->v, 0, 0);
}

static void looping_table(struct rig *g)
{
    vrig_desc(&g->v, 0, 0, TABLE, 32, VRIG_INDIRECT, 0);
    vrig_desc_at(&g->v, TABLE, 0, BUFFER, 8, VRIG_WRITE | VRIG_NEXT, 1);
    vrig_desc_at(&g->v, TABLE, 1, BUFFER, 8, VRIG_WRITE | VRIG_NEXT, 0);
    vrig_offer(&g->v, 0, 0);
}

static const struct attack attacks[] = {
    {"a chain that loops", loop},
    {"a next descriptor beyond the queue", next_beyond},
    {"a head beyond the queue", head_beyond},
    {"an available index that jumps", index_jumps},
    {"a buffer where there is no memory", no_memory},
    {"a buffer of 4 GiB", huge},
    {"a buffer that wraps", wraps},
    {"a buffer to read behind one to write", read_behind_write},
    {"a table in a table", nested_table},
    {"a table of 15 bytes", crooked_table},
    {"a table of 256M entries", endless_table},
    {"a table that loops", looping_table},
};

START_TEST(hostile_ring_ends_in_needs_reset_and_a_reset_heals)
{
    struct rig g;
    rig_init(&g);
    for (size_t k = 0; k < ARRAY_LEN(attacks); k++) {
        vrig_start(&g.v, F_V1 | VIRTIO_F_INDIRECT, 1);
        attacks[k].prepare(&g);
        vrig_notify(&g.v, 0);
        run_for(&g.v.clock, VIRTIO_LATENCY);
        ck_assert_msg(vrig_status(&g.v) & VIRTIO_STATUS_NEEDS_RESET, "%s", attacks[k].what);
        ck_assert_msg(vrig_rd(&g.v, VRIG_ISR, 1) & VIRTIO_ISR_CONFIG, "%s", attacks[k].what);
        one_more(&g); /* nothing is served now */
        ck_assert_msg(vrig_status(&g.v) & VIRTIO_STATUS_NEEDS_RESET, "%s", attacks[k].what);
        vrig_start(&g.v, F_V1, 1);
        one_more(&g);
        ck_assert_msg(vrig_used(&g.v, 0) == 1, "%s", attacks[k].what);
    }
    vrig_fini(&g.v);
}
END_TEST

START_TEST(rings_without_memory_end_in_needs_reset)
{
    struct rig g;
    rig_init(&g);
    for (unsigned reg = 32; reg <= 48; reg += 8) {
        vrig_start(&g.v, F_V1, 0);
        vrig_set_queue(&g.v, 0, 8);
        g.rng.virtio.queue[0].enabled = false;
        vrig_wr(&g.v, VRIG_COMMON + reg, 8, 0xfffffffff000ull);
        vrig_wr(&g.v, VRIG_COMMON + 28, 2, 1);
        one_more(&g);
        ck_assert_uint_eq(vrig_status(&g.v) & VIRTIO_STATUS_NEEDS_RESET, VIRTIO_STATUS_NEEDS_RESET);
    }
    vrig_fini(&g.v);
}
END_TEST

START_TEST(queue_size_is_a_power_of_two_within_what_is_offered)
{
    struct rig g;
    rig_init(&g);
    vrig_start(&g.v, F_V1, 0);
    for (unsigned size = 0; size < 0x10000; size += 0xfff) {
        vrig_wr(&g.v, VRIG_COMMON + 24, 2, size);
        ck_assert_uint_eq(vrig_rd(&g.v, VRIG_COMMON + 24, 2), 8);
    }
    vrig_wr(&g.v, VRIG_COMMON + 24, 2, 4);
    ck_assert_uint_eq(vrig_rd(&g.v, VRIG_COMMON + 24, 2), 4);
    vrig_wr(&g.v, VRIG_COMMON + 22, 2, 1); /* there is no second queue */
    ck_assert_uint_eq(vrig_rd(&g.v, VRIG_COMMON + 24, 2), 0);
    vrig_wr(&g.v, VRIG_COMMON + 24, 2, 8);
    vrig_wr(&g.v, VRIG_NOTIFY + 4 * 1000, 2, 1000);
    vrig_fini(&g.v);
}
END_TEST

/* ---- state ---- */

START_TEST(loaded_device_goes_on_where_the_saved_one_was)
{
    struct rig a, b;
    rig_init(&a);
    rig_init(&b);
    vrig_start(&a.v, F_V1 | VIRTIO_F_EVENT_IDX, 1);
    one_more(&a);
    vrig_desc(&a.v, 0, 1, BUFFER + 0x100, 24, VRIG_WRITE, 0);
    vrig_offer(&a.v, 0, 1);
    vrig_notify(&a.v, 0);
    run_for(&a.v.clock, VIRTIO_LATENCY / 2);
    ROUND_TRIP(&a.v.clock, &b.v.clock, virtio_pci_save(&a.rng.pci, w), virtio_pci_load(&b.rng.pci, r));
    memcpy(b.v.memory, a.v.memory, VRIG_MEMORY);
    run_for(&a.v.clock, VIRTIO_LATENCY);
    run_for(&b.v.clock, VIRTIO_LATENCY);
    ck_assert_uint_eq(vrig_used(&b.v, 0), 2);
    ck_assert_int_eq(memcmp(a.v.memory, b.v.memory, VRIG_MEMORY), 0);
    ck_assert_uint_eq(vrig_rd(&b.v, VRIG_COMMON + 20, 1), 15);
    vrig_fini(&a.v);
    vrig_fini(&b.v);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("virtio");
    TCase *t = tcase_create("virtio");
    tcase_add_test(t, capabilities_lead_to_every_area_of_the_modern_interface);
    tcase_add_test(t, window_in_configuration_space_reaches_the_registers);
    tcase_add_test(t, features_that_were_not_offered_are_refused);
    tcase_add_test(t, request_completes_a_fixed_time_after_its_notification);
    tcase_add_test(t, indirect_table_is_followed_behind_a_chain);
    tcase_add_test(t, event_index_says_when_to_interrupt_and_when_to_notify);
    tcase_add_test(t, driver_that_wants_no_interrupts_gets_none);
    tcase_add_test(t, queue_interrupts_by_its_own_message);
    tcase_add_test(t, legacy_ports_drive_the_same_device);
    tcase_add_test(t, hostile_ring_ends_in_needs_reset_and_a_reset_heals);
    tcase_add_test(t, rings_without_memory_end_in_needs_reset);
    tcase_add_test(t, queue_size_is_a_power_of_two_within_what_is_offered);
    tcase_add_test(t, loaded_device_goes_on_where_the_saved_one_was);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
