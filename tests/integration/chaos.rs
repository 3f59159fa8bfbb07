//! Jobs that are killed, stopped and woken at every named place, whose servers restart and forget, whose disk fills up: what
//! they leave equals what an undisturbed run leaves, in tables, topics and online values.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tidemill::bench::chaos::process::{Became, Process};
use tidemill::bench::chaos::schedule::{FAILPOINTS, ONCE, TOPIC_FAILPOINTS};
use tidemill::bench::chaos::{
    At, Bed, Fault, Online, Options, Schedule, Servers, Setup, Step, Survived, Wake, World, run, survive,
};

use crate::support::full;
use crate::support::kafka::Broker;
use crate::support::redis::Redis;

fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_tidemill"))
}

fn setup(broker: Option<&Broker>, redis: Option<&Redis>) -> Setup {
    let servers = Servers { brokers: broker.map(Broker::address), redis: redis.map(Redis::url) };
    Setup::new(program(), servers).expect("a place")
}

const GENERATED: World = World { topics: false, online: Online::None };
const EMBEDDED: World = World { topics: false, online: Online::Embedded };
const EVERYTHING: World = World { topics: true, online: Online::Redis };

/// Carries a schedule out of which every fault must come about.
fn all_of(setup: &mut Setup, world: World, faults: Vec<Fault>) {
    let step = |(number, fault)| Step { workers: [1, 3, 2][number % 3], fault };
    let steps: Vec<Step> = faults.into_iter().enumerate().map(step).collect();
    let schedule = Schedule { world, steps, workers: 3 };
    match survive(setup, &schedule, "job") {
        Ok(Survived { missed, .. }) => assert_eq!(missed, 0, "{schedule}: {missed} faults did not come about"),
        Err(error) => panic!("{schedule}\n{error:#}\nleft in {}", setup.keep().display()),
    }
}

/// The second visit of a place, where there is one.
fn at(place: &'static str) -> At {
    At { place, visit: if ONCE.iter().any(|once| place.starts_with(once)) { 1 } else { 2 } }
}

#[test]
fn killed_at_every_place() {
    let mut setup = setup(None, None);
    // The first snapshot is whole.
    let mut faults = vec![Fault::Kill(At { place: "snapshot.part", visit: 1 })];
    faults.extend(FAILPOINTS.map(|place| Fault::Kill(at(place))));
    all_of(&mut setup, EMBEDDED, faults);
}

/// Each is taken over by the next, and all wake when the job is done.
#[test]
fn stopped_at_every_place_and_woken_too_late() {
    let mut setup = setup(None, None);
    all_of(&mut setup, GENERATED, FAILPOINTS.map(|place| Fault::Zombie(at(place), Wake::Last)).to_vec());
}

/// Whoever dies before it has taken over has not taken over.
#[test]
fn stopped_and_woken_with_nobody_in_its_place() {
    let mut setup = setup(None, None);
    let faults = vec![
        Fault::Zombie(at("checkpoint.staged"), Wake::After),
        Fault::KillAfter(Duration::ZERO),
        Fault::Zombie(at("restore.claimed"), Wake::After),
    ];
    all_of(&mut setup, GENERATED, faults);
}

#[test]
fn damage_and_rivals() {
    let mut setup = setup(None, None);
    let faults = vec![
        Fault::Kill(At { place: "checkpoint.published", visit: 4 }),
        Fault::Flip { part: 999, at: 500 },
        Fault::Manifest { at: 300, torn: false },
        Fault::Rival(at("checkpoint.committed"), Duration::from_millis(100)),
        Fault::Tear { part: 0, at: 700 },
        Fault::Manifest { at: 300, torn: true },
        Fault::Kill(at("delta.moved")),
    ];
    all_of(&mut setup, EMBEDDED, faults);
}

#[test]
fn topics_and_redis_through_kills_and_zombies() {
    let Some(broker) = Broker::start() else { return };
    let Some(redis) = Redis::start("a job to topics and Redis through kills") else { return };
    let mut setup = setup(Some(broker), Some(&redis));
    let mut faults = TOPIC_FAILPOINTS.map(|place| Fault::Kill(at(place))).to_vec();
    faults.extend([
        Fault::Zombie(at("topic.sent"), Wake::After),
        Fault::Zombie(at("topic.committed"), Wake::Last),
        Fault::Lose,
        Fault::Kill(at("checkpoint.committed")),
    ]);
    all_of(&mut setup, EVERYTHING, faults);
}

