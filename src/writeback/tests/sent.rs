//! A request lands, its answer is lost with the process, and what it was made of is something else by then: what it
//! left is known for ours, and what others left there is not.

use super::*;

/// Does `what` once the request has landed whose answer nobody will have, and crashes after that.
async fn unanswered(rig: Rig, landed: (Request, &str), what: impl AsyncFnOnce(&Rig)) -> Rig {
    let gate = rig.s3.faults().hold_answer(landed);
    rig.clock.advance(DELAY);
    rig.meanwhile(gate.arrived()).await;
    what(&rig).await;
    let check = rig.index.contradictions().unwrap();
    assert!(check.is_empty(), "{check:?}");
    let rig = rig.crash().await;
    drop(gate);
    rig
}

/// What S3 has, and that here is the same; nobody was told of a conflict.
async fn is_all(rig: &Rig, wanted: &[(&str, &str)]) {
    rig.meanwhile(rig.writeback.synced(None)).await.unwrap();
    rig.refresh().await;
    assert!(rig.conflicts().is_empty(), "{:?}", rig.conflicts());
    let stored: Vec<_> = rig.bucket.keys().into_iter().map(|key| (rig.stored(&key).unwrap(), key)).collect();
    let stored: Vec<_> = stored.iter().map(|(text, key)| (key.as_str(), text.as_str())).collect();
    assert_eq!(stored, wanted);
    for (path, text) in wanted {
        if !path.ends_with('/') {
            assert_eq!(rig.read(path).await, *text, "{path}");
        }
    }
    let tops: std::collections::BTreeSet<_> = wanted.iter().filter_map(|(path, _)| path.split('/').next()).collect();
    assert_eq!(rig.names(), tops.into_iter().collect::<Vec<_>>());
    assert!(wanted.iter().all(|(key, _)| rig.index.sent(&Key::new(key).unwrap()).unwrap().is_none()));
    rig.sync().await;
}

#[tokio::test]
async fn changed_since() {
    for base in [None, Some("base")] {
        let rig = Rig::new().await;
        if let Some(base) = base {
            rig.write("f", base).await;
            rig.sync().await;
        }
        rig.write("f", "first").await;
        let rig = unanswered(rig, (Request::Put, "f"), async |rig| rig.write("f", "second").await).await;
        is_all(&rig, &[("f", "second")]).await;
    }
}

#[tokio::test]
async fn changed_since_without_a_word_to_the_index() {
    let rig = Rig::new().await;
    rig.write("f", "first").await;
    let rig = unanswered(rig, (Request::Put, "f"), async |rig| rig.write_at("f", 0, "FIRST").await).await;
    is_all(&rig, &[("f", "FIRST")]).await;
}

#[tokio::test]
async fn removed_since() {
    for base in [None, Some("base")] {
        let rig = Rig::new().await;
        if let Some(base) = base {
            rig.write("f", base).await;
            rig.sync().await;
        }
        rig.write("f", "first").await;
        let rig = unanswered(rig, (Request::Put, "f"), async |rig| rig.remove("f").await).await;
        rig.refresh().await;
        assert_eq!(rig.names(), Vec::<String>::new());
        is_all(&rig, &[]).await;
    }
}

#[tokio::test]
async fn removed_and_made_again_since() {
    let rig = Rig::new().await;
    rig.write("f", "first").await;
    let rig = unanswered(rig, (Request::Put, "f"), async |rig| {
        rig.remove("f").await;
        rig.write("f", "another").await;
    })
    .await;
    is_all(&rig, &[("f", "another")]).await;
}

#[tokio::test]
async fn renamed_since() {
    for base in [None, Some("base")] {
        let rig = Rig::new().await;
        if let Some(base) = base {
            rig.write("f", base).await;
            rig.sync().await;
        }
        rig.write("f", "first").await;
        let rig = unanswered(rig, (Request::Put, "f"), async |rig| rig.rename("f", "g").await).await;
        rig.refresh().await;
        assert_eq!(rig.names(), ["g"]);
        is_all(&rig, &[("g", "first")]).await;
    }
}

