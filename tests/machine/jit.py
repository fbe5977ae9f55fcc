"""The JIT is the interpreter to the instruction: the same digest, position and output, whatever runs."""
import os
import re
import subprocess
import time

import harness
from harness import LONG, UMBRA, check, guest, linux, run_guest, tmp, umbra, write_tmp

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


def counter(result, name):
    return next(int(line.split()[1]) for line in result.err.splitlines() if line.split()[:1] == [name])


def compiled(result):
    return counter(result, "jit.blocks")


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


def test_32_bit_systems_run_the_same():
    if not LONG:
        raise harness.Skip("the long form runs 32-bit systems under both engines")
    script = write_tmp("jit.script", SCRIPT)
    initrd = harness.fetched("initrd-i386", "initrd-i386.img")
    for kernel in ("686", "686-pae"):
        args = linux(kernel)
        args[args.index("-initrd") + 1] = initrd
        both(lambda *a: umbra(*args, "-input-script", script, *a, timeout=1800))
    mach, memtest = harness.fetched("gnumach", "gnumach"), harness.fetched("memtest", "memtest-32.bin")
    both(lambda *a: umbra("-m", "128M", "-kernel", mach, "-append", "console=com0", "-nographic", "-no-reboot", "-vtimeout", "8", *a))
    both(lambda *a: umbra("-m", "64M", "-kernel", memtest, "-append", "console=ttyS0", "-nographic", "-vtimeout", "6", *a))
    for bits in (32, 64):
        rom = harness.fetched("u-boot", f"u-boot-{bits}.rom")
        both(lambda *a: umbra("-m", "128M", "-bios", rom, "-nographic", "-no-reboot", "-vtimeout", "2", *a))


def test_engines_load_each_other_s_snapshots():
    snap = tmp("engine.snap")
    script = write_tmp("engine.script", f'wait "ok 700"\nsavevm "{snap}"\n')
    whole = run_guest("testos", "-append", "coherent", "-digest", "-accel", "interp")
    for saver, loader in (("interp", "jit,heat=1"), ("jit,heat=1", "interp"), ("jit", "jit,heat=3")):
        saved = run_guest("testos", "-append", "coherent", "-digest", "-accel", saver, "-input-script", script)
        loaded = run_guest("testos", "-append", "coherent", "-digest", "-accel", loader, "-loadvm", snap)
        check(saved.digest() == whole.digest() == loaded.digest(), f"{saver} to {loader}: {saved.digest()}, {loaded.digest()}")
        check(whole.out.endswith(loaded.out), f"{saver} to {loader}: output differs")


def test_a_full_cache_is_emptied_and_filled_again():
    base = run_guest("testos", "-append", "coherent", "-digest", "-accel", "interp")
    small = run_guest("testos", "-append", "coherent", "-digest", "-stats", "-accel", "jit,heat=1,cache=256K")
    check(small.digest() == base.digest() and small.out == base.out, "a small cache can be seen")
    check(counter(small, "jit.resets") > 2, "the cache was never full")
    # What is still hot afterwards is compiled again: more often than it was decoded.
    small = run_guest("lines", "-append", "coherent", "-stats", "-icount-limit", "3000000", "-accel", "jit,heat=1,cache=256K")
    check(counter(small, "jit.slow") == sum(counter(small, "jit.slow_" + cause) for cause in ("tlb", "handler", "jump")),
          "an instruction by its handler without a cause")


def test_heat_decides_when_a_block_is_compiled():
    blocks = [compiled(run_guest("testos", "-append", "coherent", "-stats", "-accel", f"jit,heat={n}")) for n in (1, 40, 5000)]
    check(blocks[0] > 3 * blocks[1] and blocks[1] > 2 * blocks[2], f"blocks compiled: {blocks}")


def test_listing_shows_guest_and_host_code_and_the_same_run_the_same_listing():
    lists = []
    for k in range(2):
        path = tmp(f"jit{k}.list")
        run_guest("smc", "-accel", "jit", "-d", "jit", "-D", path)
        with open(path) as f:
            lists.append(f.read())
    check(lists[0] == lists[1], "host addresses are in the listing")
    check(re.search(r"^jit: region at gpa 0x\w+, mode 0x\w+: \d+ blocks, \d+ instructions, \d+ bytes", lists[0], re.M), lists[0][:500])
    check(re.search(r"^jit:   0x\w+: push rbp +\d+ host instructions, \d+ bytes\n(jit:       \+0x\w+  .*\n)+", lists[0], re.M),
          lists[0][:2000])


def test_perf_map_names_guest_code():
    process = subprocess.Popen([UMBRA, "-m", "32M", "-kernel", guest("smc"), "-nographic", "-accel", "jit", "-perfmap",
                                "-no-reboot", *harness.DEBUG_EXIT, "-symbols", os.path.join(harness.GUESTS, "smc.elf64")],
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    path = f"/tmp/perf-{process.pid}.map"
    try:
        process.wait(timeout=300)
        with open(path) as f:
            lines = f.read().splitlines()
    finally:
        if os.path.exists(path):
            os.unlink(path)
    check(len(lines) > 10 and lines[0].endswith("jit:thunks"), f"{len(lines)} lines")
    bad = [line for line in lines[1:] if not re.fullmatch(r"[0-9a-f]+ [0-9a-f]+ guest:(\w[\w.]*(\+0x[0-9a-f]+)?:)?0x[0-9a-f]+\[0x[0-9a-f]+\](\.slow)?", line)]
    check(not bad, "\n".join(bad[:5]))
    check(any("guest:guest_main" in line for line in lines), "no symbol")
    spans = sorted((int(line.split()[0], 16), int(line.split()[1], 16)) for line in lines)
    check(all(a + n <= b for (a, n), (b, _) in zip(spans, spans[1:])), "two names for one address")


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
