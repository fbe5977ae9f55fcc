"""What the benches against QEMU TCG share: Debian's amd64 kernel in both, and the time between two marks that the guest writes to port 0xe9."""
import argparse
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CACHE = os.environ.get("UMBRA_CACHE") or os.path.join(
    os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "umbra")
MARK = r"printf '\n' | dd of=/dev/port bs=1 seek=233 count=1 conv=notrunc 2>/dev/null"


def processor_seconds(pid):
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{task}/schedstat") as f:
                total += int(f.read().split()[0])
        except FileNotFoundError:
            pass
    return total / 1e9


def marks(fifo, times, child):
    with open(fifo, "rb", buffering=0) as f:
        while f.read(1):
            times.append((time.monotonic(), processor_seconds(child[0].pid)))


def seconds_between_marks(command, folder, work, prepare):
    """Boots to the prompt, does `prepare` and `work` (shell commands); host's clock and processor time that `work` took."""
    fifo, times = os.path.join(folder, "marks"), []
    if os.path.exists(fifo):
        os.unlink(fifo)
    os.mkfifo(fifo)
    holder = []
    threading.Thread(target=marks, args=(fifo, times, holder), daemon=True).start()
    child = subprocess.Popen(command + ["-debugcon", "file:" + fifo], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             stderr=subprocess.DEVNULL)
    holder.append(child)
    work = f"sh /lib/modules/load; {prepare}; {MARK}; {work}; {MARK}; poweroff -f\n"
    seen = b""
    while b"umbra# " not in seen:
        chunk = os.read(child.stdout.fileno(), 65536)
        if not chunk:
            sys.exit("ended before the prompt: " + " ".join(command))
        seen = seen[-64:] + chunk
    child.stdin.write(work.encode())
    child.stdin.flush()
    child.stdout.read()
    child.wait()
    if len(times) != 2:
        sys.exit(f"{len(times)} marks instead of 2: " + " ".join(command))
    return tuple(b - a for a, b in zip(*times))


def arguments(description):
    ap = argparse.ArgumentParser(description=description)
    ap.add_argument("--runs", type=int, default=3)
    ap.add_argument("--umbra", default=os.path.join(TOP, "build", "release", "umbra"))
    return ap


def guest(folder):
    """Options of a machine with the kernel and its drivers."""
    if not shutil.which("qemu-system-x86_64"):
        sys.exit("qemu-system-x86_64 is missing (package qemu-system-x86)")
    if subprocess.run([os.path.join(TOP, "scripts", "fetch-guests"), "modules-amd64"]).returncode:
        sys.exit("the guest's kernel cannot be fetched")
    initrd = os.path.join(folder, "initrd")
    with open(initrd, "wb") as out:
        for part in ("initrd.img", "modules-amd64.img"):
            with open(os.path.join(CACHE, part), "rb") as f:
                out.write(f.read())
    return ["-m", "512M", "-kernel", os.path.join(CACHE, "vmlinuz-amd64"), "-initrd", initrd, "-append", "console=ttyS0 quiet",
            "-display", "none", "-serial", "stdio", "-no-reboot"]


def compare(umbra, options, folder, work, runs, what, prepare="true"):
    """Alternating runs; prints each, then medians and the ratio Umbra / TCG."""
    times = {"umbra": [], "tcg": []}
    for run in range(runs):
        times["umbra"].append(seconds_between_marks([umbra, "-accel", "jit"] + options, folder, work, prepare))
        times["tcg"].append(
            seconds_between_marks(["qemu-system-x86_64", "-accel", "tcg", "-monitor", "none"] + options, folder, work, prepare))
        (u, ucpu), (t, tcpu) = times["umbra"][-1], times["tcg"][-1]
        print(f"run {run + 1}: umbra {u:.3f} s ({ucpu:.3f} processor), tcg {t:.3f} s ({tcpu:.3f} processor)", flush=True)
    for k, clock in enumerate(("host's clock", "processor time")):
        umbra_median, tcg = (statistics.median(x[k] for x in times[who]) for who in ("umbra", "tcg"))
        print(f"median of {what}, {clock}: umbra {umbra_median:.3f} s, tcg {tcg:.3f} s, ratio {umbra_median / tcg:.2f}")
