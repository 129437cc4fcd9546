#!/usr/bin/env python3
"""Compares the changes that no test noticed, in target/mutants/PART of each PART named, with mutants-explained.txt.

Ends with 1 if one is not explained, if one that is explained was noticed or is not there any more, or if a run was cut off.
"""

import collections
import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
EXPLAINED = ROOT / "scripts" / "mutants-explained.txt"
# Which part a file belongs to.
PARTS = {
    "budget": ("/budget",),
    "consumer": ("/ring/consumer", "/ring/wake"),
    "producer": ("/ring/producer",),
    "breaker": ("/breaker",),
}


def outcomes(part):
    """How the tests of each change ended, by cargo-mutants' own words; (change, line of code) of those unnoticed, and of all
    that were tried; how many were not."""
    folder = ROOT / "target" / "mutants" / part / "mutants.out"
    report = json.loads((folder / "outcomes.json").read_text())
    counts, unnoticed, tried = collections.Counter(), [], set()
    left = len(json.loads((folder / "mutants.json").read_text())) - report["total_mutants"]
    for outcome in report["outcomes"]:
        if outcome["scenario"] == "Baseline":
            continue
        mutant = outcome["scenario"]["Mutant"]
        counts[outcome["summary"]] += 1
        source = (ROOT / mutant["file"]).read_text().splitlines()
        # Lines move; what stands in them is what counts.
        name = re.sub(r"^(.*?\.rs):\d+:\d+: ", r"\1: ", mutant["name"])
        change = (name, source[mutant["span"]["start"]["line"] - 1].strip())
        tried.add(change)
        if outcome["summary"] == "MissedMutant":
            unnoticed.append(change)
    earlier = folder / "previously_caught.txt"
    if earlier.exists():
        counts["before"] = len(earlier.read_text().splitlines())
    return counts, unnoticed, tried, left


def explanations():
    """(change, line of code) of each entry. An entry is some changes of one line, that line, and the reason."""
    found, changes, code = [], [], None
    for number, line in enumerate([*EXPLAINED.read_text().splitlines(), ""], 1):
        if line.startswith("#"):
            continue
        if line.startswith("    code: "):
            code = line.removeprefix("    code: ")
        elif line.startswith("    why: ") and changes and code:
            found += [(change, code) for change in changes]
            changes, code = [], None
        elif re.match(r"\S+\.rs: ", line) and code is None:
            changes.append(line)
        elif line.strip() or changes:
            sys.exit(f"{EXPLAINED.name}:{number}: expected lines `FILE: CHANGE`, then `code: ...`, then `why: ...`")
    return found


def main():
    parts = sys.argv[1:]
    explained = collections.Counter(
        entry for entry in explanations() if any(place in entry[0].split(": ")[0] for part in parts for place in PARTS[part])
    )
    unnoticed, wrong = collections.Counter(), 0
    print()
    for part in parts:
        counts, missed, tried, left = outcomes(part)
        unnoticed.update(missed)
        if left:
            # Of what was not tried nothing is known.
            wrong += left
            here = [entry for entry in explained if any(place in entry[0].split(": ")[0] for place in PARTS[part])]
            for entry in set(here) - tried:
                del explained[entry]
            print(f"{part}: the run was cut off, and {left} changes were not tried: scripts/mutants --again {part}")
        before = f", {counts['before']} noticed or not built before and left out" if counts["before"] else ""
        print(
            f"{part}: {counts['CaughtMutant']} noticed, {counts['Timeout']} noticed by taking too long, "
            f"{counts['Unviable']} do not build, {counts['MissedMutant']} unnoticed{before}"
        )
    for heading, entries in (
        ("no test notices, and no word explains", unnoticed - explained),
        (f"{EXPLAINED.name} explains, but a test notices or there is no more", explained - unnoticed),
    ):
        for (change, code), count in sorted(entries.items()):
            wrong += count
            print(f"{heading}:\n  {change}{f' ({count} times)' if count > 1 else ''}\n      code: {code}")
    print(f"{sum((unnoticed & explained).values())} unnoticed for a reason, {wrong} to look at")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
