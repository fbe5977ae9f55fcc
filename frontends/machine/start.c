/*
 * Putting a machine together, starting it, resetting it, taking it apart: the one place where the floors meet.
 */
#include "core/alloc.h"
#include "cpu/cpuid.h"
#include "devices/layout.h"
#include "frontends/machine/hostside.h"
#include "frontends/machine/machine.h"
#include "frontends/machine/screen.h"
#include "frontends/machine/text_match.h"
#include "mmu/ept/ept.h"

#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* The seed that Linux gets, and RDRAND's: fixed, so that two runs are the same run. */
static const uint8_t rng_seed[32] = {0x75, 0x6d, 0x62, 0x72, 0x61, 1,  2,  3,   5,   8,  13,  21, 34, 55, 89, 144,
                                     233,  121,  98,   219,  61,   24, 85, 109, 194, 47, 241, 32, 17, 49, 66, 115};
#define RNG_SEED64 0x756d6272610001ull

/* ---- what devices and the script ask for ---- */

static void want_reset(void *ctx)
{
    struct machine *m = ctx;
    m->want.reset = true;
    machine_attention(m);
}

static void want_power_off(void *ctx)
{
    struct machine *m = ctx;
    m->want.power_off = true;
    machine_attention(m);
}

static void want_debug_exit(void *ctx, uint8_t code)
{
    struct machine *m = ctx;
    m->want.debug_exit = true;
    m->want.debug_exit_code = code;
    machine_attention(m);
}

static void want_quit(void *ctx)
{
    struct machine *m = ctx;
    m->want.quit = true;
    machine_attention(m);
}

static void want_save(void *ctx, const char *path)
{
    struct machine *m = ctx;
    char *copy = alloc_zeroed(1, strlen(path) + 1);
    memcpy(copy, path, strlen(path));
    m->want.save_path = alloc_resize(m->want.save_path, m->want.saves + 1, sizeof *m->want.save_path);
    m->want.save_path[m->want.saves++] = copy;
    machine_attention(m);
}

static void want_pause(void *ctx, struct block_device *b)
{
    struct machine *m = ctx;
    m->want.disk = b;
    machine_attention(m);
}

static void want_shot(void *ctx, const char *path, bool as_text)
{
    struct machine *m = ctx;
    char *copy = alloc_zeroed(1, strlen(path) + 1);
    memcpy(copy, path, strlen(path));
    m->want.shots = alloc_resize(m->want.shots, m->want.shot_count + 1, sizeof *m->want.shots);
    m->want.shots[m->want.shot_count++] = (struct machine_shot){copy, as_text};
    machine_attention(m);
}

static char *screen_now(void *ctx)
{
    return machine_screentext(ctx);
}

static void watch_marker(struct machine *m, uint8_t byte)
{
    const char *text = m->cfg.stop_text;
    if (!text || m->marker_seen)
        return;
    m->marker_matched = text_match_step(text, strlen(text), m->marker_matched, byte);
    m->marker_seen = m->want.marker = !text[m->marker_matched];
    if (m->marker_seen)
        machine_attention(m);
}

static void serial_tx(void *ctx, unsigned port, uint8_t byte)
{
    struct machine *m = ctx;
    if (m->cfg.host.serial_tx)
        m->cfg.host.serial_tx(m->cfg.host.ctx, port, byte);
    if (port)
        return;
    if (m->script)
        script_output(m->script, byte);
    watch_marker(m, byte);
}

static void console_tx(void *ctx, const char *chardev, const uint8_t *bytes, size_t len)
{
    struct machine *m = ctx;
    if (m->cfg.host.console_tx)
        m->cfg.host.console_tx(m->cfg.host.ctx, chardev, bytes, len);
}

static void debug_tx(void *ctx, uint8_t byte)
{
    struct machine *m = ctx;
    if (m->cfg.host.debug_tx)
        m->cfg.host.debug_tx(m->cfg.host.ctx, byte);
}

static void set_a20(void *ctx, bool enabled)
{
    struct machine *m = ctx;
    for (unsigned k = 0; k < m->cpu_count; k++)
        vcpu_set_a20(m->cpu[k], enabled);
}

/* ---- building ---- */

