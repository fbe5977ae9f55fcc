/*
 * What compiled code left to handlers, by instruction form: what to translate next.
 */
#include "cpu/jit/internal.h"

#include "core/alloc.h"

#include <inttypes.h>
#include <stdlib.h>

#define PRINTED 40

struct jit_form_count {
    uint64_t handler, tlb, jump;
};

void jit_counts_init(struct jit *j)
{
    j->forms = alloc_zeroed(optable_form_count, sizeof *j->forms);
}

void jit_counts_fini(struct jit *j)
{
    free(j->forms);
    j->forms = NULL;
}

/* Why: compiled code never does it; a jump, call or return whose target is not in the table, or its stack not in the
 * TLB; an access that missed the TLB or its segment. */
void jit_count_slow(struct jit *j, const struct jit_slow *s)
{
    struct jit_form_count *c = &j->forms[s->insn->form];
    j->stats.slow++;
    if (s->by_handler) {
        j->stats.slow_handler++;
        c->handler++;
    } else if (s->insn->flags & INSN_ENDS) {
        j->stats.slow_jump++;
        c->jump++;
    } else {
        j->stats.slow_tlb++;
        c->tlb++;
    }
}

static uint64_t total(const struct jit_form_count *c)
{
    return c->handler + c->tlb + c->jump;
}

/* The row with the most among those that come after `last` in the order of totals and rows; 0: none. */
static unsigned next_row(const struct jit *j, unsigned last)
{
    uint64_t most = 0, limit = last ? total(&j->forms[last]) : UINT64_MAX;
    unsigned found = 0;
    for (unsigned k = 1; k < optable_form_count; k++) {
        uint64_t n = total(&j->forms[k]);
        bool after = n < limit || (n == limit && k > last);
        if (after && n > most) {
            most = n;
            found = k;
        }
    }
    return found;
}

void jit_print_forms(const struct jit *j, FILE *out)
{
    unsigned row = 0;
    for (unsigned n = 0; j && n < PRINTED && (row = next_row(j, row)) != 0; n++) {
        const struct op_form *f = &optable_forms[row];
        const struct jit_form_count *c = &j->forms[row];
        fprintf(out, "jit.form %-12s %u:%02x %20" PRIu64 " by handler, %" PRIu64 " tlb, %" PRIu64 " jump\n",
                optable_op_names[f->op], f->key >> 8, f->key & 0xffu, c->handler, c->tlb, c->jump);
    }
}
