"""The test guests, the documented exit codes, reports, determinism and snapshots."""
import os
import pty
import re
import signal
import subprocess
import termios

import harness
from harness import LONG, check, guest, run_guest, tmp, umbra, write_tmp

MODES = ("shadow", "walk", "ept")


def verdict(result):
    check(result.status == 33, f"status {result.status}\n{result.out[-3000:]}\n{result.err[-2000:]}")
    bad = [line for line in result.out.splitlines() if line.startswith("not ok")]
    check(not bad, "\n".join(bad))
    found = re.search(r"(\d+) passed, 0 failed", result.out)
    check(found, "no verdict: " + result.out[-300:])
    return int(found.group(1))


def test_test_os_is_content_in_every_mode():
    for mode in MODES:
        count = verdict(run_guest("testos", "-append", "coherent", "-mmu", mode))
        check(count >= 200, f"{mode}: only {count} checks")
    for model in ("max", "core2"):
        verdict(run_guest("testos", "-append", "coherent", "-cpu", model))


def test_test_os_is_content_with_unsync_tables():
    # Not coherent: the test OS is not told otherwise, and flushes as it must on a processor.
    result = run_guest("testos", "-mmu", "shadow,unsync=on", "-stats")
    verdict(result)
    unsyncs = int(re.search(r"^shadow\.unsyncs\s+(\d+)", result.err, re.M).group(1))
    check(unsyncs > 0, "no table was ever unsync")
    verdict(run_guest("testos", "-mmu", "shadow,unsync=on", "-audit", "events"))


def test_audit_holds_after_every_event_of_the_test_os():
    for mode in MODES:
        result = run_guest("testos", "-append", "coherent", "-mmu", mode, "-audit", "events", "-stats")
        verdict(result)
        check("audit:" not in result.err, result.err[-2000:])
        audits = int(re.search(r"^audits\s+(\d+)", result.err, re.M).group(1))
        check(audits > 1000, f"only {audits} audits ran")


def test_small_guests_are_content():
    for name in ("fwcfgdma", "smc", "timer"):
        for mode in MODES:
            result = run_guest(name, "-mmu", mode)
            check(result.status == 33, f"{name} {mode}: status {result.status}\n{result.out[-2000:]}{result.err[-1000:]}")


def test_stale_tlb_detector_finds_the_planted_bug_and_nothing_else():
    for mode in MODES:
        clean = run_guest("testos", "-append", "coherent", "-mmu", mode, "-d", "staletlb")
        verdict(clean)
        check(not clean.err.strip(), f"{mode}: reports in a clean run:\n{clean.err[:2000]}")
        planted = run_guest("testos", "-append", "coherent plant=invlpg", "-mmu", mode, "-d", "staletlb")
        gva = re.search(r"planted: stale use at gva (0x[0-9a-f]+)", planted.out)
        check(gva, "the guest did not plant: " + planted.out[-500:])
        address = int(gva.group(1), 16)
        lines = planted.err.strip().splitlines()
        check(lines and all(int(m, 16) >> 12 == address >> 12 for line in lines for m in re.findall(r"gva (0x[0-9a-f]+)", line)),
              f"{mode}: {planted.err}")


def test_triple_fault_leaves_a_report_and_code_4():
    for mode in MODES:
        result = run_guest("triplefault", "-mmu", mode)
        check(result.status == 4, f"status {result.status}: {result.err}")
        for word in ("triple fault", "rip", "cr3", "last exceptions", "page walk"):
            check(word.lower() in result.err.lower(), f"'{word}' is missing:\n{result.err}")


def test_halted_for_ever_is_code_10():
    check(run_guest("hltforever").status == 10, "not 10")


def test_limits_are_code_8_and_exact():
    result = run_guest("spin", "-icount-limit", "1234567", "-digest")
    check(result.status == 8 and result.digest()[1] == 1234567, f"{result.status} {result.err}")
    check(run_guest("spin", "-vtimeout", "0.01").status == 8, "vtimeout")


def test_wall_clock_timeout_is_code_6():
    check(run_guest("spin", "-timeout", "0.5", timeout=60).status == 6, "not 6")


def test_a_log_that_cannot_be_written_is_code_12():
    if not os.path.exists("/dev/full"):
        raise harness.Skip("no /dev/full")
    result = run_guest("testos", "-append", "coherent", "-d", "int", "-D", "/dev/full")
    check(result.status == 12 and "/dev/full" in result.err, f"{result.status} {result.err}")


