//! Jobs with their online values in Redis, on a real server that hangs, restarts and forgets.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array};
use tempfile::TempDir;
use tidemill::base::{SecretText, parse_time};
use tidemill::engine::StopHandle;
use tidemill::ops::key::encode;
use tidemill::plan::model::{OnlinePlace, RedisPlan};
use tidemill::store::StoreError;
use tidemill::store::lookup::{FeatureRow, Status, get_online};
use tidemill::store::online::{Ask, OnlineReader, RedisLink};

use crate::online::assert_served;
use crate::support::free_port;
use crate::support::redis::Redis;
use crate::support::tls::Certificates;
use crate::support::{Job, full, root, table_in};

const CUSTOMERS: i64 = 2000;
const TERMINALS: i64 = 4000;

/// Card traffic of some days, as fast as it goes.
fn days(days: &str) -> Job {
    Job::new("dataflows/card_fraud.yaml")
        .set("sources.tx.generator.rate", "max")
        .set("sources.tx.generator.duration", days)
        .set("sources.fraud_labels.generator.duration", days)
}

fn in_redis(job: Job, redis: &Redis) -> Job {
    job.set("sinks.online.redis.url", &redis.url())
}

fn in_layout(job: Job, redis: &Redis, layout: &str) -> Job {
    in_redis(job, redis).set("sinks.online.redis.layout", layout)
}

/// Every entity's features as a reader is served them.
fn served(place: &OnlinePlace) -> Vec<FeatureRow> {
    let reader = OnlineReader::of(place).expect("a store");
    let rows = |view: &'static str, key: &'static str, count: i64| {
        let reader = &reader;
        (0..count).map(move |id| {
            get_online(reader, view, &[(key.to_owned(), id.to_string())]).unwrap_or_else(|error| panic!("{error}"))
        })
    };
    rows("customer", "customer_id", CUSTOMERS).chain(rows("terminal", "terminal_id", TERMINALS)).collect()
}

fn known(rows: &[FeatureRow]) -> usize {
    rows.iter().filter(|row| row.status != Status::NotFound).count()
}

#[test]
fn values_are_those_of_the_embedded_store() {
    let Some(redis) = Redis::start("Redis beside the embedded store") else { return };
    // One day, of which the windows hold everything, and days by which they slide.
    for (length, workers) in [("1d", 1), ("5d", 1), ("9d", 3)] {
        let embedded = days(length).run();
        let expected = served(embedded.online.as_ref().expect("a store"));
        for layout in ["native", "feast"] {
            redis.ask::<()>(&["FLUSHALL"]);
            let lake = in_layout(days(length), &redis, layout).workers(workers).run();
            let found = served(lake.online.as_ref().expect("a store"));
            assert!(known(&expected) > 1000, "{} known", known(&expected));
            for (expected, found) in expected.iter().zip(&found) {
                assert_eq!(expected, found, "{length}, {workers} workers, {layout}");
            }
        }
    }
}

/// The same over TLS: written, read at once and by many, with a password; and nothing without trust.
#[test]
fn values_go_over_tls() {
    let what = "Redis over TLS";
    let Some(made) = Certificates::new(what) else { return };
    let Some(mut redis) = Redis::start_tls(what, &made) else { return };
    redis.require("hunter2");
    let expected = days("1d").run();
    let expected = served(expected.online.as_ref().expect("a store"));
    let ca = made.ca().display().to_string();
    let lake = in_redis(days("1d"), &redis).set("sinks.online.redis.ca", &ca).workers(2).run();
    let place = lake.online.as_ref().expect("a store");
    let found = served(place);
    assert!(known(&expected) > 1000, "{} known", known(&expected));
    assert!(expected == found, "the same values as in the embedded store");
    let OnlinePlace::Redis(plan) = place else { panic!("it is in Redis") };
    assert!(plan.shown.starts_with("rediss://***@127.0.0.1"), "{}", plan.shown);
    // Without blocking, as servers read.
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let fetch = |plan: &RedisPlan| {
        let link = RedisLink::new(plan).expect("a link");
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..CUSTOMERS));
        let ask = Ask { view: "customer".into(), keys: encode(&[ids]).expect("keys") };
        let found = runtime.block_on(link.fetch(&[ask], Duration::from_secs(5)))?;
        Ok::<usize, StoreError>(found.iter().flat_map(|packed| &packed.rows).flatten().count())
    };
    let customers = fetch(plan).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(customers, known(&expected[..CUSTOMERS as usize]));
    let strange = RedisPlan { ca: None, ..plan.clone() };
    for told in [
        OnlineReader::of(&OnlinePlace::Redis(strange.clone()))
            .map(drop)
            .expect_err("nobody vouches for it")
            .to_string(),
        fetch(&strange).expect_err("nobody vouches for it").to_string(),
    ] {
        assert!(told.contains("`ca: FILE.pem`") && !told.contains("hunter2"), "{told}");
    }
    // A server that speaks TLS, spoken to without.
    let url = SecretText::parse(&redis.url().replace("rediss", "redis")).expect("a URL");
    let told = OnlineReader::of(&OnlinePlace::Redis(RedisPlan { url, ..plan.clone() })).map(drop).expect_err("refused");
    assert!(told.to_string().contains("without TLS"), "{told}");
}

