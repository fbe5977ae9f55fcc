/*
 * The machine's run loop: timers, outside input and vCPUs in turn, at instruction boundaries.
 *
 * Nothing in here may depend on when the front end polls: chunks of vcpu_run() end wherever they like without the guest
 * noticing.
 */
#include "core/keys.h"
#include "frontends/machine/debug.h"
#include "frontends/machine/hostside.h"
#include "frontends/machine/lockstep.h"
#include "frontends/machine/machine.h"
#include "frontends/machine/screen.h"

#include <stdlib.h>
#include <string.h>

static uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

void machine_attention(struct machine *m)
{
    vcpu_request_stop(m->cpu[m->turn]);
}

/* ---- requests ---- */

void machine_forget_saves(struct machine *m)
{
    while (m->want.saves)
        free(m->want.save_path[--m->want.saves]);
    free(m->want.save_path);
    m->want.save_path = NULL;
    while (m->want.shot_count)
        free(m->want.shots[--m->want.shot_count].path);
    free(m->want.shots);
    m->want.shots = NULL;
}

static bool act_shots(const struct machine *m)
{
    struct error e;
    bool ok = true;
    for (size_t k = 0; k < m->want.shot_count && ok && !m->cfg.is_twin; k++) {
        const struct machine_shot *s = &m->want.shots[k];
        ok = s->as_text ? machine_screentext_write(m, s->path, &e) : machine_screendump(m, s->path, &e);
    }
    if (!ok)
        log_error("%s", e.text);
    return ok;
}

static bool act_save(struct machine *m)
{
    struct error e;
    bool ok = true;
    for (size_t k = 0; k < m->want.saves && ok && !m->cfg.is_twin; k++)
        ok = machine_save(m, m->want.save_path[k], &e);
    if (!ok)
        log_error("%s", e.text);
    ok = act_shots(m) && ok;
    machine_forget_saves(m);
    return ok;
}

static bool act_reset(struct machine *m, enum machine_exit *why)
{
    m->want.reset = false;
    if (m->cfg.no_reboot) {
        *why = MACHINE_RESET;
        return false;
    }
    machine_reset(m);
    return true;
}

/* The device's timer is due: the next run begins with the same request. */
static void pause_for_disk(struct machine *m)
{
    struct machine_io_error e;
    m->waiting_disk = m->want.disk;
    m->want.disk = NULL;
    if (!machine_io_error(m, &e))
        return;
    if (e.no_space)
        log_error("drive %s: the host's disk is full: make room, and go on", e.drive);
    else
        log_error("drive %s: the host cannot %s its image; mend that, and go on", e.drive,
                  e.is_write ? "write to" : "read");
}

bool machine_io_error(const struct machine *m, struct machine_io_error *out)
{
    const struct drive *d = drives_by_block(&m->drives, m->waiting_disk);
    if (!d)
        return false;
    drives_name(&d->cfg, out->drive);
    out->is_write = d->block->waits_to_write;
    out->no_space = d->block->waits_since == BLOCK_FULL;
    return true;
}

/* False: the run ends, *why is set. */
static bool act_requests(struct machine *m, enum machine_exit *why)
{
    if (m->want.debug_exit) {
        m->exit_code = m->want.debug_exit_code;
        *why = MACHINE_DEBUG_EXIT;
        return false;
    }
    if (m->want.power_off) {
        *why = MACHINE_POWER_OFF;
        return false;
    }
    if (m->want.disk) {
        pause_for_disk(m);
        *why = MACHINE_PAUSED;
        return false;
    }
    if ((m->want.save_path || m->want.shots) && !act_save(m)) {
        *why = MACHINE_SCRIPT_FAILED;
        return false;
    }
    if (m->want.failed) {
        *why = MACHINE_RESET_FAILED;
        return false;
    }
    if (m->want.marker) {
        m->want.marker = false;
        *why = MACHINE_MARKER;
        return false;
    }
    if (m->want.quit) {
        m->want.quit = false;
        *why = MACHINE_STOPPED;
        return false;
    }
    return !m->want.reset || act_reset(m, why);
}

/* ---- limits, polling, audits ---- */

static bool check_position(const struct machine *m, enum machine_exit *why)
{
    if (likely(!m->run_until) || m->clock.icount < m->run_until)
        return true;
    *why = MACHINE_POSITION;
    return false;
}

