"""Manifests from recordings and transcripts as people have them: ``python -m trainer prepare``.

Training on manifests is `trainer.data`, and what is told of the prepared data is `report`. Begin
with `job.py`, the whole job, and read on in its order: `inputs.py` with `read_tables.py` and
`read_kaldi.py` (what people have), `filters.py` (why a line is left out), `first_pass.py` (texts
and headers), `split.py`, `second_pass.py` (the audio itself), `write.py`; `passes.py` runs the two
passes in parallel and resumes them.
"""
