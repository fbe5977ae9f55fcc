"""One boot, then a forked machine for each line of a list: each ends as a machine that got that line and was never forked."""
import os
import re
import signal
import subprocess
import time

import harness
from harness import DEBUG_EXIT, LONG, check, guest, linux, run_guest, tmp, umbra, write_tmp

MODES = ("shadow", "walk", "ept")
MARKER = "ready> "
LINES = ("fill 300; sum; exit 16", "swap 20; fill 30; sum; exit 16", "sum; exit 16", "fill 1024; swap 512; sum; exit 16",
         "hello; fill 1; sum; exit 16")


def write_list(lines, name="list"):
    return write_tmp(name, "".join(line + "\n" for line in lines))


def options(lines, out, *args, marker=MARKER):
    return ["-fork-at", marker, "-fork-run", write_list(lines), "-fork-out", out, *args]


def fork(lines, *args, out="forks", **kw):
    """Runs `lines` and returns the result and the children's serial output."""
    result = run_guest("lines", *options(lines, tmp(out)), *args, **kw)
    return result, [serial(out, k + 1) for k in range(len(lines))]


def serial(out, child):
    with open(os.path.join(tmp(out), f"child-{child}.serial"), "rb") as f:
        return f.read().decode("utf-8", "replace")


def rows(result):
    """The table: (status, end, icount, own, shared) of each child."""
    found = re.findall(r"^ +\d+ +(\d+)  (\S+) +(\d+) +(\d+) +(\d+)  .*$", result.out, re.M)
    return [(int(status), end, int(icount), int(own), int(shared)) for status, end, icount, own, shared in found]


def frames(result):
    found = re.search(r"^frames: (\d+) at the fork, (\d+) at the most, (\d+) at the end$", result.out, re.M)
    check(found, f"no use of frames: {result.out[-500:]}")
    return [int(n) for n in found.groups()]


def digests(result):
    return re.findall(r"^child \d+ digest ([0-9a-f]{16}) icount (\d+)$", result.err, re.M)


def never_forked(line, *args):
    script = write_tmp("line.script", f'wait "{MARKER}"\nsend "{line}\\n"\n')
    result = run_guest("lines", "-input-script", script, "-digest", *args)
    digest, icount = result.digest()
    return result, (digest, str(icount))


def test_each_child_ends_as_the_machine_that_was_never_forked():
    alone = [never_forked(line) for line in LINES]
    for mode in MODES:
        result, outputs = fork(LINES, "-mmu", mode, "-digest")
        check(result.status == 33, f"{mode}: status {result.status}: {result.err}")
        check(digests(result) == [d for _, d in alone], f"{mode}: {digests(result)} is not {[d for _, d in alone]}")
        for (whole, _), output in zip(alone, outputs):
            check(whole.out == "lines: up\r\n" + MARKER + output, f"{mode}: {output!r} is not the end of {whole.out!r}")
            check("sum " in output, output)
        check(len({d for d, _ in digests(result)}) == len(LINES), "different lines, equal digests")


def test_children_with_several_processors_do_too():
    alone = [never_forked(line, "-smp", "3")[1] for line in LINES[:2]]
    result, _ = fork(LINES[:2], "-smp", "3", "-digest")
    check(digests(result) == alone, f"{digests(result)} is not {alone}")


def test_children_share_what_they_do_not_write():
    result, _ = fork(LINES)
    at_fork, peak, end = frames(result)
    table = rows(result)
    check(len(table) == len(LINES), result.out)
    check(end <= peak and at_fork < end, f"{at_fork} {peak} {end}")
    check(end == at_fork + sum(own for _, _, _, own, _ in table), f"frames are missing or counted twice: {result.out}")
    check(300 <= table[0][3] < 330 and table[2][3] < 20 and table[3][3] >= 1024, result.out)
    check(table[2][4] > 1000, "the child that reads only shares next to nothing")


def test_nothing_that_the_host_does_is_noticed_in_children():
    base = digests(fork(LINES, "-digest")[0])
    for mode in MODES:
        for args in (["-audit", "events"], ["-host-chaos", "seed=3,rate=20000"], ["-memlimit", "1M"], ["-ksm", "on"],
                     ["-fork-jobs", "2", "-memlimit", "2M", "-ksm", "on", "-host-chaos", "seed=4,rate=5000"]):
            lines = LINES[:3] if "-audit" in args else LINES
            result, _ = fork(lines, "-mmu", mode, "-digest", *args)
            check(digests(result) == base[:len(lines)], f"{mode} {args}: {digests(result)} is not {base}\n{result.err[-500:]}")
            check("audit:" not in result.err, result.err[-500:])


def test_merging_reaches_across_children():
    same = ["fill 1024; sum; spin"] * 4
    unmerged, merged = (frames(fork(same, "-vtimeout", "0.2", *args)[0])[2] for args in ([], ["-ksm", "on"]))
    check(merged < unmerged - 2000, f"{merged} frames, {unmerged} without merging")


