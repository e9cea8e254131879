"""A comparison in words and as tables: for the console, and as Markdown, CSV, JSON and SVG.

The facts come from `analysis.facts`; `analysis.report` makes the HTML. Begin with `answer.py`.
"""
