"""Who averages what, how often: the settings of the rounds, which `polyhead.config` puts into a study."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from polyhead.config_training import Section

__all__ = ["Federation"]


class Federation(Section):
    """Who averages what, how often.

    Attributes
    ----------
    rounds
        How often sites start from the same state, and are averaged.
    local_steps
        Optimizer steps that a site takes in a round.
    weighting
        ``equal``: every site counts the same; ``examples``: in proportion to its training images.
    transfer
        Precision in which what is shared travels, both ways: ``full``; or ``half``: weights rounded to float16, half
        the bytes.
    batch_norm
        ``shared``: BatchNorm is averaged with the rest; ``private``: weights and statistics stay at the site.
    finetune
        What each site trains on alone after the last round: nothing, its ``head``, or the ``full`` network. Every
        method gets it, so that all are compared at equal optimizer steps.
    finetune_steps
        Optimizer steps of that.
    min_sites
        A round counts only if the updates of so many sites are accepted; by default half of the sites that train,
        rounded up. Raise it where a round without some hospital would be misleading.
    round_attempts
        How often a round with fewer sites is tried in all before the run stops.
    aggregation
        ``mean``, weighted; ``median`` of each parameter over the sites, or ``trimmed_mean``: without its extreme
        values. The last two keep one faulty site from moving the backbone, and learn less from a site unlike the rest.
    trim
        ``trimmed_mean`` only: share of the sites left out at each end of every parameter.
    distance_rule
        What happens to an update too far from the current backbone: ``reject`` leaves the site out of the round,
        ``clip`` shortens its step to the limit, ``off`` accepts any finite update.
    distance_factor
        The limit, in medians of the round's distances. With one or two sites there is no limit.
    validate_every
        Every so many rounds each site measures the AUROC on its validation images; 0 is never.
    select
        Which state becomes a site's model: the ``last``, or the ``best`` by the site's own validation AUROC, which is
        worth it where training runs into overfitting. ``best`` needs `validate_every`.
    proximal
        Of ``fedprox``: strength of the pull back to where a round began, its authors' mu.
    server_momentum
        Of ``fedavgm`` and ``fedadam``: how much of its direction the server keeps from round to round.
    server_learning_rate
        Of ``fedavgm``: 1 goes as far as the mean, and by a momentum of 0.9 up to ten times as far.
    server_adam_learning_rate
        Of ``fedadam``: about how far a weight moves in a round.
    server_adam_epsilon
        Of ``fedadam``: the mean move of a round below which a weight moves less, its authors' tau.
    """

    rounds: Annotated[int, Field(ge=1, le=1_000_000)] = 40
    local_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    weighting: Literal["equal", "examples"] = "equal"
    transfer: Literal["full", "half"] = "full"
    batch_norm: Literal["shared", "private"] = "shared"
    finetune: Literal["none", "head", "full"] = "none"
    finetune_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    min_sites: Annotated[int, Field(ge=1)] | None = None
    round_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    aggregation: Literal["mean", "median", "trimmed_mean"] = "mean"
    trim: Annotated[float, Field(ge=0, lt=0.5)] = 0.2
    distance_rule: Literal["reject", "clip", "off"] = "reject"
    distance_factor: Annotated[float, Field(gt=1)] = 10.0
    validate_every: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    select: Literal["last", "best"] = "last"
    proximal: Annotated[float, Field(ge=0, le=1e6)] = 0.01
    server_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    server_learning_rate: Annotated[float, Field(gt=0)] = 0.1
    server_adam_learning_rate: Annotated[float, Field(gt=0)] = 0.003
    server_adam_epsilon: Annotated[float, Field(ge=1e-12, le=1e6)] = 1e-3

    @model_validator(mode="after")
    def _keys_agree(self) -> Self:
        if self.aggregation != "mean" and self.weighting == "examples":
            raise ValueError(
                f"aggregation = {self.aggregation!r} counts every site the same, so it does not go with weighting = "
                "'examples'; set weighting = 'equal', or aggregation = 'mean'"
            )
        if self.select == "best" and self.validate_every == 0:
            raise ValueError(
                "select = 'best' has nothing to choose by while validate_every = 0; set validate_every to a number of "
                "rounds, such as 10, or select = 'last'"
            )
        return self
