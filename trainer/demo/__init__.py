"""What runs without network: a corpus of made telephone speech, and a tiny Fun-ASR-Nano.

`python -m trainer demo` makes the corpus, and with `--rebuild DIR` trains the tiny model from
nothing; a real corpus is prepared in `trainer.prepare`. Begin with `corpus.py`.
"""
