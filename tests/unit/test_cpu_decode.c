/*
 * The decoder and the instruction table: encodings checked by hand, the rules of prefixes, segments and sizes that
 * handlers rely on, and what must hold whatever bytes come.
 */
#include "cpu/optable.h"
#include "tests/unit/check_main.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define M64 (MODE_PE | MODE_LONG | MODE_CODE64)
#define M32 (MODE_PE | MODE_CODE32 | MODE_FLAT)
#define M16 MODE_PE

static size_t parse_hex(const char *hex, uint8_t *out)
{
    size_t n = 0;
    for (unsigned x; *hex; hex += 2) {
        while (*hex == ' ')
            hex++;
        ck_assert_int_eq(sscanf(hex, "%2x", &x), 1);
        out[n++] = (uint8_t)x;
    }
    return n;
}

static enum decode_result decode_at(struct insn *i, const char *hex, unsigned mode, unsigned off)
{
    uint8_t bytes[32];
    size_t n = parse_hex(hex, bytes);
    return insn_decode(i, bytes, n, mode, off);
}

static size_t hex_length(const char *hex)
{
    uint8_t bytes[32];
    return parse_hex(hex, bytes);
}

static struct insn decode(const char *hex, unsigned mode)
{
    struct insn i;
    ck_assert_msg(decode_at(&i, hex, mode, 0) == DECODE_OK, "%s does not decode", hex);
    ck_assert_msg(i.len == hex_length(hex), "%s: length %u", hex, i.len);
    return i;
}

static bool is_undefined(const char *hex, unsigned mode)
{
    struct insn i;
    enum decode_result r = decode_at(&i, hex, mode, 0);
    return r == DECODE_UD && i.op == OP_UD && i.flags & INSN_ENDS;
}

/* ---- encodings ---- */

static const struct {
    unsigned bits;
    const char *hex, *text;
} cases[] = {
#define C(bits_, hex_, text_) {bits_, hex_, text_},
#include "tests/unit/test_cpu_decode_cases.def"
#undef C
};

static unsigned mode_of(unsigned bits)
{
    return bits == 64 ? M64 : bits == 32 ? M32 : M16;
}

START_TEST(every_case_prints_as_it_was_assembled)
{
    char text[128];
    for (size_t k = 0; k < ARRAY_LEN(cases); k++) {
        struct insn i = decode(cases[k].hex, mode_of(cases[k].bits));
        insn_print(&i, 0x1000, text, sizeof text);
        ck_assert_msg(!strcmp(text, cases[k].text), "%s: %s, not %s", cases[k].hex, text, cases[k].text);
    }
}
END_TEST

START_TEST(every_truncation_asks_for_more)
{
    for (size_t k = 0; k < ARRAY_LEN(cases); k++) {
        uint8_t bytes[32];
        struct insn i;
        size_t n = parse_hex(cases[k].hex, bytes);
        for (size_t avail = 0; avail < n; avail++)
            ck_assert_msg(insn_decode(&i, bytes, avail, mode_of(cases[k].bits), 0) == DECODE_MORE, "%s at %zu",
                          cases[k].hex, avail);
    }
}
END_TEST

START_TEST(printing_never_writes_beyond_the_buffer)
{
    char text[64];
    for (size_t k = 0; k < ARRAY_LEN(cases); k++) {
        struct insn i = decode(cases[k].hex, mode_of(cases[k].bits));
        for (size_t size = 1; size < 40; size++) {
            memset(text, '#', sizeof text);
            insn_print(&i, 0, text, size);
            ck_assert_uint_lt(strlen(text), size);
            ck_assert_int_eq(text[size], '#');
        }
    }
}
END_TEST

/* ---- prefixes ---- */

START_TEST(rex_counts_only_right_before_the_opcode)
{
    ck_assert_uint_eq(decode("48 01 c0", M64).opsize, 8);
    ck_assert_uint_eq(decode("48 66 01 c0", M64).opsize, 2);
    ck_assert_uint_eq(decode("66 48 01 c0", M64).opsize, 8);
    ck_assert_uint_eq(decode("48 40 01 c0", M64).opsize, 4);
    ck_assert_uint_eq(decode("41 2e 01 c0", M64).rm, 0);
    ck_assert_uint_eq(decode("41 01 c0", M64).rm, 8);
    ck_assert_uint_eq(decode("44 01 c0", M64).reg, 8);
    ck_assert_uint_eq(decode("4a 8b 04 00", M64).index, 8);
}
END_TEST

