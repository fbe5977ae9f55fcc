#!/usr/bin/env python3
"""The table of mechanisms in docs/mmu.md, held against the tree: a row names functions and tests that exist.

  mechanisms.py [--root DIR]   prints each breach as docs/mmu.md:LINE: what; exit 1 if there is one
  mechanisms.py --self-test    plants one breach of every rule and requires that exactly it is found

The rules, for each row below the heading "Mechanisms":
  here    the second column has at least one `name` and each is an identifier of core/, mmu/, cpu/, devices/ or frontends/, or a
          file; `_more` continues the name before it, cut after one of its words; `name_*` is a family
  tests   the third column has at least one test: `test_...` is a suite in tests/unit or a target made of one, `machine_...` a
          file in tests/machine, another `name` a driver in tests/fuzz or tests/bench or a file; a sentence of three words or more
          joined by underscores is a test, in the file that is named before it in the cell, if one is
"""

import argparse
import os
import re
import sys
import tempfile

SOURCES = ("core", "mmu", "cpu", "devices", "frontends")
HEADING = "## Mechanisms"
SENTENCE = re.compile(r"[a-z0-9]+(?:_[a-z0-9]+){2,}")


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def files(root, folders, suffixes):
    for folder in folders:
        for where, _, names in os.walk(os.path.join(root, folder)):
            for name in sorted(names):
                if name.endswith(suffixes):
                    yield os.path.join(where, name)


class Tree:
    """What the sources and the tests define."""

    def __init__(self, root):
        self.root = root
        self.identifiers = set()
        for path in files(root, SOURCES, (".c", ".h", ".def")):
            text = re.sub(r"/\*.*?\*/", " ", read(path), flags=re.S)
            self.identifiers |= set(re.findall(r"\b[A-Za-z]\w+", text))
        self.tests = {}  # name of a suite, driver or machine test -> names of its tests
        for path in files(root, ["tests/unit"], (".c",)):
            name = os.path.basename(path)[:-2]
            self.tests[name] = set(re.findall(r"\b(?:START_TEST|TEST)\((\w+)\)", read(path)))
        for path in files(root, ["tests/machine"], (".py",)):
            name = "machine_" + os.path.basename(path)[:-3]
            self.tests[name] = set(re.findall(r"^def test_(\w+)\(", read(path), re.M))
        for path in files(root, ["tests/fuzz", "tests/bench"], (".c",)):
            self.tests[os.path.basename(path)[:-2]] = set()
        lists = os.path.join(root, "tests", "CMakeLists.txt")
        for target, source in re.findall(r"add_executable\((\w+) unit/(\w+)\.c", read(lists) if os.path.exists(lists) else ""):
            self.tests[target] = self.tests.get(source, set())

    def has_file(self, name):
        return any(os.path.exists(os.path.join(self.root, at, name)) for at in ("", "mmu", "mmu/ept", "mmu/shadow"))

    def test_file(self, name):
        """The key of self.tests that `name` means, or None."""
        if name.startswith("tests/"):
            base = os.path.basename(name).rsplit(".", 1)[0]
            name = "machine_" + base if name.startswith("tests/machine/") else base
        return name if name in self.tests else None


def continues(tree, before, more):
    words = before.split("_")
    return any("_".join(words[:n]) + more in tree.identifiers for n in range(1, len(words) + 1))


def here_breaches(tree, cell):
    names = re.findall(r"`([^`]+)`", cell)
    if not names:
        yield "no function is named"
    before = ""
    for name in names:
        if name.startswith("_"):
            if not continues(tree, before, name):
                yield f"`{name}` continues no name that `{before}` begins"
        elif name.endswith("*"):
            if not any(i.startswith(name[:-1]) for i in tree.identifiers):
                yield f"no identifier begins with {name[:-1]}"
        elif re.fullmatch(r"(struct )?\w+(\.\w+)?", name) and all(part in tree.identifiers for part in re.split("[. ]", name)):
            before = name
        elif not tree.has_file(name):
            yield f"`{name}` is neither an identifier nor a file"


