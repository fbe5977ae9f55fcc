"""Linux uses the network through both cards: 50 MB each way's checksum, a server in the guest, DHCP."""
import hashlib
import http.client
import os
import random
import re
import socket
import subprocess
import threading
import time

import harness
from harness import CACHE, UMBRA, Skip, check, linux, tmp, write_tmp
from linux_guest import LinuxGuest

SIZE = 50 << 20


class Server:
    """Serves /big, takes what is posted, and answers /go when it is told to."""

    def __init__(self):
        self.big = random.Random(1).randbytes(SIZE)
        self.posted, self.go = {}, threading.Event()
        outer = self

        class Handler(harness.QuietHandler):
            def do_GET(self):
                if self.path == "/go":
                    outer.go.wait(600)
                body = outer.big if self.path == "/big" else b"ok"
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self):
                left, digest = int(self.headers["Content-Length"]), hashlib.md5()
                while left:
                    part = self.rfile.read(min(left, 1 << 16))
                    digest.update(part)
                    left -= len(part)
                outer.posted[self.path] = digest.hexdigest()
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

        self.port = harness.serve_http(Handler)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def with_modules(kernel):
    """Options that boot a kernel with its drivers beside."""
    options = linux(kernel)
    linux("modules-" + kernel)
    image = tmp("initrd-" + kernel)
    with open(image, "wb") as out:
        for part in ("initrd.img", f"modules-{kernel}.img"):
            with open(os.path.join(CACHE, part), "rb") as f:
                out.write(f.read())
    options[options.index("-initrd") + 1] = image
    return options


def script(lines):
    text = 'wait "umbra# "\n'
    for line in lines:
        text += 'send "%s\\n"\n' % line.replace("\\", "\\\\").replace('"', '\\"')
        text += 'wait "umbra# "\n'
    return write_tmp("net.script", text)


def commands(port):
    host = (("10.0.2", "eth0"), ("10.0.3", "eth1"))
    lines = ["sh /lib/modules/load"]
    for net, card in host:
        lines.append(f"ifconfig {card} {net}.15 netmask 255.255.255.0 up; sleep 1")
    lines.append("mkdir /tmp/www; head -c 3000000 /dev/urandom | base64 > /tmp/www/f; echo served $(md5sum < /tmp/www/f)")
    for net, card in host:
        lines.append(f"echo {card} got $(wget -q -O - http://{net}.2:{port}/big | md5sum)")
        lines.append(f"wget -q -O - --post-file /tmp/www/f http://{net}.2:{port}/from-{card}; echo posted")
    lines.append("httpd -p 80 -h /tmp/www; echo now:ready")
    lines.append(f"wget -q -O - http://10.0.2.2:{port}/go; echo")
    lines.append("poweroff -f")
    return lines


def fetch_from_guest(port):
    """The guest's /f, through a forwarded port."""
    for _ in range(50):
        try:
            c = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
            c.request("GET", "/f")
            return hashlib.md5(c.getresponse().read()).hexdigest()
        except (ConnectionError, http.client.HTTPException, OSError):
            time.sleep(0.2)
    return "nothing"


def wait_for(path, text, process, seconds=600):
    end = time.time() + seconds
    while time.time() < end and process.poll() is None:
        with open(path, "rb") as f:
            if text in f.read():
                return True
        time.sleep(0.1)
    return False


