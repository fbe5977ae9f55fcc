#!/usr/bin/env python3
"""Boot tests by manifest: run.py [NAME]...; without names all of them, and a snapshot in the middle of a boot.

A manifest NAME.json has
  says     the sentence that it proves
  media    {NAME: function of media.py, or "qcow2-of NAME"}; {NAME} stands for its path in what follows
  options  of umbra
  type     pairs: text to wait for on the serial console, what is typed then ("" for nothing)
  until    the text at which the run is over
  expect   texts that the console must have shown by then, in any order
  screen   true: there is no serial console; texts are on the screen, `expect` at the end, and typing is on the keyboard
           ("<KEY>" presses one)
  delay    milliseconds of virtual time to go on behind `until`, or in its place
  picture  {like: NAME of a digest in pictures.txt, distance: cells that may differ} of the screen at the end;
           shades: true if it is one of shades
  http     {PATH: text, or a number of bytes}: served on the loopback interface at {port}; each must have been fetched
  unchanged  media whose content must be the same afterwards; changed: those that must differ
  server   words of a command that serves while the machine runs; {socket} is the path of its socket
  runs     a list of what differs in several runs, one after the other, over the same media
  long     true: only in the long form
"""
import hashlib
import json
import os
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import media  # noqa: E402
import harness  # noqa: E402
import png  # noqa: E402
from harness import Skip, check  # noqa: E402


def digest(path):
    return hashlib.sha256(media.read(path)).hexdigest()


def fill(text, paths):
    for name, path in paths.items():
        text = text.replace("{" + name + "}", path)
    return text


