#include "frontends/machine/lockstep.h"

#include "core/alloc.h"
#include "cpu/system.h"
#include "mmu/dirty.h"
#include "mmu/engine.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define REPORT_PAGES 8

enum heard_kind { HEARD_INPUT, HEARD_POLL, HEARD_WAIT };

/* What came from outside, in order. */
struct heard {
    enum heard_kind kind;
    uint64_t value;           /* POLL: the answer; WAIT: ns; INPUT: length */
    enum input_source source; /* INPUT */
    uint8_t *bytes;
    struct heard *next;
};

struct lockstep {
    struct machine *m, *twin;
    struct machine_host host; /* the machine's own */
    struct heard *first, **last;
    bool strayed; /* the twin asked for what the machine did not */
    uint64_t every, from;
    uint64_t comparisons, pages;
    FILE *out;
};

/* ---- the outside, heard by one and told to the other ---- */

static struct heard *hear(struct lockstep *l, enum heard_kind kind, uint64_t value, const void *bytes)
{
    struct heard *h = alloc_zeroed(1, sizeof *h);
    h->kind = kind;
    h->value = value;
    if (bytes) {
        h->bytes = alloc_zeroed(1, value + 1);
        memcpy(h->bytes, bytes, value);
    }
    *l->last = h;
    l->last = &h->next;
    return h;
}

void lockstep_note_input(struct lockstep *l, enum input_source source, const void *bytes, size_t len)
{
    hear(l, HEARD_INPUT, len, bytes)->source = source;
}

static void heard_drop(struct lockstep *l)
{
    struct heard *h = l->first;
    l->first = h->next;
    if (!l->first)
        l->last = &l->first;
    free(h->bytes);
    free(h);
}

/* The machine's answer to the same question, with the bytes that were typed meanwhile. */
static uint64_t tell(struct lockstep *l, enum heard_kind kind)
{
    while (l->first && l->first->kind == HEARD_INPUT) {
        machine_input(l->twin, l->first->source, l->first->bytes, l->first->value);
        heard_drop(l);
    }
    if (!l->first || l->first->kind != kind) {
        l->strayed = true;
        return kind == HEARD_POLL;
    }
    uint64_t value = l->first->value;
    heard_drop(l);
    return value;
}

static void first_serial_tx(void *ctx, unsigned port, uint8_t byte)
{
    struct lockstep *l = ctx;
    if (l->host.serial_tx)
        l->host.serial_tx(l->host.ctx, port, byte);
}

static void first_debug_tx(void *ctx, uint8_t byte)
{
    struct lockstep *l = ctx;
    if (l->host.debug_tx)
        l->host.debug_tx(l->host.ctx, byte);
}

static void first_console_tx(void *ctx, const char *chardev, const uint8_t *bytes, size_t len)
{
    struct lockstep *l = ctx;
    if (l->host.console_tx)
        l->host.console_tx(l->host.ctx, chardev, bytes, len);
}

static bool first_poll(void *ctx)
{
    struct lockstep *l = ctx;
    bool stop = l->host.poll && l->host.poll(l->host.ctx);
    hear(l, HEARD_POLL, stop, NULL);
    return stop;
}

static bool any_is_live(void *ctx)
{
    struct lockstep *l = ctx;
    return l->host.is_live && l->host.is_live(l->host.ctx);
}

static uint64_t first_wait(void *ctx, uint64_t ns)
{
    struct lockstep *l = ctx;
    uint64_t slept = l->host.wait(l->host.ctx, ns);
    hear(l, HEARD_WAIT, slept, NULL);
    return slept;
}

static bool twin_poll(void *ctx)
{
    return tell(ctx, HEARD_POLL);
}

static uint64_t twin_wait(void *ctx, uint64_t ns)
{
    (void)ns;
    return tell(ctx, HEARD_WAIT);
}

/* ---- life ---- */

static struct machine_config twin_config(const struct machine *m, struct lockstep *l)
{
    struct machine_config cfg = m->cfg;
    cfg.jit = false;
    cfg.is_twin = true;
    cfg.log_list = cfg.trace_list = NULL;
    cfg.audit_every = cfg.mirror_every = 0;
    cfg.audit_events = false;
    cfg.swap_file = NULL;
    cfg.host = (struct machine_host){.ctx = l, .poll = twin_poll, .is_live = any_is_live, .wait = twin_wait};
    return cfg;
}

struct lockstep *lockstep_open(struct machine *m, const struct lockstep_config *cfg, struct error *e)
{
    struct lockstep *l = alloc_zeroed(1, sizeof *l);
    l->m = m;
    l->host = m->cfg.host;
    l->last = &l->first;
    l->every = cfg->every;
    l->from = cfg->from;
    l->out = cfg->out;
    struct machine_config twin = twin_config(m, l);
    l->twin = machine_create(&twin, e);
    if (!l->twin || (cfg->loadvm && !machine_load(l->twin, cfg->loadvm, e))) {
        lockstep_close(l);
        return NULL;
    }
    m->cfg.host = (struct machine_host){.ctx = l,
                                        .serial_tx = first_serial_tx,
                                        .debug_tx = first_debug_tx,
                                        .console_tx = first_console_tx,
                                        .poll = first_poll,
                                        .is_live = any_is_live,
                                        .wait = first_wait};
    m->lockstep = l;
    return l;
}

