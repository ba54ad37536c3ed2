"""Sealed API keys: who can open them, and what moving, damaging and rotating does."""

from __future__ import annotations

import pytest

from meshd.errors import ConfigError
from meshd.workers.health_machine import HealthSettings
from meshd.workers.sealing import ClusterSealer, parse_secrets
from tests.support.planes import URL, Planes

OLD, NEW = "an old secret that is long", "a new secret that is long"
CHECKED = HealthSettings(drain_settle_s=0)


@pytest.mark.req("SYN-12")
def test_a_sealed_key_opens_with_the_secret_and_is_the_same_bytes_each_time() -> None:
    sealer = ClusterSealer("c", [OLD])
    sealed = sealer.seal("id", "sk-secret")
    assert b"secret" not in sealed
    assert sealed == ClusterSealer("c", [OLD]).seal("id", "sk-secret")
    assert ClusterSealer("c", [OLD]).unseal("id", sealed) == "sk-secret"


@pytest.mark.req("SYN-12")
def test_a_sealed_key_opens_for_no_other_worker_cluster_or_secret_nor_when_damaged() -> None:
    sealed = ClusterSealer("c", [OLD]).seal("id", "sk-secret")
    assert ClusterSealer("c", [OLD]).unseal("other", sealed) is None
    assert ClusterSealer("d", [OLD]).unseal("id", sealed) is None
    assert ClusterSealer("c", [NEW]).unseal("id", sealed) is None
    for place in range(len(sealed)):
        damaged = bytearray(sealed)
        damaged[place] ^= 1
        assert ClusterSealer("c", [OLD]).unseal("id", bytes(damaged)) is None
    for short in (b"", b"\x01", sealed[:5], sealed[:20]):
        assert ClusterSealer("c", [OLD]).unseal("id", short) is None


@pytest.mark.req("SYN-12")
def test_keys_of_similar_length_are_sealed_to_equal_lengths() -> None:
    sealer = ClusterSealer("c", [OLD])
    assert len({len(sealer.seal("id", "k" * length)) for length in range(1, 31)}) == 1
    assert sealer.unseal("id", sealer.seal("id", "k\u0080" * 50)) == "k\u0080" * 50


@pytest.mark.req("SYN-12")
def test_during_a_rotation_both_secrets_open_and_the_first_seals() -> None:
    both = ClusterSealer("c", [NEW, OLD])
    assert both.unseal("id", ClusterSealer("c", [OLD]).seal("id", "k")) == "k"
    assert ClusterSealer("c", [NEW]).unseal("id", both.seal("id", "k")) == "k"


def test_a_secret_file_holds_one_secret_a_line() -> None:
    assert parse_secrets(f"# newest first\n{NEW}\n\n  {OLD}  \n") == (NEW, OLD)
    for text in ("", "# nothing\n", "short\n"):
        with pytest.raises(ConfigError) as caught:
            parse_secrets(text)
        assert caught.value.field == "security.secret_file"


@pytest.mark.req("SYN-12", "SYN-5")
def test_with_a_cluster_secret_importers_check_protected_backends_with_the_key() -> None:
    planes = Planes("a", "b", health=CHECKED, sealer=ClusterSealer("c", [OLD]))
    planes.nodes["c"] = planes.add("c", health=CHECKED)  # it does not know the secret
    asked: dict[str, str | None] = {}
    planes.watch = lambda node, target: asked.update({node: target.api_key})
    planes["a"].register(api_key="sk-secret")
    planes.run(5)
    assert asked == {"a": "sk-secret", "b": "sk-secret"}
    assert all(planes[name].status() == "ready" for name in "abc")
    assert b"sk-secret" not in planes["b"].store.logs["a"][planes["a"].worker().key]
    assert "sk-secret" not in repr(planes["b"].worker())


@pytest.mark.req("SYN-12")
def test_rotating_the_secret_seals_anew_without_a_moment_in_which_importers_cannot_check() -> None:
    planes = Planes("a", "b", health=CHECKED, sealer=ClusterSealer("c", [OLD]))
    planes["a"].register(api_key="sk-secret")
    planes.run(5)
    before = planes["a"].worker().value
    for secrets in ([OLD, NEW], [NEW, OLD], [NEW]):
        for name in "ab":
            plane = planes[name].plane
            plane.reconfigure(plane.settings, planes.now, sealer=ClusterSealer("c", secrets))
            planes.settle()
            assert planes["b"].worker().api_key == "sk-secret"
            assert planes["b"].status() == "ready"
    assert planes["a"].worker().value != before
    assert [event.kind for event in planes["b"].events()] == [
        "registered",
        "status_changed",
        "status_changed",
    ][:2]


@pytest.mark.req("LIF-1")
def test_switching_checks_off_for_the_node_makes_what_nobody_will_check_ready() -> None:
    planes = Planes("a", "b", health=CHECKED)
    planes.answers = lambda node, url: "refused"
    planes["a"].register()
    planes["a"].register("http://10.0.0.2:1", health={"disable_health_check": False})
    planes.run(3)
    off = type(planes["a"].settings)(health=HealthSettings(disabled=True))
    for name in "ab":
        planes[name].plane.reconfigure(off, planes.now)
    planes.settle()
    assert planes["a"].status(URL) == planes["b"].status(URL) == "ready"
    assert planes["a"].status("http://10.0.0.2:1") == "pending"
    planes.answers = lambda node, url: None
    planes.run(2)
    assert planes["b"].status("http://10.0.0.2:1") == "ready"
