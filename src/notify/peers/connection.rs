//! How NATS is reached: its servers, who we are to it, and whether the connection stands.
//! Invariant: what lets us in is in no address, so in no log and no error.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, ClientError, ConnectOptions, Event, ServerAddr};
use percent_encoding::percent_decode_str;
use tokio::sync::watch;
use uuid::Uuid;

use crate::notify::SourceHealth;

/// 5 s, and two of them unanswered: a network that goes silent is noticed in a quarter of a minute.
const PING: Duration = Duration::from_secs(5);
/// Messages that wait to be read, of up to a MiB each: what is sent from here has a quarter of that.
const UNREAD: usize = 64;
/// What NATS takes longer for than this it will not do: one that must not know of JetStream does not answer.
const REQUEST: Duration = Duration::from_secs(5);

/// With what every question to JetStream begins.
const JETSTREAM: &str = "\"$JS.API.";

/// `--peers`: the servers of one NATS, and a name and password, or a token, for it.
#[derive(Clone)]
pub struct Servers {
    addresses: Vec<ServerAddr>,
    login: Option<Login>,
}

#[derive(Clone, PartialEq, Eq)]
enum Login {
    User(String, String),
    Token(String),
}

impl FromStr for Servers {
    type Err = String;

    fn from_str(list: &str) -> Result<Servers, String> {
        let mut servers = Servers { addresses: Vec::new(), login: None };
        for url in list.split(',').map(str::trim) {
            let (address, login) = parse(url)?;
            if let (Some(one), Some(other)) = (&servers.login, &login)
                && one != other
            {
                return Err("all servers of one NATS take the same user and password: give them with the first".into());
            }
            servers.addresses.push(address);
            servers.login = servers.login.or(login);
        }
        Ok(servers)
    }
}

/// An address without what is secret in it, and that.
fn parse(url: &str) -> Result<(ServerAddr, Option<Login>), String> {
    const FORM: &str = "NATS is given as nats://HOST[:PORT] or tls://HOST[:PORT], several servers separated by commas";
    // the error of the parser may quote the password
    let address: ServerAddr = url.parse().map_err(|_| FORM.to_owned())?;
    if !matches!(address.scheme(), "nats" | "tls") || address.host().is_empty() {
        return Err(FORM.into());
    }
    let text = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
    let login = match (address.username(), address.password()) {
        (Some(user), Some(password)) => Some(Login::User(text(user), text(password))),
        (Some(token), None) => Some(Login::Token(text(token))),
        (None, Some(_)) => return Err("the user's name is missing before the password".into()),
        (None, None) => None,
    };
    let mut bare = address.into_inner();
    let is_bare = bare.set_username("").and_then(|()| bare.set_password(None)).is_ok();
    let address = is_bare.then(|| ServerAddr::from_url(bare)).and_then(Result::ok).ok_or(FORM)?;
    Ok((address, login))
}

