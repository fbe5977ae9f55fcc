/*
 * The display adapter: a VGA with 16 MiB of memory and the Bochs display interface (QEMU's "stdvga", PCI 1234:1111).
 *
 * BAR0 is the memory, BAR2 has the VGA's ports (from 0x400), the display interface (from 0x500) and a size and a byte
 * order register (from 0x600). No EDID: its bytes read as zero. Sources: IBM VGA technical reference; the display
 * interface as Bochs and QEMU document it (VBE_DISPI_*, docs/specs/standard-vga).
 *
 * Memory is the machine's: the device reaches it through a struct guest_memory whose addresses are offsets. Byte
 * 4 * a + p of it is byte a of plane p. Chain-4 addresses are offsets as they are; odd/even addresses are halved: what
 * a mode shows is the same as on a VGA, memory that is left from a mode of another kind may look different.
 *
 * Where an access to the window or to BAR0 is nothing but an access to memory, the machine may map it
 * (vga_plain_window(), BAR0's address in `pci`); the device says when that changes. Reads through such a mapping load
 * no latches.
 *
 * Invariants: whatever the registers hold, nothing outside of the memory is touched, and the picture is at most
 * VGA_WIDTH_MAX x VGA_HEIGHT_MAX.
 */
#ifndef DEVICES_VGA_VGA_H
#define DEVICES_VGA_VGA_H

#include "core/dma_map.h"
#include "core/memory.h"
#include "devices/device.h"
#include "devices/pci/pci.h"

#define VGA_VRAM_BYTES   (16u << 20)
#define VGA_VRAM_PAGES   (VGA_VRAM_BYTES >> PAGE_SHIFT)
#define VGA_WINDOW_BYTES 0x20000u
#define VGA_CHAIN4_BYTES 0x10000u /* of the window, where it is memory */
#define VGA_WIDTH_MAX    4096u
#define VGA_HEIGHT_MAX   4096u
#define VGA_MMIO_BYTES   0x1000u
#define VGA_PORTS        0x20u /* from 0x3c0 */
#define VGA_MONO_PORTS   0x0cu /* from 0x3b0 */
#define VGA_DISPI_PORTS  3u    /* from 0x1ce */
#define VGA_BAR_MEMORY   0
#define VGA_BAR_MMIO     2
#define VGA_NO_WINDOW    UINT32_MAX

enum vga_dispi {
    VGA_DISPI_ID,
    VGA_DISPI_XRES,
    VGA_DISPI_YRES,
    VGA_DISPI_BPP,
    VGA_DISPI_ENABLE,
    VGA_DISPI_BANK,
    VGA_DISPI_VIRT_WIDTH,
    VGA_DISPI_VIRT_HEIGHT,
    VGA_DISPI_X_OFFSET,
    VGA_DISPI_Y_OFFSET,
    VGA_DISPI_MEMORY, /* in units of 64 KiB */
    VGA_DISPI_REGS
};

#define VGA_DISPI_ENABLED  0x01
#define VGA_DISPI_GETCAPS  0x02
#define VGA_DISPI_8BIT_DAC 0x20
#define VGA_DISPI_LFB      0x40
#define VGA_DISPI_NO_CLEAR 0x80

struct vga_config {
    struct vclock *clock;
    struct guest_memory vram;           /* VGA_VRAM_BYTES of it; copied */
    void (*mapping_changed)(void *ctx); /* BAR0 or the plain window moved; may be NULL */
    void *ctx;
    const uint8_t *rom; /* VGA BIOS, the expansion ROM: borrowed; may be NULL */
    size_t rom_len;
    bool no_mmio; /* no BAR2: the registers are ports alone */
    const struct log *log;
};

struct vga {
    struct vga_config cfg;
    struct pci_device pci;
    struct dma_map map; /* of all of vram */
    uint8_t misc, feature, enable;
    uint8_t seq_index, seq[8];
    uint8_t crtc_index, crtc[32];
    uint8_t gr_index, gr[16];
    uint8_t attr_index, attr[32];
    bool attr_is_data; /* the next write to 0x3c0 is data */
    uint8_t dac_mask, dac_read, dac_write, dac_sub;
    bool dac_reading;
    uint8_t dac_latch[2];
    uint8_t palette[768];
    uint8_t latch[4];
    uint16_t dispi_index, dispi[VGA_DISPI_REGS];
    /* Not the guest's: what was written through the device, by page, and whether registers changed what is seen; for
     * who draws (devices/vga/vga_draw.h). */
    uint64_t dirty[VGA_VRAM_PAGES / 64];
    bool redraw;
    uint32_t window; /* vga_plain_window() when mapping_changed() was called last */
};

extern const struct bus_ops vga_ports_bus_ops;  /* VGA_PORTS: 0x3c0 to 0x3df */
extern const struct bus_ops vga_mono_bus_ops;   /* VGA_MONO_PORTS: 0x3b0 to 0x3bb */
extern const struct bus_ops vga_dispi_bus_ops;  /* VGA_DISPI_PORTS */
extern const struct bus_ops vga_window_bus_ops; /* VGA_WINDOW_BYTES: 0xa0000 to 0xbffff */
extern const struct bus_ops vga_memory_bus_ops; /* BAR0 */
extern const struct bus_ops vga_mmio_bus_ops;   /* BAR2 */

void vga_init(struct vga *v, const struct vga_config *cfg);
void vga_fini(struct vga *v);
/* Registers as after power-on; memory stays. The PCI function's owner resets that. */
void vga_reset(struct vga *v);
/* What a VGA BIOS would leave: mode 3 (80x25 text) with its colours, the screen cleared, and `font` (256 glyphs of 16
 * bytes, or NULL) in plane 2. */
void vga_set_text_mode(struct vga *v, const uint8_t *font);
/* Where in memory the window's first VGA_CHAIN4_BYTES lie, if reads and writes there are nothing else than accesses to
 * memory; VGA_NO_WINDOW otherwise. A multiple of the page size. */
uint32_t vga_plain_window(const struct vga *v);
/* Sections "vga" and the PCI function's. Memory is saved by the machine. */
void vga_save(const struct vga *v, struct snap_writer *w);
void vga_load(struct vga *v, struct snap_reader *r);

/* ---- between the files of the device ---- */

static inline bool vga_dispi_is_on(const struct vga *v)
{
    return v->dispi[VGA_DISPI_ENABLE] & VGA_DISPI_ENABLED;
}

/* After a change that moves what can be mapped. */
void vga_update_mapping(struct vga *v);
uint8_t vga_port_read(struct vga *v, unsigned port);
void vga_port_write(struct vga *v, unsigned port, uint8_t value);
uint16_t vga_dispi_read(const struct vga *v);
void vga_dispi_write(struct vga *v, uint16_t value);
/* Registers that came from a file: into their ranges. */
void vga_dispi_check(struct vga *v);
/* Clears [offset, offset + len) of memory. */
void vga_memory_clear(struct vga *v, uint32_t offset, uint32_t len);
/* Stores four planes' bytes at plane address `a`. */
void vga_memory_store(struct vga *v, uint32_t a, uint32_t planes);

#endif
