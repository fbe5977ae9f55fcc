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
 *   - JMP, CALL: ENC_D (relative) or ENC_M (indirect). JMPF, CALLF: ENC_II (direct) or ENC_M (memory). PUSH, POP: ENC_M;
 *     PUSH imm: ENC_I. PUSH_SREG, POP_SREG: `reg` is the segment.
 *   - MOV_TO_SREG: ENC_RM, opsize 2, `reg` is the segment. MOV_FROM_SREG, SLDT, STR, SMSW: register forms have the
 *     opsize of the destination, memory forms 2. LAR, LSL: srcsize 2.
 *   - MOV_TO_CR, MOV_TO_DR: ENC_RM, `reg` is the control register, rm the general one; MOV_FROM_*: ENC_MR.
 *   - SGDT, SIDT, LGDT, LIDT: opsize is 8 in 64-bit mode, else 2 or 4 (the operand is 2 + 8 or 2 + 4 bytes).
 *   - XCHG: ENC_MR. Shifts: ENC_MI, ENC_M1, ENC_MC. IMUL: ENC_M, ENC_RM, ENC_RMI. CMPXCHG8B/16B: opsize 8 or 16.
 *   - x87: memory forms are ENC_M with opsize 2, 4, 8, 10 (FLDENV, FNSTENV 14 or 28; FRSTOR, FNSAVE 94 or 108). Register
 *     forms have rm = i of ST(i): ENC_RM where ST(0) is the destination, ENC_MR where ST(i) is. FNSTSW AX: ENC_M with
 *     INSN_RM_REG.
 *   - Vectors: opsize is 8 for MMX, 16 for XMM, 32 for YMM registers; scalars 4 or 8 (ADDSS, MOVSD, COMISD...); srcsize
 *     is the size of a source that differs: what a conversion or PMOVZX reads from memory. Register numbers of MMX
 *     operands are 0..7 whatever REX says.
 *   - MOVD: opsize tells MMX (8) or XMM (16), srcsize 4 or 8 (MOVQ r/m64) is the size of the general register or memory;
 *     ENC_RM loads, ENC_MR stores. OP_MOVQ is only the form between vector registers and 64-bit memory.
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

#endif
