// Permissions at each level, large pages, reserved bits, and random combinations against a model.
#include "testos.h"

struct defect {
    const char *name;
    u64 set, clear;
};

static const struct defect defects[] = {
    {"not present", 0, PTE_P}, {"read-only", 0, PTE_W},         {"supervisor", 0, PTE_U},
    {"no-execute", PTE_NX, 0}, {"reserved bit", 1ull << 51, 0},
};
enum { DEFECTS = sizeof defects / sizeof defects[0], NOT_PRESENT = 0, READ_ONLY, SUPERVISOR, NO_EXECUTE, RESERVED };

static const char *const level_names[5] = {"", "PTE", "PDE", "PDPTE", "PML4E"};
static const unsigned cpls[] = {0, 3};

// Error code of an access through a path with one defect, or -1. WP is set, SMEP and SMAP are clear.
static int defect_error(unsigned defect, enum access kind, unsigned cpl)
{
    int base = (int)access_error(kind, cpl);
    switch (defect) {
    case NOT_PRESENT:
        return base;
    case READ_ONLY:
        return kind == WRITE ? base | PF_P : -1;
    case SUPERVISOR:
        return cpl == 3 ? base | PF_P : -1;
    case NO_EXECUTE:
        return kind == FETCH ? base | PF_P : -1;
    default:
        return base | PF_RESERVED;
    }
}

static bool defect_exists(unsigned defect)
{
    return defect != RESERVED || settings.maxphyaddr < 52;
}

void group_levels(void)
{
    struct path path;
    path_make(&path, TEST_GVA, 1, marked_frame(1));
    for (unsigned c = 0; c < 2; c++)
        for (enum access kind = READ; kind < ACCESS_KINDS; kind++) {
            mark_memory(gpa_pointer(path.frame), 1);
            check_access(kind, cpls[c], path.gva, -1, "all levels permit");
        }
    for (unsigned level = 4; level >= 1; level--)
        for (unsigned d = 0; d < DEFECTS; d++)
            for (unsigned i = 0; i < 2 * ACCESS_KINDS && defect_exists(d); i++) {
                enum access kind = i % ACCESS_KINDS;
                unsigned cpl = cpls[i / ACCESS_KINDS];
                mark_memory(gpa_pointer(path.frame), 1);
                path_set(&path, level, (path.good[level] | defects[d].set) & ~defects[d].clear);
                check_access(kind, cpl, path.gva, defect_error(d, kind, cpl), "%s %s", level_names[level],
                             defects[d].name);
                path_restore(&path);
            }
    mark_memory(gpa_pointer(path.frame), 7);
    path_set(&path, 1, path.good[1] & ~PTE_W);
    check_access(WRITE, 3, path.gva, 7, "write to read-only page");
    check_equal(load64(path.frame + ACCESS_OFFSET), FRAME_MARK + 7, "a write that faults leaves memory alone");
    path_restore(&path);
    struct access_result r;
    access_page(&r, WRITE, 3, path.gva, 0);
    check_equal(load64(path.frame + ACCESS_OFFSET), r.p.in.rax, "a permitted write reaches the frame");
}

// ---- large pages --------------------------------------------------------------------------------------------------

static const char *six_accesses(u64 gva, u64 frame, unsigned defect, bool has_defect)
{
    for (unsigned i = 0; i < 2 * ACCESS_KINDS; i++) {
        enum access kind = i % ACCESS_KINDS;
        unsigned cpl = cpls[i / ACCESS_KINDS];
        mark_memory(gpa_pointer(frame), 1);
        const char *mismatch = access_mismatch(kind, cpl, gva, 0, has_defect ? defect_error(defect, kind, cpl) : -1);
        if (mismatch)
            return mismatch;
    }
    return NULL;
}

static void check_six(const struct path *path, unsigned defect, bool has_defect, const char *what, const char *where)
{
    const char *mismatch = six_accesses(path->gva, path->frame, defect, has_defect);
    check(!mismatch, "%s, %s %s: all six accesses%s%s", what, where, has_defect ? defects[defect].name : "permits",
          mismatch ? ": wrong " : "", mismatch ? mismatch : "");
}

static void check_large_levels(const struct path *path, const char *what)
{
    check_six(path, 0, false, what, "all levels");
    for (unsigned level = 4; level >= path->leaf_level; level--)
        for (unsigned d = 0; d < DEFECTS; d++) {
            if (!defect_exists(d))
                continue;
            path_set(path, level, (path->good[level] | defects[d].set) & ~defects[d].clear);
            check_six(path, d, true, what, level_names[level]);
            path_restore(path);
        }
}

static void check_large_reserved(const struct path *path, unsigned first, unsigned last, const char *what)
{
    for (unsigned bit = first; bit <= last; bit++) {
        path_set(path, path->leaf_level, path->good[path->leaf_level] | 1ull << bit);
        check_six(path, RESERVED, true, what, bit == first ? "lowest misaligned base" : "misaligned base");
        path_restore(path);
    }
}

