"""The host side: guest memory is limited, swapped, merged and shaken, and the guest never notices."""
import re

import harness
from harness import DEBUG_EXIT, LONG, check, guest, linux, run_guest, tmp, umbra, write_tmp

MODES = ("shadow", "walk", "ept")
# What the emulator itself may hold beyond -memlimit: its code, TLBs, shadow pages and decoded code, the kernel and initrd files
# (15 MiB), and the bookkeeping of swapped pages.
RESIDENT_CONSTANT = 64 << 20

WORKLOAD = (
    ("dd if=/dev/urandom of=/big bs=1M count=40; wc -c /big", "41943040 /big"),
    ("mkdir -p /d/a/b /d/c; for i in 1 2 3 4 5; do echo $i > /d/a/$i; done; find /d | sort | md5sum", "  -"),
    ("seq 1 2000 | sort -rn | gzip | gunzip | head -n 1", "2000"),
    ("cp /big /copy; cmp /big /copy && echo equal", "\nequal"),
)


def testos(*args):
    result = run_guest("testos", "-append", "coherent", "-digest", *args)
    return result, (result.digest(), result.out)


def count(result, name):
    found = re.search(rf"^{re.escape(name)}\s+(\d+)", result.err, re.M)
    check(found, f"no counter {name}: {result.err[-1500:]}")
    return int(found.group(1))


def linux_script():
    lines = ['wait "umbra# "']
    for command, _ in WORKLOAD:
        lines += ['send "%s\\n"' % command, 'wait "umbra# "']
    return write_tmp("workload.script", "\n".join(lines + ['send "poweroff -f\\n"']) + "\n")


def boot(*args):
    """Debian's kernel with a workload, and the most that the emulator ever had resident, in bytes."""
    options = [*linux(), "-input-script", linux_script(), "-digest", "-stats", *args]
    result, peak = harness.umbra_peak(*options, timeout=1800)
    check(result.status == 0, f"{args}: status {result.status}\n{result.out[-2000:]}\n{result.err[-2000:]}")
    return result, peak


def same_boot(args, base):
    result, peak = boot(*args)
    check(result.digest() == base.digest(), f"{args}: {result.digest()} is not {base.digest()}")
    check(result.out == base.out, f"{args}: serial output differs")
    return result, peak


def linux_base():
    result, _ = boot()
    out = result.out.replace("\x1b[6n", "").replace("\r", "")
    for command, answer in WORKLOAD:
        after = out.split("umbra# " + command, 1)
        check(len(after) == 2 and answer in after[1], f"no answer to '{command}':\n{out[-2000:]}")
    return result


def test_test_os_does_not_notice_a_memory_limit():
    _, base = testos()
    for mode in MODES:
        for limit in ("256K", "2M"):
            result, seen = testos("-mmu", mode, "-memlimit", limit, "-stats")
            check(seen == base, f"{mode} {limit}: {seen[0]} is not {base[0]}")
            check(count(result, "host.swap_outs") > 100 and count(result, "host.swap_ins") > 50, "nothing was swapped")
            check(count(result, "host.limit_excess") <= 64, "the limit was exceeded by more than a vCPU's slack")
            check(count(result, "host.resident") * 4096 <= harness.size(limit), "more is resident than allowed")


def test_swap_file_serves_as_memory_does():
    _, base = testos()
    path = tmp("swap")
    result, seen = testos("-memlimit", "256K", "-swapfile", path, "-swapsize", "8M", "-stats")
    check(seen == base, "the digest differs")
    check(count(result, "swap.file") > 0, "nothing is in the file")
    check(count(result, "swap.memory") == 0, "a small swap file has no room in memory before it")


def test_test_os_does_not_notice_merging():
    _, base = testos()
    for mode in MODES:
        result, seen = testos("-mmu", mode, "-ksm", "on", "-stats")
        check(seen == base, f"{mode}: {seen[0]} is not {base[0]}")
        check(count(result, "ksm.merges") + count(result, "ksm.zeros") > 0, "nothing was merged")


def test_full_swap_store_pauses_the_guest_and_loses_nothing():
    _, base = testos()
    snap = tmp("paused.snap")
    paused, seen = testos("-memlimit", "256K", "-swapsize", "64K", "-pause-save", snap)
    check(paused.status == 14, f"status {paused.status}: {paused.err}")
    check("-memlimit" in paused.err and "swap store is full" in paused.err, paused.err)
    rest, seen_rest = testos("-loadvm", snap)
    check(rest.status == 33 and seen_rest[0] == base[0], f"{rest.status}: {seen_rest[0]} is not {base[0]}")
    check(seen[1] + seen_rest[1] == base[1], "serial output was lost")


