#!/bin/sh
# umbra with every block compiled at its second run, whatever else is asked for: the tests of other things under the JIT.
exec "$UMBRA_UNDER_JIT" "$@" -accel jit,heat=2
