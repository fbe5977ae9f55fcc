/*
 * Files that a machine is given: input scripts and kernels that should be refused, and how.
 */
#include "check_main.h"

#include "frontends/machine/boot.h"
#include "frontends/machine/script.h"

#include <elf.h>
#include <string.h>
#include <unistd.h>

static char path[64];

static void file_write(const void *bytes, size_t len)
{
    strcpy(path, "/tmp/umbra-input-XXXXXX");
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, bytes, len), (ssize_t)len);
    close(fd);
}

static bool script_is_taken(const void *bytes, size_t len, struct error *e)
{
    struct vclock clock;
    struct input_queue queue;
    const struct script_ops ops = {.ctx = NULL};
    clock_init(&clock);
    input_init(&queue);
    file_write(bytes, len);
    struct script *s = script_load(path, &clock, &queue, &ops, e);
    bool ok = s != NULL;
    script_free(s);
    unlink(path);
    return ok;
}

START_TEST(a_script_with_a_zero_byte_is_refused_and_not_cut_short)
{
    struct error e = {""};
    ck_assert(!script_is_taken("quit\n\0nonsense\n", 15, &e));
    ck_assert_ptr_nonnull(strstr(e.text, "zero byte"));
}
END_TEST

START_TEST(a_delay_beyond_the_end_of_time_is_refused)
{
    struct error e = {""};
    ck_assert(script_is_taken("delay 1000\n", 11, &e));
    ck_assert(!script_is_taken("delay 99999999999999\n", 21, &e));
    ck_assert_ptr_nonnull(strstr(e.text, "line 1"));
}
END_TEST

/* A Multiboot ELF file of n equal segments, each as large as fits. */
static void elf_make(uint8_t *out, unsigned n, uint32_t memsz)
{
    const uint32_t header[3] = {0x1badb002, 0, 0 - 0x1badb002u};
    Elf32_Ehdr eh = {.e_machine = EM_386, .e_phoff = 0x100, .e_phentsize = sizeof(Elf32_Phdr), .e_phnum = (uint16_t)n};
    memcpy(eh.e_ident, ELFMAG, SELFMAG);
    eh.e_ident[EI_CLASS] = ELFCLASS32;
    eh.e_ident[EI_DATA] = ELFDATA2LSB;
    memcpy(out, &eh, sizeof eh);
    memcpy(out + 0x40, header, sizeof header);
    for (unsigned k = 0; k < n; k++) {
        Elf32_Phdr ph = {.p_type = PT_LOAD, .p_paddr = 0x100000, .p_vaddr = 0x100000, .p_memsz = memsz};
        memcpy(out + 0x100 + k * sizeof ph, &ph, sizeof ph);
    }
}

START_TEST(segments_that_need_more_than_all_memory_are_refused_before_they_take_time)
{
    static uint8_t image[0x100 + 60000 * sizeof(Elf32_Phdr)];
    struct file f = {.path = "image", .data = image, .len = sizeof image};
    struct boot_env env = {
        .kernel = &f, .cmdline = "", .low_ram_end = 0x100000}; /* nothing is placed: no memory is needed */
    struct error e = {""};
    elf_make(image, 60000, 0x200000);
    ck_assert(!boot_multiboot(&env, &e));
    ck_assert_ptr_nonnull(strstr(e.text, "does not fit"));
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("machine/input");
    TCase *t = tcase_create("input");
    tcase_add_test(t, a_script_with_a_zero_byte_is_refused_and_not_cut_short);
    tcase_add_test(t, a_delay_beyond_the_end_of_time_is_refused);
    tcase_add_test(t, segments_that_need_more_than_all_memory_are_refused_before_they_take_time);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
