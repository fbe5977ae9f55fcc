/*
 * System calls, control registers, port I/O, time, flags that system software owns.
 */
#include "cpu/cpuid.h"
#include "cpu_rig.h"

/* MOV CRn, RAX with the value. */
static void mov_cr(struct cpu_rig *r, unsigned n, uint64_t value)
{
    char code[] = "\x0f\x22\xc0";
    code[2] = (char)(0xc0 | n << 3);
    r->v->rip = RIG_CODE;
    r->v->gpr[REG_RAX] = value;
    rig_exec_bytes(r, code, 3);
}

static bool is_done(const struct cpu_rig *r, unsigned len)
{
    return r->v->rip == RIG_CODE + len;
}

/* ---- system calls ---- */

static void set_syscall_msrs(struct cpu_rig *r)
{
    r->v->msr.star = (uint64_t)SEL_CODE0 << 32 | (uint64_t)SEL_CODE32_3 << 48;
    r->v->msr.lstar = RIG_CODE + 0x100;
    r->v->msr.fmask = FLAG_IF | FLAG_DF | FLAG_CF;
}

START_TEST(syscall_and_sysret_go_there_and_back)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    rig_user(&r);
    set_syscall_msrs(&r);
    vcpu_set_rflags(r.v, FLAG_IF | FLAG_CF | FLAG_ZF | 2);
    rig_exec(&r, "\x0f\x05");
    ck_assert_uint_eq(r.v->rip, RIG_CODE + 0x100);
    ck_assert_uint_eq(r.v->gpr[REG_RCX], RIG_CODE + 2);
    ck_assert_uint_eq(r.v->gpr[11], FLAG_IF | FLAG_CF | FLAG_ZF | 2);
    ck_assert_uint_eq(vcpu_rflags(r.v), FLAG_ZF | 2);
    ck_assert_uint_eq(r.v->cpl, 0);
    ck_assert_uint_eq(r.v->seg[SEG_CS].sel, SEL_CODE0);
    ck_assert_uint_eq(r.v->seg[SEG_SS].sel, SEL_DATA0);
    rig_exec(&r, "\x48\x0f\x07");
    ck_assert_uint_eq(r.v->rip, RIG_CODE + 2);
    ck_assert_uint_eq(vcpu_rflags(r.v), FLAG_IF | FLAG_CF | FLAG_ZF | 2);
    ck_assert_uint_eq(r.v->cpl, 3);
    ck_assert_uint_eq(r.v->seg[SEG_CS].sel, (SEL_CODE32_3 + 16) | 3);
    ck_assert_uint_eq(r.v->seg[SEG_SS].sel, SEL_DATA3 | 3);
    ck_assert(r.v->mode & MODE_CODE64);
    rig_close(&r);
}
END_TEST

START_TEST(sysret_without_rex_w_returns_to_compatibility_mode)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    set_syscall_msrs(&r);
    r.v->gpr[REG_RCX] = 0xffffffff00001234;
    r.v->gpr[11] = 2;
    rig_exec(&r, "\x0f\x07");
    ck_assert_uint_eq(r.v->rip, 0x1234);
    ck_assert_uint_eq(r.v->seg[SEG_CS].sel, SEL_CODE32_3 | 3);
    ck_assert_uint_eq(r.v->mode & (MODE_CODE64 | MODE_CODE32), MODE_CODE32);
    rig_close(&r);
}
END_TEST

START_TEST(sysret_to_an_address_that_is_not_canonical_faults_at_cpl_0)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    set_syscall_msrs(&r);
    r.v->gpr[REG_RCX] = 0x800000000000;
    rig_exec(&r, "\x48\x0f\x07");
    rig_expect_fault64(&r, EXC_GP, 0);
    ck_assert_uint_eq(rig_slot64(&r, 2), SEL_CODE0);
    rig_close(&r);
}
END_TEST

START_TEST(syscall_without_sce_is_undefined)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    r.v->efer &= ~EFER_SCE;
    rig_exec(&r, "\x0f\x05");
    rig_expect_vector(&r, EXC_UD);
    rig_close(&r);
}
END_TEST

