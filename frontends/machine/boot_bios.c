#include "frontends/machine/boot_bios.h"

#include "core/types.h"
#include "frontends/machine/boot.h"
#include "frontends/machine/linux_image.h"

#include <stdlib.h>
#include <string.h>

#define ONE_MIB       0x100000u
#define SETUP_MAX     0x8000u  /* behind it: heap and stack */
#define BIOS_HIGH     0x40000u /* what SeaBIOS may take at the end of low memory for its tables */
#define CMDLINE_MAGIC 0xa33f

#define ROM_CHECKSUM 6
#define ROM_PNP      0x1a
#define PNP_LEN      32
#define PNP_CHECKSUM 9

/* What the ROM is told, as it is laid out there (linux_rom_params). */
struct rom_params {
    uint16_t setup_segment, setup_stack;
    uint32_t setup_size, kernel_address, kernel_size, cmdline_address, cmdline_size, initrd_size, initrd_floor,
        initrd_limit;
};

/* ---- where things go ---- */

static bool is_modern(const struct linux_image *img)
{
    return img->version >= 0x202 && img->loaded_high;
}

static struct rom_params places(const struct boot_bios *b, const struct linux_image *img)
{
    bool modern = is_modern(img);
    return (struct rom_params){.setup_segment = modern ? 0x1000 : 0x9000,
                               .setup_stack = modern ? 0xe000 : 0x9800,
                               .setup_size = (uint32_t)img->setup_len,
                               .kernel_address = img->loaded_high ? ONE_MIB : 0x10000,
                               .kernel_size = (uint32_t)img->payload_len,
                               .cmdline_address = modern ? 0x20000 : 0x99800,
                               .cmdline_size = (uint32_t)strlen(b->cmdline) + 1,
                               .initrd_size = b->initrd ? (uint32_t)b->initrd->len : 0};
}

/* The command line ends below the segment of the next thing: the EBDA or what the BIOS keeps there. */
static bool cmdline_check(const struct boot_bios *b, const struct linux_image *img, struct error *e)
{
    size_t len = strlen(b->cmdline), room = is_modern(img) ? 0xffff : 0x7ff;
    size_t max = img->cmdline_size < room ? img->cmdline_size : room;
    return len <= max || error_set(e, "the command line has %zu characters, the kernel takes %zu", len, max);
}

static bool kernel_check(const struct boot_bios *b, const struct linux_image *img, uint64_t *end, struct error *e)
{
    const char *path = b->kernel->path;
    if (img->setup_len > SETUP_MAX)
        return error_set(e, "kernel '%s' has %zu bytes of setup code: the 16-bit entry leaves room for %u", path,
                         img->setup_len, SETUP_MAX);
    if (!img->loaded_high && img->payload_len > 0x90000 - 0x10000)
        return error_set(e, "kernel '%s' is a zImage of %zu bytes: at most 512 KiB have room", path, img->payload_len);
    uint64_t copied = ONE_MIB + (img->loaded_high ? img->payload_len : 0);
    uint64_t unpacked = img->load + img->init_size;
    *end = unpacked > copied ? unpacked : copied;
    if (unpacked < img->load || *end > b->low_ram)
        return error_set(e,
                         "kernel '%s' does not fit: it needs memory up to %lluM, the machine has %lluM below 4 GiB; "
                         "use a larger -m",
                         path, (unsigned long long)((*end + ONE_MIB - 1) / ONE_MIB),
                         (unsigned long long)(b->low_ram / ONE_MIB));
    return true;
}

static bool initrd_check(const struct boot_bios *b, const struct linux_image *img, uint64_t floor, struct rom_params *p,
                         struct error *e)
{
    uint64_t limit = img->initrd_max + 1, ram = b->low_ram - BIOS_HIGH;
    p->initrd_floor = (uint32_t)floor;
    p->initrd_limit = (uint32_t)(limit < b->low_ram ? limit : b->low_ram);
    uint64_t top = limit < ram ? limit : ram;
    return !b->initrd || (top >= b->initrd->len && ((top - b->initrd->len) & ~0xfffull) >= floor) ||
           error_set(e,
                     "initrd '%s' (%zu bytes) does not fit between the kernel's end at %lluM and the end of memory at "
                     "%lluM; use a larger -m",
                     b->initrd->path, b->initrd->len, (unsigned long long)(floor / ONE_MIB),
                     (unsigned long long)(top / ONE_MIB));
}

/* ---- the setup code's header ---- */

/* `vga=` is the boot loader's to obey: "normal", "ext", "ask" or a number as strtoul() reads it. */
static bool vga_mode(const char *cmdline, uint16_t *mode)
{
    const char *at = strstr(cmdline, "vga=");
    while (at && at != cmdline && at[-1] != ' ')
        at = strstr(at + 1, "vga=");
    if (!at)
        return false;
    at += 4;
    char *end;
    unsigned long number = strtoul(at, &end, 0);
    if (!strncmp(at, "normal", 6))
        number = 0xffff;
    else if (!strncmp(at, "ext", 3))
        number = 0xfffe;
    else if (!strncmp(at, "ask", 3))
        number = 0xfffd;
    else if (end == at || number > 0xffff)
        return false;
    *mode = (uint16_t)number;
    return true;
}

