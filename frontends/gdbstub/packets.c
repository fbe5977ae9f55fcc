/*
 * The packets of the remote serial protocol (GDB manual, appendix E). Unknown ones are answered by an empty packet, as
 * the protocol asks; malformed ones by an error.
 */
#include "frontends/gdbstub/gdbstub_internal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define SIGNAL_INT  2
#define SIGNAL_TRAP 5
#define SIGNAL_ABRT 6

/* ---- hex ---- */

int hex_digit(int c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

void hex_encode(const void *bytes, size_t len, char *out, size_t size)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *b = bytes;
    size_t n = 0;
    if (!size)
        return;
    for (size_t k = 0; k < len && n + 2 < size; k++) {
        out[n++] = digits[b[k] >> 4];
        out[n++] = digits[b[k] & 15];
    }
    out[n] = 0;
}

size_t hex_decode(const char *hex, uint8_t *out, size_t len)
{
    size_t n = 0;
    for (; n < len && hex[2 * n]; n++) {
        int high = hex_digit((uint8_t)hex[2 * n]), low = high < 0 ? -1 : hex_digit((uint8_t)hex[2 * n + 1]);
        if (low < 0)
            return SIZE_MAX;
        out[n] = (uint8_t)(high << 4 | low);
    }
    return n;
}

/* A hex number of at most 16 digits at *p, which moves behind it. */
static bool number(const char **p, uint64_t *out)
{
    const char *start = *p;
    *out = 0;
    for (int d; (d = hex_digit((uint8_t) * *p)) >= 0; (*p)++) {
        if (*p - start >= 16)
            return false;
        *out = *out << 4 | (unsigned)d;
    }
    return *p != start;
}

static bool expect(const char **p, char c)
{
    if (**p != c)
        return false;
    (*p)++;
    return true;
}

/* ---- answers ---- */

static enum gdb_next answer(struct gdbstub *s, const char *text)
{
    connection_send(&s->c, text);
    return GDB_STAY;
}

static enum gdb_next answer_if(struct gdbstub *s, bool ok)
{
    return answer(s, ok ? "OK" : "E01");
}

static enum gdb_next malformed(struct gdbstub *s)
{
    return answer(s, "E22");
}

static const char *watch_word(const struct gdbstub *s, int id)
{
    const struct debug_point *p = debug_point_find(s->debug, id);
    if (!p || p->kind == DEBUG_WATCH_WRITE)
        return "watch";
    return p->kind == DEBUG_WATCH_READ ? "rwatch" : "awatch";
}

static const char *break_word(const struct gdbstub *s, int id)
{
    for (size_t k = 0; k < s->point_count; k++) {
        if (s->points[k].id != id)
            continue;
        if (s->points[k].type == '1')
            return s->hwbreak ? "hwbreak:;" : "";
        break;
    }
    return s->swbreak ? "swbreak:;" : "";
}

static unsigned stop_signal(const struct gdbstub *s)
{
    if (s->over)
        return SIGNAL_ABRT;
    return s->last.why == DEBUG_INTERRUPTED ? SIGNAL_INT : SIGNAL_TRAP;
}

void gdb_send_stop(struct gdbstub *s)
{
    char text[160];
    int n = snprintf(text, sizeof text, "T%02xthread:%x;", stop_signal(s), s->last.cpu + 1);
    if (s->last.why == DEBUG_AT_WATCH && !s->over)
        snprintf(text + n, sizeof text - (size_t)n, "%s:%" PRIx64 ";", watch_word(s, s->last.point), s->last.gva);
    else if (s->last.why == DEBUG_AT_BREAK && !s->over)
        snprintf(text + n, sizeof text - (size_t)n, "%s", break_word(s, s->last.point));
    s->cpu = s->last.cpu;
    connection_send(&s->c, text);
}

void gdb_send_exit(struct gdbstub *s)
{
    char text[8];
    snprintf(text, sizeof text, "W%02x", machine_exit_code(s->m, s->last.end) & 255);
    connection_send(&s->c, text);
}

void gdb_send_console(struct gdbstub *s, const char *text)
{
    char packet[600] = "O";
    hex_encode(text, strlen(text), packet + 1, sizeof packet - 1);
    connection_send(&s->c, packet);
}

