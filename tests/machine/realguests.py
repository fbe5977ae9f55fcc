"""Real systems from Debian's packages: 32-bit kernels and programs, GNU Mach, U-Boot as firmware, memtest86+, AVX2 in Linux."""
import os
import re
import shutil
import subprocess

import harness
from harness import CACHE, LONG, TOP, Skip, check, tmp, umbra, write_tmp

BAD = re.compile(r"warning|oops|unexpected|lockup|unstable|BUG:|call trace|not syncing|FW_BUG|\[Firmware Bug\]|segfault|"
                 r"general protection|unchecked MSR|bad gcc|tsc: marking", re.I)


def fetched(*names):
    if os.environ.get("UMBRA_SKIP_LINUX") == "1":
        raise Skip("real systems are not booted under sanitizers")
    done = subprocess.run([os.path.join(TOP, "scripts", "fetch-guests"), *names], stderr=subprocess.PIPE)
    if done.returncode == 3:
        raise Skip(done.stderr.decode().strip().splitlines()[-1])
    check(done.returncode == 0, done.stderr.decode())
    return CACHE


def cached(name):
    return os.path.join(CACHE, name)


def need_long():
    if not LONG:
        raise Skip("long form only")


def text(result):
    return result.out.replace("\x1b[6n", "").replace("\r", "")


PRODUCT = 1.0
for factor in range(1, 30):
    PRODUCT = PRODUCT * factor / 3

COMMANDS = (
    ("uname -m", None),
    ("seq 1 1000 | sort -n | md5sum", "53d025127ae99ab79e8502aae2d9bea6"),
    ("echo $((123456789 * 987654321 % 1000003))", str(123456789 * 987654321 % 1000003)),
    ("i=0; for f in $(seq 20); do (exit $f) || i=$((i+$?)); done; echo $i", "210"),
    ("awk 'BEGIN { x = 1; for (i = 1; i < 30; i++) x = x * i / 3; printf \"%.3f\\n\", x }'", "%.3f" % PRODUCT),
    ("dd if=/dev/zero bs=1024 count=512 2>/dev/null | gzip -c | gzip -dc | wc -c", "524288"),
    ("cp /bin/busybox /tmp/b; gzip -c /tmp/b | gzip -dc | cmp - /bin/busybox; echo same $?", "same 0"),
)


def shell_script(name, commands):
    lines = ['wait "umbra# "']
    for command, _ in commands:
        lines += ['send "%s\\n"' % command.replace("\\", "\\\\").replace('"', '\\"'), 'wait "umbra# "']
    return write_tmp(name, "\n".join(lines + ['send "poweroff -f\\n"']) + "\n")


def linux(kernel, initrd, machine_name, *args, memory="512M", append="console=ttyS0", commands=COMMANDS, off=True, allowed=None):
    result = umbra("-m", memory, "-kernel", cached("vmlinuz-" + kernel), "-initrd", initrd, "-append", append, "-nographic", "-no-reboot",
                   "-digest", "-input-script", shell_script("shell.script", commands), *args, timeout=1800)
    check(result.status == (0 if off else 10), f"status {result.status}\n{result.out[-3000:]}\n{result.err[-2000:]}")
    for command, answer in commands:
        after = text(result).split("umbra# " + command + "\n", 1)
        check(len(after) == 2 and after[1].startswith(answer or machine_name), f"no answer to '{command}':\n{result.out[-3000:]}")
    bad = [line for line in result.out.splitlines() if BAD.search(line) and not (allowed and allowed in line)]
    check(not bad, "complaints in the kernel log:\n" + "\n".join(bad))
    return result


def test_the_686_kernel_boots_to_a_32_bit_shell():
    fetched("686", "initrd-i386")
    base = linux("686", cached("initrd-i386.img"), "i686")
    for args in (("-mmu", "ept"), ("-mmu", "walk"), ("-host-chaos", "seed=3,rate=300,ops=all")) if LONG else ():
        other = linux("686", cached("initrd-i386.img"), "i686", *args)
        check((other.digest(), other.out) == (base.digest(), base.out), f"{args}: another run")


