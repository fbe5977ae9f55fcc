"""Bad input gets a one-line error that names the thing, and exit code 2."""
import os

import harness
from harness import check, guest, tmp, umbra, write_tmp


def refused(result, *words):
    check(result.status == 2, f"status {result.status}, stderr: {result.err}")
    lines = result.err.strip().splitlines()
    check(len(lines) == 1, f"not one line: {result.err}")
    for word in words:
        check(word in lines[0], f"'{word}' is not named in: {lines[0]}")


def test_no_kernel_is_refused():
    refused(umbra(), "-kernel")


def test_unknown_option_is_named():
    refused(umbra("-frobnicate"), "-frobnicate")


def test_option_without_its_argument_is_named():
    refused(umbra("-kernel"), "-kernel")


def test_impossible_memory_size_is_named():
    for size in ("3X", "0", "-5", "12.5M", "1M", "999999999999G", ""):
        refused(umbra("-m", size, "-kernel", guest("testos")), "-m", size)


def test_missing_kernel_is_named():
    refused(umbra("-kernel", "/nonexistent/vmlinuz"), "/nonexistent/vmlinuz")


def test_folder_as_kernel_is_named():
    refused(umbra("-kernel", "/"), "'/'")


def test_unreadable_kernel_is_named():
    path = write_tmp("unreadable", b"x")
    os.chmod(path, 0)
    if os.access(path, os.R_OK):
        raise harness.Skip("running as root: everything is readable")
    refused(umbra("-kernel", path), path)


def test_text_file_as_kernel_is_named():
    path = write_tmp("kernel.txt", "this is not a kernel\n" * 1000)
    refused(umbra("-kernel", path), path, "neither")


def test_empty_file_as_kernel_is_named():
    path = write_tmp("empty", b"")
    refused(umbra("-kernel", path), path)


def test_truncated_multiboot_images_are_refused_at_every_length():
    with open(guest("triplefault"), "rb") as f:
        image = f.read()
    for length in list(range(0, 200)) + list(range(200, min(len(image) - 1, 12000), 397)):
        result = umbra("-m", "32M", "-kernel", write_tmp("cut", image[:length]), "-icount-limit", "1000")
        check(result.status in (2, 4, 8), f"length {length}: status {result.status} {result.err}")