START_TEST(mandatory_prefixes_select_and_repeat_prefixes_repeat)
{
    struct insn i = decode("f3 0f 10 c1", M64);
    ck_assert_uint_eq(i.op, OP_MOVSS);
    ck_assert_uint_eq(i.flags & (INSN_REP | INSN_REPNE), 0);
    ck_assert_uint_eq(decode("66 f3 0f 10 c1", M64).op, OP_MOVSS);
    ck_assert_uint_eq(decode("f3 66 0f 10 c1", M64).op, OP_MOVSS);
    ck_assert_uint_eq(decode("f3 f2 0f 10 c1", M64).op, OP_MOVSD);
    ck_assert_uint_eq(decode("f2 f3 0f 10 c1", M64).op, OP_MOVSS);
    i = decode("f3 a4", M64);
    ck_assert_uint_eq(i.flags & (INSN_REP | INSN_REPNE | INSN_ENDS), INSN_REP | INSN_ENDS);
    i = decode("f3 f2 a6", M64);
    ck_assert_uint_eq(i.flags & (INSN_REP | INSN_REPNE | INSN_ENDS), INSN_REPNE | INSN_ENDS);
    ck_assert_uint_eq(decode("a4", M64).flags & INSN_ENDS, 0);
    ck_assert_uint_eq(decode("66 f3 0f b8 c1", M64).opsize, 2);
    ck_assert_uint_eq(decode("66 f2 0f 38 f1 c1", M64).srcsize, 2);
    ck_assert_uint_eq(decode("66 0f 38 f0 00", M64).op, OP_MOVBE);
    ck_assert_uint_eq(decode("f2 0f bc c1", M64).op, OP_BSF);
    ck_assert_uint_eq(decode("66 90", M64).op, OP_NOP);
    ck_assert_uint_eq(decode("f3 90", M64).op, OP_PAUSE);
    ck_assert_uint_eq(decode("41 90", M64).op, OP_XCHG);
    ck_assert_uint_eq(decode("48 90", M64).op, OP_NOP);
    ck_assert(is_undefined("f3 0f 28 c1", M64));
    ck_assert(is_undefined("66 0f ae 28", M64));
}
END_TEST

START_TEST(lock_is_legal_on_memory_that_is_modified)
{
    static const char *const legal[] = {"f0 00 00",    "f0 09 00",    "f0 80 10 01", "f0 83 18 01", "f0 21 00",
                                        "f0 29 00",    "f0 31 00",    "f0 fe 00",    "f0 ff 08",    "f0 f6 10",
                                        "f0 f7 18",    "f0 86 00",    "f0 87 00",    "f0 0f ab 00", "f0 0f b3 00",
                                        "f0 0f bb 00", "f0 0f b1 00", "f0 0f c1 00", "f0 0f c7 08", "f0 0f ba 28 01"};
    static const char *const illegal[] = {
        "f0 01 c0", "f0 03 00", "f0 39 00",    "f0 38 00",    "f0 85 00",         "f0 89 00", "f0 8b 00",
        "f0 90",    "f0 a4",    "f0 0f a3 00", "f0 80 38 01", "f0 0f ba 20 01",   "f0 87 c0", "f0 ff c0",
        "f0 c3",    "f0 0f 0b", "f0 0f 20 c0", "f0 ff 10",    "f0 05 00 00 00 00"};
    for (size_t k = 0; k < ARRAY_LEN(legal); k++)
        ck_assert_msg(decode(legal[k], M64).flags & INSN_LOCK, "%s", legal[k]);
    for (size_t k = 0; k < ARRAY_LEN(illegal); k++)
        ck_assert_msg(is_undefined(illegal[k], M64), "%s", illegal[k]);
}
END_TEST

START_TEST(sixteen_bytes_are_too_long)
{
    struct insn i;
    ck_assert_int_eq(decode_at(&i, "66 66 66 66 66 66 66 66 66 66 66 66 66 66 90", M64, 0), DECODE_OK);
    ck_assert_uint_eq(i.len, 15);
    ck_assert_int_eq(decode_at(&i, "66 66 66 66 66 66 66 66 66 66 66 66 66 66 66 90", M64, 7), DECODE_TOO_LONG);
    ck_assert_uint_eq(i.op, OP_GP0);
    ck_assert_uint_eq(i.off, 7);
    ck_assert_uint_ne(i.flags & INSN_ENDS, 0);
    ck_assert_int_eq(decode_at(&i, "66 66 66 66 66 66 66 66 66 66 66 66 66 66 66", M64, 0), DECODE_TOO_LONG);
    ck_assert_int_eq(decode_at(&i, "66 66 66 66 66 66 66 66 66 66 66 66 66 66", M64, 0), DECODE_MORE);
    /* The immediate crosses the 15th byte. */
    ck_assert_int_eq(decode_at(&i, "2e 2e 2e 2e 2e 2e 2e 2e 2e c7 00 01 00 00 00", M64, 0), DECODE_OK);
    ck_assert_int_eq(decode_at(&i, "2e 2e 2e 2e 2e 2e 2e 2e 2e 2e c7 00 01 00 00 00", M64, 0), DECODE_TOO_LONG);
}
END_TEST

