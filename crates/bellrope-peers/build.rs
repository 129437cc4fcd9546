//! Writes the stubs of the gRPC peer's one method, so that no protobuf compiler is needed, and tells the program what
//! it was built with.

use std::{path::Path, process::Command};

use tonic_build::manual::{Builder, Method, Service};

fn main() {
    let call = Method::builder()
        .name("call")
        .route_name("Call")
        .input_type("crate::peers::grpc::Body")
        .output_type("crate::peers::grpc::Body")
        .codec_path("tonic_prost::ProstCodec")
        .build();
    let echo = Service::builder().name("Echo").package("bench").method(call).build();
    Builder::new().compile(&[echo]);

    let compiler = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let version = Command::new(compiler).arg("--version").output().map(|output| output.stdout).unwrap_or_default();
    println!("cargo::rustc-env=BUILT_WITH={}", String::from_utf8_lossy(&version).trim());
    // .../PROFILE/build/bellrope-peers-HASH/out
    let out = std::env::var("OUT_DIR").unwrap_or_default();
    let profile = Path::new(&out).ancestors().nth(3).and_then(Path::file_name).unwrap_or_default();
    println!("cargo::rustc-env=BUILT_AS={}", profile.to_string_lossy());
    println!("cargo::rerun-if-changed=build.rs");
}
