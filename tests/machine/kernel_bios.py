"""Kernels that firmware starts: -bios with -kernel takes Linux's 16-bit entry, by way of SeaBIOS and the machine's own ROM; OVMF its EFI one."""
import os
import re
import struct

import harness
from harness import CACHE, DEBUG_EXIT, GUESTS, check, fetched, linux, tmp, umbra, write_tmp

BIOS = ["-bios", "bios-256k.bin"]
HEADER = 0x268
# Real mode: writes CS, DS, ES, SS, SP - 2 and FLAGS to port 0xe9, then the first 268H bytes of its segment, the command
# line (from the address at 228H, else from 9800H), the first 16 bytes at 1000:0000; leaves with 43H.
CODE = bytes.fromhex("9c5416061e0e 89e6 b90c00 bae900 36f36e 31f6 b96802 f36e 66a12802 be0098 6685c0 7408 66c1e804 8ed8 31f6"
                     "ac ee 84c0 75fa b80010 8ed8 31f6 b91000 f36e b021 e6f4 f4 ebfd")
LEFT = 0x43


def image(version=0x20f, flags=1, sects=2, payload=b"the kernel's own code".ljust(2000, b"."), size=0, **fields):
    """A bzImage whose setup code is CODE; fields: init_size, pref, initrd_max, syssize, cmdline_size."""
    setup = bytearray((size or (sects + 1)) * 512)
    setup[0x1f1] = sects
    struct.pack_into("<I", setup, 0x1f4, fields.get("syssize", (len(payload) + 15) // 16))
    setup[0x1fe:0x206] = b"\x55\xaa\xeb\x66HdrS"
    struct.pack_into("<H", setup, 0x206, version)
    setup[0x211] = flags
    if version >= 0x203:
        struct.pack_into("<I", setup, 0x22c, fields.get("initrd_max", 0x7fffffff))
    if version >= 0x20a:
        struct.pack_into("<I", setup, 0x238, fields.get("cmdline_size", 2047))
        struct.pack_into("<QI", setup, 0x258, fields.get("pref", 0x1000000), fields.get("init_size", 0x100000))
    setup[HEADER:HEADER + len(CODE)] = CODE
    return write_tmp("vmlinuz", bytes(setup) + payload)


class Seen:
    """What CODE found."""

    def __init__(self, *args, **kernel):
        fetched("seabios", "")
        out = tmp("debugcon")
        result = umbra("-m", "64M", *BIOS, "-kernel", image(**kernel), *args, *DEBUG_EXIT, "-debugcon", "file:" + out, "-display", "none",
                       "-vtimeout", "60")
        check(result.status == LEFT, f"{result.status} {result.err[-500:]}")
        with open(out, "rb") as f:
            data = f.read()
        self.cs, self.ds, self.es, self.ss, self.sp, self.flags = struct.unpack_from("<6H", data)
        self.header = data[12:12 + HEADER]
        end = data.index(b"\0", 12 + HEADER)
        self.cmdline, self.at_64k = data[12 + HEADER:end], data[end + 1:]

    def get(self, offset, form):
        return struct.unpack_from("<" + form, self.header, offset)[0]


def test_setup_code_gets_the_registers_and_the_header_of_the_protocol():
    s = Seen("-append", "hello vga=0x317 there")
    check((s.cs, s.ds, s.es, s.ss, s.sp) == (0x1020, 0x1000, 0x1000, 0x1000, 0xe000 - 2), f"{vars(s)}")
    check(not s.flags & 0x200, "interrupts are on")
    check(s.cmdline == b"hello vga=0x317 there", s.cmdline)
    check(s.get(0x210, "B") == 0xff and s.get(0x211, "B") == 0x81, "loader, flags")
    check(s.get(0x224, "H") == 0xde00 and s.get(0x228, "I") == 0x20000, "heap, command line")
    check(s.get(0x1fa, "H") == 0x317 and s.get(0x21c, "I") == 0, "video mode, no initrd")
    check(Seen("-append", "xvga=3").get(0x1fa, "H") == 0, "a video mode that nobody asked for")
    check(Seen("-append", "a vga=ask").get(0x1fa, "H") == 0xfffd, "vga=ask")


def test_initrd_lies_as_high_as_kernel_and_bios_allow():
    initrd = write_tmp("initrd", b"i" * 5000)
    s = Seen("-initrd", initrd)
    at = s.get(0x218, "I")
    check(s.get(0x21c, "I") == 5000 and at % 4096 == 0, f"{at:x}")
    check((64 << 20) - (256 << 10) <= at <= (64 << 20) - 2 * 4096, f"not at the end of what the BIOS leaves free: {at:x}")
    check(Seen("-initrd", initrd, initrd_max=0x2ffffff).get(0x218, "I") == 0x3000000 - 0x2000, "initrd_addr_max was not heeded")


def test_old_kernels_get_their_setup_code_and_command_line_where_they_expect_them():
    high = Seen("-append", "old but high", version=0x201)
    check((high.cs, high.ss, high.sp) == (0x9020, 0x9000, 0x9800 - 2), f"{vars(high)}")
    check(high.cmdline == b"old but high", high.cmdline)
    check((high.get(0x20, "H"), high.get(0x22, "H")) == (0xa33f, 0x9800), "command line, old fashion")
    check((high.get(0x212, "H"), high.get(0x224, "H")) == (0x9800 + 13, 0x9600), "setup_move_size, heap")
    low = Seen("-append", "z", version=0x200, flags=0)
    check(low.at_64k == b"the kernel's own", low.at_64k)
    check(low.cmdline == b"z" and low.get(0x211, "B") == 0, f"{vars(low)}")
    newer = Seen("-append", "z", version=0x202, flags=0)
    check(newer.cmdline == b"z" and newer.get(0x228, "I") == 0x99800, f"{vars(newer)}")


def test_snapshot_taken_while_the_bios_runs_goes_on_to_the_same_end():
    fetched("seabios", "")
    snapshot = tmp("bios.snap")
    args = ["-m", "64M", *BIOS, "-kernel", image(), "-initrd", write_tmp("initrd", b"i" * 5000), *DEBUG_EXIT, "-display", "none", "-digest",
            "-input-script", write_tmp("save.script", f'delay 8\nsavevm "{snapshot}"\n')]
    whole = umbra(*args)
    check(whole.status == LEFT and os.path.exists(snapshot), f"{whole.status} {whole.err[-500:]}")
    loaded = umbra(*args, "-loadvm", snapshot)
    check((loaded.status, loaded.digest()) == (LEFT, whole.digest()), f"{loaded.status} {loaded.err[-500:]}")


def refused(what, *args, **kernel):
    fetched("seabios", "")
    result = umbra("-m", "32M", *BIOS, "-kernel", image(**kernel), *args, "-display", "none")
    check(result.status == 2 and what in result.err, f"{kernel}: {result.status} {result.err[-500:]}")


def test_hostile_headers_are_refused():
    refused("truncated", sects=255, size=3)
    refused("setup code", sects=255)
    refused("setup code", sects=64)
    refused("truncated", syssize=0xffffffff)
    refused("truncated", version=0x203, syssize=0xffff)
    refused("does not fit", init_size=0xffffffff)
    refused("does not fit", pref=0xffffffffffffffff)
    refused("does not fit", pref=0xfffffffffff00000)
    refused("does not fit", payload=bytes(32 << 20))
    refused("zImage", version=0x200, flags=0, payload=bytes(600 << 10))
    refused("command line has", "-append", "12345", cmdline_size=4)
    initrd = write_tmp("initrd", bytes(5000))
    refused("does not fit", "-initrd", initrd, initrd_max=0)
    refused("does not fit", "-initrd", write_tmp("big", bytes(16 << 20)))


def test_firmware_without_a_kernel_that_it_could_start_is_refused():
    fetched("seabios", "")
    result = umbra(*BIOS, "-kernel", os.path.join(GUESTS, "testos.elf"), "-display", "none")
    check(result.status == 2 and "no Linux bzImage" in result.err, result.err)
    result = umbra(*BIOS, "-append", "x", "-display", "none")
    check(result.status == 2 and "-kernel" in result.err, result.err)


def boot(*args, append="console=ttyS0", kernel="cloud", commands="poweroff -f"):
    options = linux(kernel)
    if kernel == "686":
        options[options.index("-initrd") + 1] = os.path.join(CACHE, "initrd-i386.img")
    options[options.index("-append") + 1] = append
    options = [o for o in options if o not in ("-no-reboot", "-nographic")]  # with the second, SeaBIOS speaks on COM1 as well
    lines = "".join(f'wait "umbra# "\nsend "{c}\\n"\n' for c in commands.split(";"))
    return umbra(*options, *args, "-display", "none", "-serial", "stdio", "-digest", "-input-script", write_tmp("script", lines), "-vtimeout", "120", timeout=1800)


def check_by_bios(result):
    check(result.status == 0, f"{result.status}\n{result.out[-2000:]}\n{result.err[-1000:]}")
    check("early console in setup code" in result.out, result.out[:2000])
    check(re.search(r"BIOS-e820: \[mem 0x0*9fc00-0x0*9ffff\] reserved", result.out), "not the BIOS's memory map")


def test_linux_boots_by_its_16_bit_entry_and_again_after_a_reset():
    fetched("seabios", "")
    append = "console=ttyS0 earlyprintk=ttyS0,115200 debug"  # the setup code says a word then
    first = boot(*BIOS, append=append + " reboot=k", commands="reboot -f;poweroff -f")
    check_by_bios(first)
    check(first.out.count("early console in setup code") == 2 and first.out.count("Linux version") == 2, first.out[-2000:])
    check_by_bios(boot(*BIOS, append=append, kernel="686"))
    if harness.LONG:
        again = boot(*BIOS, "-accel", "interp", append=append + " reboot=k", commands="reboot -f;poweroff -f")
        check(again.digest() == first.digest(), f"interpreter {again.digest()} JIT {first.digest()}")


def test_ovmf_starts_linux_as_an_efi_program():
    code = fetched("ovmf", "unpacked/ovmf/usr/share/OVMF/OVMF_CODE_4M.fd")
    if not os.path.exists(code):
        code = "/usr/share/OVMF/OVMF_CODE_4M.fd"
    result = boot("-drive", "if=pflash,readonly=on,file=" + code, kernel="amd64")
    check(result.status == 0, f"{result.status}\n{result.out[-2000:]}\n{result.err[-1000:]}")
    check("EFI stub: Loaded initrd" in result.out and "by EDK II" in result.out, result.out[:2000])


harness.main(globals())
