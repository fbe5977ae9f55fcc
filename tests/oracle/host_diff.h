/*
 * The parts of host_diff: the test bed, and the generator of random instructions (host_diff_gen.c).
 */
#ifndef HOST_DIFF_H
#define HOST_DIFF_H

#include "cpu/cpu.h"
#include "cpu/interp/interp.h"
#include "cpu/optable.h"

#define DATA_PAGES      4u
#define DATA_SIZE       (DATA_PAGES * 4096u)
/* A taken branch goes this far beyond its end. */
#define BRANCH_DISTANCE 0x20

enum form_flags {
    F_MODRM = 1 << 0,
    F_BYTE = 1 << 1,  /* byte operands: no operand-size prefix */
    F_MEM = 1 << 2,   /* memory operand only */
    F_LOCK = 1 << 3,  /* takes LOCK with a memory destination */
    F_OPREG = 1 << 4, /* register in the opcode */
    F_BITS = 1 << 5,  /* reg is a bit offset into memory */
    F_STACK = 1 << 6, /* uses rSP */
    F_STRING = 1 << 7,
    F_REP = 1 << 8,     /* SCAS, CMPS: F2 and F3 both make sense */
    F_NO16 = 1 << 9,    /* operand-size prefix not wanted */
    F_BRANCH = 1 << 10, /* rel8 to the second way out */
    F_PAIR = 1 << 11,   /* CMPXCHG8B/16B */
    F_ACC = 1 << 12,    /* accumulator equal to the operand now and then */
    F_DIV = 1 << 13,
    F_VEX = 1 << 14,
    F_MOFFS = 1 << 15,
    F_BX = 1 << 16,    /* XLAT */
    F_CL = 1 << 17,    /* count in CL */
    F_ALIGN = 1 << 18, /* operand aligned: locked, and hosts may trap split locks */
    F_POPF = 1 << 19,
    F_COUNT = 1 << 20 /* rCX is looked at */
};
enum imm_kind { GEN_IMM_NONE, GEN_IMM_B, GEN_IMM_Z, GEN_IMM_V, GEN_IMM_WB };
enum opcode_map { GEN_MAP_1, GEN_MAP_0F, GEN_MAP_38, GEN_MAP_3A };

struct form {
    uint8_t map, opcode;
    int8_t digit; /* ModRM.reg, or -1 */
    uint8_t imm;
    uint8_t prefix; /* mandatory: 0, 0x66, 0xf2, 0xf3 */
    uint32_t flags;
};

struct bed {
    uint8_t *code; /* both in the low 2 GiB, so that 32-bit addresses reach them */
    uint8_t *data;
    uint8_t before[DATA_SIZE], after[DATA_SIZE];
    struct mmu_vcpu mv;
    struct tlb_entry tlb[TLB_SIZE];
    struct vclock clock;
    struct vcpu *v;
    uint64_t rng;
    bool has_bmi, has_adx;
    _Alignas(16) uint8_t signal_stack[65536];
};

struct test_case {
    const struct form *form;
    uint8_t bytes[16];
    unsigned len;
    unsigned opsize, adsize;
    uint64_t gpr[16];
    uint64_t target; /* address of the memory operand */
    bool memory, locked;
    int base, index; /* registers of the memory operand, or -1 */
    unsigned mod, shift;
    bool has_sib;
    int32_t disp;
};

uint64_t random64(struct bed *b);
unsigned random_below(struct bed *b, unsigned n);
/* One random instruction with registers; fills b->data. */
void case_generate(struct bed *b, struct test_case *t);

#endif
