"""The proof of which configuration keys do something: `python -m trainer effects`.

Each key is followed to those who read it (`trace.py`) and given another value (`watch.py`), in
stock FunASR and in our trainer; trace and trial have to agree, or the row says why they do not.
Begin with `prove.py`; the proven rows are in conf/effects.yaml, and `conf.effects` reads them.
"""