START_TEST(sysenter_and_sysexit_go_there_and_back)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    rig_user(&r);
    rig_exec(&r, "\x0f\x34");
    rig_expect_fault64(&r, EXC_GP, 0); /* no SYSENTER_CS */
    rig_user(&r);
    r.v->msr.sysenter_cs = SEL_CODE0;
    r.v->msr.sysenter_eip = RIG_CODE + 0x100;
    r.v->msr.sysenter_esp = RIG_RSP0;
    r.v->rflags |= FLAG_IF;
    rig_exec(&r, "\x0f\x34");
    ck_assert_uint_eq(r.v->rip, RIG_CODE + 0x100);
    ck_assert_uint_eq(r.v->gpr[REG_RSP], RIG_RSP0);
    ck_assert_uint_eq(r.v->rflags, 2);
    ck_assert_uint_eq(r.v->cpl, 0);
    r.v->gpr[REG_RDX] = RIG_CODE + 2;
    r.v->gpr[REG_RCX] = RIG_STACK;
    rig_exec(&r, "\x48\x0f\x35");
    ck_assert_uint_eq(r.v->rip, RIG_CODE + 2);
    ck_assert_uint_eq(r.v->gpr[REG_RSP], RIG_STACK);
    ck_assert_uint_eq(r.v->seg[SEG_CS].sel, (SEL_CODE0 + 32) | 3);
    ck_assert_uint_eq(r.v->cpl, 3);
    rig_close(&r);
}
END_TEST

/* 32-bit code; real-mode code runs it with 16-bit operands. */
static void enter(struct cpu_rig *r, const char *mode)
{
    rig_open(r);
    if (strcmp(mode, "real") == 0)
        rig_real(r);
    else if (strncmp(mode, "compatibility", 13) == 0)
        rig_long(r);
    else
        rig_protected(r);
    if (strcmp(mode, "compatibility") == 0)
        rig_set_cpl(r, SEL_CODE32_0, SEL_DATA0, 0);
    if (strcmp(mode, "compatibility user") == 0)
        rig_set_cpl(r, SEL_CODE32_3, SEL_DATA3, 3);
    if (strcmp(mode, "user") == 0)
        rig_user(r);
    r->v->efer |= EFER_SCE;
    r->v->msr.sysenter_cs = SEL_CODE0;
    r->v->msr.sysenter_eip = RIG_CODE + 0x100;
    r->v->msr.sysenter_esp = RIG_RSP0;
    r->v->gpr[REG_RDX] = RIG_CODE + 0x200;
    r->v->gpr[REG_RCX] = RIG_STACK;
}

/* SDM volume 2: SYSENTER and SYSEXIT want protected mode, SYSEXIT CPL 0, SYSCALL and SYSRET 64-bit mode. */
START_TEST(fast_calls_exist_in_the_modes_that_they_are_made_for)
{
    static const struct {
        const char *mode, *insn;
        int vector; /* -1: it runs */
        uint64_t rip;
        unsigned cpl;
    } rows[] = {
        {"protected", "\x0f\x34", -1, RIG_CODE + 0x100, 0},
        {"user", "\x0f\x34", -1, RIG_CODE + 0x100, 0},
        {"compatibility user", "\x0f\x34", -1, RIG_CODE + 0x100, 0},
        {"protected", "\x0f\x35", -1, RIG_CODE + 0x200, 3},
        {"compatibility", "\x0f\x35", -1, RIG_CODE + 0x200, 3},
        {"user", "\x0f\x35", EXC_GP, 0, 0},
        {"compatibility user", "\x0f\x35", EXC_GP, 0, 0},
        {"protected", "\x0f\x05", EXC_UD, 0, 0},
        {"user", "\x0f\x05", EXC_UD, 0, 0},
        {"compatibility user", "\x0f\x05", EXC_UD, 0, 0},
        {"protected", "\x0f\x07", EXC_UD, 0, 0},
        {"compatibility", "\x0f\x07", EXC_UD, 0, 0},
        {"compatibility user", "\x0f\x07", EXC_UD, 0, 0},
    };
    struct cpu_rig r;
    for (unsigned k = 0; k < ARRAY_LEN(rows); k++) {
        enter(&r, rows[k].mode);
        rig_exec_bytes(&r, rows[k].insn, 2);
        ck_assert_msg(r.v->rip == (rows[k].vector < 0 ? rows[k].rip : RIG_HANDLERS + 16 * (uint64_t)rows[k].vector),
                      "row %u (%s): rip %llx", k, rows[k].mode, (unsigned long long)r.v->rip);
        if (rows[k].vector < 0)
            ck_assert_uint_eq(r.v->cpl, rows[k].cpl);
        rig_close(&r);
    }
    static const struct {
        const char *insn;
        unsigned vector;
    } real[] = {{"\x0f\x34", EXC_GP}, {"\x0f\x35", EXC_GP}, {"\x0f\x05", EXC_UD}, {"\x0f\x07", EXC_UD}};
    for (unsigned k = 0; k < ARRAY_LEN(real); k++) {
        enter(&r, "real");
        rig_poke(&r, 4 * real[k].vector, 0x50000000 + real[k].vector, 4);
        rig_exec_bytes(&r, real[k].insn, 2);
        ck_assert_msg(r.v->rip == real[k].vector && r.v->seg[SEG_CS].sel == 0x5000, "row %u in real mode", k);
        rig_close(&r);
    }
}
END_TEST

