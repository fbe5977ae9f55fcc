/*
 * What the host is not asked, and why.
 */
#include "tests/oracle/generate.h"

static const struct {
    uint16_t op;
    const char *why;
} exclusions[] = {
#define SYSTEM_CALL "enters the host's kernel"
    {OP_SYSCALL, SYSTEM_CALL},
    {OP_SYSENTER, SYSTEM_CALL},
#define VENDOR "exists for one vendor's processors only in this mode"
    {OP_SYSEXIT, VENDOR},
    {OP_SYSRET, VENDOR},
#define SEGMENTS "depends on the host's descriptor tables; tests/unit/test_cpu_segment.c"
    {OP_MOV_TO_SREG, SEGMENTS},
    {OP_POP_SREG, SEGMENTS},
    {OP_LDS, SEGMENTS},
    {OP_LES, SEGMENTS},
    {OP_LSS, SEGMENTS},
    {OP_LFS, SEGMENTS},
    {OP_LGS, SEGMENTS},
    {OP_LAR, SEGMENTS},
    {OP_LSL, SEGMENTS},
    {OP_VERR, SEGMENTS},
    {OP_VERW, SEGMENTS},
    {OP_JMPF, SEGMENTS},
    {OP_CALLF, SEGMENTS},
    {OP_RETF, SEGMENTS},
    {OP_IRET, SEGMENTS},
    {OP_WRFSBASE, "the C library's thread pointer"},
    {OP_RDFSBASE, "the C library's thread pointer"},
    {OP_WRGSBASE, "the oracle's own use of GS"},
#define UMIP "the host's kernel emulates it where UMIP forbids it"
    {OP_SGDT, UMIP},
    {OP_SIDT, UMIP},
    {OP_SLDT, UMIP},
    {OP_STR, UMIP},
    {OP_SMSW, UMIP},
#define VARIES "no two runs give the same"
    {OP_RDTSC, VARIES},
    {OP_RDTSCP, VARIES},
    {OP_RDRAND, VARIES},
    {OP_RDSEED, VARIES},
    {OP_RDPID, VARIES},
    {OP_RDPMC, VARIES},
#define MODEL "says what processor it is"
    {OP_CPUID, MODEL},
    {OP_XGETBV, MODEL},
    {OP_RDPKRU, "the host's protection keys"},
    {OP_WRPKRU, "the host's protection keys"},
#define IMAGE "the image has fields that families of processors fill differently; tests/unit/test_cpu_xsave.c"
    {OP_FXSAVE, IMAGE},
    {OP_FXRSTOR, IMAGE},
    {OP_XSAVE, IMAGE},
    {OP_XSAVEC, IMAGE},
    {OP_XSAVEOPT, IMAGE},
    {OP_XSAVES, IMAGE},
    {OP_XRSTOR, IMAGE},
    {OP_XRSTORS, IMAGE},
    {OP_MONITOR, VENDOR},
    {OP_MWAIT, VENDOR},
    {OP_RSM, "the host's SMM"},
    {OP_INT1, "the host's debugger sees it"},
};

const char *oracle_exclusion(const struct op_form *f)
{
    for (unsigned k = 0; k < ARRAY_LEN(exclusions); k++)
        if (exclusions[k].op == f->op)
            return exclusions[k].why;
    return f->gate == GATE_VMX ? "VT-x is not offered" : NULL;
}