/// Asserts that values written again after a loss are those of an undisturbed run. An entity whose windows have run empty
/// may be unknown: the state has let it go.
fn assert_recovered(expected: &[FeatureRow], found: &[FeatureRow]) {
    let (mut same, mut gone) = (0, 0);
    for (expected, found) in expected.iter().zip(found) {
        let counts = expected.features.iter().filter(|f| f.name.starts_with("nb_tx"));
        let empty = counts.map(|f| f.value.as_u64().unwrap_or(0)).sum::<u64>() == 0;
        if !empty {
            assert_eq!(expected, found);
            same += 1;
        } else if found.status == Status::NotFound {
            gone += 1;
        } else {
            assert_eq!(
                (&expected.features, expected.status, expected.stale),
                (&found.features, found.status, found.stale)
            );
        }
    }
    assert!(same > 1000, "{same} entities with values, {gone} let go");
}

#[test]
fn a_restart_that_loses_everything_is_made_good_by_the_state() {
    let Some(mut redis) = Redis::start("a Redis that loses its values") else { return };
    let expected = served(days("9d").run().online.as_ref().expect("a store"));
    for (workers, layout) in [(1, "feast"), (2, "native"), (2, "feast")] {
        redis.ask::<()>(&["FLUSHALL"]);
        // Paced, so that the losses come in the midst of it. The second comes a day before the end: what neither moved
        // nor slid since then is there only if it was written again.
        let job = in_layout(days("9d"), &redis, layout).set("sources.tx.generator.rate", "5000").workers(workers);
        let running = std::thread::spawn(move || job.run());
        wait_for("values", || redis.ask::<u64>(&["DBSIZE"]) > 3000);
        redis.ask::<()>(&["FLUSHALL"]);
        let late = parse_time("2026-01-13").expect("a time");
        wait_for("the eighth day", || clock(&redis) > late);
        redis.kill();
        std::thread::sleep(Duration::from_millis(300));
        redis.start_again();
        let lake = running.join().expect("the job ends");
        assert_recovered(&expected, &served(lake.online.as_ref().expect("a store")));
    }
}

#[test]
fn a_loss_after_the_last_event_is_made_good_too() {
    let Some(mut redis) = Redis::start("a Redis that loses its values late") else { return };
    let expected = served(days("3d").run().online.as_ref().expect("a store"));
    let stop = StopHandle::new();
    let job = in_redis(days("3d"), &redis).workers(2).stay(stop.clone());
    let place = job.online();
    let running = std::thread::spawn(move || job.run());
    let complete = || redis_holds(&place, &expected);
    wait_for("all values", complete);
    redis.start_again();
    wait_for("all values after a restart", complete);
    redis.ask::<()>(&["FLUSHALL"]);
    wait_for("all values after a loss", complete);
    stop.stop();
    running.join().expect("the job ends");
}

/// The job's clock as Redis has it.
fn clock(redis: &Redis) -> i64 {
    redis.ask::<Option<i64>>(&["HGET", "card_fraud", "now"]).unwrap_or(i64::MIN)
}

fn redis_holds(place: &OnlinePlace, expected: &[FeatureRow]) -> bool {
    let Ok(reader) = OnlineReader::of(place) else { return false };
    // The last view's are written last; a reader between the two sees part.
    let sample = expected.iter().rev().step_by(97);
    let same = sample.clone().all(|row| get_online(&reader, &row.view, &row.entity).is_ok_and(|found| found == *row));
    same && sample.count() > 10 && served_equals(&reader, expected)
}

