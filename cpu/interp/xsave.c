/*
 * FXSAVE, FXRSTOR, XSAVE, XSAVEOPT, XRSTOR, LDMXCSR, STMXCSR (SDM volume 1, 10.5 and chapter 13).
 *
 * Images and XINUSE are computed from the vCPU's state alone, never by the host's instructions. Components are those of
 * CPUID leaf 0DH: x87 (bit 0) and SSE (bit 1), both in the legacy region; there is no compacted form.
 *
 * What real processors leave unwritten stays as it is in memory: FXSAVE does not touch bytes 416 and up, XSAVE
 * only writes the parts of the components asked for, and XSTATE_BV. Outside 64-bit mode XMM8 to XMM15 are
 * neither written nor read.
 */
#include "cpu/cpuid.h"
#include "cpu/interp/x87.h"
#include "cpu/system.h"

#define LEGACY_SIZE 512
#define HEADER_SIZE 64
#define XSAVE_SIZE  (LEGACY_SIZE + HEADER_SIZE)
#define XSTATE_X87  1ull
#define XSTATE_SSE  2ull

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

/* ---- XSAVE, XRSTOR ---- */

static bool x87_in_use(const struct x87 *f)
{
    uint64_t any = f->fsw | f->top | f->tag | f->fop | f->fcs | f->fds | f->fip | f->fdp;
    for (unsigned r = 0; r < 8; r++)
        any |= f->st[r].mant | f->st[r].exp;
    return any || f->fcw != FCW_INIT;
}

static bool xmm_in_use(const struct vcpu *v)
{
    uint64_t any = 0;
    for (unsigned n = 0; n < xmm_count(v); n++)
        any |= v->xmm[n].q[0] | v->xmm[n].q[1];
    return any;
}

static uint64_t xstate_in_use(const struct vcpu *v)
{
    return (x87_in_use(&v->fpu) ? XSTATE_X87 : 0) | (xmm_in_use(v) ? XSTATE_SSE : 0);
}

/* Requested components, after the checks that come before any access to memory. */
static uint64_t xsave_request(struct vcpu *v, const struct insn *i)
{
    if (!(v->cr4 & CR4_OSXSAVE))
        vcpu_raise(v, i, EXC_UD);
    if (v->cr0 & CR0_TS)
        vcpu_raise(v, i, EXC_NM);
    return v->xcr0 & ((uint32_t)v->gpr[REG_RAX] | v->gpr[REG_RDX] << 32);
}

static void store_x87(struct vcpu *v, const struct insn *i, uint64_t lin)
{
    uint8_t image[128];
    build_control(&v->fpu, image, i->opsize == 8);
    lin_write_bytes(v, i, lin, image, 24);
    build_stack(&v->fpu, image);
    lin_write_bytes(v, i, lin + OFF_ST, image, 128);
}

static void store_xmm(struct vcpu *v, const struct insn *i, uint64_t lin)
{
    uint8_t image[16 * 16];
    build_xmm(v, image);
    lin_write_bytes(v, i, lin + OFF_XMM, image, 16 * xmm_count(v));
}

/* `skip_init`: components in their initial configuration are not written (XSAVEOPT). */
static void xsave_to(struct vcpu *v, const struct insn *i, bool skip_init)
{
    uint64_t rfbm = xsave_request(v, i), in_use = xstate_in_use(v);
    uint64_t lin = aligned_linear(v, i, XSAVE_SIZE, 64, 1), write = skip_init ? rfbm & in_use : rfbm;
    lin_probe_write(v, i, lin, XSAVE_SIZE);
    uint64_t old = lin_load64(v, i, lin + LEGACY_SIZE);
    /* MXCSR belongs to SSE, yet is no part of what XINUSE describes: it is written whenever SSE is asked for. */
    if (rfbm & XSTATE_SSE) {
        uint8_t image[8];
        build_mxcsr(v, image);
        lin_write_bytes(v, i, lin + OFF_MXCSR, image, sizeof image);
    }
    if (write & XSTATE_X87)
        store_x87(v, i, lin);
    if (write & XSTATE_SSE)
        store_xmm(v, i, lin);
    if (skip_init && rfbm & XSTATE_SSE && v->mxcsr != MXCSR_INIT)
        in_use |= XSTATE_SSE;
    lin_store64(v, i, lin + LEGACY_SIZE, (old & ~rfbm) | (in_use & rfbm));
}

static void xsave(struct vcpu *v, const struct insn *i)
{
    xsave_to(v, i, false);
    NEXT_MEM(v, i);
}

static void xsaveopt(struct vcpu *v, const struct insn *i)
{
    if (!cpu_has(v, CPU_FEATURE_XSAVEOPT))
        vcpu_raise(v, i, EXC_UD);
    xsave_to(v, i, true);
    NEXT_MEM(v, i);
}

/* Standard form: no component beyond XCR0, and the rest of the header's first 24 bytes zero. */
static uint64_t header_check(struct vcpu *v, const struct insn *i, const uint8_t *header)
{
    uint64_t bv = get64(header);
    if (bv & ~v->xcr0 || get64(header + 8) || get64(header + 16))
        vcpu_raise_error(v, i, EXC_GP, 0);
    return bv;
}

static void xrstor(struct vcpu *v, const struct insn *i)
{
    uint8_t image[XSAVE_SIZE];
    uint64_t rfbm = xsave_request(v, i), lin = aligned_linear(v, i, XSAVE_SIZE, 64, 0);
    lin_read_bytes(v, i, lin, image, XSAVE_SIZE);
    uint64_t bv = header_check(v, i, image + LEGACY_SIZE);
    uint32_t mxcsr = get32(image + OFF_MXCSR);
    if (rfbm & XSTATE_SSE) {
        check_mxcsr(v, i, mxcsr);
        v->mxcsr = mxcsr;
    }
    if (rfbm & bv & XSTATE_X87)
        take_x87(&v->fpu, image, i->opsize == 8);
    else if (rfbm & XSTATE_X87)
        init_x87(&v->fpu);
    if (rfbm & bv & XSTATE_SSE)
        take_xmm(v, image + OFF_XMM);
    else if (rfbm & XSTATE_SSE)
        init_xmm(v);
    NEXT_OR_END(v, i, false);
}

/* ---- MXCSR ---- */

static void mxcsr_need(struct vcpu *v, const struct insn *i)
{
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
    case OP_XRSTOR:
        return xrstor;
    case OP_LDMXCSR:
        return ldmxcsr;
    case OP_STMXCSR:
        return stmxcsr;
    default:
        return NULL;
    }
}
