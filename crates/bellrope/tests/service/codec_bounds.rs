//! Both codecs: how deep a value may be.

use std::fmt::Debug;

use bellrope::service::{Codec, Json, Postcard};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::codecs::{there_and_back, written};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Tree(Vec<Tree>);

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