#[tokio::test]
async fn a_moved_file_in_its_place_since() {
    let rig = Rig::new().await;
    rig.write("other", "of another").await;
    rig.sync().await;
    rig.write("f", "first").await;
    let rig = unanswered(rig, (Request::Put, "f"), async |rig| rig.rename("other", "f").await).await;
    is_all(&rig, &[("f", "of another")]).await;
}

#[tokio::test]
async fn its_directory_renamed_since() {
    for base in [None, Some("base")] {
        let rig = Rig::new().await;
        rig.mkdir("a").await;
        rig.write("a/more", "more").await;
        if let Some(base) = base {
            rig.write("a/f", base).await;
        }
        rig.sync().await;
        rig.write("a/f", "first").await;
        let rig = unanswered(rig, (Request::Put, "a/f"), async |rig| rig.rename("a", "b").await).await;
        rig.refresh().await;
        assert_eq!(rig.names(), ["b"]);
        is_all(&rig, &[("b/f", "first"), ("b/more", "more")]).await;
    }
}

#[tokio::test]
async fn its_directory_renamed_to_and_fro_since() {
    let rig = Rig::new().await;
    rig.mkdir("a").await;
    rig.write("a/f", "first").await;
    let rig = unanswered(rig, (Request::Put, "a/f"), async |rig| {
        rig.rename("a", "b").await;
        rig.rename("b", "a").await;
    })
    .await;
    is_all(&rig, &[("a/f", "first")]).await;
}

#[tokio::test]
async fn a_copy_and_renamed_on_since() {
    let rig = Rig::new().await;
    rig.write("f", "moved").await;
    rig.sync().await;
    rig.rename("f", "g").await;
    let rig = unanswered(rig, (Request::Copy, "g"), async |rig| rig.rename("g", "h").await).await;
    rig.refresh().await;
    assert_eq!(rig.names(), ["h"]);
    is_all(&rig, &[("h", "moved")]).await;
}

#[tokio::test]
async fn a_copy_and_changed_since() {
    let rig = Rig::new().await;
    rig.write("f", "moved").await;
    rig.sync().await;
    rig.rename("f", "g").await;
    let rig = unanswered(rig, (Request::Copy, "g"), async |rig| {
        rig.write("g", "changed").await;
        rig.chmod("g", 0o600).await;
    })
    .await;
    is_all(&rig, &[("g", "changed")]).await;
}

#[tokio::test]
async fn a_copy_aside_and_removed_since() {
    let rig = Rig::new().await;
    rig.write("a", "was a").await;
    rig.write("b", "was b").await;
    rig.sync().await;
    rig.rename("a", "t").await;
    rig.rename("b", "a").await;
    rig.rename("t", "b").await;
    let aside = format!("{}.moving-{}", "b", rig.node("b").ino.0);
    let rig = unanswered(rig, (Request::Copy, &aside), async |rig| rig.remove("b").await).await;
    rig.refresh().await;
    assert_eq!(rig.names(), ["a"]);
    is_all(&rig, &[("a", "was b")]).await;
}

#[tokio::test]
async fn a_completion_and_changed_or_removed_since() {
    let long = vec![7; 13 * MIB];
    for is_removed in [false, true] {
        let rig = Rig::new().await;
        rig.write("f", long.clone()).await;
        let rig = unanswered(rig, (Request::CompleteUpload, "f"), async |rig| match is_removed {
            true => rig.remove("f").await,
            false => rig.write("f", "short").await,
        })
        .await;
        is_all(&rig, if is_removed { &[] } else { &[("f", "short")] }).await;
        assert_eq!(rig.bucket.uploads(), 0);
    }
}

#[tokio::test]
async fn a_marker_and_its_directory_removed_since() {
    let rig = Rig::new().await;
    rig.mkdir("d").await;
    let rig = unanswered(rig, (Request::Put, "d/"), async |rig| rig.remove("d").await).await;
    rig.refresh().await;
    assert_eq!(rig.names(), Vec::<String>::new());
    is_all(&rig, &[]).await;
}

