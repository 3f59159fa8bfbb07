use arrow::array::{
    AsArray, BooleanArray, Float64Array, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};

use super::*;
use crate::base::parse_time;

fn scope() -> Vec<(&'static str, &'static str, DataType)> {
    vec![
        ("TX_AMOUNT", "TX_AMOUNT", DataType::Float64),
        ("amount", "amount", DataType::Int64),
        ("n", "customer.n", DataType::Int32),
        ("ts", "ts", time_type()),
        ("country", "country", DataType::Utf8),
        ("ok", "ok", DataType::Boolean),
        ("right.known_at", "labels.known_at", time_type()),
    ]
}

fn batch() -> RecordBatch {
    let time = |s: &str| parse_time(s).unwrap();
    let ts = |v: Vec<Option<i64>>| Arc::new(TimestampMicrosecondArray::from(v).with_timezone("UTC")) as ArrayRef;
    // 2018-04-07 is a Saturday.
    let times = vec![
        Some(time("2018-04-01T06:59:59Z")),
        Some(time("2018-04-02T07:00:00Z")),
        None,
        Some(time("2018-04-07T23:00:00Z")),
    ];
    RecordBatch::try_from_iter_with_nullable([
        ("ts", ts(times.clone()), true),
        ("TX_AMOUNT", Arc::new(Float64Array::from(vec![Some(1.5), Some(-2.0), None, Some(0.0)])) as ArrayRef, true),
        ("amount", Arc::new(Int64Array::from(vec![Some(7), Some(i64::MAX), None, Some(0)])) as ArrayRef, true),
        ("customer.n", Arc::new(Int32Array::from(vec![Some(2), Some(3), None, Some(0)])) as ArrayRef, true),
        ("country", Arc::new(StringArray::from(vec![Some("FR"), Some("de"), None, Some("12")])) as ArrayRef, true),
        ("ok", Arc::new(BooleanArray::from(vec![Some(true), Some(false), None, Some(true)])) as ArrayRef, true),
        ("labels.known_at", ts(times), true),
    ])
    .unwrap()
}

