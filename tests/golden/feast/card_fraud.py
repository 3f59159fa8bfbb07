# Made by `tidemill feast export` of job card_fraud version 1. Changes are lost when it is made again.
# Values come from the job: `feast materialize` and `store.push` would write beside it.
from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Float64, Int64

customer_id_entity = Entity(name="customer_id", join_keys=["customer_id"], value_type=ValueType.INT64)
terminal_id_entity = Entity(name="terminal_id", join_keys=["terminal_id"], value_type=ValueType.INT64)

customer_rows = FileSource(
    name="customer_rows",
    path="/lake/card_fraud/features/customer",
    timestamp_field="event_time",
    description="One row per event; a Delta table, of which Feast reads the Parquet files.",
)

customer_view = FeatureView(
    name="customer",
    entities=[customer_id_entity],
    ttl=timedelta(seconds=2592000),
    schema=[
        Field(name="customer_id", dtype=Int64),
        Field(name="nb_tx_1h", dtype=Int64, description="number of rows over 1h"),
        Field(name="nb_tx_1d", dtype=Int64, description="number of rows over 1d"),
        Field(name="nb_tx_7d", dtype=Int64, description="number of rows over 7d"),
        Field(name="avg_amount_1d", dtype=Float64, description="mean of amount over 1d"),
        Field(name="avg_amount_7d", dtype=Float64, description="mean of amount over 7d"),
        Field(name="std_amount_7d", dtype=Float64, description="population standard deviation of amount over 7d"),
        Field(name="max_amount_7d", dtype=Float64, description="largest of amount over 7d"),
    ],
    source=customer_rows,
    online=True,
    description="tx by customer_id",
    tags={"job": "card_fraud", "job_version": "1"},
)

terminal_rows = FileSource(
    name="terminal_rows",
    path="/lake/card_fraud/features/terminal",
    timestamp_field="event_time",
    description="One row per event; a Delta table, of which Feast reads the Parquet files.",
)

terminal_view = FeatureView(
    name="terminal",
    entities=[terminal_id_entity],
    ttl=timedelta(seconds=2592000),
    schema=[
        Field(name="terminal_id", dtype=Int64),
        Field(name="nb_tx_1d", dtype=Int64, description="number of rows over 1d"),
        Field(name="nb_tx_7d", dtype=Int64, description="number of rows over 7d"),
        Field(name="risk_1d", dtype=Float64, description="mean of is_fraud over 1d"),
        Field(name="risk_7d", dtype=Float64, description="mean of is_fraud over 7d"),
    ],
    source=terminal_rows,
    online=True,
    description="labelled_tx by terminal_id, as of 1d before",
    tags={"job": "card_fraud", "job_version": "1"},
)

fraud_inputs_service = FeatureService(
    name="fraud_inputs",
    features=[customer_view[["nb_tx_1h", "nb_tx_1d", "nb_tx_7d", "avg_amount_1d", "avg_amount_7d", "std_amount_7d", "max_amount_7d"]], terminal_view[["nb_tx_1d", "nb_tx_7d", "risk_1d", "risk_7d"]]],
    description="What of fraud_inputs is known before an event of tx; not here, since they need the event: amount, customer__amount_ratio, customer__night, customer__weekend",
)
