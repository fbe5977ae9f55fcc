/*
 * Kernels: Multiboot headers with address fields, Multiboot ELF files, bzImages; with modules and command lines.
 */
#include "fuzz_files.h"

#include <elf.h>
#include <stdlib.h>
#include <string.h>

#define IMAGES    60
#define IMAGE_MAX 0x20000u
#define RAM_MIB   8

static const uint8_t image_code[] = {0xf4, 0xeb, 0xfd};

struct image {
    struct fuzz *f;
    struct rng *rng;
    uint8_t bytes[IMAGE_MAX];
    size_t len;
};

static void put(struct image *i, size_t at, uint64_t v, unsigned size)
{
    for (unsigned k = 0; k < size && at + k < IMAGE_MAX; k++)
        i->bytes[at + k] = (uint8_t)(v >> 8 * k);
}

/* The value, or now and then another. */
static uint64_t maybe(struct image *i, uint64_t v)
{
    switch (rng_below(i->rng, 12)) {
    case 0:
        return rng_number(i->rng);
    case 1:
        return v + rng_below(i->rng, 64) - 32;
    default:
        return v;
    }
}

static void multiboot_header(struct image *i, size_t at, uint32_t flags)
{
    put(i, at, 0x1badb002, 4);
    put(i, at + 4, flags, 4);
    put(i, at + 8, 0 - 0x1badb002u - flags, 4);
}

static void make_fields(struct image *i)
{
    size_t at = 4 * rng_below(i->rng, 64);
    uint32_t base = 0x100000;
    i->len = 0x1000 + rng_below(i->rng, 0x4000);
    rng_bytes(i->rng, i->bytes, 0x1000);
    multiboot_header(i, at, (uint32_t)maybe(i, 0x10003));
    put(i, at + 12, maybe(i, base + at), 4);
    put(i, at + 16, maybe(i, base), 4);
    put(i, at + 20, maybe(i, rng_one_in(i->rng, 2) ? 0 : base + i->len), 4);
    put(i, at + 24, maybe(i, base + 0x8000), 4);
    put(i, at + 28, maybe(i, base + 0x100), 4);
}

static Elf32_Phdr segment(struct image *i, uint32_t at)
{
    return (Elf32_Phdr){.p_type = (uint32_t)maybe(i, PT_LOAD),
                        .p_offset = (uint32_t)maybe(i, 0x1000),
                        .p_vaddr = (uint32_t)maybe(i, at),
                        .p_paddr = (uint32_t)maybe(i, at),
                        .p_filesz = (uint32_t)maybe(i, 0x800),
                        .p_memsz = (uint32_t)maybe(i, rng_one_in(i->rng, 4) ? 0x600000 : 0x2000)};
}

static void make_elf(struct image *i)
{
    unsigned many = rng_one_in(i->rng, 8) ? 3000 : 1 + (unsigned)rng_below(i->rng, 4);
    Elf32_Ehdr eh = {.e_type = ET_EXEC,
                     .e_machine = (uint16_t)maybe(i, EM_386),
                     .e_version = 1,
                     .e_entry = (uint32_t)maybe(i, 0x100100),
                     .e_phoff = (uint32_t)maybe(i, 0x2000),
                     .e_phentsize = (uint16_t)maybe(i, sizeof(Elf32_Phdr)),
                     .e_phnum = (uint16_t)maybe(i, many)};
    i->len = 0x2000 + many * sizeof(Elf32_Phdr) + rng_below(i->rng, 0x1000);
    rng_bytes(i->rng, i->bytes, 0x2000);
    memcpy(eh.e_ident, ELFMAG, SELFMAG);
    eh.e_ident[EI_CLASS] = (uint8_t)maybe(i, ELFCLASS32);
    eh.e_ident[EI_DATA] = ELFDATA2LSB;
    memcpy(i->bytes, &eh, sizeof eh);
    multiboot_header(i, 0x40, 3);
    Elf32_Phdr same = segment(i, 0x200000);
    for (unsigned k = 0; k < many; k++) {
        Elf32_Phdr ph = many > 100 ? same : segment(i, 0x100000 + k * 0x10000);
        memcpy(i->bytes + 0x2000 + k * sizeof ph, &ph, sizeof ph);
    }
}

