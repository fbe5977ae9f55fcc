/* X keysyms: what VNC's clients send. */
#include "frontends/display/display_internal.h"

static const struct {
    uint16_t keysym;
    enum key key;
} table[] = {
    {0xff08, KEY_BACKSPACE},   {0xff09, KEY_TAB},    {0xff0d, KEY_RET},         {0xff13, KEY_PAUSE},
    {0xff14, KEY_SCROLL_LOCK}, {0xff15, KEY_PRINT},  {0xff1b, KEY_ESC},         {0xff50, KEY_HOME},
    {0xff51, KEY_LEFT},        {0xff52, KEY_UP},     {0xff53, KEY_RIGHT},       {0xff54, KEY_DOWN},
    {0xff55, KEY_PGUP},        {0xff56, KEY_PGDN},   {0xff57, KEY_END},         {0xff61, KEY_PRINT},
    {0xff63, KEY_INSERT},      {0xff67, KEY_MENU},   {0xff7f, KEY_NUM_LOCK},    {0xff8d, KEY_KP_ENTER},
    {0xffaa, KEY_KP_MULTIPLY}, {0xffab, KEY_KP_ADD}, {0xffad, KEY_KP_SUBTRACT}, {0xffae, KEY_KP_DECIMAL},
    {0xffaf, KEY_KP_DIVIDE},   {0xffb0, KEY_KP_0},   {0xffb1, KEY_KP_1},        {0xffb2, KEY_KP_2},
    {0xffb3, KEY_KP_3},        {0xffb4, KEY_KP_4},   {0xffb5, KEY_KP_5},        {0xffb6, KEY_KP_6},
    {0xffb7, KEY_KP_7},        {0xffb8, KEY_KP_8},   {0xffb9, KEY_KP_9},        {0xffbe, KEY_F1},
    {0xffbf, KEY_F2},          {0xffc0, KEY_F3},     {0xffc1, KEY_F4},          {0xffc2, KEY_F5},
    {0xffc3, KEY_F6},          {0xffc4, KEY_F7},     {0xffc5, KEY_F8},          {0xffc6, KEY_F9},
    {0xffc7, KEY_F10},         {0xffc8, KEY_F11},    {0xffc9, KEY_F12},         {0xffe1, KEY_SHIFT},
    {0xffe2, KEY_SHIFT_R},     {0xffe3, KEY_CTRL},   {0xffe4, KEY_CTRL_R},      {0xffe5, KEY_CAPS_LOCK},
    {0xffe7, KEY_META_L},      {0xffe8, KEY_META_R}, {0xffe9, KEY_ALT},         {0xffea, KEY_ALT_R},
    {0xffeb, KEY_META_L},      {0xffec, KEY_META_R}, {0xfe03, KEY_ALT_R},       {0xfe20, KEY_TAB},
    {0xffff, KEY_DELETE},
};

enum key display_key_of_keysym(uint32_t keysym)
{
    bool shift; /* the client presses that itself */
    if (keysym < 0x80)
        return key_of_char((char)keysym, &shift);
    for (unsigned k = 0; k < ARRAY_LEN(table); k++)
        if (table[k].keysym == keysym)
            return table[k].key;
    return KEY_COUNT;
}