START_TEST(sysexit_and_sysenter_refuse_what_they_cannot_load)
{
    static const uint64_t bad = 0x0000800000000000;
    struct cpu_rig r;
    for (unsigned k = 0; k < 2; k++) { /* RDX, then RCX */
        rig_open(&r);
        rig_long(&r);
        r.v->msr.sysenter_cs = SEL_CODE0;
        r.v->gpr[REG_RDX] = k ? RIG_CODE : bad;
        r.v->gpr[REG_RCX] = k ? bad : RIG_STACK;
        rig_exec(&r, "\x48\x0f\x35");
        rig_expect_fault64(&r, EXC_GP, 0);
        ck_assert_uint_eq(r.v->cpl, 0);
        rig_close(&r);
    }
    rig_open(&r);
    rig_protected(&r);
    r.v->msr.sysenter_cs = 3; /* null whatever its RPL */
    rig_exec(&r, "\x0f\x34");
    rig_expect_fault32(&r, EXC_GP, 0);
    r.v->rip = RIG_CODE;
    rig_exec(&r, "\x0f\x35");
    rig_expect_fault32(&r, EXC_GP, 0);
    rig_close(&r);
}
END_TEST

/* ---- control registers ---- */

START_TEST(long_mode_starts_and_ends_with_paging)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r); /* leaves the page tables */
    rig_tables(&r, false);
    r.v->cr0 = CR0_PE | CR0_ET;
    r.v->cr4 = 0;
    r.v->efer = EFER_LME;
    rig_set_cpl(&r, SEL_CODE0, SEL_DATA0, 0);
    mov_cr(&r, 0, CR0_PE | CR0_PG);
    rig_expect_fault32(&r, EXC_GP, 0); /* no PAE */
    ck_assert(!(r.v->efer & EFER_LMA));
    mov_cr(&r, 4, CR4_PAE);
    mov_cr(&r, 0, CR0_PE | CR0_PG);
    ck_assert(is_done(&r, 3));
    ck_assert(r.v->efer & EFER_LMA);
    ck_assert_uint_eq(r.v->mode & (MODE_LONG | MODE_CODE64), MODE_LONG);
    r.v->idtr.limit = 0xfff;
    mov_cr(&r, 0, CR0_PE);
    ck_assert(is_done(&r, 3)); /* from compatibility mode */
    ck_assert(!(r.v->efer & EFER_LMA));
    rig_close(&r);
}
END_TEST

