"""From a model and a manifest to texts and error rates.

Begin with `evaluate.py`; counts and rates are in `error_rates.py`.
"""
