//! Servers of models on this machine that nobody has set up: Ollama and llama.cpp at their usual ports.
//!
//! They are asked what they are, on the loopback address alone and with a short deadline, and only used when somebody names
//! them.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use bellrope_gateway::{Gateway, GatewaySettings, ProviderConfig};
use serde_json::Value;

use crate::settings::LOCAL_MODELS;

/// How long a server may take to say what it is.
const PATIENCE: Duration = Duration::from_millis(500);
/// The most bytes of what it says, and the most models that are named.
const MAX_ANSWER: u64 = 1024 * 1024;
const MAX_NAMES: usize = 5;

/// A server of models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// The provider's name, as of its preset.
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    pub(crate) models: Vec<String>,
}

/// A kind of server.
struct Kind {
    name: &'static str,
    title: &'static str,
    port: u16,
    path: &'static str,
    /// Its models, if the answer is one of this kind.
    models: fn(&Value) -> Option<Vec<String>>,
}

const KINDS: [Kind; 2] = [
    Kind { name: "ollama", title: "Ollama", port: 11434, path: "/api/tags", models: of_ollama },
    Kind { name: "llamacpp", title: "llama.cpp", port: 8080, path: "/v1/models", models: of_llama_cpp },
];

impl Found {
    /// What it is, and what to do with it.
    pub(crate) fn words(&self) -> String {
        let title = KINDS.iter().find(|kind| kind.name == self.name).map_or(self.name, |kind| kind.title);
        let names: Vec<_> = self.models.iter().take(MAX_NAMES).map(|model| model.escape_debug().to_string()).collect();
        let more = if self.models.len() > MAX_NAMES { ", and more" } else { "" };
        let models = if names.is_empty() { "no model yet".to_owned() } else { format!("{}{more}", names.join(", ")) };
        format!("{title} is at {}, with {models}", self.address)
    }
}

/// Looks for the servers that these settings do not have as providers.
pub(crate) fn look(gateway: &Gateway) -> Vec<Found> {
    look_beside(gateway.names())
}

/// Looks for the servers that are none of these providers.
pub(crate) fn look_beside(known: &[String]) -> Vec<Found> {
    let ports = ports(std::env::var(LOCAL_MODELS).ok().as_deref());
    let asked = KINDS.iter().zip(ports).filter(|(kind, _)| !known.iter().any(|name| name == kind.name));
    std::thread::scope(|scope| {
        // Where no thread is to be had it is done here.
        let ask_apart = |kind, port| {
            let asking = std::thread::Builder::new().spawn_scoped(scope, move || ask(kind, port));
            asking.map_err(|_| ask(kind, port))
        };
        let asking: Vec<_> = asked.filter_map(|(kind, port)| port.map(|port| ask_apart(kind, port))).collect();
        asking
            .into_iter()
            .filter_map(|asking| asking.map_or_else(|found| found, |asking| asking.join().ok()?))
            .collect()
    })
}

/// Where servers are looked for, in words. `None`: nowhere.
pub(crate) fn looked_for() -> Option<String> {
    let ports = ports(std::env::var(LOCAL_MODELS).ok().as_deref());
    let places =
        KINDS.iter().zip(ports).filter_map(|(kind, port)| Some(format!("127.0.0.1:{} ({})", port?, kind.title)));
    let places: Vec<_> = places.collect();
    (!places.is_empty()).then(|| places.join(" or "))
}

/// Adds what was found to the providers.
pub(crate) fn add(settings: &mut GatewaySettings, found: &[Found]) {
    for Found { name, address, .. } in found {
        let config = ProviderConfig { base_url: format!("http://{address}/v1"), ..ProviderConfig::default() };
        settings.providers.entry((*name).to_owned()).or_insert(config);
    }
}

/// The ports of the kinds: the usual ones, or those that a variable names, as in `ollama=11434`, and no others.
fn ports(variable: Option<&str>) -> [Option<u16>; 2] {
    KINDS.map(|kind| {
        let Some(text) = variable else { return Some(kind.port) };
        let named = text.split(',').filter_map(|pair| pair.trim().split_once('='));
        named.filter(|(name, _)| *name == kind.name).find_map(|(_, port)| port.parse().ok())
    })
}

