#include "frontends/machine/debug.h"

#include "frontends/machine/machine.h"
#include "mmu/ept/ept.h"
#include "mmu/mem.h"
#include "mmu/shadow/gpte.h"

#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define EVENTS_MAX 256 /* kept of one stop; what comes after them is counted only */

struct debug {
    struct machine *m;
    struct vcpu_debug eye;
    struct track_listener watch; /* write watchpoints */
    struct debug_point points[DEBUG_POINTS_MAX];
    size_t point_count;
    int next_id;
    bool has_run, running;
    /* The run that is going on. */
    uint64_t stop_icount; /* UINT64_MAX: none */
    uint64_t wanted;      /* events that stop this run whatever the points say */
    unsigned stop_turn;   /* stop when it is this vCPU's turn; UINT_MAX: never */
    bool stop_wanted;
    struct debug_stop stop;
    /* Events of the stop: recorded from the one that stopped on. */
    struct debug_event events[EVENTS_MAX];
    size_t event_count, event_next;
    struct host_mm *child; /* forked by hand, or NULL */
};

/* ---- points ---- */

static struct debug_point *point_new(struct debug *d, enum debug_kind kind, struct error *e)
{
    if (d->point_count == DEBUG_POINTS_MAX) {
        error_set(e, "there are %d points already: delete some", DEBUG_POINTS_MAX);
        return NULL;
    }
    struct debug_point *p = &d->points[d->point_count++];
    *p = (struct debug_point){.id = d->next_id++, .kind = kind};
    return p;
}

size_t debug_point_count(const struct debug *d)
{
    return d->point_count;
}

const struct debug_point *debug_point_at(const struct debug *d, size_t i)
{
    return &d->points[i];
}

const struct debug_point *debug_point_find(const struct debug *d, int id)
{
    for (size_t i = 0; i < d->point_count; i++)
        if (d->points[i].id == id)
            return &d->points[i];
    return NULL;
}

/* The eye is on a vCPU only while something is to be seen there. */
static void eye_update(struct debug *d)
{
    bool breaks = false;
    d->eye.watches_data = false;
    for (size_t i = 0; i < d->point_count; i++) {
        enum debug_kind kind = d->points[i].kind;
        breaks |= kind == DEBUG_BREAK || kind == DEBUG_EVENT;
        d->eye.watches_data |= kind == DEBUG_WATCH_READ || kind == DEBUG_WATCH_ACCESS;
    }
    for (unsigned k = 0; k < d->m->cpu_count; k++) {
        struct vcpu *v = d->m->cpu[k];
        if (!v->debug)
            v->debug_rep_lin = UINT64_MAX; /* of a REP that nobody has watched nothing is known */
        v->debug = breaks || d->eye.watches_data || d->wanted ? &d->eye : NULL;
        vcpu_refresh(v);
    }
}

int debug_add_break(struct debug *d, uint64_t gva, struct error *e)
{
    struct debug_point *p = point_new(d, DEBUG_BREAK, e);
    if (!p)
        return 0;
    p->gva = gva;
    eye_update(d);
    return p->id;
}

/* A write watchpoint: what gva is translated to now must be RAM of one page. */
static bool watch_check(const struct debug *d, uint64_t gva, uint64_t len, uint64_t *gpa, struct error *e)
{
    if ((gva & PAGE_MASK) + len > PAGE_SIZE)
        return error_set(e, "a write watchpoint cannot cross a page: set two");
    if (!machine_gva_to_gpa(d->m, d->m->turn, gva, gpa))
        return error_set(e, "0x%" PRIx64 " is not mapped", gva);
    return !mem_is_device(d->m->mem, 0, *gpa, true) || error_set(e, "0x%" PRIx64 " is not RAM", gva);
}

int debug_add_watch(struct debug *d, enum debug_kind kind, uint64_t gva, uint64_t len, struct error *e)
{
    uint64_t gpa = 0;
    if (!len || len > DEBUG_WATCH_MAX || gva + len - 1 < gva) {
        error_set(e, "a watchpoint has 1 to %u bytes", DEBUG_WATCH_MAX);
        return 0;
    }
    if (kind == DEBUG_WATCH_WRITE && !watch_check(d, gva, len, &gpa, e))
        return 0;
    struct debug_point *p = point_new(d, kind, e);
    if (!p)
        return 0;
    p->gva = gva;
    p->len = len;
    p->gpa = gpa;
    if (kind == DEBUG_WATCH_WRITE)
        track_add(d->m->mem, 0, gpa >> PAGE_SHIFT, TRACK_WATCH);
    eye_update(d);
    return p->id;
}

