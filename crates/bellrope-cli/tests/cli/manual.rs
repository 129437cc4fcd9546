//! `completions` and `man`.

use crate::support::Home;

#[test]
fn every_shell_has_its_completions() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = home.run(["completions", shell]).succeeded();
        assert!(script.contains("bellrope") && script.contains("doctor"), "{shell}: {script}");
    }
    assert!(home.run(["completions", "cmd"]).failed(2).contains("possible values: bash, elvish, fish"));
}

#[test]
fn the_manual_has_a_page_for_the_program_and_for_every_command() {
    let home = Home::new();
    let directory = home.path("man1");
    home.run(["man".as_ref(), directory.as_os_str()]).succeeded();
    let page =
        |name: &str| std::fs::read_to_string(directory.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(page("bellrope.1").contains(".TH bellrope 1"), "{}", page("bellrope.1"));
    assert!(page("bellrope-serve.1").contains("max\\-connections"), "{}", page("bellrope-serve.1"));
    assert!(
        page("bellrope-breaker-open.1").contains("bellrope\\-breaker\\-open"),
        "{}",
        page("bellrope-breaker-open.1")
    );
    let names: Vec<_> = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    // What is hidden is nobody's command.
    assert!(names.len() > 15 && names.iter().all(|name| name != "bellrope-bench-server.1"), "{names:?}");
}
