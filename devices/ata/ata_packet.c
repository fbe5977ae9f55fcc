/*
 * The packets of a CD-ROM drive (MMC-3, SPC-2): each leaves its reply in the channel's buffer, sectors to read, or a
 * sense code.
 */
#include "core/bytes.h"
#include "devices/ata/ata_internal.h"

#include <string.h>

#define SENSE_NOT_READY 2
#define SENSE_ILLEGAL   5
#define SENSE_ATTENTION 6

#define ASC_RANGE     0x21
#define ASC_OPCODE    0x20
#define ASC_FIELD     0x24
#define ASC_CHANGED   0x28
#define ASC_NO_MEDIUM 0x3a
#define ASC_LOCKED    0x53

#define LEAD_OUT 0xaa

void ata_sense_set(struct ata_drive *d, uint8_t sense, uint8_t asc, uint8_t ascq)
{
    d->sense = sense;
    d->asc = asc;
    d->ascq = ascq;
}

static bool refuse(struct ata_drive *d, uint8_t sense, uint8_t asc)
{
    ata_sense_set(d, sense, asc, 0);
    return false;
}

static uint32_t be(const uint8_t *p, unsigned bytes)
{
    uint32_t v = 0;
    for (unsigned i = 0; i < bytes; i++)
        v = v << 8 | p[i];
    return v;
}

static uint32_t sectors_of(const struct ata_drive *d)
{
    uint64_t n = d->block ? d->block->size / CD_SECTOR : 0;
    return n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
}

static bool has_medium(struct ata_drive *d)
{
    if (d->block && !d->open && sectors_of(d))
        return true;
    return refuse(d, SENSE_NOT_READY, ASC_NO_MEDIUM);
}

/* The reply is what was built, cut to what the host has room for. */
static bool reply(struct ata_link *link, uint32_t built, uint32_t room)
{
    link->filled = built < room ? built : room;
    return true;
}

/* ---- addresses ---- */

/* Minutes, seconds and frames of an address: 75 frames a second, 2 seconds before the first sector. */
static void put_address(uint8_t *p, uint32_t lba, bool as_time)
{
    uint32_t frames = lba + 150;
    if (!as_time) {
        ata_put_be32(p, lba);
        return;
    }
    p[0] = 0;
    p[1] = (uint8_t)(frames / 75 / 60);
    p[2] = (uint8_t)(frames / 75 % 60);
    p[3] = (uint8_t)(frames % 75);
}

static bool read_range(struct ata_link *link, struct ata_drive *d, uint32_t lba, uint32_t count)
{
    if (!has_medium(d))
        return false;
    if (lba > sectors_of(d) || count > sectors_of(d) - lba)
        return refuse(d, SENSE_ILLEGAL, ASC_RANGE);
    link->sector = lba;
    link->left = count;
    return true;
}

/* READ CD: user data of mode 1 sectors alone. */
static bool read_cd(struct ata_link *link, struct ata_drive *d)
{
    const uint8_t *p = link->packet;
    uint8_t parts = p[9] & 0xf8;
    if (!parts)
        return has_medium(d);
    if (parts != 0x10)
        return refuse(d, SENSE_ILLEGAL, ASC_FIELD);
    return read_range(link, d, be(p + 2, 4), be(p + 6, 3));
}

/* ---- what the drive is ---- */

static bool inquiry(struct ata_link *link)
{
    static const char names[] = "UMBRA   UMBRA CD-ROM    1.0 ";
    uint8_t *b = link->buf;
    memset(b, 0, 36);
    b[0] = 5; /* CD-ROM */
    b[1] = 0x80;
    b[3] = 0x21; /* ATAPI, response format 1 */
    b[4] = 31;
    memcpy(b + 8, names, 28);
    return reply(link, 36, link->packet[4]);
}

static bool request_sense(struct ata_link *link, struct ata_drive *d)
{
    uint8_t *b = link->buf;
    memset(b, 0, 18);
    b[0] = 0x70;
    b[2] = d->sense;
    b[7] = 10;
    b[12] = d->asc;
    b[13] = d->ascq;
    ata_sense_set(d, 0, 0, 0);
    return reply(link, 18, link->packet[4]);
}