fn compile(text: &str) -> Expr {
    Expr::compile(text, &scope()).unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn floats(text: &str) -> Vec<Option<f64>> {
    let e = compile(text);
    assert_eq!(e.data_type, DataType::Float64, "{text}");
    e.evaluate(&batch()).unwrap().as_primitive::<Float64Type>().iter().collect()
}

fn ints(text: &str) -> Vec<Option<i64>> {
    let e = compile(text);
    assert_eq!(e.data_type, DataType::Int64, "{text}");
    e.evaluate(&batch()).unwrap().as_primitive::<Int64Type>().iter().collect()
}

fn bools(text: &str) -> Vec<Option<bool>> {
    let e = compile(text);
    assert_eq!(e.data_type, DataType::Boolean, "{text}");
    e.evaluate(&batch()).unwrap().as_boolean().iter().collect()
}

fn times(text: &str) -> Vec<Option<i64>> {
    let e = compile(text);
    assert_eq!(e.data_type, time_type(), "{text}");
    e.evaluate(&batch()).unwrap().as_primitive::<TimestampMicrosecondType>().iter().collect()
}

fn error(text: &str) -> (String, String) {
    let e = Expr::compile(text, &scope()).err().unwrap_or_else(|| panic!("{text} compiles"));
    (e.to_string(), e.mend())
}

#[test]
fn time_functions_work_on_event_time() {
    assert_eq!(bools("extract(hour from ts) <= 6"), [Some(true), Some(false), None, Some(false)]);
    assert_eq!(ints("cast(extract(dow from ts) in (0, 6) as bigint)"), [Some(1), Some(0), None, Some(1)]);
    let hour = compile("extract(hour from ts)");
    assert_eq!(hour.data_type, DataType::Int32);
    assert_eq!(hour.evaluate(&batch()).unwrap().as_primitive::<Int32Type>().value(3), 23);
    let base = times("ts");
    let week: Vec<_> = base.iter().map(|t| t.map(|t| t + 7 * 86_400_000_000)).collect();
    assert_eq!(times("ts + interval '7 days'"), week);
    assert_eq!(times("right.known_at + interval '7 days'"), week);
    assert_eq!(bools("ts >= '2018-04-02'"), [Some(false), Some(true), None, Some(true)]);
    assert_eq!(
        bools("ts between timestamp '2018-04-01' and timestamp '2018-04-02'"),
        [Some(true), Some(false), None, Some(false)]
    );
    assert_eq!(times("date_trunc('day', ts)")[1], Some(parse_time("2018-04-02").unwrap()));
    assert_eq!(times("to_timestamp_millis(n)")[0], Some(2_000));
    assert_eq!(
        times("to_timestamp('2018-04-01T00:00:31Z')"),
        vec![Some(parse_time("2018-04-01T00:00:31Z").unwrap()); 4]
    );
    assert_eq!(times("cast(cast(ts as date) as timestamp)")[0], Some(parse_time("2018-04-01").unwrap()));
}

#[test]
fn scalar_language() {
    assert_eq!(floats("TX_AMOUNT / nullif(n, 0)"), [Some(0.75), Some(-2.0 / 3.0), None, None]);
    assert_eq!(
        floats("case when TX_AMOUNT > 0 then ln(exp(TX_AMOUNT)) else coalesce(TX_AMOUNT, -1.0) end"),
        [Some(1.5), Some(-2.0), Some(-1.0), Some(0.0)]
    );
    assert_eq!(floats("\"TX_AMOUNT\" * 2"), [Some(3.0), Some(-4.0), None, Some(0.0)]);
    assert_eq!(floats("GREATEST(TX_AMOUNT, 0.5)"), [Some(1.5), Some(0.5), Some(0.5), Some(0.5)]);
    assert_eq!(bools("country in ('FR', 'DE')"), [Some(true), Some(false), None, Some(false)]);
    assert_eq!(bools("upper(country) like 'D%' or country ~ '^[0-9]+$'"), [Some(false), Some(true), None, Some(true)]);
    assert_eq!(bools("country is not null and not ok is null"), [Some(true), Some(true), Some(false), Some(true)]);
    assert_eq!(ints("amount / 2")[0], Some(3), "integer division truncates");
    assert_eq!(bools("true"), [Some(true); 4], "a constant fills the batch");
    assert_eq!(compile("true").inputs, Vec::<String>::new());
    let text = compile("concat(substr(country, 1, 1), '-', cast(n as varchar))");
    assert_eq!(text.data_type, DataType::Utf8);
    assert_eq!(text.evaluate(&batch()).unwrap().as_string::<i32>().value(0), "F-2");
    assert_eq!(compile("n + amount").inputs, ["customer.n", "amount"]);
    assert_eq!(compile("cast(TX_AMOUNT as decimal(10,2))").data_type, DataType::Float64);
}

#[test]
fn failing_rows_are_isolated() {
    let (values, failed) = compile("amount + 1").evaluate_rows(&batch()).unwrap();
    assert_eq!(values.as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), [Some(8), None, None, Some(1)]);
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].0, 1);
    assert!(failed[0].1.contains("overflow"), "{}", failed[0].1);

    let (values, failed) = compile("14 / amount").evaluate_rows(&batch()).unwrap();
    assert_eq!(values.as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), [Some(2), Some(0), None, None]);
    assert_eq!(failed, [(3, "`14 / amount`: division by zero".to_string())]);

    let (values, failed) = compile("cast(country as int)").evaluate_rows(&batch()).unwrap();
    assert_eq!(values.as_primitive::<Int32Type>().iter().collect::<Vec<_>>(), [None, None, None, Some(12)]);
    assert_eq!(failed.iter().map(|f| f.0).collect::<Vec<_>>(), [0, 1]);

    let empty = batch().slice(0, 0);
    assert_eq!(compile("14 / amount").evaluate_rows(&empty).unwrap().0.len(), 0);
    assert_eq!(compile("1").evaluate(&empty).unwrap().len(), 0);
}

