//! Both codecs: how deep a value may be, and what a hostile one does to a service and to a client.

use std::fmt::Debug;

use bellrope::{
    CallError, Client, Server,
    service::{Codec, Incoming, Json, Postcard, ServiceError},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::codecs::{there_and_back, written};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Tree(Vec<Tree>);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Chain {
    End,
    Link(Box<Chain>),
    Named { next: Box<Chain> },
    Pair(Box<Chain>, u8),
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Maybe(Option<Box<Maybe>>);

fn nested<T>(depth: usize, innermost: T, around: impl Fn(T) -> T) -> T {
    (0..depth).fold(innermost, |inner, _| around(inner))
}

/// Whatever is not too deep to be written is not too deep to be read, and the other way round.
#[test]
fn depth_is_bounded_where_it_is_written_and_where_it_is_read() {
    fn bounded<C: Codec, T: Serialize + DeserializeOwned + PartialEq + Debug>(make: impl Fn(usize) -> T) {
        let deepest = (0..400).take_while(|depth| written::<C>(&make(*depth)).is_ok()).count();
        assert!((20..399).contains(&deepest), "{}: {deepest}", C::NAME);
        there_and_back::<C, T>(&make(deepest - 1));
        let error = written::<C>(&make(deepest)).unwrap_err();
        assert!(error.to_string().contains("nests deeper than"), "{error}");
    }
    bounded::<Json, _>(|depth| nested(depth, Tree(Vec::new()), |inner| Tree(vec![inner])));
    bounded::<Postcard, _>(|depth| nested(depth, Tree(Vec::new()), |inner| Tree(vec![inner])));
    for around in [
        (|inner| Chain::Link(Box::new(inner))) as fn(Chain) -> Chain,
        |inner| Chain::Named { next: Box::new(inner) },
        |inner| Chain::Pair(Box::new(inner), 1),
    ] {
        bounded::<Json, _>(|depth| nested(depth, Chain::End, around));
        bounded::<Postcard, _>(|depth| nested(depth, Chain::End, around));
    }
    bounded::<Postcard, _>(|depth| nested(depth, Maybe(None), |inner| Maybe(Some(Box::new(inner)))));

    // What a peer may send: deep without end.
    let deep = |byte: u8| vec![byte; 200_000];
    for error in [
        Postcard::decode::<Tree>(&deep(1)).unwrap_err(),
        Postcard::decode::<Chain>(&deep(1)).unwrap_err(),
        Postcard::decode::<Chain>(&deep(2)).unwrap_err(),
        Postcard::decode::<Maybe>(&deep(1)).unwrap_err(),
    ] {
        assert!(error.fault().contains("nests deeper than 128"), "{error}");
        assert!(error.place().len() < 2_000);
    }
    assert!(Json::decode::<Tree>(&deep(b'[')).unwrap_err().fault().contains("recursion limit"));
    assert!(Json::decode::<Chain>(&b"{\"Link\":".repeat(20_000)).unwrap_err().fault().contains("recursion limit"));
    // Of what is ignored no depth is an error, and none is followed.
    #[derive(Debug, Deserialize)]
    struct Known {
        #[expect(dead_code, reason = "it is read")]
        known: u8,
    }
    let mut ignored = b"{\"unknown\":".to_vec();
    ignored.extend(b"[".repeat(100_000));
    ignored.extend(b"]".repeat(100_000));
    ignored.extend(b",\"known\":300}");
    let error = Json::decode::<Known>(&ignored).unwrap_err();
    assert!(error.fault().contains("300"), "{error}");
}

macro_rules! deep {
    ($module:ident, $codec:literal) => {
        mod $module {
            use super::*;

            #[bellrope::service(codec = $codec)]
            pub(super) trait Deep {
                fn worker(&self, trees: Tree, by_text: Vec<(String, u8)>) -> Tree;
                #[blocking]
                fn slowly(&self, trees: Tree, by_text: Vec<(String, u8)>) -> Tree;
                async fn waits(&self, trees: Tree, by_text: Vec<(String, u8)>) -> Tree;
                async fn taken(&self, trees: Incoming<Tree>) -> u8;
            }

            pub(super) struct Pit;

            #[bellrope::service]
            impl Deep for Pit {
                fn worker(&self, trees: Tree, _by_text: Vec<(String, u8)>) -> Tree {
                    trees
                }

                fn slowly(&self, trees: Tree, _by_text: Vec<(String, u8)>) -> Tree {
                    trees
                }

                async fn waits(&self, trees: Tree, _by_text: Vec<(String, u8)>) -> Tree {
                    trees
                }

                async fn taken(&self, mut trees: Incoming<Tree>) -> u8 {
                    let mut count = 0;
                    while trees.next().await.is_some() {
                        count += 1;
                    }
                    count
                }
            }
        }
    };
}

deep!(json, "json");
deep!(postcard, "postcard");

/// Payloads that no honest client writes, and what must be said of each.
fn hostile(codec: &str) -> Vec<(Vec<u8>, &'static str)> {
    let json = |text: String, fault| (text.into_bytes(), fault);
    if codec == "json" {
        return vec![
            json(format!("{{\"trees\":{}", "[".repeat(200_000)), "trees[0][0]"),
            json(format!("{{\"trees\":{}{},\"by_text\":[]}}", "[".repeat(500), "]".repeat(500)), "recursion limit"),
            json("{\"trees\":[],\"by_text\":[[\"a\",999]]}".to_owned(), "by_text[0][1]: "),
            json("{\"trees\":[],\"by_text\":[[\"\\ud800\",1]]}".to_owned(), "by_text[0][0]: "),
            json("{\"trees\":[],\"trees\":[],\"by_text\":[]}".to_owned(), "duplicate field `trees`"),
            (b"\xFF\xFE\x00".to_vec(), "the arguments cannot be read: "),
            (vec![0; 100_000], "the arguments cannot be read: "),
            (Vec::new(), "the arguments cannot be read: "),
        ];
    }
    vec![
        (vec![1; 200_000], "trees[0][0]"),
        (b"\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01".to_vec(), "trees: "),
        (b"\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF".to_vec(), "trees: "),
        (b"\x00\xFF\xFF\xFF\xFF\x0F".to_vec(), "by_text: "),
        (b"\x00\x01\xFF\xFF\xFF\xFF\x0F".to_vec(), "by_text[0][0]: "),
        (b"\x00\x01\x02\xC3\x28\x01".to_vec(), "by_text[0][0]: "),
        (b"\x00\x00\x00".to_vec(), "1 bytes follow"),
        (Vec::new(), "trees: "),
    ]
}

/// Every style answers with an error that names method and place, at once, and goes on serving.
#[test]
fn hostile_arguments_are_refused_with_method_and_place_in_every_style_and_the_next_call_goes() {
    let home = tempfile::tempdir().unwrap();
    let good: [&[u8]; 2] = [b"{\"trees\":[[]],\"by_text\":[]}", b"\x01\x00\x00"];
    for (codec, good) in ["json", "postcard"].into_iter().zip(good) {
        let path = home.path().join(codec).join("deep.sock");
        let builder = Server::builder();
        let builder = if codec == "json" { builder.service(json::Pit) } else { builder.service(postcard::Pit) };
        let _server = builder.bind(&path).unwrap();
        let client = Client::connect(&path).unwrap();
        for (payload, fault) in hostile(codec) {
            for method in ["Deep.worker", "Deep.slowly", "Deep.waits"] {
                let error = client.call(method, &payload).unwrap_err();
                let CallError::InvalidRequest { text } = error else { panic!("{codec} {method}: {error}") };
                let named = format!("{method}: the arguments cannot be read: ");
                assert!(text.starts_with(&named) && text.contains(fault), "{codec}: {text}\n{fault}");
                assert!(text.len() < 4_096, "what is said is bounded: {} bytes", text.len());
                assert!(client.call(method, good).is_ok(), "the next call goes");
            }
        }
        let (begin, item): (&[u8], _) = if codec == "json" { (b"{}", b'[') } else { (b"", 1) };
        let mut upload = client.client_stream("Deep.taken", begin).unwrap();
        let _ = upload.send(&[item; 20_000]).unwrap();
        let error = upload.finish().unwrap_err();
        let CallError::InvalidRequest { text } = error else { panic!("{codec}: {error}") };
        assert!(text.starts_with("Deep.taken: item 0 of the stream cannot be read: "), "{text}");
    }
}

/// A server may be hostile, too: its answer is an error of the call, and not of the client.
#[test]
fn hostile_answers_are_unreadable_and_name_the_method() {
    let home = tempfile::tempdir().unwrap();
    for codec in ["json", "postcard"] {
        let path = home.path().join(codec).join("deep.sock");
        let answers =
            [vec![if codec == "json" { b'[' } else { 1 }; 200_000], b"\xFF\xFF\xFF\xFF\x0F".to_vec(), Vec::new()];
        let (sent, turn) = (answers.clone(), std::sync::atomic::AtomicUsize::new(0));
        let server = Server::builder()
            .unary("Deep.worker", move |_, reply| {
                reply.put(&sent[turn.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % sent.len()]);
                Ok(())
            })
            .bind(&path)
            .unwrap();
        for _ in &answers {
            let tree = || Tree(Vec::new());
            let error: ServiceError<_> = match codec {
                "json" => json::DeepBlockingClient::connect(&path).unwrap().worker(tree(), Vec::new()).unwrap_err(),
                _ => postcard::DeepBlockingClient::connect(&path).unwrap().worker(tree(), Vec::new()).unwrap_err(),
            };
            let unreadable = matches!(error.call_error(), Some(CallError::Unreadable { method: "Deep.worker", .. }));
            assert!(unreadable, "{codec}: {error}");
        }
        server.shutdown();
    }
}

/// serde looks at all of an untagged, tagged or flattened value before it chooses, and says no place then.
#[test]
fn an_argument_that_is_looked_at_before_it_is_read_is_named() {
    use serde::{Deserialize, Serialize};

    #[derive(Debug, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Id {
        Number(u8),
        Text(String),
    }
    #[derive(Debug, Serialize, Deserialize)]
    #[serde(tag = "type")]
    enum Event {
        Big { n: u8 },
    }
    #[derive(Debug, Serialize, Deserialize)]
    struct Flat {
        a: u8,
        #[serde(flatten)]
        rest: std::collections::BTreeMap<String, u8>,
    }
    #[derive(Debug, Serialize, Deserialize)]
    #[serde(try_from = "u8", into = "u8")]
    #[derive(Clone)]
    struct Even(u8);
    impl TryFrom<u8> for Even {
        type Error = &'static str;
        fn try_from(number: u8) -> Result<Self, &'static str> {
            if number % 2 == 0 { Ok(Self(number)) } else { Err("it is odd") }
        }
    }
    impl From<Even> for u8 {
        fn from(even: Even) -> Self {
            even.0
        }
    }
    #[bellrope::service]
    trait Named {
        fn all(&self, id: Id, event: Event, flat: Flat, even: Even, last: u8) -> u8;
    }
    struct Host;
    #[bellrope::service]
    impl Named for Host {
        fn all(&self, _id: Id, _event: Event, _flat: Flat, _even: Even, last: u8) -> u8 {
            last
        }
    }

    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("private").join("named.sock");
    let _server = Server::builder().service(Host).bind(&path).unwrap();
    let raw = Client::connect(&path).unwrap();
    let right = [r#""id":1"#, r#""event":{"type":"Big","n":1}"#, r#""flat":{"a":1}"#, r#""even":2"#, r#""last":9"#];
    let call = |parts: &[&str]| raw.call("Named.all", format!("{{{}}}", parts.join(",")).as_bytes());
    assert_eq!(call(&right).unwrap(), b"9");
    let wrong = [
        r#""id":[1,{"x":2}]"#,
        r#""event":{"type":"Big","n":{"x":300}}"#,
        r#""flat":{"a":1,"b":"x"}"#,
        r#""even":3"#,
        r#""last":{}"#,
    ];
    for (at, (name, wrong)) in ["id", "event", "flat", "even", "last"].into_iter().zip(wrong).enumerate() {
        let mut parts = right;
        parts[at] = wrong;
        // Where it stands among the others makes no difference.
        for turn in 0..parts.len() {
            let mut turned = parts;
            turned.rotate_left(turn);
            let error = call(&turned).unwrap_err().to_string();
            assert!(error.contains(&format!("Named.all: the arguments cannot be read: {name}")), "{turned:?}: {error}");
        }
    }
    let error = call(&right[..4]).unwrap_err().to_string();
    assert!(error.contains("Named.all: the arguments cannot be read: missing field `last`"), "{error}");
}

/// Without optimization a level of such a type takes some 40 KiB of the stack, and there are 128.
#[test]
fn large_types_nest_as_deep_as_any_on_every_thread_that_runs_handlers() {
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    struct Wide {
        a: [u64; 32],
        b: [u64; 32],
        c: [[u64; 32]; 10],
        next: Vec<Wide>,
    }
    #[bellrope::service(codec = "postcard")]
    trait Wides {
        fn worker(&self, wide: Wide) -> u64;
        #[blocking]
        fn blocking(&self, wide: Wide) -> u64;
        async fn asynchronous(&self, wide: Wide) -> u64;
    }
    struct Host;
    fn depth(wide: &Wide) -> u64 {
        let Wide { a, b, c, next } = wide;
        1 + a[0] + b[0] + c[0][0] + next.first().map_or(0, depth)
    }
    #[bellrope::service]
    impl Wides for Host {
        fn worker(&self, wide: Wide) -> u64 {
            depth(&wide)
        }
        fn blocking(&self, wide: Wide) -> u64 {
            depth(&wide)
        }
        async fn asynchronous(&self, wide: Wide) -> u64 {
            depth(&wide)
        }
    }

    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("private").join("wides.sock");
    let _server = Server::builder().service(Host).bind(&path).unwrap();
    let raw = Client::connect(&path).unwrap();
    let level = |more: u8| [0; 32 * 12].into_iter().chain([more]);
    for method in ["Wides.worker", "Wides.blocking", "Wides.asynchronous"] {
        let mut deepest = 0;
        for depth in 1..=128 {
            let bytes: Vec<u8> = (1..depth).flat_map(|_| level(1)).chain(level(0)).collect();
            match raw.call(method, &bytes) {
                Ok(answer) => deepest = answer[0],
                Err(error) => assert!(error.to_string().contains("it nests deeper than 128"), "{error}"),
            }
        }
        assert!(deepest > 40, "{method}: {deepest}");
    }
}

/// Lists in lists whose elements take no bytes would cost the square of the bytes that claim them.
#[test]
fn lists_of_what_takes_no_bytes_are_refused_where_they_are_read() {
    let mut hostile = vec![0x80, 0x08];
    hostile.extend([0x80, 0x08].repeat(1024));
    let error = Postcard::decode::<Vec<Vec<()>>>(&hostile).unwrap_err().to_string();
    assert_eq!(error, "[0][0]: a list of elements that take no bytes cannot travel as postcard");
    assert!(Postcard::decode::<std::collections::BTreeMap<(), u8>>(&[2, 1, 1]).is_err());
    assert_eq!(Postcard::decode::<Vec<Vec<()>>>(&[2, 0, 0]).unwrap().len(), 2);
}