static bool check_limits(struct machine *m, enum machine_exit *why)
{
    if (m->cfg.icount_limit && m->clock.icount >= m->cfg.icount_limit)
        *why = MACHINE_ICOUNT_LIMIT;
    else if (m->cfg.vtime_limit && clock_now(&m->clock) >= m->cfg.vtime_limit)
        *why = MACHINE_VTIME_LIMIT;
    else
        return true;
    return false;
}

static void audit_line(void *ctx, const char *line)
{
    fprintf(ctx, "audit: %s\n", line);
}

unsigned machine_audit(struct machine *m, bool full, FILE *out)
{
    m->audits++;
    return mmu_audit(m->mmu, full, out ? audit_line : NULL, out);
}

void machine_audit_event(void *ctx)
{
    struct machine *m = ctx;
    unsigned bad = machine_audit(m, ++m->events % AUDIT_FULL_EVENTS == 0, m->log.out);
    m->audit_failures += bad;
    if (bad)
        machine_attention(m);
}

static bool check_audit(struct machine *m, enum machine_exit *why)
{
    if (m->cfg.audit_every && m->clock.icount >= m->next_audit) {
        m->next_audit = m->clock.icount + m->cfg.audit_every;
        m->audit_failures += machine_audit(m, true, m->log.out);
    }
    if (m->inspector && m->clock.icount >= m->next_mirror) {
        m->next_mirror = m->clock.icount + m->cfg.mirror_every;
        m->audit_failures += inspector_compare(m->inspector, m->clock.icount, m->log.out);
    }
    if (!m->audit_failures)
        return true;
    *why = MACHINE_AUDIT_FAILED;
    return false;
}

static bool check_poll(struct machine *m, enum machine_exit *why)
{
    uint64_t now = clock_now(&m->clock);
    if (now < m->next_poll)
        return true;
    m->next_poll = now + MACHINE_POLL_UNITS;
    net_service(m->net);
    if (!m->cfg.host.poll || !m->cfg.host.poll(m->cfg.host.ctx))
        return true;
    *why = MACHINE_STOPPED;
    return false;
}

static bool check_debug(struct machine *m, enum machine_exit *why)
{
    if (likely(!m->debug) || !debug_wants_stop(m->debug))
        return true;
    *why = MACHINE_STOPPED;
    return false;
}

/* ---- idle ---- */

static bool cpu_is_idle(const struct vcpu *v)
{
    return v->activity != VCPU_RUNNING && !vcpu_has_wakeup(v);
}

static bool all_idle(const struct machine *m)
{
    for (unsigned k = 0; k < m->cpu_count; k++)
        if (!cpu_is_idle(m->cpu[k]))
            return false;
    return true;
}

static bool is_live(const struct machine *m)
{
    return m->net || (m->cfg.host.is_live && m->cfg.host.is_live(m->cfg.host.ctx));
}

unsigned machine_pollfds(struct machine *m, struct pollfd *fds, unsigned max, uint64_t *ns)
{
    return net_pollfds(m->net, fds, max, ns);
}

static uint64_t idle_deadline(const struct machine *m)
{
    uint64_t when = clock_next_deadline(&m->clock);
    return m->cfg.vtime_limit ? min_u64(when, m->cfg.vtime_limit) : when;
}

/* Nothing that is to come wakes a vCPU. A kernel that ends in CLI and HLT often leaves a timer running. */
static bool is_halted_for_ever(const struct machine *m)
{
    if (clock_next_deadline(&m->clock) == CLOCK_NEVER)
        return true;
    for (unsigned k = 0; k < m->cpu_count; k++)
        if (m->cpu[k]->activity == VCPU_HALTED &&
            (m->cpu[k]->rflags & FLAG_IF || (m->cpu[k]->monitor.waiting && m->cpu[k]->monitor.breaks)))
            return false;
    return !board_may_act(&m->board) && !(m->script && script_is_delayed(m->script));
}

/* All vCPUs are halted: moves time to the next event. False: there will never be one. */
static bool idle(struct machine *m, enum machine_exit *why)
{
    uint64_t now = clock_now(&m->clock), when = idle_deadline(m);
    if (input_next(&m->input) != UINT64_MAX) {
        input_deliver_due(&m->input, UINT64_MAX);
        return true;
    }
    if (is_live(m) && !clock_has_work(&m->clock)) {
        uint64_t slept = m->cfg.host.wait(m->cfg.host.ctx, when == CLOCK_NEVER ? UINT64_MAX : when - now);
        clock_skip_to(&m->clock, min_u64(when, now + slept));
        net_service(m->net);
        m->next_poll = 0;
        return true;
    }
    if (is_halted_for_ever(m)) {
        *why = MACHINE_HALTED;
        return false;
    }
    clock_skip_to(&m->clock, when);
    return true;
}

