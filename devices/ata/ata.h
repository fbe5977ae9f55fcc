/*
 * The drives at the end of a cable, each a disk or an ATAPI CD-ROM, and the command that one of them is at work on.
 *
 * What stands between the drives and the processor is the link's host, which the link knows by struct ata_host_ops
 * alone: registers and a bus master (devices/ide), or a port that works through structures in memory (devices/ahci).
 *
 * Source: ATA/ATAPI-6 (T13/1410D); ACS-2 for queued commands, logs and what a SATA drive says of itself; SFF-8020i and
 * MMC-3 for the CD-ROM's packets.
 *
 * A command that needs the medium sets BSY and arms a timer; its work is done by the job that the timer runs, at a
 * fixed virtual time later (core/block/block.h), whatever the host does. Between two blocks of one command the wait is
 * shorter. Each drive has its own task file, as real ones do.
 *
 * A host sets the task file (struct ata_drive: reg, previous, select), calls ata_command(), and hears of what follows
 * by its ops, in the call or in the timer's.
 */
#ifndef DEVICES_ATA_ATA_H
#define DEVICES_ATA_ATA_H

#include "core/block/block.h"
#include "devices/device.h"

struct snap_writer;
struct snap_reader;

#define ATA_BUFFER 65536u /* bytes: of a PIO block, of a piece of DMA, of a packet's reply */
#define ATA_PACKET 12u    /* bytes of a packet */
#define ATA_TAGS   32u    /* of queued commands */

#define ATA_STATUS_ERR  0x01
#define ATA_STATUS_DRQ  0x08
#define ATA_STATUS_DSC  0x10
#define ATA_STATUS_DF   0x20
#define ATA_STATUS_DRDY 0x40
#define ATA_STATUS_BSY  0x80

#define ATA_ERROR_ABRT 0x04
#define ATA_ERROR_IDNF 0x10
#define ATA_ERROR_UNC  0x40
#define ATA_ERROR_WP   0x40 /* of a write */

#define ATA_SELECT_LBA   0x40
#define ATA_SELECT_DRIVE 0x10

#define ATA_CMD_DIAGNOSE     0x90
#define ATA_CMD_TRIM         0x06 /* DATA SET MANAGEMENT */
#define ATA_CMD_READ_QUEUED  0x60 /* READ and WRITE FPDMA QUEUED */
#define ATA_CMD_WRITE_QUEUED 0x61

enum ata_kind { ATA_NONE, ATA_DISK, ATA_CDROM };

struct ata_drive_config {
    enum ata_kind kind;
    struct block_device *block; /* borrowed; NULL: a CD drive without a disc */
    const char *serial;         /* at most 20 characters, or NULL */
    unsigned number;            /* on the board, for its default serial number */
};

/* What came of moving a piece of data by DMA. */
enum ata_moved {
    ATA_MOVED,
    ATA_SHORT,  /* the host's table ends before the data */
    ATA_NOWHERE /* it leads to no memory; or it cannot be told from that */
};

struct ata_host_ops {
    /* buf[pos, len) is there to be read (ATA_PHASE_IN) or wanted (ATA_PHASE_OUT, ATA_PHASE_PACKET): the host moves it
     * and pos along, and calls ata_block_done(), now or later. */
    void (*offered)(void *host, bool interrupt);
    /* The command has ended: see status, error and registers of the drive. The host may give the next one in the call.
     */
    void (*ended)(void *host);
    /* The drive is ready for DMA: the host calls ata_dma_start(), now or later. */
    void (*dma_wanted)(void *host);
    /* Moves the next bytes. */
    enum ata_moved (*dma_move)(void *host, uint8_t *buf, uint32_t len, bool to_memory);
    /* Remembers where the host's table is, and goes back there: a piece is moved once more. */
    void (*dma_mark)(void *host);
    void (*dma_rewind)(void *host);
    /* All the data is moved, or will not be. */
    void (*dma_ended)(void *host, bool complete);
};

struct ata_link_config {
    const char *name; /* for messages; borrowed */
    struct vclock *clock;
    bool is_serial; /* SATA: queued commands, and what the drives say of themselves */
    struct ata_drive_config drive[2];
    const struct ata_host_ops *ops;
    void *host;
    const struct log *log;
};

struct ata_registers {
    uint8_t feature, count, lba[3];
};

struct ata_drive {
    enum ata_kind kind;
    struct block_device *block;
    const char *serial;
    unsigned number;
    struct ata_registers reg, previous; /* previous: the high-order bytes of 48-bit commands */
    uint8_t select, status, error;
    uint8_t heads, track;  /* the translation that the host has set: heads, sectors a track */
    uint8_t multiple;      /* sectors a block, 0: off */
    uint8_t transfer_mode; /* as SET FEATURES had it */
    bool write_cache;
    uint8_t sense, asc, ascq; /* of the last packet that failed */
    bool changed;             /* a disc was put in or taken out: to be reported once */
    bool locked, open;        /* the tray */
};

