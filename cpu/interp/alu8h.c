/* Arithmetic, logic and moves of byte operands that may be AH, CH, DH or BH. */
#include "cpu/interp/integer.h"

#define ALU_NAME 8h
#define ALU_BITS 8
#define ALU_HIGH 1
#include "cpu/interp/alu_tmpl.h"
