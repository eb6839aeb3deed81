//! Locks between clients, at the wire: NLM v4 and NSM as a client's lock manager and status monitor speak them.
#![allow(clippy::unwrap_used, unreachable_pub, missing_docs)]

mod fake;
#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use fasts3::locks::Counts;
use fasts3::rpc::xdr::{Reader, Write};

use fake::*;
use support::World;

/// A server of one file, a client's machine, and the file's handle.
async fn world(flags: &[&str]) -> (World, Machine, Vec<u8>) {
    let machine = Machine::start().await;
    let mut world = World::stopped(flags).await;
    world.client_portmapper = machine.port;
    world.put("file", "bytes to lock");
    world.start().await;
    let handle = handle(&world, "file").await;
    (world, machine, handle)
}

async fn handle(world: &World, path: &str) -> Vec<u8> {
    world.client().await.lookup(path).await.unwrap().handle.data.0.to_vec()
}

async fn peer(world: &World, name: &'static str) -> Peer {
    Peer::connect(world.server().nfs_addr().port(), name).await
}

fn counts(world: &World) -> Counts {
    world.server().locks().unwrap().counts()
}

/// Waits until nobody waits for a lock, or is being told of one.
async fn settled(world: &World) {
    let is_settled = async {
        while counts(world).waiting > 0 {
            tokio::task::yield_now().await;
        }
    };
    support::soon(is_settled).await;
}

#[tokio::test]
async fn two_clients_cannot_have_the_same_bytes() {
    let (world, _machine, file) = world(&["--lazy"]).await;
    let (mut alpha, mut beta) = (peer(&world, "alpha").await, peer(&world, "beta").await);
    let head = Wish::new(&file, 1, 0, 10);
    assert_eq!(alpha.lock(&head).await, GRANTED);
    assert_eq!(alpha.lock(&head).await, GRANTED, "it has it already");
    assert_eq!(beta.lock(&head).await, DENIED, "another client's process of the same number");
    assert_eq!(beta.test(&head.clone().shared()).await, (DENIED, Some((true, 1, 0, 10))));
    assert_eq!(alpha.test(&head).await, (GRANTED, None));
    assert_eq!(alpha.lock(&Wish::new(&file, 2, 9, 0)).await, DENIED, "another process of the same client");
    assert_eq!(beta.lock(&Wish::new(&file, 1, 10, 0)).await, GRANTED);
    assert_eq!(alpha.test(&Wish::new(&file, 1, 1 << 40, 1)).await, (DENIED, Some((true, 1, 10, 0))));

    // a part of it is let go of
    assert_eq!(alpha.unlock(&Wish::new(&file, 1, 3, 4)).await, GRANTED);
    assert_eq!(alpha.unlock(&Wish::new(&file, 1, 3, 4)).await, GRANTED, "again");
    assert_eq!(beta.lock(&Wish::new(&file, 1, 3, 4).shared()).await, GRANTED);
    assert_eq!(alpha.lock(&Wish::new(&file, 1, 3, 4).shared()).await, GRANTED, "both may read");
    assert_eq!(alpha.lock(&Wish::new(&file, 1, 3, 4)).await, DENIED);
    assert_eq!(beta.lock(&Wish::new(&file, 1, 2, 1)).await, DENIED);
    assert_eq!(counts(&world), Counts { locks: 5, shares: 0, hosts: 2, waiting: 0 });
}

