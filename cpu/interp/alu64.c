/* Arithmetic, logic and moves of 64-bit operands. */
#include "cpu/interp/integer.h"

#define ALU_NAME 64
#define ALU_BITS 64
#define ALU_HIGH 0
#include "cpu/interp/alu_tmpl.h"
