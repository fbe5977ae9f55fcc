"""What the whole-machine tests share: running umbra, checking, skipping.

A test file defines functions named test_<sentence>(); harness.main() runs them all and exits 0, 1, or 77 (everything skipped).
Environment: UMBRA (the program), GUESTS (folder of the test guests), UMBRA_LONG=1 for the long forms.
The files of a run go with it, unless a test failed or UMBRA_KEEP is set.
"""
import atexit
import http.server
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import traceback

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
UMBRA = os.environ.get("UMBRA", os.path.join(TOP, "build", "release", "umbra"))
GUESTS = os.environ.get("GUESTS", os.path.join(os.path.dirname(UMBRA), "guests"))
CACHE = os.environ.get("UMBRA_CACHE") or os.path.join(
    os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "umbra")
LONG = os.environ.get("UMBRA_LONG") == "1"
DEBUG_EXIT = ["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]
TMP = tempfile.mkdtemp(prefix="umbra-test-")
FAILED = []


@atexit.register
def remove_files():
    if FAILED or os.environ.get("UMBRA_KEEP"):
        print(f"files are kept in {TMP}", file=sys.stderr)
    else:
        shutil.rmtree(TMP, ignore_errors=True)


class Skip(Exception):
    pass


class Result:
    def __init__(self, status, out, err):
        self.status, self.out, self.err = status, out, err

    def digest(self):
        found = re.search(r"^digest ([0-9a-f]{16}) icount (\d+)$", self.err, re.M)
        check(found, "no digest line in: " + self.err[-500:])
        return found.group(1), int(found.group(2))


class QuietHandler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass


def serve_http(handler):
    """A server on the loopback interface for the rest of the process. Returns its port."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def check(condition, message):
    if not condition:
        raise AssertionError(message)


def umbra(*args, stdin=None, timeout=900):
    """Runs the program; input is closed unless given."""
    done = subprocess.run([UMBRA, *args], input=stdin if stdin is not None else b"", stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=timeout)
    return Result(done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace"))


def umbra_peak(*args, timeout=900):
    """The same, and the most that the program had resident, in bytes."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen([UMBRA, *args], stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        timer = threading.Timer(timeout, process.kill)
        timer.start()
        _, status, usage = os.wait4(process.pid, 0)
        timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        return (Result(process.returncode, out.read().decode("utf-8", "replace"), err.read().decode("utf-8", "replace")),
                usage.ru_maxrss * 1024)


def size(text):
    return int(text[:-1]) << {"K": 10, "M": 20, "G": 30}[text[-1]]


def guest(name):
    return os.path.join(GUESTS, name + ".elf")


def run_guest(name, *args, memory="32M", **kw):
    return umbra("-m", memory, "-kernel", guest(name), "-nographic", "-no-reboot", *DEBUG_EXIT, *args, **kw)


def tmp(name):
    return os.path.join(TMP, name)


def write_tmp(name, content):
    path = tmp(name)
    with open(path, "wb") as f:
        f.write(content if isinstance(content, bytes) else content.encode())
    return path


def fetched(what, name):
    """Path of a file that scripts/fetch-guests fetches with `what`; skips where it was not and cannot be fetched."""
    done = subprocess.run([os.path.join(TOP, "scripts", "fetch-guests"), what], stderr=subprocess.PIPE)
    if done.returncode == 3:
        raise Skip(done.stderr.decode().strip().splitlines()[-1])
    check(done.returncode == 0, done.stderr.decode())
    return os.path.join(CACHE, name)


def linux(kernel="cloud"):
    """Options that boot Debian's kernel; skips where it was not and cannot be fetched, and under UMBRA_SKIP_LINUX=1."""
    if os.environ.get("UMBRA_SKIP_LINUX") == "1":
        raise Skip("Linux boots are not run under sanitizers")
    image = fetched(kernel, "vmlinuz-" + kernel)
    return ["-m", "512M", "-kernel", image, "-initrd", os.path.join(CACHE, "initrd.img"),
            "-append", "console=ttyS0", "-nographic", "-no-reboot"]


def main(namespace):
    wanted = sys.argv[1:]
    passed = failed = skipped = 0
    for name, function in list(namespace.items()):
        if not name.startswith("test_") or (wanted and name not in wanted):
            continue
        try:
            function()
            passed += 1
            print(f"ok      {name}", flush=True)
        except Skip as reason:
            skipped += 1
            print(f"skipped {name}: {reason}", flush=True)
        except Exception:
            failed += 1
            FAILED.append(name)
            print(f"FAILED  {name}", flush=True)
            traceback.print_exc(file=sys.stdout)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    sys.exit(1 if failed else 77 if skipped and not passed else 0)
