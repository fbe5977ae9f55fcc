/*
 * The APIC access page (SDM volume 3, 30.4.4): the VMCS names its frame by host-physical address, which no EPT entry
 * and no TLB knows of. So when the host gives the page another frame, invalidate_range (called while the old one is
 * still allocated) asks every vCPU to reload it before its next entry. Linux: kvm_arch_mmu_notifier_invalidate_range,
 * KVM_REQ_APIC_PAGE_RELOAD, vmx_set_apic_access_page_addr.
 */
#include "mmu/ept/ept_internal.h"

static void request_reload(struct ept *e)
{
    for (unsigned i = 0; i < e->mmu->vcpu_count; i++) {
        e->vcpus[i].apic_pfn = PFN_NONE;
        e->vcpus[i].apic_reload = true;
    }
}

bool ept_apic_access_set(struct mmu *mmu, unsigned as, gfn_t gfn)
{
    struct ept *e = ept_of(mmu);
    if (as >= MEM_ADDRESS_SPACES || !memslot_find(mmu->mem, as, gfn))
        return false;
    mmu_lock(mmu);
    e->apic = (struct ept_apic){.set = true, .as = as, .gfn = gfn};
    request_reload(e);
    tlb_flush_all(mmu); /* so that every vCPU comes by */
    mmu_unlock(mmu);
    return true;
}

void ept_apic_access_clear(struct mmu *mmu)
{
    struct ept *e = ept_of(mmu);
    mmu_lock(mmu);
    e->apic.set = false;
    request_reload(e);
    mmu_unlock(mmu);
}

pfn_t ept_apic_access_frame(struct mmu_vcpu *mv)
{
    return ept_vcpu_of(mv)->apic_pfn;
}

void ept_apic_invalidate_range(struct mmu *mmu, hva_t start, hva_t end)
{
    struct ept *e = ept_of(mmu);
    if (!e->apic.set)
        return;
    const struct memslot *slot = memslot_find(mmu->mem, e->apic.as, e->apic.gfn);
    hva_t hva = slot ? memslot_hva(slot, e->apic.gfn) : 0;
    if (slot && hva >= start && hva < end)
        request_reload(e);
}

/* One try. True: done. Translations of the frame that were made through other gfns, when it was an ordinary one, go. */
static bool reload(struct mmu_vcpu *mv)
{
    struct ept *e = ept_of(mv->mmu);
    struct ept_vcpu *v = ept_vcpu_of(mv);
    struct gup_result g = {.pfn = PFN_NONE};
    uint64_t seq = __atomic_load_n(&mv->mmu->invalidate_seq, __ATOMIC_ACQUIRE);
    const struct memslot *slot = e->apic.set ? memslot_find(mv->mem, e->apic.as, e->apic.gfn) : NULL;
    hva_t hva = slot ? memslot_hva(slot, e->apic.gfn) : 0;
    bool got = slot && !host_mm_gup(mv->mmu->mm, hva, true, &g);
    mmu_lock(mv->mmu);
    bool done = !slot || !mmu_notifier_retry(mv->mmu, seq, hva);
    if (done) {
        v->apic_pfn = got ? g.pfn : PFN_NONE;
        v->apic_reload = false;
        e->stats.apic_reloads++;
        tlb_flush_all(mv->mmu);
    }
    mmu_unlock(mv->mmu);
    return done;
}

void ept_vcpu_enter(struct mmu_vcpu *mv)
{
    while (ept_vcpu_of(mv)->apic_reload && !reload(mv))
        ;
}