/* ---- operands ---- */

START_TEST(high_byte_registers_exist_without_rex)
{
    struct insn i = decode("88 e1", M64); /* mov cl, ah */
    ck_assert_uint_eq(i.reg, BYTE_HIGH | 4);
    ck_assert_uint_eq(i.rm, 1);
    i = decode("40 88 e1", M64); /* mov cl, spl */
    ck_assert_uint_eq(i.reg, 4);
    i = decode("0f b6 c7", M64); /* movzx eax, bh */
    ck_assert_uint_eq(i.rm, BYTE_HIGH | 7);
    ck_assert_uint_eq(i.reg, 0);
    i = decode("0f b6 e1", M64); /* movzx esp, cl */
    ck_assert_uint_eq(i.reg, 4);
    ck_assert_uint_eq(decode("b4 01", M64).rm, BYTE_HIGH | 4);
    ck_assert_uint_eq(decode("0f b7 c4", M64).rm, 4); /* movzx eax, sp */
    ck_assert_uint_eq(decode("0f 94 c5", M32).rm, BYTE_HIGH | 5);
    ck_assert_uint_eq(decode("f2 0f 38 f0 c4", M64).rm, BYTE_HIGH | 4);
}
END_TEST

START_TEST(accumulator_and_opcode_register_forms_are_normalised)
{
    struct insn i = decode("05 ff ff ff ff", M64);
    ck_assert_uint_eq(i.enc, ENC_MI);
    ck_assert_uint_eq(i.rm, REG_RAX);
    ck_assert_uint_ne(i.flags & INSN_RM_REG, 0);
    ck_assert_uint_eq(i.imm, UINT64_MAX);
    i = decode("41 57", M64);
    ck_assert_uint_eq(i.op, OP_PUSH);
    ck_assert_uint_eq(i.enc, ENC_M);
    ck_assert_uint_eq(i.rm, 15);
    ck_assert_uint_eq(i.opsize, 8);
    i = decode("49 bb 88 77 66 55 44 33 22 11", M64);
    ck_assert_uint_eq(i.rm, 11);
    ck_assert_uint_eq(i.imm, 0x1122334455667788);
    i = decode("93", M32);
    ck_assert_uint_eq(i.op, OP_XCHG);
    ck_assert_uint_eq(i.enc, ENC_MR);
    ck_assert_uint_eq(i.rm, REG_RBX);
    ck_assert_uint_eq(i.reg, REG_RAX);
}
END_TEST

START_TEST(moffs_forms_have_a_memory_operand_without_registers)
{
    struct insn i = decode("48 a1 88 77 66 55 44 33 22 81", M64);
    ck_assert_uint_eq(i.enc, ENC_RM);
    ck_assert_uint_eq(i.imm, 0x8122334455667788);
    ck_assert_uint_ne(i.flags & INSN_DISP64, 0);
    ck_assert_uint_eq(i.flags & INSN_RM_REG, 0);
    ck_assert_uint_eq(i.base, REG_ZERO);
    ck_assert_uint_eq(i.index, REG_ZERO);
    i = decode("67 a2 88 77 66 85", M64);
    ck_assert_uint_eq(i.enc, ENC_MR);
    ck_assert_uint_eq(i.imm, 0x85667788);
    ck_assert_uint_eq(i.adsize, 4);
    i = decode("64 a1 34 82", M16);
    ck_assert_uint_eq(i.imm, 0x8234);
    ck_assert_uint_eq(i.seg, SEG_FS);
}
END_TEST

