// Deliberate mistakes, made only when the command line asks: an emulator's missing-flush detector must name them.
#include "testos.h"

static u64 plant_page(u64 gva)
{
    u64 frame = marked_frame(1);
    map_page(gva, frame | PTE_RWU);
    (void)load64(gva + ACCESS_OFFSET);
    return frame;
}

// plant=invlpg: present to another frame.
static void plant_remap(void)
{
    u64 gva = GVA(100, 1, 2, 3);
    plant_page(gva);
    pte_store(pt_entry(read_cr3(), gva, 1), marked_frame(2) | PTE_RWU);
    u64 seen = load64(gva + ACCESS_OFFSET) - FRAME_MARK;
    print("planted: stale use at gva 0x%lx\n", gva + ACCESS_OFFSET);
    check(seen == 1 || seen == 2, "planted: the page shows its old or its new frame");
}

// plant=readonly: writable to read-only.
static void plant_readonly(void)
{
    u64 gva = GVA(101, 1, 2, 3), frame = plant_page(gva);
    store64(gva + ACCESS_OFFSET, FRAME_MARK + 1);
    pte_store(pt_entry(read_cr3(), gva, 1), frame | PTE_P | PTE_U);
    struct access_result r;
    access_page(&r, WRITE, 3, gva, 0);
    print("planted: stale use at gva 0x%lx\n", gva + ACCESS_OFFSET);
    check(!r.faulted || (r.p.out.vector == VEC_PF && r.p.out.error == 7),
          "planted: the write succeeds by the old right or faults by the new");
}

// plant=unmap: present to not present, two levels up.
static void plant_unmap(void)
{
    u64 gva = GVA(102, 1, 2, 3);
    plant_page(gva);
    pte_store(pt_entry(read_cr3(), gva, 3), 0);
    struct access_result r;
    access_page(&r, READ, 0, gva, 0);
    print("planted: stale use at gva 0x%lx\n", gva + ACCESS_OFFSET);
    check(!r.faulted || (r.p.out.vector == VEC_PF && r.p.out.error == 0),
          "planted: the read succeeds by the old entry or faults by the new");
}

void plant_stale_use(void)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } plants[] = {{"invlpg", plant_remap}, {"readonly", plant_readonly}, {"unmap", plant_unmap}};
    char wanted[32];
    if (!option_value("plant", wanted, sizeof wanted))
        return;
    for (unsigned i = 0; i < sizeof plants / sizeof plants[0]; i++)
        if (text_equal(wanted, plants[i].name) || text_equal(wanted, "all"))
            plants[i].run();
}
