from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from meshd.config import Config, load_config
from meshd.config_load import SETTINGS, variable_of
from meshd.errors import ConfigError


def _load(
    *sets: str,
    path: Path | None = None,
    env: Mapping[str, str] | None = None,
    flags: Mapping[str, str | Sequence[str]] | None = None,
    terminal: bool = False,
) -> Config:
    return load_config(path, env, flags, sets, terminal=terminal)


def _refusal(*sets: str, path: Path | None = None, env: Mapping[str, str] | None = None) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        _load(*sets, path=path, env=env)
    return caught.value


def _file(directory: Path, text: str, name: str = "meshd.toml") -> Path:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


# --- defaults -------------------------------------------------------------------------------------


def test_the_defaults_are_those_that_others_rely_on() -> None:
    config = _load()
    assert config.node.cluster == "default"
    assert config.node.zone is None
    assert (config.mesh.bind, config.api.bind) == ("127.0.0.1:7390", "127.0.0.1:7391")
    assert (config.mesh.heartbeat_s, config.mesh.probe_timeout_s, config.mesh.suspicion_mult) == (
        1.0,
        0.5,
        4.0,
    )
    assert (config.mesh.full_mesh_max, config.mesh.active_view, config.mesh.join) == (32, 6, ())
    assert (config.discovery.dns, config.discovery.zeroconf) == ((), False)
    assert (config.store.max_drift_s, config.store.durability) == (60.0, "normal")
    assert (config.store.max_key_bytes, config.store.max_value_bytes, config.store.max_keys) == (
        512,
        262_144,
        10**6,
    )
    assert (config.sync.reconcile_interval_s, config.sync.tombstone_grace_s) == (30.0, 600.0)
    assert (config.sync.forget_after_s, config.sync.fence_keep_s) == (86_400.0, 2_592_000.0)
    assert (config.sync.startup_grace_s, config.sync.on_start, config.sync.on_stop) == (
        30.0,
        "restore",
        "keep",
    )
    assert (config.health.timeout_secs, config.health.check_interval_secs) == (5.0, 10.0)
    assert (config.health.success_threshold, config.health.failure_threshold) == (2, 3)
    assert (config.health.drain_settle_secs, config.health.health_path) == (5.0, "/health")
    assert (config.health.fast_interval_s, config.health.fast_window_s) == (0.5, 10.0)
    assert config.health.check_imports == "always"
    assert not config.health.disable_health_check
    assert not config.health.remove_failed_workers
    assert not config.health.recover_failed_workers
    assert (config.capacity.override, config.capacity.slots_per_worker) == (0, 64)
    assert config.capacity.max_concurrent_requests == 1024
    assert (config.log.level, config.log.format) == ("info", "json")
    assert (config.tls.ca, config.tls.cert, config.tls.key) == (None, None, None)
    assert config.security.secret_file is None
    assert config.worker == ()


def test_the_node_is_called_like_the_host_up_to_its_first_dot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.node", lambda: "Gateway-1.example.org")
    config = _load()
    assert config.node.name == "Gateway-1"
    assert config.sources["node.name"] == "default (the host's name)"


def test_a_host_name_that_is_no_node_name_must_be_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.node", lambda: "")
    error = _refusal()
    assert error.field == "node.name"
    assert "must be set" in error.message
    assert _load("node.name=a").node.name == "a"


def test_the_log_is_for_eyes_on_a_terminal() -> None:
    assert _load(terminal=True).log.format == "console"
    assert _load("log.format=json", terminal=True).log.format == "json"


@pytest.mark.req("SYN-15", "SEC-1")
@pytest.mark.parametrize("bind", ["127.0.0.1:1", "localhost:1", "[::1]:0"])
def test_on_loopback_workers_on_loopback_are_published_and_plaintext_is_allowed(bind: str) -> None:
    config = _load(f"mesh.bind={bind}")
    assert config.sync.publish_loopback is True
    assert config.security.allow_plaintext is True
    assert config.security.strict_ownership is False
    assert config.sources["sync.publish_loopback"] == "default (mesh.bind is loopback)"


@pytest.mark.req("SYN-15")
def test_beyond_loopback_workers_on_loopback_are_not_published() -> None:
    config = _load("mesh.bind=10.0.0.1:1", "security.allow_plaintext=true")
    assert config.sync.publish_loopback is False
    assert _load("sync.publish_loopback=no").sync.publish_loopback is False