int debug_add_event(struct debug *d, const struct debug_point *template, struct error *e)
{
    struct debug_point *p = point_new(d, DEBUG_EVENT, e);
    if (!p)
        return 0;
    p->events = template->events;
    p->has_gfn = template->has_gfn;
    p->gfn = template->gfn;
    p->has_gva = template->has_gva;
    p->gva = template->gva;
    return p->id;
}

bool debug_remove(struct debug *d, int id)
{
    for (size_t i = 0; i < d->point_count; i++) {
        struct debug_point *p = &d->points[i];
        if (p->id != id)
            continue;
        if (p->kind == DEBUG_WATCH_WRITE)
            track_remove(d->m->mem, 0, p->gpa >> PAGE_SHIFT, TRACK_WATCH);
        memmove(p, p + 1, (d->point_count - i - 1) * sizeof *p);
        d->point_count--;
        eye_update(d);
        return true;
    }
    return false;
}

/* ---- stopping ---- */

static void stop_request(struct debug *d)
{
    d->stop_wanted = true;
    if (d->running)
        machine_attention(d->m);
}

static bool is_break(void *ctx, uint64_t lin)
{
    const struct debug *d = ctx;
    for (size_t i = 0; i < d->point_count; i++)
        if (d->points[i].kind == DEBUG_BREAK && d->points[i].gva == lin)
            return true;
    return false;
}

static void on_break(void *ctx, uint64_t lin)
{
    struct debug *d = ctx;
    d->stop_wanted = true;
    d->stop.why = DEBUG_AT_BREAK;
    d->stop.cpu = d->m->turn;
    d->stop.point = 0;
    for (size_t i = 0; i < d->point_count; i++) {
        struct debug_point *p = &d->points[i];
        if (p->kind != DEBUG_BREAK || p->gva != lin)
            continue;
        p->hits++;
        if (!d->stop.point)
            d->stop.point = p->id;
    }
}

static void watch_hit(struct debug *d, struct debug_point *p, uint64_t gva, bool write)
{
    p->hits++;
    if (d->stop_wanted && d->stop.why == DEBUG_AT_WATCH)
        return;
    d->stop = (struct debug_stop){.why = DEBUG_AT_WATCH, .cpu = d->m->turn, .point = p->id, .gva = gva, .write = write};
    stop_request(d);
}

/* First byte of the access that the watchpoint covers. */
static uint64_t first_of(uint64_t start, uint64_t at)
{
    return at > start ? at : start;
}

static bool meets(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len)
{
    return a - b < b_len || b - a < a_len;
}

static void on_access(void *ctx, uint64_t lin, unsigned len, bool write)
{
    struct debug *d = ctx;
    for (size_t i = 0; i < d->point_count; i++) {
        struct debug_point *p = &d->points[i];
        bool wanted = p->kind == DEBUG_WATCH_ACCESS || (p->kind == DEBUG_WATCH_READ && !write);
        if (wanted && meets(p->gva, p->len, lin, len))
            watch_hit(d, p, first_of(p->gva, lin), write);
    }
}

static bool on_watched_write(struct track_listener *l, unsigned as, gpa_t gpa, const void *bytes, size_t len)
{
    struct debug *d = container_of(l, struct debug, watch);
    if (!d->running)
        return true; /* the debugger's own poke */
    for (size_t i = 0; i < d->point_count; i++) {
        struct debug_point *p = &d->points[i];
        if (p->kind == DEBUG_WATCH_WRITE && as == 0 && meets(p->gpa, p->len, gpa, len))
            watch_hit(d, p, p->gva + (first_of(p->gpa, gpa) - p->gpa), true);
    }
    return true;
}

/* ---- events ---- */

#define BIT(id) (1ull << TRACE_##id)