/// In Feast's layout a start that wakes too late, or dies half-way, leaves what the newest wrote, too.
#[test]
fn feasts_layout_through_kills_zombies_and_losses() {
    let Some(redis) = Redis::start("Feast's layout through kills") else { return };
    let mut setup = setup(None, Some(&redis));
    let faults = vec![
        Fault::Kill(at("online.put")),
        Fault::Zombie(at("online.put"), Wake::After),
        Fault::Lose,
        Fault::Zombie(at("online.put"), Wake::Last),
        Fault::Kill(at("checkpoint.published")),
        Fault::Zombie(at("checkpoint.staged"), Wake::Last),
    ];
    all_of(&mut setup, World { topics: false, online: Online::Feast }, faults);
}

/// Runs a job of every kind of sink while `trouble` happens to its servers, once it has published something.
fn through(setup: &mut Setup, trouble: impl FnOnce()) {
    let mut bed = setup.bed(EVERYTHING, "job").expect("a place");
    // Time for the trouble to come in the midst of it.
    let mut process = bed.start("topic.committed=sleep:1500@3", 2).expect("it starts");
    wait_for(&mut process, "sleep in the midst", |process| process.said().contains("topic.committed: Sleep"));
    trouble();
    let status = process.end().expect("it ends");
    assert!(status.success(), "{status}: {}", process.said());
    same(setup, &bed, true);
}

fn same(setup: &mut Setup, bed: &Bed, lost: bool) {
    if let Err(error) = setup.check(bed, lost) {
        panic!("{error:#}\nleft in {}", setup.keep().display());
    }
}

fn wait_for(process: &mut Process, what: &str, holds: impl Fn(&Process) -> bool) {
    let patience = Instant::now() + Duration::from_secs(60);
    while !holds(process) {
        let became = process.wait(Duration::from_millis(5)).expect("it is watched");
        assert!(became.is_none() && Instant::now() < patience, "no {what}: {became:?}: {}", process.said());
    }
}

#[test]
fn servers_that_restart_and_forget() {
    let Some(mut broker) = Broker::own() else { return };
    let Some(mut redis) = Redis::start("a job through restarts of its servers") else { return };
    let mut setup = setup(Some(&broker), Some(&redis));
    setup.reference(true).expect("an undisturbed run");
    through(&mut setup, || {
        broker.kill();
        redis.start_again();
        broker.start_again();
    });
}

#[test]
fn what_redis_loses_while_no_process_runs_is_written_again() {
    let Some(mut redis) = Redis::start("a Redis that forgets behind the job's back") else { return };
    let mut setup = setup(None, Some(&redis));
    let world = World { topics: false, online: Online::Redis };
    let mut bed = setup.bed(world, "job").expect("a place");
    let mut process = bed.start("checkpoint.published=kill@6", 2).expect("it starts");
    assert!(!process.end().expect("it ends").success(), "{}", process.said());
    redis.ask::<()>(&["FLUSHALL"]);
    bed.finish(1).expect("it goes on");
    same(&mut setup, &bed, true);
    // After its end too, and with a server that keeps a part.
    for workers in [3, 1] {
        redis.ask::<()>(&["FLUSHALL"]);
        bed.finish(workers).expect("it has nothing to do but that");
        same(&mut setup, &bed, true);
        redis.start_again();
    }
}

fn killed(bed: &mut Bed, failpoint: &str, workers: usize) {
    let mut process = bed.start(failpoint, workers).expect("it starts");
    let (status, said) = (process.end().expect("it ends"), process.said());
    assert!(status.code().is_none() && said.contains("failpoint"), "{failpoint}: {status}: {said}");
}

/// Starts that find a loss and die before they have made it good leave it to the next.
#[test]
fn a_loss_of_redis_outlives_those_who_found_it() {
    let Some(redis) = Redis::start("losses of Redis that are found by processes that die") else { return };
    let mut setup = setup(None, Some(&redis));
    let mut bed = setup.bed(World { topics: false, online: Online::Redis }, "job").expect("a place");
    bed.finish(2).expect("nothing disturbs it");
    // The job is at its end: what is not written because of the loss is not written at all. One who died had joined, and
    // written nothing; others had written the clock, or a part of the values.
    for deaths in [&["restore.claimed=kill"][..], &["online.put=kill@2", "online.put=kill@3"], &["online.put=kill@5"]] {
        redis.ask::<()>(&["FLUSHALL"]);
        deaths.iter().for_each(|death| killed(&mut bed, death, 1));
        bed.finish(3).expect("it has nothing to do but that");
        same(&mut setup, &bed, true);
    }
    // A loss upon a loss that was half made good.
    redis.ask::<()>(&["FLUSHALL"]);
    killed(&mut bed, "online.put=kill@3", 1);
    redis.ask::<()>(&["FLUSHALL"]);
    killed(&mut bed, "online.put=kill@2", 2);
    bed.finish(1).expect("it has nothing to do but that");
    same(&mut setup, &bed, true);
    // Between the joining and the first look.
    let mut process = bed.start("restore.claimed=stop", 2).expect("it starts");
    assert_eq!(process.became().expect("it is seen"), Became::Stopped);
    redis.ask::<()>(&["FLUSHALL"]);
    process.wake();
    assert!(process.end().expect("it ends").success(), "{}", process.said());
    same(&mut setup, &bed, true);
}