static bool build_log(struct machine *m, struct error *e)
{
    size_t len = 0;
    log_init(&m->log, m->cfg.log_out ? m->cfg.log_out : stderr);
    const char *bad = m->cfg.log_list ? log_enable_list(&m->log, m->cfg.log_list, &len) : NULL;
    if (bad)
        return error_set(e, "-d: unknown log channel '%.*s' (-d help lists them)", (int)len, bad);
    if (m->cfg.trace_list && !trace_enable(&m->trace, m->cfg.trace_list, 1 << 16))
        return error_set(e, "-trace %s: no tracepoint matches", m->cfg.trace_list);
    return true;
}

static bool build_mmu(struct machine *m, struct error *e)
{
    static const enum mmu_kind kinds[] = {
        [MACHINE_MMU_SHADOW] = MMU_SHADOW, [MACHINE_MMU_WALK] = MMU_WALK, [MACHINE_MMU_EPT] = MMU_EPT};
    struct mmu_config cfg = {.kind = kinds[m->cfg.mmu],
                             .mem = m->mem,
                             .vcpus = m->cpu_count,
                             .log = &m->log,
                             .trace = &m->trace,
                             .max_shadow_pages = m->cfg.max_shadow_pages,
                             .unsync = m->cfg.mmu_unsync,
                             .staletlb = log_is_on(&m->log, LOG_STALETLB)};
    m->mmu = mmu_create(&cfg);
    if (m->mmu && m->cfg.mmu == MACHINE_MMU_EPT) /* VT-x's "virtualize APIC accesses" */
        ept_apic_access_set(m->mmu, 0, LAYOUT_LAPIC >> PAGE_SHIFT);
    m->code = m->mmu ? code_cache_create(m->mem, &m->trace, &m->log) : NULL;
    return m->code || error_set(e, "out of memory");
}

/* Seconds since 1970 at virtual time 0. */
static int64_t rtc_base(const struct machine *m)
{
    return m->cfg.rtc_base == MACHINE_RTC_DEFAULT ? LAYOUT_RTC_BASE : m->cfg.rtc_base;
}

static bool build_cpus(struct machine *m, struct error *e)
{
    const char *bad = NULL, *spec = m->cfg.cpu ? m->cfg.cpu : "base";
    m->model = cpu_model_parse(spec, &bad);
    if (!m->model)
        return error_set(
            e, "-cpu %s: '%s' is not a known model, or a feature that is not known or not offered (-cpu help)", spec,
            bad ? bad : spec);
    if (m->cpu_count > 1 && !model_has(m->model, CPU_FEATURE_APIC))
        return error_set(e, "-cpu %s -smp %u: several processors need local APICs, which this one does not have", spec,
                         m->cpu_count);
    if (m->model->note[0])
        fprintf(stderr, "umbra: note: -cpu %s: %s\n", spec, m->model->note);
    struct jit_config jit = {.log = &m->log,
                             .heat = m->cfg.jit_heat,
                             .cache_bytes = m->cfg.jit_cache,
                             .perf_map = m->cfg.jit_perf_map,
                             .symbol = m->cfg.jit_symbol,
                             .symbol_ctx = m->cfg.jit_symbol_ctx};
    m->jit = m->cfg.jit ? jit_create(&jit) : NULL;
    if (m->cfg.jit && !m->jit && !m->cfg.jit_if_it_can)
        fprintf(stderr, "umbra: note: -accel jit: not on this host or not in this build; the interpreter runs\n");
    m->cpu = calloc(m->cpu_count, sizeof *m->cpu);
    for (unsigned k = 0; m->cpu && k < m->cpu_count; k++) {
        struct vcpu_config cfg = {.index = k,
                                  .mv = mmu_vcpu_get(m->mmu, k),
                                  .mem = m->mem,
                                  .ports = &m->ports,
                                  .clock = &m->clock,
                                  .code = m->code,
                                  .jit = m->jit,
                                  .log = &m->log,
                                  .trace = &m->trace,
                                  .model = m->model,
                                  .rng_seed = RNG_SEED64 + k,
                                  .topology = m->cfg.smp,
                                  .wall_base = rtc_base(m)};
        m->cpu[k] = vcpu_create(&cfg);
        if (!m->cpu[k])
            return error_set(e, "out of memory");
        m->cpu[k]->on_smm = smram_on_smm;
        m->cpu[k]->on_smm_ctx = m;
    }
    return m->cpu || error_set(e, "out of memory");
}