static const struct {
    const char *name;
    uint64_t events;
} event_groups[] = {
    {"fault", BIT(MMU_FAULT)}, {"fill", BIT(MMU_FILL)},   {"tracked-write", BIT(MMU_TRACKED_WRITE)},
    {"zap", BIT(MMU_ZAP)},     {"flush", BIT(MMU_FLUSH)}, {"notifier", BIT(NOTIFIER_START) | BIT(NOTIFIER_END)},
};

/* Tracepoints of other modules that belong to an event's name, as they come to exist. */
static const struct {
    const char *name, *prefix;
} event_prefixes[] = {{"sync", "mmu.sync"}, {"exit", "mmu.exit"}, {"exit", "ept."}, {"notifier", "notifier."}};

static uint64_t events_of_prefix(const char *prefix)
{
    uint64_t events = 0;
    for (unsigned id = 0; id < TRACE_COUNT; id++)
        if (!strncmp(trace_name(id), prefix, strlen(prefix)))
            events |= 1ull << id;
    return events;
}

uint64_t debug_events_of(const char *name)
{
    uint64_t events = 0;
    for (size_t k = 0; k < ARRAY_LEN(event_groups); k++)
        if (!strcmp(event_groups[k].name, name))
            events |= event_groups[k].events;
    for (size_t k = 0; k < ARRAY_LEN(event_prefixes); k++)
        if (!strcmp(event_prefixes[k].name, name))
            events |= events_of_prefix(event_prefixes[k].prefix);
    return events || !strchr(name, '.') ? events : events_of_prefix(name);
}

uint64_t debug_events_mmu(void)
{
    return events_of_prefix("mmu.") | events_of_prefix("notifier.") | events_of_prefix("ept.");
}

const char *const *debug_event_names(void)
{
    static const char *const names[] = {"fault",    "fill", "tracked-write", "zap", "flush",
                                        "notifier", "sync", "exit",          NULL};
    return names;
}

/* Which argument names a page: -1 none. */
static int arg_index(unsigned id, const char *const *names)
{
    for (; *names; names++)
        for (unsigned n = 0; n < 4; n++)
            if (!strcmp(trace_arg_name(id, n), *names))
                return (int)n;
    return -1;
}

static bool event_gva(unsigned id, const uint64_t arg[4], uint64_t *gva)
{
    static const char *const names[] = {"gva", NULL};
    int n = arg_index(id, names);
    if (n >= 0)
        *gva = arg[n];
    return n >= 0;
}

static bool event_gfn(unsigned id, const uint64_t arg[4], uint64_t *gfn)
{
    static const char *const frames[] = {"gfn", NULL}, *const addresses[] = {"gpa", NULL};
    int n = arg_index(id, frames);
    if (n >= 0) {
        *gfn = arg[n];
        return true;
    }
    n = arg_index(id, addresses);
    if (n >= 0)
        *gfn = arg[n] >> PAGE_SHIFT;
    return n >= 0;
}

static bool is_notifier(unsigned id)
{
    return id == TRACE_NOTIFIER_START || id == TRACE_NOTIFIER_END || id == TRACE_NOTIFIER_CHANGE_PTE;
}

bool debug_events_have_gva(uint64_t events)
{
    uint64_t none[4] = {0}, gva;
    for (unsigned id = 0; id < TRACE_COUNT; id++)
        if (events >> id & 1 && !event_gva(id, none, &gva))
            return false;
    return true;
}

bool debug_events_have_gfn(uint64_t events)
{
    uint64_t none[4] = {0}, gfn;
    for (unsigned id = 0; id < TRACE_COUNT; id++)
        if (events >> id & 1 && !is_notifier(id) && !event_gfn(id, none, &gfn))
            return false;
    return true;
}

static bool is_about_gfn(const struct debug *d, unsigned id, const uint64_t arg[4], uint64_t gfn)
{
    uint64_t its;
    if (is_notifier(id)) {
        const struct memslot *s = memslot_find(d->m->mem, 0, gfn);
        hva_t hva = s ? memslot_hva(s, gfn) : 0;
        return s && hva < arg[1] && arg[0] < hva + PAGE_SIZE;
    }
    return event_gfn(id, arg, &its) && its == gfn;
}

static bool event_matches(const struct debug *d, const struct debug_point *p, unsigned id, const uint64_t arg[4])
{
    uint64_t gva;
    if (p->kind != DEBUG_EVENT || !(p->events >> id & 1))
        return false;
    if (p->has_gfn && !is_about_gfn(d, id, arg, p->gfn))
        return false;
    return !p->has_gva || (event_gva(id, arg, &gva) && gva >> PAGE_SHIFT == p->gva >> PAGE_SHIFT);
}

