/*
 * The window (SDL2): the picture scaled to the window, a status line below it, keys by their places.
 *
 * Ctrl-Alt-G takes and gives back the mouse (a click takes it), Ctrl-Alt-F full screen, Ctrl-Alt-V pastes as keys,
 * Ctrl-Alt-P stops and goes on, Ctrl-Alt-S shows and hides the status line.
 */
#include "frontends/display/display_internal.h"

#include "core/library.h"

#include <SDL.h>
#include <stdlib.h>
#include <string.h>

#define STATUS_HEIGHT 18u
#define STATUS_FONT   16u
#define NARROW        400u
#define GROUND        0x202830u
#define INK           0xd0d8e0u

#define SDL_LIBRARY "libSDL2-2.0.so.0"
/* clang-format off */
#define SDL_CALLS(X) \
    X(SDL_CreateRenderer) X(SDL_CreateTexture) X(SDL_CreateWindow) X(SDL_DestroyRenderer) X(SDL_DestroyTexture) \
    X(SDL_DestroyWindow) X(SDL_GetClipboardText) X(SDL_GetError) X(SDL_InitSubSystem) X(SDL_PollEvent) \
    X(SDL_QuitSubSystem) X(SDL_RenderClear) X(SDL_RenderCopy) X(SDL_RenderPresent) X(SDL_RenderSetLogicalSize) \
    X(SDL_SetHint) X(SDL_SetRelativeMouseMode) X(SDL_SetWindowFullscreen) X(SDL_SetWindowGrab) \
    X(SDL_SetWindowSize) X(SDL_SetWindowTitle) X(SDL_UpdateTexture) X(SDL_free)
/* clang-format on */

struct sdl_calls {
    SDL_CALLS(LIBRARY_POINTER)
};

#define SDL_CALL(f) LIBRARY_CALL(struct sdl_calls, f)
static const struct library_call sdl_calls[] = {SDL_CALLS(SDL_CALL)};

struct sdl {
    struct display *d;
    struct sdl_calls sdl;
    SDL_Window *window;
    SDL_Renderer *renderer;
    SDL_Texture *picture, *status;
    unsigned width, height; /* of the picture */
    unsigned scale;         /* of the picture in the window's own units: 2 where it is narrow, for the status line */
    bool grabbed, full_screen, shows_status;
    bool held[KEY_COUNT];
    unsigned buttons;
    bool exposed; /* present again though nothing has changed */
};

/* ---- keys ---- */

/* By USB usage, which SDL's scancodes are: from 4 (A) on. */
static enum key key_of_scancode(SDL_Scancode code)
{
    static const uint8_t from_a[] = {
        KEY_A,
        KEY_B,
        KEY_C,
        KEY_D,
        KEY_E,
        KEY_F,
        KEY_G,
        KEY_H,
        KEY_I,
        KEY_J,
        KEY_K,
        KEY_L,
        KEY_M,
        KEY_N,
        KEY_O,
        KEY_P,
        KEY_Q,
        KEY_R,
        KEY_S,
        KEY_T,
        KEY_U,
        KEY_V,
        KEY_W,
        KEY_X,
        KEY_Y,
        KEY_Z,
        KEY_1,
        KEY_2,
        KEY_3,
        KEY_4,
        KEY_5,
        KEY_6,
        KEY_7,
        KEY_8,
        KEY_9,
        KEY_0,
        KEY_RET,
        KEY_ESC,
        KEY_BACKSPACE,
        KEY_TAB,
        KEY_SPC,
        KEY_MINUS,
        KEY_EQUAL,
        KEY_BRACKET_LEFT,
        KEY_BRACKET_RIGHT,
        KEY_BACKSLASH,
        KEY_BACKSLASH,
        KEY_SEMICOLON,
        KEY_APOSTROPHE,
        KEY_GRAVE,
        KEY_COMMA,
        KEY_DOT,
        KEY_SLASH,
        KEY_CAPS_LOCK,
        KEY_F1,
        KEY_F2,
        KEY_F3,
        KEY_F4,
        KEY_F5,
        KEY_F6,
        KEY_F7,
        KEY_F8,
        KEY_F9,
        KEY_F10,
        KEY_F11,
        KEY_F12,
        KEY_PRINT,
        KEY_SCROLL_LOCK,
        KEY_PAUSE,
        KEY_INSERT,
        KEY_HOME,
        KEY_PGUP,
        KEY_DELETE,
        KEY_END,
        KEY_PGDN,
        KEY_RIGHT,
        KEY_LEFT,
        KEY_DOWN,
        KEY_UP,
        KEY_NUM_LOCK,
        KEY_KP_DIVIDE,
        KEY_KP_MULTIPLY,
        KEY_KP_SUBTRACT,
        KEY_KP_ADD,
        KEY_KP_ENTER,
        KEY_KP_1,
        KEY_KP_2,
        KEY_KP_3,
        KEY_KP_4,
        KEY_KP_5,
        KEY_KP_6,
        KEY_KP_7,
        KEY_KP_8,
        KEY_KP_9,
        KEY_KP_0,
        KEY_KP_DECIMAL,
        KEY_LESS,
        KEY_MENU,
    };
    static const uint8_t modifiers[] = {KEY_CTRL,   KEY_SHIFT,   KEY_ALT,   KEY_META_L,
                                        KEY_CTRL_R, KEY_SHIFT_R, KEY_ALT_R, KEY_META_R};
    if (code >= SDL_SCANCODE_A && code < SDL_SCANCODE_A + (int)ARRAY_LEN(from_a))
        return from_a[code - SDL_SCANCODE_A];
    if (code >= SDL_SCANCODE_LCTRL && code < SDL_SCANCODE_LCTRL + (int)ARRAY_LEN(modifiers))
        return modifiers[code - SDL_SCANCODE_LCTRL];
    return KEY_COUNT;
}

