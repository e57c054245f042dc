"""The cluster files pass the validators of who reads them, and say what the placement of a run asks for."""

import json
import re
import shlex
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.node_provider_availability_tracker import NodeAvailabilitySummary
from ray.autoscaler._private.resource_demand_scheduler import _default_utilization_scorer, get_nodes_for
from ray.autoscaler._private.util import prepare_config, validate_config
from referencing import Registry, Resource

from actors.placement import Node, Plan, plan
from pipelines.runtime.recipe import load_recipe

ROOT = Path(__file__).parents[1]
CLUSTERS = ROOT / "docs" / "clusters"
LAUNCHER = [ROOT / "cluster.yaml", CLUSTERS / "gcp.yaml", CLUSTERS / "on-premises.yaml"]
CLOUDS = LAUNCHER[:2]
HEAD = Node(8, 0)
# Not the newest release: later ones know keys that the API server of an earlier one refuses.
KUBERNETES = files("kubernetes_validate") / "kubernetes-json-schema" / "v1.34.0-local-strict"


def read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())


def pinned(name: str) -> str:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line)[name]


def wanted() -> Plan:
    """What a run with `--config cluster` claims right after `ray up`, with the head alone."""
    return plan([HEAD], load_recipe("cluster").resources)


@pytest.mark.parametrize("path", LAUNCHER, ids=lambda path: path.name)
def test_ray_accepts_a_cluster_file(path: Path) -> None:
    validate_config(prepare_config(read(path)))
    with pytest.raises(jsonschema.ValidationError, match="setup_comands"):
        validate_config(prepare_config({**read(path), "setup_comands": []}))


@pytest.mark.parametrize("path", LAUNCHER, ids=lambda path: path.name)
def test_packages_and_token_arrive_by_what_is_mounted(path: Path) -> None:
    config = read(path)
    code = next(mounted for mounted, local in config["file_mounts"].items() if local == ".")
    assert any(f" {code}" in command or f"'{code}" in command for command in config["setup_commands"])
    assert any(mounted.endswith("/.ray/auth_token") for mounted in config["file_mounts"])


@pytest.mark.parametrize("path", CLOUDS, ids=lambda path: path.name)
def test_the_image_has_the_pinned_ray(path: Path) -> None:
    assert f"ray:{pinned('ray')}-" in read(path)["docker"]["image"]


def test_what_the_clouds_call_spot_and_rights_is_where_the_roles_need_it() -> None:
    aws, gcp = (
        {name: kind["node_config"] for name, kind in read(path)["available_node_types"].items()}
        for path in CLOUDS
    )
    for kinds, preemptible in ((aws, "InstanceMarketOptions"), (gcp, "provisioningModel")):
        assert preemptible in str(kinds["spot"])
        assert preemptible not in str(kinds["head"]) + str(kinds["on_demand"])
    assert all("IamInstanceProfile" in aws[kind] and "BlockDeviceMappings" in aws[kind] for kind in aws)
    assert all("serviceAccounts" in gcp[kind] for kind in ("on_demand", "spot"))


@pytest.mark.parametrize("path", CLOUDS, ids=lambda path: path.name)
def test_the_claims_of_a_run_bring_the_nodes_of_its_roles(path: Path) -> None:
    config = prepare_config(read(path))
    kinds, chosen = config["available_node_types"], wanted()
    assert not chosen.fits([HEAD]) and chosen.scale_up > 0
    scorer = partial(_default_utilization_scorer, node_availability_summary=NodeAvailabilitySummary({}))
    added, missing = get_nodes_for(
        kinds, {"head": 1}, "head", config["max_workers"], chosen.bundles(), scorer
    )
    assert not missing and dict(added) == {"on_demand": 1, "spot": chosen.scorers}
    resources = [{**kinds[name]["resources"]} for name, count in added.items() for _ in range(count)]
    nodes = [Node(each.pop("CPU"), each.pop("GPU"), frozenset(each)) for each in resources]
    assert chosen.fits([HEAD, *nodes])
    assert all(kind["min_workers"] == 0 for kind in kinds.values())


