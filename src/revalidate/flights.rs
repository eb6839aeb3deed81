//! Single flight: one task for a key, shared by all who ask for it while it runs.
//! Invariant: a flight is in the map exactly while its `Landing` lives and is not finished, so nobody
//! can join one that will say nothing more, not even after a panic.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

type Map<K, V> = Arc<Mutex<HashMap<K, watch::Receiver<V>>>>;

/// The flights of one kind.
pub(super) struct Flights<K, V>(Map<K, V>);

impl<K, V> Default for Flights<K, V> {
    fn default() -> Flights<K, V> {
        Flights(Arc::default())
    }
}

impl<K: Clone + Eq + Hash, V> Flights<K, V> {
    /// Has the next who asks for `key` start a flight of its own; who joined the one under way stays with that.
    pub(super) fn forsake(&self, key: &K) {
        self.0.lock().remove(key);
    }

    /// The same, of all keys.
    pub(super) fn forsake_all(&self) {
        self.0.lock().clear();
    }

    /// Joins the flight of `key`, or starts one that says `first` for now; `None` when there are `most` already.
    pub(super) fn join(
        &self,
        key: &K,
        most: usize,
        first: V,
        start: impl FnOnce(Landing<K, V>),
    ) -> Option<watch::Receiver<V>> {
        let mut map = self.0.lock();
        if let Some(joined) = map.get(key) {
            return Some(joined.clone());
        }
        if map.len() >= most {
            return None;
        }
        let (sender, receiver) = watch::channel(first);
        map.insert(key.clone(), receiver.clone());
        drop(map);
        start(Landing { flights: self.0.clone(), key: key.clone(), sender });
        Some(receiver)
    }
}

/// The end of a flight that its task holds.
pub(super) struct Landing<K: Eq + Hash, V> {
    flights: Map<K, V>,
    key: K,
    sender: watch::Sender<V>,
}

impl<K: Eq + Hash, V> Landing<K, V> {
    /// Tells all who joined how far it is.
    pub(super) fn report(&self, change: impl FnOnce(&mut V)) {
        self.sender.send_modify(change);
    }

    /// Tells them the last word; whoever asks from now on starts a new flight.
    pub(super) fn finish(self, change: impl FnOnce(&mut V)) {
        self.leave();
        self.sender.send_modify(change);
    }

    fn leave(&self) {
        let mut flights = self.flights.lock();
        // The key may be another flight's already.
        if flights.get(&self.key).is_some_and(|joined| joined.same_channel(&self.sender.subscribe())) {
            flights.remove(&self.key);
        }
    }
}

impl<K: Eq + Hash, V> Drop for Landing<K, V> {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finished_flight_does_not_take_down_the_next_one() {
        let flights: Flights<u8, u8> = Flights::default();
        let mut first = None;
        let joined = flights.join(&1, 8, 0, |landing| first = Some(landing)).unwrap();
        assert!(flights.join(&1, 8, 0, |_| panic!("one is under way")).unwrap().same_channel(&joined));
        let mut second = None;
        let landing = first.take().unwrap();
        landing.flights.lock().remove(&1);
        flights.join(&1, 8, 0, |landing| second = Some(landing)).unwrap();
        drop(landing);
        assert_eq!(flights.0.lock().len(), 1, "the second is still there");
        drop(second);
        assert!(flights.0.lock().is_empty(), "a flight that ends without a word leaves the map");
    }

    #[test]
    fn forsaken_flight_is_joined_by_nobody_and_takes_nobody_along() {
        let flights: Flights<u8, u8> = Flights::default();
        let mut landings = Vec::new();
        let mut joined = flights.join(&1, 8, 0, |landing| landings.push(landing)).unwrap();
        flights.forsake(&1);
        let next = flights.join(&1, 8, 0, |landing| landings.push(landing)).unwrap();
        assert!(!next.same_channel(&joined));
        landings.remove(0).finish(|value| *value = 7);
        assert_eq!((*joined.borrow_and_update(), *next.borrow()), (7, 0));
        assert!(flights.join(&1, 8, 0, |_| panic!("one is under way")).unwrap().same_channel(&next));
    }

    #[test]
    fn flights_are_bounded() {
        let flights: Flights<u8, u8> = Flights::default();
        let mut held = Vec::new();
        assert!(flights.join(&1, 1, 0, |landing| held.push(landing)).is_some());
        assert!(flights.join(&2, 1, 0, |landing| held.push(landing)).is_none());
        held.pop().unwrap().finish(|value| *value = 7);
        assert!(flights.join(&2, 1, 0, |landing| held.push(landing)).is_some());
    }
}
