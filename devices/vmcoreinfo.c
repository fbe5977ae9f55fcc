#include "devices/vmcoreinfo.h"

#include "core/bytes.h"

#include <string.h>

#define LEN        16
#define FORMAT_ELF 1

static const uint8_t fresh[LEN] = {FORMAT_ELF};

bool vmcoreinfo_init(struct fw_cfg *f)
{
    return fw_cfg_add_file(f, VMCOREINFO_FILE, fresh, LEN, true);
}

void vmcoreinfo_reset(struct fw_cfg *f)
{
    struct fw_cfg_item *it = fw_cfg_find_file(f, VMCOREINFO_FILE);
    if (it)
        memcpy(it->data, fresh, LEN);
}

bool vmcoreinfo_get(const struct fw_cfg *f, struct vmcoreinfo *out)
{
    const struct fw_cfg_item *it = fw_cfg_find_file(f, VMCOREINFO_FILE);
    if (!it || load_le(it->data + 2, 2) != FORMAT_ELF)
        return false;
    *out = (struct vmcoreinfo){(uint32_t)load_le(it->data + 4, 4), load_le(it->data + 8, 8)};
    return true;
}
