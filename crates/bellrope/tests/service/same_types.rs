//! Types that travel the same though their hashes differ: they are compared whole, and called.

use bellrope::{CallError, Server};
use serde::{Deserialize, Serialize};

echo!(one_type, "postcard", {
    #[derive(Serialize, Deserialize)]
    pub(super) struct Point {
        x: i32,
    }
    pub(super) type Thing = (Point, Point);
});
echo!(two_types, "postcard", {
    #[derive(Serialize, Deserialize)]
    pub(super) struct Point {
        pub(super) x: i32,
    }
    #[derive(Serialize, Deserialize)]
    pub(super) struct Place {
        pub(super) x: i32,
    }
    pub(super) type Thing = (Point, Place);
});

/// What travels is the same, whatever it is called here and there and however the hash counts it.
#[test]
fn a_type_that_became_two_of_its_form_is_called_as_before() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("private").join("echo.sock");
    let _server = Server::builder().service(one_type::Host).bind(&path).unwrap();
    let client = two_types::EchoBlockingClient::connect(&path).unwrap();
    for _ in 0..2 {
        let (point, place) = client.echo((two_types::Point { x: 1 }, two_types::Place { x: 2 }), vec![]).unwrap();
        assert_eq!((point.x, place.x), (1, 2));
    }
}

/// A server of another version may list the same types in another order, or count them by another hash.
#[test]
fn a_server_that_counts_the_same_types_by_another_hash_is_called() {
    use bellrope::service::{Form, Schema, Shape, Type};

    #[bellrope::service(codec = "postcard")]
    trait Pairs {
        fn swap(&self, pair: Pair) -> Pair;
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Left {
        a: u8,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Right {
        b: String,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Pair {
        left: Left,
        right: Right,
    }
    let field = |name: &str, shape| (name.to_owned(), shape);
    let typed = |fields| Type { name: "Other".to_owned(), form: Form::Struct(fields) };
    let with = |left: Shape| Schema {
        codec: "postcard".to_owned(),
        request: Shape::Type(3),
        answer: Shape::Type(2),
        sent: Shape::Unit,
        types: vec![
            typed(vec![field("b", Shape::Text)]),
            typed(vec![field("a", left)]),
            typed(vec![field("left", Shape::Type(1)), field("right", Shape::Type(0))]),
            typed(vec![field("pair", Shape::Type(2))]),
        ],
    };
    let serve = |schema: Schema| {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("private").join("pairs.sock");
        let builder = Server::builder().unary("Pairs.swap", |call, reply| {
            reply.put(call.payload());
            Ok(())
        });
        (builder.schema("Pairs.swap", schema).bind(&path).unwrap(), path, home)
    };
    let pair = || Pair { left: Left { a: 5 }, right: Right { b: "x".to_owned() } };
    let (_server, path, _home) = serve(with(Shape::Integer { signed: false, bits: 8 }));
    let client = PairsBlockingClient::connect(&path).unwrap();
    for _ in 0..2 {
        assert_eq!(client.swap(pair()).unwrap(), pair());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let swapped = runtime.block_on(async { PairsClient::connect(&path).await.unwrap().swap(pair()).await });
    assert_eq!(swapped.unwrap(), pair());
    let (_other, path, _home) = serve(with(Shape::Bool));
    let error = PairsBlockingClient::connect(&path).unwrap().swap(pair()).unwrap_err();
    let Some(CallError::Incompatible { differences, .. }) = error.call_error() else { panic!("{error}") };
    assert!(differences.starts_with("arguments.pair.left.a is u8 here and a bool there"), "{differences}");
}