/* ---- registers and memory ---- */

static enum gdb_next read_registers(struct gdbstub *s)
{
    struct inspect_regs r;
    machine_get_regs(s->m, s->cpu, &r);
    gdb_registers_read(&r, s->reply, sizeof s->reply);
    return answer(s, s->reply);
}

static enum gdb_next write_registers(struct gdbstub *s, const char *p)
{
    struct inspect_regs r;
    machine_get_regs(s->m, s->cpu, &r);
    return gdb_registers_write(&r, p) ? answer_if(s, machine_set_regs(s->m, s->cpu, &r, NULL)) : malformed(s);
}

static enum gdb_next read_register(struct gdbstub *s, const char *p)
{
    struct inspect_regs r;
    uint64_t n;
    if (!number(&p, &n) || *p)
        return malformed(s);
    machine_get_regs(s->m, s->cpu, &r);
    return gdb_register_read(&r, n, s->reply, sizeof s->reply) ? answer(s, s->reply) : malformed(s);
}

static enum gdb_next write_register(struct gdbstub *s, const char *p)
{
    struct inspect_regs r;
    uint64_t n;
    if (!number(&p, &n) || !expect(&p, '='))
        return malformed(s);
    machine_get_regs(s->m, s->cpu, &r);
    return gdb_register_write(&r, n, p) ? answer_if(s, machine_set_regs(s->m, s->cpu, &r, NULL)) : malformed(s);
}

/* "ADDRESS,LENGTH" and what comes then. */
static bool range(const char **p, uint64_t *address, uint64_t *len)
{
    return number(p, address) && expect(p, ',') && number(p, len);
}

static enum gdb_next read_memory(struct gdbstub *s, const char *p)
{
    uint8_t bytes[PACKET_MAX / 2];
    uint64_t address, len;
    if (!range(&p, &address, &len) || *p)
        return malformed(s);
    if (len > sizeof bytes)
        len = sizeof bytes;
    size_t n = machine_peek_gva(s->m, s->cpu, address, bytes, len);
    if (!n && len)
        return answer(s, "E14");
    hex_encode(bytes, n, s->reply, sizeof s->reply);
    return answer(s, s->reply);
}

static enum gdb_next write_memory(struct gdbstub *s, const char *p)
{
    uint8_t bytes[PACKET_MAX / 2];
    uint64_t address, len;
    if (!range(&p, &address, &len) || !expect(&p, ':') || len > sizeof bytes || strlen(p) != 2 * len ||
        hex_decode(p, bytes, len) != len)
        return malformed(s);
    return answer_if(s, machine_poke_gva(s->m, s->cpu, address, bytes, len, NULL));
}

/* As write_memory(), the data in binary. */
static enum gdb_next write_binary(struct gdbstub *s, const char *p, const uint8_t *end)
{
    uint64_t address, len;
    if (!range(&p, &address, &len) || !expect(&p, ':') || len != (uint64_t)(end - (const uint8_t *)p))
        return malformed(s);
    return answer_if(s, machine_poke_gva(s->m, s->cpu, address, p, len, NULL));
}

/* ---- points ---- */

static struct gdb_point *point_find(struct gdbstub *s, char type, uint64_t address, uint64_t kind)
{
    for (size_t k = 0; k < s->point_count; k++)
        if (s->points[k].type == type && s->points[k].address == address && s->points[k].kind == kind)
            return &s->points[k];
    return NULL;
}

static bool point_parse(const char *p, char *type, uint64_t *address, uint64_t *kind)
{
    *type = *p;
    if (*p < '0' || *p > '4')
        return false;
    p++;
    return expect(&p, ',') && range(&p, address, kind);
}

static int point_add(struct gdbstub *s, char type, uint64_t address, uint64_t kind)
{
    static const enum debug_kind kinds[] = {DEBUG_BREAK, DEBUG_BREAK, DEBUG_WATCH_WRITE, DEBUG_WATCH_READ,
                                            DEBUG_WATCH_ACCESS};
    if (type <= '1')
        return debug_add_break(s->debug, address, NULL);
    return debug_add_watch(s->debug, kinds[type - '0'], address, kind, NULL);
}

