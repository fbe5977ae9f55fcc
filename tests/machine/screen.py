"""The screen without a window: pictures of every kind of mode, and the same ones from every engine; text."""
import os
import subprocess

import harness
import png
from harness import CACHE, DEBUG_EXIT, TOP, Skip, check, guest, tmp, umbra, write_tmp

MODES = ("text", "13h", "x", "12h", "800x600x32")


def run_modes(name, *args):
    script = ""
    for mode in MODES:
        script += 'wait "shown %s"\nscreendump "%s"\nscreentext "%s"\n' % (mode, tmp(name + mode + ".png"), tmp(name + mode + ".txt"))
    result = umbra("-m", "32M", "-kernel", guest("vga"), "-serial", "stdio", "-no-reboot", *DEBUG_EXIT, "-input-script",
                   write_tmp(name + ".script", script), "-digest", *args)
    check(result.status == 33 and ": 8 passed, 0 failed" in result.out, result.out + result.err)
    return result.digest(), [open(tmp(name + mode + ".png"), "rb").read() for mode in MODES]


def test_each_mode_shows_what_the_guest_drew():
    run_modes("modes")
    text = png.read(tmp("modestext.png"))
    check(text[:2] == (720, 400), "text %dx%d" % text[:2])
    lines = open(tmp("modestext.txt"), encoding="utf-8").read().splitlines()
    check(any("Umbra Ç▒╔═╗" in line for line in lines), "\n".join(lines))
    check(any("ABCDEFGHIJKLMNOPQRSTUVWXYZ" in line for line in lines), "\n".join(lines))
    m13 = png.read(tmp("modes13h.png"))
    check(m13[:2] == (320, 200), "13h %dx%d" % m13[:2])

    def colour(k):
        return tuple((v << 2 | v >> 4) for v in ((k & 15) * 4, (k >> 4 & 15) * 4, ((k ^ k >> 4) & 15) * 4))
    for x, y in ((0, 0), (317, 199), (160, 50), (13, 100)):
        want = 0xff if y == 100 and x % 4 == 1 else ((x & ~3) ^ y) & 255
        check(png.pixel(m13, x, y) == colour(want), "13h %d,%d: %r" % (x, y, png.pixel(m13, x, y)))
    x = png.read(tmp("modesx.png"))
    check(x[:2] == (320, 240), "x %dx%d" % x[:2])
    for at in ((0, 0), (319, 239), (100, 37)):
        check(png.pixel(x, *at) == colour(at[0] // 20 | at[1] // 15 << 4), "x %r" % (at,))
    m12 = png.read(tmp("modes12h.png"))
    check(m12[:2] == (640, 480), "12h %dx%d" % m12[:2])
    for bar in range(16):
        check(png.pixel(m12, 639, bar * 30 + 5) == colour(bar) and png.pixel(m12, 639, bar * 30 + 27) == colour(0), "bar %d" % bar)
    linear = png.read(tmp("modes800x600x32.png"))
    check(linear[:2] == (800, 600), "linear %dx%d" % linear[:2])
    check(png.pixel(linear, 799, 0) == (255, 0, 64) and png.pixel(linear, 0, 599) == (0, 255, 64), "corners")


def test_every_engine_shows_the_same_pictures():
    first = run_modes("e0")
    for k, args in enumerate((["-mmu", "walk"], ["-mmu", "ept"], ["-accel", "jit", "-accel", "jit,heat=2"],
                              ["-host-chaos", "seed=5,rate=2000,ops=swap+ksm+cow+migrate+mprotect", "-memlimit", "24M"])):
        got = run_modes("e%d" % (k + 1), *args)
        check(got == first, "%r differs: %r, %r" % (args, got[0], first[0]))


def test_lockstep_through_all_modes():
    result = umbra("-m", "32M", "-kernel", guest("vga"), "-serial", "stdio", "-no-reboot", *DEBUG_EXIT, "-accel", "jit", "-lockstep", "100000")
    check(result.status == 33, result.out + result.err)


def test_a_screen_survives_save_and_load():
    for mode in MODES:
        snapshot, a, b = tmp("snap" + mode), tmp("a.png"), tmp("b.png")
        script = write_tmp("s.script", 'wait "shown %s"\nscreendump "%s"\nsavevm "%s"\nquit\n' % (mode, a, snapshot))
        common = ["-m", "32M", "-kernel", guest("vga"), "-serial", "stdio", "-no-reboot", *DEBUG_EXIT]
        umbra(*common, "-input-script", script)
        umbra(*common, "-loadvm", snapshot, "-icount-limit", "1", "-screendump", b)
        check(open(a, "rb").read() == open(b, "rb").read(), mode + ": the picture changed")
        whole, loaded = umbra(*common, "-digest"), umbra(*common, "-loadvm", snapshot, "-digest")
        check(whole.digest() == loaded.digest(), mode + ": the run goes on differently")


def test_a_machine_without_an_adapter():
    result = umbra("-m", "32M", "-kernel", guest("spin"), "-vga", "none", "-serial", "null", "-vtimeout", "0.5", "-screendump", tmp("none.png"),
                   "-screentext", tmp("none.txt"))
    check(result.status == 8, result.err)
    check(png.digest(png.read(tmp("none.png"))) == [" " * 36] * 25 and open(tmp("none.txt")).read() == "", "a screen without an adapter")


def fetched(name, *files):
    if os.environ.get("UMBRA_SKIP_LINUX") == "1":
        raise Skip("real systems are not booted under sanitizers")
    done = subprocess.run([os.path.join(TOP, "scripts", "fetch-guests"), name], stderr=subprocess.PIPE)
    if done.returncode == 3:
        raise Skip(done.stderr.decode().strip().splitlines()[-1])
    return [os.path.join(CACHE, f) for f in files]


def test_grub_from_a_cd_answers_what_is_typed_on_the_keyboard():
    if not os.path.exists("/usr/share/seabios/vgabios-stdvga.bin"):
        raise Skip("SeaBIOS is not installed (package seabios)")
    (cd,) = fetched("grub", "grub-cd.iso")
    text = tmp("grub.txt")
    script = write_tmp("grub.script", 'waitscreen "GNU GRUB"\nsendkey c\nwaitscreen "grub>"\ntype "ls\\n"\nwaitscreen "(cd,msdos1)"\n'
                       'screentext "%s"\nquit\n' % text)
    result = umbra("-m", "128M", "-cdrom", cd, "-accel", "jit", "-serial", "null", "-input-script", script, "-vtimeout", "20")
    check(result.status == 0 and "grub> ls" in open(text, encoding="utf-8").read(), result.err)


harness.main(globals())
