"""Reads every golden message for cameras with the agent's parsers and prints what they answered, as JSON."""

import gc
import json
import os
import sys

from camera_agent import protocol

PARSERS = {
    "desired": protocol.parse_desired,
    "ack": protocol.parse_ack,
    "fresh": protocol.parse_fresh,
    "cmd": protocol.parse_command,
    "daemon": protocol.parse_daemon_status,
}


def answer(parser, path):
    """What the parser makes of the file: a value, or the reason (text) why not."""
    with open(path, "rb") as file:
        payload = memoryview(file.read())
    try:
        return parser(payload)
    except protocol.ProtocolError as error:
        return error.reason


def names(folder):
    """File names in a folder."""
    return sorted(entry[0] for entry in os.ilistdir(folder))


root = sys.argv[1]
print("{", end="")
for name in names(root + "/down"):
    parser = PARSERS[name.split(".")[0].split("-")[0]]
    print(json.dumps("down/" + name) + ":", json.dumps(answer(parser, root + "/down/" + name)) + ",")
    gc.collect()
for folder, parser in PARSERS.items():
    for name in names(root + "/bad/" + folder):
        path = "bad/" + folder + "/" + name
        print(json.dumps(path) + ":", json.dumps(answer(parser, root + "/" + path)) + ",")
        gc.collect()
print('"end": null}')
