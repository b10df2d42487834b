"""What accounts and TLS cost at the broker: publish rate and connections with and without TLS, and 10,000 accounts.

    python -m benchmarks.broker_security

Each pair runs on the same mosquitto in the same run: the plain listener is the floor of the one with TLS.
"""

import secrets
import ssl
import tempfile
import time
from pathlib import Path
from statistics import median

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from fleetd.accountfiles import AccountFiles
from fleetd.certificates import BROKER_NAME, Authority
from fleetd.domain.passwords import SALT_BYTES, password_hash
from fleetd.domain.records import Roll
from fleetd.embedded import Accounts, SupervisedMosquitto, TlsListener
from tests.brokers import free_port, mosquitto_binary

ACCOUNTS = 10_000
MESSAGES = 5_000
CONNECTIONS = 100
ROUNDS = 3
PAYLOAD = b"x" * 300


def client(name: str, secret: str, port: int, trust: ssl.SSLContext | None) -> mqtt.Client:
    made = mqtt.Client(CallbackAPIVersion.VERSION2, name)
    made.username_pw_set(name, secret)
    made.max_inflight_messages_set(200)
    if trust is not None:
        made.tls_set_context(trust)
    made.connect("localhost", port)
    made.loop_start()
    while not made.is_connected():
        time.sleep(0.001)
    return made


def publish(name: str, secret: str, port: int, trust: ssl.SSLContext | None) -> float:
    """QoS 1 messages per second from one client."""
    one = client(name, secret, port, trust)
    began = time.perf_counter()
    for told in [one.publish(f"fleet/v1/{name}/up/result", PAYLOAD, 1) for _ in range(MESSAGES)]:
        told.wait_for_publish(60)
    rate = MESSAGES / (time.perf_counter() - began)
    one.disconnect()
    one.loop_stop()
    return rate


def connect(name: str, secret: str, port: int, trust: ssl.SSLContext | None) -> float:
    """Milliseconds for one connection from TCP to CONNACK, in the middle of many."""
    took = []
    for _ in range(CONNECTIONS):
        began = time.perf_counter()
        one = client(name, secret, port, trust)
        took.append(1000 * (time.perf_counter() - began))
        one.disconnect()
        one.loop_stop()
    return median(took)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        authority = Authority(root / "ca")
        authority.make(["localhost"], time.time())
        files = AccountFiles(root / "broker", "fleet/v1")
        secret = secrets.token_hex(20)

        began = time.perf_counter()
        roll = Roll(
            "1",
            {f"cam-{n}": password_hash(secret, secrets.token_bytes(SALT_BYTES)) for n in range(ACCOUNTS)},
        )
        print(f"{ACCOUNTS} credentials hashed (once, when enrolled): {time.perf_counter() - began:.2f} s")
        began = time.perf_counter()
        files.write(roll)
        print(f"password and ACL files of {ACCOUNTS} accounts written: {time.perf_counter() - began:.2f} s")

        tls = TlsListener("127.0.0.1", free_port(), authority.broker_certificate, authority.broker_key)
        broker = SupervisedMosquitto(
            root / "broker", Path(mosquitto_binary()), accounts=Accounts(files.passwords, files.acl), tls=tls
        )
        with broker:
            leaver = client("cam-7", secret, broker.port, None)
            others = {name: hashed for name, hashed in roll.cameras.items() if name != "cam-7"}
            closed = []
            leaver.on_disconnect = lambda *_: closed.append(time.perf_counter())
            began = time.perf_counter()
            files.write(Roll("2", others))
            broker.reload()
            while not closed:
                time.sleep(0.001)
            print(f"one of {ACCOUNTS} revoked: written, reloaded, cut off after {closed[0] - began:.2f} s")
            leaver.disconnect()
            leaver.loop_stop()

            trust = ssl.create_default_context(cafile=authority.certificate)
            assert BROKER_NAME in authority.broker().names
            ways = {"plain": (broker.port, None), "TLS": (tls.port, trust)}
            for what, measure, better in (("messages/s", publish, max), ("ms to connect", connect, min)):
                best = {
                    way: better(measure("cam-1", secret, port, context) for _ in range(ROUNDS))
                    for way, (port, context) in ways.items()
                }
                ratio = best["TLS"] / best["plain"]
                print(f"{what}: plain {best['plain']:.1f}, TLS {best['TLS']:.1f}, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