static void release_all(struct sdl *s)
{
    for (unsigned k = 0; k < KEY_COUNT; k++)
        if (s->held[k])
            display_key(s->d, (enum key)k, false);
    memset(s->held, 0, sizeof s->held);
}

static void set_grab(struct sdl *s, bool on)
{
    s->grabbed = on;
    s->sdl.SDL_SetRelativeMouseMode(on ? SDL_TRUE : SDL_FALSE);
    s->sdl.SDL_SetWindowGrab(s->window, on ? SDL_TRUE : SDL_FALSE);
    s->d->speed.changed = true; /* the title says it */
}

static void paste(struct sdl *s)
{
    char *text = s->sdl.SDL_GetClipboardText();
    display_paste(s->d, text);
    s->sdl.SDL_free(text);
}

/* Keys with Ctrl and Alt that are the window's own. */
static bool own_key(struct sdl *s, SDL_Keycode key)
{
    switch (key) {
    case SDLK_g:
        set_grab(s, !s->grabbed);
        return true;
    case SDLK_f:
        s->full_screen = !s->full_screen;
        s->sdl.SDL_SetWindowFullscreen(s->window, s->full_screen ? SDL_WINDOW_FULLSCREEN_DESKTOP : 0);
        return true;
    case SDLK_p:
        display_set_stopped(s->d, !display_is_stopped(s->d));
        s->d->speed.changed = true;
        return true;
    case SDLK_s:
        s->shows_status = !s->shows_status;
        s->exposed = true;
        return true;
    case SDLK_v:
        return true; /* when it is released, and the modifiers with it */
    default:
        return false;
    }
}

static void on_key(struct sdl *s, const SDL_KeyboardEvent *e)
{
    bool down = e->type == SDL_KEYDOWN, own = (e->keysym.mod & KMOD_CTRL) && (e->keysym.mod & KMOD_ALT);
    enum key key = key_of_scancode(e->keysym.scancode);
    if (e->repeat) /* the guest's keyboard repeats by itself */
        return;
    if (down && own && own_key(s, e->keysym.sym)) {
        release_all(s);
        if (e->keysym.sym == SDLK_v)
            paste(s);
        return;
    }
    if (key >= KEY_COUNT || s->held[key] == down)
        return;
    s->held[key] = down;
    display_key(s->d, key, down);
}

/* ---- mouse ---- */

