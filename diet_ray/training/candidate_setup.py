"""A candidate before it learns: initial weights, empty tables, validation rows."""

from diet_ray.config import CandidateConfig, TrainingConfig
from diet_ray.log.dataset import EncodedLog, PreparedLog
from diet_ray.models.base import RankingModel
from diet_ray.models.examples import Examples
from diet_ray.models.registry import build_model
from diet_ray.seeding import derived_seed, numpy_generator
from diet_ray.training.embedding import Embedder, embed_rows, sample_rows
from diet_ray.training.learning import new_recommender
from diet_ray.training.recommender import Recommender


def new_candidate(
    candidate: CandidateConfig, seed: int, *, fields: int, dim: int, tasks: int
) -> RankingModel:
    """A candidate with the initial weights of `seed`; ConfigError where it cannot be built."""
    own_seed = derived_seed(seed, "candidate", candidate.name)
    return build_model(candidate, fields=fields, dim=dim, tasks=tasks, seed=own_seed)


def candidate_recommender(
    candidate: CandidateConfig,
    seed: int,
    log: EncodedLog,
    dim: int,
    training: TrainingConfig,
    *,
    joined: bool = False,
) -> Recommender:
    """A candidate with empty tables, as every cell starts; `joined` as for `new_recommender`."""
    model = new_candidate(candidate, seed, fields=len(log.fields), dim=dim, tasks=len(log.tasks))
    return new_recommender(model, log, dim, training, candidate.learning_rate, joined=joined)


def validation_rows(recommender: Embedder, log: PreparedLog, rows: int) -> Examples:
    """A sample of the validation block in the recommender's space, the same rows for every candidate."""
    sample = sample_rows(log, log.blocks["validation"], rows, numpy_generator(0, "validation"))
    return embed_rows(recommender, sample)
