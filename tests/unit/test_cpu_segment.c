/*
 * Segment loads, descriptor tables, far transfers and returns: checks, error codes, privilege changes, mode switches.
 */
#include "cpu_rig.h"

static void put_far(struct cpu_rig *r, gpa_t at, uint32_t off, uint16_t sel)
{
    rig_poke(r, at, off, 4);
    rig_poke(r, at + 4, sel, 2);
}

/* The far pointer at RIG_DATA, used through [RBX]. */
static void use_far(struct cpu_rig *r, uint32_t off, uint16_t sel)
{
    put_far(r, RIG_DATA, off, sel);
    r->v->gpr[REG_RBX] = RIG_DATA;
}

static void put_frame(struct cpu_rig *r, const uint64_t *slot, unsigned n)
{
    for (unsigned k = 0; k < n; k++)
        rig_poke(r, RIG_STACK + 8 * k, slot[k], 8);
    r->v->gpr[REG_RSP] = RIG_STACK;
}

static void put_call_gate64(struct cpu_rig *r, uint16_t cs, uint64_t off, unsigned attr)
{
    rig_gdt(r, SEL_GATE, (off & 0xffff) | (uint64_t)cs << 16 | (uint64_t)attr << 40 | (off >> 16 & 0xffff) << 48);
    rig_gdt(r, SEL_GATE + 8, off >> 32);
}

static void put_tss(struct cpu_rig *r, unsigned attr)
{
    rig_gdt(r, SEL_TSS, 0x67 | (uint64_t)RIG_TSS << 16 | (uint64_t)attr << 40);
    rig_gdt(r, SEL_TSS + 8, 0xffff8000);
}

static void load_ds(struct cpu_rig *r, uint16_t sel)
{
    r->v->rip = RIG_CODE;
    r->v->gpr[REG_RAX] = sel;
    rig_exec(r, "\x8e\xd8");
}

static void load_ss(struct cpu_rig *r, uint16_t sel)
{
    r->v->rip = RIG_CODE;
    r->v->gpr[REG_RAX] = sel;
    rig_exec(r, "\x8e\xd0");
}

/* ---- loads ---- */

START_TEST(a_load_sets_the_accessed_bit_and_the_hidden_part)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    load_ds(&r, SEL_SMALL);
    ck_assert_uint_eq(r.v->rip, RIG_CODE + 2);
    ck_assert_uint_eq(rig_peek(&r, RIG_GDT + SEL_SMALL + 5, 1), 0x93);
    ck_assert_uint_eq(r.v->seg[SEG_DS].limit, 0xfff);
    ck_assert_uint_eq(r.v->seg[SEG_DS].sel, SEL_SMALL);
    rig_close(&r);
}
END_TEST

START_TEST(loads_that_fail_name_the_selector)
{
    static const struct {
        uint16_t sel;
        enum exception vector;
        uint32_t error;
    } ds[] = {{0x200, EXC_GP, 0x200},              /* beyond the table */
              {0x0c, EXC_GP, 0x0c},                /* LDT is null */
              {SEL_ABSENT, EXC_NP, SEL_ABSENT},    /* not present */
              {SEL_TSS, EXC_GP, SEL_TSS},          /* system */
              {SEL_DATA0 | 3, EXC_GP, SEL_DATA0}}, /* RPL > DPL */
        ss[] = {{SEL_READONLY, EXC_GP, SEL_READONLY},
                {SEL_CODE0, EXC_GP, SEL_CODE0},
                {SEL_DATA3 | 3, EXC_GP, SEL_DATA3},
                {SEL_ABSENT, EXC_SS, SEL_ABSENT},
                {3, EXC_GP, 0}};
    struct cpu_rig r;
    rig_open(&r);
    for (unsigned k = 0; k < ARRAY_LEN(ds); k++) {
        rig_long(&r);
        load_ds(&r, ds[k].sel);
        rig_expect_fault64(&r, ds[k].vector, ds[k].error);
        ck_assert_uint_eq(r.v->seg[SEG_DS].sel, SEL_DATA0);
    }
    for (unsigned k = 0; k < ARRAY_LEN(ss); k++) {
        rig_long(&r);
        load_ss(&r, ss[k].sel);
        rig_expect_fault64(&r, ss[k].vector, ss[k].error);
    }
    rig_close(&r);
}
END_TEST

