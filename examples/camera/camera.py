"""A camera: sends frames of 1 MB over MQTT (or ZeroMQ PUSH) and prints what the inference workers say about them, over MQTT.

python camera.py [--mqtt HOST:PORT] [--push ADDRESS] [--name NAME] [--frames N] [--bytes N]
"""

import argparse
import hashlib
import json
import os
import queue

import paho.mqtt.client as mqtt
import zmq


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--mqtt", default=os.environ.get("TIDEGATE_MQTT", "127.0.0.1:1883"), help="results, and frames without --push"
    )
    parser.add_argument("--push", default="", help="send the frames to this PULL address instead")
    parser.add_argument("--name", default="gate1")
    parser.add_argument("--frames", type=int, default=5)
    parser.add_argument("--bytes", type=int, default=1_000_000)
    options = parser.parse_args()
    host, _, port = options.mqtt.rpartition(":")

    results: queue.SimpleQueue[dict[str, object]] = queue.SimpleQueue()
    subscribed: queue.SimpleQueue[int] = queue.SimpleQueue()
    pubacks: queue.SimpleQueue[int] = queue.SimpleQueue()
    # Not a clean session: when the broker or the connection is gone for a while, the results wait.
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=options.name, clean_session=False)
    client.on_publish = lambda _client, _data, mid, _code, _properties: pubacks.put(mid)
    client.on_message = lambda _client, _data, message: results.put(json.loads(message.payload))
    client.on_subscribe = lambda _client, _data, mid, _codes, _properties: subscribed.put(mid)
    client.connect(host, int(port))
    client.loop_start()
    client.subscribe(f"results/{options.name}", qos=1)
    subscribed.get(timeout=30)

    wanted = {}
    with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
        if options.push:
            socket.connect(options.push)
        for _ in range(options.frames):
            frame = os.urandom(options.bytes)
            wanted[hashlib.sha256(frame).hexdigest()] = len(wanted) + 1
            if options.push:
                socket.send_multipart([f"frames.{options.name}".encode(), frame])
            else:
                client.publish(f"frames/{options.name}", frame, qos=1)
                pubacks.get()  # the frame is on the gateway's disk
        while wanted:
            try:
                result = results.get(timeout=60)
            except queue.Empty:
                raise SystemExit(f"no result within 60 s for frames {sorted(wanted.values())}") from None
            number = wanted.pop(str(result["sha256"]), None)  # a result may come twice: then the second one says nothing new
            if number is not None:
                print(f"frame {number}: brightness {result['brightness']}", flush=True)
    client.disconnect()
    client.loop_stop()


if __name__ == "__main__":
    main()
