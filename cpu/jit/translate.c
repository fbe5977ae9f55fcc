/*
 * From decoded blocks to a region of compiled code.
 *
 * A region is a hot block and the blocks of its page that it leads to by direct jumps and by falling through, as far as
 * they have been decoded. Each block can be entered from outside: from another page with its rip in r14, or from its
 * own page. At its head it takes its units from the budget, and leaves if they do not suffice.
 */
#include "core/alloc.h"
#include "cpu/jit/internal.h"

#include <limits.h>

/* ---- which blocks ---- */

void tr_successors(const struct block *b, int32_t next[2])
{
    const struct insn *last = &b->insn[b->n - 1];
    int64_t behind = (int64_t)(b->gpa & PAGE_MASK) + last->off + last->len;
    bool jumps = last->op == OP_JCC || last->op == OP_JMP;
    next[0] = next[1] = -1;
    if (!(last->flags & INSN_ENDS) || last->op == OP_JCC || tr_system_falls_through(last) || tr_goes_on_behind(last))
        next[0] = behind < (int64_t)PAGE_SIZE ? (int32_t)behind : -1;
    if (jumps && last->enc == ENC_D && tr_branch_is_native(b->mode, last)) {
        int64_t target = behind + (int64_t)last->imm;
        next[1] = target >= 0 && target < (int64_t)PAGE_SIZE ? (int32_t)target : -1;
    }
}

static int region_find(const struct tr *t, int32_t offset)
{
    for (unsigned k = 0; k < t->nblocks; k++)
        if ((int32_t)(t->blocks[k].b->gpa & PAGE_MASK) == offset)
            return (int)k;
    return -1;
}

/* Has the block all the code that it needs? The second time a loop's blocks come together, if need be once more. */
static bool is_done(const struct tr *t, const struct block *b)
{
    return jit_has_code(t->j, b) && (!t->final || (!b->profile && __builtin_popcount(b->regions) > 2));
}

static void region_collect(struct tr *t, struct block *root)
{
    unsigned insns = root->n;
    t->blocks[t->nblocks++].b = root;
    for (unsigned k = 0; k < t->nblocks; k++) {
        int32_t next[2];
        tr_successors(t->blocks[k].b, next);
        for (unsigned s = 0; s < 2; s++) {
            if (next[s] < 0 || region_find(t, next[s]) >= 0 || t->nblocks == REGION_BLOCKS)
                continue;
            struct block *b =
                code_cache_find(t->v->code, (root->gpa & ~PAGE_MASK) + (unsigned)next[s], BLOCK_NO_PAGE, root->mode);
            if (!b || is_done(t, b) || insns + b->n > REGION_INSNS)
                continue;
            insns += b->n;
            t->blocks[t->nblocks++].b = b;
        }
    }
}

/* What the region needs to find in the host's registers. */
static void find_uses(struct tr *t)
{
    for (unsigned k = 0; k < t->nblocks; k++) {
        t->b = t->blocks[k].b;
        for (unsigned n = 0; n < t->b->n; n++) {
            unsigned level = tr_is_vector(t, &t->b->insn[n]);
            if (level > t->uses_vec)
                t->uses_vec = level;
            if (tr_is_x87(t, &t->b->insn[n]))
                t->uses_x87 = true;
        }
    }
}

/* ---- heads and edges ---- */

static int32_t page_offset(const struct tr *t)
{
    return (int32_t)(t->b->gpa & PAGE_MASK);
}

