//! `bench`: that it measures at all. How fast it is belongs to the release build.

use serde_json::Value;

use crate::support::Home;

#[test]
fn the_gateway_is_measured_beside_a_bare_client_with_every_figure_in_json() {
    let home = Home::new();
    let report = home.run(["bench", "gateway", "--seconds", "2", "--pace", "100", "--json"]).succeeded();
    let report: Value = serde_json::from_str(&report).unwrap();
    let figure =
        |path: &str| report.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path}: {report}"));
    assert!(figure("/chunks") > 0.0);
    for side in ["through_gateway", "direct"] {
        let (p50, p99) = (figure(&format!("/{side}/p50_us")), figure(&format!("/{side}/p99_us")));
        assert!(p50 > 0.0 && p50 <= p99, "{side}: {report}");
    }
    let added = figure("/through_gateway/p50_us") - figure("/direct/p50_us");
    assert!((figure("/added_p50_us") - added).abs() < 0.01, "{report}");
    assert!(figure("/chunks_per_s") > 0.0 && figure("/direct_chunks_per_s") > 0.0);
}
