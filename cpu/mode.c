/*
 * What follows from control registers and segments: the mode word that decoding depends on, CPL, and the MMU's copy.
 */
#include "cpu/breakpoint.h"
#include "cpu/cpuid.h"
#include "cpu/system.h"

static bool is_flat(const struct segment *s, unsigned mask, unsigned want)
{
    return !s->unusable && s->base == 0 && s->limit == 0xffffffff && (s->attr & mask) == want;
}

/* No access through CS (read), DS, ES, SS (write) can fail a segment check. */
static bool segments_are_flat(const struct vcpu *v)
{
    const unsigned p_s = SEG_ATTR_P | ATTR_S, data = p_s | ATTR_CODE | ATTR_DOWN | ATTR_RW;
    return is_flat(&v->seg[SEG_CS], p_s | ATTR_CODE | ATTR_RW, p_s | ATTR_CODE | ATTR_RW) &&
           is_flat(&v->seg[SEG_DS], data, p_s | ATTR_RW) && is_flat(&v->seg[SEG_ES], data, p_s | ATTR_RW) &&
           is_flat(&v->seg[SEG_SS], data, p_s | ATTR_RW);
}

/* In 64-bit mode the sizes and flatness are fixed, so that loading DS or SS does not change the word. */
static unsigned mode_word(const struct vcpu *v)
{
    unsigned mode = (v->cpl == 3 ? MODE_USER : 0) | (v->in_smm ? MODE_SMM : 0);
    if (!(v->cr0 & CR0_PE))
        return mode | (v->seg[SEG_CS].attr & SEG_ATTR_DB ? MODE_CODE32 : 0) |
               (v->seg[SEG_SS].attr & SEG_ATTR_DB ? MODE_SS32 : 0);
    mode |= MODE_PE;
    if (v->rflags & FLAG_VM)
        return mode | MODE_VM;
    if (mode_is_long(v)) {
        mode |= MODE_LONG;
        if (v->seg[SEG_CS].attr & SEG_ATTR_L)
            return mode | MODE_CODE64 | MODE_FLAT;
    }
    if (v->seg[SEG_CS].attr & SEG_ATTR_DB)
        mode |= MODE_CODE32;
    if (v->seg[SEG_SS].attr & SEG_ATTR_DB)
        mode |= MODE_SS32;
    return mode | (segments_are_flat(v) ? MODE_FLAT : 0);
}

static void update_room(struct vcpu *v)
{
    for (int s = SEG_ES; s <= SEG_GS; s++)
        for (unsigned write = 0; write < 2; write++) {
            bool allows = segment_allows(v, s, 0, 1, write);
            v->seg_room[write][s] = allows ? (uint64_t)v->seg[s].limit + 1 : 0;
        }
}

void mode_update(struct vcpu *v)
{
    v->mode = mode_word(v);
    bool wide = v->mode & MODE_CODE64;
    if (!wide)
        update_room(v);
    for (int s = SEG_ES; s <= SEG_DS; s++)
        v->seg_base[s] = wide ? 0 : v->seg[s].base;
    v->seg_base[SEG_FS] = v->seg[SEG_FS].base;
    v->seg_base[SEG_GS] = v->seg[SEG_GS].base;
    v->seg_base[SEG_NONE] = 0;
    mmu_vcpu_set_mode(v->mv, v->cpl, v->rflags & FLAG_AC);
}

void mode_set_cpl(struct vcpu *v, unsigned cpl)
{
    v->cpl = cpl;
    mode_update(v);
}

void mode_load_mmu(struct vcpu *v)
{
    struct paging_regs r;
    memset(&r, 0, sizeof r); /* padding included: the MMU may compare it bytewise */
    r.cr0 = v->cr0;
    r.cr3 = v->cr3;
    r.cr4 = v->cr4;
    r.efer = v->efer;
    r.pkru = v->pkru;
    r.pkrs = v->pkrs;
    memcpy(r.pdpte, v->pdpte, sizeof r.pdpte);
    r.a20_mask = v->in_smm ? ~0ull : v->a20_mask;
    r.features =
        (cpu_has(v, CPU_FEATURE_PDPE1GB) ? PAGING_HAS_1G : 0) | (cpu_has(v, CPU_FEATURE_PSE36) ? PAGING_HAS_PSE36 : 0);
    r.maxphyaddr = v->model->maxphyaddr;
    r.cpl = (uint8_t)v->cpl;
    r.ac = v->rflags & FLAG_AC;
    mmu_vcpu_load(v->mv, &r);
}

void vcpu_mode_changed(struct vcpu *v)
{
    if (!(v->cr0 & CR0_PE))
        v->cpl = 0;
    mode_load_mmu(v);
    mode_update(v);
    breakpoints_update(v);
}

void vcpu_refresh(struct vcpu *v)
{
    const struct segment *ss = &v->seg[SEG_SS];
    v->monitor.loading = false;
    if (!(v->cr0 & CR0_PE))
        v->cpl = 0;
    else if (v->rflags & FLAG_VM)
        v->cpl = 3;
    else
        v->cpl = ss->unusable ? v->seg[SEG_CS].sel & 3u : ATTR_DPL(ss->attr);
    vcpu_mode_changed(v);
}
