"""The page's style sheet: no fonts or pictures from elsewhere, light and dark, one column on a phone."""

from __future__ import annotations

from typing import Final

from netweight.report.markup import Markup

__all__ = ["STYLE"]

STYLE: Final = Markup("""
:root { color-scheme: light dark;
  --paper: #ffffff; --card: #f6f7f9; --ink: #1a1d21; --soft: #5c6570; --rule: #d9dde3;
  --ours: #1f5fd0; --bound: #b4530a; --bound-fill: #b4530a22; --other: #0f8a5f; --edge: #8d96a3; --less: #0f8a5f; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #14171b; --card: #1d2126; --ink: #e8eaed; --soft: #a3acb8; --rule: #353b44;
  --ours: #7fb0ff; --bound: #ffab5e; --bound-fill: #ffab5e26; --other: #57d3a4; --edge: #7b8592; --less: #57d3a4; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 16px; max-width: 1120px; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 8px 0 4px; }
h2 { font-size: 1.1rem; margin: 0 0 4px; }
h3 { font-size: 0.95rem; margin: 12px 0 2px; font-weight: 600; }
p { margin: 4px 0 8px; } .soft { color: var(--soft); font-size: 0.875rem; }
.warn { color: var(--bound); font-weight: 600; }
code { font: 0.875em ui-monospace, "DejaVu Sans Mono", monospace; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(148px, 1fr)); gap: 10px; margin: 14px 0; }
.tile { background: var(--card); border-radius: 8px; padding: 10px 12px; }
.tile b { display: block; font-size: 1.3rem; line-height: 1.25; } .tile span { color: var(--soft); font-size: 0.82rem; }
@media (min-width: 860px) { .cards { columns: 2; column-gap: 14px; } }
section { background: var(--card); border-radius: 8px; padding: 14px; margin: 0 0 14px; break-inside: avoid; }
svg.chart { display: block; width: 100%; height: auto; }
svg text { fill: var(--ink); font-size: 12px; font-family: inherit; }
svg .tick { fill: var(--soft); font-size: 11px; } svg .label { fill: var(--soft); }
svg .grid { stroke: var(--rule); stroke-width: 1; } svg .axis { stroke: var(--soft); stroke-width: 1; }
svg .line { fill: none; stroke-width: 2; } svg .stem { stroke-width: 1.4; } svg .area { stroke: none; }
svg .line.ours, svg .stem.ours { stroke: var(--ours); } svg .line.bound { stroke: var(--bound); }
svg .line.tangent { stroke: var(--soft); stroke-width: 1.4; stroke-dasharray: 5 4; }
svg .area.bound { fill: var(--bound-fill); } svg .dot { stroke: var(--card); stroke-width: 1; }
svg .dot.ours { fill: var(--ours); } svg .dot.bound { fill: var(--bound); } svg .dot.other { fill: var(--other); }
svg .dot.edge { fill: var(--edge); } svg .mark.ours { fill: var(--ours); font-weight: 600; }
svg .mark.bound { fill: var(--bound); }
.key { display: flex; flex-wrap: wrap; gap: 4px 16px; font-size: 0.82rem; color: var(--soft); margin: 2px 0 6px; }
.key i { display: inline-block; width: 14px; height: 10px; border-radius: 2px; margin-right: 5px; }
.key .ours { background: var(--ours); } .key .bound { background: var(--bound); }
.key .other { background: var(--other); }
.key .tangent { background: var(--soft); height: 2px; vertical-align: 4px; }
.bars { list-style: none; margin: 6px 0 0; padding: 0; font-size: 0.85rem; }
.bars li { margin: 0 0 5px; } .bars div { display: flex; justify-content: space-between; gap: 10px; }
.bars .value { white-space: nowrap; font-variant-numeric: tabular-nums; }
.bars svg { display: block; width: 100%; height: 7px; } .bars rect { fill: var(--ours); }
.bars rect.back { fill: var(--rule); opacity: 0.5; } .bars rect.less { fill: var(--less); }
.bars p { margin: 1px 0 9px; font-size: 0.8rem; line-height: 1.35; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: 0.82rem; overflow-wrap: normal; }
th, td { text-align: right; padding: 3px 9px 3px 0; border-bottom: 1px solid var(--rule); white-space: nowrap;
  font-variant-numeric: tabular-nums; }
th { color: var(--soft); font-weight: 600; } th:first-child, td:first-child { text-align: left; white-space: normal;
  min-width: 128px; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: minmax(90px, max-content) 1fr; gap: 3px 14px; margin: 6px 0;
  font-size: 0.87rem; }
dt { color: var(--soft); } dd { margin: 0; min-width: 0; }
details summary { cursor: pointer; font-weight: 600; padding: 4px 0; }
@media (max-width: 500px) { th:first-child, td:first-child { min-width: 84px; } th, td { padding-right: 7px; } }
@media print { body { max-width: none; } }
""")
