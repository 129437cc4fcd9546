//! Every `--help`, `--version`, and the names of completion scripts and pages of the manual.

use std::fs;

use crate::{
    stage::{Stage, names},
    text::{cases, freeze, overwrites},
};

/// The commands below one, as its help lists them.
fn below(help: &str) -> Vec<String> {
    let list = help.split("\nCommands:\n").nth(1).and_then(|rest| rest.split("\n\n").next()).unwrap_or_default();
    // What goes on from the line before stands further to the right.
    let lines = list.lines().filter_map(|line| line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')));
    let names = lines.filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn every_command_has_the_help_that_it_had_and_those_that_do_something_an_example() {
    let stage = Stage::new();
    let mut asked = vec![Vec::<String>::new()];
    let mut files = Vec::new();
    while let Some(path) = asked.pop() {
        let words = |last: &[&str]| path.iter().cloned().chain(last.iter().map(|word| (*word).to_owned())).collect();
        let run = |words: Vec<String>| stage.run(&words.iter().map(String::as_str).collect::<Vec<_>>());
        let long = run(words(&["--help"]));
        let mut shown = long.shown();
        let short = run(words(&["-h"]));
        if short.stdout != long.stdout {
            shown = format!("{shown}\n{}", short.shown());
        }
        let by_name = run([vec!["help".to_owned()], path.clone()].concat());
        assert_eq!(by_name.stdout, long.stdout, "help {path:?} is --help");
        let file =
            format!("{}.txt", ["bellrope".to_owned()].into_iter().chain(path.clone()).collect::<Vec<_>>().join("-"));
        freeze(&format!("help/{file}"), &shown);
        files.push(file);
        let commands = below(&long.stdout);
        let has_example =
            long.stdout.contains("\nExample:\n  bellrope ") || long.stdout.contains("\nExamples:\n  bellrope ");
        assert!(!commands.is_empty() || has_example, "the help of {path:?} has no example");
        asked.extend(commands.into_iter().map(|name| [path.clone(), vec![name]].concat()));
    }
    files.sort_unstable();
    assert!(files.len() > 30, "{files:?}");
    let folder = cases().join("help");
    for gone in names(&folder).iter().filter(|name| !files.contains(name)) {
        assert!(overwrites(), "{gone} is kept, and the command is gone");
        fs::remove_file(folder.join(gone)).unwrap();
    }
}

#[test]
fn the_version_is_told_as_it_was() {
    let stage = Stage::new();
    freeze("version.txt", &stage.all(&[&["--version"], &["-V"]]));
}

#[test]
fn completions_and_the_manual_have_the_names_that_they_had() {
    let stage = Stage::new();
    let mut shown = String::new();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let ran = stage.run(&["completions", shell]);
        assert!(ran.stdout.contains("doctor") && ran.stderr.is_empty(), "{ran:?}");
        let first = ran.stdout.lines().find(|line| !line.trim().is_empty()).unwrap();
        shown.push_str(&format!("{}the script begins with: {first}\n\n", ran.ended()));
    }
    let directory = stage.path("man1");
    let ran = stage.run(&["man", directory.to_str().unwrap()]);
    shown.push_str(&ran.shown());
    for name in names(&directory) {
        let page = fs::read_to_string(directory.join(&name)).unwrap();
        let title = page.lines().find(|line| line.starts_with(".TH")).unwrap_or("(no title)");
        shown.push_str(&format!("{name}: {}\n", stage.clean(title).trim_end()));
    }
    freeze("completions_and_man.txt", &shown);
}