def test_saving_and_loading_under_a_limit_ends_the_same():
    _, base = testos()
    snap = tmp("limited.snap")
    script = write_tmp("limited.script", f'wait "ok 1150"\nsavevm "{snap}"\n')
    _, saved = testos("-memlimit", "256K", "-input-script", script)
    _, loaded = testos("-memlimit", "256K", "-loadvm", snap)
    check(saved == base, "saving disturbed the run")
    check(loaded[0] == base[0], "the loaded run differs")


def test_test_os_does_not_notice_host_events():
    _, base = testos()
    effects = set()
    for mode in MODES:
        for seed in range(1, 11 if LONG else 3):
            result, seen = testos("-mmu", mode, "-host-chaos", f"seed={seed},rate=10000,ops=all", "-stats")
            check(seen == base, f"{mode} seed {seed}: {seen[0]} is not {base[0]}")
            check(count(result, "chaos.events") > 1000, "too few events")
            effects |= {n for n in re.findall(r"^chaos\.(\w+)\s+[1-9]", result.err, re.M)}
    missing = {"swap", "ksm", "cow", "migrate", "mprotect", "huge", "age"} - effects
    check(not missing, f"never did anything: {missing}")


def test_audit_holds_under_host_events():
    _, base = testos()
    for mode in MODES:
        result, seen = testos("-mmu", mode, "-host-chaos", "seed=7,rate=20000", "-audit", "events", "-stats")
        check(seen == base, f"{mode}: {seen[0]} is not {base[0]}\n{result.err[-1000:]}")
        check("audit:" not in result.err, result.err[-2000:])


def test_host_events_together_with_a_limit_and_merging():
    _, base = testos()
    for mode in MODES:
        _, seen = testos("-mmu", mode, "-host-chaos", "seed=5,rate=5000", "-memlimit", "1M", "-ksm", "on")
        check(seen == base, f"{mode}: {seen[0]} is not {base[0]}")


def test_host_events_repeat_exactly():
    def counters():
        result, _ = testos("-host-chaos", "seed=11,rate=20000,ops=swap+migrate+huge", "-stats")
        return re.findall(r"^(?:chaos|host|swap)\..*$", result.err, re.M)
    check(counters() == counters(), "two runs, two histories")


def test_host_events_from_another_thread_are_not_noticed_either():
    _, base = testos()
    result, seen = testos("-host-chaos", "rate=10000,async=on", "-stats")
    check(seen == base, f"{seen[0]} is not {base[0]}")
    check(count(result, "chaos.events") > 10, "too few events")


def test_bad_values_are_named():
    for option, value, word in (("-memlimit", "8K", "at least 256K"), ("-memlimit", "lots", "size"), ("-memlimit", "0", "256K"),
                                ("-swapsize", "4K", "at least 64K"), ("-ksm", "maybe", "on or off"),
                                ("-host-chaos", "ops=swap+fire", "fire"), ("-host-chaos", "rate=0", "rate=0"),
                                ("-host-chaos", "speed=3", "speed"), ("-swapfile", "/nonexistent/swap", "/nonexistent/swap")):
        result = umbra("-m", "32M", "-kernel", guest("testos"), *DEBUG_EXIT, option, value)
        lines = result.err.strip().splitlines()
        check(result.status == 2 and len(lines) == 1 and word in lines[0], f"{option} {value}: {result.status} {result.err}")


def test_linux_does_not_notice_a_memory_limit():
    base = linux_base()
    limit = 96 << 20
    for args in ([], ["-ksm", "on"]):
        result, peak = same_boot(["-memlimit", "96M", "-swapfile", tmp("linux.swap"), *args], base)
        check(count(result, "host.swap_outs") > 5000, "hardly anything was swapped")
        check(peak <= limit + RESIDENT_CONSTANT, f"the emulator had {peak >> 20} MiB resident")


def test_linux_does_not_notice_host_events():
    base = linux_base()
    seeds = range(1, 11) if LONG else (1,)
    for mode in ("shadow", "ept"):
        for seed in seeds:
            args = ["-mmu", mode, "-host-chaos", f"seed={seed},rate=1000,ops=all", "-audit", "200000000"]
            result, _ = same_boot(args, base)
            check(count(result, "chaos.events") > 1000, "too few events")


harness.main(globals())
