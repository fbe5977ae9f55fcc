#include "cpu/v86.h"

void v86_set_segments(struct vcpu *v, const uint16_t sel[6])
{
    for (int s = SEG_ES; s <= SEG_GS; s++)
        vcpu_set_segment(v, s, sel[s], (uint64_t)sel[s] << 4, 0xffff,
                         SEG_ATTR_P | 3u << 5 | ATTR_S | ATTR_RW | ATTR_ACCESSED);
    v->cpl = 3;
}

/* The bit of `vector` in the 32 bytes below the I/O permission bitmap. A TSS that does not hold them allows nothing. */
static bool is_redirected(struct vcpu *v, const struct insn *i, uint8_t vector)
{
    unsigned type = v->tr.attr & ATTR_TYPE;
    if (v->tr.unusable || (type != SYS_TSS_BUSY && type != SYS_TSS) || v->tr.limit < 0x67)
        vcpu_raise_error(v, i, EXC_GP, 0);
    uint32_t map = (uint32_t)lin_load_sys(v, i, (uint32_t)(v->tr.base + 0x66), 2), at = map - 32 + vector / 8u;
    if (map < 32 || at > v->tr.limit)
        vcpu_raise_error(v, i, EXC_GP, 0);
    return !(lin_load_sys(v, i, (uint32_t)(v->tr.base + at), 1) >> (vector & 7) & 1);
}

/* As a processor in real mode takes it, from the table at linear address 0. With IOPL below 3 the program sees and
 * changes VIF in the place of IF. */
static void through_own_table(struct vcpu *v, const struct insn *i, uint8_t vector)
{
    bool virtual_if = flags_iopl(v) < 3;
    uint64_t flags = vcpu_rflags(v);
    if (virtual_if)
        flags = (flags & ~FLAG_IF) | FLAG_IOPL | (flags & FLAG_VIF ? FLAG_IF : 0);
    uint32_t entry = (uint32_t)lin_load(v, i, vector * 4u, 4);
    uint64_t frame[3] = {flags & 0xffff, v->seg[SEG_CS].sel, (uint16_t)insn_next_rip(v, i)};
    struct frame_stack s;
    frame_stack_current(v, &s);
    frame_push(v, i, &s, frame, 3, 2);
    frame_set_rsp(v, s.rsp);
    v->seg[SEG_CS].sel = (uint16_t)(entry >> 16);
    v->seg[SEG_CS].base = entry >> 16 << 4;
    v->rflags &= ~(FLAG_TF | FLAG_RF | (virtual_if ? FLAG_VIF : FLAG_IF));
    v->pending_single_step = false; /* no trap after it, as after any INT n */
    mode_update(v);
    block_end(v, i, entry & 0xffff, 2);
}

bool v86_int(struct vcpu *v, const struct insn *i, uint8_t vector)
{
    if (v->cr4 & CR4_VME && is_redirected(v, i, vector)) {
        through_own_table(v, i, vector);
        return true;
    }
    if (flags_iopl(v) < 3)
        vcpu_raise_error(v, i, EXC_GP, 0);
    return false;
}
