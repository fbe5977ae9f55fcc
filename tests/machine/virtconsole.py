"""The virtio console: Linux's hvc0 behind a socket, a file and the terminal."""
import hashlib
import os
import socket
import subprocess
import sys
import time

import harness
from harness import check, fetched, tmp, umbra, write_tmp

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "boot"))
import media  # noqa: E402

SHELL = b"""#!/bin/sh
exec sh -i </dev/hvc0 >/dev/hvc0 2>&1
"""


def options(kind):
    base = harness.linux()
    fetched("modules-cloud", "")
    initrd = write_tmp("initrd", media.read(os.path.join(harness.CACHE, "initrd.img")) + media.read(os.path.join(harness.CACHE, "modules-cloud.img")) +
                       media.cpio({"shell": (0o100755, SHELL)}))
    base[base.index("-initrd") + 1] = initrd
    return base + ["-chardev", kind + ",id=c", "-device", "virtio-serial-pci", "-device", "virtconsole,chardev=c", "-timeout", "600"]


def test_shell_on_hvc0_answers_what_is_typed_at_a_socket():
    path = tmp("hvc0.sock")
    script = write_tmp("hvc0.script", 'wait "umbra# "\nsend "sh /lib/modules/load; setsid /shell &\\n"\n')
    process = subprocess.Popen([harness.UMBRA, *options(f"socket,path={path},server=on"), "-input-script", script], stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(300)
    end = time.time() + 60
    while True:
        try:
            client.connect(path)
            break
        except OSError:
            check(time.time() < end and process.poll() is None, "nobody listens at " + path)
            time.sleep(0.05)
    seen = ""

    def wait(text):
        nonlocal seen
        while text not in seen:
            got = client.recv(4096)
            check(got, f"closed before '{text}': {seen[-1000:]}")
            seen += got.decode("utf-8", "replace")
        seen = seen.split(text, 1)[1]
    wait("# ")
    client.sendall(b"echo $((6*7)) from $(tty)\n")
    wait("42 from /dev/hvc0")
    client.sendall(b"seq 1 3000; seq 1 3000 | md5sum\n")  # more than a buffer
    wait(hashlib.md5(b"".join(b"%d\n" % n for n in range(1, 3001))).hexdigest())
    client.sendall(b"cat >/tmp/long; wc -c </tmp/long; poweroff -f\n")
    client.sendall(b"".join(b"%0999d\n" % n for n in range(40)) + b"\4")
    wait("40000")
    out = process.communicate(timeout=300)[0].decode("utf-8", "replace")
    check(process.returncode == 0, f"status {process.returncode}: {out[-1000:]}")


def test_kernel_s_messages_on_hvc0_reach_a_file_the_same_in_every_mode():
    runs = []
    for args in ((), ("-mmu", "ept", "-host-chaos", "seed=3,rate=500,ops=all"), ("-lockstep", "1000000")):
        path = tmp("hvc0.txt")
        script = write_tmp("file.script", 'wait "umbra# "\nsend "sh /lib/modules/load; seq 1 2000 >/dev/hvc0; echo end >/dev/hvc0; poweroff -f\\n"\n')
        result = umbra(*options("file,path=" + path), "-input-script", script, "-digest", *args)
        check(result.status == 0, f"status {result.status}: {result.out[-1000:]}{result.err[-500:]}")
        runs.append((result.digest(), media.read(path)))
    check(runs[0] == runs[1] == runs[2], f"{[digest for digest, _ in runs]}")
    check(runs[0][1] == b"".join(b"%d\r\n" % n for n in range(1, 2001)) + b"end\r\n", runs[0][1][-200:])


def test_impossible_consoles_are_refused():
    for text, word in (("-chardev vc,id=c", "vc"), ("-chardev file,id=c", "path"), ("-chardev null", "id"),
                       ("-device virtconsole,chardev=c", "virtio-serial"), ("-device virtio-serial -device virtconsole,chardev=c", "id=c"),
                       ("-chardev socket,id=c,path=/nonexistent/x", "cannot connect"), ("-chardev stdio,id=c -serial stdio", "terminal")):
        result = umbra("-bios", "bios-256k.bin", *text.split())
        check(result.status == 2 and word in result.err, f"{text}: {result.status} {result.err}")


harness.main(globals())
