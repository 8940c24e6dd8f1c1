"""The real log that comes with the package: MovieTweetings 100K, MIT, (c) 2013 Simon Dooms."""

import gzip
from importlib import resources
from pathlib import Path

import numpy as np

from fastpop.data.interactions import Interactions

NAME = "movietweetings-100k.ratings.dat.gz"


def bundled_path() -> Path:
    """The raw file, for `read_log(bundled_path(), preset="movietweetings")`."""
    return Path(str(resources.files("fastpop.data") / "bundled" / NAME))


def bundled_log() -> Interactions:
    """MovieTweetings 100K: 100,000 ratings of 10,506 films by 16,554 users over 26 weeks of 2013.

    The same log as `read_log(bundled_path(), preset="movietweetings")`, read with numpy alone.
    """
    with gzip.open(bundled_path(), "rb") as file:
        text = file.read().decode("ascii")
    user, item, _, time = np.fromstring(text.replace("::", " "), dtype=np.int64, sep=" ").reshape(-1, 4).T
    facts = {
        "source": [NAME],
        "preset": "movietweetings",
        "rows_read": int(user.size),
        "rows_rejected": 0,
        "duplicates": "kept",
        "ties_in_time": "broken by source row",
        "licence": "MIT, (c) 2013 Simon Dooms",
    }
    return Interactions.from_arrays(user, item, time, facts=facts)