START_TEST(null_ss_is_legal_in_64_bit_mode_at_cpl_0_only)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    load_ss(&r, 0);
    ck_assert_uint_eq(r.v->rip, RIG_CODE + 2);
    ck_assert(r.v->seg[SEG_SS].unusable);
    rig_close(&r);
    rig_open(&r);
    rig_protected(&r);
    load_ss(&r, 0);
    rig_expect_fault32(&r, EXC_GP, 0);
    rig_close(&r);
}
END_TEST

START_TEST(an_access_through_a_null_segment_or_beyond_its_limit_faults)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_protected(&r);
    load_ds(&r, 0);
    ck_assert_uint_eq(r.v->rip, RIG_CODE + 2);
    r.v->gpr[REG_RBX] = RIG_DATA;
    rig_exec(&r, "\x8b\x03"); /* MOV EAX, [EBX] */
    rig_expect_fault32(&r, EXC_GP, 0);
    load_ds(&r, SEL_SMALL);
    r.v->gpr[REG_RBX] = 0xffc;
    rig_exec(&r, "\x8b\x03");
    ck_assert_uint_eq(r.v->rip, RIG_CODE + 4);
    r.v->gpr[REG_RBX] = 0xffd;
    rig_exec(&r, "\x8b\x03");
    rig_expect_fault32(&r, EXC_GP, 0);
    load_ds(&r, SEL_READONLY);
    r.v->gpr[REG_RBX] = RIG_DATA;
    rig_exec(&r, "\x89\x03"); /* MOV [EBX], EAX */
    rig_expect_fault32(&r, EXC_GP, 0);
    rig_close(&r);
}
END_TEST

START_TEST(mov_ss_holds_interrupts_off_for_one_instruction)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    load_ss(&r, SEL_DATA0);
    ck_assert(r.v->int_shadow);
    ck_assert(r.v->shadow_is_movss);
    rig_exec(&r, "\x90");
    ck_assert(!r.v->int_shadow);
    rig_close(&r);
}
END_TEST

START_TEST(real_mode_loads_shift_the_selector_and_keep_the_limit)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_real(&r);
    r.v->seg[SEG_DS].limit = 0xffffffff;
    r.v->gpr[REG_RAX] = 0x1234;
    rig_exec(&r, "\x8e\xd8");
    ck_assert_uint_eq(r.v->seg_base[SEG_DS], 0x12340);
    ck_assert_uint_eq(r.v->seg[SEG_DS].limit, 0xffffffff);
    rig_close(&r);
}
END_TEST

/* ---- system segments ---- */

START_TEST(ltr_takes_16_bytes_in_long_mode_and_marks_the_tss_busy)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    put_tss(&r, 0x89);
    r.v->gpr[REG_RAX] = SEL_TSS;
    rig_exec(&r, "\x0f\x00\xd8");
    ck_assert_uint_eq(r.v->rip, RIG_CODE + 3);
    ck_assert_uint_eq(rig_peek(&r, RIG_GDT + SEL_TSS + 5, 1), 0x8b);
    ck_assert_uint_eq(r.v->tr.base, 0xffff800000000000 | RIG_TSS);
    r.v->tr.base = RIG_TSS;
    r.v->rip = RIG_CODE;
    rig_exec(&r, "\x0f\x00\xd8"); /* busy now */
    rig_expect_fault64(&r, EXC_GP, SEL_TSS);
    rig_close(&r);
}
END_TEST

START_TEST(lldt_makes_selectors_with_ti_usable)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    rig_gdt(&r, SEL_LDT, 0x0000820000000017 | (uint64_t)(RIG_GDT + 0x800) << 16);
    rig_gdt(&r, SEL_LDT + 8, 0);
    rig_poke(&r, RIG_GDT + 0x808, 0x00cf93000000ffff, 8);
    r.v->gpr[REG_RAX] = SEL_LDT;
    rig_exec(&r, "\x0f\x00\xd0");
    load_ds(&r, 0x0c);
    ck_assert_uint_eq(r.v->rip, RIG_CODE + 2);
    load_ds(&r, 0x1c);
    rig_expect_fault64(&r, EXC_GP, 0x1c);
    rig_close(&r);
}
END_TEST

