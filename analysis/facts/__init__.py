"""What a sweep showed, as typed records and statistics, read from MLflow.

Nothing here is rendered. Begin with `records.py` and `comparison.py`.
"""
