"""Control from outside: QMP as its specification gives it, byte by byte; the monitor on a socket and on standard input."""
import json
import os
import subprocess
import sys
import time

import harness
from harness import UMBRA, check, guest, tmp
from qmp_client import WAIT, Client, Qmp


class Machine:
    def __init__(self, *args, kernel="spin"):
        self.path = tmp("sock-%d" % time.monotonic_ns())
        self.process = subprocess.Popen([UMBRA, "-m", "32M", "-kernel", guest(kernel), "-serial", "null",
                                         *[a.replace("SOCK", self.path) for a in args]],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def end(self):
        _, err = self.process.communicate(timeout=WAIT)
        return self.process.returncode, err.decode()


def test_the_handshake_is_as_the_specification_says():
    with Machine("-qmp", "unix:SOCK,server") as m:
        q = Qmp(m.path, m.process, negotiate=False)
        version = q.greeting["QMP"]["version"]
        check(set(version) == {"qemu", "package"} and set(version["qemu"]) == {"major", "minor", "micro"}, "%r" % q.greeting)
        check(q.greeting["QMP"]["capabilities"] == [], "capabilities")
        check(q.run("query-status")["error"]["class"] == "CommandNotFound", "a command before the negotiation")
        check(q.run("qmp_capabilities") == {"return": {}}, "negotiation")
        check(q.run("qmp_capabilities")["error"]["class"] == "CommandNotFound", "a second negotiation")
        q.send(b'{ "execute": "query-status", "id": {"a": [1]} }')
        got = q.answer()
        check(got["id"] == {"a": [1]} and got["return"]["status"] == "running" and got["return"]["running"] is True, "%r" % got)
        names = [c["name"] for c in q.run("query-commands")["return"]]
        for name in ("stop", "cont", "quit", "system_reset", "system_powerdown", "screendump", "send-key", "query-version",
                     "human-monitor-command", "query-commands", "query-status", "query-pci"):
            check(name in names, name)
        check(q.run("no-such-thing")["error"]["class"] == "CommandNotFound", "an unknown command")
        check(q.run("quit") == {"return": {}}, "quit")
        event = q.event("SHUTDOWN")
        check(event["data"] == {"guest": False, "reason": "host-qmp-quit"} and set(event["timestamp"]) == {"seconds", "microseconds"},
              "%r" % event)
        check(m.end()[0] == 0, "status")
        check(not os.path.exists(m.path), "the socket's name is left over")


def test_messages_need_no_line_ends_and_may_come_in_pieces():
    with Machine("-qmp", "unix:SOCK,server,nowait") as m:
        q = Qmp(m.path, m.process)
        for b in b'{"execute":"query-name"}{"execute":"query-kvm"}':
            q.send(bytes([b]))
        check(q.answer() == {"return": {}}, "first")
        check(q.answer() == {"return": {"enabled": False, "present": False}}, "second")
        q.send(b'\n\n  {"execute"\n:\n"query-name"}  \r\n{"execute":"human-monitor-command","arguments":{"command-line":"info } version"}}')
        check(q.answer() == {"return": {}}, "blanks between")
        check("error" in q.answer()["return"], "a brace in a string")


def test_hostile_input_is_answered_or_dropped_and_never_more():
    with Machine("-qmp", "unix:SOCK,server,nowait") as m:
        for junk in (b"hello\n", b"[1,2]\n", b'{"execute": 5}', b'{"execute":"stop","more":1}', b'{"a":}\n', b'{"execute":"stop","arguments":[]}',
                     b"\x00\xff\xfe\n", b'"text"\n', b"}\n", b'{"execute":"screendump"}', b'{"execute":"send-key","arguments":{"keys":[]}}',
                     b'{"execute":"send-key","arguments":{"keys":[{"type":"qcode","data":"nokey"}]}}',
                     b'{"execute":"input-send-event","arguments":{"events":[{"type":"rel","data":{"axis":"x","value":1e99}}]}}'):
            q = Qmp(m.path, m.process)
            q.send(junk)
            check("error" in q.answer(), "%r is not refused" % junk)
            check(q.run("query-name") == {"return": {}}, "after %r" % junk)
            q.sock.close()
        q = Qmp(m.path, m.process)
        q.send(b"[" * 100000)
        check("error" in q.answer(), "depth")
        q.sock.close()
        q = Qmp(m.path, m.process)
        try:
            for _ in range(40):
                q.send(b'"' + b"x" * 65536)
            check(q.is_closed(), "a message without an end")
        except OSError:
            pass
        check(m.process.poll() is None, "it died")
        check(Qmp(m.path, m.process).run("quit") == {"return": {}}, "quit")
        check(m.end()[0] == 0, "status")


def test_what_json_allows_is_taken_and_ids_come_back():
    with Machine("-qmp", "unix:SOCK,server,nowait") as m:
        q = Qmp(m.path, m.process)
        for ident in (0, -1, 1.5, True, None, "", "\u0001\u001f\u00e9\U0001f600\"\\", [], {}, {"a": [{"b": [None, [[]]]}]}, 2 ** 62):
            q.send(json.dumps({"id": ident, "execute": "query-name"}).encode())
            check(q.answer() == {"return": {}, "id": ident}, "id %r" % (ident,))
            q.send(json.dumps({"id": ident, "execute": "nothing"}, ensure_ascii=False).encode())
            got = q.answer()
            check(got["id"] == ident and got["error"]["class"] == "CommandNotFound", "id %r in an error: %r" % (ident, got))
        q.send(b'{"\\u0065xecute":"query-\\u006eame"}')
        check(q.answer() == {"return": {}}, "escapes in names")
        q.send(b'{"execute":"human-monitor-command","arguments":{"command-line":"\\u00e9\\ud83d\\ude00 }]{[\\" \\\\"}}')
        check("\u00e9\U0001f600" in q.answer()["return"], "a command with other letters")
        for bad in (b'{"execute":"query-name",}', b'{"execute":"a\tb"}', b'{"execute":"\\ud800"}', b'{"execute":"\\u0000"}', b'{"execute":"\xff"}',
                    b"{'execute':'query-name'}", b'{"execute":"query-name","execute":"stop"}', b'{"execute":"query-name","id":1e999}'):
            q.send(bad)
            check(q.answer()["error"]["class"] == "GenericError", "%r" % bad)
            check(q.run("query-name") == {"return": {}}, "after %r" % bad)
        q.send(b'{"exec-oob":"query-name","id":7}')
        got = q.answer()
        check(got["error"]["class"] == "GenericError" and got["id"] == 7, "out of band without that capability: %r" % got)
        q.send(b'{"execute":"query-name","id":8}' * 1000)
        for _ in range(1000):
            check(q.answer() == {"return": {}, "id": 8}, "a thousand at once")
        blanks = time.time()
        q.send(b"\n" * 400000 + b'{"execute":"query-name","id":9}')
        check(q.answer()["id"] == 9, "after many blanks")
        check(time.time() - blanks < WAIT / 2, "blanks take long")
        long = "x" * 900000
        q.send(json.dumps({"execute": "query-name", "id": long}).encode())
        check(q.answer() == {"return": {}, "id": long}, "900 KB")
        q.sock.close()
        q = Qmp(m.path, m.process, negotiate=False)
        q.send(b'{"execute":"qmp_capabilities","arguments":{"enable":["oob"]}}')
        check(q.answer()["error"]["class"] == "GenericError", "a capability that was not offered")
        check(q.run("query-name")["error"]["class"] == "CommandNotFound", "not negotiated yet")
        check(q.run("qmp_capabilities", enable=[]) == {"return": {}}, "negotiation")


def test_devices_and_drives_are_listed():
    image = harness.write_tmp("disk\u00e4.img", bytes(1 << 20))
    with Machine("-qmp", "unix:SOCK,server,nowait", "-drive", "file=%s,format=raw,snapshot=on" % image, "-drive", "if=floppy,index=1,id=fd",
                 "-device", "virtio-rng-pci") as m:
        q = Qmp(m.path, m.process)
        (bus,) = q.run("query-pci")["return"]
        functions = {(d["slot"], d["function"]): d for d in bus["devices"]}
        host, display, rng = functions[0, 0], functions[2, 0], functions[3, 0]
        check(host["id"] == {"vendor": 0x8086, "device": 0x1237} and host["class_info"]["class"] == 0x600 and host["regions"] == [], "%r" % host)
        check(display["class_info"]["class"] == 0x300 and display["irq_pin"] == 0, "%r" % display)
        memory = display["regions"][0]
        check(memory["type"] == "memory" and memory["size"] == 16 << 20 and memory["address"] % memory["size"] == 0, "%r" % memory)
        check(rng["id"] == {"vendor": 0x1af4, "device": 0x1005} and rng["irq_pin"] == 1, "%r" % rng)
        drives = {d["device"]: d for d in q.run("query-block")["return"]}
        check(drives["ide0-hd0"]["inserted"]["file"] == image and drives["ide0-hd0"]["inserted"]["image"]["virtual-size"] == 1 << 20, "%r" % drives)
        check("inserted" not in drives["fd"] and drives["fd"]["removable"], "%r" % drives)
        text = q.run("human-monitor-command", command_line="info block")["return"]
        check("ide0-hd0: %s (ide, snapshot), 1048576 bytes" % image in text and "fd: no medium" in text, text)


def test_a_drive_whose_name_is_no_text_is_listed():
    image = os.fsencode(tmp("disk")) + b"\xff.img"
    with open(image, "wb") as f:
        f.write(bytes(1 << 20))
    with Machine("-qmp", "unix:SOCK,server,nowait", "-cdrom", os.fsdecode(image)) as m:
        q = Qmp(m.path, m.process)
        (drive,) = q.run("query-block")["return"]
        check(drive["inserted"]["file"].endswith("disk?.img"), "%r" % drive)
        check("error" in q.run("human-monitor-command", command_line="info block"), "bytes that are no text")
        check(q.run("query-name") == {"return": {}}, "it goes on")


def test_a_client_that_others_wrote():
    """Ganeti's, from Debian's package. What is not Execute() makes a connection of its own."""
    for package in ("ganeti-3.0", "python3-openssl"):
        harness.fetched("qmp-client", os.path.join("unpacked", package))
    base = os.path.join(harness.CACHE, "unpacked")
    path = [os.path.join(base, "ganeti-3.0", "usr", "share", "ganeti", "3.0")]
    path += [os.path.join(base, p, "usr", "lib", "python3", "dist-packages") for p in
             ("python3-openssl", "python3-cryptography", "python3-cffi-backend", "python3-simplejson", "python3-bitarray", "python3-psutil")]
    client = """
import sys
from ganeti import errors
from ganeti.hypervisor.hv_kvm.monitor import QmpConnection, QmpCommandNotSupported
q = QmpConnection(sys.argv[1])
with q:
    assert q.package.startswith("umbra "), q.package
    assert {"stop", "cont", "query-pci", "query-block"} <= q.supported_commands
    assert q.Execute("query-status")["status"] == "running"
q.StopGuestEmulation()
with q:
    assert q.Execute("query-status")["status"] == "paused"
    try:
        q.Execute("screendump", {"filename": "/nonexistent/x"})
    except errors.HypervisorError as e:
        assert "GenericError" in str(e)
    else:
        raise AssertionError("not refused")
    try:
        q.Execute("blockdev-add", {})
    except QmpCommandNotSupported:
        pass
    else:
        raise AssertionError("taken")
    q.Execute("screendump", {"filename": sys.argv[2]})
assert q.HasDevice("ide1-cd0") and not q.HasDevice("ide0-hd0")
assert q.GetFreePCISlot() == 3
q.ContinueGuestEmulation()
with q:
    q.Execute("send-key", {"keys": [{"type": "qcode", "data": "a"}]})
    q.Execute("system_reset")
    assert "umbra" in q.Execute("human-monitor-command", {"command-line": "info version"})
    q.Execute("quit")
print("served")
"""
    image, picture = harness.write_tmp("cd.img", bytes(1 << 20)), tmp("ganeti.png")
    with Machine("-qmp", "unix:SOCK,server,nowait", "-cdrom", image) as m:
        end = time.time() + WAIT
        while not os.path.exists(m.path):
            check(time.time() < end and m.process.poll() is None, "no socket")
            time.sleep(0.02)
        done = subprocess.run([sys.executable, "-c", client, m.path, picture], env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=3 * WAIT)
        if b"ModuleNotFoundError" in done.stderr or b"ImportError" in done.stderr:
            raise harness.Skip("Ganeti's client does not load: " + done.stderr.decode().strip().splitlines()[-1])
        check(done.stdout == b"served\n", done.stderr.decode()[-800:])
        check(m.end()[0] == 0 and os.path.getsize(picture) > 100, "status")


def position(q):
    return int(q.run("human-monitor-command", command_line="info status")["return"].split("instructions ")[1].split(",")[0])


def test_a_stopped_machine_stands_still_and_goes_on():
    with Machine("-qmp", "unix:SOCK,server", "-S") as m:
        q = Qmp(m.path, m.process)
        check(q.run("query-status")["return"] == {"running": False, "singlestep": False, "status": "paused"}, "-S")
        check(position(q) == 0, "it ran before cont")
        check(q.run("cont") == {"return": {}} and q.event("RESUME"), "cont")
        check(q.run("stop") == {"return": {}} and q.event("STOP"), "stop")
        at = position(q)
        time.sleep(0.3)
        check(position(q) == at, "it runs while it is stopped")
        q.run("cont")
        end = time.time() + WAIT
        while position(q) == at:
            check(time.time() < end, "it does not go on")
        q.run("system_reset")
        check(q.event("RESET"), "reset")
        q.run("quit")


def test_the_monitor_shows_memory_registers_and_buses():
    with Machine("-monitor", "unix:SOCK,server,nowait") as m:
        c = Client(m.path, m.process)
        c.until(b"(umbra) ")

        def ask(line):
            c.send(line.encode() + b"\n")
            return c.until(b"(umbra) ").decode()
        check("running" in ask("info status"), "status")
        check("paused" in ask("stop") + ask("info status"), "stop")
        check("rip" in ask("info registers"), "registers")
        check("8254" in ask("info mtree"), "mtree")
        check(ask("info mem").strip() and "is not an address" in ask("info mem here"), "mem")
        pci = ask("info pci")
        check("1234:1111" in pci and "8086:1237" in pci, pci)
        check("cannot access" in ask("xp/2xh 0xb8000"), "the planes are no memory")
        # The Multiboot magic is in the image that was loaded.
        check("0x1badb002" in ask("xp/2048xw 0x100000"), "xp of the image")
        check("0x" in ask("x/4i 0x100040") and "usage" in ask("x"), "x")
        check("unknown command" in ask("frobnicate") and "usage" in ask("sendkey"), "errors")
        check("nokey" in ask("sendkey ctrl-nokey"), "unknown key")
        picture, text, snapshot = tmp("m.png"), tmp("m.txt"), tmp("m.snap")
        check(ask("screendump " + picture).strip() == "" and open(picture, "rb").read(8) == b"\x89PNG\r\n\x1a\n", "screendump")
        check(ask("screentext " + text).strip() == "" and os.path.exists(text), "screentext")
        check("error" in ask("screendump /nonexistent/x.png"), "where nothing can be written")
        before = ask("info status")
        check(ask("savevm " + snapshot).strip() == "", "savevm")
        ask("cont")
        time.sleep(0.2)
        ask("stop")
        check(ask("info status") != before, "it did not run")
        check(ask("loadvm " + snapshot).strip() == "", "loadvm")
        check(ask("info status") == before, "loadvm did not go back")
        check("cannot load" in ask("loadvm " + picture), "a foreign file")
        c.send(b"quit\n")
        check(m.end()[0] == 0, "status")


def test_the_monitor_on_standard_input():
    done = subprocess.run([UMBRA, "-m", "32M", "-kernel", guest("spin"), "-serial", "null", "-monitor", "stdio"],
                          input=b"info version\nquit\n", stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=WAIT)
    check(done.returncode == 0 and b"umbra 0." in done.stdout, "%r" % done)


def test_bad_places_are_refused_with_a_reason():
    for where in ("unix:", "unix:" + "x" * 200, "nowhere", "tcp:1", "tcp::99999", "unix:/nonexistent/dir/s,server", "unix:x,frob"):
        done = subprocess.run([UMBRA, "-kernel", guest("spin"), "-qmp", where], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=WAIT)
        check(done.returncode == 2 and done.stderr.startswith(b"umbra: "), "%s: %r" % (where, done))


def test_power_button_and_keys_reach_a_guest():
    boot = harness.linux()
    options = [a for a in boot if a not in ("-nographic",)]
    path = tmp("linux-qmp")
    serial = tmp("linux-serial")
    process = subprocess.Popen([UMBRA, *options, "-serial", "file:" + serial, "-qmp", "unix:%s,server" % path, "-accel", "jit"],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        q = Qmp(path, process)
        end = time.time() + 10 * WAIT
        while b"umbra# " not in open(serial, "rb").read():
            check(time.time() < end and process.poll() is None, "no prompt")
            time.sleep(0.2)
        check(q.run("send-key", keys=[{"type": "qcode", "data": "a"}]) == {"return": {}}, "send-key")
        check(q.run("input-send-event", events=[{"type": "rel", "data": {"axis": "x", "value": 5}},
                                                {"type": "btn", "data": {"button": "left", "down": True}}]) == {"return": {}}, "mouse")
        picture = tmp("linux.png")
        check(q.run("screendump", filename=picture) == {"return": {}} and os.path.getsize(picture) > 500, "screendump")
        check(q.run("quit") == {"return": {}}, "quit")
        process.communicate(timeout=WAIT)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


harness.main(globals())
