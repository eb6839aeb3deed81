//! Who tells the servers what has changed in S3, and on the way may lose it, tell it twice, late, or in another order.

use std::sync::Arc;
use std::time::Duration;

use fasts3::notify::{Hint, Origin, Said, Sequencer, Tell};
use fasts3::types::Key;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::history::Hinted;
use super::random::Random;
use super::world::{News, SERVERS, World, name};

/// What becomes of hints on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// They all come, at once.
    Straight,
    /// Some are lost, some come twice, and all of them when they like.
    Crooked,
    /// None comes.
    Nowhere,
}

/// Tells of all changes until there are no more, and returns when all hints have arrived.
pub async fn tell(world: Arc<World>, mut news: mpsc::Receiver<News>, way: Way, mut random: Random) {
    let mut on_their_way = JoinSet::new();
    while let Some(news) = news.recv().await {
        for server in 0..SERVERS {
            for delay in fates(way, &mut random) {
                let (world, news, is_numbered) = (world.clone(), news.clone(), random.once_in(2));
                on_their_way.spawn(async move {
                    if !delay.is_zero() {
                        tokio::time::sleep(delay).await;
                    }
                    deliver(&world, server, &news, is_numbered).await;
                });
            }
        }
        while let Some(delivered) = on_their_way.try_join_next() {
            delivered.unwrap();
        }
    }
    while let Some(delivered) = on_their_way.join_next().await {
        delivered.unwrap();
    }
}

/// After how long each copy of a hint arrives.
fn fates(way: Way, random: &mut Random) -> Vec<Duration> {
    match way {
        Way::Nowhere => Vec::new(),
        Way::Straight => vec![Duration::ZERO],
        Way::Crooked => {
            let copies = [0, 1, 1, 1, 2, 3][random.below(6) as usize];
            (0..copies).map(|_| if random.once_in(3) { Duration::ZERO } else { random.micros(400_000) }).collect()
        }
    }
}

async fn deliver(world: &World, server: usize, news: &News, is_numbered: bool) {
    let place = world.at(server).await;
    let said = match &news.version {
        Some((etag, size)) => Said::Written { etag: Some(etag.clone()), size: Some(*size) },
        None => Said::Removed,
    };
    let sequencer = is_numbered.then(|| Sequencer::new(&format!("{:X}", news.number)).unwrap());
    let hint = Hint { key: Key::new(&name(news.key)).unwrap(), said, sequencer, at: None, origin: Origin::Sqs };
    place.server().intake().tell(vec![hint]).await;
    let hinted = Hinted { life: place.life, key: news.key, number: news.number, ended: world.now() };
    drop(place);
    world.record.lock().hints.push(hinted);
}
