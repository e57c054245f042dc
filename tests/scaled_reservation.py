"""Reserves what a run with `--config cluster` claims; run as a process of its own on a cluster.

    $ RAY_ADDRESS=host:port python -m tests.scaled_reservation SCORERS

Prints as JSON how many times it said that it waits, and the kinds of the node of each actor.
"""

import json
import sys
from typing import Any

import ray

from actors.connection import connect
from actors.placement import cluster_nodes, plan
from actors.reservation import Reservation
from pipelines.runtime.recipe import load_recipe


@ray.remote
class Placed:
    def node(self) -> str:
        return str(ray.get_runtime_context().get_node_id())


def main(scorers: int) -> None:
    connect()
    resources = load_recipe("cluster").resources.model_copy(update={"scorers": scorers, "scale_up": 150})
    chosen = plan(cluster_nodes(), resources)
    said: list[str] = []
    reservation = Reservation(chosen, said.append)
    actors: list[Any] = [Placed.options(**reservation.options(n)).remote() for n in range(chosen.reserved)]
    kinds = {
        node["NodeID"]: [name for name in ("on_demand", "spot") if name in node["Resources"]]
        for node in ray.nodes()
    }
    print(json.dumps({"said": len(said), "kinds": [kinds[ray.get(actor.node.remote())] for actor in actors]}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
