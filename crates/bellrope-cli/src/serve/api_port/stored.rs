//! OpenAI's responses that are kept: how one begins, is asked for later, is read again, cancelled and deleted.

use std::{
    convert::Infallible,
    future::poll_fn,
    hash::{BuildHasher, RandomState},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bellrope_gateway::{
    AnswerReader, ChatRequest, Gateway, KeptAnswer, KeptAnswers, LiveGateway, Owner, ServerStop,
    inbound::{AnswerWriter, Fault, ItemsPage, Replay, StoredRequest, StoredResponse},
};
use bellrope_shm::process;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Method,
    body::{Bytes, Frame},
};
use tokio::time::timeout;

/// How long nothing comes before the reader hears that the connection is alive.
const SILENCE: Duration = Duration::from_secs(15);

/// What is done with a response that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    /// `GET` and `DELETE` of the response itself.
    Whole,
    /// `POST` to `cancel` below it.
    Cancel,
    /// `GET` of `input_items` below it.
    Input,
}

impl Deed {
    /// What it is done with, and the methods that do it.
    pub(super) fn methods(self) -> (&'static str, &'static str) {
        match self {
            Self::Whole => ("a response", "GET, DELETE"),
            Self::Cancel => ("cancel", "POST"),
            Self::Input => ("input_items", "GET"),
        }
    }
}

/// A body of events.
type Events = UnsyncBoxBody<Bytes, Infallible>;

/// What an answer is: a body of JSON, or of events.
pub(super) enum Body {
    Json(Vec<u8>),
    Events(Events),
}

/// Who asks: whoever sends this key, or, without one, our own user, as nobody else is let in but root.
pub(super) struct Owners {
    states: [RandomState; 2],
    /// Our own, which no server changes; to ask for it is a system call.
    user: u32,
}

impl Owners {
    pub(super) fn new() -> Self {
        Self { states: [RandomState::new(), RandomState::new()], user: process::user_id() }
    }

    /// Whose an answer is: whoever shows this key, in whatever header.
    pub(super) fn of(&self, key: Option<&str>) -> Owner {
        let Some(key) = key else { return Owner::User(self.user) };
        // The key itself is not kept.
        let [high, low] = self.states.each_ref().map(|state| u128::from(state.hash_one(key.as_bytes())));
        Owner::Token(high << 64 | low)
    }
}

/// What goes on with a request for a response that is kept, or goes on from one.
pub(super) enum Next {
    /// It is answered as every other request, by this.
    Asked(Box<dyn AnswerWriter>),
    /// It runs without a reader.
    Begun(Body),
}

/// Begins what a request asks for. `writer`: for one that is not to be kept.
pub(super) fn ask(
    answers: &KeptAnswers,
    gateway: &Gateway,
    owner: Owner,
    stored: StoredRequest,
    (chat, stream): (&mut ChatRequest, bool),
    (writer, end): (Box<dyn AnswerWriter>, &ServerStop),
) -> Result<Next, Fault> {
    stored.go_on(answers, &owner, chat)?;
    if !stored.is_stored() {
        return Ok(Next::Asked(writer));
    }
    let asked = chat.messages.clone();
    if !stored.is_background() {
        return Ok(Next::Asked(stored.writer(answers, owner, asked)?));
    }
    let (answer, response) = stored.begin(answers, owner, asked)?;
    let reader = stream.then(|| events(&answer, &response, None, end)).transpose()?;
    Arc::clone(&response).run(answer, gateway.chat_stream(std::mem::take(chat)));
    Ok(Next::Begun(reader.map_or_else(|| Body::Json(response.json()), Body::Events)))
}

/// Answers a request about the response with this id.
pub(super) fn about(
    gateway: &LiveGateway,
    owner: &Owner,
    (method, deed): (&Method, Deed),
    (id, query): (&str, Option<&str>),
    end: &ServerStop,
) -> Result<Body, Fault> {
    let (answer, response) = StoredResponse::find(gateway.answers(), owner, id)?;
    match (deed, method.as_str()) {
        (Deed::Whole, "GET") => {
            let query = Query::read(query)?;
            if query.stream {
                return Ok(Body::Events(events(&answer, &response, query.starting_after, end)?));
            }
            Ok(Body::Json(response.json()))
        }
        (Deed::Whole, "DELETE") => {
            answer.remove();
            Ok(Body::Json(serde_json::json!({"id": id, "object": "response", "deleted": true}).to_string().into()))
        }
        (Deed::Cancel, "POST") => {
            response.cancel(&answer)?;
            Ok(Body::Json(response.json()))
        }
        (Deed::Input, "GET") => Ok(Body::Json(response.input_items(&Query::read(query)?.page)?)),
        _ => {
            let (what, methods) = deed.methods();
            Err(Fault::method_not_allowed(what, methods))
        }
    }
}

