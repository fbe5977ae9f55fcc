/*
 * What KVM offers to its guests beside the processor, as far as it is offered here: the paravirtual clock and steal
 * time (`-cpu base,+kvmclock`; Linux Documentation/virt/kvm/x86/cpuid.rst and msr.rst).
 *
 * Both are structures in guest memory that the guest names by MSR and the emulator writes: the clock when a vCPU comes
 * back to run (after HLT, or after others' turns) and when its TSC is set; steal time with it, and when the vCPU stops
 * running. They are reached through gfn-to-pfn caches (mmu/gfn_cache.h).
 *
 * All of it is a function of the position of the run: system time is the virtual clock, the TSC ticks with it, wall
 * clock is the RTC's base, and steal time is the virtual time that a vCPU was ready to run and others had their turns.
 * A wait for a line of memory (MWAIT) that a write has ended does not count as ready.
 */
#ifndef CPU_KVM_PV_H
#define CPU_KVM_PV_H

#include "cpu/cpu.h"

#define KVM_PV_MSR_FIRST 0x4b564d00u
#define KVM_PV_MSR_LAST  0x4b564dffu

struct kvm_pv;

/* NULL if the model offers nothing of it; every other function takes a vCPU that has none. wall_base: see vcpu_config.
 */
struct kvm_pv *kvm_pv_create(struct vcpu *v, int64_t wall_base);
void kvm_pv_destroy(struct kvm_pv *pv);
/* Everything off, as after RESET and INIT. */
void kvm_pv_reset(struct vcpu *v);
/* False: #GP. */
bool kvm_pv_msr_read(const struct vcpu *v, uint32_t index, uint64_t *value);
bool kvm_pv_msr_write(struct vcpu *v, uint32_t index, uint64_t value);
/* Leaves 0x40000000 and 0x40000001; false: the model has none. */
bool kvm_pv_cpuid(const struct vcpu *v, uint32_t leaf, uint32_t out[4]);
/* The vCPU begins to run, or goes on. Cheap where nothing changes. */
void kvm_pv_enter(struct vcpu *v);
/* It stops: HLT, or the end of its turn. */
void kvm_pv_leave(struct vcpu *v);
/* One of its pins was raised. */
void kvm_pv_pin(struct vcpu *v);
void kvm_pv_tsc_changed(struct vcpu *v);
/* A section of its own, where the model offers any of it. */
void kvm_pv_save(const struct vcpu *v, struct snap_writer *w);
void kvm_pv_load(struct vcpu *v, struct snap_reader *r);

#endif