static void head(struct tr *t, unsigned number)
{
    struct emit *e = &t->e;
    struct tr_block *tb = &t->blocks[number];
    t->b = tb->b;
    e8(e, 0x4d); /* lea r15, [r14 - offset]: 7 bytes */
    e8(e, 0x8d);
    e8(e, 0xbe);
    e32(e, (uint32_t)-page_offset(t));
    emit_store(e, H_R15, FRAME(page)); /* 5 bytes */
    tb->entry = e->p;
    if (t->uses_vec) {
        emit_rm(e, (struct how){.size = 4}, OPC(0x83), 7, op_frame(FRAME(vec)));
        e8(e, t->uses_vec);
        tr_jump_cold(t, emit_jcc(e, CC_C), COLD_NOVEC, number, 0);
        tb->vectors = e->p;
    }
    if (t->uses_x87) {
        emit_rm(e, (struct how){.size = 4}, OPC(0x83), 7, op_frame(FRAME(x87)));
        e8(e, 0);
        tr_jump_cold(t, emit_jcc(e, CC_Z), COLD_NOX87, number, 0);
    }
    tb->body = e->p;
    emit_op64(e, 0x83, 5, op_frame(FRAME(budget))); /* sub, of what trace_end() says */
    e8(e, 0);
    tr_jump_cold(t, emit_jcc(e, CC_S), COLD_BUDGET, number, 0);
    tr_profile_count_head(t, number);
    t->before = 0;
    t->flags = BASE_FRAME;
    t->overlay.kind = RECIPE_NONE;
    t->base_rec = t->overlay_rec = 0;
    t->note = NULL;
    t->partial = PARTIAL_NONE;
    t->image = t->known = false;
    t->host = false;
}

void tr_rip_at(struct tr *t, int32_t offset)
{
    emit_load(&t->e, H_R14, FRAME(page));
    emit_lea(&t->e, t->wide ? 8 : 4, H_R14, (struct maddr){H_R14, -1, 0, offset});
}

uint32_t tr_edge_lost(const struct tr *t, int64_t offset)
{
    int known = offset >= 0 && offset < (int64_t)PAGE_SIZE ? region_find(t, (int32_t)offset) : -1;
    return known >= 0 ? tr_lost_before_set(t->blocks[known].b) : ~0u;
}

bool tr_edge_if(struct tr *t, unsigned cc, int32_t offset)
{
    int known = region_find(t, offset);
    if (known < 0)
        return false;
    if (t->nfix == ARRAY_LEN(t->fix)) {
        t->e.full = true;
        return true;
    }
    t->blocks[known].wanted = true;
    t->fix[t->nfix].at = emit_jcc(&t->e, cc);
    t->fix[t->nfix++].block = (unsigned)known;
    return true;
}

/* On at an offset, by the jump table. */
static void look_up_at(struct tr *t, int32_t offset)
{
    struct tr_target to = {offset, false};
    tr_look_up_known(t, &to, 0);
    tr_jump_known(t, &to);
}

/* The instruction there may reach into the next page, of whose translation a slot knows nothing. */
static bool may_cross(int32_t offset)
{
    return offset > (int32_t)PAGE_SIZE - 15;
}

void tr_edge(struct tr *t, int32_t offset)
{
    struct emit *e = &t->e;
    int known = region_find(t, offset);
    if (known >= 0) {
        if (t->nfix < ARRAY_LEN(t->fix)) {
            t->blocks[known].wanted = true;
            t->fix[t->nfix].at = emit_jmp(e);
            t->fix[t->nfix++].block = (unsigned)known;
        } else {
            e->full = true;
        }
        return;
    }
    if (may_cross(offset)) {
        look_up_at(t, offset);
        return;
    }
    uint32_t slot = jit_data_alloc(&t->j->arena, sizeof(struct jit_slot));
    struct jit_slot *s = jit_data(&t->j->arena, slot);
    if (!slot) {
        e->full = true;
        return;
    }
    s->page = t->b->gpa >> PAGE_SHIFT;
    s->mode = t->b->mode;
    e8(e, 0xff); /* jmp [rip + slot] */
    e8(e, 0x25);
    e32(e, (uint32_t)(int32_t)((uint8_t *)s - (e->p + 4 + e->exec)));
    tr_jump_cold(t, NULL, COLD_UNLINKED, slot, offset);
}

void tr_go_behind(struct tr *t, const struct insn *i)
{
    int32_t behind = page_offset(t) + i->off + i->len;
    tr_x87_commit(t);
    if (tr_follow(t, behind))
        return;
    tr_commit(t);
    if (behind < (int32_t)PAGE_SIZE) {
        tr_edge(t, behind);
    } else {
        look_up_at(t, behind);
    }
}

/* ---- traces ---- */

