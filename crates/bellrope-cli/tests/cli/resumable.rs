//! `chat --resumable` and `--resume`: an answer that survives the program that asked for it.

use std::{
    io::{BufRead, BufReader, Read, Write},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
};

use rustix::process::Signal;
use serde_json::json;

use crate::{
    provider::{self, Provider},
    support::{Home, PATIENCE, Running, eventually},
};

/// A provider that says words as they are handed to it, and ends when nobody hands it any more. It says whether its reader
/// has gone, as soon as it has a word for it.
pub(crate) fn handed() -> (Provider, mpsc::Sender<String>, Arc<AtomicBool>) {
    let (hand, words) = mpsc::channel::<String>();
    let (words, is_left) = (Mutex::new(words), Arc::<AtomicBool>::default());
    let left = Arc::clone(&is_left);
    let provider = Provider::start(Arc::new(move |_, stream| {
        let words = words.lock().unwrap();
        while let Ok(word) = words.recv_timeout(PATIENCE) {
            let event = json!({"choices": [{"index": 0, "delta": {"content": word}}]});
            if write!(stream, "data: {event}\n\n").is_err() {
                return left.store(true, Ordering::SeqCst);
            }
        }
        provider::say(stream, &json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}).to_string());
        provider::say(stream, "[DONE]");
    }));
    (provider, hand, is_left)
}

/// A chat whose first word has been printed.
pub(crate) fn begun(home: &Home, hand: &mpsc::Sender<String>) -> (Running, BufReader<impl Read + use<>>) {
    let mut chat = Running::start(&mut home.command(["chat", "--resumable", "Tell me"]));
    let mut stdout = BufReader::with_capacity(1, chat.stdout());
    hand.send("one ".to_owned()).unwrap();
    assert_eq!(stdout.fill_buf().unwrap(), b"o");
    (chat, stdout)
}

#[test]
fn a_program_that_is_killed_in_mid_answer_is_started_again_and_has_the_whole_answer_once_and_in_order() {
    let home = Home::new();
    let (provider, hand, _) = handed();
    let _server = provider.serve(&home, &[]);
    let (chat, _stdout) = begun(&home, &hand);
    let said = chat.said("goes on with it");
    let id = said.split("--resume ").nth(1).unwrap().split('`').next().unwrap().to_owned();
    // It has no time to say anything.
    chat.signal(Signal::KILL);
    assert_eq!(chat.finish().code, None);
    let words: Vec<_> = (2..200).map(|number| format!("{number} ")).collect();
    for word in &words[..100] {
        hand.send(word.clone()).unwrap();
    }
    let mut again = Running::start(&mut home.command(["chat", "--resume"]));
    let mut stdout = BufReader::with_capacity(1, again.stdout());
    assert_eq!(stdout.fill_buf().unwrap(), b"o");
    for word in &words[100..] {
        hand.send(word.clone()).unwrap();
    }
    drop(hand);
    let mut whole = String::new();
    stdout.read_to_string(&mut whole).unwrap();
    let expected = format!("one {}\n", words.concat());
    assert_eq!((again.finish().code, &*whole), (Some(0), &*expected));
    // And once more, by its id, after its end.
    assert_eq!(home.run(["chat", "--resume", &id]).succeeded(), expected);
    assert_eq!(provider.asked().len(), 1, "the provider was asked once");
}

#[test]
fn ctrl_c_ends_a_resumable_answer_at_its_provider_too() {
    let home = Home::new();
    let (provider, hand, is_left) = handed();
    let _server = provider.serve(&home, &[]);
    let (chat, mut stdout) = begun(&home, &hand);
    let reading = std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
    chat.signal(Signal::INT);
    assert_eq!(chat.finish().code, Some(130));
    reading.join().unwrap().unwrap();
    let mut last = String::new();
    eventually("the end of the answer", || {
        let finished = home.run(["chat", "--resume"]);
        last = finished.stderr;
        finished.stdout == "one \n" && last.contains("error: cancelled: the answer was cancelled")
    });
    eventually("the end of the provider's stream", || {
        hand.send("more".to_owned()).unwrap();
        is_left.load(Ordering::SeqCst)
    });
}

#[test]
fn an_answer_that_is_not_kept_is_said_to_be_so() {
    let home = Home::new();
    // A server that was started for this has no answer.
    let error = home.run(["chat", "--resume", "0123456789abcdef0123456789abcdef"]).failed(1);
    assert!(error.starts_with("error: the answer cannot be gone on with: no server listens at "), "{error}");
    let server = home.serve::<&str>([]);
    let error = home.run(["chat", "--resume"]).failed(1);
    assert!(error.starts_with("error: no answer was asked for with --resumable: "), "{error}");
    let id = "0123456789abcdef0123456789abcdef";
    let error = home.run(["chat", "--resume", id]).failed(1);
    assert!(error.starts_with("error: unknown_answer: no answer of this id is kept here for you"), "{error}");
    assert!(home.run(["chat", "--resumable", "Who is there?"]).succeeded().ends_with("You asked: Who is there?\n"));
    assert!(home.run(["chat", "--resume"]).succeeded().ends_with("You asked: Who is there?\n"));
    // Not by the next server.
    drop(server);
    let _server = home.serve::<&str>([]);
    let error = home.run(["chat", "--resume"]).failed(1);
    assert!(error.starts_with("error: unknown_answer: "), "{error}");
    let error = home.run(["chat", "--resume", id, "and a question"]).failed(2);
    assert!(error.contains("cannot be used with"), "{error}");
}
