#!/usr/bin/env python3
"""The rules of the house (docs/architecture.md, "Floors"), checked over the sources.

  include_rules.py [--root DIR]   checks the tree; prints each breach as FILE:LINE: what; exit 1 if there is one
  include_rules.py --self-test    plants one breach of every rule in a small tree and requires that exactly it is found

The rules:
  floors   what a floor may include: core only core; mmu core and mmu; cpu core, cpu and mmu/mmu.h; devices core and
           devices; frontends/machine everything but other front ends; another front end itself, frontends/machine and core;
           the command line, which starts the others, also their frontends/NAME/NAME.h
  private  a header named *_internal.h, or listed in PRIVATE, is included from its own directory only
  path     an include of ours is written from the root of the tree, in quotes, and names a file that exists
  state    no mutable variable at file scope and no mutable static in a function; but a front end's signal handler may have its
           volatile sig_atomic_t
  length   no function beyond 120 lines, no file beyond 900 (tables, that is *.def, aside)
"""

import argparse
import bisect
import os
import re
import sys
import tempfile

FLOORS = ("core", "mmu", "cpu", "devices", "frontends")
SUFFIXES = (".c", ".h")
FUNCTION_LINES = 120
FILE_LINES = 900

# Headers that only their own directory sees although their name does not say so (tests see everything).
PRIVATE = {"core/host/notifier_bus.h", "core/host/interval_tree.h", "core/host/hpte.h", "core/host/vma.h",
           "core/snapshot_format.h"}

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(["<])([^">]+)[">]', re.M)


def allowed(source, target):
    """May the file `source` include the file `target`? Both are paths from the root."""
    floor = source.split("/")[0]
    if floor != "frontends":
        own = {"core": ("core/",), "mmu": ("core/", "mmu/"), "cpu": ("core/", "cpu/"), "devices": ("core/", "devices/")}
        return target.startswith(own[floor]) or (floor == "cpu" and target == "mmu/mmu.h")
    front_end = "/".join(source.split("/")[:2]) + "/"
    if front_end == "frontends/machine/":
        return not target.startswith("frontends/") or target.startswith(front_end)
    if front_end == "frontends/cli/" and re.fullmatch(r"frontends/(\w+)/\1\.h", target):
        return True
    return target.startswith((front_end, "frontends/machine/", "core/"))


def blank(match):
    """Spaces in place of a match, line breaks kept, so that offsets stay true."""
    return re.sub(r"[^\n]", " ", match.group(0))


TOKENS = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)
DIRECTIVE = re.compile(r"^[ \t]*#(?:\\\n|[^\n])*", re.M)


class Source:
    """A file's text, with and without what is not code."""

    def __init__(self, root, path):
        self.path = path
        with open(os.path.join(root, path), encoding="utf-8") as f:
            self.text = f.read()
        no_comments = re.sub(r"/\*.*?\*/|//[^\n]*", blank, self.text, flags=re.S)
        self.includes = [(self.line(m.start(1)), m.group(1), m.group(2)) for m in INCLUDE.finditer(no_comments)]
        self.code = DIRECTIVE.sub(blank, TOKENS.sub(blank, self.text))

    def line(self, offset):
        if not hasattr(self, "starts"):
            self.starts = [0] + [m.end() for m in re.finditer("\n", self.text)]
        return bisect.bisect_right(self.starts, offset)

    def lines(self):
        return self.text.count("\n")


def check_includes(root, src):
    for line, quote, target in src.includes:
        ours = target.split("/")[0] in FLOORS or target.startswith("tests/")
        if quote == "<":
            if ours and os.path.exists(os.path.join(root, target)):
                yield line, f"<{target}> is ours: write it in quotes"
            continue
        if not ours:
            yield line, f'"{target}" is not written from the root of the tree'
        elif not os.path.exists(os.path.join(root, target)):
            yield line, f'"{target}" does not exist'
        elif not allowed(src.path, target):
            yield line, f'{src.path.split("/")[0]} may not include "{target}"'
        elif (target.endswith("_internal.h") or target in PRIVATE) and \
                os.path.dirname(target) != os.path.dirname(src.path):
            yield line, f'"{target}" is private to {os.path.dirname(target)}'


def top_level(code):
    """The pieces of the file at depth 0: (offset, text before the first brace, end offset, has a body)."""
    depth = start = body = 0
    head = None
    for m in re.finditer(r"[{};]", code):
        c, at = m.group(0), m.start()
        if c == "{":
            if depth == 0:
                head, body = code[start:at], at
            depth += 1
        elif c == "}":
            depth = max(depth - 1, 0)
            # A function ends at its brace; an initialiser or a type goes on to the semicolon.
            if depth == 0 and head is not None and is_function(head):
                yield start, head, body, at
                start, head = at + 1, None
        elif depth == 0:
            yield start, head if head is not None else code[start:at], body if head is not None else None, at
            start, head = at + 1, None


