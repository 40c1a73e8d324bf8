"""The page around the sections: one file, no network, light and dark, from a telephone to a desk."""

from __future__ import annotations

from typing import Any

from trajtools.report.markup import Html, tag

# Every colour is named once per scheme. Grey lines are initial conditions, the accent is their mean, the band is what
# was fitted; none of these is told by colour alone: they differ in width and dash, and the verdicts are words.
STYLE = """
:root {
  color-scheme: light dark;
  --page: #ffffff; --card: #f6f7f9; --ink: #1b1f24; --quiet: #59636e; --rule: #d5dae0; --curve: #8b949e;
  --accent: #0a58ca; --fit: #b3261e; --band: #0a58ca1f; --floor: #59636e; --null: #11652f33;
  --chaotic: #a4161a; --transient: #8a4b00; --regular: #11652f; --inconclusive: #59636e;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171a; --card: #1c2024; --ink: #e6e9ec; --quiet: #a0a9b2; --rule: #363c43; --curve: #98a1ab;
    --accent: #79b0ff; --fit: #ff8f86; --band: #79b0ff2b; --floor: #a0a9b2; --null: #7fd69a3d;
    --chaotic: #ff9a94; --transient: #f5b871; --regular: #7fd69a; --inconclusive: #a0a9b2;
  }
}
* { box-sizing: border-box; }
sup { line-height: 0; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 58rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .5rem; text-wrap: balance; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; }
h3 { font-size: 1rem; margin: 0 0 .5rem; display: flex; flex-wrap: wrap; gap: .25rem .75rem; align-items: baseline; }
p { margin: .5rem 0; max-width: 44rem; }
.lead { color: var(--quiet); }
.scroll { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; font-size: .9375rem; }
th, td { text-align: left; vertical-align: top; padding: .35rem .9rem .35rem 0; border-bottom: 1px solid var(--rule); }
th { color: var(--quiet); font-weight: 500; white-space: nowrap; vertical-align: bottom; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1rem; }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: .9rem; min-width: 0; }
.card ul { margin: .5rem 0 0; padding-left: 1.1rem; font-size: .875rem; color: var(--quiet); }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: .75rem 0; }
.facts dt { color: var(--quiet); }
.facts dd { margin: 0; overflow-wrap: anywhere; }
.verdict { font-weight: 600; white-space: nowrap; }
.verdict.chaotic { color: var(--chaotic); } .verdict.transient { color: var(--transient); }
.verdict.regular { color: var(--regular); } .verdict.inconclusive { color: var(--inconclusive); }
.value { font-weight: 400; font-variant-numeric: tabular-nums; }
.key { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; font-size: .875rem; color: var(--quiet); padding: 0; }
.key li { display: flex; align-items: center; gap: .4rem; list-style: none; }
.key svg { width: 28px; height: 12px; flex: none; }
code, pre { font: .9em ui-monospace, monospace; }
pre { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: .75rem; overflow-x: auto; }
svg { display: block; width: 100%; height: auto; }
svg text { font: 12px system-ui, sans-serif; fill: var(--ink); }
svg .power { font-size: 9px; }
svg text.note { font-size: 11px; fill: var(--quiet); }
svg .axis { stroke: var(--quiet); stroke-width: 1; }
svg .grid { stroke: var(--rule); stroke-width: 1; }
svg .curve { fill: none; stroke: var(--curve); stroke-width: .6; opacity: .55; }
svg .mean { fill: none; stroke: var(--accent); stroke-width: 2.5; stroke-linejoin: round; }
svg .fit { fill: none; stroke: var(--fit); stroke-width: 1.75; stroke-dasharray: 6 4; }
svg .band { fill: var(--band); }
svg .null { fill: var(--null); stroke: var(--regular); stroke-width: .75; stroke-dasharray: 1 3; }
svg .compared { fill: none; stroke: var(--regular); stroke-width: 1; }
svg .heat { fill: var(--accent); } svg .frame { fill: none; stroke: var(--quiet); stroke-width: 1; }
svg .floor { fill: none; stroke: var(--floor); stroke-width: 1; stroke-dasharray: 2 3; }
@media (max-width: 32rem) {
  th, th.number { white-space: normal; } table { font-size: .875rem; } th, td { padding-right: .55rem; }
}
@media print { .card { break-inside: avoid; } }
"""


def page(title: str, *content: Any) -> str:
    """Return the whole document.

    Parameters
    ----------
    title : str
        Of the window; also the heading.
    *content : Html or text
        What stands below the heading; text is escaped.

    Returns
    -------
    str
        One HTML file that loads nothing from anywhere.
    """
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        # Belt and braces: should anything that came from a file ever get through, the browser loads and runs nothing.
        tag("meta", http_equiv="Content-Security-Policy", content="default-src 'none'; style-src 'unsafe-inline'"),
        tag("title", title),
        tag("style", Html(STYLE)),
    )
    body = tag("body", tag("main", tag("h1", title), *content))
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def section(heading: str, *content: Any) -> Html:
    """Return one section under its heading.

    Parameters
    ----------
    heading : str
        Of the section.
    *content : Html or text
        What stands below it; text is escaped.

    Returns
    -------
    Html
        The section.
    """
    return tag("section", tag("h2", heading), *content)


def facts(pairs: dict[str, Any]) -> Html:
    """Return a list of names and what they are.

    Parameters
    ----------
    pairs : dict
        Name -> text or Html; entries that are None or empty are left out.

    Returns
    -------
    Html
        A description list.
    """
    written = [[tag("dt", name), tag("dd", value)] for name, value in pairs.items() if value not in (None, "")]
    return tag("dl", written, class_="facts")
