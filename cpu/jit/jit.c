/*
 * The C side of the JIT: its life, entering compiled code, and what compiled code calls.
 */
#include "cpu/jit/jit.h"

#include "core/alloc.h"
#include "core/stats.h"
#include "cpu/interp/chain.h"
#include "cpu/jit/internal.h"
#include "cpu/run.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#define JIT_POISON (1ull << 62)

const int8_t jit_host_of[16] = {H_RAX, H_RCX, H_RDX, H_RBX, H_R13, H_RBP, H_RSI, H_RDI,
                                H_R8,  H_R9,  H_R10, H_R11, H_R12, -1,    -1,    -1};

struct jit *jit_create(const struct jit_config *cfg)
{
    size_t size = cfg->cache_bytes ? cfg->cache_bytes : JIT_CACHE_DEFAULT;
    struct jit *j = alloc_zeroed(1, sizeof *j);
    unsigned eax, ebx = 0, ecx, edx;
    j->log = cfg->log;
    j->perf_map = cfg->perf_map;
    j->symbol = cfg->symbol;
    j->symbol_ctx = cfg->symbol_ctx;
    j->heat = cfg->heat ? cfg->heat : JIT_HEAT_DEFAULT;
    j->generation = j->first_stamp = 1;
    j->tr = jit_translator_create();
    j->host_gates = jit_host_gates();
    jit_counts_init(j);
    j->has_rorx = __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && ebx & 1u << 8;
    if (jit_arena_init(&j->arena, size, size) || !jit_make_thunks(j)) {
        log_emit(cfg->log, LOG_JIT, "no memory for code: %s; the interpreter runs everything", strerror(errno));
        jit_destroy(j);
        return NULL;
    }
    jit_perf_map_thunks(j);
    return j;
}

void jit_destroy(struct jit *j)
{
    if (!j)
        return;
    jit_arena_fini(&j->arena);
    jit_counts_fini(j);
    free(j->tr);
    free(j);
}

void jit_register_stats(struct jit *j, struct stats *s)
{
    stats_add(s, "jit.regions", "regions", &j->stats.regions);
    stats_add(s, "jit.again", "regions", &j->stats.again);
    stats_add(s, "jit.blocks", "blocks", &j->stats.blocks);
    stats_add(s, "jit.bytes", "bytes", &j->stats.bytes);
    stats_add(s, "jit.entries", "entries", &j->stats.entries);
    stats_add(s, "jit.continued", "entries", &j->stats.continued);
    stats_add(s, "jit.found", "blocks", &j->stats.found);
    stats_add(s, "jit.renewed", "blocks", &j->stats.renewed);
    stats_add(s, "jit.links", "links", &j->stats.links);
    stats_add(s, "jit.slow", "instructions", &j->stats.slow);
    stats_add(s, "jit.slow_tlb", "instructions", &j->stats.slow_tlb);
    stats_add(s, "jit.slow_handler", "instructions", &j->stats.slow_handler);
    stats_add(s, "jit.slow_jump", "instructions", &j->stats.slow_jump);
    stats_add(s, "jit.collapsed", "times", &j->stats.collapsed);
    stats_add(s, "jit.streamed", "pages", &j->stats.streamed);
    stats_add(s, "jit.handled", "instructions", &j->stats.handled);
    stats_add(s, "jit.resets", "resets", &j->stats.resets);
}

/* Everything compiled is forgotten. No compiled code is running. */
static void jit_reset(struct jit *j, struct code_cache *c)
{
    code_cache_forget_links(c);
    j->arena.code_used = j->thunks_end;
    j->arena.data_used = j->data_start;
    j->generation++;
    j->link.slot = NULL;
    memset(j->jumps, 0, sizeof j->jumps);
    j->stats.resets++;
}

/* ---- what makes a jump-table entry valid ---- */

static bool is_same(const struct jit_context *a, const struct jit_context *b)
{
    return a->stamp && a->epoch == b->epoch && a->generation == b->generation && a->base == b->base &&
           a->limit == b->limit && a->mode == b->mode && a->index == b->index;
}

/* The circumstances do not come back: their table of fetches is called otherwise now, or the code cache, and no name is
 * given twice. */
static bool is_past(const struct jit_context *a, const struct jit_context *want)
{
    return (a->fetches == want->fetches && a->epoch != want->epoch) || a->generation != want->generation;
}

