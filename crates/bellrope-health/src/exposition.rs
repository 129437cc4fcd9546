//! Metrics in the Prometheus text format, version 0.0.4.

use std::fmt::{Display, Write as _};

use bellrope::{
    breaker::BreakerState,
    status::{Snapshot, TypeSnapshot},
};

use crate::process::ProcessFacts;

pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything at one moment. What a server has is there from its start, as zeros.
pub(crate) fn page(snapshot: &Snapshot, process: &ProcessFacts) -> String {
    let mut page = Page(String::with_capacity(4096 * (1 + snapshot.types.len())));
    calls(&mut page, snapshot);
    work(&mut page, snapshot);
    connections(&mut page, snapshot);
    reloads(&mut page, snapshot);
    breakers(&mut page, snapshot);
    errors(&mut page, snapshot);
    let help = "Lines about clients that the log was spared, because too many came at once.";
    page.single("ipc_log_lines_dropped_total", "counter", help, snapshot.log_lines_dropped);
    let help =
        "Handshakes that had to wait, or were turned away, because their process broke the protocol over and over.";
    page.single("ipc_paced_handshakes_total", "counter", help, snapshot.paced_handshakes);
    let help = "Connections that their client left, or that failed, before the handshake was done.";
    page.single("ipc_unfinished_handshakes_total", "counter", help, snapshot.unfinished_handshakes);
    for (name, help, count) in &snapshot.counted {
        page.single(name, "counter", help, count);
    }
    for family in &snapshot.families {
        page.family(family.name, if family.is_counter { "counter" } else { "gauge" }, family.help);
        for (labels, value) in &family.samples {
            let labels: Vec<_> = labels.iter().map(|(name, text)| (*name, text.as_str())).collect();
            page.sample(family.name, &labels, value);
        }
    }
    if let Some(memory) = process.memory {
        page.single("ipc_shm_bytes", "gauge", "Shared memory resident in this process.", memory.shmem_kb * 1024);
    }
    page.family("ipc_build_info", "gauge", "Always 1; the version is in the label.");
    page.sample("ipc_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    process_metrics(&mut page, process);
    page.0
}

fn calls(page: &mut Page, snapshot: &Snapshot) {
    page.family("ipc_requests_total", "counter", "Calls that have ended, by message type and outcome.");
    for row in &snapshot.types {
        for (outcome, count) in &row.outcomes {
            page.sample("ipc_requests_total", &[("type", &row.name), ("outcome", outcome)], count);
        }
    }

    page.family(
        "ipc_latency_microseconds",
        "histogram",
        "Time from taking a call to having answered it, in microseconds. Sampled: of the calls that quick handlers \
         answer on a worker only one in a few dozen is timed, and counts for that many; all other calls are timed. For exact counts \
         of calls see ipc_requests_total.",
    );
    for row in &snapshot.types {
        let name = ("type", row.name.as_str());
        let bounds =
            TypeSnapshot::LATENCY_BOUNDS.iter().map(|bound| bound.as_micros().to_string()).chain(["+Inf".to_owned()]);
        let mut count = 0;
        for (bound, bucket) in bounds.zip(&row.buckets) {
            count += bucket;
            page.sample("ipc_latency_microseconds_bucket", &[name, ("le", &bound)], count);
        }
        page.sample("ipc_latency_microseconds_sum", &[name], row.latency_sum.as_micros());
        page.sample("ipc_latency_microseconds_count", &[name], count);
    }
}

fn work(page: &mut Page, snapshot: &Snapshot) {
    page.family("ipc_type_info", "gauge", "Always 1; the label says whether its handler runs on a worker or on tokio.");
    for row in snapshot.types.iter().filter(|row| row.name != TypeSnapshot::UNKNOWN) {
        let runs_on = if row.runs_on_worker { "worker" } else { "tokio" };
        page.sample("ipc_type_info", &[("type", &row.name), ("runs_on", runs_on)], 1);
    }
    page.family("ipc_running_calls", "gauge", "Calls and streams that an async handler is working on.");
    for row in &snapshot.types {
        page.sample("ipc_running_calls", &[("type", &row.name)], row.running);
    }
    let help = "Times that a handler held a worker, or an async thread between two waits, for over 10 ms.";
    page.family("ipc_held_threads_total", "counter", help);
    for row in snapshot.types.iter().filter(|row| row.name != TypeSnapshot::UNKNOWN) {
        page.sample("ipc_held_threads_total", &[("type", &row.name)], row.held_threads);
    }
    let help = "Requests that the workers found waiting in their last round over all connections.";
    page.single("ipc_queued_requests", "gauge", help, snapshot.queued_requests);
    let help = "Connections whose clients do not read what waits for them, as looked at once a second.";
    page.single("ipc_unread_connections", "gauge", help, snapshot.unread_connections);
    let help = "Connections whose next request waits for room in the buffer budget.";
    page.single("ipc_waiting_for_buffers", "gauge", help, snapshot.waiting_for_buffers);
    if let Some((used, limit)) = snapshot.buffers {
        page.family("ipc_buffer_budget_bytes", "gauge", "Bytes of buffers in use under the budget, and the budget.");
        page.sample("ipc_buffer_budget_bytes", &[("part", "used")], used);
        page.sample("ipc_buffer_budget_bytes", &[("part", "limit")], limit);
    }
}

fn breakers(page: &mut Page, snapshot: &Snapshot) {
    if snapshot.breakers.is_empty() {
        return; // a family without samples is no family
    }
    page.family("ipc_circuit_breaker_state", "gauge", "1 for the state that the circuit breaker is in, 0 for others.");
    for (name, breaker) in &snapshot.breakers {
        for state in BreakerState::ALL {
            let value = u8::from(breaker.state == state);
            page.sample("ipc_circuit_breaker_state", &[("type", name), ("state", state.name())], value);
        }
    }
    page.family("ipc_circuit_breaker_transitions_total", "counter", "Changes of a circuit breaker's state.");
    for (name, breaker) in &snapshot.breakers {
        for (from, to, count) in breaker.transitions {
            let labels = [("type", name.as_str()), ("from", from.name()), ("to", to.name())];
            page.sample("ipc_circuit_breaker_transitions_total", &labels, count);
        }
    }
    page.family("ipc_circuit_breaker_rejections_total", "counter", "Calls that a circuit breaker did not admit.");
    for (name, breaker) in &snapshot.breakers {
        page.sample("ipc_circuit_breaker_rejections_total", &[("type", name)], breaker.rejections);
    }
    let help = "Callers for whom alone a circuit breaker is not closed, because their own calls failed.";
    page.family("ipc_circuit_breaker_refused_callers", "gauge", help);
    for (name, breaker) in &snapshot.breakers {
        page.sample("ipc_circuit_breaker_refused_callers", &[("type", name)], breaker.callers.len());
    }
    let help = "Calls that a circuit breaker did not admit from one caller, while it admitted those of others.";
    page.family("ipc_circuit_breaker_caller_rejections_total", "counter", help);
    for (name, breaker) in &snapshot.breakers {
        page.sample("ipc_circuit_breaker_caller_rejections_total", &[("type", name)], breaker.caller_rejections);
    }
}

fn connections(page: &mut Page, snapshot: &Snapshot) {
    page.single("ipc_active_connections", "gauge", "Connections open now.", snapshot.active_connections);
    page.family("ipc_connections", "gauge", "Connections open now, by transport.");
    let shm = snapshot.active_connections.saturating_sub(snapshot.stream_connections);
    for (transport, count) in [("shm", shm), ("stream", snapshot.stream_connections)] {
        page.sample("ipc_connections", &[("transport", transport)], count);
    }
    page.single("ipc_max_connections", "gauge", "Connections that may be open at once.", snapshot.max_connections);
}

fn reloads(page: &mut Page, snapshot: &Snapshot) {
    let reloads = snapshot.reloads;
    page.family("ipc_config_reloads_total", "counter", "Times that the settings were read again, by how that went.");
    for (outcome, count) in [("ok", reloads.ok), ("failed", reloads.failed)] {
        page.sample("ipc_config_reloads_total", &[("outcome", outcome)], count);
    }
    let help = "When the settings were last read again, in seconds since 1970; 0 for never.";
    page.single("ipc_config_last_reload_timestamp_seconds", "gauge", help, reloads.last_at.unwrap_or(0));
    let help = "Whether that went well; 1 also if they never were.";
    page.single("ipc_config_last_reload_successful", "gauge", help, u8::from(reloads.last_ok != Some(false)));
}

fn errors(page: &mut Page, snapshot: &Snapshot) {
    page.family(
        "ipc_errors_total",
        "counter",
        "Everything that went wrong, by kind: calls that ended badly (cancelled ones are no error), connections closed \
         because the peer broke the protocol, left something unread or the system failed, connections refused.",
    );
    for (kind, count) in snapshot.errors() {
        page.sample("ipc_errors_total", &[("kind", kind)], count);
    }
}

fn process_metrics(page: &mut Page, process: &ProcessFacts) {
    let cpu_seconds = process.cpu_seconds;
    let help = "User and system CPU time used.";
    page.single("process_cpu_seconds_total", "counter", help, format_args!("{cpu_seconds:.6}"));
    let gauges = [
        ("process_resident_memory_bytes", "Resident memory.", process.memory.map(|memory| memory.rss_kb * 1024)),
        ("process_virtual_memory_bytes", "Virtual memory.", process.virtual_bytes),
        ("process_open_fds", "Open file descriptors.", process.open_fds),
        ("process_max_fds", "File descriptors that may be open, the soft limit.", process.max_fds),
    ];
    for (name, help, value) in gauges {
        if let Some(value) = value {
            page.single(name, "gauge", help, value);
        }
    }
    if let Some(started) = process.started {
        let help = "When the process was started, in seconds since 1970.";
        page.single("process_start_time_seconds", "gauge", help, format_args!("{started:.2}"));
    }
}

/// A page under construction.
struct Page(String);

impl Page {
    /// Begins a family; its samples must follow at once.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string can not fail, here and below.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            self.0.push(if index == 0 { '{' } else { ',' });
            self.0.push_str(label);
            self.0.push_str("=\"");
            self.escaped(text);
            self.0.push('"');
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{end} {value}");
    }

    /// A family of one sample without labels.
    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    fn escaped(&mut self, text: &str) {
        for char in text.chars() {
            match char {
                '\\' => self.0.push_str("\\\\"),
                '"' => self.0.push_str("\\\""),
                '\n' => self.0.push_str("\\n"),
                char => self.0.push(char),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::Arc,
        time::{Duration, Instant},
    };

    use bellrope::{
        Server,
        breaker::{Breaker, BreakerConfig},
        status::Metrics,
    };
    use tempfile::TempDir;

    use super::*;

    /// The counters of a server that has one message type and has stopped.
    fn server(name: &str) -> (Arc<Metrics>, TempDir) {
        let home = tempfile::tempdir().unwrap();
        let server =
            Server::builder().unary(name, |_, _| Ok(())).bind(home.path().join("run").join("test.sock")).unwrap();
        server.shutdown();
        (server.metrics(), home)
    }

    fn lines_of(snapshot: &Snapshot) -> Vec<String> {
        page(snapshot, &ProcessFacts::default()).lines().map(str::to_owned).collect()
    }

    // Faults 48, 49.
    #[test]
    fn label_values_are_escaped() {
        let mut snapshot = server("echo").0.snapshot();
        snapshot.types[0].name = "a\"b\\c\nd".to_owned();
        let wanted = r#"ipc_requests_total{type="a\"b\\c\nd",outcome="ok"} 0"#;
        assert!(lines_of(&snapshot).iter().any(|line| line == wanted));
    }

    #[test]
    fn buckets_are_cumulative() {
        let mut snapshot = server("echo").0.snapshot();
        let row = &mut snapshot.types[0];
        (row.buckets[0], row.buckets[3], row.buckets[16], row.latency_sum) =
            (32, 32, 1, Duration::from_micros(99_000_352));
        let lines = lines_of(&snapshot);
        let value = |name: &str| {
            let prefix = format!("ipc_latency_microseconds_{name} ");
            lines.iter().find_map(|line| line.strip_prefix(&prefix)).unwrap().to_owned()
        };
        let bucket = |le: &str| value(&format!("bucket{{type=\"echo\",le=\"{le}\"}}"));
        assert_eq!([bucket("1"), bucket("5"), bucket("10")], ["32", "32", "64"]);
        assert_eq!([bucket("10000000"), bucket("+Inf")], ["64", "65"]);
        assert_eq!([value("count{type=\"echo\"}"), value("sum{type=\"echo\"}")], ["65", "99000352"]);
    }

    #[test]
    fn errors_are_summed_over_types_and_a_cancelled_call_is_none() {
        let mut snapshot = server("echo").0.snapshot();
        snapshot.types[0].outcomes.iter_mut().for_each(|(_, count)| *count = 1);
        snapshot.types[1].outcomes.iter_mut().for_each(|(_, count)| *count = 1);
        snapshot.violations = 3;
        let lines = lines_of(&snapshot);
        for wanted in ["ipc_errors_total{kind=\"handler_panic\"} 2", "ipc_errors_total{kind=\"protocol_violation\"} 3"]
        {
            assert!(lines.iter().any(|line| line == wanted), "{wanted}");
        }
        assert!(!lines.iter().any(|line| line.starts_with("ipc_errors_total{kind=\"cancelled\"}")));
    }

    #[test]
    fn a_breaker_shows_its_state_its_changes_and_whom_it_turned_away() {
        let (metrics, _home) = server("echo");
        let breaker = Arc::new(Breaker::new(BreakerConfig::default()).unwrap());
        metrics.watch_breaker("echo", Arc::clone(&breaker));
        let has = |lines: &[String], wanted: &str| assert!(lines.iter().any(|line| line == wanted), "{wanted}");
        let lines = lines_of(&metrics.snapshot());
        has(&lines, r#"ipc_circuit_breaker_state{type="echo",state="closed"} 1"#);
        has(&lines, r#"ipc_circuit_breaker_state{type="echo",state="half_open"} 0"#);
        has(&lines, r#"ipc_circuit_breaker_transitions_total{type="echo",from="closed",to="open"} 0"#);
        for _ in 0..5 {
            breaker.acquire(Instant::now).unwrap().fail(Instant::now);
        }
        breaker.acquire(Instant::now).unwrap_err();
        let lines = lines_of(&metrics.snapshot());
        has(&lines, r#"ipc_circuit_breaker_state{type="echo",state="closed"} 0"#);
        has(&lines, r#"ipc_circuit_breaker_state{type="echo",state="open"} 1"#);
        has(&lines, r#"ipc_circuit_breaker_transitions_total{type="echo",from="closed",to="open"} 1"#);
        has(&lines, r#"ipc_circuit_breaker_rejections_total{type="echo"} 1"#);
    }

    #[test]
    fn a_budget_is_shown_where_there_is_one() {
        let mut snapshot = server("echo").0.snapshot();
        snapshot.buffers = None;
        assert!(!lines_of(&snapshot).iter().any(|line| line.contains("buffer_budget")));
        snapshot.buffers = Some((10, 1_000));
        let lines = lines_of(&snapshot);
        assert!(lines.contains(&r#"ipc_buffer_budget_bytes{part="used"} 10"#.to_owned()));
        assert!(lines.contains(&r#"ipc_buffer_budget_bytes{part="limit"} 1000"#.to_owned()));
    }

    #[test]
    fn what_can_not_be_read_of_the_process_is_left_out() {
        let lines = lines_of(&server("echo").0.snapshot());
        assert!(!lines.iter().any(|line| line.contains("process_open_fds")));
    }
}
