"""The line debugger: stops at events of the MMU, points, looking, errors; and that the guest never notices."""
import os
import random
import re
import subprocess

import harness
from harness import DEBUG_EXIT, LONG, check, guest, run_guest, tmp, umbra, write_tmp

SYMBOLS = os.path.join(harness.GUESTS, "testos.elf64")
MODES = ("shadow", "walk", "ept")


def arguments(name="testos", *more):
    return ["debug", "-m", "32M", "-kernel", guest(name), "-append", "coherent", "-no-reboot", *DEBUG_EXIT, *more]


class Session:
    """A debugger that is talked to a command at a time."""

    def __init__(self, *more):
        self.process = subprocess.Popen([harness.UMBRA, *arguments("testos", "-symbols", SYMBOLS, *more)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.count = 0

    def ask(self, command):
        self.count += 1
        mark = f"<answered {self.count}>"
        self.process.stdin.write(f'{command}\necho "{mark}"\n')
        self.process.stdin.flush()
        lines = []
        for line in self.process.stdout:
            if line.rstrip("\n") == mark:
                return "\n".join(lines)
            lines.append(line.rstrip("\n"))
        raise AssertionError(f"ended at '{command}': {self.process.stderr.read()}")

    def end(self):
        out, err = self.process.communicate("quit\n", timeout=300)
        return harness.Result(self.process.returncode, out, err)


def script(text, *more, name="testos"):
    return umbra(*arguments(name, "-symbols", SYMBOLS, "-x", write_tmp("commands.dbg", text), *more))


def base_digest(mode="shadow"):
    return run_guest("testos", "-append", "coherent", "-mmu", mode, "-digest").digest()


def number(pattern, text):
    found = re.search(pattern, text)
    check(found, f"no {pattern} in:\n{text}")
    return int(found.group(1), 16)


def until_mapped_entry_is_written(s):
    """Runs to a tracked write of a page-table entry that has a present leaf spte; returns the event's text."""
    s.ask("break mmu tracked-write")
    for _ in range(5000):
        text = s.ask("continue")
        check("tracked_write" in text, "no event:\n" + text)
        if re.search(r"spte before  0x\w+ present .*frame", text) and re.search(r"spte after   0x0+ empty", text):
            return text
    raise AssertionError("no write to an entry with a present spte")


def host_line(s, gva):
    return s.ask(f"mmu walk 0x{gva:x}").split("host   ")[1].splitlines()[0]


def swap_out_and_refault(s, gfn, gva):
    """Takes a page's frame away under the guest, and runs until the guest's own access has brought it back."""
    content = s.ask(f"xp/512xg 0x{gfn << 12:x}")
    text = s.ask(f"host swapout 0x{gfn:x}")
    check("swapped" in text and "notifier.start" in text and "notifier.end" in text, text)
    check("swapped" in host_line(s, gva), "host entry")
    check(s.ask(f"xp/512xg 0x{gfn << 12:x}") == content, "the content of the swapped page is another one")
    check("swapped" in host_line(s, gva), "looking brought it back")
    for _ in range(20000):
        text = s.ask("mmu step")
        check(re.search(r"(mmu|notifier|ept)\.\w", text), "no event: " + text)
        if "swapped" not in host_line(s, gva):
            break
    else:
        raise AssertionError("nobody touched the page")
    check("present" in host_line(s, gva), host_line(s, gva))
    check("every invariant holds" in s.ask("mmu audit"), "audit")


def test_a_write_to_a_page_table_is_shown_on_both_sides_and_stepped_to_its_zap():
    s = Session("-digest")
    text = until_mapped_entry_is_written(s)
    before, after = number(r"guest before 0x(\w+)", text), number(r"guest after  0x(\w+)", text)
    check(before != after and before & 1, text)
    gpa = number(r"at gpa 0x(\w+)", text)
    spte = number(r"spte before  0x(\w+)", text)
    check(number(rf"gpa 0x{gpa:x}: 0x(\w+)", s.ask(f"xp/1xg 0x{gpa:x}")) == after, "memory is not what the event says")
    zap = s.ask("mmu step")
    check("mmu.zap" in zap and f"0x{spte:016x}" in zap, "not the zap of that spte:\n" + zap)
    check(number(r"gfn 0x(\w+)", zap) == before >> 12 & 0xffffffffff, f"{zap}\n{text}")
    check("every invariant holds" in s.ask("mmu audit"), "audit")
    s.ask("delete all")
    swap_out_and_refault(s, gpa >> 12, gpa)
    check("debug exit" in s.ask("continue"), "it did not end")
    end = s.end()
    check(end.status == 33 and end.digest() == base_digest(), f"{end.status} {end.err}")


def mapped_page(s):
    """A gva of the guest's own data with its gfn."""
    s.ask("break guest_main")
    s.ask("continue")
    s.ask("delete all")
    gva = number(r"(?m)^0x(\w+)", s.ask("symbol passed"))
    return gva, number(r"gfn 0x(\w+)\)", s.ask(f"mmu walk 0x{gva:x}"))


def test_a_read_only_host_entry_is_refaulted_by_the_next_write():
    for mode in MODES:
        s = Session("-mmu", mode, "-digest")
        gva, gfn = mapped_page(s)
        s.ask(f"watch 0x{gva:x} 4")
        s.ask("continue")
        text = s.ask(f"host protect 0x{gfn:x} ro")
        check("read-only" in text and "notifier.start" in text and "notifier.end" in text, text)
        check("read-only" in s.ask(f"mmu walk 0x{gva:x}").split("host   ")[1].splitlines()[0], "host entry")
        text = s.ask("continue")
        check("watchpoint" in text, text)
        check(" writable" in s.ask(f"mmu walk 0x{gva:x}").split("host   ")[1].splitlines()[0], "it was not refaulted")
        check("every invariant holds" in s.ask("mmu audit"), "audit")
        s.ask("delete all")
        s.ask("continue")
        end = s.end()
        check(end.status == 33 and end.digest() == base_digest(mode), f"{mode}: {end.status} {end.err}")


def test_host_operations_show_their_events_and_the_guest_never_notices():
    for mode in MODES:
        s = Session("-mmu", mode, "-digest")
        gva, gfn = mapped_page(s)
        s.ask("step 20000")
        swap_out_and_refault(s, gfn, gva)
        frame = number(r"frame  0x(\w+)", s.ask(f"mmu walk 0x{gva:x}"))
        text = s.ask(f"host migrate 0x{gfn:x}")
        check("to frame" in text and "notifier.start" in text, text)
        check(number(r"frame  0x(\w+)", s.ask(f"mmu walk 0x{gva:x}")) != frame, "it was not moved")
        check("resident pages" in s.ask("host age"), "age")
        text = s.ask("host fork")
        check("shared" in text and "notifier.start" in text, text)
        check("read-only" in host_line(s, gva), "not copy-on-write")
        s.ask(f"watch 0x{gva:x} 4")
        s.ask("continue")
        check(" writable" in host_line(s, gva), "the copy was not broken")
        s.ask("delete all")
        s.ask(f"host swapout 0x{gfn:x}")
        check("present" in s.ask(f"host swapin 0x{gfn:x}"), "swapin")
        check("every invariant holds" in s.ask("mmu audit"), "audit")
        s.ask("continue")
        end = s.end()
        check(end.status == 33 and end.digest() == base_digest(mode), f"{mode}: {end.status} {end.err}")


def test_pages_that_hold_the_same_bytes_are_merged_and_unmerged_by_a_write():
    s = Session("-digest")
    s.ask("break group_roots")  # page tables and user pages exist by then, many of them equal
    s.ask("continue")
    pages = {}
    for page in range(0x400, 0x440):
        if " present" not in host_line(s, page << 12):
            continue
        text = s.ask(f"xp/512xg 0x{page << 12:x}")
        pages.setdefault(re.sub(r"gpa 0x\w+:", "", text), []).append(page)
    same = next((v for v in pages.values() if len(v) > 1), None)
    check(same, "no two pages are equal")
    text = s.ask(f"host merge 0x{same[0]:x} 0x{same[1]:x}")
    check(text.count("read-only") == 2, text)
    frames = [number(r"frame  0x(\w+)", s.ask(f"mmu walk 0x{page << 12:x}")) for page in same[:2]]
    check(frames[0] == frames[1], f"{frames}")
    check("every invariant holds" in s.ask("mmu audit"), "audit")
    s.ask("delete all")
    s.ask("continue")
    end = s.end()
    check(end.status == 33 and end.digest() == base_digest(), f"{end.status} {end.err}")


def test_exits_of_the_second_stage_are_events_with_their_qualification():
    s = Session("-mmu", "ept")
    s.ask("break mmu exit")
    for _ in range(20):
        text = s.ask("continue")
        check("event point 1" in text and "ept.exit: EPT" in text, text)
        if "violation" in text and " write of the translated address" in text:
            break
    else:
        raise AssertionError("no write violation")
    gla = number(r"gla 0x(\w+)", text)
    check("ept level 1" in s.ask(f"mmu walk 0x{gla:x}").split("result")[1], "the second stage of the walk")
    s.end()


def test_stepping_and_every_kind_of_point_leave_the_digest_as_it_is():
    text = "\n".join(
        ["step 50", "step", "next", "break guest_main", "c", "break map_page", "watch passed 4", "c", "c", "step 3", "next", "next",
         "awatch passed 4", "rwatch failed 4", "c", "c", "c", "c", "delete all", "break mmu fault", "c", "mmu step",
         "break mmu zap", "c", "mmu step", "mmu step", "break mmu flush", "break mmu fill gva=0x200000", "c", "c", "mmu step",
         "delete all", "break probe_run", *["c", "step 11"] * 60, "delete all", *["mmu step"] * 100, "c"])
    for mode in MODES:
        end = script(text, "-digest", "-mmu", mode)
        check(end.status == 33, f"{mode}: status {end.status}\n{end.err}\n{end.out[-1000:]}")
        check(end.digest() == base_digest(mode), f"{mode}: the digest changed: {end.err}")
        check(end.out.count("watchpoint") >= 4 and end.out.count("mmu.") > 50, end.out)


def test_single_steps_all_the_way_end_where_a_run_ends():
    base = run_guest("timer", "-digest", "-icount-limit", "300000").digest()
    end = umbra(*arguments("timer", "-digest", "-icount-limit", "300000"), stdin=b"step\n" * 60000 + b"c\n")
    whole = umbra(*arguments("timer", "-digest", "-icount-limit", "300000"), stdin=b"c\n")
    check(end.digest() == whole.digest(), f"{end.err} {whole.err}")
    check(base[1] == end.digest()[1], f"{base} {end.err}")


def test_points_stop_where_they_should():
    s = Session()
    check("breakpoint 1 at" in s.ask("break guest_main"), "break")
    text = s.ask("continue")
    check("breakpoint 1" in text and "<guest_main>" in text, text)
    back = s.ask("backtrace")
    check(re.search(r"#0 +0x\w+ <guest_main>", back), back)
    check(s.ask("x/3i $pc").count("guest_main") == 3, "disassembly")
    check('"' in s.ask("x/s $rdi"), "string")
    s.ask("delete all")
    s.ask("watch passed 4")
    for wanted in (1, 2, 3):
        text = s.ask("continue")
        check("watchpoint 2: write" in text, text)
        check(number(r": 0x(\w+)", s.ask("x/1xw passed")) == wanted, "the counter's value")
    s.ask("delete all")
    s.ask("rwatch passed 4")
    check("watchpoint 3: read" in s.ask("continue"), "read watchpoint")
    check("awatch" not in s.ask("info") and "rwatch" in s.ask("info"), "info")
    before = s.ask("info")
    s.ask("step 10")
    a, b = (int(re.search(r"instruction (\d+)", t).group(1)) for t in (before, s.ask("info")))
    check(b == a + 10, f"10 steps went from {a} to {b}")
    s.end()


def test_walk_names_every_level_and_what_is_behind_it():
    for mode in MODES:
        s = Session("-mmu", mode)
        gva, _ = mapped_page(s)
        s.ask(f"watch 0x{gva:x} 4")
        s.ask("continue")
        text = s.ask(f"mmu walk 0x{gva:x}")
        for word in ("guest  PML4E", "guest  PDPTE", "guest  PDE", "present writable", "slot", "track", "host", "frame", "tlb", "watch 1"):
            check(word in text, f"{mode}: no '{word}' in\n{text}")
        check(("shadow PTE" in text) == (mode == "shadow"), text)
        check("no translation" in s.ask("mmu walk 0xffff800000000000"), "an address without translation")
        for command in ("mmu tracked", "mmu slots", "mmu roots", "mmu stats", "mmu rmap 0x102", "regs", "host"):
            check(s.ask(command).strip(), f"{mode}: {command} says nothing")
        end = s.end()
        check(end.status == 0, f"{end.status} {end.err}")


def test_map_of_the_tables_agrees_with_walks():
    maps = []
    for mode in MODES:
        s = Session("-mmu", mode)
        gva, _ = mapped_page(s)
        maps.append(s.ask("mmu map"))
        ranges = [(int(a, 16), int(b, 16), int(n, 16), rights)
                  for a, b, n, rights in re.findall(r"^([0-9a-f]{16})-([0-9a-f]{16}) +([0-9a-f]+) ([u-][rw][x-])$", maps[-1], re.M)]
        check(len(ranges) == len(maps[-1].strip().splitlines()) > 1, maps[-1])
        check(all(last - first + 1 == n for first, last, n, _ in ranges), "lengths")
        check(any(first <= gva <= last and rights[1] == "w" for first, last, _, rights in ranges), f"0x{gva:x} is not in\n{maps[-1]}")
        for (_, last, _, rights), (first, _, _, behind) in zip(ranges, ranges[1:]):
            check(last < first and (last + 1 < first or rights != behind), f"0x{first:x}: two ranges that are one")
            if last + 1 < first:
                check("no translation" in s.ask(f"mmu walk 0x{last + 1:x}"), f"0x{last + 1:x} is mapped")
            check("no translation" not in s.ask(f"mmu walk 0x{first:x}"), f"0x{first:x} is not mapped")
        check(s.ask(f"mmu map 0x{gva + 5:x}").startswith(f"{gva & ~0xfff:016x}-"), "from an address on")
        s.end()
    check(maps[0] == maps[1] == maps[2], "it depends on the engine")


# What stops the machine, in which modes, and how its text begins.
EVENTS = (("fault", MODES, "mmu.fault: "), ("fill", MODES, "mmu.fill: "), ("tracked-write", MODES, "mmu.tracked_write: "),
          ("zap", ("shadow",), "mmu.zap: "), ("flush", MODES, "mmu.flush: "), ("sync", ("shadow,unsync=on",), "mmu.sync "),
          ("exit", ("ept",), "ept.exit: "), ("notifier", MODES, "notifier.start: "))


def first_event(mode, point):
    """The text of the first stop at the point, after a fork has given the host something to do."""
    s = Session("-mmu", mode)
    mapped_page(s)
    s.ask("host fork")
    check("event point" in s.ask(f"break mmu {point}"), point)
    text = s.ask("continue")
    s.end()
    return text


def test_every_event_stops_the_machine_in_every_mode_that_has_it():
    for event, modes, start in EVENTS:
        for mode in modes:
            text = first_event(mode, event)
            check("event point" in text and start in text, f"{mode} {event}: {text}")


def test_events_of_one_page_or_address_alone_stop_the_machine():
    for event, modes, start in EVENTS:
        mode = modes[0]
        text = first_event(mode, event)
        gva = re.search(r"gva (0x\w+)", text)
        gfn = re.search(r"gfn (0x\w+)", text) or re.search(r"gpa (0x\w+)", text)
        for name, found in (("gva", gva if event in ("fault", "fill", "flush") else None), ("gfn", gfn)):
            if not found or (name == "gfn" and event == "flush"):
                continue
            value = int(found.group(1), 16) >> (12 if name == "gfn" and "gpa" in found.group(0) else 0)
            same = first_event(mode, f"{event} {name}=0x{value:x}")
            check(start in same and found.group(0) in same, f"{event} {name}=0x{value:x}: {same}")
            check("event point" not in first_event(mode, f"{event} {name}=0x7abcd{'000' if name == 'gva' else ''}"), f"{event}: a stop at what is not there")


def test_lists_of_the_mmu_say_what_there_is():
    for mode in MODES:
        s = Session("-mmu", mode)
        gva, gfn = mapped_page(s)
        s.ask(f"watch 0x{gva:x} 4")
        s.ask("continue")
        tracked = s.ask("mmu tracked")
        check(re.search(rf"gfn 0x{gfn:x}: .*watch 1", tracked), f"{mode}: {tracked}")
        gfns = re.findall(r"gfn (0x\w+)", tracked)
        check(len(gfns) == len(set(gfns)) and all(int(g, 16) < 0x2000 for g in gfns), f"{mode}: {tracked}")
        check(re.search(r"page-table 1", tracked), f"{mode}: no page table is tracked: {tracked}")
        check("gfn 0x100 to 0x1fff (7936 pages) RAM" in s.ask("mmu slots"), f"{mode}: slots")
        cr3 = number(r"cr3 0x(\w+)", s.ask("mmu roots").split("(current)")[0].splitlines()[-1])
        check(cr3 >> 12 in [int(g, 16) for g in gfns], f"{mode}: the root's table is not tracked")
        check(re.search(r"mmu\.fills +[1-9]", s.ask("mmu stats")), f"{mode}: stats")
        rmap = s.ask(f"mmu rmap 0x{gfn:x}")
        check(("level 1: sp " in rmap) == (mode == "shadow"), f"{mode}: {rmap}")
        check("every invariant holds" in s.ask("mmu audit"), f"{mode}: audit")
        s.ask("delete all")
        check(re.search(r"(mmu|ept|notifier)\.\w", s.ask("mmu step")), f"{mode}: step")
        s.end()


BAD = ["nonsense", "break", "break nosuch", "break 0x", "break 1 2", "break mmu", "break mmu nosuch", "break mmu fault gfn=", "break mmu zap gva=1",
       "break mmu fault foo=1", "watch", "watch 0xffff800000000000 8", "watch 0x1000 0", "watch 0x1000 99999999", "watch 0x1ffc 8", "delete", "delete 9",
       "delete -1", "step x", "step 0", "step 99999999999999999999999", "x/99999999xg 0", "x/4q 0", "x/0x 0", "x", "x/4xg", "x/1xg 0xffff800000000000",
       "xp/1xg 0xfffffffffffff000", "xp/i 0", "disassemble 3 0xffff800000000000", "mmu", "mmu nosuch", "mmu walk", "mmu walk $nosuch", "mmu rmap 0x10000000000000",
       "host nosuch", "host protect", "host protect 0x102", "host protect 0x102 rx", "host protect 0xfffff ro", "host swapout", "host swapout 0xfffff", "host swapin 0x102", "host merge 0x102", "host merge 0x102 0x102",
       "host migrate 0x1f00", "host fork 1", "symbol nosuch", "help nosuch",
       "savevm /nonexistent/file", 'send "open', "break 1+", "break +", "a b c d e f g h i j k l m n o p q r s", "x/s 0xffff800000000000", "regs 1"]


def test_bad_commands_are_refused_in_one_line_each_and_change_nothing():
    end = umbra(*arguments("testos", "-symbols", SYMBOLS, "-digest"), stdin=("\n".join(BAD) + "\ncontinue\n").encode())
    lines = [line for line in end.err.splitlines() if line.startswith("umbra: ")]
    check(len(lines) == len(BAD), f"{len(lines)} refusals of {len(BAD)}:\n{end.err}\n{end.out[:3000]}")
    check(end.status == 2 and end.digest() == base_digest(), f"{end.status} {end.err[-300:]}")


def test_a_script_stops_at_its_first_error_and_says_where():
    end = script("info\nbreak nosuch\ncontinue\n")
    check(end.status == 2 and re.search(r"commands\.dbg:2: 'nosuch': no such symbol", end.err), end.err)
    check("debug exit" not in end.out, "it went on")


def test_command_line_refuses_what_makes_no_sense():
    for args in (["debug"], ["debug", "-kernel", guest("testos"), "-S"], ["debug", "-kernel", guest("testos"), "-s"],
                 ["-kernel", guest("testos"), "-x", "f"], ["-kernel", guest("testos"), "-symbols", "f"],
                 arguments("testos", "-x", "/nonexistent"), arguments("testos", "-symbols", "/nonexistent"),
                 arguments("testos", "-symbols", write_tmp("text", "no ELF image here"))):
        result = umbra(*args)
        check(result.status == 2 and result.err.count("\n") <= 2, f"{args}: {result.status} {result.err}")


def test_noise_never_crashes_the_debugger():
    rng = random.Random(7)
    words = ["break", "mmu", "x/", "walk", "host", "protect", "watch", "step", "delete", "gfn=", "$rip", "0x102", "-", "+", '"', "all", "rmap", "info",
             "guest_main", "fault", "ro", "xp/3xb", "tracked-write", "\x01\xff", "9" * 30, "A" * 300]
    for _ in range(40 if LONG else 6):
        lines = [" ".join(rng.choice(words) for _ in range(rng.randrange(1, 6))) for _ in range(200)]
        lines = [line for line in lines if not line.startswith("savevm")]
        end = umbra(*arguments("testos", "-symbols", SYMBOLS, "-icount-limit", "100000"), stdin="\n".join(lines).encode("latin-1"))
        check(end.status >= 0, f"status {end.status}: {lines}")


def test_damaged_symbol_files_never_crash_the_debugger():
    rng = random.Random(11)
    with open(SYMBOLS, "rb") as f:
        good = f.read()
    for n in range(200 if LONG else 40):
        bad = bytearray(good)
        table = int.from_bytes(good[40:48], "little")
        for _ in range(8):
            at = rng.choice([rng.randrange(64), rng.randrange(table, len(good)), rng.randrange(len(good))])
            bad[at] = rng.randrange(256)
        if n % 5 == 0:
            bad = bad[:rng.randrange(len(bad))]
        end = umbra(*arguments("testos", "-symbols", write_tmp("bad.elf", bytes(bad))), stdin=b"symbol 0x102000\nsymbol main\nquit\n")
        check(end.status in (0, 2), f"{n}: status {end.status}")


harness.main(globals())
