"""Host events from a thread of their own. Meant for a build with the thread sanitizer, where a race or a wrong order of locks fails the run;
in other builds it is a short test of the same."""
import re

import harness
from harness import LONG, check, run_guest

MODES = ("shadow", "shadow,unsync=on", "ept", "walk")
OPS = "swap+ksm+cow+migrate+mprotect+huge+age"


def shaken(mode, seed, ops, *args):
    coherent = [] if "unsync" in mode else ["-append", "coherent"]
    result = run_guest("testos", *coherent, "-mmu", mode, "-accel", "interp", "-host-chaos", f"seed={seed},rate=2000,ops={ops},async=on",
                       "-stats", *args)
    check("ThreadSanitizer" not in result.err and "order of locks" not in result.err, f"{mode}: {result.err[:4000]}")
    check("audit:" not in result.err, f"{mode}: {result.err[:4000]}")
    check(result.status == 33, f"{mode}: status {result.status}\n{result.out[-1000:]}\n{result.err[:3000]}")
    check(re.search(r"\d+ passed, 0 failed", result.out), f"{mode}: {result.out[-300:]}")
    events = int(re.search(r"^chaos\.events\s+(\d+)", result.err, re.M).group(1))
    check(events > 20, f"{mode}: only {events} events")


def test_host_events_of_another_thread_race_with_nothing():
    for mode in MODES:
        for seed in range(1, 11 if LONG else 2):
            shaken(mode, seed, "all", "-audit", "1000000")


def test_limit_and_events_of_another_thread_go_together():
    for mode in MODES if LONG else MODES[:1]:
        shaken(mode, 12, OPS, "-memlimit", "2M")


def test_huge_host_pages_and_events_of_another_thread_go_together():
    for mode in MODES if LONG else ("ept",):
        shaken(mode, 13, "all", "-hugepages", "2M")


harness.main(globals())
