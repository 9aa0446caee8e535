"""What a site sends after a round, and what is refused of it.

An update comes from another house. Whatever it holds, it is refused with an `UpdateError` or can be averaged; names
that it brings along are cut short and printed without control characters.
"""

import heapq
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import torch

from polyhead.errors import UpdateError
from polyhead.federation.transfer import Transfer, travelling_type
from polyhead.printable import printable

__all__ = [
    "HEAD",
    "MOST_EXAMPLES",
    "SiteUpdate",
    "check_finite",
    "check_update",
    "counted_rows",
    "is_finite",
    "reason_of",
    "refused",
    "shown",
]

HEAD = "head."
"""What the names of a head's entries begin with; the first axis of each is that of the findings."""

MOST_EXAMPLES = 10**9
"""The largest number of training images that is believed."""

_MOST_COUNTED = 2**53  # The integers up to here have a float64 each, in which they are averaged.
_MOST_STEPS = 2**20  # More than any round has.
_LONGEST = 80
_NAMED = 3


@dataclass(frozen=True)
class SiteUpdate:
    """What a site sends after a round; this and nothing else.

    Attributes
    ----------
    site, round
        Whose update of which round (from 0).
    examples
        Number of the site's training images; 1 in a study with noise.
    loss
        Mean training loss of the round; None in a study with noise.
    state
        The shared entries of the site's model after local training, in the precision in which they travel.
    rows
        Which rows of the head count, in the order of its findings: those of findings that training images of the site
        are annotated for. None where a head is averaged as a whole, or stays at the site.
    """

    site: str
    round: int
    examples: int
    loss: float | None
    state: dict[str, torch.Tensor]
    rows: tuple[bool, ...] | None = None


def check_update(
    update: SiteUpdate,
    current: Mapping[str, torch.Tensor],
    expected_round: int | None = None,
    transfer: Transfer = "full",
    by_row: bool = False,
) -> None:
    """Refuse an update that cannot be averaged; whether its values are finite is asked elsewhere.

    `check_finite` asks that, and `polyhead.federation.outliers.finite_distance`, which goes through them anyway.

    Parameters
    ----------
    current
        The shared entries that the sites started from: the names, shapes and types an update must have.
    expected_round
        The round under way; None if any will do.
    transfer
        How entries like `current` travel: an update must have those types; ``full`` if `current` has travelled itself.
    by_row
        Whether the head is averaged row by row: then, and only then, an update must say which of its rows count.

    Raises
    ------
    UpdateError
        Naming the site and what is wrong: another round; a number of examples that is no integer from 1 to 10**9; a
        loss that is neither a finite number nor None; no choice of rows where there must be one, or one where there
        must be none; entries that are missing, not shared, or of other shapes or types; tensors that are not dense,
        plain and on the CPU; variances below 0; integers below 0, or more than 2**20 above the largest that the sites
        started from: counters count steps.
    """
    _check_about(update, expected_round)
    _check_rows(update, current, by_row)
    _check_names(update, current)
    for name in sorted(current):
        try:
            fault = _tensor_fault(name, update.state[name], current[name], transfer)
        except RuntimeError:  # A tensor of some other world within PyTorch.
            fault = "cannot be computed with. Send what state_dict() gives."
        if fault:
            raise refused(update, f"{shown(name)} {fault}")


def counted_rows(update: SiteUpdate, current: Mapping[str, torch.Tensor]) -> SiteUpdate:
    """Return a checked update as if the rows of the head that do not count had not moved from `current`.

    So whatever a site sends in them is never looked at: it makes no distance, and need not be finite.
    """
    if update.rows is None:
        return update
    counted = torch.tensor(update.rows)
    heads = {name: tensor for name, tensor in update.state.items() if name.startswith(HEAD)}
    seen = {
        name: torch.where(counted.view(-1, *[1] * (tensor.dim() - 1)), tensor, current[name])
        for name, tensor in heads.items()
    }
    return replace(update, state={**update.state, **seen})


def check_finite(update: SiteUpdate) -> None:
    """Refuse an update, else checked, with a value that is not finite.

    Raises
    ------
    UpdateError
        Naming the site and the entry.
    """
    for name, tensor in sorted(update.state.items()):
        # A sum that overflows is rare, and tells nothing.
        if tensor.is_floating_point() and not math.isfinite(_sum(tensor)) and not tensor.isfinite().all():
            raise refused(update, f"{shown(name)} holds a value that is not finite. Lower the learning rate.")


def is_finite(value: object) -> bool:
    """Tell whether a stranger's value is a finite number."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # An integer beyond every float.
        return False


def refused(update: SiteUpdate, reason: str) -> UpdateError:
    """Return the error that refuses an update; its text begins with the site and the round."""
    return UpdateError(_where(update) + reason)


def reason_of(update: SiteUpdate, error: UpdateError) -> str:
    """Return what an error of `refused` says beside the site and the round."""
    return str(error).removeprefix(_where(update))


def shown(value: object) -> str:
    """Return a stranger's value as a short text in one line, free of control characters."""
    if isinstance(value, str):
        # The line break is the only one that printable() leaves.
        text = printable(value[: _LONGEST + 1]).replace("\n", "\\n")
    elif isinstance(value, float):
        text = str(float(value))
    elif isinstance(value, int):
        text = str(value) if value.bit_length() <= 64 else f"an integer of {value.bit_length()} bits"
    else:
        text = f"a {printable(type(value).__name__[:_LONGEST])}"
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _where(update: SiteUpdate) -> str:
    return f"site {shown(update.site)}, round {shown(update.round)}: "


