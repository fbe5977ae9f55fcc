"""Linux uses what the processor offers beyond SSE2: AVX2, FMA and XSAVE with compaction; programs get right results."""
import os

import harness
from harness import check, linux, umbra, write_tmp
from workload import newc

MINIMUM = "base,+ssse3,+sse4_1,+sse4_2,+aes,+pclmulqdq,+avx,+avx2,+fma,+f16c"
FLAGS = "ssse3 fma sse4_1 sse4_2 aes xsave avx f16c avx2".split()


def options(cpu):
    args = linux()
    with open(args[args.index("-initrd") + 1], "rb") as f, open(os.path.join(harness.GUESTS, "vectors"), "rb") as program:
        first = f.read()
        more = newc("bin/vectors", program.read()) + newc("TRAILER!!!", b"", 0)
    args[args.index("-initrd") + 1] = write_tmp("vectors.img", first + b"\0" * (-len(first) % 4) + more)
    script = write_tmp("vectors.script", "".join(f'wait "umbra# "\nsend "{c}\\n"\n' for c in (
        "vectors 4", "grep -m 1 ^flags /proc/cpuinfo", "poweroff -f")))
    return [*args, "-cpu", cpu, "-input-script", script, "-digest", "-d", "unimp"]


def run(cpu, *more):
    result = umbra(*options(cpu), *more, timeout=1800)
    check(result.status == 0, f"status {result.status}\n{result.out[-3000:]}\n{result.err[-2000:]}")
    check("unimplemented instruction" not in result.err, result.err[-2000:])
    return result


def flags_of(result):
    found = [line.split(":", 1)[1].split() for line in result.out.splitlines() if line.startswith("flags")]
    check(found, "no flags in " + result.out[-1000:])
    return found[0]


def check_run(result, wanted):
    check("vectors ok 26d484033d41007f" in result.out, "the program failed:\n" + result.out[-1500:])
    missing = [f for f in wanted if f not in flags_of(result)]
    check(not missing, f"/proc/cpuinfo lacks {missing}")


def test_programs_get_right_results_with_all_features_in_every_mode():
    base = run("max")
    check_run(base, FLAGS + ["xsaveopt", "xsavec", "xgetbv1", "xsaves"])
    check("using 'compacted' format" in base.out, "Linux does not compact its XSAVE areas")
    other = run("max", "-mmu", "ept")
    check((other.digest(), other.out) == (base.digest(), base.out), "ept differs from shadow")


def test_the_plain_xsave_format_serves_as_well():
    result = run(MINIMUM)
    check_run(result, FLAGS)
    check("using 'standard' format" in result.out, "no standard format")


if __name__ == "__main__":
    harness.main(globals())
