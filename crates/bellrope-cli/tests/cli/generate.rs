//! `bellrope generate`: what it writes is the same for the same schemas, and stands on names that a language takes. That
//! compilers take it and that it calls is tested by `scripts/client-node` and `scripts/clients`.

use std::fs;

use bellrope::{Server, server::ServerBuilder};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::support::Home;

mod one {
    #[derive(serde::Serialize, serde::Deserialize)]
    pub(super) struct Item {
        pub(super) a: u8,
    }
}

mod two {
    #[derive(serde::Serialize, serde::Deserialize)]
    pub(super) struct Item {
        pub(super) b: String,
    }
}

#[derive(Serialize, Deserialize)]
enum Refused {
    Missing,
}

#[bellrope::service]
trait Shop {
    fn buy(&self, item: one::Item, count: Option<u64>) -> Result<two::Item, Refused>;
    fn sell(&self, item: two::Item) -> one::Item;
}

#[bellrope::service(codec = "postcard")]
trait Till {
    fn open(&self) -> u8;
}

struct Keeper;

#[bellrope::service]
impl Shop for Keeper {
    fn buy(&self, item: one::Item, _count: Option<u64>) -> Result<two::Item, Refused> {
        if item.a > 0 { Ok(two::Item { b: String::new() }) } else { Err(Refused::Missing) }
    }

    fn sell(&self, _item: two::Item) -> one::Item {
        one::Item { a: 1 }
    }
}

mod own {
    use bellrope::service::{Codec, CodecError, Json};
    use serde::{Deserialize, Serialize};

    /// A codec of one's own.
    pub(super) struct Lines;

    impl Codec for Lines {
        const NAME: &'static str = "lines";
        const NUMBER: u8 = 200;
        const NAMED: bool = true;

        fn encode<T: Serialize + ?Sized>(value: &T, to: impl std::io::Write) -> Result<(), CodecError> {
            Json::encode(value, to)
        }

        fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, CodecError> {
            Json::decode(bytes)
        }
    }
}

#[bellrope::service(codec = "own::Lines")]
trait Desk {
    fn first(&self) -> u8;
    fn second(&self) -> u8;
}

struct Wood;

#[bellrope::service]
impl Desk for Wood {
    fn first(&self) -> u8 {
        1
    }

    fn second(&self) -> u8 {
        2
    }
}

struct Drawer;

#[bellrope::service]
impl Till for Drawer {
    fn open(&self) -> u8 {
        1
    }
}

fn served(builder: ServerBuilder) -> (Home, Server) {
    let home = Home::new();
    let server = builder.bind(home.socket()).unwrap();
    (home, server)
}

const TYPESCRIPT: &str = "\
import { type CallOptions, type Client, Method } from 'bellrope';

/** A whole number of 64 bits or more: a bigint from 2^53 on. Either may be given. */
export type Integer = number | bigint;

export interface Item {
  a: number;
}

export interface Item2 {
  b: string;
}

export type Refused = 'Missing';

const shopBuy = new Method<
  { item: Item; count?: Integer | null },
  Item2
>('Shop.buy', { HASH, result: true });
const shopSell = new Method<{ item: Item2 }, Item>('Shop.sell', { HASH });

/** The service Shop, called through a client that is connected. */
export class ShopClient {
  readonly #client: Client;

  constructor(client: Client) {
    this.#client = client;
  }

  /** Its own error, in a ServiceError: Refused. */
  buy(args: { item: Item; count?: Integer | null }, options?: CallOptions): Promise<Item2> {
    return this.#client.callTyped(shopBuy, args, options);
  }

  sell(args: { item: Item2 }, options?: CallOptions): Promise<Item> {
    return this.#client.callTyped(shopSell, args, options);
  }
}
";

/// A text without its first line, which names the version, and with no number of a schema.
fn body(text: &str) -> String {
    let lines = text.split_once("\n\n").unwrap().1;
    let mut parts = lines.split("schema: 0x");
    let first = parts.next().unwrap().to_owned();
    parts.fold(first, |text, part| text + "HASH" + part.trim_start_matches(|c: char| c.is_ascii_alphanumeric()))
}

