//! Whose turn is next where there is more to do than a round has time for.
//!
//! A round over all connections that takes long, a quarter of what a turn may take, is cut short, so that doorbells, newcomers
//! and what handlers say are looked after. The next one goes by process: one connection of each, then a second of each, and so
//! on. So however many connections a process has, and whatever it does with them, whoever calls from another one waits for a
//! few turns of it.
//!
//! Within a process those that had no turn yet come first, then those that rang or came in meanwhile, then those that had one.
//!
//! As long as rounds are short nobody is sorted.

use std::collections::HashMap;

use bellrope_shm::socket::PeerCredentials;

use super::{INBOX_KEY, TURNS_PER_LOOK, WORKED, Worker, backlog::Cut, rounds::EVENTS_A_ROUND, session::Session};

/// Connections of one process that are put in order; further ones come after those of all processes. Few of them have their turn
/// before the next look anyway.
const RANKED: usize = 64;
/// The rank of one that has nothing to do.
const IDLE: usize = usize::MAX;

impl Worker {
    /// Ends a round over the hot list before this place.
    #[cold]
    pub(super) fn cut_visits_short(&mut self, place: usize) {
        self.worked += TURNS_PER_LOOK / WORKED;
        let place = place.min(self.hot.len());
        self.hot.rotate_left(place);
        self.cut_short.visits = Some(Cut { unvisited: self.hot.len() - place, heated: self.heated });
    }

    /// Puts the hot list in the order in which its turns are, after a round that was cut short.
    #[cold]
    pub(super) fn put_visits_in_turns(&mut self) {
        let Some(cut) = self.cut_short.visits.take() else { return };
        let (unvisited, rest) = self.hot.split_at(cut.unvisited.min(self.hot.len()));
        // Some may have left the list since, so these are about those that are meant.
        let came = ((self.heated - cut.heated) as usize).min(rest.len());
        let (visited, came) = rest.split_at(rest.len() - came);
        let mut order = [unvisited, came, visited].concat();
        let sessions = &self.sessions;
        by_process(&mut order, |&index| {
            let session = sessions[index].as_deref()?;
            Some((session.peer, move || has_something_to_do(session)))
        });
        self.hot = order;
    }

    /// Puts what epoll reported in the order in which it is heard, if that is more than one round hears: the inbox first.
    pub(super) fn put_events_in_turns(&mut self) {
        if self.backlog.events.len() <= EVENTS_A_ROUND {
            return;
        }
        let sessions = &self.sessions;
        let (inbox, mut events): (Vec<_>, Vec<_>) =
            self.backlog.events.drain(..).partition(|event| event.key == INBOX_KEY);
        by_process(&mut events, |event| {
            let session = sessions.get(event.key as u32 as usize)?.as_deref()?;
            Some((session.peer, || true))
        });
        self.backlog.events.extend(inbox.into_iter().chain(events));
    }

    /// Ends a round over those whose handlers have said something before this place.
    #[cfg(feature = "tokio")]
    #[cold]
    pub(super) fn cut_deliveries_short(&mut self, place: usize) {
        let place = place.min(self.told.len());
        self.told.rotate_left(place);
        self.cut_short.deliveries = true;
    }

    /// Puts those whose handlers have said something in the order in which their turns are, after a round that was cut short.
    #[cfg(feature = "tokio")]
    #[cold]
    pub(super) fn put_deliveries_in_turns(&mut self) {
        self.cut_short.deliveries = false;
        let sessions = &self.sessions;
        by_process(&mut self.told, |&index| Some((sessions[index].as_deref()?.peer, || true)));
    }
}

/// Whether a visit may find something. That of one whose records travel over the socket moves them, too.
fn has_something_to_do(session: &Session) -> bool {
    session.connection.is_ready() || session.connection.wants_room() || session.carrier.is_some()
}

/// Puts a list in turns by process, each process's own in their order, and those that have nothing to do behind all.
fn by_process<T: Copy, Busy: FnOnce() -> bool>(list: &mut Vec<T>, of: impl Fn(&T) -> Option<(PeerCredentials, Busy)>) {
    let mut peers = list.iter().filter_map(&of).map(|(peer, _)| peer);
    let first = peers.next();
    // They are in their order.
    if peers.all(|peer| Some(peer) == first) {
        return;
    }
    let mut ranks: HashMap<(u32, i32), usize> = HashMap::new();
    let mut ranked: Vec<_> = list
        .iter()
        .map(|one| {
            let Some((peer, is_busy)) = of(one) else { return (IDLE, *one) };
            let rank = ranks.entry((peer.uid, peer.pid)).or_default();
            // Looking at many costs more than a turn.
            if *rank >= RANKED {
                return (RANKED, *one);
            }
            if !is_busy() {
                return (IDLE, *one);
            }
            *rank += 1;
            (*rank - 1, *one)
        })
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    list.clear();
    list.extend(ranked.into_iter().map(|(_, one)| one));
}

#[cfg(test)]
mod tests;
