"""Reads features with Feast's own SDK from a server that speaks its protocol: `online_store: {type: remote}`.

feast_remote.py DIR URL    prints, as JSON, what the SDK makes of answers and of errors for the job of
                           tests/integration/serving_online.rs
"""

import json
import sys
from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Float64, Int64


def main() -> None:
    folder, url = Path(sys.argv[1]), sys.argv[2]
    (folder / "feature_store.yaml").write_text(
        f"project: cards\nregistry: {folder}/registry.db\nprovider: local\n"
        f"online_store:\n  type: remote\n  path: {url}\nentity_key_serialization_version: 3\n"
    )
    store = FeatureStore(repo_path=str(folder))
    card = Entity(name="card", join_keys=["card"], value_type=ValueType.INT64)
    shop = Entity(name="shop", join_keys=["shop"], value_type=ValueType.STRING)
    nowhere = FileSource(path=str(folder / "none.parquet"), timestamp_field="ts")

    def view(name, entities, columns):
        schema = [Field(name=column, dtype=dtype) for column, dtype in columns]
        return FeatureView(name=name, entities=entities, schema=schema, source=nowhere, ttl=timedelta(days=30))

    cards = view("card", [card], [("n", Int64), ("total_30d", Float64), ("most_30d", Float64)])
    pairs = view("pair", [card, shop], [("times", Int64)])
    lost = view("lost", [card], [("x", Int64)])
    # Registered here alone: the server has no such view.
    store.apply([card, shop, cards, pairs, lost, FeatureService(name="inputs", features=[cards])])

    rows = [{"card": 1, "shop": "a"}, {"card": 2, "shop": "b"}, {"card": 12345, "shop": "a"}]

    def read(features, rows, full=True):
        response = store.get_online_features(features=features, entity_rows=rows, full_feature_names=full)
        statuses = {
            name: [int(status) for status in column.statuses]
            for name, column in zip(response.proto.metadata.feature_names.val, response.proto.results)
        }
        return {"values": response.to_dict(), "statuses": statuses}

    told = {
        "one": read(["card:n", "card:total_30d"], [{"card": row["card"]} for row in rows]),
        "composite": read(["card:n", "pair:times"], rows),
        "short": read(["card:most_30d"], [{"card": 1}], full=False),
        "service": read(store.get_feature_service("inputs"), [{"card": 1}]),
        "frame": json.loads(
            store.get_online_features(features=["card:n"], entity_rows=[{"card": 1}]).to_df().to_json(orient="records")
        ),
    }
    for name, ask in {
        "no_view": lambda: read(["lost:x"], [{"card": 1}]),
        "wrong_type": lambda: read(["card:n"], [{"card": "one"}]),
    }.items():
        try:
            ask()
            told[name] = None
        except Exception as error:
            told[name] = {"class": type(error).__name__, "message": str(error)}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