static unsigned button_bit(uint8_t button)
{
    return button == SDL_BUTTON_LEFT     ? MOUSE_LEFT
           : button == SDL_BUTTON_RIGHT  ? MOUSE_RIGHT
           : button == SDL_BUTTON_MIDDLE ? MOUSE_MIDDLE
           : button == SDL_BUTTON_X1     ? MOUSE_SIDE
           : button == SDL_BUTTON_X2     ? MOUSE_EXTRA
                                         : 0;
}

static void on_button(struct sdl *s, const SDL_MouseButtonEvent *e)
{
    bool down = e->type == SDL_MOUSEBUTTONDOWN;
    if (!s->grabbed) {
        if (down)
            set_grab(s, true);
        return;
    }
    s->buttons = down ? s->buttons | button_bit(e->button) : s->buttons & ~button_bit(e->button);
    machine_mouse_input(s->d->m, 0, 0, 0, s->buttons);
}

static void on_event(struct sdl *s, const SDL_Event *e)
{
    switch (e->type) {
    case SDL_QUIT:
        s->d->closed = true;
        break;
    case SDL_KEYDOWN:
    case SDL_KEYUP:
        on_key(s, &e->key);
        break;
    case SDL_MOUSEMOTION:
        if (s->grabbed)
            machine_mouse_input(s->d->m, e->motion.xrel, e->motion.yrel, 0, s->buttons);
        break;
    case SDL_MOUSEBUTTONDOWN:
    case SDL_MOUSEBUTTONUP:
        on_button(s, &e->button);
        break;
    case SDL_MOUSEWHEEL:
        if (s->grabbed)
            machine_mouse_input(s->d->m, 0, 0, -e->wheel.y, s->buttons);
        break;
    case SDL_WINDOWEVENT:
        if (e->window.event == SDL_WINDOWEVENT_FOCUS_LOST)
            release_all(s);
        s->exposed = true;
        break;
    case SDL_RENDER_TARGETS_RESET:
    case SDL_RENDER_DEVICE_RESET:
        s->d->redraw = true;
        break;
    default:
        break;
    }
}

static void sdl_events(void *state)
{
    struct sdl *s = state;
    SDL_Event e;
    while (s->sdl.SDL_PollEvent(&e))
        on_event(s, &e);
}

/* ---- drawing ---- */

static void draw_title(struct sdl *s)
{
    char status[128], title[256];
    display_status(s->d, status, sizeof status);
    snprintf(title, sizeof title, "Umbra - %s%s", status, s->grabbed ? " - Ctrl-Alt-G releases the mouse" : "");
    s->sdl.SDL_SetWindowTitle(s->window, title);
}

static void draw_status(struct sdl *s)
{
    const uint8_t *font = machine_font(s->d->m, STATUS_FONT);
    char text[128];
    unsigned width = s->width * s->scale;
    uint32_t *pixels = malloc((size_t)width * STATUS_HEIGHT * sizeof *pixels);
    display_status(s->d, text, sizeof text);
    for (size_t k = 0; pixels && k < (size_t)width * STATUS_HEIGHT; k++)
        pixels[k] = GROUND;
    for (unsigned k = 0; pixels && font && text[k] && 8 * (k + 1) <= width; k++)
        for (unsigned y = 0; y < STATUS_FONT; y++)
            for (unsigned x = 0; x < 8; x++)
                if (font[(uint8_t)text[k] * STATUS_FONT + y] >> (7 - x) & 1)
                    pixels[(size_t)(y + 1) * width + 8 * k + x] = INK;
    if (pixels)
        s->sdl.SDL_UpdateTexture(s->status, NULL, pixels, (int)(width * sizeof *pixels));
    free(pixels);
}

static SDL_Texture *make_texture(struct sdl *s, unsigned width, unsigned height)
{
    return s->sdl.SDL_CreateTexture(s->renderer, SDL_PIXELFORMAT_RGB888, SDL_TEXTUREACCESS_STREAMING, (int)width,
                                    (int)height);
}

static bool set_size(struct sdl *s, unsigned width, unsigned height)
{
    s->sdl.SDL_DestroyTexture(s->picture);
    s->sdl.SDL_DestroyTexture(s->status);
    s->picture = make_texture(s, width, height);
    s->scale = width <= NARROW ? 2 : 1;
    s->status = make_texture(s, width * s->scale, STATUS_HEIGHT);
    s->width = width;
    s->height = height;
    if (!s->full_screen)
        s->sdl.SDL_SetWindowSize(s->window, (int)(width * s->scale),
                                 (int)(height * s->scale + (s->shows_status ? STATUS_HEIGHT : 0)));
    draw_status(s);
    return s->picture && s->status;
}

