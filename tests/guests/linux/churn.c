// A Linux program without a library: maps, protects, moves and unmaps memory, and forks children that write to what
// they share with their parent. Everything read is checked against what must be there. Prints "churn ok SUM".
//
//     churn [ROUNDS]     default 60; a fork every other round
typedef unsigned long u64;
typedef unsigned char u8;

enum {
    SYS_WRITE = 1,
    SYS_MMAP = 9,
    SYS_MPROTECT = 10,
    SYS_MUNMAP = 11,
    SYS_MREMAP = 25,
    SYS_MADVISE = 28,
    SYS_FORK = 57,
    SYS_EXIT = 60,
    SYS_WAIT4 = 61
};
enum { PROT_READ = 1, PROT_RW = 3, MAP_PRIVATE_ANON = 0x22, MREMAP_MAYMOVE = 1, MADV_DONTNEED = 4 };
enum { PAGE = 4096, PAGES = 96 };

static long syscall6(long n, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f)
{
    register u64 r10 __asm__("r10") = d;
    register u64 r8 __asm__("r8") = e;
    register u64 r9 __asm__("r9") = f;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

static long call(long n, u64 a, u64 b, u64 c)
{
    return syscall6(n, a, b, c, 0, 0, 0);
}

static void leave(int code)
{
    for (;;)
        call(SYS_EXIT, (u64)code, 0, 0);
}

static void put(const char *text)
{
    u64 n = 0;
    while (text[n])
        n++;
    call(SYS_WRITE, 1, (u64)text, n);
}

static void put_hex(u64 value)
{
    char text[17] = "0000000000000000";
    for (int i = 15; i >= 0; i--, value >>= 4)
        text[i] = "0123456789abcdef"[value & 15];
    put(text);
}

static void require(int condition, const char *what)
{
    if (condition)
        return;
    put("churn failed: ");
    put(what);
    put("\n");
    leave(1);
}

static u64 map(u64 len)
{
    long at = syscall6(SYS_MMAP, 0, len, PROT_RW, MAP_PRIVATE_ANON, (u64)-1, 0);
    require(at > 0, "mmap");
    return (u64)at;
}

static volatile u64 *word(u64 base, u64 page)
{
    return (volatile u64 *)(base + page * PAGE + page % 500 * 8);
}

static u64 value_of(u64 page, u64 seed)
{
    return (page + 1) * 0x9e3779b97f4a7c15ul ^ seed;
}

static void fill(u64 base, u64 from, u64 to, u64 seed)
{
    for (u64 i = from; i < to; i++)
        *word(base, i) = value_of(i, seed);
}

static void check(u64 base, u64 from, u64 to, u64 seed, const char *what)
{
    for (u64 i = from; i < to; i++)
        require(*word(base, i) == value_of(i, seed), what);
}

// The child's writes are its own, and so are the parent's.
static void fork_round(u64 base, u64 seed)
{
    long child = call(SYS_FORK, 0, 0, 0);
    int status = -1;
    require(child >= 0, "fork");
    if (!child) {
        check(base, 0, PAGES, seed, "inherited page");
        fill(base, PAGES / 4, PAGES / 2, ~seed);
        check(base, PAGES / 4, PAGES / 2, ~seed, "page that the child wrote");
        check(base, PAGES / 2, PAGES, seed, "page that the child left alone");
        leave(7);
    }
    fill(base, 0, PAGES / 8, seed + 1);
    require(syscall6(SYS_WAIT4, (u64)child, (u64)&status, 0, 0, 0, 0) == child && status == 7 << 8, "child");
    check(base, 0, PAGES / 8, seed + 1, "page that the parent wrote");
    check(base, PAGES / 8, PAGES, seed, "page that the child wrote, in the parent");
}

static u64 mmap_round(u64 seed)
{
    u64 base = map(PAGES * PAGE);
    fill(base, 0, PAGES, seed);
    require(!call(SYS_MPROTECT, base, PAGES / 2 * PAGE, PROT_READ), "mprotect");
    check(base, 0, PAGES, seed, "page after mprotect");
    require(!call(SYS_MPROTECT, base, PAGES * PAGE, PROT_RW), "mprotect back");
    require(!call(SYS_MADVISE, base + 10 * PAGE, 5 * PAGE, MADV_DONTNEED), "madvise");
    for (u64 i = 10; i < 15; i++)
        require(*word(base, i) == 0, "page after madvise");
    fill(base, 10, 15, seed);
    long moved = syscall6(SYS_MREMAP, base, PAGES * PAGE, 3 * PAGES * PAGE, MREMAP_MAYMOVE, 0, 0);
    require(moved > 0, "mremap");
    base = (u64)moved;
    check(base, 0, PAGES, seed, "page after mremap");
    if (seed & 1)
        fork_round(base, seed);
    u64 sum = *word(base, 3) + *word(base, PAGES - 1);
    require(!call(SYS_MUNMAP, base + PAGE, PAGE, 0), "munmap of a part");
    require(!call(SYS_MUNMAP, base, 3 * PAGES * PAGE, 0), "munmap");
    return sum;
}

static u64 number(const char *text)
{
    u64 n = 0;
    for (; *text >= '0' && *text <= '9'; text++)
        n = n * 10 + (u64)(*text - '0');
    return n;
}

__attribute__((used)) void churn_main(u64 *stack)
{
    u64 rounds = stack[0] > 1 ? number((const char *)stack[2]) : 60, sum = 0;
    u64 kept[8] = {0};
    for (u64 i = 0; i < rounds; i++) {
        u64 k = i % 8;
        if (kept[k]) {
            check(kept[k], 0, PAGES, i - 8, "page that was kept");
            require(!call(SYS_MUNMAP, kept[k], PAGES * PAGE, 0), "munmap of what was kept");
        }
        kept[k] = map(PAGES * PAGE);
        fill(kept[k], 0, PAGES, i);
        sum = (sum << 7 | sum >> 57) + mmap_round(i);
    }
    put("churn ok ");
    put_hex(sum);
    put("\n");
    leave(0);
}

__asm__(".globl _start\n_start: mov %rsp, %rdi\n and $-16, %rsp\n call churn_main\n");
