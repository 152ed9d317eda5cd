"""Does a front-end listen on all the addresses that it is given?"""

from __future__ import annotations

import socket


def test_mqtt_listens_on_every_address_and_stays(tidegate):
    listen = 'frontend.mqtt.listen=["tcp://127.0.0.1:0", "tcp://127.0.0.1:0"]'
    broker = tidegate("serve", "--set", listen, "--set", "frontend.zeromq.enabled=false")
    lines = broker.lines_until("ready")
    ports = [int(line.rpartition(":")[2]) for line in lines if line.startswith("listening mqtt ")]
    assert len(set(ports)) == 2
    for port in ports:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as peer:
            peer.sendall(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01a")
            assert peer.recv(4) == b"\x20\x02\x00\x00"
    assert "front-end failed" not in broker.errors