def test_copy_on_write_fires_the_bus():
    fork(LINES[:1], "-stats", "-trace", "notifier.")
    with open(os.path.join(tmp("forks"), "child-1.stats")) as f:
        stats = dict(re.findall(r"^(\S+)\s+(\d+)", f.read(), re.M))
    check(int(stats["host.cow_breaks"]) >= 300 and int(stats["host.ranges"]) >= int(stats["host.cow_breaks"]), str(stats))
    with open(os.path.join(tmp("forks"), "child-1.trace")) as f:
        check("notifier.start" in f.read(), "no trace of the invalidations")


def test_batches_end_as_all_at_once():
    base, outputs = fork(LINES, "-digest")
    for jobs in ("1", "2", "64"):
        result, other = fork(LINES, "-digest", "-fork-jobs", jobs)
        check((digests(result), other) == (digests(base), outputs), f"-fork-jobs {jobs} differs")


def test_status_is_that_of_all_or_says_that_they_differ():
    ends = (("exit 16", 33, "debug-exit"), ("halt", 10, "halted"), ("triple", 4, "triple-fault"), ("spin", 8, "icount-limit"))
    lines = [line for line, _, _ in ends]
    result, _ = fork(lines, "-icount-limit", "3000000")
    check(result.status == 16, f"status {result.status}")
    check([row[:2] for row in rows(result)] == [(status, end) for _, status, end in ends], result.out)
    check("child 3: triple fault" in result.err and "child 2: halted" in result.err, result.err)
    for line, status, _ in ends:
        check(fork([line, line], "-icount-limit", "3000000")[0].status == status, line)


def test_input_script_goes_on_in_each_child():
    script = write_tmp("go-on.script", f'wait "{MARKER}"\nwait "{MARKER}"\nsend "bye; exit 16\\n"\n')
    result, outputs = fork(["one", "two"], "-input-script", script)
    check(result.status == 33, f"status {result.status}: {result.err}")
    for word, output in zip(("one", "two"), outputs):
        check(re.sub(r"\r", "", output) == f"said: {word}\n{MARKER}said: bye\n", repr(output))


def test_a_child_goes_on_from_a_snapshot_of_its_parent():
    snap = tmp("before-fork.snap")
    script = write_tmp("before-fork.script", f'wait "lines: up"\nsavevm "{snap}"\nquit\n')
    run_guest("lines", "-input-script", script)
    base = digests(fork(LINES, "-digest")[0])
    check(digests(fork(LINES, "-digest", "-loadvm", snap)[0]) == base, "after -loadvm the children differ")


