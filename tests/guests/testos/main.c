// The test OS: runs groups of checks and leaves through the debug exit port with the verdict.
#include "testos.h"

struct settings settings;

struct group {
    const char *name;
    void (*run)(void);
    const char *what;
};

static const struct group groups[] = {
    {"levels", group_levels, "P, W, U and NX at each level against every kind of access"},
    {"large", group_large, "2 MiB and 1 GiB pages"},
    {"reserved", group_reserved, "reserved and ignored bits of each level"},
    {"sweep", group_sweep, "random combinations at all levels against a model, under WP, SMEP and SMAP"},
    {"accessed", group_accessed, "accessed and dirty bits"},
    {"control", group_control, "CR0.WP, SMEP, SMAP, NXE"},
    {"pkeys", group_pkeys, "protection keys"},
    {"flush", group_flush, "INVLPG, remapping, global pages, changes that need no flush"},
    {"roots", group_roots, "several CR3 values"},
    {"tables", group_tables, "shared, recursive, replaced and re-used tables"},
    {"entries", group_entries, "entries changed by every kind of store"},
    {"cross", group_cross, "accesses and instructions that cross a page boundary"},
    {"strings", group_strings, "string and stack instructions that fault in the middle"},
    {"smc", group_smc, "self-modifying code"},
    {"exceptions", group_exceptions, "exceptions with their error codes"},
    {"privilege", group_privilege, "privileged instructions in user mode, I/O permissions"},
    {"segments", group_segments, "segment loads and returns"},
    {"delivery", group_delivery, "stack switch, alignment, gates, nested and double faults"},
    {"debug", group_debug, "single step"},
    {"breakpoints", group_breakpoints, "debug registers: breakpoints and watchpoints"},
    {"syscall", group_syscall, "SYSCALL and SYSRET"},
    {"irq", group_irq, "8259 and 8254, interrupt flag, shadows, HLT"},
};
enum { GROUP_COUNT = sizeof groups / sizeof groups[0] };

static unsigned passed, failed;

static void check_line(bool ok, const char *format, va_list args)
{
    print("%s %u - ", ok ? "ok" : "not ok", passed + failed + 1);
    print_args(format, args);
    if (ok)
        passed++;
    else
        failed++;
}

void check(bool ok, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    check_line(ok, format, args);
    va_end(args);
    put_string("\n");
}

void check_equal(u64 got, u64 wanted, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    check_line(got == wanted, format, args);
    va_end(args);
    if (got != wanted)
        print(": got 0x%lx, wanted 0x%lx", got, wanted);
    put_string("\n");
}

void note(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    put_string("# ");
    print_args(format, args);
    va_end(args);
    put_string("\n");
}

static bool registers_equal(const struct trap_frame *a, const struct trap_frame *b)
{
    const u64 *x = &a->r15, *y = &b->r15;
    for (unsigned i = 0; i < 15; i++)
        if (x[i] != y[i])
            return false;
    const u64 flags = 0xcd5 | FLAG_IF;
    return a->rsp == b->rsp && !((a->rflags ^ b->rflags) & flags);
}

static bool is_fault(unsigned vector)
{
    return vector < 32 && vector != VEC_BP && vector != VEC_DB && vector != VEC_DF;
}

const char *expect_mismatch(const struct probe *p, struct expect wanted)
{
    u64 rip = wanted.rip ? wanted.rip : p->in.rip;
    if (p->out.vector != wanted.vector)
        return "vector";
    if (p->out.error != wanted.error)
        return "error code";
    if (wanted.vector == VEC_PF && p->cr2 != wanted.cr2)
        return "cr2";
    if ((wanted.vector != VECTOR_DONE || wanted.rip) && p->out.rip != rip)
        return "rip";
    if (p->out.cs != p->in.cs && !wanted.partial)
        return "cs";
    if (is_fault(wanted.vector) && rip == p->in.rip && !wanted.partial && !registers_equal(&p->in, &p->out))
        return "registers";
    return NULL;
}

