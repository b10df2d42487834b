"""On MicroPython, whose json writes `nan` and `inf`: they are left out wherever they stand. Prints what was made."""

from camera_agent import protocol

NAN = float("nan")
INF = float("inf")

for value in (NAN, -NAN, INF, -INF):
    print(str(protocol.encode({"a": value}), "utf-8"))
    print(str(protocol.encode({"a": 1, "b": [value, 2, value], "c": {"d": value}}), "utf-8"))
    print(str(protocol.encode({"a": [1, value]}), "utf-8"))
print(str(protocol.encode({"inference_ms": 3, "infinite": "nano,inf"}), "utf-8"))
