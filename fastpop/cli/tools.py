"""`fastpop doctor`, `recipe`, `bench` and `--version`."""

import textwrap
from dataclasses import dataclass
from typing import Any, Literal

import tyro
from tyro.conf import Positional

from fastpop.cli.options import readable


@dataclass(frozen=True)
class Doctor:
    """Say which implementation of each op runs here, and why others do not."""

    def run(self) -> dict[str, Any]:
        from fastpop.doctor import found, report

        here = found()
        print(report(here))
        return here


@readable({"name": "NAME"})
@dataclass(frozen=True)
class ShowRecipe:
    """List published methods, or print one as a TOML file for --config."""

    name: Positional[str] = ""
    """Of a recipe; without one, all are listed."""

    def run(self) -> dict[str, Any]:
        from fastpop import recipes, registry

        if self.name:
            found = recipes.find(self.name)
            print(found.to_toml(), end="")
            return {"name": self.name, **_about(found), "toml": found.to_toml()}
        for name, recipe in registry.all_of("recipe").items():
            print(
                textwrap.fill(
                    f"{name}: {recipe.about}. {recipe.source}",
                    80,
                    subsequent_indent="    ",
                    break_long_words=False,
                    break_on_hyphens=False,
                )
            )
        return {"recipes": {name: _about(one) for name, one in registry.all_of("recipe").items()}}


def _about(recipe: Any) -> dict[str, Any]:
    return {"about": recipe.about, "source": recipe.source, "options": dict(recipe.options)}


@readable({"what": "step"})
@dataclass(frozen=True)
class Bench:
    """Measure speed here: `bench step` times a training step at each catalogue size."""

    what: Positional[Literal["step"]]
    """What to time."""
    items: tyro.conf.UseAppendAction[tuple[int, ...]] = ()
    """Catalogue size; give it again for another."""
    dim: int = 64
    """Length of query and item vectors."""
    negatives: int = 8192
    """Negatives, shared by the batch."""
    batch: int = 4096
    """Events a step."""
    rounds: int = 15
    """Steps timed."""
    threads: int = 0
    """Threads; 0: as many as torch takes."""

    def run(self) -> dict[str, Any]:
        from fastpop import benchmark

        rows = benchmark.time_steps(
            self.items, self.dim, self.negatives, self.batch, rounds=self.rounds, threads=self.threads
        )
        print(benchmark.table(rows))
        return {"rows": rows}


@dataclass(frozen=True)
class Version:
    """`fastpop --version`."""

    def run(self) -> dict[str, Any]:
        import fastpop

        print(f"fastpop {fastpop.__version__}")
        return {"version": fastpop.__version__}
