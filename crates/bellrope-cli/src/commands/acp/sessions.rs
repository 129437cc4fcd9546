//! The conversations of an editor, and which of them waits for an answer.

use std::collections::HashMap;

use tokio::sync::oneshot;

use super::store::Header;
use crate::commands::chat::Conversation;

/// The most sessions that are kept; each holds a conversation of at most about 10 MiB. Beyond it the one that was not
/// used for longest is forgotten.
const MAX_SESSIONS: usize = 64;

/// The sessions of one editor, by id.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    open: HashMap<String, Session>,
    /// Counts what is done with sessions: the clock of [`Session::used`].
    uses: u64,
}

#[derive(Debug)]
struct Session {
    used: u64,
    header: Header,
    state: State,
}

#[derive(Debug)]
enum State {
    Idle(Box<Conversation>),
    /// A turn has the conversation. Sending here, or dropping this, cancels it.
    Answering(Option<oneshot::Sender<()>>),
}

/// Why a session cannot be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unready {
    /// It does not exist, or no longer.
    Unknown,
    /// It waits for an answer.
    Busy,
    /// There are as many sessions as there may be, and all of them wait for answers.
    Full,
}

impl Sessions {
    /// Opens a session with this conversation. One that is open already and waits for nothing gives way to it.
    pub(super) fn open(&mut self, header: Header, conversation: Conversation) -> Result<(), Unready> {
        let is_busy = |session: &Session| matches!(session.state, State::Answering(_));
        match self.open.get(&header.id) {
            Some(session) if is_busy(session) => return Err(Unready::Busy),
            Some(_) => {}
            None if self.open.len() >= MAX_SESSIONS => {
                let idle = self.open.iter().filter(|(_, session)| !is_busy(session));
                let oldest = idle.min_by_key(|(_, session)| session.used).map(|(id, _)| id.clone());
                self.open.remove(&oldest.ok_or(Unready::Full)?);
            }
            None => {}
        }
        self.uses += 1;
        let state = State::Idle(Box::new(conversation));
        self.open.insert(header.id.clone(), Session { used: self.uses, header, state });
        Ok(())
    }

    /// What is known of a session beside its conversation, after its title was given, if it has none.
    pub(super) fn named(&mut self, id: &str, question: &str) -> Option<Header> {
        let session = self.open.get_mut(id)?;
        session.header.name(question);
        Some(session.header.clone())
    }

    /// Hands out the conversation of a session for a turn, and what tells that the turn is cancelled.
    pub(super) fn begin(&mut self, id: &str) -> Result<(Box<Conversation>, oneshot::Receiver<()>), Unready> {
        let session = self.open.get_mut(id).ok_or(Unready::Unknown)?;
        let (cancel, cancelled) = oneshot::channel();
        match std::mem::replace(&mut session.state, State::Answering(Some(cancel))) {
            State::Idle(conversation) => {
                self.uses += 1;
                session.used = self.uses;
                Ok((conversation, cancelled))
            }
            answering => {
                session.state = answering;
                Err(Unready::Busy)
            }
        }
    }

    /// Takes a conversation back after its turn. That of a session closed meanwhile is dropped.
    pub(super) fn end(&mut self, id: &str, conversation: Box<Conversation>) {
        if let Some(session) = self.open.get_mut(id) {
            session.state = State::Idle(conversation);
        }
    }

    /// Cancels the turn of a session, if there is one.
    pub(super) fn cancel(&mut self, id: &str) {
        if let Some(Session { state: State::Answering(cancel), .. }) = self.open.get_mut(id)
            && let Some(cancel) = cancel.take()
        {
            // A turn that has just ended hears nothing.
            let _ = cancel.send(());
        }
    }

    /// Closes a session, and cancels its turn. Whether there was one.
    pub(super) fn close(&mut self, id: &str) -> bool {
        self.open.remove(id).is_some()
    }

    /// Changes how a session asks from its next question on.
    pub(super) fn change(&mut self, id: &str, change: impl FnOnce(&mut Conversation)) -> Result<(), Unready> {
        match &mut self.open.get_mut(id).ok_or(Unready::Unknown)?.state {
            State::Idle(conversation) => {
                change(conversation);
                Ok(())
            }
            State::Answering(_) => Err(Unready::Busy),
        }
    }
}

#[cfg(test)]
mod tests {
    use bellrope_gateway::ChatRequest;

    use super::*;

    impl Sessions {
        fn begin_one(&mut self) -> Result<String, Unready> {
            let id = crate::commands::acp::store::new_id().unwrap();
            let header = Header::new(id.clone(), "/".into());
            self.open(header, Conversation::new(ChatRequest::default())).map(|()| id)
        }
    }

    #[test]
    fn the_session_that_was_not_used_for_longest_makes_room_and_one_at_work_never_does() {
        let mut sessions = Sessions::default();
        let ids: Vec<_> = (0..MAX_SESSIONS).map(|_| sessions.begin_one().unwrap()).collect();
        let (_at_work, _cancelled) = sessions.begin(&ids[0]).unwrap();
        let (used, _) = sessions.begin(&ids[1]).unwrap();
        sessions.end(&ids[1], used);
        sessions.begin_one().unwrap();
        assert_eq!(sessions.begin(&ids[2]).err(), Some(Unready::Unknown));
        assert_eq!(sessions.begin(&ids[0]).err(), Some(Unready::Busy));
        assert!(sessions.begin(&ids[1]).is_ok());
        assert_eq!(sessions.open.len(), MAX_SESSIONS);
    }

    #[test]
    fn a_turn_is_cancelled_once_and_the_session_goes_on() {
        let mut sessions = Sessions::default();
        let id = sessions.begin_one().unwrap();
        sessions.cancel(&id);
        let (conversation, mut cancelled) = sessions.begin(&id).unwrap();
        assert!(cancelled.try_recv().is_err(), "what was cancelled before was another turn");
        sessions.cancel(&id);
        sessions.cancel(&id);
        assert!(cancelled.try_recv().is_ok());
        assert_eq!(sessions.begin(&id).err(), Some(Unready::Busy));
        sessions.end(&id, conversation);
        assert!(sessions.begin(&id).is_ok());
    }

    #[test]
    fn closing_a_session_ends_its_turn() {
        let mut sessions = Sessions::default();
        let id = sessions.begin_one().unwrap();
        let (conversation, cancelled) = sessions.begin(&id).unwrap();
        assert!(sessions.close(&id) && !sessions.close(&id));
        assert!(cancelled.blocking_recv().is_err(), "the sender is gone");
        sessions.end(&id, conversation);
        assert_eq!(sessions.begin(&id).err(), Some(Unready::Unknown));
    }
}