impl fmt::Display for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, address) in self.addresses.iter().enumerate() {
            let comma = if n > 0 { "," } else { "" };
            let host = address.host();
            match host.contains(':') {
                true => write!(f, "{comma}{}://[{host}]:{}", address.scheme(), address.port())?,
                false => write!(f, "{comma}{}://{host}:{}", address.scheme(), address.port())?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Files that NATS wants of us.
#[derive(Clone, Debug, Default)]
pub struct Papers {
    /// `--peers-creds`: a credentials file, as `nsc` writes it.
    pub credentials: Option<PathBuf>,
    /// `--peers-ca`: whom to trust instead of the system's authorities.
    pub authority: Option<PathBuf>,
    /// `--peers-cert`, `--peers-key`: a certificate and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

/// Why there is no talking to peers; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum PeersError {
    /// A file that was given.
    #[error("{flag} {}: {source}", path.display())]
    File {
        /// Which flag.
        flag: &'static str,
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: std::io::Error,
    },
    /// The client.
    #[error("--peers {servers}: {why}")]
    Client {
        /// Where to.
        servers: String,
        /// What it says.
        why: String,
    },
}

/// Whether the connection stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) connected: bool,
    /// Another number: something may have been missed in between.
    pub(super) number: u64,
}

/// Begins to connect, and goes on with that for ever: a NATS that is down is no error.
pub(super) async fn connect(
    servers: &Servers,
    papers: &Papers,
    name: String,
    link: watch::Sender<Link>,
    health: Arc<SourceHealth>,
) -> Result<Client, PeersError> {
    let options = ConnectOptions::new()
        .name(name)
        .retry_on_initial_connect()
        .ping_interval(PING)
        .subscription_capacity(UNREAD)
        .request_timeout(Some(REQUEST))
        .reconnect_delay_callback(delay)
        .event_callback(move |event| {
            note(event, &link, &health);
            async {}
        });
    let options = admitted(options, servers, papers).await?;
    let client = options.connect(servers.addresses.clone()).await;
    client.map_err(|error| PeersError::Client { servers: servers.to_string(), why: error.to_string() })
}

async fn admitted(
    mut options: ConnectOptions,
    servers: &Servers,
    papers: &Papers,
) -> Result<ConnectOptions, PeersError> {
    options = match servers.login.clone() {
        Some(Login::User(user, password)) => options.user_and_password(user, password),
        Some(Login::Token(token)) => options.token(token),
        None => options,
    };
    if let Some(path) = &papers.credentials {
        let file = |source| PeersError::File { flag: "--peers-creds", path: path.clone(), source };
        let text = tokio::fs::read_to_string(path).await.map_err(file)?;
        options = options.credentials(&text).map_err(file)?;
    }
    if let Some(path) = &papers.authority {
        readable("--peers-ca", path).await?;
        options = options.add_root_certificates(path.clone());
    }
    if let Some((certificate, key)) = &papers.certificate {
        readable("--peers-cert", certificate).await?;
        readable("--peers-key", key).await?;
        options = options.add_client_certificate(certificate.clone(), key.clone());
    }
    Ok(options)
}

async fn readable(flag: &'static str, path: &PathBuf) -> Result<(), PeersError> {
    let read = tokio::fs::read(path).await;
    read.map(|_| ()).map_err(|source| PeersError::File { flag, path: path.clone(), source })
}

/// Before the next try: up to 5 s, and not all servers at once.
fn delay(attempts: usize) -> Duration {
    const LONGEST: u64 = 5_000;
    if attempts <= 1 {
        return Duration::ZERO;
    }
    let longest = (50 << attempts.min(10)).min(LONGEST);
    let (random, _) = Uuid::new_v4().as_u64_pair();
    Duration::from_millis(longest / 2 + random % (longest / 2))
}

fn note(event: Event, link: &watch::Sender<Link>, health: &SourceHealth) {
    let set = |connected| link.send_modify(|link| *link = Link { connected, number: link.number + 1 });
    match event {
        Event::Connected => {
            tracing::info!("connected to NATS");
            set(true);
        }
        Event::Disconnected | Event::Closed => {
            set(false);
            if health.failed("not connected to NATS") {
                tracing::warn!("the connection to NATS is lost: no word from peers, asking S3 as without them");
            }
        }
        // messages were thrown away
        Event::SlowConsumer(_) => set(true),
        // whoever asks for a stream is told as well, and goes without
        Event::ServerError(error) if error.to_string().contains(JETSTREAM) => tracing::debug!(%error, "no JetStream"),
        Event::ServerError(error) => failed(&error.to_string(), health),
        Event::ClientError(ClientError::Other(error)) => failed(&error, health),
        Event::ClientError(error) => failed(&error.to_string(), health),
        Event::LameDuckMode | Event::Draining => {}
    }
}

/// Tells the first of a row of failures.
pub(super) fn failed(why: &str, health: &SourceHealth) {
    if health.failed(why) {
        tracing::warn!(why, "no word from peers: asking S3 as without them, and trying again");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_lets_us_in_is_in_no_text() {
        let servers: Servers = "nats://boss:s3cr%40t@one:4333,tls://two, nats://[::1]".parse().unwrap();
        for text in [servers.to_string(), format!("{servers:?}"), format!("{:?}", servers.addresses)] {
            assert!(!text.contains("s3cr") && !text.contains("boss"), "{text}");
        }
        assert_eq!(servers.to_string(), "nats://one:4333,tls://two:4222,nats://[::1]:4222");
        assert!(servers.login == Some(Login::User("boss".into(), "s3cr@t".into())));
        let servers: Servers = "nats://t0ken@one".parse().unwrap();
        assert!(servers.login == Some(Login::Token("t0ken".into())));
        assert!("one".parse::<Servers>().unwrap().login.is_none());
    }

    #[test]
    fn what_is_no_nats_is_refused_without_quoting_it() {
        for url in [
            "",
            "http://one",
            "ws://one",
            "nats://",
            "nats://me:s3cret@one:99999",
            "nats://:s3cret@one",
            "nats://a:s3cret@one,nats://b:s3cret@two",
            "nats://one,",
        ] {
            let error = url.parse::<Servers>().unwrap_err();
            assert!(!error.contains("s3cret"), "{url}: {error}");
        }
    }

    #[test]
    fn tries_are_apart_and_never_end() {
        assert_eq!(delay(1), Duration::ZERO);
        for attempts in [2, 3, 10, 1_000, usize::MAX] {
            let delay = delay(attempts);
            assert!((Duration::from_millis(100)..=Duration::from_secs(5)).contains(&delay), "{attempts}: {delay:?}");
        }
    }
}
