"""What firmware and kernels are told: which device to start from, who the machine is, that its power button was pressed."""
import os
import re
import struct
import subprocess
import sys

import harness
from harness import DEBUG_EXIT, Skip, check, fetched, tmp, umbra, write_tmp
from qmp_client import Client, Qmp

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "boot"))
import media  # noqa: E402

LEAVE = b"\xb0%c\xe6\xf4\xf4\xeb\xfd"  # mov al, N; out 0xf4, al; hlt; jmp hlt
# Exit codes tell which device was started: isa-debug-exit ends with 2 * N + 1.
FLOPPY, DISK, CD, VIRTIO, SECOND = 1, 2, 3, 4, 5


def boot_sector(n):
    return (LEAVE % n).ljust(510, b"\0") + b"\x55\xaa"


def image(name, n, size):
    path = write_tmp(name, boot_sector(n))
    os.truncate(path, size)
    return path


def cd(name, n):
    """An ISO 9660 image without files: a boot record, a boot catalog with one entry, its sectors."""
    sector = 2048
    primary = (b"\1CD001\1").ljust(sector, b"\0")
    record = (b"\0CD001\1" + b"EL TORITO SPECIFICATION".ljust(64, b"\0") + struct.pack("<I", 19)).ljust(sector, b"\0")
    end = (b"\xffCD001\1").ljust(sector, b"\0")
    check_entry = struct.pack("<BBH24sHBB", 1, 0, 0, b"", 0, 0x55, 0xaa)
    words = struct.unpack("<16H", check_entry)
    check_entry = struct.pack("<BBH24sHBB", 1, 0, 0, b"", -sum(words) & 0xffff, 0x55, 0xaa)
    entry = struct.pack("<BBHBBHI", 0x88, 0, 0, 0, 0, 4, 20)
    catalog = (check_entry + entry).ljust(sector, b"\0")
    return write_tmp(name, bytes(16 * sector) + primary + record + end + catalog + boot_sector(n).ljust(sector, b"\0"))


def drives():
    return ["-drive", "if=floppy,format=raw,file=" + image("floppy", FLOPPY, 1474560) + "%s",
            "-drive", "if=none,id=d,file=" + image("disk", DISK, 1 << 20),
            "-drive", "if=none,id=c,readonly=on,file=" + cd("cd", CD),
            "-drive", "if=none,id=v,file=" + image("virtio", VIRTIO, 1 << 20),
            "-drive", "if=none,id=w,file=" + image("second", SECOND, 1 << 20)]


def start(floppy="", disk="", cdrom="", virtio="", second="", *more):
    options = drives()
    options[1] %= floppy
    return umbra("-m", "32M", *options, "-device", "ide-hd,drive=d,bus=ide.0,unit=1" + disk, "-device", "ide-cd,drive=c,bus=ide.1" + cdrom,
                 "-device", "virtio-blk-pci,drive=v,addr=9" + virtio, "-device", "virtio-blk-pci,drive=w,addr=5" + second, *more,
                 *DEBUG_EXIT, "-display", "none", "-no-reboot", "-timeout", "300")


def started(result, n):
    check(result.status == 2 * n + 1, f"status {result.status}, not {2 * n + 1}: {result.err[-1000:]}")


def test_seabios_starts_the_device_with_the_lowest_bootindex():
    fetched("seabios", "")
    started(start(disk=",bootindex=2", cdrom=",bootindex=1", virtio=",bootindex=3"), CD)
    started(start(disk=",bootindex=2", cdrom=",bootindex=3", virtio=",bootindex=1"), VIRTIO)
    started(start(virtio=",bootindex=9", second=",bootindex=8", cdrom=",bootindex=10"), SECOND)
    started(start(floppy=",bootindex=0", disk=",bootindex=1"), FLOPPY)
    started(start(disk=",bootindex=0", floppy=",bootindex=1"), DISK)


def test_bootindex_comes_before_the_letters_and_letters_before_the_rest():
    fetched("seabios", "")
    started(start("", "", "", "", "", "-boot", "order=d"), CD)
    started(start("", "", "", "", "", "-boot", "order=ad"), FLOPPY)
    started(start("", "", "", ",bootindex=1", "", "-boot", "order=d"), VIRTIO)
    started(start("", "", "", "", "", "-boot", "once=d,order=a"), CD)