def test_the_686_pae_kernel_boots_to_a_32_bit_shell():
    fetched("686-pae", "initrd-i386")
    base = linux("686-pae", cached("initrd-i386.img"), "i686", "-smp", "2")
    if not LONG:
        return
    for args in (("-mmu", "ept"), ("-mmu", "walk"), ("-host-chaos", "seed=3,rate=300,ops=all")):
        other = linux("686-pae", cached("initrd-i386.img"), "i686", "-smp", "2", *args)
        check((other.digest(), other.out) == (base.digest(), base.out), f"{args}: another run")
    check("[mem 0x0000000100000000" in linux("686-pae", cached("initrd-i386.img"), "i686", memory="4G").out, "no memory beyond 4 GiB")


def test_the_amd64_kernel_runs_32_bit_programs():
    fetched("cloud", "initrd-i386")
    base = linux("cloud", cached("initrd-i386.img"), "x86_64")
    if not LONG:
        return
    check(linux("cloud", cached("initrd-i386.img"), "x86_64", "-mmu", "ept").digest() == base.digest(), "ept: another run")


def test_a_kernel_that_knows_the_processor_has_no_complaint():
    fetched("amd64")
    commands = (("uname -m", None), ("echo $((6 * 7))", "42"))
    for model in ("nehalem", "haswell", "skylake", "max"):
        # Without speculation control, as the first of these were: the kernel says what that means for RETBleed.
        result = linux("amd64", cached("initrd.img"), "x86_64", "-cpu", model, commands=commands, allowed="RETBleed: WARNING")
        check("using mwait in idle threads" in result.out, f"{model}: MWAIT is not used")


def test_a_64_bit_kernel_says_so_to_a_32_bit_processor():
    need_long()
    fetched("cloud")
    result = umbra("-m", "256M", "-cpu", "pentium3", "-kernel", cached("vmlinuz-cloud"), "-nographic", "-vtimeout", "2", "-append", "console=ttyS0")
    check(result.status in (8, 10) and "no long mode" in result.err, f"{result.status} {result.err}")


# ---- AVX2 ----

def initrd_with(program):
    """The initramfs and a second archive behind it that holds the program as /root/NAME."""
    folder = tmp("extra")
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(os.path.join(folder, "root"))
    shutil.copy(program, os.path.join(folder, "root"))
    name = "root/" + os.path.basename(program)
    os.utime(os.path.join(folder, name), (0, 0))
    archive = subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=folder, input=name.encode() + b"\n", stdout=subprocess.PIPE, check=True).stdout
    with open(cached("initrd.img"), "rb") as f:
        first = f.read()
    return write_tmp("initrd-extra.img", first + bytes(-len(first) % 4) + archive)


def test_linux_on_cpu_max_runs_avx2_programs_right():
    fetched("cloud")
    program = tmp("avx2")
    subprocess.run(["cc", "-O1", "-static", "-mavx2", "-mfma", "-mf16c", "-o", program, os.path.join(TOP, "tests", "guests", "linux", "avx2.c")],
                   check=True)
    commands = (("uname -m", None), ("grep -c -w avx2 /proc/cpuinfo", "2"), ("/root/avx2 6", "avx2: 6 processes, 0 failed"))
    initrd = initrd_with(program)
    base = linux("cloud", initrd, "x86_64", "-cpu", "max", "-smp", "2", commands=commands)
    check("Supporting XSAVE feature 0x004: 'AVX registers'" in base.out, "the kernel does not use XSAVE for AVX")
    if not LONG:
        return
    other = linux("cloud", initrd, "x86_64", "-cpu", "max", "-smp", "2", "-mmu", "ept", commands=commands)
    check((other.digest(), other.out) == (base.digest(), base.out), "ept: another run")


