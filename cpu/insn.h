/*
 * A decoded instruction, as decoder, interpreter and (later) JIT share it.
 *
 * The decoder (cpu/decode.c, driven by cpu/optable.def) turns bytes into a struct insn; the binder (cpu/interp/bind.c)
 * chooses the handler that executes it. Operand encodings are normalised so that handlers meet few forms:
 *   - accumulator forms (ADD AL, imm8) become ENC_MI with a register rm 0;
 *   - opcode-register forms (PUSH r64, MOV r32, imm32, XCHG rAX, r, BSWAP) have the register in `rm` with INSN_RM_REG
 * set;
 *   - moffs forms (MOV AL, moffs) become ENC_RM/ENC_MR with a memory operand without registers whose 64-bit
 * displacement is in `imm` (INSN_DISP64);
 *   - RIP-relative operands have base REG_IP and a displacement relative to the first byte of the *block* (insn.off is
 * already added), so that gpr[REG_IP], which holds the rip of the running block's first byte, is the base; a sum
 *     beyond 2 GiB - 1 is as much less and has REG_2G for index, which holds 2 GiB;
 *   - byte registers AH, CH, DH, BH are register numbers with BYTE_HIGH set (only where opsize is 1 and no REX was
 * present).
 */
#ifndef CPU_INSN_H
#define CPU_INSN_H

#include "core/types.h"

struct vcpu;
struct insn;

typedef void op_fn(struct vcpu *v, const struct insn *i);

/* Numbers beyond the 16 GPRs in vcpu.gpr[]. */
enum {
    REG_RAX,
    REG_RCX,
    REG_RDX,
    REG_RBX,
    REG_RSP,
    REG_RBP,
    REG_RSI,
    REG_RDI,
    REG_ZERO = 16,
    REG_IP = 17,
    REG_2G = 18,
    GPR_SLOTS = 19
};
#define BYTE_HIGH 0x80 /* in reg/rm: bits 15:8 of register (n & 3) */

/* Segment register numbers, as the ModRM reg field encodes them; SEG_NONE has base 0 in vcpu.seg_base[]. */
enum { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEG_NONE, SEG_SLOTS };

/* Where the operands are (SDM's Op/En column, normalised as above). First letter is the destination. */
enum insn_enc {
    ENC_ZO,  /* no explicit operand */
    ENC_MR,  /* rm, reg */
    ENC_RM,  /* reg, rm */
    ENC_MI,  /* rm, imm */
    ENC_M,   /* rm */
    ENC_M1,  /* rm, 1 (shifts) */
    ENC_MC,  /* rm, CL (shifts) */
    ENC_I,   /* imm */
    ENC_D,   /* relative branch; imm = sign-extended displacement */
    ENC_RMI, /* reg, rm, imm */
    ENC_MRI, /* rm, reg, imm */
    ENC_MRC, /* rm, reg, CL (SHLD, SHRD) */
    ENC_II,  /* imm16 in imm, imm8 in imm2 (ENTER); far pointer: offset in imm, selector in imm2 */
    ENC_RVM, /* VEX: reg, vvvv, rm */
    ENC_RMV, /* VEX: reg, rm, vvvv */
    ENC_VM,  /* VEX: vvvv, rm */
    ENC_RVMI,
    ENC_VMI,
    ENC_MVR /* VEX: rm, vvvv, reg */
};

enum insn_flags {
    INSN_RM_REG = 1 << 0,   /* rm is a register (mod == 3, or opcode register) */
    INSN_REP = 1 << 1,      /* F3 present (as REP/REPE where it is not a mandatory prefix) */
    INSN_REPNE = 1 << 2,    /* F2 */
    INSN_LOCK = 1 << 3,     /* legal LOCK prefix; an illegal one decodes to OP_UD */
    INSN_REX = 1 << 4,      /* any REX prefix */
    INSN_SEGCHK = 1 << 5,   /* segment limit/type must be checked (not 64-bit, not flat) */
    INSN_STACKSEG = 1 << 6, /* memory operand's segment is SS by default or override: non-canonical is #SS, not #GP */
    INSN_DISP64 = 1 << 7,   /* moffs: the address is imm, no registers */
    INSN_ENDS = 1 << 8,     /* ends a block (branches, far transfers, MOV CR, STI, port I/O, HLT, REP strings, ...) */
    INSN_OSZ = 1 << 9,      /* 66 prefix present */
    INSN_VEX = 1 << 10,
    INSN_VEX_L = 1 << 11,  /* 256-bit */
    INSN_W = 1 << 12,      /* REX.W or VEX.W */
    INSN_PATCHED = 1 << 13 /* imm may change while the block lives (code_patch.c) */
};

