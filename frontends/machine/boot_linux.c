/*
 * Linux/x86 boot protocol: a bzImage entered at its 64-bit entry point, or, if it or the processor has no such thing,
 * at its 32-bit one.
 *
 * Memory below 1 MiB, all of it chosen here:
 *   0x01000  GDT           0x02000  page tables (identity map of the first 4 GiB in 2 MiB pages)
 *   0x10000  boot_params   0x20000  command line   0x30000  setup_data with the random seed
 */
#include "frontends/machine/boot.h"
#include "frontends/machine/linux_image.h"

#include <string.h>

#define GDT_GPA        0x1000
#define TABLES_GPA     0x2000
#define PARAMS_GPA     0x10000
#define CMDLINE_GPA    0x20000
#define SETUP_DATA_GPA 0x30000

/* Offsets in boot_params. */
#define BP_VIDEO_MODE    0x06
#define BP_VIDEO_COLUMNS 0x07
#define BP_VIDEO_LINES   0x0e
#define BP_VIDEO_IS_VGA  0x0f
#define BP_VIDEO_POINTS  0x10
#define BP_ACPI_RSDP     0x70
#define BP_E820_COUNT    0x1e8
#define BP_E820_TABLE    0x2d0

#define SETUP_RNG_SEED 9

static bool has_long_mode(const struct vcpu *v)
{
    uint32_t out[4];
    vcpu_cpuid(v, 0x80000000, 0, out);
    if (out[0] < 0x80000001 || out[0] > 0x8000ffff)
        return false;
    vcpu_cpuid(v, 0x80000001, 0, out);
    return out[3] >> 29 & 1;
}

static bool image_check(const struct boot_env *env, struct linux_image *img, struct error *e)
{
    const struct file *k = env->kernel;
    if (!linux_image_read(img, k, e))
        return false;
    if (img->version < 0x202 || !img->loaded_high)
        return error_set(e,
                         "kernel '%s' is too old (boot protocol %x.%02x): a bzImage of protocol 2.02 or later is "
                         "wanted, or firmware that starts it (-bios bios-256k.bin)",
                         k->path, img->version >> 8, img->version & 0xff);
    if (img->entry64 && !has_long_mode(env->cpu)) {
        log_warn("kernel '%s' is a 64-bit one, and the processor (-cpu) has no long mode: it will not get far",
                 env->kernel->path);
        img->entry64 = false;
    }
    return true;
}

static bool image_place(const struct boot_env *env, struct linux_image *img, struct error *e)
{
    uint64_t need = img->init_size > img->payload_len ? img->init_size : img->payload_len;
    if (img->load < 0x100000 || img->load + need > env->low_ram_end || need > env->low_ram_end)
        return error_set(
            e,
            "kernel '%s' does not fit: it needs memory from %lluM to %lluM, the machine has %lluM below 4 GiB; use a "
            "larger -m",
            env->kernel->path, (unsigned long long)(img->load >> 20),
            (unsigned long long)((img->load + need + 0xfffff) >> 20), (unsigned long long)(env->low_ram_end >> 20));
    return boot_poke(env, img->load, img->payload, img->payload_len, "kernel", e);
}

static bool initrd_place(const struct boot_env *env, const struct linux_image *img, uint8_t *params, struct error *e)
{
    if (!env->initrd)
        return true;
    uint64_t top = img->initrd_max + 1, need = img->load + img->init_size;
    if (top > env->low_ram_end)
        top = env->low_ram_end;
    if (env->initrd->len > top || ((top - env->initrd->len) & ~PAGE_MASK) < need)
        return error_set(e,
                         "initrd '%s' (%zu bytes) does not fit between the kernel's end at %lluM and the end of memory "
                         "at %lluM; use a "
                         "larger -m",
                         env->initrd->path, env->initrd->len, (unsigned long long)(need >> 20),
                         (unsigned long long)(top >> 20));
    uint64_t at = (top - env->initrd->len) & ~PAGE_MASK;
    linux_put32(params + HDR_RAMDISK_IMAGE, (uint32_t)at);
    linux_put32(params + HDR_RAMDISK_SIZE, (uint32_t)env->initrd->len);
    return boot_poke(env, at, env->initrd->data, env->initrd->len, "initrd", e);
}

static bool cmdline_place(const struct boot_env *env, const struct linux_image *img, uint8_t *params, struct error *e)
{
    size_t len = strlen(env->cmdline), max = img->cmdline_size;
    if (len > max || len > SETUP_DATA_GPA - CMDLINE_GPA - 1)
        return error_set(e, "the command line has %zu characters, the kernel takes %zu", len, max);
    linux_put32(params + HDR_CMDLINE_PTR, CMDLINE_GPA);
    return boot_poke(env, CMDLINE_GPA, env->cmdline, len + 1, "command line", e);
}

static bool seed_place(const struct boot_env *env, uint8_t *params, struct error *e)
{
    uint8_t node[16 + sizeof env->rng_seed] = {0};
    linux_put32(node + 8, SETUP_RNG_SEED);
    linux_put32(node + 12, sizeof env->rng_seed);
    memcpy(node + 16, env->rng_seed, sizeof env->rng_seed);
    linux_put64(params + HDR_SETUP_DATA, SETUP_DATA_GPA);
    return boot_poke(env, SETUP_DATA_GPA, node, sizeof node, "random seed", e);
}

