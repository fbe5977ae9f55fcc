#include "frontends/machine/firmware.h"

#include "frontends/machine/firmware_find.h"
#include "frontends/machine/hidden.h"
#include "frontends/machine/machine.h"
#include "mmu/mem.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PAM_READ  1 /* reads go to RAM */
#define PAM_WRITE 2 /* writes go to RAM */

#define LOW_ALIAS_MAX 0x20000u
#define ONE_MIB       0x100000u
#define SEGMENTS_BASE 0xc0000u
#define BIOS_SEGMENT  0xf0000u

/* Segment 0 is the 64 KiB at 0xf0000, the others the 16 KiB ones from 0xc0000 on. */
static gpa_t segment_base(unsigned k)
{
    return k ? SEGMENTS_BASE + (k - 1) * 0x4000u : BIOS_SEGMENT;
}

static uint64_t segment_len(unsigned k)
{
    return k ? 0x4000 : 0x10000;
}

static unsigned segment_of(gpa_t gpa)
{
    return gpa >= BIOS_SEGMENT ? 0 : 1 + (unsigned)(gpa - SEGMENTS_BASE) / 0x4000;
}

static bool is_hidden(const struct firmware *f, unsigned k)
{
    return !(f->state[k] & PAM_READ);
}

/* ---- the image ---- */

/* QEMU's -bios takes a bare name, too. */
static bool is_distribution_name(const char *path)
{
    return !strchr(path, '/') && access(path, R_OK);
}

bool firmware_open(struct firmware *f, const char *path, struct error *e)
{
    struct error none;
    if (!path && !firmware_find(FIRMWARE_SEABIOS, f->path, sizeof f->path, e))
        return false;
    if (!path || (is_distribution_name(path) && firmware_find(path, f->path, sizeof f->path, &none)))
        path = f->path;
    if (!file_read(&f->image, path, e))
        return false;
    if (!f->image.len || f->image.len % FIRMWARE_UNIT || f->image.len > FIRMWARE_MAX)
        return error_set(e, "firmware '%s' has %zu bytes: expected a multiple of %u KiB, at most %u MiB", path,
                         f->image.len, FIRMWARE_UNIT >> 10, FIRMWARE_MAX >> 20);
    return true;
}

bool firmware_open_flash(struct firmware *f, const struct drive *flash, struct error *e)
{
    uint64_t len = flash->block->size;
    if (!len || len % PAGE_SIZE || len > FIRMWARE_MAX)
        return error_set(e, "flash '%s' has %llu bytes: expected whole pages of 4 KiB, at most %u MiB", flash->cfg.file,
                         (unsigned long long)len, FIRMWARE_MAX >> 20);
    f->image = (struct file){.path = flash->cfg.file, .data = malloc(len), .len = len};
    if (!f->image.data || block_read(flash->block, 0, f->image.data, len))
        return error_set(e, "flash '%s' cannot be read", flash->cfg.file);
    return true;
}

void firmware_close(struct firmware *f)
{
    file_free(&f->image);
}

/* ---- slots ---- */

/* Where the image's memory is seen at gpa below 1 MiB; 0: nowhere. */
static hva_t alias_hva(const struct firmware *f, gpa_t gpa)
{
    uint64_t shown = f->image.len < LOW_ALIAS_MAX ? f->image.len : LOW_ALIAS_MAX;
    return gpa >= ONE_MIB - shown ? f->hva + f->image.len - (ONE_MIB - gpa) : 0;
}

static int segment_map(struct firmware *f, unsigned k)
{
    gpa_t base = segment_base(k);
    hva_t ram = f->m->low_hva + base, rom = alias_hva(f, base);
    if (!is_hidden(f, k))
        return mem_slot_add(f->m->mem, 0, base, segment_len(k), ram,
                            f->state[k] & PAM_WRITE ? MEMSLOT_RAM : MEMSLOT_ROM);
    return rom ? mem_slot_add(f->m->mem, 0, base, segment_len(k), rom, MEMSLOT_ROM) : MEMSLOT_OK;
}