# ---- GNU Mach ----

def test_gnu_mach_comes_up_until_it_wants_its_modules():
    fetched("gnumach")
    for mode in ("shadow", "ept", "walk") if LONG else ("shadow",):
        result = umbra("-m", "128M", "-kernel", cached("gnumach"), "-append", "console=com0", "-nographic", "-no-reboot", "-mmu", mode,
                       "-vtimeout", "8", timeout=900)
        out = text(result)
        check("GNU Mach 1.8" in out and "biosmem: physical memory map:" in out, out[-2000:])
        check("bootstrap_create: No bootstrap code loaded with the kernel!" in out, out[-2000:])
        check(result.status in (0, 8, 10), f"status {result.status} {result.err[-1000:]}")


def test_gnu_mach_finds_a_disk_behind_ahci():
    """Its driver clears no PxSERR, and leaves the bus master's bit to the firmware."""
    fetched("gnumach")
    disk = write_tmp("sata.img", bytes(32 << 20))
    result = umbra("-m", "128M", "-kernel", cached("gnumach"), "-append", "console=com0", "-nographic", "-no-reboot", "-vtimeout", "8",
                   "-drive", "if=none,id=d,format=raw,snapshot=on,file=" + disk, "-device", "ahci,id=a", "-device", "ide-hd,drive=d,bus=a.2",
                   timeout=900)
    out = text(result)
    check("sd0: UMBRA HARDDISK, 32MB" in out and "timeout" not in out, out[-2000:])


# ---- U-Boot ----

def u_boot(bits, *args):
    script = write_tmp("u-boot.script", 'wait "Hit any key"\nsend " "\nwait "=> "\nsend "version\\n"\nwait "=> "\n'
                       'send "md.l 0xfffffff0 4\\n"\nwait "=> "\nsend "cpu list\\n"\nwait "=> "\nquit\n')
    result = umbra("-m", "128M", "-bios", cached(f"u-boot-{bits}.rom"), "-nographic", "-no-reboot", "-digest", "-input-script", script,
                   "-d", "unimp,guest_errors,ioport", *args, timeout=900)
    check(result.status == 0, f"status {result.status}\n{result.out[-2000:]}\n{result.err[-2000:]}")
    return result


def test_u_boot_as_firmware_reaches_its_prompt():
    fetched("u-boot")
    for bits in (32, 64):
        base = u_boot(bits)
        check("=> version" in base.out and "Model: QEMU x86 (I440FX)" in base.out, base.out[-2000:])
        with open(cached(f"u-boot-{bits}.rom"), "rb") as f:
            f.seek(-16, os.SEEK_END)
            wanted = " ".join("%08x" % int.from_bytes(f.read(4), "little") for _ in range(4))
        check("fffffff0: " + wanted in base.out, "the ROM's end does not read as in the file")
        check(re.search(r"ioport: port (read|write) 0x[0-9a-f]+ .*no device", base.err), "what is missing is not named")
        for args in (("-mmu", "ept"), ("-mmu", "walk"), ("-host-chaos", "seed=3,rate=300,ops=all")) if LONG else (("-mmu", "ept"),):
            other = u_boot(bits, *args)
            check((other.digest(), other.out) == (base.digest(), base.out), f"{args}: another run")


def test_u_boot_starts_all_processors():
    fetched("u-boot")
    out = u_boot(32, "-smp", "3").out
    check("2: cpu@2" in out and "3: cpu@3" not in out, out[-1000:])


def test_firmware_that_cannot_be_is_refused():
    for content in (b"", b"\x90" * 100, b"\x90" * 0x10001):
        result = umbra("-bios", write_tmp("bad.rom", content), "-nographic")
        check(result.status == 2 and "64 KiB" in result.err, f"{result.status} {result.err}")
    check(umbra("-bios", "/nowhere.rom").status == 2, "a missing file")
    check(umbra("-bios", write_tmp("some.rom", bytes(0x10000)), "-kernel", "/nowhere").status == 2, "a missing kernel")


