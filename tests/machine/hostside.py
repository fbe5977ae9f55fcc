"""The host side: guest memory is limited, swapped, merged and shaken, and the guest never notices."""
import os
import re
import time

import harness
import workload
from harness import DEBUG_EXIT, LONG, check, guest, run_guest, tmp, umbra, write_tmp
from workload import count

MODES = ("shadow", "walk", "ept")
# What the emulator itself may hold beyond -memlimit (README): its code, TLBs, shadow pages, decoded and compiled code, the
# kernel and initrd files (15 MiB), and the bookkeeping of swapped pages.
RESIDENT_CONSTANT = {"jit": 100 << 20, "interp": 80 << 20}


def testos(*args):
    result = run_guest("testos", "-append", "coherent", "-digest", *args)
    return result, (result.digest(), result.out)


def charged(result):
    """Pages that count against the limit: merged ones once a shared frame."""
    merged = count(result, "host.ksm_pages") if "ksm.frames" in result.err else 0
    return count(result, "host.resident") - merged + (min(merged, count(result, "ksm.frames")) if merged else 0)


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
    for args in [], ["-swapfile", tmp("full.swap")]:
        snap = tmp("paused.snap")
        paused, seen = testos("-memlimit", "256K", "-swapsize", "64K", "-pause-save", snap, *args)
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


def test_test_os_does_not_notice_huge_host_pages():
    _, base = testos()
    for mode in MODES:
        result, seen = testos("-mmu", mode, "-hugepages", "2M", "-stats")
        check(seen == base, f"{mode}: {seen[0]} is not {base[0]}")
        check(count(result, "host.huge_faults") > 0, "no huge page")
        check(mode != "ept" or count(result, "mmu.large_fills") > 0, "no large leaf")
        result, seen = testos("-mmu", mode, "-hugepages", "2M", "-host-chaos", "seed=9,rate=20000", "-audit", "events", "-stats")
        check(seen == base, f"{mode} under host events: {seen[0]} is not {base[0]}")
        check(count(result, "host.splits") > 0, "nothing was split")


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


def test_test_os_with_unsync_tables_does_not_notice_host_events():
    # Not coherent, so no digest; the test OS flushes as it must and checks for itself.
    for ops in ("swap", "cow", "huge", "all"):
        for seed in range(1, 11 if LONG else 2):
            result = run_guest("testos", "-mmu", "shadow,unsync=on", "-host-chaos", f"seed={seed},rate=10000,ops={ops}")
            check(result.status == 33, f"{ops} {seed}: {result.out[-300:]}")


def test_test_os_does_not_notice_how_few_table_pages_there_are():
    _, base = testos()
    for mode in ("shadow", "ept"):
        result, seen = testos("-mmu", mode, "-shadow-pages", "64", "-stats", "-audit", "1000000")
        check(seen == base, f"{mode}: {seen[0]} is not {base[0]}")
        check(mode == "ept" or count(result, "shadow.recycled") > 100, "no page was ever short")


def test_accessed_state_of_a_guest_is_taken_and_comes_back():
    _, base = testos()
    for mode, counter in (("shadow", "shadow.aged"), ("ept", "ept.aged")):
        result, seen = testos("-mmu", mode, "-host-chaos", "seed=3,rate=20000,ops=age", "-stats")
        check(seen == base, f"{mode}: {seen[0]} is not {base[0]}")
        check(count(result, counter) > 100, f"{mode}: nothing was aged")


def test_post_copy_ends_as_a_whole_load_does():
    _, base = testos()
    snap, again = tmp("postcopy.snap"), tmp("postcopy2.snap")
    script = write_tmp("postcopy.script", f'wait "ok 1150"\nsavevm "{snap}"\nwait "ok "\nsavevm "{again}"\n')
    testos("-input-script", script)
    os.remove(again)
    _, whole = testos("-loadvm", snap)
    check(whole[0] == base[0], "the eager run differs")
    for args in [], ["-mmu", "ept"], ["-mmu", "walk"], ["-host-chaos", "seed=3,rate=20000"], ["-memlimit", "256K"], ["-ksm", "on"], \
            ["-hugepages", "1G"], ["-audit", "1000000"]:
        result, seen = testos("-loadvm", snap, "-postcopy", "on", "-stats", *args)
        check(seen == whole, f"{args}: {seen[0]} is not {whole[0]}")
        touched = count(result, "host.delivered") - count(result, "host.fetched_ahead")
        check(touched > 10 and (count(result, "host.fetched_ahead") > 10 or args), f"{args}: {touched} pages were touched")
    # What is saved while pages are awaited is whole too.
    testos("-loadvm", snap, "-postcopy", "on", "-input-script", script)
    _, seen = testos("-loadvm", again)
    check(seen[0] == base[0], f"saved in post-copy: {seen[0]} is not {base[0]}")