/* The sptes made from the guest entry (of this size) in which the write began. */
static void note_sptes(struct debug_event *ev, struct shadow *sh, const struct sp *sp)
{
    const uint64_t *spt = sp_table(sh, sp);
    for (unsigned i = 0; i < SP_ENTRIES && ev->sptes < ARRAY_LEN(ev->spte); i++) {
        gpa_t at = sp_gpte_gpa(sp, i);
        if (at + gpte_size(sp->role) <= ev->entry_gpa || at >= ev->entry_gpa + 8)
            continue;
        ev->entry_size = gpte_size(sp->role);
        ev->spte[ev->sptes++] =
            (struct debug_spte){.sp = sp->index, .index = i, .level = (int)sp->role.level, .before = spt[i]};
    }
}

static void note_tracked_write(const struct debug *d, struct debug_event *ev)
{
    struct mem *mem = d->m->mem;
    ev->has_entry = true;
    ev->entry_gpa = ev->arg[0] & ~7ull;
    ev->entry_size = 8;
    ev->entry_known = mem->before.gpa == ev->entry_gpa;
    ev->entry_before = mem->before.value;
    mem_access(mem, 0, ev->entry_gpa, &ev->entry_after, 8, MEM_PEEK, false, BUS_NO_CPU);
    if (d->m->cfg.mmu != MACHINE_MMU_SHADOW || ev->arg[2] != TRACK_PT)
        return;
    struct shadow *sh = shadow_of(d->m->mmu);
    sp_for_each_of_gfn(sh, ev->entry_gpa >> PAGE_SHIFT, sp)
    {
        if (!sp->role.direct && role_as(sp->role) == 0)
            note_sptes(ev, sh, sp);
    }
}

/* Keeps an event. One tracked write is told to several listeners: a record for each. */
static void event_note(struct debug *d, unsigned id, const uint64_t arg[4], int point)
{
    if (d->event_count == EVENTS_MAX)
        return;
    struct debug_event *ev = &d->events[d->event_count++];
    *ev = (struct debug_event){.id = id, .icount = d->m->clock.icount, .point = point};
    ev->rip = d->m->cpu[d->m->turn]->rip;
    memcpy(ev->arg, arg, sizeof ev->arg);
    if (id == TRACE_MMU_TRACKED_WRITE)
        note_tracked_write(d, ev);
}

static void on_event(void *ctx, enum trace_id id, const uint64_t arg[4])
{
    struct debug *d = ctx;
    int point = 0;
    for (size_t i = 0; i < d->point_count; i++) {
        struct debug_point *p = &d->points[i];
        if (!event_matches(d, p, id, arg))
            continue;
        p->hits++;
        if (!point)
            point = p->id;
    }
    bool stops = point || d->wanted >> id & 1;
    if (stops || d->event_count)
        event_note(d, id, arg, point);
    if (!stops || !d->running || d->stop_wanted)
        return;
    d->stop = (struct debug_stop){.why = DEBUG_AT_EVENT, .cpu = d->m->turn, .point = point};
    stop_request(d);
}

/* What became of the sptes that were seen before. */
static void events_finish(struct debug *d)
{
    if (d->m->cfg.mmu != MACHINE_MMU_SHADOW)
        return;
    const struct shadow *sh = shadow_of(d->m->mmu);
    for (size_t k = 0; k < d->event_count; k++) {
        for (unsigned i = 0; i < d->events[k].sptes; i++) {
            struct debug_spte *s = &d->events[k].spte[i];
            const struct sp *sp = &sh->pages[s->sp];
            s->gone = !sp->live || sp->gfn != d->events[k].entry_gpa >> PAGE_SHIFT;
            s->after = s->gone ? 0 : sp_table(sh, sp)[s->index];
        }
    }
}

const struct debug_event *debug_event_take(struct debug *d)
{
    return d->event_next < d->event_count ? &d->events[d->event_next++] : NULL;
}

