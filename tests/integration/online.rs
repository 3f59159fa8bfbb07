//! The online store holds what the tables say, as of the job's clock: values slide on after an entity's last event.

use std::collections::BTreeMap;

use arrow::array::AsArray;
use arrow::datatypes::TimestampMicrosecondType;
use arrow::record_batch::RecordBatch;
use tidemill::base::parse_time;
use tidemill::plan::model::OnlinePlace;
use tidemill::store::lookup::{Status, get_online};
use tidemill::store::online::OnlineReader;

use crate::support::Job;
use crate::support::rows::ids;

const HOUR: i64 = 3_600_000_000;
const WINDOWS: [(&str, i64); 3] = [("nb_tx_1h", HOUR), ("nb_tx_1d", 24 * HOUR), ("nb_tx_7d", 168 * HOUR)];

#[test]
fn served_values_are_those_of_the_clock() {
    for workers in [1, 3] {
        let lake = Job::new("dataflows/card_fraud.yaml")
            .set("sources.tx.generator.rate", "max")
            .set("sources.tx.generator.duration", "9d")
            .set("sources.fraud_labels.generator.duration", "9d")
            .workers(workers)
            .run();
        let now = parse_time(lake.summary.clock.as_ref().expect("a clock")).expect("a time");
        let table = lake.table("features/customer", None);
        let (customers, slid) = assert_served(&table, lake.online.as_ref().expect("an online store"), now);
        assert!(customers > 1000 && slid > 0, "{customers} customers, {slid} windows ran empty");
    }
}

/// Asserts that every customer of the table is served the counts of its rows as of `now`; tells how many customers there
/// are and how many windows have run empty.
pub fn assert_served(table: &RecordBatch, place: &OnlinePlace, now: i64) -> (usize, usize) {
    let times = table.column_by_name("event_time").expect("a time").as_primitive::<TimestampMicrosecondType>();
    let mut events: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for (customer, time) in ids(table, "customer_id").into_iter().zip(times.values()) {
        events.entry(customer).or_default().push(*time);
    }
    let reader = OnlineReader::of(place).expect("a store");
    let mut slid = 0;
    for (customer, times) in &events {
        let key = [("customer_id".to_owned(), customer.to_string())];
        let row = get_online(&reader, "customer", &key).expect("an answer");
        assert_eq!((row.status, row.stale), (Status::Present, false), "customer {customer}");
        let last = *times.iter().max().expect("events");
        if last > now - 168 * HOUR {
            assert_eq!(row.event_time, Some(last), "customer {customer}");
        }
        for (name, width) in WINDOWS {
            let expected = times.iter().filter(|t| **t > now - width).count();
            let served = row.features.iter().find(|f| f.name == name).expect("the feature").value.as_u64();
            assert_eq!(served, Some(expected as u64), "customer {customer}: {name} at {now}");
            slid += usize::from(expected == 0);
        }
    }
    (events.len(), slid)
}
