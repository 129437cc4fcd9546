//! However a trait is written that the compiler takes, it is the same service.

use std::borrow::Cow;

use bellrope::{
    Server,
    service::{Incoming, Stream, produce},
};

/// Types that come through a `macro_rules!` are in groups that nobody sees.
macro_rules! made {
    ($name:ident, $argument:ty, $lent:ty, $answer:ty, $items:ty, $item:ty) => {
        #[bellrope::service]
        trait $name {
            fn go(&self, words: $argument, why: $lent) -> $answer;
            async fn sum(&self, numbers: $items) -> u64;
            fn each(&self) -> impl Stream<Item = $item>;
        }
    };
}

made!(Made, Vec<String>, &str, Result<u8, String>, Incoming<u8>, Result<u8, String>);

struct Any;

#[bellrope::service]
impl Made for Any {
    fn go(&self, words: Vec<String>, why: &str) -> Result<u8, String> {
        u8::try_from(words.len()).ok().filter(|count| *count > 0).ok_or_else(|| why.to_owned())
    }

    async fn sum(&self, mut numbers: Incoming<u8>) -> u64 {
        let mut sum = 0;
        while let Some(number) = numbers.next().await {
            sum += u64::from(number);
        }
        sum
    }

    fn each(&self) -> impl Stream<Item = Result<u8, String>> {
        produce(async |items| items.send(Err("none".to_owned())).await)
    }
}

#[test]
fn a_trait_that_a_macro_makes_is_the_service_that_it_looks_like() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("private").join("made.sock");
    let _server = Server::builder().service(Any).bind(&path).unwrap();
    let made = MadeBlockingClient::connect(&path).unwrap();
    assert_eq!(made.go(vec![String::new()], "none").unwrap(), 1);
    assert_eq!(made.go(Vec::new(), "none").unwrap_err().application().as_deref(), Some("none"));
    let mut upload = made.sum().unwrap();
    assert!(upload.send(&5).unwrap());
    assert_eq!(upload.finish().unwrap(), 5);
    assert_eq!(made.each().unwrap().next().unwrap().unwrap_err().application().as_deref(), Some("none"));
}

/// What is made of one trait has no name that another one has, or what implements it.
mod names {
    #![deny(warnings)]
    #![expect(clippy::new_ret_no_self, clippy::wrong_self_convention, reason = "whatever a method is called")]

    use super::Cow;

    #[bellrope::service]
    pub(crate) trait Foo {
        fn bar_baz(&self) -> u8;
        /// Of the other one in capitals alone.
        #[expect(non_snake_case, reason = "whatever a method is called")]
        fn barBaz(&self) -> u8;
    }

    #[bellrope::service]
    pub(crate) trait FooBar {
        fn baz(&self) -> u8;
    }

    #[bellrope::service]
    pub(crate) trait S {
        fn new(&self, left_out: Cow<str>) -> usize;
        #[cfg(test)]
        fn twin(&self) -> u8;
        #[cfg(not(test))]
        fn twin(&self, nowhere: Nowhere) -> u16;
        #[cfg_attr(test, doc = "As it was.", deprecated)]
        fn old(&self) -> u8 {
            5
        }
    }

    pub(crate) struct Host<S>(pub(crate) S);

    pub(crate) struct Second;

    pub(crate) struct Third<S>(pub(crate) Host<S>);

    #[bellrope::service]
    impl<S: Send + Sync + 'static> Foo for Host<S> {
        fn bar_baz(&self) -> u8 {
            1
        }

        fn barBaz(&self) -> u8 {
            2
        }
    }

    #[bellrope::service]
    impl FooBar for Second {
        fn baz(&self) -> u8 {
            3
        }
    }

    #[bellrope::service]
    impl<S: Send + Sync + 'static> self::S for Third<S>
    where
        S: Into<usize> + Copy,
    {
        fn new(&self, left_out: Cow<str>) -> usize {
            left_out.len() + self.0.0.into()
        }

        fn twin(&self) -> u8 {
            4
        }
    }
}

#[expect(deprecated, reason = "what was kept of it is tried")]
#[test]
fn names_conditions_and_lifetimes_that_are_left_out_are_no_obstacle() {
    use names::{FooBarBlockingClient, FooBlockingClient, Host, SBlockingClient, Second, Third};

    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("private").join("names.sock");
    let server = Server::builder().service(Host(())).service(Second).service(Third(Host(1_usize)));
    let _server = server.bind(&path).unwrap();
    let foo = FooBlockingClient::connect(&path).unwrap();
    let foo_bar = FooBarBlockingClient::from(foo.as_ref().clone());
    let s = SBlockingClient::from(foo.as_ref().clone());
    assert_eq!([foo.bar_baz().unwrap(), foo.barBaz().unwrap(), foo_bar.baz().unwrap()], [1, 2, 3]);
    assert_eq!(s.new("\"\n".into()).unwrap(), 3);
    assert_eq!([s.twin().unwrap(), s.old().unwrap()], [4, 5]);
}

/// Of some types of the standard library there are only references, and one of the author's may have such a name.
mod lent {
    use std::{
        ffi::{CStr, OsStr},
        path,
    };

    #[derive(serde::Serialize, serde::Deserialize)]
    pub(crate) struct Path {
        pub(crate) points: Vec<u8>,
    }

    #[bellrope::service(codec = "postcard")]
    pub(crate) trait Lends {
        fn depth(&self, path: &path::Path, name: &OsStr) -> usize;
        fn length(&self, text: &CStr) -> usize;
        fn points(&self, path: &Path) -> usize;
    }

    pub(crate) struct Host;

    #[bellrope::service]
    impl Lends for Host {
        fn depth(&self, path: &path::Path, name: &OsStr) -> usize {
            path.join(name).components().count()
        }

        fn length(&self, text: &CStr) -> usize {
            text.to_bytes().len()
        }

        fn points(&self, path: &Path) -> usize {
            path.points.len()
        }
    }
}

#[test]
fn arguments_of_which_there_are_only_references_are_lent() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("private").join("lends.sock");
    let _server = Server::builder().service(lent::Host).bind(&path).unwrap();
    let lends = lent::LendsBlockingClient::connect(&path).unwrap();
    assert_eq!(lends.depth(std::path::Path::new("a/b"), std::ffi::OsStr::new("c")).unwrap(), 3);
    assert_eq!(lends.length(c"four").unwrap(), 4);
    assert_eq!(lends.points(&lent::Path { points: vec![1, 2] }).unwrap(), 2);
}