static enum gdb_next insert_point(struct gdbstub *s, const char *p)
{
    char type;
    uint64_t address, kind;
    if (!point_parse(p, &type, &address, &kind))
        return malformed(s);
    if (point_find(s, type, address, kind))
        return answer(s, "OK"); /* the protocol wants it idempotent */
    int id = s->point_count < POINTS_MAX ? point_add(s, type, address, kind) : 0;
    if (id)
        s->points[s->point_count++] = (struct gdb_point){type, address, kind, id};
    return answer_if(s, id != 0);
}

static enum gdb_next remove_point(struct gdbstub *s, const char *p)
{
    char type;
    uint64_t address, kind;
    if (!point_parse(p, &type, &address, &kind))
        return malformed(s);
    struct gdb_point *point = point_find(s, type, address, kind);
    if (point) {
        debug_remove(s->debug, point->id);
        *point = s->points[--s->point_count];
    }
    return answer(s, "OK");
}

void gdb_points_clear(struct gdbstub *s)
{
    while (s->point_count)
        debug_remove(s->debug, s->points[--s->point_count].id);
}

/* ---- threads: one a processor, numbered from 1 ---- */

static bool thread_parse(const char *p, const struct gdbstub *s, unsigned *cpu)
{
    uint64_t n;
    if (!strcmp(p, "-1"))
        n = 0;
    else if (!number(&p, &n) || *p)
        return false;
    if (n > machine_cpu_count(s->m))
        return false;
    *cpu = n ? (unsigned)n - 1 : s->last.cpu;
    return true;
}

static enum gdb_next choose_thread(struct gdbstub *s, const char *p)
{
    unsigned cpu;
    if ((*p != 'g' && *p != 'c') || !thread_parse(p + 1, s, &cpu))
        return malformed(s);
    if (*p == 'g')
        s->cpu = cpu;
    else
        s->step_cpu = cpu;
    return answer(s, "OK");
}

static enum gdb_next thread_list(struct gdbstub *s)
{
    int used = snprintf(s->reply, sizeof s->reply, "m");
    for (unsigned k = 0; k < machine_cpu_count(s->m); k++)
        used += snprintf(s->reply + used, sizeof s->reply - (size_t)used, "%s%x", k ? "," : "", k + 1);
    return answer(s, s->reply);
}

/* ---- queries ---- */

static enum gdb_next supported(struct gdbstub *s, const char *p)
{
    char text[200];
    s->swbreak = strstr(p, "swbreak+");
    s->hwbreak = strstr(p, "hwbreak+");
    snprintf(text, sizeof text, "PacketSize=%x;qXfer:features:read+;QStartNoAckMode+;swbreak+;hwbreak+;vContSupported+",
             PACKET_MAX - 4);
    return answer(s, text);
}

static enum gdb_next transfer_features(struct gdbstub *s, const char *p)
{
    static const char annex[] = "target.xml:";
    uint64_t offset, len;
    if (strncmp(p, annex, sizeof annex - 1))
        return answer(s, "E00");
    p += sizeof annex - 1;
    if (!range(&p, &offset, &len) || *p)
        return malformed(s);
    gdb_target_xml(s->xml, sizeof s->xml);
    size_t size = strlen(s->xml);
    if (offset >= size)
        return answer(s, "l");
    if (len > PACKET_MAX - 16)
        len = PACKET_MAX - 16;
    bool last = len >= size - offset;
    snprintf(s->reply, sizeof s->reply, "%c%.*s", last ? 'l' : 'm', (int)(last ? size - offset : len), s->xml + offset);
    return answer(s, s->reply);
}

static bool begins(const char **p, const char *word)
{
    size_t n = strlen(word);
    if (strncmp(*p, word, n))
        return false;
    *p += n;
    return true;
}

static enum gdb_next query(struct gdbstub *s, const char *p)
{
    char text[16];
    if (begins(&p, "Supported"))
        return supported(s, p);
    if (begins(&p, "Xfer:features:read:"))
        return transfer_features(s, p);
    if (!strcmp(p, "fThreadInfo"))
        return thread_list(s);
    if (!strcmp(p, "sThreadInfo"))
        return answer(s, "l");
    if (!strcmp(p, "Attached") || begins(&p, "Attached:"))
        return answer(s, "1");
    if (!strcmp(p, "C")) {
        snprintf(text, sizeof text, "QC%x", s->cpu + 1);
        return answer(s, text);
    }
    return answer(s, "");
}

