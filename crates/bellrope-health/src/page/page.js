// The live page: listens to /events and shows what it hears. Everything from the server goes in as text, never as HTML.
"use strict";

const KEPT = 120; // moments in the small charts
const WINDOW_MS = 60_000; // what rates of latency look back on
const moments = [];
const series = { throughput: [], p99: [], memory: [], connections: [], errors: [], running: [] };
const byId = (id) => document.getElementById(id);
const sum = (numbers) => numbers.reduce((all, one) => all + one, 0);

function listen() {
  const events = new EventSource("events");
  events.onmessage = (event) => {
    document.body.classList.remove("stale");
    show(JSON.parse(event.data));
  };
  // It comes back by itself, unless it was refused.
  events.onerror = () => {
    document.body.classList.add("stale");
    badge(byId("status"), "no answer", "bad");
    byId("reason").textContent = "";
    if (events.readyState === EventSource.CLOSED) setTimeout(listen, 2000);
  };
}

function show(now) {
  if (moments.length && now.at_ms < last(moments).at_ms) moments.length = 0; // another server
  const before = last(moments);
  moments.push(now);
  while (moments.length > 2 && now.at_ms - moments[1].at_ms > WINDOW_MS) moments.shift();
  const health = now.health;
  const window = moments.length > 1 ? moments[0] : null;
  const rate = (count) => (before ? Math.max(0, count(now) - count(before)) / ((now.at_ms - before.at_ms) / 1000) : 0);
  const errors = (moment) => sum(Object.values(moment.errors));
  const all = bucketsOf(now, window);
  const figures = {
    throughput: rate((moment) => moment.health.total_requests),
    p50: quantile(now, all, 0.5), p95: quantile(now, all, 0.95), p99: quantile(now, all, 0.99),
    memory: health.memory.rss_kb / 1024,
    connections: health.active_connections,
    errors: rate(errors),
    running: sum(health.types.map((type) => type.running)),
  };

  const good = health.status === "healthy";
  badge(byId("status"), health.status, good ? "good" : health.status === "wedged" ? "bad" : "warn");
  byId("reason").textContent = health.reason || "";
  byId("about").textContent = `version ${health.version} · up ${duration(health.uptime_seconds)}`;
  text("throughput", short(figures.throughput));
  text("total", `${whole(health.total_requests)} in all`);
  text("p99", micros(figures.p99));
  text("p50p95", `p50 ${micros(figures.p50)}, p95 ${micros(figures.p95)}`);
  text("memory", figures.memory.toFixed(2));
  text("memoryparts", `${kib(health.memory.anon_kb)} heap, ${kib(health.memory.file_kb)} program, ${kib(health.memory.shmem_kb)} rings`);
  text("connections", whole(figures.connections));
  text("maxconnections", `of ${whole(health.max_connections)}: ${whole(health.transports.shm)} shm, ${whole(health.transports.stream)} stream`);
  text("errors", short(figures.errors));
  const kinds = Object.entries(now.errors).filter(([, count]) => count > 0);
  text("errorkinds", kinds.map(([kind, count]) => `${whole(count)} ${kind}`).join(", ") || "none so far");
  text("running", whole(figures.running));
  const buffers = health.buffers ? `, ${(health.buffers.used_bytes / 2 ** 20).toFixed(1)} of ${whole(health.buffers.limit_bytes / 2 ** 20)} MB in buffers` : "";
  text("queued", `${whole(health.queued_requests)} queued${buffers}`);
  for (const [name, points] of Object.entries(series)) {
    points.push(figures[name] ?? null); // null: nothing is known, which is not 0
    if (points.length > KEPT) points.shift();
    chart(document.querySelector(`svg[data-of="${name}"]`), points);
  }

  rows("criteria", criteria(figures, health));
  rows("types", health.types.map((type, index) => {
    const mine = now.buckets[index].map((count, place) => count - (window ? window.buckets[index][place] : 0));
    const failed = sum(Object.entries(type.outcomes).filter(([name]) => name !== "ok" && name !== "cancelled").map(([, count]) => count));
    return [type.name, number(whole(type.total)), number(short(rate((moment) => moment.health.types[index].total))),
      number(whole(type.running)), number(micros(quantile(now, mine, 0.5))), number(micros(quantile(now, mine, 0.99))), number(whole(failed))];
  }));
  panels(now.panels || []);
  byId("nobreakers").hidden = health.breakers.length > 0;
  byId("breakers").hidden = health.breakers.length === 0;
  const colour = { closed: "good", half_open: "warn", open: "bad" };
  // A breaker that says nothing of single callers has none that it refuses.
  const refused = (breaker) => (breaker.callers || []).length;
  rows("breakers", health.breakers.map((breaker) => [breaker.name,
    { badge: breaker.state.replace("_", "-") + (breaker.forced ? ", by hand" : "")
        + (refused(breaker) ? `, not for ${refused(breaker)} of its callers` : ""),
      colour: refused(breaker) && breaker.state === "closed" ? "warn" : colour[breaker.state] },
    number(whole(breaker.opened)), number(whole(breaker.rejections))]));
  const open = health.breakers.filter((breaker) => breaker.state === "open");
  byId("alarm").hidden = open.length === 0;
  text("alarm", `${open.length === 1 ? "A circuit breaker is" : `${open.length} circuit breakers are`} open, and calls are rejected: ${
    open.map((breaker) => breaker.name + (breaker.forced ? " (by hand)" : "")).join(", ")}`);
  document.body.dataset.moments = moments.length;
}

