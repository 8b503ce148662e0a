"""tables.py LAKE RECORDINGS: reads the tables with delta-rs and compares them with the files.

Bronze and silver hold exactly the files' values, quarantine none; the twin's
state is the last value of each path; every window of some paths equals what
the definition gives when it is calculated here, reading by reading.
"""
import datetime
import os
import sys
from collections import Counter, defaultdict
from fractions import Fraction

from deltalake import DeltaTable

import recordings

MINUTE = 60_000_000


def rows(lake, name, columns):
    table = DeltaTable(os.path.join(lake, *name.split("."))).to_pyarrow_table(columns=columns)
    data = {c: [micros(v) if isinstance(v, datetime.datetime) else v for v in table.column(c).to_pylist()] for c in columns}
    return [dict(zip(columns, values)) for values in zip(*(data[c] for c in columns))] if table.num_rows else []


def micros(t):
    return (t.astimezone(datetime.timezone.utc).replace(tzinfo=None) - recordings.EPOCH) // recordings.MICROSECOND


def windows(readings):
    """One path's windows: {start: [area, good µs, held µs, min, max, last, count]}.

    A value holds until the next one, and at most max_hold after its last proof of life.
    """
    out = {}
    newest = {}
    for r in readings:
        best = newest.get(r["event_time"])
        if best is None or order(r) > order(best):
            newest[r["event_time"]] = r
    moments = [newest[t] for t in sorted(newest)]
    for k, r in enumerate(moments):
        begin, end = r["event_time"], r["alive_at"] + r["max_hold_us"]
        if k + 1 < len(moments):
            end = min(end, moments[k + 1]["event_time"])
        start = begin - begin % MINUTE
        while start < end:
            w = out.setdefault(start, [Fraction(0), 0, 0, None, None, None, 0])
            share = min(end, start + MINUTE) - max(begin, start)
            w[2] += share
            if begin >= start:
                w[6] += 1
            if r["good"]:
                v = r["value"]
                w[0] += Fraction(v) * share
                w[1] += share
                w[3] = v if w[3] is None else min(w[3], v)
                w[4] = v if w[4] is None else max(w[4], v)
                w[5] = v
            start += MINUTE
    return out


def order(r):
    return (r["alive_at"], r["edge"], r["boot"], r["stream"], r["n"], r["i"])


def compare_windows(path, got, want):
    wrong = False
    if set(got) != set(want):
        print("%s: windows missing %s, too many %s" % (path, sorted(set(want) - set(got))[:3], sorted(set(got) - set(want))[:3]))
        return True
    for start, (area, good, held, least, most, last, count) in want.items():
        g = got[start]
        exact = {
            "min": least, "max": most, "last": last, "count": count,
            "coverage": held / MINUTE, "good_fraction": good / held if held else None,
        }
        for column, value in exact.items():
            if g[column] != value:
                print("%s at %d: %s is %r, want %r" % (path, start, column, g[column], value))
                wrong = True
        mean = float(area / good) if good else None
        if (g["mean"] is None) != (mean is None) or mean is not None and abs(g["mean"] - mean) > 1e-12 * max(1, abs(mean)):
            print("%s at %d: mean is %r, want %r" % (path, start, g["mean"], mean))
            wrong = True
    return wrong


def main(lake, folder):
    want = recordings.cells(folder)
    print("the files hold %d values" % sum(want.values()))
    wrong = False

    got = Counter()
    for r in rows(lake, "bronze.readings", ["path", "site", "line", "asset", "sensor", "event_time", "value", "kind", "text", "quality"]):
        got[(r["path"], r["event_time"], r["value"])] += 1
        site, line, asset, sensor = r["path"].split("/")
        if (r["site"], r["line"], r["asset"], r["sensor"]) != (site, line, "/".join((site, line, asset)), sensor):
            print("bronze.readings: the columns do not say what the path says: %r" % r)
            wrong = True
        if (r["kind"], r["text"], r["quality"]) != ("number", None, 192):
            print("bronze.readings: not a good number: %r" % r)
            wrong = True
    wrong |= recordings.differ("bronze.readings", got, want)

    silver = rows(lake, "silver.readings", [
        "path", "event_time", "alive_at", "value", "unit", "value_raw", "unit_raw", "good", "max_hold_us", "edge", "boot", "stream", "n", "i"])
    wrong |= recordings.differ("silver.readings", Counter((r["path"], r["event_time"], r["value_raw"]) for r in silver), want)
    for r in silver:
        if r["unit_raw"] in ("", r["unit"]) and r["value"] != r["value_raw"]:
            print("silver.readings: %r is not %r though the unit is the same" % (r["value"], r["value_raw"]))
            wrong = True
            break
    quarantined = DeltaTable(os.path.join(lake, "silver", "readings_quarantine")).to_pyarrow_table().num_rows
    if quarantined:
        print("silver.readings_quarantine: %d rows, want none" % quarantined)
        wrong = True

    by_path = defaultdict(list)
    for r in silver:
        by_path[r["path"]].append(r)
    twin = {r["path"]: (r["event_time"], r["value"]) for r in rows(lake, "gold.twin_state", ["path", "event_time", "value"])}
    last = {p: max((r["event_time"], r["value"]) for r in rs) for p, rs in by_path.items()}
    if twin != last:
        print("gold.twin_state: %s, want %s" % (sorted(twin.items())[:2], sorted(last.items())[:2]))
        wrong = True

    gold = defaultdict(dict)
    for r in rows(lake, "gold.windows_1m", ["path", "window_start", "mean", "min", "max", "last", "count", "coverage", "good_fraction"]):
        if r["window_start"] in gold[r["path"]]:
            print("gold.windows_1m: two rows of %s at %d" % (r["path"], r["window_start"]))
            wrong = True
        gold[r["path"]][r["window_start"]] = r
    if set(gold) != set(by_path):
        print("gold.windows_1m: paths %s, want %s" % (sorted(gold)[:3], sorted(by_path)[:3]))
        wrong = True
    compared = 0
    for path in sorted(by_path)[::5]:
        want_windows = windows(by_path[path])
        wrong |= compare_windows(path, gold[path], want_windows)
        compared += len(want_windows)
    print("%d windows compared" % compared)
    return wrong


if __name__ == "__main__":
    sys.exit(1 if main(sys.argv[1], sys.argv[2]) else 0)
