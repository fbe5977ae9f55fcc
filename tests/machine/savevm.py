"""Five different guests, saved in the middle and loaded into a new process, end where the uninterrupted run ends."""
import hashlib
import os
import re
import subprocess

import harness
from harness import CACHE, LONG, TOP, Skip, check, linux, tmp, umbra, write_tmp

ENGINES = (["-accel", "jit"], ["-accel", "interp"]) if LONG else (["-accel", "jit"],)


def fetched(name, file):
    done = subprocess.run([os.path.join(TOP, "scripts", "fetch-guests"), name], stderr=subprocess.PIPE)
    if done.returncode == 3:
        raise Skip(done.stderr.decode().strip().splitlines()[-1])
    check(done.returncode == 0, done.stderr.decode())
    return os.path.join(CACHE, file)


def same_end(name, options, script, statuses=(0, 8)):
    """The script saves to SNAPSHOT somewhere in the middle."""
    for engine in ENGINES:
        snapshot = tmp(name + ".snap")
        steps = write_tmp(name + ".script", script.replace("SNAPSHOT", snapshot))
        args = [*options, *engine, "-input-script", steps, "-digest"]
        whole = umbra(*args)
        check(whole.status in statuses, f"{name}: status {whole.status}\n{whole.err[-2000:]}\n{whole.out[-2000:]}")
        check(os.path.exists(snapshot), f"{name}: nothing was saved")
        loaded = umbra(*args, "-loadvm", snapshot)
        check(loaded.status == whole.status, f"{name}: loaded status {loaded.status}\n{loaded.err[-2000:]}")
        check(loaded.digest() == whole.digest(), f"{name} {engine}: loaded {loaded.digest()} whole {whole.digest()}")
        os.unlink(snapshot)
    return whole


def modules_image(kernel="cloud"):
    options = linux(kernel)
    linux("modules-" + kernel)
    image = tmp("initrd-modules")
    with open(image, "wb") as out:
        for part in ("initrd.img", f"modules-{kernel}.img"):
            with open(os.path.join(CACHE, part), "rb") as f:
                out.write(f.read())
    options[options.index("-initrd") + 1] = image
    return options


def test_linux_in_the_middle_of_virtio_transfers():
    disk = tmp("disk.img")
    with open(disk, "wb") as f:
        for k in range(24 << 20 >> 12):
            f.write(bytes([k & 255, k >> 8 & 255]) * 2048)
    work = ("sh /lib/modules/load; (dd if=/dev/vda bs=64k | md5sum; dd if=/dev/zero of=/dev/vda bs=64k count=64 conv=fsync; "
            "dd if=/dev/hwrng bs=512 count=20 | md5sum; dd if=/dev/vda bs=1M skip=2 count=4 | md5sum) 2>/dev/null; echo all done")
    script = ('wait "umbra# "\nsend "%s\\n"\nwait "load;"\ndelay 180\nsavevm "SNAPSHOT"\nwait "\\nall done"\nsend "poweroff -f\\n"\n'
              % work)
    options = modules_image() + ["-device", "virtio-rng-pci", "-drive", f"if=virtio,format=raw,snapshot=on,file={disk}"]
    done = same_end("virtio", options, script, (0,))
    check(len(re.findall(r"^\w{32}  -", done.out, re.M)) == 3, "three sums were expected:\n" + done.out[-1500:])


def same_transfers(name, *device):
    """A disk's transfers in the middle; `device`: what the drive hangs on."""
    disk = tmp(name + ".img")
    with open(disk, "wb") as f:
        for k in range(24 << 20 >> 12):
            f.write(bytes([k & 255, k >> 8 & 255]) * 2048)
    work = ("sh /lib/modules/load; echo now; (dd if=/dev/sda bs=64k | md5sum; dd if=/dev/sda of=/copy bs=1M count=8; "
            "dd if=/copy of=/dev/sda bs=64k seek=128 conv=fsync; echo 3 >/proc/sys/vm/drop_caches; "
            "dd if=/dev/sda bs=1M count=16 | md5sum) 2>/dev/null; echo all done")
    script = ('wait "umbra# "\nsend "%s\\n"\nwait "\\nnow"\ndelay 37\nsavevm "SNAPSHOT"\nwait "\\nall done"\nsend "poweroff -f\\n"\n'
              % work)
    interface = "none,id=d" if device else "ide"
    options = modules_image("amd64") + ["-drive", f"if={interface},format=raw,snapshot=on,file={disk}", *device]
    done = same_end(name, options, script, (0,))
    with open(disk, "rb") as f:
        content = f.read()
    for part in (content, content[:8 << 20] * 2):
        check(hashlib.md5(part).hexdigest() in done.out, "a wrong sum:\n" + done.out[-1500:])


def test_linux_in_the_middle_of_ide_transfers():
    same_transfers("ide")


def test_linux_in_the_middle_of_queued_sata_transfers():
    same_transfers("ahci", "-device", "ahci,id=a", "-device", "ide-hd,drive=d,bus=a.2")


def test_memtest():
    same_end("memtest", ["-m", "16M", "-kernel", fetched("memtest", "memtest-64.bin"), "-display", "none", "-icount-limit",
                         "300000000"], 'delay 60\nsavevm "SNAPSHOT"\n')


def test_u_boot():
    same_end("u-boot", ["-m", "64M", "-bios", fetched("u-boot", "u-boot-64.rom"), "-display", "none", "-icount-limit",
                        "200000000"], 'delay 40\nsavevm "SNAPSHOT"\n')


def test_gnumach():
    same_end("gnumach", ["-m", "64M", "-kernel", fetched("gnumach", "gnumach"), "-display", "none", "-icount-limit", "60000000"],
             'delay 10\nsavevm "SNAPSHOT"\n', (0, 4, 8, 10))


def test_four_processors_in_the_middle_of_their_work():
    same_end("smp", ["-m", "32M", "-smp", "4", "-kernel", os.path.join(harness.GUESTS, "smp.elf"), "-display", "none",
                        *harness.DEBUG_EXIT], 'delay 1\nsavevm "SNAPSHOT"\n', (33,))


harness.main(globals())
