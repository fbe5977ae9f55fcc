/*
 * The 82540EM: EEPROM and PHY, descriptor rings both ways, segmentation, interrupts, hostile rings, state.
 */
#include "devices_rig.h"

#include "devices/net/e1000.h"

#define MEMORY  0x100000
#define DEVFN   0x18
#define BAR     0xe0000000ull
#define TX_RING 0x10000u
#define RX_RING 0x20000u
#define BUFFER  0x40000u

#define CTRL  0x0000
#define EECD  0x0010
#define EERD  0x0014
#define MDIC  0x0020
#define ICR   0x00c0
#define ICS   0x00c8
#define IMS   0x00d0
#define IMC   0x00d8
#define RCTL  0x0100
#define TCTL  0x0400
#define RDBAL 0x2800
#define TDBAL 0x3800

struct rig {
    struct vclock clock;
    struct bus io, mmio;
    struct pci_bus pci;
    struct wire wires[4];
    struct e1000 nic;
    uint8_t memory[MEMORY];
    uint8_t sent[8][NIC_FRAME_MAX];
    size_t sent_len[8];
    unsigned frames;
};

static enum mem_result access_memory(void *ctx, unsigned as, gpa_t gpa, void *buf, size_t len, enum mem_kind kind,
                                     bool write)
{
    struct rig *g = ctx;
    if (gpa >= MEMORY || len > MEMORY - gpa)
        return MEM_DEVICE;
    if (write)
        memcpy(g->memory + gpa, buf, len);
    else
        memcpy(buf, g->memory + gpa, len);
    return MEM_OK;
}

static void wire_out(void *ctx, const uint8_t *frame, size_t len)
{
    struct rig *g = ctx;
    ck_assert_uint_lt(g->frames, ARRAY_LEN(g->sent));
    memcpy(g->sent[g->frames], frame, len);
    g->sent_len[g->frames++] = len;
}

static uint32_t rd(struct rig *g, unsigned at)
{
    return (uint32_t)bus_read(&g->mmio, BAR + at, 4, 0);
}

static void wr(struct rig *g, unsigned at, uint32_t v)
{
    bus_write(&g->mmio, BAR + at, 4, v, 0);
}

static void put(struct rig *g, uint64_t at, unsigned size, uint64_t v)
{
    for (unsigned i = 0; i < size; i++)
        g->memory[at + i] = (uint8_t)(v >> (8 * i));
}

static unsigned be16(const uint8_t *p)
{
    return (unsigned)(p[0] << 8 | p[1]);
}

static const uint8_t mac[NIC_MAC] = {0x52, 0x54, 0, 0x12, 0x34, 0x56};