def test_the_guest_goes_on_and_the_terminal_is_restored_when_the_reader_of_the_output_goes_away():
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    read_end, write_end = os.pipe()
    os.close(read_end)
    run = subprocess.Popen([harness.UMBRA, "-m", "32M", "-kernel", guest("hltforever"), "-nographic", "-timeout", "5"],
                           stdin=theirs, stdout=write_end, stderr=subprocess.PIPE)
    os.close(write_end)
    said = run.communicate(timeout=120)[1]
    status = run.returncode
    after = termios.tcgetattr(theirs)
    os.close(ours)
    os.close(theirs)
    check(status == 12 and b"standard output: Broken pipe" in said and b"timeout of 5" in said, f"status {status}: {said}")  # the guest went on
    check(before == after, "the terminal is still raw")


def digest(name, *args):
    result = run_guest(name, "-digest", *args)
    return result.digest(), result.out


def test_digest_is_the_same_in_every_run_mode_and_with_every_observer():
    base = digest("testos", "-append", "coherent")
    # -audit 9973 also cuts the run into odd chunks, which must not be seen either
    for args in ((), ("-stats",), ("-mmu", "walk"), ("-mmu", "ept"), ("-d", "int", "-D", tmp("log")),
                 ("-trace", "all", "-D", tmp("log2")), ("-audit", "9973")):
        other = digest("testos", "-append", "coherent", *args)
        check(other == base, f"{args}: {other[0]} is not {base[0]}")


def test_digest_tells_different_runs_apart():
    a, b = (run_guest("spin", "-icount-limit", n, "-digest").digest()[0] for n in ("100001", "100003"))
    check(a != b, "two positions, one digest")


def test_saved_and_loaded_run_ends_as_the_one_that_was_never_stopped():
    snap = tmp("machine.snap")
    for mode in MODES:
        for text in ("ok 20", "ok 150"):
            script = write_tmp("save.script", f'wait "{text}"\nsavevm "{snap}"\n')
            whole = run_guest("testos", "-append", "coherent", "-mmu", mode, "-digest")
            saved = run_guest("testos", "-append", "coherent", "-mmu", mode, "-digest", "-input-script", script)
            loaded = run_guest("testos", "-append", "coherent", "-mmu", mode, "-digest", "-loadvm", snap)
            check(whole.digest() == saved.digest(), "saving disturbed the run")
            check(loaded.digest() == whole.digest(), f"{mode}: loaded run differs: {loaded.digest()} {whole.digest()}")
            check(whole.out.endswith(loaded.out) and len(loaded.out) < len(whole.out), "serial output differs")


def test_two_saves_at_one_boundary_make_two_files():
    first, second = tmp("first.snap"), tmp("second.snap")
    script = write_tmp("two.script", f'wait "ok 3"\nsavevm "{first}"\nsavevm "{second}"\nquit\n')
    check(run_guest("testos", "-input-script", script).status == 0, "not 0")
    with open(first, "rb") as a, open(second, "rb") as b:
        check(a.read() == b.read(), "two snapshots of one position differ")


def test_snapshot_refuses_another_machine_and_every_damage():
    snap = tmp("small.snap")
    script = write_tmp("small.script", f'wait "ok 3"\nsavevm "{snap}"\nquit\n')
    run_guest("testos", "-input-script", script)
    other = umbra("-m", "64M", "-kernel", guest("testos"), *harness.DEBUG_EXIT, "-loadvm", snap)
    check(other.status == 2 and "-m 32M" in other.err, other.err)
    other = run_guest("testos", "-loadvm", snap, "-cpu", "base,-popcnt")
    check(other.status == 2 and "-cpu" in other.err, other.err)
    check(run_guest("testos", "-loadvm", snap, "-cpu", "base,+popcnt", "-icount-limit", "1").status == 8, "the same model")
    with open(snap, "rb") as f:
        good = f.read()
    step = max(1, len(good) // (2000 if LONG else 60))
    for at in range(0, len(good), step):
        bad = bytearray(good)
        bad[at] ^= 0x40
        result = run_guest("testos", "-loadvm", write_tmp("bad.snap", bytes(bad)), "-icount-limit", "1")
        check(result.status == 2, f"byte {at}: status {result.status} {result.err}")


def test_input_script_types_what_it_says():
    # spin never prints: the wait never matches and the limit ends the run
    script = write_tmp("never.script", 'wait "never"\nsend "x"\n')
    check(run_guest("spin", "-input-script", script, "-icount-limit", "100000").status == 8, "not 8")


harness.main(globals())
