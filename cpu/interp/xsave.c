/*
 * FXSAVE, FXRSTOR, the XSAVE family, LDMXCSR, STMXCSR and their VEX forms (SDM volume 1, 10.5 and chapter 13).
 *
 * Images and XINUSE are computed from the vCPU's state alone, never by the host's instructions: a component is in use
 * if it differs from its initial configuration. Components are those of CPUID leaf 0DH: x87 (bit 0) and SSE (bit 1) in
 * the legacy region, AVX (bit 2) and PKRU (bit 9) behind the header; no supervisor components. Of the optimisations
 * that the manual allows XSAVEOPT, XSAVEC and XSAVES use the one for components in their initial configuration, always,
 * and never the one for components that were not modified.
 *
 * What real processors leave unwritten stays as it is in memory: FXSAVE does not touch bytes 416 and up, XSAVE
 * only writes the parts of the components asked for, and of the header XSTATE_BV and, in the compacted form, XCOMP_BV.
 * Outside 64-bit mode XMM8 to XMM15 and their upper halves are neither written nor read.
 */
#include "cpu/cpuid.h"
#include "cpu/interp/vec.h"
#include "cpu/system.h"

#define LEGACY_SIZE 512
#define HEADER_SIZE 64
#define XSAVE_SIZE  (LEGACY_SIZE + HEADER_SIZE)
#define COMPACTED   (1ull << 63) /* in XCOMP_BV */

/* Parts of the legacy region. */
#define OFF_MXCSR 24
#define OFF_ST    32
#define OFF_XMM   160

static void put16(uint8_t *p, uint16_t x)
{
    memcpy(p, &x, 2);
}
static void put32(uint8_t *p, uint32_t x)
{
    memcpy(p, &x, 4);
}
static void put64(uint8_t *p, uint64_t x)
{
    memcpy(p, &x, 8);
}
static uint16_t get16(const uint8_t *p)
{
    uint16_t x;
    memcpy(&x, p, 2);
    return x;
}
static uint32_t get32(const uint8_t *p)
{
    uint32_t x;
    memcpy(&x, p, 4);
    return x;
}
static uint64_t get64(const uint8_t *p)
{
    uint64_t x;
    memcpy(&x, p, 8);
    return x;
}

static unsigned xmm_count(const struct vcpu *v)
{
    return v->mode & MODE_CODE64 ? 16 : 8;
}

/* ---- legacy region: building and taking ---- */

/* Bytes 0..23. */
static void build_control(const struct x87 *f, uint8_t *p, bool wide)
{
    put16(p, f->fcw);
    put16(p + 2, x87_status(f));
    p[4] = f->tag;
    p[5] = 0;
    put16(p + 6, f->fop);
    if (wide) {
        put64(p + 8, f->fip);
        put64(p + 16, f->fdp);
        return;
    }
    put32(p + 8, (uint32_t)f->fip);
    put16(p + 12, f->fcs);
    put16(p + 14, 0);
    put32(p + 16, (uint32_t)f->fdp);
    put16(p + 20, f->fds);
    put16(p + 22, 0);
}

static void build_mxcsr(const struct vcpu *v, uint8_t *p)
{
    put32(p, v->mxcsr);
    put32(p + 4, MXCSR_MASK);
}

/* Bytes 32..159: ST(0) first, 16 bytes each, of which 10 are used. */
static void build_stack(const struct x87 *f, uint8_t *p)
{
    for (unsigned n = 0; n < 8; n++, p += 16) {
        unsigned r = (f->top + n) & 7;
        put64(p, f->st[r].mant);
        put64(p + 8, f->st[r].exp);
    }
}

static void build_xmm(const struct vcpu *v, uint8_t *p)
{
    for (unsigned n = 0; n < xmm_count(v); n++, p += 16)
        memcpy(p, v->xmm[n].q, 16);
}

