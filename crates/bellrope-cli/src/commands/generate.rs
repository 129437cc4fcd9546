//! `bellrope generate`: clients in other languages and a page for people, made from the schemas of a server.

mod api;
mod markdown;
mod names;
mod python;
mod typescript;

use std::{
    collections::BTreeMap,
    fs, io,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use bellrope::service::{Codec as _, Json};
use bellrope_terminal::{Outcome, output};
use clap::{Args, ValueEnum};

use crate::{
    input::{MAX_INPUT, read_input},
    logging,
    schemas::{self, Described, Printed},
    socket::{self, SocketArg},
};
use api::Api;

const EXAMPLES: &str = "\
Examples:
  bellrope generate ts --output src/files.ts
  bellrope generate python --output files_client
  bellrope generate markdown --service Files > FILES.md
  bellrope list --schema > schemas.json && bellrope generate ts --from schemas.json

The clients use the packages `bellrope` for Node and Python. The same schemas make the same text, byte by byte.";

/// The most letters of a codec's name that are shown.
const MAX_LETTERS: usize = 64;

/// What to make, from what.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct GenerateArgs {
    #[command(flatten)]
    server: SocketArg,
    /// The language.
    #[arg(value_enum)]
    language: Language,
    /// A file of what `bellrope list --schema` prints, in place of a running server; `-` is standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "socket")]
    from: Option<PathBuf>,
    /// Where to write: a file, or for Python a folder that becomes a package with types [default: standard output].
    #[arg(long, short, value_name = "PATH")]
    output: Option<PathBuf>,
    /// Only the services of this name; may be given several times.
    #[arg(long, value_name = "NAME")]
    service: Vec<String>,
}

/// The names of languages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Language {
    /// A client in TypeScript.
    #[value(alias = "typescript")]
    Ts,
    /// A client in Python, blocking and for asyncio.
    Python,
    /// A page that describes the services.
    Markdown,
}

/// Writes what was asked for.
pub(crate) fn run(args: &GenerateArgs) -> Outcome {
    logging::init("warn")?;
    let mut described = match &args.from {
        Some(file) => from_file(file)?,
        None => {
            let client = socket::connect(args.server.config())?;
            schemas::all(&client)?
        }
    };
    ensure!(
        !described.is_empty(),
        "there are no schemas: it serves no typed services (`bellrope list` shows what it offers)"
    );
    if !args.service.is_empty() {
        choose(&mut described, &args.service)?;
    }
    if args.language != Language::Markdown {
        leave_out_others(&mut described)?;
    }
    let (api, version) = (Api::new(described)?, env!("CARGO_PKG_VERSION"));
    let text = match args.language {
        Language::Ts => typescript::write(&api, version),
        Language::Python => python::write(&api, version),
        Language::Markdown => markdown::write(&api, version),
    };
    match &args.output {
        None => Ok(io::stdout().lock().write_all(text.as_bytes())?),
        Some(path) => write(args.language, path, &text),
    }
}

/// What `bellrope list --schema` has printed. Every schema is checked as one from a server is.
fn from_file(file: &Path) -> anyhow::Result<BTreeMap<String, Described>> {
    let name = file.display();
    let bytes = if file.as_os_str() == "-" {
        read_input()?
    } else {
        let mut bytes = Vec::new();
        let open = fs::File::open(file).with_context(|| format!("cannot open {name}"))?;
        open.take(MAX_INPUT + 1).read_to_end(&mut bytes).with_context(|| format!("cannot read {name}"))?;
        ensure!(bytes.len() as u64 <= MAX_INPUT, "{name} has more than {MAX_INPUT} bytes");
        bytes
    };
    let printed: BTreeMap<String, Printed> =
        Json::decode(&bytes).with_context(|| format!("{name} is not what `bellrope list --schema` prints"))?;
    for (method, printed) in &printed {
        printed.schema.check().with_context(|| format!("the schema of {method} in {name}"))?;
    }
    let described = printed.into_iter().filter_map(|(method, printed)| Some((printed.described(&method)?, method)));
    Ok(described.map(|(described, method)| (method, described)).collect())
}

/// Keeps the services that were named.
fn choose(described: &mut BTreeMap<String, Described>, services: &[String]) -> Outcome {
    let service = |method: &str| method.rsplit_once('.').map_or("", |(service, _)| service).to_owned();
    let mut known: Vec<_> = described.keys().map(|method| service(method)).collect();
    known.dedup();
    if let Some(unknown) = services.iter().find(|name| !known.contains(name)) {
        bail!("there is no service {unknown}; there are {}", known.join(", "));
    }
    described.retain(|method, _| services.contains(&service(method)));
    Ok(())
}

/// The clients in other languages have the codec json alone.
fn leave_out_others(described: &mut BTreeMap<String, Described>) -> Outcome {
    let other = |method: &Described| method.schema.codec != Json::NAME;
    let mut by_codec: BTreeMap<&str, (&str, usize)> = BTreeMap::new();
    for (name, method) in described.iter().filter(|(_, method)| other(method)) {
        by_codec.entry(&method.schema.codec).or_insert((name, 0)).1 += 1;
    }
    let left_out: Vec<String> = by_codec
        .into_iter()
        .map(|(codec, (name, count))| {
            let subject = match count {
                1 => format!("{name} travels"),
                count => format!("{name} and {} more travel", count - 1),
            };
            // A server may call it what it likes.
            let codec = codec.chars().take(MAX_LETTERS).collect::<String>();
            let (subject, codec) = (subject.escape_debug(), codec.escape_debug());
            format!(
                "{subject} as {codec}, which the clients in other languages do not have: a service for them has the codec json"
            )
        })
        .collect();
    described.retain(|_, method| !other(method));
    ensure!(!described.is_empty(), "{}", left_out.join("; "));
    for words in left_out {
        output::note(format_args!("left out: {words}"));
    }
    Ok(())
}

fn write(language: Language, path: &Path, text: &str) -> Outcome {
    let is_package = language == Language::Python && path.extension().is_none_or(|extension| extension != "py");
    if !is_package {
        return fs::write(path, text).with_context(|| format!("cannot write {}", path.display()));
    }
    fs::create_dir_all(path).with_context(|| format!("cannot make the folder {}", path.display()))?;
    for (name, text) in [("__init__.py", text), ("py.typed", "")] {
        let file = path.join(name);
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}
