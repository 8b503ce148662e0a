"""subscribe.py HOST PORT READINGS OUT: reads Sparkplug with paho-mqtt and a Protobuf reader of its own.

Subscribes to spBv1.0/#, prints "subscribed", resolves aliases by the births it
saw, and writes each reading once (by edge, boot, stream, n) to OUT, as
path;µs;value;edge;boot;stream;n. Ends when READINGS have come.
"""
import struct
import sys
import threading
import urllib.parse

import paho.mqtt.client as mqtt


def fields(b):
    """(number, value) of each field; value is an int, or bytes."""
    at, end = 0, len(b)
    while at < end:
        key, at = varint(b, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = varint(b, at)
        elif wire == 1:
            value, at = b[at:at + 8], at + 8
        elif wire == 2:
            size, at = varint(b, at)
            value, at = b[at:at + size], at + size
        elif wire == 5:
            value, at = b[at:at + 4], at + 4
        else:
            raise ValueError("wire type %d" % wire)
        if at > end:
            raise ValueError("cut short")
        yield number, value


def varint(b, at):
    value = shift = 0
    while True:
        byte = b[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def packed(b):
    out, at = [], 0
    while at < len(b):
        v, at = varint(b, at)
        out.append(v)
    return out


def payload(b):
    metrics, uuid, body = [], "", {}
    for number, value in fields(b):
        if number == 2:
            metrics.append(metric(value))
        elif number == 4:
            uuid = value.decode()
        elif number == 5:
            body = dict(fields(value))
    return metrics, uuid, body


def metric(b):
    m = {"value": None}
    for number, value in fields(b):
        if number == 1:
            m["name"] = value.decode()
        elif number == 2:
            m["alias"] = value
        elif number == 3:
            m["ms"] = value
        elif number == 12:
            m["value"] = struct.unpack("<f", value)[0]
        elif number == 13:
            m["value"] = struct.unpack("<d", value)[0]
        elif number == 14:
            m["value"] = float(value)
        elif number == 15:
            m["value"] = value.decode()
    return m


class Host:
    def __init__(self, want, out):
        self.want, self.out = want, out
        self.births = {}  # (edge, session boot, birth number) → {alias: name}
        self.seen = set()
        self.readings = self.repeats = self.unknown = 0
        self.done = threading.Event()

    def message(self, topic, raw):
        levels = [urllib.parse.unquote(level) for level in topic.split("/")]
        if levels[1] == "STATE" or levels[2] not in ("DBIRTH", "DDATA"):
            return
        group, kind, node, device = levels[1:5]
        edge = "%s/%s" % (group, node)
        metrics, uuid, body = payload(raw)
        if uuid != "headrace.1":
            raise ValueError("%s: uuid %r" % (topic, uuid))
        birth = (edge, body.get(1, b"").decode(), body.get(2, 0))
        if kind == "DBIRTH":
            self.births[birth] = {m["alias"]: m["name"] for m in metrics}
            return
        if body.get(11):
            return
        message = (edge, body[3].decode(), body[5].decode(), body.get(6, 0))
        if message in self.seen:
            self.repeats += 1
            return
        names = self.births.get(birth)
        if names is None:
            self.unknown += 1
            return
        self.seen.add(message)
        line, asset = device.split(":")
        below = packed(body.get(9, b"")) or [0] * len(metrics)
        for m, us in zip(metrics, below):
            if "name" in m:
                raise ValueError("%s: a name beside the alias" % topic)
            path = "/".join((group, line, asset, names[m["alias"]]))
            print(path, m["ms"] * 1000 + us, repr(m["value"]), *message, sep=";", file=self.out)
        self.readings += len(metrics)
        if self.readings >= self.want:
            self.done.set()


def main(address, port, want, file):
    with open(file, "w") as out:
        host = Host(want, out)
        failed = []
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="third-party")

        def on_message(client, _, message):
            try:
                host.message(message.topic, message.payload)
            except Exception as e:  # a callback's exception would end nothing
                failed.append(e)
                host.done.set()

        client.on_message = on_message
        client.on_connect = lambda client, *_: client.subscribe("spBv1.0/#", qos=1)
        client.on_subscribe = lambda *_: print("subscribed")
        client.connect(address, port)
        client.loop_start()
        # The test ends the wait by closing our input.
        threading.Thread(target=lambda: (sys.stdin.read(), host.done.set()), daemon=True).start()
        host.done.wait()
        client.disconnect()
        client.loop_stop()
        print("%d readings, %d messages, %d repeats, %d without their birth" % (host.readings, len(host.seen), host.repeats, host.unknown))
        if failed:
            raise failed[0]


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
