/*
 * What the architecture says an access does: fault or not, error code, A and D bits. Written from SDM volume 3, 4.3 to
 * 4.8, on raw entries; it shares no code with the walker that it judges.
 *
 * Where 4.8 leaves a choice, it is the one that docs/mmu.md states: a walk sets A in each entry that it goes on from,
 * and in the leaf (with D, for a write) only if the access is permitted.
 */
#ifndef TESTS_UNIT_ACCESS_MODEL_H
#define TESTS_UNIT_ACCESS_MODEL_H

#include <stdbool.h>
#include <stdint.h>

enum { AM_P = 1, AM_W = 2, AM_U = 4, AM_A = 0x20, AM_D = 0x40, AM_PS = 0x80 };
#define AM_XD (1ull << 63)

enum am_format { AM_32, AM_PAE, AM_LONG4, AM_LONG5 };

struct am_tables {
    enum am_format format;
    int top, leaf;     /* levels: the highest one in memory, and where the page is */
    uint64_t entry[6]; /* by level */
    bool pse, page1g;  /* CR4.PSE; CPUID page1gb */
    int maxphyaddr;
};

enum am_kind { AM_READ, AM_WRITE, AM_FETCH };

struct am_access {
    enum am_kind kind;
    bool user;     /* made at CPL 3, not implicitly by the processor */
    bool implicit; /* a supervisor access made by the processor itself: EFLAGS.AC does not matter */
    bool wp, smep, smap, ac, nxe, pke, pks;
    uint32_t pkru, pkrs;
};

struct am_outcome {
    bool fault;
    uint32_t error;
};

/* Rules that a test may take out, to see that it would notice. */
enum am_rule {
    AM_ALL_RULES,
    AM_NO_WP,
    AM_NO_SMEP,
    AM_NO_SMAP,
    AM_NO_IMPLICIT,
    AM_NO_XD,
    AM_NO_PKRU,
    AM_NO_PKRS,
    AM_NO_UPPER_RIGHTS,
    AM_NO_ACCESSED,
    AM_NO_DIRTY,
    AM_NO_RESERVED,
    AM_RULES
};

static inline uint64_t am_bits(int from, int to)
{
    uint64_t bits = 0;
    for (int i = from; i <= to; i++)
        bits |= 1ull << i;
    return bits;
}

/* Tables 4-4 to 4-20: bits of an entry that must be 0. */
static inline bool am_reserved(const struct am_tables *t, int level, uint64_t e, bool nxe)
{
    bool page = level > 1 && (e & AM_PS);
    if (t->format == AM_32)
        return level == 2 && page && t->pse && (e & am_bits(13 + t->maxphyaddr - 32, 21));
    uint64_t zero = am_bits(t->maxphyaddr, t->format == AM_PAE ? 62 : 51);
    if (!nxe)
        zero |= AM_XD;
    if (level >= 4 || (level == 3 && !t->page1g))
        zero |= AM_PS;
    else if (page)
        zero |= level == 3 ? am_bits(13, 29) : am_bits(13, 20);
    return e & zero;
}

static inline bool am_is_page(const struct am_tables *t, int level, uint64_t e)
{
    if (level == 1)
        return true;
    return (e & AM_PS) && (t->format != AM_32 || t->pse);
}

/* 4.6.1: may the access be made with these rights of all levels together? */
static inline bool am_rights(const struct am_access *a, uint64_t all_of, uint64_t any_xd, enum am_rule without)
{
    bool w = all_of & AM_W, u = all_of & AM_U;
    if (a->user && !u)
        return false;
    if (a->kind == AM_FETCH) {
        if (any_xd && without != AM_NO_XD)
            return false;
        return a->user || !u || !a->smep || without == AM_NO_SMEP;
    }
    if (!a->user && u && a->smap && without != AM_NO_SMAP) {
        bool overridden = a->ac && !(a->implicit && without != AM_NO_IMPLICIT);
        if (!overridden)
            return false;
    }
    if (a->kind == AM_READ || w)
        return true;
    return !a->user && (!a->wp || without == AM_NO_WP);
}

/* 4.6.2: does the page's key forbid it? */
static inline bool am_key_denies(const struct am_tables *t, const struct am_access *a, uint64_t all_of, unsigned key,
                                 enum am_rule without)
{
    if (t->format < AM_LONG4 || a->kind == AM_FETCH)
        return false;
    bool u = all_of & AM_U;
    if (u ? !a->pke || without == AM_NO_PKRU : !a->pks || without == AM_NO_PKRS)
        return false;
    uint32_t rights = (u ? a->pkru : a->pkrs) >> 2 * key & 3;
    if (rights & 1)
        return true;
    if (!(rights & 2) || a->kind != AM_WRITE)
        return false;
    return a->wp || (u && a->user);
}

/* Makes the access; t->entry gets the A and D bits that it sets. */
static inline struct am_outcome am_access(struct am_tables *t, const struct am_access *a, enum am_rule without)
{
    uint32_t error = (a->kind == AM_WRITE ? 2 : 0) | (a->user ? 4 : 0);
    if (a->kind == AM_FETCH && (a->smep || (a->nxe && t->format != AM_32)))
        error |= 16;
    uint64_t all_of = AM_W | AM_U, any_xd = 0;
    int level = t->top;
    for (;; level--) {
        uint64_t e = t->entry[level];
        if (!(e & AM_P))
            return (struct am_outcome){true, error};
        if (without != AM_NO_RESERVED && am_reserved(t, level, e, a->nxe))
            return (struct am_outcome){true, error | 1 | 8};
        if (without != AM_NO_UPPER_RIGHTS || level == t->leaf)
            all_of &= e;
        if (t->format != AM_32)
            any_xd |= e & AM_XD;
        if (am_is_page(t, level, e))
            break;
        if (without != AM_NO_ACCESSED)
            t->entry[level] |= AM_A;
    }
    bool key = am_key_denies(t, a, all_of, (unsigned)(t->entry[level] >> 59 & 15), without);
    if (key || !am_rights(a, all_of, any_xd, without))
        return (struct am_outcome){true, error | 1 | (key ? 32 : 0)};
    t->entry[level] |= AM_A | (a->kind == AM_WRITE && without != AM_NO_DIRTY ? AM_D : 0);
    return (struct am_outcome){false, 0};
}

#endif