static void take_x87(struct x87 *f, const uint8_t *p, bool wide)
{
    x87_set_control(f, get16(p));
    x87_set_status(f, get16(p + 2));
    f->tag = p[4];
    f->fop = get16(p + 6) & 0x7ff;
    f->fip = wide ? get64(p + 8) : get32(p + 8);
    f->fcs = wide ? 0 : get16(p + 12);
    f->fdp = wide ? get64(p + 16) : get32(p + 16);
    f->fds = wide ? 0 : get16(p + 20);
    p += OFF_ST;
    for (unsigned n = 0; n < 8; n++, p += 16) {
        unsigned r = (f->top + n) & 7;
        f->st[r].mant = get64(p);
        f->st[r].exp = get16(p + 8);
    }
    x87_update_summary(f);
}

static void take_xmm(struct vcpu *v, const uint8_t *p)
{
    for (unsigned n = 0; n < xmm_count(v); n++, p += 16)
        memcpy(v->xmm[n].q, p, 16);
}

static void init_x87(struct x87 *f)
{
    x87_init(f);
    memset(f->st, 0, sizeof f->st);
}

static void init_xmm(struct vcpu *v)
{
    for (unsigned n = 0; n < xmm_count(v); n++)
        memset(v->xmm[n].q, 0, 16);
}

/* ---- checks ---- */

static uint64_t aligned_linear(struct vcpu *v, const struct insn *i, unsigned size, unsigned align, unsigned write)
{
    uint64_t lin = insn_linear(v, i, size, write);
    if (lin & (align - 1))
        vcpu_raise_error(v, i, EXC_GP, 0);
    return lin;
}

static void check_mxcsr(struct vcpu *v, const struct insn *i, uint32_t mxcsr)
{
    if (mxcsr & ~MXCSR_MASK)
        vcpu_raise_error(v, i, EXC_GP, 0);
}

/* ---- FXSAVE, FXRSTOR ---- */

static void fxsave(struct vcpu *v, const struct insn *i)
{
    uint8_t image[OFF_XMM + 16 * 16];
    x87_need(v, i);
    uint64_t lin = aligned_linear(v, i, LEGACY_SIZE, 16, 1);
    lin_probe_write(v, i, lin, LEGACY_SIZE);
    build_control(&v->fpu, image, i->opsize == 8);
    build_mxcsr(v, image + OFF_MXCSR);
    build_stack(&v->fpu, image + OFF_ST);
    build_xmm(v, image + OFF_XMM);
    lin_write_bytes(v, i, lin, image, OFF_XMM + 16 * xmm_count(v));
    NEXT_MEM(v, i);
}

static void fxrstor(struct vcpu *v, const struct insn *i)
{
    uint8_t image[LEGACY_SIZE];
    x87_need(v, i);
    uint64_t lin = aligned_linear(v, i, LEGACY_SIZE, 16, 0);
    lin_read_bytes(v, i, lin, image, LEGACY_SIZE);
    uint32_t mxcsr = get32(image + OFF_MXCSR);
    check_mxcsr(v, i, mxcsr);
    take_x87(&v->fpu, image, i->opsize == 8);
    take_xmm(v, image + OFF_XMM);
    v->mxcsr = mxcsr;
    NEXT_MEM(v, i);
}

/* ---- components beyond the legacy region ---- */

static void build_ymm(const struct vcpu *v, uint8_t *p)
{
    for (unsigned n = 0; n < xmm_count(v); n++, p += 16)
        memcpy(p, v->xmm[n].q + 2, 16);
}
/* p NULL: the initial configuration. */
static void take_ymm(struct vcpu *v, const uint8_t *p)
{
    for (unsigned n = 0; n < xmm_count(v); n++)
        if (p)
            memcpy(v->xmm[n].q + 2, p + 16 * n, 16);
        else
            memset(v->xmm[n].q + 2, 0, 16);
}
static void take_pkru(struct vcpu *v, const uint8_t *p)
{
    v->pkru = p ? get32(p) : 0;
    mode_load_mmu(v);
}

/* ---- XINUSE ---- */

