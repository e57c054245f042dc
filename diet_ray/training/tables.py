"""Embedding tables, one per field, that grow as ids appear.

Shape suffixes: N rows, F fields, D embedding dim.
"""

from typing import cast

import torch
from torch import Tensor, nn

from diet_ray.errors import DataError

INITIAL_DEVIATION = 1e-4  # of embeddings, as in FuxiCTR


class Tables(nn.Module):
    """One embedding table per field; row 0 is out-of-vocabulary.

    Attributes:
        first, stride: the ids whose rows are held here are first, first + stride, ...: all of them, except in
            one of several processes (training.parallel).
    """

    first, stride = 0, 1

    def __init__(self, fields: int, dim: int) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(0, dim, sparse=True) for _ in range(fields))

    @property
    def rows(self) -> tuple[int, ...]:
        """Rows of each table."""
        return tuple(weight.shape[0] for weight in self.weights())

    def weights(self) -> list[nn.Parameter]:
        return list(self.parameters())

    def by_field(self) -> list[Tensor]:
        """The rows that are held here, per field."""
        return [weight.detach() for weight in self.weights()]

    def put(self, field: int, rows: int, weight: Tensor) -> None:
        """Replace a table by one of `rows` rows; `weight` has those that are held here."""
        self.weights()[field].data = weight

    def forward(self, id_NF: Tensor) -> Tensor:
        """Return embeddings [N, F, D]; an id beyond its table raises torch's IndexError."""
        embeddings = [table(id_N) for table, id_N in zip(self.tables, id_NF.unbind(1), strict=True)]
        return torch.stack(embeddings, 1)

    def grow(self, rows: tuple[int, ...], optimiser: torch.optim.Optimizer, draw: torch.Generator) -> None:
        """Append rows N(0, 1e-4) until table f has `rows[f]`; old rows and their moments are unchanged.

        Args:
            rows: wanted number of rows per field.
            optimiser: the optimiser of the tables; its moments grow with them, by zeros.
            draw: CPU generator of the new rows.

        Raises:
            DataError: where a table would shrink.
        """
        check_growth(self.rows, rows)
        for field, (weight, count) in enumerate(zip(self.weights(), rows, strict=True)):
            before = self.rows[field]
            # Drawn whole, so that a row is the same however many processes share the table.
            drawn = new_rows(count - before, weight.shape[1], draw)
            held = drawn[(self.first - before) % self.stride :: self.stride]
            weight.data = torch.cat([weight.data, held.to(weight.device)])
            for name, moment in optimiser.state[weight].items():
                if torch.is_tensor(moment) and moment.dim():
                    zeros = moment.new_zeros(held.shape)
                    optimiser.state[weight][name] = torch.cat([moment, zeros])
            cast(nn.Embedding, self.tables[field]).num_embeddings = len(weight)


def check_growth(before: tuple[int, ...], rows: tuple[int, ...]) -> None:
    """DataError where a table would shrink."""
    for field, (old, new) in enumerate(zip(before, rows, strict=True)):
        if new < old:
            raise DataError(f"table {field} has {old} rows, cannot shrink to {new}")


def new_rows(count: int, dim: int, draw: torch.Generator) -> Tensor:
    """Embeddings [count, D] of ids that were not seen before, N(0, 1e-4)."""
    return torch.randn(count, dim, generator=draw) * INITIAL_DEVIATION
