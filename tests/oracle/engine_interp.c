/*
 * The interpreter as an engine of the oracle: a vCPU in long mode at CPL 3, with paging that puts the case's pages at
 * the host's addresses, and a handler (HLT) for each vector. A case that is through runs into HLT, too, which is #GP at
 * CPL 3: the address tells the two apart.
 */
#include "core/bus.h"
#include "core/host/host_mm.h"
#include "core/trace.h"
#include "cpu/jit/jit.h"
#include "cpu/system.h"
#include "tests/oracle/oracle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RAM_BYTES 0x200000u
#define JIT_RUNS  3 /* of code that is compiled before the first */
/* Places in guest-physical memory. All but code and data are the supervisor's alone, in the upper half as an operating
 * system would have it, so that nothing lies where the host has nothing. */
#define KERNEL    0xffffffff80000000ull
enum {
    AT_PML4 = 0x1000,
    AT_PDPT = 0x2000,
    AT_PD = 0x3000,
    AT_PT = 0x4000,
    AT_KERNEL_PDPT = 0xc000,
    AT_KERNEL_PD = 0xd000,
    AT_GDT = 0x5000,
    AT_IDT = 0x6000,
    AT_TSS = 0x7000,
    AT_STACK = 0x9000,    /* grows down */
    AT_HANDLERS = 0xa000, /* 16 bytes a vector */
    AT_CODE = 0x10000,
    AT_DATA = 0x20000 /* and the read-only page behind it */
};
/* Linux's selectors. */
enum { SEL_KERNEL = 0x10, SEL_USER32 = 0x23, SEL_USER_DATA = 0x2b, SEL_USER64 = 0x33, SEL_TASK = 0x40 };

struct interp {
    struct frame_pool *pool;
    struct host_mm *mm;
    struct bus mmio, ports;
    struct log log;
    FILE *log_file;
    struct trace trace;
    struct vclock clock;
    struct mem *mem;
    struct mmu *mmu;
    struct code_cache *code;
    struct cpu_model *cpu;
    struct jit *jit; /* or NULL */
    struct vcpu *v;
    unsigned runs; /* of a case: compiled code comes after some */
    uint8_t background[DATA_SIZE + 4096], data[DATA_SIZE + 4096];
};

static void move(struct interp *e, uint64_t gpa, const void *buf, size_t len, bool write)
{
    mem_access(e->mem, 0, gpa, (void *)(uintptr_t)buf, len, write ? MEM_HOST_POKE : MEM_PEEK, write, BUS_NO_CPU);
}

static void poke64(struct interp *e, uint64_t gpa, uint64_t value)
{
    move(e, gpa, &value, 8, true);
}

/* ---- the scene ---- */

static void build_tables(struct interp *e)
{
    poke64(e, AT_PML4, AT_PDPT | 7);
    poke64(e, AT_PDPT, AT_PD | 7);
    poke64(e, AT_PML4 + 8 * 511, AT_KERNEL_PDPT | 3);
    poke64(e, AT_KERNEL_PDPT + 8 * 510, AT_KERNEL_PD | 3);
    poke64(e, AT_KERNEL_PD, 0x83);
    poke64(e, AT_PD + 8 * (CODE_PAGE >> 21), AT_PT | 7);
    poke64(e, AT_PT + 8 * (CODE_PAGE >> 12 & 511), AT_CODE | 5);
    for (unsigned k = 0; k < DATA_PAGES; k++)
        poke64(e, AT_PT + 8 * ((DATA_AT >> 12 & 511) + k), (AT_DATA + k * 4096) | 7 | 1ull << 63);
    poke64(e, AT_PT + 8 * (RO_AT >> 12 & 511), (AT_DATA + DATA_SIZE) | 5 | 1ull << 63);
}

/* Linux lets user code raise #BP and #OF by INT n. */
static void build_idt(struct interp *e)
{
    for (unsigned vector = 0; vector < 256; vector++) {
        uint64_t at = KERNEL + AT_HANDLERS + 16 * vector, dpl = vector == 3 || vector == 4 ? 3 : 0;
        poke64(e, AT_IDT + 16 * vector,
               (at & 0xffff) | (uint64_t)SEL_KERNEL << 16 | (0x8e | dpl << 5) << 40 | (at >> 16 & 0xffff) << 48);
        poke64(e, AT_IDT + 16 * vector + 8, at >> 32);
        poke64(e, AT_HANDLERS + 16 * vector, 0xf4); /* HLT */
    }
}