/* The block at an offset from the page, if it is in the region. */
static const struct tr_block *block_at(const struct tr *t, int64_t offset)
{
    int known = offset >= 0 && offset < (int64_t)PAGE_SIZE ? region_find(t, (int32_t)offset) : -1;
    return known >= 0 ? &t->blocks[known] : NULL;
}

/* Is there room for so many units more in the trace, up to `most`? */
static bool has_room(const struct tr *t, unsigned units, unsigned most)
{
    return t->before + t->b->n + units <= most && t->nmarks + units <= REGION_EMITTED - REGION_INSNS &&
           t->nside < ARRAY_LEN(t->side) - 1;
}

/* The trace's head, if an offset is its and the loop is short enough for another turn. */
static struct block *another_turn(struct tr *t, const struct tr_block *tb)
{
    bool calls = t->k < t->b->n && t->b->insn[t->k].op == OP_CALL; /* a recursion is no loop */
    if (!t->final || calls || tb != &t->blocks[t->traces[t->ntraces].block])
        return NULL;
    unsigned turn = (t->before + t->b->n) / (t->turns + 1);
    return has_room(t, turn, UNROLL_UNITS) ? tb->b : NULL;
}

/* The block, if the trace can go on there: it is in no other, or is its head. */
static struct block *followable(struct tr *t, const struct tr_block *tb)
{
    if (!tb)
        return NULL;
    if (tb->in_trace || tb->entry || !has_room(t, tb->b->n, TRACE_UNITS))
        return another_turn(t, tb);
    return tb->b;
}

bool tr_follow(struct tr *t, int64_t offset)
{
    t->follow = followable(t, block_at(t, offset));
    return t->follow != NULL;
}

/* How often a block ran before it was compiled, 0 if it is in no region. */
static uint32_t runs_of(const struct tr_block *tb)
{
    return tb ? tb->b->heat + tb->b->ran : 0;
}

bool tr_follow_branch(struct tr *t, int64_t next, int64_t target, bool *taken)
{
    const struct tr_block *behind = block_at(t, next), *there = block_at(t, target);
    uint32_t ran_behind = runs_of(behind), ran_there = runs_of(there);
    bool back = target <= page_offset(t) + t->b->insn[t->k].off;
    *taken = back ? ran_there >= ran_behind : ran_there > ran_behind;
    t->follow = followable(t, *taken ? there : behind);
    if (t->follow)
        return true;
    uint32_t likely = *taken ? ran_there : ran_behind, other = *taken ? ran_behind : ran_there;
    if (likely > 2 * other && (*taken || behind)) /* a loop's end */
        return false;
    *taken = !*taken;
    t->follow = followable(t, *taken ? there : behind);
    return t->follow != NULL;
}

void tr_leave_trace(struct tr *t, uint8_t *at, const struct insn *branch, int64_t target)
{
    t->side[t->nside++] = (struct tr_side){at, branch, target, t->place};
}

void tr_add_position(struct tr *t, const struct insn *i)
{
    struct emit *e = &t->e;
    if (t->nclock == ARRAY_LEN(t->clock)) {
        e->full = true;
        return;
    }
    emit_op64(e, 0x81, 0, op_reg(H_R14)); /* add, less what trace_end() says */
    e32(e, t->before + i->idx);
    t->clock[t->nclock++] = e->p;
}

/* ---- cold code ---- */

/* lea r15, [rip + a place in the data arena] */
static void lea_data(struct tr *t, const uint8_t *data)
{
    struct emit *e = &t->e;
    e8(e, 0x4c);
    e8(e, 0x8d);
    e8(e, 0x3d);
    e32(e, (uint32_t)(int32_t)(data - (e->p + 4 + e->exec)));
}

/* The head takes no units; target: data offset of the profile that has run for long enough, or 0. */
static void cold_budget(struct tr *t, const struct tr_cold *c)
{
    struct emit *e = &t->e;
    t->b = t->blocks[c->n].b;
    emit_op64(e, 0x83, 0, op_frame(FRAME(budget)));
    e8(e, t->blocks[c->n].units);
    tr_rip_at(t, page_offset(t));
    if (c->kind == COLD_HOT)
        lea_data(t, (uint8_t *)jit_data(&t->j->arena, (uint32_t)c->target) + JIT_PROFILE_LINK);
    else
        emit_imm(e, H_R15, 0);
    emit_jmp_to(e, t->j->thunk_exit - e->exec);
}

