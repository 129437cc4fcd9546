//! What is refused when a service is served, since no call of it could be right.

use bellrope::{
    Server,
    service::{Codec, CodecError, Incoming, Json, Stream, produce},
};

/// The error of a server with this service.
fn refused(service: impl bellrope::service::Service) -> String {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("private").join("refused.sock");
    Server::builder().service(service).bind(&path).unwrap_err().to_string()
}

#[test]
fn items_that_take_no_bytes_are_refused_when_the_service_is_served() {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Tick;

    #[bellrope::service(codec = "postcard")]
    trait Takes {
        async fn takes(&self, ticks: Incoming<Tick>) -> u8;
    }
    #[bellrope::service(codec = "postcard")]
    trait Gives {
        fn gives(&self) -> impl Stream<Item = ((), Tick)>;
    }
    #[bellrope::service]
    trait AsJson {
        fn both(&self, ticks: Incoming<Tick>) -> impl Stream<Item = ()>;
    }
    #[bellrope::service(codec = "postcard")]
    trait Others {
        fn none(&self) -> ();
        async fn numbers(&self, numbers: Incoming<u8>) -> Tick;
        fn results(&self) -> impl Stream<Item = Result<(), Tick>>;
    }
    struct Host;
    #[bellrope::service]
    impl Takes for Host {
        async fn takes(&self, _: Incoming<Tick>) -> u8 {
            0
        }
    }
    struct Giver;
    #[bellrope::service]
    impl Gives for Giver {
        fn gives(&self) -> impl Stream<Item = ((), Tick)> {
            produce(async |_| {})
        }
    }
    struct Names;
    #[bellrope::service]
    impl AsJson for Names {
        fn both(&self, _: Incoming<Tick>) -> impl Stream<Item = ()> {
            produce(async |_| {})
        }
    }
    struct Fine;
    #[bellrope::service]
    impl Others for Fine {
        fn none(&self) {}
        async fn numbers(&self, _: Incoming<u8>) -> Tick {
            Tick
        }
        fn results(&self) -> impl Stream<Item = Result<(), Tick>> {
            produce(async |_| {})
        }
    }
    let error = refused(Host);
    assert!(error.contains("Takes.takes") && error.contains("stream from the caller take no bytes"), "{error}");
    let error = refused(Giver);
    assert!(error.contains("Gives.gives") && error.contains("that it answers with take no bytes"), "{error}");
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("private").join("fine.sock");
    drop(Server::builder().service(Names).service(Fine).bind(&path).unwrap());
}

/// With the number of JSON a client of JSON would call it, and fail at the bytes.
#[test]
fn a_codec_of_ones_own_with_the_number_of_another_is_refused_when_it_is_served() {
    macro_rules! numbered {
        ($module:ident, $number:literal) => {
            mod $module {
                use super::*;

                pub(super) struct Own;

                impl Codec for Own {
                    const NAME: &'static str = "own";
                    const NUMBER: u8 = $number;
                    const NAMED: bool = true;

                    fn encode<T: serde::Serialize + ?Sized>(
                        value: &T,
                        to: impl std::io::Write,
                    ) -> Result<(), CodecError> {
                        Json::encode(value, to)
                    }

                    fn decode<'a, T: serde::Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, CodecError> {
                        Json::decode(bytes)
                    }
                }

                #[bellrope::service(codec = "Own")]
                trait Numbers {
                    fn one(&self) -> u8;
                }
                pub(super) struct Host;
                #[bellrope::service]
                impl Numbers for Host {
                    fn one(&self) -> u8 {
                        1
                    }
                }
            }
        };
    }
    numbered!(unmarked, 0);
    numbered!(as_json, 1);
    numbered!(as_postcard, 2);
    numbered!(kept, 127);
    numbered!(own, 128);
    for error in [refused(unmarked::Host), refused(as_json::Host), refused(as_postcard::Host), refused(kept::Host)] {
        assert!(error.contains("Numbers.one") && error.contains("one of 128 to 255"), "{error}");
    }
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("private").join("own.sock");
    drop(Server::builder().service(own::Host).bind(&path).unwrap());
}

#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Id(String);

impl TryFrom<String> for Id {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, &'static str> {
        if text.starts_with("id-") { Ok(Self(text)) } else { Err("an id begins with id-") }
    }
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        id.0
    }
}

#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "i64", into = "i64")]
struct Cold(i64);

impl TryFrom<i64> for Cold {
    type Error = &'static str;
    fn try_from(degrees: i64) -> Result<Self, &'static str> {
        if degrees < -40 { Ok(Self(degrees)) } else { Err("it is warmer") }
    }
}

impl From<Cold> for i64 {
    fn from(cold: Cold) -> Self {
        cold.0
    }
}

#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Pair(Id, Cold, u8);

#[derive(serde::Serialize, serde::Deserialize)]
struct Lossy {
    #[serde(skip_serializing)]
    _secret: u8,
    id: Id,
}

/// What nobody could guess is tried with values that the author names: what is behind them in a tuple is known then, and what is
/// only read or only written is found.
#[test]
fn values_that_the_author_names_are_tried() {
    macro_rules! services {
        ($module:ident, $($option:tt)*) => {
            mod $module {
                use super::*;

                #[bellrope::service(codec = "postcard" $($option)*)]
                pub(super) trait Pairs {
                    fn same(&self, pair: Pair) -> Pair;
                }
                #[bellrope::service(codec = "postcard" $($option)*)]
                trait Lost {
                    fn take(&self, lossy: Lossy);
                }
                pub(super) struct Same;
                #[bellrope::service]
                impl Pairs for Same {
                    fn same(&self, pair: Pair) -> Pair {
                        pair
                    }
                }
                pub(super) struct Takes;
                #[bellrope::service]
                impl Lost for Takes {
                    fn take(&self, _lossy: Lossy) {}
                }
                // Some are not served.
                const _: Takes = Takes;
                pub(super) fn pair() -> Pair {
                    Pair(Id("id-7".to_owned()), Cold(-273), 9)
                }
            }
        };
    }
    services!(guessed,);
    services!(named, , samples("id-1", "-50"));
    let error = refused(guessed::Same);
    assert!(error.contains("Pair.1 is never read") && error.contains("samples("), "{error}");
    let error = refused(named::Takes);
    assert!(error.contains("lossy: the field Lossy._secret is read and never written"), "{error}");
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("private").join("pairs.sock");
    let _server = Server::builder().service(named::Same).bind(&path).unwrap();
    let client = named::PairsBlockingClient::connect(&path).unwrap();
    assert_eq!(client.same(named::pair()).unwrap(), named::pair());
    drop(guessed::pair());
}
