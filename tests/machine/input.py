"""Keys and mice: what clients of the monitor and of QMP press and move reaches the guest's devices."""
import os
import subprocess
import time

from harness import UMBRA, check, guest, main, tmp
from qmp_client import Qmp

WAIT = 120


class Machine:
    """A guest that prints what its devices send, on COM1 and so in a file; QMP."""
    made = 0

    def __init__(self, kernel, *options, ready="ready\n"):
        Machine.made += 1
        self.serial, path = tmp("serial%d" % Machine.made), tmp("qmp%d" % Machine.made)
        self.process = subprocess.Popen([UMBRA, "-m", "32M", "-kernel", guest(kernel), "-serial", "file:" + self.serial,
                                         "-qmp", "unix:%s,server,nowait" % path, "-timeout", "600", *options])
        self.qmp = Qmp(path, self.process)
        self.wait(ready)

    def __enter__(self):
        return self

    def __exit__(self, *args):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def text(self):
        return open(self.serial, encoding="latin-1").read() if os.path.exists(self.serial) else ""

    def wait(self, text, since=0):
        end = time.time() + WAIT
        while text not in self.text()[since:]:
            check(self.process.poll() is None and time.time() < end, "no %r in %r" % (text, self.text()[since:]))
            time.sleep(0.05)
        return len(self.text())

    def monitor(self, line):
        return self.qmp.run("human-monitor-command", command_line=line)["return"]

    def send(self, *events):
        return self.qmp.run("input-send-event", events=list(events))


def button(name, down):
    return {"type": "btn", "data": {"button": name, "down": down}}


def axis(name, value):
    return {"type": "rel", "data": {"axis": name, "value": value}}


def test_a_serial_mouse_is_moved_by_the_monitor_and_by_qmp():
    with Machine("sermouse", "-serial", "msmouse") as m:
        check("identity M3(" in m.text() and "\\MOUSE\\" in m.text(), m.text())
        at = len(m.text())
        m.monitor("mouse_move 5 3")
        at = m.wait("packet 40 5 3\n", at)
        m.monitor("mouse_button 1")
        at = m.wait("packet 60 0 0\n", at)
        m.send(axis("x", -5), axis("y", -3))
        at = m.wait("packet 6f 3b 3d\n", at)
        m.send(button("left", False), button("middle", True))
        at = m.wait("packet 40 0 0\nfourth 20\n", at)
        path = tmp("mouse.state")
        m.monitor("stop")
        m.monitor("savevm " + path)
        m.send(button("middle", False))
        m.monitor("cont")
        m.wait("packet 40 0 0\nfourth 0\n", at)
        m.monitor("mouse_button 2")
        m.wait("fourth 20\n", at)
        m.monitor("mouse_button 0")
        m.wait("fourth 0\n", at)
    with Machine("sermouse", "-serial", "msmouse", "-loadvm", path, ready="") as m:
        m.monitor("mouse_move 1 1")  # all buttons are up, which the mouse that was saved does not know
        m.wait("packet 40 1 1\nfourth 20\npacket 40 0 0\nfourth 0\n")


def test_keys_are_held_for_their_time_and_unknown_ones_are_named():
    with Machine("keys") as m:
        m.monitor("stop")
        at = len(m.text())
        check(m.monitor("sendkey shift-a 1500") == "", "hold")
        check(m.monitor("sendkey alt-sysrq") == "", "default")
        m.monitor("cont")
        at = m.wait("key 2a\nkey 1e\n", at)
        at = m.wait("key 9e\nkey aa\nkey 38\nkey 54\nkey d4\nkey b8\n", at)
        repeated = m.text().count("key 1e\n")
        check(8 <= repeated <= 14, "%d: after 500 ms, 10.9 a second, for 1500 ms" % repeated)
        for line, error in (("sendkey ctrl-teapot", "'teapot' is not the name of a key"), ("sendkey a 60001", "held for 0 to 60000 ms"), ("sendkey a x", "held for"),
                            ("sendkey " + "-".join("a" * 17), "more than 16 keys"), ("sendkey ctrl-", "'' is not the name"), ("mouse_button 8", "buttons are"),
                            ("mouse_move a 1", "'a' is not a number"), ("mouse_move 1 40000", "'40000' is not")):
            check(error in m.monitor(line), "%s: %s" % (line, m.monitor(line)))
        key = {"type": "number", "data": 0xc8}
        check(m.qmp.run("send-key", keys=[{"type": "qcode", "data": "ctrl"}, key], **{"hold-time": 20}) == {"return": {}}, "send-key")
        m.wait("key 1d\nkey e0\nkey 48\nkey e0\nkey c8\nkey 9d\n", at)
        for keys, hold, error in (([{"type": "qcode", "data": "teapot"}], 1, "teapot"), ([{"type": "number", "data": 1000}], 1, "1000"), ([key], -1, "hold-time"),
                                  ([key], "x", "hold-time"), ([7], 1, "qcode"), ([], 1, "keys")):
            got = m.qmp.run("send-key", keys=keys, **{"hold-time": hold})
            check(error in got["error"]["desc"], got)
        m.monitor("stop")
        answers = [m.monitor("sendkey a") for _ in range(400)]
        check(answers[0] == "" and "has not read" in answers[-1], "a keyboard takes keys without end")


def test_the_keyboard_and_the_mice_tell_how_they_are():
    with Machine("keys", "-serial", "msmouse") as m:
        text = m.monitor("info keyboard")
        check("LEDs: none" in text and "set 2" in text and "500 ms" in text, text)
        check("* Mouse #1: PS/2 mouse" in m.monitor("info mice") and "  Mouse #2: serial mouse on COM2" in m.monitor("info mice"), m.monitor("info mice"))
        mice = m.qmp.run("query-mice")["return"]
        check([mouse["current"] for mouse in mice] == [True, False], mice)


def test_the_ps_2_mouse_has_the_movements_while_nobody_turns_the_serial_one_on():
    with Machine("keys", "-serial", "msmouse") as m:
        m.monitor("mouse_move 3 -5")
        m.wait("mouse 8\nmouse 3\nmouse 5\n")


def test_a_snapshot_with_a_mouse_is_refused_by_a_machine_without():
    with Machine("sermouse", "-serial", "msmouse") as m:
        m.monitor("savevm " + tmp("refused.state"))
    done = subprocess.run([UMBRA, "-m", "32M", "-kernel", guest("sermouse"), "-serial", "null", "-serial", "null", "-loadvm", tmp("refused.state")],
                          capture_output=True, text=True)
    check(done.returncode == 2 and "serial ports and a mouse" in done.stderr, done.stderr)


main(globals())
