"""What a distillation may be told; every open choice of the method is a key here."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from diet_ray.distillation.boundary import QuotaRule
from diet_ray.distillation.unroll import Adam, InnerOptimiser, Sgd
from diet_ray.models.registry import ModelConfig, check_options
from diet_ray.strict import Strict

Positive = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]
TargetLabels = Literal["teacher", "real"]


class BoundaryConfig(Strict):
    """Which rows enter the memory (eq. 7) and what older rows stay (eqs. 10-11)."""

    percentile: Annotated[float, Field(ge=0, le=1)] = 0.9  # where a narrower band, and EL2N rows, lie
    width: Annotated[float, Field(ge=0, le=1)] = 1.0  # share of a label group that the band spans; 0: eq. 7
    quota: QuotaRule = "proportional"
    new_share: Share = 0.8
    fusion: bool = True  # MF of Table 4: off, the memory starts from the newest block alone
    carry: bool = True  # old rows are moved into the newest embedding space; off: they stay as they were

    def new_rows(self, budget: int, held: int) -> int:
        """Rows to select from the block, of a memory of `budget` rows of which at most `held` can be kept."""
        if not self.fusion:
            return budget
        return max(round(self.new_share * budget), budget - held)


class InnerConfig(Strict):
    """The proxy's training on the memory (eq. 18) and how much of it is differentiated."""

    optimiser: Literal["adam", "sgd"] = "adam"
    learning_rate: Rate = 1e-3
    batch_size: Positive = 256
    horizon: Positive = 20
    window: Positive = 5

    @model_validator(mode="after")
    def _window_fits(self) -> "InnerConfig":
        if self.window > self.horizon:
            raise ValueError(f"window {self.window} is longer than horizon {self.horizon}")
        return self

    def build(self) -> InnerOptimiser:
        return Adam(self.learning_rate) if self.optimiser == "adam" else Sgd(self.learning_rate)


class OuterConfig(Strict):
    """The optimisation of the memory (eqs. 16, 17, 19)."""

    iterations: Annotated[int, Field(ge=0)] = 40
    embedding_rate: Rate = 1e-4
    logit_rate: Rate = 1e-3
    clip: Rate = 2.0
    real_rows: Positive = 8192  # drawn from the pool at each addressing
    memory_rows: Positive = 32_768  # drawn from a larger memory at each addressing
    target_labels: TargetLabels = "teacher"  # probabilities of checkpoint t, or the log's 0 and 1 (eq. 19)
    hard_ratio: Share = 0.1
    active_rows: Positive | None = None  # None: horizon x inner batch
    address_every: Positive = 4  # iterations between two addressings
    target_selection: bool = True  # TS of Table 4: off, targets are drawn at random
    memory_selection: bool = True  # MS of Table 4: off, every memory row is active


class MethodConfig(Strict):
    """One stage of the method."""

    boundary: BoundaryConfig = BoundaryConfig()
    inner: InnerConfig = InnerConfig()
    outer: OuterConfig = OuterConfig()


class ReferenceConfig(ModelConfig):
    """The architecture of the reference, and what learns beside it over the same tables.

    beside: names of architectures; one that is the reference's own is the same model from other initial
        weights. The teacher's answer is the mean of all of them. Training the four of the default takes seven
        times a DCN alone, and leaves tables that candidates do best on (docs/tried.md).
    """

    beside: tuple[str, ...] = ("dcnv2", "finalmlp", "wukong")

    @model_validator(mode="after")
    def _architectures_exist(self) -> "ReferenceConfig":
        for member in self.members():
            check_options(member.name, member.options)
        return self

    def members(self) -> list[ModelConfig]:
        own = ModelConfig(name=self.name, options=self.options, head=self.head)
        others = (own if n == self.name else ModelConfig(name=n, head=self.head) for n in self.beside)
        return [own, *others]


class TrainingConfig(Strict):
    """One epoch over real rows: of the reference on each block, of a candidate on the subsequent block.

    Rows are learned in the order of time, as a deployed model sees them. In a shuffled block later rows of a
    user or session betray the labels of earlier ones through their embeddings, and the dense model learns
    to trust embeddings more than the next block will bear out.
    """

    batch_size: Positive = 1024
    learning_rate: Rate = 1e-3
    clip_norm: Rate = 10.0
    shuffle_rows: Positive = 1  # window of a shuffle; 1: none


class FitConfig(Strict):
    """A candidate's training on reduced data; the best epoch by validation AUC is kept."""

    epochs: Positive = 8
    patience: Positive = 2  # epochs without a better validation AUC before it stops
    batch_size: Positive = 256
    learning_rate: Rate = 1e-3
    validation_rows: Positive = 16_384  # drawn from the validation block
    rehearsal: Annotated[float, Field(ge=0)] = 0.5  # reduced rows beside each row of the subsequent block
    # Of all of them together, where the rows of the block weigh 1; None: what two candidates do best with
    # on the validation block (rehearsing.py).
    rehearsal_weight: Rate | None = None

    @property
    def weight_is_open(self) -> bool:
        """Whether rows are rehearsed at a weight that is still to be found."""
        return bool(self.rehearsal) and self.rehearsal_weight is None


class CandidateConfig(ModelConfig):
    """An architecture and how fast its dense part learns, from reduced data and from real rows alike."""

    learning_rate: Rate | None = None  # None: what the fit and the training say

    def fitted_by(self, fit: FitConfig) -> FitConfig:
        """`fit` with the candidate's own learning rate."""
        return fit.model_copy(update={"learning_rate": self.learning_rate or fit.learning_rate})


class RunConfig(Strict):
    """Everything a run's memory depends on, besides the log."""

    seed: int = 0
    ratio: Share = 0.015  # rows of memory per row of history
    width: Positive = 32  # of embeddings
    pool_rows: Positive = 65_536  # real rows of a block that the distiller draws from
    reference: ReferenceConfig = ReferenceConfig()
    training: TrainingConfig = TrainingConfig()
    method: MethodConfig = MethodConfig()
