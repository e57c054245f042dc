"""The tables of all fields as one: a step is the same and has a twelfth of the operations.

For recommenders that start with empty tables. Those whose tables are inherited, sliced or saved in
checkpoints have one weight per field (Tables).

Shape suffixes: N rows, F fields, D embedding dim.
"""

from typing import cast

import torch
from torch import Tensor, nn

from diet_ray.training.tables import Tables, check_growth, new_rows


class JoinedTables(Tables):
    """One weight with the rows of all fields, one after the other; row 0 of each is out-of-vocabulary.

    SparseAdam counts its steps per weight: of this one as of each of `Tables`, since every batch has an id of
    every field.
    """

    start_F: Tensor  # where each field's rows begin
    row_F: Tensor  # how many it has

    def __init__(self, fields: int, dim: int) -> None:
        super().__init__(0, dim)
        self.tables.append(nn.Embedding(0, dim, sparse=True))
        self.counts = (0,) * fields
        self.register_buffer("start_F", torch.zeros(fields, dtype=torch.int64), persistent=False)
        self.register_buffer("row_F", torch.zeros(fields, dtype=torch.int64), persistent=False)

    @property
    def rows(self) -> tuple[int, ...]:
        return self.counts

    def by_field(self) -> list[Tensor]:
        return list(self.weights()[0].detach().split(list(self.counts)))

    def put(self, field: int, rows: int, weight: Tensor) -> None:
        raise NotImplementedError("joined tables take no rows of another model")

    def forward(self, id_NF: Tensor) -> Tensor:
        """Return embeddings [N, F, D]; an id beyond its table raises RuntimeError."""
        torch._assert_async((id_NF < self.row_F).all())  # a GPU does not wait for it
        return cast(Tensor, self.tables[0](id_NF + self.start_F))

    def grow(self, rows: tuple[int, ...], optimiser: torch.optim.Optimizer, draw: torch.Generator) -> None:
        """Append rows as `Tables.grow` does, the same for the same `draw`."""
        weight, before = self.weights()[0], self.counts
        check_growth(before, rows)
        added = [
            new_rows(count - old, weight.shape[1], draw) for old, count in zip(before, rows, strict=True)
        ]
        zeros = [torch.zeros_like(part) for part in added]
        for name, moment in optimiser.state[weight].items():
            if torch.is_tensor(moment) and moment.dim():
                optimiser.state[weight][name] = _appended(moment, before, zeros)
        weight.data = _appended(weight.data, before, added)
        self.counts = rows
        count_F = torch.tensor(rows)
        self.row_F.copy_(count_F)
        self.start_F.copy_(count_F.cumsum(0) - count_F)
        cast(nn.Embedding, self.tables[0]).num_embeddings = len(weight)


def _appended(joined: Tensor, counts: tuple[int, ...], added: list[Tensor]) -> Tensor:
    """Rows of every field, each followed by its new ones."""
    fields = zip(joined.split(list(counts)), added, strict=True)
    return torch.cat([part for old, new in fields for part in (old, new.to(joined.device))])
