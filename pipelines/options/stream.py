"""The options of `diet-ray stream`."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from diet_ray.log.stream.config import KafkaConfig, StreamConfig
from pipelines.runtime.command import option
from pipelines.runtime.recipe import Recipe, load_recipe

ITERATIONS = 4  # outer, per micro-block, where no recipe sets them


@dataclass(frozen=True)
class Stream:
    """Distill a log as it arrives, for as long as it does; rerun to resume.

    $ diet-ray stream --dataset clicks.yaml --source incoming/ --run runs/live

    $ diet-ray stream --dataset clicks.yaml --source incoming/ --run runs/live --stream.block-rows 10000

    $ diet-ray stream --dataset clicks.yaml --source incoming/ --run runs/live --until-idle 60

    $ diet-ray stream --dataset clicks.yaml --source kafka://broker:9092/clicks --run runs/live

    Writers publish files into SOURCE by rename; a topic needs `pip install 'diet-ray[kafka]'`. The newest
    memory is named by RUN/memory/latest.json, which `diet_ray.load_memory(run)` reads at any time;
    `diet-ray status RUN` shows the state of the stream.
    """

    dataset: str
    """YAML file of the log's schema; it needs no blocks. `event_id`: column used to deduplicate events."""
    source: str
    """Directory that grows (files are taken in the order of their names as they appear), or
    kafka://host:port[,host:port]/topic, read from its oldest message."""
    run: str
    """Directory of the run; new, or one to resume."""
    config: str | None = None
    """A recipe or a YAML file; options below override it."""
    until_idle: float | None = None
    """Seconds without anything new after which the stream closes a last block and ends; never if left out."""
    poll: float = 1.0
    """Seconds between two polls of the source."""
    skip_block: bool = False
    """Quarantine the rows of the next block (RUN/quarantine) and continue with the one after it."""
    json_log: bool = False
    """Print a line of JSON per stage on standard output."""
    kafka: KafkaConfig = KafkaConfig()
    """How messages of a topic are read."""
    stream: StreamConfig = StreamConfig()
    """When a block closes, which rows it accepts, what is kept."""
    settings: Annotated[Recipe, tyro.conf.arg(name="")] = Recipe()

    @classmethod
    def defaults(cls) -> "Stream":
        """The defaults of the options: those of the recipe that --config names."""
        config = option("--config")
        recipe = load_recipe(config) if config else Recipe()
        return cls(tyro.MISSING, tyro.MISSING, tyro.MISSING, settings=for_small_blocks(recipe))

    def __call__(self) -> None:
        from pipelines.stream import execute

        execute(self)


def for_small_blocks(recipe: Recipe) -> Recipe:
    """The recipe with few outer iterations per stage, unless it sets them.

    They cost the same whatever the rows of a block: what a large block takes at once, small ones share.
    """
    if "iterations" in recipe.method.outer.model_fields_set:
        return recipe
    outer = recipe.method.outer.model_copy(update={"iterations": ITERATIONS})
    return recipe.model_copy(update={"method": recipe.method.model_copy(update={"outer": outer})})