static void pam_changed(void *ctx, const uint8_t *pam, uint8_t smram)
{
    struct machine *m = ctx;
    if (m->has_firmware)
        firmware_pam_changed(&m->firmware, pam);
    smram_changed(m, smram);
}

/*
 * Firmware of the user's own calls the VGA BIOS as it likes. That BIOS reads EDID data from the adapter's BAR2 if there
 * is one, by a 32-bit address in real mode, for which segments must reach 4 GiB: SeaBIOS sees to that, U-Boot does not,
 * and gets the #GP that a processor raises there. So such firmware meets an adapter without BAR2 (QEMU's "mmio=off").
 */
static bool is_own_rom(const char *bios)
{
    return bios && strchr(bios, '/');
}

_Static_assert(SMBIOS_TEXT_COUNT <= MACHINE_SMBIOS_TEXTS && SMBIOS_UUID == sizeof((struct machine_config *)0)->uuid,
               "the configuration holds what SMBIOS takes");

bool machine_smbios_set(struct machine_config *cfg, unsigned type, const char *name, const char *value)
{
    bool several = smbios_text_find(type, name, 1) >= 0;
    unsigned nth = 0;
    int k = smbios_text_find(type, name, 0);
    while (k >= 0 && several && cfg->smbios_text[k])
        k = smbios_text_find(type, name, ++nth);
    if (k >= 0)
        cfg->smbios_text[k] = value;
    return k >= 0;
}

_Static_assert(FW_CFG_TEXTS_MAX <= BOARD_ITEMS_MAX && FW_CFG_TEXT_NAME_MAX <= FW_CFG_NAME_MAX,
               "the board takes what the configuration holds");

static bool build_board(struct machine *m, struct error *e)
{
    struct board_config cfg = {.ports = &m->ports,
                               .mmio = &m->mmio,
                               .clock = &m->clock,
                               .input = &m->input,
                               .log = &m->log,
                               .cpus = m->cpu,
                               .cpu_count = m->cpu_count,
                               .topology = m->cfg.smp,
                               .low_ram = m->low_ram,
                               .high_ram = m->high_ram,
                               .rtc_base = rtc_base(m),
                               .device = m->cfg.device,
                               .device_count = m->cfg.device_count,
                               .drives = &m->drives,
                               .seed = RNG_SEED64,
                               .net_connect = net_connect,
                               .console_tx = console_tx,
                               .net_ctx = m->net,
                               .item_count = m->cfg.fw_cfg_count,
                               .debug_console = m->cfg.debug_console,
                               .debug_console_port =
                                   m->cfg.debug_console_port ? m->cfg.debug_console_port : LAYOUT_DEBUG_CONSOLE_PORT,
                               .debug_exit = m->cfg.debug_exit,
                               .testdev = m->cfg.testdev,
                               .debug_exit_base = m->cfg.debug_exit_base,
                               .debug_exit_size = m->cfg.debug_exit_size,
                               .ctx = m,
                               .reset = want_reset,
                               .power_off = want_power_off,
                               .debug_exit_fn = want_debug_exit,
                               .serials = m->cfg.serials ? m->cfg.serials : 1,
                               .mouse_port = m->cfg.mouse_port,
                               .serial_tx = serial_tx,
                               .debug_tx = debug_tx,
                               .set_a20 = set_a20,
                               .firmware = m->has_firmware,
                               .firmware_len = m->firmware.image.len,
                               .boot_order = m->cfg.boot_order ? m->cfg.boot_order : "cad",
                               .boot_once = m->cfg.boot_once,
                               .boot_menu = m->cfg.boot_menu,
                               .boot_extras = m->cfg.boot_extras,
                               .linux_kernel = {.kernel = m->kernel.data ? &m->kernel : NULL,
                                                .initrd = m->initrd.data ? &m->initrd : NULL,
                                                .cmdline = m->cfg.append ? m->cfg.append : ""},
                               .vmcoreinfo = m->cfg.vmcoreinfo,
                               .hpet = !m->cfg.no_hpet,
                               .uefi = drives_find(&m->drives, DRIVE_PFLASH, 0) != NULL,
                               .serial_console = m->cfg.serial_console,
                               .vga = !m->cfg.no_vga,
                               .vga_no_mmio = is_own_rom(m->cfg.bios),
                               .forked = m->parent != NULL,
                               .vram_changed = vram_update,
                               .vga_font = vga_rom_font(&m->vga_rom, 16),
                               .vga_rom = m->vga_rom.data,
                               .vga_rom_len = m->vga_rom.len,
                               .pam_changed = pam_changed,
                               .pam_ctx = m};
    for (unsigned k = 0; k < m->cfg.fw_cfg_count; k++) {
        const struct fw_cfg_text *t = &m->cfg.fw_cfg[k];
        cfg.item[k] = t->path ? (struct board_item){t->name, m->item[k].data, m->item[k].len}
                              : (struct board_item){t->name, t->text, strlen(t->text)};
    }
    memcpy(cfg.smbios.text, m->cfg.smbios_text, sizeof cfg.smbios.text);
    memcpy(cfg.smbios.uuid, m->cfg.uuid, sizeof cfg.smbios.uuid);
    mem_hook(m->mem, &cfg.memory);
    vram_hook(m, &cfg.vram);
    if (m->has_firmware && !firmware_build(&m->firmware, e))
        return false;
    return board_init(&m->board, &cfg, e);
}

