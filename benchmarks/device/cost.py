"""One measurement on MicroPython: `cost.py CASE COUNT`. Prints one JSON line; agent_cost.py compares cases.

bare     COUNT frames of the loop that OpenMV's examples have: capture, classify, print
broker   the same, and the stand-in broker's own work for as many frames
agent    COUNT frames with the whole agent
idle     COUNT turns of the agent between two frames
gc       COUNT collections of the agent's heap, which was in use up to its end
install  take the first release, and keep it in this folder
session  connect, publish, classify, be receipted: COUNT frames
update   the same, then another release from desired to confirmed
hour     COUNT seconds with COUNT / 72 lost connections and three updates, on a clock that is in no hurry
memory   what is on the heap after COUNT frames, by part
"""

import gc
import json
import sys

import desk


def bare(count):
    sensor = desk.csi.CSI()
    sensor.reset()
    sensor.pixformat(desk.csi.RGB565)
    sensor.framesize(desk.csi.QVGA)
    sensor.window((240, 240))
    net = desk.Net()
    labels = ["background", "blue ball", "lego figure"]
    return lambda: bare_frames(sensor, net, labels, count)


def bare_frames(sensor, net, labels, count):
    for _ in range(count):
        image = sensor.snapshot()
        scores = net.predict([image])[0].flatten().tolist()
        best = 0
        for n in range(1, len(scores)):
            if scores[n] > scores[best]:
                best = n
        print(labels[best], scores[best])


def broker_frames(loop, count):
    """Every frame somebody asks the socket; every ten frames a message, its PUBACK and a receipt pass it."""
    loop()
    broker = desk.Broker()
    view = memoryview(bytearray(8192))
    message = memoryview(b"\x32\xf2\x08\x00\x1afleet/v1/bench-1/up/result\x00\x01" + bytes(1108))
    for n in range(count):
        if n % 10 == 0:
            broker.send(message)
            broker.readinto(view)
            broker.receipt("0123456789abcdef", n, n)
            broker.readinto(view)
        broker.readinto(view)


def agent(count, **changes):
    camera = desk.Camera(**changes)
    camera.boot()
    camera.frames(40)
    return camera


def measured(work, count):
    """Bytes allocated and collections asked for while `work` runs, with the collector off."""
    gc.collect()
    desk.counting.asked = 0
    desk.counting.held = True
    gc.disable()
    before = gc.mem_alloc()
    work()
    after = gc.mem_alloc()
    gc.enable()
    desk.counting.held = False
    return {"bytes": (after - before) / max(1, count), "collects": desk.counting.asked / max(1, count)}


def used_up():
    """Objects of which the last lie at the heap's end: a collection has to look at all of it."""
    gc.collect()
    room = gc.mem_free()
    while True:
        try:
            most = bytearray(room)
            break
        except MemoryError:
            room -= room // 50
    kept = []
    for _ in range(4000):
        try:
            kept.append(bytearray(16))
        except MemoryError:
            break
    del most
    return kept[-1]


def memory(count):
    """Bytes on the heap after a collection: the stand-ins, the agent's code, and everything it holds at work."""
    gc.collect()
    fakes = gc.mem_alloc()
    import camera_agent.agent
    import camera_agent.hal  # noqa: F401

    gc.collect()
    loaded = gc.mem_alloc()
    camera = desk.Camera()
    camera.boot()
    camera.frames(count)
    gc.collect()
    live = gc.mem_alloc()
    return {"fakes": fakes, "code": loaded - fakes, "data": live - loaded, "live": live - fakes}


def update(camera, number=1):
    with open("retained/wish%d" % number) as file:
        wanted = file.read(200)
    camera.broker.publish(b"fleet/v1/bench-1/down/desired", wanted.encode(), True)
    release = json.loads(wanted)["release"]

    def confirmed():
        known = camera.agent.updater.status()
        return known["release"] and known["release"]["id"] == release and not known["trial"]

    camera.until(confirmed, 20_000)
    camera.frames(20)


def hour(seconds):
    """Live for so long. What is on the heap after collections in quiet moments must not grow."""
    camera = desk.Camera(
        interval_ms=1000, outbox_messages=16, outbox_bytes=4096, telemetry_s=30, slot_bytes=81920
    )
    camera.pause_ms = 20
    camera.boot()
    samples = []
    broker = camera.broker
    outbox = camera.agent.outbox
    updates = 0
    for second in range(seconds):
        if second % 72 == 71:
            broker.hang_up()
        if second % (seconds // 4) == seconds // 4 - 1 and updates < 3:
            updates += 1
            update(camera, updates)
        if second % 72 == 60:
            camera.until(lambda: len(outbox) < 3)
            gc.collect()
            samples.append(gc.mem_alloc())
        camera.seconds(1)
    known = camera.agent.status()
    return {
        "live": samples,
        "reconnects": camera.agent.link.reconnects,
        "release": known["release"]["id"],
        "problems": known["problems"],
        "exceptions": camera.agent.trouble.count,
        "lost": sum(camera.agent.outbox.dropped.values()),
        "refused": camera.agent.outbox.refused,
        "frames": camera.agent.vision.frames,
    }


def run(case, count):
    if case == "bare":
        return measured(bare(count), count)
    if case == "broker":
        loop = bare(count)
        return measured(lambda: broker_frames(loop, count), count)
    if case == "agent":
        camera = agent(count)
        return measured(lambda: camera.frames(count), count)
    if case == "idle":
        camera = agent(count)
        camera.agent.settings["interval_ms"] = 3_600_000
        for _ in range(500):
            camera.turn()
        until = camera.turns + count
        return measured(lambda: camera.until(lambda: camera.turns >= until), count)
    if case == "gc":
        kept = agent(count), used_up()
        for _ in range(count):
            gc.collect()
        return {"heap": gc.mem_alloc() + gc.mem_free(), "live": gc.mem_alloc(), "kept": len(kept)}
    if case == "memory":
        return memory(count)
    if case == "hour":
        return hour(count)
    camera = desk.Camera()
    camera.boot() if case != "install" else camera.agent.start()
    if case == "install":
        camera.until(lambda: camera.agent.updater.status()["release"] and camera.agent.vision.frames > 20)
    camera.frames(count)
    if case == "update":
        update(camera)
    outbox = camera.agent.outbox
    camera.until(lambda: len(outbox) == 0 or camera.turns % 50 == 0)
    return {"frames": camera.agent.vision.frames, "published": camera.broker.published}


print(json.dumps(run(sys.argv[1], int(sys.argv[2]))))
