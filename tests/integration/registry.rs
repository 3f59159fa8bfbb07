//! The client of schema registries against an implementation of Confluent's interface that is not ours (tests/registry).

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use tidemill::base::SecretText;
use tidemill::ingest::{Registry, RegistryError, RegistryOptions, message_decoder, parse_avsc};
use tidemill::plan::model::{AvroFormat, AvroWriter, MessageFormat, RegistryPlan};

use super::support::root;

pub struct Server {
    process: Child,
    pub open: String,
    closed: String,
}

impl Server {
    pub fn start() -> Option<Server> {
        let go = std::env::var_os("TIDEMILL_GO").filter(|go| !go.is_empty());
        let Some(go) = go else {
            println!("skipped: a schema registry: TIDEMILL_GO names no Go (tests/all looks for one)");
            return None;
        };
        let folder = tempfile::tempdir().expect("a folder");
        let program = folder.path().join("registry");
        let mut build = Command::new(go);
        build.args(["build", "-o"]).arg(&program).arg(".").current_dir(root().join("tests/registry"));
        let built = build.output().expect("go starts");
        if !built.status.success() {
            println!(
                "skipped: a schema registry: {}",
                String::from_utf8_lossy(&built.stderr).lines().next().unwrap_or("")
            );
            return None;
        }
        let mut process =
            Command::new(&program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the registry starts");
        let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        let mut line = || lines.next().expect("an address").expect("text");
        let (open, closed) = (line(), line());
        Some(Server { process, open, closed })
    }

    /// A client of the open registry.
    pub fn registry(&self) -> Registry {
        Registry::new(RegistryOptions::new(&self.open)).expect("an address")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its standard input is closed with it; this is for the case that it hangs.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn framed(id: u32, record: &[u8]) -> Vec<u8> {
    [&[0][..], &id.to_be_bytes(), record].concat()
}

const V1: &str = r#"{"type":"record","name":"tx","fields":[{"name":"a","type":"int"}]}"#;
const V2: &str = r#"{"type":"record","name":"tx","fields":[{"name":"b","type":"string","default":"none"},{"name":"a","type":"int"}]}"#;

#[test]
fn schemas_are_registered_found_and_resolved() {
    let Some(server) = Server::start() else { return };
    let registry = server.registry();
    let first = registry.register("tx-value", V1).expect("registered");
    assert_eq!(registry.register("tx-value", V1), Ok(first), "the same schema keeps its id");
    let second = registry.register("tx-value", V2).expect("registered");
    assert_ne!(first, second);
    let latest = registry.latest("tx-value").expect("an answer").expect("a schema");
    assert_eq!((latest.id, latest.version), (second, 2));
    assert_eq!(registry.latest("no/such subject"), Ok(None));
    assert_eq!(registry.schema_by_id(9_999), Ok(None));
    let refused = registry.register("tx-value", "{\"type\":\"nonsense\"").expect_err("no schema");
    assert!(matches!(refused, RegistryError::Refused { .. }) && !refused.retryable(), "{refused}");

    let refers = registry.latest("refers").expect("an answer").expect("a schema");
    let whole = registry.schema_by_id(refers.id).expect("an answer").expect("a schema");
    assert_eq!(whole.references.len(), 2, "each once");
    assert!(whole.references[0].contains("\"Kind\""), "what others refer to comes first");

    let declared = r#"{"type":"record","name":"tx","fields":[{"name":"a","type":"long"},
        {"name":"b","type":"string","default":"x"},
        {"name":"kind","type":{"type":"enum","name":"k.Kind","symbols":["A","B"]},"default":"A"}]}"#;
    let plan = RegistryPlan { url: server.open.clone(), credentials: None, timeout: None, ca: None };
    let format = MessageFormat::Avro(AvroFormat { declared: declared.into(), writer: AvroWriter::Registry(plan) });
    let mut decoder = message_decoder("tx", &format, &parse_avsc(declared).expect("a schema")).expect("a decoder");
    let payloads =
        [framed(first, &[2]), framed(second, b"\x02y\x04"), framed(refers.id, &[0, 2, 6]), framed(9_999, &[2])];
    let payloads: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
    let found = decoder.decode(&payloads).expect("the registry is there");
    assert_eq!(found.row_of, [0, 1, 2]);
    let expected = r#"{"a":1,"b":"x","kind":"A"} {"a":2,"b":"y","kind":"A"} {"a":3,"b":"x","kind":"B"}"#;
    let rows: Vec<String> =
        (0..3).map(|row| String::from_utf8(tidemill::ingest::row_json(&found.rows, row)).expect("JSON")).collect();
    assert_eq!(rows.join(" "), expected);
    assert_eq!((found.refused[0].index, found.refused[0].reason.as_str()), (3, "unknown schema id 9999"));
}

#[test]
fn credentials_are_sent_and_never_shown() {
    let Some(server) = Server::start() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let secret = |text: &str| {
        let path = folder.path().join(text);
        std::fs::write(&path, text).expect("written");
        SecretText::parse(&format!("${{file:{}}}", path.display())).expect("a reference")
    };
    let with = |user: &str, password: &str| {
        let mut options = RegistryOptions::new(&server.closed);
        options.credentials = Some((secret(user), secret(password)));
        Registry::new(options).expect("an address")
    };
    assert!(with("tide", "mill").register("tx-value", V1).is_ok());
    let wrong = with("tide", "hunter2");
    let error = wrong.register("tx-value", V1).expect_err("refused");
    assert!(matches!(error, RegistryError::Refused { .. }), "{error}");
    let shown = format!("{error} {error:?} {wrong:?}");
    assert!(!shown.contains("hunter2") && !shown.contains("mill\""), "{shown}");
}
