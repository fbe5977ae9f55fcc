// Page-table entries changed by every kind of store, through several mappings of the table.
#include "testos.h"

enum { INDEX = 300 }; // of the entry that the stores change

// rdi: the address of the entry; rax: its new value; rdx: a value whose low byte, word and dword suit narrow stores;
// rsi: the address of a copy of the new value; rcx: the new value shifted right by 32, or a count.
SNIPPET(store_mov8, "mov %rax, (%rdi)");
SNIPPET(store_mov4, "mov %eax, (%rdi)");
SNIPPET(store_mov4_twice, "mov %eax, (%rdi)\n\tmov %ecx, 4(%rdi)");
SNIPPET(store_mov4_high_first, "mov %ecx, 4(%rdi)\n\tmov %eax, (%rdi)");
SNIPPET(store_mov2, "mov %ax, (%rdi)");
SNIPPET(store_bytes, "mov %al, (%rdi)\n\tshr $8, %rax\n\tmov %al, 1(%rdi)\n\tshr $8, %rax\n\tmov %ax, 2(%rdi)");
SNIPPET(store_xchg, "xchg %rax, (%rdi)");
SNIPPET(store_cmpxchg, "mov %rax, %rcx\n\tmov (%rdi), %rax\n\tlock cmpxchg %rcx, (%rdi)");
SNIPPET(store_cmpxchg8b, "mov %eax, %ebx\n\tmov (%rdi), %eax\n\tmov 4(%rdi), %edx\n\tlock cmpxchg8b (%rdi)");
SNIPPET(store_xadd, "sub (%rdi), %rax\n\tlock xadd %rax, (%rdi)");
SNIPPET(store_add, "sub (%rdi), %rax\n\tadd %rax, (%rdi)");
SNIPPET(store_xor, "xor (%rdi), %rax\n\tlock xor %rax, (%rdi)");
SNIPPET(store_and_or, "andq $0, (%rdi)\n\tor %rax, (%rdi)");
SNIPPET(store_stosq, "stosq");
SNIPPET(store_rep_stosq, "mov $1, %ecx\n\trep stosq");
SNIPPET(store_rep_stosb, "mov (%rdi), %rbx\n\tmov %rdi, %rdx\n\tmov %rax, %rbx\n\txor %eax, %eax\n\tmov $8, %ecx\n\t"
                         "rep stosb\n\tmov %rbx, (%rdx)");
SNIPPET(store_movsq, "movsq");
SNIPPET(store_rep_movsq, "sub $8, %rdi\n\tsub $8, %rsi\n\tmov $2, %ecx\n\trep movsq");
SNIPPET(store_rep_movsb, "mov $8, %ecx\n\trep movsb");
SNIPPET(store_rep_movsb_down, "add $7, %rdi\n\tadd $7, %rsi\n\tmov $8, %ecx\n\tstd\n\trep movsb\n\tcld");
SNIPPET(store_push, "mov %rsp, %rbx\n\tlea 8(%rdi), %rsp\n\tpush %rax\n\tmov %rbx, %rsp");
SNIPPET(store_pop, "mov %rsp, %rbx\n\tmov %rsi, %rsp\n\tpopq (%rdi)\n\tmov %rbx, %rsp");
SNIPPET(store_movnti, "movnti %rax, (%rdi)");
SNIPPET(store_bits, "lock btsq $2, (%rdi)\n\tlock btrq $1, (%rdi)\n\tlock btcq $12, (%rdi)\n\tlock btcq $12, (%rdi)\n\t"
                    "mov %rax, (%rdi)");
SNIPPET(store_straddle, "mov (%rdi), %rbx\n\tmov %rax, %rbx\n\tshl $32, %rbx\n\tmov -4(%rdi), %edx\n\tor %rdx, %rbx\n\t"
                        "mov %rbx, -4(%rdi)\n\tmov %ecx, 4(%rdi)");

struct store {
    const char *name, *code;
};

static const struct store stores[] = {
    {"an 8-byte mov", store_mov8},
    {"a 4-byte mov of the low half", store_mov4},
    {"two 4-byte movs", store_mov4_twice},
    {"two 4-byte movs, high half first", store_mov4_high_first},
    {"a 2-byte mov", store_mov2},
    {"byte and word movs", store_bytes},
    {"xchg", store_xchg},
    {"lock cmpxchg", store_cmpxchg},
    {"lock cmpxchg8b", store_cmpxchg8b},
    {"lock xadd", store_xadd},
    {"add", store_add},
    {"lock xor", store_xor},
    {"and, then or", store_and_or},
    {"stosq", store_stosq},
    {"rep stosq", store_rep_stosq},
    {"rep stosb of zeroes, then mov", store_rep_stosb},
    {"movsq", store_movsq},
    {"rep movsq of two entries", store_rep_movsq},
    {"rep movsb", store_rep_movsb},
    {"rep movsb downwards", store_rep_movsb_down},
    {"push", store_push},
    {"pop to memory", store_pop},
    {"movnti", store_movnti},
    {"lock bts, btr, btc, then mov", store_bits},
    {"a store that straddles two entries", store_straddle},
};
enum { STORES = sizeof stores / sizeof stores[0] };

