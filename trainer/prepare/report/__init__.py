"""What `prepare` made, for people: a data report that begins with what should be mended.

    from trainer.prepare.report import write
    write(Path("data/calls"))

Begin with `pages.py`, which puts it together: `gather.py` reads the directory once into the records
of `facts.py`, `warnings.py` judges, `tables.py`, `figures.py` and `spectrograms.py` draw. What it
shares with our other documents, words and pages, is `conf.document`.
"""

from trainer.prepare.report.pages import write

__all__ = ["write"]
