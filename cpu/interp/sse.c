/*
 * Binding of MMX, SSE, SSE2 and SSE3 instructions, and of those that save and restore their state.
 */
#include "cpu/interp/x87.h"

op_fn *bind_sse(const struct insn *i, unsigned mode)
{
    return bind_xsave(i);
}
