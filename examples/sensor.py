"""An MQTT sensor: publishes readings with QoS 1 and says which of them the gateway has on disk.

A broker that stops or restarts is waited for; what it has not confirmed is sent again.

python sensor.py [--mqtt HOST:PORT] [--name NAME] [--count N] [--pause SECONDS]
"""

import argparse
import json
import os
import queue
import random
import time

import paho.mqtt.client as mqtt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mqtt", default=os.environ.get("TIDEGATE_MQTT", "127.0.0.1:1883"), help="the gateway's MQTT address")
    parser.add_argument("--name", default="press3")
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--pause", type=float, default=0.2, help="seconds between readings")
    options = parser.parse_args()
    host, _, port = options.mqtt.rpartition(":")

    pubacks: queue.SimpleQueue[int] = queue.SimpleQueue()
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=options.name)
    client.on_publish = lambda _client, _data, mid, _code, _properties: pubacks.put(mid)
    client.connect(host, int(port))
    client.loop_start()  # reconnects by itself, and sends again what was not confirmed
    for number in range(1, options.count + 1):
        reading = {"id": f"{options.name}-{number}", "celsius": round(random.uniform(18, 30), 1)}
        client.publish(f"sensors/{options.name}/temperature", json.dumps(reading), qos=1)
        pubacks.get()  # returns when the PUBACK is here, however long it takes: the reading is on the gateway's disk
        print("confirmed", reading["id"], flush=True)
        time.sleep(options.pause)
    client.disconnect()
    client.loop_stop()


if __name__ == "__main__":
    main()