// What Bellrope is developed towards. Of the eight goals the running server shows what it can know; a command measures the
// rest. A goal that is not reached is no fault of a server.
function criteria(figures, health) {
  const busy = figures.throughput > 0;
  const verdict = (known, pass) => (known ? { badge: pass ? "reached" : "not reached", colour: pass ? "good" : "" } : "");
  const timed = figures.p99 !== null;
  return [
    ["memory", "< 3 MB", `${figures.memory.toFixed(2)} MB`, verdict(true, figures.memory < 3)],
    ["latency", "p99 < 10 us", `${micros(figures.p99)} in the server`, verdict(timed, figures.p99 <= 10)],
    // Few calls are no fault of a server that has nothing to do.
    ["throughput", "> 1 M msg/s", `${short(figures.throughput)}/s${health.queued_requests > 1 ? "" : ", nothing queued"}`,
      verdict(figures.throughput > 1e6 || (busy && health.queued_requests > 1), figures.throughput > 1e6)],
    ["connections", "1,000 at once", `${whole(health.max_connections)} allowed`, verdict(true, health.max_connections >= 1000)],
    ["recovery", "< 100 ms", "run bellrope demo", ""],
    ["against Node", ">= 10 x", "run bellrope demo", ""],
    ["coverage", "> 90 % of lines", "run scripts/coverage", ""],
    ["allocations", "none on the hot path", "run bellrope demo", ""],
  ];
}

// Calls a bucket since an earlier moment, of all types whose handlers run on a worker: what others take is not ours.
function bucketsOf(now, since) {
  const ours = now.health.types.map((type) => type.runs_on_worker);
  return now.buckets[0].map((_, place) =>
    sum(now.buckets.map((row, index) => (ours[index] ? row[place] - (since ? since.buckets[index][place] : 0) : 0))));
}

// As Prometheus does it: evenly spread within a bucket. Nothing beyond the last bound is known.
function quantile(now, buckets, wanted) {
  const all = sum(buckets);
  if (all === 0) return null;
  let left = wanted * all;
  for (let place = 0; place < now.bounds_us.length; place++) {
    if (left <= buckets[place]) {
      const from = place ? now.bounds_us[place - 1] : 0;
      return from + (now.bounds_us[place] - from) * (left / (buckets[place] || 1));
    }
    left -= buckets[place];
  }
  return last(now.bounds_us);
}

