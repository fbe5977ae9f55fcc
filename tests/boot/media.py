"""The media that boot tests start from: fetched, or built here without root rights. Each function returns a path, and skips where
a tool or the network is missing. What is built is the same in every run."""
import gzip
import os
import shutil
import struct
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "machine"))
from harness import CACHE, TOP, Skip, check, tmp  # noqa: E402

MIB = 1 << 20


def fetch(*names):
    done = subprocess.run([os.path.join(TOP, "scripts", "fetch-guests"), *names], stderr=subprocess.PIPE)
    if done.returncode == 3:
        raise Skip(done.stderr.decode().strip().splitlines()[-1])
    check(done.returncode == 0, done.stderr.decode())


def tool(name):
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if not path:
        raise Skip(f"{name} is not installed")
    return path


def run(*args):
    env = dict(os.environ, SOURCE_DATE_EPOCH="1577836800", E2FSPROGS_FAKE_TIME="1577836800", MTOOLS_SKIP_CHECK="1")
    done = subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env)
    check(done.returncode == 0, f"{args[0]}: {done.stdout.decode('utf-8', 'replace')[-500:]}")


def read(path):
    with open(path, "rb") as f:
        return f.read()


def write(path, content):
    with open(path, "wb") as f:
        f.write(content if isinstance(content, bytes) else content.encode())
    return path


def unpacked(name):
    return os.path.join(CACHE, "unpacked", name)


# ---- fetched ----

def grub_cd():
    fetch("seabios", "grub")
    return os.path.join(CACHE, "grub-cd.iso")


def grub_floppy():
    fetch("seabios", "grub")
    return os.path.join(CACHE, "grub-floppy.img")


def kernel():
    fetch("amd64")
    return os.path.join(CACHE, "vmlinuz-amd64")


def initrd():
    """A shell on the console, and the drivers of disks and CDs, which /lib/modules/load loads."""
    fetch("amd64", "modules-amd64")
    return write(tmp("initrd"), read(os.path.join(CACHE, "initrd.img")) + read(os.path.join(CACHE, "modules-amd64.img")))


def memtest_cd(bits):
    fetch("seabios", "memtest")
    return os.path.join(CACHE, f"memtest-{bits}.iso")


def memtest_64():
    return memtest_cd(64)


def memtest_32():
    return memtest_cd(32)


def ipxe_cd():
    fetch("seabios", "ipxe")
    return os.path.join(CACHE, "ipxe.iso")


def installer(name):
    fetch("installer")
    return os.path.join(CACHE, "installer-" + name)


def installer_linux():
    return installer("linux")


def installer_text():
    return installer("text.gz")


def installer_gtk():
    return installer("gtk.gz")


def invaders():
    fetch("invaders")
    return os.path.join(CACHE, "invaders.exec")


def ovmf(name):
    fetch("ovmf")
    for folder in ("/usr/share/OVMF", unpacked("ovmf") + "/usr/share/OVMF"):
        if os.path.exists(os.path.join(folder, name)):
            return os.path.join(folder, name)
    raise Skip("OVMF is not installed")


def ovmf_code():
    return ovmf("OVMF_CODE_4M.fd")


def ovmf_vars():
    return write(tmp("vars.fd"), read(ovmf("OVMF_VARS_4M.fd")))


# ---- built ----

def cpio(files):
    """A piece of an initramfs: {path: (mode, content)}."""
    out = b""
    for inode, (name, (mode, content)) in enumerate([*files.items(), ("TRAILER!!!", (0, b""))], 1):
        head = b"070701" + b"".join(b"%08x" % v for v in (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0))
        out += head + name.encode() + b"\0"
        out += b"\0" * (-len(out) % 4) + content
        out += b"\0" * (-len(out) % 4)
    return gzip.compress(out, mtime=0)


TO_DISK = """#!/bin/sh
mount -t devtmpfs dev /dev
sh /lib/modules/load
mkdir -p /root
mount -t proc proc /proc
mount -t ext4 $(sed 's/.*root=\\([^ ]*\\).*/\\1/' /proc/cmdline) /root
exec switch_root /root /sbin/init
"""

