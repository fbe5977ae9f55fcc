/*
 * Inside the machine: its parts, for the files that build, run, save and report.
 */
#ifndef FRONTENDS_MACHINE_MACHINE_H
#define FRONTENDS_MACHINE_MACHINE_H

#include "core/bus.h"
#include "core/clock.h"
#include "core/host/host_mm.h"
#include "core/log.h"
#include "core/replay.h"
#include "core/stats.h"
#include "core/trace.h"
#include "cpu/cpu.h"
#include "cpu/jit/jit.h"
#include "frontends/machine/board.h"
#include "frontends/machine/boot.h"
#include "frontends/machine/file.h"
#include "frontends/machine/firmware.h"
#include "frontends/machine/net.h"
#include "frontends/machine/script.h"
#include "frontends/machine/smram.h"
#include "frontends/machine/umbra.h"
#include "frontends/machine/vga_rom.h"
#include "frontends/machine/vram.h"
#include "mmu/mmu.h"

#define AUDIT_FULL_EVENTS  1000
#define MACHINE_TURN_UNITS 20000ull /* of one vCPU before the next has its turn (design section 6) */

#define MACHINE_NET_UNITS 100000ull /* from what the guest sends to a look at the sockets */

/* What something inside an instruction asks for; acted on at the next boundary. */
struct machine_requests {
    bool reset, power_off, debug_exit, quit, marker, failed;
    struct block_device *disk; /* has a request that waits for the host */
    uint8_t debug_exit_code;
    char **save_path; /* owned, and so are the strings; all at one boundary */
    size_t saves;
    struct machine_shot {
        char *path; /* owned */
        bool as_text;
    } * shots; /* of the screen, in order */
    size_t shot_count;
};

struct machine {
    struct machine_config cfg;
    struct log log;
    struct trace trace;
    struct stats stats;
    struct vclock clock;
    struct input_queue input;
    struct bus ports, mmio;
    struct frame_pool *pool;
    struct host_mm *mm;
    hva_t apic_hva;                          /* MACHINE_MMU_EPT: of the APIC access page */
    hva_t low_hva, high_hva;                 /* where low_ram and high_ram are in it; high_hva is 0 if there is none */
    const struct block_device *waiting_disk; /* why the last run ended in MACHINE_PAUSED, or NULL */
    struct hostside *hostside;
    struct mem *mem;
    struct mmu *mmu;
    struct cpu_model *model;
    struct code_cache *code;
    struct jit *jit;   /* NULL: the interpreter alone */
    struct vcpu **cpu; /* cpu_count of them */
    unsigned cpu_count;
    struct drives drives;
    struct net *net; /* or NULL */
    struct board board;
    bool has_firmware;
    struct firmware firmware; /* if so; a forked machine has the parent's image */
    struct smram smram;
    struct vram vram;    /* unless cfg.no_vga */
    struct file vga_rom; /* may be empty; a forked machine has the parent's */
    struct script *script;
    struct machine *parent; /* of a forked machine: pool, kernel and initrd are the parent's */
    unsigned forks;         /* children that exist */
    size_t marker_matched;  /* bytes of stop_text that the output ends with */
    bool marker_seen;
    struct debug *debug;         /* attached, or NULL */
    struct screen *screen;       /* the picture that follows it, or NULL */
    struct lockstep *lockstep;   /* it runs beside a twin; or NULL */
    struct inspector *inspector; /* of -audit-mirror, or NULL */
    struct file kernel, initrd;
    struct file
        item[FW_CFG_TEXTS_MAX]; /* of cfg.fw_cfg[], where that names a file; a forked machine has the parent's */
    struct boot_module module[BOOT_MODULES_MAX]; /* of kernels that are not Linux */
    unsigned module_count;
    char *module_spec; /* owned: -initrd, in pieces */
    struct e820_entry e820[E820_MAX];
    unsigned e820_count;
    uint64_t low_ram, high_ram; /* bytes below and above 4 GiB */

    unsigned turn;      /* whose turn it is */
    uint64_t turn_left; /* units left of it */
    bool started;
    struct machine_requests want;
    int exit_code;      /* of a debug exit */
    uint64_t run_until; /* machine_run_to(); 0: no position */
    uint64_t next_poll, next_audit, next_mirror, audit_failures;
    uint64_t events, audits, resets, input_bytes;
    uint64_t pictures, picture_rows; /* that a screen was looked at for, and drew */
};

/* frontends/machine/run.c: drops the files that are still asked for. */
void machine_forget_saves(struct machine *m);
/* frontends/machine/memory.c: slots and the memory map. */
bool machine_build_memory(struct machine *m, struct error *e);
/* frontends/machine/start.c: puts the kernel into memory and the boot vCPU at its entry. Also after a reset. */
bool machine_boot(struct machine *m, struct error *e);
void machine_reset(struct machine *m);
/* frontends/machine/start.c: everything that a machine is made of. A forked one has m->parent. */
bool machine_build(struct machine *m, struct error *e);
/* frontends/machine/state.c: takes the parent's state over, memory apart. */
bool machine_copy_state(struct machine *m, const struct machine *parent, struct error *e);
/* frontends/machine/state.c: of everything but memory; of one processor. */
uint64_t machine_small_digest(const struct machine *m);
uint64_t machine_cpu_digest(const struct machine *m, unsigned cpu);
/* -audit events: what was touched after every MMU event, everything every AUDIT_FULL_EVENTS of them. ctx is the
 * machine. */
void machine_audit_event(void *ctx);
/* frontends/machine/run.c: posts input at the present position, and tells the twin. */
void machine_input(struct machine *m, enum input_source source, const void *bytes, size_t len);
/* frontends/machine/run.c: receives INPUT_CONTROL. */
void machine_control_input(void *machine, const uint8_t *bytes, size_t len);
/* Ends the block that is running, so that a request is seen. */
void machine_attention(struct machine *m);

/* frontends/machine/mirror.c: compares what `in` shows of a few places with the memory itself; the number of
 * differences, a line each on `out`. `seed` says which places. */
unsigned inspector_compare(struct inspector *in, uint64_t seed, FILE *out);
void inspector_add_stats(struct inspector *in, struct stats *stats);

#endif
