/*
 * The instruction table: mnemonics, and the columns of cpu/optable.def, which has one row an instruction form.
 *
 * Everything that depends on which instruction it is, and not on what it does, comes from here: the decoder's
 * dispatch, legality of LOCK, where blocks end, flags, CPUID gates, the printer, the cross-checks of the tests.
 *
 * What handlers find in struct insn beyond cpu/insn.h's general rules:
 *   - BYTE_HIGH appears in an operand that is one byte wide: reg or rm when opsize is 1, rm also when srcsize is 1
 *     (MOVZX r32, AH; CRC32).
 *   - Immediates are sign-extended to 64 bits, except those that the manual zero-extends: shift counts, port and
 *     vector numbers, RET's and ENTER's operands, BT's bit number, selectors, and all immediates of SSE and later.
 *   - MOVS STOS LODS SCAS CMPS INS OUTS XLAT: ENC_ZO; `seg` is the segment of the rSI (XLAT: rBX) operand, opsize the
 *     element's size, REP in flags. The ES:rDI operand has no field.
 *   - IN, OUT: ENC_I (imm is the port) or ENC_ZO (DX); opsize 1, 2, 4. INT: ENC_I. RET, RETF: ENC_ZO or ENC_I.
 *   - JMP, CALL: ENC_D (relative) or ENC_M (indirect). JMPF, CALLF: ENC_II (direct) or ENC_M (memory). PUSH, POP:
 * ENC_M; PUSH imm: ENC_I. PUSH_SREG, POP_SREG: `reg` is the segment.
 *   - MOV_TO_SREG: ENC_RM, opsize 2, `reg` is the segment. MOV_FROM_SREG, SLDT, STR, SMSW: register forms have the
 *     opsize of the destination, memory forms 2. LAR, LSL: srcsize 2.
 *   - MOV_TO_CR, MOV_TO_DR: ENC_RM, `reg` is the control register, rm the general one; MOV_FROM_*: ENC_MR.
 *   - SGDT, SIDT, LGDT, LIDT: opsize is 8 in 64-bit mode, else 2 or 4 (the operand is 2 + 8 or 2 + 4 bytes).
 *   - XCHG: ENC_MR. Shifts: ENC_MI, ENC_M1, ENC_MC. IMUL: ENC_M, ENC_RM, ENC_RMI. CMPXCHG8B/16B: opsize 8 or 16.
 *   - x87: memory forms are ENC_M with opsize 2, 4, 8, 10 (FLDENV, FNSTENV 14 or 28; FRSTOR, FNSAVE 94 or 108).
 * Register forms have rm = i of ST(i): ENC_RM where ST(0) is the destination, ENC_MR where ST(i) is. FNSTSW AX: ENC_M
 * with INSN_RM_REG.
 *   - Vectors: opsize is 8 for MMX, 16 for XMM, 32 for YMM registers; scalars 4 or 8 (ADDSS, MOVSD, COMISD...); srcsize
 *     is the size of a source that differs: what a conversion or PMOVZX reads from memory. Register numbers of MMX
 *     operands are 0..7 whatever REX says.
 *   - MOVD: opsize tells MMX (8) or XMM (16), srcsize 4 or 8 (MOVQ r/m64) is the size of the general register or
 * memory; ENC_RM loads, ENC_MR stores. OP_MOVQ is only the form between vector registers and 64-bit memory.
 *   - CVTSI2SS, CVTSI2SD: opsize 4 or 8 is the float's, srcsize the integer's. CVTSS2SI...: opsize is the integer's.
 *   - PINSRB/W/D/Q, PEXTRB/W/D/Q, EXTRACTPS: opsize the vector's (8 or 16), srcsize 1, 2, 4, 8 the element's.
 *   - PUSH, POP, CALL, RET, LEAVE... have the opsize of the stack slot, 64-bit default in 64-bit mode already applied.
 */
#ifndef CPU_OPTABLE_H
#define CPU_OPTABLE_H

#include "cpu/insn.h"

enum insn_op {
#define M(name, text) OP_##name,
#include "cpu/mnemonics.def"
#undef M
    OP_COUNT
};

/* Opcode maps; MAP_V* are the same maps under a VEX prefix. */
enum op_map { MAP_NONE, MAP_ONE, MAP_0F, MAP_38, MAP_3A, MAP_V0F, MAP_V38, MAP_V3A, MAP_COUNT };

/*
 * Prefixes that select the form (SDM: NP, 66, F3, F2 before the opcode). Of F2 and F3 the last one counts, and it wins
 * over 66. The other bits are further conditions, which must all hold.
 */
