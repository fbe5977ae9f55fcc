/*
 * Guest memory beyond the TLB: misses, page crossings, devices, tracked writes, faults.
 *
 * An access is translated completely, part by page, before the first byte moves; so a fault leaves no trace. Parts that
 * have a host address are copied; the rest goes through mem_access(), by which devices and write tracking see it.
 */
#include "cpu/breakpoint.h"
#include "cpu/interp/interp.h"
#include "cpu/optable.h"
#include "cpu/system.h"

#define MAX_PARTS 4
#define MAX_LEN   ((MAX_PARTS - 1) * PAGE_SIZE)

struct part {
    void *host;
    gpa_t gpa;
    unsigned len;
};

struct access_parts {
    struct part part[MAX_PARTS];
    unsigned n;
};

/* ---- faults ---- */

/* Do this instruction's own pushes and pops go through SS? (Its memory operand, if it has one, is told apart by
 * address.) */
static bool op_uses_stack(unsigned op)
{
    switch (op) {
    case OP_PUSH:
    case OP_POP:
    case OP_PUSHA:
    case OP_POPA:
    case OP_PUSHF:
    case OP_POPF:
    case OP_ENTER:
    case OP_LEAVE:
    case OP_PUSH_SREG:
    case OP_POP_SREG:
    case OP_CALL:
    case OP_RET:
    case OP_CALLF:
    case OP_RETF:
    case OP_IRET:
    case OP_INT:
    case OP_INT3:
    case OP_INTO:
    case OP_INT1:
        return true;
    default:
        return false;
    }
}

/* Non-canonical addresses are #SS(0) where the access goes through SS, else #GP(0). Accesses at a boundary, when an
 * event's frame is pushed, have no instruction. */
static bool is_stack_access(const struct vcpu *v, const struct insn *i, uint64_t lin)
{
    if (!i)
        return true;
    bool has_mem =
        i->enc != ENC_ZO && i->enc != ENC_I && i->enc != ENC_D && i->enc != ENC_II && !(i->flags & INSN_RM_REG);
    if (op_uses_stack(i->op) && !(has_mem && insn_offset(v, i) + v->seg_base[i->seg] == lin))
        return true;
    return i->flags & INSN_STACKSEG;
}

static void check_canonical(struct vcpu *v, const struct insn *i, uint64_t lin, unsigned len, unsigned access)
{
    if (addr_is_canonical(v, lin) && addr_is_canonical(v, lin + len - 1))
        return;
    bool stack = !(access & ACCESS_IMPLICIT) && is_stack_access(v, i, lin);
    vcpu_raise_error(v, i, stack ? EXC_SS : EXC_GP, 0);
}

/* What alignment checking wants of an access of `len` bytes (SDM volume 3, table 7-7): its size; of FXSAVE's kind
 * nothing, they have #GP rules of their own. */
static unsigned alignment_of(unsigned len)
{
    if (len == 10) /* m80 */
        return 8;
    if (len == 14 || len == 94) /* FSAVE's and FSTENV's 16-bit formats, and the 32-bit ones */
        return 2;
    if (len == 28 || len == 108)
        return 4;
    if (len == 32) /* YMM */
        return 16;
    return len <= 16 && !(len & (len - 1)) ? len : 1;
}

/* #AC comes before page faults: alignment is the linear address's. Implicit supervisor accesses are exempt. */
static void check_alignment(struct vcpu *v, const struct insn *i, uint64_t lin, unsigned len, unsigned access)
{
    if (likely(!(v->rflags & FLAG_AC) || v->cpl != 3 || !(v->cr0 & CR0_AM)) || !i || access & ACCESS_IMPLICIT)
        return;
    if (lin & (alignment_of(len) - 1))
        vcpu_raise_error(v, i, EXC_AC, 0);
}

/* ---- translation ---- */

static void translate_part(struct vcpu *v, const struct insn *i, uint64_t lin, unsigned access, struct part *p)
{
    struct xlate x;
    if (mmu_translate(v->mv, lin, access, &x) == XLATE_FAULT)
        vcpu_raise_pf(v, i, lin, x.error);
    p->host = x.host;
    p->gpa = x.gpa;
}

/* An A or D bit that is set in a page of code may change the block that is running: it ends then, as after a store. */
static void translate(struct vcpu *v, const struct insn *i, uint64_t lin, unsigned len, unsigned access,
                      struct access_parts *a)
{
    bool wide = v->mode & MODE_LONG;
    uint64_t seen = track_write_count(v->mem);
    v->stats.mem_slow++;
    if (i)
        v->rip = insn_rip(v, i); /* who asks, for reports of the MMU */
    if (wide)
        check_canonical(v, i, lin, len, access);
    check_alignment(v, i, lin, len, access);
    a->n = 0;
    while (len) {
        uint64_t at = wide ? lin : (uint32_t)lin;
        struct part *p = &a->part[a->n++];
        unsigned room = (unsigned)(PAGE_SIZE - (at & PAGE_MASK));
        p->len = len < room ? len : room;
        translate_part(v, i, at, access, p);
        lin += p->len;
        len -= p->len;
    }
    if (unlikely(track_write_count(v->mem) != seen))
        v->attn |= ATTN_BOUNDARY;
}

/* ---- moving ---- */

