//! A table date by date is the table.

use super::*;

#[test]
fn all_dates_are_the_table() {
    let root = tempfile::tempdir().unwrap();
    let days: [Vec<Row>; 2] = [
        (0..60).map(|i| (APRIL + i as i64 * DAY / 20, Some(i as i64 % 7), i, Some(i as f64))).collect(),
        (60..90).map(|i| (APRIL + 2 * DAY, None, i, None)).collect(),
    ];
    let mut committer = TableCommitter::open(root.path(), &spec(), "job/life".to_owned()).unwrap();
    for (epoch, rows) in days.iter().enumerate() {
        committer.commit(3 + epoch as u64, &write(root.path(), rows)).unwrap();
    }
    let table = TableReader::open(&table_path(root.path(), "features/customer"), None).unwrap();
    let dates: Vec<String> = table.dates().unwrap().into_iter().collect();
    assert_eq!(dates, ["2018-04-01", "2018-04-02", "2018-04-03"]);
    let offsets = |batches: &[RecordBatch]| {
        let of = |batch: &RecordBatch| {
            batch.column_by_name("_offset").unwrap().as_primitive::<Int64Type>().values().to_vec()
        };
        let mut offsets: Vec<i64> = batches.iter().flat_map(of).collect();
        offsets.sort_unstable();
        offsets
    };
    let by_date: Vec<Vec<RecordBatch>> = dates.iter().map(|date| table.read_date(date).unwrap()).collect();
    assert_eq!(offsets(&by_date[0]), (0..20).collect::<Vec<_>>());
    assert_eq!(offsets(&by_date[2]), (40..90).collect::<Vec<_>>());
    let all = concat_batches(table.schema(), by_date.iter().flatten()).unwrap();
    assert_eq!(offsets(std::slice::from_ref(&all)), offsets(&table.read(None).unwrap()));
    assert_eq!(all.column_by_name("event_date").unwrap().null_count(), 0);
    assert!(table.read_date("2018-05-01").unwrap().is_empty());
    assert_eq!(table.newest_epoch("job/life").unwrap(), Some(4));
    assert_eq!(table.newest_epoch("another").unwrap(), None);
}
