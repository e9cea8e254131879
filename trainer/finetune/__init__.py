"""One fine-tune: its loop, evaluations, record, and resuming after a stop.

The model comes from `trainer.model`, its batches from `trainer.data`; who calls (a command, a
trial) is unknown here. Begin with `run.py`.
"""
