"""The checks before training: configuration, data, model, and forecasts of memory and time.

The table of all checks is `conf/checks.py`, the rules between keys are `conf/rules.py`. Begin with
`run_checks.py`.
"""
