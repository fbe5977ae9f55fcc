/*
 * Kernels: Multiboot headers with address fields, Multiboot and PVH ELF files of both classes, Multiboot 2 headers with
 * their tags, bzImages; with modules and command lines.
 */
#include "fuzz_files.h"

#include "devices/layout.h"

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

/* A tag of Multiboot 2's header, its size rounded up: where the next one is. */
static size_t put_tag(struct image *i, size_t at, unsigned type, const uint32_t *words, unsigned count)
{
    unsigned size = 8 + 4 * count;
    put(i, at, maybe(i, type), 2);
    put(i, at + 2, rng_below(i->rng, 2), 2);
    put(i, at + 4, maybe(i, size), 4);
    for (unsigned k = 0; k < count; k++)
        put(i, at + 8 + 4 * k, maybe(i, words[k]), 4);
    return at + ((size + 7) & ~7u);
}

static void make_multiboot2(struct image *i)
{
    size_t start = 8 * rng_below(i->rng, 64), at = start + 16;
    uint32_t base = 0x100000, length;
    const uint32_t address[] = {base + (uint32_t)start, rng_one_in(i->rng, 4) ? UINT32_MAX : base,
                                rng_one_in(i->rng, 2) ? 0 : base + 0x3000, base + 0x8000};
    const uint32_t entry[] = {base + 0x1000}, info[] = {1, 3, 4, 6, 8, 14, 15, 2}, any[] = {1, 2, 3, 4};
    i->len = 0x4000 + rng_below(i->rng, 0x1000);
    rng_bytes(i->rng, i->bytes, 0x1000);
    if (!rng_one_in(i->rng, 8))
        at = put_tag(i, at, 2, address, 4);
    if (!rng_one_in(i->rng, 8))
        at = put_tag(i, at, 3, entry, 1);
    for (uint64_t n = rng_below(i->rng, 4); n; n--)
        at = rng_one_in(i->rng, 2) ? put_tag(i, at, 1, info, (unsigned)rng_below(i->rng, 9))
                                   : put_tag(i, at, (unsigned)rng_below(i->rng, 12), any, 4);
    at = put_tag(i, at, 0, NULL, 0);
    length = (uint32_t)maybe(i, at - start);
    put(i, start, 0xe85250d6, 4);
    put(i, start + 4, 0, 4);
    put(i, start + 8, length, 4);
    put(i, start + 12, 0 - 0xe85250d6u - length, 4);
}

/* Notes of Xen: a few others, then the entry's. */
static size_t put_notes(struct image *i, size_t at)
{
    for (uint64_t n = rng_below(i->rng, 3); n < 4; n++) {
        bool is_entry = n == 3 || rng_one_in(i->rng, 4);
        unsigned size = (unsigned)(is_entry ? 4u << rng_below(i->rng, 2) : rng_below(i->rng, 40));
        put(i, at, maybe(i, 4), 4);
        put(i, at + 4, maybe(i, size), 4);
        put(i, at + 8, maybe(i, is_entry ? 18 : 6), 4);
        memcpy(i->bytes + at + 12, "Xen", 4);
        put(i, at + 16, maybe(i, 0x100100), size > 8 ? 8 : size);
        at += 16 + ((size + 3) & ~3u);
    }
    return at;
}

/* An ELF file of 64 bits (or what says so) with a PT_NOTE segment. */
static void make_pvh(struct image *i)
{
    unsigned many = 2 + (unsigned)rng_below(i->rng, 3);
    Elf64_Ehdr eh = {.e_type = ET_EXEC,
                     .e_machine = (uint16_t)maybe(i, EM_X86_64),
                     .e_version = 1,
                     .e_entry = maybe(i, 0x100100),
                     .e_phoff = maybe(i, 0x2000),
                     .e_phentsize = (uint16_t)maybe(i, sizeof(Elf64_Phdr)),
                     .e_phnum = (uint16_t)maybe(i, many)};
    rng_bytes(i->rng, i->bytes, 0x2000);
    memcpy(eh.e_ident, ELFMAG, SELFMAG);
    eh.e_ident[EI_CLASS] = (uint8_t)maybe(i, ELFCLASS64);
    eh.e_ident[EI_DATA] = ELFDATA2LSB;
    memcpy(i->bytes, &eh, sizeof eh);
    size_t notes = 0x2000 + many * sizeof(Elf64_Phdr), end = put_notes(i, notes);
    for (unsigned k = 0; k < many; k++) {
        uint64_t to = 0x100000 + k * 0x10000;
        Elf64_Phdr ph = {.p_type = (uint32_t)maybe(i, PT_LOAD),
                         .p_offset = maybe(i, 0x1000),
                         .p_vaddr = maybe(i, to),
                         .p_paddr = maybe(i, to),
                         .p_filesz = maybe(i, 0x800),
                         .p_memsz = maybe(i, 0x2000)};
        if (k == 0) {
            ph.p_type = (uint32_t)maybe(i, PT_NOTE);
            ph.p_offset = maybe(i, notes);
            ph.p_filesz = ph.p_memsz = maybe(i, end - notes);
        }
        memcpy(i->bytes + 0x2000 + k * sizeof ph, &ph, sizeof ph);
    }
    i->len = end + rng_below(i->rng, 0x100);
}

static void make_image(struct image *i)
{
    memset(i->bytes, 0, sizeof i->bytes);
    switch (rng_below(i->rng, 6)) {
    case 0:
        make_fields(i);
        break;
    case 1:
        make_elf(i);
        break;
    case 2:
    case 3:
        make_multiboot2(i);
        break;
    case 4:
        make_pvh(i);
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
    struct boot_module module[BOOT_MODULES_MAX];
    unsigned modules = rng_one_in(i->rng, 3) ? (unsigned)rng_below(i->rng, BOOT_MODULES_MAX + 1) : 0;
    for (unsigned k = 0; k < modules; k++)
        module[k] = (struct boot_module){{.path = "module", .data = i->bytes, .len = rng_below(i->rng, IMAGE_MAX)},
                                         rng_one_in(i->rng, 8) ? cmdline : "module with arguments"};
    struct boot_env env = {.mem = m->mem,
                           .module = module,
                           .module_count = modules,
                           .vga = rng_one_in(i->rng, 2),
                           .rsdp = rng_one_in(i->rng, 4) ? rng_number(i->rng) : LAYOUT_ACPI_TABLES,
                           .cpu = m->cpu[0],
                           .kernel = &kernel,
                           .initrd = rng_one_in(i->rng, 3) ? &initrd : NULL,
                           .cmdline = cmdline,
                           .e820 = m->e820,
                           .e820_count = m->e820_count,
                           .low_ram_end = m->low_ram};
    memcpy(copy, i->bytes, i->len);
    vcpu_reset(m->cpu[0], false);
    offer(i, &env);
    bool ok = boot_load(&env, e);
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
