"""The comparison as tables, in words and in every format.

Begin with `sections.py`; the facts come from `analysis.facts`.
"""
