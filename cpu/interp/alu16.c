/* Arithmetic, logic and moves of 16-bit operands. */
#include "cpu/interp/integer.h"

#define ALU_NAME 16
#define ALU_BITS 16
#define ALU_HIGH 0
#include "cpu/interp/alu_tmpl.h"