START_TEST(lar_lsl_and_verify_report_visibility_in_zf)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    r.v->gpr[REG_RBX] = SEL_SMALL;
    rig_exec(&r, "\x0f\x02\xc3"); /* LAR EAX, EBX */
    ck_assert_uint_eq(r.v->gpr[REG_RAX], 0x00409200);
    ck_assert(flag_zf(r.v));
    rig_exec(&r, "\x0f\x03\xcb"); /* LSL ECX, EBX */
    ck_assert_uint_eq(r.v->gpr[REG_RCX], 0xfff);
    r.v->gpr[REG_RBX] = SEL_READONLY;
    rig_exec(&r, "\x0f\x00\xe3"); /* VERR BX */
    ck_assert(flag_zf(r.v));
    rig_exec(&r, "\x0f\x00\xeb"); /* VERW BX */
    ck_assert(!flag_zf(r.v));
    rig_user(&r);
    rig_exec(&r, "\x0f\x00\xe3"); /* DPL 0 is out of sight */
    ck_assert(!flag_zf(r.v));
    r.v->gpr[REG_RAX] = 0x77;
    r.v->gpr[REG_RBX] = 0x208;
    rig_exec(&r, "\x0f\x02\xc3");
    ck_assert(!flag_zf(r.v));
    ck_assert_uint_eq(r.v->gpr[REG_RAX], 0x77);
    rig_close(&r);
}
END_TEST

START_TEST(umip_hides_the_tables_from_user_mode)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    rig_user(&r);
    r.v->gpr[REG_RBX] = RIG_DATA;
    rig_exec(&r, "\x0f\x01\x03"); /* SGDT [RBX] */
    ck_assert_uint_eq(rig_peek(&r, RIG_DATA, 2), SEL_LIMIT);
    ck_assert_uint_eq(rig_peek(&r, RIG_DATA + 2, 8), RIG_GDT);
    r.v->cr4 |= CR4_UMIP;
    rig_exec(&r, "\x0f\x01\x03");
    rig_expect_fault64(&r, EXC_GP, 0);
    rig_close(&r);
}
END_TEST

START_TEST(lgdt_refuses_a_base_that_is_not_canonical)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    rig_poke(&r, RIG_DATA, 0x7f, 2);
    rig_poke(&r, RIG_DATA + 2, 0x0001000000000000, 8);
    r.v->gpr[REG_RBX] = RIG_DATA;
    rig_exec(&r, "\x0f\x01\x13");
    rig_expect_fault64(&r, EXC_GP, 0);
    ck_assert_uint_eq(r.v->gdtr.base, RIG_GDT);
    rig_close(&r);
}
END_TEST

/* ---- far jumps, calls, returns ---- */

START_TEST(far_jumps_switch_between_64_bit_and_compatibility_mode)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    use_far(&r, RIG_CODE + 0x100, SEL_CODE32_0);
    rig_exec(&r, "\xff\x2b"); /* JMP FAR [RBX] */
    ck_assert_uint_eq(r.v->rip, RIG_CODE + 0x100);
    ck_assert(!(r.v->mode & MODE_CODE64));
    ck_assert(r.v->mode & MODE_CODE32);
    ck_assert(r.v->mode & MODE_LONG);
    rig_exec(&r, "\xea\x00\x03\x02\x00\x08\x00"); /* JMP 8:20300 */
    ck_assert_uint_eq(r.v->rip, RIG_CODE + 0x300);
    ck_assert(r.v->mode & MODE_CODE64);
    rig_close(&r);
}
END_TEST

START_TEST(a_far_jump_starts_protected_mode)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_protected(&r);
    rig_real(&r);
    r.v->gdtr = (struct desc_table){RIG_GDT, SEL_LIMIT};
    r.v->cr0 = CR0_ET;
    vcpu_refresh(r.v);
    r.v->gpr[REG_RAX] = 1;
    rig_exec(&r, "\x0f\x22\xc0"); /* MOV CR0, EAX */
    ck_assert(r.v->mode & MODE_PE);
    ck_assert(!(r.v->mode & MODE_CODE32));
    rig_exec(&r, "\x66\xea\x00\x00\x02\x00\x08\x00"); /* JMP 8:20000 */
    ck_assert_uint_eq(r.v->rip, RIG_CODE);
    ck_assert(r.v->mode & MODE_CODE32);
    ck_assert_uint_eq(r.v->seg_base[SEG_CS], 0);
    rig_close(&r);
}
END_TEST