/* Among the last few circumstances, and then the one of them that is wanted; else one that is past, or was left first.
 */
static unsigned context_find(const struct jit *j, const struct jit_context *want)
{
    unsigned oldest = 0;
    bool past = false;
    for (unsigned k = 0; k < JIT_STAMPS; k++) {
        const struct jit_context *c = &j->context[k];
        if (is_same(c, want))
            return k;
        if (!past && (is_past(c, want) || c->left < j->context[oldest].left))
            oldest = k;
        past = past || is_past(c, want);
    }
    return oldest;
}

static uint64_t context_stamp(struct jit *j, const struct vcpu *v, uint32_t mode)
{
    struct jit_context want = {.epoch = v->mv->fetch_epoch,
                               .fetches = v->mv->cur_fetch,
                               .generation = *v->code_generation,
                               .base = v->seg_base[SEG_CS],
                               .limit = v->mode & (MODE_CODE64 | MODE_FLAT) ? 0 : v->seg[SEG_CS].limit,
                               .mode = mode,
                               .index = v->index};
    struct jit_context *now = &j->context[j->context_now];
    if (likely(is_same(now, &want)))
        return now->stamp;
    now->left = ++j->contexts_left;
    j->context_now = context_find(j, &want);
    now = &j->context[j->context_now];
    if (is_same(now, &want))
        return now->stamp;
    want.stamp = ++j->last_stamp;
    if (want.generation != j->first_generation) {
        j->first_generation = want.generation;
        j->first_stamp = want.stamp;
    }
    *now = want;
    return want.stamp;
}

/* The same circumstances have the same stamp again, as long as they are among the last few. Never 0. */
uint64_t jit_stamp(struct jit *j, struct vcpu *v)
{
    uint64_t epoch = v->mv->fetch_epoch, generation = *v->code_generation;
    uint32_t mode = v->mode, as = v->mv->regs.as;
    struct jit_known *known = &v->jit_known[(mode & MODE_USER) != 0][epoch % JIT_KNOWN];
    if (!(mode & MODE_CODE64))
        return context_stamp(j, v, mode | as << 16);
    if (known->epoch != epoch || known->generation != generation || known->mode != mode || known->as != as) {
        uint64_t stamp = context_stamp(j, v, mode | as << 16);
        *known = (struct jit_known){.epoch = epoch, .generation = generation, .stamp = stamp, .mode = mode, .as = as};
    }
    return known->stamp;
}

/* Of 64-bit code in one page: what its entry in the jump table says of it. */
static uint64_t jump_key(gpa_t gpa, const struct vcpu *v)
{
    return v->mode & MODE_CODE64 ? gpa >> PAGE_SHIFT << 24 | (uint64_t)v->mv->regs.as << 16 | v->mode : 0;
}

/* b, compiled, is at v->rip. */
static void jump_note(struct jit *j, const struct vcpu *v, struct block *b, uint64_t stamp)
{
    if (!vcpu_holds_block(v, b))
        return;
    struct jit_jump *e = &j->jumps[jit_jump_index(v->rip)];
    e->rip = v->rip;
    e->stamp = stamp;
    e->code = (const uint8_t *)b->native - JIT_FAR_LEN;
    e->key = b->page2 == BLOCK_NO_PAGE ? jump_key(b->gpa, v) : 0;
    block_note(b, BLOCK_TABLE_NATIVE, &e->stamp);
}

/* The entry for rip is of another stamp, but no code was dropped since, and the address leads to the same code again.
 */
static bool jump_renew(struct jit *j, struct vcpu *v, struct jit_frame *f, uint64_t rip)
{
    struct jit_jump *e = &j->jumps[jit_jump_index(rip)];
    if (e->rip != rip || !e->key || e->stamp < j->first_stamp || *v->code_generation != j->first_generation)
        return false;
    const struct tlb_fetch_entry *fetch = mmu_known_fetch(v->mv, rip);
    if (!fetch || e->key != jump_key(fetch->gpa, v))
        return false;
    e->stamp = f->stamp = jit_stamp(j, v); /* the look-up may have taken another page's entry */
    return true;
}

/* ---- entering and leaving ---- */