#[tokio::test]
async fn a_blocked_lock_is_granted_by_a_call_back() {
    let (world, mut machine, file) = world(&["--lazy"]).await;
    let (mut alpha, mut beta) = (peer(&world, "alpha").await, peer(&world, "beta").await);
    let (all, part) = (Wish::new(&file, 1, 0, 0), Wish::new(&file, 7, 5, 3));
    assert_eq!(alpha.lock(&all).await, GRANTED);
    assert_eq!(beta.wait_for(&part).await, BLOCKED);
    assert_eq!(beta.wait_for(&part).await, BLOCKED, "a client asks again now and then");
    assert_eq!(counts(&world).waiting, 1);
    assert_eq!(machine.has_heard(), None);
    assert_eq!(alpha.unlock(&Wish::new(&file, 1, 4, 6)).await, GRANTED);
    let got = machine.heard().await;
    assert_eq!((got.program, got.procedure), (NLM, 5));
    let (_, name, wish) = granted(&got);
    assert_eq!((name.as_str(), wish.svid, wish.offset, wish.len), ("beta", 7, 5, 3));
    assert_eq!((wish.handle, wish.exclusive), (file.clone(), true));
    settled(&world).await;
    assert_eq!(alpha.test(&all).await, (DENIED, Some((true, 7, 5, 3))));
    assert_eq!(beta.unlock(&part).await, GRANTED);
    assert_eq!(alpha.lock(&all).await, GRANTED);
}

#[tokio::test]
async fn messages_are_answered_by_messages() {
    let (world, mut machine, file) = world(&["--lazy"]).await;
    let (mut alpha, mut beta) = (peer(&world, "alpha").await, peer(&world, "beta").await);
    let all = Wish::new(&file, 1, 0, 0);
    assert_eq!(alpha.lock(&all).await, GRANTED);
    for (procedure, args, result) in [
        (6, beta.test_args(&all), DENIED),
        (7, beta.lock_args(&all, false, false), DENIED),
        (7, beta.lock_args(&all, true, false), BLOCKED),
        (8, beta.cancel_args(&all), GRANTED),
        (9, beta.unlock_args(&all), GRANTED),
        (10, beta.test_args(&all), DENIED),
        (7, beta.lock_args(&all, true, false), BLOCKED),
    ] {
        assert!(beta.nlm(procedure, &args).await.is_empty());
        let got = machine.heard().await;
        assert_eq!((got.program, got.procedure), (NLM, procedure + 5));
        let len = if procedure == 6 { 16 } else { got.args.len() };
        assert_eq!(status(&got.args[..len]), result, "{procedure}");
    }
    assert_eq!(alpha.unlock(&all).await, GRANTED);
    let got = machine.heard().await;
    assert_eq!((got.program, got.procedure), (NLM, 10));
    let (cookie, _, wish) = granted(&got);
    assert_eq!(wish.svid, 1);
    assert_eq!(counts(&world).waiting, 1, "it has not answered");
    let mut args = Vec::new();
    args.put_opaque(&cookie);
    args.put_u32(GRANTED);
    assert!(beta.nlm(15, &args).await.is_empty());
    assert_eq!(counts(&world), Counts { locks: 1, shares: 0, hosts: 1, waiting: 0 });
    assert_eq!(alpha.lock(&all).await, DENIED);
    args.truncate(args.len() - 4);
    args.put_u32(DENIED);
    beta.nlm(15, &args).await;
    assert_eq!(alpha.lock(&all).await, DENIED, "it is settled");
}

#[tokio::test]
async fn who_does_not_want_a_lock_any_more_lets_the_next_have_it() {
    let (world, mut machine, file) = world(&["--lazy"]).await;
    let all = Wish::new(&file, 1, 0, 0);
    let (mut alpha, mut beta) = (peer(&world, "alpha").await, peer(&world, "beta").await);
    let (mut gamma, mut delta) = (peer(&world, "gamma").await, peer(&world, "delta").await);
    assert_eq!(alpha.lock(&all).await, GRANTED);
    for waiter in [&mut beta, &mut gamma, &mut delta] {
        assert_eq!(waiter.wait_for(&all).await, BLOCKED);
    }
    assert_eq!(beta.cancel(&all).await, GRANTED);
    assert_eq!(beta.cancel(&all).await, GRANTED, "again");
    machine.say(DENIED);
    assert_eq!(alpha.unlock(&all).await, GRANTED);
    assert_eq!(granted(&machine.heard().await).1, "gamma");
    assert_eq!(granted(&machine.heard().await).1, "delta");
    settled(&world).await;
    assert_eq!(counts(&world), Counts::default());
}

