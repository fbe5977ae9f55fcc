"""Screens for people: VNC by its protocol, the SDL window under Xvfb with xdotool, text in a terminal (curses)."""
import json
import os
import pty
import re
import select
import shutil
import socket
import struct
import subprocess
import time

import harness
import png
from harness import UMBRA, Skip, check, guest, tmp

WAIT = 60
# What the X and terminal libraries keep for the life of the process is theirs.
SANITIZERS = {"ASAN_OPTIONS": "detect_leaks=0"}


class Run:
    """A machine with the keys guest and a display; its serial output in a file, QMP for pictures."""

    def __init__(self, *args, kernel="keys", ready="ready", env=None, terminal=None):
        self.ready, stamp = ready, "%d" % time.monotonic_ns()
        self.serial, self.path = tmp("serial" + stamp), tmp("qmp" + stamp)
        self.process = subprocess.Popen([UMBRA, "-m", "32M", "-kernel", guest(kernel), "-serial", "file:" + self.serial, "-qmp",
                                         "unix:%s,server,nowait" % self.path, *args], env={**os.environ, **SANITIZERS, **(env or {})},
                                        stdin=terminal if terminal is not None else subprocess.DEVNULL,
                                        stdout=terminal if terminal is not None else subprocess.PIPE, stderr=subprocess.PIPE)

    def __enter__(self):
        try:
            self.wait_serial(self.ready)
        except AssertionError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def shown(self):
        """The picture as the machine has it."""
        path = tmp("shown.png")
        self.qmp({"execute": "screendump", "arguments": {"filename": path}})
        return png.read(path)

    def text(self):
        return open(self.serial).read() if os.path.exists(self.serial) else ""

    def wait_serial(self, pattern, since=0):
        end = time.time() + WAIT
        while not re.search(pattern, self.text()[since:]):
            if self.process.poll() is not None:
                raise AssertionError("it ended: " + self.process.stderr.read().decode())
            check(time.time() < end, "no %r in %r" % (pattern, self.text()[since:]))
            time.sleep(0.05)

    def qmp(self, *commands):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(WAIT)
        s.connect(self.path)
        answers, f = [], s.makefile("rb")
        f.readline()
        for c in ({"execute": "qmp_capabilities"},) + commands:
            s.sendall(json.dumps(c).encode())
            while True:
                got = json.loads(f.readline())
                if "event" not in got:
                    break
            answers.append(got)
        s.close()
        return answers[1:]


class Vnc:
    def __init__(self, port):
        self.sock = socket.create_connection(("127.0.0.1", port), WAIT)
        check(self.read(12) == b"RFB 003.008\n", "version")
        self.sock.sendall(b"RFB 003.008\n")
        check(1 in self.read(self.read(1)[0]), "no security type None")
        self.sock.sendall(b"\x01")
        check(self.read(4) == bytes(4), "security")
        self.sock.sendall(b"\x01")
        self.width, self.height = struct.unpack(">HH", self.read(4))
        self.read(16)
        self.name = self.read(struct.unpack(">I", self.read(4))[0])
        # 32 bits, little-endian, true colour: red at bit 16.
        self.sock.sendall(struct.pack(">BxxxBBBBHHHBBBxxx", 0, 32, 24, 0, 1, 255, 255, 255, 16, 8, 0))
        self.sock.sendall(struct.pack(">BxHi", 2, 1, 0))

    def read(self, n):
        data = b""
        while len(data) < n:
            got = self.sock.recv(n - len(data))
            check(got, "VNC: closed")
            data += got
        return data

    def picture(self):
        """The whole frame buffer, as png.read() has it."""
        self.sock.sendall(struct.pack(">BBHHHH", 3, 0, 0, 0, self.width, self.height))
        rows, seen = [bytearray(3 * self.width) for _ in range(self.height)], 0
        while seen < self.width * self.height:
            check(self.read(2)[0] == 0, "not an update")
            for _ in range(struct.unpack(">H", self.read(2))[0]):
                x, y, w, h, kind = struct.unpack(">HHHHi", self.read(12))
                check(kind == 0, "not raw")
                for k in range(h):
                    line = self.read(4 * w)
                    for c in range(3):
                        rows[y + k][3 * x + c:3 * (x + w):3] = line[2 - c::4]
                seen += w * h
        return self.width, self.height, [bytes(r) for r in rows]

    def key(self, keysym, down):
        self.sock.sendall(struct.pack(">BBxxI", 4, down, keysym))

    def pointer(self, buttons, x, y):
        self.sock.sendall(struct.pack(">BBHH", 5, buttons, x, y))


