"""The paravirtual clock: Linux uses it, in every mode the same, whatever the host does."""
import re

import harness
from harness import LONG, check, linux, tmp, umbra, write_tmp

COMMANDS = (
    ("cat /sys/devices/system/clocksource/clocksource0/current_clocksource", r"\nkvm-clock\n"),
    ("dmesg | grep -i kvm-clock", r"kvm-clock: Using msrs 4b564d01 and 4b564d00"),
    ("dmesg | grep clocksource", r"Switched to clocksource kvm-clock"),
    ("date +%Y-%m-%d", r"\n2020-01-01\n"),
    ("head -n 1 /proc/stat", r"\ncpu  (\d+ ){7}0 0 0\n"),  # nothing stolen
    ("sleep 1; echo awake", r"\nawake\n"),
)


def script(save=None):
    lines = ['wait "umbra# "']
    for k, (command, _) in enumerate(COMMANDS):
        lines += ['send "%s\\n"' % command, 'wait "umbra# "']
        if save and k == 1:
            lines.append(f'savevm "{save}"')
    return write_tmp("kvm-save.script" if save else "kvm.script", "\n".join(lines + ['send "poweroff -f\\n"']) + "\n")


def boot(*args, save=None):
    result = umbra(*linux(), "-cpu", "base,+kvmclock", "-input-script", script(save), "-digest", "-stats", *args, timeout=1800)
    check(result.status == 0, f"{args}: status {result.status}\n{result.out[-2000:]}\n{result.err[-2000:]}")
    return result


def count(result, name):
    found = re.search(rf"^{re.escape(name)}\s+(\d+)", result.err, re.M)
    check(found, f"no counter {name}: {result.err[-1500:]}")
    return int(found.group(1))


def test_linux_uses_the_clock_and_no_mode_nor_host_event_shows():
    base = boot()
    out = base.out.replace("\x1b[6n", "").replace("\r", "")
    for command, answer in COMMANDS:
        after = out.split("umbra# " + command, 1)
        check(len(after) == 2 and re.search(answer, after[1].split("umbra# ")[0]), f"no answer to '{command}':\n{out[-3000:]}")
    check("unstable" not in out, "the kernel distrusts a clock")
    for args in (["-mmu", "walk"], ["-mmu", "ept"], ["-host-chaos", "seed=3,rate=2000,ops=all"],
                 ["-mmu", "ept", "-host-chaos", "seed=4,rate=2000,ops=all"], ["-memlimit", "96M"]):
        if args == ["-mmu", "walk"] and not LONG:
            args = ["-mmu", "walk", "-ksm", "on"]
        other = boot(*args)
        check(other.digest() == base.digest(), f"{args}: {other.digest()} is not {base.digest()}")
        check(other.out == base.out, f"{args}: serial output differs")
        if "-host-chaos" in args:
            check(count(other, "gfn_cache.invalidations") > 0, f"{args}: no cached page was ever taken back")
            check(count(other, "gfn_cache.refreshes") > 10, f"{args}: hardly ever got again")


def test_two_processors_that_take_turns_steal_half_of_the_time_from_each_other():
    commands = write_tmp("steal.script", """wait "umbra# "
send "for i in 1 2 3; do (while :; do :; done) & done; sleep 1; head -n 3 /proc/stat; echo en''d\\n"
wait "end"
send "poweroff -f\\n"
""")
    seen = set()
    for mode in ("shadow", "ept"):
        result = umbra(*linux(), "-smp", "2", "-cpu", "base,+kvmclock", "-mmu", mode, "-input-script", commands, "-digest", timeout=1800)
        check(result.status == 0, f"{mode}: status {result.status}\n{result.out[-2000:]}\n{result.err[-2000:]}")
        seen.add((result.digest(), result.out))
        rows = [[int(x) for x in line.split()[1:]] for line in re.findall(r"^cpu[01] .*", result.out, re.M)]
        check(len(rows) == 2, result.out[-1000:])
        for row in rows:  # jiffies of 4 ms: a second was busy in turns
            check(abs(row[7] - row[0]) < 30 and row[7] > 30, f"user {row[0]}, stolen {row[7]}")
    check(len(seen) == 1, "the modes differ")


def test_saved_and_loaded_machine_has_the_same_time():
    snap = tmp("kvm.snap")
    whole = boot(save=snap)
    loaded = umbra(*linux(), "-cpu", "base,+kvmclock", "-input-script", script(snap), "-digest", "-loadvm", snap, timeout=1800)
    check(loaded.status == 0, f"status {loaded.status}\n{loaded.err}")
    check(loaded.digest() == whole.digest(), f"loaded {loaded.digest()} whole {whole.digest()}")


def test_snapshot_of_another_model_is_refused():
    snap = tmp("plain.snap")
    commands = write_tmp("plain.script", f'wait "Linux version"\nsavevm "{snap}"\nquit\n')
    umbra(*linux(), "-input-script", commands)
    result = umbra(*linux(), "-cpu", "base,+kvmclock", "-loadvm", snap)
    check(result.status == 2 and "-cpu" in result.err, f"{result.status} {result.err}")


harness.main(globals())
