"""The reference of a run: one actor, or a group of Ray Train behind one."""

from typing import Any

import ray

from actors.placement import Plan
from actors.reference.group import END_S, GroupSetting, ReferenceGroup
from actors.reference.model import ReferenceModel
from actors.reservation import Reservation
from actors.restart import restartable

CALLS = 8  # at once: orders, answers, and what the workers ask


def reference_actor(plan: Plan, data: str, run: str, config: dict[str, Any], reserved: Reservation) -> Any:
    """An actor with the interface of ReferenceModel.

    Args:
        plan: of the run.
        data: URL of the log.
        run: URL of the run.
        config: of the run, as plain values.
        reserved: of the run; one reference has its last place.
    """
    if plan.reference_workers == 1:
        place = reserved.options(plan.reserved - 1)
        actor = restartable(ReferenceModel).options(**place)
        return actor.remote(data, run, config, plan.threads, plan.full_every)
    setting = GroupSetting(
        plan.reference_workers,
        plan.bundles()[-1],
        plan.threads,
        plan.full_every,
        start_s=max(plan.patience, plan.scale_up),
    )
    group = restartable(ReferenceGroup).options(num_cpus=0, max_concurrency=CALLS)
    return group.remote(data, run, config, setting, reserved.workers)


def end_reference(reference: Any, plan: Plan) -> None:
    """Let the workers of a group give back what they claimed; one actor goes with its reservation."""
    if plan.reference_workers > 1:
        ray.wait([reference.end.remote()], timeout=2 * END_S)
