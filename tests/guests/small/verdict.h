// Reporting of the small guests: one line a check, one line at the end.
#ifndef GUEST_VERDICT_H
#define GUEST_VERDICT_H

#include "../lib/guest.h"

struct verdict {
    const char *guest;
    unsigned passed, failed;
};

static inline void verdict_check(struct verdict *v, bool ok, const char *what)
{
    print("%s %u - %s\n", ok ? "ok" : "not ok", v->passed + v->failed + 1, what);
    if (ok)
        v->passed++;
    else
        v->failed++;
}

static inline void verdict_equal(struct verdict *v, u64 got, u64 wanted, const char *what)
{
    verdict_check(v, got == wanted, what);
    if (got != wanted)
        print("# got 0x%lx, wanted 0x%lx\n", got, wanted);
}

__attribute__((noreturn)) static inline void verdict_exit(const struct verdict *v)
{
    print("%s: %u passed, %u failed\n", v->guest, v->passed, v->failed);
    guest_exit(v->failed || !v->passed ? EXIT_FAIL : EXIT_PASS);
}

#endif
