//! `bellrope models`: what can be asked, through a server and beside it.

use std::net::SocketAddr;

use anyhow::{Context as _, anyhow};
use bellrope_gateway::{ModelList, ProviderFault};
use bellrope_terminal::{Outcome, in_words, output};
use clap::Args;
use serde::Serialize;

use crate::{
    local_models::{self, Found},
    logging, operator,
    socket::{self, SocketArg},
};

/// What a server is asked.
const MODELS: &str = "ai.models";

/// Whom to ask, and how to print it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  bellrope models\n  bellrope models --json | jq -r '.models[].name'\n\n\
                        Ollama and llama.cpp on this machine are listed, too, if the server does not have them;\n\
                        where no server runs, they alone. Exit code 1 if there is neither.")]
pub(crate) struct ModelsArgs {
    #[command(flatten)]
    server: SocketArg,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// All that is known.
#[derive(Debug, Serialize)]
struct Listed {
    models: Vec<Row>,
    /// Providers that could not say.
    faults: Vec<ProviderFault>,
}

/// A model.
#[derive(Debug, Serialize)]
struct Row {
    /// What a request calls it.
    name: String,
    provider: String,
    /// Where it is, of one that no server has set up.
    #[serde(skip_serializing_if = "Option::is_none")]
    found_at: Option<SocketAddr>,
}

/// Prints every model by the name that requests have for it.
pub(crate) fn run(args: &ModelsArgs) -> Outcome {
    logging::init("warn")?;
    // Providers may be slow to answer, and the server waits for each.
    let asked = socket::connect(args.server.config()).and_then(|client| {
        let answer = operator::ask(&client, MODELS, b"")?;
        serde_json::from_slice::<ModelList>(&answer).context("the server's answer cannot be read")
    });
    let known = asked.as_ref().map_or_else(|_| Vec::new(), providers);
    let found = local_models::look_beside(&known);
    let list = match asked {
        Ok(list) => list,
        Err(error) => match local_models::looked_for() {
            Some(places) if found.is_empty() => {
                return Err(anyhow!("{}; nor is there a server of models at {places}", in_words(&error)));
            }
            None if found.is_empty() => return Err(error),
            _ => {
                tracing::warn!("{error}");
                ModelList { version: 0, models: Vec::new(), faults: Vec::new() }
            }
        },
    };
    let listed = Listed { models: rows(&list, &found), faults: list.faults };
    if args.json {
        return output::json(&listed);
    }
    for ProviderFault { provider, error } in &listed.faults {
        tracing::warn!("`{provider}` cannot say what it has: {}", error.message);
    }
    let place = |row: &Row| row.found_at.map_or_else(|| "served".to_owned(), |address| format!("found at {address}"));
    let cells = |row: &Row| [row.name.escape_debug().to_string(), row.provider.escape_debug().to_string(), place(row)];
    output::table(["MODEL", "PROVIDER", "WHERE"], 0..0, &listed.models.iter().map(cells).collect::<Vec<_>>())
}

/// The names of a server's providers.
fn providers(list: &ModelList) -> Vec<String> {
    let models = list.models.iter().map(|model| model.provider.clone());
    let mut names: Vec<_> = models.chain(list.faults.iter().map(|fault| fault.provider.clone())).collect();
    names.sort();
    names.dedup();
    names
}

fn rows(list: &ModelList, found: &[Found]) -> Vec<Row> {
    let row = |provider: &str, id: &str, found_at| Row {
        name: format!("{provider}/{id}"),
        provider: provider.to_owned(),
        found_at,
    };
    let served = list.models.iter().map(|model| row(&model.provider, &model.id, None));
    let beside = found.iter().flat_map(|found| {
        let address = Some(found.address);
        found.models.iter().map(move |id| row(found.name, id, address))
    });
    served.chain(beside).collect()
}