def _check_about(update: SiteUpdate, expected_round: int | None) -> None:
    if not isinstance(update.site, str) or not update.site:
        raise refused(update, "the name of the site is not a text. Send the name that the study gives it.")
    if not _is_integer(update.round) or update.round < 0 or expected_round not in (None, update.round):
        wanted = "a number from 0" if expected_round is None else f"round {expected_round}"
        raise refused(update, f"the update is not of {wanted}. Send the update of the round under way.")
    if not _is_integer(update.examples) or not 1 <= update.examples <= MOST_EXAMPLES:
        raise refused(
            update,
            f"{shown(update.examples)} examples. Send the number of training images, an integer from 1 to "
            f"{MOST_EXAMPLES:,}.",
        )
    if update.loss is not None and not is_finite(update.loss):
        raise refused(update, f"the loss is {shown(update.loss)}. Lower the learning rate, or check the images.")


def _check_rows(update: SiteUpdate, current: Mapping[str, torch.Tensor], by_row: bool) -> None:
    rows = update.rows
    if not by_row:
        if rows is not None:
            raise refused(update, "it says which rows of the head count. Site and server must run the same study.")
        return
    due = next((len(tensor) for name, tensor in current.items() if name.startswith(HEAD)), 0)
    if type(rows) is not tuple or len(rows) != due or not all(type(one) is bool for one in rows):
        found = f"{len(rows)} values" if type(rows) is tuple else shown(rows)
        found = "nothing" if rows is None else found
        raise refused(
            update,
            f"which rows of the head count: found {found}. Send {due} times true or false, one for each finding of the "
            "head.",
        )


def _check_names(update: SiteUpdate, current: Mapping[str, torch.Tensor]) -> None:
    if not isinstance(update.state, dict) or not all(isinstance(name, str) for name in update.state):
        raise refused(update, "the entries are not a table of tensors by name. Send the shared entries of the model.")
    surplus = update.state.keys() - current.keys()
    missing = current.keys() - update.state.keys()
    faults = []
    if surplus:
        head = " The head stays at its site." if any(name.startswith(HEAD) for name in surplus) else ""
        faults.append(f"{_listed(surplus)} {_are(surplus)} not shared and must not leave the site.{head}")
    if missing:
        faults.append(f"{_listed(missing)} {_are(missing)} missing. Site and server must run the same study.")
    if faults:
        raise refused(update, " ".join(faults))


def _tensor_fault(name: str, tensor: object, wanted: torch.Tensor, transfer: Transfer) -> str | None:
    # A parameter, or a tensor that leads a life of its own on another device, is not what state_dict() gives.
    if type(tensor) is not torch.Tensor:
        return f"is {shown(tensor)}, not a plain tensor."
    if tensor.is_nested or tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        return f"is not a dense tensor on the CPU ({tensor.layout}, {tensor.device}). Send what state_dict() gives."
    if tensor.requires_grad or tensor.is_neg() or tensor.is_conj():
        return "is bound to a computation. Send what state_dict() gives."
    dtype = travelling_type(wanted, transfer)
    if tensor.shape != wanted.shape or tensor.dtype != dtype:
        found, due = _kind(tensor, tensor.dtype), _kind(wanted, dtype)
        return f"is {found} instead of {due}. Site and server must run the same study."
    if not _is_backed(tensor):
        return "has no values. Send what state_dict() gives."
    if name.endswith("running_var") and tensor.numel() and tensor.min() < 0:
        # Training does not look at it, and evaluation takes its root: NaN at every site.
        return "holds a variance below 0. BatchNorm's running_var never is."
    return _integer_fault(tensor, wanted)


def _is_backed(tensor: torch.Tensor) -> bool:
    """Tell whether a tensor's memory is as large as its shape says; one that was shrunk raises errors much later."""
    if not tensor.numel():
        return True
    last = tensor.storage_offset() + sum(
        (size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)
    )
    return tensor.untyped_storage().nbytes() >= (last + 1) * tensor.itemsize


def _integer_fault(tensor: torch.Tensor, wanted: torch.Tensor) -> str | None:
    if tensor.is_floating_point() or tensor.dtype == torch.bool or not tensor.numel():
        return None
    low, high = (int(one) for one in torch.aminmax(tensor))
    # Without a limit close by, one liar's count would put the mean where no honest site's next count is allowed.
    most = min(int(wanted.max()) + _MOST_STEPS, _MOST_COUNTED)
    return f"counts from {low} to {high}; allowed is from 0 to {most}." if low < 0 or high > most else None


def _sum(tensor: torch.Tensor) -> float:
    # A sum is finite only if every summand is, and is several times cheaper than asking each. In half precision, where
    # an honest sum may overflow, it is taken in float32.
    return tensor.sum(dtype=torch.promote_types(tensor.dtype, torch.float32)).item()


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _kind(tensor: torch.Tensor, dtype: torch.dtype) -> str:
    if tensor.dim() > 8:
        return f"{dtype} of {tensor.dim()} dimensions"
    return f"{dtype} {tuple(tensor.shape)}"


def _listed(names: Collection[str]) -> str:
    first = ", ".join(shown(name) for name in heapq.nsmallest(_NAMED, names))
    return first if len(names) <= _NAMED else f"{first} and {len(names) - _NAMED:,} more"


def _are(names: Collection[str]) -> str:
    return "is" if len(names) == 1 else "are"
