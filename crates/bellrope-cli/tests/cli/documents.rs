//! What the documents show: settings that are in order, JSON and TOML that can be read, and commands with options that there are.
//! Their programs run elsewhere: those in Rust as doctests, those of docs/plugins.md in `plugins`.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::support::Home;

/// What a server with the settings of the documents has in its environment.
const ENVIRONMENT: [(&str, &str); 3] =
    [("WORK_KEY", "sk-test"), ("ANTHROPIC_API_KEY", "sk-ant-test"), ("OLLAMA_BASE_URL", "http://127.0.0.1:11434/v1")];

/// The first tables of files that are not those of `serve`: Cargo's, and that of a tool.
const OTHERS: [&str; 3] = ["dependencies", "package", "model_providers"];

/// Stands between two words of which one is to be written.
const OR: &str = "\u{1}";

/// What is shown of files that only a machine of its own has.
const ELSEWHERE: &str = "/etc/bellrope/";

/// The sections of settings, and the words of commands, that a program without fleets does not know.
const OF_FLEETS: [&str; 4] = ["fleet", "--offer", "--import", "onlooker"];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Every document that users read, by its path. CHANGELOG.md shows commands as they were.
fn documents() -> BTreeMap<String, String> {
    let (root, mut found) = (repository(), BTreeMap::new());
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let is_ours = !name.starts_with('.') && !["target", "node_modules"].contains(&&*name);
            if path.is_dir() && is_ours && !path.is_symlink() {
                folders.push(path);
            } else if name.ends_with(".md") && name != "CHANGELOG.md" {
                let within = path.strip_prefix(&root).unwrap().display().to_string();
                found.insert(within, fs::read_to_string(&path).unwrap());
            }
        }
    }
    assert!(found.contains_key("docs/providers.md") && found.contains_key("README.md"), "{:?}", found.keys());
    found
}

/// A block of code in a document.
#[derive(Debug)]
struct Block {
    place: String,
    language: String,
    text: String,
}