static bool x87_in_use(const struct x87 *f)
{
    uint64_t any = f->fsw | f->top | f->tag | f->fop | f->fcs | f->fds | f->fip | f->fdp;
    for (unsigned r = 0; r < 8; r++)
        any |= f->st[r].mant | f->st[r].exp;
    return any || f->fcw != FCW_INIT;
}

static bool half_in_use(const struct vcpu *v, unsigned h)
{
    uint64_t any = 0;
    for (unsigned n = 0; n < xmm_count(v); n++)
        any |= v->xmm[n].q[2 * h] | v->xmm[n].q[2 * h + 1];
    return any;
}

uint64_t xstate_in_use(const struct vcpu *v)
{
    return (x87_in_use(&v->fpu) ? XSTATE_X87 : 0) | (half_in_use(v, 0) ? XSTATE_SSE : 0) |
           (half_in_use(v, 1) ? XSTATE_AVX : 0) | (v->pkru ? XSTATE_PKRU : 0);
}

/* ---- XSAVE and the rest ---- */

/* Requested components (RFBM), after the checks that come before any access to memory. */
static uint64_t xsave_request(struct vcpu *v, const struct insn *i, bool supervisor)
{
    if (!(v->cr4 & CR4_OSXSAVE))
        vcpu_raise(v, i, EXC_UD);
    if (v->cr0 & CR0_TS)
        vcpu_raise(v, i, EXC_NM);
    if (supervisor && v->cpl)
        vcpu_raise_error(v, i, EXC_GP, 0);
    return (v->xcr0 | (supervisor ? v->msr.xss : 0)) & ((uint32_t)v->gpr[REG_RAX] | v->gpr[REG_RDX] << 32);
}

static void store_x87(struct vcpu *v, const struct insn *i, uint64_t lin)
{
    uint8_t image[128];
    build_control(&v->fpu, image, i->opsize == 8);
    lin_write_bytes(v, i, lin, image, 24);
    build_stack(&v->fpu, image);
    lin_write_bytes(v, i, lin + OFF_ST, image, 128);
}

static void store_mxcsr(struct vcpu *v, const struct insn *i, uint64_t lin)
{
    uint8_t image[8];
    build_mxcsr(v, image);
    lin_write_bytes(v, i, lin + OFF_MXCSR, image, sizeof image);
}

static void store_xmm(struct vcpu *v, const struct insn *i, uint64_t lin)
{
    uint8_t image[16 * 16];
    build_xmm(v, image);
    lin_write_bytes(v, i, lin + OFF_XMM, image, 16 * xmm_count(v));
}

/* The components of `write`; `layout`: XCOMP_BV. */
static void store_components(struct vcpu *v, const struct insn *i, uint64_t lin, uint64_t write, uint64_t layout)
{
    uint8_t image[16 * 16];
    if (write & XSTATE_X87)
        store_x87(v, i, lin);
    if (write & XSTATE_SSE)
        store_xmm(v, i, lin);
    if (write & XSTATE_AVX) {
        build_ymm(v, image);
        lin_write_bytes(v, i, lin + xstate_offset(2, layout), image, 16 * xmm_count(v));
    }
    if (write & XSTATE_PKRU)
        lin_store64(v, i, lin + xstate_offset(9, layout), v->pkru);
}

/* XSAVE, XSAVEOPT. `skip_init`: components in their initial configuration are not written. */
static void save_standard(struct vcpu *v, const struct insn *i, bool skip_init)
{
    uint64_t rfbm = xsave_request(v, i, false), in_use = xstate_in_use(v), write = skip_init ? rfbm & in_use : rfbm;
    unsigned size = xstate_bytes(rfbm, 0);
    uint64_t lin = aligned_linear(v, i, size, 64, 1);
    lin_probe_write(v, i, lin, size);
    uint64_t old = lin_load64(v, i, lin + LEGACY_SIZE);
    /* MXCSR is no part of what XINUSE describes: it is written whenever SSE or AVX is asked for. */
    if (rfbm & (XSTATE_SSE | XSTATE_AVX))
        store_mxcsr(v, i, lin);
    store_components(v, i, lin, write, 0);
    if (skip_init && v->mxcsr != MXCSR_INIT)
        in_use |= XSTATE_SSE;
    lin_store64(v, i, lin + LEGACY_SIZE, (old & ~rfbm) | (in_use & rfbm));
}

