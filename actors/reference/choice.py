"""The reference of a run: one actor, or a group of Ray Train behind one."""

from collections.abc import Callable
from typing import Any

from actors.placement import Plan
from actors.reference.group import GroupSetting, ReferenceGroup
from actors.reference.model import ReferenceModel
from actors.restart import restartable

START_S = 60.0
CALLS = 8  # at once: orders, answers, and what the workers ask


def reference_actor(
    plan: Plan, data: str, run: str, config: dict[str, Any], options: Callable[[int], dict[str, Any]]
) -> Any:
    """An actor with the interface of ReferenceModel.

    Args:
        plan: of the run.
        data: URL of the log.
        run: URL of the run.
        config: of the run, as plain values.
        options: actor options by the number of a reserved place; the reference has the last one.
    """
    if plan.reference_workers == 1:
        place = options(plan.reserved - 1)
        actor = restartable(ReferenceModel).options(**place)
        return actor.remote(data, run, config, plan.threads, plan.full_every)
    setting = GroupSetting(
        plan.reference_workers, plan.claim, plan.threads, plan.full_every, max(START_S, plan.scale_up)
    )
    group = restartable(ReferenceGroup).options(num_cpus=0, max_concurrency=CALLS)
    return group.remote(data, run, config, setting)
