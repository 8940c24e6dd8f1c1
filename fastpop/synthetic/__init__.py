"""Logs and scores with closed-form answers, to test models and audits against."""

from fastpop.synthetic.controls import (
    Control,
    gauge_shift,
    independent,
    norm_confounded,
    popularity_only,
    uniform_popularity,
)
from fastpop.synthetic.exposure import Exposure, exposed_ratings
from fastpop.synthetic.large_log import LargeLog, large_log
from fastpop.synthetic.low_rank import LowRankFit, low_rank_fit
from fastpop.synthetic.twin_block import TwinBlock, paper_headline

__all__ = [
    "Control",
    "Exposure",
    "LargeLog",
    "LowRankFit",
    "TwinBlock",
    "exposed_ratings",
    "gauge_shift",
    "independent",
    "large_log",
    "low_rank_fit",
    "norm_confounded",
    "paper_headline",
    "popularity_only",
    "uniform_popularity",
]
