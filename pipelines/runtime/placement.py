"""Connects to the cluster, places the actors of a run on it and shows the placement."""

from collections.abc import Sequence

from rich.table import Column, Table

from actors.connection import connect
from actors.placement import Node, Plan, ResourceConfig, cluster_nodes, placement_rows, plan
from pipelines.runtime.progress import console


def place(resources: ResourceConfig) -> Plan:
    """Connect to Ray and decide what the actors claim; ResourceError where that cannot be placed."""
    connect()
    nodes = cluster_nodes()
    chosen = plan(nodes, resources)
    console.print(placement_table(nodes, chosen))
    return chosen


def placement_table(nodes: Sequence[Node], chosen: Plan) -> Table:
    """A row per role, under the kinds of node that there are."""
    kinds: dict[str, int] = {}
    for node in nodes:
        kinds[str(node)] = kinds.get(str(node), 0) + 1
    shown = ", ".join(f"{count} x {kind}" for kind, count in kinds.items())
    rows = placement_rows(chosen)
    table = Table(
        *(Column(name, overflow="fold") for name in rows[0]),
        title=f"Placement on {shown}",
        title_justify="left",
    )
    for row in rows:
        table.add_row(*row.values())
    return table