/// The command of [`Bed::command`] for a job that stays when its input has ended.
fn staying(bed: &Bed, workers: usize) -> Command {
    let plain = bed.command(workers);
    let mut command = Command::new(plain.get_program());
    command.args(plain.get_args().filter(|argument| *argument != "--until-end"));
    command.current_dir(plain.get_current_dir().expect("it has one"));
    command
}

#[test]
fn a_loss_of_redis_that_a_running_job_saw_before_it_died_is_made_good() {
    let Some(redis) = Redis::start("a job that sees a loss and dies") else { return };
    let mut setup = setup(None, Some(&redis));
    let mut bed = setup.bed(World { topics: false, online: Online::Redis }, "job").expect("a place");
    let mut process = bed.start_command(staying(&bed, 2), "online.lost=kill").expect("it starts");
    let ended = || bed.manifest().expect("a log").is_some_and(|(_, manifest)| manifest["last"] == true);
    wait_for(&mut process, "end of the input", |_| ended());
    redis.ask::<()>(&["FLUSHALL"]);
    assert!(process.end().expect("it ends").code().is_none(), "{}", process.said());
    bed.finish(1).expect("it has nothing to do but that");
    same(&mut setup, &bed, true);
    // A job that came to its end before, and stays, has its values too.
    let mut process = bed.start_command(staying(&bed, 2), "").expect("it starts");
    wait_for(&mut process, "second loss", |process| {
        redis.ask::<()>(&["FLUSHALL"]);
        process.said().contains("all current values are written again")
    });
    let values = |count: u64| redis.ask::<u64>(&["DBSIZE"]) > count;
    wait_for(&mut process, "values", |_| values(1000));
    process.kill().expect("it dies");
    bed.finish(3).expect("it has nothing to do but that");
    same(&mut setup, &bed, true);
}

#[test]
fn an_embedded_store_that_was_half_filled_again_is_filled() {
    let mut setup = setup(None, None);
    let mut bed = setup.bed(EMBEDDED, "job").expect("a place");
    killed(&mut bed, "online.created=kill", 1);
    bed.finish(1).expect("it begins");
    same(&mut setup, &bed, false);
    for deaths in [&["online.put=kill@2"][..], &["online.created=kill", "online.put=kill@2", "online.put=kill@2"]] {
        std::fs::remove_dir_all(bed.path("online")).expect("it is removed");
        deaths.iter().for_each(|death| killed(&mut bed, death, 1));
        bed.finish(1).expect("it has nothing to do but that");
        same(&mut setup, &bed, true);
    }
    let names =
        std::fs::read_dir(bed.path("online")).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let unfinished: Vec<_> = names.filter(|name| name.to_string_lossy().ends_with(".new")).collect();
    assert!(unfinished.is_empty(), "{unfinished:?}");
}

/// Of two starts that overlap the one that took the state over last is the one whose values stand, whoever came to Redis
/// first.
#[test]
fn who_has_the_state_has_the_last_word_in_redis() {
    let Some(redis) = Redis::start("starts that overlap") else { return };
    let mut setup = setup(None, Some(&redis));
    let world = World { topics: false, online: Online::Redis };
    // It reads the state, is overtaken, and takes over from the one who overtook it.
    let mut bed = setup.bed(world, "slow").expect("a place");
    killed(&mut bed, "checkpoint.published=kill@2", 1);
    let mut slow = bed.start("restore.read=stop", 2).expect("it starts");
    assert_eq!(slow.became().expect("it is seen"), Became::Stopped);
    killed(&mut bed, "checkpoint.published=kill@6", 3);
    slow.wake();
    assert!(slow.end().expect("it ends").success(), "{}", slow.said());
    same(&mut setup, &bed, false);
    // It has taken the state over, is overtaken, and comes to Redis last.
    let mut bed = setup.bed(world, "late").expect("a place");
    killed(&mut bed, "checkpoint.published=kill@2", 1);
    let mut late = bed.start("restore.claimed=stop", 2).expect("it starts");
    assert_eq!(late.became().expect("it is seen"), Became::Stopped);
    bed.finish(3).expect("it takes over");
    late.wake();
    assert_eq!(late.end().expect("it ends").code(), Some(1), "{}", late.said());
    same(&mut setup, &bed, false);
}

