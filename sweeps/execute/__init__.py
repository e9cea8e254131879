"""Running trials with Ray Tune: worker processes, their failures, signals and disk space.

Only this room imports Ray; which trial to run and when it ends is decided in `search`. Begin with
`tuner.py`.
"""
