//! Jobs on brokers that want TLS and a login: what is read and written, and what is said when they do not let it in.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::Message;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::free_port;
use crate::support::kafka::{Broker, Record, topic};

const PASSWORD: &str = "grass-between-stones";
const STORE: &str = "changeit";

const SCHEMA: &str = r#"{"type": "record", "name": "Tx", "fields": [
  {"name": "id", "type": "long"},
  {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-millis"}},
  {"name": "card", "type": "long"}
]}"#;

/// A broker with a plain listener, one with TLS and a login, and one with TLS that asks for certificates.
struct Guarded {
    broker: Broker,
    login: String,
    certificate: String,
    dir: TempDir,
}

impl Guarded {
    fn start() -> Option<Guarded> {
        let dir = TempDir::new().expect("a temporary folder");
        let keys = dir.path();
        for (name, alternative) in [("broker", "ip:127.0.0.1"), ("client", "dns:client"), ("stranger", "ip:127.0.0.1")]
        {
            let store = format!("{name}.p12");
            let extension = format!("SAN={alternative}");
            let subject = format!("CN={name}");
            keytool(keys, &["-genkeypair", "-keyalg", "EC", "-dname", &subject, "-ext", &extension], name, &store);
            keytool(keys, &["-exportcert", "-rfc", "-file", &format!("{name}.pem")], name, &store);
        }
        keytool(keys, &["-importcert", "-noprompt", "-file", "client.pem"], "client", "trusted.p12");
        let (login, certificate) = (free_port(), free_port());
        let settings = format!(
            "ssl.keystore.location={0}/broker.p12\n\
             ssl.keystore.password={STORE}\n\
             ssl.keystore.type=PKCS12\n\
             sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512\n\
             listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule \
               required user_tide=\"{PASSWORD}\";\n\
             listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=\
               org.apache.kafka.common.security.scram.ScramLoginModule required;\n\
             listener.name.ssl.ssl.client.auth=required\n\
             listener.name.ssl.ssl.truststore.location={0}/trusted.p12\n\
             listener.name.ssl.ssl.truststore.password={STORE}\n",
            keys.display()
        );
        let user = format!("SCRAM-SHA-512=[name=mill,password={PASSWORD}]");
        let broker = Broker::own_with(&[("SASL_SSL", login), ("SSL", certificate)], &settings, &[&user])?;
        let address = |port| format!("127.0.0.1:{port}");
        Some(Guarded { broker, login: address(login), certificate: address(certificate), dir })
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Settings that the login listener takes, of one of its two users.
    fn plain(&self) -> Vec<(&'static str, String)> {
        self.login("PLAIN", "tide")
    }

    fn login(&self, mechanism: &str, user: &str) -> Vec<(&'static str, String)> {
        vec![
            ("security.protocol", "sasl_ssl".to_owned()),
            ("sasl.mechanism", mechanism.to_owned()),
            ("sasl.username", user.to_owned()),
            ("sasl.password", "${env:KAFKA_PASSWORD}".to_owned()),
            ("ssl.ca.location", self.path("broker.pem")),
        ]
    }

    /// Settings that the listener takes which asks for certificates.
    fn certified(&self, who: &str) -> Vec<(&'static str, String)> {
        vec![
            ("security.protocol", "ssl".to_owned()),
            ("ssl.keystore.location", self.path(&format!("{who}.p12"))),
            ("ssl.keystore.password", "${env:STORE_PASSWORD}".to_owned()),
            ("ssl.ca.location", self.path("broker.pem")),
        ]
    }
}

fn keytool(dir: &Path, arguments: &[&str], alias: &str, store: &str) {
    let output = Command::new("keytool")
        .args(arguments)
        .args(["-alias", alias, "-keystore", store, "-storepass", STORE, "-storetype", "PKCS12"])
        .current_dir(dir)
        .output()
        .expect("keytool, which comes with java, starts");
    assert!(output.status.success(), "keytool: {}", String::from_utf8_lossy(&output.stdout));
}

/// One end of a job on Kafka.
struct End<'a> {
    brokers: &'a str,
    topic: &'a str,
    properties: Vec<(&'static str, String)>,
}

impl End<'_> {
    fn text(&self) -> String {
        let properties: Vec<String> =
            self.properties.iter().map(|(name, value)| format!("{name}: \"{value}\"")).collect();
        format!("brokers: \"{}\", topic: {}, properties: {{{}}}", self.brokers, self.topic, properties.join(", "))
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.properties.retain(|(n, _)| *n != name);
        self.properties.push((name, value.into()));
        self
    }
}

