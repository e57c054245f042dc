"""The cluster file passes Ray's own validator, and pins what constraints.txt pins."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[1]


def cluster() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


def test_ray_accepts_the_cluster_file() -> None:
    validate_config(prepare_config(cluster()))


def test_the_validator_would_see_a_misspelt_key() -> None:
    with pytest.raises(jsonschema.ValidationError, match="setup_comands"):
        validate_config(prepare_config({**cluster(), "setup_comands": []}))


def test_the_image_has_the_pinned_ray() -> None:
    pinned = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    )
    assert f"ray:{pinned['ray']}-" in cluster()["docker"]["image"]


def test_workers_have_gpus_and_mounted_code() -> None:
    config = cluster()
    assert config["available_node_types"]["gpu_worker"]["resources"]["GPU"] >= 1
    mounted = next(iter(config["file_mounts"]))
    assert any(mounted in command for command in config["setup_commands"])
