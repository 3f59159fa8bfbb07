"""Writes Avro messages and what fastavro reads from them, for schemas that differ as schemas come to differ over time.

    avro_peer.py CASES SEED > cases.ndjson

Each line is one pair of schemas: `declared`, `writer`, `payloads` in hexadecimal, and for each payload in `values` the
declared fields' values, or null where fastavro refuses it. Floats are the bits of a double in hexadecimal, times are
microseconds and dates days since 1970.
"""

import datetime
import io
import json
import random
import struct
import sys

import fastavro

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
US, DAY = datetime.timedelta(microseconds=1), datetime.date(1970, 1, 1)
TIMES = {"timestamp-millis": 1000, "timestamp-micros": 1}
FROM = {
    "boolean": ["boolean"], "int": ["int"], "long": ["int", "long"], "float": ["int", "long", "float"],
    "double": ["int", "long", "float", "double"], "string": ["string", "bytes"], "date": ["date", "int"],
    "timestamp-millis": list(TIMES), "timestamp-micros": list(TIMES), "enum": ["enum"],
}
SYMBOLS = ["A", "B", "C", "D", "E"]


def typed(kind, rng, name, writer):
    if kind == "date":
        return {"type": "int", "logicalType": "date"}
    if kind in TIMES:
        return {"type": "long", "logicalType": kind}
    if kind == "enum":
        enum = {"type": "enum", "name": name, "symbols": rng.sample(SYMBOLS, rng.randint(1, 5))}
        if not writer and rng.random() < 0.5:
            enum["default"] = enum["symbols"][0]
        return enum
    return kind


def value(schema, rng):
    """A value to write; whole numbers stay within what a double holds."""
    if isinstance(schema, list):
        return value(rng.choice(schema), rng)
    kind, logical = (schema["type"], schema.get("logicalType")) if isinstance(schema, dict) else (schema, None)
    if logical in TIMES:
        return rng.randint(-60_000_000_000, 200_000_000_000) * (1000 // TIMES[logical] if logical != "timestamp-millis" else 1)
    if logical == "date":
        return rng.randint(-700_000, 2_000_000)
    if kind == "record":
        return {f["name"]: value(f["type"], rng) for f in schema["fields"]}
    if kind == "array":
        return [value(schema["items"], rng) for _ in range(rng.randint(0, 3))]
    if kind == "map":
        return {f"k{i}": value(schema["values"], rng) for i in range(rng.randint(0, 3))}
    if kind == "fixed":
        return rng.randbytes(schema["size"])
    if kind == "enum":
        return rng.choice(schema["symbols"])
    text = "".join(rng.choice("ab \"\\é漢😀\n0") for _ in range(rng.randint(0, 12)))
    return {
        "null": lambda: None,
        "boolean": lambda: rng.random() < 0.5,
        "int": lambda: rng.randint(-(2**31), 2**31 - 1) >> rng.randint(0, 31),
        "long": lambda: rng.randint(-(2**53), 2**53) >> rng.randint(0, 53),
        "float": lambda: struct.unpack("<f", struct.pack("<f", rng.choice([rng.gauss(0, 1e6), 0.0, -0.0, 1e30])))[0],
        "double": lambda: rng.choice([rng.gauss(0, 1e6), 1e300, -0.0, 5e-324]),
        "string": lambda: text,
        "bytes": lambda: text.encode(),
    }[kind]()


def extra(rng, name):
    """A type that no event schema has, or another field nobody asked for."""
    return rng.choice([
        "string", "long", "double", ["null", "bytes"],
        {"type": "array", "items": ["null", "string"]},
        {"type": "map", "values": {"type": "array", "items": "int"}},
        {"type": "fixed", "name": f"F{name}", "size": 5},
        {"type": "record", "name": f"R{name}", "fields": [{"name": "a", "type": "int"}, {"name": "b", "type": ["null", "string"]}]},
    ])


def schemas(rng):
    declared, written = [], []
    for i in range(rng.randint(1, 8)):
        kind = rng.choice(list(FROM))
        ours, nullable = typed(kind, rng, f"E{i}", False), rng.random() < 0.3
        field = {"name": f"c{i}", "type": ["null", ours] if nullable else ours}
        source, fate = rng.choice(FROM[kind]), rng.random()
        if rng.random() < 0.03:
            source = rng.choice([k for k in FROM if k not in ("date", *TIMES)])
            if kind in TIMES or kind == "date":
                source = "string"
        theirs = typed(source, rng, f"E{i}", True)
        if fate < 0.15:
            # Added since, mostly with a default.
            if nullable:
                field["default"] = None
            elif rng.random() < 0.95:
                default = value(ours, rng)
                field["default"] = ours["symbols"][-1] if kind == "enum" else 1.5 if kind == "float" else default
        else:
            name = f"c{i}"
            if fate < 0.3:
                name = f"old{i}"
                field["aliases"] = ["never", name]
            if nullable or rng.random() < 0.15:
                theirs = rng.choice([["null", theirs], [theirs, "null"]])
                if rng.random() < 0.2 and source in ("string", "boolean"):
                    theirs.append("double")
            written.append({"name": name, "type": theirs})
        declared.append(field)
    for i in range(rng.randint(0, 3)):
        written.append({"name": f"x{i}", "type": extra(rng, i)})
    rng.shuffle(written)
    ours, theirs = {"type": "record", "name": "Event", "fields": declared}, {"type": "record", "name": "Event", "fields": written}
    if rng.random() < 0.2:
        theirs["name"], ours["aliases"] = "Before", ["Before"]
    return ours, theirs


def shown(field, found):
    kind = field["type"][1] if isinstance(field["type"], list) else field["type"]
    logical = kind.get("logicalType") if isinstance(kind, dict) else None
    if found is None:
        return None
    if isinstance(found, datetime.datetime):
        return (found - EPOCH) // US
    if isinstance(found, datetime.date):
        return (found - DAY).days
    if logical in TIMES:
        return found * TIMES[logical]
    if kind == "float":
        found = struct.unpack("<f", struct.pack("<f", found))[0]
    if kind in ("float", "double"):
        return struct.pack(">d", found).hex()
    return found


def case(rng):
    declared, writer = schemas(rng)
    ours, theirs = fastavro.parse_schema(declared), fastavro.parse_schema(writer)
    payloads, values = [], []
    for _ in range(rng.randint(1, 12)):
        out = io.BytesIO()
        fastavro.schemaless_writer(out, theirs, value(writer, rng))
        payloads.append(out.getvalue().hex())
        out.seek(0)
        try:
            row = fastavro.schemaless_reader(out, theirs, ours)
            values.append([shown(f, row[f["name"]]) for f in declared["fields"]])
        except Exception:  # Every refusal counts alike.
            values.append(None)
    return {"declared": declared, "writer": writer, "payloads": payloads, "values": values}


def main():
    cases, seed = int(sys.argv[1]), int(sys.argv[2])
    rng = random.Random(seed)
    for _ in range(cases):
        print(json.dumps(case(rng)))


main()
