//! The table against a model that knows of every byte who has it locked, and the rules of who gets what.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;

use super::held::Run;
use super::hosts::Noted;
use super::state::State;
use super::*;

/// Bytes of the model's files; the last stands for all from there to the end.
const BYTES: u64 = 12;
const HOSTS: u64 = 3;
const FILES: u64 = 2;

fn key(host: u64) -> LockHost {
    let (address, server) = ([10, 0, 0, host as u8].into(), [10, 0, 0, 100].into());
    LockHost { address, server, name: format!("h{host}").into_bytes().into() }
}

/// A table that knows hosts 1 to 3.
fn table(limits: Limits) -> State {
    let mut state = State::new(limits, 0);
    for host in 1..=HOSTS {
        assert_eq!(state.hosts.want(&key(host), Tick(1), 100), Some(Noted::Wanted));
        let notes = state.hosts.notes(Tick(1), false);
        state.hosts.told(&notes, true);
    }
    state
}

fn owner(host: u64, svid: u32) -> Owner {
    Owner { host: HostId(host), svid }
}

fn range(offset: u64, len: u64) -> Range {
    Range::new(offset, len).unwrap()
}

fn ask(file: u64, svid: u32, range: Range, exclusive: bool, blocks: bool) -> Ask {
    Ask { file, svid, range, exclusive, block: blocks.then(Asked::default) }
}

/// LOCK of file 1 by process 0 of a host.
fn lock(state: &mut State, host: u64, range: Range, exclusive: bool, blocks: bool) -> Locked {
    state.lock(HostId(host), ask(1, 0, range, exclusive, blocks))
}

/// The hosts that are offered something now.
fn offers(state: &mut State) -> Vec<u64> {
    let offers = state.take_offers();
    offers.into_iter().map(|offer| (1..=HOSTS).find(|host| key(*host) == offer.host).unwrap()).collect()
}

#[derive(Clone, Debug)]
enum Step {
    Lock {
        file: u64,
        host: u64,
        svid: u32,
        range: Range,
        exclusive: bool,
        blocks: bool,
    },
    Unlock {
        file: u64,
        host: u64,
        svid: u32,
        range: Range,
    },
    /// Of one of those who wait.
    Cancel(usize),
    /// Of one of the offers.
    Accept(usize),
    Refuse(usize),
    Reboot(u64),
}

fn any_range() -> impl Strategy<Value = Range> {
    (0..BYTES, 0..BYTES).prop_map(|(a, b)| {
        let (first, last) = (a.min(b), a.max(b));
        range(first, if last == BYTES - 1 { 0 } else { last - first + 1 })
    })
}

fn any_step() -> impl Strategy<Value = Step> {
    let who = (0..FILES, 1..=HOSTS, 0..2_u32);
    prop_oneof![
        8 => (who.clone(), any_range(), any::<bool>(), any::<bool>()).prop_map(
            |((file, host, svid), range, exclusive, blocks)| Step::Lock { file, host, svid, range, exclusive, blocks }
        ),
        5 => (who, any_range()).prop_map(|((file, host, svid), range)| Step::Unlock { file, host, svid, range }),
        1 => any::<usize>().prop_map(Step::Cancel),
        3 => any::<usize>().prop_map(Step::Accept),
        1 => any::<usize>().prop_map(Step::Refuse),
        1 => (1..=HOSTS).prop_map(Step::Reboot),
    ]
}

/// Who has which byte of which file locked, and how.
#[derive(Default)]
struct Model(BTreeMap<(u64, u64, Owner), bool>);

fn bytes(range: Range) -> impl Iterator<Item = u64> {
    range.first..=range.last.min(BYTES - 1)
}

impl Model {
    fn set(&mut self, file: u64, run: &Run, exclusive: Option<bool>) {
        for byte in bytes(run.range) {
            match exclusive {
                Some(exclusive) => _ = self.0.insert((file, byte, run.owner), exclusive),
                None => _ = self.0.remove(&(file, byte, run.owner)),
            }
        }
    }

