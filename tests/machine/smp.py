"""Several processors: the smp guest in every arrangement and mode, Linux with several, debuggers, reports, -smp itself."""
import os
import re
import subprocess

import harness
from harness import LONG, check, guest, linux, run_guest, tmp, umbra, write_tmp

MODES = ("shadow", "walk", "ept")
CHAOS = ("-host-chaos", "seed=5,rate=20000,ops=all")


def smp(n, *args, words="coherent"):
    result = run_guest("smp", "-smp", str(n), "-append", words, "-digest", "-d", "unimp,guest_errors", *args)
    bad = [line for line in result.out.splitlines() if line.startswith("not ok")]
    check(result.status == 33 and not bad, f"-smp {n} {args}: status {result.status}\n" + "\n".join(bad) + result.err[-1500:])
    count = int(re.search(r"smp: (\d+) passed, 0 failed", result.out).group(1))
    return result, count


def test_the_smp_guest_is_content_in_every_arrangement():
    arrangements = ("1", "2", "3", "4", "16", "6,sockets=2,cores=3", "8,sockets=2,threads=2")
    for n in arrangements if LONG else arrangements[1::2] + ("8,sockets=2,threads=2",):
        count = smp(n)[1]
        check(count >= (45 if n == "1" else 70), f"-smp {n}: only {count} checks")
    count = smp(4)[1]
    check(smp(4, "-cpu", "max")[1] == count + 4, "MONITOR and MWAIT were not checked twice with -cpu max")


def test_digest_is_the_same_in_every_mode_and_with_every_observer():
    base = smp(4)[0]
    for args in (("-mmu", "walk"), ("-mmu", "ept"), CHAOS, ("-mmu", "ept", *CHAOS), ("-audit", "99991"),
                 ("-host-chaos", "seed=5,rate=20000,ops=all,async=on"), ("-memlimit", "512K"), ("-ksm", "on"), ("-trace", "all", "-D", tmp("trace"))):
        other = smp(4, *args)[0]
        check((other.digest(), other.out) == (base.digest(), base.out), f"{args}: {other.digest()} is not {base.digest()}")


def test_a_forgotten_shootdown_is_reported_for_each_processor_and_nothing_else():
    for mode in MODES:
        clean = run_guest("smp", "-smp", "3", "-mmu", mode, "-d", "staletlb")
        check(clean.status == 33 and not clean.err.strip(), f"{mode}: reports in a clean run:\n{clean.err[:2000]}")
        # With "coherent" the guest remaps a page twice without telling anybody, and every processor reads it.
        result = run_guest("smp", "-smp", "3", "-mmu", mode, "-append", "coherent", "-d", "staletlb")
        found = re.findall(r"staletlb: vcpu (\d) read of gva 0x18000000000 ", result.err)
        check(found == ["0", "1", "2"] * 2 and len(result.err.strip().splitlines()) == 6, f"{mode}:\n{result.err}")


def test_saved_and_loaded_run_with_four_processors_ends_as_the_whole_one():
    snap = tmp("smp.snap")
    whole = smp(4)[0]
    for text in ("ok 12", "ok 60", "ok 88"):
        script = write_tmp("smp.script", f'wait "{text}"\nsavevm "{snap}"\n')
        saved = smp(4, "-input-script", script)[0]
        loaded = run_guest("smp", "-smp", "4", "-append", "coherent", "-digest", "-loadvm", snap)
        check(saved.digest() == whole.digest(), "saving disturbed the run")
        check(loaded.digest() == whole.digest() and whole.out.endswith(loaded.out), f"{text}: the loaded run differs")
    other = run_guest("smp", "-smp", "4,sockets=4", "-loadvm", snap)
    check(other.status == 2 and "sockets=4" in other.err, other.err)


def test_triple_fault_of_another_processor_is_reported_as_its():
    for mode in MODES:
        result = run_guest("smp", "-smp", "3", "-append", "crash", "-mmu", mode)
        check(result.status == 4, f"status {result.status}: {result.err}")
        check("triple fault, processor 2" in result.err and "state, processor 0" in result.err, result.err)
    early = run_guest("spin", "-smp", "2", "-icount-limit", "1000")
    check(early.status == 8 and "processor 1 waits to be started" in early.err, early.err)