/* Can jumps inside the page that b lies in neither wrap nor meet the end of the code segment? */
static bool is_page_whole(const struct vcpu *v, const struct block *b)
{
    if (v->mode & MODE_CODE64 || likely((v->mode & (MODE_FLAT | MODE_CODE32)) == (MODE_FLAT | MODE_CODE32)))
        return true;
    if (b->page2 != BLOCK_NO_PAGE)
        return false;
    uint64_t page = v->rip - (b->gpa & PAGE_MASK), limit = v->seg[SEG_CS].limit;
    if (!(v->mode & MODE_CODE32) && limit > 0xffff)
        limit = 0xffff;
    return page <= limit && limit - page >= PAGE_MASK;
}

bool jit_warm(struct jit *j, struct vcpu *v, struct block *b)
{
    unsigned cool = j->heat > 2 ? b->cool : 0;
    if (jit_has_code(j, b) || ++b->heat < j->heat << cool)
        return false;
    if (!is_page_whole(v, b)) {
        b->heat = 0;
        return false;
    }
    b->ran += b->heat;
    b->heat = 0;
    if (jit_translate(j, v, b, false))
        return true;
    jit_reset(j, v->code);
    if (jit_translate(j, v, b, false))
        return true;
    j->stats.refused++;
    return false;
}

static struct jit_frame frame_make(struct jit *j, struct vcpu *v, const struct block *b, uint64_t end)
{
    return (struct jit_frame){.budget = (int64_t)(end - clock_now(v->clock)),
                              .page = v->rip - (b->gpa & PAGE_MASK),
                              .tlb = (uint64_t)(uintptr_t)v->mv->cur_data,
                              .jumps = (uint64_t)(uintptr_t)j->jumps,
                              .stamp = jit_stamp(j, v),
                              .v = v,
                              .end = end,
                              .exit_kind = JIT_EXIT_DONE,
                              .jit = j,
                              .data_epoch = v->mv->data_epoch};
}

/* The edge by which compiled code was left last led to this block, and nothing has changed since: it gets a direct way.
 */
static void link_follow(struct jit *j, struct vcpu *v, struct block *b)
{
    struct jit_slot *slot = j->link.slot;
    if (slot && j->link.rip == v->rip && b->page2 == BLOCK_NO_PAGE && slot->page == b->gpa >> PAGE_SHIFT &&
        slot->mode == b->mode && j->link.generation == *v->code_generation) {
        slot->link.code = b->native;
        code_cache_link(v->code, b, &slot->link);
        j->stats.links++;
    }
    j->link.slot = NULL;
}

/* The head of a trace, where v is, has run for long enough to know its ways: it is compiled for good. The code from
 * before stays: others may still run it. */
static void compile_again(struct jit *j, struct vcpu *v, struct jit_profile *p)
{
    struct block *b = code_cache_find(v->code, p->page + p->head, BLOCK_NO_PAGE, p->mode);
    p->more = INT32_MAX;
    if (!b || !jit_has_code(j, b) || !b->profile || !is_page_whole(v, b))
        return;
    if (jit_translate(j, v, b, true)) {
        j->stats.again++;
        return;
    }
    b->profile = 0;
    if (jit_arena_is_full(&j->arena))
        jit_reset(j, v->code);
}

static void after_edge(struct jit *j, struct vcpu *v, struct jit_frame *f)
{
    uint64_t left = (uint64_t)f->budget + f->bias;
    v->rip = f->exit_rip;
    v->exit_slot = 2;
    v->clock->icount = f->end - left - v->clock->extra;
    jit_flags_to_vcpu(v, f, 0, 0, false);
    if (f->x87)
        jit_x87_to_vcpu(v, f);
    jit_x87_notes(v, f, NULL);
    if (f->exit_link & JIT_PROFILE_LINK) {
        j->link.slot = NULL;
        compile_again(j, v, (struct jit_profile *)(uintptr_t)(f->exit_link - JIT_PROFILE_LINK));
        return;
    }
    j->link.slot = (struct jit_slot *)(uintptr_t)f->exit_link;
    j->link.rip = v->rip;
    j->link.generation = *v->code_generation;
}

