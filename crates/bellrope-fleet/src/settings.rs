//! How a server joins a fleet.

use std::{
    fmt,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// How a server joins a fleet: the section `[fleet]` of a configuration file.
///
/// ```
/// use bellrope_fleet::FleetSettings;
///
/// let settings = FleetSettings { servers: vec!["nats://10.0.0.7".into()], import: vec!["ai.*".into()], ..Default::default() };
/// assert!(settings.is_wanted() && settings.check().is_ok());
/// ```
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FleetSettings {
    /// The NATS servers, as in `nats://HOST:4222` or `tls://HOST`. Without any there is no fleet. Default none.
    pub servers: Vec<String>,
    /// Which message types others may call here: names, in which `*` stands for any characters. Default none.
    pub offer: Vec<String>,
    /// Which message types of others are served here. Default none.
    pub import: Vec<String>,
    /// Who answers what both could. Default `local`.
    pub order: Order,
    /// Which instance gets a call. Default `sticky`.
    pub choice: Choice,
    /// The first token of all subjects: fleets with different ones share nothing but NATS. 1 to 64 letters, digits, `-` or
    /// `_`. Default `bellrope`.
    pub prefix: String,
    /// A name for this server in lists and logs, at most 64 bytes. Default: none.
    pub name: String,
    /// A credentials file of NATS: a token signed by an account, and the key to it.
    pub credentials: Option<PathBuf>,
    /// A file with the seed of an nkey.
    pub nkey_seed_file: Option<PathBuf>,
    /// A user name.
    pub user: Option<String>,
    /// A file with the password of that user.
    pub password_file: Option<PathBuf>,
    /// A file with a token.
    pub token_file: Option<PathBuf>,
    /// A file with the seed of an nkey that signs who asks, where NATS lets this server in by something else. Default: the
    /// nkey of `nkey_seed_file` or `credentials`.
    pub signing_seed_file: Option<PathBuf>,
    /// Public keys of those whose word on who asks is taken here: nkeys of servers (`U...`), and of accounts (`A...`) that
    /// have signed their servers' claims. At most 1,024. Default: this server's own key; with `credentials` its account.
    pub trust: Vec<String>,
    /// A file with the certificates of who may sign the NATS server's. Default: those of the system.
    pub ca_file: Option<PathBuf>,
    /// A file with this side's certificate.
    pub certificate_file: Option<PathBuf>,
    /// A file with the key to that certificate.
    pub key_file: Option<PathBuf>,
    /// TLS begins before the NATS server says anything, as its own setting `handshake_first` asks for. Default no.
    pub tls_first: bool,
    /// Calls from the fleet that run here at once, 1 to 65,536. Each may hold 512 KiB of streams under way. Default 1,024.
    pub max_in_flight: u32,
    /// Bytes of requests and chunks in more than one part that are put together here at once, 1 MiB at least. Default
    /// 64 MiB.
    pub assembly_bytes: u32,
}

/// Who answers a message type that this server and others of the fleet have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// This server; what it has not, the fleet.
    #[default]
    Local,
    /// The fleet; if that is proven not to have run the call, this server. Types whose handlers answer on a worker are this
    /// server's alone.
    First,
    /// The fleet alone: what `import` means is not served by this server, not even when nobody of the fleet is there.
    Only,
}

/// Which instance of the fleet gets a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// NATS draws one, whatever the instances have to do.
    Queue,
    /// Of two that are drawn, the one with fewer calls from the fleet.
    Least,
    /// As `least`, but calls whose caller names a session go where the first call of that session went, until that instance
    /// is gone.
    #[default]
    Sticky,
}

/// What is wrong with a setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("fleet.{key} {fault}")]
pub struct SettingFault {
    /// The key in the section.
    pub key: &'static str,
    /// What is wrong, and what to write instead.
    pub fault: &'static str,
}

