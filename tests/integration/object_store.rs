//! Jobs whose snapshots lie in an object store: killed, moved to another machine, cut off from it, and taken over.

use std::time::{Duration, Instant};

use crate::savepoint::{Place, finished, spawn};
use crate::support::s3::S3;

const PATIENCE: Duration = Duration::from_secs(60);

fn place(s3: &S3, folder: &str) -> Place {
    let place = Place::new().set(&format!("checkpoint.uri=s3://state/{folder}"));
    s3.env().into_iter().fold(place, |place, (name, value)| place.env(&name, &value))
}

/// Waits until so many bytes more have been sent to the store.
fn wait_for_bytes(s3: &S3, bytes: u64) {
    let (deadline, before) = (Instant::now() + PATIENCE, s3.carried());
    while s3.carried() < before + bytes {
        assert!(Instant::now() < deadline, "nothing is sent to the store");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_job_with_its_state_in_an_object_store_goes_on_after_a_kill_and_on_another_machine() {
    let Some(s3) = S3::start("state in an object store") else { return };
    let place = place(&s3, "killed");
    place.run_to("checkpoint.committed=kill@2", "state", 2, &[]);
    place.run_to("checkpoint.published=kill@2", "state", 3, &[]).says(&["is loaded"]);
    // Of the machine nothing is left but what lies elsewhere: the state and, here, the lake.
    std::fs::remove_dir_all(place.path("state")).expect("it was there");
    place.run_to("checkpoint.published=kill@2", "elsewhere", 1, &[]).says(&["is loaded; nothing is behind it"]);
    assert!(!place.path("elsewhere/parts").exists() && !place.path("elsewhere/epochs").exists());
    place.run_in("elsewhere", 2, &["--savepoint", "s3://state/saved"]).well();
    place.assert_same();
    place.run_in("new", 2, &["--from", "s3://state/saved"]).refused(&["did not begin with s3://state/saved"]);
    place.run_in("elsewhere", 2, &["--savepoint", "s3://state/saved"]).refused(&["holds a savepoint already"]);
}

#[test]
fn an_object_store_that_is_away_for_a_while_is_waited_for() {
    let Some(s3) = S3::start("an object store that is away") else { return };
    let mut place = place(&s3, "away");
    place.reset("sources.tx.generator.rate=6000");
    let child = spawn(place.job("state", 2, &[]));
    wait_for_bytes(&s3, 100_000);
    s3.cut(true);
    std::thread::sleep(Duration::from_secs(4));
    assert!(s3.refused() > 2, "{} connections met the cut", s3.refused());
    s3.cut(false);
    finished(child).well();
    place.assert_same();
}

#[test]
fn of_two_processes_on_one_object_store_the_first_stops() {
    let Some(s3) = S3::start("two processes on an object store") else { return };
    let mut place = place(&s3, "two");
    place.reset("sources.tx.generator.rate=3000");
    let first = spawn(place.job("state", 2, &[]));
    wait_for_bytes(&s3, 100_000);
    place.reset("sources.tx.generator.rate=max");
    // The first one's online values are its own: it holds them until it ends.
    let online = place.path("online").display().to_string();
    place.reset(&format!("sinks.online.embedded.path={online}"));
    place.run(1, &[]).well().says(&["is loaded"]);
    finished(first).refused(&["another process has taken over"]);
    place.assert_same();
}
