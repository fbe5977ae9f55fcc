#include "frontends/machine/boot.h"

#include <string.h>

#define MULTIBOOT_SEARCH 8192

static uint32_t le32(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static bool is_multiboot(const struct file *f)
{
    for (size_t k = 0; k + 12 <= f->len && k < MULTIBOOT_SEARCH; k += 4)
        if (le32(f->data + k) == 0x1badb002 && le32(f->data + k) + le32(f->data + k + 4) + le32(f->data + k + 8) == 0)
            return true;
    return false;
}

enum boot_format boot_detect(const struct file *kernel)
{
    if (kernel->len > 0x206 && kernel->data[0x1fe] == 0x55 && kernel->data[0x1ff] == 0xaa &&
        !memcmp(kernel->data + 0x202, "HdrS", 4))
        return BOOT_LINUX;
    if (is_multiboot(kernel))
        return BOOT_MULTIBOOT;
    return boot_is_multiboot2(kernel) ? BOOT_MULTIBOOT2 : boot_is_pvh(kernel) ? BOOT_PVH : BOOT_UNKNOWN;
}

bool boot_load(const struct boot_env *env, struct error *e)
{
    switch (boot_detect(env->kernel)) {
    case BOOT_LINUX:
        return boot_linux(env, e);
    case BOOT_MULTIBOOT:
        return boot_multiboot(env, e);
    case BOOT_MULTIBOOT2:
        return boot_multiboot2(env, e);
    case BOOT_PVH:
        return boot_pvh(env, e);
    case BOOT_UNKNOWN:
        break;
    }
    return error_set(e, "'%s' is no kernel that is known", env->kernel->path);
}

bool boot_poke(const struct boot_env *env, uint64_t gpa, const void *data, size_t len, const char *what,
               struct error *e)
{
    uint64_t end = gpa + len;
    bool low = end <= 0xa0000 && end >= gpa, high = gpa >= 0x100000 && end >= gpa && end <= env->low_ram_end;
    if (!low && !high)
        return error_set(
            e, "%s does not fit into memory: 0x%llx..0x%llx (RAM below 4 GiB ends at 0x%llx); use a larger -m", what,
            (unsigned long long)gpa, (unsigned long long)end, (unsigned long long)env->low_ram_end);
    if (mem_access(env->mem, 0, gpa, (void *)(uintptr_t)data, len, MEM_HOST_POKE, true, -1) != MEM_OK)
        return error_set(e, "%s cannot be written at 0x%llx", what, (unsigned long long)gpa);
    return true;
}
