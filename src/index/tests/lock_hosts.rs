//! Which clients hold locks.

use super::*;

fn host(address: &str, name: &[u8]) -> LockHost {
    LockHost { address: address.parse().unwrap(), server: "192.0.2.1".parse().unwrap(), name: name.into() }
}

#[tokio::test]
async fn clients_with_locks_are_known_after_a_crash() {
    let bench = Bench::new();
    assert_eq!(bench.index.lock_start().await.unwrap(), LockStart { state: 1, hosts: Vec::new() });
    let (a, b, c) = (host("192.0.2.7", b"a"), host("2001:db8::7", b"\xff"), host("192.0.2.7", b""));
    bench.index.note_lock_hosts(vec![a.clone(), b.clone(), c.clone()], Vec::new()).await.unwrap();
    bench.index.note_lock_hosts(vec![a.clone()], vec![c.clone()]).await.unwrap();
    bench.index.note_lock_hosts(Vec::new(), vec![c]).await.unwrap();
    let bench = bench.crashed();
    let LockStart { state, mut hosts } = bench.index.lock_start().await.unwrap();
    hosts.sort();
    assert_eq!((state, hosts), (3, vec![a, b]));
    assert_eq!(bench.reopen().index.lock_start().await.unwrap().state, 5);
}
