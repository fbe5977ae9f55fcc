#include "frontends/machine/drives.h"

#include "core/snapshot.h"
#include "core/stats.h"
#include "frontends/machine/device_config.h"

#include <string.h>

#define SECTION         "drives"
#define SECTION_VERSION 2

static const struct {
    const char *name;
    uint32_t places;
} interfaces[DRIVE_INTERFACES] = {[DRIVE_IDE] = {"ide", 4},
                                  [DRIVE_VIRTIO] = {"virtio", DRIVES_MAX},
                                  [DRIVE_FLOPPY] = {"floppy", 2},
                                  [DRIVE_PFLASH] = {"pflash", 2},
                                  [DRIVE_NONE] = {"none", DRIVES_MAX},
                                  [DRIVE_SATA] = {"sata", DEVICES_MAX *DRIVE_SATA_PORTS}};

const char *drive_interface_name(enum drive_interface i)
{
    return interfaces[i].name;
}

/* ---- places ---- */

static bool is_taken(const struct drive_config *cfg, unsigned count, enum drive_interface interface, uint32_t index)
{
    for (unsigned k = 0; k < count; k++)
        if (cfg[k].interface == interface && cfg[k].index == index)
            return true;
    return false;
}

static bool place_named(const struct drive_config *cfg, unsigned k, struct error *e)
{
    const struct drive_config *c = &cfg[k];
    if (c->index == DRIVE_INDEX_NONE)
        return true;
    if (c->index >= interfaces[c->interface].places)
        return error_set(e, "drive '%s': if=%s has no index %u", c->file ? c->file : "", interfaces[c->interface].name,
                         c->index);
    if (!is_taken(cfg, k, c->interface, c->index))
        return true;
    return c->interface == DRIVE_SATA ? error_set(e, "drive '%s': another drive is on that port of the AHCI controller",
                                                  c->file ? c->file : "")
                                      : error_set(e, "drive '%s': if=%s,index=%u is already taken",
                                                  c->file ? c->file : "", interfaces[c->interface].name, c->index);
}

static bool place_next(struct drive_config *cfg, unsigned count, unsigned k, struct error *e)
{
    struct drive_config *c = &cfg[k];
    if (c->index != DRIVE_INDEX_NONE)
        return true;
    for (uint32_t index = 0; index < interfaces[c->interface].places; index++) {
        if (is_taken(cfg, count, c->interface, index))
            continue;
        c->index = index;
        return true;
    }
    return error_set(e, "drive '%s': no place is left for another drive with if=%s", c->file ? c->file : "",
                     interfaces[c->interface].name);
}

static bool has_unique_id(const struct drive_config *cfg, unsigned k, struct error *e)
{
    for (unsigned i = 0; cfg[k].id && i < k; i++)
        if (cfg[i].id && !strcmp(cfg[i].id, cfg[k].id))
            return error_set(e, "two drives have the id '%s'", cfg[k].id);
    return true;
}

bool drives_place(struct drive_config *cfg, unsigned count, struct error *e)
{
    for (unsigned k = 0; k < count; k++)
        if (!place_named(cfg, k, e) || !has_unique_id(cfg, k, e))
            return false;
    for (unsigned k = 0; k < count; k++)
        if (!place_next(cfg, count, k, e))
            return false;
    return true;
}

/* ---- opening ---- */

static bool drive_open(struct drive *d, struct error *e)
{
    char why[512] = "";
    const struct block_open_config cfg = {.file = d->cfg.file,
                                          .format = d->cfg.format,
                                          .read_only = d->cfg.read_only || d->cfg.is_cdrom,
                                          .snapshot = d->cfg.snapshot && !d->cfg.is_cdrom};
    if (!d->cfg.file)
        return true;
    d->block = block_open(&cfg, why, sizeof why);
    return d->block || error_set(e, "%s", why);
}

bool drives_open(struct drives *d, const struct drive_config *cfg, unsigned count, struct error *e)
{
    for (d->count = 0; d->count < count; d->count++) {
        d->drive[d->count] = (struct drive){.cfg = cfg[d->count]};
        if (!drive_open(&d->drive[d->count], e)) {
            drives_close(d);
            return false;
        }
    }
    return true;
}

bool drives_fork(struct drives *d, struct drives *parent, struct error *e)
{
    char why[256] = "";
    for (d->count = 0; d->count < parent->count; d->count++) {
        struct drive *from = &parent->drive[d->count], *to = &d->drive[d->count];
        *to = (struct drive){.cfg = from->cfg};
        to->block = from->block ? block_fork(from->block, why, sizeof why) : NULL;
        if (from->block && !to->block) {
            drives_close(d);
            return error_set(e, "%s", why);
        }
    }
    return true;
}

