/*
 * The public interface of a machine: build one from a configuration, run it, look at it, save it.
 *
 * A machine is a value: a process may hold hundreds. Nothing of the host (time, addresses, scheduling) reaches the
 * guest except through machine_serial_input(), which stamps what it is given with the position of the run.
 */
#ifndef FRONTENDS_MACHINE_UMBRA_H
#define FRONTENDS_MACHINE_UMBRA_H

#include "core/topology.h"
#include "core/types.h"
#include "frontends/machine/device_config.h"
#include "frontends/machine/drives.h"
#include "frontends/machine/error.h"

#include <poll.h>
#include <stdio.h>

#define MACHINE_CPUS_MAX 16

#define UMBRA_VERSION       "0.1"
#define UMBRA_VERSION_MAJOR 0
#define UMBRA_VERSION_MINOR 1

enum machine_mmu { MACHINE_MMU_SHADOW, MACHINE_MMU_WALK, MACHINE_MMU_EPT };

/* The front end's side: where output goes, and how it keeps an eye on the run. */
struct machine_host {
    void *ctx;
    void (*serial_tx)(void *ctx, unsigned port, uint8_t byte); /* port: 0 is COM1 */
    void (*debug_tx)(void *ctx, uint8_t byte);                 /* port 0xe9 */
    /* Bytes of the virtio console that is connected to that chardev. */
    void (*console_tx)(void *ctx, const char *chardev, const uint8_t *bytes, size_t len);
    /* Called about every MACHINE_POLL_UNITS of virtual time and while waiting. True: stop the run (MACHINE_STOPPED).
     * May call machine_serial_input(). */
    bool (*poll)(void *ctx);
    /* A live endpoint is attached: idle time is waited for in real time. */
    bool (*is_live)(void *ctx);
    /* All vCPUs are halted, an endpoint is live: sleeps at most `ns` (UINT64_MAX: no deadline), less if there is input.
     * Returns how long it slept, in ns. */
    uint64_t (*wait)(void *ctx, uint64_t ns);
};

#define MACHINE_SMBIOS_TEXTS 32

#define MACHINE_POLL_UNITS 4000000ull

/* An item of fw_cfg: the bytes of a file, or a text without a zero behind it. All borrowed. */
struct fw_cfg_text {
    const char *name, *path, *text; /* path or text is NULL */
};
#define FW_CFG_TEXTS_MAX     16
#define FW_CFG_TEXT_NAME_MAX 55

