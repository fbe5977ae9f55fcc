#include "frontends/cli/drive_options.h"

#include "frontends/cli/properties.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

static bool is_on_off(const char *value, bool *on)
{
    *on = !strcmp(value, "on");
    return *on || !strcmp(value, "off");
}

static bool interface_parse(const char *value, enum drive_interface *out)
{
    for (enum drive_interface i = 0; i < DRIVE_INTERFACES; i++)
        if (i != DRIVE_SATA && !strcmp(value, drive_interface_name(i))) {
            *out = i;
            return true;
        }
    return false;
}

static bool format_parse(const char *value, enum block_format *out, struct error *e)
{
    if (!strcmp(value, "raw"))
        *out = BLOCK_FORMAT_RAW;
    else if (!strcmp(value, "gzip"))
        *out = BLOCK_FORMAT_GZIP;
    else
        return error_set(
            e,
            "-drive format=%s: raw and gzip are read here; serve others with qemu-nbd (file=nbd+unix:///?socket=PATH)",
            value);
    return true;
}

static bool index_parse(const char *value, uint32_t *out)
{
    char *end;
    unsigned long n = strtoul(value, &end, 10);
    *out = (uint32_t)n;
    return isdigit((unsigned char)*value) && !*end && n < DRIVES_MAX;
}

/* What QEMU's users give and what makes no difference here. */
static bool is_harmless(const char *key)
{
    static const char *const keys[] = {"cache", "aio", "discard", "detect-zeroes", "copy-on-read"};
    for (size_t k = 0; k < ARRAY_LEN(keys); k++)
        if (!strcmp(key, keys[k]))
            return true;
    return false;
}

static bool on_error_parse(const char *value, bool is_write, enum block_on_error *out)
{
    static const struct {
        const char *name;
        enum block_on_error what;
    } names[] = {{"report", BLOCK_ON_ERROR_REPORT},
                 {"ignore", BLOCK_ON_ERROR_IGNORE},
                 {"stop", BLOCK_ON_ERROR_STOP},
                 {"enospc", BLOCK_ON_ERROR_AUTO}};
    for (size_t k = 0; k < ARRAY_LEN(names) - !is_write; k++)
        if (!strcmp(value, names[k].name)) {
            *out = names[k].what;
            return true;
        }
    return false;
}

/* bus= and unit= together are another spelling of index=. */
struct ide_place {
    uint32_t bus, unit;
    bool given;
};

static bool property(struct drive_config *d, struct ide_place *place, const char *key, char *value, struct error *e)
{
    bool ok = true;
    if (!strcmp(key, "file"))
        d->file = value;
    else if (!strcmp(key, "id"))
        d->id = value;
    else if (!strcmp(key, "serial"))
        d->serial = value;
    else if (!strcmp(key, "format"))
        return format_parse(value, &d->format, e);
    else if (!strcmp(key, "if"))
        ok = interface_parse(value, &d->interface);
    else if (!strcmp(key, "media"))
        ok = (d->is_cdrom = !strcmp(value, "cdrom")) || !strcmp(value, "disk");
    else if (!strcmp(key, "index"))
        ok = index_parse(value, &d->index);
    else if (!strcmp(key, "bus"))
        ok = place->given = index_parse(value, &place->bus);
    else if (!strcmp(key, "unit"))
        ok = place->given = index_parse(value, &place->unit);
    else if (!strcmp(key, "bootindex"))
        ok = bootindex_parse(value, &d->bootindex);
    else if (!strcmp(key, "snapshot"))
        ok = is_on_off(value, &d->snapshot);
    else if (!strcmp(key, "werror"))
        ok = on_error_parse(value, true, &d->on_write);
    else if (!strcmp(key, "rerror"))
        ok = on_error_parse(value, false, &d->on_read);
    else if (!strcmp(key, "readonly") || !strcmp(key, "read-only"))
        ok = is_on_off(value, &d->read_only);
    else if (!is_harmless(key))
        return error_set(e,
                         "-drive %s=%s: unknown property; known: file, format, if, media, index, bus, unit, snapshot, "
                         "readonly, id, serial, bootindex, werror, rerror",
                         key, value);
    return ok || error_set(e, "-drive %s=%s: not a value of '%s'", key, value, key);
}