enum op_prefix {
    PP_ANY, /* no prefix selects; 66 is the operand size, F2 and F3 are REP or ignored */
    PP_NP,  /* none of the three */
    PP_N66, /* NFx: neither F2 nor F3, 66 is the operand size */
    PP_P66,
    PP_PF3,
    PP_PF2,
    PP_KIND = 7,
    PP_NOB = 1 << 3, /* REX.B clear */
    PP_W0 = 1 << 4,
    PP_W1 = 1 << 5,
    PP_L0 = 1 << 6,
    PP_L1 = 1 << 7
};

/* The ModRM byte: none, any (/r), one of mod, /digit with any mod or one, or an exact byte (always mod 3). */
enum { RM_0, RM_R, RM_MEM, RM_REG };
#define RM_D(digit)  (0x08 + (digit))
#define RM_DM(digit) (0x10 + (digit))
#define RM_DR(digit) (0x18 + (digit))
#define RM_X(byte)   (byte)

/* Sizes of operands. */
enum op_size {
    SZ_SAME, /* srcsize column: as opsize */
    SZ_B,
    SZ_W,
    SZ_D,
    SZ_Q,
    SZ_T,   /* 10 bytes */
    SZ_X,   /* 16 bytes */
    SZ_V,   /* 16, 32, 64 bits by 66 and REX.W */
    SZ_Z,   /* as V, but REX.W means nothing */
    SZ_Y,   /* 32, or 64 with REX.W */
    SZ_D64, /* as V, 64 is the default in 64-bit mode and 32 does not exist there */
    SZ_F64, /* as V, always 64 in 64-bit mode */
    SZ_N,   /* 64 in 64-bit mode, else 32 */
    SZ_DT,  /* as F64: descriptor-table registers */
    SZ_VW,  /* V in a register, 16 bits in memory */
    SZ_ENV, /* 14 or 28 bytes */
    SZ_ST,  /* 94 or 108 bytes */
    SZ_L,   /* VEX.L: 16 or 32 bytes, and its half, quarter, eighth */
    SZ_LH,
    SZ_LQ,
    SZ_LE,
    SZ_FIX = SZ_X /* up to here sizes do not depend on anything */
};

enum op_imm {
    IMM_0,
    IMM_IB,  /* 8 bits, sign-extended */
    IMM_UB,  /* 8 bits, zero-extended */
    IMM_UW,  /* 16 bits, zero-extended */
    IMM_IZ,  /* 16 or 32 bits by opsize, sign-extended */
    IMM_IV,  /* 16, 32 or 64 bits by opsize */
    IMM_OFF, /* moffs, by address size */
    IMM_JB,  /* rel8 */
    IMM_JZ,  /* rel16 or rel32 by opsize */
    IMM_FAR, /* ptr16:16 or ptr16:32 */
    IMM_WB   /* iw, ib */
};

/* Where the form exists: MD_PROT is protected mode outside 64-bit code, MD_REAL real-address and virtual-8086 mode. */
enum { MD_64 = 1, MD_PROT = 2, MD_REAL = 4 };
#define MD_ALL 7
#define MD_I64 (MD_PROT | MD_REAL)
#define MD_PM  (MD_64 | MD_PROT)

/* What the register numbers in `reg` and `rm` mean. */
enum op_kind {
    KIND_G,   /* general register of the operand's size */
    KIND_G32, /* general register, 32 bits in name whatever opsize is (PMOVMSKB, PINSRB) */
    KIND_X,   /* XMM or YMM */
    KIND_M,   /* MMX */
    KIND_S,   /* segment register */
    KIND_C,   /* control register */
    KIND_DR,  /* debug register */
    KIND_F    /* x87 stack */
};

enum op_props {
    PROP_LOCK = 1 << 0,     /* LOCK is legal with a memory operand */
    PROP_ENDS = 1 << 1,     /* ends a block */
    PROP_ENDS_REP = 1 << 2, /* ends a block when repeated */
    PROP_SI = 1 << 3,       /* implied memory operand with an overridable segment, DS by default */
    PROP_ES = 1 << 4,       /* implied ES:rDI operand */
    PROP_OPREG = 1 << 5,    /* rm is in the low 3 bits of the opcode */
    PROP_ACC = 1 << 6,      /* the accumulator stands for rm (for reg in moffs forms) */
    PROP_CC = 1 << 7,       /* condition in the low 4 bits of the opcode */
    PROP_MODREG = 1 << 8,   /* mod is ignored: rm is always a register */
    PROP_VSIB = 1 << 9,     /* the index is a vector register */
    PROP_UD = 1 << 10,      /* defined to raise #UD */
    PROP_IS4 = 1 << 11      /* VEX: a register number in bits 7:4 of imm8 */
};