def bzimage(setup_sects=4, syssize=None, payload=b"\x90" * 4096, xload=1, version=0x20f, loadflags=1):
    header = bytearray((setup_sects + 1) * 512)
    header[0x1f1] = setup_sects
    header[0x1f4:0x1f8] = (len(payload) // 16 if syssize is None else syssize).to_bytes(4, "little")
    header[0x1fe:0x200] = b"\x55\xaa"
    header[0x201] = 0x66
    header[0x202:0x206] = b"HdrS"
    header[0x206:0x208] = version.to_bytes(2, "little")
    header[0x211] = loadflags
    header[0x22c:0x230] = (0x7fffffff).to_bytes(4, "little")
    header[0x236:0x238] = xload.to_bytes(2, "little")
    header[0x238:0x23c] = (2047).to_bytes(4, "little")
    header[0x258:0x260] = (0x1000000).to_bytes(8, "little")
    header[0x260:0x264] = (0x100000).to_bytes(4, "little")
    return bytes(header) + payload


def test_truncated_bzimage_is_refused():
    refused(umbra("-m", "64M", "-kernel", write_tmp("bz", bzimage(syssize=100000))), "bz", "truncated")
    refused(umbra("-m", "64M", "-kernel", write_tmp("bz", bzimage()[:1500])), "bz", "truncated")


def test_kernel_image_that_is_too_old_is_refused():
    refused(umbra("-m", "64M", "-kernel", write_tmp("bz", bzimage(loadflags=0))), "too old")
    refused(umbra("-m", "64M", "-kernel", write_tmp("bz", bzimage(version=0x201))), "too old")


def test_bzimage_is_entered_as_image_and_processor_allow():
    """The 32-bit entry is the payload's first byte, the 64-bit one 0x200 behind; each ends the run with a status of its own."""
    exit_32 = b"\xb0\x10\xe6\xf4"
    exit_64 = b"\xb0\x20\xe6\xf4"
    payload = bytearray(b"\x90" * 4096)
    payload[:len(exit_32)] = exit_32
    payload[0x200:0x200 + len(exit_64)] = exit_64
    for version, xload, cpu, status in ((0x20f, 0, "base", 0x21), (0x20f, 1, "base", 0x41), (0x20f, 1, "pentium3", 0x21),
                                        (0x20b, 1, "base", 0x21), (0x203, 1, "base", 0x21)):
        path = write_tmp("bz", bzimage(payload=bytes(payload), version=version, xload=xload))
        result = umbra("-m", "64M", "-kernel", path, "-cpu", cpu, "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-icount-limit", "1000")
        check(result.status == status, f"{version:x} {xload} {cpu}: status {result.status} {result.err}")


def test_kernel_larger_than_memory_is_refused():
    refused(umbra("-m", "16M", "-kernel", write_tmp("bz", bzimage())), "bz", "-m")


def test_initrd_larger_than_memory_is_named():
    big = tmp("big-initrd")
    with open(big, "wb") as f:
        f.truncate(200 << 20)
    refused(umbra("-m", "64M", "-kernel", write_tmp("bz", bzimage()), "-initrd", big), big, "-m")
    refused(umbra("-m", "64M", "-kernel", guest("testos"), "-initrd", big), big, "-m")


def test_missing_initrd_is_named():
    refused(umbra("-m", "64M", "-kernel", guest("testos"), "-initrd", "/nonexistent/initrd"), "/nonexistent/initrd")


def test_command_line_too_long_is_refused():
    refused(umbra("-m", "64M", "-kernel", write_tmp("bz", bzimage()), "-append", "x" * 3000), "command line")


def test_unknown_values_are_named():
    kernel = ["-kernel", guest("testos")]
    for option, value in (("-mmu", "magic"), ("-cpu", "z80"), ("-cpu", "base,+nosuch"), ("-d", "nonsense"), ("-accel", "warp"),
                          ("-device", "teapot"), ("-device", "isa-debug-exit,iobase=zz"), ("-serial", "telnet:x"),
                          ("-display", "gtk"), ("-rtc", "base=now"), ("-timeout", "-1"), ("-smp", "0"), ("-trace", "nothing.here"),
                          ("-icount-limit", "many"), ("-vga", "qxl"), ("-net", "user"), ("-drive", "file=x,if=scsi"),
                          ("-drive", "file=x,media=tape"), ("-drive", "if=ide"), ("-drive", "file=x,format=qcow2"),
                          ("-drive", "file=x,index=99"), ("-drive", "file=x,shiny=on"), ("-boot", "order=xyz")):
        result = umbra(*kernel, option, value)
        check(result.status == 2, f"{option} {value}: status {result.status}: {result.err}")
        check(option in result.err and len(result.err.strip().splitlines()) == 1, f"{option} {value}: {result.err}")


def test_drives_that_cannot_be_used_are_named():
    kernel = ["-kernel", guest("testos")]
    image = write_tmp("image", bytes(1024))
    refused(umbra(*kernel, "-hda", "/nonexistent/image"), "/nonexistent/image")
    refused(umbra(*kernel, "-hda", write_tmp("qcow2", b"QFI\xfb" + bytes(1020))), "qemu-nbd")
    refused(umbra(*kernel, "-hda", write_tmp("gz", b"\x1f\x8b\x08" + bytes(1020))), "compressed image")
    refused(umbra(*kernel, "-hda", image, "-drive", f"file={image},index=0"), "already taken")
    refused(umbra("-bios", image, "-drive", f"file={image},if=pflash"), "pflash")
    refused(umbra(*kernel, "-drive", f"file={image},if=pflash"), "flash")
    refused(umbra("-drive", f"file={image},if=pflash"), "flash")
    refused(umbra(*kernel, "-hda", image, "-lockstep", "1000"), "-snapshot")
    refused(umbra(*kernel, "-drive", f"file={image},id=a", "-drive", f"file={image},id=a"), "'a'")


def test_options_without_effect_are_accepted_with_a_note():
    result = umbra("-kernel", guest("hltforever"), "-m", "32M", "-enable-kvm", "-machine", "pc", "-vga", "std", "-net", "none",
                   "-display", "none", "-serial", "null", "-monitor", "none")
    check(result.status == 10, f"status {result.status}: {result.err}")
    check("enable-kvm" in result.err, result.err)


def test_unwritable_outputs_are_named():
    for option, value in (("-serial", "file:/nonexistent/out"), ("-D", "/nonexistent/log")):
        refused(umbra("-kernel", guest("testos"), option, value), "/nonexistent/")


def test_damaged_snapshots_are_refused():
    path = write_tmp("snap", b"UMBRASNP" + b"\x00" * 100)
    refused(umbra("-kernel", guest("testos"), "-m", "32M", "-loadvm", path), path)
    refused(umbra("-kernel", guest("testos"), "-m", "32M", "-loadvm", "/nonexistent/snap"), "/nonexistent/snap")


def test_bad_input_script_names_file_and_line():
    path = write_tmp("script", 'wait "x"\nfrobnicate "y"\n')
    refused(umbra("-kernel", guest("testos"), "-m", "32M", "-input-script", path), path, "line 2")


harness.main(globals())
