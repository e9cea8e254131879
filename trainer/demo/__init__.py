"""The embedded default: made telephone speech and a tiny Fun-ASR-Nano, so all runs without network.

`python -m trainer demo` makes the corpus; `python -m trainer demo --rebuild DIR` trains the tiny
model from nothing.
"""