static void build_descriptors(struct interp *e)
{
    poke64(e, AT_GDT + SEL_KERNEL, 0x00af9b000000ffff);
    poke64(e, AT_GDT + (SEL_USER32 & ~7), 0x00cffb000000ffff);
    poke64(e, AT_GDT + (SEL_USER_DATA & ~7), 0x00cff3000000ffff);
    poke64(e, AT_GDT + (SEL_USER64 & ~7), 0x00affb000000ffff);
    poke64(e, AT_TSS + 4, KERNEL + AT_STACK);
    poke64(e, AT_TSS + 0x60, 0xffffull << 48); /* no I/O bitmap: ports are #GP */
    build_idt(e);
}

static void set_user(struct vcpu *v, bool code32)
{
    vcpu_set_segment(v, SEG_CS, code32 ? SEL_USER32 : SEL_USER64, 0, 0xffffffff, code32 ? 0xc0fb : 0xa0fb);
    vcpu_set_segment(v, SEG_SS, SEL_USER_DATA, 0, 0xffffffff, 0xc0f3);
    vcpu_set_segment(v, SEG_DS, SEL_USER_DATA, 0, 0xffffffff, 0xc0f3);
    vcpu_set_segment(v, SEG_ES, SEL_USER_DATA, 0, 0xffffffff, 0xc0f3);
    vcpu_set_segment(v, SEG_FS, 0, 0, 0xffffffff, 0xc0f3);
    vcpu_set_segment(v, SEG_GS, 0, GS_BASE, 0xffffffff, 0xc0f3);
    if (code32) { /* as null selectors leave them */
        v->seg[SEG_FS].unusable = v->seg[SEG_GS].unusable = true;
    } else {
        v->seg[SEG_FS].unusable = v->seg[SEG_GS].unusable = false;
    }
}

static void set_control(struct vcpu *v)
{
    v->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG;
    v->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT;
    v->cr4 |= cpu_has(v, CPU_FEATURE_FSGSBASE) ? CR4_FSGSBASE : 0;
    v->cr4 |= cpu_has(v, CPU_FEATURE_XSAVE) ? CR4_OSXSAVE : 0;
    v->cr4 |= cpu_has(v, CPU_FEATURE_UMIP) ? CR4_UMIP : 0;
    v->xcr0 = v->model->xcr0 & 7;
    v->cr3 = AT_PML4;
    v->efer = EFER_LME | EFER_LMA | EFER_NXE | EFER_SCE;
    v->gdtr = (struct desc_table){KERNEL + AT_GDT, 0x4f};
    v->idtr = (struct desc_table){KERNEL + AT_IDT, 0xfff};
    v->tr =
        (struct segment){.sel = SEL_TASK, .base = KERNEL + AT_TSS, .limit = 0x67, .attr = SEG_ATTR_P | SYS_TSS_BUSY};
}

static void interp_destroy(void *engine)
{
    struct interp *e = engine;
    vcpu_destroy(e->v);
    jit_destroy(e->jit);
    free(e->cpu);
    code_cache_destroy(e->code);
    mmu_destroy(e->mmu);
    mem_destroy(e->mem);
    trace_fini(&e->trace);
    bus_fini(&e->ports);
    bus_fini(&e->mmio);
    fclose(e->log_file);
    host_mm_destroy(e->mm);
    frame_pool_destroy(e->pool);
    free(e);
}

