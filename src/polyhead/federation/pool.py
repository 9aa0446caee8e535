"""All sites' images in one place: the bound that privacy forbids, against which sharing can be held.

The pool is a site like any other, which trains alone. So that the bound is not handicapped, it takes as many optimizer
steps as all sites together: as many images are seen as under every other method.
"""

from collections.abc import Sequence
from dataclasses import replace

from polyhead.federation.site import Plan, Site
from polyhead.training.dataset import pool_splits
from polyhead.training.model import SiteModel

__all__ = ["model_for", "plan_in_pool", "pool_sites"]

# A folder's name has at most 255 bytes.
_LONGEST = 200


def pool_sites(sites: Sequence[Site]) -> Site:
    """Return the site that has all images of others; its name is theirs, joined by ``+``, which no site's name has.

    Parameters
    ----------
    sites
        At least one, with the same findings by canonical name; in any order.
    """
    ordered = sorted(sites, key=lambda site: site.name)
    names = [site.name for site in ordered]
    splits = zip(*((site.train, site.val, site.test) for site in ordered), strict=True)
    train, val, test = (pool_splits(dict(zip(names, parts, strict=True))) for parts in splits)
    joined = "+".join(names)
    name = joined if len(joined) <= _LONGEST else f"{names[0]}+{len(names) - 1} more"
    canonical = ordered[0].canonical
    return Site(name, canonical, canonical, train, val, test)


def plan_in_pool(plan: Plan, sites: int) -> Plan:
    """Return the plan of the pool of so many sites: in each round as many steps as all of them take together."""
    steps = plan.federation.local_steps * sites
    return replace(plan, federation=plan.federation.model_copy(update={"local_steps": steps}))


def model_for(site: Site, trained: SiteModel) -> SiteModel:
    """Return a model, the site's own or the pool's, not copied, with its findings as the site spells them."""
    return SiteModel(trained.backbone, trained.head, site.findings)
