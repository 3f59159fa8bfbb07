//! Sources as a dataflow file declares them.

use super::kit::Dir;
use crate::ingest::{DeadLetterKind, FileCatalog, ReaderOptions, SourceReader};

#[test]
fn a_dataflow_file_reads_text_by_its_schema() {
    let dir = Dir::new();
    dir.text(
        "tx.avsc",
        r#"{"type":"record","name":"tx","fields":[
            {"name":"id","type":"long"},
            {"name":"ts","type":{"type":"long","logicalType":"timestamp-millis"}},
            {"name":"card","type":["null","string"]},
            {"name":"currency","type":"string","default":"EUR"},
            {"name":"amount","type":"double"}]}"#,
    );
    dir.text("a.ndjson", "{\"id\":1,\"ts\":1000,\"card\":\"c\",\"amount\":2}\n{\"id\":2,\"ts\":2000,\"card\":\"c\"}\n");
    dir.text("b.ndjson", "{\"id\":3,\"ts\":1500,\"amount\":2}\n{\"id\":1,\"ts\":2000,\"card\":\"d\",\"amount\":4,\"currency\":\"USD\"}\n");
    let root = dir.path().display();
    let job = dir.text(
        "job.yaml",
        format!(
            "job: j\nversion: 1\nsources:\n  tx:\n    file: {{path: \"{root}/*.ndjson\"}}\n    schema: {root}/tx.avsc\n    id: id\n    \
             event_time: ts\n    dedup: 1h\n    validate: {{currency: {{in: [EUR, USD]}}}}\nfeatures:\n  card:\n    from: tx\n    entity: [card]\n    \
             aggregates:\n      total: {{sum: amount, over: 1h}}\nfeature_sets:\n  wide: {{on: tx, take: [id, currency, card.*]}}\n"
        ),
    );
    let loaded = crate::plan::load(&job, &[], &|_| None, &FileCatalog);
    let (plan, _) = loaded.unwrap_or_else(|faults| panic!("{faults}"));
    let outcome = SourceReader::open(&plan.sources[0], ReaderOptions::of(&plan, 0)).unwrap().read_all(1);
    assert_eq!(outcome.column("_time"), ["1970-01-01T00:00:01Z"]);
    assert_eq!((outcome.column("amount"), outcome.column("currency")), (vec!["2.0".into()], vec!["EUR".into()]));
    let found: Vec<_> = outcome.dead.iter().map(|l| (l.partition, l.offset, l.kind)).collect();
    assert_eq!(
        found,
        [(0, 1, DeadLetterKind::MissingField), (1, 0, DeadLetterKind::NoEntity), (1, 1, DeadLetterKind::Duplicate),]
    );
}