void lockstep_close(struct lockstep *l)
{
    if (!l)
        return;
    if (l->m->lockstep == l) {
        l->m->cfg.host = l->host;
        l->m->lockstep = NULL;
    }
    while (l->first)
        heard_drop(l);
    machine_destroy(l->twin);
    free(l);
}

struct lockstep_counters lockstep_counters(const struct lockstep *l)
{
    return (struct lockstep_counters){.comparisons = l->comparisons, .pages = l->pages};
}

struct machine *lockstep_twin(struct lockstep *l)
{
    return l->twin;
}

/* ---- comparing ---- */

struct lines {
    char text[40][160];
    unsigned n;
};

static void keep_line(void *ctx, const char *text)
{
    struct lines *k = ctx;
    if (k->n < ARRAY_LEN(k->text))
        snprintf(k->text[k->n++], sizeof k->text[0], "%s", text);
}

static bool note(const struct lockstep *l, const char *what, uint64_t a, uint64_t b)
{
    if (a == b)
        return false;
    fprintf(l->out, "lockstep:   %s: JIT %#" PRIx64 ", interpreter %#" PRIx64 "\n", what, a, b);
    return true;
}

static void report_vectors(const struct lockstep *l, const struct vcpu *a, const struct vcpu *b)
{
    char what[32];
    note(l, "mxcsr", a->mxcsr, b->mxcsr);
    for (unsigned n = 0; n < 16; n++)
        for (unsigned q = 0; q < 4; q++) {
            snprintf(what, sizeof what, "ymm%u[%u]", n, q);
            note(l, what, a->xmm[n].q[q], b->xmm[n].q[q]);
        }
    for (unsigned n = 0; n < 8; n++) {
        snprintf(what, sizeof what, "x87 R%u", n);
        note(l, what, a->fpu.st[n].mant, b->fpu.st[n].mant);
        note(l, what, a->fpu.st[n].exp, b->fpu.st[n].exp);
    }
    note(l, "fcw", a->fpu.fcw, b->fpu.fcw);
    note(l, "fsw", a->fpu.fsw, b->fpu.fsw);
    note(l, "x87 tag", a->fpu.tag, b->fpu.tag);
    note(l, "x87 top", a->fpu.top, b->fpu.top);
}

