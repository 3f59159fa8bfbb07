//! `tidemill serve` under clients that are many, slow, wrong or hostile.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tidemill::base::{SplitMix64, any_seed};

use crate::support::serve::{Served, serve, serve_in, status, until};

/// How many files this process may have open, after asking for as many as there are.
fn files_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the system fills and reads a structure of ours.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0);
        limit.rlim_cur = limit.rlim_max;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
    }
    limit.rlim_cur
}

/// Reads one answer that has a length; its status.
fn read_answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> u16 {
    buffer.clear();
    let mut piece = [0; 16 << 10];
    loop {
        let read = stream.read(&mut piece).expect("an answer");
        assert!(read > 0, "the connection ended within an answer: {}", String::from_utf8_lossy(buffer));
        buffer.extend(&piece[..read]);
        let Some(head) = buffer.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&buffer[..head]).into_owned();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        if buffer.len() >= head + 4 + length.parse::<usize>().expect("a number") {
            return status(&text);
        }
    }
}

#[test]
fn ten_thousand_idle_and_five_hundred_busy_connections() {
    const BUSY: usize = 500;
    let files = usize::try_from(files_limit()).unwrap_or(usize::MAX);
    // The server has as many, less what it keeps for itself.
    let idle_count = 10_000.min(files.saturating_sub(BUSY + 1500));
    if idle_count < 10_000 {
        println!("{idle_count} idle connections in place of 10,000: the limit of open files is {files}");
    }
    let mut server = serve(&["--idle-timeout", "1h", "--header-timeout", "1h"]);
    server.assert_alive("its start");
    let before = server.resident();
    let mut buffer = Vec::new();
    let idle: Vec<TcpStream> = (0..idle_count)
        .map(|number| {
            let mut stream = server.connect();
            // One half has asked something and keeps its connection; the other has said nothing.
            if number % 2 == 0 {
                stream.write_all(b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
                assert_eq!(read_answer(&mut stream, &mut buffer), 200);
            }
            stream
        })
        .collect();
    until("all are accepted", || server.metric("tidemill_http_connections", &[]) >= idle_count as f64);
    let with_idle = server.resident();
    let good = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        // All 500 have a request in flight at a time: each thread writes to all of its connections before it reads.
        for _ in 0..10 {
            scope.spawn(|| {
                let mut streams: Vec<TcpStream> = (0..BUSY / 10).map(|_| server.connect()).collect();
                let mut buffer = Vec::new();
                for _ in 0..10 {
                    for stream in &mut streams {
                        stream.write_all(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
                    }
                    for stream in &mut streams {
                        good.fetch_add(usize::from(read_answer(stream, &mut buffer) == 200), Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(good.load(Relaxed), BUSY * 10);
    let with_busy = server.resident();
    println!(
        "resident: {} MiB at first, {} MiB with {idle_count} idle connections, {} MiB with 500 busy ones besides",
        before >> 20,
        with_idle >> 20,
        with_busy >> 20
    );
    // 16 KiB for each idle connection were measured; the bound is for allocators that keep more.
    assert!(with_idle - before < idle_count as u64 * (32 << 10), "{before} {with_idle}");
    assert!(with_busy < with_idle + (128 << 20), "{with_idle} {with_busy}");
    drop(idle);
    until("all are gone", || server.metric("tidemill_http_connections", &[]) <= 1.0);
    server.assert_alive("10,500 connections");
}

#[test]
fn what_is_no_http_gets_the_right_answer_and_harms_nobody() {
    let mut server = serve(&["--header-timeout", "500ms", "--idle-timeout", "500ms", "--max-body", "1kB"]);
    let long = "x".repeat(100_000);
    let many: String = (0..300).map(|number| format!("a{number}: b\r\n")).collect();
    let cases: &[(&str, String, &[u16])] = &[
        ("no HTTP", "hello\r\n\r\n".to_owned(), &[400]),
        ("a version that is none", "GET / HTTP/9.9\r\nHost: localhost\r\n\r\n".to_owned(), &[400]),
        ("a space in a header's name", "GET / HTTP/1.1\r\nHost : localhost\r\n\r\n".to_owned(), &[400]),
        ("a zero byte in a header", "GET / HTTP/1.1\r\nHost: local\0host\r\n\r\n".to_owned(), &[400]),
        ("a method with a bracket", "G[T / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), &[400]),
        ("no host", "GET /health HTTP/1.1\r\nConnection: close\r\n\r\n".to_owned(), &[400]),
        ("a negative length", "GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n".to_owned(), &[400]),
        (
            "two lengths",
            "GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab".to_owned(),
            &[400],
        ),
        ("a head too long", format!("GET / HTTP/1.1\r\nHost: localhost\r\na: {long}\r\n\r\n"), &[431]),
        ("too many headers", format!("GET / HTTP/1.1\r\nHost: localhost\r\n{many}\r\n"), &[431]),
        ("a path too long", format!("GET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n"), &[414, 431]),
        (
            "a body too long",
            format!("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999\r\n\r\n{long}"),
            &[413],
        ),
        (
            "a page that is not there",
            "GET /a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".to_owned(),
            &[404],
        ),
        (
            "a method that is not there",
            "PUT /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".to_owned(),
            &[405],
        ),
        (
            "a path that goes up",
            "GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".to_owned(),
            &[404],
        ),
        (
            "a tunnel",
            "CONNECT localhost:22 HTTP/1.1\r\nHost: localhost:22\r\nConnection: close\r\n\r\n".to_owned(),
            &[404, 405],
        ),
        ("half a head", "GET / HTTP/1.1\r\nHos".to_owned(), &[0]),
        ("TLS", "\u{16}\u{3}\u{1}\0\u{5}\u{1}\0\0\u{1}".to_owned(), &[0, 400]),
    ];
    for (what, bytes, expected) in cases {
        let answer = String::from_utf8_lossy(&server.raw(bytes.as_bytes())).into_owned();
        assert!(expected.contains(&status(&answer)), "{what}: {answer}");
        server.assert_alive(what);
    }
    assert!(server.metric(r#"tidemill_http_refused_total{reason="malformed"}"#, &[]) >= 8.0);
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).expect("short").to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// `GET /` of localhost, from HPACK's static table.
const HEADERS: &[u8] = b"\x82\x86\x84\x41\x09localhost";

#[test]
fn hostile_http2_ends_its_own_connection_and_nothing_else() {
    let mut server = serve(&["--header-timeout", "500ms", "--idle-timeout", "500ms", "--stall-timeout", "500ms"]);
    let settings = frame(4, 0, 0, b"");
    let reset = |stream: u32| [frame(1, 4, stream, HEADERS), frame(3, 0, stream, &8u32.to_be_bytes())].concat();
    let before = server.resident();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("half a preface", Vec::new()),
        ("a preface and no more", settings.clone()),
        ("no frames", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        ("a frame longer than allowed", [settings.clone(), vec![0xff; 9], vec![0; 1 << 20]].concat()),
        ("settings of a wrong length", frame(4, 0, 0, b"abc")),
        ("headers that are no HPACK", [settings.clone(), frame(1, 4, 1, &[0xff; 100])].concat()),
        ("an even stream", [settings.clone(), frame(1, 4, 2, HEADERS)].concat()),
        ("data of no stream", [settings.clone(), frame(0, 0, 7, b"x")].concat()),
        (
            "headers without an end",
            [settings.clone(), frame(1, 0, 1, HEADERS), frame(9, 0, 1, &[0x40; 16_000]).repeat(200)].concat(),
        ),
        (
            "streams that are reset at once",
            [settings.clone(), (0..20_000).flat_map(|number| reset(number * 2 + 1)).collect()].concat(),
        ),
        ("pings without end", [settings.clone(), frame(6, 0, 0, &[0; 8]).repeat(100_000)].concat()),
        ("settings without end", settings.repeat(100_000)),
        (
            "window updates past the end",
            [settings.clone(), frame(8, 0, 0, &0x7fff_ffff_u32.to_be_bytes()).repeat(3)].concat(),
        ),
    ];
    for (what, bytes) in cases {
        let preface = if what == "half a preface" { &PREFACE[..14] } else { PREFACE };
        // That it ends shows that the server ended it.
        server.raw(&[preface, &bytes].concat());
        server.assert_alive(what);
    }
    assert!(server.resident() < before + (64 << 20), "{before} {}", server.resident());
}

#[test]
fn random_bytes_do_no_harm() {
    let mut server = serve(&["--header-timeout", "1s", "--idle-timeout", "1s"]);
    let seed = any_seed();
    println!("seed {seed}");
    let mut random = SplitMix64::new(seed);
    let good = [
        b"POST /api/v1/audit?limit=3 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".to_vec(),
        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: text/plain\r\nAuthorization: Bearer x\r\n\r\n".to_vec(),
        [PREFACE, &frame(4, 0, 0, b""), &frame(1, 5, 1, HEADERS), &frame(0, 1, 1, b"body")].concat(),
    ];
    let before = server.resident();
    for _ in 0..1500 {
        let mut bytes = match random.word() % 3 {
            0 => (0..random.word() % 400).map(|_| random.word() as u8).collect(),
            _ => good[(random.word() % 3) as usize].clone(),
        };
        for _ in 0..random.word() % 4 {
            let at = random.word() as usize % bytes.len().max(1);
            match random.word() % 3 {
                0 => bytes.truncate(at),
                1 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = random.word() as u8),
                _ => bytes.splice(at..at, [random.word() as u8; 3]).for_each(drop),
            }
        }
        let mut stream = server.connect();
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    server.assert_alive("random bytes");
    assert!(server.resident() < before + (64 << 20), "{before} {}", server.resident());
    assert_eq!(server.metric("tidemill_http_requests_in_flight", &[]), 1.0, "the question itself");
}

#[test]
fn slow_clients_are_cut_off_in_bounded_memory() {
    let mut server = serve(&[
        "--header-timeout",
        "300ms",
        "--stall-timeout",
        "500ms",
        "--idle-timeout",
        "1h",
        "--max-connections",
        "500",
    ]);
    let before = server.resident();
    // Readers that ask for more than fits into any buffer and read nothing.
    let ask = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(2000);
    let readers: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut stream = server.connect();
            stream.set_nonblocking(true).expect("set");
            let _ = stream.write(&ask);
            stream
        })
        .collect();
    let cut = |reason: &str| server.metric(&format!(r#"tidemill_http_refused_total{{reason="{reason}"}}"#), &[]);
    until("the readers are cut off", || cut("slow_reader") >= 100.0);
    drop(readers);
    // Senders of one byte now and then: each byte comes in time, the head does not.
    let mut senders: Vec<TcpStream> = (0..100).map(|_| server.connect()).collect();
    until("the senders are cut off", || {
        senders.iter_mut().for_each(|stream| drop(stream.write(b"G")));
        cut("slow_head") >= 100.0
    });
    server.assert_alive("slow clients");
    assert!(server.resident() < before + (128 << 20), "{before} {}", server.resident());
    let held: Vec<TcpStream> = (0..500).map(|_| server.connect()).collect();
    let refused = server.ask("GET /health", &[]);
    assert!(refused.0 == 503 || refused.1.is_empty(), "{}", refused.1);
    drop(held);
    until("there is room again", || server.ask("GET /health", &[]).0 == 200);
}

fn entry(token: &str, scope: &str, more: &str) -> String {
    let digest: String = Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("- {{name: {token}, sha256: {digest}, scopes: [{scope}]{more}}}\n")
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

fn with_tokens(entries: &[String], more: &[&str]) -> Served {
    let dir = TempDir::new().expect("a folder");
    std::fs::write(dir.path().join("tokens.yaml"), format!("tokens:\n{}", entries.concat())).expect("a file");
    serve_in(dir, &[&["--tokens", "DIR/tokens.yaml"], more].concat())
}

#[test]
fn tokens_scopes_and_rates_have_their_statuses() {
    let entries = [
        entry("alice", "admin", ""),
        entry("bob", "predict", ""),
        entry("carol", "read_features", ", rate: 0.01, burst: 2"),
    ];
    let server = with_tokens(&entries, &["--anonymous-rate", "20"]);
    let ask = |line: &str, token: &str| server.ask(line, &[&bearer(token)]).0;
    assert_eq!((ask("GET /metrics", "alice"), ask("GET /api/v1/audit", "alice")), (200, 200));
    assert_eq!((ask("GET /metrics", "bob"), ask("GET /api/v1/audit", "carol")), (403, 403));
    assert_eq!((ask("GET /metrics", "mallory"), server.ask("GET /metrics", &[]).0), (401, 401));
    let carol: Vec<u16> = (0..2).map(|_| ask("GET /metrics", "carol")).collect();
    assert_eq!(carol, [200, 429], "one was spent above");
    let (_, answer) = server.ask("GET /metrics", &[&bearer("carol")]);
    assert!(answer.contains("retry-after: 100\r\n") && answer.contains("problem+json"), "{answer}");
    let guesses: Vec<u16> = (0..60).map(|number| ask("GET /metrics", &format!("guess-{number}"))).collect();
    assert!(guesses.contains(&429), "{guesses:?}");
    assert_eq!(ask("GET /metrics", "alice"), 200, "others go on");
}

#[test]
fn tokens_are_read_again_and_a_bad_file_changes_nothing() {
    let server = with_tokens(&[entry("alice-the-first", "admin", "")], &["--log", "error"]);
    let file = server.dir.path().join("tokens.yaml");
    let ask = |token: &str| server.ask("GET /metrics", &[&bearer(token)]).0;
    assert_eq!((ask("alice-the-first"), ask("alice-the-second")), (200, 401));
    std::fs::write(&file, "tokens: [{name: x, token: hunter2hunter2hunter2, scopes: [admin]}]").expect("a file");
    until("the bad file is refused", || server.told().contains("tokens[0] (`x`)"));
    assert!(!server.told().contains("hunter2"), "{}", server.told());
    assert_eq!(ask("alice-the-first"), 200);
    // As Kubernetes does it: another file takes its place.
    let other = file.with_extension("new");
    std::fs::write(&other, format!("tokens:\n{}", entry("alice-the-second", "admin", ""))).expect("a file");
    std::fs::rename(&other, &file).expect("moved");
    until("the second token is known", || ask("alice-the-second") == 200);
    assert_eq!(ask("alice-the-first"), 401);
    let reloads = |outcome: &str| {
        server.metric(&format!(r#"tidemill_http_reloads_total{{outcome="{outcome}"}}"#), &[&bearer("alice-the-second")])
    };
    assert_eq!((reloads("done"), reloads("failed")), (1.0, 1.0));
}

#[test]
fn a_server_that_is_stopped_says_so_and_ends_in_peace() {
    let mut server = serve(&["--drain-delay", "2s", "--drain", "60s"]);
    let mut known = server.connect();
    let mut buffer = Vec::new();
    let mut ready = |stream: &mut TcpStream| {
        stream.write_all(b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
        read_answer(stream, &mut buffer)
    };
    assert_eq!(ready(&mut known), 200);
    server.terminate();
    until("it says that it stops", || server.told().contains("stopping"));
    assert_eq!(ready(&mut known), 503);
    assert_eq!(server.ask("GET /ready", &[]).0, 503, "and takes connections meanwhile");
    // Idle connections are closed, and so it ends.
    assert!(server.wait().success());
    assert_eq!(known.read(&mut [0; 10]).unwrap_or(0), 0);
}

#[test]
fn a_server_that_could_be_reached_by_others_is_refused() {
    let refused = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tidemill"));
        let dir = TempDir::new().expect("a folder");
        let output = command.arg("serve").args(arguments).arg("--data").arg(dir.path()).output().expect("it starts");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let open = refused(&["--listen", "0.0.0.0:0"]);
    assert!(open.contains("--tokens") && open.contains("--open"), "{open}");
    assert!(refused(&["--tokens", "/nonexistent/tokens.yaml"]).contains("/nonexistent/tokens.yaml"));
    assert!(refused(&["--tls-cert", "a.pem"]).contains("--tls-key"));
    let dir = TempDir::new().expect("a folder");
    let path = dir.path().join("c.pem").display().to_string();
    std::fs::write(&path, "nothing").expect("a file");
    assert!(refused(&["--tls-cert", &path, "--tls-key", &path]).contains("c.pem"));
}