/* XSAVEC, XSAVES. */
static void save_compacted(struct vcpu *v, const struct insn *i, bool supervisor)
{
    uint64_t rfbm = xsave_request(v, i, supervisor), in_use = xstate_in_use(v), layout = rfbm | COMPACTED;
    unsigned size = xstate_bytes(rfbm, layout);
    uint64_t lin = aligned_linear(v, i, size, 64, 1);
    if (v->mxcsr != MXCSR_INIT)
        in_use |= XSTATE_SSE;
    lin_probe_write(v, i, lin, size);
    if (rfbm & in_use & XSTATE_SSE)
        store_mxcsr(v, i, lin);
    store_components(v, i, lin, rfbm & in_use, layout);
    lin_store64(v, i, lin + LEGACY_SIZE, rfbm & in_use);
    lin_store64(v, i, lin + LEGACY_SIZE + 8, layout);
}

#define SAVE_HANDLER(name, body)                                                                                       \
    static void name(struct vcpu *v, const struct insn *i)                                                             \
    {                                                                                                                  \
        body;                                                                                                          \
        NEXT_MEM(v, i);                                                                                                \
    }
SAVE_HANDLER(xsave, save_standard(v, i, false))
SAVE_HANDLER(xsaveopt, save_standard(v, i, true))
SAVE_HANDLER(xsavec, save_compacted(v, i, false))
SAVE_HANDLER(xsaves, save_compacted(v, i, true))

/* ---- XRSTOR, XRSTORS ---- */

struct xsave_header {
    uint64_t bv, layout; /* XSTATE_BV, XCOMP_BV */
};

static void refuse(struct vcpu *v, const struct insn *i, bool bad)
{
    if (bad)
        vcpu_raise_error(v, i, EXC_GP, 0);
}

/* The standard form has no component beyond XCR0 and zeros in bytes 8 to 23; the compacted one none beyond those that
 * it lists, and zeros in bytes 16 to 63. */
static struct xsave_header header_read(struct vcpu *v, const struct insn *i, uint64_t lin, bool supervisor)
{
    uint8_t bytes[HEADER_SIZE];
    uint64_t rest = 0;
    lin_read_bytes(v, i, lin + LEGACY_SIZE, bytes, HEADER_SIZE);
    struct xsave_header h = {get64(bytes), get64(bytes + 8)};
    bool compacted = h.layout & COMPACTED, known = cpu_has(v, CPU_FEATURE_XSAVEC);
    for (unsigned k = 16; k < (compacted ? HEADER_SIZE : 24u); k += 8)
        rest |= get64(bytes + k);
    refuse(v, i, rest);
    if (compacted) {
        uint64_t allowed = v->xcr0 | (supervisor ? v->msr.xss : 0) | COMPACTED;
        refuse(v, i, !known || h.layout & ~allowed || h.bv & ~(h.layout & ~COMPACTED));
    } else {
        refuse(v, i, supervisor || h.layout || h.bv & ~v->xcr0);
    }
    return h;
}

static void take_legacy(struct vcpu *v, const struct insn *i, const uint8_t *image, uint64_t rfbm, uint64_t from_memory)
{
    if (rfbm & from_memory & XSTATE_X87)
        take_x87(&v->fpu, image, i->opsize == 8);
    else if (rfbm & XSTATE_X87)
        init_x87(&v->fpu);
    if (rfbm & from_memory & XSTATE_SSE)
        take_xmm(v, image + OFF_XMM);
    else if (rfbm & XSTATE_SSE)
        init_xmm(v);
}

/* In the standard form MXCSR comes from memory whenever SSE or AVX is asked for; in the compacted one it goes with SSE.
 */