START_TEST(rip_relative_displacements_count_from_the_block)
{
    struct insn i;
    ck_assert_int_eq(decode_at(&i, "8b 05 10 00 00 00", M64, 0x20), DECODE_OK);
    ck_assert_uint_eq(i.base, REG_IP);
    ck_assert_uint_eq(i.index, REG_ZERO);
    ck_assert_int_eq(i.disp, 0x10 + 0x20 + 6);
    ck_assert_int_eq(decode_at(&i, "c7 05 f0 ff ff ff 01 00 00 00", M64, 3), DECODE_OK);
    ck_assert_int_eq(i.disp, -0x10 + 3 + 10);
    ck_assert_int_eq(decode_at(&i, "67 8b 05 00 00 00 00", M64, 0), DECODE_OK);
    ck_assert_uint_eq(i.adsize, 4);
    ck_assert_uint_eq(i.base, REG_IP);
    ck_assert_int_eq(decode_at(&i, "8b 05 ff ff ff 7f", M64, 0x20), DECODE_OK);
    ck_assert_uint_eq(i.index, REG_2G);
    ck_assert_int_eq(i.disp, 0x20 + 6 - 1);
    i = decode("8b 05 10 00 00 00", M32);
    ck_assert_uint_eq(i.base, REG_ZERO);
    ck_assert_int_eq(i.disp, 0x10);
}
END_TEST

START_TEST(sib_forms_give_base_index_and_scale)
{
    struct insn i = decode("8b 04 25 00 00 00 80", M64);
    ck_assert_uint_eq(i.base, REG_ZERO);
    ck_assert_uint_eq(i.index, REG_ZERO);
    ck_assert_int_eq(i.disp, INT32_MIN);
    i = decode("42 8b 04 a4", M64); /* r12 is an index, rsp is not */
    ck_assert_uint_eq(i.index, 12);
    ck_assert_uint_eq(i.base, REG_RSP);
    ck_assert_uint_eq(i.scale, 2);
    i = decode("8b 04 e4", M64);
    ck_assert_uint_eq(i.index, REG_ZERO);
    i = decode("41 8b 45 00", M64); /* r13 needs a displacement, as rbp does */
    ck_assert_uint_eq(i.base, 13);
    i = decode("43 8b 44 25 80", M64);
    ck_assert_uint_eq(i.base, 13);
    ck_assert_uint_eq(i.index, 12);
    ck_assert_int_eq(i.disp, -0x80);
    i = decode("41 8b 04 05 00 01 00 00", M64); /* base 5 with mod 0 is none, whatever REX.B says */
    ck_assert_uint_eq(i.base, REG_ZERO);
    ck_assert_uint_eq(i.index, REG_RAX);
}
END_TEST

START_TEST(sixteen_bit_addresses_use_the_old_pairs)
{
    static const struct {
        const char *hex;
        uint8_t base, index, seg;
        int32_t disp;
    } forms[] = {
        {"8b 00", REG_RBX, REG_RSI, SEG_DS, 0},
        {"8b 01", REG_RBX, REG_RDI, SEG_DS, 0},
        {"8b 02", REG_RBP, REG_RSI, SEG_SS, 0},
        {"8b 03", REG_RBP, REG_RDI, SEG_SS, 0},
        {"8b 04", REG_RSI, REG_ZERO, SEG_DS, 0},
        {"8b 05", REG_RDI, REG_ZERO, SEG_DS, 0},
        {"8b 06 34 92", REG_ZERO, REG_ZERO, SEG_DS, -0x6dcc},
        {"8b 07", REG_RBX, REG_ZERO, SEG_DS, 0},
        {"8b 46 fe", REG_RBP, REG_ZERO, SEG_SS, -2},
        {"8b 86 34 12", REG_RBP, REG_ZERO, SEG_SS, 0x1234},
    };
    for (size_t k = 0; k < ARRAY_LEN(forms); k++) {
        struct insn i = decode(forms[k].hex, M16);
        ck_assert_uint_eq(i.adsize, 2);
        ck_assert_uint_eq(i.opsize, 2);
        ck_assert_uint_eq(i.base, forms[k].base);
        ck_assert_uint_eq(i.index, forms[k].index);
        ck_assert_uint_eq(i.seg, forms[k].seg);
        ck_assert_int_eq(i.disp, forms[k].disp);
        ck_assert_int_eq(!!(i.flags & INSN_STACKSEG), forms[k].seg == SEG_SS);
    }
    ck_assert_uint_eq(decode("67 8b 04 8b", M16).scale, 2);
    ck_assert_uint_eq(decode("67 8b 07", M32).adsize, 2);
}
END_TEST

/* ---- segments ---- */