#[tokio::test]
async fn a_marker_and_its_directory_filled_and_emptied_since() {
    let rig = Rig::new().await;
    rig.mkdir("d").await;
    let rig = unanswered(rig, (Request::Put, "d/"), async |rig| rig.write("d/f", "x").await).await;
    is_all(&rig, &[("d/", ""), ("d/f", "x")]).await;
    rig.remove("d/f").await;
    rig.remove("d").await;
    is_all(&rig, &[]).await;
}

#[tokio::test]
async fn two_in_a_row() {
    let rig = Rig::new().await;
    rig.write("f", "base").await;
    rig.sync().await;
    rig.write("f", "first").await;
    let rig = unanswered(rig, (Request::Put, "f"), async |rig| rig.write("f", "second").await).await;
    let gate = rig.s3.faults().hold_answer((Request::Put, "f"));
    // refused once, and then over what landed
    gate.pass(1);
    rig.clock.advance(DELAY);
    rig.meanwhile(gate.arrived_count(2)).await;
    rig.write("f", "third").await;
    let rig = rig.crash().await;
    drop(gate);
    is_all(&rig, &[("f", "third")]).await;
}

#[tokio::test]
async fn many_states_without_an_answer_are_looked_at_and_not_kept() {
    let rig = Rig::new().await;
    rig.write("f", "base").await;
    rig.sync().await;
    rig.s3.faults().inject((Request::Put, "f"), 1, crate::s3server::Fault::FailAfterApply);
    for n in 0..12 {
        rig.write("f", format!("state {n}")).await;
        let before = rig.s3.requests().count(Request::Put);
        rig.meanwhile(rig.s3.requests().reached(Request::Put, before + 1)).await;
        if n == 0 {
            rig.s3.faults().inject_always((Request::Put, "f"), crate::s3server::Fault::Close);
        }
    }
    let notes = rig.index.sent(&Key::new("f").unwrap()).unwrap().unwrap();
    assert!(notes.len() < 4_096, "{}", String::from_utf8_lossy(&notes));
    let rig = rig.crash().await;
    is_all(&rig, &[("f", "state 11")]).await;
}

#[tokio::test]
async fn tags_that_are_no_digests() {
    for is_removed in [false, true] {
        let rig = Rig::new().await;
        rig.s3.faults().set_opaque_tags(true);
        rig.write("f", "first").await;
        let rig = unanswered(rig, (Request::Put, "f"), async |rig| match is_removed {
            true => rig.remove("f").await,
            false => rig.write("f", "second").await,
        })
        .await;
        is_all(&rig, if is_removed { &[] } else { &[("f", "second")] }).await;
    }
}

#[tokio::test]
async fn written_over_by_somebody_since() {
    let rig = Rig::new().await;
    rig.write("f", "first").await;
    rig.write("g", "first").await;
    let gate = rig.s3.faults().hold_answer(Request::Put);
    rig.clock.advance(DELAY);
    rig.meanwhile(gate.arrived_count(2)).await;
    rig.write("f", "second").await;
    rig.remove("g").await;
    rig.bucket.put("f", "theirs", &[]);
    // the very bytes that landed, by somebody else
    rig.bucket.put("g", "first", &[]);
    let rig = rig.crash().await;
    drop(gate);
    rig.sync().await;
    rig.refresh().await;
    assert_eq!((rig.stored("f").as_deref(), rig.stored("g").as_deref()), (Some("theirs"), Some("first")));
    assert_eq!((rig.read("f").await.as_str(), rig.read("g").await.as_str()), ("theirs", "first"));
    assert_eq!((rig.bucket.len(), rig.conflicts().len()), (3, 2), "{:?}", rig.conflicts());
}

#[tokio::test]
async fn copied_elsewhere_by_somebody_since() {
    let rig = Rig::new().await;
    rig.write("f", "first").await;
    let rig = unanswered(rig, (Request::Put, "f"), async |rig| {
        let landed = rig.bucket.get("f").unwrap();
        let user: Vec<_> = landed.user.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        rig.bucket.put("theirs", landed.bytes, &user);
        rig.remove("f").await;
    })
    .await;
    is_all(&rig, &[("theirs", "first")]).await;
}
