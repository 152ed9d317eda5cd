"""A worker: takes readings from a durable queue and acknowledges each when its work is done.

python worker.py [--tgp ADDRESS] [--queue NAME] [--key PATTERN] [--count N]

Start as many as you like: they share the queue. Kill one: what it had not acknowledged goes to the others.
"""

import argparse
import json
import os

from gateway.client import connect


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--tgp", default=os.environ.get("TIDEGATE_TGP", "tcp://127.0.0.1:5570"), help="the gateway's ROUTER address"
    )
    parser.add_argument("--queue", default="readings")
    parser.add_argument("--key", default="sensors.#", help="what the queue gets; MQTT's sensors/press3 is sensors.press3 here")
    parser.add_argument("--count", type=int, default=0, help="end after so many; 0: never")
    options = parser.parse_args()

    with connect(options.tgp) as client:
        client.declare_queue(options.queue, durable=True)
        client.bind(options.queue, "amq.topic", options.key)
        print("waiting for readings", flush=True)
        for done, delivery in enumerate(client.consume(options.queue, credit=20), start=1):
            reading = json.loads(delivery.body)
            print("working on", reading["id"], reading["celsius"], "(again)" if delivery.redelivered else "", flush=True)
            delivery.ack()  # only now does the message leave the queue
            if done == options.count:
                break


if __name__ == "__main__":
    main()
