/*
 * The protocol of the benchmark program.
 *
 *   bench_guest list                      names of the rows and their groups
 *   bench_guest all [SCALE]               every row once; SCALE is in percent of each row's work (100)
 *   bench_guest serve                     reads lines "NUMBER SCALE" from standard input until "quit"
 *   bench_guest serve port                the same, with marks on port 0xe9
 *
 * For each row a line is printed: "=NUMBER CHECKSUM NANOSECONDS NAME", or "=NUMBER - 0 NAME" if the processor lacks
 * what it needs. NANOSECONDS are processor time, its own and its children's. With `port` the byte 1 and a line's end
 * are written to I/O port 0xe9 just before the work, 2 and a line's end just after it, so that the host can measure.
 */
#include "guest.h"

#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <termios.h>
#include <unistd.h>

void give_up(const char *what)
{
    perror(what);
    exit(1);
}

uint8_t *pages_get(size_t bytes, bool prot_exec)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE | (prot_exec ? PROT_EXEC : 0),
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (p == MAP_FAILED)
        give_up("mmap");
    return p;
}

void pages_put(void *p, size_t bytes)
{
    munmap(p, bytes);
}

static uint64_t time_of(int who)
{
    struct rusage u;
    getrusage(who, &u);
    return ((uint64_t)u.ru_utime.tv_sec + (uint64_t)u.ru_stime.tv_sec) * 1000000000ull +
           ((uint64_t)u.ru_utime.tv_usec + (uint64_t)u.ru_stime.tv_usec) * 1000ull;
}

enum { MARK_BEGIN = 1, MARK_END = 2 };

static void mark(bool port, unsigned char c)
{
    if (port) {
        outb(c, 0xe9);
        outb('\n', 0xe9);
    }
}

static void run(size_t number, uint64_t scale, bool port)
{
    const struct row *r = &rows[number];
    if (r->avx2 && !__builtin_cpu_supports("avx2")) {
        printf("=%zu - 0 %s\n", number, r->name);
        fflush(stdout);
        return;
    }
    uint64_t n = r->work * scale / 100;
    uint64_t start = time_of(RUSAGE_SELF) + time_of(RUSAGE_CHILDREN);
    mark(port, MARK_BEGIN);
    uint64_t sum = r->run(n ? n : 1);
    mark(port, MARK_END);
    printf("=%zu %016llx %llu %s\n", number, (unsigned long long)sum,
           (unsigned long long)(time_of(RUSAGE_SELF) + time_of(RUSAGE_CHILDREN) - start), r->name);
    fflush(stdout);
}

static void serve(bool port)
{
    struct termios t;
    char line[64];
    if (port && iopl(3))
        give_up("iopl");
    if (!tcgetattr(0, &t)) {
        t.c_lflag &= ~(tcflag_t)ECHO;
        tcsetattr(0, TCSANOW, &t);
    }
    printf("ready\n");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin) && strncmp(line, "quit", 4)) {
        char *end;
        size_t number = strtoul(line, &end, 10);
        uint64_t scale = strtoull(end, NULL, 10);
        if (number < row_count && scale)
            run(number, scale, port);
    }
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "all";
    if (!strcmp(what, "exit"))
        return argc > 2 ? atoi(argv[2]) : 0;
    if (!strcmp(what, "serve")) {
        serve(argc > 2 && !strcmp(argv[2], "port"));
        return 0;
    }
    for (size_t k = 0; k < row_count; k++)
        if (!strcmp(what, "list"))
            printf("%zu\t%s\t%s\n", k, rows[k].group, rows[k].name);
        else
            run(k, argc > 2 ? strtoull(argv[2], NULL, 10) : 100, false);
    return 0;
}
