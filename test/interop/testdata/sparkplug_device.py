"""A Sparkplug B edge node by pysparkplug, which knows nothing of Headrace.

Usage: sparkplug_device.py HOST PORT COUNT

It is born with one device, says "born", publishes COUNT values of the device's
sensor, and says "sent". Told to leave it disconnects, else it dies without a word
when its input ends.
"""

import os
import sys
import time

import paho.mqtt.client
import pysparkplug as psp

# What paho-mqtt 2 has no more, and did nothing since 1.4.
paho.mqtt.client.Client.message_retry_set = lambda self, retry: None

host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


def metric(name, value, datatype, ms=None):
    return psp.Metric(timestamp=ms or psp.get_current_timestamp(), name=name, datatype=datatype, value=value)


node = psp.EdgeNode("lyon", "plc-1", [metric("uptime", 1, psp.DataType.UINT32)])
node.register(
    psp.Device(
        "mill:pump",
        [
            metric("bearing/temp", 20.5, psp.DataType.DOUBLE, 1_600_000_000_000),
            metric("state", "running", psp.DataType.STRING, 1_600_000_000_000),
            metric("on", True, psp.DataType.BOOLEAN, 1_600_000_000_000),
            metric("count", -5, psp.DataType.INT16, 1_600_000_000_000),
        ],
    )
)
node.connect(host, port=port)
while not node._connected:
    time.sleep(0.01)
print("born", flush=True)
sys.stdin.readline()
for i in range(count):
    node.update_device("mill:pump", [metric("bearing/temp", i / 4, psp.DataType.DOUBLE, 1_600_000_001_000 + i)])
print("sent", flush=True)
if sys.stdin.readline():
    node.disconnect()
    sys.exit(0)
os._exit(1)  # its will is what it leaves
