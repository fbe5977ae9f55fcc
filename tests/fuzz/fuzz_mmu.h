/*
 * The MMU fuzzer: two machines without processors do the same random things to the same memory. One has the engine
 * under test and a host that never leaves it alone, the other walks the guest's tables at every TLB miss (`-mmu walk`)
 * on a host where nothing happens. After each step they must agree on faults, error codes, addresses, data and every
 * bit of the guest's tables, and the audits must hold.
 */
#ifndef TESTS_FUZZ_FUZZ_MMU_H
#define TESTS_FUZZ_FUZZ_MMU_H

#include "core/bus.h"
#include "core/host/host_ops.h"
#include "fuzz.h"
#include "mmu/engine.h"

#define VCPUS       3
#define RAM_PAGES   48 /* at gpa 0 */
#define ROM_FIRST   48 /* 52..63 are nowhere, and so is all that no slot has */
#define ROM_PAGES   4
#define EXTRA_FIRST 64 /* a slot that comes, moves and goes */
#define EXTRA_PAGES 16
#define BIG_FIRST   1024 /* 4 MiB that the host may map by huge pages */
#define BIG_PAGES   1024
#define TABLES      10 /* pages 1..TABLES are tables */
#define SMM         1

#define GPTE_P   1ull
#define GPTE_W   2ull
#define GPTE_U   4ull
#define GPTE_A   0x20ull
#define GPTE_D   0x40ull
#define GPTE_PS  0x80ull
#define GPTE_NX  (1ull << 63)
#define GPTE_ALL (GPTE_P | GPTE_W | GPTE_U)

struct swap_store;
struct ksm;
struct host_chaos;

struct side {
    struct frame_pool *pool;
    struct host_mm *mm;
    struct bus bus;
    struct mem *mem;
    struct mmu *mmu;
    struct mmu_vcpu *v[VCPUS];
    hva_t ram, rom, extra, big, smm;
};

/* A run keeps to one set of formats: where 4-byte and 8-byte entries mix, little stays shadowed for long. */
enum mix { MIX_LONG, MIX_LONG5, MIX_32, MIX_PAE, MIX_8BYTE, MIX_ALL, MIXES };

#define RECENT 16

struct pair {
    struct fuzz *f;
    struct rng *rng;
    struct side tested, walk;
    struct paging_regs regs[VCPUS];
    enum mmu_kind kind;
    enum mix mix;
    bool unsync, rings;
    unsigned long step;
    gva_t recent[RECENT];    /* that led somewhere */
    struct swap_store *swap; /* of the tested side's host */
    struct ksm *ksm;
    struct host_chaos *chaos;
    bool extra_present, extra_rom, big_present;
    gpa_t extra_at;
    unsigned tracked[RAM_PAGES];
    bool logging;              /* the slot at 0 of the tested side is logged */
    uint64_t clean[RAM_PAGES]; /* hash of each page when the log was last read */
    bool pml;                  /* EPT: the processor logs what it writes */
    uint64_t pml_written;      /* bit a page: written by the processor since that log was last read */
    uint8_t ringed[RAM_PAGES]; /* pages that rings gave, and that were not reset yet */
};

unsigned below(struct pair *p, unsigned n);
bool chance(struct pair *p, unsigned percent);
/* One line of the log, with -v. */
void note(const struct pair *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Writes the same to both machines. */
void store_both(struct pair *p, unsigned as, gpa_t gpa, const void *bytes, size_t len, enum mem_kind kind);
uint64_t page_hash(const struct side *s, gfn_t gfn);

/* fuzz_mmu_guest.c: what guests do. */
uint64_t random_entry(struct pair *p, unsigned size);
void guest_choose_format(struct pair *p, unsigned cpu);
void guest_load(struct pair *p, unsigned cpu);
void step_edit_table(struct pair *p);
void step_tweak_entry(struct pair *p);
void step_odd_store(struct pair *p);
void step_fork(struct pair *p);
void step_registers(struct pair *p);
void step_access(struct pair *p);

/* fuzz_mmu_host.c: what hosts and the machine's owner do. */
void step_host(struct pair *p);
/* EPT: the processor's log must hold every page that it wrote; it is empty then. */
void pml_check(struct pair *p);
/* The dirty log must hold every page whose content is another. */
void dirty_log_check(struct pair *p);

#endif
