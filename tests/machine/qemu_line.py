"""Command lines as they stand in Makefiles and scripts for QEMU: what is accepted, what is refused with a reason, sockets and the terminal."""
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time

import harness
from harness import DEBUG_EXIT, check, guest, tmp, umbra, write_tmp
from qmp_client import WAIT, Client, Qmp

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "boot"))
import media  # noqa: E402

LINES = ["-m", "32M", "-kernel", guest("lines"), *DEBUG_EXIT, "-no-reboot"]


def one_line(text):
    lines = text.strip().splitlines()
    check(len(lines) == 1, f"not one line: {text}")
    return lines[0]


def test_options_that_change_nothing_leave_the_run_as_it_is():
    script = write_tmp("exit.script", 'wait "ready> "\nsend "exit 7\\n"\n')
    plain = umbra(*LINES, "-nographic", "-input-script", script, "-digest")
    check(plain.status == 15, f"{plain.status} {plain.err}")
    for text, noted in (("-machine pc,accel=kvm:tcg,usb=off,vmport=off,dump-guest-core=off", 0), ("-M pc-i440fx-7.2", 0), ("-machine type=pc,accel=tcg", 0),
                        ("-accel tcg,thread=multi", 1), ("-enable-kvm", 1), ("-cpu host -cpu qemu64", 1), ("-cpu base,check,enforce", 0), ("-k de", 1),
                        ("-name guest=box,debug-threads=on", 0), ("-net none", 1), ("-audiodev none,id=a", 1), ("-parallel none", 1),
                        ("-icount shift=0,sleep=off", 1), ("-rtc clock=vm", 0), ("-global PIIX4_PM.disable_s3=1", 1), ("-action reboot=shutdown,panic=none", 0),
                        ("-sandbox on", 1), ("-object rng-random,id=r,filename=/dev/urandom", 1), ("-nodefaults", 1), ("-serial mon:stdio", 0)):
        result = umbra(*LINES, "-nographic", "-input-script", script, "-digest", *text.split())
        check(result.status == 15 and result.digest() == plain.digest(), f"{text}: {result.status} {result.err}")
        notes = [line for line in result.err.splitlines() if not line.startswith("digest")]
        check(len(notes) == noted, f"{text}: {notes}")


def test_options_of_things_that_are_not_there_are_refused_with_a_reason():
    for text, word in (("-usb", "USB"), ("-machine q35", "i440FX"), ("-machine pc,usb=on", "usb=on"), ("-daemonize", "-monitor"), ("-icount 3", "1 ns"),
                       ("-icount shift=0,rr=record,rrfile=x", "-input-script"), ("-virtfs local,path=/", "9p"), ("-net tap", "-nic user"),
                       ("-net nic", "-net user"), ("-global e1000.mac=1", "iobase"), ("-object memory-backend-ram,id=m", "rng"), ("-audiodev pa,id=a", "none"),
                       ("-serial unix:x", "cannot connect"), ("-serial tcp:x,server", "tcp:"), ("-serial chardev:c", "id=c"), ("-mon chardev=c", "id=c"),
                       ("-fw_cfg name=etc/x,string=y", "opt/"), ("-fw_cfg name=opt/x", "file="), ("-fw_cfg name=opt/x,file=/nonexistent/x", "/nonexistent/x"),
                       ("-echr 99", "-echr"), ("-device isa-debugcon,iobase=0x402", "chardev"), ("-name ", "-name"),
                       ("-chardev null,id=c -mon chardev=c", "socket"), ("-monitor unix:/nonexistent/x", "/nonexistent/x")):
        result = umbra(*LINES, *text.split(" "))
        check(result.status == 2 and word in one_line(result.err), f"{text}: {result.status} {result.err}")


def test_help_of_an_option_lists_what_it_knows():
    for option, words in (("-cpu", ("haswell", "smap")), ("-device", ("e1000", "isa-debugcon")), ("-machine", ("pc",)), ("-d", ("int", "staletlb")),
                          ("-trace", ("mmu.zap",)), ("-accel", ("jit",)), ("-netdev", ("hostfwd",)), ("-help", ("-fw_cfg", "-icount", "exit codes"))):
        result = umbra(option, *([] if option == "-help" else ["help"]))
        check(result.status == 0 and not result.err and all(word in result.out for word in words), f"{option}: {result.status} {result.out} {result.err}")