START_TEST(only_fs_and_gs_count_in_64bit_mode)
{
    struct insn i = decode("3e 8b 45 00", M64);
    ck_assert_uint_eq(i.seg, SEG_NONE);
    ck_assert_uint_ne(i.flags & INSN_STACKSEG, 0);
    i = decode("65 36 8b 45 00", M64); /* the ignored override does not take GS back */
    ck_assert_uint_eq(i.seg, SEG_GS);
    ck_assert_uint_eq(i.flags & (INSN_STACKSEG | INSN_SEGCHK), 0);
    ck_assert_uint_ne(decode("8b 04 24", M64).flags & INSN_STACKSEG, 0);
    ck_assert_uint_eq(decode("41 8b 04 24", M64).flags & INSN_STACKSEG, 0); /* r12 */
    ck_assert_uint_eq(decode("36 8b 00", M64).flags & INSN_STACKSEG, 0);
    ck_assert_uint_eq(decode("64 a4", M64).seg, SEG_FS);
    ck_assert_uint_eq(decode("a4", M64).seg, SEG_NONE);
}
END_TEST

START_TEST(segments_are_checked_unless_flat)
{
    ck_assert_uint_eq(decode("8b 00", M32).flags & INSN_SEGCHK, 0);
    ck_assert_uint_ne(decode("8b 00", MODE_PE | MODE_CODE32).flags & INSN_SEGCHK, 0);
    ck_assert_uint_ne(decode("64 8b 00", M32).flags & INSN_SEGCHK, 0);
    ck_assert_uint_ne(decode("2e 8b 00", M32).flags & INSN_SEGCHK, 0);
    ck_assert_uint_eq(decode("26 8b 00", M32).flags & INSN_SEGCHK, 0);
    ck_assert_uint_ne(decode("aa", MODE_PE | MODE_CODE32).flags & INSN_SEGCHK, 0);
    ck_assert_uint_eq(decode("8b c0", MODE_PE | MODE_CODE32).flags & INSN_SEGCHK, 0);
    struct insn i = decode("36 8b 00", M32);
    ck_assert_uint_eq(i.seg, SEG_SS);
    ck_assert_uint_ne(i.flags & INSN_STACKSEG, 0);
    i = decode("3e 8b 45 00", M32);
    ck_assert_uint_eq(i.seg, SEG_DS);
    ck_assert_uint_eq(i.flags & INSN_STACKSEG, 0);
    ck_assert_uint_eq(decode("26 36 8b 00", M32).seg, SEG_SS);
    ck_assert_uint_eq(decode("26 a4", M32).seg, SEG_ES);
    ck_assert_uint_eq(decode("d7", M32).seg, SEG_DS);
}
END_TEST

/* ---- sizes ---- */

START_TEST(stack_and_branch_sizes_default_to_64)
{
    ck_assert_uint_eq(decode("50", M64).opsize, 8);
    ck_assert_uint_eq(decode("66 50", M64).opsize, 2);
    ck_assert_uint_eq(decode("50", M32).opsize, 4);
    ck_assert_uint_eq(decode("50", M16).opsize, 2);
    ck_assert_uint_eq(decode("6a ff", M64).imm, UINT64_MAX);
    ck_assert_uint_eq(decode("66 68 00 80", M64).imm, 0xffffffffffff8000);
    ck_assert_uint_eq(decode("66 e8 00 00 00 80", M64).opsize, 8);
    ck_assert_uint_eq(decode("66 e8 00 80", M32).imm, 0xffffffffffff8000);
    ck_assert_uint_eq(decode("66 c3", M64).opsize, 8);
    ck_assert_uint_eq(decode("cb", M64).opsize, 4);
    ck_assert_uint_eq(decode("48 cf", M64).opsize, 8);
    ck_assert_uint_eq(decode("cf", M16).opsize, 2);
    ck_assert_uint_eq(decode("ff 18", M64).op, OP_CALLF);
    ck_assert_uint_eq(decode("66 0f a0", M64).opsize, 2);
    ck_assert_uint_eq(decode("0f 20 c0", M64).opsize, 8);
    ck_assert_uint_eq(decode("0f 20 00", M32).rm, 0); /* mod is ignored */
    ck_assert_uint_ne(decode("0f 20 00", M32).flags & INSN_RM_REG, 0);
    ck_assert_uint_eq(decode("66 0f 01 10", M64).opsize, 8);
    ck_assert_uint_eq(decode("48 ed", M64).opsize, 4);
    ck_assert_uint_eq(decode("67 e3 00", M64).adsize, 4);
}
END_TEST