/* CPUID features that offer a form (cpu/model.c). insn_decode() takes them all as offered, insn_decode_gated() does
 * not. */
enum op_gate {
    GATE_BASE,
    GATE_P6, /* no feature bit: processors from the Pentium Pro on */
    GATE_X87,
    GATE_CMOV,
    GATE_CX8,
    GATE_CX16,
    GATE_TSC,
    GATE_MSR,
    GATE_SEP,
    GATE_SYSCALL,
    GATE_MMX,
    GATE_FXSR,
    GATE_SSE,
    GATE_SSE2,
    GATE_SSE3,
    GATE_SSSE3,
    GATE_SSE41,
    GATE_SSE42,
    GATE_AES,
    GATE_PCLMUL,
    GATE_SHA,
    GATE_GFNI,
    GATE_POPCNT,
    GATE_LZCNT,
    GATE_BMI1,
    GATE_BMI2,
    GATE_MOVBE,
    GATE_ADX,
    GATE_CLFSH,
    GATE_CLFLUSHOPT,
    GATE_CLWB,
    GATE_MONITOR,
    GATE_RDTSCP,
    GATE_RDRAND,
    GATE_RDSEED,
    GATE_RDPID,
    GATE_FSGSBASE,
    GATE_INVPCID,
    GATE_SMAP,
    GATE_PKU,
    GATE_XSAVE,
    GATE_XSAVEOPT,
    GATE_XSAVEC,
    GATE_XSAVES,
    GATE_SERIALIZE,
    GATE_VMX,
    GATE_AVX,
    GATE_AVX2,
    GATE_FMA,
    GATE_F16C,
    GATE_COUNT
};

/* What may go wrong, apart from undefined encodings. The SSE classes are the manual's exception types (volume 2,
 * section 2.4, table 2-18). */
enum op_fault {
    FC_NONE, /* no operand that can fault */
    FC_MEM,  /* the memory operand: #SS #GP #PF #AC */
    FC_PRIV, /* as MEM, and #GP(0) unless CPL is 0 */
    FC_IO,   /* as MEM, and #GP(0) by IOPL and the I/O permission bitmap */
    FC_FAR,  /* far transfers and segment loads: #NP #TS too */
    FC_DIV,  /* #DE */
    FC_FPU,  /* #NM by CR0.EM/TS, pending #MF */
    FC_MMX,  /* #UD by CR0.EM, #NM by TS, pending #MF */
    FC_T1,   /* 16-byte aligned, no SIMD exceptions */
    FC_T2,   /* 16-byte aligned, SIMD exceptions */
    FC_T3,   /* unaligned scalar, SIMD exceptions */
    FC_T4,   /* 16-byte aligned unless named otherwise, no SIMD exceptions */
    FC_T5,   /* unaligned, no SIMD exceptions */
    FC_T7,   /* no memory operand */
    FC_T11,  /* half-precision conversions */
    FC_T12   /* gathers */
};

enum op_vmx { VMX_NO, VMX_COND /* exits if a control asks for it */, VMX_ALWAYS };

struct op_form {
    uint16_t op;          /* enum insn_op */
    uint16_t key;         /* map << 8 | opcode */
    uint16_t read, write; /* bits of RFLAGS 15:0; written includes left undefined, but not what Umbra keeps then */
    uint16_t props;
    uint8_t prefix, modrm, enc, size, src, imm, modes, reg_kind, rm_kind, gate, fault, vmx;
};

/* Rows in the table's order; row 0 stands for what is in no row. */
extern const struct op_form optable_forms[];
extern const unsigned optable_form_count;
extern const char *const optable_op_names[OP_COUNT];

/* Last row for an opcode of a map (enum op_map), 0 if there is none: the rows of an opcode are neighbours. */
unsigned optable_last_form(unsigned map, unsigned opcode);

/* As insn_decode(), for a processor on which only forms exist whose gate is in `gates` (bit n: enum op_gate). Of
 * several rows that fit the first one that is offered counts; if none is, the result is DECODE_UD with `form` set to
 * the row. */
enum decode_result insn_decode_gated(struct insn *out, const uint8_t *bytes, size_t avail, unsigned mode, unsigned off,
                                     uint64_t gates);

static inline const struct op_form *insn_form(const struct insn *i)
{
    return &optable_forms[i->form];
}

#endif