def test_smp_takes_qemu_s_spelling_and_refuses_what_does_not_work_out():
    good = {"4": 4, "cpus=4": 4, "4,maxcpus=4": 4, "sockets=2,cores=2": 4, "8,sockets=2,cores=2,threads=2": 8, "6,cores=3": 6,
            "16,threads=2": 16, "cores=4": 4, "2,dies=1": 2}
    for text, count in good.items():
        result = run_guest("smp", "-smp", text, "-icount-limit", "200000")
        check(f"# {count} processors" in result.out, f"-smp {text}: {result.out[-300:]} {result.err[-300:]}")
    for text in ("0", "17", "x", "4,", "4,cores=3", "2,maxcpus=4", "4,cpus=4", "2,dies=2", "sockets=0", "4,foo=1", "sockets=5,cores=5", ""):
        result = run_guest("spin", "-smp", text, "-icount-limit", "1000")
        check(result.status == 2 and "-smp" in result.err, f"-smp {text}: {result.status} {result.err}")


def debug(commands, *args):
    script = write_tmp("smp.dbg", commands)
    return umbra("debug", "-m", "32M", "-kernel", guest("smp"), "-append", "coherent", *harness.DEBUG_EXIT, "-smp", "4", "-serial",
                 "null", "-symbols", guest("smp") + "64", "-digest", "-x", script, *args)


def test_a_debugged_run_of_four_processors_is_the_same_run():
    base = smp(4)[0].digest()
    result = debug("break cpu_init\ncontinue\ncpu\ncontinue\ncpu\ncpu 0\nregs\ndelete all\nbreak on_a\n" + "continue\n" * 40 +
                   "delete all\nstep 100000\nwatch shared_count\n" + "continue\n" * 30 + "delete all\ncontinue\n")
    check(result.status == 33, f"{result.status}\n{result.out[-2000:]}{result.err[-500:]}")
    check(result.digest() == base, f"debugged {result.digest()} alone {base}")
    check(re.search(r"^\* 1  0x[0-9a-f]+ <cpu_init", result.out, re.M), "the second stop is not on processor 1:\n" + result.out[:3000])
    stepped = debug("break job_count\ncontinue\ndelete all\n" + "step 3\n" * 3000 + "continue\n")
    check(stepped.digest() == base, f"stepped {stepped.digest()} alone {base}")