def test_image_without_an_option_is_the_first_disk():
    image = write_tmp("disk.img", bytes(510) + b"\x55\xaa" + bytes(512))
    result = umbra(image, "-hda", image)
    check(result.status == 2 and "already taken" in one_line(result.err), result.err)
    check("'nonexistent'" in one_line(umbra("nonexistent").err), "its name")


def connect(place, process):
    if place.startswith("unix:"):
        return Client(place[5:], process)
    client = Client.__new__(Client)
    client.pending = b""
    line = process.stderr.readline().decode()
    found = re.search(r"listens on 127\.0\.0\.1:(\d+)", line)
    check(found, line)
    client.sock = socket.create_connection(("127.0.0.1", int(found.group(1))))
    client.sock.settimeout(WAIT)
    return client


def test_serial_port_on_a_socket_says_and_hears_all():
    path = tmp("serial.sock")
    for place, options in ((f"unix:{path}", ["-serial", f"unix:{path},server"]), ("tcp::0", ["-serial", "tcp::0,server"]),
                           (f"unix:{path}", ["-chardev", f"socket,id=c,path={path},server=on", "-serial", "chardev:c"]),
                           ("tcp", ["-chardev", "socket,id=c,host=127.0.0.1,port=0,server=on", "-serial", "chardev:c"])):
        process = subprocess.Popen([harness.UMBRA, *LINES, *options], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        client = connect(place, process)
        client.until(b"ready> ")
        client.send(b"twelve words\n")
        client.until(b"twelve words")
        client.until(b"ready> ")
        client.send(b"last; exit 3\n")
        client.until(b"last")
        check(client.is_closed() and process.wait(WAIT) == 7, f"{options}: {process.returncode} {process.stderr.read()}")
        check(not os.path.exists(path), "the socket is left behind")


def test_pipe_and_socket_wait_for_a_guest_that_does_not_read():
    path, flood = tmp("serial.sock"), b"x" * (3 << 20)
    line = ["-m", "32M", "-kernel", guest("spin"), "-d", "guest_errors", "-vtimeout", "8"]
    for place in (None, path):
        process = subprocess.Popen([harness.UMBRA, *line, "-serial", f"unix:{path},server" if place else "stdio"], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        client = Client(path, process).sock if place else None

        def pour():
            try:
                client.sendall(flood) if client else process.stdin.write(flood)
            except OSError:
                pass  # it has ended, with most of this unread
        threading.Thread(target=pour, daemon=True).start()
        check(process.wait(WAIT) == 8, f"status {process.returncode}")
        said = process.stderr.read().decode()
        check("refused" not in said, said[-500:])


def test_file_in_the_place_of_a_socket_is_left_alone():
    path = write_tmp("precious", "text")
    for options in (["-serial", f"unix:{path},server"], ["-monitor", f"unix:{path},server,nowait"], ["-qmp", f"unix:{path},server"]):
        result = umbra(*LINES, *options)
        check(result.status == 2 and path in one_line(result.err), f"{options}: {result.status} {result.err}")
    with open(path) as f:
        check(f.read() == "text", "it was overwritten")


def test_chardev_file_holds_what_the_serial_port_and_the_firmware_say():
    script = write_tmp("exit.script", 'wait "ready> "\nsend "exit 7\\n"\n')
    path = tmp("serial.txt")
    result = umbra(*LINES, "-chardev", f"file,id=c,path={path}", "-serial", "chardev:c", "-input-script", script)
    check(result.status == 15 and b"ready> " in media.read(path), f"{result.status} {result.err}")
    for options in (["-debugcon", f"file:{path}", "-global", "isa-debugcon.iobase=0x402"],
                    ["-chardev", f"file,id=c,path={path}", "-device", "isa-debugcon,iobase=0x402,chardev=c"]):
        result = umbra("-bios", "bios-256k.bin", "-display", "none", "-icount-limit", "3000000", *options)
        if "bios-256k.bin" in result.err:
            raise harness.Skip(result.err)
        check(result.status == 8 and b"SeaBIOS (version" in media.read(path), f"{options}: {result.status} {result.err}")


def test_machine_that_ends_stands_still_under_no_shutdown_until_quit():
    path, pid = tmp("qmp.sock"), tmp("pid")
    script = write_tmp("triple.script", 'wait "ready> "\nsend "triple\\n"\n')
    process = subprocess.Popen([harness.UMBRA, *LINES, "-display", "none", "-no-shutdown", "-name", "box", "-pidfile", pid, "-input-script", script,
                                "-chardev", f"socket,id=c,path={path},server=on,wait=off", "-mon", "chardev=c,mode=control"],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    q = Qmp(path, process)
    check(int(media.read(pid)) == process.pid, "the process's number")
    check(q.run("query-name") == {"return": {"name": "box"}}, "its name")
    end = time.time() + WAIT
    while q.run("query-status")["return"]["status"] != "shutdown":
        check(time.time() < end, "it does not end")
        time.sleep(0.02)
    q.run("cont")
    check(q.run("query-status")["return"]["status"] == "shutdown", "it goes on")
    q.run("quit")
    check(process.wait(WAIT) == 4, f"status {process.returncode}: {process.stderr.read()}")
    check(not os.path.exists(pid), "the file of its number is left behind")


def test_terminal_is_shared_by_the_serial_port_and_a_monitor():
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(harness.UMBRA, [harness.UMBRA, *LINES, "-nographic"])
    seen = b""

    def until(mark):
        nonlocal seen
        end = time.time() + WAIT
        while mark not in seen:
            check(time.time() < end, f"{mark} was not shown: {seen[-500:]}")
            if select.select([terminal], [], [], 1)[0]:
                seen += os.read(terminal, 4096)
        seen = seen.split(mark, 1)[1]
    until(b"ready> ")
    os.write(terminal, b"\x01c")
    until(b"(umbra) ")
    os.write(terminal, b"info stax\x7ftus\r")
    until(b"VM status: running")
    until(b"(umbra) ")
    os.write(terminal, b"\x01cword\r\n")
    until(b"word")
    os.write(terminal, b"exit 9\r\n")
    while True:  # what it says last is read, so that it can end
        try:
            if not os.read(terminal, 4096):
                break
        except OSError:
            break
    check(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 19, "its end")


def test_ctrl_c_is_the_guest_s_with_a_monitor_behind_it_and_ends_a_plain_serial_stdio():
    for options, status in ((["-serial", "stdio"], -signal.SIGINT), (["-nographic"], 17)):
        pid, terminal = pty.fork()
        if pid == 0:
            os.execv(harness.UMBRA, [harness.UMBRA, *LINES, *options])
        seen = b""
        while b"ready> " not in seen:
            seen += os.read(terminal, 4096)
        os.write(terminal, b"\x03" if status < 0 else b"\x03\r\nexit 8\r\n")
        while True:
            try:
                if not os.read(terminal, 4096):
                    break
            except OSError:
                break
        check(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == status, f"{options}: {seen}")


def test_items_of_the_user_reach_linux_through_fw_cfg():
    options = harness.linux()
    harness.fetched("modules-cloud", "")
    initrd = write_tmp("initrd", media.read(os.path.join(harness.CACHE, "initrd.img")) + media.read(os.path.join(harness.CACHE, "modules-cloud.img")))
    options[options.index("-initrd") + 1] = initrd
    script = write_tmp("items.script", 'wait "umbra# "\nsend "sh /lib/modules/load; cd /sys/firmware/qemu_fw_cfg/by_name/opt; '
                       'echo got $(cat text/raw) and $(wc -c <file/raw); poweroff -f\\n"\n')
    result = umbra(*options, "-fw_cfg", "name=opt/text,string=one,,two", "-fw_cfg", "opt/file,file=" + write_tmp("item", bytes(70000)),
                   "-input-script", script, "-timeout", "600")
    check(result.status == 0 and "got one,two and 70000" in result.out, f"{result.status} {result.out[-1500:]}")


harness.main(globals())