def test_both_cards_carry_50_megabytes_and_a_server_in_the_guest_is_reached():
    server, forwards, out = Server(), (free_port(), free_port()), tmp("net.serial")
    open(out, "wb").close()
    options = with_modules("amd64")
    options[options.index("-nographic")] = "-display"
    options.insert(options.index("-display") + 1, "none")
    process = subprocess.Popen(
        [UMBRA, *options, "-serial", "file:" + out, "-accel", "jit", "-timeout", "900", "-input-script",
         script(commands(server.port)),
         "-nic", f"user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:{forwards[0]}-:80",
         "-nic", f"user,model=e1000,net=10.0.3.0/24,hostfwd=tcp:127.0.0.1:{forwards[1]}-:80"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        ready = wait_for(out, b"\nnow:ready", process)
        fetched = [fetch_from_guest(port) for port in forwards] if ready else []
        server.go.set()
        err = process.communicate(timeout=900)[1].decode()
    finally:
        process.kill()
    with open(out, encoding="utf-8", errors="replace") as f:
        text = f.read().replace("\r", "")
    if "libslirp" in err:
        raise Skip("this build has no libslirp")
    check(process.returncode == 0, f"status {process.returncode}\n{err[-2000:]}\n{text[-3000:]}")
    served = re.search(r"^served (\w{32})", text, re.M).group(1)
    big = hashlib.md5(server.big).hexdigest()
    for card, fetch in zip(("eth0", "eth1"), fetched):
        check(f"{card} got {big}" in text, f"{card}: wrong bytes\n{text[-3000:]}")
        check(server.posted.get("/from-" + card) == served, f"{card}: what the guest sent is {server.posted}, not {served}")
        check(fetch == served, f"{card}: the forwarded port gave {fetch}, not {served}")


class Echo:
    """A TCP server that sends back what comes, and keeps its connections until the client ends them."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            threading.Thread(target=self.echo, args=(self.listener.accept()[0],), daemon=True).start()

    @staticmethod
    def echo(client):
        try:
            while got := client.recv(65536):
                client.sendall(got)
        except ConnectionError:
            pass
        client.close()


def say(guest, word, expected):
    """Sends a line on the open connection, and waits for what was got on it so far."""
    guest.start(f"echo {word} >&3; until [ \"$(echo $(cat /got))\" = '{expected}' ]; do sleep 0.1; done; echo sa''id")
    guest.until("said")
    guest.until("umbra# ")


def use_network_after_a_load(guest, server, forward):
    """The connection of the snapshot is gone: who sends on it is told so. Everything else is as ever."""
    got = guest.run("echo lost >&3; wait $NC; echo ended $? $(cat /got)")
    check("ended" in got and "lost" not in got.split("ended")[-1], got)
    digest = guest.run(f"wget -q -O - http://10.0.2.2:{server.port}/big | md5sum")
    check(hashlib.md5(server.big).hexdigest() in digest, digest)
    check(fetch_from_guest(forward) == hashlib.md5(b"served\n").hexdigest(), "the forwarded port")


def test_a_snapshot_with_an_open_connection_disturbs_neither_it_nor_what_comes_after():
    server, echo, forward, file = Server(), Echo(), free_port(), tmp("net.snapshot")
    options = ["-nic", f"user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:{forward}-:80"]
    try:
        guest = LinuxGuest(*options)
    except AssertionError as e:
        if "libslirp" in str(e):
            raise Skip("this build has no libslirp") from e
        raise
    try:
        guest.run("ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up; mkdir /www; echo served > /www/f; httpd -p 80 -h /www; sleep 1")
        guest.run(f"mkfifo /p; nc 10.0.2.2 {echo.port} < /p > /got & NC=$!; exec 3>/p")
        say(guest, "one", "one")
        check(guest.monitor("savevm " + file) == "", "savevm")
        say(guest, "two", "one two")
        check(guest.monitor("loadvm " + file) == "", "loadvm")
        use_network_after_a_load(guest, server, forward)
        check(guest.qmp.run("quit") == {"return": {}}, "quit")
        guest.process.wait()
        guest = LinuxGuest(*options, "-loadvm", file, boots=False)
        guest.start("")
        guest.until("umbra# ")
        use_network_after_a_load(guest, server, forward)
        guest.start("poweroff -f")
        check(guest.process.wait() == 0, "the end")
    finally:
        guest.process.kill()
        guest.process.wait()


harness.main(globals())
