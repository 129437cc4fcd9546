#!/usr/bin/env python3
"""The dashboard ipc_metrics.json: its form, and every query of it on a real Prometheus that scrapes a real server.

Usage: grafana_test.py FOLDER_WITH_BUILT_PROGRAMS
Needs `prometheus` and `promtool` (Debian package prometheus).
"""

import json
import math
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from running import PATIENCE, Server, wait_for

HERE = Path(__file__).resolve().parent
TITLES = [
    "Request Throughput", "Request Latency Distribution", "Memory Usage", "Active Connections", "Error Rate",
    "Circuit Breaker State", "Success Criteria Status",
]
UNITS = {"reqps", "µs", "bytes", "short", "cps", "none"}  # those of Grafana's that are used here
# What Grafana would put in.
VARIABLES = {"$__rate_interval": "10s", "$job": "bellrope", "$instance": ".+", "${datasource}": "prometheus"}
LOAD_SECONDS = 40
CONFIG = """
global: {{ scrape_interval: 1s, evaluation_interval: 1s }}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: bellrope
    static_configs: [{{ targets: ["{target}"] }}]
"""


def faults_of(dashboard):
    """What the usual linter of dashboards complains about, and the user's own wishes."""
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    panels = dashboard["panels"]
    yield dashboard["refresh"] == "5s", "it is not refreshed every 5 s"
    yield dashboard["time"] == {"from": "now-15m", "to": "now"}, "its window is not 15 minutes"
    yield not dashboard["editable"], "it is editable"
    yield [panel["title"] for panel in panels] == TITLES, "its panels are not the seven"
    yield len({panel["id"] for panel in panels}) == len(panels), "two panels have one id"
    source = variables.get("datasource", {})
    yield (source.get("type"), source.get("query"), source.get("label")) == ("datasource", "prometheus", "Data source"), \
        "its data source is no variable"
    for name, label in (("job", "Job"), ("instance", "Instance")):
        variable = variables.get(name, {})
        good = (
            variable.get("type") == "query" and variable.get("label") == label and variable.get("multi")
            and variable.get("includeAll") and variable.get("allValue") == ".+" and variable.get("refresh") == 2
            and variable.get("datasource", {}).get("uid") == "${datasource}"
        )
        yield good, f"the variable {name} is not as it should be"
    for panel in panels:
        title = panel["title"]
        yield bool(title and panel.get("description")), f"{title}: no title or description"
        yield panel["datasource"]["uid"] == "${datasource}", f"{title}: a data source of its own"
        yield panel["fieldConfig"]["defaults"]["unit"] in UNITS, f"{title}: an unknown unit"
        yield bool(panel["fieldConfig"]["defaults"]["thresholds"]["steps"]), f"{title}: no thresholds"
        yield bool(panel["targets"]), f"{title}: no queries"
        for target in panel["targets"]:
            yield from faults_of_query(title, target["expr"])
            yield target["datasource"]["uid"] == "${datasource}", f"{title}: a query with a data source of its own"


def faults_of_query(title, query):
    selectors = re.findall(r"\{([^}]*)\}", query)
    names = re.findall(r"\b(?:ipc|process)[a-z_:]*", query)
    yield len(selectors) >= len(names) > 0, f"{title}: a series without a selector: {query}"
    for selector in selectors:
        yield 'job=~"$job"' in selector and 'instance=~"$instance"' in selector, f"{title}: not of $job and $instance: {query}"
    for window in re.findall(r"\[([^\]]*)\]", query):
        yield window == "$__rate_interval", f"{title}: a fixed window: {query}"
    for counter in re.findall(r"\w+(?:_total|_bucket|_count|_sum)\b", query):
        yield bool(re.search(rf"\b(rate|irate|increase)\({counter}\{{", query)), f"{title}: {counter} without a rate: {query}"


class Prometheus:
    """Scrapes one server every second, with our rules. Use it in a `with` statement."""

    def __init__(self, target):
        self.home = tempfile.TemporaryDirectory()
        config = Path(self.home.name) / "prometheus.yml"
        config.write_text(CONFIG.format(rules=HERE / "rules.yml", target=target))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = "127.0.0.1:%d" % free.getsockname()[1]
        arguments = [
            "prometheus", f"--config.file={config}", f"--storage.tsdb.path={self.home.name}/data",
            f"--web.listen-address={self.address}", "--log.level=error",
        ]
        self.process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL)
        wait_for("Prometheus", self._is_ready)

    def _is_ready(self):
        if self.process.poll() is not None:
            sys.exit("FAILED: Prometheus has ended")
        try:
            return urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=PATIENCE).status == 200
        except OSError:
            return False

    def query(self, expression):
        """The values of an expression at this moment."""
        query = urllib.parse.urlencode({"query": expression})
        try:
            with urllib.request.urlopen(f"http://{self.address}/api/v1/query?{query}", timeout=PATIENCE) as answer:
                result = json.load(answer)["data"]["result"]
        except urllib.error.HTTPError as error:
            sys.exit(f"FAILED: {expression}: {error.read().decode()}")
        return [float(series["value"][1]) for series in result]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(PATIENCE)
        self.home.cleanup()


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    dashboard = json.loads((HERE / "ipc_metrics.json").read_text())
    faults = [fault for good, fault in faults_of(dashboard) if not good]
    if faults:
        sys.exit("FAILED:\n" + "\n".join(faults))
    print("ok: the dashboard is as the linter and the user want it")
    if shutil.which("prometheus") is None:
        sys.exit("FAILED: there is no Prometheus here (Debian package prometheus)")
    queries = [(panel["title"], target["expr"]) for panel in dashboard["panels"] for target in panel["targets"]]
    with Server(sys.argv[1]) as server, Prometheus(server.url.removeprefix("http://")) as prometheus:
        load = server.start_load(LOAD_SECONDS)
        try:
            breakers = any(name.startswith("ipc_circuit_breaker_state") for name in server.metrics())
            for title, query in queries:
                if "circuit_breaker" in query and not breakers:
                    print(f"SKIPPED: {title}: this server has no breakers")
                    continue
                for name, value in VARIABLES.items():
                    query = query.replace(name, value)
                has_data = lambda: [value for value in prometheus.query(query) if not math.isnan(value)]
                values = wait_for(f"{title}: {query}", has_data)
                print(f"ok: {title}: {len(values)} series, first {values[0]:g}")
            wait_for("all criteria", lambda: len(prometheus.query("ipc:criterion")) == 8)
            print("ok: eight criteria")
        finally:
            load.terminate()
            load.wait()


if __name__ == "__main__":
    main()
    print("the dashboard is right")