START_TEST(sources_that_differ_have_their_size)
{
    ck_assert_uint_eq(decode("48 0f be c1", M64).srcsize, 1);
    ck_assert_uint_eq(decode("48 63 c1", M64).srcsize, 4);
    ck_assert_uint_eq(decode("f2 48 0f 2a c1", M64).srcsize, 8);
    ck_assert_uint_eq(decode("f2 48 0f 2a c1", M64).opsize, 8);
    ck_assert_uint_eq(decode("f3 0f 2a c1", M64).srcsize, 4);
    ck_assert_uint_eq(decode("f2 0f 2c c1", M64).opsize, 4);
    ck_assert_uint_eq(decode("f2 0f 2c c1", M64).srcsize, 8);
    ck_assert_uint_eq(decode("66 48 0f 6e c1", M64).srcsize, 8);
    ck_assert_uint_eq(decode("66 0f 7e 00", M64).srcsize, 4);
    ck_assert_uint_eq(decode("0f 6e c1", M64).opsize, 8);
    ck_assert_uint_eq(decode("0f fc c1", M64).opsize, 8);
    ck_assert_uint_eq(decode("66 0f fc c1", M64).opsize, 16);
    ck_assert_uint_eq(decode("41 0f fc c1", M64).rm, 1); /* no MMX register 9 */
    ck_assert_uint_eq(decode("66 41 0f fc c1", M64).rm, 9);
    ck_assert_uint_eq(decode("8c d8", M64).opsize, 4);
    ck_assert_uint_eq(decode("48 8c 18", M64).opsize, 2);
    ck_assert_uint_eq(decode("d9 30", M32).opsize, 28);
    ck_assert_uint_eq(decode("d9 30", M16).opsize, 14);
    ck_assert_uint_eq(decode("dd 20", M64).opsize, 108);
}
END_TEST

/* ---- what is illegal ---- */

START_TEST(old_opcodes_are_undefined_in_64bit_mode)
{
    static const char *const gone[] = {"06",
                                       "07",
                                       "0e",
                                       "16",
                                       "17",
                                       "1e",
                                       "1f",
                                       "27",
                                       "2f",
                                       "37",
                                       "3f",
                                       "60",
                                       "61",
                                       "62 00",
                                       "82 00 00",
                                       "9a 00 00 00 00 00 00",
                                       "ce",
                                       "d4 0a",
                                       "d5 0a",
                                       "d6",
                                       "ea 00 00 00 00 00 00"};
    struct insn i;
    for (size_t k = 0; k < ARRAY_LEN(gone); k++) {
        ck_assert_msg(is_undefined(gone[k], M64), "%s in 64-bit mode", gone[k]);
        ck_assert_msg(decode_at(&i, gone[k], M32, 0) == DECODE_OK, "%s in 32-bit mode", gone[k]);
    }
    ck_assert_uint_eq(decode("40", M32).op, OP_INC);
    ck_assert_uint_eq(decode("c4 00", M32).op, OP_LES);
    ck_assert_uint_eq(decode("c4 00", M16).op, OP_LES);
    ck_assert(is_undefined("c4 c0", MODE_VM | MODE_PE));
    ck_assert_uint_eq(decode("63 c1", M32).op, OP_ARPL);
    ck_assert(is_undefined("63 c1", 0));
    ck_assert(is_undefined("0f 00 c0", 0));
    ck_assert(is_undefined("0f 00 c0", MODE_PE | MODE_VM));
    ck_assert(is_undefined("0f 02 c0", 0));
    ck_assert(is_undefined("0f 05", M32));
    ck_assert(is_undefined("0f 01 f8", M32));
}
END_TEST

START_TEST(undefined_encodings_are_undefined)
{
    static const char *const bad[] = {
        "0f 0b",       "0f ff c0",    "0f b9 c0", "0f 04",    "0f 0a",    "0f 24 c0",    "0f 36",
        "0f 38 ff c0", "0f 3a ff c0", "0f 0f c0", "8d c0",    "8f c8",    "c6 c8",       "c7 f8",
        "fe d0",       "ff d8",       "ff e8",    "ff f8",    "0f 00 f0", "0f ba c0",    "0f c7 c8",
        "8e c8",       "8e f0",       "8c f0",    "0f 20 c8", "0f 22 e8", "44 0f 21 c0", "0f 01 c0",
        "0f 01 fa",    "d9 d1",       "d9 e2",    "da e8",    "dd f0",    "df e1",       "0f ae e0",
        "0f 71 10 00", "0f c5 00 00", "0f d7 00", "0f 50 00", "0f 13 c0", "0f 2b c0",    "62 f1 7c 48 58 c1",
        "f3 0f b9 c0", "0f a6 c0",    "0f a7 c0", "0f b8 c0"};
    for (size_t k = 0; k < ARRAY_LEN(bad); k++)
        ck_assert_msg(is_undefined(bad[k], M64), "%s", bad[k]);
}
END_TEST

