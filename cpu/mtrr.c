/*
 * Memory type range registers (SDM volume 3, 11.11). Umbra's memory is always coherent: they are kept and checked, and
 * have no effect.
 */
#include "cpu/cpuid.h"
#include "cpu/system.h"

#define MTRR_DEF_TYPE   0x2ff
#define MTRR_PHYS_FIRST 0x200

static const uint16_t fixed_index[] = {0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f};

static int find_fixed(uint32_t index)
{
    for (unsigned k = 0; k < ARRAY_LEN(fixed_index); k++)
        if (fixed_index[k] == index)
            return (int)k;
    return -1;
}

/* UC, WC, WT, WP, WB. */
static bool is_type(uint8_t t)
{
    return t == 0 || t == 1 || t == 4 || t == 5 || t == 6;
}

static bool are_types(uint64_t value)
{
    for (unsigned k = 0; k < 8; k++)
        if (!is_type((uint8_t)(value >> 8 * k)))
            return false;
    return true;
}

bool mtrr_read(const struct vcpu *v, uint32_t index, uint64_t *value)
{
    uint32_t n = index - MTRR_PHYS_FIRST;
    int fixed = find_fixed(index);
    if (n < 2 * MTRR_VARIABLE)
        *value = n & 1 ? v->msr.mtrr_mask[n / 2] : v->msr.mtrr_base[n / 2];
    else if (fixed >= 0)
        *value = v->msr.mtrr_fixed[fixed];
    else if (index == MTRR_DEF_TYPE)
        *value = v->msr.mtrr_def_type;
    else
        return false;
    return true;
}

static int write_variable(struct vcpu *v, uint32_t n, uint64_t value)
{
    uint64_t addr = ((1ull << v->model->maxphyaddr) - 1) & ~PAGE_MASK;
    if (n & 1) {
        if (value & ~(addr | 1 << 11))
            return -1;
        v->msr.mtrr_mask[n / 2] = value;
    } else {
        if (value & ~(addr | 0xff) || !is_type((uint8_t)value))
            return -1;
        v->msr.mtrr_base[n / 2] = value;
    }
    return 1;
}

int mtrr_write(struct vcpu *v, uint32_t index, uint64_t value)
{
    uint32_t n = index - MTRR_PHYS_FIRST;
    int fixed = find_fixed(index);
    if (n < 2 * MTRR_VARIABLE)
        return write_variable(v, n, value);
    if (fixed >= 0) {
        if (!are_types(value))
            return -1;
        v->msr.mtrr_fixed[fixed] = value;
        return 1;
    }
    if (index != MTRR_DEF_TYPE)
        return 0;
    if (value & ~0xcffull || !is_type((uint8_t)value))
        return -1;
    v->msr.mtrr_def_type = value;
    return 1;
}

void vcpu_firmware_mtrrs(struct vcpu *v, uint32_t hole)
{
    struct msrs *m = &v->msr;
    uint64_t addr = (1ull << v->model->maxphyaddr) - 1;
    memset(m->mtrr_fixed, 6, sizeof m->mtrr_fixed);
    m->mtrr_fixed[find_fixed(0x259)] = 0; /* 0xa0000..0xbffff */
    m->mtrr_base[0] = hole;
    m->mtrr_mask[0] = (addr & ~(uint64_t)(UINT32_MAX - hole) & ~PAGE_MASK) | 1u << 11;
    m->mtrr_def_type = 1u << 11 | 1u << 10 | 6;
}