def rom(code):
    """128 KiB with the code at f000:e000, whither the reset vector jumps, and 77h at f000:0000."""
    image = bytearray(b"\xf4" * 0x20000)
    image[0x1e000:0x1e000 + len(code)] = code
    image[0x1fff0:0x1fff5] = bytes.fromhex("ea00e000f0")
    image[0x10000] = 0x77
    return bytes(image)


def pam(value):
    """PAM0, register 0x59 of 00:00.0: mov eax, 80000058h; mov dx, 0cf8h; out dx, eax; mov dx, 0cfdh; mov al, value; out dx, al"""
    return bytes.fromhex("66b858000080baf80c66efbafd0cb0") + bytes([value]) + b"\xee"


def rom_show(expect_rom):
    """Compares the byte at f000:0000 with 77h; exits with status 11 unless it is equal, or unequal, as expected."""
    return bytes.fromhex("803e000077") + (b"\x74" if expect_rom else b"\x75") + b"\x04\xb0\x05\xe6\xf4"


ROM_SETUP = bytes.fromhex("b800f08ed8")  # mov ax, 0f000h; mov ds, ax
ROM_STORE = bytes.fromhex("c606000099")  # mov byte [0], 99h


def test_a_rom_of_our_own_sees_its_aliases_and_the_pam_registers():
    """Real-mode code at the reset vector; exits through port 0xf4 with what it found."""
    show, setup, store = rom_show, ROM_SETUP, ROM_STORE
    code = setup + show(True) + store + show(True)          # ROM: a write is lost
    code += pam(0x20) + store + show(True)                  # writes to RAM, reads from ROM
    code += b"\xb0\x10\xe6\xf4"                             # exit code 0x21: all as expected so far
    image = rom(code)
    for mode in ("shadow", "walk", "ept"):
        result = umbra("-m", "16M", "-bios", write_tmp("own.rom", image), "-nographic", "-no-reboot", "-mmu", mode, "-vtimeout", "1",
                       *harness.DEBUG_EXIT)
        check(result.status == 33, f"{mode}: status {result.status} {result.err}")
    # The same, and then reads from RAM: the code must have been copied there before.
    copy = bytes.fromhex("31f631ff8ec0b90080fcf3a5")        # es = ds (ax is f000); rep movsw of the segment over itself
    code = setup + pam(0x20) + b"\xb8\x00\xf0" + copy + store + show(True) + pam(0x30) + show(False)
    code += pam(0x10) + bytes.fromhex("c606000055") + bytes.fromhex("803e0000997404b007e6f4")  # read-only RAM keeps 99h
    code += pam(0x00) + show(True) + b"\xb0\x10\xe6\xf4"
    path = write_tmp("own2.rom", rom(code))
    digests = set()
    for args in ((), ("-mmu", "walk"), ("-mmu", "ept"), ("-audit", "events"), ("-host-chaos", "seed=1,rate=1000000,ops=all")):
        result = umbra("-m", "16M", "-bios", path, "-nographic", "-no-reboot", "-vtimeout", "1", "-digest", *harness.DEBUG_EXIT, *args)
        check(result.status == 33, f"{args}: status {result.status} {result.err}")
        digests.add(result.digest())
    check(len(digests) == 1, f"digests differ: {digests}")