def is_function(head):
    return head.rstrip().endswith(")") and "=" not in head and not re.match(r"\s*(typedef|struct|union|enum)\b[^(]*$", head)


NOT_A_VARIABLE = re.compile(r"^(typedef|extern|_Static_assert|struct\s+\w+$|union\s+\w+$|enum\s+\w+$|__attribute__)")


def is_mutable(declaration):
    """A variable's declaration, up to its initialiser: may the variable change?"""
    d = declaration.split("=")[0]
    if "*" in d:
        return not re.search(r"\*\s*(restrict\s+)?const\b[^*]*$", d)
    return not re.search(r"\bconst\b", d)


def is_variable(head, has_body):
    text = " ".join(head.split())
    if not text or NOT_A_VARIABLE.match(text):
        return False
    d = text.split("=")[0].strip()
    if has_body and "=" not in text:
        return False  # a type's definition or a function
    if re.match(r"^(struct|union|enum)\b[^=]*$", text) and has_body:
        return False
    # The first parenthesis of a prototype or a macro call follows a name; that of a function pointer is followed by a star.
    d = re.sub(r"__attribute__\s*\(\(.*?\)\)|_Alignas\s*\(.*?\)", "", d).strip()
    if re.match(r"[^(]*\(\s*[^*\s]", d) or d.endswith("()"):
        return False
    return bool(re.match(r"^[A-Za-z_][\w\s*\[\]().,+\-/<>]*$", d)) and len(d.split()) > 1


LOCAL_STATIC = re.compile(r"\bstatic\b([^;={]*)")


def check_state(src):
    for start, head, body, end in top_level(src.code):
        offset = start + len(src.code[start:end]) - len(src.code[start:end].lstrip())
        if body is not None and is_function(head):
            for m in LOCAL_STATIC.finditer(src.code, body, end):
                if is_mutable(m.group(1)):
                    yield src.line(m.start()), "a mutable static variable in a function"
        elif is_variable(head, body is not None) and is_mutable(head):
            if src.path.startswith("frontends/") and "volatile sig_atomic_t" in " ".join(head.split()):
                continue
            yield src.line(offset), "a mutable variable at file scope"


def check_length(src):
    if src.lines() > FILE_LINES:
        yield 1, f"{src.lines()} lines; a file has at most {FILE_LINES}"
    for start, head, body, end in top_level(src.code):
        if body is None or not is_function(head):
            continue
        lines = src.line(end) - src.line(body) + 1
        if lines > FUNCTION_LINES:
            yield src.line(body), f"a function of {lines} lines; at most {FUNCTION_LINES}"


def sources(root):
    for floor in FLOORS:
        for folder, dirs, files in os.walk(os.path.join(root, floor)):
            dirs.sort()
            for name in sorted(files):
                if name.endswith(SUFFIXES):
                    yield os.path.relpath(os.path.join(folder, name), root)


def check_tree(root):
    """Every breach as (path, line, text), and the number of files looked at."""
    found, count = [], 0
    for path in sources(root):
        src = Source(root, path)
        count += 1
        for line, text in [*check_includes(root, src), *check_state(src), *check_length(src)]:
            found.append((path, line, text))
    return found, count


CLEAN = {
    "core/a.h": '/* int in_a_comment; #include "cpu/c.h" */\n#include <stdint.h>\nextern int declared;\n'
                "struct a {\n    int member;\n    char *p;\n};\nint a_get(const struct a *a);\n"
                "typedef int a_fn(void *opaque);\nvoid a_each(struct a *a,\n            int (*fn)(int *p, int), void *ctx);\nint *a_any();\nenum a_kind { A_ONE, A_TWO };\n",
    "core/a.c": '#include "core/a.h"\n\nstatic const char *const names[] = {"a;{", "b"};\nstatic const struct a row = {.member = 1};\n'
                "static int (*const handlers[])(void) = {0};\n_Static_assert(1, \"x\");\nstatic int helper(void);\n"
                "#define GEN(n)                 \\\n    static int gen_##n;\n\n"
                "int a_get(const struct a *a)\n{\n    static const int table[] = {1, 2};\n    int static_like = '{';\n"
                "    return table[0] + static_like;\n}\n\nstatic struct a *find(struct a *a, int (*cb)(int))\n{\n    return a;\n}\n",
    "core/host/b_internal.h": "#include <stddef.h>\n",
    "core/host/b.c": '#include "core/host/b_internal.h"\n',
    "mmu/mmu.h": '#include "core/a.h"\n',
    "mmu/inner.h": '#include "mmu/mmu.h"\n',
    "cpu/c.h": '#include "mmu/mmu.h"\n#include "core/a.h"\n',
    "devices/d.c": '#include "core/a.h"\n',
    "devices/d.h": "#include <stddef.h>\n",
    "frontends/machine/m.h": '#include "cpu/c.h"\n#include "devices/d.h"\n#include "mmu/inner.h"\n',
    "frontends/sdl/sdl.h": "#include <stddef.h>\n",
    "frontends/sdl/inner.h": "#include <stddef.h>\n",
    "frontends/cli/main.c": '#include "frontends/sdl/sdl.h"\n#include "frontends/machine/m.h"\n#include "core/a.h"\n#include "frontends/cli/o.h"\n',
    "frontends/cli/o.h": "#include <stddef.h>\n",
    "frontends/cli/s.c": "#include <signal.h>\nstatic volatile sig_atomic_t seen;\n",
    "frontends/sdl/w.c": '#include "frontends/machine/m.h"\n',
}