static void take_mxcsr(struct vcpu *v, uint32_t mxcsr, uint64_t rfbm, const struct xsave_header *h)
{
    if (!(h->layout & COMPACTED)) {
        if (rfbm & (XSTATE_SSE | XSTATE_AVX))
            v->mxcsr = mxcsr;
    } else if (rfbm & XSTATE_SSE) {
        v->mxcsr = h->bv & XSTATE_SSE ? mxcsr : MXCSR_INIT;
    }
}

static bool uses_mxcsr(uint64_t rfbm, const struct xsave_header *h)
{
    return h->layout & COMPACTED ? rfbm & h->bv & XSTATE_SSE : rfbm & (XSTATE_SSE | XSTATE_AVX);
}

/* Everything is read before the first change. */
static void restore(struct vcpu *v, const struct insn *i, bool supervisor)
{
    uint8_t image[LEGACY_SIZE], ymm[16 * 16], pkru[8];
    uint64_t rfbm = xsave_request(v, i, supervisor), lin = aligned_linear(v, i, XSAVE_SIZE, 64, 0);
    lin_read_bytes(v, i, lin, image, LEGACY_SIZE);
    struct xsave_header h = header_read(v, i, lin, supervisor);
    uint64_t from = rfbm & h.bv;
    uint32_t mxcsr = get32(image + OFF_MXCSR);
    if (uses_mxcsr(rfbm, &h))
        check_mxcsr(v, i, mxcsr);
    if (from & XSTATE_AVX)
        lin_read_bytes(v, i, lin + xstate_offset(2, h.layout), ymm, 16 * xmm_count(v));
    if (from & XSTATE_PKRU)
        lin_read_bytes(v, i, lin + xstate_offset(9, h.layout), pkru, sizeof pkru);
    take_mxcsr(v, mxcsr, rfbm, &h);
    take_legacy(v, i, image, rfbm, h.bv);
    if (rfbm & XSTATE_AVX)
        take_ymm(v, from & XSTATE_AVX ? ymm : NULL);
    if (rfbm & XSTATE_PKRU)
        take_pkru(v, from & XSTATE_PKRU ? pkru : NULL);
}

static void xrstor(struct vcpu *v, const struct insn *i)
{
    restore(v, i, false);
    NEXT_OR_END(v, i, false);
}

static void xrstors(struct vcpu *v, const struct insn *i)
{
    restore(v, i, true);
    NEXT_OR_END(v, i, false);
}

/* ---- MXCSR ---- */

static void mxcsr_need(struct vcpu *v, const struct insn *i)
{
    if (is_vex_form(i)) {
        avx_need(v, i);
        return;
    }
    if ((v->cr0 & CR0_EM) || !(v->cr4 & CR4_OSFXSR))
        vcpu_raise(v, i, EXC_UD);
    if (v->cr0 & CR0_TS)
        vcpu_raise(v, i, EXC_NM);
}

static void ldmxcsr(struct vcpu *v, const struct insn *i)
{
    mxcsr_need(v, i);
    uint32_t mxcsr = lin_load32(v, i, insn_linear(v, i, 4, 0));
    check_mxcsr(v, i, mxcsr);
    v->mxcsr = mxcsr;
    NEXT_MEM(v, i);
}

static void stmxcsr(struct vcpu *v, const struct insn *i)
{
    mxcsr_need(v, i);
    lin_store32(v, i, insn_linear(v, i, 4, 1), v->mxcsr);
    NEXT_MEM(v, i);
}

op_fn *bind_xsave(const struct insn *i)
{
    switch (i->op) {
    case OP_FXSAVE:
        return fxsave;
    case OP_FXRSTOR:
        return fxrstor;
    case OP_XSAVE:
        return xsave;
    case OP_XSAVEOPT:
        return xsaveopt;
    case OP_XSAVEC:
        return xsavec;
    case OP_XSAVES:
        return xsaves;
    case OP_XRSTOR:
        return xrstor;
    case OP_XRSTORS:
        return xrstors;
    case OP_LDMXCSR:
    case OP_VLDMXCSR:
        return ldmxcsr;
    case OP_STMXCSR:
    case OP_VSTMXCSR:
        return stmxcsr;
    default:
        return NULL;
    }
}
