"""Character devices: the terminal with and without a monitor, ptys, sockets, pipes, rings, and other ends that are slow or go away."""
import base64
import os
import pty
import re
import select
import signal
import socket
import subprocess
import threading
import time

import harness
from harness import DEBUG_EXIT, UMBRA, check, guest, main, tmp, umbra, write_tmp
from qmp_client import Client, Qmp

WAIT = 180
LINES = ["-m", "32M", "-kernel", guest("lines"), "-no-reboot", *DEBUG_EXIT, "-timeout", "600"]
READY = b"ready> "


class End:
    """One end of a conversation, by descriptor."""

    def __init__(self, fd):
        self.fd, self.seen = fd, b""

    def until(self, mark):
        end = time.time() + WAIT
        while mark not in self.seen:
            check(select.select([self.fd], [], [], max(0, end - time.time()))[0], "no %r in %r" % (mark, self.seen[-500:]))
            got = os.read(self.fd, 65536)
            check(got, "closed, without %r: %r" % (mark, self.seen[-500:]))
            self.seen += got
        before, self.seen = self.seen.split(mark, 1)
        return before

    def send(self, data):
        while data:
            data = data[os.write(self.fd, data):]


class Terminal(End):
    """umbra on a terminal of its own."""

    def __init__(self, *options):
        ours, theirs = pty.openpty()
        super().__init__(ours)
        self.errors = open(tmp("terminal-errors"), "w+b")
        self.process = subprocess.Popen([UMBRA, *options], stdin=theirs, stdout=theirs, stderr=self.errors)
        os.close(theirs)

    def end(self):
        status = self.process.wait(timeout=WAIT)
        os.close(self.fd)
        self.errors.seek(0)
        return status, self.errors.read()


def converse(t):
    """The guest, the monitor, the guest again, with what a terminal's user types."""
    t.until(READY)
    t.send(b"hello\n")
    t.until(b"hello")
    t.until(READY)
    t.send(b"\1c")
    t.until(b"(umbra) ")
    t.send(b"info sttaus\x7f\x7f\x7f\x7f\x7ftatus\r")  # edited
    t.until(b"running")
    t.until(b"(umbra) ")
    t.send(b"frob\x15info mice\r")
    check(b"PS/2" in t.until(b"(umbra) "), "info mice")
    t.send(b"\1h\1c\1\1echo \1")
    t.send(b"\1\n")  # Ctrl-A Ctrl-A is one
    check(b"\1echo \1" in t.until(READY), "a Ctrl-A that is meant")
    t.send(b"\1x")
    status, errors = t.end()
    check(status == 0 and b"Ctrl-A x" in errors, "%d %r" % (status, errors))


def test_serial_port_and_monitor_share_a_terminal():
    for options in (["-serial", "mon:stdio"], ["-nographic"], ["-serial", "stdio", "-monitor", "stdio"],
                    ["-chardev", "stdio,id=t,mux=on,signal=off", "-serial", "chardev:t", "-mon", "chardev=t"]):
        converse(Terminal(*LINES, *options))


def test_control_c_is_the_guest_s_unless_signals_are_asked_for():
    t = Terminal(*LINES, "-nographic")
    t.until(READY)
    t.send(b"\3\n")
    check(b"\3" in t.until(READY), "Ctrl-C")
    t.send(b"\1x")
    check(t.end()[0] == 0, "status")
    t = Terminal(*LINES, "-chardev", "stdio,id=t,signal=on", "-serial", "chardev:t")
    t.until(READY)
    t.process.send_signal(signal.SIGINT)  # what the terminal's key would do, were this its session
    check(t.end()[0] == -signal.SIGINT, "status")


def test_monitor_and_serial_port_share_pipes():
    done = subprocess.run([UMBRA, *LINES, "-serial", "mon:stdio"], input=b"one\n\1cinfo version\nquit\n", capture_output=True, timeout=WAIT)
    check(done.returncode == 0 and b"umbra 0." in done.stdout, "%r" % done)
    done = subprocess.run([UMBRA, "-m", "32M", "-kernel", guest("hltforever"), "-serial", "mon:stdio"], stdin=subprocess.DEVNULL, capture_output=True,
                          timeout=WAIT)
    check(done.returncode == 10, "without anybody at the monitor it is halted for ever: %r" % done)


