#!/usr/bin/env python3
"""The live page in a real browser, before a real server under a known load.

Usage: page_test.py FOLDER_WITH_BUILT_PROGRAMS [FOLDER_FOR_PICTURES]
"""

import sys
import time
from pathlib import Path

from chromium import Chromium
from running import Server, wait_for

ECHOES = 12_345
TEXT = "document.getElementById('{}').textContent"
ROWS = "[...document.querySelectorAll('#{} tbody tr')].map((row) => [...row.cells].map((cell) => cell.textContent))"
# More than anything around the server shows: a panel with an alarm, long names and large numbers, as that of a fleet has.
PANEL = """
    now = structuredClone(last(moments));
    now.at_ms += 1;
    const name = 'the-server-in-the-cellar-beside-the-boiler.example'.padEnd(64, '.x');
    now.panels = [{ title: 'Fleet', alarm: 'There is no connection to NATS: calls of the fleet are not executed.', tables: [
      { caption: 'Calls through the fleet', columns: ['calls', 'now', 'in all', 'not run', 'lost'], numbers_from: 1,
        rows: [['of this server, at others', '1024', '123456789', '12345', '12345'], ['of others, here', '1024', '123456789', '12345', '12345']] },
      { caption: 'Instances', columns: ['server', 'id', 'state', 'calls', 'of ours'], numbers_from: 3,
        rows: [[name, '01234567', 'refuses', '1024', '1024'], ['attic', 'fedcba98', 'serves', '1', '0']] }] }];
    show(now);
"""
# What no server would say: markup in a name, an open breaker, a wedged worker.
HOSTILE = """
    bad = '<img src=x onerror="document.body.dataset.pwned=1"><b>bold</b>';
    now = structuredClone(last(moments));
    now.at_ms += 1;
    now.health.types[0].name = bad;
    now.health.status = 'wedged';
    now.health.reason = bad;
    now.health.breakers = [
      { name: bad, state: 'open', forced: true, opened: 1, rejections: 7 },
      { name: 'provider openai', state: 'half_open', forced: false, opened: 12, rejections: 3456 }];
    show(now);
"""


def check(what, found, expected):
    if found != expected:
        sys.exit(f"FAILED: {what}: {found!r}, expected {expected!r}")
    print(f"ok: {what}: {found!r}")


def figures_are_those_of_metrics(browser, server, called):
    """The load is over, so that the page and /metrics must agree to the last call."""
    browser.show(server.url + "/", 1280, 900, "light")
    browser.wait_for("Number(document.body && document.body.dataset.moments || 0) >= 3")
    metrics = server.metrics()
    calls = {name: value for name, value in metrics.items() if name.startswith("ipc_requests_total")}
    total = sum(calls.values())
    check("calls in /metrics", total, sum(called.values()))
    check("echoes in /metrics", calls['ipc_requests_total{type="echo",outcome="ok"}'], ECHOES)
    check("calls on the page", browser.value(TEXT.format("total")), f"{total:,.0f} in all")
    connections = metrics["ipc_active_connections"]
    check("connections on the page", browser.value(TEXT.format("connections")), f"{connections:,.0f}")
    errors = f"{called['refused']} invalid_request"
    check("errors on the page", browser.value(TEXT.format("errorkinds")), errors)
    for name, shown, *_, failed in browser.value(ROWS.format("types")):
        mine = {label: value for label, value in calls.items() if f'{{type="{name}",' in label}
        bad = sum(value for label, value in mine.items() if 'outcome="ok"' not in label and "cancelled" not in label)
        check(f"row of {name}", (shown, failed), (f"{sum(mine.values()):,.0f}", f"{bad:,.0f}"))
    shown = float(browser.value(TEXT.format("memory")))
    resident = metrics["process_resident_memory_bytes"] / 2**20
    # Pages of the program come and go with what is asked: the same unit and the same order are what counts.
    if abs(shown - resident) > 2:
        sys.exit(f"FAILED: memory: {shown} MB on the page, {resident:.2f} MB in /metrics")
    check("rows of goals", len(browser.value(ROWS.format("criteria"))), 8)
    check("goals unfolded", browser.value("document.querySelector('details').open"), False)
    check("red on a healthy server", browser.value("document.querySelectorAll('.bad').length"), 0)
    check("the alarm is hidden", browser.value("document.getElementById('alarm').hidden"), True)


def looks_right(browser, server, pictures):
    """Under load, in every width and colour: nothing sticks out, and there is a picture to look at."""
    load = server.start_load(60)
    for width, scheme in ((1280, "light"), (1280, "dark"), (400, "light"), (400, "dark")):
        browser.show(server.url + "/", width, 900, scheme)
        browser.wait_for("Number(document.body && document.body.dataset.moments || 0) >= 8")
        if pictures:
            browser.picture(Path(pictures) / f"page-{width}-{scheme}.png")
        check(f"width at {width}, {scheme}", browser.value("document.documentElement.scrollWidth"), width)
        browser.value(PANEL)
        check("rows of the panel", browser.value("document.querySelectorAll('#panels tbody tr').length"), 4)
        check(f"width with a panel at {width}, {scheme}", browser.value("document.documentElement.scrollWidth"), width)
        if pictures:
            browser.picture(Path(pictures) / f"panel-{width}-{scheme}.png")
    load.terminate()
    load.wait()


def hostile_text_stays_text(browser, pictures):
    browser.value(HOSTILE)
    check("elements made of text", browser.value("document.querySelectorAll('img, td b, header b').length"), 0)
    check("scripts that ran", browser.value("document.body.dataset.pwned"), None)
    check("status", browser.value(TEXT.format("status")), "wedged")
    alarm = "A circuit breaker is open, and calls are rejected: <img"
    check("alarm", browser.value(TEXT.format("alarm"))[:len(alarm)], alarm)
    check("the alarm is shown", browser.value("document.getElementById('alarm').hidden"), False)
    check("breakers", [row[1:] for row in browser.value(ROWS.format("breakers"))],
          [["open, by hand", "1", "7"], ["half-open", "12", "3,456"]])
    if pictures:
        browser.picture(Path(pictures) / "page-hostile.png")


def a_lost_server_is_shown(browser, server):
    server.process.terminate()
    server.process.wait(60)
    browser.wait_for("document.getElementById('status').textContent === 'no answer'")
    print("ok: a lost server is shown")


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    pictures = sys.argv[2] if len(sys.argv) == 3 else None
    try:
        browser = Chromium()
    except FileNotFoundError as error:
        sys.exit(f"FAILED: {error}")
    with browser, Server(sys.argv[1]) as server:
        called = server.load(3, ECHOES)
        wait_for("all calls are counted and all connections closed", lambda: quiet(server, sum(called.values())))
        figures_are_those_of_metrics(browser, server, called)
        looks_right(browser, server, pictures)
        check("faults on the page", browser.faults, [])
        hostile_text_stays_text(browser, pictures)
        a_lost_server_is_shown(browser, server)


def quiet(server, calls):
    metrics = server.metrics()
    counted = sum(value for name, value in metrics.items() if name.startswith("ipc_requests_total"))
    return counted == calls and metrics["ipc_active_connections"] == 0


if __name__ == "__main__":
    began = time.monotonic()
    main()
    print(f"the page is right ({time.monotonic() - began:.0f} s)")