/* What the timer does when it fires. */
enum ata_job {
    ATA_JOB_NONE,
    ATA_JOB_READ,   /* next PIO block from the medium */
    ATA_JOB_WRITE,  /* PIO block to the medium */
    ATA_JOB_DMA,    /* all of a command's data */
    ATA_JOB_FLUSH,  /* write cache */
    ATA_JOB_DONE,   /* a command without data */
    ATA_JOB_PACKET, /* a packet that has arrived */
    ATA_JOB_JOBS
};

/* What the data that crosses between drive and host is. */
enum ata_phase { ATA_PHASE_NONE, ATA_PHASE_IN, ATA_PHASE_OUT, ATA_PHASE_PACKET, ATA_PHASE_DMA, ATA_PHASES };

/* A queued command that the drive has taken. */
struct ata_queued {
    uint8_t tag;
    bool is_write, fua;
    uint64_t sector;
    uint32_t count; /* sectors, 1 to 65536 */
};

/* The queued command that failed, as log 10H has it; after it the drive takes none until the log is read, or a reset.
 */
struct ata_queue_error {
    bool failed;
    bool unqueued; /* it was another command, in the middle of queued ones */
    uint8_t tag, status, error;
    uint64_t sector;
    uint32_t count;
};

struct ata_counters {
    uint64_t commands, dma_bytes, pio_bytes, packets, queued;
};

struct ata_link {
    struct ata_link_config cfg;
    struct ata_drive drive[2];
    struct timer timer;
    enum ata_job job;
    enum ata_phase phase;
    uint8_t command; /* the last one */
    uint8_t unit;    /* the drive that it was for */
    /* The transfer: medium sectors `sector` and on, `left` of them, of which a PIO block takes `block`. */
    bool is_write;
    bool durable; /* flushed before it ends */
    uint64_t sector;
    uint32_t left, block;
    uint32_t pos, len; /* in buf: where the host is, and where its block ends */
    uint32_t filled;   /* of a packet's data: bytes in buf */
    uint8_t packet[ATA_PACKET];
    uint32_t byte_limit; /* of a PIO block of a packet */
    bool packet_dma;
    struct ata_queue_error queue_error;
    struct ata_counters counters;
    uint8_t buf[ATA_BUFFER];
};

/* The drive that the task file selects. */
static inline struct ata_drive *ata_selected(struct ata_link *link)
{
    return &link->drive[link->drive[0].select >> 4 & 1];
}

/* The drive whose command is worked on, or was last: while its data waits, the task file may select the other. */
static inline struct ata_drive *ata_busy(struct ata_link *link)
{
    return &link->drive[link->unit];
}

/* At rest: no command is being worked on. */
static inline bool ata_is_idle(const struct ata_link *link)
{
    return link->phase == ATA_PHASE_NONE && link->job == ATA_JOB_NONE;
}

void ata_link_init(struct ata_link *link, const struct ata_link_config *cfg);
/* As after power-on. */
void ata_link_reset(struct ata_link *link);
/* SRST, or a COMRESET: drives keep their settings but for those that ATA resets. */
void ata_soft_reset(struct ata_link *link);
/* The command that is being worked on is forgotten; the host hears nothing of it. */
void ata_cancel(struct ata_link *link);
/* False: the selected drive is not there, or busy with another one. */
bool ata_takes_command(struct ata_link *link, uint8_t command);
/* A command that it takes. */
void ata_command(struct ata_link *link, uint8_t command);
/* See struct ata_host_ops. */
void ata_block_done(struct ata_link *link);
/* The host cannot move the block: the command ends, aborted. */
void ata_abort(struct ata_link *link);
void ata_dma_start(struct ata_link *link);
/* The host takes ata_dma_start() back. */
void ata_dma_stop(struct ata_link *link);
/* Puts a disc into CD drive n, or takes it out (NULL). */
void ata_set_medium(struct ata_link *link, unsigned n, struct block_device *block);

/* ---- queued commands: the host keeps the queue ---- */

/* The queued command in the task file. False: the drive refuses it, see error and status; what was queued before is
 * lost. `taken`: tags that are in the queue. */
bool ata_queued_take(struct ata_link *link, uint8_t command, uint32_t taken, struct ata_queued *out);
/* A command that is not a queued one arrived among queued ones: all fail. */
void ata_queued_disturbed(struct ata_link *link);

enum ata_outcome {
    ATA_DONE,
    ATA_AGAIN, /* the host's disk is full: the same again, at the same virtual time */
    ATA_FAILED /* see error and status; what was queued beside it is lost */
};
/* Does it: moves all of its data. */
enum ata_outcome ata_queued_run(struct ata_link *link, const struct ata_queued *q);

/* Put into, and got from, the section that the caller has opened. */
void ata_link_save(const struct ata_link *link, struct snap_writer *w);
void ata_link_load(struct ata_link *link, struct snap_reader *r);

#endif
