/*
 * When a machine is halted for ever, and when it is not.
 */
#include "check_main.h"

#include "devices/layout.h"
#include "frontends/machine/machine.h"

#include <string.h>
#include <unistd.h>

static char path[64];
static unsigned sent;

static void on_byte(void *ctx, unsigned port, uint8_t byte)
{
    sent += byte == 'x';
}

/* A Multiboot image: header with address fields, then the code, at 1 MiB. */
static void image_write(const void *code, size_t len)
{
    const uint32_t flags = 1u << 16, base = 0x100000;
    uint32_t header[8] = {0x1badb002, flags,    0 - 0x1badb002u - flags, base, base, base + 32 + (uint32_t)len,
                          0,          base + 32};
    strcpy(path, "/tmp/umbra-halt-XXXXXX");
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, header, sizeof header), sizeof header);
    ck_assert_int_eq(write(fd, code, len), (ssize_t)len);
    close(fd);
}

/* OUT 'x' to COM1; PIT channel 0 in mode 2 for good; HLT with interrupts off; back to the HLT. */
static const uint8_t code[] = {0x66, 0xba, 0xf8, 0x03, 0xb0, 'x',  0xee, 0xb0, 0x34, 0xe6, 0x43,
                               0xb0, 0x10, 0xe6, 0x40, 0xe6, 0x40, 0xfa, 0xf4, 0xeb, 0xfd};

static struct machine *machine_open(void)
{
    struct error e = {""};
    struct machine_config cfg = {.ram_bytes = 2 << 20,
                                 .kernel = path,
                                 .rtc_base = MACHINE_RTC_DEFAULT,
                                 .vtime_limit = 20000000,
                                 .host = {.serial_tx = on_byte}};
    image_write(code, sizeof code);
    struct machine *m = machine_create(&cfg, &e);
    unlink(path);
    ck_assert_msg(m != NULL, "%s", e.text);
    sent = 0;
    return m;
}

START_TEST(halt_with_interrupts_off_is_for_ever_though_a_timer_runs)
{
    struct machine *m = machine_open();
    ck_assert_int_eq(machine_run(m), MACHINE_HALTED);
    ck_assert_uint_eq(sent, 1); /* what was in the serial port has left */
    machine_destroy(m);
}
END_TEST

START_TEST(halt_with_interrupts_on_waits_for_the_timer)
{
    struct machine *m = machine_open();
    m->cpu[0]->idtr = (struct desc_table){0, 0x7ff};
    m->cfg.vtime_limit = 10000;
    vcpu_set_rflags(m->cpu[0], 2 | FLAG_IF);
    uint8_t nop = 0x90; /* in the place of CLI */
    mem_access(m->mem, 0, 0x100020 + 17, &nop, 1, MEM_HOST_POKE, true, BUS_NO_CPU);
    bus_write(&m->ports, LAYOUT_PIC_MASTER_PORT + 1, 1, 0xff, 0); /* masked, but the guest could not say so */
    ck_assert_int_eq(machine_run(m), MACHINE_VTIME_LIMIT);
    machine_destroy(m);
}
END_TEST

START_TEST(halt_with_interrupts_off_is_not_for_ever_if_a_timer_gives_an_nmi)
{
    struct machine *m = machine_open();
    m->cfg.vtime_limit = 10000;
    bus_write(&m->mmio, LAYOUT_LAPIC + 0x350, 4, 4u << 8, 0); /* LINT0: NMI */
    bus_write(&m->ports, LAYOUT_PIC_MASTER_PORT + 1, 1, 0xff, 0);
    ck_assert_int_eq(machine_run(m), MACHINE_VTIME_LIMIT);
    machine_destroy(m);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("machine/halt");
    TCase *t = tcase_create("halt");
    tcase_add_test(t, halt_with_interrupts_off_is_for_ever_though_a_timer_runs);
    tcase_add_test(t, halt_with_interrupts_on_waits_for_the_timer);
    tcase_add_test(t, halt_with_interrupts_off_is_not_for_ever_if_a_timer_gives_an_nmi);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
