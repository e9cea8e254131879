"""What a sweep showed: facts from MLflow, tables, the report, and the best trial's export.

Nothing here trains or searches. Begin with `facts/comparison.py`; `__main__.py` has the commands.
"""
