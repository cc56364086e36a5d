"""How the page looks: one column, light and dark, on a phone and on paper."""

# Series differ in lightness, so that they stay apart in grey; published seconds are an outline.
STYLE = """:root {
  --ink: #16202b; --soft: #51606f; --paper: #fff; --box: #f3f5f7; --rule: #c9d1d9;
  --c0: #0b4a7d; --c1: #a9c4dc; --c2: #d98a1f; --c3: #7a3b69; --link: #0b4a7d;
  --warn: #fff3d6; --warn-rule: #b87900;
}
@media (prefers-color-scheme: dark) { :root {
  --ink: #e6ebf0; --soft: #a5b1bd; --paper: #12171d; --box: #1b222a; --rule: #3a4550;
  --c0: #7cc0f5; --c1: #4d7ba3; --c2: #e5a23f; --c3: #c08ab0; --link: #8cc8f8;
  --warn: #33280f; --warn-rule: #d9a13a;
} }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 56rem; margin: 0 auto; padding: 1rem; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid var(--rule); }
.story { font-size: 1.15rem; font-weight: 600; margin: .8rem 0; }
.warning { background: var(--warn); border-left: 4px solid var(--warn-rule); padding: .5rem .8rem; }
a { color: var(--link); }
nav ul { list-style: none; margin: 1rem 0; padding: 0; display: flex; flex-wrap: wrap; }
nav li { margin: 0 1.1rem .3rem 0; }
nav a { display: inline-block; padding: .3rem 0; }
.box { overflow-x: auto; margin: 1rem 0; border: 1px solid var(--rule); border-radius: 4px; }
table { border-collapse: collapse; width: 100%; font-size: .875rem;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .5rem .6rem; }
th, td { padding: .35rem .6rem; border-top: 1px solid var(--rule); text-align: right;
  vertical-align: top; white-space: nowrap; }
thead th { background: var(--box); vertical-align: bottom; white-space: normal; }
th:first-child, th.left, td.long { text-align: left; }
tbody th { font-weight: 600; }
td.long { white-space: normal; min-width: 16rem; }
.two th, .two td { text-align: left; white-space: normal; min-width: 0; }
td.why { text-align: left; white-space: normal; color: var(--soft); }
td.why div { max-width: min(34rem, 52vw); }
@media (max-width: 40rem) { tbody th { white-space: normal; min-width: 7rem; max-width: 10rem; } }
.tall { max-height: 36rem; overflow-y: auto; }
.tall thead th { position: sticky; top: 0; }
pre { background: var(--box); border: 1px solid var(--rule); border-radius: 4px;
  padding: .7rem; overflow-x: auto; font-size: .8125rem; }
dt { font-weight: 600; margin-top: .7rem; }
dd { margin: 0; }
figure { margin: 1.2rem 0; max-width: 34rem; }
figcaption { color: var(--soft); font-size: .875rem; }
svg { width: 100%; height: auto; display: block; }
svg .t { font-size: 11px; fill: var(--ink); }
svg .b { font-weight: 600; }
svg .g { stroke: var(--rule); stroke-width: .6; }
svg .c0 { fill: var(--c0); } svg .c1 { fill: var(--c1); stroke: var(--c0); stroke-width: .6; }
svg .c2 { fill: var(--c2); } svg .c3 { fill: var(--c3); }
svg .p { fill: none; stroke: var(--soft); stroke-dasharray: 3 2; }
svg .l0, svg .l1, svg .l2, svg .l3 { stroke-width: 1.6; fill: none; }
svg .l0 { stroke: var(--c0); } svg .l1 { stroke: var(--c1); stroke-dasharray: 6 3; }
svg .l2 { stroke: var(--c2); stroke-dasharray: 2 3; }
svg .l3 { stroke: var(--c3); stroke-dasharray: 8 3 2 3; }
svg .roof { stroke: var(--ink); stroke-width: 1.6; fill: none; }
@media print {
  @page { size: A4; margin: 14mm; }
  :root { --ink: #000; --soft: #333; --paper: #fff; --box: #eee; --rule: #999; --link: #000;
    --c0: #0b4a7d; --c1: #a9c4dc; --c2: #d98a1f; --c3: #7a3b69;
    --warn: #f4f4f4; --warn-rule: #000; }
  body { font-size: 10pt; }
  main { max-width: none; padding: 0; }
  nav { display: none; }
  .box { overflow: visible; border: 0; max-height: none; }
  .tall thead th { position: static; }
  table { font-size: 7.5pt; }
  th, td { padding: 1.5pt 3pt; }
  th, td.mid, td.long { white-space: normal; min-width: 0; }
  td.why div { max-width: none; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 7.5pt; }
  figure { max-width: 12cm; break-inside: avoid; }
  tr, dt { break-inside: avoid; }
  thead { display: table-header-group; }
  h2, caption, dt { break-after: avoid; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