@pytest.mark.req("SEC-1")
def test_beyond_loopback_without_tls_must_be_asked_for() -> None:
    error = _refusal("mesh.bind=10.0.0.1:7390")
    assert error.field == "mesh.bind"
    assert "security.allow_plaintext = true" in error.message


def test_peers_are_told_the_bound_address_unless_another_is_named() -> None:
    assert _load("mesh.bind=127.0.0.1:5").mesh.advertise == "127.0.0.1:5"
    config = _load("mesh.bind=127.0.0.1:5", "mesh.advertise=gateway:6")
    assert config.mesh.advertise == "gateway:6"


def test_a_wildcard_is_no_address_to_tell_peers() -> None:
    error = _refusal("mesh.bind=0.0.0.0:7390", "security.allow_plaintext=true")
    assert error.field == "mesh.advertise"
    assert "cannot be dialled" in error.message


def test_the_socket_lies_in_the_data_directory() -> None:
    config = _load("node.data_dir=/var/lib/meshd")
    assert config.api.socket == Path("/var/lib/meshd/meshd.sock")
    assert _load("api.socket=/run/meshd.sock").api.socket == Path("/run/meshd.sock")


def test_a_socket_path_that_no_socket_can_have_is_refused() -> None:
    error = _refusal(f"node.data_dir=/{'a' * 100}")
    assert error.field == "api.socket"
    assert "at most 107" in error.message


def test_a_tilde_is_the_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert _load("node.data_dir=~/mesh").node.data_dir == Path("/home/somebody/mesh")


# --- precedence -----------------------------------------------------------------------------------


def test_flags_beat_variables_beat_conf_d_beats_the_file(tmp_path: Path) -> None:
    path = _file(
        tmp_path, "[mesh]\nheartbeat_s = 1.1\nprobe_timeout_s = 1.1\nsuspicion_mult = 11\nactive_view = 11\n"
    )
    _file(
        tmp_path, "[mesh]\nheartbeat_s = 2.2\nprobe_timeout_s = 2.2\nsuspicion_mult = 22\n", "conf.d/20.toml"
    )
    env = {"MESHD_MESH__HEARTBEAT_S": "3.3", "MESHD_MESH__PROBE_TIMEOUT_S": "3.3"}
    config = _load(path=path, env=env, flags={"mesh.heartbeat_s": "4.4"})
    mesh = config.mesh
    assert (mesh.heartbeat_s, mesh.probe_timeout_s, mesh.suspicion_mult, mesh.active_view) == (
        4.4,
        3.3,
        22.0,
        11,
    )
    assert config.sources["mesh.heartbeat_s"] == "flags"
    assert config.sources["mesh.probe_timeout_s"] == "$MESHD_MESH__PROBE_TIMEOUT_S"
    assert config.sources["mesh.suspicion_mult"].endswith("conf.d/20.toml")
    assert config.sources["mesh.active_view"].endswith("meshd.toml")
    assert config.sources["mesh.full_mesh_max"] == "default"


def test_later_names_in_conf_d_win(tmp_path: Path) -> None:
    path = _file(tmp_path, "")
    _file(tmp_path, "[node]\nzone = 'late'\n", "conf.d/90-site.toml")
    _file(tmp_path, "[node]\nzone = 'early'\n", "conf.d/10-vendor.toml")
    _file(tmp_path, "this is not read", "conf.d/notes.txt")
    assert _load(path=path).node.zone == "late"


def test_the_last_set_wins_and_beats_the_flags() -> None:
    config = _load("node.zone=a", "node.zone=b", flags={"node.zone": "c"})
    assert config.node.zone == "b"
    assert config.sources["node.zone"] == "--set"


def test_a_bad_value_that_a_better_source_replaces_does_no_harm(tmp_path: Path) -> None:
    path = _file(tmp_path, "[capacity]\noverride = -1\n")
    assert _load("capacity.override=1", path=path).capacity.override == 1


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_has_its_variable(name: str) -> None:
    # A value that no setting takes shows that the variable was read as this setting's.
    kind = SETTINGS[name].kind
    if kind in (int, float, bool):
        assert name in {p.field for p in _refusal(env={variable_of(name): "nonsense"}).problems}
    else:
        assert name in SETTINGS
        assert variable_of(name) == "MESHD_" + name.replace(".", "__").upper()


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["true", "on", "YES", "1"])
def test_a_switch_is_put_on_in_the_usual_words(text: str) -> None:
    assert _load(f"discovery.zeroconf={text}").discovery.zeroconf is True