static bool build_drives(struct machine *m, struct error *e)
{
    if (m->cfg.is_twin && drives_write_through(m->cfg.drive, m->cfg.drive_count))
        return error_set(e, "-lockstep: the twin would write to the same disk: give -snapshot");
    if (!(m->parent ? drives_fork(&m->drives, &m->parent->drives, e)
                    : drives_open(&m->drives, m->cfg.drive, m->cfg.drive_count, e)))
        return false;
    drives_set_full(&m->drives, want_pause, m);
    return true;
}

static void net_input(void *ctx, const uint8_t *bytes, size_t len)
{
    struct machine *m = ctx;
    m->input_bytes += len - 1;
    input_post(&m->input, INPUT_NET, m->clock.icount, bytes, len);
}

/* Answers are likely: the sockets are looked at soon. */
static void net_sent(void *ctx)
{
    struct machine *m = ctx;
    uint64_t soon = clock_now(&m->clock) + MACHINE_NET_UNITS;
    if (m->next_poll > soon)
        m->next_poll = soon;
}

static bool build_net(struct machine *m, struct error *e)
{
    struct net_config cfg = {.netdev = m->cfg.netdev,
                             .count = m->cfg.netdev_count,
                             .clock = &m->clock,
                             .log = &m->log,
                             .input = net_input,
                             .sent = net_sent,
                             .ctx = m};
    if (!cfg.count)
        return true;
    if (m->parent || m->cfg.is_twin)
        return error_set(e, "-netdev: a machine with a network has no forks and no twin");
    m->net = net_open(&cfg, e);
    return m->net != NULL;
}

static void build_stats(struct machine *m)
{
    stats_add(&m->stats, "icount", "instructions", &m->clock.icount);
    stats_add(&m->stats, "clock.extra", "ns", &m->clock.extra);
    stats_add(&m->stats, "clock.idle", "ns", &m->clock.idle);
    for (unsigned k = 0; k < m->cpu_count; k++)
        vcpu_register_stats(m->cpu[k], &m->stats);
    code_cache_register_stats(m->code, &m->stats);
    if (m->jit)
        jit_register_stats(m->jit, &m->stats);
    mmu_register_stats(m->mmu, &m->stats);
    drives_add_stats(&m->drives, &m->stats);
    board_storage_add_stats(&m->board, &m->stats);
    host_mm_add_stats(m->mm, &m->stats);
    hostside_add_stats(m->hostside, &m->stats);
    if (m->inspector)
        inspector_add_stats(m->inspector, &m->stats);
    stats_add(&m->stats, "audits", "runs", &m->audits);
    stats_add(&m->stats, "resets", "resets", &m->resets);
    stats_add(&m->stats, "input.bytes", "bytes", &m->input_bytes);
    stats_add(&m->stats, "screen.pictures", "pictures", &m->pictures);
    stats_add(&m->stats, "screen.rows", "rows", &m->picture_rows);
}

