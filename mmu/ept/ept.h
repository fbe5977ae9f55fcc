/*
 * `-mmu ept`: two-dimensional paging as VT-x has it (SDM volume 3, chapters 25 and 29; Linux arch/x86/kvm/mmu, the tdp
 * side, and vmx.c).
 *
 * The engine has two halves that meet only in EPT tables and exits, as processor and hypervisor do:
 *   the processor    ept_walk.c, ept_translate.c   walks the guest's tables, each access to a guest entry and the final
 * one through the EPT tables that the EPTP names; sets A and D; writes the page-modification log; or leaves an exit the
 * hypervisor   ept_fault.c, ept_table.c      answers exits: builds the tables step by step, marks MMIO, drains the log;
 *                    ept_zap.c, ept_dirty.c, ...   follows the host through the invalidation bus
 *
 * What this header offers beyond the operations of every engine: the exit record, the tables' configuration, the
 * invalidation instructions, dirty logging, restrictions of rights, the APIC access page. All of it needs a struct mmu
 * of kind MMU_EPT; functions take the MMU lock themselves.
 */
#ifndef MMU_EPT_H
#define MMU_EPT_H

#include "mmu/engine.h"

/* ---- exits ---- */

/* Basic exit reasons (SDM volume 3, appendix C). */
enum ept_exit_reason {
    EPT_EXIT_NONE = 0,
    EPT_EXIT_APIC_ACCESS = 44,
    EPT_EXIT_VIOLATION = 48,
    EPT_EXIT_MISCONFIG = 49,
    EPT_EXIT_PML_FULL = 62
};

/* Exit qualification for EPT violations (SDM table 28-7). 9 to 11 are valid only with GLA_VALID and TRANSLATION. */
#define EPT_Q_READ      (1u << 0)
#define EPT_Q_WRITE     (1u << 1)
#define EPT_Q_FETCH     (1u << 2)
#define EPT_Q_ENTRY_R   (1u << 3) /* the rights that all entries used gave together */
#define EPT_Q_ENTRY_W   (1u << 4)
#define EPT_Q_ENTRY_X   (1u << 5)
#define EPT_Q_GAW       (1u << 6) /* "GPA exceeds GAW": beyond what the walk length covers */
#define EPT_Q_GLA_VALID (1u << 7)
#define EPT_Q_TRANSLATION                                                                                              \
    (1u << 8) /* the gpa is the translation of the linear address; clear: a guest entry of its walk */
#define EPT_Q_USER        (1u << 9)  /* advanced: user-mode linear address */
#define EPT_Q_GUEST_W     (1u << 10) /* advanced: writable by the guest's entries */
#define EPT_Q_GUEST_XD    (1u << 11) /* advanced: execute-disable by the guest's entries */
#define EPT_Q_NMI_UNBLOCK (1u << 12)

struct ept_exit {
    enum ept_exit_reason reason;
    uint32_t qualification; /* violation: EPT_Q_*; APIC access: offset and access type; else 0 */
    gpa_t gpa;              /* guest-physical address; PML full: that of the write */
    gva_t gla;              /* guest-linear address; valid as the qualification says */
    uint8_t as;
};

/* The vCPU's last exit (reason EPT_EXIT_NONE: none yet), and how many it had. */
struct ept_exit ept_last_exit(struct mmu_vcpu *mv);
uint64_t ept_exit_count(struct mmu_vcpu *mv);

/* What the hypervisor made of an exit: the guest goes on, the access is carried out by software, or the record is
 * impossible. */
enum ept_answer { EPT_RESUME, EPT_EMULATE, EPT_REFUSED };
/* Linux: handle_ept_violation, handle_ept_misconfig, handle_pml_full. Without the MMU lock: gets frames. */
enum ept_answer ept_handle_exit(struct mmu_vcpu *mv, const struct ept_exit *x);
/* NULL, or what is wrong with the qualification of a violation. */
const char *ept_violation_check(uint32_t qualification);
/* The guest executes (true) or has executed IRET with NMIs blocked: bit 12 of the exits meanwhile. */
void ept_note_iret(struct mmu_vcpu *mv, bool unblocks_nmi);

/* ---- configuration ---- */

