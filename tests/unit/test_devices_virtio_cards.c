/*
 * What kinds of virtio devices do with their requests: the disk and the network card.
 */
#include "virtio_rig.h"

#include "devices/virtio/virtio_blk.h"
#include "devices/virtio/virtio_console.h"
#include "devices/virtio/virtio_net.h"

#define F_V1    VIRTIO_F_VERSION_1
#define HEAD    0x40000u
#define DATA    0x41000u
#define STATUS  0x43000u
#define F_MERGE (1ull << 15)

/* ---- disk ---- */

struct disk {
    struct vrig v;
    struct virtio_blk blk;
    struct block_device *block;
    char path[SNAP_PATH_LEN];
};

static void disk_init(struct disk *g)
{
    char err[256] = "";
    struct virtio_config cfg = vrig_init(&g->v);
    snprintf(g->path, sizeof g->path, "/tmp/umbra-blk-XXXXXX");
    int fd = mkstemp(g->path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, 64 * 512), 0);
    close(fd);
    g->block = block_open(&(struct block_open_config){.file = g->path, .format = BLOCK_FORMAT_RAW}, err, sizeof err);
    ck_assert_msg(g->block != NULL, "%s", err);
    virtio_blk_init(&g->blk, &cfg, g->block, "serial-7", false);
    vrig_attach(&g->v, &g->blk.pci);
    vrig_start(&g->v, F_V1, 1);
}

static void disk_fini(struct disk *g)
{
    vrig_fini(&g->v);
    virtio_blk_fini(&g->blk);
    block_close(g->block);
    unlink(g->path);
}

/* One request with `len` bytes of data; returns its status byte, 0xee if it was not written. */
static uint8_t request(struct disk *g, uint32_t type, uint64_t sector, uint32_t len, bool to_guest)
{
    vrig_put(&g->v, HEAD, 8, type);
    vrig_put(&g->v, HEAD + 8, 8, sector);
    g->v.memory[STATUS] = 0xee;
    vrig_desc(&g->v, 0, 0, HEAD, 16, VRIG_NEXT, len ? 1 : 2);
    vrig_desc(&g->v, 0, 1, DATA, len, VRIG_NEXT | (to_guest ? VRIG_WRITE : 0), 2);
    vrig_desc(&g->v, 0, 2, STATUS, 1, VRIG_WRITE, 0);
    vrig_offer(&g->v, 0, 0);
    vrig_notify(&g->v, 0);
    run_for(&g->v.clock, BLOCK_LATENCY);
    return g->v.memory[STATUS];
}

START_TEST(what_is_written_to_the_disk_is_read_back)
{
    struct disk g;
    disk_init(&g);
    ck_assert_uint_eq(vrig_rd(&g.v, VRIG_CONFIG, 4), 64);
    for (unsigned i = 0; i < 1024; i++)
        g.v.memory[DATA + i] = (uint8_t)(i * 7);
    ck_assert_uint_eq(request(&g, 1, 3, 1024, false), 0);
    ck_assert_uint_eq(request(&g, 4, 0, 0, false), 0);
    memset(g.v.memory + DATA, 0, 1024);
    ck_assert_uint_eq(request(&g, 0, 4, 512, true), 0);
    for (unsigned i = 0; i < 512; i++)
        ck_assert_uint_eq(g.v.memory[DATA + i], (uint8_t)((i + 512) * 7));
    ck_assert_uint_eq(request(&g, 8, 0, 20, true), 0);
    ck_assert_str_eq((char *)g.v.memory + DATA, "serial-7");
    disk_fini(&g);
}
END_TEST

START_TEST(disk_refuses_what_is_beyond_its_end_or_unknown)
{
    struct disk g;
    disk_init(&g);
    ck_assert_uint_eq(request(&g, 0, 64, 512, true), 1);
    ck_assert_uint_eq(request(&g, 0, 63, 1024, true), 1);
    ck_assert_uint_eq(request(&g, 0, UINT64_MAX, 512, true), 1);
    ck_assert_uint_eq(request(&g, 1, UINT64_MAX / 512, 512, false), 1);
    ck_assert_uint_eq(request(&g, 0, 0, 100, true), 1);
    ck_assert_uint_eq(request(&g, 77, 0, 512, true), 2);
    ck_assert_uint_eq(request(&g, 0, 63, 512, true), 0);
    disk_fini(&g);
}
END_TEST

