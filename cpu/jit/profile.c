/*
 * What compiled code counts, so that it can be compiled better: how often the head of each trace runs, and where traces
 * are left before their end.
 */
#include "cpu/jit/internal.h"

/* ---- the code that counts ---- */

static struct jit_profile *profile(const struct tr *t)
{
    return jit_data(&t->j->arena, t->profile);
}

void tr_profile_begin(struct tr *t)
{
    t->profile = 0;
    if (t->final)
        return;
    t->profile = jit_data_alloc(&t->j->arena, sizeof(struct jit_profile));
    if (!t->profile) {
        t->e.full = true;
        return;
    }
    *profile(t) = (struct jit_profile){.more = (int32_t)(t->j->heat * JIT_PROFILE_HEATS),
                                       .head = (uint32_t)(t->b->gpa & PAGE_MASK),
                                       .mode = t->b->mode,
                                       .page = t->b->gpa & ~PAGE_MASK};
}

void tr_profile_block(struct tr *t)
{
    struct jit_profile *p = profile(t);
    if (t->profile && p->n < ARRAY_LEN(t->path))
        t->path[p->n++] = (uint32_t)(t->b->gpa & PAGE_MASK);
}

void tr_profile_end(struct tr *t)
{
    struct jit_profile *p = profile(t);
    if (!t->profile)
        return;
    p->left = jit_data_alloc(&t->j->arena, p->n * sizeof(struct jit_left));
    struct jit_left *left = jit_data(&t->j->arena, p->left);
    if (!p->left) {
        t->e.full = true;
        return;
    }
    for (unsigned k = 0; k < p->n; k++)
        left[k].offset = t->path[k];
}

/* op dword [rip + data], 1 */
static void emit_count(struct tr *t, unsigned digit, const void *data)
{
    struct emit *e = &t->e;
    e8(e, 0x83);
    e8(e, digit << 3 | 5);
    e32(e, (uint32_t)(int32_t)((const uint8_t *)data - (e->p + 5 + e->exec)));
    e8(e, 1);
}

void tr_profile_count_head(struct tr *t, unsigned number)
{
    if (!t->profile)
        return;
    emit_count(t, 5, &profile(t)->more); /* sub */
    tr_jump_cold(t, emit_jcc(&t->e, CC_S), COLD_HOT, number, (int32_t)t->profile);
}

void tr_profile_count_side(struct tr *t)
{
    const struct jit_profile *p = profile(t);
    if (!t->profile || !p->left)
        return;
    struct jit_left *left = jit_data(&t->j->arena, p->left);
    for (unsigned k = 0; k < p->n; k++)
        if (left[k].offset == (t->b->gpa & PAGE_MASK)) {
            emit_count(t, 0, &left[k].times); /* add */
            return;
        }
}

/* ---- what it has counted ---- */

static struct block *block_of(const struct tr *t, const struct jit_profile *p, const struct jit_left *l)
{
    return code_cache_find(t->v->code, p->page + l->offset, BLOCK_NO_PAGE, p->mode);
}

/* The blocks of a trace ran as often as its head, less what left before. */
static void apply_trace(struct tr *t, const struct jit_profile *p, bool clear)
{
    int32_t all = (int32_t)(t->j->heat * JIT_PROFILE_HEATS);
    uint32_t runs = (uint32_t)(p->more < 0 || p->more > all ? all : all - p->more);
    const struct jit_left *left = jit_data(&t->j->arena, p->left);
    for (unsigned k = 0; k < p->n; k++) {
        struct block *b = block_of(t, p, &left[k]);
        if (b)
            b->ran = clear ? 0 : b->ran + runs;
        runs -= left[k].times < runs ? left[k].times : runs;
    }
}

void tr_profile_apply(struct tr *t)
{
    for (unsigned pass = 0; t->final && pass < 2; pass++)
        for (unsigned k = 0; k < t->nblocks; k++) {
            const struct block *b = t->blocks[k].b;
            if (jit_has_code(t->j, b) && b->profile)
                apply_trace(t, jit_data(&t->j->arena, b->profile), pass == 0);
        }
}