static void listen(struct debug *d)
{
    uint64_t events = d->wanted;
    for (size_t i = 0; i < d->point_count; i++)
        events |= d->points[i].kind == DEBUG_EVENT ? d->points[i].events : 0;
    /* What follows an event in its instruction is kept too. */
    trace_listen(&d->m->trace, events ? events | debug_events_mmu() : 0, on_event, d);
}

void debug_listen(struct debug *d, uint64_t events)
{
    d->wanted = events;
    d->event_count = d->event_next = 0;
    trace_listen(&d->m->trace, events, on_event, d);
    if (!events)
        listen(d);
}

/* ---- printing events ---- */

static void print_generic(const struct debug_event *ev, const struct inspect_out *out)
{
    char text[256];
    int n = snprintf(text, sizeof text, "%s", trace_name(ev->id));
    for (unsigned k = 0; k < 4 && trace_arg_name(ev->id, k)[0]; k++)
        n += snprintf(text + n, sizeof text - (size_t)n, " %s 0x%" PRIx64, trace_arg_name(ev->id, k), ev->arg[k]);
    inspect_say(out, "%s", text);
}

static void print_fault(const struct debug_event *ev, const struct inspect_out *out)
{
    const char *kind = ev->arg[1] & ACCESS_FETCH ? "fetch" : ev->arg[1] & ACCESS_WRITE ? "write" : "read";
    if (ev->arg[2] || ev->arg[3] == 0)
        inspect_say(out, "mmu.fault: %s of gva 0x%" PRIx64 ": page fault for the guest, error code 0x%" PRIx64, kind,
                    ev->arg[0], ev->arg[2]);
    else
        inspect_say(out, "mmu.fault: %s of gva 0x%" PRIx64 " resolved: gpa 0x%" PRIx64, kind, ev->arg[0], ev->arg[3]);
}

/* An entry of the machine's own tables: spte or EPT entry. */
static void print_entry(const struct debug *d, uint64_t entry, int level, const struct inspect_out *out)
{
    char text[200];
    if (d->m->cfg.mmu == MACHINE_MMU_EPT)
        inspect_ept_text(entry, text, sizeof text);
    else
        inspect_spte_text(entry, level, text, sizeof text);
    inspect_say(out, "  %s 0x%016" PRIx64 " %s", d->m->cfg.mmu == MACHINE_MMU_EPT ? "ept " : "spte", entry, text);
}

static void print_fill(const struct debug *d, const struct debug_event *ev, const struct inspect_out *out)
{
    inspect_say(out, "mmu.fill: gva 0x%" PRIx64 " gpa 0x%" PRIx64 " level %" PRIu64, ev->arg[0], ev->arg[1],
                ev->arg[3]);
    if (ev->arg[2])
        print_entry(d, ev->arg[2], (int)ev->arg[3], out);
}

static void print_zap(const struct debug *d, const struct debug_event *ev, const struct inspect_out *out)
{
    inspect_say(out, "mmu.zap: gfn 0x%" PRIx64 " level %" PRIu64, ev->arg[0], ev->arg[1]);
    print_entry(d, ev->arg[2], (int)ev->arg[1], out);
}

static void print_spte_change(const struct debug_event *ev, const struct debug_spte *s, const struct inspect_out *out)
{
    char text[200];
    inspect_spte_text(s->before, s->level, text, sizeof text);
    inspect_say(out, "  spte before  0x%016" PRIx64 " %s (shadow page %u, level %d, entry %u)", s->before, text, s->sp,
                s->level, s->index);
    inspect_spte_text(s->after, s->level, text, sizeof text);
    inspect_say(out, "  spte after   0x%016" PRIx64 " %s", s->after, s->gone ? "(the shadow page was zapped)" : text);
}