void drives_close(struct drives *d)
{
    for (unsigned k = 0; k < d->count; k++) {
        block_close(d->drive[k].block);
        d->drive[k].block = NULL;
    }
    d->count = 0;
}

/* ---- looking ---- */

struct drive *drives_find(struct drives *d, enum drive_interface interface, uint32_t index)
{
    for (unsigned k = 0; k < d->count; k++)
        if (d->drive[k].cfg.interface == interface && d->drive[k].cfg.index == index)
            return &d->drive[k];
    return NULL;
}

struct drive *drives_by_id(struct drives *d, const char *id)
{
    for (unsigned k = 0; k < d->count; k++)
        if (d->drive[k].cfg.id && !strcmp(d->drive[k].cfg.id, id))
            return &d->drive[k];
    return NULL;
}

bool drives_write_through(const struct drive_config *cfg, unsigned count)
{
    for (unsigned k = 0; k < count; k++)
        if (cfg[k].file && !cfg[k].read_only && !cfg[k].is_cdrom && !cfg[k].snapshot)
            return true;
    return false;
}

const struct drive *drives_by_block(const struct drives *d, const struct block_device *b)
{
    for (unsigned k = 0; b && k < d->count; k++)
        if (d->drive[k].block == b)
            return &d->drive[k];
    return NULL;
}

void drives_name(const struct drive_config *c, char name[DRIVE_NAME_SIZE])
{
    if (c->id)
        snprintf(name, DRIVE_NAME_SIZE, "%s", c->id);
    else if (c->interface == DRIVE_IDE)
        snprintf(name, DRIVE_NAME_SIZE, "ide%u-%s%u", c->index / 2, c->is_cdrom ? "cd" : "hd", c->index % 2);
    else
        snprintf(name, DRIVE_NAME_SIZE, "%s%u", interfaces[c->interface].name, c->index);
}

void drives_set_full(struct drives *d, void (*full)(void *ctx, struct block_device *b), void *ctx)
{
    for (unsigned k = 0; k < d->count; k++)
        if (d->drive[k].block) {
            block_set_full(d->drive[k].block, full, ctx);
            d->drive[k].block->on_read = d->drive[k].cfg.on_read;
            d->drive[k].block->on_write = d->drive[k].cfg.on_write;
        }
}

void drives_add_stats(struct drives *d, struct stats *s)
{
    static const char *const names[DRIVES_MAX][7] = {
#define ROW(n)                                                                                                         \
    {"drive" #n ".reads",   "drive" #n ".read",     "drive" #n ".writes", "drive" #n ".written",                       \
     "drive" #n ".flushes", "drive" #n ".discards", "drive" #n ".errors"}
        ROW(0), ROW(1),  ROW(2),  ROW(3),  ROW(4),  ROW(5),  ROW(6), ROW(7), ROW(8),
        ROW(9), ROW(10), ROW(11), ROW(12), ROW(13), ROW(14), ROW(15)
#undef ROW
    };
    for (unsigned k = 0; k < d->count; k++) {
        if (!d->drive[k].block)
            continue;
        const struct block_counters *c = &d->drive[k].block->counters;
        stats_add(s, names[k][0], "requests", &c->reads);
        stats_add(s, names[k][1], "bytes", &c->read_bytes);
        stats_add(s, names[k][2], "requests", &c->writes);
        stats_add(s, names[k][3], "bytes", &c->written_bytes);
        stats_add(s, names[k][4], "requests", &c->flushes);
        stats_add(s, names[k][5], "requests", &c->discards);
        stats_add(s, names[k][6], "requests", &c->errors);
    }
}

/* ---- snapshots ---- */

void drives_save(const struct drives *d, struct snap_writer *w)
{
    snap_begin(w, SECTION, SECTION_VERSION);
    snap_put_u32(w, d->count);
    for (unsigned k = 0; k < d->count; k++) {
        snap_put_u8(w, d->drive[k].block != NULL);
        if (d->drive[k].block)
            block_save(d->drive[k].block, w);
    }
    snap_end(w);
}

void drives_load(struct drives *d, struct snap_reader *r)
{
    if (!snap_expect(r, SECTION, SECTION_VERSION))
        return;
    uint32_t count = snap_get_u32(r);
    if (count != d->count) {
        snap_fail(r, "it was made with %u drives, this machine has %u", count, d->count);
        return;
    }
    for (unsigned k = 0; k < d->count && !snap_reader_error(r); k++) {
        bool has = snap_get_u8(r);
        if (has != (d->drive[k].block != NULL))
            snap_fail(r, "drive %u had %s medium when it was made", k, has ? "a" : "no");
        else if (has)
            block_load(d->drive[k].block, r);
    }
}
