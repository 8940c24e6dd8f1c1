"""The shell of a report page: style, tables and pictures as HTML."""

from collections.abc import Sequence
from html import escape
from typing import Any

from fastpop.report.drawing import to_svg
from fastpop.report.glossary import term
from fastpop.report.schema import NOT_CALIBRATED
from fastpop.text import html_text, printable, shortened

HEADING = 200  # characters of a page's title

_STYLE = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1b1d20;--soft:#5d6268;--line:#d9dce0;
--band:#f4f5f7;--mark:#0072b2}
pre{font-size:.8em;overflow-x:auto}
@media(prefers-color-scheme:dark){:root{--paper:#15171a;--ink:#e8e9eb;--soft:#a3a8ae;
--line:#363a40;--band:#1e2125;--mark:#56b4e9}
figure svg,ul.key svg{filter:brightness(1.3)}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:62rem;padding:2rem 1.25rem 4rem;background:var(--paper);
color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
h1,p,li,dd,figcaption,th,td.text{overflow-wrap:break-word}
h1{font-size:1.6rem;line-height:1.25;margin:0 0 .75rem}
h2{font-size:1.15rem;margin:2.5rem 0 .5rem;padding-bottom:.25rem;
border-bottom:1px solid var(--line)}
.headline{font-size:1.2rem;line-height:1.45;border-left:4px solid var(--mark);
padding:.4rem 0 .4rem 1rem;margin:0 0 1rem}
.soft,figcaption{color:var(--soft);font-size:.9rem}
figure{margin:1rem 0 1.75rem;break-inside:avoid}
figure svg{width:100%;height:auto;max-width:52rem;color:var(--ink);display:block}
figure.narrow svg{max-width:36rem}
figcaption{max-width:52rem;margin-top:.4rem}
.wide{overflow-x:auto;margin:.75rem 0 1.25rem}
.wide,pre,figure:not(.table){background:
linear-gradient(90deg,var(--paper) 40%,transparent) left/2rem 100% local,
linear-gradient(270deg,var(--paper) 40%,transparent) right/2rem 100% local,
linear-gradient(90deg,#7f7f7f59,transparent) left/.6rem 100%,
linear-gradient(270deg,#7f7f7f59,transparent) right/.6rem 100%;background-repeat:no-repeat}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
figure.table{margin:.75rem 0 1.25rem;break-inside:auto}
figure.table figcaption{max-width:none;margin:0 0 .35rem}
figure.table .wide{margin:0}
th,td{padding:.3rem .75rem;text-align:right;border-bottom:1px solid var(--line);
white-space:nowrap;vertical-align:top}
th:first-child,td:first-child,th.text,td.text{text-align:left}
td.text{white-space:normal;max-width:44rem}
thead th{background:var(--band);font-weight:600}
tbody th{font-weight:600}
td small{display:block;color:var(--soft)}
dt{font-weight:600;margin-top:.6rem}
dd{margin:0 0 0 1.25rem;max-width:48rem}
code{font:.9em ui-monospace,monospace}
summary{cursor:pointer;color:var(--soft);font-size:.95rem;padding:.3rem 0}
tr.group th{font-weight:400;font-style:italic;color:var(--soft);padding-top:.6rem}
body.broad{max-width:78rem;padding-top:1.25rem}
body.broad p.soft,ul.said{max-width:72rem}
ul.said{margin:.4rem 0 .8rem;padding-left:1.2rem;font-size:.93rem;line-height:1.45}
ul.said li{margin:.2rem 0}
ul.key{list-style:none;display:flex;flex-wrap:wrap;gap:.1rem 1.4rem;margin:0;padding:0;font-size:.9rem}
ul.key svg{margin-right:.45rem;vertical-align:middle}
.two{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,27rem),1fr));gap:0 2rem}
.tables{display:flex;flex-wrap:wrap;gap:0 2rem;align-items:flex-start}
.tables figure{margin-top:0;min-width:0;max-width:100%}
.tables table{font-size:.84rem}
.tables th,.tables td{padding:.2rem .42rem}
h3{font-size:1rem;margin:1rem 0 .3rem}
.panels{display:grid;gap:.4rem 1.2rem;
grid-template-columns:repeat(auto-fit,minmax(min(100%,var(--least)),1fr))}
figure.several{margin:.6rem 0 .8rem}
figure.several svg{min-width:0;max-width:var(--most)}
figure.several>strong{display:block;font-size:1rem;margin-bottom:.35rem}
figure.several figcaption{font-size:.85rem}
@media(max-width:44rem){body{padding:1.25rem .9rem 3rem}th,td{padding:.3rem .45rem}
td.text{min-width:9rem}figure:not(.table){overflow-x:auto}figure svg{min-width:36rem}
figcaption{position:sticky;left:0}dd{margin-left:.75rem}ul{padding-left:1.2rem}}
@media(max-width:44rem){figure.several svg{min-width:0}figure.several:not(.table){overflow:visible}}
@media print{figure svg{min-width:0}:root{--paper:#fff;--ink:#000;--soft:#444;--line:#bbb;--band:#eee}
body{max-width:none;padding:0;font-size:10pt}details::details-content{content-visibility:visible;display:block}
h2{break-after:avoid}tr{break-inside:avoid}.wide{overflow:visible}th,td{padding:.2rem .4rem}}
"""


def page(title: str, parts: Sequence[str], wide: bool = False) -> str:
    """The document; nothing in it can steer what shows it."""
    broad = ' class="broad"' if wide else ""
    body = "\n".join(part for part in parts if part)
    return printable(
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>{escape(shortened(title, HEADING))}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body{broad}>\n<main>\n{body}\n</main>\n</body>\n</html>\n",
        keep_lines=True,
    )


def heading(title: str, headline: str) -> str:
    return f'<h1>{html_text(title, HEADING)}</h1>\n<p class="headline">{escape(headline)}</p>'


def figure(fig: Any, name: str, alt: str, caption: str, narrow: bool = False) -> str:
    svg = to_svg(fig, prefix=name + "-")
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1)
    kind = ' class="narrow"' if narrow else ""
    return f"<figure{kind}>\n{svg}\n<figcaption>{escape(caption)}</figcaption>\n</figure>"


def panels(
    figs: Sequence[tuple[Any, str]],
    name: str,
    title: str,
    caption: str,
    least: str = "17rem",
    most: str = "none",
) -> str:
    """One figure of several pictures that stand side by side as far as there is room; "" of none.

    figs: (figure, the same in words). least, most: how narrow and how wide a picture may be, as CSS has it.
    """
    if not figs:
        return ""
    svgs = []
    for n, (fig, alt) in enumerate(figs):
        svg = to_svg(fig, prefix=f"{name}{n}-")
        svgs.append(svg.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1))
    inside = "\n".join(svgs)
    return (
        f'<figure class="several" style="--least:{least};--most:{most}">'
        f'<strong>{escape(title)}</strong>\n<div class="panels">{inside}</div>\n'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def table(
    caption: str, head: Sequence[str], rows: Sequence[Sequence[str] | str], text: Sequence[int] = ()
) -> str:
    """Cells are HTML already; a row that is one string heads those below it. Columns in `text` hold words,
    the others numbers."""

    def kind(column: int) -> str:
        return ' class="text"' if column in text else ""

    top = "".join(f'<th scope="col"{kind(c)}>{cell}</th>' for c, cell in enumerate(head))
    body = "".join(
        f'<tr class="group"><th scope="rowgroup" colspan="{len(head)}">{row}</th></tr>\n'
        if isinstance(row, str)
        else "<tr>"
        + f'<th scope="row">{row[0]}</th>'
        + "".join(f"<td{kind(c)}>{cell}</td>" for c, cell in enumerate(row[1:], 1))
        + "</tr>\n"
        for row in rows
    )
    words = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    # The caption stands outside of what scrolls sideways, so a narrow screen wraps it.
    return (
        f'<figure class="table">{words}<div class="wide" tabindex="0"><table><thead><tr>{top}</tr>'
        f"</thead>\n<tbody>{body}</tbody></table></div></figure>"
    )


def fold(title: str, inside: str) -> str:
    """What is there on demand; on paper it is all there."""
    if not inside:
        return ""
    return f"<details><summary>{escape(title)}</summary>\n{inside}\n</details>"


def data_line(data: Any) -> str:
    """What the log is."""
    if not data:
        return ""
    words = [html_text(data["name"])] if "name" in data else []
    nouns = (
        ("num_events", "events"),
        ("num_users", "users"),
        ("num_items", "items"),
        ("num_cases", "test cases"),
    )
    words += [f"{int(data[key]):,} {noun}" for key, noun in nouns if key in data]
    note = f" {escape(data['note'])}" if data.get("note") else ""
    return f'<p class="soft">Data: {", ".join(words)}.{note}</p>'


def rules_table(rules: Any) -> str:
    lines: dict[str, Any] = {"calibration": NOT_CALIBRATED, **rules}
    lines["calibration"] = lines.pop("calibration")  # last
    rows = [[escape(name.replace("_", " ")), escape(str(text))] for name, text in lines.items()]
    return table("How these numbers came about.", ["what", "how"], rows, text=(1,))


def definitions(keys: Any) -> str:
    """What each number means, of keys such as "ndcg@10"; "" where none is known."""
    stems = dict.fromkeys(key.split("@")[0] for key in keys)
    items = "".join(f"<dt>{escape(n)}</dt><dd>{escape(t)}</dd>" for n, t in map(term, stems) if n)
    return f"<dl>{items}</dl>" if items else ""