static void report_cpu(const struct lockstep *l, unsigned k)
{
    static const char *const names[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                        "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
    const struct vcpu *a = l->m->cpu[k], *b = l->twin->cpu[k];
    struct lines la = {.n = 0}, lb = {.n = 0};
    vcpu_print(a, keep_line, &la);
    vcpu_print(b, keep_line, &lb);
    for (unsigned n = 0; n < 16; n++)
        note(l, names[n], a->gpr[n], b->gpr[n]);
    note(l, "rip", a->rip, b->rip);
    note(l, "rflags", vcpu_rflags(a), vcpu_rflags(b));
    report_vectors(l, a, b);
    for (unsigned n = 0; n < la.n && n < lb.n; n++)
        if (strcmp(la.text[n], lb.text[n]))
            fprintf(l->out, "lockstep:   JIT          %s\nlockstep:   interpreter  %s\n", la.text[n], lb.text[n]);
}

/* Everything but memory: true if it is equal. */
static bool compare_state(const struct lockstep *l)
{
    bool time = l->m->clock.icount == l->twin->clock.icount && clock_now(&l->m->clock) == clock_now(&l->twin->clock);
    if (time && machine_small_digest(l->m) == machine_small_digest(l->twin))
        return true;
    fprintf(l->out, "lockstep: processors, devices or time differ\n");
    note(l, "instructions", l->m->clock.icount, l->twin->clock.icount);
    note(l, "time", clock_now(&l->m->clock), clock_now(&l->twin->clock));
    note(l, "turn", l->m->turn, l->twin->turn);
    for (unsigned k = 0; k < l->m->cpu_count; k++)
        if (machine_cpu_digest(l->m, k) != machine_cpu_digest(l->twin, k)) {
            fprintf(l->out, "lockstep:  processor %u\n", k);
            report_cpu(l, k);
        }
    return false;
}

static const uint8_t zeros[PAGE_SIZE];

static const uint8_t *page_of(const struct machine *m, const struct memslot *s, uint64_t index)
{
    const void *p = host_mm_peek_content(m->mm, s->hva + (index << PAGE_SHIFT));
    return p ? p : zeros;
}

/* False: they differ; the first byte is reported. */
static bool compare_page(struct lockstep *l, const struct memslot *s, const struct memslot *t, uint64_t index)
{
    const uint8_t *a = page_of(l->m, s, index), *b = page_of(l->twin, t, index);
    l->pages++;
    if (!memcmp(a, b, PAGE_SIZE))
        return true;
    unsigned k = 0, n = 0;
    while (a[k] == b[k])
        k++;
    for (unsigned j = k; j < PAGE_SIZE; j++)
        n += a[j] != b[j];
    fprintf(l->out, "lockstep: memory differs: page 0x%" PRIx64 ", byte 0x%x: JIT %02x, interpreter %02x (%u bytes)\n",
            (s->base + index) << PAGE_SHIFT, k, a[k], b[k], n);
    return false;
}

static unsigned compare_pages(struct lockstep *l, const struct memslot *s, const struct memslot *t,
                              const uint64_t *written)
{
    unsigned bad = 0;
    for (uint64_t i = 0; i < s->pages && bad < REPORT_PAGES; i++)
        if (!written || written[i / 64] >> (i % 64) & 1)
            bad += !compare_page(l, s, t, i);
        else if (!written[i / 64])
            i |= 63;
    return bad;
}

/* What was written to the slot since the last time; all of it if it is a new one. */
static unsigned compare_slot(struct lockstep *l, const struct memslot *s, const struct memslot *t)
{
    gpa_t gpa = s->base << PAGE_SHIFT;
    size_t words = (s->pages + 63) / 64;
    if (!s->dirty || !t->dirty) {
        mem_dirty_log_start(l->m->mem, s->as, gpa, DIRTY_WRITE_PROTECT);
        mem_dirty_log_start(l->twin->mem, s->as, gpa, DIRTY_WRITE_PROTECT);
        return compare_pages(l, s, t, NULL);
    }
    uint64_t *a = alloc_zeroed(2 * words, sizeof *a), *b = a + words;
    unsigned bad = 0;
    if (mem_dirty_log_get_and_clear(l->m->mem, s->as, gpa, a) +
            mem_dirty_log_get_and_clear(l->twin->mem, s->as, gpa, b) >
        0) {
        for (size_t k = 0; k < words; k++)
            a[k] |= b[k];
        bad = compare_pages(l, s, t, a);
    }
    free(a);
    return bad;
}

static bool compare_memory(struct lockstep *l)
{
    unsigned bad = 0;
    size_t n = memslot_count(l->m->mem);
    if (n != memslot_count(l->twin->mem)) {
        fprintf(l->out, "lockstep: the memory maps differ\n");
        return false;
    }
    for (size_t k = 0; k < n; k++) {
        const struct memslot *s = memslot_at(l->m->mem, k), *t = memslot_at(l->twin->mem, k);
        if (s->base != t->base || s->as != t->as || s->kind != t->kind || s->pages != t->pages) {
            fprintf(l->out, "lockstep: the memory maps differ at 0x%" PRIx64 "\n", s->base << PAGE_SHIFT);
            bad++;
        } else if (s->kind != MEMSLOT_DEVICE) {
            bad += compare_slot(l, s, t);
        }
    }
    return !bad;
}

static bool compare(struct lockstep *l)
{
    l->comparisons++;
    bool state = compare_state(l), memory = compare_memory(l);
    return state && memory && !l->strayed;
}

static bool compare_all(struct lockstep *l)
{
    if (!compare(l))
        return false;
    if (machine_digest(l->m) == machine_digest(l->twin))
        return true;
    fprintf(l->out, "lockstep: the digests differ\n");
    return false;
}

/* ---- running ---- */

static enum machine_exit differ(struct lockstep *l, uint64_t before, enum machine_exit a, enum machine_exit b)
{
    if (a != b)
        fprintf(l->out, "lockstep: the JIT's run ends: %s; the interpreter's: %s\n", machine_exit_text(a),
                machine_exit_text(b));
    if (l->strayed)
        fprintf(l->out, "lockstep: they met the outside at different places\n");
    fprintf(l->out,
            "lockstep: equal at position %" PRIu64 ", not at %" PRIu64 "; -lockstep 100,from=%" PRIu64
            " looks more closely\n",
            before, l->m->clock.icount, before);
    jit_print_last(l->m->jit, l->m->code, l->out);
    return MACHINE_DIFFERS;
}

enum machine_exit lockstep_run(struct lockstep *l)
{
    uint64_t before = l->m->clock.icount;
    if (!compare(l))
        return differ(l, before, MACHINE_POSITION, MACHINE_POSITION);
    for (;;) {
        uint64_t at = before + l->every > l->from ? before + l->every : l->from;
        enum machine_exit a = machine_run_to(l->m, at), b = machine_run_to(l->twin, at);
        if (a != b || !(a == MACHINE_POSITION ? compare(l) : compare_all(l)))
            return differ(l, before, a, b);
        if (a != MACHINE_POSITION)
            return a;
        before = l->m->clock.icount;
    }
}
