//! Services of one method whose argument and answer are a type of the test.

/// Has a service `Echo` of one type in a module.
macro_rules! echo {
    ($module:ident, $codec:literal, { $($types:tt)* }) => {
        mod $module {
            use super::*;

            $($types)*

            #[bellrope::service(codec = $codec)]
            pub(super) trait Echo {
                fn echo(&self, thing: Thing, after: Vec<u8>) -> Thing;
            }

            pub(super) struct Host;

            // Some are only known to clients.
            const _: Host = Host;

            #[bellrope::service]
            impl Echo for Host {
                fn echo(&self, thing: Thing, _after: Vec<u8>) -> Thing {
                    thing
                }
            }
        }
    };
}

/// Why a server does not take a service.
macro_rules! refused {
    ($module:ident) => {{
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("private").join("echo.sock");
        Server::builder().service($module::Host).bind(&path).map(|_| ()).unwrap_err().to_string()
    }};
}

/// The schema of a service.
macro_rules! known {
    ($module:ident) => {{
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("private").join("echo.sock");
        let _server = Server::builder().service($module::Host).bind(&path).unwrap();
        schema(&path, "Echo.echo")
    }};
}

/// What a client with the types of one module learns from a server with those of another.
macro_rules! differs {
    ($there:ident, $here:ident, $thing:expr) => {{
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("private").join("echo.sock");
        let _server = Server::builder().service($there::Host).bind(&path).unwrap();
        let client = $here::EchoBlockingClient::connect(&path).unwrap();
        let error = client.echo($thing, vec![]).map(|_| ()).unwrap_err();
        match error.call_error() {
            Some(CallError::Incompatible { differences, .. }) => differences.clone(),
            other => panic!("{other:?}"),
        }
    }};
}