def test_seabios_starts_drives_behind_ahci_controllers_by_bootindex():
    fetched("seabios", "")
    ports = ["-device", "ahci,id=a,addr=8", "-device", "ich9-ahci"]
    for disk, cdrom, n in ((",bootindex=1", ",bootindex=2", DISK), (",bootindex=2", ",bootindex=1", CD)):
        started(umbra("-m", "32M", *(drives()[2:6]), *ports, "-device", "ide-hd,drive=d,bus=a.3" + disk, "-device",
                      "ide-cd,drive=c,bus=ide.7,unit=0" + cdrom, *DEBUG_EXIT, "-display", "none", "-no-reboot", "-timeout", "300"), n)


def test_seabios_finds_every_processor():
    fetched("seabios", "")
    for n in ("4", "6,sockets=2,cores=3"):
        result = umbra("-m", "32M", "-smp", n, "-fda", image("floppy", FLOPPY, 1474560), *DEBUG_EXIT, "-d", "firmware", "-timeout", "300")
        started(result, FLOPPY)
        check(f"Found {n[0]} cpu(s) max supported {n[0]} cpu(s)" in result.err, result.err[:2000])


def test_strict_boots_nothing_that_is_not_named():
    fetched("seabios", "")
    empty = write_tmp("empty", bytes(1 << 20))
    result = umbra("-m", "32M", "-drive", "bootindex=1,file=" + empty, "-fda", image("floppy", FLOPPY, 1474560), "-boot", "strict=on", *DEBUG_EXIT,
                   "-vtimeout", "20", "-d", "firmware", "-timeout", "300")
    check(result.status in (8, 10) and "Booting from Hard Disk" in result.err and "Booting from Floppy" not in result.err, result.err[-1500:])


def test_impossible_orders_are_refused():
    for what in ("-device ide-hd,drive=d,bootindex=1 -device virtio-blk-pci,drive=v,bootindex=1", "-device ide-hd,drive=nobody",
                 "-device ide-hd,drive=d,unit=2", "-device ide-cd,drive=d -device virtio-blk-pci,drive=d", "-device e1000,bootindex=x"):
        disks = ["-drive", "if=none,id=d,file=" + image("disk", DISK, 1 << 20), "-drive", "if=none,id=v,file=" + image("virtio", VIRTIO, 1 << 20)]
        result = umbra("-m", "32M", *disks, *what.split())
        check(result.status == 2, f"{what}: {result.status} {result.err}")


def test_drives_have_a_port_of_a_controller_to_themselves():
    disks = ["-drive", "if=none,id=d,file=" + image("disk", DISK, 1 << 20), "-drive", "if=none,id=v,file=" + image("virtio", VIRTIO, 1 << 20)]
    for what, says in (("-device ahci,id=a -device ide-hd,drive=d,bus=a.6", "no place bus=a.6"),
                       ("-device ahci,id=a -device ide-hd,drive=d,bus=a.0,unit=1", "unit=1"),
                       ("-device ahci,id=a -device ide-hd,drive=d,bus=b.0", "no place bus=b.0"),
                       ("-device ahci,id=a -device ide-hd,drive=d,bus=ide.2", "no place bus=ide.2"),
                       ("-device ahci -device ide-hd,drive=d,bus=ide.8", "no place bus=ide.8"),
                       ("-device ahci,id=a -device ide-hd,drive=d,bus=a.1 -device ide-hd,drive=v,bus=a.1", "port of the AHCI controller"),
                       ("-device ahci,drive=d", "drive= is unknown"), ("-device ahci,bootindex=1", "bootindex= is unknown"),
                       ("-drive if=sata,file=x", "if=sata")):
        result = umbra("-m", "32M", *disks, *what.split())
        check(result.status == 2 and says in result.err, f"{what}: {result.status} {result.err}")