/// Asks a server what it is.
fn ask(kind: &Kind, port: u16) -> Option<Found> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let due = Instant::now() + PATIENCE;
    let left = || due.checked_duration_since(Instant::now()).filter(|left| !left.is_zero());
    let mut stream = TcpStream::connect_timeout(&address, left()?).ok()?;
    stream.set_write_timeout(left()).ok()?;
    let request = format!("GET {} HTTP/1.0\r\nHost: {address}\r\nAccept: application/json\r\n\r\n", kind.path);
    stream.write_all(request.as_bytes()).ok()?;
    let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
    while (answer.len() as u64) < MAX_ANSWER {
        stream.set_read_timeout(Some(left()?)).ok()?;
        match stream.read(&mut piece).ok()? {
            0 => break,
            read => answer.extend_from_slice(&piece[..read]),
        }
    }
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let is_good = head.split(' ').nth(1) == Some("200");
    let models = (kind.models)(&serde_json::from_str(body).ok().filter(|_| is_good)?)?;
    Some(Found { name: kind.name, address, models })
}

fn of_ollama(answer: &Value) -> Option<Vec<String>> {
    let models = answer.get("models")?.as_array()?;
    Some(models.iter().filter_map(|model| Some(model.get("name")?.as_str()?.to_owned())).collect())
}

/// Its port is one that many programs use: the models say whose they are.
fn of_llama_cpp(answer: &Value) -> Option<Vec<String>> {
    let models = answer.get("data")?.as_array()?;
    let ours = models.iter().filter(|model| model.get("owned_by").and_then(Value::as_str) == Some("llamacpp"));
    let names: Vec<_> = ours.filter_map(|model| Some(model.get("id")?.as_str()?.to_owned())).collect();
    (!names.is_empty()).then_some(names)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A server that answers its first connection like this, or never.
    fn serving(answer: Option<&'static str>) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]);
            match answer {
                Some(answer) => drop(write!(stream, "HTTP/1.0 200 OK\r\n\r\n{answer}")),
                None => std::thread::sleep(Duration::from_secs(60)),
            }
        });
        port
    }

    #[test]
    fn a_server_is_known_by_what_it_says_and_everything_else_is_none() {
        let [ollama, llama_cpp] = &KINDS;
        let tags = r#"{"models":[{"name":"llama3.2:latest"},{"name":"qwen2.5-coder:7b"}]}"#;
        let found = ask(ollama, serving(Some(tags))).unwrap();
        assert_eq!(found.models, ["llama3.2:latest", "qwen2.5-coder:7b"]);
        let words = format!("Ollama is at {}, with llama3.2:latest, qwen2.5-coder:7b", found.address);
        assert_eq!(found.words(), words);
        let models = r#"{"object":"list","data":[{"id":"m.gguf","owned_by":"llamacpp"}]}"#;
        assert_eq!(ask(llama_cpp, serving(Some(models))).unwrap().models, ["m.gguf"]);
        for other in [r#"{"data":[{"id":"m","owned_by":"somebody"}]}"#, "<html>", "{}", "[]", ""] {
            assert_eq!(ask(llama_cpp, serving(Some(other))), None, "{other}");
            assert_eq!(ask(ollama, serving(Some(other))), None, "{other}");
        }
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        assert_eq!(ask(ollama, free), None, "nobody listens");
        assert_eq!(ask(ollama, serving(None)), None, "it does not answer");
    }

    #[test]
    fn a_variable_names_the_ports_and_no_others_are_tried() {
        assert_eq!(ports(None), [Some(11434), Some(8080)]);
        assert_eq!(ports(Some("")), [None, None]);
        assert_eq!(ports(Some("llamacpp=1, ollama=2")), [Some(2), Some(1)]);
        assert_eq!(ports(Some("ollama=x")), [None, None]);
    }
}