static bool drive_check(const struct drive_config *d, struct error *e)
{
    if (d->is_cdrom && d->interface != DRIVE_IDE && d->interface != DRIVE_NONE && d->interface != DRIVE_SATA)
        return error_set(e, "-drive if=%s,media=cdrom: CD drives are on the IDE bus (if=ide) or behind -device ahci",
                         drive_interface_name(d->interface));
    if (d->on_read == BLOCK_ON_ERROR_STOP && (d->is_cdrom || d->interface == DRIVE_FLOPPY))
        return error_set(e, "-drive rerror=stop: for disks; what a CD or floppy drive cannot read is reported");
    if (!d->file && !d->is_cdrom && d->interface != DRIVE_FLOPPY)
        return error_set(e, "-drive: file=IMAGE is missing");
    return true;
}

static bool drive_add(struct machine_config *m, const struct drive_config *d, struct error *e)
{
    if (m->drive_count == DRIVES_MAX)
        return error_set(e, "-drive: more than %d drives", DRIVES_MAX);
    if (!drive_check(d, e))
        return false;
    m->drive[m->drive_count++] = *d;
    return true;
}

bool drive_option_parse(struct machine_config *m, char *text, struct error *e)
{
    struct drive_config d = {.index = DRIVE_INDEX_NONE};
    struct ide_place place = {0};
    for (char *p; (p = property_next(&text));) {
        char *value = strchr(p, '=');
        if (!value)
            return error_set(e, "-drive: '%s': expected KEY=VALUE", p);
        *value++ = 0;
        if (!property(&d, &place, p, value, e))
            return false;
    }
    if (place.given)
        d.index = d.interface == DRIVE_IDE ? 2 * place.bus + place.unit : place.unit;
    d.file = d.file && *d.file ? d.file : NULL;
    return drive_add(m, &d, e);
}

bool drive_option_short(struct machine_config *m, const char *name, const char *file, struct error *e)
{
    struct drive_config d = {.file = file, .index = DRIVE_INDEX_NONE};
    if (!strncmp(name, "hd", 2)) {
        d.index = (uint32_t)(name[2] - 'a');
    } else if (!strncmp(name, "fd", 2)) {
        d.interface = DRIVE_FLOPPY;
        d.index = (uint32_t)(name[2] - 'a');
    } else {
        d.is_cdrom = true;
        d.index = 2;
    }
    return drive_add(m, &d, e);
}

static bool is_order(const char *letters)
{
    return *letters && letters[strspn(letters, "acdn")] == 0;
}

/* How long the menu waits, and how long it takes until a machine that found nothing starts again: ms. */
static bool wait_parse(const char *value, uint32_t max, uint32_t *out)
{
    char *end;
    long long n = strtoll(value, &end, 10);
    *out = (uint32_t)n;
    return (isdigit((unsigned char)*value) && !*end && n <= max) || (max == 0xffffffff && !strcmp(value, "-1"));
}

static bool boot_extra(struct boot_extras *x, const char *key, const char *value)
{
    uint32_t ms;
    if (!strcmp(key, "strict"))
        return is_on_off(value, &x->strict);
    if (!strcmp(key, "splash-time")) {
        x->has_menu_wait = wait_parse(value, 0xffff, &ms);
        x->menu_wait = (uint16_t)ms;
        return x->has_menu_wait;
    }
    if (strcmp(key, "reboot-timeout") != 0)
        return false;
    return x->has_fail_wait = wait_parse(value, 0xffffffff, &x->fail_wait);
}

bool boot_option_parse(struct machine_config *m, char *text, struct error *e)
{
    for (char *p; (p = property_next(&text));) {
        char *value = strchr(p, '=');
        bool ok;
        if (value)
            *value++ = 0;
        if (!value || !strcmp(p, "order"))
            ok = m->boot_extras.letters_given = is_order(m->boot_order = value ? value : p);
        else if (!strcmp(p, "once"))
            ok = is_order(m->boot_once = value);
        else if (!strcmp(p, "menu"))
            ok = is_on_off(value, &m->boot_menu);
        else
            ok = boot_extra(&m->boot_extras, p, value);
        if (!ok)
            return error_set(e,
                             "-boot %s%s%s: expected order=LETTERS or once=LETTERS (a floppy, c disk, d CD, n "
                             "network), menu=on|off, "
                             "splash-time=MS, strict=on|off, reboot-timeout=MS",
                             p, value ? "=" : "", value ? value : "");
    }
    return true;
}

/* ---- -device ide-hd and its like ---- */