INITTAB = """::sysinit:/etc/rc
ttyS0::respawn:/sbin/getty -L ttyS0 115200 vt100
::ctrlaltdel:/sbin/reboot
"""

RC = """#!/bin/sh
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -o remount,rw /
hostname diskguest
echo $(($(cat /starts) + 1)) >/starts
echo "starts: $(cat /starts)"
"""

GRUB_CFG = """set timeout=0
menuentry disk {
  linux /boot/vmlinuz console=ttyS0 quiet root=%s
  initrd /boot/initrd
}
"""


def to_disk():
    """The test initramfs with an /init that goes on to the root that the command line names."""
    return write(tmp("initrd-to-disk"), read(initrd()) + cpio({"init": (0o100755, TO_DISK.encode())}))


def root_tree(device):
    root = tmp("root")
    busybox = os.path.join(unpacked("busybox-static"), "bin", "busybox")
    shutil.rmtree(root, ignore_errors=True)
    for name in ("bin", "sbin", "etc", "dev", "proc", "sys", "boot/grub", "root", "tmp"):
        os.makedirs(os.path.join(root, name))
    shutil.copy(busybox, os.path.join(root, "bin", "busybox"))
    for applet in subprocess.run([busybox, "--list"], stdout=subprocess.PIPE).stdout.decode().split():
        place = "sbin" if applet in ("init", "getty", "reboot", "poweroff") else "bin"
        if applet != "busybox":
            os.symlink("/bin/busybox", os.path.join(root, place, applet))
    write(os.path.join(root, "etc/inittab"), INITTAB)
    os.chmod(write(os.path.join(root, "etc/rc"), RC), 0o755)
    write(os.path.join(root, "etc/passwd"), "root::0:0:root:/root:/bin/sh\n")
    write(os.path.join(root, "starts"), "0\n")
    write(os.path.join(root, "boot/grub/grub.cfg"), GRUB_CFG % device)
    shutil.copy(kernel(), os.path.join(root, "boot", "vmlinuz"))
    shutil.copy(to_disk(), os.path.join(root, "boot/initrd"))
    return root


def mbr(boot, start, sectors):
    """A boot sector with one active Linux partition."""
    entry = struct.pack("<B3sB3sII", 0x80, b"\xfe\xff\xff", 0x83, b"\xfe\xff\xff", start, sectors)
    return boot[:440] + b"\x01\x02\x03\x04\0\0" + entry + bytes(48) + b"\x55\xaa"