/* ---- block ends ---- */

START_TEST(blocks_end_where_the_machine_may_change)
{
    static const char *const ends[] = {"e9 00 00 00 00",
                                       "eb 00",
                                       "74 00",
                                       "0f 84 00 00 00 00",
                                       "e8 00 00 00 00",
                                       "c3",
                                       "c2 00 00",
                                       "cb",
                                       "ff d0",
                                       "ff e0",
                                       "ff 18",
                                       "ff 28",
                                       "cf",
                                       "e2 00",
                                       "e3 00",
                                       "cd 80",
                                       "cc",
                                       "f1",
                                       "f4",
                                       "fb",
                                       "9d",
                                       "8e d0",
                                       "8e d8",
                                       "0f a1",
                                       "0f 22 c0",
                                       "0f 22 d8",
                                       "0f 20 c0",
                                       "0f 23 c0",
                                       "0f 01 f0",
                                       "0f 06",
                                       "0f 30",
                                       "0f 32",
                                       "e4 60",
                                       "ee",
                                       "6c",
                                       "6f",
                                       "f3 a4",
                                       "f2 ae",
                                       "0f a2",
                                       "0f 31",
                                       "0f 01 f9",
                                       "0f c7 f0",
                                       "f3 90",
                                       "0f 01 38",
                                       "0f 09",
                                       "0f 05",
                                       "48 0f 07",
                                       "0f 34",
                                       "0f 35",
                                       "0f 01 10",
                                       "0f 01 18",
                                       "0f 00 d0",
                                       "0f 00 d8",
                                       "0f 01 cb",
                                       "0f 01 ca",
                                       "0f 01 ef",
                                       "0f 01 d1",
                                       "0f ae 28",
                                       "0f 01 c8",
                                       "0f 01 c9",
                                       "0f 01 c1",
                                       "66 0f 38 82 00",
                                       "0f b2 00"};
    static const char *const goes_on[] = {"90",       "01 c0",    "50",         "9c",       "fa",          "fc",
                                          "a4",       "ab",       "8c d8",      "0f 01 f8", "f3 0f ae d0", "0f ae e8",
                                          "0f 1f 00", "0f 18 08", "d9 e8",      "0f ae 00", "0f 58 c1",    "0f c7 08",
                                          "0f 01 20", "c9",       "f3 0f 1e fa"};
    for (size_t k = 0; k < ARRAY_LEN(ends); k++)
        ck_assert_msg(decode(ends[k], M64).flags & INSN_ENDS, "%s", ends[k]);
    for (size_t k = 0; k < ARRAY_LEN(goes_on); k++)
        ck_assert_msg(!(decode(goes_on[k], M64).flags & INSN_ENDS), "%s", goes_on[k]);
}
END_TEST

/* ---- the table ---- */

START_TEST(rows_of_an_opcode_are_neighbours_and_agree_on_having_a_modrm_byte)
{
    for (unsigned k = 1; k < optable_form_count; k++) {
        const struct op_form *f = &optable_forms[k],
                             *last = &optable_forms[optable_last_form(f->key >> 8, f->key & 255)];
        ck_assert_uint_eq(last->key, f->key);
        ck_assert(last >= f);
        for (const struct op_form *g = f; g <= last; g++)
            ck_assert_msg(g->key == f->key && !g->modrm == !f->modrm, "row %u, %s", k, optable_op_names[f->op]);
    }
}
END_TEST

START_TEST(every_mnemonic_has_a_row_and_every_row_a_mnemonic)
{
    bool seen[OP_COUNT] = {[OP_GP0] = true};
    for (unsigned k = 0; k < optable_form_count; k++) {
        ck_assert_uint_lt(optable_forms[k].op, OP_COUNT);
        seen[optable_forms[k].op] = true;
    }
    for (unsigned k = 0; k < OP_COUNT; k++)
        ck_assert_msg(seen[k], "%s", optable_op_names[k]);
}
END_TEST

START_TEST(lock_rows_have_a_memory_destination)
{
    for (unsigned k = 0; k < optable_form_count; k++) {
        const struct op_form *f = &optable_forms[k];
        if (f->props & PROP_LOCK)
            ck_assert_msg(f->modrm && (f->enc == ENC_MR || f->enc == ENC_MI || f->enc == ENC_M), "%s",
                          optable_op_names[f->op]);
    }
}
END_TEST

/* ---- any bytes ---- */

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state * 0x2545f4914f6cdd1dull >> 16;
}