/* ---- turns ---- */

static void turn_next(struct machine *m)
{
    vcpu_descheduled(m->cpu[m->turn]);
    m->turn = (m->turn + 1) % m->cpu_count;
    m->turn_left = MACHINE_TURN_UNITS;
    smram_update(m);
}

/* The running vCPU used some of its turn. One that is alone has no turns, so that none depend on where chunks end. */
static void turn_use(struct machine *m, uint64_t used, bool gives_up)
{
    if (m->cpu_count == 1)
        return;
    m->turn_left -= min_u64(used, m->turn_left);
    if (gives_up || !m->turn_left)
        turn_next(m);
}

/* Those that have nothing to do have no turn. One at least has. */
static void turn_skip_idle(struct machine *m)
{
    while (cpu_is_idle(m->cpu[m->turn]))
        turn_next(m);
}

static uint64_t chunk_units(const struct machine *m)
{
    uint64_t now = clock_now(&m->clock), icount = m->clock.icount;
    uint64_t units = clock_next_deadline(&m->clock) - now;
    units = min_u64(units, input_next(&m->input) - icount);
    units = min_u64(units, m->next_poll > now ? m->next_poll - now : 1);
    if (m->cpu_count > 1)
        units = min_u64(units, m->turn_left);
    if (m->run_until)
        units = min_u64(units, m->run_until - icount);
    if (m->cfg.icount_limit)
        units = min_u64(units, m->cfg.icount_limit - icount);
    if (m->cfg.vtime_limit)
        units = min_u64(units, m->cfg.vtime_limit - now);
    if (m->cfg.audit_every)
        units = min_u64(units, m->next_audit > icount ? m->next_audit - icount : 1);
    if (m->inspector)
        units = min_u64(units, m->next_mirror > icount ? m->next_mirror - icount : 1);
    if (m->debug)
        units = min_u64(units, debug_units_left(m->debug));
    if (m->hostside)
        units = min_u64(units, hostside_units_left(m->hostside));
    return units;
}

/* A reboot by triple fault on purpose: the guest emptied its IDT first. */
static bool is_deliberate(const struct vcpu *v)
{
    return v->idtr.limit == 0;
}

static bool triple_fault(struct machine *m, enum machine_exit *why)
{
    if (!m->cfg.no_reboot && is_deliberate(m->cpu[m->turn])) {
        log_warn("the guest reset the machine by a triple fault (its interrupt descriptor table is empty)");
        machine_reset(m);
        return true;
    }
    if (!m->cfg.is_twin)
        machine_print_report(m, stderr);
    *why = MACHINE_TRIPLE_FAULT;
    return false;
}

static bool run_turn(struct machine *m, enum machine_exit *why)
{
    struct vcpu *v = m->cpu[m->turn];
    uint64_t before = clock_now(&m->clock);
    enum vcpu_exit exit = vcpu_run(v, chunk_units(m));
    uint64_t used = clock_now(&m->clock) - before;
    if (unlikely(mem_has_failed(m->mem))) { /* whatever came of it is not the guest's fault */
        *why = MACHINE_HOST_FAILED;
        return false;
    }
    if (exit == VCPU_EXIT_SHUTDOWN)
        return triple_fault(m, why);
    turn_use(m, used, v->turn_over);
    return true;
}

static bool step(struct machine *m, enum machine_exit *why)
{
    if (!check_position(m, why))
        return false;
    clock_run_due(&m->clock);
    input_deliver_due(&m->input, m->clock.icount);
    if (!all_idle(m))
        turn_skip_idle(m);
    if (!act_requests(m, why) || !check_debug(m, why) || !check_limits(m, why) || !hostside_step(m, why) ||
        !check_audit(m, why) || !check_poll(m, why))
        return false;
    if (all_idle(m))
        return idle(m, why);
    turn_skip_idle(m); /* a reset, for one, changes who is idle */
    return run_turn(m, why);
}

/* The last word of -audit: everything once more. */
static enum machine_exit final_audit(struct machine *m, enum machine_exit why)
{
    if (why == MACHINE_POSITION || (!m->cfg.audit_every && !m->cfg.audit_events) ||
        (m->debug && why == MACHINE_STOPPED))
        return why;
    return machine_audit(m, true, m->log.out) ? MACHINE_AUDIT_FAILED : why;
}

