use std::time::Duration;

use futures_util::stream;
use tokio::sync::mpsc;
use tokio::time::{advance, sleep};

use super::*;
use crate::message::StopReason;

const US: Owner = Owner::User(7);

fn answers(keep_bytes: u64) -> KeptAnswers {
    KeptAnswers::new(AnswerSettings { keep: Duration::from_secs(60), keep_bytes })
}

fn begin(answers: &KeptAnswers, goes_on_unread: bool) -> KeptAnswer {
    answers.begin(KeptAnswers::new_id().unwrap(), US, goes_on_unread, None, 0).unwrap()
}

/// A stream that says what is sent to it, and whose end is seen at the sender.
fn provider() -> (mpsc::UnboundedSender<Chunk>, impl Stream<Item = Chunk> + Send + 'static) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (sender, stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver))))
}

fn done() -> Chunk {
    Chunk::Done { stop_reason: StopReason::EndTurn }
}

async fn piece(reader: &mut AnswerReader) -> SequencedChunk {
    serde_json::from_slice(&reader.next().await.unwrap().unwrap()).unwrap()
}

/// The texts of what is left to read.
async fn rest(mut reader: AnswerReader) -> Vec<String> {
    let mut texts = Vec::new();
    while let Some(piece) = reader.next().await.unwrap() {
        match serde_json::from_slice::<SequencedChunk>(&piece).unwrap().chunk {
            Chunk::Text { text } => texts.push(text),
            Chunk::Error(info) => texts.push(info.code),
            _ => {}
        }
    }
    texts
}

async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_reader_has_the_answer_and_the_first_hears_so() {
    let answer = begin(&answers(1 << 20), false);
    let (say, pieces) = provider();
    let mut first = answer.read(0).unwrap();
    answer.clone().pull(pieces);
    say.send(Chunk::text("a")).unwrap();
    assert_eq!(piece(&mut first).await, SequencedChunk { seq: 0, chunk: Chunk::text("a") });
    let second = answer.read(0).unwrap();
    assert_eq!(first.next().await, Err(ProviderError::Superseded));
    // What the first one does then changes nothing.
    first.cancel();
    drop(first);
    say.send(done()).unwrap();
    assert_eq!(rest(second).await, ["a"]);
    // And again, after the end.
    assert_eq!(rest(answer.read(0).unwrap()).await, ["a"]);
    let mut last = answer.read(1).unwrap();
    assert_eq!(piece(&mut last).await.chunk, done());
    assert_eq!(last.next().await, Ok(None));
    let error = answer.read(2).unwrap_err().to_string();
    assert_eq!(error, "the answer is over; number 1 was its last piece");
}

#[tokio::test(start_paused = true)]
async fn what_nobody_reads_is_kept_for_its_time_and_its_stream_goes_with_it() {
    let answers = answers(1 << 20);
    let answer = begin(&answers, false);
    let (say, pieces) = provider();
    let reader = answer.read(0).unwrap();
    answer.clone().pull(pieces);
    settle().await;
    advance(Duration::from_secs(600)).await;
    settle().await;
    assert!(!say.is_closed(), "it has a reader");
    drop(reader);
    settle().await;
    advance(Duration::from_secs(59)).await;
    settle().await;
    assert!(!say.is_closed());
    drop(answers.find(&answer.id(), &US).unwrap().read(0).unwrap());
    settle().await;
    advance(Duration::from_secs(59)).await;
    settle().await;
    assert!(!say.is_closed(), "the last reader counts");
    advance(Duration::from_secs(2)).await;
    settle().await;
    assert!(say.is_closed());
    assert_eq!(answers.find(&answer.id(), &US).unwrap_err(), ProviderError::UnknownAnswer);
    assert_eq!((answers.size(), answer.read(0).unwrap_err()), ((0, 0), ProviderError::UnknownAnswer));
}

