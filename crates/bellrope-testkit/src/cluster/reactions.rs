//! How soon the others notice that a process was killed.
//!
//! Each client has a stream under way all the time that nothing ever comes of. When the server dies, it ends at the client
//! with a typed error; when the client dies, the server drops its handler, and with it all that the call held.

use std::collections::HashMap;

use super::{
    client::{client_of, is_watch},
    journal::Note,
    process::{Life, Role},
};
use crate::ledger::{Event, Outcome};

/// Times from the kill of one side until the other had noticed, in microseconds.
#[derive(Debug, Default)]
pub struct Reactions {
    /// Of clients, whose server was killed.
    pub of_clients: Vec<u64>,
    /// Of servers, one of whose clients was killed.
    pub of_servers: Vec<u64>,
}

impl Reactions {
    /// Adds what one process noted.
    pub(super) fn add(&mut self, life: &Life, notes: &[Note], lives: &[Life]) {
        match life.role {
            Role::Client => self.add_client(notes, lives),
            Role::Server => self.add_server(life, notes, lives),
        }
    }

    /// Adds what others have seen.
    pub fn append(&mut self, mut others: Self) {
        self.of_clients.append(&mut others.of_clients);
        self.of_servers.append(&mut others.of_servers);
    }

    fn add_client(&mut self, notes: &[Note], lives: &[Life]) {
        // When servers ended, and whether they were killed.
        let killed = lives.iter().filter(|life| life.role == Role::Server).filter_map(|life| life.killed_at_us);
        let retired = lives.iter().filter_map(|life| life.retired_at_us);
        let mut ends: Vec<_> = killed.map(|at| (at, true)).chain(retired.map(|at| (at, false))).collect();
        ends.sort_unstable();
        for note in notes {
            if let Event::Ended { call, outcome: Outcome::Unknown | Outcome::NotExecuted } = note.event
                && is_watch(call)
                && let Some((kill, true)) = ends.iter().rfind(|(at, _)| *at <= note.at_us)
            {
                self.of_clients.push(note.at_us - kill);
            }
        }
    }

    fn add_server(&mut self, life: &Life, notes: &[Note], lives: &[Life]) {
        let killed = |life: &Life| life.killed_at_us.filter(|_| life.role == Role::Client).map(|at| (life.number, at));
        let kills: HashMap<_, _> = lives.iter().filter_map(killed).collect();
        let mut watched = HashMap::new();
        for note in notes {
            match note.event {
                Event::Ran { call, .. } if is_watch(call) => drop(watched.insert(call, note.at_us)),
                Event::Left { call } => {
                    if watched.remove(&call).is_some()
                        && let Some(kill) = kills.get(&client_of(call)).filter(|kill| **kill <= note.at_us)
                    {
                        self.of_servers.push(note.at_us - kill);
                    }
                }
                _ => {}
            }
        }
        assert!(
            watched.is_empty() || life.killed_at_us.or(life.retired_at_us).is_some(),
            "a server that ended by itself still had handlers of clients that are gone: {watched:x?}"
        );
    }
}

/// The value that so many of a thousand do not exceed.
///
/// # Panics
/// If there is none.
pub fn percentile(sorted: &[u64], per_mille: usize) -> u64 {
    sorted[(sorted.len() - 1) * per_mille / 1000]
}