enum machine_exit machine_run(struct machine *m)
{
    enum machine_exit why = MACHINE_STOPPED;
    m->waiting_disk = NULL;
    if (!m->started) {
        m->started = true;
        if (m->script)
            script_start(m->script);
    }
    while (step(m, &why))
        ;
    return final_audit(m, why);
}

enum machine_exit machine_run_to(struct machine *m, uint64_t icount)
{
    m->run_until = icount;
    enum machine_exit why = machine_run(m);
    m->run_until = 0;
    return why;
}

void machine_input(struct machine *m, enum input_source source, const void *bytes, size_t len)
{
    m->input_bytes += len;
    if (m->lockstep)
        lockstep_note_input(m->lockstep, source, bytes, len);
    input_post(&m->input, source, m->clock.icount, bytes, len);
}

#define SERIAL_AHEAD  0x10000u /* bytes that wait for a guest before whoever sends more has to wait, too */
#define CONSOLE_PIECE 255      /* bytes of one event */

void machine_console_input(struct machine *m, const char *chardev, const void *bytes, size_t len)
{
    int card = cards_find_console(&m->board.cards, chardev);
    for (const uint8_t *at = bytes; card >= 0 && len;) {
        uint8_t event[1 + CONSOLE_PIECE] = {(uint8_t)card};
        size_t n = len < CONSOLE_PIECE ? len : CONSOLE_PIECE;
        memcpy(event + 1, at, n);
        machine_input(m, INPUT_NET, event, 1 + n);
        at += n;
        len -= n;
    }
}

static enum input_source serial_source(unsigned port)
{
    static const enum input_source sources[SERIALS_MAX] = {INPUT_SERIAL0, INPUT_SERIAL1, INPUT_SERIAL2, INPUT_SERIAL3};
    return sources[port];
}

void machine_serial_input(struct machine *m, unsigned port, const void *bytes, size_t len)
{
    machine_input(m, serial_source(port), bytes, len);
}

size_t machine_serial_room(const struct machine *m, unsigned port)
{
    size_t taken = uart16550_waiting(&m->board.com[port].uart) + input_waiting(&m->input, serial_source(port));
    return taken < SERIAL_AHEAD ? SERIAL_AHEAD - taken : 0;
}

/* What is on its way to other cards is counted as well. */
size_t machine_console_room(const struct machine *m, const char *chardev)
{
    size_t room = cards_console_room(&m->board.cards, chardev), taken = input_waiting(&m->input, INPUT_NET);
    return taken < room ? room - taken : 0;
}

void machine_key_input(struct machine *m, const uint8_t *events, size_t len)
{
    machine_input(m, INPUT_KEYBOARD, events, len);
}

unsigned machine_key_room(const struct machine *m)
{
    size_t taken = m->board.keyboard.count + input_waiting(&m->input, INPUT_KEYBOARD) / 2;
    return taken < KEYBOARD_KEYS ? KEYBOARD_KEYS - (unsigned)taken : 0;
}

static int16_t clamp16(int v)
{
    return (int16_t)(v < INT16_MIN ? INT16_MIN : v > INT16_MAX ? INT16_MAX : v);
}

void machine_mouse_input(struct machine *m, int dx, int dy, int wheel, unsigned buttons)
{
    uint16_t x = (uint16_t)clamp16(dx), y = (uint16_t)clamp16(dy);
    int8_t z = (int8_t)(wheel < INT8_MIN ? INT8_MIN : wheel > INT8_MAX ? INT8_MAX : wheel);
    uint8_t event[MOUSE_EVENT] = {(uint8_t)x,        (uint8_t)(x >> 8), (uint8_t)y,
                                  (uint8_t)(y >> 8), (uint8_t)z,        (uint8_t)buttons};
    machine_input(m, INPUT_MOUSE, event, sizeof event);
}

void machine_button(struct machine *m, enum machine_button button)
{
    uint8_t byte = (uint8_t)button;
    machine_input(m, INPUT_CONTROL, &byte, 1);
}

/* The machine's end of machine_button(). */
void machine_control_input(void *machine, const uint8_t *bytes, size_t len)
{
    struct machine *m = machine;
    for (size_t k = 0; k < len; k++)
        if (bytes[k] == MACHINE_BUTTON_RESET)
            m->want.reset = true;
        else if (bytes[k] == MACHINE_BUTTON_POWER)
            acpi_pm_press_power_button(&m->board.pm);
}