def free_vnc():
    for n in range(20, 99):
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", 5900 + n))
                return n
            except OSError:
                pass
    raise Skip("no port for VNC is free")


def with_display(name, env=None):
    """Skips where the program was built without it."""
    done = subprocess.run([UMBRA, "-kernel", guest("keys"), "-display", name, "-icount-limit", "1"], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=WAIT, env={**os.environ, **SANITIZERS, **(env or {})})
    if b"built without" in done.stderr:
        raise Skip(done.stderr.decode().strip())


def test_vnc_shows_the_screen_and_takes_keys_and_mouse():
    number = free_vnc()
    with_display("vnc=:%d" % number)
    with Run("-display", "vnc=:%d" % number) as m:
        v = Vnc(5900 + number)
        check((v.width, v.height) == (720, 400) and v.name == b"Umbra", "%dx%d" % (v.width, v.height))
        path = tmp("vnc.png")
        end = time.time() + WAIT
        while True: # the cursor blinks
            m.qmp({"execute": "screendump", "arguments": {"filename": path}})
            differ = sum(a != b for a, b in zip(v.picture()[2], png.read(path)[2]))
            if not differ:
                break
            check(time.time() < end, "%d rows differ from the screendump's" % differ)
        v.key(ord("a"), 1)
        v.key(ord("a"), 0)
        m.wait_serial("key 1e\n(.*\n)*key 9e\n")
        v.key(0xff52, 1)
        v.key(0xff52, 0)
        m.wait_serial("key e0\nkey 48\n(.*\n)*key e0\nkey c8\n")
        v.pointer(0, 100, 100)
        v.pointer(0, 105, 97)
        m.wait_serial("mouse 8\nmouse 5\nmouse 3\n")
        v.pointer(1, 105, 97)
        m.wait_serial("mouse 9\nmouse 0\nmouse 0\n")


def test_vnc_survives_hostile_clients():
    number = free_vnc()
    with_display("vnc=:%d" % number)
    with Run("-vnc", ":%d" % number) as m:
        for junk in (b"", b"\xff" * 4096, b"RFB 003.008\n\x05", b"RFB 003.008\n\x01\x01" + b"\x02\x00\xff\xff" + bytes(100)):
            s = socket.create_connection(("127.0.0.1", 5900 + number), WAIT)
            s.sendall(junk)
            time.sleep(0.1)
            s.close()
        v = Vnc(5900 + number)
        v.key(ord("z"), 1)
        m.wait_serial("key 2c")


