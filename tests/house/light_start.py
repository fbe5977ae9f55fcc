"""A start loads no library that most runs do not use: those are loaded when they are wanted (core/library.h)."""
import subprocess
import sys

HEAVY = ("SDL2", "vncserver", "nbd", "slirp", "capstone")


def main(program):
    headers = subprocess.run(["readelf", "-d", program], capture_output=True, text=True, check=True).stdout
    needed = [line.split("[")[1].rstrip("]") for line in headers.splitlines() if "(NEEDED)" in line]
    if not any(name.startswith("libc.so") for name in needed):
        sys.exit(f"{program} does not name the libraries that it needs: {needed}")
    heavy = [name for name in needed if name.startswith(tuple("lib" + h for h in HEAVY))]
    if heavy:
        sys.exit(f"{program} loads {', '.join(heavy)} in every run")
    print(f"{len(needed)} libraries: {', '.join(needed)}")


main(sys.argv[1])
