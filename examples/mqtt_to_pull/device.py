"""A device that speaks MQTT and nothing else.

python device.py [--mqtt HOST:PORT] [--count N]
"""

import argparse
import os
import queue

import paho.mqtt.client as mqtt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mqtt", default=os.environ.get("TIDEGATE_MQTT", "127.0.0.1:1883"))
    parser.add_argument("--count", type=int, default=10)
    options = parser.parse_args()
    host, _, port = options.mqtt.rpartition(":")

    pubacks: queue.SimpleQueue[int] = queue.SimpleQueue()
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    client.on_publish = lambda _client, _data, mid, _code, _properties: pubacks.put(mid)
    client.connect(host, int(port))
    client.loop_start()  # reconnects by itself, and sends again what was not confirmed
    for number in range(1, options.count + 1):
        client.publish("sensors/pump1/pressure", f"{number * 0.1:.1f} bar", qos=1)
        pubacks.get()
        print("confirmed reading", number, flush=True)
    client.disconnect()
    client.loop_stop()


if __name__ == "__main__":
    main()