def test_page_that_is_damaged_is_found_when_it_is_fetched():
    snap = tmp("damaged.snap")
    script = write_tmp("damaged.script", f'wait "ok 1150"\nsavevm "{snap}"\n')
    testos("-input-script", script)
    with open(snap, "rb") as f:
        data = bytearray(f.read())
    # u32 slots; a slot: 18 bytes, then records: u64 index (~0 ends), u32 CRC, u32 length, as many bytes. All are damaged.
    at = data.index(b"\x03ram") + 4 + 12
    slots = int.from_bytes(data[at:at + 4], "little")
    first = at = at + 4
    for _ in range(slots):
        at += 18
        while data[at:at + 8] != b"\xff" * 8:
            length = int.from_bytes(data[at + 12:at + 16], "little")
            data[at + 16 + length // 2] ^= 1
            at += 16 + length
        at += 12
    write_tmp("damaged.snap", bytes(data))
    result = run_guest("testos", "-append", "coherent", "-loadvm", snap)
    check(result.status == 2 and "CRC" in result.err, f"{result.status}: {result.err}")
    result = run_guest("testos", "-append", "coherent", "-loadvm", snap, "-postcopy", "on")
    check(result.status == 12 and "cannot be read" in result.err, f"{result.status}: {result.err}")
    data[first + 18 + 8] ^= 1  # the list of pages: found at once
    write_tmp("damaged.snap", bytes(data))
    result = run_guest("testos", "-append", "coherent", "-loadvm", snap, "-postcopy", "on")
    check(result.status == 2 and "memory at" in result.err, f"{result.status}: {result.err}")


def test_linux_goes_on_in_post_copy():
    snap = tmp("linux-postcopy.snap")
    work = f'wait "umbra# "\nsavevm "{snap}"\nsend "find / -xdev | sort | tail -n 1; poweroff -f\\n"\n'
    script = write_tmp("linux-postcopy.script", work)
    whole = umbra(*harness.linux(), "-input-script", script, "-digest", timeout=900)
    for args in ["-postcopy", "on"], ["-postcopy", "on", "-mmu", "ept", "-host-chaos", "seed=4,rate=1200"]:
        result = umbra(*harness.linux(), "-loadvm", snap, "-input-script", script, "-digest", "-stats", *args, timeout=900)
        check(result.status == 0, f"{args}: status {result.status}\n{result.err[-2000:]}")
        check(result.digest() == whole.digest(), f"{args}: {result.digest()} is not {whole.digest()}")
        check(whole.out.endswith(result.out), f"{args}: serial output differs")
        ahead, all_pages = count(result, "host.fetched_ahead"), count(result, "host.delivered")
        check(ahead > 500 and all_pages > ahead + 500, f"{args}: {all_pages} pages came, {ahead} of them before they were touched")


def test_bad_values_are_named():
    for option, value, word in (("-memlimit", "8K", "at least 256K"), ("-memlimit", "lots", "size"), ("-memlimit", "0", "256K"),
                                ("-swapsize", "4K", "at least 64K"), ("-shadow-pages", "63", "at least 64"), ("-ksm", "maybe", "on or off"), ("-postcopy", "maybe", "on or off"), ("-hugepages", "4M", "2M or 1G"),
                                ("-host-chaos", "ops=swap+fire", "fire"), ("-host-chaos", "rate=0", "rate=0"),
                                ("-host-chaos", "speed=3", "speed"), ("-swapfile", "/nonexistent/swap", "/nonexistent/swap")):
        result = umbra("-m", "32M", "-kernel", guest("testos"), *DEBUG_EXIT, option, value)
        lines = result.err.strip().splitlines()
        check(result.status == 2 and len(lines) == 1 and word in lines[0], f"{option} {value}: {result.status} {result.err}")


def test_linux_writes_the_same_with_unsync_tables():
    result, _ = workload.run("-mmu", "shadow,unsync=on")
    check(result.out == workload.base()[0].out, "serial output differs")
    check(count(result, "shadow.unsyncs") > 1000, "no table went out of sync")


def test_linux_does_not_notice_a_memory_limit():
    limit = 96 << 20
    for args in [[], ["-ksm", "on"], ["-mmu", "ept"], ["-mmu", "walk"], ["-accel", "interp"]] if LONG else [[]]:
        result, peak = workload.same("-memlimit", "96M", "-swapfile", tmp("linux.swap"), *args)
        outs, ins = count(result, "host.swap_outs"), count(result, "host.swap_ins")
        print(f"        {' '.join(args)}: {outs} pages out, {ins} in, {peak >> 20} MiB resident")
        merged = count(result, "ksm.zeros") + count(result, "ksm.merges") if "-ksm" in args else 0
        check(merged > 10000 or (outs > 3000 and ins > 50), "hardly anything was swapped, or merged away")
        check(charged(result) * 4096 <= limit, "more is resident than allowed")
        check(peak <= limit + RESIDENT_CONSTANT["interp" if "interp" in args else "jit"], f"the emulator had {peak >> 20} MiB resident")


def test_linux_works_the_same_in_every_mode_and_its_shadow_takes_one_percent_of_its_memory():
    for mode in ("shadow", "ept", "walk"):
        result, _ = workload.base() if mode == "shadow" else workload.same("-mmu", mode)
        peak = {n: count(result, f"bytes.{n}.peak") for n in ("tables", "rmaps", "tracking", "tlb", "tlb_deps", "host_tables")
                if f"bytes.{n}" in result.err}
        print(f"        {mode}: " + ", ".join(f"{n} {k}" for n, k in peak.items()))
        check(all(count(result, f"bytes.{n}") <= k for n, k in peak.items()), "more now than there ever was")
        mine = sum(peak.get(n, 0) for n in ("tables", "rmaps", "tracking", "tlb_deps"))
        check(mine <= (512 << 20) // 100, f"{mode}: {mine} bytes")
        check((1 << 20) < peak["tlb"] <= 8 << 20, f"{mode}: TLBs of {peak['tlb']} bytes")
        if mode == "shadow":
            check(peak["tables"] >= count(result, "shadow.pages") * 8192 and peak["rmaps"] > 1 << 16, str(peak))


def test_linux_works_in_a_third_of_what_it_wants():
    if not LONG:
        raise harness.Skip("long form only")
    result, _ = workload.same("-memlimit", "40M")
    check(count(result, "host.swap_outs") > 20000 and count(result, "host.swap_ins") > 10000, "it did not thrash")


def test_linux_works_with_few_table_pages():
    result, _ = workload.same("-mmu", "shadow", "-shadow-pages", "64")
    check(count(result, "shadow.recycled") > 1000, "no page was ever short")


def test_linux_does_not_notice_host_events():
    for mode in ("shadow", "ept"):
        for seed in range(1, 11) if LONG else (1,):
            start = time.time()
            args = ["-mmu", mode, "-host-chaos", f"seed={seed},rate=1200,ops=all", "-audit", "200000000"]
            result, _ = workload.same(*args)
            events = {n: int(k) for n, k in re.findall(r"^chaos\.(\w+)\s+(\d+)", result.err, re.M)}
            print(f"        {mode} seed {seed}: {events}, {count(result, 'audits')} audits, {time.time() - start:.0f} s", flush=True)
            vtime = result.digest()[1] + count(result, "clock.extra")
            check(events["events"] * 1e9 >= 1000 * vtime, f"{events['events']} events in {vtime / 1e9:.1f} s of virtual time")
            check(all(events[n] for n in ("swap", "ksm", "cow", "migrate", "mprotect", "huge", "age")), str(events))
            check(count(result, "audits") > 10, "no audits ran")


def test_linux_does_not_notice_host_pages_of_one_gib():
    def boot(*args):
        result = umbra(*harness.linux(), "-m", "3584M", "-input-script", script, "-digest", "-stats", *args, timeout=900)
        check(result.status == 0, f"{args}: status {result.status}\n{result.err[-2000:]}")
        return result, (result.digest(), result.out)
    script = write_tmp("gib.script", 'wait "umbra# "\nsend "find / -xdev | sort | tail -n 1; poweroff -f\\n"\n')
    plain, base = boot("-mmu", "ept")
    check(count(plain, "mmu.large_fills") == 0, "large leaves without large host pages")
    for mode in ("ept", "shadow"):
        result, seen = boot("-mmu", mode, "-hugepages", "1G")
        check(seen == base, f"{mode}: {seen[0]} is not {base[0]}")
        check(count(result, "host.gigantic_faults") > 0 and count(result, "mmu.gigantic_fills") > 0, "no gigantic page or leaf")
        if mode == "ept":
            check(count(result, "mmu.shadow_faults") * 20 < count(plain, "mmu.shadow_faults"), "not fewer faults")
    result, seen = boot("-mmu", "ept", "-hugepages", "1G", "-host-chaos", "seed=2,rate=1200", "-audit", "500000000")
    check(seen == base, f"host events: {seen[0]} is not {base[0]}")
    check(count(result, "host.splits") > 100 and count(result, "host.collapses") > 10, "nothing came apart or together")


harness.main(globals())
