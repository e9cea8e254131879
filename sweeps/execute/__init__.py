"""Running trials: Ray Tune, worker processes, their deaths, and disk space.

The only room that imports ray. Begin with `tuner.py`.
"""