struct machine_config {
    const char *name;        /* what the user calls it, or NULL; borrowed */
    uint64_t ram_bytes;      /* a multiple of 1 MiB, at least 2 MiB */
    struct cpu_topology smp; /* all zero: one processor; at most MACHINE_CPUS_MAX */
    enum machine_mmu mmu;
    bool mmu_unsync; /* MACHINE_MMU_SHADOW: translations may be as old as the guest's last flush; not coherent */
    /* Path of a raw ROM image that starts the machine, or the name of one of the distribution's (firmware_find());
     * NULL: the kernel, or SeaBIOS if there is none. With both the firmware starts the kernel (boot_bios.h), as it does
     * from flash. Borrowed. */
    const char *bios;
    const char *kernel, *initrd, *append,
        *cpu;                 /* paths and strings, borrowed for the machine's life; initrd, append, cpu may be NULL */
    const char *input_script; /* path or NULL */
    struct drive_config drive[DRIVES_MAX]; /* each with its place (drives_place()) */
    unsigned drive_count;
    const char *boot_order, *boot_once; /* letters a, c, d, n, for the firmware; or NULL; borrowed */
    struct boot_extras boot_extras;
    const char *smbios_text[MACHINE_SMBIOS_TEXTS]; /* machine_smbios_set(); borrowed */
    uint8_t uuid[16];                              /* all zero: none */
    bool vmcoreinfo, no_hpet;
    bool boot_menu;
    unsigned serials;    /* serial ports, 1 to SERIALS_MAX; 0: one */
    unsigned mouse_port; /* the one that has a mouse, from 1; 0: none */
    bool serial_console; /* firmware's screen and keyboard are COM1 as well */
    struct device_config device[DEVICES_MAX];
    unsigned device_count;
    struct netdev_config netdev[NETDEVS_MAX];
    unsigned netdev_count;
    struct fw_cfg_text fw_cfg[FW_CFG_TEXTS_MAX];
    unsigned fw_cfg_count;
    bool debug_exit, debug_console;
    uint16_t debug_console_port; /* 0: 0xe9 */
    bool testdev;                /* pc-testdev */
    uint16_t debug_exit_base;
    unsigned debug_exit_size;
    bool no_reboot;
    bool no_vga;            /* no display adapter */
    int64_t rtc_base;       /* seconds since 1970; MACHINE_RTC_DEFAULT for the fixed default */
    const char *log_list;   /* -d, or NULL */
    FILE *log_out;          /* borrowed */
    const char *trace_list; /* tracepoints, or NULL */
    uint64_t icount_limit;  /* 0: none */
    uint64_t vtime_limit;   /* ns of virtual time; 0: none */
    uint64_t audit_every;   /* instructions between audits of the MMU; 0: never */
    uint64_t mirror_every;  /* instructions between looks through a mirror of the memory; 0: no mirror */
    bool is_twin;           /* lockstep's: reports and saves nothing */
    bool audit_events;      /* audit what was touched after every MMU event, everything every 1,000 */
    bool jit;               /* compile hot code (-accel jit) */
    bool jit_if_it_can;     /* no word about it where that cannot be */
    unsigned jit_heat;      /* runs of a block before it is compiled; 0: default */
    FILE *jit_perf_map;     /* where perf finds names for compiled code, or NULL; borrowed */
    void (*jit_symbol)(void *ctx, uint64_t rip, char *buf, size_t size); /* names for it, or NULL */
    void *jit_symbol_ctx;
    uint64_t jit_cache;        /* bytes for compiled code; 0: default */
    uint64_t max_shadow_pages; /* 0: default */
    uint64_t mem_limit;        /* bytes of guest memory that may have a frame at a time; 0: no limit */
    uint64_t swap_bytes;       /* room for what has none; 0: enough for all of it */
    const char *swap_file;     /* where it goes, path or NULL: memory */
    bool ksm;                  /* equal pages share a frame */
    int host_pages;            /* level of the largest host pages: 3 (1 GiB), 2 (2 MiB); 0 or 1: 4 KiB */
    bool postcopy;             /* machine_load() leaves memory in the file: it comes as it is touched, and by and by */
    const char *host_chaos;    /* core/host/chaos.h's text, or NULL */
    const char *stop_text;     /* the run stops when COM1 has sent this (MACHINE_MARKER), once; or NULL */
    unsigned max_forks;        /* children of machine_fork() that may exist at a time: room for their memory */
    struct machine_host host;
};

#define MACHINE_RTC_DEFAULT   INT64_MIN
#define MACHINE_LIMIT_MIN     (256ull << 10) /* of mem_limit */
#define MACHINE_SWAP_MIN      (64ull << 10)  /* of swap_bytes */
#define MACHINE_JIT_CACHE_MIN (256ull << 10) /* of jit_cache */
#define MACHINE_JIT_CACHE_MAX (512ull << 20)

enum machine_exit {
    MACHINE_POWER_OFF,
    MACHINE_DEBUG_EXIT, /* code in machine_exit_code() */
    MACHINE_RESET,      /* the guest asked for a reset and -no-reboot is given */
    MACHINE_TRIPLE_FAULT,
    MACHINE_ICOUNT_LIMIT,
    MACHINE_VTIME_LIMIT,
    MACHINE_HALTED,  /* for ever, with no endpoint */
    MACHINE_STOPPED, /* the front end's poll, or the input script's quit */
    MACHINE_AUDIT_FAILED,
    MACHINE_SCRIPT_FAILED, /* savevm could not write its file */
    MACHINE_RESET_FAILED,  /* the files that it boots have changed */
    MACHINE_PAUSED,        /* the host has no room to go on; nothing is lost, machine_run() tries again */
    MACHINE_HOST_FAILED,   /* a page of guest memory is lost */
    MACHINE_MARKER,        /* stop_text was seen; machine_run() goes on */
    MACHINE_POSITION,      /* machine_run_to() is where it should be */
    MACHINE_DIFFERS        /* lockstep_run() */
};

struct machine;