class Xvfb:
    """An X server whose picture is in a file."""

    def __enter__(self):
        if not shutil.which("Xvfb") or not shutil.which("xdotool"):
            raise Skip("Xvfb or xdotool is not installed (packages xvfb, xdotool)")
        self.folder = tmp("xvfb")
        os.makedirs(self.folder, exist_ok=True)
        read, write = os.pipe()
        self.process = subprocess.Popen(["Xvfb", "-displayfd", str(write), "-screen", "0", "1600x1200x24", "-fbdir", self.folder, "-nolisten",
                                         "tcp"], pass_fds=[write], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(write)
        number = b""
        while not number.endswith(b"\n"):
            if not select.select([read], [], [], WAIT)[0]:
                self.__exit__()
                raise Skip("Xvfb does not start")
            got = os.read(read, 16)
            if not got:
                raise Skip("Xvfb does not start")
            number += got
        os.close(read)
        self.env = {"DISPLAY": ":" + number.decode().strip(), "SDL_VIDEODRIVER": "x11"}
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def do(self, *args):
        return subprocess.run(["xdotool", *args], env={**os.environ, **self.env}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              timeout=WAIT).stdout.decode()

    def picture(self):
        data = open(os.path.join(self.folder, "Xvfb_screen0"), "rb").read()
        header = struct.unpack(">25I", data[:100])
        at, width, height, line = header[0] + 12 * header[19], header[4], header[5], header[12]
        rows = []
        for y in range(height):
            raw = data[at + y * line:at + y * line + 4 * width]
            row = bytearray(3 * width)
            for c in range(3):
                row[c::3] = raw[2 - c::4]
            rows.append(bytes(row))
        return width, height, rows

    def window(self):
        end = time.time() + WAIT
        while True:
            found = self.do("search", "--name", "^Umbra").split()
            if found:
                return found[0]
            check(time.time() < end, "no window")
            time.sleep(0.1)


    def copy(self, text):
        """Puts text into the clipboard."""
        if not shutil.which("xclip"):
            raise Skip("xclip is not installed (package xclip)")
        subprocess.run(["xclip", "-selection", "clipboard"], input=text.encode(), env={**os.environ, **self.env}, check=True, timeout=WAIT,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def geometry(self, window):
        """x, y, width, height."""
        found = dict(line.split("=") for line in self.do("getwindowgeometry", "--shell", window).split())
        return tuple(int(found[k]) for k in ("X", "Y", "WIDTH", "HEIGHT"))

    def part(self, at, size):
        return [row[3 * at[0]:3 * (at[0] + size[0])] for row in self.picture()[2][at[1]:at[1] + size[1]]]

    def until(self, what, condition):
        end = time.time() + WAIT
        while not condition():
            check(time.time() < end, what)
            time.sleep(0.2)


def doubled(rows):
    """Each pixel twice as wide and high."""
    for row in rows:
        wide = b"".join(row[k:k + 3] * 2 for k in range(0, len(row), 3))
        yield wide
        yield wide


INK, GROUND = bytes((0xd0, 0xd8, 0xe0)), bytes((0x20, 0x28, 0x30))


def is_status_line(rows):
    """Two colours and something written."""
    pixels = {row[k:k + 3] for row in rows for k in range(0, len(row), 3)}
    return pixels == {INK, GROUND}


def find(picture, part, width):
    """Where the first `width` pixels of each of part's rows are in the picture; or None."""
    part = [row[:3 * width] for row in part]
    anchor = max(range(len(part)), key=lambda k: len(set(part[k]))) # a row that is found in few places
    for y in range(picture[1] - len(part) + 1):
        x = picture[2][y + anchor].find(part[anchor])
        if x >= 0 and x % 3 == 0 and all(r[x:x + 3 * width] == p for r, p in zip(picture[2][y:], part)):
            return x // 3, y
    return None


def test_the_window_shows_text_and_takes_keys_and_mouse():
    with Xvfb() as x:
        with_display("sdl")
        with Run("-display", "sdl", env=x.env) as m:
            window = x.window()
            path, end = tmp("sdl.png"), time.time() + WAIT
            while True:
                m.qmp({"execute": "screendump", "arguments": {"filename": path}})
                shown = png.read(path)
                at = find(x.picture(), shown[2][192:208], 720) # the row of the green text
                if at:
                    break
                check(time.time() < end, "the screen is not in the window")
                time.sleep(0.2)
            while "Umbra - running" not in x.do("getwindowname", window):
                check(time.time() < end, x.do("getwindowname", window))
                time.sleep(0.1)
            x.do("windowfocus", window)
            time.sleep(0.5)
            x.do("key", "a")
            m.wait_serial("key 1e\n(.*\n)*key 9e\n")
            x.do("mousemove", "--window", window, "300", "200", "click", "1") # takes the mouse
            time.sleep(0.5)
            x.do("mousemove_relative", "--", "20", "10")
            m.wait_serial("mouse")
            since = len(m.text())
            x.do("click", "1")
            m.wait_serial("mouse 9\nmouse 0\nmouse 0\n", since)
            check("releases the mouse" in x.do("getwindowname", window), "the title does not say who has the mouse")
            x.do("key", "ctrl+alt+g")
            x.do("key", "ctrl+alt+p")
            end = time.time() + WAIT
            while "stopped" not in x.do("getwindowname", window):
                check(time.time() < end, "Ctrl-Alt-P does not stop: " + x.do("getwindowname", window))
                time.sleep(0.1)
            check(m.qmp({"execute": "query-status"})[0]["return"]["status"] == "paused", "QMP does not know")
            m.qmp({"execute": "cont"})
            x.do("windowclose", window)
        with Run("-display", "sdl", env=x.env) as m:
            window = x.window()
            x.do("windowfocus", window)
            time.sleep(0.5)
            x.do("key", "b")
            m.wait_serial("key 30\n")


def typed(codes):
    """What scan codes of set 1 ("key 1e" lines) type on a US keyboard."""
    keys = {0x1c: "\n\n", 0x39: "  ", 0x0f: "\t\t"}
    for first, plain, shifted in ((0x02, "1234567890-=", "!@#$%^&*()_+"), (0x10, "qwertyuiop[]", "QWERTYUIOP{}"), (0x1e, "asdfghjkl;'`", "ASDFGHJKL:\"~"),
                                  (0x2b, "\\zxcvbnm,./", "|ZXCVBNM<>?")):
        keys.update({first + k: pair for k, pair in enumerate(zip(plain, shifted))})
    text, shift = "", 0
    for code in codes:
        if code & 0x7f == 0x2a:
            shift = code < 0x80
        elif code < 0x80:
            text += keys.get(code, ("<%x>" % code,) * 2)[shift]
    return text


def test_the_window_types_the_clipboard():
    text = "".join("Line %d: ~!@#$%%^&*()_+ `-=[]\\{}|;':\",./<>? a\tb\n" % k for k in range(16))
    with Xvfb() as x:
        with_display("sdl")
        x.copy(text.replace("\n", "\r\n") + "\u00e4\u20acend") # what no key types is left out
        with Run("-display", "sdl", env=x.env) as m:
            x.do("windowfocus", x.window())
            time.sleep(0.5)
            since = len(m.text())
            x.do("key", "ctrl+alt+v")

            def got():
                codes = [int(c, 16) for c in re.findall(r"key ([0-9a-f]+)", m.text()[since:])]
                # The keys of the shortcut itself come first: Ctrl and Alt down and up.
                return typed(c for c in codes if c & 0x7f not in (0x1d, 0x38) and c != 0xe0)
            end = time.time() + 3 * WAIT
            while not got().endswith("end"):
                check(time.time() < end, "the clipboard is not typed: %r" % got())
                time.sleep(5)
                if not got(): # the clipboard's owner did not answer in time
                    x.do("key", "ctrl+alt+v")
            check(len(text) > 700 and got() == text + "end", "%r" % got())


def test_the_window_scales_with_its_size_and_hides_its_status_line():
    with Xvfb() as x:
        with_display("sdl")
        with Run("-display", "sdl", "-append", "hold-12h", kernel="vga", ready="shown 12h", env=x.env) as m:
            window, shown = x.window(), m.shown()
            check(shown[:2] == (640, 480), "not mode 12h")
            x.until("mode 12h is not in the window", lambda: find(x.picture(), shown[2], 640))
            x.until("the window does not fit the mode: %r" % (x.geometry(window),), lambda: x.geometry(window)[2:] == (640, 480 + 18))
            at = find(x.picture(), shown[2], 640)
            x.until("no status line", lambda: is_status_line(x.part((at[0], at[1] + 480), (640, 18))))
            x.do("windowfocus", window)
            x.do("windowmove", window, "0", "0")
            x.do("windowsize", window, "1280", str(2 * (480 + 18)))
            twice = list(doubled(shown[2]))
            x.until("the picture does not grow with the window", lambda: find(x.picture(), twice, 1280))
            x.do("windowsize", window, "1400", str(2 * (480 + 18)))
            # The shape stays: what is left over is black.
            x.until("the shape is not kept", lambda: find(x.picture(), twice, 1280) == (60, 0) and
                    x.part((0, 0), (60, 900)) == x.part((1340, 0), (60, 900)) == [bytes(180)] * 900)
            x.do("windowsize", window, "640", str(480 + 18))
            x.until("it does not shrink", lambda: find(x.picture(), shown[2], 640))
            x.do("key", "ctrl+alt+s")
            x.do("windowsize", window, "640", "480")
            x.until("the status line is not hidden", lambda: find(x.picture(), shown[2], 640) == x.geometry(window)[:2])


def test_full_screen_is_entered_and_left():
    if not shutil.which("evilwm"):
        raise Skip("no window manager to ask for the full screen (package evilwm)")
    with Xvfb() as x:
        with_display("sdl")
        manager = subprocess.Popen(["evilwm", "-bw", "0", "-fn", "fixed", "-mask1", "mod5+mod3", "-mask2", "mod5+mod3"], env={**os.environ, **x.env},
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            with Run("-display", "sdl", "-append", "hold-12h", kernel="vga", ready="shown 12h", env=x.env) as m:
                window, shown = x.window(), m.shown()
                x.until("the window does not fit the mode", lambda: x.geometry(window)[2:] == (640, 480 + 18))
                x.do("windowfocus", window)
                time.sleep(0.5)
                x.do("key", "ctrl+alt+f")
                x.until("not the whole screen", lambda: x.geometry(window) == (0, 0, 1600, 1200))
                # 1200 lines for 498: the picture is 1542 wide, with 29 black columns on either side.
                x.until("the full screen is not filled", lambda: x.part((0, 0), (28, 1200)) == [bytes(84)] * 1200 and
                        any(x.part((800, 600), (10, 1))[0]) and is_status_line(x.part((40, 1170), (1500, 20))))
                x.do("key", "ctrl+alt+f")
                x.until("full screen does not end", lambda: x.geometry(window)[2:] == (640, 480 + 18))
                x.until("the picture is lost", lambda: find(x.picture(), shown[2], 640))
        finally:
            manager.terminate()
            manager.wait()


def test_a_small_mode_is_shown_twice_as_large_with_the_whole_status_line():
    with Xvfb() as x:
        with_display("sdl")
        with Run("-display", "sdl", "-append", "hold-13h", kernel="vga", ready="shown 13h", env=x.env) as m:
            window, shown = x.window(), m.shown()
            check(shown[:2] == (320, 200), "not mode 13h")
            twice = list(doubled(shown[2]))
            x.until("mode 13h is not in the window", lambda: find(x.picture(), twice, 640))
            check(x.geometry(window)[2:] == (640, 418), "%r" % (x.geometry(window),))
            at = find(x.picture(), twice, 640)
            x.until("no status line", lambda: is_status_line(x.part((at[0], at[1] + 400), (640, 18))))
            # More than 40 characters of 8 pixels are written.
            x.until("the status line is cut off", lambda: is_status_line(x.part((at[0] + 320, at[1] + 400), (320, 18))))


def test_the_terminal_shows_text_and_takes_keys():
    master, slave = pty.openpty()
    try:
        with_display("curses")
        with Run("-display", "curses", env={"TERM": "xterm", "LC_ALL": "C.UTF-8"}, terminal=slave) as m:
            seen, end = b"", time.time() + WAIT
            while b"move the mouse" not in seen:
                check(time.time() < end, "the text is not shown: %r" % seen[-500:])
                if select.select([master], [], [], 1)[0]:
                    seen += os.read(master, 65536)
            os.write(master, b"A\x1bOA")
            m.wait_serial("key 2a\nkey 1e\nkey 9e\nkey aa\n")
            m.wait_serial("key e0\nkey 48\n")
            os.write(master, b"\x1d")
            end = time.time() + WAIT
            while m.process.poll() is None:
                check(time.time() < end, "Ctrl-] does not leave")
                if select.select([master], [], [], 0.2)[0]:
                    os.read(master, 65536)
            check(m.process.returncode == 0, "status %d" % m.process.returncode)
    finally:
        os.close(master)
        os.close(slave)


def test_displays_that_cannot_be_are_refused():
    for args in (["-display", "frob"], ["-display", "vnc=here"], ["-display", "vnc=:100"], ["-display", "curses", "-serial", "stdio"],
                 ["-display", "sdl,gl=on"], ["-display", "sdl", "-vga", "none"], ["-display", "curses"]):
        done = subprocess.run([UMBRA, "-kernel", guest("keys"), *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=WAIT, env={**os.environ, **SANITIZERS})
        check(done.returncode == 2 and b"display" in done.stderr, "%r: %r" % (args, done))


harness.main(globals())
