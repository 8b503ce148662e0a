"""Reads Delta tables with delta-rs or DuckDB's delta extension and prints what
they hold as JSON: version, types, transaction numbers, rows in order of n. Takes
a list of questions on standard input and prints a list of answers."""
import datetime
import glob
import json
import os
import sys


def plain(v):
    """A value in a form that does not depend on the reader."""
    if isinstance(v, datetime.datetime):
        d = v - datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
        return (d.days * 86400 + d.seconds) * 1_000_000 + d.microseconds
    if isinstance(v, datetime.date):
        return v.isoformat()
    if isinstance(v, (bytes, bytearray)):
        return bytes(v).hex()
    if isinstance(v, float):
        return repr(v)
    if isinstance(v, list):
        return [plain(x) for x in v]
    return v


def rs(spec):
    import deltalake

    t = deltalake.DeltaTable(spec["path"], version=spec.get("version"))
    filters = [
        (c, op, datetime.datetime.fromisoformat(v) if c == "event_time" else v)
        for c, op, v in spec.get("filters", [])
    ]
    rows = t.to_pyarrow_table(filters=filters or None).to_pylist()
    fields = json.loads(t.schema().to_json())["fields"]
    kind = lambda x: x if isinstance(x, str) else "array<%s>" % x["elementType"]
    return {
        "version": t.version(),
        "types": {f["name"]: kind(f["type"]) for f in fields},
        "txns": {a: t.transaction_version(a) for a in spec.get("apps", [])},
        "rows": rows,
        "history": [h["operation"] for h in t.history()],
        "files": len(t.file_uris()),
    }


def duck(spec):
    import duckdb
    import duckdb_extension_delta

    where = os.path.dirname(duckdb_extension_delta.__file__)
    (ext,) = glob.glob(os.path.join(where, "**", "delta.duckdb_extension"), recursive=True)
    c = duckdb.connect(config={"autoinstall_known_extensions": "false"})
    c.execute("LOAD '%s'" % ext)
    c.execute("SET TimeZone = 'UTC'")
    src = "delta_scan('%s')" % spec["path"]
    if "version" in spec:
        src = "delta_scan('%s', version = %d)" % (spec["path"], spec["version"])
    cond = " AND ".join("%s %s '%s'" % f for f in map(tuple, spec.get("filters", []))) or "true"
    # As text and numbers: the client's own time zone package is not needed.
    types = {r[0]: r[1] for r in c.execute("DESCRIBE SELECT * FROM " + src).fetchall()}
    exprs = ['epoch_us("%s") AS "%s"' % (k, k) if t.startswith("TIMESTAMP") else '"%s"' % k for k, t in types.items()]
    cur = c.execute("SELECT %s FROM %s WHERE %s" % (", ".join(exprs), src, cond))
    names = [d[0] for d in cur.description]
    return {"types": types, "rows": [dict(zip(names, r)) for r in cur.fetchall()]}


def append(spec):
    import datetime

    import deltalake
    import pyarrow as pa

    t = deltalake.DeltaTable(spec["path"])
    at = datetime.datetime(2025, 1, 1, tzinfo=datetime.timezone.utc)
    schema = pa.schema(t.schema().to_arrow())
    row = {"n": 1000, "path": "from delta-rs", "event_time": at, "value": 0.25, "shard": 3}
    deltalake.write_deltalake(t, pa.Table.from_pylist([row], schema=schema), mode="append")
    return {"version": deltalake.DeltaTable(spec["path"]).version()}


def checkpoint(spec):
    import deltalake

    t = deltalake.DeltaTable(spec["path"])
    t.create_checkpoint()
    return {"version": t.version()}


answers = []
for spec in json.load(sys.stdin):
    out = {"rs": rs, "duck": duck, "append": append, "checkpoint": checkpoint}[spec["with"]](spec)
    if "rows" in out:
        out["rows"] = sorted(({k: plain(v) for k, v in r.items()} for r in out["rows"]), key=lambda r: r["n"])
    answers.append(out)
json.dump(answers, sys.stdout)
