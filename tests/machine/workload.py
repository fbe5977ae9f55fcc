"""The workload that Linux does in tests of the host side, and the initial RAM disk that has what it needs."""
import functools
import os
import re

import harness
from harness import check, linux, tmp, write_tmp

COMMANDS = (
    ("for i in $(seq 1 30); do mkdir -p /d/$i/a/b; echo $i > /d/$i/a/b/f; done; find /d | sort | md5sum", "  -"),
    ("seq 1 4000 | sort -rn | gzip | gunzip | head -n 1", "\n4000\n"),
    ("i=0; while [ $i -lt 60 ]; do /bin/true; i=$((i+1)); done; echo forked $i", "forked 60"),
    ("churn 60", "churn ok ca333ada53de01d0"),
    ("dd if=/dev/urandom of=/big bs=1M count=16; wc -c /big", "16777216 /big"),
    ("cp /big /copy; cmp /big /copy && echo equal", "\nequal"),
    ("rm -r /big /copy /d; ls /big /copy /d 2>&1 | grep -c such", "\n3\n"),
)


def newc(name, content, mode=0o100755):
    """A file of a cpio archive in the format of initial RAM disks."""
    def padded(b):
        return b + b"\0" * (-len(b) % 4)
    fields = (1, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08x" % f for f in fields)
    return padded(head + name.encode() + b"\0") + padded(content)


@functools.lru_cache(None)
def initrd(base):
    """Linux unpacks archives that follow each other."""
    with open(base, "rb") as f, open(os.path.join(harness.GUESTS, "churn"), "rb") as churn:
        first = f.read()
        more = newc("bin/churn", churn.read()) + newc("TRAILER!!!", b"", 0)
    return write_tmp("workload.img", first + b"\0" * (-len(first) % 4) + more)


def options():
    """No times in the kernel's log: modes that are not coherent may differ in them."""
    args = linux()
    args[args.index("-initrd") + 1] = initrd(args[args.index("-initrd") + 1])
    args[args.index("-append") + 1] += " printk.time=0"
    return args


def script():
    lines = ['wait "umbra# "']
    for command, _ in COMMANDS:
        lines += ['send "%s\\n"' % command, 'wait "umbra# "']
    return write_tmp("workload.script", "\n".join(lines + ['send "poweroff -f\\n"']) + "\n")


def run(*args):
    """Boots, works, and returns the result and the most that the emulator ever had resident, in bytes."""
    result, peak = harness.umbra_peak(*options(), "-input-script", script(), "-digest", "-stats", *args, timeout=1800)
    check(result.status == 0, f"{args}: status {result.status}\n{result.out[-2000:]}\n{result.err[-2000:]}")
    return result, peak


def check_output(result):
    out = result.out.replace("\x1b[6n", "").replace("\r", "")
    for command, answer in COMMANDS:
        after = out.split("umbra# " + command, 1)
        check(len(after) == 2 and answer in after[1], f"no answer to '{command}':\n{out[-2000:]}")


@functools.lru_cache(None)
def base():
    """The run that others are compared with: shadow paging, nothing special."""
    result, peak = run()
    check_output(result)
    return result, peak


def same(*args):
    """Runs with `args` and compares with the base."""
    result, peak = run(*args)
    expected = base()[0]
    check(result.digest() == expected.digest(), f"{args}: {result.digest()} is not {expected.digest()}")
    check(result.out == expected.out, f"{args}: serial output differs")
    return result, peak


def count(result, name):
    found = re.search(rf"^{re.escape(name)}\s+(\d+)", result.err, re.M)
    check(found, f"no counter {name}: {result.err[-1500:]}")
    return int(found.group(1))
