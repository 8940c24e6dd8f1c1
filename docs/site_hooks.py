"""What `make docs` adds to the pages of docs/, as hooks of MkDocs: README, CONTRIBUTING and CHANGELOG as
pages, a page of docstrings for each public module, notebooks as they were last run, formulas as MathML, and
the pages that mkdocs.yml does not name."""

import functools
import re
from pathlib import Path
from typing import Any

import griffe
import nbformat
from latex2mathml.converter import convert
from mkdocs.structure.files import File
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parents[1]
# Pages that lie beside docs/, under the names that they have on the site.
BESIDE = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changes.md"}
FURTHER = ("propensity", "types")  # modules that `fastpop` itself does not list
FENCE = re.compile(r"^```(\w+) [\w ]+$", re.M)  # "```python lightning": the second word is for the tests
CELL = re.compile(r"<td.*?</td>", re.DOTALL)
PICTURE = re.compile(r'<img ([^>]*?)src="([^"]+)"')
DRAWN: dict[str, bytes] = {}  # by name, those of notebooks
WIDE = 2  # times as wide as high: panels side by side
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


@functools.cache
def sources() -> griffe.Module:
    """The package, read and not imported."""
    return griffe.load("fastpop", search_paths=[ROOT], allow_inspection=False)  # type: ignore[return-value]


def listed(name: str) -> list[str]:
    """The keys or entries of a list of names in fastpop/__init__.py."""
    return re.findall(r"['\"](\w+)['\"]", str(sources()[name].value))


def public_names(module: griffe.Module) -> list[str]:
    """Those of __all__, or what is defined there."""
    if module.exports is not None:
        return [str(name) for name in module.exports]
    return [
        name
        for name, found in module.members.items()
        if not name.startswith("_") and not found.is_alias and (found.is_class or found.is_function)
    ]


def paths_of(module: griffe.Module) -> list[str]:
    """Where its names are documented. A function in a file of its own name is under that name twice; a module
    among them has no docstring to show here."""
    found = []
    for name in public_names(module):
        one = module[name]
        if one.is_alias or not one.is_module:
            found.append(f"{module.path}.{name}")
        elif name in one.members:
            found.append(f"{module.path}.{name}.{name}")
    return found


def modules() -> list[str]:
    return [*listed("_MODULES"), *FURTHER]


def first_line(found: Any) -> str:
    text = found.docstring.value if found.docstring else ""
    return " ".join(text.partition("\n\n")[0].split())


def api_page(name: str) -> str:
    module = sources()[name]
    lines = [f"# fastpop.{name}", "", first_line(module), ""]
    return "\n".join([*lines, *(f"::: {path}\n" for path in paths_of(module))])


def overview() -> str:
    """The modules; and the names of `fastpop` itself, here where their module is not a public one."""
    lines = ["# fastpop", "", first_line(sources()), "", "| module | |", "|---|---|"]
    lines += [f"| [`fastpop.{m}`]({m}.md) | {first_line(sources()[m])} |" for m in modules()]
    lines += ["", "`fastpop` has of these: "]
    here = []
    for name in listed("_FUNCTIONS"):
        home = sources()[name].target_path.split(".")[1]
        if home in modules():
            (path,) = (path for path in paths_of(sources()[home]) if path.endswith(f".{name}"))
            lines.append(f"[`{name}`]({home}.md#{path})")
        else:
            here.append(f"::: fastpop.{home}.{name}\n")
    return "\n".join([*lines, "", *here])


def at_home(text: str) -> str:
    """A page that lies beside docs/, with its links as they are from within."""
    for source, page in BESIDE.items():
        text = text.replace(f"]({source}", f"]({page}")
    return re.sub(r"(\]\([^)]+)\.ipynb\)", r"\1.md)", text.replace("](docs/", "]("))


def notebook_page(source: Path) -> tuple[str, dict[str, bytes]]:
    """(a notebook as a page, its pictures by name), as they are kept: nothing runs."""
    notebook = nbformat.read(source, as_version=4)
    for output in (one for cell in notebook.cells for one in cell.get("outputs", [])):
        if "text/html" in output.get("data", {}):  # a block as a whole, blank lines in it too
            output.data["text/html"] = f"<div>{output.data['text/html']}</div>"
    text, resources = MarkdownExporter().from_notebook_node(notebook)
    pictures = {f"{source.stem}-{name}": content for name, content in resources["outputs"].items()}
    for name in resources["outputs"]:
        text = text.replace(f"]({name})", f"]({source.stem}-{name})")
    shown = f"*[The notebook]({source.name}){{download}}, as it was last run.*"
    title, _, rest = text.partition("\n\n")
    return f"{title}\n\n{shown}\n\n{rest}", pictures


def on_config(config: Any) -> Any:
    named = {*re.findall(r"[\w-]+\.md", str(config.nav)), "design.md"}
    others = [page.name for page in sorted((ROOT / "docs").glob("*.md")) if page.name not in named]
    api = [{f"fastpop.{name}": f"api/{name}.md"} for name in modules()]
    inside = [{"Architecture": "design.md"}, {"Contributing": "contributing.md"}, {"Changes": "changes.md"}]
    config.nav += [{"API": [{"fastpop": "api/fastpop.md"}, *api]}, {"More": [*others, *inside]}]
    return config


def on_files(files: Any, config: Any) -> Any:
    pages = {page: at_home((ROOT / source).read_text()) for source, page in BESIDE.items()}
    pages["api/fastpop.md"] = overview()
    pages |= {f"api/{name}.md": api_page(name) for name in modules()}
    for source in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        text, pictures = notebook_page(source)
        pages[f"notebooks/{source.stem}.md"] = text
        DRAWN.update(pictures)
        for name, content in pictures.items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    for page, text in pages.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    return FENCE.sub(r"```\1", markdown)


def on_page_content(html: str, **_: Any) -> str:
    html = CELL.sub(lambda cell: cell[0].replace(" ± ", " ±\N{NO-BREAK SPACE}"), html)
    return PICTURE.sub(picture, FORMULA.sub(as_mathml, html))


def picture(found: re.Match) -> str:
    """An <img> that is fetched when it comes into sight, and whose room is kept until then."""
    size = size_of(Path(found[2]).name)
    room = "" if size is None else f' width="{size[0]}" height="{size[1]}"'
    kind = ' class="wide"' if size is not None and size[0] >= WIDE * size[1] else ""
    return f'<img {found[1]}loading="lazy"{room}{kind} src="{found[2]}"'


@functools.cache
def size_of(name: str) -> tuple[int, int] | None:
    """(width, height) of a PNG or of an SVG of ours; None of what is not there."""
    file = ROOT / "docs" / "pictures" / name
    if name not in DRAWN and not file.exists():
        return None
    content = DRAWN[name] if name in DRAWN else file.read_bytes()
    if file.suffix == ".png":
        return int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")
    width, height = re.findall(rb'(?:width|height)="([\d.]+)pt"', content[:400])
    return round(float(width)), round(float(height))


def as_mathml(found: re.Match) -> str:
    text = found[2].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    page = convert(text, display="inline" if found[1] == "span" else "block")
    return re.sub(r"<mi>log</mi>(?!<mo)", '<mi>log</mi><mspace width="0.17em" />', page)
