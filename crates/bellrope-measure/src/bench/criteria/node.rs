//! What the user has today: Node's IPC between a parent and a child process.

use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

/// Forks itself and echoes objects with 64 characters of text through `process.send`, one at a time.
const SCRIPT: &str = r#"
if (process.send) {
  process.on('message', (message) => process.send(message));
} else {
  const { fork } = require('child_process');
  const child = fork(process.argv[1]);
  const payload = { text: 'x'.repeat(64) };
  const spans = [];
  let calls = -2000, start;
  const call = () => { start = process.hrtime.bigint(); child.send(payload); };
  child.on('message', () => {
    if (calls++ >= 0) spans.push(Number(process.hrtime.bigint() - start));
    if (calls < 10000) return call();
    child.disconnect();
    spans.sort((a, b) => a - b);
    console.log(spans[spans.length >> 1] / 1000);
  });
  call();
}
"#;

/// The median round trip in microseconds.
pub(super) fn round_trip() -> anyhow::Result<f64> {
    let home = tempfile::tempdir().context("making a temporary directory")?;
    let script = home.path().join("echo.js");
    std::fs::write(&script, SCRIPT).context("writing the script")?;
    let output = Command::new("node").arg(&script).stdin(Stdio::null()).output().context("running node")?;
    ensure!(output.status.success(), "node failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    String::from_utf8_lossy(&output.stdout).trim().parse().context("reading node's answer")
}