def test_the_8259_reaches_processors_with_and_without_a_local_apic():
    """The first tick after INIT of the 8259s; a local APIC that nobody programmed lets nothing through."""
    ports = ((0x20, 0x11), (0x21, 0x20), (0x21, 4), (0x21, 1), (0x21, 0xfe), (0x43, 0x34), (0x40, 0), (0x40, 0x10))
    code = bytes.fromhex("31c08ed8c7068000") + b"\x00\xe1" + bytes.fromhex("c706820000f0bc0070")  # IVT entry 20H: f000:e100
    code += b"".join(bytes([0xb0, value, 0xe6, port]) for port, value in ports) + bytes.fromhex("fbf4ebfd")
    code += bytes(0x100 - len(code)) + b"\xb0\x10\xe6\xf4"
    path = write_tmp("tick.rom", rom(code))
    for model, status in (("486", 33), ("pentium,-apic", 33), ("max,-apic", 33), ("pentium", 8), ("max", 8)):
        result = umbra("-m", "16M", "-cpu", model, "-bios", path, "-nographic", "-no-reboot", "-vtimeout", "1", *harness.DEBUG_EXIT)
        check(result.status == status, f"{model}: status {result.status} {result.err}")
    two = umbra("-cpu", "486", "-smp", "2", "-bios", path, "-nographic")
    check(two.status == 2 and "local APIC" in two.err, f"{two.status} {two.err}")


def test_ram_behind_rom_survives_a_snapshot_and_a_fork():
    say = bytes.fromhex("baf803b058ee")  # X on the serial port
    wait = bytes.fromhex("b9e803e2fe")   # mov cx, 1000; loop
    keep = bytes.fromhex("31f631ff8ec0b90080fcf3a5") + ROM_STORE  # the segment copied behind itself, and 99h stored
    code = ROM_SETUP + pam(0x20) + b"\xb8\x00\xf0" + keep + say + wait * 20 + rom_show(True) + pam(0x30) + rom_show(False)
    code += say + wait * 20 + bytes.fromhex("803e0000997404b007e6f4") + b"\xb0\x10\xe6\xf4"
    options = ("-m", "16M", "-bios", write_tmp("kept.rom", rom(code)), "-nographic", "-no-reboot", "-vtimeout", "1", "-digest", *harness.DEBUG_EXIT)
    whole = umbra(*options)
    check(whole.status == 33 and whole.out == "XX", f"{whole.status} {whole.out} {whole.err}")
    for seen in ("X", "XX"):
        snap = tmp("rom.snap")
        saved = umbra(*options, "-input-script", write_tmp("rom.script", f'wait "{seen}"\nsavevm "{snap}"\n'))
        check(saved.digest() == whole.digest(), "saving disturbed the run")
        loaded = umbra(*options, "-loadvm", snap)
        check(loaded.status == 33 and loaded.digest() == whole.digest(), f"{seen}: {loaded.status} {loaded.err}")
    other = umbra("-m", "16M", "-bios", write_tmp("other.rom", bytes(0x10000)), "-nographic", "-loadvm", snap)
    check(other.status == 2 and "firmware" in other.err, other.err)
    out = tmp("rom-forks")
    forked = umbra(*options, "-fork-at", "X", "-fork-run", write_tmp("rom.lines", "a\nb\n"), "-fork-out", out)
    check(forked.status == 33, f"{forked.status} {forked.out} {forked.err}")


# ---- memtest86+ ----

def test_memtest_finds_no_error():
    fetched("memtest")
    for bits, cpus in ((64, 4), (32, 1)):
        result = umbra("-m", "64M", "-smp", str(cpus), "-kernel", cached(f"memtest-{bits}.bin"), "-append", "console=ttyS0", "-nographic", "-no-reboot",
                       "-vtimeout", "12" if LONG else "7", timeout=1800)
        check(result.status == 8, f"{result.status} {result.err[-1000:]}")
        check("Status: Testing" in result.out, result.out[-1000:])
        errors = re.findall(r"Errors: *(\d+)", result.out)
        check(errors and set(errors) == {"0"}, f"errors: {errors[-5:]}")
        check(cpus == 1 or ("SMP: 4T (PAR)" in result.out and "Using: All Cores" in result.out), "it does not use all processors")
        tests = set(re.findall(r"#(\d+) +\[", result.out))
        check(len(tests) >= (3 if LONG else 1), f"only tests {sorted(tests)} were begun")


harness.main(globals())