START_TEST(far_jumps_that_fail_name_the_selector)
{
    static const struct {
        uint16_t sel;
        enum exception vector;
        uint32_t error;
    } t[] = {{0, EXC_GP, 0},
             {SEL_DATA0, EXC_GP, SEL_DATA0},
             {SEL_CODE3, EXC_GP, SEL_CODE3},
             {SEL_CODE0 | 3, EXC_GP, SEL_CODE0},
             {SEL_TSS, EXC_GP, SEL_TSS},
             {0x300, EXC_GP, 0x300}};
    struct cpu_rig r;
    rig_open(&r);
    for (unsigned k = 0; k < ARRAY_LEN(t); k++) {
        rig_long(&r);
        use_far(&r, RIG_CODE, t[k].sel);
        rig_exec(&r, "\xff\x2b");
        rig_expect_fault64(&r, t[k].vector, t[k].error);
    }
    rig_long(&r);
    rig_gdt(&r, SEL_CODE16, 0x000f1b000000ffff);
    use_far(&r, RIG_CODE, SEL_CODE16);
    rig_exec(&r, "\xff\x2b");
    rig_expect_fault64(&r, EXC_NP, SEL_CODE16);
    rig_close(&r);
}
END_TEST

START_TEST(a_far_call_and_return_come_back)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    use_far(&r, RIG_CODE + 0x100, SEL_CODE0);
    rig_exec(&r, "\x48\xff\x1b"); /* CALL FAR m16:64: the selector is at +8 */
    rig_expect_fault64(&r, EXC_GP, 0);
    rig_poke(&r, RIG_DATA + 8, SEL_CODE0, 2);
    rig_poke(&r, RIG_DATA, RIG_CODE + 0x100, 8);
    r.v->rip = RIG_CODE;
    r.v->gpr[REG_RSP] = RIG_STACK;
    rig_exec(&r, "\x48\xff\x1b");
    ck_assert_uint_eq(r.v->rip, RIG_CODE + 0x100);
    ck_assert_uint_eq(rig_slot64(&r, 0), RIG_CODE + 3);
    ck_assert_uint_eq(rig_slot64(&r, 1), SEL_CODE0);
    rig_exec(&r, "\x48\xca\x10\x00"); /* RETF 16 */
    ck_assert_uint_eq(r.v->rip, RIG_CODE + 3);
    ck_assert_uint_eq(r.v->gpr[REG_RSP], RIG_STACK + 16);
    rig_close(&r);
}
END_TEST

START_TEST(a_call_gate_leads_to_cpl_0_and_retf_leads_back)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    rig_user(&r);
    put_call_gate64(&r, SEL_CODE0, RIG_CODE + 0x200, 0xec);
    use_far(&r, 0x9999, SEL_GATE | 3);
    rig_exec(&r, "\xff\x1b");
    ck_assert_uint_eq(r.v->rip, RIG_CODE + 0x200);
    ck_assert_uint_eq(r.v->cpl, 0);
    ck_assert_uint_eq(r.v->gpr[REG_RSP], RIG_RSP0 - 32);
    ck_assert_uint_eq(rig_slot64(&r, 0), RIG_CODE + 2);
    ck_assert_uint_eq(rig_slot64(&r, 1), SEL_CODE3 | 3);
    ck_assert_uint_eq(rig_slot64(&r, 2), RIG_STACK);
    ck_assert_uint_eq(rig_slot64(&r, 3), SEL_DATA3 | 3);
    ck_assert_uint_eq(r.v->seg[SEG_SS].sel, 0);
    rig_exec(&r, "\x48\xcb");
    ck_assert_uint_eq(r.v->rip, RIG_CODE + 2);
    ck_assert_uint_eq(r.v->cpl, 3);
    ck_assert_uint_eq(r.v->gpr[REG_RSP], RIG_STACK);
    ck_assert_uint_eq(r.v->seg[SEG_SS].sel, SEL_DATA3 | 3);
    rig_close(&r);
}
END_TEST

START_TEST(a_call_gate_that_the_program_may_not_use_is_a_protection_fault)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    rig_user(&r);
    put_call_gate64(&r, SEL_CODE0, RIG_CODE + 0x200, 0x8c);
    use_far(&r, 0, SEL_GATE | 3);
    rig_exec(&r, "\xff\x1b");
    rig_expect_fault64(&r, EXC_GP, SEL_GATE);
    put_call_gate64(&r, SEL_CODE0, RIG_CODE + 0x200, 0x6c);
    rig_user(&r);
    rig_exec(&r, "\xff\x1b");
    rig_expect_fault64(&r, EXC_NP, SEL_GATE);
    put_call_gate64(&r, SEL_CODE32_0, RIG_CODE + 0x200, 0xec);
    rig_user(&r);
    rig_exec(&r, "\xff\x1b");
    rig_expect_fault64(&r, EXC_GP, SEL_CODE32_0);
    put_call_gate64(&r, SEL_CODE0, RIG_CODE + 0x200, 0xec);
    rig_user(&r);
    rig_exec(&r, "\xff\x2b"); /* a jump cannot change CPL */
    rig_expect_fault64(&r, EXC_GP, SEL_CODE0);
    rig_close(&r);
}
END_TEST

