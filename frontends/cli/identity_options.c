#include "frontends/cli/identity_options.h"

#include "frontends/cli/properties.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

static int hex_digit(char c)
{
    static const char digits[] = "0123456789abcdef";
    const char *at = c ? strchr(digits, tolower((unsigned char)c)) : NULL;
    return at ? (int)(at - digits) : -1;
}

bool uuid_option_parse(struct machine_config *m, const char *text, struct error *e)
{
    const char *at = text;
    for (unsigned n = 0; n < sizeof m->uuid; n++) {
        bool dash = n == 4 || n == 6 || n == 8 || n == 10;
        if (dash && *at++ != '-')
            break;
        int high = hex_digit(at[0]), low = high < 0 ? -1 : hex_digit(at[1]);
        if (low < 0)
            break;
        m->uuid[n] = (uint8_t)(high << 4 | low);
        at += 2;
        if (n == sizeof m->uuid - 1 && !*at)
            return true;
    }
    return error_set(e, "UUID '%s': expected xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx", text);
}

/* The BIOS is UEFI or not by itself, and its release is not read by anybody. */
static bool is_harmless(unsigned type, const char *key)
{
    return type == 0 && (!strcmp(key, "uefi") || !strcmp(key, "release"));
}

bool smbios_option_parse(struct machine_config *m, char *text, struct error *e)
{
    char *first = property_next(&text), *value = first ? property_value(first) : NULL, *end = NULL;
    unsigned long type = value ? strtoul(value, &end, 10) : 0;
    if (!value || strcmp(first, "type") != 0 || !isdigit((unsigned char)*value) || *end || type > 127)
        return error_set(e, "-smbios: expected type=N,KEY=VALUE... (files of tables are not taken)");
    for (char *p; (p = property_next(&text));) {
        value = property_value(p);
        if (value && type == 1 && !strcmp(p, "uuid")) {
            if (!uuid_option_parse(m, value, e))
                return false;
        } else if (!value || (!is_harmless((unsigned)type, p) && !machine_smbios_set(m, (unsigned)type, p, value)))
            return error_set(e, "-smbios type=%lu: '%s' cannot be set", type, p);
    }
    return true;
}

bool fw_cfg_option_parse(struct machine_config *m, char *text, struct error *e)
{
    struct fw_cfg_text t = {0};
    for (char *p; (p = property_next(&text));) {
        char *value = property_value(p);
        if (!t.name && (!value || !strcmp(p, "name")))
            t.name = value ? value : p;
        else if (value && !strcmp(p, "file"))
            t.path = value;
        else if (value && !strcmp(p, "string"))
            t.text = value;
        else
            return error_set(e, "-fw_cfg: '%s': expected name=NAME and file=PATH or string=TEXT", p);
    }
    if (!t.name || strlen(t.name) > FW_CFG_TEXT_NAME_MAX || strncmp(t.name, "opt/", 4) != 0)
        return error_set(e, "-fw_cfg: name=%s: expected at most %d characters that begin with opt/",
                         t.name ? t.name : "", FW_CFG_TEXT_NAME_MAX);
    if (!t.path == !t.text)
        return error_set(e, "-fw_cfg name=%s: expected either file=PATH or string=TEXT", t.name);
    for (unsigned k = 0; k < m->fw_cfg_count; k++)
        if (!strcmp(m->fw_cfg[k].name, t.name))
            return error_set(e, "-fw_cfg name=%s: that name is taken", t.name);
    if (m->fw_cfg_count == FW_CFG_TEXTS_MAX)
        return error_set(e, "-fw_cfg: more than %d", FW_CFG_TEXTS_MAX);
    m->fw_cfg[m->fw_cfg_count++] = t;
    return true;
}