static void print_mismatch(const struct probe *p, struct expect wanted, const char *mismatch)
{
    print(": %s differs: got vector %lu error 0x%lx cr2 0x%lx rip 0x%lx rsp 0x%lx", mismatch, p->out.vector,
          p->out.error, p->cr2, p->out.rip, p->out.rsp);
    print(", wanted vector %u error 0x%lx cr2 0x%lx rip 0x%lx rsp 0x%lx", wanted.vector, wanted.error, wanted.cr2,
          wanted.rip ? wanted.rip : p->in.rip, p->in.rsp);
}

bool check_probe(struct probe *p, struct expect wanted, const char *format, ...)
{
    probe_run(p);
    const char *mismatch = expect_mismatch(p, wanted);
    va_list args;
    va_start(args, format);
    check_line(!mismatch, format, args);
    va_end(args);
    if (mismatch)
        print_mismatch(p, wanted, mismatch);
    put_string("\n");
    return !mismatch;
}

const char *const access_names[ACCESS_KINDS] = {"read", "write", "fetch"};

SNIPPET(access_read, "mov (%rdi), %rax");
SNIPPET(access_write, "mov %rax, (%rdi)");
SNIPPET(access_add, "addq %rax, (%rdi)");

void mark_memory(void *at, u64 n)
{
    u8 *code = at;
    code[0] = 0xcd; // int $0x80
    code[1] = VECTOR_DONE;
    *(volatile u64 *)(code + ACCESS_OFFSET) = FRAME_MARK + n;
}

u64 marked_frame(u64 n)
{
    u64 frame = frame_alloc();
    mark_memory(gpa_pointer(frame), n);
    return frame;
}

void access_page(struct access_result *r, enum access kind, unsigned cpl, u64 gva, u64 rflags)
{
    struct probe *p = &r->p;
    probe_init(p, kind == READ ? access_read : access_write, cpl);
    r->cr2 = gva + (kind == FETCH ? 0 : ACCESS_OFFSET);
    if (kind == FETCH)
        p->in.rip = gva;
    p->in.rdi = r->cr2;
    p->in.rax = 0x7772697474656e00;
    p->in.rflags |= rflags;
    probe_run(p);
    r->faulted = p->out.vector != VECTOR_DONE;
}

u64 access_error(enum access kind, unsigned cpl)
{
    return (kind == WRITE ? PF_W : 0) | (kind == FETCH ? PF_ID : 0) | (cpl == 3 ? PF_U : 0);
}

static const char *access_outcome(struct access_result *r, enum access kind, u64 gva, int error)
{
    if (error >= 0)
        return expect_mismatch(&r->p, page_fault((u64)error, r->cr2));
    struct expect wanted = done();
    if (kind == FETCH)
        wanted.rip = gva + 2;
    const char *mismatch = expect_mismatch(&r->p, wanted);
    if (!mismatch && kind == READ && (r->p.out.rax & ~0xffffffffull) != FRAME_MARK)
        return "data read";
    return mismatch;
}

bool check_access(enum access kind, unsigned cpl, u64 gva, int error, const char *format, ...)
{
    struct access_result r;
    access_page(&r, kind, cpl, gva, 0);
    const char *mismatch = access_outcome(&r, kind, gva, error);
    va_list args;
    va_start(args, format);
    check_line(!mismatch, format, args);
    va_end(args);
    print(", %s at CPL %u %s", access_names[kind], cpl, error < 0 ? "succeeds" : "faults with error ");
    if (error >= 0)
        print("%d", error);
    if (mismatch)
        print_mismatch(&r.p, error < 0 ? done() : page_fault((u64)error, r.cr2), mismatch);
    put_string("\n");
    return !mismatch;
}

const char *access_mismatch(enum access kind, unsigned cpl, u64 gva, u64 rflags, int error)
{
    struct access_result r;
    access_page(&r, kind, cpl, gva, rflags);
    return access_outcome(&r, kind, gva, error);
}

