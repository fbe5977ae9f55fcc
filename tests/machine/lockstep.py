"""The JIT and the interpreter in lockstep: every test guest, and Linux, without a difference at any comparison."""
import re

import harness
from harness import LONG, check, guest, linux, run_guest, umbra, write_tmp

MODES = ("shadow", "walk", "ept")
GUESTS = ("testos", "debugging", "events", "fpu", "fwcfgdma", "gates", "paging32", "realmode", "segments", "smc", "smram", "tasks", "timer", "v86")
SCRIPT = '''wait "umbra# "
send "ls -lR /sys | wc -l; seq 1 2000 | sort -n | md5sum; cat /proc/self/maps; awk 'BEGIN{print atan2(1,1)}'\\n"
wait "umbra# "
send "poweroff -f\\n"
'''
PARALLEL = '''wait "umbra# "
send "for k in 1 2 3 4 5 6; do (seq 1 3000 | sort -n | md5sum; ls -lR /sys | wc -l) & done; wait; echo fin\\n"
wait "fin"
wait "umbra# "
send "poweroff -f\\n"
'''


def expect(result, status=33):
    check(result.status == status, f"status {result.status}, not {status}\n{result.err[-3000:]}\n{result.out[-500:]}")
    found = re.search(r"^lockstep: (\d+) comparisons, (\d+) pages$", result.err, re.M)
    check(found and int(found.group(1)) > 10, f"hardly anything was compared: {result.err[-500:]}")
    return int(found.group(1))


def together(name, *args, every="1000", heat="1", status=33):
    return expect(run_guest(name, "-append", "coherent", "-accel", f"jit,heat={heat}", "-lockstep", every, *args), status)


def test_every_guest_in_every_mode():
    for name in GUESTS:
        for mode in MODES if LONG or name in ("testos", "smc") else MODES[:1]:
            together(name, "-mmu", mode, every="10000" if name == "testos" else "1000")


def test_guests_with_several_processors():
    for n in ("2", "4", "8,sockets=2,threads=2"):
        together("smp", "-smp", n, every="997")


def test_finely_where_turns_and_blocks_are_cut_often():
    for name in ("smc", "timer", "fwcfgdma"):
        together(name, every="101")
        together(name, every="61", heat="3")
    together("fpu", every="50")  # a comparison falls into the shadow of an STI


def test_with_a_code_cache_that_is_full_again_and_again():
    together("testos", every="50000")
    result = run_guest("testos", "-append", "coherent", "-accel", "jit,heat=1,cache=256K", "-lockstep", "20000", "-stats")
    expect(result)
    resets = int(re.search(r"^jit\.resets\s+(\d+)", result.err, re.M).group(1))
    check(resets > 2, f"the cache was reset {resets} times")


def test_with_host_events_at_both():
    together("testos", "-host-chaos", "seed=9,rate=20000,ops=all", every="10000")
    together("smp", "-smp", "4", "-host-chaos", "seed=9,rate=20000,ops=all", every="10000")


def test_comparisons_may_begin_later():
    short = run_guest("smc", "-accel", "jit,heat=1", "-lockstep", "100,from=100000")
    check(0 < expect(short) < expect(run_guest("smc", "-accel", "jit,heat=1", "-lockstep", "100")), "nothing was left out")


def test_options_that_do_not_go_together_are_refused():
    for args in (("-lockstep", "0"), ("-lockstep", "x"), ("-lockstep", "10,until=3"), ("-lockstep", "10", "-S", "-s"),
                 ("-accel", "jit,heat=0"), ("-accel", "interp,heat=3"), ("-accel", "jit,cache=4K"), ("-accel", "jit,cache=1G"),
                 ("-accel", "jit,warp=1"), ("-accel", "")):
        result = umbra("-kernel", guest("testos"), "-nographic", *args)
        check(result.status == 2 and len(result.err.splitlines()) == 1, f"{args}: {result.status} {result.err}")


def test_linux_boots():
    if not LONG:
        raise harness.Skip("the long form boots Linux in lockstep")
    script = write_tmp("lockstep.script", SCRIPT)
    for mode in MODES:
        expect(umbra(*linux("cloud"), "-input-script", script, "-mmu", mode, "-accel", "jit", "-lockstep", "10000", timeout=5000), 0)
    expect(umbra(*linux("cloud"), "-input-script", script, "-smp", "4", "-accel", "jit", "-lockstep", "10000", timeout=5000), 0)
    for kernel in ("686", "686-pae", "amd64"):
        args = linux(kernel)
        if kernel != "amd64":
            args[args.index("-initrd") + 1] = harness.fetched("initrd-i386", "initrd-i386.img")
        expect(umbra(*args, "-input-script", script, "-accel", "jit", "-lockstep", "10000", timeout=5000), 0)


def test_linux_ends_the_same_under_host_events_and_on_four_processors():
    if not LONG:
        raise harness.Skip("the long form boots Linux again and again")
    script = write_tmp("parallel.script", PARALLEL)
    chaos = ("-host-chaos", "seed=5,rate=20000,ops=all")
    for smp, others in (("1", ((), chaos, ("-mmu", "ept"), ("-mmu", "ept", *chaos))), ("4", ((), ("-mmu", "ept")))):
        run = lambda *args: umbra(*linux("cloud"), "-input-script", script, "-smp", smp, "-digest", *args, timeout=5000).digest()
        base = run("-accel", "interp")
        for args in others:
            check(run("-accel", "jit", *args) == base, f"-smp {smp} {args}: another digest than the interpreter's")


if __name__ == "__main__":
    harness.main(globals())