    fn conflicts(&self, file: u64, run: &Run) -> BTreeSet<Owner> {
        let in_the_way = |(f, byte, owner): &&(u64, u64, Owner), exclusive: bool| {
            *f == file && bytes(run.range).any(|b| b == *byte) && *owner != run.owner && (exclusive || run.exclusive)
        };
        self.0.iter().filter(|(at, exclusive)| in_the_way(at, **exclusive)).map(|((_, _, owner), _)| *owner).collect()
    }
}

/// All waiters: file, number, wish, whether it is offered.
fn waiters(state: &State) -> Vec<(u64, u64, Run, bool)> {
    let mut all: Vec<_> = state
        .files
        .iter()
        .flat_map(|(file, entry)| entry.waiters.iter().map(|w| (*file, w.id, w.run, w.offered)))
        .collect();
    all.sort_by_key(|(_, id, _, _)| *id);
    all
}

fn clash(a: &Run, b: &Run) -> bool {
    a.owner != b.owner && (a.exclusive || b.exclusive) && bytes(a.range).any(|byte| bytes(b.range).any(|b| b == byte))
}

/// Whom a wish has to wait for: holders, and those to whom something is offered.
fn in_the_way(state: &State, model: &Model, file: u64, run: &Run) -> BTreeSet<Owner> {
    let mut owners = model.conflicts(file, run);
    let offered = waiters(state).into_iter().filter(|(f, _, w, offered)| *f == file && *offered && clash(w, run));
    owners.extend(offered.map(|(_, _, w, _)| w.owner));
    owners
}

/// Whether `run`'s owner would wait for itself, by trying all ways.
fn is_cycle(state: &State, model: &Model, file: u64, run: &Run) -> bool {
    let mut reached = in_the_way(state, model, file, run);
    loop {
        let waits = waiters(state).into_iter().filter(|(_, _, w, offered)| !offered && reached.contains(&w.owner));
        let next: BTreeSet<Owner> = waits.flat_map(|(f, _, w, _)| in_the_way(state, model, f, &w)).collect();
        let before = reached.len();
        reached.extend(next);
        if reached.len() == before {
            return reached.contains(&run.owner);
        }
    }
}

/// Does a step on both, and compares what the table says with what the model knows.
fn step(state: &mut State, model: &mut Model, step: &Step) {
    match *step {
        Step::Lock { file, host, svid, range, exclusive, blocks } => {
            let run = Run { range, owner: owner(host, svid), exclusive };
            let mine = waiters(state).into_iter().find(|(f, _, w, _)| *f == file && *w == run);
            let has_it = bytes(range).all(|byte| model.0.get(&(file, byte, run.owner)) == Some(&exclusive));
            let (blockers, cycle) = (in_the_way(state, model, file, &run), is_cycle(state, model, file, &run));
            let ahead = waiters(state)
                .into_iter()
                .any(|(f, _, w, offered)| f == file && !offered && clash(&w, &run) && w.owner.host != run.owner.host);
            let locked = state.lock(HostId(host), ask(file, svid, range, exclusive, blocks));
            match locked {
                Locked::Granted => model.set(file, &run, Some(exclusive)),
                Locked::Denied => assert!(!blocks && !blockers.is_empty()),
                Locked::Blocked => assert!(blocks && (!blockers.is_empty() || ahead)),
                Locked::Deadlock => assert!(blocks && cycle),
                _ => panic!("{locked:?}"),
            }
            match mine {
                Some((.., true)) => assert_eq!(locked, Locked::Granted, "it was kept for it"),
                Some(_) => {}
                None if blocks && cycle => assert_eq!(locked, Locked::Deadlock),
                None if blockers.is_empty() && (has_it || !blocks || !ahead) => assert_eq!(locked, Locked::Granted),
                None => assert!(locked != Locked::Granted || blockers.is_empty()),
            }
        }
        Step::Unlock { file, host, svid, range } => {
            let run = Run { range, owner: owner(host, svid), exclusive: false };
            let known = waiters(state)
                .into_iter()
                .filter(|(f, _, w, offered)| *f == file && *offered && w.owner == run.owner && w.range.overlaps(range));
            known.for_each(|(_, _, w, _)| model.set(file, &w, Some(w.exclusive)));
            state.unlock(file, run.owner, range).unwrap();
            model.set(file, &run, None);
        }
        Step::Cancel(which) => {
            let all = waiters(state);
            let Some((file, id, run, _)) = all.get(which % all.len().max(1)) else { return };
            state.cancel(*file, run.owner, run.range, run.exclusive);
            assert!(waiters(state).iter().all(|(_, left, ..)| left != id));
        }
        Step::Accept(which) | Step::Refuse(which) => {
            let all: Vec<_> = waiters(state).into_iter().filter(|(.., offered)| *offered).collect();
            let Some((file, id, run, _)) = all.get(which % all.len().max(1)) else { return };
            if matches!(step, Step::Accept(_)) {
                state.accept(*id);
                model.set(*file, run, Some(run.exclusive));
            } else {
                state.refuse(*id);
            }
            assert!(!state.is_offered(*id));
        }
        Step::Reboot(host) => {
            assert_eq!(state.rebooted(&key(host).name, key(host).address), 1);
            model.0.retain(|(_, _, owner), _| owner.host != HostId(host));
        }
    }
}

