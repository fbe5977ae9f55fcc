/*
 * How much host code an instruction becomes: host instructions and bytes for each row of optable.def, with registers
 * and with memory, compiled behind an instruction that sets the flags and before one that lets everything be looked at.
 * The table is checked in (table.txt); what has changed is shown, and is right only if someone wanted it.
 *
 *   jitsize TABLE             compares
 *   jitsize --update TABLE    writes
 *
 * Bytes that only a slow path runs are not counted. Rows that the table's processor (AVX2, BMI2, no SHA) would compile
 * otherwise than this host are no rows of it: elsewhere there is nothing to compare.
 */
#include "core/stats.h"
#include "cpu/jit/jit.h"
#include "cpu/optable.h"
#include "tests/unit/cpu_rig.h"

#include <inttypes.h>

#define CODE_BYTES 32
#define TEST_LEN   2 /* test esi, esi */

struct scene {
    struct cpu_rig rig;
    struct jit *jit;
    struct stats stats;
    struct log log;
    char *text;
    size_t size;
    FILE *file;
    uint64_t at; /* each attempt has a page of its own */
    unsigned mode;
};

struct encoding {
    uint8_t bytes[CODE_BYTES];
    unsigned len;
    struct insn insn;
};

struct measure {
    bool exists, handler;
    unsigned insns, bytes;
};

/* ---- encodings ---- */

static void put(struct encoding *e, unsigned byte)
{
    e->bytes[e->len++] = (uint8_t)byte;
}

static bool is_exact_modrm(unsigned modrm)
{
    return modrm >= 0xc0;
}

/* ModRM with RCX, and RDX or [RBX + 16]; for forms without one nothing. */
static void put_modrm(struct encoding *e, const struct op_form *f, bool mem)
{
    unsigned digit = f->modrm >= RM_D(0) && f->modrm < RM_DR(0) + 8 ? f->modrm & 7u : 1;
    if (f->modrm == RM_0)
        return;
    if (is_exact_modrm(f->modrm)) {
        put(e, f->modrm);
    } else if (!mem) {
        put(e, 0xc0 | digit << 3 | 2);
    } else if (f->props & PROP_VSIB) {
        put(e, 0x44 | digit << 3);
        put(e, 0x1b); /* rbx + 3 */
        put(e, 0x10);
    } else {
        put(e, 0x43 | digit << 3);
        put(e, 0x10);
    }
}

static unsigned opcode_byte(const struct op_form *f)
{
    return (f->key & 0xff) | (f->props & PROP_OPREG ? 2 : f->props & PROP_CC ? 4 : 0);
}

static void put_opcode(struct encoding *e, const struct op_form *f, bool w, bool l)
{
    static const uint8_t prefixes[8] = {[PP_P66] = 0x66, [PP_PF3] = 0xf3, [PP_PF2] = 0xf2};
    static const uint8_t vex[8] = {[PP_P66] = 1, [PP_PF3] = 2, [PP_PF2] = 3};
    unsigned map = f->key >> 8, kind = f->prefix & PP_KIND;
    bool has_v = f->enc >= ENC_RVM;
    if (map >= MAP_V0F) {
        put(e, 0xc4);
        put(e, 0xe0 | (map - MAP_V0F + 1));
        put(e, (w ? 0x80u : 0) | (has_v ? 0x60 : 0x78) | (l ? 4u : 0) | vex[kind]); /* vvvv: 3 */
    } else {
        if (prefixes[kind])
            put(e, prefixes[kind]);
        if (w)
            put(e, 0x48);
        if (map != MAP_ONE)
            put(e, 0x0f);
        if (map == MAP_38 || map == MAP_3A)
            put(e, map == MAP_38 ? 0x38 : 0x3a);
    }
    put(e, opcode_byte(f));
}