impl Default for FleetSettings {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            offer: Vec::new(),
            import: Vec::new(),
            order: Order::default(),
            choice: Choice::default(),
            prefix: "bellrope".to_owned(),
            name: String::new(),
            credentials: None,
            nkey_seed_file: None,
            user: None,
            password_file: None,
            token_file: None,
            signing_seed_file: None,
            trust: Vec::new(),
            ca_file: None,
            certificate_file: None,
            key_file: None,
            tls_first: false,
            max_in_flight: 1024,
            assembly_bytes: 64 * 1024 * 1024,
        }
    }
}

/// Addresses of NATS servers may carry passwords.
impl fmt::Debug for FleetSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { offer, import, order, prefix, name, .. } = self;
        let servers: Vec<_> = self.servers.iter().map(|server| without_password(server)).collect();
        f.debug_struct("FleetSettings")
            .field("servers", &servers)
            .field("offer", offer)
            .field("import", import)
            .field("order", order)
            .field("prefix", prefix)
            .field("name", name)
            .finish_non_exhaustive()
    }
}

impl FleetSettings {
    /// Whether there is a fleet to join.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        !self.servers.is_empty()
    }

    /// Checks what can be checked without asking anybody.
    ///
    /// # Errors
    /// The first fault.
    pub fn check(&self) -> Result<(), SettingFault> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let faults = [
            (
                !self.servers.iter().all(|server| is_address(server)),
                "servers",
                "has an address that is none; write nats://HOST:PORT",
            ),
            (
                !(1..=64).contains(&self.prefix.len()) || !self.prefix.bytes().all(plain),
                "prefix",
                "must be 1 to 64 letters, digits, - or _",
            ),
            (
                !self.name.is_empty() && !crate::names::is_name(&self.name),
                "name",
                "must have at most 64 bytes, no control characters, and no blanks at its ends",
            ),
            (
                self.trust.len() > 1024 || !self.trust.iter().all(|key| crate::names::is_public_key(key)),
                "trust",
                "must have at most 1024 public keys of users (U...) or accounts (A...), as nk and nsc show them",
            ),
            (!(1..=65_536).contains(&self.max_in_flight), "max_in_flight", "must be 1 to 65536"),
            (self.assembly_bytes < 1024 * 1024, "assembly_bytes", "must be 1048576 at least"),
            (
                self.user.is_some() != self.password_file.is_some(),
                "user",
                "and fleet.password_file go together: give both or neither",
            ),
            (
                self.certificate_file.is_some() != self.key_file.is_some(),
                "certificate_file",
                "and fleet.key_file go together: give both or neither",
            ),
            (
                self.servers.is_empty() && !(self.offer.is_empty() && self.import.is_empty()),
                "servers",
                "is empty; name the NATS servers, or neither offer nor import anything",
            ),
        ];
        match faults.into_iter().find(|(is_fault, ..)| *is_fault) {
            Some((_, key, fault)) => Err(SettingFault { key, fault }),
            None => Ok(()),
        }
    }

    /// The files that it names, by their keys.
    fn files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let files = [
            ("credentials", &self.credentials),
            ("nkey_seed_file", &self.nkey_seed_file),
            ("password_file", &self.password_file),
            ("token_file", &self.token_file),
            ("signing_seed_file", &self.signing_seed_file),
            ("key_file", &self.key_file),
            ("ca_file", &self.ca_file),
            ("certificate_file", &self.certificate_file),
        ];
        files.into_iter().filter_map(|(key, path)| Some((key, path.as_deref()?)))
    }

    /// The files that cannot be read, by their keys, and why. None where no fleet is wanted.
    #[must_use]
    pub fn unreadable_files(&self) -> Vec<(&'static str, &Path, std::io::Error)> {
        let files = self.files().filter(|_| self.is_wanted());
        files.filter_map(|(key, path)| Some((key, path, std::fs::read(path).err()?))).collect()
    }

    /// The files with secrets that others on this machine may read, by their keys.
    pub(crate) fn open_secrets(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let named = self.files().filter(|(key, _)| !["ca_file", "certificate_file"].contains(key));
        // One that is not there is said by whoever reads it.
        named.filter(|(_, path)| std::fs::metadata(path).is_ok_and(|file| file.mode() & 0o004 != 0))
    }

    /// Whether the fleet is asked for a message type although this server may have it itself.
    #[must_use]
    pub fn leaves_to_fleet(&self, name: &str) -> bool {
        self.is_wanted() && self.order != Order::Local && crate::names::any_matches(&self.import, name)
    }

    /// The servers, without what is secret in their addresses.
    #[must_use]
    pub fn shown_servers(&self) -> String {
        self.servers.iter().map(|server| without_password(server)).collect::<Vec<_>>().join(", ")
    }
}

