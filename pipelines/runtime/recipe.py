"""The settings of `diet-ray distill`: a recipe of the package, or a YAML file of the user."""

from importlib.resources import files
from pathlib import Path

from pydantic import ValidationError

from actors.placement import ResourceConfig
from diet_ray.config import RunConfig
from diet_ray.errors import ConfigError
from diet_ray.stored_config import OF_LOG, upgrade_config
from diet_ray.strict import config_error, read_yaml

FOLDER = files("pipelines") / "recipes"
RECIPES = sorted(file.name.removesuffix(".yaml") for file in FOLDER.iterdir() if file.name.endswith(".yaml"))


class Recipe(RunConfig):
    """The config of a run, and the resources of its actors, on which the memory does not depend."""

    resources: ResourceConfig = ResourceConfig()

    def run_config(self) -> RunConfig:
        return RunConfig.model_validate(self.model_dump(exclude={"resources"}))


def load_recipe(name_or_file: str) -> Recipe:
    """A recipe by its name or file, or the config.yaml of a run; ConfigError names a key that is wrong."""
    path = FOLDER / f"{name_or_file}.yaml" if name_or_file in RECIPES else Path(name_or_file)
    if not path.is_file():
        raise ConfigError(
            f"no config {name_or_file!r}: use one of {', '.join(RECIPES)}, or a YAML file that exists"
        )
    content = read_yaml(path, f"config {name_or_file}") or {}
    if isinstance(content, dict) and "fingerprint" in content:  # config.yaml of a run
        content = {key: value for key, value in upgrade_config(content).items() if key not in OF_LOG}
    try:
        return Recipe.model_validate(content)
    except ValidationError as wrong:
        raise config_error(wrong, f"config {name_or_file}") from wrong