START_TEST(a_32_bit_call_gate_copies_parameters)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_protected(&r);
    rig_user(&r);
    rig_gdt(&r, SEL_GATE,
            0x0200 | (uint64_t)SEL_CODE0 << 16 | 2ull << 32 | 0xecull << 40 | (uint64_t)(RIG_CODE >> 16) << 48);
    rig_poke(&r, RIG_STACK, 0x2222222211111111, 8);
    rig_exec(&r, "\x9a\x00\x00\x00\x00\x6b\x00"); /* CALL 6b:0 */
    ck_assert_uint_eq(r.v->rip, RIG_CODE + 0x200);
    ck_assert_uint_eq(r.v->gpr[REG_RSP], RIG_RSP0 - 24);
    ck_assert_uint_eq(rig_slot32(&r, 0), RIG_CODE + 7);
    ck_assert_uint_eq(rig_slot32(&r, 1), SEL_CODE3 | 3);
    ck_assert_uint_eq(rig_slot32(&r, 2), 0x11111111);
    ck_assert_uint_eq(rig_slot32(&r, 3), 0x22222222);
    ck_assert_uint_eq(rig_slot32(&r, 4), RIG_STACK);
    ck_assert_uint_eq(rig_slot32(&r, 5), SEL_DATA3 | 3);
    rig_exec(&r, "\xca\x08\x00"); /* RETF 8 */
    ck_assert_uint_eq(r.v->rip, RIG_CODE + 7);
    ck_assert_uint_eq(r.v->gpr[REG_RSP], RIG_STACK + 8);
    ck_assert_uint_eq(r.v->cpl, 3);
    rig_close(&r);
}
END_TEST

/* ---- IRET ---- */

START_TEST(iret_to_user_mode_drops_segments_that_are_too_privileged)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    vcpu_set_segment(r.v, SEG_ES, SEL_DATA3 | 3, 0, 0xffffffff, rig_attr(&r, SEL_DATA3));
    put_frame(&r, (uint64_t[]){RIG_CODE + 0x40, SEL_CODE3 | 3, FLAG_IF | FLAG_IOPL | 2, 0x1238, SEL_DATA3 | 3}, 5);
    rig_exec(&r, "\x48\xcf");
    ck_assert_uint_eq(r.v->rip, RIG_CODE + 0x40);
    ck_assert_uint_eq(r.v->cpl, 3);
    ck_assert_uint_eq(r.v->gpr[REG_RSP], 0x1238);
    ck_assert_uint_eq(r.v->rflags, FLAG_IF | FLAG_IOPL | 2);
    ck_assert(r.v->seg[SEG_DS].unusable);
    ck_assert(!r.v->seg[SEG_ES].unusable);
    rig_close(&r);
}
END_TEST

START_TEST(iret_in_user_mode_cannot_change_iopl_or_if)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    rig_user(&r);
    put_frame(&r,
              (uint64_t[]){RIG_CODE + 0x40, SEL_CODE3 | 3, FLAG_IF | FLAG_IOPL | FLAG_CF | 2, RIG_STACK, SEL_DATA3 | 3},
              5);
    rig_exec(&r, "\x48\xcf");
    ck_assert_uint_eq(r.v->rip, RIG_CODE + 0x40);
    ck_assert_uint_eq(vcpu_rflags(r.v), FLAG_CF | 2);
    rig_close(&r);
}
END_TEST

