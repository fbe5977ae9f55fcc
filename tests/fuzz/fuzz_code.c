/*
 * Random and mutated code in every mode, on one machine for each MMU and two with the JIT, run in chunks of different
 * sizes. No byte string may crash or hang any of them; they must agree after each round on registers, devices and time,
 * and now and then on the whole digest; the audits must find nothing.
 */
#include "fuzz_code.h"

#include "core/snapshot.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ROUNDS          24
#define ROUND_UNITS_MAX 3000

static const uint8_t image_code[] = {0xf4, 0xeb, 0xfd};
static const char *const names[MACHINES] = {"walk", "shadow", "ept", "shadow, JIT", "walk, JIT"};
static const enum machine_mmu mmus[MACHINES] = {MACHINE_MMU_WALK, MACHINE_MMU_SHADOW, MACHINE_MMU_EPT,
                                                MACHINE_MMU_SHADOW, MACHINE_MMU_WALK};
#define FIRST_JIT 3
#define FUZZ_RAM  (16ull << 20)

static uint64_t state_digest(const struct machine *m)
{
    struct snap_writer *w = snap_writer_digest();
    snap_begin(w, "position", 1);
    clock_save(&m->clock, w);
    snap_end(w);
    vcpu_save(m->cpu[0], w);
    board_save(&m->board, w);
    return snap_writer_digest_close(w);
}

static void print_line(void *ctx, const char *line)
{
    fprintf(stderr, "  %s\n", line);
}

/* Where machine k's first bytes are that differ from the first machine's. */
static void print_memory(const struct world *w, unsigned k)
{
    uint8_t one[4096], other[4096];
    for (uint64_t gpa = 0, shown = 0; gpa < FUZZ_RAM && shown < 8; gpa += sizeof one) {
        mem_access(w->m[0]->mem, 0, gpa, one, sizeof one, MEM_PEEK, false, BUS_NO_CPU);
        mem_access(w->m[k]->mem, 0, gpa, other, sizeof other, MEM_PEEK, false, BUS_NO_CPU);
        for (unsigned n = 0; n < sizeof one && shown < 8; n++)
            if (one[n] != other[n])
                fprintf(stderr, "  memory at %llx: %02x in %s, %02x here\n", (unsigned long long)gpa + n, one[n],
                        names[0], other[n]),
                    shown++;
    }
}

static void disagree(const struct world *w, const char *what)
{
    for (unsigned k = 0; k < MACHINES; k++) {
        const struct machine *m = w->m[k];
        fprintf(stderr, "%s: icount %llu, time %llu, digest %016llx\n", names[k], (unsigned long long)m->clock.icount,
                (unsigned long long)clock_now(&m->clock), (unsigned long long)machine_digest(m));
        vcpu_print(m->cpu[0], print_line, NULL);
        print_memory(w, k);
    }
    fuzz_fail(w->f, "%s, the machines disagree on %s", scene_mode_name(w->mode), what);
}

/* ---- running ---- */

static void act_requests(struct world *w)
{
    for (unsigned k = 0; k < MACHINES; k++) {
        struct machine_requests *want = &w->m[k]->want;
        if (want->reset && w->f->session % 2)
            machine_reset(w->m[k]);
        want->reset = want->power_off = want->debug_exit = false;
    }
}

static void run_round(struct world *w)
{
    struct rng chunk = {.state = rng_next(w->rng)};
    uint64_t start = w->m[0]->clock.icount, target = start + 20 + rng_below(w->rng, ROUND_UNITS_MAX);
    if (w->f->position && target > w->f->position)
        target = w->f->position;
    for (unsigned k = 0; k < MACHINES; k++)
        fuzz_run(w->f, w->m[k], target, rng_one_in(&chunk, 2) ? &chunk : NULL);
    w->f->work += w->m[0]->clock.icount - start;
    for (unsigned k = 1; k < MACHINES; k++)
        if (state_digest(w->m[k]) != state_digest(w->m[0]))
            disagree(w, "registers, devices or time");
    if (w->f->verbose && w->f->position && w->m[0]->clock.icount >= w->f->position)
        vcpu_print(w->m[0]->cpu[0], print_line, NULL);
    act_requests(w);
}

/* ---- a session ---- */

/* One machine becomes what another is. */
static void transplant(struct world *w)
{
    uint64_t from = rng_below(w->rng, MACHINES), to = rng_below(w->rng, MACHINES);
    struct error e = {""};
    char path[128];
    snprintf(path, sizeof path, "%s/state", w->f->dir);
    if (!machine_save(w->m[from], path, &e) || !machine_load(w->m[to], path, &e))
        fuzz_fail(w->f, "%s", e.text);
    unlink(path);
}

static void check_all(struct world *w)
{
    for (unsigned k = 0; k < MACHINES; k++)
        fuzz_audit(w->f, w->m[k]);
    for (unsigned k = 1; k < MACHINES; k++)
        if (machine_digest(w->m[k]) != machine_digest(w->m[0]))
            disagree(w, "memory");
}

static void session(struct fuzz *f)
{
    struct world w = {.f = f, .rng = &f->rng};
    for (unsigned k = 0; k < MACHINES; k++)
        w.m[k] = (k < FIRST_JIT ? fuzz_machine : fuzz_machine_jit)(f, mmus[k], FUZZ_RAM >> 20, image_code,
                                                                   sizeof image_code);
    for (f->round = 0; f->round < ROUNDS && !(f->position && w.m[0]->clock.icount >= f->position); f->round++) {
        if (f->round == 0 || rng_one_in(w.rng, 3) || w.m[0]->cpu[0]->activity == VCPU_SHUTDOWN)
            scene_build(&w);
        else
            scene_continue(&w);
        run_round(&w);
        if (rng_one_in(w.rng, 8))
            check_all(&w);
        if (rng_one_in(w.rng, 24))
            transplant(&w);
    }
    check_all(&w);
    for (unsigned k = 0; k < MACHINES; k++)
        machine_destroy(w.m[k]);
}

FUZZ_DRIVER("fuzz_code", session, 1800, 0)