START_TEST(discarded_and_zeroed_ranges_read_as_zeros)
{
    struct disk g;
    disk_init(&g);
    for (unsigned type = 11; type <= 13; type += 2) {
        memset(g.v.memory + DATA, 0xaa, 2048);
        ck_assert_uint_eq(request(&g, 1, 0, 2048, false), 0);
        vrig_put(&g.v, DATA, 8, 1);
        vrig_put(&g.v, DATA + 8, 4, 2);
        vrig_put(&g.v, DATA + 12, 4, 0);
        ck_assert_uint_eq(request(&g, type, 0, 16, false), 0);
        ck_assert_uint_eq(request(&g, 0, 0, 2048, true), 0);
        ck_assert_uint_eq(g.v.memory[DATA + 511], 0xaa);
        ck_assert_uint_eq(g.v.memory[DATA + 512], 0);
        ck_assert_uint_eq(g.v.memory[DATA + 1535], 0);
        ck_assert_uint_eq(g.v.memory[DATA + 1536], 0xaa);
        vrig_put(&g.v, DATA, 8, 63);
        ck_assert_uint_eq(request(&g, type, 0, 16, false), 1);
    }
    disk_fini(&g);
}
END_TEST

START_TEST(disk_request_without_header_or_status_stops_the_device)
{
    struct disk g;
    disk_init(&g);
    vrig_desc(&g.v, 0, 0, HEAD, 16, 0, 0);
    vrig_offer(&g.v, 0, 0);
    vrig_notify(&g.v, 0);
    run_for(&g.v.clock, BLOCK_LATENCY);
    ck_assert(vrig_status(&g.v) & VIRTIO_STATUS_NEEDS_RESET);
    disk_fini(&g);
}
END_TEST

/* ---- network ---- */

struct card {
    struct vrig v;
    struct virtio_net net;
    uint8_t sent[NIC_FRAME_MAX];
    size_t sent_len;
    unsigned frames;
};

static const uint8_t card_mac[NIC_MAC] = {0x52, 0x54, 0, 1, 2, 3};

static void wire_out(void *ctx, const uint8_t *frame, size_t len)
{
    struct card *g = ctx;
    memcpy(g->sent, frame, len);
    g->sent_len = len;
    g->frames++;
}

static void card_init(struct card *g, uint64_t features)
{
    struct virtio_config cfg = vrig_init(&g->v);
    g->frames = 0;
    virtio_net_init(&g->net, &cfg, &(struct nic_wire){wire_out, g}, card_mac, false);
    vrig_attach(&g->v, &g->net.pci);
    vrig_start(&g->v, F_V1 | features, 3);
}

static void card_fini(struct card *g)
{
    vrig_fini(&g->v);
    virtio_net_fini(&g->net);
}

static void receive(struct card *g, uint8_t first, size_t len)
{
    uint8_t frame[NIC_FRAME_MAX];
    for (size_t i = 0; i < len; i++)
        frame[i] = (uint8_t)(first + i);
    memcpy(frame, card_mac, NIC_MAC);
    virtio_net_receive(&g->net, frame, len);
    run_for(&g->v.clock, VIRTIO_LATENCY);
}

static void give_buffer(struct card *g, unsigned i, uint32_t len)
{
    vrig_desc(&g->v, 0, i, DATA + 0x1000 * i, len, VRIG_WRITE, 0);
    vrig_offer(&g->v, 0, i);
}

START_TEST(frame_from_the_guest_goes_out_without_its_header)
{
    struct card g;
    card_init(&g, 0);
    for (unsigned i = 0; i < 100; i++)
        g.v.memory[DATA + i] = (uint8_t)i;
    vrig_desc(&g.v, 1, 0, HEAD, 12, VRIG_NEXT, 1);
    vrig_desc(&g.v, 1, 1, DATA, 100, 0, 0);
    vrig_offer(&g.v, 1, 0);
    vrig_notify(&g.v, 1);
    run_for(&g.v.clock, VIRTIO_LATENCY);
    ck_assert_uint_eq(g.frames, 1);
    ck_assert_uint_eq(g.sent_len, 100);
    ck_assert_int_eq(memcmp(g.sent, g.v.memory + DATA, 100), 0);
    vrig_desc(&g.v, 1, 1, DATA, 0x8000, 0, 0); /* no Ethernet frame */
    vrig_offer(&g.v, 1, 0);
    vrig_notify(&g.v, 1);
    run_for(&g.v.clock, VIRTIO_LATENCY);
    ck_assert_uint_eq(g.frames, 1);
    ck_assert_uint_eq(vrig_used(&g.v, 1), 2);
    card_fini(&g);
}
END_TEST