/* lea reg, [rip + target], to be patched */
static uint8_t *lea_code(struct emit *e, unsigned reg)
{
    e8(e, 0x4c);
    e8(e, 0x8d);
    e8(e, 5 | (reg & 7) << 3);
    e32(e, 0);
    return e->p;
}

/* State is not in the host's registers: to the thunk that loads it, if that can be. */
static void cold_load(struct tr *t, const struct tr_cold *c)
{
    struct emit *e = &t->e;
    bool x87 = c->kind == COLD_NOX87;
    t->b = t->blocks[c->n].b;
    patch_jump(e, lea_code(e, H_R15), x87 ? t->blocks[c->n].body : t->blocks[c->n].vectors);
    uint8_t *fail = lea_code(e, H_R14);
    const struct jit *j = t->j;
    emit_jmp_to(e, (x87 ? j->thunk_x87 : t->uses_vec == VEC_YMM ? j->thunk_ymm : j->thunk_vec) - e->exec);
    patch_jump(e, fail, e->p);
    tr_rip_at(t, page_offset(t));
    emit_imm(e, H_R15, 0);
    emit_jmp_to(e, t->j->thunk_interp - e->exec);
}

static void cold_unlinked(struct tr *t, const struct tr_cold *c)
{
    struct emit *e = &t->e;
    struct jit_slot *s = jit_data(&t->j->arena, c->n);
    s->link.code = s->link.out = e->p + e->exec;
    tr_rip_at(t, c->target);
    lea_data(t, (uint8_t *)s);
    emit_jmp_to(e, t->j->thunk_exit - e->exec);
}

/* Not in the jump table; target: r14 is not the address any more, but the entry has it. */
static void cold_find(struct tr *t, const struct tr_cold *c)
{
    struct emit *e = &t->e;
    if (c->target)
        emit_maddr(e, 8, 0x8b, H_R14, (struct maddr){H_R15, -1, 0, 0});
    e8(e, 0x4c); /* lea r15, [rip + again] */
    e8(e, 0x8d);
    e8(e, 0x3d);
    e32(e, (uint32_t)(int32_t)(c->back - (e->p + 4)));
    emit_store(e, H_R15, FRAME(exit_link));
    e8(e, 0x41); /* mov r15d, record */
    e8(e, 0xbf);
    e32(e, c->n);
    emit_jmp_to(e, t->j->thunk_find - e->exec);
}

static void cold_stream(struct tr *t, const struct tr_cold *c)
{
    uint8_t *miss[2];
    tr_cold_stream(t, c->stream, c->size, miss);
    emit_jmp_to(&t->e, c->fetched);
    patch_jump(&t->e, miss[0], t->e.p);
    if (miss[1])
        patch_jump(&t->e, miss[1], t->e.p);
    tr_slow_now(t, c->n);
}

static void emit_cold(struct tr *t)
{
    for (unsigned k = 0; k < t->ncold && !t->e.full; k++) {
        const struct tr_cold *c = &t->cold[k];
        if (c->at)
            patch_jump(&t->e, c->at, t->e.p);
        if (c->also_at)
            patch_jump(&t->e, c->also_at, t->e.p);
        switch (c->kind) {
        case COLD_SLOW:
            tr_slow_now(t, c->n);
            break;
        case COLD_FIND:
            cold_find(t, c);
            break;
        case COLD_OTHER_ENTRY:
            tr_cold_other_entry(t, c);
            break;
        case COLD_NEAR:
            tr_cold_near(t, c);
            break;
        case COLD_STREAM:
            cold_stream(t, c);
            break;
        case COLD_BUDGET:
        case COLD_HOT:
            cold_budget(t, c);
            break;
        case COLD_NOVEC:
        case COLD_NOX87:
            cold_load(t, c);
            break;
        case COLD_UNLINKED:
            cold_unlinked(t, c);
            break;
        case COLD_PARTIAL: /* behind the handler, whose flags are the host's */
            tr_resume(t, c->n);
            tr_store_partial(t, (enum partial_kind)c->target);
            emit_jmp_to(&t->e, c->back);
            break;
        case COLD_MAKE_IMAGE:
            patch_jump(&t->e, lea_code(&t->e, H_R15), c->back);
            emit_jmp_to(&t->e, t->j->thunk_image - t->e.exec);
            break;
        case COLD_IMAGE:
            tr_cold_image(t, &c->overlay);
            emit_jmp_to(&t->e, c->back);
            break;
        }
    }
}

