//! A file as a list of bytes would be it, through syncs and crashes.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Write(u64, Vec<u8>),
    Resize(u64),
    Sync,
    /// Without a sync; what is in the file may survive.
    Kill,
    PowerCut,
    /// The keeper's turn.
    Cut,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..300u64, 1..60usize, any::<u8>()).prop_map(|(at, len, byte)| Step::Write(at, vec![byte; len])),
        2 => (0..300u64).prop_map(Step::Resize),
        2 => Just(Step::Sync),
        1 => Just(Step::Kill),
        1 => Just(Step::PowerCut),
        1 => Just(Step::Cut),
    ]
}

/// What the file may be: its bytes now, and all that it has been since it was last durable.
struct Model {
    now: Vec<u8>,
    since: Vec<Vec<u8>>,
}

impl Model {
    fn change(&mut self, change: impl FnOnce(&mut Vec<u8>)) {
        self.since.push(self.now.clone());
        change(&mut self.now);
    }

    /// After a crash: the durable size, and each byte as it was then or as it was written later.
    fn crashed(&mut self, found: Vec<u8>) {
        self.since.push(self.now.clone());
        assert_eq!(found.len(), self.since[0].len(), "size is the durable one");
        for (at, byte) in found.iter().enumerate() {
            assert!(self.since.iter().any(|then| then.get(at) == Some(byte)), "byte {at} is {byte}");
        }
        self.now = found;
        self.since.clear();
    }
}

async fn follow(steps: Vec<Step>, here: Vec<Range<u64>>) {
    let (mut rig, base) = (Rig::roomy(), pattern(200));
    let mut staged = rig.staged_over(&base, &here).await;
    let mut model = Model { now: base, since: Vec::new() };
    for step in steps {
        let before = staged.version();
        match step {
            Step::Write(at, data) => {
                let (start, end) = (at as usize, at as usize + data.len());
                rig.write(&staged, at, &data).await.unwrap();
                model.change(|bytes| {
                    bytes.resize(bytes.len().max(end), 0);
                    bytes[start..end].copy_from_slice(&data);
                });
                assert!(staged.version() > before);
            }
            Step::Resize(size) => {
                rig.resize(&staged, size).await;
                // a truncation is made durable before it is answered; its bytes are gone for good
                rig.content.sync(&staged).await.unwrap();
                model.now.resize(size as usize, 0);
                model.since.clear();
            }
            Step::Sync => {
                rig.content.sync(&staged).await.unwrap();
                model.since.clear();
            }
            Step::Cut => rig.content.cut_files().await,
            Step::Kill | Step::PowerCut => {
                if matches!(step, Step::PowerCut) {
                    rig.content.lose_power().unwrap();
                }
                staged = rig.reopen(staged);
                model.crashed(rig.whole(&staged));
            }
        }
        assert_eq!(rig.whole(&staged), model.now);
        assert_eq!(rig.pieced(&staged, 30..150), model.now[model.now.len().min(30)..model.now.len().min(150)]);
        assert_eq!(staged.live().size, model.now.len() as u64);
    }
    let (local, row) = rig.promote(&staged).await;
    assert!(local.complete && row.presence == Presence::Complete && row.size == model.now.len() as u64);
    assert_eq!(rig.object_bytes(local.object), model.now);
    assert_eq!(rig.whole(&staged), model.now, "what is not settled is as it was");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn reads_as_a_file_does_and_a_crash_leaves_what_was_durable(steps in prop::collection::vec(any_step(), 0..25)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(follow(steps, std::iter::once(0..200).collect()));
    }
}
