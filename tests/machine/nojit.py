"""A build without the JIT, as on other hosts: -accel jit is a note, and the interpreter runs."""
import harness
from harness import check, run_guest


def test_asking_for_the_jit_is_a_note_and_changes_nothing():
    plain = run_guest("testos", "-append", "coherent", "-digest", "-accel", "interp")
    asked = run_guest("testos", "-append", "coherent", "-digest", "-accel", "jit")
    check("note: -accel jit" in asked.err, asked.err[-500:])
    check(plain.digest() == asked.digest(), "another run")


harness.main(globals())
