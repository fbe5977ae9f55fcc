#!/usr/bin/env python3
"""Runs a test guest under Bochs: python3 bochs.py GUEST.elf [COMMAND LINE].

Prints the guest's serial output and exits 0 if its verdict says that nothing failed. Bochs knows no Multiboot: the image goes
onto a hard disk behind a boot sector (bootsector.S). Debian packages: bochs, bochs-term, seabios, binutils, gcc.
"""
import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
SECTOR, PIECE, BASE = 512, 64 * 512, 0x100000
VGA_BIOS = "/usr/share/seabios/vgabios-stdvga.bin"
CPU = os.environ.get("BOCHS_CPU", "corei7_skylake_x")


def flat_image(path):
    """The loadable parts of an ELF32 file as they lie in memory from 1 MiB on, and the entry."""
    with open(path, "rb") as f:
        elf = f.read()
    entry, phoff = struct.unpack_from("<II", elf, 24)
    phentsize, phnum = struct.unpack_from("<HH", elf, 42)
    image = bytearray()
    for n in range(phnum):
        kind, offset, _, address, filesz = struct.unpack_from("<IIIII", elf, phoff + n * phentsize)
        if kind == 1:
            end = address - BASE + filesz
            image.extend(bytes(max(0, end - len(image))))
            image[address - BASE:end] = elf[offset:offset + filesz]
    return bytes(image), entry


def boot_sector(folder, entry, pieces, command):
    obj, out = os.path.join(folder, "b.o"), os.path.join(folder, "b.bin")
    subprocess.run(["gcc", "-m32", "-c", os.path.join(HERE, "bootsector.S"), "-o", obj], check=True)
    subprocess.run(["ld", "-m", "elf_i386", "-Ttext", "0x7c00", "--oformat", "binary", obj, "-o", out], check=True)
    with open(out, "rb") as f:
        sector = bytearray(f.read())
    struct.pack_into("<II", sector, 0x150, entry, pieces)
    text = command.encode()[:0x9f] + b"\0"
    sector[0x158:0x158 + len(text)] = text
    return bytes(sector)


def write_disk(folder, guest, command):
    image, entry = flat_image(guest)
    pieces = (len(image) + PIECE - 1) // PIECE
    disk = boot_sector(folder, entry, pieces, command) + bytes(SECTOR) + image
    cylinders = max(20, (len(disk) + 16 * 63 * SECTOR - 1) // (16 * 63 * SECTOR))
    path = os.path.join(folder, "disk.img")
    with open(path, "wb") as f:
        f.write(disk.ljust(cylinders * 16 * 63 * SECTOR, b"\0"))
    return path, cylinders


def configuration(folder, disk, cylinders):
    share = "/usr/share/bochs"
    return f"""
config_interface: textconfig
display_library: {os.environ.get("BOCHS_DISPLAY", "term")}
memory: guest=32, host=32
romimage: file={share}/BIOS-bochs-latest
vgaromimage: file={VGA_BIOS}
cpu: model={CPU}, count=1, ips=50000000, reset_on_triple_fault=0
clock: sync=none
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=disk, path="{disk}", mode=flat, cylinders={cylinders}, heads=16, spt=63
boot: disk
sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy
speaker: enabled=0
com1: enabled=1, mode=file, dev={folder}/serial
log: {folder}/log
panic: action=fatal
error: action=report
info: action=ignore
debug: action=ignore
"""


def run(guest, command="", seconds=60):
    with tempfile.TemporaryDirectory() as folder:
        disk, cylinders = write_disk(folder, guest, command)
        rc = os.path.join(folder, "rc")
        with open(rc, "w") as f:
            f.write(configuration(folder, disk, cylinders))
        go = os.path.join(folder, "continue")  # for Bochs's debugger, which Debian's build starts with
        with open(go, "w") as f:
            f.write("c\n")
        serial = os.path.join(folder, "serial")
        # Bochs's text display wants a terminal: script(1) gives it one.
        child = subprocess.Popen(["script", "-qefc", f"bochs -q -f {rc} -rc {go}", os.path.join(folder, "screen")],
                                 stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                 start_new_session=True, env=dict(os.environ, TERM="vt100"))
        text, deadline = "", time.monotonic() + seconds
        while child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
            if os.path.exists(serial):
                with open(serial, errors="replace") as f:
                    text = f.read()
                if re.search(r"\d+ passed, \d+ failed", text):
                    break
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        if os.path.exists(serial):
            with open(serial, errors="replace") as f:
                text = f.read()
        if not re.search(r"\d+ passed, \d+ failed", text):
            with open(os.path.join(folder, "log"), errors="replace") as f:
                text += f.read()[-3000:]
        return text


if __name__ == "__main__":
    output = run(sys.argv[1], " ".join(sys.argv[2:]))
    print(output)
    sys.exit(0 if re.search(r"\d+ passed, 0 failed", output) else 1)
