//! `-o`: options of the mount, as `mount` takes them.
//! Invariant: in the list that results, a later word about the same thing comes last, and the last one counts.

use super::linux;

/// Options of the mount, one word each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options(Vec<String>);

/// What fasts3 says itself, and what nobody else can know better.
const OURS: [&str; 10] =
    ["addr", "mountaddr", "port", "mountport", "nfsvers", "vers", "proto", "mountproto", "tcp", "udp"];

/// What else Linux's NFS client knows of (see nfs(5)).
const NFS: [&str; 36] = [
    "ac",
    "noac",
    "acdirmax",
    "acdirmin",
    "acl",
    "noacl",
    "acregmax",
    "acregmin",
    "actimeo",
    "cto",
    "nocto",
    "fsc",
    "nofsc",
    "hard",
    "soft",
    "softerr",
    "softreval",
    "nosoftreval",
    "local_lock",
    "lock",
    "nolock",
    "lookupcache",
    "max_connect",
    "nconnect",
    "rdirplus",
    "nordirplus",
    "resvport",
    "noresvport",
    "retrans",
    "rsize",
    "sec",
    "sharecache",
    "nosharecache",
    "timeo",
    "wsize",
    "xprtsec",
];

/// Whether Linux's NFS client, or the kernel for any file system, knows `word`.
pub fn is_known(word: &str) -> bool {
    NFS.contains(&name(word)) || linux::is_flag(word)
}

impl Options {
    /// Splits lists at commas.
    pub fn parse<'a>(lists: impl IntoIterator<Item = &'a str>) -> Options {
        let words = lists.into_iter().flat_map(|list| list.split(',')).filter(|word| !word.is_empty());
        Options(words.map(str::to_owned).collect())
    }

    /// Puts `defaults` in front, so that what is there already wins over them.
    #[must_use]
    pub fn over<'a>(&self, defaults: impl IntoIterator<Item = &'a str>) -> Options {
        Options(defaults.into_iter().map(str::to_owned).chain(self.0.iter().cloned()).collect())
    }

    /// The words.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// As `-o` takes them.
    pub fn list(&self) -> String {
        self.0.join(",")
    }

    /// The first one that is not for the user to choose.
    pub fn not_theirs(&self) -> Option<&str> {
        self.words().find(|word| OURS.contains(&name(word)))
    }
}

/// `actimeo` of `actimeo=1`.
pub fn name(word: &str) -> &str {
    word.split_once('=').map_or(word, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_user_says_comes_last_and_wins() {
        let said = Options::parse(["actimeo=5,,soft", "rsize=4096"]);
        assert_eq!(said.over(["hard", "actimeo=1"]).list(), "hard,actimeo=1,actimeo=5,soft,rsize=4096");
    }

    #[test]
    fn address_and_version_are_not_for_the_user() {
        assert_eq!(Options::parse(["ro,port=7"]).not_theirs(), Some("port=7"));
        assert_eq!(Options::parse(["ro,actimeo=7,portable"]).not_theirs(), None);
    }
}
