/*
 * The machine's memory: frame pool, host address space, memslots, and the map that the guest is told.
 */
#include "core/host/host_ops.h"
#include "devices/layout.h"
#include "frontends/machine/hostside.h"
#include "frontends/machine/machine.h"
#include "mmu/engine.h"

#define LOW_END      0xa0000ull
#define HIGH_START   0x100000ull
#define SPARE_FRAMES 1024ull
#define FOUR_GIB     0x100000000ull

static void e820_add(struct machine *m, uint64_t base, uint64_t len, uint32_t type)
{
    if (len)
        m->e820[m->e820_count++] = (struct e820_entry){base, len, type};
}

static void e820_build(struct machine *m)
{
    e820_add(m, 0, LAYOUT_EBDA, E820_RAM);
    e820_add(m, LAYOUT_EBDA, LOW_END - LAYOUT_EBDA, E820_RESERVED);
    e820_add(m, LAYOUT_ACPI_TABLES, LAYOUT_ACPI_TABLES_SIZE, E820_RESERVED);
    e820_add(m, LAYOUT_SMBIOS, LAYOUT_SMBIOS_SIZE, E820_RESERVED);
    e820_add(m, HIGH_START, m->low_ram - HIGH_START, E820_RAM);
    e820_add(m, FOUR_GIB, m->high_ram, E820_RAM);
}

static bool slot_added(int error, gpa_t gpa, struct error *e)
{
    return error == MEMSLOT_OK ||
           error_set(e, "cannot map guest memory at 0x%llx: %s", (unsigned long long)gpa, mem_slot_error_text(error));
}

static bool slot(struct machine *m, uint64_t gpa, uint64_t len, hva_t hva, enum memslot_kind kind, struct error *e)
{
    return slot_added(mem_slot_add(m->mem, 0, gpa, len, hva, kind), gpa, e);
}

static bool reserve(struct machine *m, struct error *e)
{
    m->low_hva = host_mm_mmap_anon(m->mm, m->low_ram, HOST_READ | HOST_WRITE);
    m->high_hva = m->high_ram ? host_mm_mmap_anon(m->mm, m->high_ram, HOST_READ | HOST_WRITE) : 0;
    if (m->cfg.mmu == MACHINE_MMU_EPT)
        m->apic_hva = host_mm_mmap_anon(m->mm, PAGE_SIZE, HOST_READ | HOST_WRITE);
    m->vram.hva = m->cfg.no_vga ? 0 : host_mm_mmap_anon(m->mm, VGA_VRAM_BYTES, HOST_READ | HOST_WRITE);
    if (!m->low_hva || (m->high_ram && !m->high_hva) || (!m->cfg.no_vga && !m->vram.hva))
        return error_set(e, "cannot reserve %llu MiB of guest memory", (unsigned long long)(m->cfg.ram_bytes >> 20));
    return true;
}

/* What lies in the hole below 1 MiB: firmware's segments, or the tables that firmware would have made. */
static bool hole_build(struct machine *m, struct error *e)
{
    if (m->has_firmware)
        return firmware_map(&m->firmware, m, e);
    return slot(m, LAYOUT_ACPI_TABLES, LAYOUT_ACPI_TABLES_SIZE, m->low_hva + LAYOUT_ACPI_TABLES, MEMSLOT_ROM, e) &&
           slot(m, LAYOUT_SMBIOS, LAYOUT_SMBIOS_SIZE, m->low_hva + LAYOUT_SMBIOS, MEMSLOT_ROM, e);
}

/* RAM with the hole at 640K..1M. */
static bool slots_build(struct machine *m, struct error *e)
{
    hva_t hva = m->low_hva, high = m->high_hva;
    return slot(m, 0, LOW_END, hva, MEMSLOT_RAM, e) && hole_build(m, e) &&
           slot(m, HIGH_START, m->low_ram - HIGH_START, hva + HIGH_START, MEMSLOT_RAM, e) &&
           (!m->high_ram || slot(m, FOUR_GIB, m->high_ram, high, MEMSLOT_RAM, e)) &&
           (!m->apic_hva || slot(m, LAYOUT_LAPIC, PAGE_SIZE, m->apic_hva, MEMSLOT_DEVICE, e));
}

/* The slots as the parent has them now. */
static bool slots_copy(struct machine *m, const struct mem *from, struct error *e)
{
    for (size_t i = 0; i < memslot_count(from); i++) {
        const struct memslot *s = memslot_at(from, i);
        gpa_t gpa = s->base << PAGE_SHIFT;
        if (!slot_added(mem_slot_add(m->mem, s->as, gpa, s->pages << PAGE_SHIFT, s->hva, s->kind), gpa, e))
            return false;
    }
    return true;
}

/* Room for all of its memory, for that of each child, and for what host operations need in between. */
static bool own_host_memory(struct machine *m, struct error *e)
{
    char why[128] = "";
    uint64_t frames =
        (m->cfg.ram_bytes + m->firmware.image.len + (m->cfg.no_vga ? 0 : VGA_VRAM_BYTES)) / PAGE_SIZE + SPARE_FRAMES;
    if (m->cfg.host_pages > 2) /* address space: small pages that came first must not cost an aligned GiB */
        frames += FRAMES_GIGANTIC;
    m->pool = frame_pool_create(frames * (1 + m->cfg.max_forks), why, sizeof why);
    if (!m->pool)
        return error_set(e, "no memory for the guest: %s", why);
    m->mm = host_mm_create(m->pool);
    return m->mm || error_set(e, "out of memory");
}

static bool forked_host_memory(struct machine *m, struct error *e)
{
    m->pool = m->parent->pool;
    if (m->has_firmware)
        firmware_fork(&m->firmware, m, &m->parent->firmware);
    m->smram = m->parent->smram;
    m->vram = m->parent->vram;
    m->low_hva = m->parent->low_hva;
    m->high_hva = m->parent->high_hva;
    m->mm = host_mm_fork(m->parent->mm);
    return m->mm || error_set(e, "out of memory");
}

bool machine_build_memory(struct machine *m, struct error *e)
{
    uint64_t ram = m->cfg.ram_bytes;
    m->low_ram = ram < LAYOUT_LOW_RAM_MAX ? ram : LAYOUT_LOW_RAM_MAX;
    m->high_ram = ram - m->low_ram;
    if (!(m->parent ? forked_host_memory : own_host_memory)(m, e))
        return false;
    struct mem_config cfg = {.mm = m->mm, .mmio = &m->mmio, .log = &m->log, .trace = &m->trace};
    m->mem = mem_create(&cfg);
    if (!m->mem)
        return error_set(e, "out of memory");
    e820_build(m);
    if (m->parent)
        return hostside_build_child(m, m->parent, e) && slots_copy(m, m->parent->mem, e);
    return reserve(m, e) && hostside_build(m, e) && slots_build(m, e);
}
