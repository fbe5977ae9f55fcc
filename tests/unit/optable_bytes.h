/*
 * Bytes for a row of optable.def, found by trying prefixes and ModRM bytes: for tests that walk the table.
 */
#ifndef TESTS_UNIT_OPTABLE_BYTES_H
#define TESTS_UNIT_OPTABLE_BYTES_H

#include "cpu/optable.h"

#include <string.h>

/* Bytes that decode to form f in `mode`; returns their number, 0 if none were found. */
static inline unsigned optable_find_bytes(const struct op_form *f, unsigned mode, uint8_t out[15])
{
    static const uint8_t legacy[] = {0, 0x66, 0xf3, 0xf2};
    static const uint8_t escapes[][3] = {
        [MAP_ONE] = {0}, [MAP_0F] = {0x0f}, [MAP_38] = {0x0f, 0x38}, [MAP_3A] = {0x0f, 0x3a}};
    unsigned map = f->key >> 8, opcode = f->key & 0xff;
    for (unsigned tries = 0; tries < 32 * 256; tries++) {
        unsigned p = tries & 3, w = tries >> 2 & 1, l = tries >> 3 & 1, other = tries >> 4 & 1, modrm = tries >> 5,
                 n = 0;
        memset(out, 0, 15);
        if (f->props & PROP_VSIB && !(mode & (MODE_CODE64 | MODE_CODE32)))
            out[n++] = 0x67;
        if (map >= MAP_V0F) {
            out[n++] = 0xc4;
            out[n++] = (uint8_t)(0xe0 | (map - MAP_V0F + 1));
            out[n++] = (uint8_t)(w << 7 | (other ? 0x70 : 0x78) | l << 2 | p);
        } else {
            if (legacy[p])
                out[n++] = legacy[p];
            if ((w || other) && mode & MODE_CODE64)
                out[n++] = (uint8_t)(0x40 | w << 3 | other);
            for (unsigned k = 0; k < 2 && escapes[map][k]; k++)
                out[n++] = escapes[map][k];
        }
        out[n++] = (uint8_t)opcode;
        out[n] = (uint8_t)modrm;
        out[n + 1] = 0x10; /* SIB: index 2 */
        struct insn i;
        enum decode_result r = insn_decode(&i, out, 15, mode, 0);
        if (r == DECODE_OK && insn_form(&i) == f)
            return i.len;
    }
    return 0;
}

/* A row that no bytes of `mode` reach: REX prefixes are wanted, which only 64-bit code has. */
static inline bool optable_wants_rex(const struct op_form *f, unsigned mode)
{
    bool legacy = f->key >> 8 < MAP_V0F, nop = f->op == OP_XCHG && (f->key & 0xff) == 0x90;
    return legacy && !(mode & MODE_CODE64) && (f->prefix & PP_W1 || nop);
}

#endif
