"""How results are shown: numbers, tables, figures and HTML pages, in English and Chinese.

What a report says is in `analysis` and in `trainer.prepare.report`. Begin with `tables.py`.
"""