static void header_fill(const struct boot_bios *b, const struct linux_image *img, const struct rom_params *p,
                        uint8_t *setup)
{
    uint16_t mode, heap_end = p->setup_stack;
    if (vga_mode(b->cmdline, &mode))
        linux_put16(setup + HDR_VID_MODE, mode);
    setup[HDR_TYPE_OF_LOADER] = LINUX_LOADER;
    linux_put32(setup + HDR_RAMDISK_SIZE, p->initrd_size);
    if (img->version >= 0x201) {
        linux_put16(setup + HDR_HEAP_END, (uint16_t)(heap_end - 0x200));
        setup[HDR_LOADFLAGS] |= LINUX_CAN_USE_HEAP;
    }
    if (img->version >= 0x202) {
        linux_put32(setup + HDR_CMDLINE_PTR, p->cmdline_address);
        return;
    }
    linux_put16(setup + HDR_CMDLINE_MAGIC, CMDLINE_MAGIC);
    linux_put16(setup + HDR_CMDLINE_OFFSET, heap_end);
    linux_put16(setup + HDR_MOVE_SIZE, (uint16_t)(heap_end + p->cmdline_size));
}

static bool offer_setup(const struct boot_bios *b, const struct linux_image *img, const struct rom_params *p,
                        struct fw_cfg *f)
{
    uint8_t *setup = malloc(img->setup_len);
    if (!setup)
        return false;
    memcpy(setup, img->setup, img->setup_len);
    header_fill(b, img, p, setup);
    bool ok = fw_cfg_add(f, FW_CFG_SETUP_DATA, setup, img->setup_len);
    free(setup);
    return ok && fw_cfg_add_u32(f, FW_CFG_SETUP_SIZE, p->setup_size) &&
           fw_cfg_add_u32(f, FW_CFG_SETUP_ADDR, p->setup_segment * 16u);
}

/* ---- the items ---- */

static bool offer_files(const struct boot_bios *b, const struct linux_image *img, const struct rom_params *p,
                        struct fw_cfg *f)
{
    return fw_cfg_add_u32(f, FW_CFG_KERNEL_ADDR, p->kernel_address) &&
           fw_cfg_add_u32(f, FW_CFG_KERNEL_SIZE, p->kernel_size) &&
           fw_cfg_add_ref(f, FW_CFG_KERNEL_DATA, img->payload, img->payload_len) &&
           fw_cfg_add_u32(f, FW_CFG_CMDLINE_ADDR, p->cmdline_address) &&
           fw_cfg_add_u32(f, FW_CFG_CMDLINE_SIZE, p->cmdline_size) &&
           fw_cfg_add(f, FW_CFG_CMDLINE_DATA, b->cmdline, p->cmdline_size) &&
           fw_cfg_add_u32(f, FW_CFG_INITRD_SIZE, p->initrd_size) &&
           (!b->initrd || fw_cfg_add_ref(f, FW_CFG_INITRD_DATA, b->initrd->data, b->initrd->len));
}

#ifdef UMBRA_LINUX_ROM
extern const uint8_t linux_rom_start[], linux_rom_params[], linux_rom_end[];

static uint8_t sum_to_zero(const uint8_t *p, size_t len)
{
    uint8_t sum = 0;
    for (size_t k = 0; k < len; k++)
        sum = (uint8_t)(sum + p[k]);
    return (uint8_t)-sum;
}

static bool offer_rom(const struct rom_params *p, struct fw_cfg *f, struct error *e)
{
    size_t len = (size_t)(linux_rom_end - linux_rom_start);
    uint8_t *rom = malloc(len);
    if (!rom)
        return error_set(e, "out of memory");
    memcpy(rom, linux_rom_start, len);
    memcpy(rom + (linux_rom_params - linux_rom_start), p, sizeof *p);
    uint8_t *pnp = rom + linux_get16(rom + ROM_PNP);
    pnp[PNP_CHECKSUM] = sum_to_zero(pnp, PNP_LEN);
    rom[ROM_CHECKSUM] = sum_to_zero(rom, len);
    bool ok = fw_cfg_add_file(f, BOOT_BIOS_ROM, rom, len, false);
    free(rom);
    return ok || error_set(e, "out of memory");
}
#else
static bool offer_rom(const struct rom_params *p, struct fw_cfg *f, struct error *e)
{
    return error_set(e, "-bios with -kernel: this program was built without the ROM that it takes (x86 hosts have it)");
}
#endif

bool boot_bios_offer(const struct boot_bios *b, struct fw_cfg *f, struct error *e)
{
    struct linux_image img;
    uint64_t end = 0;
    if (boot_detect(b->kernel) != BOOT_LINUX)
        return error_set(e, "kernel '%s' is no Linux bzImage: firmware (-bios) starts no others", b->kernel->path);
    if (!linux_image_read(&img, b->kernel, e) || !kernel_check(b, &img, &end, e) || !cmdline_check(b, &img, e))
        return false;
    struct rom_params p = places(b, &img);
    if (!initrd_check(b, &img, end, &p, e))
        return false;
    if (!offer_setup(b, &img, &p, f) || !offer_files(b, &img, &p, f))
        return error_set(e, "out of memory");
    return offer_rom(&p, f, e);
}