#[test]
fn wrong_batches_are_named() {
    let lacking = batch().project(&[0]).unwrap();
    assert_eq!(
        compile("amount + 1").evaluate(&lacking).unwrap_err().to_string(),
        "`amount + 1` reads `amount`: the batch has no such column"
    );
    let other = RecordBatch::try_from_iter([("amount", Arc::new(Float64Array::from(vec![1.0])) as ArrayRef)]).unwrap();
    assert!(
        compile("amount + 1")
            .evaluate(&other)
            .unwrap_err()
            .to_string()
            .contains("expected Int64, the batch has Float64")
    );
}

#[test]
fn earlier_expressions_are_read_by_name() {
    let mut names = Scope::default();
    names.column("amount", "amount", DataType::Int64);
    names.column("n", "customer.n", DataType::Int32);
    let double = names.compile("amount * 2").unwrap();
    names.add("double", Resolution::Computed(Box::new(double)));
    let chained = names.compile("double + n").unwrap();
    assert_eq!(chained.inputs, ["amount", "customer.n"]);
    names.add("chained", Resolution::Computed(Box::new(chained)));
    let last = names.compile("chained - double").unwrap();
    let (values, _) = last.evaluate_rows(&batch()).unwrap();
    assert_eq!(values.as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), [Some(2), None, None, Some(0)]);
}

#[test]
fn errors_name_the_cause_and_the_mend() {
    let check = |text: &str, what: &str, mend: &str| {
        let (got, got_mend) = error(text);
        assert!(got.contains(what), "{text}: {got}");
        assert!(got_mend.contains(mend), "{text}: {got_mend}");
    };
    check("Amount + 1", "`Amount` is not a column here", "did you mean `amount`?");
    check("tx_amount + foo", "`tx_amount`, `foo` are not columns here", "did you mean `TX_AMOUNT`?");
    check("amount +", "`amount +` is not an expression: expected: an expression", "");
    check("amount 2", "`2` at column 8 follows a complete expression", "");
    check("", "it is empty", "");
    check("now()", "`now()` is refused", "event's own time");
    check("current_timestamp > ts", "is refused", "");
    check("random() < 0.5", "`random()` is refused", "");
    check("uuid()", "`uuid()` is refused", "");
    check("sum(amount)", "`sum` is an aggregate", "aggregates");
    check("row_number() over (order by ts)", "window functions", "aggregates");
    check("(select 1)", "subqueries", "feature view");
    check("amount in (select 1)", "subqueries", "");
    check("exists (select amount from x)", "subqueries", "");
    check("$1", "placeholders", "${VARIABLE}");
    check("nullif(amount, 0, 1)", "nullif", "");
    check("abs(country, 2)", "abs", "");
    check("frobnicate(amount)", "frobnicate", "");
    check("country + interval '1 day' * true", "", "");
    check("null", "always null", "");
    check("interval '1 day'", "is not one that a column can have", "");
    check("ts - ts", "is not one that a column can have", "");
    check(&format!("{}1{}", "(".repeat(300), ")".repeat(300)), "", "");
    check(&format!("amount{}", " + 1".repeat(1000)), "nested too deeply", "");
    check(&format!("'{}'", "x".repeat(9000)), "too long", "");
}

#[test]
fn ambiguous_and_refused_names() {
    let mut names = Scope::default();
    names.add("ts", Resolution::Ambiguous(vec!["left.ts".into(), "right.ts".into()]));
    names.add("right.ts", Resolution::Refused("no".into(), "so".into()));
    let e = names.compile("ts is null").unwrap_err();
    assert_eq!(
        (e.to_string(), e.mend()),
        ("`ts` could be left.ts or right.ts".into(), "write left.ts or right.ts".into())
    );
    assert_eq!(names.compile("right.ts is null").unwrap_err().mend(), "so");
}