/// What a job's process left.
struct Ended {
    code: Option<i32>,
    log: String,
    after: Duration,
}

/// Runs a job from one topic to another until the end of the first, in a process of its own.
fn run(source: &End<'_>, sink: &End<'_>, password: &str) -> Ended {
    let dir = TempDir::new().expect("a temporary folder");
    std::fs::write(dir.path().join("tx.avsc"), SCHEMA).expect("a file in a temporary folder");
    let text = format!(
        r#"job: guarded
sources:
  tx:
    kafka: {{{}}}
    schema: "{}/tx.avsc"
    id: id
    event_time: ts
features:
  card:
    from: tx
    entity: [card]
    aggregates: {{n: {{count: "*", over: lifetime}}}}
    to: {{kafka: {{{}}}}}
sinks:
  offline: {{delta: {{uri: "{}/lake"}}}}
"#,
        source.text(),
        dir.path().display(),
        sink.text(),
        dir.path().display(),
    );
    let (job, log) = (dir.path().join("job.yaml"), dir.path().join("log"));
    std::fs::write(&job, text).expect("a file in a temporary folder");
    let begin = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_tidemill"))
        .args(["run", "--until-end"])
        .arg(&job)
        .env("KAFKA_PASSWORD", password)
        .env("STORE_PASSWORD", STORE)
        .env("TIDEMILL_LOG", "tidemill=debug")
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log).expect("a file in a temporary folder"))
        .spawn()
        .expect("tidemill starts");
    let code = loop {
        if let Some(status) = child.try_wait().expect("a process") {
            break status.code();
        }
        if begin.elapsed() > Duration::from_secs(40) {
            child.kill().and_then(|()| child.wait()).expect("an end");
            break None;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let log = std::fs::read_to_string(&log).expect("a log");
    Ended { code, log, after: begin.elapsed() }
}

fn event(id: i64) -> Record {
    let ts = 1_767_225_600_000 + id;
    Record::to((id % 2) as i32, format!(r#"{{"id":{id},"ts":{ts},"card":{}}}"#, id % 5))
}

#[test]
fn a_job_reads_and_writes_over_tls() {
    let Some(guarded) = Guarded::start() else { return };
    let from = topic("guarded");
    guarded.broker.create_topic(&from, 2);
    guarded.broker.produce(&from, (0..200).map(event));
    let (plain, scram) = (guarded.plain(), guarded.login("SCRAM-SHA-512", "mill"));
    for (reading, writing) in [(plain.clone(), scram.clone()), (scram, guarded.certified("client"))] {
        let to = topic("written");
        guarded.broker.create_topic(&to, 2);
        let by_login = writing.iter().any(|(name, _)| *name == "sasl.mechanism");
        let source = End { brokers: &guarded.login, topic: &from, properties: reading };
        let brokers = if by_login { &guarded.login } else { &guarded.certificate };
        let sink = End { brokers, topic: &to, properties: writing };
        let ended = run(&source, &sink, PASSWORD);
        assert_eq!(ended.code, Some(0), "{}", ended.log);
        assert!(!ended.log.contains(" WARN"), "{}", ended.log);
        assert!(!ended.log.contains(PASSWORD) && !ended.log.contains(STORE), "{}", ended.log);
        let offsets: Vec<(i64, i64)> = guarded
            .broker
            .consume(&to)
            .iter()
            .map(|message| {
                let row: Value = serde_json::from_slice(message.payload().expect("a payload")).expect("JSON");
                (row["_partition"].as_i64().expect("a number"), row["_offset"].as_i64().expect("a number"))
            })
            .collect();
        assert_eq!(offsets.len(), 200);
        assert_eq!(offsets.into_iter().collect::<BTreeSet<_>>().len(), 200, "each event once");
    }
}

/// A fault of one end, and what the job's last words must hold.
struct Case<'a> {
    what: &'static str,
    end: End<'a>,
    password: &'static str,
    words: &'static [&'static str],
}

impl<'a> Case<'a> {
    fn new(what: &'static str, end: End<'a>, words: &'static [&'static str]) -> Self {
        Case { what, end, password: PASSWORD, words }
    }
}

