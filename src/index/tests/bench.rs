//! How many creates a second the commit path makes durable, alone and in company, in an empty index and in one of
//! a million objects, with the log and without. Run by hand, in release:
//! `cargo test --release --lib creates_per_second -- --ignored --nocapture`.

use std::time::Instant;

use super::*;
use crate::index::{log, open};

const CACHES: IndexOptions = IndexOptions { cached_inodes: 100_000, cached_names: 100_000, page_cache_bytes: 64 << 20 };
const RUN: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures, does not test"]
async fn creates_per_second() {
    for objects in [0, 1_000_000] {
        for log_bytes in [0, 2 << 20, log::CAPACITY, 32 << 20] {
            let (dir, clock) = (tempfile::tempdir().unwrap(), Clock::manual());
            let path = dir.path().join("index.redb");
            let mut files = open::files(&path, CACHES.page_cache_bytes);
            files.log_bytes = log_bytes;
            let index = open::open(files, CACHES, DEFAULTS, clock.clone()).unwrap();
            let bench = Arc::new(Bench { dir, index, clock });
            fill(&bench, objects).await;
            for in_flight in [1, 16, 64] {
                create(&bench, in_flight, &format!("{objects} objects, {} KiB log", log_bytes >> 10)).await;
            }
            report_reopening(&bench);
        }
    }
}

async fn fill(bench: &Bench, objects: usize) {
    let begin = Instant::now();
    let mut sweep = Sweep::new(Ino::ROOT, Key::root(), true);
    for page in 0..objects / 1000 {
        let keys: Vec<String> = (0..1000).map(|n| format!("d{:03}/file-{page:06}-{n:04}", page / 10)).collect();
        let keys: Vec<_> = keys.iter().map(|key| (key.as_str(), "0123456789abcdef0123456789abcdef")).collect();
        sweep = bench.index.apply_page(sweep, bench.page(&keys)).await.unwrap().0;
    }
    eprintln!("{objects} objects listed in {:.1?}", begin.elapsed());
}

async fn create(bench: &Arc<Bench>, in_flight: usize, what: &str) {
    let begin = Instant::now();
    let tasks = (0..in_flight).map(|task| {
        let bench = Arc::clone(bench);
        tokio::spawn(async move {
            let mut took = Vec::new();
            while begin.elapsed() < RUN {
                let key = format!("d{task:03}/new-{in_flight}-{:06}", took.len());
                let sent = Instant::now();
                bench.see(&key, head("0123456789abcdef0123456789abcdef", &[])).await;
                took.push(sent.elapsed());
            }
            took
        })
    });
    let mut took: Vec<Duration> = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        took.extend(task.await.unwrap());
    }
    took.sort_unstable();
    let (rate, at) =
        (took.len() as f64 / begin.elapsed().as_secs_f64(), |part: f64| took[(took.len() as f64 * part) as usize]);
    eprintln!(
        "{what}, {in_flight:2} in flight: {rate:6.0}/s, median {:.2?}, 99% {:.2?}, longest {:.2?}",
        at(0.5),
        at(0.99),
        took[took.len() - 1]
    );
}

fn report_reopening(bench: &Bench) {
    let dir = tempfile::tempdir().unwrap();
    for file in ["index.redb", "index.log"] {
        std::fs::copy(bench.dir.path().join(file), dir.path().join(file)).unwrap();
    }
    let bytes = dir.path().join("index.redb").metadata().unwrap().len() >> 20;
    let begin = Instant::now();
    let index = Index::open(&dir.path().join("index.redb"), CACHES, DEFAULTS, bench.clock.clone()).unwrap();
    eprintln!("after a crash, {bytes} MiB: opened in {:.1?}, {} files", begin.elapsed(), index.counts().files);
}
