"""A second address space mirrors a running machine's memory: it never shows another page than the machine has."""
import re

import harness
from harness import LONG, check, linux, run_guest, umbra, write_tmp

MODES = ("shadow", "walk", "ept")


def count(result, name):
    found = re.search(rf"^{re.escape(name)}\s+(\d+)", result.err, re.M)
    check(found, f"no counter {name}: {result.err[-1500:]}")
    return int(found.group(1))


def testos(*args):
    result = run_guest("testos", "-append", "coherent", "-digest", "-stats", *args)
    check(result.status == 33, f"{args}: status {result.status}\n{result.err[-2000:]}")
    return result


def test_mirror_of_the_test_os_is_true_whatever_the_host_does():
    base = testos()
    for mode in MODES:
        for args in (["-host-chaos", "seed=5,rate=10000"], ["-memlimit", "512K"], ["-ksm", "on", "-host-chaos", "seed=6,rate=2000"]):
            result = testos("-mmu", mode, "-audit-mirror", "20000", *args)
            check("audit:" not in result.err, result.err[-2000:])
            check((result.digest(), result.out) == (base.digest(), base.out), f"{mode} {args}: looking was noticed")
            looks, faults = count(result, "mirror.looks"), count(result, "mirror.faults")
            check(looks > 30000 and faults < looks // 2, f"{mode} {args}: {looks} looks, {faults} at nothing")
            check(count(result, "mirror.invalidations") > 500, "the host's changes did not come down")


def test_mirror_of_linux_is_true_under_host_events():
    commands = write_tmp("mirror.script", """wait "umbra# "
send "mkdir -p /d/a /d/b; seq 1 500 | sort -n | gzip > /d/a/x; cat /d/a/x | gunzip | md5sum; ls -lR /d | wc -l\\n"
wait "umbra# "
send "poweroff -f\\n"
""")
    options = [*linux(), "-input-script", commands, "-digest", "-stats"]
    base = umbra(*options, timeout=1800)
    for mode in MODES if LONG else ("shadow", "ept"):
        result = umbra(*options, "-mmu", mode, "-audit-mirror", "10000000", "-host-chaos", "seed=2,rate=1000", timeout=1800)
        check(result.status == 0, f"{mode}: status {result.status}\n{result.err[-2000:]}")
        check("audit:" not in result.err, result.err[-2000:])
        check((result.digest(), result.out) == (base.digest(), base.out), f"{mode}: looking was noticed")
        check(count(result, "mirror.looks") > 1000 and count(result, "mirror.invalidations") > 100, "hardly anything was looked at")


harness.main(globals())