fn cases<'a>(guarded: &'a Guarded, topic: &'a str) -> Vec<Case<'a>> {
    let end = |brokers: &'a str, properties| End { brokers, topic, properties };
    let by_login = || end(&guarded.login, guarded.plain());
    vec![
        Case {
            password: "glass-between-stones",
            ..Case::new("wrong password", by_login(), &["do not let", "Authentication failed", "`sasl.password`"])
        },
        Case {
            password: "glass-between-stones",
            ..Case::new(
                "wrong password by SCRAM",
                end(&guarded.login, guarded.login("SCRAM-SHA-512", "mill")),
                &["do not let", "invalid credentials", "`sasl.password`"],
            )
        },
        Case::new(
            "mechanism that the broker has not",
            by_login().with("sasl.mechanism", "SCRAM-SHA-256"),
            &["do not let", "SCRAM-SHA-256", "`sasl.mechanism`"],
        ),
        Case::new(
            "authority that did not sign",
            by_login().with("ssl.ca.location", guarded.path("stranger.pem")),
            &["do not let", "certificate verify failed", "let `ssl.ca.location`"],
        ),
        Case::new(
            "certificate that the broker does not trust",
            end(&guarded.certificate, guarded.certified("stranger")),
            &["do not let", "`ssl.*`"],
        ),
    ]
}

#[test]
fn a_source_that_is_not_let_in_ends_the_job_and_says_why() {
    let Some(guarded) = Guarded::start() else { return };
    let (from, to) = (topic("guarded"), topic("written"));
    guarded.broker.create_topic(&from, 1);
    guarded.broker.create_topic(&to, 1);
    let plain_address = guarded.broker.address();
    let mut cases = cases(&guarded, &from);
    let end = |brokers, properties| End { brokers, topic: &from, properties };
    cases.extend([
        Case::new(
            "plain client on a port with TLS",
            end(&guarded.login, Vec::new()),
            &["do not answer", "set `security.protocol`"],
        ),
        Case::new(
            "client with TLS on a plain port",
            end(&plain_address, guarded.plain()),
            &["tx", "mend `security.protocol` or the port"],
        ),
        Case::new(
            "authority's file that is not there",
            end(&guarded.login, guarded.plain()).with("ssl.ca.location", "/nowhere/ca.pem"),
            &["ssl.ca.location", "/nowhere/ca.pem"],
        ),
    ]);
    for case in cases {
        let sink = End { brokers: &plain_address, topic: &to, properties: Vec::new() };
        let ended = run(&case.end, &sink, case.password);
        println!("{}, after {:?}: {}", case.what, ended.after, ended.log);
        assert_eq!(ended.code, Some(1), "{}", case.what);
        assert!(
            case.words.iter().all(|word| ended.log.contains(word)),
            "{}: {:?} in {}",
            case.what,
            case.words,
            ended.log
        );
        assert!(ended.after < Duration::from_secs(20), "{}: {:?}", case.what, ended.after);
        assert!(!ended.log.contains(case.password) && !ended.log.contains(STORE), "{}", ended.log);
    }
}

#[test]
fn a_sink_that_is_not_let_in_ends_the_job_and_says_why() {
    let Some(guarded) = Guarded::start() else { return };
    let (from, to) = (topic("guarded"), topic("written"));
    guarded.broker.create_topic(&from, 2);
    guarded.broker.produce(&from, (0..20).map(event));
    guarded.broker.create_topic(&to, 1);
    let plain_address = guarded.broker.address();
    for case in cases(&guarded, &to) {
        let source = End { brokers: &plain_address, topic: &from, properties: Vec::new() };
        let ended = run(&source, &case.end, case.password);
        println!("{}, after {:?}: {}", case.what, ended.after, ended.log);
        assert_eq!(ended.code, Some(1), "{}", case.what);
        assert!(
            case.words.iter().all(|word| ended.log.contains(word)),
            "{}: {:?} in {}",
            case.what,
            case.words,
            ended.log
        );
        assert_eq!(ended.log.matches("does not let this client in").count(), 1, "{}", ended.log);
        assert!(ended.after < Duration::from_secs(25), "{}: {:?}", case.what, ended.after);
        assert!(!ended.log.contains(case.password) && !ended.log.contains(STORE), "{}", ended.log);
    }
}