/* "FILE ARGUMENTS,FILE ARGUMENTS": a module's text is all of its piece, as the file's name would be in a shell. */
static bool build_modules(struct machine *m, struct error *e)
{
    char *save = NULL;
    m->module_spec = strdup(m->cfg.initrd);
    for (char *p = m->module_spec ? strtok_r(m->module_spec, ",", &save) : NULL; p; p = strtok_r(NULL, ",", &save)) {
        struct boot_module *b = &m->module[m->module_count];
        char path[PATH_MAX];
        if (m->module_count == BOOT_MODULES_MAX)
            return error_set(e, "-initrd: more than %d modules", BOOT_MODULES_MAX);
        p += strspn(p, " ");
        snprintf(path, sizeof path, "%.*s", (int)strcspn(p, " "), p);
        if (!file_read(&b->file, path, e))
            return false;
        b->file.path = b->text = p;
        m->module_count++;
    }
    return m->module_spec || error_set(e, "out of memory");
}

static bool build_files(struct machine *m, struct error *e)
{
    if (m->parent) {
        m->kernel = m->parent->kernel;
        m->initrd = m->parent->initrd;
        memcpy(m->module, m->parent->module, sizeof m->module);
        m->module_count = m->parent->module_count;
        m->vga_rom = m->parent->vga_rom;
        memcpy(m->item, m->parent->item, sizeof m->item);
        return true;
    }
    for (unsigned k = 0; k < m->cfg.fw_cfg_count; k++)
        if (m->cfg.fw_cfg[k].path && !file_read(&m->item[k], m->cfg.fw_cfg[k].path, e))
            return false;
    if (!m->cfg.no_vga && !vga_rom_find(&m->vga_rom) && !m->cfg.is_twin)
        fprintf(stderr, "umbra: note: no VGA BIOS was found (Debian: package seabios); characters have no shapes\n");
    const struct drive *flash = drives_find(&m->drives, DRIVE_PFLASH, 0);
    if (m->has_firmware &&
        !(flash ? firmware_open_flash(&m->firmware, flash, e) : firmware_open(&m->firmware, m->cfg.bios, e)))
        return false;
    if (!m->cfg.kernel)
        return true;
    if (!file_read(&m->kernel, m->cfg.kernel, e))
        return false;
    if (boot_detect(&m->kernel) == BOOT_UNKNOWN)
        return error_set(e, "kernel '%s' is neither a Linux bzImage nor a Multiboot or PVH image%s", m->kernel.path,
                         m->kernel.len < 4096 ? " (or it is truncated)" : "");
    if (!m->cfg.initrd)
        return true;
    return m->has_firmware || boot_detect(&m->kernel) == BOOT_LINUX ? file_read(&m->initrd, m->cfg.initrd, e)
                                                                    : build_modules(m, e);
}

static bool build_script(struct machine *m, struct error *e)
{
    const struct script_ops ops = {
        .ctx = m, .savevm = want_save, .screen = want_shot, .screentext = screen_now, .quit = want_quit};
    if (!m->cfg.input_script)
        return true;
    m->script = script_load(m->cfg.input_script, &m->clock, &m->input, &ops, e);
    return m->script != NULL;
}

/* The drives are still to be opened. */
static bool has_flash(const struct machine *m)
{
    for (unsigned k = 0; k < m->cfg.drive_count; k++)
        if (m->cfg.drive[k].interface == DRIVE_PFLASH)
            return true;
    return false;
}

