"""What stands in the table of a comparison: arms that train, what is made of `standard` afterwards, and
rows that no model needs."""

from dataclasses import dataclass

STANDARD, POST_HOC = "standard", "post-hoc"


@dataclass(frozen=True)
class Arm:
    """One row of the table.

    prior: the decoder's arm; "" for what is not trained. log_prior: which popularity stands beside the
    dot product: "A", from the events that the arms train on; "B", from the other half; "permuted", A's on
    randomly relabelled items. bias_start: of a learned bias, as in TrainConfig.
    """

    name: str
    trained_on: str
    served_as: str
    prior: str = ""
    log_prior: str = "A"
    bias_start: str = "zero"


def _named(*arms: Arm) -> dict[str, Arm]:
    return {arm.name: arm for arm in arms}


ARMS = _named(
    Arm(STANDARD, "s", "s", "none"),
    Arm("frozen", "s + tau log p", "s + beta log p", "frozen"),
    Arm("learned", "s + a, a learned from 0", "s + beta a", "learned"),
    Arm("learned-from-log-p", "s + a, a learned from log p", "s + beta a", "learned",
        bias_start="log-prior"),
    Arm("permuted", "s + tau log p of shuffled items", "s + beta log p of shuffled items", "permuted",
        "permuted"),
    Arm("disjoint", "s + tau log p from the other half", "s + beta log p from the other half", "frozen",
        "B"),
)
# Made of the trained standard model, without training.
AFTERWARDS = _named(
    Arm(POST_HOC, "not trained: standard minus log p", "s + (beta - 1) log p"),
    Arm("post-hoc-fitted", "not trained: standard minus its mean slope times log p",
        "s + (beta - slope) log p"),
    Arm("projected", "not trained: standard, its item table without the direction of log p",
        "s without log p + beta log p"),
)
# What any recommender has to beat.
REFERENCES = _named(
    Arm("popularity", "counts of half A", "log p"),
    Arm("recency", "counts of all events before the case, decaying with age", "log of them"),
    Arm("markov", "how often an item came right after the last one, in all that is known", "counts"),
    Arm("item-mean", "mean rating of the item", "ratings"),
)
ALL = ARMS | AFTERWARDS | REFERENCES
EQUAL, BEST = "equal", "best"  # readings of a trained arm: at one epoch for all, at its own best one