#[test]
fn the_same_schemas_make_the_same_text_whatever_their_order_and_wherever_they_come_from() {
    let (home, _server) = served(Server::builder().service(Keeper).service(Drawer));
    let finished = home.run(["generate", "ts"]);
    assert!(finished.stderr.starts_with("left out: Till.open travels as postcard, which"), "{}", finished.stderr);
    let text = finished.succeeded();
    assert!(text.starts_with("// Made by `bellrope generate ts` (bellrope "), "{text}");
    assert_eq!(body(&text), TYPESCRIPT);

    let (other, _server) = served(Server::builder().service(Drawer).service(Keeper));
    let file = home.path("schemas.json");
    fs::write(&file, home.run(["list", "--schema"]).succeeded()).unwrap();
    let file = file.to_str().unwrap();
    for language in ["ts", "python", "markdown"] {
        let text = home.run(["generate", language]).succeeded();
        assert_eq!(other.run(["generate", language]).succeeded(), text);
        assert_eq!(other.run(["generate", language, "--from", file]).succeeded(), text);
        let schemas = fs::read(file).unwrap();
        assert_eq!(other.run_with(schemas, ["generate", language, "--from", "-"]).succeeded(), text);
    }
}

/// What is left out is named with its own codec.
#[test]
fn each_codec_that_other_languages_do_not_have_is_left_out_by_its_name() {
    let (home, _server) = served(Server::builder().service(Keeper).service(Drawer).service(Wood));
    let finished = home.run(["generate", "python"]);
    let fix = "which the clients in other languages do not have: a service for them has the codec json";
    let lines = format!(
        "left out: Desk.first and 1 more travel as lines, {fix}\nleft out: Till.open travels as postcard, {fix}\n"
    );
    assert_eq!(finished.stderr, lines);
    let error = home.run(["call", "Desk.first"]).failed(1);
    assert!(
        error.contains(
            "Desk.first travels as lines, a codec that is not known here; with --bytes, what is given is sent as it is"
        ),
        "{error}"
    );
}

#[test]
fn it_is_written_where_it_was_asked_for() {
    let (home, _server) = served(Server::builder().service(Keeper).service(Drawer));
    let printed = |arguments: &[&str]| home.run(arguments.iter().copied().chain(["--service", "Shop"])).succeeded();
    let [file, module, package] =
        ["shop.ts", "shop.py", "shop"].map(|name| home.path(name).to_str().unwrap().to_owned());
    assert_eq!(printed(&["generate", "ts", "--output", &file]), "");
    assert_eq!(fs::read_to_string(file).unwrap(), printed(&["generate", "ts"]));
    let python = printed(&["generate", "python"]);
    assert_eq!(printed(&["generate", "python", "-o", &module]), "");
    assert_eq!(fs::read_to_string(module).unwrap(), python);
    assert_eq!(printed(&["generate", "python", "-o", &package]), "");
    assert_eq!(fs::read_to_string(format!("{package}/__init__.py")).unwrap(), python);
    assert_eq!(fs::read_to_string(format!("{package}/py.typed")).unwrap(), "");
    let page = home.run(["generate", "markdown"]).succeeded();
    for words in
        ["### `Till.open`\n\nAnswers with `u8`. Codec: postcard.", "| `count` | `Option<u64>` |", "own error `Refused`"]
    {
        assert!(page.contains(words), "{page}");
    }
}