static struct drive_config *drive_named(struct machine_config *m, const char *id)
{
    for (unsigned k = 0; id && k < m->drive_count; k++)
        if (m->drive[k].id && !strcmp(m->drive[k].id, id))
            return &m->drive[k];
    return NULL;
}

/* The bus's number, if it is one of those that NAME.0, NAME.1 and so on name. */
static bool bus_number(const char *bus, const char *name, uint32_t *number)
{
    size_t len = strlen(name);
    return !strncmp(bus, name, len) && bus[len] == '.' && index_parse(bus + len + 1, number);
}

/* A port of an AHCI controller: ID.N, or, counted behind the board's two IDE buses, ide.N of those without an id. */
static bool is_sata_port(const struct machine_config *m, const char *bus, uint32_t *index)
{
    uint32_t first = 0, first_unnamed = 2, n;
    for (unsigned k = 0; bus && k < m->device_count; k++) {
        const struct device_config *d = &m->device[k];
        if (d->kind != DEVICE_AHCI)
            continue;
        uint32_t base = d->id ? 0 : first_unnamed;
        if (bus_number(bus, d->id ? d->id : "ide", &n) && n >= base && n - base < DRIVE_SATA_PORTS) {
            *index = first + n - base;
            return true;
        }
        first += DRIVE_SATA_PORTS;
        first_unnamed += d->id ? 0 : DRIVE_SATA_PORTS;
    }
    return false;
}

/* bus=ide.N and unit=N; where the bus has one place, the unit is 0. */
static bool place_parse(const struct device_config *d, bool is_sata, uint32_t *index)
{
    const char *dot = d->bus ? strrchr(d->bus, '.') : NULL;
    uint32_t bus = 0, unit = 0;
    if (!d->bus && !d->unit)
        return true;
    if (d->unit && (!index_parse(d->unit, &unit) || unit > !is_sata))
        return false;
    if (is_sata)
        return true;
    if (d->bus && (!dot || !index_parse(dot + 1, &bus) || bus > (d->kind != DEVICE_FLOPPY)))
        return false;
    if (d->bus && d->kind != DEVICE_FLOPPY && !bus_number(d->bus, "ide", &bus))
        return false;
    *index = 2 * bus + unit;
    return true;
}

/* The drive gets what the -device says of it. */
static bool drive_plug(struct machine_config *m, const struct device_config *d, struct error *e)
{
    struct drive_config *v = drive_named(m, d->drive);
    if (!v || v->interface != DRIVE_NONE)
        return error_set(e, "-device ide-hd, ide-cd, floppy: drive=%s: there is no -drive if=none with that id%s",
                         d->drive ? d->drive : "ID", v ? " (or another -device has it)" : "");
    v->index = DRIVE_INDEX_NONE;
    bool is_floppy = d->kind == DEVICE_FLOPPY, is_sata = !is_floppy && is_sata_port(m, d->bus, &v->index);
    v->interface = is_floppy ? DRIVE_FLOPPY : is_sata ? DRIVE_SATA : DRIVE_IDE;
    v->is_cdrom = d->kind == DEVICE_IDE_CD;
    v->bootindex = d->bootindex;
    v->serial = d->serial ? d->serial : v->serial;
    if (!place_parse(d, is_sata, &v->index))
        return error_set(e,
                         "-device drive=%s: there is no place bus=%s,unit=%s (the board's are ide.0 and ide.1, units 0 "
                         "and 1; those of -device ahci,id=ID are ID.0 to ID.5)",
                         d->drive, d->bus ? d->bus : "ide.0", d->unit ? d->unit : "0");
    return drive_check(v, e);
}

static bool drives_plug(struct machine_config *m, struct error *e)
{
    unsigned kept = 0;
    for (unsigned k = 0; k < m->device_count; k++)
        if (m->device[k].kind >= DEVICE_CARDS && !drive_plug(m, &m->device[k], e))
            return false;
    for (unsigned k = 0; k < m->device_count; k++)
        if (m->device[k].kind < DEVICE_CARDS)
            m->device[kept++] = m->device[k];
    m->device_count = kept;
    return true;
}

bool drive_options_finish(struct machine_config *m, bool snapshot, struct error *e)
{
    for (unsigned k = 0; k < m->drive_count && snapshot; k++)
        m->drive[k].snapshot = true;
    return drives_plug(m, e) && drives_place(m->drive, m->drive_count, e);
}