static void print_tracked_write(const struct debug_event *ev, const struct inspect_out *out)
{
    static const char *const kinds[TRACK_KINDS] = {"page table", "code", "watched", "frame buffer"};
    char text[200];
    unsigned level = ev->sptes ? (unsigned)ev->spte[0].level : 1;
    unsigned offset = ev->entry_size == 4 ? ev->arg[0] & 4 : 0;
    uint64_t before = ev->entry_before >> (8 * offset), after = ev->entry_after >> (8 * offset);
    if (ev->entry_size == 4) {
        before = (uint32_t)before;
        after = (uint32_t)after;
    }
    inspect_say(out, "mmu.tracked_write: %" PRIu64 " bytes at gpa 0x%" PRIx64 " (gfn 0x%" PRIx64 ", %s)", ev->arg[1],
                ev->arg[0], ev->arg[0] >> PAGE_SHIFT, ev->arg[2] < TRACK_KINDS ? kinds[ev->arg[2]] : "?");
    if (ev->arg[2] != TRACK_PT)
        return;
    inspect_gpte_text(before, (int)level, false, ev->entry_size, text, sizeof text);
    if (ev->entry_known)
        inspect_say(out, "  guest before 0x%016" PRIx64 " %s", before, text);
    inspect_gpte_text(after, (int)level, false, ev->entry_size, text, sizeof text);
    inspect_say(out, "  guest after  0x%016" PRIx64 " %s", after, text);
    for (unsigned i = 0; i < ev->sptes; i++)
        print_spte_change(ev, &ev->spte[i], out);
}

static void print_notifier(const struct debug_event *ev, const struct inspect_out *out)
{
    static const char *const names[] = {
        "unmap",   "clear",    "protection of a VMA", "protection of a page", "soft dirty", "release",
        "migrate", "exclusive"};
    inspect_say(out, "%s: hva 0x%" PRIx64 " to 0x%" PRIx64 ", %s, sequence %" PRIu64, trace_name(ev->id), ev->arg[0],
                ev->arg[1], ev->arg[2] < ARRAY_LEN(names) ? names[ev->arg[2]] : "?", ev->arg[3]);
}

static void print_flush(const struct debug_event *ev, const struct inspect_out *out)
{
    static const char *const scopes[] = {"INVLPG", "MOV CR3 (not global)", "all"};
    const char *scope = ev->arg[1] < ARRAY_LEN(scopes) ? scopes[ev->arg[1]] : "?";
    if (ev->arg[1] == GUEST_FLUSH_PAGE)
        inspect_say(out, "mmu.flush: the guest flushed gva 0x%" PRIx64 " (%s)", ev->arg[0], scope);
    else
        inspect_say(out, "mmu.flush: the guest flushed: %s", scope);
}

static void print_exit(const struct debug_event *ev, const struct inspect_out *out)
{
    const char *reason = ev->arg[0] == EPT_EXIT_VIOLATION     ? "EPT violation"
                         : ev->arg[0] == EPT_EXIT_MISCONFIG   ? "EPT misconfiguration"
                         : ev->arg[0] == EPT_EXIT_APIC_ACCESS ? "APIC access"
                         : ev->arg[0] == EPT_EXIT_PML_FULL    ? "page-modification log full"
                                                              : "?";
    uint64_t q = ev->arg[0] == EPT_EXIT_VIOLATION ? ev->arg[1] : 0;
    inspect_say(out, "ept.exit: %s (reason %" PRIu64 "), gpa 0x%" PRIx64 ", gla 0x%" PRIx64, reason, ev->arg[0],
                ev->arg[2], ev->arg[3]);
    if (q)
        inspect_say(out, "  qualification 0x%" PRIx64 ":%s%s%s of %s; EPT entry gave%s%s%s%s", q,
                    q & EPT_Q_READ ? " read" : "", q & EPT_Q_WRITE ? " write" : "", q & EPT_Q_FETCH ? " fetch" : "",
                    !(q & EPT_Q_GLA_VALID)  ? "no linear address"
                    : q & EPT_Q_TRANSLATION ? "the translated address"
                                            : "a guest paging entry",
                    q & EPT_Q_ENTRY_R ? " read" : "", q & EPT_Q_ENTRY_W ? " write" : "",
                    q & EPT_Q_ENTRY_X ? " execute" : "",
                    q & (EPT_Q_ENTRY_R | EPT_Q_ENTRY_W | EPT_Q_ENTRY_X) ? "" : " nothing");
}

void debug_print_event(const struct debug *d, const struct debug_event *ev, const struct inspect_out *out)
{
    switch (ev->id) {
    case TRACE_MMU_FAULT:
        print_fault(ev, out);
        break;
    case TRACE_MMU_FILL:
        print_fill(d, ev, out);
        break;
    case TRACE_MMU_ZAP:
        print_zap(d, ev, out);
        break;
    case TRACE_MMU_TRACKED_WRITE:
        print_tracked_write(ev, out);
        break;
    case TRACE_MMU_FLUSH:
        print_flush(ev, out);
        break;
    case TRACE_EPT_EXIT:
        print_exit(ev, out);
        break;
    case TRACE_NOTIFIER_START:
    case TRACE_NOTIFIER_END:
        print_notifier(ev, out);
        break;
    default:
        print_generic(ev, out);
    }
}

