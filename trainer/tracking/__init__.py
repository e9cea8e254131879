"""What a run records: an event log beside its files, and MLflow, which is written from the log.

Begin with `event_log.py`.
"""