static enum gdb_next set_query(struct gdbstub *s, const char *p)
{
    if (strcmp(p, "StartNoAckMode"))
        return answer(s, "");
    answer(s, "OK");
    s->c.no_ack = true;
    return GDB_STAY;
}

/* ---- running ---- */

/* c, s, C and S: an address to go on from may follow, after a signal for the last two. */
static enum gdb_next resume(struct gdbstub *s, const char *p, enum gdb_next next)
{
    uint64_t signal, address;
    bool has_signal = *p == 'C' || *p == 'S';
    p++;
    if (has_signal && (!number(&p, &signal) || (*p && !expect(&p, ';'))))
        return malformed(s);
    if (!*p)
        return next;
    struct inspect_regs r;
    if (!number(&p, &address) || *p)
        return malformed(s);
    machine_get_regs(s->m, s->cpu, &r);
    r.rip = address;
    return machine_set_regs(s->m, s->cpu, &r, NULL) ? next : malformed(s);
}

/* vCont;ACTION[:THREAD]...: the machine runs as a whole. If a processor is to step, it is stepped: the others run only
 * until it is its turn. */
static enum gdb_next vcont(struct gdbstub *s, const char *p)
{
    enum gdb_next next = GDB_RESUME;
    if (*p != ';')
        return malformed(s);
    while (expect(&p, ';')) {
        char action = *p;
        uint64_t signal, thread = 0;
        if (!action || !strchr("cCsS", action))
            return malformed(s);
        p++;
        if ((action == 'C' || action == 'S') && !number(&p, &signal))
            return malformed(s);
        bool all = !expect(&p, ':');
        if (!all && !begins(&p, "-1") && !number(&p, &thread))
            return malformed(s);
        if (thread > machine_cpu_count(s->m))
            return malformed(s);
        if (next == GDB_RESUME && (action == 's' || action == 'S')) {
            s->step_cpu = all || !thread ? s->last.cpu : (unsigned)thread - 1;
            next = GDB_STEP;
        }
    }
    return *p ? malformed(s) : next;
}

static enum gdb_next v_packet(struct gdbstub *s, const char *p)
{
    if (!strcmp(p, "Cont?"))
        return answer(s, "vCont;c;C;s;S");
    if (begins(&p, "Cont"))
        return vcont(s, p);
    if (begins(&p, "Kill")) {
        answer(s, "OK");
        return GDB_KILL;
    }
    return answer(s, "");
}

enum gdb_next gdb_packet(struct gdbstub *s, uint8_t *data, size_t len)
{
    const char *p = (const char *)data;
    unsigned cpu;
    if (data[0] != 'X' && strlen(p) != len)
        return malformed(s); /* a zero byte inside */
    switch (data[0]) {
    case '?':
        gdb_send_stop(s);
        return GDB_STAY;
    case 'g':
        return read_registers(s);
    case 'G':
        return write_registers(s, p + 1);
    case 'p':
        return read_register(s, p + 1);
    case 'P':
        return write_register(s, p + 1);
    case 'm':
        return read_memory(s, p + 1);
    case 'M':
        return write_memory(s, p + 1);
    case 'X':
        return write_binary(s, p + 1, data + len);
    case 'Z':
        return insert_point(s, p + 1);
    case 'z':
        return remove_point(s, p + 1);
    case 'H':
        return choose_thread(s, p + 1);
    case 'T':
        return answer_if(s, thread_parse(p + 1, s, &cpu));
    case 'q':
        return query(s, p + 1);
    case 'Q':
        return set_query(s, p + 1);
    case 'c':
    case 'C':
        return resume(s, p, GDB_RESUME);
    case 's':
    case 'S':
        return resume(s, p, GDB_STEP);
    case 'v':
        return v_packet(s, p + 1);
    case 'D':
        answer(s, "OK");
        return GDB_DETACH;
    case 'k':
        return GDB_KILL;
    default:
        return answer(s, "");
    }
}
