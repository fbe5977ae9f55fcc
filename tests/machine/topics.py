"""The guests of one topic each: content in every mode, the same run in every mode."""
import re

import harness
from harness import check, run_guest

MODES = ("shadow", "walk", "ept")
TOPICS = {  # guest: checks that must be there at least, with -cpu max
    "debugging": 95,
    "gates": 120,
    "paging32": 85,
    "realmode": 65,
    "segments": 470,
    "tasks": 200,
    "v86": 200,
    "wide": 90,
}


def verdict(name, result):
    check(result.status == 33, f"{name}: status {result.status}\n{result.out[-3000:]}\n{result.err[-2000:]}")
    return int(re.search(r"(\d+) passed, 0 failed", result.out).group(1))


def test_every_topic_is_content_and_runs_alike_in_every_mode():
    for name, wanted in TOPICS.items():
        digests = set()
        for mode in MODES:
            result = run_guest(name, "-cpu", "max", "-mmu", mode, "-digest")
            count = verdict(name, result)
            check(count >= wanted, f"{name} {mode}: only {count} checks")
            digests.add(result.digest())
        check(len(digests) == 1, f"{name}: {digests}")


def test_nothing_in_them_is_unimplemented():
    for name in TOPICS:
        result = run_guest(name, "-cpu", "max", "-d", "unimp")
        verdict(name, result)
        # a value that an MSR refuses is named too
        lines = [line for line in result.err.splitlines() if "WRMSR 0xc0000100 value" not in line]
        check(not lines, f"{name}: {lines[:20]}")


harness.main(globals())