def tests_breaches(tree, cell):
    found, suite = 0, None
    for quoted, sentence in re.findall(r"`([^`]+)`|(" + SENTENCE.pattern + ")", cell):
        if quoted:
            suite = tree.test_file(quoted)
            found += 1
            if suite is None and not tree.has_file(quoted):
                yield f"`{quoted}` is no test"
        else:
            found += 1
            where = [tree.tests[suite]] if suite else tree.tests.values()
            if not any(sentence in names for names in where):
                yield f"there is no test {sentence}" + (f" in {suite}" if suite else "")
    if not found and "the same" not in cell:
        yield "no test is named"


def rows(text):
    """(line number, cells) of each row of the tables below the heading; the two lines of a table's head are none."""
    inside = False
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        if line.startswith("## "):
            inside = line.startswith(HEADING)
        head = number < len(lines) and lines[number].startswith("|---")
        if inside and line.startswith("|") and not line.startswith("|---") and not head:
            yield number, [cell.strip() for cell in line.strip().strip("|").split("|")]


def breaches(root):
    tree = Tree(root)
    table = list(rows(read(os.path.join(root, "docs", "mmu.md"))))
    if not table:
        yield 1, "the table of mechanisms is not there"
    for number, cells in table:
        if len(cells) != 3:
            yield number, f"{len(cells)} columns instead of 3"
            continue
        for what in (*here_breaches(tree, cells[1]), *tests_breaches(tree, cells[2])):
            yield number, what


# ---- the check of the check ----

GOOD = "| kvm_it | `rmap_add`, `_remove`, `mmu.released`, `rmap_*`, `walk.c` | `test_mmu_a`: it_is_so_here, that_holds_too; `machine_b`: b_is_right_too; `fuzz_it` |"
PLANTED = (
    ("| k | it | `test_mmu_a` |", "no function is named"),
    ("| k | `rmap_gone` | `test_mmu_a` |", "`rmap_gone` is neither"),
    ("| k | `in_comment` | `test_mmu_a` |", "`in_comment` is neither"),
    ("| k | `rmap_add`, `_gone` | `test_mmu_a` |", "`_gone` continues"),
    ("| k | `gone_*` | `test_mmu_a` |", "no identifier begins with gone_"),
    ("| k | `rmap_add` | |", "no test is named"),
    ("| k | `rmap_add` | `test_mmu_gone` |", "`test_mmu_gone` is no test"),
    ("| k | `rmap_add` | `machine_gone`; `fuzz_it` |", "`machine_gone` is no test"),
    ("| k | `rmap_add` | it_is_gone_now |", "there is no test it_is_gone_now"),
    ("| k | `rmap_add` | `machine_b`: it_is_so_here |", "there is no test it_is_so_here in machine_b"),
    ("| k | `rmap_add` |", "2 columns"),
)


def plant(root, row):
    def put(path, text):
        path = os.path.join(root, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
    put("mmu/walk.c", "/* in_comment */\nvoid rmap_add(struct mmu *mmu);\nvoid rmap_remove(void);\nbool released;\n")
    put("tests/unit/test_mmu_a.c", "START_TEST(it_is_so_here)\nSTART_TEST(that_holds_too)\n")
    put("tests/machine/b.py", "def test_b_is_right_too():\n")
    put("tests/fuzz/fuzz_it.c", "")
    put("docs/mmu.md", f"# MMU\n| x | `gone` | |\n{HEADING}\n\n| a | b | c |\n|---|---|---|\n{row}\n{GOOD}\n## After\n| x | y | z |\n")


def self_test():
    failed = 0
    for row, wanted in ((GOOD, None), *PLANTED):
        with tempfile.TemporaryDirectory() as root:
            plant(root, row)
            found = list(breaches(root))
        ok = not found if wanted is None else len(found) == 1 and found[0][0] == 7 and wanted in found[0][1]
        if not ok:
            print(f"{row}\n  wanted {wanted}, found {found}")
            failed += 1
    return failed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", default=".")
    parser.add_argument("--self-test", action="store_true")
    options = parser.parse_args()
    if options.self_test:
        sys.exit(1 if self_test() else 0)
    found = list(breaches(options.root))
    for number, what in found:
        print(f"docs/mmu.md:{number}: {what}")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