def rayjob() -> dict[str, Any]:
    return read(CLUSTERS / "kuberay-rayjob.yaml")


def check_rayjob(content: dict[str, Any]) -> None:
    schema = read(ROOT / "tests/fixtures/rayjob.schema.yaml")
    kubernetes = json.loads(KUBERNETES.joinpath("_definitions.json").read_text(encoding="utf-8"))
    # There any text is a quantity; KubeRay has a pattern.
    kubernetes["$defs"]["io.k8s.apimachinery.pkg.api.resource.Quantity"] = schema["$defs"]["quantity"]
    registry = Registry().with_resource("kubernetes", Resource.from_contents(kubernetes))
    jsonschema.Draft202012Validator(schema, registry=registry).validate(content)


def test_the_rayjob_is_one() -> None:
    check_rayjob(rayjob())
    assert rayjob()["spec"]["rayClusterSpec"]["rayVersion"] == pinned("ray")


WORKERS = ("rayClusterSpec", "workerGroupSpecs", 0)
POD = (*WORKERS, "template", "spec")
LIMITS = (*POD, "containers", 0, "resources", "limits")
WRONG: dict[str, tuple[tuple[str | int, ...], Any]] = {
    "minReplica": ((*WORKERS, "minReplica"), 0),
    "'one'": ((*WORKERS, "maxReplicas"), "one"),
    "44 is not of type": ((*WORKERS, "rayStartParams", "num-cpus"), 44),
    "'V2' is not one of": (("rayClusterSpec", "autoscalerOptions", "version"), "V2"),
    "limit": (("rayClusterSpec", "autoscalerOptions", "resources"), {"limit": {"cpu": 1}}),
    "nodeSelectors": ((*POD, "nodeSelectors"), {}),
    "'on-demand', 1": ((*POD, "nodeSelector"), ["on-demand", 1]),
    "True is not of type": ((*POD, "nodeSelector", "spot"), True),
    "volumeMount'": ((*POD, "containers", 0, "volumeMount"), []),
    "3 is not of type": ((*POD, "containers", 0, "image"), 3),
    "sizelimit": ((*POD, "volumes", 0, "emptyDir", "sizelimit"), "200Gi"),
    "'48 GiB' does not match": ((*LIMITS, "memory"), "48 GiB"),
    "'5m' is not of type": ((*POD, "terminationGracePeriodSeconds"), "5m"),
    "'never' is not one of": ((*POD, "restartPolicy"), "never"),
    "ownerReferences": ((*WORKERS, "template", "metadata"), {"ownerReferences": []}),
}


@pytest.mark.parametrize("message", WRONG)
def test_a_misspelt_key_and_a_wrong_type_are_refused(message: str) -> None:
    wrong, ((*way, key), value) = rayjob(), WRONG[message]
    place = wrong["spec"]
    for step in way:
        place = place[step]
    place[key] = value
    with pytest.raises(jsonschema.ValidationError, match=re.escape(message)):
        check_rayjob(wrong)


def test_the_pods_of_the_rayjob_hold_a_run() -> None:
    nodes = [HEAD]
    for group in rayjob()["spec"]["rayClusterSpec"]["workerGroupSpecs"]:
        (container,) = group["template"]["spec"]["containers"]
        limits = container["resources"]["limits"]
        # KubeRay puts the value into a shell command as it is.
        (value,) = shlex.split(group["rayStartParams"]["resources"])
        custom = frozenset(json.loads(value.replace('\\"', '"')))
        nodes += [Node(limits["cpu"], limits["nvidia.com/gpu"], custom)] * group["maxReplicas"]
        assert group["minReplicas"] == 0
    assert wanted().fits(nodes)