START_TEST(frame_waits_for_a_buffer_and_short_ones_are_padded)
{
    struct card g;
    card_init(&g, 0);
    receive(&g, 9, 40);
    ck_assert_uint_eq(vrig_used(&g.v, 0), 0);
    give_buffer(&g, 0, 1600);
    vrig_notify(&g.v, 0);
    run_for(&g.v.clock, VIRTIO_LATENCY);
    ck_assert_uint_eq(vrig_used(&g.v, 0), 1);
    ck_assert_uint_eq(vrig_used_len(&g.v, 0, 0), 12 + 60);
    ck_assert_uint_eq(vrig_get(&g.v, DATA + 10, 2), 1);
    ck_assert_int_eq(memcmp(g.v.memory + DATA + 12, card_mac, NIC_MAC), 0);
    ck_assert_uint_eq(g.v.memory[DATA + 12 + 39], 9 + 39);
    ck_assert_uint_eq(g.v.memory[DATA + 12 + 40], 0);
    card_fini(&g);
}
END_TEST

START_TEST(large_frame_takes_several_buffers_where_they_merge)
{
    struct card g;
    card_init(&g, F_MERGE);
    give_buffer(&g, 0, 512);
    give_buffer(&g, 1, 512);
    receive(&g, 0, 1400);
    ck_assert_uint_eq(vrig_used(&g.v, 0), 0); /* two are too few: none is taken */
    give_buffer(&g, 2, 512);
    vrig_notify(&g.v, 0);
    run_for(&g.v.clock, VIRTIO_LATENCY);
    ck_assert_uint_eq(vrig_used(&g.v, 0), 3);
    ck_assert_uint_eq(vrig_get(&g.v, DATA + 10, 2), 3);
    ck_assert_uint_eq(vrig_used_len(&g.v, 0, 0), 512);
    ck_assert_uint_eq(vrig_used_len(&g.v, 0, 2), 1412 - 1024);
    ck_assert_uint_eq(g.v.memory[DATA + 0x1000], (uint8_t)(500));
    ck_assert_uint_eq(g.v.memory[DATA + 0x2000 + 1412 - 1024 - 1], (uint8_t)1399);
    card_fini(&g);
}
END_TEST

START_TEST(frames_for_others_are_dropped_unless_the_driver_wants_all)
{
    struct card g;
    uint8_t frame[64] = {0x52, 0x54, 0, 9, 9, 9};
    card_init(&g, 1ull << 17 | 1ull << 18);
    give_buffer(&g, 0, 1600);
    virtio_net_receive(&g.net, frame, sizeof frame);
    run_for(&g.v.clock, VIRTIO_LATENCY);
    ck_assert_uint_eq(vrig_used(&g.v, 0), 0);
    g.v.memory[HEAD] = g.v.memory[HEAD + 1] = 0; /* RX, promiscuous */
    g.v.memory[HEAD + 2] = 1;
    g.v.memory[STATUS] = 0xee;
    vrig_desc(&g.v, 2, 0, HEAD, 3, VRIG_NEXT, 1);
    vrig_desc(&g.v, 2, 1, STATUS, 1, VRIG_WRITE, 0);
    vrig_offer(&g.v, 2, 0);
    vrig_notify(&g.v, 2);
    run_for(&g.v.clock, VIRTIO_LATENCY);
    ck_assert_uint_eq(g.v.memory[STATUS], 0);
    virtio_net_receive(&g.net, frame, sizeof frame);
    run_for(&g.v.clock, VIRTIO_LATENCY);
    ck_assert_uint_eq(vrig_used(&g.v, 0), 1);
    card_fini(&g);
}
END_TEST

START_TEST(waiting_frames_are_saved_and_the_queue_is_bounded)
{
    struct card a, b;
    card_init(&a, 0);
    card_init(&b, 0);
    for (unsigned i = 0; i < NIC_FIFO_SLOTS + 5; i++)
        receive(&a, (uint8_t)i, 64 + i % 100);
    ck_assert_uint_eq(a.net.fifo.dropped, 5);
    ROUND_TRIP(&a.v.clock, &b.v.clock, virtio_pci_save(&a.net.pci, w), virtio_pci_load(&b.net.pci, r));
    memcpy(b.v.memory, a.v.memory, VRIG_MEMORY);
    ck_assert_uint_eq(b.net.fifo.count, NIC_FIFO_SLOTS);
    b.v.avail[0] = a.v.avail[0];
    give_buffer(&b, 0, 1600);
    give_buffer(&b, 1, 1600);
    vrig_notify(&b.v, 0);
    run_for(&b.v.clock, VIRTIO_LATENCY);
    ck_assert_uint_eq(vrig_used(&b.v, 0), 2);
    ck_assert_uint_eq(vrig_used_len(&b.v, 0, 1), 12 + 65);
    ck_assert_uint_eq(b.v.memory[DATA + 0x1000 + 12 + 10], 11);
    card_fini(&a);
    card_fini(&b);
}
END_TEST