struct insn {
    op_fn *fn;    /* handler; set by the binder */
    uint64_t imm; /* immediate, sign-extended to 64 bits where the manual says so; see enc */
    int32_t disp;
    uint16_t op;    /* enum insn_op (cpu/optable.h): the mnemonic */
    uint16_t form;  /* row of optable.def */
    uint16_t flags; /* enum insn_flags */
    uint16_t off;   /* offset of the first byte from the first byte of the block */
    uint16_t imm2;
    uint8_t idx;     /* number of instructions of the block before this one */
    uint8_t len;     /* bytes, 1..15 */
    uint8_t enc;     /* enum insn_enc */
    uint8_t opsize;  /* operand size in bytes: 1, 2, 4, 8 (16, 32 for vectors; 10 for m80) */
    uint8_t adsize;  /* address size in bytes: 2, 4, 8 */
    uint8_t srcsize; /* size of a source that differs (MOVZX, MOVSX, MOVSXD), else opsize */
    uint8_t reg;     /* ModRM.reg with REX.R, or segment/control register number */
    uint8_t rm;      /* ModRM.rm with REX.B when INSN_RM_REG */
    uint8_t base;    /* memory operand: 0..15, REG_ZERO, REG_IP */
    uint8_t index;   /* 0..15, REG_ZERO, REG_2G */
    uint8_t scale;   /* shift, 0..3 */
    uint8_t seg;     /* segment of the memory operand; in 64-bit mode SEG_NONE unless FS or GS */
    uint8_t cc;      /* condition, 0..15, for Jcc, SETcc, CMOVcc */
    uint8_t vvvv;    /* VEX register */
    uint8_t modrm;   /* raw byte (x87 handlers use it) */
    uint8_t opcode;  /* last opcode byte (raw) */
};

/* What decoding depends on besides the bytes. */
enum cpu_mode_bits {
    MODE_CODE64 = 1 << 0, /* CS.L in long mode */
    MODE_CODE32 = 1 << 1, /* CS.D */
    MODE_SS32 = 1 << 2,   /* SS.B */
    MODE_PE = 1 << 3,
    MODE_VM = 1 << 4,
    MODE_LONG = 1 << 5, /* EFER.LMA */
    MODE_FLAT = 1 << 6, /* DS, ES, SS base 0 limit 4 GiB, writable, CS likewise: no segment checks needed */
    MODE_USER = 1 << 7, /* CPL 3 */
    MODE_SMM = 1 << 8
};

enum decode_result {
    DECODE_OK,
    DECODE_UD,       /* op is OP_UD: raises #UD when executed; len is what was consumed */
    DECODE_TOO_LONG, /* more than 15 bytes: #GP(0) when executed (OP_GP0) */
    DECODE_MORE      /* ran out of the bytes given: needs `need` more to go on */
};

/*
 * Decodes one instruction from `bytes` (avail of them) in `mode`. `off` is stored and folded into RIP-relative
 * displacements. Sets everything but fn and idx. Pure; never reads beyond avail.
 */
enum decode_result insn_decode(struct insn *out, const uint8_t *bytes, size_t avail, unsigned mode, unsigned off);
/* One line of text in Intel syntax, for logs; `rip` is that of the instruction. Returns buf. */
char *insn_print(const struct insn *i, uint64_t rip, char *buf, size_t size);
/* Mnemonic in lower case ("add"). */
const char *insn_mnemonic(const struct insn *i);

#endif
