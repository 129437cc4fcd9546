#!/usr/bin/env python3
"""Adds up tarpaulin's reports in target/coverage/parts, names the lines that no test runs, and writes
target/coverage/summary.json.

Lines that coverage-explained.txt explains are not named, but count as not run.
"""

import datetime
import fnmatch
import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
EXPLAINED = ROOT / "coverage-explained.txt"
SUMMARY = ROOT / "target" / "coverage" / "summary.json"


def run_lines():
    """For each source file of a crate: line number -> whether any test ran it.

    Where no test of a run came near a file, tarpaulin guesses which lines have code; only the compiler knows. So such a
    report counts for files alone that no run came near.
    """
    seen, guessed = {}, {}
    for report in sorted((ROOT / "target" / "coverage" / "parts").glob("*.json")):
        for entry in json.loads(report.read_text())["files"]:
            path = ROOT.joinpath(*entry["path"])  # whole paths stay what they are
            if not path.is_relative_to(ROOT / "crates") or not entry["traces"]:
                continue
            lines = (seen if entry["covered"] else guessed).setdefault(str(path.relative_to(ROOT)), {})
            for trace in entry["traces"]:
                lines[trace["line"]] = lines.get(trace["line"], False) or trace["stats"]["Line"] > 0
    return guessed | seen


def explanations():
    """(file, pattern) of each line `FILE: PATTERN - REASON`."""
    found = []
    for number, line in enumerate(EXPLAINED.read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = re.fullmatch(r"(\S+): (.+) - (.+)", line)
        if not match:
            sys.exit(f"{EXPLAINED.name}:{number}: expected `FILE: PATTERN - REASON`")
        found.append((match[1], re.compile(match[2])))
    return found


def ranges(numbers):
    """[1, 2, 3, 7] -> "1-3 7"."""
    parts = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return " ".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def main():
    files, explained = run_lines(), explanations()
    if not files:
        sys.exit("target/coverage/parts has no report; run scripts/coverage")
    used = set()
    crates = {}
    print("\nlines that no test runs, and no word explains:")
    for name, lines in sorted(files.items()):
        crate = crates.setdefault(name.split("/")[1], [0, 0])
        crate[0] += sum(lines.values())
        crate[1] += len(lines)
        source = (ROOT / name).read_text().splitlines()
        open_lines = []
        for number, ran in sorted(lines.items()):
            if ran:
                continue
            reasons = [
                index
                for index, (file, pattern) in enumerate(explained)
                if fnmatch.fnmatch(name, file) and pattern.search(source[number - 1])
            ]
            used.update(reasons)
            if not reasons:
                open_lines.append(number)
        if open_lines:
            print(f"  {name} ({len(open_lines)} of {len(lines)}): {ranges(open_lines)}")
    for index, (file, pattern) in enumerate(explained):
        if index not in used:
            print(f"  {EXPLAINED.name} explains {file}: {pattern.pattern}, which is run or not there")

    percent = lambda ran, lines: round(100 * ran / lines, 2)
    ran, lines = (sum(counts[side] for counts in crates.values()) for side in (0, 1))
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    summary = {
        "lines_percent": percent(ran, lines),
        "lines_run": ran,
        "lines": lines,
        "by_crate": {crate: percent(*counts) for crate, counts in sorted(crates.items())},
        "commit": commit,
        "measured_at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
    SUMMARY.write_text(json.dumps(summary, indent=2) + "\n")
    print(json.dumps(summary, indent=2))


if __name__ == "__main__":
    main()
