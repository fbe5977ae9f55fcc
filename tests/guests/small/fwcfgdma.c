// fw_cfg by port and by DMA, including DMA into the machine's live page tables and into code that has just run.
#include "verdict.h"

enum { SELECTOR = 0x510, DATA = 0x511, DMA_HIGH = 0x514, DMA_LOW = 0x518 };
enum { KEY_SIGNATURE = 0, KEY_ID = 1, KEY_RAM_SIZE = 3, KEY_CPU_COUNT = 5 };
enum { DMA_ERROR = 1, DMA_READ = 2, DMA_SKIP = 4, DMA_SELECT = 8 };

struct dma_request {
    u32 control, length; // big-endian
    u64 address;         // big-endian
};

// Code of the probes below.
SNIPPET(dma_code, "mov $0x11223344, %eax\n\tnop");
SNIPPET(dma_write, "mov %rax, (%rdi)");

static volatile struct dma_request request __attribute__((aligned(16)));

static u64 read_key(u16 key, unsigned bytes)
{
    u64 value = 0;
    outw(SELECTOR, key);
    for (unsigned i = 0; i < bytes; i++)
        value |= (u64)inb(DATA) << 8 * i;
    return value;
}

// The control word after the transfer: 0 when all went well.
static u32 dma_run(u32 control, u64 gpa, u32 length)
{
    request.control = __builtin_bswap32(control);
    request.length = __builtin_bswap32(length);
    request.address = __builtin_bswap64(gpa);
    barrier();
    outl(DMA_HIGH, __builtin_bswap32((u32)((u64)&request >> 32)));
    outl(DMA_LOW, __builtin_bswap32((u32)(u64)&request));
    barrier();
    return __builtin_bswap32(request.control);
}

// `length` bytes of a key from `skip` on, to gpa.
static bool dma_read(u16 key, u32 skip, u64 gpa, u32 length)
{
    u32 select = (u32)key << 16 | DMA_SELECT;
    if (skip && dma_run(select | DMA_SKIP, 0, skip))
        return false;
    return !dma_run((skip ? 0 : select) | DMA_READ, gpa, length);
}

static void check_ports(struct verdict *v)
{
    u64 signature = read_key(KEY_SIGNATURE, 4), ram = read_key(KEY_RAM_SIZE, 8), cpus = read_key(KEY_CPU_COUNT, 2);
    print("# signature %c%c%c%c, ram %lu bytes, %lu cpus, id 0x%lx\n", (char)signature, (char)(signature >> 8),
          (char)(signature >> 16), (char)(signature >> 24), ram, cpus, read_key(KEY_ID, 4));
    verdict_equal(v, signature, 0x554d4551, "the signature is QEMU");
    verdict_check(v, ram >= 16ull << 20 && ram % 4096 == 0, "RAM is at least 16 MiB and a multiple of 4 KiB");
    verdict_check(v, cpus >= 1 && cpus <= 4096, "the number of processors is sane");
    verdict_check(v, read_key(KEY_ID, 4) & 2, "the id announces DMA");
    outw(SELECTOR, KEY_SIGNATURE);
    for (unsigned i = 0; i < 4; i++)
        (void)inb(DATA);
    verdict_equal(v, inb(DATA), 0, "bytes past the end of a key are 0");
    verdict_equal(v, read_key(0x3fff, 4), 0, "an unknown key reads as 0");
}

static void check_dma(struct verdict *v)
{
    u64 frame = frame_alloc();
    u8 *bytes = gpa_pointer(frame);
    verdict_check(v, dma_read(KEY_SIGNATURE, 0, frame, 4), "DMA of the signature succeeds");
    verdict_equal(v, load64(frame), 0x554d4551, "and writes just its four bytes");
    verdict_check(v, dma_read(KEY_SIGNATURE, 2, frame + 0xfff, 2), "DMA with a skip across a page boundary");
    verdict_check(v, bytes[0xfff] == 'M' && bytes[0x1000] == 'U', "lands on both pages");
    u64 ram = 0;
    verdict_check(v, dma_read(KEY_RAM_SIZE, 0, (u64)&ram, 8), "DMA of the RAM size");
    barrier();
    verdict_equal(v, *(volatile u64 *)&ram, read_key(KEY_RAM_SIZE, 8), "agrees with the ports");
    memset(bytes, 0xff, 16);
    verdict_check(v, dma_read(KEY_SIGNATURE, 0, frame, 8), "DMA past the end of a key");
    verdict_equal(v, load64(frame), 0x554d4551, "fills up with 0");
    verdict_equal(v, dma_run(0, frame, 4), 0, "a request that asks for nothing completes");
}