#[test]
fn what_cannot_be_generated_is_said_with_what_can_be_done() {
    let (home, _server) = served(Server::builder().service(Keeper).service(Drawer).unary("raw", |_, _| Ok(())));
    let failed = |arguments: &[&str]| home.run(arguments).failed(1);
    let error = failed(&["generate", "ts", "--service", "Shops"]);
    assert_eq!(error, "error: there is no service Shops; there are Shop, Till\n");
    let error = failed(&["generate", "python", "--service", "Till"]);
    assert!(
        error.starts_with("error: Till.open travels as postcard, which the clients in other languages do not have"),
        "{error}"
    );
    let error = failed(&["generate", "ts", "--from", "nowhere.json"]);
    assert!(error.starts_with("error: cannot open nowhere.json"), "{error}");
    let error = failed(&["generate", "ts", "--service", "Shop", "--output", "no/where/client.ts"]);
    assert!(error.starts_with("error: cannot write no/where/client.ts"), "{error}");
    let from = |text: String| home.run_with(text.into_bytes(), ["generate", "ts", "--from", "-"]).failed(1);
    assert!(from("{}".to_owned()).starts_with("error: there are no schemas"), "{}", from("{}".to_owned()));
    assert!(from("[]".to_owned()).starts_with("error: - is not what `bellrope list --schema` prints"));
    let method = |request: Value| json!({ "A.b": { "style": "unary", "codec": "json", "request": request, "answer": "unit", "sent": "unit", "types": [] } });
    let error = from(method(json!({ "type": 1 })).to_string());
    assert_eq!(error, "error: the schema of A.b in -: request: type 1 is named, and there are 0\n");
    let (home, _server) = served(Server::builder().unary("raw", |_, _| Ok(())));
    let error = home.run(["generate", "ts"]).failed(1);
    assert!(error.starts_with("error: there are no schemas: it serves no typed services"), "{error}");
}

/// Schemas of a server that nobody wrote in Rust.
#[test]
fn names_of_anybody_are_no_code() {
    let evil = "*/ '); process.exit(1); /* \u{2028}\\\"\"\"\n__import__('os')";
    let form = json!({ "struct": [[evil, "text"], ["", "bool"], ["__proto__", { "type": 1 }]] });
    let types = json!([{ "name": evil, "form": form }, { "name": "class", "form": { "enum": [[evil, "unit"], ["b", { "newtype": { "type": 0 } }]] } }]);
    let method = json!({ "style": "duplex", "codec": "json", "request": "any", "answer": { "type": 0 }, "sent": { "type": 1 }, "types": types });
    let schemas = json!({ "no.such thing.constructor": method, "then": method, evil: method }).to_string();
    let home = Home::new();
    for language in ["ts", "python"] {
        let text = home.run_with(schemas.clone().into_bytes(), ["generate", language, "--from", "-"]).succeeded();
        // It stands in quotation marks alone, and no line begins within it.
        for line in text.lines().filter(|line| line.contains("process.exit")) {
            assert!(line.contains("\"*/ '); process.exit(1); /* "), "{line}");
        }
        assert!(text.contains("process.exit") && !text.contains("\n__import__"), "{text}");
    }
    let endless = json!([{ "name": "A", "form": { "newtype": { "type": 1 } } }, { "name": "B", "form": { "newtype": { "optional": { "type": 0 } } } }]);
    let method = json!({ "style": "unary", "codec": "json", "request": "unit", "answer": { "type": 0 }, "sent": "unit", "types": endless });
    let schemas = json!({ "S.a": method }).to_string();
    let generated =
        |language| home.run_with(schemas.clone().into_bytes(), ["generate", language, "--from", "-"]).succeeded();
    let text = generated("ts");
    assert!(text.contains("export type A = null;") && text.contains("export type B = null;"), "{text}");
    // Alone, `None` would be a value of Python's, and no type.
    let text = generated("python");
    assert!(text.contains("\nA = Union[None]\n") && text.contains("\nB = Union[None]\n"), "{text}");
}

/// What every object, or every module, has already is no obstacle to a field or a type of that name.
#[test]
fn names_that_the_languages_give_to_everything_are_usable() {
    let fields = json!({ "struct": [["constructor", { "optional": "text" }]] });
    let types =
        json!([{ "name": "Args", "form": fields }, { "name": "__name__", "form": { "struct": [["a", "bool"]] } }]);
    let method = json!({ "style": "unary", "codec": "json", "request": { "type": 0 }, "answer": { "type": 1 }, "sent": "unit", "types": types });
    let schemas = json!({ "S.opt": method }).to_string();
    let home = Home::new();
    let generated =
        |language| home.run_with(schemas.clone().into_bytes(), ["generate", language, "--from", "-"]).succeeded();
    let text = generated("ts");
    assert!(text.contains("args: { constructor?: string | null } = Object.create(null)"), "{text}");
    let text = generated("python");
    assert!(text.contains("class __name___(TypedDict)"), "{text}");
}