#[tokio::test]
async fn a_client_that_does_not_answer_gets_its_lock_when_it_asks_and_loses_its_turn_when_not() {
    let (world, mut machine, file) = world(&["--lazy"]).await;
    let all = Wish::new(&file, 1, 0, 0);
    let (mut alpha, mut beta, mut gamma) =
        (peer(&world, "alpha").await, peer(&world, "beta").await, peer(&world, "gamma").await);
    machine.be_deaf(true);
    assert_eq!(alpha.lock(&all).await, GRANTED);
    assert_eq!(beta.wait_for(&all).await, BLOCKED);
    assert_eq!(gamma.wait_for(&all).await, BLOCKED);
    assert_eq!(alpha.unlock(&all).await, GRANTED);
    assert_eq!(alpha.lock(&all).await, DENIED, "it is kept for beta");
    assert_eq!(beta.wait_for(&all).await, GRANTED);
    assert_eq!(beta.unlock(&all).await, GRANTED);
    assert_eq!(alpha.wait_for(&all).await, BLOCKED, "it is kept for gamma");
    // gamma is gone for good; alpha is told when its time is over
    let told = async {
        while machine.has_heard().is_none() {
            world.clock.advance(Duration::from_secs(1));
            machine.be_deaf(counts(&world).waiting == 2);
            alpha.nlm(0, b"").await;
        }
    };
    support::soon(told).await;
    settled(&world).await;
    assert_eq!(gamma.lock(&all).await, DENIED);
    assert_eq!(alpha.unlock(&all).await, GRANTED);
}

#[tokio::test]
async fn a_wait_that_would_never_end_is_refused() {
    let (world, _machine, file) = world(&["--lazy"]).await;
    let (mut alpha, mut beta) = (peer(&world, "alpha").await, peer(&world, "beta").await);
    let (head, tail) = (Wish::new(&file, 1, 0, 1), Wish::new(&file, 1, 1, 1));
    assert_eq!(alpha.lock(&head).await, GRANTED);
    assert_eq!(beta.lock(&tail).await, GRANTED);
    assert_eq!(alpha.wait_for(&tail).await, BLOCKED);
    assert_eq!(beta.wait_for(&head).await, DEADLOCK);
}

#[tokio::test]
async fn after_a_crash_locks_are_reclaimed_before_others_get_any() {
    let machine = Machine::start().await;
    let mut world = World::mortal_with(&["--lazy"], machine.port).await;
    world.put("file", "bytes");
    after_a_restart(&mut world, machine, true).await;
}

#[tokio::test]
async fn after_a_restart_locks_are_reclaimed_before_others_get_any() {
    let (mut world, machine, _) = world(&["--lazy"]).await;
    after_a_restart(&mut world, machine, false).await;
}

