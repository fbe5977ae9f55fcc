"""The guests of one topic each: content in every mode, the same run in every mode."""
import re

import harness
from harness import check, run_guest, tmp, write_tmp

MODES = ("shadow", "walk", "ept")
TOPICS = {  # guest: checks that must be there at least, with -cpu max
    "debugging": 95,
    "events": 45,
    "fpu": 155,
    "gates": 120,
    "paging32": 85,
    "realmode": 65,
    "segments": 470,
    "smram": 29,
    "tasks": 200,
    "v86": 200,
    "wide": 90,
    "xsave": 88,
}
EXPECTED_UNIMP = "WRMSR 0xc0000100 value|RDMSR 0x1db|DEBUGCTL 0x3: branch records|acpi_pm: SMI command 0x55"


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
        # a value that an MSR refuses is named too, and an APM command while SMI is off
        lines = [line for line in result.err.splitlines() if not re.search(EXPECTED_UNIMP, line)]
        check(not lines, f"{name}: {lines[:20]}")


def test_smram_survives_a_snapshot_outside_and_inside_system_management_mode():
    whole = run_guest("smram", "-digest")
    for seen in ("ok 24", ".....", "ok 29"):  # hidden; in the handler; locked
        snap = tmp("smram.snap")
        script = write_tmp("smram.script", f'wait "{seen}"\nsavevm "{snap}"\n')
        saved = run_guest("smram", "-digest", "-input-script", script)
        check(saved.digest() == whole.digest(), f"{seen}: saving disturbed the run")
        loaded = run_guest("smram", "-digest", "-loadvm", snap)
        verdict("smram", loaded)
        check(loaded.digest() == whole.digest(), f"{seen}: {loaded.err}")


harness.main(globals())
