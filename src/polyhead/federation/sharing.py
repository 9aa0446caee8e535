"""What leaves a site.

The choice is made by module: the backbone, its BatchNorm layers and the head are objects, and the names of the shared
entries follow from them.
"""

from dataclasses import dataclass

from polyhead.errors import StudyError
from polyhead.training.model import SiteModel, batch_norm_names

__all__ = ["NOTHING", "Sharing", "shared_names"]


@dataclass(frozen=True)
class Sharing:
    """Which parts of a site's model are averaged.

    Attributes
    ----------
    backbone
        Everything of the backbone but BatchNorm.
    batch_norm
        The backbone's BatchNorm layers, statistics included; without them it is FedBN (Li et al., ICLR 2021).
    head
        The head, which is possible only if its findings are the same at all sites.
    fixed_head
        A private head is not trained in the rounds, and its row for a finding is the same at all sites: what the
        backbones that are averaged were trained for is then one and the same.
    rows
        Of a shared head each row is averaged on its own, over the sites that annotate its finding.
    """

    backbone: bool
    batch_norm: bool
    head: bool
    fixed_head: bool = False
    rows: bool = False


NOTHING = Sharing(backbone=False, batch_norm=False, head=False)


def shared_names(model: SiteModel, sharing: Sharing) -> frozenset[str]:
    """Return the names of the entries of a model's state that leave the site.

    Raises
    ------
    StudyError
        If the choice comes to nothing although something was to be shared, or to everything although the head was
        to stay private. Training would run and the result would carry a wrong name.
    """
    backbone = frozenset(model.backbone.state_dict())
    batch_norm = batch_norm_names(model.backbone)
    chosen = (backbone - batch_norm if sharing.backbone else frozenset()) | (
        batch_norm if sharing.batch_norm else frozenset()
    )
    names = {f"backbone.{name}" for name in chosen}
    if sharing.head:
        names |= {f"head.{name}" for name in model.head.state_dict()}
    if sharing != NOTHING and not names:
        raise StudyError(f"nothing would leave a site under {sharing}. Choose a backbone with shareable layers.")
    if not sharing.head and names == set(model.state_dict()):
        raise StudyError(f"everything would leave a site under {sharing}, the private head too.")
    return frozenset(names)