async fn after_a_restart(world: &mut World, mut machine: Machine, crash: bool) {
    let file = handle(world, "file").await;
    let (head, tail) = (Wish::new(&file, 1, 0, 5), Wish::new(&file, 1, 5, 5));
    {
        let (mut alpha, mut beta) = (peer(world, "alpha").await, peer(world, "beta").await);
        assert_eq!(alpha.lock(&head).await, GRANTED);
        assert_eq!(beta.wait_for(&tail).await, GRANTED);
    }
    if crash {
        world.kill().await;
        world.start().await;
    } else {
        world.restart().await;
    }

    // both are told, by our address and by our name
    let mut told = Vec::new();
    for _ in 0..4 {
        let got = machine.heard().await;
        assert_eq!((got.program, got.procedure), (NSM, 6));
        let mut r = Reader::new(&got.args);
        told.push((String::from_utf8(r.opaque(1024).unwrap().to_vec()).unwrap(), r.u32().unwrap()));
    }
    assert_eq!(told.iter().filter(|(name, state)| name == "127.0.0.1" && *state == 3).count(), 2, "{told:?}");

    let (mut alpha, mut beta) = (peer(world, "alpha").await, peer(world, "beta").await);
    assert_eq!(beta.lock(&head).await, GRACE);
    assert_eq!(beta.test(&head).await, (GRACE, None));
    assert_eq!(beta.unlock(&tail).await, GRACE);
    assert_eq!(alpha.reclaim(&head).await, GRANTED);
    assert_eq!(beta.reclaim(&head).await, DENIED, "that was alpha's");
    world.clock.advance(Duration::from_secs(30));
    assert_eq!(beta.reclaim(&tail).await, GRACE, "too late");
    assert_eq!(beta.lock(&head).await, DENIED);
    assert_eq!(alpha.lock(&tail).await, GRANTED);
}

#[tokio::test]
async fn a_restart_without_locks_has_no_grace_period() {
    let (mut world, mut machine, file) = world(&["--lazy"]).await;
    let all = Wish::new(&file, 1, 0, 0);
    let mut alpha = peer(&world, "alpha").await;
    assert_eq!(alpha.lock(&all).await, GRANTED);
    assert_eq!(alpha.unlock(&all).await, GRANTED);
    world.restart().await;
    let mut alpha = peer(&world, "alpha").await;
    assert_eq!(alpha.reclaim(&all).await, GRACE);
    assert_eq!(alpha.lock(&all).await, GRANTED);
    assert_eq!(machine.has_heard(), None);
}

#[tokio::test]
async fn who_reclaimed_nothing_is_not_told_of_the_restart_after_that() {
    let (mut world, mut machine, file) = world(&["--lazy"]).await;
    assert_eq!(peer(&world, "alpha").await.lock(&Wish::new(&file, 1, 0, 0)).await, GRANTED);
    world.restart().await;
    for _ in 0..2 {
        machine.heard().await;
    }
    world.clock.advance(Duration::from_secs(30));
    world.restart().await;
    assert_eq!(peer(&world, "beta").await.lock(&Wish::new(&file, 1, 0, 0)).await, GRANTED);
    assert_eq!(machine.has_heard(), None);
}

#[tokio::test]
async fn a_clients_reboot_frees_its_locks() {
    let (world, mut machine, file) = world(&["--lazy"]).await;
    let (mut alpha, mut beta) = (peer(&world, "alpha").await, peer(&world, "beta").await);
    let all = Wish::new(&file, 1, 0, 0);
    assert_eq!(alpha.lock(&all).await, GRANTED);
    assert_eq!(beta.wait_for(&all).await, BLOCKED);
    beta.reboot("gamma").await;
    assert_eq!(counts(&world).locks, 1);
    beta.reboot("alpha.example.org").await;
    assert_eq!(granted(&machine.heard().await).1, "beta");
    settled(&world).await;
    // a client without a monitor says it so
    let mut args = Vec::new();
    args.put_opaque(b"beta");
    args.put_u32(9);
    assert!(alpha.nlm(23, &args).await.is_empty());
    assert_eq!(counts(&world), Counts::default());
}

#[tokio::test]
async fn without_locks_every_lock_call_is_refused_at_once() {
    let (world, _machine, file) = world(&["--lazy", "--no-locks"]).await;
    let mut alpha = peer(&world, "alpha").await;
    let all = Wish::new(&file, 1, 0, 0);
    assert_eq!(alpha.lock(&all).await, NOLOCKS);
    assert_eq!(alpha.wait_for(&all).await, NOLOCKS);
    assert_eq!(alpha.test(&all).await, (NOLOCKS, None));
    assert_eq!(alpha.unlock(&all).await, NOLOCKS);
    assert_eq!(alpha.cancel(&all).await, NOLOCKS);
    assert_eq!(alpha.share(20, &file, b"o", 1, 1).await, NOLOCKS);
    assert_eq!(alpha.raw(NSM, 1, 0, b"").await[16..20], 1_u32.to_be_bytes(), "PROG_UNAVAIL: no status monitor");
}