// Two bytes of "QEMU" serve as bits 8 to 15 of an entry: 'E' (0x45) is frame nibble 4, 'Q' (0x51) nibble 5, both with
// ignored or unused bits below. As a low byte, 'Q' is present, read-only, supervisor.
static void check_page_tables(struct verdict *v)
{
    u64 frames = frames_alloc(16, 16), gva = GVA(32, 1, 2, 3);
    for (unsigned i = 0; i < 16; i++)
        store64(frames + i * 4096ull, 100 + i);
    u64 *pte = pt_entry(read_cr3(), gva, 1);
    map_page(gva, (frames + 0x9000) | PTE_P | PTE_W);
    verdict_equal(v, load64(gva), 109, "the page before DMA into its entry");
    verdict_check(v, dma_read(KEY_SIGNATURE, 1, (u64)pte + 1, 1), "DMA of one byte into the live page table");
    invlpg(gva);
    verdict_equal(v, load64(gva), 104, "INVLPG: the entry written by DMA is in force");
    verdict_check(v, dma_read(KEY_SIGNATURE, 0, (u64)pte + 1, 1), "DMA into the same entry again");
    flush_all();
    verdict_equal(v, load64(gva), 105, "CR3 reload: the entry written by DMA is in force");
    bool ok = true;
    for (unsigned i = 0; i < 200; i++) {
        ok = ok && dma_read(KEY_SIGNATURE, i & 1, (u64)pte + 1, 1);
        invlpg(gva);
        ok = ok && load64(gva) == (i & 1 ? 104 : 105);
    }
    verdict_check(v, ok, "200 times over");
    store64(gva, 7);
    verdict_check(v, dma_read(KEY_SIGNATURE, 0, (u64)pte, 1), "DMA makes the entry read-only");
    invlpg(gva);
    struct probe p;
    probe_init(&p, dma_write, 0);
    p.in.rdi = gva;
    probe_run(&p);
    verdict_check(v, p.out.vector == 14 && p.out.error == 3 && p.cr2 == gva, "a write then faults with error 3");
    verdict_check(v, dma_read(KEY_RAM_SIZE, 7, (u64)pte, 1), "DMA of a zero byte makes it not present");
    invlpg(gva);
    probe_run(&p);
    verdict_check(v, p.out.vector == 14 && p.out.error == 2 && p.cr2 == gva, "a write then faults with error 2");
    verdict_check(v, dma_read(KEY_SIGNATURE, 0, (u64)pte, 1), "DMA makes it present, no flush");
    verdict_equal(v, load64(gva), 7, "a read succeeds at once");
    u64 *pde = pt_entry(read_cr3(), gva, 2);
    verdict_check(v, dma_read(0x3fff, 0, (u64)pde, 8), "DMA clears the entry a level above");
    invlpg(gva);
    probe_run(&p);
    verdict_check(v, p.out.vector == 14 && p.out.error == 2, "and the page is gone");
}

static u64 run_code(u64 gva)
{
    struct probe p;
    probe_init(&p, dma_code, 0);
    p.in.rip = gva;
    probe_run(&p);
    return p.out.vector == VECTOR_DONE ? p.out.rax : ~0ull;
}

static void check_code(struct verdict *v)
{
    u64 frame = frame_alloc(), gva = GVA(33, 1, 2, 3);
    memcpy(gpa_pointer(frame), dma_code, (size_t)(dma_code_end - dma_code));
    map_page(gva, frame | PTE_P);
    verdict_equal(v, run_code(gva), 0x11223344, "code before DMA into it");
    verdict_check(v, dma_read(KEY_SIGNATURE, 0, frame + 1, 4), "DMA into the code that has just run");
    verdict_equal(v, run_code(gva), 0x554d4551, "the new code runs");
    bool ok = true;
    for (unsigned i = 0; i < 200; i++) {
        ok = ok && dma_read(KEY_SIGNATURE, i & 3, frame + 1, 1);
        ok = ok && run_code(gva) == (0x554d4500u | (u8) "QEMU"[i & 3]);
    }
    verdict_check(v, ok, "200 times over");
    verdict_equal(v, run_code(frame), 0x554d4555, "the same through the one-to-one mapping");
}

void guest_main(void);

void guest_main(void)
{
    struct verdict v = {.guest = "fwcfgdma"};
    console_init();
    traps_init();
    check_ports(&v);
    check_dma(&v);
    check_page_tables(&v);
    check_code(&v);
    verdict_exit(&v);
}
