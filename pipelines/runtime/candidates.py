"""Candidates and lists as a command line names them."""

from pathlib import PurePath
from typing import Any

import fsspec
import yaml
from pydantic import ValidationError

from diet_ray.config import CandidateConfig
from diet_ray.errors import ConfigError
from diet_ray.models.registry import check_options
from diet_ray.strict import config_error


def load_candidates(words: list[str]) -> dict[str, CandidateConfig]:
    """Candidates by name: an architecture's name, or that of a YAML file without its ending.

    Raises:
        ConfigError: where a file cannot be read, two candidates have the same name, or there is no such
            architecture.
    """
    candidates: dict[str, CandidateConfig] = {}
    for word in words:
        is_file = word.endswith((".yaml", ".yml"))
        name = PurePath(word).stem if is_file else word
        if name in candidates:
            raise ConfigError(f"two candidates are called {name}; rename a file")
        candidates[name] = load_candidate(word) if is_file else CandidateConfig(name=word)
        # A class of the user's own is imported before Ray starts, so that it goes to the workers.
        check_options(candidates[name].name, candidates[name].options)
    return candidates


def load_candidate(file: str) -> CandidateConfig:
    """A candidate as `diet-ray search` writes it; ConfigError names the file and each wrong key."""
    try:
        with fsspec.open(file, "rb") as opened:
            return CandidateConfig.model_validate(yaml.safe_load(opened.read()) or {})
    except OSError as missing:
        raise ConfigError(f"candidate {file} cannot be read: {missing}") from missing
    except (yaml.YAMLError, UnicodeDecodeError) as broken:
        raise ConfigError(f"candidate {file} is not YAML: {broken}") from broken
    except ValidationError as wrong:
        raise config_error(wrong, f"candidate {file}") from wrong


def listed(text: str, option: str, allowed: tuple[Any, ...] | None = None) -> list[Any]:
    """The words of a comma list, each once; ConfigError names one that is not allowed."""
    words = list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    if not words:
        raise ConfigError(f"--{option} is empty")
    for word in words:
        if allowed and word not in allowed:
            raise ConfigError(f"--{option} contains {word!r}; choose from {', '.join(allowed)}")
    return words