bool machine_build(struct machine *m, struct error *e)
{
    clock_init(&m->clock);
    trace_init(&m->trace, &m->clock);
    stats_init(&m->stats);
    input_init(&m->input);
    input_set_sink(&m->input, INPUT_CONTROL, machine_control_input, m);
    bus_init(&m->ports, "port", 0x10000, &m->log);
    bus_init(&m->mmio, "mmio", 0, &m->log);
    if (!m->cfg.smp.sockets)
        m->cfg.smp = topology_flat(1);
    m->cpu_count = m->cfg.smp.sockets * m->cfg.smp.cores * m->cfg.smp.threads;
    m->turn_left = MACHINE_TURN_UNITS;
    m->has_firmware = m->cfg.bios || !m->cfg.kernel || has_flash(m);
    if (!build_log(m, e) || !build_drives(m, e) || !build_files(m, e) || !build_net(m, e) ||
        !machine_build_memory(m, e) || !build_mmu(m, e) || !build_cpus(m, e) || !build_board(m, e) ||
        !build_script(m, e))
        return false;
    if (m->cfg.mirror_every) {
        m->inspector = inspector_open(m, m->cfg.mmu, e);
        if (!m->inspector)
            return false;
    }
    build_stats(m);
    if (m->cfg.audit_events)
        mmu_set_event_hook(m->mmu, machine_audit_event, m);
    return m->parent ? machine_copy_state(m, m->parent, e) : machine_boot(m, e);
}

struct machine *machine_create(const struct machine_config *cfg, struct error *e)
{
    struct machine *m = calloc(1, sizeof *m);
    if (!m) {
        error_set(e, "out of memory");
        return NULL;
    }
    m->cfg = *cfg;
    if (machine_build(m, e))
        return m;
    machine_destroy(m);
    return NULL;
}

void machine_destroy(struct machine *m)
{
    if (!m)
        return;
    inspector_close(m->inspector);
    script_free(m->script);
    board_fini(&m->board);
    net_close(m->net);
    drives_close(&m->drives);
    for (unsigned k = 0; m->cpu && k < m->cpu_count; k++)
        vcpu_destroy(m->cpu[k]);
    free(m->cpu);
    free(m->model);
    code_cache_destroy(m->code);
    jit_destroy(m->jit);
    mmu_destroy(m->mmu);
    mem_destroy(m->mem);
    hostside_free(m->hostside);
    if (m->mm)
        host_mm_destroy(m->mm);
    if (!m->parent) {
        if (m->pool)
            frame_pool_destroy(m->pool);
        file_free(&m->kernel);
        file_free(&m->initrd);
        for (unsigned k = 0; k < m->module_count; k++)
            file_free(&m->module[k].file);
        free(m->module_spec);
        file_free(&m->vga_rom);
        for (unsigned k = 0; k < m->cfg.fw_cfg_count; k++)
            file_free(&m->item[k]);
        firmware_close(&m->firmware);
    }
    bus_fini(&m->ports);
    bus_fini(&m->mmio);
    input_fini(&m->input);
    stats_fini(&m->stats);
    trace_fini(&m->trace);
    machine_forget_saves(m);
    if (m->parent)
        m->parent->forks--;
    free(m);
}

/* ---- starting ---- */

static bool boot_files(struct machine *m, struct error *e)
{
    struct boot_env env = {.mem = m->mem,
                           .cpu = m->cpu[0],
                           .kernel = &m->kernel,
                           .initrd = m->initrd.data ? &m->initrd : NULL,
                           .module = m->module,
                           .module_count = m->module_count,
                           .cmdline = m->cfg.append ? m->cfg.append : "",
                           .e820 = m->e820,
                           .e820_count = m->e820_count,
                           .low_ram_end = m->low_ram,
                           .vga = !m->cfg.no_vga};
    memcpy(env.rng_seed, rng_seed, sizeof env.rng_seed);
    if (!board_install_tables(&m->board, &env.rsdp))
        return error_set(e, "the ACPI tables do not fit into memory");
    return boot_load(&env, e);
}

bool machine_boot(struct machine *m, struct error *e)
{
    if (m->has_firmware) /* the boot vCPU is at the reset vector */
        return true;
    bool ok = file_wake(&m->kernel, e) && file_wake(&m->initrd, e) && boot_files(m, e);
    file_rest(&m->kernel);
    file_rest(&m->initrd);
    return ok;
}

void machine_reset(struct machine *m)
{
    struct error e;
    m->resets++;
    m->turn = 0;
    m->turn_left = MACHINE_TURN_UNITS;
    for (unsigned k = 0; k < m->cpu_count; k++)
        vcpu_reset(m->cpu[k], false);
    board_reset(&m->board);
    if (!machine_boot(m, &e)) { /* it fitted before: only the host can have failed, or changed the files */
        log_error("reset: %s", e.text);
        m->want.failed = true;
    }
}
