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

    def __init__(self, *args, kernel="keys", env=None, terminal=None):
        stamp = "%d" % time.monotonic_ns()
        self.serial, self.path = tmp("serial" + stamp), tmp("qmp" + stamp)
        self.process = subprocess.Popen([UMBRA, "-m", "32M", "-kernel", guest(kernel), "-serial", "file:" + self.serial, "-qmp",
                                         "unix:%s,server,nowait" % self.path, *args], env={**os.environ, **SANITIZERS, **(env or {})},
                                        stdin=terminal if terminal is not None else subprocess.DEVNULL,
                                        stdout=terminal if terminal is not None else subprocess.PIPE, stderr=subprocess.PIPE)

    def __enter__(self):
        try:
            self.wait_serial("ready")
        except AssertionError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

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
        self.process = subprocess.Popen(["Xvfb", "-displayfd", str(write), "-screen", "0", "1024x768x24", "-fbdir", self.folder, "-nolisten",
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


def find(picture, part, width):
    """Where the first `width` pixels of each of part's rows are in the picture; or None."""
    first = part[0][:3 * width]
    for y, row in enumerate(picture[2]):
        x = row.find(first)
        if x >= 0 and x % 3 == 0 and all(r[x:x + 3 * width] == p[:3 * width] for r, p in zip(picture[2][y:], part)):
            return x // 3, y
    return None


def test_the_window_shows_text_and_takes_keys_mouse_and_paste():
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
            x.do("windowsize", window, "900", "700")
            time.sleep(0.5)
            shutil.copy(os.path.join(x.folder, "Xvfb_screen0"), tmp("window.xwd"))
            x.do("windowclose", window)
        with Run("-display", "sdl", env=x.env) as m:
            window = x.window()
            x.do("windowfocus", window)
            time.sleep(0.5)
            x.do("key", "b")
            m.wait_serial("key 30\n")


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