static void *engine_create(const char *model, bool jit)
{
    char err[200] = "";
    const char *bad = model;
    struct interp *e = calloc(1, sizeof *e);
    struct cpu_model *cpu = cpu_model_parse(model, &bad);
    struct frame_pool *pool = frame_pool_create(2048, err, sizeof err);
    if (!e || !cpu || !pool) {
        printf("host_diff: -cpu %s: %s %s\n", model, cpu ? "" : bad, err);
        exit(2);
    }
    e->pool = pool;
    e->cpu = cpu;
    e->mm = host_mm_create(e->pool);
    e->log_file = fopen("/dev/null", "w");
    log_init(&e->log, e->log_file);
    bus_init(&e->mmio, "mmio", 0, &e->log);
    bus_init(&e->ports, "port", 0x10000, &e->log);
    clock_init(&e->clock);
    trace_init(&e->trace, &e->clock);
    e->mem = mem_create(&(struct mem_config){.mm = e->mm, .mmio = &e->mmio, .log = &e->log, .trace = &e->trace});
    hva_t hva = host_mm_mmap_anon(e->mm, RAM_BYTES, HOST_READ | HOST_WRITE);
    mem_slot_add(e->mem, 0, 0, RAM_BYTES, hva, MEMSLOT_RAM);
    e->mmu = mmu_create(
        &(struct mmu_config){.kind = MMU_WALK, .mem = e->mem, .vcpus = 1, .log = &e->log, .trace = &e->trace});
    e->code = code_cache_create(e->mem, &e->trace, &e->log);
    e->jit = jit ? jit_create(&(struct jit_config){.log = &e->log, .heat = 1, .cache_bytes = 1 << 20}) : NULL;
    e->runs = jit ? JIT_RUNS : 1;
    e->v = vcpu_create(&(struct vcpu_config){.mv = mmu_vcpu_get(e->mmu, 0),
                                             .mem = e->mem,
                                             .ports = &e->ports,
                                             .clock = &e->clock,
                                             .code = e->code,
                                             .jit = e->jit,
                                             .log = &e->log,
                                             .trace = &e->trace,
                                             .model = e->cpu,
                                             .rng_seed = 1});
    build_tables(e);
    build_descriptors(e);
    set_control(e->v);
    oracle_fill_background(e->background, sizeof e->background);
    move(e, AT_DATA, e->background, sizeof e->background, true);
    memcpy(e->data, e->background, sizeof e->data);
    return e;
}

static void *interp_create(const char *model)
{
    return engine_create(model, false);
}

static void *jit_engine_create(const char *model)
{
    struct interp *e = engine_create(model, true);
    if (!e->jit) {
        printf("host_diff: no JIT here\n");
        exit(77);
    }
    return e;
}

static const struct cpu_model *interp_model(void *engine)
{
    return ((struct interp *)engine)->cpu;
}

/* ---- state ---- */

static void put_vectors(struct vcpu *v, const uint8_t *x)
{
    struct x87 *f = &v->fpu;
    uint16_t fsw;
    memset(f, 0, sizeof *f);
    memcpy(&f->fcw, x, 2);
    memcpy(&fsw, x + 2, 2);
    f->top = fsw >> 11 & 7;
    f->fsw = fsw & (uint16_t)~0x3800;
    f->tag = x[4];
    memcpy(&v->mxcsr, x + 24, 4);
    for (unsigned k = 0; k < 8; k++) {
        memcpy(&f->st[(f->top + k) & 7].mant, x + 32 + 16 * k, 8);
        memcpy(&f->st[(f->top + k) & 7].exp, x + 40 + 16 * k, 2);
    }
    for (unsigned k = 0; k < 16; k++) {
        memcpy(&v->xmm[k].b[0], x + 160 + 16 * k, 16);
        memcpy(&v->xmm[k].b[16], x + 576 + 16 * k, 16);
    }
}

static void get_vectors(const struct vcpu *v, uint8_t *x)
{
    const struct x87 *f = &v->fpu;
    uint16_t fsw = (uint16_t)(f->fsw | f->top << 11);
    memset(x, 0, XSAVE_BYTES);
    memcpy(x, &f->fcw, 2);
    memcpy(x + 2, &fsw, 2);
    x[4] = f->tag;
    memcpy(x + 24, &v->mxcsr, 4);
    for (unsigned k = 0; k < 8; k++) {
        memcpy(x + 32 + 16 * k, &f->st[(f->top + k) & 7].mant, 8);
        memcpy(x + 40 + 16 * k, &f->st[(f->top + k) & 7].exp, 2);
    }
    for (unsigned k = 0; k < 16; k++) {
        memcpy(x + 160 + 16 * k, &v->xmm[k].b[0], 16);
        memcpy(x + 576 + 16 * k, &v->xmm[k].b[16], 16);
    }
    x[512] = 7;
}