def quoted(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\r") + '"'


def typed(m, text):
    if not m.get("screen"):
        return "send " + quoted(text)
    if text.startswith("<") and text.endswith(">"):
        return "sendkey " + text[1:-1]
    return "type " + quoted(text)


def script(m, paths):
    wait = "waitscreen " if m.get("screen") else "wait "
    lines = []
    for text, send in m.get("type", []):
        lines.append(wait + quoted(text))
        if send:
            lines.append(typed(m, fill(send, paths)))
    if "until" in m:
        lines.append(wait + quoted(m["until"]))
    if "delay" in m:
        lines.append(f"delay {m['delay']}")
    if "picture" in m:
        lines.append(f'screendump "{picture_path(m)}"')
    return harness.write_tmp("script", "\n".join([*lines, "quit"]) + "\n")


# ---- pictures ----

def picture_path(m):
    """They are kept, for a person to look at."""
    folder = os.environ.get("PICTURES") or harness.TMP
    os.makedirs(folder, exist_ok=True)
    return os.path.join(folder, m["picture"]["like"] + ".png")


def reference(name):
    """What pictures.txt has between the line of that name and the next one."""
    lines = media.read(os.path.join(HERE, "pictures.txt")).decode().split("\n")
    at = lines.index(name)
    return png.reference("\n".join(lines[at + 1:at + 26]))


def compare_picture(m):
    digest_of, distance = (png.shades, png.shade_distance) if m["picture"].get("shades") else (png.digest, png.distance)
    got = digest_of(png.read(picture_path(m)))
    differ = distance(got, reference(m["picture"]["like"]))
    check(differ <= m["picture"]["distance"], f"{differ} cells differ from {m['picture']['like']}:\n" + "\n".join(f"|{line}|" for line in got))


# ---- running ----

def prepare(m):
    paths = {}
    for name, how in m.get("media", {}).items():
        if how.startswith("qcow2-of "):
            paths[name] = harness.tmp(name + ".qcow2")
            media.run(media.tool("qemu-img"), "convert", "-q", "-O", "qcow2", paths[how[9:]], paths[name])
        else:
            paths[name] = getattr(media, how.replace("-", "_"))()
    return paths


def serve(m, paths):
    server = m.get("server")
    if not server:
        return None
    paths["socket"] = harness.tmp("server.socket")
    media.tool(server[0])
    process = subprocess.Popen([fill(word, paths) for word in server], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    for _ in range(600):
        if os.path.exists(paths["socket"]):
            return process
        if process.poll() is not None:
            raise AssertionError(f"{server[0]}: " + process.stderr.read().decode())
        time.sleep(0.1)
    raise AssertionError(f"{server[0]} does not serve")


class Web:
    """A server on the loopback interface."""

    def __init__(self, pages):
        self.fetched = set()
        outer = self

        class Handler(harness.QuietHandler):
            def do_GET(self):
                page = pages.get(self.path)
                if page is None:
                    self.send_error(404)
                    return
                body = bytes(k * k >> 8 & 255 for k in range(page)) if isinstance(page, int) else page.encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                outer.fetched.add(self.path)

        self.port = harness.serve_http(Handler)


def shown(m, r):
    path = harness.tmp("screen.txt")
    return media.read(path).decode() if m.get("screen") and os.path.exists(path) else r.out


def start(m, paths):
    serial = ["-display", "none", "-serial", "null", "-screentext", harness.tmp("screen.txt")] if m.get("screen") else ["-nographic"]
    return harness.umbra(*(fill(o, paths) for o in m["options"]), *serial, "-accel", "jit", "-no-reboot", "-timeout",
                         os.environ.get("UMBRA_BOOT_TIMEOUT", "600"), "-input-script", script(m, paths), timeout=700)


def run_one(m, paths):
    web = Web(m["http"]) if "http" in m else None
    if web:
        paths["port"] = str(web.port)
    server = serve(m, paths)
    try:
        r = start(m, paths)
    finally:
        if server:
            server.terminate()
            server.wait()
    if r.status != 0 and "libslirp" in r.err and "this build" in r.err:
        raise Skip("this build has no libslirp")
    text = shown(m, r)
    check(r.status == 0, f"status {r.status}: {r.err[-1500:]}\n{text[-2000:]}")
    for wanted in m.get("expect", []) + ([m["until"]] if "until" in m else []):
        check(wanted in text, f"'{wanted}' was not shown:\n{text[-2000:]}")
    if "picture" in m:
        compare_picture(m)
    if web:
        check(web.fetched == set(m["http"]), f"fetched: {web.fetched}")


def run(name, m):
    paths = prepare(m)
    before = {p: digest(paths[p]) for p in m.get("unchanged", []) + m.get("changed", [])}
    for attempt in m.get("runs", [{}]):
        run_one({**m, **attempt}, paths)
    for p in m.get("unchanged", []):
        check(digest(paths[p]) == before[p], f"{p} has changed")
    for p in m.get("changed", []):
        check(digest(paths[p]) != before[p], f"{p} has not changed")


def make(name, m):
    def test():
        if m.get("long") and not harness.LONG:
            raise Skip("long form only")
        if os.environ.get("UMBRA_SKIP_LINUX") == "1":
            raise Skip("boots are not run under sanitizers")
        run(name, m)
    return test


def snapshot_test():
    """A CD boot that is saved in its middle and loaded elsewhere goes on to the same end."""
    state = harness.tmp("state")
    options = ["-m", "64M", "-cdrom", media.grub_cd(), "-hda", media.ext4_disk(), "-snapshot", "-nographic", "-no-reboot",
               "-icount-limit", "150000000", "-digest"]
    script_path = harness.write_tmp("script", f'wait "Booting from DVD"\nsavevm "{state}"\n')
    straight = harness.umbra(*options, "-accel", "jit", "-input-script", script_path)
    loaded = harness.umbra(*options, "-accel", "interp", "-loadvm", state)
    check(straight.status == 8 and loaded.status == 8, f"{straight.status}, {loaded.status}: {loaded.err[-300:]}")
    check(straight.digest() == loaded.digest(), f"{straight.digest()} and {loaded.digest()}")


def main():
    tests = {"test_snapshot": snapshot_test}
    for entry in sorted(os.listdir(HERE)):
        if entry.endswith(".json"):
            m = json.loads(media.read(os.path.join(HERE, entry)))
            tests["test_" + entry[:-5].replace("-", "_")] = make(entry[:-5], m)
    harness.main(tests)


if __name__ == "__main__":
    main()
