#include "frontends/cli/device_options.h"

#include "frontends/cli/properties.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    enum device_kind kind;
} kinds[] = {
    {"virtio-blk-pci", DEVICE_VIRTIO_BLK},
    {"virtio-blk", DEVICE_VIRTIO_BLK},
    {"virtio-net-pci", DEVICE_VIRTIO_NET},
    {"virtio-net", DEVICE_VIRTIO_NET},
    {"virtio", DEVICE_VIRTIO_NET},
    {"virtio-rng-pci", DEVICE_VIRTIO_RNG},
    {"virtio-serial-pci", DEVICE_VIRTIO_SERIAL},
    {"virtio-serial", DEVICE_VIRTIO_SERIAL},
    {"ide-hd", DEVICE_IDE_HD},
    {"ide-cd", DEVICE_IDE_CD},
    {"floppy", DEVICE_FLOPPY},
    {"virtio-rng", DEVICE_VIRTIO_RNG},
    {"e1000", DEVICE_E1000},
    {"e1000-82540em", DEVICE_E1000},
    {"ich9-ahci", DEVICE_AHCI},
    {"ahci", DEVICE_AHCI},
};

static bool kind_parse(const char *name, size_t len, enum device_kind *out)
{
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++)
        if (strlen(kinds[k].name) == len && !strncmp(kinds[k].name, name, len)) {
            *out = kinds[k].kind;
            return true;
        }
    return false;
}

bool device_option_knows(const char *text)
{
    enum device_kind kind;
    return kind_parse(text, strcspn(text, ","), &kind);
}

const char *device_option_list(void)
{
    return "ahci, e1000, floppy, ide-cd, ide-hd, virtio-blk-pci, virtio-net-pci, virtio-rng-pci, virtio-serial-pci, "
           "virtconsole";
}

/* ---- values ---- */

