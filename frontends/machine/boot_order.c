#include "frontends/machine/boot_order.h"

#include "devices/layout.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH_LEN 80
#define LINES    (DRIVES_MAX + CARDS_MAX)

struct line {
    int bootindex; /* 0: none */
    char letter;   /* of -boot order= */
    char path[PATH_LEN];
};

struct list {
    struct line line[LINES];
    unsigned count;
};

static struct line *add(struct list *l, int bootindex, char letter)
{
    struct line *n = &l->line[l->count++];
    *n = (struct line){.bootindex = bootindex, .letter = letter};
    return n;
}

/* IDE disks and CDs by index, then floppies. */
static void add_drives(struct list *l, struct drives *d)
{
    static const unsigned isa = LAYOUT_PCI_ISA_DEVFN >> 3, ide = LAYOUT_PCI_IDE_DEVFN;
    for (unsigned n = 0; d && n < 4; n++) {
        const struct drive *v = drives_find(d, DRIVE_IDE, n);
        if (v)
            snprintf(add(l, v->cfg.bootindex, v->cfg.is_cdrom ? 'd' : 'c')->path, PATH_LEN,
                     "/pci@i0cf8/ide@%x,%x/drive@%x/disk@%x", ide >> 3, ide & 7, n >> 1, n & 1);
    }
    for (unsigned n = 0; d && n < 2; n++) {
        const struct drive *v = drives_find(d, DRIVE_FLOPPY, n);
        if (v)
            snprintf(add(l, v->cfg.bootindex, 'a')->path, PATH_LEN, "/pci@i0cf8/isa@%x/fdc@%04x/floppy@%x", isa,
                     LAYOUT_FDC_PORT, n);
    }
}

/* OVMF knows an AHCI controller by the IDs of the ICH9's. */
static void add_ports(struct list *l, struct drives *d, unsigned first, const char *at)
{
    for (unsigned n = 0; d && n < DRIVE_SATA_PORTS; n++) {
        const struct drive *v = drives_find(d, DRIVE_SATA, first + n);
        if (v)
            snprintf(add(l, v->cfg.bootindex, v->cfg.is_cdrom ? 'd' : 'c')->path, PATH_LEN,
                     "/pci@i0cf8/pci8086,2922@%s/drive@%x/disk@0", at, n);
    }
}

static void add_cards(struct list *l, const struct cards *c)
{
    for (unsigned i = 0; i < c->count; i++) {
        const struct card *k = &c->card[i];
        bool is_disk = k->kind == DEVICE_VIRTIO_BLK, is_net = k->kind == DEVICE_VIRTIO_NET || k->kind == DEVICE_E1000;
        char at[8];
        snprintf(at, sizeof at, k->pci->devfn & 7 ? "%x,%x" : "%x", k->pci->devfn >> 3, k->pci->devfn & 7);
        if (is_disk)
            snprintf(add(l, k->bootindex, 'c')->path, PATH_LEN, "/pci@i0cf8/scsi@%s/disk@0,0", at);
        else if (is_net)
            snprintf(add(l, k->bootindex, 'n')->path, PATH_LEN, "/pci@i0cf8/ethernet@%s/ethernet-phy@0", at);
        else if (k->kind == DEVICE_AHCI)
            add_ports(l, c->cfg.drives, k->first_drive, at);
    }
}

static int by_bootindex(const void *a, const void *b)
{
    return ((const struct line *)a)->bootindex - ((const struct line *)b)->bootindex;
}

static void put(char *text, size_t size, const char *path)
{
    size_t len = strlen(text);
    snprintf(text + len, size - len, "%s%s", len ? "\n" : "", path);
}

/* No two with one index: the order is the command line's in every case. */
static bool put_indexed(struct list *l, char *text, size_t size, struct error *e)
{
    qsort(l->line, l->count, sizeof l->line[0], by_bootindex);
    for (unsigned k = 0; k < l->count; k++) {
        const struct line *n = &l->line[k];
        if (!n->bootindex)
            continue;
        if (k && n->bootindex == l->line[k - 1].bootindex)
            return error_set(e, "bootindex=%d is given to two devices", n->bootindex - 1);
        put(text, size, n->path);
    }
    return true;
}

static void put_letters(const struct list *l, const char *letters, char *text, size_t size)
{
    for (; *letters; letters++)
        for (unsigned k = 0; k < l->count; k++)
            if (l->line[k].letter == *letters && !l->line[k].bootindex)
                put(text, size, l->line[k].path);
}

char *boot_order_text(const struct board *b, struct error *e)
{
    const struct board_config *c = &b->cfg;
    const size_t size = (LINES + 2) * PATH_LEN;
    struct list *in_order = calloc(2, sizeof *in_order), *sorted = in_order + 1;
    char *text = calloc(1, size);
    bool ok = in_order && text;
    if (!ok)
        error_set(e, "out of memory");
    if (ok) {
        add_drives(in_order, c->drives);
        add_cards(in_order, &b->cards);
        *sorted = *in_order;
        if (c->linux_kernel.kernel)
            put(text, size, "/rom@" BOOT_BIOS_ROM);
        ok = put_indexed(sorted, text, size, e);
    }
    if (ok && c->boot_extras.letters_given && !c->boot_once)
        put_letters(in_order, c->boot_order, text, size);
    if (ok && c->boot_extras.strict)
        put(text, size, "HALT");
    free(in_order);
    if (ok)
        return text;
    free(text);
    return NULL;
}
