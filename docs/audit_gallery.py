"""The pictures, sentences and table of docs/audit-gallery.md, from the blocks of the page itself.

    .venv-others/bin/python docs/audit_gallery.py                # after make test-others: everything anew
    .venv-others/bin/python docs/audit_gallery.py implicit faiss # these packages, the others as recorded
    python docs/audit_gallery.py --page                          # the page anew, of the record

A block of the page is run with the package that it names; each `fastpop.audit` of its blocks gets a picture,
and numbers in bench/records/audit-gallery.json. Tests hold the page to the record, and the packages too.
"""

import json
import os
import platform
import re
import sys
import tempfile
import types
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
PAGE, PICTURES = HERE / "audit-gallery.md", HERE / "pictures"
RECORD = HERE.parent / "bench" / "records" / "audit-gallery.json"
BLOCK = re.compile(r"^```python([ \w-]*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
MARKS = ("<!-- {}: docs/audit_gallery.py writes this -->\n", "<!-- as far as here -->\n")
MOST_LINES = 3
# What a package is installed as, where that is not what it is imported as.
INSTALLED = {
    "sklearn": "scikit-learn",
    "implicit": "pm-implicit",
    "lightfm": "rectools-lightfm",
    "replay": "replay-rec",
    "faiss": "faiss-cpu",
}


@dataclass(frozen=True)
class Model:
    """name: what the page's audit is called. package: what trained it, "" for numpy alone."""

    name: str
    package: str
    title: str

    @property
    def picture(self) -> Path:
        return PICTURES / f"audit-{self.name.replace('_', '-')}.png"


MODELS = [
    Model("arrays", "", "SVD of PMI, from two files"),
    Model("nmf", "sklearn", "scikit-learn NMF"),
    Model("svd", "sklearn", "scikit-learn TruncatedSVD"),
    Model("als", "implicit", "implicit ALS"),
    Model("bpr", "implicit", "implicit BPR"),
    Model("lmf", "implicit", "implicit LMF"),
    Model("knn", "implicit", "implicit nearest neighbours, cosine"),
    Model("warp", "lightfm", "LightFM, WARP"),
    Model("implicit_mf", "lenskit", "LensKit ImplicitMF"),
    Model("biased_mf", "lenskit", "LensKit BiasedMF"),
    Model("sasrec", "rectools", "RecTools SASRec"),
    Model("hstu", "rectools", "RecTools HSTU"),
    Model("replay_sasrec", "replay", "RePlay SasRec"),
    Model("gpt2", "transformers", "a GPT-2 of Hugging Face"),
    Model("quantised", "faiss", "the SVD of PMI in a faiss index"),
]
PACKAGES = list(dict.fromkeys(model.package for model in MODELS))


# ---- the page's blocks


def blocks() -> list[tuple[str, bool, str]]:
    """(package, whether it is one that audits, text) of each block of the page."""
    found = []
    for words, text in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        package = [word for word in words.split() if word != "audit"]
        found.append(("".join(package), "audit" in words.split(), text))
    return found


def run(package: str) -> dict[str, dict[str, Any]]:
    """By the name of each audit of a package, all names as they stood after its block; "" for numpy alone.
    Files go to the folder of the moment."""
    module = types.ModuleType(f"gallery_{package}")
    sys.modules[module.__name__] = module
    names = [model.name for model in MODELS if model.package == package]
    found = {}
    for number, (of, is_audit, text) in enumerate(blocks(), 1):
        if of == package or (of == "" and not is_audit):
            exec(compile(text, f"{PAGE.name}, block {number}", "exec"), module.__dict__)
            if is_audit:
                found[names[len(found)]] = dict(module.__dict__)
    return found


# ---- what is kept


def measured(audit: Any) -> dict[str, Any]:
    """The numbers of an audit that the page says."""
    return {
        "fraction_direction": audit.fraction_direction,
        "fraction_shared": audit.fraction_shared,
        "chance": audit.chance_level,
        "correlation": audit.correlation,
        "correlation_p": float(np.corrcoef(audit.mean_score_V, np.exp(audit.log_prior_V))[0, 1]),
        "slope": audit.slope_mean if audit.logits else None,
        "nll": audit.nll,
        "p_value": audit.p_value_direction,
        "p_value_shared": audit.p_value_shared,
        "permutations": audit.num_permutations,
        "contexts": audit.num_contexts,
        "items": audit.num_items,
    }


def installed(package: str) -> str:
    return INSTALLED.get(package, package or "numpy")


def picture(model: Model, audit: Any) -> None:
    from fastpop.report import plots
    from fastpop.report.drawing import save_figure

    scatter = {
        "arm": model.title,
        "log_prior": audit.log_prior_V,
        "mean_score": audit.mean_score_V,
        "slope": audit.slope_mean,
    }
    unit = "nats" if audit.logits else "score"
    save_figure(plots.score_against_popularity([scatter], unit=unit), model.picture)


# ---- what is written


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def sentence(one: dict[str, Any]) -> str:
    along, shared = percent(one["fraction_direction"]), percent(one["fraction_shared"])
    text = (
        f"{along} of the energy of these scores lies along log p (p = {one['p_value']:.3f}), and {shared} "
        f"is the same for every context (p = {one['p_value_shared']:.3f}); mean scores and log p have a "
        f"correlation of {one['correlation']:.2f}, with p itself {one['correlation_p']:.2f}"
    )
    if one["slope"] is not None:
        text += f". These are logits: they hold log p {one['slope']:.2f} times"
    if one["nll"] is not None:
        text += f", and their NLL on held-out text is {one['nll']:.2f} nats"
    return text + "."


def shown(model: Model, one: dict[str, Any]) -> str:
    alt = f"Mean score of each item against log p, {model.title}"
    return f"![{alt}](pictures/{model.picture.name})\n\n{sentence(one)}\n"


def table(record: dict[str, Any]) -> str:
    lines = [
        "| model | along log p | p | the same for all | p | correlation | slope on log p |",
        "|---|---|---|---|---|---|---|",
    ]
    for model in MODELS:
        one = record["models"][model.name]
        cells = [
            model.title,
            percent(one["fraction_direction"]),
            f"{one['p_value']:.3f}",
            percent(one["fraction_shared"]),
            f"{one['p_value_shared']:.3f}",
            f"{one['correlation']:.2f}",
            "no logits" if one["slope"] is None else f"{one['slope']:.2f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    made = ", ".join(f"{name} {record['versions'][name]}" for name in map(installed, PACKAGES))
    return "\n".join(lines) + f"\n\nMade with {made} under Python {record['python']}.\n"


def with_findings(text: str, record: dict[str, Any]) -> str:
    """The page with what was found between its marks."""
    parts = {"table": table(record)} | {
        model.name: shown(model, record["models"][model.name]) for model in MODELS
    }
    for name, part in parts.items():
        before, mark, rest = text.partition(MARKS[0].format(name))
        _, end, after = rest.partition(MARKS[1])
        if not (mark and end):
            raise ValueError(f"{PAGE.name} has no mark for {name}")
        text = before + mark + part + end + after
    return text


def write_page(record: dict[str, Any]) -> None:
    PAGE.write_text(with_findings(PAGE.read_text(encoding="utf-8"), record), encoding="utf-8")


def main(packages: list[str]) -> None:
    old = json.loads(RECORD.read_text()) if RECORD.exists() else {"models": {}, "versions": {}}
    if packages == ["--page"]:
        return write_page(old)
    old["python"], folder = platform.python_version(), os.getcwd()
    for package in packages or PACKAGES:
        with tempfile.TemporaryDirectory() as scratch:
            os.chdir(scratch)
            found = {name: names[name] for name, names in run(package).items()}
            os.chdir(folder)
        old["versions"][installed(package)] = metadata.version(installed(package))
        for model in MODELS:
            if model.name in found:
                old["models"][model.name] = measured(found[model.name])
                picture(model, found[model.name])
                print(f"{model.title}: {sentence(old['models'][model.name])}", flush=True)
        RECORD.write_text(json.dumps(old, indent=1) + "\n")
    if set(old["models"]) >= {model.name for model in MODELS}:
        write_page(old)


if __name__ == "__main__":
    main(sys.argv[1:])
