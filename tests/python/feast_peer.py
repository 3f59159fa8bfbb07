"""The unmodified Feast SDK beside `tidemill`: reads the same values, encodes the same keys.

    feast_peer.py keys < LINES               each line a key, its parts and a field, as JSON: Feast must encode them so
    feast_peer.py read REPO TIDEMILL JOB < REQUEST
                                             applies the exported repository, asks Feast and `tidemill features get` for the same
                                             entities, online and as of a time; prints how many values agreed
    feast_peer.py remote REPO FEATURE < ENTITY
                                             applies a repository with a remote store; prints what it answers
"""

import json
import math
import os
import subprocess
import sys
from datetime import date, datetime, timezone
from pathlib import Path

os.environ["FEAST_USAGE"] = "False"


def keys():
    from feast.infra.online_stores.helpers import _mmh3, _redis_key
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    def value(kind, text):
        match kind:
            case "STRING":
                return Value(string_val=text)
            case "BYTES":
                return Value(bytes_val=bytes.fromhex(text))
            case "INT32":
                return Value(int32_val=int(text))
            case "INT64":
                return Value(int64_val=int(text))
            case "UNIX_TIMESTAMP":
                return Value(unix_timestamp_val=int(text))
        raise ValueError(kind)

    count = 0
    for line in sys.stdin:
        case = json.loads(line)
        parts = [value(kind, text) for kind, text in zip(case["types"], case["values"])]
        key = _redis_key(case["project"], EntityKey(join_keys=case["names"], entity_values=parts))
        assert key.hex() == case["key"], f"{line}: Feast's key is {key.hex()}"
        field = _mmh3(f"{case['view']}:{case['feature']}")
        assert field.hex() == case["field"], f"{line}: Feast's field is {field.hex()}"
        count += 1
    print(count)


def same(dtype, ours, feasts):
    """Whether a value of `tidemill features get --json` is the value that Feast gives."""
    if ours is None or feasts is None:
        return ours is None and feasts is None
    match str(dtype):
        case "Bytes":
            return bytes.fromhex(ours) == feasts
        case "UnixTimestamp":
            if len(ours) == 10:
                time = datetime.combine(date.fromisoformat(ours), datetime.min.time(), timezone.utc)
            else:
                time = datetime.fromisoformat(ours)
            return time == feasts.replace(tzinfo=feasts.tzinfo or timezone.utc)
        case "Float32" | "Float64":
            ours = float(ours)
            if math.isnan(ours):
                return math.isnan(feasts)
            if str(dtype) == "Float32":
                import numpy

                return numpy.float32(ours) == numpy.float32(feasts)
            return ours == feasts and math.copysign(1, ours) == math.copysign(1, feasts)
        case _:
            return type(ours) is type(feasts) and ours == feasts


def read(repo, tidemill, job):
    feast = Path(sys.executable).parent / "feast"
    applied = subprocess.run([feast, "--chdir", repo, "apply"], capture_output=True, text=True)
    assert applied.returncode == 0, applied.stdout + applied.stderr
    from feast import FeatureStore

    store = FeatureStore(repo)
    request = json.load(sys.stdin)

    def ask(view, entity, *more):
        words = [f"{name}={value}" for name, value in entity.items()]
        out = subprocess.run(
            [tidemill, "features", "get", view, *words, "--job", job, "--json", *more], capture_output=True, text=True
        )
        assert out.returncode == 0, out.stderr
        return json.loads(out.stdout)

    agreed = {"values": 0, "nulls": 0, "missing": 0, "services": 0, "past": 0}
    for asked in request["online"]:
        view = store.get_feature_view(asked["view"])
        features = [f"{view.name}:{field.name}" for field in view.features]
        response = store.get_online_features(features=features, entity_rows=asked["entities"])
        found = response.to_dict(include_event_timestamps=True)
        for i, entity in enumerate(asked["entities"]):
            ours = ask(view.name, entity)
            assert list(ours["features"]) == [field.name for field in view.features], ours
            for field in view.features:
                mine, theirs = ours["features"][field.name], found[field.name][i]
                assert same(field.dtype, mine, theirs), f"{view.name} {entity} {field}: {mine!r} is not Feast's {theirs!r}"
                kind = "missing" if ours["status"] == "NOT_FOUND" else "nulls" if mine is None else "values"
                agreed[kind] += 1
                seconds = found[f"{field.name}__ts"][i]
                time = ours["event_time"]
                expected = 0 if time is None else math.floor(datetime.fromisoformat(time).timestamp())
                assert seconds == expected, f"{view.name} {entity}: {time} is not Feast's {seconds}"
    for asked in request["services"]:
        service = store.get_feature_service(asked["service"])
        found = store.get_online_features(features=service, entity_rows=asked["entities"], full_feature_names=True).to_dict()
        for projection in service.feature_view_projections:
            for i, entity in enumerate(asked["entities"]):
                ours = ask(projection.name, {name: entity[name] for name in asked["keys"][projection.name]})
                for field in projection.features:
                    mine, theirs = ours["features"][field.name], found[f"{projection.name}__{field.name}"][i]
                    assert same(field.dtype, mine, theirs), f"{entity} {field}: {mine!r} is not Feast's {theirs!r}"
                    agreed["services"] += 1
    for asked in request["past"]:
        import pandas

        frame = pandas.DataFrame(asked["entities"])
        frame["event_timestamp"] = pandas.to_datetime([asked["at"]] * len(frame), utc=True)
        names = asked["features"]
        features = [f"{asked['view']}:{name}" for name in names]
        found = store.get_historical_features(entity_df=frame, features=features).to_df()
        assert len(found) == len(frame), found
        for _, row in found.iterrows():
            entity = {name: row[name] for name in asked["entities"][0]}
            ours = ask(asked["view"], entity, "--as-of", asked["at"])["features"]
            for name in names:
                theirs = None if pandas.isna(row[name]) else row[name]
                assert ours[name] == theirs, f"{entity} {name}: {ours[name]!r} is not Feast's {theirs!r}"
                agreed["past"] += 1
    print(json.dumps(agreed))


def remote(repo, feature):
    feast = Path(sys.executable).parent / "feast"
    applied = subprocess.run([feast, "--chdir", repo, "apply"], capture_output=True, text=True)
    assert applied.returncode == 0, applied.stdout + applied.stderr
    from feast import FeatureStore

    print(FeatureStore(repo).get_online_features(features=[feature], entity_rows=[json.load(sys.stdin)]).to_dict())


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["keys"]:
            keys()
        case ["read", repo, tidemill, job]:
            read(repo, tidemill, job)
        case ["remote", repo, feature]:
            remote(repo, feature)
        case _:
            sys.exit(__doc__)