@pytest.mark.parametrize("text", ["false", "off", "No", "0"])
def test_a_switch_is_put_off_in_the_usual_words(text: str, tmp_path: Path) -> None:
    path = _file(tmp_path, "[discovery]\nzeroconf = true\n")
    assert _load(f"discovery.zeroconf={text}", path=path).discovery.zeroconf is False


def test_a_list_is_written_with_commas_or_as_toml_or_as_a_repeated_flag() -> None:
    wanted = ("a:1", "[::1]:2")
    assert _load("mesh.join=a:1, [::1]:2").mesh.join == wanted
    assert _load('mesh.join=["a:1", "[::1]:2"]').mesh.join == wanted
    assert _load(flags={"mesh.join": ["a:1", "[::1]:2"]}).mesh.join == wanted
    assert _load("mesh.join=[::1]:2").mesh.join == ("[::1]:2",)
    assert _load("mesh.join=").mesh.join == ()


def test_an_address_named_twice_is_joined_once() -> None:
    assert _load("mesh.join=A:1,a:1,b:1").mesh.join == ("a:1", "b:1")


@pytest.mark.parametrize("text", ["none", ""])
def test_what_may_be_unset_is_unset_by_none(text: str, tmp_path: Path) -> None:
    path = _file(tmp_path, "[node]\nzone = 'a'\n")
    assert _load(f"node.zone={text}", path=path).node.zone is None


def test_a_dns_service_needs_no_port_and_a_host_does() -> None:
    config = _load("discovery.dns=_meshd._tcp.Example.org,gateways.example.org:7390")
    assert config.discovery.dns == ("_meshd._tcp.example.org", "gateways.example.org:7390")
    assert _refusal("discovery.dns=gateways.example.org").field == "discovery.dns"


@pytest.mark.req("CAP-2")
@pytest.mark.parametrize("value", ["-1", "65536", "99999999999999999999"])
def test_a_capacity_override_out_of_range_is_refused_by_name(value: str) -> None:
    error = _refusal(f"capacity.override={value}")
    assert error.field == "capacity.override"
    assert "from 0 to 65535" in error.message


@pytest.mark.req("CAP-2")
@pytest.mark.parametrize("value", [0, 1, 65_535])
def test_a_capacity_override_within_range_is_taken(value: int) -> None:
    assert _load(f"capacity.override={value}").capacity.override == value


@pytest.mark.parametrize(
    ("setting", "hint"),
    [
        ("mesh.heartbeat_s=0", "from 0.05 to 60"),
        ("mesh.heartbeat_s=nan", "from 0.05 to 60"),
        ("mesh.heartbeat_s=inf", "from 0.05 to 60"),
        ("mesh.heartbeat_s=fast", "a number of seconds"),
        ("mesh.bind=7390", "port is missing"),
        ("mesh.bind=127.0.0.1:70000", "65535"),
        ("mesh.join=a", "port is missing"),
        ("mesh.join=a:0", "cannot be dialled"),
        ("mesh.join=0.0.0.0:7390", "cannot be dialled"),
        ("mesh.active_view=2", "from 3 to 64"),
        ("node.name=", "letters, digits"),
        ("node.name=a\nb", "letters, digits"),
        ("node.name=-a", "letters, digits"),
        (f"node.name={'a' * 64}", "1 to 63"),
        ("node.data_dir=", "a path"),
        ("node.data_dir=a\0b", "a path"),
        ("node.data_dir=~nobody-of-this-name/mesh", "home of a user"),
        ("store.max_keys=0", "at least"),
        ("store.max_keys=1.5", "whole number"),
        ("store.durability=extreme", "one of normal, full"),
        ("sync.on_start=forget", "one of restore, withdraw"),
        ("sync.on_stop=forget", "one of keep, withdraw"),
        ("sync.fence_keep_s=100", "above sync.forget_after_s"),
        ("health.timeout_secs=0", "above 0"),
        ("health.success_threshold=0", "from 1 to 1000"),
        ("health.health_path=health", "must begin with /"),
        ("health.health_path=/a b", "must begin with /"),
        ("health.check_imports=sometimes", "one of always, owner_down, never"),
        ("health.disable_health_check=maybe", "true or false"),
        ("log.level=loud", "one of debug"),
        ("log.format=xml", "one of console, json"),
        ("api.bind=127.0.0.1:7390", "must differ from mesh.bind"),
        ("tls.cert=cert.pem", "does not speak TLS yet"),
        ("security.strict_ownership=true", "does not sign entries yet"),
    ],
)
def test_a_value_that_is_no_use_is_refused_with_its_limit(setting: str, hint: str) -> None:
    error = _refusal(setting)
    assert setting.startswith(f"{error.field}=")
    if hint != "at least":
        assert hint in error.message


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("[mesh]\nheartbeat_s = '1'\n", "mesh.heartbeat_s"),
        ("[mesh]\nfull_mesh_max = 5.0\n", "mesh.full_mesh_max"),
        ("[mesh]\nfull_mesh_max = true\n", "mesh.full_mesh_max"),
        ("[mesh]\njoin = 'a:1'\n", "mesh.join"),
        ("[mesh]\njoin = [1]\n", "mesh.join"),
        ("[discovery]\nzeroconf = 'yes'\n", "discovery.zeroconf"),
        ("[node]\nname = 5\n", "node.name"),
        ("[node]\nzone = 1979-05-27\n", "node.zone"),
        ("[node]\nname = {}\n", "node.name"),
    ],
)
def test_a_file_gives_the_type_that_the_setting_has(text: str, field: str, tmp_path: Path) -> None:
    error = _refusal(path=_file(tmp_path, text))
    assert error.field == field
    assert error.problems[0].source is not None
    assert error.problems[0].source.endswith("meshd.toml")


