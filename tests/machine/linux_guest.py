"""Linux with drivers at its prompt, for tests that type at it while it runs."""
import os
import subprocess

from harness import CACHE, UMBRA, check, linux, tmp
from qmp_client import Qmp


class LinuxGuest:
    """Linux at its prompt on COM1, with QMP."""

    def __init__(self, *options, boots=True):
        common = linux("amd64")
        linux("modules-amd64")
        common[common.index("-initrd") + 1] = tmp("initrd-amd64")
        with open(tmp("initrd-amd64"), "wb") as out:
            for part in ("initrd.img", "modules-amd64.img"):
                with open(os.path.join(CACHE, part), "rb") as f:
                    out.write(f.read())
        common[common.index("-nographic"):common.index("-nographic") + 1] = ["-display", "none", "-serial", "stdio"]
        self.messages = tmp("messages")
        with open(self.messages, "wb") as err:
            self.process = subprocess.Popen(
                [UMBRA, *common, "-accel", "jit", "-timeout", "900", "-qmp", "unix:" + tmp("qmp") + ",server,nowait", *options],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=err)
        self.seen = b""
        self.qmp = Qmp(tmp("qmp"), self.process)
        if boots:  # not one that goes on from a snapshot
            self.until("umbra# ")
            self.run("sh /lib/modules/load")

    def said(self):
        with open(self.messages, encoding="utf-8", errors="replace") as f:
            return f.read()

    def until(self, text):
        while text.encode() not in self.seen:
            got = os.read(self.process.stdout.fileno(), 65536)
            check(got, "ended: %r %s" % (self.seen[-500:], self.said()[-1000:]))
            self.seen += got
        before, self.seen = self.seen.split(text.encode(), 1)
        return before.decode(errors="replace").replace("\r", "")

    def start(self, command):
        self.process.stdin.write(command.encode() + b"\n")
        self.process.stdin.flush()

    def run(self, command):
        self.start(command)
        return self.until("umbra# ")

    def status(self):
        return self.qmp.run("query-status")["return"]["status"]

    def monitor(self, line):
        return self.qmp.run("human-monitor-command", command_line=line)["return"]
