//! Names that stay here: what editors, file managers and NFS clients leave for a moment.

use glob::{MatchOptions, Pattern};

/// `.nfs*`: what a client calls a file that was removed while open. The others: Finder's, and vi's swap files.
pub const DEFAULT_EXCLUDES: [&str; 4] = [".nfs*", ".DS_Store", "._*", ".*.sw?"];

/// Names that are not uploaded.
#[derive(Clone, Debug, Default)]
pub struct Exclude {
    patterns: Vec<Pattern>,
}

impl Exclude {
    /// From globs, each matched against the last component of a path.
    /// # Errors
    /// What is wrong with one of them.
    pub fn new(globs: &[String]) -> Result<Exclude, String> {
        let patterns = globs.iter().map(|glob| parse(glob));
        Ok(Exclude { patterns: patterns.collect::<Result<_, _>>()? })
    }

    /// Whether a file of that name stays here.
    pub fn matches(&self, name: &[u8]) -> bool {
        let name = String::from_utf8_lossy(name);
        self.patterns.iter().any(|pattern| pattern.matches_with(&name, MatchOptions::new()))
    }
}

fn parse(glob: &str) -> Result<Pattern, String> {
    if glob.contains('/') {
        return Err(format!("{glob}: a glob is matched against the last part of a path, which has no /"));
    }
    Pattern::new(glob).map_err(|error| format!("{glob}: {error}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn defaults_keep_what_nobody_wants_in_a_bucket() {
        let exclude = Exclude::new(&DEFAULT_EXCLUDES.map(String::from)).unwrap();
        for name in [".nfs000000010000", ".DS_Store", "._photo.jpg", ".notes.txt.swp", ".x.swo"] {
            assert!(exclude.matches(name.as_bytes()), "{name}");
        }
        for name in ["a.swp", ".DS_Store2", "nfs", ".bashrc", "._", "x._y", ".x.sw"] {
            assert_eq!(exclude.matches(name.as_bytes()), name == "._", "{name}");
        }
        assert!(exclude.matches(b"._\xff"));
        assert!(!Exclude::default().matches(b".nfs1"));
    }

    #[test]
    fn a_glob_that_can_match_nothing_is_refused() {
        assert!(Exclude::new(&["a/b".into()]).unwrap_err().contains("has no /"));
        assert!(Exclude::new(&["[".into()]).unwrap_err().starts_with("[: "));
    }
}
