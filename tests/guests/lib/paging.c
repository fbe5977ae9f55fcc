// Frame pool and page tables.
#include "guest.h"

enum { POOL_START = 0x400000, POOL_END = 0xc00000 };

static u64 pool_next = POOL_START;

u64 frame_mark(void)
{
    return pool_next;
}
void frame_release(u64 mark)
{
    pool_next = mark;
}

u64 frames_alloc(unsigned count, unsigned align)
{
    u64 size = (u64)align * 4096, frame = (pool_next + size - 1) / size * size;
    pool_next = frame + (u64)count * 4096;
    if (pool_next > POOL_END) {
        print("out of frames\n");
        guest_exit(EXIT_FAIL);
    }
    memset(gpa_pointer(frame), 0, (size_t)count * 4096);
    return frame;
}

u64 frame_alloc(void)
{
    return frames_alloc(1, 1);
}

u64 *pt_entry(u64 root, u64 gva, unsigned level)
{
    u64 *table = gpa_pointer(root & PTE_ADDRESS);
    for (unsigned at = 4;; at--) {
        u64 *entry = &table[gva >> (12 + 9 * (at - 1)) & 511];
        if (at == level)
            return entry;
        if (!(pte_load(entry) & PTE_P))
            pte_store(entry, frame_alloc() | PTE_RWU);
        table = gpa_pointer(pte_load(entry) & PTE_ADDRESS);
    }
}

void map_page(u64 gva, u64 entry)
{
    pte_store(pt_entry(read_cr3(), gva, 1), entry);
    invlpg(gva);
}

void map_large(u64 gva, u64 entry)
{
    pte_store(pt_entry(read_cr3(), gva, 2), entry | PTE_PS);
    invlpg(gva);
}

void paging_init(void)
{
    for (u64 code = (u64)probe_code_start; code < (u64)probe_code_end; code += 4096)
        map_page(USER_CODE + (code - (u64)probe_code_start), code | PTE_P | PTE_U);
    map_page(USER_STACK_TOP - 0x1000, frame_alloc() | PTE_RWU | PTE_NX);
}