/* One that decodes to the row, if there is one. */
static bool encode(struct encoding *e, const struct op_form *f, unsigned mode, bool mem)
{
    bool wide = mode & MODE_CODE64;
    for (unsigned k = 0; k < 4; k++) {
        bool w = k & 1, l = (k >> 1 & 1) != (f->size == SZ_L);
        if (w && !wide && f->key >> 8 < MAP_V0F)
            continue;
        *e = (struct encoding){.len = 0};
        put_opcode(e, f, w, l);
        put_modrm(e, f, mem);
        put(e, 8); /* displacement, immediate */
        if (insn_decode(&e->insn, e->bytes, CODE_BYTES, mode, 0) != DECODE_OK || insn_form(&e->insn) != f)
            continue;
        e->len = e->insn.len;
        if (f->modrm == RM_0 || is_exact_modrm(f->modrm))
            return !mem;
        return mem == !(e->insn.flags & INSN_RM_REG);
    }
    return false;
}

/* ---- compiling ---- */

static void scene_open(struct scene *s, bool wide)
{
    memset(s, 0, sizeof *s);
    rig_open_model(&s->rig, "max");
    if (wide)
        rig_long(&s->rig);
    else
        rig_protected(&s->rig);
    s->mode = s->rig.v->mode;
    s->file = open_memstream(&s->text, &s->size);
    log_init(&s->log, s->file);
    s->log.mask = 1u << LOG_JIT;
    s->jit = jit_create(&(struct jit_config){.log = &s->log, .heat = 1, .cache_bytes = 8 << 20});
    ck_assert_msg(s->jit != NULL, "no JIT: %s", "jit_create()");
    stats_init(&s->stats);
    jit_register_stats(s->jit, &s->stats);
    s->at = 0x50000;
}

static void scene_close(struct scene *s)
{
    stats_fini(&s->stats);
    jit_destroy(s->jit);
    fclose(s->file);
    free(s->text);
    rig_close(&s->rig);
}

static uint64_t handled(const struct scene *s)
{
    bool found;
    return stats_get(&s->stats, "jit.handled", &found);
}

/* Numbers of the listing's line for the second instruction. */
static void read_listing(const struct scene *s, struct measure *m)
{
    const char *line = s->text;
    for (unsigned n = 0; (line = strstr(line, "jit:   0x")) != NULL; line++)
        if (++n == 2) {
            const char *numbers = strchr(line, '\n');
            while (numbers > line && strncmp(numbers, " host instruction", 17) != 0)
                numbers--;
            while (numbers > line && numbers[-1] != ' ')
                numbers--;
            m->insns = (unsigned)strtoul(numbers, NULL, 10);
            m->bytes = (unsigned)strtoul(strchr(numbers, ',') + 1, NULL, 10);
            return;
        }
    ck_assert_msg(false, "no second instruction: %s", s->text);
}

static struct measure compile(struct scene *s, const struct encoding *e)
{
    struct measure m = {.exists = true};
    uint8_t code[64] = {0x85, 0xf6};
    memset(code + TEST_LEN, 0xf4, sizeof code - TEST_LEN); /* hlt */
    memcpy(code + TEST_LEN, e->bytes, e->len);
    s->rig.v->rip = s->at;
    struct block *b = code_cache_make(s->rig.code, s->at, s->mode, code, sizeof code, BLOCK_NO_PAGE, NULL);
    ck_assert_msg(b != NULL, "no block: %s", insn_mnemonic(&e->insn));
    rewind(s->file);
    uint64_t before = handled(s), ends = e->insn.flags & INSN_ENDS ? 0 : 1;
    ck_assert_msg(jit_warm(s->jit, s->rig.v, b), "not compiled: %s", insn_mnemonic(&e->insn));
    fputc(0, s->file);
    fflush(s->file);
    m.handler = handled(s) - before > ends;
    read_listing(s, &m);
    s->at = s->at + 64 < RIG_RAM - 64 ? s->at + 64 : 0x50000;
    code_cache_reset(s->rig.code);
    code_cache_collect(s->rig.code);
    return m;
}

/* ---- the table ---- */

static void column(FILE *out, const struct measure *m)
{
    if (!m->exists)
        fprintf(out, "         -");
    else if (m->handler)
        fprintf(out, "   handler");
    else
        fprintf(out, "  %3u %4u", m->insns, m->bytes);
}

