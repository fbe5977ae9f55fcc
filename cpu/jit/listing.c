/*
 * What people see of compiled code: `-d jit`, guest and host code side by side, and the map that perf reads.
 */
#include "core/library.h"
#include "cpu/jit/internal.h"

#include <capstone/capstone.h>
#include <inttypes.h>

/* ---- perf's map ---- */

static void map_line(const struct jit *j, const uint8_t *from, const uint8_t *to, uint64_t rip, gpa_t gpa,
                     const char *what)
{
    char name[128] = "";
    if (j->symbol)
        j->symbol(j->symbol_ctx, rip, name, sizeof name);
    fprintf(j->perf_map, "%" PRIxPTR " %zx guest:%s%s0x%" PRIx64 "[0x%" PRIx64 "]%s\n", (uintptr_t)from,
            (size_t)(to - from), name, name[0] ? ":" : "", rip, gpa, what);
}

void jit_perf_map_thunks(const struct jit *j)
{
    if (!j->perf_map)
        return;
    fprintf(j->perf_map, "%" PRIxPTR " %zx jit:thunks\n", (uintptr_t)j->arena.code, j->thunks_end);
    fflush(j->perf_map);
}

void jit_perf_map_region(const struct tr *t)
{
    const struct jit *j = t->j;
    const struct block *root = t->blocks[0].b;
    if (!j->perf_map)
        return;
    for (unsigned k = 0; k < t->ntraces; k++) {
        const struct tr_trace *r = &t->traces[k];
        const struct block *b = t->blocks[r->block].b;
        map_line(j, r->from + t->e.exec, r->to + t->e.exec, t->v->rip + b->gpa - root->gpa, b->gpa, "");
    }
    map_line(j, t->cold_start + t->e.exec, t->e.p + t->e.exec, t->v->rip, root->gpa, ".slow");
    fflush(j->perf_map);
}

/* ---- side by side ---- */

#define CS_LIBRARY "libcapstone.so.4"
/* clang-format off */
#define CS_CALLS(X) \
    X(cs_open) X(cs_close) X(cs_disasm) X(cs_free)
/* clang-format on */

struct cs_calls {
    CS_CALLS(LIBRARY_POINTER)
};

#define CS_CALL(f) LIBRARY_CALL(struct cs_calls, f)
static const struct library_call cs_calls[] = {CS_CALLS(CS_CALL)};

struct listing {
    const struct tr *t;
    struct cs_calls cs;
    csh handle;
};

static unsigned disassemble(const struct listing *l, const uint8_t *from, const uint8_t *to, bool print)
{
    cs_insn *insn = NULL;
    size_t n = from < to
                   ? l->cs.cs_disasm(l->handle, from, (size_t)(to - from), (uint64_t)(from - l->t->e.start), 0, &insn)
                   : 0;
    for (size_t k = 0; print && k < n; k++)
        log_emit(l->t->j->log, LOG_JIT, "      +0x%04" PRIx64 "  %s %s", insn[k].address, insn[k].mnemonic,
                 insn[k].op_str);
    if (n)
        l->cs.cs_free(insn, n);
    return (unsigned)n;
}

static void list_part(const struct listing *l, const char *what, const uint8_t *from, const uint8_t *to)
{
    unsigned n = disassemble(l, from, to, false);
    log_emit(l->t->j->log, LOG_JIT, "  %-48s %u host instruction%s, %zu bytes", what, n, n == 1 ? "" : "s",
             (size_t)(to - from));
    disassemble(l, from, to, true);
}

static void list_insn(const struct listing *l, const struct tr_mark *m)
{
    const struct block *b = l->t->blocks[m->block].b;
    char text[96], line[160];
    gpa_t at = b->gpa + b->insn[m->insn].off;
    snprintf(line, sizeof line, "0x%" PRIx64 ": %s", at, insn_print(&b->insn[m->insn], at, text, sizeof text));
    list_part(l, line, m->from, m->to);
}

static void list_trace(const struct listing *l, const struct tr_trace *r, unsigned end)
{
    const struct tr_mark *marks = l->t->marks;
    list_part(l, "head", l->t->blocks[r->block].entry, r->mark < end ? marks[r->mark].from : r->to);
    for (unsigned k = r->mark; k < end; k++)
        list_insn(l, &marks[k]);
    if (r->mark < end && r->to > marks[end - 1].to)
        list_part(l, "end", marks[end - 1].to, r->to);
}

void jit_list_region(const struct tr *t)
{
    struct listing l = {.t = t};
    char why[256];
    if (!log_is_on(t->j->log, LOG_JIT))
        return;
    if (!library_load(CS_LIBRARY, cs_calls, ARRAY_LEN(cs_calls), &l.cs, why, sizeof why)) {
        log_emit(t->j->log, LOG_JIT, "region at gpa 0x%" PRIx64 " cannot be listed: %s", t->blocks[0].b->gpa, why);
        return;
    }
    if (l.cs.cs_open(CS_ARCH_X86, CS_MODE_64, &l.handle) != CS_ERR_OK)
        return;
    log_emit(t->j->log, LOG_JIT,
             "region at gpa 0x%" PRIx64 ", mode 0x%x: %u blocks, %u instructions, %zu bytes, %zu of them cold",
             t->blocks[0].b->gpa, t->blocks[0].b->mode, t->ntraces, t->nmarks, (size_t)(t->e.p - t->e.start),
             (size_t)(t->e.p - t->cold_start));
    for (unsigned k = 0; k < t->ntraces; k++)
        list_trace(&l, &t->traces[k], k + 1 < t->ntraces ? t->traces[k + 1].mark : t->nmarks);
    list_part(&l, "cold", t->cold_start, t->e.p);
    l.cs.cs_close(&l.handle);
}
