#!/usr/bin/env python3
"""Boot tests by manifest: run.py [NAME]...; without names all of them, and a snapshot in the middle of a boot.

A manifest NAME.json has
  says     the sentence that it proves
  media    {NAME: function of media.py, or "qcow2-of NAME"}; {NAME} stands for its path in what follows
  options  of umbra
  type     pairs: text to wait for on the serial console, what is typed then ("" for nothing)
  until    the text at which the run is over
  expect   texts that the console must have shown by then, in any order
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
from harness import Skip, check  # noqa: E402


def digest(path):
    return hashlib.sha256(media.read(path)).hexdigest()


def fill(text, paths):
    for name, path in paths.items():
        text = text.replace("{" + name + "}", path)
    return text


def quoted(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\r") + '"'


def script(m):
    lines = []
    for wait, send in m["type"]:
        lines.append("wait " + quoted(wait))
        if send:
            lines.append("send " + quoted(send))
    lines += ["wait " + quoted(m["until"]), "quit"]
    return harness.write_tmp("script", "\n".join(lines) + "\n")


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


def run(name, m):
    paths = prepare(m)
    before = {p: digest(paths[p]) for p in m.get("unchanged", []) + m.get("changed", [])}
    for attempt in m.get("runs", [{}]):
        one = {**m, **attempt}
        server = serve(one, paths)
        try:
            r = harness.umbra(*(fill(o, paths) for o in one["options"]), "-nographic", "-accel", "jit", "-no-reboot", "-timeout", os.environ.get("UMBRA_BOOT_TIMEOUT", "600"),
                              "-input-script", script(one), timeout=700)
        finally:
            if server:
                server.terminate()
                server.wait()
        check(r.status == 0, f"status {r.status}: {r.err[-300:]}\n{r.out[-2000:]}")
        for text in one.get("expect", []) + [one["until"]]:
            check(text in r.out, f"'{text}' was not shown:\n{r.out[-2000:]}")
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
