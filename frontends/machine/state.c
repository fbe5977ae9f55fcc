/*
 * Saving, loading and digesting a machine. Caches (shadow, TLB, code) are never saved: they are disposable.
 */
#include "core/snapshot.h"
#include "cpu/cpuid.h"
#include "frontends/machine/hostside.h"
#include "frontends/machine/machine.h"

#include <stdlib.h>
#include <string.h>

#define MACHINE_VERSION 10

static uint64_t model_digest(const struct cpu_model *model)
{
    struct snap_writer *w = snap_writer_digest();
    if (!w)
        return 0;
    snap_begin(w, "model", 1);
    for (unsigned k = 0; k < CPUID_WORDS; k++)
        snap_put_u32(w, model->word[k]);
    snap_put_u32(w, cpu_signature(model));
    snap_put_u8(w, model->maxphyaddr);
    snap_put_u64(w, model->xcr0);
    snap_end(w);
    return snap_writer_digest_close(w);
}

/* What a snapshot must agree on with the machine that loads it. */
static void config_save(const struct machine *m, struct snap_writer *w)
{
    snap_begin(w, "config", MACHINE_VERSION);
    snap_put_u64(w, model_digest(m->model));
    snap_put_u64(w, m->cfg.ram_bytes);
    snap_put_u64(w, m->firmware.image.len);
    snap_put_u32(w, m->cfg.smp.sockets);
    snap_put_u32(w, m->cfg.smp.cores);
    snap_put_u32(w, m->cfg.smp.threads);
    snap_put_u64(w, m->cfg.debug_exit ? m->cfg.debug_exit_base : 0);
    snap_put_u8(w, !m->cfg.no_vga);
    snap_put_u64(w, cards_digest(&m->board.cards));
    snap_put_u8(w, m->cfg.testdev);
    snap_put_u8(w, !m->cfg.no_hpet);
    snap_put_u8(w, (uint8_t)m->board.cfg.serials);
    snap_put_u8(w, (uint8_t)m->cfg.mouse_port);
    snap_end(w);
}

static void config_load(struct machine *m, struct snap_reader *r)
{
    if (!snap_expect(r, "config", MACHINE_VERSION))
        return;
    uint64_t model = snap_get_u64(r), ram = snap_get_u64(r), rom = snap_get_u64(r);
    const struct cpu_topology *here = &m->cfg.smp;
    uint32_t sockets = snap_get_u32(r), cores = snap_get_u32(r), threads = snap_get_u32(r);
    uint64_t exit_base = snap_get_u64(r);
    bool vga = snap_get_u8(r) != 0;
    uint64_t cards = snap_get_u64(r);
    bool testdev = snap_get_u8(r) != 0, hpet = snap_get_u8(r) != 0;
    unsigned serials = snap_get_u8(r), mouse_port = snap_get_u8(r);
    if (ram != m->cfg.ram_bytes)
        snap_fail(r, "it was made with -m %lluM, this machine has %lluM", (unsigned long long)(ram >> 20),
                  (unsigned long long)(m->cfg.ram_bytes >> 20));
    else if (rom != m->firmware.image.len)
        snap_fail(r, "it was made with %llu KiB of firmware, this machine has %llu (-bios)",
                  (unsigned long long)rom >> 10, (unsigned long long)m->firmware.image.len >> 10);
    else if (sockets != here->sockets || cores != here->cores || threads != here->threads)
        snap_fail(
            r, "it was made with -smp sockets=%u,cores=%u,threads=%u, this machine has sockets=%u,cores=%u,threads=%u",
            sockets, cores, threads, here->sockets, here->cores, here->threads);
    else if (exit_base != (m->cfg.debug_exit ? m->cfg.debug_exit_base : 0))
        snap_fail(r, "it was made with another -device isa-debug-exit");
    else if (vga == m->cfg.no_vga)
        snap_fail(r, "it was made with -vga %s", vga ? "std" : "none");
    else if (cards != cards_digest(&m->board.cards))
        snap_fail(r, "it was made with other PCI cards (-device, -nic, -drive if=virtio)");
    else if (testdev != m->cfg.testdev)
        snap_fail(r, "it was made %s -device pc-testdev", testdev ? "with" : "without");
    else if (hpet == m->cfg.no_hpet)
        snap_fail(r, "it was made %s HPET", hpet ? "with an" : "without");
    else if (serials != m->board.cfg.serials || mouse_port != m->cfg.mouse_port)
        snap_fail(r, "it was made with %u serial ports%s, this machine has %u%s (-serial)", serials,
                  mouse_port ? " and a mouse" : "", m->board.cfg.serials, m->cfg.mouse_port ? " and a mouse" : "");
    else if (model != model_digest(m->model))
        snap_fail(r, "it was made with another -cpu");
}

static void turn_save(const struct machine *m, struct snap_writer *w)
{
    snap_begin(w, "turn", 1);
    snap_put_u32(w, m->turn);
    snap_put_u64(w, m->turn_left);
    snap_end(w);
}

static void turn_load(struct machine *m, struct snap_reader *r)
{
    if (!snap_expect(r, "turn", 1))
        return;
    m->turn = snap_get_u32(r);
    m->turn_left = snap_get_u64(r);
    if (m->turn >= m->cpu_count)
        snap_fail(r, "turn of processor %u", m->turn);
}

static void script_section_save(const struct machine *m, struct snap_writer *w)
{
    if (!m->script)
        return;
    snap_begin(w, "script", 1);
    script_save(m->script, w);
    snap_end(w);
}