/* ---- console ---- */

struct console {
    struct vrig v;
    struct virtio_console con;
    char said[4096];
    size_t len;
};

static void console_says(void *ctx, const uint8_t *bytes, size_t len)
{
    struct console *g = ctx;
    ck_assert_uint_le(g->len + len, sizeof g->said);
    memcpy(g->said + g->len, bytes, len);
    g->len += len;
}

static struct console *console_new(void)
{
    struct console *g = calloc(1, sizeof *g);
    struct virtio_config cfg = vrig_init(&g->v);
    virtio_console_init(&g->con, &cfg, &(struct virtio_console_sink){console_says, g}, false);
    vrig_attach(&g->v, &g->con.pci);
    vrig_start(&g->v, F_V1, 2);
    return g;
}

static void console_free(struct console *g)
{
    vrig_fini(&g->v);
    free(g);
}

/* Room for 4 bytes on the receive queue. */
static void console_listen(struct console *g, uint16_t head)
{
    vrig_desc(&g->v, 0, head, DATA + 16u * head, 4, VRIG_WRITE, 0);
    vrig_offer(&g->v, 0, head);
    vrig_notify(&g->v, 0);
    run_for(&g->v.clock, VIRTIO_LATENCY);
}

START_TEST(console_says_what_is_sent_and_keeps_input_until_there_is_room)
{
    struct console *g = console_new();
    memcpy(g->v.memory + DATA + 0x800, "hello", 5);
    vrig_desc(&g->v, 1, 0, DATA + 0x800, 5, 0, 0);
    vrig_offer(&g->v, 1, 0);
    vrig_notify(&g->v, 1);
    run_for(&g->v.clock, VIRTIO_LATENCY);
    vrig_wr(&g->v, VRIG_CONFIG + 8, 4, '!'); /* emergency write */
    ck_assert_str_eq(g->said, "hello!");
    virtio_console_receive(&g->con, (const uint8_t *)"typed", 5);
    run_for(&g->v.clock, VIRTIO_LATENCY);
    console_listen(g, 0);
    ck_assert_mem_eq(g->v.memory + DATA, "type", 4);
    console_listen(g, 1);
    ck_assert_mem_eq(g->v.memory + DATA + 16, "d\0", 2);
    ck_assert_uint_eq(vrig_get(&g->v, VRIG_USED(0) + 4 + 8 + 4, 4), 1); /* bytes of the second */
    console_free(g);
}
END_TEST

START_TEST(console_s_waiting_input_is_saved_and_too_much_of_it_is_dropped)
{
    struct console *a = console_new(), *b = console_new();
    uint8_t *flood = calloc(1, VIRTIO_CONSOLE_INPUT);
    virtio_console_receive(&a->con, (const uint8_t *)"ab", 2);
    virtio_console_receive(&a->con, flood, VIRTIO_CONSOLE_INPUT);
    ck_assert_uint_eq(a->con.count, VIRTIO_CONSOLE_INPUT);
    ROUND_TRIP(&a->v.clock, &b->v.clock, virtio_pci_save(&a->con.pci, w), virtio_pci_load(&b->con.pci, r));
    ck_assert_uint_eq(b->con.count, VIRTIO_CONSOLE_INPUT);
    memcpy(b->v.memory, a->v.memory, sizeof b->v.memory);
    console_listen(b, 0);
    ck_assert_mem_eq(b->v.memory + DATA, "ab\0", 4);
    free(flood);
    console_free(a);
    console_free(b);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("virtio_cards");
    TCase *t = tcase_create("cards");
    tcase_add_test(t, console_says_what_is_sent_and_keeps_input_until_there_is_room);
    tcase_add_test(t, console_s_waiting_input_is_saved_and_too_much_of_it_is_dropped);
    tcase_add_test(t, what_is_written_to_the_disk_is_read_back);
    tcase_add_test(t, disk_refuses_what_is_beyond_its_end_or_unknown);
    tcase_add_test(t, discarded_and_zeroed_ranges_read_as_zeros);
    tcase_add_test(t, disk_request_without_header_or_status_stops_the_device);
    tcase_add_test(t, frame_from_the_guest_goes_out_without_its_header);
    tcase_add_test(t, frame_waits_for_a_buffer_and_short_ones_are_padded);
    tcase_add_test(t, large_frame_takes_several_buffers_where_they_merge);
    tcase_add_test(t, frames_for_others_are_dropped_unless_the_driver_wants_all);
    tcase_add_test(t, waiting_frames_are_saved_and_the_queue_is_bounded);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
