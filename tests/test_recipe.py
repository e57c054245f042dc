"""Recipes and the user's own config files."""

from pathlib import Path

import pytest
import yaml

from diet_ray.config import RunConfig
from diet_ray.errors import ConfigError
from diet_ray.log.stream.config import StreamConfig
from pipelines.options.stream import Stream
from pipelines.runtime.recipe import RECIPES, Recipe, load_recipe, load_stream_policy


@pytest.mark.parametrize("name", RECIPES)
def test_every_shipped_recipe_loads(name: str) -> None:
    assert load_recipe(name).ratio > 0


def test_the_letter_of_the_paper_and_each_log_that_it_names_has_a_recipe() -> None:
    assert {"paper", "kuairand", "tmall", "taobao", "globo", "demo", "cluster"} == set(RECIPES)
    paper = load_recipe("paper")
    assert not paper.reference.ensemble and not paper.method.boundary.realign


def test_a_run_config_is_a_recipe_without_its_resources() -> None:
    assert Recipe(ratio=0.5).run_config() == RunConfig(ratio=0.5)


def written(path: Path, text: str) -> str:
    (path / "mine.yaml").write_text(text)
    return str(path / "mine.yaml")


def test_a_file_of_ones_own_overrides_the_defaults(tmp_path: Path) -> None:
    found = load_recipe(written(tmp_path, "method: {outer: {iterations: 7}}\nresources: {scorers: 2}\n"))
    assert found.method.outer.iterations == 7 and found.resources.scorers == 2
    assert found.method.inner == RunConfig().method.inner


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ratoi: 0.1", r"ratoi: Extra inputs are not permitted \(got 0.1\)"),
        ("method: {outer: {iteration: 7}}", r"method\.outer\.iteration: Extra"),
        ("ratio: 1.5", r"ratio: Input should be less than or equal to 1 \(got 1.5\)"),
        ("method: {inner: {window: 9, horizon: 5}}", "window 9 is longer than horizon 5"),
        ("method: {boundary: {quota: cubic}}", "'equal', 'sqrt' or 'proportional'"),
        ("[1, 2", "is not YAML"),
        ("just text", "is not valid"),
    ],
)
def test_a_wrong_file_is_refused_by_naming_the_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe(written(tmp_path, text))


def test_an_unknown_recipe_is_refused_by_naming_those_there_are() -> None:
    with pytest.raises(
        ConfigError, match="no config 'glbo': use one of cluster, demo, globo, kuairand, paper"
    ):
        load_recipe("glbo")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("ratio: 0.1\n# für alle\n".encode("latin-1"), r"mine\.yaml is not UTF-8 \(line 2\)"),
        ("ratio: 0.1\n".encode("utf-16"), r"mine\.yaml is not UTF-8 \(line 1\)"),
        (b"ratio: [0.1\n", r"mine\.yaml is not YAML: line 2: "),
        (b"ratio: \x00\n", r"mine\.yaml is not YAML"),
        (b"ratio: 2020-13-45\n", r"mine\.yaml is not YAML: month must be"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_its_line(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "mine.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=says):
        load_recipe(str(tmp_path / "mine.yaml"))


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes("ratio: 0.1\n".encode("utf-8-sig"))
    assert load_recipe(str(tmp_path / "mine.yaml")).ratio == 0.1


def test_the_config_of_a_stream_has_its_policy_and_that_of_another_run_or_file_the_defaults(
    tmp_path: Path,
) -> None:
    own = tmp_path / "config.yaml"
    policy = StreamConfig(block_rows=77, keep_last=5)
    stored = {**RunConfig(ratio=0.03).model_dump(mode="json"), "log": "x", "fingerprint": "y"}
    own.write_text(yaml.safe_dump({**stored, "stream": policy.model_dump()}))
    assert load_stream_policy(str(own)) == policy
    assert load_recipe(str(own)).run_config() == RunConfig(ratio=0.03)
    own.write_text(yaml.safe_dump(stored))
    assert load_stream_policy(str(own)) == load_stream_policy("demo") == StreamConfig()


def test_a_stream_takes_all_its_settings_from_its_own_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "config.yaml"
    run = RunConfig(ratio=0.03)
    stored = {**run.model_dump(mode="json"), "log": "x", "fingerprint": "y", "stream": {"block_rows": 77}}
    own.write_text(yaml.safe_dump(stored))
    monkeypatch.setattr("sys.argv", ["diet-ray", "stream", "--config", str(own)])
    given = Stream.defaults()
    assert given.stream.block_rows == 77 and given.settings.run_config() == run
