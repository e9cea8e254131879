"""One fine-tune: its loop, evaluations, record, and resuming after a stop.

Who calls it (a command, a trial) is unknown here. Begin with `run.py`.
"""