void path_make(struct path *path, u64 gva, unsigned leaf_level, u64 leaf_frame)
{
    path->gva = gva;
    path->leaf_level = leaf_level;
    path->frame = leaf_frame + (gva & ((1ull << (12 + 9 * (leaf_level - 1))) - 1) & ~0xfffull);
    *path->entry = NULL;
    for (unsigned level = leaf_level; level <= 4; level++)
        path->entry[level] = pt_entry(read_cr3(), gva, level);
    pte_store(path->entry[leaf_level], leaf_frame | PTE_RWU | (leaf_level > 1 ? PTE_PS : 0));
    for (unsigned level = leaf_level; level <= 4; level++)
        path->good[level] = pte_load(path->entry[level]) & ~(PTE_A | PTE_D);
    invlpg(gva);
}

void path_set(const struct path *path, unsigned level, u64 value)
{
    pte_store(path->entry[level], value);
    invlpg(path->gva);
}

void path_restore(const struct path *path)
{
    for (unsigned level = path->leaf_level; level <= 4; level++)
        pte_store(path->entry[level], path->good[level]);
    invlpg(path->gva);
}

// Is name in the comma-separated value of the option?
static bool option_lists(const char *option, const char *name, bool without_option)
{
    char list[COMMAND_LINE_MAX];
    if (!option_value(option, list, sizeof list))
        return without_option;
    for (char *at = list; *at;) {
        char *end = at;
        while (*end && *end != ',')
            end++;
        bool last = !*end;
        *end = 0;
        if (text_equal(at, name))
            return true;
        at = last ? end : end + 1;
    }
    return false;
}

static bool group_selected(const char *name)
{
    return option_lists("only", name, true) && !option_lists("skip", name, false);
}

static void run_group(const struct group *group)
{
    u64 mark = frame_mark();
    unsigned before = failed;
    note("%s: %s", group->name, group->what);
    group->run();
    for (unsigned slot = 32; slot < 256; slot++)
        if (boot_pml4[slot])
            boot_pml4[slot] = 0;
    flush_all();
    frame_release(mark);
    if (failed != before)
        note("%s: %u failed", group->name, failed - before);
}

static bool is_tcg(void)
{
    u32 r[4] = {0x40000000, 0, 0, 0};
    if (!(cpuid_get(1, 0).ecx & 1u << 31))
        return false;
    __asm__ volatile("cpuid" : "+a"(r[0]), "=b"(r[1]), "+c"(r[2]), "=d"(r[3]));
    return r[1] == 0x54474354 && r[2] == 0x43544743 && r[3] == 0x47435447; // "TCGTCGTCGTCG"
}

static void settings_init(void)
{
    u32 features = cpuid_get(7, 0).ebx;
    settings.coherent = option_word("coherent");
    settings.strict = option_word("strict") || !is_tcg();
    settings.full = option_word("full");
    settings.has_1g = cpuid_get(0x80000001, 0).edx >> 26 & 1;
    settings.has_smep = features >> 7 & 1;
    settings.has_smap = features >> 20 & 1;
    settings.has_pku = cpuid_get(7, 0).ecx >> 3 & 1;
    settings.maxphyaddr = cpuid_get(0x80000008, 0).eax & 0xff;
    note("maxphyaddr %u%s%s%s%s%s%s%s", settings.maxphyaddr, settings.has_1g ? ", 1g" : "",
         settings.has_smep ? ", smep" : "", settings.has_smap ? ", smap" : "", settings.has_pku ? ", pku" : "",
         settings.coherent ? ", coherent" : "", settings.strict ? ", strict" : "", settings.full ? ", full" : "");
}

void guest_main(void);

void guest_main(void)
{
    console_init();
    if (option_word("list")) {
        for (unsigned i = 0; i < GROUP_COUNT; i++)
            print("%s: %s\n", groups[i].name, groups[i].what);
        guest_exit(EXIT_PASS);
    }
    traps_init();
    paging_init();
    settings_init();
    for (unsigned i = 0; i < GROUP_COUNT; i++)
        if (group_selected(groups[i].name))
            run_group(&groups[i]);
    plant_stale_use();
    print("testos: %u passed, %u failed\n", passed, failed);
    guest_exit(failed || !passed ? EXIT_FAIL : EXIT_PASS);
}
