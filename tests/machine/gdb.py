"""The gdb stub: a real gdb, the bare protocol, and packets that nobody should send."""
import os
import random
import re
import select
import shutil
import socket
import subprocess

import harness
from harness import DEBUG_EXIT, LONG, Skip, check, guest, run_guest, umbra, write_tmp

SYMBOLS = os.path.join(harness.GUESTS, "testos.elf64")


class Machine:
    """umbra with its stub on a free port."""

    def __init__(self, name="testos", *more, stopped=True):
        args = ["-m", "32M", "-kernel", guest(name), "-append", "coherent", "-nographic", "-no-reboot", *DEBUG_EXIT, "-gdb", "tcp::0", "-digest", *more]
        self.process = subprocess.Popen([harness.UMBRA, *args, *(["-S"] if stopped else [])], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        line = self.process.stderr.readline().decode()
        found = re.search(r"listens on 127\.0\.0\.1:(\d+)", line)
        check(found, f"no port: {line}")
        self.port = int(found.group(1))

    def end(self, timeout=300):
        _, err = self.process.communicate(timeout=timeout)
        return harness.Result(self.process.returncode, "", err.decode("utf-8", "replace"))

    def kill(self):
        self.process.kill()
        self.process.communicate()


class Client:
    """The protocol by hand."""

    def __init__(self, machine):
        self.sock = socket.create_connection(("127.0.0.1", machine.port), timeout=60)
        self.buffer = b""

    def raw(self, data):
        self.sock.sendall(data)

    def send(self, payload):
        if isinstance(payload, str):
            payload = payload.encode()
        self.raw(b"$" + payload + b"#%02x" % (sum(payload) & 255))

    def receive(self):
        """The next packet's payload; None at the end of the connection."""
        while True:
            found = re.search(rb"\$([^#]*)#(..)", self.buffer, re.S)
            if found:
                self.buffer = self.buffer[found.end():]
                check(int(found.group(2), 16) == sum(found.group(1)) & 255, "checksum")
                try:
                    self.raw(b"+")
                except OSError:
                    pass  # that was its last word
                return found.group(1).decode("latin-1")
            data = self.sock.recv(65536)
            if not data:
                return None
            self.buffer += data

    def ask(self, payload):
        self.send(payload)
        return self.receive()

    def stop(self):
        """The next stop; console output is passed over."""
        while True:
            reply = self.receive()
            if reply is None or not reply.startswith("O"):
                return reply

    def go(self, payload="c"):
        self.send(payload)
        return self.stop()


def base_digest():
    return run_guest("testos", "-append", "coherent", "-digest").digest()


def symbol(name):
    with open(SYMBOLS, "rb") as f:
        elf = f.read()
    table = int.from_bytes(elf[40:48], "little")
    for n in range(int.from_bytes(elf[60:62], "little")):
        head = elf[table + 64 * n:table + 64 * n + 64]
        if int.from_bytes(head[4:8], "little") != 2:
            continue
        offset, size, link = (int.from_bytes(head[a:b], "little") for a, b in ((24, 32), (32, 40), (40, 44)))
        names = int.from_bytes(elf[table + 64 * link + 24:table + 64 * link + 32], "little")
        for at in range(offset, offset + size, 24):
            start = names + int.from_bytes(elf[at:at + 4], "little")
            if elf[start:elf.index(0, start)].decode() == name:
                return int.from_bytes(elf[at + 8:at + 16], "little")
    raise AssertionError("no symbol " + name)


def gdb(machine, commands):
    if not shutil.which("gdb"):
        machine.kill()
        raise Skip("gdb is not installed")
    path = write_tmp("commands.gdb", "set pagination off\nset confirm off\nset debuginfod enabled off\n"
                     f"file {SYMBOLS}\ntarget remote 127.0.0.1:{machine.port}\n{commands}\n")
    done = subprocess.run(["gdb", "-nx", "-batch", "-x", path], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=300)
    return done.stdout.decode("utf-8", "replace")


def test_gdb_breaks_steps_reads_watches_and_detaches():
    machine = Machine()
    out = gdb(machine, "break guest_main\ncontinue\nbacktrace\ninfo registers rip cr3 efer\nx/2i $pc\nstepi\nx/1i $pc\n"
              "hbreak map_page\ncontinue\ndelete\nwatch *(unsigned *)&passed\ncontinue\nprint *(unsigned *)&passed\n"
              "continue\nprint *(unsigned *)&passed\ndelete\nrwatch *(unsigned *)&passed\ncontinue\ndelete\n"
              "info threads\nprint $xmm0.uint128\nset $xmm15.v2_int64[0] = 4886718345\nprint $xmm15.v2_int64[0]\ndetach")
    for word in (r"Breakpoint 1, 0x\w+ in guest_main", r"#1 +0x\w+ in entry64", r"cr3 +0x11a000", r"=> 0x\w+ <guest_main\+\d+>",
                 r"Breakpoint 2, 0x\w+ in map_page", r"Hardware watchpoint 3", r"Old value = 0\s+New value = 1", r"\$1 = 1", r"\$2 = 2",
                 r"Hardware read watchpoint 4[\s\S]*Value = 2", r"Thread 1", r"\$4 = 4886718345", "detached"):
        check(re.search(word, out), f"no '{word}' in:\n{out}")
    check(machine.end().status == 33, "the guest did not go on to its end")


def test_a_gdb_session_leaves_the_digest_as_it_is():
    machine = Machine()
    out = gdb(machine, "break map_page\ncontinue\ncontinue\nstepi 20\nnexti\nwatch *(unsigned *)&passed\nignore 1 100000\ncontinue\ncontinue\ndelete\n"
              "awatch *(unsigned *)&failed\ncontinue\ndelete\nx/64xg $rsp\ninfo all-registers\nfinish\ndetach")
    end = machine.end()
    check(end.status == 33 and end.digest() == base_digest(), f"{end.status} {end.err}\n{out}")


def test_breakpoints_never_change_guest_memory():
    machine = Machine()
    c = Client(machine)
    at = symbol("guest_main")
    before = c.ask(f"m{at:x},10")
    for kind in "01":
        check(c.ask(f"Z{kind},{at:x},1") == "OK", "insert")
    check(c.ask(f"m{at:x},10") == before, "memory changed")
    check(c.go().startswith("T05"), "no stop")
    check(c.ask(f"m{at:x},10") == before, "memory changed")
    check(int.from_bytes(bytes.fromhex(c.ask("p10")), "little") == at, "rip")
    for kind in "01":
        check(c.ask(f"z{kind},{at:x},1") == "OK", "remove")
    check(c.go() == "W21", "exit status")
    check(machine.end().digest() == base_digest(), "digest")


def test_registers_and_memory_can_be_written_and_read_back():
    machine = Machine()
    c = Client(machine)
    c.ask(f"Z0,{symbol('guest_main'):x},1")
    c.go()
    registers = c.ask("g")
    check(len(registers) == 2 * (16 * 8 + 8 + 7 * 4 + 8 * 10 + 8 * 4 + 16 * 16 + 4 + 9 * 8), f"{len(registers)}")
    check(c.ask("P1=8877665544332211") == "OK" and c.ask("p1") == "8877665544332211", "rbx")
    check(c.ask("G" + c.ask("g")) == "OK", "G of what g gave")
    check(c.ask("P3c=0000000000000000")[0] == "E", "a control register was set")
    check(c.ask("pff") [0] == "E" and c.ask("P1=00")[0] == "E", "bad registers")
    at = symbol("boot_stack")
    check(c.ask(f"M{at:x},4:01020304") == "OK" and c.ask(f"m{at:x},4") == "01020304", "M")
    check(c.ask(b"X%x,3:\x7d\x03\x41\x7d\x5d" % at) == "OK" and c.ask(f"m{at:x},4") == "23417d04", c.ask(f"m{at:x},4"))
    check(c.ask("m0,0") == "" and c.ask("mffff800000000000,8")[0] == "E", "unmapped memory")
    check(c.ask("Mffff800000000000,1:00")[0] == "E", "unmapped memory was written")
    check("i386:x86-64" in c.ask("qXfer:features:read:target.xml:0,ffb"), "target description")
    c.send("k")
    machine.end()


def test_watchpoints_name_the_address():
    machine = Machine()
    c = Client(machine)
    c.ask("qSupported:swbreak+;hwbreak+")
    at = symbol("passed")
    check(c.ask(f"Z2,{at:x},4") == "OK", "Z2")
    check(f"watch:{at:x};" in c.go(), "write watchpoint")
    c.ask(f"z2,{at:x},4")
    c.ask(f"Z3,{at:x},4")
    check(f"rwatch:{at:x};" in c.go(), "read watchpoint")
    c.ask(f"z3,{at:x},4")
    c.ask(f"Z4,{at:x},4")
    check(f"awatch:{at:x};" in c.go(), "access watchpoint")
    c.ask(f"z4,{at:x},4")
    c.ask(f"Z0,{symbol('map_page'):x},1")
    check("swbreak:;" in c.go(), "breakpoint")
    check(c.ask("vCont?").startswith("vCont;"), "vCont")
    before = c.ask("p10")
    check(c.go("vCont;s:1;c").startswith("T05") and c.ask("p10") != before, "step")
    c.ask("D")
    check(machine.end().digest() == base_digest(), "digest")


def test_a_running_machine_is_stopped_by_a_connection_and_by_ctrl_c():
    machine = Machine("spin", stopped=False)
    c = Client(machine)
    check(c.ask("?").startswith("T"), "no answer")
    for _ in range(3):
        c.send("c")
        check(not select.select([c.sock], [], [], 0.2)[0] or c.sock.recv(1, socket.MSG_PEEK) == b"+", "it stopped by itself")
        c.raw(b"\x03")
        check(c.stop().startswith("T02"), "not interrupted")
    c.send("k")
    check(machine.end(60).status == 0, "kill")


def test_a_client_that_vanishes_leaves_nothing_behind():
    machine = Machine()
    c = Client(machine)
    c.ask(f"Z0,{symbol('map_page'):x},1")
    c.ask(f"Z2,{symbol('passed'):x},4")
    c.go()
    c.sock.close()
    end = machine.end()
    check(end.status == 33 and end.digest() == base_digest(), f"{end.status} {end.err}")


def test_a_triple_fault_can_be_looked_at():
    machine = Machine("triplefault")
    c = Client(machine)
    check(c.go().startswith("T06"), "no stop at the end")
    check(len(c.ask("g")) > 1000, "registers")
    check(c.go() == "W04", "exit status")
    check(machine.end().status == 4, "status")


MALFORMED = ["", "m", "m0", "m,", "m0,", "mzz,1", "m0,fffffffffffffffffff", "M0,4:0", "M0,4:00112233445566", "M0,ffffffff:", "X0,ffff:a", "G", "Gzz", "G00",
             "P", "P0", "P=", "Pffffffffffffffff=00", "p", "pffffffff", "Z", "Z9,0,0", "Z0", "Z0,", "Z2,0,ffffffffffffffff", "Z2,ffffffffffffffff,8",
             "Z3,0,0", "z0,zz,1", "z7,1,1", "H", "Hg", "Hgff", "Hx1", "T", "Tffff", "vCont", "vCont;", "vCont;x", "vCont;C", "vCont;s:zz", "vCont;t", "v",
             "vKil", "q", "qXfer:features:read:", "qXfer:features:read:target.xml:", "qXfer:features:read:target.xml:ffffffff,ffffffff",
             "qXfer:features:read:other.xml:0,10", "qRcmd,zz", "Q", "QStart", "czz", "szz", "C", "Czz", "S5;zz", "\0\0\0", "m\0", "i", "r", "R00", "!", "b", "B", "t"]


def test_malformed_packets_are_answered_and_change_nothing():
    machine = Machine()
    c = Client(machine)
    for payload in MALFORMED:
        reply = c.ask(payload)
        if not payload.startswith(("G", "q", "Q", "v", "m0,f", "Z3")):
            check(reply == "" or reply.startswith("E") or payload in ("m0,ffff",), f"{payload!r}: {reply!r}")
    check(c.go() == "W21", "it does not run any more")
    check(machine.end().digest() == base_digest(), "digest")


def test_noise_never_crashes_the_stub():
    rng = random.Random(5)
    for _ in range(40 if LONG else 8):
        machine = Machine("spin", "-icount-limit", "10000000")
        try:
            c = Client(machine)
            for _ in range(60):
                body = bytes(rng.choice(b"mMgGpPzZHTqQvXCcsS?0123456789abcdef,:;=#}*$\x00\xff") for _ in range(rng.randrange(1, 40)))
                if rng.random() < 0.1:
                    body = body * 900
                c.raw(rng.choice([body, b"$" + body, b"$" + body + b"#%02x" % (sum(body) & 255)]))
            c.sock.shutdown(socket.SHUT_WR)
            while c.sock.recv(65536):
                pass
        except OSError:
            pass
        check(machine.end(120).status in (8, 0), f"status {machine.process.returncode}")


def test_command_line_refuses_bad_addresses():
    for args in (["-S"], ["-gdb", "tcp"], ["-gdb", "tcp::"], ["-gdb", "tcp::99999"], ["-gdb", "tcp:nosuch:1"], ["-gdb", "udp::1"], ["-gdb", "tcp::12x"]):
        result = umbra("-m", "32M", "-kernel", guest("spin"), *args)
        check(result.status == 2 and result.err.count("\n") == 1, f"{args}: {result.status} {result.err}")


harness.main(globals())