def efi_application(n):
    """A PE32+ image whose entry leaves with N."""
    code = (LEAVE % n).ljust(512, b"\xcc")
    head = b"MZ".ljust(60, b"\0") + struct.pack("<I", 64)
    coff = b"PE\0\0" + struct.pack("<HHIIIHH", 0x8664, 1, 0, 0, 0, 240, 0x22)
    optional = struct.pack("<HBBIIIII", 0x20b, 0, 0, 512, 0, 0, 0x1000, 0x1000)
    optional += struct.pack("<QIIHHHHHHIIIIHH", 0x400000, 0x1000, 512, 0, 0, 0, 0, 0, 0, 0, 0x2000, 512, 0, 10, 0)
    optional += struct.pack("<QQQQII", 0, 0, 0, 0, 0, 16) + bytes(128)
    section = struct.pack("<8sIIIIIIHHI", b".text", 512, 0x1000, 512, 512, 0, 0, 0, 0, 0x60000020)
    return (head + coff + optional + section).ljust(512, b"\0") + code


def efi_disk(name, n):
    path, app = tmp(name + ".img"), write_tmp(name + ".efi", efi_application(n))
    media.run(media.tool("mformat"), "-C", "-i", path, "-T", "8192", "-h", "16", "-s", "63", "-N", "12345678", "::")
    media.run(media.tool("mmd"), "-i", path, "::EFI", "::EFI/BOOT")
    media.run(media.tool("mcopy"), "-i", path, app, "::EFI/BOOT/BOOTX64.EFI")
    return path


def test_ovmf_starts_the_device_with_the_lowest_bootindex():
    if os.environ.get("UMBRA_SKIP_LINUX") == "1":
        raise Skip("firmware boots are not run under sanitizers")
    code, disk, other = media.ovmf_code(), efi_disk("disk", DISK), efi_disk("virtio", VIRTIO)
    for first, second, n in ((1, 2, DISK), (2, 1, VIRTIO)):
        result = umbra("-m", "128M", "-drive", f"if=pflash,readonly=on,file={code}", "-drive", "if=pflash,file=" + media.ovmf_vars(),
                       "-drive", f"file={disk},if=ide,bootindex={first}", "-drive", f"file={other},if=virtio,bootindex={second}",
                       *DEBUG_EXIT, "-timeout", "600")
        started(result, n)


def whole_ovmf():
    """Variables and code in one file, as the firmware's build makes them."""
    return write_tmp("ovmf.fd", open(media.ovmf("OVMF_VARS.fd"), "rb").read() + open(media.ovmf("OVMF_CODE.fd"), "rb").read())


def test_ovmf_starts_from_one_read_only_flash():
    if os.environ.get("UMBRA_SKIP_LINUX") == "1":
        raise Skip("firmware boots are not run under sanitizers")
    disk = efi_disk("disk", DISK)
    for flash in (media.ovmf_code(), whole_ovmf()):
        before = open(flash, "rb").read()
        result = umbra("-m", "128M", "-drive", f"if=pflash,readonly=on,format=raw,file={flash}", "-drive", f"file={disk},if=ide",
                       *DEBUG_EXIT, "-timeout", "600", "-accel", "jit")
        started(result, DISK)
        check(open(flash, "rb").read() == before, "the flash file has changed")


# ---- Linux ----

PRESSES = """sh /lib/modules/load
button=$(grep -l "Power Button" /sys/class/input/event*/device/name | head -n 1)
button=/dev/input/$(echo $button | cut -d/ -f5)
echo note $(cat /sys/kernel/vmcoreinfo) left $(od -An -v -tx8 /sys/firmware/qemu_fw_cfg/by_name/etc/vmcoreinfo/raw)
echo we are $(cat /sys/class/dmi/id/chassis_vendor) $(cat /sys/class/dmi/id/board_name)
exec 3<$button
(head -c 96 <&3 >/dev/null; echo pressed once; head -c 96 <&3 >/dev/null; echo pressed twice; poweroff -f) &
echo re''ady
"""