#[tokio::test]
async fn what_cannot_be_locked_says_why() {
    let (mut world, _machine, file) = world(&["--lazy"]).await;
    let mut alpha = peer(&world, "alpha").await;
    let root = handle(&world, "").await;
    assert_eq!(alpha.lock(&Wish::new(&root, 1, 0, 0)).await, FAILED, "a directory");
    assert_eq!(alpha.lock(&Wish::new(b"forged", 1, 0, 0)).await, STALE);
    assert_eq!(alpha.lock(&Wish::new(&file, 1, u64::MAX, 2)).await, TOO_BIG);
    assert_eq!(alpha.lock(&Wish::new(&file, 1, u64::MAX, 1)).await, GRANTED);
    world.bucket.put("secret", b"s".to_vec(), &[("file-permissions", "0100600"), ("file-owner", "0")]);
    let secret = handle(&world, "secret").await;
    assert_eq!(alpha.lock(&Wish::new(&secret, 1, 0, 0)).await, FAILED, "nobody's to read or write");
    world.restart_with(&["--lazy", "--read-only", "--grace", "0s"]).await;
    let mut alpha = peer(&world, "alpha").await;
    assert_eq!(alpha.lock(&Wish::new(&file, 1, 0, 1)).await, READ_ONLY);
    assert_eq!(alpha.lock(&Wish::new(&file, 1, 0, 1).shared()).await, GRANTED);
}

#[tokio::test]
async fn shares_keep_out_what_they_deny() {
    let (world, _machine, file) = world(&["--lazy"]).await;
    let (mut alpha, mut beta) = (peer(&world, "alpha").await, peer(&world, "beta").await);
    let (read, write) = (1, 2);
    assert_eq!(alpha.share(20, &file, b"a", read, write).await, GRANTED);
    assert_eq!(beta.share(20, &file, b"a", write, 0).await, DENIED);
    assert_eq!(beta.share(20, &file, b"a", read, 0).await, GRANTED);
    assert_eq!(alpha.share(21, &file, b"a", 0, 0).await, GRANTED);
    assert_eq!(beta.share(20, &file, b"a", write, 0).await, GRANTED);
    assert_eq!(counts(&world).shares, 1);
}

#[tokio::test]
async fn arguments_cut_anywhere_are_garbage_and_nothing_else() {
    let (world, _machine, file) = world(&["--lazy"]).await;
    let mut alpha = peer(&world, "alpha").await;
    let wish = Wish::new(&file, 1, 0, 0);
    let whole = [
        (1, alpha.test_args(&wish)),
        (2, alpha.lock_args(&wish, true, false)),
        (3, alpha.cancel_args(&wish)),
        (4, alpha.unlock_args(&wish)),
        (7, alpha.lock_args(&wish, true, false)),
    ];
    for (procedure, args) in &whole {
        for len in (0..args.len()).step_by(3) {
            let reply = alpha.raw(NLM, 4, *procedure, &args[..len]).await;
            assert_eq!(reply[16..20], 4_u32.to_be_bytes(), "GARBAGE_ARGS for {len} bytes of {procedure}");
        }
    }
    for procedure in [16, 17, 18, 19, 24, 99] {
        assert_eq!(alpha.raw(NLM, 4, procedure, b"").await[16..20], 3_u32.to_be_bytes(), "PROC_UNAVAIL");
    }
    let mismatch = alpha.raw(NLM, 3, 1, b"").await;
    assert_eq!(mismatch[16..28], [0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0, 4]);
    assert_eq!(counts(&world), Counts::default());
}