/* ---- running ---- */

uint64_t debug_units_left(const struct debug *d)
{
    uint64_t icount = d->m->clock.icount;
    return d->stop_icount > icount ? d->stop_icount - icount : 1;
}

bool debug_wants_stop(const struct debug *d)
{
    return d->stop_wanted || d->m->clock.icount >= d->stop_icount || d->m->turn == d->stop_turn;
}

static void run_begin(struct debug *d, uint64_t steps, uint64_t events)
{
    uint64_t icount = d->m->clock.icount;
    d->stop_icount = steps && steps < UINT64_MAX - icount ? icount + steps : UINT64_MAX;
    d->wanted = events;
    d->event_count = d->event_next = 0;
    d->stop_wanted = false;
    d->stop = (struct debug_stop){.why = DEBUG_INTERRUPTED};
    d->eye.from = d->has_run ? icount : UINT64_MAX;
    d->eye.from_cpu = d->m->turn;
    d->has_run = true;
    eye_update(d);
    listen(d);
    d->running = true;
}

/* The run that run_begin() has prepared. */
static enum debug_why run(struct debug *d, struct debug_stop *stop)
{
    enum machine_exit end = machine_run(d->m);
    d->running = false;
    d->wanted = 0;
    listen(d);
    events_finish(d);
    if (end != MACHINE_STOPPED)
        d->stop = (struct debug_stop){.why = DEBUG_ENDED, .end = end};
    else if (!d->stop_wanted && (d->m->clock.icount >= d->stop_icount || d->m->turn == d->stop_turn))
        d->stop.why = DEBUG_STEPPED;
    if (d->stop.why == DEBUG_STEPPED || d->stop.why == DEBUG_INTERRUPTED || d->stop.why == DEBUG_ENDED)
        d->stop.cpu = d->m->turn;
    d->stop_icount = UINT64_MAX;
    d->stop_turn = UINT_MAX;
    d->stop_wanted = false;
    *stop = d->stop;
    return stop->why;
}

enum debug_why debug_run(struct debug *d, uint64_t steps, uint64_t events, struct debug_stop *stop)
{
    run_begin(d, steps, events);
    return run(d, stop);
}

enum debug_why debug_step_cpu(struct debug *d, unsigned cpu, struct debug_stop *stop)
{
    if (d->m->turn != cpu) {
        run_begin(d, 0, 0);
        d->stop_turn = cpu;
        if (run(d, stop) != DEBUG_STEPPED)
            return stop->why;
    }
    debug_run(d, 1, 0, stop);
    if (stop->why == DEBUG_STEPPED)
        stop->cpu = cpu;
    return stop->why;
}

/* ---- life ---- */

void debug_keep_child(struct debug *d, struct host_mm *child)
{
    if (d->child)
        host_mm_destroy(d->child);
    d->child = child;
}

struct debug *debug_attach(struct machine *m)
{
    struct debug *d = m->debug ? NULL : calloc(1, sizeof *d);
    if (!d)
        return NULL;
    d->m = m;
    d->next_id = 1;
    d->stop_icount = UINT64_MAX;
    d->stop_turn = UINT_MAX;
    d->eye = (struct vcpu_debug){
        .ctx = d, .is_break = is_break, .on_break = on_break, .on_access = on_access, .from = UINT64_MAX};
    d->watch.write = on_watched_write;
    d->watch.kind = TRACK_WATCH;
    track_register(m->mem, &d->watch);
    m->debug = d;
    return d;
}

void debug_detach(struct debug *d)
{
    if (!d)
        return;
    while (d->point_count)
        debug_remove(d, d->points[0].id);
    d->wanted = 0;
    eye_update(d);
    trace_listen(&d->m->trace, 0, NULL, NULL);
    track_unregister(d->m->mem, &d->watch);
    debug_keep_child(d, NULL);
    d->m->debug = NULL;
    free(d);
}