START_TEST(values_that_control_registers_refuse)
{
    static const struct {
        unsigned n;
        uint64_t value;
    } t[] = {{0, CR0_PG},                       /* without PE */
             {0, CR0_PE},                       /* PG off in 64-bit mode */
             {0, CR0_PE | CR0_PG | CR0_NW},     /* NW without CD */
             {0, CR0_PE | CR0_PG | 1ull << 32}, /* reserved */
             {3, 1ull << 40},                   /* beyond MAXPHYADDR */
             {4, 0},                            /* PAE off in long mode */
             {4, CR4_PAE | CR4_PCIDE},          /* not offered */
             {4, CR4_PAE | CR4_LA57},           /* likewise */
             {4, CR4_PAE | 1ull << 13},         /* VMXE: likewise */
             {4, CR4_PAE | 1ull << 40}};
    struct cpu_rig r;
    rig_open(&r);
    for (unsigned k = 0; k < ARRAY_LEN(t); k++) {
        rig_long(&r);
        mov_cr(&r, t[k].n, t[k].value);
        rig_expect_fault64(&r, EXC_GP, 0);
        ck_assert_uint_eq(r.v->cr4, CR4_PAE);
        ck_assert_uint_eq(r.v->cr3, RIG_PML4);
    }
    rig_long(&r);
    mov_cr(&r, 1, 0);
    rig_expect_vector(&r, EXC_UD);
    rig_long(&r);
    rig_user(&r);
    mov_cr(&r, 3, RIG_PML4);
    rig_expect_fault64(&r, EXC_GP, 0);
    rig_close(&r);
}
END_TEST

static void start_pae(struct cpu_rig *r)
{
    rig_protected(r);
    for (unsigned k = 0; k < 4; k++)
        rig_poke(r, RIG_PDPT + 8 * k, RIG_PD | 1, 8);
    rig_poke(r, RIG_PD, 0x83, 8); /* 2 MiB identity */
    r->v->cr3 = RIG_PDPT;
    r->v->cr4 = CR4_PAE;
    vcpu_refresh(r->v);
    mov_cr(r, 0, CR0_PE | CR0_PG);
    ck_assert(is_done(r, 3));
}

START_TEST(pdptes_are_registers_loaded_with_cr3)
{
    struct cpu_rig r;
    rig_open(&r);
    start_pae(&r);
    for (unsigned k = 0; k < 4; k++)
        ck_assert_uint_eq(r.v->pdpte[k], RIG_PD | 1);
    rig_poke(&r, RIG_PDPT, 0, 8); /* not re-read: execution goes on */
    r.v->rip = RIG_CODE;
    rig_exec(&r, "\x90");
    ck_assert(is_done(&r, 1));
    mov_cr(&r, 3, RIG_PDPT); /* now it is */
    ck_assert_uint_eq(r.v->pdpte[0], 0);
    rig_close(&r);
}
END_TEST

START_TEST(a_reserved_bit_in_a_present_pdpte_is_a_protection_fault)
{
    struct cpu_rig r;
    rig_open(&r);
    start_pae(&r);
    rig_poke(&r, RIG_PDPT + 24, RIG_PD | 3, 8);
    mov_cr(&r, 3, RIG_PDPT);
    rig_expect_fault32(&r, EXC_GP, 0);
    ck_assert_uint_eq(r.v->pdpte[3], RIG_PD | 1);
    rig_close(&r);
}
END_TEST

START_TEST(lmsw_sets_pe_and_does_not_clear_it)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_protected(&r);
    r.v->gpr[REG_RAX] = CR0_TS;
    rig_exec(&r, "\x0f\x01\xf0");
    ck_assert_uint_eq(r.v->cr0, CR0_PE | CR0_TS | CR0_ET);
    rig_exec(&r, "\x0f\x06"); /* CLTS */
    ck_assert_uint_eq(r.v->cr0, CR0_PE | CR0_ET);
    rig_close(&r);
}
END_TEST

START_TEST(xsetbv_needs_osxsave_and_takes_offered_components_only)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    rig_exec(&r, "\x0f\x01\xd0"); /* XGETBV */
    rig_expect_vector(&r, EXC_UD);
    rig_long(&r);
    r.v->cr4 |= CR4_OSXSAVE;
    r.v->gpr[REG_RDX] = 0; /* the signature after reset */
    r.v->gpr[REG_RAX] = 3;
    rig_exec(&r, "\x0f\x01\xd1");
    ck_assert(is_done(&r, 3));
    ck_assert_uint_eq(r.v->xcr0, 3);
    r.v->gpr[REG_RAX] = 2; /* x87 cannot be left out */
    rig_exec(&r, "\x0f\x01\xd1");
    rig_expect_fault64(&r, EXC_GP, 0);
    rig_close(&r);
}
END_TEST

