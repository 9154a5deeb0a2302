"""Send the messages of a JSON file to a topic, and print where each ended up; runs on the producer's node."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

from kafka import KafkaProducer

topic, path = sys.argv[1], Path(sys.argv[2])
job = json.loads(path.read_text())
producer = KafkaProducer(bootstrap_servers=job["servers"].split(","), acks="all", max_request_size=4 << 20)
futures = []
for message in job["messages"]:
    value = None if message["value"] is None else base64.b64decode(message["value"])
    if message["repeat"]:
        parts = message["repeat"]
        value = (parts["prefix"] + parts["fill"] * parts["count"] + parts["suffix"]).encode()
    futures.append((message, producer.send(topic, value, key=b"malformed", partition=message["partition"])))
sent = []
for message, future in futures:
    found = future.get(timeout=60)
    sent.append({"partition": found.partition, "offset": found.offset, "reason": message["reason"]})
producer.close()
print(json.dumps(sent))