fn served_equals(reader: &OnlineReader, expected: &[FeatureRow]) -> bool {
    expected.iter().all(|row| get_online(reader, &row.view, &row.entity).is_ok_and(|found| found == *row))
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < patience, "no {what} within a minute");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The program on endless card traffic at full speed, its values in Redis.
fn child(lake: &Path, redis: &Redis, sets: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.args(["run", "dataflows/card_fraud.yaml", "--json"]).current_dir(root()).env("LAKE", lake);
    let url = format!("sinks.online.redis.url={}", redis.url());
    for set in ["sources.tx.generator.rate=max", url.as_str()].iter().chain(sets) {
        command.args(["--set", set]);
    }
    command.env_remove("TIDEMILL_LOG").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the program starts")
}

fn interrupt(child: &Child) {
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill").success());
}

/// Resident memory in MiB.
fn resident(child: &Child) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
}

/// At full input each tick slides nearly every window, so that values not taken by Redis would pile up by the hundred
/// megabytes.
#[test]
#[cfg(target_os = "linux")]
fn memory_is_flat_while_redis_hangs_and_nothing_is_lost() {
    const GROWTH_MAX: u64 = 32;
    let Some(redis) = Redis::start("a Redis that hangs") else { return };
    let dir = TempDir::new().expect("a folder");
    let world = ["tx", "fraud_labels"].map(|source| {
        [("customers", 5000), ("terminals", 10_000)]
            .map(|(what, count)| format!("sources.{source}.generator.{what}={count}"))
    });
    let sets: Vec<&str> = world.iter().flatten().map(String::as_str).chain(["tick.rows=2048"]).collect();
    let child = child(dir.path(), &redis, &sets);
    wait_for("values", || redis.ask::<u64>(&["DBSIZE"]) > 12_000);
    redis.pause();
    // What may be in flight fills up first.
    std::thread::sleep(Duration::from_secs(2));
    let before = resident(&child);
    let mut most = before;
    let until = Instant::now() + Duration::from_secs(if full() { 60 } else { 8 });
    while Instant::now() < until {
        std::thread::sleep(Duration::from_millis(100));
        most = most.max(resident(&child));
    }
    redis.resume();
    println!("resident: {before} MiB when it began to wait, {most} MiB at most");
    let paused_at = clock(&redis);
    wait_for("progress", || clock(&redis) > paused_at + 24 * 3_600_000_000);
    interrupt(&child);
    let output = child.wait_with_output().expect("it ends");
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{err}");
    assert_eq!((err.matches("redis is away").count(), err.matches("redis is back").count()), (1, 1), "{err}");
    assert!(most <= before + GROWTH_MAX, "{before} MiB grew to {most} MiB");

    let place = in_redis(Job::new("dataflows/card_fraud.yaml"), &redis).online();
    let table = table_in(&dir.path().join("card_fraud"), "features/customer", Some(&["customer_id", "event_time"]));
    let (customers, _) = assert_served(&table, &place, clock(&redis));
    assert!(customers > 4000, "{customers} customers");
}

/// While Redis hangs a job cannot finish what it read; the second interrupt ends it all the same.
#[test]
#[cfg(unix)]
fn a_second_interrupt_ends_a_job_that_waits() {
    let Some(redis) = Redis::start("interrupts while Redis hangs") else { return };
    let dir = TempDir::new().expect("a folder");
    let mut child = child(dir.path(), &redis, &[]);
    wait_for("values", || redis.ask::<u64>(&["DBSIZE"]) > 1000);
    redis.pause();
    std::thread::sleep(Duration::from_millis(500));
    interrupt(&child);
    std::thread::sleep(Duration::from_millis(500));
    interrupt(&child);
    let asked = Instant::now();
    let code = child.wait().expect("it ends").code();
    assert!(asked.elapsed() < Duration::from_secs(3), "it took {:?}", asked.elapsed());
    assert_eq!(code, Some(130));
}

fn tidemill(arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.args(arguments).current_dir(root()).env("TIDEMILL_TEST_PASSWORD", "wr/ng").env_remove("TIDEMILL_LOG");
    let output = command.stdin(Stdio::null()).output().expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code().expect("no signal"), text(output.stdout), text(output.stderr))
}

