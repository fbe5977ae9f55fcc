// Console, command line, formatted output and the few library functions that the compiler may call.
#include "guest.h"

enum { COM1 = 0x3f8, LSR = COM1 + 5, LSR_THR_EMPTY = 0x20, DEBUG_CONSOLE = 0xe9, DEBUG_EXIT = 0xf4 };

extern char boot_command_line[COMMAND_LINE_MAX];
static bool to_debug_console;

void *memset(void *to, int value, size_t count)
{
    void *start = to;
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(value) : "memory");
    return start;
}

void *memcpy(void *to, const void *from, size_t count)
{
    void *start = to;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
    return start;
}

bool text_equal(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

static void put_char(char c)
{
    if (c == '\n')
        put_char('\r');
    while (!(inb(LSR) & LSR_THR_EMPTY))
        ;
    outb(COM1, (u8)c);
    if (to_debug_console)
        outb(DEBUG_CONSOLE, (u8)c);
}

void put_string(const char *text)
{
    while (*text)
        put_char(*text++);
}

static void put_number(u64 value, unsigned base, unsigned width)
{
    char digits[24];
    unsigned n = 0;
    do {
        digits[n++] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value);
    while (width > n) {
        put_char('0');
        width--;
    }
    while (n)
        put_char(digits[--n]);
}

static void put_signed(long value)
{
    if (value < 0)
        put_char('-');
    put_number(value < 0 ? 0 - (u64)value : (u64)value, 10, 0);
}

void print_args(const char *format, va_list args)
{
    for (; *format; format++) {
        if (*format != '%') {
            put_char(*format);
            continue;
        }
        unsigned width = 0;
        bool is_long = false;
        for (format++; *format >= '0' && *format <= '9'; format++)
            width = width * 10 + (unsigned)(*format - '0');
        for (; *format == 'l'; format++)
            is_long = true;
        switch (*format) {
        case 's':
            put_string(va_arg(args, const char *));
            break;
        case 'c':
            put_char((char)va_arg(args, int));
            break;
        case 'd':
            put_signed(is_long ? va_arg(args, long) : va_arg(args, int));
            break;
        case 'u':
            put_number(is_long ? va_arg(args, u64) : va_arg(args, u32), 10, width);
            break;
        case 'x':
            put_number(is_long ? va_arg(args, u64) : va_arg(args, u32), 16, width);
            break;
        default:
            put_char(*format);
            break;
        }
    }
}

void print(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print_args(format, args);
    va_end(args);
}

static const char *next_word(const char *text, char *word, size_t size)
{
    size_t n = 0;
    while (*text == ' ')
        text++;
    for (; *text && *text != ' '; text++)
        if (n + 1 < size)
            word[n++] = *text;
    word[n] = 0;
    return text;
}

bool option_word(const char *wanted)
{
    char word[COMMAND_LINE_MAX];
    for (const char *at = boot_command_line; *(at = next_word(at, word, sizeof word)) || word[0];)
        if (text_equal(word, wanted))
            return true;
    return false;
}

bool option_value(const char *name, char *buf, size_t size)
{
    char word[COMMAND_LINE_MAX];
    for (const char *at = boot_command_line; *(at = next_word(at, word, sizeof word)) || word[0];) {
        size_t n = 0;
        while (name[n] && word[n] == name[n])
            n++;
        if (name[n] || word[n] != '=')
            continue;
        next_word(word + n + 1, buf, size);
        return true;
    }
    return false;
}

void console_init(void)
{
    outb(COM1 + 1, 0);
    outb(COM1 + 3, 0x80);
    outb(COM1 + 0, 1);
    outb(COM1 + 1, 0);
    outb(COM1 + 3, 3);
    outb(COM1 + 2, 7);
    to_debug_console = option_word("debugcon");
}

void guest_exit(u32 code)
{
    outl(DEBUG_EXIT, code);
    for (;;)
        __asm__ volatile("cli\n\thlt");
}

struct cpuid cpuid_get(u32 leaf, u32 subleaf)
{
    struct cpuid r = {0};
    __asm__ volatile("cpuid" : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx) : "a"(leaf & 0x80000000u), "c"(0));
    if (leaf > r.eax)
        return (struct cpuid){0};
    __asm__ volatile("cpuid" : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx) : "a"(leaf), "c"(subleaf));
    return r;
}