/* The part has no host address: a device, or memory whose writes someone must see. */
static void move_emulated(struct vcpu *v, const struct insn *i, const struct part *p, void *buf, bool write)
{
    unsigned as = v->mv->regs.as;
    bool device = mem_is_device(v->mem, as, p->gpa, write);
    uint64_t seen = track_write_count(v->mem);
    if (device && i)
        vcpu_sync(v, i);
    mem_access(v->mem, as, p->gpa, buf, p->len, MEM_GUEST, write, (int)v->index);
    if (device)
        clock_charge(v->clock, CLOCK_SURCHARGE_MMIO);
    if (device || track_write_count(v->mem) != seen)
        v->attn |= ATTN_BOUNDARY;
}

/* A write of several parts takes no host address at its word: translating a later part may have made an earlier one's
 * page a page table (or code) that is tracked now. */
static void move_parts(struct vcpu *v, const struct insn *i, const struct access_parts *a, uint8_t *buf, bool write)
{
    for (unsigned k = 0; k < a->n; k++) {
        const struct part *p = &a->part[k];
        if (!p->host || (write && a->n > 1))
            move_emulated(v, i, p, buf, write);
        else if (write)
            memcpy(p->host, buf, p->len);
        else
            memcpy(buf, p->host, p->len);
        buf += p->len;
    }
}

static void access_bytes(struct vcpu *v, const struct insn *i, uint64_t lin, void *buf, unsigned len, unsigned access)
{
    struct access_parts a;
    translate(v, i, lin, len, access, &a);
    move_parts(v, i, &a, buf, access & ACCESS_WRITE);
    breakpoints_check_data(v, lin, len, access & ACCESS_WRITE);
}

/* ---- the interface (interp.h) ---- */

uint64_t lin_load_slow(struct vcpu *v, const struct insn *i, uint64_t lin, unsigned size)
{
    uint64_t value = 0;
    access_bytes(v, i, lin, &value, size, ACCESS_READ);
    return value;
}

void lin_store_slow(struct vcpu *v, const struct insn *i, uint64_t lin, uint64_t value, unsigned size)
{
    access_bytes(v, i, lin, &value, size, ACCESS_WRITE);
}

/* Translates a range of any length, for its faults and its A and D bits. */
static void check_range(struct vcpu *v, const struct insn *i, uint64_t lin, unsigned len, unsigned access)
{
    struct access_parts a;
    while (len) {
        unsigned n = len < MAX_LEN ? len : (unsigned)MAX_LEN;
        translate(v, i, lin, n, access, &a);
        lin += n;
        len -= n;
    }
}

/* As access_bytes(), any length: what does not fit one access_parts is checked whole, then moved piece by piece. */
static void access_range(struct vcpu *v, const struct insn *i, uint64_t lin, uint8_t *buf, unsigned len,
                         unsigned access)
{
    if (len > MAX_LEN)
        check_range(v, i, lin, len, access);
    while (len) {
        unsigned n = len < MAX_LEN ? len : (unsigned)MAX_LEN;
        access_bytes(v, i, lin, buf, n, access);
        lin += n;
        buf += n;
        len -= n;
    }
}

void lin_read_bytes(struct vcpu *v, const struct insn *i, uint64_t lin, void *buf, unsigned len)
{
    const void *p = len <= PAGE_SIZE ? tlb_lookup_read(v->mv, lin, len) : NULL;
    if (p)
        memcpy(buf, p, len);
    else
        access_range(v, i, lin, buf, len, ACCESS_READ);
}

void lin_write_bytes(struct vcpu *v, const struct insn *i, uint64_t lin, const void *buf, unsigned len)
{
    void *p = len <= PAGE_SIZE ? tlb_lookup_write(v->mv, lin, len) : NULL;
    if (p)
        memcpy(p, buf, len);
    else
        access_range(v, i, lin, (uint8_t *)(uintptr_t)buf, len, ACCESS_WRITE);
}

void lin_probe_write(struct vcpu *v, const struct insn *i, uint64_t lin, unsigned len)
{
    check_range(v, i, lin, len, ACCESS_WRITE);
}

void lin_probe_read(struct vcpu *v, const struct insn *i, uint64_t lin, unsigned len)
{
    check_range(v, i, lin, len, ACCESS_READ);
}

/* Implicit supervisor accesses use what the TLB knows for supervisor mode without AC. Data breakpoints see them too, as
 * processors have it; so while one is armed there is no way around the slow path here either. */
static void *lookup_sys(const struct vcpu *v, uint64_t lin, unsigned size, bool write)
{
    if (unlikely(v->bp_data))
        return NULL;
    const struct tlb_entry *e = &v->mv->data[TLB_SUPER][tlb_index(lin)];
    uint64_t off = lin + (write ? e->ntag_w : e->ntag_r);
    return off <= PAGE_SIZE - size ? (void *)(uintptr_t)(e->host + off) : NULL;
}

uint64_t lin_load_sys(struct vcpu *v, const struct insn *i, uint64_t lin, unsigned size)
{
    uint64_t value = 0;
    const void *p = lookup_sys(v, lin, size, false);
    if (p)
        memcpy(&value, p, size);
    else
        access_bytes(v, i, lin, &value, size, ACCESS_READ | ACCESS_IMPLICIT);
    return value;
}

void lin_store_sys(struct vcpu *v, const struct insn *i, uint64_t lin, uint64_t value, unsigned size)
{
    void *p = lookup_sys(v, lin, size, true);
    if (p)
        memcpy(p, &value, size);
    else
        access_bytes(v, i, lin, &value, size, ACCESS_WRITE | ACCESS_IMPLICIT);
}

void lin_probe_sys(struct vcpu *v, const struct insn *i, uint64_t lin, unsigned len, bool write)
{
    check_range(v, i, lin, len, (write ? ACCESS_WRITE : ACCESS_READ) | ACCESS_IMPLICIT);
}