struct scene {
    u64 gva, table; // the page under test, its table's gpa
    u64 *entry;
    u64 old_frame, new_frame; // they differ in bits 12 to 15 only, so that narrow stores can switch between them
    u64 copies;               // gva of a page with a copy of the new entry
};

static u64 mark_at(u64 gva)
{
    return load64(gva + ACCESS_OFFSET) - FRAME_MARK;
}

static void scene_make(struct scene *s)
{
    u64 frames = frames_alloc(16, 16), copies = frame_alloc();
    s->gva = GVA(70, 1, 1, INDEX);
    s->entry = pt_entry(read_cr3(), s->gva, 1);
    s->table = (u64)s->entry & PTE_ADDRESS;
    s->old_frame = frames + 0x3000;
    s->new_frame = frames + 0x6000;
    s->copies = GVA(71, 1, 1, 1);
    map_page(s->copies, copies | PTE_RWU);
    mark_memory(gpa_pointer(s->old_frame), 1);
    mark_memory(gpa_pointer(s->new_frame), 2);
}

// New entry: other frame, read-only; A and D set so that the processor's own update does not change it under a
// read-modify-write snippet.
static void check_store(const struct scene *s, const struct store *store, u64 view, unsigned cpl, const char *where)
{
    u64 old = s->old_frame | PTE_RWU | PTE_A | PTE_D, new = s->new_frame | PTE_P | PTE_U | PTE_A | PTE_D;
    mark_memory(gpa_pointer(s->old_frame), 1);
    pte_store(s->entry, old);
    invlpg(s->gva);
    bool before = mark_at(s->gva) == 1 && !access_mismatch(WRITE, 3, s->gva, 0, -1);
    store64(s->copies + 0x800, new);
    store64(s->copies + 0x7f8, 0);
    struct probe p;
    probe_init(&p, store->code, cpl);
    p.in.rdi = view + INDEX * 8;
    p.in.rsi = s->copies + 0x800;
    p.in.rax = new;
    p.in.rcx = new >> 32;
    probe_run(&p);
    invlpg(s->gva);
    u64 got = pte_load(s->entry);
    bool after = mark_at(s->gva) == 2 && !access_mismatch(WRITE, 3, s->gva, 0, PF_P | PF_W | PF_U);
    check(before && after && p.out.vector == VECTOR_DONE && got == new, "PTE changed by %s, %s%s", store->name, where,
          !before                       ? ": wrong before the store"
          : p.out.vector != VECTOR_DONE ? ": the store faulted"
          : got != new                  ? ": the entry holds something else"
          : !after                      ? ": the page is not as the new entry says"
                                        : "");
}

SNIPPET(entries_inline, "mov (%rsi), %rbx\n\tmov %rax, (%rdi)\n\tinvlpg (%rsi)\n\tmov (%rsi), %rcx\n\t"
                        "mov %r8, (%rdi)\n\tinvlpg (%rsi)\n\tmov (%rsi), %rdx");

static void check_straight_line(const struct scene *s)
{
    struct probe p;
    pte_store(s->entry, s->old_frame | PTE_RWU);
    invlpg(s->gva);
    mark_memory(gpa_pointer(s->old_frame), 1);
    probe_init(&p, entries_inline, 0);
    p.in.rdi = (u64)s->entry;
    p.in.rsi = s->gva + ACCESS_OFFSET;
    p.in.rax = s->new_frame | PTE_RWU;
    p.in.r8 = s->old_frame | PTE_RWU;
    check_probe(&p, done(), "store, INVLPG, load twice over in straight-line code");
    check_equal(p.out.rbx, FRAME_MARK + 1, "the first load sees the old frame");
    check_equal(p.out.rcx, FRAME_MARK + 2, "the second load sees the new frame");
    check_equal(p.out.rdx, FRAME_MARK + 1, "the third load sees the old frame again");
}

// The frame of an interrupt from user mode lands in the page table: the saved RSP becomes the entry.
SNIPPET(entries_interrupt, "int $0x81");

