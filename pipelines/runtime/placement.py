"""Connects to the cluster, places the actors of a run on it and shows the placement."""

from rich.table import Table

from actors.connection import connect
from actors.placement import Plan, ResourceConfig, cluster_nodes, placement_rows, plan
from pipelines.runtime.progress import console


def place(resources: ResourceConfig) -> Plan:
    """Connect to Ray and decide what the actors claim; ResourceError where that cannot be placed."""
    connect()
    nodes = cluster_nodes()
    chosen = plan(nodes, resources)
    kinds: dict[str, int] = {}
    for node in nodes:
        kinds[str(node)] = kinds.get(str(node), 0) + 1
    shown = ", ".join(f"{count} x {kind}" for kind, count in kinds.items())
    rows = placement_rows(chosen)
    table = Table(*rows[0], title=f"Placement on {shown}", title_justify="left")
    for row in rows:
        table.add_row(*row.values())
    console.print(table)
    return chosen
