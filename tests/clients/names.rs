//! Names that mean something to one system, and pass as bytes here.

use std::collections::BTreeMap;

use super::*;

/// Names and why they are here. All are keys as they are.
const NAMES: [(&str, &str); 22] = [
    ("Case", "case is kept"),
    ("case", "and tells names apart"),
    ("trailing dot.", "Windows cuts it off"),
    ("trailing space ", "likewise"),
    (" leading space", ""),
    ("...", "no parent of anything"),
    ("a:b", "a stream's name in Windows, a slash in Finder"),
    ("a\u{f03a}b", "what Windows' clients map the colon to, and back"),
    ("\u{f02a}\u{f03f}\u{f022}\u{f03c}\u{f03e}\u{f07c}\u{f05c}", "the same of * ? \" < > | and backslash"),
    ("dot\u{f029}", "macOS's own mapping of a dot at the end"),
    ("space\u{f028}", "and of a space"),
    ("* ? \" < > |", "what Windows forbids"),
    ("back\\slash", "a separator in Windows"),
    ("con", "a device in Windows"),
    ("nul.txt", "likewise"),
    ("COM1", "likewise"),
    ("LONGFI~1.TXT", "a short name"),
    ("tab\tnew\nline", ""),
    ("é", "composed, as Windows and Linux write it"),
    ("e\u{301}", "decomposed, as macOS does"),
    ("ﬁ", "a ligature stays one"),
    ("\u{1f4a9}\u{200d}", "beyond 16 bits, and a joiner that nobody sees"),
];

#[tokio::test(flavor = "multi_thread")]
async fn names_pass_as_bytes() {
    let mut world = World::new().await;
    let mut client = world.client().await;
    let root = client.root();
    for (name, _) in NAMES {
        client.save_in(&root, name.as_bytes(), name.as_bytes()).await.unwrap();
    }
    world.sync().await;
    let mut wanted: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
    wanted.sort_unstable();
    let mut keys = world.bucket.keys();
    keys.sort();
    assert_eq!(keys, wanted, "the keys are the names");

    world.cache = tempfile::tempdir().unwrap();
    world.restart().await;
    let mut client = world.client().await;
    let root = client.root();
    let listed: BTreeMap<_, _> = client.list_handle(&root).await.unwrap();
    assert_eq!(listed.keys().collect::<Vec<_>>(), wanted);
    for (name, why) in NAMES {
        let found = client.lookup_in(&root, name.as_bytes()).await.unwrap();
        assert_eq!(client.read_handle(&found.handle).await.unwrap(), name.as_bytes(), "{why}");
        client.remove_in(&root, name.as_bytes()).await.unwrap();
    }
    world.sync().await;
    assert!(world.bucket.is_empty());
}

/// A rename that changes nothing but the case is one, and PATHCONF says that case counts.
#[tokio::test(flavor = "multi_thread")]
async fn case_counts_and_is_kept() {
    let world = World::new().await;
    let mut client = world.client().await;
    let root = client.root();
    client.save_in(&root, b"readme", b"text").await.unwrap();
    client.rename_in((&root, b"readme"), (&root, b"README")).await.unwrap();
    world.sync().await;
    assert_eq!(world.bucket.keys(), ["README"]);
    assert_eq!(client.lookup("readme").await.unwrap_err(), nfsstat3::NFS3ERR_NOENT);
    let conf = soon(client.raw().pathconf(&PATHCONF3args { object: root })).await.unwrap().unwrap();
    assert_eq!((conf.case_insensitive, conf.case_preserving, conf.no_trunc), (false, true, true));
}

/// Names of 245 bytes always fit. A few more do, depending on the last character, and what does not is refused whole,
/// not cut.
#[tokio::test(flavor = "multi_thread")]
async fn long_names_are_kept_whole_or_refused() {
    let world = World::new().await;
    let mut client = world.client().await;
    let root = client.root();
    let longest = format!("{}é", "n".repeat(243));
    client.save_in(&root, longest.as_bytes(), b"text").await.unwrap();
    world.sync().await;
    assert_eq!(world.bucket.keys(), [&*longest]);
    for long in [247, 255, 256] {
        let refused = client.save_in(&root, "n".repeat(long).as_bytes(), b"").await.map(drop);
        assert_eq!(refused, Err(nfsstat3::NFS3ERR_NAMETOOLONG), "{long}");
    }
}