/* Picture and status line keep their shapes; what is left over is black. */
static void present(struct sdl *s)
{
    int below = s->shows_status ? (int)STATUS_HEIGHT : 0;
    int width = (int)(s->width * s->scale), height = (int)(s->height * s->scale);
    SDL_Rect picture = {0, 0, width, height}, status = {0, height, width, (int)STATUS_HEIGHT};
    s->sdl.SDL_RenderSetLogicalSize(s->renderer, width, height + below);
    s->sdl.SDL_RenderClear(s->renderer);
    s->sdl.SDL_RenderCopy(s->renderer, s->picture, NULL, &picture);
    if (s->shows_status)
        s->sdl.SDL_RenderCopy(s->renderer, s->status, NULL, &status);
    s->sdl.SDL_RenderPresent(s->renderer);
    s->exposed = false;
}

static void sdl_draw(void *state, const struct screen_picture *p, const struct screen_change *c)
{
    struct sdl *s = state;
    struct screen_change all = *c;
    if (p->width != s->width || p->height != s->height) {
        if (!set_size(s, p->width, p->height))
            return;
        all = (struct screen_change){.count = p->height};
    }
    if (all.count) {
        SDL_Rect rows = {0, (int)all.first, (int)p->width, (int)all.count};
        s->sdl.SDL_UpdateTexture(s->picture, &rows, p->pixels + (size_t)all.first * p->width,
                                 (int)(p->width * sizeof *p->pixels));
    }
    if (s->d->speed.changed) {
        draw_title(s);
        draw_status(s);
    }
    if (all.count || s->d->speed.changed || s->exposed)
        present(s);
}

/* ---- life ---- */

static void sdl_close(void *state)
{
    struct sdl *s = state;
    s->sdl.SDL_DestroyTexture(s->picture);
    s->sdl.SDL_DestroyTexture(s->status);
    if (s->renderer)
        s->sdl.SDL_DestroyRenderer(s->renderer);
    if (s->window)
        s->sdl.SDL_DestroyWindow(s->window);
    s->sdl.SDL_QuitSubSystem(SDL_INIT_VIDEO);
    free(s);
}

static void *sdl_open(struct display *d, const char *options, struct error *e)
{
    struct sdl *s = *options ? NULL : calloc(1, sizeof *s);
    if (!s) {
        error_set(e, "-display sdl%s: it takes no options", options);
        return NULL;
    }
    char why[256];
    s->d = d;
    s->shows_status = true;
    if (!library_load(SDL_LIBRARY, sdl_calls, ARRAY_LEN(sdl_calls), &s->sdl, why, sizeof why)) {
        error_set(e, "-display sdl: %s", why);
        free(s);
        return NULL;
    }
    s->sdl.SDL_SetHint(SDL_HINT_NO_SIGNAL_HANDLERS, "1");
    s->sdl.SDL_SetHint(SDL_HINT_VIDEO_X11_NET_WM_BYPASS_COMPOSITOR, "0");
    if (s->sdl.SDL_InitSubSystem(SDL_INIT_VIDEO)) {
        error_set(e, "-display sdl: %s", s->sdl.SDL_GetError());
        free(s);
        return NULL;
    }
    s->window = s->sdl.SDL_CreateWindow("Umbra", SDL_WINDOWPOS_UNDEFINED, SDL_WINDOWPOS_UNDEFINED, 720,
                                        400 + STATUS_HEIGHT, SDL_WINDOW_RESIZABLE);
    s->renderer = s->window ? s->sdl.SDL_CreateRenderer(s->window, -1, 0) : NULL;
    if (s->renderer && set_size(s, 720, 400))
        return s;
    error_set(e, "-display sdl: %s", s->sdl.SDL_GetError());
    sdl_close(s);
    return NULL;
}

const struct display_backend display_sdl = {"sdl", "SDL2", true, sdl_open, sdl_close, sdl_events, sdl_draw, NULL};