#[tokio::test(start_paused = true)]
async fn one_that_goes_on_unread_is_kept_for_its_time_after_its_end() {
    let answers = answers(1 << 20);
    let answer = begin(&answers, true);
    let (say, pieces) = provider();
    answer.clone().pull(pieces);
    settle().await;
    advance(Duration::from_secs(6000)).await;
    settle().await;
    say.send(Chunk::text("a")).unwrap();
    say.send(done()).unwrap();
    settle().await;
    advance(Duration::from_secs(59)).await;
    settle().await;
    assert_eq!(rest(answer.read(0).unwrap()).await, ["a"]);
    settle().await;
    advance(Duration::from_secs(61)).await;
    settle().await;
    assert_eq!(answers.size(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_answer_drops_its_stream_at_once_and_says_so() {
    let answer = begin(&answers(1 << 20), false);
    let (say, pieces) = provider();
    let reader = answer.read(0).unwrap();
    answer.clone().pull(pieces);
    say.send(Chunk::text("a")).unwrap();
    settle().await;
    assert!(answer.cancel() && !answer.cancel());
    settle().await;
    assert!(say.is_closed() && answer.is_over());
    assert_eq!(rest(reader).await, ["a", "cancelled"]);
    assert_eq!(rest(answer.read(0).unwrap()).await, ["a", "cancelled"]);
    assert!(!answer.cancel(), "it is over");
}

#[tokio::test(start_paused = true)]
async fn one_that_is_cut_says_so_to_every_reader() {
    let answer = begin(&answers(1 << 20), false);
    let (say, pieces) = provider();
    answer.clone().pull(pieces);
    say.send(Chunk::text("a")).unwrap();
    drop(say);
    for _ in 0..2 {
        assert_eq!(rest(answer.read(0).unwrap()).await, ["a", "truncated"]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_belongs_to_whoever_asked() {
    let answers = answers(1 << 20);
    let answer = begin(&answers, false);
    assert!(answers.find(&answer.id(), &US).is_ok());
    for stranger in [Owner::User(8), Owner::Token(7)] {
        assert_eq!(answers.find(&answer.id(), &stranger).unwrap_err(), ProviderError::UnknownAnswer);
    }
    let id = answer.id();
    for id in ["", "x", &id[1..], &format!("{id}0"), &"é".repeat(16), &format!("+{}", &id[1..])] {
        assert_eq!(answers.find(id, &US).unwrap_err(), ProviderError::UnknownAnswer, "{id}");
    }
    assert!(answer.remove() && !answer.remove());
    assert_eq!(answers.find(&answer.id(), &US).unwrap_err(), ProviderError::UnknownAnswer);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_is_full_makes_its_provider_wait_for_the_reader() {
    let answers = answers(256 * 1024);
    let answer = begin(&answers, false);
    let (say, pieces) = provider();
    let mut reader = answer.read(0).unwrap();
    answer.clone().pull(pieces);
    for number in 0..300 {
        say.send(Chunk::text(format!("{number:0>1000}"))).unwrap();
    }
    say.send(done()).unwrap();
    settle().await;
    let (_, full) = answers.size();
    assert!(full <= 64 * 1024 && full > 60 * 1024, "{full}");
    // All of it comes nevertheless, in order; the beginning is forgotten.
    for number in 0..300 {
        assert_eq!(piece(&mut reader).await.chunk, Chunk::text(format!("{number:0>1000}")));
        settle().await;
        assert!(answers.size().1 <= 64 * 1024);
    }
    assert_eq!(piece(&mut reader).await.chunk, done());
    let error = answer.read(0).unwrap_err();
    assert_eq!(error.code(), "not_resumable");
    assert!(error.to_string().contains("are no longer kept"), "{error}");
    assert_eq!(rest(answer.read(299).unwrap()).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn one_that_goes_on_unread_forgets_its_beginning_and_never_waits() {
    let answers = answers(256 * 1024);
    let answer = begin(&answers, true);
    let (say, pieces) = provider();
    let mut slow = answer.read(0).unwrap();
    answer.clone().pull(pieces);
    for _ in 0..300 {
        say.send(Chunk::text("x".repeat(1000))).unwrap();
    }
    say.send(done()).unwrap();
    settle().await;
    sleep(Duration::from_secs(1)).await;
    assert!(answer.is_over() && answers.size().1 <= 64 * 1024 + 200);
    assert_eq!(slow.next().await.unwrap_err().code(), "not_resumable");
}

#[tokio::test(start_paused = true)]
async fn answers_that_are_over_make_room_and_those_under_way_never_do() {
    let answers = answers(256 * 1024);
    let mut over = Vec::new();
    for _ in 0..3 {
        over.push(answers.begin(KeptAnswers::new_id().unwrap(), US, false, None, 80_000).unwrap());
        over.last().cloned().unwrap().keep();
        advance(Duration::from_secs(1)).await;
    }
    settle().await;
    let fourth = answers.begin(KeptAnswers::new_id().unwrap(), US, false, None, 80_000).unwrap();
    assert!(over[0].read(0).unwrap_err() == ProviderError::UnknownAnswer && answers.find(&over[1].id(), &US).is_ok());
    let (_fifth, _sixth) = (begin(&answers, false), begin(&answers, false));
    assert!(fourth.hold(100_000) && !fourth.hold(200_000) && fourth.hold(10));
    let busy: Vec<_> =
        std::iter::from_fn(|| answers.begin(KeptAnswers::new_id().unwrap(), US, false, None, 80_000).ok())
            .take(100)
            .collect();
    assert!(busy.len() < 4 && answers.size().1 <= 256 * 1024);
    let many: Vec<_> = std::iter::from_fn(|| answers.begin(KeptAnswers::new_id().unwrap(), US, false, None, 0).ok())
        .take(1000)
        .collect();
    assert!(answers.size().0 <= MAX_KEPT && many.len() < MAX_KEPT);
    let too_large = answers.begin(0, US, false, None, 200_000).unwrap_err();
    assert!(too_large.to_string().contains("too large"), "{too_large}");
    answers.change(AnswerSettings { keep_bytes: 0, ..AnswerSettings::default() });
    let none = answers.begin(0, US, false, None, 0).unwrap_err();
    assert!(none.to_string().contains("gateway.answers.keep_bytes is 0"), "{none}");
}

#[test]
fn settings_out_of_range_are_named() {
    for (json, words) in [
        (r#"{"keep_s":0}"#, "gateway.answers.keep_s is 0; set it to 1 to 86400"),
        (
            r#"{"keep_bytes":5}"#,
            "gateway.answers.keep_bytes is 5; set it to 262144 to 4294967296, or to 0 to keep none",
        ),
    ] {
        let settings: AnswerSettings = serde_json::from_str(json).unwrap();
        assert_eq!(settings.check().unwrap_err().to_string(), words);
    }
    for fine in [r"{}", r#"{"keep_bytes":0}"#, r#"{"keep_s":86400,"keep_bytes":262144}"#] {
        serde_json::from_str::<AnswerSettings>(fine).unwrap().check().unwrap();
    }
}

// Fault 62.
#[tokio::test(start_paused = true)]
async fn one_owner_keeps_others_neither_from_beginning_nor_from_what_they_have() {
    let answers = answers(8 << 20);
    let other = Owner::Token(1);
    let begin_of = |owner| answers.begin(KeptAnswers::new_id().unwrap(), owner, true, None, 0);
    let theirs = begin_of(other).unwrap();
    theirs.clone().keep();
    advance(Duration::from_millis(1)).await;
    let under_way: Vec<_> = (0..MAX_UNDER_WAY).map(|_| begin_of(US).unwrap()).collect();
    let refused = begin_of(US).unwrap_err().to_string();
    assert_eq!((MAX_UNDER_WAY, refused.contains("as many under way as one may have, 128")), (128, true), "{refused}");
    for _ in 0..3 {
        begin_of(other).unwrap();
    }
    // Those of others that are over are older than any of these.
    for answer in under_way {
        answer.keep();
    }
    for _ in 0..2 * MAX_KEPT {
        begin_of(US).unwrap().keep();
    }
    assert_eq!(answers.size().0, MAX_KEPT);
    assert!(answers.find(&theirs.id(), &other).is_ok(), "of whoever has most the oldest goes");
}

// Fault 59.
#[tokio::test(start_paused = true)]
async fn however_many_owners_have_all_that_they_may_there_is_room_for_one_more() {
    let answers = answers(64 << 20);
    let begin_of = |owner| answers.begin(KeptAnswers::new_id().unwrap(), owner, true, None, 0);
    let mut had = Vec::new();
    for owner in 0..6 {
        let all: Vec<_> = std::iter::from_fn(|| begin_of(Owner::Token(owner)).ok()).collect();
        had.push(all.len());
        // They stay under way.
        std::mem::forget(all);
    }
    assert_eq!(had, [128, 64, 32, 16, 8, 4]);
    begin_of(US).unwrap();
}
