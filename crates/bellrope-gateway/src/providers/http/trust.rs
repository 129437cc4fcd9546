//! The authorities whose certificates this machine trusts, for servers behind TLS.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls_native_certs::{load_certs_from_paths, load_native_certs};

use crate::error::{ConfigError, Excerpt, ProviderError};

/// Names a file with certificates in PEM form.
pub(super) const FILE: &str = "SSL_CERT_FILE";
/// Names directories with such files.
const DIRECTORY: &str = "SSL_CERT_DIR";

/// A file larger than this holds no certificates of authorities: a machine's whole bundle has some 250 kB. In bytes.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// Checks what the variables name, so that a wrong one is known at the start rather than at the first request. Empty
/// ones say nothing.
pub(crate) fn check(vars: &impl Fn(&str) -> Option<String>) -> Result<(), ConfigError> {
    let set = |name: &str| vars(name).filter(|value| !value.trim().is_empty());
    let invalid = |key: &'static str, reason: String| ConfigError::Invalid { key: key.into(), reason: reason.into() };
    if let Some(path) = set(FILE).map(PathBuf::from) {
        check_file(&path).map_err(|fault| {
            let fix = "name a file with the certificates of authorities in PEM form, or unset it";
            invalid(FILE, format!("names {}, which {fault}; {fix}", path.display()))
        })?;
    }
    if let Some(paths) = set(DIRECTORY) {
        check_directories(&paths).map_err(|fault| {
            let fix = "name a directory with certificates of authorities in PEM form, or unset it";
            invalid(DIRECTORY, format!("{fault}; {fix}"))
        })?;
    }
    Ok(())
}

fn check_file(path: &Path) -> Result<(), String> {
    let metadata = fs::metadata(path).map_err(|error| format!("cannot be read ({error})"))?;
    if metadata.is_dir() {
        return Err(format!("is a directory (that belongs into {DIRECTORY})"));
    }
    if !metadata.is_file() || metadata.len() > MAX_FILE {
        return Err("is no file of certificates".to_owned());
    }
    fs::File::open(path).map_err(|error| format!("cannot be read ({error})"))?;
    match usable(Some(path), None) {
        0 => Err("holds no certificate".to_owned()),
        _ => Ok(()),
    }
}

fn check_directories(paths: &str) -> Result<(), String> {
    let mut found = 0;
    for path in env::split_paths(paths).filter(|path| !path.as_os_str().is_empty()) {
        fs::read_dir(&path).map_err(|error| format!("names {}, which cannot be read ({error})", path.display()))?;
        found += usable(None, Some(&path));
    }
    if found == 0 { Err(format!("names {paths}, where no certificate is")) } else { Ok(()) }
}

/// How many certificates are there that can be used.
fn usable(file: Option<&Path>, directory: Option<&Path>) -> usize {
    RootCertStore::empty().add_parsable_certificates(load_certs_from_paths(file, directory).certs).0
}

/// The machine's authorities, or those of the variables.
pub(super) fn roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(load_native_certs().certs);
    roots
}

/// The error of a machine that trusts nobody.
pub(super) fn nobody() -> ProviderError {
    let named = [FILE, DIRECTORY].into_iter().find_map(|name| Some((name, env::var_os(name)?)));
    let reason = match named {
        Some((name, path)) => {
            let path = path.to_string_lossy();
            format!("{name} names `{path}`, where no certificate can be read; name another place, or unset it")
        }
        None => format!(
            "this machine has no root certificates; install them (the package ca-certificates), or name a file of them in {FILE}"
        ),
    };
    ProviderError::Setup { reason: Excerpt::new(&reason) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(name: &str, path: &Path) -> String {
        let vars = |asked: &str| (asked == name).then(|| path.to_string_lossy().into_owned());
        check(&vars).unwrap_err().to_string()
    }

    #[test]
    fn a_file_or_directory_that_holds_no_certificate_is_named_with_its_variable() {
        let place = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = place.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let rubbish = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (path, expected) in [
            (place.path().join("missing"), "which cannot be read (No such file"),
            (place.path().to_owned(), "which is a directory (that belongs into SSL_CERT_DIR)"),
            (write("empty", ""), "which holds no certificate; name a file"),
            (write("words", "no certificate"), "which holds no certificate"),
            (write("rubbish", rubbish), "which holds no certificate"),
            (PathBuf::from("/dev/zero"), "which is no file of certificates"),
        ] {
            let said = fault(FILE, &path);
            assert!(said.starts_with(&format!("SSL_CERT_FILE names {}, ", path.display())), "{said}");
            assert!(said.contains(expected), "{said}");
        }
        assert!(fault(DIRECTORY, &place.path().join("missing")).contains("which cannot be read"));
        assert!(fault(DIRECTORY, place.path()).contains("where no certificate is; name a directory"));
    }

    #[test]
    fn what_holds_a_certificate_is_right_and_what_is_empty_says_nothing() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("one.pem");
        fs::write(&path, rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem()).unwrap();
        let (file, directory) = (path.to_string_lossy().into_owned(), place.path().to_string_lossy().into_owned());
        for (name, value) in [(FILE, file.as_str()), (DIRECTORY, &directory), (FILE, " "), (DIRECTORY, "")] {
            assert!(check(&|asked: &str| (asked == name).then(|| value.to_owned())).is_ok(), "{name}={value}");
        }
    }
}