/* ---- bodies ---- */

static void insn(struct tr *t, const struct insn *i)
{
    /* What the CPU model does not offer is bound to something else. LOCK means nothing: vCPUs take turns. */
    if (i->flags & INSN_ENDS)
        tr_x87_commit(t);
    bool offered = i->fn == interp_bind(i, t->mode);
    if (offered && (tr_integer(t, i) || tr_stack(t, i) || tr_string(t, i) || tr_control(t, i) || tr_system(t, i) ||
                    tr_vector(t, i) || tr_x87(t, i)))
        return;
    tr_handler(t, i);
}

static void insn_marked(struct tr *t)
{
    const uint8_t *from = t->e.p;
    unsigned number = (unsigned)region_find(t, page_offset(t));
    t->operand = NULL;
    t->on_stack = false;
    tr_near_begin(t);
    insn(t, &t->b->insn[t->k]);
    t->e.r14_disp = 0;
    if (t->nmarks < ARRAY_LEN(t->marks))
        t->marks[t->nmarks++] = (struct tr_mark){from, t->e.p, (uint16_t)number, (uint16_t)t->k};
}

/* One block of a trace. */
static void body(struct tr *t)
{
    struct tr_block *tb = &t->blocks[region_find(t, page_offset(t))];
    if (tb->in_trace) { /* another turn */
        for (unsigned k = 0; k < t->nblocks; k++)
            t->blocks[k].in_trace = false;
        t->turns++;
    }
    tb->in_trace = true;
    t->steady = tb->steady;
    t->follow = NULL;
    tr_profile_block(t);
    tr_near_plan(t);
    for (t->k = 0; t->k < t->b->n && !t->e.full; t->k++)
        insn_marked(t);
    const struct insn *last = &t->b->insn[t->b->n - 1];
    if (!(last->flags & INSN_ENDS))
        tr_go_behind(t, last);
}

/* Loops go back to where a trace takes its units: that begins a line, as far as the page's head lets it. */
static void align(struct tr *t)
{
    while (t->final && !t->e.full && (uintptr_t)(t->e.p + JIT_FAR_LEN) % 32)
        e8(&t->e, 0xcc);
}

static void trace_begin(struct tr *t, unsigned number)
{
    t->trace = jit_data_alloc(&t->j->arena, sizeof(uint32_t));
    if (!t->trace)
        t->e.full = true;
    t->nside = t->nclock = t->turns = 0;
    for (unsigned k = 0; k < t->nblocks; k++)
        t->blocks[k].in_trace = false;
    t->traces[t->ntraces] = (struct tr_trace){.from = t->e.p, .block = number, .mark = t->nmarks};
}

/* The units of the trace are known. */
static void trace_end(struct tr *t, unsigned number)
{
    struct tr_block *tb = &t->blocks[number];
    uint32_t units = t->before + t->b->n;
    if (t->e.full)
        return;
    memcpy(jit_data(&t->j->arena, t->trace), &units, sizeof units);
    tb->units = tb->body[5] = (uint8_t)units; /* behind 48 83 6c 24 disp */
    for (unsigned k = 0; k < t->nclock; k++) {
        uint32_t x;
        memcpy(&x, t->clock[k] - 4, sizeof x);
        x -= units;
        memcpy(t->clock[k] - 4, &x, sizeof x);
    }
}

/* The ways out of the trace before its end. */
static void trace_sides(struct tr *t, unsigned units)
{
    for (unsigned k = 0; k < t->nside && !t->e.full; k++) {
        const struct tr_side *s = &t->side[k];
        t->place = s->place;
        patch_jump(&t->e, s->at, t->e.p);
        tr_commit_edge(t, tr_edge_lost(t, s->target));
        tr_profile_count_side(t);
        tr_go(t, s->branch, s->target, units - t->before - t->b->n);
    }
}

