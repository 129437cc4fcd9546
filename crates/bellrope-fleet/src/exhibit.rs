//! What an operator sees of the fleet at this server: metrics, and a panel of the live page.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use bellrope::status::{Exhibit, Family, Panel, PanelTable, SampleValue};

use crate::{importing::KnownInstance, session::Membership};

/// Rows of the table of instances on the page, and servers with a series of their own.
const MOST_ROWS: usize = 32;
const MOST_SERIES: usize = 64;
/// Digits of an instance's number on the page, which a small screen has room for.
const SHOWN_OF_ID: usize = 8;
/// What instances without a name are shown as.
const UNNAMED: &str = "unnamed";

/// The fleet, as it is shown.
pub(crate) struct Shown(pub(crate) Arc<Membership>);

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shown").finish_non_exhaustive()
    }
}

impl Shown {
    /// Names of servers, and the calls of the fleet at their instances. Without the id, which is another one after each
    /// connection: a series that is new each time would never end.
    fn by_server(&self) -> Vec<(Vec<(&'static str, String)>, SampleValue)> {
        let mut calls = BTreeMap::<String, u64>::new();
        for KnownInstance { server, calls: there, .. } in self.0.importer.choices.instances() {
            *calls.entry(named(server)).or_default() += there;
        }
        let rows = calls.into_iter().take(MOST_SERIES);
        rows.map(|(server, calls)| (vec![("server", server)], SampleValue::Whole(calls))).collect()
    }

    fn instances(&self) -> Vec<KnownInstance> {
        let mut instances = self.0.importer.choices.instances();
        instances.sort_by(|one, other| other.calls.cmp(&one.calls).then_with(|| one.server.cmp(&other.server)));
        instances
    }
}

fn named(server: String) -> String {
    if server.is_empty() { UNNAMED.to_owned() } else { server }
}

impl Exhibit for Shown {
    fn families(&self) -> Vec<Family> {
        let gauge = |name, help, value: usize| Family {
            name,
            is_counter: false,
            help,
            samples: vec![(Vec::new(), SampleValue::Whole(value as u64))],
        };
        let linked = usize::from(self.0.linked.load(Relaxed));
        let mut families = vec![
            gauge("ipc_fleet_linked", "Whether there is a connection to NATS.", linked),
            gauge("ipc_fleet_under_way", "Calls of this server that the fleet has.", self.0.importer.under_way()),
            gauge("ipc_fleet_running", "Calls from the fleet that run here.", self.0.running()),
        ];
        if self.0.imports.is_wanted() && self.0.importer.choices.hears_loads() {
            let known = self.0.importer.choices.instances().len();
            families.push(gauge("ipc_fleet_instances", "Instances that this server chooses from.", known));
            families.push(Family {
                name: "ipc_fleet_instance_calls",
                is_counter: false,
                help: "Calls of the fleet at the instances of a server, as far as it says.",
                samples: self.by_server(),
            });
        }
        families
    }

    fn panel(&self) -> Panel {
        let membership = &self.0;
        let instances = self.instances();
        let is_linked = membership.linked.load(Relaxed);
        let chooses = membership.imports.is_wanted() && membership.importer.choices.hears_loads();
        let alarm = match is_linked {
            false => "There is no connection to NATS: calls of the fleet are not executed.",
            true if chooses && instances.is_empty() => "No instance is known that offers what is imported here.",
            true => "",
        };
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Relaxed).to_string();
        let counters = &membership.counters;
        let mut rows = Vec::new();
        if membership.imports.is_wanted() {
            let now = membership.importer.under_way().to_string();
            rows.push(vec![
                "of this server, at others".to_owned(),
                now,
                count(&counters.forwarded),
                count(&counters.not_executed),
                count(&counters.unknown),
            ]);
        }
        if membership.offers.is_wanted() {
            let now = membership.running().to_string();
            let lost = count(&counters.orphaned);
            rows.push(vec!["of others, here".to_owned(), now, count(&counters.taken), count(&counters.refused), lost]);
        }
        let calls = PanelTable {
            caption: "Calls through the fleet".to_owned(),
            columns: texts(&["calls", "now", "in all", "not run", "lost"]),
            numbers_from: 1,
            rows,
        };
        let mut tables = vec![calls];
        if chooses {
            let more = instances.len().saturating_sub(MOST_ROWS);
            let rows = instances.into_iter().take(MOST_ROWS).map(|known| {
                let state = if known.is_avoided { "refuses" } else { "serves" };
                vec![
                    named(known.server),
                    known.id.chars().take(SHOWN_OF_ID).collect(),
                    state.to_owned(),
                    known.calls.to_string(),
                    known.own.to_string(),
                ]
            });
            let rows = rows.collect();
            let caption = match more {
                0 => "Instances".to_owned(),
                more => format!("Instances with the most calls; {more} more are not shown"),
            };
            let columns = texts(&["server", "id", "state", "calls", "of ours"]);
            tables.push(PanelTable { caption, columns, numbers_from: 3, rows });
        }
        Panel { title: "Fleet".to_owned(), alarm: alarm.to_owned(), tables, ..Panel::default() }
    }
}
