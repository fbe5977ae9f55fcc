"""A host that has no room for a disk's image: the machine stands still and says so, and goes on when there is room again.

The room is a limit of file sizes (RLIMIT_FSIZE), set and lifted from outside while the program runs.
"""
import hashlib
import os
import resource
import time

import harness
from harness import check, write_tmp
from linux_guest import LinuxGuest

WAIT = 900
LIMIT = 8 << 20
DATA = 12 << 20
IMAGE = 16 << 20


def limit(guest, size):
    hard = resource.prlimit(guest.process.pid, resource.RLIMIT_FSIZE)[1]
    resource.prlimit(guest.process.pid, resource.RLIMIT_FSIZE, (hard if size is None else size, hard))


def image(name):
    path = write_tmp(name, b"")
    os.truncate(path, IMAGE)
    return path


def md5_of(path):
    with open(path, "rb") as f:
        return hashlib.md5(f.read(DATA)).hexdigest()


def stops_and_goes_on(guest, device, drive, path):
    limit(guest, LIMIT)
    guest.start(f"dd if=/data of=/dev/{device} bs=1M oflag=direct && echo wr''itten")
    found = guest.qmp.event("BLOCK_IO_ERROR")["data"]
    check((found["device"], found["operation"], found["action"], found["nospace"]) == (drive, "write", "stop", True), found)
    guest.qmp.event("STOP")
    check(guest.status() == "io-error", "status " + guest.status())
    told = guest.qmp.run("human-monitor-command", command_line="info status")["return"]
    check("paused (io-error)" in told, told)
    guest.qmp.run("cont")  # there is still no room: it stands again
    guest.qmp.event("BLOCK_IO_ERROR")
    guest.qmp.event("STOP")
    before = guest.qmp.run("human-monitor-command", command_line="info status")["return"]
    time.sleep(0.5)
    check(guest.qmp.run("human-monitor-command", command_line="info status")["return"] == before, "time goes on")
    limit(guest, None)
    guest.qmp.run("cont")
    guest.until("written")
    guest.until("umbra# ")
    check(guest.status() == "running", "status " + guest.status())
    text = guest.run(f"sync; echo 3 >/proc/sys/vm/drop_caches; dd if=/dev/{device} bs=1M count={DATA >> 20} 2>/dev/null | md5sum")
    check(md5_of(path) in text, f"{device}: the image holds {md5_of(path)}, the guest reads {text}")
    return md5_of(path)


def test_a_full_host_disk_stops_the_machine_and_no_write_is_lost():
    disks = {name: image(name + ".img") for name in ("ide", "virtio", "sata", "report")}
    guest = LinuxGuest("-drive", f"file={disks['ide']},if=ide,format=raw", "-drive", f"file={disks['virtio']},if=virtio,format=raw",
                  "-drive", f"file={disks['sata']},if=none,id=s,format=raw", "-device", "ahci,id=a", "-device", "ide-hd,drive=s,bus=a.0",
                  "-drive", f"file={disks['report']},if=virtio,format=raw,werror=report")
    try:
        text = guest.run(f"head -c {DATA} /dev/urandom > /data; md5sum < /data")
        for device, drive, name in (("vda", "virtio0", "virtio"), ("sda", "ide0-hd0", "ide"), ("sdb", "s", "sata")):
            got = stops_and_goes_on(guest, device, drive, disks[name])
            check(got in text, f"{drive}: the disk holds {got}, the guest wrote {text}")
        limit(guest, LIMIT)
        failed = guest.run("dd if=/data of=/dev/vdb bs=1M oflag=direct || echo re''fused")
        check("refused" in failed and guest.status() == "running", "werror=report: " + failed)
        limit(guest, None)
        guest.start("poweroff -f")
        check(guest.process.wait(WAIT) == 0, "the end")
    finally:
        guest.process.kill()
        guest.process.wait()
    messages = guest.said()
    for drive in ("virtio0", "ide0-hd0", "s"):
        check(f"drive {drive}: the host's disk is full" in messages, messages)


harness.main(globals())