static void e820_fill(const struct boot_env *env, uint8_t *params)
{
    params[BP_E820_COUNT] = (uint8_t)env->e820_count;
    for (unsigned k = 0; k < env->e820_count; k++) {
        uint8_t *at = params + BP_E820_TABLE + 20 * k;
        linux_put64(at, env->e820[k].base);
        linux_put64(at + 8, env->e820[k].len);
        linux_put32(at + 16, env->e820[k].type);
    }
}

/* Text mode 3: 80x25 characters of 16 lines. */
static void screen_fill(uint8_t *params)
{
    params[BP_VIDEO_MODE] = 3;
    params[BP_VIDEO_COLUMNS] = 80;
    params[BP_VIDEO_LINES] = 25;
    params[BP_VIDEO_IS_VGA] = 1;
    params[BP_VIDEO_POINTS] = 16;
}

static bool params_place(const struct boot_env *env, const struct linux_image *img, struct error *e)
{
    uint8_t params[4096] = {0};
    size_t end = HDR_MAGIC + img->setup[HDR_JUMP + 1];
    if (end > HDR_END || end < HDR_MAGIC + 4)
        end = HDR_END;
    memcpy(params + HDR_SETUP_SECTS, img->setup + HDR_SETUP_SECTS, end - HDR_SETUP_SECTS);
    params[HDR_TYPE_OF_LOADER] = LINUX_LOADER;
    params[HDR_LOADFLAGS] |= LINUX_LOADED_HIGH | LINUX_CAN_USE_HEAP;
    linux_put32(params + HDR_CODE32_START, (uint32_t)img->load);
    linux_put16(params + HDR_HEAP_END, 0xfe00);
    linux_put64(params + BP_ACPI_RSDP, env->rsdp);
    e820_fill(env, params);
    if (env->vga)
        screen_fill(params);
    return initrd_place(env, img, params, e) && cmdline_place(env, img, params, e) && seed_place(env, params, e) &&
           boot_poke(env, PARAMS_GPA, params, sizeof params, "boot parameters", e);
}

/* PML4, PDPT and four page directories: identity map of 4 GiB. */
static bool tables_place(const struct boot_env *env, struct error *e)
{
    uint8_t table[4096] = {0};
    linux_put64(table, TABLES_GPA + 0x1000 + 3);
    if (!boot_poke(env, TABLES_GPA, table, sizeof table, "page tables", e))
        return false;
    memset(table, 0, sizeof table);
    for (unsigned k = 0; k < 4; k++)
        linux_put64(table + 8 * k, TABLES_GPA + 0x2000 + 0x1000ull * k + 3);
    if (!boot_poke(env, TABLES_GPA + 0x1000, table, sizeof table, "page tables", e))
        return false;
    for (unsigned d = 0; d < 4; d++) {
        for (unsigned k = 0; k < 512; k++)
            linux_put64(table + 8 * k, ((uint64_t)d << 30) + ((uint64_t)k << 21) + 0x83);
        if (!boot_poke(env, TABLES_GPA + 0x2000 + 0x1000ull * d, table, sizeof table, "page tables", e))
            return false;
    }
    return true;
}

static bool gdt_place(const struct boot_env *env, const struct linux_image *img, struct error *e)
{
    uint8_t gdt[32] = {0};
    linux_put64(gdt + 16, img->entry64 ? 0x00af9b000000ffffull : 0x00cf9b000000ffffull); /* 0x10: code */
    linux_put64(gdt + 24, 0x00cf93000000ffffull);                                        /* 0x18: data */
    return boot_poke(env, GDT_GPA, gdt, sizeof gdt, "descriptor table", e);
}

static void cpu_enter(const struct boot_env *env, const struct linux_image *img)
{
    struct vcpu *v = env->cpu;
    v->gdtr = (struct desc_table){GDT_GPA, 31};
    v->idtr = (struct desc_table){0, 0};
    v->cr0 = CR0_PE | CR0_ET;
    if (img->entry64) {
        v->cr0 |= CR0_PG | CR0_NE | CR0_WP;
        v->cr3 = TABLES_GPA;
        v->cr4 = CR4_PAE;
        v->efer = EFER_LME | EFER_LMA;
    }
    vcpu_set_segment(v, SEG_CS, 0x10, 0, 0xffffffff, img->entry64 ? 0xa09b : 0xc09b);
    for (int s = SEG_ES; s <= SEG_GS; s++)
        if (s != SEG_CS)
            vcpu_set_segment(v, s, 0x18, 0, 0xffffffff, 0xc093);
    v->gpr[REG_RSI] = PARAMS_GPA;
    v->gpr[REG_RSP] = 0x8000;
    v->rip = img->load + (img->entry64 ? 0x200 : 0);
    vcpu_set_rflags(v, 2);
    vcpu_refresh(v);
}

bool boot_linux(const struct boot_env *env, struct error *e)
{
    struct linux_image img = {0};
    if (!image_check(env, &img, e) || !image_place(env, &img, e) || !params_place(env, &img, e) ||
        !gdt_place(env, &img, e) || (img.entry64 && !tables_place(env, e)))
        return false;
    cpu_enter(env, &img);
    return true;
}
