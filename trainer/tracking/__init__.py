"""What a run records: an event log beside its files, and MLflow, which is written from the log.

What is recorded is up to `trainer.finetune` and `sweeps`. Begin with `event_log.py`.
"""