fn blocks_of(document: &str, text: &str) -> Vec<Block> {
    let (mut blocks, mut open) = (Vec::new(), None::<Block>);
    for (number, line) in text.lines().enumerate() {
        match (line.trim().strip_prefix("```"), open.as_mut()) {
            (Some(language), None) => {
                let language = language.split(',').next().unwrap_or_default().to_owned();
                open = Some(Block { place: format!("{document}:{}", number + 2), language, text: String::new() });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => block.text.extend([line, "\n"]),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{document}: a block is not closed");
    blocks
}

fn blocks(language: &str) -> Vec<Block> {
    let all = documents();
    let all = all.iter().flat_map(|(document, text)| blocks_of(document, text));
    all.filter(|block| block.language == language).collect()
}

#[test]
fn settings_of_the_documents_are_in_order() {
    let (home, mut checked) = (Home::new(), 0);
    for block in blocks("toml") {
        let parsed: toml::Table =
            toml::from_str(&block.text).unwrap_or_else(|error| panic!("{}: {error}", block.place));
        if parsed.keys().any(|key| OTHERS.contains(&&**key)) {
            continue;
        }
        if !cfg!(feature = "fleet") && parsed.keys().any(|key| OF_FLEETS.contains(&&**key)) {
            continue;
        }
        let file = home.config(&block.text);
        let mut command = home.command(["config".as_ref(), "check".as_ref(), file.as_os_str(), "--json".as_ref()]);
        let output = command.envs(ENVIRONMENT).output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}: {}", block.place, String::from_utf8_lossy(&output.stderr)));
        let faults = report["faults"].as_array().unwrap();
        let here: Vec<_> = faults.iter().filter(|fault| !fault.to_string().contains(ELSEWHERE)).collect();
        assert!(here.is_empty(), "{}: {here:?}", block.place);
        checked += 1;
    }
    assert!(checked >= 3, "of {checked} blocks");
}

#[test]
fn json_of_the_documents_can_be_read() {
    let (mut checked, is_json) = (0, |text: &str| serde_json::from_str::<Value>(text).is_ok());
    for block in blocks("json") {
        // One value, or one on each line.
        let lines = || block.text.lines().filter(|line| !line.trim().is_empty());
        assert!(is_json(&block.text) || lines().all(is_json), "{}:\n{}", block.place, block.text);
        checked += 1;
    }
    assert!(checked > 20, "of {checked} blocks");
}

/// The commands of this program in a line of shell, each from its first word after the name on.
fn commands_in(line: &str) -> Vec<Vec<String>> {
    // In a table, `a\|b` is one or the other.
    let line = line.split(" #").next().unwrap_or_default().replace("\\|", OR);
    let parts = line.split(['|', ';', '&']).flat_map(|part| part.split("$("));
    let commands = parts.filter_map(|part| {
        let is_variable = |word: &&str| {
            word.split_once('=').is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
        };
        let mut words = part.split_whitespace().skip_while(is_variable);
        let program = words.next()?;
        (program == "bellrope" || program.ends_with("/bellrope")).then(|| {
            let words = words.map(|word| word.split(OR).next().unwrap_or(word));
            words.map(|word| word.trim_matches(['[', ']', '\'', '"', ')']).to_owned()).collect::<Vec<_>>()
        })
    });
    commands.filter(|words| !words.is_empty()).collect()
}

/// Every command that a document shows, in its blocks of shell and in its text.
fn commands() -> Vec<(String, Vec<String>)> {
    let mut commands = Vec::new();
    for (document, text) in documents() {
        let mut is_shell = None;
        let mut continued = String::new();
        for (number, line) in text.lines().enumerate() {
            let place = format!("{document}:{}", number + 1);
            if let Some(language) = line.trim().strip_prefix("```") {
                is_shell = is_shell.is_none().then(|| ["sh", "console"].contains(&language));
            } else if is_shell == Some(true) {
                continued.push_str(line.trim().trim_start_matches("$ "));
                if continued.ends_with('\\') {
                    continued.pop();
                    continue;
                }
                let line = std::mem::take(&mut continued);
                commands.extend(commands_in(&line).into_iter().map(|words| (place.clone(), words)));
            } else if is_shell.is_none() {
                let code = line.split('`').skip(1).step_by(2).filter(|code| !code.contains(" = "));
                commands.extend(code.flat_map(commands_in).map(|words| (place.clone(), words)));
            }
        }
    }
    commands
}

#[test]
fn commands_of_the_documents_have_options_that_there_are() {
    let home = Home::new();
    let mut helps = BTreeMap::<Vec<String>, String>::new();
    let mut help = |path: &[String]| {
        let asked = || {
            let output = home.command(path.iter().map(String::as_str).chain(["--help"])).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        helps.entry(path.to_vec()).or_insert_with(asked).clone()
    };
    let (mut checked, mut wrong) = (0, Vec::new());
    for (place, words) in commands() {
        let is_of_fleets = words.iter().any(|word| OF_FLEETS.iter().any(|of| word.contains(of)));
        if !cfg!(feature = "fleet") && is_of_fleets {
            continue;
        }
        let (mut path, mut rest) = (Vec::new(), words.iter().peekable());
        // The words of its commands stand below this line, each indented by two blanks.
        while let Some(word) = rest.peek() {
            let text = help(&path);
            let listed = text.split("Commands:\n").nth(1).unwrap_or_default();
            let mut listed = listed.lines().take_while(|line| !line.is_empty());
            if !listed
                .any(|line| line.strip_prefix("  ").is_some_and(|line| line.split(' ').next() == Some(word.as_str())))
            {
                break;
            }
            path.extend(rest.next().cloned());
        }
        if path.is_empty() && !words[0].starts_with('-') {
            wrong.push(format!("{place}: there is no command `{}`", words[0]));
            continue;
        }
        let text = help(&path);
        let known: Vec<_> = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).collect();
        for option in rest.take_while(|word| *word != "--").filter(|word| word.starts_with("--")) {
            let name = option.split('=').next().unwrap_or(option);
            checked += 1;
            if !known.contains(&name) {
                wrong.push(format!("{place}: `bellrope {}` has no `{name}`", path.join(" ")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked > 50, "of {checked} options");
}
