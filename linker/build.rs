//! The build script of the programs: has the linker put the code of a server that is at rest side by side. See `hot.ld`.

use std::{env, path::Path};

fn main() {
    let here = env::var("CARGO_MANIFEST_DIR").expect("set by Cargo");
    let layout = Path::new(&here).join("../../linker/hot.ld");
    println!("cargo::rerun-if-changed={}", layout.display());
    let target = |what: &str| env::var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    println!("cargo::rerun-if-env-changed=BELLROPE_NO_LAYOUT");
    // Other linkers than those of GNU and LLVM do not read it, and other C libraries and processors have other names for these
    // things. Without it a server at rest takes more memory, and nothing else changes.
    let chosen = ["CARGO_ENCODED_RUSTFLAGS", "RUSTC_LINKER"].map(|key| env::var(key).unwrap_or_default()).concat();
    let reads_it = !["mold", "gold", "wild"].iter().any(|other| chosen.contains(other));
    let is_known = target("ARCH") == "x86_64" && target("OS") == "linux" && target("ENV") == "gnu";
    if reads_it && is_known && env::var_os("BELLROPE_NO_LAYOUT").is_none() {
        for arg in ["-Xlinker", "-T", "-Xlinker", &layout.display().to_string()] {
            println!("cargo::rustc-link-arg-bins={arg}");
        }
    }
}
