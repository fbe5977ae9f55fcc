/* Arithmetic, logic and moves of byte operands, none of them AH, CH, DH or BH. */
#include "cpu/interp/integer.h"

#define ALU_NAME 8
#define ALU_BITS 8
#define ALU_HIGH 0
#include "cpu/interp/alu_tmpl.h"
