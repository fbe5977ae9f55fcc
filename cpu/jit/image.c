/*
 * What the frame has of flags becomes an image: for PUSHF, SYSCALL, and conditions on flags of another block.
 *
 * Most recipes are an operation of the ALU whose operands are in the frame (who looks at another block's flags finds
 * them there): for each of these there is a piece of code, made once, that does the operation again. A recipe's record
 * says where. All others, overlays and pieces are evaluated by C.
 */
#include "cpu/jit/internal.h"

_Static_assert(sizeof(struct jit_recipe) == RECIPE_ALIGN && RECIPE_ALIGN == 1 << 5, "names are shifted by 5");

enum { B_IN_M1, B_IN_M2, B_IMM };

const uint8_t *jit_recipe_code(const struct jit *j, const struct jit_recipe *r)
{
    bool alone = r->kind == RECIPE_LOGIC || r->kind == RECIPE_NEGR;
    unsigned b = r->b == SRC_M2 ? B_IN_M2 : r->b == SRC_IMM ? B_IMM : B_IN_M1;
    if (r->kind < RECIPE_SUB || r->kind > RECIPE_NEGR || r->a != SRC_M1 || (!alone && !b && r->b != SRC_M1))
        return j->recipe_by_c;
    return j->recipe_code[r->kind - RECIPE_SUB][__builtin_ctz(r->size)][alone ? B_IN_M1 : b];
}

static void alu(struct emit *e, unsigned size, unsigned n, unsigned b)
{
    bool byte = size == 1;
    struct opnd from = b == B_IMM ? op_r14() : op_frame(b == B_IN_M2 ? FRAME(m2) : FRAME(m1));
    emit_rm(e, (struct how){.size = size, .reg_byte = byte, .rm_byte = byte}, OPC((uint8_t)(n << 3 | 2 | !byte)), H_R15,
            from);
}

static void on_r15(struct emit *e, unsigned size, unsigned op, unsigned reg)
{
    bool byte = size == 1;
    emit_rm(e, (struct how){.size = size, .reg_byte = byte, .rm_byte = byte}, OPC((uint8_t)(op | !byte)), reg,
            op_reg(H_R15));
}

enum { ADD = 0, AND = 4, SUB = 5 };

/* The operation once more; r14: the record's immediate. */
static void emit_operation(struct emit *e, unsigned kind, unsigned size, unsigned b)
{
    emit_load(e, H_R15, FRAME(m1));
    switch (kind) {
    case RECIPE_SUBR:
        alu(e, size, ADD, b);
        /* fall through */
    case RECIPE_SUB:
        alu(e, size, SUB, b);
        break;
    case RECIPE_ADDR:
        alu(e, size, SUB, b);
        /* fall through */
    case RECIPE_ADD:
        alu(e, size, ADD, b);
        break;
    case RECIPE_LOGIC:
        on_r15(e, size, 0x84, H_R15); /* test */
        break;
    case RECIPE_AND:
        alu(e, size, AND, b);
        break;
    default:
        on_r15(e, size, 0xf6, 3); /* neg: of the result is the operand */
        on_r15(e, size, 0xf6, 3);
        break;
    }
}

/* The host's flags into the frame, and back. */
static void emit_finish(struct emit *e)
{
    jit_emit_flags_image(e);
    emit_store_imm(e, FRAME(recipe), 0);
    emit_load(e, H_R14, FRAME(exit_rip));
    emit_rm(e, (struct how){0}, OPC(0xff), 4, op_frame(FRAME(exit_link)));
}

void jit_make_image_thunk(struct jit *j, struct emit *e)
{
    j->thunk_image = e->p + e->exec;
    emit_store(e, H_R14, FRAME(exit_rip));
    emit_store(e, H_R15, FRAME(exit_link));
    emit_load(e, H_R14, FRAME(recipe));
    emit_op64(e, 0x81, 7, op_reg(H_R14)); /* cmp: an overlay, or pieces */
    e32(e, FRAME_PIECE - 1);
    uint8_t *more = emit_jcc(e, CC_A);
    emit_imm(e, H_R15, (uint64_t)(uintptr_t)j->arena.data);
    emit_op64(e, 0xc1, 4, op_reg(H_R14)); /* shl */
    e8(e, 5);
    emit_op64(e, 0x03, H_R14, op_reg(H_R15));
    e8(e, 0x41); /* jmp [r14 + code] */
    e8(e, 0xff);
    e8(e, 0x66);
    e8(e, offsetof(struct jit_recipe, code));
    patch_jump(e, more, e->p);
    j->recipe_by_c = e->p + e->exec;
    jit_emit_image_by_c(j, e);
    const uint8_t *finish = e->p;
    emit_finish(e);
    e->r14_disp = offsetof(struct jit_recipe, imm);
    for (unsigned kind = RECIPE_SUB; kind <= RECIPE_NEGR; kind++)
        for (unsigned size = 0; size < 4; size++)
            for (unsigned b = B_IN_M1; b <= B_IMM; b++) {
                j->recipe_code[kind - RECIPE_SUB][size][b] = e->p + e->exec;
                emit_operation(e, kind, 1u << size, b);
                emit_jmp_to(e, finish);
            }
    e->r14_disp = 0;
}