// What things around the server show: texts in tables.
function panels(list) {
  figures(list.flatMap((panel) => panel.figures || []));
  const shown = list.filter((panel) => panel.alarm || panel.tables.length > 0);
  byId("panels").replaceChildren(...shown.map((panel) => {
    const section = document.createElement("section");
    section.appendChild(document.createElement("h2")).textContent = panel.title;
    if (panel.alarm) {
      const alarm = section.appendChild(document.createElement("p"));
      alarm.className = "wrong";
      alarm.textContent = panel.alarm;
    }
    for (const table of panel.tables) {
      const element = section.appendChild(document.createElement("table"));
      element.createCaption().textContent = table.caption;
      const head = element.createTHead().insertRow();
      const body = element.createTBody();
      const put = (cell, words, at) => {
        cell.textContent = words;
        if (at >= table.numbers_from) cell.className = "n";
      };
      table.columns.forEach((words, at) => put(head.appendChild(document.createElement("th")), words, at));
      for (const cells of table.rows) {
        const row = body.insertRow();
        cells.forEach((words, at) => put(row.insertCell(), words, at));
      }
    }
    return section;
  }));
}

// Their figures, behind those of the server.
function figures(list) {
  const tiles = byId("tiles");
  tiles.querySelectorAll("article.of-panel").forEach((tile) => tile.remove());
  tiles.append(...list.map((figure) => {
    const tile = document.createElement("article");
    tile.className = "of-panel";
    tile.appendChild(document.createElement("h2")).textContent = figure.title;
    const line = tile.appendChild(document.createElement("p"));
    line.className = "figure";
    line.appendChild(document.createElement("b")).textContent = figure.value;
    line.append(` ${figure.unit}`);
    const more = tile.appendChild(document.createElement("p"));
    more.className = "more";
    more.textContent = figure.more;
    return tile;
  }));
}

function rows(id, wanted) {
  byId(id).tBodies[0].replaceChildren(...wanted.map((cells) => {
    const row = document.createElement("tr");
    for (const cell of cells) {
      const place = row.insertCell();
      if (cell.badge) badge(place.appendChild(document.createElement("span")), cell.badge, cell.colour);
      else if (cell.number !== undefined) { place.className = "n"; place.textContent = cell.number; }
      else place.textContent = cell;
    }
    return row;
  }));
}

function chart(svg, points) {
  const most = Math.max(...points, 1e-9);
  const first = KEPT - points.length; // the newest is at the right edge
  const at = (value, index) => `${((first + index) / (KEPT - 1)) * 100},${29 - (value / most) * 28}`;
  const isKnown = (index) => index >= 0 && points[index] !== null;
  const step = (value, index) => (isKnown(index) ? `${isKnown(index - 1) ? "L" : "M"}${at(value, index)}` : "");
  let line = svg.firstChild;
  if (!line) {
    svg.setAttribute("viewBox", "0 0 100 30");
    svg.setAttribute("preserveAspectRatio", "none");
    line = svg.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "path"));
  }
  line.setAttribute("d", points.map(step).join(""));
}

function badge(element, words, colour) {
  element.textContent = words;
  element.className = `badge ${colour || ""}`;
}

const last = (list) => list[list.length - 1];
const text = (id, words) => { byId(id).textContent = words; };
const number = (words) => ({ number: words });
const whole = (count) => Math.round(count).toLocaleString("en-US");
const kib = (count) => (count < 1024 ? `${whole(count)} KiB` : `${(count / 1024).toFixed(2)} MB`);

function short(count) {
  if (count >= 1e6) return `${(count / 1e6).toFixed(2)} M`;
  if (count >= 1e4) return `${(count / 1e3).toFixed(1)} k`;
  return count < 10 && count % 1 ? count.toFixed(1) : whole(count);
}

function micros(value) {
  if (value === null) return "–";
  if (value < 1000) return `${value < 10 ? value.toFixed(1) : whole(value)} us`;
  return value < 1e6 ? `${(value / 1e3).toFixed(1)} ms` : `${(value / 1e6).toFixed(1)} s`;
}

function duration(seconds) {
  const [days, hours, minutes] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60];
  if (days) return `${days} d ${hours} h`;
  return hours ? `${hours} h ${minutes} min` : minutes ? `${minutes} min ${seconds % 60} s` : `${seconds} s`;
}

listen();
