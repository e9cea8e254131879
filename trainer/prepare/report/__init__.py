"""What `prepare` made, for people: a data report that begins with what should be mended.

    from trainer.prepare.report import write
    write(Path("data/calls"))

`gather.py` reads the directory once into the records of `facts.py`, `warnings.py` judges,
`tables.py`, `figures.py` and `sounds.py` draw, `report.py` puts it together.
"""

from trainer.prepare.report.pages import write

__all__ = ["write"]
