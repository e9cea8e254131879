"""What is tried next and when to stop: study, samplers, pruning, budgets, reuse of epochs trained.

Nothing here runs a trial. Begin with `ledger.py`.
"""
