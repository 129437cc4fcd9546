#!/usr/bin/env python3
"""Removes the counts of processes that were killed while they wrote them, until standard input ends.

Tests kill processes at any time, also while those write what they ran, and tarpaulin gives up on half a file. What such a
process ran counts for nothing.
"""

import pathlib
import select
import struct
import sys
import time

PROFILES = pathlib.Path(__file__).resolve().parent.parent / "target" / "coverage" / "tarpaulin" / "profraws"
HEADER = struct.Struct("<16Q")
FUNCTION_BYTES, COUNTER_BYTES = 64, 8


def is_whole(profile):
    """Whether a profile has as many bytes as its header says (LLVM's raw format, versions 9 and 10)."""
    head = profile.read_bytes()[: HEADER.size]
    if len(head) < HEADER.size:
        return False
    _, _, ids, functions, pad_1, counters, pad_2, bits, pad_3, names, *_ = HEADER.unpack(head)
    parts = ids + functions * FUNCTION_BYTES + pad_1 + counters * COUNTER_BYTES + pad_2 + bits + pad_3 + names
    return profile.stat().st_size >= HEADER.size + parts


def main():
    whole = set()
    while not select.select([sys.stdin], [], [], 0.2)[0]:
        for profile in PROFILES.glob("*.profraw"):
            try:
                if profile in whole or time.time() - profile.stat().st_mtime < 1:
                    continue
                if is_whole(profile):
                    whole.add(profile)
                else:
                    profile.unlink()
            except FileNotFoundError:
                pass  # tarpaulin has taken it


if __name__ == "__main__":
    main()
