"""The search: which trial comes next, when to prune or stop, and which trained epochs to reuse.

Each decision follows from the Optuna study, the record of the sweep; nothing here runs a trial.
Begin with `ledger.py`.
"""