def test_a_whole_number_is_a_duration_too(tmp_path: Path) -> None:
    assert _load(path=_file(tmp_path, "[mesh]\nheartbeat_s = 2\n")).mesh.heartbeat_s == 2.0


# --- unknown settings and broken files ------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "field", "hint"),
    [
        ("[mesh]\nheartbeat = 1\n", "mesh.heartbeat", "did you mean mesh.heartbeat_s?"),
        ("[sync]\nheartbeat_s = 1\n", "sync.heartbeat_s", "did you mean mesh.heartbeat_s?"),
        ("[mehs]\nheartbeat_s = 1\n", "mehs", "did you mean mesh?"),
        ("[[workers]]\nurl = 'http://a:1'\n", "workers", "did you mean worker?"),
        ("bind = 'a:1'\n", "bind", "no such section"),
        ("mesh = 5\n", "mesh", "write [mesh]"),
        ("[worker]\nurl = 'http://a:1'\n", "worker", "write [[worker]]"),
        ("[[worker]]\nmodels = []\n", "worker[0].url", "http://127.0.0.1:8000"),
        (
            "[[worker]]\nurl = 'http://a:1'\n[[worker]]\nurl = 'http://a:1'\n",
            "worker[1].url",
            "declared already",
        ),
        ("[mesh\n", "config", "is not TOML"),
    ],
)
def test_a_file_with_what_nobody_knows_is_refused(text: str, field: str, hint: str, tmp_path: Path) -> None:
    error = _refusal(path=_file(tmp_path, text))
    assert error.field == field
    assert hint in error.message


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    assert "there is no file" in _refusal(path=tmp_path / "absent.toml").message


def test_a_file_that_is_not_text_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "meshd.toml"
    path.write_bytes(b"\xff\xfe")
    assert "is not TOML" in _refusal(path=path).message


@pytest.mark.parametrize(
    ("setting", "field", "hint"),
    [
        ("heartbeat_s=1", "heartbeat_s", "did you mean mesh.heartbeat_s?"),
        ("mesh.nonsense=1", "mesh.nonsense", "no such setting"),
        ("mesh.bind", "--set", "write KEY=VALUE"),
    ],
)
def test_a_set_that_nobody_knows_is_refused(setting: str, field: str, hint: str) -> None:
    error = _refusal(setting)
    assert error.field == field
    assert hint in error.message


@pytest.mark.parametrize("variable", ["MESHD_MESH_HEARTBEAT_S", "MESHD_MESH__HEARTBEAT", "MESHD_HEARTBEAT_S"])
def test_a_variable_that_nobody_knows_is_refused_with_the_nearest(variable: str) -> None:
    error = _refusal(env={variable: "1"})
    assert error.field == variable
    assert "did you mean MESHD_MESH__HEARTBEAT_S?" in error.message


