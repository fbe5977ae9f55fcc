#!/usr/bin/env bash
# host_diff refuses what it does not understand with status 2, and does not pass without having run a case.
set -u
host_diff=$1
bad=0
expect() { # STATUS ARGUMENT...
    local want=$1 got
    shift
    timeout 100 "$host_diff" "$@" >/dev/null 2>&1
    got=$?
    [ "$got" = "$want" ] || { echo "host_diff $*: status $got, not $want"; bad=1; }
}
expect 2 -cases 5
expect 2 0
expect 2 -5
expect 2 5x
expect 2 ""
expect 2 99999999999999999999999
expect 2 5 one
expect 2 5 1 nosuchinstruction
expect 2 5 1 add extra
HOST_DIFF_CASES=many expect 2
HOST_DIFF_CASES=0 expect 2
HOST_DIFF_AT=-1 expect 2 5
HOST_DIFF_AT=18446744073709551615 expect 2 5
expect 0 50
expect 0 50 0x7 add
HOST_DIFF_CASES=50 expect 0
exit $bad
