//! A program that was built without fleets says so, wherever one is asked for.

use crate::support::Home;

#[test]
fn whoever_asks_for_a_fleet_is_told_how_to_get_a_program_that_has_it() {
    let home = Home::new();
    let config = home.config("[fleet]\nservers = [\"nats://h\"]\n");
    let config = config.to_str().unwrap();
    for (command, code) in [
        (&["fleet"][..], 1),
        (&["fleet", "list", "--fleet", "nats://127.0.0.1:4222", "--json"], 1),
        (&["bench", "fleet", "--quick"], 1),
        (&["serve", "--fleet", "nats://127.0.0.1:4222"], 2),
        (&["serve", "--import", "ai.*"], 2),
        (&["serve", "--set", "fleet.order=only"], 2),
        (&["serve", "--config", config], 2),
    ] {
        let said = home.run(command).failed(code);
        assert!(said.contains("this program was built without fleets; `cargo build"), "{command:?}: {said}");
    }
    let help = home.run(["serve", "--help"]).succeeded();
    assert!(!help.contains("--fleet"), "{help}");
}