def test_gdb_sees_each_processor_as_a_thread():
    if not os.path.exists("/usr/bin/gdb"):
        raise harness.Skip("gdb is not installed")
    port_file = subprocess.Popen([harness.UMBRA, "-m", "32M", "-kernel", guest("smp"), "-append", "coherent", *harness.DEBUG_EXIT, "-smp",
                                  "3", "-serial", "null", "-gdb", "tcp:127.0.0.1:0", "-S", "-digest"], stderr=subprocess.PIPE,
                                 stdout=subprocess.DEVNULL, text=True)
    line = port_file.stderr.readline()
    port = re.search(r":(\d+)\b(?!.*:\d)", line)
    check(port, "no port in: " + line)
    commands = ["set pagination off", f"target remote 127.0.0.1:{port.group(1)}", "break job_count", "continue", "info threads", "delete", "thread 3",
                "stepi", "thread", "p $gs_base", "continue"]
    done = subprocess.run(["gdb", "-nx", "-batch", guest("smp") + "64"] + [a for c in commands for a in ("-ex", c)],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
    rest = port_file.stderr.read()
    check(port_file.wait(timeout=60) == 33, rest)
    check(len(re.findall(r"^[* ] +\d+ +Thread", done.stdout, re.M)) == 3, done.stdout)
    check("Current thread is 3" in done.stdout, done.stdout)
    base = run_guest("smp", "-smp", "3", "-append", "coherent", "-digest").digest()
    check(f"digest {base[0]} icount {base[1]}" in rest, f"{rest} is not {base}")


# ---- Linux ----

WORKLOAD = (
    ("nproc", "\n%d"),
    ("for i in 1 2 3 4 5 6; do (seq 1 %d | sort -n | md5sum) & done; wait; echo done-a" % (4000 if LONG else 800), "done-a"),
    ("for i in $(seq 30); do (echo $i | cat | wc -c >/dev/null) & done; wait; echo done-b", "done-b"),
    ("i=0; while [ $i -lt 30 ]; do true | /bin/true; i=$((i+1)); done; echo done-c", "done-c"),
    ("yes abc | head -c 100000 | tr a-c A-C | md5sum", "-"),
    ("grep -c rocessor /proc/cpuinfo", ""),
)
BAD = re.compile(r"warning|oops|unexpected|lockup|unstable|BUG:|call trace|not syncing|TSC warp|not responding|FW_BUG|"
                 r"\[Firmware Bug\]|failed to|segfault|general protection|stuck", re.I)


def boot(n, *args, kernel="cloud", power_off=True, append=None):
    lines = ['wait "umbra# "']
    for command, _ in WORKLOAD:
        lines += ['send "%s\\n"' % command, 'wait "umbra# "']
    script = write_tmp("smp-linux.script", "\n".join(lines + ['send "poweroff -f\\n"']) + "\n")
    options = linux(kernel)
    if append:
        options[options.index("-append") + 1] = append
    result = umbra(*options, "-smp", str(n), "-input-script", script, "-digest", *args, timeout=1800)
    check(result.status == (0 if power_off else 10), f"status {result.status}\n{result.out[-3000:]}\n{result.err[-2000:]}")
    out = result.out.replace("\x1b[6n", "").replace("\r", "")
    for command, answer in WORKLOAD:
        after = out.split("umbra# " + command, 1)
        wanted = answer % n if "%d" in answer else answer
        check(len(after) == 2 and wanted in after[1], f"no answer to '{command}':\n{result.out[-2000:]}")
    bad = [line for line in result.out.splitlines() if BAD.search(line)]
    check(not bad, "complaints in the kernel log:\n" + "\n".join(bad))
    check(f"Brought up 1 node, {n} CPUs" in out, "not all processors came up")
    return result


def test_linux_brings_up_four_processors_the_same_in_every_mode():
    base = boot(4)
    others = (("-mmu", "ept"), ("-mmu", "walk"), ("-host-chaos", "seed=7,rate=500,ops=all"), ())
    for args in others if LONG else others[:1]:
        other = boot(4, *args)
        check((other.digest(), other.out) == (base.digest(), base.out), f"{args}: {other.digest()} is not {base.digest()}")


def test_linux_finds_two_processors_in_the_mp_table():
    if not LONG:
        raise harness.Skip("long form only")
    out = boot(2, kernel="amd64", power_off=False, append="console=ttyS0 acpi=off").out
    check("MultiProcessor Specification v1.4" in out, out[:3000])


def test_linux_boots_with_sixteen():
    if not LONG:
        raise harness.Skip("long form only")
    boot(16)



def test_apic_access_page_moves_under_running_processors_and_nobody_notices():
    """With -mmu ept the local APIC is behind an APIC access page, whose frame the host moves and shares."""
    for name in ("smp", "timer"):
        base = run_guest(name, "-smp", "2", "-digest")
        moved = run_guest(name, "-smp", "2", "-digest", "-mmu", "ept", "-stats", "-host-chaos", "seed=5,rate=20000,ops=migrate+cow")
        check(moved.status == base.status and moved.digest() == base.digest(), f"{name}: {moved.digest()} is not {base.digest()}")
        for counter, least in (("apic_accesses", 20), ("apic_reloads", 20)):
            found = re.search(rf"^ept\.{counter}\s+(\d+)", moved.err, re.M)
            check(found and int(found.group(1)) >= least, f"{name}: {counter} {found and found.group(1)}")


harness.main(globals())
