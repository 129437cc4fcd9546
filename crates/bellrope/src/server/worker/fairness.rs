//! Whose turn is next where there is more to do than a round has time for.
//!
//! A round over all connections that takes long, a quarter of what a turn may take, is cut short, so that doorbells, newcomers
//! and what handlers say are looked after. The next one goes by process: one connection of each, then a second of each, and so
//! on. So however many connections a process has, and whatever it does with them, whoever calls from another one waits for a
//! few turns of it.
//!
//! Those with priority have theirs between all others', and as long as they are quick all of them each time. If that takes long, the
//! others have as much time before the next of those with priority has a turn: whoever asks for priority gets no more than half.
//!
//! Within a process those that had no turn yet come first, then those that rang or came in meanwhile, then those that had one.
//!
//! As long as rounds are short nobody is sorted.

use bellrope_shm::clock;

use super::{
    INBOX_KEY, TURNS_PER_LOOK, WORKED, Worker,
    backlog::Cut,
    rounds::EVENTS_A_ROUND,
    session::Session,
    visit::{Turn, Visit},
};

/// Connections of one process that are put in order; further ones come after those of all processes. Few of them have their turn
/// before the next look anyway.
const RANKED: usize = 64;
/// Connections of one process that are looked at for that. Looking at many costs more than a turn.
const LOOKED_AT: usize = 4 * RANKED;
/// How long those with priority rest at the most, in rounds that are cut short: one slow call among them, or a worker that had no
/// processor, keeps the others of them waiting no longer.
const LONGEST_REST: u64 = 64;
/// The rank of one that has nothing to do.
const IDLE: usize = RANKED + 1;

impl Worker {
    /// Gives those with priority a turn: all of them, or as many as there is time for beside others.
    #[inline]
    pub(super) fn visit_priority(&mut self) -> bool {
        if self.priority.is_empty() || self.priority_rests != 0 && clock::ticks() < self.priority_rests {
            return false;
        }
        let (mut worked, mut place, mut began) = (false, 0, 0);
        while let Some(&index) = self.priority.get(place) {
            place += 1;
            let Some(session) = &mut self.sessions[index] else { continue };
            if !session.connection.is_ready() && !session.connection.wants_room() {
                continue;
            }
            if began == 0 {
                began = clock::ticks();
            }
            match self.visitor.visit(session, &mut Turn::default(), u32::MAX) {
                Ok(visit) => worked |= visit != Visit::Nothing,
                Err(violation) => self.end(index, violation.into()),
            }
            let took = clock::ticks().wrapping_sub(began);
            if took >= self.visitor.round_ticks() {
                self.cut_priority_short(place, took);
                break;
            }
        }
        worked
    }

    /// Lets those with priority rest before this place, after so many ticks.
    #[cold]
    fn cut_priority_short(&mut self, place: usize, took: u64) {
        // What rings is looked after, as after a long round of the others.
        self.worked += TURNS_PER_LOOK / WORKED;
        let rest = took.min(LONGEST_REST * self.visitor.round_ticks());
        self.priority_rests = clock::ticks().wrapping_add(rest);
        let place = place.min(self.priority.len());
        self.priority.rotate_left(place);
        let (sessions, processes) = (&self.sessions, &self.processes);
        if processes.len() > 1 {
            let is_busy = |&index: &usize| sessions[index].as_deref().is_some_and(has_something_to_do);
            by_process(&mut self.priority, processes.numbers(), |&index| processes.of(index), is_busy);
        }
    }

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
        let (sessions, processes) = (&self.sessions, &self.processes);
        if processes.len() > 1 {
            let is_busy = |&index: &usize| sessions[index].as_deref().is_some_and(has_something_to_do);
            by_process(&mut order, processes.numbers(), |&index| processes.of(index), is_busy);
        }
        self.hot = order;
    }

    /// Puts what epoll reported in the order in which it is heard, if that is more than one round hears: the inbox first.
    pub(super) fn put_events_in_turns(&mut self) {
        if self.backlog.events.len() <= EVENTS_A_ROUND {
            return;
        }
        let processes = &self.processes;
        let (inbox, mut events): (Vec<_>, Vec<_>) =
            self.backlog.events.drain(..).partition(|event| event.key == INBOX_KEY);
        if processes.len() > 1 {
            by_process(&mut events, processes.numbers(), |event| processes.of(event.key as u32 as usize), |_| true);
        }
        self.backlog.events.extend(inbox.into_iter().chain(events));
    }

    /// Puts those whose handlers have said something in the order in which their turns are, after a round that was cut short.
    #[cfg(feature = "tokio")]
    #[cold]
    pub(super) fn put_deliveries_in_turns(&mut self) {
        self.cut_short.deliveries = false;
        let processes = &self.processes;
        if processes.len() > 1 {
            by_process(self.told.make_contiguous(), processes.numbers(), |&index| processes.of(index), |_| true);
        }
    }
}

/// Whether a visit may find something. That of one whose records travel over the socket moves them, too.
fn has_something_to_do(session: &Session) -> bool {
    session.connection.is_ready() || session.connection.wants_room() || session.carrier.is_some()
}

/// Puts a list in turns by process, each process's own in their order, and those that have nothing to do behind all. Processes
/// have numbers below this one. Of most it sees no more than that number: with thousands on the list it takes a few
/// microseconds, and a round many times that.
fn by_process<T: Copy>(list: &mut [T], numbers: usize, of: impl Fn(&T) -> Option<usize>, is_busy: impl Fn(&T) -> bool) {
    // How many of a process have a rank, and how many were looked at.
    let mut seen = vec![(0, 0); numbers];
    let mut sizes = [0; IDLE + 1];
    let rank = |one: &T| {
        let Some((ranked, looked_at)) = of(one).and_then(|process| seen.get_mut(process)) else { return IDLE };
        if *ranked >= RANKED || *looked_at >= LOOKED_AT {
            return RANKED;
        }
        *looked_at += 1;
        if !is_busy(one) {
            return IDLE;
        }
        *ranked += 1;
        *ranked - 1
    };
    let ranks: Vec<_> = list.iter().map(rank).inspect(|rank| sizes[*rank] += 1).collect();
    // Where those of each rank begin.
    let mut places = sizes;
    let mut next = 0;
    for place in &mut places {
        next += std::mem::replace(place, next);
    }
    let before = list.to_vec();
    for (one, rank) in before.iter().zip(ranks) {
        list[places[rank]] = *one;
        places[rank] += 1;
    }
}

#[cfg(test)]
mod tests;