/// A later version may have printed shapes, forms and styles that this one does not know.
#[test]
fn what_a_later_version_has_printed_is_read_as_far_as_it_is_known() {
    let method = |style: &str, answer: Value| {
        let types = json!([{ "name": "Later", "form": { "bits": ["x"] } }]);
        json!({ "style": style, "codec": "json", "request": "unit", "answer": answer, "sent": "unit", "types": types })
    };
    let printed = json!({
        "Clock.now": method("unary", json!("instant")),
        "Clock.later": method("unary", json!({ "type": 0 })),
        "Clock.relay": method("relay", json!("unit")),
    });
    for language in ["ts", "python", "markdown"] {
        let finished = Home::new().run_with(printed.to_string().into_bytes(), ["generate", language, "--from", "-"]);
        let note = "left out: Clock.relay has the style relay, which this version does not know\n";
        assert_eq!(finished.stderr, note, "{language}");
        let text = finished.succeeded();
        assert!(text.contains("now") && text.contains("later") && !text.contains("relay"), "{text}");
    }
}

/// A page has words for types that have no name, such as `String`: a type that is called so is another one.
#[test]
fn a_type_of_ones_own_is_not_taken_for_one_of_the_page() {
    let types = json!([{ "name": "String", "form": { "struct": [["text", "text"], ["none", { "type": 1 }]] } }, { "name": "Map", "form": { "struct": [] } }]);
    let method = json!({ "style": "unary", "codec": "json", "request": "unit", "answer": { "type": 0 }, "sent": "unit", "types": types });
    let page = Home::new()
        .run_with(json!({ "S.a": method }).to_string().into_bytes(), ["generate", "markdown", "--from", "-"])
        .succeeded();
    for words in ["Answers with `String_`.", "### String\\_\n", "| `text` | `String` |", "| `none` | `Map_` |"] {
        assert!(page.contains(words), "{words:?} is not in\n{page}");
    }
}

/// The gateway's and the operator's types are no methods of a trait, and are described all the same.
#[test]
fn the_types_of_the_gateway_and_of_the_operator_are_generated() {
    use bellrope_gateway::{Gateway, GatewaySettings};

    let gateway = Gateway::from_settings(GatewaySettings::default()).unwrap();
    let builder = bellrope_gateway::register(Server::builder().operator(), std::sync::Arc::new(gateway));
    let (home, _server) = served(builder);
    let contains = |text: &str, words: &[&str]| {
        words.iter().for_each(|words| assert!(text.contains(words), "{words:?} is not in\n{text}"));
    };
    let typescript = home.run(["generate", "ts"]).succeeded();
    contains(
        &typescript,
        &[
            "export type Content = string | Part[];",
            "\nexport type SequencedChunk =\n  | { kind: 'resumable'; seq: Integer; id: string }\n",
            "  | { type: 'tool_use'; id?: string | null; name: string; input?: Json | null;",
            "messages: Message[]; tools?: Tool[] | null; tool_choice?: ToolChoice | null;",
            "export class AiClient {",
            "export class BellropeClient {",
        ],
    );
    let python = home.run(["generate", "python", "--service", "ai"]).succeeded();
    contains(
        &python,
        &[
            "Content = Union[str, List[\"Part\"]]",
            "class SequencedChunkText(TypedDict):\n    kind: Literal[\"text\"]\n    seq: int\n    text: str\n",
            "class AsyncAiClient:",
        ],
    );
    let page = home.run(["generate", "markdown", "--service", "ai"]).succeeded();
    contains(
        &page,
        &["An object, of which `kind` says what it is:", "| `done` | `{ seq: u64, stop_reason: StopReason }` |"],
    );

    let answer =
        home.run(["call", "--json", "ai.chat", r#"{"messages":[{"role":"user","content":"Hello"}]}"#]).succeeded();
    assert!(answer.starts_with("{\"ok\":{\"version\":1,"), "{answer}");
    let ended = home.run(["call", "--json", "ai.resume", r#"{"id":"00112233445566778899aabbccddeeff"}"#]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(3), ""), "what went wrong is among the items: {ended:?}");
    assert!(ended.stdout.starts_with("{\"error\":{\"seq\":0,\"kind\":\"error\","), "{ended:?}");
}