static void put_state(struct interp *e, const struct oracle_case *c)
{
    struct vcpu *v = e->v;
    memcpy(v->gpr, c->in.gpr, sizeof c->in.gpr);
    vcpu_set_rflags(v, c->in.flags | 0x202);
    v->rip = CODE_AT;
    put_vectors(v, c->in.xsave);
    set_user(v, c->code32);
    vcpu_refresh(v);
    v->activity = VCPU_RUNNING;
    v->int_shadow = v->shadow_is_movss = v->pending_single_step = false;
    v->pending_dbg = 0;
    v->cr2 = 0;
    v->attn = 0;
}

static void put_memory(struct interp *e, const struct oracle_case *c)
{
    uint8_t code[BRANCH_TARGET - CODE_AT + 1];
    memset(code, 0xf4, sizeof code);
    memcpy(code, c->code, c->len);
    move(e, AT_CODE + (CODE_AT & 0xfff), code, sizeof code, true);
}

static void put_data(struct interp *e, const struct oracle_case *c)
{
    for (unsigned k = 0; k < WINDOWS; k++)
        if (c->window[k].len)
            move(e, AT_DATA + (c->window[k].at - DATA_AT), c->window[k].bytes, c->window[k].len, true);
}

/* The frame of the delivery that ended the case. */
static void take_frame(struct interp *e, const struct oracle_case *c, struct oracle_result *r)
{
    uint64_t frame[6] = {0}, sp = e->v->gpr[REG_RSP] - KERNEL;
    unsigned vector = (unsigned)((e->v->rip - KERNEL - AT_HANDLERS) / 16), with_error = 0;
    move(e, sp, frame, sizeof frame, false);
    if (AT_STACK - sp == 48) {
        r->error = (uint32_t)frame[0];
        with_error = 1;
    }
    r->out.rip = frame[with_error];
    r->out.flags = frame[with_error + 2];
    r->out.gpr[REG_RSP] = frame[with_error + 3];
    r->cr2 = e->v->cr2;
    r->exit = EXIT_FAULT;
    r->vector = (uint8_t)vector;
    if (vector == EXC_GP && (r->out.rip == BRANCH_TARGET || r->out.rip == CODE_AT + (uint64_t)c->len)) {
        r->exit = r->out.rip == BRANCH_TARGET ? EXIT_TAKEN : EXIT_FALL;
        r->vector = NO_VECTOR;
        r->error = 0;
    }
}

static void take_memory(struct interp *e, struct oracle_result *r)
{
    move(e, AT_DATA, e->data, sizeof e->data, false);
    oracle_take_changes(e->data, e->background, r);
    if (r->mem_end > r->mem_first)
        move(e, AT_DATA + r->mem_first, e->background + r->mem_first, r->mem_end - r->mem_first, true);
}

static void run_once(struct interp *e, const struct oracle_case *c, struct oracle_result *r)
{
    struct vcpu *v = e->v;
    memset(r, 0, sizeof *r);
    put_data(e, c);
    put_state(e, c);
    for (unsigned tries = 0; v->activity == VCPU_RUNNING && tries < 100; tries++)
        vcpu_run(v, 100000);
    memcpy(r->out.gpr, v->gpr, sizeof r->out.gpr);
    get_vectors(v, r->out.xsave);
    v->rip -= v->activity == VCPU_HALTED; /* behind the handler's HLT */
    take_frame(e, c, r);
    if (v->activity != VCPU_HALTED)
        r->vector = 0xee; /* it hangs, or has shut down */
    take_memory(e, r);
}

/* The code is written once, so that blocks and compiled code live through the runs; the last one counts. */
static void interp_run(void *engine, const struct oracle_case *c, struct oracle_result *r)
{
    struct interp *e = engine;
    put_memory(e, c);
    for (unsigned k = 0; k < e->runs; k++)
        run_once(e, c, r);
}

const struct oracle_engine oracle_interp = {"interp", interp_create, interp_destroy, interp_model, interp_run};
const struct oracle_engine oracle_jit = {"jit", jit_engine_create, interp_destroy, interp_model, interp_run};
