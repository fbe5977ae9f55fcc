"""The JIT is the interpreter to the instruction: the same digest, position and output, whatever runs."""
import os
import subprocess
import time

import harness
from harness import LONG, UMBRA, check, guest, linux, run_guest, umbra, write_tmp

MODES = ("shadow", "walk", "ept")
SCRIPT = '''wait "umbra# "
send "ls -lR /sys | wc -l; seq 1 2000 | sort -n | md5sum; echo $((12345 * 6789))\\n"
wait "umbra# "
send "poweroff -f\\n"
'''


def both(run):
    """What run(*args) ends with under each engine."""
    results = [run("-digest", "-accel", engine) for engine in ("interp", "jit")]
    a, b = [(r.digest(), r.status, r.out) for r in results]
    check(a == b, f"interpreter {a[:2]}, JIT {b[:2]}\n{b[2][-800:]}")
    return results


def compiled(result):
    return next(int(line.split()[1]) for line in result.err.splitlines() if line.startswith("jit.blocks"))


def test_test_os_ends_the_same_in_every_mode():
    for mode in MODES:
        results = both(lambda *a: run_guest("testos", "-append", "coherent", "-mmu", mode, "-stats", *a))
        check(compiled(results[1]) > 100, "hardly anything was compiled")


def test_small_guests_end_the_same():
    for name in ("smc", "timer", "fwcfgdma"):
        both(lambda *a: run_guest(name, *a))


def test_host_events_cannot_be_seen():
    plain = run_guest("testos", "-append", "coherent", "-digest", "-accel", "jit")
    chaos = run_guest("testos", "-append", "coherent", "-digest", "-accel", "jit", "-host-chaos", "seed=3,rate=20000,ops=all")
    check(plain.digest() == chaos.digest(), "host events changed the run")


def test_position_does_not_depend_on_how_the_run_is_cut():
    base = run_guest("testos", "-append", "coherent", "-digest", "-accel", "jit")
    cut = run_guest("testos", "-append", "coherent", "-digest", "-accel", "jit", "-audit", "9973")
    check(base.digest() == cut.digest(), "chunks can be seen")


def test_linux_boots_the_same():
    script = write_tmp("jit.script", SCRIPT)
    for mode in MODES if LONG else MODES[:1]:
        results = both(lambda *a: umbra(*linux("cloud"), "-input-script", script, "-stats", "-mmu", mode, *a, timeout=1800))
        check(results[1].status == 0, results[1].out[-1000:])


def test_no_page_is_writable_and_executable():
    process = subprocess.Popen([UMBRA, "-m", "32M", "-kernel", guest("spin"), "-nographic", "-accel", "jit", "-timeout", "20"],
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(1)
        with open(f"/proc/{process.pid}/maps") as f:
            maps = f.read()
    finally:
        process.kill()
        process.wait()
    check("umbra-jit" in maps, "no memory for code")
    both_ways = [line for line in maps.splitlines() if "w" in line.split()[1] and "x" in line.split()[1]]
    check(not both_ways, "\n".join(both_ways))


if __name__ == "__main__":
    if os.environ.get("UMBRA_SKIP_LINUX"):
        del test_linux_boots_the_same
    harness.main(globals())