static void row(struct scene *s, const struct op_form *f, FILE *out)
{
    struct encoding reg, mem;
    struct measure in_reg = {0}, in_mem = {0};
    char text[96];
    if (encode(&reg, f, s->mode, false))
        in_reg = compile(s, &reg);
    if (encode(&mem, f, s->mode, true))
        in_mem = compile(s, &mem);
    if (!in_reg.exists && !in_mem.exists)
        return;
    insn_print(in_reg.exists ? &reg.insn : &mem.insn, 0, text, sizeof text);
    column(out, &in_reg);
    column(out, &in_mem);
    fprintf(out, "  %s\n", text);
}

/* What hosts have differs. */
static bool is_everywhere(const struct op_form *f)
{
    return f->gate != GATE_SHA && f->gate != GATE_GFNI;
}

static char *make_table(void)
{
    char *text;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    fprintf(
        out,
        "# Host instructions and bytes of code: operands in registers, in memory. 64-bit code, then 32-bit forms.\n");
    for (unsigned wide = 2; wide-- > 0;) {
        struct scene s;
        scene_open(&s, wide);
        for (unsigned n = 1; n < optable_form_count; n++) {
            const struct op_form *f = &optable_forms[n];
            bool here = wide ? f->modes & MD_64 : !(f->modes & MD_64) && f->modes & MD_PROT;
            if (here && is_everywhere(f))
                row(&s, f, out);
        }
        scene_close(&s);
    }
    fclose(out);
    return text;
}

static bool host_is_the_table_s(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("aes") && __builtin_cpu_supports("sse4.2");
}

/* ---- comparing ---- */

static char *read_file(const char *path)
{
    char *text = NULL;
    size_t size = 0;
    FILE *f = fopen(path, "r");
    if (f && getdelim(&text, &size, 0, f) < 0 && text)
        text[0] = 0;
    if (f)
        fclose(f);
    return text ? text : strdup("");
}

static size_t line_length(const char *p)
{
    return strcspn(p, "\n");
}

/* Rows come in the table's order and have names that change seldom: line by line is a diff to read. */
static unsigned show_changes(const char *old, const char *now)
{
    unsigned changes = 0;
    while (*old || *now) {
        size_t a = line_length(old), b = line_length(now);
        if (a != b || memcmp(old, now, a) != 0) {
            if (changes++ < 60)
                printf("-%.*s\n+%.*s\n", (int)a, old, (int)b, now);
        }
        old += a + (old[a] == '\n');
        now += b + (now[b] == '\n');
    }
    return changes;
}

static int compare(const char *path, const char *now)
{
    char *old = read_file(path);
    unsigned changes = show_changes(old, now);
    free(old);
    if (!changes)
        return 0;
    printf("jitsize: %u rows differ from %s; if they should, run again with --update\n", changes, path);
    return 1;
}

static int update(const char *path, const char *now)
{
    FILE *f = fopen(path, "w");
    if (!f || fputs(now, f) < 0 || fclose(f) != 0) {
        perror(path);
        return 2;
    }
    return 0;
}

START_TEST(each_form_becomes_as_much_host_code_as_the_table_says)
{
    const char *path = getenv("JITSIZE_TABLE");
    char *now = make_table();
    ck_assert_int_eq(getenv("JITSIZE_UPDATE") ? update(path, now) : compare(path, now), 0);
    free(now);
}
END_TEST

static int run(const char *path, bool writes)
{
    Suite *s = suite_create("jitsize");
    TCase *c = tcase_create("table");
    tcase_add_test(c, each_form_becomes_as_much_host_code_as_the_table_says);
    suite_add_tcase(s, c);
    setenv("JITSIZE_TABLE", path, 1);
    if (writes)
        setenv("JITSIZE_UPDATE", "1", 1);
    SRunner *runner = srunner_create(s);
    srunner_set_fork_status(runner, CK_NOFORK);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    bool writes = argc == 3 && strcmp(argv[1], "--update") == 0;
    if (argc != 2 && !writes) {
        fprintf(stderr, "usage: jitsize [--update] TABLE\n");
        return 2;
    }
    if (!host_is_the_table_s()) {
        printf("jitsize: this host is not the table's\n");
        return 77;
    }
    return run(argv[argc - 1], writes);
}
