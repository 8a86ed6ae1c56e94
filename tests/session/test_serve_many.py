"""Ten clients at once on one `ogate serve`: attribution, limits and revocation, to the request."""

import collections
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from opencode_gate.core.semconv import ExchangeStatus
from opencode_gate.governance.policy import ModelRules, RateLimit
from tests.support.served_gateway import ServedGateway, change_key, put_key, recorded, served

CLIENTS = 10
EACH = 12


def test_every_request_is_written_down_under_the_key_and_session_it_came_with(
    tmp_path: Path,
) -> None:
    """Half of the clients have sessions, half bare keys; nothing is mixed up or lost."""
    keys = {f"key-{number}": put_key(f"key-{number}") for number in range(CLIENTS)}

    def work(gateway: ServedGateway, name: str) -> str | None:
        token, session_id = keys[name], None
        if int(name[-1]) % 2:
            session_id, token = gateway.open_session(token)
        for _ in range(EACH):
            assert gateway.chat(token).status == 200
        return session_id

    with served(tmp_path) as gateway, ThreadPoolExecutor(CLIENTS) as pool:
        sessions = dict(zip(keys, pool.map(lambda name: work(gateway, name), keys), strict=True))
        assert gateway.stop(signal.SIGTERM) == 0
    records = recorded()
    by_key = collections.Counter(record.virtual_key for record in records)
    assert by_key == dict.fromkeys(keys, EACH)
    for record in records:
        assert record.virtual_key is not None
        expected = sessions[record.virtual_key]
        assert expected is None or record.session_id == expected


def test_each_key_has_its_own_rules_and_a_revoked_one_stops_between_two_requests(
    tmp_path: Path,
) -> None:
    """One has too few requests, one may not use the model, one is switched off in the middle."""
    per_minute = RateLimit(requests=3, per="day")
    keys = {
        "free": put_key("free"),
        "few": put_key("few", limits=(per_minute,)),
        "barred": put_key("barred", models=ModelRules(deny=("practice/*",))),
        "off": put_key("off"),
    }
    half = threading.Barrier(2)

    def work(gateway: ServedGateway, name: str) -> list[int]:
        found = []
        for turn in range(6):
            if name == "off" and turn == 3:
                half.wait(30)
                half.wait(30)
            found.append(gateway.chat(keys[name]).status)
        return found

    with served(tmp_path) as gateway, ThreadPoolExecutor(len(keys)) as pool:
        futures = {name: pool.submit(work, gateway, name) for name in keys}
        half.wait(30)
        change_key("off", active=False)
        half.wait(30)
        statuses = {name: future.result() for name, future in futures.items()}
        assert gateway.stop() == 0
    assert statuses["free"] == [200] * 6
    assert statuses["few"][:3] == [200] * 3
    assert set(statuses["few"][3:]) <= {402, 429}
    assert statuses["barred"] == [403] * 6
    assert statuses["off"] == [200] * 3 + [401] * 3
    done = collections.Counter(
        record.virtual_key for record in recorded() if record.status is ExchangeStatus.COMPLETED
    )
    assert done == {"free": 6, "few": 3, "off": 3}