struct ept_config {
    int levels;  /* 4 or 5 */
    bool ad;     /* A and D in EPT entries; the page-modification log needs them */
    bool x_only; /* the processor supports execute-only entries */
};

/* Default: 4 levels, A/D, execute-only. Drops all tables. False: not a configuration, nothing changed. */
bool ept_configure(struct mmu *mmu, const struct ept_config *c);
/* IA32_VMX_EPT_VPID_CAP of the modelled processor (SDM appendix A.10). */
uint64_t ept_vpid_cap(const struct mmu *mmu);
/* The EPTP of an address space. */
uint64_t ept_eptp(const struct mmu *mmu, unsigned as);
/* VM entry's checks of an EPTP (SDM 27.2.1.1). NULL, or what is wrong. */
const char *ept_eptp_check(uint64_t eptp, uint64_t cap, int maxphyaddr);

/* ---- INVEPT, INVVPID (SDM 31.3) ---- */

enum invept_type { INVEPT_SINGLE = 1, INVEPT_ALL = 2 };
enum invvpid_type { INVVPID_ADDRESS = 0, INVVPID_SINGLE = 1, INVVPID_ALL = 2, INVVPID_SINGLE_BUT_GLOBAL = 3 };
/* What the vCPU's TLB entries are tagged with; never 0, which is the hypervisor's own. */
uint16_t ept_vpid(struct mmu_vcpu *mv);
/* False: VMfail (invalid operand); nothing is dropped. Only this vCPU's TLB is concerned, as on hardware. */
bool ept_invept(struct mmu_vcpu *mv, unsigned type, uint64_t eptp);
bool ept_invvpid(struct mmu_vcpu *mv, unsigned type, uint16_t vpid, gva_t gva);

/* ---- dirty logging through the page-modification log ---- */

#define EPT_PML_ENTRIES 512
/* From now on each page's first write by a vCPU is logged. Large leaves are dropped, for pages are logged by 4 KiB.
 * False: no A/D. Writes that do not come from a vCPU (DMA, HOST_POKE) are not in it: who makes them knows. */
bool ept_dirty_log_start(struct mmu *mmu);
void ept_dirty_log_stop(struct mmu *mmu);
typedef void ept_dirty_fn(void *ctx, unsigned as, gfn_t gfn);
/* Calls fn (which must not call back) for each page written since the last time, in order, and starts anew for it.
 * Returns their number. */
uint64_t ept_dirty_log_harvest(struct mmu *mmu, unsigned as, gfn_t start, uint64_t pages, ept_dirty_fn *fn, void *ctx);
/* The log of a vCPU as the processor writes it: from index 511 down; UINT16_MAX: full. */
struct ept_pml {
    uint64_t entry[EPT_PML_ENTRIES]; /* gpas of pages; bit 0: the address space */
    uint16_t index;
};
const struct ept_pml *ept_pml_of(struct mmu_vcpu *mv);
/* Moves the entries to the software's log. Returns their number. Linux: vmx_flush_pml_buffer. */
unsigned ept_pml_drain(struct mmu_vcpu *mv);

/* ---- restricted rights ---- */

/* The pages keep only these of EPT_R, EPT_W and EPT_X (ept_entry.h): EPT_X alone is an execute-only page. Other
 * accesses exit each time and are carried out by software, so the guest does not notice. False: a combination that the
 * processor does not support. All three: no restriction. */
bool ept_restrict(struct mmu *mmu, unsigned as, gfn_t start, uint64_t pages, uint64_t rights);

/* ---- the APIC access page ---- */

/* Accesses to the gfn, which must lie in a memslot, exit as APIC accesses. The frame is got again after the host has
 * changed it (Linux: kvm_vcpu_reload_apic_access_page on KVM_REQ_APIC_PAGE_RELOAD). False: no memslot. */
bool ept_apic_access_set(struct mmu *mmu, unsigned as, gfn_t gfn);
void ept_apic_access_clear(struct mmu *mmu);
/* The frame that the vCPU's APIC-access address names now, or PFN_NONE: a reload is requested, and done at the next
 * entry. */
pfn_t ept_apic_access_frame(struct mmu_vcpu *mv);
/* Linux: vcpu_enter_guest's requests. A translation does it by itself. */
void ept_vcpu_enter(struct mmu_vcpu *mv);

#endif