def disk(device="/dev/sda1"):
    """A partition table, GRUB behind it, one ext4 partition with a kernel and a busybox system."""
    fetch("seabios", "amd64", "modules-amd64")
    grub = "/usr/lib/grub/i386-pc"
    if not os.path.exists(grub + "/boot.img"):
        raise Skip("grub-pc-bin is not installed")
    core, fs, image = tmp("core.img"), tmp("fs.img"), tmp("disk.img")
    run(tool("grub-mkimage"), "-O", "i386-pc", "-d", grub, "-p", "(hd0,msdos1)/boot/grub", "-o", core, "biosdisk", "part_msdos",
        "ext2", "normal", "linux", "configfile", "test")
    size = 64 * MIB
    write(fs, b"")
    os.truncate(fs, size)
    run(tool("mke2fs"), "-q", "-F", "-t", "ext4", "-U", "11111111-2222-3333-4444-555555555555", "-E", "root_owner=0:0",
        "-d", root_tree(device), fs)
    with open(image, "wb") as f:
        f.write(mbr(read(grub + "/boot.img"), 2048, size // 512))
        f.write(read(core))
        f.seek(MIB)
        with open(fs, "rb") as g:
            shutil.copyfileobj(g, f)
        f.truncate(MIB + size)
    return image


def virtio_disk():
    return disk("/dev/vda1")


def ext4_disk():
    """An empty file system over a whole disk."""
    path = write(tmp("ext4.img"), b"")
    os.truncate(path, 32 * MIB)
    run(tool("mke2fs"), "-q", "-F", "-t", "ext4", "-U", "11111111-2222-3333-4444-555555555555", path)
    return path


def isolinux_cd(initial=None, append=""):
    """ISOLINUX, a kernel and the test initramfs, or another one."""
    fetch("seabios", "amd64", "modules-amd64", "syslinux")
    initial = initial or initrd()
    tree = tmp("iso")
    shutil.rmtree(tree, ignore_errors=True)
    os.makedirs(tree + "/isolinux")
    shutil.copy(unpacked("isolinux") + "/usr/lib/ISOLINUX/isolinux.bin", tree + "/isolinux/isolinux.bin")
    shutil.copy(unpacked("syslinux-common") + "/usr/lib/syslinux/modules/bios/ldlinux.c32", tree + "/isolinux/ldlinux.c32")
    shutil.copy(kernel(), tree + "/isolinux/linux")
    shutil.copy(initial, tree + "/isolinux/initrd")
    write(tree + "/isolinux/isolinux.cfg",
          "DEFAULT linux\nPROMPT 0\nLABEL linux\n  KERNEL linux\n  APPEND initrd=initrd console=ttyS0 quiet" + append + "\n")
    write(tree + "/hello", "this is the disc\n")
    path = tmp("isolinux.iso")
    run(tool("xorriso"), "-as", "mkisofs", "-quiet", "-o", path, "-b", "isolinux/isolinux.bin", "-c", "isolinux/boot.cat",
        "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table", tree)
    return path


def isolinux_to_disk():
    """The same with an initramfs that goes on to the disk's system."""
    return isolinux_cd(to_disk(), " root=/dev/sda1")


def efi_cd():
    """An El Torito image for UEFI: a FAT file system with a kernel, an initramfs, and the script that the shell runs."""
    fetch("amd64", "modules-amd64")
    efi, tree, path = tmp("efi.img"), tmp("eficd"), tmp("efi.iso")
    shutil.rmtree(tree, ignore_errors=True)
    os.makedirs(tree)
    script = write(tmp("startup.nsh"), "@echo -off\r\nfs0:\r\nlinux.efi console=ttyS0 quiet initrd=\\initrd\r\n")
    run(tool("mformat"), "-C", "-i", efi, "-T", str(24 * MIB // 512), "-h", "16", "-s", "63", "-N", "12345678", "::")
    run(tool("mcopy"), "-i", efi, kernel(), "::linux.efi")
    run(tool("mcopy"), "-i", efi, initrd(), "::initrd")
    run(tool("mcopy"), "-i", efi, script, "::startup.nsh")
    shutil.copy(efi, tree + "/efi.img")
    write(tree + "/hello", "this is the disc\n")
    run(tool("xorriso"), "-as", "mkisofs", "-quiet", "-o", path, "-eltorito-alt-boot", "-e", "efi.img", "-no-emul-boot", tree)
    return path


EFI_GRUB_CFG = """set timeout=1
menuentry efi {
  echo from GRUB
  linux /linux console=ttyS0 quiet
  initrd /initrd
}
"""


def efi_disk():
    """A FAT file system over a whole disk, whose boot file is GRUB, with a menu, a kernel and an initramfs."""
    fetch("amd64", "modules-amd64", "grub-efi")
    grub, core, path = unpacked("grub-efi-amd64-bin") + "/usr/lib/grub/x86_64-efi", tmp("bootx64.efi"), tmp("efidisk.img")
    run(tool("grub-mkimage"), "-O", "x86_64-efi", "-d", grub, "-p", "/", "-o", core, "fat", "normal", "linux", "configfile", "echo", "test")
    run(tool("mformat"), "-C", "-i", path, "-T", str(32 * MIB // 512), "-h", "16", "-s", "63", "-N", "12345678", "::")
    run(tool("mmd"), "-i", path, "::EFI", "::EFI/BOOT")
    for name, content in (("EFI/BOOT/BOOTX64.EFI", core), ("linux", kernel()), ("initrd", initrd()),
                          ("grub.cfg", write(tmp("grub.cfg"), EFI_GRUB_CFG))):
        run(tool("mcopy"), "-i", path, content, "::" + name)
    return path
