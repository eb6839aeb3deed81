//! `--allow`: how a rule is written, and what the rules come to.

use std::net::SocketAddr;
use std::str::FromStr;

use super::config::ConfigError;
use super::serve::{ServeArgs, SquashArg};
use crate::access::{Network, Rule, Rules};
use crate::config;
use crate::rpc::{Grant, Squash};

/// One rule of `--allow`: `NETWORK[=OPTION[+OPTION]]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllowRule {
    network: Network,
    read_only: bool,
    /// `None`: as `--squash` says.
    squash: Option<SquashArg>,
}

impl FromStr for AllowRule {
    type Err = String;

    fn from_str(text: &str) -> Result<AllowRule, String> {
        let (network, options) = text.trim().split_once('=').map_or((text.trim(), None), |(n, o)| (n, Some(o)));
        let (network, mut read_only, mut squash) = (network.parse()?, None, None);
        for option in options.into_iter().flat_map(|options| options.split('+')) {
            let said = match option {
                "ro" => read_only.replace(true).is_some(),
                "rw" => read_only.replace(false).is_some(),
                "squash-none" => squash.replace(SquashArg::None).is_some(),
                "squash-root" => squash.replace(SquashArg::Root).is_some(),
                "squash-all" => squash.replace(SquashArg::All).is_some(),
                _ => {
                    return Err(format!(
                        "{option:?} is none of ro, rw, squash-none, squash-root and squash-all, as in 10.0.0.0/8=ro+squash-all"
                    ));
                }
            };
            if said {
                return Err(format!("{option} contradicts or repeats what the rule says before"));
            }
        }
        Ok(AllowRule { network, read_only: read_only.unwrap_or(false), squash })
    }
}

/// Who may come in, by `--allow`, `--secure-ports`, `--squash` and where it listens.
pub(super) fn rules(args: &ServeArgs) -> Result<Rules, ConfigError> {
    check_anonymous(args)?;
    let rules = match &args.allow[..] {
        [] if is_local(args.listen) => Rules::loopback(squash(args, args.squash)),
        [] => return Err(ConfigError::ListenOpen(args.listen, everybody(args.listen))),
        allow => named(args, allow)?,
    };
    Ok(Rules { rules, secure_ports: args.secure_ports })
}

/// The rules as they are written.
fn named(args: &ServeArgs, allow: &[AllowRule]) -> Result<Vec<Rule>, ConfigError> {
    let loopback = if args.listen.ip().to_canonical().is_ipv4() { Network::LOOPBACK_V4 } else { Network::LOOPBACK_V6 };
    if is_local(args.listen) && !allow.iter().any(|rule| rule.network.overlaps(loopback)) {
        return Err(ConfigError::NobodyAllowed(args.listen));
    }
    for (at, rule) in allow.iter().enumerate() {
        if allow[..at].iter().any(|earlier| earlier.network == rule.network) {
            return Err(ConfigError::AllowedTwice(rule.network));
        }
    }
    let rule = |rule: &AllowRule| {
        let squash = squash(args, rule.squash.unwrap_or(args.squash));
        Rule { network: rule.network, grant: Grant { read_only: rule.read_only, squash } }
    };
    Ok(allow.iter().map(rule).collect())
}

fn is_local(listen: SocketAddr) -> bool {
    listen.ip().to_canonical().is_loopback()
}

/// The rule for all that can reach a listener.
fn everybody(listen: SocketAddr) -> &'static str {
    match listen.ip().to_canonical() {
        ip if ip.is_ipv4() => "0.0.0.0/0",
        ip if ip.is_unspecified() => "0.0.0.0/0,::/0",
        _ => "::/0",
    }
}

fn squash(args: &ServeArgs, whom: SquashArg) -> Squash {
    let anonymous = |id: Option<u32>| id.unwrap_or(config::ANONYMOUS);
    let (uid, gid) = (anonymous(args.anon_uid), anonymous(args.anon_gid));
    match whom {
        SquashArg::None => Squash::None,
        SquashArg::Root => Squash::Root(uid, gid),
        SquashArg::All => Squash::All(uid, gid),
    }
}

fn check_anonymous(args: &ServeArgs) -> Result<(), ConfigError> {
    let squashes = |whom: SquashArg| whom != SquashArg::None;
    if squashes(args.squash) || args.allow.iter().filter_map(|rule| rule.squash).any(squashes) {
        return Ok(());
    }
    match (args.anon_uid, args.anon_gid) {
        (Some(_), _) => Err(ConfigError::AnonymousUnused("--anon-uid")),
        (_, Some(_)) => Err(ConfigError::AnonymousUnused("--anon-gid")),
        (None, None) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Result<(String, bool, Option<SquashArg>), String> {
        text.parse().map(|rule: AllowRule| (rule.network.to_string(), rule.read_only, rule.squash))
    }

    #[test]
    fn a_rule_is_a_network_and_what_it_may() {
        for (text, network, read_only, squash) in [
            ("10.0.0.0/8", "10.0.0.0/8", false, None),
            ("10.0.0.0/8=rw", "10.0.0.0/8", false, None),
            ("192.168.1.7=ro", "192.168.1.7", true, None),
            ("fd00::/8=ro+squash-all", "fd00::/8", true, Some(SquashArg::All)),
            ("2001:db8::7=squash-root", "2001:db8::7", false, Some(SquashArg::Root)),
            (" ::1=squash-none+ro", "::1", true, Some(SquashArg::None)),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8", false, None),
        ] {
            assert_eq!(rule(text), Ok((network.into(), read_only, squash)), "{text}");
        }
    }

    #[test]
    fn wrong_rules_say_what_is_right() {
        for (text, hint) in [
            ("", "192.168.1.7"),
            ("=ro", "192.168.1.7"),
            ("10.0.0.0/8=", "ro, rw"),
            ("10.0.0.0/8=read-only", "ro, rw"),
            ("10.0.0.0/8=ro+", "ro, rw"),
            ("10.0.0.0/8=ro=rw", "ro, rw"),
            ("10.0.0.0/8=ro+rw", "rw contradicts"),
            ("10.0.0.0/8=squash-all+squash-all", "squash-all contradicts"),
            ("10.0.0.1/8", "10.0.0.0/8"),
        ] {
            let error = rule(text).expect_err(text);
            assert!(error.contains(hint), "{text}: {error}");
        }
    }
}