START_TEST(swapgs_and_fsgsbase_move_the_bases)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    r.v->msr.kernel_gs_base = 0xffff888000000000;
    rig_exec(&r, "\x0f\x01\xf8");
    ck_assert_uint_eq(r.v->seg_base[SEG_GS], 0xffff888000000000);
    ck_assert_uint_eq(r.v->msr.kernel_gs_base, 0);
    rig_exec(&r, "\xf3\x48\x0f\xae\xc8"); /* RDGSBASE RAX */
    rig_expect_vector(&r, EXC_UD);
    rig_long(&r);
    r.v->cr4 |= CR4_FSGSBASE;
    rig_exec(&r, "\xf3\x48\x0f\xae\xc8");
    ck_assert_uint_eq(r.v->gpr[REG_RAX], 0xffff888000000000);
    r.v->gpr[REG_RAX] = 0x1234000000000000;
    rig_exec(&r, "\xf3\x48\x0f\xae\xd0"); /* WRFSBASE RAX */
    rig_expect_fault64(&r, EXC_GP, 0);
    rig_close(&r);
}
END_TEST

START_TEST(stac_lets_the_kernel_use_user_pages_under_smap)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    for (unsigned k = 0; k < 512; k++) /* all supervisor but RIG_DATA */
        if (k != RIG_DATA >> 12)
            rig_poke(&r, RIG_PT + 8 * k, k << 12 | 3, 8);
    mov_cr(&r, 4, CR4_PAE | CR4_SMAP);
    r.v->gpr[REG_RBX] = RIG_DATA;
    rig_exec(&r, "\x8a\x03");
    rig_expect_fault64(&r, EXC_PF, PF_PRESENT);
    rig_set_cpl(&r, SEL_CODE0, SEL_DATA0, 0);
    rig_exec(&r, "\x0f\x01\xcb"); /* STAC */
    rig_exec(&r, "\x8a\x03");
    ck_assert(is_done(&r, 5));
    rig_exec(&r, "\x0f\x01\xca"); /* CLAC */
    rig_exec(&r, "\x8a\x03");
    rig_expect_fault64(&r, EXC_PF, PF_PRESENT);
    rig_close(&r);
}
END_TEST

START_TEST(wrpkru_takes_effect_at_once)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    rig_poke(&r, RIG_PT + 8 * (RIG_DATA >> 12), RIG_DATA | 7 | 1ull << 59, 8); /* key 1 */
    mov_cr(&r, 4, CR4_PAE | CR4_PKE);
    rig_user(&r);
    r.v->gpr[REG_RAX] = 1 << 3; /* key 1: no writes */
    r.v->gpr[REG_RCX] = r.v->gpr[REG_RDX] = 0;
    r.v->gpr[REG_RBX] = RIG_DATA;
    rig_exec(&r, "\x0f\x01\xef");
    rig_exec(&r, "\x8a\x0b"); /* reads are allowed */
    ck_assert(is_done(&r, 5));
    rig_exec(&r, "\x88\x0b");
    rig_expect_fault64(&r, EXC_PF, PF_PRESENT | PF_WRITE | PF_USER | PF_PKEY);
    rig_close(&r);
}
END_TEST

/* ---- ports ---- */

START_TEST(a_port_access_is_a_boundary_at_an_exact_time_and_costs_its_surcharge)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    r.device_value = 0x11223344;
    r.v->gpr[REG_RDX] = 0x104;
    mem_access(r.mem, 0, RIG_CODE, "\x90\x90\xed\x90\x90", 5, MEM_HOST_POKE, true, BUS_NO_CPU); /* NOP NOP IN NOP NOP */
    ck_assert_int_eq(vcpu_run(r.v, 100000), VCPU_EXIT_BOUNDARY);
    ck_assert(is_done(&r, 3));
    ck_assert_uint_eq(r.v->gpr[REG_RAX], 0x11223344);
    ck_assert_uint_eq(r.device_time, 2);
    ck_assert_uint_eq(r.device_offset, 4);
    ck_assert_uint_eq(r.clock.icount, 3);
    ck_assert_uint_eq(clock_now(&r.clock), 1003);
    rig_close(&r);
}
END_TEST