static void check_large_offsets(const struct path *path, u64 base, u64 leaf_frame, const char *what)
{
    static const u64 offsets[] = {0, 8, 0x1000, 0xff8, 0x100000, 0x1ff000, 0x1ffff8};
    bool ok = true;
    for (unsigned i = 0; i < sizeof offsets / sizeof offsets[0]; i++) {
        store64(base + offsets[i], 0x1234567890ull + i);
        ok = ok && load64(leaf_frame + offsets[i]) == 0x1234567890ull + i;
    }
    check(ok, "%s: stores at seven offsets reach the frame at those offsets", what);
    path_set(path, path->leaf_level, path->good[path->leaf_level] | 1ull << 12);
    check_six(path, 0, false, what, "PAT bit 12: entry");
    path_restore(path);
}

void group_large(void)
{
    struct path path;
    path_make(&path, GVA(33, 2, 3, 4), 2, LARGE_FRAME_A);
    check_large_levels(&path, "2 MiB page");
    check_large_reserved(&path, 13, 20, "2 MiB page");
    check_large_offsets(&path, GVA(33, 2, 3, 0), LARGE_FRAME_A, "2 MiB page");
    if (!settings.has_1g) {
        path_make(&path, GVA(34, 2, 3, 4), 1, marked_frame(1));
        path_set(&path, 3, path.good[3] | PTE_PS);
        check_six(&path, RESERVED, true, "no 1 GiB pages", "PDPTE with PS set:");
        path_restore(&path);
        return;
    }
    u64 offset = LARGE_FRAME_A + 0x5000;
    path_make(&path, GVA(34, 3, 0, 0) + offset, 3, 0);
    check_large_levels(&path, "1 GiB page");
    check_large_reserved(&path, 13, 29, "1 GiB page");
    check_large_offsets(&path, GVA(34, 3, 0, 0) + LARGE_FRAME_A, LARGE_FRAME_A, "1 GiB page");
}

// ---- reserved and ignored bits ------------------------------------------------------------------------------------

static void check_address_bits(const struct path *path)
{
    for (unsigned level = 4; level >= 1; level--)
        for (unsigned bit = settings.maxphyaddr; bit < 52; bit += bit < 50 ? 51 - bit : 1) {
            path_set(path, level, path->good[level] | 1ull << bit);
            for (unsigned c = 0; c < 2; c++)
                check_access(WRITE, cpls[c], path->gva, (int)access_error(WRITE, cpls[c]) | PF_RESERVED,
                             "%s with reserved bit %u", level_names[level], bit);
            path_restore(path);
        }
}

static void check_reserved_priority(const struct path *path)
{
    u64 reserved = 1ull << 51;
    path_set(path, 4, path->good[4] | PTE_PS);
    for (enum access kind = READ; kind < ACCESS_KINDS; kind++)
        check_access(kind, 3, path->gva, (int)access_error(kind, 3) | PF_RESERVED, "PML4E with PS set");
    path_restore(path);
    if (settings.maxphyaddr >= 52)
        return;
    path_set(path, 1, reserved | 0x1000 | PTE_W);
    check_access(READ, 3, path->gva, PF_U, "reserved bit in a PTE that is not present");
    path_restore(path);
    path_set(path, 2, path->good[2] & ~PTE_P);
    path_set(path, 1, path->good[1] | reserved);
    check_access(WRITE, 0, path->gva, PF_W, "reserved bit below a PDE that is not present");
    path_restore(path);
    path_set(path, 3, path->good[3] & ~PTE_U);
    path_set(path, 1, path->good[1] | reserved);
    check_access(READ, 3, path->gva, PF_RESERVED | PF_U, "reserved bit below a supervisor PDPTE");
    path_restore(path);
    path_set(path, 4, path->good[4] & ~PTE_W);
    path_set(path, 2, path->good[2] | reserved);
    path_set(path, 1, path->good[1] & ~PTE_P);
    check_access(WRITE, 3, path->gva, PF_RESERVED | PF_W | PF_U, "reserved bit in a PDE above a PTE not present");
    path_restore(path);
}

void group_reserved(void)
{
    struct path path;
    path_make(&path, TEST_GVA, 1, marked_frame(1));
    check_address_bits(&path);
    check_reserved_priority(&path);
    static const struct {
        u64 bits;
        const char *name;
        unsigned lowest, highest; // levels
    } ignored[] = {
        {7ull << 9, "bits 9 to 11", 1, 4},
        {0x7full << 52, "bits 52 to 58", 1, 4},
        {0xfull << 59, "bits 59 to 62", 1, 4},
        {PTE_G, "bit 8", 1, 4},
        {PTE_D, "bit 6", 1, 4},
        {PTE_PS, "bit 7 (PAT)", 1, 1},
        {PTE_PWT, "PWT", 1, 4},
        {PTE_PCD, "PCD", 1, 4},
    };
    for (unsigned i = 0; i < sizeof ignored / sizeof ignored[0]; i++)
        for (unsigned level = ignored[i].highest; level >= ignored[i].lowest; level--) {
            path_set(&path, level, path.good[level] | ignored[i].bits);
            check_six(&path, 0, false, ignored[i].name, level_names[level]);
            path_restore(&path);
        }
}

