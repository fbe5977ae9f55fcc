/*
 * Looking into a machine: registers, memory, code, and the MMU's own structures. For debuggers.
 *
 * Everything here is called between instructions (machine_run() is not running), and looks only: memory by PEEK, tables
 * by walks without effect, hptes by host_mm_peek(). What changes something says so: the setters, which change the guest
 * as its debugger asks, and the host operations, which no guest can notice. Text comes a line at a time, without a
 * newline.
 */
#ifndef FRONTENDS_MACHINE_INSPECT_H
#define FRONTENDS_MACHINE_INSPECT_H

#include "frontends/machine/umbra.h"

typedef void inspect_line_fn(void *ctx, const char *text);

struct inspect_out {
    inspect_line_fn *line;
    void *ctx;
};

/* One formatted line. */
void inspect_say(const struct inspect_out *out, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- processors (inspect.c) ---- */

enum { INSPECT_ES, INSPECT_CS, INSPECT_SS, INSPECT_DS, INSPECT_FS, INSPECT_GS, INSPECT_SEGS };

struct inspect_regs {
    uint64_t gpr[16]; /* in the hardware's order: rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8 to r15 */
    uint64_t rip, rflags;
    uint16_t sel[INSPECT_SEGS];
    uint64_t base[INSPECT_SEGS];
    uint64_t kernel_gs_base;
    uint64_t cr0, cr2, cr3, cr4, cr8, efer;
    uint8_t st[8][10]; /* ST(0) to ST(7) */
    uint16_t fcw, fsw, ftw, fop;
    uint64_t fip, fdp;
    uint8_t xmm[16][16];
    uint32_t mxcsr;
    unsigned cpl;
    bool long_mode, halted;
};

unsigned machine_cpu_count(const struct machine *m);
/* The vCPU whose turn it is. */
unsigned machine_current_cpu(const struct machine *m);
void machine_get_regs(const struct machine *m, unsigned cpu, struct inspect_regs *out);
/* Takes over general registers, rip, arithmetic and other unprivileged flags, and XMM registers. False, with nothing
 * changed, if another register differs from what it is. */
bool machine_set_regs(struct machine *m, unsigned cpu, const struct inspect_regs *regs, struct error *e);
/* All registers, a dozen lines; the last exceptions. */
void machine_print_regs(const struct machine *m, unsigned cpu, const struct inspect_out *out);
/* Linear address of the next instruction. */
uint64_t machine_code_address(const struct machine *m, unsigned cpu);
/* The instruction at linear address gva as text; returns its length in bytes, 0 if it cannot be read. */
unsigned machine_disassemble(const struct machine *m, unsigned cpu, uint64_t gva, char *text, size_t size);

/* ---- memory (inspect.c) ---- */

/* Read as many bytes as there are, at most len; return how many. Devices read as nothing. */
size_t machine_peek_gva(const struct machine *m, unsigned cpu, uint64_t gva, void *buf, size_t len);
size_t machine_peek_gpa(const struct machine *m, uint64_t gpa, void *buf, size_t len);
/* Changes guest memory (RAM or ROM; tracking sees it): all of it or, with an error, nothing. */
bool machine_poke_gva(struct machine *m, unsigned cpu, uint64_t gva, const void *buf, size_t len, struct error *e);
bool machine_gva_to_gpa(const struct machine *m, unsigned cpu, uint64_t gva, uint64_t *gpa);

/* ---- the MMU (inspect_walk.c, inspect_map.c, inspect_mmu.c) ---- */

/* Guest walk and shadow walk of gva side by side, every bit named; then memslot, tracking, host entry, frame, TLB. */
void machine_print_mmu_walk(const struct machine *m, unsigned cpu, uint64_t gva, const struct inspect_out *out);
/* What the tables map from `from` on: ranges with the rights of all levels, "uwx" as far as they go. Of what has no end
 * (tables that lead to themselves) the first part, and where to go on. */
void machine_print_mappings(const struct machine *m, unsigned cpu, uint64_t from, const struct inspect_out *out);
/* Every spte that maps gfn, and the shadow pages that shadow it as a table. */
void machine_print_mmu_rmap(const struct machine *m, uint64_t gfn, const struct inspect_out *out);
void machine_print_mmu_tracked(const struct machine *m, const struct inspect_out *out);
void machine_print_mmu_slots(const struct machine *m, const struct inspect_out *out);
void machine_print_mmu_roots(const struct machine *m, const struct inspect_out *out);
/* Counters whose names begin with `prefix`. */
void machine_print_counters(const struct machine *m, const char *prefix, const struct inspect_out *out);
/* Audits everything; returns the number of violations, a line each. */
unsigned machine_print_mmu_audit(struct machine *m, const struct inspect_out *out);
/* "present writable user frame 0x12 ..." of an spte of this level; text of a guest entry likewise. */
void inspect_spte_text(uint64_t spte, int level, char *text, size_t size);
/* The same of an EPT entry. */
void inspect_ept_text(uint64_t entry, char *text, size_t size);
void inspect_gpte_text(uint64_t gpte, int level, bool leaf, unsigned size_of_entry, char *text, size_t size);

/* ---- devices (inspect_devices.c) ---- */

/* Who answers at which ports and device memory. */
void machine_print_buses(const struct machine *m, const struct inspect_out *out);
/* A PCI function of bus 0. */
struct inspect_pci {
    unsigned slot, function;
    uint16_t vendor, device;
    uint32_t class_code; /* base class << 16 | subclass << 8 | programming interface */
    const char *name;
    unsigned interrupt_pin, interrupt_line; /* pin 0: none */
    unsigned bars;
    struct {
        unsigned index; /* 6: the expansion ROM */
        bool io, mapped;
        uint64_t address, size;
    } bar[7];
};
void machine_each_pci(const struct machine *m, void (*fn)(void *ctx, const struct inspect_pci *f), void *ctx);
void machine_print_pci(const struct machine *m, const struct inspect_out *out);
/* A drive, named as its users know it: its id, or "ide0-hd1", "ide1-cd0", "floppy0", "virtio0", "pflash1". */
struct inspect_drive {
    char name[DRIVE_NAME_SIZE];
    const char *file;      /* NULL: no medium */
    const char *interface; /* "ide" and so on */
    bool is_cdrom, removable, read_only, snapshot;
    uint64_t size; /* bytes */
};
void machine_each_drive(const struct machine *m, void (*fn)(void *ctx, const struct inspect_drive *d), void *ctx);
/* The keyboard as the guest has set it: a line. */
void machine_print_keyboard(const struct machine *m, const struct inspect_out *out);

struct inspect_mouse {
    const char *name;
    unsigned index;
    bool current; /* has the host's movements now */
};

void machine_each_mouse(const struct machine *m, void (*fn)(void *ctx, const struct inspect_mouse *mouse), void *ctx);
void machine_print_drives(const struct machine *m, const struct inspect_out *out);

/* ---- the host under the machine (inspect_host.c) ---- */

struct host_verb {
    const char *name, *args, *help;
    unsigned gfns; /* how many gfns it takes */
    bool takes_mode;
    bool (*run)(struct machine *m, const uint64_t *gfn, const char *mode, const struct inspect_out *out,
                struct error *e);
};
/* The operations that this host model has, `count` of them. */
const struct host_verb *host_verbs(size_t *count);

#endif