static bool mac_parse(const char *text, uint8_t mac[6])
{
    int used = 0;
    unsigned b[6];
    if (sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%n", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5], &used) != 6 || text[used])
        return false;
    for (unsigned i = 0; i < 6; i++)
        mac[i] = (uint8_t)b[i];
    return !(mac[0] & 1);
}

static bool on_off(const char *value, bool *on)
{
    *on = !strcmp(value, "on") || !strcmp(value, "yes") || !strcmp(value, "true");
    return *on || !strcmp(value, "off") || !strcmp(value, "no") || !strcmp(value, "false");
}

static bool ipv4_parse(const char *text, uint32_t *out)
{
    struct in_addr a;
    if (inet_pton(AF_INET, text, &a) != 1)
        return false;
    *out = ntohl(a.s_addr);
    return true;
}

/* 10.0.2.0/24 */
static bool net_parse(char *text, uint32_t *net, uint32_t *mask)
{
    char *slash = strchr(text, '/'), *end;
    unsigned long bits = 24;
    if (slash) {
        *slash++ = 0;
        bits = strtoul(slash, &end, 10);
        if (!isdigit((unsigned char)*slash) || *end || bits < 1 || bits > 30)
            return false;
    }
    *mask = 0xffffffffu << (32 - bits);
    return ipv4_parse(text, net);
}

/* "ADDRESS:PORT", cut in place; the address may be missing. */
static bool endpoint_parse(char *text, uint32_t *address, uint16_t *port)
{
    char *colon = strrchr(text, ':'), *end;
    if (!colon)
        return false;
    *colon++ = 0;
    unsigned long n = strtoul(colon, &end, 10);
    *port = (uint16_t)n;
    return isdigit((unsigned char)*colon) && !*end && n <= 65535 && (!*text || ipv4_parse(text, address));
}

/* tcp:[ADDRESS]:PORT-[ADDRESS]:PORT */
static bool forward_parse(struct netdev_config *n, char *text, struct error *e)
{
    if (n->forwards == FORWARDS_MAX)
        return error_set(e, "hostfwd: more than %d", FORWARDS_MAX);
    struct netdev_forward *f = &n->forward[n->forwards++];
    char *colon = strchr(text, ':'), *dash = strchr(text, '-');
    if (colon && dash) {
        *colon++ = 0;
        *dash++ = 0;
        f->udp = !strcmp(text, "udp");
        if ((f->udp || !*text || !strcmp(text, "tcp")) && endpoint_parse(colon, &f->host_address, &f->host_port) &&
            endpoint_parse(dash, &f->guest_address, &f->guest_port))
            return true;
    }
    return error_set(e, "hostfwd: expected tcp|udp:[ADDRESS]:PORT-[ADDRESS]:PORT");
}

/* ---- -netdev ---- */

static bool netdev_property(struct netdev_config *n, const char *key, char *value, bool *known, struct error *e)
{
    bool on, ok = true;
    *known = true;
    if (!strcmp(key, "hostfwd"))
        return forward_parse(n, value, e);
    if (!strcmp(key, "net"))
        ok = net_parse(value, &n->net, &n->mask);
    else if (!strcmp(key, "host"))
        ok = ipv4_parse(value, &n->host);
    else if (!strcmp(key, "dns"))
        ok = ipv4_parse(value, &n->dns);
    else if (!strcmp(key, "dhcpstart"))
        ok = ipv4_parse(value, &n->dhcp_start);
    else if (!strcmp(key, "restrict"))
        ok = on_off(value, &n->restricted);
    else if (!strcmp(key, "ipv6")) {
        ok = on_off(value, &on);
        n->no_ipv6 = !on;
    } else if (!strcmp(key, "ipv4"))
        ok = on_off(value, &on) && on;
    else if (!strcmp(key, "hostname"))
        n->hostname = value;
    else if (!strcmp(key, "tftp"))
        n->tftp = value;
    else if (!strcmp(key, "bootfile"))
        n->bootfile = value;
    else if (!strcmp(key, "domainname"))
        n->domain = value;
    else
        *known = false;
    return ok || error_set(e, "%s=%s: not a value of '%s'", key, value, key);
}

static struct netdev_config *netdev_new(struct machine_config *m, struct error *e)
{
    if (m->netdev_count < NETDEVS_MAX)
        return &m->netdev[m->netdev_count++];
    error_set(e, "more than %d networks", NETDEVS_MAX);
    return NULL;
}

static bool is_user(const char *kind, const char *option, struct error *e)
{
    return (kind && !strcmp(kind, "user")) ||
           error_set(e, "-%s %s: only user networks are supported (user,...)", option, kind ? kind : "");
}

static bool netdev_has(const struct machine_config *m, const char *id)
{
    for (unsigned i = 0; i < m->netdev_count; i++)
        if (m->netdev[i].id && !strcmp(m->netdev[i].id, id))
            return true;
    return false;
}

bool netdev_option_parse(struct machine_config *m, char *text, struct error *e)
{
    struct netdev_config n = {0};
    bool known;
    if (!is_user(property_next(&text), "netdev", e))
        return false;
    for (char *p; (p = property_next(&text));) {
        char *value = property_value(p);
        if (!value)
            return error_set(e, "-netdev user: '%s': expected KEY=VALUE", p);
        if (!strcmp(p, "id"))
            n.id = value;
        else if (!netdev_property(&n, p, value, &known, e))
            return false;
        else if (!known)
            return error_set(e,
                             "-netdev user: %s= is unknown; known: id, hostfwd, net, host, dns, dhcpstart, restrict, "
                             "ipv4, ipv6, hostname, tftp, bootfile, domainname",
                             p);
    }
    if (!n.id || !*n.id || netdev_has(m, n.id))
        return error_set(e, "-netdev user: an id of its own is missing (id=NAME)");
    struct netdev_config *to = netdev_new(m, e);
    if (to)
        *to = n;
    return to != NULL;
}

/* ---- -device ---- */

static bool slot_parse(const char *value, unsigned *slot)
{
    char *end;
    unsigned long n = strtoul(value, &end, 16);
    *slot = (unsigned)n;
    return isxdigit((unsigned char)*value) && n >= 1 && n <= 31 && (!*end || !strcmp(end, ".0"));
}

static struct device_config *device_new(struct machine_config *m, struct error *e)
{
    if (m->device_count < DEVICES_MAX)
        return &m->device[m->device_count++];
    error_set(e, "-device: more than %d PCI cards", DEVICES_MAX);
    return NULL;
}

/* What QEMU's users give and what makes no difference here. */
static bool is_harmless(const char *key)
{
    static const char *const keys[] = {"romfile", "bus", "rombar", "vectors", "disable-modern", "max_ports", "rng"};
    for (size_t k = 0; k < ARRAY_LEN(keys); k++)
        if (!strcmp(key, keys[k]))
            return true;
    return false;
}

static bool device_property(struct device_config *d, const char *key, char *value, struct error *e)
{
    bool ok = true, on_board = d->kind >= DEVICE_CARDS, is_disk = d->kind == DEVICE_VIRTIO_BLK || on_board;
    bool is_virtio = !on_board && d->kind != DEVICE_E1000 && d->kind != DEVICE_AHCI;
    bool is_net = d->kind == DEVICE_VIRTIO_NET || d->kind == DEVICE_E1000;
    if (!strcmp(key, "id"))
        d->id = value;
    else if (is_disk && !strcmp(key, "drive"))
        d->drive = value;
    else if ((is_disk || is_net) && !strcmp(key, "bootindex"))
        ok = bootindex_parse(value, &d->bootindex);
    else if (on_board && !strcmp(key, "bus"))
        d->bus = value;
    else if (on_board && !strcmp(key, "unit"))
        d->unit = value;
    else if (is_disk && !strcmp(key, "serial"))
        d->serial = value;
    else if (is_net && !strcmp(key, "netdev"))
        d->netdev = value;
    else if (is_net && !strcmp(key, "mac"))
        ok = d->has_mac = mac_parse(value, d->mac);
    else if (!on_board && !strcmp(key, "addr"))
        ok = slot_parse(value, &d->slot);
    else if (is_virtio && !strcmp(key, "disable-legacy"))
        ok = on_off(value, &d->modern_only);
    else if (!is_harmless(key))
        return error_set(e, "-device: %s= is unknown for this device", key);
    return ok || error_set(e, "-device: %s=%s: not a value of '%s'", key, value, key);
}

/* virtconsole,chardev=ID: the port of the last virtio-serial before it. */
static bool virtconsole_parse(struct machine_config *m, char *text, struct error *e)
{
    struct device_config *serial = NULL;
    const char *chardev = NULL;
    property_next(&text);
    for (unsigned k = 0; k < m->device_count; k++)
        if (m->device[k].kind == DEVICE_VIRTIO_SERIAL)
            serial = &m->device[k];
    for (char *p; (p = property_next(&text));) {
        char *value = property_value(p);
        if (value && !strcmp(p, "chardev"))
            chardev = value;
        else if (!value || (strcmp(p, "id") != 0 && strcmp(p, "name") != 0 && strcmp(p, "bus") != 0))
            return error_set(e, "-device virtconsole: '%s' is unknown; known: chardev=ID", p);
    }
    if (!serial || serial->port)
        return error_set(e,
                         "-device virtconsole: there is no -device virtio-serial-pci with a free port before it (each "
                         "has one)");
    serial->port = chardev;
    return chardev || error_set(e, "-device virtconsole: chardev=ID is missing");
}

bool device_option_parse(struct machine_config *m, char *text, struct error *e)
{
    if (!strncmp(text, "virtconsole", 11) && (!text[11] || text[11] == ','))
        return virtconsole_parse(m, text, e);
    struct device_config *d = device_new(m, e);
    const char *name = property_next(&text);
    if (!d)
        return false;
    *d = (struct device_config){0};
    if (!name || !kind_parse(name, strlen(name), &d->kind))
        return error_set(e, "-device %s: unknown device; known: isa-debug-exit, pc-testdev, vmcoreinfo, %s",
                         name ? name : "", device_option_list());
    for (char *p; (p = property_next(&text));) {
        char *value = property_value(p);
        if (!value)
            return error_set(e, "-device %s: '%s': expected KEY=VALUE", name, p);
        if (!device_property(d, p, value, e))
            return false;
    }
    return true;
}

/* ---- -nic ---- */

static bool nic_property(struct device_config *d, struct netdev_config *n, char *p, struct error *e)
{
    bool known, ok = true;
    char *value = property_value(p);
    if (!value)
        return error_set(e, "-nic user: '%s': expected KEY=VALUE", p);
    if (!netdev_property(n, p, value, &known, e))
        return false;
    if (known || !strcmp(p, "id"))
        return true;
    if (!strcmp(p, "model"))
        ok = kind_parse(value, strlen(value), &d->kind) && (d->kind == DEVICE_VIRTIO_NET || d->kind == DEVICE_E1000);
    else if (!strcmp(p, "mac"))
        ok = d->has_mac = mac_parse(value, d->mac);
    else if (!strcmp(p, "addr"))
        ok = slot_parse(value, &d->slot);
    else
        return error_set(e, "-nic user: %s= is unknown; known: model, mac, addr and what -netdev user has", p);
    return ok || error_set(e, "-nic user: %s=%s: not a value of '%s'", p, value, p);
}

bool nic_option_parse(struct machine_config *m, char *text, struct error *e)
{
    static const char *const ids[NETDEVS_MAX] = {"nic0", "nic1", "nic2", "nic3", "nic4", "nic5", "nic6", "nic7"};
    const char *kind = property_next(&text);
    if (kind && !strcmp(kind, "none"))
        return true;
    if (!is_user(kind, "nic", e))
        return false;
    struct netdev_config *n = netdev_new(m, e);
    struct device_config *d = n ? device_new(m, e) : NULL;
    if (!d)
        return false;
    *n = (struct netdev_config){.id = ids[m->netdev_count - 1]};
    *d = (struct device_config){.kind = DEVICE_VIRTIO_NET, .netdev = n->id};
    for (char *p; (p = property_next(&text));)
        if (!nic_property(d, n, p, e))
            return false;
    return true;
}