def test_linux_finds_vmcoreinfo_and_hears_the_power_button_of_qmp_and_of_the_monitor():
    options = harness.linux()
    fetched("modules-cloud", "")
    initrd = write_tmp("initrd", media.read(os.path.join(harness.CACHE, "initrd.img")) + media.read(os.path.join(harness.CACHE, "modules-cloud.img")) +
                       media.cpio({"presses": (0o100755, PRESSES.encode())}))
    options[options.index("-initrd") + 1] = initrd
    script = write_tmp("presses.script", 'wait "umbra# "\nsend ". /presses\\n"\n')
    qmp, monitor = tmp("qmp.sock"), tmp("monitor.sock")
    process = subprocess.Popen([harness.UMBRA, *options, "-device", "vmcoreinfo", "-smbios", "type=2,product=board one", "-smbios", "type=3,manufacturer=box",
                                "-qmp", f"unix:{qmp},server,nowait", "-monitor", f"unix:{monitor},server,nowait", "-input-script", script,
                                "-timeout", "600"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    seen = ""

    def wait(text):
        nonlocal seen
        while text not in seen:
            line = process.stdout.readline().decode("utf-8", "replace")
            check(line, f"'{text}' was not shown:\n{seen[-3000:]}")
            seen += line
    wait("\nready")
    q, m = Qmp(qmp, process), Client(monitor, process)
    q.run("system_powerdown")
    wait("pressed once")
    q.event("POWERDOWN")
    m.send(b"info vmcoreinfo\n")
    m.until(b"bytes at ")
    said = m.until(b"\n").decode()
    m.send(b"system_powerdown\n")
    wait("pressed twice")
    rest = process.communicate(timeout=300)[0].decode("utf-8", "replace")
    check(process.returncode == 0, f"status {process.returncode}: {rest[-1000:]}")
    check("we are box board one" in seen, seen[-2000:])
    note = re.search(r"note 0x([0-9a-f]+) ([0-9a-f]+) left ([0-9a-f]{16}) ([0-9a-f]{16})", seen)
    check(note, seen[-2000:])
    address, size, head, left = (int(g, 16) for g in note.groups())
    check(head == (size << 32 | 1 << 16) and left == address, note.group(0))
    check(f"0x{address:x}" in said, said)


CLOCKS = """cat /sys/devices/system/clocksource/clocksource0/current_clocksource; grep -c HPET /proc/iomem; grep -w timer /proc/interrupts
a=$(date +%s); sleep 3; echo slept $(($(date +%s) - a)); poweroff -f
"""


def clocks(append, *more):
    options = harness.linux()
    options[options.index("-append") + 1] += " " + append
    script = write_tmp("clocks.script", 'wait "umbra# "\n' + "".join(f'send "{line}\\n"\n' for line in CLOCKS.splitlines()))
    result = umbra(*options, *more, "-input-script", script, "-digest", "-vtimeout", "60", "-timeout", "600")
    # With "noapic nolapic" Linux cannot power off: it halts.
    check(result.status in (0, 10), f"{append}: status {result.status}: {result.out[-1500:]}{result.err[-300:]}")
    bad = [line for line in result.out.splitlines() if re.search("firmware bug|unstable due to c|hpet.*(fail|broken|not )|warning:", line, re.I)]
    check(not bad, "\n".join(bad))
    check("slept 3" in result.out, f"{append}: {result.out[-1500:]}")
    return result


def test_linux_keeps_time_by_the_hpet_and_takes_its_interrupts():
    by_apic = clocks("clocksource=hpet", "-smp", "2")
    check("hpet0: 3 comparators, 64-bit 100.000000 MHz counter" in by_apic.out and "Switched to clocksource hpet" in by_apic.out, by_apic.out[-3000:])
    by_pic = clocks("clocksource=hpet noapic nolapic")
    ticks = re.search(r"0: +(\d+) +XT-PIC +timer", by_pic.out)
    check(ticks and int(ticks.group(1)) > 50, by_pic.out[-1500:])
    again = clocks("clocksource=hpet noapic nolapic", "-accel", "interp" if harness.LONG else "jit", "-mmu", "ept")
    check(again.digest() == by_pic.digest(), f"{again.digest()} is not {by_pic.digest()}")


def test_machine_without_an_hpet_has_none():
    for option in (("-no-hpet",), ("-machine", "pc,hpet=off")) if harness.LONG else (("-machine", "hpet=off"),):
        out = clocks("nohz=on", *option).out
        check("ACPI: HPET" not in out and "hpet0" not in out and "clocksource tsc" in out, out[-3000:])


harness.main(globals())
