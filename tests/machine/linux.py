"""Debian's kernels boot to a busybox shell, repeatably, in every mode."""
import os
import re
import shutil
import subprocess

import harness
from harness import LONG, check, linux, tmp, umbra, write_tmp

COMMANDS = (
    ("uname -a", "Linux (none)"),
    ("grep -c . /proc/cpuinfo", "\n2"),
    ("echo files $(ls -lR /sys | wc -l)", "files "),
    ("for i in 1 2 3; do echo round $i; done", "round 3"),
    ("echo sum $(seq 1 100 | sort -n | md5sum)", "sum "),
)
BAD = re.compile(r"warning|oops|unexpected|soft lockup|clocksource: timekeeping watchdog|unstable|BUG:|call trace|not syncing|"
                 r"APIC calibration|FW_BUG|\[Firmware Bug\]|failed to|segfault|general protection", re.I)
# Lines of a healthy boot that contain such a word, as they are on real hardware too.
HARMLESS = ()


def script(save=None):
    lines = ['wait "umbra# "']
    for k, (command, answer) in enumerate(COMMANDS):
        lines.append('send "%s\\n"' % command.replace("\\", "\\\\").replace('"', '\\"'))
        lines.append('wait "umbra# "')
        if save and k == 1:
            lines.append(f'savevm "{save}"')
    lines.append('send "poweroff -f\\n"')
    return write_tmp("linux-save.script" if save else "linux.script", "\n".join(lines) + "\n")


def boot(*args, kernel="cloud", save=None):
    result = umbra(*linux(kernel), "-input-script", script(save), "-digest", *args, timeout=1800)
    check(result.status == 0, f"status {result.status}\n{result.out[-3000:]}\n{result.err[-2000:]}")
    return result


def check_log(result):
    out = result.out.replace("\x1b[6n", "")  # the shell asks the terminal where its cursor is
    for command, answer in COMMANDS:
        after = out.split("umbra# " + command, 1)
        check(len(after) == 2 and answer in after[1].replace("\r", ""), f"no answer to '{command}':\n{result.out[-2000:]}")
    bad = [line for line in result.out.splitlines() if BAD.search(line) and not any(h in line for h in HARMLESS)]
    check(not bad, "complaints in the kernel log:\n" + "\n".join(bad))
    check("reboot: Power down" in result.out, "no orderly power-off")


def test_cloud_kernel_boots_the_same_in_every_mode():
    base = boot("-audit", "100000" if LONG else "10000000", "-stats")
    check_log(base)
    check(int(re.search(r"^audits\s+(\d+)", base.err, re.M).group(1)) > 10, "no audits ran")
    for mode in ("walk", "ept"):
        other = boot("-mmu", mode)
        check(other.digest() == base.digest(), f"{mode} {other.digest()} shadow {base.digest()}")
        check(other.out == base.out, "serial output differs")
    again = boot()
    check((again.digest(), again.out) == (base.digest(), base.out), "a second run is another run")


def test_saved_and_loaded_boot_ends_the_same():
    snap = tmp("linux.snap")
    whole = boot(save=snap)
    loaded = umbra(*linux(), "-input-script", script(snap), "-digest", "-loadvm", snap, timeout=1800)
    check(loaded.status == 0, f"status {loaded.status}\n{loaded.err}")
    check(loaded.digest() == whole.digest(), f"loaded {loaded.digest()} whole {whole.digest()}")
    check(whole.out.endswith(loaded.out), "serial output differs")


def test_reboot_resets_the_machine():
    commands = write_tmp("reboot.script", 'wait "umbra# "\nsend "reboot -f\\n"\nwait "umbra# "\nsend "poweroff -f\\n"\n')
    options = [o for o in linux() if o != "-no-reboot"]
    result = umbra(*options, "-input-script", commands)
    check(result.status == 0, f"status {result.status}\n{result.out[-1000:]}\n{result.err}")
    check(result.out.count("Linux version") == 2, "it did not boot twice")
    check(umbra(*options, "-no-reboot", "-input-script", commands).out.count("Linux version") == 1, "-no-reboot was not heeded")


def test_kernel_that_changed_is_an_error_at_the_reset():
    args = linux()
    at = args.index("-kernel") + 1
    kernel = tmp("kernel")
    shutil.copyfile(args[at], kernel)
    args[at] = kernel
    args.remove("-no-reboot")
    process = subprocess.Popen([harness.UMBRA, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    seen = b""
    while b"umbra# " not in seen:
        more = os.read(process.stdout.fileno(), 65536)
        check(more, "no prompt")
        seen += more
    with open(kernel, "ab") as f:
        f.write(b"more")
    _, err = process.communicate(b"reboot -f\n", timeout=900)
    check(process.returncode == 2 and b"has changed since it was read" in err, f"{process.returncode}: {err.decode()}")


def test_generic_kernel_boots():
    if not LONG:
        raise harness.Skip("long form only")
    check_log(boot(kernel="amd64"))


harness.main(globals())