def test_a_pty_is_left_and_taken_up_again():
    process = subprocess.Popen([UMBRA, *LINES, "-serial", "pty"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    path = re.search(rb"redirected to (\S+) \(label serial0\)", process.stderr.readline()).group(1)
    for n in range(3):
        end = End(os.open(path, os.O_RDWR | os.O_NOCTTY))
        end.send(b"visit %d\n" % n)
        end.until(b"visit %d" % n)
        end.until(READY)
        if n < 2:
            os.close(end.fd)
    end.send(b"exit 7\n")
    check(process.wait(timeout=WAIT) == 15, "status %s" % process.returncode)
    process.stderr.close()


def test_sockets_of_both_kinds_are_served_and_connected_to():
    path = tmp("serial.sock")
    for options in ("unix:%s,server" % path, "unix:%s,server=on,wait=off" % path):
        process = subprocess.Popen([UMBRA, *LINES, "-serial", options], stdin=subprocess.DEVNULL)
        for n in range(3):
            c = Client(path, process)
            c.send(b"visit %d\n" % n)
            c.until(b"visit %d" % n)
            c.until(READY)
            if n < 2:
                c.send(b"half a li")  # gone in the middle
                c.sock.close()
        c.send(b"\nexit 3\n")
        check(process.wait(timeout=WAIT) == 7, "status %s" % process.returncode)
    for family, address in ((socket.AF_UNIX, path), (socket.AF_INET, ("127.0.0.1", 0))):
        listener = socket.socket(family)
        listener.bind(address)
        listener.listen(1)
        where = "unix:" + path if family == socket.AF_UNIX else "tcp:127.0.0.1:%d" % listener.getsockname()[1]
        process = subprocess.Popen([UMBRA, *LINES, "-serial", where], stdin=subprocess.DEVNULL)
        listener.settimeout(WAIT)
        end = End(listener.accept()[0].detach())
        end.until(READY)
        end.send(b"exit 4\n")
        check(process.wait(timeout=WAIT) == 9, "status %s" % process.returncode)
        os.close(end.fd)
        listener.close()
        if family == socket.AF_UNIX:
            os.unlink(path)


def bulk_script():
    """700 kB that the guest says, and its end."""
    return write_tmp("bulk.script", 'wait "ready> "\nsend "say 7000\\n"\nwait "ready> "\nsend "exit 1\\n"\n')


def bulk_options(*options):
    return [UMBRA, *LINES, "-input-script", bulk_script(), "-digest", *options]


def digest_of(errors):
    found = re.search(rb"^digest [0-9a-f]{16} icount \d+$", errors, re.M)
    check(found, errors[-1000:])
    return found.group(0)


def test_slow_broken_and_closed_ends_neither_stop_the_guest_nor_change_it():
    done = subprocess.run(bulk_options("-serial", "file:" + tmp("bulk.out")), stdin=subprocess.DEVNULL, capture_output=True, timeout=600)
    expected, text = digest_of(done.stderr), open(tmp("bulk.out"), "rb").read()
    check(done.returncode == 3 and len(text) > 700000, "%r" % done)

    # A full pipe holds the machine; QMP answers meanwhile, and nothing is lost.
    process = subprocess.Popen(bulk_options("-serial", "stdio", "-qmp", "unix:%s,server,nowait" % tmp("bulk.qmp")), stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    q = Qmp(tmp("bulk.qmp"), process)
    end = time.time() + WAIT
    count = None
    while True:
        before, count = count, q.run("human-monitor-command", command_line="info status")["return"].split("instructions ")[1].split(",")[0]
        if before == count:
            break
        check(time.time() < end, "the machine does not stand still though nobody reads")
        time.sleep(1)
    q.sock.close()
    out, errors = process.communicate(timeout=600)
    check(process.returncode == 3 and out == text and digest_of(errors) == expected, "a slow reader: %d, %d of %d bytes" % (process.returncode, len(out), len(text)))

    # A reader that goes away in the middle.
    process = subprocess.Popen(bulk_options("-serial", "stdio"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    os.read(process.stdout.fileno(), 1000)
    process.stdout.close()
    errors = process.stderr.read()
    check(process.wait(timeout=600) == 12 and digest_of(errors) == expected and errors.count(b"Broken pipe") == 1, errors)

    # No standard output at all.
    process = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", *bulk_options("-serial", "stdio")], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=600)
    check(process.returncode == 12 and digest_of(process.stderr) == expected, process.stderr)

    # A socket whose client does not read loses what does not fit, a pty as well.
    path = tmp("slow.sock")
    process = subprocess.Popen(bulk_options("-serial", "unix:%s,server" % path), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    c = Client(path, process)
    errors = process.stderr.read()
    check(process.wait(timeout=600) == 3 and digest_of(errors) == expected, errors)
    c.sock.close()
    done = subprocess.run(bulk_options("-serial", "pty"), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=600)
    check(done.returncode == 3 and digest_of(done.stderr) == expected, done.stderr)


def test_much_input_through_a_pipe_is_not_lost():
    text = b"".join(b"%07d %s\n" % (n, b"x" * 200) for n in range(1000))
    process = subprocess.Popen([UMBRA, *LINES, "-serial", "stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    threading.Thread(target=lambda: (process.stdin.write(text + b"exit 0\n"), process.stdin.close())).start()
    out = process.stdout.read()
    check(process.wait(timeout=600) == 1, "status %d %r" % (process.returncode, process.stderr.read()))
    said = re.findall(rb"(\d{7}) (x+)", out)
    check([int(n) for n, _ in said] == list(range(1000)) and all(len(x) == 200 for _, x in said), "%d of 1000 lines" % len(said))


def test_rings_and_lists_by_qmp_and_the_monitor():
    process = subprocess.Popen([UMBRA, *LINES, "-chardev", "ringbuf,id=r,size=64K", "-serial", "chardev:r", "-qmp", "unix:%s,server,nowait" % tmp("ring.qmp"),
                                "-chardev", "socket,id=m,path=%s,server=on,wait=off" % tmp("ring.mon"), "-mon", "m"], stdin=subprocess.DEVNULL)
    q = Qmp(tmp("ring.qmp"), process)
    mon = Client(tmp("ring.mon"), process)
    mon.until(b"(umbra) ")
    seen, end = b"", time.time() + WAIT

    def read(mark):
        nonlocal seen
        while mark not in seen:
            check(time.time() < end, "no %r in %r" % (mark, seen))
            seen += base64.b64decode(q.run("ringbuf-read", device="r", size=4096, format="base64")["return"])
            time.sleep(0.05)
        seen = seen.split(mark, 1)[1]
    read(READY)
    check(q.run("ringbuf-write", device="r", data="by text\n") == {"return": {}}, "write")
    read(b"by text")
    read(READY)
    check(q.run("ringbuf-write", device="r", data=base64.b64encode(b"by base\n").decode(), format="base64") == {"return": {}}, "write")
    read(b"by base")
    read(READY)
    for name, arguments in (("ringbuf-read", {"device": "x", "size": 1}), ("ringbuf-read", {"device": "r", "size": 0}), ("ringbuf-write", {"device": "r"}),
                            ("ringbuf-write", {"device": "r", "data": "?", "format": "base64"}), ("ringbuf-write", {"device": "r", "data": "a", "format": "hex"})):
        check("error" in q.run(name, **arguments), "%s %s" % (name, arguments))
    check({"label": "r", "filename": "ringbuf", "frontend-open": True} in q.run("query-chardev")["return"], q.run("query-chardev"))
    mon.send(b"info chardev\n")
    check(b"r: filename=ringbuf" in mon.until(b"(umbra) "), "info chardev")
    mon.send(b'ringbuf_write r "sum"\n')
    mon.until(b"(umbra) ")
    mon.send(b"ringbuf_read r 10\n")
    check(b"error" not in mon.until(b"(umbra) "), "ringbuf_read")
    mon.send(b"ringbuf_read teapot 10\n")
    check(b"no ringbuf chardev 'teapot'" in mon.until(b"(umbra) "), "ringbuf_read")
    mon.send(b"quit\n")
    check(process.wait(timeout=WAIT) == 0, "status")


def test_pipes_files_and_several_ports():
    base = tmp("fifo")
    os.mkfifo(base + ".in")
    os.mkfifo(base + ".out")
    write_tmp("kept", "before\n")
    process = subprocess.Popen([UMBRA, *LINES, "-append", "debugcon", "-serial", "pipe:" + base, "-serial", "null", "-chardev", "file,id=f,path=%s,append=on" % tmp("kept"),
                                "-debugcon", "chardev:f"], stdin=subprocess.DEVNULL)
    out = End(os.open(base + ".out", os.O_RDONLY))
    out.until(READY)
    with open(base + ".in", "wb") as f:
        f.write(b"exit 2\n")
    check(process.wait(timeout=WAIT) == 5, "status %s" % process.returncode)
    os.close(out.fd)
    kept = open(tmp("kept"), "rb").read()
    check(kept.startswith(b"before\n") and READY in kept, kept)


def test_what_cannot_be_is_refused_with_a_reason():
    for text, word in (("-serial vc", "expected stdio"), ("-serial telnet:x,server", "expected stdio"), ("-serial chardev:x", "id=x"), ("-serial mon:pty", "expected stdio"),
                       ("-serial file:", "expected stdio"), ("-serial tcp:", "expected stdio"), ("-serial unix:x,frob", "frob"), ("-chardev stdio,id=t -serial chardev:t -serial chardev:t", "COM1, not to COM2"),
                       ("-serial unix:/nonexistent/s,server", "/nonexistent/s"), ("-serial tcp:127.0.0.1:1", "cannot connect"), ("-serial pipe:/nonexistent/p", "neither the pipes"),
                       ("-chardev socket,id=c,path=x,port=1", "exclude"), ("-chardev ringbuf,id=c,size=100", "size"), ("-chardev udp,id=c", "expected stdio"),
                       ("-chardev socket,id=c,path=x,wait=off", "wait=off"), ("-chardev socket,id=c,path=x,server=on,reconnect=1", "reconnect"),
                       ("-chardev null,id=c -serial chardev:c -serial chardev:c", "mux=on"), ("-chardev msmouse,id=m", "serial port"), ("-serial msmouse -serial msmouse", "no second"),
                       ("-mon x", "id=x"), ("-mon mode=control", "missing"), ("-chardev pty,id=p -mon p", "server socket"), ("-chardev null,id=a -chardev null,id=a", "id"),
                       ("-chardev stdio,id=a -chardev stdio,id=b", "terminal"), ("-serial mon:stdio -monitor stdio", "monitor"), ("-qmp stdio -monitor stdio", "monitor"),
                       ("-serial null " * 5, "4 serial ports")):
        result = umbra("-kernel", guest("spin"), "-icount-limit", "1000", *text.split(), timeout=WAIT)
        check(result.status == 2 and word in result.err, f"{text}: {result.status} {result.err}")


main(globals())
