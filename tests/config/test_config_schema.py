from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.config import load_config
from meshd.config_load import SETTINGS
from meshd.config_schema import Setting
from meshd.errors import ConfigError

ANY_SETTING = st.sampled_from(list(SETTINGS.values()))
# What a TOML document can hold.
TOML_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text() | st.datetimes() | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def _kept(read: Callable[[Any], Any], value: Any) -> Any:
    """What a setting makes of a value, None for one that it refuses; any other error fails the test."""
    try:
        return read(value)
    except ValueError:
        return None


@given(ANY_SETTING, st.text() | st.integers().map(str) | st.floats().map(str))
def test_any_text_is_a_value_or_a_value_error(spec: Setting, text: str) -> None:
    value = _kept(spec.from_text, text)
    assert value is None or isinstance(value, spec.kind)


@given(ANY_SETTING, TOML_VALUES)
def test_any_toml_is_a_value_or_a_value_error(spec: Setting, value: Any) -> None:
    kept = _kept(spec.from_toml, value)
    assert kept is None or isinstance(kept, spec.kind)


@given(ANY_SETTING, st.text())
def test_a_value_that_was_kept_is_kept_again(spec: Setting, text: str) -> None:
    value = _kept(spec.from_text, text)
    if value is not None:
        assert spec.from_toml(str(value) if isinstance(value, Path) else value) == value


@given(st.dictionaries(st.sampled_from(list(SETTINGS)), st.text(max_size=12), max_size=4))
def test_any_settings_load_or_are_refused_by_name(texts: dict[str, str]) -> None:
    try:
        load_config(None, {}, texts, terminal=False)
    except ConfigError as error:
        blamed = {problem.field for problem in error.problems}
    else:
        blamed = set()
    # The last two may be no use although it was mesh.bind or node.data_dir that was set.
    assert blamed <= {*texts, "mesh.advertise", "api.socket"}


@pytest.mark.parametrize("digits", [30, 400, 5000])
def test_a_number_of_any_length_is_refused_and_not_overflowed(digits: int) -> None:
    with pytest.raises(ValueError, match="from 0 to 65535"):
        SETTINGS["capacity.override"].from_text("9" * digits)


@pytest.mark.parametrize("spec", SETTINGS.values(), ids=lambda spec: spec.name)
def test_every_default_is_a_value_that_the_setting_takes(spec: Setting) -> None:
    if spec.default is not None:
        assert spec.from_toml(spec.default) == spec.default


@pytest.mark.parametrize("spec", SETTINGS.values(), ids=lambda spec: spec.name)
def test_every_number_has_a_range_and_every_duration_its_unit(spec: Setting) -> None:
    if spec.kind in (int, float):
        assert spec.limits.maximum is not None
        assert spec.limits.minimum is not None or spec.limits.above is not None
    if spec.name.endswith(("_s", "_secs")):
        assert (spec.kind, spec.unit) == (float, "seconds")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mesh.bind", "host:port"),
        ("node.name", "a name"),
        ("node.data_dir", "a path"),
        ("mesh.heartbeat_s", "a number of seconds from 0.05 to 60"),
        ("store.max_drift_s", "a number of seconds above 0 and at most 31536000"),
        ("store.max_keys", "a whole number of keys from 1 to 100000000"),
        ("discovery.zeroconf", "true or false"),
        ("log.format", "one of console, json"),
    ],
)
def test_what_a_setting_takes_is_said_in_words(name: str, words: str) -> None:
    assert SETTINGS[name].wanted() == words
