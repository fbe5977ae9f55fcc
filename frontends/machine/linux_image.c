#include "frontends/machine/linux_image.h"

#define XLF_KERNEL_64 1

/* What protocols before 2.03, 2.06 and 2.10 do not say. */
#define OLD_INITRD_MAX   0x37ffffffu
#define OLD_CMDLINE_SIZE 255
#define OLD_LOAD         0x100000u

uint16_t linux_get16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

uint32_t linux_get32(const uint8_t *p)
{
    return linux_get16(p) | (uint32_t)linux_get16(p + 2) << 16;
}

uint64_t linux_get64(const uint8_t *p)
{
    return linux_get32(p) | (uint64_t)linux_get32(p + 4) << 32;
}

void linux_put16(uint8_t *p, uint16_t x)
{
    p[0] = (uint8_t)x;
    p[1] = (uint8_t)(x >> 8);
}

void linux_put32(uint8_t *p, uint32_t x)
{
    linux_put16(p, (uint16_t)x);
    linux_put16(p + 2, (uint16_t)(x >> 16));
}

void linux_put64(uint8_t *p, uint64_t x)
{
    linux_put32(p, (uint32_t)x);
    linux_put32(p + 4, (uint32_t)(x >> 32));
}

/* The header's fields, as far as this version of the protocol has them. */
static void header_read(struct linux_image *img)
{
    const uint8_t *h = img->setup;
    bool loads_where_it_likes = img->version >= 0x20a;
    img->loaded_high = h[HDR_LOADFLAGS] & LINUX_LOADED_HIGH;
    img->initrd_max = img->version >= 0x203 ? linux_get32(h + HDR_INITRD_MAX) : OLD_INITRD_MAX;
    img->cmdline_size = img->version >= 0x206 ? linux_get32(h + HDR_CMDLINE_SIZE) : OLD_CMDLINE_SIZE;
    img->load = loads_where_it_likes ? linux_get64(h + HDR_PREF_ADDRESS) : OLD_LOAD;
    img->init_size = loads_where_it_likes ? linux_get32(h + HDR_INIT_SIZE) : 0;
    img->entry64 = img->version >= 0x20c && linux_get16(h + HDR_XLOADFLAGS) & XLF_KERNEL_64;
}

/* The code's length in whole paragraphs, which had 16 bits before protocol 2.04. */
static uint64_t declared_len(const struct linux_image *img)
{
    const uint8_t *at = img->setup + HDR_SYSSIZE;
    return (img->version >= 0x204 ? linux_get32(at) : linux_get16(at)) * 16ull;
}

bool linux_image_read(struct linux_image *img, const struct file *k, struct error *e)
{
    unsigned sects = k->data[HDR_SETUP_SECTS] ? k->data[HDR_SETUP_SECTS] : 4;
    *img = (struct linux_image){.setup = k->data, .setup_len = (sects + 1) * 512u};
    if (k->len <= img->setup_len || k->len < HDR_END)
        return error_set(e, "kernel '%s' is truncated: its header announces %zu bytes of setup code, the file has %zu",
                         k->path, img->setup_len, k->len);
    img->version = linux_get16(k->data + HDR_VERSION);
    img->payload = k->data + img->setup_len;
    img->payload_len = k->len - img->setup_len;
    uint64_t declared = declared_len(img);
    if (declared > ((img->payload_len + 15) & ~(size_t)15))
        return error_set(e, "kernel '%s' is truncated: %llu bytes of code announced, %zu in the file", k->path,
                         (unsigned long long)declared, img->payload_len);
    header_read(img);
    return true;
}