def test_timeout_and_signals_end_all_children():
    result, outputs = fork(["hello; spin", "exit 16"], "-timeout", "2", timeout=60)
    check(result.status == 6 and [row[1] for row in rows(result)] == ["stopped", "debug-exit"], f"{result.status} {result.out}")
    check("said: hello" in outputs[0], outputs[0])
    run = subprocess.Popen([harness.UMBRA, "-m", "32M", "-kernel", guest("lines"), "-nographic",
                            *options(["hello; spin"], tmp("signal"))],
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    for _ in range(600):
        if os.path.exists(os.path.join(tmp("signal"), "child-1.serial")):
            break
        time.sleep(0.1)
    time.sleep(1)
    run.send_signal(signal.SIGTERM)
    out = run.communicate(timeout=60)[0].decode()
    check(run.returncode == -signal.SIGTERM, f"status {run.returncode}")
    check("stopped" in out, out)


def test_a_child_without_room_pauses_and_can_be_saved():
    line = "fill 300; hello; grow 2048; sum; exit 16"
    base, digest = never_forked(line)
    result, outputs = fork([line, "exit 16"], "-memlimit", "6M", "-swapsize", "64K", "-pause-save", "yes")
    check(rows(result)[0][:2] == (14, "paused") and rows(result)[1][0] == 33, result.out + result.err)
    rest = run_guest("lines", "-loadvm", os.path.join(tmp("forks"), "child-1.snap"), "-digest")
    check(rest.digest() == (digest[0], int(digest[1])), f"{rest.digest()} is not {digest}")
    check(outputs[0] and base.out.endswith(outputs[0] + rest.out), "serial output was lost")


def refused(args, *words):
    result = umbra("-m", "32M", "-kernel", guest("lines"), "-nographic", *DEBUG_EXIT, *args)
    lines = result.err.strip().splitlines()
    check(result.status == 2 and len(lines) == 1, f"{args}: status {result.status}: {result.err}")
    for word in words:
        check(word in lines[0], f"{args}: '{word}' is not named in: {lines[0]}")


def test_bad_input_is_named():
    out, good = tmp("bad"), write_list(["exit 16"], "good")
    at = ["-fork-at", MARKER]
    refused([*at, "-fork-run", "/nonexistent/list", "-fork-out", out], "/nonexistent/list")
    refused([*at, "-fork-run", write_tmp("empty", ""), "-fork-out", out], "empty", "no line")
    refused([*at, "-fork-run", write_tmp("blanks", " \n\t\n\r\n"), "-fork-out", out], "blanks", "no line")
    refused([*at, "-fork-run", write_tmp("binary", b"a\0b\n"), "-fork-out", out], "binary", "zero byte")
    refused([*at, "-fork-run", harness.TMP, "-fork-out", out], harness.TMP)
    refused([*at, "-fork-run", good], "-fork-out")
    refused([*at, "-fork-out", out], "-fork-run")
    refused(["-fork-run", good, "-fork-out", out], "-fork-at")
    refused(["-fork-at", "", "-fork-run", good, "-fork-out", out], "-fork-at")
    refused([*at, "-fork-run", good, "-fork-out", good], good, "directory")
    refused([*at, "-fork-run", good, "-fork-out", "/nonexistent/a/b"], "/nonexistent/a/b")
    refused([*at, "-fork-run", good, "-fork-out", out, "-fork-jobs", "0"], "-fork-jobs")
    refused([*at, "-fork-run", good, "-fork-out", out, "-s"], "-fork-at")


def test_a_marker_that_never_comes_is_a_clear_end():
    for args, status in ((["-icount-limit", "1000000"], 8), (["-timeout", "1"], 6)):
        result = run_guest("lines", *options(["exit 16"], tmp("never"), marker="no such text"), *args, timeout=60)
        check(result.status == status and "'no such text'" in result.err, f"{args}: {result.status} {result.err}")
        check(not os.listdir(tmp("never")), "a child ran")
    script = write_tmp("leave.script", f'wait "{MARKER}"\nquit\n')
    result = run_guest("lines", *options(["exit 16"], tmp("never"), marker="no such text"), "-input-script", script)
    check(result.status == 2 and "'no such text'" in result.err, f"{result.status} {result.err}")


COMMANDS = (
    ("uname -a", "Linux (none)"),
    ("echo sum $(seq 1 100 | sort -n | md5sum)", "sum "),
    ("cat /proc/version", "Linux version"),
    ("echo sys $(ls /sys | wc -l)", "sys "),
    ("seq 1 2000 | sort -rn | gzip | gunzip | head -n 1", "\n2000\n"),
    ("mkdir -p /d/a/b; find /d | sort | tail -n 1", "\n/d/a/b\n"),
    ("for i in 1 2 3; do echo round $i; done", "round 3"),
    ("grep -c . /proc/cpuinfo", "\n2"),
    ("free | head -n 1", "total"),
    ("ps | grep -c kthreadd", "\n2\n"),
    ("mount | wc -l; echo mounts", "mounts"),
    ("dd if=/dev/zero bs=4k count=10 2>/dev/null | wc -c", "\n40960\n"),
    ("echo $((6*7))", "\n42\n"),
    ("date -u +%Y", "\n2020\n"),
    ("i=0; while [ $i -lt 20 ]; do /bin/true; i=$((i+1)); done; echo forked $i", "forked 20"),
    ("seq 1 500 > /a; cp /a /b; cmp /a /b && echo equal", "\nequal\n"),
)


def test_sixteen_children_of_one_linux_boot_need_less_memory_than_one_and_a_half():
    lines = [command + "; poweroff -f" for command, _ in COMMANDS]
    for mode in MODES if LONG else ("shadow", "ept"):
        result = umbra(*linux(), *options(lines, tmp("linux"), "-digest", "-mmu", mode, marker="umbra# "), timeout=1800)
        check(result.status == 0, f"{mode}: status {result.status}\n{result.out[-3000:]}{result.err[-1000:]}")
        for k, (command, answer) in enumerate(COMMANDS):
            out = serial("linux", k + 1).replace("\r", "")
            check(answer in out.split(lines[k], 1)[1] and "Power down" in out, f"{mode}: '{command}':\n{out}")
        at_fork, peak, end = frames(result)
        print(f"        {mode}: {at_fork} frames at the fork, {peak} at the most for 17 machines: {peak / at_fork:.2f} times")
        check(max(peak, end) <= 1.5 * at_fork, f"{mode}: {at_fork} frames became {peak}")
        if mode == "shadow":
            base = digests(result)
            script = write_tmp("linux-line.script", f'wait "umbra# "\nsend "{lines[4]}\\n"\n')
            alone = umbra(*linux(), "-input-script", script, "-digest", timeout=900)
            check(alone.digest() == (base[4][0], int(base[4][1])), f"{alone.digest()} is not {base[4]}")
        check(digests(result) == base, f"{mode}: digests differ")


harness.main(globals())