#[test]
fn features_are_read_from_redis_as_from_the_embedded_store() {
    let Some(redis) = Redis::start("features get from Redis") else { return };
    let embedded = days("2d").run();
    in_redis(days("2d"), &redis).run();
    let url = format!("sinks.online.redis.url={}", redis.url());
    let directory = embedded.online.as_ref().and_then(OnlinePlace::directory).expect("a directory");
    let directory = format!("sinks.online.embedded.path={}", directory.display());
    let get = |set: &str, extra: &[&str]| {
        let head = ["features", "get", "--job", "dataflows/card_fraud.yaml", "--set", set];
        tidemill(&[&head[..], extra].concat())
    };
    for extra in [
        &["customer", "customer_id=1"][..],
        &["customer", "customer_id=1", "--json"],
        &["terminal", "terminal_id=17", "--json"],
        &["customer", "customer_id=987654321"],
        &["customer", "customer_id=987654321", "--json"],
        &["customer", "customer_id=x"],
        &["customer", "terminal_id=1"],
        &["customers", "customer_id=1"],
    ] {
        let (expected, found) = (get(&directory, extra), get(&url, extra));
        assert_eq!(expected, found, "{extra:?}");
        let wrong = extra.len() == 2 && extra != ["customer", "customer_id=1"] && !extra[1].ends_with("987654321");
        assert_eq!(found.0, if wrong { 2 } else { 0 }, "{extra:?}: {}", found.2);
    }
    redis.ask::<()>(&["FLUSHALL"]);
    let (code, _, err) = get(&url, &["customer", "customer_id=1"]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("there is no online store in redis://"), "{err}");
}

#[test]
fn what_is_wrong_with_redis_is_said_and_its_password_is_not() {
    let Some(mut redis) = Redis::start("errors of Redis") else { return };
    redis.require("s3cret/x");
    let dir = TempDir::new().expect("a folder");
    let lake = format!("sinks.offline.delta.uri={}", dir.path().join("lake").display());
    let port = redis.port();
    let nobody = free_port();
    for (url, code, said) in [
        (format!("redis://127.0.0.1:{port}"), 1, "it wants a password"),
        (format!("redis://:wr%2Fng@127.0.0.1:{port}"), 1, "the user or the password is wrong"),
        (format!("redis://:${{env:TIDEMILL_TEST_PASSWORD}}@127.0.0.1:{port}"), 1, "the user or the password is wrong"),
        (format!("redis://:${{env:NOT_SET_ANYWHERE_1}}@127.0.0.1:{port}"), 1, "`NOT_SET_ANYWHERE_1` is not set"),
        (format!("redis://:s3cret%2Fx@127.0.0.1:{nobody}"), 1, "connection refused"),
        ("redis://:s3cret%2Fx@no-such-host.invalid".to_owned(), 1, "no-such-host.invalid"),
        (format!("redis://:s3cret/x@127.0.0.1:{port}"), 2, "cannot be read"),
        (format!("rediss://:s3cret%2Fx@127.0.0.1:{port}"), 1, "no answer within"),
        (format!("http://:s3cret%2Fx@127.0.0.1:{port}"), 2, "no URL of a Redis server"),
    ] {
        let set = format!("sinks.online.redis.url={url}");
        let file = "dataflows/card_fraud.yaml";
        let run = ["run", file, "--until-end", "--set", &lake, "--set", &set];
        let get = ["features", "get", "customer", "customer_id=1", "--job", file, "--set", &set];
        for arguments in [&run[..], &get[..]] {
            let (found, out, err) = tidemill(arguments);
            assert_eq!((found, out.as_str()), (code, ""), "{url}: {err}");
            assert!(err.contains(said), "{url}: {err}");
            for secret in ["s3cret", "wr/ng", "wr%2Fng"] {
                assert!(!err.contains(secret), "{url}: {err}");
            }
        }
    }
    let (code, out, err) = tidemill(&[
        "check",
        "dataflows/card_fraud.yaml",
        "--set",
        &format!("sinks.online.redis.url={}", redis.url().replace("s3cret/x", "s3cret%2Fx")),
    ]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains(&format!("redis://***@127.0.0.1:{port}/0")) && !out.contains("s3cret"), "{out}");
}
