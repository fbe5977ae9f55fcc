/*
 * The instruction table as constant arrays: rows, names, and an index by opcode.
 */
#include "cpu/optable.h"

const struct op_form optable_forms[] = {
#define ROW(op_, map_, prefix_, opcode_, modrm_, enc_, size_, src_, imm_, modes_, props_, rk_, mk_, rd_, wr_, gate_,   \
            fault_, vmx_)                                                                                              \
    {.op = (op_),                                                                                                      \
     .key = (map_) << 8 | (opcode_),                                                                                   \
     .read = (rd_),                                                                                                    \
     .write = (wr_),                                                                                                   \
     .props = (props_),                                                                                                \
     .prefix = (prefix_),                                                                                              \
     .modrm = (modrm_),                                                                                                \
     .enc = (enc_),                                                                                                    \
     .size = (size_),                                                                                                  \
     .src = (src_),                                                                                                    \
     .imm = (imm_),                                                                                                    \
     .modes = (modes_),                                                                                                \
     .reg_kind = (rk_),                                                                                                \
     .rm_kind = (mk_),                                                                                                 \
     .gate = (gate_),                                                                                                  \
     .fault = (fault_),                                                                                                \
     .vmx = (vmx_)},
#include "cpu/optable.def"
#undef ROW
};
const unsigned optable_form_count = ARRAY_LEN(optable_forms);

const char *const optable_op_names[OP_COUNT] = {
#define M(name, text) [OP_##name] = text,
#include "cpu/mnemonics.def"
#undef M
};

/* Rows are counted by the preprocessor, so that each can say where it stands; of several rows for one opcode the last
 * one stays in the index, which is what overriding an initialiser means. */
enum { FIRST_ROW = __COUNTER__ + 1 };

#ifdef __clang__
#pragma clang diagnostic ignored "-Winitializer-overrides"
#else
#pragma GCC diagnostic ignored "-Woverride-init"
#endif
static const uint16_t last_form[MAP_COUNT << 8] = {
#define ROW(op_, map_, prefix_, opcode_, ...) [(map_) << 8 | (opcode_)] = __COUNTER__ - FIRST_ROW,
#include "cpu/optable.def"
#undef ROW
};

unsigned optable_last_form(unsigned map, unsigned opcode)
{
    return last_form[map << 8 | opcode];
}