START_TEST(ports_outside_iopl_need_a_clear_bit_for_each_byte)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    rig_user(&r);
    r.v->gpr[REG_RDX] = 0x104;
    rig_exec(&r, "\xec"); /* the bitmap lies outside the TSS */
    rig_expect_fault64(&r, EXC_GP, 0);
    rig_poke(&r, RIG_TSS + 0x66, 0x68, 2);
    rig_poke(&r, RIG_TSS + 0x68 + 0x100 / 8, 0xffcf, 2); /* 104 and 105 alone */
    rig_user(&r);
    rig_exec(&r, "\xec");
    ck_assert(is_done(&r, 1));
    rig_exec(&r, "\x66\xed");
    ck_assert(is_done(&r, 3));
    rig_exec(&r, "\xed");
    rig_expect_fault64(&r, EXC_GP, 0);
    ck_assert_uint_eq(r.device_accesses, 2);
    rig_user(&r);
    r.v->rflags |= FLAG_IOPL;
    rig_exec(&r, "\xed");
    ck_assert(is_done(&r, 1));
    rig_close(&r);
}
END_TEST

START_TEST(the_bitmap_ends_with_the_tss)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    rig_user(&r);
    rig_poke(&r, RIG_TSS + 0x66, 0x68, 2);
    r.v->gpr[REG_RDX] = 0x104;
    r.v->tr.limit = 0x68 + 0x104 / 8 + 1;
    rig_exec(&r, "\xec");
    ck_assert(is_done(&r, 1));
    r.v->tr.limit--;
    rig_exec(&r, "\xec");
    rig_expect_fault64(&r, EXC_GP, 0);
    rig_close(&r);
}
END_TEST

START_TEST(rep_ins_counts_each_iteration_and_stops_where_it_faults)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    rig_poke(&r, RIG_PT + 8 * 0x51, 0, 8);
    r.device_value = 0x5a;
    r.v->gpr[REG_RDX] = 0x100;
    r.v->gpr[REG_RCX] = 4;
    r.v->gpr[REG_RDI] = 0x50ffe;
    rig_exec(&r, "\xf3\x6c"); /* REP INSB */
    ck_assert(is_done(&r, 0));
    ck_assert_uint_eq(r.v->gpr[REG_RCX], 3);
    ck_assert_uint_eq(r.clock.icount, 1);
    vcpu_run(r.v, 1);
    vcpu_run(r.v, 1);
    rig_expect_fault64(&r, EXC_PF, PF_WRITE);
    ck_assert_uint_eq(r.v->cr2, 0x51000);
    ck_assert_uint_eq(r.v->gpr[REG_RCX], 2);
    ck_assert_uint_eq(r.v->gpr[REG_RDI], 0x51000);
    ck_assert_uint_eq(r.device_accesses, 2); /* the device was not read for the byte that has no place */
    ck_assert_uint_eq(rig_peek(&r, 0x50ffe, 2), 0x5a5a);
    ck_assert_uint_eq(r.clock.icount, 3);
    rig_close(&r);
}
END_TEST

START_TEST(rep_outs_of_nothing_counts_one)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    r.v->gpr[REG_RDX] = 0x100;
    r.v->gpr[REG_RCX] = 0;
    rig_exec(&r, "\xf3\x6e");
    ck_assert(is_done(&r, 2));
    ck_assert_uint_eq(r.device_accesses, 0);
    ck_assert_uint_eq(r.clock.icount, 1);
    rig_close(&r);
}
END_TEST

/* ---- flags and time ---- */

START_TEST(sti_opens_the_window_one_instruction_later)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    rig_exec(&r, "\xfb");
    ck_assert(r.v->int_shadow);
    rig_exec(&r, "\xfb");
    ck_assert(!r.v->int_shadow); /* IF was set already */
    rig_user(&r);
    rig_exec(&r, "\xfa");
    rig_expect_fault64(&r, EXC_GP, 0);
    rig_close(&r);
}
END_TEST