static void check_pushed_entry(const struct scene *s)
{
    struct probe p;
    pte_store(s->entry, s->old_frame | PTE_RWU);
    invlpg(s->gva);
    mark_memory(gpa_pointer(s->old_frame), 1);
    u64 before = mark_at(s->gva);
    gate_set_dpl(0x81, 3);
    tss_set_rsp0((u64)s->entry + 16);
    probe_init(&p, entries_interrupt, 3);
    p.in.rsp = s->new_frame | PTE_P | PTE_U;
    probe_run(&p);
    gate_reset(0x81);
    tss_set_rsp0(0);
    invlpg(s->gva);
    check(before == 1 && p.out.vector == 0x81 && mark_at(s->gva) == 2,
          "PTE changed by the processor's push of an interrupt frame");
    check_access(WRITE, 3, s->gva, PF_P | PF_W | PF_U, "PTE pushed as a saved RSP");
    memset(gpa_pointer(s->table), 0, 4096);
    flush_all();
}

// The first entry of a table, changed by a store that begins in the page before it.
SNIPPET(entries_cross, "mov %rax, (%rdi)\n\tmov %ecx, 4(%rdi)");

static void check_crossing_store(const struct scene *s, unsigned cpl)
{
    u64 gva = GVA(72, 1, 1, 0), view = GVA(73, 1, 1, 0), data = frame_alloc();
    u64 *entry = pt_entry(read_cr3(), gva, 1);
    struct probe p;
    map_page(view, data | PTE_RWU);
    map_page(view + 0x1000, ((u64)entry & PTE_ADDRESS) | PTE_RWU);
    pte_store(entry, s->old_frame | PTE_RWU);
    invlpg(gva);
    mark_memory(gpa_pointer(s->old_frame), 1);
    u64 before = mark_at(gva), new = s->new_frame | PTE_P | PTE_U;
    probe_init(&p, entries_cross, cpl);
    p.in.rdi = view + 0xffc;
    p.in.rax = new << 32 | 0x1234567;
    p.in.rcx = (new & 0xffffffff);
    probe_run(&p);
    invlpg(gva);
    check(before == 1 && mark_at(gva) == 2 && *(u32 *)gpa_pointer(data + 0xffc) == 0x1234567,
          "PTE changed by a store that begins in a data page, CPL %u", cpl);
    check_access(WRITE, 3, gva, PF_P | PF_W | PF_U, "PTE changed by a page-crossing store");
}

// Whole tables written by one instruction.
SNIPPET(entries_fill, "rep stosq");
SNIPPET(entries_copy, "rep movsq");

static void check_bulk(const struct scene *s)
{
    u64 first = GVA(74, 1, 1, 0), second = GVA(74, 1, 2, 0), frames = frames_alloc(8, 1);
    u64 *from = pt_entry(read_cr3(), first, 1), *to = pt_entry(read_cr3(), second, 1);
    struct probe p;
    probe_init(&p, entries_fill, 0);
    p.in.rdi = (u64)from;
    p.in.rcx = 512;
    p.in.rax = s->new_frame | PTE_RWU;
    check_probe(&p, done(), "rep stosq fills a page table");
    check(mark_at(first) == 2 && mark_at(first + 511 * 4096ull) == 2 && mark_at(first + 99 * 4096ull) == 2,
          "all of it maps the frame");
    for (unsigned i = 0; i < 512; i++)
        pte_store(from + i, (frames + i % 8 * 4096ull) | PTE_RWU);
    for (unsigned i = 0; i < 8; i++)
        mark_memory(gpa_pointer(frames + i * 4096ull), 20 + i);
    flush_all();
    probe_init(&p, entries_copy, 0);
    p.in.rsi = (u64)from;
    p.in.rdi = (u64)to;
    p.in.rcx = 512;
    check_probe(&p, done(), "rep movsq copies a page table over another");
    bool ok = true;
    for (unsigned i = 0; i < 512; i++)
        ok = ok && mark_at(second + i * 4096ull) == 20 + i % 8;
    check(ok, "the copy maps what the original maps");
    probe_init(&p, entries_fill, 0);
    p.in.rdi = (u64)to;
    p.in.rcx = 256;
    probe_run(&p);
    flush_all();
    check_access(READ, 0, second + 255 * 4096ull, 0, "rep stosq cleared half a table");
    check_access(READ, 0, second + 256 * 4096ull, -1, "and left the other half");
}

void group_entries(void)
{
    struct scene s;
    scene_make(&s);
    u64 alias = GVA(75, 1, 1, 1);
    map_page(alias, s.table | PTE_RWU);
    for (unsigned i = 0; i < STORES; i++) {
        check_store(&s, &stores[i], s.table, 0, "2 MiB mapping of the table");
        check_store(&s, &stores[i], alias, 0, "4 KiB mapping of the table");
        check_store(&s, &stores[i], alias, 3, "from user mode");
    }
    check_straight_line(&s);
    check_pushed_entry(&s);
    check_crossing_store(&s, 0);
    check_crossing_store(&s, 3);
    check_bulk(&s);
}
