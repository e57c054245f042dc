"""The configuration of a distillation: every open choice of the method is a key here."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from diet_ray.errors import ConfigError
from diet_ray.model_config import BUILT_IN, ModelConfig
from diet_ray.stored_config import RENAMED_KEYS, section_of
from diet_ray.strict import Strict

Positive = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]
QuotaRule = Literal["equal", "sqrt", "proportional"]
TargetLabels = Literal["teacher", "real"]


class BoundaryConfig(Strict):
    """Which rows enter the memory (eq. 7) and which older rows stay (eqs. 10-11)."""

    quantile: Annotated[float, Field(ge=0, le=1)] = 0.9
    """EL2N quantile at the centre of the band; the EL2N baseline uses it, too."""
    span: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of a label group that the band spans; 0 is eq. 7."""
    quota: QuotaRule = "proportional"
    """How the budget is split over label groups: by their count to the power 0, 1/2 or 1."""
    new_share: Share = 0.8
    """Share of the memory that comes from the newest block."""
    fusion: bool = True
    """Keep older rows (MF of Table 4); off, the memory starts from the newest block alone."""
    realign: bool = True
    """Map older rows into the newest embedding space; off, they stay as they were."""

    def new_rows(self, budget: int, old_rows: int) -> int:
        """Rows to select from the block, of a memory of `budget` rows; at most `old_rows` can be kept."""
        if not self.fusion:
            return budget
        return max(round(self.new_share * budget), budget - old_rows)


class InnerConfig(Strict):
    """The proxy's training on the memory (eq. 18) and how much of it is differentiated."""

    optimiser: Literal["adam", "sgd"] = "adam"
    """Optimiser of the inner loop."""
    learning_rate: Rate = 1e-3
    """Learning rate of the inner loop."""
    batch_size: Positive = 256
    """Memory rows per inner step."""
    horizon: Positive = 20
    """Longest inner loop, in steps."""
    window: Positive = 5
    """Last steps of the inner loop that are differentiated."""

    @model_validator(mode="after")
    def _window_fits(self) -> "InnerConfig":
        if self.window > self.horizon:
            raise ValueError(f"window {self.window} is longer than horizon {self.horizon}")
        return self


class OuterConfig(Strict):
    """The optimisation of the memory (eqs. 16, 17, 19)."""

    iterations: Annotated[int, Field(ge=0)] = 40
    """Outer iterations per stage; 0 leaves the selected rows as they are."""
    embedding_rate: Rate = 1e-4
    """Outer learning rate of embeddings."""
    logit_rate: Rate = 1e-3
    """Outer learning rate of logits."""
    clip: Rate = 2.0
    """Largest norm of a meta-gradient, relative to its moving average."""
    real_rows: Positive = 8192
    """Real rows drawn from the pool at each addressing."""
    memory_rows: Positive = 32_768
    """Memory rows looked at by each addressing, drawn at random from a larger memory."""
    target_labels: TargetLabels = "teacher"
    """Labels of the targets in eq. 19: the checkpoint's probabilities, or the log's 0 and 1."""
    hard_ratio: Share = 0.1
    """Share of the block's rows that are hard (eq. 16); as many of the real rows become targets."""
    hard_share: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share of the pool that is drawn from the hard rows of the whole block, found by one pass over it at the
    first addressing; 0 draws the pool evenly, without the pass. A block that fits the pool needs none."""
    active_rows: Positive | Literal["auto"] = "auto"
    """Memory rows that an iteration may change (eq. 17); auto: inner horizon x inner batch size."""
    address_every: Positive = 4
    """Iterations between two addressings."""
    target_selection: bool = True
    """Select hard targets (TS of Table 4); off, targets are random."""
    memory_selection: bool = True
    """Select active memory rows (MS of Table 4); off, every row is active."""


class MethodConfig(Strict):
    """One stage of the method."""

    boundary: BoundaryConfig = BoundaryConfig()
    """Which rows enter the memory and which older rows stay."""
    inner: InnerConfig = InnerConfig()
    """The proxy's training on the memory."""
    outer: OuterConfig = OuterConfig()
    """The optimisation of the memory."""


class ReferenceConfig(ModelConfig):
    """The architecture of the reference and the models that learn over the same tables.

    The teacher's logits are the mean over all of them. Training the default four takes seven times as long as
    a DCN alone, and candidates do best on the tables they leave (docs/tried.md).

    Raises:
        pydantic.ValidationError: where an architecture does not exist or has no such option.

    Example:
        >>> from diet_ray import ReferenceConfig
        >>> reference = ReferenceConfig(name="dcnv2", options={"cross_layers": 2}, ensemble=("wukong",))
        >>> [member.name for member in reference.members()]
        ['dcnv2', 'wukong']
    """

    ensemble: tuple[str, ...] = ("dcnv2", "finalmlp", "wukong")
    """Architectures that learn with the reference over the same tables; its own name adds the same model with
    other initial weights."""

    @model_validator(mode="after")
    def _architectures_exist(self) -> "ReferenceConfig":
        for member in self.members():
            if member.options or member.name not in BUILT_IN:
                from diet_ray.models.registry import (
                    check_options,  # PyTorch takes seconds; defaults need none
                )

                check_options(member.name, member.options)
        return self

    def members(self) -> list[ModelConfig]:
        """The models of the reference, its own architecture first."""
        own = ModelConfig(name=self.name, options=self.options, head=self.head)
        others = (own if n == self.name else ModelConfig(name=n, head=self.head) for n in self.ensemble)
        return [own, *others]


