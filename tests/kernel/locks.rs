//! Locks of the Linux kernel's client, through its lockd and statd: within one machine and between two.

use std::path::Path;

use fasts3::s3server::{Options, S3Server};

use crate::capture::{self, Capture, Session};
use crate::joined::{self, BEFORE_IT_POLLS, HOST, Machine, Process};
use crate::rig::{BUCKET, Serving};

/// Every procedure that the session must have shown, or it proves nothing.
const SESSION: [&str; 7] = [
    "portmap 3", // GETPORT
    "mount 1",   // MNT
    "nlm 1",     // TEST
    "nlm 2",     // LOCK
    "nlm 3",     // CANCEL
    "nlm 4",     // UNLOCK
    "stat 6",    // NOTIFY
];

#[tokio::test(flavor = "multi_thread")]
async fn locks_hold_within_a_machine_and_between_two() {
    const TEST: &str = "locks::locks_hold_within_a_machine_and_between_two";
    if !capture::is_here(TEST) || !joined::enter(TEST) {
        return;
    }
    // given two machines that mount the same bucket
    let s3 = S3Server::start(Options { buckets: vec![BUCKET.into()], ..Options::default() }).unwrap();
    let (disks, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let wire = Capture::start("locks", disks.path());
    let args = ["--allow", "10.11.0.0/24", "--grace", "10s"];
    let mut server = joined::serve(&s3.endpoint(), cache.path(), &args);
    let [here, mut there] = Machine::boot([2, 3], disks.path());
    here.mount().unwrap();
    there.mount().unwrap();

    // then
    for other in [&here, &there] {
        ranges_conflict_where_they_overlap(&here, other);
        readers_share_and_upgrade_alone(&here, other);
        flock_and_lockf_hold_too(&here, other);
        what_waits_is_granted_when_the_holder_ends(&here, other);
    }
    who_gives_up_waiting_is_not_granted(&here, &there);
    both_write_one_database(&here, &there);
    locks_outlive_the_server(&here, &there, &mut server);
    a_machine_that_lost_power_lets_go(&here, &mut there, disks.path());

    drop((here, there));
    proves(&wire.stop());
}

const DONE: Result<&str, &str> = Ok("");
const LOCKED: Result<&str, &str> = Err("EAGAIN");

/// `Process::does`, to be compared with the above.
fn does(process: &mut Process, line: &str, expected: Result<&str, &str>) {
    let answer = process.does(line);
    assert_eq!(answer.as_ref().map(String::as_str).map_err(String::as_str), expected, "{line}");
}

fn granted(process: &mut Process) {
    assert_eq!(process.answer_within(BEFORE_IT_POLLS), Ok(String::new()));
}

fn ranges_conflict_where_they_overlap(here: &Machine, there: &Machine) {
    let [mut one, mut two] = [here, there].map(|machine| machine.opens("/mnt/ranges"));
    does(&mut one, "fcntl wr 100 100", DONE);
    for (line, expected) in [
        ("fcntl wr 0 100", DONE),
        ("fcntl rd 200 0", DONE), // to the end of the file
        ("fcntl wr 199 2", LOCKED),
        ("fcntl rd 150 1", LOCKED),
        ("fcntl wr 0 0", LOCKED),
        ("conflict wr 0 0", Ok("wr 100 100")),
        ("conflict rd 0 100", Ok("none")),
    ] {
        does(&mut two, line, expected);
    }
    does(&mut one, "fcntl un 140 20", DONE); // leaves two
    does(&mut two, "fcntl wr 140 20", DONE);
    does(&mut two, "fcntl wr 139 1", LOCKED);
    does(&mut two, "fcntl wr 160 1", LOCKED);
    does(&mut one, "conflict rd 120 100", Ok("wr 140 20"));
    does(&mut one, "fcntl un 0 0", DONE);
    does(&mut two, "fcntl wr 0 0", DONE);
    does(&mut one, "fcntl rd 9223372036854775806 1", LOCKED);
}

fn readers_share_and_upgrade_alone(here: &Machine, there: &Machine) {
    let [mut one, mut two] = [here, there].map(|machine| machine.opens("/mnt/upgrade"));
    does(&mut one, "fcntl rd 0 10", DONE);
    does(&mut two, "fcntl rd 0 10", DONE);
    does(&mut one, "fcntl wr 0 10", LOCKED);
    does(&mut one, "conflict wr 0 10", Ok("rd 0 10"));
    does(&mut two, "fcntl un 0 10", DONE);
    does(&mut one, "fcntl wr 5 5", DONE);
    does(&mut two, "fcntl rd 0 5", DONE);
    does(&mut two, "fcntl rd 5 1", LOCKED);
    does(&mut one, "fcntl rd 5 5", DONE);
    does(&mut two, "fcntl rd 5 1", DONE);
}

fn flock_and_lockf_hold_too(here: &Machine, there: &Machine) {
    let [mut one, mut two] = [here, there].map(|machine| machine.opens("/mnt/flock"));
    does(&mut one, "flock sh", DONE);
    does(&mut two, "flock sh", DONE);
    does(&mut two, "flock ex", LOCKED);
    does(&mut one, "flock un", DONE);
    does(&mut two, "flock ex", DONE);
    does(&mut one, "flock sh", LOCKED);
    does(&mut two, "flock un", DONE);

    let [mut one, mut two] = [here, there].map(|machine| machine.opens("/mnt/lockf"));
    does(&mut one, "lockf tlock 10", DONE);
    does(&mut two, "lockf tlock 10", LOCKED);
    assert!(two.does("lockf test 10").is_err());
    does(&mut one, "lockf ulock 10", DONE);
    does(&mut two, "lockf lock 10", DONE);
}

fn what_waits_is_granted_when_the_holder_ends(here: &Machine, there: &Machine) {
    for (hold, wait) in [("fcntl wr 0 10", "fcntl rd 9 5 wait"), ("flock ex", "flock ex wait")] {
        let [mut one, mut two] = [here, there].map(|machine| machine.opens("/mnt/wait"));
        does(&mut one, hold, DONE);
        two.waits(there, wait);
        drop(one);
        granted(&mut two);
        does(&mut here.opens("/mnt/wait"), "fcntl wr 0 0", LOCKED);
    }
}

fn who_gives_up_waiting_is_not_granted(here: &Machine, there: &Machine) {
    let [mut one, mut two] = [here, there].map(|machine| machine.opens("/mnt/cancel"));
    does(&mut one, "fcntl wr 0 10", DONE);
    two.waits(there, "fcntl wr 0 10 wait");
    there.sh(&format!("kill {}", two.pid)).unwrap();
    there.process().does(&format!("until not os.path.exists('/proc/{}/fd/0')", two.pid)).unwrap();
    does(&mut one, "fcntl un 0 10", DONE);
    does(&mut one, "conflict wr 0 0", Ok("none"));
}

fn both_write_one_database(here: &Machine, there: &Machine) {
    here.sh("sqlite3 /mnt/t.db 'create table t(id integer primary key, who text, n integer)'").unwrap();
    let mut writers = [here, there].map(Machine::process);
    for writer in &mut writers {
        let each = "echo \"begin immediate; insert into t(who, n) values ('$HOSTNAME', $i); commit;\"";
        writer.begins(&format!(
            "sh (echo .timeout 100000; for i in {{1..40}}; do {each}; done) | sqlite3 -bail /mnt/t.db"
        ));
    }
    for writer in &mut writers {
        assert_eq!(writer.answer(), Ok(String::new()));
    }
    let counted = "pragma integrity_check; select who, count(*), count(distinct n) from t group by who";
    for machine in [here, there] {
        assert_eq!(machine.sh(&format!("sqlite3 /mnt/t.db '{counted}'")), Ok("ok\nvm2|40|40\nvm3|40|40".into()));
    }
}

fn locks_outlive_the_server(here: &Machine, there: &Machine, server: &mut Serving) {
    let [mut holder, mut rival] = [here, there].map(|machine| machine.opens("/mnt/restart"));
    let mut waiter = there.opens("/mnt/restart");
    does(&mut holder, "fcntl wr 0 10", DONE);
    waiter.waits(there, "fcntl wr 0 10 wait");
    server.kill_and_start_again();
    // asked within the time of grace; the kernel's client hears so and asks again until that is over
    does(&mut rival, "fcntl wr 9 5", LOCKED);
    does(&mut rival, "conflict wr 0 0", Ok("wr 0 10"));
    does(&mut holder, "fcntl un 0 10", DONE);
    granted(&mut waiter);
}

fn a_machine_that_lost_power_lets_go(here: &Machine, there: &mut Machine, disks: &Path) {
    let [mut one, mut two] = [here, &*there].map(|machine| machine.opens("/mnt/power"));
    does(&mut two, "fcntl wr 0 10", DONE);
    one.waits(here, "fcntl wr 0 10 wait");
    there.lose_power(disks);
    granted(&mut one);
}

/// What the machines saw could come of polling; the capture says that it came of the calls that it should come of.
fn proves(session: &Session) {
    session.is_well_formed();
    let calls = session.calls();
    for each in SESSION {
        assert!(calls.contains_key(each), "no {each} among {calls:?}");
    }
    // GRANTED (5) or GRANTED_MSG (10): for each time that one machine waited for the other, or for the server
    for (guest, waited) in [("10.11.0.2", 1), ("10.11.0.3", 3)] {
        let call_back = "rpc.msgtyp == 0 && (nlm.procedure_v4 == 5 || nlm.procedure_v4 == 10)";
        let granted = session.count(&format!("ip.src == {HOST} && ip.dst == {guest} && {call_back}"));
        assert!(granted >= waited, "{granted} call-backs to {guest}");
    }
    let graces = session.count("nlm.stat == 4"); // LCK_DENIED_GRACE_PERIOD
    assert!(graces >= 1, "nobody was told to wait for the end of the grace period");
    let reclaimed = session.count(&format!("ip.dst == {HOST} && nlm.reclaim == 1"));
    assert!(reclaimed >= 1, "nobody reclaims");
    let notified = session.count(&format!("ip.src == {HOST} && rpc.msgtyp == 0 && stat.procedure_v1 == 6"));
    assert!(notified >= 2, "the server that restarts tells both machines so, and not {notified}");
}
