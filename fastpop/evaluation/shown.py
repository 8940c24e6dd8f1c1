"""Metrics of what is shown: the lists of all cases, and the slots that each item got."""

import math
from typing import Any

from fastpop.evaluation import popularity_bias
from fastpop.evaluation.metric import Known, Metric


class Popularity(Metric):
    name = "arp"
    label = "ARP"
    definition = "Average recommendation popularity: mean training count of the items shown."
    formula = "mean training count of the items of a list, mean over cases"
    source = "Yin et al., PVLDB 5(9), 2012"
    direction = "smaller"
    bounds = (0.0, math.inf)
    needs = ("counts",)
    section = "shown"

    def value(self, known: Known, k: int) -> Any:
        return popularity_bias.average_popularity(known.lists(k), known.counts_V)


class LongTail(Metric):
    name = "aplt"
    label = "APLT"
    definition = "Average percentage of long-tail items in a list (tail as for tail recall)."
    formula = "share of a list's items that are tail, mean over cases"
    source = "Abdollahpouri et al., FLAIRS 2019"
    needs = ("counts",)
    section = "shown"

    def value(self, known: Known, k: int) -> Any:
        return popularity_bias.long_tail_share(known.lists(k), known.counts_V)


class Novelty(Metric):
    name = "novelty"
    label = "Novelty"
    definition = "Mean -log2 p of the items shown, bits."
    formula = "mean −log2 of (count + 1)/(Σ counts + V), bits"
    source = "Zhou et al., PNAS 107(10), 2010"
    bounds = (0.0, math.inf)
    needs = ("counts",)
    section = "shown"

    def value(self, known: Known, k: int) -> Any:
        return popularity_bias.novelty(known.lists(k), known.counts_V)


class Coverage(Metric):
    name = "coverage"
    label = "Coverage"
    definition = "Share of the catalogue that is in at least one list of k."
    formula = "share of the catalogue in at least one list"
    source = "Adomavicius & Kwon, IEEE TKDE 24(5), 2012"
    per_case = False
    section = "shown"

    def value(self, known: Known, k: int) -> Any:
        return popularity_bias.coverage(known.exposure[k])


class Gini(Metric):
    name = "gini"
    label = "Gini"
    definition = (
        "Inequality of exposure over the catalogue: 0 all items shown equally often, near 1 all "
        "slots to few items."
    )
    formula = "Σ_i (2i − V − 1) x_(i) / (V Σx), exposures x sorted, items never shown included"
    source = "Fleder & Hosanagar, Management Science 55(5), 2009"
    direction = "smaller"
    per_case = False
    section = "shown"

    def value(self, known: Known, k: int) -> Any:
        return popularity_bias.gini(known.exposure[k]) if known.exposure[k].any() else None


class PopularityCorrelation(Metric):
    name = "popularity_correlation"
    label = "Popularity correlation"
    definition = "Spearman correlation over items of exposure and training count."
    direction = "smaller"
    bounds = (-1.0, 1.0)
    per_case = False
    needs = ("counts",)
    section = "shown"

    def value(self, known: Known, k: int) -> Any:
        return popularity_bias.popularity_correlation(known.exposure[k], known.counts_V)


SHOWN: tuple[Metric, ...] = (Popularity(), LongTail(), Novelty(), Coverage(), Gini(), PopularityCorrelation())