/// What is asked behind the `?`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Query {
    stream: bool,
    starting_after: Option<u64>,
    page: ItemsPage,
}

impl Query {
    fn read(query: Option<&str>) -> Result<Self, Fault> {
        let mut read = Self::default();
        for pair in query.unwrap_or_default().split('&') {
            match pair.split_once('=').unwrap_or((pair, "")) {
                ("stream", "true" | "1") => read.stream = true,
                ("starting_after", number) => {
                    let fault = || Fault::invalid(Some("starting_after"), "starting_after is the number of an event");
                    read.starting_after = Some(number.parse().map_err(|_| fault())?);
                }
                ("limit", number) => {
                    let fault = || Fault::invalid(Some("limit"), "limit is a number of items");
                    read.page.limit = Some(number.parse().map_err(|_| fault())?);
                }
                ("after", id) => read.page.after = Some(id.to_owned()),
                ("order", "asc") => read.page.is_ascending = true,
                ("order", "desc") => read.page.is_ascending = false,
                ("order", _) => return Err(Fault::invalid(Some("order"), "order is asc or desc")),
                // `include` among them: what there is of it comes anyway.
                _ => {}
            }
        }
        Ok(read)
    }
}

/// The events of a response, those after a number alone.
fn events(
    answer: &KeptAnswer,
    response: &StoredResponse,
    after: Option<u64>,
    end: &ServerStop,
) -> Result<Events, Fault> {
    let mut replay = response.replay(after)?;
    // All of its chunks are read, as the numbers of events are not those of chunks.
    let reader = answer.read(0).map_err(|error| Fault::invalid(Some("stream"), error.to_string()))?;
    let mut begun = Vec::new();
    replay.begin(&mut begun);
    let end = end.clone();
    let pieces = stream::unfold(Some((reader, replay, begun)), move |state| {
        let end = end.clone();
        async move {
            let (mut reader, mut replay, mut ready) = state?;
            let goes_on = more(&mut reader, &mut replay, &mut ready, &end).await;
            let frame = Frame::data(Bytes::from(std::mem::take(&mut ready)));
            Some((Ok::<_, Infallible>(frame), goes_on.then_some((reader, replay, ready))))
        }
    });
    Ok(StreamBody::new(pieces).boxed_unsync())
}

/// Waits until there is something to send. Whether more may follow.
async fn more(reader: &mut AnswerReader, replay: &mut Replay, ready: &mut Vec<u8>, end: &ServerStop) -> bool {
    loop {
        if !ready.is_empty() {
            return true;
        }
        let mut next = pin!(timeout(SILENCE, reader.next()));
        let next = poll_fn(|context| match end.has_come() {
            true => Poll::Ready(Ok(Err(ServerStop::error()))),
            false => next.as_mut().poll(context),
        });
        match next.await {
            Ok(Ok(Some(piece))) => replay.piece(&piece, ready),
            Ok(Ok(None)) => return false,
            Ok(Err(error)) => {
                replay.break_off(&error, ready);
                return false;
            }
            Err(_) => replay.ping(ready),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_stands_for_its_owner_and_nothing_else_does() {
        let owners = Owners::new();
        let key = owners.of(Some("a"));
        assert_eq!(key, owners.of(Some("a")));
        assert!(key != owners.of(Some("b")) && key != Owners::new().of(Some("a")));
        assert_eq!(owners.of(None), Owner::User(process::user_id()));
    }

    #[test]
    fn what_is_asked_behind_the_question_mark_is_read() {
        assert_eq!(Query::read(None).unwrap(), Query::default());
        let query = Query::read(Some("include[]=x&stream=true&starting_after=7")).unwrap();
        assert_eq!(query, Query { stream: true, starting_after: Some(7), page: ItemsPage::default() });
        let page = Query::read(Some("limit=5&order=asc&after=msg_1")).unwrap().page;
        assert_eq!(page, ItemsPage { limit: Some(5), after: Some("msg_1".into()), is_ascending: true });
        assert!(Query::read(Some("order=up")).is_err() && Query::read(Some("limit=all")).is_err());
        assert!(Query::read(Some("starting_after=x")).is_err() && !Query::read(Some("stream=false")).unwrap().stream);
    }
}