/* Documented exit codes of the program (README). */
enum {
    EXIT_POWER_OFF = 0,
    EXIT_BAD_INPUT = 2,
    EXIT_TRIPLE_FAULT = 4,
    EXIT_WALL_TIMEOUT = 6,
    EXIT_LIMIT = 8,
    EXIT_HALTED = 10,
    EXIT_INTERNAL = 12,
    EXIT_PAUSED = 14,
    EXIT_MIXED = 16 /* forked children ended in different ways */
};

/* A text of the SMBIOS table of that type, in QEMU's names (borrowed). A text that can be given several times is
 * another one each time. False: there is none of that name, or no more. */
bool machine_smbios_set(struct machine_config *cfg, unsigned type, const char *name, const char *value);
struct machine *machine_create(const struct machine_config *cfg, struct error *e);
void machine_destroy(struct machine *m);
/* Runs until something ends it. Can be called again after MACHINE_STOPPED. */
enum machine_exit machine_run(struct machine *m);
/* The same, at most to the first boundary at or after position `icount` (MACHINE_POSITION). */
enum machine_exit machine_run_to(struct machine *m, uint64_t icount);
/* Process exit code for the end of the run. */
int machine_exit_code(const struct machine *m, enum machine_exit why);
/* One line that says how the run ended. */
const char *machine_exit_text(enum machine_exit why);

/* After MACHINE_PAUSED: the drive whose request waits for the host. False: it is not a drive that waits. */
struct machine_io_error {
    char drive[DRIVE_NAME_SIZE];
    bool is_write, no_space;
};
bool machine_io_error(const struct machine *m, struct machine_io_error *out);

/* The models and features that -cpu knows. */
void machine_print_models(FILE *out);
/* The name that the user gave it, or NULL. */
const char *machine_name(const struct machine *m);
uint64_t machine_icount(const struct machine *m);
/* Faults, fills, zaps and tracked writes of the MMU so far: how much it has to do. */
uint64_t machine_mmu_events(const struct machine *m);
/* Times that it was reset. */
uint64_t machine_resets(const struct machine *m);
uint64_t machine_vtime(const struct machine *m);
/* Digest of the whole state: RAM, registers, devices. */
uint64_t machine_digest(const struct machine *m);
/* What the machine itself waits for, beside the front end: for machine_host.wait(). Returns how many were put, at most
 * `max`, and lowers *ns to what it should wait at most. */
unsigned machine_pollfds(struct machine *m, struct pollfd *fds, unsigned max, uint64_t *ns);
/* Bytes for a serial port (0: COM1), at the present position. */
void machine_serial_input(struct machine *m, unsigned port, const void *bytes, size_t len);
/* Bytes that may be given to it before the guest has read some. More are kept too, but not without end: who can wait
 * with what he has (a socket, a pipe) does. */
size_t machine_serial_room(const struct machine *m, unsigned port);
/* Bytes for the virtio console that is connected to that chardev. */
void machine_console_input(struct machine *m, const char *chardev, const void *bytes, size_t len);
/* How many bytes it takes now without losing some. */
size_t machine_console_room(const struct machine *m, const char *chardev);
/* Keys, as pairs of bytes, and movements of the mouse, as core/keys.h says; at the present position. */
void machine_key_input(struct machine *m, const uint8_t *events, size_t len);
/* Events (pairs) that the keyboard takes before it loses some. */
unsigned machine_key_room(const struct machine *m);
void machine_mouse_input(struct machine *m, int dx, int dy, int wheel, unsigned buttons);
/* What a person does to the machine as a whole: its buttons. */
enum machine_button { MACHINE_BUTTON_RESET, MACHINE_BUTTON_POWER };
void machine_button(struct machine *m, enum machine_button button);

/* Where the guest's kernel has left its VMCOREINFO note (-device vmcoreinfo). False: nowhere. */
bool machine_vmcoreinfo(const struct machine *m, uint64_t *gpa, uint32_t *bytes);

bool machine_save(struct machine *m, const char *path, struct error *e);
/* Into a machine made from the same configuration. A damaged or foreign file is refused with a reason; in post-copy a
 * damaged page is found when it is fetched, which ends the run (MACHINE_HOST_FAILED). */
bool machine_load(struct machine *m, const char *path, struct error *e);

/* Runs a machine beside a twin that is built from the same configuration for the interpreter, and compares the two:
 * processors, devices, time, and the memory written since the last comparison every so many instructions; the digests
 * at the end. The front end's input reaches both at the same positions, output is the machine's alone. */