/* Mode pages: error recovery, CD capabilities. `head` bytes of header come before them. */
static bool mode_sense(struct ata_link *link, struct ata_drive *d, uint32_t head, uint32_t room)
{
    uint8_t *b = link->buf, page = link->packet[2] & 0x3f;
    uint32_t len = head;
    memset(b, 0, 64);
    if (page == 0x01 || page == 0x3f) {
        b[len] = 0x01;
        b[len + 1] = 6;
        b[len + 3] = 5; /* retries */
        len += 8;
    }
    if (page == 0x2a || page == 0x3f) {
        uint8_t *p = b + len;
        p[0] = 0x2a;
        p[1] = 18;
        p[2] = 0x3b;                       /* reads CD-R, CD-RW, DVD */
        p[4] = 0x70;                       /* mode 2, multisession */
        p[6] = 0x29 | (d->locked ? 2 : 0); /* a tray, which locks and ejects */
        store_le(p + 8, 0x0416, 2);        /* 706 KB/s */
        p[11] = 2;
        p[12] = 2; /* KiB of buffer */
        len += 20;
    }
    if (len == head)
        return refuse(d, SENSE_ILLEGAL, ASC_FIELD);
    if (head == 8) {
        b[1] = (uint8_t)(len - 2);
        b[2] = d->block ? 0x01 : 0x70;
    } else {
        b[0] = (uint8_t)(len - 1);
        b[1] = d->block ? 0x01 : 0x70;
    }
    return reply(link, len, room);
}

static bool get_configuration(struct ata_link *link, struct ata_drive *d)
{
    uint8_t *b = link->buf;
    memset(b, 0, 40);
    b[7] = d->block ? 8 : 0; /* current profile: CD-ROM */
    b[10] = 3;               /* profile list, persistent, current */
    b[11] = 4;
    b[13] = 8;
    b[14] = d->block != NULL;
    b[17] = 1; /* core feature */
    b[18] = 0x0b;
    b[19] = 8;
    b[23] = 2; /* ATAPI */
    b[24] = 1;
    b[29] = 3; /* removable medium */
    b[30] = 0x0b;
    b[31] = 4;
    b[32] = 0x29;
    b[3] = 36 - 4;
    return reply(link, 36, be(link->packet + 7, 2));
}

static bool event_status(struct ata_link *link, struct ata_drive *d)
{
    uint8_t *b = link->buf;
    if (!(link->packet[1] & 1))
        return refuse(d, SENSE_ILLEGAL, ASC_FIELD); /* it has no interrupt for it */
    memset(b, 0, 8);
    b[3] = 0x10; /* media events are what it knows */
    if (!(link->packet[4] & 0x10)) {
        b[1] = 2;
        b[2] = 0x80;
        return reply(link, 4, be(link->packet + 7, 2));
    }
    b[1] = 6;
    b[2] = 4;
    b[4] = d->changed ? d->block ? 2 : 3 : 0; /* new medium, medium gone */
    b[5] = (d->block ? 2 : 0) | (d->open ? 1 : 0);
    d->changed = false;
    return reply(link, 8, be(link->packet + 7, 2));
}

static bool mechanism_status(struct ata_link *link)
{
    memset(link->buf, 0, 8);
    link->buf[5] = 1;
    return reply(link, 8, be(link->packet + 8, 2));
}

/* ---- what the disc is: one session, one data track ---- */

static bool capacity(struct ata_link *link, struct ata_drive *d)
{
    if (!has_medium(d))
        return false;
    ata_put_be32(link->buf, sectors_of(d) - 1);
    ata_put_be32(link->buf + 4, CD_SECTOR);
    return reply(link, 8, 8);
}

static uint32_t toc_entry(uint8_t *p, uint8_t track, uint32_t lba, bool as_time)
{
    p[0] = 0;
    p[1] = 0x14; /* data track */
    p[2] = track;
    p[3] = 0;
    put_address(p + 4, lba, as_time);
    return 8;
}

/* Format 2, the raw lead-in: points A0 (first track), A1 (last), A2 (lead-out), and the track. */
static uint32_t full_toc(uint8_t *b, uint32_t sectors)
{
    static const uint8_t points[] = {0xa0, 0xa1, 0xa2, 1};
    uint32_t len = 4;
    for (unsigned k = 0; k < sizeof points; k++, len += 11) {
        uint8_t *p = b + len;
        memset(p, 0, 11);
        p[0] = 1;
        p[1] = 0x14;
        p[3] = points[k];
        if (k < 2)
            p[8] = 1;
        else
            put_address(p + 7, k == 2 ? sectors : 0, true);
    }
    return len;
}

