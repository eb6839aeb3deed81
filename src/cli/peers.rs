//! `--peers`: its flags, and the settings they come to.

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

use super::config::ConfigError;
use super::values;
use crate::config;
use crate::notify::peers::{Pace, Papers, Settings};

/// Flags of `serve` about other servers of the same bucket.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Other servers")]
pub struct PeersArgs {
    /// NATS servers over which servers of one bucket tell each other what they have changed, as in
    /// nats://HOST:PORT,tls://HOST. A user and password or a token may stand before the host; give those in the
    /// environment, where nobody sees them
    #[arg(long, env = "FASTS3_PEERS", hide_env_values = true, value_name = "URL[,URL]")]
    pub peers: Option<Unread>,

    /// Credentials file for NATS, as `nsc` writes it
    #[arg(long, env = "FASTS3_PEERS_CREDS", value_name = "FILE", requires = "peers")]
    pub peers_creds: Option<PathBuf>,

    /// Certificates (PEM) to trust a NATS by, instead of the system's
    #[arg(long, env = "FASTS3_PEERS_CA", value_name = "FILE", requires = "peers")]
    pub peers_ca: Option<PathBuf>,

    /// Certificate (PEM) to show to NATS
    #[arg(long, env = "FASTS3_PEERS_CERT", value_name = "FILE", requires = "peers_key")]
    pub peers_cert: Option<PathBuf>,

    /// Its key (PEM)
    #[arg(long, env = "FASTS3_PEERS_KEY", value_name = "FILE", requires = "peers_cert")]
    pub peers_key: Option<PathBuf>,

    /// A name that servers share which reach one S3 by different URLs [default: the host in --endpoint-url]
    #[arg(long, env = "FASTS3_PEERS_GROUP", value_name = "NAME", requires = "peers")]
    pub peers_group: Option<String>,

    /// Objects of up to this size ride along with what is told of them; 0: none
    #[arg(long, env = "FASTS3_PEER_INLINE", value_name = "SIZE", value_parser = values::bytes, requires = "peers")]
    pub peer_inline: Option<u64>,
}

/// A value that may hold a password: what is wrong with it is said without quoting it, which clap would do.
#[derive(Clone)]
pub struct Unread(String);

impl FromStr for Unread {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Unread, Infallible> {
        Ok(Unread(text.to_owned()))
    }
}

impl fmt::Debug for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("...")
    }
}

/// Who the peers are, if there are to be any.
pub(super) fn settings(args: &PeersArgs) -> Result<Option<Settings>, ConfigError> {
    let Some(Unread(servers)) = &args.peers else { return Ok(None) };
    if args.peers_group.as_deref() == Some("") {
        return Err(ConfigError::Empty("--peers-group"));
    }
    let inline_bytes = args.peer_inline.unwrap_or(0);
    if inline_bytes > config::MAX_PEER_INLINE_BYTES {
        return Err(ConfigError::Range { flag: "--peer-inline", wanted: "64 KiB or less".into() });
    }
    Ok(Some(Settings {
        servers: servers.parse().map_err(ConfigError::Peers)?,
        papers: Papers {
            credentials: args.peers_creds.clone(),
            authority: args.peers_ca.clone(),
            certificate: args.peers_cert.clone().zip(args.peers_key.clone()),
        },
        group: args.peers_group.clone(),
        inline_bytes,
        pace: Pace::default(),
    }))
}
