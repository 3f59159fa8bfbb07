//! Labels that no event has: counted, and kept as dead letters with where they came from and why.

use std::fs;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use tempfile::TempDir;

use crate::support::Job;

#[test]
fn labels_of_unknown_ids_are_dead_letters() {
    let dir = TempDir::new().expect("a folder");
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("a file");
    write(
        "schema.avsc",
        r#"{"type": "record", "name": "e", "fields": [
        {"name": "id", "type": "long"}, {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "card", "type": "long"}, {"name": "bad", "type": "int"}]}"#,
    );
    let day = |d: u32| format!("2026-01-{d:02}T00:00:00Z");
    write("tx.csv", &format!("id,at,card,bad\n1,{},7,0\n2,{},7,0\n", day(1), day(9)));
    // Of the labels, 1 is known in time, 2 comes long before the bound, 8 and 9 belong to nothing.
    write(
        "labels.csv",
        &format!("id,at,card,bad\n8,{},7,1\n1,{},7,1\n2,{},7,1\n9,{},7,0\n", day(1), day(2), day(10), day(11)),
    );
    let at = |name: &str| dir.path().join(name).display().to_string();
    let job = format!(
        "job: labels\nversion: 1\nsources:\n  tx: {{file: {{path: '{}'}}, schema: '{schema}', id: id, event_time: at}}\n  \
         known: {{file: {{path: '{}'}}, schema: '{schema}', columns: [id, at, bad], id: id, event_time: at}}\nstreams:\n  \
         both: {{join: {{left: tx, right: known, on: id, within: 2d}}}}\nfeatures:\n  \
         v: {{from: both, entity: [card], aggregates: {{risk: {{mean: known.bad, over: 30d}}}}}}\nsinks:\n  \
         offline: {{delta: {{uri: \"${{LAKE}}\"}}}}\n",
        at("tx.csv"),
        at("labels.csv"),
        schema = at("schema.avsc"),
    );
    write("job.yaml", &job);
    for workers in [1, 3] {
        let lake = Job::new(dir.path().join("job.yaml")).workers(workers).run();
        let letters = lake.table("dead_letters", None);
        let column = |name: &str| letters.column_by_name(name).expect("a column").clone();
        let mut offsets = column("_offset").as_primitive::<Int64Type>().values().to_vec();
        offsets.sort_unstable();
        assert_eq!((offsets, lake.summary.dead_letters), (vec![0, 3], 2));
        for row in 0..letters.num_rows() {
            assert_eq!(column("kind").as_string::<i32>().value(row), "unknown_id");
            assert_eq!(column("_source").as_string::<i32>().value(row), "known");
            let reason = column("reason").as_string::<i32>().value(row).to_owned();
            assert!(reason.contains("`tx`") && reason.contains("2d"), "{reason}");
        }
        assert_eq!(lake.table("features/v", None).num_rows(), 2);
    }
}