static void rig_init(struct rig *g)
{
    struct irq_line lines[4];
    memset(g, 0, sizeof *g);
    clock_init(&g->clock);
    bus_init(&g->io, "port", 0x10000, NULL);
    bus_init(&g->mmio, "mmio", 0, NULL);
    for (unsigned i = 0; i < 4; i++)
        lines[i] = wire_line(g->wires, i);
    pci_bus_init(&g->pci, &g->io, &g->mmio, lines, NULL);
    struct e1000_config cfg = {
        .memory = {.ctx = g, .access = access_memory}, .clock = &g->clock, .wire = {wire_out, g}};
    memcpy(cfg.mac, mac, NIC_MAC);
    e1000_init(&g->nic, &cfg);
    ck_assert(pci_bus_attach(&g->pci, DEVFN, &g->nic.pci));
    pci_bus_config_write(&g->pci, DEVFN, PCI_BAR0, 4, BAR);
    pci_bus_config_write(&g->pci, DEVFN, PCI_BAR0 + 4, 4, 0xc000);
    pci_bus_config_write(&g->pci, DEVFN, PCI_COMMAND, 2, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

static void rig_fini(struct rig *g)
{
    pci_bus_detach(&g->nic.pci);
    e1000_fini(&g->nic);
    bus_fini(&g->io);
    bus_fini(&g->mmio);
}

/* Rings of eight descriptors; receive buffers of 2 KiB, one page each. */
static void start(struct rig *g, uint32_t rctl)
{
    for (unsigned i = 0; i < 8; i++)
        put(g, RX_RING + 16 * i, 8, BUFFER + 0x1000 * i);
    wr(g, RDBAL, RX_RING);
    wr(g, RDBAL + 8, 128);
    wr(g, RDBAL + 0x18, 7);
    wr(g, RCTL, 0x8002 | rctl);
    wr(g, TDBAL, TX_RING);
    wr(g, TDBAL + 8, 128);
    wr(g, TCTL, 2);
    run_for(&g->clock, E1000_LATENCY);
}

static void tx(struct rig *g, unsigned i, uint64_t gpa, uint32_t lower, uint32_t upper)
{
    put(g, TX_RING + 16 * i, 8, gpa);
    put(g, TX_RING + 16 * i + 8, 4, lower);
    put(g, TX_RING + 16 * i + 12, 4, upper);
}

static void send_to(struct rig *g, unsigned tail)
{
    wr(g, TDBAL + 0x18, tail);
    run_for(&g->clock, E1000_LATENCY);
}

/* One word through the pins, as a driver does it. */
static unsigned eeprom_word(struct rig *g, unsigned at)
{
    unsigned command = 6u << 6 | at, word = 0;
    wr(g, EECD, 0x40);
    ck_assert_uint_eq(rd(g, EECD) & 0x80, 0x80);
    wr(g, EECD, 0x42);
    for (int i = 8; i >= 0; i--) {
        unsigned bit = (command >> i & 1) << 2;
        wr(g, EECD, 0x42 | bit);
        wr(g, EECD, 0x43 | bit);
        wr(g, EECD, 0x42 | bit);
    }
    for (unsigned i = 0; i < 16; i++) {
        wr(g, EECD, 0x43);
        word = word << 1 | (rd(g, EECD) >> 3 & 1);
        wr(g, EECD, 0x42);
    }
    wr(g, EECD, 0);
    return word;
}

START_TEST(eeprom_gives_the_address_and_a_good_checksum_both_ways)
{
    struct rig g;
    unsigned sum = 0;
    rig_init(&g);
    for (unsigned i = 0; i < 64; i++) {
        unsigned word = eeprom_word(&g, i);
        sum += word;
        wr(&g, EERD, i << 8 | 1);
        ck_assert_uint_eq(rd(&g, EERD), word << 16 | i << 8 | 0x10);
    }
    ck_assert_uint_eq(sum & 0xffff, 0xbaba);
    ck_assert_uint_eq(eeprom_word(&g, 0), 0x5452);
    ck_assert_uint_eq(eeprom_word(&g, 2), 0x5634);
    rig_fini(&g);
}
END_TEST

START_TEST(phy_answers_at_its_address_with_a_link)
{
    struct rig g;
    rig_init(&g);
    wr(&g, MDIC, 0x08000000 | 1 << 21 | 2 << 16);
    ck_assert_uint_eq(rd(&g, MDIC) & 0x5000ffff, 0x10000141);
    wr(&g, MDIC, 0x08000000 | 1 << 21 | 1 << 16);
    ck_assert_uint_eq(rd(&g, MDIC) & 0x24, 0x24);
    wr(&g, MDIC, 0x08000000 | 2 << 21 | 1 << 16);
    ck_assert_uint_eq(rd(&g, MDIC) & 0x40000000, 0x40000000);
    ck_assert_uint_eq(rd(&g, 8) & 2, 2);
    rig_fini(&g);
}
END_TEST

START_TEST(interrupt_is_the_causes_that_are_not_masked)
{
    struct rig g;
    rig_init(&g);
    wr(&g, ICS, 0x04);
    ck_assert(!g.wires[2].level);
    wr(&g, IMS, 0x84);
    ck_assert(g.wires[2].level);
    wr(&g, IMC, 0x04);
    ck_assert(!g.wires[2].level);
    wr(&g, IMS, 0x04);
    ck_assert_uint_eq(rd(&g, ICR), 0x80000004);
    ck_assert(!g.wires[2].level);
    ck_assert_uint_eq(rd(&g, ICR), 0);
    rig_fini(&g);
}
END_TEST

START_TEST(legacy_descriptors_send_a_frame_and_report_it)
{
    struct rig g;
    rig_init(&g);
    start(&g, 0);
    for (unsigned i = 0; i < 100; i++)
        g.memory[BUFFER + i] = (uint8_t)i;
    tx(&g, 0, BUFFER, 40, 0);
    tx(&g, 1, BUFFER + 40, 60 | 0x09000000, 0);
    wr(&g, IMS, 1);
    wr(&g, TDBAL + 0x18, 2);
    ck_assert_uint_eq(g.frames, 0);
    run_for(&g.clock, E1000_LATENCY);
    ck_assert_uint_eq(g.frames, 1);
    ck_assert_uint_eq(g.sent_len[0], 100);
    ck_assert_int_eq(memcmp(g.sent[0], g.memory + BUFFER, 100), 0);
    ck_assert_uint_eq(g.memory[TX_RING + 16 + 12], 1);
    ck_assert_uint_eq(rd(&g, TDBAL + 0x10), 2);
    ck_assert(g.wires[2].level);
    ck_assert_uint_eq(rd(&g, 0x4080), 1);
    ck_assert_uint_eq(rd(&g, 0x4080), 0);
    rig_fini(&g);
}
END_TEST

/* The Internet checksum over `len` bytes and a first sum; 0 where a stored checksum is right. */
static unsigned sum_of(const uint8_t *p, unsigned len, uint32_t sum)
{
    for (unsigned i = 0; i < len; i++)
        sum += i & 1 ? p[i] : (uint32_t)p[i] << 8;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return ~sum & 0xffff;
}

START_TEST(large_tcp_packet_is_cut_into_segments_with_right_checksums)
{
    struct rig g;
    rig_init(&g);
    start(&g, 0);
    uint8_t *p = g.memory + BUFFER, *ip = p + 14, *tcp = p + 34;
    memset(p, 0, 54);
    for (unsigned i = 0; i < 2500; i++)
        p[54 + i] = (uint8_t)(i * 3);
    p[12] = 8;
    ip[0] = 0x45;
    ip[5] = 7; /* identification */
    ip[9] = 6;
    memcpy(ip + 12, "\x0a\x00\x02\x0f\x0a\x00\x02\x02", 8);
    tcp[7] = 100; /* sequence number */
    tcp[12] = 0x50;
    tcp[13] = 0x19; /* ACK, PSH, FIN */
    uint32_t pseudo = 0x0a00 + 0x020f + 0x0a00 + 0x0202 + 6;
    tcp[16] = (uint8_t)(pseudo >> 8);
    tcp[17] = (uint8_t)pseudo;
    put(&g, TX_RING, 4, 14 | 24 << 8 | 33 << 16);
    put(&g, TX_RING + 4, 4, 34 | 50 << 8);
    put(&g, TX_RING + 8, 4, 2500 | 0x27000000); /* TCP, IPv4, TSE, DEXT */
    put(&g, TX_RING + 12, 4, 54 << 8 | 1000 << 16);
    tx(&g, 1, BUFFER, 54 | 0x24100000, 0x300);
    tx(&g, 2, BUFFER + 54, 2500 | 0x2d100000, 0x300);
    send_to(&g, 3);
    ck_assert_uint_eq(g.frames, 3);
    for (unsigned k = 0; k < 3; k++) {
        const uint8_t *f = g.sent[k];
        unsigned part = k < 2 ? 1000 : 500;
        ck_assert_uint_eq(g.sent_len[k], 54 + part);
        ck_assert_uint_eq(be16(f + 16), 40 + part);
        ck_assert_uint_eq(be16(f + 18), 7 + k);
        ck_assert_uint_eq(be16(f + 40), 100 + 1000 * k);
        ck_assert_uint_eq(f[47], k < 2 ? 0x10 : 0x19);
        ck_assert_uint_eq(sum_of(f + 14, 20, 0), 0);
        ck_assert_uint_eq(sum_of(f + 34, 20 + part, pseudo + 20 + part), 0);
        ck_assert_int_eq(memcmp(f + 54, p + 54 + 1000 * k, part), 0);
    }
    rig_fini(&g);
}
END_TEST

static void arrive(struct rig *g, const uint8_t *to, size_t len)
{
    uint8_t frame[NIC_FRAME_MAX];
    for (size_t i = 0; i < len; i++)
        frame[i] = (uint8_t)i;
    memcpy(frame, to, NIC_MAC);
    e1000_receive(&g->nic, frame, len);
    run_for(&g->clock, E1000_LATENCY);
}

START_TEST(received_frame_has_its_checksum_and_wakes_the_driver)
{
    struct rig g;
    rig_init(&g);
    start(&g, 0);
    wr(&g, IMS, 0x80);
    arrive(&g, mac, 100);
    ck_assert_uint_eq(rd(&g, RDBAL + 0x10), 1);
    ck_assert_uint_eq(be16(g.memory + RX_RING + 8), 104 << 8);
    ck_assert_uint_eq(g.memory[RX_RING + 12] & 3, 3);
    ck_assert_uint_eq(g.memory[BUFFER + 99], 99);
    ck_assert_uint_ne(g.memory[BUFFER + 100] | g.memory[BUFFER + 101], 0);
    ck_assert(g.wires[2].level);
    rig_fini(&g);
}
END_TEST

START_TEST(frame_longer_than_a_buffer_takes_several)
{
    struct rig g;
    rig_init(&g);
    start(&g, 0x04020000); /* strip the checksum, 512 bytes */
    arrive(&g, mac, 1300);
    ck_assert_uint_eq(rd(&g, RDBAL + 0x10), 3);
    ck_assert_uint_eq(g.memory[RX_RING + 12] & 3, 1);
    ck_assert_uint_eq(g.memory[RX_RING + 32 + 12] & 3, 3);
    ck_assert_uint_eq(g.memory[RX_RING + 32 + 8] | g.memory[RX_RING + 32 + 9] << 8, 1300 - 1024);
    ck_assert_uint_eq(g.memory[BUFFER + 0x2000], (uint8_t)1024);
    rig_fini(&g);
}
END_TEST

START_TEST(filters_let_through_what_the_driver_asked_for)
{
    static const uint8_t other[NIC_MAC] = {0x52, 0x54, 0, 9, 9, 9}, multi[NIC_MAC] = {1, 0, 0x5e, 0, 0, 0xfb};
    static const uint8_t all[NIC_MAC] = {255, 255, 255, 255, 255, 255};
    struct rig g;
    rig_init(&g);
    start(&g, 0);
    arrive(&g, other, 64);
    arrive(&g, multi, 64);
    ck_assert_uint_eq(rd(&g, RDBAL + 0x10), 0);
    arrive(&g, all, 64);
    ck_assert_uint_eq(rd(&g, RDBAL + 0x10), 1);
    unsigned hash = ((unsigned)multi[5] << 8 | multi[4]) >> 4 & 0xfff;
    wr(&g, 0x5200 + 4 * (hash >> 5), 1u << (hash & 31));
    arrive(&g, multi, 64);
    ck_assert_uint_eq(rd(&g, RDBAL + 0x10), 2);
    wr(&g, RCTL, 0x800a);
    arrive(&g, other, 64);
    ck_assert_uint_eq(rd(&g, RDBAL + 0x10), 3);
    rig_fini(&g);
}
END_TEST

START_TEST(frames_wait_while_there_are_no_descriptors)
{
    struct rig g;
    rig_init(&g);
    start(&g, 0);
    for (unsigned i = 0; i < 9; i++)
        arrive(&g, mac, 64);
    ck_assert_uint_eq(rd(&g, RDBAL + 0x10), 7);
    ck_assert_uint_eq(g.nic.fifo.count, 2);
    wr(&g, RDBAL + 0x18, 2);
    run_for(&g.clock, E1000_LATENCY);
    ck_assert_uint_eq(g.nic.fifo.count, 0);
    ck_assert_uint_eq(rd(&g, RDBAL + 0x10), 1);
    rig_fini(&g);
}
END_TEST

START_TEST(hostile_rings_and_descriptors_do_no_harm)
{
    static const uint32_t bases[] = {0, 0xfff00, MEMORY - 16, 0xfffffff0};
    struct rig g;
    uint32_t seed = 1;
    rig_init(&g);
    for (unsigned round = 0; round < 400; round++) {
        for (unsigned i = 0; i < 0x200; i++) {
            seed = seed * 1664525 + 1013904223;
            g.memory[TX_RING + i] = (uint8_t)(seed >> 24);
            g.memory[RX_RING + i] = (uint8_t)(seed >> 16);
        }
        start(&g, seed & 0x060300ff);
        g.frames = 0;
        g.nic.cfg.wire.send = NULL;
        wr(&g, TDBAL, round & 8 ? bases[round & 3] : TX_RING);
        wr(&g, TDBAL + 4, round & 16 ? 0xffffffff : 0);
        wr(&g, TDBAL + 8, round & 32 ? 0xffffffff : 128);
        send_to(&g, seed >> 8 & (round & 64 ? 0xffff : 7));
        arrive(&g, mac, 60 + round);
        if (round % 10 == 0)
            wr(&g, CTRL, 0x04000000);
    }
    rig_fini(&g);
}
END_TEST

START_TEST(loaded_card_goes_on_in_the_middle_of_a_packet)
{
    struct rig a, b;
    rig_init(&a);
    rig_init(&b);
    start(&a, 0);
    for (unsigned i = 0; i < 100; i++)
        a.memory[BUFFER + i] = (uint8_t)i;
    tx(&a, 0, BUFFER, 40, 0);
    send_to(&a, 1);
    tx(&a, 1, BUFFER + 40, 60 | 0x09000000, 0);
    wr(&a, TDBAL + 0x18, 2);
    ROUND_TRIP(&a.clock, &b.clock, e1000_save(&a.nic, w), e1000_load(&b.nic, r));
    memcpy(b.memory, a.memory, MEMORY);
    run_for(&b.clock, E1000_LATENCY);
    ck_assert_uint_eq(b.frames, 1);
    ck_assert_uint_eq(b.sent_len[0], 100);
    ck_assert_int_eq(memcmp(b.sent[0], a.memory + BUFFER, 100), 0);
    rig_fini(&a);
    rig_fini(&b);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("e1000");
    TCase *t = tcase_create("e1000");
    tcase_add_test(t, eeprom_gives_the_address_and_a_good_checksum_both_ways);
    tcase_add_test(t, phy_answers_at_its_address_with_a_link);
    tcase_add_test(t, interrupt_is_the_causes_that_are_not_masked);
    tcase_add_test(t, legacy_descriptors_send_a_frame_and_report_it);
    tcase_add_test(t, large_tcp_packet_is_cut_into_segments_with_right_checksums);
    tcase_add_test(t, received_frame_has_its_checksum_and_wakes_the_driver);
    tcase_add_test(t, frame_longer_than_a_buffer_takes_several);
    tcase_add_test(t, filters_let_through_what_the_driver_asked_for);
    tcase_add_test(t, frames_wait_while_there_are_no_descriptors);
    tcase_add_test(t, hostile_rings_and_descriptors_do_no_harm);
    tcase_add_test(t, loaded_card_goes_on_in_the_middle_of_a_packet);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