@pytest.mark.parametrize(
    "variable",
    [
        "PATH",
        "MESHD",
        "MESHD_CONFIG",
        "MESHD_GATEWAY_SERVICE_HOST",
        "MESHD_SERVICE_HOST",
        "MESHD_SERVICE_PORT_MESH",
        "MESHD_PORT",
        "MESHD_PORT_7390_TCP_ADDR",
        "MESHD_API_SERVICE_PORT",
    ],
)
def test_a_variable_that_somebody_else_reads_is_let_be(variable: str) -> None:
    assert _load(env={variable: "tcp://10.0.0.1:7390"}).mesh == _load().mesh


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    path = _file(tmp_path, "[mesh]\nheartbeet_s = 1\nbind = 'nowhere'\n[[worker]]\n")
    error = _refusal("capacity.override=-1", path=path, env={"MESHD_NONSENSE": "1"})
    fields = [problem.field for problem in error.problems]
    assert sorted(fields) == [
        "MESHD_NONSENSE",
        "capacity.override",
        "mesh.bind",
        "mesh.heartbeet_s",
        "worker[0].url",
    ]
    assert error.field == fields[0]
    assert len(error.message.splitlines()) == 5


def test_a_variable_of_a_setting_that_does_not_exist_is_no_service_of_kubernetes() -> None:
    assert _refusal(env={"MESHD_API__PORT": "7391"}).field == "MESHD_API__PORT"


def test_a_mistake_hides_no_other_and_is_told_once() -> None:
    error = _refusal("mesh.bind=0.0.0.0:7390", "sync.forget_after_s=x", "mesh.active_view=60")
    fields = [problem.field for problem in error.problems]
    assert fields == ["sync.forget_after_s", "mesh.advertise", "mesh.active_view", "mesh.bind"]


# --- workers, and showing it all ------------------------------------------------------------------


@pytest.mark.req("SYN-16")
def test_workers_are_declared_in_the_file_and_in_conf_d(tmp_path: Path) -> None:
    path = _file(tmp_path, "[[worker]]\nurl = 'http://a:1'\npriority = 7\n")
    _file(tmp_path, "[[worker]]\nurl = 'http://b:1'\nlabels = { gpu = 'h100' }\n", "conf.d/b.toml")
    assert _load(path=path).worker == (
        {"url": "http://a:1", "priority": 7},
        {"url": "http://b:1", "labels": {"gpu": "h100"}},
    )


def test_every_setting_is_explained_with_its_value_and_source() -> None:
    rows = {row.name: row for row in _load("mesh.join=a:1").explain()}
    assert set(rows) == set(SETTINGS)
    assert all(row.doc and row.wanted for row in rows.values())
    assert rows["mesh.join"].value == '["a:1"]'
    assert rows["mesh.join"].source == "--set"
    assert rows["mesh.heartbeat_s"].value == "1.0"
    assert rows["mesh.heartbeat_s"].wanted == "a number of seconds from 0.05 to 60"
    assert rows["tls.ca"].value == "none"
    assert rows["discovery.zeroconf"].value == "false"
    assert rows["mesh.bind"].variable == "MESHD_MESH__BIND"


def test_a_setting_is_found_by_its_dotted_name() -> None:
    config = _load("mesh.heartbeat_s=2")
    assert config.get("mesh.heartbeat_s") == 2.0
    with pytest.raises(KeyError):
        config.get("mesh.nonsense")


def test_equal_settings_are_equal_configurations_wherever_they_came_from(tmp_path: Path) -> None:
    path = _file(tmp_path, "[mesh]\nheartbeat_s = 2\n")
    assert _load(path=path) == _load("mesh.heartbeat_s=2")


# --- warnings -------------------------------------------------------------------------------------


def test_nothing_is_warned_of_where_nothing_is_set() -> None:
    assert _load().warnings == ()


@pytest.mark.req("SEC-1")
def test_plaintext_beyond_loopback_is_warned_of() -> None:
    (warning,) = _load("mesh.bind=10.0.0.1:7390", "security.allow_plaintext=true").warnings
    assert warning.field == "security.allow_plaintext"
    assert "10.0.0.1:7390" in warning.message


@pytest.mark.parametrize("setting", ["mesh.full_mesh_max=10", "mesh.active_view=5"])
def test_a_setting_without_effect_yet_is_warned_of(setting: str) -> None:
    (warning,) = _load(setting).warnings
    assert setting.startswith(warning.field)


def test_recovering_what_is_removed_is_warned_of() -> None:
    (warning,) = _load("health.remove_failed_workers=on", "health.recover_failed_workers=on").warnings
    assert warning.field == "health.recover_failed_workers"


@pytest.mark.req("SEC-3")
def test_an_api_key_of_a_declared_worker_is_not_shown(tmp_path: Path) -> None:
    config = _load(path=_file(tmp_path, "[[worker]]\nurl = 'http://a:1'\napi_key = 'hidden-thing'\n"))
    assert config.worker[0]["api_key"] == "hidden-thing"
    assert "hidden-thing" not in repr(config)
    assert not any("hidden-thing" in str(row) for row in config.explain())
