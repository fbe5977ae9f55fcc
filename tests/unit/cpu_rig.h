/*
 * What the cpu suites run a vCPU in: 4 MiB of RAM, identity-mapped where paging is on, with descriptor tables, a TSS
 * and a handler (HLT) for each vector. Instructions are given as bytes and executed one at a time.
 */
#ifndef TESTS_UNIT_CPU_RIG_H
#define TESTS_UNIT_CPU_RIG_H

#include "check_main.h"
#include "core/bus.h"
#include "core/clock.h"
#include "core/host/host_mm.h"
#include "core/trace.h"
#include "cpu/system.h"

#include <stdio.h>
#include <string.h>

#define RIG_RAM 0x400000u
enum {
    RIG_PML4 = 0x1000,
    RIG_PDPT = 0x2000,
    RIG_PD = 0x3000,
    RIG_PT = 0x4000,
    RIG_GDT = 0x10000,
    RIG_IDT = 0x11000,
    RIG_TSS = 0x12000,
    RIG_CODE = 0x20000,
    RIG_DATA = 0x28000,
    RIG_STACK = 0x31000,
    RIG_RSP0 = 0x33000,
    RIG_IST1 = 0x35000,
    RIG_HANDLERS = 0x40000, /* 16 bytes a vector */
    RIG_MMIO = 0x500000     /* beyond RAM; mapped by the second page table entry */
};

/* Selectors of the GDT. */
enum {
    SEL_CODE0 = 0x08,
    SEL_DATA0 = 0x10,
    SEL_CODE32_3 = 0x18,
    SEL_DATA3 = 0x20,
    SEL_CODE3 = 0x28,
    SEL_CODE32_0 = 0x30,
    SEL_TSS = 0x38, /* 16 bytes in long mode */
    SEL_LDT = 0x48, /* likewise */
    SEL_ABSENT = 0x58,
    SEL_CODE16 = 0x60,
    SEL_GATE = 0x68, /* likewise */
    SEL_READONLY = 0x78,
    SEL_SMALL = 0x80, /* data, limit 0xfff */
    SEL_LIMIT = 0x87
};

struct cpu_rig {
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
    struct cpu_model *model;
    struct vcpu *v;
    hva_t hva;             /* of RAM */
    uint64_t device_value; /* last written; what reads return */
    unsigned device_accesses, device_size;
    uint64_t device_offset, device_time; /* of the last access */
};

static inline uint64_t rig_device_read(void *dev, const struct bus_txn *t)
{
    struct cpu_rig *r = dev;
    r->device_accesses++;
    r->device_offset = t->offset;
    r->device_size = t->size;
    r->device_time = clock_now(&r->clock);
    return r->device_value;
}

static inline void rig_device_write(void *dev, const struct bus_txn *t, uint64_t value)
{
    struct cpu_rig *r = dev;
    rig_device_read(dev, t);
    r->device_value = value;
}

static const struct bus_ops rig_device_ops = {rig_device_read, rig_device_write};

static inline void rig_poke(struct cpu_rig *r, gpa_t gpa, uint64_t value, size_t size)
{
    mem_access(r->mem, 0, gpa, &value, size, MEM_HOST_POKE, true, BUS_NO_CPU);
}

static inline uint64_t rig_peek(struct cpu_rig *r, gpa_t gpa, size_t size)
{
    uint64_t value = 0;
    mem_access(r->mem, 0, gpa, &value, size, MEM_PEEK, false, BUS_NO_CPU);
    return value;
}

static inline void rig_open_kind(struct cpu_rig *r, const char *model, enum mmu_kind kind)
{
    char err[200] = "";
    const char *bad;
    memset(r, 0, sizeof *r);
    r->pool = frame_pool_create(16384, err, sizeof err);
    ck_assert_msg(r->pool != NULL, "%s", err);
    r->mm = host_mm_create(r->pool);
    r->log_file = fopen("/dev/null", "w");
    log_init(&r->log, getenv("UMBRA_TEST_VERBOSE") ? stderr : r->log_file);
    if (getenv("UMBRA_TEST_VERBOSE"))
        r->log.mask = ~0u;
    bus_init(&r->mmio, "mmio", 0, &r->log);
    bus_init(&r->ports, "port", 0x10000, &r->log);
    bus_add(&r->mmio, RIG_MMIO, 0x1000, &rig_device_ops, r, "device");
    bus_add(&r->ports, 0x100, 0x10, &rig_device_ops, r, "device");
    clock_init(&r->clock);
    trace_init(&r->trace, &r->clock);
    r->mem = mem_create(&(struct mem_config){.mm = r->mm, .mmio = &r->mmio, .log = &r->log, .trace = &r->trace});
    r->hva = host_mm_mmap_anon(r->mm, RIG_RAM, HOST_READ | HOST_WRITE);
    ck_assert_int_eq(mem_slot_add(r->mem, 0, 0, RIG_RAM, r->hva, MEMSLOT_RAM), 0);
    r->mmu =
        mmu_create(&(struct mmu_config){.kind = kind, .mem = r->mem, .vcpus = 1, .log = &r->log, .trace = &r->trace});
    r->code = code_cache_create(r->mem, &r->trace, &r->log);
    r->model = cpu_model_parse(model, &bad);
    ck_assert_ptr_nonnull(r->model);
    r->v = vcpu_create(&(struct vcpu_config){.mv = mmu_vcpu_get(r->mmu, 0),
                                             .mem = r->mem,
                                             .ports = &r->ports,
                                             .clock = &r->clock,
                                             .code = r->code,
                                             .log = &r->log,
                                             .trace = &r->trace,
                                             .model = r->model,
                                             .rng_seed = 1});
}

