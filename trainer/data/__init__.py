"""From a line of a manifest to a batch: reading, features and their cache, packing, loading.

Making manifests is `trainer.prepare`. Begin with `manifest.py`, then `sets.py` and `batch.py`.
"""