static void script_section_load(struct machine *m, struct snap_reader *r)
{
    if (m->script && snap_expect(r, "script", 1))
        script_restore(m->script, r);
}

static void clock_section_save(const struct machine *m, struct snap_writer *w)
{
    snap_begin(w, "clock", 1);
    clock_save(&m->clock, w);
    snap_end(w);
}

static void input_section_save(const struct machine *m, struct snap_writer *w)
{
    snap_begin(w, "input", 1);
    input_save(&m->input, w);
    snap_end(w);
}

/* What the guest can see, memory apart, and what it will. */
static void small_state_save(const struct machine *m, struct snap_writer *w)
{
    clock_section_save(m, w);
    for (unsigned k = 0; k < m->cpu_count; k++)
        vcpu_save(m->cpu[k], w);
    board_save(&m->board, w);
    input_section_save(m, w);
    turn_save(m, w);
}

static void guest_state_save(const struct machine *m, struct snap_writer *w)
{
    small_state_save(m, w);
    mem_save(m->mem, w);
    drives_save(&m->drives, w);
    if (m->has_firmware)
        firmware_save(&m->firmware, w);
    smram_save(m, w);
    if (!m->cfg.no_vga)
        vram_save(m, w);
}

bool machine_save(struct machine *m, const char *path, struct error *e)
{
    char why[256] = "";
    struct snap_writer *w = snap_writer_open(path, why, sizeof why);
    if (!w)
        return error_set(e, "cannot save '%s': %s", path, why);
    config_save(m, w);
    guest_state_save(m, w);
    script_section_save(m, w);
    if (snap_writer_close(w, why, sizeof why))
        return error_set(e, "cannot save '%s': %s", path, why);
    return true;
}

static void small_state_load(struct machine *m, struct snap_reader *r)
{
    if (snap_expect(r, "clock", 1))
        clock_load(&m->clock, r);
    for (unsigned k = 0; k < m->cpu_count; k++)
        vcpu_load(m->cpu[k], r);
    board_load(&m->board, r);
    if (snap_expect(r, "input", 1))
        input_load(&m->input, r);
    turn_load(m, r);
    if (!snap_reader_error(r))
        smram_update(m);
}

/* What was cached of the state before. */
static void caches_drop(struct machine *m)
{
    mmu_zap_all(m->mmu);
    code_cache_reset(m->code);
}

static void refresh(struct machine *m)
{
    for (unsigned k = 0; k < m->cpu_count; k++)
        vcpu_refresh(m->cpu[k]);
}

bool machine_load(struct machine *m, const char *path, struct error *e)
{
    char why[256] = "";
    struct snap_reader *r =
        snap_reader_open_unchecked(path, m->cfg.postcopy ? MEM_SNAPSHOT_SECTION : NULL, why, sizeof why);
    if (!r)
        return error_set(e, "cannot load '%s': %s", path, why);
    config_load(m, r);
    if (!snap_reader_error(r)) {
        caches_drop(m);
        small_state_load(m, r);
        (m->cfg.postcopy ? mem_load_postcopy : mem_load)(m->mem, r);
        drives_load(&m->drives, r);
        if (m->has_firmware)
            firmware_load(&m->firmware, r);
        smram_load(m, r);
        if (!m->cfg.no_vga)
            vram_load(m, r);
        script_section_load(m, r);
    }
    const char *bad = snap_reader_error(r);
    if (m->started)
        net_restart(m->net);
    if (bad)
        error_set(e, "cannot load '%s': %s", path, bad);
    else
        m->started = true;
    m->next_poll = 0; /* time may have gone back */
    snap_reader_close(r);
    if (bad)
        return false;
    caches_drop(m);
    refresh(m);
    if (m->cfg.postcopy)
        hostside_start_postcopy(m->hostside);
    return true;
}

static struct snap_reader *copy_small_state(const struct machine *m, struct error *e)
{
    char why[256] = "out of memory";
    struct snap_writer *w = snap_writer_memory();
    if (w) {
        small_state_save(m, w);
        script_section_save(m, w);
    }
    struct snap_reader *r = w ? snap_writer_read_back(w, why, sizeof why) : NULL;
    if (!r)
        error_set(e, "%s", why);
    return r;
}

bool machine_copy_state(struct machine *m, const struct machine *parent, struct error *e)
{
    struct snap_reader *r = copy_small_state(parent, e);
    if (!r)
        return false;
    small_state_load(m, r);
    script_section_load(m, r);
    const char *bad = snap_reader_error(r);
    if (bad)
        error_set(e, "%s", bad);
    snap_reader_close(r);
    caches_drop(m);
    refresh(m);
    return !bad;
}

uint64_t machine_small_digest(const struct machine *m)
{
    struct snap_writer *w = snap_writer_digest();
    if (!w)
        return 0;
    small_state_save(m, w);
    script_section_save(m, w);
    return snap_writer_digest_close(w);
}

uint64_t machine_cpu_digest(const struct machine *m, unsigned cpu)
{
    struct snap_writer *w = snap_writer_digest();
    if (!w)
        return 0;
    vcpu_save(m->cpu[cpu], w);
    return snap_writer_digest_close(w);
}

uint64_t machine_digest(const struct machine *m)
{
    struct snap_writer *w = snap_writer_digest();
    if (!w)
        return 0;
    guest_state_save(m, w);
    return snap_writer_digest_close(w);
}