static void segment_set(struct firmware *f, unsigned k, uint8_t state)
{
    gpa_t base = segment_base(k);
    if (f->state[k] == state)
        return;
    if (memslot_find(f->m->mem, 0, base >> PAGE_SHIFT))
        mem_slot_delete(f->m->mem, 0, base);
    f->state[k] = state;
    int bad = segment_map(f, k);
    if (bad)
        log_error("memory at 0x%llx: %s", (unsigned long long)base, memslot_error_text(bad));
}

void firmware_pam_changed(struct firmware *f, const uint8_t *pam)
{
    segment_set(f, 0, pam[0] >> 4 & 3);
    for (unsigned k = 1; k < PAM_SEGMENTS; k++)
        segment_set(f, k, pam[1 + (k - 1) / 2] >> 4 * ((k - 1) & 1) & 3);
}

bool firmware_map(struct firmware *f, struct machine *m, struct error *e)
{
    uint64_t len = f->image.len;
    f->m = m;
    f->hva = host_mm_mmap_anon(m->mm, len, HOST_READ | HOST_WRITE);
    if (!f->hva)
        return error_set(e, "cannot reserve memory for the firmware");
    gpa_t base = (1ull << 32) - len;
    int bad = mem_slot_add(m->mem, 0, base, len, f->hva, MEMSLOT_ROM);
    for (unsigned k = 0; k < PAM_SEGMENTS && !bad; k++)
        bad = segment_map(f, k);
    if (bad)
        return error_set(e, "cannot map the firmware: %s", memslot_error_text(bad));
    return mem_access(m->mem, 0, base, f->image.data, len, MEM_HOST_POKE, true, BUS_NO_CPU) == MEM_OK ||
           error_set(e, "the firmware cannot be put into memory");
}

void firmware_fork(struct firmware *f, struct machine *m, const struct firmware *parent)
{
    *f = *parent;
    f->m = m;
}

/* ---- the bus behind the segments: what no slot answers ---- */

static uint64_t segments_read(void *dev, const struct bus_txn *t)
{
    (void)dev;
    (void)t;
    return ~0ull;
}

static void segments_write(void *dev, const struct bus_txn *t, uint64_t value)
{
    struct firmware *f = dev;
    gpa_t gpa = SEGMENTS_BASE + t->offset;
    if (!(f->state[segment_of(gpa)] & PAM_WRITE))
        log_emit(&f->m->log, LOG_GUEST_ERROR, "write of %u bytes to ROM at 0x%llx", t->size, (unsigned long long)gpa);
    else if (!hidden_poke(f->m, gpa, &value, t->size))
        log_error("no host memory for guest memory at 0x%llx", (unsigned long long)gpa);
}

static const struct bus_ops segments_bus_ops = {segments_read, segments_write};

/* Where the image lies, its slot answers reads. */
static void rom_write(void *dev, const struct bus_txn *t, uint64_t value)
{
    struct firmware *f = dev;
    (void)value;
    log_emit(&f->m->log, LOG_GUEST_ERROR, "write of %u bytes to ROM at 0x%llx", t->size,
             (unsigned long long)((1ull << 32) - f->image.len + t->offset));
}

static const struct bus_ops rom_bus_ops = {segments_read, rom_write};

bool firmware_build(struct firmware *f, struct error *e)
{
    struct bus *b = &f->m->mmio;
    enum bus_error bad = bus_add(b, SEGMENTS_BASE, ONE_MIB - SEGMENTS_BASE, &segments_bus_ops, f, "ROM below 1 MiB");
    if (bad == BUS_OK)
        bad = bus_add(b, (1ull << 32) - f->image.len, f->image.len, &rom_bus_ops, f, "ROM");
    return bad == BUS_OK || error_set(e, "ROM: %s", bus_error_text(bad));
}

/* ---- snapshots ---- */

static bool is_behind_rom(const struct machine *m, gpa_t gpa)
{
    return is_hidden(&m->firmware, segment_of(gpa));
}

static const struct hidden behind_rom = {"hidden_ram", 2, SEGMENTS_BASE, ONE_MIB, is_behind_rom};

void firmware_save(const struct firmware *f, struct snap_writer *w)
{
    hidden_save(&behind_rom, f->m, w);
}

void firmware_load(struct firmware *f, struct snap_reader *r)
{
    hidden_load(&behind_rom, f->m, r);
}