// ---- sweep --------------------------------------------------------------------------------------------------------

struct environment {
    bool wp, smep, smap, ac;
};

// The model: what the SDM (volume 3, 4.6 and 4.7) says of one access, given the four entries from level 4 down.
static int model_error(const u64 *entry, struct environment env, enum access kind, unsigned cpl)
{
    u64 rights = PTE_W | PTE_U, nx = 0;
    int base = (int)access_error(kind, cpl);
    for (unsigned level = 4; level >= 1; level--) {
        if (!(entry[level] & PTE_P))
            return base;
        if (entry[level] & 1ull << 51)
            return base | PF_RESERVED;
        rights &= entry[level];
        nx |= entry[level] & PTE_NX;
    }
    bool user_page = rights & PTE_U, writable = rights & PTE_W, ok = true;
    if (cpl == 3) {
        ok = user_page && (kind != WRITE || writable) && (kind != FETCH || !nx);
    } else {
        if (kind == WRITE && !writable && env.wp)
            ok = false;
        if (kind != FETCH && user_page && env.smap && !env.ac)
            ok = false;
        if (kind == FETCH && (nx || (user_page && env.smep)))
            ok = false;
    }
    return ok ? -1 : base | PF_P;
}

static u64 random_next(u64 *state)
{
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return *state >> 33;
}

// Mostly good entries: with four levels a fair coin for each bit would nearly always fault.
static u64 random_entry(u64 good, u64 random)
{
    if (random % 16 == 0)
        good &= ~PTE_P;
    if (random / 16 % 16 == 0 && settings.maxphyaddr < 52)
        good |= 1ull << 51;
    if (random / 256 % 6 == 0)
        good &= ~PTE_W;
    if (random / 2048 % 6 == 0)
        good &= ~PTE_U;
    if (random / 16384 % 6 == 0)
        good |= PTE_NX;
    return good;
}

static const char *sweep_one(const struct path *path, struct environment env, enum access kind, unsigned cpl,
                             unsigned rounds, u64 *seed, u64 *bad)
{
    for (unsigned i = 0; i < rounds; i++) {
        for (unsigned level = 4; level >= 1; level--)
            pte_store(path->entry[level], bad[level] = random_entry(path->good[level], random_next(seed)));
        invlpg(path->gva);
        mark_memory(gpa_pointer(path->frame), 1);
        int error = model_error(bad, env, kind, cpl);
        const char *mismatch = access_mismatch(kind, cpl, path->gva, env.ac ? FLAG_AC : 0, error);
        if (mismatch)
            return mismatch;
    }
    return NULL;
}

static void sweep_environment(const struct path *path, struct environment env, u64 *seed)
{
    u64 cr0 = read_cr0(), cr4 = read_cr4();
    write_cr0((cr0 & ~CR0_WP) | (env.wp ? CR0_WP : 0));
    write_cr4(cr4 | (env.smep ? CR4_SMEP : 0) | (env.smap ? CR4_SMAP : 0));
    for (unsigned i = 0; i < 2 * ACCESS_KINDS; i++) {
        u64 bad[5] = {0};
        enum access kind = i % ACCESS_KINDS;
        const char *mismatch = sweep_one(path, env, kind, cpls[i / ACCESS_KINDS], settings.full ? 4096 : 48, seed, bad);
        check(!mismatch, "sweep wp=%d smep=%d smap=%d ac=%d: %s at CPL %u%s%s", env.wp, env.smep, env.smap, env.ac,
              access_names[kind], cpls[i / ACCESS_KINDS], mismatch ? ": wrong " : "", mismatch ? mismatch : "");
        if (mismatch)
            note("entries 0x%lx 0x%lx 0x%lx 0x%lx", bad[4], bad[3], bad[2], bad[1]);
    }
    write_cr0(cr0);
    write_cr4(cr4);
    path_restore(path);
}

void group_sweep(void)
{
    struct path path;
    u64 seed = 20240229;
    path_make(&path, TEST_GVA, 1, marked_frame(1));
    for (unsigned i = 0; i < 16; i++) {
        struct environment env = {.wp = i & 1, .smep = i & 2, .smap = i & 4, .ac = i & 8};
        if ((!env.smep || settings.has_smep) && (!env.smap || settings.has_smap) && (!env.ac || env.smap))
            sweep_environment(&path, env, &seed);
    }
}