struct lockstep;
struct lockstep_config {
    uint64_t every;     /* instructions, at least 1 */
    uint64_t from;      /* position of the second comparison, if that is later; the first is at once */
    const char *loadvm; /* what the machine was loaded from, or NULL; borrowed for the call */
    FILE *out;          /* where a difference is described; borrowed */
};
/* For a machine that has not run yet; closed before it is destroyed. NULL with an error. */
struct lockstep *lockstep_open(struct machine *m, const struct lockstep_config *cfg, struct error *e);
void lockstep_close(struct lockstep *l);
/* As machine_run(). MACHINE_DIFFERS: position, registers or page and byte, and what the JIT ran last are on `out`. */
enum machine_exit lockstep_run(struct lockstep *l);
struct lockstep_counters {
    uint64_t comparisons, pages; /* made; pages that were compared in them */
};
struct lockstep_counters lockstep_counters(const struct lockstep *l);
/* The interpreter's machine: for tests, which spoil it. */
struct machine *lockstep_twin(struct lockstep *l);

/* What a forked child has of its own. */
struct machine_fork_config {
    struct machine_host host;
    FILE *log_out; /* borrowed */
};

#define MACHINE_FORKS_MAX 1024

/* Forks a machine that stands still between two calls of machine_run(): a child with the same guest state, whose memory
 * is the parent's, frame by frame, until one side writes. The child runs exactly as the parent would have run on, its
 * input script included; events of -host-chaos start anew, and the two have KSM and the swap store in common. At most
 * max_forks children exist at a time; they cannot fork themselves, and are destroyed before their parent. Of the
 * machines of one family one runs at a time, in any order. NULL with an error. */
struct machine *machine_fork(struct machine *parent, const struct machine_fork_config *cfg, struct error *e);

/* Frames of 4 KiB. */
struct machine_frames {
    uint64_t own, shared; /* that hold this machine's memory alone; that hold other memory too */
    uint64_t used, peak;  /* of it and all its forks together: now, and the most there ever were */
};
struct machine_frames machine_frames(const struct machine *m);

/* A second address space over a machine's memory (Linux: KVM introspection over HMM mirrors): it maps the machine's RAM
 * read-only, through mirrors of its host pages, and translates with an MMU of its own. What the host does to the
 * machine's memory comes down to it, and so do the machine's writes to its page tables: at every position a look
 * through it shows what the machine's memory holds then, never an older page. Looking changes nothing that the guest
 * can see. Used between calls of machine_run(), or from its callbacks; closed before the machine is destroyed. */
struct inspector;
struct inspector *inspector_open(struct machine *m, enum machine_mmu mmu, struct error *e);
void inspector_close(struct inspector *in);
/* How many bytes there are, at most len. */
size_t inspector_read_gpa(struct inspector *in, uint64_t gpa, void *buf, size_t len);
/* Translates as the machine's vCPU would read as supervisor. False: not mapped. */
bool inspector_gva_to_gpa(struct inspector *in, unsigned cpu, uint64_t gva, uint64_t *gpa);
size_t inspector_read_gva(struct inspector *in, unsigned cpu, uint64_t gva, void *buf, size_t len);
/* The mirror itself cannot be written: the bytes go through the machine's memory hook, as a device's would. False, and
 * nothing is written: not all of it is RAM. */
bool inspector_write_gpa(struct inspector *in, uint64_t gpa, const void *buf, size_t len);
/* Audits its MMU; a line each on `out` (may be NULL); the number of violations. */
unsigned inspector_audit(struct inspector *in, FILE *out);
struct inspector_counters {
    uint64_t fills;         /* host pages taken over */
    uint64_t invalidations; /* that came down from the machine's memory */
    uint64_t writes;        /* to tables which it had translated from, passed on */
    uint64_t looks, faults; /* made by `-audit-mirror`: reads compared; of them those where nothing is mapped */
};
struct inspector_counters inspector_counters(const struct inspector *in);

void machine_print_stats(const struct machine *m, FILE *out);
/* Registers, last exceptions, page walks of rip and CR2. */
void machine_print_report(const struct machine *m, FILE *out);
void machine_print_trace(const struct machine *m, FILE *out);
/* Audits the MMU; prints violations on `out`; returns their number. */
unsigned machine_audit(struct machine *m, bool full, FILE *out);

#endif