/// Whether it is the address of a NATS server that is spoken to as here: without web sockets.
fn is_address(server: &str) -> bool {
    let is_spoken = match server.split_once("://") {
        Some((scheme, _)) => ["nats", "tls"].contains(&scheme),
        None => !server.contains('/'),
    };
    is_spoken && server.parse::<async_nats::ServerAddr>().is_ok()
}

/// An address without user and password.
fn without_password(address: &str) -> String {
    let Some((before, host)) = address.rsplit_once('@') else { return address.to_owned() };
    let scheme = before.split_once("://").map_or("", |(scheme, _)| scheme);
    if scheme.is_empty() { host.to_owned() } else { format!("{scheme}://{host}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_password() {
        let settings = FleetSettings { servers: vec!["nats://me:secret@host:1".into()], ..FleetSettings::default() };
        assert_eq!(settings.shown_servers(), "nats://host:1");
        assert!(!format!("{settings:?}").contains("secret"));
    }

    #[test]
    fn a_secret_that_others_may_read_is_named() {
        let home = tempfile::tempdir().unwrap();
        let named = |mode: u32| {
            let seed = home.path().join("seed");
            std::fs::write(&seed, "S").unwrap();
            std::fs::set_permissions(&seed, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
            let settings = FleetSettings {
                signing_seed_file: Some(seed),
                token_file: Some(home.path().join("none")),
                ..FleetSettings::default()
            };
            settings.open_secrets().map(|(key, _)| key).collect::<Vec<_>>()
        };
        assert_eq!((named(0o600), named(0o640), named(0o644)), (vec![], vec![], vec!["signing_seed_file"]));
    }

    #[test]
    fn a_fault_names_its_key() {
        let with = |change: fn(&mut FleetSettings)| {
            let mut settings = FleetSettings { servers: vec!["nats://h".into()], ..FleetSettings::default() };
            change(&mut settings);
            settings.check().map_err(|fault| fault.key)
        };
        assert_eq!(with(|_| {}), Ok(()));
        assert_eq!(with(|settings| settings.prefix = "a.b".into()), Err("prefix"));
        assert_eq!(with(|settings| settings.servers.push("http://[".into())), Err("servers"));
        for address in ["ws://h", "wss://h", "http://h", "nats//h", "h/x"] {
            let settings = FleetSettings { servers: vec![address.to_owned()], ..FleetSettings::default() };
            assert_eq!(settings.check().map_err(|fault| fault.key), Err("servers"), "{address}");
        }
        for address in ["h", "h:4222", "tls://h", "nats://me:secret@[::1]:4222"] {
            let settings = FleetSettings { servers: vec![address.to_owned()], ..FleetSettings::default() };
            assert_eq!(settings.check(), Ok(()), "{address}");
        }
        assert_eq!(with(|settings| settings.user = Some("me".into())), Err("user"));
        assert_eq!(with(|settings| settings.trust = vec!["UABC".into()]), Err("trust"));
        for name in ["desk ", " desk", "de\nsk", &"d".repeat(65)] {
            let settings = FleetSettings { name: name.to_owned(), ..FleetSettings::default() };
            assert_eq!(settings.check().map_err(|fault| fault.key), Err("name"), "{name:?}");
        }
        assert_eq!(with(|settings| settings.name = "desk 7".into()), Ok(()));
        assert_eq!(with(|settings| settings.trust = vec![nkeys::KeyPair::new_account().public_key()]), Ok(()));
        assert_eq!(with(|settings| settings.max_in_flight = 0), Err("max_in_flight"));
    }
}