static inline void rig_open_model(struct cpu_rig *r, const char *model)
{
    rig_open_kind(r, model, MMU_WALK);
}

static inline void rig_open(struct cpu_rig *r)
{
    rig_open_model(r, "base");
}

static inline void rig_close(struct cpu_rig *r)
{
    vcpu_destroy(r->v);
    free(r->model);
    code_cache_destroy(r->code);
    mmu_destroy(r->mmu);
    mem_destroy(r->mem);
    trace_fini(&r->trace);
    bus_fini(&r->ports);
    bus_fini(&r->mmio);
    fclose(r->log_file);
    host_mm_destroy(r->mm);
    frame_pool_destroy(r->pool);
}

/* A gate of the 64-bit IDT to the vector's handler. attr: P, DPL, type. */
static inline void rig_gate64(struct cpu_rig *r, unsigned vector, unsigned attr, unsigned ist)
{
    uint64_t off = RIG_HANDLERS + 16 * vector;
    rig_poke(r, RIG_IDT + 16 * vector,
             (off & 0xffff) | SEL_CODE0 << 16 | (uint64_t)ist << 32 | (uint64_t)attr << 40 | (off >> 16) << 48, 8);
    rig_poke(r, RIG_IDT + 16 * vector + 8, 0, 8);
}

static inline void rig_gate32(struct cpu_rig *r, unsigned vector, unsigned attr)
{
    uint64_t off = RIG_HANDLERS + 16 * vector;
    rig_poke(r, RIG_IDT + 8 * vector, (off & 0xffff) | SEL_CODE32_0 << 16 | (uint64_t)attr << 40 | (off >> 16) << 48,
             8);
}

static inline void rig_gdt(struct cpu_rig *r, unsigned sel, uint64_t raw)
{
    rig_poke(r, RIG_GDT + sel, raw, 8);
}

static inline void rig_tables(struct cpu_rig *r, bool wide)
{
    rig_gdt(r, SEL_CODE0, wide ? 0x00af9b000000ffff : 0x00cf9b000000ffff);
    rig_gdt(r, SEL_DATA0, 0x00cf93000000ffff);
    rig_gdt(r, SEL_CODE32_3, 0x00cffb000000ffff);
    rig_gdt(r, SEL_DATA3, 0x00cff3000000ffff);
    rig_gdt(r, SEL_CODE3, wide ? 0x00affb000000ffff : 0x00cffb000000ffff);
    rig_gdt(r, SEL_CODE32_0, 0x00cf9b000000ffff);
    rig_gdt(r, SEL_TSS, 0x0000890000000067 | (uint64_t)RIG_TSS << 16 | 0x1fffull); /* limit 0x1fff | 0x67 */
    rig_gdt(r, SEL_ABSENT, 0x00cf13000000ffff);
    rig_gdt(r, SEL_CODE16, 0x000f9b000000ffff);
    rig_gdt(r, SEL_READONLY, 0x00cf91000000ffff);
    rig_gdt(r, SEL_SMALL, 0x0040920000000fff);
    for (unsigned vec = 0; vec < 256; vec++) {
        if (wide)
            rig_gate64(r, vec, 0x8e, 0);
        else
            rig_gate32(r, vec, 0x8e);
        rig_poke(r, RIG_HANDLERS + 16 * vec, 0xf4, 1);
    }
    r->v->gdtr = (struct desc_table){RIG_GDT, SEL_LIMIT};
    r->v->idtr = (struct desc_table){RIG_IDT, wide ? 0xfff : 0x7ff};
    r->v->tr = (struct segment){.sel = SEL_TSS, .base = RIG_TSS, .limit = 0x2067, .attr = SEG_ATTR_P | SYS_TSS_BUSY};
    rig_poke(r, RIG_TSS + 0x66, 0xffff, 2); /* no bitmap */
}

static inline uint16_t rig_attr(struct cpu_rig *r, unsigned sel)
{
    return (uint16_t)desc_attr(rig_peek(r, RIG_GDT + (sel & ~7u), 8));
}

static inline void rig_set_cpl(struct cpu_rig *r, unsigned code, unsigned data, unsigned cpl)
{
    for (int s = SEG_ES; s <= SEG_DS; s++)
        vcpu_set_segment(r->v, s, (uint16_t)(data | cpl), 0, 0xffffffff, rig_attr(r, data));
    vcpu_set_segment(r->v, SEG_CS, (uint16_t)(code | cpl), 0, 0xffffffff, rig_attr(r, code));
    vcpu_refresh(r->v);
    r->v->rip = RIG_CODE;
    r->v->gpr[REG_RSP] = RIG_STACK;
}

