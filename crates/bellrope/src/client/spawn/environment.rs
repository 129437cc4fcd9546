//! Which variables a started server has. It serves programs with other environments than that of its starter, so it has
//! few, and a list of them.

use std::ffi::{OsStr, OsString};

const NAMES: [&str; 9] = ["HOME", "USER", "LOGNAME", "PATH", "LANG", "LANGUAGE", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR"];
/// In capital letters or in small ones.
const PROXIES: [&str; 4] = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"];
const PREFIXES: [&str; 2] = ["LC_", "XDG_"];

/// Those of `variables` that a server has, with the `inherited` ones and then those that are `given`.
pub(super) fn chosen(
    variables: impl Iterator<Item = (OsString, OsString)>,
    inherited: &[OsString],
    given: &[(OsString, OsString)],
) -> Vec<(OsString, OsString)> {
    let kept = variables.filter(|(name, _)| is_known(name) || inherited.contains(name));
    kept.chain(given.iter().cloned()).collect()
}

fn is_known(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    NAMES.contains(&name)
        || PROXIES.iter().any(|proxy| *proxy == name || proxy.to_ascii_lowercase() == name)
        || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_has_what_is_on_the_list_and_what_it_is_given_and_nothing_else() {
        let pairs = |of: &[(&str, &str)]| -> Vec<(OsString, OsString)> {
            of.iter().map(|(name, value)| (name.into(), value.into())).collect()
        };
        let variables = pairs(&[
            ("HOME", "/h"),
            ("LC_ALL", "C"),
            ("XDG_STATE_HOME", "/s"),
            ("https_proxy", "p"),
            ("NO_PROXY", "n"),
            ("Http_Proxy", "no"),
            ("TMPDIR", "/sandbox"),
            ("PWD", "/worktree"),
            ("SECRET", "no"),
            ("KEY", "of the provider"),
            ("LD_PRELOAD", "no"),
            ("NOTIFY_SOCKET", "no"),
            ("LISTEN_FDS", "3"),
        ]);
        let expected = pairs(&[
            ("HOME", "/h"),
            ("LC_ALL", "C"),
            ("XDG_STATE_HOME", "/s"),
            ("https_proxy", "p"),
            ("NO_PROXY", "n"),
            ("KEY", "of the provider"),
            ("RUST_LOG", "warn"),
        ]);
        assert_eq!(chosen(variables.into_iter(), &["KEY".into()], &pairs(&[("RUST_LOG", "warn")])), expected);
    }
}