START_TEST(iret_frames_that_fail_leave_everything_as_it_was)
{
    static const struct {
        uint64_t rip, cs, ss;
        enum exception vector;
        uint32_t error;
    } t[] = {{RIG_CODE, 0, SEL_DATA3 | 3, EXC_GP, 0},
             {RIG_CODE, SEL_DATA0, SEL_DATA0, EXC_GP, SEL_DATA0},
             {RIG_CODE, SEL_CODE3, SEL_DATA3 | 3, EXC_GP, SEL_CODE3}, /* RPL 0, DPL 3 */
             {RIG_CODE, SEL_CODE3 | 3, 0, EXC_GP, 0},
             {RIG_CODE, SEL_CODE3 | 3, SEL_DATA0, EXC_GP, SEL_DATA0},
             {RIG_CODE, SEL_CODE0, SEL_ABSENT, EXC_SS, SEL_ABSENT},
             {0x800000000000, SEL_CODE3 | 3, SEL_DATA3 | 3, EXC_GP, 0}};
    struct cpu_rig r;
    rig_open(&r);
    for (unsigned k = 0; k < ARRAY_LEN(t); k++) {
        rig_long(&r);
        put_frame(&r, (uint64_t[]){t[k].rip, t[k].cs, 2, 0x1238, t[k].ss}, 5);
        rig_exec(&r, "\x48\xcf");
        rig_expect_fault64(&r, t[k].vector, t[k].error);
        ck_assert_uint_eq(rig_slot64(&r, 1), RIG_CODE);
        ck_assert_uint_eq(rig_slot64(&r, 4), RIG_STACK);
    }
    rig_close(&r);
}
END_TEST

START_TEST(iret_goes_from_64_bit_to_32_bit_user_code)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    put_frame(&r, (uint64_t[]){RIG_CODE + 0x40, SEL_CODE32_3 | 3, 2, 0x1238, SEL_DATA3 | 3}, 5);
    rig_exec(&r, "\x48\xcf");
    ck_assert_uint_eq(r.v->cpl, 3);
    ck_assert_uint_eq(r.v->mode & (MODE_CODE64 | MODE_CODE32 | MODE_LONG), MODE_CODE32 | MODE_LONG);
    rig_close(&r);
}
END_TEST

START_TEST(iret_unblocks_nmi)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    r.v->nmi_blocked = true;
    put_frame(&r, (uint64_t[]){RIG_CODE + 0x40, SEL_CODE0, 2, RIG_STACK, SEL_DATA0}, 5);
    rig_exec(&r, "\x48\xcf");
    ck_assert(!r.v->nmi_blocked);
    rig_close(&r);
}
END_TEST

START_TEST(iret_with_nt_set_is_a_protection_fault)
{
    struct cpu_rig r;
    rig_open(&r);
    rig_long(&r);
    r.v->rflags |= FLAG_NT;
    put_frame(&r, (uint64_t[]){RIG_CODE + 0x40, SEL_CODE0, 2, RIG_STACK, SEL_DATA0}, 5);
    rig_exec(&r, "\x48\xcf");
    rig_expect_fault64(&r, EXC_GP, 0);
    rig_close(&r);
}
END_TEST

static Suite *suite(void)
{
    const TTest *const tests[] = {
        a_load_sets_the_accessed_bit_and_the_hidden_part,
        loads_that_fail_name_the_selector,
        null_ss_is_legal_in_64_bit_mode_at_cpl_0_only,
        an_access_through_a_null_segment_or_beyond_its_limit_faults,
        mov_ss_holds_interrupts_off_for_one_instruction,
        real_mode_loads_shift_the_selector_and_keep_the_limit,
        ltr_takes_16_bytes_in_long_mode_and_marks_the_tss_busy,
        lldt_makes_selectors_with_ti_usable,
        lar_lsl_and_verify_report_visibility_in_zf,
        umip_hides_the_tables_from_user_mode,
        lgdt_refuses_a_base_that_is_not_canonical,
        far_jumps_switch_between_64_bit_and_compatibility_mode,
        a_far_jump_starts_protected_mode,
        far_jumps_that_fail_name_the_selector,
        a_far_call_and_return_come_back,
        a_call_gate_leads_to_cpl_0_and_retf_leads_back,
        a_call_gate_that_the_program_may_not_use_is_a_protection_fault,
        a_32_bit_call_gate_copies_parameters,
        iret_to_user_mode_drops_segments_that_are_too_privileged,
        iret_in_user_mode_cannot_change_iopl_or_if,
        iret_frames_that_fail_leave_everything_as_it_was,
        iret_goes_from_64_bit_to_32_bit_user_code,
        iret_unblocks_nmi,
        iret_with_nt_set_is_a_protection_fault,
    };
    return rig_suite("segment", tests, ARRAY_LEN(tests));
}

CHECK_MAIN(suite)