bool jit_run(struct jit *j, struct vcpu *v, struct block *b, uint64_t end)
{
    if (!jit_has_code(j, b) || unlikely(!is_page_whole(v, b)))
        return false;
    struct jit_frame f = frame_make(j, v, b, end);
    f.owner = &f;
    jit_flags_from_vcpu(v, &f);
    link_follow(j, v, b);
    jump_note(j, v, b, f.stamp);
    j->last[j->stats.entries++ % JIT_LAST] = (struct jit_entered){v->rip, b->gpa, b->mode};
    int64_t before = f.budget;
    v->synced = 0;
    chain_close(v);
    j->enter(v, &f, b->native);
    if (f.exit_kind == JIT_EXIT_DONE)
        return true;
    after_edge(j, v, &f);
    return (int64_t)((uint64_t)f.budget + f.bias) != before; /* the units left may be too few for a whole trace */
}

static void print_block(const struct block *b, uint64_t rip, FILE *out)
{
    char text[96];
    for (unsigned k = 0; k < b->n; k++)
        fprintf(out, "jit:   0x%" PRIx64 ": %s\n", rip + b->insn[k].off,
                insn_print(&b->insn[k], rip + b->insn[k].off, text, sizeof text));
}

void jit_print_last(const struct jit *j, const struct code_cache *c, FILE *out)
{
    uint64_t n = !j ? 0 : j->stats.entries < JIT_LAST ? j->stats.entries : JIT_LAST;
    for (uint64_t k = n; k > 0; k--) {
        const struct jit_entered *e = &j->last[(j->stats.entries - k) % JIT_LAST];
        const struct block *b = code_cache_find(c, e->gpa, BLOCK_NO_PAGE, e->mode);
        fprintf(out, "jit: entered at 0x%" PRIx64 ", gpa 0x%" PRIx64 ", mode 0x%x%s\n", e->rip, e->gpa, e->mode,
                b ? "" : " (dropped since)");
        if (b)
            print_block(b, e->rip, out);
    }
}

/* ---- one instruction by its handler ---- */

/* The handler of what follows an instruction done by itself: it has not ended the block. */
static void op_resume(struct vcpu *v, const struct insn *i)
{
    v->jit_resumed = true;
}

void jit_frame_data(struct vcpu *v, struct jit_frame *f)
{
    uint64_t tlb = (uint64_t)(uintptr_t)v->mv->cur_data;
    if (f->tlb == tlb && f->data_epoch == v->mv->data_epoch)
        return;
    f->tlb = tlb;
    f->data_epoch = v->mv->data_epoch;
    memset(f->near, 0, sizeof f->near);
    memset(f->stream_room, 0, sizeof f->stream_room);
}

static const void *leave(struct jit_frame *f)
{
    f->exit_kind = JIT_EXIT_DONE;
    return NULL;
}

/*
 * v is exact at a boundary: on into the compiled code of the block there, as jit_run() would, unless something asks for
 * the run loop. Vectors and x87 state are in v: who wants them in the host's registers loads them.
 */
static const void *go_on(struct vcpu *v, struct jit_frame *f)
{
    struct jit *j = f->jit;
    uint64_t now = clock_now(v->clock);
    if (vcpu_wants_boundary(v) || now >= f->end)
        return leave(f);
    struct block *b = vcpu_known_block(v);
    if (!b || !jit_has_code(j, b) || unlikely(!is_page_whole(v, b)))
        return leave(f);
    f->budget = (int64_t)(f->end - now);
    f->bias = 0;
    f->page = v->rip - (b->gpa & PAGE_MASK);
    jit_frame_data(v, f);
    f->stamp = jit_stamp(j, v);
    f->vec = VEC_NONE;
    f->x87 = 0;
    jit_flags_from_vcpu(v, f);
    jump_note(j, v, b, f->stamp);
    j->stats.continued++;
    return b->native;
}

/* The frame after a handler: what it may have changed. */
static void frame_refresh(struct vcpu *v, struct jit_frame *f)
{
    uint64_t stamp = jit_stamp(f->jit, v);
    if (f->x87)
        jit_x87_from_vcpu(v, f);
    jit_frame_data(v, f);
    jit_flags_from_vcpu(v, f);
    if (stamp != f->stamp && !f->bias) {
        f->bias = JIT_POISON;
        f->budget -= (int64_t)JIT_POISON;
    }
    f->stamp = stamp;
}

/* Units that the head of the trace took for s's block and what follows it. */
static uint64_t units_taken(const struct jit_frame *f, const struct jit_slow *s)
{
    const uint32_t *units = jit_data(&f->jit->arena, s->trace);
    return *units - s->before;
}

