//! Named places at which a test lets the process die, as if its power went.
//! Invariant: in a release build a point is nothing at all.
//!
//! `FASTS3_CRASH_AT=name` aborts the process when it first comes to that point, `name:3` at the third time.

/// Every point there is, for tests that go through them all.
pub const POINTS: &[&str] = &[
    "fs.after_write",
    "fs.after_edit",
    "index.before_log_sync",
    "index.after_log_sync",
    "index.before_checkpoint",
    "index.after_checkpoint",
    "content.after_staging_sync",
    "content.after_promote",
    "content.after_evict",
    "content.after_unlink",
    "writeback.before_put",
    "writeback.after_put",
    "writeback.after_settle",
    "writeback.after_copy",
    "writeback.before_delete",
    "writeback.after_delete",
    "writeback.after_note_upload",
    "writeback.after_part",
    "writeback.before_complete",
    "writeback.after_complete",
    "writeback.after_expand",
    "writeback.after_conflict",
];

/// Dies here, if the environment says so.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn point(_name: &'static str) {}

/// Dies here, if the environment says so.
#[cfg(debug_assertions)]
pub fn point(name: &'static str) {
    debug_assert!(POINTS.contains(&name), "{name} is not in the list");
    if armed::is_due(name) {
        // no destructor runs and nothing is flushed: what a power cut leaves, as far as the process goes
        std::process::abort();
    }
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// The point to die at and how often it is still to be passed.
    struct Armed {
        name: String,
        left: AtomicU64,
    }

    static ARMED: LazyLock<Option<Armed>> = LazyLock::new(|| parse(&std::env::var("FASTS3_CRASH_AT").ok()?));

    fn parse(text: &str) -> Option<Armed> {
        let (name, count) = text.rsplit_once(':').unwrap_or((text, "1"));
        Some(Armed { name: name.to_owned(), left: AtomicU64::new(count.parse().ok().filter(|n| *n > 0)?) })
    }

    pub(super) fn is_due(name: &str) -> bool {
        ARMED.as_ref().is_some_and(|armed| passes(armed, name))
    }

    fn passes(armed: &Armed, name: &str) -> bool {
        armed.name == name && armed.left.fetch_sub(1, Ordering::SeqCst) == 1
    }

    #[cfg(test)]
    mod tests {
        #![allow(clippy::unwrap_used)]
        use super::*;

        #[test]
        fn the_nth_passage_of_the_named_point_is_due_and_no_other() {
            let armed = parse("writeback.after_put:3").unwrap();
            let due: Vec<bool> = (0..5).map(|_| passes(&armed, "writeback.after_put")).collect();
            assert_eq!(due, [false, false, true, false, false]);
            assert!(!passes(&parse("writeback.after_put").unwrap(), "writeback.after_copy"));
            assert!(passes(&parse("writeback.after_put").unwrap(), "writeback.after_put"));
            assert!(parse("writeback.after_put:0").is_none() && parse("writeback.after_put:x").is_none());
        }
    }
}
