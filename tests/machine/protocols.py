"""Boot protocols beside Linux's: PVH, and Multiboot 1 and 2 with modules, with a small kernel and with Xen."""
import os
import struct
import subprocess

import harness
from harness import CACHE, DEBUG_EXIT, TOP, Skip, check, tmp, umbra, write_tmp

# 32-bit code: writes the command line to port 0xe9, checks the magic number at EBX, leaves with the number of modules.
PVH_CODE = bytes.fromhex("8b7318 ac 84c0 7404 e6e9 ebf7 813b78c56e33 7505 8b430c e6f4 f4 ebfd")


def elf32(code, note):
    """An ELF file that is loaded whole at 1 MiB; note(entry) gives what its note segment holds."""
    base, headers = 0x100000, 52 + 2 * 32
    size = len(note(0))
    entry = base + headers + size
    total = headers + size + len(code)
    ehdr = b"\x7fELF\x01\x01\x01" + bytes(9) + struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, entry, 52, 0, 0, 52, 32, 2, 40, 0, 0)
    load = struct.pack("<8I", 1, 0, base, base, total, total, 7, 4)
    notes = struct.pack("<8I", 4, headers, 0, 0, size, size, 4, 4)
    return ehdr + load + notes + note(entry) + code


def pvh_note(entry):
    return struct.pack("<III", 4, 4, 18) + b"Xen\0" + struct.pack("<I", entry)


def test_pvh_kernel_gets_its_command_line_and_modules():
    kernel, module = tmp("pvh.elf"), tmp("module")
    with open(kernel, "wb") as f:
        f.write(elf32(PVH_CODE, pvh_note))
    with open(module, "wb") as f:
        f.write(b"m" * 5000)
    common = ["-kernel", kernel, "-append", "hello pvh", "-display", "none", "-debugcon", "stdio", *DEBUG_EXIT]
    alone = umbra(*common)
    check((alone.status, alone.out) == (1, "hello pvh"), f"{alone.status} {alone.out!r} {alone.err[-500:]}")
    three = umbra(*common, "-initrd", f"{module} a b,{module},{module} c")
    check((three.status, three.out) == (7, "hello pvh"), f"{three.status} {three.out!r} {three.err[-500:]}")


def test_pc_testdev_is_there_when_it_is_asked_for():
    # Writes 11H to port 0xe0, clears EAX, reads it back, leaves with it.
    kernel = write_tmp("testdev.elf", elf32(bytes.fromhex("b811000000 e7e0 31c0 e4e0 e6f4 f4 ebfd"), pvh_note))
    common = ["-kernel", kernel, "-display", "none", *DEBUG_EXIT]
    check(umbra(*common, "-device", "pc-testdev").status == 0x23, "the dword did not read back")
    check(umbra(*common).status == 0xff, "there is a device that nobody asked for")


def test_damaged_images_are_refused():
    image = elf32(PVH_CODE, pvh_note)
    for cut in (20, 60, 100, 130):
        path = write_tmp("cut.elf", image[:cut])
        result = umbra("-kernel", path, "-display", "none")
        check(result.status == 2 and "cut.elf" in result.err, f"cut at {cut}: {result.status} {result.err[-300:]}")
    magic = 0xe85250d6
    for tags in (struct.pack("<HHI", 1, 0, 12) + struct.pack("<I", 99),  # wants information that nobody has
                 struct.pack("<HHI", 77, 0, 8), struct.pack("<HHI", 2, 0, 8), struct.pack("<HHI", 3, 0, 4)):
        length = 16 + len(tags)
        header = struct.pack("<IIII", magic, 0, length, (0 - magic - length) & 0xffffffff)
        result = umbra("-kernel", write_tmp("bad.mb2", header + tags + bytes(64)), "-display", "none")
        check(result.status == 2 and "bad.mb2" in result.err, f"{tags}: {result.status} {result.err[-300:]}")


def xen():
    done = subprocess.run([os.path.join(TOP, "scripts", "fetch-guests"), "xen", "cloud"], stderr=subprocess.PIPE)
    if done.returncode == 3:
        raise Skip(done.stderr.decode().strip().splitlines()[-1])
    check(done.returncode == 0, done.stderr.decode())
    with open(os.path.join(CACHE, "xen"), "rb") as f:
        return f.read()


def test_xen_starts_its_first_domain_from_two_modules_by_multiboot_1_and_2():
    image = xen()
    at = image.find(struct.pack("<I", 0x1badb002))
    check(0 <= at < 8192, "Xen has no Multiboot 1 header")
    second = image[:at] + bytes(4) + image[at + 4:]
    modules = f"{CACHE}/vmlinuz-cloud console=hvc0,{CACHE}/initrd.img"
    for name, data in (("xen1", image), ("xen2", second)):
        result = umbra("-m", "512M", "-cpu", "max", "-kernel", write_tmp(name, data), "-append",
                       "com1=115200,8n1 console=com1 noreboot no-real-mode edd=off dom0_mem=256M", "-initrd", modules,
                       "-serial", "stdio", "-display", "none", "-no-reboot", "-accel", "jit", "-vtimeout", "3")
        for text in ("Bootloader: umbra", "Dom0 kernel: 64-bit", "Freed "):
            check(text in result.out, f"{name}: no '{text}'\n{result.out[-2000:]}\n{result.err[-500:]}")


harness.main(globals())