/* Position at the head of s's block, all surcharges since then included. */
static void clock_at_head(struct vcpu *v, const struct jit_frame *f, const struct jit_slow *s)
{
    v->clock->icount = f->end - ((uint64_t)f->budget + f->bias) - units_taken(f, s) - v->clock->extra;
    v->synced = 0;
}

/* Compiled code cannot go on behind the instruction: attention is wanted, the units are used up by surcharges, or
 * vectors may not be used as they are any more. */
static bool must_leave(const struct vcpu *v, const struct jit_frame *f)
{
    return v->attn || (int64_t)((uint64_t)f->budget + f->bias) < 0 ||
           (f->vec && (v->cr0 & (CR0_TS | CR0_EM) || ~v->mxcsr & 0x1f80)) ||
           (f->vec == VEC_YMM && (!(v->cr4 & CR4_OSXSAVE) || ~v->xcr0 & 6)) || (f->x87 && !jit_x87_usable(v));
}

bool jit_find(struct vcpu *v, struct jit_frame *f)
{
    struct jit *j = f->jit;
    if (!f->bias && jump_renew(j, v, f, f->exit_rip)) {
        j->stats.renewed++;
        jit_frame_data(v, f);
        return true;
    }
    v->rip = f->exit_rip;
    struct block *b = f->bias ? NULL : vcpu_known_block(v);
    jit_frame_data(v, f);
    if (!b || !jit_has_code(j, b) || unlikely(!is_page_whole(v, b)))
        return false;
    f->stamp = jit_stamp(j, v);
    jump_note(j, v, b, f->stamp);
    j->stats.found++;
    return vcpu_holds_block(v, b);
}

/* A repeated string instruction ended the block, and all of it is done. */
static bool is_behind(const struct vcpu *v, const struct jit_slow *s)
{
    return s->at_end && v->rip == insn_next_rip(v, s->insn);
}

/* v is exact at the boundary. Compiled code may go on there if nothing wants a look at events before. */
static const void *resume_behind(struct vcpu *v, struct jit_frame *f, const struct jit_slow *s)
{
    uint64_t rest = units_taken(f, s) - s->block->n; /* of the trace */
    f->budget = (int64_t)(f->end - clock_now(v->clock) - f->bias - rest);
    if (must_leave(v, f))
        return go_on(v, f);
    frame_refresh(v, f);
    return s->resume;
}

const void *jit_slow_path(struct vcpu *v, struct jit_frame *f, uint32_t rec)
{
    const struct jit_slow *s = jit_data(&f->jit->arena, rec);
    const struct block *b = s->block;
    uint64_t extra = v->clock->extra;
    struct insn *step = v->step;
    jit_flags_to_vcpu(v, f, s->recipe, s->overlay, s->recipe_fresh);
    jit_flags_partial(v, f, s->partial);
    if (s->flags_only) {
        f->jit->stats.collapsed++;
        jit_flags_from_vcpu(v, f);
        return s->resume;
    }
    memset(f->near, 0, sizeof f->near); /* i may be what would have set one */
    if (f->x87)
        jit_x87_to_vcpu(v, f);
    jit_x87_notes(v, f, s);
    clock_at_head(v, f, s);
    v->gpr[REG_IP] = f->page + (b->gpa & PAGE_MASK);
    v->block = b;
    v->rep_budget = (uint64_t)f->budget + f->bias + units_taken(f, s) - b->n + 1;
    jit_count_slow(f->jit, s);
    step[0] = *s->insn;
    step[1].fn = op_resume;
    v->jit_resumed = false;
    const struct jit_recipe *after = s->after ? jit_data(&f->jit->arena, s->after) : NULL;
    uint64_t before = after ? v->gpr[after->a & 15] : 0;
    step[0].fn(v, step);
    if (!v->jit_resumed)
        return is_behind(v, s) ? resume_behind(v, f, s) : go_on(v, f);
    f->budget -= (int64_t)(v->clock->extra - extra);
    if (must_leave(v, f)) {
        clock_at_head(v, f, s);
        block_end(v, s->insn, insn_next_rip(v, s->insn), 2);
        return leave(f);
    }
    if (after)
        jit_operand_after(v, f, after, before);
    frame_refresh(v, f);
    return s->resume;
}
