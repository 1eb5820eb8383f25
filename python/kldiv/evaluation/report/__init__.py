"""One page of an evaluation, to be sent to somebody: `html_page` in `page`, and of many, `history`.

Evaluation → `content` (what the page says: sentences, tables, positions) and `figures` (charts as
SVG) → `templates` → HTML. Words are in `words`, colours in `colours`, the text of tokens comes from
`tokens`. The page is one file: styles and pictures are in it, nothing is loaded, nothing runs.
"""
