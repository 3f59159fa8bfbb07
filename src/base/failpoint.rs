//! Failpoints: named places at which a process can be told to die, to freeze or to panic, compiled into every build.
//!
//! `TIDEMILL_FAILPOINTS=checkpoint.staged=kill@2,topic.committed=stop` kills the process, as `kill -9` does, when it comes to
//! `checkpoint.staged` for the second time, and stops it, as `SIGSTOP` does, at `topic.committed`. Without the variable a
//! place costs one load.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The variable that sets failpoints.
pub const VARIABLE: &str = "TIDEMILL_FAILPOINTS";

/// What happens at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Kill,
    Stop,
    Panic,
    Sleep(Duration),
}

#[derive(Debug)]
struct Failpoint {
    name: String,
    action: Action,
    /// The visit, counted from 1, at which it happens.
    at: u64,
    visits: AtomicU64,
}

/// Reads `name=action[@visit]`, several with commas between them.
fn parse(text: &str) -> Result<Vec<Failpoint>, String> {
    let one = |part: &str| {
        let wrong = || format!("{VARIABLE}: `{part}` is not NAME=kill|stop|panic|sleep:MILLISECONDS[@VISIT]");
        let (name, rest) = part.split_once('=').ok_or_else(wrong)?;
        let (action, at) = match rest.split_once('@') {
            Some((action, at)) => (action, at.parse().map_err(|_| wrong())?),
            None => (rest, 1),
        };
        let action = match action {
            "kill" => Action::Kill,
            "stop" => Action::Stop,
            "panic" => Action::Panic,
            other => {
                let ms = other.strip_prefix("sleep:").and_then(|ms| ms.parse().ok()).ok_or_else(wrong)?;
                Action::Sleep(Duration::from_millis(ms))
            }
        };
        Ok(Failpoint { name: name.trim().to_owned(), action, at, visits: AtomicU64::new(0) })
    };
    text.split(',').filter(|part| !part.trim().is_empty()).map(|part| one(part.trim())).collect()
}

fn failpoints() -> &'static [Failpoint] {
    static SET: OnceLock<Vec<Failpoint>> = OnceLock::new();
    SET.get_or_init(|| {
        let text = std::env::var(VARIABLE).unwrap_or_default();
        parse(&text).unwrap_or_else(|what| {
            // A test that believes in a failpoint that is not set would prove nothing.
            eprintln!("tidemill: {what}");
            std::process::exit(2)
        })
    })
}

/// A place where the process may be told to die, freeze or wait.
#[inline]
pub fn failpoint(name: &str) {
    for point in failpoints() {
        if point.name == name && point.visits.fetch_add(1, Ordering::Relaxed) + 1 == point.at {
            act(name, point.action);
        }
    }
}

fn act(name: &str, action: Action) {
    eprintln!("tidemill: failpoint {name}: {action:?}");
    let signal = match action {
        Action::Sleep(time) => return std::thread::sleep(time),
        Action::Panic => panic!("failpoint {name}"),
        Action::Kill => libc::SIGKILL,
        Action::Stop => libc::SIGSTOP,
    };
    // SAFETY: sends a signal to this very process; no memory is involved.
    unsafe { libc::kill(libc::getpid(), signal) };
    if action == Action::Kill {
        // The signal is on its way; nothing may happen after it.
        loop {
            std::thread::sleep(Duration::from_secs(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable() {
        let set = parse("a.b=kill@3, c=stop,d=sleep:20").expect("it is well-formed");
        let told: Vec<_> = set.iter().map(|p| (p.name.as_str(), p.action, p.at)).collect();
        let sleep = Action::Sleep(Duration::from_millis(20));
        assert_eq!(told, [("a.b", Action::Kill, 3), ("c", Action::Stop, 1), ("d", sleep, 1)]);
        assert!(parse("").is_ok_and(|set| set.is_empty()));
        for bad in ["a", "a=die", "a=kill@x", "a=sleep:", "a=sleep"] {
            let fault = parse(bad).expect_err("it is malformed");
            assert!(fault.contains(bad), "{fault}");
        }
    }
}
