"""Named tensors as bytes: safetensors, no pickle."""

from collections.abc import Mapping

from safetensors.torch import save
from torch import Tensor


def to_safetensors(state: Mapping[str, Tensor]) -> bytes:
    """Serialise tensors of any device and layout.

    safetensors refuses tensors that share memory, such as the weights of a layer used under two names: each
    of them is written in full, and equal values are read back into all of them.
    """
    parts: dict[str, Tensor] = {}
    written: set[int] = set()
    for name, tensor in state.items():
        part = tensor.detach().cpu().contiguous()
        memory = part.untyped_storage().data_ptr()
        parts[name] = part.clone() if memory in written else part
        written.add(memory)
    return save(parts)