/* 64-bit mode, CPL 0, interrupts off. Pages of the first 2 MiB have 4 KiB entries; all may be used by anyone. */
static inline void rig_long(struct cpu_rig *r)
{
    struct vcpu *v = r->v;
    rig_poke(r, RIG_PML4, RIG_PDPT | 7, 8);
    rig_poke(r, RIG_PDPT, RIG_PD | 7, 8);
    rig_poke(r, RIG_PD, RIG_PT | 7, 8);
    rig_poke(r, RIG_PD + 8, 0x200087, 8);
    rig_poke(r, RIG_PD + 16, 0x400087, 8);
    for (unsigned k = 0; k < 512; k++)
        rig_poke(r, RIG_PT + 8 * k, k << 12 | 7, 8);
    v->cr0 = CR0_PE | CR0_PG | CR0_WP | CR0_ET | CR0_NE;
    v->cr4 = CR4_PAE;
    v->cr3 = RIG_PML4;
    v->efer = EFER_LME | EFER_LMA | EFER_NXE | EFER_SCE;
    rig_tables(r, true);
    rig_set_cpl(r, SEL_CODE0, SEL_DATA0, 0);
    rig_poke(r, RIG_TSS + 4, RIG_RSP0, 8);
    rig_poke(r, RIG_TSS + 0x24, RIG_IST1, 8);
}

/* 32-bit protected mode, CPL 0, no paging. */
static inline void rig_protected(struct cpu_rig *r)
{
    r->v->cr0 = CR0_PE | CR0_ET;
    rig_tables(r, false);
    rig_set_cpl(r, SEL_CODE0, SEL_DATA0, 0);
    rig_poke(r, RIG_TSS + 4, RIG_RSP0, 4);
    rig_poke(r, RIG_TSS + 8, SEL_DATA0, 2);
}

/* Real mode, CS:IP 0:RIG_CODE is out of reach, so code is at 1000:0. */
static inline void rig_real(struct cpu_rig *r)
{
    for (int s = SEG_ES; s <= SEG_GS; s++)
        vcpu_set_segment(r->v, s, 0, 0, 0xffff, 0x93);
    vcpu_set_segment(r->v, SEG_CS, 0x1000, 0x10000, 0xffff, 0x93);
    r->v->idtr = (struct desc_table){0, 0x3ff};
    vcpu_refresh(r->v);
    r->v->rip = 0;
    r->v->gpr[REG_RSP] = 0x8000;
}

static inline void rig_user(struct cpu_rig *r)
{
    rig_set_cpl(r, SEL_CODE3, SEL_DATA3, 3);
}

/* Executes the one instruction given as a string of bytes, at rip. A fault is delivered in the same call. */
static inline void rig_exec_bytes(struct cpu_rig *r, const char *bytes, size_t n)
{
    struct vcpu *v = r->v;
    mem_access(r->mem, 0, v->seg_base[SEG_CS] + v->rip, (void *)(uintptr_t)bytes, n, MEM_HOST_POKE, true, BUS_NO_CPU);
    vcpu_run(v, 1);
}
#define rig_exec(r, bytes) rig_exec_bytes((r), (bytes), sizeof(bytes) - 1)

/* The handler of `vector` is about to run. */
#define rig_expect_vector(r, vector) ck_assert_uint_eq((r)->v->rip, RIG_HANDLERS + 16 * (uint64_t)(vector))
/* And the top of its 64-bit (32-bit) stack is this error code. */
#define rig_expect_fault64(r, vector, error)                                                                           \
    do {                                                                                                               \
        rig_expect_vector(r, vector);                                                                                  \
        ck_assert_uint_eq(rig_peek((r), (r)->v->gpr[REG_RSP], 8), (error));                                            \
    } while (0)
#define rig_expect_fault32(r, vector, error)                                                                           \
    do {                                                                                                               \
        rig_expect_vector(r, vector);                                                                                  \
        ck_assert_uint_eq(rig_peek((r), (r)->v->gpr[REG_RSP], 4), (error));                                            \
    } while (0)

/* Slot n of the frame on top of the stack. */
#define rig_slot64(r, n) rig_peek((r), (r)->v->gpr[REG_RSP] + 8 * (n), 8)
#define rig_slot32(r, n) rig_peek((r), (r)->v->gpr[REG_RSP] + 4 * (n), 4)

/* One TCase of all tests in a NULL-terminated list. */
static inline Suite *rig_suite(const char *name, const TTest *const *tests, size_t n)
{
    Suite *s = suite_create(name);
    TCase *tc = tcase_create(name);
    for (size_t k = 0; k < n; k++)
        tcase_add_test(tc, tests[k]);
    suite_add_tcase(s, tc);
    return s;
}

#endif
