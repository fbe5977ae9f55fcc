/*
 * Between the generator's parts: encodings (generate.c), operands for them (operands.c), what is not asked (exclude.c).
 */
#ifndef TESTS_ORACLE_GENERATE_H
#define TESTS_ORACLE_GENERATE_H

#include "tests/oracle/oracle.h"

struct encoding {
    struct oracle_rng *rng;
    uint8_t bytes[32];
    unsigned len, at; /* at: offset in the case's code */
    bool absolute;
    struct insn insn;
};

bool oracle_encode(struct encoding *e, const struct op_form *f, bool code32);
/* Why a form is not asked of the host; NULL if it is. */
const char *oracle_exclusion(const struct op_form *f);
/* BT and its family with a register and memory: the register moves the address. */
bool oracle_uses_bit_offset(const struct insn *i);

/* Registers, windows, displacements and immediates, so that a memory operand lies where it is wanted and holds values
 * of `kind`, and a branch has somewhere to go. */
void oracle_meet_operands(struct oracle_rng *r, struct oracle_case *c, struct encoding *e, enum value_kind kind);
/* The same for an operand that depends on no register. */
void oracle_meet_absolute(struct oracle_rng *r, struct oracle_case *c, struct encoding *e, enum value_kind kind);

#endif
