//! The build script of the programs: has the linker put the code of a server that is at rest side by side. See `hot.ld`.

use std::{env, path::Path};

fn main() {
    let here = env::var("CARGO_MANIFEST_DIR").expect("set by Cargo");
    let layout = Path::new(&here).join("../../linker/hot.ld");
    println!("cargo::rerun-if-changed={}", layout.display());
    let target = |what: &str| env::var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    // Other linkers than those of GNU and LLVM, and other C libraries, have other names for these things.
    if target("OS") == "linux" && target("ENV") == "gnu" {
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{}", layout.display());
    }
}
