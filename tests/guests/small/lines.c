// Obeys lines typed on COM1; for tests in which several machines get different ones. Commands of a line are separated
// by semicolons:
//
//     fill N      writes to the first N of 1,024 pages
//     swap N      exchanges what the first N pairs of page-table entries map, and writes through each
//     grow N      writes to N pages, at most 2,048, that nobody has touched before
//     sum         prints a sum over all pages
//     say N       prints N lines of 100 characters
//     exit N      leaves through isa-debug-exit with N
//     halt        waits for ever with interrupts off
//     spin        jumps to itself
//     triple      a triple fault on purpose, as a reset
//
// Anything else is repeated. After each line: "ready> ".
#include "../lib/guest.h"

enum { COM1 = 0x3f8, LSR = COM1 + 5, LSR_READY = 1, PAGES = 1024, FIRST_GPA = 0x1000000 };
#define WINDOW GVA(3, 0, 0, 0)

static u64 page(unsigned i)
{
    return WINDOW + i * 0x1000ull;
}

static u64 *leaf(unsigned i)
{
    return pt_entry(read_cr3() & PTE_ADDRESS, page(i), 1);
}

static void window_init(void)
{
    for (unsigned i = 0; i < PAGES; i++) {
        map_page(page(i), (FIRST_GPA + i * 0x1000ull) | PTE_RWU);
        store64(page(i) + 8, i * 0x9e3779b97f4a7c15ull);
    }
}

static void fill(unsigned n)
{
    for (unsigned i = 0; i < n && i < PAGES; i++)
        for (unsigned k = 0; k < 512; k++)
            store64(page(i) + 8 * k, load64(page(i) + 8 * k) * 6364136223846793005ull + i * 512 + k + 1);
}

static void swap(unsigned n)
{
    for (unsigned i = 0; i < n && i < PAGES / 2; i++) {
        u64 *a = leaf(i), *b = leaf(PAGES - 1 - i), entry = pte_load(a);
        pte_store(a, pte_load(b));
        pte_store(b, entry);
        invlpg(page(i));
        invlpg(page(PAGES - 1 - i));
        store64(page(i) + 16, i + 1);
    }
}

static void grow(unsigned n)
{
    for (unsigned i = PAGES; i < PAGES + n && i < 3 * PAGES; i++) {
        map_page(page(i), (FIRST_GPA + i * 0x1000ull) | PTE_RWU);
        for (unsigned k = 0; k < 512; k++)
            store64(page(i) + 8 * k, (i * 512 + k) * 0x9e3779b97f4a7c15ull);
    }
}

static u64 sum(void)
{
    u64 total = 0;
    for (unsigned i = 0; i < PAGES; i++)
        for (unsigned k = 0; k < 512; k++)
            total = (total << 1 | total >> 63) + load64(page(i) + 8 * k);
    return total;
}

// The number after the word, if the command begins with it.
static bool is_command(const char *text, const char *word, unsigned *n)
{
    while (*word)
        if (*text++ != *word++)
            return false;
    if (*text && *text != ' ')
        return false;
    for (*n = 0; *text; text++)
        if (*text >= '0' && *text <= '9')
            *n = *n * 10 + (unsigned)(*text - '0');
    return true;
}

static void triple_fault(void)
{
    idt_set_limit(0);
    __asm__ volatile("int3");
}

static void say(unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        print("%08x it goes on and on and on and on and on and on and on and on and on and on and on and on and off\n",
              i);
}

static void obey(const char *text)
{
    unsigned n;
    if (is_command(text, "fill", &n))
        fill(n);
    else if (is_command(text, "swap", &n))
        swap(n);
    else if (is_command(text, "grow", &n))
        grow(n);
    else if (is_command(text, "sum", &n))
        print("sum %016lx\n", sum());
    else if (is_command(text, "say", &n))
        say(n);
    else if (is_command(text, "exit", &n))
        guest_exit(n);
    else if (is_command(text, "halt", &n))
        __asm__ volatile("1: cli; hlt; jmp 1b");
    else if (is_command(text, "spin", &n))
        __asm__ volatile("1: jmp 1b");
    else if (is_command(text, "triple", &n))
        triple_fault();
    else
        print("said: %s\n", text);
}

static char get_char(void)
{
    while (!(inb(LSR) & LSR_READY))
        ;
    return (char)inb(COM1);
}

static void get_line(char *line, size_t size)
{
    size_t n = 0;
    for (char c; (c = get_char()) != '\n';)
        if (n + 1 < size)
            line[n++] = c;
    line[n] = 0;
}

static void obey_line(char *line)
{
    for (char *end = line; *line; line = end) {
        while (*end && *end != ';')
            end++;
        if (*end)
            *end++ = 0;
        while (*line == ' ')
            line++;
        obey(line);
    }
}

void guest_main(void);

void guest_main(void)
{
    static char line[256];
    console_init();
    traps_init();
    paging_init();
    window_init();
    put_string("lines: up\n");
    for (;;) {
        put_string("ready> ");
        get_line(line, sizeof line);
        obey_line(line);
    }
}
