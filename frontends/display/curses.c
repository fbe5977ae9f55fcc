/*
 * Text in the terminal (ncurses). Ctrl-] leaves.
 */
#define _XOPEN_SOURCE_EXTENDED 1
#include "frontends/display/display_internal.h"

#include <curses.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

#define LEAVE  0x1d
#define ESCAPE 0x1b

struct curses {
    struct display *d;
    SCREEN *terminal;
};

/* VGA's colour bits are blue, green, red; curses' red, green, blue. */
static short colour_of(unsigned vga)
{
    return (short)((vga & 2) | (vga & 1) << 2 | (vga >> 2 & 1));
}

static void *curses_open(struct display *d, const char *options, struct error *e)
{
    struct curses *c = calloc(1, sizeof *c);
    if (*options || !c || !isatty(STDOUT_FILENO)) {
        error_set(e,
                  *options ? "-display curses%s: it takes no options"
                           : "-display curses%s: standard output is no terminal",
                  options);
        free(c);
        return NULL;
    }
    setlocale(LC_CTYPE, "");
    c->d = d;
    c->terminal = newterm(NULL, stdout, stdin);
    if (!c->terminal) {
        error_set(e, "-display curses: the terminal ($TERM) is not known");
        free(c);
        return NULL;
    }
    raw();
    noecho();
    nonl();
    keypad(stdscr, TRUE);
    nodelay(stdscr, TRUE);
    set_escdelay(20);
    if (has_colors()) {
        start_color();
        for (short pair = 1; pair < 64; pair++)
            init_pair(pair, colour_of(pair & 7), colour_of((unsigned)pair >> 3));
    }
    return c;
}

static void curses_close(void *state)
{
    struct curses *c = state;
    endwin();
    delscreen(c->terminal);
    free(c);
}

/* ---- keys ---- */

/* curses' names of keys hide ours from here on: ours go by their text. */
static enum key special_key(int code)
{
    static const struct {
        int code;
        const char *name;
    } table[] = {{KEY_UP, "up"},     {KEY_DOWN, "down"}, {KEY_LEFT, "left"},  {KEY_RIGHT, "right"},
                 {KEY_HOME, "home"}, {KEY_END, "end"},   {KEY_PPAGE, "pgup"}, {KEY_NPAGE, "pgdn"},
                 {KEY_IC, "insert"}, {KEY_DC, "delete"}, {KEY_ENTER, "ret"},  {KEY_BACKSPACE, "backspace"},
                 {KEY_BTAB, "tab"},  {KEY_F(1), "f1"},   {KEY_F(2), "f2"},    {KEY_F(3), "f3"},
                 {KEY_F(4), "f4"},   {KEY_F(5), "f5"},   {KEY_F(6), "f6"},    {KEY_F(7), "f7"},
                 {KEY_F(8), "f8"},   {KEY_F(9), "f9"},   {KEY_F(10), "f10"},  {KEY_F(11), "f11"},
                 {KEY_F(12), "f12"}};
    for (unsigned k = 0; k < ARRAY_LEN(table); k++)
        if (table[k].code == code)
            return key_find(table[k].name, strlen(table[k].name));
    return KEY_COUNT;
}

static void chord(struct curses *c, enum key with, enum key key)
{
    if (with < KEY_COUNT)
        display_key(c->d, with, true);
    display_key(c->d, key, true);
    display_key(c->d, key, false);
    if (with < KEY_COUNT)
        display_key(c->d, with, false);
}

static void typed(struct curses *c, int code)
{
    char letter = (char)('a' + code - 1);
    if (code >= 1 && code <= 26 && !strchr("\t\r\n\b", code))
        chord(c, KEY_CTRL, key_find(&letter, 1));
    else
        display_type(c->d, (char)code);
}

static void curses_events(void *state)
{
    struct curses *c = state;
    for (int code; (code = getch()) != ERR;) {
        int next = code == ESCAPE ? getch() : ERR; /* an escape and a character at once: Alt */
        if (next != ERR)
            display_key(c->d, KEY_ALT, true);
        int shown = next != ERR ? next : code;
        if (shown == LEAVE)
            c->d->closed = true;
        else if (shown > 0xff)
            chord(c, KEY_COUNT, special_key(shown));
        else
            typed(c, shown);
        if (next != ERR)
            display_key(c->d, KEY_ALT, false);
    }
}

/* ---- cells ---- */

static void draw_cell(const struct screen_cell *cell)
{
    wchar_t text[2] = {cell->unicode < 32 ? L' ' : (wchar_t)cell->unicode, 0};
    short pair = (short)((cell->attr & 7) | (cell->attr >> 4 & 7) << 3);
    attr_t attr = cell->attr & 8 ? A_BOLD : A_NORMAL;
    cchar_t out;
    setcchar(&out, text, attr, pair, NULL);
    add_wch(&out);
}

static void curses_draw(void *state, const struct screen_picture *p, const struct screen_change *change)
{
    struct curses *c = state;
    struct screen_text t;
    (void)p;
    (void)change;
    if (!machine_text_cells(c->d->m, &t))
        return;
    if (!t.is_text) {
        erase();
        mvaddstr(0, 0, "(the guest shows graphics; Ctrl-] leaves)");
    }
    for (unsigned row = 0; t.is_text && row < t.rows && (int)row < LINES; row++) {
        move((int)row, 0);
        for (unsigned k = 0; k < t.columns && (int)k < COLS; k++)
            draw_cell(&t.cells[row * t.columns + k]);
    }
    if (t.cursor && (int)t.cursor_row < LINES && (int)t.cursor_column < COLS)
        move((int)t.cursor_row, (int)t.cursor_column);
    refresh();
    screen_text_free(&t);
}

const struct display_backend display_curses = {"curses",     "ncurses",     false,       curses_open,
                                               curses_close, curses_events, curses_draw, NULL};
