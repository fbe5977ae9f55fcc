"""A client of the control sockets, for tests."""
import json
import socket
import time

from harness import check

WAIT = 300  # seconds for what ought to come at once


class Client:
    """A line-wise client of a unix socket."""

    def __init__(self, path, process):
        end = time.time() + WAIT
        self.sock = socket.socket(socket.AF_UNIX)
        while True:
            try:
                self.sock.connect(path)
                break
            except OSError:
                check(time.time() < end and process.poll() is None, "nobody listens at " + path)
                time.sleep(0.02)
        self.sock.settimeout(WAIT)
        self.pending = b""

    def until(self, mark):
        while mark not in self.pending:
            got = self.sock.recv(65536)
            check(got, "the connection was closed; before that: %r" % self.pending[-300:])
            self.pending += got
        text, self.pending = self.pending.split(mark, 1)
        return text

    def send(self, data):
        self.sock.sendall(data)

    def is_closed(self):
        try:
            while self.sock.recv(65536):
                pass
        except ConnectionResetError:
            pass
        return True


class Qmp(Client):
    def __init__(self, path, process, negotiate=True):
        super().__init__(path, process)
        self.events = []
        self.greeting = self.message()
        if negotiate:
            check(self.run("qmp_capabilities") == {"return": {}}, "negotiation")

    def message(self):
        return json.loads(self.until(b"\r\n"))

    def answer(self):
        while True:
            got = self.message()
            if "event" not in got:
                return got
            self.events.append(got)

    def run(self, command, **arguments):
        request = {"execute": command}
        if arguments:
            request["arguments"] = {k.replace("_", "-"): v for k, v in arguments.items()}
        self.send(json.dumps(request).encode())
        return self.answer()

    def event(self, name):
        end = time.time() + WAIT
        while True:
            for k, e in enumerate(self.events):
                if e["event"] == name:
                    return self.events.pop(k)
            check(time.time() < end, "no event " + name)
            got = self.message()
            check("event" in got, "an answer nobody asked for: %r" % got)
            self.events.append(got)