static void make_bzimage(struct image *i)
{
    uint8_t sects = (uint8_t)rng_below(i->rng, 8);
    i->len = 512 * (size_t)(sects ? sects + 1 : 5) + 0x1000 + rng_below(i->rng, 0x1000);
    rng_bytes(i->rng, i->bytes, i->len);
    put(i, 0x1f1, maybe(i, sects), 1);
    put(i, 0x1f4, maybe(i, 0x100), 4);
    put(i, 0x1fe, 0xaa55, 2);
    put(i, 0x200, maybe(i, 0x66eb), 2);
    put(i, 0x202, 0x53726448, 4);
    put(i, 0x206, maybe(i, 0x20f), 2);
    put(i, 0x22c, maybe(i, 0x7fffffff), 4);
    put(i, 0x236, maybe(i, 3), 2);
    put(i, 0x238, maybe(i, 2047), 4);
    put(i, 0x258, maybe(i, 0x200000), 8);
    put(i, 0x260, maybe(i, 0x100000), 4);
}

static void make_image(struct image *i)
{
    memset(i->bytes, 0, sizeof i->bytes);
    switch (rng_below(i->rng, 3)) {
    case 0:
        make_fields(i);
        break;
    case 1:
        make_elf(i);
        break;
    default:
        make_bzimage(i);
    }
    if (i->len > IMAGE_MAX)
        i->len = IMAGE_MAX;
    if (rng_one_in(i->rng, 4))
        files_mutate(i->rng, i->bytes, i->len < 0x300 ? i->len : 0x300);
    if (rng_one_in(i->rng, 6))
        i->len = rng_below(i->rng, i->len);
}

static void some_cmdline(struct image *i, char *out, size_t size)
{
    size_t n = rng_one_in(i->rng, 8) ? rng_below(i->rng, size) : rng_below(i->rng, 40);
    memset(out, 'a', n);
    out[n] = 0;
}

/* What firmware would be given of it. */
static void offer(struct image *i, const struct boot_env *env)
{
    struct fw_cfg f;
    struct error e = {""};
    const struct boot_bios b = {env->kernel, env->initrd, env->cmdline, env->low_ram_end};
    if (!fw_cfg_init(&f, &(struct fw_cfg_config){.ram_size = env->low_ram_end, .cpu_count = 1, .max_cpus = 1}))
        return;
    files_expect_message(i->f, boot_bios_offer(&b, &f, &e), &e);
    fw_cfg_fini(&f);
}

/* The loaders alone, on a machine that has seen other images. */
static bool boot(struct image *i, struct machine *m, const char *cmdline, struct error *e)
{
    uint8_t *copy = malloc(i->len ? i->len : 1); /* exactly as long as the file, for the sanitizer */
    struct file kernel = {.path = "image", .data = copy, .len = i->len};
    struct file initrd = {.path = "module", .data = i->bytes, .len = rng_below(i->rng, IMAGE_MAX)};
    struct boot_env env = {.mem = m->mem,
                           .cpu = m->cpu[0],
                           .kernel = &kernel,
                           .initrd = rng_one_in(i->rng, 3) ? &initrd : NULL,
                           .cmdline = cmdline,
                           .e820 = m->e820,
                           .e820_count = m->e820_count,
                           .low_ram_end = m->low_ram};
    memcpy(copy, i->bytes, i->len);
    enum boot_format format = boot_detect(&kernel);
    bool ok = false;
    vcpu_reset(m->cpu[0], false);
    offer(i, &env);
    if (format == BOOT_UNKNOWN)
        error_set(e, "unknown");
    else
        ok = format == BOOT_LINUX ? boot_linux(&env, e) : boot_multiboot(&env, e);
    free(copy);
    return ok;
}

/* The way that a command line takes. */
static void create(struct image *i)
{
    struct error e = {""};
    struct mem_file file = mem_file_make(i->f, i->bytes, i->len);
    struct machine_config cfg = {.ram_bytes = (uint64_t)RAM_MIB << 20,
                                 .kernel = file.path,
                                 .initrd = rng_one_in(i->rng, 4) ? file.path : NULL,
                                 .rtc_base = MACHINE_RTC_DEFAULT};
    struct machine *m = machine_create(&cfg, &e);
    files_expect_message(i->f, m != NULL, &e);
    machine_destroy(m);
    mem_file_close(&file);
}

void images_session(struct fuzz *f)
{
    struct image *i = calloc(1, sizeof *i);
    char cmdline[0x11000];
    struct machine *m = fuzz_machine(f, MACHINE_MMU_SHADOW, RAM_MIB, image_code, sizeof image_code);
    i->f = f;
    i->rng = &f->rng;
    for (unsigned k = 0; k < IMAGES && !rng_is_over(&f->rng); k++, f->round++, f->work++) {
        struct error e = {""};
        make_image(i);
        some_cmdline(i, cmdline, sizeof cmdline);
        bool ok = boot(i, m, cmdline, &e);
        files_expect_message(f, ok, &e);
        if (ok)
            fuzz_run(f, m, m->clock.icount + 200, NULL);
        if (rng_one_in(i->rng, 16))
            create(i);
    }
    fuzz_audit(f, m);
    machine_destroy(m);
    free(i);
}