/// What must hold between any two steps.
fn check(state: &State, model: &Model) {
    let mut held = BTreeMap::new();
    for (file, entry) in &state.files {
        assert!(!entry.is_empty(), "an empty file is forgotten");
        let runs: Vec<Run> = entry.held.runs().copied().collect();
        for (i, a) in runs.iter().enumerate() {
            bytes(a.range).for_each(|byte| assert_eq!(held.insert((*file, byte, a.owner), a.exclusive), None));
            for b in &runs[i + 1..] {
                assert!(!clash(a, b), "{a:?} {b:?}");
                let same = a.owner == b.owner && a.exclusive == b.exclusive;
                assert!(!(same && a.range.touches(b.range)), "one run, not two: {a:?} {b:?}");
            }
        }
    }
    assert_eq!(held, model.0);
    let all = waiters(state);
    for (place, (file, _, run, offered)) in all.iter().enumerate() {
        let is_locked = !in_the_way(state, model, *file, run).is_empty();
        if *offered {
            assert!(!is_locked, "kept free");
            continue;
        }
        let ahead = all[..place]
            .iter()
            .any(|(f, _, w, offered)| f == file && !offered && clash(w, run) && w.owner.host != run.owner.host);
        assert!(is_locked || ahead, "nobody waits for nothing: {run:?}");
    }
    let counts = state.counts();
    assert_eq!(counts.locks, state.files.values().map(|entry| entry.held.len()).sum::<usize>());
    assert_eq!(counts.waiting, all.len());
    for host in (1..=HOSTS).map(HostId) {
        let known = state.hosts.host(host).unwrap();
        let of = |run: &Run| run.owner.host == host;
        let runs = state.files.values().flat_map(|entry| entry.held.runs()).filter(|run| of(run)).count();
        assert_eq!((known.held, known.waiting), (runs, all.iter().filter(|(_, _, run, _)| of(run)).count()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_table_says_what_a_map_of_bytes_says(steps in vec(any_step(), 1..60)) {
        let (mut state, mut model) = (table(Limits::default()), Model::default());
        for one in &steps {
            step(&mut state, &mut model, one);
            check(&state, &model);
        }
        // whoever takes what it is offered, and lets go of what it has, lets everybody come to its turn
        for _ in 0..=steps.len() {
            let all = waiters(&state);
            for (file, id, run, _) in all.iter().filter(|(.., offered)| *offered) {
                state.accept(*id);
                model.set(*file, run, Some(run.exclusive));
            }
            let holders: BTreeSet<(u64, Owner)> = model.0.keys().map(|(file, _, owner)| (*file, *owner)).collect();
            for (file, owner) in holders {
                step(&mut state, &mut model, &Step::Unlock { file, host: owner.host.0, svid: owner.svid, range: range(0, 0) });
            }
            check(&state, &model);
        }
        prop_assert!(state.files.is_empty(), "{:?}", waiters(&state));
    }
}

#[test]
fn a_range_is_split_merged_upgraded_and_downgraded() {
    let mut state = table(Limits::default());
    let runs = |state: &State| -> Vec<(u64, u64, bool)> {
        let runs = state.files[&1].held.runs();
        runs.map(|run| (run.range.offset(), run.range.len_or_zero(), run.exclusive)).collect()
    };
    assert_eq!(lock(&mut state, 1, range(0, 100), false, false), Locked::Granted);
    state.unlock(1, owner(1, 0), range(10, 10)).unwrap();
    assert_eq!(runs(&state), [(0, 10, false), (20, 80, false)]);
    lock(&mut state, 1, range(10, 10), true, false);
    assert_eq!(runs(&state), [(0, 10, false), (10, 10, true), (20, 80, false)]);
    lock(&mut state, 1, range(5, 10), false, false);
    assert_eq!(runs(&state), [(0, 15, false), (15, 5, true), (20, 80, false)]);
    lock(&mut state, 1, range(15, 0), false, false);
    assert_eq!(runs(&state), [(0, 0, false)]);
    state.unlock(1, owner(1, 0), range(u64::MAX, 1)).unwrap();
    assert_eq!(runs(&state), [(0, u64::MAX, false)]);
}

#[test]
fn waiters_of_one_range_get_it_in_the_order_in_which_they_came() {
    let mut state = table(Limits::default());
    let all = range(0, 0);
    assert_eq!(lock(&mut state, 1, all, true, true), Locked::Granted);
    for host in [3, 2] {
        assert_eq!(lock(&mut state, host, all, true, true), Locked::Blocked);
    }
    state.unlock(1, owner(1, 0), all).unwrap();
    assert_eq!(offers(&mut state), [3]);
    assert_eq!(lock(&mut state, 1, all, true, false), Locked::Denied, "it is kept for host 3");
    assert_eq!(lock(&mut state, 3, all, true, true), Locked::Granted, "who polls takes it");
    state.unlock(1, owner(3, 0), all).unwrap();
    assert_eq!(offers(&mut state), [2]);
}

#[test]
fn an_offer_that_is_not_taken_goes_to_the_next() {
    let mut state = table(Limits::default());
    let all = range(0, 0);
    for host in 1..=3 {
        lock(&mut state, host, all, true, true);
    }
    state.unlock(1, owner(1, 0), all).unwrap();
    let offer = state.take_offers().remove(0);
    state.refuse(offer.id);
    assert_eq!(offers(&mut state), [3]);
    state.accept(offer.id);
    assert_eq!(state.test(1, None, all, true), Some(Holder { svid: 0, range: all, exclusive: true }));
    assert_eq!(state.test(1, Some(owner(3, 0)), all, true), None, "too late an answer changes nothing");
}

#[test]
fn a_stream_of_readers_does_not_starve_a_writer() {
    let mut state = table(Limits::default());
    let all = range(0, 0);
    lock(&mut state, 1, all, false, true);
    assert_eq!(lock(&mut state, 2, all, true, true), Locked::Blocked);
    assert_eq!(lock(&mut state, 3, all, false, false), Locked::Granted, "who does not wait is told what is locked");
    state.unlock(1, owner(3, 0), all).unwrap();
    assert_eq!(lock(&mut state, 3, all, false, true), Locked::Blocked, "behind the writer");
    state.unlock(1, owner(1, 0), all).unwrap();
    assert_eq!(offers(&mut state), [2]);
    lock(&mut state, 2, all, true, true);
    state.unlock(1, owner(2, 0), all).unwrap();
    assert_eq!(offers(&mut state), [3]);
}

#[test]
fn who_is_waited_for_is_never_held_back() {
    let mut state = table(Limits::default());
    let all = range(0, 0);
    lock(&mut state, 1, all, false, true);
    assert_eq!(lock(&mut state, 2, all, true, true), Locked::Blocked);
    // another process of host 1, for which the first may wait in its turn
    assert_eq!(state.lock(HostId(1), ask(1, 7, all, false, true)), Locked::Granted);
    // 3 has what 1 waits for, elsewhere
    assert_eq!(state.lock(HostId(3), ask(2, 0, all, true, true)), Locked::Granted);
    assert_eq!(state.lock(HostId(1), ask(2, 0, all, true, true)), Locked::Blocked);
    assert_eq!(lock(&mut state, 3, all, false, true), Locked::Granted);
}

#[test]
fn a_wait_that_would_never_end_is_refused() {
    let mut state = table(Limits::default());
    let (a, b) = (range(0, 1), range(1, 1));
    lock(&mut state, 1, a, true, true);
    lock(&mut state, 2, b, true, true);
    assert_eq!(lock(&mut state, 1, b, true, true), Locked::Blocked);
    assert_eq!(lock(&mut state, 2, a, true, true), Locked::Deadlock);
    assert_eq!(lock(&mut state, 2, a, true, false), Locked::Denied);
    // two readers that both want to write
    let mut state = table(Limits::default());
    lock(&mut state, 1, a, false, true);
    lock(&mut state, 2, a, false, true);
    assert_eq!(lock(&mut state, 1, a, true, true), Locked::Blocked);
    assert_eq!(lock(&mut state, 2, a, true, true), Locked::Deadlock);
}

#[test]
fn a_reboot_frees_what_the_host_had_and_wanted() {
    let mut state = table(Limits::default());
    let all = range(0, 0);
    lock(&mut state, 1, all, true, true);
    lock(&mut state, 2, all, true, true);
    lock(&mut state, 3, all, true, true);
    assert_eq!(state.rebooted(b"h2", key(2).address), 1);
    assert_eq!(state.rebooted(b"h1", key(1).address), 1);
    assert_eq!(offers(&mut state), [3]);
    assert_eq!(state.counts(), Counts { locks: 0, shares: 0, hosts: 1, waiting: 1 });
}

#[test]
fn locks_beyond_a_limit_are_refused_and_nothing_is_lost() {
    let few = Limits { per_file: 4, per_host: 6, total: 8, waiting: 1, waiting_per_file: 1, hosts: 3 };
    let mut state = table(few);
    for at in 0..4 {
        assert_eq!(lock(&mut state, 1, range(at * 10, 5), true, false), Locked::Granted);
    }
    assert_eq!(lock(&mut state, 1, range(90, 5), true, false), Locked::NoRoom);
    assert_eq!(state.unlock(1, owner(1, 0), range(2, 1)), Err(NoRoom), "a split is one more");
    assert_eq!(state.unlock(1, owner(1, 0), range(10, 5)), Ok(()));
    assert_eq!(lock(&mut state, 2, range(0, 1), true, true), Locked::Blocked);
    assert_eq!(lock(&mut state, 3, range(0, 1), true, true), Locked::NoRoom);
    for (file, locked) in [(10, Locked::Granted), (11, Locked::Granted), (12, Locked::Granted), (13, Locked::NoRoom)] {
        assert_eq!(state.lock(HostId(1), ask(file, 0, range(0, 1), true, false)), locked, "six of one host");
    }
    assert_eq!(state.counts().locks, 6);
    assert_eq!(lock(&mut state, 1, range(0, 25), true, false), Locked::Granted, "to merge makes room");
}

#[test]
fn shares_keep_out_what_they_deny() {
    let (mut state, read, write) = (table(Limits::default()), 1, 2);
    let share = |state: &mut State, host, owner: &[u8], access, deny| {
        state.share(HostId(host), 1, owner, Share { access, deny }).unwrap()
    };
    assert!(share(&mut state, 1, b"a", read, write));
    assert!(share(&mut state, 2, b"a", read, 0));
    assert!(!share(&mut state, 2, b"b", write, 0), "1 denies it");
    assert!(!share(&mut state, 3, b"c", read, read), "others read");
    assert!(share(&mut state, 1, b"a", read, 0), "the same owner again");
    assert!(share(&mut state, 2, b"b", write, 0));
    assert_eq!(state.counts().shares, 3);
    for (host, owner) in [(1, b"a"), (2, b"a"), (2, b"b"), (2, b"b")] {
        state.unshare(HostId(host), 1, owner);
    }
    assert!(state.files.is_empty());
    assert_eq!(state.counts(), Counts::default());
}
