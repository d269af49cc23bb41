"""Small pieces of HTML: tables, figures, the style sheet."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence

from mert_core.report.figures.draw import Picture

STYLE = """
:root { color-scheme: light dark; --page: #f4f6f8; --card: #ffffff; --ink: #1b1f24; --soft: #57606a; --line: #dfe4ea;
  --accent: #2f5fa8; --good: #1b7f4b; --tint: #eef3fa; }
@media (prefers-color-scheme: dark) { :root { --page: #0f1318; --card: #171c23; --ink: #e6eaef; --soft: #9aa5b1;
  --line: #2b323b; --accent: #86b0ee; --good: #6cc794; --tint: #1d2630; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); -webkit-text-size-adjust: 100%;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2.2rem 1.1rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; letter-spacing: -.01em; }
h2 { font-size: 1.15rem; margin: 0 0 .5rem; }
p { margin: .3rem 0 .8rem; }
.lead, .caption, footer { color: var(--soft); }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 1.1rem 1.2rem;
  margin: 1.1rem 0; }
ul.verdicts { list-style: none; margin: 1rem 0 0; padding: 0; display: grid; gap: .5rem; }
ul.verdicts li { background: var(--tint); border-left: 4px solid var(--accent); border-radius: 6px;
  padding: .55rem .8rem; }
.warning { border-left: 4px solid #d98a00; background: var(--tint); border-radius: 6px; padding: .55rem .8rem; }
.scroll { overflow-x: auto; } .scroll + .scroll { margin-top: 1.2rem; }
table { border-collapse: collapse; width: 100%; font-size: .93rem; }
.note { color: var(--soft); font-size: .9rem; }
th, td { text-align: left; padding: .42rem .8rem .42rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
thead th { color: var(--soft); font-weight: 600; white-space: nowrap; }
tbody th { font-weight: 600; }
tr:last-child th, tr:last-child td { border-bottom: 0; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.interval { color: var(--soft); font-size: .85em; font-weight: 400; display: block; }
.best { font-weight: 700; } .mark { color: var(--good); font-weight: 700; }
table.board { width: auto; min-width: 100%; font-size: .88rem; }
table.board th, table.board td { padding: .3rem .7rem; vertical-align: baseline; }
table.board tr.begin > * { border-top: 1px solid var(--line); }
table.board tbody tr > * { border-bottom: 0; }
table.board th:first-child { position: sticky; left: 0; z-index: 1; background: var(--card); padding-left: 0;
  min-width: 12rem; }
table.board thead th { vertical-align: bottom; text-align: right; min-width: 5.2rem; white-space: normal; }
table.board thead th:first-child, table.board thead th.group { text-align: left; }
table.board thead th.group { position: static; border-bottom: 0; padding-bottom: 0; font-weight: 400; }
table.board thead td { border-bottom: 0; }
table.board tr > .published { min-width: 0; padding-left: .25rem; padding-right: .35rem; }
table.board thead th.published span { display: inline-block; writing-mode: vertical-rl; transform: rotate(180deg);
  white-space: nowrap; text-align: left; font-size: .95em; }
section:has(th.published) { position: relative; left: 50%; transform: translateX(-50%);
  width: min(100vw - 2.2rem, 84rem); }
section:has(th.published) th:first-child { min-width: 11rem; }
table.board td.n { white-space: normal; }
table.board .interval, table.board .protocol { display: inline-block; white-space: nowrap; }
table.board th .interval { display: block; }
table.board tfoot > tr > * { border-top: 2px solid var(--line); border-bottom: 0; font-weight: 700; }
table.board .floor { background: var(--tint); }
table.board td.published { color: var(--soft); }
table.board td.skipped { color: var(--soft); font-size: .85em; white-space: normal; min-width: 12rem; }
table.board .protocol { color: var(--soft); font-size: .72rem; }
.odd { color: #b35900; font-weight: 700; }
ul.notes { color: var(--soft); font-size: .88rem; margin: .8rem 0 0; padding-left: 1.1rem; }
figure { margin: .4rem 0 0; overflow-x: auto; }
figure img { width: 100%; height: auto; display: block; background: #fff; border-radius: 8px; }
code { font: .86em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
details summary { cursor: pointer; color: var(--accent); }
@media (max-width: 40rem) { main { padding: 1.2rem .7rem 3rem; } section { padding: .9rem .8rem; border-radius: 10px; }
  h1 { font-size: 1.5rem; } table { font-size: .86rem; } th, td { padding-right: .55rem; }
  thead th { white-space: normal; } table.board th, table.board td { padding: .3rem .45rem; }
  table.board th:first-child { min-width: 8.5rem; } figure img { min-width: 40rem; } }
@media print { body { background: #fff; } section { break-inside: avoid; border: 0; padding: 0; } }
"""


def document(title: str, body: str) -> str:
    """Return a whole page that fetches nothing. It holds no date, host or path, so equal content gives equal bytes."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{STYLE}</style></head><body><main>{body}</main></body></html>\n"
    )


def text(value: object) -> str:
    """Return a value as escaped text."""
    return html.escape(str(value))


def number(value: object) -> str:
    """Return a value for a table: thousands grouped, at most four significant decimals; words as they are."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return text(value)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "", numeric: Sequence[int] = ()) -> str:
    """Return a table whose cells are HTML already; the columns in ``numeric`` are set flush right."""
    kind = [' class="n"' if column in numeric else "" for column in range(len(header))]
    head = "".join(f'<th scope="col"{kind[column]}>{text(cell)}</th>' for column, cell in enumerate(header))
    body = []
    for row in rows:
        first, *rest = row
        cells = "".join(f"<td{kind[column + 1]}>{cell}</td>" for column, cell in enumerate(rest))
        body.append(f'<tr><th scope="row"{kind[0]}>{first}</th>{cells}</tr>')
    title = f'<p class="note">{text(caption)}</p>' if caption else ""
    return (
        f'{title}<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'
    )


def section(heading: str, *content: str) -> str:
    """Return a section with a heading."""
    return f"<section><h2>{text(heading)}</h2>{''.join(content)}</section>"


def figure(picture: Picture) -> str:
    """Return a section with a picture, its bytes included."""
    data = base64.b64encode(picture.path.read_bytes()).decode()
    image = f'<img alt="{text(picture.heading)}" src="data:image/png;base64,{data}">'
    return section(picture.heading, f'<p class="caption">{text(picture.caption)}</p><figure>{image}</figure>')
