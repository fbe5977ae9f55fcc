#include "cpu/breakpoint.h"

#define DR_COUNT    4
#define BP_DEBUGGER 0x80 /* in bp_data: a debugger watches */

/* The R/W field of DR7. */
enum { DR7_EXEC, DR7_WRITE, DR7_IO, DR7_ACCESS };

static bool is_enabled(const struct vcpu *v, unsigned n)
{
    return v->dr[7] >> (2 * n) & 3;
}

static unsigned kind_of(const struct vcpu *v, unsigned n)
{
    return v->dr[7] >> (16 + 4 * n) & 3;
}

/* Bytes covered: the LEN field is 1, 2, 8, 4. */
static unsigned length_of(const struct vcpu *v, unsigned n)
{
    static const uint8_t bytes[4] = {1, 2, 8, 4};
    return bytes[v->dr[7] >> (18 + 4 * n) & 3];
}

void breakpoints_update(struct vcpu *v)
{
    v->bp_exec = v->bp_data = v->bp_io = 0;
    for (unsigned n = 0; n < DR_COUNT; n++) {
        uint8_t bit = (uint8_t)(is_enabled(v, n) << n);
        switch (kind_of(v, n)) {
        case DR7_EXEC:
            v->bp_exec |= bit;
            break;
        case DR7_IO: /* undefined without CR4.DE: never met */
            v->bp_io |= v->cr4 & CR4_DE ? bit : 0;
            break;
        default:
            v->bp_data |= bit;
            break;
        }
    }
    if (v->debug && v->debug->watches_data)
        v->bp_data |= BP_DEBUGGER;
    mmu_vcpu_set_data_bypass(v->mv, v->bp_data != 0);
}

uint64_t breakpoints_match_exec(const struct vcpu *v, uint64_t lin)
{
    uint64_t hit = 0;
    for (unsigned n = 0; n < DR_COUNT; n++)
        if (v->bp_exec >> n & 1 && v->dr[n] == lin)
            hit |= 1u << n;
    return hit;
}

/* Does [lin, lin + len) meet breakpoint n, whose address is aligned to its length? */
static bool meets(const struct vcpu *v, unsigned n, uint64_t lin, unsigned len)
{
    unsigned size = length_of(v, n);
    uint64_t start = v->dr[n] & ~(uint64_t)(size - 1);
    return lin - start < size || start - lin < len;
}

static void note(struct vcpu *v, uint64_t hit)
{
    if (!hit)
        return;
    v->pending_dbg |= hit;
    v->attn |= ATTN_BOUNDARY;
}

void breakpoints_note_data(struct vcpu *v, uint64_t lin, unsigned len, bool write)
{
    uint64_t hit = 0;
    if (v->bp_data & BP_DEBUGGER)
        v->debug->on_access(v->debug->ctx, lin, len, write);
    for (unsigned n = 0; n < DR_COUNT; n++)
        if (v->bp_data >> n & 1 && (write || kind_of(v, n) == DR7_ACCESS) && meets(v, n, lin, len))
            hit |= 1u << n;
    note(v, hit);
}

void breakpoints_note_io(struct vcpu *v, unsigned port, unsigned size)
{
    uint64_t hit = 0;
    for (unsigned n = 0; n < DR_COUNT; n++)
        if (v->bp_io >> n & 1 && meets(v, n, port, size))
            hit |= 1u << n;
    note(v, hit);
}