static bool read_toc(struct ata_link *link, struct ata_drive *d)
{
    const uint8_t *p = link->packet;
    bool as_time = p[1] & 2;
    unsigned format = p[2] & 0x0f ? p[2] & 0x0f : p[9] >> 6;
    uint8_t *b = link->buf, start = p[6];
    uint32_t len = 4;
    if (!has_medium(d))
        return false;
    if (format > 2 || (format == 0 && start > 1 && start != LEAD_OUT))
        return refuse(d, SENSE_ILLEGAL, ASC_FIELD);
    if (format == 2) {
        len = full_toc(b, sectors_of(d));
    } else if (format == 1) {
        len += toc_entry(b + len, 1, 0, as_time);
    } else {
        if (start <= 1)
            len += toc_entry(b + len, 1, 0, as_time);
        len += toc_entry(b + len, LEAD_OUT, sectors_of(d), as_time);
    }
    b[0] = (uint8_t)((len - 2) >> 8);
    b[1] = (uint8_t)(len - 2);
    b[2] = b[3] = 1;
    return reply(link, len, be(p + 7, 2));
}

static bool disc_information(struct ata_link *link, struct ata_drive *d)
{
    if (!has_medium(d))
        return false;
    memset(link->buf, 0, 34);
    link->buf[1] = 32;
    link->buf[2] = 0x0e; /* complete, not to be written */
    link->buf[3] = link->buf[4] = link->buf[5] = link->buf[6] = 1;
    link->buf[7] = 0x20;
    return reply(link, 34, be(link->packet + 7, 2));
}

static bool sub_channel(struct ata_link *link)
{
    memset(link->buf, 0, 4);
    link->buf[1] = 0x15; /* no audio */
    return reply(link, 4, be(link->packet + 7, 2));
}

/* ---- the tray ---- */

static bool start_stop(struct ata_link *link, struct ata_drive *d)
{
    uint8_t what = link->packet[4] & 3;
    if (what == 2 && d->locked)
        return refuse(d, d->block ? SENSE_ILLEGAL : SENSE_NOT_READY, ASC_LOCKED);
    if (what == 2)
        d->open = true;
    else if (what == 3)
        d->open = false;
    return true;
}

static bool with_medium(struct ata_link *link, struct ata_drive *d)
{
    const uint8_t *p = link->packet;
    switch (p[0]) {
    case 0x00: /* TEST UNIT READY */
    case 0x2f: /* VERIFY */
        return has_medium(d);
    case 0x25:
        return capacity(link, d);
    case 0x28:
        return read_range(link, d, be(p + 2, 4), be(p + 7, 2));
    case 0xa8:
        return read_range(link, d, be(p + 2, 4), be(p + 6, 4));
    case 0x2b: /* SEEK */
        return has_medium(d) && (be(p + 2, 4) < sectors_of(d) || refuse(d, SENSE_ILLEGAL, ASC_RANGE));
    case 0x42:
        return sub_channel(link);
    case 0x43:
        return read_toc(link, d);
    case 0x51:
        return disc_information(link, d);
    case 0xbe:
        return read_cd(link, d);
    default:
        device_log(link->cfg.log, LOG_UNIMP, "%s: CD-ROM packet 0x%02x", link->cfg.name, p[0]);
        return refuse(d, SENSE_ILLEGAL, ASC_OPCODE);
    }
}

/* A new disc is reported once, by the first packet that asks for more than who is there. */
static bool has_news(struct ata_drive *d)
{
    if (!d->changed || !d->block)
        return false;
    d->changed = false;
    ata_sense_set(d, SENSE_ATTENTION, ASC_CHANGED, 0);
    return true;
}

bool ata_packet_run(struct ata_link *link, struct ata_drive *d)
{
    const uint8_t *p = link->packet;
    switch (p[0]) {
    case 0x03:
        return request_sense(link, d);
    case 0x12:
        return inquiry(link);
    case 0x46:
        return get_configuration(link, d);
    case 0x4a:
        return event_status(link, d);
    case 0x1a:
        return mode_sense(link, d, 4, p[4]);
    case 0x5a:
        return mode_sense(link, d, 8, be(p + 7, 2));
    case 0xbd:
        return mechanism_status(link);
    case 0x1b:
        return start_stop(link, d);
    case 0x1e: /* PREVENT/ALLOW MEDIUM REMOVAL */
        d->locked = p[4] & 1;
        return true;
    case 0xbb: /* SET CD SPEED */
        return true;
    default:
        return !has_news(d) && with_medium(link, d);
    }
}