/// Whether a file system of few bytes could be mounted at `path`.
fn mount(path: &Path, options: &str) -> bool {
    std::fs::create_dir_all(path).expect("a folder");
    let mut command = Command::new("mount");
    command.args(["-t", "tmpfs", "-o", options, "tidemill-test"]).arg(path);
    command.output().is_ok_and(|output| output.status.success())
}

struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_disk_that_is_full_stops_the_job_and_costs_nothing() {
    let mut setup = setup(None, None);
    for (full_disk, name) in [("state", "full-state"), ("lake", "full-lake")] {
        let mut bed = setup.bed(GENERATED, name).expect("a place");
        let path = bed.path(full_disk);
        if !mount(&path, "size=900k") {
            println!("skipped: a disk that is full: file systems cannot be mounted by this user");
            return;
        }
        let mounted = Mounted(path.clone());
        for workers in [2, 1] {
            let mut process = bed.start("", workers).expect("it starts");
            let (status, said) = (process.end().expect("it ends"), process.said());
            assert_eq!(status.code(), Some(1), "{full_disk}: {said}");
            assert!(said.contains("error: ") && said.contains("No space left on device"), "{full_disk}: {said}");
        }
        assert!(bed.manifest().expect("a log").is_some() || full_disk == "state", "something was committed");
        assert!(mount(&path, "remount,size=256m"), "it grows");
        bed.finish(3).expect("there is room");
        same(&mut setup, &bed, false);
        drop(mounted);
    }
}

/// A file size limit is met in the midst of files, by any user.
#[test]
fn a_file_that_may_not_grow_stops_the_job_and_costs_nothing() {
    let mut setup = setup(None, None);
    let mut bed = setup.bed(EMBEDDED, "job").expect("a place");
    let mut process = bed.start("checkpoint.published=kill@2", 2).expect("it starts");
    assert!(!process.end().expect("it ends").success());
    let plain = bed.command(1);
    let mut command = Command::new("sh");
    command
        .args(["-c", "trap '' XFSZ; ulimit -f 40; exec \"$@\"", "sh"])
        .arg(plain.get_program())
        .args(plain.get_args());
    let mut process = bed.start_command(command, "").expect("it starts");
    let (status, said) = (process.end().expect("it ends"), process.said());
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("File too large"), "{said}");
    bed.finish(3).expect("files may grow again");
    same(&mut setup, &bed, false);
}

/// Random schedules; as many more as `tests/all --full` has time for.
#[test]
fn schedules_from_a_seed() {
    let (broker, redis) = (Broker::start(), Redis::start("random schedules with Redis"));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock");
    let (seed, schedules) = if full() { (u64::from(now.subsec_nanos()), 60) } else { (3, 3) };
    let servers = Servers { brokers: broker.map(Broker::address), redis: redis.as_ref().map(Redis::url) };
    let options = Options { program: program(), schedules, seed, only: None, servers };
    let report = run(&options, &|line| println!("{line}")).expect("it runs");
    assert_eq!(report.survived, schedules, "{report:?}");
}

/// A failpoint that nobody comes to would prove nothing.
#[test]
fn a_process_is_seen_to_stop_and_to_end() {
    let mut setup = setup(None, None);
    let mut bed = setup.bed(GENERATED, "job").expect("a place");
    let mut process = bed.start("checkpoint.staged=stop", 1).expect("it starts");
    assert_eq!(process.became().expect("it is seen"), Became::Stopped);
    process.wake();
    assert!(process.end().expect("it ends").success());
    same(&mut setup, &bed, false);
}

#[test]
fn a_job_on_topics_that_is_done_finds_nothing_to_do() {
    let Some(broker) = Broker::start() else { return };
    let mut setup = setup(Some(broker), None);
    let mut bed = setup.bed(World { topics: true, online: Online::Embedded }, "job").expect("a place");
    for workers in [1, 3, 2, 1] {
        bed.finish(workers).unwrap_or_else(|error| panic!("{error:#}"));
        same(&mut setup, &bed, false);
    }
}