static void trace(struct tr *t, unsigned number)
{
    align(t);
    trace_begin(t, number);
    t->b = t->blocks[number].b;
    tr_profile_begin(t);
    head(t, number);
    for (body(t); t->follow && !t->e.full; body(t)) {
        t->before += t->b->n;
        t->b = t->follow;
    }
    trace_end(t, number);
    tr_profile_end(t);
    t->blocks[number].profile = t->profile;
    trace_sides(t, t->blocks[number].units);
    t->traces[t->ntraces++].to = t->e.p;
}

/* Each block that something jumps to begins a trace. */
static void traces(struct tr *t)
{
    t->blocks[0].wanted = true;
    for (unsigned k = 0; k < t->nblocks && !t->e.full; k++)
        if (t->blocks[k].wanted && !t->blocks[k].entry) {
            trace(t, k);
            k = UINT_MAX; /* from the first again */
        }
}

/* Code that was written through one mapping is about to be run through another: SDM volume 3, 8.1.3. Of the
 * instructions that serialise, CPUID leaves a virtual machine; IRET does not. The red zone is stepped over. */
static void serialise(void)
{
    uint64_t scratch;
    __asm__ volatile("sub $128, %%rsp\n\t"
                     "mov %%ss, %k0\n\t"
                     "push %0\n\t"
                     "lea 8(%%rsp), %0\n\t"
                     "push %0\n\t"
                     "pushfq\n\t"
                     "mov %%cs, %k0\n\t"
                     "push %0\n\t"
                     "lea 1f(%%rip), %0\n\t"
                     "push %0\n\t"
                     "iretq\n"
                     "1:\n\t"
                     "add $128, %%rsp"
                     : "=&r"(scratch)
                     :
                     : "memory", "cc");
}

static void install(struct tr *t, size_t size)
{
    struct jit *j = t->j;
    for (unsigned k = 0; k < t->nfix; k++)
        patch_jump(&t->e, t->fix[k].at, t->blocks[t->fix[k].block].body);
    uint32_t region = code_cache_region(t->v->code, t->blocks[0].b);
    for (unsigned k = 0; k < t->nblocks; k++) {
        t->blocks[k].b->regions |= region;
        struct block *b = t->blocks[k].b;
        if (!t->blocks[k].entry)
            continue;
        const void *old = jit_has_code(j, b) ? b->native : NULL;
        b->native = t->blocks[k].entry + t->e.exec;
        b->native_generation = j->generation;
        b->profile = t->blocks[k].profile;
        if (old)
            code_cache_renew(t->v->code, b, old);
    }
    serialise();
    j->arena.code_used += size;
    j->stats.regions++;
    j->stats.blocks += t->ntraces;
    j->stats.bytes += size;
}

struct tr *jit_translator_create(void)
{
    return alloc_zeroed(1, sizeof(struct tr));
}

static void tr_init(struct tr *t, struct jit *j, struct vcpu *v, const struct block *b)
{
    struct jit_arena *a = &j->arena;
    memset(t, 0, offsetof(struct tr, cold));
    a->code_used = (a->code_used + 15) & ~(size_t)15;
    t->j = j;
    t->v = v;
    t->mode = b->mode & 0xffff;
    t->wide = b->mode & MODE_CODE64;
    t->segment = SEG_NONE;
    t->e = (struct emit){.start = a->code_write + a->code_used,
                         .p = a->code_write + a->code_used,
                         .limit = a->code_write + a->code_size,
                         .exec = a->code - a->code_write};
}

bool jit_translate(struct jit *j, struct vcpu *v, struct block *b, bool final)
{
    struct tr *t = j->tr;
    tr_init(t, j, v, b);
    t->final = final;
    region_collect(t, b);
    tr_profile_apply(t);
    find_uses(t);
    tr_streams_plan(t);
    traces(t);
    t->cold_start = t->e.p;
    emit_cold(t);
    if (t->e.full)
        return false;
    install(t, (size_t)(t->e.p - t->e.start));
    jit_list_region(t);
    jit_perf_map_region(t);
    return true;
}