LONG_BODY = "int f(void)\n{\n" + "    f();\n" * 119 + "}\n"

# File, what is added to it, and a part of the message that must come.
PLANTED = [
    ("core/a.c", '#include "mmu/mmu.h"\n', "core may not include"),
    ("core/host/b.c", '#  include   "devices/d.h"\n', "core may not include"),
    ("mmu/inner.h", '#include "cpu/c.h"\n', "mmu may not include"),
    ("cpu/c.h", '#include "mmu/inner.h"\n', "cpu may not include"),
    ("cpu/c.h", '#include "devices/d.h"\n', "cpu may not include"),
    ("devices/d.c", '#include "mmu/mmu.h"\n', "devices may not include"),
    ("frontends/machine/m.h", '#include "frontends/cli/o.h"\n', "frontends may not include"),
    ("frontends/cli/main.c", '#include "cpu/c.h"\n', "frontends may not include"),
    ("frontends/cli/main.c", '#include "frontends/sdl/inner.h"\n', "frontends may not include"),
    ("frontends/sdl/w.c", '#include "frontends/cli/o.h"\n', "frontends may not include"),
    ("core/a.c", '#include "core/host/b_internal.h"\n', "is private to core/host"),
    ("core/a.c", '#include "a.h"\n', "not written from the root"),
    ("core/a.c", '#include "../core/a.h"\n', "not written from the root"),
    ("core/a.c", '#include "core/missing.h"\n', "does not exist"),
    ("core/a.c", "#include <core/a.h>\n", "write it in quotes"),
    ("core/a.c", "static int counter;\n", "at file scope"),
    ("core/a.c", "int counter = 4;\n", "at file scope"),
    ("core/a.c", "static struct a cache[16];\n", "at file scope"),
    ("core/a.c", "static struct a one = {\n    .member = 3,\n};\n", "at file scope"),
    ("core/a.c", "static const char *current;\n", "at file scope"),
    ("core/a.c", "static int (*hook)(int);\n", "at file scope"),
    ("core/a.c", "int g(void)\n{\n    static int n;\n    return n++;\n}\n", "static variable in a function"),
    ("core/a.c", "int g(void)\n{\n    static char buf[20] = {0};\n    return buf[0];\n}\n", "static variable in a function"),
    ("core/a.c", "static volatile sig_atomic_t seen;\n", "at file scope"),
    ("core/a.c", LONG_BODY, "a function of 121 lines"),
    ("core/a.c", "\n" * 900, "lines; a file has at most"),
]


def write_tree(root, files):
    for path, text in files.items():
        full = os.path.join(root, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w", encoding="utf-8") as f:
            f.write(text)


def breaches_of(files):
    with tempfile.TemporaryDirectory() as root:
        write_tree(root, files)
        return check_tree(root)[0]


def self_test():
    failures = [f"clean tree: {b}" for b in breaches_of(CLEAN)]
    failures += [f"a body of 120 lines: {b}" for b in breaches_of({**CLEAN, "core/l.c": LONG_BODY.replace("    f();\n", "", 1)})]
    for path, added, expected in PLANTED:
        found = breaches_of({**CLEAN, path: CLEAN[path] + added})
        if len(found) != 1 or found[0][0] != path or expected not in found[0][2]:
            failures.append(f"planted in {path}: {added[:60]!r}: wanted '{expected}', got {found}")
    for f in failures:
        print(f, file=sys.stderr)
    print(f"self-test: {len(PLANTED) + 2 - len(failures)} passed, {len(failures)} failed")
    return 1 if failures else 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
    parser.add_argument("--self-test", action="store_true")
    args = parser.parse_args()
    if args.self_test:
        return self_test()
    found, count = check_tree(args.root)
    for path, line, text in found:
        print(f"{path}:{line}: {text}")
    print(f"{count} files, {len(found)} breaches")
    return 1 if found or not count else 0


if __name__ == "__main__":
    sys.exit(main())
