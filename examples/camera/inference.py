"""An inference worker: takes frames, thinks, publishes the result for MQTT subscribers, and only then acknowledges the frame.

python inference.py [--tgp ADDRESS] [--count N]

If it dies between the two, another worker gets the frame: a result may come twice, and never not at all.
"""

import argparse
import hashlib
import json
import os

from gateway.client import connect


def brightness(frame: bytes) -> float:
    """Stand in for a network: the mean of every hundredth byte."""
    sample = frame[::100]
    return round(sum(sample) / len(sample), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tgp", default=os.environ.get("TIDEGATE_TGP", "tcp://127.0.0.1:5570"))
    parser.add_argument("--count", type=int, default=0, help="end after so many; 0: never")
    options = parser.parse_args()

    with connect(options.tgp) as client:
        client.declare_queue("frames", durable=True)
        client.bind("frames", "amq.topic", "frames.*")
        print("waiting for frames", flush=True)
        for done, delivery in enumerate(client.consume("frames", credit=2), start=1):
            camera = delivery.routing_key.partition(".")[2]
            result = {"sha256": hashlib.sha256(delivery.body).hexdigest(), "brightness": brightness(delivery.body)}
            client.publish("amq.topic", f"results.{camera}", json.dumps(result).encode(), wait=True)
            delivery.ack()
            print(f"{camera}: {len(delivery.body)} bytes", flush=True)
            if done == options.count:
                break


if __name__ == "__main__":
    main()
