/* Arithmetic, logic and moves of 32-bit operands. */
#include "cpu/interp/integer.h"

#define ALU_NAME 32
#define ALU_BITS 32
#define ALU_HIGH 0
#include "cpu/interp/alu_tmpl.h"