/* What a caller may take for granted about any instruction. */
static bool holds_invariants(const struct insn *i, enum decode_result r)
{
    bool numbers = i->len >= 1 && i->len <= 15 && i->op < OP_COUNT && i->form < optable_form_count;
    bool memory =
        (i->base <= REG_ZERO || i->base == REG_IP) && i->index <= REG_ZERO && i->scale <= 3 && i->seg <= SEG_NONE;
    bool registers = (i->reg & ~BYTE_HIGH) < 16 && (i->rm & ~BYTE_HIGH) < 16;
    bool sizes = (i->adsize == 2 || i->adsize == 4 || i->adsize == 8) && i->opsize && i->srcsize;
    return numbers && memory && registers && sizes && (r == DECODE_OK || i->op == OP_UD || i->op == OP_GP0);
}

START_TEST(random_bytes_at_the_end_of_a_page_are_never_read_beyond)
{
    static const unsigned modes[] = {M64, M32, M16, 0, MODE_PE | MODE_VM, MODE_PE | MODE_CODE32};
    uint8_t *page = mmap(NULL, 2 * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t state = 0x9e3779b97f4a7c15ull;
    ck_assert_ptr_ne(page, MAP_FAILED);
    ck_assert_int_eq(mprotect(page + PAGE_SIZE, PAGE_SIZE, PROT_NONE), 0);
    for (unsigned k = 0; k < 300000; k++) {
        size_t avail = next_random(&state) % 17;
        uint8_t *bytes = page + PAGE_SIZE - avail;
        struct insn i, again;
        char text[80];
        for (size_t n = 0; n < avail; n++)
            bytes[n] = (uint8_t)next_random(&state);
        if (avail > 1 && next_random(&state) % 2)
            bytes[0] = next_random(&state) % 2 ? 0x0f : 0xc4;
        unsigned mode = modes[k % ARRAY_LEN(modes)];
        enum decode_result r = insn_decode(&i, bytes, avail, mode, 5);
        if (r == DECODE_MORE ? avail < 15 : holds_invariants(&i, r) && i.len <= avail) {
            insn_print(&i, 0, text, sizeof text);
            /* Bytes after the instruction do not matter. */
            if (insn_decode(&again, bytes, r == DECODE_OK || r == DECODE_UD ? i.len : avail, mode, 5) == r &&
                !memcmp(&i, &again, sizeof i))
                continue;
        }
        ck_abort_msg("string %u: result %d, length %u of %zu", k, r, i.len, avail);
    }
    munmap(page, 2 * PAGE_SIZE);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("decoder");
    TCase *t = tcase_create("decode");
    tcase_add_test(t, every_case_prints_as_it_was_assembled);
    tcase_add_test(t, every_truncation_asks_for_more);
    tcase_add_test(t, printing_never_writes_beyond_the_buffer);
    tcase_add_test(t, rex_counts_only_right_before_the_opcode);
    tcase_add_test(t, mandatory_prefixes_select_and_repeat_prefixes_repeat);
    tcase_add_test(t, lock_is_legal_on_memory_that_is_modified);
    tcase_add_test(t, sixteen_bytes_are_too_long);
    tcase_add_test(t, high_byte_registers_exist_without_rex);
    tcase_add_test(t, accumulator_and_opcode_register_forms_are_normalised);
    tcase_add_test(t, moffs_forms_have_a_memory_operand_without_registers);
    tcase_add_test(t, rip_relative_displacements_count_from_the_block);
    tcase_add_test(t, sib_forms_give_base_index_and_scale);
    tcase_add_test(t, sixteen_bit_addresses_use_the_old_pairs);
    tcase_add_test(t, only_fs_and_gs_count_in_64bit_mode);
    tcase_add_test(t, segments_are_checked_unless_flat);
    tcase_add_test(t, stack_and_branch_sizes_default_to_64);
    tcase_add_test(t, sources_that_differ_have_their_size);
    tcase_add_test(t, old_opcodes_are_undefined_in_64bit_mode);
    tcase_add_test(t, undefined_encodings_are_undefined);
    tcase_add_test(t, blocks_end_where_the_machine_may_change);
    tcase_add_test(t, rows_of_an_opcode_are_neighbours_and_agree_on_having_a_modrm_byte);
    tcase_add_test(t, every_mnemonic_has_a_row_and_every_row_a_mnemonic);
    tcase_add_test(t, lock_rows_have_a_memory_destination);
    tcase_add_test(t, random_bytes_at_the_end_of_a_page_are_never_read_beyond);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