START_TEST(rdtsc_reads_virtual_time_and_is_charged_for)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    rig_exec(&r, "\x90");
    rig_exec(&r, "\x0f\x31");
    ck_assert_uint_eq(r.v->gpr[REG_RAX], 1);
    ck_assert_uint_eq(clock_now(&r.clock), 18);
    r.v->cr4 |= CR4_TSD;
    rig_user(&r);
    rig_exec(&r, "\x0f\x31");
    rig_expect_fault64(&r, EXC_GP, 0);
    rig_close(&r);
}
END_TEST

START_TEST(hlt_halts_and_is_privileged)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    rig_exec(&r, "\xf4");
    ck_assert_int_eq(r.v->activity, VCPU_HALTED);
    ck_assert(is_done(&r, 1));
    r.v->activity = VCPU_RUNNING;
    rig_user(&r);
    rig_exec(&r, "\xf4");
    rig_expect_fault64(&r, EXC_GP, 0);
    rig_close(&r);
}
END_TEST

START_TEST(pause_ends_the_turn)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    mem_access(r.mem, 0, RIG_CODE, "\xf3\x90", 2, MEM_HOST_POKE, true, BUS_NO_CPU);
    ck_assert_int_eq(vcpu_run(r.v, 1000), VCPU_EXIT_TURN);
    ck_assert_uint_eq(clock_now(&r.clock), 65);
    rig_close(&r);
}
END_TEST

START_TEST(rdrand_exists_only_where_it_is_offered_and_repeats_with_its_seed)
{
    struct cpu_rig a, b;
    rig_open(&a);
    rig_long(&a);
    rig_exec(&a, "\x48\x0f\xc7\xf0");
    rig_expect_vector(&a, EXC_UD);
    rig_close(&a);
    rig_open_model(&a, "base,+rdrand");
    rig_open_model(&b, "base,+rdrand");
    rig_long(&a);
    rig_long(&b);
    rig_exec(&a, "\x48\x0f\xc7\xf0");
    rig_exec(&b, "\x48\x0f\xc7\xf0");
    ck_assert(flag_cf(a.v));
    ck_assert_uint_eq(a.v->gpr[REG_RAX], b.v->gpr[REG_RAX]);
    rig_exec(&a, "\x48\x0f\xc7\xf0");
    ck_assert_uint_ne(a.v->gpr[REG_RAX], b.v->gpr[REG_RAX]);
    rig_close(&a);
    rig_close(&b);
}
END_TEST

static Suite *suite(void)
{
    const TTest *const tests[] = {
        syscall_and_sysret_go_there_and_back,
        sysret_without_rex_w_returns_to_compatibility_mode,
        sysret_to_an_address_that_is_not_canonical_faults_at_cpl_0,
        syscall_without_sce_is_undefined,
        sysenter_and_sysexit_go_there_and_back,
        fast_calls_exist_in_the_modes_that_they_are_made_for,
        sysexit_and_sysenter_refuse_what_they_cannot_load,
        long_mode_starts_and_ends_with_paging,
        values_that_control_registers_refuse,
        pdptes_are_registers_loaded_with_cr3,
        a_reserved_bit_in_a_present_pdpte_is_a_protection_fault,
        lmsw_sets_pe_and_does_not_clear_it,
        xsetbv_needs_osxsave_and_takes_offered_components_only,
        swapgs_and_fsgsbase_move_the_bases,
        stac_lets_the_kernel_use_user_pages_under_smap,
        wrpkru_takes_effect_at_once,
        a_port_access_is_a_boundary_at_an_exact_time_and_costs_its_surcharge,
        ports_outside_iopl_need_a_clear_bit_for_each_byte,
        the_bitmap_ends_with_the_tss,
        rep_ins_counts_each_iteration_and_stops_where_it_faults,
        rep_outs_of_nothing_counts_one,
        sti_opens_the_window_one_instruction_later,
        rdtsc_reads_virtual_time_and_is_charged_for,
        hlt_halts_and_is_privileged,
        pause_ends_the_turn,
        rdrand_exists_only_where_it_is_offered_and_repeats_with_its_seed,
    };
    return rig_suite("system", tests, ARRAY_LEN(tests));
}

CHECK_MAIN(suite)
