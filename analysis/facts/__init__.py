"""What a sweep showed, as typed records and statistics, read from MLflow.

Nothing here is rendered: see `analysis.tables`. Begin with `records.py`, then `comparison.py`.
"""
