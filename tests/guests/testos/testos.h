// Checks of the test OS: reporting, expectations of probes, accesses of every kind, the list of groups.
#ifndef TESTOS_H
#define TESTOS_H

#include "../lib/guest.h"

// ---- reporting ----------------------------------------------------------------------------------------------------

// Every check prints one line, "ok N - NAME" or "not ok N - NAME: DETAILS".
void check(bool ok, const char *format, ...) __attribute__((format(printf, 2, 3)));
void check_equal(u64 got, u64 wanted, const char *format, ...) __attribute__((format(printf, 3, 4)));
void note(const char *format, ...) __attribute__((format(printf, 1, 2)));

// Features and words of the command line, fixed at the start.
struct settings {
    bool coherent; // assert what only a processor without a visible TLB or prefetch queue promises
    bool strict;   // assert what the SDM says and QEMU's TCG is known not to do: off under TCG, else on
    bool full;     // long sweeps
    bool has_1g, has_smep, has_smap, has_pku;
    unsigned maxphyaddr;
};
extern struct settings settings;

// ---- expectations -------------------------------------------------------------------------------------------------

enum { VEC_DE = 0, VEC_DB = 1, VEC_BP = 3, VEC_UD = 6, VEC_DF = 8, VEC_NP = 11, VEC_SS = 12, VEC_GP = 13, VEC_PF = 14 };
// PF_RESERVED: P and RSVD; under TCG RSVD alone (README, "Where TCG departs").
#define PF_RESERVED (settings.strict ? PF_P | PF_RSVD : PF_RSVD)
// PF_MODIFY: W, as a read-modify-write of a page that is not present has it; TCG reports the read.
#define PF_MODIFY   (settings.strict ? PF_W : 0)
enum { PF_P = 1, PF_W = 2, PF_U = 4, PF_RSVD = 8, PF_ID = 16, PF_PK = 32 };

struct expect {
    unsigned vector;
    u64 error;
    u64 cr2;      // compared for #PF only
    u64 rip;      // 0: where the probe started, VECTOR_DONE excepted (not compared)
    bool partial; // registers may have changed (string instructions, later instructions)
};

static inline struct expect done(void)
{
    return (struct expect){.vector = VECTOR_DONE};
}
static inline struct expect page_fault(u64 error, u64 cr2)
{
    return (struct expect){.vector = VEC_PF, .error = error, .cr2 = cr2};
}
static inline struct expect exception(unsigned vector, u64 error)
{
    return (struct expect){.vector = vector, .error = error};
}

// NULL when the probe ended as expected: vector, error code, CR2, RIP, and, for a fault of the first instruction, every
// register and flag unchanged. Otherwise what differs.
const char *expect_mismatch(const struct probe *p, struct expect wanted);
// Runs the probe and checks the outcome; true when it was the expected one.
bool check_probe(struct probe *p, struct expect wanted, const char *format, ...) __attribute__((format(printf, 3, 4)));

// ---- accesses -----------------------------------------------------------------------------------------------------

enum access { READ, WRITE, FETCH, ACCESS_KINDS };
extern const char *const access_names[ACCESS_KINDS];

#define ACCESS_OFFSET 0x100 // where in a page the test reads and writes
#define FRAME_MARK    0x6d61726b00000000ull

// A frame whose start is runnable code (`int $0x80`) and whose word at ACCESS_OFFSET is FRAME_MARK + n.
u64 marked_frame(u64 n);
void mark_memory(void *at, u64 n);

// One access to the page at gva. cr2: the address that the access uses.
struct access_result {
    struct probe p;
    u64 cr2;
    bool faulted;
};
void access_page(struct access_result *r, enum access kind, unsigned cpl, u64 gva, u64 rflags);
// Error code that an access of this kind has before P and RSVD are added.
u64 access_error(enum access kind, unsigned cpl);
// One access with one check: error < 0 means that it must succeed.
bool check_access(enum access kind, unsigned cpl, u64 gva, int error, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
// Mismatch of the outcome, or NULL.
const char *access_mismatch(enum access kind, unsigned cpl, u64 gva, u64 rflags, int error);

// A gva with its own entry at each level, all P, W, U, and a leaf at leaf_level.
struct path {
    u64 gva;
    unsigned leaf_level;
    u64 *entry[5]; // [1..4]
    u64 good[5];
    u64 frame; // gpa of the 4 KiB frame behind gva
};
void path_make(struct path *path, u64 gva, unsigned leaf_level, u64 leaf_frame);
void path_set(const struct path *path, unsigned level, u64 value); // stores the entry, then INVLPG
void path_restore(const struct path *path);

extern const char access_read[], access_write[], access_add[];

// ---- groups -------------------------------------------------------------------------------------------------------

// Each group uses PML4 slots 32..255 and frames as it likes; the runner clears both afterwards and reloads CR3.
#define TEST_GVA GVA(32, 1, 2, 3)

void group_levels(void);
void group_large(void);
void group_reserved(void);
void group_sweep(void);
void group_accessed(void);
void group_control(void);
void group_pkeys(void);
void group_flush(void);
void group_roots(void);
void group_tables(void);
void group_entries(void);
void group_cross(void);
void group_strings(void);
void group_smc(void);
void group_exceptions(void);
void group_privilege(void);
void group_segments(void);
void group_delivery(void);
void group_debug(void);
void group_breakpoints(void);
void group_syscall(void);
void group_irq(void);
void plant_stale_use(void);

#endif