class TrainingConfig(Strict):
    """One epoch over real rows: of the reference on each block, of a candidate on the subsequent block.

    Rows are learned in time order, as a deployed model sees them. In a shuffled block later rows of a user
    or session reveal the labels of earlier ones through their embeddings, and the dense model learns to
    trust embeddings more than the next block justifies.
    """

    batch_size: Positive = 1024
    """Rows per step."""
    learning_rate: Rate = 1e-3
    """Learning rate of Adam (dense part) and SparseAdam (tables)."""
    clip_norm: Rate = 10.0
    """Largest joint gradient norm."""
    shuffle_rows: Positive = 1
    """Rows of a shuffle window; 1 keeps time order."""


class FitConfig(Strict):
    """A candidate's training on reduced rows; the best epoch by validation AUC is kept.

    Example:
        >>> from diet_ray import FitConfig
        >>> fit = FitConfig(epochs=4, rehearsal_weight=3.0)
        >>> fit.chosen_weight
        3.0
    """

    epochs: Positive = 8
    """Most epochs over the reduced rows."""
    patience: Positive = 2
    """Epochs without a better validation AUC before training stops."""
    batch_size: Positive = 256
    """Reduced rows per step."""
    learning_rate: Rate = 1e-3
    """Learning rate of a candidate that has none of its own."""
    validation_rows: Positive = 16_384
    """Rows drawn from the validation block to score each epoch."""
    rehearsal: Annotated[float, Field(ge=0)] = 0.5
    """Reduced rows rehearsed per row of the subsequent block; 0 as in the paper."""
    rehearsal_weight: Rate | Literal["auto"] = "auto"
    """Weight of all rehearsed rows together relative to the block's rows; auto: of two weights, the one with
    the higher AUC on the validation block."""

    @property
    def weight_is_open(self) -> bool:
        """Whether rows are rehearsed with a weight that has yet to be chosen."""
        return bool(self.rehearsal) and self.rehearsal_weight == "auto"

    @property
    def chosen_weight(self) -> float:
        """The weight of rehearsed rows; ConfigError while it is "auto"."""
        if self.rehearsal_weight == "auto":
            raise ConfigError("rehearsal_weight is auto: choose it before a cell runs")
        return self.rehearsal_weight


class CandidateConfig(ModelConfig):
    """An architecture and the learning rate of its dense part, on reduced and on real rows alike.

    Example:
        >>> from diet_ray import CandidateConfig, FitConfig
        >>> candidate = CandidateConfig(name="wukong", options={"layers": 2}, learning_rate=5e-4)
        >>> candidate.apply_to(FitConfig()).learning_rate
        0.0005
    """

    learning_rate: Rate | None = None
    """Learning rate of the dense part; without one, those of the fit and of the training apply."""

    def apply_to(self, fit: FitConfig) -> FitConfig:
        """`fit` with the candidate's own learning rate, if it has one."""
        return fit.model_copy(update={"learning_rate": self.learning_rate or fit.learning_rate})


class RunConfig(Strict):
    """Everything a run's memory depends on, besides the log.

    Sections may be given as configs or as plain mappings. A config is frozen; `model_copy(update=...)`
    returns a changed one.

    Raises:
        pydantic.ValidationError: naming the key that is unknown, renamed or out of range.

    Example:
        >>> from diet_ray import RunConfig
        >>> config = RunConfig(ratio=0.02, method={"outer": {"iterations": 10}})
        >>> config.method.outer.iterations, config.method.inner.horizon
        (10, 20)
        >>> RunConfig(ratio=1.5)
        Traceback (most recent call last):
        pydantic_core._pydantic_core.ValidationError: 1 validation error for RunConfig
        ratio
          Input should be less than or equal to 1 ...
    """

    seed: int = 0
    """Seed of every random choice of the run."""
    ratio: Share = 0.015
    """Memory rows per row of history."""
    dim: Positive = 32
    """Dimension of an embedding."""
    pool_rows: Positive = 65_536
    """Real rows of a block from which the distiller draws."""
    reference: ReferenceConfig = ReferenceConfig()
    """The models that learn the log and label the memory."""
    training: TrainingConfig = TrainingConfig()
    """One epoch over real rows."""
    method: MethodConfig = MethodConfig()
    """One stage of the method."""

    @model_validator(mode="before")
    @classmethod
    def _no_renamed_key(cls, value: Any) -> Any:
        for path, new in RENAMED_KEYS.items():
            *parents, old = path.split(".")
            if old in section_of(value, parents):
                raise ValueError(f"{path} is now called {'.'.join([*parents, new])}")
        return value
