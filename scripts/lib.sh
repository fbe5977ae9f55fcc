# Shared by the scripts in this folder: packages, builds, and the cache of fetched guests. Sourced, not run.

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${UMBRA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/umbra}
jobs=${UMBRA_JOBS:-$(nproc)}

build_packages="gcc cmake ninja-build pkg-config zlib1g-dev libxxhash-dev libnbd-dev check libsubunit-dev libcapstone-dev libedit-dev libpng-dev libjansson-dev libsdl2-dev libncurses-dev libvncserver-dev libslirp-dev python3"

die() {
    echo "$(basename "$0"): $*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Installs the named Debian packages that are missing.
need_packages() {
    local missing=() p
    for p in "$@"; do
        dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null | grep -qx installed || missing+=("$p")
    done
    [ ${#missing[@]} = 0 ] && return 0
    echo "installing: ${missing[*]}" >&2
    as_root apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null 2>&1 && return 0
    as_root apt-get update -q >/dev/null 2>&1
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null ||
        die "could not install: ${missing[*]}"
}

# build PRESET [TARGET...]: configures and builds below build/PRESET.
build() {
    local preset=$1
    shift
    (cd "$top" && cmake --preset "$preset" >/dev/null && cmake --build "build/$preset" -j "$jobs" ${1:+--target "$@"} >"$top/build/$preset.log" 2>&1) || {
        tail -n 40 "$top/build/$preset.log" 2>/dev/null
        die "build of preset $preset failed"
    }
}
